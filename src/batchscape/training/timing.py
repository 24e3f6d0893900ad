"""How long an epoch of training takes on several numbers of devices."""

import logging
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import psutil
import torch

from batchscape.config.device_timing import TimingSpec
from batchscape.config.run import RunSpec
from batchscape.errors import UserError, is_out_of_memory
from batchscape.io.frames import read_frame, write_frame
from batchscape.runtime.device import choose_device
from batchscape.tasks.compatibility import NUM_PROBE_EXAMPLES
from batchscape.training.batch_norm import synchronize_batch_norm
from batchscape.training.distributed import ProcessGroup
from batchscape.training.environment import describe_environment
from batchscape.training.execution import Execution
from batchscape.training.launcher import WorkerFailed, launch
from batchscape.training.lightning import pl
from batchscape.training.module import TrainingModule
from batchscape.training.train import build, make_trainer

# On CPUs: more processes would need memory (half a GB each) for no gain.
MAX_PROCESSES_PER_CORE = 2
# Seconds over which the load of a machine can be measured to a tenth of a core.
MIN_WINDOW = 0.1

log = logging.getLogger(__name__)


def time_epochs(spec: TimingSpec, data: Path, gpus: int) -> pd.DataFrame:
    """Time epochs of each batch size on each number of devices.

    On CPUs a device is a process with one thread, at most two per core. A combination cannot be timed if the machine
    has fewer devices, the batch fewer examples or not enough memory, or the network cannot be split over devices: it
    has one row, with epoch 0 and nan seconds. Learning rate and weights do not matter, and the runs are not saved.

    Args:
        spec: The runs to time, one per batch size, and the numbers of devices.
        data: A file written by `batchscape.data.prepared.write_prepared`.
        gpus: How many GPUs this process may use.

    Returns:
        One row per timed epoch. Columns: batch_size, devices, device (name of the GPU, or `cpu`), processor, cores (of
        the machine), other_cores (how many of them other processes used meanwhile, on average over the epochs; nan if
        the epochs are too short to measure it), epoch (from 1, after a warm-up epoch), seconds (wall time of the
        training).
    """
    frames = []
    on_gpu = choose_device(spec.runs[0].training.accelerator).type == "cuda"
    max_devices = gpus if on_gpu else MAX_PROCESSES_PER_CORE * (os.cpu_count() or 1)
    if max(spec.device_counts) > 1 and not _supports_several_processes(spec.runs[0], data):
        max_devices = 1
    for devices in spec.device_counts:
        runs = [run for run in spec.runs if devices <= min(run.batch_size, max_devices)]
        if runs:
            frames.append(_time_runs(runs, data, devices))
        frames.append(_untimed_rows([run for run in spec.runs if run not in runs], devices))
        log.info("timed %d batch sizes on %d device%s", len(runs), devices, "s" * (devices != 1))
    rows = pd.concat([frame for frame in frames if len(frame)], ignore_index=True)
    columns = ["batch_size", "devices", "device", "processor", "cores", "other_cores", "epoch", "seconds"]
    return rows.reindex(columns=columns).sort_values(["batch_size", "devices", "epoch"], ignore_index=True)


def _time_runs(runs: Sequence[RunSpec], data: Path, devices: int) -> pd.DataFrame:
    """Time runs on a number of devices; a batch that does not fit in their memory has a row without a time."""
    with TemporaryDirectory(prefix="batchscape-timing-") as folder:
        output = Path(folder) / "seconds.csv"
        arguments = {
            "runs": [run.model_dump_json() for run in runs],
            "data": str(data),
            "output": str(output),
            "devices": devices,
        }
        try:
            launch(time_worker, arguments, devices)
            return read_frame(output)
        except WorkerFailed as error:
            if not is_out_of_memory(error):
                raise
    if len(runs) > 1:
        # The error of a process does not say which run it was.
        return pd.concat([_time_runs([run], data, devices) for run in runs], ignore_index=True)
    log.info("a batch of %d does not fit in the memory of %d devices", runs[0].batch_size, devices)
    return _untimed_rows(runs, devices)


def _untimed_rows(runs: Sequence[RunSpec], devices: int) -> pd.DataFrame:
    rows = [{"batch_size": run.batch_size, "devices": devices, "epoch": 0} for run in runs]
    return pd.DataFrame(rows, columns=["batch_size", "devices", "epoch"])


def _supports_several_processes(run: RunSpec, data: Path) -> bool:
    prepared, objective = build(run, data, 1)
    try:
        probe = prepared.train.batch(slice(NUM_PROBE_EXAMPLES), torch.device("cpu"))
        synchronize_batch_norm(objective, probe, prepared.spec, ProcessGroup())
    except UserError as error:
        log.info("%s", error)
        return False
    return True


def time_worker(runs: Sequence[str], data: str, output: str, devices: int) -> None:
    """Time runs as one of several processes that `launch` started; the main process writes the rows to `output`."""
    torch.set_num_threads(1)
    process_group, execution = ProcessGroup(int(os.environ["RANK"]), devices), Execution(devices=devices)
    rows = []
    for text in runs:
        run = RunSpec.model_validate_json(text)
        prepared, objective = build(run, Path(data), devices)
        module = TrainingModule(objective, prepared, run, process_group)
        timer = _Timer(module)
        make_trainer(module, execution, Path(output).parent, timer).fit(module)
        environment = describe_environment(module.device)
        columns = {
            "batch_size": run.batch_size,
            "devices": devices,
            "device": environment["device"],
            "processor": environment["processor"],
            "cores": environment["cpus"],
            "other_cores": other_cores(timer.machine_seconds, timer.job_seconds, timer.window),
        }
        rows += [
            {**columns, "epoch": epoch, "seconds": seconds} for epoch, seconds in enumerate(timer.seconds[1:], start=1)
        ]
    if process_group.is_main_process:
        write_frame(Path(output), pd.DataFrame(rows))


def other_cores(machine_seconds: float, job_seconds: float, window: float) -> float:
    """Return how many cores other processes used, on average over a time window.

    Args:
        machine_seconds: CPU time of all processes in the window, in s.
        job_seconds: CPU time of this job's processes in the window, in s.
        window: Length of the window, in s.

    Returns:
        The number of cores; nan if the window is too short, since the operating system counts in ticks of 10 ms.
    """
    return max(0.0, machine_seconds - job_seconds) / window if window >= MIN_WINDOW else math.nan


class _Timer(pl.Callback):
    """Measures the time of each epoch, and after the first one the CPU time of the machine and of this job."""

    def __init__(self, module: TrainingModule) -> None:
        self.module = module
        self.seconds: list[float] = []
        self.window = self.machine_seconds = self.job_seconds = 0.0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds.append(self.module.interval.seconds)
        now = np.array([time.perf_counter(), _machine_cpu_seconds(), time.process_time()])
        if len(self.seconds) == 1:
            self.start = now
        self.window, self.machine_seconds, job_seconds = (now - self.start).tolist()
        self.job_seconds = self.module.all_reduce_sum(job_seconds)


def _machine_cpu_seconds() -> float:
    """Return the CPU time of all processes since the machine started."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
