"""Coming over from Keras 2: `python -m caption_generator.legacy --tokenizer tokenizer.p --out FOLDER`.

The projects that this one descends from leave a pickled Keras `Tokenizer`, a `features.p` and a merge model saved whole
as `.h5`. Here these become this project's own, so that nothing has to be extracted or trained again. Such files come
from anyone. Pickles are therefore read with inert stand-ins for the few classes that belong in them, and of a model the
description is read as text and the weights as arrays: nothing that a file names is ever run.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from caption_generator.arguments import positive
from caption_generator.files import CaptionError, PlainUnpickler, first_line
from caption_generator.quiet import load_tensorflow
from caption_generator.tokenizer import SPECIAL_TOKENS, UNKNOWN, Tokenizer
from caption_generator.workspace import Workspace

if TYPE_CHECKING:  # TensorFlow takes seconds to load, and a tokenizer does without it
    from caption_generator.checkpoint import Checkpoint
    from caption_generator.decoders import Decoder
    from caption_generator.encoders import EncoderIdentity
    from caption_generator.features import Features

# What the projects put around a caption. Keras' Tokenizer strips the brackets of <start>, and leaves an ordinary word.
MARKS = (("startseq", "endseq"), ("<start>", "<end>"), ("start", "end"))
MAX_LENGTH = 32  # of Flickr8k's captions, in words
# The gates of an LSTM by Keras' major version and their name there, and the cell that has them here.
GATES = {("2", "sigmoid"): "lstm", ("3", "sigmoid"): "lstm", ("2", "hard_sigmoid"): "lstm-hard"}
DROPOUTS = ("Dropout", "SpatialDropout1D", "GaussianDropout", "AlphaDropout", "GaussianNoise")  # nothing, once trained


class _OldTokenizer:
    """Stands in for Keras' Tokenizer of any version: holds the attributes that a pickle gives it, and does nothing."""

    attributes: Any = None

    def __setstate__(self, state: Any) -> None:
        self.attributes = state  # apart from its own, so that no pickle brings a method


class _OldUnpickler(PlainUnpickler):
    """Builds plain data, and what a pickled Tokenizer is made of; refuses everything else."""

    stand_ins: Mapping[str, Callable] = {
        "collections.OrderedDict": dict,
        "collections.defaultdict": lambda *_: {},
        "copyreg._reconstructor": lambda *_: _OldTokenizer(),  # how protocols 0 and 1 make an object
        "copy_reg._reconstructor": lambda *_: _OldTokenizer(),  # in Python 2
        **dict.fromkeys(("builtins.int", "__builtin__.int", "__builtin__.long"), int),
        **dict.fromkeys(("builtins.object", "__builtin__.object"), object),
    }

    def find_class(self, module: str, name: str) -> Any:
        if name == "Tokenizer" and module.endswith("preprocessing.text"):
            return _OldTokenizer
        return self.stand_ins.get(f"{module}.{name}") or super().find_class(module, name)


def _unpickle(path: str | Path) -> Any:
    """The first value of a pickle that Python 2 or 3 wrote."""
    try:
        with open(path, "rb") as file:
            try:
                return _OldUnpickler(file, encoding="utf-8").load()
            except ValueError:  # Python 2 spells arrays as text, too, and that one is not UTF-8
                file.seek(0)
                return _OldUnpickler(file, encoding="latin1").load()
    except FileNotFoundError:
        raise CaptionError(f"{path} does not exist: name the file that the other project wrote.") from None
    except OSError as error:
        raise CaptionError(f"cannot read {path}: {error.strerror}.") from error
    except Exception as error:  # a torn or foreign pickle can raise nearly anything
        raise CaptionError(
            f"{path} is neither a pickled Keras Tokenizer nor pickled features ({first_line(error)}): name another "
            "file, or make a new one with the notebooks."
        ) from error


@dataclass(frozen=True)
class Vocabulary:
    """A vocabulary that was taken over, and how it was numbered.

    Attributes:
        tokenizer: the words with this project's numbers.
        theirs: int64 of shape (words,): for each of this project's numbers the other project's, 0 for none.
        size: how many numbers the other project's models tell apart, 0 for padding included.
    """

    tokenizer: Tokenizer
    theirs: np.ndarray
    size: int


def read_tokenizer(path: str | Path, max_length: int = MAX_LENGTH) -> Vocabulary:
    """Take over a pickled Keras Tokenizer. Its marks and its `oov_token` become special tokens.

    Args:
        path: what `pickle.dump` wrote of it, by any version of Keras and of Python.
        max_length: words of the longest caption, which such a file does not know.

    Raises:
        CaptionError: the file is missing, torn, names anything but a Tokenizer, or lacks words or marks.
    """
    loaded = _unpickle(path)
    attributes = loaded.attributes if isinstance(loaded, _OldTokenizer) else None
    if not isinstance(attributes, dict):
        raise CaptionError(f"{path} does not hold a Keras Tokenizer: name the tokenizer.p of the other project.")
    numbers = attributes.get("word_index")
    if not _are_numbered(numbers):
        raise CaptionError(
            f"the Tokenizer in {path} has no word_index that numbers words from 1 on without a hole: "
            "make a vocabulary with notebook 3."
        )
    marks = next((pair for pair in MARKS if all(mark in numbers for mark in pair)), None)
    if marks is None:
        raise CaptionError(
            f"the words in {path} have no marks for where a caption starts and ends, "
            f"such as {' and '.join(MARKS[0])}: make a vocabulary with notebook 3."
        )
    oov = attributes.get("oov_token")
    unknown = oov if isinstance(oov, str) else "<unk>"
    taken = {*marks, unknown, *SPECIAL_TOKENS}
    words = [word for word in sorted(numbers, key=numbers.__getitem__) if word not in taken]
    theirs = [0, *(numbers.get(word, 0) for word in (*marks, unknown, *words))]
    return Vocabulary(Tokenizer([*SPECIAL_TOKENS, *words], max_length), np.array(theirs), len(numbers) + 1)


def _are_numbered(numbers: Any) -> bool:
    """Whether `numbers` has a word for each number from 1 on, the last of Keras' Tokenizers being `len(numbers)`."""
    return (
        isinstance(numbers, dict)
        and all(type(word) is str and type(number) is int for word, number in numbers.items())
        and sorted(numbers.values()) == list(range(1, len(numbers) + 1))
    )


def read_features(path: str | Path, identity: "EncoderIdentity") -> "Features":
    """Take over a pickled dictionary of image names to float arrays of shape (1, feature_size) or (feature_size,).

    Args:
        identity: the encoder that made them, on the word of the user, for the file does not say.

    Returns:
        Features in float32; names without a suffix get `.jpg`.

    Raises:
        CaptionError: the file is missing, torn, holds something else, or vectors of another length than the encoder's.
    """
    from caption_generator.features import Features

    loaded = _unpickle(path)
    if not isinstance(loaded, dict) or not loaded or not all(_is_vector(*item) for item in loaded.items()):
        raise CaptionError(
            f"{path} does not hold a feature vector for each image name: name the features.p of the other project."
        )
    for name, vector in loaded.items():
        _check_feature_size(f"the vector of {name} in {path}", vector.size, identity)
    return Features(
        {
            name if Path(name).suffix else f"{name}.jpg": vector.astype(np.float32).reshape(-1)
            for name, vector in loaded.items()
        },
        identity,
    )


def _is_vector(name: Any, value: Any) -> bool:
    is_float = isinstance(value, np.ndarray) and value.dtype.kind == "f"
    return isinstance(name, str) and is_float and value.ndim in (1, 2) and value.size == value.shape[-1]


def _check_feature_size(what: str, size: int, identity: "EncoderIdentity") -> None:
    if size != identity.feature_size:
        raise CaptionError(
            f"{what} has {size} numbers, and the encoder {identity.name} makes {identity.feature_size}: "
            "name the encoder that was used with --encoder."
        )


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
    path: str | Path, vocabulary: Vocabulary, identity: "EncoderIdentity", max_length: int | None = None
) -> "Checkpoint":
    """Take over a merge model that Keras 2, or 3 as `.h5`, saved whole; its sizes may be any.

    Args:
        vocabulary: the one that it was trained with, from `read_tokenizer`.
        identity: the encoder that it was trained with.
        max_length: words of the longest caption; by default what the model has room for beside the two marks, or
            what `vocabulary` says, if the model has room for any.

    Raises:
        CaptionError: the file is missing or damaged, computes anything else than this project's merge model does, or
            does not fit the vocabulary or the encoder.
    """
    from caption_generator.checkpoint import Checkpoint

    try:
        layers, cell, room = _find_layers(path)
        weights = {name: [np.asarray(array, np.float32) for array in layer.weights] for name, layer in layers.items()}
        decoder = _fill_decoder(weights, cell, path, vocabulary, identity)
    except CaptionError:
        raise
    except Exception as error:  # HDF5, JSON and what is looked up in them raise many kinds
        raise CaptionError(
            f"{path} is not a merge model that can be taken over ({first_line(error)}): leave --model out, and train "
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
    identity: "EncoderIdentity",
) -> "Decoder":
    """This project's merge decoder with `weights`, by the names of its layers, in the other project's numbering."""
    from caption_generator.decoders import DecoderSpec, build_decoder

    feature_size, units = weights["image_dense"][0].shape
    rows, embedding_size = weights["embedding"][0].shape
    hidden, columns = weights["next_word"][0].shape
    if rows != columns:
        raise ValueError(f"it reads {rows} words and writes {columns}")
    _check_feature_size(f"what {path} reads of an image", feature_size, identity)
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
    if not Path(path).is_file():
        raise CaptionError(f"{path} does not exist: name the .h5 file of the other project.")
    with h5py.File(path, "r") as file:
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


def convert(options: argparse.Namespace) -> None:
    """Take over the files that `options` names and write them into a workspace.

    Raises:
        CaptionError: as the functions that read them, or a file would be written over one that is read.
    """
    out = Workspace(Path(options.out), Path(options.out))
    model = out.models / f"{Path(options.model or '').stem}.h5"
    pairs = ((options.tokenizer, out.tokenizer), (options.features, out.features), (options.model, model))
    read = {Path(path).resolve() for path, _ in pairs if path}
    for path, target in pairs:
        if path and target.resolve() in read:
            raise CaptionError(f"{target} would be written over, which is to be read: name another folder with --out.")

    vocabulary, features, checkpoint = read_tokenizer(options.tokenizer, options.max_length or MAX_LENGTH), None, None
    tokenizer = vocabulary.tokenizer
    if options.features or options.model:
        load_tensorflow()
        from caption_generator.checkpoint import save_checkpoint
        from caption_generator.encoders import build_encoder
        from caption_generator.features import save_features

        identity = build_encoder(options.encoder, options.encoder_weights).identity
        features = read_features(options.features, identity) if options.features else None
        if options.model:
            checkpoint = read_merge_model(options.model, vocabulary, identity, options.max_length)
            tokenizer = checkpoint.tokenizer

    # All could be read: now they are written.
    tokenizer.save(out.tokenizer)
    print(f"{out.tokenizer}: {len(tokenizer)} words, captions of at most {tokenizer.max_length}")
    if features:
        save_features(features, out.features)
        print(f"{out.features}: {len(features.vectors)} vectors of {identity}")
    if checkpoint:
        save_checkpoint(checkpoint, model)
        command = ["python", "testing_caption_generator.py", "-i", "photo.jpg", "--model", str(model)]
        if options.encoder_weights != "imagenet":
            command += ["--encoder-weights", options.encoder_weights]
        print(f"{model}: caption with {shlex.join(command)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True, metavar="FILE", help="the other project's tokenizer.p")
    parser.add_argument("--features", metavar="FILE", help="its features.p")
    parser.add_argument("--model", metavar="FILE", help="its merge model, such as models/model_9.h5")
    parser.add_argument(
        "--out", required=True, metavar="FOLDER", help="the workspace to write tokenizer.p and so on into"
    )
    parser.add_argument("--encoder", metavar="NAME", help="what made the features, such as xception")
    parser.add_argument(
        "--encoder-weights",
        default="imagenet",
        metavar="FILE",
        help="a weights file for the encoder, where Keras cannot download it",
    )
    parser.add_argument(
        "--max-length",
        type=positive,
        metavar="N",
        help=f"words of the longest caption (default: what the model has room for, {MAX_LENGTH} without a model)",
    )
    options = parser.parse_args()
    if (options.features or options.model) and not options.encoder:
        parser.error("features and models need --encoder: several encoders make vectors of the same length")
    try:
        convert(options)
    except CaptionError as error:
        print(f"legacy: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
