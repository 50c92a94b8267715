"""Pictures in every form that clients send come out upright, on white, with their colours; broken ones are refused."""

from __future__ import annotations

import asyncio
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from llamabox.media.decoding.link import MAX_PIXELS, MAX_USEFUL_PIXELS
from llamabox.media.reader import MediaReader
from llamabox.wire.text_config import MediaInfo
from tests.media.files import BAD, BLUE, EXTRAS, GOOD, GREEN, RED, WHITE, bomb, chunk, file, palette, plain, with_chunks
from tests.media.reading import CountedRoom, pixels, refusal, source

FORMATS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
    "GIF": {},
    "BMP": {},
    "TIFF": {},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
}


def looks_to(max_side: int = 0, max_pixels: int = 0) -> MediaInfo:
    return MediaInfo(has_vision=True, has_audio=False, max_image_side=max_side, max_image_pixels=max_pixels)


def fitted(reader: MediaReader, data: bytes, width: int, height: int, *, as_mask: bool = False) -> NDArray[np.uint8]:
    found = asyncio.run(reader.fit(source(data), width, height, CountedRoom(), as_mask=as_mask))
    assert (found.width, found.height) == (width, height)
    return np.frombuffer(found.pixels, np.uint8).reshape(height, width, 1 if as_mask else 3)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_keeps_its_colours_where_they_are(reader: MediaReader, kind: str) -> None:
    picture = plain("RGB", RED, (60, 40))
    picture.paste(BLUE, (20, 10, 40, 30))
    found = pixels(reader, file(picture, kind, **FORMATS[kind])).astype(int)
    assert found.shape == (40, 60, 3)
    for (row, column), colour in {(5, 5): RED, (20, 30): BLUE, (35, 55): RED, (12, 22): BLUE, (20, 50): RED}.items():
        assert np.abs(found[row, column] - colour).max() <= 12


@pytest.mark.parametrize("kind", GOOD)
def test_odd_pictures_come_out_right(reader: MediaReader, kind: str) -> None:
    data = GOOD[kind]()
    assert np.abs(fitted(reader, data, 256, 256).astype(int) - RED).max() <= 8
    if "10000" in kind:
        assert "the longer side may have 200 times those of the shorter" in refusal(reader, data)
    else:
        assert np.abs(pixels(reader, data).astype(int) - RED).max() <= 8


@pytest.mark.parametrize("kind", BAD)
def test_broken_ones_are_refused(reader: MediaReader, kind: str) -> None:
    assert refusal(reader, BAD[kind](), "image")


def test_sixteen_bits_are_scaled(reader: MediaReader) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        found = pixels(reader, file(Image.fromarray(np.tile(ramp, (2, 1))), kind))
        assert found[0, :, 0].tolist() == (ramp >> 8).tolist()
        assert (found[..., 0] == found[..., 2]).all()


@pytest.mark.parametrize(
    ("picture", "grey"),
    [(plain("L", 100), 100), (plain("1", 1), 255), (plain("LA", (100, 255)), 100), (plain("LA", (100, 0)), 255)],
)
def test_grey_becomes_three_channels(reader: MediaReader, picture: Image.Image, grey: int) -> None:
    assert (pixels(reader, file(picture)) == grey).all()


def test_transparency_is_white(reader: MediaReader) -> None:
    picture = plain("RGBA", (*RED, 255))
    picture.paste((*BLUE, 0), (32, 0, 64, 64))
    picture.paste((*BLUE, 128), (0, 32, 32, 64))
    for kind in ("PNG", "WEBP", "AVIF", "TIFF"):
        found = pixels(reader, file(picture, kind, **FORMATS[kind])).astype(int)
        for (row, column), colour in {(16, 16): RED, (16, 48): WHITE, (48, 16): (127, 127, 255)}.items():
            assert np.abs(found[row, column] - colour).max() <= 4


@pytest.mark.parametrize("transparency", [None, 0, bytes([0, 255])])
def test_palettes(reader: MediaReader, transparency: int | bytes | None) -> None:
    found = pixels(reader, palette(transparency))
    assert found[32, 2].tolist() == list(RED if transparency is None else WHITE)
    assert found[32, 62].tolist() == list(BLUE)


def test_a_colour_that_stands_for_transparent(reader: MediaReader) -> None:
    picture = plain("RGB", RED)
    picture.paste(BLUE, (32, 0, 64, 64))
    found = pixels(reader, file(picture, transparency=RED))
    assert (found[32, 2].tolist(), found[32, 62].tolist()) == (list(WHITE), list(BLUE))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright(reader: MediaReader, orientation: int) -> None:
    """Each is stored so that its orientation turns the red corner to the top left and the blue one to the top right."""
    upright = plain("RGB", WHITE, (96, 64))
    upright.paste(RED, (0, 0, 48, 32))
    upright.paste(BLUE, (48, 0, 96, 32))
    turn = Image.Transpose
    stored = {
        1: (), 2: (turn.FLIP_LEFT_RIGHT,), 3: (turn.ROTATE_180,), 4: (turn.FLIP_TOP_BOTTOM,),
        5: (turn.TRANSPOSE,), 6: (turn.ROTATE_90,), 7: (turn.TRANSVERSE,), 8: (turn.ROTATE_270,),
    }[orientation]  # fmt: skip
    for one in stored:
        upright = upright.transpose(one)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
        data = file(upright, kind, exif=exif, **FORMATS[kind])
        whole, small = pixels(reader, data).astype(int), pixels(reader, data, looks_to(48)).astype(int)
        assert (whole.shape, small.shape) == ((64, 96, 3), (32, 48, 3)), kind
        stretched = fitted(reader, data, 48, 32).astype(int)
        for (row, column), colour in {(6, 8): RED, (6, 40): BLUE, (24, 8): WHITE, (24, 40): WHITE}.items():
            for found in (whole[::2, ::2], small, stretched):
                assert np.abs(found[row, column] - colour).max() <= 16, kind


@pytest.mark.parametrize(
    ("size", "max_side", "max_pixels", "wanted"),
    [
        ((640, 480), 0, 0, (640, 480)),
        ((640, 480), 640, 0, (640, 480)),
        ((640, 480), 320, 0, (320, 240)),
        ((480, 640), 320, 0, (240, 320)),
        ((640, 480), 0, 640 * 480 // 4, (320, 240)),
        ((640, 480), 160, 640 * 480 // 4, (160, 120)),
        ((1, 10_000), 100, 0, (1, 100)),
        ((10_000, 1), 200, 0, (200, 1)),
        ((1, 1), 1, 1, (1, 1)),
    ],
)
def test_no_picture_is_larger_than_is_of_use(
    reader: MediaReader, size: tuple[int, int], max_side: int, max_pixels: int, wanted: tuple[int, int]
) -> None:
    for kind in ("PNG", "JPEG"):
        found = pixels(reader, file(plain("RGB", RED, size), kind), looks_to(max_side, max_pixels))
        assert found.shape[1::-1] == wanted
        assert np.abs(found.astype(int) - RED).max() <= 4


def test_a_user_and_a_request_can_ask_for_smaller_ones() -> None:
    small = MediaReader(max_side=64)
    try:
        assert pixels(small, file(plain("RGB", RED, (256, 128)))).shape == (32, 64, 3)
        assert pixels(small, file(plain("RGB", RED, (256, 128))), looks_to(32)).shape == (16, 32, 3)
    finally:
        asyncio.run(small.close())


def test_the_largest_is_decoded_and_one_more_is_not(reader: MediaReader) -> None:
    side = 8192
    assert side * side == MAX_PIXELS
    found = pixels(reader, file(plain("1", 1, (side, side))))
    assert (found == 255).all()
    assert found.shape[0] * found.shape[1] == MAX_USEFUL_PIXELS
    assert "at most 67,108,864 pixels (67 megapixels), not 8193x8192" in refusal(
        reader, file(plain("1", 1, (side + 1, side)))
    )
    assert "at most 67,108,864 pixels (67 megapixels)" in refusal(reader, bomb(50_000, 50_000))


def test_a_phones_largest_picture(reader: MediaReader) -> None:
    """48 megapixels, turned as a phone says it by EXIF; the decoder makes it smaller as it reads it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = plain("RGB", RED, (8064, 6048))
    picture.paste(BLUE, (0, 0, 4032, 6048))
    found = pixels(reader, file(picture, "JPEG", exif=exif, quality=95), looks_to(1344)).astype(int)
    assert found.shape == (1344, 1008, 3)
    assert np.abs(found[10, 10] - BLUE).max() <= 8
    assert np.abs(found[1300, 900] - RED).max() <= 8


def test_a_turned_picture_at_another_shape(reader: MediaReader) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # its top row is the right column
    picture = plain("RGB", RED, (400, 200))
    picture.paste(BLUE, (0, 0, 200, 200))
    rows = fitted(reader, file(picture, exif=exif), 64, 256)
    assert (rows[:120] == BLUE).all()
    assert (rows[136:] == RED).all()


def test_a_mask_is_white_where_something_is_to_be_drawn(reader: MediaReader) -> None:
    painted = plain("RGB", (0, 0, 0), (256, 256))
    painted.paste(WHITE, (0, 0, 128, 256))
    cut = plain("RGBA", (*GREEN, 255), (256, 256))
    cut.paste((*GREEN, 0), (0, 0, 128, 256))
    for picture in (painted, painted.convert("L"), painted.convert("1"), painted.convert("RGBA"), cut):
        found = fitted(reader, file(picture), 256, 256, as_mask=True)[..., 0]
        assert (found[:, :128] == 255).all()
        assert (found[:, 128:] == 0).all()


@pytest.mark.parametrize("kind", EXTRAS)
def test_what_a_png_says_beside_its_pixels_does_no_harm(reader: MediaReader, kind: str) -> None:
    assert (pixels(reader, with_chunks(file(plain("RGB", RED)), EXTRAS[kind])) == RED).all()


def test_a_png_of_countless_chunks_is_refused(reader: MediaReader) -> None:
    data = with_chunks(file(plain("RGB", RED)), chunk(b"tIME", b"") * (1 << 17))
    assert "is a truncated or damaged PNG file" in refusal(reader, data)


def grey_png(depth: int, row: bytes, kind: int, transparent: bytes) -> bytes:
    """Two pixels, the first of which is transparent."""
    header = struct.pack(">IIBBBBB", 2, 1, depth, kind, 0, 0, 0)
    body = chunk(b"tRNS", transparent) + chunk(b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("depth", "kind", "row", "transparent", "second"),
    [
        (1, 0, b"\x40", b"\0\0", (255, 255, 255)),
        (2, 0, b"\x60", b"\0\1", (170, 170, 170)),
        (4, 0, b"\x35", b"\0\3", (85, 85, 85)),
        (8, 0, b"\x35\x55", b"\0\x35", (85, 85, 85)),
        (16, 0, b"\x12\x34\x12\x35", b"\x12\x34", (18, 18, 18)),
        (8, 2, b"\1\2\3\x11\x12\x13", b"\0\1\0\2\0\3", (17, 18, 19)),
        (16, 2, b"\x12\x34\x12\x34\x12\x34\x22\0\x22\0\x22\0", b"\x12\x34" * 3, (34, 34, 34)),
    ],
)
def test_transparency_at_every_depth(
    reader: MediaReader, depth: int, kind: int, row: bytes, transparent: bytes, second: tuple[int, int, int]
) -> None:
    data = grey_png(depth, row, kind, transparent)
    assert pixels(reader, data).tolist() == [[list(WHITE), list(second)]]
    assert fitted(reader, data, 2, 1, as_mask=True).tolist() == [[[255], [0]]]
