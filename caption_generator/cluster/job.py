"""Caption or encode photos on Spark: what is new or changed, in rounds, with a line of progress."""

import json
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from caption_generator.cluster.session import outbox
from caption_generator.cluster.sources import FILE_COST, Source, read_partitions, row_key
from caption_generator.cluster.storage import in_one_sentence
from caption_generator.cluster.table import Table, run_name
from caption_generator.cluster.tasks import CaptionTask, EncodeTask, PackTask, Task, result_schema, worker
from caption_generator.common.console import load_tensorflow, need_tensorflow
from caption_generator.common.errors import CaptionError
from caption_generator.common.files import digest, is_file
from caption_generator.inference.exported import find_export
from caption_generator.search import BEAM

if TYPE_CHECKING:  # they import TensorFlow
    from caption_generator.encoders import Encoder
    from caption_generator.features import Features

BATCH = 32  # photos that a worker handles at once
ROUND = 20_000  # photos for each core: some minutes


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes:
        listed: photos of the source.
        done: photos that got a row in this run.
        errors: those of them that have an error.
        seconds: from the listing to the last row.
    """

    listed: int
    done: int
    errors: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.done:,} photos in {self.seconds:,.0f} s, {self.errors:,} of them with an error; "
            f"{self.listed - self.done:,} were done before."
        )


def process(
    source: Source,
    task: Task,
    spark: SparkSession,
    output: str,
    round_size: int | None = None,
    retry_errors: bool = False,
    report: Callable[[str], None] | None = None,
    every: float = 10,
) -> Summary:
    """Add a row to the table for each photo that has none yet, or has changed, or was last done by another model.

    The photos go through in rounds. The rows of a round appear together, so a driver that is killed loses one round.

    Args:
        source: from `open_source`.
        task: from `caption_task` or `encode_task`.
        output: the folder of the table.
        round_size: photos of a round.
        retry_errors: try photos again that had an error.
        report: is given a line of progress now and then.
        every: the seconds between two lines.

    Raises:
        CaptionError: another run writes to the table, or Spark gave up.
    """
    round_size = round_size or ROUND * spark.sparkContext.defaultParallelism
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(BATCH))
    began = time.monotonic()
    remedy = f"see what it printed above, and run it again, as {output} keeps the rounds before"
    table = Table(spark, output, task)
    with in_one_sentence("Spark gave up", remedy), table.lock():
        is_new = table.is_new()
        # The names and dates of a million files are little data: one partition a core.
        with read_partitions(spark, size=2**50, file_cost=1):
            listing = table.stage(source.listing(), "listing")
        todo = listing
        if not is_new:
            done = table.done(retry_errors).select(F.col("path").alias("p"), F.col("modified").alias("m"))
            same = (F.col("path") == F.col("p")) & F.col("modified").eqNullSafe(F.col("m"))
            todo = table.stage(listing.join(done, same, "left_anti"), "todo")
        listed, count = listing.count(), todo.count()
        rounds = -(-count // round_size)
        finished = errors = 0
        for number in range(rounds):
            part = todo.where(row_key(rounds, number))
            rule = row_key(rounds, number) if is_new and source.complete else None
            name = f"round {number + 1} of {rounds}: " if rounds > 1 else ""
            progress = Progress(spark, count // rounds, name, every, report)
            with progress, read_partitions(spark, source.partition, FILE_COST):
                made, failed = _add(table, source, part, rule)
            finished, errors = finished + made, errors + failed
    return Summary(listed, finished, errors, time.monotonic() - began)


def _add(table: Table, source: Source, part: DataFrame, rule: Column | None) -> tuple[int, int]:
    photos, task = source.read(part, rule), table.task
    if isinstance(task, PackTask):
        nothing, stamp = F.lit(None).cast("string"), F.lit(task.fingerprint)
        rows = photos.select("path", "modified", "content", nothing.alias("error"), stamp.alias(task.stamp))
    else:
        rows = photos.mapInArrow(worker(task), from_arrow_schema(result_schema(task)))
    return table.add(rows, part)


class Progress:
    """Prints now and then how far Spark is with the jobs that the block starts.

    The number of photos is that of the finished tasks, so it is not exact.
    """

    def __init__(self, spark: SparkSession, photos: int, name: str, every: float, report: Callable[[str], None] | None):
        """
        Args:
            photos: the number of photos that these jobs work on.
            name: comes first in each line.
            every: the seconds between two lines.
            report: is given the lines.
        """
        self._context, self._photos, self._name, self._every, self._report = (
            spark.sparkContext,
            photos,
            name,
            every,
            report,
        )
        self._group = run_name()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Progress":
        self._began = time.monotonic()
        self._context.setJobGroup(self._group, "caption_generator")
        if self._report:
            self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        if self._report:
            self._thread.join()
        self._context.setLocalProperty("spark.jobGroup.id", None)

    def _watch(self) -> None:
        while not self._stop.wait(self._every):
            done, tasks = self._tasks()
            if not tasks:
                continue
            photos, seconds = self._photos * done // tasks, time.monotonic() - self._began
            line = f"{self._name}{photos:,} of {self._photos:,} photos ({100 * done // tasks} %)"
            if photos:
                left = (self._photos - photos) * seconds / photos
                line += f", {photos / seconds:,.1f} photos/s, {_minutes(left)} left"
            self._report(line)

    def _tasks(self) -> tuple[int, int]:
        """The finished and all tasks of the stage that works on the photos, which has the most."""
        tracker = self._context.statusTracker()
        jobs = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup(self._group)]
        stages = [tracker.getStageInfo(stage) for job in jobs if job for stage in job.stageIds]
        # Of equals the first: the later ones only check and move what it has written.
        first = max((s for s in stages if s), key=lambda stage: (stage.numTasks, -stage.stageId), default=None)
        return (first.numCompletedTasks, first.numTasks) if first else (0, 0)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:,.0f} min"


def caption_task(spark: SparkSession, model: str | Path, beam: int = BEAM, top: int = 1) -> CaptionTask:
    """Send a model to the executors.

    Args:
        model: a checkpoint or an exported model. The export of a checkpoint is sent in its place; it needs no
            TensorFlow.
        beam: width of the beam search.
        top: the number of captions of a photo.

    Raises:
        CaptionError: there is no such model, its encoder is in another file, or it needs TensorFlow and there is none.
    """
    file = find_export(model)
    if file and find_spec("ai_edge_litert") is None and is_file(model):
        file = None  # where the driver has no LiteRT, the executors are taken to have none either
    if file is None:
        if not is_file(model):
            raise CaptionError(f"{model} is not a file: name a model, or leave it out to use the one that ships.")
        need_tensorflow(model)
        from caption_generator.checkpoint import read_about

        if not read_about(model)["includes_encoder"]:
            raise CaptionError(
                f"{model} does not contain its encoder: export it with python -m caption_generator.inference.export."
            )
        file = Path(model)
    fingerprint = digest(file.read_bytes())
    sent = outbox() / f"{file.stem}-{fingerprint}{file.suffix}"  # Spark refuses a second file of the same name
    shutil.copyfile(file, sent)
    spark.sparkContext.addFile(str(sent))
    return CaptionTask(sent.name, beam, top, digest(f"{fingerprint} {beam} {top}"))


def encode_task(spark: SparkSession, encoder: "Encoder") -> EncodeTask:
    """Send an encoder to the executors.

    Args:
        encoder: from `checkpoint.load_encoder`.
    """
    identity = encoder.identity
    file = outbox() / f"encoder-{identity.weights}.npz"
    np.savez(file, **{str(number): array for number, array in enumerate(encoder.model.get_weights())})
    spark.sparkContext.addFile(str(file))
    return EncodeTask(file.name, json.dumps(identity.to_dict(), sort_keys=True))


def write_features(spark: SparkSession, output: str, task: EncodeTask, path: str | Path) -> "Features":
    """Make `features.p` for notebook 4 from a table of features. All vectors must fit into the driver's memory.

    Args:
        output: the folder of the table.
        task: whose rows to take.
        path: `features.p`.

    Raises:
        CaptionError: two photos in different folders have the same name, or there are none.
    """
    load_tensorflow()
    from caption_generator.encoders import EncoderIdentity
    from caption_generator.features import Features, save_features

    features = Features(encoder=EncoderIdentity(**json.loads(task.fingerprint)))
    for row in Table(spark, output, task).newest().orderBy("path").toLocalIterator():
        name = row.path.rpartition("/")[2]
        if row.error:
            features.errors.append(row.error)
        elif name in features.vectors:
            raise CaptionError(f"two photos are called {name}: features.p knows photos by their names, so rename one.")
        else:
            features.vectors[name] = np.array(row.features, np.float32).reshape(row.shape)
    if not features.vectors:
        raise CaptionError(f"{output} has no features of {features.encoder}: extract them first.")
    save_features(features, path)
    return features
