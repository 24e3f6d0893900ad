"""Figures of synthetic studies, including those in which runs diverge or settings are few."""

import io
import re
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import plotnine as p9
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from batchscape.analysis.distance import ALL_LAYERS
from batchscape.config.figures import MIN_WIDTH, POINTS_PER_INCH, FiguresConfig
from batchscape.errors import UserError
from batchscape.report.figures import distance_by_layer, style
from batchscape.report.figures.files import read_remarks, render_png, write_figure
from batchscape.report.figures.layout import drawn, text_width, title_and_remarks, wrap
from batchscape.report.figures.loss_map import _contours
from batchscape.report.figures.style import thin_epochs
from batchscape.study.measures import describe_measures
from batchscape.study.registry import FIGURES
from batchscape.study.study import Study
from tests.helpers.measures import TASKS
from tests.helpers.scenarios import SCENARIOS, add_tables, build, load_scenario, make_analyses, make_study

PAPER = FiguresConfig(width=3.3, font_size=7, titles=False)


@pytest.fixture(scope="module", params=SCENARIOS)
def scenario(request: pytest.FixtureRequest) -> tuple[Study, dict[str, pd.DataFrame]]:
    return load_scenario(request.param)


@pytest.mark.parametrize("figure", FIGURES)
def test_every_figure_is_drawn_in_every_scenario_with_its_titles_inside(scenario, figure: str):
    chosen, frames = scenario
    if figure not in chosen.plan.figures:
        assert (figure, len(chosen.grid.batch_sizes)) == ("interpolation", 1)
        return
    with drawn(build(chosen, "figures", figure, FIGURES[figure], frames), FiguresConfig()) as picture:
        assert picture.axes
        assert cut_off(picture) == set()


@pytest.mark.parametrize("figure", FIGURES)
def test_every_figure_fits_a_column_of_a_paper(figure: str):
    chosen, frames = load_scenario("plain")
    plot = build(chosen, "figures", figure, FIGURES[figure], frames)
    with drawn(plot, PAPER) as picture:
        letters = shown_texts(picture)
        assert min(text.get_fontsize() for text in letters) >= PAPER.font_size
        assert cut_off(picture) == set()
        assert overlapping(picture) == set()
        assert not {text.get_text() for text in letters} & set(title_and_remarks(plot))
        stream = io.BytesIO()
        picture.savefig(stream, format="pdf")
    pdf = stream.getvalue()
    (box,) = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) [\d.]+ \]", pdf)
    assert float(box) == pytest.approx(3.3 * 72)
    assert b"/FontFile2" in pdf  # a TrueType font is embedded
    assert b"/Type3" not in pdf


def test_panel_is_as_high_as_the_legend_of_many_batch_sizes_beside_it():
    chosen, frames = load_scenario("many of each")
    with drawn(build(chosen, "figures", "lr_effect", FIGURES["lr_effect"], frames), FiguresConfig()) as picture:
        assert overlapping(picture) == set()
        assert {"1", "512"} < {text.get_text() for text in shown_texts(picture)}  # the ends of the legend


def test_numbers_of_claims_are_beside_the_axis_of_the_narrowest_figure():
    chosen, frames = load_scenario("plain")
    longest = frames["tables/claims"].assign(scale="difference", effect=-0.0123, ci95_low=-0.0246, ci95_high=-0.0123)
    plot = build(chosen, "figures", "claims", FIGURES["claims"], {**frames, "tables/claims": longest})
    narrowest = FiguresConfig(width=PAPER.font_size * MIN_WIDTH / POINTS_PER_INCH, font_size=PAPER.font_size)
    with drawn(plot, narrowest) as picture:
        assert cut_off(picture) == set()
        (axes,) = picture.axes
        panel, numbers = axes.get_window_extent(), [text for text in axes.texts if "to −0.0123" in text.get_text()]
        assert len(numbers) == len(longest)
        assert min(text.get_window_extent().x0 for text in numbers) > panel.x1
        assert panel.width > 2 * PAPER.font_size * picture.dpi / POINTS_PER_INCH


def shown_texts(picture: Figure) -> list[Text]:
    """Return all texts of a figure that are drawn; ticks beyond the axes are not."""
    picture.draw_without_rendering()
    texts = [text for text in picture.findobj(Text) if text.get_visible() and text.get_text().strip()]
    beyond = {
        id(label)
        for axes in picture.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks() + axis.get_minor_ticks()
        for label in (tick.label1, tick.label2)
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    }
    return [text for text in texts if id(text) not in beyond]


def cut_off(picture: Figure) -> set[str]:
    """Return the texts that are not completely inside a figure."""
    page = picture.bbox
    boxes = {text.get_text(): text.get_window_extent() for text in shown_texts(picture)}
    return {
        text
        for text, box in boxes.items()
        if box.x0 < -1 or box.y0 < -1 or box.x1 > page.x1 + 1 or box.y1 > page.y1 + 1
    }


def overlapping(picture: Figure) -> set[tuple[str, str]]:
    """Return the pairs of texts that are drawn over each other, by at least a pixel."""
    boxes = [(text.get_text(), text.get_window_extent().padded(-1)) for text in shown_texts(picture)]
    return {
        (one, other)
        for index, (one, box) in enumerate(boxes)
        for other, other_box in boxes[index + 1 :]
        if box.overlaps(other_box)
    }


def test_formats_decide_which_files_are_written(tmp_path: Path):
    chosen, frames = load_scenario("plain")
    plot = build(chosen, "figures", "lr_effect", FIGURES["lr_effect"], frames)
    (tmp_path / "a.pdf").write_text("of an earlier study file")
    config = FiguresConfig(formats=("svg",), titles=False)
    write_figure(plot, [tmp_path / f"a.{kind}" for kind in config.file_formats], config)
    assert {file.name for file in tmp_path.iterdir()} == {"a.png", "a.svg"}
    assert b"<svg" in (tmp_path / "a.svg").read_bytes()
    png = (tmp_path / "a.png").read_bytes()
    assert read_remarks(png) == plot.labels.subtitle != ""
    assert png == render_png(plot, config)


@pytest.mark.parametrize(("width", "font_size"), [(3.3, 9), (2, 8), (6.5, 20)])
def test_letters_that_are_too_large_for_the_width_are_an_error(width: float, font_size: float):
    with pytest.raises(UserError, match=r"figures\.font_size: .* too large for a width of .* write at most"):
        Study.from_mapping({"name": "s", "figures": {"width": width, "font_size": font_size}}, "s.yaml")


def test_colors_have_one_meaning_in_all_figures():
    sizes = pd.Series([32, 64, 128])
    lightness = [sum(to_rgb(color)) for color in style.batch_size_colors(sizes).values()]
    assert lightness == sorted(lightness)  # dark is low
    built_in = ["fixed", "linear", "sqrt", "tuned", "high"]
    colors = style.arm_colors([*built_in, "mine", "batch_warmup"])
    assert len(set(colors.values())) == len(colors)
    assert (
        style.arm_colors(["tuned", "other", "fixed"]).items()
        >= {name: colors[name] for name in ("tuned", "fixed")}.items()
    )
    assert style.CHOSEN not in colors.values()


def drawn_colors(plot: p9.ggplot) -> set[tuple[int, int, int]]:
    """Return the colors of all pixels of a plot."""
    content = io.BytesIO()
    plot.draw().savefig(content, format="png")
    pixels = np.rint(255 * plt.imread(io.BytesIO(content.getvalue()))[..., :3]).astype(int)
    return {tuple(pixel) for pixel in pixels.reshape(-1, 3).tolist()}


@pytest.mark.parametrize(
    ("values", "digits"),
    [
        ([0.1, 3.0], 2), ([5.14, 5.5], 3), ([5.4, 5.403], 5), ([-2.0, 0.5], 2), ([1.0, 1.0], 2), ([], 2),
        ([np.nan, 5.4, np.inf, 5.5], 3), ([1.0, 1 + 1e-12], 6),
    ],
)  # fmt: skip
def test_digits_distinguish_values_that_span_little_of_their_size(values: list[float], digits: int):
    assert style.digits_to_distinguish(values) == digits


def test_a_landscape_that_spans_little_of_its_loss_has_several_contours():
    chosen, epochs, diverges = SCENARIOS["plain"]
    frames = make_analyses(chosen, epochs, diverges)
    cells = frames["tables/landscape"]
    height = cells["x"] ** 2 + cells["y"] ** 2
    cells["loss"] = 5.4 + 0.1 * height / height.max()  # a language model early in training
    plot = build(chosen, "figures", "landscape", FIGURES["landscape"], frames)
    (lines,) = (layer._data for layer in plot.layers if type(layer.geom).__name__ == "geom_path")
    levels = lines["line"].str.extract(r"(\S+) \S+$")[0].astype(float)
    assert levels.nunique() > 3
    assert levels.between(5.4, 5.5).all()


@pytest.mark.parametrize("figure", ["landscape", "trajectory"])
@pytest.mark.parametrize(("loss", "color", "color_name"), [(np.nan, "#D9D9D9", "gray"), (np.inf, "#C51B7D", "pink")])
def test_loss_that_is_not_finite_has_a_separate_color(figure: str, loss: float, color: str, color_name: str):
    chosen, epochs, diverges = SCENARIOS["plain"]
    frames = make_analyses(chosen, epochs, diverges)
    plain = build(chosen, "figures", figure, FIGURES[figure], frames)
    cells = frames[f"tables/{figure}"]
    cells.loc[(cells["x"] == 1) & (cells["y"] == 0), "loss"] = loss
    plot = build(chosen, "figures", figure, FIGURES[figure], frames)
    assert color_name in plot.labels.subtitle
    assert color_name not in plain.labels.subtitle
    rgb = tuple(int(color[place : place + 2], 16) for place in (1, 3, 5))
    assert rgb in drawn_colors(plot)
    if np.isinf(loss):
        assert rgb not in drawn_colors(plain)


def test_panels_of_a_landscape_share_levels_and_contours_lie_on_them():
    x, y = np.meshgrid(np.linspace(-1, 1, 41), np.linspace(-2, 2, 31))
    one = pd.DataFrame({"panel": "a", "x": x.ravel(), "y": y.ravel(), "loss": 10 ** (x + y / 4).ravel()})
    lines = _contours(pd.concat([one, one.assign(panel="b", loss=2 * one["loss"])]), [0.5, 1.0, 5.0], 1e-9)
    assert set(lines["panel"]) == {"a", "b"}
    level = lines["line"].str.split(" ").str[1].astype(float)
    height = 10 ** (lines["x"] + lines["y"] / 4) * lines["panel"].map({"a": 1, "b": 2})
    assert height.to_numpy() == pytest.approx(level.to_numpy(), rel=1e-9)
    assert set(lines["label"]) > {""}


def test_infinite_loss_on_a_line_is_marked():
    chosen, epochs, diverges = SCENARIOS["plain"]
    frames = make_analyses(chosen, epochs, diverges)
    lines = frames["analysis/interpolation"]
    lines.loc[lines["alpha"] == 2, "train_loss"] = np.inf
    frames = add_tables(chosen, frames)
    plot = build(chosen, "figures", "interpolation", FIGURES["interpolation"], frames)
    assert "∞" in plot.labels.subtitle
    plot.draw()
    assert np.isinf(frames["tables/interpolation"]["train_loss_mean"]).sum() == 1


def test_nan_loss_interrupts_its_line():
    chosen, epochs, diverges = SCENARIOS["plain"]
    frames = add_tables(chosen, make_analyses(chosen, epochs, diverges))
    table = frames["tables/interpolation"]
    lost = (table["alpha"] == 0.5).to_numpy()
    for column in ("train_loss_mean", "train_loss_min", "train_loss_max"):
        table.loc[lost, column] = np.nan
    drawn = build(chosen, "figures", "interpolation", FIGURES["interpolation"], frames).draw()
    curves = [line for line in drawn.axes[0].lines if len(line.get_xdata()) == 7]
    gaps = [np.asarray(line.get_xdata())[np.isnan(np.asarray(line.get_ydata(), float))].tolist() for line in curves]
    # The training line and the edges of its band have a gap; those of validation have none.
    assert gaps.count([0.5]) == gaps.count([]) == len(curves) / 2 > 0


def test_trajectories_of_two_seeds_have_separate_panels():
    chosen, epochs, diverges = SCENARIOS["plain"]
    frames = make_analyses(chosen, epochs, diverges)
    one = frames["tables/trajectory"]
    frames["tables/trajectory"] = pd.concat([one, one.assign(seed=1)], ignore_index=True)
    drawn = build(chosen, "figures", "trajectory", FIGURES["trajectory"], frames).draw()
    assert len(drawn.axes) == 4


@pytest.mark.parametrize("figure", ["landscape", "trajectory"])
def test_settings_that_differ_only_in_their_schedule_have_separate_panels(figure: str):
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


def test_equal_data_gives_equal_bytes_under_any_matplotlib_settings(tmp_path: Path):
    chosen, epochs, diverges = SCENARIOS["plain"]
    frames = add_tables(chosen, make_analyses(chosen, epochs, diverges))
    files = []
    users = {"text.usetex": True, "font.size": 40, "savefig.bbox": "tight", "axes.linewidth": 5, "lines.linestyle": ":"}
    for folder, own in {"once": {}, "twice": users}.items():
        png, pdf = tmp_path / folder / "figure.png", tmp_path / folder / "figure.pdf"
        with mpl.rc_context(own):  # as a matplotlibrc would set it
            write_figure(
                build(chosen, "figures", "lr_effect", FIGURES["lr_effect"], frames), [png, pdf], FiguresConfig()
            )
        files.append((png.read_bytes(), pdf.read_bytes()))
    assert files[0] == files[1]


def test_thinning_preserves_early_epochs_and_separates_batch_sizes():
    epochs = np.arange(1, 2001)
    frame = pd.concat([pd.DataFrame({"batch_size": b, "epoch": epochs, "mean": b * epochs}) for b in (32, 64)])
    thin = thin_epochs(frame, ["batch_size"])
    assert len(thin) < 300
    assert list(thin["epoch"][:10]) == list(range(1, 11))
    assert np.allclose(thin["mean"], thin["batch_size"] * thin["epoch"])


@pytest.mark.parametrize("section", ["tuning", "sharpness", "interpolation", "landscape", "gradient_alignment"])
def test_disabled_analysis_removes_only_what_depends_on_it(section: str):
    chosen = Study.from_mapping({"name": "s", section: {"enabled": False}}, "s")
    frames = add_tables(chosen, make_analyses(chosen, 3, lambda _: False))
    frames = {
        name: frame for name, frame in frames.items() if not name.endswith(section.replace("tuning", "trial_runs"))
    }
    for figure in chosen.plan.figures:
        build(chosen, "figures", figure, FIGURES[figure], frames)
    left_out = {
        "tuning": {"trials", "tuned_lr", "lr_search"},
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


@pytest.mark.parametrize(("batch_sizes", "noise"), [([40, 48, 60], 30.0), ([96, 192], 75.0)])
def test_critical_batch_sizes_between_two_powers_of_two_are_drawn_with_ticks(batch_sizes: list[int], noise: float):
    chosen = make_study(batch_sizes, [0.01, 0.1], [0, 1])
    frames = make_analyses(chosen, 6, lambda _: False)
    frames["analysis/history"]["noise_scale"] *= noise
    branches = frames["analysis/branching"]
    branches.loc[branches["factor"] == 2, "train_loss"] *= 1.5  # no branch is within the tolerance
    plot = build(chosen, "figures", "branching", FIGURES["branching"], add_tables(chosen, frames))
    with drawn(plot, FiguresConfig()) as picture:
        ticks = [text.get_text() for axes in picture.axes for text in axes.get_yticklabels()]
    assert len(set(filter(None, ticks))) >= 2


@pytest.mark.parametrize("config", [FiguresConfig(), PAPER], ids=["page", "paper"])
def test_titles_of_layers_with_long_names_are_apart_and_complete(config: FiguresConfig):
    common = {"setting": "bs32-lr0.01", "batch_size": 32, "learning_rate": 0.01, "status": "converged", "distance": 1.0}
    parts = ("attention.self.query", "attention.self.key_of_another_name", "output.dense")
    layers = [f"bert.encoder.layer.{index}.{part}" for index in (0, 11) for part in parts]
    points = pd.DataFrame([{**common, "layer": name} for name in (ALL_LAYERS, *layers)])
    means = points.assign(distance_mean=1.0, distance_sd=0.1, n_seeds=2, n_diverged=0)
    with drawn(distance_by_layer.draw(points, means, fixed_learning_rate=0.01), config) as picture:
        assert overlapping(picture) == cut_off(picture) == set()
        assert set(layers) <= {text.get_text().replace("\n", "") for text in shown_texts(picture)}


def test_words_are_broken_after_dots_and_underscores_only_if_they_are_too_long():
    width, size = text_width("model.encoder", 8), 8
    assert wrap("of model.encoder", width, size) == "of\nmodel.encoder"
    assert wrap("of model.encoder.key_query", width, size) == "of model.\nencoder.key_\nquery"
    assert wrap("0.123456789012345", width / 2, size) == "0.123456789012345"


@pytest.mark.parametrize("figure", ["convergence", "convergence_before_after"])
def test_ticks_of_large_losses_leave_room_for_the_titles_of_panels(figure: str):
    chosen, epochs, diverges = SCENARIOS["plain"]
    settings = describe_measures(*TASKS["regression"])
    analyses = make_analyses(chosen, epochs, diverges, [metric["name"] for metric in settings["metrics"]])
    losses = ["min_train_loss", "best_validation_loss", "validation_rmse_at_best"]
    analyses["tables/runs"][losses] *= 1e9
    frames = add_tables(chosen, analyses, settings)
    with drawn(build(chosen, "figures", figure, FIGURES[figure], frames, settings), FiguresConfig()) as picture:
        assert cut_off(picture) == overlapping(picture) == set()
        ticks = [text.get_text() for text in picture.axes[0].get_yticklabels()]
    assert all(re.fullmatch(r"\d\.?\d*e\+08", tick) for tick in ticks)


def test_network_with_many_layers_has_a_taller_figure():
    heights = []
    for count in (4, 31):
        layers = [ALL_LAYERS, *(f"layer{index}" for index in range(count))]
        common = {"setting": "bs32-lr0.01", "batch_size": 32, "learning_rate": 0.01}
        points = pd.DataFrame([{**common, "layer": name, "status": "converged", "distance": 1.0} for name in layers])
        means = points.assign(distance_mean=1.0, distance_sd=0.1, n_seeds=2, n_diverged=0)
        plot = distance_by_layer.draw(points, means, fixed_learning_rate=0.01)
        with drawn(plot, FiguresConfig()) as picture:
            heights.append(picture.get_figheight())
    assert heights[0] < 6  # two rows of two
    assert heights[1] > 11  # eleven rows of three
