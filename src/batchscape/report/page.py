"""The report: one page that needs nothing beside it."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from batchscape.report.chapters import CHAPTERS
from batchscape.report.chapters.chapter import Caption
from batchscape.report.findings import describe_findings
from batchscape.report.preview import TablePreview, preview_table
from batchscape.report.summary import cost_column, summarize

ROWS = 24
ANSWER_ROWS = 8
VERDICTS = {"supported": "✔", "refuted": "✘", "undecided": "?"}


@dataclass(frozen=True)
class Table:
    """A table below a figure; one that stands further up already has no digest."""

    name: str
    digest: TablePreview | None


@dataclass(frozen=True)
class Figure:
    name: str
    caption: Caption
    image: str
    """A data: URI."""
    findings: list[str]
    tables: list[Table]


@dataclass(frozen=True)
class Partial:
    """What a page of a study that is not complete says on top."""

    notes: list[str]
    missing: list[tuple[str, str]]
    """What the page lacks, and why."""
    batch_sizes: Sequence[int] = ()
    """Those of which no run is complete."""


def render(
    name: str,
    config: str,
    figures: Mapping[str, bytes],
    tables: Mapping[str, pd.DataFrame],
    tables_of: Mapping[str, Sequence[str]],
    provenance: Sequence[tuple[str, str]],
    fixed_learning_rate: float,
    partial: Partial | None = None,
) -> str:
    """Return the page of a study as HTML; equal arguments give equal text.

    `config` is the study file as text, `figures` are PNGs and `tables` data frames by name; `tables_of` names the
    tables that each figure is drawn from. `tables` has at least `runs`, and `recommendation` unless the page is
    `partial`. `fixed_learning_rate` is the learning rate at which batch sizes are compared.
    """
    environment = Environment(
        loader=PackageLoader("batchscape.report", "template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown: set[str] = set()
    claims = tables["claims"].to_dict("records") if "claims" in tables else []
    chapters = []
    for chapter in CHAPTERS:
        drawn = [
            _figure(figure, figures, tables, tables_of, fixed_learning_rate, shown)
            for figure in chapter.figures
            if figure in figures
        ]
        if drawn or (chapter.key == "claims" and claims):
            chapters.append({"chapter": chapter, "figures": drawn, "claims": claims if chapter.key == "claims" else []})
    clock, _ = cost_column(tables["runs"])
    columns = ["setting", "learning_rate", "best_validation_loss", "choice", clock, "best_epoch"]
    columns += ["difference_to_best", "ci95_low", "ci95_high"]
    recommendation = tables.get("recommendation")
    return environment.get_template("page.html.jinja").render(
        name=name,
        config=config,
        partial=partial,
        answer=None
        if recommendation is None
        else summarize(recommendation, tables["runs"], tables.get("tuned_lr"), partial.batch_sizes if partial else ()),
        settings=None if recommendation is None else preview_table(recommendation, ANSWER_ROWS, columns),
        chapters=chapters,
        signs=VERDICTS,
        provenance=provenance,
        runs=tables["runs"],
    )


def _figure(
    name: str,
    figures: Mapping[str, bytes],
    tables: Mapping[str, pd.DataFrame],
    tables_of: Mapping[str, Sequence[str]],
    fixed_learning_rate: float,
    shown: set[str],
) -> Figure:
    """Return a figure with its tables, and note in `shown` which tables have been shown by now."""
    below = []
    for table in tables_of.get(name, ()):
        below.append(Table(table, None if table in shown else preview_table(tables[table], ROWS)))
        shown.add(table)
    caption = next(chapter.figures[name] for chapter in CHAPTERS if name in chapter.figures)
    image = f"data:image/png;base64,{base64.b64encode(figures[name]).decode()}"
    return Figure(name, caption, image, describe_findings(name, tables, fixed_learning_rate), below)
