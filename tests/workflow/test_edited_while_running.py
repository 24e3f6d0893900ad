"""Edits while Snakemake runs: a job computes what Snakemake has recorded for it, or fails with one line."""

import json
from pathlib import Path

import pytest

from tests.helpers.checkout import Checkout
from tests.helpers.executor import OPTIONS, add_executor

pytestmark = pytest.mark.slow

STUDY = """\
name: s
data: {validation_fraction: 0.9}
grid: {batch_sizes: [32], learning_rates: [0.1], seeds: [0]}
model: {channels: [4], dense: [8]}
training: {budget: {epochs: 1}}
comparison: {fixed_learning_rate: 0.1, high_learning_rate: 0.1}
tuning: {enabled: false}
"""
EDIT = "sed -i 's/epochs: ./epochs: 2/' study.yaml"
RUN = "results/s/runs/bs32-lr0.1-seed0/run.json"


def write_study(folder: Path, before_job: str) -> Checkout:
    checkout = Checkout.at(folder / "checkout")
    (checkout.path / "study.yaml").write_text(STUDY)
    add_executor(checkout.path, before_job)
    return checkout


def jobs_log(checkout: Checkout) -> str:
    return (checkout.path / "jobs.log").read_text()


def test_jobs_on_a_cluster_use_the_study_as_it_was_when_snakemake_started(tmp_path: Path):
    checkout = write_study(tmp_path, before_job=EDIT)
    done = checkout.snakemake(RUN, *OPTIONS, "--configfile", "study.yaml")
    assert done.returncode == 0, done.stdout[-3000:] + jobs_log(checkout)
    assert "epochs: 2" in (checkout.path / "study.yaml").read_text()
    assert json.loads((checkout.path / RUN).read_text())["spec"]["training"]["budget"]["epochs"] == 1
    assert checkout.stale_jobs("study.yaml", target=RUN) == {"train bs32-lr0.1-seed0"}
    (checkout.path / "study.yaml").write_text(STUDY)
    assert checkout.stale_jobs("study.yaml", target=RUN) == set()


OUTER = """\
configfile: "study.yaml"

module batchscape:
    snakefile: "Snakefile"
    config: {config}

use rule * from batchscape
"""


@pytest.mark.parametrize("config", ["config", 'config["study"]'])
def test_a_job_of_a_module_fails_with_one_line_after_an_edit_of_the_study(tmp_path: Path, config: str):
    checkout = write_study(tmp_path, before_job="")
    (checkout.path / "outer.smk").write_text(OUTER.format(config=config))
    if config != "config":
        lines = "".join(f"  {line}\n" for line in STUDY.splitlines())
        (checkout.path / "study.yaml").write_text(f"study:\n{lines}")
    options = ("--snakefile", "outer.smk", *OPTIONS)
    done = checkout.snakemake("results/s/network.json", *options)
    assert done.returncode == 0, done.stdout[-3000:] + jobs_log(checkout)
    (checkout.path / "before-job.sh").write_text(EDIT)
    assert checkout.snakemake(RUN, *options).returncode == 1
    message = "study.yaml: was edited while Snakemake runs; put it back, or run the same command again"
    assert jobs_log(checkout).splitlines().count(message) == 1
    assert not (checkout.path / RUN).exists()


NET = """\
import os
import torch


class Net(torch.nn.Sequential):
    def __init__(self):
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(64, 1))
        if os.path.exists("edit-soon"):
            os.remove("edit-soon")
            with open(__file__, "a") as file:
                file.write("EDITED = 1\\n")
"""


@pytest.mark.parametrize("options", [("--cores", "2"), OPTIONS], ids=["this machine", "cluster"])
def test_a_job_that_imports_an_edited_module_of_the_user_fails_with_one_line(tmp_path: Path, options: tuple[str, ...]):
    checkout = write_study(tmp_path, before_job="")
    (checkout.path / "study.yaml").write_text(STUDY.replace("{channels: [4], dense: [8]}", "{name: 'my_net:Net'}"))
    module, trigger = checkout.path / "my_net.py", checkout.path / "edit-soon"
    module.write_text(NET)
    trigger.touch()  # the job that checks the network edits the module after it has imported it
    done = checkout.snakemake(RUN, *options, "--configfile", "study.yaml")
    assert done.returncode == 1, done.stdout[-3000:]
    assert not trigger.exists() and "EDITED" in module.read_text()
    message = (
        "my_net.py: was edited while Snakemake runs; put it back, or run the same command again, which also repeats"
    )
    assert f"Failed jobs:\nresults/s/logs/train/bs32-lr0.1-seed0.log: {message}" in done.stdout, done.stdout[-3000:]
    assert checkout.stale_jobs("study.yaml", target=RUN) == {"network", "train bs32-lr0.1-seed0"}
    module.write_text(NET)
    done = checkout.snakemake(RUN, *options, "--configfile", "study.yaml")
    assert done.returncode == 0, done.stdout[-3000:]
    assert checkout.stale_jobs("study.yaml", target=RUN) == set()
