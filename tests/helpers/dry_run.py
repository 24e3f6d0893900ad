"""Snakemake's dry runs, forked from a process that has imported it once: the tests need about 150 of them."""

import gc
import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

# Nothing of the library: each checkout has its own.
PRELOADED = ("snakemake.cli", "pydantic", "ruamel.yaml")

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(list(PRELOADED))


def dry_run(folder: Path, arguments: list[str]) -> tuple[int, str]:
    """Return the exit status and the output of `snakemake --dry-run` in a folder."""
    with tempfile.TemporaryFile("w+") as output:
        process = _context.Process(target=_run, args=(str(folder), arguments, _Descriptor(output.fileno())))
        process.start()
        process.join()
        output.seek(0)
        return process.exitcode, output.read()


class _Descriptor:
    """A file descriptor that is passed to the forked process."""

    def __init__(self, number: int):
        self.number = number

    def __reduce__(self):
        from multiprocessing.reduction import DupFd

        return _detach, (DupFd(self.number),)


def _detach(duplicate) -> int:
    return duplicate.detach()


def _run(folder: str, arguments: list[str], output: int) -> None:
    gc.disable()  # faster, and the process lives a few seconds
    os.chdir(folder)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.pop("PYTHONPATH", None)
    sys.argv = ["snakemake", "--dry-run", *arguments]
    from snakemake.cli import main

    main()
