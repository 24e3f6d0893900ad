"""How planning grows with the number of runs, and what a hundred thousand runs mean for files and Slurm.

    python benchmarks/scale.py                         # 200, 2,000 and 10,000 runs: about two minutes
    python benchmarks/scale.py --runs 10000 100000     # several minutes
    python benchmarks/scale.py --figures docs/images   # also draws cost-planning.png
    python benchmarks/scale.py --study config/config.yaml   # also a plan with nothing to do, and the files of a run
    python benchmarks/scale.py --quick                 # 200 runs, to see that it works

It plans the study of docs/cluster.md with more or fewer seeds as a dry run on a cluster, with one and with ten seeds
per job (resources.seeds_per_job), and reports its time and memory. The slope is that of the logarithm of the CPU time
over the logarithm of the number of runs: 1 means proportional. The files of a run and their bytes are those of a
finished study, `--study`, times the largest number of runs. The queue of that number is simulated: Snakemake submits
one job after the other, each of which takes `--submit` seconds, with at most `--jobs` at a time, and sees that jobs
have ended when it asks, every `--poll` seconds. The cluster starts each job at once. A run takes `--run` seconds, and a
job `--start` more. `busy` is the share of the places for jobs in which runs train.

Measured on 2 cores of a shared Intel Xeon of which it got a tenth, Snakemake 9.27, Python 3.11: only the CPU time is of
use.
      200 runs,  1 seeds per job:     302 jobs;    5.5 s CPU, 0.2 GB
      200 runs, 10 seeds per job:     296 jobs;    5.3 s CPU, 0.2 GB
    2,000 runs,  1 seeds per job:   2,102 jobs;   14.6 s CPU, 0.2 GB
    2,000 runs, 10 seeds per job:     296 jobs;    7.4 s CPU, 0.2 GB
   10,000 runs,  1 seeds per job:  10,102 jobs;   52.0 s CPU, 0.5 GB
   10,000 runs, 10 seeds per job:   1,096 jobs;   19.4 s CPU, 0.5 GB
    1 seeds per job: the CPU time has slope 0.56
    10 seeds per job: the CPU time has slope 0.32
    queue, 1 seeds per job: 10,000 submissions, 2.1 h, busy 0.79
    queue, 10 seeds per job: 1,000 submissions, 1.7 h, busy 0.97
On 2 cores of a shared AMD EPYC, 10,000 runs took 32 and 13 s of CPU, and 100,000 with ten seeds per job 153 s and 1.4
GB; their queue takes 20.9 h with one seed per job (busy 0.80) and 17.1 h with ten (0.97).
With `--jobs 1000` the queue of 100,000 runs takes 5.6 h (busy 0.30) and 1.8 h (busy 0.93): Snakemake submits at most 5
jobs a second.
"""

import argparse
import heapq
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from batchscape.study.study import Study

PROJECT = Path(__file__).parents[1]
CLUSTER = PROJECT / "docs" / "cluster.md"
# Settings of the study.
NUM_SETTINGS = 200
SEEDS_PER_JOB = (1, 10)


def write_study(file: Path, num_seeds: int, seeds_per_job: int) -> None:
    """Write the study of docs/cluster.md with other seeds."""
    study = re.search(r"```yaml\n(name: many\n.*?)```", CLUSTER.read_text(), re.DOTALL)[1]
    seeds = f"seeds: {list(range(num_seeds))}"
    resources = f"resources: {{seeds_per_job: {seeds_per_job}}}\n"
    file.write_text(re.sub(r"seeds: \[.*?\]", seeds, study, flags=re.DOTALL) + resources)


def plan(options: list[str]) -> tuple[float, float, float, int]:
    """Return wall and CPU seconds and the memory in GB of a dry run, and the number of its jobs."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "rules", "host", "reason", "all", *options]
    # Of the children that ended, the system adds up the times, but keeps the largest memory.
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=PROJECT, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    jobs = re.search(r"^total +(\d+)$", done.stdout, re.MULTILINE)
    return wall, cpu, after.ru_maxrss / 1e6, int(jobs[1]) if jobs else 0


def files_per_run(results: Path) -> tuple[float, float]:
    """Return the median number of files of a run and their bytes: its folder, logs, and what Snakemake stores."""
    counts, sizes = [], []
    metadata = [path.stat().st_size for path in (results.parents[1] / ".snakemake" / "metadata").glob("*")]
    for run in (results / "runs").iterdir():
        files = [path for path in run.rglob("*") if path.is_file()]
        files += (results / "logs" / "train").glob(f"{run.name}.*")
        # One for each output, of which a run has two.
        counts.append(len(files) + 2)
        sizes.append(sum(path.stat().st_size for path in files) + 2 * statistics.median(metadata))
    return statistics.median(counts), statistics.median(sizes)


def simulate(num_jobs: int, seconds: float, limit: int, submit: float, poll: float) -> float:
    """Return the seconds until all jobs have ended and Snakemake has seen it.

    Args:
        num_jobs: Number of jobs.
        seconds: How long each of them takes.
        limit: How many are submitted at a time.
        submit: Seconds of a submission.
        poll: Seconds between two questions for jobs that have ended.
    """
    now, next_poll, submitted, active, ends = 0.0, poll, 0, 0, list[float]()
    while submitted < num_jobs or active:
        if submitted < num_jobs and active < limit:
            now += submit
            submitted, active = submitted + 1, active + 1
            heapq.heappush(ends, now + seconds)
        else:
            now = max(now, next_poll)
        if now >= next_poll:
            while ends and ends[0] <= now:
                heapq.heappop(ends)
                active -= 1
            next_poll = now + poll
    return now


def fit_slope(rows: pd.DataFrame) -> float:
    """Return the slope of log(CPU seconds) over log(runs)."""
    return float(np.polyfit(np.log(rows["runs"]), np.log(rows["cpu_seconds"]), 1)[0])


def draw(table: pd.DataFrame) -> Any:
    """Return a figure of the CPU time by the number of runs, with a line for each number of seeds per job."""
    from plotnine import aes, geom_line, geom_point, ggplot, labs, scale_x_log10, scale_y_log10, theme_bw

    labels = {
        seeds: f"{seeds} (slope {fit_slope(rows):.2f})" for seeds, rows in table.groupby("seeds_per_job", sort=False)
    }
    named = table.assign(label=pd.Categorical(table["seeds_per_job"].map(labels), list(labels.values())))
    return (
        ggplot(named, aes("runs", "cpu_seconds", color="label"))
        + geom_line()
        + geom_point()
        + scale_x_log10(labels=lambda values: [f"{value:,.0f}" for value in values])
        + scale_y_log10()
        + labs(x="Runs", y="CPU time of a plan, s", color="Seeds per job")
        + theme_bw(base_size=10)
    )


def describe_queue(num_runs: int, seeds_per_job: int, options: argparse.Namespace) -> str:
    """Return a line about the simulated queue of a study."""
    num_jobs = NUM_SETTINGS * -(-num_runs // NUM_SETTINGS // seeds_per_job)
    job = options.start + num_runs / num_jobs * options.run
    seconds = simulate(num_jobs, job, options.jobs, options.submit, options.poll)
    busy = num_runs * options.run / (seconds * options.jobs)
    return f"queue, {seeds_per_job} seeds per job: {num_jobs:,} submissions, {seconds / 3600:.1f} h, busy {busy:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[200, 2000, 10_000], help=f"multiples of {NUM_SETTINGS}")
    parser.add_argument("--study", type=Path, help="the file of a finished study")
    parser.add_argument("--figures", type=Path, help="folder for cost-planning.png")
    parser.add_argument("--jobs", type=int, default=100, help="submitted at a time, as in profiles/slurm")
    parser.add_argument("--submit", type=float, default=0.2, help="seconds of a submission")
    parser.add_argument("--poll", type=float, default=15.0, help="seconds between two polls, as in profiles/slurm")
    parser.add_argument("--run", type=float, default=60.0, help="seconds of a run")
    parser.add_argument("--start", type=float, default=10.0, help="seconds that a job takes to start")
    parser.add_argument("--quick", action="store_true", help="only show that it works: 200 runs")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for num_runs in [NUM_SETTINGS] if arguments.quick else arguments.runs:
            for seeds_per_job in SEEDS_PER_JOB:
                file = Path(folder) / "many.yaml"
                write_study(file, num_runs // NUM_SETTINGS, seeds_per_job)
                wall, cpu, memory, num_jobs = plan(["--workflow-profile", "profiles/slurm", "--configfile", str(file)])
                rows.append({"runs": num_runs, "seeds_per_job": seeds_per_job, "cpu_seconds": cpu})
                print(
                    f"{num_runs:9,} runs, {seeds_per_job:2d} seeds per job: {num_jobs:7,} jobs; {wall:6.1f} s, "
                    f"{cpu:6.1f} s CPU, {memory:.1f} GB",
                    flush=True,
                )
    table = pd.DataFrame(rows)
    for seeds_per_job, group in table.groupby("seeds_per_job", sort=False):
        if len(group) > 1:
            print(f"{seeds_per_job} seeds per job: the CPU time has slope {fit_slope(group):.2f}")
    if arguments.figures:
        draw(table).save(arguments.figures / "cost-planning.png", width=5.5, height=3, dpi=150, verbose=False)
    if arguments.study:
        wall, cpu, memory, num_jobs = plan(["--configfile", str(arguments.study.resolve())])
        print(f"{arguments.study}: {num_jobs} jobs; {wall:.1f} s, {cpu:.1f} s CPU, {memory:.1f} GB")
        num_runs = table["runs"].max()
        count, size = files_per_run(PROJECT / Study.from_file(arguments.study).paths.folder)
        print(
            f"files: {count:.0f} and {size / 1e3:.0f} kB for each run; of {num_runs:,} runs {count * num_runs:,.0f} "
            f"and {size * num_runs / 1e9:.1f} GB"
        )
    for seeds_per_job in SEEDS_PER_JOB:
        print(describe_queue(int(table["runs"].max()), seeds_per_job, arguments))


if __name__ == "__main__":
    main()
