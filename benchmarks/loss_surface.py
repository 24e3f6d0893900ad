"""What a point of a landscape costs with this library, with the package loss-landscapes, and with a bare loop.

    pip install --no-deps loss-landscapes
    python benchmarks/loss_surface.py

The package is left out where it is not installed. `--quick` only shows that the benchmark runs: few images, few points,
one round, all in one process; its times mean nothing.

Contenders evaluate the training loss on a plane around one network, on one CPU thread, each in a process of its own, in
turns, so that what else runs on the machine meets all of them alike; the median over the rounds counts. Their losses at
the center must agree.

* `landscape`: `batchscape.analysis.landscape.evaluate_on_plane`, with loss, accuracy and all of its record.
* `loss-landscapes`: the PyPI package's `random_plane` with filter normalization.
* `floor`: the fastest bare forward loop that we could write by hand, for this network alone: weights copied in place,
  inputs prepared beforehand in oneDNN's own layout and cut into the chunks that were fastest in a trial, pooling
  before ReLU, ReLU in place, inference mode, mean loss in float32, no accuracy.

Networks: the default study's (3,361 parameters) on 1,438 of the digits, a grid of 21 × 21; the original study's
(353,161 parameters) on 2,048 made images of 128 × 128 × 3, a grid of 3 × 3 (`--full`: 21 × 21, which takes about 45
minutes a round).

Seen on two shared virtual machines with 2 cores, Python 3.11, torch 2.13, other work beside it: milliseconds a point,
of runs with 3 rounds for the default network (the floor took all images at once) and with 1 round for the original one
(16 or 32 at a time).

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

The other work was heavier on the second machine, where a whole study ran beside the benchmark, and on the third, under
a load of 1 to 5 on its 2 cores.

So the target of 3 × for the default network is missed on all three, and is hardly within reach of a loop over single
points, for the floor itself is about 3 × faster on the first and the third and 1.6 to 2.9 × on the second; that of the
floor for the original network is missed in three runs of four. Four ways out were tried and given up: to combine the
first layer's outputs from those at the corners of the plane (no clear gain, for the sums cost about as much memory
traffic as the convolution), to pack several points into grouped convolutions (slower with the original network), other
thresholds of the allocator (no gain), and four points side by side in one wide network.

The last was the best, on the third machine: the first layer as a convolution of 1 × 1 over patches unfolded beforehand,
then grouped convolutions, channels last, pooling by the maximum of slices, loss and accuracy of all four together. Its
processor time was 1.1 to 1.3 times less than the library's (four runs in turns, under a load of 15). But in seven runs
it was 2.80, 2.00, 2.66, 2.67, 3.21, 3.66 and 2.37 × as fast as loss-landscapes, whose own time varied most, and took
0.90 to 1.18 × the floor. In an earlier form, networks whose first layer has 16 or more filters, or with a dense layer
of 1,024, gained nothing or lost a tenth. That is too little for a second forward pass to maintain.

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
from batchscape.config.data import DigitsConfig
from batchscape.config.model import VggConfig
from batchscape.curvature.loss_surface import LossSurface
from batchscape.data.prepare import prepare
from batchscape.data.tensors import to_tensors
from batchscape.models.build import build_network
from batchscape.training.environment import describe_environment

Contender = Callable[[int], float]
"""From a grid's number of points along a side to the loss at the first point that it evaluates."""

DEFAULT, ORIGINAL = "default study", "original study"
LANDSCAPE, PACKAGE, FLOOR = "landscape", "loss-landscapes", "floor"
PARAMETERS = {DEFAULT: 3361, ORIGINAL: 353_161}
FASTER_THAN_PACKAGE = {DEFAULT: 3, ORIGINAL: 4}
"""The least that the package's time may be, as a multiple of `landscape`'s."""
OVER_FLOOR = 1.15
"""The most that `landscape` may take, as a multiple of the floor's time."""
CHUNKS = (8, 16, 32, 128, 512)
"""Examples that the floor tries to take together, besides all of them."""
TRIAL_SECONDS = 0.3


def landscape(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> Contender:
    # `parameters_to_vector` of torch takes no channels-last weights.
    weights = torch.cat([parameter.detach().reshape(-1) for parameter in network.parameters()]).numpy()
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    directions = np.stack([normalize_filters(d, weights, shapes) for d in random_directions(len(weights), 0)])
    surface = LossSurface(network, images, labels)

    def run(side: int) -> float:
        places = np.zeros((1, 2)) if side == 1 else grid((-1, 1), (-1, 1), (side, side))
        return evaluate_on_plane(surface, weights, directions, places, re_estimate=False)["loss"][0]

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
    links = list(copy.deepcopy(network).eval())
    for index in range(len(links) - 1):
        if isinstance(links[index], nn.ReLU) and isinstance(links[index + 1], nn.MaxPool2d):
            links[index : index + 2] = links[index + 1], links[index]
    bare = nn.Sequential(*[nn.ReLU(inplace=True) if isinstance(link, nn.ReLU) else link for link in links])
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

    def cut(size: int) -> list[torch.Tensor]:
        return [chunk.to_mkldnn() for chunk in floats.split(size)]

    def seconds(size: int) -> float:
        chunks, times = cut(size), []
        loop(chunks, 1)
        # Long enough for the allocator to settle: the first points of a large chunk mostly wait for fresh memory.
        while len(times) < 2 or sum(times) < TRIAL_SECONDS:
            started = time.perf_counter()
            loop(chunks, 1)
            times.append(time.perf_counter() - started)
        return min(times)

    fastest = min((*CHUNKS, len(images)), key=seconds)
    print(f"  floor: chunks of {fastest} were fastest", flush=True)
    chunks = cut(fastest)
    return lambda side: loop(chunks, side**2)


CONTENDERS = {LANDSCAPE: landscape, PACKAGE: package, FLOOR: floor}


def network_and_data(name: str, count: int | None) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Return a network and the images and labels of its study, at most `count` of them."""
    torch.manual_seed(0)
    if name == DEFAULT:
        data = prepare(DigitsConfig())[0]
        images, labels = to_tensors(data.train_images, data.train_labels, torch.device("cpu"))
        network = build_network(VggConfig(), (1, 8, 8), 1, 0)
    else:
        images = torch.randint(0, 256, (2048, 3, 128, 128), dtype=torch.uint8)
        labels = torch.randint(0, 2, (2048,))
        network = build_network(VggConfig(channels=(4, 8, 16, 32, 64), dense=(256, 256)), (3, 128, 128), 1, 0)
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[name]
    with torch.no_grad():  # loss-landscapes divides by the norm of biases, which are zero at the start
        for parameter in network.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    return network, images[:count], labels[:count]


def measured(name: str, contender: str, side: int, count: int | None) -> tuple[float, float]:
    """Return the loss at the center, which warms up, and the seconds that a point of a grid takes."""
    torch.set_num_threads(1)
    run = CONTENDERS[contender](*network_and_data(name, count))
    center = run(1)
    started = time.perf_counter()
    run(side)
    return center, (time.perf_counter() - started) / side**2


def apart() -> Executor:
    """Return a process, as in use: what one contender leaves to the allocator would speed up the next."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def compare(name: str, side: int, rounds: int, count: int | None, executor: Callable[[], Executor]) -> None:
    installed = importlib.util.find_spec("loss_landscapes") is not None
    found = {contender: [] for contender in CONTENDERS if installed or contender != PACKAGE}
    for _ in range(rounds):
        for contender, results in found.items():
            with executor() as process:
                results.append(process.submit(measured, name, contender, side, count).result())
    losses = [loss for results in found.values() for loss, _ in results]
    if not np.allclose(losses, losses[0], rtol=1e-5):
        sys.exit(f"the losses at the center differ: {losses}")
    medians = {contender: statistics.median(seconds for _, seconds in results) for contender, results in found.items()}
    print(f"{name}, {side} × {side} points, median of {rounds} rounds")
    for contender, value in medians.items():
        print(f"  {contender:<18}{1000 * value:>10.2f} ms a point")
    if installed:
        ratio = medians[PACKAGE] / medians[LANDSCAPE]
        print(f"  faster than {PACKAGE}: {ratio:.2f} ×  (target ≥ {FASTER_THAN_PACKAGE[name]} ×)")
    else:
        print(f"  {PACKAGE} is not installed and left out: pip install --no-deps {PACKAGE}")
    print(f"  over the floor: {medians[LANDSCAPE] / medians[FLOOR]:.2f} ×  (target ≤ {OVER_FLOOR} ×)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a point of a landscape.")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each contender (default: 3)")
    parser.add_argument("--full", action="store_true", help="a grid of 21 × 21 also for the original study's network")
    parser.add_argument("--quick", action="store_true", help="only see that it runs: few images and points, one round")
    arguments = parser.parse_args()
    environment = describe_environment(torch.device("cpu"))
    print(f"{environment['processor']}, 1 thread, torch {environment['packages']['torch']}")
    if arguments.quick:
        for name in (DEFAULT, ORIGINAL):
            compare(name, 2, 1, 8, lambda: ThreadPoolExecutor(1))
        return
    compare(DEFAULT, 21, arguments.rounds, None, apart)
    compare(ORIGINAL, 21 if arguments.full else 3, arguments.rounds, None, apart)


if __name__ == "__main__":
    main()
