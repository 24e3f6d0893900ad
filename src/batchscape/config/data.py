"""Section `data`: which images, and how they are split."""

from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, SerializerFunctionWrapHandler, StringConstraints, model_serializer, model_validator

from batchscape.config.base import (
    Arguments,
    AsPair,
    FromText,
    ImportPath,
    PositiveInt,
    Section,
    Seed,
    cross_field_error,
    tagged_union,
)


class DataSize(NamedTuple):
    """Size of a data source before it is loaded; None if unknown."""

    images: int | None
    side: int | None
    """The shorter side of the images in pixels."""


SPLIT_KEYS = ("validation_fraction", "test_fraction", "split", "split_seed", "stratify")


TaskName = Literal["classification", "regression", "language_model"]


def held_out_count(count: int, fraction: float) -> int:
    """Return the number of examples that a fraction of `count` holds out for validation or testing."""
    return round(count * fraction)


class DataSection(Section):
    """What all sources share: the split."""

    selector: ClassVar[str] = "source"

    source: str

    tasks: ClassVar[tuple[TaskName, ...]] = ("classification",)
    """The tasks whose targets the source can give."""

    example_noun: ClassVar[str] = "examples"
    """What the report calls the examples, such as `images`."""

    validation_fraction: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False, examples=[0.2]), FromText] = 0.2
    """Share of the examples held out for validation: they choose the best weights and settings."""

    test_fraction: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False, examples=[0.1]), FromText] = 0.0
    """Share of the examples held out for testing: they choose nothing, and the best weights are tested on them. 0: no
    test side, unless the source gives one."""

    split: Literal["random", "first"] = "random"
    """`random`: shuffled with `split_seed`. `first`: the first examples of the source train, those that follow
    validate, and the last ones test."""

    split_seed: Seed = 0
    """Seed of the split, which all runs of a study share."""

    stratify: bool = False
    """Spread the classes, or the tenths of a numeric target, evenly over the sides. Only with `split: random`."""

    may_give_split: ClassVar[bool] = False
    """Whether the source itself may give the split, such as by folders, in place of the keys of the split."""

    @model_validator(mode="after")
    def _split_is_possible(self) -> Self:
        if self.stratify and self.split == "first":
            raise cross_field_error("stratify", "needs `split: random`; remove one of the two keys")
        if self.validation_fraction + self.test_fraction >= 1:
            raise cross_field_error(
                "test_fraction",
                f"{self.test_fraction:g} and data.validation_fraction, {self.validation_fraction:g}, leave nothing for "
                "training; lower one of them",
            )
        return self

    @property
    def known_size(self) -> DataSize:
        return DataSize(None, None)

    @property
    def token_unit(self) -> str:
        """What a token is, as `DataSpec.token_unit`; empty if the section does not say, or inputs are no tokens."""
        return ""

    @property
    def target_name(self) -> str:
        """What a numeric target is, as `DataSpec.target_name`; empty if the section does not say."""
        return ""

    @property
    def standardizes_target(self) -> bool:
        """Whether losses are in standard deviations of the target, so that their unit is not that of `target_name`."""
        return False

    @property
    def is_weighted(self) -> bool:
        """Whether the section gives the examples weights."""
        return False

    @property
    def split_keys(self) -> list[str]:
        """The keys of the split that the study file sets."""
        return [key for key in SPLIT_KEYS if key in self.model_fields_set]

    @property
    def unset_split_keys(self) -> list[str]:
        """The keys of the split that the study file leaves to a source that may give it, or to the defaults."""
        return [key for key in SPLIT_KEYS if key not in self.split_keys] if self.may_give_split else []

    @model_serializer(mode="wrap")
    def _without_unset_split(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave unset keys out: a job must know whether the study file sets a split, as the source may give one."""
        return {key: value for key, value in handler(self).items() if key not in self.unset_split_keys}

    @property
    def files(self) -> dict[str, str]:
        """The files and folders that are read, by the key that names them."""
        return {}


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


ImageSize = Annotated[tuple[PositiveInt, PositiveInt], Field(examples=[[64, 64]]), AsPair]


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


class ArraysConfig(DataSection):
    """NumPy arrays of any numeric type: images, numbers or tokens, and their labels or numeric targets."""

    tasks: ClassVar[tuple[TaskName, ...]] = ("classification", "regression", "language_model")

    may_give_split: ClassVar[bool] = True

    source: Literal["arrays"]
    """Where the examples come from."""

    path: Annotated[str, Field(min_length=1, examples=["data/pets.npz"])]
    """An `.npz` file with the arrays `images` (or `inputs`), (n, …), and `labels` (or `targets`), (n,), and optionally
    `weights`, (n,); `split`, (n,), of `train`, `validation` and `test`, or 0, 1 and 2; and `groups`, (n,), which are
    not divided between sides. Or an `.npy` file with the inputs. Labels are integers or text; targets of a regression
    are numbers, (n,) or (n, k); a language model has none."""

    labels: Annotated[str | None, Field(min_length=1, examples=["data/labels.npy"])] = None
    """The `.npy` file with the labels or targets, if `path` is an `.npy` file."""

    inputs: Literal["auto", "images", "numbers", "tokens"] = "auto"
    """`images`: uint8, which are divided by 255, or floats, which are not scaled; (n, height, width) or (n, height,
    width, channels). `numbers`: any shape, as float32. `tokens`: integers, (n, length); of a language model (n, 1 +
    length). `auto`: tokens for a language model; images if they are uint8 of 3 or 4 dimensions, or floats of 4
    dimensions with 1, 3 or 4 channels; otherwise numbers."""

    channels: Literal["last", "first"] = "last"
    """`first`: images are (n, channels, height, width)."""

    @property
    def files(self) -> dict[str, str]:
        return {"path": self.path, **({"labels": self.labels} if self.labels else {})}


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


class CustomDataConfig(DataSection):
    """Examples from a custom function, given by its import path."""

    tasks: ClassVar[tuple[TaskName, ...]] = ("classification", "regression", "language_model")

    may_give_split: ClassVar[bool] = True

    source: ImportPath
    """`my_package.my_module:load`, a function that returns inputs, labels and optionally the names of the classes, or a
    dict with `inputs`, `targets`, `classes`, `weights`, `split`, `groups` and `kind`: the arrays of the source
    `arrays`, and its key `inputs`. The module is in the folder where the workflow runs, or installed."""

    arguments: Annotated[Arguments, Field(examples=[{"split": "train"}])]
    """Keyword arguments of the function."""


DataConfig = tagged_union(
    "source",
    {
        "digits": DigitsConfig,
        "image_folder": ImageFolderConfig,
        "arrays": ArraysConfig,
        "synthetic": SyntheticConfig,
        "cats_vs_dogs": CatsVsDogsConfig,
    },
    CustomDataConfig,
    "import path `my_package.my_module:load`",
)


# The task that a source has if the study file does not name one; all others have classification.
DEFAULT_TASKS = {"text": "language_model", "python_docs": "language_model", "diamonds": "regression"}


def source_module(name: str) -> str:
    """Return the module that loads the source of a name or import path; jobs depend on that source's code alone."""
    return f"batchscape.data.{'custom' if ':' in name else name}"
