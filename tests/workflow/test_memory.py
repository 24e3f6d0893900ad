"""A batch size that does not fit in memory fails first, in one line, and the rest of the study is made."""

import re
from pathlib import Path

import pytest

from tests.helpers.checkout import Checkout

pytestmark = pytest.mark.slow

# The examples of a batch depend on each other, so batches cannot be split. Above 40 examples the allocator really runs
# out of memory; with 24 the process is killed, as Linux does when memory is exhausted.
NETWORK = """
import os, signal
import torch
from torch import nn

class Centered(nn.Module):
    def __init__(self, image_shape, outputs):
        super().__init__()
        self.head = nn.Linear(image_shape[0] * image_shape[1] * image_shape[2], outputs)

    def forward(self, images):
        if self.training:
            images = images - images.mean(0)
        if self.training and len(images) > 40:
            torch.empty(len(images) << 54, dtype=torch.uint8)
        if self.training and len(images) == 24:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.head(images.flatten(1))
"""

CONFIG = """
name: memory
data: {source: synthetic, images: 100, image_size: [4, 4]}
grid: {batch_sizes: [16, 24, 64], learning_rates: [0.02], seeds: [0]}
model: {name: "centered:Centered"}
training: {budget: {epochs: 2}, patience: 2, checkpoints: []}
arms: {linear: {enabled: false}, sqrt: {enabled: false}}
comparison: {fixed_learning_rate: 0.02, high_learning_rate: 0.02}
tuning: {enabled: false}
sharpness: {enabled: false}
interpolation: {enabled: false}
landscape: {enabled: false}
gradient_alignment: {enabled: false}
device_timing: {enabled: false}
confirmation: {enabled: false}
"""


def test_batch_that_does_not_fit_in_memory_fails_first_and_others_train(tmp_path: Path):
    checkout = Checkout.at(tmp_path / "checkout")
    (checkout.path / "centered.py").write_text(NETWORK)
    (checkout.path / "memory.yaml").write_text(CONFIG)
    done = checkout.snakemake("--cores", "1", "all", "--configfile", "memory.yaml")
    assert done.returncode != 0
    assert "Traceback" not in done.stdout
    trained = re.findall(r"Training (bs\d+)-", done.stdout)
    assert trained[:2] == ["bs64", "bs24"]
    lines = [line for line in done.stdout.splitlines() if line.startswith("grid.batch_sizes: ")]
    assert lines
    assert all("a batch of 64 does not fit in the memory of this machine" in line for line in lines)
    killed = re.findall(r"^results/\S+/(bs\d+)-\S+: the job was killed, ", done.stdout, re.MULTILINE)
    assert set(killed) == {"bs24"}
    complete = {path.parent.name for path in (checkout.path / "results" / "memory" / "runs").glob("*/run.json")}
    assert complete
    assert all(run.startswith("bs16-") for run in complete)
    assert len(complete) == trained.count("bs16")
