"""Jobs on a real Slurm with two nodes on this machine: the same numbers as without it, whatever happens to the jobs."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from batchscape.cli.cancel import JOB_NAME_PREFIX, cancel
from batchscape.config.run import RunSpec
from batchscape.data.prepare import prepare
from batchscape.data.prepared import write_prepared
from batchscape.io.run_directory import RunDirectory
from batchscape.runtime.slurm import job_end_time, job_num_nodes
from batchscape.study.study import Study
from batchscape.training import recorder
from batchscape.training.train import train
from tests.helpers.checkout import PROJECT, Checkout, restore_sigint
from tests.helpers.cluster import PROFILE, Cluster, needs_slurm, wait_for_slurm
from tests.helpers.waiting import TIMEOUT

pytestmark = [pytest.mark.slow, needs_slurm]

# A user's settings of Slurm's commands.
USER_SETTINGS = {
    "SQUEUE_FORMAT": "%j",
    "SQUEUE_FORMAT2": "jobid",
    "SQUEUE_STATES": "SUSPENDED",
    "SQUEUE_USERS": "nobody",
}

# Runs, identified by their batch size. There are 48 training images: an epoch is one full batch and the remainder.
PLAIN, SLOW, CANCELLED, HUNGRY, LATE, TWO_DEVICES, TWO_NODES, BROKEN = range(40, 48)
STUDY = f"""
name: probe
data: {{source: synthetic, images: 60, image_size: [8, 8], channels: 1}}
grid: {{batch_sizes: {list(range(40, 48))}, learning_rates: [0.05], seeds: [0]}}
model: {{name: "probe_net:Net"}}
training: {{budget: {{epochs: 40}}, patience: 40, checkpoints: [1, 10, 25]}}
optimizer: {{arguments: {{momentum: 0.9}}}}
comparison: {{fixed_learning_rate: 0.05, high_learning_rate: 0.05}}
arms: {{linear: {{enabled: false}}, sqrt: {{enabled: false}}}}
tuning: {{enabled: false}}
sharpness: {{enabled: false}}
interpolation: {{enabled: false}}
landscape: {{enabled: false}}
gradient_alignment: {{enabled: false}}
device_timing: {{device_counts: [1], epochs: 1}}
confirmation: {{enabled: false}}
"""
# If the file `undisturbed` is beside it, the network only computes. Otherwise the epochs of some runs take seconds, and
# the first attempt of some runs exceeds its limits. A checkpoint is saved after every epoch.
NETWORK = f"""
import time
from pathlib import Path
import numpy as np
from torch import nn
from batchscape.training import recorder

recorder.CHECKPOINT_INTERVAL = 0.0
HERE = Path(__file__).parent

class Net(nn.Sequential):
    def __init__(self, outputs):
        super().__init__(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, outputs))
        self.steps = 0

    def forward(self, images):
        if self.training and {SLOW} <= len(images) <= {LATE} and not (HERE / "undisturbed").exists():
            self.steps += 1
            time.sleep(5 if len(images) == {SLOW} else 1)
            mark = HERE / f"exceeded-{{len(images)}}"
            if self.steps == 3 and len(images) in ({HUNGRY}, {LATE}) and not mark.exists():
                mark.touch()
                if len(images) == {HUNGRY}:
                    array = np.ones(400_000_000)
                time.sleep(300)
        return super().forward(images)
"""


def run_name(batch_size: int) -> str:
    return f"bs{batch_size}-lr0.05-seed0"


def run_file(batch_size: int) -> str:
    return f"results/probe/runs/{run_name(batch_size)}/run.json"


def run_directory(checkout: Checkout, batch_size: int) -> RunDirectory:
    return RunDirectory((checkout.path / run_file(batch_size)).parent)


def read_log(checkout: Checkout, batch_size: int) -> str:
    return (checkout.path / f"results/probe/logs/train/{run_name(batch_size)}.log").read_text()


def write_probe(folder: Path) -> Checkout:
    checkout = Checkout.at(folder)
    (folder / "probe.yaml").write_text(STUDY)
    (folder / "probe_net.py").write_text(NETWORK)
    return checkout


@pytest.fixture(scope="module")
def probe(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The study of which each test requests some runs, in a folder that the nodes see."""
    checkout = write_probe(tmp_path_factory.mktemp("probe") / "checkout")
    return Checkout(checkout.path, cluster.prefix)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """All runs, trained by this process."""
    checkout = write_probe(tmp_path_factory.mktemp("undisturbed") / "checkout")
    (checkout.path / "undisturbed").touch()
    with pytest.MonkeyPatch.context() as patch:
        # The network's module sets this too, in this process; it is undone at the end.
        patch.setattr(recorder, "CHECKPOINT_INTERVAL", 0.0)
        patch.chdir(checkout.path)
        patch.syspath_prepend(checkout.path)
        study = Study.from_file(Path("probe.yaml"))
        data = Path(study.paths.prepared_data)
        write_prepared(data, prepare(study.data)[0])
        for batch_size in range(PLAIN, BROKEN + 1):
            spec = RunSpec.model_validate_json(study.specs.run(run_name(batch_size)))
            train(spec, data, Path(run_file(batch_size)).parent)
    return checkout


def targets(*batch_sizes: int) -> list[str]:
    """Return Snakemake's arguments for runs of the study."""
    return [*map(run_file, batch_sizes), *PROFILE, "--configfile", "probe.yaml"]


def job_id(cluster: Cluster, batch_size: int, states: str = "RUNNING") -> str | None:
    """Return the ID of the job in these states that trains a run."""
    jobs = cluster.jobs(states)
    return next((job for job, comment in jobs.items() if run_name(batch_size) in comment), None)


def attempts(cluster: Cluster, batch_size: int) -> list[dict[str, str]]:
    """Return the controller's details of each job that trained a run, in order."""
    jobs = [job for job, comment in cluster.jobs("all").items() if run_name(batch_size) in comment]
    return [cluster.details(job) for job in sorted(jobs, key=int)]


def assert_same_run(one: Checkout, two: Checkout, batch_size: int) -> None:
    """Compare two trainings of a run bit for bit, except times."""
    first, second = (run_directory(checkout, batch_size) for checkout in (one, two))
    for file in ("update_norms.npy", *(f"weights/{path.name}" for path in (first.path / "weights").iterdir())):
        assert (first.path / file).read_bytes() == (second.path / file).read_bytes(), file
    columns = ["train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "distance", "noise_scale"]
    assert first.history(columns).equals(second.history(columns))
    keys = ("status", "epochs", "best_epoch", "best_validation_loss", "spec")
    assert [first.summary()[key] for key in keys] == [second.summary()[key] for key in keys]


def test_failed_job_is_reported_with_its_log_and_only_missing_jobs_run_again(
    cluster: Cluster, probe: Checkout, undisturbed: Checkout
):
    weights = run_directory(probe, BROKEN).path / "weights"
    weights.parent.mkdir(parents=True)
    weights.write_text("a file where the folder of the weights must be")
    done = probe.snakemake(*targets(PLAIN, BROKEN), "--retries", "0")
    assert done.returncode == 1
    assert f"results/probe/logs/train/{run_name(BROKEN)}.log" in done.stdout
    assert "FileExistsError: [Errno 17]" in done.stdout  # the content of the log
    assert_same_run(probe, undisturbed, PLAIN)
    before = set(cluster.jobs("all"))
    weights.unlink()
    done = probe.snakemake(*targets(PLAIN, BROKEN), "--retries", "0")
    assert done.returncode == 0, done.stdout[-4000:]
    assert [cluster.details(job)["Comment"] for job in set(cluster.jobs("all")) - before] == [
        f"rule_train_wildcards_{run_name(BROKEN)}"
    ]
    assert_same_run(probe, undisturbed, BROKEN)


def test_killed_job_resumes_with_larger_limits_and_gives_identical_bits(
    cluster: Cluster, probe: Checkout, undisturbed: Checkout
):
    """Killed by scancel, for its memory, for its time; and one that stops before its time limit by itself."""
    limits = ["--set-resources", "train:mem_mb=2500 * attempt", "train:runtime=3 * attempt"]
    runs = (SLOW, CANCELLED, HUNGRY, LATE)
    with probe.running(*targets(*runs), *limits) as process:
        wait_for_slurm(lambda: job_id(cluster, CANCELLED), cluster.logs)
        wait_for_slurm(
            (run_directory(probe, CANCELLED).checkpoint_folder / "checkpoint.safetensors").exists, cluster.logs
        )
        cluster.run("scancel", job_id(cluster, CANCELLED))
        output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, output[-4000:]
    states = {run: [attempt["JobState"] for attempt in attempts(cluster, run)] for run in runs}
    first = {run: tries[0] for run, tries in states.items()}
    # Without cgroups Slurm reports a job that it killed for memory as failed.
    assert first == {SLOW: "FAILED", CANCELLED: "CANCELLED", HUNGRY: "FAILED", LATE: "TIMEOUT"}
    assert {tries[-1] for tries in states.values()} == {"COMPLETED"}
    for run in runs:
        memory, minutes = zip(
            *((each["MinMemoryNode"], each["TimeLimit"]) for each in attempts(cluster, run)), strict=True
        )
        assert (memory[:2], minutes[:2]) == (("2500M", "5000M"), ("00:03:00", "00:06:00"))
        assert int(re.search(r"resuming after step (\d+)", read_log(probe, run))[1]) >= 1
        assert_same_run(probe, undisturbed, run)
    assert (probe.path / f"exceeded-{HUNGRY}").exists()
    assert (probe.path / f"exceeded-{LATE}").exists()
    assert f"{run_name(SLOW)}: saved a checkpoint after step" in output


@pytest.mark.parametrize(
    ("batch_size", "resources", "nodes"),
    [(TWO_DEVICES, "{devices: 2}", 1), (TWO_NODES, "{devices: 1, nodes: 2}", 2)],
    ids=["two devices", "two nodes"],
)
def test_several_processes_train_the_same_run_as_one(
    cluster: Cluster, probe: Checkout, undisturbed: Checkout, batch_size: int, resources: str, nodes: int
):
    done = probe.snakemake(*targets(batch_size), "--config", f"resources={resources}")
    assert done.returncode == 0, done.stdout[-4000:]
    single, parallel = (run_directory(checkout, batch_size) for checkout in (undisturbed, probe))
    environment = parallel.summary()["environment"]
    assert (environment["devices"], environment["nodes"]) == (2 // nodes, nodes)
    assert attempts(cluster, batch_size)[-1]["NumNodes"] == str(nodes)
    for name in ("init", "best", "last"):
        np.testing.assert_allclose(parallel.weights(name).vector, single.weights(name).vector, rtol=1e-4, atol=1e-6)


def test_ctrl_c_cancels_jobs_and_documented_steps_recover_from_a_killed_snakemake(
    cluster: Cluster, probe: Checkout, undisturbed: Checkout
):
    shutil.rmtree(run_directory(probe, CANCELLED).path, ignore_errors=True)
    other_study = cluster.run(
        "sbatch", "--parsable", "--hold", "--job-name=batchscape_other", f"--chdir={probe.path}", "--wrap=true"
    ).strip()
    with probe.running(*targets(CANCELLED)) as process:
        wait_for_slurm(lambda: job_id(cluster, CANCELLED), cluster.logs)
        # While Snakemake waits for squeue, when it has no list of its jobs.
        with cluster.delay("squeue") as was_called:
            wait_for_slurm(was_called.exists, cluster.logs)
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT)
    assert list(cluster.jobs()) == [other_study]
    cluster.run("scancel", other_study)
    assert attempts(cluster, CANCELLED)[-1]["JobState"] == "CANCELLED"

    with probe.running(*targets(CANCELLED)) as process:
        wait_for_slurm(lambda: job_id(cluster, CANCELLED), cluster.logs)
        wait_for_slurm(
            (run_directory(probe, CANCELLED).checkpoint_folder / "checkpoint.safetensors").exists, cluster.logs
        )
        process.kill()
        process.wait()
    orphan = job_id(cluster, CANCELLED)
    assert orphan
    text = (PROJECT / "docs" / "cluster.md").read_text()
    steps = re.search(r"## When the login node died.*?```sh\n(.*?)```", text, re.DOTALL)[1]
    for command in ("batchscape cancel", "--unlock", " all"):
        assert command in steps
    # With the file and targets of this study.
    steps = re.sub(r" all\b.*", f" {' '.join(targets(CANCELLED))}", steps)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [*cluster.prefix, "bash", "-ec", f"export PATH={cluster.clients}:{path}; export PYTHONPATH=src; {steps}"],
        cwd=probe.path,
        capture_output=True,
        text=True,
        preexec_fn=restore_sigint,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert f"cancelled {orphan}, rule_train" in done.stdout
    *_, before, after = attempts(cluster, CANCELLED)
    assert before["JobId"] == orphan
    assert before["EndTime"] <= after["StartTime"]  # two jobs never run the training at the same time
    assert "resuming after step" in read_log(probe, CANCELLED)
    assert_same_run(probe, undisturbed, CANCELLED)


def test_device_timing_gets_an_exclusive_node(cluster: Cluster, probe: Checkout):
    done = probe.snakemake("results/probe/analysis/devices.csv", *PROFILE, "--configfile", "probe.yaml")
    assert done.returncode == 0, done.stdout[-4000:]
    job = next(job for job, comment in cluster.jobs("all").items() if comment == "rule_device_timing")
    assert cluster.details(job)["OverSubscribe"] == "NO"


@pytest.mark.parametrize(
    ("resources", "field"),
    [("{devices: 2}", "TresPerJob"), ("{devices: 2, nodes: 2}", "TresPerNode")],
    ids=["one node", "two nodes"],
)
def test_gpus_are_requested_as_configured(cluster: Cluster, probe: Checkout, resources: str, field: str):
    on_gpus = ("--config", "training={accelerator: gpu}", f"resources={resources}")
    done = probe.snakemake("results/probe/network.json", *PROFILE, "--configfile", "probe.yaml")
    assert done.returncode == 0, done.stdout[-4000:]
    # Only the training: the network job would request a GPU first, and this Slurm has none.
    done = probe.snakemake(*targets(PLAIN), *on_gpus, "--retries", "0", "--allowed-rules", "train")
    assert done.returncode == 1  # this Slurm's devices are not GPUs
    assert attempts(cluster, PLAIN)[-1][field] == "gres:gpu:2"
    assert "training.accelerator: " in done.stdout


def test_profiles_agree_where_they_must():
    default, cluster = (
        YAML(typ="safe").load(PROJECT / "profiles" / name / "config.yaml") for name in ("default", "slurm")
    )
    assert default.items() <= cluster.items()
    assert cluster["slurm-jobname-prefix"] + "_" == JOB_NAME_PREFIX
    runtimes = [resources["runtime"] for resources in cluster["set-resources"].values() if "runtime" in resources]
    assert len(runtimes) == 3 and all(runtime.startswith("min(") for runtime in runtimes)


def test_user_settings_of_slurm_commands_are_ignored(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By `cancel`, and by the query for the end of the current job."""
    folder = tmp_path / "a | b"
    folder.mkdir()
    submit = ["--parsable", f"--job-name={JOB_NAME_PREFIX}x", f"--chdir={folder}", "--time=60", "--comment=rule_train"]
    job = cluster.run("sbatch", *submit, "--output=/dev/null", "--wrap=sleep 600").strip()
    monkeypatch.setenv("PATH", f"{cluster.clients}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", job)
    for name, value in {**USER_SETTINGS, "SLURM_TIME_FORMAT": "relative", "SCANCEL_STATE": "SUSPENDED"}.items():
        monkeypatch.setenv(name, value)
    wait_for_slurm(job_end_time, cluster.logs)
    assert job_num_nodes() == 1
    assert 0 < job_end_time() - time.time() <= 3600
    assert cancel(folder) == [f"cancelled {job}, rule_train"]
