"""Section `data`: which examples, and how they are split."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)

from batchscape.config.base import (
    Arguments,
    AsPair,
    AsTuple,
    Distinct,
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
    """The tasks whose targets the source can give; the first one is the default."""

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

    @property
    def files_beside(self) -> tuple[str, ...]:
        """Files that are read as well if they exist, though no key names them."""
        return ()


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


ColumnNames = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], AsTuple, Distinct]


def _text_to_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


Target = Annotated[
    ColumnNames,
    BeforeValidator(_text_to_tuple, json_schema_input_type=str | list[str]),
    Field(min_length=1, examples=["price"]),
]


class TableSection(DataSection):
    """What a table's columns are used for."""

    example_noun: ClassVar[str] = "rows"

    tasks: ClassVar[tuple[TaskName, ...]] = ("classification", "regression")

    target: Target
    """The column that is predicted: the names of classes, or numbers; several columns of numbers as a list."""

    features: Annotated[ColumnNames | None, Field(min_length=1, examples=[["carat", "cut"]])] = None
    """The columns that predict it. `null`: all others. Dates (ISO 8601) become days since 1970-01-01, booleans 0 and
    1."""

    exclude: Annotated[ColumnNames, Field(examples=[["id"]])] = ()
    """Columns that are not used although `features` leaves them in, such as identifiers."""

    categorical: Annotated[ColumnNames, Field(examples=[["zip_code"]])] = ()
    """Columns of numbers, booleans or dates whose values are categories. Columns of text always are. The categories are
    those of the training rows; any other value is unknown. With the target, its integers are classes however many there
    are."""

    encoding: Literal["one_hot", "embedded"] = "one_hot"
    """`one_hot`: a column of 0 and 1 per category, all 0 if it is unknown. `embedded`: the index of the category, 0 if
    it is unknown, for networks that learn a vector per category."""

    missing: Literal["error", "impute", "drop"] = "error"
    """What happens where a feature has no value. `impute`: a number becomes the mean of the training rows, a category
    unknown. `drop`: the row is dropped. With both, rows without a target, weight, group or split are dropped. The
    manifest lists dropped rows."""

    missing_values: Annotated[tuple[str, ...], AsTuple, Distinct] = (
        *("NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None", "<NA>", "#N/A", "#NA"),
    )
    """Text that means no value, besides an empty field. Parquet has its own missing values."""

    target_transform: Literal["none", "log", "standardize"] = "none"
    """`log`: the natural logarithm of a positive number, minus its mean over the training rows, is predicted.
    `standardize`: the number minus their mean, divided by their standard deviation; RMSE and MAE are in the original
    unit, but of several targets in standard deviations."""

    weight: Annotated[str | None, Field(min_length=1, examples=["weight"])] = None
    """Column with the weights of the rows in the loss and in all metrics, positive numbers."""

    group_column: Annotated[str | None, Field(min_length=1, examples=["patient"])] = None
    """Column with the groups of rows that stay on one side of the split, such as the measurements of one patient; it is
    no feature."""

    @property
    def target_name(self) -> str:
        return ", ".join(f"log({name})" if self.transform == "log" else name for name in self.target)

    @property
    def standardizes_target(self) -> bool:
        return self.transform == "standardize"

    @property
    def transform(self) -> Literal["none", "log", "standardize"]:
        """The transformation of the target."""
        return self.target_transform

    @property
    def is_weighted(self) -> bool:
        return self.weight is not None

    @property
    def other_columns(self) -> dict[str, str]:
        """The columns that are neither target nor features, by the key that names them."""
        keys = {"weight": self.weight, "group_column": self.group_column}
        return {key: column for key, column in keys.items() if column is not None}

    @model_validator(mode="after")
    def _columns_have_one_use(self) -> Self:
        uses = dict.fromkeys(self.target, "target")
        for key, column in self.other_columns.items():
            if column in uses:
                raise cross_field_error(key, f"`{column}` is already data.{uses[column]}; name another column")
            uses[column] = key
        for key in ("features", "exclude", "categorical"):
            for column in getattr(self, key) or ():
                if key == "categorical" and column in self.target:  # confirms that its integers are classes
                    continue
                if column in uses:
                    raise cross_field_error(key, f"`{column}` is data.{uses[column]}; leave it out here")
        for column in self.features or ():
            if column in self.exclude:
                raise cross_field_error("exclude", f"`{column}` is in data.features; remove it from one of them")
        for column in self.categorical:
            if column in self.target:
                continue
            if column in self.exclude or (self.features and column not in self.features):
                raise cross_field_error(
                    "categorical", f"`{column}` is not one of the features; add it to data.features"
                )
        return self


class TableConfig(TableSection):
    """A table: a CSV or Parquet file with a row per example. Numbers are standardized with the mean and the standard
    deviation of the training rows; columns that are constant in these are left out."""

    may_give_split: ClassVar[bool] = True

    source: Literal["table"]
    """Where the rows come from."""

    path: Annotated[str, Field(min_length=1, examples=["data/houses.csv"])]
    """A CSV file (UTF-8, with a header line, also compressed by gzip, bzip2 or xz) or a Parquet file."""

    separator: Annotated[str | None, Field(min_length=1, max_length=1, examples=[";"])] = None
    """Separator of the columns of CSV. `null`: of comma, semicolon, tab and `|`, the one that the first line has most
    of."""

    split_column: Annotated[str | None, Field(min_length=1, examples=["split"])] = None
    """Column with the side of the split of each row: `train`, `validation` (or `val`, `valid`, `dev`) or `test`."""

    validation_path: Annotated[str | None, Field(min_length=1, examples=["data/validation.csv"])] = None
    """File with the validation rows, if `path` has none; the columns are those of `path`, in any order."""

    test_path: Annotated[str | None, Field(min_length=1, examples=["data/test.csv"])] = None
    """File with the test rows, if `path` has none."""

    @property
    def files(self) -> dict[str, str]:
        paths = {"path": self.path, "validation_path": self.validation_path, "test_path": self.test_path}
        return {key: path for key, path in paths.items() if path is not None}

    @property
    def other_columns(self) -> dict[str, str]:
        return {**super().other_columns, **({"split_column": self.split_column} if self.split_column else {})}

    @model_validator(mode="after")
    def _split_is_given_once(self) -> Self:
        for key in ("validation_path", "test_path"):
            if self.split_column and getattr(self, key):
                raise cross_field_error(key, "cannot be set beside data.split_column; remove one of them")
        return self


class DiamondsConfig(TableSection):
    """The prices of 53,940 diamonds (Wickham 2016), a table that plotnine ships: `carat`, `depth`, `table`, `x`, `y`,
    `z`, `price` (US dollars), and the categories `cut`, `color` and `clarity`."""

    tasks: ClassVar[tuple[TaskName, ...]] = ("regression", "classification")

    source: Literal["diamonds"]
    """Where the rows come from."""

    target: Target = ("price",)
    """The column that is predicted: `price` by regression, or one of the categories by classification."""

    target_transform: Literal["none", "log", "standardize"] | None = None  # type: ignore[assignment]
    """As for `table`. `null`: `log` for `price`, otherwise `none`."""

    @property
    def transform(self) -> Literal["none", "log", "standardize"]:
        """The transformation of the target."""
        return self.target_transform or ("log" if self.target == ("price",) else "none")


class TextConfig(DataSection):
    """Text, cut into blocks of tokens: each token of a block is predicted from those before it.

    The text is split before it is cut, so that no token is on two sides."""

    example_noun: ClassVar[str] = "blocks"

    tasks: ClassVar[tuple[TaskName, ...]] = ("language_model",)
    may_give_split: ClassVar[bool] = True

    source: Literal["text"]
    """Where the text comes from."""

    path: Annotated[str, Field(min_length=1, examples=["data/shakespeare.txt"])]
    """A file, or a folder of files, which are read in order of their names. Folders `train`, `validation` (or `val`)
    and `test` in it define the split."""

    pattern: Annotated[str, Field(min_length=1, examples=["*.txt"])] = "*"
    """Names of the files of a folder that are read."""

    tokens: Literal["bytes", "characters"] = "bytes"
    """`bytes`: 256 tokens. `characters`: those of the training text (UTF-8), and one token for all others."""

    block_length: Annotated[int, Field(ge=1, le=2**20, examples=[64])] = 64
    """Tokens of a block; each one predicts the next. The first one of a block is the last target of the one before."""

    last_block: Literal["pad", "drop"] = "pad"
    """The last block of a file that has fewer tokens. `pad`: it is filled up; the padding has weight 0 in the loss and
    in all metrics. `drop`: it is dropped."""

    split: Literal["random", "first"] = "first"
    """`first`: the first part of the text trains, the next validates, the last tests. `random`: files are drawn with
    `split_seed` until they have the fraction of the text."""

    @model_validator(mode="after")
    def _text_has_no_classes(self) -> Self:
        if self.stratify:
            raise cross_field_error("stratify", "the tokens of a text cannot be stratified; remove the key")
        return self

    @property
    def token_unit(self) -> str:
        return "byte" if self.tokens == "bytes" else "character"

    @property
    def files(self) -> dict[str, str]:
        return {"path": self.path}


class PythonDocsConfig(DataSection):
    """The documentation of the Python language, some 470,000 bytes that ship with Python as `pydoc_data.topics`.

    The text depends on the version of Python, which the log has with a hash of the text."""

    example_noun: ClassVar[str] = "blocks"

    tasks: ClassVar[tuple[TaskName, ...]] = ("language_model",)

    source: Literal["python_docs"]
    """Where the text comes from."""

    tokens: Literal["bytes", "characters"] = "bytes"
    """As for `text`."""

    block_length: Annotated[int, Field(ge=1, le=2**20, examples=[64])] = 64
    """As for `text`."""

    split: Literal["first"] = "first"
    """As for `text`."""

    @property
    def token_unit(self) -> str:
        return "byte" if self.tokens == "bytes" else "character"


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


class CustomDataConfig(DataSection):
    """Examples from a custom function or LightningDataModule, given by its import path."""

    tasks: ClassVar[tuple[TaskName, ...]] = ("classification", "regression", "language_model")

    may_give_split: ClassVar[bool] = True

    source: ImportPath
    """`my_package.my_module:load`, a function that returns inputs, labels and optionally the names of the classes, or a
    dict with `inputs`, `targets`, `classes`, `weights`, `split`, `groups` and `kind`: the arrays of the source
    `arrays`, and its key `inputs`. Or a LightningDataModule, whose datasets are read once. The module is in the folder
    where the workflow runs, or installed."""

    arguments: Annotated[Arguments, Field(examples=[{"split": "train"}])]
    """Keyword arguments of the function or class."""


DataConfig = tagged_union(
    "source",
    {
        "digits": DigitsConfig,
        "image_folder": ImageFolderConfig,
        "arrays": ArraysConfig,
        "synthetic": SyntheticConfig,
        "cats_vs_dogs": CatsVsDogsConfig,
        "table": TableConfig,
        "diamonds": DiamondsConfig,
        "text": TextConfig,
        "python_docs": PythonDocsConfig,
        "idx": IdxConfig,
        "cifar": CifarConfig,
    },
    CustomDataConfig,
    "import path `my_package.my_module:load`",
)


# The task that a source has if the study file does not name one; all others have classification.
DEFAULT_TASKS = {"text": "language_model", "python_docs": "language_model", "diamonds": "regression"}


def source_module(name: str) -> str:
    """Return the module that loads the source of a name or import path; jobs depend on that source's code alone."""
    return f"batchscape.data.{'custom' if ':' in name else name}"
