"""Images as stored bytes: they are passed on unchanged, and only their header is read.

Where they are decoded they become what a viewer shows. Pillow alone would turn 16-bit greys white,
which is why servers get these in 8 bits, and black lines on a transparent ground all black.
"""

from __future__ import annotations

import base64
import io
import struct
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
_NEVER_WIDE = frozenset({"image/jpeg", "image/gif", "image/webp"})
"""Types that have 8 bits a channel at most, as Pillow reads them."""
_PNG_DEPTH = 24
"""Where a PNG says its bits a channel, followed by its kind of colour."""
_PNG_GREY_16 = b"\x10\x00"
_GREYS_16_BITS = "I;16"
"""How Pillow's modes of such an image begin, in either order of bytes."""
_WITHOUT_RANGE = frozenset({"I", "F"})
"""Pillow's modes whose greys are whole numbers or fractions of any size."""


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
    from PIL import Image  # noqa: PLC0415 (20 ms, only with images)

    try:
        with Image.open(io.BytesIO(image)) as opened:
            (width, height), mode = opened.size, opened.mode
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"image does not decode ({len(image)} B: {type(error).__name__})"
    if mode in _WITHOUT_RANGE:  # which of its values are black and white, only its maker knows
        return f"image has greys without a range (mode {mode}): store it in 8 or 16 bits"
    return "" if width and height else "image has no pixels"


def data_url(image: bytes) -> bytes:
    """Return an image as a data URL of its stored bytes."""
    kind = media_type(image) or "application/octet-stream"
    return b"data:%b;base64,%b" % (kind.encode(), base64.b64encode(image))


def in_8_bits(image: bytes) -> bytes:
    """Return 16-bit greys as an 8-bit PNG, for a server that decodes with Pillow; others as is."""
    kind = media_type(image)
    is_narrow_png = kind == "image/png" and image[_PNG_DEPTH : _PNG_DEPTH + 2] != _PNG_GREY_16
    if is_narrow_png or kind in _NEVER_WIDE:
        return image
    from PIL import Image  # noqa: PLC0415

    out = io.BytesIO()
    with (
        suppress(OSError, SyntaxError, ValueError),  # the server says what is wrong with it
        Image.open(io.BytesIO(image)) as opened,
    ):
        if opened.mode.startswith(_GREYS_16_BITS):
            shown(opened).convert("L").save(out, format="PNG")
    return out.getvalue() or image


def as_jpeg(image: bytes, *, quality: int) -> bytes:
    """Encode an image again as RGB JPEG, as the published evaluation does (4:2:0 chroma).

    Transparency is dropped as there, and with it what only transparency tells apart. There too a
    photograph stands upright: `datasets` turns it.
    """
    from PIL import Image  # noqa: PLC0415

    out = io.BytesIO()
    with Image.open(io.BytesIO(image)) as opened:
        _upright(opened).convert("RGB").save(out, format="JPEG", quality=quality)
    return out.getvalue()


def as_rgb(image: bytes) -> Image.Image:
    """Decode an image, whatever its mode, to the RGB that a viewer shows."""
    from PIL import Image  # noqa: PLC0415 (20 ms, only with images)

    with Image.open(io.BytesIO(image)) as opened:
        return shown(opened)


def shown(opened: Image.Image) -> Image.Image:
    """Return an open image as a viewer shows it: RGB, upright, on white, 16-bit greys in 8 bits."""
    from PIL import Image  # noqa: PLC0415

    upright = _upright(opened)
    if not upright.has_transparency_data:
        return upright.convert("RGB")
    layer = upright.convert("RGBA")
    ground = Image.new("RGB", layer.size, "white")
    ground.paste(layer, mask=layer)
    return ground


def _upright(opened: Image.Image) -> Image.Image:
    """Return an open image turned as its EXIF says, 16-bit greys in 8 bits.

    vLLM decodes alike, also in that it ignores EXIF that is damaged.
    """
    from PIL import ImageOps  # noqa: PLC0415

    image = _narrowed(opened)
    with suppress(SyntaxError, ValueError, struct.error):
        return ImageOps.exif_transpose(image)
    return image


def _narrowed(image: Image.Image) -> Image.Image:
    """Return 16-bit greys in 8 bits: Pillow would clip all above 255 to white."""
    if not image.mode.startswith(_GREYS_16_BITS):
        return image
    return image.convert("I").point(lambda value: value / 256).convert("L")
