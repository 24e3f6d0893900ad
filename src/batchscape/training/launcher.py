"""Call a function in several processes at once, one per device, which fail and end together.

As torchrun does, with its agent in this process: so it is the same from a terminal, from Snakemake and in a Slurm job,
where Lightning by itself starts no processes but still shards the data. For several nodes, Slurm's `srun` starts an
agent on each.
"""

import json
import logging
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
from batchscape.training import worker

# Signals that the agent handles, to end its processes first.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
# Seconds that the other processes have to end once one has failed.
SHUTDOWN_TIMEOUT = 5
# Slurm's variables that `srun` needs; the others would describe the job step of this process, on one node only.
FORWARDED_SLURM_VARIABLES = ("SLURM_JOB_ID", "SLURM_CONF", "SLURM_CPUS_PER_TASK")


class WorkerFailed(Exception):
    """One of the processes has failed, and the others were ended."""


def launch(function: Callable[..., None], arguments: dict[str, Any], devices: int, nodes: int = 1) -> None:
    """Call a module-level function in `devices` processes on each of `nodes`, with arguments that are valid JSON.

    Each process reads its rank from RANK, LOCAL_RANK and WORLD_SIZE, and prints where this process prints; the first
    one logs at the level at which this process does. All end when one of them fails, and when this process is
    interrupted or ends in any way.

    Raises:
        WorkerFailed: A process failed; the message is that of the first one.
        UserError: A process raised a UserError, or several nodes are requested outside a Slurm job that has them.
    """
    log_level = logging.getLogger("batchscape").getEffectiveLevel()
    call = [function.__module__, function.__qualname__, json.dumps(arguments), str(log_level)]
    if nodes == 1:
        _run_agent(call, devices, nodes, "localhost:0", uuid.uuid4().hex)
        return
    if job_num_nodes() < nodes:
        raise UserError(
            f"resources.nodes: {nodes}, but this is not a Slurm job on {nodes} nodes; submit it to Slurm or write "
            "`nodes: 1`"
        )
    with socket.socket() as free_socket:
        free_socket.bind(("", 0))
        endpoint = f"{socket.gethostname()}:{free_socket.getsockname()[1]}"
    command = [
        "srun", "--overlap", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=1",
        sys.executable, *_run_module(__name__), json.dumps([call, devices, nodes, endpoint, uuid.uuid4().hex]),
    ]  # fmt: skip
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SLURM_") or name in FORWARDED_SLURM_VARIABLES
    }
    if status := subprocess.run(command, stdin=subprocess.DEVNULL, env=environment).returncode:
        raise WorkerFailed(f"srun ended with status {status}")


def _run_module(module: str) -> list[str]:
    """Return the options of Python that run a module with the import path of this process.

    `-m` would need PYTHONPATH, which Snakemake removes from jobs in a conda environment: they find this package, which
    may be installed only beside Snakemake, at the end of their path.
    """
    code = f"import runpy, sys; sys.path[:] = {sys.path!r}; runpy.run_module({module!r}, None, '__main__', True)"
    return ["-c", code]


def _run_agent(call: list[str], devices: int, nodes: int, endpoint: str, run_id: str) -> None:
    """Start this node's processes and wait until they end; `call` is the command line of the worker module."""
    with TemporaryDirectory(prefix="batchscape-workers-") as folder, _preserve_signal_handlers():
        config = LaunchConfig(
            min_nodes=nodes,
            max_nodes=nodes,
            nproc_per_node=devices,
            run_id=run_id,
            rdzv_backend="c10d",
            rdzv_endpoint=endpoint,
            # Not the host name, which may not resolve.
            local_addr="127.0.0.1" if nodes == 1 else None,
            max_restarts=0,
            shutdown_timeout=SHUTDOWN_TIMEOUT,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, sys.executable)(*_run_module(worker.__name__), *call)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            # A mapping, with the traceback, if it comes from the file to which a process writes its exception.
            message = failure.message["message"] if isinstance(failure.message, dict) else failure.message
            if message.startswith(f"{UserError.__name__}: "):
                raise UserError(message.partition(": ")[2]) from None
            raise WorkerFailed(f"process {rank} of {devices * nodes}: {message}") from None
        except SignalException as error:
            if error.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            raise


@contextmanager
def _preserve_signal_handlers() -> Iterator[None]:
    """Restore the signal handlers that the agent replaces."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    _run_agent(*json.loads(sys.argv[1]))
