"""Table `claims`: ratio, confidence interval, p-value and verdict of each claim."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from batchscape.config.base import shortest_decimal
from batchscape.report.claims.ratios import Evidence, LogRatios, NotTested
from batchscape.report.claims.statements import CLAIMS, Claim
from batchscape.report.claims.t_test import CONFIDENCE, TTest, equivalence_p_value, t_test
from batchscape.report.claims.verdict import DECIDED, Verdict, seeds_needed, verdict
from batchscape.report.measures import Measures, add_unit

LEVEL = 1 - CONFIDENCE
COLUMNS = [
    *("claim", "statement", "source", "comparison", "protocol", "measure", "scale", "claimed", "margin"),
    *("effect", "ci95_low", "ci95_high", "p_value", "p_value_holm", "p_value_equivalence", "p_value_equivalence_holm"),
    *("n_seeds", "n_missing", "verdict", "holds_after_holm", "seeds_needed", "reading"),
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
    margin: float = 0.05,
    protocol: str = "to convergence",
    recipe: str = "",
) -> pd.DataFrame:
    """Return one row for each claim, in the order of `CLAIMS`.

    An effect is a ratio: the geometric mean over seeds, with the 95 % t interval of its logarithm. `p_value` is that of
    a ratio of 1, `p_value_equivalence` that of a ratio beyond `margin`, by which ratios from 1/(1 + margin) to
    1 + margin do not matter. `p_value_holm` and `p_value_equivalence_holm` are adjusted over all claims that have them
    (Holm 1979), each kind by itself. `holds_after_holm` is 1 if the adjusted p-value of the test that gave the verdict
    is below 0.05, nan if the claim is not decided. The verdict on a claim that this study cannot test is `not tested`,
    its numbers are nan, and `reading` says why. `protocol` is how the batch sizes are compared: at which learning
    rates, and up to where. `recipe` is how the study trains, if not with SGD at a constant learning rate; then there is
    a column with that name.
    """
    evidence = Evidence(runs, arm_runs, history, epoch_distance, small_batch_size, large_batch_size, protocol)
    results = [_test(claim, evidence, margin) for claim in CLAIMS]
    table = pd.DataFrame([_row(result, evidence, measures, margin) for result in results])
    for kind in ("p_value", "p_value_equivalence"):
        table[f"{kind}_holm"] = _adjust_holm(table[kind])
    table["holds_after_holm"] = [_holds_after_holm(row) for _, row in table.iterrows()]
    pairs = zip(results, table["holds_after_holm"], strict=True)
    table = table.assign(reading=[_read(result, evidence, holds, margin) for result, holds in pairs])[COLUMNS]
    note = f"made for SGD at a constant learning rate; this study uses {recipe}"
    return table.assign(recipe=note) if recipe else table


@dataclass(frozen=True)
class Result:
    """What the tests of a claim give; `reason` says why there are none."""

    claim: Claim
    ratios: LogRatios
    reason: str
    logs: np.ndarray
    test: TTest
    equivalence: float
    decision: Verdict
    needed: str | None


def _test(claim: Claim, evidence: Evidence, margin: float) -> Result:
    try:
        ratios, reason = claim.log_ratios(evidence), ""
    except NotTested as error:
        ratios, reason = LogRatios("none", pd.Series(dtype=float), ()), str(error)
    # Rounded, so that rounding errors of the logarithms cannot break a tie.
    logs = ratios.by_seed.dropna().sort_index().to_numpy().round(12)
    test, log_margin = t_test(logs), float(np.log1p(margin))
    equivalence = equivalence_p_value(logs, log_margin)
    decision: Verdict = "not tested"
    if len(logs):
        decision = verdict(test.ci95_low, test.ci95_high, equivalence, claim.claimed, log_margin)
    needed = seeds_needed(logs, claim.claimed, log_margin) if decision == "undecided" else None
    return Result(claim, ratios, reason, logs, test, equivalence, decision, needed)


def _adjust_holm(p_values: pd.Series) -> pd.Series:
    """Return p-values adjusted by Holm's method over those that are not nan."""
    tested = p_values.dropna()
    if tested.empty:
        return p_values
    adjusted = multipletests(tested.to_numpy(), method="holm")[1]
    return pd.Series(adjusted, index=tested.index).reindex(p_values.index)


def _holds_after_holm(row: pd.Series) -> float:
    """Return whether the adjusted p-value of the test that gave the verdict is below 0.05; nan without a decision."""
    if row["verdict"] not in DECIDED:
        return np.nan
    # Without equivalence, the interval has decided, which has the p-value of the test of the effect.
    names = ["p_value_equivalence"] if row["p_value_equivalence"] < LEVEL else ["p_value"]
    if row["claimed"] == "not greater":  # supported by either
        names = [name for name in ("p_value_equivalence", "p_value") if row[name] < LEVEL]
    return float(any(row[f"{name}_holm"] < LEVEL for name in names))


def _row(result: Result, evidence: Evidence, measures: Mapping[str, Any], margin: float) -> dict[str, object]:
    claim, test = result.claim, result.test
    loss_unit = Measures.from_settings(measures).loss_unit
    return {
        "claim": claim.name,
        "statement": claim.statement,
        "source": claim.source,
        "comparison": result.ratios.comparison,
        "protocol": f"{claim.rates}, {evidence.length}",
        "measure": claim.measure.format(
            loss_unit=add_unit("", loss_unit),
            time_unit="CPU seconds" if evidence.epoch_time == "epoch_cpu_seconds" else "seconds",
            final_loss="test loss of the best weights"
            if evidence.final_loss == "test_loss"
            else "best validation loss",
        ),
        "scale": "ratio",
        "claimed": claim.claimed,
        "margin": margin,
        "effect": np.exp(test.mean),
        "ci95_low": np.exp(test.ci95_low),
        "ci95_high": np.exp(test.ci95_high),
        "p_value": test.p_value,
        "p_value_equivalence": result.equivalence,
        "n_seeds": len(result.logs),
        "n_missing": _count_missing(result, evidence),
        "verdict": result.decision,
        "seeds_needed": result.needed,
    }


def _count_missing(result: Result, evidence: Evidence) -> int:
    return 0 if result.reason else evidence.runs["seed"].nunique() - len(result.logs)


def _read(result: Result, evidence: Evidence, holds_after_holm: float, margin: float) -> str:
    """Return the result in words."""
    if result.reason:
        return f"Not tested: {result.reason}."
    parts = [_describe_finding(result, holds_after_holm, margin)]
    missing = _count_missing(result, evidence)
    if len(result.logs) and missing:
        parts.append(f"{missing} of the {len(result.logs) + missing} seeds do not have all values")
    return "; ".join([*parts, *_caveats(result.ratios, evidence.runs)]) + "."


def _describe_finding(result: Result, holds_after_holm: float, margin: float) -> str:
    claim, n_seeds, decision = result.claim, len(result.logs), result.decision
    if decision == "not tested":
        return "Not tested: no seed has all values that are compared"
    effect, low, high = (_three_digits(np.exp(log)) for log in result.test[:3])
    finding = claim.finding.format(effect)
    if n_seeds == 1:
        return f"{finding} in the only seed, so there is no interval"
    percent = f"{100 * margin:g} %"
    of_equality = claim.claimed in ("equal", "not greater")
    if decision == "undecided":
        more = f" ({int(result.needed) - n_seeds} more)" if result.needed and result.needed.isdigit() else ""
        conclusion = f"undecided, {result.needed} seeds would be needed{more}"
    else:
        conclusion = {
            "supported": "as claimed",
            "refuted": "against the claim",
            "no relevant difference": f"no relevant difference, which is one of at most {percent}",
        }[decision]
        conclusion += f", where equal means within {percent}" if of_equality else ""
        conclusion += f", {'also' if holds_after_holm else 'but not'} after Holm's adjustment"
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
