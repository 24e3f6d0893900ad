"""The loss on a plane: a raster with contour lines, in panels that share colours and levels."""

import contourpy
import numpy as np
import pandas as pd
import plotnine as p9

from batchscape.report.figures import style

# Cells whose loss is not finite; neither colour is in the raster's palette.
NOT_A_NUMBER, INFINITE = "#D9D9D9", "#C51B7D"
LEVELS = 12


def plot_loss_map(cells: pd.DataFrame, columns: int) -> p9.ggplot:
    """Return the plot without its labels.

    `cells` has the columns panel, x, y and loss: a rectangular grid a panel, in any order. Colours and contour levels
    are logarithmic and the same in all panels. A loss that is not finite is a cell in a colour of its own.
    """
    finite = cells[np.isfinite(cells["loss"])]
    if finite.empty:
        return style.empty_plot()
    panels = list(dict.fromkeys(cells["panel"]))
    floor = finite["loss"][finite["loss"] > 0].min() if (finite["loss"] > 0).any() else 1.0
    finite = _in_order(finite.assign(loss=finite["loss"].clip(lower=floor)), panels)
    levels = np.geomspace(finite["loss"].min(), finite["loss"].max(), LEVELS + 2)[1:-1]
    # Two digits are enough for a level, and can be read.
    levels = sorted({float(f"{level:.2g}") for level in levels})
    lines = _in_order(_contours(cells, levels, floor), panels)
    labels = lines[lines["label"] != ""]
    plot = (
        p9.ggplot(finite, p9.aes("x", "y"))
        + [_coloured(rows, cells) for _, rows in finite.groupby("panel", observed=True)]
        + p9.geom_path(p9.aes(group="line"), lines, color="white", size=0.35, alpha=0.8)
        + p9.geom_text(p9.aes(label="label"), labels, color="white", size=7, fontweight="bold")
        + p9.facet_wrap("panel", ncol=columns, scales="free")
        + p9.scale_fill_cmap(cmap_name="viridis", trans="log10", labels=style.tick_labels, name="Training loss\n(nats)")
        + p9.scale_x_continuous(expand=(0, 0), labels=style.tick_labels)
        + p9.scale_y_continuous(expand=(0, 0), labels=style.tick_labels)
        + style.theme()
        + p9.theme(
            figure_size=(style.WIDTH, 0.9 + 2.6 * -(-len(panels) // columns)),
            panel_grid=p9.element_blank(),
            legend_position="right",
        )
    )
    sized = _in_order(_sized(cells), panels)
    for bad, color in ((np.isnan(cells["loss"]), NOT_A_NUMBER), (np.isinf(cells["loss"]), INFINITE)):
        if bad.any():
            plot += p9.geom_tile(p9.aes(width="width", height="height"), sized[bad], fill=color)
    return plot


def describe_non_finite(losses: pd.Series) -> str:
    """Say what the cells without a finite loss look like; empty if there are none."""
    parts = []
    if np.isnan(losses).any():
        parts.append("grey: not a number")
    if np.isinf(losses).any():
        parts.append("pink: infinite")
    return "; ".join(["", *parts])


def _in_order(rows: pd.DataFrame, panels: list[str]) -> pd.DataFrame:
    return rows.assign(panel=pd.Categorical(rows["panel"], categories=panels, ordered=True))


def _coloured(rows: pd.DataFrame, cells: pd.DataFrame) -> p9.layer:
    """Return the layer of the finite cells of one panel, each panel with the steps of its own grid.

    An image if every row and column has one of them, for it is small and has no seams; else tiles, as an image would
    take the gap between what is left for its step.
    """
    grid = _sized(cells[cells["panel"] == rows["panel"].iloc[0]])
    if all(rows[axis].nunique() == grid[axis].nunique() for axis in ("x", "y")):
        return p9.geom_raster(p9.aes(fill="loss"), rows)
    sizes = grid[["width", "height"]].loc[rows.index]
    return p9.geom_tile(p9.aes(fill="loss", width="width", height="height"), rows.join(sizes))


def _sized(cells: pd.DataFrame) -> pd.DataFrame:
    """Add the `width` and `height` of each cell: the steps of its panel's grid."""
    by_panel = cells.groupby("panel", observed=True)
    steps = {name: by_panel[axis].transform(_step) for name, axis in (("width", "x"), ("height", "y"))}
    return cells.assign(**steps)


def _step(values: pd.Series) -> float:
    return float(np.diff(np.unique(values)).min())


def _contours(cells: pd.DataFrame, levels: list[float], floor: float) -> pd.DataFrame:
    """Return the contour lines as the points of paths, `line` by line; a label stands on the middle of each level."""
    rows = [pd.DataFrame({"panel": [], "x": [], "y": [], "line": [], "label": []})]
    for panel, points in cells.groupby("panel", sort=False):
        surface = points.pivot(index="y", columns="x", values="loss")
        values = np.log10(surface.to_numpy().clip(min=floor))
        generator = contourpy.contour_generator(
            surface.columns.to_numpy(), surface.index.to_numpy(), np.ma.masked_invalid(values)
        )
        for place, level in enumerate(levels):
            paths = sorted(generator.lines(np.log10(level)), key=len, reverse=True)
            for number, path in enumerate(paths):
                label = [""] * len(path)
                wide = np.ptp(path[:, 0]) > 0.25 * np.ptp(surface.columns)  # in a narrow one, labels would overlap
                if number == 0 and place % 2 == 0 and wide:
                    label[len(path) // 4] = style.tick_labels([level])[0]
                name = f"{panel} {level} {number}"
                rows.append(
                    pd.DataFrame({"panel": panel, "x": path[:, 0], "y": path[:, 1], "line": name, "label": label})
                )
    return pd.concat(rows, ignore_index=True)
