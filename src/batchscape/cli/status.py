"""`batchscape status`: the state of each run and job of a study. It only reads files.

Jobs record their states in `batchscape.runtime.states`; their outputs and locks tell the rest.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from batchscape.config.run import RunSpec, Tuned, with_hyperparameters
from batchscape.config.stages import MeasuredStages
from batchscape.errors import UserError
from batchscape.io.files import read_json
from batchscape.io.finalists import read_finalists
from batchscape.io.run_directory import RunDirectory
from batchscape.runtime import states
from batchscape.runtime.duration import format_duration
from batchscape.runtime.lock import is_running
from batchscape.runtime.states import read_states
from batchscape.study.study import Study

DONE, RUNNING, INTERRUPTED, FAILED, PENDING = "done", "running", "interrupted", "failed", "pending"
# How Snakemake reports a job that was killed, which cannot record this itself.
KILLED = re.compile(r"died with <Signals\.SIGKILL|returned non-zero exit status 137\b")
NOT_CREATED = "not created yet"
OTHER_SETTINGS = "was trained with other settings than the study has now"
REPEAT_SEARCH = "delete it so that the search writes it again"
REPEAT_MEASUREMENT = "delete it so that its job writes it again"

States = Sequence[dict[str, Any]]
"""The states of the latest attempt of a job, as `read_states` returns them."""


@dataclass(frozen=True)
class JobStatus:
    """The status of a run or of another job."""

    name: str
    state: str
    detail: str = ""
    seconds: float | None = None
    """Training time of a run that is done."""
    last: dict[str, Any] = field(default_factory=dict, compare=False)
    """The last state that the job recorded."""

    def as_json(self, kind: str) -> str:
        """Return the status as one line of JSON; `kind` is `run` or `job`."""
        status = {"kind": kind, "name": self.name, "state": self.state, "detail": self.detail, "seconds": self.seconds}
        return json.dumps({**status, "last": self.last or None}, ensure_ascii=False)


def determine_status(name: str, recorded: States, running: bool) -> JobStatus:
    """Return the status of a job without outputs, from its recorded states and whether it is running now."""
    if not recorded:
        return JobStatus(name, RUNNING, "no epoch yet") if running else JobStatus(name, PENDING)
    last = recorded[-1]
    if running:
        return JobStatus(name, RUNNING, _progress(recorded), last=last)
    if any(each["state"] == states.STOPPED for each in recorded):
        return JobStatus(name, INTERRUPTED, _progress(recorded), last=last)
    if message := failure_message(recorded):
        return JobStatus(name, FAILED, message, last=last)
    if last["state"] == states.COMPLETE:  # its output was deleted
        return JobStatus(name, PENDING, last=last)
    return JobStatus(name, INTERRUPTED, _progress(recorded), last=last)


def _progress(recorded: States) -> str:
    """Describe the progress of a training, by its last epoch or else by its last state."""
    for each in reversed(recorded):
        match each["state"]:
            case states.EVALUATED:
                train_loss, validation_loss = (_loss(each.get(key)) for key in ("train_loss", "validation_loss"))
                return (
                    f"epoch {each.get('epoch', 0):.6g}, training loss {train_loss}, validation loss {validation_loss}"
                )
            case states.RESUMED if "step" in each:
                return f"resuming after step {each['step']}"
            case states.WAITING_FOR_GPUS:
                return "waiting for a free GPU"
            case states.ACQUIRED_GPUS:
                break
    return "no epoch yet"


def _loss(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.6g}"


def failure_message(recorded: States) -> str:
    """Return the message of an attempt that failed; empty if it did not."""
    return str(recorded[-1].get("message")) if recorded and recorded[-1]["state"] == states.FAILED else ""


def describe_study(study: Study) -> list[str]:
    """Return lines for the terminal."""
    return [*format_status(study.name, read_runs(study)), *format_other_jobs(study, read_other_jobs(study))]


def status_as_json(study: Study) -> list[str]:
    """Return one JSON object per line: for each job that is no training, and for each run."""
    statuses = [("job", job) for job in read_other_jobs(study)] + [("run", run) for run in read_runs(study)]
    return [status.as_json(kind) for kind, status in statuses]


def read_runs(study: Study) -> list[JobStatus]:
    """Return the status of each run of a study in the working directory, and of each run of its confirmation.

    The names of the latter begin with `confirmation/`.
    """
    files = {name: (study.paths.run_file(name, "run.json"), f"train/{name}") for name in study.runs}
    files |= {
        f"confirmation/{name}": (study.paths.confirmation_file(name, "run.json"), f"confirm/{name}")
        for name in study.confirmation_runs
    }
    specs = find_specs(study)
    runs = []
    for name, (run_file, job) in files.items():
        run, log = RunDirectory(Path(run_file).parent), Path(study.paths.log(job))
        if not run.is_complete or (not run.run_file.exists() and is_running(log)):
            status = determine_status(name, read_states(log), is_running(log))
            if status.state == PENDING and run.checkpoint_folder.exists():
                status = JobStatus(name, INTERRUPTED, "resumes from its last checkpoint")
            runs.append(status)
            continue
        try:
            summary = run.summary()
            if reason := why_stale(summary, specs[name]):
                runs.append(JobStatus(name, PENDING, reason))
                continue
            # The sum of its epochs, because a run that was killed has started more than once.
            seconds = run.history(["train_seconds", "validation_seconds"]).to_numpy().sum()
            runs.append(JobStatus(name, DONE, summary["status"], float(seconds)))
        except UserError as error:
            runs.append(JobStatus(name, FAILED, str(error)))
    return runs


def find_specs(study: Study) -> dict[str, RunSpec | str]:
    """Return what each run of a study and of its confirmation trains now, or why that is not known yet.

    The names of the latter begin with `confirmation/`.
    """
    first_runs = {run.setting: name for name, run in reversed(study.runs.items())}
    settings = {setting: _find_spec(study, name) for setting, name in first_runs.items()}
    specs = {name: _with_seed(settings[run.setting], run.seed) for name, run in study.runs.items()}
    try:
        ranked = [each.setting for each in read_finalists(Path(study.paths.finalists)).finalists]
    except UserError:
        ranked = []
    for name, (rank, seed) in study.confirmation_runs.items():
        # The settings of earlier finalists may be no settings of the study any more.
        spec = settings.get(ranked[rank - 1]) if rank <= len(ranked) else None
        specs[f"confirmation/{name}"] = _with_seed(spec or "its setting is not chosen yet", seed)
    return specs


def _with_seed(spec: RunSpec | str, seed: int) -> RunSpec | str:
    return spec if isinstance(spec, str) else spec.model_copy(update={"seed": seed})


def _find_spec(study: Study, name: str) -> RunSpec | str:
    """Return what a run trains, or why that is not known yet."""
    values = json.loads(study.specs.run(name))
    try:
        for stages in map(Path, study.paths.batch_stages(name)):
            if not stages.exists():
                return "the branches that its batch size follows from are not complete"
            values |= read_json(stages, MeasuredStages, REPEAT_MEASUREMENT)
        for tuned in map(Path, study.paths.tuned_rate(name)):
            if not tuned.exists():
                return "the search for its learning rate is not complete"
            return with_hyperparameters(values, read_json(tuned, Tuned, REPEAT_SEARCH))
    except UserError as error:
        return str(error)
    return _parse_spec(values)


def why_stale(summary: Mapping[str, Any], spec: RunSpec | str) -> str:
    """Return why a complete run is not the one that the study has now; empty if it is.

    Args:
        summary: The content of its run.json.
        spec: What the run trains now, or why that is not known yet.
    """
    if isinstance(spec, str):
        return spec
    return "" if spec == _parse_spec(summary["spec"]) else OTHER_SETTINGS


def _parse_spec(mapping: Mapping[str, Any]) -> RunSpec:
    return RunSpec.model_validate_json(json.dumps(mapping))


def read_other_jobs(study: Study) -> list[JobStatus]:
    """Return the status of the jobs that prepare the data and check the network, of each search, and of the report."""
    outputs = {"prepare": study.paths.prepared_data, "network": study.paths.network}
    for name, run in study.runs.items():
        outputs |= {f"tune/bs{run.batch_size}": tuned for tuned in study.paths.tuned_rate(name)}
    outputs["report"] = study.paths.report
    return [_job_status(job, Path(output), Path(study.paths.log(job))) for job, output in outputs.items()]


def _job_status(name: str, output: Path, log: Path) -> JobStatus:
    if output.exists():
        return JobStatus(name, DONE)
    status = determine_status(name, read_states(log), is_running(log))
    return status if status.state == FAILED else replace(status, detail="")  # which describes a training


def format_status(name: str, runs: Sequence[JobStatus]) -> list[str]:
    """Return lines for the terminal: how many runs are in which state, the time to go, and each run that has begun."""
    counts = Counter(run.state for run in runs)
    ends = Counter(run.detail for run in runs if run.state == DONE)
    listed = ", ".join(f"{count} {end.replace('_', ' ')}" for end, count in sorted(ends.items()))
    parts = [f"{counts[DONE]} of {len(runs)} runs done" + (f" ({listed})" if listed else "")]
    parts += [f"{counts[state]} {state}" for state in (RUNNING, INTERRUPTED, FAILED, PENDING) if counts[state]]
    if edited := sum(run.detail == OTHER_SETTINGS for run in runs):
        parts.append(f"of which {edited} with results of other settings than the study has now")
    lines = [f"{name}: {', '.join(parts)}"]
    if (remaining := estimate_training_time(runs)) is not None:
        lines.append(
            f"about {format_duration(remaining)} of training to go, at {format_duration(_mean_seconds(runs))} per run "
            f"and {counts[RUNNING]} at a time"
        )
    lines += [f"{run.state} {run.name}: {run.detail}" for run in runs if run.state in (RUNNING, INTERRUPTED, FAILED)]
    if counts[FAILED] or counts[INTERRUPTED]:
        lines.append("if Snakemake is not running, rerun the same command to resume")
    return lines


def estimate_training_time(runs: Sequence[JobStatus]) -> float | None:
    """Return the seconds that the remaining runs take, at the mean time of those done and as many at a time as now.

    None unless at least one run is done and one is running.
    """
    counts = Counter(run.state for run in runs)
    if not (counts[RUNNING] and any(run.seconds is not None for run in runs)):
        return None
    remaining = counts[PENDING] + counts[INTERRUPTED] + counts[FAILED] + counts[RUNNING] / 2
    return _mean_seconds(runs) * remaining / counts[RUNNING]


def _mean_seconds(runs: Sequence[JobStatus]) -> float:
    seconds = [run.seconds for run in runs if run.seconds is not None]
    return sum(seconds) / len(seconds)


def format_other_jobs(study: Study, jobs: Sequence[JobStatus]) -> list[str]:
    """Return lines for the terminal: each failed job before the runs, and the report."""
    lines = [
        f"failed {job.name}: {job.detail}" for job in jobs if job.state == FAILED and job.name in ("prepare", "network")
    ]
    report = Path(study.paths.report)
    if report.exists():
        return [*lines, f"report of {datetime.fromtimestamp(report.stat().st_mtime):%Y-%m-%d %H:%M}: {report}"]
    return [*lines, "no report yet; searches, analyses, tables and figures are not counted here"]


def summarize_failures(snakemake_log: str, logs: str) -> list[str]:
    """Return a line for each failed job: its log and its message. Jobs that Ctrl-C interrupted have not failed.

    Args:
        snakemake_log: What Snakemake printed, which names the logs of failed jobs.
        logs: Folder of the logs of the study.
    """
    lines = {}
    # Of a job that trains several seeds Snakemake lists all logs.
    failed = re.findall(rf"^    log: ({re.escape(logs)}/.+) \(check log", snakemake_log, re.MULTILINE)
    for log in (log for listed in failed for log in listed.split(", ")):
        recorded = read_states(Path(log))
        if message := failure_message(recorded):
            lines[log] = f"{log}: {message}"
        elif KILLED.search(snakemake_log) and not (recorded and recorded[-1]["state"] == states.INTERRUPTED):
            lines[log] = (
                f"{log}: the job was killed, as Linux does when memory runs out; run fewer jobs at once (--cores), or "
                "use smaller batches, smaller examples or a smaller network"
            )
    return list(lines.values())


def count_already_complete(logs: Iterable[str]) -> int:
    """Return how many jobs had nothing to do, because an earlier one had completed their work."""
    ends = [[each["state"] for each in read_states(Path(log))[-2:]] for log in logs]
    return ends.count([states.ALREADY_COMPLETE, states.COMPLETE])


def why_missing(log: Path) -> str:
    """Return why the output of a job with this log does not exist."""
    recorded = read_states(log)
    if is_running(log):
        return "its job is running"
    if not recorded or recorded[-1]["state"] == states.COMPLETE:
        return NOT_CREATED
    return failure_message(recorded) or "its job was interrupted"
