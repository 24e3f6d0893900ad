"""Where a study stands, from what its runs have written: a look from another terminal that disturbs nothing."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from batchscape.errors import UserError
from batchscape.io.run_directory import RunDirectory
from batchscape.runtime.duration import format_duration
from batchscape.runtime.lock import is_running
from batchscape.study.study import Study

DONE, RUNNING, INTERRUPTED, FAILED, PENDING = "done", "running", "interrupted", "failed", "pending"
# What a job that fails prints last: the line for the user, or that of a traceback; a warning is neither.
# Lines of logging begin with a time, in which no space is behind the first colon.
FAILURE = re.compile(r"^(?!.*Warning)[^\s:][^:]*: ")
# And one that stops for a time limit.
STOPPED = re.compile(r": saved a checkpoint after epoch \d+ and stopped: ")
# How Snakemake reports a job that was killed, which can print nothing itself.
KILLED = re.compile(r"died with <Signals\.SIGKILL|returned non-zero exit status 137\b")
ENDED = re.compile(r"(converged|diverged|max_epochs) after \d+ epochs; best epoch")
# The last line of a job that has done its work.
TOOK = re.compile(r"^took \S+ s, of CPU ")
NOT_MADE = "not made yet"
GOING_ON = re.compile(r"resuming after epoch (?P<epoch>\d+)")
ALREADY = re.compile(r" already complete$", re.MULTILINE)
EPOCH = re.compile(r"epoch (?P<epoch>\d+): training loss (?P<train>\S+), validation loss (?P<validation>\S+),")


@dataclass(frozen=True)
class RunStatus:
    """What is known of one run."""

    name: str
    state: str
    detail: str = ""
    seconds: float | None = None
    """What training took in all, of one that is done."""


def status_of(name: str, log: str | None, at_work: bool) -> RunStatus:
    """Return what became of a run that is not whole: `log` is what its job has printed, None if there is none.

    `at_work` says whether that job is still there.
    """
    if log is None:
        return RunStatus(name, PENDING)
    lines = log.strip().splitlines()
    epochs = [match for line in lines if (match := EPOCH.search(line))]
    going_on = next((match for line in lines if (match := GOING_ON.search(line))), None)
    detail = f"goes on after epoch {going_on['epoch']}" if going_on else "no epoch yet"
    if epochs:
        last = epochs[-1]
        detail = f"epoch {last['epoch']}, training loss {last['train']}, validation loss {last['validation']}"
    if at_work:
        return RunStatus(name, RUNNING, detail)
    if lines and STOPPED.search(lines[-1]):
        return RunStatus(name, INTERRUPTED, detail)
    if failed := failure(log):
        return RunStatus(name, FAILED, failed)
    if any(map(ENDED.search, lines)):  # it was whole, and was deleted
        return RunStatus(name, PENDING)
    return RunStatus(name, INTERRUPTED, detail)


def read_status(study: Study) -> list[RunStatus]:
    """Look at the files of each run of a study, in the folder in which the workflow runs."""
    found = []
    for name in study.runs:
        run_file, log = Path(study.run_file(name, "run.json")), Path(study.log(f"train/{name}"))
        if not run_file.exists():
            status = status_of(name, _text(log), is_running(log))
            if status.state == PENDING and RunDirectory(run_file.parent).checkpoint_folder.exists():
                status = RunStatus(name, INTERRUPTED, "resumes from its last state")
            found.append(status)
            continue
        run = RunDirectory(run_file.parent)
        try:
            # Of its epochs, not from its start to its end: one that was killed has started again.
            seconds = run.history(["train_seconds", "validation_seconds"]).to_numpy().sum()
            found.append(RunStatus(name, DONE, run.summary()["status"], float(seconds)))
        except UserError as error:
            found.append(RunStatus(name, FAILED, str(error)))
    return found


def read_other_jobs(study: Study) -> list[str]:
    """Look at what comes before the runs and after them: a line for a job that failed, and one for the report."""
    lines = []
    for job, output in (("prepare", study.prepared_data), ("network", study.network_file)):
        log = Path(study.log(job))
        failed = failure(_text(log) or "")
        if failed and not Path(output).exists() and not is_running(log):
            lines.append(f"failed {job}: {failed}")
    report = Path(study.report)
    if report.exists():
        return [*lines, f"report of {datetime.fromtimestamp(report.stat().st_mtime):%Y-%m-%d %H:%M}: {report}"]
    return [*lines, "no report yet; searches, analyses, tables and figures are not counted here"]


def failures(snakemake_log: str, logs: str) -> list[str]:
    """Return a line for each job that failed, as what Snakemake printed says: its log, and what that says last.

    `logs` is the folder of the study's logs. A job that Ctrl-C ended has not failed.
    """
    lines = {}
    for log in re.findall(rf"^    log: ({re.escape(logs)}/\S+) \(check log", snakemake_log, re.MULTILINE):
        text = _text(Path(log)) or ""
        if failed := failure(text):
            lines[log] = f"{log}: {failed}"
        elif KILLED.search(snakemake_log) and not text.rstrip().endswith("KeyboardInterrupt"):
            lines[log] = (
                f"{log}: the job was killed, as Linux does when memory runs out; run fewer jobs at once (--cores), or "
                "use smaller batches, smaller images or a smaller network"
            )
    return list(lines.values())


def already_complete(logs: Iterable[str]) -> int:
    """Return how many jobs, as their logs say, found that an earlier one had done all of their work."""
    return sum(1 for log in logs if ALREADY.search(_text(Path(log)) or ""))


def failure(log: str) -> str:
    """Return the line of a job's log that says why the job failed; empty if no line does."""
    lines = log.strip().splitlines() or [""]
    if FAILURE.match(lines[-1]):
        return lines[-1]
    if TOOK.match(lines[-1]):
        return ""
    # The message of an exception can have several lines, or none at all as that of a MemoryError.
    _, found, traceback = log.rpartition("Traceback (most recent call last):\n")
    error = next((line for line in traceback.splitlines() if not line.startswith(" ")), "") if found else ""
    return "" if error.startswith("KeyboardInterrupt") else error


def why_missing(log: Path) -> str:
    """Return why the output of a job with this log is not there."""
    text = _text(log)
    if is_running(log):
        return "its job is running"
    if text is None:
        return NOT_MADE
    if failed := failure(text):
        return failed
    return NOT_MADE if TOOK.match(text.strip().rpartition("\n")[2]) else "its job was interrupted"


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def format_status(name: str, runs: Sequence[RunStatus]) -> list[str]:
    """Return lines for the terminal: how many runs are where, how long the rest takes, and each that is on its way."""
    counts = Counter(run.state for run in runs)
    ends = Counter(run.detail for run in runs if run.state == DONE)
    told = ", ".join(f"{count} {end.replace('_', ' ')}" for end, count in sorted(ends.items()))
    parts = [f"{counts[DONE]} of {len(runs)} runs done" + (f" ({told})" if told else "")]
    parts += [f"{counts[state]} {state}" for state in (RUNNING, INTERRUPTED, FAILED, PENDING) if counts[state]]
    lines = [f"{name}: {', '.join(parts)}"]
    seconds = [run.seconds for run in runs if run.seconds is not None]
    rest = len(runs) - counts[DONE]
    if seconds and rest and counts[RUNNING]:
        mean = sum(seconds) / len(seconds)
        ahead = counts[PENDING] + counts[INTERRUPTED] + counts[FAILED] + counts[RUNNING] / 2
        remaining = format_duration(mean * ahead / counts[RUNNING])
        lines.append(
            f"about {remaining} of training to go, at {format_duration(mean)} a run and {counts[RUNNING]} at a time"
        )
    lines += [f"{run.state} {run.name}: {run.detail}" for run in runs if run.state in (RUNNING, INTERRUPTED, FAILED)]
    if counts[FAILED] or counts[INTERRUPTED]:
        lines.append("if no Snakemake is at work here, the same command goes on from here")
    return lines
