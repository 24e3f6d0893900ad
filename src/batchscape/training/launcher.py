"""A function called in several processes at once, one a device, which live and die together.

As torchrun does it, with its agent in this process: so it is the same from a terminal, from Snakemake and in a Slurm
job, where Lightning left to itself starts no processes but still gives each its share of the data. Over several nodes
Slurm's `srun` starts an agent on each.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from batchscape.errors import UserError
from batchscape.runtime.slurm import job_num_nodes
from batchscape.training import worker as rank

# What the agent takes, so that it can end its processes first.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
# How long the others may take to end when one of the processes has died.
SHUTDOWN_TIMEOUT = 5
# What of Slurm's variables goes along to other nodes.
FORWARDED_SLURM_VARIABLES = ("SLURM_JOB_ID", "SLURM_CONF", "SLURM_CPUS_PER_TASK")


class WorkerFailed(Exception):
    """One of the processes has failed; the others were ended."""


def launch(function: Callable[..., None], arguments: dict[str, Any], devices: int, nodes: int = 1) -> None:
    """Call a function of a module, with arguments that JSON can hold, in `devices` processes on each of `nodes`.

    Each finds its place in RANK, LOCAL_RANK and WORLD_SIZE, and prints where this process prints. All end when one of
    them fails, when this process ends, however it does, or is interrupted.

    Raises WorkerFailed with the message of the first process that failed, and UserError where several nodes are
    requested outside a Slurm job that has them.
    """
    what = [function.__module__, function.__qualname__, json.dumps(arguments)]
    if nodes == 1:
        _run_agent(what, devices, nodes, "localhost:0", uuid.uuid4().hex)
        return
    if job_num_nodes() < nodes:
        raise UserError(
            f"resources.nodes: {nodes}, but this is no Slurm job on so many; submit it to Slurm or write `nodes: 1`"
        )
    with socket.socket() as free:
        free.bind(("", 0))
        endpoint = f"{socket.gethostname()}:{free.getsockname()[1]}"
    command = [
        "srun", "--overlap", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=1",
        sys.executable, "-m", __name__, json.dumps([what, devices, nodes, endpoint, uuid.uuid4().hex]),
    ]  # fmt: skip
    # This process is in a step on one node, of which the other variables tell: srun would take them for the job's.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SLURM_") or name in FORWARDED_SLURM_VARIABLES
    }
    if status := subprocess.run(command, stdin=subprocess.DEVNULL, env=environment).returncode:
        raise WorkerFailed(f"srun ended with status {status}")


def _run_agent(what: list[str], devices: int, nodes: int, endpoint: str, run_id: str) -> None:
    """Start this node's processes and wait for their end."""
    with TemporaryDirectory(prefix="batchscape-workers-") as folder, _preserve_signal_handlers():
        config = LaunchConfig(
            min_nodes=nodes,
            max_nodes=nodes,
            nproc_per_node=devices,
            run_id=run_id,
            rdzv_backend="c10d",
            rdzv_endpoint=endpoint,
            # Not by the machine's name, which may be known to nobody.
            local_addr="127.0.0.1" if nodes == 1 else None,
            max_restarts=0,
            shutdown_timeout=SHUTDOWN_TIMEOUT,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, sys.executable)("-m", rank.__name__, *what)
        except ChildFailedError as error:
            failed, failure = error.get_first_failure()
            # A mapping if it comes from the file in which the process reports its exception: with the call stack.
            said = failure.message["message"] if isinstance(failure.message, dict) else failure.message
            if said.startswith(f"{UserError.__name__}: "):
                raise UserError(said.partition(": ")[2]) from None
            raise WorkerFailed(f"process {failed} of {devices * nodes}: {said}") from None
        except SignalException as error:
            if error.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            raise


@contextmanager
def _preserve_signal_handlers() -> Iterator[None]:
    """Undo in the end that the agent takes the signals that would end this process."""
    handlers = {which: signal.getsignal(which) for which in SIGNALS}
    try:
        yield
    finally:
        for which, handler in handlers.items():
            signal.signal(which, handler)


if __name__ == "__main__":
    _run_agent(*json.loads(sys.argv[1]))
