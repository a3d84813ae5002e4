"""Pictures as files hold them, odd ones too, each with the pixels that must be seen."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[Any]
RAMP = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
EIGHT = (RAMP >> 8).astype(np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format=kind, **options)
    return out.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)


def png(
    header: tuple[int, ...], *chunks: tuple[bytes, bytes], raw: bytes, last: bytes = b""
) -> bytes:
    """Write a PNG by hand; `header` is width, height, bits, colour."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0)), *chunks]
    parts += [(b"IDAT", zlib.compress(raw)), *([(b"eXIf", last)] if last else []), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data) for name, data in parts)


def noise(mode: str = "L") -> Image.Image:
    return Image.effect_noise((64, 48), 80).convert(mode)


def turned(side: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = side
    return exif


def black_dot(mode: str) -> Image.Image:
    """Draw a black dot on a ground that only its transparency tells from the dot."""
    alpha = Image.new("L", (16, 16))
    alpha.paste(255, (4, 4, 8, 8))
    return Image.merge("LA", (Image.new("L", (16, 16)), alpha)).convert(mode)


def on_white() -> Pixels:
    expected = np.full((16, 16, 3), 255, np.uint8)
    expected[4:8, 4:8] = 0
    return expected


FLAG = Image.new("RGB", (16, 12), "white")
FLAG.paste((255, 0, 0), (0, 0, 6, 6))
FLAG.paste((0, 0, 255), (10, 8, 16, 12))
RAW = b"".join(b"\0" + line.tobytes() for line in np.asarray(FLAG))
OTHER = Image.new("RGB", (16, 12), "black")
TURNED = np.rot90(np.asarray(FLAG), -1)
XMP = (
    b"XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta xmlns:x='adobe:ns:meta/'>"
    b'<rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
)
SIXTEEN = (np.asarray(FLAG).astype(">u2") * 257).reshape(12, -1)
ODD = {
    "gif": (encoded(FLAG, "GIF"), np.asarray(FLAG)),
    "animated-gif": (encoded(FLAG, "GIF", save_all=True, append_images=[OTHER]), np.asarray(FLAG)),
    "animated-png": (encoded(FLAG, save_all=True, append_images=[OTHER]), np.asarray(FLAG)),
    "pages": (encoded(FLAG, "TIFF", save_all=True, append_images=[OTHER]), np.asarray(FLAG)),
    "bmp": (encoded(FLAG, "BMP"), np.asarray(FLAG)),
    "cmyk": (encoded(FLAG.convert("CMYK"), "TIFF"), np.asarray(FLAG)),
    "turned-tiff": (encoded(FLAG, "TIFF", exif=turned(6)), TURNED),
    "turned-webp": (encoded(FLAG, "WEBP", exif=turned(6), lossless=True), TURNED),
    "turned-png": (encoded(FLAG, exif=turned(6)), TURNED),
    "turned-at-its-end": (png((16, 12, 8, 2), raw=RAW, last=turned(6).tobytes()[6:]), TURNED),
    "turned-by-xmp": (png((16, 12, 8, 2), (b"iTXt", XMP), raw=RAW), TURNED),
    "colours-of-16-bits": (
        png((16, 12, 16, 2), raw=b"".join(b"\0" + line.tobytes() for line in SIXTEEN)),
        np.asarray(FLAG),
    ),
    "wrong-checksum": (encoded(FLAG)[:-14] + b"\0\0" + encoded(FLAG)[-12:], np.asarray(FLAG)),
    "no-end": (encoded(FLAG)[:-12], np.asarray(FLAG)),
}
