"""The files of a figure."""

from collections.abc import Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import get_args

import plotnine as p9
from matplotlib.figure import Figure
from PIL import Image
from plotnine._mpl.offsetbox import DPICorAuxTransformBox

from batchscape.config.figures import POINTS_PER_INCH, FigureFormat, FiguresConfig
from batchscape.io.files import write_atomically
from batchscape.report.figures.layout import drawn, title_and_remarks

# Pixels per inch of a PNG, and its least width in pixels: a narrow figure is shown as large on the page as a wide one.
DPI, MIN_PIXELS = 200, 1300
REMARKS = "Description"


def render_png(plot: p9.ggplot, config: FiguresConfig) -> bytes:
    """Return a plot as PNG, with the same bytes as `write_figure` writes."""
    stream, (title, remarks) = BytesIO(), title_and_remarks(plot)
    with drawn(plot, config) as figure:
        _save(figure, stream, kind="png", title=title, remarks=remarks)
    return stream.getvalue()


def write_figure(plot: p9.ggplot, files: Sequence[Path], config: FiguresConfig) -> None:
    """Write a plot in the formats that the suffixes of `files` name; equal plots give equal bytes.

    Files of the other formats are deleted: they would show an older state.
    """
    title, remarks = title_and_remarks(plot)
    with drawn(plot, config) as figure:
        for file in files:
            write_atomically(file, partial(_save, figure, kind=file.suffix[1:], title=title, remarks=remarks))
    for kind in get_args(FigureFormat):
        if (other := files[0].with_suffix(f".{kind}")) not in files:
            other.unlink(missing_ok=True)


def read_remarks(png: bytes) -> str:
    """Return the remarks on a figure, such as its number of seeds, that its PNG holds; empty without any."""
    with Image.open(BytesIO(png)) as image:
        return str(image.info.get(REMARKS, ""))


def _save(figure: Figure, target: Path | BytesIO, *, kind: str, title: str, remarks: str) -> None:
    # No date, because it would make equal plots differ.
    metadata: dict[str, dict[str, str | None]] = {
        "png": {"Title": title, REMARKS: remarks},
        "pdf": {"Title": title, "Subject": remarks, "CreationDate": None},
        "svg": {"Title": title, REMARKS: remarks, "Date": None},
    }
    dpi = max(DPI, MIN_PIXELS / figure.get_figwidth())
    # Color bars keep the size of the first resolution that they are drawn with; vector graphics have a unit per point.
    for bar in figure.findobj(DPICorAuxTransformBox):
        scale = (dpi if kind == "png" else POINTS_PER_INCH) / POINTS_PER_INCH
        bar.dpi_transform.clear().scale(scale)
    figure.savefig(target, format=kind, dpi=dpi, metadata=metadata[kind])
