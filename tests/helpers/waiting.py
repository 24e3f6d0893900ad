"""Waiting in tests for what other processes do."""

import time
from collections.abc import Callable

# Anything that takes longer hangs. Machines are shared: what takes 5 s here may take a minute elsewhere.
TIMEOUT = 900


def wait_for(condition: Callable[[], object], describe: Callable[[], str] = str, interval: float = 0.01) -> None:
    """Poll a condition every `interval` seconds until it holds; after the timeout fail with what `describe` returns."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"timed out: {describe()}"
        time.sleep(interval)
