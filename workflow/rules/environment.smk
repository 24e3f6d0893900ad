# The Python environment that rules and jobs share. Snakemake runs each job as a command of a shell: what such a command
# cannot express is rejected here, in one line.

import os
import re
import sys
from pathlib import Path

# Not an existing folder if the workflow is remote: Snakemake then fetches its files one by one.
ROOT = Path(str(workflow.current_basedir)).parents[1]
HAS_LIBRARY = (ROOT / "src" / "batchscape").is_dir()


def fail(message):
    """End this invocation with one line instead of a traceback."""
    print(message, file=sys.stderr)
    sys.exit(1)


def check_path_characters(characters):
    """Fail if a path in the commands of jobs has one of these characters, with which Snakemake cannot run jobs."""
    for path in (ROOT, Path.cwd(), Path(sys.executable)):
        present = [character for character in characters if character in str(path)]
        if present and path.exists():
            fail(
                f"{path}: Snakemake cannot run jobs in a folder with {' and '.join(map(ascii, present))} in its name; "
                "rename it and rerun the same command"
            )


def check_shadowed_modules():
    """Fail if a file in the working directory, which comes first in the path of each job, hides a standard module."""
    for path in [*Path.cwd().glob("*.py"), *Path.cwd().glob("*/__init__.py")]:
        imported = path.parent if path.name == "__init__.py" else path
        # A module that Snakemake has not imported, such as `test`, is not needed by jobs either.
        if imported.stem in sys.stdlib_module_names.intersection(sys.modules):
            fail(
                f"{imported}: shadows Python's own module `{imported.stem}` in all jobs; rename it"
            )


# A colon separates paths in PYTHONPATH, and braces delimit Snakemake's wildcards.
check_path_characters(":{}\n")
check_shadowed_modules()

# Snakemake writes the path of Python unquoted into the commands of jobs. Backslashes, not quotes: it also writes parts of
# the path.
if Path(sys.executable).exists():
    sys.executable = re.sub(r"([^\w@%+=,./-])", r"\\\1", sys.executable)

# Rules and jobs import the library from this checkout, whatever environment a job runs in, and the user's modules from the
# working directory. The order is the same for both: a job imports the files that its fingerprint was computed from.
IMPORT_PATHS = [*([str(ROOT / "src")] if HAS_LIBRARY else []), str(Path.cwd())]
sys.path[:0] = IMPORT_PATHS
INHERITED_PATHS = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
os.environ.update(
    PYTHONPATH=os.pathsep.join(dict.fromkeys([*IMPORT_PATHS, *INHERITED_PATHS]))
)


def find_requirement():
    """Return what `pip install` needs for these rules to find the library."""
    source = workflow.current_basedir
    if HAS_LIBRARY:
        return ROOT
    if hasattr(source, "repo"):  # of GitHub or GitLab
        return f"git+https://{source.host}/{source.repo}@{source.ref}"
    if hasattr(source, "repo_path"):
        return f"git+file://{Path(source.repo_path).resolve()}@{source.ref}"
    return "FOLDER, a clone of its repository"


# All that the rules take from the library.
try:
    from batchscape.config.budget import POINT_PATTERN
    from batchscape.config.loading import (
        printable,
        read_assignments,
        read_yaml,
        remove_assigned_text,
    )
    from batchscape.config.settings import SETTING_PATTERN
    from batchscape.errors import UserError
    from batchscape.io.files import write_bytes
    from batchscape.report.chapters import CAPTIONS, CATEGORIES
    from batchscape.report.measures import Measures
    from batchscape.runtime.environment_variables import sanitize_environment
    from batchscape.runtime.loaded_code import VARIABLE as CODE_VARIABLE
    from batchscape.runtime.slurm import job_num_nodes
    from batchscape.study.fingerprint import (
        PACKAGE,
        fingerprint,
        hashed_files,
        module_path,
    )
    from batchscape.study.registry import ANALYSES, FIGURES, TABLES
    from batchscape.study.study import Study
    from batchscape.study.training_rules import training_rules
except ImportError as error:
    fail(
        f"{error.name}: cannot be imported by the Python that runs Snakemake ({error}); install this workflow's package "
        f"there: pip install {find_requirement()}"
    )

# For Snakemake, its plugins and its jobs.
sanitize_environment()
