"""The answer of the report: which batch size and learning rate to use, why, and with which caveats."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from batchscape.config.tuning import names_of
from batchscape.report.claims.t_test import t_test
from batchscape.report.measures import Measures, capitalize
from batchscape.report.numbers import format_interval, format_mean_sd, format_number, join_truncated
from batchscape.report.ranking import LOSS, cost_column, has_negative_loss
from batchscape.report.settings import constant_lr_settings, describe_hyperparameter, setting_details
from batchscape.report.tables.confirmation import CHOSEN
from batchscape.report.tables.recommendation import EXCLUDED, MIN_SEEDS_FOR_EQUIVALENT

FEW_SEEDS = 5
FEW = {1: "one seed", 2: "two seeds"}
SCALED_NAMES = {"momentum": "1 − momentum", "beta2": "1 − β₂", "warmup": "length of the warm-up"}
SCALING_VERDICTS = {
    "linear": "this is linear scaling (1), not square-root scaling (0.5)",
    "square-root": "this is square-root scaling (0.5), not linear scaling (1)",
    "neither": "this is neither linear (1) nor square-root scaling (0.5)",
    "not determined": "this does not tell linear (1), square-root (0.5) and no scaling (0) apart",
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
    confirmation: pd.DataFrame | None = None,
    trial_budget: str = "",
) -> Answer:
    """Summarize the tables `recommendation` and `confirmation` in sentences.

    Args:
        recommendation: The table of that name, best setting first.
        runs: The table `runs`, from which it was computed.
        measures: What the loss and the metrics are called, and their units.
        tuned_lr: The table of that name; None if the search is disabled.
        missing_batch_sizes: Batch sizes of the study without a complete run.
        recipe: How the study trains; empty for SGD at a constant learning rate.
        scaling: The table of that name; None if it is missing.
        confirmation: The table of that name; None if the confirmation is disabled or not complete.
        trial_budget: How long a trial of the search trains, such as `40 epochs`; empty if as long as a run.

    Returns:
        The recommended setting, the reasons for it, and what limits it.
    """
    recommendation = recommendation.assign(tuned=find_tuned_hyperparameters(recommendation, tuned_lr))
    candidates = recommendation[~recommendation["choice"].isin(EXCLUDED)]
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
    chosen, confirmed = find_recommended(candidates, confirmation)
    return Answer(
        headline=_headline(candidates, best, chosen, confirmed, confirmation, runs, measures),
        reasons=[
            *([f"All runs train with {recipe}, except for what the name of their setting changes."] if recipe else []),
            *_reasons(candidates, best, chosen, confirmed is None, measures, *cost_column(runs)),
            *_confirmation(confirmation, confirmed, measures, *cost_column(runs)),
            *(_test_results(chosen, measures) if confirmed is None else ()),
            *_scaling(scaling, trial_budget),
            *_tuned_rates(tuned_lr, recommendation, runs, measures),
        ],
        caveats=list(_caveats(recommendation, best, chosen, confirmed, runs, measures, missing_batch_sizes)),
    )


def find_recommended(candidates: pd.DataFrame, confirmation: pd.DataFrame | None) -> tuple[pd.Series, pd.Series | None]:
    """Return the recommended setting: the one that the confirmation chose, or else the cheapest equivalent one.

    Args:
        candidates: The rows of the table `recommendation` that did not diverge; at least one.
        confirmation: The table of that name; None if there is none.

    Returns:
        Its row of `recommendation`, and its row of `confirmation`; the latter is None without a complete confirmation,
        or if every finalist diverged.
    """
    confirmed = _confirmed(confirmation, candidates)
    if confirmed is not None:
        return candidates[candidates["setting"] == confirmed["setting"]].iloc[0], confirmed
    return candidates[candidates["choice"].str.endswith("cheapest equivalent")].iloc[0], None


def _confirmed(confirmation: pd.DataFrame | None, candidates: pd.DataFrame) -> pd.Series | None:
    """Return the row of the recommended finalist; None if every one diverged or the confirmation is not complete."""
    if confirmation is None or confirmation["choice"].eq("incomplete").any():
        return None
    rows = confirmation[confirmation["choice"].eq(CHOSEN) & confirmation["setting"].isin(candidates["setting"])]
    return None if rows.empty else rows.iloc[0]


def _headline(
    candidates: pd.DataFrame,
    best: pd.Series,
    chosen: pd.Series,
    confirmed: pd.Series | None,
    confirmation: pd.DataFrame | None,
    runs: pd.DataFrame,
    measures: Measures,
) -> str:
    """Return the recommended setting, the loss that it reaches, and how many settings may be as good."""
    n_seeds = best["n_seeds"] if confirmed is None else confirmed["n_seeds"]
    few = FEW.get(n_seeds, "")
    if confirmed is not None:
        few = few.replace(" ", " fresh ")
    count = len(_indistinguishable(candidates, chosen, confirmed, confirmation, runs))
    # What most other settings may equal is where to start, not what to prefer.
    verb = "Start with" if 2 * count > len(candidates) - 1 else "Train with"
    sentence = f"{f'Best setting seen, with {few}:' if few else verb} {describe_setting(chosen)}"
    if confirmed is not None:
        sentence += f": {_confirmed_loss(confirmed, runs, measures)}"
    if count:
        sentence += f"; {_count_settings(count)} not distinguishable from it"
    return f"{sentence}."


def _count_settings(count: int) -> str:
    return f"{count} other setting{' is' if count == 1 else 's are'}"


def _confirmed_loss(confirmed: pd.Series, runs: pd.DataFrame, measures: Measures) -> str:
    """Return the loss of a finalist with the seeds of the confirmation, whose number is named unless they are few."""
    side, name = ("test", "test_loss") if "test_loss_mean" in confirmed else ("validation", LOSS)
    ends = confirmed[f"{name}_ci95_low"], confirmed[f"{name}_ci95_high"]
    lowest = -np.inf if has_negative_loss(runs) else 0.0
    interval = f" (95 % interval {format_interval(*ends, lowest)})" if np.isfinite(ends).all() else ""
    seeds = "" if confirmed["n_seeds"] in FEW else f" with {confirmed['n_seeds']} fresh seeds"
    return f"{side} loss {measures.loss_phrase(format_number(confirmed[f'{name}_mean']))}{interval}{seeds}"


def _indistinguishable(
    candidates: pd.DataFrame,
    chosen: pd.Series,
    confirmed: pd.Series | None,
    confirmation: pd.DataFrame | None,
    runs: pd.DataFrame,
) -> list[str]:
    """Return the settings that the seeds do not show to be worse than the chosen one.

    Of the finalists by the seeds of the confirmation, of all others by those of the grid: the 95 % interval of the
    difference of the best validation loss, paired by seed, does not lie above 0, or does not exist. A finalist that
    these seeds show to be better is not among them.
    """
    losses = runs[runs["status"] != "diverged"].pivot(index="seed", columns="setting", values=LOSS)
    differences = losses.sub(losses[chosen["setting"]], axis=0)
    differs = {name: t_test(values.dropna().to_numpy()).ci95_low > 0 for name, values in differences.items()}
    if confirmed is not None and confirmation is not None:
        known = confirmation["choice"].isin(["worse", "better", "diverged"])
        differs |= dict(zip(confirmation["setting"], known, strict=True))
    return [name for name in candidates["setting"] if name != chosen["setting"] and not differs[name]]


def describe_setting(row: pd.Series) -> str:
    """Return the batch size, the learning rate and what else is particular to the setting of a row, in words."""
    details = setting_details(row["setting"])
    text = f"batch size {row['batch_size']} at learning rate {format_number(row['learning_rate'])}"
    found = [row["tuned"]] if row.get("tuned") else []
    return ", ".join([f"{text} (tuned)" if details.is_tuned else text, *found, *details.phrases])


def find_tuned_hyperparameters(recommendation: pd.DataFrame, tuned_lr: pd.DataFrame | None) -> list[str]:
    """Return what the search found for each setting besides the learning rate, in words; empty if it is not tuned."""
    if tuned_lr is None:
        return [""] * len(recommendation)
    found = {
        row["batch_size"]: ", ".join(describe_hyperparameter(name, row[f"tuned_{name}"]) for name in _names(tuned_lr))
        for row in tuned_lr.to_dict("records")
    }
    return [
        found.get(size, "") if setting_details(setting).is_tuned else ""
        for size, setting in zip(recommendation["batch_size"], recommendation["setting"], strict=True)
    ]


def _names(tuned_lr: pd.DataFrame) -> list[str]:
    """Return the hyperparameters that were searched besides the learning rate."""
    return names_of({column.removeprefix("tuned_"): None for column in tuned_lr.columns})


def _reasons(
    candidates: pd.DataFrame,
    best: pd.Series,
    chosen: pd.Series,
    is_choice: bool,
    measures: Measures,
    cost: str,
    unit: str,
) -> Iterator[str]:
    """Describe the results of the grid; `is_choice` is whether they have chosen the setting."""

    def loss(row: pd.Series) -> str:
        return measures.loss_phrase(format_mean_sd(row[f"{LOSS}_mean"], row[f"{LOSS}_sd"]))

    def with_metric(row: pd.Series) -> str:
        return ", ".join([loss(row), *_metric_phrases(row, "validation_{}_at_best", measures)])

    def time(row: pd.Series) -> str:
        return f"{format_mean_sd(row[f'{cost}_mean'], row[f'{cost}_sd'])} {unit}"

    of_settings = f" of {len(candidates)} settings" if len(candidates) > 1 else ""
    seeds = "one seed" if best["n_seeds"] == 1 else f"{best['n_seeds']} seeds, mean ± standard deviation"
    yield (
        f"The best validation loss{of_settings} is that of {describe_setting(best)}: "
        f"{with_metric(best)} ({seeds}). Its best epoch, {format_number(best['best_epoch_mean'])}"
        f"{' on average' if best['n_seeds'] > 1 else ''}, was reached after {time(best)} of training."
    )
    equivalent = int(candidates["choice"].isin(["equivalent", "cheapest equivalent"]).sum())
    others = f"{_count_settings(equivalent)} equivalent within the precision of"
    if not is_choice:
        if equivalent:
            yield f"{others} these seeds."
    elif chosen["setting"] != best["setting"]:
        yield (
            f"{others} these seeds. The cheapest of them is {describe_setting(chosen)}: {time(chosen)} to its best "
            f"epoch, at a loss of {loss(chosen)} (higher by {format_number(chosen['difference_to_best'])}, paired by "
            f"seed; 95 % interval {format_interval(chosen['ci95_low'], chosen['ci95_high'])})."
        )
    elif equivalent:
        yield f"{others} these seeds; none of them is cheaper."
    elif best["n_seeds"] >= MIN_SEEDS_FOR_EQUIVALENT:
        yield "No other setting is equivalent within the precision of these seeds."
    counts = candidates["choice"].value_counts()
    if best["n_seeds"] > 1:
        yield (
            f"Among the other settings: {counts.get('worse', 0)} worse (the 95 % interval of the difference is above "
            f"0), {counts.get('unclear', 0)} unclear (higher on average, but possibly by chance)."
        )


def _confirmation(
    confirmation: pd.DataFrame | None, confirmed: pd.Series | None, measures: Measures, cost: str, unit: str
) -> Iterator[str]:
    """Describe the runs of the finalists with fresh seeds."""
    if confirmation is None:
        return
    finalists = "The setting" if len(confirmation) == 1 else f"The {len(confirmation)} settings"
    verb = "was" if len(confirmation) == 1 else "were"
    lead = f"{finalists} with the lowest validation loss {verb} trained again with seeds that took no part in this"
    diverged = confirmation.loc[confirmation["choice"] == "diverged", "setting"]
    if confirmation["choice"].eq("incomplete").any():
        yield f"{lead}; not all of these runs are complete, so the recommendation is the choice of the grid alone."
        return
    if confirmed is None:
        yield f"{lead}; a run of each diverged, so the recommendation is the choice of the grid alone."
        return

    def loss(row: pd.Series) -> str:
        return measures.loss_phrase(format_mean_sd(row[f"{LOSS}_mean"], row[f"{LOSS}_sd"]))

    def time(row: pd.Series) -> str:
        return f"{format_mean_sd(row[f'{cost}_mean'], row[f'{cost}_sd'])} {unit}"

    others = confirmation[confirmation["choice"].isin(["not distinguishable", "worse", "better"])]
    lower = others[others[f"{LOSS}_mean"] < confirmed[f"{LOSS}_mean"]]
    if others.empty:
        role = "the only one left" if len(diverged) else "confirmed"
        why = f"{describe_setting(confirmed)} is {role}, with the validation loss {loss(confirmed)}"
    elif lower.empty:
        why = f"{describe_setting(confirmed)} has the lowest validation loss of them, {loss(confirmed)}"
    else:
        first = lower.loc[lower[f"{LOSS}_mean"].idxmin()]
        why = (
            f"{describe_setting(confirmed)}, with the validation loss {loss(confirmed)}, is the cheapest that is "
            f"equivalent to the lowest loss, {loss(first)} of {describe_setting(first)}: it takes {time(confirmed)} to "
            f"its best epoch, against {time(first)}"
        )
    yield f"{lead}: {why}."
    if "test_loss_mean" in confirmed:
        tested = measures.loss_phrase(format_mean_sd(confirmed["test_loss_mean"], confirmed["test_loss_sd"]))
        yield (
            f"With these seeds, on the test {measures.examples}, which had no part in any choice, its loss is "
            f"{', '.join([tested, *_metric_phrases(confirmed, 'test_{}', measures)])}."
        )
    for _, row in others.iterrows():
        interval = format_interval(row["ci95_low"], row["ci95_high"])
        known = f"95 % interval {interval}, paired by seed" if np.isfinite(row["ci95_low"]) else "one seed, no interval"
        yield (
            f"{capitalize(describe_setting(row))} is {row['choice']}: a difference of the validation loss of "
            f"{format_number(row['difference_to_chosen'])} ({known})."
        )
    if len(diverged):
        yield f"Of the finalists, a run diverged of {join_truncated(list(diverged), 6)}."


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


def _scaling(scaling: pd.DataFrame | None, trial_budget: str) -> Iterator[str]:
    """Describe by which power each hyperparameter follows the batch size.

    Within a short training a large batch takes few steps, for which it needs a higher rate than in a long one.
    """
    if scaling is None:
        return
    for _, row in scaling.iterrows():
        name = SCALED_NAMES.get(row["hyperparameter"], row["hyperparameter"].replace("_", " "))
        is_short = bool(trial_budget) and row["source"] == "search"
        trials = f" within trials of {trial_budget}, which are shorter than runs," if is_short else ""
        subject = f"the best {name} of the {row['source']}{trials}"
        if pd.isna(row["exponent"]):
            yield f"How {subject} follows the batch size is not determined: {row['reason']}."
            continue
        n_seeds = row["n_seeds"]
        interval = (
            "one seed, no interval"
            if n_seeds == 1
            else f"{n_seeds} seeds that do not differ, no interval"
            if pd.isna(row["ci95_low"])
            else f"95 % interval {format_interval(row['ci95_low'], row['ci95_high'])}, {n_seeds} seeds"
        )
        sizes = f"batch sizes {row['smallest_batch_size']:.0f} to {row['largest_batch_size']:.0f}"
        if row["n_on_edge"]:
            sizes += f" without {row['n_on_edge']:.0f} whose best value is on an edge"
        falls = " It rises and falls again as the batch size grows." if row["rises_and_falls"] == "yes" else ""
        power = format_number(round(row["exponent"], 2))
        yield (
            f"{capitalize(subject)} is proportional to the batch size to the power of {power} "
            f"({interval}, {sizes}): "
            f"{SCALING_VERDICTS[row['verdict']]}.{falls}"
        )


def _tuned_rates(
    tuned_lr: pd.DataFrame | None, recommendation: pd.DataFrame, runs: pd.DataFrame, measures: Measures
) -> Iterator[str]:
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
    if {"spent_search", "spent_extension"} <= set(tuned_lr):
        grid_only = sizes[(tuned_lr["spent_search"] == 0) & (tuned_lr["spent_extension"] == 0)].astype(str)
        if len(grid_only):
            yield (
                f"For batch size {', '.join(grid_only)} tuning.budget paid no trial after the grid of the search. With "
                "a tuning.margin above 1, settings above which nothing was tried are then no finalists, even if their "
                "loss is lower; increase the budget."
            )
    for name in _names(tuned_lr):
        values = [describe_hyperparameter(name, value) for value in tuned_lr[f"tuned_{name}"]]
        yield f"With them: {join_truncated(values, 8)}."
    for size in sizes:
        if warning := _compare_with_grid(recommendation[recommendation["batch_size"] == size], runs, measures):
            yield warning


def _compare_with_grid(rows: pd.DataFrame, runs: pd.DataFrame, measures: Measures) -> str:
    """Return why a batch size trains worse at its tuned rate than at the best constant one; empty if it does not.

    Worse means that a run diverged, or that the 95 % interval of the difference, paired by seed, is above 0.

    Args:
        rows: The rows of the batch size in the table `recommendation`.
        runs: The table `runs`.
        measures: What the loss is called, and its unit.
    """
    tuned_rows = rows[rows["setting"].str.contains("-lrtuned")]
    constant_rows = constant_lr_settings(rows)
    constant_rows = constant_rows[~constant_rows["choice"].isin(EXCLUDED)]
    if tuned_rows.empty or constant_rows.empty:
        return ""
    tuned, constant = tuned_rows.iloc[0], constant_rows.loc[constant_rows[f"{LOSS}_mean"].idxmin()]
    tuned_loss, constant_loss = (format_mean_sd(row[f"{LOSS}_mean"], row[f"{LOSS}_sd"]) for row in (tuned, constant))
    constant_loss = measures.loss_phrase(constant_loss)
    if tuned["n_diverged"]:
        count = tuned["n_diverged"] + tuned["n_seeds"]
        reason = f"{tuned['n_diverged']} of {count} runs diverged, against {constant_loss}"
    else:
        losses = runs.pivot_table(index="seed", columns="setting", values=LOSS)
        difference = t_test((losses[tuned["setting"]] - losses[constant["setting"]]).dropna().to_numpy())
        if not difference.ci95_low > 0:
            return ""
        interval = format_interval(difference.ci95_low, difference.ci95_high)
        reason = (
            f"{tuned_loss} against {constant_loss}, a difference of {format_number(difference.mean)} "
            f"(95 % interval {interval}, paired by seed)"
        )
    return (
        f"However, batch size {tuned['batch_size']} trains worse at its tuned rate, "
        f"{format_number(tuned['learning_rate'])}, than at {format_number(constant['learning_rate'])}, its best "
        f"constant rate: {reason}. Do not use the tuned rate."
    )


def _caveats(
    recommendation: pd.DataFrame,
    best: pd.Series,
    chosen: pd.Series,
    confirmed: pd.Series | None,
    runs: pd.DataFrame,
    measures: Measures,
    missing_batch_sizes: Sequence[int],
) -> Iterator[str]:
    named = pd.DataFrame([best, chosen]).drop_duplicates("setting")
    if best["n_seeds"] == 1:
        yield f"With one seed, the variation over seeds is unknown and no difference here is certain. {_extend(2)}"
    elif best["n_seeds"] < MIN_SEEDS_FOR_EQUIVALENT:
        yield (
            "With two seeds, the variation over seeds is hardly known, so no setting counts as equivalent to the best "
            f"one. {_extend(1)}"
        )
    elif best["n_seeds"] < FEW_SEEDS:
        yield (
            f"{best['n_seeds']} seeds are few: with other seeds, settings of similar loss may change places. "
            f"{_extend(FEW_SEEDS - best['n_seeds'])}"
        )
    for _, row in named[named["best_evaluation_mean"] <= 1].iterrows():
        yield (
            f"In every seed, {describe_setting(row)} is best at the first evaluation, so further training did not "
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
            f"{stopped} of {total} runs ({named_stopped} of them of the settings named above) were ended by "
            "training.budget, not by training.patience: trained for longer, they might reach lower losses."
        )
    reasons = {"diverged": "a run diverged", "incomplete": "runs of some seeds are missing"}
    for choice, reason in reasons.items():
        settings = recommendation.loc[recommendation["choice"] == choice, "setting"]
        if len(settings):
            yield (
                f"In {len(settings)} of {len(recommendation)} settings {reason}, so they are no candidates: "
                f"{join_truncated(list(settings), 6)}."
            )
    yield _reported_loss("test_loss_mean" in chosen, confirmed, measures)


def _reported_loss(has_test: bool, confirmed: pd.Series | None, measures: Measures) -> str:
    """Describe what the reported loss has to do with the choice."""
    if confirmed is None:
        if has_test:
            return (
                "The validation loss was also used for selection, so it is optimistic. The loss on the test "
                f"{measures.examples} was not, but it is that of the runs that were selected; with the section "
                "confirmation it would be that of other seeds."
            )
        return (
            "The loss that chose the setting is the loss that is reported, on the same validation "
            f"{measures.examples} and of the same runs, so it is optimistic: expect a slightly higher loss on new "
            f"{measures.examples}."
        )
    interval = "" if confirmed["n_seeds"] == 1 else f" Its interval is over seeds, not over {measures.examples}."
    if has_test:
        return (
            f"The fresh seeds had no part in the choice of the finalists, and the test {measures.examples} none in any "
            f"choice.{interval}"
        )
    return (
        f"There are no test {measures.examples}: the fresh seeds had no part in the choice of the finalists, but the "
        f"validation {measures.examples} had in every choice, so expect a slightly higher loss on new "
        f"{measures.examples}.{interval}"
    )


def _extend(count: int) -> str:
    return f"To add {'one' if count == 1 else count}: batchscape extend FILE --seeds {count}."
