"""Files and folders of any file system that Hadoop knows, through the driver's Java: local, `hdfs://`, `s3a://`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class Storage:
    """The file system of one folder, and short names for what is done there."""

    def __init__(self, spark: "SparkSession", folder: str):
        """
        Args:
            folder: a path or a URI.
        """
        self._path = spark._jvm.org.apache.hadoop.fs.Path
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
