"""How a figure is laid out for its width: letters, columns of panels, legends, ticks and the height.

Figures only say what they show. All lengths here follow from the section `figures` of the study file.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from typing import Any, cast

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import plotnine as p9
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.textpath import text_to_path
from matplotlib.transforms import Bbox
from plotnine.labels import labels_view
from plotnine.scales.scale_discrete import scale_discrete

from batchscape.config.figures import POINTS_PER_INCH, FiguresConfig
from batchscape.report.figures.style import geom_text_beside

# What places the legends of a plot.
Legends = list[Any]

# Relative to the smallest letters.
TICKS, AXIS_TITLES, TITLES, SUBTITLES = 1.1, 1.25, 1.5, 1.1
# In widths of the letter "m" of the smallest text: of a panel with its ticks, of a figure that has room for a legend
# beside its panels, and the lowest panel.
PANEL_WIDTH, WIDTH_FOR_LEGEND, MIN_HEIGHT = 14, 45, 10
# Height of a panel relative to its width, up to a maximum in inches; a figure can set another ratio as `aspect_ratio`.
ASPECT, MAX_HEIGHT = 0.75, 2.5
# Share of the width, without text beside the panel, that the names of rows, as of claims, take at most.
NAMES_SHARE = 0.55
MAX_LEGEND_ROWS = 8
# Length of a color bar below the panels, in widths of the letter "m".
LEGEND_BAR = 14
# The width in inches for which the sizes of points and lines are written.
WIDTH = 6.5
# The family that matplotlib brings, so that a figure is the same on all machines. Fonts are embedded as TrueType,
# because some publishers refuse Type 3.
SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.hashsalt": "batchscape",
}


@contextmanager
def drawn(plot: p9.ggplot, config: FiguresConfig) -> Iterator[Figure]:
    """Draw a plot for the width and letters of `config`, whatever the matplotlib settings of the user are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(SETTINGS)
        figure = _draw(plot, config)
        try:
            yield figure
        finally:
            plt.close(figure)


def title_and_remarks(plot: p9.ggplot) -> tuple[str, str]:
    """Return the title of a plot, and the lines of its subtitle and caption."""
    labels = plot.labels
    return labels.title or "", "\n".join(filter(None, [labels.subtitle, labels.caption]))


def _draw(plot: p9.ggplot, config: FiguresConfig) -> Figure:
    aspect = plot.theme.getp("aspect_ratio")
    aspect = None if aspect == "auto" else float(aspect)
    plot = _fit_to_width(plot, config) + p9.theme(aspect_ratio="auto")  # so that panels fill the height
    plot += _legends_as_designed(plot, config)
    legends: Legends = []
    drawn_plot, figure, excess = _try(plot, legends)
    rows = 1
    while excess > 1 and rows <= MAX_LEGEND_ROWS:
        plt.close(figure)
        legends = _legends_in_rows(plot, rows)
        drawn_plot, figure, excess = _try(plot, legends)
        rows = max(rows + 1, ceil(rows * excess))
    assumed = figure.get_figheight()
    _set_height(drawn_plot, figure, config, aspect)
    # The height of a legend beside the panels follows from that of the figure when a plot is drawn, as do margins of a
    # few hundredths of it.
    tolerance = 0.1 if drawn_plot.theme.getp("legend_position") == "right" else 1 / 3
    if abs(figure.get_figheight() / assumed - 1) > tolerance:
        plt.close(figure)
        size = p9.theme(figure_size=(config.width, figure.get_figheight()))
        drawn_plot, figure, _ = _try(plot + size, legends)
        _set_height(drawn_plot, figure, config, aspect)
    _hide_overlapping_labels(drawn_plot, figure, config)
    return figure


def _fit_to_width(plot: p9.ggplot, config: FiguresConfig) -> p9.ggplot:
    em, width = config.font_size, config.width * POINTS_PER_INCH
    plot = plot + _letters(em)
    for layer in plot.layers:
        _resize(layer.geom, em, config.width)
    columns, rows = 1, 1
    if isinstance(plot.facet, p9.facet_wrap):
        count = len(cast("pd.DataFrame", plot.data)[list(plot.facet.vars)].astype(str).drop_duplicates())
        designed = plot.facet._ncol or (2 if count == 4 else min(count, 3))
        columns = max(1, min(designed, int(width / (PANEL_WIDTH * em))))
        rows = ceil(count / columns)
        plot += _refacet(plot.facet, columns, width / columns - 6 * em, em)
    beside = _width_of_text_beside(plot, em)
    if beside:
        plot += p9.theme(plot_margin_right=beside / width)
    for scale in plot.scales:  # names of rows
        if "y" in scale.aesthetics and isinstance(scale.labels, list | tuple):
            scale.labels = [wrap(str(name), NAMES_SHARE * (width - beside), em) for name in scale.labels]
            plot += p9.theme(axis_text_y=p9.element_text(size=em, ma="right"))
    shown = plot.labels
    panel = max(MIN_HEIGHT * em, min(ASPECT * (width / columns - 6 * em), MAX_HEIGHT * POINTS_PER_INCH))
    labels = {
        "x": wrap(shown.x or "", width - 8 * em, AXIS_TITLES * em),
        "y": wrap(shown.y or "", rows * panel, AXIS_TITLES * em),
    }
    titles = _titles(shown, config)
    lines = sum(2 + text.count("\n") for text in titles.values() if text)
    height = rows * (panel + 4 * em) + (10 + 1.5 * lines) * em  # about
    size = p9.theme(figure_size=(config.width, height / POINTS_PER_INCH))
    return plot + p9.labs(**labels, **titles) + size


def _width_of_text_beside(plot: p9.ggplot, em: float) -> float:
    """Return the width in points that text beside the panel takes with its gaps; 0 without such text."""
    columns = [layer.mapping["label"] for layer in plot.layers if isinstance(layer.geom, geom_text_beside)]
    texts = [text for column in columns for text in cast("pd.DataFrame", plot.data)[column]]
    return max((text_width(line, em) + em for text in texts for line in text.split("\n")), default=0.0)


def _titles(labels: labels_view, config: FiguresConfig) -> dict[str, str | None]:
    names = {"title": TITLES, "subtitle": SUBTITLES, "caption": SUBTITLES}
    if not config.titles:
        return dict.fromkeys(names, "")
    width = 0.97 * config.width * POINTS_PER_INCH
    texts = {name: getattr(labels, name) for name in names}
    return {
        name: wrap(text, width, names[name] * config.font_size, bold=name == "title")
        for name, text in texts.items()
        if text
    }


def _letters(em: float) -> p9.theme:
    """Return the sizes of all letters, and what follows from them."""
    ticks, titles = p9.element_text(size=TICKS * em), p9.element_text(size=AXIS_TITLES * em)
    return p9.theme(
        axis_text=ticks,
        axis_title=titles,
        legend_text=ticks,
        legend_title=titles,
        legend_key_size=2 * em,
        strip_text=p9.element_text(size=em),
        plot_title=p9.element_text(size=TITLES * em),
        plot_subtitle=p9.element_text(size=SUBTITLES * em),
        plot_caption=p9.element_text(size=SUBTITLES * em),
    )


def _resize(geom: Any, em: float, width: float) -> None:
    """Set the size of annotations; points and lines of a narrow figure are smaller, with the root of its width."""
    if isinstance(geom, p9.geom_text):
        geom.aes_params["size"] = em
        return
    factor = min(1.0, (width / WIDTH) ** 0.5)
    for name in ("size", "stroke"):
        value = geom.aes_params.get(name, geom.DEFAULT_AES.get(name))
        if isinstance(value, int | float):
            geom.aes_params[name] = factor * value


def _refacet(facet: p9.facet_wrap, columns: int, width: float, em: float) -> p9.facet_wrap:
    """Return the facet with another number of columns, and titles that are wrapped to the width of a panel."""
    scales: dict[Any, Any] = {
        (False, False): "fixed",
        (True, True): "free",
        (True, False): "free_x",
        (False, True): "free_y",
    }
    return p9.facet_wrap(
        facet.vars,
        ncol=columns,
        scales=scales[facet.free["x"], facet.free["y"]],
        labeller=cast("Any", lambda text: wrap(text, width, em, bold=True)),
    )


def _legends_as_designed(plot: p9.ggplot, config: FiguresConfig) -> Legends:
    """Return what places the legends; a narrow figure has no room for them beside its panels."""
    em = config.font_size
    if config.width * POINTS_PER_INCH >= WIDTH_FOR_LEGEND * em:
        return []
    below = p9.theme(legend_position="bottom")
    bars = [scale for scale in plot.scales if isinstance(scale, p9.scale_fill_cmap)]
    long = p9.theme(legend_key_width=LEGEND_BAR * em, legend_key_height=1.5 * em)
    return [below, *(p9.guides(fill=p9.guide_colorbar(theme=long)) for _ in bars)]


def _legends_in_rows(plot: p9.ggplot, rows: int) -> Legends:
    """Return what places the legends below each other, each with its title on top of its keys in rows."""
    keys = [
        name
        for scale in plot.scales
        if isinstance(scale, scale_discrete) and scale.guide is not None
        for name in scale.aesthetics
        if name in ("color", "fill", "shape", "linetype")
    ]
    return [
        p9.theme(
            legend_position="bottom",
            legend_box="vertical",
            legend_box_just="left",
            legend_spacing=4,
            legend_title_position="top",
            legend_title=p9.element_text(ha="left"),
        ),
        p9.guides(**{name: p9.guide_legend(nrow=rows) for name in keys}),
    ]


def _try(plot: p9.ggplot, legends: Legends) -> tuple[p9.ggplot, Figure, float]:
    """Draw a plot with its legends placed, and return both and the excess of the widest legend.

    The excess is its width relative to what the figure has room for below the center of the panels; 1 if all fit.
    """
    plot = plot + legends
    figure = plot.draw()
    figure.draw_without_rendering()
    boxes = _legend_boxes(plot)
    if all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in boxes):
        return plot, figure, 1.0
    panels = [axes.get_window_extent() for axes in plot.axs]
    center = (max(panel.x1 for panel in panels) + min(panel.x0 for panel in panels)) / 2
    room = 2 * min(center, figure.bbox.width - center)
    return plot, figure, max(1.01, max(box.width for box in boxes) / room)


def _legend_boxes(plot: p9.ggplot) -> list[Bbox]:
    """Return where the legends of each side of a drawn plot are."""
    artists = plot.theme.targets.legends
    return [box.get_window_extent() for box in (artists.boxes if artists else [])]


def _set_height(plot: p9.ggplot, figure: Figure, config: FiguresConfig, aspect: float | None) -> None:
    """Make panels as high as their width, or legends beside them, demand; the height of all else follows from its
    letters."""
    em = config.font_size / POINTS_PER_INCH
    names = [text for text in plot.axs[0].get_yticklabels() if "\n" in text.get_text()]
    lines = max((text.get_text().count("\n") + 1 for text in names), default=0)
    least = max(MIN_HEIGHT, len(plot.axs[0].get_yticks()) * (1.3 * lines + 0.5) if lines else 0)
    rows = plot.facet.nrow
    for _ in range(2):
        figure.draw_without_rendering()
        width, height = figure.get_size_inches()
        panel = plot.axs[0].get_position()
        wanted = (aspect or ASPECT) * panel.width * width
        wanted = max(wanted if aspect else min(wanted, MAX_HEIGHT), least * em)
        if plot.theme.getp("legend_position") == "right":
            wanted = max([wanted, *(box.height / figure.dpi / rows for box in _legend_boxes(plot))])
        figure.set_size_inches(config.width, height + rows * (wanted - panel.height * height))


def _hide_overlapping_labels(plot: p9.ggplot, figure: Figure, config: FiguresConfig) -> None:
    """Label every second, third, … tick of an axis or color bar on which the labels would overlap."""
    figure.draw_without_rendering()
    gap = 0.4 * config.font_size / POINTS_PER_INCH * figure.dpi
    bars = plot.theme.targets.legend_text_colorbar
    for axes in plot.axs:
        _hide_overlapping(axes.texts)
        for labels, side in ((axes.get_xticklabels(), "x"), (axes.get_yticklabels(), "y")):
            _thin(labels, side, gap)
    _thin(bars, "x", gap)
    _thin(bars, "y", gap)


def _hide_overlapping(texts: Sequence[Text]) -> None:
    """Hide each annotation that would be drawn over an earlier one, where neither could be read."""
    boxes: list[Bbox] = []
    for text in texts:
        box = text.get_window_extent()
        if any(box.overlaps(other) for other in boxes):
            text.set_visible(False)
        else:
            boxes.append(box)


def _thin(labels: Sequence[Text], side: str, gap: float) -> None:
    shown = [label for label in labels if label.get_visible() and label.get_text()]
    ends = sorted((_ends(label, side), index) for index, label in enumerate(shown))
    if len({start for (start, _), _ in ends}) < 2:
        return
    stride = 1
    while any(
        other[0][0] - one[0][1] < gap * (side == "x")
        for one, other in zip(ends[::stride], ends[stride::stride], strict=False)
    ):
        stride += 1
    for place, (_, index) in enumerate(ends):
        if place % stride:
            shown[index].set_visible(False)


def _ends(label: Text, side: str) -> tuple[float, float]:
    box = label.get_window_extent()
    return (box.x0, box.x1) if side == "x" else (box.y0, box.y1)


def wrap(text: str, width: float, size: float, *, bold: bool = False) -> str:
    """Break the lines of a text between words, so that none is wider than `width` if its words are not.

    A wider word, such as the name of a module, is also broken after dots and underscores.

    Args:
        text: The text; its own line breaks stay.
        width: The width in points.
        size: The size of the letters in points.
        bold: Whether the letters are bold.
    """
    return "\n".join(_wrap_line(line, width, size, bold) for line in text.split("\n"))


def _wrap_line(line: str, width: float, size: float, bold: bool) -> str:
    lines: list[str] = []
    # A unit in parentheses stays together.
    for word in re.findall(r"\([^()]{,24}\)\S*|\S+", line):
        is_long = text_width(word, size, bold=bold) > width
        for place, part in enumerate(re.findall(r".+?(?:[._](?=\D)|$)", word) if is_long else [word]):
            longer = f"{lines[-1]}{'' if place else ' '}{part}" if lines else part
            if lines and text_width(longer, size, bold=bold) <= width:
                lines[-1] = longer
            else:
                lines.append(part)
    return "\n".join(lines)


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Return the width of a line of text in points."""
    font = FontProperties(family="DejaVu Sans", size=size, weight="bold" if bold else "normal")
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]
