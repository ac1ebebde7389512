"""Tests of caption_generator.inference.out_of_distribution."""

import numpy as np
import pytest

from caption_generator.inference.out_of_distribution import Familiarity


@pytest.fixture
def photos() -> np.ndarray:
    """Features of 2000 photos that scatter around one direction."""
    return np.random.default_rng(0).normal(5, 1, (2000, 8)) * np.linspace(1, 2, 2000)[:, None]


def test_most_photos_are_wholly_familiar_and_nothing_is_not(photos):
    familiar = Familiarity.fit(photos)
    values = familiar(photos)
    assert ((values >= 0) & (values <= 1)).all()
    assert np.mean(values == 1) == pytest.approx(0.95, abs=0.001)
    assert np.mean(values == 0) == pytest.approx(0.001, abs=0.001)
    against = np.eye(8)[:3] * 10  # one feature and none of the others
    assert (familiar(against) == 0).all()


def test_familiarity_falls_steadily_as_a_photo_turns_away(photos):
    familiar = Familiarity.fit(photos)
    turning = np.linspace(0, 1, 200)[:, None]
    values = familiar((1 - turning) * familiar.mean + turning * np.eye(8)[0])
    assert values[0] == 1
    assert values[-1] == 0
    assert (np.diff(values) <= 0).all()
    assert ((values > 0.1) & (values < 0.9)).any()


def test_only_the_direction_counts(photos):
    familiar = Familiarity.fit(photos)
    np.testing.assert_allclose(familiar(100 * photos), familiar(photos), atol=1e-9)


def test_a_grid_counts_by_its_mean(photos):
    familiar = Familiarity.fit(photos)
    random = np.random.default_rng(1)
    grids = random.normal(4, 3, (20, 3, 2, 8))
    np.testing.assert_allclose(familiar(grids), familiar(grids.mean(axis=(1, 2))), atol=1e-9)
    assert 0 < familiar(grids).mean() < 1


def test_a_black_hole_of_features_is_unfamiliar(photos):
    assert Familiarity.fit(photos)(np.zeros((1, 8))).tolist() == [0]
