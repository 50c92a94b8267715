"""Makers of files: pictures, recordings, and what passes itself off as one."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


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
    options: dict[str, Any] = {} if transparency is None else {"transparency": transparency}
    return file(picture, **options)


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
    "AVIF": lambda: file(plain("RGB", RED), "AVIF", quality=95),
    "TIFF": lambda: file(plain("RGB", RED), "TIFF"),
    "TIFF of two pages": lambda: frames("TIFF"),
    "CMYK in TIFF": lambda: file(plain("CMYK", (0, 255, 255, 0)), "TIFF", compression="tiff_lzw"),
    "two pictures in a JPEG": lambda: file(plain("RGB", RED), "MPO", save_all=True, append_images=[plain("RGB", BLUE)]),
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
    "a PNG's first bytes": lambda: file(plain("RGB", RED))[:20],
    "a bomb": lambda: bomb(50_000, 50_000),
    "a smaller bomb": lambda: bomb(10_000, 10_000),
    "rows that are missing": lambda: bomb(4_000, 4_000),
    "a width of 0": lambda: bomb(0, 10),
    "an SVG": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "a PDF": lambda: b"%PDF-1.4\n%%EOF",
    "an EPS": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n",
}


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
"""Chunks of a PNG file beside its pixels."""


def with_chunks(data: bytes, *chunks: bytes) -> bytes:
    """A PNG with more chunks behind its header."""
    return data[:33] + b"".join(chunks) + data[33:]


def tone(rate: int, seconds: float, *, hertz: float = 440.0, n_channels: int = 1) -> NDArray[np.float32]:
    """Frames of a sine at half of the full scale, equal in all channels."""
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)
    return np.repeat(wave.astype(np.float32)[:, None], n_channels, axis=1)


def recording(frames: NDArray[Any], rate: int, kind: str = "WAV", subtype: str | None = None) -> bytes:
    out = BytesIO()
    soundfile.write(out, frames, rate, format=kind, subtype=subtype)
    return out.getvalue()


def flac_of_length(data: bytes, n_frames: int) -> bytes:
    """A FLAC file whose header says that it has so many frames; 0: it does not say."""
    at = len(b"fLaC") + 4 + 10
    low = int.from_bytes(data[at : at + 8], "big") & ~((1 << 36) - 1)
    return data[:at] + (low | n_frames).to_bytes(8, "big") + data[at + 8 :]
