"""Where a study's numbers come from: what ran, with what, where and for how long."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import pandas as pd

from batchscape.data.prepare import summarize_manifest
from batchscape.report.numbers import join_truncated
from batchscape.runtime.duration import format_duration

STATUSES = {"converged": "converged", "max_epochs": "stopped by training.max_epochs", "diverged": "diverged"}
PLACE = {
    "processor": "Processor",
    "cpus": "Cores of the machine",
    "devices": "Devices of a run, on each node",
    "threads": "Threads of a run",
    "device": "Trained on",
    "platform": "Platform",
    "python": "Python",
}


def collect_provenance(
    summaries: Sequence[Mapping[str, Any]], runs: pd.DataFrame, manifest: pd.DataFrame
) -> list[tuple[str, str]]:
    """Return names and values, from the `run.json` of every run, the table `runs` and the manifest of the data."""
    data = [("Data", line) for line in summarize_manifest(manifest)]
    return [*data, *_rows(summaries, runs)]


def _rows(summaries: Sequence[Mapping[str, Any]], runs: pd.DataFrame) -> Iterator[tuple[str, str]]:
    statuses = Counter(summary["status"] for summary in summaries)
    ends = [f"{statuses[status]} {name}" for status, name in STATUSES.items() if statuses[status]]
    yield "Runs", f"{len(summaries)}: {', '.join(ends)}"
    yield "Seeds", ", ".join(map(str, sorted({summary["spec"]["seed"] for summary in summaries})))
    yield "Parameters of the network", _distinct([summary["parameters"] for summary in summaries])
    yield "Images to train on", _distinct([summary["training_examples"] for summary in summaries])
    yield "Images to validate on", _distinct([summary["validation_examples"] for summary in summaries])
    yield "Classes", _distinct([join_truncated(summary["classes"], 10) for summary in summaries])
    epochs = runs["epochs"]
    yield "Epochs in all", str(int(epochs.sum()))
    yield "Training, wall time, all runs together", format_duration(float((epochs * runs["epoch_seconds"]).sum()))
    yield "Training, CPU time, all runs together", format_duration(float((epochs * runs["epoch_cpu_seconds"]).sum()))
    times = [summary["provenance"] for summary in summaries]
    first = min(datetime.fromisoformat(time["started"]) for time in times)
    last = max(datetime.fromisoformat(time["finished"]) for time in times)
    yield "First run started", f"{first:%Y-%m-%d %H:%M:%S} UTC"
    yield "Last run finished", f"{last:%Y-%m-%d %H:%M:%S} UTC"
    places = [summary["environment"] for summary in summaries]
    for key, name in PLACE.items():
        yield name, _distinct([place[key] for place in places])
    for package in sorted({package for place in places for package in place["packages"]}):
        yield package, _distinct([place["packages"].get(package) for place in places])
    yield "Commit of the code", _distinct([time["source_commit"] for time in times])
    yield "SHA-256 of the data", _distinct([time["data_sha256"] for time in times])


def _distinct(values: Sequence[Any]) -> str:
    """Return the value that all runs share; of several values each with its number of runs."""
    counts = Counter("unknown" if value is None else str(value) for value in values)
    if len(counts) == 1:
        return next(iter(counts))
    return join_truncated([f"{value} ({count} runs)" for value, count in counts.most_common()], 6)
