"""Settings (batch size, learning rate, and what differs from the recipe of the study): selection of rows, and words."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from batchscape.config.base import shortest_decimal
from batchscape.config.settings import BATCH_WARMUP, CHANGE_PREFIXES
from batchscape.report.numbers import format_number

SETTING_COLUMNS = ["batch_size", "learning_rate", "setting"]
"""The columns that the runs of all seeds of a setting share. Settings that differ only in their warm-up, or in other
hyperparameters, have the same batch size and learning rate."""

SYMBOLS = {"beta1": "β₁", "beta2": "β₂", "eps": "ε", "weight_decay": "weight decay", "momentum": "momentum"}
WARMUP_UNITS = {"": "epochs", "steps": "steps", "examples": "examples", "pct": "% of the budget"}


@dataclass(frozen=True)
class SettingDetails:
    """What the name of a setting says besides the batch size and the learning rate.

    Attributes:
        is_tuned: Whether a search found the learning rate.
        changes: Phrases such as `β₂ 0.996`.
        warmup: The length of the warm-up, such as `5 epochs`; empty if it has none of its own.
        stages: Phrases such as `4 times the batch size from 50 % of the budget on`.
    """

    is_tuned: bool
    changes: tuple[str, ...]
    warmup: str
    stages: tuple[str, ...]

    @property
    def phrases(self) -> list[str]:
        """The changes, the warm-up and the stages as parts of a sentence."""
        warmup = [f"with a warm-up of {self.warmup}"] if self.warmup else []
        return [*self.changes, *warmup, *self.stages]


def setting_details(setting: str) -> SettingDetails:
    """Return the parts of the name of a setting in words.

    Args:
        setting: A name such as `bs64-lr0.01-beta2_0.996-warmup5`.
    """
    rate = setting.partition("-lr")[2]
    changes = tuple(
        f"{SYMBOLS[name]} {_value_in_words(name, found[1])}"
        for name, prefix in CHANGE_PREFIXES.items()
        if (found := re.search(rf"-{prefix}(\d[\d.]*(?:e-?\d+)?)", rate))
    )
    warmup = re.search(r"-warmup([\d.]+)([a-z]*)", rate)
    length = _length(warmup[1], warmup[2]) if warmup else ""
    return SettingDetails(rate.startswith("tuned"), changes, length, tuple(_stages(rate)))


def _stages(rate: str) -> Iterator[str]:
    """Yield the changes of the batch size in words."""
    pattern = r"-x(\d+)at([\d.]+)(steps|examples|pct|)(?:lr([\d.]+(?:e-?\d+)?))?(?=-|$)"
    for factor, amount, unit, rate_factor in re.findall(pattern, rate):
        learning_rate = f" and {format_number(float(rate_factor))} times the learning rate" if rate_factor else ""
        yield f"{factor} times the batch size{learning_rate} from {_length(amount, unit)} on"
    if rate.endswith(BATCH_WARMUP):
        yield "with a batch size that grows to the measured critical one"
    if growth := re.search(r"-grow(\d+)(?:max(\d+))?(sqrt)?", rate):
        limit = f", up to {growth[2]}," if growth[2] else ""
        lower = " and the learning rate falls by its square root" if growth[3] else ""
        yield f"{growth[1]} times the batch size{limit} where the decay would divide the rate by {growth[1]}{lower}"


def describe_hyperparameter(name: str, value: float) -> str:
    """Return a hyperparameter that a search found, as a part of a sentence.

    Args:
        name: A key of `tuning.hyperparameters`.
        value: Its value; that of the warm-up is a fraction of the budget.
    """
    if name == "warmup":
        return f"with a warm-up of {format_number(100 * value)} % of the budget"
    return f"{SYMBOLS[name]} {_value_in_words(name, shortest_decimal(float(f'{value:.6g}')))}"


def _value_in_words(name: str, text: str) -> str:
    # Three digits would make 1 of a β₂ close to it.
    return text if name.startswith("beta") or name == "momentum" else format_number(float(text))


def _length(amount: str, suffix: str) -> str:
    unit = WARMUP_UNITS[suffix]
    number = f"{int(amount):,}" if amount.isdigit() else amount
    return f"{number} {unit.removesuffix('s') if amount == '1' else unit}"


def constant_lr_settings(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose setting is a batch size with a constant learning rate, such as `bs32-lr0.01`."""
    names = [
        f"bs{batch_size}-lr{shortest_decimal(rate)}"
        for batch_size, rate in zip(frame["batch_size"], frame["learning_rate"], strict=True)
    ]
    return frame[frame["setting"] == names]


def constant_batch_settings(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of settings whose batch size is the same in all steps."""
    changing = [name for name in frame["setting"].unique() if setting_details(name).stages]
    return frame[~frame["setting"].isin(changing)]


def at_learning_rate(frame: pd.DataFrame, learning_rate: float) -> pd.DataFrame:
    """Return the rows of all batch sizes at one constant learning rate."""
    return constant_lr_settings(frame[frame["learning_rate"] == learning_rate])


def shared_learning_rates(frame: pd.DataFrame) -> list[float]:
    """Return the constant learning rates, ascending, that every batch size of a frame is trained at."""
    rows = constant_lr_settings(frame)
    counts = rows.groupby("learning_rate")["batch_size"].nunique()
    return sorted(counts[counts == frame["batch_size"].nunique()].index)
