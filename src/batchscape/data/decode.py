"""An image file's bytes as pixels, whatever its format."""

import io
import re
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps

from batchscape.data.archive import Unusable

WHITE_16_BIT = 65535

# From EXIF 2.32, table "Orientation": what brings the first row back to the top and the first column to the left.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decoded(
    content: bytes, size: tuple[int, int], fit: Literal["stretch", "crop"], colour: Literal["rgb", "grey"]
) -> np.ndarray:
    """Return a file's (first) image, (height, width, 3 or 1), uint8, turned upright as its EXIF data says.

    It is scaled to `size`, (height, width), by Pillow's bilinear filter, which averages when it shrinks; `crop` keeps
    the proportions and the middle. Transparency becomes white; 16 bits become 8 by division by 257; floats in [0, 1]
    become bytes; grey is ITU-R BT.601 luma. Raises Unusable if it is no image, damaged, larger than Pillow's limit, or
    of colours that have no such meaning.
    """
    image = _loaded(content)
    try:
        image = _opaque(_bytes(image)).convert("RGB")
    except ValueError:
        raise Unusable(f"unknown colours: mode {image.mode}")
    if colour == "grey":
        image = image.convert("L")
    target = size[::-1]
    if fit == "crop":
        image = ImageOps.fit(image, target, Image.Resampling.BILINEAR)
    else:
        image = image.resize(target, Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(*size, -1)


def _loaded(content: bytes) -> Image.Image:
    Image.init()
    formats = [name for name in Image.OPEN if name != "EPS"]  # Pillow would run Ghostscript, where there is one
    try:
        image = Image.open(io.BytesIO(content), formats=formats)
        image.load()
    except Image.UnidentifiedImageError:  # the message has an address of memory
        raise Unusable("no image: of no format that Pillow reads, or without a whole header")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        pixels = int(re.search(r"\d+", str(error))[0])
        raise Unusable(f"too large: {pixels:,} pixels")
    except MemoryError:  # says nothing of the file
        raise
    except Exception as error:  # Pillow's plugins raise whatever damaged bytes lead them to
        raise Unusable(f"damaged image: {' '.join(str(error).split()) or type(error).__name__}")
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # likewise; the pixels are whole
        orientation = None
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _bytes(image: Image.Image) -> Image.Image:
    """Return an image of 8 bits a channel; Pillow would cut larger numbers off instead of scaling them."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image)
    white = 1 if image.mode == "F" else WHITE_16_BIT
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= white):  # also where one is not a number
        raise Unusable(f"unknown colours: values from {low:g} to {high:g}, not from 0 to {white}")
    values = np.round(values * (255 / white))
    if "transparency" in image.info:
        values[np.asarray(image) == image.info["transparency"]] = 255
    return Image.fromarray(values.astype(np.uint8))


def _opaque(image: Image.Image) -> Image.Image:
    """Return an image on white."""
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
