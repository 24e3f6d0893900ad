"""What each seed says of a claim: one logarithm of a ratio, of which 0 is no effect.

Runs of one seed share their initial weights and split, so all comparisons are within a seed. A seed in which one of the
runs diverged, or in which a number is not positive and finite, says nothing: nan.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from batchscape.config.base import shortest_decimal
from batchscape.report.settings import constant_lr_settings, shared_learning_rates

LOSS = "best_validation_loss"


class NotTested(Exception):
    """This study does not hold what a claim is about; the message says why."""


@dataclass(frozen=True)
class Effects:
    """What the seeds say, and of what."""

    comparison: str
    logs: pd.Series
    """Logarithm of the ratio, by seed."""
    settings: tuple[str, ...]
    """The settings whose runs were compared."""
    note: str = ""
    """What a reader must know beside it."""


@dataclass(frozen=True)
class Evidence:
    """What the claims are tested on: the tables and analyses of the same names, and the batch sizes to compare."""

    runs: pd.DataFrame
    arm_runs: pd.DataFrame
    history: pd.DataFrame
    epoch_distance: pd.DataFrame
    small_batch_size: int
    large_batch_size: int

    def arm(self, arm: str, batch_size: int) -> pd.DataFrame:
        """Return what is known of the runs of one batch size in one arm, a row a run and quantity."""
        rows = self.arm_runs[self.arm_runs["arm"] == arm]
        if rows.empty:
            raise NotTested(f"this study has no arm `{arm}`")
        rows = rows[rows["batch_size"] == batch_size]
        if rows.empty:
            raise NotTested(f"the arm `{arm}` has no complete run of batch size {batch_size}")
        return rows

    def small_and_large(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the rows of the small and of the large batch at the fixed learning rate."""
        if self.small_batch_size == self.large_batch_size:
            raise NotTested("this study has one batch size")
        return self.arm("fixed", self.small_batch_size), self.arm("fixed", self.large_batch_size)

    def fixed_and_linear(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the rows of the large batch at the fixed and at the linearly scaled learning rate."""
        self.small_and_large()
        fixed, linear = self.arm("fixed", self.large_batch_size), self.arm("linear", self.large_batch_size)
        # An arm of this name may have learning rates of the user's own.
        scaled = _rate(self.arm("linear", self.small_batch_size)) * self.large_batch_size / self.small_batch_size
        if not np.isclose(_rate(linear), scaled, rtol=1e-4):
            raise NotTested("the learning rates of the arm `linear` are not proportional to the batch size")
        if _setting(fixed) == _setting(linear):
            raise NotTested(f"the arms `fixed` and `linear` train batch size {self.large_batch_size} alike")
        return fixed, linear


def large_against_small(evidence: Evidence, quantity: str) -> Effects:
    """The quantity of the large batch over that of the small one, at the fixed learning rate."""
    small, large = evidence.small_and_large()
    return _at_fixed_rate(evidence, _logs(large, quantity) - _logs(small, quantity))


def large_against_small_by_epoch(evidence: Evidence, table: str, column: str) -> Effects:
    """The mean of a column by epoch of the large batch over that of the small one, at the fixed learning rate.

    The means are over the epochs that both runs of a seed train, for the runs end at different ones.
    """
    small, large = (
        frame.loc[(frame["setting"] == _setting(rows)) & (frame["status"] != "diverged"), ["seed", "epoch", column]]
        for frame in [getattr(evidence, table)]
        for rows in evidence.small_and_large()
    )
    both = large.merge(small, on=["seed", "epoch"], suffixes=("_large", "_small")).dropna()
    means = both.groupby("seed")[[f"{column}_large", f"{column}_small"]].mean()
    return _at_fixed_rate(evidence, _log(means[f"{column}_large"]) - _log(means[f"{column}_small"]))


def linear_against_fixed(evidence: Evidence, quantity: str) -> Effects:
    """The quantity of the large batch at the linearly scaled learning rate over that at the fixed one."""
    fixed, linear = evidence.fixed_and_linear()
    return Effects(
        f"bs{evidence.large_batch_size} at learning rate {_rate_name(linear)} (linear) against {_rate_name(fixed)} "
        "(fixed)",
        _logs(linear, quantity) - _logs(fixed, quantity),
        (_setting(fixed), _setting(linear)),
    )


def linear_against_halfway(evidence: Evidence, quantity: str) -> Effects:
    """The quantity of the large batch at the linearly scaled learning rate over the middle, √(small·large), of the two
    batch sizes at the fixed one.

    Below 1, linear scaling closes more than half of the gap between the two. The share that it closes would have a gap
    in its denominator that may be near 0. If the large batch's quantity is not the greater one, there is no gap.
    """
    small, large = evidence.small_and_large()
    _, linear = evidence.fixed_and_linear()
    low, high = _logs(small, quantity), _logs(large, quantity)
    logs = _logs(linear, quantity) - (low + high) / 2
    gap = (high - low)[logs.notna()].mean()
    if gap <= 0:
        raise NotTested(
            f"at learning rate {_rate_name(small)} bs{evidence.large_batch_size} has no greater {_words(quantity)} "
            f"than bs{evidence.small_batch_size} (ratio {np.exp(gap):.3g}), so there is no gap to close"
        )
    return Effects(
        f"bs{evidence.large_batch_size} at learning rate {_rate_name(linear)} (linear) against the middle of "
        f"bs{evidence.small_batch_size} and bs{evidence.large_batch_size} at {_rate_name(small)} (fixed)",
        logs,
        (_setting(small), _setting(large), _setting(linear)),
    )


def smallest_against_best_at_high_rate(evidence: Evidence) -> Effects:
    """The least validation loss of the smallest batch over that of the best other one, at the high learning rate.

    For each seed, the best other batch size is chosen by the mean logarithm over the *other* seeds: chosen on the seed
    itself, it would look better than it is. One that diverged in any of them is no candidate.
    """
    rows = evidence.arm_runs[evidence.arm_runs["arm"] == "high"]
    sizes = sorted(rows["batch_size"].unique())
    if len(sizes) < 2:
        raise NotTested("this study has one batch size")
    logs = pd.DataFrame({size: _logs(rows[rows["batch_size"] == size], LOSS) for size in sizes})
    smallest, others = logs[sizes[0]], logs[sizes[1:]]
    if len(sizes) > 2 and len(logs) < 2:
        raise NotTested("the best of the other batch sizes is chosen on other seeds, and this study has one seed")
    best = {}
    for seed in logs.index:
        candidates = others.drop(index=seed).dropna(axis="columns").mean() if len(sizes) > 2 else others.loc[seed]
        best[seed] = np.nan if candidates.dropna().empty else others.loc[seed, candidates.idxmin()]
    names = ", ".join(f"bs{size}" for size in sizes[1:])
    against = f"the best of {names}" if len(sizes) > 2 else names
    return Effects(
        f"bs{sizes[0]} against {against} at learning rate {_rate_name(rows)}",
        smallest - pd.Series(best, dtype=float),
        tuple(rows["setting"].unique()),
    )


def best_rate_by_doubling(evidence: Evidence) -> Effects:
    """The factor of the best learning rate for a doubling of the batch size: 2 if it grows linearly, 1 if it stays.

    The best rate of a batch size and seed has the least `best_validation_loss` (of equal ones, the lowest rate) among
    the rates at which all batch sizes train; the factor is 2 to the slope of its log₂ over that of the batch size
    (least squares, a slope a seed).
    """
    rates = shared_learning_rates(evidence.runs)
    grid = constant_lr_settings(evidence.runs)
    grid = grid[grid["learning_rate"].isin(rates)]
    sizes = np.sort(grid["batch_size"].unique())
    if len(sizes) < 2:
        raise NotTested("this study has one batch size")
    if len(rates) < 3:
        raise NotTested("all batch sizes train at fewer than three learning rates, all of them on an edge of the range")
    whole = grid[grid["status"] != "diverged"].dropna(subset=[LOSS])
    whole = whole.sort_values("learning_rate").reset_index(drop=True)
    best = whole.loc[whole.groupby(["seed", "batch_size"])[LOSS].idxmin()]
    logs = np.log(best.pivot(index="seed", columns="batch_size", values="learning_rate")).reindex(columns=sizes)
    doublings = np.log2(sizes) - np.log2(sizes).mean()
    edges = best["learning_rate"].isin([rates[0], rates[-1]]).sum()
    return Effects(
        f"bs{sizes[0]} to bs{sizes[-1]}, the best of {len(rates)} learning rates from {shortest_decimal(rates[0])} to "
        f"{shortest_decimal(rates[-1])}",
        logs.mul(doublings).sum(axis="columns", skipna=False) / np.sum(doublings**2),
        tuple(grid["setting"].unique()),
        f"{edges} of the {len(best)} best rates lie on an edge of the range" if edges else "",
    )


def _at_fixed_rate(evidence: Evidence, logs: pd.Series) -> Effects:
    small, large = evidence.small_and_large()
    return Effects(
        f"bs{evidence.large_batch_size} against bs{evidence.small_batch_size} at learning rate {_rate_name(small)}",
        logs,
        (_setting(small), _setting(large)),
    )


def _logs(rows: pd.DataFrame, quantity: str) -> pd.Series:
    """Return the logarithm of a quantity by seed; nan where the run diverged."""
    rows = rows[rows["quantity"] == quantity]
    if rows.empty:
        raise NotTested(f"the {_words(quantity)} of these runs was not measured")
    return _log(rows.set_index("seed")["value"].where((rows["status"] != "diverged").to_numpy()))


def _log(values: pd.Series) -> pd.Series:
    return np.log(values.where((values > 0) & np.isfinite(values)))


def _words(quantity: str) -> str:
    return quantity.replace("_", " ")


def _setting(rows: pd.DataFrame) -> str:
    return rows["setting"].iloc[0]


def _rate(rows: pd.DataFrame) -> float:
    return float(rows["learning_rate"].iloc[0])


def _rate_name(rows: pd.DataFrame) -> str:
    return shortest_decimal(_rate(rows))
