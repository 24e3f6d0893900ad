"""How a study trains, in words: from the study file alone."""

from typing import Any

from batchscape.config.averaging import AveragingConfig
from batchscape.config.optimizer import OptimizerConfig
from batchscape.config.schedule import ScheduleConfig
from batchscape.config.training import TrainingConfig

CONSTANT_RATE = "at a constant learning rate"
DECAYS = {"linear": "linear decay", "cosine": "cosine decay", "sqrt": "1 − √x decay"}


def describe_recipe(
    optimizer: OptimizerConfig, schedule: ScheduleConfig, averaging: AveragingConfig, training: TrainingConfig
) -> str:
    """Return the recipe that all runs share, such as `plain SGD at a constant learning rate`.

    Args:
        optimizer: Section `optimizer`.
        schedule: Section `schedule`.
        averaging: Section `averaging`.
        training: Section `training`; the length of a run is named if every run has the same.

    Returns:
        A phrase without a period.
    """
    details = []
    if not optimizer.decay_biases_and_norms:
        details.append("biases and normalization layers without weight decay")
    if optimizer.clip_norm is not None:
        details.append(f"gradients clipped at {optimizer.clip_norm:g}")
    if averaging.half_life is not None:
        details.append(f"an average of the weights with a half-life of {averaging.half_life:,} examples")
    if training.patience is None:
        details.append(f"for {_with_commas(str(training.budget))}")
    return ", ".join([f"{_optimizer(optimizer)} {_schedule(schedule)}", *details])


def describe_length(training: TrainingConfig) -> str:
    """Return up to where runs are compared: `to convergence`, or `at equal` steps, epochs or examples.

    The latter also if the patience is so long that it cannot end a run before its budget.
    """
    budget, every = training.budget, training.evaluate_every
    if training.patience is None:
        is_equal = True
    else:
        # Patience counts the evaluations at checkpoints too, which may be between the regular ones.
        others = [epoch for epoch in training.checkpoints if every.epochs is None or epoch % every.epochs]
        regular = training.patience + 1 - len(others)
        is_equal = budget.unit == every.unit and regular * every.amount >= budget.amount
    return f"at equal {budget.unit}" if is_equal else "to convergence"


def is_plain_sgd(optimizer: OptimizerConfig, schedule: ScheduleConfig) -> bool:
    """Whether runs train as in Chang & Pathak 2020: SGD at a constant rate, without clipping."""
    # Neither constants of the decay nor weight decay of biases matter without decay.
    is_constant = schedule.warmup is None and schedule.decay == "constant"
    return is_constant and _optimizer(optimizer) == "plain SGD" and optimizer.clip_norm is None


def _optimizer(optimizer: OptimizerConfig) -> str:
    if optimizer.is_own:
        return "the optimizer of the module"
    # An argument that is off is the default of SGD.
    arguments = {name: value for name, value in optimizer.arguments.items() if optimizer.name != "SGD" or value}
    if not arguments:
        return "plain SGD" if optimizer.name == "SGD" else optimizer.name
    return f"{optimizer.name} ({', '.join(f'{name} {_in_words(value)}' for name, value in arguments.items())})"


def _in_words(value: Any) -> str:
    if isinstance(value, list):
        return " and ".join(map(_in_words, value))
    if isinstance(value, float):
        return f"{value:g}"
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def _schedule(schedule: ScheduleConfig) -> str:
    after = f" after a warm-up of {_with_commas(str(schedule.warmup))}" if schedule.warmup else ""
    if schedule.decay == "constant":
        return f"{CONSTANT_RATE}{after}"
    part = f" over the last {100 * schedule.decay_fraction:g} % of the budget" if schedule.decay_fraction < 1 else ""
    return f"with {DECAYS[schedule.decay]} to {100 * schedule.final_factor:g} %{part}{after}"


def _with_commas(length: str) -> str:
    """Return a length such as `3000000 examples` with commas between thousands."""
    amount, _, unit = length.partition(" ")
    return f"{int(amount):,} {unit}" if amount.isdigit() else length
