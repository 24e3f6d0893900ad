"""The ratios between batch sizes that claims are about: one log ratio per seed, 0 if there is no effect.

A seed is nan if one of its runs diverged, or if a value is not positive and finite.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd

from batchscape.config.base import shortest_decimal
from batchscape.report.claims.evidence import (
    Effects,
    Evidence,
    NotTested,
    format_learning_rate,
    in_words,
    log_positive,
    log_quantity,
    setting_of,
)
from batchscape.report.ranking import LOSS
from batchscape.report.settings import constant_lr_settings, shared_learning_rates


def large_over_small(evidence: Evidence, quantity: str) -> Effects:
    """Return log(large/small) of a quantity, at the fixed learning rate.

    Args:
        evidence: The data.
        quantity: A value of the column `quantity` of `arm_runs`.

    Raises:
        NotTested: If the runs or the quantity are missing, if a loss is negative, or if all best epochs are bounds.
    """
    evidence.require_ratios(quantity)
    small, large = evidence.small_and_large()
    effects = _at_fixed_rate(evidence, log_quantity(large, quantity) - log_quantity(small, quantity))
    return _with_bounds(evidence, quantity, effects, over=(large,), under=(small,))


def large_over_small_epoch_time(evidence: Evidence) -> Effects:
    """Return log(large/small) of the time of an epoch, at the fixed learning rate.

    Args:
        evidence: The data.

    Raises:
        NotTested: If the runs are missing.
    """
    runs = evidence.runs.assign(quantity=evidence.epoch_time, value=evidence.runs[evidence.epoch_time])
    small, large = (
        log_quantity(runs[runs["setting"] == setting_of(rows)], evidence.epoch_time)
        for rows in evidence.small_and_large()
    )
    return _at_fixed_rate(evidence, large - small)


def large_over_small_by_epoch(evidence: Evidence, column: Literal["train_loss", "epoch_distance"]) -> Effects:
    """Return log(large/small) of the mean over epochs of a column, at the fixed learning rate.

    Runs end at different epochs, so the mean is over the epochs that both runs of a seed have. An evaluation of the
    large batch belongs to the closest one of the small batch that is less than half an interval away: if they follow a
    number of examples, those of large batches come after a few examples more.

    Args:
        evidence: The data.
        column: `train_loss` of the history, or `epoch_distance`.

    Raises:
        NotTested: If the runs are missing, if a loss is negative, or if an evaluation interval of one batch size has
            more epochs than one of the other, as with an interval in steps.
    """
    evidence.require_ratios(column)
    epochs = {"train_loss": evidence.history, "epoch_distance": evidence.epoch_distance}[column]
    epochs = epochs[epochs["status"] != "diverged"]
    small, large = (
        epochs.loc[epochs["setting"] == setting_of(rows), ["seed", "epoch", column]]
        for rows in evidence.small_and_large()
    )
    large, small = (rows.astype({"epoch": float}).sort_values("epoch") for rows in (large, small))
    large, small = (rows.assign(interval=_evaluation_intervals(rows)) for rows in (large, small))
    of_large, of_small = (float(rows["interval"].median()) for rows in (large, small))
    if not np.isclose(of_large, of_small, rtol=0.1, equal_nan=True):
        raise NotTested(
            f"bs{evidence.large_batch_size} is evaluated every {of_large:.3g} epochs and bs{evidence.small_batch_size} "
            f"every {of_small:.3g}; give training.evaluate_every in epochs"
        )
    tolerance = 0.0 if np.isnan(of_small) else 0.499 * of_small
    shared = pd.merge_asof(
        large, small, on="epoch", by="seed", direction="nearest", tolerance=tolerance, suffixes=("_large", "_small")
    ).dropna()
    # Evaluations at checkpoints come between the others, and may split the interval of one batch size alone.
    shared = shared[np.isclose(shared["interval_large"], shared["interval_small"], rtol=0.1)]
    means = shared.groupby("seed")[[f"{column}_large", f"{column}_small"]].mean()
    return _at_fixed_rate(evidence, log_positive(means[f"{column}_large"]) - log_positive(means[f"{column}_small"]))


def linear_over_fixed(evidence: Evidence, quantity: str) -> Effects:
    """Return log(linear/fixed) of a quantity of the large batch size.

    Args:
        evidence: The data.
        quantity: A value of the column `quantity` of `arm_runs`.

    Raises:
        NotTested: If the runs or the quantity are missing, if a loss is negative, or if the arm `linear` does not scale
            linearly.
    """
    evidence.require_ratios(quantity)
    fixed, linear = evidence.fixed_and_linear()
    return Effects(
        f"bs{evidence.large_batch_size} at learning rate {format_learning_rate(linear)} (linear) against "
        f"{format_learning_rate(fixed)} (fixed)",
        log_quantity(linear, quantity) - log_quantity(fixed, quantity),
        (setting_of(fixed), setting_of(linear)),
    )


def linear_over_midpoint(evidence: Evidence, quantity: str) -> Effects:
    """Return log(linear/√(small·large)) of a quantity.

    `linear` is the large batch size at the linearly scaled learning rate; `small` and `large` are the two batch sizes
    at the fixed one, and √(small·large) is the midpoint of the gap between them on a logarithmic scale. Below 0, linear
    scaling closes more than half of the gap. The closed fraction itself would divide by a gap that may be near 0.

    Args:
        evidence: The data.
        quantity: A value of the column `quantity` of `arm_runs`.

    Raises:
        NotTested: If there is no gap, that is if the large batch size does not have the greater geometric mean; if the
            runs or the quantity are missing, if a loss is negative, if all best epochs are bounds, or if the arm
            `linear` does not scale linearly.
    """
    evidence.require_ratios(quantity)
    small, large = evidence.small_and_large()
    _, linear = evidence.fixed_and_linear()
    log_small, log_large = log_quantity(small, quantity), log_quantity(large, quantity)
    log_ratios = log_quantity(linear, quantity) - (log_small + log_large) / 2
    gap = (log_large - log_small)[log_ratios.notna()].mean()
    rate = format_learning_rate(small)
    if gap <= 0:
        raise NotTested(
            f"at learning rate {rate}, the {in_words(quantity)} of bs{evidence.large_batch_size} is not greater than "
            f"that of bs{evidence.small_batch_size} (ratio {np.exp(gap):.3g}), so there is no gap to close"
        )
    effects = Effects(
        f"bs{evidence.large_batch_size} at learning rate {format_learning_rate(linear)} (linear) against the "
        f"midpoint of bs{evidence.small_batch_size} and bs{evidence.large_batch_size} at {rate} (fixed)",
        log_ratios,
        (setting_of(small), setting_of(large), setting_of(linear)),
    )
    return _with_bounds(evidence, quantity, effects, over=(linear,), under=(small, large))


def smallest_over_best_other(evidence: Evidence) -> Effects:
    """Return log(smallest/best other) of the best validation loss, at the high learning rate.

    For each seed, the best of the other batch sizes is selected by its mean log loss over the *other* seeds: selected
    on the seed itself, its loss would be biased downwards. Batch sizes that diverged in any of them are excluded.

    Args:
        evidence: The data.

    Raises:
        NotTested: If the study has only one batch size, or more than two but only one seed, or if a loss is negative.
    """
    evidence.require_ratios(LOSS)
    rows = evidence.arm_runs[evidence.arm_runs["arm"] == "high"]
    sizes = sorted(rows["batch_size"].unique())
    if len(sizes) < 2:
        raise NotTested("this study has only one batch size")
    losses = pd.DataFrame({size: log_quantity(rows[rows["batch_size"] == size], LOSS) for size in sizes})
    smallest, others = losses[sizes[0]], losses[sizes[1:]]
    if len(sizes) > 2 and len(losses) < 2:
        raise NotTested("the best of the other batch sizes is selected on other seeds, and this study has one seed")
    best_other = {}
    for seed in losses.index:
        candidates = others.drop(index=seed).dropna(axis="columns").mean() if len(sizes) > 2 else others.loc[seed]
        best_other[seed] = np.nan if candidates.dropna().empty else others.loc[seed, candidates.idxmin()]
    names = ", ".join(f"bs{size}" for size in sizes[1:])
    against = f"the best of {names}" if len(sizes) > 2 else names
    return Effects(
        f"bs{sizes[0]} against {against} at learning rate {format_learning_rate(rows)}",
        smallest - pd.Series(best_other, dtype=float),
        tuple(rows["setting"].unique()),
    )


def retuned_large_over_small(evidence: Evidence) -> Effects:
    """Return log(large/small) of the final loss, each batch size at its best learning rate.

    This is the test loss of the best weights, or the best validation loss if there is no test side. For each seed and
    batch size, the best of the constant and the tuned rates is selected by its mean log validation loss over the
    *other* seeds: selected on the seed itself, its loss would be biased downwards. Rates at which one of the other
    seeds diverged are excluded.

    Args:
        evidence: The data.

    Raises:
        NotTested: If the study has only one batch size, one rate per batch size or one seed, or if a loss is negative.
    """
    evidence.require_ratios(evidence.final_loss)
    sizes = evidence.small_batch_size, evidence.large_batch_size
    if sizes[0] == sizes[1]:
        raise NotTested("this study has only one batch size")
    losses, settings, num_on_edge, num_selected = {}, [], 0, 0
    for size in sizes:
        runs = evidence.runs[evidence.runs["batch_size"] == size]
        is_tuned = runs["setting"].str.endswith("-lrtuned")
        runs = pd.concat([constant_lr_settings(runs[~is_tuned]), runs[is_tuned]])
        rates = runs.drop_duplicates("setting").set_index("setting")["learning_rate"]
        if len(rates) < 2:
            raise NotTested(f"batch size {size} has fewer than two learning rates")
        if runs["seed"].nunique() < 2:
            raise NotTested("the best rates are selected on other seeds, and this study has one seed")
        completed = runs[runs["status"] != "diverged"].set_index(["seed", "setting"])
        columns = LOSS, evidence.final_loss
        selection, final = (log_positive(completed[name]).unstack().reindex(runs["seed"].unique()) for name in columns)
        best = {seed: _best_of_other_seeds(selection, seed) for seed in selection.index}
        losses[size] = pd.Series({seed: final.at[seed, name] if name else np.nan for seed, name in best.items()})
        selected = [rates[name] for name in best.values() if name]
        num_selected += len(selected)
        num_on_edge += int(np.isin(selected, [rates.min(), rates.max()]).sum())
        settings += list(rates.index)
    return Effects(
        f"bs{sizes[1]} against bs{sizes[0]}, each at its best learning rate",
        losses[sizes[1]] - losses[sizes[0]],
        tuple(settings),
        f"{num_on_edge} of the {num_selected} selected rates are on an edge of the range" if num_on_edge else "",
    )


def retuned_at_equal_steps(evidence: Evidence) -> Effects:
    """Return the same as `retuned_large_over_small` in a study whose runs all take the same number of steps.

    Args:
        evidence: The data.

    Raises:
        NotTested: If the budget is not in steps or the runs end by convergence, or as `retuned_large_over_small` does.
    """
    if evidence.length != "at equal steps":
        raise NotTested(
            f"runs are compared {evidence.length}; set training.budget in steps, and training.patience to null"
        )
    return retuned_large_over_small(evidence)


def _best_of_other_seeds(losses: pd.DataFrame, seed: int) -> str | None:
    """Return the column with the lowest mean over all rows but that of a seed; None if each of them has a gap."""
    means = losses.drop(index=seed).dropna(axis="columns").mean().dropna()
    return None if means.empty else means.idxmin()


def best_rate_per_doubling(evidence: Evidence) -> Effects:
    """Return the log of the factor by which the best learning rate grows if the batch size doubles.

    The factor is 2 for linear scaling, √2 for square-root scaling, 1 if the best rate stays the same: it is 2 to the
    slope of log₂(best rate) over log₂(batch size), by least squares, seed by seed. The best rate of a batch size and
    seed is the one with the lowest best validation loss (of equal ones, the lowest rate) among the rates at which all
    batch sizes train; diverged runs are excluded.

    Args:
        evidence: The data.

    Raises:
        NotTested: If the study has only one batch size, or fewer than three learning rates that all batch sizes share.
    """
    rates = shared_learning_rates(evidence.runs)
    grid = constant_lr_settings(evidence.runs)
    grid = grid[grid["learning_rate"].isin(rates)]
    sizes = np.sort(grid["batch_size"].unique())
    if len(sizes) < 2:
        raise NotTested("this study has only one batch size")
    if len(rates) < 3:
        raise NotTested(
            "fewer than three learning rates are shared by all batch sizes, so each is on an edge of the range"
        )
    completed = grid[grid["status"] != "diverged"].dropna(subset=[LOSS])
    completed = completed.sort_values("learning_rate").reset_index(drop=True)
    best = completed.loc[completed.groupby(["seed", "batch_size"])[LOSS].idxmin()]
    log_rates = np.log(best.pivot(index="seed", columns="batch_size", values="learning_rate")).reindex(columns=sizes)
    doublings = np.log2(sizes) - np.log2(sizes).mean()
    num_on_edge = best["learning_rate"].isin([rates[0], rates[-1]]).sum()
    return Effects(
        f"bs{sizes[0]} to bs{sizes[-1]}, the best of {len(rates)} learning rates from {shortest_decimal(rates[0])} to "
        f"{shortest_decimal(rates[-1])}",
        log_rates.mul(doublings).sum(axis="columns", skipna=False) / np.sum(doublings**2),
        tuple(grid["setting"].unique()),
        f"{num_on_edge} of the {len(best)} best rates are on an edge of the range" if num_on_edge else "",
    )


def _evaluation_intervals(rows: pd.DataFrame) -> pd.Series:
    """Return the epochs since the evaluation before, or since the start; `rows` are in the order of epochs."""
    return rows.groupby("seed")["epoch"].diff().fillna(rows["epoch"])


def _with_bounds(
    evidence: Evidence, quantity: str, effects: Effects, over: Sequence[pd.DataFrame], under: Sequence[pd.DataFrame]
) -> Effects:
    """Return the effects where a best epoch that a larger budget may move counts only as a bound.

    Such a ratio counts as the one nearest to 1 that its bounds allow.

    Args:
        evidence: The data.
        quantity: A value of the column `quantity` of `arm_runs`.
        effects: The log ratios of the quantity.
        over: Rows of `arm_runs` of the numerator.
        under: Those of the denominator.

    Raises:
        NotTested: If each ratio is bounded on neither side.
    """
    if quantity != "best_epoch":
        return effects
    ratios = effects.by_seed
    is_low, is_high = (pd.Series(ratios.index.isin(_cut_seeds(evidence, rows)), ratios.index) for rows in (over, under))
    used = ratios.notna()
    if used.any() and (is_low & is_high)[used].all():
        raise NotTested(
            "with a larger budget every best epoch may be a later one; use a larger training.budget, and "
            "training.patience"
        )
    low, high = ratios.mask(is_high, -np.inf), ratios.mask(is_low, np.inf)
    bounded = pd.Series(np.clip(0.0, low, high), ratios.index).where(used)
    return replace(effects, by_seed=bounded, has_bounds=bool((is_low | is_high)[used].any()))


def _cut_seeds(evidence: Evidence, rows: Sequence[pd.DataFrame]) -> set[int]:
    """Return the seeds of the runs whose best epoch may have been later with a larger budget.

    Without patience these are the runs whose best epoch is the last one.
    """
    runs = evidence.runs[evidence.runs["setting"].isin([setting_of(each) for each in rows])]
    is_last = runs["status"].eq("completed") & np.isclose(runs["best_epoch"], runs["epochs"])
    return set(runs.loc[is_last | runs["status"].eq("budget_spent"), "seed"])


def _at_fixed_rate(evidence: Evidence, by_seed: pd.Series) -> Effects:
    small, large = evidence.small_and_large()
    return Effects(
        f"bs{evidence.large_batch_size} against bs{evidence.small_batch_size} at learning rate "
        f"{format_learning_rate(small)}",
        by_seed,
        (setting_of(small), setting_of(large)),
    )
