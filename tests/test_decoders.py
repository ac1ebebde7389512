"""Tests of caption_generator.decoders."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from caption_generator.cells import CELLS

from caption_generator.common.errors import CaptionError
from caption_generator.decoders import DECODERS, Decoder, DecoderSpec, build_decoder, decoder_row, frozen_step
from caption_generator.tokenizer import PAD, START

TINY = DecoderSpec("merge", feature_size=6, vocabulary_size=20, units=8, embedding_size=4, hidden=5)
KINDS = [(name, cell) for name in DECODERS for cell in CELLS]
LOOKING = [(name, cell) for name, cell in KINDS if DECODERS[name].pooling == "grid"]


def build(name: str, cell: str) -> Decoder:
    """A tiny decoder with weights so large that images and words matter."""
    decoder = build_decoder(replace(TINY, name=name, cell=cell))
    random = np.random.default_rng(1)
    spread = 0.7 if cell == "gru" else 0.5  # whose output follows a word more slowly
    decoder.model.set_weights([random.normal(0, spread, w.shape).astype("f") for w in decoder.model.get_weights()])
    return decoder


@pytest.fixture(params=KINDS, ids="-".join)
def any_decoder(request) -> Decoder:
    return build(*request.param)


@pytest.fixture(params=LOOKING, ids="-".join)
def looking(request) -> Decoder:
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
    return features_for(request.getfixturevalue("looking" if "looking" in request.fixturenames else "any_decoder"))


@pytest.fixture
def tokens() -> np.ndarray:
    return captions(3)


def word_by_word(decoder: Decoder, features: np.ndarray, tokens: np.ndarray, step=None) -> np.ndarray:
    """The logits of a step, with the state of each image handed to all of its captions."""
    image, *state = decoder.start(features)
    state = [keras.ops.repeat(tensor, len(tokens) // len(features), axis=0) for tensor in state]
    logits = []
    for place in range(tokens.shape[1]):
        found, *state = (step or decoder.step)([image, *state, keras.ops.convert_to_tensor(tokens[:, place])])
        logits.append(found.numpy())
    return np.stack(logits, axis=1)


def test_logits_have_a_place_for_each_word_and_are_not_probabilities(any_decoder, features, tokens):
    logits = any_decoder.model([features, tokens]).numpy()
    assert logits.shape == (3, 6, 20)
    assert (logits.min(axis=-1) < 0).all()
    assert np.exp(logits).sum(axis=-1).std() > 0.1


def test_one_word_a_step_gives_the_logits_of_the_whole_caption(any_decoder, features, tokens):
    whole = any_decoder.model([features, tokens]).numpy()
    np.testing.assert_allclose(word_by_word(any_decoder, features, tokens), whole, rtol=1e-4, atol=1e-5)


def test_a_frozen_step_gives_the_same_logits_and_needs_the_weights_to_stay(any_decoder, features):
    tokens, step = captions(12), frozen_step(any_decoder)
    before = any_decoder.model([features, tokens]).numpy()
    np.testing.assert_allclose(word_by_word(any_decoder, features, tokens, step), before, rtol=1e-4, atol=1e-5)
    any_decoder.model.set_weights([1.5 * weight for weight in any_decoder.model.get_weights()])
    after = any_decoder.model([features, tokens]).numpy()
    assert np.abs(after - before).max() > 0.1
    assert np.abs(word_by_word(any_decoder, features, tokens, step) - after).max() > 0.01
    np.testing.assert_allclose(
        word_by_word(any_decoder, features, tokens, frozen_step(any_decoder)), after, rtol=1e-4, atol=1e-5
    )


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


def test_a_step_of_several_captions_of_an_image_equals_the_whole_captions(any_decoder, features):
    tokens = captions(12)
    whole = any_decoder.model([features, tokens]).numpy()
    np.testing.assert_allclose(word_by_word(any_decoder, features, tokens), whole, rtol=1e-4, atol=1e-5)


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
    if any_decoder.attention:
        assert {id(variable) for variable in any_decoder.attention.trainable_variables} <= trained


def test_the_same_spec_builds_a_network_of_the_same_shapes(any_decoder):
    again = build_decoder(any_decoder.spec)
    shapes = [[weight.shape for weight in d.model.get_weights()] for d in (any_decoder, again)]
    assert shapes[0] == shapes[1]


def test_only_a_decoder_that_reads_a_grid_looks(any_decoder):
    assert (any_decoder.attention is None) == (DECODERS[any_decoder.spec.name].pooling == "avg")


def test_looks_at_the_places_sum_to_one_and_differ_between_words_and_images(looking, features):
    looked = looking.attention([features, captions(6)]).numpy()
    assert looked.shape == (6, 6, 8)
    assert (looked > 0).all()
    np.testing.assert_allclose(looked.sum(axis=-1), 1, rtol=1e-5)
    assert looked.std(axis=-1).min() > 0.001  # places differ
    assert looked.std(axis=1).max() > 0.01  # and words
    assert np.abs(looked[0, 0] - looked[2, 0]).max() > 0.01  # and, after <start>, images
    np.testing.assert_allclose(looked[0, 0], looked[1, 0], rtol=1e-4)  # but not captions of one image


def test_places_in_another_order_are_looked_at_as_before(looking, features, tokens):
    order = np.random.default_rng(3).permutation(8)
    permuted = features.reshape(3, 8, 6)[:, order].reshape(features.shape)
    looked, logits = (model([features, tokens]).numpy() for model in (looking.attention, looking.model))
    np.testing.assert_allclose(looking.attention([permuted, tokens]), looked[..., order], rtol=1e-4)
    np.testing.assert_allclose(looking.model([permuted, tokens]), logits, rtol=1e-4, atol=1e-5)
    assert np.abs(looked[..., order] - looked).max() > 0.01


def test_what_lies_at_a_place_that_is_looked_at_counts(looking, features, tokens):
    """Two places trade half of their content: the mean stays, and the words change all the same."""
    traded = features.copy()
    traded[:, 0, 0, :3], traded[:, 1, 2, :3] = features[:, 1, 2, :3], features[:, 0, 0, :3]
    np.testing.assert_allclose(traded.mean(axis=(1, 2)), features.mean(axis=(1, 2)), atol=1e-6)
    logits = [looking.model([grid, tokens]).numpy() for grid in (features, traded)]
    assert np.abs(logits[0] - logits[1]).max() > 0.01


@pytest.mark.filterwarnings("ignore:You are using a softmax over axis -1:UserWarning")  # of the only place
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (7, 7)])
def test_a_grid_may_be_of_any_size(looking, tokens, size):
    grid = np.random.default_rng(0).normal(size=(3, *size, 6)).astype(np.float32)
    whole = looking.model([grid, tokens]).numpy()
    np.testing.assert_allclose(word_by_word(looking, grid, tokens), whole, rtol=1e-4, atol=1e-5)
    assert looking.attention([grid, tokens]).shape == (3, 6, size[0] * size[1])


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
    state = [tensor.numpy() for tensor in decoder.start(features_for(decoder))[1:]]
    assert len(state) == states
    assert all(tensor.shape == (3, 8) and np.abs(tensor).max() > 0.01 for tensor in state)
    assert np.abs(state[0]).max() < 1  # an output never is larger


def test_the_merge_models_cell_starts_from_nothing():
    decoder = build("merge", "lstm")
    assert all((tensor.numpy() == 0).all() for tensor in decoder.start(features_for(decoder))[1:])


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
    with pytest.raises(CaptionError, match=r"no cell 'rwkv'.*lstm, lstm-hard, gru"):
        build_decoder(replace(TINY, cell="rwkv"))
