"""Start Spark, and say in one sentence what it lacks."""

import atexit
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from caption_generator.common.console import native_stderr_silenced
from caption_generator.common.errors import CaptionError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

OLDEST_JAVA = 17
PACKAGE = Path(__file__).resolve().parent.parent

# Without this file Spark greets the user with a page of warnings.
LOGGING = """\
rootLogger.level = error
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss} %p %c{1}: %m%n%ex
"""


def missing() -> str:
    """What Spark lacks on this machine, in one sentence; an empty string if it can start."""
    for package in ("pyspark", "pyarrow"):
        if find_spec(package) is None:
            return f"{package} is not installed: pip install -r requirements-spark.txt."
    if started_by_submit():
        return ""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=str(Path(home, "bin")) if home else None)
    version = java_version(java) if java else 0
    if version >= OLDEST_JAVA:
        return ""
    found = f"{java} is Java {version}" if version else f"there is no Java in {home or 'the PATH'}"
    return (
        f"Spark needs Java {OLDEST_JAVA} or newer, and {found}: install openjdk-17-jre-headless or the like, or set "
        "JAVA_HOME."
    )


def started_by_submit() -> bool:
    """Whether `spark-submit` runs this process, and has therefore started Java and chosen the settings."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def java_version(java: str) -> int:
    """The main version of a `java`, such as 17; 0 if it does not say."""
    try:
        printed = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    except OSError:
        return 0
    found = re.search(r'version "(?:1\.)?(\d+)', printed)
    return int(found.group(1)) if found else 0


def start_spark(master: str | None = None, **settings: str) -> "SparkSession":
    """Start Spark, or take the session that `spark-submit` or a notebook of a cluster has started.

    Args:
        master: where to run, such as "spark://host:7077"; by default all cores of this machine. `spark-submit` decides
            itself.
        settings: of Spark, with "_" for ".".

    Raises:
        CaptionError: Java or a package is missing, or Spark does not start.
    """
    if lacks := missing():
        raise CaptionError(lacks)
    from pyspark.sql import SparkSession

    if (session := SparkSession.getActiveSession()) is None:
        builder = SparkSession.builder.appName("caption_generator")
        if not started_by_submit():
            for name, value in _settings(master or "local[*]").items():
                builder = builder.config(name, value)
        for name, value in settings.items():
            builder = builder.config(name.replace("_", "."), value)
        # In a notebook, Java's messages would be saved among the results; its errors arrive as exceptions.
        in_notebook = "ipykernel" in sys.modules
        try:
            with native_stderr_silenced() if in_notebook else contextlib.nullcontext():
                session = builder.getOrCreate()
        except Exception as error:  # Py4J raises its own kinds
            raise CaptionError(f"Spark does not start ({error}): see what it printed above.") from error
    _ship_package(session)
    return session


def _settings(master: str) -> dict[str, str]:
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # Spark's default is any python3 in the PATH
    logging = outbox() / "log4j2.properties"
    logging.write_text(LOGGING)
    settings = {
        "spark.master": master,
        "spark.ui.showConsoleProgress": "false",
        # Java's second compiler makes the start slower, and the work is done in Python.
        "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1",
        "spark.driver.extraJavaOptions": f"-XX:TieredStopAtLevel=1 -Dlog4j2.configurationFile={logging.as_uri()}",
    }
    if master.startswith("local"):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        settings |= {"spark.driver.host": "127.0.0.1", "spark.ui.enabled": "false"}
    return settings


def _ship_package(session: "SparkSession") -> None:
    """Send this package to the executors, so that they run what the driver runs and need not have it installed."""
    if not PACKAGE.is_dir():  # it was itself sent by `spark-submit --py-files`, and Spark has sent it to all
        return
    archive = outbox() / "caption_generator.zip"
    if not archive.exists():
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            for pattern in ("*.py", "*.txt"):
                for path in sorted(PACKAGE.rglob(pattern)):
                    file.write(path, path.relative_to(PACKAGE.parent))
    session.sparkContext.addPyFile(str(archive))


@cache
def outbox() -> Path:
    """A private folder of this process for files that Java reads or sends to the executors; it goes when this ends."""
    folder = tempfile.mkdtemp(prefix="caption_generator-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
