"""Tests of caption_generator.finetune, with small networks and random weights."""

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from pycocoevalcap.cider.cider import Cider

from caption_generator import finetune
from caption_generator.captioner import Captioner
from caption_generator.checkpoint import Checkpoint, load_checkpoint
from caption_generator.common.errors import CaptionError
from caption_generator.decoders import DECODERS, DecoderSpec, build_decoder
from caption_generator.encoders import ENCODERS, Encoder, EncoderIdentity, EncoderRow, build_encoder
from caption_generator.finetuning.finetune import EncoderDecoder, ScoreDev, add_stage, train_captioner
from caption_generator.finetuning.grids import GridBatches, Grids
from caption_generator.finetuning.late_layers import split_encoder
from caption_generator.images import load_augmented, load_pixels
from caption_generator.inference.out_of_distribution import Familiarity
from caption_generator.search import BeamSearch
from caption_generator.tokenizer import PAD, SPECIAL_TOKENS, Tokenizer
from caption_generator.train import DrawOrder

WORDS = Tokenizer([*SPECIAL_TOKENS, *(f"w{number:02}" for number in range(16))], max_length=6)
TRAIN = {f"{n}.png": [f"w{n:02} w10", f"w11 w{n:02} w12 w13"][: 1 + n % 2] for n in range(5)}
DEV = {"5.png": ["w05 w10", "w10 w12"], "6.png": ["w06 w11"]}


class Killed(BaseException):
    """As KeyboardInterrupt, nothing on the way catches it."""


def pixels_of(images: Path, names, size: int = 128) -> np.ndarray:
    return np.stack([load_pixels(images / name, size) for name in names])


# Splitting


@pytest.mark.parametrize("pooling", ["avg", "grid"])
@pytest.mark.parametrize(
    "row",
    [
        EncoderRow("one", "MobileNet", "mobilenet", 128, 256, "conv_pw_11_relu", (("alpha", 0.25),)),
        EncoderRow("two", "MobileNetV2", "mobilenet_v2", 64, 1280, "block_5_add", (("alpha", 0.35),)),
    ],
    ids=["MobileNet", "MobileNetV2"],
)
def test_the_two_halves_in_turn_equal_the_encoder(row, pooling, pictures, monkeypatch):
    monkeypatch.setitem(ENCODERS, row.name, row)
    keras.utils.set_random_seed(0)
    encoder = build_encoder(row.name, weights=None, pooling=pooling)
    early, late = split_encoder(encoder)
    pixels = pixels_of(pictures, TRAIN, row.input_size)
    grid = early.predict_on_batch(pixels)
    assert grid.shape[1:3] == (8, 8)
    expected = encoder.model.predict_on_batch(pixels)
    scale = np.abs(expected).max()  # random weights make very small features
    assert scale > 0
    np.testing.assert_allclose(late.predict_on_batch(grid) / scale, expected / scale, atol=1e-3)


def test_the_halves_are_made_of_the_encoders_own_weights(untrained):
    encoder = untrained("attention").encoder
    early, late = split_encoder(encoder)
    halves = [id(weight) for half in (early, late) for weight in half.weights]
    assert sorted(halves) == sorted(id(weight) for weight in encoder.model.weights)


def test_an_encoder_without_a_place_to_split_is_refused(monkeypatch):
    row = EncoderRow("whole", "MobileNet", "mobilenet", 32, 256, None, (("alpha", 0.25),))
    monkeypatch.setitem(ENCODERS, "whole", row)
    with pytest.raises(CaptionError, match="whole has no early_layers_end"):
        split_encoder(build_encoder("whole", weights=None))


# Stored grids


def early_layers(seed: int = 0, size: int = 32) -> keras.Model:
    """As small as early layers can be: a grid of 4 x 4 places."""
    keras.utils.set_random_seed(seed)
    step = size // 4
    pixels = keras.Input((size, size, 3))
    scaled = keras.layers.Rescaling(1 / 255)(pixels)
    grid = keras.layers.Conv2D(2, 4, strides=step, padding="same")(scaled)
    return keras.Model(pixels, grid, name="until_conv2d")


@pytest.fixture
def computed(monkeypatch) -> list[int]:
    """The view of each picture that is read, 0 for the whole one."""
    views: list[int] = []

    def whole(path, size):
        views.append(0)
        return load_pixels(path, size)

    def augmented(path, size, seed):
        views.append(seed)
        return load_augmented(path, size, seed)

    monkeypatch.setattr(finetune, "load_pixels", whole)
    monkeypatch.setattr(finetune, "load_augmented", augmented)
    return views


def test_stored_grids_are_those_of_the_whole_image_and_then_of_random_views(pictures, tmp_path):
    early = early_layers()
    grids = Grids(early, pictures, list(TRAIN), tmp_path / "grids", views=2)
    assert len(grids.views) == 3
    for number, view in enumerate(grids.views):
        assert isinstance(view, np.memmap)
        assert view.dtype == np.float16
        assert view.shape == (5, 4, 4, 2)
        pixels = [
            load_augmented(pictures / name, 32, number) if number else load_pixels(pictures / name, 32)
            for name in TRAIN
        ]
        np.testing.assert_allclose(view, early.predict_on_batch(np.stack(pixels)), rtol=2e-3, atol=1e-3)
    for one, other in ((0, 1), (1, 2)):
        assert np.abs(grids.views[one] - grids.views[other]).max() > 0.05
    assert len(list((tmp_path / "grids").iterdir())) == 3


def test_grids_of_more_images_than_a_batch_stay_in_order(pictures, tmp_path):
    names = [f"{number % 7}.png" for number in range(70)]
    (whole,) = Grids(early_layers(), pictures, names, tmp_path).views
    (seven,) = Grids(early_layers(), pictures, names[:7], tmp_path).views
    np.testing.assert_allclose(whole, np.tile(seven, (10, 1, 1, 1)), rtol=2e-3, atol=1e-3)
    assert np.abs(seven[0] - seven[1]).max() > 0.05


def test_views_that_are_there_are_not_computed_again(pictures, tmp_path, computed):
    early, names = early_layers(), list(TRAIN)
    first = Grids(early, pictures, names, tmp_path, views=1).views
    assert sorted(computed) == [0] * 5 + [1] * 5
    computed.clear()
    more = Grids(early, pictures, names, tmp_path, views=3).views
    assert sorted(computed) == [2] * 5 + [3] * 5
    for one, other in zip(first, more[:2], strict=True):
        np.testing.assert_array_equal(one, other)
    computed.clear()
    assert len(Grids(early, pictures, names, tmp_path).views) == 1
    assert computed == []


def test_an_interruption_costs_one_view(pictures, tmp_path, computed, monkeypatch):
    early, names = early_layers(), list(TRAIN)

    def interrupted(path, size, seed):
        if seed == 2:
            raise KeyboardInterrupt
        return load_augmented(path, size, seed)

    with monkeypatch.context() as patch:
        patch.setattr(finetune, "load_augmented", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Grids(early, pictures, names, tmp_path, views=2)
    assert [path.stem[-2:] for path in sorted(tmp_path.iterdir())] == ["_0", "_1"]
    computed.clear()
    assert len(Grids(early, pictures, names, tmp_path, views=2).views) == 3
    assert computed == [2] * 5


def test_other_weights_and_other_images_are_other_files(pictures, tmp_path):
    names = list(TRAIN)
    for early, some in ((early_layers(), names), (early_layers(1), names), (early_layers(), names[::-1])):
        Grids(early, pictures, some, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    Grids(early_layers(), pictures, names, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_grids_of_the_same_weights_at_another_size_are_other_files(pictures, tmp_path):
    for size in (32, 64):
        early = early_layers(size=size)
        (grids,) = Grids(early, pictures, list(TRAIN), tmp_path).views
        expected = early.predict_on_batch(pixels_of(pictures, TRAIN, size))
        np.testing.assert_allclose(grids, expected, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("views", [0, 1])
def test_a_broken_image_is_named_and_leaves_no_grids(views, pictures, tmp_path):
    with pytest.raises(CaptionError, match=r"missing\.png"):
        Grids(early_layers(), pictures, ["0.png", "missing.png"], tmp_path, views)
    assert not list(tmp_path.iterdir())


# Batches


def counted_grids(images: int = 3, views: int = 2) -> SimpleNamespace:
    """Grids of 8 x 8 places of one channel: each value tells image, view and place."""
    places = np.arange(64).reshape(8, 8)
    values = [[100 * (views * image + view) + places for image in range(images)] for view in range(views)]
    return SimpleNamespace(views=[np.array(view)[..., None].astype(np.float16) for view in values])


@pytest.fixture
def grids() -> SimpleNamespace:
    return counted_grids()


def three_images() -> dict[str, list[str]]:
    return {f"{n}.png": [f"w{n:02}", f"w{n:02} w10 w11"] for n in range(3)}


def test_windows_lie_inside_the_grid_and_are_of_one_size_in_a_batch(grids):
    batches = GridBatches(three_images(), grids, WORDS, images_per_batch=3, seed=0, crop=4)
    sizes, corners, views = set(), set(), set()
    for batches.epoch in range(60):
        (((windows, _), _, _),) = batches
        size = windows.shape[1]
        assert windows.shape == (3, size, size, 1)
        assert windows.dtype == np.float32
        sizes.add(size)
        for window in windows[..., 0]:
            image_and_view, place = divmod(window[0, 0], 100)
            top, left = divmod(int(place), 8)
            # The window is a rectangle of one grid, whose values count its places.
            expected = np.arange(64).reshape(8, 8)[top : top + size, left : left + size] + 100 * image_and_view
            np.testing.assert_array_equal(window, expected)
            views.add(int(image_and_view) % 2)
            if size == 6:
                corners.add((top, left))
    assert sizes == {4, 6, 8}
    assert corners == {(top, left) for top in range(3) for left in range(3)}
    assert views == {0, 1}


def test_every_image_comes_once_an_epoch_with_all_its_captions(tmp_path):
    images = {f"{n}.png": [f"w{n:02} w10", f"w{n:02}", f"w{n:02} w11 w12"][: 1 + n % 3] for n in range(10)}
    batches = GridBatches(images, counted_grids(10), WORDS, images_per_batch=4, seed=0)
    assert len(batches) == 3
    for batches.epoch in range(2):
        seen, sizes = {}, []
        for (windows, inputs), targets, weights in batches:
            sizes.append(len(windows))
            assert len(inputs) == len(targets) == len(weights) == 3 * len(windows)  # three of each image
            assert ((inputs == PAD) == (weights == 0)).all()
            for number, window in enumerate(windows):
                rows = slice(3 * number, 3 * number + 3)
                captions = [WORDS.decode(row) for row in targets[rows] if row.any()]
                assert weights[rows].sum() == sum(len(caption.split()) + 1 for caption in captions)
                name = f"{int(window[0, 0, 0] // 200)}.png"
                assert name not in seen
                seen[name] = captions
        assert seen == images  # those that an image lacks were padding
        assert sorted(sizes) == [2, 4, 4]


def test_images_with_long_captions_share_batches_and_batches_are_mixed():
    images = {f"{n}.png": ["w10 " * (1 + 2 * (n % 3))] for n in range(60)}
    batches = GridBatches(images, counted_grids(60), WORDS, images_per_batch=4, seed=0)
    longest = [weights.shape[1] for _, _, weights in batches]
    words = sum(weights.sum() for _, _, weights in batches)
    assert words / sum(weights.size for _, _, weights in batches) > 0.8  # 4 words of 6 in the order of the file
    assert longest != sorted(longest)


def test_windows_and_order_repeat_with_seed_and_epoch_alone(grids):
    def windows(seed: int, epoch: int) -> list[np.ndarray]:
        batches = GridBatches(three_images(), grids, WORDS, images_per_batch=2, seed=seed)
        batches.epoch = epoch
        return [inputs[0] for inputs, _, _ in batches]

    def same(one, other) -> bool:
        return all(a.shape == b.shape and (a == b).all() for a, b in zip(one, other, strict=True))

    np.random.seed(3)  # what others draw must not matter
    assert same(windows(0, 3), windows(0, 3))
    assert not same(windows(0, 3), windows(0, 4))
    assert not same(windows(0, 3), windows(1, 3))


def test_the_dev_set_is_whole_and_upright_and_in_order(grids):
    batches = GridBatches(three_images(), grids, WORDS, images_per_batch=2, seed=None)
    for batches.epoch in range(2):
        first, second = batches
        np.testing.assert_array_equal(np.concatenate([first[0][0], second[0][0]]), grids.views[0])
        captions = [WORDS.decode(row) for _, targets, _ in (first, second) for row in targets]
        assert captions == [caption for group in three_images().values() for caption in group]


@pytest.mark.parametrize("seed", [0, None])
def test_the_stream_equals_iteration(grids, seed):
    batches = GridBatches(three_images(), grids, WORDS, images_per_batch=2, seed=seed)
    stream = batches.dataset()
    assert int(stream.cardinality()) == 2
    for streamed, iterated in zip(stream, batches, strict=True):
        flat = [(*batch[0], *batch[1:]) for batch in (streamed, iterated)]
        for found, expected in zip(*flat, strict=True):
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)


# The network and its scores


def late_layers(pooling: str) -> keras.Model:
    """Nothing but the pooling."""
    grid = keras.Input((None, None, 6))
    layer = {"avg": keras.layers.GlobalAveragePooling2D, "grid": keras.layers.Identity}[pooling]()
    return keras.Model(grid, layer(grid))


def opinionated(name: str) -> Checkpoint:
    """A decoder whose captions differ from image to image."""
    decoder = build_decoder(DecoderSpec(name, 6, len(WORDS), units=8, embedding_size=8, hidden=8))
    random = np.random.default_rng(0)
    decoder.model.set_weights(
        [random.normal(0, 1.5 if name == "initial_state" else 0.7, w.shape) for w in decoder.model.get_weights()]
    )
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
    twice = add_stage(add_stage(checkpoint, {"epochs": 3}), {"epochs": 5})
    assert twice.training == {"dataset": "drawn", "stages": [{"epochs": 3}, {"epochs": 5}]}
    assert checkpoint.training == {"dataset": "drawn"}


@pytest.mark.parametrize("frozen", [True, False])
def test_what_a_checkpoint_knew_of_photos_is_forgotten_when_their_features_change(frozen):
    known = Familiarity(np.ones(6, np.float32), 0.1, 0.5)
    checkpoint = Checkpoint(None, None, None, familiarity=known)
    found = add_stage(checkpoint, {"freeze_encoder": frozen}).familiarity
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


SETTINGS = [("merge", True), ("attention", False)]


def run(untrained, pictures: Path, folder: Path, name: str, frozen: bool) -> Run:
    checkpoint, before = untrained(name), untrained(name).encoder
    keras.utils.set_random_seed(len(str(folder)))  # whatever was drawn before must not matter
    history = train_captioner(
        replace(checkpoint, encoder=None),
        checkpoint.encoder,
        pictures,
        TRAIN,
        DEV,
        folder,
        epochs=2,
        images_per_batch=3,
        learning_rate=0.01,
        freeze_encoder=frozen,
        views=1,
    )
    return Run(folder, before, checkpoint, history, frozen)


@pytest.fixture(scope="module", params=SETTINGS, ids=["merge, frozen", "attention, trained"])
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
    for saved, own in (
        (found.encoder.model, trained.encoder.model),
        (found.decoder.model, trained.checkpoint.decoder.model),
    ):
        for a, b in zip(saved.get_weights(), own.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    assert found.training["dataset"] == "drawn"
    (stage,) = found.training["stages"]
    assert (stage["images_per_batch"], stage["freeze_encoder"]) == (3, trained.frozen)
    # A trained encoder is another one than that which the decoder was first trained with, and says so.
    assert found.encoder_identity == found.encoder.identity
    assert (found.encoder_identity == trained.before.identity) == trained.frozen


def test_the_history_has_the_dev_score_by_which_the_best_was_chosen(trained, pictures):
    names = ["epoch", "loss", "val_cider", "val_loss"]
    assert [sorted(row) for row in trained.history] == [names, names]
    for row in trained.history:
        found = load_checkpoint(trained.folder / f"model_{row['epoch']}.h5")
        captions = Captioner(found, found.encoder, beam=1).caption_pixels(pixels_of(pictures, DEV))
        greedy = {name: [best.text] for name, (best, *_) in zip(DEV, captions, strict=True)}
        expected, _ = Cider().compute_score(DEV, greedy)
        assert row["val_cider"] == pytest.approx(100 * expected, rel=1e-3)
        assert found.training["val_cider"] == pytest.approx(row["val_cider"])
    best = max(trained.history, key=lambda row: row["val_cider"])  # the first of equals
    assert load_checkpoint(trained.folder / "model_best.h5").training["epoch"] == best["epoch"]


def test_the_checkpoint_captions_pixels_as_it_captions_features(trained, pictures):
    found = load_checkpoint(trained.folder / "model_best.h5")
    pixels = pixels_of(pictures, TRAIN)
    from_pixels = Captioner(found, found.encoder, beam=2).caption_pixels(pixels)
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
        train_captioner(
            checkpoint, checkpoint.encoder, pictures, TRAIN, DEV, tmp_path / "models", freeze_encoder=frozen, views=0
        )
    late = {id(weight) for weight in split_encoder(checkpoint.encoder)[1].weights if "moving" not in weight.path}
    trained = {id(weight) for weight in models[1].trainable_weights}
    assert late <= trained


def test_grids_are_kept_beside_the_models(trained):
    stored = sorted(path.stem[-2:] for path in (trained.folder.parent / "grids").iterdir())
    assert stored == ["_0", "_0", "_1"]  # dev, and train with one view


def test_killed_training_goes_on_and_ends_as_if_nothing_had_happened(
    trained, untrained, pictures, tmp_path, monkeypatch
):
    name, folder = trained.checkpoint.decoder.spec.name, tmp_path / "models"

    def kill(self, batch, logs=None):
        if self.batches.epoch == 1:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(DrawOrder, "on_train_batch_end", kill)
        with pytest.raises(Killed):
            run(untrained, pictures, folder, name, trained.frozen)
    assert [p.name for p in sorted(folder.glob("model_*.h5"))] == ["model_1.h5", "model_best.h5"]
    resumed = run(untrained, pictures, folder, name, trained.frozen)
    for column in ("loss", "val_loss", "val_cider"):
        expected = [row[column] for row in trained.history]
        assert [row[column] for row in resumed.history] == pytest.approx(expected, rel=1e-3)
    for one, whole in (
        (resumed.encoder.model, trained.encoder.model),
        (resumed.checkpoint.decoder.model, trained.checkpoint.decoder.model),
    ):
        for a, b in zip(one.get_weights(), whole.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_training_without_captions_is_refused(untrained, pictures, tmp_path):
    checkpoint = untrained("attention")
    with pytest.raises(CaptionError, match="no training or no dev captions"):
        train_captioner(checkpoint, checkpoint.encoder, pictures, TRAIN, {}, tmp_path)


def test_a_decoder_that_cannot_read_the_encoder_is_refused(untrained, pictures, tmp_path):
    attention, merge = untrained("attention"), untrained("merge")
    mixed = replace(attention, encoder=merge.encoder, encoder_identity=merge.encoder.identity)
    with pytest.raises(CaptionError, match=r"attention reads features with pooling 'grid', and these have 'avg'"):
        train_captioner(mixed, merge.encoder, pictures, TRAIN, DEV, tmp_path)


def test_another_encoder_than_the_checkpoints_is_refused(untrained, pictures, tmp_path):
    checkpoint = untrained("attention")
    other = untrained("attention").encoder
    other.model.set_weights([weight + 1 for weight in other.model.get_weights()])
    with pytest.raises(CaptionError, match="the model was trained with the encoder"):
        train_captioner(checkpoint, other, pictures, TRAIN, DEV, tmp_path)
