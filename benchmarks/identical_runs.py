"""Whether two checkouts train the same runs to the same bits: a refactor must not change a number.

    git worktree add ../before HEAD~1
    python benchmarks/identical_runs.py ../before .

Each checkout trains its own `config/smoke.yaml` with its own library, by its own workflow, in a temporary folder. Three
hashes of each run are compared: of all weights (every tensor of every checkpoint), of the history without its times,
and of the update norms. Names of files and columns do not count, so that a renaming is no difference. The exit status
is 1 if a run differs or is missing. In place of a checkout a folder with finished runs may be given.

Bits are a function of the machine too, so compare only what ran on one machine. On 2 cores of an Intel Xeon both
checkouts together take about four minutes.
"""

import argparse
import csv
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

PARTS = ("weights", "history", "update norms")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="a checkout, or a folder with runs")
    parser.add_argument("after", type=Path, help="another one")
    parser.add_argument("--study", type=Path, default="config/smoke.yaml", help="study file below each checkout")
    parser.add_argument("--cores", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        hashes = []
        for name in ("before", "after"):
            folder = getattr(arguments, name).resolve()
            if (folder / "Snakefile").exists():
                folder = train(folder, arguments.study, Path(scratch) / name, arguments.cores)
            hashes.append(run_hashes(folder))
    lines = differences(*hashes)
    print(*lines, sep="\n", end="\n" if lines else "")
    print(f"{len(hashes[0].keys() & hashes[1].keys())} runs compared, {len(lines)} differences")
    return 1 if lines or not hashes[0] else 0


def train(checkout: Path, study: Path, folder: Path, cores: int) -> Path:
    """Train all runs of a study in a folder, with the code of a checkout, and return the folder."""
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "snakemake", "--snakefile", checkout / "Snakefile", "--directory", folder]
    command += ["--cores", str(cores), "--until", "train", "--configfile", checkout / study]
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{checkout}: its study failed:\n{done.stdout[-4000:]}")
    return folder


def run_hashes(folder: Path) -> dict[str, dict[str, str]]:
    """Return the hashes of each run below a folder, by the run's name and what is hashed."""
    return {
        path.parent.name: {
            "weights": _hash(_tensors(path.parent)),
            "history": _hash(_history(path.parent / "history.csv")),
            "update norms": _hash([np.load(path.parent / "update_norms.npy").tobytes()]),
        }
        for path in sorted(folder.rglob("run.json"))
        if not path.parent.name.startswith(".")  # a copy that the workflow keeps beside a run
    }


def differences(before: dict[str, dict[str, str]], after: dict[str, dict[str, str]]) -> list[str]:
    """Return a line for each run that is not the same, or that only one side has."""
    lines = [f"{run}: only in one of the two" for run in sorted(before.keys() ^ after.keys())]
    for run in sorted(before.keys() & after.keys()):
        differ = [part for part in PARTS if before[run][part] != after[run][part]]
        if differ:
            lines.append(f"{run}: different {', '.join(differ)}")
    return lines


def _tensors(run: Path) -> list[bytes]:
    # By content, not by name: a checkpoint or a layer may have another one.
    return sorted(
        str(tensor.shape).encode() + tensor.tobytes()
        for path in run.rglob("*.safetensors")
        for tensor in load_file(path).values()
    )


def _history(path: Path) -> list[bytes]:
    with path.open(newline="") as stream:
        header, *rows = csv.reader(stream)
    return [
        repr([cell for name, cell in zip(header, row, strict=True) if "seconds" not in name]).encode() for row in rows
    ]


def _hash(parts: list[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
