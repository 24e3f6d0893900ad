"""Names and units of the loss and the metrics of tasks, as a study derives them."""

from typing import Any

from pydantic import TypeAdapter

from batchscape.config.data.images import DigitsConfig
from batchscape.config.data.section import DataSection
from batchscape.config.task import ClassificationConfig, TaskConfig, TaskSection
from batchscape.report.measures import Measures
from batchscape.study.measures import describe_measures

CLASSIFICATION = describe_measures(ClassificationConfig(), DigitsConfig())
"""The setting `measures` of a study that does not say what its task is."""

METRICS = ["accuracy"]
"""The setting `metrics` of such a study."""

WORDS = Measures.from_settings(CLASSIFICATION)


def make_report_spec(**values: Any) -> dict[str, Any]:
    """Return what a report depends on, as `Specs.report` gives it, with other values."""
    spec = {"name": "a", "config": "", "tables": {}, "fixed_learning_rate": 0.1, "measures": CLASSIFICATION}
    figures = {"titles": True, "formats": ["png", "pdf"]}
    return {**spec, "recipe": "", "protocol": "", "trial_budget": "", "figures": figures, **values}


def task_of(**section: object) -> TaskSection:
    """Return a section `task`."""
    return TypeAdapter(TaskConfig).validate_python(section)


class TextSection(DataSection):
    """A source whose tokens are bytes or characters."""

    source: str = "text"
    unit: str = "byte"

    @property
    def token_unit(self) -> str:
        return self.unit


class NumbersSection(DataSection):
    """A source with numeric targets."""

    source: str = "table"
    target: str = ""
    standardized: bool = False
    weighted: bool = False

    @property
    def target_name(self) -> str:
        return self.target

    @property
    def standardizes_target(self) -> bool:
        return self.standardized

    @property
    def is_weighted(self) -> bool:
        return self.weighted


TASKS: dict[str, tuple[TaskSection, DataSection]] = {
    "classification": (ClassificationConfig(), DigitsConfig()),
    "class weights": (task_of(name="classification", class_weights="balanced"), DigitsConfig()),
    "weighted examples": (ClassificationConfig(), NumbersSection(weighted=True)),
    "regression": (task_of(name="regression"), NumbersSection(target="log(price)")),
    "bytes": (task_of(name="language_model"), TextSection()),
    "characters": (task_of(name="language_model"), TextSection(unit="character")),
    "own loss": (task_of(name="regression", loss="my_losses:gaussian_nll", outputs=2), NumbersSection(target="price")),
    "own metric": (task_of(name="regression", metrics=["my_losses:relative_error"]), NumbersSection()),
}
"""Sections `task` and `data` of studies of each kind; the losses of `own loss` are negative, and it has no metric."""
