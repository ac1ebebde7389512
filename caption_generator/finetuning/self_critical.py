"""Self-critical training: the decoder learns from the scores of its own captions.

Teacher forcing asks for the next word of somebody else's sentence. The goal is a high score of whole captions that the
model writes itself, but choosing words has no gradient. So the model samples several captions of an image. Those that
score better than the others become more probable, the worse ones less: REINFORCE, as in Rennie et al. 2017,
"Self-critical Sequence Training for Image Captioning". The baseline of a caption is the mean reward of the other
samples (Luo 2020, "A Better Variant of Self-Critical Sequence Training").
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from caption_generator.batches import stream
from caption_generator.captions import Dataset
from caption_generator.checkpoint import Checkpoint
from caption_generator.common.errors import CaptionError
from caption_generator.compatibility import check_captions
from caption_generator.decoders import Decoder
from caption_generator.finetuning.finetune import EncoderDecoder, ScoreDev, add_stage
from caption_generator.finetuning.grids import GridBatches, Grids
from caption_generator.finetuning.late_layers import freeze, split_encoder
from caption_generator.finetuning.rewards import Reward
from caption_generator.tokenizer import END, PAD, START, UNKNOWN, Tokenizer
from caption_generator.training_loop import History, fit


class ImageBatches(GridBatches):
    """Batches of images without captions: `(grids, numbers)`, float32 and int32 of shape (images,).

    A reward says more where several people described the image. So an image with one caption is in every fifth epoch
    if the others have five. With teacher forcing, too, every caption counts once.
    """

    def __len__(self) -> int:
        images = sum(map(len, self.tokens)) // self.each
        return -(-images // self.images_per_batch)

    def chosen(self, random: np.random.Generator) -> np.ndarray:
        images = super().chosen(random)
        captions = np.cumsum([len(self.tokens[image]) for image in images])
        return images[np.diff(captions // self.each, prepend=0) > 0]

    def __iter__(self) -> Iterator:
        for images, grids in self.images():
            yield grids, images.astype(np.int32)

    def dataset(self) -> tf.data.Dataset:
        grids = tf.TensorSpec((None, None, None, self.views[0].shape[-1]), tf.float32)
        return stream(self, (grids, tf.TensorSpec((None,), tf.int32)))


@dataclass(frozen=True)
class SelfCriticalSettings:
    """How to train by reward. A checkpoint stores them as one of its stages.

    Attributes:
        epochs: passes over the training images.
        images_per_batch: images in a batch.
        learning_rate: of Adam.
        samples: captions sampled of each image.
        temperature: divides the logits before sampling. With smoothed labels, one word in ten is drawn by chance at
            temperature 1. Most samples then contain such a word, longer ones more often, and the model learns above all
            to be brief.
        bleu: weight of BLEU-4 in the reward; see `Reward`.
        recall: likewise of recall.
        hallucination: what each hallucinated object costs in the reward.
        max_length: words of a sample, its end included.
        dropout: the fraction of an image's features that is hidden from its samples and from learning.
        freeze_encoder: train the decoder alone.
        views: as in `FinetuneSettings`.
        seed: of the order, views, samples and dropout.
    """

    epochs: int = 8
    images_per_batch: int = 32
    learning_rate: float = 3e-5
    samples: int = 5
    temperature: float = 0.7
    bleu: float = 1.0
    recall: float = 0.0
    hallucination: float = 0.0
    max_length: int = 20
    dropout: float = 0.4
    freeze_encoder: bool = True
    views: int = 7
    seed: int = 0


class SelfCritical(EncoderDecoder):
    """Encoder and decoder with a training step that samples captions and learns from their rewards."""

    def __init__(
        self,
        late: keras.Model,
        decoder: Decoder,
        tokenizer: Tokenizer,
        reward: Reward,
        settings: SelfCriticalSettings,
    ):
        """
        Args:
            reward: of the training images, by their number.
            settings: of them `samples`, `temperature`, `dropout` and `max_length`. A sample that is cut off at
                `max_length` gets no reward for an end.
        """
        super().__init__(late, decoder.model)
        self.stepwise, self.tokenizer, self.reward = decoder, tokenizer, reward
        self.samples, self.temperature, self.max_length = settings.samples, settings.temperature, settings.max_length
        self.dropout = keras.layers.Dropout(settings.dropout)
        # A caption never contains these tokens, so their probability must not be learned either. If only sampling had
        # the mask, the loss would go on moving it, and the captions would collapse.
        self.mask = np.zeros(len(tokenizer), np.float32)
        self.mask[[PAD, START, UNKNOWN]] = -1e9
        self.seed_generator = keras.random.SeedGenerator(0)
        self.means = {name: keras.metrics.Mean(name) for name in ("reward", "words")}

    def policy(self, logits: tf.Tensor) -> tf.Tensor:
        """The logits of the words that are sampled, and learned about."""
        return logits / self.temperature + self.mask

    @tf.function
    def sample(self, features: tf.Tensor) -> tf.Tensor:
        """Draw captions word by word: int32 of shape (images x samples, length), padded after `<end>`."""
        begun = self.stepwise.start(features)
        image = begun["image"]
        state = [tf.repeat(tensor, self.samples, axis=0) for tensor in begun["state"]]
        last = tf.fill(tf.shape(state[0])[:1], START)
        tokens = tf.TensorArray(tf.int32, 0, dynamic_size=True, element_shape=(None,))
        for position in tf.range(self.max_length):
            found = self.stepwise.step({"image": image, "state": state, "token": last})
            policy, state = self.policy(found["logits"]), found["state"]
            drawn = keras.random.categorical(policy, 1, dtype="int32", seed=self.seed_generator)[:, 0]
            last = tf.where((last == END) | (last == PAD), PAD, drawn)
            if tf.reduce_all(last == PAD):
                break
            tokens = tokens.write(position, last)
        return tf.transpose(tokens.stack())

    def rewards(self, tokens: np.ndarray, images: np.ndarray) -> np.ndarray:
        """The reward of each sampled caption: float32 of shape (images, samples)."""
        words = self.tokenizer.words
        rows = tokens.reshape(len(images), self.samples, -1)
        captions = [[[words[token] for token in row if token != PAD] for row in group] for group in rows]
        return np.array(
            [[self.reward(image, caption) for caption in group] for image, group in zip(images, captions, strict=True)],
            np.float32,
        )

    def train_step(self, data: tuple) -> dict:
        grids, images = data
        with tf.GradientTape() as tape:
            features = self.dropout(self.late(grids, training=False), training=True)
            with tape.stop_recording():  # no gradient leads through choosing words
                tokens = self.sample(features)
                rewards = tf.numpy_function(self.rewards, [tokens, images], tf.float32, stateful=False)
                rewards = tf.ensure_shape(rewards, (None, self.samples))
                others = (tf.reduce_sum(rewards, axis=1, keepdims=True) - rewards) / (self.samples - 1)
                advantage = tf.reshape(rewards - others, (-1, 1))
                written = tf.cast(tokens != PAD, tf.float32)
                inputs = tf.concat([tf.fill((tf.shape(tokens)[0], 1), START), tokens[:, :-1]], axis=1)
            # Without the decoder's dropout: these must be the probabilities that the captions were drawn with.
            policy = self.policy(self.decoder([features, inputs], training=False))
            nll = tf.nn.sparse_softmax_cross_entropy_with_logits(tokens, policy)
            loss = tf.reduce_sum(advantage * nll * written) / tf.reduce_sum(written)
        weights = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        self.means["reward"].update_state(rewards)
        self.means["words"].update_state(tf.reduce_sum(written, axis=1))
        return {name: mean.result() for name, mean in self.means.items()}


def train_self_critical(
    checkpoint: Checkpoint,
    images: str | Path | Sequence[str | Path],
    data: Dataset,
    folder: str | Path,
    settings: SelfCriticalSettings | None = None,
) -> History:
    """Train the decoder of `checkpoint` by the rewards of its samples, with or without its encoder.

    The same call again continues after the last full epoch. Writes what `train_captioner` writes.

    Args:
        checkpoint: contains its encoder, and was trained with teacher forcing for as long as that helps.
        images: the folder of images, or several, of which each image is in one.
        data: training and dev captions.
        folder: where checkpoints go.
        settings: how to train.

    Raises:
        CaptionError: there are no captions, the checkpoint is without its encoder, or one sample has no other to be
            compared with.
    """
    settings = settings or SelfCriticalSettings()
    check_captions(data.train, data.dev)
    if checkpoint.encoder is None:
        raise CaptionError("the checkpoint does not contain its encoder: use one of train_captioner.")
    if settings.samples < 2:
        raise CaptionError(f"{settings.samples} sample of an image cannot be compared with others: draw 2 or more.")
    keras.utils.set_random_seed(settings.seed)
    folder = Path(folder)
    early, late = split_encoder(checkpoint.encoder)
    train_grids = Grids(early, images, list(data.train), folder.parent / "grids", settings.views)
    dev_grids = Grids(early, images, list(data.dev), folder.parent / "grids")
    freeze(late, settings.freeze_encoder)
    reward = Reward(data.train, settings.bleu, settings.recall, settings.hallucination)
    model = SelfCritical(late, checkpoint.decoder, checkpoint.tokenizer, reward, settings)
    optimizer = keras.optimizers.Adam(settings.learning_rate, global_clipnorm=5.0)
    model.compile(optimizer=optimizer, jit_compile=False)
    return fit(
        model,
        ImageBatches(data.train, train_grids, checkpoint.tokenizer, settings.images_per_batch, settings.seed),
        None,
        add_stage(checkpoint, settings),
        folder,
        settings.epochs,
        best_by="val_cider",
        callbacks=[ScoreDev(late, checkpoint, data.dev, dev_grids)],
    )
