"""Measure the Spark job on this machine: reading small files, Arrow against pandas, features, one worker against two.

    python -m benchmarks.spark FOLDER

FOLDER has JPEG photos. They are copied into a temporary folder as often as needed. Each figure is printed as a line of
JSON. `cpu_ms` is processor time of all processes for each photo. It hardly depends on what else the machine does.
"""

import argparse
import json
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from caption_generator.checkpoint import load_encoder
from caption_generator.cluster.job import BATCH, caption_task, encode_task, process
from caption_generator.cluster.session import start_spark
from caption_generator.cluster.sources import FILE_COST, open_source, read_partitions
from caption_generator.cluster.tasks import PackTask, result_schema, run, worker
from caption_generator.common.console import positive
from caption_generator.workspace import BUNDLED_MODEL

TICK = os.sysconf("SC_CLK_TCK")


def family() -> dict[int, list[str]]:
    """The processes that this one has started, and their fields of /proc/PID/stat after the name."""
    fields = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields[int(stat.parent.name)] = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
    found, size = {os.getpid()}, 0
    while size != len(found):
        size = len(found)
        found |= {pid for pid, values in fields.items() if int(values[1]) in found}
    return {pid: fields[pid] for pid in found}


def cpu_seconds() -> float:
    """Processor time of all of them so far, those that have ended included."""
    return sum(sum(map(int, values[11:15])) for values in family().values()) / TICK


def worker_memory() -> list[int]:
    """The peak memory of each of Spark's Python workers, in MB."""
    peaks = []
    for pid in family():
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            if b"pyspark.daemon" in Path(f"/proc/{pid}/cmdline").read_bytes():
                peaks.append(int(status.partition("VmHWM:")[2].split()[0]) // 1024)
        except (OSError, IndexError):
            continue
    return sorted(peaks)


@contextmanager
def timed(what: str, photos: int, **more) -> Iterator[None]:
    cpu, wall = cpu_seconds(), time.monotonic()
    yield
    seconds = time.monotonic() - wall
    row = {"what": what, "photos": photos, "seconds": round(seconds, 1)}
    row |= {"photos_s": round(photos / seconds, 1), "cpu_ms": round((cpu_seconds() - cpu) / photos * 1000, 2)}
    print(json.dumps(row | more), flush=True)


def run_pandas(task, frames):
    """`tasks.run` for mapInPandas."""
    import pyarrow as pa

    for batch in run(task, (pa.RecordBatch.from_pandas(frame) for frame in frames)):
        yield batch.to_pandas()


def read_all(spark, path: str, label: str, count: int) -> None:
    with timed(f"list: {label}", count):
        source = open_source(spark, path)
        listing = source.listing()
        listed = listing.count()
    with timed(f"read: {label}", count, listed=listed), read_partitions(spark, source.partition, FILE_COST):
        source.read(listing, F.lit(True)).select(F.sum(F.length("content"))).first()


def read_archive(folder: Path, archive: Path, count: int) -> None:
    """Read all photos of one tar archive, which only one task can do."""
    with tarfile.open(archive, "w") as tar:
        tar.add(folder, arcname="")
    with timed("read: archive", count), tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile():
                tar.extractfile(member).read()
    archive.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=positive, default=10_000, help="photos to list and read (default: 10,000)")
    parser.add_argument("--captioned", type=positive, default=1_000, help="photos to caption (default: 1,000)")
    parser.add_argument("--times", type=positive, default=3, help="how often (default: 3)")
    options = parser.parse_args()
    files_count, captioned = options.files, options.captioned
    originals = sorted(options.folder.glob("*.jpg"))
    scratch = Path(tempfile.mkdtemp(dir=os.environ.get("TMPDIR")))
    many = scratch / "many"
    many.mkdir()
    for number in range(files_count):
        shutil.copyfile(originals[number % len(originals)], many / f"{number:06}.jpg")
    few = scratch / "few"
    few.mkdir()
    for number in range(captioned):
        os.link(many / f"{number:06}.jpg", few / f"{number:06}.jpg")
    print(json.dumps({"bytes": sum(path.stat().st_size for path in many.iterdir()) // files_count}))

    spark = start_spark("local[2]", spark_driver_memory="1g")
    packed = str(scratch / "photos.parquet")
    with timed("pack", files_count):
        process(open_source(spark, str(many)), PackTask(), spark, packed)
    for _ in range(options.times):
        read_all(spark, str(many), "folder", files_count)
        read_all(spark, packed, "Parquet", files_count)
        read_archive(many, scratch / "photos.tar", files_count)

    task = caption_task(spark, BUNDLED_MODEL)
    schema = from_arrow_schema(result_schema(task))
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(BATCH))
    photos = open_source(spark, str(few))
    photos = photos.read(photos.listing(), F.lit(True))
    for _ in range(options.times):
        with timed("mapInArrow", captioned):
            photos.mapInArrow(worker(task), schema).select(F.count("caption")).first()
        with timed("mapInPandas", captioned):
            photos.mapInPandas(lambda frames: run_pandas(task, frames), schema).select(F.count("caption")).first()
    print(json.dumps({"worker_memory_mb": worker_memory()}))
    spark.stop()

    spark = start_spark("local[2]", spark_driver_memory="1g")
    with timed("features", captioned):
        process(open_source(spark, str(few)), encode_task(spark, load_encoder("bundled")), spark, str(scratch / "made"))
    print(json.dumps({"features_worker_memory_mb": worker_memory()}))
    spark.stop()

    for cores in (1, 2) * options.times:
        spark = start_spark(f"local[{cores}]", spark_driver_memory="1g")
        task = caption_task(spark, BUNDLED_MODEL)
        process(open_source(spark, str(few)), task, spark, str(scratch / "warm"), round_size=captioned)
        shutil.rmtree(scratch / "warm")
        with timed(f"{cores} workers", captioned):
            process(open_source(spark, str(few)), task, spark, str(scratch / "captions"))
        shutil.rmtree(scratch / "captions")
        spark.stop()
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
