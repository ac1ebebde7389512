"""The table of LSTM decoders: image features and the words so far in, the next word's probabilities out.

Each decoder is built twice from the same layers: whole captions at once for training, one word a step for captioning.
To add a decoder, write its builder and add a row.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras
from keras import layers

from caption_generator.files import CaptionError


@dataclass(frozen=True)
class DecoderSpec:
    """What must be known to build a decoder again.

    Attributes:
        name: a row of `DECODERS`.
        feature_size: length of the image's feature vector.
        vocabulary_size: words, special tokens included.
        units: width of the embedding, of the LSTM and of the layers around it.
        dropout: share of inputs dropped while training.
    """

    name: str
    feature_size: int
    vocabulary_size: int
    units: int = 256
    dropout: float = 0.5


@dataclass(frozen=True)
class Decoder:
    """A built decoder. All three models share their layers, hence their weights.

    Attributes:
        spec: what it was built from.
        model: teacher forcing. (features (batch, feature_size), tokens (batch, length)) to probabilities of shape
            (batch, length, vocabulary_size): at each place, of the word after it.
        start: features to the list [image, *state] from which decoding starts, each of shape (batch, units).
        step: [image, *state, token (batch,)] to the list [probabilities (batch, vocabulary_size), *state].
    """

    spec: DecoderSpec
    model: keras.Model
    start: keras.Model
    step: keras.Model


def build_merge(spec: DecoderSpec) -> Decoder:
    """The merge model: the LSTM reads words alone, and the image is added after it.

    Tanti, Gatt and Camilleri 2017, "What is the role of recurrent neural networks (RNNs) in an image caption
    generator?", with the sizes that made it the classroom's model.
    """
    units = spec.units
    image_dropout = layers.Dropout(spec.dropout, name="image_dropout")
    image_dense = layers.Dense(units, activation="relu", name="image_dense")
    embedding = layers.Embedding(spec.vocabulary_size, units, mask_zero=True, name="embedding")
    word_dropout = layers.Dropout(spec.dropout, name="word_dropout")
    lstm = layers.LSTM(units, return_sequences=True, name="lstm")
    hidden = layers.Dense(units, activation="relu", name="hidden")
    softmax = layers.Dense(spec.vocabulary_size, activation="softmax", name="next_word")

    # Teacher forcing: every word of the caption in one pass.
    features = keras.Input((spec.feature_size,), name="features")
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    image = image_dense(image_dropout(features))
    words = lstm(word_dropout(embedding(tokens)))
    merged = layers.Add(name="merge")([layers.Reshape((1, units), name="every_word")(image), words])
    model = keras.Model([features, tokens], softmax(hidden(merged)), name="merge_decoder")

    # Captioning: the same layers, one word at a time, with the LSTM's state handed on.
    blank = keras.ops.zeros_like(image)
    start = keras.Model(features, [image, blank, blank], name="start")
    image_in, h_in, c_in = (keras.Input((units,), name=name) for name in ("image", "h", "c"))
    token_in = keras.Input((), dtype="int32", name="token")
    word = keras.ops.reshape(embedding(token_in), (-1, units))  # without the mask: no token is padding here
    output, (h, c) = lstm.cell(word, [h_in, c_in])
    probabilities = softmax(hidden(layers.Add(name="merge_step")([image_in, output])))
    step = keras.Model([image_in, h_in, c_in, token_in], [probabilities, h, c], name="step")
    return Decoder(spec, model, start, step)


DECODERS: Mapping[str, Callable[[DecoderSpec], Decoder]] = {"merge": build_merge}


def build_decoder(spec: DecoderSpec) -> Decoder:
    """Build the decoder that `spec` describes.

    Raises:
        CaptionError: there is none of that name.
    """
    if spec.name not in DECODERS:
        raise CaptionError(f"there is no decoder {spec.name!r}: choose one of {', '.join(DECODERS)}.")
    return DECODERS[spec.name](spec)
