"""Decoding of image files of any format to pixels."""

import io
import re
import sys
from typing import Literal, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps

from batchscape.data.archive import UnusableFile

WHITE_16_BIT = 65535

# Pillow's names of modes with several 16-bit channels, mapped to the mode with the bytes of each value swapped.
SWAPPED = {
    f"{bands};16{order}": f"{bands};16{other}"
    for bands in ("RGB", "RGBA", "RGBX")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B" if sys.byteorder == "little" else "L"))
}
# Pillow's name of 16-bit gray with opacity, as PNG files store it, and of the same four bytes as four channels.
GRAY_AND_OPACITY, FOUR_BYTES = "LA;16B", "RGBA"

# EXIF 2.32, tag "Orientation": the transposition that brings row 0 to the top and column 0 to the left.
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
    """An image as stored in a file, turned upright."""

    image: Image.Image
    """The image; of several 16-bit channels only the high bytes, which are all that Pillow keeps."""

    low_bytes: Image.Image | None
    """The low bytes of several 16-bit channels."""

    format: str | None
    """Pillow's name of the file format."""

    is_first_of_several: bool
    """Whether the file contains further images."""

    @property
    def max_value(self) -> int:
        """The largest value, if values have 16 bits or more and the file does not say which one is white; else 0."""
        if self.low_bytes:
            return int(_combine_bytes(self.image, self.low_bytes)[..., :3].max())
        # Pillow scales PPM files by the white level that they give.
        return int(np.asarray(self.image).max()) if self.image.mode.startswith("I") and self.format != "PPM" else 0


def decode_image(
    content: bytes,
    size: tuple[int, int],
    fit: Literal["stretch", "crop"],
    color: Literal["rgb", "grayscale"],
    white_level: int = WHITE_16_BIT,
) -> np.ndarray:
    """Return the (first) image of a file, (height, width, 3 or 1), uint8, turned upright as its EXIF data says.

    It is scaled to `size`, (height, width), by Pillow's bilinear filter, which averages when it shrinks; `crop` keeps
    the aspect ratio and the center. Transparent pixels become white; of 16-bit values, `white_level` becomes 255;
    floats in [0, 1] become bytes; grayscale is ITU-R BT.601 luma. Raises UnusableFile if it is not an image, corrupt,
    larger than Pillow's limit, or has values without a known black and white.
    """
    return convert_image(open_image(content), size, fit, color, white_level)


def convert_image(
    decoded: DecodedImage,
    size: tuple[int, int],
    fit: Literal["stretch", "crop"],
    color: Literal["rgb", "grayscale"],
    white_level: int = WHITE_16_BIT,
) -> np.ndarray:
    """Return the pixels of an image as `decode_image` does."""
    image = _to_8_bits(decoded, white_level)
    try:
        image = _composite_on_white(image).convert("RGB")
    except ValueError:
        raise UnusableFile(f"unsupported colors: mode {image.mode}")
    if color == "grayscale":
        image = image.convert("L")
    target = size[::-1]
    if fit == "crop":
        image = ImageOps.fit(image, target, Image.Resampling.BILINEAR)
    else:
        image = image.resize(target, Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(*size, -1)


def open_image(content: bytes) -> DecodedImage:
    """Return the (first) image of a file. Raises UnusableFile as `decode_image` does."""
    Image.init()
    formats = [name for name in Image.OPEN if name != "EPS"]  # for EPS Pillow would run Ghostscript
    try:
        file = Image.open(io.BytesIO(content), formats=formats)
        low_bytes = _read_low_bytes(content, file)
        file.load()
    except Image.UnidentifiedImageError:  # its message has a memory address
        raise UnusableFile("not an image: of a format that Pillow does not read, or with an incomplete header")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnusableFile(f"too large: {int(re.findall(r'[0-9]+', str(error))[0]):,} pixels")
    except MemoryError:  # not the file's fault
        raise
    except Exception as error:  # Pillow's plugins raise errors of any kind for damaged bytes
        raise UnusableFile(f"corrupt image: {' '.join(str(error).split()) or type(error).__name__}")
    image: Image.Image = file
    is_first_of_several = _has_several_images(file)
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # corrupt EXIF data; the pixels are fine
        orientation = None
    if orientation in UPRIGHT:
        image = image.transpose(UPRIGHT[orientation])
        low_bytes = low_bytes and low_bytes.transpose(UPRIGHT[orientation])
    return DecodedImage(image, low_bytes, file.format, is_first_of_several)


def _has_several_images(image: Image.Image) -> bool:
    if image.format == "MPO":  # a phone's photograph, followed by smaller or darker versions of itself
        return False
    try:
        return getattr(image, "is_animated", False)
    except Exception:  # the next image is corrupt
        return True


def _read_low_bytes(content: bytes, image: ImageFile.ImageFile) -> Image.Image | None:
    """Return the low bytes of an image with several 16-bit channels that is not loaded yet; otherwise None.

    Pillow keeps only the high byte of each value; here it reads the file with the byte order swapped. For gray with
    opacity it cannot swap it, but it can return all bytes: the high and low ones of gray, then those of the opacity.
    """
    modes = {_raw_mode(tile.args) for tile in image.tile}
    mode = modes.pop() if len(modes) == 1 else None
    other_mode = FOUR_BYTES if mode == GRAY_AND_OPACITY else SWAPPED.get(mode or "")
    if other_mode is None or image.format is None:
        return None
    low_bytes = Image.open(io.BytesIO(content), formats=[image.format])
    low_bytes.tile = [
        tile._replace(args=(other_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else other_mode)
        for tile in low_bytes.tile
    ]
    low_bytes.load()
    if mode == GRAY_AND_OPACITY:  # which Pillow opens as RGBA
        _, gray, _, opacity = low_bytes.split()
        return Image.merge("RGBA", (gray, gray, gray, opacity))
    return low_bytes


def _raw_mode(args: tuple | str | None) -> str | None:
    return args if isinstance(args, str) else (args or ("",))[0]


def _combine_bytes(high: Image.Image, low: Image.Image) -> np.ndarray:
    return np.asarray(high).astype(np.uint16) << 8 | np.asarray(low)


def _to_8_bits(decoded: DecodedImage, white_level: int) -> Image.Image:
    """Return an image with 8 bits per channel, scaled; Pillow's own conversion would clip larger values."""
    image = decoded.image
    if not (decoded.low_bytes or image.mode.startswith(("I", "F"))):
        return image
    values = _combine_bytes(image, decoded.low_bytes) if decoded.low_bytes else np.asarray(image)
    values = values.reshape(image.height, image.width, -1)
    white = 1 if image.mode == "F" else WHITE_16_BIT if decoded.format == "PPM" else white_level
    colors, opacity = values[..., :3], values[..., 3:]
    low, high = colors.min(), colors.max()
    if not (low >= 0 and high <= white):  # NaN fails this too
        if white < high <= WHITE_16_BIT and image.mode != "F":
            raise UnusableFile(f"above data.white_level: its largest value is {high:,}, white is {white:,}")
        raise UnusableFile(f"unsupported colors: values from {low:g} to {high:g}, not from 0 to {white}")
    scaled = [np.round(colors * (255 / white))]
    if "transparency" in image.info:
        scaled[0][(colors == image.info["transparency"]).all(axis=-1)] = 255
    if opacity.size:  # some programs write it with all 16 bits beside colors with fewer
        scaled.append(np.round(opacity * (255 / (white if opacity.max() <= white else WHITE_16_BIT))))
    pixels = np.concatenate(scaled, axis=-1).astype(np.uint8)
    return Image.fromarray(pixels if pixels.shape[-1] > 1 else pixels[..., 0])


def _composite_on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
