"""Section `task`."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from batchscape.config.base import Section
from batchscape.config.loading import format_validation_errors
from batchscape.config.task import ClassificationConfig, LanguageModelConfig, RegressionConfig, TaskConfig

TASKS = TypeAdapter(TaskConfig)


class File(Section):
    """A study file with nothing but a task."""

    task: TaskConfig = ClassificationConfig()


@pytest.mark.parametrize(
    ("mapping", "problem"),
    [
        ({"name": "ranking"}, "task.name: must be 'classification', 'regression', 'language_model', got 'ranking'"),
        ({"name": ["regression"]}, "task.name: must be 'classification', 'regression', 'language_model', got ['reg"),
        ({"loss": "mse"}, "task.loss: must be auto, binary_cross_entropy, cross_entropy, module, or the import path"),
        (
            {"name": "regression", "loss": "l2"},
            "task.loss: must be mse, huber, absolute, module, or the import path",
        ),
        ({"name": "regression", "loss": 2}, "task.loss: must be mse, huber, absolute, module, or the import path"),
        (
            {"name": "language_model", "loss": "mse"},
            "task.loss: must be cross_entropy, module, or the import path of",
        ),
        ({"loss": "my losses:focal"}, "task.loss: must be a module and a name in it, got 'my losses:focal'; write"),
        ({"metrics": ["top 5"]}, "task.metrics[0]: must be a module and a name in it, got 'top 5'; write `my_package."),
        (
            {"metrics": ["top_5"]},
            "task.metrics[0]: top_5 is a value that a LightningModule logs, which needs `loss",
        ),
        (
            {"loss": "module", "metrics": ["own:f1"]},
            "task.metrics[0]: own:f1 is a function of the outputs, which a",
        ),
        ({"loss": "module", "metrics": ["loss"]}, "task.metrics: loss has the name of a built-in column, `loss`"),
        (
            {"loss": "module", "class_weights": "balanced"},
            "task.class_weights: is not for `loss: module`, which is",
        ),
        ({"metrics": "own:top_5"}, "task.metrics: must be a list, got 'own:top_5'; write for example `metrics: ["),
        ({"metrics": ["own:top_5", "own:top_5"]}, "task.metrics: repeats own:top_5; list each value once"),
        ({"metrics": ["own:accuracy"]}, "task.metrics: own:accuracy has the name of a built-in column, `accuracy`"),
        ({"metrics": ["own:loss"]}, "task.metrics: own:loss has the name of a built-in column, `loss`; rename the"),
        (
            {"metrics": ["own:seconds"]},
            "task.metrics: own:seconds has the name of a built-in column, `seconds`",
        ),
        ({"metrics": ["one:f1", "two:f1"]}, "task.metrics: two functions have the name f1, which names their columns"),
        ({"class_weights": "equal"}, "task.class_weights: must be balanced, or weights by class, such as `{cat: 2}`"),
        ({"class_weights": [1, 2]}, "task.class_weights: must be balanced, or weights by class, such as `{cat: 2}`"),
        ({"class_weights": {"cat": 0}}, "task.class_weights: gives class cat the weight 0; it must be a finite"),
        ({"class_weights": {"cat": "two"}}, "task.class_weights: gives class cat the weight 'two'; it must be a fin"),
        ({"class_weights": {"cat": float("inf")}}, "task.class_weights: gives class cat the weight inf; it must be"),
        ({"class_weights": {"cat": True}}, "task.class_weights: gives class cat the weight True; it must be a finite"),
        ({"class_weights": {True: 2}}, "task.class_weights: has the class True; write the name of a class in quotes"),
        ({"label_smoothing": 1}, "task.label_smoothing: must be less than 1, got 1; write for example"),
        (
            {"name": "regression", "label_smoothing": 0.1},
            "task.label_smoothing: is not a known key; it belongs in the section `task` with `name: classification`; "
            "remove it",
        ),
        ({"name": "regression", "huber_delta": 0}, "task.huber_delta: must be greater than 0, got 0; write for"),
        ({"loss": "own:focal", "label_smoothing": 0.1}, "task.label_smoothing: is for the cross-entropy,"),
        ({"name": "regression", "huber_delta": 2}, "task.huber_delta: is for `loss: huber`, not for `mse`; remove it"),
        ({"name": "regression", "outputs": 2}, "task.outputs: is for a loss of your own; `mse` has one output per"),
        ("regression", "task: must be a section of keys and values, got 'regression'; indent its keys below `task:`"),
    ],
)
def test_mistake_is_one_line(mapping: Any, problem: str):
    with pytest.raises(ValidationError) as error:
        File.model_validate({"task": mapping})
    (line,) = format_validation_errors(error.value, File, "study.yaml")
    assert line.startswith(f"study.yaml: {problem}")
    assert "\n" not in line


def test_names_of_classes_may_be_digits():
    task = TASKS.validate_python({"class_weights": {0: 2, "cat": "1.5"}})
    assert task.class_weights == {"0": 2.0, "cat": 1.5}


def test_no_class_weights_are_none():
    """So that an empty section does not change the loss."""
    assert TASKS.validate_python({"class_weights": {}}).class_weights is None


def test_custom_code_lists_the_loss_and_the_metrics():
    assert ClassificationConfig(loss="a:b", metrics=("c:d", "e:f")).custom_code == ("a:b", "c:d", "e:f")
    assert RegressionConfig(name="regression").custom_code == ()


def test_reported_metrics():
    names = {
        ClassificationConfig(): ["accuracy"],
        ClassificationConfig(metrics=("own:top_5_error",)): ["accuracy", "top_5_error"],
        RegressionConfig(name="regression"): ["rmse", "mae", "r2"],
        RegressionConfig(name="regression", loss="own:likelihood", outputs=2): [],
        LanguageModelConfig(name="language_model"): ["perplexity"],
    }
    for config, expected in names.items():
        assert [metric.name for metric in config.reported_metrics()] == expected
    language_model = LanguageModelConfig(name="language_model")
    assert [metric.name for metric in language_model.reported_metrics("byte")] == ["perplexity", "bits_per_byte"]
    weighted = ClassificationConfig(class_weights="balanced")
    assert [metric.label for metric in weighted.reported_metrics()] == ["weighted accuracy"]
    (_, custom) = ClassificationConfig(metrics=("own:top_5_error",)).reported_metrics()
    assert (custom.label, custom.higher_is_better) == ("top 5 error", False)


def test_metrics_of_a_loss_of_the_network_are_those_that_it_logs():
    task = TASKS.validate_python({"loss": "module", "metrics": ["f1_score", "accuracy"]})
    assert task.custom_code == ()
    first, second = task.reported_metrics()
    assert (first.name, first.label, first.higher_is_better) == ("f1_score", "f1 score", False)
    assert (second.name, second.higher_is_better) == ("accuracy", True)
