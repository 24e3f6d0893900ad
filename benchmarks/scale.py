"""What a study of a hundred thousand runs means for Snakemake, the file system and Slurm.

    python benchmarks/scale.py --results results/digits --seeds-per-job 10

It plans the study of docs/cluster.md with more seeds, as a dry run on a cluster, and reports its time and memory. The
files of a run and their bytes are those of a finished study, `--results`, times the number of runs. The queue is
simulated: Snakemake submits one job after the other, each of which takes `--submit` seconds, with at most `--jobs` at a
time, and sees that jobs have ended when it asks, every `--poll` seconds. The cluster starts each job at once. A run
takes `--run` seconds, and a job `--start` more. `busy` is the share of the places for jobs in which runs train.
`--quick` only shows that it works: with one seed.

Measured on 2 cores under a load of 20, Snakemake 9.27, Python 3.11; the files are those of the smoke study. Of the
plan only the CPU time is of use, since it got a seventh of a core:
    plan of 100,000 runs: 1039 s, 153 s CPU, 1.4 GB; 10,096 jobs,
        of which train: 10,000
    files: 14 and 29 kB for each run, together 1,400,000 and 2.9 GB
    queue, 1 seeds per job: 100,000 submissions, 20.9 h, busy 0.80
    queue, 10 seeds per job: 10,000 submissions, 17.1 h, busy 0.97
With `--jobs 1000` the queue takes 5.6 h (busy 0.30) and 1.8 h (busy 0.93): Snakemake submits at most 5 jobs a second.
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

PROJECT = Path(__file__).parents[1]
CLUSTER = PROJECT / "docs" / "cluster.md"
# Settings of the study.
NUM_SETTINGS = 200


def write_study(file: Path, num_seeds: int, seeds_per_job: int) -> None:
    """Write the study of docs/cluster.md with other seeds."""
    study = re.search(r"```yaml\n(name: many\n.*?)```", CLUSTER.read_text(), re.DOTALL)[1]
    seeds = f"seeds: {list(range(num_seeds))}"
    resources = f"resources: {{seeds_per_job: {seeds_per_job}}}\n"
    file.write_text(re.sub(r"seeds: \[.*?\]", seeds, study, flags=re.DOTALL) + resources)


def plan(file: Path) -> tuple[float, float, float, dict[str, int]]:
    """Return wall and CPU seconds and the memory in GB of a dry run, and its jobs by rule."""
    options = ["--dry-run", "--quiet", "rules", "host", "reason", "--workflow-profile", "profiles/slurm"]
    command = [sys.executable, "-m", "snakemake", *options, "all", "--configfile", str(file)]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=PROJECT, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wall, used = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    jobs = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", done.stdout, re.MULTILINE)}
    return wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e6, jobs


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="the folder of a finished study")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seeds-per-job", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=100, help="submitted at a time, as in profiles/slurm")
    parser.add_argument("--submit", type=float, default=0.2, help="seconds of a submission")
    parser.add_argument("--poll", type=float, default=15.0, help="seconds between two polls, as in profiles/slurm")
    parser.add_argument("--run", type=float, default=60.0, help="seconds of a run")
    parser.add_argument("--start", type=float, default=10.0, help="seconds that a job takes to start")
    parser.add_argument("--quick", action="store_true", help="only show that it works: one seed")
    arguments = parser.parse_args()
    num_seeds = 1 if arguments.quick else -(-arguments.runs // NUM_SETTINGS)
    num_runs, together = num_seeds * NUM_SETTINGS, min(num_seeds, arguments.seeds_per_job)
    with tempfile.TemporaryDirectory() as folder:
        write_study(Path(folder) / "many.yaml", num_seeds, arguments.seeds_per_job)
        wall, cpu, memory, jobs = plan(Path(folder) / "many.yaml")
    trainings = sum(count for rule, count in jobs.items() if rule.startswith("train"))
    print(f"plan of {num_runs:,} runs: {wall:.0f} s, {cpu:.0f} s CPU, {memory:.1f} GB; {jobs['total']:,} jobs,")
    print(f"    of which train: {trainings:,}")
    count, size = files_per_run(arguments.results)
    print(f"files: {count:.0f} and {size / 1e3:.0f} kB for each run, together {count * num_runs:,.0f} and", end=" ")
    print(f"{size * num_runs / 1e9:.1f} GB")
    for seeds in sorted({1, together}):
        num_jobs = NUM_SETTINGS * -(-num_seeds // seeds)
        seconds = simulate(
            num_jobs, arguments.start + seeds * arguments.run, arguments.jobs, arguments.submit, arguments.poll
        )
        busy = num_runs * arguments.run / (seconds * arguments.jobs)
        print(f"queue, {seeds} seeds per job: {num_jobs:,} submissions, {seconds / 3600:.1f} h, busy {busy:.2f}")


if __name__ == "__main__":
    main()
