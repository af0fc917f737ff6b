"""Photos with faces drawn into them."""

from __future__ import annotations

import numpy as np

from lib_faceid.face.types import Photo

from ..face_packs import CELL, Box, draw_marker, scene


def busy_scene(seed: int) -> Photo:
    """Up to nine faces of different sizes on no grid, one in each field of a 3 x 3 board."""
    rng = np.random.default_rng(seed)
    width, height = (int(side) for side in rng.integers(500, 1400, 2))
    photo = scene(width, height, seed)
    for row in range(3):
        for column in range(3):
            # Kept three cells of the detector apart, in which markers would run into each other.
            room = np.array([width, height]) / 3 - 40
            side = int(rng.uniform(0.4, 0.9) * room.min())
            x, y = (np.array([column, row]) * (room + 40) + 20 + rng.uniform(0, room - side)).astype(int)
            draw_marker(photo, (x, y, x + side, y + side), score=float(rng.uniform(0.4, 1.0)))
    return photo


def scene_with(*boxes: Box, width: int = 640, height: int = 640) -> Photo:
    photo = scene(width, height, seed=width + height)
    for box in boxes:
        draw_marker(photo, box)
    return photo


def step(photo: Photo, size: int = 640) -> float:
    """What one cell of the detector measures in the photo: its boxes cannot be finer."""
    return CELL * max(photo.shape[:2]) / size
