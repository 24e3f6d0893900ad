"""All sources of data by name."""

from batchscape.config.base import tagged_union
from batchscape.config.data.arrays import ArraysConfig, CustomDataConfig
from batchscape.config.data.images import (
    CatsVsDogsConfig,
    CifarConfig,
    DigitsConfig,
    IdxConfig,
    ImageFolderConfig,
    SyntheticConfig,
)
from batchscape.config.data.tables import DiamondsConfig, TableConfig
from batchscape.config.data.text import PythonDocsConfig, TextConfig

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
