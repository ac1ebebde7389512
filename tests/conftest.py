"""What several test files need: a drawn dataset, the real one where it is there, and the smallest of networks."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# Before anything imports TensorFlow. With one thread, sums are added up in the same order each time, and two processes
# share two cores.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

from caption_generator.captions import SPLIT_FILES
from caption_generator.workspace import Workspace

COLOURS = ("red", "green", "blue", "yellow", "black", "white", "purple", "orange", "pink", "brown", "grey", "cyan")
NAMES = [f"{number:02}_{colour}.jpg" for number, colour in enumerate(COLOURS)]
SPLIT_SIZES = {"train": 8, "dev": 2, "test": 2}


@pytest.fixture(autouse=True)
def _no_settings_of_the_developer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAPTION_WORKSPACE", raising=False)
    monkeypatch.delenv("CAPTION_OUTPUTS", raising=False)
    monkeypatch.delenv("CAPTION_SYSTEM", raising=False)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A Flickr8k in small: 12 noisy coloured JPEGs, five raw captions of each, the three split files (8, 2 and 2)."""
    inputs = tmp_path / "workspace"
    images, texts = inputs / "Flickr8k_Dataset", inputs / "Flickr8k_text"
    images.mkdir(parents=True)
    texts.mkdir()
    random = np.random.default_rng(0)
    lines = []
    for name, colour in zip(NAMES, COLOURS, strict=True):
        ground = np.asarray(Image.new("RGB", (64, 48), colour), np.int16)
        noisy = (ground + random.integers(-20, 21, ground.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(images / name)
        lines += [
            f"{name}#0\tA {colour} wall .",
            f"{name}#1\tThe wall is {colour} .",
            f"{name}#2\tA picture of a {colour} wall",
            f"{name}#3\tThis wall , again , is {colour} !",
            f"{name}#4\tSomeone painted the wall {colour} .",
        ]
    (texts / "Flickr8k.token.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    first = 0
    for split, size in SPLIT_SIZES.items():
        (texts / SPLIT_FILES[split]).write_text("".join(f"{name}\n" for name in NAMES[first : first + size]))
        first += size
    return Workspace(inputs, inputs)


@pytest.fixture
def shared() -> Path:
    """Real data that few machines have: Flickr8k, ImageNet weights and files of older projects."""
    folder = os.environ.get("CAPTION_SHARED")
    if not folder:
        pytest.skip("CAPTION_SHARED does not name a folder with the real dataset and ImageNet weights")
    return Path(folder).resolve()


@pytest.fixture(scope="module")
def eager() -> Iterator[None]:
    """For modules that train for a few steps. Others train in graphs, as users do."""
    from tests.helpers import eagerly

    with eagerly():
        yield


@pytest.fixture
def keras_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for what Keras downloads."""
    from keras.src.backend import config

    folder = tmp_path / "keras"
    folder.mkdir()
    monkeypatch.setenv("KERAS_HOME", str(folder))
    monkeypatch.setattr(config, "_KERAS_DIR", str(folder))  # Keras reads the variable once, when it is imported
    return folder


@pytest.fixture
def tiny_encoder():
    """An encoder of 16 x 16 pixels to 6 features; its weights are random."""
    import keras

    from caption_generator.encoders import Encoder, EncoderRow

    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    convolution = keras.layers.Conv2D(6, 3, strides=2, activation="relu", bias_initializer="normal")
    backbone = keras.Model(inputs, convolution(inputs))
    pixels = keras.Input((16, 16, 3), name="pixels")
    preprocessed = keras.applications.mobilenet_v2.preprocess_input(pixels)
    mean = keras.layers.GlobalAveragePooling2D()(backbone(preprocessed, training=False))
    model = keras.Model(pixels, mean, name="encoder")
    return Encoder(EncoderRow("tiny", "Tiny", "mobilenet_v2", 16, 6), "avg", model, backbone, preprocessed)


@pytest.fixture
def tokenizer():
    """20 tokens, four of them special: `w00` to `w15`; captions of at most 6 words."""
    from caption_generator.tokenizer import SPECIAL_TOKENS, Tokenizer

    return Tokenizer([*SPECIAL_TOKENS, *(f"w{number:02}" for number in range(16))], max_length=6)


@pytest.fixture
def decoder():
    """The merge decoder with 6 features, 20 words (those of `tokenizer`) and 8 units; its weights are random."""
    import keras

    from caption_generator.decoders import DecoderSpec, build_decoder

    keras.utils.set_random_seed(0)
    return build_decoder(DecoderSpec("merge", feature_size=6, vocabulary_size=20, units=8, embedding_size=8, hidden=8))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """A folder of seven coarse pictures of 64 x 64 pixels, `0.png` to `6.png`."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for number in range(7):
        coarse = Image.fromarray(random.integers(256, size=(4, 4, 3)).astype(np.uint8))
        coarse.resize((64, 64), Image.Resampling.NEAREST).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def untrained():
    """A function: the name of a decoder in, and out an untrained checkpoint, which is the same each time.

    The encoder in it can be split, and has few late layers, for they take long to build. The words are `w00` to `w15`.
    """
    import keras

    from caption_generator.checkpoint import Checkpoint
    from caption_generator.decoders import DECODERS, DecoderSpec, build_decoder
    from caption_generator.encoders import ENCODERS, EncoderRow, build_encoder
    from caption_generator.tokenizer import SPECIAL_TOKENS, Tokenizer

    row = EncoderRow("split", "MobileNet", "mobilenet", 128, 256, "conv_pw_11_relu", (("alpha", 0.25),))
    words = Tokenizer([*SPECIAL_TOKENS, *(f"w{number:02}" for number in range(16))], max_length=6)

    def build(name: str) -> Checkpoint:
        keras.utils.set_random_seed(4)
        encoder = build_encoder("split", weights=None, pooling=DECODERS[name].pooling)
        random = np.random.default_rng(4)
        for layer in encoder.backbone.layers:  # as they are drawn, the signal dies away from layer to layer
            if isinstance(layer, keras.layers.DepthwiseConv2D):
                layer.set_weights([random.normal(0, 0.6, layer.kernel.shape)])
        decoder = build_decoder(DecoderSpec(name, 256, len(words), units=8, embedding_size=8, hidden=8))
        return Checkpoint(decoder, words, encoder.identity, encoder, training={"dataset": "drawn"})

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, row.name, row)
        yield build


@pytest.fixture
def classifier():
    """An ImageNet classifier for which each class is a number of the features; see `helpers.photo_of`."""
    from caption_generator.inference.imagenet_classifier import ImageNetClassifier

    return ImageNetClassifier(np.eye(1000, dtype=np.float32) * 20, np.zeros(1000, np.float32))
