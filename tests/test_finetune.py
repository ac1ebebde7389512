"""Tests of caption_generator.finetune, with small networks and random weights."""

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from caption_generator.captioner import Captioner
from caption_generator.checkpoint import Checkpoint, load_checkpoint
from caption_generator.decoders import DecoderSpec, build_decoder
from caption_generator.decoding import BeamSearch
from caption_generator.encoders import ENCODERS, Encoder, EncoderRow, build_encoder
from caption_generator.files import CaptionError
from caption_generator.finetune import GridBatches, finetune, split_encoder, store_grids
from caption_generator.images import load_pixels
from caption_generator.tokenizer import PAD, SPECIAL_TOKENS, Tokenizer
from caption_generator.train import DrawOrder

# The two kinds of encoder that can be fine-tuned, in small: the first has few late layers, for they take long to build.
ROWS = (
    EncoderRow("tiny", "MobileNet", "mobilenet", 128, 256, "conv_pw_11_relu", (("alpha", 0.25),)),
    EncoderRow("tiny2", "MobileNetV2", "mobilenet_v2", 64, 1280, "block_5_add", (("alpha", 0.35),)),
)
WORDS = Tokenizer([*SPECIAL_TOKENS, *(f"w{number:02}" for number in range(16))], max_length=6)
TRAIN = {f"{n}.png": [f"w{n:02} w10", f"w11 w{n:02} w12 w13"] for n in range(5)}
DEV = {"5.png": ["w05 w10"], "6.png": ["w06"]}


class Killed(BaseException):
    """As KeyboardInterrupt, nothing on the way catches it."""


@pytest.fixture(scope="module", autouse=True)
def _rows():
    with pytest.MonkeyPatch.context() as patch:
        for row in ROWS:
            patch.setitem(ENCODERS, row.name, row)
        yield


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for name in (*TRAIN, *DEV):
        coarse = Image.fromarray(random.integers(256, size=(4, 4, 3)).astype(np.uint8))
        coarse.resize((64, 64), Image.Resampling.NEAREST).save(folder / name)
    return folder


def pixels_of(images: Path, names, size: int = 128) -> np.ndarray:
    return np.stack([load_pixels(images / name, size) for name in names])


def start(name: str = "tiny") -> tuple[Checkpoint, Encoder]:
    """The same untrained encoder and decoder each time."""
    keras.utils.set_random_seed(4)
    encoder = build_encoder(name, weights=None)
    random = np.random.default_rng(4)
    for layer in encoder.backbone.layers:  # as they are drawn, the signal dies away from layer to layer
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            layer.set_weights([random.normal(0, 0.6, layer.kernel.shape)])
    decoder = build_decoder(DecoderSpec("merge", encoder.row.feature_size, len(WORDS), units=8))
    return Checkpoint(decoder, WORDS, encoder.identity, training={"dataset": "drawn"}), encoder


def run(images: Path, folder: Path):
    checkpoint, encoder = start()
    keras.utils.set_random_seed(len(str(folder)))  # whatever was drawn before must not matter
    history = finetune(
        checkpoint, encoder, images, TRAIN, DEV, folder, epochs=2, images_per_batch=3, learning_rate=0.01
    )
    return encoder, checkpoint.decoder, history


@dataclass
class Tuned:
    folder: Path
    before: Encoder
    encoder: Encoder
    decoder: object
    history: list


@pytest.fixture(scope="module")
def tuned(images, tmp_path_factory) -> Tuned:
    """Two epochs of fine-tuning."""
    folder = tmp_path_factory.mktemp("tuned")
    return Tuned(folder, start()[1], *run(images, folder))


@pytest.fixture
def grids() -> np.ndarray:
    """Of three images, upright and mirrored: each value tells image, side and place."""
    places = np.arange(8 * 8).reshape(8, 8)
    sides = np.stack([places, 100 + places])
    return np.stack([sides, 200 + sides, 400 + sides])[..., None].astype(np.float16)


@pytest.mark.parametrize("name", [row.name for row in ROWS])
def test_the_two_halves_in_turn_equal_the_encoder(name, images):
    _, encoder = start(name)
    early, late = split_encoder(encoder)
    pixels = pixels_of(images, TRAIN, encoder.row.input_size)
    grid = early.predict_on_batch(pixels)
    assert grid.shape[1:3] == (8, 8)
    np.testing.assert_allclose(
        late.predict_on_batch(grid), encoder.model.predict_on_batch(pixels), rtol=1e-4, atol=1e-6
    )


def test_an_encoder_without_a_place_to_split_is_refused():
    keras.utils.set_random_seed(0)
    row = EncoderRow("whole", "MobileNet", "mobilenet", 32, 256, None, (("alpha", 0.25),))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, "whole", row)
        encoder = build_encoder("whole", weights=None)
    with pytest.raises(CaptionError, match="whole has no early_layers_end"):
        split_encoder(encoder)


def test_stored_grids_are_those_of_the_image_and_of_its_mirror_image(images, tmp_path):
    early, _ = split_encoder(start()[1])
    path = tmp_path / "grids.npy"
    stored = store_grids(early, images, list(TRAIN), path)
    pixels = pixels_of(images, TRAIN)
    assert isinstance(stored, np.memmap)
    assert stored.dtype == np.float16
    assert stored.shape == (5, 2, *early.output.shape[1:])
    np.testing.assert_allclose(stored[:, 0], early.predict_on_batch(pixels), rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(stored[:, 1], early.predict_on_batch(pixels[:, :, ::-1]), rtol=2e-3, atol=1e-3)
    assert np.abs(stored[:, 0] - stored[:, 1]).max() > 0.01
    assert [p.name for p in tmp_path.iterdir()] == ["grids.npy"]


def test_a_broken_image_is_named_and_leaves_no_grids(images, tmp_path):
    early, _ = split_encoder(start()[1])
    with pytest.raises(CaptionError, match=r"missing\.png"):
        store_grids(early, images, ["0.png", "missing.png"], tmp_path / "grids.npy")
    assert not list(tmp_path.iterdir())


def three_images() -> dict[str, list[str]]:
    return {f"{n}.png": [f"w{n:02}", f"w{n:02} w10 w11"] for n in range(3)}


def test_windows_lie_inside_the_grid_and_are_of_one_size_in_a_batch(grids):
    batches = GridBatches(three_images(), grids, WORDS, images_per_batch=3, seed=0, crop=4)
    sizes, corners, sides = set(), set(), set()
    for batches.epoch in range(60):
        (((windows, _, _), _, _),) = batches
        size = windows.shape[1]
        assert windows.shape == (3, size, size, 1)
        assert windows.dtype == np.float32
        sizes.add(size)
        for window in windows[..., 0]:
            image_and_side, place = divmod(window[0, 0], 100)
            top, left = divmod(int(place), 8)
            # The window is a rectangle of one grid, whose values count its places.
            expected = np.arange(64).reshape(8, 8)[top : top + size, left : left + size] + 100 * image_and_side
            np.testing.assert_array_equal(window, expected)
            sides.add(int(image_and_side) % 2)
            if size == 6:
                corners.add((top, left))
    assert sizes == {4, 6, 8}
    assert corners == {(top, left) for top in range(3) for left in range(3)}
    assert sides == {0, 1}


def test_captions_stay_with_the_window_of_their_image(grids):
    batches = GridBatches(three_images(), grids, WORDS, images_per_batch=2, seed=0)
    assert len(batches) == len(list(batches)) == 2
    seen = []
    for (windows, inputs, owners), targets, weights in batches:
        assert owners.dtype == np.int32
        for owner, row, weight in zip(owners, targets, weights, strict=True):
            image = int(windows[owner, 0, 0, 0] // 200)
            caption = WORDS.decode(row)
            assert caption.startswith(f"w{image:02}")
            assert weight.sum() == len(caption.split()) + 1
            seen.append(caption)
        assert ((inputs == PAD) == (weights == 0)).all()
    assert sorted(seen) == sorted(caption for group in three_images().values() for caption in group)


def test_windows_repeat_with_seed_and_epoch_alone(grids):
    def windows(seed: int, epoch: int) -> list[np.ndarray]:
        batches = GridBatches(three_images(), grids, WORDS, images_per_batch=3, seed=seed)
        batches.epoch = epoch
        return [inputs[0] for inputs, _, _ in batches]

    def same(one, other) -> bool:
        return all(a.shape == b.shape and (a == b).all() for a, b in zip(one, other, strict=True))

    assert same(windows(0, 3), windows(0, 3))
    assert not same(windows(0, 3), windows(0, 4))
    assert not same(windows(0, 3), windows(1, 3))


def test_the_dev_set_is_whole_and_upright_and_in_order(grids):
    batches = GridBatches(three_images(), grids, WORDS, images_per_batch=3, seed=None)
    for batches.epoch in range(2):
        (((windows, _, owners), _, _),) = batches
        np.testing.assert_array_equal(windows, grids[:, 0])
        assert owners.tolist() == [0, 0, 1, 1, 2, 2]


def test_the_stream_equals_iteration(grids):
    batches = GridBatches(three_images(), grids, WORDS, images_per_batch=2, seed=0)
    stream = batches.dataset()
    assert int(stream.cardinality()) == 2
    for streamed, iterated in zip(stream, batches, strict=True):
        flat = [(*batch[0], *batch[1:]) for batch in (streamed, iterated)]
        for found, expected in zip(*flat, strict=True):
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)


def test_late_layers_learn_and_early_layers_and_statistics_stay(tuned):
    names = [layer.name for layer in tuned.encoder.backbone.layers]
    cut = names.index(tuned.encoder.row.early_layers_end)
    changed = {"early": 0, "late": 0}
    for number, (layer, before) in enumerate(
        zip(tuned.encoder.backbone.layers, tuned.before.backbone.layers, strict=True)
    ):
        for variable, old in zip(layer.weights, before.weights, strict=True):
            moved = np.abs(variable.numpy() - old.numpy()).max() > 0
            changed["early" if number <= cut else "late"] += moved
            if "moving" in variable.path:
                assert not moved, variable.path
            elif number > cut:
                assert moved, variable.path
    assert changed["early"] == 0
    assert changed["late"] > 10


def test_losses_fall_and_both_networks_are_saved_together(tuned):
    assert [row["epoch"] for row in tuned.history] == [1, 2]
    assert tuned.history[1]["loss"] < tuned.history[0]["loss"]
    checkpoint = load_checkpoint(tuned.folder / "model_2.h5")
    for saved, trained in (
        (checkpoint.encoder.model, tuned.encoder.model),
        (checkpoint.decoder.model, tuned.decoder.model),
    ):
        for a, b in zip(saved.get_weights(), trained.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    assert checkpoint.training["dataset"] == "drawn"
    assert checkpoint.training["finetuning"]["images_per_batch"] == 3
    # The encoder inside is another one than that which the decoder was first trained with, and says so.
    assert checkpoint.encoder_identity == checkpoint.encoder.identity != tuned.before.identity


def test_a_fine_tuned_checkpoint_captions_pixels_as_it_captions_features(tuned, images):
    checkpoint = load_checkpoint(tuned.folder / "model_best.h5")
    pixels = pixels_of(images, TRAIN)
    from_pixels = Captioner(checkpoint, checkpoint.encoder, beam=2).caption_pixels(pixels)
    features = checkpoint.encoder.model.predict_on_batch(pixels)
    from_features = BeamSearch(checkpoint.decoder, checkpoint.tokenizer, 2)(features)
    assert from_pixels == from_features
    words = np.array([[1, 5, 6]] * len(pixels), np.int32)
    np.testing.assert_allclose(
        checkpoint.network.predict_on_batch([pixels, words]),
        checkpoint.decoder.model.predict_on_batch([features, words]),
        rtol=1e-4,
        atol=1e-6,
    )


def test_killed_fine_tuning_goes_on_and_ends_as_if_nothing_had_happened(tuned, images, tmp_path, monkeypatch):
    def kill(self, batch, logs=None):
        if self.batches.epoch == 1:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(DrawOrder, "on_train_batch_end", kill)
        with pytest.raises(Killed):
            run(images, tmp_path)
    assert [p.name for p in sorted(tmp_path.glob("model_*.h5"))] == ["model_1.h5", "model_best.h5"]
    encoder, decoder, history = run(images, tmp_path)
    for name in ("loss", "val_loss"):
        assert [row[name] for row in history] == pytest.approx([row[name] for row in tuned.history], rel=1e-3)
    for resumed, whole in ((encoder.model, tuned.encoder.model), (decoder.model, tuned.decoder.model)):
        for a, b in zip(resumed.get_weights(), whole.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
