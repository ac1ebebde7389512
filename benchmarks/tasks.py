"""What `python -m benchmarks` times: each task the ancestors' way and this project's, a process each.

`python -m benchmarks.tasks NAME` runs one and prints seconds. Each warms up first: what is timed is how it goes on.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.drawn import FEATURE_SIZE, LONGEST, draw_captions, draw_features, draw_photos, draw_words

VOCABULARY = 7577  # the ancestors keep every word
EPOCH = 6000  # images
WORDS = 12  # of a caption


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def median_seconds(work: Callable[[], object], times: int = 5) -> float:
    work()
    return float(np.median([seconds(work) for _ in range(times)]))


def ancestors_epoch(images: int = 40) -> float:
    """Of training, 30,000 captions; measured on fewer, as each image is a batch like any other."""
    import keras

    from benchmarks.ancestors import data_generator, define_model

    numbers = {word: number for number, word in enumerate(draw_words(VOCABULARY), 4)}
    captions = [
        [[1, *(numbers[word] for word in caption.split()), 2] for caption in group]
        for group in draw_captions(images, VOCABULARY).values()
    ]
    model = define_model(FEATURE_SIZE, VOCABULARY, LONGEST + 2)
    batches = data_generator(captions, draw_features(images), LONGEST + 2, VOCABULARY)
    ends = []
    clock = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: ends.append(time.perf_counter()))
    model.fit(batches, steps_per_epoch=5 + images, shuffle=False, verbose=0, callbacks=[clock])
    return (ends[-1] - ends[4]) * EPOCH / images


def project_epoch(images: int = 600, vocabulary: int = VOCABULARY, epochs: int = 3) -> float:
    import keras

    from caption_generator.batches import CaptionBatches
    from caption_generator.decoders import DecoderSpec, build_decoder
    from caption_generator.tokenizer import SPECIAL_TOKENS, Tokenizer
    from caption_generator.train import WordLoss

    tokenizer = Tokenizer([*SPECIAL_TOKENS, *draw_words(vocabulary)], LONGEST)
    batches = CaptionBatches(draw_captions(images, vocabulary), draw_features(images), tokenizer)
    model = build_decoder(DecoderSpec("merge", FEATURE_SIZE, vocabulary)).model
    model.compile(optimizer=keras.optimizers.Adam(), loss=WordLoss(), jit_compile=False)
    ends = []
    clock = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: ends.append(time.perf_counter()))
    model.fit(batches.dataset(), epochs=epochs, shuffle=False, verbose=0, callbacks=[clock])
    return (ends[-1] - ends[len(batches) - 1]) / (epochs - 1) * EPOCH / images  # the first epoch warms up


def project_epoch_of_frequent_words() -> float:
    return project_epoch(vocabulary=3000)


def plain_finetuning() -> float:
    """A step, of 32 photos with five captions each, with the late layers as Keras has them."""
    import keras

    from caption_generator.checkpoint import load_encoder
    from caption_generator.encoders import BUNDLED

    encoder = load_encoder(BUNDLED, pooling="grid")
    cut = encoder.backbone.get_layer(encoder.row.early_layers_end).output
    return _finetuning(keras.Model(cut, encoder.backbone.output), cut.shape[1:], encoder.row.feature_size)


def project_finetuning() -> float:
    from caption_generator.checkpoint import load_encoder
    from caption_generator.encoders import BUNDLED
    from caption_generator.finetuning.late_layers import split_encoder

    encoder = load_encoder(BUNDLED, pooling="grid")
    early, late = split_encoder(encoder)
    return _finetuning(late, early.output.shape[1:], encoder.row.feature_size)


def _finetuning(late, grid: tuple[int, ...], feature_size: int) -> float:
    import keras
    import tensorflow as tf

    from caption_generator.decoders import DecoderSpec, build_decoder
    from caption_generator.finetuning.finetune import EncoderDecoder
    from caption_generator.train import WordLoss

    decoder = build_decoder(DecoderSpec("attention", feature_size, 2906, units=512, dropout=0.4))
    model = EncoderDecoder(late, decoder.model)
    model.compile(optimizer=keras.optimizers.Adam(1e-4), loss=WordLoss(0.1), jit_compile=False)
    step = tf.function(model.train_step)
    grids, words = tf.random.uniform((32, *grid)), tf.random.uniform((160, WORDS + 1), 4, 2906, tf.int32)
    batch = ((grids, words), words, tf.ones_like(words, tf.float32))
    return median_seconds(lambda: float(step(batch)["loss"]), 7)


def ancestors_greedy() -> float:
    """One caption of 12 words and its end, of an image whose features are there."""
    from benchmarks.ancestors import define_model, generate_tokens

    model = define_model(FEATURE_SIZE, VOCABULARY, LONGEST + 2)
    [vector] = draw_features(1)
    return median_seconds(lambda: generate_tokens(model, vector, 1, WORDS + 1, LONGEST + 2))


def project_greedy(beam: int = 1) -> float:
    from caption_generator.decoders import DecoderSpec, build_decoder
    from caption_generator.search import BeamSearch
    from caption_generator.tokenizer import END, SPECIAL_TOKENS, Tokenizer

    tokenizer = Tokenizer([*SPECIAL_TOKENS, *draw_words(VOCABULARY)], WORDS)
    decoder = build_decoder(DecoderSpec("merge", FEATURE_SIZE, VOCABULARY))
    next_word = decoder.model.get_layer("next_word")
    kernel, bias = next_word.get_weights()
    bias[END] = -100.0  # no caption ends before its twelfth word
    next_word.set_weights([kernel, bias])
    search, features = BeamSearch(decoder, tokenizer, beam), draw_features(1)
    assert all(len(caption.words) == WORDS + 1 for found in search(features) for caption in found)
    return median_seconds(lambda: search(features), 15)


def project_beam_5() -> float:
    return project_greedy(beam=5)


def ancestors_xception(count: int = 16) -> float:
    """Of one photo, its file included."""
    import keras

    from benchmarks.ancestors import extract_features

    model = keras.applications.Xception(include_top=False, pooling="avg", weights=None)
    with tempfile.TemporaryDirectory() as folder:
        paths = draw_photos(Path(folder), count)
        extract_features(model, paths[:2])
        return seconds(lambda: extract_features(model, paths)) / count


def project_xception(count: int = 192, few: int = 32) -> float:
    """Of one photo among thousands: the time for many, without the time for few, which pays for the start."""
    from caption_generator.encoders import build_encoder
    from caption_generator.features import extract_features

    encoder = build_encoder("xception", weights=None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names = [path.name for path in draw_photos(folder, count)]
        extract_features(encoder, folder, names[:few], folder / "warm.p")
        start = seconds(lambda: extract_features(encoder, folder, names[:few], folder / "few.p"))
        return (seconds(lambda: extract_features(encoder, folder, names, folder / "all.p")) - start) / (count - few)


def bare_xception() -> float:
    """Of one image in a batch of 32, its pixels in memory: nothing but the network, as Keras has it."""
    return _bare("xception")


def bare_bundled() -> float:
    return _bare("bundled")


def ancestors_script() -> float:
    """From nothing to the caption of one photo."""
    from benchmarks.ancestors import define_model

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        [photo] = draw_photos(folder, 1)
        define_model(FEATURE_SIZE, VOCABULARY, LONGEST + 2).save(folder / "model_9.keras")
        return _python("-m", "benchmarks.tasks", "_ancestors_script", photo, folder / "model_9.keras")


def _ancestors_script(photo: str, model: str) -> None:
    import keras

    from benchmarks.ancestors import extract_features, generate_tokens

    encoder = keras.applications.Xception(include_top=False, pooling="avg", weights=None)
    [vector] = extract_features(encoder, [photo]).values()
    generate_tokens(keras.models.load_model(model), vector[0], 1, WORDS + 1, LONGEST + 2)


def project_script() -> float:
    with tempfile.TemporaryDirectory() as folder:
        return _script(draw_photos(Path(folder), 1)[0])


def import_tensorflow() -> float:
    return _python("-c", "import tensorflow")


def project_folder(count: int = 1000) -> float:
    """Of one photo among a thousand: the script's time for all, without its time for one."""
    with tempfile.TemporaryDirectory() as folder:
        photos = draw_photos(Path(folder), count)
        return (_script(folder) - _script(photos[0])) / (count - 1)


def _script(image: str | Path) -> float:
    from caption_generator.workspace import ROOT

    return _python(ROOT / "testing_caption_generator.py", "-i", image)


def _python(*arguments: str | Path) -> float:
    return seconds(lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True))


def _bare(encoder: str) -> float:
    import tensorflow as tf

    from caption_generator.checkpoint import load_encoder

    network = load_encoder(encoder, weights=None).backbone
    forward = tf.function(lambda pixels: network(pixels, training=False), autograph=False)
    pixels = tf.random.uniform((32, *network.input.shape[1:]), -1, 1)
    return median_seconds(lambda: forward(pixels).numpy()) / 32


def main() -> None:
    [task] = sys.argv[1:2]
    if not task.startswith(("ancestors", "_ancestors")):  # they have TensorFlow as it comes
        from caption_generator.common.console import load_tensorflow

        load_tensorflow()
    if result := globals()[task](*sys.argv[2:]):
        print(result)


if __name__ == "__main__":
    main()
