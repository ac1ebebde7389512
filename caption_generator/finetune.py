"""Step 4, continued: let the caption loss into the encoder.

The early layers of a CNN see edges and textures, which captions do not change, and cost most of its time. So their
activations are computed once, for every image and its mirror image, and the layers after them are trained together with
the decoder. Random windows of the stored grid stand in for random crops of the image.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from caption_generator.batches import pad, teacher_forcing
from caption_generator.captions import Descriptions
from caption_generator.checkpoint import Checkpoint
from caption_generator.encoders import Encoder, fingerprint
from caption_generator.files import CaptionError, replacing
from caption_generator.images import load_batches
from caption_generator.progress import progress
from caption_generator.tokenizer import Tokenizer
from caption_generator.train import History, fit, word_loss


def split_encoder(encoder: Encoder) -> tuple[keras.Model, keras.Model]:
    """The encoder in two: pixels to the grid after its early layers, and that grid to features.

    Raises:
        CaptionError: the encoder's row does not say where to split it.
    """
    cut = encoder.row.early_layers_end
    if cut is None:
        raise CaptionError(f"the encoder {encoder.row.name} has no early_layers_end in its row: name the layer there.")
    backbone = encoder.backbone
    early = keras.Model(backbone.input, backbone.get_layer(cut).output)
    late = keras.Model(backbone.get_layer(cut).output, backbone.output, name="late_layers")
    return keras.Model(encoder.model.input, early(encoder.preprocessed), name="early_layers"), late


def store_grids(early: keras.Model, folder: str | Path, names: Sequence[str], path: str | Path) -> np.ndarray:
    """Run the early layers over every image and its mirror image, once.

    Args:
        early: the first half of `split_encoder`.
        folder: where the images are.
        path: a `.npy` file that is mapped, not loaded, so that memory does not grow with the dataset.

    Returns:
        float16 of shape (images, 2, height, width, channels), on disk.

    Raises:
        CaptionError: an image cannot be read.
    """
    path = Path(path)
    shape = (len(names), 2, *early.output.shape[1:])
    if path.is_file():
        stored = np.load(path, mmap_mode="r")
        if stored.shape == shape:
            return stored
    size = early.input.shape[1]
    with replacing(path) as temporary, progress(total=len(names), unit="image", desc="Early layers") as bar:
        grids = np.lib.format.open_memmap(temporary, "w+", np.float16, shape)
        done = 0
        for batch in load_batches([Path(folder, name) for name in names], size):
            if batch.errors:
                raise CaptionError(batch.errors[0])
            rows = slice(done, done + len(batch.paths))
            grids[rows, 0] = early.predict_on_batch(batch.pixels)
            grids[rows, 1] = early.predict_on_batch(batch.pixels[:, :, ::-1])
            done = rows.stop
            bar.update(len(batch.paths))
        grids.flush()
    return np.load(path, mmap_mode="r")


def _grids_name(early: keras.Model, names: Iterable[str]) -> str:
    """A name that only grids of the same layers, weights and images share."""
    return hashlib.sha256("\n".join([fingerprint(early), *names]).encode()).hexdigest()[:12]


class GridBatches:
    """Batches of images with all their captions, which share one pass of the encoder.

    Iterating yields `((grids, inputs, owners), targets, weights)`: float32 (images, height, width, channels), then as
    `teacher_forcing` for (captions, length), and int32 (captions,): the place of each caption's image in the batch.
    """

    def __init__(
        self,
        descriptions: Descriptions,
        grids: np.ndarray,
        tokenizer: Tokenizer,
        images_per_batch: int = 32,
        seed: int | None = 0,
        crop: int = 4,
    ):
        """
        Args:
            grids: of `store_grids`, in the order of `descriptions`.
            seed: draws order, mirroring and windows; None, as for the dev set, keeps order and whole upright grids.
            crop: a window is up to this much smaller than the grid.
        """
        self.tokens = [[tokenizer.encode(caption) for caption in group] for group in descriptions.values()]
        self.grids, self.images_per_batch, self.seed, self.crop, self.epoch = grids, images_per_batch, seed, crop, 0

    def __len__(self) -> int:
        return -(-len(self.tokens) // self.images_per_batch)

    def __iter__(self) -> Iterator:
        random = np.random.default_rng((self.seed or 0, self.epoch))
        order = np.arange(len(self.tokens)) if self.seed is None else random.permutation(len(self.tokens))
        for start in range(0, len(order), self.images_per_batch):
            images = order[start : start + self.images_per_batch]
            grids = np.stack([self.grids[i, 0] for i in images]) if self.seed is None else self._windows(images, random)
            captions = [(tokens, owner) for owner, image in enumerate(images) for tokens in self.tokens[image]]
            inputs, targets, weights = teacher_forcing(pad([tokens for tokens, _ in captions]))
            owners = np.array([owner for _, owner in captions], np.int32)
            yield (grids.astype(np.float32), inputs, owners), targets, weights

    def _windows(self, images: np.ndarray, random: np.random.Generator) -> np.ndarray:
        smaller = 2 * random.integers(self.crop // 2 + 1)  # one size for the batch, one place and mirroring for each
        height, width = np.array(self.grids.shape[2:4]) - smaller
        windows = []
        for image in images:
            mirrored, (top, left) = random.integers(2), random.integers(smaller + 1, size=2)
            windows.append(self.grids[image, mirrored, top : top + height, left : left + width])
        return np.stack(windows)

    def dataset(self) -> tf.data.Dataset:
        """The batches as a stream for `fit`."""
        captions = tf.TensorSpec((None, None), tf.int32)
        grids = tf.TensorSpec((None, None, None, self.grids.shape[-1]), tf.float32)
        signature = (
            (grids, captions, tf.TensorSpec((None,), tf.int32)),
            captions,
            tf.TensorSpec((None, None), tf.float32),
        )
        stream = tf.data.Dataset.from_generator(lambda: iter(self), output_signature=signature)
        return stream.apply(tf.data.experimental.assert_cardinality(len(self))).prefetch(2)


class FineTuned(keras.Model):
    """The late layers of the encoder and the decoder as one network: (grids, tokens, owners) to probabilities."""

    def __init__(self, late: keras.Model, decoder: keras.Model):
        super().__init__()
        self.late, self.decoder = late, decoder
        self.built = True  # as both are; without it, a backup is not restored

    def call(self, inputs: tuple, training: bool = False) -> tf.Tensor:
        grids, tokens, owners = inputs
        features = self.late(grids, training=False)  # batch norm keeps its statistics
        return self.decoder([keras.ops.take(features, owners, axis=0), tokens], training=training)


def finetune(
    checkpoint: Checkpoint,
    encoder: Encoder,
    images: str | Path,
    train: Descriptions,
    dev: Descriptions,
    folder: str | Path,
    epochs: int = 10,
    images_per_batch: int = 32,
    learning_rate: float = 2e-4,
    seed: int = 0,
) -> History:
    """Train encoder and decoder together; interrupted, the same call goes on after the last finished epoch.

    Writes what `train_decoder` writes; these checkpoints contain the encoder.

    Args:
        checkpoint: a decoder that has settled on the encoder's frozen features.
        encoder: the one it belongs to; its weights are changed.
        images: the folder of images.
        folder: where checkpoints and the stored grids go.
        learning_rate: of Adam at the start; it falls to 0 along a cosine.
    """
    keras.utils.set_random_seed(seed)
    folder = Path(folder)
    early, late = split_encoder(encoder)
    grids = {
        split: store_grids(early, images, list(group), folder / f"grids_{split}_{_grids_name(early, group)}.npy")
        for split, group in (("train", train), ("dev", dev))
    }
    batches = GridBatches(train, grids["train"], checkpoint.tokenizer, images_per_batch, seed)
    model = FineTuned(late, checkpoint.decoder.model)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, epochs * len(batches))
    model.compile(optimizer=keras.optimizers.Adam(schedule, clipnorm=5.0), loss=word_loss(), jit_compile=False)
    training = dict(checkpoint.training) | {
        "finetuning": {
            "epochs": epochs,
            "images_per_batch": images_per_batch,
            "learning_rate": learning_rate,
            "seed": seed,
        }
    }
    return fit(
        model,
        batches,
        GridBatches(dev, grids["dev"], checkpoint.tokenizer, images_per_batch, seed=None),
        replace(checkpoint, encoder=encoder, training=training),
        folder,
        epochs,
    )
