"""The data of the interactive figures: the numbers of the tables, grouped by what can be switched on and off."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from batchscape.report.figures import style
from batchscape.report.interactive.payload import NO_ARM, POINTS_PER_LINE, TUNED, build_payload
from batchscape.report.interactive.views import VIEWS
from batchscape.report.tables import lr_grid
from batchscape.study.registry import ANALYSES, FIGURES, INTERACTIVE_SOURCES, TABLES
from batchscape.study.study import Study
from tests.helpers.measures import METRICS, WORDS
from tests.helpers.scenarios import SCENARIOS, add_tables, load_scenario, make_analyses
from tests.helpers.tables import DIVERGED, synthetic_runs

RUNS = synthetic_runs({(32, 0.1): [0.1, 0.2], (64, 0.1): [0.123456, DIVERGED], (64, 0.2): [0.4, np.inf]})
ARM_RUNS = pd.DataFrame(
    [("fixed", "bs32-lr0.1"), ("fixed", "bs64-lr0.1"), ("linear", "bs32-lr0.1")], columns=["arm", "setting"]
)
FRAMES = {"tables/runs": RUNS, "tables/lr_grid": lr_grid.tabulate(RUNS, metrics=METRICS), "tables/arm_runs": ARM_RUNS}

AMPLE = 10**7


def make_history(length: int, runs: int = 1) -> pd.DataFrame:
    epochs = np.arange(1, length + 1)
    loss = 1.0 / epochs
    frames = [
        pd.DataFrame(
            {
                "run": f"bs32-lr0.1-seed{seed}", "setting": "bs32-lr0.1", "batch_size": 32, "learning_rate": 0.1,
                "seed": seed, "status": "converged", "epoch": epochs, "train_loss": loss, "validation_loss": loss + 0.1,
            }
        )
        for seed in range(runs)
    ]  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def build(figures: Sequence[str], frames: dict[str, pd.DataFrame] = FRAMES) -> dict[str, Any]:
    return json.loads(build_payload(figures, frames, WORDS, AMPLE))


def layer(made: dict[str, Any], figure: str, kind: str) -> dict[str, Any]:
    found = next(each for each in made["figures"][figure]["layers"] if each["kind"] == kind)
    return made["data"][found["data"]]


def labels(made: dict[str, Any], data: dict[str, Any], series: list) -> dict[str, list[str]]:
    return {
        name: [made["dimensions"][name]["labels"][code] for code in codes]
        for name, codes in zip(data["dimensions"], series[1], strict=True)
    }


@pytest.mark.parametrize("name", VIEWS)
def test_figures_with_a_view_read_files_that_the_report_has(name: str):
    assert name in FIGURES
    tables = {f"tables/{table}" for table in TABLES} | {analysis.rows for analysis in ANALYSES.values()}
    assert set(VIEWS[name].sources) <= tables
    assert {file for file in VIEWS[name].sources if file.startswith("analysis/")} <= set(INTERACTIVE_SOURCES)


def test_report_reads_no_results_that_no_figure_shows():
    assert set(INTERACTIVE_SOURCES) <= {file for view in VIEWS.values() for file in view.sources}


def test_values_are_those_of_the_table_and_their_labels_those_of_the_run():
    made = build(["convergence"])
    data = layer(made, "convergence", "runs")
    found = {name: (columns, labels(made, data, [name, by])) for name, by, _, columns in data["series"]}
    assert set(found) == {
        "bs32-lr0.1-seed0",
        "bs32-lr0.1-seed1",
        "bs64-lr0.1-seed0",
        "bs64-lr0.2-seed0",
        "bs64-lr0.2-seed1",
    }
    columns, by = found["bs64-lr0.1-seed0"]
    assert columns[data["columns"].index("best_validation_loss")] == [0.12346]  # five digits
    assert by == {"batch_size": ["64"], "learning_rate": ["0.1"], "seed": ["0"], "arm": ["fixed"]}
    assert found["bs32-lr0.1-seed0"][1]["arm"] == ["fixed", "linear"]
    assert found["bs64-lr0.2-seed0"][1]["arm"] == [NO_ARM]
    # An infinite loss has no place on an axis.
    assert found["bs64-lr0.2-seed1"][0][data["columns"].index("best_validation_loss")] == [None]


def test_means_are_those_of_the_table_of_the_static_figure():
    made = build(["convergence"])
    data = layer(made, "convergence", "means")
    mean = data["columns"].index("best_validation_loss_mean")
    grid = FRAMES["tables/lr_grid"].set_index("setting")["best_validation_loss_mean"]
    values = {name: columns[mean][0] for name, _, _, columns in data["series"]}
    assert values["bs32-lr0.1"] == pytest.approx(grid["bs32-lr0.1"], rel=1e-4)


def test_dimensions_have_the_order_and_the_colors_of_the_static_figures():
    made = build(["convergence"])["dimensions"]
    assert made["batch_size"]["labels"] == ["32", "64"]
    assert made["batch_size"]["colors"] == list(style.batch_size_colors(RUNS["batch_size"]).values())
    assert made["arm"]["labels"] == ["fixed", "linear", NO_ARM]
    assert made["arm"]["colors"][:2] == list(style.arm_colors(ARM_RUNS["arm"]).values())


def test_figure_starts_with_its_arm_or_with_all_if_it_is_missing():
    arms = build(["convergence"])
    assert arms["figures"]["convergence"]["start"] == {"arm": 0}
    without = build(["convergence"], {"tables/runs": RUNS})
    assert without["figures"]["convergence"]["start"] == {}
    assert "arm" not in without["dimensions"]


def make_target_frames(*targets: float) -> dict[str, pd.DataFrame]:
    mapping = {
        "name": "s",
        "grid": {"batch_sizes": [32, 64], "learning_rates": [0.01], "seeds": [0]},
        "comparison": {"targets": [{"loss": target} for target in targets]},
    }
    study = Study.from_mapping(mapping, "s")
    return add_tables(study, make_analyses(study, 6, lambda _: False))


@pytest.mark.parametrize("figure", ["steps_to_target", "frontier"])
def test_figure_starts_with_the_first_target_and_names_the_target_of_each_series(figure: str):
    made = build([figure], make_target_frames(0.6, 0.5))
    assert made["dimensions"]["target"]["labels"] == ["cross-entropy 0.6", "cross-entropy 0.5"]
    assert made["figures"][figure]["start"] == {"target": 0}
    for kind, name in (("runs", "bs32-lr0.01-seed0"), ("means", "bs32-lr0.01")):
        names = [each[0] for each in layer(made, figure, kind)["series"]]
        assert {f"{name}, cross-entropy {target}" for target in (0.5, 0.6)} < set(names)
        assert len(set(names)) == len(names)
    # No run reaches the first target; the second one is drawn, and named.
    made = build([figure], make_target_frames(0.0001, 0.5))
    assert made["figures"][figure]["start"] == {}
    assert {each[0].partition(", ")[2] for each in layer(made, figure, "runs")["series"]} == {"cross-entropy 0.5"}
    # One target needs no name.
    (first, *_) = layer(build([figure], make_target_frames(0.5)), figure, "runs")["series"]
    assert first[0] == "bs32-lr0.01-seed0"


@pytest.mark.parametrize(
    ("figure", "file", "column", "values"),
    [
        ("branching", "analysis/branching", "point", ("1epochs", "2epochs")),
        ("sharpness", "analysis/sharpness", "checkpoint", ("init", "best")),
        ("gradient_alignment", "analysis/gradient_alignment", "checkpoint", ("init", "best")),
        ("landscape", "tables/landscape", "direction_seed", (0, 1)),
    ],
)
def test_series_of_several_points_or_checkpoints_are_told_apart_by_name(
    figure: str, file: str, column: str, values: tuple[object, object]
):
    rows = load_scenario("plain")[1][file]
    several = pd.concat([rows.assign(**{column: value}) for value in values], ignore_index=True)
    made = build([figure], {file: several})
    found = {(name, panel) for name, _, panel, _ in layer(made, figure, "runs")["series"]}
    assert len(found) == len(layer(made, figure, "runs")["series"])
    assert {name.rpartition(", ")[2].removeprefix("directions ") for name, _ in found} == set(map(str, values))


def test_tuned_rates_share_a_label():
    tuned = RUNS.head(1).assign(setting="bs32-lrtuned", run="bs32-lrtuned-seed0", learning_rate=0.1234)
    made = build(["convergence"], {"tables/runs": pd.concat([RUNS, tuned])})
    assert made["dimensions"]["learning_rate"]["labels"] == ["0.1", "0.2", TUNED]


def test_long_lines_are_thinned_evenly_on_a_logarithmic_axis_with_both_ends():
    made = build(["curves_fixed_lr"], {"analysis/history": make_history(5000)})
    data = layer(made, "curves_fixed_lr", "runs")
    epochs, losses, _ = data["series"][0][3]
    assert (epochs[0], epochs[-1]) == (1, 5000)
    assert len(epochs) <= POINTS_PER_LINE[0]
    assert np.diff(np.log(epochs))[50:].max() < 0.1
    assert losses == [float(f"{1 / epoch:.5g}") for epoch in epochs]
    assert made["figures"]["curves_fixed_lr"]["points"] == POINTS_PER_LINE[0]


def test_steps_are_exact_although_a_table_has_them_as_floats():
    history = make_history(3).assign(step=[131072.0, 1234567.0, np.nan], distance=[0.123456, 1234567.8, 1e300])
    made = build(["distance_over_time"], {"analysis/history": history})
    data = layer(made, "distance_over_time", "runs")
    assert data["series"][0][3] == [[131072, 1234567, None], [0.12346, 1234600, int(1e300)]]


def test_short_lines_are_complete():
    made = build(["curves_fixed_lr"], {"analysis/history": make_history(200)})
    assert layer(made, "curves_fixed_lr", "runs")["series"][0][3][0] == list(range(1, 201))
    assert made["figures"]["curves_fixed_lr"]["points"] == 0


def test_data_fits_in_the_space_that_is_left():
    frames = {"analysis/history": make_history(1000, runs=20), **FRAMES}
    figures = ["curves_fixed_lr", "convergence"]
    complete = build_payload(figures, frames, WORDS, AMPLE)
    smaller = build_payload(figures, frames, WORDS, len(complete) // 3)
    assert len(smaller) <= len(complete) // 3
    assert 0 < json.loads(smaller)["figures"]["curves_fixed_lr"]["points"] < POINTS_PER_LINE[0]
    # With too many runs even for few points, the figure with the largest data remains static.
    assert set(json.loads(build_payload(figures, frames, WORDS, 4000))["figures"]) == {"convergence"}
    assert build_payload(figures, frames, WORDS, 10) == ""
    assert build_payload(figures, frames, WORDS, -1) == ""


@pytest.mark.parametrize(
    ("figure", "evaluations"),
    [("curves_fixed_lr", 6), ("distance_over_time", 6), ("epoch_distance", 6), ("noise_scale", 3)],
)
def test_means_end_when_the_first_seed_of_their_setting_stops(figure: str, evaluations: int):
    study, frames = load_scenario("plain")  # its seeds train for 6, 7 and 8 epochs
    made = build([figure], frames)
    lengths = [len(cells[0]) for *_, cells in layer(made, figure, "means")["series"]]
    assert lengths == [evaluations] * len({run.setting for run in study.runs.values()})
    assert max(len(cells[0]) for *_, cells in layer(made, figure, "runs")["series"]) > evaluations


def test_ratios_end_when_the_first_run_of_a_pair_stops():
    means = load_scenario("plain")[1]["tables/epoch_distance"]
    means = means[means["setting"] == "bs32-lr0.01"].copy()
    means.loc[means["epoch"] > 3, "n_ratios"] -= 1
    data = layer(build(["epoch_distance"], {"tables/epoch_distance": means}), "epoch_distance", "means")
    columns = dict(zip(data["columns"], data["series"][0][3], strict=True))
    assert [value is None for value in columns["ratio_to_large_mean"]] == [False] * 3 + [True] * 3
    assert None not in columns["epoch_distance_mean"]


def test_finalists_are_not_among_the_trials():
    trials = load_scenario("plain")[1]["tables/trials"]
    finalists = trials[trials["is_best"] == 1].assign(stage="finalist", trial=99, validation_loss=0.01)
    made = build(["lr_search"], {"tables/trials": pd.concat([trials, finalists], ignore_index=True)})
    names = [name for name, *_ in layer(made, "lr_search", "runs")["series"]]
    assert names == [f"batch size {size}, trial {trial}" for size in (32, 64, 256) for trial in range(3)]
    assert made["dimensions"]["stage"]["labels"] == ["grid"]


def test_series_are_shared_by_figures_that_read_a_file_alike():
    frames = {"analysis/history": make_history(10)}
    assert len(build(["curves_fixed_lr", "curves_high_lr", "curves_scaled_lr"], frames)["data"]) == 1


def test_figures_share_series_only_if_they_read_a_file_alike():
    _, frames = load_scenario("plain")
    figures = [name for name in VIEWS if set(VIEWS[name].sources) & set(frames)]
    together = build(figures, frames)
    for name in figures:
        alone = build([name], frames)
        assert [layer["kind"] for layer in together["figures"][name]["layers"]] == [
            layer["kind"] for layer in alone["figures"][name]["layers"]
        ]
        for one, other in zip(together["figures"][name]["layers"], alone["figures"][name]["layers"], strict=True):
            shown, expected = together["data"][one["data"]], alone["data"][other["data"]]
            assert [(run, panel, cells) for run, _, panel, cells in shown["series"]] == [
                (run, panel, cells) for run, _, panel, cells in expected["series"]
            ]


def test_surface_has_the_grid_of_the_table_with_gaps_where_the_loss_is_not_finite():
    points = [(x, y) for y in (-1.0, 0.0, 1.0) for x in (-1.0, 0.0)]
    rows = pd.DataFrame(points, columns=["x", "y"]).assign(
        run="bs32-lr0.1-seed0", setting="bs32-lr0.1", batch_size=32, learning_rate=0.1, seed=0, status="converged",
        direction_seed=3, loss=[1.0, 2.0, 3.0, 4.0, 5.0, np.inf],
    )  # fmt: skip
    made = build(["landscape"], {"tables/landscape": rows.sample(frac=1, random_state=0)})
    ((_, _, _, cells),) = layer(made, "landscape", "runs")["series"]
    assert cells == [[-1, 0], [-1, 0, 1], [[1, 2], [3, 4], [5, None]], []]


def test_axis_of_a_negative_loss_is_linear():
    figures = ["curves_fixed_lr", "lr_effect", "landscape", "noise_scale"]
    study, epochs, diverges = SCENARIOS["plain"]
    for offset, log in ((0.0, ["xy", "xy", "z", "xy"]), (-3.0, ["x", "x", "", "xy"])):
        made = build(figures, add_tables(study, make_analyses(study, epochs, diverges, offset=offset)))
        assert [made["figures"][name]["log"] for name in figures] == log


def test_text_cannot_end_the_element_that_contains_it():
    odd = "</script><script>alert(1)</script>"
    runs = RUNS.assign(run=odd)
    text = build_payload(["convergence"], {"tables/runs": runs}, WORDS, AMPLE)
    assert "<" not in text
    assert odd in json.dumps(json.loads(text))


def test_figures_without_data_are_left_out():
    assert build_payload(["convergence", "claims"], {}, WORDS, AMPLE) == ""
    diverged = synthetic_runs({(32, 0.1): [DIVERGED]})
    assert build_payload(["convergence"], {"tables/runs": diverged}, WORDS, AMPLE) == ""
    # As on a page that static figures fill.
    assert build_payload(["convergence"], {"tables/runs": diverged}, WORDS, -1) == ""


def test_large_learning_rates_and_many_seeds_have_an_order_and_a_color_each():
    runs = synthetic_runs({(32, rate): [0.1] * 5 for rate in (100_000.0, 20.0)})
    made = build(["convergence"], {"tables/runs": runs})
    assert made["dimensions"]["learning_rate"]["labels"] == ["20", "100,000"]
    assert len(set(made["dimensions"]["seed"]["colors"])) == 5


def test_equal_tables_give_equal_text():
    figures = ["convergence", "lr_effect"]
    assert build_payload(figures, FRAMES, WORDS, AMPLE) == build_payload(figures, FRAMES, WORDS, AMPLE)
