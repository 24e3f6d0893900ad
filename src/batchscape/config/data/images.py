"""Sections of the sources of images."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from batchscape.config.base import AsPair, FromText, PositiveInt, Seed
from batchscape.config.data.section import DataSection, DataSize

ImageSize = Annotated[tuple[PositiveInt, PositiveInt], Field(examples=[[64, 64]]), AsPair]


class DigitsConfig(DataSection):
    """The 1,797 handwritten digits of 8×8 pixels that scikit-learn ships."""

    example_noun: ClassVar[str] = "images"

    source: Literal["digits"] = "digits"
    """Where the images come from."""

    task: Literal["parity", "digit"] = "parity"
    """`parity`: odd or even, two classes. `digit`: which digit, ten classes."""

    @property
    def known_size(self) -> DataSize:
        return DataSize(images=1797, side=8)


class ImageFolderConfig(DataSection):
    """Image files of any format and size, one folder per class: `cats/1.jpg`, `dogs/1.png`. An unusable file is
    dropped; the manifest gives the reason."""

    example_noun: ClassVar[str] = "images"

    may_give_split: ClassVar[bool] = True

    source: Literal["image_folder"]
    """Where the images come from."""

    path: Annotated[str, Field(min_length=1, examples=["data/pets"])]
    """A folder, or a zip file, with one folder per class; parent folders that contain nothing else are skipped.
    Folders such as `train`, `val` and `test`, above the classes or within each, define the split; if one of them is for
    validation, leave out `validation_fraction`, `split` and `split_seed`."""

    image_size: ImageSize
    """Height and width that every image is scaled to, in pixels."""

    fit: Literal["stretch", "crop"] = "stretch"
    """`stretch`: scale without preserving the aspect ratio. `crop`: preserve it, and take the center crop."""

    color: Annotated[Literal["rgb", "grayscale"], Field(examples=["grayscale"])] = "rgb"
    """Three channels (`rgb`) or one (`grayscale`)."""

    drop_duplicates: bool = True
    """Of files with identical bytes use only the first, so that no image is in two parts of the split. Training files
    come before validation files, and these before test files."""

    jfif_only: bool = False
    """Drop every file without `JFIF` in its first ten bytes, as the TensorFlow Datasets edition of Cats vs Dogs
    does."""

    white_level: Annotated[int, Field(ge=1, le=65535, examples=[4095])] | None = None
    """The value of 16-bit files that is white: 4095 for 12 bits. `null`: the lowest of 255, 511, 1023, … 65535 that
    is not exceeded in any file, which is printed. 8-bit files are not scaled."""

    @property
    def known_size(self) -> DataSize:
        return DataSize(images=None, side=min(self.image_size))

    @property
    def files(self) -> dict[str, str]:
        return {"path": self.path} if self.path else {}


class CatsVsDogsConfig(ImageFolderConfig):
    """Microsoft's Cats vs Dogs (Elson et al. 2007), in the order of its TensorFlow Datasets edition; the zip file is
    downloaded once, unless `path` has it."""

    # Sections are frozen, so that narrower or wider types than in the base are safe.
    source: Literal["cats_vs_dogs"]  # type: ignore[assignment]
    """Where the images come from."""

    path: Annotated[str | None, Field(min_length=1, examples=["data/kagglecatsanddogs_5340.zip"])] = None  # type: ignore[assignment]
    """The zip file, or the folder that it was unpacked to; downloaded to `downloads/` if left out."""

    image_size: ImageSize = (128, 128)
    """Height and width that every image is scaled to, in pixels."""

    drop_duplicates: bool = False
    """Of files with identical bytes use only the first; the original study used all."""

    jfif_only: bool = True
    """Drop every file without `JFIF` in its first ten bytes, as the TensorFlow Datasets edition does: 23,262 are
    left."""

    url: Annotated[
        str, StringConstraints(pattern=r"^https?://\S+$"), Field(examples=["https://example.org/pets.zip"])
    ] = "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F/kagglecatsanddogs_5340.zip"
    """Where the zip file is downloaded from, such as a mirror."""

    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] = (
        "b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9"
    )
    """Checksum that a downloaded file must have."""


class SyntheticConfig(DataSection):
    """Synthetic images for tests and benchmarks: each class has its own coarse pattern, plus noise."""

    example_noun: ClassVar[str] = "images"

    source: Literal["synthetic"]
    """Where the images come from."""

    images: Annotated[PositiveInt, Field(examples=[1000])] = 1000
    """Number of images; classes alternate."""

    image_size: ImageSize = (32, 32)
    """Height and width in pixels."""

    channels: PositiveInt = 3
    """Channels of each image."""

    classes: Annotated[int, Field(ge=2, examples=[2])] = 2
    """Number of classes."""

    noise: Annotated[float, Field(ge=0, allow_inf_nan=False, examples=[0.5]), FromText] = 0.5
    """Standard deviation of the noise in each channel of a pixel, relative to that of the patterns."""

    data_seed: Seed = 0
    """Seed of patterns and noise."""

    @property
    def known_size(self) -> DataSize:
        return DataSize(images=self.images, side=min(self.image_size))


class IdxConfig(DataSection):
    """The files of MNIST, Fashion-MNIST, EMNIST and KMNIST, compressed by gzip or not."""

    example_noun: ClassVar[str] = "images"

    may_give_split: ClassVar[bool] = True

    source: Literal["idx"]
    """Where the images come from."""

    path: Annotated[str, Field(min_length=1, examples=["data/mnist"])]
    """A folder with `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`, and if the test images are used, the same
    with `t10k` (EMNIST: `emnist-letters-train-images-idx3-ubyte`, …), or one file of images."""

    labels: Annotated[str | None, Field(min_length=1, examples=["data/train-labels-idx1-ubyte.gz"])] = None
    """The file of labels, if `path` is a file. `null`: the file beside it with `labels` instead of `images` in its
    name."""

    transpose: bool | None = None
    """Whether height and width are swapped, as in the files of EMNIST. `null`: if the name of the file has `emnist`."""

    @property
    def files(self) -> dict[str, str]:
        return {"path": self.path, **({"labels": self.labels} if self.labels else {})}

    @property
    def label_files(self) -> tuple[str, ...]:
        """The files beside `path`, if it is a file of images, that may have the labels; the first that exists has."""
        name = Path(self.path).name.replace("images", "labels").replace("idx3", "idx1")
        plain = name.removesuffix(".gz")
        names = dict.fromkeys((name, plain, f"{plain}.gz"))
        return tuple(str(Path(self.path).with_name(name)) for name in names)

    @property
    def files_beside(self) -> tuple[str, ...]:
        # The mapping has the characters of EMNIST's labels.
        mappings = map(str, sorted(Path(self.path).parent.glob("*mapping.txt")))
        return (*(() if self.labels else self.label_files), *mappings)


class CifarConfig(DataSection):
    """CIFAR-10 or CIFAR-100 (Krizhevsky 2009), in the binary version; `test_batch.bin` or `test.bin` is for testing."""

    example_noun: ClassVar[str] = "images"

    may_give_split: ClassVar[bool] = True

    source: Literal["cifar"]
    """Where the images come from."""

    path: Annotated[str, Field(min_length=1, examples=["data/cifar-10-binary.tar.gz"])]
    """The `.tar.gz` file, or the folder that it was unpacked to."""

    labels: Literal["fine", "coarse"] | None = None
    """The 100 classes (`fine`, the default) or the 20 superclasses (`coarse`) of CIFAR-100."""

    @property
    def known_size(self) -> DataSize:
        return DataSize(images=None, side=32)

    @property
    def files(self) -> dict[str, str]:
        return {"path": self.path}
