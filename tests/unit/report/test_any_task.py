"""The tables, figures, claims and sentences of studies of each task: in the words and units of that task alone."""

import re
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import plotnine as p9
import pytest
from matplotlib.text import Text

from batchscape.report.findings import describe_findings
from batchscape.report.measures import Measures
from batchscape.report.page import render
from batchscape.report.provenance import collect_provenance
from batchscape.study.measures import describe_measures
from batchscape.study.registry import FIGURES
from tests.helpers.measures import TASKS, make_report_spec
from tests.helpers.page import ParsedPage
from tests.helpers.scenarios import SCENARIOS, add_tables, build, make_analyses

FIGURES_WITH_WORDS = [name for name, figure in FIGURES.items() if "measures" in figure.settings]
# Words of other tasks, as regular expressions.
FOREIGN = {
    "regression": "nats|accurac|image|perplexity|class",
    "bytes": "nats(?! per byte)|accurac|image|RMSE|class",
    "own loss": "nats|accurac|image|RMSE|perplexity|class",
}
MANIFEST = pd.DataFrame({"class": [""], "split": ["train"], "reason": [""]})


def measures_of(task: str) -> dict[str, Any]:
    return describe_measures(*TASKS[task])


def make_frames(task: str, own_offset: float = -1.0) -> dict[str, pd.DataFrame]:
    """Return the analyses and tables of a study of a task with a test side; the losses of `own loss` are negative."""
    study, epochs, diverges = SCENARIOS["plain"]
    settings = measures_of(task)
    metrics = [metric["name"] for metric in settings["metrics"]]
    offset = own_offset if task == "own loss" else 0.0
    return add_tables(study, make_analyses(study, epochs, diverges, metrics, offset, has_test=True), settings)


@pytest.fixture(scope="module", params=FOREIGN)
def case(request: pytest.FixtureRequest) -> tuple[str, dict[str, pd.DataFrame]]:
    return request.param, make_frames(request.param)


def draw(task: str, figure: str, frames: dict[str, pd.DataFrame]) -> tuple[p9.ggplot, list[str]]:
    """Return a figure, and its visible texts."""
    study, _, _ = SCENARIOS["plain"]
    plot = build(study, "figures", figure, FIGURES[figure], frames, measures_of(task))
    drawn = plot.draw()
    texts = [text.get_text() for text in drawn.findobj(Text) if text.get_visible() and text.get_text()]
    plt.close(drawn)
    return plot, texts


@pytest.mark.parametrize("figure", FIGURES_WITH_WORDS)
def test_figures_are_in_the_words_of_the_task_and_leave_no_loss_out(case, figure: str):
    task, frames = case
    _, texts = draw(task, figure, frames)
    assert [text for text in texts if re.search(FOREIGN[task], text)] == []
    assert not [text for text in texts if "Not drawn" in text and figure != "noise_scale"]
    if figure in ("convergence", "convergence_before_after", "interpolation"):
        first = Measures.from_settings(measures_of(task)).first
        assert (first is None) != any(first and first.label.lower() in text.lower() for text in texts)


@pytest.mark.parametrize("figure", ["curves_fixed_lr", "curves_scaled_lr", "lr_effect", "lr_plane", "landscape"])
def test_axes_of_a_negative_loss_have_negative_ticks(figure: str):
    _, texts = draw("own loss", figure, make_frames("own loss"))
    assert any(re.fullmatch(r"-\d.*", text) for text in texts)
    assert "-0" not in texts


def test_losses_between_two_powers_of_ten_are_drawn_with_ticks():
    frames = make_frames("own loss", own_offset=-50.0)
    for figure in ("curves_fixed_lr", "curves_scaled_lr", "lr_effect", "lr_plane", "landscape", "trajectory"):
        _, texts = draw("own loss", figure, frames)
        assert len([text for text in texts if re.fullmatch(r"-\d.*", text)]) > 1, figure


def test_interpolated_perplexity_is_on_a_logarithmic_axis():
    frames = make_frames("bytes")
    table = frames["tables/interpolation"]
    for side in ("train", "validation"):
        table[f"{side}_perplexity_max"] = table[f"{side}_perplexity_mean"] = 10 ** (5 * abs(table["alpha"]))
        table[f"{side}_perplexity_min"] = 1.0
    _, texts = draw("bytes", "interpolation", frames)
    assert {"1", "100"} < set(texts)  # linear ticks would be multiples of a million


def test_figure_says_why_there_is_no_sharpness_of_a_negative_loss():
    frames = make_frames("own loss")
    for name, column in (("arm_runs", "value"), ("scaled_lr", "value_mean")):
        table = frames[f"tables/{name}"]
        table.loc[table["quantity"] == "sharpness", column] = np.nan
    _, texts = draw("own loss", "sharpness_before_after", frames)
    assert any("its loss is negative" in " ".join(text.split()) for text in texts)


def test_claims_about_ratios_of_a_negative_loss_are_not_tested(case):
    task, frames = case
    claims = frames["tables/claims"].set_index("claim")
    quantities = {"slower_descent": "train_loss", "higher_validation_loss": "validation loss"}
    of_losses = [*quantities, "linear_closes_gap", "smallest_not_best", "sharper_minima", "linear_flattens"]
    if task == "own loss":
        assert claims.loc[of_losses, "reading"].str.contains("Not tested: a loss of this study is negative").all()
        assert claims.loc[of_losses, "effect"].isna().all()
        assert "a ratio of the best validation loss has no meaning" in claims.loc["linear_closes_gap", "reading"]
    else:
        assert not claims["reading"].str.contains("negative").any()
        assert claims.loc[list(quantities), "effect"].notna().all()
    # The others do not depend on the zero of the loss.
    assert claims.loc[["more_epochs", "nearer_to_init", "shorter_epochs"], "effect"].notna().all()


def test_measures_of_claims_have_the_unit_of_the_loss():
    found = {task: make_frames(task)["tables/claims"].set_index("claim")["measure"] for task in FOREIGN}
    units = {"regression": " (log(price)²)", "bytes": " (nats per byte)", "own loss": ""}
    for task, measures in found.items():
        assert measures["higher_validation_loss"] == f"best validation loss{units[task]}"
        assert measures["more_epochs"] == "epochs to the best validation loss"


def make_page(task: str, frames: dict[str, pd.DataFrame]) -> str:
    runs = frames["tables/runs"]
    tables = {name.removeprefix("tables/"): frame for name, frame in frames.items() if name.startswith("tables/")}
    tables_of = {"convergence": ["fixed_lr", "runs"], "interpolation": ["interpolation"]}
    summary = {
        "status": "converged", "spec": {"seed": 0}, "training_examples": 800, "validation_examples": 150,
        "test_examples": 50, "classes": [], "parameters": 5,
        "environment": dict.fromkeys(("processor", "cpus", "devices", "threads", "device", "platform", "python"), 1)
        | {"packages": {}},
        "provenance": {"source_commit": None, "data_sha256": "abc", "started": "2026-01-01", "finished": "2026-01-02"},
    }  # fmt: skip
    spec = make_report_spec(measures=measures_of(task), tables=tables_of, fixed_learning_rate=0.01)
    words = Measures.from_settings(spec["measures"])
    origin = collect_provenance([summary], runs, MANIFEST, words)
    text = render(spec, dict.fromkeys(FIGURES, b""), tables, origin[1:])
    return ParsedPage(text).text


def test_page_is_in_the_words_of_the_task(case):
    task, frames = case
    text = make_page(task, frames)
    assert re.findall(rf".{{30}}(?:{FOREIGN[task]}).{{30}}", text.replace("classical", "")) == []
    assert "Training examples" in text
    assert "Test examples" in text
    wanted = {
        "regression": [
            "log(price)², RMSE 0.",
            "Best validation loss (log(price)²)",
            "RMSE at best epoch (log(price))",
        ],
        "bytes": [
            "nats per byte, perplexity 0.",
            "Test perplexity (per byte)",
            "Loss and perplexity on the straight line",
        ],
        "own loss": ["Lowest losses, time per epoch", "Loss on the straight line", "Best validation loss"],
    }
    assert [part for part in wanted[task] if part not in text] == []


def test_answer_reports_the_test_side_of_the_chosen_setting(case):
    task, frames = case
    text = " ".join(make_page(task, frames).split())
    table = frames["tables/recommendation"]
    assert "on the test examples, which had no part in any choice, its loss is" in text
    assert "the test examples none in any choice" in text
    assert table.columns.str.startswith("test_").any()
    assert np.allclose(table["test_loss_mean"], table["best_validation_loss_mean"])  # as the scenario makes them


def test_barrier_of_a_negative_loss_is_a_difference():
    line = {"first": "a", "second": "b", "alpha": [0, 0.5, 1], "train_loss_mean": [-3.0, 1.0, -1.5]}
    words = Measures.from_settings(measures_of("own loss"))
    (found,) = describe_findings("interpolation", {"interpolation": pd.DataFrame(line)}, 0.1, words)
    assert "minus that of the end with the higher loss is 2.5;" in found
    words = Measures.from_settings(measures_of("bytes"))
    (found,) = describe_findings("interpolation", {"interpolation": pd.DataFrame(line)}, 0.1, words)
    assert "is 2.5 nats per byte;" in found
