"""Section `comparison`: what the tables and figures compare."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from batchscape.config.base import AsTuple, FromText, LearningRate, PositiveInt, Section, cross_field_error


def _has_one_name(target: dict[str, float]) -> dict[str, float]:
    if len(target) != 1:
        names = f"has {len(target)}: {', '.join(target)}; list each as its own target" if target else "is empty"
        raise ValueError(f"must be one name and its value, such as `{{loss: 0.05}}`, but {names}")
    return target


Target = Annotated[
    dict[str, Annotated[float, Field(allow_inf_nan=False), FromText]],
    Field(json_schema_extra={"minProperties": 1, "maxProperties": 1}),
    AfterValidator(_has_one_name),
]
"""A value of the validation loss, or of a metric on the validation side, by its name."""


class ComparisonConfig(Section):
    """Learning rates and batch sizes of the comparisons. Both learning rates are trained even if absent from the grid;
    the batch sizes must be in it."""

    fixed_learning_rate: Annotated[LearningRate, Field(examples=[0.01])] = 0.01
    """The learning rate at which all batch sizes are compared (the `fixed` arm)."""

    high_learning_rate: Annotated[LearningRate, Field(examples=[0.08])] = 0.08
    """A high learning rate at which all batch sizes are compared (the `high` arm)."""

    small_batch_size: Annotated[PositiveInt | None, Field(examples=[32])] = None
    """The small batch size of comparisons of small and large; by default the smallest of the grid."""

    large_batch_size: Annotated[PositiveInt | None, Field(examples=[256])] = None
    """The large batch size of comparisons of small and large; by default the largest of the grid."""

    margin: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False, examples=[0.05]), FromText] = 0.05
    """A relative difference that is too small to matter: in losses within the range of good rates, and in the ratios of
    the claims that have no margin of their own."""

    targets: Annotated[tuple[Target, ...] | None, AsTuple, Field(examples=[[{"loss": 0.05}]])] = None
    """Validation losses and metrics up to which steps and epochs are counted, such as
    `[{loss: 0.05}, {accuracy: 0.95}]`: `loss` or a metric of the task, in its unit. Figures show the first one, tables
    all. A run reaches accuracy and R² at or above the value; losses, errors and metrics of your own at or below it. By
    default the lowest loss that every batch size reaches with all seeds at one of its learning rates."""

    @model_validator(mode="after")
    def _targets_differ(self) -> Self:
        targets = self.targets or ()
        for index, target in enumerate(targets):
            if target in targets[:index]:
                ((name, value),) = target.items()
                raise cross_field_error(
                    f"targets[{index}]", f"{name} {value:g} is targets[{targets.index(target)}] too; remove one"
                )
        return self
