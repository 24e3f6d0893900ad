"""Finished studies with made-up tables of known truth: values in memory, and folders as the workflow writes them."""

import html
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from batchscape.config.loading import merge_mappings, to_yaml
from batchscape.io.files import read_json, write_json
from batchscape.io.frames import write_frame
from batchscape.io.run_directory import Summary
from batchscape.report.comparison.studies import StudyTables, flatten
from batchscape.report.measures import Measures
from batchscape.report.tables import best_lr, critical_batch, lr_grid, recommendation, regimes, scaling, steps_to_target
from batchscape.study.specs import dump_with_defaults
from batchscape.study.study import Study
from tests.helpers.measures import METRICS
from tests.helpers.runs import write_run
from tests.helpers.tables import synthetic_runs

SIZES = (16, 64, 256)
RATES = tuple(0.001 * 2.0**power for power in range(10))
SEEDS = (0.9, 1.0, 1.2)
"""Factors of the losses and of the steps of each seed."""
OFF = {"enabled": False}
SETTINGS = {
    "name": "s",
    "data": {"source": "synthetic"},
    "grid": {"batch_sizes": list(SIZES), "learning_rates": list(RATES), "seeds": [0, 1, 2]},
    "comparison": {"fixed_learning_rate": RATES[0], "high_learning_rate": RATES[-1], "targets": [{"loss": 0.3}]},
    "arms": {"linear": OFF, "sqrt": OFF},
    **dict.fromkeys(("tuning", "interpolation", "landscape", "confirmation", "device_timing"), OFF),
}


def made_up_steps(critical: Sequence[float], target: float = 0.3) -> pd.DataFrame:
    """Return `runs_to_target` of S = S_min·(1 + B_crit/B), with the critical batch size of each seed."""
    rows = [
        {
            **{"batch_size": size, "learning_rate": 0.1, "setting": f"bs{size}-lr0.1", "seed": seed},
            **{"status": "converged", "target": "loss", "target_value": target, "evaluations": 5, "epochs": 1.0},
            **{"steps": steps, "examples": steps * size, "cpu_seconds": 1.0, "seconds": 1.0},
        }
        for size in SIZES
        for seed, (factor, batch) in enumerate(zip(SEEDS, critical, strict=False))
        for steps in [100 * factor * (1 + batch / size)]
    ]
    return pd.DataFrame(rows)


def made_up_tables(
    critical: float | Sequence[float] = 50.0, best_rate: float = 0.02, exponent: float = 0.0, target: float = 0.3
) -> dict[str, pd.DataFrame]:
    """Return the tables of a study.

    Args:
        critical: Its critical batch size, or that of each seed.
        best_rate: The best learning rate at batch size 16: the vertex of a parabola in the logarithm of the loss.
        exponent: By which power the best learning rate follows the batch size.
        target: The loss up to which steps are counted.
    """
    by_seed = (critical,) * len(SEEDS) if isinstance(critical, float) else tuple(critical)
    return {name: table.copy() for name, table in _make_tables(by_seed, best_rate, exponent, target).items()}


@cache
def _make_tables(
    critical: tuple[float, ...], best_rate: float, exponent: float, target: float
) -> dict[str, pd.DataFrame]:
    losses = {
        (size, rate): [0.1 * factor * np.exp(np.log(rate / best) ** 2 / 4) for factor in SEEDS]
        for size in SIZES
        for best in [best_rate * (size / SIZES[0]) ** exponent]
        for rate in RATES
    }
    runs = synthetic_runs(losses)
    best = best_lr.tabulate(lr_grid.tabulate(runs, metrics=METRICS))
    reached = made_up_steps(critical, target)
    settings = steps_to_target.tabulate(reached)
    return {
        "runs": runs,
        "recommendation": recommendation.tabulate(runs, best, metrics=METRICS),
        "scaling": scaling.tabulate(runs),
        "runs_to_target": reached,
        "steps_to_target": settings,
        "critical_batch": critical_batch.tabulate(reached, settings),
        "regimes": regimes.tabulate(reached, settings),
    }


def made_up_study(
    name: str,
    tables: Mapping[str, pd.DataFrame] | None = None,
    *,
    sha256: str = "d" * 64,
    training_examples: int = 800,
    parameters: int = 100,
    **sections: Any,
) -> StudyTables:
    """Return a study in memory; `sections` override those of `SETTINGS`."""
    study = Study.from_mapping(merge_mappings(SETTINGS, {"name": name, **sections}), "s.yaml")
    return StudyTables(
        name,
        flatten(dump_with_defaults(study)),
        Measures.from_settings(study.specs.measures),
        sha256,
        training_examples,
        parameters,
        made_up_tables() if tables is None else tables,
    )


def write_study_file(path: Path, **sections: Any) -> Path:
    """Write the study file of `SETTINGS` with some sections overridden."""
    path.write_text(to_yaml(merge_mappings(SETTINGS, sections)))
    return path


def write_finished(
    folder: Path,
    tables: Mapping[str, pd.DataFrame] | None = None,
    spec: Mapping[str, Any] | None = None,
    **sections: Any,
) -> Path:
    """Write the folder of a finished study with its report last; `spec` overrides that of its runs."""
    study = Study.from_mapping(merge_mappings(SETTINGS, {"name": folder.name, **sections}), "s.yaml")
    tables = made_up_tables() if tables is None else tables
    for name, table in tables.items():
        write_frame(folder / "tables" / f"{name}.csv", table)
    write_json(folder / "network.json", {"batch_norm": False, "weighted": False})
    # The runs that are read: the first one, and that of the recommended setting.
    recommended = tables["recommendation"]["setting"].iloc[0]
    for name in {next(iter(study.runs)), f"{recommended}-seed0"}:
        run = write_run(folder / "runs" / name)
        summary = read_json(run.run_file, Summary, "")
        values = {"batch_size": study.runs[name].batch_size, "learning_rate": study.runs[name].learning_rate}
        summary["spec"] |= values | dict(spec or {})
        run.write_summary(summary)
    finish(folder, study)
    return folder


def finish(folder: Path, study: Study) -> None:
    """Write what is read of the report, later than all other files."""
    report = folder / "report.html"
    config = html.escape(to_yaml(dump_with_defaults(study)))
    report.write_text(f'<details class="config" id="config">\n<pre class="wide" tabindex="0">{config}</pre>\n')
    later = max(path.stat().st_mtime for path in folder.rglob("*")) + 1
    os.utime(report, (later, later))
