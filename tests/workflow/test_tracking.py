"""A study with trackers that is killed, resumed and given one more tracker: each has each step of each run once."""

import time
from pathlib import Path

import pandas as pd
import pytest

from batchscape.io.run_directory import RunDirectory
from tests.helpers.checkout import Checkout
from tests.helpers.tracked import assert_same_points, read_csv, read_events, read_mlflow
from tests.helpers.waiting import TIMEOUT

pytestmark = pytest.mark.slow

STUDY = """
name: tiny
tracking: [{trackers}]
grid: {{batch_sizes: [256], learning_rates: [0.05], seeds: [0, 1]}}
model: {{name: "tracked_net:Net"}}
training: {{budget: {{epochs: 60}}, patience: null}}
comparison: {{fixed_learning_rate: 0.05, high_learning_rate: 0.05}}
arms: {{linear: {{enabled: false}}, sqrt: {{enabled: false}}}}
tuning: {{enabled: false}}
confirmation: {{settings: 1, seeds: 1}}
"""
# Saves a checkpoint and writes to the trackers at every evaluation, so that a kill can hit either.
NETWORK = """
from torch import nn
from batchscape.training import recorder, tracking

recorder.CHECKPOINT_INTERVAL = 0.0
tracking.WRITE_INTERVAL = 0.0

class Net(nn.Sequential):
    def __init__(self, outputs):
        super().__init__(nn.Flatten(), nn.Dropout(0.1), nn.Linear(64, outputs))
"""
COMMAND = ("--cores", "2", "--nolock", "results/tiny/tracking/runs.csv", "--configfile", "tiny.yaml")
RUNS = ("bs256-lr0.05-seed0", "bs256-lr0.05-seed1")


def test_killed_study_has_each_step_once_in_all_trackers(tmp_path: Path):
    checkout = Checkout.at(tmp_path)
    (tmp_path / "tracked_net.py").write_text(NETWORK)
    config, study = tmp_path / "tiny.yaml", tmp_path / "results" / "tiny"
    config.write_text(STUDY.format(trackers="tensorboard, csv"))
    metrics = study / "tracking" / "csv" / "bs256-lr0.05" / "seed0" / "metrics.csv"
    limit = time.monotonic() + TIMEOUT
    with checkout.running(*COMMAND) as process:
        while not metrics.exists() or len(metrics.read_text().splitlines()) < 4:
            assert process.poll() is None, process.stdout.read()[-4000:]
            assert time.monotonic() < limit
            time.sleep(0.005)
    assert not (study / "runs" / RUNS[0] / "run.json").exists()

    config.write_text(STUDY.format(trackers="tensorboard, csv, mlflow"))
    resumed = checkout.snakemake(*COMMAND)
    assert resumed.returncode == 0, resumed.stdout[-4000:]

    confirmed = "bs256-lr0.05-seed1000"
    directories = {name: RunDirectory(study / "runs" / name) for name in RUNS}
    directories[confirmed] = RunDirectory(study / "confirmation" / "rank1-seed1000")
    tracked = read_mlflow(study)
    assert set(tracked) == set(directories)
    for name, run in directories.items():
        assert run.summary()["evaluations"] == 60
        assert_same_points(tracked[name], run)
        assert_same_points(read_events(study, name), run, digits=1e-6)
        table = read_csv(study, name)
        assert_same_points({column: list(zip(table["step"], table[column], strict=True)) for column in table}, run)
    places = pd.read_csv(study / "tracking" / "runs.csv")
    assert sorted(zip(places["run"], places["tracker"], strict=True)) == sorted(
        (name, tracker) for name in directories for tracker in ("tensorboard", "csv", "mlflow")
    )
