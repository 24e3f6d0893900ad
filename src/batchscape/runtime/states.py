"""The states of a job as JSON lines beside its log, for `batchscape status` and other programs.

Each line is one object with the keys `time` (seconds since 1970), `state`, and those of the table below. The file has
the name of the log with the suffix `.jsonl`. All attempts of a job append to the same file: it is no output of a rule,
so Snakemake, which deletes the log before it starts a job, does not delete it.

| `state` | keys | when |
| --- | --- | --- |
| `started` | `pid`, `host` | an attempt begins |
| `waiting_for_gpus` | `count`, `gpus` | all GPUs that it may use are taken |
| `acquired_gpus` | `gpus` | it waited, and has its GPUs |
| `resumed` | `epoch` and `step`, or `trials` | it continues after what an earlier attempt has finished |
| `evaluated` | `epoch`, `step`, `steps`, `train_loss`, `validation_loss` | a training of `steps` was evaluated |
| `trial` | `trial`, `stage`, hyperparameters, `validation_loss`, `trainings`, `budget` | a trial is complete |
| `already_complete` | | nothing is left to do |
| `stopped` | `epoch`, `step` | it saved a checkpoint and stops before the time limit |
| `interrupted` | | Ctrl-C, or an exit that is no error |
| `failed` | `message` | an error, in one line |
| `complete` | | the work is done |

An attempt that ends with none of the last three is running, as the lock of the job then shows, or was killed.
"""

import json
import math
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

STARTED = "started"
WAITING_FOR_GPUS = "waiting_for_gpus"
ACQUIRED_GPUS = "acquired_gpus"
RESUMED = "resumed"
EVALUATED = "evaluated"
TRIAL = "trial"
ALREADY_COMPLETE = "already_complete"
STOPPED = "stopped"
INTERRUPTED = "interrupted"
FAILED = "failed"
COMPLETE = "complete"

# Names the file to the processes that a job starts, on other nodes as well.
VARIABLE = "BATCHSCAPE_STATES"
# The end of the file that is read, in bytes: some hundred states, or one failure with the longest message.
TAIL = 16_384
MAX_MESSAGE = 2_000


@contextmanager
def recorded_states(log: Path) -> Iterator[None]:
    """Record the states of the job with this log while the block runs, also those of the processes that it starts."""
    os.environ[VARIABLE] = str(_states_file(log).absolute())
    try:
        if not record_state(STARTED, pid=os.getpid(), host=socket.gethostname()):
            # A full disk, or a file of another user: the states of an earlier attempt must not pass for those of this.
            with suppress(OSError):
                _states_file(log).unlink()
            _open.cache_clear()
        yield
    finally:
        del os.environ[VARIABLE]


def record_state(state: str, **details: Any) -> bool:
    """Append a state of the current job; do nothing in a process of no job.

    A file that cannot be written is no reason to fail: the log and the terminal have the same.

    Args:
        state: One of the constants of this module.
        details: The keys of the state, with values that JSON can hold. Floats are rounded to six digits.

    Returns:
        Whether the state was written.
    """
    if path := os.environ.get(VARIABLE):
        values = {key: _rounded(value) for key, value in details.items()}
        line = json.dumps({"time": round(time.time(), 3), "state": state, **values}, ensure_ascii=False)
        with suppress(OSError):
            return _append(_open(path), f"{line}\n".encode(errors="replace"))
    return False


def read_states(log: Path) -> list[dict[str, Any]]:
    """Return the states of the latest attempt of a job, in order.

    Args:
        log: The log of the job. If it does not exist, no attempt has started since it was deleted.

    Returns:
        The objects of the file, at most as many as are in its last 16 KiB. Lines of earlier attempts and a last line
        that is incomplete, as a killed job leaves it, are ignored. Empty if there is no state.
    """
    if not log.exists():
        return []
    try:
        with _states_file(log).open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - TAIL))
            lines = stream.read().splitlines()
    except OSError:
        return []
    states = [state for state in map(_parse, lines) if state]
    starts = [index for index, state in enumerate(states) if state["state"] == STARTED]
    return states[starts[-1] :] if starts else states


def _states_file(log: Path) -> Path:
    return log.with_suffix(".jsonl")


@cache
def _open(path: str) -> int:
    """Open a file of states once a process."""
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)


def _append(descriptor: int, line: bytes) -> bool:
    """Append a line; first end the partial one that a killed job or a full disk has left there."""
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        line = b"\n" + line
    return os.write(descriptor, line) == len(line)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        state = json.loads(line)
    except ValueError:
        return None
    return state if isinstance(state, dict) and "state" in state else None


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value[:MAX_MESSAGE] if isinstance(value, str) else value
