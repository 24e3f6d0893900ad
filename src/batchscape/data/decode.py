"""An image file's bytes as pixels, whatever its format."""

import io
import re
import sys
from typing import Literal, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps

from batchscape.data.archive import UnusableFile

WHITE_16_BIT = 65535

# Pillow's names of several channels of 16 bits, and of the same with the bytes of each value swapped.
SWAPPED = {
    f"{bands};16{order}": f"{bands};16{other}"
    for bands in ("RGB", "RGBA", "RGBX")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B" if sys.byteorder == "little" else "L"))
}

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


class DecodedImage(NamedTuple):
    """An image as a file holds it, upright."""

    image: Image.Image
    """Of several channels of 16 bits the high bytes, which are all that Pillow keeps."""

    low: Image.Image | None
    """Their low bytes."""

    is_first: bool
    """Whether it is the first of several images in the file."""

    @property
    def brightest(self) -> int:
        """The largest value where values have 16 bits or more and the file does not say which one is white; else 0."""
        if self.low:
            return int(_wide(self)[..., :3].max())
        # The reader of PPM files has scaled them by the white level that they name.
        return (
            int(np.asarray(self.image).max()) if self.image.mode.startswith("I") and self.image.format != "PPM" else 0
        )


def decode_image(
    content: bytes,
    size: tuple[int, int],
    fit: Literal["stretch", "crop"],
    color: Literal["rgb", "grayscale"],
    white_level: int = WHITE_16_BIT,
) -> np.ndarray:
    """Return a file's (first) image, (height, width, 3 or 1), uint8, turned upright as its EXIF data says.

    It is scaled to `size`, (height, width), by Pillow's bilinear filter, which averages when it shrinks; `crop` keeps
    the proportions and the middle. Transparency becomes white; of 16-bit values, `white_level` becomes 255; floats in
    [0, 1] become bytes; grey is ITU-R BT.601 luma. Raises Unusable if it is no image, damaged, larger than Pillow's
    limit, or of colours that have no such meaning.
    """
    return convert_image(open_image(content), size, fit, color, white_level)


def convert_image(
    image: DecodedImage,
    size: tuple[int, int],
    fit: Literal["stretch", "crop"],
    color: Literal["rgb", "grayscale"],
    white_level: int = WHITE_16_BIT,
) -> np.ndarray:
    """Return an image as `decoded` does."""
    image = _bytes(image, white_level)
    try:
        image = _opaque(image).convert("RGB")
    except ValueError:
        raise UnusableFile(f"unknown colours: mode {image.mode}")
    if color == "grayscale":
        image = image.convert("L")
    target = size[::-1]
    if fit == "crop":
        image = ImageOps.fit(image, target, Image.Resampling.BILINEAR)
    else:
        image = image.resize(target, Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(*size, -1)


def open_image(content: bytes) -> DecodedImage:
    """Return a file's (first) image. Raises Unusable as `decoded` does."""
    Image.init()
    formats = [name for name in Image.OPEN if name != "EPS"]  # Pillow would run Ghostscript, where there is one
    try:
        image = Image.open(io.BytesIO(content), formats=formats)
        low = _low_bytes(content, image)
        image.load()
    except Image.UnidentifiedImageError:  # the message has an address of memory
        raise UnusableFile("no image: of no format that Pillow reads, or without a whole header")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        pixels = int(re.search(r"\d+", str(error))[0])
        raise UnusableFile(f"too large: {pixels:,} pixels")
    except MemoryError:  # says nothing of the file
        raise
    except Exception as error:  # Pillow's plugins raise whatever damaged bytes lead them to
        raise UnusableFile(f"damaged image: {' '.join(str(error).split()) or type(error).__name__}")
    is_first = _holds_several(image)
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # likewise; the pixels are whole
        orientation = None
    if orientation in UPRIGHT:
        format, image = image.format, image.transpose(UPRIGHT[orientation])
        image.format = format
        low = low and low.transpose(UPRIGHT[orientation])
    return DecodedImage(image, low, is_first)


def _holds_several(image: Image.Image) -> bool:
    if image.format == "MPO":  # a photograph of a telephone; what follows is the same one, smaller or darker
        return False
    try:
        return getattr(image, "is_animated", False)
    except Exception:  # what follows is damaged
        return True


def _low_bytes(content: bytes, image: Image.Image) -> Image.Image | None:
    """Return the low bytes of an image of several 16-bit channels that is not loaded yet; None for any other one.

    Pillow keeps the high bytes alone. It is told that the other byte of each value is the high one.
    """
    modes = {tile.args if isinstance(tile.args, str) else (tile.args or ("",))[0] for tile in image.tile}
    mode = modes.pop() if len(modes) == 1 else None
    if mode not in SWAPPED:
        return None
    low = Image.open(io.BytesIO(content), formats=[image.format])
    low.tile = [
        tile._replace(args=SWAPPED[mode] if isinstance(tile.args, str) else (SWAPPED[mode], *tile.args[1:]))
        for tile in low.tile
    ]
    low.load()
    return low


def _wide(image: DecodedImage) -> np.ndarray:
    return np.asarray(image.image).astype(np.uint16) << 8 | np.asarray(image.low)


def _bytes(decoded: DecodedImage, white_level: int) -> Image.Image:
    """Return an image of 8 bits a channel; Pillow would cut larger numbers off instead of scaling them."""
    image = decoded.image
    if not (decoded.low or image.mode.startswith(("I", "F"))):
        return image
    values = (_wide(decoded) if decoded.low else np.asarray(image)).reshape(image.height, image.width, -1)
    white = 1 if image.mode == "F" else WHITE_16_BIT if image.format == "PPM" else white_level
    colours, opacity = values[..., :3], values[..., 3:]
    low, high = colours.min(), colours.max()
    if not (low >= 0 and high <= white):  # also where one is not a number
        if white < high <= WHITE_16_BIT and image.mode != "F":
            raise UnusableFile(f"above data.white_level: its largest value is {high:,}, white is {white:,}")
        raise UnusableFile(f"unknown colours: values from {low:g} to {high:g}, not from 0 to {white}")
    scaled = [np.round(colours * (255 / white))]
    if "transparency" in image.info:
        scaled[0][(colours == image.info["transparency"]).all(axis=-1)] = 255
    if opacity.size:  # some programs write it with all 16 bits beside colours of fewer
        scaled.append(np.round(opacity * (255 / (white if opacity.max() <= white else WHITE_16_BIT))))
    pixels = np.concatenate(scaled, axis=-1).astype(np.uint8)
    return Image.fromarray(pixels if pixels.shape[-1] > 1 else pixels[..., 0])


def _opaque(image: Image.Image) -> Image.Image:
    """Return an image on white."""
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
