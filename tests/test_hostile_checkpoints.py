"""A checkpoint, a merge model and weights from anyone: read whole, or refused with one sentence, at their own cost."""

import json
import os
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from caption_generator.checkpoint import Checkpoint, load_checkpoint, read_about, save_checkpoint
from caption_generator.common.errors import CaptionError
from caption_generator.common.files import open_regular
from caption_generator.common.hdf5 import open_plain
from caption_generator.encoders import EncoderIdentity, build_encoder
from caption_generator.inference.imagenet_classifier import ImageNetClassifier
from caption_generator.inference.out_of_distribution import Familiarity
from caption_generator.inference.word_detector import WordDetector
from caption_generator.legacy.merge_model import read_merge_model
from caption_generator.legacy.pickles import Vocabulary
from tests.watch import bounded

IDENTITY = EncoderIdentity("mobilenet", 224, "mobilenet", 6, "0123456789ab")
BIG = 1 << 31


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> bytes:
    """The content of a small checkpoint with all that one can hold, the encoder apart."""
    import keras

    from caption_generator.decoders import DecoderSpec, build_decoder
    from caption_generator.tokenizer import SPECIAL_TOKENS, Tokenizer

    keras.utils.set_random_seed(0)
    decoder = build_decoder(DecoderSpec("merge", 6, 20, units=8, embedding_size=8, hidden=8))
    tokenizer = Tokenizer([*SPECIAL_TOKENS, *(f"w{number:02}" for number in range(16))], 6)
    detector = WordDetector(np.ones(6, "f"), np.ones((20, 6), "f"), np.ones(20, "f"), 1.25)
    checkpoint = Checkpoint(
        decoder,
        tokenizer,
        IDENTITY,
        None,
        {"dataset": "drawn"},
        Familiarity(np.ones(6, "f"), 0.25, 0.75),
        detector,
        ImageNetClassifier(np.ones((6, 1000), "f"), np.ones(1000, "f")),
    )
    path = tmp_path_factory.mktemp("saved") / "model.h5"
    save_checkpoint(checkpoint, path)
    return path.read_bytes()


@pytest.fixture
def path(saved, tmp_path) -> Path:
    path = tmp_path / "model.h5"
    path.write_bytes(saved)
    return path


def edit_about(file: h5py.File, change: Callable[[dict], object]) -> None:
    about = json.loads(file["about"][()])
    change(about)
    replace(file, "about", json.dumps(about))


def replace(file: h5py.File, name: str, value: object) -> None:
    attributes = dict(file[name].attrs)
    del file[name]
    file[name] = value
    file[name].attrs.update(attributes)


def kernel(file: h5py.File) -> str:
    """The name of the largest array of the decoder."""
    names: dict[str, int] = {}
    file["model_weights"].visititems(
        lambda name, item: names.update({name: item.size}) if isinstance(item, h5py.Dataset) else None
    )
    return "model_weights/" + max(names, key=names.__getitem__)


def refused(path: Path, matching: str | None = None, megabytes: int = 400) -> str:
    with bounded(megabytes), pytest.raises(CaptionError, match=matching) as refusal:
        load_checkpoint(path)
    sentence = str(refusal.value)
    assert path.name in sentence and sentence.isprintable() and len(sentence) < 800
    return sentence


def test_the_file_that_is_changed_in_these_tests_is_a_good_one(path):
    checkpoint = load_checkpoint(path)
    assert checkpoint.detector.threshold == 1.25
    assert checkpoint.familiarity.usual == 0.75


def external_link(file: h5py.File) -> None:
    name = kernel(file)
    del file[name]
    file[name] = h5py.ExternalLink("elsewhere.h5", "/secret")


def soft_link(file: h5py.File) -> None:
    file["other"] = h5py.SoftLink("/familiarity")


def description_by_link(file: h5py.File) -> None:
    file.move("about", "elsewhere")
    file["about"] = h5py.SoftLink("/elsewhere")


def external_storage(file: h5py.File) -> None:
    name = kernel(file)
    shape = file[name].shape
    del file[name]
    file.create_dataset(name, shape, "f4", external=[("/etc/passwd", 0, 4 * int(np.prod(shape)))])


def external_description(file: h5py.File) -> None:
    del file["about"]
    file.create_dataset("about", (64,), "S1", external=[("/etc/passwd", 0, 64)])


def virtual(file: h5py.File) -> None:
    name = kernel(file)
    layout = h5py.VirtualLayout(file[name].shape, "f4")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "secret", file[name].shape)
    del file[name]
    file.create_virtual_dataset(name, layout)


def compressed_weights(file: h5py.File) -> None:
    del file["detector/weights"]
    bomb = file.create_dataset("detector/weights", (40_000, 40_000), "f4", chunks=(1000, 40_000), compression="gzip")
    chunk = zlib.compress(bytes(160_000_000), 1)
    for row in range(0, 40_000, 1000):
        bomb.id.write_direct_chunk((row, 0), chunk)


def compressed_description(file: h5py.File) -> None:
    del file["about"]
    bomb = file.create_dataset("about", (BIG,), "S1", chunks=(1 << 28,), compression="gzip")
    bomb.id.write_direct_chunk((0,), zlib.compress(bytes(1 << 28), 1))


def never_written(file: h5py.File) -> None:
    del file["familiarity"]
    file.create_dataset("familiarity", (1 << 33,), "f4").attrs.update(lowest=0, usual=1)


def never_written_text(file: h5py.File) -> None:
    del file["about"]
    file.create_dataset("about", (), f"S{BIG - 1}")


def overflowing_shape(file: h5py.File) -> None:
    file.create_dataset("x", (1 << 32, 1 << 32), "f4", chunks=None)


def itself(file: h5py.File) -> None:
    file["model_weights/again"] = file["model_weights"]
    file["familiarity"].attrs["lowest"] = np.nan


def doubled_groups(file: h5py.File) -> None:
    """Forty groups, each of which holds the next one twice: 10**12 ways to the last."""
    group = file.create_group("first")
    for _ in range(40):
        following = group.create_group("a")
        group["b"] = following
        group = following
    group["end"] = h5py.SoftLink("/familiarity")


def many_texts_of_one(file: h5py.File) -> None:
    """A list of 4,000 names, each of which is the same text of 4 MB: 16 GB once it is read."""
    group = next(group for group in file["model_weights"].values() if len(group.attrs["weight_names"]))
    text = h5py.string_dtype()
    file.create_dataset("long", (), text)[()] = "a" * (4 << 20)
    group.attrs.create("weight_names", ["abcdefgh"] * 4000, dtype=text)


def named_type(file: h5py.File) -> None:
    file["type"] = np.dtype("f4")


def compound(file: h5py.File) -> None:
    replace(file, "familiarity", np.zeros(6, [("a", "f4"), ("b", "i4")]))


def reference(file: h5py.File) -> None:
    file.create_dataset("reference", (1,), h5py.ref_dtype)[0] = file.ref


def not_a_number(file: h5py.File) -> None:
    file[kernel(file)][0] = np.nan


def infinite(file: h5py.File) -> None:
    file[kernel(file)][0] = np.inf


def too_large_for_32_bits(file: h5py.File) -> None:
    name = kernel(file)
    replace(file, name, np.full(file[name].shape, 1e300))


def complex_numbers(file: h5py.File) -> None:
    name = kernel(file)
    replace(file, name, np.zeros(file[name].shape, np.complex64))


def words_for_weights(file: h5py.File) -> None:
    name = kernel(file)
    replace(file, name, np.full(file[name].shape, b"dog"))


def threshold_not_a_number(file: h5py.File) -> None:
    file["detector"].attrs["good"] = np.nan


def rows_out_of_order(file: h5py.File) -> None:
    replace(file, "detector/rows", np.arange(20, dtype=np.int32)[::-1])


def rows_beyond_the_words(file: h5py.File) -> None:
    replace(file, "detector/rows", np.arange(1, 21, dtype=np.int32))


def negative_rows(file: h5py.File) -> None:
    replace(file, "detector/rows", np.arange(-1, 19, dtype=np.int32))


def rows_in_halves(file: h5py.File) -> None:
    replace(file, "detector/rows", np.arange(20, dtype=np.float32) / 2)


def one_row(file: h5py.File) -> None:
    replace(file, "detector/rows", np.int32(1))


def other_rows(file: h5py.File) -> None:
    del file["detector/weights"]
    file["detector/weights"] = np.ones((19, 6), "f")
    replace(file, "detector/rows", np.arange(19, dtype=np.int32))


def few_classes(file: h5py.File) -> None:
    replace(file, "classifier/kernel", np.ones((6, 999), "f"))


def short_detector(file: h5py.File) -> None:
    replace(file, "detector/share", np.ones(3, "f"))


def flat_familiarity(file: h5py.File) -> None:
    replace(file, "familiarity", np.ones((2, 3), "f"))


def group_for_description(file: h5py.File) -> None:
    del file["about"]
    file.create_group("about")


def deep_description(file: h5py.File) -> None:
    replace(file, "about", '{"decoder":' + "[" * 200_000 + "]" * 200_000 + "}")


def long_number(file: h5py.File) -> None:
    replace(file, "about", '{"decoder": ' + "9" * 100_000 + "}")


CHANGES = [
    external_link,
    soft_link,
    description_by_link,
    external_storage,
    external_description,
    virtual,
    compressed_weights,
    compressed_description,
    never_written,
    never_written_text,
    overflowing_shape,
    itself,
    doubled_groups,
    many_texts_of_one,
    named_type,
    compound,
    reference,
    not_a_number,
    infinite,
    too_large_for_32_bits,
    complex_numbers,
    words_for_weights,
    threshold_not_a_number,
    rows_out_of_order,
    rows_beyond_the_words,
    negative_rows,
    rows_in_halves,
    one_row,
    other_rows,
    few_classes,
    short_detector,
    flat_familiarity,
    group_for_description,
    deep_description,
    long_number,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_hostile_file_is_refused_with_one_sentence_and_at_no_cost(change, path):
    with h5py.File(path, "a") as file:
        change(file)
    refused(path)
    if change in (external_link, external_storage, virtual, compressed_weights, soft_link):
        with bounded(), pytest.raises(CaptionError):
            read_about(path)


def setting(part: str, name: str, value: object) -> Callable[[dict], None]:
    return lambda about: about[part].update({name: value})


DESCRIPTIONS = {
    **{
        f"{name} = {value!r:.20}": setting("decoder", name, value)
        for name in ("units", "vocabulary_size", "embedding_size", "feature_size", "hidden")
        for value in (30_000, 10_000_000, 10**30, -1, 0, None, "8", 8.5, True, [8])
        if (name, value) != ("hidden", 8)
    },
    "another cell": setting("decoder", "cell", ["lstm"]),
    "a cell that needs other arrays": setting("decoder", "cell", "gru"),
    "dropout": setting("decoder", "dropout", "half"),
    "a decoder without a name": setting("decoder", "name", {}),
    "an unknown setting": setting("decoder", "surprise", 1),
    **{
        f"captions of {value!r:.20} words": setting("tokenizer", "max_length", value)
        for value in (10**9, 10**30, -1, 0, None, "6", 6.5, float("nan"))
    },
    "too few words": lambda about: about["tokenizer"]["words"].pop(),
    "too many words": lambda about: about["tokenizer"]["words"].append("more"),
    "a word twice": lambda about: about["tokenizer"]["words"].__setitem__(5, "w02"),
    "a number for a word": lambda about: about["tokenizer"]["words"].__setitem__(5, 5),
    "a word that clears the screen": lambda about: about["tokenizer"]["words"].__setitem__(5, "\x1b[2J"),
    "half a surrogate pair": lambda about: about["tokenizer"]["words"].__setitem__(5, "\ud800"),
    "other special tokens": lambda about: about["tokenizer"]["words"].reverse(),
    "words as a dict": setting("tokenizer", "words", {"a": 1}),
    "an encoder that clears the screen": setting("encoder", "weights", "\x1b[2J"),
    "an encoder of text": setting("encoder", "input_size", "224"),
    "an encoder that nobody has": lambda about: (
        about["encoder"].update(name="\x1b[2J"),
        about.update(includes_encoder=True),
    ),
    **{
        f"{part} = {value!r}": (lambda about, part=part, value=value: about.update({part: value}))
        for part in ("decoder", "encoder", "tokenizer", "training", "includes_encoder")
        for value in (None, [], "text", 7)
    },
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_description_that_lies_is_refused_before_anything_is_built(name, path):
    with h5py.File(path, "a") as file:
        edit_about(file, DESCRIPTIONS[name])
    refused(path)


def test_weights_that_changed_are_noticed(path, saved):
    """Every 40th byte of the largest array, one bit at a time. Each flip is refused."""
    with h5py.File(path) as file:
        array = file[kernel(file)]
        start, size = array.id.get_offset(), array.id.get_storage_size()
    for place in range(start, start + size, 40):
        flipped = bytearray(saved)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        refused(path, "not those that were saved|not finite")


def test_an_older_file_without_a_digest_is_still_read(path):
    with h5py.File(path, "a") as file:
        edit_about(file, lambda about: about.pop("arrays"))
    assert load_checkpoint(path).training == {"dataset": "drawn"}


def test_a_text_without_a_size_does_not_hang(path, saved):
    """HDF5 walks through a heap of texts by their sizes, and would stand still at one of 0."""
    start = saved.index(b"GCOL\1")
    (size,) = struct.unpack_from("<Q", saved, start + 8)
    place = start + 16
    while place + 16 <= start + size:
        number, entry = struct.unpack_from("<H6xQ", saved, place)
        for wrong in (0, 1, 2**63, 2**64 - 1):
            changed = bytearray(saved)
            changed[place : place + 16] = struct.pack("<H6xQ", 0 if wrong == 0 else number, wrong)
            path.write_bytes(changed)
            if wrong != 1:  # one letter more or less shifts the entries, and may still be read
                refused(path)
        place += entry if number == 0 else 16 + -(-entry // 8) * 8


@pytest.mark.parametrize("size", [0, 8, 15, 2**40])
def test_a_heap_of_texts_of_a_wrong_size_is_refused(size, path, saved):
    changed = bytearray(saved)
    start = saved.index(b"GCOL\1")
    changed[start + 8 : start + 16] = struct.pack("<Q", size)
    path.write_bytes(changed)
    refused(path, "heap of texts")


def test_a_circle_of_free_blocks_in_a_heap_of_names_does_not_go_on_for_ever(path, saved):
    """HDF5 notes each free block that it comes to, and would fill the memory."""
    changed, heaps = bytearray(saved), 0
    for heap in re.finditer(b"HEAP\0\0\0\0", saved):
        _, free, data = struct.unpack_from("<QQQ", saved, heap.start() + 8)
        if free == 1:  # this heap is full
            continue
        changed[data + free : data + free + 8] = struct.pack("<Q", free)
        path.write_bytes(changed)
        refused(path, "heap of names")
        changed[data + free : data + free + 8] = saved[data + free : data + free + 8]
        heaps += 1
    assert heaps
    path.write_bytes(changed)
    assert load_checkpoint(path).training == {"dataset": "drawn"}


def test_a_file_with_something_before_its_beginning_is_refused(tmp_path):
    """Its addresses count from another place, and the checks would look at the wrong ones."""
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=512) as file:
        file["array"] = np.ones(3, "f")
    with pytest.raises(OSError, match="does not begin"), open_plain(tmp_path / "a.h5"):
        pass


@pytest.mark.parametrize("longest", [2**31, 2**32 - 1])
@pytest.mark.parametrize("address", [None, 0x656E72656B])
def test_a_text_that_is_said_to_be_longer_than_the_file_reserves_no_memory(longest, address, path, saved):
    """HDF5 reserves the length first, and looks for the text then."""
    with h5py.File(path) as file:
        place = file["about"].id.get_offset()
    changed = bytearray(saved)
    changed[place : place + 4] = struct.pack("<I", longest)
    if address:
        changed[place + 4 : place + 12] = struct.pack("<Q", address)
    path.write_bytes(changed)
    refused(path, "longer than")


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("value", ["a text", ["one", "two", "three"]])
def test_nor_does_such_a_text_in_an_attribute(libver, value, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w", libver=libver) as file:
        file.create_group("group").attrs["wording"] = value
        file["group"].attrs["other"] = "x"
    with open_plain(tmp_path / "a.h5") as file:
        assert np.array_equal(file["group"].attrs["wording"], value)
    content = (tmp_path / "a.h5").read_bytes()
    reference = struct.pack("<IQ", len(value[-1] if isinstance(value, list) else value), content.index(b"GCOL"))
    assert content.count(reference) == 1
    (tmp_path / "a.h5").write_bytes(content.replace(reference, struct.pack("<I", 2**31) + reference[4:]))
    # The latest kind of file has a checksum here, which is wrong now.
    matching = "longer than" if libver == "earliest" else "checksum"
    with bounded(), pytest.raises((ValueError, KeyError), match=matching), open_plain(tmp_path / "a.h5"):
        pass


def test_a_text_attribute_without_a_value_is_read(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["nothing"] = h5py.Empty(h5py.string_dtype())
    with open_plain(tmp_path / "a.h5") as file:
        assert isinstance(file.attrs["nothing"], h5py.Empty)


def test_a_large_attribute_is_refused_unread(path):
    with h5py.File(path, "a", libver="latest") as file:
        group = file.create_group("new")  # with attributes of any size, as older groups have none
        h5py.h5a.create(group.id, b"large", h5py.h5t.STD_I8LE, h5py.h5s.create_simple((300 << 20,)))
    refused(path, "no arrays", megabytes=100)


def test_a_fifo_does_not_hang_and_a_device_is_refused(tmp_path):
    os.mkfifo(tmp_path / "model.h5")
    for path in (tmp_path / "model.h5", Path("/dev/zero"), tmp_path):
        with bounded(seconds=5), pytest.raises(CaptionError, match="HDF5"):
            load_checkpoint(path)
        with bounded(seconds=5), pytest.raises(CaptionError):
            read_merge_model(path, None, IDENTITY)
        with bounded(seconds=5), pytest.raises(CaptionError):
            build_encoder("mobilenet", path)


def test_a_file_that_is_not_regular_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(tmp_path / "fifo")
    with pytest.raises(OSError, match="not a regular file"), open_plain(tmp_path / "fifo"):
        pass


@pytest.mark.parametrize("change", [external_storage, virtual, compressed_weights, many_texts_of_one, itself])
def test_weights_of_an_encoder_are_held_to_the_same(change, path):
    with h5py.File(path, "a") as file:
        change(file)
    with bounded(), pytest.raises(CaptionError, match=r"model\.h5 does not hold weights"):
        build_encoder("mobilenet", path)


def merge_model(layers: list[dict], outputs: list) -> str:
    return json.dumps({"class_name": "Functional", "config": {"layers": layers, "output_layers": outputs}})


def layer(name: str, kind: str, *reads: str, **config: object) -> dict:
    nodes = [[[read, 0, 0, {}] for read in reads]] if reads else []
    return {"class_name": kind, "config": {"name": name, **config}, "inbound_nodes": nodes}


MERGE_MODELS = {
    "nested 200,000 deep": '{"class_name": ' + "[" * 200_000 + "]" * 200_000 + "}",
    "no JSON": "{",
    "a list": "[]",
    "layers that read each other": merge_model([layer("a", "Add", "b"), layer("b", "Add", "a")], [["a", 0, 0]]),
    "a layer that reads itself": merge_model([layer("a", "Dropout", "a", "a")], [["a", 0, 0]]),
    "layers that read each other twice": merge_model(
        [layer("d0", "InputLayer"), *(layer(f"d{n + 1}", "Dropout", f"d{n}", f"d{n}") for n in range(60))],
        [["d60", 0, 0]],
    ),
    "names that clear the screen": merge_model([layer("\x1b[2J", "\x1b[2J")], [["\x1b[2J", 0, 0]]),
    "outputs nested deep": merge_model([], json.loads("[" * 900 + "]" * 900)),
}


@pytest.mark.parametrize("name", MERGE_MODELS)
def test_a_hostile_merge_model_is_one_sentence(name, tmp_path):
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.attrs["model_config"] = np.bytes_(MERGE_MODELS[name]) if len(MERGE_MODELS[name]) < 60_000 else "x"
        file.create_group("model_weights")
        if len(MERGE_MODELS[name]) >= 60_000:
            file.attrs["model_config"] = MERGE_MODELS[name]  # of any length, in a heap
    with bounded(), pytest.raises(CaptionError, match=r"old\.h5") as refusal:
        read_merge_model(tmp_path / "old.h5", Vocabulary(None, None, 3), IDENTITY)
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("change", [external_storage, virtual, compressed_weights, soft_link, never_written])
def test_a_merge_model_is_held_to_the_same(change, path):
    with h5py.File(path, "a") as file:
        change(file)
        del file["about"]
    with bounded(), pytest.raises(CaptionError, match=r"model\.h5 is not a merge model that can be converted"):
        read_merge_model(path, Vocabulary(None, None, 20), IDENTITY)
