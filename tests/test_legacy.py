"""What people bring from Keras 2 becomes this project's own, number for number, and nothing that it names is run."""

import builtins
import functools
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections import OrderedDict, defaultdict
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import h5py
import keras
import numpy as np
import pytest
import tf_keras
from tf_keras.preprocessing.text import Tokenizer as KerasTokenizer

from caption_generator import checkpoint
from caption_generator.captioner import Captioner
from caption_generator.checkpoint import load_checkpoint, save_checkpoint
from caption_generator.common.errors import CaptionError
from caption_generator.encoders import ENCODERS, EncoderIdentity, EncoderRow, build_encoder
from caption_generator.features import load_features, save_features
from caption_generator.legacy import __main__ as command
from caption_generator.legacy.features import read_features
from caption_generator.legacy.merge_model import read_merge_model
from caption_generator.legacy.pickles import Vocabulary, read_tokenizer
from caption_generator.search import BeamSearch
from caption_generator.tokenizer import SPECIAL_TOKENS, START, UNKNOWN, Tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")

ROOT = Path(__file__).resolve().parent.parent
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
TEXTS = [f"startseq {text} endseq" for text in ("the dog runs", "the dog jumps", "a dog", "the end", "red car runs by")]
NUMBERS = {"startseq": 1, "endseq": 2, "dog": 3, "the": 4, "start": 5, "end": 6, "runs": 7}
IDENTITY = EncoderIdentity("xception", 299, "xception", 6, "0123456789ab")
SMALL = EncoderRow("xception", "MobileNet", "mobilenet", 64, 256, "conv_pw_5_relu", (("alpha", 0.25),))
LENGTH = 9  # of the prefixes that the models here read
MODULES = (
    "keras_preprocessing.text",
    "keras.preprocessing.text",
    "keras.src.preprocessing.text",
    "keras.src.legacy.preprocessing.text",
    "tensorflow.keras.preprocessing.text",
    "tensorflow.python.keras.preprocessing.text",
    "tf_keras.src.preprocessing.text",
)


def fit(texts=TEXTS, **options) -> KerasTokenizer:
    tokenizer = KerasTokenizer(**options)
    tokenizer.fit_on_texts(texts)
    return tokenizer


def tokenizer_of(module: str, monkeypatch, **attributes):
    """An object that pickles itself as the Tokenizer of that module."""
    parts = module.split(".")
    for name in (".".join(parts[: end + 1]) for end in range(len(parts))):
        if name not in sys.modules:
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
    made_up = type("Tokenizer", (), {"__module__": module})
    monkeypatch.setattr(sys.modules[module], "Tokenizer", made_up, raising=False)
    tokenizer = made_up()
    tokenizer.__dict__ |= attributes
    return tokenizer


class Python2Pickler(pickle._Pickler):
    """Writes text as Python 2 did: as bytes."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)
    encoding = "utf-8"

    def save_text(self, value):
        raw = value.encode(self.encoding) if isinstance(value, str) else value
        if self.proto == 0:
            self.write(b"S" + repr(raw)[1:].encode() + b"\n")
        else:
            self.write(b"T" + len(raw).to_bytes(4, "little") + raw)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_text


class Python2OrderedDict(OrderedDict):
    def __reduce__(self):
        return OrderedDict, ([list(item) for item in self.items()],)


def dump_as_python_2(value, path: Path, protocol: int, encoding: str = "utf-8") -> None:
    with open(path, "wb") as file:
        pickler = Python2Pickler(file, protocol)
        pickler.encoding = encoding
        pickler.dump(value)
    stored = path.read_bytes()
    for new, old in ((b"cnumpy._core.", b"cnumpy.core."), (b"c__builtin__\nlong\n", b"c__builtin__\nint\n")):
        stored = stored.replace(new, old)
    path.write_bytes(stored)


def dump(value, path: Path, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


def refusal(function, *arguments) -> str:
    """The sentence with which `function` refuses."""
    with pytest.raises(CaptionError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


def assert_is(vocabulary, numbers: dict[str, int], start: str, end: str, unknown: str = "") -> None:
    """`vocabulary` has the words of `numbers`, their order, and tells where each was."""
    words = vocabulary.tokenizer.words
    assert tuple(words[:4]) == SPECIAL_TOKENS
    ordinary = sorted(set(numbers) - {start, end, unknown}, key=lambda word: numbers[word])
    assert words[4:] == ordinary
    assert vocabulary.theirs.tolist() == [0, *(numbers.get(word, 0) for word in (start, end, unknown, *ordinary))]
    assert vocabulary.size == len(numbers) + 1


# The tokenizer


@pytest.mark.parametrize(("name", "size"), [("Karan14-11", 7577), ("akd15102091", 7319)])
def test_the_ancestors_own_tokenizers_are_taken_over(shared, name, size):
    vocabulary = read_tokenizer(shared / "ancestors" / f"{name}_tokenizer.p")
    assert vocabulary.size == size
    assert vocabulary.theirs.tolist() == [0, 2, 1, 0, *range(3, size)]
    assert vocabulary.tokenizer.words[:9] == [*SPECIAL_TOKENS, "in", "the", "on", "is", "and"]
    assert len(vocabulary.tokenizer) == size + 1  # <unk>, which theirs has not
    assert vocabulary.tokenizer.max_length == 32
    assert vocabulary.tokenizer.decode(vocabulary.tokenizer.encode("a dog is in the xylophone")) == "dog is in the"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_true_keras_2_tokenizer_of_every_protocol_is_taken_over(tmp_path, protocol):
    theirs = fit()
    vocabulary = read_tokenizer(dump(theirs, tmp_path / "tokenizer.p", protocol), max_length=11)
    assert_is(vocabulary, theirs.word_index, "startseq", "endseq")
    assert vocabulary.tokenizer.max_length == 11
    [numbers] = theirs.texts_to_sequences(["startseq red dog runs endseq"])
    assert vocabulary.theirs[vocabulary.tokenizer.encode("red dog runs")].tolist() == numbers


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("module", [*MODULES, "of_which_nobody_heard.preprocessing.text"])
def test_the_tokenizer_may_be_of_any_module_that_it_ever_was_in(tmp_path, monkeypatch, module, protocol):
    counts = {"word_counts": OrderedDict(dog=2, the=1), "word_docs": defaultdict(int, dog=2)}
    path = tmp_path / "tokenizer.p"
    with monkeypatch.context() as patch:
        dump(tokenizer_of(module, patch, word_index=NUMBERS, num_words=None, **counts), path, protocol)
    known = set(sys.modules)
    assert_is(read_tokenizer(path), NUMBERS, "startseq", "endseq")
    assert set(sys.modules) == known  # nothing was imported


@pytest.mark.parametrize("encoding", ["utf-8", "latin1"])
@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_a_tokenizer_of_python_2_is_taken_over(tmp_path, monkeypatch, protocol, encoding):
    numbers = NUMBERS | {"caf\u00e9": 8}
    attributes = {"word_index": numbers, "word_counts": Python2OrderedDict(dog=2), "word_docs": defaultdict(int, dog=2)}
    theirs = tokenizer_of("keras.preprocessing.text", monkeypatch, **attributes)
    dump_as_python_2(theirs, tmp_path / "tokenizer.p", protocol, encoding)
    stored = (tmp_path / "tokenizer.p").read_bytes()
    assert b"ccollections\nOrderedDict" in stored
    assert b"c__builtin__\nint" in stored
    assert (b"ccopy_reg\n_reconstructor" in stored) == (protocol < 2)
    assert_is(read_tokenizer(tmp_path / "tokenizer.p"), numbers, "startseq", "endseq")


@pytest.mark.parametrize(
    ("words", "marks"),
    [
        (("start", "end", "startseq", "endseq"), ("startseq", "endseq")),
        (("start", "end", "startseq"), ("start", "end")),
        (("<start>", "<end>", "start", "end"), ("<start>", "<end>")),
        (("end", "start"), ("start", "end")),
    ],
)
def test_the_marks_become_start_and_end_and_an_ordinary_start_stays_a_word(tmp_path, monkeypatch, words, marks):
    numbers = {word: number for number, word in enumerate([*words, "dog"], 1)}
    theirs = tokenizer_of(MODULES[0], monkeypatch, word_index=numbers)
    assert_is(read_tokenizer(dump(theirs, tmp_path / "tokenizer.p")), numbers, *marks)


@pytest.mark.parametrize("oov", ["UNK", "<unk>"])
def test_the_word_for_unknown_words_becomes_unk(tmp_path, oov):
    theirs = fit(oov_token=oov)
    assert theirs.word_index[oov] == 1
    assert_is(read_tokenizer(dump(theirs, tmp_path / "tokenizer.p")), theirs.word_index, "startseq", "endseq", oov)


def test_no_word_is_spelled_like_a_special_token(tmp_path, monkeypatch):
    numbers = NUMBERS | {"<unk>": 8, "<pad>": 9, "cat": 10}
    theirs = tokenizer_of(MODULES[0], monkeypatch, word_index=numbers, oov_token=None)
    vocabulary = read_tokenizer(dump(theirs, tmp_path / "tokenizer.p"))
    assert vocabulary.tokenizer.words == [*SPECIAL_TOKENS, "dog", "the", "start", "end", "runs", "cat"]
    assert vocabulary.theirs.tolist() == [0, 1, 2, 8, 3, 4, 5, 6, 7, 10]
    assert vocabulary.size == 11


@pytest.mark.parametrize("words", [("dog",), ("startseq", "dog"), ("start", "endseq"), ()])
def test_words_without_marks_are_refused(tmp_path, monkeypatch, words):
    theirs = tokenizer_of(MODULES[0], monkeypatch, word_index={word: n for n, word in enumerate(words, 1)})
    path = dump(theirs, tmp_path / "tokenizer.p")
    message = refusal(read_tokenizer, path)
    assert str(path) in message and "startseq" in message and "notebook 3" in message


@pytest.mark.parametrize(
    "numbers",
    [
        None,
        ["startseq", "endseq"],
        NUMBERS | {"cat": 9},
        NUMBERS | {"cat": 7},
        NUMBERS | {"cat": 0},
        NUMBERS | {"cat": 8.0},
        NUMBERS | {"cat": "8"},
        NUMBERS | {"startseq": True},
        NUMBERS | {8: 8},
    ],
    ids=["none", "list", "hole", "twice", "zero", "float", "text", "bool", "no word"],
)
def test_words_that_are_not_numbered_from_1_are_refused(tmp_path, monkeypatch, numbers):
    theirs = tokenizer_of(MODULES[0], monkeypatch, word_index=numbers)
    path = dump(theirs, tmp_path / "tokenizer.p")
    message = refusal(read_tokenizer, path)
    assert str(path) in message and "word_index" in message and "notebook 3" in message


@pytest.mark.parametrize("state", [None, [1, 2], ({}, {"x": 1})])
def test_a_tokenizer_without_attributes_is_refused(tmp_path, state):
    path = tmp_path / "tokenizer.p"
    built = b"" if state is None else pickle.dumps(state, 2)[2:-1] + b"b"
    path.write_bytes(b"\x80\x02ckeras.preprocessing.text\nTokenizer\n)\x81" + built + b".")
    assert f"{path} does not hold a Keras Tokenizer" in refusal(read_tokenizer, path)


# Nothing is run


class Calls:
    """Pickles itself as a call, as an attacker would."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def attacks(witness: Path) -> dict:
    code = f"open({str(witness)!r}, 'w')"
    return {
        "system": (Calls(os.system, f"touch {witness}"), f"{os.name}.system"),
        "eval": (Calls(builtins.eval, code), "eval"),
        "exec": (Calls(builtins.exec, code), "exec"),
        "open": (Calls(builtins.open, str(witness), "w"), "io.open"),
        "getattr": (Calls(builtins.getattr, "", "join"), "getattr"),
        "import": (Calls(builtins.__import__, "os"), "__import__"),
        "partial": (functools.partial(os.system, f"touch {witness}"), "functools.partial"),
        "savetxt": (Calls(np.savetxt, str(witness), [1.0]), "savetxt"),
        "defaultdict": (defaultdict(os.getcwd), "getcwd"),
    }


# Pairwise: each attack in each place, and each protocol with each attack and in each place.
@pytest.mark.parametrize(
    ("name", "where", "protocol"),
    [
        (name, where, (0, 2, 5)[(row + column) % 3])
        for row, name in enumerate(attacks(Path("x")))
        for column, where in enumerate(("alone", "attribute", "word", "vector"))
    ],
)
def test_what_a_pickle_calls_is_refused_by_name_before_the_call(tmp_path, monkeypatch, name, protocol, where):
    witness = tmp_path / "executed"
    attack, named = attacks(witness)[name]
    module = "keras.preprocessing.text"
    if where == "attribute":
        attack = tokenizer_of(module, monkeypatch, word_index=NUMBERS, analyzer=attack)
    elif where == "word":
        attack = tokenizer_of(module, monkeypatch, word_index={"dog": attack})
    elif where == "vector":
        attack = {"a.jpg": np.zeros((1, 6), np.float32), "b.jpg": attack}
    path = dump(attack, tmp_path / "attack.p", protocol)
    for read in (read_tokenizer, lambda path: read_features(path, IDENTITY)):
        message = refusal(read, path)
        assert "attack.p" in message and named in message and "not plain data" in message
    assert not witness.exists()


def test_the_attacks_of_these_tests_work_on_plain_pickle(tmp_path):
    pickle.loads(pickle.dumps(attacks(tmp_path / "executed")["system"][0]))
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("keras.preprocessing.text", "Tokenizer.__init__"),
        ("keras.preprocessing.text", "Tokenizer.__setstate__.__globals__"),
        ("keras.preprocessing.text", "text_to_word_sequence"),
        ("keras.preprocessing.sequence", "Tokenizer"),
        ("os.preprocessing.text", "system"),
        ("os", "Tokenizer"),
        ("collections", "OrderedDict.fromkeys"),
        ("collections", "_sys.modules"),
        ("collections", "Counter"),
        ("copyreg", "pickle"),
        ("copyreg", "__newobj__"),
        ("builtins", "int.from_bytes"),
        ("builtins", "type"),
        ("caption_generator.legacy.pickles", "_OldTokenizer"),
        ("caption_generator.common.errors", "CaptionError"),
    ],
)
def test_names_that_hide_behind_those_that_are_known_are_refused(tmp_path, module, name):
    texts = (b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name))
    (tmp_path / "attack.p").write_bytes(b"\x80\x04" + b"".join(texts) + b"\x93)R.")  # its global, called
    message = refusal(read_tokenizer, tmp_path / "attack.p")
    assert f"{module}.{name}" in message and "not plain data" in message


def test_a_pickle_cannot_give_the_tokenizer_methods(tmp_path):
    """Unpickling sets attributes by `__setstate__` if there is one: it must not be one that the pickle brought."""
    path = tmp_path / "tokenizer.p"
    method = b"}U\x0c__setstate__c__builtin__\nint\nsb"
    attributes = pickle.dumps({"word_index": NUMBERS}, 2)[2:-1] + b"b"
    path.write_bytes(b"\x80\x02ckeras.preprocessing.text\nTokenizer\n)\x81" + method + attributes + b".")
    assert_is(read_tokenizer(path), NUMBERS, "startseq", "endseq")


@pytest.mark.parametrize("content", [b"", b"hello, I am a text", b"\xff\xd8\xff\xe0 a photo", b"\x80\x04."])
def test_a_file_that_is_no_pickle_is_one_sentence(tmp_path, content):
    (tmp_path / "old.p").write_bytes(content)
    for message in (refusal(read_tokenizer, tmp_path / "old.p"), refusal(read_features, tmp_path / "old.p", IDENTITY)):
        assert "old.p" in message and "name another file" in message


def test_a_torn_tokenizer_is_one_sentence(tmp_path):
    path = dump(fit(), tmp_path / "tokenizer.p")
    path.write_bytes(path.read_bytes()[:-20])
    assert "tokenizer.p" in refusal(read_tokenizer, path)


def test_a_missing_file_and_a_folder_are_one_sentence(tmp_path):
    assert "tokenizer.p does not exist" in refusal(read_tokenizer, tmp_path / "tokenizer.p")
    assert "features.p does not exist" in refusal(read_features, tmp_path / "features.p", IDENTITY)
    assert f"cannot read {tmp_path}" in refusal(read_tokenizer, tmp_path)


# The features


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 6), (6,)])
def test_vectors_of_every_shape_and_kind_are_taken_over(tmp_path, shape, dtype, protocol):
    vectors = np.random.default_rng(0).normal(size=(3, *shape)).astype(dtype)
    names = ["1000268201_693b08cb0e.jpg", "1001773457_577c3a7d70", "2258277193_586949ec62.jpg.1"]
    path = dump(dict(zip(names, vectors, strict=True)), tmp_path / "features.p", protocol)
    found = read_features(path, IDENTITY)
    assert list(found.vectors) == [names[0], f"{names[1]}.jpg", names[2]]
    assert found.encoder == IDENTITY
    for vector, expected in zip(found.vectors.values(), vectors, strict=True):
        assert (vector.dtype, vector.shape) == (np.float32, (6,))
        np.testing.assert_array_equal(vector, expected.reshape(6).astype(np.float32))
    save_features(found, tmp_path / "own.p")
    again = load_features(tmp_path / "own.p")
    assert again.encoder == IDENTITY
    np.testing.assert_array_equal(again.matrix(list(found.vectors)), vectors.reshape(3, 6).astype(np.float32))


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_features_of_python_2_are_taken_over(tmp_path, protocol):
    vectors = {f"{number}.jpg": np.random.default_rng(number).normal(size=(1, 2048)) for number in range(3)}
    vectors = {name: vector.astype(np.float32) for name, vector in vectors.items()} | {"0": np.zeros((1, 2048))}
    dump_as_python_2(vectors, tmp_path / "features.p", protocol)
    assert b"cnumpy.core.multiarray" in (tmp_path / "features.p").read_bytes()
    found = read_features(tmp_path / "features.p", EncoderIdentity("xception", 299, "xception", 2048, "ab"))
    assert list(found.vectors) == ["0.jpg", "1.jpg", "2.jpg"]
    np.testing.assert_array_equal(found.vectors["1.jpg"], vectors["1.jpg"][0])


def test_vectors_of_another_length_are_refused_by_both_lengths(tmp_path):
    vectors = {"a.jpg": np.zeros((1, 6), np.float32), "b.jpg": np.zeros((1, 4096), np.float32)}
    message = refusal(read_features, dump(vectors, tmp_path / "features.p"), IDENTITY)
    assert "features.p" in message and "b.jpg" in message and "--encoder" in message
    assert "4096" in message and "xception makes 6" in message


@pytest.mark.parametrize(
    "value",
    [
        {},
        [np.zeros(6)],
        {"a.jpg": [0.5] * 6},
        {"a.jpg": np.zeros((2, 6))},
        {"a.jpg": np.zeros((6, 1))},
        {"a.jpg": np.zeros((1, 1, 6))},
        {"a.jpg": np.float32(1)},
        {"a.jpg": np.zeros(6, np.int64)},
        {"a.jpg": np.array(["a"] * 6)},
        {1: np.zeros(6)},
        {"word_index": NUMBERS},
    ],
    ids=[
        *("empty", "list", "lists", "two rows", "a column", "three axes", "number", "integers", "texts", "no name"),
        "another dictionary",
    ],
)
def test_what_holds_no_vectors_is_refused(tmp_path, value):
    message = refusal(read_features, dump(value, tmp_path / "features.p"), IDENTITY)
    assert "features.p does not hold a feature vector for each image name" in message


def test_features_are_no_tokenizer_and_a_tokenizer_is_no_features(tmp_path):
    features = dump({"a.jpg": np.zeros((1, 6), np.float32)}, tmp_path / "features.p")
    assert "features.p does not hold a Keras Tokenizer" in refusal(read_tokenizer, features)
    tokenizer = dump(fit(), tmp_path / "tokenizer.p")
    assert "tokenizer.p does not hold a feature vector" in refusal(read_features, tokenizer, IDENTITY)


# The model


def merge_model(library, size: int, features: int = 6, **changes):
    """The ancestors' merge model in Keras 2 (`tf_keras`) or Keras 3 (`keras`), small, with random weights.

    Args:
        changes: options of the layers called features_dense, embedding, lstm, hidden and next_word.
    """
    options = {name: changes.get(name, {}) for name in ("features_dense", "embedding", "lstm", "hidden", "next_word")}
    layers = library.layers
    image = layers.Input((features,))
    seen = layers.Dense(**{"units": 8, "activation": "relu"} | options["features_dense"])(layers.Dropout(0.5)(image))
    prefix = layers.Input((LENGTH,))
    words = layers.Embedding(size, **{"output_dim": 5, "mask_zero": True} | options["embedding"])(prefix)
    read = layers.LSTM(**{"units": 8, "name": "lstm_of_words"} | options["lstm"])(layers.Dropout(0.5)(words))
    both = layers.add([seen, read])
    hidden = layers.Dense(**{"units": 7, "activation": "relu", "name": "hidden"} | options["hidden"])(both)
    word = layers.Dense(size, **{"activation": "softmax", "name": "word"} | options["next_word"])(hidden)
    return shaken(library.Model([image, prefix], word))


def shaken(model):
    """The model with random weights by which its captions vary. Padding and the starting mark are as unlikely as after
    training."""
    random = np.random.default_rng(40)
    for layer in sorted(model.layers, key=lambda layer: str([weight.shape for weight in layer.get_weights()])):
        layer.set_weights([random.normal(0, 1.2, weight.shape) for weight in layer.get_weights()])
    kernel, bias = model.layers[-1].get_weights()
    bias[[0, NUMBERS["startseq"]]] = -8
    bias[NUMBERS["endseq"]] += 2
    model.layers[-1].set_weights([kernel, bias])
    model.compile(loss="categorical_crossentropy", optimizer="adam")
    return model


@pytest.fixture(scope="module")
def numbers() -> dict[str, int]:
    return NUMBERS | {f"w{number}": number for number in range(8, 20)}


@pytest.fixture(scope="module")
def vocabulary(numbers, tmp_path_factory) -> Vocabulary:
    """Of 19 words, as the ancestors number them."""
    theirs = KerasTokenizer()
    theirs.word_index = numbers
    return read_tokenizer(dump(theirs, tmp_path_factory.mktemp("tokenizer") / "tokenizer.p"))


@pytest.fixture(scope="module", params=[(tf_keras, "sigmoid"), (tf_keras, "hard_sigmoid"), (keras, "sigmoid")])
def theirs(request, tmp_path_factory, numbers):
    """A model of theirs, of Keras 2 or 3, and the file that it was saved to."""
    library, gates = request.param
    model = merge_model(library, len(numbers) + 1, lstm={"recurrent_activation": gates})
    path = tmp_path_factory.mktemp("models") / "model_9.h5"
    model.save(path)
    return model, path


@pytest.fixture(scope="module")
def saved(tmp_path_factory, numbers) -> bytes:
    """The file of a model of Keras 2."""
    path = tmp_path_factory.mktemp("models") / "model_9.h5"
    merge_model(tf_keras, len(numbers) + 1).save(path)
    return path.read_bytes()


@pytest.fixture
def path(tmp_path, saved) -> Path:
    """A copy of it, to be changed."""
    copy = tmp_path / "model_9.h5"
    copy.write_bytes(saved)
    return copy


def edit_config(path: Path, change) -> None:
    """Let `change` loose on the description of the model: on it all, and on its layers by their class, of a Dense with
    the activation."""
    with h5py.File(path, "a") as file:
        described = json.loads(file.attrs["model_config"])
        layers = {}
        for layer in described["config"]["layers"]:
            layers[layer["class_name"] + layer["config"].get("activation", "") * (layer["class_name"] == "Dense")] = (
                layer
            )
        change(described, layers)
        file.attrs["model_config"] = json.dumps(described).encode()


def features_of(images: int) -> np.ndarray:
    return np.random.default_rng(2).normal(size=(images, 6)).astype(np.float32)


def probabilities_of_theirs(model, vector: np.ndarray, prefix: list[int]) -> np.ndarray:
    padded = keras.utils.pad_sequences([prefix], maxlen=LENGTH)
    return np.asarray(model.predict_on_batch([vector[None], padded]))[0]


def caption_of_theirs(model, numbers: dict[str, int], vector: np.ndarray) -> str:
    """The loop over words of the ancestors' notebooks, for as many words as here."""
    words = {number: word for word, number in numbers.items()}
    text = "startseq"
    for _ in range(LENGTH - 2):
        prefix = [numbers[word] for word in text.split()]
        word = words[int(np.argmax(probabilities_of_theirs(model, vector, prefix)))]
        if word == "endseq":
            break
        text += f" {word}"
    return text.removeprefix("startseq").strip()


def test_every_word_is_as_probable_as_it_was(theirs, vocabulary, numbers):
    model, path = theirs
    own = read_merge_model(path, vocabulary, IDENTITY).decoder
    tokens = np.array([[START, 9, 4, 20, 7, 6, 5, 12]])  # as many as theirs can read before a last word
    for vector in features_of(3):
        found = keras.ops.softmax(own.model([vector[None], tokens]))[0]
        for position in range(tokens.shape[1]):
            prefix = vocabulary.theirs[tokens[0, : position + 1]].tolist()
            expected = probabilities_of_theirs(model, vector, prefix)[vocabulary.theirs]
            expected[UNKNOWN] = 0  # which theirs has not
            np.testing.assert_allclose(found[position], expected, rtol=1e-4, atol=1e-7)
            assert found[position, UNKNOWN] < 1e-9


def test_every_greedy_caption_is_the_one_that_it_was(theirs, vocabulary, numbers):
    model, path = theirs
    taken_over = read_merge_model(path, vocabulary, IDENTITY)
    vectors = features_of(12)
    expected = [caption_of_theirs(model, numbers, vector) for vector in vectors]
    assert len(set(expected)) > 5
    lengths = {len(caption.split()) for caption in expected}
    assert len(lengths) > 2 and min(lengths) < max(lengths) == LENGTH - 2  # some end, some have no room for more
    search = BeamSearch(taken_over.decoder, taken_over.tokenizer, beam=1, no_repeat=0)
    assert [found.text for [found] in search(vectors)] == expected


def test_the_sizes_are_those_of_the_file(theirs, vocabulary):
    model, path = theirs
    spec = read_merge_model(path, vocabulary, IDENTITY).decoder.spec
    cells = {"sigmoid": "lstm", "hard_sigmoid": "lstm-hard"}
    assert spec.cell == cells[model.get_layer("lstm_of_words").recurrent_activation.__name__]
    assert (spec.name, spec.feature_size, spec.vocabulary_size) == ("merge", 6, 21)
    assert (spec.units, spec.embedding_size, spec.hidden) == (8, 5, 7)


def test_a_word_for_unknown_words_keeps_what_was_learned_of_it(theirs, numbers, tmp_path):
    model, path = theirs
    tokenizer = KerasTokenizer(oov_token="w9")
    tokenizer.word_index = numbers
    vocabulary = read_tokenizer(dump(tokenizer, tmp_path / "tokenizer.p"))
    own = read_merge_model(path, vocabulary, IDENTITY).decoder
    [vector] = features_of(1)
    found = keras.ops.softmax(own.model([vector[None], np.array([[START, UNKNOWN]])]))[0]
    for position, prefix in enumerate(([1], [1, 9])):
        expected = probabilities_of_theirs(model, vector, prefix)[vocabulary.theirs]
        assert expected[UNKNOWN] > 1e-6
        np.testing.assert_allclose(found[position], expected, rtol=1e-4, atol=1e-7)


def test_the_checkpoint_says_where_it_comes_from_and_can_be_saved(theirs, vocabulary, tmp_path):
    _, path = theirs
    taken_over = read_merge_model(path, vocabulary, IDENTITY)
    save_checkpoint(taken_over, tmp_path / "own.h5")
    found = load_checkpoint(tmp_path / "own.h5")
    assert found.training == {"dataset": "", "converted_from": "model_9.h5"}
    assert found.encoder_identity == IDENTITY and found.encoder is None
    assert found.tokenizer.to_dict() == {"words": vocabulary.tokenizer.words, "max_length": LENGTH - 2}
    for one, other in zip(found.decoder.model.get_weights(), taken_over.decoder.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def with_room(words):
    def change(described, _):
        for layer in described["config"]["layers"]:
            if layer["class_name"] == "InputLayer" and layer["config"]["batch_input_shape"] != [None, 6]:
                layer["config"]["batch_input_shape"] = [None, words]

    return change


def test_the_longest_caption_is_what_the_caller_says_else_what_the_model_has_room_for(path, vocabulary):
    assert read_merge_model(path, vocabulary, IDENTITY, 30).tokenizer.max_length == 30
    assert read_merge_model(path, vocabulary, IDENTITY).tokenizer.max_length == LENGTH - 2
    edit_config(path, with_room(None))
    assert read_merge_model(path, vocabulary, IDENTITY).tokenizer.max_length == vocabulary.tokenizer.max_length == 32
    edit_config(path, with_room(2))
    assert "room for 2" in refusal(read_merge_model, path, vocabulary, IDENTITY)


def as_keras_2_0(described, layers):
    """What the first Keras 2 wrote otherwise."""
    described["class_name"] = "Model"
    described["keras_version"] = "2.0.8"
    for layer in described["config"]["layers"]:
        for name in ("module", "registered_name", "build_config"):
            layer.pop(name, None)
        for name in ("dtype", "ragged"):
            layer["config"].pop(name, None)
    for name in ("time_major", "zero_output_for_mask"):
        layers["LSTM"]["config"].pop(name, None)


def as_merge(described, layers):
    layers["Add"]["class_name"] = "Merge"
    layers["Add"]["config"] |= {"mode": "sum", "concat_axis": -1, "dot_axes": -1}


def with_short_nodes(described, layers):
    """As some tf.keras wrote a layer that reads one other."""
    for layer in described["config"]["layers"]:
        if len(layer["inbound_nodes"]) == 1 and len(layer["inbound_nodes"][0]) == 1:
            layer["inbound_nodes"] = layer["inbound_nodes"][0]


@pytest.mark.parametrize("change", [as_keras_2_0, as_merge, with_short_nodes])
def test_what_other_versions_of_keras_wrote_is_the_same_model(change, path, vocabulary):
    expected = read_merge_model(path, vocabulary, IDENTITY).decoder
    with h5py.File(path, "r") as file:
        before = file.attrs["model_config"]
    edit_config(path, change)
    with h5py.File(path, "r") as file:
        assert file.attrs["model_config"] != before
    found = read_merge_model(path, vocabulary, IDENTITY).decoder
    assert found.spec == expected.spec
    for one, other in zip(found.model.get_weights(), expected.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("old_name", ["lstm_1/kernel:0", "lstm_1/lstm_cell_3/kernel:0", "kernel"])
def test_the_weights_may_have_any_names(old_name, path, vocabulary):
    expected = read_merge_model(path, vocabulary, IDENTITY).decoder
    with h5py.File(path, "a") as file:
        group = file["model_weights/lstm_of_words"]
        first, *others = group.attrs["weight_names"]
        values = group[first][()]
        del group[first]
        group[old_name] = values
        group.attrs["weight_names"] = [old_name, *others]
    found = read_merge_model(path, vocabulary, IDENTITY).decoder
    for one, other in zip(found.model.get_weights(), expected.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def setting(layer: str, **settings):
    return lambda described, layers: layers[layer]["config"].update(settings)


def start_from_the_image(described, layers):
    """Where Keras keeps tensors that a layer is given by name."""
    layers["LSTM"]["inbound_nodes"][0][0][3] = {"initial_state": [[layers["InputLayer"]["config"]["name"], 0, 0]]}


def of_kind(layer: str, kind: str):
    return lambda described, layers: layers[layer].update(class_name=kind)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (setting("LSTM", recurrent_activation="relu"), "lstm_of_words has recurrent_activation='relu' of Keras 2"),
        (setting("LSTM", activation="relu"), "lstm_of_words has activation='relu'"),
        (setting("LSTM", use_bias=False), "lstm_of_words has use_bias=False"),
        (setting("LSTM", return_sequences=True), "lstm_of_words has return_sequences=True"),
        (setting("LSTM", go_backwards=True), "lstm_of_words has go_backwards=True"),
        (setting("LSTM", stateful=True), "lstm_of_words has stateful=True"),
        (setting("Embedding", mask_zero=False), "has mask_zero=False"),
        (setting("Densesoftmax", activation="sigmoid"), "word has activation='sigmoid'"),
        (setting("Densesoftmax", use_bias=False), "word has use_bias=False"),
        (setting("Denserelu", activation="elu"), "hidden has activation='elu'"),
        (setting("Denserelu", use_bias=False), "hidden has use_bias=False"),
        (of_kind("LSTM", "CuDNNLSTM"), "the kind CuDNNLSTM, not LSTM"),
        (of_kind("LSTM", "GRU"), "the kind GRU, not LSTM"),
        (of_kind("Add", "Concatenate"), "the kind Concatenate, not Add"),
        (of_kind("Add", "Merge"), "mode"),
        (of_kind("Dropout", "BatchNormalization"), "the kind BatchNormalization"),
        (of_kind("Dropout", "Lambda"), "the kind Lambda"),
        (of_kind("Embedding", "os.system"), "the kind os.system"),
        (of_kind("InputLayer", "Flatten"), "the kind Flatten"),
        (lambda described, _: described.update(class_name="Sequential"), "the kind Sequential"),
        (
            lambda described, _: described["config"].update(output_layers=[["word", 0, 0], ["hidden", 0, 0]]),
            "2 outputs",
        ),
        (lambda described, _: described["config"].update(output_layers=[]), "0 outputs"),
        (lambda described, _: described["config"].pop("layers"), "layers"),
        (lambda _, layers: layers["LSTM"].update(inbound_nodes=layers["LSTM"]["inbound_nodes"] * 2), "reads 2 layers"),
        (start_from_the_image, "reads 2 layers, not 1"),
        (lambda _, layers: layers["Add"].update(inbound_nodes=[[["word", 0, 0, {}], ["word", 0, 0, {}]]]), "recursion"),
    ],
)
def test_a_model_that_computes_anything_else_is_refused_by_the_difference(change, reason, path, vocabulary):
    edit_config(path, change)
    message = refusal(read_merge_model, path, vocabulary, IDENTITY)
    assert str(path) in message and reason in message and "leave --model out" in message


def test_what_keras_3_calls_hard_sigmoid_is_another_and_refused(tmp_path, vocabulary, numbers):
    model = merge_model(keras, len(numbers) + 1, lstm={"recurrent_activation": "hard_sigmoid"})
    model.save(tmp_path / "model_9.h5")
    sentence = refusal(read_merge_model, tmp_path / "model_9.h5", vocabulary, IDENTITY)
    assert "recurrent_activation='hard_sigmoid' of Keras 3" in sentence


def test_the_activation_beside_the_image_counts_too(tmp_path, vocabulary):
    merge_model(tf_keras, 20, features_dense={"activation": "tanh", "name": "seen"}).save(tmp_path / "model.h5")
    assert "seen has activation='tanh'" in refusal(read_merge_model, tmp_path / "model.h5", vocabulary, IDENTITY)


def test_a_model_that_starts_the_lstm_from_the_image_is_refused(tmp_path, vocabulary):
    layers = tf_keras.layers
    image, prefix = layers.Input((6,)), layers.Input((LENGTH,))
    seen = layers.Dense(8, activation="relu")(image)
    words = layers.Embedding(20, 5, mask_zero=True)(prefix)
    read = layers.LSTM(8)(words, initial_state=[seen, seen])
    hidden = layers.Dense(7, activation="relu")(layers.add([seen, read]))
    tf_keras.Model([image, prefix], layers.Dense(20, activation="softmax")(hidden)).save(tmp_path / "model.h5")
    assert "reads 3 layers, not 1" in refusal(read_merge_model, tmp_path / "model.h5", vocabulary, IDENTITY)


@pytest.mark.parametrize("library", [tf_keras, keras], ids=["keras 2", "keras 3"])
def test_dropout_anywhere_makes_no_difference(library, tmp_path, vocabulary):
    layers = library.layers
    image, prefix = layers.Input((6,)), layers.Input((LENGTH,))
    seen = layers.Dropout(0.1)(layers.Dense(8, activation="relu")(layers.Dropout(0.1)(layers.Dropout(0.1)(image))))
    words = layers.SpatialDropout1D(0.1)(layers.Embedding(20, 5, mask_zero=True)(prefix))
    merged = layers.Dropout(0.1)(layers.add([layers.Dropout(0.1)(layers.LSTM(8)(words)), seen]))
    hidden = layers.GaussianNoise(0.1)(layers.Dense(7, activation="relu")(merged))
    model = shaken(library.Model([prefix, image], layers.Dense(20, activation="softmax")(hidden)))
    model.save(tmp_path / "model.h5")
    own = read_merge_model(tmp_path / "model.h5", vocabulary, IDENTITY).decoder
    [vector] = features_of(1)
    found = keras.ops.softmax(own.model([vector[None], np.array([[START, 9]])]))[0, 1]
    prefix = keras.utils.pad_sequences([[1, vocabulary.theirs[9]]], maxlen=LENGTH)
    expected = np.asarray(model.predict_on_batch([prefix, vector[None]]))[0, vocabulary.theirs]
    np.testing.assert_allclose(np.delete(found, UNKNOWN), np.delete(expected, UNKNOWN), rtol=1e-4, atol=1e-7)


def test_another_vocabulary_is_refused_by_both_sizes(path, tmp_path):
    other = read_tokenizer(dump(fit(), tmp_path / "tokenizer.p"))
    message = refusal(read_merge_model, path, other, IDENTITY)
    assert "model_9.h5 knows 19 words" in message and f"tokenizer {other.size - 1}:" in message


def test_another_encoder_is_refused_by_both_sizes(path, vocabulary):
    message = refusal(
        read_merge_model, path, vocabulary, EncoderIdentity("mobilenetv2", 224, "mobilenet_v2", 1280, "ab")
    )
    assert "model_9.h5" in message and " 6 numbers" in message and "mobilenetv2 makes 1280" in message


def test_a_last_layer_of_another_size_than_the_embedding_is_refused(path, vocabulary):
    with h5py.File(path, "a") as file:
        weights = next(group for name, group in file["model_weights"].items() if name.startswith("embedding"))
        [stored] = weights.attrs["weight_names"]
        values = weights[stored][:-1]
        del weights[stored]
        weights[stored] = values
    assert "it reads 19 words and writes 20" in refusal(read_merge_model, path, vocabulary, IDENTITY)


@pytest.mark.parametrize("layer", ["hidden", "word", "lstm_of_words"])
def test_weights_that_do_not_fit_are_refused(layer, path, vocabulary):
    with h5py.File(path, "a") as file:
        weights = file["model_weights"][layer]
        weights.attrs["weight_names"] = weights.attrs["weight_names"][::-1]
    message = refusal(read_merge_model, path, vocabulary, IDENTITY)
    assert str(path) in message and "leave --model out" in message


def test_a_file_with_weights_alone_is_refused(tmp_path, vocabulary):
    merge_model(tf_keras, 20).save_weights(tmp_path / "model.h5")
    message = refusal(read_merge_model, tmp_path / "model.h5", vocabulary, IDENTITY)
    assert "model.h5" in message and "weights alone" in message


def test_a_model_of_this_project_is_refused(path, vocabulary, tmp_path):
    save_checkpoint(read_merge_model(path, vocabulary, IDENTITY), tmp_path / "own.h5")
    message = refusal(read_merge_model, tmp_path / "own.h5", vocabulary, IDENTITY)
    assert "own.h5 is a model of this project already" in message


@pytest.mark.parametrize("content", [b"", b"hello, I am a text", b"\x89HDF\r\n\x1a\n torn"])
def test_a_file_that_is_no_hdf5_is_one_sentence(content, tmp_path, vocabulary):
    (tmp_path / "model.h5").write_bytes(content)
    message = refusal(read_merge_model, tmp_path / "model.h5", vocabulary, IDENTITY)
    assert "model.h5" in message and "leave --model out" in message


def test_a_torn_model_is_one_sentence(path, vocabulary):
    path.write_bytes(path.read_bytes()[:-2000])
    assert "model_9.h5" in refusal(read_merge_model, path, vocabulary, IDENTITY)


def test_a_missing_model_is_one_sentence(tmp_path, vocabulary):
    message = refusal(read_merge_model, tmp_path / "model.h5", vocabulary, IDENTITY)
    assert "model.h5 does not exist" in message


@pytest.mark.parametrize("described", [b"no JSON", b"null", b"[]", b"{}", b'{"class_name": "Model", "config": 3}'])
def test_a_description_that_is_none_is_one_sentence(described, path, vocabulary):
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = described
    assert "leave --model out" in refusal(read_merge_model, path, vocabulary, IDENTITY)


def test_a_model_brings_no_code(path, vocabulary, tmp_path, monkeypatch):
    """A Lambda layer is code of whoever made the file. Behind the last layer of a merge model it does not run."""
    monkeypatch.chdir(tmp_path)
    model = tf_keras.models.load_model(path, compile=False)
    leave_a_trace = tf_keras.layers.Lambda(lambda x: (open("ran", "w").close(), x)[1])
    tf_keras.Model(model.inputs, leave_a_trace(model.output)).save("evil.h5")
    Path("ran").unlink()
    assert "the kind Lambda, not Dense" in refusal(read_merge_model, "evil.h5", vocabulary, IDENTITY)
    assert not Path("ran").exists()
    tf_keras.models.load_model("evil.h5", compile=False, safe_mode=False)
    assert Path("ran").exists(), "the Lambda does not run anyway: this test would prove nothing"


# The command


@pytest.fixture(scope="module")
def old_files(tmp_path_factory, numbers) -> Path:
    """A folder of theirs, with an encoder of 64 pixels that stands for Xception; its random weights are there, too."""
    folder = tmp_path_factory.mktemp("old")
    (folder / "models").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, "xception", SMALL)
        keras.utils.set_random_seed(0)
        build_encoder("xception", weights=None).backbone.save_weights(folder / "encoder.weights.h5")
    tokenizer = KerasTokenizer()
    tokenizer.word_index = numbers
    dump(tokenizer, folder / "tokenizer.p")
    dump({"a.jpg": np.ones((1, 256), np.float32), "b": np.zeros((1, 256), np.float32)}, folder / "features.p")
    merge_model(tf_keras, len(numbers) + 1, 256).save(folder / "models" / "model_9.h5")
    return folder


@pytest.fixture
def old_project(old_files, tmp_path, monkeypatch) -> Path:
    """A copy of it."""
    monkeypatch.setitem(ENCODERS, "xception", SMALL)
    monkeypatch.setattr(checkpoint, "BUNDLED_MODEL", tmp_path / "none.h5")  # which would be looked at for its encoder
    return shutil.copytree(old_files, tmp_path / "old")


def run(monkeypatch, *arguments) -> int:
    encoder = () if "--encoder" in arguments else ("--encoder", "xception")
    monkeypatch.setattr(sys, "argv", ["legacy", *map(str, arguments), *encoder])
    return command.main()


def test_the_command_takes_all_over_and_the_model_captions(old_project, pictures, tmp_path, monkeypatch, capsys):
    old, new = old_project, tmp_path / "new"
    weights = old / "encoder.weights.h5"
    before = {file: file.read_bytes() for file in old.rglob("*.*")}
    files = ("--tokenizer", old / "tokenizer.p", "--features", old / "features.p", "--model", old / "models/model_9.h5")
    assert run(monkeypatch, *files, "--encoder-weights", weights, "--out", new) == 0
    printed, complaints = capsys.readouterr()
    assert complaints == ""
    assert sorted(file for file in new.rglob("*") if file.is_file()) == [
        new / "features.p",
        new / "models" / "model_9.h5",
        new / "tokenizer.p",
    ]
    assert {file: file.read_bytes() for file in old.rglob("*.*")} == before

    identity = build_encoder("xception", weights).identity
    tokenizer, features = Tokenizer.load(new / "tokenizer.p"), load_features(new / "features.p")
    assert (len(tokenizer), tokenizer.max_length) == (21, LENGTH - 2)
    assert features.encoder == identity
    assert {name: vector.sum() for name, vector in features.vectors.items()} == {"a.jpg": 256, "b.jpg": 0}
    *_, last = printed.splitlines()
    command = f"testing_caption_generator.py -i photo.jpg --model {new}/models/model_9.h5 --encoder-weights {weights}"
    assert len(printed.splitlines()) == 3 and last.endswith(command)

    captioner = Captioner.load(new / "models" / "model_9.h5", beam=1, encoder_weights=weights)
    assert captioner.engine.tokenizer.to_dict() == tokenizer.to_dict()
    assert captioner.engine.encoder.identity == identity
    results = list(captioner.caption_files([pictures / "0.png", pictures / "1.png"]))
    for result in results:
        assert 1 <= len(result.best.text.split()) <= LENGTH - 2
        assert set(result.best.text.split()) <= set(tokenizer.words[4:])


def test_the_command_builds_the_encoder_once_and_not_for_a_tokenizer(old_project, tmp_path, monkeypatch):
    built, build = [], checkpoint.build_encoder
    monkeypatch.setattr(checkpoint, "build_encoder", lambda *options: built.append(options[:2]) or build(*options))
    tokenizer, weights = ("--tokenizer", old_project / "tokenizer.p"), old_project / "encoder.weights.h5"
    assert run(monkeypatch, *tokenizer, "--out", tmp_path / "one") == 0
    assert [file.name for file in (tmp_path / "one").iterdir()] == ["tokenizer.p"]
    assert built == []
    others = ("--features", old_project / "features.p", "--model", old_project / "models" / "model_9.h5")
    assert run(monkeypatch, *tokenizer, *others, "--encoder-weights", weights, "--out", tmp_path / "two") == 0
    assert built == [("xception", str(weights))]


@pytest.mark.parametrize(
    ("arguments", "longest"), [((), 32), (("--max-length", 20), 20), (("--max-length", 2000), 1000)]
)
def test_a_tokenizer_alone_has_the_length_that_the_user_says(old_project, tmp_path, monkeypatch, arguments, longest):
    assert run(monkeypatch, "--tokenizer", old_project / "tokenizer.p", "--out", tmp_path, *arguments) == 0
    assert Tokenizer.load(tmp_path / "tokenizer.p").max_length == longest


def test_the_length_that_the_user_says_is_the_models_too(old_project, tmp_path, monkeypatch):
    files = ("--tokenizer", old_project / "tokenizer.p", "--model", old_project / "models" / "model_9.h5")
    weights = ("--encoder-weights", old_project / "encoder.weights.h5")
    assert run(monkeypatch, *files, *weights, "--max-length", 5, "--out", tmp_path / "new") == 0
    assert load_checkpoint(tmp_path / "new" / "models" / "model_9.h5").tokenizer.max_length == 5
    assert Tokenizer.load(tmp_path / "new" / "tokenizer.p").max_length == 5


@pytest.mark.parametrize("broken", ["tokenizer.p", "features.p", "models/model_9.h5", "encoder.weights.h5"])
def test_if_one_file_is_broken_none_is_written(old_project, tmp_path, monkeypatch, capsys, broken):
    (old_project / broken).write_text("broken")
    old = old_project
    files = ("--tokenizer", old / "tokenizer.p", "--features", old / "features.p", "--model", old / "models/model_9.h5")
    weights = ("--encoder-weights", old / "encoder.weights.h5")
    assert run(monkeypatch, *files, *weights, "--out", tmp_path / "new") == 2
    printed, complaint = capsys.readouterr()
    assert printed == ""
    assert complaint.startswith("legacy: ") and complaint.count("\n") == 1 and broken in complaint
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("target", ["tokenizer.p", "features.p", "models/model_9.h5"])
def test_what_is_read_is_never_written_over(old_project, tmp_path, monkeypatch, capsys, target):
    old = old_project
    elsewhere = dump(pickle.loads((old / "tokenizer.p").read_bytes()), tmp_path / "elsewhere.p")
    files = {
        "tokenizer.p": ("--tokenizer", old / "tokenizer.p"),
        "features.p": ("--tokenizer", elsewhere, "--features", old / "features.p"),
        "models/model_9.h5": ("--tokenizer", elsewhere, "--model", old / "models/model_9.h5"),
    }[target]
    before = (old / target).read_bytes()
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *files, "--out", "old") == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("legacy: ") and f"old/{target}" in complaint and "--out" in complaint
    assert (old / target).read_bytes() == before


def test_an_encoder_that_there_is_not_is_one_sentence(old_project, tmp_path, monkeypatch, capsys):
    files = ("--tokenizer", old_project / "tokenizer.p", "--features", old_project / "features.p")
    assert run(monkeypatch, *files, "--encoder", "eyes", "--out", tmp_path / "new") == 2
    assert "there is no encoder 'eyes'" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def as_users_run_it(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-X", "importtime", "-m", "caption_generator.legacy", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_tokenizer_alone_needs_no_tensorflow(tmp_path):
    done = as_users_run_it("--tokenizer", dump(fit(), tmp_path / "old.p"), "--out", tmp_path / "new")
    assert done.returncode == 0
    assert "caption_generator.tokenizer" in done.stderr and "tensorflow" not in done.stderr
    assert done.stdout == f"{tmp_path}/new/tokenizer.p: 13 words, captions of at most 32\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--tokenizer", "missing.p", "--out", "new"), "legacy: missing.p does not exist"),
        (("--tokenizer", "missing.p"), "required: --out"),
        (
            ("--tokenizer", "missing.p", "--out", "new", "--features", "features.p"),
            "features and models need --encoder",
        ),
        (("--tokenizer", "missing.p", "--out", "new", "--max-length", "0"), "--max-length: 0 is not 1 or more"),
    ],
)
def test_wrong_arguments_are_told_without_a_traceback(arguments, complaint):
    done = as_users_run_it(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr and "Traceback" not in done.stderr
