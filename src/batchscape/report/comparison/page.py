"""The page of a comparison: one self-contained HTML page."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from batchscape.report.comparison.power_laws import describe_law
from batchscape.report.comparison.results import describe_value
from batchscape.report.measures import capitalize
from batchscape.report.numbers import MISSING
from batchscape.report.page import VERDICT_SIGNS, as_data_uri, load_script, load_template, security_policy
from batchscape.report.preview import TablePreview

# What a verdict says that the value does not.
SILENT = ("none", "inside", "confirmed", "chosen by the grid")
PER_TARGET = ("critical_batch", "critical_batch_20pct", "steps_ratio")


@dataclass(frozen=True)
class Part:
    """A table of the page, with a column for each study."""

    title: str
    about: str
    table: TablePreview


def render_comparison(
    studies: Sequence[str],
    notes: Sequence[str],
    differences: pd.DataFrame,
    comparison: pd.DataFrame,
    power_laws: pd.DataFrame,
    claims: pd.DataFrame,
    figure: bytes,
) -> str:
    """Render the comparison of studies as one HTML page without external resources.

    Args:
        studies: Names of the studies, in their order.
        notes: Sentences on what is missing and what cannot be compared.
        differences: The result of `find_differences`.
        comparison: The result of `tabulate`.
        power_laws: The result of `tabulate_power_laws`.
        claims: The result of `tabulate_claims`.
        figure: The figure, as PNG.

    Returns:
        The page; equal arguments give equal text.
    """
    script = load_script("tables.js")
    return load_template("comparison.html.jinja").render(
        policy=security_policy(script),
        scripts=[script],
        studies=studies,
        notes=notes,
        finished=len(differences.columns) - 2,
        differences=_preview(
            ["key", "decides", *differences.columns[2:]],
            [[row.iloc[0], *map(str, row.iloc[1:])] for _, row in differences.iterrows()],
        ),
        parts=_parts(studies, comparison),
        laws=[describe_law(row) for _, row in power_laws.iterrows()],
        claims=claims.assign(measured=[describe_value(row) for _, row in _as_values(claims).iterrows()]).to_dict(
            "records"
        ),
        verdict_signs=VERDICT_SIGNS,
        figure=as_data_uri(figure),
    )


def _as_values(claims: pd.DataFrame) -> pd.DataFrame:
    return claims.rename(columns={"ratio": "value"}).astype({"value": float, "ci95_low": float, "ci95_high": float})


def _preview(columns: list[str], rows: list[list[str]]) -> TablePreview:
    return TablePreview(columns, [False] * len(columns), rows, len(rows), len(rows))


def _parts(studies: Sequence[str], comparison: pd.DataFrame) -> list[Part]:
    """Return the results side by side. Of several targets, only the first one of each study is shown."""
    measured = [name for name in dict.fromkeys(comparison["quantity"]) if "test_" in name or "validation_" in name]
    first = comparison.drop_duplicates(["study", "quantity"])
    target = first[first["quantity"].eq("critical_batch") & first["verdict"].ne("missing")]
    targets = dict(zip(target["study"], target["of"], strict=True))
    of_target = comparison[
        [
            row.quantity not in PER_TARGET or row.of.rpartition(", ")[2] == targets.get(row.study, row.of)
            for row in comparison.itertuples()
        ]
    ]

    def rows(quantity: str, label: str = "") -> list[list[str]]:
        """Return a row for each thing that the quantity is of, or one with a label."""
        found = of_target[of_target["quantity"].eq(quantity) & of_target["verdict"].ne("missing")]
        if label:
            return [_row(label, studies, found)] if len(found) else []
        groups = found.assign(key=[of.partition(", ")[0] for of in found["of"]]).groupby("key", sort=False)
        return [_row(capitalize(str(key).replace("_", " ")), studies, group) for key, group in groups]

    recommended = rows("batch_size", "Batch size") + rows("learning_rate", "Learning rate")
    critical = [["First target", *(targets.get(name, MISSING) for name in studies)]] if targets else []
    parts = [
        (
            "The recommended settings",
            "A confirmed setting has its losses from fresh seeds, with 95 % intervals of their means. Losses in one "
            "row are the same quantity of the same data; others cannot be compared. An interval of few seeds may "
            "extend to values that the quantity cannot have, such as a cross-entropy below 0.",
            recommended + [row for name in measured for row in _loss_rows(name, studies, comparison)],
        ),
        (
            "By which power the best values follow the batch size",
            "Exponents over the batch size with 95 % intervals over seeds: 1 is linear scaling, 0.5 square-root "
            "scaling.",
            rows("exponent"),
        ),
        (
            "Best learning rates",
            "Of the constant rates, with 95 % intervals over seeds, and what the search found.",
            [[f"{row[0]}, grid", *row[1:]] for row in rows("best_learning_rate")]
            + [[f"{row[0]}, search", *row[1:]] for row in rows("tuned_learning_rate")],
        ),
        (
            "Critical batch sizes",
            "With 95 % intervals over seeds, for the first target of each study; at the 20 % critical batch size, "
            "training needs a fifth more steps than under perfect scaling. Examples of different kinds, such as images "
            "and blocks of text, cannot be compared.",
            critical
            + rows("critical_batch", "Critical batch size")
            + rows("critical_batch_20pct", "20 % critical batch size"),
        ),
        (
            "Regimes",
            "Factor of the steps to the first target for a doubling of the batch size, with 95 % intervals over seeds: "
            "1/2 is perfect scaling, 1 saves no steps.",
            rows("steps_ratio"),
        ),
    ]
    return [Part(title, about, _preview(["", *studies], table)) for title, about, table in parts if table]


def _row(label: str, studies: Sequence[str], found: pd.DataFrame) -> list[str]:
    by_study = {row["study"]: row for _, row in found.iterrows()}
    return [label, *(_cell(by_study.get(name)) for name in studies)]


def _cell(row: pd.Series | None) -> str:
    if row is None or row["verdict"] == "missing":
        return MISSING
    texts = [f"{describe_value(row)} {row['unit']}".removesuffix(" none")]
    if row["verdict"] not in SILENT:
        texts.append(str(row["verdict"]))
    if row["quantity"] in ("batch_size", "learning_rate") and row["note"] != "none":
        texts.append(str(row["note"]))
    if row["quantity"] == "batch_size" and row["verdict"] == "chosen by the grid":
        texts.append("not confirmed")
    return ", ".join(texts)


def _loss_rows(quantity: str, studies: Sequence[str], comparison: pd.DataFrame) -> Iterable[list[str]]:
    """Return a row for each group of studies that have this loss or metric of the same kind, unit and data."""
    found = comparison[comparison["quantity"] == quantity]
    groups: Mapping[tuple[str, ...], pd.DataFrame] = dict(list(found.groupby(["measure", "unit"], sort=False)))
    for (measure, _), rows in groups.items():
        label, _, data = measure.rpartition(", ")
        side = "Test" if quantity.startswith("test_") else "Validation"
        yield _row(f"{side} {label}" + (f", {data}" if len(groups) > 1 else ""), studies, rows)
