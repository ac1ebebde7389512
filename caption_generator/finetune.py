"""Step 4, continued: train on the images themselves, and let the caption loss into the encoder.

The early layers of a CNN see edges and textures, which captions do not change, and cost most of its time. So their
activations are computed once, for every image and for some random views of it, and the layers after them are trained
together with the decoder, or only run where the decoder is to settle first.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from pycocoevalcap.cider.cider import Cider

from caption_generator.batches import pad, stream, teacher_forcing
from caption_generator.captions import Descriptions
from caption_generator.checkpoint import Checkpoint, check_encoder
from caption_generator.decoding import BeamSearch
from caption_generator.encoders import Encoder, fingerprint, pool
from caption_generator.files import CaptionError, digest, replacing
from caption_generator.folding import fold
from caption_generator.images import load_augmented, load_batches, load_pixels
from caption_generator.progress import progress
from caption_generator.tokenizer import PAD, Tokenizer
from caption_generator.train import History, WordLoss, check_captions, check_pooling, fit

LOGGED = ("epoch", "loss", "val_loss", "val_cider", "reward", "words")


class LateLayers(keras.Model):
    """The layers of an encoder after its layer `cut`, folded: a step takes eight or nine tenths of the time."""

    def __init__(self, encoder: Encoder, cut: str):
        super().__init__(name="late_layers")
        after = encoder.backbone.layers.index(encoder.backbone.get_layer(cut)) + 1
        self.own = encoder.backbone.layers[after:]  # so that Keras finds their weights
        self.pooling = encoder.pooling
        self.folded = fold(encoder.backbone, after=cut, trainable=True)
        self.built = True  # as its layers are

    def call(self, grids: tf.Tensor) -> tf.Tensor:
        return pool(self.folded(grids), self.pooling)


def split_encoder(encoder: Encoder) -> tuple[keras.Model, LateLayers]:
    """The encoder in two: pixels to the grid after its early layers, and that grid to features.

    Raises:
        CaptionError: the encoder's row does not say where to split it.
    """
    cut = encoder.row.early_layers_end
    if cut is None:
        raise CaptionError(f"the encoder {encoder.row.name} has no early_layers_end in its row: name the layer there.")
    backbone = encoder.backbone
    # Both must be the encoder's own layers: what is trained here is saved there.
    early = keras.Model(backbone.input, backbone.get_layer(cut).output)
    return keras.Model(encoder.model.input, early(encoder.preprocessed), name=f"until_{cut}"), LateLayers(encoder, cut)


def freeze(network: keras.Model, frozen: bool = True) -> None:
    """Keep the weights of `network` as they are, or let them be trained."""
    for layer in network.layers:  # one by one: the network is new, and does not know what its layers are set to
        layer.trainable = not frozen


class Grids:
    """What the early layers make of every image, once upright and whole, then in random views, on disk.

    Attributes:
        views: float16 arrays of shape (images, height, width, channels), mapped and not loaded, so that memory does not
            grow with the dataset; the first holds the whole images.
    """

    def __init__(
        self, early: keras.Model, images: str | Path, names: Sequence[str], folder: str | Path, views: int = 0
    ):
        """Read the files of an earlier run in `folder`, or compute and write them, one for each view.

        Args:
            early: the first half of `split_encoder`.
            images: the folder of images.
            names: the images' file names.
            folder: where the arrays go, under a name that only the same layers, weights and images share, the images
                being told apart by name and size.
            views: how many random views besides the whole images.

        Raises:
            CaptionError: an image cannot be read.
        """
        paths = [Path(images, name) for name in names]
        name = _name(early, paths)
        self.views = []
        for view in range(views + 1):
            path = Path(folder, f"grids_{name}_{view}.npy")
            if not path.is_file():
                load = partial(load_augmented, seed=view) if view else load_pixels
                _write_grids(early, paths, path, load, f"View {view} of {views}")
            self.views.append(np.load(path, mmap_mode="r"))


def _name(early: keras.Model, paths: Sequence[Path]) -> str:
    images = [f"{path.name} {path.stat().st_size if path.is_file() else None}" for path in paths]
    return digest("\n".join([fingerprint(early), early.name, str(early.input.shape), *images]))


def _write_grids(early: keras.Model, paths: Sequence[Path], path: Path, load, label: str) -> None:
    size = early.input.shape[1]
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
            early.predict_on_batch(batch.pixels).astype("<f2").tofile(file)
            bar.update(len(batch.paths))


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

    def _order(self, random: np.random.Generator) -> list[np.ndarray]:
        """Images whose longest captions are of similar length share a batch: there is less padding."""
        size, order = self.images_per_batch, np.arange(len(self.tokens))
        if self.seed is None:
            return [order[i : i + size] for i in range(0, len(order), size)]
        order = random.permutation(order)
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


class EncoderDecoder(keras.Model):
    """The late layers of the encoder and the decoder as one network: (grids, tokens) to logits."""

    def __init__(self, late: keras.Model, decoder: keras.Model):
        super().__init__()
        self.late, self.decoder = late, decoder
        self.built = True  # as both are; without it, a backup is not restored

    def call(self, inputs: tuple, training: bool = False) -> tf.Tensor:
        grids, tokens = inputs
        features = self.late(grids, training=False)  # batch norm keeps its statistics
        return self.decoder([features, tokens], training=training)


class ScoreDev(keras.callbacks.Callback):
    """Caption the dev images greedily after every epoch, and log their CIDEr as `val_cider`, in per cent.

    The loss stops falling long before the captions stop improving. Both sides are clean captions here, which needs no
    Java and comes out a little higher than the scores of `evaluate`.
    """

    def __init__(self, late: keras.Model, checkpoint: Checkpoint, dev: Descriptions, grids: Grids):
        super().__init__()
        self.late, self.dev, self.grids = late, dev, grids.views[0]
        self.search = BeamSearch(checkpoint.decoder, checkpoint.tokenizer, beam=1)

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        names, found = list(self.dev), {}
        for start in range(0, len(names), 64):
            features = self.late.predict_on_batch(self.grids[start : start + 64].astype(np.float32))
            found |= {name: [best.text] for name, (best,) in zip(names[start:], self.search(features), strict=False)}
        logs["val_cider"] = 100 * float(Cider().compute_score(self.dev, found)[0])


def train_captioner(
    checkpoint: Checkpoint,
    encoder: Encoder,
    images: str | Path,
    train: Descriptions,
    dev: Descriptions,
    folder: str | Path,
    epochs: int = 10,
    images_per_batch: int = 32,
    learning_rate: float = 2e-4,
    smoothing: float = 0.1,
    freeze_encoder: bool = False,
    views: int = 7,
    seed: int = 0,
) -> History:
    """Train the decoder on images, and the encoder with it; interrupted, the same call goes on after the last epoch.

    Writes what `train_decoder` writes, with the greedy dev CIDEr in the history, by which `model_best.h5` is chosen
    here. The checkpoints contain the encoder.

    Args:
        checkpoint: the decoder to train: a new one with a frozen encoder, one that has settled without.
        encoder: the one it belongs to; its weights are changed, unless it is frozen.
        images: the folder of images.
        folder: where checkpoints go. Stored views go into `grids/` beside it, which the stages share: 50 kB for each
            view of an image with MobileNetV2.
        learning_rate: of Adam; with a frozen encoder it stays as it is, else it falls to 0 along a cosine.
        smoothing: of the labels, see `WordLoss`.
        freeze_encoder: train the decoder alone.
        views: how many random views of each image are stored, see `Grids`.

    Raises:
        CaptionError: there are no captions, the encoder is another than the checkpoint's, the decoder cannot read its
            features, or an image is broken.
    """
    check_captions(train, dev)
    check_encoder(checkpoint.encoder_identity, encoder.identity)
    check_pooling(checkpoint.decoder.spec.name, encoder.pooling)
    keras.utils.set_random_seed(seed)
    folder = Path(folder)
    early, late = split_encoder(encoder)
    train_grids = Grids(early, images, list(train), folder.parent / "grids", views)
    dev_grids = Grids(early, images, list(dev), folder.parent / "grids")
    freeze(late, freeze_encoder)
    batches = GridBatches(train, train_grids, checkpoint.tokenizer, images_per_batch, seed)
    model = EncoderDecoder(late, checkpoint.decoder.model)
    # A decoder that settles is not to come to rest: the next stage goes on with it.
    cosine = keras.optimizers.schedules.CosineDecay(learning_rate, epochs * len(batches))
    optimizer = keras.optimizers.Adam(learning_rate if freeze_encoder else cosine, global_clipnorm=5.0)
    model.compile(optimizer=optimizer, loss=WordLoss(smoothing), jit_compile=False)
    stage = {
        "freeze_encoder": freeze_encoder,
        "epochs": epochs,
        "images_per_batch": images_per_batch,
        "learning_rate": learning_rate,
        "smoothing": smoothing,
        "views": views,
        "seed": seed,
    }
    return fit(
        model,
        batches,
        GridBatches(dev, dev_grids, checkpoint.tokenizer, images_per_batch, seed=None),
        add_stage(replace(checkpoint, encoder=encoder), stage),
        folder,
        epochs,
        best_by="val_cider",
        callbacks=[ScoreDev(late, checkpoint, dev, dev_grids)],
    )


def add_stage(checkpoint: Checkpoint, stage: dict) -> Checkpoint:
    """Note in the checkpoint how it is trained further, in place of what was logged of its last epoch."""
    training = {name: value for name, value in checkpoint.training.items() if name not in LOGGED}
    if not stage.get("freeze_encoder"):  # what it knew of photos was of the features from before
        checkpoint = replace(checkpoint, familiarity=None, detector=None)
    return replace(checkpoint, training=training | {"stages": [*training.get("stages", []), stage]})
