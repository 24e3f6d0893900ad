"""What the trackers cost a run: CPU time to open one, for each evaluation, and to finish.

    python benchmarks/trackers.py                    # all trackers that are installed
    python benchmarks/trackers.py --quick            # csv and tensorboard with few evaluations, to see that it works

Each tracker is opened twice, each time in a process of its own: the first time it also creates what the runs of a study
share, such as the database of MLflow. The evaluations have the 14 columns of the history of a classification, and are
written 30 at a time, as those of a small network are. Times of processes that a tracker starts are not included.

Measured on 2 cores of a shared AMD EPYC under a load of 20, Python 3.11; seconds, and milliseconds for an evaluation,
at the first and at the second opening:

    csv           open  0.01  0.01   evaluation  0.03  0.00   finish  0.00  0.00
    tensorboard   open  0.06  0.06   evaluation  0.67  0.63   finish  0.01  0.00
    mlflow        open  3.06  1.92   evaluation  1.17  1.17   finish  0.03  0.03
    wandb         open  1.33  1.28   evaluation  0.23  0.17   finish  0.00  0.01
"""

import argparse
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import get_args

from batchscape.config.run import RunSpec
from batchscape.config.tracking import PACKAGES, TrackerName
from batchscape.training import tracking

COLUMNS = (
    *("epoch", "examples", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "learning_rate"),
    *("clipped", "train_seconds", "train_cpu_seconds", "validation_seconds", "validation_cpu_seconds"),
    *("distance", "epoch_distance"),
)
WRITTEN_AT_ONCE = 30


def measure(name: str, study: Path, evaluations: int) -> list[float]:
    """Return the seconds of CPU time to open a tracker, to write all evaluations, and to finish."""
    run = "bs64-lr0.04-seed0"
    spec = RunSpec(batch_size=64, learning_rate=0.04, seed=0)
    tracker = tracking.RunTracker(tracking.Tracking.of_run(name, study, run), spec, "benchmark")
    rows = [{"step": step, **dict.fromkeys(COLUMNS, 0.1)} for step in range(1, evaluations + 1)]
    tracking.WRITE_INTERVAL = 0.0
    times = [time.process_time()]
    tracker.open([name])
    times.append(time.process_time())
    for end in range(0, evaluations, WRITTEN_AT_ONCE):
        tracker.update(rows[: end + WRITTEN_AT_ONCE])
    times.append(time.process_time())
    results = {"best_step": 1, "best_epoch": 1, "best_validation_loss": 0.1, "test_at_best": {}, "steps": evaluations}
    tracker.finish(results)
    times.append(time.process_time())
    if tracker.failures:
        raise SystemExit(f"{name}: {tracker.failures[name]}")
    return [end - start for start, end in pairwise(times)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tracker", nargs=2, metavar=("NAME", "FOLDER"), help="measure one, and print the numbers")
    arguments = parser.parse_args()
    evaluations = 30 if arguments.quick else 300
    if arguments.tracker:
        name, folder = arguments.tracker
        print(*measure(name, Path(folder), evaluations))
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in ("csv", "tensorboard") if arguments.quick else get_args(TrackerName):
            if name in PACKAGES and find_spec(PACKAGES[name]) is None:
                print(f"{name:<12}  is not installed")
                continue
            command = [sys.executable, __file__, "--tracker", name, f"{folder}/{name}"]
            command += ["--quick"] * arguments.quick
            runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(2)]
            opened, written, finished = zip(*(map(float, run.stdout.split()[-3:]) for run in runs), strict=True)
            milliseconds = [1000 * seconds / evaluations for seconds in written]
            print(
                f"{name:<12}  open {_columns(opened)}   evaluation {_columns(milliseconds)}   "
                f"finish {_columns(finished)}",
                flush=True,
            )


def _columns(values: list[float] | tuple[float, ...]) -> str:
    return "".join(f"{value:6.2f}" for value in values)


if __name__ == "__main__":
    main()
