"""Whether a job runs the code that Snakemake hashed when it started: a file may be edited while Snakemake runs."""

import hashlib
import json
import os
import sys
from functools import cache
from pathlib import Path

from batchscape.errors import UserError

# The path of the JSON file with the hash of each file by its path, in the environment of the jobs.
VARIABLE = "BATCHSCAPE_CODE"
# Most loaded modules are in these, and nobody edits them; resolving the paths of all takes too long.
INSTALLED = (str(Path(os.__file__).parent), f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")

_checked: set[str] = set()


def require_unedited_code() -> None:
    """Check the modules that this process has loaded since the last call, except for those of installed packages.

    Without the file of hashes, such as outside of a job or where jobs share no files, nothing is checked.

    Raises:
        UserError: A module was edited.
    """
    hashes = _read_hashes(os.environ.get(VARIABLE, ""))
    if not hashes:
        return
    # Not `module.__file__`: modules that load lazily compute their attributes.
    files = {getattr(module, "__dict__", {}).get("__file__") for module in list(sys.modules.values())}
    for file in {file for file in files if isinstance(file, str)} - _checked:
        path = "" if any(part in file for part in INSTALLED) else os.path.realpath(file)
        if path in hashes and _hash(path) != hashes[path]:
            shown = path.removeprefix(f"{Path.cwd()}{os.sep}")
            raise UserError(
                f"{shown}: was edited while Snakemake runs; put it back, or run the same command again, which also "
                "repeats what the edit makes stale"
            )
        _checked.add(file)


@cache
def _read_hashes(record: str) -> dict[str, str]:
    path = Path(record)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _hash(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:  # it was deleted
        return ""
