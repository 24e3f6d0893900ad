"""Which batch size and learning rate to take, why, and what is not sure about it, in sentences."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from batchscape.report.numbers import format_interval, format_mean_sd, format_number, join_truncated
from batchscape.report.settings import constant_lr_settings
from batchscape.report.tables.recommendation import SEEDS_FOR_EQUAL

LOSS = "best_validation_loss"
FEW_SEEDS = 5


@dataclass(frozen=True)
class Answer:
    headline: str
    reasons: list[str]
    caveats: list[str]


def summarize(
    recommendation: pd.DataFrame,
    runs: pd.DataFrame,
    tuned_lr: pd.DataFrame | None = None,
    missing_batch_sizes: Sequence[int] = (),
) -> Answer:
    """Return the answer that the table `recommendation` gives; `runs` says what it was measured on, and `tuned_lr` how
    the learning rate should follow the batch size."""
    candidates = recommendation[recommendation["choice"] != "diverged"]
    if candidates.empty:
        rate = format_number(recommendation["learning_rate"].min())
        return Answer(
            "No setting can be recommended.",
            [
                f"In every setting a run diverged: the loss was not finite. Of {len(runs)} runs "
                f"{runs['status'].eq('diverged').sum()} diverged; tables/runs.csv says which. Add learning rates below "
                f"{rate}, the lowest one tried, to grid.learning_rates."
            ],
            [],
        )
    best = candidates.iloc[0]
    chosen = candidates[candidates["choice"].str.endswith("cheapest equivalent")].iloc[0]
    few = {1: "one seed", 2: "two seeds"}.get(best["n_seeds"])
    start = f"Best seen, with {few}:" if few else "Train with"
    return Answer(
        headline=f"{start} {setting_name(chosen)}.",
        reasons=[*_reasons(candidates, best, chosen, *cost_column(runs)), *_scaling(tuned_lr, recommendation)],
        caveats=list(_caveats(recommendation, best, chosen, runs, missing_batch_sizes)),
    )


def cost_column(runs: pd.DataFrame) -> tuple[str, str]:
    """Return the quantity that the table `recommendation` compares costs by, and its unit."""
    return ("cpu_seconds_to_best", "CPU s") if runs["device"].eq("cpu").all() else ("seconds_to_best", "s")


def setting_name(row: pd.Series) -> str:
    """Return a setting in words."""
    name = f"batch size {row['batch_size']} at learning rate {format_number(row['learning_rate'])}"
    if row["setting"].partition("-lr")[2].startswith("tuned"):
        name += " (which the search found)"
    warmup = row["setting"].partition("-warmup")[2]
    return f"{name}, with a warm-up of {warmup} epochs" if warmup else name


def _reasons(candidates: pd.DataFrame, best: pd.Series, chosen: pd.Series, clock: str, unit: str) -> Iterator[str]:
    def loss(row: pd.Series) -> str:
        return f"{format_mean_sd(row[f'{LOSS}_mean'], row[f'{LOSS}_sd'])} nats"

    def time(row: pd.Series) -> str:
        return f"{format_mean_sd(row[f'{clock}_mean'], row[f'{clock}_sd'])} {unit}"

    seeds = "one seed" if best["n_seeds"] == 1 else f"{best['n_seeds']} seeds, mean ± standard deviation"
    yield (
        f"The least validation loss of {len(candidates)} settings is that of {setting_name(best)}: {loss(best)} "
        f"({seeds}). It took {time(best)} of training up to its best epoch, {format_number(best['best_epoch_mean'])}"
        f"{' on average' if best['n_seeds'] > 1 else ''}."
    )
    equal = int(candidates["choice"].isin(["equivalent", "cheapest equivalent"]).sum())
    many = f"{equal} other setting{'s are' if equal != 1 else ' is'} as good as these seeds can tell"
    if chosen["setting"] != best["setting"]:
        yield (
            f"{many}. The cheapest of them is {setting_name(chosen)}: {time(chosen)} to its best epoch, at a loss of "
            f"{loss(chosen)} (paired by seed {format_number(chosen['difference_to_best'])} more, 95 % interval "
            f"{format_interval(chosen['ci95_low'], chosen['ci95_high'])})."
        )
    elif equal:
        yield f"{many}; none of them is cheaper."
    elif best["n_seeds"] >= SEEDS_FOR_EQUAL:
        yield "No other setting comes within one standard error of it."
    counts = candidates["choice"].value_counts()
    if best["n_seeds"] > 1:
        yield (
            f"Of the rest, worse: {counts.get('worse', 0)} (the 95 % interval of the difference lies above 0); "
            f"unclear: {counts.get('unclear', 0)} (higher on average, but not beyond what chance may do)."
        )


def _scaling(tuned_lr: pd.DataFrame | None, recommendation: pd.DataFrame) -> Iterator[str]:
    if tuned_lr is None:
        return
    lost = tuned_lr.loc[~np.isfinite(tuned_lr["validation_loss"]), "batch_size"].astype(str)
    if len(lost):
        yield f"In the search for a learning rate every trial of batch size {', '.join(lost)} diverged."
    tuned_lr = tuned_lr[np.isfinite(tuned_lr["validation_loss"])]
    if len(tuned_lr) < 2:
        return
    sizes, rates = tuned_lr["batch_size"], tuned_lr["tuned_learning_rate"]
    power = np.polyfit(np.log(sizes), np.log(rates), 1)[0]
    edges = tuned_lr.loc[tuned_lr["edge"] != "none", "batch_size"].astype(str)
    yield (
        f"How the learning rate should follow: the search found {join_truncated([format_number(rate) for rate in rates], 8)} for "
        f"batch sizes {join_truncated([str(size) for size in sizes], 8)}, about like the batch size to the power of "
        f"{format_number(round(power, 2))} (linear scaling is 1, square-root scaling 0.5). One search was run per "
        "batch size, so no uncertainty is known."
        + (f" On the edge of the range, and so but a bound: batch size {', '.join(edges)}." if len(edges) else "")
    )
    for size in sizes:
        yield from _worse_than_grid(recommendation[recommendation["batch_size"] == size])


def _worse_than_grid(rows: pd.DataFrame) -> Iterator[str]:
    """Say if a batch size trains worse at the rate that its search found than at the best constant rate.

    Worse means that a run diverged, or that the mean loss is above that of the constant rate by more than the latter's
    standard deviation over seeds; with one seed, by any amount.
    """
    tuned = rows[rows["setting"].str.contains("-lrtuned")]
    constant = constant_lr_settings(rows)
    constant = constant[constant["choice"] != "diverged"]
    if tuned.empty or constant.empty:
        return
    here, there = tuned.iloc[0], constant.loc[constant[f"{LOSS}_mean"].idxmin()]
    losses = [format_mean_sd(row[f"{LOSS}_mean"], row[f"{LOSS}_sd"]) for row in (here, there)]
    sd = there[f"{LOSS}_sd"]
    if here["n_diverged"]:
        why = f"{here['n_diverged']} of {here['n_diverged'] + here['n_seeds']} runs diverged, against {losses[1]} nats"
    elif here[f"{LOSS}_mean"] > there[f"{LOSS}_mean"] + np.nan_to_num(sd):
        beyond = "in one seed" if pd.isna(sd) else "higher by more than the standard deviation of the latter"
        why = f"{losses[0]} against {losses[1]} nats, {beyond}"
    else:
        return
    yield (
        f"But batch size {here['batch_size']} trains worse at {format_number(here['learning_rate'])}, which its search found, "
        f"than at {format_number(there['learning_rate'])}, the best constant rate: {why}. Do not take the searched rate, and "
        "mind that the power rests on it too."
    )


def _caveats(
    recommendation: pd.DataFrame,
    best: pd.Series,
    chosen: pd.Series,
    runs: pd.DataFrame,
    missing_batch_sizes: Sequence[int],
) -> Iterator[str]:
    named = pd.DataFrame([best, chosen]).drop_duplicates("setting")
    if best["n_seeds"] == 1:
        yield "One seed says nothing of the spread over seeds, so no difference here is certain. Add seeds."
    elif best["n_seeds"] < SEEDS_FOR_EQUAL:
        yield "Two seeds hardly tell the spread over seeds, so no setting is taken to be as good as the best. Add one."
    elif best["n_seeds"] < FEW_SEEDS:
        yield f"{best['n_seeds']} seeds are few: other seeds may order settings of similar loss another way."
    for _, row in named[named["best_epoch_mean"] <= 1].iterrows():
        yield (
            f"The best epoch of {setting_name(row)} is the first in every seed: it did not get better by training. See "
            "whether it has learned anything."
        )
    for _, row in named[named["edge"] != "none"].iterrows():
        yield (
            f"The learning rate of {setting_name(row)} lies on the edge of what was tried, so it is a bound and not an "
            f"optimum: {row['advice']}."
        )
    for size in missing_batch_sizes:
        yield f"No run of batch size {size} is complete, so whether it is better is not known."
    sizes = pd.Series([*recommendation["batch_size"], *missing_batch_sizes])
    for size in named["batch_size"].unique():
        ends = [word for word, end in (("smallest", sizes.min()), ("largest", sizes.max())) if size == end]
        if ends:
            yield f"Batch size {size} is the {' and the '.join(ends)} that was tried; there may be a better one beyond."
    stopped, total = int(runs["status"].eq("max_epochs").sum()), len(runs)
    if stopped:
        here = int(named["n_max_epochs"].sum())
        yield (
            f"{stopped} of {total} runs, {here} of them of the settings named above, still improved when "
            "training.max_epochs stopped them: their losses are upper bounds."
        )
    diverged = recommendation[recommendation["choice"] == "diverged"]
    if len(diverged):
        yield (
            f"A run diverged in {len(diverged)} of {len(recommendation)} settings, which are therefore no candidates: "
            f"{join_truncated(list(diverged['setting']), 6)}."
        )
    yield (
        "The reported loss was also used for the choice, on the same validation images, so it is optimistic: expect a "
        "little more on new ones."
    )
