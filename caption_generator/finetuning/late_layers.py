"""The encoder in two: early layers, whose output is stored, and late layers, which are trained."""

import keras
import tensorflow as tf

from caption_generator.common.errors import CaptionError
from caption_generator.encoders import Encoder, pool
from caption_generator.inference.folding import fold


class LateLayers(keras.Model):
    """The layers of an encoder after its layer `cut`, folded: a step takes eight or nine tenths of the time."""

    def __init__(self, encoder: Encoder, cut: str):
        super().__init__(name="late_layers")
        after = encoder.backbone.layers.index(encoder.backbone.get_layer(cut)) + 1
        self.own = encoder.backbone.layers[after:]  # so that Keras finds their weights
        self.pooling = encoder.pooling
        self.folded = fold(encoder.backbone, after=cut, trainable=True)
        self.built = True  # as its layers are

    def call(self, grids: tf.Tensor) -> tf.Tensor:
        return pool(self.folded(grids), self.pooling)


def split_encoder(encoder: Encoder) -> tuple[keras.Model, LateLayers]:
    """The encoder in two: pixels to the grid after its early layers, and that grid to features.

    Raises:
        CaptionError: the encoder's row does not say where to split it.
    """
    cut = encoder.row.early_layers_end
    if cut is None:
        raise CaptionError(f"the encoder {encoder.row.name} has no early_layers_end in its row: name the layer there.")
    backbone = encoder.backbone
    # Both must be the encoder's own layers: what is trained here is saved there.
    early = keras.Model(backbone.input, backbone.get_layer(cut).output)
    return keras.Model(encoder.model.input, early(encoder.preprocessed), name=f"until_{cut}"), LateLayers(encoder, cut)


def freeze(network: keras.Model, frozen: bool) -> None:
    """Keep the weights of `network` as they are, or let them be trained."""
    for layer in network.layers:  # one by one: the network is new, and does not know what its layers are set to
        layer.trainable = not frozen
