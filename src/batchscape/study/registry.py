"""The registry of analyses, tables and figures, and what each is made from."""

from dataclasses import dataclass
from enum import Enum


class JobSplit(Enum):
    """How the work of an analysis is split into jobs.

    Except for the first three, the rows of all jobs are gathered into one file afterwards.
    """

    ALL_RUNS = "one job reads the files of all runs"
    NO_RUNS = "one job reads no run"
    CONFIRMATION_RUNS = "one job reads the files of all runs of the confirmation"
    BATCH_SIZES = "one job per batch size"
    ARM_SETTINGS = "one job per setting of an arm"
    FIXED_RATE_SETTINGS = "one job per setting at the fixed learning rate"
    SELECTED_SETTINGS = "one job per setting that the section of the analysis selects"
    SETTING_PAIRS = "one job per pair of settings"
    BRANCH_POINTS = "one job per point of a run from which branches begin"
    PLANE_PARTS = "one job per part of a plane around a run that the section of the analysis selects"


@dataclass(frozen=True)
class Analysis:
    """An analysis of runs. Its rule has its name, and so has its section in the study file, if it can be disabled."""

    rows: str
    """The CSV with the result, below the study's folder; one in `tables/` is shown as it is."""
    split: JobSplit = JobSplit.ALL_RUNS

    @property
    def is_split(self) -> bool:
        """Whether the rows come from several jobs."""
        return self.split not in (JobSplit.ALL_RUNS, JobSplit.NO_RUNS, JobSplit.CONFIRMATION_RUNS)


@dataclass(frozen=True)
class Artifact:
    """A table or figure: the CSVs below the study's folder and the settings that it is made from."""

    sources: tuple[str, ...]
    settings: tuple[str, ...] = ()
    """Keys of `comparison`, and others that `study.specs` provides."""
    optional_sources: tuple[str, ...] = ()
    """Sources that are missing if their analysis is disabled; arguments with the names of their files."""
    requires: tuple[str, ...] = ()
    """Other files without which there is no such table or figure, though it does not read them."""
    arm: str | None = None
    """An arm without which there is no such table or figure."""


# Each name is that of a module in analysis/, report/tables/ or report/figures/.
ANALYSES = {
    "runs": Analysis("tables/runs"),
    "history": Analysis("analysis/history"),
    "distance": Analysis("analysis/distance"),
    "epoch_distance": Analysis("analysis/epoch_distance"),
    "update_norms": Analysis("analysis/update_norms"),
    "device_timing": Analysis("analysis/devices", JobSplit.NO_RUNS),
    "confirmation": Analysis("analysis/confirmation", JobSplit.CONFIRMATION_RUNS),
    "tuning": Analysis("tables/trial_runs", JobSplit.BATCH_SIZES),
    "sharpness": Analysis("analysis/sharpness", JobSplit.ARM_SETTINGS),
    "interpolation": Analysis("analysis/interpolation", JobSplit.SETTING_PAIRS),
    "landscape": Analysis("tables/landscape", JobSplit.PLANE_PARTS),
    "trajectory": Analysis("tables/trajectory", JobSplit.SELECTED_SETTINGS),
    "gradient_alignment": Analysis("analysis/gradient_alignment", JobSplit.FIXED_RATE_SETTINGS),
    "curvature": Analysis("analysis/curvature", JobSplit.SELECTED_SETTINGS),
    "spectral_density": Analysis("analysis/spectral_density", JobSplit.SELECTED_SETTINGS),
    "branching": Analysis("analysis/branching", JobSplit.BRANCH_POINTS),
}
TABLES = {
    "curves": Artifact(("analysis/history",), ("metrics",)),
    "fixed_lr": Artifact(("tables/runs",), ("fixed_learning_rate", "metrics")),
    "lr_grid": Artifact(("tables/runs",), ("metrics",)),
    "best_lr": Artifact(("tables/lr_grid",)),
    "scaling": Artifact(("tables/runs",), optional_sources=("tables/trial_runs",)),
    "tolerance": Artifact(("tables/runs",), ("margin",)),
    "arm_runs": Artifact(
        ("tables/runs", "analysis/distance", "analysis/update_norms"),
        ("arms", "metrics"),
        optional_sources=("analysis/sharpness",),
    ),
    "scaled_lr": Artifact(("tables/arm_runs",)),
    "trials": Artifact(("tables/trial_runs",), ("quantile",)),
    "tuned_lr": Artifact(("tables/trials",), ("small_batch_size", "tuning_budget")),
    "recommendation": Artifact(("tables/runs", "tables/best_lr"), ("metrics",), optional_sources=("tables/tuned_lr",)),
    "confirmation": Artifact(("analysis/confirmation",), ("metrics",)),
    "distance": Artifact(("analysis/distance",)),
    "distance_over_time": Artifact(("analysis/history",)),
    "distance_log_fit": Artifact(("analysis/history",)),
    "epoch_distance": Artifact(("analysis/epoch_distance",), ("large_batch_size",)),
    "update_norms": Artifact(("analysis/update_norms",)),
    "noise_scale": Artifact(("analysis/history",)),
    "runs_to_target": Artifact(("analysis/history",), ("targets",)),
    "steps_to_target": Artifact(("tables/runs_to_target",)),
    "critical_batch": Artifact(("tables/runs_to_target", "tables/steps_to_target")),
    "regimes": Artifact(("tables/runs_to_target", "tables/steps_to_target")),
    "frontier": Artifact(("tables/runs_to_target", "tables/steps_to_target", "tables/runs")),
    "sharpness": Artifact(("analysis/sharpness",)),
    "interpolation": Artifact(("analysis/interpolation",), ("metrics",)),
    "gradient_alignment": Artifact(("analysis/gradient_alignment",)),
    "curvature": Artifact(("analysis/curvature",)),
    "spectral_density": Artifact(("analysis/spectral_density",)),
    "branches": Artifact(("analysis/branching",)),
    "branching": Artifact(("analysis/branching",), ("branching_tolerance",)),
    "batch_schedule": Artifact(("analysis/history", "tables/branching"), arm="batch_warmup"),
    "devices": Artifact(("analysis/devices",)),
    "claims": Artifact(
        ("tables/runs", "tables/arm_runs", "analysis/history", "analysis/epoch_distance"),
        ("small_batch_size", "large_batch_size", "margin", "protocol", "measures", "branching_tolerance", "recipe"),
        optional_sources=("analysis/curvature", "analysis/branching"),
    ),
}
FIGURES = {
    "curves_fixed_lr": Artifact(("tables/curves",), ("fixed_learning_rate", "measures")),
    "curves_high_lr": Artifact(("tables/curves",), ("high_learning_rate", "measures")),
    "curves_scaled_lr": Artifact(("tables/curves",), ("arms", "measures")),
    "convergence_before_after": Artifact(("tables/arm_runs", "tables/scaled_lr"), ("measures",)),
    "distance_before_after": Artifact(("tables/arm_runs", "tables/scaled_lr")),
    "sharpness_before_after": Artifact(("tables/arm_runs", "tables/scaled_lr"), requires=("analysis/sharpness",)),
    "convergence": Artifact(("tables/runs", "tables/fixed_lr"), ("fixed_learning_rate", "measures")),
    "devices": Artifact(("tables/devices",)),
    "distance": Artifact(("analysis/distance", "tables/distance")),
    "distance_by_layer": Artifact(("analysis/distance", "tables/distance"), ("fixed_learning_rate",)),
    "distance_over_time": Artifact(("tables/distance_over_time", "tables/distance_log_fit"), ("fixed_learning_rate",)),
    "epoch_distance": Artifact(
        ("tables/epoch_distance",), ("fixed_learning_rate", "small_batch_size", "large_batch_size")
    ),
    "update_norms": Artifact(("analysis/update_norms", "tables/update_norms"), ("fixed_learning_rate",)),
    "lr_search": Artifact(("tables/trials", "tables/tuned_lr"), ("measures",)),
    "lr_effect": Artifact(("tables/runs", "tables/lr_grid", "tables/best_lr", "tables/scaling"), ("measures",)),
    "lr_plane": Artifact(("tables/lr_grid", "tables/best_lr"), ("small_batch_size", "measures")),
    "tolerance": Artifact(("tables/tolerance",), ("margin",)),
    "steps_to_target": Artifact(
        ("tables/runs_to_target", "tables/steps_to_target", "tables/critical_batch", "tables/regimes"), ("measures",)
    ),
    "frontier": Artifact(("tables/runs_to_target", "tables/frontier"), ("measures",)),
    "noise_scale": Artifact(("tables/noise_scale",), ("fixed_learning_rate", "measures")),
    "sharpness": Artifact(("analysis/sharpness", "tables/sharpness"), ("fixed_learning_rate", "measures")),
    "interpolation": Artifact(("tables/interpolation",), ("measures",)),
    "landscape": Artifact(("tables/landscape",), ("measures",)),
    "trajectory": Artifact(("tables/trajectory",), ("measures",)),
    "gradient_alignment": Artifact(("tables/gradient_alignment",), ("measures",)),
    "curvature": Artifact(("analysis/curvature", "tables/curvature"), ("batch_sizes",)),
    "spectral_density": Artifact(("analysis/spectral_density", "tables/spectral_density"), ("batch_sizes",)),
    "branching": Artifact(
        ("tables/branches", "tables/branching", "analysis/history"), optional_sources=("tables/batch_schedule",)
    ),
    "claims": Artifact(("tables/claims",)),
}
INTERACTIVE_SOURCES = (
    *("analysis/history", "analysis/distance", "analysis/epoch_distance", "analysis/update_norms"),
    *("analysis/sharpness", "analysis/interpolation", "analysis/gradient_alignment", "analysis/curvature"),
    "analysis/branching",
)
"""The results run by run that the interactive figures of the report show, besides the tables."""
