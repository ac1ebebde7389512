"""A merge model that Keras 2, or 3 as `.h5`, saved whole."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from caption_generator.checkpoint import Checkpoint
from caption_generator.common.errors import CaptionError, first_line
from caption_generator.common.hdf5 import open_plain
from caption_generator.common.numbers import finite
from caption_generator.decoders import Decoder, DecoderSpec, build_decoder
from caption_generator.encoders import EncoderIdentity
from caption_generator.legacy.features import check_feature_size
from caption_generator.legacy.pickles import Vocabulary
from caption_generator.tokenizer import UNKNOWN, Tokenizer

# The gates of an LSTM by Keras' major version and their name there, and the cell that has them here.
GATES = {("2", "sigmoid"): "lstm", ("3", "sigmoid"): "lstm", ("2", "hard_sigmoid"): "lstm-hard"}
DROPOUTS = ("Dropout", "SpatialDropout1D", "GaussianDropout", "AlphaDropout", "GaussianNoise")  # nothing, once trained
MOST_READ = 8  # layers that one layer reads; those of a merge model read two


@dataclass(frozen=True)
class _Layer:
    """A layer of a saved model, as the file describes it.

    Attributes:
        name: Keras' or its author's.
        kind: the class.
        config: its settings.
        reads: the layers before it, without dropout.
        weights: in the order in which Keras gives and takes them.
    """

    name: str
    kind: str
    config: Mapping[str, Any]
    reads: "list[_Layer]"
    weights: list[np.ndarray]

    def check(self, kind: str, reads: int, **settings: Any) -> "list[_Layer]":
        """The layers before this one, if it is of that kind, reads so many layers and has these settings.

        Raises:
            ValueError: it differs.
        """
        if self.kind != kind:
            raise ValueError(f"the layer {self.name} is of the kind {self.kind}, not {kind}")
        if len(self.reads) != reads:
            raise ValueError(f"the layer {self.name} reads {len(self.reads)} layers, not {reads}")
        for setting, value in settings.items():
            if self.config.get(setting) != value:
                raise ValueError(f"the layer {self.name} has {setting}={self.config.get(setting)!r}, not {value!r}")
        return self.reads


def read_merge_model(
    path: str | Path, vocabulary: Vocabulary, identity: EncoderIdentity, max_length: int | None = None
) -> Checkpoint:
    """Convert a merge model that Keras 2, or 3 as `.h5`, saved whole; its sizes may be any.

    Args:
        vocabulary: the one that it was trained with, from `read_tokenizer`.
        identity: the encoder that it was trained with.
        max_length: words of the longest caption; by default what the model has room for beside the two marks, or
            what `vocabulary` says, if the model has room for any.

    Raises:
        CaptionError: the file is missing or damaged, computes anything else than this project's merge model does, or
            does not fit the vocabulary or the encoder.
    """
    try:
        layers, cell, room = _find_layers(path)
        weights = {name: [finite(name, array) for array in layer.weights] for name, layer in layers.items()}
        decoder = _fill_decoder(weights, cell, path, vocabulary, identity)
    except CaptionError:
        raise
    except Exception as error:  # HDF5, JSON and what is looked up in them raise many kinds
        raise CaptionError(
            f"{path} is not a merge model that can be converted ({first_line(error)}): leave --model out, and train "
            "one with notebook 4."
        ) from error
    longest = max_length or (room - 2 if room else vocabulary.tokenizer.max_length)
    tokenizer = Tokenizer(vocabulary.tokenizer.words, longest)
    return Checkpoint(decoder, tokenizer, identity, training={"dataset": "", "converted_from": Path(path).name})


def _fill_decoder(
    weights: dict[str, list[np.ndarray]],
    cell: str,
    path: str | Path,
    vocabulary: Vocabulary,
    identity: EncoderIdentity,
) -> Decoder:
    """This project's merge decoder with `weights`, by the names of its layers, in the other project's numbering."""
    feature_size, units = weights["image_dense"][0].shape
    rows, embedding_size = weights["embedding"][0].shape
    hidden, columns = weights["next_word"][0].shape
    if rows != columns:
        raise ValueError(f"it reads {rows} words and writes {columns}")
    check_feature_size(f"what {path} reads of an image", feature_size, identity)
    if rows != vocabulary.size:
        raise CaptionError(
            f"{path} knows {rows - 1} words, and the tokenizer {vocabulary.size - 1}: name the tokenizer.p that was "
            "used with this model."
        )
    words = len(vocabulary.tokenizer)
    decoder = build_decoder(
        DecoderSpec("merge", feature_size, words, units, cell=cell, embedding_size=embedding_size, hidden=hidden)
    )
    for name, arrays in _renumber(weights, vocabulary.theirs).items():
        decoder.model.get_layer(name).set_weights(arrays)
    return decoder


def _renumber(weights: dict[str, list[np.ndarray]], theirs: np.ndarray) -> dict[str, list[np.ndarray]]:
    """Put the rows of the embedding and the columns of the last layer in the order of this project's numbers."""
    [words] = weights["embedding"]
    kernel, bias = weights["next_word"]
    words, kernel, bias = words[theirs], kernel[:, theirs], bias[theirs]
    if not theirs[UNKNOWN]:
        # A word that theirs did not know. Its logit is the mean of all, less 20: no picture makes it likely.
        words[UNKNOWN], kernel[:, UNKNOWN], bias[UNKNOWN] = 0, kernel.mean(axis=1), bias.mean() - 20
    return weights | {"embedding": [words], "next_word": [kernel, bias]}


def _find_layers(path: str | Path) -> tuple[dict[str, _Layer], str, int | None]:
    """The layers of a saved merge model by the names that they have here, its cell, and how many words it has room for.

    Raises:
        CaptionError: the file is missing or is not what Keras saved whole.
        Exception: of many kinds, where the file is damaged or the model another.
    """
    last, version = _read_layers(path)
    [hidden] = last.check("Dense", 1, activation="softmax", use_bias=True)
    [merge] = hidden.check("Dense", 1, activation="relu", use_bias=True)
    # The LSTM first, and if there is none, what may stand in its place.
    lstm, image_dense = sorted(merge.check("Add", 2), key=lambda layer: {"LSTM": 0, "Dense": 2}.get(layer.kind, 1))
    [embedding] = lstm.check(
        "LSTM",
        1,
        activation="tanh",
        use_bias=True,
        return_sequences=False,
        go_backwards=False,
        stateful=False,
    )
    gates = lstm.config.get("recurrent_activation")
    cell = GATES.get((version, gates))
    if cell is None:
        raise ValueError(f"the layer {lstm.name} has recurrent_activation={gates!r} of Keras {version}")
    # Their prefixes are padded in front, where only the mask keeps padding from being read.
    [tokens] = embedding.check("Embedding", 1, mask_zero=True)
    [features] = image_dense.check("Dense", 1, activation="relu", use_bias=True)
    tokens.check("InputLayer", 0)
    features.check("InputLayer", 0)
    _, room = tokens.config.get("batch_input_shape") or tokens.config["batch_shape"]
    if room is not None and room < 3:
        raise ValueError(f"it has room for {room} words, which the two marks fill")
    layers = {"image_dense": image_dense, "embedding": embedding, cell: lstm, "hidden": hidden, "next_word": last}
    return layers, cell, room


def _read_layers(path: str | Path) -> tuple[_Layer, str]:
    """The last layer of a saved model, by way of it those before, and Keras' major version."""
    if not Path(path).exists():
        raise CaptionError(f"{path} does not exist: name the .h5 file of the other project.")
    with open_plain(path) as file:
        if "about" in file:
            raise CaptionError(f"{path} is a model of this project already: caption with it as it is.")
        if "model_config" not in file.attrs:
            raise ValueError("it has weights alone, or nothing that model.save wrote")
        model = json.loads(file.attrs["model_config"])
        if model["class_name"] not in ("Functional", "Model"):
            raise ValueError(f"it is of the kind {model['class_name']}, not Functional")
        described = {layer["config"]["name"]: layer for layer in model["config"]["layers"]}
        saved = file["model_weights"]

        @cache
        def build(name: str) -> _Layer:
            kind, config = described[name]["class_name"], described[name]["config"]
            if kind == "Merge" and config["mode"] == "sum":  # before it was called Add
                kind = "Add"
            before = map(build, _names(described[name]["inbound_nodes"]))
            reads = [read for layer in before for read in (layer.reads if layer.kind in DROPOUTS else [layer])]
            reads = [layer for layer in reads if layer.kind != "NotEqual"]  # the mask is a layer to Keras 3
            if len(reads) > MOST_READ:  # or layers that read each other twice would be ever more
                raise ValueError(f"the layer {name!r} reads {len(reads)} layers")
            group = saved.get(name, {})
            names = group.attrs["weight_names"] if group else ()
            return _Layer(name, kind, config, reads, [group[weight][()] for weight in names])

        outputs = list(_names(model["config"]["output_layers"]))
        if len(outputs) != 1:
            raise ValueError(f"it has {len(outputs)} outputs, not 1")
        version = file.attrs.get("keras_version", "2")
        return build(*outputs), "3" if np.bytes_(version).startswith(b"3") else "2"


def _names(description: Any) -> Iterator[str]:
    """The layers that are named as [name, node, tensor, ...], anywhere in a part of a model's description."""
    match description:
        case [str(name), int(), int(), *options]:
            yield name
            yield from _names(options)
        case [*parts]:
            for part in parts:
                yield from _names(part)
        case {}:
            yield from _names([*description.values()])
