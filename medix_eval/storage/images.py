"""Images as stored bytes: they are passed on unchanged, and only their header is read.

Where they are decoded they become what a viewer shows. Pillow alone would turn 16-bit greys white,
which is why servers get these in 8 bits, and black lines on a transparent ground all black.
"""

from __future__ import annotations

import base64
import io
from contextlib import suppress
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
_PNG_DEPTH = 24
"""Where a PNG says its bits a channel, followed by its kind of colour."""
_GREY_16_BITS = b"\x10\x00"


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


def in_8_bits(image: bytes) -> bytes:
    """Return a 16-bit grey PNG in 8 bits, for a server that decodes with Pillow; others as is."""
    is_png = media_type(image) == "image/png"
    if not is_png or image[_PNG_DEPTH : _PNG_DEPTH + 2] != _GREY_16_BITS:
        return image
    out = io.BytesIO()
    with suppress(OSError, SyntaxError, ValueError):  # the server says what is wrong with it
        as_rgb(image).convert("L").save(out, format="PNG")
    return out.getvalue() or image


def as_jpeg(image: bytes, *, quality: int) -> bytes:
    """Encode an image again as RGB JPEG, as the published evaluation does (4:2:0 chroma).

    Transparency is dropped as there, and with it what only transparency tells apart.
    """
    from PIL import Image  # noqa: PLC0415

    out = io.BytesIO()
    with Image.open(io.BytesIO(image)) as opened:
        _narrowed(opened).convert("RGB").save(out, format="JPEG", quality=quality)
    return out.getvalue()


def as_rgb(image: bytes) -> Image.Image:
    """Decode an image, whatever its mode, to the RGB that a viewer shows."""
    from PIL import Image  # noqa: PLC0415 (20 ms, only with images)

    with Image.open(io.BytesIO(image)) as opened:
        return shown(opened)


def shown(opened: Image.Image) -> Image.Image:
    """Return an open image as a viewer shows it: RGB, upright, on white, 16-bit greys in 8 bits."""
    from PIL import Image, ImageOps  # noqa: PLC0415

    upright = ImageOps.exif_transpose(_narrowed(opened))
    if not upright.has_transparency_data:
        return upright.convert("RGB")
    layer = upright.convert("RGBA")
    ground = Image.new("RGB", layer.size, "white")
    ground.paste(layer, mask=layer)
    return ground


def _narrowed(image: Image.Image) -> Image.Image:
    """Return 16-bit greys in 8 bits: Pillow would clip all above 255 to white."""
    if not image.mode.startswith("I;16"):
        return image
    return image.convert("I").point(lambda value: value / 256).convert("L")
