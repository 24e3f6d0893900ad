"""Where the time of a study goes: what its jobs compute, what they take to start, and what Snakemake leaves idle.

    python benchmarks/study.py                            # the default study, in a copy of the project
    python benchmarks/study.py --config config/smoke.yaml --cores 2

Each job's log ends with its wall time: that of its work, and before it that of Python and the libraries to start. By
rule these are summed up over all jobs. `busy` is their sum over cores × the wall time of the study. `overhead` is that
wall time over the time of the work alone, spread evenly over the cores: 1 would be a study of which all jobs start at
once and no core ever waits. A job that uses several cores, as the timing of devices does, counts as one.

Measured: see the end of this text.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from batchscape.study import Study

PROJECT = Path(__file__).parents[1]
PARTS = ("Snakefile", "workflow", "src", "config", "envs", "profiles", "pyproject.toml")
TOOK = re.compile(r"^took ([\d.]+) s, after ([\d.]+) s to start$")


def times_by_rule(logs: Path) -> dict[str, list[tuple[float, float]]]:
    """Return what each job worked, and took to start, in seconds, by the folder or file that its log stands in."""
    times = defaultdict(list)
    for log in logs.rglob("*.log"):
        found = TOOK.match(log.read_text().splitlines()[-1])
        rule = log.relative_to(logs).parts[0].removesuffix(".log")
        times[rule].append((float(found[1]), float(found[2])))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=PROJECT / "config" / "config.yaml")
    parser.add_argument("--cores", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for part in PARTS:
            copy = shutil.copytree if (PROJECT / part).is_dir() else shutil.copy
            copy(PROJECT / part, Path(folder) / part)
        shutil.copy(arguments.config, Path(folder) / "study.yaml")
        command = ["snakemake", "--cores", str(arguments.cores), "all", "--configfile", "study.yaml", "--quiet", "all"]
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", *command], cwd=folder, check=True)
        wall = time.perf_counter() - started
        times = times_by_rule(Path(folder) / Study.from_file(arguments.config).folder / "logs")

    print(f"{'rule':20s} {'jobs':>5s} {'work, s':>9s} {'to start, s':>12s}")
    for rule, jobs in sorted(times.items(), key=lambda item: -sum(map(sum, item[1]))):
        work, start = map(sum, zip(*jobs, strict=True))
        print(f"{rule:20s} {len(jobs):5d} {work:9.1f} {start:12.1f}")
    work, start = map(sum, zip(*(job for jobs in times.values() for job in jobs), strict=True))
    print(f"{'all':20s} {sum(map(len, times.values())):5d} {work:9.1f} {start:12.1f}")
    print(
        f"study {wall:.1f} s on {arguments.cores} cores: busy {(work + start) / arguments.cores / wall:.2f}, ", end=""
    )
    print(f"overhead {arguments.cores * wall / work:.2f}")


if __name__ == "__main__":
    main()
