"""Environment variables that users set for other programs do not affect a job."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from batchscape.runtime.environment_variables import sanitize_variables
from tests.helpers.environment import HOSTILE

# Trains like a job, which imports `job_log` before anything else.
JOB = """
from batchscape.runtime.job import job_log
import sys
from pathlib import Path
import matplotlib.pyplot
from batchscape.config.run import RunSpec
from batchscape.training.train import train
with job_log(sys.argv[1]):
    train(RunSpec.model_validate_json(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
"""


def test_variables_of_where_to_compute_are_retained():
    retained = {
        "CUDA_VISIBLE_DEVICES": "3",
        "SLURM_JOB_ID": "7",
        "SLURM_CONF": "/etc/slurm.conf",
        "SBATCH_ACCOUNT": "lab",
        "SBATCH_PARTITION": "gpu",
        "OMP_NUM_THREADS": "2",
        "PYTHONPATH": "/x",
        "NCCL_SOCKET_IFNAME": "ib0",
        "PATH": "/bin",
    }
    assert retained.items() <= sanitize_variables({**HOSTILE, **retained}).items()
    assert not (HOSTILE.keys() - {"MPLBACKEND"}) & sanitize_variables(HOSTILE).keys()


@pytest.mark.slow
def test_training_is_identical_whatever_the_environment_of_the_user(small_data_file: Path, tmp_path: Path):
    spec = {
        "batch_size": 32,
        "learning_rate": 0.05,
        "seed": 1,
        "model": {"name": "mlp", "dense": [8]},
        "training": {"budget": {"epochs": 3}, "accelerator": "cpu"},
    }
    # Not those that Python reads at startup: Snakemake removes them before a job starts.
    hostile = {name: value for name, value in HOSTILE.items() if not name.startswith("PYTHON")}
    for name, variables in {"plain": {}, "hostile": hostile}.items():
        job = [sys.executable, "-c", JOB, f"{name}.log", json.dumps(spec), str(small_data_file), str(tmp_path / name)]
        done = subprocess.run(
            job, cwd=tmp_path, env={**os.environ, **variables}, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    for file in ("weights/last.safetensors", "weights/best.safetensors", "update_norms.npy"):
        assert (tmp_path / "plain" / file).read_bytes() == (tmp_path / "hostile" / file).read_bytes()


READ_ONLY = pytest.param("read-only", marks=pytest.mark.skipif(os.getuid() == 0, reason="root can write anywhere"))


@pytest.mark.parametrize("home", ["missing", READ_ONLY, "unknown"])
def test_without_a_writable_home_caches_are_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").touch()
    (tmp_path / "read-only").mkdir(0o500)
    if home == "unknown":
        monkeypatch.delenv("HOME", raising=False)
        monkeypatch.setattr("pwd.getpwuid", lambda user: {}[user])
    else:
        monkeypatch.setenv("HOME", str(tmp_path / ("a file/home" if home == "missing" else home)))
    variables = sanitize_variables({"PATH": "/bin"})
    caches = tmp_path / ".snakemake" / "caches"
    assert variables["XDG_CACHE_HOME"] == str(caches)
    assert Path(variables["MPLCONFIGDIR"]).is_relative_to(caches)
    assert variables.get("HOME") == (str(caches) if home == "unknown" else None)


def test_caches_stay_in_a_writable_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not {"HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR"} & sanitize_variables({"PATH": "/bin"}).keys()
    assert sanitize_variables({"XDG_CACHE_HOME": str(tmp_path)})["XDG_CACHE_HOME"] == str(tmp_path)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can switch users")
def test_a_user_without_a_name_is_named(tmp_path: Path):
    code = (
        "import getpass, os, batchscape.runtime.environment_variables as variables; os.setuid(4242424);"
        "variables.sanitize_environment(); print(getpass.getuser())"
    )
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "4242424\n"
