"""Table `claims`: effect, confidence interval, p-value and verdict of each claim."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from batchscape.config.base import shortest_decimal
from batchscape.report.claims.evidence import Effects, Evidence, NotTested
from batchscape.report.claims.statements import CLAIMS, Claim
from batchscape.report.claims.t_test import CONFIDENCE, TTest, beyond_p_value, equivalence_p_value, t_test
from batchscape.report.claims.verdict import DECIDED, Verdict, seeds_needed, verdict
from batchscape.report.measures import Measures, add_unit

LEVEL = 1 - CONFIDENCE
# An interval of ratios that is wider in both directions is given as such: its ends would only be noise.
MAX_FACTOR = 100
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
    curvature: pd.DataFrame | None = None,
    branching: pd.DataFrame | None = None,
    *,
    small_batch_size: int,
    large_batch_size: int,
    measures: Mapping[str, Any],
    margin: float = 0.05,
    protocol: str = "to convergence",
    branching_tolerance: float = 0.01,
    recipe: str = "",
) -> pd.DataFrame:
    """Return one row for each claim, in the order of `CLAIMS`.

    Where `scale` is `ratio`, the effect is the geometric mean of a ratio over seeds, with the 95 % t interval of its
    logarithm; where it is `difference`, the mean of a difference with its t interval. No effect is a ratio of 1 or a
    difference of 0. `p_value` is that of no effect, `p_value_equivalence` that of an effect beyond `margin`, by which
    ratios from 1/(1 + margin) to 1 + margin, or differences up to it, do not matter: a margin of the claim itself, or
    that of the study. `p_value_holm` and `p_value_equivalence_holm` are adjusted over all claims that have them (Holm
    1979), each kind by itself. `holds_after_holm` is 1 if the adjusted p-value of the test that gave the verdict is
    below 0.05, nan if the claim is not decided. The verdict on a claim that this study cannot test is `not tested`, its
    numbers are nan, and `reading` says why. `protocol` is how the batch sizes are compared: at which learning rates,
    and up to where. `recipe` is how the study trains, if not with SGD at a constant learning rate; then there is a
    column with that name.
    """
    evidence = Evidence(
        *(runs, arm_runs, history, epoch_distance, small_batch_size, large_batch_size, protocol),
        curvature=curvature,
        branching=branching,
        branching_tolerance=branching_tolerance,
    )
    results = [_test(claim, evidence, margin) for claim in CLAIMS]
    table = pd.DataFrame([_row(result, evidence, measures) for result in results])
    for kind in ("p_value", "p_value_equivalence"):
        table[f"{kind}_holm"] = _adjust_holm(table[kind])
    table["holds_after_holm"] = [_holds_after_holm(table, index, result) for index, result in enumerate(results)]
    pairs = zip(results, table["holds_after_holm"], strict=True)
    table = table.assign(reading=[_read(result, evidence, holds) for result, holds in pairs])[COLUMNS]
    note = f"made for SGD at a constant learning rate; this study uses {recipe}"
    return table.assign(recipe=note) if recipe else table


@dataclass(frozen=True)
class Result:
    """What the tests of a claim give; `reason` says why there are none. Ratios are logarithms."""

    claim: Claim
    effects: Effects
    reason: str
    values: np.ndarray
    margin: float
    test: TTest
    equivalence: float
    decision: Verdict
    needed: str | None

    @property
    def limit(self) -> float:
        """The largest effect that does not matter, in the unit of the values."""
        return _limit(self.claim, self.margin)

    def on_scale(self, value: float) -> float:
        """Return a number in the unit of the values as a ratio, or as a difference if that is the scale."""
        return float(np.exp(value)) if self.claim.scale == "ratio" else value


def _limit(claim: Claim, margin: float) -> float:
    return float(np.log1p(margin)) if claim.scale == "ratio" else margin


def _test(claim: Claim, evidence: Evidence, margin: float) -> Result:
    try:
        effects, reason = claim.effects(evidence), ""
    except NotTested as error:
        effects, reason = Effects("none", pd.Series(dtype=float), ()), str(error)
    # Rounded, so that rounding errors of the logarithms cannot break a tie.
    values = effects.by_seed.dropna().sort_index().to_numpy().round(12)
    margin = margin if claim.margin is None else claim.margin
    test, limit = t_test(values), _limit(claim, margin)
    if effects.has_bounds and len(values) and np.ptp(values) == 0:  # bounds that are equal do not show a small spread
        test = TTest(test.mean, np.nan, np.nan, np.nan)
    equivalence = np.nan if effects.has_bounds else equivalence_p_value(values, limit)
    decision: Verdict = "not tested"
    if len(values):
        decision = verdict(test.ci95_low, test.ci95_high, equivalence, claim.claimed, limit)
    is_undecided = decision == "undecided" and not effects.has_bounds
    needed = seeds_needed(values, claim.claimed, limit) if is_undecided else None
    return Result(claim, effects, reason, values, margin, test, equivalence, decision, needed)


def _adjust_holm(p_values: pd.Series) -> pd.Series:
    """Return p-values adjusted by Holm's method over those that are not nan."""
    tested = p_values.dropna()
    if tested.empty:
        return p_values
    adjusted = multipletests(tested.to_numpy(), method="holm")[1]
    return pd.Series(adjusted, index=tested.index).reindex(p_values.index)


def _holds_after_holm(table: pd.DataFrame, index: int, result: Result) -> float:
    """Return whether the adjusted p-value of the test that gave the verdict is below 0.05; nan without a decision."""
    row, of_equality = table.loc[index], result.claim.claimed in ("equal", "not greater")
    if row["verdict"] not in DECIDED:
        return np.nan
    if of_equality and row["verdict"] == "refuted":
        # By an effect beyond the margin, whose p-value is larger than that of an effect.
        p_values = table["p_value"].copy()
        p_values[index] = beyond_p_value(result.values, result.limit)
        return float(_adjust_holm(p_values)[index] < LEVEL)
    # Without equivalence, the interval has decided, which has the p-value of the test of the effect.
    names = ["p_value_equivalence"] if row["p_value_equivalence"] < LEVEL else ["p_value"]
    if row["claimed"] == "not greater":  # supported by either
        names = [name for name in ("p_value_equivalence", "p_value") if row[name] < LEVEL]
    return float(any(row[f"{name}_holm"] < LEVEL for name in names))


def _row(result: Result, evidence: Evidence, measures: Mapping[str, Any]) -> dict[str, object]:
    claim, test = result.claim, result.test
    loss_unit = Measures.from_settings(measures).loss_unit
    return {
        "claim": claim.name,
        "statement": claim.statement,
        "source": claim.source,
        "comparison": result.effects.comparison,
        "protocol": f"{claim.rates}, {evidence.length}",
        "measure": claim.measure.format(
            loss_unit=add_unit("", loss_unit),
            time_unit="CPU seconds" if evidence.epoch_time == "epoch_cpu_seconds" else "seconds",
            final_loss="test loss of the best weights"
            if evidence.final_loss == "test_loss"
            else "best validation loss",
        ),
        "scale": claim.scale,
        "claimed": claim.claimed,
        "margin": result.margin,
        "effect": result.on_scale(test.mean),
        "ci95_low": result.on_scale(test.ci95_low),
        "ci95_high": result.on_scale(test.ci95_high),
        "p_value": test.p_value,
        "p_value_equivalence": result.equivalence,
        "n_seeds": len(result.values),
        "n_missing": _count_missing(result, evidence),
        "verdict": result.decision,
        "seeds_needed": result.needed,
    }


def _count_missing(result: Result, evidence: Evidence) -> int:
    if result.reason:
        return 0
    num_seeds = result.effects.num_seeds or evidence.runs["seed"].nunique()
    return num_seeds - len(result.values)


def _read(result: Result, evidence: Evidence, holds_after_holm: float) -> str:
    """Return the result in words."""
    if result.reason:
        return f"Not tested: {result.reason}."
    parts = [_describe_finding(result, holds_after_holm)]
    missing = _count_missing(result, evidence)
    if len(result.values) and missing:
        parts.append(f"{missing} of the {len(result.values) + missing} seeds do not have all values")
    return "; ".join([*parts, *_caveats(result.effects, evidence.runs)]) + "."


def _describe_finding(result: Result, holds_after_holm: float) -> str:
    claim, n_seeds, decision = result.claim, len(result.values), result.decision
    if decision == "not tested":
        return "Not tested: no seed has all values that are compared"
    effect, low, high = (_three_digits(result.on_scale(value)) for value in result.test[:3])
    finding = claim.finding.format(effect)
    if n_seeds == 1:
        return f"{finding} in the only seed, so there is no interval"
    if np.isnan(result.test.ci95_low):
        return f"{finding} in each of {n_seeds} seeds, as a bound, so there is no interval"
    of_equality = claim.claimed in ("equal", "not greater")
    margin = _describe_margin(result)
    if decision == "undecided":
        conclusion = "undecided"
        if result.test.ci95_low < -result.limit and result.test.ci95_high > result.limit:
            no_effect = 1 if claim.scale == "ratio" else 0
            conclusion += f", because these seeds do not tell whether it is below or above {no_effect}"
        if result.needed:
            more = f" ({int(result.needed) - n_seeds} more)" if result.needed.isdigit() else ""
            conclusion += f"; {result.needed} seeds would be needed{more}"
    else:
        conclusion = {
            "supported": "as claimed",
            "refuted": "against the claim",
            "no relevant difference": f"no relevant difference, which is one of at most {margin}",
        }[decision]
        conclusion += f", where equal means within {margin}" if of_equality else ""
        conclusion += f", {'also' if holds_after_holm else 'but not'} after Holm's adjustment"
    half_width = (result.test.ci95_high - result.test.ci95_low) / 2
    is_wide = decision == "undecided" and claim.scale == "ratio" and half_width > np.log(MAX_FACTOR)
    interval = f"wider than a factor of {MAX_FACTOR} in both directions" if is_wide else f"{low} to {high}"
    return f"{finding} (95 % interval {interval}, {n_seeds} seeds): {conclusion}"


def _describe_margin(result: Result) -> str:
    if result.claim.scale == "difference":
        return f"{result.margin:g}"
    return f"{100 * result.margin:g} %" if result.claim.margin is None else f"a factor of {1 + result.margin:g}"


def _caveats(effects: Effects, runs: pd.DataFrame) -> list[str]:
    """Return what weakens a finding: its note, and how many of the compared runs did not converge."""
    statuses = runs.loc[runs["setting"].isin(effects.settings), "status"]
    caveats = [effects.note] if effects.note else []
    for status, words in (
        ("diverged", "diverged"),
        ("budget_spent", "were ended by their budget, not by training.patience"),
    ):
        count = (statuses == status).sum()
        if count:
            caveats.append(f"{count} of the {len(statuses)} runs {words}")
    return caveats


def _three_digits(value: float) -> str:
    return shortest_decimal(float(f"{value:.3g}")) if np.isfinite(value) else "nan"
