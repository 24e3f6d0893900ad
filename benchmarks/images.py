"""What an epoch on images costs with `batchscape.training.train.train` and with stock Lightning; what memory it takes.

    python benchmarks/images.py
    python benchmarks/images.py --memory

`--quick`, with either, only shows that it runs, on small and few images; its numbers mean nothing.

Every contender trains the original study's network (353,161 parameters) with SGD on one CPU thread, at batch sizes 32
and 256, on 1,024 made images of 128 × 128 × 3 (819 to train on, 205 to validate on), which are decoded and in memory.
Measured is the wall time from the end of the second epoch to the end of the third, hence all of it: batches, training,
validation, and what the contender does in between. (`train` also measures the gradient noise after epochs 1, 2, 4, 8
and so on, which takes about as long as an epoch; the third has none.)

* `train`: the library's function with its whole record. It trains with uint8 images from the prepared file.
* `stock Lightning, floats`: as in `benchmarks/training.py`, with a DataLoader of float32 images in memory, which take
  four times the memory.
* `stock Lightning, bytes`: the same with uint8 images, which become floats batch by batch in the module.

The contenders take turns, and the median over the rounds counts, by default of 3. The faster of the two stock ones is
the one to beat. It takes about three minutes on a machine of its own.

`--memory` has eight processes train side by side on one prepared file, at batch size 256, once for an epoch of 4,096
images and once for eight epochs of 512, and compares the greatest sum of their proportional set sizes (PSS: a page that
several processes share counts once). What the many images add must be less than 1.5 times the bytes that they have more
in the file. It takes about four minutes.

Seen on a shared virtual machine with 2 cores of an AMD EPYC (1 MiB of second level cache each, 32 MiB of third), Python
3.11, torch 2.13, pytorch-lightning 2.6.6, alone and under a load of about 10: seconds an epoch, and how much faster
`train` is.

                                  batch size 32                   batch size 256
                                  alone          under load       alone          under load
    train                         1.21           1.24             1.24           1.28
    stock Lightning, floats       3.30  2.72 ×   3.07  2.48 ×     4.05  3.26 ×   4.40  3.43 ×
    stock Lightning, bytes        3.33  2.75 ×   3.02  2.44 ×     4.02  3.23 ×   4.64  3.62 ×

    memory of eight processes     3,273 MiB with 4,096 images (192 MiB), 3,079 MiB with 512: 1.15 × what they have more

The targets, at least 1.8 × and 2.5 × the faster stock one, and less than 1.5 × the array, are met. Of the time of
`train` at either batch size 58 % is convolutions, 19 % max-pooling, 12 % ReLUs, and less than 1 % the record.
"""

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

# Python puts the folder of the script that it runs on its path.
from training import EpochEndCallback, StockModule, bare_trainer, epoch_ends, silence_lightning

from batchscape.config.data import SyntheticConfig
from batchscape.config.model import VggConfig
from batchscape.config.run import RunSpec
from batchscape.config.training import TrainingConfig
from batchscape.data.prepare import prepare
from batchscape.data.prepared import PreparedData, write_prepared
from batchscape.models.build import build_network
from batchscape.training.environment import describe_environment
from batchscape.training.execution import Execution
from batchscape.training.train import train

THREADS = 1
SEED = 0
LEARNING_RATE = 0.01
MODEL = VggConfig(channels=(4, 8, 16, 32, 64), dense=(256, 256))
SIDE, QUICK_SIDE = 128, 32
IMAGES, QUICK_IMAGES = 1024, 330
EPOCHS = 3
"""Epochs of a round, of which the last one counts."""

TRAIN, FLOATS, BYTES = "train", "stock Lightning, floats", "stock Lightning, bytes"
FASTER_THAN_STOCK = {32: 1.8, 256: 2.5}
"""The least ratio of stock Lightning's time to that of `train`, by batch size."""

PROCESSES, QUICK_PROCESSES = 8, 1
MANY, QUICK_MANY = 4096, 660
FEW, QUICK_FEW = 512, 330
MEMORY_BATCH = 256
GROWTH = 1.5
"""The most memory that many images may add over all processes, as a multiple of their array."""

Contender = Callable[[int], list[float]]
"""From a batch size to the moment at which each epoch ended."""


def synthetic_images(count: int, side: int) -> PreparedData:
    return prepare(SyntheticConfig(source="synthetic", images=count, image_size=(side, side)))[0]


def run_spec(batch_size: int, epochs: int) -> RunSpec:
    training = TrainingConfig(max_epochs=epochs, patience=epochs, accelerator="cpu")
    return RunSpec(batch_size=batch_size, learning_rate=LEARNING_RATE, seed=SEED, model=MODEL, training=training)


def batchscape(prepared: Path, folder: Path) -> Contender:
    """`train` as the workflow calls it."""

    def run(batch_size: int) -> list[float]:
        with epoch_ends() as moments:
            train(run_spec(batch_size, EPOCHS), prepared, folder / "run", Execution(threads=THREADS))
        return moments

    return run


class StockModuleOfBytes(StockModule):
    """The module of Lightning's own introduction, for uint8 images and labels of shape (n,)."""

    def _converted(self, batch: list[torch.Tensor]) -> list[torch.Tensor]:
        images, labels = batch
        return [images.float() / 255, labels.float()[:, None]]

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        return super().training_step(self._converted(batch), index)

    def validation_step(self, batch: list[torch.Tensor], index: int) -> None:
        super().validation_step(self._converted(batch), index)


def stock_lightning(data: PreparedData, floats: bool) -> Contender:
    """Lightning as its documentation shows it, with everything off that would cost it time for no result."""

    def dataset(images: np.ndarray, labels: np.ndarray) -> TensorDataset:
        # Channels first in memory too, as images come from torchvision.
        tensors = torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels)
        return (
            TensorDataset(tensors[0].float() / 255, tensors[1].float()[:, None]) if floats else TensorDataset(*tensors)
        )

    training = dataset(data.train_images, data.train_labels)
    validation = dataset(data.validation_images, data.validation_labels)
    module = StockModule if floats else StockModuleOfBytes

    def run(batch_size: int) -> list[float]:
        torch.set_num_threads(THREADS)
        ends = EpochEndCallback()
        trainer = bare_trainer(EPOCHS, ends)
        trainer.fit(
            module(build_network(MODEL, data.train_images.shape[1:], 1, SEED)),
            DataLoader(training, batch_size=batch_size, shuffle=True),
            DataLoader(validation, batch_size=batch_size),
        )
        return ends.moments

    return run


def seconds_per_epoch(contenders: dict[str, Contender], batch_size: int, rounds: int) -> dict[str, float]:
    """Return each contender's median time of its last epoch over all rounds."""
    seconds = defaultdict(list)
    for _ in range(rounds):
        for name, run in contenders.items():
            *_, (start, end) = pairwise(run(batch_size))
            seconds[name].append(end - start)
    return {name: statistics.median(epochs) for name, epochs in seconds.items()}


def report(batch_size: int, seconds: dict[str, float]) -> None:
    """Print a contender's time an epoch, and how much faster `train` is than the faster stock one."""
    print(f"batch size {batch_size}")
    for name, epoch in seconds.items():
        print(f"  {name:<26}{epoch:>8.3f} s/epoch")
    stock = min((FLOATS, BYTES), key=seconds.get)
    ratio = seconds[stock] / seconds[TRAIN]
    print(f"  faster than {stock}: {ratio:.2f} ×  (target ≥ {FASTER_THAN_STOCK[batch_size]} ×)", flush=True)


def measure_time(rounds: int, quick: bool) -> None:
    data = synthetic_images(QUICK_IMAGES, QUICK_SIDE) if quick else synthetic_images(IMAGES, SIDE)
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.safetensors"
        write_prepared(prepared, data)
        contenders = {
            TRAIN: batchscape(prepared, Path(folder)),
            FLOATS: stock_lightning(data, floats=True),
            BYTES: stock_lightning(data, floats=False),
        }
        for batch_size in FASTER_THAN_STOCK:
            report(batch_size, seconds_per_epoch(contenders, batch_size, rounds))


def proportional_set_size(pid: int) -> int:
    """Return the PSS of a process in bytes; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


def greatest_memory(prepared: Path, folder: Path, epochs: int, count: int) -> int:
    """Return the greatest sum of PSS of processes that train side by side, in bytes."""
    arguments = [(run_spec(MEMORY_BATCH, epochs), prepared, folder / f"run{index}", THREADS) for index in range(count)]
    # No process has anything from this one.
    processes = [get_context("spawn").Process(target=train, args=each) for each in arguments]
    for process in processes:
        process.start()
    greatest = 0
    while any(process.is_alive() for process in processes):
        greatest = max(greatest, sum(proportional_set_size(process.pid) for process in processes))
        time.sleep(0.1)
    if any(process.exitcode for process in processes):
        raise SystemExit("a training failed")
    return greatest


def measure_memory(quick: bool) -> None:
    side, processes = (QUICK_SIDE, QUICK_PROCESSES) if quick else (SIDE, PROCESSES)
    more_images, fewer_images = (QUICK_MANY, QUICK_FEW) if quick else (MANY, FEW)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size, files = {}, {}
        for count in (more_images, fewer_images):
            data = synthetic_images(count, side)
            size[count] = data.train_images.nbytes + data.validation_images.nbytes
            files[count] = folder / f"{count}.safetensors"
            write_prepared(files[count], data)
        del data
        more = size[more_images] - size[fewer_images]
        array = size[more_images] / 2**20
        print(f"{processes} processes, {more_images} images of {array:.0f} MiB; beside {fewer_images} images")
        many, few = (greatest_memory(files[count], folder, more_images // count, processes) for count in files)
        print(f"  together at most {many / 2**20:.0f} and {few / 2**20:.0f} MiB")
        print(f"  growth: {(many - few) / more:.2f} × the array  (target < {GROWTH} ×)")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time an epoch on images of train() and of stock Lightning.")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each contender (default: 3)")
    parser.add_argument("--memory", action="store_true", help="measure the memory of eight processes instead")
    parser.add_argument("--quick", action="store_true", help="only see that it runs: one round, small images")
    arguments = parser.parse_args()
    silence_lightning()
    torch.set_num_threads(THREADS)
    environment = describe_environment(torch.device("cpu"))
    packages = environment["packages"]
    print(f"{environment['processor']}, {environment['cpus']} CPUs, {environment['threads']} thread used")
    print(f"torch {packages['torch']}, pytorch-lightning {packages['pytorch-lightning']}")
    if arguments.memory:
        measure_memory(arguments.quick)
    else:
        measure_time(1 if arguments.quick else arguments.rounds, arguments.quick)


if __name__ == "__main__":
    main()
