"""The file with the finalists of a study."""

from pathlib import Path

from batchscape.config.confirmation import Finalists
from batchscape.io.files import read_json


def read_finalists(path: Path) -> Finalists:
    """Return the settings that are trained again, best first. Raises UserError if the file is missing or corrupt."""
    read_json(path, Finalists, "delete it, and the same command writes it again")
    return Finalists.model_validate_json(path.read_bytes())
