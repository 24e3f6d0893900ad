"""Provenance of a study: what ran, on which data, with which software and hardware, and for how long."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import pandas as pd

from batchscape.data.prepare import summarize_manifest
from batchscape.report.measures import Measures
from batchscape.report.numbers import join_truncated
from batchscape.runtime.duration import format_duration

STATUSES = {
    "converged": "converged",
    "completed": "completed",
    "budget_spent": "stopped by training.budget",
    "diverged": "diverged",
}
ENVIRONMENT = {
    "processor": "Processor",
    "cpus": "CPU cores",
    "devices": "Devices per run, on each node",
    "threads": "Threads per run",
    "device": "Device",
    "platform": "Platform",
    "python": "Python",
}


def collect_provenance(
    summaries: Sequence[Mapping[str, Any]], runs: pd.DataFrame, manifest: pd.DataFrame, measures: Measures
) -> list[tuple[str, str]]:
    """Return the provenance as names and values.

    Args:
        summaries: The contents of `run.json` of every run.
        runs: The table `runs`.
        manifest: The manifest of the data.
        measures: What the examples are called.
    """
    data = [("Data", line) for line in summarize_manifest(manifest)]
    return [*data, *_rows(summaries, runs, measures.examples)]


def _rows(summaries: Sequence[Mapping[str, Any]], runs: pd.DataFrame, examples: str) -> Iterator[tuple[str, str]]:
    statuses = Counter(summary["status"] for summary in summaries)
    counts = [f"{statuses[status]} {name}" for status, name in STATUSES.items() if statuses[status]]
    yield "Runs", f"{len(summaries)}: {', '.join(counts)}"
    yield "Seeds", ", ".join(map(str, sorted({summary["spec"]["seed"] for summary in summaries})))
    yield "Parameters of the network", _distinct([summary["parameters"] for summary in summaries])
    for side in ("training", "validation", "test"):
        sizes = [summary.get(f"{side}_examples") for summary in summaries]
        if any(sizes):
            yield f"{side.capitalize()} {examples}", _distinct(sizes)
    if any(summary["classes"] for summary in summaries):
        yield "Classes", _distinct([join_truncated(summary["classes"], 10) for summary in summaries])
    epochs = runs["epochs"]
    yield "Total epochs", f"{epochs.sum():.10g}"
    yield "Training wall time, sum over runs", format_duration(float((epochs * runs["epoch_seconds"]).sum()))
    yield "Training CPU time, sum over runs", format_duration(float((epochs * runs["epoch_cpu_seconds"]).sum()))
    origins = [summary["provenance"] for summary in summaries]
    first = min(datetime.fromisoformat(origin["started"]) for origin in origins)
    last = max(datetime.fromisoformat(origin["finished"]) for origin in origins)
    yield "First run started", f"{first:%Y-%m-%d %H:%M:%S} UTC"
    yield "Last run finished", f"{last:%Y-%m-%d %H:%M:%S} UTC"
    environments = [summary["environment"] for summary in summaries]
    for key, name in ENVIRONMENT.items():
        yield name, _distinct([environment[key] for environment in environments])
    for package in sorted({package for environment in environments for package in environment["packages"]}):
        yield package, _distinct([environment["packages"].get(package) for environment in environments])
    yield "Commit of the code", _distinct([origin["source_commit"] for origin in origins])
    yield "SHA-256 of the data", _distinct([origin["data_sha256"] for origin in origins])


def _distinct(values: Sequence[Any]) -> str:
    """Return the value that all runs share, or the distinct values with their numbers of runs."""
    counts = Counter("unknown" if value is None else str(value) for value in values)
    if len(counts) == 1:
        return next(iter(counts))
    return join_truncated([f"{value} ({count} runs)" for value, count in counts.most_common()], 6)
