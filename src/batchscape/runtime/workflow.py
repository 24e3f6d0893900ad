"""Where the Snakemake workflow is: at the top of a clone, or in the package if that is installed from a wheel."""

from pathlib import Path

# `pyproject.toml` has the wheel contain the files of the workflow in this folder of the package.
FOLDER_IN_PACKAGE = "_workflow"
INSTALLED_WORKFLOW = Path(__file__).resolve().parents[1] / FOLDER_IN_PACKAGE
WORKFLOW = INSTALLED_WORKFLOW if INSTALLED_WORKFLOW.is_dir() else Path(__file__).resolve().parents[3]
"""The folder with the Snakefile, `workflow/`, `profiles/`, `config/` and `envs/`."""
SNAKEFILE = WORKFLOW / "Snakefile"
