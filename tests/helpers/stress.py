"""A study of a folder of images with every kind of job, for those tests that disturb it or run it elsewhere."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from batchscape.study.study import Study
from tests.helpers.bad_images import write_bad_images
from tests.workflow.conftest import Checkout

CONFIG = "stress.yaml"
# A job of each kind that a cluster gets, and what is made of them.
ON_CLUSTER = (
    *("tables/tuned_lr", "tables/interpolation", "tables/landscape"),
    *("analysis/distance", "analysis/sharpness/bs16-lr0.05"),
)
# At least one job of every rule.
ALL = (
    *ON_CLUSTER,
    *("tables/runs", "tables/gradient_alignment", "tables/trajectory"),
    *("analysis/epoch_distance", "analysis/update_norms"),
)
# Every kind of job, each of a few seconds; the network has all that a resumed run must take up again.
STUDY = """
name: stress
data: {source: image_folder, path: data/pets, image_size: [16, 16]}
grid: {batch_sizes: [16], learning_rates: [0.05], seeds: [0]}
model: {name: "stress_net:Net"}
training: {max_epochs: 30, patience: 30, momentum: 0.9, augment_flip: true, snapshots: [1, 10, 25]}
comparison: {fixed_lr: 0.05, high_lr: 0.05}
arms: {linear: {enabled: false}, sqrt: {enabled: false}}
tuning: {trials: 3, coarse_trials: 2, epochs: 6, seeds: [5]}
sharpness: {checkpoints: [best], subspace_dimension: 5, iterations: 2, random_starts: 0, trace_products: 3}
interpolation: {pairs: [[bs16-lr0.05, bs16-lrtuned]], points: 5}
landscape: {points: [8, 6], points_per_job: 24}
trajectory: {enabled: true, points: [5, 4]}
gradient_alignment: {checkpoints: [best], largest_batch: 16, examples: 64}
device_timing: {enabled: false}
"""
# Keeps a state after every epoch, so that there is one to be killed in.
NETWORK = """
from torch import nn
from batchscape.training import recorder

recorder.SECONDS_BETWEEN_STATES = 0.0

class Net(nn.Sequential):
    def __init__(self, outputs):
        super().__init__(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(784, outputs)
        )
"""


@dataclass(frozen=True)
class Stress:
    """A checkout with the study."""

    checkout: Checkout
    targets: list[str]
    """What Snakemake is asked for: paths of tables and of an analysis's rows."""
    dropped: dict[str, str]
    """Why each image that cannot be used is dropped, by its path below the folder."""
    output: str = ""
    """What Snakemake printed, if it ran."""

    @property
    def results(self) -> Path:
        return self.checkout.path / "results" / "stress"


def made(folder: Path, asked_for: tuple[str, ...] = ALL) -> Stress:
    """The study in a new checkout; the batch size does not divide the number of images."""
    checkout = Checkout.at(folder)
    (folder / CONFIG).write_text(STUDY)
    (folder / "stress_net.py").write_text(NETWORK)
    dropped = write_bad_images(folder / "data" / "pets", 402)
    study = Study.from_file(folder / CONFIG)
    return Stress(checkout, [study.csv(name) for name in asked_for], dropped)


@pytest.fixture(scope="session")
def stress(tmp_path_factory: pytest.TempPathFactory) -> Stress:
    """The study when nothing disturbs it and all jobs are here; a test that edits it puts everything back."""
    study = made(tmp_path_factory.mktemp("undisturbed") / "checkout")
    done = study.checkout.snakemake(*study.targets, "--cores", "2", "--configfile", CONFIG)
    assert done.returncode == 0, done.stdout[-4000:]
    return replace(study, output=done.stdout)
