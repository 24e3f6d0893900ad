"""Tables of synthetic runs with known answers, and figures of every study that can happen."""

import io
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import plotnine as p9
import pytest
from matplotlib.text import Text

from batchscape.analysis.distance import ALL_LAYERS
from batchscape.report.figures import distance_by_layer, style
from batchscape.report.figures.loss_map import _contours
from batchscape.report.figures.style import thin_epochs, write_figure
from batchscape.report.tables import arm_runs, best_lr, epoch_distance, fixed_lr, lr_grid, tuned_lr, update_norms
from batchscape.report.tables.over_seeds import over_seeds
from batchscape.study.registry import FIGURES
from batchscape.study.study import Study
from tests.helpers.scenarios import SCENARIOS, TUNED_RATE, add_tables, build, load_scenario, make_analyses


@pytest.fixture(scope="module", params=SCENARIOS)
def scenario(request: pytest.FixtureRequest) -> tuple[Study, dict[str, pd.DataFrame]]:
    return load_scenario(request.param)


@pytest.mark.parametrize("figure", FIGURES)
def test_every_figure_is_drawn_whatever_became_of_the_runs_and_no_title_leaves_it(scenario, figure: str):
    chosen, frames = scenario
    if figure not in chosen.plan.figures:
        assert (figure, len(chosen.grid.batch_sizes)) == ("interpolation", 1)
        return
    drawn = build(chosen, "figures", figure, FIGURES[figure], frames).draw()
    assert drawn.axes
    titles = [text for text in drawn.findobj(Text) if len(text.get_text()) > 20]  # those of panels too
    boxes = {text.get_text(): text.get_window_extent() for text in titles}
    placed = {text: (box.x0, box.x1) for text, box in boxes.items() if box.x0 + box.x1 > 1}  # others are not drawn
    assert placed
    width = drawn.bbox.x1
    assert {text for text, (left, right) in placed.items() if left < 0 or right > width + 1} == set()
    plt.close(drawn)


@pytest.mark.parametrize("figure", FIGURES)
def test_every_figure_is_written_for_the_screen_and_for_print(figure: str, tmp_path: Path):
    chosen, frames = load_scenario("plain")
    png, pdf = tmp_path / f"{figure}.png", tmp_path / f"{figure}.pdf"
    write_figure(build(chosen, "figures", figure, FIGURES[figure], frames), png, pdf)
    assert png.read_bytes().startswith(b"\x89PNG")
    assert pdf.read_bytes().startswith(b"%PDF")


def test_no_setting_is_dropped_from_a_table(scenario):
    chosen, frames = scenario
    settings = {run.setting for run in chosen.runs.values()}
    for name in ("curves", "distance", "epoch_distance", "update_norms"):
        assert set(frames[f"tables/{name}"]["setting"]) == settings, name
    assert set(frames["tables/lr_grid"]["setting"]) == {setting for setting in settings if "tuned" not in setting}
    assert set(frames["tables/best_lr"]["batch_size"]) == set(chosen.grid.batch_sizes)
    grid = frames["tables/lr_grid"]
    assert (grid["n_seeds"] + grid["n_diverged"] == len(chosen.grid.seeds)).all()


def colors_of(plot: p9.ggplot) -> set[tuple[int, int, int]]:
    """The colours of a drawn plot's pixels."""
    content = io.BytesIO()
    plot.draw().savefig(content, format="png")
    pixels = np.rint(255 * plt.imread(io.BytesIO(content.getvalue()))[..., :3]).astype(int)
    return {tuple(pixel) for pixel in pixels.reshape(-1, 3).tolist()}


@pytest.mark.parametrize("figure", ["landscape", "trajectory"])
@pytest.mark.parametrize(("loss", "color", "said"), [(np.nan, "#D9D9D9", "gray"), (np.inf, "#C51B7D", "pink")])
def test_a_loss_that_is_not_finite_is_drawn_as_such(figure: str, loss: float, color: str, said: str):
    chosen, epochs, diverges = SCENARIOS["plain"]
    frames = make_analyses(chosen, epochs, diverges)
    plain = build(chosen, "figures", figure, FIGURES[figure], frames)
    cells = frames[f"tables/{figure}"]
    cells.loc[(cells["x"] == 1) & (cells["y"] == 0), "loss"] = loss
    plot = build(chosen, "figures", figure, FIGURES[figure], frames)
    assert said in plot.labels.subtitle
    assert said not in plain.labels.subtitle
    rgb = tuple(int(color[place : place + 2], 16) for place in (1, 3, 5))
    assert rgb in colors_of(plot)
    if np.isinf(loss):
        assert rgb not in colors_of(plain)


def test_panels_of_a_landscape_share_levels_and_contours_lie_on_them():
    x, y = np.meshgrid(np.linspace(-1, 1, 41), np.linspace(-2, 2, 31))
    one = pd.DataFrame({"panel": "a", "x": x.ravel(), "y": y.ravel(), "loss": 10 ** (x + y / 4).ravel()})
    lines = _contours(pd.concat([one, one.assign(panel="b", loss=2 * one["loss"])]), [0.5, 1.0, 5.0], 1e-9)
    assert set(lines["panel"]) == {"a", "b"}
    level = lines["line"].str.split(" ").str[1].astype(float)
    height = 10 ** (lines["x"] + lines["y"] / 4) * lines["panel"].map({"a": 1, "b": 2})
    assert height.to_numpy() == pytest.approx(level.to_numpy(), rel=1e-9)
    assert set(lines["label"]) > {""}


def test_an_infinite_loss_on_a_line_is_marked():
    chosen, epochs, diverges = SCENARIOS["plain"]
    frames = make_analyses(chosen, epochs, diverges)
    lines = frames["analysis/interpolation"]
    lines.loc[lines["alpha"] == 2, "train_loss"] = np.inf
    frames = add_tables(chosen, frames)
    plot = build(chosen, "figures", "interpolation", FIGURES["interpolation"], frames)
    assert "∞" in plot.labels.subtitle
    plot.draw()
    assert np.isinf(frames["tables/interpolation"]["train_loss_mean"]).sum() == 1


def test_a_loss_that_is_no_number_breaks_its_line():
    chosen, epochs, diverges = SCENARIOS["plain"]
    frames = add_tables(chosen, make_analyses(chosen, epochs, diverges))
    table = frames["tables/interpolation"]
    lost = (table["alpha"] == 0.5).to_numpy()
    for column in ("train_loss_mean", "train_loss_min", "train_loss_max"):
        table.loc[lost, column] = np.nan
    drawn = build(chosen, "figures", "interpolation", FIGURES["interpolation"], frames).draw()
    curves = [line for line in drawn.axes[0].lines if len(line.get_xdata()) == 7]
    holes = [np.asarray(line.get_xdata())[np.isnan(np.asarray(line.get_ydata(), float))].tolist() for line in curves]
    # The line of training and the edges of its band have a hole; those of validation have none.
    assert holes.count([0.5]) == holes.count([]) == len(curves) / 2 > 0


def test_trajectories_of_two_seeds_have_panels_of_their_own():
    chosen, epochs, diverges = SCENARIOS["plain"]
    frames = make_analyses(chosen, epochs, diverges)
    one = frames["tables/trajectory"]
    frames["tables/trajectory"] = pd.concat([one, one.assign(seed=1)], ignore_index=True)
    drawn = build(chosen, "figures", "trajectory", FIGURES["trajectory"], frames).draw()
    assert len(drawn.axes) == 4


@pytest.mark.parametrize("figure", ["landscape", "trajectory"])
def test_settings_of_one_batch_size_and_learning_rate_have_panels_of_their_own(figure: str):
    chosen, epochs, diverges = SCENARIOS["plain"]
    frames = make_analyses(chosen, epochs, diverges)
    one = frames[f"tables/{figure}"]
    one = one[one["setting"] == one["setting"].iloc[0]]
    name = one["setting"].iloc[0]
    settings = (name, f"{name}-warmup5", f"{name.partition('-lr')[0]}-lrtuned")
    frames[f"tables/{figure}"] = pd.concat([one.assign(setting=each) for each in settings], ignore_index=True)
    drawn = build(chosen, "figures", figure, FIGURES[figure], frames).draw()
    titles = [text.get_text() for text in drawn.findobj(Text) if text.get_text().startswith("Batch size ")]
    assert len(set(titles)) == 3
    assert ["warm-up 5" in title for title in titles] == [False, True, False]
    assert ["tuned" in title for title in titles] == [False, False, True]


def test_sharpness_and_alignment_tables_are_means_over_seeds():
    chosen, epochs, diverges = SCENARIOS["plain"]
    frames = add_tables(chosen, make_analyses(chosen, epochs, diverges))
    table = frames["tables/sharpness"].set_index(["setting", "measure", "radius"])
    assert table.loc[("bs64-lr0.01", "keskar", 5e-4), "value_mean"] == 64 * 2 * 0.5
    assert table.loc[("bs64-lr0.01", "keskar", 5e-4), "value_sd"] == 64 * 0.5
    assert len(table) == len(chosen.plan.arm_settings) * 4
    alignment = frames["tables/gradient_alignment"].set_index(["setting", "gradient_batch"])
    assert alignment.loc[("bs32-lr0.01", 4), "alignment_mean"] == 0.5


def test_equal_data_gives_equal_bytes_whatever_style_the_user_has(tmp_path: Path):
    chosen, epochs, diverges = SCENARIOS["plain"]
    frames = add_tables(chosen, make_analyses(chosen, epochs, diverges))
    files = []
    users = {"text.usetex": True, "font.size": 40, "savefig.bbox": "tight", "axes.linewidth": 5, "lines.linestyle": ":"}
    for folder, own in {"once": {}, "twice": users}.items():
        png, pdf = tmp_path / folder / "figure.png", tmp_path / folder / "figure.pdf"
        with mpl.rc_context(own):  # as a matplotlibrc would set it
            write_figure(build(chosen, "figures", "lr_effect", FIGURES["lr_effect"], frames), png, pdf)
        files.append((png.read_bytes(), pdf.read_bytes()))
    assert files[0] == files[1]


def test_curves_are_thinned_without_moving_the_early_epochs_or_mixing_batch_sizes():
    epochs = np.arange(1, 2001)
    frame = pd.concat([pd.DataFrame({"batch_size": b, "epoch": epochs, "mean": b * epochs}) for b in (32, 64)])
    thin = thin_epochs(frame, ["batch_size"])
    assert len(thin) < 300
    assert list(thin["epoch"][:10]) == list(range(1, 11))
    assert np.allclose(thin["mean"], thin["batch_size"] * thin["epoch"])


def rows(*values: tuple) -> pd.DataFrame:
    return pd.DataFrame(values, columns=["batch_size", "seed", "status", "x"])


def test_mean_spread_and_number_are_over_the_runs_that_did_not_diverge():
    frame = rows(
        (32, 0, "converged", 1.0), (32, 1, "max_epochs", 4.0), (32, 2, "diverged", 1e9), (64, 0, "converged", 5.0)
    )
    table = over_seeds(frame, ["batch_size"], ["x"]).set_index("batch_size")
    assert table.loc[32].to_dict() == {
        "x_mean": 2.5, "x_sd": pytest.approx(np.sqrt(4.5)), "x_min": 1.0, "x_max": 4.0, "n_seeds": 2, "n_diverged": 1,
    }  # fmt: skip
    assert table.loc[64, "n_seeds"] == 1
    assert np.isnan(table.loc[64, "x_sd"])


def test_a_setting_in_which_all_runs_diverged_keeps_its_row():
    table = over_seeds(rows((32, 0, "diverged", 3.0), (64, 0, "converged", 5.0)), ["batch_size"], ["x"])
    assert list(table["batch_size"]) == [32, 64]
    assert np.isnan(table.loc[0, "x_mean"])
    assert (table.loc[0, "n_seeds"], table.loc[0, "n_diverged"]) == (0, 1)


def grid(*values: tuple) -> pd.DataFrame:
    columns = ["batch_size", "learning_rate", "best_validation_loss_mean", "n_diverged"]
    return pd.DataFrame(values, columns=columns).assign(best_validation_loss_sd=0.1, n_seeds=3, n_max_epochs=0)


@pytest.mark.parametrize(
    ("table", "rate", "edge", "advice"),
    [
        (grid((32, 0.1, 3.0, 0), (32, 0.2, 1.0, 0), (32, 0.4, 2.0, 0)), 0.2, "none", "inside"),
        (grid((32, 0.1, 1.0, 0), (32, 0.2, 2.0, 0)), 0.1, "low", "below 0.1"),
        (grid((32, 0.1, 2.0, 0), (32, 0.2, 1.0, 0)), 0.2, "high", "above 0.2"),
        (grid((32, 0.1, 2.0, 0)), 0.1, "both", "below and above 0.1"),
        (grid((32, 0.1, 2.0, 0), (32, 0.2, 1.0, 1)), 0.1, "low", "below 0.1"),
        (grid((32, 0.1, 2.0, 0), (32, 0.2, 3.0, 0), (32, 0.4, 1.0, 1)), 0.1, "low", "below 0.1"),
        (grid((32, 0.1, 2.0, 0), (32, 0.2, 1.0, 0), (32, 0.4, 0.5, 1)), 0.2, "none", "0.4, diverged; add one between"),
        (grid((32, 0.1, 2.0, 0), (32, 0.2, 1.0, 0)).assign(n_max_epochs=2), 0.2, "high", "2 of its runs"),
        (grid((32, 0.1, np.nan, 3), (32, 0.2, np.nan, 3)), None, "low", "every learning rate diverged"),
    ],
)
def test_the_best_learning_rate_and_its_edge(table: pd.DataFrame, rate: float | None, edge: str, advice: str):
    best = best_lr.tabulate(table).iloc[0]
    assert np.isnan(best["best_learning_rate"]) if rate is None else best["best_learning_rate"] == rate
    assert best["edge"] == edge
    assert advice in best["advice"]


@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_fixed_lr_is_the_part_of_the_grid_at_that_rate(rate: float):
    chosen, epochs, diverges = SCENARIOS["plain"]
    runs = make_analyses(chosen, epochs, diverges)["tables/runs"]
    whole, part = lr_grid.tabulate(runs), fixed_lr.tabulate(runs, fixed_learning_rate=rate)
    expected = whole[whole["learning_rate"] == rate].reset_index(drop=True)
    pd.testing.assert_frame_equal(part, expected)


def test_runs_stopped_by_max_epochs_are_counted():
    chosen, epochs, diverges = SCENARIOS["plain"]
    runs = make_analyses(chosen, epochs, diverges)["tables/runs"]
    runs.loc[(runs["batch_size"] == 64) & (runs["seed"] == 1), "status"] = "max_epochs"
    table = lr_grid.tabulate(runs)
    assert table["n_max_epochs"].tolist() == (table["batch_size"] == 64).astype(int).tolist()


def test_an_arm_is_a_view_of_its_settings_runs():
    chosen, epochs, diverges = SCENARIOS["one diverged run"]  # linear: 64 at 0.02, sqrt: 64 at 0.0141421
    frames = add_tables(chosen, make_analyses(chosen, epochs, diverges))
    runs, table = frames["tables/arm_runs"], frames["tables/scaled_lr"]
    assert list(dict.fromkeys(table["arm"])) == ["fixed", "linear", "sqrt", "tuned", "high"]
    assert {arm: list(dict.fromkeys(rows["setting"])) for arm, rows in table.groupby("arm")} == {
        "fixed": ["bs32-lr0.01", "bs64-lr0.01"],
        "linear": ["bs32-lr0.01", "bs64-lr0.02"],
        "sqrt": ["bs32-lr0.01", "bs64-lr0.0141421"],
        "tuned": ["bs32-lrtuned", "bs64-lrtuned"],
        "high": ["bs32-lr0.1", "bs64-lr0.1"],
    }
    quantities = set(arm_runs.OF_RUN) | {"distance", "update_norm", "sharpness"}
    assert set(table["quantity"]) == quantities
    assert len(table) == 5 * 2 * len(quantities)
    cell = table.set_index(["arm", "batch_size", "quantity"]).loc
    assert cell[("linear", 64, "distance"), "value_mean"] == 1 / 64  # the whole model's alone
    assert cell[("linear", 64, "update_norm"), "value_mean"] == 50 / 64
    assert cell[("linear", 64, "sharpness"), "value_mean"] == 64 * 1.5  # of the largest ε alone
    assert cell[("linear", 64, "sharpness"), "n_seeds"] == 2
    assert cell[("high", 32, "best_epoch"), ["n_seeds", "n_diverged"]].tolist() == [1, 1]
    source = frames["tables/runs"].set_index("run")["best_validation_loss"]
    found = runs[runs["quantity"] == "best_validation_loss"]
    names = found["setting"] + "-seed" + found["seed"].astype(str)
    assert np.array_equal(found["value"], source[names], equal_nan=True)


@pytest.mark.parametrize("section", ["tuning", "sharpness", "interpolation", "landscape", "gradient_alignment"])
def test_what_is_switched_off_takes_along_only_what_is_made_of_it(section: str):
    chosen = Study.from_mapping({"name": "s", section: {"enabled": False}}, "s")
    frames = add_tables(chosen, make_analyses(chosen, 3, lambda _: False))
    frames = {name: frame for name, frame in frames.items() if not name.endswith(section.replace("tuning", "trials"))}
    for figure in chosen.plan.figures:
        build(chosen, "figures", figure, FIGURES[figure], frames)
    left_out = {
        "tuning": {"tuned_lr", "lr_search"},
        "sharpness": {"sharpness", "sharpness_before_after"},
        "interpolation": {"interpolation"},
        "landscape": {"landscape"},
        "gradient_alignment": {"gradient_alignment"},
    }
    everything = {
        *Study.from_mapping({"name": "s"}, "s").plan.figures,
        *Study.from_mapping({"name": "s"}, "s").plan.tables,
    }
    assert everything - {*chosen.plan.figures, *chosen.plan.tables} == left_out[section]


def test_the_tuned_rate_is_compared_with_scaling_from_the_small_batch_and_its_edge_is_told():
    chosen, epochs, diverges = SCENARIOS["plain"]
    trials = make_analyses(chosen, epochs, diverges)["tables/trials"]
    trials.loc[trials["batch_size"] == 256, "is_best"] = [0, 0, 1]  # its search ended at the upper end of the range
    table = tuned_lr.tabulate(trials, small_batch_size=64, learning_rate_range=[0.003, 0.3]).set_index("batch_size")
    assert table["tuned_learning_rate"].tolist() == [TUNED_RATE, TUNED_RATE, 0.3]
    assert table["linear_learning_rate"].tolist() == [TUNED_RATE / 2, TUNED_RATE, 4 * TUNED_RATE]
    assert np.allclose(table["sqrt_learning_rate"], [TUNED_RATE / 2**0.5, TUNED_RATE, 2 * TUNED_RATE], rtol=1e-12)
    assert table["edge"].tolist() == ["none", "none", "high"]
    assert table.loc[256, "advice"] == "let tuning.learning_rate_range end above 0.3"
    assert table["n_trials"].tolist() == [3, 3, 3]


@pytest.mark.parametrize(("place", "edge"), [(0.049, "low"), (0.051, "none"), (0.949, "none"), (0.951, "high")])
def test_a_tuned_rate_near_an_end_of_the_range_is_on_its_edge(place: float, edge: str):
    rate = 0.01 * (1.0 / 0.01) ** place
    trial = {"batch_size": 8, "trial": 0, "learning_rate": rate, "validation_loss": 1.0, "is_best": 1}
    assert tuned_lr.tabulate(pd.DataFrame([trial]), small_batch_size=8, learning_rate_range=[0.01, 1.0])[
        "edge"
    ].tolist() == [edge]


def test_a_search_in_which_all_diverged_says_so():
    chosen, epochs, diverges = SCENARIOS["every run diverges"]
    trials = make_analyses(chosen, epochs, diverges)["tables/trials"]
    table = tuned_lr.tabulate(trials, small_batch_size=32, learning_rate_range=[0.003, 0.3])
    assert table["advice"].str.startswith("every trial diverged").all()
    assert table["n_diverged_trials"].tolist() == [3, 3]


def test_arms_do_without_the_sharpness_where_it_is_left_out():
    mapping = {"name": "blunt", "grid": {"batch_sizes": [32, 64]}, "sharpness": {"enabled": False}}
    chosen = Study.from_mapping(mapping, "blunt")
    frames = add_tables(chosen, make_analyses(chosen, 6, lambda _: False))
    assert set(frames["tables/scaled_lr"]["quantity"]) == set(arm_runs.OF_RUN) | {"distance", "update_norm"}
    assert "sharpness_before_after" not in chosen.plan.figures


def test_epoch_distance_ratios_are_paired_and_end_with_the_large_batch_run():
    columns = ["batch_size", "learning_rate", "seed", "status", "epoch", "epoch_distance"]
    data = [
        (32, 0.1, 0, "converged", 1, 8.0), (32, 0.1, 1, "converged", 1, 9.0), (32, 0.1, 0, "converged", 2, 6.0),
        (256, 0.1, 0, "converged", 1, 2.0), (256, 0.1, 1, "converged", 1, 3.0),
    ]  # fmt: skip
    moves = pd.DataFrame(data, columns=columns)
    moves["setting"] = "bs" + moves["batch_size"].astype(str) + "-lr0.1"
    warm = moves.assign(setting=moves["setting"] + "-warmup5", epoch_distance=7.0)  # pairs of their own
    both = epoch_distance.tabulate(pd.concat([moves, warm], ignore_index=True), large_batch_size=256)
    tuned = moves.assign(setting="bs" + moves["batch_size"].astype(str) + "-lrtuned")
    tuned.loc[tuned["batch_size"] == 32, "learning_rate"] = 0.3  # as a search finds: for each batch size another rate
    alone = epoch_distance.tabulate(tuned, large_batch_size=256)
    assert alone.groupby("batch_size")["n_ratios"].sum().to_dict() == {32: 0, 256: 2}
    of_warm = both["setting"].str.endswith("-warmup5")
    assert set(both[of_warm]["ratio_to_large_mean"].dropna()) == {1.0}
    table = both[~of_warm].set_index(["batch_size", "epoch"])
    assert table.loc[(32, 1), "ratio_to_large_mean"] == pytest.approx((8 / 2 + 9 / 3) / 2)
    assert table.loc[(32, 1), "n_ratios"] == 2
    assert np.isnan(table.loc[(32, 2), "ratio_to_large_mean"])
    assert table.loc[(32, 2), "n_ratios"] == 0
    assert table.loc[(256, 1), "ratio_to_large_mean"] == 1


def test_update_norm_quantiles_are_means_of_the_runs_quantiles():
    chosen, epochs, diverges = SCENARIOS["plain"]
    table = update_norms.tabulate(make_analyses(chosen, epochs, diverges)["analysis/update_norms"])
    row = table.set_index(["batch_size", "learning_rate"]).loc[(32, 0.01)]
    for name, percentile in {f"update_norm_p{percentile:02}": percentile for percentile in (5, 25, 50, 75, 95)}.items():
        assert row[f"{name}_mean"] == pytest.approx(percentile / 32)
    assert row["updates_mean"] == pytest.approx(10 * (6 + 7 + 8) / 3)


def test_a_network_of_many_layers_gets_a_taller_figure():
    heights = []
    for count in (4, 31):
        layers = [ALL_LAYERS, *(f"layer{index}" for index in range(count))]
        common = {"setting": "bs32-lr0.01", "batch_size": 32, "learning_rate": 0.01}
        points = pd.DataFrame([{**common, "layer": name, "status": "converged", "distance": 1.0} for name in layers])
        means = points.assign(distance_mean=1.0, distance_sd=0.1, n_seeds=2, n_diverged=0)
        heights.append(distance_by_layer.draw(points, means, fixed_learning_rate=0.01).theme.getp("figure_size")[1])
    assert heights[0] == style.HEIGHT
    assert heights[1] > 1.1 * 11  # eleven rows of three
