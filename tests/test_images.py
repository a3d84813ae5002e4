"""What becomes of a stored image when it is decoded, sent, or encoded again."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from medix_eval.report.pictures import _thumbnail
from medix_eval.storage.images import as_jpeg, as_rgb, damage, in_8_bits

Decode = Callable[[bytes], Image.Image]
Pixels = NDArray[Any]
RAMP = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
EIGHT = (RAMP >> 8).astype(np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format=kind, **options)
    return out.getvalue()


def grey(image: bytes) -> Pixels:
    """Return what Pillow makes of an image, as servers do: 16 bits are clipped."""
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))[..., 0]


@pytest.mark.parametrize(
    ("kind", "pixels"),
    [
        pytest.param("PNG", RAMP, id="png"),
        pytest.param("TIFF", RAMP, id="little-endian-tiff"),
        pytest.param("TIFF", RAMP.astype(">u2"), id="big-endian-tiff"),
    ],
)
def test_16_bit_greys_keep_their_shades(kind: str, pixels: Pixels) -> None:
    image = encoded(Image.fromarray(pixels), kind)

    assert np.array_equal(np.asarray(as_rgb(image))[..., 0], EIGHT)
    assert abs(grey(as_jpeg(image, quality=75)).astype(int) - EIGHT).max() <= 3


@pytest.mark.parametrize(
    ("kind", "pixels"),
    [
        pytest.param("PNG", RAMP, id="png"),
        pytest.param("TIFF", RAMP, id="little-endian-tiff"),
        pytest.param("TIFF", RAMP.astype(">u2"), id="big-endian-tiff"),
        pytest.param("JPEG2000", RAMP, id="jpeg-2000"),
    ],
)
def test_16_bit_greys_are_sent_in_8_bits_since_servers_would_see_white(
    kind: str, pixels: Pixels
) -> None:
    image = encoded(Image.fromarray(pixels), kind)

    assert (grey(image)[1:] == 255).all()
    assert np.array_equal(grey(in_8_bits(image)), EIGHT)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_greys_without_a_range_are_no_picture_to_ask_about(kind: Any) -> None:
    image = encoded(Image.fromarray(RAMP.astype(kind)), "TIFF")

    assert damage(image).endswith("store it in 8 or 16 bits")
    assert damage(encoded(Image.fromarray(RAMP), "TIFF")) == ""


def test_a_picture_too_large_to_open_is_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    image = encoded(Image.new("L", (64, 64)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)

    assert "DecompressionBombError" in damage(image)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *[(mode, "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")],
        *[("L", kind) for kind in ("JPEG", "GIF", "WEBP", "BMP", "TIFF", "JPEG2000")],
    ],
)
def test_every_other_image_is_sent_as_it_is_stored(mode: str, kind: str) -> None:
    image = encoded(Image.fromarray(EIGHT).convert(mode), kind)

    assert in_8_bits(image) is image


def test_a_damaged_16_bit_png_is_sent_as_it_is_for_the_server_to_refuse() -> None:
    image = encoded(Image.fromarray(RAMP), compress_level=0)[:200]

    assert in_8_bits(image) is image


def black_dot(mode: str) -> Image.Image:
    """Draw a black dot on a ground that only its transparency tells from the dot."""
    alpha = Image.new("L", (16, 16))
    alpha.paste(255, (4, 4, 8, 8))
    return Image.merge("LA", (Image.new("L", (16, 16)), alpha)).convert(mode)


def on_white() -> Pixels:
    expected = np.full((16, 16, 3), 255, np.uint8)
    expected[4:8, 4:8] = 0
    return expected


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_what_is_transparent_is_white(mode: str) -> None:
    assert np.array_equal(np.asarray(as_rgb(encoded(black_dot(mode)))), on_white())


def test_a_transparent_colour_of_a_palette_is_white() -> None:
    palette = Image.new("P", (16, 16), 1)
    palette.putpalette([0, 0, 0, 0, 0, 0])
    palette.paste(0, (4, 4, 8, 8))

    assert np.array_equal(np.asarray(as_rgb(encoded(palette, transparency=1))), on_white())


def test_half_transparent_is_half_white() -> None:
    image = encoded(Image.new("RGBA", (4, 4), (200, 0, 100, 51)))

    assert as_rgb(image).getpixel((0, 0)) == (244, 204, 224)


def test_the_published_encoding_drops_transparency() -> None:
    assert grey(as_jpeg(encoded(black_dot("RGBA")), quality=75)).max() == 0


def published(image: bytes) -> Image.Image:
    return Image.open(io.BytesIO(as_jpeg(image, quality=75)))


@pytest.mark.parametrize("decode", [as_rgb, published])
def test_a_photograph_taken_sideways_stands_upright(decode: Decode) -> None:
    sideways = Image.Exif()
    sideways[0x0112] = 6
    image = Image.new("RGB", (16, 8))
    image.paste((255, 255, 255), (0, 0, 8, 8))

    upright = decode(encoded(image, "JPEG", exif=sideways))

    assert upright.size == (8, 16)
    assert np.asarray(upright)[:6].min() > 200
    assert np.asarray(upright)[10:].max() < 50


@pytest.mark.parametrize("exif", [b"Exif\0\0no TIFF", b"Exif\0\0II*\0"], ids=["no", "cut"])
@pytest.mark.parametrize("decode", [as_rgb, published])
def test_damaged_exif_turns_nothing_and_hides_no_picture(decode: Decode, exif: bytes) -> None:
    assert decode(encoded(Image.new("RGB", (16, 8)), exif=exif)).size == (16, 8)


def test_a_thumbnail_of_a_report_shows_what_the_model_saw() -> None:
    big = Image.fromarray(np.tile(RAMP, (8, 8)))
    url = _thumbnail(encoded(big, compress_level=0))

    thumbnail = base64.b64decode(url.partition(",")[2])

    assert abs(grey(thumbnail).mean() - EIGHT.mean()) < 3
