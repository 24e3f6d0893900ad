"""Section `arms`: rules from batch size to learning rate."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from batchscape.config.base import LearningRate, PositiveInt, Section, cross_field_error

BUILT_IN: tuple[Literal["linear", "sqrt"], ...] = ("linear", "sqrt")
RESERVED = {
    "fixed": "set its learning rate as `comparison.fixed_learning_rate`",
    "high": "set its learning rate as `comparison.high_learning_rate`",
    "tuned": "set its search in the section `tuning`",
}


class ArmConfig(Section):
    """An arm of the study: a rule from batch size to learning rate, by which all batch sizes of the grid train. A run
    that several arms or the grid need is trained once. `linear` and `sqrt` exist unless they are disabled; other names
    are custom arms. `fixed` and `high` are set in `comparison`, `tuned` in `tuning`."""

    enabled: bool = True
    """`false` disables this arm."""

    rule: Annotated[Literal["constant", "linear", "sqrt"] | None, Field(examples=["linear"])] = None
    """From the batch size B to the learning rate: `base_learning_rate`, `base_learning_rate`·B/`base_batch_size` (Goyal
    et al. 2017) or `base_learning_rate`·√(B/`base_batch_size`) (Krizhevsky 2014), to six digits."""

    learning_rates: Annotated[
        dict[PositiveInt, LearningRate] | None, Field(min_length=1, examples=[{32: 0.01, 256: 0.05}])
    ] = None
    """Instead of a rule, the learning rate of each batch size: `{32: 0.01, 256: 0.05}`; batch sizes of the
    grid that are not listed are not part of this arm."""

    base_learning_rate: Annotated[LearningRate | None, Field(examples=[0.01])] = None
    """Learning rate at `base_batch_size`; by default `comparison.fixed_learning_rate`."""

    base_batch_size: Annotated[PositiveInt | None, Field(examples=[32])] = None
    """Batch size at which the rule gives `base_learning_rate`; by default the small one of `comparison`."""

    warmup_epochs: Annotated[int, Field(ge=0, examples=[5])] = 0
    """Epochs of linear warm-up of the learning rate from 0, updated every step (Goyal et al. 2017, section 2.2)."""

    @model_validator(mode="after")
    def _is_one_rule(self) -> Self:
        if (self.rule is None) == (self.learning_rates is None):
            raise cross_field_error("rule", "an arm needs either a `rule` or `learning_rates`")
        if self.rule is None:
            for key in ("base_learning_rate", "base_batch_size"):
                if getattr(self, key) is not None:
                    raise cross_field_error(key, "needs a `rule`, but the arm has `learning_rates`; remove it")
        return self

    def learning_rate(self, batch_size: int, base_learning_rate: float, base_batch_size: int) -> float | None:
        """Return the learning rate of a batch size; None if it is not part of the arm.

        `base_learning_rate` and `base_batch_size` are the defaults for those of the arm.
        """
        if self.learning_rates is not None:
            return self.learning_rates.get(batch_size)
        ratio = batch_size / (self.base_batch_size or base_batch_size)
        factor = {"constant": 1.0, "linear": ratio, "sqrt": ratio**0.5}[self.rule or "constant"]
        # Names of runs contain it, and 0.01·3 is 0.03 only to sixteen digits.
        return float(f"{(self.base_learning_rate or base_learning_rate) * factor:.6g}")


def _with_built_in(arms: Any) -> Any:
    """Add the built-in arms; a study file overrides single keys of them.

    Names are checked first: the section of an invalid name would only give more errors.
    """
    if not isinstance(arms, Mapping):
        return arms
    for name in arms:
        text = str(name)
        if text in RESERVED:
            raise ValueError(f"`{text}` is a reserved arm; {RESERVED[text]}")
        if not (text.isascii() and text.replace("-", "").replace("_", "").isalnum() and len(text) <= 30):
            raise ValueError(f"invalid arm name {text!r}: use at most 30 letters, digits, `-` and `_`")
    result: dict[str, Any] = {name: {"rule": name} for name in BUILT_IN}
    for name, given in arms.items():
        keeps_rule = isinstance(given, Mapping) and name in BUILT_IN and "learning_rates" not in given
        result[name] = {"rule": name, **given} if keeps_rule else given
    return result


Arms = Annotated[
    dict[str, ArmConfig],
    Field(examples=[{"linear": {"warmup_epochs": 5}}]),
    BeforeValidator(_with_built_in),
]
DEFAULT_ARMS: dict[str, ArmConfig] = {name: ArmConfig(rule=name) for name in BUILT_IN}
