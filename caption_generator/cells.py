"""The table of recurrent cells: what reads the words of a caption, one after the other.

Keras has the layers. What is added here is the arithmetic of one step for weights that change no more, which a search
of few captions runs faster; see `decoders.frozen_step`. To add a cell, write that and add a row.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import keras
import tensorflow as tf
from keras import layers, ops

from caption_generator.files import look_up

State = list[tf.Tensor]


@dataclass(frozen=True)
class CellRow:
    """One recurrent cell.

    Attributes:
        layer: its Keras layer.
        states: the names of its state's tensors, each (captions, units); the first is also its output.
        step: what the word becomes on its way in, (captions, gates x units), the state, the recurrent kernel and, if
            there is one, the recurrent bias to the next state.
    """

    layer: Callable[..., layers.RNN]
    states: tuple[str, ...]
    step: Callable[..., State]


def lstm_step(word: tf.Tensor, state: State, kernel: tf.Tensor, gate: Callable = tf.sigmoid) -> State:
    """Hochreiter and Schmidhuber 1997, "Long Short-Term Memory", with its later forget gate."""
    h, c = state
    gate_in, forget, new, gate_out = tf.split(word + tf.matmul(h, kernel), 4, axis=1)
    c = gate(forget) * c + gate(gate_in) * tf.tanh(new)
    return [gate(gate_out) * tf.tanh(c), c]


def gru_step(word: tf.Tensor, state: State, kernel: tf.Tensor, bias: tf.Tensor) -> State:
    """Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder", as Keras computes it: it resets
    after the product with the recurrent kernel."""
    [h] = state
    (update, reset, new), before = tf.split(word, 3, axis=1), tf.split(tf.matmul(h, kernel) + bias, 3, axis=1)
    keep = tf.sigmoid(update + before[0])
    new = tf.tanh(new + tf.sigmoid(reset + before[1]) * before[2])
    return [keep * h + (1 - keep) * new]


@keras.saving.register_keras_serializable("caption_generator")
def old_hard_sigmoid(x: tf.Tensor) -> tf.Tensor:
    """The gate of an LSTM before Keras 2.3; what Keras 3 calls so is less steep."""
    return ops.clip(0.2 * x + 0.5, 0, 1)


CELLS: Mapping[str, CellRow] = {
    "lstm": CellRow(layers.LSTM, ("h", "c"), lstm_step),
    # For models of those years, which cannot do with another gate; nobody needs to train one.
    "lstm-hard": CellRow(
        partial(layers.LSTM, recurrent_activation=old_hard_sigmoid),
        ("h", "c"),
        partial(lstm_step, gate=old_hard_sigmoid),
    ),
    "gru": CellRow(layers.GRU, ("h",), gru_step),
}


def cell_row(name: str) -> CellRow:
    """Look a cell up.

    Raises:
        CaptionError: there is none of that name.
    """
    return look_up("cell", name, CELLS)
