"""Tests of webapp.heat_maps."""

import numpy as np

from webapp.heat_maps import heat_map


def test_the_map_has_the_shape_of_the_photo_and_is_clear_where_the_model_looked():
    weights = np.zeros(49, np.float32)
    weights[7 * 3 + 6] = 1.0  # the middle of the right side
    heat = heat_map(weights, (7, 7), (800, 400))
    assert (heat.mode, heat.size) == ("RGBA", (64, 32))
    alpha = np.asarray(heat)[..., 3]
    assert alpha[16, 60] < 60
    assert alpha[16, 10] > 180
    assert alpha[2, 60] > 180


def test_even_attention_is_no_error():
    assert heat_map(np.full(6, 1 / 6, np.float32), (2, 3), (10, 4000)).size == (1, 64)
