"""A `features.p` of a Keras 2 project."""

from pathlib import Path
from typing import Any

import numpy as np

from caption_generator.common.errors import CaptionError
from caption_generator.encoders import EncoderIdentity
from caption_generator.features import Features
from caption_generator.legacy.pickles import unpickle


def read_features(path: str | Path, identity: EncoderIdentity) -> Features:
    """Convert a pickled dictionary of image names to float arrays of shape (1, feature_size) or (feature_size,).

    Args:
        identity: the encoder that made them, on the word of the user, for the file does not say.

    Returns:
        Features in float32; names without a suffix get `.jpg`.

    Raises:
        CaptionError: the file is missing, torn, holds something else, or vectors of another length than the encoder's.
    """
    loaded = unpickle(path)
    if not isinstance(loaded, dict) or not loaded or not all(_is_vector(*item) for item in loaded.items()):
        raise CaptionError(
            f"{path} does not hold a feature vector for each image name: name the features.p of the other project."
        )
    for name, vector in loaded.items():
        check_feature_size(f"the vector of {name} in {path}", vector.size, identity)
    return Features(
        {
            name if Path(name).suffix else f"{name}.jpg": vector.astype(np.float32).reshape(-1)
            for name, vector in loaded.items()
        },
        identity,
    )


def _is_vector(name: Any, value: Any) -> bool:
    is_float = isinstance(value, np.ndarray) and value.dtype.kind == "f"
    return isinstance(name, str) and is_float and value.ndim in (1, 2) and value.size == value.shape[-1]


def check_feature_size(what: str, size: int, identity: EncoderIdentity) -> None:
    if size != identity.feature_size:
        raise CaptionError(
            f"{what} has {size} numbers, and the encoder {identity.name} makes {identity.feature_size}: "
            "name the encoder that was used with --encoder."
        )
