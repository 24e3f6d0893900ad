"""What studies that differ in the optimizer only say about claims on the critical batch size."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from batchscape.config.scaling import known_hyperparameters
from batchscape.report.comparison.results import describe_edges, describe_target
from batchscape.report.comparison.studies import StudyTables
from batchscape.report.resampling import Estimate, estimate_over_seeds
from batchscape.report.tables import critical_batch
from batchscape.report.targets import mean_batch_sizes, runs_at_best_settings, split_by_target

ADAM = ("Adam", "AdamW", "NAdam", "RAdam", "Adamax")
COLUMNS = [
    *("claim", "source", "baseline", "other", "differs_in", "target", "ratio", "ci95_low", "ci95_high"),
    *("n_seeds", "verdict", "note"),
]
CLAIMS = ("Momentum raises the critical batch size", "Adam raises the critical batch size")
SOURCE = "Zhang et al. 2019, Which Algorithmic Choices Matter at Which Batch Sizes?"


def tabulate(studies: Sequence[StudyTables]) -> pd.DataFrame:
    """Return what pairs of studies that differ in the optimizer only say about their critical batch sizes.

    Zhang et al. 2019 claim that momentum raises the critical batch size of SGD, and that Adam raises it beyond that of
    SGD with momentum. A claim is `supported` if the 95 % interval of the ratio lies above 1, `refuted` if it lies below
    it, else `undecided`.

    Args:
        studies: The studies.

    Returns:
        The columns `COLUMNS`, one row for each pair and target that both studies have.
    """
    rows = [
        row
        for pair in combinations(studies, 2)
        for row in _claims_of(*sorted(pair, key=lambda study: _optimizer_rank(study) or 0))
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _optimizer_rank(study: StudyTables) -> int | None:
    """Return 0 for plain SGD, 1 for SGD with momentum, 2 for Adam and its like, and None for any other optimizer."""
    name = study.settings["optimizer.name"]
    if name == "SGD":
        arguments = {"momentum": study.settings.get("optimizer.arguments.momentum")}
        return int(known_hyperparameters(name, arguments)["momentum"] > 0)
    return 2 if name in ADAM else None


def _claims_of(baseline: StudyTables, other: StudyTables) -> Iterator[dict[str, object]]:
    ranks = _optimizer_rank(baseline), _optimizer_rank(other)
    settings = [
        {key: value for key, value in study.trained.items() if key.partition(".")[0] not in ("data", "optimizer")}
        for study in (baseline, other)
    ]
    if None in ranks or ranks[0] == ranks[1] or settings[0] != settings[1]:
        return
    keys = sorted(key for key in {*baseline.trained, *other.trained} if key.startswith("optimizer."))
    row: dict[str, object] = {
        "claim": CLAIMS[ranks[1] == 2],
        "source": SOURCE,
        "baseline": baseline.name,
        "other": other.name,
        "differs_in": ", ".join(key for key in keys if baseline.trained.get(key) != other.trained.get(key)),
    }
    undecided = {"target": "none", "ratio": np.nan, "ci95_low": np.nan, "ci95_high": np.nan, "n_seeds": 0}
    undecided["verdict"] = "undecided"
    if baseline.data_sha256 != other.data_sha256:
        if not _differ_in_data(baseline, other):
            yield row | undecided | {"note": "the data of the two studies differ although their settings do not"}
        return
    needed = ("runs_to_target", "steps_to_target", "critical_batch")
    missing = [f"{study.name}: {name}" for study in (baseline, other) for name in needed if name not in study.tables]
    if missing:
        yield row | undecided | {"note": f"tables are missing ({', '.join(missing)})"}
        return
    targets = [_by_target(study) for study in (baseline, other)]
    shared = [target for target in targets[0] if target in targets[1]]
    for target in shared:
        yield row | _compare_at_target(targets[0][target], targets[1][target])
    if not shared:
        names = (
            f"{study.name}: {', '.join(part.target for part in found.values())}"
            for study, found in zip((baseline, other), targets, strict=True)
        )
        note = f"the studies have no target in common ({'; '.join(names)}); give both the same comparison.targets"
        yield row | undecided | {"note": note}


def _differ_in_data(first: StudyTables, second: StudyTables) -> bool:
    return any(
        first.trained.get(key) != second.trained.get(key)
        for key in {*first.trained, *second.trained}
        if key.startswith("data.")
    )


class StepsOfStudy(NamedTuple):
    """Steps to a target at the best settings: those of each seed, with a column for each batch size."""

    target: str
    steps: pd.DataFrame
    batch_sizes: np.ndarray
    n_on_edge: int
    verdict: str
    reason: str


def _by_target(study: StudyTables) -> dict[tuple[str, float], StepsOfStudy]:
    """Return the steps of a study by the name and the value of its targets."""
    tables = (study.tables[name] for name in ("runs_to_target", "steps_to_target", "critical_batch"))
    found = {}
    for runs, settings, fitted in zip(*map(split_by_target, tables), strict=True):
        best = runs_at_best_settings(runs, settings)
        steps = best.pivot(index="seed", columns="batch_size", values="steps").astype(float)
        sizes = mean_batch_sizes(best).to_numpy()
        row = fitted.iloc[0]
        key = (str(row["target"]), float(row["target_value"]))
        found[key] = StepsOfStudy(
            describe_target(study, row), steps, sizes, int(row["n_on_edge"]), row["verdict"], row["reason"]
        )
    return found


def _compare_at_target(baseline: StepsOfStudy, other: StepsOfStudy) -> dict[str, object]:
    """Return the ratio of two critical batch sizes, with its interval over the seeds that both studies have."""
    seeds = baseline.steps.index.intersection(other.steps.index)
    ratio = compare_critical_batches(
        baseline.batch_sizes,
        baseline.steps.loc[seeds].to_numpy(),
        other.batch_sizes,
        other.steps.loc[seeds].to_numpy(),
    )
    above, below = ratio.ci95_low > 1, ratio.ci95_high < 1
    notes = [f"not identified: {part.reason}" for part in (baseline, other) if part.reason != "none"]
    if "outside" in (baseline.verdict, other.verdict):
        notes.append("a critical batch size is outside of the tried batch sizes, so extrapolated")
    if len(seeds) < 2:
        notes.append("fewer than two seeds in common give no interval")
    elif np.isfinite(ratio.value) and np.isnan(ratio.ci95_low):
        notes.append("leaving out any seed changes nothing, so there is no interval")
    if edges := baseline.n_on_edge + other.n_on_edge:
        notes.append(f"{describe_edges(edges)}, so it is valid for these rates only")
    return {
        "target": baseline.target,
        "ratio": ratio.value,
        "ci95_low": ratio.ci95_low,
        "ci95_high": ratio.ci95_high,
        "n_seeds": len(seeds),
        "verdict": "supported" if above else "refuted" if below else "undecided",
        "note": "; ".join(notes) or "none",
    }


def compare_critical_batches(
    batch_sizes: np.ndarray, steps: np.ndarray, other_batch_sizes: np.ndarray, other_steps: np.ndarray
) -> Estimate:
    """Return the ratio of the critical batch size of another study to that of one, with its interval.

    Both are fitted to the same seeds (`critical_batch.fit`), and the interval comes from leaving out one seed of both
    at a time (`estimate_over_seeds`): what the runs of a seed share does not widen it.

    Args:
        batch_sizes: Mean batch sizes of the one study, shape (n,).
        steps: Its steps to the target, shape (seeds, n); nan where a run did not reach it.
        other_batch_sizes: Those of the other study, shape (m,).
        other_steps: Its steps of the same seeds, shape (seeds, m).
    """

    def fit(sizes: np.ndarray, values: np.ndarray) -> float:
        reached = ~np.isnan(values)
        return float(critical_batch.fit(np.broadcast_to(sizes, values.shape)[reached], values[reached])[0][0])

    def log_ratio(values: np.ndarray) -> np.ndarray:
        one, other = values[:, : len(batch_sizes)], values[:, len(batch_sizes) :]
        return np.array([fit(other_batch_sizes, other) - fit(batch_sizes, one)])

    return estimate_over_seeds(log_ratio, np.concatenate([steps, other_steps], axis=1))[0].without_ties().exp()
