"""A study gives the same numbers on a very different machine, or is rejected in one line."""

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.helpers.checkout import PROJECT, Checkout, assert_same_results
from tests.helpers.dry_run import dry_run
from tests.helpers.environment import HOSTILE

FOLDER = "it's (a) & b"
RUN = "runs/bs64-lr0.02-seed0"
# In a container a user may have an ID without a name. The capability lets it read a Python that only root can read.
USER = 4242424
AS_USER = (
    *("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
)


def as_nameless_user() -> tuple[str, ...]:
    """Return a command that runs another one as a user without a name and home; empty if that is not possible."""
    may_switch = os.getuid() == 0 and shutil.which("setpriv")
    return AS_USER if may_switch and subprocess.run([*AS_USER, "true"], capture_output=True).returncode == 0 else ()


@pytest.mark.slow
def test_study_has_identical_numbers_on_a_hostile_machine(finished: Checkout, tmp_path: Path):
    """In a folder with a difficult name, under hostile environment variables, as a user without name and home."""
    checkout = Checkout.at(tmp_path / FOLDER).with_virtual_environment()
    study = YAML(typ="safe").load(PROJECT / "config" / "smoke.yaml")
    study["grid"] = {"batch_sizes": [64], "learning_rates": [0.02], "seeds": [0]}
    study["comparison"]["high_learning_rate"] = 0.02
    del study["arms"]["mine"]
    study["arms"]["linear"] = {"enabled": False}
    analyses = ("sharpness", "interpolation", "landscape", "trajectory", "curvature", "spectral_density")
    for section in (*analyses, "tuning", "device_timing", "confirmation"):
        study[section] = {"enabled": False}
    study["gradient_alignment"]["checkpoints"] = ["best"]
    (checkout.path / "study.yaml").write_text("")
    YAML(typ="safe").dump(study, checkout.path / "study.yaml")
    (checkout.path / "matplotlibrc").write_text("text.usetex: True\nfont.size: 40\nbackend: QtAgg\n")

    home = tmp_path / "home"
    home.mkdir(0o500)
    hostile = {
        **HOSTILE,
        "HOME": str(home),
        "MATPLOTLIBRC": str(checkout.path / "matplotlibrc"),
        "LC_ALL": "xx_XX.ISO-8859-1",
        "PYTHONUTF8": "0",
        "PYTHONOPTIMIZE": "2",
        "PYTHONHASHSEED": "7",
        "OMP_NUM_THREADS": "3",
        "TMPDIR": str(tmp_path / "none"),
        "TZ": "Asia/Kathmandu",
        "COLUMNS": "3",
    }
    for name in ("PYTHONWARNINGS", "PYTHONINSPECT"):  # Snakemake itself does not work with these
        del hostile[name]
    variables = [f"{name}={value}" for name, value in hostile.items()]
    nameless = ("-u", "USER", "-u", "LOGNAME", "-u", "LNAME", "-u", "USERNAME", "-u", "XDG_CACHE_HOME")
    wrapper = as_nameless_user()
    if wrapper:
        for path in (checkout.path, *checkout.path.rglob("*")):
            if not path.is_symlink():
                os.chown(path, USER, USER)
    replace(checkout, wrapper=("env", *nameless, *variables, *wrapper)).run("study.yaml")

    results = checkout.path / "results" / "smoke"
    assert (results / "report.html").stat().st_size > 100_000
    assert assert_same_results(finished.path / "results" / "smoke" / RUN, results / RUN) >= 6
    assert not list(home.iterdir())


def rejection(folder: Path) -> str:
    """Return the one line with which a study is rejected in a folder."""
    status, output = dry_run(folder, ["--cores", "1", "all", "--configfile", "config/smoke.yaml"])
    assert status == 1
    lines = [line for line in output.splitlines() if not line.startswith("Using workflow specific profile")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("name", ["co:lon", "{brace}"])
def test_folder_in_which_snakemake_cannot_run_jobs_is_rejected(tmp_path: Path, name: str):
    checkout = Checkout.at(tmp_path / name)
    assert rejection(checkout.path).startswith(f"{checkout.path}: Snakemake cannot run jobs in a folder with ")


@pytest.mark.parametrize("file", ["random.py", "logging/__init__.py"])
def test_module_that_shadows_the_standard_library_is_rejected(tmp_path: Path, file: str):
    checkout = Checkout.at(tmp_path / "checkout")
    (checkout.path / "test.py").touch()  # allowed: no job needs the standard module
    (checkout.path / file).parent.mkdir(exist_ok=True)
    (checkout.path / file).touch()
    assert f"/{file.split('/')[0]}: shadows Python's own module" in rejection(checkout.path)
