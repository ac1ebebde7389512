"""Where photos come from: a folder, a list of paths, or a table that holds the photos themselves.

A source first lists its photos, which reads no photo, and then reads those that there is something to do for.
"""

import contextlib
from collections.abc import Iterator
from typing import Protocol

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from caption_generator.cluster.storage import WILD, Storage, in_one_sentence, literal
from caption_generator.common.errors import CaptionError
from caption_generator.images import SUFFIXES

LARGEST_FILE = 128 * 2**20  # bytes; a worker holds a batch of photos in memory
# Spark puts files into a partition until they have PARTITION bytes, and counts FILE_COST for each besides its own: so
# a partition has at most 256 photos, which take seconds, and a lost executor costs little.
PARTITION, FILE_COST = 256 * 2**20, 2**20
PACKED_PARTITION = 16 * 2**20
PACKED_ROWS = 16  # packed photos that Java unpacks at once


class Source(Protocol):
    """Photos.

    Attributes:
        complete: whether every photo that `read` could find is in the listing.
        partition: bytes of a partition of `read`.
    """

    complete: bool
    partition: int

    def listing(self) -> DataFrame:
        """Every photo once.

        Returns:
            `path`; `modified`, null if the file is missing; and `key`, by which `read` knows the photo.
        """
        ...

    def read(self, wanted: DataFrame, rule: Column | None = None) -> DataFrame:
        """Read photos. One that cannot be read has no row.

        Args:
            wanted: rows of the listing.
            rule: a condition on `key` that is true for these rows of the whole listing; None if there is none.

        Returns:
            `path`, `modified` and `content`.
        """
        ...


class PhotoFiles:
    """All picture files of a folder, or the files that a glob matches."""

    def __init__(self, spark: SparkSession, path: str):
        self._spark = spark
        self.complete, self.partition = True, PARTITION
        reader = _binary_files(spark)
        if not _is_glob(spark, path):  # the user chooses files by a glob, as in the script
            reader = reader.option("pathGlobFilter", _any_case(SUFFIXES))
        self._files = reader.load(_pattern(spark, path))

    def listing(self) -> DataFrame:
        """As `Source.listing`."""
        listed = _list(self._files)
        names = self._files._jdf.inputFiles()
        if len(names) == listed.count():
            return listed
        # Spark leaves empty files out. They are photos that cannot be read.
        java = self._spark._jvm
        sequence = java.scala.collection.immutable.ArraySeq.unsafeWrapArray(names)
        every = self._spark._jsparkSession.createDataset(sequence, java.org.apache.spark.sql.Encoders.STRING())
        every = DataFrame(every, self._spark).withColumnRenamed("value", "key")
        path = F.url_decode(F.regexp_replace(F.regexp_replace("key", "^file:///", "file:/"), r"\+", "%2B"))
        missing = every.withColumn("path", path).join(listed.select("path"), "path", "left_anti")
        return listed.unionByName(missing.withColumn("modified", _no_date()))

    def read(self, wanted: DataFrame, rule: Column | None = None) -> DataFrame:
        """As `Source.read`."""
        return _read(self._files, wanted, rule)


class PathTable:
    """The photos that a table names: Parquet or CSV with a column `path`, or a text file with a path a line.

    The folders of these paths are listed, rather than each file asked for: that is one request for 1,000 files in an
    object store.
    """

    def __init__(self, spark: SparkSession, path: str):
        self._spark = spark
        self.complete, self.partition = False, PARTITION
        self._wanted = _read_paths(spark, path)
        named = self._wanted.select(F.regexp_extract("path", "^(.*)/", 1).alias("folder")).distinct().collect()
        places = {row.folder: Storage(spark, row.folder or ".") for row in named}
        qualified = {folder: place.qualified(folder or ".") for folder, place in places.items()}
        there = {qualified[folder] for folder, place in places.items() if place.exists(folder or ".")}
        self._files = _binary_files(spark).load(sorted(map(literal, there))) if there else None
        self._folders = spark.createDataFrame(list(qualified.items()), "folder string, qualified string")

    def listing(self) -> DataFrame:
        """As `Source.listing`."""
        folder, name = F.regexp_extract("path", "^(.*)/", 1), F.regexp_extract("path", "([^/]*)$", 1)
        wanted = self._wanted.select(folder.alias("folder"), name.alias("name"))
        wanted = wanted.join(F.broadcast(self._folders), "folder")
        wanted = wanted.select(F.concat_ws("/", "qualified", "name").alias("path")).distinct()
        if self._files is None:
            return wanted.select("path", _no_date().alias("modified"), F.col("path").alias("key"))
        return wanted.join(_list(self._files), "path", "left")

    def read(self, wanted: DataFrame, rule: Column | None = None) -> DataFrame:
        """As `Source.read`."""
        if self._files is None:
            return self._spark.createDataFrame([], "path string, modified timestamp, content binary")
        return _read(self._files, wanted, rule)


class PackedPhotos:
    """Photos in Parquet: the columns `path` and `content`, and, if known, `modified`."""

    def __init__(self, spark: SparkSession, path: str):
        self.complete, self.partition = True, PACKED_PARTITION
        self._photos = spark.read.parquet(_pattern(spark, path))
        if "modified" not in self._photos.columns:
            self._photos = self._photos.withColumn("modified", _no_date())

    def listing(self) -> DataFrame:
        """As `Source.listing`."""
        newest = self._photos.groupBy("path").agg(F.max("modified").alias("modified"))
        return newest.withColumn("key", F.col("path"))

    def read(self, wanted: DataFrame, rule: Column | None = None) -> DataFrame:
        """As `Source.read`."""
        photos = self._photos.select("path", "modified", "content")
        named = F.broadcast(wanted.select(F.col("path").alias("p"), F.col("modified").alias("m")))
        same = (F.col("path") == F.col("p")) & F.col("modified").eqNullSafe(F.col("m"))
        return photos.join(named, same, "left_semi")


def open_source(spark: SparkSession, path: str) -> Source:
    """The source that a path names, by its suffix.

    Args:
        path: a folder of photos, a glob, a table `.parquet` (of photos or of paths), `.csv` or `.txt`.

    Raises:
        CaptionError: it does not exist, or is not such a table.
    """
    kind = _kind(path)
    with in_one_sentence(f"{path} cannot be read", "check the name"):
        if not (WILD.search(path) or Storage(spark, path).exists(path)):
            raise CaptionError(f"{path} does not exist: check the name.")
        if kind in ("csv", "txt"):
            return PathTable(spark, path)
        if kind == "parquet":
            packed = "content" in spark.read.parquet(_pattern(spark, path)).columns
            return PackedPhotos(spark, path) if packed else PathTable(spark, path)
        return PhotoFiles(spark, path)


def _kind(path: str) -> str:
    return path.rstrip("/").rpartition(".")[2].lower()


def _is_glob(spark: SparkSession, path: str) -> bool:
    """Whether a path is a glob: nothing is called like that, and it has a letter of globs."""
    return not Storage(spark, path).exists(path) and WILD.search(path) is not None


def _pattern(spark: SparkSession, path: str) -> str:
    """What to give to Spark for a path of the user."""
    return path if _is_glob(spark, path) else literal(path)


def row_key(rounds: int, number: int) -> Column:
    """The condition that puts a photo into one of so many rounds."""
    return F.pmod(F.xxhash64("key"), F.lit(rounds)) == number


@contextlib.contextmanager
def read_partitions(spark: SparkSession, size: int, file_cost: int) -> Iterator[None]:
    """Plan reads with partitions of `size` bytes, where each file counts `file_cost` besides its own.

    Of Parquet, a few rows are read at once: each may hold a photo, and by default Java would hold 4,096 of them.
    """
    values = {
        "spark.sql.files.maxPartitionBytes": size,
        "spark.sql.files.openCostInBytes": file_cost,
        "spark.sql.parquet.columnarReaderBatchSize": PACKED_ROWS,
    }
    before = {name: spark.conf.get(name) for name in values}
    for name, value in values.items():
        spark.conf.set(name, str(value))
    try:
        yield
    finally:
        for name, old in before.items():
            spark.conf.set(name, old)


def _binary_files(spark: SparkSession):
    # A file that is gone, or that may not be read, has no row; the job then writes one that says so.
    reader = spark.read.format("binaryFile").option("ignoreMissingFiles", True).option("ignoreCorruptFiles", True)
    # Otherwise Spark would take a table of results among the photos, with its folders `run=`, for a part of theirs.
    return reader.option("recursiveFileLookup", True)


def _no_date() -> Column:
    return F.lit(None).cast("timestamp")


def _list(files: DataFrame) -> DataFrame:
    return files.select("path", F.col("modificationTime").alias("modified"), F.col("_metadata.file_path").alias("key"))


def _read(files: DataFrame, wanted: DataFrame, rule: Column | None) -> DataFrame:
    """Spark compares `_metadata.file_path` with the condition before it opens a file."""
    if rule is None:
        # The list stays in Java: to hand a hundred thousand names over one by one would take longer than to read them.
        names = wanted.where("key IS NOT NULL").agg(F.collect_list("key"))._jdf.first().getList(0)
        java = files.sparkSession._jvm.org.apache.spark.sql.functions
        chosen = Column(java.col("_metadata.file_path").isInCollection(names))
    else:
        chosen = rule
    files = files.withColumn("key", F.col("_metadata.file_path")).where(chosen)
    return files.where(F.col("length") <= LARGEST_FILE).select(
        "path", F.col("modificationTime").alias("modified"), "content"
    )


def _read_paths(spark: SparkSession, path: str) -> DataFrame:
    kind, pattern = _kind(path), _pattern(spark, path)
    if kind == "txt":
        table = spark.read.text(pattern).withColumnRenamed("value", "path")
    elif kind == "csv":
        table = spark.read.option("header", True).csv(pattern)
    else:
        table = spark.read.parquet(pattern)
    if "path" not in table.columns:
        raise CaptionError(f"{path} has no column path, only {', '.join(table.columns)}: rename one.")
    return table.select(F.trim("path").alias("path")).where("path <> ''")


def _any_case(suffixes: frozenset[str]) -> str:
    """A glob for names with one of these suffixes, in small or large letters."""
    one = ("".join(f"[{c}{c.upper()}]" if c.isalpha() else c for c in suffix) for suffix in sorted(suffixes))
    return "*{" + ",".join(one) + "}"
