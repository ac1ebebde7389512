"""Step 2: images in, `features.p` out: one feature vector an image, made once and trained on many times."""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from caption_generator.common.console import progress
from caption_generator.common.errors import CaptionError
from caption_generator.common.files import appending, only_run
from caption_generator.common.numbers import finite
from caption_generator.common.pickles import load_pickles, save_pickle
from caption_generator.encoders import Encoder, EncoderIdentity
from caption_generator.images import load_batches
from caption_generator.inference.folding import compile_encoder


@dataclass
class Features:
    """Feature vectors and what made them.

    Attributes:
        vectors: image name to float32 features of shape (feature_size,), or (height, width, feature_size) for a grid.
        encoder: what made them; None for a file that does not say, as those of older projects.
        errors: one sentence for each image that could not be read.
    """

    vectors: dict[str, np.ndarray] = field(default_factory=dict)
    encoder: EncoderIdentity | None = None
    errors: list[str] = field(default_factory=list)

    def matrix(self, names: Sequence[str]) -> np.ndarray:
        """The features of `names` as one float32 array of shape (names, ..., feature_size).

        Raises:
            CaptionError: an image has no vector.
        """
        missing = [name for name in names if name not in self.vectors]
        if missing:
            raise CaptionError(
                f"features.p lacks {len(missing)} of {len(names)} images, {missing[0]} among them: extract them with "
                "notebook 2, and replace or remove those that it cannot read."
            )
        return np.stack([self.vectors[name] for name in names])


def save_features(features: Features, path: str | Path) -> None:
    """Write `features.p`: the dictionary that everyone expects, then a second pickle that says what made it."""
    # A view has NumPy's own float32. An array from a pickle has a copy of it, and would be pickled in other bytes.
    vectors = {name: vector.view(np.float32) for name, vector in features.vectors.items()}
    save_pickle(path, vectors, features.encoder.to_dict() if features.encoder else None)


def load_features(path: str | Path) -> Features:
    """Read `features.p`.

    Raises:
        CaptionError: the file is missing or is not what `save_features` wrote.
    """
    vectors, about, *_ = [*load_pickles(path, "run notebook 2, which writes it"), None, None]
    try:
        encoder = EncoderIdentity.from_dict(about) if about else None
        return Features(_checked(vectors, encoder), encoder)
    except (AttributeError, OverflowError, TypeError, ValueError) as error:
        raise CaptionError(
            f"{path} does not hold feature vectors by image name: remove it and extract them with notebook 2."
        ) from error


def _checked(vectors: Mapping[str, Any], encoder: EncoderIdentity | None) -> dict[str, np.ndarray]:
    """The vectors in float32, if they are all of one shape, and of the encoder's length.

    Raises:
        Exception: of several kinds, if they are something else.
    """
    found, shape = {}, None
    for name, vector in vectors.items():
        vector = np.asarray(vector)
        shape = shape or vector.shape
        if type(name) is not str or vector.dtype.kind not in "fiu" or vector.shape != shape or not vector.ndim:
            raise ValueError(f"{name!r} has no vector like the others")
        found[name] = finite(name, vector)
    if encoder and shape and shape[-1] != encoder.feature_size:
        raise ValueError(f"the vectors have {shape[-1]} numbers, not {encoder.feature_size}")
    return found


def extract_features(
    encoder: Encoder, folder: str | Path, names: Sequence[str], path: str | Path, batch_size: int = 32
) -> Features:
    """Run every image through the encoder and write `path`; images that `path` already has are not run again.

    Each finished batch is appended to a `.part` file beside `path`, so that an interrupted run goes on where it
    stopped. Vectors of another encoder are never mixed in: their file is kept beside `path`, under its encoder's name.

    Args:
        encoder: from `build_encoder`.
        folder: where the images are.
        names: the images' file names.
        path: `features.p`.

    Returns:
        The features of all `names` that could be read, with the broken ones named in `errors`.

    Raises:
        CaptionError: no image could be read, another run is writing, or the disk is full.
    """
    path = Path(path)
    with only_run(path.parent):
        part = Path(f"{path}.part")
        identity = encoder.identity
        vectors, kept = _already_done(path, part, identity)
        todo = [name for name in names if name not in vectors]
        if names and not todo and not part.exists():
            return Features({name: vectors[name] for name in names}, identity)
        encode, errors = compile_encoder(encoder), []

        with progress(total=len(names), initial=len(names) - len(todo), unit="image", desc="Features") as bar:
            for batch in load_batches([Path(folder, name) for name in todo], encoder.row.input_size, batch_size):
                if len(batch.paths):
                    computed = encode(batch.pixels)
                    done = dict(zip([p.name for p in batch.paths], computed, strict=True))
                    _append(part, identity, done)
                    vectors |= done
                errors += batch.errors
                bar.update(len(batch.paths) + len(batch.errors))

        features = Features({name: vectors[name] for name in names if name in vectors}, identity, errors)
        if not features.vectors:
            raise CaptionError(
                f"none of the {len(names)} images in {folder} could be read: {(errors or ['no image'])[0]}"
            )
        if kept:
            path.rename(kept)
        save_features(Features(vectors, identity), path)  # with what earlier runs added for other images
        part.unlink(missing_ok=True)
        return features


def _append(part: Path, identity: EncoderIdentity, vectors: dict[str, np.ndarray]) -> None:
    with appending(part) as file:
        pickle.dump((identity.to_dict(), vectors), file)


def _already_done(path: Path, part: Path, identity: EncoderIdentity) -> tuple[dict[str, np.ndarray], Path | None]:
    """What earlier runs of the same encoder left in `features.p` and in the `.part` file.

    The second result is where to keep a `features.p` of another encoder, which may have taken hours.
    """
    vectors: dict[str, np.ndarray] = {}
    kept = None
    if path.exists():
        earlier = load_features(path)
        if earlier.encoder == identity:
            vectors |= earlier.vectors
        else:
            found = earlier.encoder
            maker = f"{found.name}_{found.pooling}_{found.weights}" if found else "unknown"
            kept = path.with_name(f"{path.stem}_{maker}{path.suffix}")
    if part.exists():
        try:
            for made_by, batch in load_pickles(part, "run this again"):
                if made_by == identity.to_dict():
                    vectors |= _checked(batch, identity)
        except (AttributeError, CaptionError, OverflowError, TypeError, ValueError):
            part.unlink(missing_ok=True)  # the batch that was being written when the run was killed
            if vectors:
                _append(part, identity, vectors)
    return vectors, kept
