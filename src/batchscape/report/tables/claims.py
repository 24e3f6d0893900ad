"""Table `claims`: ratio, confidence interval, p-value and verdict of each claim."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from batchscape.config.base import shortest_decimal
from batchscape.report.claims.ratios import Evidence, LogRatios, NotTested
from batchscape.report.claims.statements import CLAIMS, Claim
from batchscape.report.claims.t_test import TTest, t_test
from batchscape.report.claims.verdict import Verdict, seeds_needed, verdict
from batchscape.report.measures import Measures, add_unit

COLUMNS = [
    *("claim", "statement", "source", "comparison", "measure", "scale", "claimed"),
    *("effect", "ci95_low", "ci95_high", "p_value", "p_value_holm", "n_seeds", "n_missing"),
    *("verdict", "seeds_needed", "reading"),
]


def tabulate(
    runs: pd.DataFrame,
    arm_runs: pd.DataFrame,
    history: pd.DataFrame,
    epoch_distance: pd.DataFrame,
    *,
    small_batch_size: int,
    large_batch_size: int,
    measures: Mapping[str, Any],
    recipe: str = "",
) -> pd.DataFrame:
    """Return one row for each claim, in the order of `CLAIMS`.

    An effect is a ratio: the geometric mean over seeds, with the 95 % t interval of its logarithm. `p_value_holm` is
    adjusted over all claims that have a p-value (Holm 1979). The verdict on a claim that this study cannot test
    is `not tested`, its numbers are nan, and `reading` says why. `recipe` is how the study trains, if not with SGD at a
    constant learning rate; then there is a column with that name.
    """
    evidence = Evidence(runs, arm_runs, history, epoch_distance, small_batch_size, large_batch_size)
    loss_unit = Measures.from_settings(measures).loss_unit
    table = pd.DataFrame([_row(claim, evidence, loss_unit) for claim in CLAIMS])
    table = table.assign(p_value_holm=_adjust_holm(table["p_value"]))[COLUMNS]
    note = f"made for SGD at a constant learning rate; this study uses {recipe}"
    return table.assign(recipe=note) if recipe else table


def _adjust_holm(p_values: pd.Series) -> pd.Series:
    """Return p-values adjusted by Holm's method over those that are not nan."""
    tested = p_values.dropna()
    if tested.empty:
        return p_values
    adjusted = multipletests(tested.to_numpy(), method="holm")[1]
    return pd.Series(adjusted, index=tested.index).reindex(p_values.index)


def _row(claim: Claim, evidence: Evidence, loss_unit: str) -> dict[str, object]:
    try:
        ratios, reason = claim.log_ratios(evidence), ""
    except NotTested as error:
        ratios, reason = LogRatios("none", pd.Series(dtype=float), ()), str(error)
    # Rounded, so that rounding errors of the logarithms cannot break a tie.
    logs = ratios.by_seed.dropna().sort_index().to_numpy().round(12)
    test = t_test(logs)
    decision: Verdict = verdict(test.ci95_low, test.ci95_high, claim.claimed) if len(logs) else "not tested"
    needed = seeds_needed(logs) if decision == "undecided" else None
    missing = 0 if reason else evidence.runs["seed"].nunique() - len(logs)
    if reason:
        reading = f"Not tested: {reason}."
    else:
        parts = [_describe_finding(claim, test, len(logs), decision, needed)]
        if len(logs) and missing:
            parts.append(f"{missing} of the {len(logs) + missing} seeds do not have all values")
        reading = "; ".join([*parts, *_caveats(ratios, evidence.runs)]) + "."
    return {
        "claim": claim.name,
        "statement": claim.statement,
        "source": claim.source,
        "comparison": ratios.comparison,
        "measure": claim.measure.format(loss_unit=add_unit("", loss_unit)),
        "scale": "ratio",
        "claimed": claim.claimed,
        "effect": np.exp(test.mean),
        "ci95_low": np.exp(test.ci95_low),
        "ci95_high": np.exp(test.ci95_high),
        "p_value": test.p_value,
        "n_seeds": len(logs),
        "n_missing": missing,
        "verdict": decision,
        "seeds_needed": needed,
        "reading": reading,
    }


def _describe_finding(claim: Claim, test: TTest, n_seeds: int, decision: Verdict, needed: str | None) -> str:
    if decision == "not tested":
        return "Not tested: no seed has all values that are compared"
    effect, low, high = (_three_digits(np.exp(log)) for log in (test.mean, test.ci95_low, test.ci95_high))
    finding = claim.finding.format(effect)
    if n_seeds == 1:
        return f"{finding} in the only seed, so there is no interval"
    conclusion = {
        "supported": "as claimed",
        "refuted": "against the claim",
        "undecided": f"undecided, {needed} seeds would be needed",
    }[decision]
    return f"{finding} (95 % interval {low} to {high}, {n_seeds} seeds): {conclusion}"


def _caveats(ratios: LogRatios, runs: pd.DataFrame) -> list[str]:
    """Return what weakens a finding: its note, and how many of the compared runs did not converge."""
    statuses = runs.loc[runs["setting"].isin(ratios.settings), "status"]
    caveats = [ratios.note] if ratios.note else []
    for status, words in (("diverged", "diverged"), ("budget_spent", "were still improving when their budget ended")):
        count = (statuses == status).sum()
        if count:
            caveats.append(f"{count} of the {len(statuses)} runs {words}")
    return caveats


def _three_digits(value: float) -> str:
    return shortest_decimal(float(f"{value:.3g}")) if np.isfinite(value) else "nan"
