"""What a Python worker of Spark does with its share of the photos.

The driver describes the work in a task, and sends the model's file along. A worker loads the model once, and then reads
batches of photos, as Arrow, one after the other. This module does not import Spark, and captioning with an exported
model does not import TensorFlow.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa

from caption_generator.common.errors import CaptionError
from caption_generator.images import NamedBytes, load_pixels
from caption_generator.search import Caption

Rows = list[dict[str, Any]]


class Task(Protocol):
    """What is done with each photo. It is small, hashable, and travels to the workers as a pickle.

    Attributes:
        results: the columns of a photo's result.
        stamp: the name of the column that says what made the result.
        fingerprint: the value of that column. Results are made again if it changes.
    """

    results: ClassVar[pa.Schema]
    stamp: ClassVar[str]
    fingerprint: str

    def load(self) -> tuple[int, Callable[[np.ndarray], Rows]]:
        """Load the model, in a worker.

        Returns:
            The height and width of its photos; and a function of photos, uint8 of shape (photos, size, size, 3), to a
            row of `results` for each.
        """
        ...


@dataclass(frozen=True)
class CaptionTask:
    """Caption photos.

    Attributes:
        model: the name of the model's file, which the driver has sent: an exported model, or a checkpoint with its
            encoder inside.
        beam: width of the beam search.
        top: the number of captions of a photo.
        fingerprint: of the model's file and the two numbers.
    """

    model: str
    beam: int
    top: int
    fingerprint: str
    stamp: ClassVar[str] = "model"
    results: ClassVar[pa.Schema] = pa.schema(
        {
            "caption": pa.string(),
            "score": pa.float64(),
            "alternatives": pa.list_(pa.struct({"caption": pa.string(), "score": pa.float64()})),
        }
    )

    def load(self) -> tuple[int, Callable[[np.ndarray], Rows]]:
        """As `Task.load`."""
        from caption_generator.captioner import Captioner

        captioner = Captioner.load(sent_file(self.model), max(self.beam, self.top))
        captioner.engine.threads = 1  # Spark starts a worker for each core

        def caption(pixels: np.ndarray) -> Rows:
            return [self._row(captions[: self.top]) for captions in captioner.caption_pixels(pixels)]

        return captioner.engine.input_size, caption

    def _row(self, captions: list[Caption]) -> dict[str, Any]:
        best, *others = ({"caption": caption.text, "score": caption.score} for caption in captions)
        return best | {"alternatives": others}


@dataclass(frozen=True)
class EncodeTask:
    """Compute the features of photos. It needs TensorFlow in the workers.

    Attributes:
        weights: the name of the file with the encoder's weights, which the driver has sent.
        fingerprint: the `EncoderIdentity`, as JSON.
    """

    weights: str
    fingerprint: str
    stamp: ClassVar[str] = "encoder"
    results: ClassVar[pa.Schema] = pa.schema({"features": pa.list_(pa.float32()), "shape": pa.list_(pa.int32())})

    def load(self) -> tuple[int, Callable[[np.ndarray], Rows]]:
        """As `Task.load`.

        Raises:
            CaptionError: the weights are not those of the encoder.
        """
        from caption_generator.common.console import load_tensorflow

        load_tensorflow()
        from caption_generator.encoders import EncoderIdentity, build_encoder, check_encoder
        from caption_generator.inference.folding import compile_encoder

        wanted = EncoderIdentity(**json.loads(self.fingerprint))
        encoder = build_encoder(wanted.name, None, wanted.pooling)
        with np.load(sent_file(self.weights), allow_pickle=False) as arrays:
            encoder.model.set_weights([arrays[str(number)] for number in range(len(arrays))])
        check_encoder(wanted, encoder.identity)
        encode = compile_encoder(encoder)

        def rows(pixels: np.ndarray) -> Rows:
            return [{"features": vector.ravel(), "shape": list(vector.shape)} for vector in encode(pixels)]

        return encoder.row.input_size, rows


@dataclass(frozen=True)
class PackTask:
    """Copy photos into Parquet. The workers have nothing to do."""

    fingerprint: str = "as it was"
    stamp: ClassVar[str] = "packed"
    results: ClassVar[pa.Schema] = pa.schema({"content": pa.binary()})

    def load(self) -> tuple[int, Callable[[np.ndarray], Rows]]:
        """There is no model."""
        raise NotImplementedError


def sent_file(name: str) -> Path:
    """Where a file that the driver has sent lies on this machine."""
    from pyspark import SparkFiles

    return Path(SparkFiles.get(name))


def result_schema(task: type[Task] | Task) -> pa.Schema:
    """The columns of the table that a task makes."""
    before = [pa.field("path", pa.string()), pa.field("modified", pa.timestamp("us", "UTC"))]
    return pa.schema([*before, *task.results, pa.field("error", pa.string()), pa.field(task.stamp, pa.string())])


def run(task: Task, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Work on one partition.

    Args:
        batches: with the columns `path`, `modified` and `content`.

    Yields:
        A row for each photo, in its order, with the columns of `result_schema`. A photo that cannot be read has an
        `error`, one sentence, and nothing else.
    """
    size, work = _loaded(task)
    for batch in batches:
        pixels: list[np.ndarray] = []
        errors: list[str | None] = []
        for path, content in zip(batch["path"].to_pylist(), batch["content"].to_pylist(), strict=True):
            try:
                pixels.append(_pixels(path, content, size))
                errors.append(None)
            except CaptionError as error:
                errors.append(str(error))
        found = iter(work(np.stack(pixels)) if pixels else [])
        rows = [{} if error else next(found) for error in errors]
        columns = [pa.array([row.get(field.name) for row in rows], field.type) for field in task.results]
        columns = [*columns, pa.array(errors, pa.string()), pa.array([task.fingerprint] * len(rows), pa.string())]
        names = ["path", "modified", *task.results.names, "error", task.stamp]
        yield pa.RecordBatch.from_arrays([batch["path"], batch["modified"], *columns], names)


def _pixels(path: str, content: bytes | None, size: int) -> np.ndarray:
    if content is None:
        raise CaptionError(f"{path} could not be read when the photos were packed: pack it again.")
    return load_pixels(NamedBytes(content, path), size)


def worker(task: Task) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The function for Spark's `mapInArrow`."""
    return partial(run, task)


@lru_cache(maxsize=1)  # Spark keeps a Python process for many partitions
def _loaded(task: Task) -> tuple[int, Callable[[np.ndarray], Rows]]:
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, "1")  # Spark starts a process for each core
    return task.load()
