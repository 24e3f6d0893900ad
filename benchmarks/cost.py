"""How the time and the memory of a training grow with data, parameters, batch size and seeds.

    python benchmarks/cost.py                      # about five minutes on one core
    python benchmarks/cost.py --figures docs/images   # also draws cost-time.png and cost-memory.png
    python benchmarks/cost.py --accelerator gpu    # on a GPU, with its memory
    python benchmarks/cost.py --quick              # two points of one quantity, to see that it works

One quantity varies at a time, from a base: 4,000 synthetic images of 16×16 pixels, a VGG-style network with 8 and 16
channels, batch size 64, one seed. Each point is a process of its own on one thread. Its time is the CPU time (on a GPU
the wall time) of an epoch of training and validation, the median without the first, times the number of seeds; its
memory is the most that the process had in main memory, above what it had before training, or on a GPU the most that
torch allocated there. The slope is that of the logarithm of the time over the logarithm of the quantity, fitted to
all points by least squares: 1 means proportional, 0 that it does not matter. How planning grows with the number of
runs is in benchmarks/scale.py.

Measured on 2 cores of a shared AMD EPYC under a load of 20, Python 3.11, torch 2.13; slopes of the time and the memory:

    training examples   0.95   0.30    (0.043 s and 36 MB at 1,000; 1.178 s and 113 MB at 32,000)
    parameters          0.64   0.18    (0.105 s and 40 MB at 2,245; 1.684 s and 84 MB at 141,249)
    batch size         -0.33   0.09    (0.498 s and 46 MB at 8; 0.103 s and 70 MB at 1,024)
    seeds               1.03   0.10    (0.133 s and 48 MB at 1; 1.105 s and 58 MB at 8)
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

EPOCHS = 4
MEGABYTE = 2**20


@dataclass(frozen=True)
class Point:
    """What is trained."""

    images: int = 4000
    width: int = 8
    batch_size: int = 64
    seeds: int = 1


POINTS = {
    "training examples": ("images", [1000, 2000, 4000, 8000, 16000, 32000]),
    "parameters": ("width", [2, 4, 8, 16, 32, 64]),
    "batch size": ("batch_size", [8, 16, 32, 64, 128, 256, 512, 1024]),
    "seeds": ("seeds", [1, 2, 4, 8]),
}


def measure(point: Point, accelerator: str) -> dict[str, float]:
    """Train a point in this process, and return its number of parameters, its time and its memory."""
    import psutil
    import torch

    from batchscape.config.data.images import SyntheticConfig
    from batchscape.config.run import RunSpec
    from batchscape.data.prepare import prepare
    from batchscape.data.prepared import write_prepared
    from batchscape.io.run_directory import RunDirectory
    from batchscape.training.train import train

    torch.set_num_threads(1)
    clock = "seconds" if accelerator == "gpu" else "cpu_seconds"
    data = prepare(SyntheticConfig(source="synthetic", images=point.images, image_size=(16, 16)))[0]
    seconds, parameters = 0.0, 0
    before = psutil.Process().memory_info().rss
    with tempfile.TemporaryDirectory() as folder:
        write_prepared(Path(folder) / "data", data)
        for seed in range(point.seeds):
            spec = RunSpec.model_validate(
                {
                    "batch_size": point.batch_size,
                    "learning_rate": 0.01,
                    "seed": seed,
                    "model": {"name": "vgg", "channels": [point.width, 2 * point.width], "dense": [32]},
                    "training": {"budget": {"epochs": EPOCHS}, "patience": None, "accelerator": accelerator},
                }
            )
            run = RunDirectory(train(spec, Path(folder) / "data", Path(folder) / f"{seed}"))
            history = run.history([f"train_{clock}", f"validation_{clock}"])
            seconds += float(history.sum(axis=1).iloc[1:].median())
            parameters = run.summary()["parameters"]
    on_gpu = torch.cuda.max_memory_allocated() / MEGABYTE if accelerator == "gpu" else 0.0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"parameters": parameters, "seconds": seconds, "megabytes": on_gpu or max(1.0, (most - before) / MEGABYTE)}


def measure_apart(point: Point, accelerator: str) -> dict[str, float]:
    """Train a point in a process of its own."""
    command = [sys.executable, __file__, "--accelerator", accelerator, "--point", json.dumps(asdict(point))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{point} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def fit_slope(values: pd.Series, results: pd.Series) -> float:
    """Return the slope of log(results) over log(values)."""
    return float(np.polyfit(np.log(values), np.log(results), 1)[0])


def draw(table: pd.DataFrame, column: str, label: str) -> Any:
    """Return a figure with a panel for each quantity, whose title has the slope."""
    from plotnine import aes, facet_wrap, geom_line, geom_point, ggplot, labs, scale_x_log10, scale_y_log10, theme_bw

    slopes = {name: fit_slope(rows["value"], rows[column]) for name, rows in table.groupby("quantity", sort=False)}
    panels = [f"{name}: slope {slope:.2f}" for name, slope in slopes.items()]
    named = table.assign(panel=pd.Categorical(table["quantity"].map(dict(zip(slopes, panels, strict=True))), panels))
    return (
        ggplot(named, aes("value", column))
        + geom_line()
        + geom_point()
        + facet_wrap("panel", scales="free_x")
        + scale_x_log10()
        + scale_y_log10()
        + labs(x="", y=label)
        + theme_bw(base_size=10)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two points of one quantity")
    parser.add_argument("--accelerator", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--figures", type=Path, help="folder for cost-time.png and cost-memory.png")
    parser.add_argument("--point", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.point:
        print(json.dumps(measure(Point(**json.loads(arguments.point)), arguments.accelerator)))
        return
    rows = []
    for quantity, (field, values) in ({"seeds": ("seeds", [1, 2])} if arguments.quick else POINTS).items():
        for value in values:
            result = measure_apart(replace(Point(), **{field: value}), arguments.accelerator)
            rows.append({"quantity": quantity, "value": value, **result})
            if quantity == "parameters":
                rows[-1]["value"] = result["parameters"]
            print(
                f"{quantity:18s} {rows[-1]['value']:8.0f}: {result['seconds']:7.3f} s, {result['megabytes']:6.0f} MB",
                flush=True,
            )
    table = pd.DataFrame(rows)
    for quantity, group in table.groupby("quantity", sort=False):
        slopes = [fit_slope(group["value"], group[column]) for column in ("seconds", "megabytes")]
        print(f"{quantity}: the time has slope {slopes[0]:.2f}, the memory {slopes[1]:.2f}")
    if arguments.figures:
        draw(table, "seconds", "Time of an epoch, s").save(
            arguments.figures / "cost-time.png", width=7, height=4.5, dpi=150, verbose=False
        )
        draw(table, "megabytes", "Memory of the training, MB").save(
            arguments.figures / "cost-memory.png", width=7, height=4.5, dpi=150, verbose=False
        )


if __name__ == "__main__":
    main()
