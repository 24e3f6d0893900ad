"""Tables as CSV files that read back to the same numbers."""

from pathlib import Path

import pandas as pd

from batchscape.files import write_text


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """Write a CSV without index; a missing number is `nan`, a float is as short as reads back to the same bits."""
    write_text(path, frame.to_csv(index=False, na_rep="nan", lineterminator="\n"))


def read_frame(path: Path) -> pd.DataFrame:
    return pd.read_csv(path)
