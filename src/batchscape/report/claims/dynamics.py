"""The effects of claims about how a training proceeds: where it is in the loss surface, and what predicts that."""

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from batchscape.config.base import shortest_decimal
from batchscape.report.claims.evidence import Effects, Evidence, NotTested, log_positive
from batchscape.report.tables import distance_log_fit
from batchscape.report.tables.branches import add_excess

# Kendall's τ of fewer settings takes only a few values, and two rates only order two groups.
MIN_SETTINGS, MIN_RATES = 5, 3


def critical_over_noise_scale(evidence: Evidence) -> Effects:
    """Return the log ratio of the critical batch size to the gradient noise scale, at the points of branching.

    The noise scale of a point is that of the run, interpolated between the evaluations that measure it, linearly in the
    logarithms of noise scale and examples. The effect of a seed is the mean over its points. A critical batch size
    outside of the range of the factors is a bound, which counts as the ratio nearest to 1 that it allows.

    Args:
        evidence: The data.

    Raises:
        NotTested: If branching is disabled, if there is no value, or if no value is informative.
    """
    points = bound_critical_batches(evidence)
    noise = [
        _noise_scale_at(evidence.history, run, examples)
        for run, examples in zip(points["run"], points["examples"], strict=True)
    ]
    ratios = points.assign(low=points["low"] - noise, high=points["high"] - noise).dropna(subset=["low", "high"])
    if ratios.empty:
        raise NotTested("no noise scale of the runs that branch is positive and finite")
    return _effects_of_branches(evidence, ratios, "critical batch size against noise scale at the same points")


def last_over_first_critical_batch(evidence: Evidence) -> Effects:
    """Return the log ratio of the critical batch size at the last point of branching that a run reached to the first.

    A critical batch size outside of the range of the factors is a bound, so the ratio is one too. It counts as the
    ratio nearest to 1 that it allows: as 1 if both points are at the same end.

    Args:
        evidence: The data.

    Raises:
        NotTested: If branching is disabled, if no run reached two points, or if no value is informative.
    """
    points = bound_critical_batches(evidence).sort_values("examples", kind="stable").groupby("run")
    first, last = points.first(), points.last()
    is_later = last["examples"] > first["examples"]
    first, last = first[is_later], last[is_later]
    if first.empty:
        raise NotTested("no run reached two points of branching")
    ratios = first.assign(low=last["low"] - first["high"], high=last["high"] - first["low"])
    return _effects_of_branches(evidence, ratios, "last against first point")


def bound_critical_batches(evidence: Evidence) -> pd.DataFrame:
    """Return bounds of the logarithm of the critical batch size of each run at each point that it reached.

    Raises:
        NotTested: If branching is disabled, or no run reached a point.
    """
    if evidence.branching is None:
        raise NotTested("branching.enabled is false, or no branch is complete")
    rows = []
    for (run, _), branches in add_excess(evidence.branching).groupby(["run", "point"], sort=False):
        branches = branches.dropna(subset=["excess"]).sort_values("factor")
        if branches.empty:
            continue
        bounds = bound_critical_factor(
            branches["factor"].to_numpy(), branches["excess"].to_numpy(), evidence.branching_tolerance
        )
        first = branches.iloc[0]
        low, high = np.log(first["batch_size"]) + bounds
        rows.append({"run": run, **first[["setting", "seed", "examples"]], "low": low, "high": high})
    if not rows:
        raise NotTested("no run reached a point of branching with a finite loss")
    return pd.DataFrame(rows)


def bound_critical_factor(factors: np.ndarray, excess: np.ndarray, tolerance: float) -> np.ndarray:
    """Return the logarithms of a lower and an upper bound of the factor at which the excess reaches the tolerance.

    Between the last factor within the tolerance and the next one, it is interpolated linearly in the logarithm of the
    factor: both bounds are the same. If all factors are within, there is no upper bound; if all but 1 are beyond, no
    lower one, because factor 1 is within by definition. If the next one diverged, the factor is between both.

    Args:
        factors: Ascending from 1, shape (n,).
        excess: Relative excess of the loss of each, shape (n,); 0 for factor 1, inf if the branch diverged.
        tolerance: The largest excess that is tolerated, above 0.

    Returns:
        Shape (2,).
    """
    logs = np.log(factors)
    beyond = np.flatnonzero(excess > tolerance)
    if not len(beyond):
        return np.array([logs[-1], np.inf])
    after, before = beyond[0], beyond[0] - 1
    if np.isinf(excess[after]):
        low, high = logs[before], logs[after]
    else:
        share = (tolerance - excess[before]) / (excess[after] - excess[before])
        low = high = logs[before] + share * (logs[after] - logs[before])
    return np.array([-np.inf if before == 0 else low, high])


def _noise_scale_at(history: pd.DataFrame, run: str, examples: float) -> float:
    """Return the logarithm of the noise scale of a run after some examples; nan if none was measured."""
    rows = history[history["run"] == run].sort_values("examples")
    rows = rows.assign(noise=log_positive(rows["noise_scale"])).dropna(subset=["noise"])
    if rows.empty:
        return np.nan
    return float(np.interp(np.log(examples), np.log(rows["examples"]), rows["noise"]))


def _effects_of_branches(evidence: Evidence, ratios: pd.DataFrame, what: str) -> Effects:
    """Return the mean over each seed of log ratios that are between `low` and `high`."""
    is_bound = ratios["low"] < ratios["high"]
    effects = pd.Series(np.clip(0.0, ratios["low"], ratios["high"]), index=ratios.index)
    if (is_bound & (effects == 0)).all():
        raise NotTested(
            "each critical batch size is outside of the range of branching.factors, or between factors of which one "
            "diverged, so it allows a ratio of 1; set factors that enclose it"
        )
    settings = tuple(sorted(ratios["setting"].unique()))
    count = int(is_bound.sum())
    note = (
        f"{count} of {len(ratios)} ratios are bounds, because a critical batch size is outside of the range of "
        "branching.factors, and count as the ratio nearest to 1 that they allow"
    )
    return Effects(
        f"{', '.join(settings)}: {what}",
        effects.groupby(ratios["seed"]).mean(),
        settings,
        note if count else "",
        has_bounds=count > 0,
        num_seeds=evidence.branching["seed"].nunique() if evidence.branching is not None else None,
    )


def eigenvalue_over_edge(evidence: Evidence) -> Effects:
    """Return the log ratio of the largest eigenvalue of the Hessian times the learning rate to the edge of stability.

    At the last weights of the runs with the largest batch size and, of these, the highest learning rate, of those that
    end at their own learning rate and batch size. For Adam it is the eigenvalue of the preconditioned Hessian, with its
    own edge.

    Args:
        evidence: The data.

    Raises:
        NotTested: If curvature is disabled or was not computed, if the edge of the optimizer is not known, or if no
            learning rate is constant.
    """
    if evidence.curvature is None:
        raise NotTested("curvature.enabled is false, or no curvature was computed")
    rows = evidence.curvature[evidence.curvature["checkpoint"] == "last"]
    reasons = rows.loc[rows["not_computed"] != "none", "not_computed"]
    if len(reasons):
        raise NotTested(f"there is no Hessian: {reasons.iloc[0]}")
    is_constant = np.isclose(rows["step_learning_rate"], rows["learning_rate"]) & rows["step_batch_size"].eq(
        rows["batch_size"]
    )
    rows = rows[is_constant]
    if rows.empty:
        raise NotTested("no run of curvature.settings ends at a constant learning rate and batch size")
    rows = rows[rows["batch_size"] == rows["batch_size"].max()]
    rows = rows[rows["learning_rate"] == rows["learning_rate"].max()]
    measured = {"eigenvalue_times_rate": "edge", "preconditioned_times_rate": "preconditioned_edge"}
    known = [name for name, edge in measured.items() if rows[edge].gt(0).any()]
    if not known:
        raise NotTested("the edge of stability of this optimizer is not known")
    ratio = rows[known[0]] / rows[measured[known[0]]].where(rows[measured[known[0]]] > 0)
    logs = log_positive(ratio.where(rows["status"] != "diverged"))
    size, rate = rows["batch_size"].iloc[0], rows["learning_rate"].iloc[0]
    return Effects(
        f"bs{size} at learning rate {shortest_decimal(float(rate))}, the last weights",
        logs.groupby(rows["seed"]).mean(),
        tuple(sorted(rows["setting"].unique())),
        _describe_batch_share(evidence.history, rows),
    )


def _describe_batch_share(history: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Return which share of the training examples a batch has, unless it has all."""
    evaluations = history[history["setting"].isin(rows["setting"])]
    share = (rows["batch_size"].iloc[0] * evaluations["epoch"] / evaluations["examples"]).median()
    return f"the claim is about full batches, and these have {100 * share:.2g} % of the examples" if share < 1 else ""


def log_fit_of_distance(evidence: Evidence) -> Effects:
    """Return the log ratio of the squared error of a power law to that of a logarithm, fitted to the distance.

    Both are fitted to the distance from the initial weights over the number of updates (`distance_log_fit.fit`). The
    effect of a seed is the mean over the batch sizes at the fixed learning rate.

    Args:
        evidence: The data.

    Raises:
        NotTested: If there are no such runs.
    """
    fixed = evidence.arm_runs[evidence.arm_runs["arm"] == "fixed"]
    settings = tuple(fixed["setting"].unique())
    history = evidence.history[evidence.history["setting"].isin(settings)]
    if history.empty:
        raise NotTested("this study has no arm `fixed`")
    logs = {}
    for (setting, seed), rows in history.groupby(["setting", "seed"]):
        rows = rows.sort_values("step")
        found = distance_log_fit.fit(rows["step"].to_numpy(float), rows["distance"].to_numpy(float))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.divide(1 - found["power_r2"], 1 - found["log_r2"])
        logs[seed, setting] = np.nan if rows["status"].eq("diverged").any() else ratio
    sizes = ", ".join(f"bs{size}" for size in sorted(fixed["batch_size"].unique()))
    rate = shortest_decimal(float(fixed["learning_rate"].iloc[0]))
    return Effects(
        f"power law against logarithm, {sizes} at learning rate {rate}",
        log_positive(pd.Series(logs)).unstack().mean(axis="columns", skipna=False),
        settings,
    )


def rate_over_loss_correlation(evidence: Evidence) -> Effects:
    """Return by how much sharpness is more correlated with the learning rate than with the final loss.

    This is the difference of the absolute values of Kendall's rank correlations τ_b over all settings whose sharpness
    was measured, seed by seed. Settings with the same rate are ties, which lower the first one.

    Args:
        evidence: The data.

    Raises:
        NotTested: If the sharpness was not measured, or only at few settings or rates.
    """
    rows = evidence.arm_runs[evidence.arm_runs["quantity"] == "sharpness"].drop_duplicates(["setting", "seed"])
    rows = rows.assign(value=rows["value"].where(np.isfinite(rows["value"]) & rows["status"].ne("diverged")))
    if rows.empty:
        raise NotTested("the sharpness of these runs was not measured")
    settings, rates = rows["setting"].nunique(), rows["learning_rate"].nunique()
    if settings < MIN_SETTINGS or rates < MIN_RATES:
        raise NotTested(
            f"sharpness was measured at {settings} settings with {rates} learning rates; {MIN_SETTINGS} settings with "
            f"{MIN_RATES} rates are needed"
        )
    losses = evidence.runs[["setting", "seed", evidence.final_loss]]
    paired = rows[["setting", "seed", "learning_rate", "value"]].merge(losses, on=["setting", "seed"])
    effects = {seed: _correlate(group, evidence.final_loss) for seed, group in paired.groupby("seed")}
    return Effects(
        f"{settings} settings with {rates} learning rates",
        pd.Series(effects, dtype=float),
        tuple(sorted(rows["setting"].unique())),
    )


def _correlate(rows: pd.DataFrame, loss: str) -> float:
    rows = rows.dropna()
    if len(rows) < MIN_SETTINGS or rows["learning_rate"].nunique() < MIN_RATES:
        return np.nan
    with_rate, with_loss = (abs(kendalltau(rows["value"], rows[name]).statistic) for name in ("learning_rate", loss))
    return float(with_rate - with_loss)
