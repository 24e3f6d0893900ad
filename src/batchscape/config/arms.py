"""Section `arms`: rules from batch size to learning rate."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from batchscape.config.base import LearningRate, PositiveInt, Section, cross_field_error

BUILT_IN = ("linear", "sqrt")
RESERVED = {
    "fixed": "set its learning rate as `comparison.fixed_learning_rate`",
    "high": "set its learning rate as `comparison.high_learning_rate`",
    "tuned": "set its search in the section `tuning`",
}


class ArmConfig(Section):
    """A rule from batch size to learning rate, by which all batch sizes of the grid train; what another arm or the grid
    asks for as well trains once. `linear` and `sqrt` are there unless they are switched off, other names are yours.
    `fixed` and `high` stand in `comparison`."""

    enabled: bool = True
    """`false` leaves this arm out."""

    rule: Annotated[Literal["constant", "linear", "sqrt"] | None, Field(examples=["linear"])] = None
    """From the batch size B to the learning rate: `base_learning_rate`, `base_learning_rate`·B/`base_batch_size` (Goyal
    et al. 2017) or `base_learning_rate`·√(B/`base_batch_size`) (Krizhevsky 2014), to six digits."""

    learning_rates: Annotated[
        dict[PositiveInt, LearningRate] | None, Field(min_length=1, examples=[{32: 0.01, 256: 0.05}])
    ] = None
    """Instead of a rule, the learning rate of each batch size: `{32: 0.01, 256: 0.05}`; those of the grid that are not
    in it are left out."""

    base_learning_rate: Annotated[LearningRate | None, Field(examples=[0.01])] = None
    """Learning rate that the rule starts from; `comparison.fixed_learning_rate` if left out."""

    base_batch_size: Annotated[PositiveInt | None, Field(examples=[32])] = None
    """Batch size at which the rule gives `base_learning_rate`; the small batch of `comparison` if left out."""

    warmup_epochs: Annotated[int, Field(ge=0, examples=[5])] = 0
    """Epochs over which the learning rate rises to its value in equal parts, step by step (Goyal et al. 2017, section
    2.2, but from 0)."""

    @model_validator(mode="after")
    def _is_one_rule(self) -> Self:
        if (self.rule is None) == (self.learning_rates is None):
            raise cross_field_error("rule", "an arm has either a `rule` or `learning_rates`; write one of them")
        if self.rule is None:
            for key in ("base_learning_rate", "base_batch_size"):
                if getattr(self, key) is not None:
                    raise cross_field_error(key, "belongs to a `rule`, but the arm has `learning_rates`; take it out")
        return self

    def learning_rate(self, batch_size: int, base_learning_rate: float, base_batch_size: int) -> float | None:
        """Return the learning rate of a batch size; None if the arm leaves it out.

        `base_learning_rate` and `base_batch_size` are used where the arm has none of its own.
        """
        if self.learning_rates is not None:
            return self.learning_rates.get(batch_size)
        times = batch_size / (self.base_batch_size or base_batch_size)
        factor = {"constant": 1.0, "linear": times, "sqrt": times**0.5}[self.rule]
        # Runs are named by it, and 0.01·3 would be 0.03 only to sixteen digits.
        return float(f"{(self.base_learning_rate or base_learning_rate) * factor:.6g}")


def _with_built_in(arms: Any) -> Any:
    """Add the arms that are there unless switched off; what a study says of one of them changes only that.

    Names are checked first, for what stands below a wrong one means nothing.
    """
    if not isinstance(arms, Mapping):
        return arms
    for name in arms:
        text = str(name)
        if text in RESERVED:
            raise ValueError(f"`{text}` has its place elsewhere; {RESERVED[text]}")
        if not (text.isascii() and text.replace("-", "").replace("_", "").isalnum() and len(text) <= 30):
            raise ValueError(f"a name must be at most 30 letters, digits, `-` and `_`, got {text!r}; mend it")
    result = {name: {"rule": name} for name in BUILT_IN}
    for name, given in arms.items():
        own = isinstance(given, Mapping) and name in BUILT_IN and "learning_rates" not in given
        result[name] = {"rule": name, **given} if own else given
    return result


Arms = Annotated[
    dict[str, ArmConfig],
    Field(examples=[{"linear": {"warmup_epochs": 5}}]),
    BeforeValidator(_with_built_in),
]
DEFAULT_ARMS = {name: ArmConfig(rule=name) for name in BUILT_IN}
