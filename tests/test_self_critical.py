"""Tests of caption_generator.finetuning.self_critical, with small networks and random weights."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_generator.captions import Dataset
from caption_generator.checkpoint import Checkpoint, load_checkpoint
from caption_generator.common.errors import CaptionError
from caption_generator.decoders import DECODERS, Decoder, DecoderSpec, build_decoder
from caption_generator.encoders import Encoder
from caption_generator.finetuning.rewards import Reward
from caption_generator.finetuning.self_critical import (
    ImageBatches,
    SelfCritical,
    SelfCriticalSettings,
    train_self_critical,
)
from caption_generator.search import BeamSearch
from caption_generator.tokenizer import END, PAD, SPECIAL_TOKENS, START, UNKNOWN
from caption_generator.training_loop import DrawOrder
from tests.helpers import NEVER_WRITTEN, WORDS, draw_weights, eagerly, killed_at, same_weights, set_bias

TRAIN = {f"{n}.png": [f"w{n:02} w10", f"w11 w{n:02} w12 w13"] for n in range(5)}
DATA = Dataset(TRAIN, {"5.png": ["w05 w10", "w10 w12"], "6.png": ["w06 w11"]}, references={})
SETTINGS = SelfCriticalSettings(epochs=2, images_per_batch=2, learning_rate=0.01, samples=3, max_length=5, views=1)


def no_reward(image: int, words: list[str]) -> float:
    return 0.0


def late_layers(pooling: str) -> keras.Model:
    """Nothing but the pooling, after a layer with one weight that must not move."""
    grid = keras.Input((None, None, 6))
    scaled = keras.layers.DepthwiseConv2D(1, depthwise_initializer="ones")(grid)
    layer = {"avg": keras.layers.GlobalAveragePooling2D, "grid": keras.layers.Identity}[pooling]()
    return keras.Model(grid, layer(scaled))


def decoder_of(name: str, spread: float) -> Decoder:
    width = 4 if name == "attention" else 8
    spec = DecoderSpec(name, 6, len(WORDS), units=8, embedding_size=width, hidden=8)
    return draw_weights(build_decoder(spec), spread)


def network(name: str, reward=no_reward, spread: float = 0.35, **settings) -> SelfCritical:
    settings = SelfCriticalSettings(**{"max_length": 7, "dropout": 0.0} | settings)
    late, decoder = late_layers(DECODERS[name].pooling), decoder_of(name, spread)
    model = SelfCritical(late, decoder, WORDS, reward, settings)
    model.late.trainable = False
    return model


def grids(images: int) -> np.ndarray:
    return np.random.default_rng(7).normal(size=(images, 2, 3, 6)).astype(np.float32)


def policy_of(model: SelfCritical, features: tf.Tensor, tokens: np.ndarray) -> tf.Tensor:
    """The logits that words are sampled from: sharper than the decoder's, and without what is never written."""
    mask = np.where(np.isin(np.arange(20), NEVER_WRITTEN), -1e9, 0).astype(np.float32)
    return model.decoder([features, tf.constant(tokens, tf.int32)], training=False) / 0.7 + mask


@pytest.fixture(params=DECODERS)
def name(request) -> str:
    return request.param


# Sampling


def test_samples_end_and_are_padded_and_have_no_special_tokens(name):
    model = network(name)
    tokens = model.sample(model.late(grids(40))).numpy()
    assert tokens.dtype == np.int32
    assert tokens.shape == (200, 7)  # nobody stops earlier in all of 200
    ended = 0
    for row in tokens:
        (ends,) = np.nonzero(row == END)
        words = row[: ends[0]] if len(ends) else row
        assert (words >= len(SPECIAL_TOKENS)).all()
        assert (row[len(words) + 1 :] == PAD).all()
        ended += len(ends)
    assert 20 < ended < 200
    assert len({row.tobytes() for row in tokens}) > 100


def test_special_tokens_are_not_drawn_however_likely_they_are():
    model = network("merge")
    set_bias(model.stepwise, dict.fromkeys(NEVER_WRITTEN, 60))
    tokens = model.sample(model.late(grids(20))).numpy()
    assert not np.isin(tokens, [START, UNKNOWN]).any()
    assert (tokens[:, 0] != PAD).all()


def test_sampling_stops_when_every_caption_has_ended():
    model = network("merge")
    set_bias(model.stepwise, {END: 60})
    assert model.sample(model.late(grids(4))).numpy().tolist() == [[END]] * 20


def test_words_are_drawn_with_the_probabilities_of_their_image(name):
    """The first words of 4000 samples of each of three images, side by side with the model's probabilities."""
    model = network(name, samples=4000, max_length=1, spread=1.0)
    features = model.late(grids(3))
    first = model.sample(features).numpy().reshape(3, 4000)
    probabilities = tf.nn.softmax(policy_of(model, features, np.full((3, 1), START)))[:, 0].numpy()
    assert not probabilities[:, NEVER_WRITTEN].any()
    found = np.stack([np.bincount(row, minlength=20) for row in first]) / 4000
    np.testing.assert_allclose(found, probabilities, atol=5 * 0.5 / 4000**0.5)
    assert np.abs(probabilities[0] - probabilities[1]).max() > 0.1  # else a mix-up would not be seen


def test_if_the_most_probable_word_is_drawn_each_time_the_sample_is_the_greedy_caption(name, monkeypatch):
    """So every word is drawn after the words that were drawn before it, and the state stays with its caption."""

    def most_probable(logits, number, dtype, seed):
        return tf.argmax(logits, axis=-1, output_type=dtype)[:, None]

    monkeypatch.setattr(keras.random, "categorical", most_probable)
    model = network(name, samples=3, max_length=6, spread=0.9)
    features = model.late(grids(12))
    samples = model.sample(features).numpy().reshape(12, 3, -1)
    greedy = [best.text for best, *_ in BeamSearch(model.stepwise, WORDS, 1, no_repeat=0)(features.numpy())]
    for image, text in zip(samples, greedy, strict=True):
        assert [WORDS.decode(row) for row in image] == [text] * 3
    assert len(set(greedy)) > 3


# Rewards


def test_each_sample_has_the_reward_of_its_words_for_its_own_image():
    model = network("merge", Reward(TRAIN), samples=2, max_length=4)
    tokens = np.array([[4, 14, END, PAD], [15, 4, 16, 17], [5, 14, 14, END], [END, PAD, PAD, PAD]], np.int32)
    found = model.rewards(tokens, np.array([0, 1], np.int32))
    captions = [[["w00", "w10", "<end>"], ["w11", "w00", "w12", "w13"]], [["w01", "w10", "w10", "<end>"], ["<end>"]]]
    expected = [[model.reward(image, words) for words in group] for image, group in enumerate(captions)]
    assert (found.shape, found.dtype) == ((2, 2), np.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert len(np.unique(found)) == 4
    other = model.rewards(tokens, np.array([1, 0], np.int32))
    assert other[0, 0] < found[0, 0]


# Training


def train(
    model: SelfCritical, steps: int, learning_rate: float = 0.02, optimizer=keras.optimizers.Adam, run_eagerly=False
):
    """The same two images again and again, the second first."""
    model.compile(optimizer(learning_rate), run_eagerly=run_eagerly, jit_compile=False)
    images = np.array([1, 0], np.int32)
    stream = tf.data.Dataset.from_tensors((grids(2)[images], images)).repeat(steps)
    with eagerly(steps <= 2):
        model.fit(stream, epochs=1, verbose=0, shuffle=False)


def first_words(model: SelfCritical) -> np.ndarray:
    """The probabilities of the first word of two images, (2, 20)."""
    features = model.late(grids(2))
    return tf.nn.softmax(policy_of(model, features, np.full((2, 1), START)))[:, 0].numpy()


def test_a_word_that_pays_becomes_more_probable_for_the_image_that_it_pays_for(name):
    paying = {0: "w03", 1: "w05"}
    model = network(name, lambda image, words: float(words[0] == paying[int(image)]), samples=8, max_length=2)
    before = first_words(model)
    train(model, steps=120 if name == "initial_state" else 60)  # with one layer less, it learns more slowly
    after = first_words(model)
    three, five = WORDS.words.index("w03"), WORDS.words.index("w05")
    assert after[0, three] > 2 * before[0, three]
    assert after[1, five] > 2 * before[1, five]
    assert after[0, three] > after[1, three]
    assert after[1, five] > after[0, five]


def test_rewards_that_are_all_equal_teach_nothing(name):
    model = network(name, lambda image, words: -2.0)
    before = model.decoder.get_weights()
    train(model, steps=2)
    for a, b in zip(model.decoder.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_sample_is_compared_with_the_others_of_its_own_image_alone():
    """One image is worth more than the other, whatever is said of it: there is nothing to learn."""
    model = network("merge", lambda image, words: 5.0 * float(image))
    before = model.decoder.get_weights()
    train(model, steps=2)
    for a, b in zip(model.decoder.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_step_follows_the_gradient_of_reinforce(name, frozen, monkeypatch):
    """One step of plain gradient descent, and the same from a formula that goes through the captions one by one."""
    tokens = np.array(
        [[4, 5, END], [6, END, PAD], [7, 8, 9], [4, 4, END], [END, PAD, PAD], [10, 11, 12]], np.int32
    )  # three of image 1, and three of image 0, of which two were cut off
    worth = np.array([[3.0, 1.0, 0.5], [0.0, 2.0, 7.0]], np.float32)
    model = network(name, samples=3, max_length=3)
    monkeypatch.setattr(model, "sample", lambda features: tf.constant(tokens))
    monkeypatch.setattr(model, "rewards", lambda tokens, images: worth)
    # What is hidden from an image's samples is hidden from learning about them, too.
    shown = tf.constant(np.random.default_rng(3).random(model.late(grids(2)).shape) < 0.6, tf.float32)
    monkeypatch.setattr(model, "dropout", lambda features, training: features * shown)
    model.late.trainable = not frozen
    trained = [model.decoder] if frozen else [model.late, model.decoder]
    before = [weights for part in trained for weights in part.get_weights()]
    variables = [variable.value for part in trained for variable in part.trainable_variables]
    with tf.GradientTape() as tape:
        features = tf.convert_to_tensor(model.late(grids(2)[[1, 0]])) * shown
        loss = 0.0
        for row, caption in enumerate(tokens):
            image, sample = divmod(row, 3)
            advantage = worth[image, sample] - np.delete(worth[image], sample).mean()
            words = caption[caption != PAD]
            logits = policy_of(model, features[image][None], [[START, *words[:-1]]])
            log_probabilities = tf.nn.log_softmax(logits)[0]
            loss -= advantage * sum(log_probabilities[position, word] for position, word in enumerate(words))
        loss /= np.count_nonzero(tokens != PAD)
    gradients = [tf.convert_to_tensor(gradient).numpy() for gradient in tape.gradient(loss, variables)]
    train(model, steps=1, learning_rate=0.1, optimizer=keras.optimizers.SGD)
    found = [weights for part in trained for weights in part.get_weights()]
    for after, was, gradient in zip(found, before, gradients, strict=True):
        np.testing.assert_allclose(after, was - 0.1 * gradient, rtol=1e-4, atol=1e-5)
    assert max(np.abs(gradient).max() for gradient in gradients) > 0.01
    assert np.abs(gradients[0]).max() > 1e-4


def test_samples_do_not_see_all_of_the_features(monkeypatch):
    model = network("attention", samples=2, dropout=0.25)
    seen = []
    sample = model.sample
    monkeypatch.setattr(model, "sample", lambda features: seen.append(features.numpy()) or sample(features))
    train(model, steps=2, run_eagerly=True)
    whole = model.late(grids(2)[[1, 0]]).numpy()
    for features in seen:
        hidden = features == 0
        assert 0.1 < hidden.mean() < 0.4
        np.testing.assert_allclose(features[~hidden], whole[~hidden] / 0.75, rtol=1e-5)
    assert (seen[0] != seen[1]).any()


def test_the_late_layers_stay_as_they_are(name):
    model = network(name, lambda image, words: float(len(words)))
    before, decoder = model.late.get_weights(), model.decoder.get_weights()
    train(model, steps=2)
    assert before
    for a, b in zip(model.late.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(model.decoder.get_weights(), decoder, strict=True))


def test_batches_are_the_grids_of_images_with_their_numbers():
    views = [np.arange(5, dtype=np.float16)[:, None, None, None] * np.ones((5, 8, 8, 1), np.float16)]
    batches = ImageBatches(TRAIN, SimpleNamespace(views=views), WORDS, images_per_batch=2, seed=0)
    stream = batches.dataset()
    assert int(stream.cardinality()) == len(batches) == 3
    for batches.epoch in range(2):
        seen = []
        for (streamed, numbers), (windows, same) in zip(stream, batches, strict=True):
            assert (streamed.dtype, numbers.dtype) == (tf.float32, tf.int32)
            np.testing.assert_array_equal(streamed, windows)
            np.testing.assert_array_equal(numbers, same)
            np.testing.assert_array_equal(windows[:, 0, 0, 0], same)
            seen += same.tolist()
        assert sorted(seen) == list(range(5))


def test_an_image_is_in_as_many_epochs_as_its_share_of_captions():
    """Two images have four captions, nine have one: about one epoch in four sees each of those."""
    many = {f"{n}.png": ["w00 w10"] * (4 if n < 2 else 1) for n in range(11)}
    views = [np.zeros((11, 4, 4, 1), np.float16)]
    batches = ImageBatches(many, SimpleNamespace(views=views), WORDS, images_per_batch=4, seed=0)
    seen = np.zeros(11, int)
    for batches.epoch in range(80):
        drawn = [same for _, same in batches]
        numbers = np.concatenate(drawn)
        assert len(drawn) == len(batches) == 1
        assert len(numbers) == len(set(numbers)) == 4
        seen[numbers] += 1
    assert (seen[:2] == 80).all()
    assert all(10 <= times <= 30 for times in seen[2:]), seen


# The whole of it


@dataclass
class Run:
    """What became of two epochs."""

    folder: Path
    checkpoint: Checkpoint
    history: list


def run(untrained, pictures: Path, folder: Path, name: str, **changes) -> Run:
    checkpoint = untrained(name)
    keras.utils.set_random_seed(len(str(folder)))  # whatever was drawn before must not matter
    with eagerly():  # the tests above train in graphs
        history = train_self_critical(checkpoint, pictures, DATA, folder, replace(SETTINGS, **changes))
    return Run(folder, checkpoint, history)


@pytest.fixture(scope="module")
def trained(untrained, pictures, tmp_path_factory) -> Run:
    return run(untrained, pictures, tmp_path_factory.mktemp("trained") / "models", "attention")


def test_the_history_has_rewards_lengths_and_dev_scores(trained):
    assert [row["epoch"] for row in trained.history] == [1, 2]
    for row in trained.history:
        assert sorted(row) == ["epoch", "reward", "val_cider", "words"]
        assert 1 <= row["words"] <= 5
        assert 0 < row["reward"] < 11


def test_the_decoder_has_learnt_and_the_encoder_has_not(trained, untrained):
    before = untrained("attention")
    assert same_weights(trained.checkpoint.encoder.model, before.encoder.model)
    decoders = trained.checkpoint.decoder.model, before.decoder.model
    for variable, old in zip(*(model.trainable_weights for model in decoders), strict=True):
        assert np.abs(variable.numpy() - old.numpy()).max() > 0, variable.path


def test_where_the_encoder_is_not_frozen_it_learns_too(untrained, pictures, tmp_path):
    learned = run(untrained, pictures, tmp_path / "models", "attention", freeze_encoder=False).checkpoint
    before = untrained("attention")
    assert not same_weights(learned.encoder.model, before.encoder.model)
    assert not same_weights(learned.decoder.model, before.decoder.model)
    found = load_checkpoint(tmp_path / "models" / "model_2.h5")
    assert same_weights(found.encoder.model, learned.encoder.model)


def test_checkpoints_hold_both_networks_and_say_how_they_were_trained(trained):
    names = sorted(path.name for path in trained.folder.glob("[!.]*"))
    assert names == ["history.csv", "model_1.h5", "model_2.h5", "model_best.h5", "resume"]
    found = load_checkpoint(trained.folder / "model_2.h5")
    assert same_weights(found.decoder.model, trained.checkpoint.decoder.model)
    assert isinstance(found.encoder, Encoder)
    assert found.encoder.identity == found.encoder_identity == trained.checkpoint.encoder_identity
    (stage,) = found.training["stages"]
    assert stage == asdict(SETTINGS)
    assert found.training["reward"] == pytest.approx(trained.history[1]["reward"])
    best = max(trained.history, key=lambda row: row["val_cider"])  # the first of equals
    assert load_checkpoint(trained.folder / "model_best.h5").training["epoch"] == best["epoch"]


def test_killed_training_goes_on_and_ends_as_if_nothing_had_happened(trained, untrained, pictures, tmp_path):
    folder = tmp_path / "models"
    with killed_at(DrawOrder, "on_train_batch_end", lambda self, *_, **__: self.batches.epoch == 1):
        run(untrained, pictures, folder, "attention")
    assert [p.name for p in sorted(folder.glob("model_*.h5"))] == ["model_1.h5", "model_best.h5"]
    resumed = run(untrained, pictures, folder, "attention")
    assert resumed.history == trained.history
    assert same_weights(resumed.checkpoint.decoder.model, trained.checkpoint.decoder.model)


def test_the_logged_reward_and_length_are_means_of_the_epoch():
    rewards = iter(np.arange(60, dtype=np.float64))
    model = network("merge", lambda image, words: next(rewards), samples=5)
    model.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    images = np.array([1, 0], np.int32)
    stream = tf.data.Dataset.from_tensors((grids(2)[images], images)).repeat(6)
    history = model.fit(stream, epochs=1, verbose=0, shuffle=False).history
    assert history["reward"] == pytest.approx([np.arange(60).mean()])


def test_a_reward_for_a_caption_without_words_is_no_trouble():
    """Greedy captions and samples of a decoder that has learnt nothing may end at once."""
    model = network("merge", Reward(TRAIN), samples=2, max_length=2)
    found = model.rewards(np.array([[END, PAD], [END, PAD]], np.int32), np.array([2], np.int32))
    assert found.shape == (1, 2)
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("checkpoint", "data", "settings", "message"),
    [
        ({"encoder": None}, {}, {}, "does not contain its encoder"),
        ({}, {}, {"samples": 1}, "1 sample of an image cannot be compared"),
        ({}, {"train": {}}, {}, "no training or no dev captions"),
    ],
)
def test_what_cannot_be_trained_is_refused(untrained, pictures, tmp_path, checkpoint, data, settings, message):
    model = replace(untrained("attention"), **checkpoint)
    with pytest.raises(CaptionError, match=message):
        train_self_critical(model, pictures, replace(DATA, **data), tmp_path, replace(SETTINGS, **settings))
    assert not list(tmp_path.iterdir())
