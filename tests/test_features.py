"""A feature vector is what the encoder says of its own image, and no interruption costs more than a batch."""

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest

from caption_generator import features as features_module
from caption_generator.common.errors import CaptionError
from caption_generator.common.files import only_run
from caption_generator.common.pickles import save_pickle
from caption_generator.encoders import Encoder, EncoderIdentity, with_pooling
from caption_generator.features import Features, extract_features, load_features, save_features
from caption_generator.images import load_pixels
from caption_generator.inference.folding import compile_encoder

IDENTITY = EncoderIdentity("tiny", 16, "mobilenet_v2", 6, "0123456789ab")


@pytest.fixture
def computed(monkeypatch):
    """How many images each call of an encoder was given."""
    sizes: list[int] = []

    def compile_counting(encoder: Encoder):
        def encode(pixels):
            sizes.append(len(pixels))
            return compile_encoder(encoder)(pixels)

        return encode

    monkeypatch.setattr(features_module, "compile_encoder", compile_counting)
    return sizes


def interrupt_after(batches: int, encoder: Encoder, monkeypatch, *arguments) -> None:
    """Extract features, and press Ctrl-C when the encoder is given the batch after `batches`."""
    calls = []

    def compile_interrupted(encoder: Encoder):
        def encode(pixels):
            if len(calls) == batches:
                raise KeyboardInterrupt
            calls.append(pixels)
            return compile_encoder(encoder)(pixels)

        return encode

    with monkeypatch.context() as patch:
        patch.setattr(features_module, "compile_encoder", compile_interrupted)
        with pytest.raises(KeyboardInterrupt):
            extract_features(encoder, *arguments)


def assert_same(features: Features, expected: Features) -> None:
    assert list(features.vectors) == list(expected.vectors)
    for name, vector in expected.vectors.items():
        np.testing.assert_allclose(features.vectors[name], vector, rtol=1e-5)


def test_a_vector_is_a_forward_pass_of_its_own_image(workspace, tiny_encoder):
    names = workspace.image_names()[::-1]
    features = extract_features(tiny_encoder, workspace.images, names, workspace.features, batch_size=5)
    assert list(features.vectors) == names  # in the order that was asked for
    assert features.errors == []
    for name in names:
        pixels = load_pixels(workspace.images / name, 16).astype(np.float32)
        direct = np.asarray(tiny_encoder.backbone(pixels[None] / 127.5 - 1))[0].mean(axis=(0, 1))
        np.testing.assert_allclose(features.vectors[name], direct, rtol=1e-4)
    assert len({vector.tobytes() for vector in features.vectors.values()}) == len(names)


def test_grids_come_back_as_grids_and_are_not_mixed_with_vectors(workspace, tiny_encoder):
    names = workspace.image_names()[:3]
    vectors = extract_features(tiny_encoder, workspace.images, names, workspace.features)
    grids = extract_features(with_pooling(tiny_encoder, "grid"), workspace.images, names, workspace.features)
    assert grids.encoder.pooling == load_features(workspace.features).encoder.pooling == "grid"
    assert_same(load_features(workspace.features), grids)
    assert grids.matrix(names).shape == (3, 7, 7, 6)
    np.testing.assert_allclose(grids.matrix(names).mean(axis=(1, 2)), vectors.matrix(names), rtol=1e-4)


def test_features_p_is_the_dictionary_that_everyone_expects(workspace, tiny_encoder):
    names = workspace.image_names()
    features = extract_features(tiny_encoder, workspace.images, names, workspace.features)
    with open(workspace.features, "rb") as file:
        vectors = pickle.load(file)
        about = pickle.load(file)
    assert list(vectors) == names
    assert all(type(v) is np.ndarray and v.dtype == np.float32 and v.shape == (6,) for v in vectors.values())
    assert about == tiny_encoder.identity.to_dict()
    assert_same(load_features(workspace.features), features)
    assert load_features(workspace.features).encoder == tiny_encoder.identity


def test_what_features_p_has_is_not_computed_again(workspace, tiny_encoder, computed):
    names = workspace.image_names()
    arguments = (workspace.images, names, workspace.features, 4)
    first = extract_features(tiny_encoder, workspace.images, names[:3], workspace.features, 4)
    assert computed == [3]
    whole = extract_features(tiny_encoder, *arguments)
    assert computed == [3, 4, 4, 1]
    assert_same(Features({name: whole.vectors[name] for name in names[:3]}), first)
    assert_same(extract_features(tiny_encoder, *arguments), whole)
    assert computed == [3, 4, 4, 1]


def test_an_interrupted_run_goes_on_where_it_stopped(workspace, tmp_path, tiny_encoder, monkeypatch, request):
    names = workspace.image_names()
    arguments = (workspace.images, names, workspace.features, 5)
    whole = extract_features(tiny_encoder, workspace.images, names, tmp_path / "whole.p", 5)
    interrupt_after(1, tiny_encoder, monkeypatch, *arguments)
    assert not workspace.features.exists()

    computed = request.getfixturevalue("computed")
    resumed = extract_features(tiny_encoder, *arguments)
    assert computed == [5, 2]  # of 12
    assert_same(resumed, whole)
    assert not Path(f"{workspace.features}.part").exists()


def test_an_interrupted_run_keeps_the_earlier_features_p(workspace, tiny_encoder, monkeypatch):
    names = workspace.image_names()
    earlier = extract_features(tiny_encoder, workspace.images, names[:2], workspace.features, 5)
    interrupt_after(1, tiny_encoder, monkeypatch, workspace.images, names, workspace.features, 5)
    assert_same(load_features(workspace.features), earlier)


@pytest.mark.parametrize("lost", [1, 40])
def test_a_torn_part_file_costs_only_its_last_batch(workspace, tmp_path, tiny_encoder, monkeypatch, request, lost):
    names = workspace.image_names()
    arguments = (workspace.images, names, workspace.features, 3)
    whole = extract_features(tiny_encoder, workspace.images, names, tmp_path / "whole.p", 3)
    interrupt_after(3, tiny_encoder, monkeypatch, *arguments)
    part = Path(f"{workspace.features}.part")
    part.write_bytes(part.read_bytes()[:-lost])
    interrupt_after(0, tiny_encoder, monkeypatch, *arguments)  # what is saved of it must survive another interruption

    computed = request.getfixturevalue("computed")
    assert_same(extract_features(tiny_encoder, *arguments), whole)
    assert computed == [3, 3]  # the batch that was torn and the last one


def other(encoder: Encoder) -> Encoder:
    """The same network with other weights."""
    encoder.backbone.set_weights([weight * 2 + 0.1 for weight in encoder.backbone.get_weights()])
    return encoder


def test_vectors_of_another_encoder_are_never_mixed_in(workspace, tmp_path, tiny_encoder, monkeypatch):
    names = workspace.image_names()
    extract_features(tiny_encoder, workspace.images, names[:4], workspace.features, 4)
    interrupt_after(1, tiny_encoder, monkeypatch, workspace.images, names, workspace.features, 4)
    encoder = other(tiny_encoder)
    whole = extract_features(encoder, workspace.images, names, tmp_path / "whole.p", 4)
    features = extract_features(encoder, workspace.images, names, workspace.features, 4)
    assert_same(features, whole)
    assert load_features(workspace.features).encoder == encoder.identity
    [kept] = set(workspace.outputs.glob("*.p")) - {workspace.features}
    assert kept.name.startswith(f"features_{tiny_encoder.row.name}_")
    assert list(load_features(kept).vectors) == names[:4]


def test_the_same_weights_under_another_row_are_another_encoder(workspace, tiny_encoder, computed):
    names = workspace.image_names()
    extract_features(tiny_encoder, workspace.images, names, workspace.features)
    renamed = dataclasses.replace(tiny_encoder, row=dataclasses.replace(tiny_encoder.row, name="another"))
    assert extract_features(renamed, workspace.images, names, workspace.features).encoder.name == "another"
    assert computed == [12, 12]


def test_vectors_that_do_not_say_what_made_them_are_not_mixed_in(workspace, tiny_encoder, computed):
    names = workspace.image_names()
    save_features(Features({name: np.zeros(6, np.float32) for name in names}), workspace.features)
    assert load_features(workspace.features).encoder is None
    extract_features(tiny_encoder, workspace.images, names, workspace.features)
    assert computed == [12]
    assert load_features(workspace.features.with_name("features_unknown.p")).encoder is None


def test_broken_images_are_named_at_the_end_and_the_others_done(workspace, tiny_encoder):
    names = workspace.image_names()
    (workspace.images / names[0]).write_bytes(b"broken")
    (workspace.images / names[7]).unlink()
    for path in (names[8], names[9], names[10], names[11]):
        (workspace.images / path).write_bytes(b"")  # a whole batch of them
    features = extract_features(tiny_encoder, workspace.images, names, workspace.features, batch_size=4)
    assert list(features.vectors) == names[1:7]
    assert len(features.errors) == 6
    assert all(name in error for name, error in zip([names[0], *names[7:]], features.errors, strict=True))
    assert list(load_features(workspace.features).vectors) == names[1:7]


def test_a_mended_image_is_taken_up_by_the_next_run(workspace, tiny_encoder, computed):
    names = workspace.image_names()
    good = (workspace.images / names[3]).read_bytes()
    (workspace.images / names[3]).write_bytes(b"broken")
    extract_features(tiny_encoder, workspace.images, names, workspace.features)
    (workspace.images / names[3]).write_bytes(good)
    assert list(extract_features(tiny_encoder, workspace.images, names, workspace.features).vectors) == names
    assert computed == [11, 1]


def test_when_all_images_are_broken_nothing_is_written(workspace, tiny_encoder):
    names = workspace.image_names()
    for name in names:
        (workspace.images / name).write_bytes(b"broken")
    with pytest.raises(CaptionError, match=f"none of the 12 images in {workspace.images}.*{names[0]}"):
        extract_features(tiny_encoder, workspace.images, names, workspace.features)
    assert not workspace.features.exists()


def test_without_any_image_there_are_no_features(workspace, tiny_encoder):
    with pytest.raises(CaptionError, match="none of the 0 images"):
        extract_features(tiny_encoder, workspace.images, [], workspace.features)


def test_outputs_are_made_where_there_is_no_folder_yet(workspace, tmp_path, tiny_encoder):
    path = tmp_path / "new" / "outputs" / "features.p"
    extract_features(tiny_encoder, workspace.images, workspace.image_names()[:2], path)
    assert {p.name for p in path.parent.iterdir()} == {".lock", "features.p"}


@pytest.mark.parametrize(
    "values",
    [[], [["a.jpg"]], ["text"], [None], [{"a.jpg": "text"}], [{"a.jpg": np.zeros(6)}, {"name": "x", "version": 2}]],
    ids=["empty", "list", "text", "none", "no vectors", "another encoder's words"],
)
def test_a_pickle_of_something_else_is_one_sentence(tmp_path, values):
    (tmp_path / "features.p").write_bytes(b"".join(map(pickle.dumps, values)))
    with pytest.raises(CaptionError, match=r"features\.p does not hold feature vectors.*notebook 2"):
        load_features(tmp_path / "features.p")


def test_a_missing_features_p_is_one_sentence(tmp_path):
    with pytest.raises(CaptionError, match=r"features\.p does not exist: run notebook 2"):
        load_features(tmp_path / "features.p")


def test_features_of_other_precision_are_read_as_float32(tmp_path):
    with open(tmp_path / "features.p", "wb") as file:  # one pickle, as others write it
        pickle.dump({"a.jpg": np.arange(6, dtype=np.float64)}, file, protocol=2)
    features = load_features(tmp_path / "features.p")
    assert features.vectors["a.jpg"].dtype == np.float32
    assert features.vectors["a.jpg"].tolist() == [0, 1, 2, 3, 4, 5]
    assert features.encoder is None


def test_the_matrix_has_the_vectors_in_the_order_of_the_names():
    features = Features({name: np.full(6, i, np.float32) for i, name in enumerate("abc")}, IDENTITY)
    matrix = features.matrix(["c", "a", "c"])
    assert (matrix.shape, matrix.dtype) == ((3, 6), np.float32)
    assert matrix[:, 0].tolist() == [2, 0, 2]


def test_a_matrix_of_images_without_vectors_is_refused_with_a_count_and_a_name():
    features = Features({"a": np.zeros(6, np.float32)}, IDENTITY)
    with pytest.raises(CaptionError, match=r"lacks 2 of 3 images, b among them.*notebook 2"):
        features.matrix(["a", "b", "c"])


def test_features_p_has_the_same_bytes_after_an_interruption_at_any_batch(
    workspace, tmp_path, tiny_encoder, monkeypatch
):
    names = workspace.image_names()
    extract_features(tiny_encoder, workspace.images, names, tmp_path / "whole.p", 5)
    whole = (tmp_path / "whole.p").read_bytes()
    for batches in (1, 2):
        path = tmp_path / str(batches) / "features.p"
        interrupt_after(batches, tiny_encoder, monkeypatch, workspace.images, names, path, 5)
        extract_features(tiny_encoder, workspace.images, names, path, 5)
        assert path.read_bytes() == whole
    extract_features(tiny_encoder, workspace.images, names[:5], tmp_path / "grown.p", 5)
    extract_features(tiny_encoder, workspace.images, names, tmp_path / "grown.p", 5)
    assert (tmp_path / "grown.p").read_bytes() == whole


@pytest.mark.parametrize(
    "values",
    [
        (7,),
        ([1, 2],),
        ({"a.jpg": "text"},),
        ({"a.jpg": 10**100},),
        ({"a.jpg": np.array([1, np.nan], np.float32)},),
        ({"a.jpg": np.array([1, 1e300])},),
        ({"a.jpg": np.array([1, 2j])},),
        ({"a.jpg": np.array(["a", "b"])},),
        ({"a.jpg": np.float32(3)},),
        ({3: np.zeros(6, np.float32)},),
        ({"a.jpg": np.zeros(6, np.float32), "b.jpg": np.zeros(7, np.float32)},),
        ({"a.jpg": np.zeros(7, np.float32)}, IDENTITY.to_dict()),
        ({"a.jpg": np.zeros(6, np.float32)}, "tiny"),
        ({"a.jpg": np.zeros(6, np.float32)}, {"name": "tiny"}),
        ({"a.jpg": np.zeros(6, np.float32)}, IDENTITY.to_dict() | {"weights": "\x1b[2J"}),
        ({"a.jpg": np.zeros(6, np.float32)}, IDENTITY.to_dict() | {"feature_size": 6.0}),
    ],
)
def test_what_is_no_table_of_vectors_is_one_sentence(values, tmp_path):
    save_pickle(tmp_path / "features.p", *values)
    with pytest.raises(CaptionError, match=r"features\.p .*notebook 2|features\.p is not a pickle of plain data"):
        load_features(tmp_path / "features.p")


@pytest.mark.parametrize("left", [b"", b"torn", pickle.dumps(7), pickle.dumps((1, 2, 3)), pickle.dumps(({}, 7))])
def test_a_part_that_is_no_batch_is_done_again(left, workspace, tiny_encoder, tmp_path):
    names = workspace.image_names()
    whole = extract_features(tiny_encoder, workspace.images, names, tmp_path / "whole.p", 5)
    Path(f"{workspace.features}.part").write_bytes(left)
    assert_same(extract_features(tiny_encoder, workspace.images, names, workspace.features, 5), whole)
    assert not Path(f"{workspace.features}.part").exists()


def test_two_runs_do_not_write_into_one_folder(workspace, tiny_encoder):
    with only_run(workspace.outputs), pytest.raises(CaptionError, match="another run is writing"):
        extract_features(tiny_encoder, workspace.images, workspace.image_names(), workspace.features)
    assert not workspace.features.exists()
