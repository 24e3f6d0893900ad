"""What the loss and the metrics of a study are called, and in which units they are: from the study file alone."""

import re
from typing import Any

from batchscape.config.data.section import DataSection
from batchscape.config.task import ClassificationConfig, LanguageModelConfig, Metric, TaskSection, function_name

# The losses of `task.loss` in words, and their unit if that of the target is u.
REGRESSION_LOSSES = {
    "mse": ("mean squared error", "{u}²"),
    "huber": ("Huber loss", "{u}²"),
    "absolute": ("mean absolute error", "{u}"),
}
# Metrics in the unit of the target, and those whose differences are ratios, which an axis shows best as a logarithm.
IN_TARGET_UNIT = ("rmse", "mae")
LOGARITHMIC = ("perplexity",)


def describe_measures(task: TaskSection, data: DataSection) -> dict[str, Any]:
    """Return the names and units of the loss and the metrics of a study, as `report.measures.Measures` reads them.

    Args:
        task: Section `task`.
        data: Section `data`.
    """
    loss, unit = _loss(task, data)
    return {
        "loss": loss,
        "loss_unit": unit,
        "metrics": [_metric(metric, task, data) for metric in task.reported_metrics(data.token_unit)],
        "examples": data.example_noun,
    }


def _loss(task: TaskSection, data: DataSection) -> tuple[str, str]:
    """Return the loss in words, and its unit."""
    name: str = getattr(task, "loss", "")
    if task.has_own_loss:
        return "loss", ""
    if ":" in name:
        return function_name(name).replace("_", " "), ""
    if isinstance(task, ClassificationConfig):
        return "cross-entropy", "nats"
    if isinstance(task, LanguageModelConfig):
        return "cross-entropy", f"nats per {data.token_unit or 'token'}"
    words, unit = REGRESSION_LOSSES[name]
    target = "sd" if data.standardizes_target else _target_unit(data)
    return words, unit.format(u=_as_factor(target)) if target else ""


def _metric(metric: Metric, task: TaskSection, data: DataSection) -> dict[str, Any]:
    label, unit = metric.label, ""
    if task.has_own_loss:  # a module computes its metrics from the transformed target, or from anything else
        return {"name": metric.name, "label": label, "unit": unit, "scale": "linear"}
    if metric.name in IN_TARGET_UNIT:
        unit = _target_unit(data)
    elif metric.name == "perplexity":
        unit = f"per {data.token_unit or 'token'}"
    if metric.name == "accuracy" and data.is_weighted:
        label = f"weighted {label.removeprefix('weighted ')}"
    scale = "log" if metric.name in LOGARITHMIC else "linear"
    return {"name": metric.name, "label": label, "unit": unit, "scale": scale}


def _target_unit(data: DataSection) -> str:
    """Return the unit of the target; empty if it is unknown, or if there are several."""
    return "" if ", " in data.target_name else data.target_name


def _as_factor(unit: str) -> str:
    """Return a unit in parentheses if a power of it would be ambiguous."""
    return unit if re.fullmatch(r"\w+(\([^()]*\))?", unit) else f"({unit})"
