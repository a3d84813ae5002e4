"""What becomes of a stored image when it is decoded, sent, or encoded again."""

from __future__ import annotations

import base64
import io
import random
import struct
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tifffile
from odd_pictures import (
    EIGHT,
    ODD,
    RAMP,
    Pixels,
    black_dot,
    encoded,
    noise,
    on_white,
    png,
    turned,
)
from PIL import Image

from medix_eval.report.pictures import _shown
from medix_eval.storage.images import as_jpeg, as_rgb, as_sent, damage, media_type

Decode = Callable[[bytes], Image.Image]


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


@pytest.mark.parametrize("bits", [1, 8, 12, 15, 16])
def test_white_is_the_highest_value_of_the_bits_that_a_scan_uses(bits: int) -> None:
    """A 12-bit scan in 16 bits would be all but black."""
    values = np.arange(0, 1 << bits, max(1, 1 << bits >> 8), dtype=np.uint16).reshape(1, -1)
    expected = values >> max(0, bits - 8)

    for pixels, kind in ((values, "PNG"), (values.astype(np.int32), "TIFF")):
        assert np.array_equal(grey(as_sent(encoded(Image.fromarray(pixels), kind))), expected)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_what_has_no_white_of_its_own_is_scaled_by_its_range(kind: Any) -> None:
    hounsfield = np.array([[-1024, -1, 1023, 3071]], kind)

    assert grey(as_sent(encoded(Image.fromarray(hounsfield), "TIFF"))).tolist() == [
        [0, 63, 127, 255]
    ]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_greys_that_are_no_numbers_are_no_picture(value: float) -> None:
    pixels = np.array([[0, 1], [2, value]], np.float32)

    assert damage(encoded(Image.fromarray(pixels), "TIFF")).endswith("a grey is not a number)")


def test_a_tiff_whose_white_is_0_is_turned_whatever_its_bits() -> None:
    eight, wide = (
        encoded(Image.fromarray(pixels), "TIFF", tiffinfo={262: 0}) for pixels in (EIGHT, RAMP)
    )

    assert (tifffile.imread(io.BytesIO(wide)) == RAMP).all()
    assert np.array_equal(grey(as_sent(wide)), 255 - EIGHT)
    assert np.array_equal(255 - grey(as_sent(eight)), grey(as_sent(wide)))


# What is no picture


WRITTEN = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")


@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize("kind", WRITTEN)
def test_a_cut_picture_is_damaged_in_every_format(kind: str, share: float) -> None:
    whole = encoded(noise("RGB" if kind == "WEBP" else "L"), kind)

    assert damage(whole) == ""
    assert damage(whole[: int(len(whole) * share)]).startswith("image does not decode")


def test_damage_is_found_where_all_checksums_are_right() -> None:
    assert "truncated" in damage(png((500, 500, 8, 0), raw=b"\0" * 100))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "GIF"])
def test_a_picture_too_large_to_decode_is_not_decoded(kind: str) -> None:
    image = png((9460, 9460, 8, 0), raw=b"")
    if kind != "PNG":
        image = encoded(Image.new("1", (9460, 9460)), kind)

    said = "image has more than 89,478,485 pixels, or than 65,500 in a line"
    assert damage(image) == damage(png((60_000, 60_000, 8, 2), raw=b"")) == said
    assert damage(encoded(Image.new("L", (65_501, 2)), kind if kind == "PNG" else "TIFF")) == said
    assert damage(encoded(Image.new("L", (65_500, 2)), kind if kind == "PNG" else "TIFF")) == ""


@pytest.mark.parametrize("warns_as", ["ignore", "error"])
def test_a_warning_of_pillow_decides_nothing(warns_as: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter(warns_as)
        damage.cache_clear()
        assert damage(png((9460, 9460, 8, 0), raw=b"")).startswith("image has more than")


@pytest.mark.parametrize("kind", ["JPEG2000", "AVIF", "EPS", "PPM", "TGA", "PDF", "ICO"])
def test_other_formats_are_skipped_and_their_decoders_never_start(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = encoded(noise("RGB"), kind)
    Image.init()
    tried: list[str] = []
    for name, (_, accept) in [*Image.OPEN.items()]:
        if name not in WRITTEN:
            opens = lambda *_, name=name: tried.append(name)  # noqa: E731
            monkeypatch.setitem(Image.OPEN, name, (opens, accept))

    assert damage(image).endswith("read are JPEG, PNG, GIF, BMP, TIFF, WEBP")
    with pytest.raises(OSError, match="cannot identify"):
        as_rgb(image)
    assert tried == []


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
def test_a_text_that_would_fill_the_memory_is_damage(kind: bytes) -> None:
    rest = b"k\0" + (b"\0" if kind == b"zTXt" else b"\1\0\0\0")
    text = (kind, rest + zlib.compress(b"A" * 70_000_000))

    assert "too large" in damage(png((8, 8, 8, 0), text, raw=b"\0" * 72))


@pytest.mark.parametrize("kind", WRITTEN)
def test_no_byte_can_end_a_run(kind: str) -> None:
    """What `damage` lets pass can be shown, sent and encoded; whatever else, it says."""
    whole = encoded(noise("RGB"), kind, **({"exif": turned(6)} if kind != "BMP" else {}))
    chance = random.Random(kind)  # noqa: S311 (no secret)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(150):
            image = bytearray(whole)
            for _ in range(chance.randint(1, 4)):
                image[int(len(image) * chance.random() ** 3)] = chance.randrange(256)
            if not damage(bytes(image)):
                sent = as_sent(bytes(image))
                assert np.array_equal(pixels_of(sent), np.asarray(as_rgb(bytes(image))))
                as_jpeg(bytes(image), quality=75)


# What is sent


def pixels_of(image: bytes) -> Pixels:
    """Decode plainly, as a server that turns nothing and knows no transparency."""
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *[(mode, "PNG") for mode in ("1", "L", "P", "RGB")],
        *[(mode, "JPEG") for mode in ("L", "RGB")],
        ("RGB", "WEBP"),
    ],
)
def test_what_every_decoder_shows_alike_is_sent_as_it_is_stored(mode: str, kind: str) -> None:
    image = encoded(Image.fromarray(EIGHT).convert(mode), kind)

    assert as_sent(image) is image
    assert as_sent(encoded(Image.fromarray(EIGHT), "JPEG") + b"behind its end")[-3:] == b"end"


@pytest.mark.parametrize("name", ODD)
def test_what_servers_show_unlike_one_another_is_sent_as_it_is_shown(name: str) -> None:
    image, expected = ODD[name]

    sent = as_sent(image)

    assert damage(image) == ""
    assert (media_type(sent), sent == image) == ("image/png", False)
    assert np.array_equal(pixels_of(sent), expected)
    assert np.array_equal(np.asarray(as_rgb(image)), expected)


def test_a_shade_of_16_bits_that_is_transparent_is_white() -> None:
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in RAMP)
    image = png((64, 64, 16, 0), (b"tRNS", struct.pack(">H", int(RAMP[0, 1]))), raw=lines)
    expected = EIGHT.copy()
    expected[0, 1] = 255

    assert np.array_equal(grey(as_sent(image)), expected)


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
    url = _shown(encoded(big, compress_level=0), encoding="stored", size="thumbnail")

    thumbnail = base64.b64decode(url.partition(",")[2])

    assert abs(grey(thumbnail).mean() - EIGHT.mean()) < 3


@pytest.mark.parametrize(
    ("depth", "colour", "row", "clear", "other"),
    [
        pytest.param(16, 2, b"\x12\x34" * 3 + b"\x80\0" * 3, b"\x12\x34" * 3, 128, id="16-bit RGB"),
        pytest.param(8, 2, b"\x12" * 3 + b"\x80" * 3, b"\0\x12" * 3, 128, id="8-bit RGB"),
        pytest.param(4, 0, b"\x78", b"\0\7", 136, id="4-bit grey"),
        pytest.param(2, 0, b"\x60", b"\0\1", 170, id="2-bit grey"),
        pytest.param(8, 0, b"\x07\x80", b"\0\7", 128, id="8-bit grey"),
    ],
)
def test_the_transparent_shade_of_a_png_is_white_at_any_depth(
    depth: int, colour: int, row: bytes, clear: bytes, other: int
) -> None:
    image = png((2, 1, depth, colour), (b"tRNS", clear), raw=b"\0" + row)

    assert damage(image) == ""
    assert [as_rgb(image).getpixel((x, 0)) for x in (0, 1)] == [(255,) * 3, (other,) * 3]


def test_a_large_tiff_and_a_float_of_any_range_are_shown() -> None:
    for form in ({"big_tiff": True}, {}):
        values = np.array([[-3e38, 3e38]], dtype=np.float32)
        out = io.BytesIO()
        Image.fromarray(values).save(out, "TIFF", **form)

        assert damage(out.getvalue()) == ""
        drawn = as_rgb(out.getvalue())
        assert [drawn.getpixel((x, 0)) for x in (0, 1)] == [(0,) * 3, (255,) * 3]
