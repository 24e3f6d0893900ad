"""Synthetic studies with the rows of all their analyses and tables, for tests of figures and of the report."""

import json
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from batchscape.config.study import Run
from batchscape.report.finalists import choose_finalists
from batchscape.study.registry import TABLES, Artifact
from batchscape.study.study import Study

RUN_COLUMNS = ["run", "setting", "batch_size", "learning_rate", "seed", "status"]
TUNED_RATE = 0.03
"""The rate that the synthetic search selects for each batch size."""


def lead_columns(name: str, run: Run, diverged: bool) -> dict[str, object]:
    """Return the leading columns of each row of an analysis."""
    what = (name, run.setting, run.batch_size, run.learning_rate or TUNED_RATE, run.seed)
    return dict(zip(RUN_COLUMNS, (*what, "diverged" if diverged else "converged"), strict=True))


def make_study(batch_sizes: list[int], rates: list[float], seeds: list[int], *, batch_warmup: bool = False) -> Study:
    mapping = {
        "name": "synthetic",
        "grid": {"batch_sizes": batch_sizes, "learning_rates": rates, "seeds": seeds},
        "training": {"checkpoints": [1]},
        "comparison": {"fixed_learning_rate": rates[0], "high_learning_rate": rates[-1]},
        "trajectory": {"enabled": True},
        "curvature": {"enabled": True},
        "spectral_density": {"enabled": True},
        "branching": {"enabled": True, "factors": [2], "batch_warmup": batch_warmup},
    }
    return Study.from_mapping(mapping, "synthetic")


def make_analyses(
    study: Study,
    epochs: int,
    diverges: Callable[[Run], bool],
    metrics: Sequence[str] = ("accuracy",),
    offset: float = 0.0,
    has_test: bool = False,
) -> dict[str, pd.DataFrame]:
    """Return the rows of all analyses, where the values of a run are simple functions of its setting and seed.

    Args:
        study: The study.
        epochs: Epochs of the runs of seed 0; another seed trains its number of epochs longer.
        diverges: Whether a run diverges.
        metrics: Names of the metrics. Each equals the loss, except for `r2`, which is negative.
        offset: What is added to all losses.
        has_test: Whether the data has a test side.
    """
    runs, history, distance, moves, norms = [], [], [], [], []
    for name, run in study.runs.items():
        diverged = diverges(run)
        lead = lead_columns(name, run, diverged)
        loss = (
            np.nan
            if diverged
            else offset + 0.1 + abs(np.log(lead["learning_rate"] / run.batch_size)) / 100 + run.seed / 1000
        )
        length = 1 if diverged else epochs + run.seed
        row = dict.fromkeys(("min_train_loss", "best_validation_loss"), loss)
        row |= {f"validation_{metric}_at_best": -loss if metric == "r2" else loss for metric in metrics}
        if has_test:
            row |= {f"test_{name}": -loss if name == "r2" else loss for name in ("loss", *metrics)}
        times = dict.fromkeys(("epoch_seconds", "epoch_cpu_seconds"), run.batch_size / 100)
        to_best = dict.fromkeys(("seconds_to_best", "cpu_seconds_to_best"), np.nan if diverged else run.batch_size)
        row |= dict.fromkeys(("best_epoch", "best_evaluation"), np.nan if diverged else length)
        runs.append({**lead, "epochs": length, **row, **times, **to_best, "device": "cpu"})
        for epoch in range(1, length + 1):
            values = np.nan if diverged else loss + 1 / epoch
            losses = [f"{side}_{name}" for side in ("train", "validation") for name in ("loss", *metrics)]
            times = {"epoch": epoch, "step": epoch * -(-1000 // run.batch_size), "examples": epoch * 1000}
            times |= {"train_seconds": 1 + 32 / run.batch_size, "train_cpu_seconds": 1 + 16 / run.batch_size}
            noise = {"gradient_norm": abs(values), "noise_scale": abs(values) * epoch if epoch in (1, 2, 4) else np.nan}
            way = {"distance": np.nan if diverged else np.sqrt(epoch / run.batch_size)}
            history.append({**lead, **times, **dict.fromkeys(losses, values), **way, **noise})
            moves.append({**lead, "epoch": epoch, "epoch_distance": np.nan if diverged else 1 / run.batch_size / epoch})
        scale = np.nan if diverged else 1 / run.batch_size
        distance += [{**lead, "layer": layer, "distance": scale} for layer in ("all layers", "conv1", "output")]
        norms += [{**lead, "updates": 10 * length, "percentile": p, "update_norm": p * scale} for p in range(1, 100)]
    return {
        "tables/runs": pd.DataFrame(runs),
        "analysis/confirmation": make_confirmation(study, pd.DataFrame(runs)),
        "analysis/history": pd.DataFrame(history),
        "analysis/distance": pd.DataFrame(distance),
        "analysis/epoch_distance": pd.DataFrame(moves),
        "analysis/update_norms": pd.DataFrame(norms),
        "tables/trial_runs": make_trial_runs(study, diverges, offset),
        "analysis/devices": make_timing(study),
        "analysis/branching": make_branching(study, diverges),
        **make_surface_analyses(study, diverges, metrics, offset),
    }


def make_confirmation(study: Study, runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of the confirmation: the first run of each finalist, with another loss for each seed."""
    tuned = {size: {"learning_rate": TUNED_RATE} for size in study.grid.batch_sizes}
    measured = {setting: {"stages": []} for setting in study.paths.batch_stages_files}
    finalists = choose_finalists(runs, json.loads(study.specs.finalists), tuned, measured).finalists
    rows = []
    for name, (rank, seed) in study.confirmation_runs.items():
        finalist = finalists[rank - 1]
        row = runs[runs["setting"] == finalist.setting].iloc[0].to_dict()
        row |= {"run": name, "seed": seed, "diverged_in_grid": int(finalist.diverged)}
        rows.append({"rank": rank, **row, "best_validation_loss": row["best_validation_loss"] + (seed - 1000) / 1000})
    return pd.DataFrame(rows)


def make_trial_runs(study: Study, diverges: Callable[[Run], bool], offset: float = 0.0) -> pd.DataFrame:
    """Return the runs of a search whose loss is lowest at `TUNED_RATE`."""
    rows = []
    low, high = study.tuning.hyperparameters.learning_rate
    for batch_size in study.grid.batch_sizes:
        for trial, rate in enumerate((low, TUNED_RATE, high)):
            diverged = diverges(Run(batch_size, rate, 0))
            loss = np.inf if diverged else offset + 0.1 + abs(np.log(rate / TUNED_RATE))
            what = {"batch_size": batch_size, "trial": trial, "stage": "grid", "seed": 5, "learning_rate": rate}
            how = {"status": "diverged" if diverged else "completed", "best_epoch": 3.0, "examples": 3000}
            cost = {"trainings": 0.1, "cpu_seconds": 0.1, "is_best": int(rate == TUNED_RATE)}
            rows.append({**what, "validation_loss": loss, **how, **cost})
    return pd.DataFrame(rows)


def make_branching(study: Study, diverges: Callable[[Run], bool]) -> pd.DataFrame:
    """Return branches whose loss is 1 % higher for twice the batch size, but not from the first point on."""
    rows = []
    for part, (name,) in study.plan.runs_by_part("branching").items():
        run = study.runs[name]
        point = part.rpartition("at")[2]
        epoch = int(point.removesuffix("epochs"))
        status = "not reached" if diverges(run) else "completed"
        where = {"examples": 1000.0 * epoch, "epoch": float(epoch), "step": 10.0 * epoch}
        for factor in study.plan.branch_factors:
            excess = 0.01 + run.seed / 1000 if (epoch, factor) == (1, 2) else 0.0
            losses = {"train_loss": (1 + excess) / epoch, "validation_loss": 1.0}
            values = {**where, "branch_steps": 10.0, "branch_examples": 1000.0, **losses}
            values = dict.fromkeys(values, np.nan) if status == "not reached" else values
            sizes = {"factor": factor, "branch_batch_size": factor * run.batch_size, "branch_learning_rate": 0.1}
            lead = lead_columns(name, run, diverges(run))
            rows.append({**lead, "point": point, **sizes, **values, "branch_status": status})
    return pd.DataFrame(rows)


def make_timing(study: Study) -> pd.DataFrame:
    """Return epoch times on one and two devices; four devices are not available."""
    where = {"device": "cpu", "processor": "a processor", "cores": 2, "other_cores": 0.5}
    rows = []
    for batch_size in study.grid.batch_sizes:
        times = {1: 2.0, 2: 1.0 + 1 / batch_size}
        rows += [
            {"batch_size": batch_size, "devices": devices, **where, "epoch": epoch, "seconds": seconds + 0.01 * epoch}
            for devices, seconds in times.items()
            for epoch in (1, 2, 3)
        ]
        rows.append({"batch_size": batch_size, "devices": 4, "epoch": 0})
    return pd.DataFrame(rows)


def make_surface_analyses(
    study: Study, diverges: Callable[[Run], bool], metrics: Sequence[str] = ("accuracy",), offset: float = 0.0
) -> dict[str, pd.DataFrame]:
    """Return the rows of the analyses of the loss surface; nan for runs that diverged."""
    sharpness, alignment, lines, planes, ways, curvature, spectrum = [], [], [], [], [], [], []
    for name, run in study.runs.items():
        if run.setting not in study.plan.arm_settings:
            continue
        bad = np.nan if diverges(run) else 1.0
        lead = lead_columns(name, run, diverges(run))
        lead |= {"checkpoint": "best", "batch_norm": "none", "examples": 100}
        for measure, radius, share in (
            ("keskar", 1e-3, 1),
            ("keskar", 5e-4, 0.5),
            ("adaptive", 0.01, 1),
            ("hessian_trace", 0.0, 1),
        ):
            counts = dict.fromkeys(("evaluations", "iterations", "on_bounds"), 10)
            value = bad * run.batch_size * (1 + run.seed) * share
            sharpness.append(
                {
                    **lead,
                    "measure": measure,
                    "radius": radius,
                    "value": value,
                    "loss": bad,
                    **counts,
                    "not_computed": "none",
                }
            )
        for power in range(5):
            norms = {"gradient_norm": bad / 2 ** (power / 2), "bound": bad, "alignment": 1 / 2 ** (power / 2)}
            alignment.append({**lead, "gradient_batch": 2**power, **norms})
        if run.setting in study.plan.contrasted_settings:
            curvature += make_curvature(lead, bad, run)
            spectrum += make_spectrum(lead, bad, run)
        if run.seed == study.grid.seeds[0] and run.setting in study.plan.contrasted_settings:
            for x in (-1.0, 0.0, 1.0, 2.0):
                for y in (-0.5, 0.0, 0.5):
                    loss = bad * (run.batch_size + x * x + y + 100 * offset)
                    cell = {**lead, "x": x, "y": y, "loss": loss, **dict.fromkeys(metrics, 0.5)}
                    planes.append({**cell, "direction_seed": 0})
                    ways.append(
                        {
                            **cell,
                            "epoch": np.nan,
                            "checkpoint": "none",
                            "explained_variance_x": 0.9,
                            "explained_variance_y": 0.1,
                        }
                    )
            for epoch, checkpoint in enumerate(("init", "epoch00001", "best")):
                place = {"x": float(epoch) - 1, "y": 0.1 * epoch, "loss": bad, **dict.fromkeys(metrics, 0.5)}
                shares = {"explained_variance_x": 0.9, "explained_variance_y": 0.1}
                ways.append({**lead, **place, **shares, "epoch": epoch, "checkpoint": checkpoint})
    seed = study.grid.seeds[0]
    for first, second in study.plan.interpolated_pairs:
        one, other = f"{first}-seed{seed}", f"{second}-seed{seed}"
        for alpha in np.linspace(-1, 2, 7):
            lost = diverges(study.runs[one]) or diverges(study.runs[other])
            status = "diverged" if lost else "converged"
            pair = {"first": first, "second": second, "seed": seed, "status": status}
            names = [f"{side}_{what}" for side in ("train", "validation") for what in ("loss", *metrics)]
            losses = {name: alpha**2 + 0.1 + offset * name.endswith("loss") for name in names}
            counts = {"examples": 100, "validation_examples": 50}
            lines.append({**pair, "checkpoint": "best", "batch_norm": "none", "alpha": alpha, **losses, **counts})
    return {
        "analysis/sharpness": pd.DataFrame(sharpness),
        "analysis/gradient_alignment": pd.DataFrame(alignment),
        "analysis/interpolation": pd.DataFrame(lines),
        "tables/landscape": pd.DataFrame(planes),
        "tables/trajectory": pd.DataFrame(ways),
        "analysis/curvature": pd.DataFrame(curvature),
        "analysis/spectral_density": pd.DataFrame(spectrum),
    }


def make_spectrum(lead: dict[str, object], bad: float, run: Run) -> list[dict[str, object]]:
    """Return the nodes of two probes, and the traces of two layers, at the best weights of a run."""
    rows, nothing = [], {"eigenvalue": np.nan, "weight": np.nan, "trace": np.nan, "not_computed": "none"}
    for probe in (1, 2):
        for eigenvalue, weight in ((-0.1, 0.2), (0.0, 0.7), (10.0 * run.batch_size, 0.1)):
            node = {"eigenvalue": bad * eigenvalue, "weight": bad * weight}
            rows.append({**lead, "probe": probe, "layer": "all layers", **nothing, **node})
        for layer, trace in (("conv1", 1.0), ("output", 2.0), ("all layers", 3.0)):
            rows.append({**lead, "probe": probe, "layer": layer, **nothing, "trace": bad * (trace + probe)})
    return rows


def make_curvature(lead: dict[str, object], bad: float, run: Run) -> list[dict[str, object]]:
    """Return the curvature of a run by checkpoint, without a preconditioner; the best weights are the last ones."""
    rows = []
    for epoch, checkpoint in ((0, "init"), (1, "epoch00001"), (6, "best"), (6, "last")):
        product = bad * (0.5 + epoch / 4 + run.seed / 10) * (run.batch_size / 32) ** 0.1
        of_hessian = {"hessian_eigenvalue": 10 * product, "eigenvalue_times_rate": product}
        of_batches = {
            "batch_sharpness": 12 * product, "batch_sharpness_se": 1.0, "batch_sharpness_times_rate": 1.2 * product,
        }  # fmt: skip
        no_adam = ("preconditioned_eigenvalue", "preconditioned_times_rate", "preconditioned_edge")
        of_weights = {"loss": bad, "gradient_norm": bad, "weight_norm": bad, "gradient_norm/conv1": bad}
        place = {"epoch": epoch * bad, "step": 10 * epoch * bad, "edge": 2.0}
        place |= {"step_batch_size": run.batch_size, "step_learning_rate": lead["learning_rate"]}
        rows.append(
            {
                **lead, "checkpoint": checkpoint, **place, **of_hessian, **of_batches, **dict.fromkeys(no_adam, np.nan),
                **of_weights, "not_computed": "none",
            }
        )  # fmt: skip
    return rows


def build(
    study: Study,
    kind: str,
    name: str,
    product: Artifact,
    frames: dict[str, pd.DataFrame],
    measures: dict[str, Any] | None = None,
) -> object:
    """Return a table or figure of a study; `measures` replaces those of the study."""
    settings = json.loads(study.specs.artifact(product))
    if measures:
        own = {"measures": measures, "metrics": [metric["name"] for metric in measures["metrics"]]}
        settings |= {key: value for key, value in own.items() if key in settings}
    module = import_module(f"batchscape.report.{kind}.{name}")
    make = module.tabulate if kind == "tables" else module.draw
    sources = [frames[source].copy() for source in product.sources]
    optional = {Path(name).name: frames[name].copy() for name in study.plan.optional_sources(product)}
    return make(*sources, **optional, **settings)


def add_tables(
    study: Study, frames: dict[str, pd.DataFrame], measures: dict[str, Any] | None = None
) -> dict[str, pd.DataFrame]:
    """Return the frames with all tables of a study; `measures` replaces those of the study."""
    frames = dict(frames)
    for name, product in TABLES.items():  # the registry lists a table after its sources
        if name not in study.plan.tables:  # with one batch size there is no pair to interpolate
            continue
        frames[f"tables/{name}"] = build(study, "tables", name, product, frames, measures)
    return frames


SCENARIOS = {
    "plain": (make_study([32, 64, 256], [0.01, 0.1], [0, 1, 2]), 6, lambda _: False),
    "one batch size": (make_study([32], [0.01, 0.1], [0, 1]), 6, lambda _: False),
    "one learning rate": (make_study([32, 64], [0.01], [0, 1], batch_warmup=True), 6, lambda _: False),
    "one seed and one epoch": (make_study([32, 64], [0.01, 0.1], [0]), 1, lambda _: False),
    "many of each": (make_study([2**k for k in range(10)], [0.001 * 2**k for k in range(8)], [0]), 3, lambda _: False),
    "one diverged run": (make_study([32, 64], [0.01, 0.1], [0, 1]), 6, lambda run: run == Run(32, 0.1, 1)),
    "the fixed rate diverges": (make_study([32, 64], [0.01, 0.1], [0, 1]), 6, lambda run: run.learning_rate == 0.01),
    "the large batch diverges": (make_study([32, 64], [0.01, 0.1], [0, 1]), 6, lambda run: run.batch_size == 64),
    "every run diverges": (make_study([32, 64], [0.01, 0.1], [0, 1], batch_warmup=True), 6, lambda _: True),
}  # fmt: skip


@cache
def load_scenario(name: str) -> tuple[Study, dict[str, pd.DataFrame]]:
    """Return the study of a scenario and its frames with all tables; cached, so do not modify them."""
    chosen, epochs, diverges = SCENARIOS[name]
    return chosen, add_tables(chosen, make_analyses(chosen, epochs, diverges))
