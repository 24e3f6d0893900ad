"""The one look of all figures: theme, size, and the colour and order of a batch size."""

import textwrap
from collections.abc import Iterable, Iterator
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

# As wide as the text of a page in print; in a column of half that width the letters still have 4 pt.
WIDTH, HEIGHT, DPI = 6.5, 4.0, 200
DISTANCE_LABEL = r"$\|\theta_{best}-\theta_{init}\|$"


def theme() -> p9.theme:
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
        # Beside the panels it would take the room of one.
        legend_position="bottom",
        legend_box_spacing=0.01,
    )


def batch_size_labels(values: Iterable[int]) -> list[str]:
    """The batch sizes in the order in which every figure shows them: the smallest first."""
    return [str(value) for value in sorted(set(values))]


def as_batch_size_categories(column: pd.Series) -> pd.Categorical:
    """Batch sizes as ordered categories, so that an axis gives each one the same room."""
    return pd.Categorical(
        column.astype(int).astype(str), categories=batch_size_labels(column.astype(int)), ordered=True
    )


def batch_size_colors(column: pd.Series) -> dict[str, str]:
    """A colour for each batch size: viridis, whose lightness also orders the sizes in grey and for the colour-blind."""
    names = batch_size_labels(column.astype(int))
    stops = [0.85 * index / max(len(names) - 1, 1) for index in range(len(names))]
    return {name: mpl.colors.to_hex(mpl.colormaps["viridis"](stop)) for name, stop in zip(names, stops, strict=True)}


def batch_size_scales(column: pd.Series) -> list:
    """Colour and fill by batch size, with one legend."""
    colors = batch_size_colors(column)
    return [
        p9.scale_color_manual(values=colors, name="Batch size"),
        p9.scale_fill_manual(values=colors, name="Batch size"),
    ]


def unique_arms(column: pd.Series) -> list[str]:
    """The arms in the order in which a table has them."""
    return list(dict.fromkeys(column))


def arm_scales(column: pd.Series) -> list:
    """Colour and shape by arm, with one legend."""
    names = unique_arms(column)
    # Okabe & Ito 2008; beyond seven arms the shapes tell those of one colour apart.
    colors = ["#000000", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9"]
    shapes = ["o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p"]
    return [
        p9.scale_color_manual(values=[colors[i % len(colors)] for i in range(len(names))], name="Arm", breaks=names),
        p9.scale_shape_manual(values=[shapes[i % len(shapes)] for i in range(len(names))], name="Arm", breaks=names),
    ]


def empty_plot(
    text: str = "No run has a number that can be drawn here. tables/runs.csv says which ones diverged.",
) -> p9.ggplot:
    """The figure of a question that has no answer here: by default, no run has a number that could be drawn."""
    blank = p9.element_blank()
    bare = p9.theme(axis_text=blank, axis_ticks=blank, axis_title=blank, panel_grid=blank)
    return p9.ggplot() + p9.annotate("text", x=0, y=0, label=textwrap.fill(text, 60), color="#444444") + theme() + bare


def keep_drawable(frame: pd.DataFrame, column: str, log: bool = False) -> tuple[pd.DataFrame, p9.labs]:
    """Return the rows whose value has a place on an axis, and a caption that says how many have none.

    That is a finite one, and on a logarithmic axis one above 0. What diverged runs do not have is not for this: leave
    it out before, for subtitles count these runs.
    """
    good = np.isfinite(frame[column]) & ((frame[column] > 0) | (not log))
    lost = int((~good).sum())
    if not lost:
        return frame, p9.labs()
    what = "0 or less, infinite or no number" if log else "infinite or no number"
    return frame[good], p9.labs(caption=f"Not drawn: {lost} value{'s' if lost != 1 else ''}, {what}")


def sort_checkpoints(names: Iterable[str]) -> list[str]:
    """The checkpoints in the order in which a run passes them, as far as that is known of all runs."""
    place = {"init": 0, "best": 2, "last": 3}
    return sorted(set(names), key=lambda name: (place.get(name, 1), name))


def weights_label(checkpoint: str) -> str:
    """What the weights of a checkpoint are called in a title."""
    names = {"init": "initial weights", "best": "best weights", "last": "last weights"}
    return names.get(checkpoint, f"weights at {checkpoint}")


def learning_rate_label(rate: float) -> str:
    return f"learning rate {tick_labels([rate])[0]}"


def run_panel_title(batch_size: int, learning_rate: float, setting: str, status: str, *details: str) -> str:
    """The title of a single run's panel; below stands how it ended, its schedule, and what else it is told apart by."""
    rate, _, warm_up = setting.partition("-lr")[2].partition("-warmup")
    diverged, tuned, warm = status == "diverged", rate == "tuned", bool(warm_up)
    more = ["diverged"] * diverged + ["tuned"] * tuned + [f"warm-up {warm_up}"] * warm
    second_line = ", ".join(filter(None, [*more, *details]))
    return f"Batch size {batch_size}, {learning_rate_label(learning_rate)}\n{second_line}".rstrip()


def describe_batch_norm(policies: Iterable[str]) -> str:
    """Say what re-estimated BatchNorm statistics do to the losses that a figure shows; empty if there are none."""
    if "re-estimate" not in set(policies):
        return ""
    return "; BatchNorm's statistics are estimated anew at each point: a run's own loss is not that of its training"


def describe_seeds(n_seeds: Iterable[int], n_diverged: Iterable[int]) -> str:
    """Say how many seeds stand behind each point, and how many runs are not drawn because they diverged."""
    most, lost = max(n_seeds, default=0), sum(n_diverged)
    text = f"{most} seed" if most == 1 else f"{most} seeds"
    return f"{text} ({lost} diverged run{'s' if lost != 1 else ''} not drawn)" if lost else text


def describe_spread(table: pd.DataFrame) -> str:
    """Say what the points and bars of a table's means and standard deviations are."""
    if max(table["n_seeds"], default=0) == 1:
        return wrap(f"Over {describe_seeds(table['n_seeds'], table['n_diverged'])}, so without a spread")
    return wrap(
        f"Each seed, and mean ± standard deviation over {describe_seeds(table['n_seeds'], table['n_diverged'])}"
    )


def thin_epochs(frame: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Average the rows of epochs that lie within 5 % of one another, for a logarithmic axis cannot show them apart.

    `frame` has the columns `by`, `epoch` and numbers; each group of `by` is thinned by itself.
    """
    step = np.floor(np.log(frame["epoch"]) / np.log(1.05)).rename("step")
    return frame.groupby([*by, step], observed=True).mean(numeric_only=True).reset_index()


def wrap(text: str) -> str:
    """A subtitle in as many lines as the figure's width needs."""
    return textwrap.fill(text, 84)


def tick_labels(values: Iterable[float]) -> list[str]:
    """Tick labels without trailing zeros, and without exponents where they are short."""
    return [f"{v:.6g}" if v == 0 or not 1e-5 <= abs(v) < 1e6 else shortest_decimal(float(f"{v:.6g}")) for v in values]


def render_png(plot: p9.ggplot) -> bytes:
    """Return a plot as PNG, the bytes that `write_figure` writes."""
    stream = BytesIO()
    with _drawn(plot) as figure:
        _save(figure, stream, "png")
    return stream.getvalue()


def write_figure(plot: p9.ggplot, png: Path, pdf: Path) -> None:
    """Write a plot as PNG and PDF; equal plots give equal bytes."""
    with _drawn(plot) as figure:
        for path in (png, pdf):
            write_atomically(path, lambda partial, kind=path.suffix[1:]: _save(figure, partial, kind))


@contextmanager
def _drawn(plot: p9.ggplot) -> Iterator[Figure]:
    # Without the settings of the user's own figures, such as those of a matplotlibrc.
    with mpl.rc_context():
        mpl.rcdefaults()
        figure = plot.draw()
        yield figure
        mpl.pyplot.close(figure)


def _save(figure: Figure, target: Path | BytesIO, kind: str) -> None:
    # Without the date, which would make equal plots differ.
    metadata = {"CreationDate": None} if kind == "pdf" else {}
    figure.savefig(target, format=kind, dpi=DPI, metadata=metadata)
