"""The pixels that must arrive, decoded from the packages without our own code.

pydicom's functions window and colour the scans, Pillow opens the other files. What a model is then
shown is computed with numpy, by what the colour modes mean.
"""

from __future__ import annotations

import numpy as np
import pydicom
from pictures import Array, Picture, Pixels
from PIL import Image
from pydicom.pixels.processing import apply_color_lut, apply_rescale, apply_windowing


def original(picture: Picture) -> Pixels:
    """Decode the file that a picture refers to."""
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
    for optional in ("VOILUTFunction", "VOILUTSequence"):
        assert optional not in scan
    shades = apply_windowing(apply_rescale(scan.pixel_array, scan), scan)
    darkest, brightest = apply_windowing(np.array([-1e6, 1e6]), scan)
    top = 65535 if picture.mode == "I;16" else 255
    return np.asarray(np.rint((shades - darkest) / (brightest - darkest) * top))


def sent(source: Pixels) -> Pixels:
    """Return what a server must be sent: the same, but for 16 bits, which it would clip."""
    if source.mode != "I;16":
        return source
    return Pixels("L", source.values // 256)


def shown(source: Pixels, *, drops_alpha: bool = False) -> Pixels:
    """Return what a model must see: three channels, and white where nothing is drawn."""
    values = sent(source).values.astype(float)
    if source.mode in {"LA", "RGBA"}:
        alpha = 1.0 if drops_alpha else values[..., -1:] / 255
        values = np.rint(alpha * values[..., :-1] + (1 - alpha) * 255)
    return Pixels("RGB", np.broadcast_to(values, (*values.shape[:2], 3)))
