"""The workspace is the user's choice, else the repository with Flickr8k in it, else the sample."""

import os
import subprocess
import sys

import pytest

from caption_generator import workspace as module
from caption_generator.captions import read_captions, save_descriptions
from caption_generator.common.errors import CaptionError
from caption_generator.workspace import (
    CAPTION_FILES,
    IMAGE_FOLDERS,
    ROOT,
    SAMPLE,
    Workspace,
    announce,
    find_workspace,
    missing_model,
)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """An empty folder in the repository's place."""
    root = tmp_path / "repository"
    (root / "sample").mkdir(parents=True)
    monkeypatch.setattr(module, "ROOT", root)
    monkeypatch.setattr(module, "SAMPLE", root / "sample")
    return root


def test_the_environment_chooses_the_workspace(workspace, monkeypatch):
    monkeypatch.setenv("CAPTION_WORKSPACE", str(workspace.inputs))
    assert find_workspace() == workspace
    assert announce(workspace) == f"Workspace: {workspace.inputs}"


def test_relative_folders_are_relative_to_the_repository_wherever_one_is(repository, tmp_path, monkeypatch):
    (repository / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAPTION_WORKSPACE", "other")
    monkeypatch.setenv("CAPTION_OUTPUTS", "results/new")
    assert find_workspace() == Workspace(repository / "other", repository / "results" / "new")


def test_the_home_folder_may_be_written_as_a_tilde(workspace, monkeypatch):
    monkeypatch.setenv("HOME", str(workspace.inputs.parent))
    monkeypatch.setenv("CAPTION_WORKSPACE", f"~/{workspace.inputs.name}")
    monkeypatch.setenv("CAPTION_OUTPUTS", "~/results")
    assert find_workspace() == Workspace(workspace.inputs, workspace.inputs.parent / "results")


def test_a_workspace_that_does_not_exist_is_refused_by_name(monkeypatch):
    monkeypatch.setenv("CAPTION_WORKSPACE", "/no/such/folder")
    with pytest.raises(CaptionError, match=r"CAPTION_WORKSPACE=/no/such/folder.*Flickr8k_Dataset/"):
        find_workspace()


@pytest.mark.parametrize("variable", ["CAPTION_WORKSPACE", "CAPTION_OUTPUTS"])
def test_the_home_of_somebody_who_is_not_there_is_refused_by_name(variable, workspace, monkeypatch):
    monkeypatch.setenv("CAPTION_WORKSPACE", str(workspace.inputs))
    monkeypatch.setenv(variable, "~nobody-of-this-name/x")
    with pytest.raises(CaptionError, match=f"{variable}=~nobody-of-this-name/x is no folder"):
        find_workspace()


def test_a_workspace_that_may_not_be_read_is_refused_by_name(workspace, monkeypatch):
    monkeypatch.setenv("CAPTION_WORKSPACE", str(workspace.inputs))
    monkeypatch.setattr(module.os, "access", lambda *_: False)
    with pytest.raises(CaptionError, match="is not a folder that can be read"):
        find_workspace()


def test_images_that_may_not_be_listed_are_one_sentence(workspace, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(module.Path, "iterdir", refuse)
    with pytest.raises(CaptionError, match=r"cannot look into .*Flickr8k_Dataset \(Permission denied\)"):
        workspace.image_names()


@pytest.mark.parametrize("folder", IMAGE_FOLDERS)
def test_the_repository_is_the_workspace_once_it_holds_images(repository, folder):
    assert find_workspace().inputs == repository / "sample"
    (repository / folder).mkdir()
    assert find_workspace().inputs == repository / "sample"  # a folder alone is not yet a dataset
    (repository / folder / "photo.jpg").touch()
    assert find_workspace() == Workspace(repository, repository)
    assert announce(find_workspace()) == "Workspace: the repository"


def test_the_sample_is_announced_as_such_however_it_was_chosen(monkeypatch, repository):
    by_default = find_workspace()
    monkeypatch.setenv("CAPTION_WORKSPACE", str(repository / "sample"))
    assert find_workspace() == by_default
    assert by_default.is_sample
    assert "sample/" in announce(by_default) and "Flickr8k" in announce(by_default)


def test_outputs_can_go_elsewhere_so_that_inputs_are_never_written_to(workspace, tmp_path, monkeypatch):
    outputs = tmp_path / "results"
    monkeypatch.setenv("CAPTION_WORKSPACE", str(workspace.inputs))
    monkeypatch.setenv("CAPTION_OUTPUTS", str(outputs))
    before = sorted(os.walk(workspace.inputs))
    for path in (workspace.images, workspace.texts, workspace.inputs):
        path.chmod(0o555)
    try:
        chosen = find_workspace()
        save_descriptions(read_captions(chosen.captions).captions, chosen.descriptions)
    finally:
        for path in (workspace.images, workspace.texts, workspace.inputs):
            path.chmod(0o755)
    assert chosen.descriptions == outputs / "descriptions.txt"
    assert chosen.descriptions.is_file()
    assert sorted(os.walk(workspace.inputs)) == before
    assert str(workspace.inputs) in announce(chosen) and str(outputs) in announce(chosen)


def test_outputs_elsewhere_do_not_make_the_sample_another_dataset(monkeypatch, tmp_path):
    monkeypatch.setenv("CAPTION_WORKSPACE", str(SAMPLE))
    monkeypatch.setenv("CAPTION_OUTPUTS", str(tmp_path))
    if not SAMPLE.is_dir():
        pytest.skip("the sample is not in this checkout")
    assert find_workspace().is_sample


def test_every_result_lies_in_the_outputs(tmp_path):
    workspace = Workspace(tmp_path / "in", tmp_path / "out")
    results = ["descriptions", "features", "tokenizer", "models", "best_model", "diagram"]
    assert {getattr(workspace, result).relative_to(tmp_path / "out").as_posix() for result in results} == {
        "descriptions.txt",
        "features.p",
        "tokenizer.p",
        "models",
        "models/model_best.h5",
        "model.png",
    }


@pytest.mark.parametrize("spelling", IMAGE_FOLDERS)
def test_every_spelling_of_the_image_folder_is_found(tmp_path, spelling):
    (tmp_path / spelling).mkdir()
    assert Workspace(tmp_path, tmp_path).images == tmp_path / spelling


def put(*paths) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["Flickr8k_Dataset/readme.txt", "Flicker8k_Dataset/a.jpg"], "Flicker8k_Dataset"),
        (["Flickr8k_Dataset/.gitkeep", "Images/a.JPG"], "Images"),
        (["Flickr8k_Dataset/Flicker8k_Dataset/a.jpg"], "Flickr8k_Dataset/Flicker8k_Dataset"),
        (["Flickr8k_Dataset/__MACOSX/._a.jpg", "Flickr8k_Dataset/photos/a.avif"], "Flickr8k_Dataset/photos"),
        (["Flickr8k_Dataset/.cache/a.jpg", "Images/a.jfif"], "Images"),
        (["Flickr8k_Dataset/x.jpg/a.jpg", "Images/a.jpg"], "Flickr8k_Dataset/x.jpg"),
        (["Flickr8k_Dataset/a.jpg", "Images/b.jpg"], "Flickr8k_Dataset"),
        (["Flickr8k_Dataset/sub/a.jpg", "Flickr8k_Dataset/b.jpg"], "Flickr8k_Dataset"),
        (["flickr30k_images/flickr30k_images/a.jpg"], "flickr30k_images/flickr30k_images"),
        (["Flickr8k_Dataset/one/two/a.jpg"], "Flickr8k_Dataset"),  # one level down is as far as it goes
    ],
)
def test_the_first_image_folder_that_holds_pictures_wins(tmp_path, files, chosen):
    (tmp_path / "Flickr8k_Dataset").mkdir()
    put(*(tmp_path / file for file in files))
    assert Workspace(tmp_path, tmp_path).images == tmp_path / chosen


def test_the_repositorys_own_empty_folder_hides_no_dataset(repository):
    put(repository / "Flickr8k_Dataset" / ".gitkeep", repository / "Flicker8k_Dataset" / "a.jpg")
    assert find_workspace() == Workspace(repository, repository)
    assert find_workspace().image_names() == ["a.jpg"]


def test_pictures_that_come_later_are_found(tmp_path):
    workspace = Workspace(tmp_path, tmp_path)
    assert workspace.images == tmp_path / "Flickr8k_Dataset"
    put(tmp_path / "Images" / "a.jpg")
    assert workspace.images == tmp_path / "Images"
    assert workspace == Workspace(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["Flickr8k_text/captions_val2017.json", "Flickr8k_text/notes.txt"], "Flickr8k_text/captions_val2017.json"),
        (["Flickr8k_text/my captions.csv"], "Flickr8k_text/my captions.csv"),
        (["seg.flickr8kzhb.caption.txt"], "seg.flickr8kzhb.caption.txt"),
        (["Flickr8k_text/photos.csv", "other.csv"], "Flickr8k_text/photos.csv"),
        (["Flickr8k_text/dataset_flickr8k.json"], "Flickr8k_text/dataset_flickr8k.json"),
        (["Flickr8k_text/captions_val2017.json", "captions.txt"], "captions.txt"),
        (["Flickr8k_text/Flickr_8k.trainImages.txt"], "Flickr8k_text/Flickr8k.token.txt"),
    ],
)
def test_caption_files_of_other_names_are_found_where_there_is_none_of_the_known(tmp_path, files, chosen):
    put(*(tmp_path / file for file in files))
    assert Workspace(tmp_path, tmp_path).captions == tmp_path / chosen


@pytest.mark.parametrize("spelling", CAPTION_FILES)
def test_every_place_of_the_caption_file_is_found(tmp_path, spelling):
    (tmp_path / spelling).parent.mkdir(exist_ok=True)
    (tmp_path / spelling).touch()
    workspace = Workspace(tmp_path, tmp_path)
    assert workspace.captions == tmp_path / spelling
    assert workspace.texts == workspace.captions.parent


def test_the_repositorys_own_requirements_are_no_captions(repository):
    (repository / "requirements-caption.txt").write_text("# What the script needs\n")
    assert Workspace(repository, repository).captions == repository / CAPTION_FILES[0]


def test_the_official_caption_file_comes_before_kaggles(workspace):
    (workspace.inputs / "captions.txt").touch()
    assert workspace.captions.name == "Flickr8k.token.txt"


def test_image_names_are_sorted_and_leave_out_what_is_no_picture(workspace):
    for name in ("z.JPEG", "a.webp", "b.avif", "c.jfif", "d.HEIC", "notes.txt", ".hidden.jpg", "Thumbs.db"):
        (workspace.images / name).touch()
    (workspace.images / "folder.jpg").mkdir()
    names = workspace.image_names()
    assert names == sorted(names)
    assert names[12:] == ["a.webp", "b.avif", "c.jfif", "d.HEIC", "z.JPEG"]


def test_listing_pictures_needs_no_pillow():
    code = "import sys, caption_generator.workspace; assert 'PIL' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_missing_image_folder_is_one_sentence_and_filled_by_notebook_1_in_the_repository_alone(tmp_path, monkeypatch):
    workspace = Workspace(tmp_path, tmp_path)
    with pytest.raises(CaptionError, match=r"Flickr8k_Dataset does not exist: put the photos there\.$"):
        workspace.image_names()
    monkeypatch.setattr(module, "ROOT", tmp_path)
    with pytest.raises(CaptionError, match=r"photos there, or fetch Flickr8k with the last cell of notebook 1\.$"):
        workspace.image_names()


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["glove.6B.zip"], "glove.6B.zip"),
        (["glove.6B.50d.txt", "glove.6B.zip"], "glove.6B.zip"),
        (["glove.6B.50d.txt", "glove.6B.200d.txt", "glove.6B.zip"], "glove.6B.200d.txt"),
        (["glove.6B.300d.txt", "glove.6B.100d.txt"], "glove.6B.100d.txt"),
    ],
)
def test_word_vectors_of_the_wanted_size_are_taken_then_an_archive_then_any_text(workspace, files, chosen):
    for name in files:
        (workspace.texts / name).touch()
    assert workspace.word_vectors(200) == workspace.texts / chosen


def test_missing_word_vectors_are_named_with_their_source(workspace):
    with pytest.raises(CaptionError, match=r"holds no word vectors: put glove\.6B\.zip .*nlp\.stanford\.edu"):
        workspace.word_vectors(200)


def test_a_missing_model_is_named_with_the_one_that_there_is(tmp_path, monkeypatch):
    outputs = tmp_path / "results"
    monkeypatch.setenv("CAPTION_OUTPUTS", str(outputs))
    monkeypatch.chdir(ROOT)
    ships = "or name the one that ships, models/bundled.h5."
    assert missing_model("none.h5") == f"none.h5 does not exist: train a model with notebook 4, {ships}"
    (outputs / "models").mkdir(parents=True)
    (outputs / "models" / "model_best.h5").touch()
    (outputs / "models" / "model_3.h5").touch()
    assert missing_model("none.h5").endswith(f": did you mean {outputs}/models/model_best.h5?")
    monkeypatch.chdir(tmp_path)
    for name in ("model_best.h5", "model_3.h5"):
        sentence = f"models/{name} does not exist: did you mean results/models/{name}?"
        assert missing_model(f"models/{name}") == sentence
    assert missing_model("models/bundled.h5").endswith(f": did you mean {ROOT}/models/bundled.h5?")


def test_for_a_missing_model_the_one_of_the_drawings_is_not_proposed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_workspace", lambda: Workspace(tmp_path, tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model_best.h5").touch()
    assert "did you mean" in missing_model("none.h5")
    monkeypatch.setattr(module, "SAMPLE", tmp_path)
    assert "did you mean" not in missing_model("none.h5")


def test_a_missing_model_that_ships_is_not_said_to_ship(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPTION_OUTPUTS", str(tmp_path))
    monkeypatch.setattr(module, "BUNDLED_MODEL", tmp_path / "bundled.h5")
    assert missing_model("none.h5") == "none.h5 does not exist: train a model with notebook 4."
