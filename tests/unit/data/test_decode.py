"""Decoding: pixels of all color modes, bit depths, orientations and sizes; corrupt files."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from batchscape.data.archive import UnusableFile
from batchscape.data.decode import decode_image, open_image
from tests.helpers.bad_images import encode_image, make_image
from tests.helpers.image_sets import encode_16_bit_png, encode_16_bit_tiff


def pixels(image: Image.Image, kind: str = "PNG", color: str = "rgb", **options) -> np.ndarray:
    """Encode and decode an image at its own size."""
    return decode_image(encode_image(image, kind, **options), image.size[::-1], "stretch", color)


def unusable(content: bytes) -> str:
    with pytest.raises(UnusableFile) as caught:
        decode_image(content, (8, 8), "stretch", "rgb")
    message = str(caught.value)
    assert message.splitlines() == [message]
    assert ": " in message
    assert "0x" not in message  # a memory address would differ between runs
    return message


def test_image_of_the_target_size_is_unchanged():
    image = make_image(0, 0)
    assert np.array_equal(pixels(image), np.asarray(image))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_values_are_scaled_not_clipped(kind: str):
    values = np.arange(0, 65536, dtype=np.uint16).reshape(256, 256)
    expected = (values.astype(int) + 128) // 257
    assert expected[-1, -1] == 255
    assert np.array_equal(pixels(Image.fromarray(values), kind, "grayscale")[..., 0], expected)


def test_big_endian_16_bit_values_are_scaled():
    header = b"P5 2 1 65535\n"
    assert decode_image(
        header + struct.pack(">HH", 257 * 7, 65535), (1, 2), "stretch", "grayscale"
    ).ravel().tolist() == [
        7,
        255,
    ]


def test_transparent_16_bit_value_becomes_white():
    image = Image.fromarray(np.array([[257, 514]], np.uint16))
    assert pixels(image, "PNG", "grayscale", transparency=257).ravel().tolist() == [255, 2]


def test_floats_from_0_to_1_become_bytes_and_others_are_rejected():
    image = Image.fromarray(np.array([[0, 0.2, 1]], np.float32))
    assert pixels(image, "TIFF", "grayscale").ravel().tolist() == [0, 51, 255]
    for values in ([[0, 1.01]], [[-0.01, 1]], [[0, np.nan]]):
        assert unusable(encode_image(Image.fromarray(np.array(values, np.float32)), "TIFF")).startswith(
            "unsupported colors: "
        )


def test_32_bit_integers_are_read_as_16_bits_or_rejected():
    assert pixels(Image.fromarray(np.array([[0, 65535]], np.int32)), "TIFF", "grayscale").ravel().tolist() == [0, 255]
    for values in ([[0, 65536]], [[-1, 0]]):
        assert unusable(encode_image(Image.fromarray(np.array(values, np.int32)), "TIFF")).startswith(
            "unsupported colors: "
        )


def test_lab_colors_are_converted():
    # Bytes: lightness up to 255, then two color axes centered on 128.
    white, black = (255, 128, 128), (0, 128, 128)
    for color in ("rgb", "grayscale"):
        assert (pixels(Image.new("LAB", (4, 4), white), "TIFF", color) >= 254).all()
        assert (pixels(Image.new("LAB", (4, 4), black), "TIFF", color) <= 1).all()


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_converted_to_rgb(kind: str):
    inks = np.array([0, 51, 255, 102])  # up to 255; Adobe stores them inverted in JPEG files
    image = Image.new("CMYK", (16, 16), tuple(inks.tolist()))
    options = {"quality": 100} if kind == "JPEG" else {}
    expected = (255 - inks[:3]) * (255 - inks[3]) / 255
    assert np.abs(pixels(image, kind, **options)[5, 5] - expected).max() <= 2


def test_grayscale_and_rgb_are_converted_to_each_other():
    assert pixels(Image.new("L", (2, 2), 77)).ravel().tolist() == [77] * 12
    assert pixels(Image.new("1", (2, 2), 1)).ravel().tolist() == [255] * 12
    luma = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    gray = pixels(Image.new("RGB", (2, 2), (200, 100, 50)), color="grayscale")
    assert gray.shape == (2, 2, 1)
    assert np.abs(gray - luma).max() <= 0.5


def test_palette_colors_are_looked_up():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    assert pixels(image).tolist() == [[[10, 20, 30], [40, 50, 60]]]
    assert pixels(image, "GIF").tolist() == [[[10, 20, 30], [40, 50, 60]]]


def test_transparent_pixels_become_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    assert pixels(image, transparency=0).tolist() == [[[255, 255, 255], [40, 50, 60]]]
    partly = pixels(image, transparency=bytes([255, 51]))[0]
    assert partly[0].tolist() == [10, 20, 30]
    assert np.abs(partly[1] - (np.array([40, 50, 60]) * 0.2 + 255 * 0.8)).max() <= 1
    assert pixels(Image.new("RGBA", (1, 1), (10, 20, 30, 0))).ravel().tolist() == [255, 255, 255]
    assert pixels(Image.new("LA", (1, 1), (10, 0))).ravel().tolist() == [255, 255, 255]
    assert pixels(Image.new("L", (1, 1), 7), transparency=7).ravel().tolist() == [255, 255, 255]
    assert pixels(Image.new("RGB", (1, 1), (7, 8, 9)), transparency=(7, 8, 9)).ravel().tolist() == [255, 255, 255]


# By EXIF orientation, where the file has the top left corner of the upright picture: (row, column).
CORNERS = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (-1, 0), 7: (-1, -1), 8: (0, -1)}


@pytest.mark.parametrize("orientation", CORNERS)
def test_exif_orientation_is_applied(orientation: int):
    # The top left is white, the top right gray. From orientation 5, rows of the file are columns of the picture.
    stored = np.zeros((2, 3), np.uint8)
    row, column = CORNERS[orientation]
    stored[row, column] = 255
    across = orientation < 5
    stored[row if across else -1 - row, -1 - column if across else column] = 128
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode_image(Image.fromarray(stored), "PNG", exif=exif)
    upright = np.zeros((2, 3) if across else (3, 2), np.uint8)
    upright[0, 0], upright[0, -1] = 255, 128
    assert np.array_equal(decode_image(content, upright.shape, "stretch", "grayscale")[..., 0], upright)


def test_corrupt_exif_data_is_ignored():
    image = make_image(0, 0)
    plain = pixels(image, "JPEG")
    assert np.array_equal(pixels(image, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), plain)
    assert np.array_equal(pixels(image, "JPEG", exif=b"Exif\0\0nonsense"), plain)
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", "\nexif\n8\nno hex\n")  # as ImageMagick writes it into PNG files
    assert np.array_equal(pixels(image, pnginfo=text), np.asarray(image))


def test_first_frame_of_an_animation_is_used():
    frames = [Image.new("RGB", (3, 3), color) for color in ((250, 0, 0), (0, 250, 0))]
    content = encode_image(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_image(content, (3, 3), "stretch", "rgb")[0, 0].tolist() == [250, 0, 0]


def test_shrinking_averages_pixels():
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    shrunk = decode_image(encode_image(Image.fromarray(stripes), "PNG"), (8, 8), "stretch", "grayscale")
    assert np.abs(shrunk[:, 1:-1].astype(int) - 127.5).max() < 5


def test_image_is_stretched_or_cropped_to_the_target_size():
    # Three squares side by side, of which a square crop contains only the middle one.
    squares = np.repeat(np.array([50, 100, 150], np.uint8), 40)[None].repeat(40, axis=0)
    content = encode_image(Image.fromarray(squares), "PNG")
    cropped = decode_image(content, (20, 20), "crop", "grayscale")
    assert (cropped[:, 1:-1] == 100).all()  # the filter reads one pixel beyond the edge
    assert np.abs(cropped.astype(int) - 100).max() < 10
    stretched = decode_image(content, (20, 60), "stretch", "grayscale")[..., 0]
    assert stretched.shape == (20, 60)
    assert stretched[10, [5, 30, 55]].tolist() == [50, 100, 150]
    assert decode_image(content, (20, 30), "crop", "rgb").shape == (20, 30, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"])
def test_corrupt_file_is_decoded_or_rejected(kind: str):
    intact = encode_image(make_image(0, 0), kind)
    rng = np.random.default_rng(0)
    fates = set()
    for _ in range(40):
        content = bytearray(intact[: rng.integers(len(intact))] if rng.random() < 0.5 else intact)
        for at in rng.integers(len(content), size=3) if content else []:
            content[at] = rng.integers(256)
        try:
            assert decode_image(bytes(content), (8, 8), "stretch", "rgb").shape == (8, 8, 3)
            fates.add("decoded")
        except UnusableFile as error:
            fates.add(str(error).partition(":")[0])
    assert fates <= {"decoded", "corrupt image", "not an image", "too large", "unsupported colors"}
    assert "corrupt image" in fates


def test_postscript_file_is_not_executed():
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    assert unusable(content).startswith("not an image: ")


RNG = np.random.default_rng(2)
COLORS = RNG.integers(0, 4096, (5, 7, 3)).astype(np.uint16)
ENCODERS = {
    "PNG": encode_16_bit_png,
    **{
        f"TIFF {order} {packed}": lambda values, order=order, packed=packed: encode_16_bit_tiff(values, order, packed)
        for order in "<>"
        for packed in (False, True)
    },
}


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("white", [4095, 65535])
def test_12_bit_colors_keep_all_bits(kind: str, white: int):
    content = ENCODERS[kind](COLORS)
    assert open_image(content).max_value == COLORS.max()
    assert np.array_equal(decode_image(content, (5, 7), "stretch", "rgb", white), np.round(COLORS * (255 / white)))


def test_16_bit_opacity_beside_12_bit_colors_is_opaque():
    opaque = np.dstack([COLORS, np.full(COLORS.shape[:2], 65535, np.uint16)])
    assert open_image(encode_16_bit_png(opaque)).max_value == COLORS.max()
    assert np.array_equal(
        decode_image(encode_16_bit_png(opaque), (5, 7), "stretch", "rgb", 4095), np.round(COLORS * (255 / 4095))
    )
    opaque[..., 3] = 0
    assert (decode_image(encode_16_bit_png(opaque), (5, 7), "stretch", "rgb", 4095) == 255).all()


def encode_gray_with_opacity(values: np.ndarray) -> bytes:
    """Return a PNG file of values, (height, width, 2): that of an image of twice the width, with another header."""
    content = bytearray(encode_16_bit_png(values.reshape(len(values), -1)))
    content[16:20] = struct.pack(">I", values.shape[1])
    content[25] = 4  # color type
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


@pytest.mark.parametrize("white", [4095, 65535])
def test_12_bit_gray_beside_opacity_keeps_all_bits(white: int):
    gray = COLORS[..., 0]
    content = encode_gray_with_opacity(np.dstack([gray, np.full_like(gray, 65535)]))
    assert open_image(content).max_value == gray.max()
    decoded = decode_image(content, gray.shape, "stretch", "rgb", white)
    assert np.array_equal(decoded, np.round(gray * (255 / white))[..., None].repeat(3, axis=2))


def test_transparent_16_bit_gray_becomes_white():
    content = encode_gray_with_opacity(np.array([[[257 * 7, 65535], [257 * 7, 0], [0, 257 * 51]]]))
    assert decode_image(content, (1, 3), "stretch", "grayscale").ravel().tolist() == [7, 255, 204]


def test_white_level_of_the_format_is_used():
    content = b"P5 2 1 4095\n" + np.array([2048, 4095], ">u2").tobytes()
    assert open_image(content).max_value == 0
    assert decode_image(content, (1, 2), "stretch", "grayscale", 1023).ravel().tolist() == [128, 255]
