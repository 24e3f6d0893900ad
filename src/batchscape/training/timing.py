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
from batchscape.training.launcher import WorkerFailed, launch
from batchscape.training.lightning import pl
from batchscape.training.module import TrainingModule
from batchscape.training.train import build, make_trainer

# On CPUs; what more of them would take in memory (half a GB each) buys nothing.
PROCESSES_PER_CORE = 2
# Seconds in which the work of a machine can be told to a tenth of a core.
LEAST_WINDOW = 0.1

log = logging.getLogger(__name__)


def time_epochs(spec: TimingSpec, data: Path, gpus: int) -> pd.DataFrame:
    """Return one row for each epoch that was timed on prepared data; `gpus` is how many GPUs this process may use.

    Columns: batch_size, devices, device (name of the GPU, or `cpu` for processes of one thread), processor, cores (of
    the machine), other_cores (how many of them other processes kept busy meanwhile, on average over the epochs; nan if
    these are too short to tell), epoch (from 1, after the one that warms up), seconds (wall time of the training). A
    number of devices that the machine does not have (of processes, more than two a core), that is larger than the
    batch, that cannot share the network, or whose memory does not hold a batch that cannot be cut, has one row, with
    epoch 0 and nan seconds.
    Learning rate and weights do not matter; nothing of the runs is kept.
    """
    frames = []
    on_gpu = choose_device(spec.runs[0].training.accelerator).type == "cuda"
    at_most = gpus if on_gpu else PROCESSES_PER_CORE * (os.cpu_count() or 1)
    if max(spec.device_counts) > 1 and not _can_be_shared(spec.runs[0], data):
        at_most = 1
    for devices in spec.device_counts:
        runs = [run for run in spec.runs if devices <= min(run.batch_size, at_most)]
        if runs:
            frames.append(_timed(runs, data, devices))
        frames.append(_left_out([run for run in spec.runs if run not in runs], devices))
        log.info("timed %d batch sizes on %d device%s", len(runs), devices, "s" * (devices != 1))
    rows = pd.concat([frame for frame in frames if len(frame)], ignore_index=True)
    columns = ["batch_size", "devices", "device", "processor", "cores", "other_cores", "epoch", "seconds"]
    return rows.reindex(columns=columns).sort_values(["batch_size", "devices", "epoch"], ignore_index=True)


def _timed(runs: Sequence[RunSpec], data: Path, devices: int) -> pd.DataFrame:
    """Time the runs on so many devices; a batch that does not fit in their memory is left out."""
    with TemporaryDirectory(prefix="batchscape-timing-") as folder:
        found = Path(folder) / "seconds.csv"
        what = {"runs": [run.model_dump_json() for run in runs], "data": str(data), "found": str(found)}
        try:
            launch(time_worker, {**what, "devices": devices}, devices)
            return read_frame(found)
        except WorkerFailed as error:
            if not is_out_of_memory(error):
                raise
    if len(runs) > 1:
        # Which of them it was does not follow from the error of a process.
        return pd.concat([_timed([run], data, devices) for run in runs], ignore_index=True)
    log.info("a batch of %d does not fit in the memory of %d devices", runs[0].batch_size, devices)
    return _left_out(runs, devices)


def _left_out(runs: Sequence[RunSpec], devices: int) -> pd.DataFrame:
    rows = [{"batch_size": run.batch_size, "devices": devices, "epoch": 0} for run in runs]
    return pd.DataFrame(rows, columns=["batch_size", "devices", "epoch"])


def _can_be_shared(run: RunSpec, data: Path) -> bool:
    """Say whether several processes can train the network of a run."""
    prepared, network = build(run, data, 1)
    try:
        synchronize_batch_norm(network, torch.from_numpy(prepared.train_images[:NUM_PROBE_EXAMPLES]), ProcessGroup())
    except UserError as error:
        log.info("%s", error)
        return False
    return True


def time_worker(runs: Sequence[str], data: str, found: str, devices: int) -> None:
    """Time the runs as one of several processes that `launch` started; the first of them writes what it found."""
    torch.set_num_threads(1)
    process_group = ProcessGroup(int(os.environ["RANK"]), devices)
    rows = []
    for text in runs:
        run = RunSpec.model_validate_json(text)
        prepared, network = build(run, Path(data), devices)
        timer = _Timer()
        module = TrainingModule(network, prepared, run, process_group)
        make_trainer(run, devices, 1, Path(found).parent, timer).fit(module)
        where = describe_environment(module.device)
        told = {
            "batch_size": run.batch_size,
            "devices": devices,
            "device": where["device"],
            "processor": where["processor"],
            "cores": where["cpus"],
            "other_cores": other_cores(timer.busy, timer.own, timer.window),
        }
        rows += [
            {**told, "epoch": epoch, "seconds": seconds} for epoch, seconds in enumerate(timer.seconds[1:], start=1)
        ]
    if process_group.is_main_process:
        write_frame(Path(found), pd.DataFrame(rows))


def other_cores(busy: float, own: float, window: float) -> float:
    """Return how many cores other processes kept busy while the machine worked `busy` s, `own` s of it for this job.

    The machine tells its work in ticks of 10 ms: in a window, in s, of few of them nobody knows, and it is nan.
    """
    return max(0.0, busy - own) / window if window >= LEAST_WINDOW else math.nan


class _Timer(pl.Callback):
    """Keeps how long each epoch took, and what the machine and this job worked after the one that warms up."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.window = self.busy = self.own = 0.0

    def on_train_epoch_end(self, trainer: pl.Trainer, module: TrainingModule) -> None:
        self.seconds.append(module.result.seconds)
        now = np.array([time.perf_counter(), _busy(), time.process_time()])
        if len(self.seconds) == 1:
            self.began = now
        self.window, self.busy, own = (now - self.began).tolist()
        self.own = module.all_reduce_sum(own)


def _busy() -> float:
    """Return the CPU time, in seconds, that the machine has worked since it started."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
