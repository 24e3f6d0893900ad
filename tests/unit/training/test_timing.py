"""Epoch times on several devices: their measurement, table and figure."""

import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from batchscape.config.budget import Budget
from batchscape.config.device_timing import TimingSpec
from batchscape.config.model import CustomModelConfig, VggConfig
from batchscape.config.run import RunSpec
from batchscape.config.training import TrainingConfig
from batchscape.report.figures import devices as figure
from batchscape.report.tables.devices import tabulate
from batchscape.training.timing import other_cores, time_epochs


def epochs(seconds: dict[tuple[int, int], list[float]]) -> pd.DataFrame:
    """Return timed epochs by batch size and devices; no seconds where timing is impossible."""
    rows = []
    for (batch_size, devices), measured in seconds.items():
        where = {"device": "cpu", "processor": "a processor", "cores": 4, "other_cores": 0.1} if measured else {}
        numbered = list(enumerate(measured, start=1)) or [(0, np.nan)]
        rows += [
            {"batch_size": batch_size, "devices": devices, **where, "epoch": epoch, "seconds": value}
            for epoch, value in numbered
        ]
    return pd.DataFrame(
        rows, columns=["batch_size", "devices", "device", "processor", "cores", "other_cores", "epoch", "seconds"]
    )


def test_speedup_and_efficiency_use_medians():
    table = tabulate(epochs({(32, 1): [8, 9, 80], (32, 2): [6, 6, 6], (32, 4): [], (64, 1): [4.0], (64, 2): [2.0]}))
    rows = table.set_index(["batch_size", "devices"])
    assert rows.loc[(32, 2), "speedup"] == 1.5
    assert rows.loc[(32, 2), "efficiency"] == 0.75
    assert rows.loc[(64, 2), ["speedup", "efficiency"]].tolist() == [2, 1]
    assert rows.loc[(32, 1), ["epoch_seconds_q25", "epoch_seconds", "epoch_seconds_q75"]].tolist() == [8.5, 9, 44.5]
    assert rows["n_epochs"].tolist() == [3, 3, 0, 1, 1]
    assert rows.loc[(32, 4), ["epoch_seconds", "speedup", "efficiency"]].isna().all()


def test_smallest_device_count_is_the_reference():
    table = tabulate(epochs({(32, 2): [6.0], (32, 8): [2.0]}))
    assert table["speedup"].tolist() == [2, 6]
    assert table["efficiency"].tolist() == [1, 0.75]


@pytest.mark.parametrize("timed", [{1: [3.0]}, {1: [3.0], 2: [2.0], 4: []}, {1: [], 2: []}], ids=str)
def test_figure_shows_all_timed_epochs(timed: dict[int, list[float]]):
    figure.draw(tabulate(epochs({(32, devices): seconds for devices, seconds in timed.items()}))).draw()


def test_each_batch_size_is_timed_on_each_possible_device_count(small_data_file: Path):
    training = TrainingConfig(budget=Budget(epochs=3), accelerator="cpu")
    runs = tuple(
        RunSpec(
            batch_size=size, learning_rate=0.01, seed=0, model=VggConfig(channels=(2,), dense=()), training=training
        )
        for size in (1, 64)
    )
    too_many = 2 * os.cpu_count() + 1
    rows = time_epochs(TimingSpec(runs=runs, device_counts=(1, 2, too_many)), small_data_file, gpus=0)
    timed = [(row.batch_size, row.devices, row.epoch) for row in rows.itertuples()]
    of_one = [(1, 1, 1), (1, 1, 2), (1, 2, 0), (1, too_many, 0)]
    assert timed == [*of_one, (64, 1, 1), (64, 1, 2), (64, 2, 1), (64, 2, 2), (64, too_many, 0)]
    assert (rows["seconds"].isna() == (rows["epoch"] == 0)).all()
    assert (rows["seconds"].dropna() > 0).all()


def test_other_cores_are_nan_in_short_windows():
    assert other_cores(machine_seconds=3.0, job_seconds=2.0, window=2.0) == 0.5
    assert other_cores(machine_seconds=1.9, job_seconds=2.0, window=2.0) == 0  # the job's own time is more exact
    assert np.isnan(other_cores(machine_seconds=0.02, job_seconds=0.01, window=0.014))


def spectral(image_shape: tuple[int, int, int], outputs: int) -> nn.Module:
    """Updates its statistics at each step."""
    return nn.Sequential(nn.Flatten(), spectral_norm(nn.Linear(math.prod(image_shape), 4)), nn.Linear(4, outputs))


def test_network_that_cannot_be_split_is_timed_on_one_device(small_data_file: Path):
    run = RunSpec(
        batch_size=64,
        learning_rate=0.01,
        seed=0,
        model=CustomModelConfig(name=f"{__name__}:spectral", arguments={}),
        training=TrainingConfig(budget=Budget(epochs=2), accelerator="cpu"),
    )
    rows = time_epochs(TimingSpec(runs=(run,), device_counts=(1, 2)), small_data_file, gpus=0)
    assert list(zip(rows["devices"], rows["epoch"], strict=True)) == [(1, 1), (2, 0)]
