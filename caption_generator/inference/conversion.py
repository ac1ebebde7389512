"""A model's networks as `.tflite` files, which LiteRT runs: TensorFlow converts them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from caption_generator.common.console import native_stderr_silenced
from caption_generator.decoders import Decoder
from caption_generator.encoders import Encoder
from caption_generator.inference.exported import fits_half
from caption_generator.inference.folding import encoder_graph

Graph = Any  # a `tf.types.experimental.PolymorphicFunction`, which brings no types


def convert_networks(encoder: Encoder, decoder: Decoder) -> dict[str, bytes]:
    """The networks of an exported model; see `exported.ExportedModel`."""
    start, step = decoder_graphs(decoder, encoder.model.output.shape[1:])
    graphs = {"encoder": encoder_graph(encoder, images=1), "start": start, "step": step}
    return {name: convert(graph) for name, graph in graphs.items()}


def decoder_graphs(decoder: Decoder, features: Sequence[int]) -> tuple[Graph, Graph]:
    """The decoder's two models as functions with their inputs and outputs in a row, as LiteRT has them.

    Args:
        features: the shape of an image's features.

    Returns:
        `start`: features (1, ...) to the image (1, ...) and the initial state, each (1, units).
        `step`: the image (images, ...), tokens (captions,) and the state, each (captions, units), to logits (captions,
        vocabulary_size), the state, and attention weights (captions, positions) if the decoder has them.
    """

    @tf.function(input_signature=[tf.TensorSpec((1, *features), tf.float32, "features")], autograph=False)
    def start(features):
        begun = decoder.start(features)
        return begun["image"], *begun["state"]

    image, *state = start.get_concrete_function().structured_outputs
    signature = [
        tf.TensorSpec((None, *image.shape[1:]), tf.float32, "image"),
        tf.TensorSpec((None,), tf.int32, "token"),
        *(tf.TensorSpec((None, *tensor.shape[1:]), tf.float32, f"state_{n}") for n, tensor in enumerate(state)),
    ]

    @tf.function(input_signature=signature, autograph=False)
    def step(image, token, *state):
        found = decoder.step({"image": image, "state": list(state), "token": token})
        return found["logits"], *found["state"], *([found["attention"]] if "attention" in found else [])

    return start, step


def convert(graph: Graph) -> bytes:
    """A function with one signature as the content of a `.tflite` file.

    Its weights are stored in 16 bits if they lose nothing by it, and the computation stays in 32.
    """
    function = graph.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], function)
    if all(map(fits_half, _constants(function))):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    with native_stderr_silenced():
        return converter.convert()


def _constants(function: tf.types.experimental.ConcreteFunction) -> list[np.ndarray]:
    """The weights of a function: all of its constants in float32 but for a few numbers, as preprocessing has."""
    nodes = convert_variables_to_constants_v2(function).graph.as_graph_def().node
    arrays = (tf.make_ndarray(node.attr["value"].tensor) for node in nodes if node.op == "Const")
    return [array for array in arrays if array.dtype == np.float32 and array.size > 16]
