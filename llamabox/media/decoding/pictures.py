"""Pictures: from a file to pixels. Pillow decodes; here are the bounds, and what the pixels mean."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from io import BytesIO

from PIL import ExifTags, Image, ImageMath, ImageOps, MpoImagePlugin, TiffImagePlugin

from llamabox.media.decoding.link import MAX_PIXELS, MAX_RATIO, Unreadable, Wanted
from llamabox.media.decoding.png_chunks import bare

LATE = (MpoImagePlugin, TiffImagePlugin)
"""Modules that Pillow imports for a JPEG file when it meets the first one with more than one picture."""

TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The turns that undo EXIF's orientations; those from 5 on swap width and height."""

FIRST_SWAPPING = 5

REDUCING_GAP = 3.0
"""A picture is first made smaller by a whole number, down to this many times the size that is wanted: much faster."""

Size = tuple[int, int]


def prepare() -> None:
    """Load all that Pillow loads late, and set its bounds to ours."""
    Image.init()
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS


def decode(data: bytes, name: str, wanted: Wanted) -> tuple[int, int, bytes]:
    """Width, height and pixels of the first picture of a file of the format `name`: upright, RGB on white, or a mask.

    Raises Unreadable.
    """
    with _opened(data, name) as opened:
        width, height = _size(opened.size, wanted)
        if wanted.exactly is None and max(width, height) > MAX_RATIO * min(width, height):
            raise Unreadable(
                f"is a stripe of {opened.width}x{opened.height} pixels; the longer side may have {MAX_RATIO} times "
                "those of the shorter"
            )
        try:
            # A JPEG is decoded no larger than is of use.
            opened.draft(None, (2 * max(width, height),) * 2)
            opened.load()
            picture, orientation = _plain(opened), _orientation(opened)
        except MemoryError:
            raise
        except Exception as error:  # Pillow's readers raise any error for a broken file
            raise Unreadable(f"is a truncated or damaged {name} file") from error
    size = _size(picture.size, wanted, is_turned=orientation >= FIRST_SWAPPING)
    if size != picture.size:
        resample = Image.Resampling.BILINEAR if wanted.as_mask else Image.Resampling.LANCZOS
        picture = picture.resize(size, resample, reducing_gap=REDUCING_GAP)
    if (turn := TURNED.get(orientation)) is not None:  # one of them is 0
        picture = picture.transpose(turn)
    flat = _as_mask(picture) if wanted.as_mask else _on_white(picture)
    return flat.width, flat.height, flat.tobytes()


@contextlib.contextmanager
def _opened(data: bytes, name: str) -> Iterator[Image.Image]:
    """The file with its header read. Nothing is decoded yet."""
    too_many = f"must have at most {MAX_PIXELS:,} pixels ({round(MAX_PIXELS / 1e6)} megapixels)"
    try:
        opened = Image.open(BytesIO(bare(data)), formats=(name.upper(),))
    except Image.DecompressionBombError as error:
        raise Unreadable(too_many) from error
    except MemoryError:
        raise
    except Exception as error:
        raise Unreadable(f"is a truncated or damaged {name} file") from error
    with opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise Unreadable(f"{too_many}, not {opened.width}x{opened.height}; make it smaller")
        yield opened


def _size(size: Size, wanted: Wanted, *, is_turned: bool = False) -> Size:
    """What a picture of this size is made before it is turned upright."""
    if wanted.exactly is not None:
        return wanted.exactly[::-1] if is_turned else wanted.exactly
    width, height = size
    factor = min(1.0, math.sqrt(wanted.max_pixels / (width * height)))
    if wanted.max_side:
        factor = min(factor, wanted.max_side / max(size))
    return size if factor == 1.0 else (max(1, int(width * factor)), max(1, int(height * factor)))


def _orientation(opened: Image.Image) -> int:
    """EXIF's; 1 where it says none that is known. Pillow turns TIFF files itself, and then says 1."""
    try:
        found = opened.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF beside a good picture
        return 1
    return found if isinstance(found, int) and found in TURNED else 1


def _plain(opened: Image.Image) -> Image.Image:
    """The picture in L, RGB or RGBA. Raises whatever Pillow raises for modes that mean no colours."""
    picture = _eight_bits(opened)
    if picture.mode in ("L", "RGB", "RGBA") and "transparency" not in picture.info:
        return picture
    is_transparent = "transparency" in picture.info or picture.mode in ("LA", "La", "PA", "RGBa")
    if picture.mode == "La":
        picture = picture.convert("LA")
    return picture.convert("RGBA" if is_transparent else "L" if picture.mode == "1" else "RGB")


def _eight_bits(picture: Image.Image) -> Image.Image:
    """16-bit grey, which Pillow would clip where it should scale, and whose transparent grey it would lose."""
    if picture.mode == "F":
        raise ValueError("it has pixels in floating point")
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
