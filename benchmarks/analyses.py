"""CPU time of the analyses of the loss surface, and of the trainings, of a study on 60,000 images of 28 × 28.

    python benchmarks/analyses.py

The images are synthetic, in ten classes, with 10,000 more for validation; network, grid, arms, search and analyses are
those of a study file with no key but `training: {budget: {epochs: 3}}`. One run of each batch size is trained, and one
is analyzed, on one CPU thread; of a landscape only 25 points are evaluated. The time of a study is that of one run
times the number of runs that are trained (in the grid, in arms and by the search) or analyzed. `--quick` only checks
that the benchmark runs, with few images and small settings; its times mean nothing.

The target is that the analyses take at most as long as the trainings.

Measured on 2 cores of a shared AMD EPYC under a load of 12 to 15, Python 3.11, torch 2.13, before the benchmark limited
NumPy to one thread, as Snakemake does: with two, gradient alignment alone takes about four times the CPU time.

    CPU time                    one, s    number  study, s
    training, batch 32            45.0        39      1755
    training, batch 64            42.3        42      1775
    training, batch 128           32.9        39      1282
    training, batch 256           32.6        42      1369
    sharpness                     58.9        51      3005
    gradient_alignment            16.1        12       194
    interpolation                  3.3         3        10
    landscape                      1.4       208       287
    all trainings                                     6181
    all analyses                                      3495
    analyses / trainings                              0.57

Their time is proportional to the number of examples: at all 60,000 they would take about 16 times that of the
trainings.
"""

import argparse
import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from batchscape.analysis import gradient_alignment, interpolation, landscape, sharpness
from batchscape.analysis.surfaces import draw_examples
from batchscape.config.analysis import AnalysisConfig
from batchscape.config.budget import Budget
from batchscape.config.data.images import SyntheticConfig
from batchscape.config.device_timing import DeviceTimingConfig
from batchscape.config.grid import GridConfig
from batchscape.config.landscape import LandscapeConfig
from batchscape.config.run import RunSpec
from batchscape.config.sharpness import SharpnessConfig
from batchscape.config.study import StudyConfig
from batchscape.config.training import TrainingConfig
from batchscape.data.prepare import prepare
from batchscape.data.prepared import read_prepared
from batchscape.io.run_directory import RunDirectory
from batchscape.runtime.allocator import keep_freed_memory
from batchscape.study.plan import Plan
from batchscape.training.environment import describe_environment
from batchscape.training.train import train

ANALYSES = ("sharpness", "gradient_alignment", "interpolation", "landscape")
"""The analyses of the loss surface that are on by default."""
QUICK = {
    "sharpness": SharpnessConfig(iterations=1, random_starts=0, subspace_dimension=2, trace_matvecs=3),
    "analysis": AnalysisConfig(examples=64),
}


def start(description: str) -> bool:
    """Set up this process as a job on one CPU thread, and return whether the option `--quick` is given."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only check that the benchmark runs")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    threadpool_limits(1)  # of NumPy, as Snakemake does
    keep_freed_memory()  # as jobs do
    environment = describe_environment(torch.device("cpu"))
    print(f"{environment['processor']}, Python {environment['python']}, {environment['packages']}")
    return quick


def main() -> None:
    quick = start(__doc__ or "")
    data_config = SyntheticConfig(
        source="synthetic",
        images=700 if quick else 70_000,
        image_size=(28, 28),
        channels=1,
        classes=10,
        noise=3.0,
        validation_fraction=1 / 7,
    )
    batch_sizes = (32, 64) if quick else GridConfig().batch_sizes
    study = StudyConfig(
        name="benchmark",
        data=data_config,
        grid=GridConfig(batch_sizes=batch_sizes),
        training=TrainingConfig(budget=Budget(epochs=3), accelerator="cpu"),
        device_timing=DeviceTimingConfig(enabled=False),
        **(QUICK if quick else {}),
    )
    print(f"{'CPU time':24s}{'one, s':>10s}{'number':>10s}{'study, s':>10s}")
    with tempfile.TemporaryDirectory() as folder:
        trainings = time_trainings(study, Path(folder))
        analyses = time_analyses(study, Path(folder))
    print(f"{'all trainings':24s}{trainings:30.0f}\n{'all analyses':24s}{analyses:30.0f}")
    print(f"{'analyses / trainings':24s}{analyses / trainings:30.2f}")


def time_trainings(study: StudyConfig, folder: Path) -> float:
    """Train a run of each batch size, and return the time of all trainings of the study."""
    prepare(study.data, path=folder / "data")
    numbers = Counter()
    for group in Plan(study).trainings:
        numbers[group.batch_size] += group.count
    total = 0.0
    for batch_size, number in numbers.items():
        spec = RunSpec(
            batch_size=batch_size,
            learning_rate=0.01,
            seed=0,
            model=study.model,
            task=study.task,
            training=study.training,
        )
        seconds = cpu_seconds(lambda spec=spec: train(spec, folder / "data", folder / f"bs{spec.batch_size}"))
        total += show(f"training, batch {batch_size}", seconds, number)
    return total


def time_analyses(study: StudyConfig, folder: Path) -> float:
    """Analyze one run, and return the time of all default analyses of the study."""
    data = draw_examples(read_prepared(folder / "data"), study.analysis)
    first, last = (RunDirectory(folder / f"bs{size}") for size in (study.small_batch_size, study.large_batch_size))
    runs = {name: sum(map(len, Plan(study).runs_by_part(name).values())) for name in ANALYSES}
    points = LandscapeConfig(points=(5, 5))
    # Of a landscape, the time of a point.
    units = {
        "landscape": runs["landscape"] * math.prod(study.landscape.points) / math.prod(points.points),
        "interpolation": runs["interpolation"] / 2,  # pairs
    }
    jobs = {
        "sharpness": lambda: sharpness.analyze(first, data, study.sharpness),
        "gradient_alignment": lambda: gradient_alignment.analyze(first, data, study.gradient_alignment),
        "interpolation": lambda: interpolation.analyze(first, last, data, study.interpolation),
        "landscape": lambda: landscape.analyze(first, data, points, 0, 1, 1),
    }
    return sum(show(name, cpu_seconds(jobs[name]), units.get(name, runs[name])) for name in ANALYSES)


def cpu_seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def show(what: str, seconds: float, number: float) -> float:
    """Print a line, and return the time of the study."""
    print(f"{what:24s}{seconds:10.1f}{number:10.0f}{seconds * number:10.0f}", flush=True)
    return seconds * number


if __name__ == "__main__":
    main()
