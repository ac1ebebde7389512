"""Tests of caption_generator.decoders."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from caption_generator.decoders import DECODERS, DecoderSpec, build_decoder
from caption_generator.files import CaptionError
from caption_generator.tokenizer import PAD, START

TINY = DecoderSpec("merge", feature_size=6, vocabulary_size=20, units=8)


@pytest.fixture(params=DECODERS)
def any_decoder(request):
    keras.utils.set_random_seed(1)
    return build_decoder(replace(TINY, name=request.param))


@pytest.fixture
def features() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)


@pytest.fixture
def tokens() -> np.ndarray:
    words = np.random.default_rng(0).integers(4, 20, size=(3, 5))
    return np.concatenate([np.full((3, 1), START), words], axis=1).astype(np.int32)


def test_probabilities_have_a_place_for_each_word_and_sum_to_one(any_decoder, features, tokens):
    probabilities = any_decoder.model([features, tokens]).numpy()
    assert probabilities.shape == (3, 6, 20)
    assert (probabilities > 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=1e-5)


def test_one_word_a_step_gives_the_probabilities_of_the_whole_caption(any_decoder, features, tokens):
    whole = any_decoder.model([features, tokens]).numpy()
    image, *state = any_decoder.start(features)
    for place in range(tokens.shape[1]):
        probabilities, *state = any_decoder.step([image, *state, keras.ops.convert_to_tensor(tokens[:, place])])
        np.testing.assert_allclose(probabilities, whole[:, place], rtol=1e-4, atol=1e-6)


def test_padding_changes_nothing_before_it(any_decoder, features, tokens):
    alone = any_decoder.model([features, tokens[:, :3]]).numpy()
    padded = tokens.copy()
    padded[:, 3:] = PAD
    np.testing.assert_allclose(any_decoder.model([features, padded]).numpy()[:, :3], alone, rtol=1e-5, atol=1e-7)


def test_the_image_and_every_earlier_word_count(any_decoder, features, tokens):
    before = any_decoder.model([features, tokens]).numpy()
    other_image = any_decoder.model([features[::-1].copy(), tokens]).numpy()
    assert np.abs(other_image - before)[0].max() > 1e-4
    changed = tokens.copy()
    changed[:, 1] = 4 + (changed[:, 1] - 3) % 16
    other_word = any_decoder.model([features, changed]).numpy()
    np.testing.assert_allclose(other_word[:, 0], before[:, 0], rtol=1e-6)  # what comes later is not seen
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


def test_the_same_spec_builds_a_network_of_the_same_shapes(any_decoder):
    again = build_decoder(any_decoder.spec)
    shapes = [[weight.shape for weight in d.model.get_weights()] for d in (any_decoder, again)]
    assert shapes[0] == shapes[1]


def test_the_merge_model_has_the_parameters_of_the_classrooms():
    """2048 features, 7577 words and 256 units: 5,002,649 is the number that the tutorials' summaries print."""
    decoder = build_decoder(DecoderSpec("merge", feature_size=2048, vocabulary_size=7577))
    image, embedding, lstm = 2048 * 256 + 256, 7577 * 256, 4 * (256 * (256 + 256) + 256)
    hidden, softmax = 256 * 256 + 256, 256 * 7577 + 7577
    assert decoder.model.count_params() == image + embedding + lstm + hidden + softmax == 5_002_649


def test_an_unknown_decoder_is_named_with_the_known_ones():
    with pytest.raises(CaptionError, match=r"'transformer'.*merge"):
        build_decoder(replace(TINY, name="transformer"))
