"""Tests of caption_generator.batches, and the proof that they teach what a row for every prefix teaches."""

import itertools

import keras
import numpy as np
import pytest

from benchmarks import ancestors
from caption_generator.batches import CaptionBatches, pad, teacher_forcing
from caption_generator.tokenizer import END, PAD, START, Tokenizer
from caption_generator.train import WordLoss


def random_descriptions(images: int, longest: int = 6, seed: int = 0) -> dict[str, list[str]]:
    random = np.random.default_rng(seed)
    return {
        f"{image}.jpg": [
            " ".join(f"w{word:02}" for word in random.integers(16, size=random.integers(1, longest + 1)))
            for _ in range(random.integers(1, 6))
        ]
        for image in range(images)
    }


def features_of(descriptions: dict) -> np.ndarray:
    """Each image's vector is its own number, six times."""
    return np.repeat(np.arange(len(descriptions), dtype=np.float32)[:, None], 6, axis=1)


@pytest.fixture
def descriptions() -> dict[str, list[str]]:
    return random_descriptions(40)


@pytest.fixture
def batches(descriptions, tokenizer) -> CaptionBatches:
    return CaptionBatches(descriptions, features_of(descriptions), tokenizer, batch_size=16, seed=3)


def read(batches, tokenizer: Tokenizer) -> list[tuple[int, str]]:
    """The (image, caption) pairs of an epoch, in its order."""
    return [
        (int(vector[0]), tokenizer.decode(row))
        for (features, _), targets, _ in batches
        for vector, row in zip(features, targets, strict=True)
    ]


def test_teacher_forcing_shifts_by_one_word_and_weighs_padding_zero():
    tokens = pad([np.array([START, 7, 8, END], np.int32), np.array([START, 9, END], np.int32)])
    inputs, targets, weights = teacher_forcing(tokens)
    assert inputs.tolist() == [[START, 7, 8], [START, 9, PAD]]
    assert targets.tolist() == [[7, 8, END], [9, END, PAD]]
    assert weights.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert (inputs.dtype, targets.dtype, weights.dtype) == (np.int32, np.int32, np.float32)


def test_nothing_is_read_after_the_end(batches):
    for (_, inputs), targets, weights in batches:
        assert not (inputs == END).any()
        assert ((inputs == PAD) == (weights == 0)).all()
        assert ((targets == END).sum(axis=1) == 1).all()


def test_an_epoch_holds_every_caption_once_with_the_features_of_its_image(batches, descriptions, tokenizer):
    expected = [(n, caption) for n, group in enumerate(descriptions.values()) for caption in group]
    for batches.epoch in range(3):
        assert sorted(read(batches, tokenizer)) == sorted(expected)
    assert len(batches) == len(list(batches)) == -(-len(expected) // 16)


def test_captions_of_a_batch_are_of_similar_length(batches):
    weights = [weights for _, _, weights in batches]
    padding = 1 - sum(w.sum() for w in weights) / sum(w.size for w in weights)
    assert padding < 0.1
    # In the order of the file, a third would be padding.
    lengths = batches.lengths - 1
    unsorted = [lengths[i : i + 16] for i in range(0, len(lengths), 16)]
    assert 1 - lengths.sum() / sum(len(part) * part.max() for part in unsorted) > 0.25


def test_the_order_differs_between_epochs_and_seeds_and_else_repeats(batches, descriptions, tokenizer):
    first = read(batches, tokenizer)
    batches.epoch = 1
    second = read(batches, tokenizer)
    assert first != second
    resumed = CaptionBatches(descriptions, batches.features, tokenizer, 16, seed=3)
    resumed.epoch = 1
    assert read(resumed, tokenizer) == second
    other = CaptionBatches(descriptions, batches.features, tokenizer, 16, seed=4)
    assert read(other, tokenizer) != first


def test_long_and_short_batches_are_mixed(batches):
    longest = [targets.shape[1] for _, targets, _ in batches]
    assert longest != sorted(longest)


def test_the_dev_set_keeps_its_order(descriptions, tokenizer):
    dev = CaptionBatches(descriptions, features_of(descriptions), tokenizer, 16, seed=None)
    assert read(dev, tokenizer) == read(dev, tokenizer)
    longest = [targets.shape[1] for _, targets, _ in dev]
    assert longest == sorted(longest)


def test_the_stream_equals_iteration_and_knows_its_length(batches):
    stream = batches.dataset()
    assert int(stream.cardinality()) == len(batches)
    for batches.epoch in range(2):  # the order is drawn when an epoch begins, not when the stream is made
        for streamed, iterated in zip(stream, batches, strict=True):
            (features, inputs), targets, weights = iterated
            for found, expected in zip(
                (*streamed[0], *streamed[1:]), (features, inputs, targets, weights), strict=True
            ):
                assert found.dtype == expected.dtype
                np.testing.assert_array_equal(found, expected)


def test_no_tuner_sleeps_on_when_an_epoch_is_over(batches):
    assert batches.dataset().options().autotune.enabled is False


WEIGHTED = ("image_dense", "embedding", "lstm", "hidden", "next_word")


def gradients(model: keras.Model, loss_of) -> tuple[float, list[np.ndarray]]:
    import tensorflow as tf

    variables = [v for name in WEIGHTED for v in model.get_layer(name).trainable_variables]
    with tf.GradientTape() as tape:
        loss = loss_of(model)
    return float(loss), [tf.convert_to_tensor(g).numpy() for g in tape.gradient(loss, [v.value for v in variables])]


def test_whole_captions_have_the_loss_and_gradients_of_a_row_for_every_prefix(tokenizer, decoder):
    descriptions = random_descriptions(7)
    vectors = np.random.default_rng(1).normal(size=(7, 6)).astype(np.float32)
    batches = CaptionBatches(descriptions, vectors, tokenizer, batch_size=5)
    ancestor = ancestors.define_model(6, len(tokenizer), max_length=9, units=8)
    for name in WEIGHTED:
        ancestor.get_layer(name).set_weights(decoder.model.get_layer(name).get_weights())

    captions = [[tokenizer.encode(caption).tolist() for caption in group] for group in descriptions.values()]
    images = itertools.islice(ancestors.data_generator(captions, vectors, 9, len(tokenizer)), len(captions))
    (rows, prefixes), one_hot = keras.tree.map_structure(lambda *parts: np.concatenate(parts), *images)
    categorical = keras.losses.CategoricalCrossentropy(reduction="sum")
    theirs, their_gradients = gradients(
        ancestor, lambda model: categorical(one_hot, model([rows, prefixes], training=False))
    )

    sparse = keras.losses.SparseCategoricalCrossentropy(reduction="sum", from_logits=True)

    def summed(model: keras.Model):
        return sum(
            sparse(targets, model(list(inputs), training=False), sample_weight=weights)
            for inputs, targets, weights in batches
        )

    ours, our_gradients = gradients(decoder.model, summed)
    assert len(rows) == sum(batches.lengths - 1)
    assert ours == pytest.approx(theirs, rel=1e-5)
    for our, their in zip(our_gradients, their_gradients, strict=True):
        assert np.abs(their).max() > 1e-3
        np.testing.assert_allclose(our, their, rtol=1e-3, atol=1e-5)


def test_the_training_loss_is_the_mean_over_real_words(tokenizer, decoder):
    descriptions = random_descriptions(5)
    vectors = np.random.default_rng(1).normal(size=(5, 6)).astype(np.float32)
    (features, inputs), targets, weights = next(iter(CaptionBatches(descriptions, vectors, tokenizer)))
    logits = decoder.model([features, inputs], training=False).numpy()
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    nats = [
        -np.log(probabilities[row, place, targets[row, place]])
        for row, place in np.ndindex(*targets.shape)
        if targets[row, place] != PAD
    ]
    assert (targets == PAD).any()
    assert float(WordLoss()(targets, logits, weights)) == pytest.approx(np.mean(nats), rel=1e-5)
