"""Pictures that clients send: found in a form or in JSON, and decoded into plain pixels.

No file is believed: its format must be one of a few, its size is checked before it is decoded, and one picture is
decoded at a time, so that memory stays bounded.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import threading
import warnings
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from PIL import ExifTags, Image, ImageMath, ImageOps
from starlette.datastructures import Headers

from llamabox.checks import describe, wrong
from llamabox.imaging.job import Pixels
from llamabox.server.api.images.fields import from_form
from llamabox.server.api.images.png_chunks import bare
from llamabox.server.http.multipart import read_parts

PARTS = ("image", "mask", "control")
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 1 << 26
"""67 megapixels, more than phones take. Decoded, such a picture takes 268 MB, and for a moment twice that."""

TOO_MANY = f"must have at most {MAX_PIXELS:,} pixels (67 megapixels)"

DATA_URI = re.compile(r"data:[\w.+-]*/?[\w.+-]*(?:;[\w=.+-]+)*;base64,", re.ASCII)

TURNED = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT,),
    3: (Image.Transpose.ROTATE_180,),
    4: (Image.Transpose.FLIP_TOP_BOTTOM,),
    5: (Image.Transpose.TRANSPOSE,),
    6: (Image.Transpose.ROTATE_270,),
    7: (Image.Transpose.TRANSVERSE,),
    8: (Image.Transpose.ROTATE_90,),
}
"""The turns that undo each of EXIF's orientations."""

SWAPPING = (
    Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90,
)  # fmt: skip
"""Turns that swap width and height."""

_one_at_a_time = threading.Lock()
"""Held while a picture is decoded: for memory, and because the filters of warnings are the whole process'."""


@dataclass(slots=True)
class Form:
    """A request's fields as JSON has them, and its pictures as they were sent: files, or texts in base64."""

    fields: dict[str, Any]
    pictures: dict[str, bytes | str] = field(default_factory=dict)


async def read_form(headers: Headers, raw: bytearray, max_part: int) -> Form:
    """Read multipart/form-data whose texts have at most `max_part` bytes. Raises InvalidRequest."""
    texts: dict[str, str] = {}
    pictures: dict[str, list[bytes | str]] = {}
    for part in await read_parts(headers, raw, max_part):
        name = part.name.removesuffix("[]")  # as some clients name the entries of a list
        if name in PARTS:
            sent = part.data if part.is_file else part.text
            if sent not in ("", "null"):
                pictures.setdefault(name, []).append(sent)
        elif part.is_file:
            raise wrong(part.name, f"must be a text; only {', '.join(PARTS)} are files")
        else:
            texts[part.name] = part.text
    return Form(from_form(texts), {part: _only(part, sent) for part, sent in pictures.items()})


def take_pictures(body: dict[str, Any]) -> Form:
    """The pictures of a JSON body, in base64 or as data URIs, taken out of it."""
    pictures: dict[str, bytes | str] = {}
    for part in PARTS:
        if part in body:
            value = body.pop(part)
            one = _only(part, value) if isinstance(value, list) else value
            if not isinstance(one, str):
                raise wrong(part, f"must be a picture in base64 or as a data URI, not {describe(one)}")
            pictures[part] = one
    return Form(body, pictures)


async def decode(part: str, sent: bytes | str, width: int, height: int, *, channels: int) -> Pixels:
    """The picture at this size: RGB on white, or with one channel a mask, white where the picture is drawn anew.

    Blocks a thread, not the loop. InvalidRequest names the part.
    """
    return await asyncio.to_thread(_decode, part, sent, (width, height), channels)


def _only(part: str, sent: list[Any]) -> Any:
    if len(sent) != 1:
        raise wrong(part, f"one picture is needed, not {len(sent)}")
    return sent[0]


def _decode(part: str, sent: bytes | str, size: tuple[int, int], channels: int) -> Pixels:
    data = _from_base64(part, sent) if isinstance(sent, str) else sent
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow's, about files that are odd but good enough
        try:
            opened = Image.open(BytesIO(bare(data)), formats=FORMATS)
        except Image.DecompressionBombError as exc:
            raise wrong(part, TOO_MANY) from exc
        except Exception as exc:  # Pillow's readers raise any error for a broken file
            raise wrong(part, f"Invalid image: not a readable {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file") from exc
        with opened:
            n_pixels = opened.width * opened.height
            if n_pixels > MAX_PIXELS:
                raise wrong(part, f"{TOO_MANY}, not {opened.width}x{opened.height}; make it smaller")
            try:
                opened.draft(None, (2 * max(size), 2 * max(size)))  # a JPEG is decoded no larger than is of use
                whole, turns = _decoded(opened)
            except Exception as exc:
                raise wrong(part, f"Invalid image: the {opened.format} file is truncated or damaged") from exc
            mode, resample = ("RGB", Image.Resampling.LANCZOS) if channels == 3 else ("L", Image.Resampling.BILINEAR)
            before = size[::-1] if any(turn in SWAPPING for turn in turns) else size
            whole = whole if whole.size == before else whole.resize(before, resample)
            for turn in turns:
                whole = whole.transpose(turn)
            flat = _on_white(whole) if channels == 3 else _as_mask(whole)
            return Pixels(*size, channels, flat.convert(mode).tobytes())


def _from_base64(part: str, text: str) -> bytes:
    if text[:8].lower().startswith(("http://", "https://")):
        raise wrong(part, "pictures are not fetched from addresses; send it in base64 or as a data URI")
    prefix = DATA_URI.match(text)
    if prefix is None and text.startswith("data:"):
        raise wrong(part, "must be a data URI of a picture in base64, as data:image/png;base64,…")
    bare = "".join(text[prefix.end() if prefix else 0 :].split())
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise wrong(part, f"is not valid base64: {exc}") from exc


def _decoded(opened: Image.Image) -> tuple[Image.Image, tuple[Image.Transpose, ...]]:
    """The first frame in L, RGB or RGBA, and the turns that EXIF's orientation asks for."""
    opened.load()
    picture = _eight_bits(opened)
    try:
        orientation = opened.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF beside a good picture
        orientation = None
    turns = TURNED.get(orientation or 1, ())
    if picture.mode in ("L", "RGB", "RGBA") and "transparency" not in picture.info:
        return picture, turns
    transparent = "transparency" in picture.info or picture.mode in ("LA", "La", "PA", "RGBa")
    if picture.mode == "La":
        picture = picture.convert("LA")
    return picture.convert("RGBA" if transparent else "L" if picture.mode == "1" else "RGB"), turns


def _eight_bits(picture: Image.Image) -> Image.Image:
    """16-bit grey, which Pillow would clip where it should scale, and whose transparent grey it would lose."""
    if not picture.mode.startswith("I"):
        return picture
    wide = picture.convert("I")
    grey = wide.point(lambda value: value * (1 / 256)).convert("L")
    transparent = picture.info.get("transparency")
    if not isinstance(transparent, int):
        return grey
    alpha = ImageMath.lambda_eval(lambda images: (images["wide"] != transparent) * 255, wide=wide).convert("L")
    return Image.merge("LA", (grey, alpha))


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.mode != "RGBA":
        return picture.convert("RGB")
    white = Image.new("RGB", picture.size, "white")
    white.paste(picture, mask=picture.getchannel("A"))
    return white


def _as_mask(picture: Image.Image) -> Image.Image:
    """White is drawn anew. Where there is transparency that is what counts, as OpenAI's clients expect."""
    if picture.mode == "RGBA" and picture.getchannel("A").getextrema() != (255, 255):
        return ImageOps.invert(picture.getchannel("A"))
    return picture.convert("L")
