"""Seeds that share a process: each is the run that it is alone, and none is trained twice."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from batchscape.cli.status import read_runs
from batchscape.io.frames import read_frame
from batchscape.io.run_directory import RunDirectory
from batchscape.study.study import Study
from tests.helpers.checkout import Checkout, drop_times
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.slow

SETTING = "bs256-lr0.1"
RUNS = [f"{SETTING}-seed{seed}" for seed in (7, 1, 2)]
STUDY = """\
name: {name}
data: {{source: digits, validation_fraction: 0.8}}
grid: {{batch_sizes: [256], learning_rates: [0.1], seeds: {seeds}}}
model: {{name: "any_net:Net"}}
training: {{budget: {{epochs: 4}}, checkpoints: [2]}}
optimizer: {{arguments: {{momentum: 0.9}}}}
comparison: {{fixed_learning_rate: 0.1, high_learning_rate: 0.1}}
tuning: {{enabled: false}}
device_timing: {{enabled: false}}
confirmation: {{enabled: false}}
resources: {{seeds_per_job: {seeds_per_job}}}
"""
# Dropout and BatchNorm have all the state that a run can have. The first seed diverges; the second is slow on demand.
NETWORK = """
import time
from pathlib import Path
import torch
from torch import nn

class Net(nn.Sequential):
    def __init__(self, outputs):
        super().__init__(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(144, outputs)
        )
        self.seed = torch.initial_seed()
        if self.seed == 7:
            nn.init.constant_(self[-1].weight, 1e38)

    def forward(self, inputs):
        if self.seed == 1 and Path("slow").exists():
            time.sleep(0.5)
        return super().forward(inputs)
"""


def write_study(folder: Path, name: str, seeds_per_job: int, seeds: str = "[7, 1, 2]") -> Path:
    config = folder / f"{name}.yaml"
    config.write_text(STUDY.format(name=name, seeds=seeds, seeds_per_job=seeds_per_job))
    return config


def targets(name: str) -> list[str]:
    return [f"results/{name}/runs/{run}/run.json" for run in RUNS]


def command(name: str, config: Path) -> list[str]:
    # What is set for `train` holds for all rules that train: run.json has the number of threads.
    return ["--cores", "2", *targets(name), "--set-threads", "train=2", "--configfile", str(config)]


def train(checkout: Checkout, name: str, config: Path) -> str:
    done = checkout.snakemake(*command(name, config))
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def contents(checkout: Checkout, name: str, run: str) -> dict[str, bytes]:
    """Return the content of all files of a run, without times."""
    directory = checkout.path / "results" / name / "runs" / run
    files = {path.relative_to(directory): path for path in directory.rglob("*") if path.is_file()}
    parts = {str(name): path.read_bytes() for name, path in files.items() if path.suffix in (".safetensors", ".npy")}
    summary = json.loads((directory / "run.json").read_text())
    del summary["provenance"]["started"], summary["provenance"]["finished"]
    parts["run.json"] = json.dumps(summary).encode()
    history = drop_times(read_frame(directory / "history.csv"))
    parts["history.csv"] = " ".join(history.columns).encode() + history.to_numpy(np.float64).tobytes()
    return parts


def when_finished(checkout: Checkout, name: str, run: str) -> str:
    return RunDirectory(checkout.path / "results" / name / "runs" / run).summary()["provenance"]["finished"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = Checkout.at(tmp_path_factory.mktemp("seeds") / "checkout")
    (checkout.path / "any_net.py").write_text(NETWORK)
    return checkout


@pytest.fixture(scope="module")
def alone(checkout: Checkout) -> dict[str, dict[str, bytes]]:
    """The content of each run that trained in a process of its own."""
    train(checkout, "alone", write_study(checkout.path, "alone", 1))
    return {run: contents(checkout, "alone", run) for run in RUNS}


def test_runs_of_one_process_have_the_bits_of_runs_alone(checkout: Checkout, alone: dict[str, dict[str, bytes]]):
    config = write_study(checkout.path, "together", 3)
    output = train(checkout, "together", config)
    assert f"Training {', '.join(RUNS)}" in output
    assert {run: contents(checkout, "together", run) for run in RUNS} == alone
    statuses = [json.loads(alone[run]["run.json"])["status"] for run in RUNS]
    assert statuses[0] == "diverged"
    assert "diverged" not in statuses[1:]
    for run in RUNS:
        log = (checkout.path / f"results/together/logs/train/{run}.log").read_text()
        assert f"{run}: batch size 256" in log
        assert not any(other in log for other in RUNS if other != run)

    # How seeds are grouped changes no run, and a new one leaves the others alone, also where it completes a group.
    for seeds_per_job, seeds, new in ((1, "[7, 1, 2]", []), (2, "[7, 1, 2, 3]", [3]), (4, "[7, 1, 2, 5, 4]", [5, 4])):
        config = write_study(checkout.path, "together", seeds_per_job, seeds)
        stale = {job for job in checkout.stale_jobs(config) if job.startswith(("train ", "network"))}
        assert stale == {f"train {SETTING}-seed{seed}" for seed in new}
    forced = checkout.stale_jobs(write_study(checkout.path, "together", 2), "--until", "train", "--forcerun", "train")
    assert forced == {f"train {run}" for run in RUNS}


def test_a_seed_that_fails_fails_the_job_but_none_of_the_others(
    checkout: Checkout, alone: dict[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
):
    config, results = write_study(checkout.path, "failing", 3), checkout.path / "results" / "failing"
    broken = results / "runs" / RUNS[1]
    broken.mkdir(parents=True)
    (broken / "weights").write_text("a file where the folder of the weights must be")
    done = checkout.snakemake(*command("failing", config))
    assert done.returncode == 1
    assert f"results/failing/logs/train/{RUNS[1]}.log: FileExistsError" in done.stdout
    # Snakemake has deleted the outputs of the job.
    assert not any((checkout.path / target).exists() for target in targets("failing"))
    monkeypatch.chdir(checkout.path)
    states = {run.name: run.state for run in read_runs(Study.from_file(config))}
    assert states == {RUNS[0]: "done", RUNS[1]: "failed", RUNS[2]: "done"}
    finished = [when_finished(checkout, "failing", run) for run in (RUNS[0], RUNS[2])]

    (broken / "weights").unlink()
    output = train(checkout, "failing", config)
    assert "Reused, already complete for the same data, settings and code: 2 runs." in output
    assert [when_finished(checkout, "failing", run) for run in (RUNS[0], RUNS[2])] == finished
    assert {run: contents(checkout, "failing", run) for run in RUNS} == alone


def test_a_killed_job_loses_only_the_seed_on_its_way(checkout: Checkout, alone: dict[str, dict[str, bytes]]):
    config, slow = write_study(checkout.path, "killed", 3), checkout.path / "slow"
    slow.touch()
    try:
        with checkout.running(*command("killed", config)):
            wait_for((checkout.path / f"results/killed/logs/train/{RUNS[1]}.log").exists)
    finally:
        slow.unlink()
    finished = when_finished(checkout, "killed", RUNS[0])
    shutil.rmtree(checkout.path / ".snakemake" / "locks")
    train(checkout, "killed", config)
    assert when_finished(checkout, "killed", RUNS[0]) == finished
    assert {run: contents(checkout, "killed", run) for run in RUNS} == alone
