"""How long Snakemake plans: dry runs of 2,000 and 10,000 runs, and a finished study with nothing to do.

    python benchmarks/workflow.py

The last one needs a finished default study (`make study`), and is skipped without it. It reports the wall time of the
complete command, best and median of `--rounds`. `--quick` only shows that the script works: one round of dry runs, with
one seed.

Measured on 2 cores of an Intel Xeon (model 167), Snakemake 9.27, Python 3.11, 5 rounds:
    dry run, 2,000 runs       best  4.20 s, median  4.22 s
    nothing to do, 48 runs    best  1.38 s, median  1.55 s

On another, shared machine of 2 cores (a Python loop of 20 million additions: 3.6 s), one round:
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
    parser.add_argument("--quick", action="store_true", help="only show that it works: one round, one seed")
    arguments = parser.parse_args()
    quick, rounds = arguments.quick, 1 if arguments.quick else arguments.rounds
    with tempfile.TemporaryDirectory() as folder:
        from_scratch = Path(folder) / "large.yaml"
        from_scratch.write_text(f"name: two-thousand-runs\ngrid: {{seeds: {list(range(1 if quick else 125))}}}\n")
        many = Path(folder) / "many.yaml"  # the example of docs/cluster.md
        study = re.search(r"```yaml\n(name: many\n.*?)```", CLUSTER.read_text(), re.DOTALL)[1]
        many.write_text(re.sub(r"seeds: \[.*?\]", "seeds: [0]", study, flags=re.DOTALL) if quick else study)
        plans = {
            "dry run, 2,000 runs": ["--dry-run", "--quiet", "--configfile", str(from_scratch)],
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
