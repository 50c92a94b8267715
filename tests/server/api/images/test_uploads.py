"""Pictures as clients send them: odd ones come out right, broken ones are a 400 that names the part."""

from __future__ import annotations

import asyncio
import base64
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from llamabox.errors import InvalidRequest
from llamabox.imaging.job import Pixels
from llamabox.server.api.images.uploads import MAX_PIXELS, decode
from llamabox.server.app import create_image_app
from llamabox.server.config import ServerConfig
from tests.server.fake_images import IMAGES, FakeImageClient, png

EDIT = "/v1/images/edits"
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def pixels(sent: bytes | str, *, mask: bool = False, size: int = 256) -> Any:
    """Rows, columns and channels."""
    found = asyncio.run(decode("image", sent, size, size, channels=1 if mask else 3))
    assert isinstance(found, Pixels)
    shape = (found.height, found.width, found.channels)
    assert shape == (size, size, 1 if mask else 3)
    return np.frombuffer(found.data, np.uint8).reshape(shape)


def file(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def plain(mode: str, colour: Any, size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.new(mode, size, colour)


def palette(transparency: int | bytes | None = None) -> bytes:
    picture = plain("P", 0)
    picture.putpalette([*RED, *BLUE])
    picture.paste(1, (32, 0, 64, 64))
    return file(picture, **({} if transparency is None else {"transparency": transparency}))


def frames(kind: str) -> bytes:
    first, *others = [plain("RGB", colour) for colour in (RED, GREEN, BLUE)]
    return file(first, kind, save_all=True, append_images=others, duration=50)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb(width: int, height: int) -> bytes:
    """A few bytes that say they are a huge picture."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1 << 16))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


GOOD: dict[str, Callable[[], bytes]] = {
    "1x1": lambda: file(plain("RGB", RED, (1, 1))),
    "1x10000": lambda: file(plain("RGB", RED, (1, 10_000))),
    "10000x1": lambda: file(plain("RGB", RED, (10_000, 1)), "JPEG", quality=95),
    "animated GIF": lambda: frames("GIF"),
    "animated WebP": lambda: frames("WEBP"),
    "animated PNG": lambda: frames("PNG"),
    "CMYK": lambda: file(plain("CMYK", (0, 255, 255, 0)), "JPEG", quality=95),
    "alpha": lambda: file(plain("RGBA", (*RED, 255))),
    "alpha in WebP": lambda: file(plain("RGBA", (*RED, 255)), "WEBP", lossless=True),
    "progressive": lambda: file(plain("RGB", RED), "JPEG", progressive=True, quality=95),
    "BMP": lambda: file(plain("RGB", RED), "BMP"),
    "interlaced EXIF": lambda: file(plain("RGB", RED), exif=b"Exif\x00\x00damaged"),
    "a long comment": lambda: file(plain("RGB", RED), "GIF", comment=b"x" * 100_000),
}

BAD: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "text": lambda: b"this is no picture",
    "zeros": lambda: bytes(1000),
    "a truncated PNG": lambda: file(Image.effect_noise((64, 64), 50))[:-500],
    "a truncated JPEG": lambda: file(Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG")[:-300],
    "a truncated WebP": lambda: file(Image.effect_noise((64, 64), 50).convert("RGB"), "WEBP")[:-300],
    "a truncated GIF": lambda: file(Image.effect_noise((64, 64), 50), "GIF")[:-1500],
    "a PNG's first bytes": lambda: png("red")[:20],
    "a bomb": lambda: bomb(50_000, 50_000),
    "a smaller bomb": lambda: bomb(10_000, 10_000),
    "rows that are missing": lambda: bomb(4_000, 4_000),
    "a width of 0": lambda: bomb(0, 10),
    "an SVG": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "a PDF": lambda: b"%PDF-1.4\n%%EOF",
    "an EPS": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n",
    "a TIFF": lambda: file(plain("RGB", RED), "TIFF"),
}


@pytest.mark.parametrize("kind", GOOD)
def test_odd_pictures_come_out_right(kind: str) -> None:
    found = pixels(GOOD[kind]()).astype(int)
    assert np.abs(found - RED).max() <= 8


@pytest.mark.parametrize("kind", BAD)
def test_broken_ones_are_a_400_that_names_the_part(kind: str) -> None:
    client = FakeImageClient()
    with TestClient(create_image_app(ServerConfig(), client, IMAGES)) as http:
        good = ("a.png", png("red"), "image/png")
        bad = ("a.png", BAD[kind](), "image/png")
        for part, files in (("image", {"image": bad}), ("mask", {"image": good, "mask": bad})):
            reply = http.post(EDIT, files=files, data={"prompt": "a cat"})
            assert reply.status_code == 400
            assert f"'{part}'" in reply.json()["detail"]
    assert client.jobs == []


def test_sixteen_bits_of_grey_are_scaled() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)
    found = pixels(file(Image.fromarray(np.tile(ramp, (256, 1)))))
    assert found[0, :, 0].tolist() == (ramp >> 8).tolist()
    assert (found[..., 0] == found[..., 2]).all()


@pytest.mark.parametrize(
    ("picture", "grey"),
    [(plain("L", 100), 100), (plain("1", 1), 255), (plain("LA", (100, 255)), 100), (plain("LA", (100, 0)), 255)],
)
def test_grey_becomes_three_channels(picture: Image.Image, grey: int) -> None:
    assert (pixels(file(picture)) == grey).all()


def test_transparency_is_white() -> None:
    picture = plain("RGBA", (*RED, 255), (256, 256))
    picture.paste((*BLUE, 0), (128, 0, 256, 256))
    picture.paste((*BLUE, 128), (0, 128, 128, 256))
    found = pixels(file(picture))
    assert found[64, 64].tolist() == list(RED)
    assert found[64, 192].tolist() == list(WHITE)
    assert found[192, 64].tolist() == [127, 127, 255]


@pytest.mark.parametrize("transparency", [None, 0, bytes([0, 255])])
def test_palettes(transparency: int | bytes | None) -> None:
    found = pixels(palette(transparency))
    assert found[128, 10].tolist() == list(RED if transparency is None else WHITE)
    assert found[128, 250].tolist() == list(BLUE)


def test_a_colour_that_stands_for_transparent() -> None:
    picture = plain("RGB", RED)
    picture.paste(BLUE, (32, 0, 64, 64))
    found = pixels(file(picture, transparency=RED))
    assert (found[128, 10].tolist(), found[128, 250].tolist()) == (list(WHITE), list(BLUE))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_pictures_are_upright(orientation: int, kind: str) -> None:
    """Each is stored so that its orientation turns the red corner to the top left and the blue one to the top right."""
    upright = plain("RGB", WHITE, (256, 256))
    upright.paste(RED, (0, 0, 128, 128))
    upright.paste(BLUE, (128, 0, 256, 128))
    turn = Image.Transpose
    stored = {
        1: (), 2: (turn.FLIP_LEFT_RIGHT,), 3: (turn.ROTATE_180,), 4: (turn.FLIP_TOP_BOTTOM,),
        5: (turn.TRANSPOSE,), 6: (turn.ROTATE_90,), 7: (turn.TRANSVERSE,), 8: (turn.ROTATE_270,),
    }[orientation]  # fmt: skip
    for one in stored:
        upright = upright.transpose(one)
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = pixels(file(upright, kind, exif=exif, quality=95)).astype(int)
    for (row, column), colour in {(40, 40): RED, (40, 216): BLUE, (216, 40): WHITE, (216, 216): WHITE}.items():
        assert np.abs(found[row, column] - colour).max() <= 16


def test_a_mask_is_white_where_something_is_to_be_drawn() -> None:
    painted = plain("RGB", (0, 0, 0), (256, 256))
    painted.paste(WHITE, (0, 0, 128, 256))
    cut = plain("RGBA", (*GREEN, 255), (256, 256))
    cut.paste((*GREEN, 0), (0, 0, 128, 256))
    for picture in (painted, painted.convert("L"), painted.convert("1"), painted.convert("RGBA"), cut):
        found = pixels(file(picture), mask=True)[..., 0]
        assert (found[:, :128] == 255).all()
        assert (found[:, 128:] == 0).all()


@pytest.mark.parametrize(
    "text",
    ["", "?", "a", "data:image/png;base64,", "data:image/png,abc", "äöü", "AAAA=AAAA", "https://x.example/a.png", "{}"],
)
def test_texts_that_are_no_picture(text: str) -> None:
    with pytest.raises(InvalidRequest, match="'image'"):
        asyncio.run(decode("image", text, 256, 256, channels=3))


def test_base64_as_it_comes() -> None:
    data = base64.b64encode(png("red")).decode()
    lines = "\r\n".join(data[i : i + 76] for i in range(0, len(data), 76))
    for text in (data, data.rstrip("="), lines, f"data:image/png;base64,{data}", f"data:;base64,{data}"):
        assert (pixels(text) == RED).all()


def test_eleven_pictures_are_too_many() -> None:
    data = base64.b64encode(png("red")).decode()
    with TestClient(create_image_app(ServerConfig(), FakeImageClient(), IMAGES)) as http:
        for name in ("image", "image[]"):
            reply = http.post(EDIT, files=[(name, ("a.png", png("red")))] * 11, data={"prompt": "a"})
            assert reply.status_code == 400
            assert "'image': one picture is needed, not 11" in reply.json()["detail"]
        reply = http.post(EDIT, json={"prompt": "a", "image": [data] * 11})
        assert "'image': one picture is needed, not 11" in reply.json()["detail"]


def test_the_largest_is_decoded_and_one_more_is_not() -> None:
    side = 8192
    assert side * side == MAX_PIXELS
    assert (pixels(file(plain("1", 1, (side, side)))) == 255).all()
    with pytest.raises(InvalidRequest, match=r"at most 67,108,864 pixels \(67 megapixels\), not 8193x8192"):
        pixels(file(plain("1", 1, (side + 1, side))))
    with pytest.raises(InvalidRequest, match=r"at most 67,108,864 pixels \(67 megapixels\)"):
        pixels(bomb(50_000, 50_000))


def test_a_phones_largest_picture() -> None:
    """48 megapixels, turned as a phone says it by EXIF; the decoder makes it smaller as it reads it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = plain("RGB", RED, (8064, 6048))
    picture.paste(BLUE, (0, 0, 4032, 6048))
    found = pixels(file(picture, "JPEG", exif=exif, quality=95)).astype(int)
    assert np.abs(found[10, 10] - BLUE).max() <= 8
    assert np.abs(found[250, 250] - RED).max() <= 8


def test_a_turned_picture_at_another_shape() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # its top row is the right column
    picture = plain("RGB", RED, (400, 200))
    picture.paste(BLUE, (0, 0, 200, 200))
    found = asyncio.run(decode("image", file(picture, exif=exif), 64, 256, channels=3))
    rows = np.frombuffer(found.data, np.uint8).reshape(256, 64, 3)
    assert (rows[:120] == BLUE).all()
    assert (rows[136:] == RED).all()


def with_chunks(data: bytes, *chunks: bytes) -> bytes:
    """A PNG with more chunks behind its header."""
    return data[:33] + b"".join(chunks) + data[33:]


NOISE = np.random.default_rng(1).bytes(3 << 20)

EXTRAS = {
    "a large ICC profile": chunk(b"iCCP", b"screen\0\0" + zlib.compress(bytes(3 << 20))),
    "a larger ICC profile": chunk(b"iCCP", b"screen\0\0" + zlib.compress(NOISE)),
    "a damaged ICC profile": chunk(b"iCCP", b"screen\0\0" + b"damaged"),
    "a long zTXt": chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"{" * (3 << 20))),
    "a long tEXt": chunk(b"tEXt", b"prompt\0" + b"{" * (3 << 20)),
    "a long iTXt": chunk(b"iTXt", b"prompt\0\1\0\0\0" + zlib.compress(b"{" * (3 << 20))),
    "many texts": b"".join(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 20))) for _ in range(70)),
    "a text that is none": chunk(b"iTXt", b"\xff" * 10),
    "a wrong checksum": struct.pack(">I", 4) + b"tIME" + b"0000" + b"0000",
    "a huge EXIF": chunk(b"eXIf", bytes(1 << 20)),
    "an inflated profile as text": chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(3 << 20))),
    "a chunk that nobody knows": chunk(b"prVt", NOISE),
}


@pytest.mark.parametrize("kind", EXTRAS)
def test_what_a_png_says_beside_its_pixels_does_no_harm(kind: str) -> None:
    assert (pixels(with_chunks(file(plain("RGB", RED)), EXTRAS[kind])) == RED).all()


def test_a_png_of_countless_chunks_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="Invalid image"):
        pixels(with_chunks(file(plain("RGB", RED)), chunk(b"tIME", b"") * (1 << 17)))


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
    depth: int, kind: int, row: bytes, transparent: bytes, second: tuple[int, int, int]
) -> None:
    data = grey_png(depth, row, kind, transparent)
    found = asyncio.run(decode("image", data, 2, 1, channels=3)).data
    assert tuple(found[:3]) == WHITE
    assert tuple(found[3:]) == second
    assert asyncio.run(decode("image", data, 2, 1, channels=1)).data == b"\xff\0"


def test_the_same_pictures_at_once() -> None:
    async def scene() -> None:
        sent = [file(plain("RGB", (i, 0, 0))) for i in range(16)] + [b"broken"] * 16
        found = await asyncio.gather(
            *(decode("image", one, 64, 64, channels=3) for one in sent), return_exceptions=True
        )
        assert [one.data[0] for one in found[:16]] == list(range(16))
        assert all(isinstance(one, InvalidRequest) for one in found[16:])

    asyncio.run(scene())
