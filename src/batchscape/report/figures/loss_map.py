"""The loss on planes: a raster with contour lines; all panels share colors and levels."""

from typing import cast

import contourpy
import numpy as np
import pandas as pd
import plotnine as p9

from batchscape.report.figures import style
from batchscape.report.figures.loss_axis import LOGARITHMIC, LossAxis
from batchscape.report.measures import Measures

# Cells whose loss is not finite; neither color is in the palette of the raster.
NOT_A_NUMBER, INFINITE = "#D9D9D9", "#C51B7D"
LEVELS = 12


def plot_loss_map(cells: pd.DataFrame, columns: int, measures: Measures) -> p9.ggplot:
    """Return the plot without its labels.

    Colors and contour levels are those of a `LossAxis`. A cell whose loss is not finite has a separate color.

    Args:
        cells: One row per cell, with the columns panel, x, y and loss; a rectangular grid per panel, in any order.
        columns: Number of panels per row.
        measures: What the loss is called.
    """
    finite = cells[np.isfinite(cells["loss"])]
    if finite.empty:
        return style.empty_plot()
    panels = list(dict.fromkeys(cells["panel"]))
    axis, floor = LossAxis.of(finite["loss"]), -np.inf
    if not axis.signed:
        floor = finite["loss"][finite["loss"] > 0].min() if (finite["loss"] > 0).any() else 1.0
    finite = _order_panels(finite.assign(loss=finite["loss"].clip(lower=floor)), panels)
    low, high = axis.transform([finite["loss"].min(), finite["loss"].max()])
    exact_levels = axis.invert(np.linspace(low, high, LEVELS + 2)[1:-1])
    digits = style.digits_to_distinguish(exact_levels)  # few, for short labels
    levels = sorted({float(f"{level:.{digits}g}") for level in exact_levels})
    lines = _order_panels(_contours(cells, levels, floor, axis), panels)
    labels = lines[lines["label"] != ""]
    plot = (
        p9.ggplot(finite, p9.aes("x", "y"))
        + [_colored_layer(rows, cells) for _, rows in finite.groupby("panel", observed=True)]
        + p9.geom_path(p9.aes(group="line"), lines, color="white", size=0.35, alpha=0.8)
        + p9.geom_text(p9.aes(label="label"), labels, color="white", fontweight="bold")
        + p9.facet_wrap("panel", ncol=columns, scales="free")
        + p9.scale_fill_cmap(
            cmap_name=style.COLOR_MAP,
            name=measures.with_loss_unit("Training loss").replace(" (", "\n(", 1),
            **axis.options,
        )
        + p9.scale_x_continuous(expand=(0, 0), labels=style.tick_labels)
        + p9.scale_y_continuous(expand=(0, 0), labels=style.tick_labels)
        + style.theme()
        + p9.theme(
            aspect_ratio=0.85,
            panel_grid=p9.element_blank(),
            legend_position="right",
        )
    )
    tiles = _order_panels(_add_cell_sizes(cells), panels)
    for bad, color in ((np.isnan(cells["loss"]), NOT_A_NUMBER), (np.isinf(cells["loss"]), INFINITE)):
        if bad.any():
            plot += p9.geom_tile(p9.aes(width="width", height="height"), tiles[bad], fill=color)
    return plot


def describe_non_finite(losses: pd.Series) -> str:
    """Return the colors of cells whose loss is not finite; empty if there are none."""
    parts = []
    if np.isnan(losses).any():
        parts.append("gray: not a number")
    if np.isinf(losses).any():
        parts.append("pink: infinite")
    return "; ".join(["", *parts])


def _order_panels(rows: pd.DataFrame, panels: list[str]) -> pd.DataFrame:
    return rows.assign(panel=pd.Categorical(rows["panel"], categories=panels, ordered=True))


def _colored_layer(rows: pd.DataFrame, cells: pd.DataFrame) -> p9.geom_raster | p9.geom_tile:
    """Return the layer of the finite cells of one panel, with the cell size of its own grid.

    A raster if every row and column of the grid has a finite cell, because it is small and seamless. Otherwise tiles,
    because a raster would infer a wrong cell size from the gaps.
    """
    grid = _add_cell_sizes(cells[cells["panel"] == rows["panel"].iloc[0]])
    if all(rows[axis].nunique() == grid[axis].nunique() for axis in ("x", "y")):
        return p9.geom_raster(p9.aes(fill="loss"), rows)
    sizes = grid[["width", "height"]].loc[rows.index]
    return p9.geom_tile(p9.aes(fill="loss", width="width", height="height"), rows.join(sizes))


def _add_cell_sizes(cells: pd.DataFrame) -> pd.DataFrame:
    """Add the columns `width` and `height`: the cell size of the grid of the panel."""
    by_panel = cells.groupby("panel", observed=True)
    steps = {name: by_panel[axis].transform(_step) for name, axis in (("width", "x"), ("height", "y"))}
    return cells.assign(**steps)


def _step(values: pd.Series) -> float:
    return float(np.diff(np.unique(values)).min())


def _contours(cells: pd.DataFrame, levels: list[float], floor: float, axis: LossAxis = LOGARITHMIC) -> pd.DataFrame:
    """Return the contour lines as points with the id `line` of their path; every second level has a label."""
    rows = [pd.DataFrame({"panel": [], "x": [], "y": [], "line": [], "label": []})]
    for panel, points in cells.groupby("panel", sort=False):
        surface = points.pivot(index="y", columns="x", values="loss")
        values = axis.transform(surface.to_numpy().clip(min=floor))
        generator = contourpy.contour_generator(
            surface.columns.to_numpy(), surface.index.to_numpy(), np.ma.masked_invalid(values)
        )
        for index, level in enumerate(levels):
            # The type of `lines` depends on the generator's line type, which is separate lines by default.
            separate = cast("list[np.ndarray]", generator.lines(float(axis.transform(level))))
            paths = sorted(separate, key=len, reverse=True)
            for rank, path in enumerate(paths):
                label = [""] * len(path)
                wide = np.ptp(path[:, 0]) > 0.25 * np.ptp(surface.columns)  # on a narrow path, labels would overlap
                if rank == 0 and index % 2 == 0 and wide:
                    label[len(path) // 4] = style.format_tick(level)
                name = f"{panel} {level} {rank}"
                rows.append(
                    pd.DataFrame({"panel": panel, "x": path[:, 0], "y": path[:, 1], "line": name, "label": label})
                )
    return pd.concat(rows, ignore_index=True)
