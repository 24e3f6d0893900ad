"""Check that two checkouts train the same runs to the same bits: a refactor must not change a number.

    git worktree add ../before HEAD~1
    python benchmarks/identical_runs.py ../before .
    python benchmarks/identical_runs.py --tables ../before .

Each checkout trains its own `config/smoke.yaml` with its own library, by its own workflow, in a temporary folder. Three
hashes of each run are compared: of all weights (every tensor of every file), of the history without its times and
counts, and of the update norms. Names of files and columns do not count. With `--tables` the complete study is
computed, and its analyses and tables are compared too, column by column, without times and sentences; columns that were
renamed are in `RENAMED`, and those that only one checkout has are listed, but are not a difference. The exit status is
1 if anything differs or a run or table is missing. Instead of a checkout, a folder with a finished study may be given.

Bits depend on the machine too, so compare only what ran on one machine. On 2 cores of an Intel Xeon, both checkouts
together take about four minutes, with `--tables` about eight.
"""

import argparse
import csv
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

PARTS = ("weights", "history", "update norms")
# Names of columns and quantities in older checkouts, as regular expressions, and what they are today.
RENAMED = {
    r"least_validation_loss(.*)": r"best_validation_loss\1",
    r"least_train_loss(.*)": r"min_train_loss\1",
    r"(|critical_batch_|min_steps_|min_examples_)(low|high)": r"\1ci95_\2",
    r"median(_.*|)": r"update_norm_p50\1",
    r"(p\d\d)(_.*|)": r"update_norm_\1\2",
    r"mean_norm(.*)": r"gradient_norm\1",
    r"best": "is_best",
    r"(smallest|largest)_batch": r"\1_batch_size",
    r"share_(x|y)": r"explained_variance_\1",
    r"n_max_epochs": "n_budget_spent",
    r"target_loss": "target_value",
}
# Columns whose cells are such names.
NAMES = ("quantity", "measure")
# Words in cells that were replaced.
REWORDED = {
    "centre": "center",
    "minimiser": "minimizer",
    "whole model": "all layers",
    "least loss": "lowest loss",
    "cheapest of the equal": "cheapest equivalent",
    "least validation loss": "best validation loss",
    "that both train": "that both runs have",
    "distance of the minimizer": "distance of the best weights",
    "greatest ε": "largest ε",
    "max_epochs": "budget_spent",
}
# Columns of sentences, which may be reworded.
TEXTS = ("statement", "source", "comparison", "reading", "advice", "reason")
# Columns of histories that older checkouts lack, which follow from the epoch.
COUNTS = ("step", "examples", "clipped")
# Parts of the names of columns that are times, and tables and quantities that follow from times.
TIMES = ("seconds", "other_cores")
TIMED_TABLES = ("devices",)

Hashes = dict[str, dict[str, str]]
"""Hashes by the name of a run or table, and then by the name of its part."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="a checkout, or a folder with a finished study")
    parser.add_argument("after", type=Path, help="another one")
    parser.add_argument("--study", type=Path, default="config/smoke.yaml", help="study file below each checkout")
    parser.add_argument("--tables", action="store_true", help="also compute and compare analyses and tables")
    parser.add_argument("--cores", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folders = []
        for name in ("before", "after"):
            folder = getattr(arguments, name).resolve()
            if (folder / "Snakefile").exists():
                target = "all" if arguments.tables else "train"
                folder = compute(folder, arguments.study, Path(scratch) / name, arguments.cores, target)
            folders.append(folder)
        before, after = map(hash_runs, folders)
        lines = find_differences(before, after)
        print(*lines, sep="\n", end="\n" if lines else "")
        print(f"{len(before.keys() & after.keys())} runs compared, {len(lines)} differences")
        if not arguments.tables:
            return 1 if lines or not before else 0
        before_tables, after_tables = map(hash_tables, folders)
    table_lines = find_differences(before_tables, after_tables)
    print(*find_unshared_columns(before_tables, after_tables), *table_lines, sep="\n")
    print(f"{len(before_tables.keys() & after_tables.keys())} tables compared, {len(table_lines)} differences")
    return 1 if lines or table_lines or not before or not before_tables else 0


def compute(checkout: Path, study: Path, folder: Path, cores: int, target: str = "train") -> Path:
    """Run the workflow of a checkout up to a rule in a folder, with the checkout's library, and return the folder."""
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "snakemake", "--snakefile", checkout / "Snakefile", "--directory", folder]
    command += ["--cores", str(cores), "--until", target, "--configfile", checkout / study]
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{checkout}: its study failed:\n{done.stdout[-4000:]}")
    return folder


def hash_runs(folder: Path) -> Hashes:
    """Return the hashes of each run below a folder."""
    return {
        path.parent.name: {
            "weights": _hash(_tensors(path.parent)),
            "history": _hash(_history(path.parent / "history.csv")),
            "update norms": _hash([np.load(path.parent / "update_norms.npy").tobytes()]),
        }
        for path in sorted(folder.rglob("run.json"))
        if not path.parent.name.startswith(".")  # a copy that the workflow makes beside a run
    }


def hash_tables(folder: Path) -> Hashes:
    """Return the hashes of each analysis and table below a folder, by column."""
    return {
        f"{path.parent.name}/{path.stem}": _hash_columns(path)
        for name in ("analysis", "tables")
        for path in sorted(folder.rglob(f"{name}/**/*.csv"))
        if not path.parent.name.startswith(".") and path.stem not in TIMED_TABLES
    }


def find_differences(before: Hashes, after: Hashes) -> list[str]:
    """Return a line for each run or table that differs in a part that both sides have, or that only one side has."""
    lines = [f"{name}: only in one of the two" for name in sorted(before.keys() ^ after.keys())]
    for name in sorted(before.keys() & after.keys()):
        shared = [part for part in before[name] if part in after[name]]
        different = [part for part in shared if before[name][part] != after[name][part]]
        if different:
            lines.append(f"{name}: different {', '.join(different)}")
    return lines


def find_unshared_columns(before: Hashes, after: Hashes) -> list[str]:
    """Return a line for each table with columns that only one side has."""
    lines = []
    for name in sorted(before.keys() & after.keys()):
        removed, added = before[name].keys() - after[name].keys(), after[name].keys() - before[name].keys()
        if removed or added:
            lines.append(f"{name}: not compared: {', '.join([*sorted(removed), '|', *sorted(added)])}")
    return lines


def _tensors(run: Path) -> list[bytes]:
    # By content, not by name: a checkpoint or a layer may have another one.
    return sorted(
        str(tensor.shape).encode() + tensor.tobytes()
        for path in run.rglob("*.safetensors")
        if "states" not in path.relative_to(run).parts  # which a run has saved for branches, if the study has any
        for tensor in load_file(path).values()
    )


def _history(path: Path) -> list[bytes]:
    with path.open(newline="") as stream:
        header, *rows = csv.reader(stream)
    left_out = [name in COUNTS or "seconds" in name for name in header]
    return [repr([cell for cell, out in zip(row, left_out, strict=True) if not out]).encode() for row in rows]


def _hash_columns(path: Path) -> dict[str, str]:
    with path.open(newline="") as stream:
        rows = [
            {
                _rename(name): _reword(_rename(cell) if name in NAMES else cell)
                for name, cell in row.items()
                if name not in TEXTS and not _is_time(name)
            }
            for row in csv.DictReader(stream)
            if not any(_is_time(row.get(name, "")) for name in NAMES)
        ]
    rows.sort(key=lambda row: sorted(row.items()))
    return {name: _hash([row[name].encode() for row in rows]) for name in (rows[0] if rows else {})}


def _is_time(name: str) -> bool:
    return any(word in name for word in TIMES)


def _rename(name: str) -> str:
    for old, new in RENAMED.items():
        if match := re.fullmatch(old, name):
            return match.expand(new)
    return name


def _reword(cell: str) -> str:
    for old, new in REWORDED.items():
        cell = cell.replace(old, new)
    return cell


def _hash(parts: list[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
