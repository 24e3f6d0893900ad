"""The report page: self-contained, every figure once, and robust against the texts of a study."""

import base64
import gzip
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from docutils.core import publish_parts
from PIL import Image
from ruamel.yaml import YAML

from batchscape.io.frames import read_frame, write_frame
from batchscape.report import page as page_module
from batchscape.report.chapters import CAPTIONS, CATEGORIES, CHAPTERS
from batchscape.report.interactive.library import plotly_js
from batchscape.report.numbers import format_mean_sd, format_number
from batchscape.report.page import PartialReport, read_config, render
from batchscape.report.preview import preview_table
from batchscape.report.provenance import collect_provenance
from batchscape.report.summary import summarize
from batchscape.report.tables import best_lr, lr_grid, recommendation
from batchscape.runtime.duration import format_duration
from batchscape.study.registry import FIGURES
from batchscape.study.study import Study
from tests.helpers.checkout import PROJECT
from tests.helpers.measures import METRICS, WORDS, make_report_spec
from tests.helpers.page import ParsedPage
from tests.helpers.tables import DIVERGED, synthetic_runs

LOSSES = {(32, 0.1): [0.10, 0.20, 0.30], (64, 0.1): [0.12, 0.19, 0.31], (128, 0.1): [0.2, 0.3, DIVERGED]}
URL_ATTRIBUTES = {"src", "srcset", "data", "poster", "action", "background"}


def make_png(color: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (8, 4), color).save(stream, "png")
    return stream.getvalue()


MANIFEST = pd.DataFrame(
    [("a", "train", ""), ("b", "train", ""), ("a", "validation", ""), ("b", "", "not an image: x")],
    columns=["class", "split", "reason"],
)


def make_summaries(runs: pd.DataFrame, **environment: object) -> list[dict]:
    place = {"python": "3.11", "packages": {"torch": "2.13", "numpy": None}, "platform": "Linux", "processor": "A CPU"}
    return [
        {
            "status": run.status,
            "spec": {"seed": run.seed},
            "training_examples": 1438,
            "validation_examples": 359,
            "classes": ["even", "odd"],
            "parameters": 569,
            "environment": {**place, "cpus": 2, "threads": 1, "device": "cpu", "devices": 1, "nodes": 1, **environment},
            "provenance": {
                "source_commit": None,
                "data_sha256": "abc",
                "started": f"2026-01-0{run.seed + 1}T00:00:00+00:00",
                "finished": f"2026-01-0{run.seed + 1}T01:00:00+00:00",
            },
        }
        for run in runs.itertuples()
    ]


def render_page(
    runs: pd.DataFrame | None = None,
    figures: Sequence[str] = tuple(FIGURES),
    name: str = "a-study",
    tables: Mapping[str, pd.DataFrame] | None = None,
    partial: PartialReport | None = None,
) -> str:
    runs = synthetic_runs(LOSSES) if runs is None else runs
    runs = runs.assign(epochs=10)
    grid = lr_grid.tabulate(runs, metrics=METRICS)
    best = best_lr.tabulate(grid)
    made = {
        "runs": runs,
        "lr_grid": grid,
        "best_lr": best,
        "recommendation": recommendation.tabulate(runs, best, metrics=METRICS),
    }
    pictures = {figure: make_png(place) for place, figure in enumerate(figures)}
    tables_of = {"convergence": ["lr_grid", "runs"], "lr_effect": ["best_lr", "lr_grid"]}
    origin = collect_provenance(make_summaries(runs), runs, MANIFEST, WORDS)
    spec = make_report_spec(name=name, config=f"name: {name}", tables=tables_of)
    return render(spec, pictures, {**made, **(tables or {})}, origin, partial)


def make_claims(**values: object) -> pd.DataFrame:
    claim = {
        "claim": "sharper", "statement": "Larger batches find sharper minima", "source": "Keskar et al. 2017",
        "comparison": "batch 128 against 32", "measure": "Keskar's φ", "scale": "difference", "claimed": "greater",
        "effect": 1.9, "ci95_low": 0.1, "ci95_high": 3.7, "n_seeds": 3, "n_missing": 0, "verdict": "supported",
        "seeds_needed": None, "holds_after_holm": 1.0, "reading": "It is 1.9 higher.",
        "protocol": "fixed rate, to convergence",
    }  # fmt: skip
    return pd.DataFrame([{**claim, **values}])


def test_every_figure_is_included_once_in_the_order_of_the_chapters():
    images = ParsedPage(render_page()).all("img")
    assert len(images) == len(FIGURES)
    for name, image in zip(CAPTIONS, images, strict=True):
        head, _, data = image["src"].partition(",")
        assert head == "data:image/png;base64"
        decoded = Image.open(io.BytesIO(base64.b64decode(data)))
        assert decoded.getpixel((0, 0)) == list(FIGURES).index(name)
        assert image["alt"].startswith(CAPTIONS[name].title)


def test_page_loads_nothing_and_runs_only_its_own_scripts():
    text = render_page(tables={"claims": make_claims()})
    parsed = ParsedPage(text)
    for tag, attributes in parsed.elements:
        for key in URL_ATTRIBUTES & set(attributes):
            assert attributes[key].startswith("data:"), (tag, key)
        assert not {name for name in attributes if name.startswith("on")}
    assert parsed.all("link") == [{"rel": "icon", "href": "data:,"}]
    assert not {tag for tag, _ in parsed.elements} & {"iframe", "object", "embed", "base", "form"}
    policy = next(meta["content"] for meta in parsed.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    directives = dict(each.split(" ", 1) for each in policy.split("; "))
    assert directives["default-src"] == "'none'"
    # Each script is allowed by its hash, and no other one.
    scripts = [*re.findall(r"<script>(.*?)</script>", text, re.DOTALL), plotly_js().source]
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert directives["script-src"].split() == [f"'sha256-{each}'" for each in hashes]
    assert parsed.all("script") == [
        {"type": "application/json", "id": "explore-data"}, {"type": "text/plain", "id": "explore-library"}, {}, {}
    ]  # fmt: skip
    style = files("batchscape.report").joinpath("template", "page.css").read_text()
    assert "url(" not in style
    assert "@import" not in style


def test_embedded_library_is_plotly_js():
    text = re.search(r'<script type="text/plain" id="explore-library">(.*?)</script>', render_page(), re.DOTALL)[1]
    assert b"plotly.js v" in gzip.decompress(base64.b64decode(text))[:100]


def test_page_stays_below_its_limit(monkeypatch: pytest.MonkeyPatch):
    complete = render_page()
    monkeypatch.setattr(page_module, "MAX_PAGE_BYTES", len(complete.encode()) - 100)
    smaller = render_page()
    assert len(smaller.encode()) < len(complete.encode()) - 100
    # Where no data fits, all figures are static.
    monkeypatch.setattr(page_module, "MAX_PAGE_BYTES", 0)
    static = render_page()
    assert 'id="explore-library"' in smaller
    assert 'id="explore-library"' not in static
    assert len(ParsedPage(static).all("img")) == len(ParsedPage(complete).all("img"))


def test_page_has_valid_metadata_ids_and_links():
    parsed = ParsedPage(render_page())
    assert parsed.open == []
    assert parsed.all("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in parsed.all("meta")
    assert "a-study: batch size and learning rate" in parsed.text
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"][1:] for link in parsed.all("a") if link["href"].startswith("#")} <= set(ids)


@pytest.mark.parametrize("file", sorted((PROJECT / "config").glob("*.yaml")), ids=lambda file: file.stem)
def test_config_of_the_page_reads_back_as_the_same_study(file: Path):
    study = Study.from_file(file)
    runs = synthetic_runs(LOSSES).assign(epochs=10)
    config = json.loads(study.specs.report)["config"] + "# <pre> &amp; </pre>\n"
    page = render(make_report_spec(config=config), {}, {"runs": runs}, [])
    assert read_config(page) == config
    again = Study.from_mapping(YAML(typ="safe", pure=True).load(read_config(page)), "page")
    assert again == study
    assert again.runs == study.runs


def test_page_without_config_reads_as_none():
    assert read_config("<p>") == ""


def test_table_is_shown_once_and_linked_afterwards():
    text = render_page()
    assert text.count('id="table-lr_grid"') == 1
    assert text.count('href="#table-lr_grid"') == 1


def test_texts_are_escaped():
    odd = "<script>alert(\"1\")</script> & 'x'"
    text = render_page(name=odd, tables={"claims": make_claims(statement=odd, reading=odd, source=odd)})
    assert odd not in text
    assert "<script>alert" not in text
    assert ParsedPage(text).text.count(odd) >= 5


def test_nan_is_shown_as_a_dash():
    parsed = ParsedPage(render_page(synthetic_runs({(32, 0.1): [0.2], (64, 0.1): [DIVERGED]})))
    assert "nan" not in parsed.text.split()
    assert "–" in parsed.text


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        ("supported", "✔ supported"),
        ("refuted", "✘ refuted"),
        ("no relevant difference", "≈ no relevant difference"),
        ("undecided", "? undecided"),
        ("not tested", "– not tested"),
    ],
)
def test_verdicts_have_words_and_signs(verdict: str, expected: str):
    assert expected in ParsedPage(render_page(tables={"claims": make_claims(verdict=verdict)})).text


def test_untested_claim_gives_the_reason():
    untested = make_claims(comparison="none", verdict="not tested", effect=np.nan, reading="Not tested: no linear arm.")
    text = ParsedPage(render_page(tables={"claims": untested})).text
    assert "Not tested: no linear arm." in text
    assert "Keskar's φ. Protocol: fixed rate, to convergence. Source: Keskar et al. 2017" in text


def test_page_without_claims_and_analyses_has_the_other_sections():
    parsed = ParsedPage(render_page(figures=["curves_fixed_lr", "lr_effect"]))
    ids = [attributes.get("id") for tag, attributes in parsed.elements if tag == "section"]
    assert ids == ["answer", "fixed-rate", "rate-search", "provenance"]


def test_equal_studies_give_equal_pages():
    assert render_page() == render_page()


def test_study_in_which_all_runs_diverged_has_a_page():
    assert "No setting can be recommended." in render_page(
        synthetic_runs({(32, 0.1): [DIVERGED], (64, 0.1): [DIVERGED]})
    )


# The chapters.


def test_every_figure_has_one_caption_and_one_category():
    assert set(CAPTIONS) == set(FIGURES)
    assert set(CATEGORIES) == set(CAPTIONS)
    assert list(CATEGORIES.values()) == sorted(CATEGORIES.values())
    assert len(CAPTIONS) == sum(len(chapter.figures) for chapter in CHAPTERS)


@pytest.mark.parametrize("name", CAPTIONS)
def test_caption_is_valid_restructured_text_without_markup(name: str):
    caption = CAPTIONS[name]
    assert all((caption.title, caption.shows, caption.reading, caption.surprise, caption.papers))
    text = "\n\n".join((caption.shows, caption.reading, caption.surprise, *(paper.name for paper in caption.papers)))
    strict = {"halt_level": 2, "report_level": 2}
    body = publish_parts(text, writer="html", settings_overrides=strict)["body"]
    plain = ParsedPage(body)
    assert {tag for tag, _ in plain.elements} == {"p"}  # no accidental markup
    assert plain.text.split() == text.split()


# The answer.


def answer_texts(runs: pd.DataFrame) -> tuple[str, str, str]:
    runs = runs.assign(epochs=10)
    best = best_lr.tabulate(lr_grid.tabulate(runs, metrics=METRICS))
    found = summarize(recommendation.tabulate(runs, best, metrics=METRICS), runs, WORDS)
    return found.headline, " ".join(found.reasons), " ".join(found.caveats)


def test_answer_names_the_cheapest_equivalent_setting_and_its_cost():
    runs = synthetic_runs({**LOSSES, (256, 0.1): [0.5, 0.6, 0.7]}, {(32, 0.1): 9.0, (64, 0.1): 3.0})
    headline, reasons, caveats = answer_texts(runs)
    assert headline == (
        "Train with batch size 64 at learning rate 0.1; 1 other setting is not distinguishable from it."
    )
    assert "that of batch size 32 at learning rate 0.1: 0.20 ± 0.10 nats, accuracy 9 ± 0 (3 seeds" in reasons
    assert "3 ± 0 CPU s to its best epoch, at a loss of 0.207 ± 0.096 nats" in reasons
    assert "other settings: 1 worse (" in reasons
    assert "3 seeds are few" in caveats
    assert "Batch size 32 is the smallest one tried" in caveats
    assert "In 1 of 4 settings a run diverged" in caveats
    assert "bs128-lr0.1" in caveats
    assert "on the edge of the tried range" in caveats


def test_answer_lists_the_tuned_rates():
    runs = synthetic_runs(LOSSES).assign(epochs=10)
    sizes = np.array([32, 64, 128, 256])
    rates = 0.1 * (sizes / 32)
    found = pd.DataFrame({"batch_size": sizes, "tuned_learning_rate": rates, "validation_loss": 0.2, "edge": "none"})
    found.loc[2, "edge"] = "high"
    table = recommendation.tabulate(runs, best_lr.tabulate(lr_grid.tabulate(runs, metrics=METRICS)), metrics=METRICS)
    sentence = summarize(table, runs, WORDS, found).reasons[-1]
    assert sentence == (
        "Tuned learning rates: 0.1, 0.2, 0.4, 0.8 for batch sizes 32, 64, 128, 256. On the edge of the search range, "
        "hence only a bound: batch size 128."
    )
    assert summarize(table, runs, WORDS, found.head(1)).reasons == summarize(table, runs, WORDS).reasons
    spent = found.assign(spent_search=[0, 0.1, 0, 0], spent_extension=[0, 0, 0.1, 0])
    assert (
        summarize(table, runs, WORDS, spent)
        .reasons[-1]
        .startswith("For batch size 32, 256 tuning.budget paid no trial")
    )
    lost = pd.DataFrame({"batch_size": [512], "tuned_learning_rate": 1e-3, "validation_loss": np.inf, "edge": "low"})
    *_, warning, again = summarize(table, runs, WORDS, pd.concat([found, lost])).reasons
    assert warning == "In the learning rate search, every trial of batch size 512 diverged."
    assert again == sentence  # a search without a result has no rate


def test_answer_names_all_hyperparameters_that_the_search_found():
    losses = {(32, 0.1): [0.2, 0.3, 0.25], (64, 0.2): [0.02, 0.03, 0.025]}
    runs = synthetic_runs(losses).assign(epochs=10)
    runs["setting"] = runs["setting"].replace("bs64-lr0.2", "bs64-lrtuned")
    found = pd.DataFrame({"batch_size": [32, 64], "tuned_learning_rate": [0.1, 0.2], "validation_loss": 0.2})
    found = found.assign(edge="none", tuned_momentum=[0.9, 0.95], tuned_beta2=[0.9991234567, 0.996], tuned_warmup=0.05)
    best = best_lr.tabulate(lr_grid.tabulate(runs, metrics=METRICS))
    answer = summarize(recommendation.tabulate(runs, best, metrics=METRICS), runs, WORDS, found)
    values = "momentum 0.95, β₂ 0.996, with a warm-up of 5 % of the budget"
    assert answer.headline.startswith(f"Train with batch size 64 at learning rate 0.2 (tuned), {values}")
    assert "With them: β₂ 0.999123, β₂ 0.996." in answer.reasons
    assert "momentum 0.9," not in answer.headline


def test_answer_of_one_seed_is_only_the_best_setting_seen():
    headline, reasons, caveats = answer_texts(synthetic_runs({(32, 0.1): [0.2], (64, 0.1): [0.3]}))
    assert headline == (
        "Best setting seen, with one seed: batch size 32 at learning rate 0.1; 1 other setting is not distinguishable "
        "from it."
    )
    assert "(one seed)" in reasons
    assert "no difference here is certain" in caveats


def test_runs_stopped_by_max_epochs_are_a_caveat():
    runs = synthetic_runs({(32, 0.1): [0.2, 0.3], (64, 0.1): [0.3, 0.4]})
    runs.loc[runs["batch_size"] == 64, "status"] = "budget_spent"
    assert "2 of 4 runs (0 of them of the settings named above) were ended by training.budget" in answer_texts(runs)[2]


# Provenance, tables and numbers.


def test_provenance_lists_shared_and_differing_values():
    runs = synthetic_runs({(32, 0.1): [0.1, DIVERGED, 0.3]}).assign(epochs=10)
    records = make_summaries(runs)
    records[0]["environment"]["device"] = "A GPU"
    found = dict(collect_provenance(records, runs, MANIFEST, WORDS))
    assert ("Data", "2 classes: a (2), b (1)") in collect_provenance(records, runs, MANIFEST, WORDS)
    assert found["Runs"] == "3: 2 converged, 1 diverged"
    assert found["Device"] == "cpu (2 runs), A GPU (1 runs)"
    assert found["torch"] == "2.13"
    assert found["numpy"] == "unknown"
    assert found["First run started"] == "2026-01-01 00:00:00 UTC"
    assert found["Last run finished"] == "2026-01-03 01:00:00 UTC"


def test_provenance_describes_data_with_numeric_classes_and_no_dropped_files(tmp_path: Path):
    manifest = pd.DataFrame({"class": ["0", "10"], "split": ["train", "validation"], "reason": ["", ""]})
    write_frame(tmp_path / "manifest.csv", manifest)
    runs = synthetic_runs({(32, 0.1): [0.1, 0.2]}).assign(epochs=10)
    rows = collect_provenance(make_summaries(runs), runs, read_frame(tmp_path / "manifest.csv", text=True), WORDS)
    assert ("Data", "2 of 2 files are used: 1 for training, 1 for validation") in rows
    assert ("Data", "2 classes: 0 (1), 10 (1)") in rows


def test_preview_omits_columns_without_values_but_not_quantities():
    table = pd.DataFrame(
        {"x_mean": [np.nan] * 2, "x_sd": np.nan, "not_computed": np.nan, "note": ["", "no derivative"]}
    )
    assert preview_table(table, 2, WORDS).columns == ["x", "Note"]
    near_one = pd.DataFrame({"tuned_beta2": [0.9996], "tuned_learning_rate": [0.123456]})
    assert preview_table(near_one, 2, WORDS).rows == [["0.9996", "0.123"]]
    assert preview_table(table, 2, WORDS).rows == [["–", ""], ["–", "no derivative"]]


def test_batch_size_without_complete_runs_counts_as_tried():
    runs = synthetic_runs({(64, 0.1): [0.2, 0.3, 0.2]})
    beyond = "Batch size 64 is the smallest one tried"
    assert beyond in ParsedPage(render_page(runs, partial=PartialReport([], [], [128]))).text
    text = ParsedPage(render_page(runs, partial=PartialReport([], [], [32]))).text
    assert beyond not in text
    assert "No run of batch size 32 is complete, so it is unknown whether it is better." in text


def test_partial_page_starts_with_what_is_missing():
    partial = PartialReport(["3 of 4 runs complete"], [("figure x", "a <reason>")])
    text = ParsedPage(render_page(partial=partial)).text
    places = [
        text.index(part) for part in ("This report is partial", "3 of 4 runs", "figure x: a <reason>", "The answer")
    ]
    assert places == sorted(places)
    assert "partial" not in render_page()


def test_page_of_a_complete_study_without_a_report_is_not_partial():
    page = render_page(partial=PartialReport(["4 of 4 runs complete"], []))
    assert "<title>a-study (provisional): " in page
    text = " ".join(ParsedPage(page).text.split())
    assert "This report is provisional 4 of 4 runs complete. No run or analysis is missing; " in text
    assert "partial" not in page
    assert "missing parts" not in page


def test_partial_page_without_a_recommendation_has_no_answer():
    runs = synthetic_runs(LOSSES).assign(epochs=10)
    origin = collect_provenance(make_summaries(runs), runs, MANIFEST, WORDS)
    text = render(make_report_spec(), {}, {"runs": runs}, origin, PartialReport([], []))
    assert "No answer: the table recommendation is missing." in ParsedPage(text).text


def test_preview_joins_mean_and_sd_and_keeps_the_first_rows():
    table = pd.DataFrame(
        {"layer": ["a", "b", "c"], "loss_mean": [0.5, np.nan, 1], "loss_sd": [0.01, np.nan, np.nan], "loss_max": 9.0}
    ).assign(n_seeds=[3, 0, 1], x_min=0.123456)
    found = preview_table(table, 2, WORDS)
    assert found.columns == ["Layer", "Loss (nats)", "Seeds", "X min"]
    assert found.numeric == [False, True, True, True]
    assert found.rows == [["a", "0.500 ± 0.010", "3", "0.123"], ["b", "–", "0", "0.123"], ["c", "1", "1", "0.123"]]
    assert (found.shown, found.total) == (2, 3)
    assert preview_table(table, 2, WORDS, max_rows=1).rows == found.rows[:1]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0282843, "0.0283"), (0.1, "0.1"), (0, "0"), (5.0, "5"), (1207.4, "1207"), (99.96, "100"), (-0.5, "−0.5"),
        (np.nan, "–"), (np.inf, "∞"), (-np.inf, "−∞"), (1.234e-7, "1.23 × 10⁻⁷"), (1e30, "1 × 10³⁰"),
    ],
)  # fmt: skip
def test_numbers_have_three_significant_digits(value: float, expected: str):
    assert format_number(value) == expected


@pytest.mark.parametrize(
    ("mean", "sd", "expected"),
    [
        (0.0196, 0.00581, "0.0196 ± 0.0058"), (237.3, 69.2, "237 ± 69"), (0.5, np.nan, "0.5"), (np.nan, np.nan, "–"),
        (5.0, 0.0, "5 ± 0"), (np.inf, np.nan, "∞"), (1.0, 1e-9, "1 ± 1 × 10⁻⁹"), (12.0, 0.996, "12.0 ± 1.0"),
        (3.28966, 7.18e-5, "3.289660 ± 0.000072"), (1234567, 32, "(1.234567 ± 0.000032) × 10⁶"),
        (-2e-9, 1e-10, "(−2.00 ± 0.10) × 10⁻⁹"), (0.00005, 0.0002, "0.00005 ± 0.00020"),
        (3e8, 9.99e8, "(0.3 ± 1.0) × 10⁹"), (0.0, 1e-9, "(0.0 ± 1.0) × 10⁻⁹"), (1.0, np.inf, "1 ± ∞"),
    ],
)  # fmt: skip
def test_mean_has_the_digits_that_its_sd_allows(mean: float, sd: float, expected: str):
    assert format_mean_sd(mean, sd) == expected


def test_durations_are_short():
    assert [format_duration(s) for s in (4.4, 61, 500, 7500)] == ["4.4 s", "61.0 s", "8 min", "2 h 5 min"]
