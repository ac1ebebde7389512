"""The output of the early layers for every image, stored once, and batches of it for training."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from caption_generator.batches import pad, stream, teacher_forcing
from caption_generator.captions import Descriptions
from caption_generator.common.console import progress
from caption_generator.common.errors import CaptionError
from caption_generator.common.files import digest, replacing
from caption_generator.encoders import weights_fingerprint
from caption_generator.images import find_photos, load_augmented, load_batches, load_pixels
from caption_generator.inference.folding import fold
from caption_generator.tokenizer import PAD, Tokenizer


class Grids:
    """What the early layers make of every image, once upright and whole, then in random views, on disk.

    Attributes:
        views: float16 arrays of shape (images, height, width, channels), mapped and not loaded, so that memory does not
            grow with the dataset; the first holds the whole images.
    """

    def __init__(
        self,
        early: keras.Model,
        images: str | Path | Sequence[str | Path],
        names: Sequence[str],
        folder: str | Path,
        views: int = 0,
    ):
        """Read the files of an earlier run in `folder`, or compute and write them, one for each view.

        Args:
            early: the first half of `split_encoder`.
            images: the folder of images, or several, of which each image is in one.
            names: the images' file names.
            folder: where the arrays go, under a name that only the same layers, weights and images share, the images
                being told apart by name and size.
            views: how many random views besides the whole images.

        Raises:
            CaptionError: an image cannot be read.
        """
        paths = find_photos(images, names)
        name = _name(early, paths)
        self.views = []
        for view in range(views + 1):
            path = Path(folder, f"grids_{name}_{view}.npy")
            if not path.is_file():
                load = partial(load_augmented, seed=view) if view else load_pixels
                _write_grids(early, paths, path, load, f"View {view + 1} of {views + 1}")
            self.views.append(np.load(path, mmap_mode="r"))


def _name(early: keras.Model, paths: Sequence[Path]) -> str:
    images = [f"{path.name} {path.stat().st_size if path.is_file() else None}" for path in paths]
    return digest("\n".join([weights_fingerprint(early), early.name, str(early.input.shape), *images]))


def _write_grids(early: keras.Model, paths: Sequence[Path], path: Path, load, label: str) -> None:
    size, compute = early.input.shape[1], _folded(early)
    header = {"descr": "<f2", "fortran_order": False, "shape": (len(paths), *early.output.shape[1:])}
    with (
        replacing(path) as temporary,
        open(temporary, "wb") as file,
        progress(total=len(paths), unit="image", desc=label) as bar,
    ):
        np.lib.format.write_array_header_1_0(file, header)
        for batch in load_batches(paths, size, load=load):
            if batch.errors:
                raise CaptionError(batch.errors[0])
            compute(batch.pixels.astype(np.float32)).numpy().astype("<f2").tofile(file)
            bar.update(len(batch.paths))


def _folded(early: keras.Model) -> Callable[[np.ndarray], tf.Tensor]:
    """What `early` computes, with the network in it, its last part, folded."""
    *_, before, network = early.operations
    compute = early
    if isinstance(network, keras.Model):
        preprocess, folded = keras.Model(early.input, before.output), fold(network)

        def compute(pixels: tf.Tensor) -> tf.Tensor:
            return folded(preprocess(pixels))

    signature = [tf.TensorSpec((None, *early.input.shape[1:]), tf.float32)]
    return tf.function(compute, input_signature=signature, autograph=False)


class GridBatches:
    """Batches of images with all their captions, which share one pass of the encoder.

    Iterating yields `((grids, inputs), targets, weights)`: float32 (images, height, width, channels), then as
    `teacher_forcing` for (captions, length). Each image has the same number of captions, which stand together; where it
    has fewer, the rest are padding.
    """

    def __init__(
        self,
        descriptions: Descriptions,
        grids: Grids,
        tokenizer: Tokenizer,
        images_per_batch: int = 32,
        seed: int | None = 0,
        crop: int = 4,
    ):
        """
        Args:
            grids: of the images of `descriptions`, in their order.
            seed: draws order, views and windows; None, as for the dev set, keeps order and whole upright images.
            crop: a window is up to this much smaller than the grid, and never less than half of it.
        """
        self.names = list(descriptions)
        self.tokens = [[tokenizer.encode(caption) for caption in group] for group in descriptions.values()]
        self.longest = np.array([max(map(len, group)) for group in self.tokens])
        self.each = max(map(len, self.tokens))
        self.views, self.images_per_batch, self.seed, self.crop = grids.views, images_per_batch, seed, crop
        self.epoch = 0

    def __len__(self) -> int:
        return -(-len(self.tokens) // self.images_per_batch)

    def __iter__(self) -> Iterator:
        for images, grids in self.images():
            empty = np.full(1, PAD, np.int32)
            rows = [row for i in images for row in self.tokens[i] + [empty] * (self.each - len(self.tokens[i]))]
            inputs, targets, weights = teacher_forcing(pad(rows))
            yield (grids, inputs), targets, weights

    def images(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The images of each batch of this epoch: their numbers, and their grids in float32."""
        random = np.random.default_rng((self.seed or 0, self.epoch))
        for images in self._order(random):
            grids = self.views[0][images] if self.seed is None else self._windows(images, random)
            yield images, grids.astype(np.float32)

    def chosen(self, random: np.random.Generator) -> np.ndarray:
        """The numbers of the images of this epoch, shuffled."""
        return random.permutation(len(self.tokens))

    def _order(self, random: np.random.Generator) -> list[np.ndarray]:
        """Images whose longest captions are of similar length share a batch: there is less padding."""
        size, order = self.images_per_batch, np.arange(len(self.tokens))
        if self.seed is None:
            return [order[i : i + size] for i in range(0, len(order), size)]
        order = self.chosen(random)
        order = order[np.argsort(self.longest[order] + random.normal(0, 1, len(order)))]
        batches = [order[i : i + size] for i in range(0, len(order), size)]
        return [batches[i] for i in random.permutation(len(batches))]

    def _windows(self, images: np.ndarray, random: np.random.Generator) -> np.ndarray:
        whole = np.array(self.views[0].shape[1:3])
        most = min(self.crop, *whole // 2)
        smaller = 2 * random.integers(most // 2 + 1)  # one size for the batch, one view and place for each
        height, width = whole - smaller
        windows = []
        for image in images:
            view, (top, left) = random.integers(len(self.views)), random.integers(smaller + 1, size=2)
            windows.append(self.views[view][image, top : top + height, left : left + width])
        return np.stack(windows)

    def dataset(self) -> tf.data.Dataset:
        """The batches as a stream for `fit`."""
        captions = tf.TensorSpec((None, None), tf.int32)
        grids = tf.TensorSpec((None, None, None, self.views[0].shape[-1]), tf.float32)
        weights = tf.TensorSpec((None, None), tf.float32)
        return stream(self, ((grids, captions), captions, weights))
