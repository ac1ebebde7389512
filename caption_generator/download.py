"""Fetching the full Flickr8k: 8,091 photos and their captions, about 1.1 GB."""

import shutil
import zipfile
from pathlib import Path

import keras

from caption_generator.common.errors import CaptionError
from caption_generator.workspace import Workspace

RELEASE = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k/"
IMAGES_ZIP, TEXT_ZIP = "Flickr8k_Dataset.zip", "Flickr8k_text.zip"


def download_flickr8k(workspace: Workspace, release: str = RELEASE) -> None:
    """Fetch Flickr8k into the workspace, showing a progress bar; what is there already is not fetched again.

    An archive stays in Keras' cache until it is unpacked. Run it again after an interruption: an archive that is whole
    is not fetched again.

    Args:
        release: the address that the two archives lie under, with its last slash.

    Raises:
        CaptionError: the download failed, or an archive is damaged.
    """
    _fetch(release + TEXT_ZIP, workspace.inputs / "Flickr8k_text", unpacked="Flickr8k.token.txt")
    _fetch(release + IMAGES_ZIP, workspace.images, unpacked="*.jpg")


def _fetch(url: str, folder: Path, unpacked: str) -> None:
    """Download and unpack one archive, unless `folder` has what it holds."""
    unfinished = folder.with_name(f".{folder.name}-unpacking")  # while it is there, `folder` may lack files
    if any(folder.glob(unpacked)) and not unfinished.exists():
        return
    try:
        archive = Path(keras.utils.get_file(origin=url, cache_subdir="flickr8k"))
    except Exception as error:  # urllib, sockets and Keras each have their own
        raise CaptionError(
            f"{url} could not be downloaded ({error}): check the connection and run this again."
        ) from error
    try:
        with zipfile.ZipFile(archive) as content:
            content.extractall(unfinished)
    except OSError as error:  # the archive may be sound, and the disk full
        raise CaptionError(
            f"{archive} cannot be unpacked into {folder.parent} ({error.strerror}): put that right and run this again."
        ) from error
    except Exception as error:  # zipfile, zlib and the decoders of names each have their own
        archive.unlink()
        shutil.rmtree(unfinished, ignore_errors=True)
        raise CaptionError(f"{archive} is damaged ({error}) and was removed: run this again.") from error
    # One archive unpacks to Flicker8k_Dataset/, its own spelling, the other to loose files; both bring __MACOSX along.
    folder.mkdir(parents=True, exist_ok=True)
    for file in unfinished.rglob("*"):
        if file.is_file() and "__MACOSX" not in file.parts and not file.name.startswith("."):
            file.replace(folder / file.name)
    shutil.rmtree(unfinished)
    archive.unlink()
