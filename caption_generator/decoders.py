"""The table of decoders: an image's features and the words so far in, logits of the next word out.

Each decoder is built twice from the same layers: whole captions at once for training, one word a step for captioning.
They differ in how the image enters. To add one, write a class like those here and add a row.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras
import tensorflow as tf
from keras import layers, ops

from caption_generator.attention import ByHead, ForEachCaption, GridAttention, WordsAsLastLayer
from caption_generator.cells import State, cell_row
from caption_generator.files import look_up

HEADS = 4  # of attention


@dataclass(frozen=True)
class DecoderSpec:
    """What must be known to build a decoder again.

    Attributes:
        name: a row of `DECODERS`: how the image enters.
        feature_size: length of the image's feature vector, or of the vector at each place of its grid.
        vocabulary_size: words, special tokens included.
        units: width of the recurrent cell and of the layers beside it.
        dropout: share of inputs dropped while training.
        cell: a row of `CELLS`.
        embedding_size: numbers that stand for a word.
        frozen_words: these numbers are not trained, as those of pretrained word vectors may be.
        hidden: width of the layer before the last, where the decoder has one of its own.
    """

    name: str
    feature_size: int
    vocabulary_size: int
    units: int = 256
    dropout: float = 0.5
    cell: str = "lstm"
    embedding_size: int = 256
    frozen_words: bool = False
    hidden: int = 256


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
        answer: the part of `step` after the cell, [image, output (captions, units)] to what the last layer reads.
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


class Merge:
    """The merge model: the cell reads words alone, and the image is added to what it made of them.

    Tanti, Gatt and Camilleri 2017, "What is the role of recurrent neural networks (RNNs) in an image caption
    generator?", with the sizes that made it the classroom's model.
    """

    def __init__(self, spec: DecoderSpec):
        self.image_dropout = layers.Dropout(spec.dropout, name="image_dropout")
        self.image_dense = layers.Dense(spec.units, activation="relu", name="image_dense")
        self.embedding = embedding(spec)
        self.every_caption = ForEachCaption(name="every_caption")
        self.every_word = layers.Reshape((1, spec.units), name="every_word")
        self.merge = layers.Add(name="merge")
        self.hidden = layers.Dense(spec.hidden, activation="relu", name="hidden")
        self.last = layers.Dense(spec.vocabulary_size, name="next_word")

    def see(self, features):
        return self.image_dense(self.image_dropout(features)), None

    def join(self, image, outputs):
        every_word = self.every_word(self.every_caption(image, outputs))
        return self.merge([every_word, outputs]), None

    def answer(self, joined):
        return self.hidden(joined)

    def logits(self, answers):
        return self.last(answers)


class InitialState:
    """The image is what the cell starts from, and is not shown again.

    The simplest way to tell a recurrent cell of the image; Vinyals et al. 2015, "Show and Tell", show it once, too, as
    if it were the first word.
    """

    def __init__(self, spec: DecoderSpec):
        self.image_dropout = layers.Dropout(spec.dropout, name="image_dropout")
        self.first = first_state(spec)
        self.embedding = embedding(spec)
        self.output_dropout = layers.Dropout(spec.dropout, name="output_dropout")
        self.last = layers.Dense(spec.vocabulary_size, name="next_word")

    def see(self, features):
        seen = self.image_dropout(features)
        state = [dense(seen) for dense in self.first]
        return state[0], state  # the first for want of an image: nothing is kept of it

    def join(self, image, outputs):
        return outputs, None

    def answer(self, joined):
        return self.output_dropout(joined)

    def logits(self, answers):
        return self.last(answers)


class Attention:
    """The attention model: the cell starts from the whole image, and before each word looks at places of it.

    Xu et al. 2015, "Show, Attend and Tell", brought the grid and the LSTM started from its mean. The cell is asked
    first and looks afterwards, as in Luong, Pham and Manning 2015, "Effective Approaches to Attention-based Neural
    Machine Translation": the places looked at do not enter the cell, so that teacher forcing computes the attention of
    all words at once. The words' embedding also answers as the last layer (Press and Wolf 2017).
    """

    def __init__(self, spec: DecoderSpec):
        self.image_dropout = layers.Dropout(spec.dropout, name="image_dropout")
        self.places = layers.Reshape((-1, spec.feature_size), name="places")
        self.values = layers.Dense(spec.units, activation="relu", name="values")
        self.keys = layers.Dense(spec.units, name="keys")
        self.image = ByHead(HEADS, name="image")  # keys and values together, so that the image is one tensor
        self.mean = layers.GlobalAveragePooling2D(name="mean")
        self.first = first_state(spec)
        # Ten times the usual spread of words: as the last layer, they would else start with logits near 0 and learn
        # slowly.
        spread = keras.initializers.RandomNormal(stddev=0.1)
        self.embedding = layers.ReversibleEmbedding(
            spec.vocabulary_size,
            spec.embedding_size,
            embeddings_initializer=spread,
            trainable=not spec.frozen_words,
            name="embedding",
        )
        self.attention = GridAttention(name="attention")
        self.merge = layers.Concatenate(name="merge")
        self.hidden = layers.Dense(spec.embedding_size, activation="tanh", name="hidden")
        self.hidden_dropout = layers.Dropout(spec.dropout, name="hidden_dropout")
        self.last = WordsAsLastLayer(self.embedding, name="next_word")

    def see(self, features):
        grid = self.image_dropout(features)
        values = self.values(self.places(grid))
        image = self.image(self.keys(values), values)
        whole = self.mean(grid)
        return image, [dense(whole) for dense in self.first]

    def join(self, image, outputs):
        context, weights = self.attention(outputs, image)
        return self.merge([outputs, context]), weights

    def answer(self, joined):
        return self.hidden_dropout(self.hidden(joined))

    def logits(self, answers):
        return self.embedding(answers, reverse=True)


def embedding(spec: DecoderSpec) -> layers.Embedding:
    """Words to vectors. Without a mask: padding comes last, so that no word reads it, and its own answers have weight 0
    in the loss."""
    return layers.Embedding(
        spec.vocabulary_size, spec.embedding_size, trainable=not spec.frozen_words, name="embedding"
    )


def first_state(spec: DecoderSpec) -> list[layers.Dense]:
    """What turns an image into the state that a cell starts from; an output, `h`, lies between -1 and 1."""
    return [
        layers.Dense(spec.units, activation="tanh" if name == "h" else None, name=f"first_{name}")
        for name in cell_row(spec.cell).states
    ]


def build_decoder(spec: DecoderSpec) -> Decoder:
    """Build the decoder that `spec` describes.

    Raises:
        CaptionError: it names a decoder or a cell that there is not.
    """
    row, cell = decoder_row(spec.name), cell_row(spec.cell)
    parts = row.parts(spec)
    recurrent = cell.layer(spec.units, return_sequences=True, name=spec.cell)
    word_dropout = layers.Dropout(spec.dropout, name="word_dropout")

    # Once an image. Without a first state of its own, the cell starts from zeros.
    features = keras.Input({"avg": (), "grid": (None, None)}[row.pooling] + (spec.feature_size,), name="features")
    image, first = parts.see(features)
    blank = [ops.zeros_like(image) for _ in cell.states] if first is None else first
    start = keras.Model(features, [image, *blank], name="start")

    # Teacher forcing: every word of the caption in one pass.
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    words = word_dropout(parts.embedding(tokens))
    state = first and [
        ForEachCaption(name=f"every_{name}")(tensor, words) for name, tensor in zip(cell.states, first, strict=True)
    ]
    joined, weights = parts.join(image, recurrent(words, initial_state=state))
    model = keras.Model([features, tokens], parts.logits(parts.answer(joined)), name=f"{spec.name}_decoder")
    looks = None if weights is None else keras.Model([features, tokens], weights, name="attention_weights")

    # Captioning: the same layers, one word at a time, with the cell's state handed on.
    image_in = keras.Input(image.shape[1:], name="image_in")
    state_in = [keras.Input((spec.units,), name=name) for name in cell.states]
    token_in = keras.Input((), dtype="int32", name="token")
    joined, _ = parts.join(image_in, layers.Reshape((1, spec.units), name="one_word")(state_in[0]))
    joined = layers.Reshape((joined.shape[-1],), name="joined")(joined)
    answer = keras.Model([image_in, state_in[0]], parts.answer(joined), name="answer")
    output, state = recurrent.cell(parts.embedding(token_in), state_in)
    logits = parts.last(answer([image_in, output]))
    step = keras.Model([image_in, *state_in, token_in], [logits, *state], name="step")
    return Decoder(spec, model, start, step, answer, parts.last, looks)


def frozen_step(decoder: Decoder) -> Callable[[State], State]:
    """`decoder.step` for weights that change no more, as they do in training; faster where captions are few.

    Such a search spends its time on fetching weights from memory. What a word becomes on its way into the cell is the
    same each time, so it is computed here, once, for every word of the vocabulary.
    """
    spec, last = decoder.spec, decoder.last
    advance, cell = cell_row(spec.cell).step, decoder.model.get_layer(spec.cell).cell
    # An LSTM has one bias, added to the word. A GRU has a second, for its state.
    word_bias, *state_bias = tf.reshape(cell.bias, (-1, cell.bias.shape[-1]))
    words = tf.matmul(decoder.model.get_layer("embedding").embeddings, cell.kernel) + word_bias
    recurrent, kernel, bias = (
        tf.constant(ops.convert_to_numpy(weight), tf.float32)
        for weight in (cell.recurrent_kernel, last.kernel, last.bias)
    )

    def step(inputs: State) -> State:
        image, *state, token = inputs
        state = advance(tf.gather(words, token), state, recurrent, *state_bias)
        return [tf.matmul(decoder.answer([image, state[0]]), kernel) + bias, *state]

    return step


@dataclass(frozen=True)
class DecoderRow:
    """One decoder.

    Attributes:
        parts: the class of its layers. From a spec it makes an `embedding` of words and what `build_decoder` joins:
            `see`, features to what is kept of the image and the cell's first state (None: zeros); `join`, the image
            and the cell's outputs to both together and the attention weights (None where it has no attention);
            `answer`, these to what the last layer reads; `logits`, that to logits; `last`, the same for one word.
        pooling: what it reads of an image: "avg", one vector, or "grid", one vector at each place.
    """

    parts: Callable[[DecoderSpec], "Merge | InitialState | Attention"]
    pooling: str


DECODERS: Mapping[str, DecoderRow] = {
    "merge": DecoderRow(Merge, "avg"),
    "initial_state": DecoderRow(InitialState, "avg"),
    "attention": DecoderRow(Attention, "grid"),
}


def decoder_row(name: str) -> DecoderRow:
    """Look a decoder up.

    Raises:
        CaptionError: there is none of that name.
    """
    return look_up("decoder", name, DECODERS)
