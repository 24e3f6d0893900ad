"""`batchscape extend`: add seeds to a study file, and change nothing else in it."""

import re
import shlex
from collections.abc import Iterable
from itertools import count, islice
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from batchscape.config.loading import printable, read_yaml
from batchscape.errors import UserError
from batchscape.io.files import write_bytes
from batchscape.study.study import Study


def extend(file: Path, number: int) -> list[str]:
    """Add seeds to `grid.seeds` of a study file.

    Only this value of the text is edited; comments, order and all else stay.

    Args:
        file: The study file.
        number: Number of seeds to add: the first integers from 0 on that the study does not use yet.

    Returns:
        Lines for the terminal: what was changed, and what the next run of the workflow trains.

    Raises:
        UserError: The file is not a valid study, or its text cannot be edited in this way.
    """
    name = printable(file)
    if number < 1:
        raise UserError(f"--seeds: must be at least 1, got {number}")
    before = Study.from_file(file)
    searched = (*before.tuning.seeds, *before.tuning.finalists.seeds)
    new = new_seeds(number, (*before.grid.seeds, *searched, *before.confirmation_seeds))
    seeds = [*before.grid.seeds, *new]
    listed = ", ".join(map(str, seeds))
    text = file.read_bytes().decode()
    edited = add_seeds(text, before.grid.seeds, new)
    if edited is None or _load(edited) != _with_seeds(read_yaml(file), seeds):
        raise UserError(
            f"{name}: grid.seeds: cannot be edited without changing other values, such as those of an alias; write "
            f"`seeds: [{listed}]` in the section grid"
        )
    after = Study.from_mapping(_load(edited), name)
    try:
        write_bytes(file.resolve(), edited.encode())
    except OSError as error:
        raise UserError(f"{name}: cannot be written ({error.strerror}); make it and its folder writable")
    lines = [
        f"{name}: grid.seeds: [{', '.join(map(str, before.grid.seeds))}] is now [{listed}]",
        f"{len(after.runs) - len(before.runs)} runs are added to the {len(before.runs)} of the study; none of these is "
        "trained again",
    ]
    if after.branching.enabled and after.branching.seeds is None:
        lines.append(
            "the new seeds are branched too"
            + (
                ", and runs of the arm batch_warmup train again if their stages change"
                if after.branching.batch_warmup
                else ""
            )
        )
    if after.confirmation_runs:
        lines.append("finalists that change with the new runs are confirmed again, with the same fresh seeds")
    return [*lines, f"`batchscape run {shlex.quote(name)} -n` lists the jobs, and without `-n` runs them"]


def new_seeds(number: int, used: Iterable[int]) -> list[int]:
    """Return the first integers from 0 on that are not used."""
    taken = frozenset(used)
    return list(islice((seed for seed in count() if seed not in taken), number))


def add_seeds(text: str, seeds: Iterable[int], new: Iterable[int]) -> str | None:
    """Return the text of a study file with more seeds, or None if their place in it cannot be found.

    Args:
        text: The file.
        seeds: Its seeds, which are written where it has none.
        new: The seeds to add.
    """
    root = YAML(typ="safe", pure=True).compose(text)
    added, complete = ", ".join(map(str, new)), ", ".join(map(str, (*seeds, *new)))
    newline = "\r\n" if "\r\n" in text else "\n"
    if not isinstance(root, MappingNode):
        return None
    grid = _value(root, "grid")
    if grid is None:
        if root.flow_style:
            return None
        return newline.join([text.rstrip(), "", "grid:", f"  seeds: [{complete}]", ""])
    if not isinstance(grid, MappingNode):
        return None
    node = _value(grid, "seeds")
    if node is None:
        if not grid.value:  # `{}`
            return _insert(text, grid.start_mark.index + 1, f"seeds: [{complete}]")
        start = grid.value[0][0].start_mark
        separator = ", " if grid.flow_style else f"{newline}{' ' * start.column}"
        return _insert(text, start.index, f"seeds: [{complete}]{separator}")
    if not isinstance(node, SequenceNode) or not node.value:
        return None
    last = node.value[-1]
    if node.flow_style:
        return _insert(text, last.end_mark.index, f", {added}")
    end = last.end_mark.index + len(re.split("\r?\n", text[last.end_mark.index :], maxsplit=1)[0])
    items = "".join(f"{newline}{' ' * node.start_mark.column}- {seed}" for seed in new)
    return _insert(text, end, items)


def _value(mapping: MappingNode, key: str) -> Node | None:
    return next((value for name, value in mapping.value if name.value == key), None)


def _insert(text: str, index: int, addition: str) -> str:
    return text[:index] + addition + text[index:]


def _load(text: str) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError):
        return None


def _with_seeds(content: dict[str, Any], seeds: list[int]) -> dict[str, Any]:
    return {**content, "grid": {**(content.get("grid") or {}), "seeds": seeds}}
