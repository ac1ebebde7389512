"""The table of LSTM decoders: an image's features and the words so far in, logits of the next word out.

Each decoder is built twice from the same layers: whole captions at once for training, one word a step for captioning.
To add a decoder, write its builder and add a row.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras
import tensorflow as tf
from keras import layers, ops

from caption_generator.files import CaptionError

HEADS = 4  # of attention


@dataclass(frozen=True)
class DecoderSpec:
    """What must be known to build a decoder again.

    Attributes:
        name: a row of `DECODERS`.
        feature_size: length of the image's feature vector, or of the vector at each place of its grid.
        vocabulary_size: words, special tokens included.
        units: width of the LSTM and of the layers around it.
        dropout: share of inputs dropped while training.
    """

    name: str
    feature_size: int
    vocabulary_size: int
    units: int = 256
    dropout: float = 0.5


@dataclass(frozen=True)
class Decoder:
    """A built decoder. All its models share their layers, hence their weights.

    An image may have several captions (the five of the dataset, or the beams of a search). They stand together, the
    same number for each image, and share what is computed from the image alone: captions = images x captions of each.

    Attributes:
        spec: what it was built from.
        model: teacher forcing. (features (images, ...), tokens (captions, length)) to logits of shape
            (captions, length, vocabulary_size): at each place, of the word after it.
        start: features to the list [image, *state] from which decoding starts, each with `images` rows.
        step: [image (images, ...), *state (captions, units), token (captions,)] to the list
            [logits (captions, vocabulary_size), *state].
        answer: the part of `step` after the LSTM, [image, output (captions, units)] to what the last layer reads.
        last: the last layer, from there to logits, with a `kernel` and a `bias`.
        attention: as `model`, to the attention weights of each word, (captions, length, places), which sum to 1 over
            the places of the grid; None where the image has one vector only.
    """

    spec: DecoderSpec
    model: keras.Model
    start: keras.Model
    step: keras.Model
    answer: keras.Model
    last: layers.Layer
    attention: keras.Model | None = None


def build_merge(spec: DecoderSpec) -> Decoder:
    """The merge model: the LSTM reads words alone, and the image is added after it.

    Tanti, Gatt and Camilleri 2017, "What is the role of recurrent neural networks (RNNs) in an image caption
    generator?", with the sizes that made it the classroom's model.
    """
    units = spec.units
    image_dropout = layers.Dropout(spec.dropout, name="image_dropout")
    image_dense = layers.Dense(units, activation="relu", name="image_dense")
    # Without a mask: padding comes last, so that no word reads it, and its own answers have weight 0 in the loss.
    embedding = layers.Embedding(spec.vocabulary_size, units, name="embedding")
    word_dropout = layers.Dropout(spec.dropout, name="word_dropout")
    lstm = layers.LSTM(units, return_sequences=True, name="lstm")
    hidden = layers.Dense(units, activation="relu", name="hidden")
    next_word = layers.Dense(spec.vocabulary_size, name="next_word")

    # Teacher forcing: every word of the caption in one pass.
    features = keras.Input((spec.feature_size,), name="features")
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    image = image_dense(image_dropout(features))
    words = lstm(word_dropout(embedding(tokens)))
    every_caption = ForEachCaption(name="every_caption")(image, words)
    every_word = layers.Reshape((1, units), name="every_word")(every_caption)
    logits = next_word(hidden(layers.Add(name="merge")([every_word, words])))
    model = keras.Model([features, tokens], logits, name="merge_decoder")

    # Captioning: the same layers, one word at a time, with the LSTM's state handed on.
    blank = ops.zeros_like(image)
    start = keras.Model(features, [image, blank, blank], name="start")
    image_in, h_in, c_in = (keras.Input((units,), name=name) for name in ("image", "h", "c"))
    token_in = keras.Input((), dtype="int32", name="token")
    output, (h, c) = lstm.cell(embedding(token_in), [h_in, c_in])
    merged = layers.Add(name="merge_step")([ForEachCaption()(image_in, h_in), h_in])
    answer = keras.Model([image_in, h_in], hidden(merged), name="answer")
    step = keras.Model([image_in, h_in, c_in, token_in], [next_word(answer([image_in, output])), h, c], name="step")
    return Decoder(spec, model, start, step, answer, next_word)


def build_attention(spec: DecoderSpec) -> Decoder:
    """The attention model: the LSTM starts from the whole image, and before each word looks at places of it.

    Xu et al. 2015, "Show, Attend and Tell", brought the grid and the LSTM started from its mean. The LSTM is asked
    first and looks afterwards, as in Luong, Pham and Manning 2015, "Effective Approaches to Attention-based Neural
    Machine Translation": the places looked at do not enter the LSTM, so that teacher forcing computes the attention of
    all words at once. The words' embedding also answers as the last layer (Press and Wolf 2017).
    """
    units, width = spec.units, spec.units // 2
    image_dropout = layers.Dropout(spec.dropout, name="image_dropout")
    values_dense = layers.Dense(units, activation="relu", name="values")
    keys_dense = layers.Dense(units, name="keys")
    mean = layers.GlobalAveragePooling2D(name="mean")
    first_h = layers.Dense(units, activation="tanh", name="first_h")
    first_c = layers.Dense(units, name="first_c")
    # Ten times the usual spread of words: as the last layer, they would else start with logits near 0 and learn slowly.
    spread = keras.initializers.RandomNormal(stddev=0.1)
    embedding = layers.ReversibleEmbedding(spec.vocabulary_size, width, embeddings_initializer=spread, name="embedding")
    word_dropout = layers.Dropout(spec.dropout, name="word_dropout")
    lstm = layers.LSTM(units, return_sequences=True, name="lstm")
    attention = GridAttention(name="attention")
    hidden = layers.Dense(width, activation="tanh", name="hidden")
    hidden_dropout = layers.Dropout(spec.dropout, name="hidden_dropout")

    # Once an image. Keys and values together, so that the image is one tensor.
    features = keras.Input((None, None, spec.feature_size), name="features")
    grid = image_dropout(features)
    values = values_dense(layers.Reshape((-1, spec.feature_size), name="places")(grid))
    image = ByHead(HEADS, name="image")(keys_dense(values), values)
    whole = mean(grid)
    h_0, c_0 = first_h(whole), first_c(whole)
    start = keras.Model(features, [image, h_0, c_0], name="start")

    # Teacher forcing: every word of the caption in one pass.
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    words = word_dropout(embedding(tokens))
    state = [ForEachCaption(name=f"every_{name}")(first, words) for name, first in (("h", h_0), ("c", c_0))]
    outputs = lstm(words, initial_state=state)
    context, weights = attention(outputs, image)
    merged = layers.Concatenate(name="merge")([outputs, context])
    logits = embedding(hidden_dropout(hidden(merged)), reverse=True)
    model = keras.Model([features, tokens], logits, name="attention_decoder")
    attention_weights = keras.Model([features, tokens], weights, name="attention_weights")

    # Captioning: the same layers, one word at a time, with the LSTM's state handed on.
    image_in = keras.Input(image.shape[1:], name="image_in")
    h_in, c_in = (keras.Input((units,), name=name) for name in ("h", "c"))
    token_in = keras.Input((), dtype="int32", name="token")
    query = layers.Reshape((1, units), name="query")(h_in)
    context = layers.Reshape((units,), name="context")(attention(query, image_in)[0])
    merged = layers.Concatenate(name="merge_step")([h_in, context])
    answer = keras.Model([image_in, h_in], hidden(merged), name="answer")
    output, (h, c) = lstm.cell(embedding(token_in), [h_in, c_in])
    last = WordsAsLastLayer(embedding, name="next_word")
    step = keras.Model([image_in, h_in, c_in, token_in], [last(answer([image_in, output])), h, c], name="step")
    return Decoder(spec, model, start, step, answer, last, attention_weights)


def frozen_step(decoder: Decoder) -> Callable[[list[tf.Tensor]], list[tf.Tensor]]:
    """`decoder.step` for weights that change no more, as they do in training; faster where captions are few.

    Such a search spends its time on fetching weights from memory. What a word becomes on its way into the LSTM is the
    same each time, so it is computed here, once, for every word of the vocabulary.
    """
    cell = decoder.model.get_layer("lstm").cell
    words = tf.matmul(decoder.model.get_layer("embedding").embeddings, cell.kernel) + cell.bias
    last = decoder.last
    recurrent, kernel, bias = (
        tf.constant(ops.convert_to_numpy(weight), tf.float32)
        for weight in (cell.recurrent_kernel, last.kernel, last.bias)
    )

    def step(inputs: list[tf.Tensor]) -> list[tf.Tensor]:
        image, h, c, token = inputs
        gates = tf.gather(words, token) + tf.matmul(h, recurrent)
        gate_in, forget, new, gate_out = tf.split(gates, 4, axis=1)
        c = tf.sigmoid(forget) * c + tf.sigmoid(gate_in) * tf.tanh(new)
        h = tf.sigmoid(gate_out) * tf.tanh(c)
        return [tf.matmul(decoder.answer([image, h]), kernel) + bias, h, c]

    return step


@keras.saving.register_keras_serializable("caption_generator")
class ForEachCaption(layers.Layer):
    """Repeats each row of `image` (images, units) for every caption of its image: (captions, units)."""

    def call(self, image, captions):
        images, units = ops.shape(image)[0], ops.shape(image)[-1]
        each = ops.shape(captions)[0] // images
        return ops.reshape(ops.broadcast_to(image[:, None], (images, each, units)), (images * each, units))

    def compute_output_spec(self, image, captions):
        return keras.KerasTensor((captions.shape[0], image.shape[-1]), image.dtype)


class WordsAsLastLayer(layers.Layer):
    """What `embedding(inputs, reverse=True)` computes, for the few rows of a search.

    That one transposes the words' embedding, each time. Here the inputs and the logits are transposed, which are small.
    """

    def __init__(self, embedding: layers.ReversibleEmbedding, **options):
        super().__init__(**options)
        self.embedding, self.bias = embedding, 0.0

    def call(self, inputs):
        return ops.transpose(ops.matmul(self.embedding.embeddings, ops.transpose(inputs)))

    @property
    def kernel(self):
        return ops.transpose(self.embedding.embeddings)


@keras.saving.register_keras_serializable("caption_generator")
class ByHead(layers.Layer):
    """Keys and values, each (images, places, units), as attention reads them: (images, 2, heads, places, size)."""

    def __init__(self, heads: int, **options):
        super().__init__(**options)
        self.heads = heads

    def call(self, keys, values):
        images, places, units = ops.shape(keys)
        both = ops.reshape(ops.stack([keys, values], axis=1), (images, 2, places, self.heads, units // self.heads))
        return ops.transpose(both, (0, 1, 3, 2, 4))

    def compute_output_spec(self, keys, values):
        images, places, units = keys.shape
        return keras.KerasTensor((images, 2, self.heads, places, units // self.heads), keys.dtype)

    def get_config(self) -> dict:
        return super().get_config() | {"heads": self.heads}


@keras.saving.register_keras_serializable("caption_generator")
class GridAttention(layers.Layer):
    """Scaled dot-product attention of words over the places of their image (Vaswani et al. 2017), in several heads.

    `queries` are (captions, length, units). `image` is of `ByHead`, and all captions of an image use the same. Gives
    the context, (captions, length, units), and the mean of the heads' attention weights, (captions, length, places).
    """

    def call(self, queries, image):
        captions, length, units = ops.shape(queries)
        images, _, heads, places, size = ops.shape(image)
        # Words do not look at one another, so the captions of an image can stand in one row.
        rows = captions // images * length
        queries = ops.transpose(ops.reshape(queries, (images, rows, heads, size)), (0, 2, 1, 3))
        weights = ops.softmax(ops.einsum("ihqs,ihps->ihqp", queries, image[:, 0]) / size**0.5)
        context = ops.transpose(ops.matmul(weights, image[:, 1]), (0, 2, 1, 3))
        weights = ops.reshape(ops.mean(weights, axis=1), (captions, length, places))
        return ops.reshape(context, (captions, length, units)), weights

    def compute_output_spec(self, queries, image):
        captions, length, units = queries.shape
        return (
            keras.KerasTensor((captions, length, units), queries.dtype),
            keras.KerasTensor((captions, length, image.shape[3]), queries.dtype),
        )


@dataclass(frozen=True)
class DecoderRow:
    """One decoder.

    Attributes:
        build: its builder.
        pooling: what it reads of an image: "avg", one vector, or "grid", one vector at each place.
        units: the width that suits it.
        dropout: the dropout that suits it.
    """

    build: Callable[[DecoderSpec], Decoder]
    pooling: str
    units: int
    dropout: float


DECODERS: Mapping[str, DecoderRow] = {
    "merge": DecoderRow(build_merge, "avg", 256, 0.5),
    "attention": DecoderRow(build_attention, "grid", 512, 0.4),
}


def decoder_row(name: str) -> DecoderRow:
    """Look a decoder up.

    Raises:
        CaptionError: there is none of that name.
    """
    if name not in DECODERS:
        raise CaptionError(f"there is no decoder {name!r}: choose one of {', '.join(DECODERS)}.")
    return DECODERS[name]


def decoder_spec(name: str, feature_size: int, vocabulary_size: int) -> DecoderSpec:
    """The spec of a decoder with the settings of its row.

    Raises:
        CaptionError: there is none of that name.
    """
    row = decoder_row(name)
    return DecoderSpec(name, feature_size, vocabulary_size, row.units, row.dropout)


def build_decoder(spec: DecoderSpec) -> Decoder:
    """Build the decoder that `spec` describes.

    Raises:
        CaptionError: there is none of that name.
    """
    return decoder_row(spec.name).build(spec)
