"""Numbers that are not finite, from the runs to the tables, the figures and the report."""

import shutil
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import plotnine as p9
import pytest
from safetensors.numpy import load_file

from batchscape.analysis import trajectory
from batchscape.config.data.arrays import ArraysConfig
from batchscape.data.prepare import prepare
from batchscape.errors import UserError
from batchscape.io.run_directory import RunDirectory
from batchscape.io.weights import write_weights
from batchscape.report.figures import sharpness as sharpness_figure
from batchscape.report.figures.loss_map import plot_loss_map
from batchscape.report.figures.sharpness_before_after import NO_SHARPNESS
from batchscape.report.tables import sharpness
from batchscape.study.registry import FIGURES
from tests.helpers.claims import DYNAMICS
from tests.helpers.in_process import InProcessStudy
from tests.helpers.measures import CLASSIFICATION, WORDS
from tests.helpers.objectives import labels_of

pytestmark = pytest.mark.slow


DATA = "{source: synthetic, images: 60, image_size: [8, 8], channels: 1}"
SMALL = """
model: {name: mlp, dense: [8]}
arms: {sqrt: {enabled: false}}
sharpness: {checkpoints: [init, best], epsilons: [0.5], adaptive_radii: [0.9], subspace_dimension: 4, iterations: 2,
            random_starts: 0, trace_matvecs: 3}
interpolation: {points: 3}
landscape: {points: [3, 3]}
trajectory: {enabled: true, points: [3, 3]}
gradient_alignment: {max_batch_size: 4}
device_timing: {enabled: false}
confirmation: {settings: 1, seeds: 1}
"""


@pytest.fixture
def draw() -> Iterator[Callable[[p9.ggplot], list[str]]]:
    """Render a figure and return its texts; a warning that no user can act on fails the test."""

    def render(plot: p9.ggplot) -> list[str]:
        with warnings.catch_warnings():
            for kind in (RuntimeWarning, UserWarning):  # NumPy's and plotnine's
                warnings.simplefilter("error", kind)
            figure = plot.draw()
            figure.canvas.draw()
        texts = [text.get_text().replace("\n", " ") for text in figure.findobj(mpl.text.Text)]
        mpl.pyplot.close(figure)
        return [text for text in texts if text]

    yield render
    mpl.pyplot.close("all")


STUDIES = {
    # Every run and every trial diverges immediately.
    "hopeless": f"""
data: {DATA}{SMALL}
grid: {{batch_sizes: [8, 16], learning_rates: [1e28, 1e29], seeds: [0, 1]}}
training: {{budget: {{epochs: 3}}, checkpoints: [1]}}
comparison: {{fixed_learning_rate: 1e28, high_learning_rate: 1e29}}
tuning: {{hyperparameters: {{learning_rate: [1e28, 1e29]}}, budget: 4, startup_trials: 2, trial_budget: {{epochs: 2}},
    max_extension: 1, seeds: [5], finalists: {{settings: 2, seeds: [6]}}}}
""",
    # At the fixed rate all runs diverge after some epochs: weight decay doubles the weights in each step.
    "late": f"""
data: {DATA}{SMALL.replace("[init, best]", "[best, 6]").replace("points: 3", "checkpoint: 6")}
grid: {{batch_sizes: [8, 16], learning_rates: [0.1], seeds: [0, 1]}}
training: {{budget: {{epochs: 12}}, patience: 12, checkpoints: [1, 2, 6]}}
optimizer: {{arguments: {{weight_decay: 1.0}}}}
comparison: {{fixed_learning_rate: 3.0, high_learning_rate: 0.1}}
tuning: {{hyperparameters: {{learning_rate: [0.1, 3]}}, budget: 3, startup_trials: 2, trial_budget: {{epochs: 12}},
    seeds: [5], finalists: {{settings: 1, seeds: [6]}}}}
""",
    # Steps so large that networks die or saturate immediately: losses, gradients, updates and Hessians are exactly 0.
    "dead": f"""
data: {DATA}{SMALL}
grid: {{batch_sizes: [8, 16], learning_rates: [1e3], seeds: [0, 1]}}
training: {{budget: {{epochs: 6}}, patience: 6, checkpoints: [1, 2]}}
comparison: {{fixed_learning_rate: 1e6, high_learning_rate: 1e3, targets: [{{loss: 1e-9}}]}}
tuning: {{enabled: false}}
""",
}


@pytest.fixture(scope="module")
def create_study(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], InProcessStudy]:
    """Return a function that computes a study once for all its tests."""
    return cache(lambda name: InProcessStudy(tmp_path_factory.mktemp(name), f"name: {name}{STUDIES[name]}"))


@pytest.fixture
def hopeless(create_study: Callable[[str], InProcessStudy]) -> InProcessStudy:
    return create_study("hopeless")


@pytest.fixture
def late(create_study: Callable[[str], InProcessStudy]) -> InProcessStudy:
    return create_study("late")


@pytest.fixture
def dead(create_study: Callable[[str], InProcessStudy]) -> InProcessStudy:
    return create_study("dead")


def test_tables_have_every_row_if_everything_diverges(hopeless: InProcessStudy):
    runs = hopeless.read("tables/runs")
    assert set(runs["run"]) == set(hopeless.study.runs)
    assert set(runs["status"]) == {"diverged"}
    assert (runs["epochs"] == 1).all()
    assert runs[["best_epoch", "min_train_loss", "best_validation_loss", "seconds_to_best"]].isna().all(axis=None)
    settings = runs["setting"].nunique()
    for name, rows in (("recommendation", settings), ("steps_to_target", settings), ("update_norms", settings)):
        table = hopeless.read(f"tables/{name}")
        assert len(table) == rows, name
        assert (table["n_seeds"] == 0).all(), name
        assert (table["n_diverged"] == 2).all(), name
    tables = ("lr_grid", "fixed_lr", "curves", "distance", "epoch_distance", "sharpness", "scaled_lr", "noise_scale")
    for name in tables:
        table = hopeless.read(f"tables/{name}")
        assert len(table), name
        assert set(zip(table["n_seeds"], table["n_diverged"], strict=True)) == {(0, 2)}, name
        assert table.filter(regex="_(mean|sd|min|max)$").isna().all(axis=None), name
    assert hopeless.read("tables/critical_batch").loc[0, ["verdict", "n_runs"]].tolist() == ["not identified", 0]
    assert len(hopeless.read("tables/landscape")) == 2 * 9


def test_search_finds_nothing_if_every_trial_diverges(hopeless: InProcessStudy, draw: Callable):
    trials, tuned = hopeless.read("tables/trials"), hopeless.read("tables/tuned_lr")
    assert np.isinf(trials["validation_loss"]).all()
    assert (tuned["n_diverged_trials"] == tuned["n_trials"]).all()
    assert tuned[["linear_learning_rate", "sqrt_learning_rate"]].isna().all(axis=None)
    assert tuned["advice"].str.startswith("every trial diverged").all()
    texts = draw(hopeless.plot("lr_search"))
    assert "on the edge" not in texts  # no rate is marked as the tuned one
    assert any("×: diverged trial" in text for text in texts)


def test_claims_figures_and_report_state_that_everything_diverged(hopeless: InProcessStudy, draw: Callable):
    claims = hopeless.read("tables/claims")
    assert set(claims["verdict"]) == {"not tested"}
    # There are too few learning rates or settings, the budget is not in steps, and some analyses are disabled.
    others = {"best_rate_grows", "worse_at_equal_steps", *DYNAMICS} - {"logarithmic_distance"}
    tested = claims[~claims["claim"].isin(others)]
    assert (tested["n_missing"] == 2).all()
    assert tested["reading"].str.contains(r"Not tested: .*; \d+ of the \d+ runs diverged").all()
    for name in set(hopeless.study.plan.figures) - {"claims", "lr_search"}:
        nothing = NO_SHARPNESS if name == "sharpness_before_after" else "No run has a value that can be drawn here"
        assert any(nothing in text for text in draw(hopeless.plot(name))), name
    assert draw(hopeless.plot("claims")).count("not tested") == len(claims)
    page = hopeless.page()
    assert "No setting can be recommended" in page
    assert "of 14 runs 14 diverged" in page
    assert "Add learning rates below 1 × 10²⁸" in page
    assert "every trial of batch size 8, 16 diverged" not in page  # the report draws no conclusion from the search


def test_results_before_a_late_divergence_are_preserved(late: InProcessStudy):
    runs = late.read("tables/runs")
    diverged, complete = runs[runs["setting"].isin(["bs8-lr3", "bs16-lr3"])], runs[runs["learning_rate"] == 0.1]
    assert set(diverged["status"]) == {"diverged"}
    assert (diverged["epochs"] > 3).all()
    assert np.isfinite(diverged[["best_epoch", "best_validation_loss"]]).all(axis=None)
    assert "diverged" not in set(complete["status"])
    sharpness = late.read("analysis/sharpness").set_index(["setting", "checkpoint"])
    assert np.isfinite(sharpness.loc[("bs8-lr3", "best"), "value"]).all()
    not_finite = sharpness.loc[("bs8-lr3", "epoch00006")]  # the loss of this epoch was not finite
    assert not np.isfinite(not_finite["value"]).any()
    assert (
        not_finite.loc[not_finite["measure"].isin(["keskar", "keskar_subspace", "adaptive"]), "evaluations"] == 1
    ).all()
    # Means exclude a diverged run, although its best weights are finite.
    table = late.read("tables/sharpness").set_index(["setting", "checkpoint"])
    assert table.loc[("bs8-lr3", "best"), "value_mean"].isna().all()
    assert (table.loc[("bs8-lr3", "best"), "n_diverged"] == 2).all()
    assert table.loc[("bs8-lr0.1", "best"), "value_mean"].notna().all()
    claims = late.read("tables/claims").set_index("claim")
    assert claims.loc["nearer_to_init", ["verdict", "n_seeds", "n_missing"]].tolist() == ["not tested", 0, 2]
    assert "4 of the 4 runs diverged" in claims.loc["nearer_to_init", "reading"]
    assert claims.loc["smallest_not_best", "n_seeds"] == 2
    recommendation = late.read("tables/recommendation").set_index("setting")
    assert recommendation.loc[["bs8-lr3", "bs16-lr3"], "choice"].tolist() == ["diverged"] * 2
    assert recommendation.iloc[0]["n_diverged"] == 0


def test_trajectory_of_a_diverged_run_ends_at_its_last_finite_weights(
    late: InProcessStudy, draw: Callable, tmp_path: Path
):
    rows = late.read("tables/trajectory")
    path = rows[rows["epoch"].notna() & (rows["run"] == "bs8-lr3-seed0")]
    assert {"init", "best", "epoch00002"} <= set(path["checkpoint"])
    assert np.isfinite(path[["x", "y"]]).all(axis=None)
    assert any(" diverged" in text for text in draw(late.plot("trajectory")))

    copy = Path(shutil.copytree(late.run("bs8-lr3-seed0"), tmp_path / "bs8-lr3-seed0"))
    last = copy / "weights" / "last.safetensors"
    arrays = load_file(last)
    write_weights(last, {name: array * np.float32(np.nan) for name, array in arrays.items()}, list(arrays))
    analyzed = trajectory.analyze(RunDirectory(copy), late.data, late.study.trajectory)
    assert set(path["checkpoint"]) - set(analyzed["checkpoint"]) == {"last"} & set(path["checkpoint"])
    assert np.isfinite(analyzed[["x", "y"]]).all(axis=None)


def test_figures_draw_the_runs_that_did_not_diverge(late: InProcessStudy, draw: Callable):
    for name in late.study.plan.figures:
        texts = draw(late.plot(name))
        empty = any("No run has a value" in text for text in texts)
        at_fixed_rate = FIGURES[name].settings[:1] == ("fixed_learning_rate",) or name in {
            "interpolation",
            "gradient_alignment",
        }
        assert empty == at_fixed_rate, name
        if empty:
            assert any("4 diverged runs not drawn" in text or "2 diverged runs not drawn" in text for text in texts)
        if name == "landscape":  # single runs are drawn even if they diverged
            assert {" diverged" in text for text in texts if text.startswith("Batch size 8")} == {True}
    page = late.page()
    assert "Best setting seen, with " in page
    assert " settings a run diverged" in page


def test_zeros_of_a_dead_network_are_not_drawn_on_logarithmic_axes(dead: InProcessStudy, draw: Callable):
    runs = dead.read("tables/runs")
    assert (runs["best_validation_loss"] == 0).any()
    assert not runs["status"].eq("diverged").any()
    hessian = dead.read("analysis/sharpness").query("checkpoint == 'best' and measure == 'hessian_eigenvalue'")
    assert (hessian["value"] == 0).any()
    assert np.isfinite(hessian["value"]).all()
    without_gradient = (
        dead.read("analysis/history").groupby("run").filter(lambda rows: rows["gradient_norm"].eq(0).any())
    )
    assert without_gradient.loc[without_gradient["gradient_norm"] == 0, "noise_scale"].isna().all()  # 0/0
    claims = dead.read("tables/claims").set_index("claim").loc["higher_validation_loss"]
    assert claims["n_seeds"] + claims["n_missing"] == 2
    assert claims["n_missing"] > 0
    assert f"{claims['n_missing']} of the 2 seeds do not have all values" in claims["reading"]
    names = (
        "lr_effect",
        "update_norms",
        "convergence",
        "curves_fixed_lr",
        "noise_scale",
        "gradient_alignment",
        "lr_plane",
    )
    captions = {name: [text for text in draw(dead.plot(name)) if "Not drawn: " in text] for name in names}
    assert captions["lr_effect"] == [f"Not drawn: {(runs['best_validation_loss'] == 0).sum()} values "
                                     "(zero, negative or not finite)"]  # fmt: skip
    assert captions["update_norms"]
    assert not captions["convergence"]  # its axes are not logarithmic


def test_runs_that_miss_the_target_are_counted(dead: InProcessStudy, draw: Callable):
    table = dead.read("tables/steps_to_target")
    missed = int(table.loc[table["is_best"] == 1, "n_missed"].sum())
    assert missed > 0
    assert any(f"{missed} runs never reached it" in text for text in draw(dead.plot("steps_to_target")))


def test_trajectory_of_fewer_than_three_points_is_named_and_not_drawn(dead: InProcessStudy, draw: Callable):
    rows = dead.read("tables/trajectory")
    missing = rows.loc[rows["x"].isna(), "run"].tolist()
    assert "bs8-lr1000000-seed0" in missing  # dead after the first epoch
    assert rows.loc[rows["run"].isin(missing), ["loss", "explained_variance_x"]].isna().all(axis=None)
    caption = f"not shown (fewer than three distinct checkpoints): {missing[0]}"
    assert any(caption in text for text in draw(dead.plot("trajectory")))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_inputs_with_nan_are_rejected_in_one_line(tmp_path: Path, value: float):
    images = np.full((20, 8, 8), 0.5)
    images[[3, 7], 2, 2] = value
    np.savez(tmp_path / "images.npz", images=images, labels=np.arange(20) % 2)
    with pytest.raises(UserError) as caught:
        prepare(ArraysConfig(source="arrays", path=str(tmp_path / "images.npz")))
    message = str(caught.value)
    assert message.splitlines() == [message]
    assert message == "data.path: example 3: the input is NaN, infinite or too large for float32"


def test_single_class_is_rejected_and_class_missing_from_a_split_is_reported(tmp_path: Path):
    images = np.zeros((20, 8, 8), dtype=np.uint8)  # constant, and all equal
    for name, labels in (("one", np.zeros(20, int)), ("rare", np.arange(20) // 19)):
        np.savez(tmp_path / f"{name}.npz", images=images, labels=labels)
    with pytest.raises(UserError, match=r"only one class \(0\)"):
        prepare(ArraysConfig(source="arrays", path=str(tmp_path / "one.npz")))
    config = ArraysConfig(source="arrays", path=str(tmp_path / "rare.npz"), split_seed=1)
    prepared = prepare(config)
    side = "validation" if 1 not in labels_of(prepared.data.validation) else "training"
    assert any(f"no {side} examples of 1" in line for line in prepared.summary)


def test_infinite_sharpness_is_counted_and_not_drawn(draw: Callable):
    values = {"keskar": [1.0, 2.0, np.inf], "hessian_trace": [np.nan, np.nan, np.nan]}
    rows = [
        {"batch_size": size, "learning_rate": 0.1, "setting": f"bs{size}-lr0.1", "seed": seed, "checkpoint": "best",
         "status": status, "measure": measure, "radius": 0.5, "value": value if size == 8 else 3.0,
         "batch_norm": "none", "examples": 20, "loss": 1.0, "evaluations": 7, "iterations": 1, "on_bounds": 0.5,
         "not_computed": "none"}
        for size in (8, 16)
        for measure, finite in values.items()
        for seed, (value, status) in enumerate(zip([*finite, np.nan], ["converged"] * 3 + ["diverged"], strict=True))
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    table = sharpness.tabulate(frame).set_index(["batch_size", "measure"])
    assert table["n_not_finite"].to_dict() == {
        (8, "hessian_trace"): 3, (8, "keskar"): 1, (16, "hessian_trace"): 0, (16, "keskar"): 0
    }  # fmt: skip
    assert table["n_diverged"].eq(1).all()
    assert np.isinf(table.loc[(8, "keskar"), "value_mean"])
    assert np.isnan(table.loc[(8, "hessian_trace"), "value_mean"])
    assert table.loc[(8, "keskar"), "evaluations_mean"] == 7
    texts = draw(
        sharpness_figure.draw(frame, sharpness.tabulate(frame), fixed_learning_rate=0.1, measures=CLASSIFICATION)
    )
    assert "Not drawn: 4 values (not finite)" in texts
    assert {"8", "16", "Keskar φ (%) ε = 0.5", "Hessian trace (nats/unit²)"} <= set(texts)


def test_cells_without_loss_have_the_size_of_their_own_plane():
    """Each panel has its own grid, and may have entire rows without a finite loss."""
    grid = pd.DataFrame([(x, y) for x in range(4) for y in range(4)], columns=["x", "y"], dtype=float)
    wide = grid.assign(panel="wide", x=grid["x"] * 10 + 0.3, loss=grid["x"] + 1).replace({"loss": {4.0: np.nan}})
    cells = pd.concat([grid.assign(panel="narrow", loss=1.0 + grid["y"]), wide], ignore_index=True)
    figure = plot_loss_map(cells, 2, WORDS).draw()
    narrow, right = figure.axes[:2]
    assert [tuple(image.get_extent()) for image in narrow.images] == [(-0.5, 3.5, -0.5, 3.5)]
    tiles = [shape for shape in right.collections if isinstance(shape, mpl.collections.PolyCollection)]
    extents = [path.get_extents() for shape in tiles for path in shape.get_paths()]
    assert [(round(extent.width, 6), round(extent.height, 6)) for extent in extents] == [(10, 1)] * 16
    mpl.pyplot.close(figure)
