"""Run directories with known numbers, written without training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from batchscape.cli.status import find_specs
from batchscape.io.files import write_json
from batchscape.io.run_directory import RunDirectory
from batchscape.io.weights import write_weights
from batchscape.study.study import Study

LOSSES = [0.9, 0.4, 0.6]
EPOCH_SECONDS = [5.0, 1.0, 2.0]


def write_run(
    path: Path,
    batch_size: int = 32,
    seed: int = 0,
    status: str = "converged",
    metrics: Sequence[str] = ("accuracy",),
    test: Mapping[str, float | None] | None = None,
    spec: Mapping[str, Any] | None = None,
) -> RunDirectory:
    """Write a run of three epochs, of which the second is the best; a diverged run has one epoch and no finite loss.

    Args:
        path: The directory.
        batch_size: Its batch size.
        seed: Its seed.
        status: Its status.
        metrics: Names of the metrics; each is 0.5 on the training and 0.75 on the validation side.
        test: Loss and metrics on the test side; None if the data has none.
        spec: What it trains; None: the defaults at a learning rate of 0.1.
    """
    run = RunDirectory(path)
    diverged = status == "diverged"
    losses = [np.nan] if diverged else LOSSES
    init = {"conv.weight": np.zeros((2, 2), np.float32), "conv.bias": np.zeros(2, np.float32), "out.bias": np.zeros(1)}
    best = {name: array + 1 for name, array in init.items()}
    last = {name: array + 100 for name, array in init.items()}
    for name, state in {"init": init, "last": last, **({} if diverged else {"best": best})}.items():
        write_weights(run.weights_file(name), state, list(init))
    run.write_history(
        [
            {
                "epoch": epoch,
                "step": 7 * epoch,
                "examples": 200 * epoch,
                "train_loss": loss / 2,
                **{f"train_{name}": 0.5 for name in metrics},
                "validation_loss": loss,
                **{f"validation_{name}": 0.75 for name in metrics},
                "train_seconds": EPOCH_SECONDS[epoch - 1],
                "train_cpu_seconds": EPOCH_SECONDS[epoch - 1] / 2,
                "validation_seconds": EPOCH_SECONDS[epoch - 1] / 4,
                "gradient_norm": 0.1,
                "noise_scale": 20.0 if epoch == 1 else np.nan,
                "distance": 3.0 * epoch,
                "epoch_distance": 10.0 * epoch,
            }
            for epoch, loss in enumerate(losses, start=1)
        ]
    )
    run.write_update_norms(np.array([np.inf, 1.0]) if diverged else np.arange(101.0))
    summary = {
        "status": status,
        "evaluations": len(losses),
        "steps": 7 * len(losses),
        "epochs": len(losses),
        "best_step": None if diverged else 14,
        "best_epoch": None if diverged else 2,
        "min_train_loss": None if diverged else 0.2,
        "best_validation_loss": None if diverged else 0.4,
        "validation_at_best": {} if diverged else dict.fromkeys(metrics, 0.75),
        "test_at_best": {} if diverged else dict(test or {}),
        "average_validation": {},
        "average_test": {},
        "parameters": 7,
        "batches_per_epoch": 7,
        "training_examples": 200,
        "validation_examples": 50,
        "test_examples": 0 if test is None else 30,
        "classes": ["a", "b"],
        "spec": spec or {"batch_size": batch_size, "learning_rate": 0.1, "seed": seed},
        "environment": {
            **dict.fromkeys(("python", "platform", "processor"), "x"),
            **{"packages": {}, "cpus": 2, "threads": 1, "device": "cpu", "devices": 1, "nodes": 1, "micro_batch": 32},
        },
        "provenance": {
            **{"run_key": "0", "source_commit": None, "data_sha256": "0"},
            **dict.fromkeys(("started", "finished"), "2026-01-01T10:00:00+00:00"),
        },
    }
    run.write_summary(summary)
    return run


def write_runs_of(study: Study) -> None:
    """Write all runs of a study in the working directory, and of its confirmation, with the settings it has now."""
    for tuned in map(Path, study.paths.tuned_files.values()):
        write_json(tuned, {"learning_rate": 0.1})
    specs = find_specs(study)
    ranked = {run.setting: specs[name] for name, run in study.runs.items()}
    finalists = [
        {"setting": setting, "diverged": False, "spec": spec.model_dump(mode="json", exclude={"seed"})}
        for setting, spec in ranked.items()
    ]
    write_json(Path(study.paths.finalists), {"finalists": finalists})
    specs = find_specs(study)
    for file in map(Path, (*study.paths.run_summaries, *study.paths.confirmation_summaries)):
        folder = "confirmation/" if file.parents[1].name == "confirmation" else ""
        write_run(file.parent, spec=specs[f"{folder}{file.parent.name}"].model_dump(mode="json"))
