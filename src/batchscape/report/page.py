"""The report: one self-contained HTML page."""

import base64
import hashlib
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial as partial_call
from importlib.resources import files
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from batchscape.report.chapters import CAPTIONS, CHAPTERS
from batchscape.report.chapters.chapter import Caption
from batchscape.report.figures.files import read_remarks
from batchscape.report.findings import describe_findings
from batchscape.report.interactive.library import plotly_js
from batchscape.report.interactive.payload import build_payload
from batchscape.report.measures import Measures
from batchscape.report.preview import TablePreview, preview_table
from batchscape.report.ranking import cost_column
from batchscape.report.summary import summarize

MAX_TABLE_ROWS = 24
MAX_ANSWER_ROWS = 8
MAX_PAGE_BYTES = 10_000_000
"""Of a report; if its static figures leave too little space, its interactive ones have fewer points."""
VERDICT_SIGNS = {"supported": "✔", "refuted": "✘", "no relevant difference": "≈", "undecided": "?", "not tested": "–"}


@dataclass(frozen=True)
class Table:
    """A table below a figure; `preview` is None if the page shows it further up."""

    name: str
    preview: TablePreview | None


@dataclass(frozen=True)
class Figure:
    """A figure with its caption, findings and tables."""

    name: str
    caption: Caption
    image: str
    """A data: URI."""
    remarks: str
    """What its subtitle would say, if it has none."""
    vector_files: list[str]
    findings: list[str]
    tables: list[Table]


@dataclass(frozen=True)
class PartialReport:
    """The notice at the top of the page of an incomplete study."""

    notes: list[str]
    missing: list[tuple[str, str]]
    """The missing parts, each with the reason."""
    batch_sizes: Sequence[int] = ()
    """The batch sizes without a complete run."""

    @property
    def kind(self) -> str:
        """What the report is: `partial`, or `provisional` if nothing is missing but `report.html`."""
        return "partial" if self.missing else "provisional"


def load_template(name: str) -> Template:
    """Return a template of a page."""
    environment = Environment(
        loader=PackageLoader("batchscape.report", "template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def load_script(name: str) -> str:
    """Return a script of the pages, as it is between its tags."""
    return (files("batchscape.report") / "template" / name).read_text()


def security_policy(*scripts: str) -> str:
    """Return the content security policy of a page that runs only these scripts and loads nothing.

    Args:
        scripts: The scripts, each of which is allowed by its hash.
    """
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{each}'" for each in hashes)
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"


def as_data_uri(image: bytes) -> str:
    """Return a PNG image as a data: URI."""
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


def read_config(page: str) -> str:
    """Return the config that a page of `render` shows; empty if it shows none."""
    _, _, rest = page.rpartition('<details class="config" id="config">')
    _, found, text = rest.partition('<pre class="wide" tabindex="0">')
    return html.unescape(text.partition("</pre>")[0]) if found else ""


def render(
    spec: Mapping[str, Any],
    figures: Mapping[str, bytes],
    tables: Mapping[str, pd.DataFrame],
    provenance: Sequence[tuple[str, str]],
    partial: PartialReport | None = None,
    analyses: Mapping[str, pd.DataFrame] | None = None,
) -> str:
    """Render the report of a study as one HTML page without external resources.

    Figures can be explored where the page runs scripts, and tables sorted and filtered.

    Args:
        spec: What the report depends on, see `Specs.report`.
        figures: PNG images by figure name.
        tables: Tables by name; `runs` is required, and so is `recommendation` unless `partial` is given.
        provenance: Names and values, from `collect_provenance`.
        partial: Notice for an incomplete study.
        analyses: Results of analyses by name, from which the interactive figures draw the runs; those that are missing
            leave out the runs of their figures.

    Returns:
        The page; equal arguments give equal text.
    """
    measures = Measures.from_settings(spec["measures"])
    shown: set[str] = set()
    claims = tables["claims"].to_dict("records") if "claims" in tables else []
    chapters = []
    for chapter in CHAPTERS:
        drawn = [
            _figure(figure, spec, figures, tables, measures, shown) for figure in chapter.figures if figure in figures
        ]
        if drawn or (chapter.key == "claims" and claims):
            chapters.append({"chapter": chapter, "figures": drawn, "claims": claims if chapter.key == "claims" else []})
    cost, _ = cost_column(tables["runs"])
    recommendation = tables.get("recommendation")
    confirmation = tables.get("confirmation")
    answer = settings = finalists = None
    if recommendation is not None:
        missing_batch_sizes = partial.batch_sizes if partial else ()
        answer = summarize(
            recommendation,
            tables["runs"],
            measures,
            tables.get("tuned_lr"),
            missing_batch_sizes,
            spec["recipe"],
            tables.get("scaling"),
            confirmation,
            spec["trial_budget"],
        )
        # Metrics are in the sentences above, and one more column would not fit on the page.
        extra = "test_loss" if "test_loss_mean" in recommendation else "best_epoch"
        columns = ["setting", "learning_rate", "best_validation_loss", extra, "choice", cost]
        columns += ["difference_to_best", "ci95_low", "ci95_high"]
        settings = preview_table(recommendation, MAX_ANSWER_ROWS, measures, columns)
    if confirmation is not None:
        columns = ["setting", "n_seeds", "best_validation_loss"]
        columns += ["test_loss"] if "test_loss_mean" in confirmation else []
        columns += ["choice", "difference_to_chosen", "ci95_low", "ci95_high"]
        finalists = preview_table(confirmation, MAX_ANSWER_ROWS, measures, columns)
    frames = {f"tables/{name}": table for name, table in tables.items()}
    frames |= {f"analysis/{name}": rows for name, rows in (analyses or {}).items()}
    library = plotly_js()
    scripts = [load_script("tables.js"), load_script("explore.js")]
    page = partial_call(
        load_template("page.html.jinja").render,
        name=spec["name"],
        config=spec["config"],
        partial=partial,
        answer=answer,
        settings=settings,
        finalists=finalists,
        protocol=spec["protocol"],
        chapters=chapters,
        verdicts=_group_by_verdict(claims),
        verdict_signs=VERDICT_SIGNS,
        provenance=provenance,
        runs=tables["runs"],
        policy=security_policy(*scripts, library.source),
        scripts=scripts,
        library=library.text,
    )
    remaining = MAX_PAGE_BYTES - len(page(payload="{}").encode())
    return page(payload=build_payload([name for name in CAPTIONS if name in figures], frames, measures, remaining))


def _group_by_verdict(claims: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Return the verdicts in the order of their signs, each with its claims."""
    groups = [(verdict, [claim for claim in claims if claim["verdict"] == verdict]) for verdict in VERDICT_SIGNS]
    return [(verdict, group) for verdict, group in groups if group]


def _figure(
    name: str,
    spec: Mapping[str, Any],
    figures: Mapping[str, bytes],
    tables: Mapping[str, pd.DataFrame],
    measures: Measures,
    shown: set[str],
) -> Figure:
    """Return a figure with its tables; add to `shown` the tables that it shows."""
    below = []
    for table in spec["tables"].get(name, ()):
        below.append(Table(table, None if table in shown else preview_table(tables[table], MAX_TABLE_ROWS, measures)))
        shown.add(table)
    caption = CAPTIONS[name].in_words_of(measures)
    findings = describe_findings(name, tables, spec["fixed_learning_rate"], measures)
    remarks = "" if spec["figures"]["titles"] else read_remarks(figures[name])
    files = [f"figures/{name}.{kind}" for kind in spec["figures"]["formats"] if kind != "png"]
    return Figure(name, caption, as_data_uri(figures[name]), remarks, files, findings, below)
