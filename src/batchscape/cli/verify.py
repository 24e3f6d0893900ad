"""`batchscape verify`: probe the user's network, loss, optimizer and data before a study trains."""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from batchscape.cli.cost import read_current_data, weight_each_class
from batchscape.config.loading import printable
from batchscape.config.run import RunSpec
from batchscape.data.inspect import inspect_source
from batchscape.data.prepare import prepare
from batchscape.data.prepared import PreparedData
from batchscape.errors import UserError
from batchscape.study.study import Study
from batchscape.training.verify import FAILS, Finding, Throughput, measure_throughput, verify


def verify_study(file: Path) -> Iterator[str]:
    """Yield lines for the terminal on what holds, as the probes end. Nothing is written to the study's results.

    Args:
        file: The study file.

    Raises:
        UserError: The study file or its data is invalid, or, at the end, something that a study needs does not hold.
    """
    study = Study.from_file(file)
    study.require_files(printable(file))
    with TemporaryDirectory(prefix="batchscape-verify-") as folder:
        try:
            data = _read_data(study, Path(folder))
        except UserError as error:
            raise UserError(f"{printable(file)}: {error}") from None
        spec = _smallest_run(study, data)
        yield (
            f"{printable(file)}: batch size {spec.batch_size}, learning rate {spec.learning_rate:g}; "
            f"{len(data.train):,} training examples"
        )
        largest = max(map(study.max_batch_size, study.runs.values()))
        failed = []
        probes = Path(folder) / "probes"
        probes.mkdir()
        for finding in verify(spec, data, probes, largest, study.names_optimizer):
            yield _describe(finding)
            if finding.status == FAILS and finding.is_required:
                failed.append(finding.name)
        if not failed:
            for size in sorted(study.grid.batch_sizes):
                timed = Path(folder) / f"bs{size}"
                timed.mkdir()
                run = spec.model_copy(update={"batch_size": size})
                yield _describe_throughput(measure_throughput(run, data, timed))
    if failed:
        raise UserError(f"{printable(file)}: does not hold: {', '.join(failed)}")


def _read_data(study: Study, folder: Path) -> PreparedData:
    """Return the prepared data of the study, prepared in a temporary folder if it is not there or not current."""
    data = read_current_data(study, inspect_source(study.data, study.task.name))
    if data is not None:
        return data
    path = folder / "data.safetensors"
    return prepare(study.data, os.cpu_count() or 1, study.task.name, path).data


def _smallest_run(study: Study, data: PreparedData) -> RunSpec:
    return RunSpec(
        batch_size=min(study.grid.batch_sizes),
        learning_rate=study.comparison.fixed_learning_rate,
        seed=study.grid.seeds[0],
        model=study.model,
        task=weight_each_class(study.task, data.spec),
        training=study.training,
        optimizer=study.optimizer,
        schedule=study.schedule,
        averaging=study.averaging,
    )


def _describe(finding: Finding) -> str:
    return f"{finding.status:<13}  {finding.name}: {finding.detail}"


def _describe_throughput(found: Throughput) -> str:
    size = f"batch size {found.batch_size}"
    if not found.micro_batch:
        return f"{'measured':<13}  {size}: does not fit in memory"
    rate, mebibytes = f"{found.examples_per_second:,.0f} examples/s", f"{found.saved_bytes / 2**20:.1f} MiB"
    at_once = f"{found.micro_batch} at once, whose backward pass needs {mebibytes} beside the weights"
    return f"{'measured':<13}  {size}: {rate}; {at_once}"
