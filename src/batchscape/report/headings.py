"""Headings: the words for the columns of tables, on the page and on the axes of figures; CSV files have the names.

What each column means is in `docs/outputs.md`.
"""

from batchscape.report.measures import Measures, add_unit, capitalize

HEADINGS = {
    # Runs and settings.
    "run": "Run",
    "setting": "Setting",
    "batch_size": "Batch size",
    "learning_rate": "Learning rate",
    "seed": "Seed",
    "status": "Status",
    "arm": "Arm",
    "layer": "Layer",
    "checkpoint": "Checkpoint",
    "epoch": "Epoch",
    "epochs": "Epochs",
    "step": "Steps",
    "steps": "Steps",
    "examples": "Examples",
    "evaluations": "Evaluations",
    "iterations": "Iterations",
    "quantity": "Quantity",
    "value": "Value",
    "device": "Device",
    "devices": "Devices that share a batch",
    # Losses and cost; the unit of the loss is added.
    "loss": "Loss",
    "train_loss": "Training loss",
    "validation_loss": "Validation loss",
    "test_loss": "Test loss",
    "min_train_loss": "Lowest training loss",
    "best_validation_loss": "Best validation loss",
    "average_validation_loss": "Validation loss of the averaged weights",
    "average_test_loss": "Test loss of the averaged weights",
    "best_epoch": "Best epoch",
    "best_evaluation": "Best evaluation",
    "epoch_seconds": "Time per epoch (s)",
    "epoch_seconds_q25": "Time per epoch (s), first quartile",
    "epoch_seconds_q75": "Time per epoch (s), third quartile",
    "epoch_cpu_seconds": "CPU time per epoch (s)",
    "seconds": "Time (s)",
    "cpu_seconds": "CPU time (s)",
    "seconds_to_best": "Time to best epoch (s)",
    "cpu_seconds_to_best": "CPU time to best epoch (s)",
    "time": "Time",
    "time_unit": "Unit of the time",
    # Counts.
    "n_seeds": "Seeds",
    "n_runs": "Runs",
    "n_diverged": "Diverged",
    "n_missing": "Missing seeds",
    "n_budget_spent": "Ended by the budget",
    "n_missed": "Missed the target",
    "n_at_first_evaluation": "Reached it at the first evaluation",
    "n_not_reached": "Ended before the point",
    "n_not_finite": "Not finite",
    "n_on_edge": "On an edge",
    "n_batch_sizes": "Batch sizes",
    "n_rates": "Learning rates",
    "n_ratios": "Pairs of runs",
    "n_epochs": "Timed epochs",
    "n_pruned": "Pruned",
    "n_trials": "Trials",
    "n_diverged_trials": "Diverged trials",
    "n_pruned_trials": "Pruned trials",
    # Comparisons and verdicts.
    "ci95": "95 % interval",
    "choice": "Choice",
    "difference_to_best": "Difference to the best loss",
    "difference_to_chosen": "Difference to the chosen setting",
    "verdict": "Verdict",
    "reason": "Reason",
    "advice": "Advice",
    "edge": "Edge",
    "claim": "Claim",
    "statement": "Statement",
    "source": "Source",
    "comparison": "Comparison",
    "protocol": "Protocol",
    "measure": "Measure",
    "scale": "Scale",
    "claimed": "Claimed",
    "margin": "Margin",
    "effect": "Effect",
    "p_value": "p-value",
    "p_value_holm": "p-value after Holm's adjustment",
    "p_value_equivalence": "p-value of equivalence",
    "p_value_equivalence_holm": "p-value of equivalence after Holm's adjustment",
    "holds_after_holm": "Holds after Holm's adjustment",
    "seeds_needed": "Seeds needed",
    "reading": "Reading",
    "recipe": "Recipe",
    # Learning rates.
    "best_learning_rate": "Best learning rate",
    "lowest_learning_rate": "Lowest good learning rate",
    "highest_learning_rate": "Highest good learning rate",
    "width": "Highest / lowest good learning rate",
    "low_end": "Low end",
    "high_end": "High end",
    "hyperparameter": "Hyperparameter",
    "exponent": "Exponent",
    "first_exponent": "First exponent",
    "first_ci95": "First exponent, 95 % interval",
    "last_exponent": "Last exponent",
    "last_ci95": "Last exponent, 95 % interval",
    "rises_and_falls": "Rises and falls",
    "smallest_batch_size": "Smallest batch size",
    "largest_batch_size": "Largest batch size",
    "trial": "Trial",
    "stage": "Stage",
    "momentum": "Momentum",
    "weight_decay": "Weight decay",
    "beta2": "β₂",
    "warmup": "Warm-up (share of the budget)",
    "trainings": "Cost (trainings)",
    "is_best": "Best (1: yes)",
    "tuned_learning_rate": "Tuned learning rate",
    "tuned_momentum": "Tuned momentum",
    "tuned_weight_decay": "Tuned weight decay",
    "tuned_beta2": "Tuned β₂",
    "tuned_warmup": "Tuned warm-up (share of the budget)",
    "linear_learning_rate": "Learning rate by linear scaling",
    "sqrt_learning_rate": "Learning rate by √ scaling",
    "budget": "Budget (trainings)",
    "spent_grid": "Spent on the grid (trainings)",
    "spent_search": "Spent on the search (trainings)",
    "spent_extension": "Spent on extensions (trainings)",
    "spent_finalist": "Spent on finalists (trainings)",
    # Targets and the critical batch size.
    "target": "Target",
    "target_value": "Value of the target",
    "critical_batch": "Critical batch size",
    "critical_batch_20pct": "20 % critical batch size",
    "min_steps": "Minimum of steps",
    "min_examples": "Minimum of examples",
    "min_epochs": "Minimum of epochs",
    "larger_batch_size": "Larger batch size",
    "larger_learning_rate": "Learning rate of the larger batch size",
    "steps_ratio": "Steps, factor for twice the batch size",
    "examples_ratio": "Examples, factor for twice the batch size",
    "time_ratio": "Time, factor for twice the batch size",
    "regime": "Regime",
    "is_pareto": "On the Pareto front (1: yes)",
    "point": "Point",
    "factor": "Factor of the batch size",
    "branch_batch_size": "Batch size of the branch",
    "branch_learning_rate": "Learning rate of the branch",
    "branch_steps": "Steps of the branch",
    "branch_examples": "Examples of the branch",
    "excess": "Excess of the loss, relative",
    "tolerance": "Tolerance of the excess",
    "base_setting": "Setting with a constant batch size",
    "stages": "Later batch sizes",
    "base_steps": "Steps at a constant batch size",
    "base_best_validation_loss": "Best validation loss at a constant batch size",
    "steps_saved": "Share of the steps saved",
    "steps_saved_to_loss": "Share of the steps to the same loss saved",
    "loss_ratio": "Ratio of the losses",
    # Times on several devices.
    "processor": "Processor",
    "cores": "Cores",
    "other_cores": "Cores used by other processes",
    "speedup": "Speedup",
    "efficiency": "Efficiency",
    # Weights and gradients.
    "distance": "Distance from the initial weights",
    "epoch_distance": "Distance moved in the epoch",
    "ratio_to_large": "Ratio to the large batch",
    "log_intercept": "a of a + b·ln t",
    "log_slope": "b of a + b·ln t",
    "log_r2": "R² of a + b·ln t",
    "power_factor": "c of c·tᵏ",
    "power_exponent": "k of c·tᵏ",
    "power_r2": "R² of c·tᵏ",
    "r2_difference": "Difference of R²",
    "updates": "Updates",
    "percentile": "Percentile of all updates",
    "update_norm": "Norm of a batch update",
    **{f"update_norm_p{p:02}": f"Norm of a batch update, {p}th percentile" for p in (5, 25, 50, 75, 95)},
    "gradient_norm": "Gradient norm",
    "weight_norm": "Norm of the weights",
    "noise_scale": "Noise scale (examples)",
    "gradient_batch": "B, examples in the gradient",
    "bound": "Bound of the gradient norm",
    "alignment": "Gradient norm / bound",
    # The loss surface.
    "sharpness": "Keskar φ (%)",
    "radius": "Radius",
    "batch_norm": "BatchNorm statistics",
    "on_bounds": "Share of the coordinates on bounds",
    "not_computed": "Not computed because",
    "first": "First setting",
    "second": "Second setting",
    "alpha": "α",
    "validation_examples": "Validation examples",
    "direction_seed": "Directions",
    "x": "x",
    "y": "y",
    "explained_variance_x": "Share of the variance along x",
    "explained_variance_y": "Share of the variance along y",
    "step_learning_rate": "η, learning rate of the step",
    "hessian_eigenvalue": "Top eigenvalue of the Hessian",
    "batch_sharpness": "Batch sharpness",
    "batch_sharpness_se": "Batch sharpness, standard error",
    "preconditioned_eigenvalue": "Preconditioned eigenvalue",
    "eigenvalue_times_rate": "Top eigenvalue · η",
    "batch_sharpness_times_rate": "Batch sharpness · η",
    "preconditioned_times_rate": "Preconditioned eigenvalue · η",
    "preconditioned_edge": "Edge of the preconditioned eigenvalue",
    "trace": "Trace of the Hessian",
    "trace_se": "Trace of the Hessian, standard error",
    "smallest_eigenvalue": "Smallest eigenvalue of the Hessian",
    "largest_eigenvalue": "Largest eigenvalue of the Hessian",
    "negative_share": "Share of negative eigenvalues",
}
"""The headings by the name of the column, without those of metrics, and of statistics of another column."""

STATISTICS = {
    "_mean": ", mean",
    "_sd": ", standard deviation",
    "_ci95": ", 95 % interval",
    "_low": ", low",
    "_high": ", high",
}
SIDES = {"train_": "Training", "validation_": "Validation", "test_": "Test"}


def heading(column: str, measures: Measures) -> str:
    """Return the heading of a column with its unit, such as `Best validation loss (nats)` of best_validation_loss."""
    return find_heading(column, measures) or capitalize(column.replace("_", " "))


def find_heading(column: str, measures: Measures) -> str:
    """Return the heading of a column with its unit; empty if the column has none."""
    if words := HEADINGS.get(column) or _name_metric(column, measures):
        return add_unit(words, measures.unit_of(column))
    for suffix, ending in STATISTICS.items():
        base = column.removesuffix(suffix)
        if base != column and (words := find_heading(base, measures)):
            return f"{words}{ending}"
    return ""


def _name_metric(column: str, measures: Measures) -> str:
    """Return the name of a metric on a side of the data, such as `Validation accuracy`; empty if it is none."""
    quantity = column.removesuffix("_at_best").removeprefix("average_")
    prefix = next((side for side in SIDES if quantity.startswith(side)), "")
    labels = {metric.name: metric.label for metric in measures.metrics}
    label = labels.get(quantity.removeprefix(prefix))
    if label is None:
        return ""
    if column.endswith("_at_best"):
        return f"{capitalize(label)} at best epoch"
    words = f"{SIDES[prefix]} {label}" if prefix else capitalize(label)
    return f"{words} of the averaged weights" if column.startswith("average_") else words
