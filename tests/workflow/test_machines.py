"""A study is the same on a machine that is unlike the one it was made on, or is refused in one line."""

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
# A user of a container may have only a number. Where the tests' Python is for root alone, this one can read it.
USER = 4242424
AS_USER = (
    *("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
)


def as_nobody() -> tuple[str, ...]:
    """A command that runs another one as a user without a name who can write nowhere else; empty if we cannot."""
    can = os.getuid() == 0 and shutil.which("setpriv")
    return AS_USER if can and subprocess.run([*AS_USER, "true"], capture_output=True).returncode == 0 else ()


@pytest.mark.slow
def test_a_study_has_the_same_numbers_whatever_the_machine(finished: Checkout, tmp_path: Path):
    """In a folder of a difficult name, under a hostile shell, without a home, and as a user without a name."""
    checkout = Checkout.at(tmp_path / FOLDER).with_virtual_environment()
    study = YAML(typ="safe").load(PROJECT / "config" / "smoke.yaml")
    study["grid"] = {"batch_sizes": [64], "learning_rates": [0.02], "seeds": [0]}
    study["comparison"]["high_learning_rate"] = 0.02
    del study["arms"]["mine"]
    study["arms"]["linear"] = {"enabled": False}
    for section in ("sharpness", "interpolation", "landscape", "trajectory", "tuning", "device_timing"):
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
    for name in ("PYTHONWARNINGS", "PYTHONINSPECT"):  # with which Snakemake itself does not end well
        del hostile[name]
    variables = [f"{name}={value}" for name, value in hostile.items()]
    nameless = ("-u", "USER", "-u", "LOGNAME", "-u", "LNAME", "-u", "USERNAME", "-u", "XDG_CACHE_HOME")
    nobody = as_nobody()
    if nobody:
        for path in (checkout.path, *checkout.path.rglob("*")):
            if not path.is_symlink():
                os.chown(path, USER, USER)
    replace(checkout, wrapper=("env", *nameless, *variables, *nobody)).run("study.yaml")

    results = checkout.path / "results" / "smoke"
    assert (results / "report.html").stat().st_size > 100_000
    assert assert_same_results(finished.path / "results" / "smoke" / RUN, results / RUN) >= 6
    assert not list(home.iterdir())


def refused(folder: Path) -> str:
    """Return the one line with which the study is refused in a folder."""
    status, output = dry_run(folder, ["--cores", "1", "all", "--configfile", "config/smoke.yaml"])
    assert status == 1
    said = [line for line in output.splitlines() if not line.startswith("Using workflow specific profile")]
    assert len(said) == 1
    return said[0]


@pytest.mark.parametrize("name", ["co:lon", "{brace}"])
def test_a_folder_in_which_snakemake_cannot_run_jobs_is_refused(tmp_path: Path, name: str):
    checkout = Checkout.at(tmp_path / name)
    assert refused(checkout.path).startswith(f"{checkout.path}: Snakemake cannot run jobs in a folder with ")


@pytest.mark.parametrize("file", ["random.py", "logging/__init__.py"])
def test_a_module_that_hides_one_of_pythons_own_is_refused(tmp_path: Path, file: str):
    checkout = Checkout.at(tmp_path / "checkout")
    (checkout.path / "test.py").touch()  # which nothing needs
    (checkout.path / file).parent.mkdir(exist_ok=True)
    (checkout.path / file).touch()
    assert f"/{file.split('/')[0]}: shadows Python's own module" in refused(checkout.path)
