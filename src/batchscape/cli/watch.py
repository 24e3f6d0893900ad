"""`batchscape status --watch`: the progress of a study as bars, until its report exists. It only reads files."""

import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count, pairwise
from pathlib import Path
from typing import TextIO

from batchscape.cli.status import (
    DONE,
    FAILED,
    RUNNING,
    JobStatus,
    States,
    estimate_training_time,
    read_other_jobs,
    read_runs,
)
from batchscape.runtime import states
from batchscape.runtime.duration import format_duration
from batchscape.runtime.lock import is_running
from batchscape.runtime.states import read_states
from batchscape.study.study import Study

# Seconds.
INTERVAL = 5.0
BAR_WIDTH = 20
MAX_RUNNING = 12
CLEAR = "\x1b[H\x1b[J"


@dataclass(frozen=True)
class Progress:
    """How much of something is done."""

    name: str
    done: float
    total: float
    detail: str

    def line(self, width: int) -> str:
        """Return one line with a bar; `width` is that of the name."""
        filled = int(BAR_WIDTH * self.done / self.total) if self.total else BAR_WIDTH
        return f"{self.name:{width}}  {'█' * filled}{'░' * (BAR_WIDTH - filled)}  {self.detail}"


def watch(study: Study, stream: TextIO = sys.stdout, interval: float = INTERVAL) -> None:
    """Write the progress of a study until it is complete, on a terminal in place of what was there."""
    analyses: list[tuple[float, int]] = []
    for number in count():
        if number:
            time.sleep(interval)
        runs, jobs = read_runs(study), read_other_jobs(study)
        done, total, running = count_analyses(study)
        analyses.append((time.monotonic(), done))
        stages = describe_stages(runs, jobs, (done, total, running), time_to_go(analyses, total) if running else None)
        failed = [job for job in (*jobs, *runs) if job.state == FAILED]
        lines = [
            f"{study.name} at {datetime.now():%H:%M:%S}",
            *format_progress([*stages, *describe_running(study, runs, jobs)]),
            *(f"failed {job.name}: {job.detail}" for job in failed),
        ]
        if stream.isatty():
            columns = shutil.get_terminal_size().columns
            lines = [CLEAR + lines[0], *(line[: columns - 1] for line in lines[1:])]
        is_complete = Path(study.paths.report).exists() and all(stage.done == stage.total for stage in stages)
        end = [f"report: {study.paths.report}"] if is_complete else []
        stream.write("\n".join([*lines, *end]) + "\n")
        stream.flush()
        if is_complete:
            return


def describe_stages(
    runs: Sequence[JobStatus], jobs: Sequence[JobStatus], analyses: tuple[int, int, int], analysis_seconds: float | None
) -> list[Progress]:
    """Return the progress of trainings, searches and analyses, in jobs, of those that the study has.

    Args:
        runs: The runs of the study, and of its confirmation.
        jobs: The other jobs, of which the searches count.
        analyses: How many analyses of the loss are done, how many there are, and how many are running.
        analysis_seconds: The time that the other ones take; None if it is unknown.
    """
    searches = [job for job in jobs if job.name.startswith("tune/")]
    stages = []
    for name, group, seconds in (
        ("trainings", runs, estimate_training_time(runs)),
        ("searches", searches, None),
    ):
        counts = Counter(job.state for job in group)
        stages.append(_stage(name, (counts[DONE], len(group), counts[RUNNING]), seconds))
    stages.append(_stage("analyses", analyses, analysis_seconds))
    return [stage for stage in stages if stage.total]


def _stage(name: str, counts: tuple[int, int, int], seconds: float | None) -> Progress:
    done, total, running = counts
    detail = f"{done} of {total} done" + (f", {running} running" if running else "")
    return Progress(name, done, total, detail + _to_go(seconds))


def _to_go(seconds: float | None) -> str:
    return "" if seconds is None else f", about {format_duration(seconds)} to go"


def describe_running(study: Study, runs: Sequence[JobStatus], jobs: Sequence[JobStatus]) -> Iterator[Progress]:
    """Yield the progress of the trainings and searches that run now."""
    running = [job for job in (*jobs, *runs) if job.state == RUNNING]
    for job in running[:MAX_RUNNING]:
        if job.name.startswith("tune/"):
            yield describe_search(job.name, read_states(Path(study.paths.log(job.name))))
        else:
            folder, _, name = job.name.rpartition("/")
            log = study.paths.log(f"{'confirm' if folder else 'train'}/{name}")
            yield describe_training(job.name, read_states(Path(log)))


def describe_training(name: str, recorded: States) -> Progress:
    """Return the progress of a training that runs, from the states of its latest attempt.

    Its speed is that of the steps of this attempt alone: those of earlier attempts took no time of it.
    """
    evaluated = [each for each in recorded if each["state"] == states.EVALUATED and each.get("steps")]
    if not evaluated:
        return Progress(name, 0, 1, "not evaluated yet")
    first, last = evaluated[0], evaluated[-1]
    seconds = None
    if last["step"] > first["step"]:
        seconds = (last["time"] - first["time"]) / (last["step"] - first["step"]) * (last["steps"] - last["step"])
    limit = "" if seconds is None else f", at most {format_duration(seconds)} to go"
    return Progress(name, last["step"], last["steps"], f"step {last['step']} of at most {last['steps']}{limit}")


def describe_search(name: str, recorded: States) -> Progress:
    """Return the progress of a search that runs, from the states of its latest attempt."""
    trials = [each for each in recorded if each["state"] == states.TRIAL]
    is_resumed = any(each["state"] == states.RESUMED for each in recorded)
    if is_resumed or (recorded and recorded[0]["state"] != states.STARTED):
        # What the earlier trials cost is not in these states.
        parts = ["resumed"] * is_resumed + [f"{trials[-1]['trial']} trials"] * bool(trials)
        return Progress(name, 0, 1, ", ".join(parts) or "no trial yet")
    if not trials:
        return Progress(name, 0, 1, "no trial yet")
    spent, budget = sum(each["trainings"] for each in trials), trials[-1]["budget"]
    seconds = (trials[-1]["time"] - recorded[0]["time"]) / spent * (budget - spent) if 0 < spent < budget else 0
    detail = f"{len(trials)} trials, {spent:.1f} of {budget:.1f} trainings{_to_go(seconds)}"
    return Progress(name, min(spent, budget), budget, detail)


def count_analyses(study: Study) -> tuple[int, int, int]:
    """Return how many analyses of runs exist, how many the study has, and how many are running."""
    files = {
        part: study.paths.analysis_log(name, part.removeprefix(f"{study.paths.folder}/").removesuffix(".csv"))
        for name in study.plan.analyses
        if name != "tuning"  # the searches
        for part in study.paths.partial_outputs(name) or [study.paths.rows(name)]
    }
    exist = {part for part in files if Path(part).exists()}
    running = sum(is_running(Path(log)) for part, log in files.items() if part not in exist)
    return len(exist), len(files), running


def time_to_go(samples: Sequence[tuple[float, int]], total: int) -> float | None:
    """Return the seconds until all is done, at the speed since the first change; None before the second one.

    What was done before the samples began, such as before a study was resumed, does not count.

    Args:
        samples: Time in seconds, and how much was done then.
        total: How much there is to do.
    """
    changes = [now for before, now in pairwise(samples) if now[1] > before[1]]
    if len(changes) < 2:
        return None
    (start, first), (_, last), (end, _) = changes[0], changes[-1], samples[-1]
    return (end - start) / (last - first) * (total - last)


def format_progress(progress: Sequence[Progress]) -> list[str]:
    """Return lines with bars below each other."""
    width = max(len(each.name) for each in progress)
    return [each.line(width) for each in progress]
