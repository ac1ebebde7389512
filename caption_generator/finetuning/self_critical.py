"""Step 4, at last: teach the decoder by what its own captions are worth.

Teacher forcing asks for the next word of somebody else's sentence. What counts in the end is the score of whole
captions that the model wrote itself, and no gradient leads through choosing words. So captions are sampled, and those
that are better than the others of the same image are made more probable, the worse ones less: REINFORCE, as in
Rennie et al. 2017, "Self-critical Sequence Training for Image Captioning". What a caption is compared with is the mean
of the other samples (Luo 2020, "A Better Variant of Self-Critical Sequence Training").
"""

from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from caption_generator.batches import stream
from caption_generator.captions import Descriptions
from caption_generator.checkpoint import Checkpoint
from caption_generator.common.errors import CaptionError
from caption_generator.decoders import Decoder
from caption_generator.finetuning.finetune import EncoderDecoder, ScoreDev, add_stage
from caption_generator.finetuning.grids import GridBatches, Grids
from caption_generator.finetuning.late_layers import freeze, split_encoder
from caption_generator.finetuning.rewards import Reward
from caption_generator.search import bar_special_tokens
from caption_generator.tokenizer import END, PAD, START, Tokenizer
from caption_generator.train import History, check_captions, fit


class ImageBatches(GridBatches):
    """Batches of images without captions: `(grids, numbers)`, float32 and int32 of shape (images,)."""

    def __iter__(self) -> Iterator:
        for images, grids in self.images():
            yield grids, images.astype(np.int32)

    def dataset(self) -> tf.data.Dataset:
        grids = tf.TensorSpec((None, None, None, self.views[0].shape[-1]), tf.float32)
        return stream(self, (grids, tf.TensorSpec((None,), tf.int32)))


class SelfCritical(EncoderDecoder):
    """Encoder and decoder with a training step that samples captions and learns from their rewards."""

    def __init__(
        self,
        late: keras.Model,
        decoder: Decoder,
        tokenizer: Tokenizer,
        reward: Reward,
        samples: int,
        temperature: float,
        max_length: int,
        dropout: float,
    ):
        """
        Args:
            reward: of the training images, by their number.
            samples: captions sampled of each image.
            temperature: by which logits are divided.
            max_length: tokens after which a sample is cut off, and then does without the reward for an end.
            dropout: share of an image's features that neither its samples nor learning from them can see.
        """
        super().__init__(late, decoder.model)
        self.stepwise, self.tokenizer, self.reward = decoder, tokenizer, reward
        self.samples, self.temperature, self.max_length = samples, temperature, max_length
        self.dropout = keras.layers.Dropout(dropout)
        # What captioning never says must not be learned about either: were it barred in sampling only, the loss would
        # go on moving its probability, and the captions collapse.
        self.barred = bar_special_tokens(len(tokenizer))
        self.seed_generator = keras.random.SeedGenerator(0)
        self.means = {name: keras.metrics.Mean(name) for name in ("reward", "words")}

    def policy(self, logits: tf.Tensor) -> tf.Tensor:
        """The logits of the words that are sampled, and learned about."""
        return logits / self.temperature + self.barred

    @tf.function
    def sample(self, features: tf.Tensor) -> tf.Tensor:
        """Draw captions word by word: int32 of shape (images x samples, length), padded after `<end>`."""
        image, *state = self.stepwise.start(features)
        state = [tf.repeat(tensor, self.samples, axis=0) for tensor in state]
        last = tf.fill(tf.shape(state[0])[:1], START)
        tokens = tf.TensorArray(tf.int32, 0, dynamic_size=True, element_shape=(None,))
        for place in tf.range(self.max_length):
            logits, *state = self.stepwise.step([image, *state, last])
            policy = self.policy(logits)
            drawn = keras.random.categorical(policy, 1, dtype="int32", seed=self.seed_generator)[:, 0]
            last = tf.where((last == END) | (last == PAD), PAD, drawn)
            if tf.reduce_all(last == PAD):
                break
            tokens = tokens.write(place, last)
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
                said = tf.cast(tokens != PAD, tf.float32)
                inputs = tf.concat([tf.fill((tf.shape(tokens)[0], 1), START), tokens[:, :-1]], axis=1)
            # Without the decoder's dropout: these must be the probabilities that the captions were drawn with.
            policy = self.policy(self.decoder([features, inputs], training=False))
            nll = tf.nn.sparse_softmax_cross_entropy_with_logits(tokens, policy)
            loss = tf.reduce_sum(advantage * nll * said) / tf.reduce_sum(said)
        weights = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        self.means["reward"].update_state(rewards)
        self.means["words"].update_state(tf.reduce_sum(said, axis=1))
        return {name: mean.result() for name, mean in self.means.items()}


def train_self_critical(
    checkpoint: Checkpoint,
    images: str | Path,
    train: Descriptions,
    dev: Descriptions,
    folder: str | Path,
    epochs: int = 8,
    images_per_batch: int = 32,
    learning_rate: float = 3e-5,
    samples: int = 5,
    temperature: float = 0.7,
    bleu: float = 1.0,
    max_length: int = 20,
    dropout: float = 0.4,
    freeze_encoder: bool = True,
    views: int = 7,
    seed: int = 0,
) -> History:
    """Train the decoder of `checkpoint` by the rewards of its samples, and its encoder with it or not.

    Interrupted, the same call goes on after the last finished epoch. Writes what `train_captioner` writes.

    Args:
        checkpoint: one that contains its encoder, and has been trained with teacher forcing for as long as that helps.
        images: the folder of images.
        folder: where checkpoints go.
        learning_rate: of Adam.
        samples: captions drawn of each image.
        temperature: sharpens what they are drawn from. Smoothed labels ask for a word in ten by chance: at 1, most
            samples contain such a word, the longer the likelier, and the model learns above all to be brief.
        bleu: weight of BLEU-4 in the reward, see `Reward`.
        max_length: words of a sample, its end included.
        dropout: share of an image's features that neither its samples nor learning from them can see.
        freeze_encoder: train the decoder alone.
        views: as for `train_captioner`.

    Raises:
        CaptionError: there are no captions, the checkpoint is without its encoder, or there is nothing to compare with.
    """
    check_captions(train, dev)
    if checkpoint.encoder is None:
        raise CaptionError("the checkpoint does not contain its encoder: use one of train_captioner.")
    if samples < 2:
        raise CaptionError(f"{samples} sample of an image cannot be compared with others: draw 2 or more.")
    keras.utils.set_random_seed(seed)
    folder = Path(folder)
    early, late = split_encoder(checkpoint.encoder)
    train_grids = Grids(early, images, list(train), folder.parent / "grids", views)
    dev_grids = Grids(early, images, list(dev), folder.parent / "grids")
    freeze(late, freeze_encoder)
    model = SelfCritical(
        late, checkpoint.decoder, checkpoint.tokenizer, Reward(train, bleu), samples, temperature, max_length, dropout
    )
    model.compile(optimizer=keras.optimizers.Adam(learning_rate, global_clipnorm=5.0), jit_compile=False)
    stage = {
        "samples": samples,
        "temperature": temperature,
        "bleu": bleu,
        "max_length": max_length,
        "dropout": dropout,
        "freeze_encoder": freeze_encoder,
        "epochs": epochs,
        "images_per_batch": images_per_batch,
        "learning_rate": learning_rate,
        "views": views,
        "seed": seed,
    }
    return fit(
        model,
        ImageBatches(train, train_grids, checkpoint.tokenizer, images_per_batch, seed),
        None,
        add_stage(checkpoint, stage),
        folder,
        epochs,
        best_by="val_cider",
        callbacks=[ScoreDev(late, checkpoint, dev, dev_grids)],
    )
