"""Files and folders of any file system that Hadoop knows, through the driver's Java: local, `hdfs://`, `s3a://`."""

import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.errors import PySparkException, PythonException

from caption_generator.common.errors import CaptionError, first_line

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

WILD = re.compile(r"[*?\[\]{}\\]")  # what has a meaning of its own in a glob
SPARKS_CODES = re.compile(r"^\[[A-Z_.]+\] | SQLSTATE: \w+$")  # as in "[PATH_NOT_FOUND] Path does not exist: ..."


def literal(path: str) -> str:
    """A glob that only this path matches: Spark takes every path that it reads for a glob."""
    return WILD.sub(r"\\\g<0>", path)


@contextlib.contextmanager
def in_one_sentence(trouble: str, remedy: str) -> Iterator[None]:
    """Raise an error of Spark or of its Java as a `CaptionError`, and one of a worker as the worker's sentence.

    Args:
        trouble: what cannot be done, and where.
        remedy: what to do.
    """
    try:
        yield
    except (PySparkException, Py4JError) as error:
        if _after_ctrl_c(error):
            raise KeyboardInterrupt from error
        # The sentence of a worker is among a hundred lines of Java.
        said = [line.partition("CaptionError: ")[2] for line in str(error).splitlines() if "CaptionError: " in line]
        raise CaptionError(said[-1] if said else f"{trouble} ({_reason(error)}): {remedy}.") from error


def _after_ctrl_c(error: BaseException) -> bool:
    """Whether Ctrl-C came before the error: it breaks off a talk with Java, and Py4J may fail at the next word."""
    while error and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _reason(error: PySparkException | Py4JError) -> str:
    if isinstance(error, PythonException):
        return first_line(str(error).rstrip().rpartition("\n")[2])  # what a worker raised comes after its traceback
    line = first_line(error.java_exception.toString() if isinstance(error, Py4JJavaError) else error)
    return SPARKS_CODES.sub("", line)


class Storage:
    """The file system of one folder, and short names for what is done there."""

    def __init__(self, spark: "SparkSession", folder: str):
        """
        Args:
            folder: a path or a URI.

        Raises:
            CaptionError: Hadoop does not know its file system.
        """
        self._path = spark._jvm.org.apache.hadoop.fs.Path
        remedy = (
            "check the name, and give Spark the package of its file system: notebooks/spark.md has the one of s3a://"
        )
        with in_one_sentence(f"{folder} cannot be reached", remedy):
            self._system = self._path(folder).getFileSystem(spark._jsc.hadoopConfiguration())

    def qualified(self, path: str) -> str:
        """The path as Spark writes it, such as `file:/photos/dog.jpg`."""
        return self._system.makeQualified(self._path(path)).toString()

    def exists(self, path: str) -> bool:
        return self._system.exists(self._path(path))

    def folders(self, path: str) -> list[str]:
        """The names of the folders in `path`; empty if it does not exist."""
        if not self.exists(path):
            return []
        return [
            status.getPath().getName() for status in self._system.listStatus(self._path(path)) if status.isDirectory()
        ]

    def size(self, path: str) -> int:
        """Bytes in all files of a folder."""
        return self._system.getContentSummary(self._path(path)).getLength()

    def delete(self, path: str) -> None:
        """Delete a file, or a folder with all in it; it need not exist."""
        self._system.delete(self._path(path), True)

    def move(self, path: str, target: str) -> None:
        """Rename a folder; on a local disk and in HDFS at once, in an object store file by file.

        Raises:
            OSError: it cannot be renamed.
        """
        if not self._system.rename(self._path(path), self._path(target)):
            raise OSError(f"cannot rename {path} to {target}")

    def touch(self, path: str, new: bool = False) -> bool:
        """Write an empty file, whose date is then this moment.

        Args:
            new: leave a file that exists as it is.

        Returns:
            Whether it was written.
        """
        if new and self.exists(path):
            return False
        try:
            self._system.create(self._path(path), not new).close()
        except Exception:  # Java's FileAlreadyExistsException: another run was faster
            if new and self.exists(path):
                return False
            raise
        return True

    def age(self, path: str, clock: str) -> float | None:
        """The seconds between the dates of two files, both of this file system's clock; None if `path` is gone."""
        if not self.exists(path):
            return None
        dates = [self._system.getFileStatus(self._path(p)).getModificationTime() for p in (clock, path)]
        return (dates[0] - dates[1]) / 1000
