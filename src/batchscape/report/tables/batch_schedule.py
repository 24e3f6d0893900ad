"""Table `batch_schedule`: what a batch size that follows the measured critical one saves, against a constant one."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from batchscape.config.settings import BATCH_WARMUP
from batchscape.report.batch_warmup import grow_batch
from batchscape.report.resampling import Estimate, estimate_over_seeds
from batchscape.report.settings import SETTING_COLUMNS

VALUES = ("base_steps", "steps", "base_best_validation_loss", "best_validation_loss")
ESTIMATES = ("steps_saved", "steps_saved_to_loss", "loss_ratio")
COLUMNS = [
    *SETTING_COLUMNS,
    *("base_setting", "stages"),
    *(f"{name}_mean" for name in VALUES),
    *(f"{name}{part}" for name in ESTIMATES for part in ("", "_ci95_low", "_ci95_high")),
    *("n_seeds", "n_diverged"),
]


def tabulate(history: pd.DataFrame, branching: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each setting whose batch size follows the critical one, compared with its base setting.

    Each run is paired with the one of the same seed whose batch size is constant, which is the same until the batch
    grows. A pair is left out if one of its runs diverged. Ratios are geometric means over pairs with their 95 % t
    interval (`estimate_over_seeds`). The shares of saved steps are 1 minus a ratio of steps: of all steps, and of those
    until both runs of a pair have reached the same validation loss, the higher one of their two lowest. Ratios of
    losses that are not positive have no meaning and are nan.

    Args:
        history: The analysis of that name.
        branching: The table of that name, which the batch sizes follow from.
    """
    rows = []
    warmed_up = history[history["setting"].str.endswith(BATCH_WARMUP)]
    for keys, runs in warmed_up.groupby(SETTING_COLUMNS, sort=False):
        setting = dict(zip(SETTING_COLUMNS, keys, strict=True))
        base = setting["setting"].removesuffix(BATCH_WARMUP)
        factors = grow_batch(branching[branching["setting"] == base])
        sizes = [f"{factor * setting['batch_size']} from {start} examples" for start, factor in factors.items()]
        compared = _compare(history[history["setting"] == base], runs)
        rows.append({**setting, "base_setting": base, "stages": ", ".join(sizes) or "none", **compared})
    return pd.DataFrame(rows, columns=COLUMNS)


def _compare(base: pd.DataFrame, warmed_up: pd.DataFrame) -> dict[str, float]:
    """Return the columns that compare the runs of a setting with those of its base setting, paired by seed."""
    one, other = (dict(iter(runs.groupby("seed"))) for runs in (base, warmed_up))
    pairs = [(one[seed], other[seed]) for seed in sorted(one.keys() & other.keys())]
    usable = [pair for pair in pairs if not any(run["status"].eq("diverged").any() for run in pair)]
    values = pd.DataFrame([_values(*pair) for pair in usable], columns=[*VALUES, "base_steps_to_loss", "steps_to_loss"])
    logs = np.log(values.where(values > 0).astype(float))
    compared = ("steps", "steps_to_loss", "best_validation_loss")
    log_ratios = np.column_stack([logs[name] - logs[f"base_{name}"] for name in compared])
    steps, to_loss, loss = (each.without_ties().exp() for each in estimate_over_seeds(_mean, log_ratios))
    estimates = zip(ESTIMATES, (_saved(steps), _saved(to_loss), loss), strict=True)
    return {
        **{f"{name}_mean": values[name].mean() for name in VALUES},
        **{key: value for name, estimate in estimates for key, value in _columns(name, estimate).items()},
        "n_seeds": len(usable),
        "n_diverged": len(pairs) - len(usable),
    }


def _values(base: pd.DataFrame, warmed_up: pd.DataFrame) -> dict[str, float]:
    """Return the steps and lowest losses of a pair of runs, and the steps to the higher one of these losses."""
    runs = {"base_": base, "": warmed_up}
    target = max(run["validation_loss"].min() for run in runs.values())
    values = {}
    for prefix, run in runs.items():
        values[f"{prefix}steps"] = run["step"].max()
        values[f"{prefix}best_validation_loss"] = run["validation_loss"].min()
        values[f"{prefix}steps_to_loss"] = run.loc[run["validation_loss"] <= target, "step"].min()
    return values


def _mean(rows: np.ndarray) -> np.ndarray:
    return rows.mean(axis=0) if len(rows) else np.full(rows.shape[1], np.nan)


def _saved(ratio: Estimate) -> Estimate:
    return Estimate(1 - ratio.value, 1 - ratio.ci95_high, 1 - ratio.ci95_low)


def _columns(name: str, estimate: Estimate) -> Mapping[str, float]:
    return {name: estimate.value, f"{name}_ci95_low": estimate.ci95_low, f"{name}_ci95_high": estimate.ci95_high}
