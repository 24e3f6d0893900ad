"""From the bytes of an image file to pixels."""

import io
import warnings
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

WHITE = (255, 255, 255, 255)


class Unusable(Exception):
    """Why a file is no image that can be used: `kind: details`."""


def decode(
    content: bytes, size: tuple[int, int], colour: Literal["rgb", "grey"], fit: Literal["stretch", "crop"]
) -> np.ndarray:
    """Return the pixels of an image file, (height, width, channels) uint8, scaled to `size` (height, width).

    The first frame, turned as its EXIF data says; transparent pixels lie on white; 16 bits become 8 by division by 257.
    Scaling is Pillow's bilinear filter, which averages over all pixels where it shrinks. Raises Unusable for what is no
    image, is damaged, or has more pixels than Pillow's limit against decompression bombs.
    """
    if not content:
        raise Unusable("empty file: it has no bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged EXIF data and the like; what matters is raised
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as image:
                image.load()
                pixels = _eight_bits(ImageOps.exif_transpose(image), colour)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise Unusable(f"too large: {_said(error)}")
    except UnidentifiedImageError:
        raise Unusable("no image: of no format that Pillow reads")
    except (Unusable, MemoryError):
        raise
    except Exception as error:  # decoders raise whatever a damaged file makes them raise
        raise Unusable(f"damaged image: {_said(error)}")
    height, width = size
    if fit == "crop":
        pixels = ImageOps.fit(pixels, (width, height), Image.Resampling.BILINEAR)
    else:
        pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(pixels).reshape(height, width, -1)


def _eight_bits(image: Image.Image, colour: str) -> Image.Image:
    """Return an image of 8 bits a channel: `RGB` or `L`."""
    mode = "RGB" if colour == "rgb" else "L"
    if image.mode.startswith("I") or image.mode == "F":  # Pillow would clip what is above 255
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise Unusable("unknown scale: pixels of 32 bits have no agreed black and white")
        image = Image.fromarray(np.round(values / 257).astype(np.uint8))
    elif image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image)
    elif image.mode == "CMYK":
        image = image.convert("RGB")
    return image.convert(mode)


def _said(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
