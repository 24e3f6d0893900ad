"""The answer of the report: which batch size and learning rate to use, why, and with which caveats."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from batchscape.report.measures import Measures, capitalize
from batchscape.report.numbers import format_interval, format_mean_sd, format_number, join_truncated
from batchscape.report.settings import constant_lr_settings, setting_details
from batchscape.report.tables.recommendation import MIN_SEEDS_FOR_EQUIVALENT

LOSS = "best_validation_loss"
FEW_SEEDS = 5
SCALED_NAMES = {"momentum": "1 − momentum", "beta2": "1 − β₂", "warmup": "length of the warm-up"}
SCALING_VERDICTS = {
    "linear": "this is linear scaling (1), not square-root scaling (0.5)",
    "square-root": "this is square-root scaling (0.5), not linear scaling (1)",
    "neither": "this is neither linear (1) nor square-root scaling (0.5)",
    "not determined": "linear (1) and square-root scaling (0.5) are both possible",
}


@dataclass(frozen=True)
class Answer:
    """The answer as sentences."""

    headline: str
    reasons: list[str]
    caveats: list[str]


def summarize(
    recommendation: pd.DataFrame,
    runs: pd.DataFrame,
    measures: Measures,
    tuned_lr: pd.DataFrame | None = None,
    missing_batch_sizes: Sequence[int] = (),
    recipe: str = "",
    scaling: pd.DataFrame | None = None,
) -> Answer:
    """Summarize the table `recommendation` in sentences.

    Args:
        recommendation: The table of that name, best setting first.
        runs: The table `runs`, from which it was computed.
        measures: What the loss and the metrics are called, and their units.
        tuned_lr: The table of that name; None if the search is disabled.
        missing_batch_sizes: Batch sizes of the study without a complete run.
        recipe: How the study trains; empty for SGD at a constant learning rate.
        scaling: The table of that name; None if it is missing.

    Returns:
        The recommended setting, the reasons for it, and what limits it.
    """
    candidates = recommendation[recommendation["choice"] != "diverged"]
    if candidates.empty:
        rate = format_number(recommendation["learning_rate"].min())
        return Answer(
            "No setting can be recommended.",
            [
                f"Every setting has a diverged run, that is, a loss that is not finite: of {len(runs)} runs "
                f"{runs['status'].eq('diverged').sum()} diverged (see tables/runs.csv). Add learning rates below "
                f"{rate}, the lowest one tried, to grid.learning_rates."
            ],
            [],
        )
    best = candidates.iloc[0]
    chosen = candidates[candidates["choice"].str.endswith("cheapest equivalent")].iloc[0]
    few_seeds = {1: "one seed", 2: "two seeds"}.get(best["n_seeds"])
    lead = f"Best setting seen, with {few_seeds}:" if few_seeds else "Train with"
    return Answer(
        headline=f"{lead} {describe_setting(chosen)}.",
        reasons=[
            *([f"All runs train with {recipe}, except for what the name of their setting changes."] if recipe else []),
            *_reasons(candidates, best, chosen, measures, *cost_column(runs)),
            *_test_results(chosen, measures),
            *_scaling(scaling),
            *_tuned_rates(tuned_lr, recommendation, measures),
        ],
        caveats=list(_caveats(recommendation, best, chosen, runs, measures, missing_batch_sizes)),
    )


def cost_column(runs: pd.DataFrame) -> tuple[str, str]:
    """Return the quantity by which the table `recommendation` compares costs, and its unit."""
    return ("cpu_seconds_to_best", "CPU s") if runs["device"].eq("cpu").all() else ("seconds_to_best", "s")


def describe_setting(row: pd.Series) -> str:
    """Return the batch size, the learning rate and what else is particular to the setting of a row, in words."""
    details = setting_details(row["setting"])
    text = f"batch size {row['batch_size']} at learning rate {format_number(row['learning_rate'])}"
    return ", ".join([f"{text} (tuned)" if details.is_tuned else text, *details.phrases])


def _reasons(
    candidates: pd.DataFrame, best: pd.Series, chosen: pd.Series, measures: Measures, cost: str, unit: str
) -> Iterator[str]:
    def loss(row: pd.Series) -> str:
        return measures.loss_phrase(format_mean_sd(row[f"{LOSS}_mean"], row[f"{LOSS}_sd"]))

    def with_metric(row: pd.Series) -> str:
        return ", ".join([loss(row), *_metric_phrases(row, "validation_{}_at_best", measures)])

    def time(row: pd.Series) -> str:
        return f"{format_mean_sd(row[f'{cost}_mean'], row[f'{cost}_sd'])} {unit}"

    seeds = "one seed" if best["n_seeds"] == 1 else f"{best['n_seeds']} seeds, mean ± standard deviation"
    yield (
        f"The best validation loss of {len(candidates)} settings is that of {describe_setting(best)}: "
        f"{with_metric(best)} ({seeds}). Its best epoch, {format_number(best['best_epoch_mean'])}"
        f"{' on average' if best['n_seeds'] > 1 else ''}, was reached after {time(best)} of training."
    )
    equivalent = int(candidates["choice"].isin(["equivalent", "cheapest equivalent"]).sum())
    others = f"{equivalent} other setting{'s are' if equivalent != 1 else ' is'} equivalent within the precision of"
    if chosen["setting"] != best["setting"]:
        yield (
            f"{others} these seeds. The cheapest of them is {describe_setting(chosen)}: {time(chosen)} to its best "
            f"epoch, at a loss of {loss(chosen)} (higher by {format_number(chosen['difference_to_best'])}, paired by "
            f"seed; 95 % interval {format_interval(chosen['ci95_low'], chosen['ci95_high'])})."
        )
    elif equivalent:
        yield f"{others} these seeds; none of them is cheaper."
    elif best["n_seeds"] >= MIN_SEEDS_FOR_EQUIVALENT:
        yield "No other setting is within one standard error of it."
    counts = candidates["choice"].value_counts()
    if best["n_seeds"] > 1:
        yield (
            f"Among the other settings: {counts.get('worse', 0)} worse (the 95 % interval of the difference is above "
            f"0), {counts.get('unclear', 0)} unclear (higher on average, but possibly by chance)."
        )


def _metric_phrases(row: pd.Series, column: str, measures: Measures) -> list[str]:
    """Return the first metric of a row with its value, if there is one; `column` has `{}` for its name."""
    if measures.first is None:
        return []
    name = column.format(measures.first.name)
    return [measures.first.phrase(format_mean_sd(row[f"{name}_mean"], row[f"{name}_sd"]))]


def _test_results(chosen: pd.Series, measures: Measures) -> Iterator[str]:
    """Describe what the recommended setting reaches on the test side, if there is one."""
    if "test_loss_mean" in chosen:
        loss = measures.loss_phrase(format_mean_sd(chosen["test_loss_mean"], chosen["test_loss_sd"]))
        yield (
            f"On the test {measures.examples}, which had no part in any choice, the loss of {describe_setting(chosen)} "
            f"is {', '.join([loss, *_metric_phrases(chosen, 'test_{}', measures)])}."
        )


def _scaling(scaling: pd.DataFrame | None) -> Iterator[str]:
    """Describe by which power each hyperparameter follows the batch size."""
    if scaling is None:
        return
    for _, row in scaling.iterrows():
        name = SCALED_NAMES.get(row["hyperparameter"], row["hyperparameter"].replace("_", " "))
        subject = f"the best {name} of the {row['source']}"
        if pd.isna(row["exponent"]):
            yield f"How {subject} follows the batch size is not determined: {row['reason']}."
            continue
        n_seeds = row["n_seeds"]
        interval = (
            "one seed, no interval"
            if n_seeds == 1
            else f"95 % interval {format_interval(row['ci95_low'], row['ci95_high'])}, {n_seeds} seeds"
        )
        falls = " It rises and falls again as the batch size grows." if row["rises_and_falls"] == "yes" else ""
        power = format_number(round(row["exponent"], 2))
        yield (
            f"{capitalize(subject)} is proportional to the batch size to the power of {power} "
            f"({interval}, batch sizes {row['smallest_batch_size']:.0f} to {row['largest_batch_size']:.0f}): "
            f"{SCALING_VERDICTS[row['verdict']]}.{falls}"
        )


def _tuned_rates(tuned_lr: pd.DataFrame | None, recommendation: pd.DataFrame, measures: Measures) -> Iterator[str]:
    """List the tuned rates, and those that train worse than a constant one."""
    if tuned_lr is None:
        return
    diverged = tuned_lr.loc[~np.isfinite(tuned_lr["validation_loss"]), "batch_size"].astype(str)
    if len(diverged):
        yield f"In the learning rate search, every trial of batch size {', '.join(diverged)} diverged."
    tuned_lr = tuned_lr[np.isfinite(tuned_lr["validation_loss"])]
    if len(tuned_lr) < 2:
        return
    sizes, rates = tuned_lr["batch_size"], tuned_lr["tuned_learning_rate"]
    edges = tuned_lr.loc[tuned_lr["edge"] != "none", "batch_size"].astype(str)
    bound = (
        f" On the edge of the search range, hence only a bound: batch size {', '.join(edges)}." if len(edges) else ""
    )
    yield (
        f"Tuned learning rates: {join_truncated([format_number(rate) for rate in rates], 8)} for batch sizes "
        f"{join_truncated([str(size) for size in sizes], 8)}.{bound}"
    )
    for size in sizes:
        yield from _warn_if_worse(recommendation[recommendation["batch_size"] == size], measures)


def _warn_if_worse(rows: pd.DataFrame, measures: Measures) -> Iterator[str]:
    """Warn if a batch size trains worse at its tuned rate than at the best constant rate.

    Worse means that a run diverged, or that the mean loss exceeds that of the constant rate by more than the standard
    deviation of the latter over seeds (with one seed, by any amount).
    """
    tuned_rows = rows[rows["setting"].str.contains("-lrtuned")]
    constant_rows = constant_lr_settings(rows)
    constant_rows = constant_rows[constant_rows["choice"] != "diverged"]
    if tuned_rows.empty or constant_rows.empty:
        return
    tuned, constant = tuned_rows.iloc[0], constant_rows.loc[constant_rows[f"{LOSS}_mean"].idxmin()]
    tuned_loss, constant_loss = (format_mean_sd(row[f"{LOSS}_mean"], row[f"{LOSS}_sd"]) for row in (tuned, constant))
    constant_loss = measures.loss_phrase(constant_loss)
    sd = constant[f"{LOSS}_sd"]
    if tuned["n_diverged"]:
        runs = tuned["n_diverged"] + tuned["n_seeds"]
        reason = f"{tuned['n_diverged']} of {runs} runs diverged, against {constant_loss}"
    elif tuned[f"{LOSS}_mean"] > constant[f"{LOSS}_mean"] + np.nan_to_num(sd):
        margin = "with one seed" if pd.isna(sd) else "a difference larger than the standard deviation of the latter"
        reason = f"{tuned_loss} against {constant_loss}, {margin}"
    else:
        return
    yield (
        f"However, batch size {tuned['batch_size']} trains worse at its tuned rate, "
        f"{format_number(tuned['learning_rate'])}, than at {format_number(constant['learning_rate'])}, its best "
        f"constant rate: {reason}. Do not use the tuned rate."
    )


def _caveats(
    recommendation: pd.DataFrame,
    best: pd.Series,
    chosen: pd.Series,
    runs: pd.DataFrame,
    measures: Measures,
    missing_batch_sizes: Sequence[int],
) -> Iterator[str]:
    named = pd.DataFrame([best, chosen]).drop_duplicates("setting")
    if best["n_seeds"] == 1:
        yield "With one seed, the variation over seeds is unknown and no difference here is certain. Add seeds."
    elif best["n_seeds"] < MIN_SEEDS_FOR_EQUIVALENT:
        yield (
            "With two seeds, the variation over seeds is hardly known, so no setting counts as equivalent to the best "
            "one. Add a seed."
        )
    elif best["n_seeds"] < FEW_SEEDS:
        yield f"{best['n_seeds']} seeds are few: with other seeds, settings of similar loss may change places."
    for _, row in named[named["best_epoch_mean"] <= 1].iterrows():
        yield (
            f"The best epoch of {describe_setting(row)} is the first one in every seed, so further training did not "
            "improve it. Check that the network learned anything."
        )
    for _, row in named[named["edge"] != "none"].iterrows():
        yield (
            f"The learning rate of {describe_setting(row)} is on the edge of the tried range, so it is a bound and not "
            f"an optimum: {row['advice']}."
        )
    for size in missing_batch_sizes:
        yield f"No run of batch size {size} is complete, so it is unknown whether it is better."
    sizes = pd.Series([*recommendation["batch_size"], *missing_batch_sizes])
    for size in named["batch_size"].unique():
        ends = [word for word, end in (("smallest", sizes.min()), ("largest", sizes.max())) if size == end]
        if ends:
            yield f"Batch size {size} is the {' and the '.join(ends)} one tried; a better one may lie beyond."
    stopped, total = int(runs["status"].eq("budget_spent").sum()), len(runs)
    if stopped:
        named_stopped = int(named["n_budget_spent"].sum())
        yield (
            f"{stopped} of {total} runs ({named_stopped} of them of the settings named above) were still improving "
            "when training.budget stopped them, so their losses are upper bounds."
        )
    diverged = recommendation[recommendation["choice"] == "diverged"]
    if len(diverged):
        yield (
            f"In {len(diverged)} of {len(recommendation)} settings a run diverged, so they are no candidates: "
            f"{join_truncated(list(diverged['setting']), 6)}."
        )
    if "test_loss_mean" in chosen:
        yield (
            "The validation loss was also used for selection, so it is optimistic; the loss on the test "
            f"{measures.examples} is not."
        )
    else:
        yield (
            f"The reported loss was also used for selection, on the same validation {measures.examples}, so it is "
            f"optimistic: expect a slightly higher loss on new {measures.examples}."
        )
