"""Flickr8k arrives whole, in the folders that the package reads, and however often one has to try."""

import urllib.error
import zipfile
from pathlib import Path

import pytest

from caption_generator.common.errors import CaptionError
from caption_generator.download import IMAGES_ZIP, RELEASE, TEXT_ZIP, download_flickr8k
from caption_generator.workspace import Workspace

TEXTS = {
    "CrowdFlowerAnnotations.txt": "",
    "Flickr8k.token.txt": "a.jpg#0\tA dog .\n",
    "Flickr_8k.trainImages.txt": "a.jpg\n",
    "readme.txt": "read me",
    "__MACOSX/._Flickr8k.token.txt": "junk",
}
IMAGES = {
    "Flicker8k_Dataset/a.jpg": "photo a" * 100,
    "Flicker8k_Dataset/b.jpg": "photo b" * 100,
    "Flicker8k_Dataset/.DS_Store": "junk",
    "__MACOSX/Flicker8k_Dataset/._a.jpg": "junk",
    "__MACOSX/Flicker8k_Dataset/c.jpg": "junk",
}

pytestmark = pytest.mark.usefixtures("keras_home")


def zipped(path: Path, content: dict[str, str]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in content.items():
            archive.writestr(name, text)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """The two archives, laid out with the oddities of the official ones."""
    folder = tmp_path / "release"
    folder.mkdir()
    zipped(folder / TEXT_ZIP, TEXTS)
    zipped(folder / IMAGES_ZIP, IMAGES)
    return folder


@pytest.fixture
def empty(tmp_path: Path) -> Workspace:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return Workspace(folder, folder)


def address(release: Path) -> str:
    return f"{release.as_uri()}/"


def contents(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


WHOLE = [
    "Flickr8k_Dataset/a.jpg",
    "Flickr8k_Dataset/b.jpg",
    "Flickr8k_text/CrowdFlowerAnnotations.txt",
    "Flickr8k_text/Flickr8k.token.txt",
    "Flickr8k_text/Flickr_8k.trainImages.txt",
    "Flickr8k_text/readme.txt",
]


def test_both_archives_land_where_the_package_reads_them(empty, release, keras_home):
    download_flickr8k(empty, address(release))
    assert contents(empty.inputs) == WHOLE
    assert empty.captions.read_text() == TEXTS["Flickr8k.token.txt"]
    assert (empty.images / "a.jpg").read_text() == "photo a" * 100
    assert sorted(path.name for path in empty.inputs.iterdir()) == ["Flickr8k_Dataset", "Flickr8k_text"]
    assert contents(keras_home) == []  # the archives have served


def test_what_is_there_is_not_fetched_again(empty, release):
    download_flickr8k(empty, address(release))
    (empty.images / "a.jpg").write_text("my own")
    for archive in release.iterdir():
        archive.unlink()
    download_flickr8k(empty, address(release))
    assert (empty.images / "a.jpg").read_text() == "my own"


@pytest.mark.parametrize("spelling", ["Flicker8k_Dataset", "Images"])
def test_images_under_another_spelling_are_not_fetched_again(empty, release, spelling):
    (empty.inputs / spelling).mkdir()
    (empty.inputs / spelling / "a.jpg").touch()
    (release / IMAGES_ZIP).unlink()
    download_flickr8k(empty, address(release))
    assert empty.images.name == spelling


def test_a_failed_download_leaves_nothing_half_done_and_a_second_run_finishes(empty, release, keras_home):
    (release / IMAGES_ZIP).rename(release / "elsewhere")
    with pytest.raises(CaptionError, match=rf"{IMAGES_ZIP} could not be downloaded.*run this again"):
        download_flickr8k(empty, address(release))
    assert not empty.images.exists()
    assert contents(keras_home) == []
    (release / "elsewhere").rename(release / IMAGES_ZIP)
    download_flickr8k(empty, address(release))
    assert contents(empty.inputs) == WHOLE


def test_without_network_the_sentence_names_the_official_address(empty, monkeypatch):
    from keras.src.utils import file_utils

    def refused(*_):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(file_utils, "urlretrieve", refused)
    with pytest.raises(CaptionError) as error:
        download_flickr8k(empty)
    assert f"{RELEASE}{TEXT_ZIP} could not be downloaded" in str(error.value)
    assert "not known" in str(error.value)
    assert contents(empty.inputs) == []


def corrupt(path: Path, how: str) -> None:
    stored = path.read_bytes()
    if how == "half":
        path.write_bytes(stored[: len(stored) // 2])
    elif how == "page":
        path.write_text("<html>404</html>")
    else:  # in the first file's compressed bytes, after its 30 bytes of header and its name
        middle = 30 + len("Flicker8k_Dataset/a.jpg") + 4
        path.write_bytes(
            stored[:middle] + bytes(255 - byte for byte in stored[middle : middle + 6]) + stored[middle + 6 :]
        )


@pytest.mark.parametrize("how", ["half", "page", "bytes"])
def test_a_damaged_archive_is_removed_and_a_second_run_finishes(empty, release, keras_home, how):
    good = (release / IMAGES_ZIP).read_bytes()
    corrupt(release / IMAGES_ZIP, how)
    with pytest.raises(CaptionError, match=rf"{IMAGES_ZIP} is damaged.*removed: run this again"):
        download_flickr8k(empty, address(release))
    assert contents(keras_home) == []
    assert not empty.images.exists()
    (release / IMAGES_ZIP).write_bytes(good)
    download_flickr8k(empty, address(release))
    assert contents(empty.inputs) == WHOLE


def test_an_interruption_while_files_are_moved_is_made_good_by_a_second_run(empty, release, monkeypatch):
    move, moved = Path.replace, []

    def interrupted(self, target):
        if Path(target).suffix == ".jpg":
            if moved:
                raise KeyboardInterrupt
            moved.append(target)
        return move(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            download_flickr8k(empty, address(release))
    assert len(contents(empty.images)) == 1
    download_flickr8k(empty, address(release))
    assert contents(empty.inputs) == WHOLE


def test_a_full_disk_does_not_cost_the_archive(empty, release, keras_home, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "extractall", full)
        with pytest.raises(CaptionError, match=r"cannot be unpacked into .*No space left.*run this again"):
            download_flickr8k(empty, address(release))
    assert contents(keras_home) == [f"flickr8k/{TEXT_ZIP}"]
    download_flickr8k(empty, address(release))
    assert contents(empty.inputs) == WHOLE


def test_a_path_out_of_the_folder_stays_inside(empty, release, tmp_path):
    zipped(release / TEXT_ZIP, TEXTS | {"../../escaped.txt": "outside"})
    download_flickr8k(empty, address(release))
    assert not (tmp_path / "escaped.txt").exists()
    assert (empty.texts / "escaped.txt").read_text() == "outside"
