"""Freed memory stays in the process, so that the next tensor of its size causes no page faults."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
import numpy as np
import psutil
from batchscape.runtime.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
before = psutil.Process().memory_info().rss
blocks = [np.ones(1_000_000) for _ in range(30)]
del blocks
print((psutil.Process().memory_info().rss - before) / 2**20)
"""


def mebibytes_after_freeing(argument: str) -> float:
    """Return how much the memory of a process grows by 229 MiB that it has freed again."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, argument], capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_process_keeps_the_memory_of_freed_arrays():
    assert mebibytes_after_freeing("default") < 50
    assert mebibytes_after_freeing("keep") > 200
