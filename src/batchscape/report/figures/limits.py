"""Limits of an axis that a few failed seeds do not flatten, and error bars that stay where values can be."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import plotnine as p9
from mizani.breaks import breaks_extended

# Tukey (1977) calls values "far out" if they are this many interquartile ranges beyond the quartiles.
FAR_OUT = 3.0
# Values are left out only if the axis of the others would otherwise be squeezed by this factor.
SQUEEZE = 3.0


def robust_limits(values: pd.Series, groups: pd.Series) -> tuple[float, float]:
    """Return the lowest and the highest value that an axis shows.

    Values far out are left out if at least half of their group is not: a seed that failed, unlike a setting that is
    bad with most of its seeds. Nothing is left out if the middle half of the values are equal, or if the axis would be
    less than three times as long with all of them.

    Args:
        values: Finite values of seeds, not empty.
        groups: The group of each, such as its setting.
    """
    first, third = values.quantile(0.25), values.quantile(0.75)
    reach = FAR_OUT * (third - first)
    if not reach > 0:
        return float(values.min()), float(values.max())
    inside = values.between(first - reach, third + reach)
    inner = values[inside | (inside.groupby(groups).transform("mean") < 0.5)]
    shown = inner if np.ptp(values) >= SQUEEZE * np.ptp(inner) else values
    return float(shown.min()), float(shown.max())


def panel_limits(seeds: pd.DataFrame, group: Sequence[str], *, shared: bool = False) -> pd.DataFrame:
    """Return the limits of each panel, as the columns low and high indexed by panel.

    Args:
        seeds: One row per run, with the columns panel and value and those of `group`.
        group: Columns that say which seeds belong to one mean.
        shared: Whether all panels have the same limits.
    """
    seeds = seeds.reset_index(drop=True)  # rows of several panels may have the same labels
    groups = seeds[["panel", *group]].astype(str).agg(" ".join, axis=1)
    limits = pd.DataFrame(
        {
            str(panel): robust_limits(seeds.loc[rows, "value"], groups[rows])
            for panel, rows in seeds.groupby("panel", observed=True).groups.items()
        },
        index=["low", "high"],
    ).T
    return limits.assign(low=limits["low"].min(), high=limits["high"].max()) if shared else limits


def error_bars(summary: pd.DataFrame, limits: pd.DataFrame, seeds: pd.DataFrame) -> pd.DataFrame:
    """Add the columns low and high, mean ± standard deviation within what the axis of the panel shows.

    Where no seed is negative, bars end at 0. In a panel with seeds beyond its limits they end at these.

    Args:
        summary: One row per mean, with the columns panel, mean and sd.
        limits: Of `panel_limits`.
        seeds: All seeds, with the columns panel and value.
    """
    panels, spread = summary["panel"].astype(str), summary["sd"].fillna(0)
    signed = panels.map(seeds.groupby(seeds["panel"].astype(str))["value"].min()) < 0
    low, high = summary["mean"] - spread, summary["mean"] + spread
    low = low.where(signed, low.clip(lower=0))
    cut = limits.loc[sorted(set(beyond(seeds, limits)["panel"].astype(str)))]
    ends = {"lower": panels.map(cut["low"]), "upper": panels.map(cut["high"])}
    return summary.assign(low=low.clip(**ends), high=high.clip(**ends))


def within(seeds: pd.DataFrame, limits: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose value is within the limits of their panel."""
    panels = seeds["panel"].astype(str)
    return seeds[seeds["value"].between(panels.map(limits["low"]), panels.map(limits["high"]))]


def beyond(seeds: pd.DataFrame, limits: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose value is beyond the limits of their panel, with the column side, `above` or `below`."""
    panels = seeds["panel"].astype(str)
    above, below = seeds["value"] > panels.map(limits["high"]), seeds["value"] < panels.map(limits["low"])
    return seeds.assign(side=np.where(above, "above", "below"))[above | below]


def at_edges(rows: pd.DataFrame, limits: pd.DataFrame, column: str) -> pd.DataFrame:
    """Move the values of a column that are beyond the limits of their panel to its edge."""
    panels = rows["panel"].astype(str)
    return rows.assign(**{column: rows[column].clip(panels.map(limits["low"]), panels.map(limits["high"]))})


def draw_arrows(mapping: p9.aes, seeds: pd.DataFrame, limits: pd.DataFrame, *, nudge: float = 0.0) -> list:
    """Return the layers that show each seed beyond the limits as an arrow at the edge of its panel."""
    outside = at_edges(beyond(seeds, limits), limits, "value")
    shapes, place = {"above": "^", "below": "v"}, p9.position_nudge(x=nudge)
    return [
        p9.geom_point(mapping, rows, shape=shapes[side], size=2, position=place, show_legend=False)
        for side, rows in outside.groupby("side")
    ]


def choose_breaks(
    seeds: pd.DataFrame, limits: pd.DataFrame, bars: pd.DataFrame
) -> Callable[[tuple[float, float]], Sequence[float]]:
    """Return the function for the ticks of the values: integers in panels where all seeds have these.

    It is called with the ends of the axis of each panel, and with nothing else that tells panels apart. An axis has the
    same center as what it shows.

    Args:
        seeds: All seeds, with the columns panel and value.
        limits: Of `panel_limits`.
        bars: Of `error_bars`.
    """
    ends = bars.groupby(bars["panel"].astype(str))[["low", "high"]].agg({"low": "min", "high": "max"})
    low, high = limits["low"].combine(ends["low"], np.fmin), limits["high"].combine(ends["high"], np.fmax)
    is_integer = (seeds["value"] % 1 == 0).groupby(seeds["panel"].astype(str)).all()
    centers = ((low + high) / 2)[is_integer.reindex(low.index, fill_value=False)].to_numpy()

    def breaks(axis: tuple[float, float]) -> Sequence[float]:
        ticks = np.asarray(breaks_extended()(axis))
        if np.isclose(centers, sum(axis) / 2).any() and (ticks % 1).any():
            return np.arange(np.ceil(axis[0]), np.floor(axis[1]) + 1).tolist()
        return ticks.tolist()

    return breaks


def describe_beyond(seeds: pd.DataFrame, limits: pd.DataFrame) -> str:
    """Return how many seeds are beyond the axes; empty if none is."""
    counts = beyond(seeds, limits)["side"].value_counts().sort_index()
    parts = [f"{count} seed{'s' * (count != 1)} {side}" for side, count in counts.items()]
    return f"Arrows: {' and '.join(parts)} the axis" if parts else ""
