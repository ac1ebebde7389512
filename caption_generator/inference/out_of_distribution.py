"""The out-of-distribution score: has the model ever seen anything like this photo?

A decoder writes a fluent sentence about anything, and is hardly less sure of it when the photo shows noise, a bare wall
or a page of print. The encoder does see the difference: the features of photos point in roughly the same direction,
and those of such pictures do not.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Familiarity:
    """How much a photo resembles the training photos: 0, like none of them, to 1, like most of them.

    Attributes:
        mean: the mean direction of the training photos' features, float32 of shape (feature_size,).
        lowest: the cosine with it below which the familiarity is 0.
        usual: the cosine above which it is 1.
    """

    mean: np.ndarray
    lowest: float
    usual: float

    @classmethod
    def fit(cls, features: np.ndarray) -> "Familiarity":
        """Learn what is usual from the features of photos, of shape (photos, ..., feature_size).

        One training photo in twenty is less than usual, and one in a thousand has familiarity 0.
        """
        photos = directions(features)
        mean = photos.mean(axis=0)
        lowest, usual = np.quantile(photos @ mean, (0.001, 0.05))
        return cls(mean, float(lowest), float(usual))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """The familiarity of each photo, (photos,), from features of shape (photos, ..., feature_size)."""
        cosines = directions(features) @ self.mean
        return np.clip((cosines - self.lowest) / max(self.usual - self.lowest, 1e-6), 0, 1)


def mean_of_grid(features: np.ndarray) -> np.ndarray:
    """One vector for each photo, (photos, feature_size), from features of shape (photos, ..., feature_size)."""
    return features.reshape(len(features), -1, features.shape[-1]).mean(axis=1)


def directions(features: np.ndarray) -> np.ndarray:
    """The mean of each photo's features, (photos, feature_size), as a vector of length 1."""
    vectors = mean_of_grid(features)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
