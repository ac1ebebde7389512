"""Where photos come from: a folder, a list of paths, or a table that holds the photos themselves.

A source first lists its photos, which reads no photo, and then reads those that there is something to do for.
"""

import contextlib
from collections.abc import Iterator
from typing import Protocol

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from caption_generator.cluster.storage import Storage
from caption_generator.common.errors import CaptionError, first_line
from caption_generator.images import SUFFIXES

LARGEST_FILE = 128 * 2**20  # bytes; a worker holds a batch of photos in memory
# Spark puts files into a partition until they have PARTITION bytes, and counts FILE_COST for each besides its own: so
# a partition has at most 256 photos, which take seconds, and a lost executor costs little.
PARTITION, FILE_COST = 256 * 2**20, 2**20
PACKED_PARTITION = 16 * 2**20


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
        reader = _binary_files(spark).option("recursiveFileLookup", True)
        if not any(letter in path for letter in "*?[{"):  # the user chooses files by a glob, as in the script
            reader = reader.option("pathGlobFilter", _any_case(SUFFIXES))
        self._files = _load(reader, [path])

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
        there = sorted({qualified[folder] for folder, place in places.items() if place.exists(folder or ".")})
        self._files = _load(_binary_files(spark), there) if there else None
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
        self._photos = _parquet(spark, path)
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
    kind = path.rstrip("/").rpartition(".")[2].lower()
    if kind in ("csv", "txt"):
        return PathTable(spark, path)
    if kind == "parquet":
        packed = "content" in _parquet(spark, path).columns
        return PackedPhotos(spark, path) if packed else PathTable(spark, path)
    return PhotoFiles(spark, path)


def row_key(rounds: int, number: int, column: str = "key") -> Column:
    """The condition that puts a photo into one of so many rounds."""
    return F.pmod(F.xxhash64(column), F.lit(rounds)) == number


@contextlib.contextmanager
def settings(spark: SparkSession, partition: int, file_cost: int) -> Iterator[None]:
    """Plan reads with partitions of so many bytes, where each file counts `file_cost` besides its own."""
    names = ("spark.sql.files.maxPartitionBytes", "spark.sql.files.openCostInBytes")
    before = [spark.conf.get(name) for name in names]
    for name, value in zip(names, (partition, file_cost), strict=True):
        spark.conf.set(name, str(value))
    try:
        yield
    finally:
        for name, old in zip(names, before, strict=True):
            spark.conf.set(name, old)


def _binary_files(spark: SparkSession):
    # A file that is gone, or that may not be read, has no row; the job then writes one that says so.
    return spark.read.format("binaryFile").option("ignoreMissingFiles", True).option("ignoreCorruptFiles", True)


def _load(reader, paths: list[str]) -> DataFrame:
    try:
        return reader.load(paths)
    except AnalysisException as error:
        raise CaptionError(f"{paths[0]} cannot be listed ({first_line(error)}): check the name.") from error


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


def _parquet(spark: SparkSession, path: str) -> DataFrame:
    try:
        return spark.read.parquet(path)
    except AnalysisException as error:
        raise CaptionError(f"{path} cannot be read as Parquet ({first_line(error)}): check the name.") from error


def _read_paths(spark: SparkSession, path: str) -> DataFrame:
    try:
        if path.endswith(".txt"):
            table = spark.read.text(path).withColumnRenamed("value", "path")
        elif path.endswith(".csv"):
            table = spark.read.option("header", True).csv(path)
        else:
            table = _parquet(spark, path)
    except AnalysisException as error:
        raise CaptionError(f"{path} cannot be read ({first_line(error)}): check the name.") from error
    if "path" not in table.columns:
        raise CaptionError(f"{path} has no column path, only {', '.join(table.columns)}: rename one.")
    return table.select(F.trim("path").alias("path")).where("path <> ''")


def _any_case(suffixes: frozenset[str]) -> str:
    """A glob for names with one of these suffixes, in small or large letters."""
    one = ("".join(f"[{c}{c.upper()}]" if c.isalpha() else c for c in suffix) for suffix in sorted(suffixes))
    return "*{" + ",".join(one) + "}"
