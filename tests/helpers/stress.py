"""A study of an image folder with every kind of job, for tests that disturb it or run it elsewhere."""

from dataclasses import dataclass
from pathlib import Path

from batchscape.study.study import Study
from tests.helpers.bad_images import write_bad_images
from tests.helpers.checkout import Checkout

CONFIG = "stress.yaml"
# A job of every rule that a cluster runs, and what is made of their results.
CLUSTER_TARGETS = (
    *("tables/tuned_lr", "tables/interpolation", "tables/landscape"),
    *("analysis/distance", "analysis/sharpness/bs16-lr0.05"),
)
# At least one job of every rule.
ALL_TARGETS = (
    *CLUSTER_TARGETS,
    *("tables/runs", "tables/gradient_alignment", "tables/trajectory"),
    *("analysis/epoch_distance", "analysis/update_norms"),
)
# Each job takes a few seconds; the network has all the state that a resumed run must restore.
STUDY = """
name: stress
data: {source: image_folder, path: data/pets, image_size: [16, 16]}
grid: {batch_sizes: [16], learning_rates: [0.05], seeds: [0]}
model: {name: "stress_net:Net"}
training: {budget: {epochs: 30}, patience: 30, augment_flip: true, checkpoints: [1, 10, 25]}
optimizer: {arguments: {momentum: 0.9}}
comparison: {fixed_learning_rate: 0.05, high_learning_rate: 0.05}
arms: {linear: {enabled: false}, sqrt: {enabled: false}}
tuning: {budget: 1.6, startup_trials: 2, trial_budget: {epochs: 6}, seeds: [5], finalists: {settings: 1, seeds: [6]}}
sharpness: {checkpoints: [best], subspace_dimension: 5, iterations: 2, random_starts: 0, trace_matvecs: 3}
interpolation: {pairs: [[bs16-lr0.05, bs16-lrtuned]], points: 5}
landscape: {points: [8, 6], points_per_job: 24}
trajectory: {enabled: true, points: [5, 4]}
gradient_alignment: {checkpoints: [best], max_batch_size: 16}
device_timing: {enabled: false}
confirmation: {enabled: false}
"""
# Saves a checkpoint after every epoch, so that kills hit the saving as well.
NETWORK = """
from torch import nn
from batchscape.training import recorder

recorder.CHECKPOINT_INTERVAL = 0.0

class Net(nn.Sequential):
    def __init__(self, outputs):
        super().__init__(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(784, outputs)
        )
"""


@dataclass(frozen=True)
class StressStudy:
    """A checkout with the study."""

    checkout: Checkout
    targets: list[str]
    """Requested tables and rows of analyses, as paths."""
    dropped: dict[str, str]
    """Why an image is dropped, for each unusable one, by its path below the folder."""
    output: str = ""
    """What Snakemake printed, if it ran."""

    @property
    def results(self) -> Path:
        return self.checkout.path / "results" / "stress"


def create_stress_study(folder: Path, targets: tuple[str, ...] = ALL_TARGETS) -> StressStudy:
    """Write the study to a new checkout; its batch size does not divide the number of images."""
    checkout = Checkout.at(folder)
    (folder / CONFIG).write_text(STUDY)
    (folder / "stress_net.py").write_text(NETWORK)
    dropped = write_bad_images(folder / "data" / "pets", 402)
    study = Study.from_file(folder / CONFIG)
    return StressStudy(checkout, [study.paths.csv(name) for name in targets], dropped)
