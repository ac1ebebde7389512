"""Tests of caption_generator.finetuning.grids."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from caption_generator.common.errors import CaptionError
from caption_generator.finetuning import grids as grids_module
from caption_generator.finetuning.grids import GridBatches, Grids
from caption_generator.finetuning.late_layers import split_encoder
from caption_generator.images import load_augmented, load_pixels
from caption_generator.tokenizer import PAD
from tests.helpers import WORDS

NAMES = [f"{n}.png" for n in range(5)]


def pixels_of(images: Path, size: int) -> np.ndarray:
    return np.stack([load_pixels(images / name, size) for name in NAMES])


# Stored grids


def early_layers(seed: int = 0, size: int = 32) -> keras.Model:
    """As small as early layers can be: a grid of 4 x 4 positions."""
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

    monkeypatch.setattr(grids_module, "load_pixels", whole)
    monkeypatch.setattr(grids_module, "load_augmented", augmented)
    return views


def test_stored_grids_are_those_of_the_whole_image_and_then_of_random_views(pictures, tmp_path):
    early = early_layers()
    grids = Grids(early, pictures, NAMES, tmp_path / "grids", views=2)
    assert len(grids.views) == 3
    for number, view in enumerate(grids.views):
        assert isinstance(view, np.memmap)
        assert view.dtype == np.float16
        assert view.shape == (5, 4, 4, 2)
        pixels = [
            load_augmented(pictures / name, 32, number) if number else load_pixels(pictures / name, 32)
            for name in NAMES
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
    early, names = early_layers(), NAMES
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
    early, names = early_layers(), NAMES

    def interrupted(path, size, seed):
        if seed == 2:
            raise KeyboardInterrupt
        return load_augmented(path, size, seed)

    with monkeypatch.context() as patch:
        patch.setattr(grids_module, "load_augmented", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Grids(early, pictures, names, tmp_path, views=2)
    assert [path.stem[-2:] for path in sorted(tmp_path.iterdir())] == ["_0", "_1"]
    computed.clear()
    assert len(Grids(early, pictures, names, tmp_path, views=2).views) == 3
    assert computed == [2] * 5


def test_other_weights_and_other_images_are_other_files(pictures, tmp_path):
    names = NAMES
    for early, some in ((early_layers(), names), (early_layers(1), names), (early_layers(), names[::-1])):
        Grids(early, pictures, some, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    Grids(early_layers(), pictures, names, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_grids_of_the_same_weights_at_another_size_are_other_files(pictures, tmp_path):
    for size in (32, 64):
        early = early_layers(size=size)
        (grids,) = Grids(early, pictures, NAMES, tmp_path).views
        expected = early.predict_on_batch(pixels_of(pictures, size))
        np.testing.assert_allclose(grids, expected, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("views", [0, 1])
def test_a_broken_image_is_named_and_leaves_no_grids(views, pictures, tmp_path):
    with pytest.raises(CaptionError, match=r"missing\.png"):
        Grids(early_layers(), pictures, ["0.png", "missing.png"], tmp_path, views)
    assert not list(tmp_path.iterdir())


# Batches


def counted_grids(images: int = 3, views: int = 2) -> SimpleNamespace:
    """Grids of 8 x 8 positions of one channel: each value tells image, view and position."""
    positions = np.arange(64).reshape(8, 8)
    values = [[100 * (views * image + view) + positions for image in range(images)] for view in range(views)]
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
            image_and_view, position = divmod(window[0, 0], 100)
            top, left = divmod(int(position), 8)
            # The window is a rectangle of one grid, whose values count its positions.
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


def test_images_may_lie_in_several_folders(pictures, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(pictures / "6.png", other / "own.png")
    (view,) = Grids(early_layers(), [pictures, other], ["0.png", "own.png"], tmp_path / "grids").views
    (expected,) = Grids(early_layers(), pictures, ["0.png", "6.png"], tmp_path / "grids").views
    np.testing.assert_array_equal(view, expected)


def test_the_network_in_the_early_layers_is_folded(untrained, pictures, tmp_path):
    early, _ = split_encoder(untrained("attention").encoder)
    (view,) = Grids(early, pictures, NAMES, tmp_path / "grids").views
    expected = early.predict_on_batch(pixels_of(pictures, 128))
    scale = np.abs(expected).max()
    assert scale > 0
    np.testing.assert_allclose(view / scale, expected / scale, atol=2e-3)
