"""Draw one phantom: a body with two organs, lesions in one of them, the look of a modality.

Lengths are in units of the image's side. Nothing but the facts is to be read off an image: where
the organs lie, how wide the body is and where in its organ a lesion sits are drawn at random.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

SIDE = 64
MODALITIES = ("X-ray", "CT", "ultrasound", "microscopy")
SIDES = ("left", "right")
SIZES = ("small", "large")
MAX_LESIONS = 3

_RADIUS = {"small": 0.036, "large": 0.066}
_RIM = 0.88
"""Where the bright rim of a CT begins, as a share of the body's radius."""
_NUM_CELLS = 45
_CELL_RADIUS = 0.016
_GAPS = (0.05, 0.035, 0.02, 0.01, 0.01, 0.01)
"""Room between two lesions: less is asked for each time they did not fit."""
_SLOTS = (-0.85, 0.0, 0.85)

Pixels = NDArray[np.uint8]
_Plane = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is to be seen on one phantom; side and size are empty where no lesion is."""

    modality: str
    count: int
    side: str = ""
    size: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Organ:
    x: float
    y: float
    width: float
    height: float


def draw(facts: Facts, rng: np.random.Generator) -> Pixels:
    """Return the grey image of these facts."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) / SIDE + 0.5 / SIDE
    centre_x, centre_y = 0.5 + rng.uniform(-0.03, 0.03, 2)
    width, height = rng.uniform(0.40, 0.46), rng.uniform(0.38, 0.45)
    distance = np.sqrt(((x - centre_x) / width) ** 2 + ((y - centre_y) / height) ** 2)
    plane: _Plane = np.where(distance < 1, 0.50, 0.04).astype(np.float32)

    organ_width, organ_height = rng.uniform(0.125, 0.15), rng.uniform(0.23, 0.28)
    organs = {}
    for side, sign in zip(SIDES, (-1, 1), strict=True):
        organ = _Organ(
            x=centre_x + sign * 0.465 * width + rng.uniform(-0.01, 0.01),
            y=centre_y + rng.uniform(-0.02, 0.02),
            width=organ_width,
            height=organ_height,
        )
        inside = ((x - organ.x) / organ.width) ** 2 + ((y - organ.y) / organ.height) ** 2 < 1
        plane[inside] = 0.25
        organs[side] = organ

    plane = _tissue(plane, modality=facts.modality, distance=distance, grid=(x, y), rng=rng)
    if facts.count:
        radius = _RADIUS[facts.size]
        for lesion_x, lesion_y in _places(organs[facts.side], facts=facts, rng=rng):
            away = np.sqrt((x - lesion_x) ** 2 + (y - lesion_y) ** 2)
            plane = np.maximum(plane, np.clip((radius - away) * SIDE + 0.5, 0, 1))
    return _noise(plane, modality=facts.modality, rng=rng)


def png(pixels: Pixels) -> bytes:
    """Encode an image.

    Stored, not compressed: noise hardly shrinks, and the bytes, which a sample's id hashes, are
    then the same with every build of zlib.
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=0)
    return buffer.getvalue()


def _tissue(
    plane: _Plane,
    *,
    modality: str,
    distance: _Plane,
    grid: tuple[_Plane, _Plane],
    rng: np.random.Generator,
) -> _Plane:
    """Give the body the marks of its modality, which lie under the lesions."""
    x, y = grid
    body = distance < 1
    if modality == "CT":
        plane[body & (distance > _RIM)] = 0.80
    elif modality == "X-ray":
        plane = (plane + np.float32(0.10) * (1 - y) * body).astype(np.float32)
    elif modality == "microscopy":
        plane = np.where(body, 0.62 + 0.35 * (plane - 0.5), 0.75).astype(np.float32)
        for cell_x, cell_y in rng.uniform(0.03, 0.97, (_NUM_CELLS, 2)):
            plane[(x - cell_x) ** 2 + (y - cell_y) ** 2 < _CELL_RADIUS**2] = 0.15
    return plane


def _places(organ: _Organ, *, facts: Facts, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Choose where the lesions lie in their organ, never touching each other."""
    for gap in _GAPS:
        apart = 2 * _RADIUS[facts.size] + gap
        places: list[tuple[float, float]] = []
        for across, along in rng.uniform(-1, 1, (80, 2)):
            x = organ.x + across * (organ.width - 0.03)
            y = organ.y + along * (organ.height - 0.04)
            if across**2 + along**2 < 1 and all(
                (x - other_x) ** 2 + (y - other_y) ** 2 > apart**2 for other_x, other_y in places
            ):
                places.append((x, y))
            if len(places) == facts.count:
                return places
    # Three large lesions in a small organ may not fit by chance: then they stand in a column.
    return [(organ.x, organ.y + slot * (organ.height - 0.04)) for slot in _SLOTS][: facts.count]


def _noise(plane: _Plane, *, modality: str, rng: np.random.Generator) -> Pixels:
    """Add the grain of a modality: speckle on ultrasound, blur on an X-ray."""
    if modality == "ultrasound":
        grainy = plane * rng.rayleigh(0.75, plane.shape).clip(0.15, 1.6)
    else:
        grainy = plane + rng.normal(0, 0.015 if modality == "X-ray" else 0.03, plane.shape)
    pixels: Pixels = (grainy.clip(0, 1) * 255).astype(np.uint8)
    if modality == "X-ray":
        blurred = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(0.8))
        pixels = np.asarray(blurred, dtype=np.uint8)
    return pixels
