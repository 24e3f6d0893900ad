"""Which of the original study's claims hold here: effect, interval and verdict."""

import numpy as np
import pandas as pd

from batchscape.config.base import shortest_decimal
from batchscape.report.claims.effects import Effects, Evidence, NotTested
from batchscape.report.claims.statements import CLAIMS, Claim
from batchscape.report.claims.verdict import seeds_needed, t_interval, verdict


def tabulate(
    runs: pd.DataFrame,
    arm_runs: pd.DataFrame,
    history: pd.DataFrame,
    epoch_distance: pd.DataFrame,
    *,
    small_batch_size: int,
    large_batch_size: int,
) -> pd.DataFrame:
    """Return one row a claim, in the order of `CLAIMS`.

    An effect is a ratio: the geometric mean over seeds, and the 95 % t interval of its logarithm. A claim that this
    study cannot test keeps its row: undecided, nan, and `reading` says why.
    """
    evidence = Evidence(runs, arm_runs, history, epoch_distance, small_batch_size, large_batch_size)
    return pd.DataFrame([_row(claim, evidence) for claim in CLAIMS])


def _row(claim: Claim, evidence: Evidence) -> dict[str, object]:
    try:
        effects, why = claim.effects(evidence), ""
    except NotTested as reason:
        effects, why = Effects("none", pd.Series(dtype=float), ()), str(reason)
    # Rounded, so that the rounding errors of logarithms do not decide what is a tie.
    logs = effects.logs.dropna().sort_index().to_numpy().round(12)
    mean, low, high = t_interval(logs)
    decision = verdict(low, high, claim.claimed)
    row = {
        "claim": claim.name,
        "statement": claim.statement,
        "source": claim.source,
        "comparison": effects.comparison,
        "measure": claim.measure,
        "scale": "ratio",
        "claimed": claim.claimed,
        "effect": np.exp(mean),
        "ci95_low": np.exp(low),
        "ci95_high": np.exp(high),
        "n_seeds": len(logs),
        "n_missing": 0 if why else evidence.runs["seed"].nunique() - len(logs),
        "verdict": decision,
        "seeds_needed": seeds_needed(logs) if decision == "undecided" else "nan",
    }
    return {**row, "reading": f"Not tested: {why}." if why else _reading(claim, row, effects, evidence.runs)}


def _reading(claim: Claim, row: dict[str, object], effects: Effects, runs: pd.DataFrame) -> str:
    """Return in one sentence what was found, and what weakens it."""
    compared = runs[runs["setting"].isin(effects.settings)]["status"]
    effect, low, high = (_three_digits(row[key]) for key in ("effect", "ci95_low", "ci95_high"))
    found = claim.finding.format(effect)
    ends = {
        "supported": "as claimed",
        "refuted": "against the claim",
        "undecided": f"undecided, {row['seeds_needed']} seeds would be needed",
    }
    if row["n_seeds"] == 0:
        parts = ["Not tested: no seed has all the numbers that it takes"]
    elif row["n_seeds"] == 1:
        parts = [f"{found} in the only seed, so that there is no interval"]
    else:
        parts = [f"{found} (95 % interval {low} to {high}, {row['n_seeds']} seeds): {ends[row['verdict']]}"]
    if row["n_seeds"] and row["n_missing"]:
        parts += [f"{row['n_missing']} of the {row['n_seeds'] + row['n_missing']} seeds do not have all the numbers"]
    parts += [effects.note] if effects.note else []
    for status, what in (("diverged", "diverged"), ("max_epochs", "still improved when max_epochs stopped them")):
        count = (compared == status).sum()
        parts += [f"{count} of the {len(compared)} runs {what}"] if count else []
    return "; ".join(parts) + "."


def _three_digits(value: float) -> str:
    return shortest_decimal(float(f"{value:.3g}")) if np.isfinite(value) else "nan"
