"""How long Snakemake takes to plan: nothing to do, and studies of 2,000 and 10,000 runs from scratch.

    python benchmarks/workflow.py

The first needs a finished default study (`make study`), and is left out where there is none. Measured is the wall
time of the whole command, best and median of `--rounds`. `--quick` only shows that it runs: one round of the plans from
scratch, with one seed.

Measured on 2 cores of an Intel Xeon (model 167), Snakemake 9.27, Python 3.11, 5 rounds:
    dry run, 2,000 runs       best  4.20 s, median  4.22 s
    nothing to do, 48 runs    best  1.38 s, median  1.55 s

On another, shared machine of 2 cores (Python's loop over 20 million additions: 3.6 s), one round:
    dry run, 10,000 runs, Slurm  42.3 s
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).parents[1]
CLUSTER = PROJECT / "docs" / "cluster.md"


def snakemake(*arguments: str) -> tuple[float, str]:
    """Run Snakemake; return its wall time in seconds and its output."""
    command = [sys.executable, "-m", "snakemake", "--cores", "8", "all", *arguments]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=PROJECT, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return time.perf_counter() - started, done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="only see that it runs: one round, one seed")
    arguments = parser.parse_args()
    quick, rounds = arguments.quick, 1 if arguments.quick else arguments.rounds
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder) / "large.yaml"
        large.write_text(f"name: two-thousand-runs\ngrid: {{seeds: {list(range(1 if quick else 125))}}}\n")
        many = Path(folder) / "many.yaml"  # that of docs/cluster.md
        study = re.search(r"```yaml\n(name: many\n.*?)```", CLUSTER.read_text(), re.DOTALL)[1]
        many.write_text(re.sub(r"seeds: \[.*?\]", "seeds: [0]", study, flags=re.DOTALL) if quick else study)
        plans = {
            "dry run, 2,000 runs": ["--dry-run", "--quiet", "--configfile", str(large)],
            "dry run, 10,000 runs, Slurm": [
                "--dry-run",
                "--workflow-profile",
                "profiles/slurm",
                "--configfile",
                str(many),
            ],
        }
        if not quick and "Nothing to be done" in snakemake("--dry-run")[1]:
            plans["nothing to do, 48 runs"] = []
        times: dict[str, list[float]] = {name: [] for name in plans}
        for _ in range(rounds):
            for name, arguments in plans.items():
                times[name].append(snakemake(*arguments)[0])
    for name, values in times.items():
        print(f"{name:27s} best {min(values):5.2f} s, median {statistics.median(values):5.2f} s")


if __name__ == "__main__":
    main()
