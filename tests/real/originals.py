"""The pixels that must arrive, decoded from the packages without our own code.

pydicom's functions window and colour the scans, Pillow opens the other files. What a model is then
shown is computed with numpy, by what the colour modes mean.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pydicom
from pictures import BY_TEXT, COLLECTION, Array, Arrived, Picture, Pixels, differences
from PIL import Image
from pydicom.pixels.processing import apply_color_lut, apply_rescale, apply_windowing


def differing(
    arrived: Arrived, expected: Callable[[Pixels], Pixels], *, tolerance: float = 0.0
) -> dict[str, list[str]]:
    """Compare what arrived with its sources; by question, and only where it differs."""
    compared = {
        text: differences(
            pictures,
            [expected(source(name)) for name in BY_TEXT[text].pictures],
            tolerance=tolerance,
        )
        for text, pictures in arrived.items()
    }
    return {text: said for text, said in compared.items() if said}


@cache
def source(name: str) -> Pixels:
    """Decode the file behind a name of `pictures.yaml`."""
    picture = COLLECTION.pictures[name]
    if not picture.is_dicom:
        return Pixels.of(Image.open(picture.path))
    scan = pydicom.dcmread(picture.path)
    return Pixels(picture.mode, _values(scan, picture).reshape(scan.Rows, scan.Columns, -1))


def _values(scan: pydicom.Dataset, picture: Picture) -> Array:
    if picture.mode == "LA":
        lines = scan.overlay_array(0x6000)
        return np.stack([np.zeros_like(lines), np.where(lines, 255, 0)], axis=2)
    if picture.mode == "P":
        return np.asarray(apply_color_lut(scan.pixel_array, scan) // 256)
    if picture.mode == "1":
        return np.where(scan.pixel_array, 255, 0)
    if picture.window is None:
        return np.asarray(scan.pixel_array)
    scan.WindowCenter, scan.WindowWidth = picture.window
    shades = apply_windowing(apply_rescale(scan.pixel_array, scan), scan)
    darkest, brightest = apply_windowing(np.array([-1e6, 1e6]), scan)
    top = 65535 if picture.mode == "I;16" else 255
    return np.asarray(np.rint((shades - darkest) / (brightest - darkest) * top))


def sent(source: Pixels) -> Pixels:
    """Return what a server must be sent: what servers show unlike one another as it is shown."""
    if source.mode == "I;16":
        return Pixels("L", source.values // 256)
    return shown(source) if source.mode in {"LA", "RGBA"} else source


def shown(source: Pixels, *, drops_alpha: bool = False) -> Pixels:
    """Return what a model must see: three channels, and white where nothing is drawn."""
    values = source.values.astype(float)
    if source.mode == "I;16":
        values //= 256
    if source.mode in {"LA", "RGBA"}:
        alpha = 1.0 if drops_alpha else values[..., -1:] / 255
        values = np.rint(alpha * values[..., :-1] + (1 - alpha) * 255)
    return Pixels("RGB", np.broadcast_to(values, (*values.shape[:2], 3)))
