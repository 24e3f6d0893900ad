"""Tables as CSV files, whose numbers round-trip exactly."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pandas as pd

from batchscape.errors import UserError
from batchscape.io.files import write_text


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """Write a CSV without the index; missing numbers are `nan`, floats as short as round-trips to the same bits."""
    write_text(path, frame.to_csv(index=False, na_rep="nan", lineterminator="\n"))


def read_frame(path: Path, hint: str = "delete it to create it again", text: bool = False) -> pd.DataFrame:
    """Read a CSV that `write_frame` wrote; with `text`, all values are strings.

    Raises UserError, which ends with `hint` on what to do, if the file is missing or corrupt.
    """
    try:
        content = path.read_bytes()
        frame = (
            pd.read_csv(BytesIO(content), dtype=str, keep_default_na=False) if text else pd.read_csv(BytesIO(content))
        )
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {hint}")
    except (ValueError, OverflowError) as error:  # includes those of pandas
        raise UserError(f"{path}: is not a valid CSV ({' '.join(str(error).split())}); {hint}")
    if not content.endswith(b"\n"):  # pandas would read missing values of the last row as nan
        raise UserError(f"{path}: is truncated in its last line; {hint}")
    return frame


@contextmanager
def name_files_in_errors(paths: Iterable[str | Path]) -> Iterator[None]:
    """Turn a KeyError, for a column that a table lacks, into a UserError that names the files."""
    try:
        yield
    except KeyError as error:
        raise UserError(
            f"{', '.join(map(str, paths))}: missing column {' '.join(map(str, error.args))}; delete the "
            "file that lacks it to create it again"
        ) from error
