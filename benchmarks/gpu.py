"""Training on a GPU: throughput and memory by batch size, against a hand-written loop, and jobs that share the GPU.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --accelerator cpu --quick   # to see that it works, without a GPU

The network is a ResNet of 0.3 million parameters on 20,000 synthetic images of 32×32×3 pixels. The loop has the images
in the memory of the GPU, channels-last tensors and fused SGD, and records two losses per epoch. Times are wall times of
an epoch, the median without the first two; both take turns. Then one, two and four processes train at once, each with
that share of the memory (`resources.jobs_per_gpu`): their images per second together, over those of one.

Not yet measured: no GPU was at hand.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from batchscape.config.data.images import SyntheticConfig
from batchscape.config.run import RunSpec
from batchscape.data.prepare import prepare
from batchscape.data.prepared import PreparedData, read_prepared, write_prepared
from batchscape.io.run_directory import RunDirectory
from batchscape.models.build import build_network
from batchscape.training.execution import Execution
from batchscape.training.train import train

WARM_UP = 2
SHARED_BATCH_SIZE = 128
MEGABYTE = 2**20


def spec_of(batch_size: int, epochs: int, accelerator: str) -> RunSpec:
    return RunSpec.model_validate(
        {
            "batch_size": batch_size,
            "learning_rate": 0.01,
            "seed": 0,
            "model": {"name": "resnet", "channels": [16, 32, 64]},
            "training": {"budget": {"epochs": epochs}, "patience": None, "accelerator": accelerator},
        }
    )


def epoch_seconds(spec: RunSpec, data: Path, folder: Path, jobs_per_gpu: int = 1) -> float:
    """Return the wall time of an epoch of training."""
    run = RunDirectory(train(spec, data, folder, Execution(jobs_per_gpu=jobs_per_gpu)))
    return float(run.history(["train_seconds"])["train_seconds"].iloc[WARM_UP:].median())


def loop_seconds(spec: RunSpec, data: PreparedData, device: torch.device) -> float:
    """Return the wall time of an epoch of a hand-written loop."""
    network = build_network(spec.model, data.spec, 1, spec.seed).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=spec.learning_rate, fused=True)
    everything = data.train.batch(slice(None), device)
    epochs, times = spec.training.budget.epochs, []
    for _ in range(int(epochs)):
        start = time.perf_counter()
        for indices in torch.randperm(len(data.train)).split(spec.batch_size):
            rows = indices.to(device)
            loss = F.binary_cross_entropy_with_logits(
                network(everything.inputs[rows])[:, 0], everything.targets[rows].float()
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loss.item()  # waits for the GPU
        times.append(time.perf_counter() - start)
    return statistics.median(times[WARM_UP:])


def measure_batch_sizes(data: Path, folder: Path, sizes: list[int], epochs: int, accelerator: str) -> None:
    prepared, is_gpu = read_prepared(data), accelerator == "gpu"
    device = torch.device("cuda" if is_gpu else "cpu")
    for size in sizes:
        spec = spec_of(size, epochs, accelerator)
        if is_gpu:
            torch.cuda.reset_peak_memory_stats()
        seconds = epoch_seconds(spec, data, folder / f"bs{size}")
        memory = f", {torch.cuda.max_memory_allocated() / MEGABYTE:.0f} MB" if is_gpu else ""
        by_hand = loop_seconds(spec, prepared, device)
        print(
            f"batch size {size}: {len(prepared.train) / seconds:.0f} images/s{memory}; "
            f"{seconds / by_hand:.2f} × the time of a hand-written loop",
            flush=True,
        )


def measure_sharing(data: Path, folder: Path, counts: list[int], epochs: int, accelerator: str) -> None:
    """Print how much more several processes train at once than one."""
    alone = 0.0
    for count in counts:
        arguments = ["--accelerator", accelerator, "--epochs", str(epochs), "--jobs", str(count)]
        commands = [
            [sys.executable, __file__, *arguments, "--run", str(data), str(folder / f"{count}-{job}")]
            for job in range(count)
        ]
        jobs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
        printed = [job.communicate()[0] for job in jobs]
        if any(job.returncode for job in jobs):
            sys.exit("a job failed; see above")
        rate = sum(1 / float(text.splitlines()[-1]) for text in printed)
        alone = alone or rate
        print(f"{count} jobs at once: {rate / alone:.2f} × the images per second of one", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few images, to see that it works")
    parser.add_argument("--accelerator", choices=["gpu", "cpu"], default="gpu")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--run", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.accelerator == "gpu" and not torch.cuda.is_available():
        sys.exit("no CUDA GPU is available here; --accelerator cpu shows that the benchmark works")
    if arguments.run:
        data, folder = arguments.run
        spec = spec_of(SHARED_BATCH_SIZE, arguments.epochs, arguments.accelerator)
        print(epoch_seconds(spec, data, folder, arguments.jobs))
        return
    epochs, images = (3, 300) if arguments.quick else (arguments.epochs, 25_000)
    sizes, counts = ([128], [1, 2]) if arguments.quick else ([32, 128, 512, 2048, 8192], [1, 2, 4])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_prepared(
            folder / "data",
            prepare(SyntheticConfig(source="synthetic", images=images, image_size=(32, 32)))[0],
        )
        measure_batch_sizes(folder / "data", folder, sizes, epochs, arguments.accelerator)
        measure_sharing(folder / "data", folder, counts, epochs, arguments.accelerator)


if __name__ == "__main__":
    main()
