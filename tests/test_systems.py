"""Tests of caption_generator.systems: every row builds, trains, is saved, read again and captions."""

from dataclasses import replace

import numpy as np
import pytest

from caption_generator.captioner import Captioner
from caption_generator.captions import Dataset
from caption_generator.checkpoint import load_checkpoint
from caption_generator.common.errors import CaptionError
from caption_generator.encoders import ENCODERS, EncoderRow, build_encoder
from caption_generator.features import Features
from caption_generator.inference.keras_engine import KerasEngine
from caption_generator.systems import DEFAULT, SYSTEMS, System, chosen_system, system_row
from caption_generator.tokenizer import SPECIAL_TOKENS, Tokenizer
from caption_generator.train import TrainSettings, build_system, train_decoder
from caption_generator.word_vectors import WordVectors
from caption_generator.workspace import ROOT, SAMPLE, Workspace
from tests.helpers import WORDS

pytestmark = pytest.mark.usefixtures("eager")

DATA = Dataset(
    {f"{n}.png": [f"w{n:02} w10", f"w10 w{n:02} w12"] for n in range(5)},
    {f"{n}.png": [f"w{n:02} w10"] for n in range(5, 7)},
    references={},
)


# Written out anew, so that a wrong row cannot agree with itself: parameters of the decoder for 1,650 words, by layer.
IMAGE, LSTM_200, LSTM_256 = 2048 * 256 + 256, 4 * 256 * (200 + 256 + 1), 4 * 256 * (256 + 256 + 1)
LAST = 256 * 1650 + 1650
ATTENTION = (
    (1280 * 512 + 512) + (512 * 512 + 512) + 2 * (1280 * 512 + 512)  # values, keys, first state
    + 1650 * 256 + 4 * 512 * (256 + 512 + 1) + 1024 * 256 + 256
)  # fmt: skip
EXPECTED = {
    "xception-merge": ("xception", IMAGE + 1650 * 256 + LSTM_256 + 256 * 256 + 256 + LAST),
    "resnet50-glove-merge-512": (
        "resnet50",
        IMAGE + 1650 * 200 + LSTM_200 + 256 * 512 + 512 + 512 * 1650 + 1650,
    ),
    "inceptionv3-glove-merge": ("inceptionv3", IMAGE + 1650 * 200 + LSTM_200 + 256 * 256 + 256 + LAST),
    "vgg16-fc2-initial-state": ("vgg16-fc2", 2 * (4096 * 256 + 256) + 1650 * 256 + LSTM_256 + LAST),
    "inceptionv3-initial-state": ("inceptionv3", 2 * IMAGE + 1650 * 256 + LSTM_256 + LAST),
    "resnet50-gru": ("resnet50", IMAGE + 1650 * 256 + 3 * 256 * (256 + 256 + 2) + LAST),
    "mobilenetv2-attention": ("mobilenetv2", ATTENTION),
    "efficientnet-lite2-attention": ("efficientnet-lite2", ATTENTION),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_is_what_its_name_says(name):
    system = system_row(name)
    encoder, parameters = EXPECTED[name]
    assert system.name == name and system.encoder == encoder
    decoder = build_system(system, ENCODERS[encoder].feature_size, words_of(1650), vectors_of(system, 1650))
    assert decoder.model.count_params() == parameters
    frozen = {weight.path.split("/")[0] for weight in decoder.model.weights} - {
        weight.path.split("/")[0] for weight in decoder.model.trainable_weights
    }
    assert "embedding" in frozen if "glove" in name else "embedding" not in frozen


def words_of(size: int) -> Tokenizer:
    return Tokenizer([*SPECIAL_TOKENS, *(f"w{number}" for number in range(size - 4))], max_length=6)


def vectors_of(system: System, words: int) -> WordVectors | None:
    matrix = np.random.default_rng(0).normal(size=(words, system.decoder.embedding_size)).astype(np.float32)
    return WordVectors(matrix, (), (), "glove.drawn.txt") if system.pretrained else None


@pytest.mark.parametrize(
    "name",
    [
        "xception-merge",
        "inceptionv3-glove-merge",
        "resnet50-gru",
        "mobilenetv2-attention",
        # These differ in sizes alone from others.
        pytest.param("resnet50-glove-merge-512", marks=pytest.mark.slow),
        pytest.param("vgg16-fc2-initial-state", marks=pytest.mark.slow),
        pytest.param("inceptionv3-initial-state", marks=pytest.mark.slow),
    ],
)
def test_every_system_trains_is_saved_read_again_and_captions_photos(name, pictures, tmp_path, monkeypatch):
    """With a small encoder inside: the real ones are tested in test_encoders.py."""
    tiny = EncoderRow("tiny", "MobileNet", "mobilenet", 64, 256, arguments=(("alpha", 0.25),))
    monkeypatch.setitem(ENCODERS, "tiny", tiny)
    row = SYSTEMS[name]
    system = replace(row, encoder="tiny", decoder=replace(row.decoder, units=8, embedding_size=8, hidden=8))
    encoder = build_encoder("tiny", None, system.pooling)
    photos = sorted(pictures.glob("*.png"))
    random = np.random.default_rng(0)
    shape = encoder.model.output.shape[1:]
    features = Features({photo.name: random.normal(size=shape).astype("f") for photo in photos}, encoder.identity)
    settings = TrainSettings(epochs=1, batch_size=4)
    train_decoder(DATA, features, WORDS, tmp_path, system, settings, vectors_of(system, len(WORDS)))

    found = load_checkpoint(tmp_path / "model_best.h5")
    assert found.training["system"] == f"tiny-{system.kind}"
    assert found.decoder.spec == replace(system.decoder, feature_size=256, vocabulary_size=20)
    captioner = Captioner(KerasEngine(found, encoder))
    results = list(captioner.caption_files(photos))
    assert len(results) == 7 and all(0 < result.best.score <= 1 for result in results)


def test_a_name_that_nobody_knows_is_refused_with_the_known_ones():
    with pytest.raises(CaptionError, match="no system 'clip': choose one of xception-merge, resnet50-glove-merge-512"):
        system_row("clip")


def test_the_environment_chooses_and_the_sample_needs_no_download(monkeypatch):
    full, sample = Workspace(ROOT, ROOT), Workspace(SAMPLE, SAMPLE)
    monkeypatch.delenv("CAPTION_SYSTEM", raising=False)
    assert chosen_system(full) == SYSTEMS[DEFAULT]
    assert chosen_system(sample) == replace(SYSTEMS[DEFAULT], encoder="bundled")
    monkeypatch.setenv("CAPTION_SYSTEM", "resnet50-gru")
    assert chosen_system(full) == SYSTEMS["resnet50-gru"]
    monkeypatch.setenv("CAPTION_SYSTEM", "gru")
    with pytest.raises(CaptionError, match="no system 'gru'"):
        chosen_system(full)


def test_every_encoder_goes_with_every_kind():
    assert system_row("bundled-merge") == replace(SYSTEMS["xception-merge"], encoder="bundled")
    assert system_row("vgg16-fc2-glove-merge-512") == replace(SYSTEMS["resnet50-glove-merge-512"], encoder="vgg16-fc2")
    for name in ("bundled", "bundled-clip", "merge", "bundled-merge-"):
        with pytest.raises(CaptionError, match=f"no system '{name}'.*or another encoder.*such as bundled-merge"):
            system_row(name)


def test_systems_of_one_kind_differ_in_their_encoder_alone():
    kinds = {}
    for system in SYSTEMS.values():
        assert kinds.setdefault(system.kind, replace(system, encoder="")) == replace(system, encoder="")
