"""Tables as CSV files that read back to the same numbers."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pandas as pd

from batchscape.errors import UserError
from batchscape.io.files import write_text


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """Write a CSV without index; a missing number is `nan`, a float is as short as reads back to the same bits."""
    write_text(path, frame.to_csv(index=False, na_rep="nan", lineterminator="\n"))


def read_frame(path: Path, mend: str = "delete it so that it is made again", text: bool = False) -> pd.DataFrame:
    """Read a CSV that `write_frame` wrote; with `text` all values as they are in the file.

    Raises UserError when it is missing or damaged; `mend` says what to do then.
    """
    try:
        content = path.read_bytes()
        frame = pd.read_csv(BytesIO(content), **({"dtype": str, "keep_default_na": False} if text else {}))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {mend}")
    except (ValueError, OverflowError) as error:  # of pandas too
        raise UserError(f"{path}: is no table ({' '.join(str(error).split())}); {mend}")
    if not content.endswith(b"\n"):  # what is missing of the last row would be read as nan
        raise UserError(f"{path}: is cut off in its last line; {mend}")
    return frame


@contextmanager
def name_files_in_errors(paths: Iterable[str | Path]) -> Iterator[None]:
    """Say which files it was where a column is asked for that their tables lack. Raises UserError."""
    try:
        yield
    except KeyError as error:
        raise UserError(
            f"{', '.join(map(str, paths))}: there is no column {' '.join(map(str, error.args))}; delete the file that "
            "lacks it so that it is made again"
        ) from error
