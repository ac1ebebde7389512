"""Tests of training on several devices, in a process of its own: TensorFlow divides the processor only at its start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

PROGRAM = """
import sys

import numpy as np
import tensorflow as tf

[processor] = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)

from caption_generator.captions import Dataset
from caption_generator.checkpoint import load_checkpoint
from caption_generator.common.errors import CaptionError
from caption_generator.decoders import DecoderSpec
from caption_generator.encoders import EncoderIdentity
from caption_generator.features import Features
from caption_generator.systems import System
from caption_generator.tokenizer import SPECIAL_TOKENS, Tokenizer
from caption_generator.train import TrainSettings, train_decoder

folder = sys.argv[1]
words = Tokenizer([*SPECIAL_TOKENS, *(f"w{number:02}" for number in range(16))], max_length=6)
# The captions of a batch differ in length, so the devices have different numbers of words.
train = {f"{n}.jpg": [f"w{n:02} w10", f"w10 w11 w{n:02} w12", f"w{n:02}"] for n in range(8)}
dev = {f"dev{n}.jpg": [f"w{n:02} w10 w11"] for n in range(4)}
vectors = np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)
identity = EncoderIdentity("mobilenet", 224, "mobilenet", 6, "0123456789ab")
features = Features(dict(zip([*train, *dev], vectors)), identity)
spec = DecoderSpec("merge", units=8, embedding_size=7, hidden=9, dropout=0.0)
system = System("merge", "mobilenet", spec, learning_rate=0.01)


def run(name, strategy, batch_size=10):
    settings = TrainSettings(epochs=3, batch_size=batch_size)
    data = Dataset(train, dev, {}, "drawn")
    history = train_decoder(data, features, words, f"{folder}/{name}", system, settings, strategy=strategy)
    return history, load_checkpoint(f"{folder}/{name}/model_3.h5").decoder.model.get_weights()


two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert two.num_replicas_in_sync == 2
history, weights = run("one", None)
other_history, other_weights = run("two", two)
for row, other in zip(history, other_history, strict=True):
    np.testing.assert_allclose(list(row.values()), list(other.values()), rtol=1e-5)
for array, other in zip(weights, other_weights, strict=True):
    np.testing.assert_allclose(array, other, atol=1e-5)
try:
    run("odd", two, batch_size=7)
except CaptionError as error:
    assert "a batch of 7 captions cannot be divided among 2 devices" in str(error)
else:
    raise AssertionError("no error")
print("the same")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="MirroredStrategy is tested on Linux and macOS")
def test_two_devices_train_the_same_weights_as_one(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.endswith("the same\n"), done.stderr
