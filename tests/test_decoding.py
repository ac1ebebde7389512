"""Tests of caption_generator.decoding, against searches written as plainly as can be."""

import math
from itertools import product

import keras
import numpy as np
import pytest

from caption_generator.decoders import Decoder, DecoderSpec, build_decoder
from caption_generator.decoding import BeamSearch
from caption_generator.tokenizer import END, PAD, SPECIAL_TOKENS, START, UNKNOWN, Tokenizer

BARRED = (PAD, START, UNKNOWN)


def opinionated(decoder: Decoder, spread: float = 0.5, seed: int = 0) -> Decoder:
    """Weights large enough that images and words matter, so that captions differ and end at different lengths."""
    random = np.random.default_rng(seed)
    decoder.model.set_weights([random.normal(0, spread, w.shape).astype("f") for w in decoder.model.get_weights()])
    return with_bias(decoder, end=2)


def with_bias(decoder: Decoder, **biases: float) -> Decoder:
    """Make special tokens likely or unlikely."""
    numbers = {"pad": PAD, "start": START, "end": END, "unk": UNKNOWN}
    bias = decoder.model.get_layer("next_word").bias
    values = bias.numpy()
    for name, value in biases.items():
        values[numbers[name]] = value
    bias.assign(values)
    return decoder


@pytest.fixture
def decoder(decoder) -> Decoder:
    return opinionated(decoder)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(7).normal(size=(9, 6)).astype(np.float32)


def next_log_probabilities(decoder: Decoder, image: np.ndarray, tokens: list[int]) -> np.ndarray:
    """Of every word after `<start>` and `tokens`: the merge model in NumPy, which reads the whole prefix anew."""

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    weights = {layer.name: [w.astype(np.float64) for w in layer.get_weights()] for layer in decoder.model.layers}
    (embedding,), (kernel, recurrent, bias) = weights["embedding"], weights["lstm"]
    h = c = np.zeros(decoder.spec.units)
    for token in [START, *tokens]:
        gate_in, forget, new, gate_out = np.split(embedding[token] @ kernel + h @ recurrent + bias, 4)
        c = sigmoid(forget) * c + sigmoid(gate_in) * np.tanh(new)
        h = sigmoid(gate_out) * np.tanh(c)
    dense, hidden, softmax = weights["image_dense"], weights["hidden"], weights["next_word"]
    merged = np.maximum(image @ dense[0] + dense[1], 0) + h
    logits = np.maximum(merged @ hidden[0] + hidden[1], 0) @ softmax[0] + softmax[1]
    return logits - np.log(np.exp(logits).sum())


def plain_beam_search(decoder: Decoder, image: np.ndarray, beam: int, longest: int) -> list[list[tuple[int, float]]]:
    """Captions as (token, log-probability) lists, `<end>` last, the best mean first."""
    captions = [[]]
    for place in range(longest + 1):
        candidates = []
        for caption in captions:
            tokens = [token for token, _ in caption]
            if END in tokens:
                candidates.append(caption)
                continue
            log_probabilities = next_log_probabilities(decoder, image, tokens)
            allowed = [END] if place == longest else [t for t in range(len(log_probabilities)) if t not in BARRED]
            candidates += [[*caption, (token, log_probabilities[token])] for token in allowed]
        captions = sorted(candidates, key=lambda c: -sum(lp for _, lp in c))[:beam]
    return sorted(captions, key=lambda c: -np.mean([lp for _, lp in c]))


def assert_same(found, expected, tokenizer: Tokenizer) -> None:
    assert len(found) == len(expected)
    for caption, plain in zip(found, expected, strict=True):
        assert [word for word, _ in caption.words] == [tokenizer.words[token] for token, _ in plain]
        np.testing.assert_allclose([p for _, p in caption.words], [math.exp(lp) for _, lp in plain], rtol=1e-3)
        assert caption.score == pytest.approx(math.exp(np.mean([lp for _, lp in plain])), rel=1e-3)


@pytest.mark.parametrize("beam", [1, 2, 3, 5])
def test_beam_search_equals_a_plain_one(beam, decoder, tokenizer, images):
    found = BeamSearch(decoder, tokenizer, beam)(images)
    for image, captions in zip(images, found, strict=True):
        assert_same(captions, plain_beam_search(decoder, image, beam, tokenizer.max_length), tokenizer)
    assert len({captions[0].text for captions in found}) > 3
    assert len({len(captions[0].words) for captions in found}) > 2


def test_a_beam_of_one_is_the_greedy_choice_word_by_word(decoder, tokenizer, images):
    for image, (caption,) in zip(images, BeamSearch(decoder, tokenizer, 1)(images), strict=True):
        tokens: list[int] = []
        while END not in tokens and len(tokens) < tokenizer.max_length:
            log_probabilities = next_log_probabilities(decoder, image, tokens)
            log_probabilities[list(BARRED)] = -np.inf
            tokens.append(int(np.argmax(log_probabilities)))
        assert caption.text == tokenizer.decode(tokens)


def test_a_beam_as_wide_as_all_captions_finds_the_best_of_all(images):
    tokenizer = Tokenizer([*SPECIAL_TOKENS, "dog", "cat"], max_length=2)
    decoder = opinionated(build_decoder(DecoderSpec("merge", 6, len(tokenizer), units=4)))
    search = BeamSearch(decoder, tokenizer, beam=7)
    for image, captions in zip(images, search(images), strict=True):
        every = [[*words, END] for length in range(3) for words in product((4, 5), repeat=length)]
        scores = {}
        for tokens in every:
            steps = [next_log_probabilities(decoder, image, tokens[:place])[t] for place, t in enumerate(tokens)]
            scores[tokenizer.decode(tokens)] = math.exp(np.mean(steps))
        assert len(every) == 7
        assert [c.text for c in captions] == sorted(scores, key=lambda text: -scores[text])
        assert [c.score for c in captions] == pytest.approx(sorted(scores.values(), reverse=True), rel=1e-3)


@pytest.mark.parametrize("beam", [1, 4])
def test_scores_are_means_of_word_probabilities_and_sorted(beam, decoder, tokenizer, images):
    for captions in BeamSearch(decoder, tokenizer, beam)(images):
        scores = [caption.score for caption in captions]
        assert len(scores) == beam
        assert scores == sorted(scores, reverse=True)
        assert len({caption.text for caption in captions}) == beam
        for caption in captions:
            assert 0 < caption.score <= 1
            product_of_words = math.prod(probability for _, probability in caption.words)
            assert product_of_words ** (1 / len(caption.words)) == pytest.approx(caption.score, rel=1e-4)
            words, end = [word for word, _ in caption.words[:-1]], caption.words[-1][0]
            assert (" ".join(words), end) == (caption.text, "<end>")


@pytest.mark.parametrize("beam", [1, 3])
def test_padding_start_and_unknown_are_never_written(beam, decoder, tokenizer, images):
    with_bias(decoder, pad=60, start=60, unk=60)
    for captions in BeamSearch(decoder, tokenizer, beam)(images):
        for caption in captions:
            words = [word for word, _ in caption.words]
            assert set(words[:-1]) <= set(tokenizer.words[len(SPECIAL_TOKENS) :])
            assert words[-1] == "<end>"


@pytest.mark.parametrize("beam", [1, 3])
def test_no_caption_is_longer_than_the_longest_one_learnt(beam, decoder, tokenizer, images):
    with_bias(decoder, end=-30)  # it would never stop by itself
    for captions in BeamSearch(decoder, tokenizer, beam)(images):
        for caption in captions:
            assert len(caption.text.split()) == tokenizer.max_length
            assert caption.words[-1][0] == "<end>"


@pytest.mark.parametrize("beam", [1, 3])
def test_a_caption_of_no_words_is_a_caption(beam, decoder, tokenizer, images):
    with_bias(decoder, end=60)
    for best, *_ in BeamSearch(decoder, tokenizer, beam)(images):
        assert best.text == ""
        assert [word for word, _ in best.words] == ["<end>"]
        assert best.score == pytest.approx(1)


def test_an_image_is_captioned_alike_in_any_batch_and_nothing_is_traced_again(decoder, tokenizer, images):
    search = BeamSearch(decoder, tokenizer, 3)
    together = search(images)
    alone = [search(image[None])[0] for image in images]
    backwards = search(images[::-1].copy())[::-1]
    for other in (alone, backwards):
        for found, expected in zip(other, together, strict=True):
            assert [c.text for c in found] == [c.text for c in expected]
            assert [c.score for c in found] == pytest.approx([c.score for c in expected], rel=1e-4)
    assert search._search.experimental_get_tracing_count() == 1


def test_a_wider_beam_finds_captions_that_the_model_likes_at_least_as_much_on_average(decoder, tokenizer, images):
    totals = []
    for beam in (1, 5):
        found = BeamSearch(decoder, tokenizer, beam)(images)
        totals.append(sum(max(math.prod(p for _, p in c.words) for c in captions) for captions in found))
    assert totals[1] > totals[0]


def test_dropout_plays_no_part(tokenizer, images):
    keras.utils.set_random_seed(0)
    decoder = opinionated(build_decoder(DecoderSpec("merge", 6, len(tokenizer), units=8, dropout=0.9)))
    search = BeamSearch(decoder, tokenizer, 2)
    assert search(images) == search(images)
