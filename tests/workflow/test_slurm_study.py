"""A complete study on a real Slurm gives the same tables as a local one."""

from pathlib import Path

import pytest

from batchscape.cli.cancel import JOB_NAME_PREFIX
from tests.helpers.checkout import Checkout, assert_same_results
from tests.helpers.cluster import PROFILE, Cluster, needs_slurm
from tests.helpers.stress import CLUSTER_TARGETS, CONFIG, StressStudy, create_stress_study

pytestmark = [pytest.mark.slow, needs_slurm]


# Neither a user's settings of Slurm's commands nor the name of the folder must matter.
SETTINGS = ("SQUEUE_FORMAT=%j", "SQUEUE_STATES=PENDING", "SLURM_TIME_FORMAT=relative", "SBATCH_WAIT=1")
FOLDER = "it's (a) & b"


def test_slurm_gives_the_same_tables_as_a_local_run(cluster: Cluster, stress: StressStudy, tmp_path: Path):
    study = create_stress_study(tmp_path / FOLDER, CLUSTER_TARGETS)
    checkout = Checkout(study.checkout.path, (*cluster.prefix, *SETTINGS)).with_virtual_environment()
    done = checkout.snakemake(*study.targets, *PROFILE, "--configfile", CONFIG)
    assert done.returncode == 0, done.stdout[-4000:]
    assert assert_same_results(stress.results, study.results, subset=True) > 25
    jobs = cluster.jobs("all")
    rules = {comment.partition("_wildcards_")[0].removeprefix("rule_") for comment in jobs.values()}
    assert {"train", "tune", "sharpness", "landscape", "interpolation", "distance"} <= rules
    assert not {"table", "figure", "gather", "report"} & rules
    assert all(cluster.details(number)["JobName"].startswith(JOB_NAME_PREFIX) for number in jobs)
