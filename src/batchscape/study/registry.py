"""The analyses, tables and figures that there are, and what each is made from."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Analysis:
    """A question. Its rule has its name, and so has the section of the study file that can turn it off, if any."""

    rows: str
    """The CSV with the answer, below the study's folder; one in `tables/` is shown as it is."""
    jobs: Literal["runs", "one", "batch sizes", "compared", "fixed", "shown", "pairs", "planes"] = "runs"
    """How the work is divided. `runs`: one job reads the files of all runs; `one`: one job reads no run. Else by batch
    size, by some of the settings, by pairs of settings, by parts of planes, and then the rows of all jobs are gathered.
    For `shown` and `planes` the section says which settings and seeds."""

    @property
    def is_gathered(self) -> bool:
        """Whether the rows come from several jobs."""
        return self.jobs not in ("runs", "one")


@dataclass(frozen=True)
class Product:
    """What a table or figure is made from: CSVs below the study's folder and keys of `comparison`."""

    sources: tuple[str, ...]
    settings: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    """Sources that follow the others unless their analysis is left out."""
    needs: tuple[str, ...] = ()
    """Further files without which there is no such product, though it is not made from them."""


# The registry. A name here: a module of that name in analysis/, report/tables or report/figures.
ANALYSES = {
    "runs": Analysis("tables/runs"),
    "history": Analysis("analysis/history"),
    "distance": Analysis("analysis/distance"),
    "epoch_distance": Analysis("analysis/epoch_distance"),
    "update_norms": Analysis("analysis/update_norms"),
    "device_timing": Analysis("analysis/devices", "one"),
    "tuning": Analysis("tables/trials", "batch sizes"),
    "sharpness": Analysis("analysis/sharpness", "compared"),
    "interpolation": Analysis("analysis/interpolation", "pairs"),
    "landscape": Analysis("tables/landscape", "planes"),
    "trajectory": Analysis("tables/trajectory", "shown"),
    "gradient_alignment": Analysis("analysis/gradient_alignment", "fixed"),
}
TABLES = {
    "curves": Product(("analysis/history",)),
    "fixed_lr": Product(("tables/runs",), ("fixed_learning_rate",)),
    "lr_grid": Product(("tables/runs",)),
    "best_lr": Product(("tables/lr_grid",)),
    "arm_runs": Product(
        ("tables/runs", "analysis/distance", "analysis/update_norms"), ("arms",), optional=("analysis/sharpness",)
    ),
    "scaled_lr": Product(("tables/arm_runs",)),
    "tuned_lr": Product(("tables/trials",), ("small_batch_size", "learning_rate_range")),
    "recommendation": Product(("tables/runs", "tables/best_lr"), optional=("tables/tuned_lr",)),
    "distance": Product(("analysis/distance",)),
    "distance_over_time": Product(("analysis/history",)),
    "distance_log_fit": Product(("analysis/history",)),
    "epoch_distance": Product(("analysis/epoch_distance",), ("large_batch_size",)),
    "update_norms": Product(("analysis/update_norms",)),
    "noise_scale": Product(("analysis/history",)),
    "runs_to_target": Product(("analysis/history",), ("target_loss",)),
    "steps_to_target": Product(("tables/runs_to_target",)),
    "critical_batch": Product(("tables/runs_to_target", "tables/steps_to_target")),
    "sharpness": Product(("analysis/sharpness",)),
    "interpolation": Product(("analysis/interpolation",)),
    "gradient_alignment": Product(("analysis/gradient_alignment",)),
    "devices": Product(("analysis/devices",)),
    "claims": Product(
        ("tables/runs", "tables/arm_runs", "analysis/history", "analysis/epoch_distance"),
        ("small_batch_size", "large_batch_size"),
    ),
}
FIGURES = {
    "curves_fixed_lr": Product(("tables/curves",), ("fixed_learning_rate",)),
    "curves_high_lr": Product(("tables/curves",), ("high_learning_rate",)),
    "curves_scaled_lr": Product(("tables/curves",), ("arms",)),
    "convergence_before_after": Product(("tables/arm_runs", "tables/scaled_lr")),
    "distance_before_after": Product(("tables/arm_runs", "tables/scaled_lr")),
    "sharpness_before_after": Product(("tables/arm_runs", "tables/scaled_lr"), needs=("analysis/sharpness",)),
    "convergence": Product(("tables/runs", "tables/fixed_lr"), ("fixed_learning_rate",)),
    "devices": Product(("tables/devices",)),
    "distance": Product(("analysis/distance", "tables/distance")),
    "distance_by_layer": Product(("analysis/distance", "tables/distance"), ("fixed_learning_rate",)),
    "distance_over_time": Product(("tables/distance_over_time", "tables/distance_log_fit"), ("fixed_learning_rate",)),
    "epoch_distance": Product(
        ("tables/epoch_distance",), ("fixed_learning_rate", "small_batch_size", "large_batch_size")
    ),
    "update_norms": Product(("analysis/update_norms", "tables/update_norms"), ("fixed_learning_rate",)),
    "lr_search": Product(("tables/trials", "tables/tuned_lr")),
    "lr_effect": Product(("tables/runs", "tables/lr_grid", "tables/best_lr")),
    "lr_plane": Product(("tables/lr_grid", "tables/best_lr"), ("small_batch_size",)),
    "steps_to_target": Product(("tables/runs_to_target", "tables/steps_to_target", "tables/critical_batch")),
    "noise_scale": Product(("tables/noise_scale",), ("fixed_learning_rate",)),
    "sharpness": Product(("analysis/sharpness", "tables/sharpness"), ("fixed_learning_rate",)),
    "interpolation": Product(("tables/interpolation",)),
    "landscape": Product(("tables/landscape",)),
    "trajectory": Product(("tables/trajectory",)),
    "gradient_alignment": Product(("tables/gradient_alignment",)),
    "claims": Product(("tables/claims",)),
}
