"""The table of recurrent cells: what reads the words of a caption, one after the other.

Keras has the layers. What is added here is the arithmetic of one step for weights that change no more, which a search
of few captions runs faster; see `decoders.frozen_step`. To add a cell, write that and add a row.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import tensorflow as tf
from keras import layers

from caption_generator.files import CaptionError

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

    layer: type[layers.RNN]
    states: tuple[str, ...]
    step: Callable[..., State]


def lstm_step(word: tf.Tensor, state: State, kernel: tf.Tensor) -> State:
    """Hochreiter and Schmidhuber 1997, "Long Short-Term Memory", with its later forget gate."""
    h, c = state
    gate_in, forget, new, gate_out = tf.split(word + tf.matmul(h, kernel), 4, axis=1)
    c = tf.sigmoid(forget) * c + tf.sigmoid(gate_in) * tf.tanh(new)
    return [tf.sigmoid(gate_out) * tf.tanh(c), c]


def gru_step(word: tf.Tensor, state: State, kernel: tf.Tensor, bias: tf.Tensor) -> State:
    """Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder", as Keras computes it: it resets
    after the product with the recurrent kernel."""
    [h] = state
    (update, reset, new), before = tf.split(word, 3, axis=1), tf.split(tf.matmul(h, kernel) + bias, 3, axis=1)
    keep = tf.sigmoid(update + before[0])
    new = tf.tanh(new + tf.sigmoid(reset + before[1]) * before[2])
    return [keep * h + (1 - keep) * new]


CELLS: Mapping[str, CellRow] = {
    "lstm": CellRow(layers.LSTM, ("h", "c"), lstm_step),
    "gru": CellRow(layers.GRU, ("h",), gru_step),
}


def cell_row(name: str) -> CellRow:
    """Look a cell up.

    Raises:
        CaptionError: there is none of that name.
    """
    if name not in CELLS:
        raise CaptionError(f"there is no cell {name!r}: choose one of {', '.join(CELLS)}.")
    return CELLS[name]
