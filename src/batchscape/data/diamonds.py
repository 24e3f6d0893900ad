"""The prices of diamonds that plotnine ships."""

from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path

from batchscape.config.data.tables import DiamondsConfig
from batchscape.data.source import DEFAULT_OPTIONS, LoadOptions, RawDataset
from batchscape.data.table import read_table
from batchscape.data.table_files import open_table

FILE = "diamonds.csv"


def load(config: DiamondsConfig, options: LoadOptions = DEFAULT_OPTIONS) -> RawDataset:
    """Return the rows in the order of the file. Raises UserError if the columns don't fit the task."""
    with as_file(files("plotnine.data") / FILE) as path:
        table = open_table(str(path), "data.source", None, frozenset([""]))
        dataset = read_table(config, [(table, "")], options)
    # The folder differs between machines.
    return replace(dataset, entries=[entry._replace(file=Path(entry.file).name) for entry in dataset.entries])
