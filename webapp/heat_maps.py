"""Where the model looked, as a picture to lay over the photo."""

import numpy as np
from PIL import Image

LONG_SIDE = 64  # the browser scales it up smoothly
NIGHT, LIGHT = np.array((18, 16, 34)), np.array((255, 176, 64))


def heat_map(weights: np.ndarray, grid: tuple[int, int], photo_size: tuple[int, int]) -> Image.Image:
    """The attention of one word: dark where the model did not look, clear and a little golden where it did.

    Args:
        weights: the attention weights, float32 of shape (positions,).
        grid: rows and columns.
        photo_size: width and height of the photo. The map has the same shape.

    Returns:
        An RGBA picture.
    """
    heat = weights.reshape(grid).astype(np.float32)
    heat = (heat - heat.min()) / max(float(np.ptp(heat)), 1e-6)
    scale = LONG_SIDE / max(photo_size)
    size = tuple(max(1, round(scale * side)) for side in photo_size)
    heat = np.asarray(Image.fromarray(heat).resize(size, Image.Resampling.BICUBIC)).clip(0, 1)[..., None]
    colour = NIGHT + (LIGHT - NIGHT) * heat
    alpha = 0.74 * (1 - heat) ** 1.5 + 0.16 * heat
    return Image.fromarray(np.concatenate([colour, 255 * alpha], axis=2).round().astype(np.uint8), "RGBA")
