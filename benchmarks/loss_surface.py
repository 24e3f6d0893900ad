"""Time of a point of a landscape: this library, the package loss-landscapes, and a bare loop.

    pip install --no-deps loss-landscapes
    python benchmarks/loss_surface.py

The package is skipped if it is not installed. `--quick` only checks that the benchmark runs, with few images and
points, one round, and a single process; its times are meaningless.

Each contender evaluates the training loss on a plane around one network, on one CPU thread, in a process of its own.
The contenders take turns, so that other load on the machine affects all of them alike, and the median over the rounds
counts. Their losses at the center must agree.

* `landscape`: `batchscape.analysis.landscape.evaluate_on_plane`, with loss, accuracy and the table of points.
* `loss-landscapes`: `random_plane` of the PyPI package, with filter normalization.
* `floor`: the fastest bare forward loop that we could write by hand, for this network alone: weights copied in place,
  inputs prepared in advance in oneDNN's layout and split into the chunks that were fastest in a trial, pooling before
  ReLU, in-place ReLU, inference mode, mean loss in float32, no accuracy.

Networks: that of the default study (3,361 parameters) on 1,438 digits, with a grid of 21 × 21; that of the original
study (353,161 parameters) on 2,048 synthetic images of 128 × 128 × 3, with a grid of 3 × 3 (`--full`: 21 × 21, about 45
minutes per round).

Measured on shared virtual machines with 2 cores under other load, Python 3.11, torch 2.13: milliseconds per point,
with 3 rounds for the default network (the floor used all images at once) and 1 round for the original one (16 or 32
at once).

    Intel Xeon (model 167, 2.6 GHz)     default network          original network
    landscape                           1.98    2.09    2.16      769     736
    loss-landscapes                     5.38    5.95    6.05     4732    3666
    floor                               1.92    1.93    1.99      652     658
    faster than loss-landscapes         2.71 ×  2.85 ×  2.80 ×   6.15 ×  4.98 ×
    over the floor                      1.03 ×  1.08 ×  1.08 ×   1.18 ×  1.12 ×

    AMD EPYC (without AVX-512)
    landscape                           3.53    3.92    3.36     1074    1086
    loss-landscapes                     9.21    5.66    5.90     7230    6460
    floor                               3.16    3.58    3.41      877     941
    faster than loss-landscapes         2.61 ×  1.45 ×  1.76 ×   6.73 ×  5.95 ×
    over the floor                      1.12 ×  1.09 ×  0.98 ×   1.22 ×  1.155 ×

    AMD EPYC (with AVX-512)
    landscape                           2.92    3.16    3.58
    loss-landscapes                     7.98    7.32    7.00
    floor                               2.59    2.76    3.09
    faster than loss-landscapes         2.73 ×  2.32 ×  1.96 ×
    over the floor                      1.13 ×  1.14 ×  1.16 ×

The load was heavier on the second machine, where a complete study ran at the same time, and on the third, which had a
load of 1 to 5 on its 2 cores.

So the target of 3 × for the default network is missed on all three machines. It is hardly within reach of a loop over
single points, because the floor itself is about 3 × faster than the package on the first and third machine, and 1.6
to 2.9 × on the second. The target relative to the floor is missed by the original network in three of four runs. Four
other approaches were tried and rejected: computing the outputs of the first layer from those at the corners of the
plane (no clear gain, because the sums need about as much memory traffic as the convolution), several points in
grouped convolutions (slower with the original network), other thresholds of the allocator (no gain), and four points
in one wide network.

The last one was the best, on the third machine: the first layer as a 1 × 1 convolution over unfolded patches, then
grouped convolutions, channels last, pooling by the maximum of slices, loss and accuracy of all four together. Its CPU
time was 1.1 to 1.3 times less than the library's (four runs in turns, under a load of 15). But in seven runs it was
2.80, 2.00, 2.66, 2.67, 3.21, 3.66 and 2.37 × as fast as loss-landscapes, whose own time varied most, and took 0.90 to
1.18 × the floor. In an earlier form, networks with 16 or more filters in the first layer, or with a dense layer of
1,024, gained nothing or lost a tenth. This is too little to justify a second forward pass.

The targets are at least 3 × (default) and 4 × (original) as fast as loss-landscapes, and at most 1.15 × the floor.
"""

import argparse
import copy
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from batchscape.analysis.landscape import evaluate_on_plane, grid, normalize_filters, random_directions
from batchscape.config.data.images import DigitsConfig
from batchscape.config.model import VggConfig
from batchscape.config.task import ClassificationConfig
from batchscape.curvature.loss_surface import LossSurface
from batchscape.data.dataset import Dataset
from batchscape.data.prepare import prepare
from batchscape.data.spec import DataSpec
from batchscape.models.build import build_network
from batchscape.tasks.objective import SupervisedObjective
from batchscape.tasks.task import build_task
from batchscape.training.environment import describe_environment

Contender = Callable[[int], float]
"""Evaluates a grid with a number of points along each side, and returns the loss at the first point."""

DEFAULT, ORIGINAL = "default study", "original study"
LANDSCAPE, PACKAGE, FLOOR = "landscape", "loss-landscapes", "floor"
PARAMETERS = {DEFAULT: 3361, ORIGINAL: 353_161}
FASTER_THAN_PACKAGE = {DEFAULT: 3, ORIGINAL: 4}
"""Minimum time of the package, as a multiple of that of `landscape`."""
OVER_FLOOR = 1.15
"""Maximum time of `landscape`, as a multiple of that of the floor."""
CHUNKS = (8, 16, 32, 128, 512)
"""Chunk sizes that the floor tries, besides all examples at once."""
TRIAL_SECONDS = 0.3


def landscape(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> Contender:
    # `parameters_to_vector` of torch takes no channels-last weights.
    weights = torch.cat([parameter.detach().reshape(-1) for parameter in network.parameters()]).numpy()
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    directions = np.stack([normalize_filters(d, weights, shapes) for d in random_directions(len(weights), 0)])
    spec = DataSpec("images", tuple(images.shape[1:]), "class", classes=("no", "yes"))
    data = Dataset(spec, {"inputs": images.permute(0, 2, 3, 1).contiguous(), "targets": labels})
    objective = SupervisedObjective(network, build_task(ClassificationConfig(), spec))
    surface = LossSurface(objective, data, torch.device("cpu"))

    def run(side: int) -> float:
        points = np.zeros((1, 2)) if side == 1 else grid((-1, 1), (-1, 1), (side, side))
        return evaluate_on_plane(surface, weights, directions, points, re_estimate=False)["loss"][0]

    return run


def package(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> Contender:
    from loss_landscapes import random_plane
    from loss_landscapes.metrics import Loss

    inputs, labels = images.float() / 255, labels.float()
    metric = Loss(nn.BCEWithLogitsLoss(), inputs, labels[:, None])

    def run(side: int) -> float:
        if side == 1:
            return F.binary_cross_entropy_with_logits(network(inputs)[:, 0], labels).item()
        return random_plane(network, metric, distance=1, steps=side, normalization="filter", deepcopy_model=True)[0, 0]

    return run


def floor(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> Contender:
    layers = list(copy.deepcopy(network).eval())
    for index in range(len(layers) - 1):
        if isinstance(layers[index], nn.ReLU) and isinstance(layers[index + 1], nn.MaxPool2d):
            layers[index : index + 2] = layers[index + 1], layers[index]
    bare = nn.Sequential(*[nn.ReLU(inplace=True) if isinstance(layer, nn.ReLU) else layer for layer in layers])
    start = [parameter.detach().clone() for parameter in network.parameters()]
    parameters = [parameter.detach() for parameter in bare.parameters()]
    floats, labels = images.float() / 255, labels.float()

    def loop(chunks: list[torch.Tensor], points: int) -> float:
        with torch.inference_mode():
            for _ in range(points):
                for parameter, value in zip(parameters, start, strict=True):
                    parameter.copy_(value)
                logits = torch.cat([bare(chunk).to_dense() for chunk in chunks])
                loss = F.binary_cross_entropy_with_logits(logits[:, 0], labels).item()
        return loss

    def split(size: int) -> list[torch.Tensor]:
        return [chunk.to_mkldnn() for chunk in floats.split(size)]

    def seconds(size: int) -> float:
        chunks, times = split(size), []
        loop(chunks, 1)
        # Long enough for the allocator to settle: the first points of a large chunk mostly wait for new memory.
        while len(times) < 2 or sum(times) < TRIAL_SECONDS:
            started = time.perf_counter()
            loop(chunks, 1)
            times.append(time.perf_counter() - started)
        return min(times)

    fastest = min((*CHUNKS, len(images)), key=seconds)
    print(f"  floor: chunks of {fastest} were fastest", flush=True)
    chunks = split(fastest)
    return lambda side: loop(chunks, side**2)


CONTENDERS = {LANDSCAPE: landscape, PACKAGE: package, FLOOR: floor}


def network_and_data(name: str, count: int | None) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Return a network and the images and labels of its study, at most `count` of them."""
    torch.manual_seed(0)
    if name == DEFAULT:
        data = prepare(DigitsConfig())[0]
        images, labels = data.train.arrays["inputs"].permute(0, 3, 1, 2), data.train.arrays["targets"]
        network = build_network(VggConfig(), DataSpec("images", (1, 8, 8), "class"), 1, 0)
    else:
        images = torch.randint(0, 256, (2048, 3, 128, 128), dtype=torch.uint8)
        labels = torch.randint(0, 2, (2048,))
        network = build_network(
            VggConfig(channels=(4, 8, 16, 32, 64), dense=(256, 256)), DataSpec("images", (3, 128, 128), "class"), 1, 0
        )
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[name]
    with torch.no_grad():  # loss-landscapes divides by the norm of biases, which are zero at the start
        for parameter in network.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    return network, images[:count], labels[:count]


def measure(name: str, contender: str, side: int, count: int | None) -> tuple[float, float]:
    """Return the loss at the center, which is also the warm-up, and the seconds per point of a grid."""
    torch.set_num_threads(1)
    run = CONTENDERS[contender](*network_and_data(name, count))
    center = run(1)
    started = time.perf_counter()
    run(side)
    return center, (time.perf_counter() - started) / side**2


def separate_process() -> Executor:
    """Return an executor with a new process: memory that one contender frees would speed up the next."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def compare(name: str, side: int, rounds: int, count: int | None, executor: Callable[[], Executor]) -> None:
    installed = importlib.util.find_spec("loss_landscapes") is not None
    results_of: dict[str, list[tuple[float, float]]] = {
        contender: [] for contender in CONTENDERS if installed or contender != PACKAGE
    }
    for _ in range(rounds):
        for contender, results in results_of.items():
            with executor() as process:
                results.append(process.submit(measure, name, contender, side, count).result())
    losses = [loss for results in results_of.values() for loss, _ in results]
    if not np.allclose(losses, losses[0], rtol=1e-5):
        sys.exit(f"the losses at the center differ: {losses}")
    medians = {
        contender: statistics.median(seconds for _, seconds in results) for contender, results in results_of.items()
    }
    print(f"{name}, {side} × {side} points, median of {rounds} rounds")
    for contender, value in medians.items():
        print(f"  {contender:<18}{1000 * value:>10.2f} ms per point")
    if installed:
        ratio = medians[PACKAGE] / medians[LANDSCAPE]
        print(f"  faster than {PACKAGE}: {ratio:.2f} ×  (target ≥ {FASTER_THAN_PACKAGE[name]} ×)")
    else:
        print(f"  {PACKAGE} is not installed and was skipped: pip install --no-deps {PACKAGE}")
    print(f"  over the floor: {medians[LANDSCAPE] / medians[FLOOR]:.2f} ×  (target ≤ {OVER_FLOOR} ×)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a point of a landscape.")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each contender (default: 3)")
    parser.add_argument(
        "--full", action="store_true", help="a grid of 21 × 21 for the network of the original study, too"
    )
    parser.add_argument(
        "--quick", action="store_true", help="only check that it runs: few images and points, one round"
    )
    arguments = parser.parse_args()
    environment = describe_environment(torch.device("cpu"))
    print(f"{environment['processor']}, 1 thread, torch {environment['packages']['torch']}")
    if arguments.quick:
        for name in (DEFAULT, ORIGINAL):
            compare(name, 2, 1, 8, lambda: ThreadPoolExecutor(1))
        return
    compare(DEFAULT, 21, arguments.rounds, None, separate_process)
    compare(ORIGINAL, 21 if arguments.full else 3, arguments.rounds, None, separate_process)


if __name__ == "__main__":
    main()
