"""Time per epoch on images, of `batchscape.training.train.train` and of stock Lightning, and memory of parallel runs.

    python benchmarks/images.py
    python benchmarks/images.py --memory

With `--quick`, either only shows that it runs, on few and small images; the numbers then mean nothing.

Each contender trains the network of the original study (353,161 parameters) with SGD on one CPU thread, at batch sizes
32 and 256, on 1,024 synthetic images of 128 × 128 × 3 (819 for training, 205 for validation) that are decoded and in
memory. It measures the wall time from the end of the second epoch to the end of the third, which includes everything:
batches, training, validation, and what the contender does in between. (`train` also measures the gradient noise after
epochs 1, 2, 4, 8 and so on, which takes about as long as an epoch; not after the third.)

* `train`: the library's function with its complete record. It trains on uint8 images from the prepared file.
* `stock Lightning, floats`: as in `benchmarks/training.py`, with a DataLoader of float32 images in memory, which take
  four times the memory.
* `stock Lightning, bytes`: the same with uint8 images, which the module converts to floats batch by batch.

The contenders take turns; the median over the rounds (3 by default) counts. The baseline is the faster of the two stock
contenders. Takes about three minutes on an idle machine.

With `--memory`, eight processes train in parallel on one prepared file, at batch size 256, once for one epoch of 4,096
images and once for eight epochs of 512. It compares the maximum of the summed proportional set sizes (PSS: a page that
several processes share counts once). The additional memory must be less than 1.5 times the additional bytes of images.
Takes about four minutes.

Results on a shared virtual machine with 2 cores of an AMD EPYC (1 MiB of L2 cache each, 32 MiB of L3), Python 3.11,
torch 2.13, pytorch-lightning 2.6.6, idle and under a load of about 10: seconds per epoch, and the speed-up of `train`.

                                  batch size 32                   batch size 256
                                  idle           under load       idle           under load
    train                         1.21           1.24             1.24           1.28
    stock Lightning, floats       3.30  2.72 ×   3.07  2.48 ×     4.05  3.26 ×   4.40  3.43 ×
    stock Lightning, bytes        3.33  2.75 ×   3.02  2.44 ×     4.02  3.23 ×   4.64  3.62 ×

    memory of eight processes     3,273 MiB with 4,096 images (192 MiB), 3,079 MiB with 512: 1.15 × the additional bytes

The targets, at least 1.8 × and 2.5 × faster than the faster stock contender, and less than 1.5 × the bytes, are met. At
both batch sizes `train` spends 58 % of its time in convolutions, 19 % in max-pooling, 12 % in ReLUs, and less than 1 %
on the record.
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

import torch
from torch.utils.data import DataLoader, TensorDataset

# Python adds the folder of the script to its path.
from training import EpochEndCallback, StockModule, bare_trainer, epoch_ends, silence_lightning

from batchscape.config.budget import Budget
from batchscape.config.data.images import SyntheticConfig
from batchscape.config.model import VggConfig
from batchscape.config.run import RunSpec
from batchscape.config.training import TrainingConfig
from batchscape.data.dataset import Dataset
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
"""Epochs per round, of which only the last one counts."""

TRAIN, FLOATS, BYTES = "train", "stock Lightning, floats", "stock Lightning, bytes"
MIN_SPEEDUP = {32: 1.8, 256: 2.5}
"""Minimum ratio of stock Lightning's time to that of `train`, by batch size."""

PROCESSES, QUICK_PROCESSES = 8, 1
LARGE, QUICK_LARGE = 4096, 660
SMALL, QUICK_SMALL = 512, 330
"""Numbers of images to compare."""

MEMORY_BATCH_SIZE = 256
MAX_GROWTH = 1.5
"""Maximum additional memory over all processes, as a multiple of the additional bytes of images."""

Contender = Callable[[int], list[float]]
"""Maps a batch size to the times at which the epochs ended."""


def synthetic_images(count: int, side: int) -> PreparedData:
    return prepare(SyntheticConfig(source="synthetic", images=count, image_size=(side, side)))[0]


def run_spec(batch_size: int, epochs: int) -> RunSpec:
    training = TrainingConfig(budget=Budget(epochs=epochs), patience=epochs, accelerator="cpu")
    return RunSpec(batch_size=batch_size, learning_rate=LEARNING_RATE, seed=SEED, model=MODEL, training=training)


def batchscape(prepared: Path, folder: Path) -> Contender:
    """Return `train`, as the workflow calls it."""

    def run(batch_size: int) -> list[float]:
        with epoch_ends() as moments:
            train(run_spec(batch_size, EPOCHS), prepared, folder / "run", Execution(threads=THREADS))
        return moments

    return run


class StockModuleOfBytes(StockModule):
    """The module of Lightning's introduction, for uint8 images and labels of shape (n,)."""

    def _to_floats(self, batch: list[torch.Tensor]) -> list[torch.Tensor]:
        images, labels = batch
        return [images.float() / 255, labels.float()[:, None]]

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        return super().training_step(self._to_floats(batch), index)

    def validation_step(self, batch: list[torch.Tensor], index: int) -> None:
        super().validation_step(self._to_floats(batch), index)


def stock_lightning(data: PreparedData, floats: bool) -> Contender:
    """Return Lightning as in its documentation, with everything disabled that only costs time."""

    def dataset(side: Dataset) -> TensorDataset:
        # Channels-first in memory too, as torchvision's images are.
        tensors = side.arrays["inputs"].permute(0, 3, 1, 2).contiguous(), side.arrays["targets"]
        return (
            TensorDataset(tensors[0].float() / 255, tensors[1].float()[:, None]) if floats else TensorDataset(*tensors)
        )

    training = dataset(data.train)
    validation = dataset(data.validation)
    module = StockModule if floats else StockModuleOfBytes

    def run(batch_size: int) -> list[float]:
        torch.set_num_threads(THREADS)
        ends = EpochEndCallback()
        trainer = bare_trainer(EPOCHS, ends)
        trainer.fit(
            module(build_network(MODEL, data.spec, 1, SEED)),
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


def print_times(batch_size: int, seconds: dict[str, float]) -> None:
    """Print the time per epoch of each contender, and the speed-up of `train` over the faster stock contender."""
    print(f"batch size {batch_size}")
    for name, epoch in seconds.items():
        print(f"  {name:<26}{epoch:>8.3f} s/epoch")
    stock = min((FLOATS, BYTES), key=lambda name: seconds[name])
    ratio = seconds[stock] / seconds[TRAIN]
    print(f"  faster than {stock}: {ratio:.2f} ×  (target ≥ {MIN_SPEEDUP[batch_size]} ×)", flush=True)


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
        for batch_size in MIN_SPEEDUP:
            print_times(batch_size, seconds_per_epoch(contenders, batch_size, rounds))


def proportional_set_size(pid: int) -> int:
    """Return the PSS of a process in bytes; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


def max_memory(prepared: Path, folder: Path, epochs: int, count: int) -> int:
    """Return the maximum of the summed PSS of processes that train in parallel, in bytes."""
    spec, execution = run_spec(MEMORY_BATCH_SIZE, epochs), Execution(threads=THREADS)
    # Spawned, so that they share no pages with this process.
    processes = [
        get_context("spawn").Process(target=train, args=(spec, prepared, folder / f"run{index}", execution))
        for index in range(count)
    ]
    for process in processes:
        process.start()
    max_pss = 0
    while any(process.is_alive() for process in processes):
        max_pss = max(max_pss, sum(proportional_set_size(process.pid) for process in processes))
        time.sleep(0.1)
    if any(process.exitcode for process in processes):
        raise SystemExit("a training failed")
    return max_pss


def measure_memory(quick: bool) -> None:
    side, processes = (QUICK_SIDE, QUICK_PROCESSES) if quick else (SIDE, PROCESSES)
    counts = (QUICK_LARGE, QUICK_SMALL) if quick else (LARGE, SMALL)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size, files = {}, {}
        for count in counts:
            data = synthetic_images(count, side)
            size[count] = data.train.num_bytes + data.validation.num_bytes
            files[count] = folder / f"{count}.safetensors"
            write_prepared(files[count], data)
        del data
        large, small = counts
        print(f"{processes} processes, {large} images of {size[large] / 2**20:.0f} MiB, compared with {small} images")
        pss = {count: max_memory(files[count], folder, large // count, processes) for count in counts}
        print(f"  together at most {pss[large] / 2**20:.0f} and {pss[small] / 2**20:.0f} MiB")
        growth = (pss[large] - pss[small]) / (size[large] - size[small])
        print(f"  growth: {growth:.2f} × the additional bytes  (target < {MAX_GROWTH} ×)")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure the time per epoch on images, of train() and of stock Lightning."
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds per contender (default: 3)")
    parser.add_argument("--memory", action="store_true", help="measure the memory of eight processes instead")
    parser.add_argument("--quick", action="store_true", help="only show that it runs: one round, small images")
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
