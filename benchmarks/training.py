"""Time an epoch of `batchscape.training.train.train`, of a hand-written loop, and of stock Lightning.

    python benchmarks/training.py

Each contender trains the default network on the digits (1,438 images to train on, 359 to validate on) with
SGD on one CPU thread, at batch sizes 32 and 256. Measured is the wall time from the end of one epoch to the end
of the next, which includes everything: batches, training, validation and the record.

* `train`: the library's function with its whole record (update norms, accuracy, distances, best weights).
* `hand-written`: the loop of an experienced user, with data in memory as floats in [0, 1], and a second one with
  channels-last tensors and fused SGD. Both record two losses per epoch and nothing else.
* `stock Lightning`: automatic optimisation, a DataLoader, and losses logged with `self.log`, but neither logger
  nor progress bar nor checkpoints.

The contenders take turns in short rounds, so that other load on the machine affects all of them alike. By
default there are 5 rounds, each of 15 epochs at batch size 32 and of 40 at 256; the first 3 epochs of each round
are dropped, and the result is the median of all others. It takes about a minute. `--quick` only checks that it runs,
with one round of 4 epochs; its times mean nothing.

Measured on a shared virtual machine with 2 cores of an Intel Xeon (model 167, 2.6 GHz), Python 3.11, torch 2.13,
pytorch-lightning 2.6.6: milliseconds per epoch, and `train` as a multiple of it:

                                              batch size 32      batch size 256
    train                                     49.2               19.0
    hand-written                              52.9  0.93 ×       19.8  0.96 ×
    hand-written, channels-last and fused     47.4  1.04 ×       16.7  1.13 ×
    stock Lightning                          104.4  0.47 ×       35.8  0.53 ×

The targets are at most 1.25 × a hand-written loop and at most 0.75 × stock Lightning.
"""

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from batchscape.config.budget import Budget
from batchscape.runtime.user_code import import_object

# Logging needs torchmetrics, which Batchscape leaves out. It imports torchvision, whose operators a torch without CUDA
# may lack.
import_object("torchmetrics:Metric", "benchmark")

# ruff: noqa: E402
from batchscape.config.data.images import DigitsConfig
from batchscape.config.model import VggConfig
from batchscape.config.run import RunSpec
from batchscape.config.training import TrainingConfig
from batchscape.data.prepare import prepare
from batchscape.data.prepared import PreparedData, write_prepared
from batchscape.data.spec import DataSpec
from batchscape.models.build import build_network
from batchscape.training import recorder
from batchscape.training.environment import describe_environment
from batchscape.training.execution import Execution
from batchscape.training.lightning import pl
from batchscape.training.train import train

THREADS = 1
SEED = 0
LEARNING_RATE = 0.01
WARM_UP_EPOCHS = 3
EPOCHS = {32: 15, 256: 40}
"""Epochs of a round by batch size: a round is then about as long at either."""

TRAIN, PLAIN, TUNED, STOCK = "train", "hand-written", "hand-written, channels-last and fused", "stock Lightning"
TARGETS = {PLAIN: 1.25, TUNED: 1.25, STOCK: 0.75}
"""The most that `train` may take, as a multiple of another contender's time."""

Clock = Callable[[], float]

Contender = Callable[[int, int], list[float]]
"""From a batch size and a number of epochs to the moment at which each epoch ended."""


@dataclass(frozen=True)
class FloatData:
    """The digits as a hand-written script holds them: images float32 in [0, 1], labels float32 of shape (n, 1)."""

    train_images: torch.Tensor
    train_labels: torch.Tensor
    validation_images: torch.Tensor
    validation_labels: torch.Tensor

    @classmethod
    def of(cls, data: PreparedData) -> "FloatData":
        return cls(
            data.train.arrays["inputs"].permute(0, 3, 1, 2).float() / 255,
            data.train.arrays["targets"].float()[:, None],
            data.validation.arrays["inputs"].permute(0, 3, 1, 2).float() / 255,
            data.validation.arrays["targets"].float()[:, None],
        )


class EpochEnds(logging.Handler):
    """Records when the recorder logs an epoch."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.moments: list[float] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg.startswith("step "):
            self.moments.append(self.clock())


@contextmanager
def epoch_ends(clock: Clock = time.perf_counter) -> Iterator[list[float]]:
    """Yield a list that collects the times at which `train` ends an epoch."""
    handler, level = EpochEnds(clock), recorder.log.level
    recorder.log.setLevel(logging.INFO)
    recorder.log.addHandler(handler)
    try:
        yield handler.moments
    finally:
        recorder.log.removeHandler(handler)
        recorder.log.setLevel(level)


def batchscape(data: PreparedData, folder: Path) -> Contender:
    """`train` as the workflow calls it."""
    prepared = folder / "prepared.safetensors"
    write_prepared(prepared, data)

    def run(batch_size: int, epochs: int) -> list[float]:
        training = TrainingConfig(budget=Budget(epochs=epochs), patience=epochs, accelerator="cpu")
        spec = RunSpec(batch_size=batch_size, learning_rate=LEARNING_RATE, seed=SEED, training=training)
        with epoch_ends() as moments:
            train(spec, prepared, folder / "run", Execution(threads=THREADS))
        return moments

    return run


def hand_written(data: FloatData, channels_last: bool = False, fused: bool | None = None) -> Contender:
    """A plain loop: one permutation per epoch, and the losses read once per epoch."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format

    def run(batch_size: int, epochs: int) -> list[float]:
        torch.set_num_threads(THREADS)
        network = initial_network(data).to(memory_format=memory_format)
        images = data.train_images.to(memory_format=memory_format)
        validation_images = data.validation_images.to(memory_format=memory_format)
        optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE, fused=fused)
        moments, history = [], []
        for _ in range(epochs):
            total = torch.zeros(())
            for indices in torch.randperm(len(images)).split(batch_size):
                optimizer.zero_grad()
                loss = F.binary_cross_entropy_with_logits(network(images[indices]), data.train_labels[indices])
                loss.backward()
                optimizer.step()
                total += loss.detach() * len(indices)
            with torch.no_grad():
                validation_loss = F.binary_cross_entropy_with_logits(network(validation_images), data.validation_labels)
            history.append((total.item() / len(images), validation_loss.item()))
            moments.append(time.perf_counter())
        return moments

    return run


class StockModule(pl.LightningModule):
    """The module of Lightning's introduction."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        images, labels = batch
        loss = F.binary_cross_entropy_with_logits(self.network(images), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: list[torch.Tensor], _: int) -> None:
        images, labels = batch
        self.log("validation_loss", F.binary_cross_entropy_with_logits(self.network(images), labels))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.network.parameters(), lr=LEARNING_RATE)


class EpochEndCallback(pl.Callback):
    """Records when Lightning ends an epoch, including validation."""

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        self.clock = clock
        self.moments: list[float] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:  # noqa: ARG002
        self.moments.append(self.clock())


def bare_trainer(epochs: int, ends: EpochEndCallback) -> pl.Trainer:
    """Lightning with everything off that would cost it time for no result."""
    return pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        callbacks=[ends],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def stock_lightning(data: FloatData) -> Contender:
    """Lightning as its documentation shows it, with everything off that would cost it time for no result."""

    def run(batch_size: int, epochs: int) -> list[float]:
        torch.set_num_threads(THREADS)
        ends = EpochEndCallback()
        trainer = bare_trainer(epochs, ends)
        training = TensorDataset(data.train_images, data.train_labels)
        validation = TensorDataset(data.validation_images, data.validation_labels)
        trainer.fit(
            StockModule(initial_network(data)),
            DataLoader(training, batch_size=batch_size, shuffle=True),
            DataLoader(validation, batch_size=len(validation)),
        )
        return ends.moments

    return run


def initial_network(data: FloatData) -> nn.Module:
    return build_network(VggConfig(), DataSpec("images", tuple(data.train_images.shape[1:]), "class"), 1, SEED)


def seconds_per_epoch(contenders: dict[str, Contender], batch_size: int, epochs: int, rounds: int) -> dict[str, float]:
    """Return each contender's median time of an epoch over all rounds."""
    seconds = defaultdict(list)
    for _ in range(rounds):
        for name, run in contenders.items():
            ends = run(batch_size, epochs)[WARM_UP_EPOCHS - 1 :]
            seconds[name] += [end - start for start, end in pairwise(ends)]
    return {name: statistics.median(epochs) for name, epochs in seconds.items()}


def report(batch_size: int, seconds: dict[str, float]) -> None:
    """Print a contender's time per epoch, that of `train` as a multiple of it, and the target."""
    print(f"batch size {batch_size}")
    print(f"  {'':<38}{'ms/epoch':>9}{'train is':>12}{'target':>10}")
    for name, epoch in seconds.items():
        ratio = f"{seconds[TRAIN] / epoch:.2f} ×" if name in TARGETS else ""
        target = f"≤ {TARGETS[name]:.2f}" if name in TARGETS else ""
        print(f"  {name:<38}{epoch * 1000:>9.2f}{ratio:>12}{target:>10}")


def describe_machine() -> None:
    """Print the machine and the versions."""
    torch.set_num_threads(THREADS)
    environment = describe_environment(torch.device("cpu"))
    packages = environment["packages"]
    print(f"{environment['processor']}, {environment['cpus']} CPUs, {environment['threads']} thread used")
    print(f"torch {packages['torch']}, pytorch-lightning {packages['pytorch-lightning']}")


def describe_measurement(epochs_by_size: dict[int, int], rounds: int) -> None:
    """Print the machine, the versions and the settings of the measurement."""
    describe_machine()
    epochs = ", ".join(f"{count} epochs at batch size {batch_size}" for batch_size, count in epochs_by_size.items())
    print(f"medians over {rounds} rounds of {epochs}, without the first {WARM_UP_EPOCHS} of each round")


def silence_lightning() -> None:
    """Silence hints on workers and log intervals, so that only the table is printed."""
    for name in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time an epoch of train(), of hand-written loops, of stock Lightning.")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each contender (default: 5)")
    parser.add_argument("--quick", action="store_true", help="only check that it runs: one round of a few epochs")
    arguments = parser.parse_args()
    rounds = 1 if arguments.quick else arguments.rounds
    epochs_by_size = dict.fromkeys(EPOCHS, WARM_UP_EPOCHS + 1) if arguments.quick else EPOCHS
    silence_lightning()
    describe_measurement(epochs_by_size, rounds)
    data = prepare(DigitsConfig())[0]
    floats = FloatData.of(data)
    with tempfile.TemporaryDirectory() as folder:
        contenders = {
            TRAIN: batchscape(data, Path(folder)),
            PLAIN: hand_written(floats),
            TUNED: hand_written(floats, channels_last=True, fused=True),
            STOCK: stock_lightning(floats),
        }
        for batch_size, epochs in epochs_by_size.items():
            report(batch_size, seconds_per_epoch(contenders, batch_size, epochs, rounds))


if __name__ == "__main__":
    main()
