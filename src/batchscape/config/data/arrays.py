"""Sections of the sources of arrays: NumPy's files, and functions of the user."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from batchscape.config.base import Arguments, ImportPath
from batchscape.config.data.section import DataSection, TaskName


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
