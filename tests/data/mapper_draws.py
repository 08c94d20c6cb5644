"""Random draws for the tests of the mappers."""

from __future__ import annotations

from seg_plugins.data.augmentations import Crop, Flip, ResizeShortestEdge, Turn

import numpy as np

GEOMETRY = (ResizeShortestEdge((96, 192), 400, as_range=True), Crop((80, 100)), Flip(), Turn())


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)
