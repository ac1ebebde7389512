"""Caption photos, or compute their features, with Apache Spark: on this machine, or on a cluster."""

import argparse
import logging
import signal
import sys
import threading
from typing import TYPE_CHECKING

from caption_generator.cluster.session import start_spark
from caption_generator.common.console import beam_width, need_tensorflow, positive, quiet_at_ctrl_c
from caption_generator.common.errors import CaptionError, printable
from caption_generator.search import BEAM
from caption_generator.workspace import BUNDLED_MODEL

if TYPE_CHECKING:  # it may not be installed
    from pyspark.sql import SparkSession

EXAMPLES = """\
INPUT is a folder of photos, a glob, or a table: .parquet with the columns path and content (packed photos),
.parquet or .csv with the column path, or .txt with a path a line. Paths may be local, hdfs://, s3a:// ...

examples:
  python spark_caption.py photos/ captions.parquet
  python spark_caption.py photos/ photos.parquet --pack        many small files into few large ones
  python spark_caption.py photos.parquet captions.parquet --top 3
  python spark_caption.py photos/ vectors.parquet --features bundled --features-p features.p
  spark-submit --master yarn spark_caption.py s3a://bucket/photos s3a://bucket/captions.parquet
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", metavar="INPUT", help="a folder, a glob or a table")
    parser.add_argument("output", metavar="OUTPUT", help="a folder for the table; run again, it gets what is new")
    parser.add_argument("--model", metavar="FILE", help="a checkpoint or an export (default: the one that ships)")
    parser.add_argument(
        "--beam", type=beam_width, default=BEAM, metavar="N", help="beam width; 1 is greedy (default: %(default)s)"
    )
    parser.add_argument("--top", type=beam_width, default=1, metavar="N", help="captions a photo; widens the beam to N")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--features", metavar="ENCODER", help="compute features instead: bundled, xception ...")
    instead.add_argument("--pack", action="store_true", help="only copy the photos into a table")
    parser.add_argument("--pooling", choices=("avg", "grid"), default="avg", help="one vector a photo, or a grid")
    parser.add_argument(
        "--encoder-weights", default="imagenet", metavar="FILE", help="a weights file for the encoder of --features"
    )
    parser.add_argument("--features-p", metavar="FILE", help="write the features into this file, for notebook 4")
    parser.add_argument("--retry-errors", action="store_true", help="try photos again that had an error")
    parser.add_argument("--round", type=positive, metavar="N", help="photos whose rows appear together")
    parser.add_argument("--every", type=positive, default=10, metavar="S", help="seconds between lines of progress")
    parser.add_argument("--master", help="local[2], spark://host:7077 ... (default: all cores of this machine)")
    options = parser.parse_args()
    if options.features_p and not options.features:
        parser.error("--features-p needs --features")
    return options


def say(line: str) -> None:
    print(f"spark_caption.py: {printable(line)}", file=sys.stderr, flush=True)


def end_at_ctrl_c(spark: "SparkSession") -> None:
    """Let Ctrl-C end Spark's jobs, without the pages that Java would print of it.

    Spark's own handler asks Java in the main thread, which may be waiting for an answer of Java already.
    """

    def end_jobs() -> None:
        spark.sparkContext.setLogLevel("OFF")
        spark.sparkContext.cancelAllJobs()

    def handle(*_) -> None:
        thread = threading.Thread(target=end_jobs, daemon=True)
        thread.start()
        thread.join(5)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handle)


def main() -> int:
    options = parse_arguments()
    try:
        spark = start_spark(options.master)
        end_at_ctrl_c(spark)
        from caption_generator.cluster.job import caption_task, encode_task, process, write_features
        from caption_generator.cluster.sources import open_source
        from caption_generator.cluster.tasks import PackTask

        source = open_source(spark, options.input)
        if options.pack:
            task = PackTask()
        elif options.features:
            need_tensorflow("--features")
            from caption_generator.checkpoint import load_encoder

            task = encode_task(spark, load_encoder(options.features, options.encoder_weights, options.pooling))
        else:
            task = caption_task(spark, options.model or BUNDLED_MODEL, options.beam, options.top)
        summary = process(source, task, spark, options.output, options.round, options.retry_errors, say, options.every)
        if not summary.listed:
            raise CaptionError(f"{options.input} holds no pictures: check the name.")
        say(str(summary))
        if options.features_p:
            features = write_features(spark, options.output, task, options.features_p)
            say(f"{options.features_p} holds {len(features.vectors):,} photos.")
    except CaptionError as error:
        say(str(error))
        return 2
    spark.stop()
    return 0


def run() -> int:
    """As `main`, ended quietly by Ctrl-C."""
    logging.getLogger().addHandler(logging.NullHandler())  # Py4J logs the traceback of a Ctrl-C
    return quiet_at_ctrl_c(main)


if __name__ == "__main__":
    sys.exit(run())
