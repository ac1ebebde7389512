"""Tests of caption_generator.search, against searches written as plainly as can be."""

import math
from itertools import product

import numpy as np
import pytest

from caption_generator.decoders import DECODERS, Decoder, DecoderSpec, build_decoder
from caption_generator.search import BeamSearch, Caption, caption_features, forbid_repetition, log_softmax, top_k
from caption_generator.tokenizer import END, PAD, SPECIAL_TOKENS, START, UNKNOWN, Tokenizer
from tests.helpers import NEVER_WRITTEN, opinionated, set_bias

NUMBERS = {"pad": PAD, "start": START, "end": END, "unk": UNKNOWN}


@pytest.fixture(scope="module", params=[*((name, "lstm") for name in DECODERS), ("initial_state", "gru")], ids="-".join)
def decoder(request) -> Decoder:
    name, cell = request.param
    width = 4 if name == "attention" else 8
    spec = DecoderSpec(name, feature_size=6, vocabulary_size=20, units=8, cell=cell, embedding_size=width, hidden=8)
    return opinionated(build_decoder(spec))


@pytest.fixture
def biased(decoder):
    """A function that makes special tokens likely or unlikely for one test."""
    weights = decoder.model.get_weights()
    yield lambda **biases: set_bias(decoder, {NUMBERS[name]: value for name, value in biases.items()})
    decoder.model.set_weights(weights)


@pytest.fixture
def images(decoder) -> np.ndarray:
    return images_for(decoder)


def images_for(decoder: Decoder) -> np.ndarray:
    shape = {"avg": (9, 6), "grid": (9, 2, 3, 6)}[DECODERS[decoder.spec.name].pooling]
    return np.random.default_rng(7).normal(size=shape).astype(np.float32)


def next_log_probabilities(decoder: Decoder, image: np.ndarray, tokens: list[int]) -> np.ndarray:
    """Of every word after `<start>` and `tokens`: the decoder in NumPy, which reads the whole prefix anew."""
    weights = {layer.name: [w.astype(np.float64) for w in layer.get_weights()] for layer in decoder.model.layers}
    kinds = {"merge": merge_logits, "initial_state": initial_state_logits, "attention": attention_logits}
    logits = kinds[decoder.spec.name](weights, image, tokens)
    return logits - np.log(np.exp(logits).sum())


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def gru(weights: dict, h: np.ndarray, tokens: list[int]) -> np.ndarray:
    (embedding,), (kernel, recurrent, biases) = weights["embedding"], weights["gru"]
    for token in [START, *tokens]:
        word, state = np.split(embedding[token] @ kernel + biases[0], 3), np.split(h @ recurrent + biases[1], 3)
        keep, reset = sigmoid(word[0] + state[0]), sigmoid(word[1] + state[1])
        h = keep * h + (1 - keep) * np.tanh(word[2] + reset * state[2])
    return h


def lstm(weights: dict, h: np.ndarray, c: np.ndarray, tokens: list[int]) -> np.ndarray:
    (embedding,), (kernel, recurrent, bias) = weights["embedding"], weights["lstm"]
    for token in [START, *tokens]:
        gate_in, forget, new, gate_out = np.split(embedding[token] @ kernel + h @ recurrent + bias, 4)
        c = sigmoid(forget) * c + sigmoid(gate_in) * np.tanh(new)
        h = sigmoid(gate_out) * np.tanh(c)
    return h


def dense(weights: dict, name: str, inputs: np.ndarray) -> np.ndarray:
    kernel, bias = weights[name]
    return inputs @ kernel + bias


def merge_logits(weights: dict, image: np.ndarray, tokens: list[int]) -> np.ndarray:
    blank = np.zeros(len(weights["lstm"][1]))
    merged = np.maximum(dense(weights, "image_dense", image), 0) + lstm(weights, blank, blank, tokens)
    return dense(weights, "next_word", np.maximum(dense(weights, "hidden", merged), 0))


def initial_state_logits(weights: dict, image: np.ndarray, tokens: list[int]) -> np.ndarray:
    h = np.tanh(dense(weights, "first_h", image))
    if "gru" in weights:
        return dense(weights, "next_word", gru(weights, h, tokens))
    return dense(weights, "next_word", lstm(weights, h, dense(weights, "first_c", image), tokens))


def attention_logits(weights: dict, image: np.ndarray, tokens: list[int]) -> np.ndarray:
    places = image.reshape(-1, image.shape[-1])
    whole = places.mean(axis=0)
    h = lstm(weights, np.tanh(dense(weights, "first_h", whole)), dense(weights, "first_c", whole), tokens)
    values = np.maximum(dense(weights, "values", places), 0)
    keys = dense(weights, "keys", values)
    context = []
    for head in np.split(np.arange(len(h)), 4):
        scores = np.exp(keys[:, head] @ h[head] / len(head) ** 0.5)
        context.append(scores / scores.sum() @ values[:, head])
    hidden = np.tanh(dense(weights, "hidden", np.concatenate([h, *context])))
    return weights["embedding"][0] @ hidden


def repeats(tokens: list[int], run: int) -> bool:
    """Whether the last `run` words have been said before, one after the other."""
    return run > 0 and any(tokens[i : i + run] == tokens[-run:] for i in range(len(tokens) - run))


def plain_beam_search(
    decoder: Decoder, image: np.ndarray, beam: int, longest: int, no_repeat: int, enough: int
) -> list[list[tuple[int, float]]]:
    """The best `enough` captions as (token, log-probability) lists, `<end>` last, the best mean first."""
    captions, ended = [[]], []
    for position in range(longest + 1):
        candidates = []
        for caption in captions:
            tokens = [token for token, _ in caption]
            log_probabilities = next_log_probabilities(decoder, image, tokens)
            words = sorted(set(range(len(log_probabilities))) - set(NEVER_WRITTEN))
            allowed = [END] if position == longest else words
            candidates += [
                [*caption, (token, log_probabilities[token])]
                for token in allowed
                if not repeats([*tokens, token], no_repeat)
            ]
        candidates.sort(key=total, reverse=True)
        ended += [caption for caption in candidates[:beam] if caption[-1][0] == END]
        ended = sorted(ended, key=total, reverse=True)[:enough]
        captions = [caption for caption in candidates if caption[-1][0] != END][:beam]
        if len(ended) == enough and all(total(ended[-1]) >= total(caption) for caption in captions):
            break
    return sorted(ended, key=lambda c: -np.mean([lp for _, lp in c]))


def total(caption: list[tuple[int, float]]) -> float:
    return sum(log_prob for _, log_prob in caption)


def assert_same(found, expected, tokenizer: Tokenizer) -> None:
    assert len(found) == len(expected)
    for caption, plain in zip(found, expected, strict=True):
        assert [word for word, _ in caption.words] == [tokenizer.words[token] for token, _ in plain]
        np.testing.assert_allclose([p for _, p in caption.words], [math.exp(lp) for _, lp in plain], rtol=1e-3)
        assert caption.log_prob == pytest.approx(np.mean([lp for _, lp in plain]), rel=1e-3)


@pytest.mark.parametrize(
    ("beam", "no_repeat", "captions"),
    [(1, 0, 1), (3, 0, 3), (5, 0, 5), (1, 2, 1), (3, 1, 3), (3, 3, 3), (3, 0, 6), (5, 3, 10), (3, 0, 2)],
)
def test_beam_search_equals_a_plain_one(beam, no_repeat, captions, decoder, tokenizer, images):
    found = BeamSearch(decoder, tokenizer, beam, no_repeat, captions)(images)
    for image, group in zip(images, found, strict=True):
        plain = plain_beam_search(decoder, image, beam, tokenizer.max_length, no_repeat, captions)
        assert_same(group, plain, tokenizer)
    assert len({group[0].text for group in found}) > 2
    assert len({len(group[0].words) for group in found}) > 1


@pytest.mark.parametrize(("beam", "run"), [(1, 1), (1, 3), (4, 2)])
def test_no_caption_says_a_run_of_words_twice(beam, run, decoder, biased, tokenizer, images):
    longer = Tokenizer(tokenizer.words, max_length=12)
    biased(end=-3)
    said = {no_repeat: BeamSearch(decoder, longer, beam, no_repeat)(images) for no_repeat in (0, run)}

    def has_repetition(caption) -> bool:
        words = caption.text.split()
        return any(repeats(words[:length], run) for length in range(1, len(words) + 1))

    assert any(has_repetition(caption) for captions in said[0] for caption in captions)  # if it is let
    assert not any(has_repetition(caption) for captions in said[run] for caption in captions)


def test_a_beam_of_one_is_the_greedy_choice_word_by_word(decoder, tokenizer, images):
    for image, (caption,) in zip(images, BeamSearch(decoder, tokenizer, 1, no_repeat=0)(images), strict=True):
        tokens: list[int] = []
        while END not in tokens and len(tokens) < tokenizer.max_length:
            log_probabilities = next_log_probabilities(decoder, image, tokens)
            log_probabilities[list(NEVER_WRITTEN)] = -np.inf
            tokens.append(int(np.argmax(log_probabilities)))
        assert caption.text == tokenizer.decode(tokens)


@pytest.mark.parametrize("name", DECODERS)
def test_a_beam_as_wide_as_all_captions_finds_the_best_of_all(name):
    tokenizer = Tokenizer([*SPECIAL_TOKENS, "dog", "cat"], max_length=2)
    decoder = opinionated(build_decoder(DecoderSpec(name, 6, len(tokenizer), units=4, embedding_size=4, hidden=4)))
    search = BeamSearch(decoder, tokenizer, beam=7)
    images = images_for(decoder)
    for image, captions in zip(images, search(images), strict=True):
        every = [[*words, END] for length in range(3) for words in product((4, 5), repeat=length)]
        log_probs = {}
        for tokens in every:
            steps = [next_log_probabilities(decoder, image, tokens[:place])[t] for place, t in enumerate(tokens)]
            log_probs[tokenizer.decode(tokens)] = np.mean(steps)
        assert len(every) == 7
        assert [c.text for c in captions] == sorted(log_probs, key=lambda text: -log_probs[text])
        assert [c.log_prob for c in captions] == pytest.approx(sorted(log_probs.values(), reverse=True), rel=1e-3)


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
def test_padding_start_and_unknown_are_never_written(beam, decoder, biased, tokenizer, images):
    biased(pad=60, start=60, unk=60)
    for captions in BeamSearch(decoder, tokenizer, beam)(images):
        for caption in captions:
            words = [word for word, _ in caption.words]
            assert set(words[:-1]) <= set(tokenizer.words[len(SPECIAL_TOKENS) :])
            assert words[-1] == "<end>"


@pytest.mark.parametrize("beam", [1, 3])
def test_no_caption_is_longer_than_the_longest_one_learnt(beam, decoder, biased, tokenizer, images):
    biased(end=-30)  # it would never stop by itself
    for captions in BeamSearch(decoder, tokenizer, beam)(images):
        for caption in captions:
            assert len(caption.text.split()) == tokenizer.max_length
            assert caption.words[-1][0] == "<end>"


@pytest.mark.parametrize("beam", [1, 3])
def test_a_caption_of_no_words_is_a_caption(beam, decoder, biased, tokenizer, images):
    biased(end=60)
    for best, *_ in BeamSearch(decoder, tokenizer, beam)(images):
        assert best.text == ""
        assert [word for word, _ in best.words] == ["<end>"]
        assert best.log_prob == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("beam", [1, 3])
def test_a_decoder_that_diverged_writes_an_empty_caption_of_score_0(beam, decoder, biased, tokenizer, images):
    biased(end=math.nan)
    found = BeamSearch(decoder, tokenizer, beam)(images)
    assert [(caption.text, caption.score) for (caption,) in found] == [("", 0)] * len(images)


def test_an_image_is_captioned_alike_in_any_batch(decoder, tokenizer, images):
    search = BeamSearch(decoder, tokenizer, 3)
    together = search(images)
    alone = [search(image[None])[0] for image in images]
    backwards = search(images[::-1].copy())[::-1]
    for other in (alone, backwards):
        for found, expected in zip(other, together, strict=True):
            assert [c.text for c in found] == [c.text for c in expected]
            assert [c.score for c in found] == pytest.approx([c.score for c in expected], rel=1e-4)


def test_a_wider_beam_finds_captions_that_the_model_likes_at_least_as_much_on_average(decoder, tokenizer, images):
    totals = []
    for beam in (1, 5):
        found = BeamSearch(decoder, tokenizer, beam)(images)
        totals.append(sum(max(math.prod(p for _, p in c.words) for c in captions) for captions in found))
    assert totals[1] > totals[0]


@pytest.mark.parametrize("name", DECODERS)
def test_dropout_plays_no_part(name, tokenizer):
    decoder = build_decoder(DecoderSpec(name, 6, len(tokenizer), units=8, dropout=0.9, embedding_size=8, hidden=8))
    search = BeamSearch(opinionated(decoder), tokenizer, 2)
    assert search(images_for(decoder)) == search(images_for(decoder))


def test_attention_weights_are_those_of_the_words_of_the_caption(decoder, tokenizer, images):
    """Captions trade places in the beam at nearly every word, and their weights must go with them."""
    found = BeamSearch(decoder, tokenizer, 3)(images)
    if DECODERS[decoder.spec.name].pooling == "avg":
        assert all(caption.attention is None for captions in found for caption in captions)
        return
    for image, captions in zip(images, found, strict=True):
        for caption in captions:
            encoded, state = decoder.begin(image[None], 1)
            expected = []
            for token in tokenizer.encode(caption.text)[:-1]:
                _, weights, state = decoder.advance(encoded, state, np.array([token]))
                expected.append(weights[0])
            assert caption.attention.shape == (len(caption.words), 6)
            np.testing.assert_allclose(caption.attention, expected, rtol=1e-4)


def test_no_image_has_no_captions(decoder, tokenizer, images):
    assert BeamSearch(decoder, tokenizer, 3)(images[:0]) == []


def test_features_are_captioned_in_batches_by_the_best_of_their_beam(decoder, tokenizer, images):
    search = BeamSearch(decoder, tokenizer, 2)
    together = [best.text for best, _ in search(images)]
    assert [caption.text for caption in caption_features(search, images, batch_size=2)] == together


# A caption


def test_the_score_combines_what_is_known_of_a_caption():
    caption = Caption("a dog", (), log_prob=math.log(0.5))
    assert caption.score == pytest.approx(0.5)
    assert Caption("a dog", (), math.log(0.5), fit=math.log(1.2)).score == pytest.approx(0.6)
    assert Caption("a dog", (), math.log(0.5), fit=math.log(3)).score == 1
    assert Caption("a dog", (), math.log(0.5), fit=math.log(3), familiarity=0.25).score == 0.25
    assert Caption("a dog", (), math.log(0.5), familiarity=0.0).score == 0


# The arithmetic


def test_log_softmax_is_exact_and_finite_for_large_logits():
    logits = np.array([[0.0, 1.0, 2.0], [1000.0, 0.0, -1000.0]], np.float32)
    found = log_softmax(logits)
    np.testing.assert_allclose(found[0], logits[0] - math.log(sum(map(math.exp, logits[0]))), rtol=1e-6)
    np.testing.assert_allclose(found[1], [0, -1000, -2000])


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_are_the_greatest_in_order(k):
    random = np.random.default_rng(0)
    for values in (random.normal(size=(50, 9)), random.integers(3, size=(50, 9)).astype(float)):
        expected = np.argsort(-values, axis=1, kind="stable")[:, :k]
        found = top_k(values, k)
        np.testing.assert_array_equal(
            np.take_along_axis(values, found, axis=1), np.take_along_axis(values, expected, axis=1)
        )
        assert all(len(set(row)) == k for row in found)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_every_word_that_would_repeat_a_run_is_forbidden(n):
    tokens = np.random.default_rng(n).integers(3, size=(40, 8)).astype(np.int32)
    for position in range(8):
        log_probs = np.zeros((40, 3), np.float32)
        forbid_repetition(log_probs, tokens, position, n)
        for row, said in zip(log_probs, tokens[:, :position].tolist(), strict=True):
            assert [not np.isfinite(value) for value in row] == [repeats([*said, word], n) for word in range(3)]
