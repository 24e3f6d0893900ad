"""The style that all figures share: theme, size, order and colors of batch sizes and arms, labels and file formats."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import plotnine as p9
from matplotlib.figure import Figure

from batchscape.config.base import shortest_decimal
from batchscape.io.files import write_atomically
from batchscape.report.settings import setting_details

# In inches: the text width of a printed page. In a column of half that width, the smallest text still has 4 pt.
WIDTH, HEIGHT, DPI = 6.5, 4.0, 200
# Of a title above one of three panels in a row.
PANEL_CHARACTERS = 30
DISTANCE_LABEL = r"$\|\theta_{best}-\theta_{init}\|$"


def theme() -> p9.theme:
    """Return the theme of all figures."""
    return p9.theme_bw(base_size=11) + p9.theme(
        figure_size=(WIDTH, HEIGHT),
        panel_grid_minor=p9.element_blank(),
        panel_border=p9.element_rect(color="#999999"),
        strip_background=p9.element_blank(),
        strip_text=p9.element_text(size=8, weight="bold"),
        panel_spacing=0.03,
        plot_title=p9.element_text(size=12, weight="bold", ha="left"),
        plot_subtitle=p9.element_text(size=9, color="#444444", ha="left", margin={"b": 6}),
        axis_title=p9.element_text(size=10),
        legend_title=p9.element_text(size=10),
        legend_text=p9.element_text(size=9),
        legend_key=p9.element_blank(),
        # On the right it would take the space of a panel.
        legend_position="bottom",
        legend_box_spacing=0.01,
    )


def batch_size_labels(values: Iterable[int]) -> list[str]:
    """Return the distinct batch sizes as labels, smallest first, which is their order in all figures."""
    return [str(value) for value in sorted(set(values))]


def as_batch_size_categories(column: pd.Series) -> pd.Categorical:
    """Return batch sizes as ordered categories, which a discrete axis spaces evenly."""
    return pd.Categorical(
        column.astype(int).astype(str), categories=batch_size_labels(column.astype(int)), ordered=True
    )


def batch_size_colors(column: pd.Series) -> dict[str, str]:
    """Return a viridis color per batch size; its lightness orders them in grayscale and for color-blind readers."""
    names = batch_size_labels(column.astype(int))
    stops = [0.85 * index / max(len(names) - 1, 1) for index in range(len(names))]
    return {name: mpl.colors.to_hex(mpl.colormaps["viridis"](stop)) for name, stop in zip(names, stops, strict=True)}


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


def arm_colors(column: pd.Series) -> dict[str, str]:
    """Return a color per arm."""
    colors = ["#000000", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9"]  # Okabe & Ito 2008
    return {name: colors[index % len(colors)] for index, name in enumerate(unique_arms(column))}


def arm_scales(column: pd.Series) -> list:
    """Return the color and shape scales of arms, with one legend."""
    names = unique_arms(column)
    # Beyond seven arms, shapes distinguish arms of the same color.
    shapes = ["o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p"]
    return [
        p9.scale_color_manual(values=list(arm_colors(column).values()), name="Arm", breaks=names),
        p9.scale_shape_manual(values=[shapes[i % len(shapes)] for i in range(len(names))], name="Arm", breaks=names),
    ]


NOTHING_TO_DRAW = "No run has a value that can be drawn here. See tables/runs.csv for the diverged runs."


def empty_plot(text: str = NOTHING_TO_DRAW) -> p9.ggplot:
    """Return a plot that consists of a message; by default, that no run has a value to draw."""
    blank = p9.element_blank()
    bare = p9.theme(axis_text=blank, axis_ticks=blank, axis_title=blank, panel_grid=blank)
    return p9.ggplot() + p9.annotate("text", x=0, y=0, label=textwrap.fill(text, 60), color="#444444") + theme() + bare


def keep_drawable(frame: pd.DataFrame, column: str, log: bool = False) -> tuple[pd.DataFrame, p9.labs]:
    """Drop the rows whose value has no place on an axis, and return a caption that counts them.

    Only finite values have a place, and on a logarithmic axis only positive ones. Remove the rows of diverged runs
    before, because subtitles count these.
    """
    is_drawable = np.isfinite(frame[column]) & ((frame[column] > 0) | (not log))
    dropped = int((~is_drawable).sum())
    if not dropped:
        return frame, p9.labs()
    reason = "zero, negative or not finite" if log else "not finite"
    return frame[is_drawable], p9.labs(caption=f"Not drawn: {dropped} value{'s' if dropped != 1 else ''} ({reason})")


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
    return "".join(f"\n{wrap(f'Not computed: {reason}')}" for reason in reasons)


def describe_spread(table: pd.DataFrame) -> str:
    """Return what points and bars show, for a table of means and standard deviations over seeds."""
    seeds = describe_seeds(table["n_seeds"], table["n_diverged"])
    if max(table["n_seeds"], default=0) == 1:
        return wrap(f"{seeds}, therefore no standard deviation")
    return wrap(f"Small points: seeds; large points and bars: mean ± standard deviation over {seeds}")


def thin_epochs(frame: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Average the rows of epochs that differ by less than 5 %, which a logarithmic axis cannot resolve.

    `frame` has the columns `by`, `epoch` and numeric ones; each group of `by` is averaged separately.
    """
    step = np.floor(np.log(frame["epoch"]) / np.log(1.05)).rename("step")
    return frame.groupby([*by, step], observed=True).mean(numeric_only=True).reset_index()


def wrap(text: str) -> str:
    """Wrap a subtitle to the width of the figure."""
    return textwrap.fill(text, 84)


def panel_title(text: str, unit: str) -> str:
    """Return the title of a narrow panel, with its unit in parentheses on a line of its own if both are long."""
    line = f"{text} ({unit})" if unit else text
    if len(line) <= PANEL_CHARACTERS:
        return line
    return "\n".join([textwrap.fill(text, PANEL_CHARACTERS), *([f"({unit})"] if unit else [])])


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
    """Format a number with at most six significant digits."""
    text = f"{value:.6g}"
    return text if value == 0 or not 1e-5 <= abs(value) < 1e6 else shortest_decimal(float(text))


def render_png(plot: p9.ggplot) -> bytes:
    """Return a plot as PNG, with the same bytes as `write_figure` writes."""
    stream = BytesIO()
    with _draw(plot) as figure:
        _save(figure, stream, "png")
    return stream.getvalue()


def write_figure(plot: p9.ggplot, png: Path, pdf: Path) -> None:
    """Write a plot as PNG and PDF; equal plots give equal bytes."""
    with _draw(plot) as figure:
        write_atomically(png, lambda partial: _save(figure, partial, "png"))
        write_atomically(pdf, lambda partial: _save(figure, partial, "pdf"))


@contextmanager
def _draw(plot: p9.ggplot) -> Iterator[Figure]:
    # Ignore the settings of the user, such as those of a matplotlibrc.
    with mpl.rc_context():
        mpl.rcdefaults()
        figure = plot.draw()
        yield figure
        mpl.pyplot.close(figure)


def _save(figure: Figure, target: Path | BytesIO, kind: str) -> None:
    # No date, because it would make equal plots differ.
    metadata = {"CreationDate": None} if kind == "pdf" else {}
    figure.savefig(target, format=kind, dpi=DPI, metadata=metadata)
