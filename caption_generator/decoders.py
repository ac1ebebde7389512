"""The decoders: an image's features and the sentence so far go in, and logits of the next word come out.

All decoders read the words with a recurrent layer. They differ in where the image meets the sentence:

    MergeDecoder          after the LSTM has read the words: the image's vector is added to its output
    InitialStateDecoder   before the first word: the LSTM starts from the image
    AttentionDecoder      before the first word and after each: the LSTM's output chooses where to look in a grid

To add a decoder, write such a class and give it a row in `DECODERS`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import keras
import numpy as np
import tensorflow as tf
from keras import KerasTensor, layers, ops

import caption_generator.common.keras_settings  # noqa: F401 (before any network is built)
from caption_generator.attention import GridAttention, RepeatForCaptions
from caption_generator.common.errors import look_up


@dataclass(frozen=True)
class DecoderSpec:
    """The settings of a decoder. With them it can be built again, so a checkpoint stores them.

    Attributes:
        name: a row of `DECODERS`.
        feature_size: length of the image's feature vector, or of the vector at each position of its grid. The table of
            systems leaves it 0, because it depends on the encoder.
        vocabulary_size: number of words, special tokens included; 0 likewise.
        units: width of the recurrent layer and of the layers beside it.
        dropout: the fraction of inputs that training drops.
        cell: a row of `CELLS`.
        embedding_size: length of a word vector.
        frozen_words: keep the word vectors as they are, for example those of GloVe.
        hidden: width of the layer before the last, in a decoder that has one of its own.
    """

    name: str
    feature_size: int = 0
    vocabulary_size: int = 0
    units: int = 256
    dropout: float = 0.5
    cell: str = "lstm"
    embedding_size: int = 256
    frozen_words: bool = False
    hidden: int = 256


class DecoderLayers(ABC):
    """The layers of a decoder and how they connect. `build_decoder` makes Keras models of them.

    Attributes:
        pooling: which features of the image it reads: "avg", one vector, or "grid", one vector at each position.
    """

    pooling = "avg"

    def __init__(self, spec: DecoderSpec):
        self.image_dropout = layers.Dropout(spec.dropout, name="image_dropout")
        self.word_dropout = layers.Dropout(spec.dropout, name="word_dropout")
        # Without a mask: padding comes last, so no word reads it, and the loss gives it weight 0.
        self.embedding = layers.Embedding(
            spec.vocabulary_size, spec.embedding_size, trainable=not spec.frozen_words, name="embedding"
        )
        self.rnn = cell_row(spec.cell).layer(spec.units, return_sequences=True, return_state=True, name=spec.cell)

    @abstractmethod
    def encode_image(self, features: KerasTensor) -> tuple[KerasTensor, list[KerasTensor] | None]:
        """Encode the image once, before the first word.

        Args:
            features: (images, feature_size), or (images, height, width, feature_size) for a grid.

        Returns:
            What the decoder keeps of the image, (images, ...), and the initial state of the recurrent layer, a list of
            (images, units), or None for zeros.
        """

    def read_words(self, tokens: KerasTensor, state: list[KerasTensor] | None) -> tuple[KerasTensor, list[KerasTensor]]:
        """Read the words: tokens (captions, length) to outputs (captions, length, units), and the state after them."""
        outputs, *state = self.rnn(self.word_dropout(self.embedding(tokens)), initial_state=state)
        return outputs, state

    def read_word(self, token: KerasTensor, state: list[KerasTensor]) -> tuple[KerasTensor, list[KerasTensor]]:
        """Read one word: token (captions,) to output (captions, 1, units), and the state after it."""
        output, state = self.rnn.cell(self.embedding(token), state)
        return ops.expand_dims(output, 1), state

    @abstractmethod
    def predict_next(self, image: KerasTensor, outputs: KerasTensor) -> tuple[KerasTensor, KerasTensor | None]:
        """Predict the word that follows each word.

        Args:
            image: from `encode_image`, (images, ...).
            outputs: of the recurrent layer, (captions, length, units). The captions of an image stand together, the
                same number for each image.

        Returns:
            Logits, (captions, length, vocabulary_size), and attention weights, (captions, length, positions), or None.
        """


class MergeDecoder(DecoderLayers):
    """The merge model: the LSTM reads the words alone, and the image's vector is added to its output.

    Tanti, Gatt and Camilleri 2017, "What is the role of recurrent neural networks (RNNs) in an image caption
    generator?"
    """

    def __init__(self, spec: DecoderSpec):
        super().__init__(spec)
        self.image_dense = layers.Dense(spec.units, activation="relu", name="image_dense")
        self.every_caption = RepeatForCaptions(name="every_caption")
        self.every_word = layers.Reshape((1, spec.units), name="every_word")
        self.merge = layers.Add(name="merge")
        self.hidden = layers.Dense(spec.hidden, activation="relu", name="hidden")
        self.next_word = layers.Dense(spec.vocabulary_size, name="next_word")

    def encode_image(self, features):
        return self.image_dense(self.image_dropout(features)), None

    def predict_next(self, image, outputs):
        image = self.every_word(self.every_caption(image, outputs))
        merged = self.merge([image, outputs])
        return self.next_word(self.hidden(merged)), None


class InitialStateDecoder(DecoderLayers):
    """The LSTM starts from the image and does not see it again.

    Vinyals et al. 2015, "Show and Tell", also show the image once, as if it were the first word.
    """

    def __init__(self, spec: DecoderSpec):
        super().__init__(spec)
        self.initial_state = initial_state_layers(spec)
        self.output_dropout = layers.Dropout(spec.dropout, name="output_dropout")
        self.next_word = layers.Dense(spec.vocabulary_size, name="next_word")

    def encode_image(self, features):
        image = self.image_dropout(features)
        state = [dense(image) for dense in self.initial_state]
        return state[0], state  # nothing else is kept of the image

    def predict_next(self, image, outputs):
        return self.next_word(self.output_dropout(outputs)), None


class AttentionDecoder(DecoderLayers):
    """The LSTM starts from the whole image, and its output at each word chooses where to look for the next one.

    Xu et al. 2015, "Show, Attend and Tell", attend to a grid and start the LSTM from its mean. As in Luong, Pham and
    Manning 2015, "Effective Approaches to Attention-based Neural Machine Translation", attention follows the LSTM and
    does not feed it. So teacher forcing computes the attention of all words at once. The word vectors are also the
    weights of the last layer (Press and Wolf 2017, "Using the Output Embedding to Improve Language Models").
    """

    pooling = "grid"

    def __init__(self, spec: DecoderSpec):
        super().__init__(spec)
        self.positions = layers.Reshape((-1, spec.feature_size), name="positions")
        self.values = layers.Dense(spec.units, activation="relu", name="values")
        self.keys = layers.Dense(spec.units, name="keys")
        self.image = layers.Concatenate(name="image")
        self.mean = layers.GlobalAveragePooling2D(name="mean")
        self.initial_state = initial_state_layers(spec)
        self.embedding = layers.ReversibleEmbedding(
            spec.vocabulary_size,
            spec.embedding_size,
            # Keras' usual range is ten times smaller. The logits would start near 0, and training would start slowly.
            embeddings_initializer=keras.initializers.RandomNormal(stddev=0.1),
            trainable=not spec.frozen_words,
            name="embedding",
        )
        self.attention = GridAttention(name="attention")
        self.merge = layers.Concatenate(name="merge")
        self.hidden = layers.Dense(spec.embedding_size, activation="tanh", name="hidden")
        self.hidden_dropout = layers.Dropout(spec.dropout, name="hidden_dropout")

    def encode_image(self, features):
        grid = self.image_dropout(features)
        values = self.values(self.positions(grid))
        image = self.image([self.keys(values), values])
        return image, [dense(self.mean(grid)) for dense in self.initial_state]

    def predict_next(self, image, outputs):
        context, weights = self.attention(outputs, image)
        hidden = self.hidden(self.merge([outputs, context]))
        return self.embedding(self.hidden_dropout(hidden), reverse=True), weights


DECODERS: Mapping[str, type[DecoderLayers]] = {
    "merge": MergeDecoder,
    "initial_state": InitialStateDecoder,
    "attention": AttentionDecoder,
}


def decoder_row(name: str) -> type[DecoderLayers]:
    """Look a decoder up.

    Raises:
        CaptionError: there is none of that name.
    """
    return look_up("decoder", name, DECODERS)


@dataclass(frozen=True)
class CellRow:
    """A recurrent layer.

    Attributes:
        layer: the Keras layer.
        states: the names of its state's tensors, each (captions, units). The first is also its output.
    """

    layer: Callable[..., layers.RNN]
    states: tuple[str, ...]


@keras.saving.register_keras_serializable("caption_generator")
def old_hard_sigmoid(x: tf.Tensor) -> tf.Tensor:
    """The hard sigmoid of Keras before version 2.3. The function of that name in Keras 3 has another slope."""
    return ops.clip(0.2 * x + 0.5, 0, 1)


CELLS: Mapping[str, CellRow] = {
    "lstm": CellRow(layers.LSTM, ("h", "c")),
    "gru": CellRow(layers.GRU, ("h",)),
    # Models that Keras before 2.3 trained need this one.
    "lstm-hard": CellRow(partial(layers.LSTM, recurrent_activation=old_hard_sigmoid), ("h", "c")),
}


def cell_row(name: str) -> CellRow:
    """Look a recurrent layer up.

    Raises:
        CaptionError: there is none of that name.
    """
    return look_up("cell", name, CELLS)


def initial_state_layers(spec: DecoderSpec) -> list[layers.Dense]:
    """One dense layer for each tensor of the initial state. The output `h` lies between -1 and 1, hence its tanh."""
    return [
        layers.Dense(spec.units, activation="tanh" if name == "h" else None, name=f"first_{name}")
        for name in cell_row(spec.cell).states
    ]


State = Sequence[np.ndarray]


@dataclass(frozen=True)
class Decoder:
    """A built decoder: the same layers as one model for training and two for captioning, with shared weights.

    Attributes:
        spec: its settings.
        model: teacher forcing. Features (images, ...) and tokens (captions, length) to logits (captions, length,
            vocabulary_size): at each position those of the word after it. The captions of an image stand together, the
            same number for each image, so that it is encoded once.
        start: features (images, ...) to {"image": (images, ...), "state": list of (images, units)}.
        step: {"image": (images, ...), "state": list of (captions, units), "token": (captions,)} to {"logits":
            (captions, vocabulary_size), "state": likewise} and, with attention, {"attention": (captions, positions)}.
    """

    spec: DecoderSpec
    model: keras.Model
    start: keras.Model
    step: keras.Model

    def begin(self, features: np.ndarray, copies: int) -> tuple[tf.Tensor, State]:
        """See `search.StepwiseDecoder`."""
        begun = self._start(tf.constant(features, tf.float32))
        return begun["image"], [np.repeat(tensor.numpy(), copies, axis=0) for tensor in begun["state"]]

    def advance(
        self, image: tf.Tensor, state: State, tokens: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None, State]:
        """See `search.StepwiseDecoder`."""
        state = [tf.constant(tensor) for tensor in state]
        found = self._step({"image": image, "state": state, "token": tf.constant(tokens, tf.int32)})
        attention = found["attention"].numpy() if "attention" in found else None
        return found["logits"].numpy(), attention, [tensor.numpy() for tensor in found["state"]]

    @cached_property
    def _start(self) -> Callable:
        return tf.function(self.start, reduce_retracing=True, autograph=False)

    @cached_property
    def _step(self) -> Callable:
        return tf.function(self.step, reduce_retracing=True, autograph=False)


def build_decoder(spec: DecoderSpec) -> Decoder:
    """Build the decoder that `spec` describes, with random weights.

    Raises:
        CaptionError: there is no such decoder or cell.
    """
    network, cell = decoder_row(spec.name)(spec), cell_row(spec.cell)

    # Before the first word: encode the image.
    features = keras.Input({"avg": (), "grid": (None, None)}[network.pooling] + (spec.feature_size,), name="features")
    image, state = network.encode_image(features)
    zeros = ops.zeros_like(image[..., :1]) * ops.zeros((1, spec.units)) if state is None else None
    start = keras.Model(features, {"image": image, "state": state or [zeros] * len(cell.states)}, name="start")

    # Training: all words of a caption at once.
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    first = state and [RepeatForCaptions(name=f"every_{n}")(s, tokens) for n, s in zip(cell.states, state, strict=True)]
    outputs, _ = network.read_words(tokens, first)
    logits, _ = network.predict_next(image, outputs)
    model = keras.Model([features, tokens], logits, name=f"{spec.name}_decoder")

    # Captioning: one word, and the state from the words before it.
    image_in = keras.Input(image.shape[1:], name="image")
    state_in = [keras.Input((spec.units,), name=name) for name in cell.states]
    token_in = keras.Input((), dtype="int32", name="token")
    output, state = network.read_word(token_in, state_in)
    logits, weights = network.predict_next(image_in, output)
    found = {"logits": logits[:, 0], "state": state} | ({} if weights is None else {"attention": weights[:, 0]})
    step = keras.Model({"image": image_in, "state": state_in, "token": token_in}, found, name="step")
    return Decoder(spec, model, start, step)
