"""The table of results: a folder of Parquet that every run adds rows to, whole or not at all.

    captions/run=20260101T120000-1f2e/part-*.parquet   the rows of one round of one run
    captions/_staging/                                 what a round is writing
    captions/_lock                                     there is a run at work; it writes this file every few seconds

Spark's own way to append is not enough. It gathers the files of finished tasks in a folder `_temporary`, and a run that
follows a killed one takes those files for its own, so that rows come twice. Here each round has a folder of its own,
checks that it holds every photo once, and only then renames it to where readers look.
"""

import contextlib
import secrets
import threading
import time
from collections.abc import Iterator

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from caption_generator.cluster.storage import Storage, in_one_sentence, literal
from caption_generator.cluster.tasks import Task, result_schema
from caption_generator.common.errors import CaptionError

FILE_SIZE = 256 * 2**20  # bytes of a Parquet file, or a little less
ROW_GROUP = 16 * 2**20
BEAT = 5  # seconds between two writes of the lock
DEAD = 6 * BEAT  # a lock that is older has no run any more
UNREADABLE = "it is empty or gone, may not be read, or has more than 128 MB"


class Table:
    """A table of results.

    Attributes:
        task: what makes its rows.
    """

    def __init__(self, spark: SparkSession, folder: str, task: Task):
        """
        Raises:
            CaptionError: Hadoop does not know the file system of the folder.
        """
        self._spark, self.task = spark, task
        self._storage = Storage(spark, folder)
        self._folder = self._storage.qualified(folder)
        self._staging = f"{self._folder}/_staging"
        self._schema = from_arrow_schema(result_schema(task))

    def _check_columns(self) -> None:
        if not (runs := self._runs()):
            return
        found = self._spark.read.parquet(literal(f"{self._folder}/{runs[0]}")).columns
        if found != self._schema.names:
            raise CaptionError(
                f"{self._folder} holds the columns {', '.join(found)}, and this run makes "
                f"{', '.join(self._schema.names)}: choose another folder."
            )

    def is_new(self) -> bool:
        """Whether it has no row yet. Only in the block of `lock` does the answer stay true."""
        return not self._runs()

    def _runs(self) -> list[str]:
        return [name for name in self._storage.folders(self._folder) if name.startswith("run=")]

    def rows(self) -> DataFrame:
        """All rows, of all models and of older states of photos, too."""
        if self.is_new():
            return self._spark.createDataFrame([], self._schema)
        return self._spark.read.schema(self._schema).parquet(literal(self._folder))

    def done(self, retry_errors: bool) -> DataFrame:
        """`path` and `modified` of the photos that this task has done.

        Args:
            retry_errors: a photo with an error counts as not done.
        """
        rows = self.rows().where(F.col(self.task.stamp) == self.task.fingerprint)
        if retry_errors:
            rows = rows.where("error IS NULL")
        return rows.select("path", "modified")

    def newest(self) -> DataFrame:
        """The last row of each photo that this task made; see `newest`."""
        return newest(self.rows().where(F.col(self.task.stamp) == self.task.fingerprint))

    def stage(self, rows: DataFrame, name: str) -> DataFrame:
        """Write rows into the staging folder, and return what was written, so that nothing is computed twice."""
        path = f"{self._staging}/{name}"
        # Small row groups can be read by many tasks, also where they are photos.
        rows.write.mode("overwrite").option("parquet.block.size", ROW_GROUP).parquet(path)
        return self._spark.read.schema(rows.schema).parquet(literal(path))

    def add(self, rows: DataFrame, photos: DataFrame) -> tuple[int, int]:
        """Add the rows of one round.

        Args:
            rows: of the task.
            photos: `path` and `modified` of all photos of the round. One without a row in `rows` gets one that says
                that it could not be read.

        Returns:
            The number of photos, and of those with an error.

        Raises:
            CaptionError: the rows are not those of the photos; nothing is added.
        """
        made = self.stage(rows, "made")
        lost = photos.join(made.select("path"), "path", "left_anti").select(*self._unreadable())
        size = self._storage.size(f"{self._staging}/made")
        whole = self.stage(made.unionByName(lost).coalesce(max(1, -(-size // FILE_SIZE))), "whole")
        counts = F.count("*"), F.countDistinct("path"), F.count("error")
        count, distinct, errors = whole.agg(*counts).first()
        if (count, distinct) != (photos.count(),) * 2:
            raise CaptionError(
                f"{count} rows of {distinct} photos were made for {photos.count()}: nothing was added; run it again."
            )
        self._storage.move(f"{self._staging}/whole", f"{self._folder}/run={run_name()}")
        self._storage.delete(f"{self._staging}/made")
        return count, errors

    def _unreadable(self) -> list:
        values = {
            "path": F.col("path"),
            "modified": F.col("modified"),
            "error": F.concat("path", F.lit(f" could not be read: {UNREADABLE}.")),
            self.task.stamp: F.lit(self.task.fingerprint),
        }
        return [
            values.get(field.name, F.lit(None)).cast(field.dataType).alias(field.name) for field in self._schema.fields
        ]

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only run that writes to the table, and remove what a killed one has left.

        A killed run leaves its lock behind. The next run waits until that is old, half a minute at most.

        Raises:
            CaptionError: another run is at work, the folder holds other results, or it cannot be written to.
        """
        path = f"{self._folder}/_lock"
        with in_one_sentence(f"{self._folder} cannot be written", "choose a folder that you may write to"):
            while not self._storage.touch(path, new=True):
                self._wait(path)
        self._storage.delete(self._staging)
        stop = threading.Event()

        def beat() -> None:
            while not stop.wait(BEAT):
                self._storage.touch(path)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            self._check_columns()
            yield
        finally:
            stop.set()
            thread.join()
            self._storage.delete(self._staging)
            self._storage.delete(path)

    def _wait(self, path: str) -> None:
        """Wait until the lock is gone or too old, and remove it."""
        clock = f"{path}-{secrets.token_hex(4)}"
        last = None
        try:
            while True:
                self._storage.touch(clock)
                age = self._storage.age(path, clock)
                if age is None:
                    return
                if age > DEAD:
                    self._storage.delete(path)
                    return
                if last is not None and age < last:
                    raise CaptionError(
                        f"another run is writing into {self._folder}: wait until it ends, or choose another folder."
                    )
                last = age
                time.sleep(1)
        finally:
            self._storage.delete(clock)


def newest(rows: DataFrame) -> DataFrame:
    """The last row of each photo, where a photo changed or was tried again."""
    order = Window.partitionBy("path").orderBy(F.desc_nulls_last("modified"), F.col("error").isNotNull())
    return rows.withColumn("n", F.row_number().over(order)).where("n = 1").drop("n")


def run_name() -> str:
    """A name that no other round has; the names of later ones sort after it."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"
