"""Section `data`: which images, and how they are split."""

from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field, SerializerFunctionWrapHandler, StringConstraints, model_serializer

from batchscape.config.base import Arguments, AsPair, FromText, ImportPath, PositiveInt, Section, Seed, tagged_union


class DataSize(NamedTuple):
    """What is known of a source before it is loaded; None is not known."""

    images: int | None
    side: int | None
    """The shorter side of the images in pixels."""


SPLIT_KEYS = ("validation_fraction", "split", "split_seed")


def validation_count(count: int, validation_fraction: float) -> int:
    """Return how many of `count` images validate."""
    return round(count * validation_fraction)


class DataSection(Section):
    """What all sources share: the split."""

    selector: ClassVar[str] = "source"

    source: str

    validation_fraction: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False, examples=[0.2]), FromText] = 0.2
    """Share of the images held out for validation."""

    split: Literal["random", "first"] = "random"
    """`random`: drawn with `split_seed`. `first`: the first images of the source train, the rest validate."""

    split_seed: Seed = 0
    """Seed of the split alone: all runs of a study share one split."""

    @property
    def known_size(self) -> DataSize:
        return DataSize(None, None)

    @property
    def split_keys(self) -> list[str]:
        """The keys of the split that the study file sets."""
        return [key for key in SPLIT_KEYS if key in self.model_fields_set]

    @property
    def files(self) -> dict[str, str]:
        """The files and folders that are read, by the key that names them."""
        return {}


class DigitsConfig(DataSection):
    """The 1,797 handwritten digits of 8×8 pixels that scikit-learn ships."""

    source: Literal["digits"] = "digits"
    """Where the images come from."""

    task: Literal["parity", "digit"] = "parity"
    """`parity`: odd or even, two classes. `digit`: which digit, ten classes."""

    @property
    def known_size(self) -> DataSize:
        return DataSize(images=1797, side=8)


ImageSize = Annotated[tuple[PositiveInt, PositiveInt], Field(examples=[[64, 64]]), AsPair]


class ImageFolderConfig(DataSection):
    """Image files of any format and size, one folder a class: `cats/1.jpg`, `dogs/1.png`. A file that cannot be used is
    dropped; the manifest says why."""

    source: Literal["image_folder"]
    """Where the images come from."""

    path: Annotated[str, Field(min_length=1, examples=["data/pets"])]
    """A folder, or a zip file, with one folder a class; folders around them that hold nothing else do not matter.
    Folders such as `train`, `val` and `test` give the split, above the classes or within each; where they have images
    to validate on, leave out `validation_fraction`, `split` and `split_seed`."""

    image_size: ImageSize
    """Height and width that every image is scaled to, in pixels."""

    fit: Literal["stretch", "crop"] = "stretch"
    """`stretch`: the whole image, whatever that does to its proportions. `crop`: proportions are kept, and what sticks
    out at two sides is cut off."""

    color: Annotated[Literal["rgb", "grayscale"], Field(examples=["grayscale"])] = "rgb"
    """Three channels, or one."""

    drop_duplicates: bool = True
    """Of files with the same bytes keep only the first, so that no image both trains and validates. Files to train on
    come before those to validate on, and these before those to test on."""

    jfif_only: bool = False
    """Drop every file without `JFIF` in its first ten bytes, as the TensorFlow Datasets edition of Cats vs Dogs
    does."""

    white_level: Annotated[int, Field(ge=1, le=65535, examples=[4095])] | None = None
    """The value of 16-bit files that is white: 4095 for 12 bits. `null`: the least of 255, 511, 1023, … 65535 that no
    value in any file exceeds; a line in the terminal says which. Files of 8 bits are not scaled."""

    @property
    def known_size(self) -> DataSize:
        return DataSize(images=None, side=min(self.image_size))

    @model_serializer(mode="wrap")
    def _without_unset_split(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A job has to know whether the study file asks for a split, for the folders may give one."""
        return {key: value for key, value in handler(self).items() if key not in self.unset_split_keys}

    @property
    def unset_split_keys(self) -> list[str]:
        """The keys of the split that the study file leaves to the folders, or to the defaults."""
        return [key for key in SPLIT_KEYS if key not in self.split_keys]

    @property
    def files(self) -> dict[str, str]:
        return {"path": self.path} if self.path else {}


class CatsVsDogsConfig(ImageFolderConfig):
    """Microsoft's Cats vs Dogs (Elson et al. 2007), in the order of its TensorFlow Datasets edition; the zip file is
    downloaded once, unless `path` has it."""

    source: Literal["cats_vs_dogs"]
    """Where the images come from."""

    path: Annotated[str | None, Field(min_length=1, examples=["data/kagglecatsanddogs_5340.zip"])] = None
    """The zip file, or the folder that it was unpacked to; downloaded to `downloads/` if left out."""

    image_size: ImageSize = (128, 128)
    """Height and width that every image is scaled to, in pixels."""

    drop_duplicates: bool = False
    """Of files with the same bytes keep only the first; the original study kept all."""

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


class ArraysConfig(DataSection):
    """NumPy arrays of images and of labels."""

    source: Literal["arrays"]
    """Where the images come from."""

    path: Annotated[str, Field(min_length=1, examples=["data/pets.npz"])]
    """An `.npz` file with the arrays `images` and `labels`, or an `.npy` file with the images: uint8, or floats from 0
    to 1; (n, height, width) or (n, height, width, channels)."""

    labels: Annotated[str | None, Field(min_length=1, examples=["data/labels.npy"])] = None
    """The `.npy` file with the labels, (n,), numbers or text, where `path` is one with the images."""

    channels: Literal["last", "first"] = "last"
    """`first`: images are (n, channels, height, width)."""

    @property
    def files(self) -> dict[str, str]:
        return {"path": self.path, **({"labels": self.labels} if self.labels else {})}


class SyntheticConfig(DataSection):
    """Made images for tests and benchmarks: each class has a coarse pattern of its own, under noise."""

    source: Literal["synthetic"]
    """Where the images come from."""

    images: Annotated[PositiveInt, Field(examples=[1000])] = 1000
    """How many there are, over all classes, which take turns."""

    image_size: ImageSize = (32, 32)
    """Height and width in pixels."""

    channels: PositiveInt = 3
    """Channels of each image."""

    classes: Annotated[int, Field(ge=2, examples=[2])] = 2
    """Number of classes."""

    noise: Annotated[float, Field(ge=0, allow_inf_nan=False, examples=[0.5]), FromText] = 0.5
    """Standard deviation of the noise in each channel of a pixel, in units of the patterns'."""

    data_seed: Seed = 0
    """Seed of patterns and noise."""

    @property
    def known_size(self) -> DataSize:
        return DataSize(images=self.images, side=min(self.image_size))


class CustomDataConfig(DataSection):
    """Images from a function of your own, found by its import path."""

    source: ImportPath
    """`my_package.my_module:load`, a function that returns images and labels, and if you like the names of the classes:
    uint8, (n, height, width) or (n, height, width, channels), and (n,). The module is found where the workflow runs, or
    is installed."""

    arguments: Annotated[Arguments, Field(examples=[{"split": "train"}])]
    """Keyword arguments of the function."""


DataConfig = tagged_union(
    "source",
    "import path `my_package.my_module:load`",
    {
        "digits": DigitsConfig,
        "image_folder": ImageFolderConfig,
        "arrays": ArraysConfig,
        "synthetic": SyntheticConfig,
        "cats_vs_dogs": CatsVsDogsConfig,
    },
    CustomDataConfig,
)


def source_module(name: str) -> str:
    """Return the module that loads the source of a name or import path; the code of other sources does not count."""
    return f"batchscape.data.{'custom' if ':' in name else name}"
