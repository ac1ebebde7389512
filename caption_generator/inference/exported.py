"""The exported model: a file beside a checkpoint, with all that captioning needs and TensorFlow does not have to read.

It is a zip file. `about.json` says which checkpoint it was exported from, and holds the vocabulary. `encoder.tflite`,
`start.tflite` and `step.tflite` are the networks for LiteRT, and each `.npy` is an array of the word detector, of
the ImageNet classifier or of the out-of-distribution score. Reading it never runs code that it names.
"""

import io
import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from caption_generator.common.errors import CaptionError, first_line, printable
from caption_generator.common.files import file_digest, is_file, open_regular, replacing
from caption_generator.common.numbers import finite, finite_number
from caption_generator.inference.imagenet_classifier import CLASSES, ImageNetClassifier
from caption_generator.inference.out_of_distribution import Familiarity
from caption_generator.inference.word_detector import WordDetector, weights_of_all
from caption_generator.tokenizer import Tokenizer

FORMAT = 1  # to be raised when older exports can no longer be read
SUFFIX = ".litert"
NETWORKS = ("encoder", "start", "step")
DETECTOR_ARRAYS = ("mean", "weights", "document_frequency")
CLASSIFIER_ARRAYS = ("kernel", "bias")
LARGEST_SIDE = 4096  # of what the encoder reads, in pixels; it decides what a batch of pictures costs


@dataclass(frozen=True)
class ExportedModel:
    """What an exported model holds.

    Attributes:
        fingerprint: of the checkpoint file that it was exported from; see `common.files.file_digest`.
        description, input_size, grid, tokenizer, detector, familiarity, classifier: as of `engine.Engine`.
        networks: the names in `NETWORKS` to the content of a `.tflite` file.
    """

    fingerprint: str
    description: str
    input_size: int
    grid: tuple[int, int] | None
    tokenizer: Tokenizer
    networks: Mapping[str, bytes]
    detector: WordDetector | None = None
    familiarity: Familiarity | None = None
    classifier: ImageNetClassifier | None = None

    def save(self, path: str | Path) -> None:
        """Write `path`, whole or not at all. Arrays are stored in 16 bits where they lose nothing by it."""
        about: dict[str, Any] = {
            "format": FORMAT,
            "checkpoint": self.fingerprint,
            "description": self.description,
            "input_size": self.input_size,
            "grid": self.grid,
            "tokenizer": self.tokenizer.to_dict(),
        }
        arrays: dict[str, np.ndarray] = {}
        if detector := self.detector:
            about["detector"] = {"threshold": detector.threshold, "learned": detector.learned.tolist()}
            arrays |= {f"detector_{name}": getattr(detector, name) for name in DETECTOR_ARRAYS}
            arrays["detector_weights"] = detector.weights[detector.learned]
        if usual := self.familiarity:
            about["familiarity"] = {"lowest": usual.lowest, "usual": usual.usual}
            arrays["familiarity_mean"] = usual.mean
        if classifier := self.classifier:
            about["classifier"] = "imagenet"
            arrays |= {f"classifier_{name}": getattr(classifier, name) for name in CLASSIFIER_ARRAYS}
        # Weights are hardly compressible, and stored plainly they are read at once.
        with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as file:
            _add(file, "about.json", json.dumps(about).encode())
            for name in NETWORKS:
                _add(file, f"{name}.tflite", self.networks[name])
            for name, array in arrays.items():
                content = io.BytesIO()
                np.save(content, array.astype(np.float16) if fits_half(array) else array, allow_pickle=False)
                _add(file, f"{name}.npy", content.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> "ExportedModel":
        """Read what `save` wrote.

        Raises:
            CaptionError: the file is missing, torn, or not an exported model of this version.
        """
        about = read_about(path)
        try:
            if about["format"] != FORMAT:
                raise CaptionError(f"{path} was exported by another version of this project: {_advice(path)}")
            with _opened(path) as file:
                detector = familiarity = classifier = None
                if "detector" in about:
                    arrays = {name: _array(file, f"detector_{name}") for name in DETECTOR_ARRAYS}
                    words = len(arrays["document_frequency"])
                    arrays["weights"] = weights_of_all(about["detector"]["learned"], arrays["weights"], words)
                    detector = WordDetector(
                        **arrays, threshold=finite_number("threshold", about["detector"]["threshold"])
                    )
                if "familiarity" in about:
                    limits = (finite_number(name, about["familiarity"][name]) for name in ("lowest", "usual"))
                    familiarity = Familiarity(_array(file, "familiarity_mean"), *limits)
                if "classifier" in about:
                    classifier = ImageNetClassifier(*(_array(file, f"classifier_{name}") for name in CLASSIFIER_ARRAYS))
                tokenizer = Tokenizer.from_dict(about["tokenizer"])
                _check_lengths(tokenizer, detector, familiarity, classifier)
                return cls(
                    str(about["checkpoint"]),
                    printable(str(about["description"])),
                    _size(about["input_size"]),
                    about["grid"] and tuple(map(_size, about["grid"])),
                    tokenizer,
                    {name: _read(file, f"{name}.tflite") for name in NETWORKS},
                    detector,
                    familiarity,
                    classifier,
                )
        except CaptionError:
            raise
        except Exception as error:  # a damaged file can raise many kinds
            raise _damaged(path, error) from error


def export_path(model: str | Path) -> Path:
    """Where the export of a checkpoint lies: beside it, `bundled.litert` for `bundled.h5`."""
    return Path(model).with_suffix(SUFFIX)


def find_export(model: str | Path) -> Path | None:
    """The exported model that stands for `model`.

    An export without its checkpoint stands for itself. Beside the checkpoint it must have been made from this very
    file: one from an earlier state of it, or in an earlier format, is not found.

    Args:
        model: a checkpoint, which need not be there, or an exported model.

    Raises:
        CaptionError: the exported model is damaged.
    """
    if not Path(model).name:  # "." and "/"
        return None
    path = export_path(model)
    checkpoint = path.with_suffix(".h5") if Path(model) == path else Path(model)
    if not is_file(path):
        return None
    if not is_file(checkpoint):
        return path
    about = read_about(path)
    # SHA-256 of 20 MB takes some 20 ms, and no change of the checkpoint escapes it, unlike its size and its date.
    fresh = about.get("format") == FORMAT and about.get("checkpoint") == file_digest(checkpoint)
    return path if fresh else None


def fits_half(array: np.ndarray) -> bool:
    """Whether all of its numbers are the same in 16 bits, as those of a checkpoint that stores them so are."""
    with np.errstate(over="ignore"):
        return bool(np.array_equal(array, array.astype(np.float16)))


def read_about(path: str | Path) -> dict[str, Any]:
    """The JSON text of an exported model, without its networks.

    Raises:
        CaptionError: the file is missing or damaged.
    """
    try:
        with _opened(path) as file:
            about = json.loads(_read(file, "about.json"))
            if not isinstance(about, dict):
                raise ValueError("about.json is not an object")
            return about
    except FileNotFoundError:
        raise CaptionError(f"{path} does not exist: check the name.") from None
    except Exception as error:
        raise _damaged(path, error) from error


def _add(file: zipfile.ZipFile, name: str, content: bytes) -> None:
    # A `ZipInfo` of its own has no date, so that equal models give equal files.
    file.writestr(zipfile.ZipInfo(name), content)


@contextmanager
def _opened(path: str | Path) -> Iterator[zipfile.ZipFile]:
    with open_regular(path) as content, zipfile.ZipFile(content) as file:
        yield file


def _read(file: zipfile.ZipFile, name: str) -> bytes:
    """The content of a part, which is stored as it is: one that is compressed may unpack to any size.

    Raises:
        ValueError: it is compressed or encrypted.
    """
    part = file.getinfo(name)
    if part.compress_type != zipfile.ZIP_STORED or part.file_size != part.compress_size:
        raise ValueError(f"{name} is compressed")
    return file.read(part)


def _array(file: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array in float32.

    Raises:
        ValueError: it holds something else than finite numbers, or not as many bytes as it says.
    """
    content = io.BytesIO(_read(file, f"{name}.npy"))
    version = np.lib.format.read_magic(content)
    if version != (1, 0):
        raise ValueError(f"{name} is of another version")
    shape, _, dtype = np.lib.format.read_array_header_1_0(content)
    size = len(content.getbuffer()) - content.tell()
    if dtype.kind != "f" or math.prod(shape) * dtype.itemsize != size:  # NumPy reserves what the header says
        raise ValueError(f"{name} has not the size that it says")
    content.seek(0)
    return finite(name, np.load(content, allow_pickle=False))


def _size(value: Any) -> int:
    if type(value) is not int or not 0 < value <= LARGEST_SIDE:
        raise ValueError(f"a picture's side is {value!r:.20}, not 1 to {LARGEST_SIDE:,}")
    return value


def _check_lengths(
    tokenizer: Tokenizer,
    detector: WordDetector | None,
    familiarity: Familiarity | None,
    classifier: ImageNetClassifier | None,
) -> None:
    """Refuse arrays of other lengths than the vocabulary, and than each other."""
    if detector and not (
        detector.weights.shape == (len(tokenizer), *detector.mean.shape)
        and detector.document_frequency.shape == (len(tokenizer),)
        and detector.mean.ndim == 1
    ):
        raise ValueError("its word detector has not the shape of its vocabulary")
    if familiarity and familiarity.mean.ndim != 1:
        raise ValueError("its mean features are not one vector")
    if classifier and not (
        classifier.kernel.ndim == 2 and classifier.kernel.shape[1:] == classifier.bias.shape == (CLASSES,)
    ):
        raise ValueError("its classifier is not one of ImageNet's classes")


def _damaged(path: str | Path, error: Exception) -> CaptionError:
    return CaptionError(f"{path} is damaged ({first_line(error)}): {_advice(path)}")


def _advice(path: str | Path) -> str:
    checkpoint = Path(path).with_suffix(".h5")
    return f"remove it, or make it again with python -m caption_generator.inference.export {checkpoint}."
