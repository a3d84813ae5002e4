"""What becomes of a stored picture, decided once for every adapter, the report and training.

Formats are JPEG, PNG, GIF, BMP, TIFF and WebP, told by their first bytes; no other decoder starts.
One of more than 89 megapixels, longer than a JPEG can be, cut or damaged is no picture: its row is
skipped. What is shown is RGB of 8 bits, and of several frames the first:

- upright, as EXIF says; white where it is transparent; CMYK as Pillow converts it; colour profiles
  and gamma are not applied;
- greys of more than 8 bits by the highest bit that the picture uses (white is 4095 in a 12-bit scan
  that is stored in 16), fractions and negative ones from its smallest value to its largest, colours
  by their upper 8 bits.

A JPEG, PNG or WebP that every decoder shows so travels as it is stored, every other picture as a
PNG of what is shown: 20 ms for 512 x 512. Damage is found by decoding: 0.3 to 0.6 ms for such a
JPEG, at an eighth of its size, 6 ms for a PNG.
"""

from __future__ import annotations

import base64
import io
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from medix_eval.errors import one_line

if TYPE_CHECKING:
    from PIL import Image

PICTURE_RULE = 2
"""The version of the above. Runs record it: a picture that is shown otherwise may be read so."""
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
    b"II*\x00": "image/tiff",
    b"MM\x00*": "image/tiff",
    b"II+\x00": "image/tiff",
    b"MM\x00+": "image/tiff",
}
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")
_MOST_PIXELS, _LONGEST = 89_478_485, 65_500
"""Where Pillow begins to warn of a decompression bomb; what a JPEG can hold."""
_TOO_LARGE = f"image has more than {_MOST_PIXELS:,} pixels, or than {_LONGEST:,} in a line"
_SHOWN_ALIKE = frozenset({"image/jpeg", "image/png", "image/webp"})
_MODES_SHOWN_ALIKE = frozenset({"1", "L", "P", "RGB"})
_PNG_DEPTH = 24
"""Where a PNG says its bits a channel."""
_PNG_TURNS = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
"""What must stand in a PNG that says which side is up; without it Pillow looks to the very end."""
_ORIENTATION = 0x0112
_PHOTOMETRIC, _MIN_IS_WHITE = 262, 0
"""What a TIFF says of its greys; Pillow turns only those of 8 bits."""
_TURNS = dict(zip(range(2, 9), (0, 3, 1, 5, 4, 6, 2), strict=True))
"""EXIF's orientations, as Pillow numbers what undoes them."""


def media_type(image: bytes) -> str | None:
    """Return the media type of an encoded image, or None if the format is unknown.

    >>> media_type(b"GIF89a...")
    'image/gif'
    """
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in _SIGNATURES.items() if image.startswith(magic)), None)


@lru_cache(maxsize=8)  # questions about one picture follow each other
def damage(image: bytes) -> str:
    """Say why an encoded image cannot be shown, or nothing."""
    from PIL import Image  # noqa: PLC0415 (20 ms, only with images)

    if media_type(image) is None:
        return f"image does not decode ({len(image)} B): read are {', '.join(_FORMATS)}"
    try:
        with opened(image) as picture:
            if picture.width * picture.height > _MOST_PIXELS or max(picture.size) > _LONGEST:
                return _TOO_LARGE
            if _is_shown_alike(picture, image):
                picture.draft(picture.mode, (1, 1))
                picture.load()
            else:
                shown(picture)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return _TOO_LARGE
    except Exception as error:  # noqa: BLE001 (what is no picture may fail in any way)
        said = one_line(error).partition(" <")[0]  # behind it Pillow says an address in memory
        return f"image does not decode ({len(image)} B: {type(error).__name__}: {said})"
    return ""


def opened(image: bytes) -> Image.Image:
    """Open an encoded image; its pixels are decoded once they are wanted."""
    from PIL import Image  # noqa: PLC0415

    picture = Image.open(io.BytesIO(image), formats=_FORMATS)
    if picture.format == "PNG":  # Pillow scales the pixels, but not what is clear
        clear, depth = picture.info.get("transparency"), image[_PNG_DEPTH]
        if isinstance(clear, tuple) and picture.mode == "RGB" and depth > 8:  # noqa: PLR2004
            picture.info["transparency"] = tuple(one >> 8 for one in clear)
        elif picture.mode == "L" and isinstance(clear, int):
            picture.info["transparency"] = clear * 255 // (2**depth - 1)
    return picture


def data_url(image: bytes) -> bytes:
    """Return an encoded image as a data URL of its bytes."""
    kind = media_type(image) or "application/octet-stream"
    return b"data:%b;base64,%b" % (kind.encode(), base64.b64encode(image))


def as_sent(image: bytes, *, encoding: str = "stored") -> bytes:
    """Return the bytes by which a model gets an undamaged image, as a protocol encodes images."""
    if encoding == "jpeg75":
        return as_jpeg(image, quality=75)
    with opened(image) as picture:
        if _is_shown_alike(picture, image):
            return image
        drawn = shown(picture)
        drawn = drawn.convert("L") if picture.mode[0] in "IF" else drawn
    out = io.BytesIO()
    drawn.save(out, format="PNG", compress_level=1)
    return out.getvalue()


def as_jpeg(image: bytes, *, quality: int) -> bytes:
    """Encode an image again as RGB JPEG, as the published evaluation does (4:2:0 chroma).

    Transparency is dropped as there, and with it what only transparency tells apart. There too a
    photograph stands upright: `datasets` turns it.
    """
    out = io.BytesIO()
    with opened(image) as picture:
        _upright(picture).convert("RGB").save(out, format="JPEG", quality=quality)
    return out.getvalue()


def as_rgb(image: bytes) -> Image.Image:
    """Decode an image, whatever its mode, to the RGB that is shown."""
    with opened(image) as picture:
        return shown(picture)


def shown(picture: Image.Image) -> Image.Image:
    """Return an open image as it is shown: RGB, upright, on white."""
    from PIL import Image  # noqa: PLC0415

    upright = _upright(picture)
    if not upright.has_transparency_data:
        return upright.convert("RGB")
    layer = upright.convert("RGBA")
    ground = Image.new("RGB", layer.size, "white")
    ground.paste(layer, mask=layer)
    return ground


def _is_shown_alike(picture: Image.Image, image: bytes) -> bool:
    """Whether any decoder shows an open image as `shown` does."""
    kind = media_type(image)
    if kind not in _SHOWN_ALIKE or picture.mode not in _MODES_SHOWN_ALIKE:
        return False
    if picture.has_transparency_data or (kind == "image/png" and image[_PNG_DEPTH] > 8):  # noqa: PLR2004
        return False
    if kind != "image/jpeg" and getattr(picture, "is_animated", False):
        return False
    if kind == "image/png" and not _is_sound(image):
        return False
    is_unturned = kind == "image/png" and not any(mark in image for mark in _PNG_TURNS)
    return is_unturned or _orientation(picture) not in {None, *_TURNS}


def _is_sound(image: bytes) -> bool:
    """Whether the checksums and the end are right, without which only some decoders do."""
    with suppress(Exception):  # in any way
        opened(image).verify()
        return True
    return False


def _orientation(picture: Image.Image) -> int | None:
    """Return how EXIF says that an image was taken; None if it is damaged."""
    with suppress(Exception):  # in any way
        return int(picture.getexif().get(_ORIENTATION, 1))
    return None


def _upright(picture: Image.Image) -> Image.Image:
    """Return an open image turned as its EXIF says, its greys in 8 bits.

    vLLM turns alike, also in that it ignores EXIF that is damaged.
    """
    from PIL import Image  # noqa: PLC0415

    picture.load()  # a TIFF turns itself
    turn = _TURNS.get(_orientation(picture) or 1)
    narrow = _narrowed(picture)
    return narrow if turn is None else narrow.transpose(Image.Transpose(turn))


def _narrowed(picture: Image.Image) -> Image.Image:
    """Return wide greys in 8 bits, where Pillow would clip them."""
    if picture.mode[0] not in "IF":
        return picture
    import numpy as np  # noqa: PLC0415 (only where they occur)
    from PIL import Image  # noqa: PLC0415

    values: Any = np.asarray(picture)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("a grey is not a number")
    if values.dtype.kind != "f" and low >= 0:
        shades = values >> max(0, int(high).bit_length() - 8)
    else:
        shades = (values.astype(np.float64) - low) * (255 / (high - low or 1.0))
    shades = shades.astype(np.uint8)
    if getattr(picture, "tag_v2", {}).get(_PHOTOMETRIC) == _MIN_IS_WHITE:
        shades = 255 - shades
    if (clear := picture.info.get("transparency")) is not None:
        shades[values == clear] = 255
    return Image.fromarray(shades)
