"""Tests of caption_generator.cluster and spark_caption.py. They need Java and pyspark, and are skipped without."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
import pytest

import spark_caption
from caption_generator.captioner import Captioner
from caption_generator.captions import SPLIT_FILES
from caption_generator.cluster import session
from caption_generator.common.errors import CaptionError
from caption_generator.images import load_pixels
from caption_generator.workspace import SAMPLE

LACKS = session.missing()
needs_spark = pytest.mark.skipif(bool(LACKS), reason=LACKS)
SCRIPT = Path(__file__).resolve().parent.parent / "spark_caption.py"
PHOTOS = sorted((SAMPLE / "Flickr8k_Dataset").glob("*.jpg"))


@pytest.fixture(scope="module")
def spark():
    found = session.start_spark("local[2]", spark_sql_shuffle_partitions="2", spark_driver_memory="1g")
    yield found
    found.stop()


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return Captioner.load()


@pytest.fixture(scope="module")
def task(spark):
    from caption_generator.cluster.job import caption_task
    from caption_generator.workspace import BUNDLED_MODEL

    return caption_task(spark, BUNDLED_MODEL)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with six photos, one of them deeper and with a name of its own kind, and two that are no photos."""
    folder = tmp_path / "photos"
    (folder / "more deeply").mkdir(parents=True)
    for photo in PHOTOS[:5]:
        shutil.copy(photo, folder)
    shutil.copy(PHOTOS[5], folder / "more deeply" / "é 100% #1.JPG")
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "empty.png").touch()
    (folder / "notes.txt").write_text("no photo")
    return folder


def process(spark, task, source, output, **options):
    from caption_generator.cluster import job, sources

    return job.process(sources.open_source(spark, str(source)), task, spark, str(output), **options)


def read(spark, output) -> dict[str, list]:
    """The rows of a table by the names of the photos."""
    rows: dict[str, list] = {}
    for row in spark.read.parquet(str(output)).orderBy("path", "modified").collect():
        rows.setdefault(row.path.rpartition("/")[2], []).append(row)
    return rows


@needs_spark
def test_photos_get_the_captions_of_the_script_and_bad_ones_a_row_with_the_reason(
    spark, task, captioner, photos, tmp_path
):
    summary = process(spark, task, photos, tmp_path / "captions")
    assert (summary.listed, summary.done, summary.errors) == (8, 8, 2)
    rows = {name: row for name, [row] in read(spark, tmp_path / "captions").items()}
    assert len(rows) == 8
    for name, reason in (
        ("broken.jpg", "cannot be read as a picture ("),
        ("empty.png", "could not be read: it is empty"),
    ):
        row = rows.pop(name)
        assert (row.caption, row.score, row.alternatives) == (None, None, None)
        assert row.error.startswith(f"file:{photos}/{name} {reason}")
    for row in rows.values():
        photo = Path(row.path.removeprefix("file:"))
        [[best, *_]] = captioner.caption_pixels(load_pixels(photo, captioner.engine.input_size)[None])
        assert (row.caption, row.error, row.model) == (best.text, None, task.fingerprint)
        assert row.score == pytest.approx(best.score, abs=1e-3)
        assert row.modified.timestamp() == pytest.approx(photo.stat().st_mtime, abs=0.002)
    assert [path.name for path in (tmp_path / "captions").iterdir() if not path.name.startswith("run=")] == []


@pytest.mark.slow
@needs_spark
def test_the_dev_photos_get_the_captions_of_the_script(spark, task, captioner, shared, tmp_path):
    folder = shared / "wide"
    names = (folder / "Flickr8k_text" / SPLIT_FILES["dev"]).read_text().split()
    photos = [str(folder / "Flickr8k_Dataset" / name) for name in names]
    (tmp_path / "photos.txt").write_text("".join(f"{photo}\n" for photo in photos))
    process(spark, task, tmp_path / "photos.txt", tmp_path / "captions")
    rows = read(spark, tmp_path / "captions")
    expected = {result.path.name: result.best.text for result in captioner.caption_files(photos)}
    assert len(expected) >= 300
    assert {name: row.caption for name, [row] in rows.items()} == expected


@needs_spark
def test_a_second_run_does_what_is_new_or_changed(spark, task, photos, tmp_path):
    from caption_generator.cluster.job import caption_task
    from caption_generator.cluster.table import Table
    from caption_generator.workspace import BUNDLED_MODEL

    output = tmp_path / "captions"
    process(spark, task, photos, output, round_size=3)  # whatever the rounds
    assert process(spark, task, photos, output).done == 0
    shutil.copy(PHOTOS[6], photos)
    os.utime(photos / PHOTOS[0].name, (1e9, 2e9))
    assert process(spark, task, photos, output).done == 2
    shutil.copy(PHOTOS[7], photos / "broken.jpg")
    summary = process(spark, task, photos, output)
    assert (summary.listed, summary.done, summary.errors) == (9, 1, 0)
    counts = {name: len(rows) for name, rows in read(spark, output).items()}
    twice = {PHOTOS[0].name, "broken.jpg"}
    assert counts == {name: 2 if name in twice else 1 for name in counts}
    newest = {row.path.rpartition("/")[2]: row for row in Table(spark, str(output), task).newest().collect()}
    assert len(newest) == 9
    assert newest["broken.jpg"].caption
    assert process(spark, task, photos, output, retry_errors=True).done == 1
    other = caption_task(spark, BUNDLED_MODEL, beam=1, top=2)
    assert process(spark, other, photos, output).done == 9
    [row] = [row for row in read(spark, output)[PHOTOS[1].name] if row.model == other.fingerprint]
    assert [list(other.asDict()) for other in row.alternatives] == [["caption", "score"]]


@needs_spark
@pytest.mark.parametrize(
    "suffix", ["txt", pytest.param("csv", marks=pytest.mark.slow), pytest.param("parquet", marks=pytest.mark.slow)]
)
def test_a_table_names_the_photos(spark, task, photos, tmp_path, suffix):
    named = [str(photos / PHOTOS[0].name), f"file:{photos}/more deeply/é 100% #1.JPG", str(photos / "gone.jpg")]
    named += [named[0], str(tmp_path / "nowhere" / "x.jpg")]
    table = tmp_path / f"paths.{suffix}"
    if suffix == "parquet":
        spark.createDataFrame([(path,) for path in named], "path string").write.parquet(str(table))
    else:
        table.write_text("\n".join(["path"] * (suffix == "csv") + named) + "\n")
    summary = process(spark, task, table, tmp_path / "captions")
    assert (summary.done, summary.errors) == (4, 2)
    rows = {name: row for name, [row] in read(spark, tmp_path / "captions").items()}
    assert rows["é 100% #1.JPG"].caption
    assert "gone.jpg could not be read: it is empty or gone" in rows["gone.jpg"].error
    assert process(spark, task, table, tmp_path / "captions").done == 0


@needs_spark
def test_packed_photos_get_the_same_captions(spark, task, photos, tmp_path):
    from caption_generator.cluster.tasks import PackTask

    packed = tmp_path / "photos.parquet"
    assert process(spark, PackTask(), photos, packed).done == 8
    shutil.copy(PHOTOS[7], photos / "broken.jpg")
    assert process(spark, PackTask(), photos, packed).done == 1
    summary = process(spark, task, packed, tmp_path / "from_packed")
    assert (summary.listed, summary.errors) == (8, 1)
    process(spark, task, photos, tmp_path / "from_files")
    from_packed, from_files = read(spark, tmp_path / "from_packed"), read(spark, tmp_path / "from_files")
    assert set(from_packed) == set(from_files)
    for name, [row] in from_packed.items():
        assert row.caption == from_files[name][0].caption
    with pytest.raises(CaptionError, match="holds the columns path, modified, content"):
        process(spark, task, photos, packed)


@needs_spark
@pytest.mark.slow
def test_features_for_notebook_4_are_those_of_notebook_2(spark, photos, tmp_path):
    from caption_generator.checkpoint import load_encoder
    from caption_generator.cluster.job import encode_task, write_features
    from caption_generator.features import extract_features, load_features

    encoder = load_encoder("bundled")
    task = encode_task(spark, encoder)
    process(spark, task, photos, tmp_path / "vectors")
    write_features(spark, str(tmp_path / "vectors"), task, tmp_path / "features.p")
    found = load_features(tmp_path / "features.p")
    assert found.encoder == encoder.identity
    names = [photo.name for photo in PHOTOS[:5]]
    expected = extract_features(encoder, photos, names, tmp_path / "expected.p")
    assert sorted(found.vectors) == sorted([*names, "é 100% #1.JPG"])
    np.testing.assert_allclose(found.matrix(names), expected.matrix(names), atol=1e-4)


@needs_spark
def test_a_run_that_waited_for_another_knows_what_that_has_added(spark, photos, tmp_path, monkeypatch):
    from caption_generator.cluster.table import Table
    from caption_generator.cluster.tasks import CaptionTask, PackTask

    lock = Table.lock
    for task, output in ((PackTask(), tmp_path / "same"), (CaptionTask("none", 1, 1, "none"), tmp_path / "other")):

        def lock_after_another_run(table, output=output):
            monkeypatch.setattr(Table, "lock", lock)
            process(spark, PackTask(), photos, output)
            return lock(table)

        monkeypatch.setattr(Table, "lock", lock_after_another_run)
        if task == PackTask():
            assert process(spark, task, photos, output).done == 0
        else:
            with pytest.raises(CaptionError, match="holds the columns path, modified, content"):
                process(spark, task, photos, output)
        assert {len(rows) for rows in read(spark, output).values()} == {1}


@pytest.mark.slow
@needs_spark
def test_many_large_packed_photos_fit_into_a_small_heap(spark, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet
    from pyspark.sql import functions as F

    from caption_generator.cluster import sources

    contents = [number.to_bytes(4, "little") * 400_000 for number in range(400)]  # 640 MB, which pack well
    table = pa.table({"path": [f"{number}.jpg" for number in range(400)], "content": contents})
    pyarrow.parquet.write_table(table, tmp_path / "photos.parquet", use_dictionary=False)
    source = sources.open_source(spark, str(tmp_path / "photos.parquet"))
    with sources.read_partitions(spark, source.partition, sources.FILE_COST):
        read = source.read(source.listing(), F.lit(True)).select(F.sum(F.length("content"))).first()
    assert read[0] == 640_000_000


@needs_spark
def test_only_one_run_writes_to_a_table(spark, task, photos, tmp_path, monkeypatch):
    from caption_generator.cluster import table

    monkeypatch.setattr(table, "BEAT", 1)
    monkeypatch.setattr(table, "DEAD", 4)
    results = table.Table(spark, str(tmp_path / "captions"), task)
    with results.lock(), pytest.raises(CaptionError, match="another run is writing"), results.lock():
        pass
    (tmp_path / "captions" / "_lock").touch()  # as a killed run leaves it
    with results.lock():
        pass
    assert list((tmp_path / "captions").iterdir()) == []


def many(folder: Path, number: int) -> Path:
    """A folder of links to the photos of the sample."""
    folder.mkdir()
    for n in range(number):
        (folder / f"{n:04}.jpg").symlink_to(PHOTOS[n % len(PHOTOS)])
    return folder


def start(*arguments, **environment) -> subprocess.Popen:
    """The script, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        env=os.environ | environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(condition, process: subprocess.Popen, seconds: float = 400):
    """What `condition` gives as soon as that is true; fails if the process ends before."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    raise AssertionError("it takes too long")


def executors(group: int) -> list[int]:
    """The ids of the executors' processes that a run has started."""
    listed = subprocess.check_output(["ps", "-ww", "-eo", "pid,pgid,args"], text=True)
    lines = [line.split(maxsplit=2) for line in listed.splitlines()[1:]]
    return [
        int(pid) for pid, pgid, command in lines if int(pgid) == group and "CoarseGrainedExecutorBackend" in command
    ]


@pytest.mark.slow
@needs_spark
def test_a_lost_executor_loses_no_row_and_doubles_none(tmp_path):
    import pyarrow.parquet
    import pyspark

    work = Path(pyspark.__file__).parent / "work"
    before = set(work.glob("app-*"))
    folder, output = many(tmp_path / "photos", 60), tmp_path / "captions"
    process = start(folder, output, "--master", "local-cluster[2,1,1024]")
    try:
        wait_for(lambda: list(output.glob("_staging/made/_temporary/0/_temporary/*")), process)  # tasks are at work
        first, second = executors(process.pid)
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: set(executors(process.pid)) - {first, second}, process)  # another starts in its place
        assert process.wait(400) == 0, process.stderr.read()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for folder in set(work.glob("app-*")) - before:  # Spark's own test cluster always logs there
            shutil.rmtree(folder)
    rows = pyarrow.parquet.read_table(output).to_pylist()
    assert sorted(row["path"].rpartition("/")[2] for row in rows) == [f"{n:04}.jpg" for n in range(60)]
    assert all(row["caption"] for row in rows)


@pytest.mark.slow
@needs_spark
def test_a_killed_driver_is_run_again(spark, task, tmp_path, monkeypatch):
    from caption_generator.cluster import table

    monkeypatch.setattr(table, "DEAD", 2)
    folder, output = many(tmp_path / "photos", 60), tmp_path / "captions"
    killed = start(folder, output, "--master", "local[2]", "--round", 15)
    try:
        wait_for(lambda: list(output.glob("run=*")), killed)
        wait_for(lambda: list(output.glob("_staging/made/_temporary")), killed)  # in the next round
    finally:
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
    before = sum(map(len, read(spark, output).values()))
    assert 0 < before < 60
    assert (output / "_lock").exists()
    assert process(spark, task, folder, output).done == 60 - before
    rows = read(spark, output)
    assert sorted(rows) == [f"{n:04}.jpg" for n in range(60)]
    assert all(len(found) == 1 and found[0].caption for found in rows.values())


@needs_spark
def test_a_wrong_input_is_one_sentence(spark, tmp_path):
    from caption_generator.cluster.sources import open_source

    with pytest.raises(CaptionError, match=r"/nowhere does not exist: check the name\.$"):
        open_source(spark, str(tmp_path / "nowhere"))
    (tmp_path / "table.csv").write_text("file\nx.jpg\n")
    with pytest.raises(CaptionError, match="has no column path, only file"):
        open_source(spark, str(tmp_path / "table.csv"))


@needs_spark
def test_names_are_taken_as_they_are(spark, tmp_path):
    from caption_generator.cluster.sources import open_source
    from caption_generator.cluster.tasks import PackTask

    folder = tmp_path / "holiday [2024] {a}"
    folder.mkdir()
    for name in ("dog.jpg", "cat [1].jpg"):
        shutil.copy(PHOTOS[0], folder / name)
    table = folder / "photos [1].CSV"
    table.write_text(f"path\n{folder}/dog.jpg\n{folder}/gone.jpg\n")
    packed = folder / "packed [1].PARQUET"
    assert str(process(spark, PackTask(), folder, packed)).startswith("2 photos")
    summary = process(spark, PackTask(), table, packed)
    assert (summary.listed, summary.done, summary.errors) == (2, 1, 1)
    assert sorted(read(spark, tmp_path / "*" / "packed*")) == ["cat [1].jpg", "dog.jpg", "gone.jpg"]
    for source, count in ((packed, 3), (tmp_path / "holiday*" / "cat*", 1)):
        assert open_source(spark, str(source)).listing().count() == count


@needs_spark
def test_an_error_of_a_worker_is_one_sentence(spark):
    from caption_generator.cluster.storage import in_one_sentence

    for error, sentence in (
        (CaptionError("dog.jpg is bad: mend it."), "dog.jpg is bad: mend it."),
        (ValueError("no\x1b good"), r"Spark gave up (ValueError: no\x1b good): try again."),
    ):

        def fail(batches, error=error):
            raise error

        with pytest.raises(CaptionError) as caught, in_one_sentence("Spark gave up", "try again"):
            spark.range(1).mapInArrow(fail, "id long").collect()
        assert str(caught.value) == sentence


@pytest.fixture
def script(monkeypatch):
    """A function that runs the script within this process, and returns its exit code."""

    def run(*arguments) -> int:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        return spark_caption.run()

    monkeypatch.setattr(logging.root, "handlers", [])
    at_ctrl_c = signal.getsignal(signal.SIGINT)
    yield run
    signal.signal(signal.SIGINT, at_ctrl_c)


@needs_spark
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["DIR/photos", "DIR/file", "--pack"], "/file cannot be written (org.apache.hadoop.fs.FileAlreadyExists"),
        (["DIR/photos", "DIR/file/captions", "--pack"], "/file/captions cannot be written ("),
        (["s3a://bucket/photos", "DIR/captions", "--pack"], "s3a://bucket/photos cannot be reached ("),
        (["DIR/none", "DIR/captions", "--pack"], "/none holds no pictures: check the name."),
        (["DIR/photos", "s3a://bucket/captions", "--pack"], "s3a://bucket/captions cannot be reached ("),
        (["DIR/photos", "DIR/captions", "--features", "bundled"], "--features needs TensorFlow (import of tensorflow"),
        (["DIR/photos", "DIR/captions", "--model", "missing.h5"], "missing.h5 is not a file: "),
        (["DIR/photos", "DIR/captions", "--model", "DIR/file"], "/file needs TensorFlow (import of tensorflow"),
    ],
)
def test_a_failure_of_the_script_is_one_sentence(spark, photos, script, monkeypatch, capsys, arguments, sentence):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    (photos.parent / "file").touch()
    (photos.parent / "none").mkdir()
    assert script(*(argument.replace("DIR", str(photos.parent)) for argument in arguments)) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("spark_caption.py: ")
    assert sentence in line


@needs_spark
def test_ctrl_c_ends_the_script_quietly(spark, photos, script, monkeypatch, capsys):
    from caption_generator.cluster import job

    monkeypatch.setattr(job, "process", lambda *_: signal.raise_signal(signal.SIGINT))
    assert script(photos, photos / "captions", "--pack") == 130
    spark.sparkContext.setLogLevel("ERROR")
    assert capsys.readouterr().err == ""


@pytest.mark.slow
@needs_spark
def test_ctrl_c_at_work_leaves_no_traceback_and_no_row_of_the_round(tmp_path):
    folder, output = many(tmp_path / "photos", 60), tmp_path / "captions"
    interrupted = start(folder, output, "--master", "local[2]")
    try:
        wait_for(lambda: list(output.glob("_staging/made/_temporary/0/_temporary/*")), interrupted)
        os.killpg(interrupted.pid, signal.SIGINT)  # as a terminal does
        printed = interrupted.communicate(timeout=100)[1]
    finally:
        if interrupted.poll() is None:
            os.killpg(interrupted.pid, signal.SIGKILL)
            interrupted.wait()
    assert interrupted.returncode == 130
    assert "Traceback" not in printed
    assert "\tat " not in printed
    assert list(output.glob("run=*")) == []


@needs_spark
def test_ctrl_c_stays_what_it_is_if_py4j_fails_at_the_next_word():
    from py4j.protocol import Py4JNetworkError

    from caption_generator.cluster.storage import in_one_sentence

    with pytest.raises(KeyboardInterrupt), in_one_sentence("Spark gave up", "try again"):
        try:
            raise KeyboardInterrupt
        finally:
            raise Py4JNetworkError("Answer from Java side is empty")


def test_lines_of_the_script_do_not_steer_the_terminal(capsys):
    spark_caption.say("a\x1b[2J.jpg\n")
    assert capsys.readouterr().err == "spark_caption.py: a\\x1b[2J.jpg\\n\n"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--features", "bundled"], "--pack: not allowed with argument --features"),
        (["--features-p", "features.p"], "--features-p needs --features"),
    ],
)
def test_photos_are_packed_or_encoded(script, capsys, options, complaint):
    with pytest.raises(SystemExit) as ended:
        script("photos", "table", *options, "--pack")
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


def test_the_file_for_java_is_in_a_private_folder(monkeypatch):
    monkeypatch.delattr(os, "getuid", raising=False)  # as on Windows
    options = session._settings("spark://host:7077")["spark.driver.extraJavaOptions"]
    file = Path(url2pathname(urlsplit(options.partition("configurationFile=")[2]).path))
    assert file.read_text() == session.LOGGING
    assert file.parent == session.outbox()
    assert file.parent.stat().st_mode & 0o077 == 0


def test_what_is_missing_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.delenv("PYSPARK_GATEWAY_PORT", raising=False)
    monkeypatch.setattr(session, "find_spec", lambda name: None)
    assert session.missing() == "pyspark is not installed: pip install -r requirements-spark.txt."
    monkeypatch.setattr(session, "find_spec", lambda name: True)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert f"there is no Java in {tmp_path}" in session.missing()
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_312\"' >&2\n")
    java.chmod(0o755)
    assert "is Java 8" in session.missing()
    with pytest.raises(CaptionError, match="Spark needs Java 17"):
        session.start_spark()
