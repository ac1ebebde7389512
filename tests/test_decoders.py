"""Tests of caption_generator.decoders: of each decoder with each recurrent layer."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from caption_generator.attention import GridAttention
from caption_generator.common.errors import CaptionError
from caption_generator.decoders import CELLS, DECODERS, Decoder, DecoderSpec, build_decoder, decoder_row
from caption_generator.tokenizer import PAD, START
from tests.helpers import draw_weights

TINY = DecoderSpec("merge", feature_size=6, vocabulary_size=20, units=8, embedding_size=4, hidden=5)
# Each decoder, and each recurrent layer, once at least.
KINDS = [
    ("merge", "lstm"),
    ("merge", "lstm-hard"),
    ("initial_state", "gru"),
    ("initial_state", "lstm"),
    ("attention", "lstm"),
]
WITH_GRID = [("attention", "lstm"), ("attention", "gru")]


def build(name: str, cell: str) -> Decoder:
    """A tiny decoder in which images and words matter."""
    decoder = build_decoder(replace(TINY, name=name, cell=cell))
    return draw_weights(decoder, 0.7 if cell == "gru" else 0.5, seed=1)  # a GRU's output follows a word more slowly


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def any_decoder(request) -> Decoder:
    return build(*request.param)


@pytest.fixture(scope="module", params=WITH_GRID, ids="-".join)
def with_grid(request) -> Decoder:
    """A decoder that reads a grid."""
    return build(*request.param)


def features_for(decoder: Decoder) -> np.ndarray:
    """Of three images."""
    shape = {"avg": (3, 6), "grid": (3, 2, 4, 6)}[DECODERS[decoder.spec.name].pooling]
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def captions(rows: int) -> np.ndarray:
    words = np.random.default_rng(0).integers(4, 20, size=(rows, 5))
    return np.concatenate([np.full((rows, 1), START), words], axis=1).astype(np.int32)


@pytest.fixture
def features(request) -> np.ndarray:
    return features_for(request.getfixturevalue("with_grid" if "with_grid" in request.fixturenames else "any_decoder"))


@pytest.fixture
def tokens() -> np.ndarray:
    return captions(3)


def word_by_word(decoder: Decoder, features: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Logits (captions, length, words) and attention weights (captions, length, positions), a word at a time."""
    image, state = decoder.begin(features, len(tokens) // len(features))
    steps = []
    for word in tokens.T:
        logits, weights, state = decoder.advance(image, state, word)
        steps.append((logits, weights))
    logits, weights = zip(*steps, strict=True)
    return np.stack(logits, axis=1), None if weights[0] is None else np.stack(weights, axis=1)


def test_there_are_logits_of_each_word_and_they_are_not_probabilities(any_decoder, features, tokens):
    logits = any_decoder.model([features, tokens]).numpy()
    assert logits.shape == (3, 6, 20)
    assert (logits.min(axis=-1) < 0).all()
    assert np.exp(logits).sum(axis=-1).std() > 0.1


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("cell", CELLS)
def test_one_word_at_a_time_gives_the_logits_of_teacher_forcing(name, cell):
    """With one caption of each image, and with four."""
    decoder = build(name, cell)
    features = features_for(decoder)
    for tokens in (captions(3), captions(12)):
        logits, _ = word_by_word(decoder, features, tokens)
        np.testing.assert_allclose(logits, decoder.model([features, tokens]), rtol=1e-4, atol=1e-5)


def test_captions_of_one_image_equal_the_same_captions_one_at_a_time(any_decoder, features):
    tokens = captions(12)  # four of the first image, four of the second, four of the third
    together = any_decoder.model([features, tokens]).numpy()
    alone = [any_decoder.model([features[i // 4][None], tokens[i][None]]).numpy()[0] for i in range(12)]
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
    repeated = any_decoder.model([np.repeat(features, 4, axis=0), tokens]).numpy()
    np.testing.assert_allclose(together, repeated, rtol=1e-4, atol=1e-5)
    # In another order they would be other numbers.
    other_order = any_decoder.model([np.tile(features, (4, *[1] * (features.ndim - 1))), tokens]).numpy()
    assert np.abs(together - other_order).max() > 0.1


def test_padding_changes_nothing_before_it(any_decoder, features, tokens):
    alone = any_decoder.model([features, tokens[:, :3]]).numpy()
    padded = tokens.copy()
    padded[:, 3:] = PAD
    np.testing.assert_allclose(any_decoder.model([features, padded]).numpy()[:, :3], alone, rtol=1e-4, atol=1e-6)


def test_a_row_of_nothing_but_padding_is_a_number_and_changes_no_other_row(any_decoder, features, tokens):
    padded = np.stack([tokens, np.full_like(tokens, PAD)], axis=1).reshape(6, -1)
    logits = any_decoder.model([features, padded]).numpy()
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(logits[::2], any_decoder.model([features, tokens]).numpy(), rtol=1e-4, atol=1e-5)


def test_the_image_and_every_earlier_word_count(any_decoder, features, tokens):
    before = any_decoder.model([features, tokens]).numpy()
    other_image = any_decoder.model([features[::-1].copy(), tokens]).numpy()
    assert np.abs(other_image - before)[0].max() > 1e-4
    changed = tokens.copy()
    changed[:, 1] = 4 + (changed[:, 1] - 3) % 16
    other_word = any_decoder.model([features, changed]).numpy()
    np.testing.assert_allclose(other_word[:, 0], before[:, 0], rtol=1e-5)  # what comes later is not seen
    assert (np.abs(other_word - before)[:, 1:].max(axis=(1, 2)) > 1e-5).all()


def test_dropout_acts_in_training_alone(any_decoder, features, tokens):
    calm = [any_decoder.model([features, tokens], training=False).numpy() for _ in range(2)]
    assert (calm[0] == calm[1]).all()
    noisy = [any_decoder.model([features, tokens], training=True).numpy() for _ in range(2)]
    assert not np.allclose(noisy[0], noisy[1])


def test_training_and_captioning_share_their_weights(any_decoder):
    trained = {id(variable) for variable in any_decoder.model.trainable_variables}
    captioning = {id(v) for model in (any_decoder.start, any_decoder.step) for v in model.trainable_variables}
    assert captioning == trained


def test_captioning_follows_the_weights_as_they_are_trained(any_decoder, features, tokens):
    before, _ = word_by_word(any_decoder, features, tokens)
    weights = any_decoder.model.get_weights()
    any_decoder.model.set_weights([1.5 * weight for weight in weights])
    after, _ = word_by_word(any_decoder, features, tokens)
    np.testing.assert_allclose(after, any_decoder.model([features, tokens]), rtol=1e-4, atol=1e-5)
    assert np.abs(after - before).max() > 0.1
    any_decoder.model.set_weights(weights)


# Attention


def test_attention_is_the_softmax_of_dot_products_in_each_head():
    random = np.random.default_rng(0)
    queries = random.normal(size=(4, 3, 8)).astype("f")  # two captions of each of two images
    keys, values = random.normal(size=(2, 2, 5, 8)).astype("f")
    context, weights = GridAttention(heads=2)(queries, np.concatenate([keys, values], axis=-1))
    for caption in range(4):
        image, found = caption // 2, []
        for head in (slice(0, 4), slice(4, 8)):
            scores = np.exp(queries[caption, :, head] @ keys[image, :, head].T / 2)
            found.append(scores / scores.sum(axis=-1, keepdims=True))
        np.testing.assert_allclose(weights[caption], np.mean(found, axis=0), rtol=1e-5)
        expected = np.concatenate([found[0] @ values[image, :, :4], found[1] @ values[image, :, 4:]], axis=-1)
        np.testing.assert_allclose(context[caption], expected, rtol=1e-4, atol=1e-6)


def test_only_a_decoder_that_reads_a_grid_has_attention_weights(any_decoder, features, tokens):
    _, weights = word_by_word(any_decoder, features, tokens)
    assert (weights is None) == (DECODERS[any_decoder.spec.name].pooling == "avg")


def test_attention_weights_sum_to_one_and_differ_between_words_and_images(with_grid, features):
    _, weights = word_by_word(with_grid, features, captions(6))
    assert weights.shape == (6, 6, 8)
    assert (weights > 0).all()
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)
    assert weights.std(axis=-1).min() > 0.001  # positions differ
    assert weights.std(axis=1).max() > 0.01  # and words
    assert np.abs(weights[0, 0] - weights[2, 0]).max() > 0.01  # and, after <start>, images
    np.testing.assert_allclose(weights[0, 0], weights[1, 0], rtol=1e-4)  # but not captions of one image


def test_attention_weights_move_with_the_positions(with_grid, features, tokens):
    order = np.random.default_rng(3).permutation(8)
    permuted = features.reshape(3, 8, 6)[:, order].reshape(features.shape)
    (logits, weights), found = (word_by_word(with_grid, grid, tokens) for grid in (features, permuted))
    np.testing.assert_allclose(found[0], logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1], weights[..., order], rtol=1e-4)
    assert np.abs(weights[..., order] - weights).max() > 0.01


def test_what_lies_at_a_position_counts(with_grid, features, tokens):
    """Two positions trade half of their content. The mean stays, and the next words change all the same."""
    traded = features.copy()
    traded[:, 0, 0, :3], traded[:, 1, 2, :3] = features[:, 1, 2, :3], features[:, 0, 0, :3]
    np.testing.assert_allclose(traded.mean(axis=(1, 2)), features.mean(axis=(1, 2)), atol=1e-6)
    logits = [with_grid.model([grid, tokens]).numpy() for grid in (features, traded)]
    assert np.abs(logits[0] - logits[1]).max() > 0.01


@pytest.mark.filterwarnings("ignore:You are using a softmax over axis -1:UserWarning")  # of the only position
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (7, 7)])
def test_a_grid_may_be_of_any_size(with_grid, tokens, size):
    grid = np.random.default_rng(0).normal(size=(3, *size, 6)).astype(np.float32)
    logits, weights = word_by_word(with_grid, grid, tokens)
    np.testing.assert_allclose(logits, with_grid.model([grid, tokens]), rtol=1e-4, atol=1e-5)
    assert weights.shape == (3, 6, size[0] * size[1])


# Sizes


def test_the_merge_model_has_the_parameters_of_the_classrooms():
    """2048 features, 7577 words and 256 units: 5,002,649 is the number that the tutorials' summaries print."""
    decoder = build_decoder(DecoderSpec("merge", feature_size=2048, vocabulary_size=7577))
    image, embedding, lstm = 2048 * 256 + 256, 7577 * 256, 4 * (256 * (256 + 256) + 256)
    hidden, softmax = 256 * 256 + 256, 256 * 7577 + 7577
    assert decoder.model.count_params() == image + embedding + lstm + hidden + softmax == 5_002_649


def test_the_attention_models_embedding_is_its_last_layer_too():
    decoder = build_decoder(replace(TINY, name="attention"))
    image = (6 * 8 + 8) + (8 * 8 + 8) + 2 * (6 * 8 + 8)  # values, keys of these, and the two of the state
    embedding, lstm, hidden = 20 * 4, 4 * (8 * (4 + 8) + 8), (8 + 8) * 4 + 4
    assert decoder.model.count_params() == image + embedding + lstm + hidden


@pytest.mark.parametrize(("cell", "states", "gates"), [("lstm", 2, 4), ("gru", 1, 3)])
def test_an_image_that_is_the_first_state_is_a_dense_layer_for_each_tensor_of_it(cell, states, gates):
    decoder = build_decoder(replace(TINY, name="initial_state", cell=cell))
    biases = 2 if cell == "gru" else 1
    recurrent = gates * (8 * (4 + 8) + biases * 8)
    assert decoder.model.count_params() == states * (6 * 8 + 8) + 20 * 4 + recurrent + 8 * 20 + 20
    _, state = decoder.begin(features_for(decoder), copies=1)
    assert len(state) == states
    assert all(tensor.shape == (3, 8) and np.abs(tensor).max() > 0.01 for tensor in state)
    assert np.abs(state[0]).max() < 1  # an output never is larger


def test_the_merge_models_cell_starts_from_nothing():
    decoder = build("merge", "lstm")
    _, state = decoder.begin(features_for(decoder), copies=2)
    assert [tensor.shape for tensor in state] == [(6, 8), (6, 8)]
    assert not np.any(state)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_words_do_not_learn_and_others_do(name, frozen, tokens):
    decoder = build_decoder(replace(TINY, name=name, frozen_words=frozen))
    decoder.model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = [weight.numpy() for weight in decoder.model.variables]
    decoder.model.train_on_batch([features_for(decoder), tokens[:, :-1]], tokens[:, 1:])
    stayed = {
        weight.path.split("/")[0]
        for weight, values in zip(decoder.model.variables, before, strict=True)
        if (weight.numpy() == values).all() and "seed" not in weight.path
    }
    assert stayed == ({"embedding"} if frozen else set())


def test_an_unknown_decoder_is_named_with_the_known_ones():
    with pytest.raises(CaptionError, match=r"'transformer'.*merge, initial_state, attention"):
        build_decoder(replace(TINY, name="transformer"))
    with pytest.raises(CaptionError, match="transformer"):
        decoder_row("transformer")


def test_an_unknown_cell_is_named_with_the_known_ones():
    with pytest.raises(CaptionError, match=r"no cell 'rwkv'.*lstm, gru, lstm-hard"):
        build_decoder(replace(TINY, cell="rwkv"))
