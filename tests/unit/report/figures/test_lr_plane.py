"""The map of batch size and learning rate: adjacent cells without overlap, and their text."""

import numpy as np
import pandas as pd
import pytest

from batchscape.report.figures import lr_plane
from batchscape.report.tables import best_lr
from tests.helpers.measures import CLASSIFICATION


def lr_grid() -> pd.DataFrame:
    settings = [(b, rate) for b in (32, 64, 256) for rate in (0.01, 0.02, 0.04)] + [(64, 0.0282843)]
    frame = pd.DataFrame(settings, columns=["batch_size", "learning_rate"])
    frame["setting"] = [f"bs{b}-lr{rate:g}" for b, rate in settings]
    loss = frame["batch_size"] / 100 * (1 + np.log2(frame["learning_rate"] / 0.02) ** 2)
    counts = {"n_seeds": 2, "n_diverged": 0, "n_budget_spent": 0, "best_validation_loss_sd": 0.1}
    frame = frame.assign(best_validation_loss_mean=loss, **counts)
    frame.loc[0, ["n_seeds", "n_diverged"]] = [1, 1]
    frame.loc[8, ["n_seeds", "n_diverged", "best_validation_loss_mean"]] = [0, 2, np.nan]
    return frame


def draw(frame: pd.DataFrame):
    return lr_plane.draw(frame, best_lr.tabulate(frame), small_batch_size=32, measures=CLASSIFICATION)


def test_cells_meet_halfway_on_the_logarithmic_axes():
    cells = lr_plane._cells(lr_grid()).set_index(["batch_size", "learning_rate"])
    edges = ["left", "right", "bottom", "top"]
    half = np.sqrt(2)
    found = cells.loc[(64, 0.02), edges].tolist()
    assert found == pytest.approx([64 / half, 128, 0.02 / half, np.sqrt(0.02 * 0.0282843)])
    assert cells.loc[(256, 0.04), edges].tolist() == pytest.approx([128, 512, 0.04 / half, 0.04 * half])
    for _, column in cells.groupby("batch_size"):
        assert np.array_equal(column["top"][:-1], column["bottom"][1:])
        assert [column["bottom"].iloc[0], column["top"].iloc[-1]] == pytest.approx([0.01 / half, 0.04 * half])


def test_single_setting_has_a_cell():
    cell = lr_plane._cells(lr_grid()[:1]).iloc[0]
    assert cell["left"] < 32 < cell["right"]
    assert cell["bottom"] < 0.01 < cell["top"]


def layer(plot, geom: str, place: int = 0) -> pd.DataFrame:
    return [each._data for each in plot.layers if type(each.geom).__name__ == geom][place]


def test_cells_show_their_loss_and_the_number_of_diverged_runs():
    plot = draw(lr_grid())
    plot.draw()
    text = plot.data.set_index(["batch_size", "learning_rate"])["text"]
    assert text[(32, 0.01)] == "0.64 1×"
    assert text[(32, 0.02)] == "0.32"
    assert text[(256, 0.04)] == " 2×"


def test_cells_with_similar_losses_have_digits_that_tell_them_apart():
    frame = lr_grid()
    frame["best_validation_loss_mean"] = 5.4 + frame["best_validation_loss_mean"] / 100
    plot = draw(frame)
    plot.draw()
    text = plot.data.set_index(["batch_size", "learning_rate"])["text"]
    assert text[(32, 0.02)] == "5.403"
    assert text[(64, 0.02)] == "5.406"


def test_best_rate_is_outlined_and_scaled_from_the_small_batch():
    plot = draw(lr_grid())
    outlined = layer(plot, "geom_rect", 1)
    assert outlined[["batch_size", "learning_rate"]].to_numpy().tolist() == [[32, 0.02], [64, 0.02], [256, 0.02]]
    lines = layer(plot, "geom_line")
    for name, power in (("linear", 1), ("sqrt", 0.5)):
        line = lines[lines["scaling"] == name]
        assert line["learning_rate"].to_numpy() == pytest.approx(0.02 * (line["batch_size"] / 32) ** power)
        assert line["batch_size"].min() == pytest.approx(32)
    assert lines["learning_rate"].max() <= 0.04 * np.sqrt(2)
