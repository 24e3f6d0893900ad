"""The estimate of what trainings cost, from the seconds of a few steps."""

import math
import re
from pathlib import Path

import pytest

from batchscape.cost import Pace, at_most, described_cost, fitted
from batchscape.study import Study, Trainings


def test_the_pace_goes_through_both_batch_sizes_that_were_timed():
    pace = fitted({32: 0.010, 128: 0.022}, 1e-5)  # 6 ms a batch, and 125 µs an image
    assert pace == Pace(pytest.approx(0.006), pytest.approx(0.000125), 1e-5)
    assert pace.epoch(64, 1000, 200) == pytest.approx(16 * 0.006 + 1000 * 0.000125 + 200e-5)


@pytest.mark.parametrize("seconds", [{16: 0.02}, {16: 0.02, 64: 0.01}, {16: 0.02, 64: 0.2}])
def test_neither_part_is_negative_however_the_times_came_out(seconds: dict[int, float]):
    pace = fitted(seconds, 0.0)
    assert pace.batch >= 0
    assert pace.image >= 0
    assert math.isclose(pace.batch + 16 * pace.image, 0.02)


def test_all_trainings_to_their_last_epoch_are_the_sum_over_parts_and_batch_sizes():
    trainings = [Trainings("run", 10, 6, 100), Trainings("search", 20, 4, 30)]
    pace = Pace(batch=0.1, image=0.01, validation_image=0.001)
    of_10, of_20 = 10 * 0.1 + 1 + 0.05, 5 * 0.1 + 1 + 0.05
    assert at_most(trainings, pace, 100, 50) == pytest.approx(600 * of_10 + 120 * of_20)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, r"time \(measured here .*\): an epoch takes \S+ s at batch size 8, \S+ s at batch size 16; all trainings"),
        (
            {"data": {"source": "image_folder", "path": ".", "image_size": [8, 9]}},
            r"time \(measured here .*\): 1,000 images take \S+ s at batch size 8, ",
        ),
        (
            {"data": {"source": "arrays", "path": "x.npz"}},
            "time: not known before the data is prepared; once `snakemake",
        ),
        ({"model": {"name": "no:net"}}, r"time: not estimated here \(model.name: there is no module no; .*\)$"),
    ],
)
def test_the_estimate_says_what_it_rests_on_or_why_there_is_none(
    keys: dict, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    synthetic = {"source": "synthetic", "images": 100_000, "image_size": [8, 8], "channels": 1}
    study = {"name": "s", "data": synthetic, "grid": {"batch_sizes": [8, 16]}, "model": {"name": "mlp"}, **keys}
    (line,) = described_cost(Study.from_mapping(study, "s.yaml"))
    assert re.match(said, line), line
    assert list(tmp_path.iterdir()) == []
