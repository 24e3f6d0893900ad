"""Section `arms`: rules from the batch size to the learning rate and to other hyperparameters of the optimizer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from batchscape.config.base import FromText, LearningRate, NonNegativeReal, PositiveInt, Section, cross_field_error
from batchscape.config.budget import Warmup
from batchscape.config.scaling import (
    DEFAULTS,
    EXPONENTS,
    HYPERPARAMETERS,
    LEARNING_RATE,
    ScalingError,
    explain_unknown,
    is_equal,
    keep_time_scale,
    power,
    scale,
    scale_half_life,
)
from batchscape.config.stages import HasStages

BUILT_IN: tuple[Literal["linear", "sqrt"], ...] = ("linear", "sqrt")
RESERVED = {
    "fixed": "set its learning rate as `comparison.fixed_learning_rate`",
    "high": "set its learning rate as `comparison.high_learning_rate`",
    "tuned": "set its search in the section `tuning`",
    "batch_warmup": "enable it as `branching.batch_warmup`",
}
KINDS = ("rule", "exponents", "learning_rates", "values")

Exponent = Annotated[float, Field(ge=-10, le=10, allow_inf_nan=False, examples=[0.5]), FromText]
DecayRate = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False, examples=[0.99]), FromText]


class ExponentsConfig(Section):
    """Powers of κ, the batch size over `base_batch_size`, that hyperparameters are proportional to."""

    learning_rate: Exponent = 0.0
    """Of the learning rate; 1 is linear scaling."""

    beta1: Exponent = 0.0
    """Of 1 − β₁, so 1 keeps the averaged examples when β₁ is close to 1."""

    beta2: Exponent = 0.0
    """Of 1 − β₂."""

    eps: Exponent = 0.0
    """Of ε."""

    weight_decay: Exponent = 0.0
    """Of the weight decay."""

    momentum: Exponent = 0.0
    """Of 1 − momentum."""


class ValuesConfig(Section):
    """Hyperparameters of one batch size; those left out have the values of the study."""

    learning_rate: Annotated[LearningRate | None, Field(examples=[0.01])] = None
    """The learning rate."""

    beta1: Annotated[DecayRate | None, Field(examples=[0.9])] = None
    """β₁, the first of `betas`."""

    beta2: Annotated[DecayRate | None, Field(examples=[0.99])] = None
    """β₂, the second of `betas`."""

    eps: Annotated[NonNegativeReal | None, Field(examples=[1e-8])] = None
    """ε."""

    weight_decay: Annotated[NonNegativeReal | None, Field(examples=[0.1])] = None
    """The weight decay."""

    momentum: Annotated[DecayRate | None, Field(examples=[0.9])] = None
    """The momentum."""


Changes = tuple[tuple[str, float], ...]
"""Names and values of the hyperparameters that a run does not share with the study, in the order of
`HYPERPARAMETERS`."""


@dataclass(frozen=True)
class Base:
    """What the rules of the arms start from.

    Attributes:
        learning_rate: The learning rate at the base batch size.
        batch_size: The base batch size.
        optimizer: Name of the optimizer.
        hyperparameters: Its hyperparameters that are known.
    """

    learning_rate: float
    batch_size: int
    optimizer: str
    hyperparameters: Mapping[str, float]


class ArmConfig(HasStages):
    """An arm of the study: a rule from the batch size to the learning rate and other hyperparameters, by which all
    batch sizes of the grid train. A run that several arms or the grid need is trained once. `linear` and `sqrt` exist
    unless they are disabled; other names are custom arms, and one that is the name of a rule has that rule by default.
    `fixed` and `high` are set in `comparison`, `tuned` in `tuning`, `batch_warmup` in
    `branching`."""

    enabled: bool = True
    """`false` disables this arm."""

    rule: Annotated[Literal["constant", "linear", "sqrt", "sde", "half_life"] | None, Field(examples=["linear"])] = None
    """With κ = B/`base_batch_size`, the learning rate is `base_learning_rate` (`constant`), times κ (`linear`, Goyal et
    al. 2017), or times √κ (`sqrt`, Krizhevsky 2014). `sde`, for Adam: times √κ, with 1 − β₁ and 1 − β₂ proportional to
    κ, and ε to 1/√κ (Malladi et al. 2022). `half_life`: constant, with β₂^κ in place of β₂ (Marek et al. 2025). The
    base values are those of `optimizer.arguments`, and results have six digits."""

    exponents: Annotated[ExponentsConfig | None, Field(examples=[{"learning_rate": 0.5, "weight_decay": 1}])] = None
    """Instead of a rule, the exponent p of each hyperparameter h that follows the batch size: h ∝ κ^p, for `beta1`,
    `beta2` and `momentum` 1 − h ∝ κ^p. Those left out are constant."""

    learning_rates: Annotated[
        dict[PositiveInt, LearningRate] | None, Field(min_length=1, examples=[{32: 0.01, 256: 0.05}])
    ] = None
    """Instead of a rule, the learning rate of each batch size: `{32: 0.01, 256: 0.05}`; batch sizes of the
    grid that are not listed are not part of this arm."""

    values: Annotated[
        dict[PositiveInt, ValuesConfig] | None,
        Field(min_length=1, examples=[{256: {"learning_rate": 0.05, "beta2": 0.99}}]),
    ] = None
    """Like `learning_rates`, with other hyperparameters: `{256: {learning_rate: 0.05, beta2: 0.99}}`; those left out
    have their base values."""

    keep_time_scale: bool = False
    """Whatever gives the learning rate η, scale the weight decay λ by κ·η₀/η, so that B/(η·λ), the number of examples
    over which AdamW averages its updates, stays (Bergsma et al. 2025)."""

    base_learning_rate: Annotated[LearningRate | None, Field(examples=[0.01])] = None
    """Learning rate at `base_batch_size`; by default `comparison.fixed_learning_rate`."""

    base_batch_size: Annotated[PositiveInt | None, Field(examples=[32])] = None
    """Batch size at which the rule gives `base_learning_rate` and the hyperparameters of the section `optimizer`; by
    default the small one of `comparison`."""

    warmup: Annotated[Warmup | None, Field(examples=[{"epochs": 5}])] = None
    """Length of a linear warm-up of the learning rate from 0 (Goyal et al. 2017, section 2.2), in place of
    `schedule.warmup`."""

    @model_validator(mode="after")
    def _is_one_rule(self) -> Self:
        given = [key for key in KINDS if getattr(self, key) is not None]
        if len(given) != 1:
            problem = f"; this one has {' and '.join(f'`{key}`' for key in given)}" if given else ""
            raise cross_field_error(
                given[-1] if given else "rule",
                f"an arm needs either a `rule`, `exponents`, `learning_rates` or `values`{problem}",
            )
        if given[0] in ("learning_rates", "values") and not self.keep_time_scale:
            unused = ("base_learning_rate", "base_batch_size") if given[0] == "learning_rates" else ("base_batch_size",)
            for key in unused:
                if getattr(self, key) is not None:
                    raise cross_field_error(key, f"needs a `rule`, but the arm has `{given[0]}`; remove it")
        if self.keep_time_scale and (self.exponents and self.exponents.weight_decay):
            raise cross_field_error(
                "keep_time_scale", "decides the weight decay, and so does exponents.weight_decay; remove one"
            )
        if self.keep_time_scale and any(each.weight_decay is not None for each in (self.values or {}).values()):
            raise cross_field_error("keep_time_scale", "decides the weight decay, and so does `values`; remove one")
        return self

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The batch sizes that it lists; none if it has a rule for all."""
        return tuple(self.learning_rates or self.values or ())

    def at(self, batch_size: int, base: Base) -> tuple[float, Changes] | None:
        """Return the learning rate of a batch size, and the hyperparameters that differ from those of the study.

        Args:
            batch_size: The batch size.
            base: What the rule starts from; the base rate and batch size of the arm come before it.

        Returns:
            The learning rate and the changes; None if the batch size is not part of the arm.

        Raises:
            PydanticCustomError: A hyperparameter is unknown or gets out of its range. The key is relative to the arm.
        """
        if self.batch_sizes and batch_size not in self.batch_sizes:
            return None
        base_rate = self.base_learning_rate or base.learning_rate
        ratio = batch_size / (self.base_batch_size or base.batch_size)
        values = self._listed(batch_size)
        listed_rate, exponent = values.pop(LEARNING_RATE, base_rate), self._exponents.get(LEARNING_RATE, 0.0)
        try:
            rate = scale(LEARNING_RATE, listed_rate, ratio, exponent)
        except ScalingError as error:
            raise cross_field_error(
                "",
                f"gives batch size {batch_size} the learning rate{str(error).removeprefix(f'{LEARNING_RATE} =')}; "
                "change its `base_learning_rate` or `base_batch_size`",
            )
        for name in HYPERPARAMETERS:
            if self._exponents.get(name):
                values[name] = self._scale(name, batch_size, ratio, base)
        if self.keep_time_scale:
            # Not of the rounded rate: rounding would change the weight decay.
            rate_ratio = listed_rate / base_rate * power(ratio, exponent)
            values["weight_decay"] = self._keep_time_scale(batch_size, ratio, rate_ratio, base)
        known = {name: self._known(name, f"values[{batch_size}].{name}", base) for name in values}
        changes = (
            (name, values[name])
            for name in HYPERPARAMETERS
            if name in values and not is_equal(name, values[name], known[name])
        )
        return rate, tuple(changes)

    @property
    def _exponents(self) -> Mapping[str, float]:
        if self.rule is not None:
            return EXPONENTS[self.rule]
        return self.exponents.model_dump() if self.exponents else {}

    def _listed(self, batch_size: int) -> dict[str, float]:
        """Return what the arm lists for a batch size."""
        if self.learning_rates is not None:
            return {LEARNING_RATE: self.learning_rates[batch_size]}
        return self.values[batch_size].model_dump(exclude_none=True) if self.values is not None else {}

    def _scale(self, name: str, batch_size: int, ratio: float, base: Base) -> float:
        key = "rule" if self.rule else f"exponents.{name}"
        value = self._known(name, key, base)
        if self.exponents and value == 0:
            raise cross_field_error(
                key, f"the {name} of the study is 0, which no exponent changes; set it in optimizer.arguments"
            )
        try:
            if self.rule == "half_life":
                return scale_half_life(value, ratio)
            return scale(name, value, ratio, self._exponents[name])
        except ScalingError as error:
            raise self._beyond(key, batch_size, error)

    def _keep_time_scale(self, batch_size: int, ratio: float, rate_ratio: float, base: Base) -> float:
        value = self._known("weight_decay", "keep_time_scale", base)
        if value == 0:
            raise cross_field_error(
                "keep_time_scale", "the weight_decay of the study is 0; set it in optimizer.arguments, or remove this"
            )
        try:
            return keep_time_scale(value, ratio, rate_ratio)
        except ScalingError as error:
            raise self._beyond("keep_time_scale", batch_size, error)

    @staticmethod
    def _beyond(key: str, batch_size: int, error: ScalingError) -> PydanticCustomError:
        return cross_field_error(
            key,
            f"gives batch size {batch_size} {error}; change its `base_batch_size`, or remove {batch_size} from "
            "grid.batch_sizes",
        )

    def _known(self, name: str, key: str, base: Base) -> float:
        """Return a hyperparameter of the study; `key` is what needs it."""
        value = base.hyperparameters.get(name)
        if value is not None:
            return value
        problem, fix = explain_unknown(base.optimizer, name)
        if key == "rule" and base.optimizer in DEFAULTS:
            problem = f"`{self.rule}` is a rule for Adam, and {problem}"
            fix = "use `linear`" if self.rule == "sde" else "use another rule"
        raise cross_field_error(key, f"{problem}; {fix}")


def _with_built_in(arms: Any) -> Any:
    """Add the built-in arms, and the rules of arms that are named like one; a study file overrides single keys of them.

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
        has_rule = name in EXPONENTS and isinstance(given, Mapping) and not any(key in given for key in KINDS)
        result[name] = {"rule": name, **given} if has_rule else given
    return result


Arms = Annotated[
    dict[str, ArmConfig],
    Field(examples=[{"linear": {"warmup": {"epochs": 5}}}]),
    BeforeValidator(_with_built_in),
]
DEFAULT_ARMS: dict[str, ArmConfig] = {name: ArmConfig(rule=name) for name in BUILT_IN}
