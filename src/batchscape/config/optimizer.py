"""Section `optimizer`: the algorithm that updates the weights."""

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from batchscape.config.base import Arguments, FromText, Section, check_import_path, cross_field_error

# The optimizer of the network itself: that of the `configure_optimizers` of a LightningModule.
OWN_OPTIMIZER = "module"


def _check_name(name: Any) -> Any:
    if isinstance(name, str) and ":" in name:
        return check_import_path(name)
    if isinstance(name, str) and not name.isidentifier():
        raise ValueError(
            f"must be a class of torch.optim, such as `AdamW`, or an import path, as `my_module:Lion`, got {name!r}"
        )
    return name


class OptimizerConfig(Section):
    """The optimizer of all runs. The learning rate is that of the run; arms may scale other arguments with it."""

    name: Annotated[str, Field(examples=["AdamW"]), BeforeValidator(_check_name)] = "SGD"
    """A class of `torch.optim`, or the import path `module:name` of an optimizer class or of a function that returns
    one. Its first two parameters are the parameters of the network and `lr`. `module`: the optimizer that
    `configure_optimizers` of a LightningModule returns, at the learning rate of the run; between parameter groups the
    ratios of the learning rates stay."""

    arguments: Arguments = Field(default_factory=dict, examples=[{"momentum": 0.9}])
    """Its other keyword arguments, such as `{momentum: 0.9, weight_decay: 0.0001}`; those left out have the defaults of
    the class. The fused implementation is used where torch has one."""

    decay_biases_and_norms: bool = True
    """`false` exempts parameters with fewer than two dimensions (biases, and the weights of normalization layers) from
    `weight_decay`."""

    clip_norm: Annotated[float | None, Field(gt=0, allow_inf_nan=False, examples=[1.0]), FromText] = None
    """Scale the gradient of a global batch down to this Euclidean norm if it is larger; `null` never does. The history
    has the share of steps in which it was."""

    @model_validator(mode="after")
    def _own_optimizer_has_its_own_arguments(self) -> Self:
        if self.is_own:
            fix = "set it in configure_optimizers, or name an optimizer here"
            if self.arguments:
                raise cross_field_error("arguments", f"are not for `name: module`; {fix}")
            if not self.decay_biases_and_norms:
                raise cross_field_error("decay_biases_and_norms", f"is not for `name: module`; {fix}")
        return self

    @property
    def is_own(self) -> bool:
        """Whether the network, a LightningModule, configures the optimizer."""
        return self.name == OWN_OPTIMIZER
