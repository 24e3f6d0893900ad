"""An edit reruns exactly the jobs that depend on it: no result is outdated, and nothing trains without need."""

import copy
import io
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from batchscape.cli.extend import extend
from batchscape.config.base import Section
from batchscape.config.budget import Budget
from batchscape.study.registry import FIGURES, TABLES
from batchscape.study.study import Study
from batchscape.study.training_rules import group_seeds
from tests.helpers.checkout import PROJECT, Checkout

pytestmark = pytest.mark.slow

SMOKE = Study.from_file(PROJECT / "config" / "smoke.yaml")
TRAIN = {f"train {run}" for run in SMOKE.runs}
OVER_RUNS = {f"analyze {name}" for name in ("runs", "history", "distance", "epoch_distance", "update_norms")}
ALL_TABLES = {f"table {name}" for name in TABLES}
ALL_FIGURES = {f"figure {name}" for name in FIGURES}
AT_FIXED_LR = {f"bs{batch_size}-lr0.02" for batch_size in (64, 128, 256)}
SHOWN_RUNS = {"bs64-lr0.02-seed0", "bs256-lr0.02-seed0"}
# The settings of all arms, each once: fixed, linear (64 and 256 are in the grid), mine, tuned, high and batch_warmup.
IN_ARMS = {
    *("bs64-lr0.02", "bs128-lr0.02", "bs256-lr0.02"),
    "bs128-lr0.04",
    *("bs64-lr0.08", "bs128-lr0.08", "bs256-lr0.08"),
    *("bs64-lrtuned", "bs128-lrtuned", "bs256-lrtuned"),
    "bs64-lr0.02-batchwarmup",
}
# The jobs of each analysis of the loss surface, then the tables and figures made from their rows.
SHARPNESS_JOBS = {f"analyze {setting}: sharpness" for setting in IN_ARMS}
ALIGNMENT_JOBS = {f"analyze {setting}: gradient_alignment" for setting in AT_FIXED_LR}
LINE_JOBS = {f"analyze bs64-lr0.02: interpolation to bs256-lr{rate}" for rate in ("0.02", "0.08")}
PLANE_JOBS = {
    f"analyze {run}: landscape {directions}, part {part} of 2"
    for run in SHOWN_RUNS
    for directions in (0, 1)
    for part in (1, 2)
}
TRAJECTORY_JOBS = {f"analyze {setting}: trajectory" for setting in ("bs64-lr0.02", "bs256-lr0.02")}
DENSITY_JOBS = {f"analyze {setting}: spectral_density" for setting in ("bs64-lr0.02", "bs256-lr0.02")}
CURVATURE_JOBS = {f"analyze {setting}: curvature" for setting in ("bs64-lr0.02", "bs256-lr0.02")}
BY_ARM = {"table scaled_lr"} | {f"figure {name}_before_after" for name in ("convergence", "distance", "sharpness")}
CLAIMS = {"table claims", "figure claims"}
FROM_ARM_RUNS = {"table arm_runs"} | BY_ARM | CLAIMS
FROM_SHARPNESS = {"gather analysis/sharpness", "table sharpness", "figure sharpness"} | FROM_ARM_RUNS
FROM_ALIGNMENT = {"gather analysis/gradient_alignment", "table gradient_alignment", "figure gradient_alignment"}
FROM_LINES = {"gather analysis/interpolation", "table interpolation", "figure interpolation"}
FROM_PLANES = {"gather tables/landscape", "figure landscape"}
FROM_TRAJECTORIES = {"gather tables/trajectory", "figure trajectory"}
FROM_CURVATURE = {"gather analysis/curvature", "table curvature", "figure curvature"} | CLAIMS
# Of two batch sizes each, with their colors among all of the study.
COLORED_BY_BATCH_SIZE = {"figure curvature", "figure spectral_density"}
FROM_DENSITY = {"gather analysis/spectral_density", "table spectral_density", "figure spectral_density"}
FROM_TARGET = {
    *("table runs_to_target", "table steps_to_target", "table critical_batch", "table regimes", "table frontier"),
    *("figure steps_to_target", "figure frontier"),
}
SHARPNESS, ALIGNMENT, LINES = SHARPNESS_JOBS | FROM_SHARPNESS, ALIGNMENT_JOBS | FROM_ALIGNMENT, LINE_JOBS | FROM_LINES
PLANES, TRAJECTORIES = PLANE_JOBS | FROM_PLANES, TRAJECTORY_JOBS | FROM_TRAJECTORIES
CURVATURE = CURVATURE_JOBS | FROM_CURVATURE
DENSITY = DENSITY_JOBS | FROM_DENSITY
FROM_BRANCHES = {
    *("gather analysis/branching", "table branches", "table branching", "figure branching", "table batch_schedule"),
} | CLAIMS
BRANCH_JOBS = {"analyze bs64-lr0.02-seed0: branching at 2epochs"}
STAGES = {"stages bs64-lr0.02-batchwarmup"}
BRANCHING = BRANCH_JOBS | FROM_BRANCHES | STAGES
SURFACES = SHARPNESS | ALIGNMENT | LINES | PLANES | TRAJECTORIES | CURVATURE | DENSITY
OF_CONTRASTED = ("trajectory", "curvature", "spectral_density")
SURFACE_ANALYSES = {"sharpness", "gradient_alignment", "interpolation", "landscape", *OF_CONTRASTED}
FROM_CONTRASTED = FROM_PLANES | FROM_TRAJECTORIES | FROM_CURVATURE | FROM_DENSITY
FROM_TUNED_LR = {"table tuned_lr", "figure lr_search", "table recommendation"}
FROM_SCALING = {"table scaling", "figure lr_effect"}
FROM_TRIALS = {"gather tables/trial_runs", "table trials"} | FROM_TUNED_LR | FROM_SCALING
SEARCH = {"tune 64", "tune 128", "tune 256"} | FROM_TRIALS
CONFIRMATION_RUNS = {"confirm rank1-seed1000", "confirm rank1-seed1001"}
CONFIRMATION = {"finalists", "analyze confirmation", "table confirmation"} | CONFIRMATION_RUNS
TIMING = {"time devices", "table devices", "figure devices"}
AGGREGATED = TIMING | CONFIRMATION | OVER_RUNS | ALL_TABLES | ALL_FIGURES | SURFACES | SEARCH | BRANCHING
# What depends on the runs, and not only on the search; the timing depends on neither.
AFTER_TRAINING = AGGREGATED - SEARCH - TIMING | {"table recommendation"} | FROM_SCALING
# The same without the analyses of the loss surface and the branches, which use other runs than the added or removed
# ones; the figure of the branches shows the noise scale too, and `batch_schedule` compares runs.
OVER_ALL_RUNS = AFTER_TRAINING - SURFACES - BRANCHING | FROM_ARM_RUNS | {"figure branching", "table batch_schedule"}
EVERYTHING = {"prepare", "network"} | TRAIN | AGGREGATED
TRAIN_TUNED = {f"train bs{batch_size}-lrtuned-seed{seed}" for batch_size in (64, 128, 256) for seed in (0, 1)}


def with_report(jobs: set[str]) -> set[str]:
    """Return the jobs, and the report if there are any: it depends on all."""
    return jobs | {"report"} if jobs else jobs


def train_jobs(batch_sizes: list[int], rates: list[str], seeds: list[int]) -> set[str]:
    return {f"train bs{b}-lr{rate}-seed{s}" for b in batch_sizes for rate in rates for s in seeds}


def landscape_jobs(run: str) -> set[str]:
    return {f"analyze {run}: landscape {directions}, part {part} of 2" for directions in (0, 1) for part in (1, 2)}


def branch_jobs(run: str, point: str = "2epochs") -> set[str]:
    """Return the job of the branches of a run from a point on."""
    return {f"analyze {run}: branching at {point}"}


def contrasted_jobs(setting: str) -> set[str]:
    """Return the jobs that only the small and the large batch size have by default."""
    return landscape_jobs(f"{setting}-seed0") | {f"analyze {setting}: {name}" for name in OF_CONTRASTED}


def sharpness_jobs(*settings: str) -> set[str]:
    return {f"analyze {setting}: sharpness" for setting in settings} | FROM_SHARPNESS


def warmup_jobs(setting: str) -> set[str]:
    """Return the jobs of the batch size warm-up of a setting."""
    trainings = {f"train {setting}-batchwarmup-seed{seed}" for seed in (0, 1)}
    return {f"stages {setting}-batchwarmup"} | trainings | sharpness_jobs(f"{setting}-batchwarmup") | OVER_ALL_RUNS


def alignment_jobs(*settings: str) -> set[str]:
    return {f"analyze {setting}: gradient_alignment" for setting in settings} | FROM_ALIGNMENT


def jobs_at_rate(rate: str) -> set[str]:
    """Return the jobs on the loss surface, except the sharpness, and the branches at this rate, if it were the fixed
    one."""
    settings = [f"bs{batch_size}-lr{rate}" for batch_size in (64, 128, 256)]
    of_surface = alignment_jobs(*settings) | contrasted_jobs(settings[0]) | contrasted_jobs(settings[-1])
    of_branches = branch_jobs(f"{settings[0]}-seed0") | FROM_BRANCHES | warmup_jobs(settings[0])
    return of_surface | FROM_CONTRASTED | of_branches


# The custom arm of the smoke study.
MINE = {"learning_rates": {64: 0.02, 256: 0.08}}
# What a changed search reruns.
RETUNED = SEARCH | TRAIN_TUNED | OVER_ALL_RUNS | sharpness_jobs("bs64-lrtuned", "bs128-lrtuned", "bs256-lrtuned")

# What changed branches or their tolerance rerun besides.
WARMUP = warmup_jobs("bs64-lr0.02")

# What another network or loss reruns.
RETRAINED = {"network"} | TRAIN | AGGREGATED

# For each key of a study file: new values, and the exact set of jobs that each makes stale.
EDITS: dict[str, list[tuple[Any, set[str]]]] = {
    "name": [("another", EVERYTHING)],
    # Nothing trains: the runs are added to the tracker.
    "tracking": [(["csv"], {"track"})],
    # Resources change how fast a result is computed, not the result.
    "resources.devices": [(2, set())],
    "resources.nodes": [(2, set())],
    "resources.seeds_per_job": [(1, set()), (3, set())],
    "resources.jobs_per_gpu": [(2, set())],
    # How figures look changes no table.
    "figures.width": [(3.3, ALL_FIGURES)],
    "figures.font_size": [(7, ALL_FIGURES), ("8", set())],
    "figures.titles": [(False, ALL_FIGURES)],
    "figures.formats": [(["svg"], ALL_FIGURES), (["png", "pdf"], set())],
    "data.source": [("digits", set())],
    "data.validation_fraction": [(0.25, EVERYTHING)],
    "data.test_fraction": [(0.05, EVERYTHING)],
    "data.stratify": [(True, EVERYTHING)],
    "data.split": [("first", EVERYTHING)],
    "data.split_seed": [(1, EVERYTHING)],
    "data.task": [("digit", EVERYTHING)],
    "grid.batch_sizes": [
        (
            [64, 96, 128, 256],
            train_jobs([96], ["0.02", "0.03", "0.08", "tuned"], [0, 1])
            | {"tune 96"}
            | FROM_TRIALS
            | OVER_ALL_RUNS
            | sharpness_jobs("bs96-lr0.02", "bs96-lr0.03", "bs96-lr0.08", "bs96-lrtuned")
            | alignment_jobs("bs96-lr0.02")
            | TIMING
            | COLORED_BY_BATCH_SIZE,
        ),
        ([64, 256], OVER_ALL_RUNS | FROM_SHARPNESS | FROM_ALIGNMENT | FROM_TRIALS | TIMING | COLORED_BY_BATCH_SIZE),
        ([256, 128, 64], set()),
    ],
    # The linear arm already has 0.04 for 128.
    "grid.learning_rates": [([0.02, 0.04, 0.08], train_jobs([64, 256], ["0.04"], [0, 1]) | OVER_ALL_RUNS)],
    "grid.seeds": [
        (
            [0, 1, 2],
            {f"train {run.replace('seed1', 'seed2')}" for run in SMOKE.runs if "seed1" in run}
            | OVER_ALL_RUNS
            | SHARPNESS
            | ALIGNMENT
            | LINES
            | CURVATURE
            | DENSITY,
        ),
        ([0], OVER_ALL_RUNS | SHARPNESS | ALIGNMENT | LINES | CURVATURE | DENSITY),
    ],
    "model.name": [("vgg", set())],
    "model.channels": [([4, 4], RETRAINED)],
    "model.convolutions": [(2, RETRAINED)],
    "model.dense": [([], RETRAINED)],
    "model.normalization": [("batch", RETRAINED)],
    "model.dropout": [(0.5, RETRAINED)],
    "task.name": [("classification", set())],
    "task.loss": [("cross_entropy", RETRAINED), ("binary_cross_entropy", RETRAINED)],
    "task.class_weights": [("balanced", RETRAINED), ({}, set())],
    "task.label_smoothing": [(0.1, RETRAINED), (0, set())],
    "task.metrics": [(["torch.nn.functional:soft_margin_loss"], RETRAINED)],
    "training.budget": [({"epochs": 6}, TRAIN | AGGREGATED - TIMING)],
    "training.evaluate_every": [({"epochs": 2}, TRAIN | AGGREGATED - TIMING), ({"epochs": 1}, set())],
    "training.patience": [(3, TRAIN | AGGREGATED - TIMING)],
    "training.reshuffle": [(False, TRAIN | AGGREGATED)],
    "training.augment_flip": [(True, TRAIN | AGGREGATED)],
    "training.augment_shift": [(1, TRAIN | AGGREGATED)],
    "training.precision": [("bf16", TRAIN | AGGREGATED), ("float32", set())],
    "training.checkpoints": [([1, 2], TRAIN | AFTER_TRAINING)],
    "training.accelerator": [("cpu", RETRAINED)],
    "optimizer.name": [("NAdam", RETRAINED), ("SGD", set())],
    "optimizer.arguments": [({"momentum": 0.5}, RETRAINED), ({}, set())],
    "optimizer.decay_biases_and_norms": [(False, RETRAINED)],
    "optimizer.clip_norm": [(0.5, RETRAINED)],
    "schedule.warmup": [({"fraction": 0.5}, TRAIN | AGGREGATED), (None, set())],
    # The edited study does not branch.
    "schedule.decay": [
        ("cosine", {job for job in TRAIN | AGGREGATED - BRANCHING | CLAIMS if "batchwarmup" not in job}),
        ("constant", set()),
    ],
    "schedule.decay_fraction": [(0.5, TRAIN | AGGREGATED)],
    "schedule.final_factor": [(0.5, TRAIN | AGGREGATED)],
    "averaging.half_life": [(1000, TRAIN | AFTER_TRAINING)],
    # The pairs of the smoke study are explicit; the other analyses of the loss surface follow the fixed rate.
    "comparison.fixed_learning_rate": [
        (
            0.08,
            OVER_ALL_RUNS
            | TIMING
            | jobs_at_rate("0.08")
            | train_jobs([128], ["0.16"], [0, 1])
            | train_jobs([256], ["0.32"], [0, 1])
            | sharpness_jobs("bs128-lr0.16", "bs256-lr0.32"),
        ),
        (
            0.01,
            train_jobs([64, 128, 256], ["0.01"], [0, 1])
            | train_jobs([256], ["0.04"], [0, 1])
            | OVER_ALL_RUNS
            | TIMING
            | jobs_at_rate("0.01")
            | sharpness_jobs("bs64-lr0.01", "bs128-lr0.01", "bs256-lr0.01", "bs256-lr0.04"),
        ),
    ],
    "comparison.high_learning_rate": [
        (0.02, {"figure curves_high_lr", "figure curves_scaled_lr"} | FROM_SHARPNESS),
        (
            0.16,
            train_jobs([64, 128, 256], ["0.16"], [0, 1])
            | OVER_ALL_RUNS
            | sharpness_jobs("bs64-lr0.16", "bs128-lr0.16", "bs256-lr0.16"),
        ),
    ],
    # The scaled arms start from the small batch.
    "comparison.small_batch_size": [
        (64, set()),
        (
            128,
            {"figure epoch_distance"}
            | FROM_TUNED_LR
            | contrasted_jobs("bs128-lr0.02")
            | FROM_CONTRASTED
            | branch_jobs("bs128-lr0.02-seed0")
            | FROM_BRANCHES
            | warmup_jobs("bs128-lr0.02")
            | train_jobs([64], ["0.01"], [0, 1])
            | train_jobs([256], ["0.04"], [0, 1])
            | OVER_ALL_RUNS
            | sharpness_jobs("bs64-lr0.01", "bs256-lr0.04"),
        ),
    ],
    "comparison.large_batch_size": [
        (256, set()),
        (
            128,
            {"table epoch_distance", "figure epoch_distance"}
            | CLAIMS
            | contrasted_jobs("bs128-lr0.02")
            | FROM_CONTRASTED,
        ),
    ],
    "comparison.margin": [(0.1, CLAIMS | {"table tolerance", "figure tolerance"}), (0.05, set())],
    "comparison.targets": [([], set()), ([{"loss": 0.65}], FROM_TARGET), ([{"accuracy": 0.9}], FROM_TARGET)],
    "arms": [
        ({"linear": {"rule": "linear"}, "sqrt": {"enabled": False}, "mine": MINE}, set()),
        ({"sqrt": {"enabled": False}}, {"figure curves_scaled_lr"} | FROM_ARM_RUNS),
        (
            {"sqrt": {"enabled": False}, "mine": MINE, "gentle": {"rule": "linear", "warmup": {"epochs": 2}}},
            train_jobs([64], ["0.02-warmup2"], [0, 1])
            | train_jobs([128], ["0.04-warmup2"], [0, 1])
            | train_jobs([256], ["0.08-warmup2"], [0, 1])
            | OVER_ALL_RUNS
            | sharpness_jobs("bs64-lr0.02-warmup2", "bs128-lr0.04-warmup2", "bs256-lr0.08-warmup2"),
        ),
        (
            {"mine": MINE},
            train_jobs([128], ["0.0282843"], [0, 1])
            | train_jobs([256], ["0.04"], [0, 1])
            | OVER_ALL_RUNS
            | sharpness_jobs("bs128-lr0.0282843", "bs256-lr0.04"),
        ),
    ],
    # The search, and the runs at the rates that it finds.
    "tuning.enabled": [(False, OVER_ALL_RUNS | FROM_SHARPNESS)],
    "tuning.hyperparameters.learning_rate": [([0.003, 0.5], RETUNED)],
    "tuning.hyperparameters.momentum": [([0.5, 0.9], RETUNED)],
    "tuning.hyperparameters.weight_decay": [([0.001, 0.1], RETUNED)],
    "tuning.hyperparameters.beta2": [(None, set())],  # which SGD does not have
    "tuning.hyperparameters.warmup": [([0.01, 0.1], RETUNED)],
    "tuning.max_extension": [(3, RETUNED)],
    "tuning.budget": [(5, RETUNED)],
    "tuning.quantile": [(None, RETUNED)],
    "tuning.margin": [(1, RETUNED)],
    "tuning.pruner": [("none", RETUNED)],
    "tuning.finalists.settings": [(1, RETUNED)],
    "tuning.finalists.seeds": [([7], RETUNED)],
    "tuning.startup_trials": [(3, RETUNED)],
    "tuning.trial_budget": [({"epochs": 3}, RETUNED)],
    "tuning.seeds": [([7], RETUNED)],
    "tuning.sampler_seed": [(1, RETUNED)],
    # Another number of finalists chooses them again; the seeds are in the names of the runs.
    "confirmation.enabled": [(False, set())],
    "confirmation.settings": [
        (2, CONFIRMATION | {"confirm rank2-seed1000", "confirm rank2-seed1001"}),
    ],
    "confirmation.seeds": [
        (3, {"confirm rank1-seed1002", "analyze confirmation", "table confirmation"}),
        (1, {"analyze confirmation", "table confirmation"}),
    ],
    # The examples of all analyses of the loss surface, even if a side has fewer than either number.
    "analysis.examples": [(64, SURFACES), (5000, SURFACES)],
    "analysis.seed": [(1, SURFACES)],
    # Settings of an analysis: all its jobs, and nothing trains.
    "sharpness.checkpoints": [(["best"], SHARPNESS)],
    "sharpness.epsilons": [([0.001], SHARPNESS)],
    "sharpness.subspace_dimension": [(20, SHARPNESS)],
    "sharpness.adaptive_radii": [([0.1], SHARPNESS)],
    "sharpness.iterations": [(4, SHARPNESS)],
    "sharpness.random_starts": [(0, SHARPNESS)],
    "sharpness.trace_matvecs": [(9, SHARPNESS)],
    "sharpness.seed": [(1, SHARPNESS)],
    "interpolation.checkpoint": [("last", LINES)],
    "interpolation.alpha_range": [([0, 1], LINES)],
    "interpolation.points": [(9, LINES)],
    "interpolation.batch_norm": [("fixed", LINES)],
    "landscape.checkpoint": [("init", PLANES), (3, PLANES)],
    "landscape.x_range": [([-2, 1], PLANES)],
    "landscape.y_range": [([-2, 1], PLANES)],
    "landscape.points": [([7, 4], PLANES)],
    "landscape.batch_norm": [("fixed", PLANES)],
    "trajectory.points": [([5, 5], TRAJECTORIES)],
    "trajectory.margin": [(0.5, TRAJECTORIES)],
    "trajectory.batch_norm": [("fixed", TRAJECTORIES)],
    "gradient_alignment.checkpoints": [(["best"], ALIGNMENT)],
    "gradient_alignment.max_batch_size": [(32, ALIGNMENT)],
    "gradient_alignment.seed": [(1, ALIGNMENT)],
    "curvature.batches": [(5, CURVATURE)],
    "curvature.seed": [(1, CURVATURE)],
    "spectral_density.checkpoints": [(["best"], DENSITY)],
    "spectral_density.steps": [(6, DENSITY)],
    "spectral_density.probes": [(3, DENSITY)],
    "spectral_density.seed": [(1, DENSITY)],
    "branching.rule": [("sqrt", BRANCH_JOBS | FROM_BRANCHES | WARMUP)],
    "branching.length": [({"epochs": 2}, BRANCH_JOBS | FROM_BRANCHES | WARMUP)],
    "branching.smoothing": [(0.25, BRANCH_JOBS | FROM_BRANCHES | WARMUP)],
    "branching.tolerance": [(0.02, {"table branching", "figure branching"} | CLAIMS | WARMUP)],
    "device_timing.device_counts": [([1, 3], TIMING)],
    "device_timing.epochs": [(3, TIMING)],
    # Which jobs exist: only new ones run.
    "sharpness.enabled": [(False, FROM_ARM_RUNS - {"figure sharpness_before_after"})],
    "interpolation.enabled": [(False, set())],
    "landscape.enabled": [(False, set())],
    "trajectory.enabled": [(False, set())],
    "gradient_alignment.enabled": [(False, set())],
    "curvature.enabled": [(False, CLAIMS)],
    "spectral_density.enabled": [(False, set())],
    "device_timing.enabled": [(False, set())],
    "branching.enabled": [(False, OVER_ALL_RUNS - {"figure branching", "table batch_schedule"} | FROM_SHARPNESS)],
    "branching.batch_warmup": [(False, OVER_ALL_RUNS - {"table batch_schedule"} | FROM_SHARPNESS)],
    # No run trains again to be branched.
    "branching.points": [
        ([{"epochs": 2}, {"epochs": 1}], branch_jobs("bs64-lr0.02-seed0", "1epochs") | FROM_BRANCHES | WARMUP),
    ],
    "branching.factors": [([2, 4], BRANCH_JOBS | FROM_BRANCHES | WARMUP)],
    "branching.settings": [
        (["bs128-lr0.02"], branch_jobs("bs128-lr0.02-seed0") | FROM_BRANCHES | warmup_jobs("bs128-lr0.02")),
    ],
    "branching.seeds": [
        ([1], branch_jobs("bs64-lr0.02-seed1") | FROM_BRANCHES | WARMUP),
        ([0, 1], branch_jobs("bs64-lr0.02-seed1") | FROM_BRANCHES | WARMUP),
    ],
    "interpolation.pairs": [
        ([["bs64-lr0.02", "bs256-lr0.02"]], FROM_LINES),
        (
            [["bs64-lr0.02", "bs256-lr0.02"], ["bs64-lr0.02", "bs128-lr0.08"]],
            FROM_LINES | {"analyze bs64-lr0.02: interpolation to bs128-lr0.08"},
        ),
    ],
    "landscape.settings": [
        (
            ["bs64-lr0.02", "bs256-lr0.02", "bs256-lr0.08"],
            FROM_PLANES | landscape_jobs("bs256-lr0.08-seed0"),
        )
    ],
    "landscape.seeds": [([0], set())],
    "landscape.direction_seeds": [
        ([0], FROM_PLANES),
        (
            [0, 1, 5],
            FROM_PLANES | {f"analyze {run}: landscape 5, part {part} of 2" for run in SHOWN_RUNS for part in (1, 2)},
        ),
    ],
    "landscape.points_per_job": [
        (18, set()),
        (35, FROM_PLANES | {f"analyze {run}: landscape {d}, part 1 of 1" for run in SHOWN_RUNS for d in (0, 1)}),
    ],
    "trajectory.settings": [(["bs64-lr0.02"], FROM_TRAJECTORIES)],
    "curvature.settings": [
        (["bs64-lr0.02"], FROM_CURVATURE),
        (["bs64-lr0.02", "bs256-lrtuned"], FROM_CURVATURE | {"analyze bs256-lrtuned: curvature"}),
    ],
    "spectral_density.settings": [(["bs64-lr0.02"], FROM_DENSITY)],
    "trajectory.seeds": [([0, 1], TRAJECTORIES)],
}

# For modules of each layer of the library: what an edit makes stale, which follows from imports. The first ones must
# not rerun any training.
MODULES = {
    "report/figures/lr_effect.py": {"figure lr_effect"},
    "report/figures/style.py": ALL_FIGURES,
    "report/figures/loss_curves.py": {f"figure curves_{which}_lr" for which in ("fixed", "high", "scaled")},
    "report/figures/by_arm.py": {f"figure {name}_before_after" for name in ("convergence", "distance", "sharpness")},
    "report/tables/scaled_lr.py": BY_ARM,
    "report/figures/loss_map.py": {"figure landscape", "figure trajectory"},
    "report/tables/best_lr.py": {"table best_lr", "table recommendation", "figure lr_effect", "figure lr_plane"}
    | FROM_TARGET - {"table runs_to_target"},
    "report/tables/tuned_lr.py": FROM_TUNED_LR,
    "report/tables/trials.py": {"table trials"} | FROM_TUNED_LR,
    "report/ranking.py": CONFIRMATION | CLAIMS | {"table recommendation"},
    "config/confirmation.py": CONFIRMATION,
    "report/claims/statements.py": CLAIMS,
    "report/page.py": {"report"},
    "report/interactive/views.py": {"report"},
    "report/findings.py": {"report"},
    "report/chapters/beyond.py": {"report"},
    **dict.fromkeys((f"tuning/{name}.py" for name in ("search", "trials", "rules", "space")), RETUNED),
    "config/tuning.py": RETUNED,
    "training/timing.py": TIMING,
    "training/launcher.py": TRAIN | AGGREGATED,
    "training/worker.py": TRAIN | AGGREGATED,
    "report/tables/devices.py": {"table devices", "figure devices"},
    "training/noise_scale.py": TRAIN | AGGREGATED,
    "training/trackers.py": TRAIN | AGGREGATED,
    "report/tables/epoch_distance.py": {"table epoch_distance", "figure epoch_distance"},
    "analysis/update_norms.py": {"analyze update_norms", "table update_norms", "figure update_norms"} | FROM_ARM_RUNS,
    "analysis/distance.py": {"analyze distance", "table distance", "figure distance", "figure distance_by_layer"}
    | FROM_ARM_RUNS
    | DENSITY,
    "analysis/sharpness.py": SHARPNESS | CURVATURE | DENSITY,
    "analysis/spectral_density.py": DENSITY,
    "analysis/curvature.py": CURVATURE,
    "analysis/branching.py": BRANCHING | WARMUP,
    "report/batch_warmup.py": WARMUP,
    "report/tables/batch_schedule.py": {"table batch_schedule", "figure branching"},
    "analysis/landscape.py": PLANES | TRAJECTORIES,
    "analysis/gradient_alignment.py": ALIGNMENT,
    "config/interpolation.py": LINES,
    "config/analysis.py": SURFACES,
    # The search measures the loss before training with these.
    "curvature/loss_surface.py": SURFACES | RETUNED,
    "curvature/inference.py": SURFACES | RETUNED,
    "runtime/progress.py": PLANES | TRAJECTORIES | LINES | ALIGNMENT,
    "io/frames.py": EVERYTHING,  # the manifest is a table, and the search reads histories
    "models/build.py": {"network"} | TRAIN | AGGREGATED,
    "models/vgg.py": {"network"} | TRAIN | AGGREGATED,
    "models/inputs.py": {"network"} | TRAIN | AGGREGATED,
    "models/layers.py": {"network"} | TRAIN | AGGREGATED,
    "tasks/compatibility.py": {"network"} | TRAIN | AGGREGATED,
    "training/sampler.py": TRAIN | AGGREGATED,
    "config/training.py": TRAIN | AGGREGATED,
    "data/digits.py": EVERYTHING,
}
# Modules that decide which jobs exist, but that no job imports, and those of other networks and sources.
UNUSED_BY_JOBS = (
    "config/comparison.py",
    "config/arms.py",
    "config/grid.py",
    "models/resnet.py",
    "models/mlp.py",
    "models/transformer.py",
    "models/custom.py",
    "data/image_folder.py",
    "data/layout.py",
    "data/listing.py",
    "data/custom.py",
    "study/study.py",
    "study/plan.py",
    "study/paths.py",
    "study/specs.py",
    "study/resources.py",
    "study/registry.py",
    "study/fingerprint.py",
    "cli/report.py",
)


def keys(section: Section, prefix: str = "") -> Iterator[str]:
    """Yield the keys of a study and of its sections, of the kinds that it uses."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section) and not isinstance(value, Budget):
            yield from keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def edit_smoke_study(path: str, value: Any) -> str:
    """Return the smoke study with one changed key, as YAML."""
    yaml = YAML(typ="safe", pure=True)
    study = copy.deepcopy(yaml.load((PROJECT / "config" / "smoke.yaml").read_text()))
    *sections, key = path.split(".")
    target = study
    for section in sections:
        target = target.setdefault(section, {})
    target[key] = value
    if (path, value) == ("schedule.decay", "cosine"):
        study["branching"]["enabled"] = False  # which needs a constant rate
    stream = io.StringIO()
    yaml.dump(study, stream)
    return stream.getvalue()


def rule_inputs(study: Study) -> dict[str, Any]:
    """Return all that the rules read from a study, by name: its files, the params of jobs, and their inputs."""
    settings = sorted({run.setting for run in study.runs.values()})
    products = [(f"table {name}", TABLES[name]) for name in TABLES] + [
        (f"figure {name}", FIGURES[name]) for name in FIGURES
    ]
    paths, specs, plan = study.paths, study.specs, study.plan
    files = [*paths.outputs, *(part for name in plan.analyses for part in paths.partial_outputs(name))]
    return {
        "data": specs.data,
        "network": specs.network,
        "finalists": specs.finalists,
        "confirmation": paths.confirmation_summaries,
        "timing": specs.timing,
        "tracking": specs.tracking,
        "figures": specs.figures,
        "report": specs.report,
        **{f"train {study.runs[run].setting}": specs.without_seed(run) for run in study.runs},
        "branch": (specs.branch, specs.branch_factors),
        "batch_warmup": specs.batch_warmup,
        **{f"tune {batch_size}": specs.search(batch_size) for batch_size in study.grid.batch_sizes},
        **{f"analyze {name}": specs.analysis(name) for name in plan.analyses},
        **{
            f"of {name}, {setting}": paths.analyzed_run_summaries(name, setting)
            for name in SURFACE_ANALYSES
            for setting in settings
        },
        **{name: (specs.artifact(product), plan.sources(product)) for name, product in products},
        **dict.fromkeys(files, "exists"),
        "groups": group_seeds(study.grid.seeds, study.resources.seeds_per_job),
        "order": files,
    }


SMOKE_INPUTS = rule_inputs(SMOKE)
# Dry runs by what differs from the smoke study: many keys change the same inputs of rules.
DRY_RUNS: dict[frozenset[str], set[str]] = {}


@contextmanager
def restore_afterwards(path: Path) -> Iterator[Path]:
    """Let a test edit a file of the finished study's checkout, and restore it at the end."""
    before = path.read_bytes()
    try:
        yield path
    finally:
        path.write_bytes(before)


def test_every_key_has_an_edit():
    assert set(EDITS) == set(keys(SMOKE))


def test_second_run_has_nothing_to_do(finished: Checkout):
    assert finished.stale_jobs("config/smoke.yaml") == set()


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [pytest.param(path, value, jobs, id=f"{path}={value}") for path, edits in EDITS.items() for value, jobs in edits],
)
def test_edit_of_a_key_reruns_exactly_what_depends_on_it(
    finished: Checkout, tmp_path: Path, path: str, value: Any, expected: set[str]
):
    config = tmp_path / "edited.yaml"
    config.write_text(edit_smoke_study(path, value))
    inputs = rule_inputs(Study.from_file(config))
    changed = frozenset(
        name for name in SMOKE_INPUTS.keys() | inputs.keys() if inputs.get(name) != SMOKE_INPUTS.get(name)
    )
    if changed not in DRY_RUNS:
        DRY_RUNS[changed] = finished.stale_jobs(config)
    # The report shows the complete study file, so every change of it makes the page again.
    assert DRY_RUNS[changed] == expected | ({"report"} & changed)


def test_params_of_rules_use_only_the_compared_properties():
    params = [
        name
        for file in (PROJECT / "workflow" / "rules").glob("*.smk")
        for block in re.findall(r"\n(?: {4})?    params:\n((?: {8}.*\n)+)", file.read_text())
        for name in re.findall(r"study\.([\w.]+)", block)
    ]
    specs = {
        *("data", "data_files", "network", "without_seed", "finalists", "search", "timing", "analysis", "branch"),
        *("branch_factors", "artifact", "batch_warmup", "tracking", "figures", "report"),
    }
    # The modules follow from the network's name and the data source, which are in these specs.
    modules = {"custom_training_files", "custom_source_files", "model_module", "source_module"}
    assert set(params) == {f"specs.{name}" for name in specs} | modules


def test_extended_study_trains_just_the_runs_of_its_new_seeds(finished: Checkout, tmp_path: Path):
    config = tmp_path / "extended.yaml"
    config.write_text((PROJECT / "config" / "smoke.yaml").read_text())
    extend(config, 2)
    trained = {job for job in finished.stale_jobs(config) if job.startswith(("train ", "tune "))}
    assert trained == {
        f"train {run.replace('seed1', f'seed{seed}')}" for run in SMOKE.runs for seed in (2, 3) if "seed1" in run
    }


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("runs/bs64-lr0.08-seed0/run.json", {"train bs64-lr0.08-seed0"}),
        ("confirmation/rank1-seed1000/run.json", {"confirm rank1-seed1000"}),
        ("analysis/gradient_alignment/bs64-lr0.02.csv", {"analyze bs64-lr0.02: gradient_alignment"}),
        ("analysis/distance.csv", {"analyze distance"}),
        ("branches/bs64-lr0.02-batchwarmup/stages.json", STAGES | {"train bs64-lr0.02-batchwarmup-seed0"}),
        ("confirmation/finalists.json", CONFIRMATION_RUNS | {"finalists"}),
        ("analysis/lr_search/bs64.csv", {"tune 64"}),
        ("data/prepared.safetensors", {"prepare"}),
    ],
)
def test_lost_output_of_a_failed_job_is_made_again_despite_newer_results(
    finished: Checkout, file: str, expected: set[str]
):
    path = finished.path / "results" / "smoke" / file
    moved = path.with_name("moved")
    path.rename(moved)
    try:
        assert expected < finished.stale_jobs("config/smoke.yaml")
    finally:
        moved.rename(path)


def test_comments_number_formats_and_explicit_defaults_rerun_nothing(finished: Checkout, tmp_path: Path):
    study = (PROJECT / "config" / "smoke.yaml").read_text()
    config = tmp_path / "same.yaml"
    config.write_text(
        "# a comment\n"
        + study.replace("fixed_learning_rate: 0.02", "fixed_learning_rate: 2e-2").replace(
            "patience: 2", "patience: 2\n  precision: float32"
        )
    )
    assert finished.stale_jobs(config) == set()


@pytest.mark.parametrize(("module", "expected"), [pytest.param(m, e, id=m) for m, e in MODULES.items()])
def test_edit_of_a_module_reruns_the_jobs_that_import_it(finished: Checkout, module: str, expected: set[str]):
    with restore_afterwards(finished.path / "src" / "batchscape" / module) as file:
        file.write_text(file.read_text() + "\nEDITED = 1\n")
        assert finished.stale_jobs("config/smoke.yaml") == with_report(expected)


def test_edit_of_a_module_that_no_job_imports_reruns_nothing(finished: Checkout):
    with ExitStack() as edited:
        for module in UNUSED_BY_JOBS:
            file = edited.enter_context(restore_afterwards(finished.path / "src" / "batchscape" / module))
            file.write_text(file.read_text() + "\nEDITED = 1\n")
        assert finished.stale_jobs("config/smoke.yaml") == set()


@pytest.mark.parametrize("template", ["page.css", "page.html.jinja", "explore.js"])
def test_edit_of_the_template_reruns_only_the_report(finished: Checkout, template: str):
    with restore_afterwards(finished.path / "src" / "batchscape" / "report" / "template" / template) as file:
        file.write_text(file.read_text() + "\n")
        assert finished.stale_jobs("config/smoke.yaml") == {"report"}


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("prepare.py", EVERYTHING),
        ("network.py", {"network"} | TRAIN | AGGREGATED),
        ("tune.py", RETUNED),
        ("train.py", TRAIN | AFTER_TRAINING),
        ("finalists.py", CONFIRMATION),
        ("batch_warmup.py", WARMUP),
        ("confirm.py", CONFIRMATION - {"finalists"}),
        ("confirmation.py", {"analyze confirmation", "table confirmation"}),
        ("analyze_runs.py", OVER_ALL_RUNS),
        ("analyze_setting.py", SHARPNESS | ALIGNMENT | TRAJECTORIES | CURVATURE | DENSITY),
        ("landscape.py", PLANES),
        ("interpolation.py", LINES),
        ("device_timing.py", TIMING),
        (
            "gather.py",
            FROM_SHARPNESS | FROM_ALIGNMENT | FROM_LINES | FROM_CONTRASTED | FROM_TRIALS | FROM_BRANCHES,
        ),
        ("table.py", ALL_TABLES | (ALL_FIGURES - {"figure landscape", "figure trajectory"})),
        ("figure.py", ALL_FIGURES),
        ("report.py", {"report"}),
    ],
)
def test_edit_of_a_script_reruns_its_jobs(finished: Checkout, script: str, expected: set[str]):
    with restore_afterwards(finished.path / "workflow" / "scripts" / script) as file:
        file.write_text(file.read_text() + "\nEDITED = 1\n")
        assert finished.stale_jobs("config/smoke.yaml") == with_report(expected)


def test_touched_and_commented_code_reruns_nothing(finished: Checkout):
    files = [
        file
        for folder in ("src", "workflow", "profiles", "envs", "config")
        for file in (finished.path / folder).rglob("*")
        if file.suffix in {".py", ".smk", ".yaml"} or file.name == "Snakefile"
    ]
    assert len(files) > 60
    before = {file: file.read_bytes() for file in files}
    try:
        for file in files:
            file.write_bytes(before[file] + b"\n# a comment\n\n")
        assert finished.stale_jobs("config/smoke.yaml") == set()
    finally:
        for file, content in before.items():
            file.write_bytes(content)
