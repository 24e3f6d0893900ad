"""The style that all figures share: theme, colors, order of batch sizes and arms, and labels.

A color has one meaning in all figures. Dark is low: small batch sizes, and low losses on maps. Each arm has a color of
its own, what was chosen among others is vermilion, and what compares or explains is gray.
"""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import plotnine as p9
from matplotlib.axes import Axes
from matplotlib.transforms import offset_copy
from mizani.breaks import breaks_extended

from batchscape.config.base import shortest_decimal
from batchscape.report.settings import setting_details

DISTANCE_LABEL = "Distance ‖θ−θ₀‖"
# Of batch sizes and of losses on maps.
COLOR_MAP = "viridis"
# What was chosen among others: the best or the tuned learning rate, and the path of a training. Like the colors of
# arms, it is of Okabe & Ito 2008, whose colors most color-blind readers can distinguish.
CHOSEN = "#D55E00"
ARM_COLORS = {
    "fixed": "#000000", "linear": "#0072B2", "sqrt": "#009E73", "tuned": "#CC79A7", "high": "#E69F00",
    "batch_warmup": "#56B4E9",
}  # fmt: skip
ARM_SHAPES = {"fixed": "o", "linear": "s", "sqrt": "^", "tuned": "P", "high": "v", "batch_warmup": "D"}
# Arms that users name have these in turn; their shapes distinguish them from the others.
OTHER_ARM_COLORS = ("#7F3C8D", "#A5682A", "#6B6B6B")
OTHER_ARM_SHAPES = ("X", "*", "<", ">", "p")


def theme() -> p9.theme:
    """Return the theme of all figures; `layout` adds all sizes."""
    return p9.theme_bw(base_size=11) + p9.theme(
        panel_grid_minor=p9.element_blank(),
        panel_border=p9.element_rect(color="#999999"),
        strip_background=p9.element_rect(fill="none", color="none"),
        strip_text=p9.element_text(weight="bold"),
        panel_spacing=0.03,
        plot_title=p9.element_text(weight="bold", ha="left"),
        plot_subtitle=p9.element_text(color="#444444", ha="left", margin={"b": 6}),
        plot_caption=p9.element_text(color="#444444", ha="left"),
        plot_title_position="plot",
        plot_caption_position="plot",
        legend_key=p9.element_blank(),
        # On the right it would take the space of a panel.
        legend_position="bottom",
        legend_box_spacing=0.01,
    )


class geom_text_beside(p9.geom_text):
    """Text that starts half a letter beyond its place at the right edge of the panel; `layout` makes room for it."""

    @staticmethod
    def draw_group(data: pd.DataFrame, panel_params: Any, coord: Any, ax: Axes, params: dict[str, Any]) -> None:
        n_before = len(ax.texts)
        p9.geom_text.draw_group(data, panel_params, coord, ax, params)
        for text in ax.texts[n_before:]:
            text.set_clip_on(False)
            gap = float(text.get_fontsize()) / 2
            text.set_transform(offset_copy(text.get_transform(), ax.get_figure(root=True), x=gap, units="points"))


def batch_size_labels(values: Iterable[int]) -> list[str]:
    """Return the distinct batch sizes as labels, smallest first, which is their order in all figures."""
    return [str(value) for value in sorted(set(values))]


def as_batch_size_categories(column: pd.Series) -> pd.Categorical:
    """Return batch sizes as ordered categories, which a discrete axis spaces evenly."""
    return pd.Categorical(
        column.astype(int).astype(str), categories=batch_size_labels(column.astype(int)), ordered=True
    )


def batch_size_colors(column: pd.Series) -> dict[str, str]:
    """Return a color per batch size, dark for small ones; its lightness orders them in grayscale and for color-blind
    readers."""
    names = batch_size_labels(column.astype(int))
    stops = [0.85 * index / max(len(names) - 1, 1) for index in range(len(names))]
    return {name: mpl.colors.to_hex(mpl.colormaps[COLOR_MAP](stop)) for name, stop in zip(names, stops, strict=True)}


def batch_size_scales(column: pd.Series) -> list:
    """Return the color and fill scales of batch sizes, with one legend."""
    colors = batch_size_colors(column)
    return [
        p9.scale_color_manual(values=colors, name="Batch size"),
        p9.scale_fill_manual(values=colors, name="Batch size"),
    ]


def unique_arms(column: pd.Series) -> list[str]:
    """Return the distinct arms in the order of the table."""
    return list(dict.fromkeys(column))


def arm_colors(names: Sequence[str]) -> dict[str, str]:
    """Return the color of each arm; built-in arms have the same one in all studies."""
    return _by_arm(names, ARM_COLORS, OTHER_ARM_COLORS)


def arm_scales(column: pd.Series) -> list:
    """Return the color and shape scales of arms, with one legend."""
    names = unique_arms(column)
    shapes = _by_arm(names, ARM_SHAPES, OTHER_ARM_SHAPES)
    return [
        p9.scale_color_manual(values=arm_colors(names), name="Arm", breaks=names),
        p9.scale_shape_manual(values=shapes, name="Arm", breaks=names),
    ]


def _by_arm(names: Sequence[str], built_in: Mapping[str, str], others: Sequence[str]) -> dict[str, str]:
    own = [name for name in names if name not in built_in]
    return {name: built_in[name] if name in built_in else others[own.index(name) % len(others)] for name in names}


NOTHING_TO_DRAW = "No run has a value that can be drawn here. See tables/runs.csv for the diverged runs."


def empty_plot(text: str = NOTHING_TO_DRAW) -> p9.ggplot:
    """Return a plot that consists of a message; by default, that no run has a value to draw."""
    blank = p9.element_blank()
    bare = p9.theme(axis_text=blank, axis_ticks=blank, axis_title=blank, panel_grid=blank)
    return p9.ggplot() + p9.annotate("text", x=0, y=0, label=textwrap.fill(text, 44), color="#444444") + theme() + bare


def captions(*parts: str) -> p9.labs:
    """Return the labels with a caption of these lines, without the empty ones."""
    return p9.labs(caption="\n".join(filter(None, parts)))


def keep_drawable(frame: pd.DataFrame, column: str, log: bool = False) -> tuple[pd.DataFrame, str]:
    """Drop the rows whose value has no place on an axis, and return a line that counts them, or an empty text.

    Only finite values have a place, and on a logarithmic axis only positive ones. Remove the rows of diverged runs
    before, because subtitles count these.
    """
    is_drawable = np.isfinite(frame[column]) & ((frame[column] > 0) | (not log))
    dropped = int((~is_drawable).sum())
    if not dropped:
        return frame, ""
    reason = "zero, negative or not finite" if log else "not finite"
    return frame[is_drawable], f"Not drawn: {dropped} value{'s' if dropped != 1 else ''} ({reason})"


def sort_checkpoints(names: Iterable[str]) -> list[str]:
    """Return the distinct checkpoints in training order; `best` may be earlier than an epoch in some runs."""
    rank = {"init": 0, "best": 2, "last": 3}
    return sorted(set(names), key=lambda name: (rank.get(name, 1), name))


def weights_label(checkpoint: str) -> str:
    """Return the name of the weights of a checkpoint for a title."""
    names = {"init": "initial weights", "best": "best weights", "last": "last weights"}
    return names.get(checkpoint, f"weights at {checkpoint}")


def learning_rate_label(rate: float) -> str:
    """Return a learning rate for a title."""
    return f"learning rate {format_tick(rate)}"


def run_panel_title(batch_size: int, learning_rate: float, setting: str, status: str, *details: str) -> str:
    """Return the two-line title of a panel of one run; the second line has its status, schedule and `details`."""
    described = setting_details(setting)
    # Epochs are the unit of all axes of time.
    warm_up = described.warmup.removesuffix(" epochs").removesuffix(" epoch")
    properties = [
        "diverged" if status == "diverged" else "",
        "tuned" if described.is_tuned else "",
        *described.changes,
        f"warm-up {warm_up}" if warm_up else "",
    ]
    second_line = ", ".join(filter(None, [*properties, *details]))
    return f"Batch size {batch_size}, {learning_rate_label(learning_rate)}\n{second_line}".rstrip()


def describe_batch_norm(policies: Iterable[str]) -> str:
    """Return a note if BatchNorm statistics are re-estimated, which changes losses; otherwise an empty text."""
    if "re-estimate" not in set(policies):
        return ""
    return (
        "; BatchNorm statistics are re-estimated at each point, so the loss of a run differs from that of its training"
    )


def describe_seeds(n_seeds: Iterable[int], n_diverged: Iterable[int]) -> str:
    """Return the number of seeds per point, and the number of diverged runs, which are not drawn."""
    seeds, diverged = max(n_seeds, default=0), sum(n_diverged)
    text = f"{seeds} seed" if seeds == 1 else f"{seeds} seeds"
    return f"{text} ({diverged} diverged run{'s' if diverged != 1 else ''} not drawn)" if diverged else text


def describe_not_computed(analysis: pd.DataFrame) -> str:
    """Return why an analysis has no values for some runs, as further lines of a subtitle; empty if it has them all."""
    reasons = [reason for reason in analysis["not_computed"].unique() if reason != "none"]
    return "".join(f"\nNot computed: {reason}" for reason in reasons)


def describe_spread(table: pd.DataFrame) -> str:
    """Return what points and bars show, for a table of means and standard deviations over seeds."""
    seeds = describe_seeds(table["n_seeds"], table["n_diverged"])
    if max(table["n_seeds"], default=0) == 1:
        return f"{seeds}, therefore no standard deviation"
    return f"Small points: seeds; large points and bars: mean ± standard deviation over {seeds}"


def thin_epochs(frame: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Average the rows of epochs that differ by less than 5 %, which a logarithmic axis cannot resolve.

    `frame` has the columns `by`, `epoch` and numeric ones; each group of `by` is averaged separately.
    """
    step = np.floor(np.log(frame["epoch"]) / np.log(1.05)).rename("step")
    return frame.groupby([*by, step], observed=True).mean(numeric_only=True).reset_index()


def power_of_two_breaks(limits: tuple[float, float]) -> list[float]:
    """Return the powers of two between two batch sizes, at most seven of them: every second, third, … one.

    Between batch sizes with fewer than two powers of two, return other round numbers.
    """
    low, high = np.ceil(np.log2(limits[0])), np.floor(np.log2(limits[1]))
    if high <= low:
        return [float(value) for value in breaks_extended(only_inside=True)(limits)]
    step = max(1, int(np.ceil((high - low + 1) / 7)))
    return [2.0**power for power in np.arange(low, high + 1, step)]


def round_up(value: float) -> float:
    """Return the next number that is 1, 2 or 5 times a power of ten; 1 if there is none."""
    if not (value > 0 and np.isfinite(value)):
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value * (1 - 1e-9))
    return float(f"{step:.6g}")


def digits_to_distinguish(values: Iterable[float]) -> int:
    """Return significant digits, from two to six, that tell values apart: more if they span little of their size."""
    finite = np.array([value for value in values if np.isfinite(value)])
    span = np.ptp(finite) if len(finite) else 0.0
    if span == 0:
        return 2
    return int(np.clip(2 + np.floor(np.log10(np.abs(finite).max() / span)), 2, 6))


def tick_labels(values: Sequence[float] | Sequence[str]) -> list[str]:
    """Format the ticks of a continuous scale without trailing zeros, and without exponents where that is short."""
    return [format_tick(float(value)) for value in values]


def format_tick(value: float) -> str:
    """Format a number with at most six significant digits; from a million on with an exponent, which is short."""
    text = f"{value:.6g}"
    rounded = float(text)  # a tick of a logarithmic axis is not exact
    if 1e5 <= abs(rounded) < 1e6:
        return f"{rounded:,.0f}"
    return shortest_decimal(rounded) if 1e-5 <= abs(rounded) < 1e5 else f"{rounded:.6g}"
