"""Waiting in tests for what other processes do."""

import time
from collections.abc import Callable

# After so long something hangs. Machines are shared: what takes 5 s may take a minute elsewhere, and is right.
SECONDS = 900


def wait_for(condition: Callable[[], object], told: Callable[[], str] = str, every: float = 0.01) -> None:
    """Wait until a condition holds, looked at `every` so many seconds; if it never does, fail with what is `told`."""
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until, f"it did not come: {told()}"
        time.sleep(every)
