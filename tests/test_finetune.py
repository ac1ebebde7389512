"""Tests of caption_generator.finetuning.finetune, with small networks and random weights."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from pycocoevalcap.cider.cider import Cider

from caption_generator.captioner import Captioner
from caption_generator.captions import Dataset
from caption_generator.checkpoint import Checkpoint, load_checkpoint
from caption_generator.common.errors import CaptionError
from caption_generator.decoders import DECODERS, DecoderSpec, build_decoder
from caption_generator.encoders import Encoder, EncoderIdentity
from caption_generator.finetuning import finetune
from caption_generator.finetuning.finetune import (
    EncoderDecoder,
    FinetuneSettings,
    ScoreDev,
    add_stage,
    train_captioner,
)
from caption_generator.finetuning.forgetting import forgotten
from caption_generator.finetuning.late_layers import split_encoder
from caption_generator.images import load_pixels
from caption_generator.inference.imagenet_classifier import ImageNetClassifier
from caption_generator.inference.keras_engine import KerasEngine
from caption_generator.inference.out_of_distribution import Familiarity
from caption_generator.search import BeamSearch
from caption_generator.training_loop import DrawOrder
from tests.helpers import WORDS, draw_weights, eagerly, killed_at, same_weights

pytestmark = pytest.mark.usefixtures("eager")

DATA = Dataset(
    {f"{n}.png": [f"w{n:02} w10", f"w11 w{n:02} w12 w13"][: 1 + n % 2] for n in range(5)},
    {"5.png": ["w05 w10", "w10 w12"], "6.png": ["w06 w11"]},
    references={},
)
SETTINGS = FinetuneSettings(epochs=2, images_per_batch=3, learning_rate=0.01, views=1)


def pixels_of(images: Path, names, size: int = 128) -> np.ndarray:
    return np.stack([load_pixels(images / name, size) for name in names])


# The network and its scores


def late_layers(pooling: str) -> keras.Model:
    """Nothing but the pooling."""
    grid = keras.Input((None, None, 6))
    layer = {"avg": keras.layers.GlobalAveragePooling2D, "grid": keras.layers.Identity}[pooling]()
    return keras.Model(grid, layer(grid))


def opinionated(name: str) -> Checkpoint:
    """A decoder whose captions differ from image to image."""
    decoder = build_decoder(DecoderSpec(name, 6, len(WORDS), units=8, embedding_size=8, hidden=8))
    draw_weights(decoder, 1.5 if name == "initial_state" else 0.7)
    pooling = DECODERS[name].pooling
    return Checkpoint(decoder, WORDS, EncoderIdentity("none", 32, "mobilenet", 6, "cafe", pooling))


@pytest.mark.parametrize("name", DECODERS)
def test_the_network_gives_the_decoders_logits_of_the_late_layers_features(name, untrained, pictures):
    checkpoint = untrained(name)
    early, late = split_encoder(checkpoint.encoder)
    pixels = pixels_of(pictures, ["0.png", "1.png"])
    tokens = np.array([[1, 5, 6], [1, 7, 8], [1, 9, 0], [1, 4, 4]], np.int32)
    network = EncoderDecoder(late, checkpoint.decoder.model)
    found = network((early(pixels), tokens), training=False)
    assert found.shape == (4, 3, 20)
    np.testing.assert_allclose(found, checkpoint.network([pixels, tokens]), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", DECODERS)
def test_the_dev_score_is_the_cider_of_greedy_captions_of_whole_images(name):
    checkpoint = opinionated(name)
    grids = SimpleNamespace(views=[np.random.default_rng(0).normal(size=(70, 3, 2, 6)).astype(np.float16)] * 2)
    late = late_layers(DECODERS[name].pooling)
    features = late.predict_on_batch(grids.views[0].astype(np.float32))
    greedy = [best.text for best, *_ in BeamSearch(checkpoint.decoder, WORDS, beam=1)(features)]
    assert len(set(greedy)) > 10
    # One caption of every second image is right, so that a mix-up of images would cost.
    dev = {f"{n}.png": [text if n % 2 else "w00 w01 w02", "w03 w04"] for n, text in enumerate(greedy)}
    logs: dict[str, float] = {"loss": 1.0}
    ScoreDev(late, checkpoint, dev, grids).on_epoch_end(0, logs)
    expected, _ = Cider().compute_score(dev, {name: [text] for name, text in zip(dev, greedy, strict=True)})
    assert logs == {"loss": 1.0, "val_cider": pytest.approx(100 * expected, rel=1e-6)}
    assert logs["val_cider"] > 10


def test_stages_are_noted_one_after_the_other():
    checkpoint = replace(opinionated("merge"), training={"dataset": "drawn"})
    first, second = FinetuneSettings(epochs=3), FinetuneSettings(epochs=5, seed=1)
    logged = {"epoch": 3, "loss": 1.0, "val_loss": 2.0, "val_cider": 50.0, "run": "0123456789ab"}
    once = add_stage(checkpoint, first)
    twice = add_stage(replace(once, training=once.training | logged), second)
    assert twice.training == {"dataset": "drawn", "stages": [asdict(first), asdict(second)]}
    assert checkpoint.training == {"dataset": "drawn"}


@pytest.mark.parametrize("frozen", [True, False])
def test_what_a_checkpoint_knew_of_photos_is_forgotten_when_their_features_change(frozen):
    known = Familiarity(np.ones(6, np.float32), 0.1, 0.5)
    checkpoint = Checkpoint(None, None, None, familiarity=known)
    found = add_stage(checkpoint, FinetuneSettings(freeze_encoder=frozen)).familiarity
    assert found is (known if frozen else None)


# Training


@dataclass
class Run:
    """What became of two epochs."""

    folder: Path
    before: Encoder
    checkpoint: Checkpoint
    history: list
    frozen: bool

    @property
    def encoder(self) -> Encoder:
        return self.checkpoint.encoder


def run(untrained, pictures: Path, folder: Path, name: str, frozen: bool) -> Run:
    checkpoint, before = untrained(name), untrained(name).encoder
    keras.utils.set_random_seed(len(str(folder)))  # whatever was drawn before must not matter
    settings = replace(SETTINGS, freeze_encoder=frozen)
    decoder_alone = replace(checkpoint, encoder=None)
    with eagerly(frozen):  # the other run is in graphs, as users have it
        history = train_captioner(decoder_alone, checkpoint.encoder, pictures, DATA, folder, settings)
    return Run(folder, before, checkpoint, history, frozen)


@pytest.fixture(
    scope="module", params=[("merge", True), ("attention", False)], ids=["merge, frozen", "attention, trained"]
)
def trained(request, untrained, pictures, tmp_path_factory) -> Run:
    return run(untrained, pictures, tmp_path_factory.mktemp("trained") / "models", *request.param)


def test_late_layers_learn_unless_frozen_and_early_layers_and_statistics_stay(trained):
    layers = trained.encoder.backbone.layers
    cut = [layer.name for layer in layers].index(trained.encoder.row.early_layers_end)
    changed = {"early": 0, "late": 0}
    for number, (layer, before) in enumerate(zip(layers, trained.before.backbone.layers, strict=True)):
        for variable, old in zip(layer.weights, before.weights, strict=True):
            moved = np.abs(variable.numpy() - old.numpy()).max() > 0
            changed["early" if number <= cut else "late"] += moved
            if "moving" in variable.path:
                assert not moved, variable.path
            elif number > cut:
                assert moved != trained.frozen, variable.path
    assert changed["early"] == 0
    assert changed["late"] == 0 if trained.frozen else changed["late"] > 10


def test_every_weight_of_the_decoder_learns(trained, untrained):
    before = untrained(trained.checkpoint.decoder.spec.name).decoder.model
    for variable, old in zip(trained.checkpoint.decoder.model.trainable_weights, before.trainable_weights, strict=True):
        assert np.abs(variable.numpy() - old.numpy()).max() > 0, variable.path


def test_losses_fall_and_both_networks_are_saved_together(trained):
    assert [row["epoch"] for row in trained.history] == [1, 2]
    assert trained.history[1]["loss"] < trained.history[0]["loss"]
    found = load_checkpoint(trained.folder / "model_2.h5")
    assert same_weights(found.encoder.model, trained.encoder.model)
    assert same_weights(found.decoder.model, trained.checkpoint.decoder.model)
    assert found.training["dataset"] == "drawn"
    (stage,) = found.training["stages"]
    assert stage == asdict(replace(SETTINGS, freeze_encoder=trained.frozen))
    # A trained encoder is another one than that which the decoder was first trained with, and says so.
    assert found.encoder_identity == found.encoder.identity
    assert (found.encoder_identity == trained.before.identity) == trained.frozen


def test_the_history_has_the_dev_score_by_which_the_best_was_chosen(trained, pictures):
    names = ["epoch", "loss", "val_cider", "val_loss"]
    assert [sorted(row) for row in trained.history] == [names, names]
    for row in trained.history:
        found = load_checkpoint(trained.folder / f"model_{row['epoch']}.h5")
        captions = Captioner(KerasEngine(found, found.encoder), beam=1).caption_pixels(pixels_of(pictures, DATA.dev))
        greedy = {name: [best.text] for name, (best, *_) in zip(DATA.dev, captions, strict=True)}
        expected, _ = Cider().compute_score(DATA.dev, greedy)
        assert row["val_cider"] == pytest.approx(100 * expected, rel=1e-3)
        assert found.training["val_cider"] == pytest.approx(row["val_cider"])
    best = max(trained.history, key=lambda row: row["val_cider"])  # the first of equals
    assert load_checkpoint(trained.folder / "model_best.h5").training["epoch"] == best["epoch"]


def test_the_checkpoint_captions_pixels_as_it_captions_features(trained, pictures):
    found = load_checkpoint(trained.folder / "model_best.h5")
    pixels = pixels_of(pictures, DATA.train)
    from_pixels = Captioner(KerasEngine(found, found.encoder), beam=2).caption_pixels(pixels)
    features = found.encoder.model.predict_on_batch(pixels)
    from_features = BeamSearch(found.decoder, found.tokenizer, 2)(features)
    for captions, expected in zip(from_pixels, from_features, strict=True):
        assert [caption.text for caption in captions] == [caption.text for caption in expected]
        for caption, other in zip(captions, expected, strict=True):
            assert [word for word, _ in caption.words] == [word for word, _ in other.words]
            assert [p for _, p in caption.words] == pytest.approx([p for _, p in other.words], rel=1e-3)
            assert caption.score == pytest.approx(other.score, rel=1e-3)


def test_an_encoder_that_was_frozen_before_is_trained_when_asked(untrained, pictures, tmp_path, monkeypatch):
    checkpoint = untrained("attention")
    models = []
    monkeypatch.setattr(finetune, "fit", lambda model, *_, **__: models.append(model))
    for frozen in (True, False):
        settings = replace(SETTINGS, freeze_encoder=frozen, views=0)
        train_captioner(checkpoint, checkpoint.encoder, pictures, DATA, tmp_path / "models", settings)
    late = {id(weight) for weight in split_encoder(checkpoint.encoder)[1].weights if "moving" not in weight.path}
    trained = {id(weight) for weight in models[1].trainable_weights}
    assert late <= trained


def test_grids_are_kept_beside_the_models(trained):
    stored = sorted(path.stem[-2:] for path in (trained.folder.parent / "grids").iterdir())
    assert stored == ["_0", "_0", "_1"]  # dev, and train with one view


def test_killed_training_goes_on_and_ends_as_if_nothing_had_happened(trained, untrained, pictures, tmp_path):
    name, folder = trained.checkpoint.decoder.spec.name, tmp_path / "models"
    with killed_at(DrawOrder, "on_train_batch_end", lambda self, *_, **__: self.batches.epoch == 1):
        run(untrained, pictures, folder, name, trained.frozen)
    assert [p.name for p in sorted(folder.glob("model_*.h5"))] == ["model_1.h5", "model_best.h5"]
    resumed = run(untrained, pictures, folder, name, trained.frozen)
    assert resumed.history == trained.history
    assert same_weights(resumed.encoder.model, trained.encoder.model)
    assert same_weights(resumed.checkpoint.decoder.model, trained.checkpoint.decoder.model)


def test_training_without_captions_is_refused(untrained, pictures, tmp_path):
    checkpoint = untrained("attention")
    with pytest.raises(CaptionError, match="no training or no dev captions"):
        train_captioner(checkpoint, checkpoint.encoder, pictures, replace(DATA, dev={}), tmp_path)


def test_a_decoder_that_cannot_read_the_encoder_is_refused(untrained, pictures, tmp_path):
    attention, merge = untrained("attention"), untrained("merge")
    mixed = replace(attention, encoder=merge.encoder, encoder_identity=merge.encoder.identity)
    with pytest.raises(CaptionError, match=r"attention reads features with pooling 'grid', and these have 'avg'"):
        train_captioner(mixed, merge.encoder, pictures, DATA, tmp_path)


def test_another_encoder_than_the_checkpoints_is_refused(untrained, pictures, tmp_path):
    checkpoint = untrained("attention")
    other = untrained("attention").encoder
    other.model.set_weights([weight + 1 for weight in other.model.get_weights()])
    with pytest.raises(CaptionError, match="the model was trained with the encoder"):
        train_captioner(checkpoint, other, pictures, DATA, tmp_path)


def test_the_classifier_stays_with_the_model_and_the_stage_says_how_much_it_counts(untrained, pictures, tmp_path):
    kernel = np.random.default_rng(0).random((256, 1000), np.float32)
    checkpoint = replace(untrained("attention"), classifier=ImageNetClassifier(kernel, np.zeros(1000, np.float32)))
    settings = FinetuneSettings(1, images_per_batch=5, views=0, keep=2.0)
    train_captioner(checkpoint, checkpoint.encoder, pictures, DATA, tmp_path / "run", settings)
    found = load_checkpoint(tmp_path / "run" / "model_1.h5")
    assert found.training["stages"][-1]["keep"] == 2.0
    np.testing.assert_array_equal(found.classifier.kernel, kernel)


def test_the_answers_of_a_teacher_are_kept_where_there_is_one(untrained, pictures, tmp_path, monkeypatch):
    checkpoint, other = untrained("attention"), untrained("attention").encoder
    late = split_encoder(other)[1]
    late.set_weights([weight * 1.5 for weight in late.get_weights()])
    classifier = ImageNetClassifier(
        np.random.default_rng(0).random((256, 1000), np.float32), np.zeros(1000, np.float32)
    )
    checkpoint = replace(checkpoint, classifier=classifier)
    models = []
    monkeypatch.setattr(finetune, "fit", lambda model, *_, **__: models.append(model))
    settings = replace(SETTINGS, views=0, keep=2.0)
    for teacher in (None, other):
        train_captioner(checkpoint, checkpoint.encoder, pictures, DATA, tmp_path / "models", settings, teacher)
    early, late = split_encoder(checkpoint.encoder)
    grids = early(pixels_of(pictures, DATA.train))
    own, others = (float(model.penalty(grids, late(grids))) for model in models)
    assert own == pytest.approx(0, abs=1e-4)
    answers = forgotten(classifier, split_encoder(other)[1](grids), late(grids))
    assert others == pytest.approx(2 * float(answers), rel=1e-2)
    assert others > 1e-3
