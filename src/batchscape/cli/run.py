"""`batchscape run`: check a study file, then run the workflow on it with Snakemake."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from batchscape.cli.check import check
from batchscape.errors import UserError
from batchscape.runtime.workflow import SNAKEFILE

# Where Snakemake looks for a Snakefile.
SNAKEFILES = ("Snakefile", "snakefile", "workflow/Snakefile", "workflow/snakefile")


def run(file: Path, options: Sequence[str]) -> NoReturn:
    """Check a study file, and replace this process by Snakemake, whose signals and exit status are thus its own.

    Args:
        file: The study file.
        options: Options and targets of Snakemake.

    Raises:
        UserError: The study file or its data is not valid.
    """
    command, environment = snakemake_command(file, options), dict(os.environ)
    sys.stdout.write("\n".join(check(file)) + "\n")
    sys.stdout.flush()
    os.execve(command[0], command, environment)


def snakemake_command(file: Path, options: Sequence[str]) -> list[str]:
    """Return the command that runs a study.

    The workflow is that of the working directory, such as a clone or a folder that `init` wrote; if there is no
    Snakefile, that of this package.

    Args:
        file: The study file.
        options: Options and targets of Snakemake.

    Raises:
        UserError: The options name another study file.
    """
    if any(option.startswith("--configf") for option in options):
        raise UserError(f"--configfile: is {file}, which `run` adds; leave the option out")
    snakefile = [] if any(map(os.path.exists, SNAKEFILES)) else ["--snakefile", str(SNAKEFILE)]
    # Without `-P`, a file of the user such as `random.py` would replace a module that Snakemake imports. The study file
    # is last, because `--configfile` takes the targets that follow it for files.
    return [sys.executable, "-P", "-m", "snakemake", *snakefile, *options, "--configfile", str(file)]
