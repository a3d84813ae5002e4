"""Images as stored bytes: they are passed on unchanged, and only their header is read."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
    b"II*\x00": "image/tiff",
    b"MM\x00*": "image/tiff",
}


def media_type(image: bytes) -> str | None:
    """Return the media type of an encoded image, or None if the format is unknown.

    >>> media_type(b"GIF89a...")
    'image/gif'
    """
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in _SIGNATURES.items() if image.startswith(magic)), None)


def damage(image: bytes) -> str:
    """Say what is wrong with an encoded image, or nothing: its header is read, no pixel decoded."""
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 (20 ms, only with images)

    try:
        with Image.open(io.BytesIO(image)) as opened:
            width, height = opened.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        return f"image does not decode ({len(image)} B: {type(error).__name__})"
    return "" if width and height else "image has no pixels"


def data_url(image: bytes) -> bytes:
    """Return an image as a data URL of its stored bytes."""
    kind = media_type(image) or "application/octet-stream"
    return b"data:%b;base64,%b" % (kind.encode(), base64.b64encode(image))


def as_jpeg(image: bytes, *, quality: int) -> bytes:
    """Encode an image again as RGB JPEG, as the published evaluation does (4:2:0 chroma)."""
    out = io.BytesIO()
    as_rgb(image).save(out, format="JPEG", quality=quality)
    return out.getvalue()


def as_rgb(image: bytes) -> Image.Image:
    """Decode an image, whatever its mode, to RGB."""
    from PIL import Image  # noqa: PLC0415

    with Image.open(io.BytesIO(image)) as opened:
        return opened.convert("RGB")
