"""Losses, metrics and weights of each task, compared with scikit-learn, torch and closed forms."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torch.nn import functional as F

from batchscape.config.task import ClassificationConfig, LanguageModelConfig, RegressionConfig, TaskConfig
from batchscape.data.spec import DataSpec
from batchscape.errors import UserError
from batchscape.tasks.task import Task, build_task, check_functions

TWO = DataSpec("images", (1, 8, 8), "class", classes=("cat", "dog"))
FIVE = DataSpec("numbers", (3,), "class", classes=("a", "b", "c", "d", "e"))
NUMBER = DataSpec("numbers", (3,), "numbers", target_name="log(price)", target_variance={"train": 2.0})
THREE_NUMBERS = DataSpec("numbers", (3,), "numbers", target_shape=(3,))
BYTES = DataSpec("tokens", (6,), "next_token", vocabulary=256, token_unit="byte")
CHARACTERS = DataSpec("tokens", (6,), "next_token", vocabulary=11, token_unit="character")

REGRESSION = RegressionConfig(name="regression")
LANGUAGE_MODEL = LanguageModelConfig(name="language_model")


def draw(task: Task, spec: DataSpec, count: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random outputs, float64, and targets."""
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(count, *task.output_shape, generator=generator, dtype=torch.float64)
    if spec.targets == "class":
        return outputs, torch.randint(len(spec.classes), (count,), generator=generator)
    if spec.targets == "numbers":
        return outputs, torch.randn(count, *spec.target_shape, generator=generator)
    return outputs, torch.randint(spec.vocabulary, (count, *spec.shape), generator=generator)


def metric(task: Task, name: str, outputs: torch.Tensor, targets: torch.Tensor, side: str = "train", weights=None):
    """Return what is reported of a metric."""
    found = next(metric for metric in task.metrics if metric.name == name)
    values = found.function(outputs, targets, reduction="none")
    weights = torch.ones_like(values) if weights is None else weights
    return found.finalize(((values * weights).sum() / weights.sum()).item(), side)


ALL_CASES = pytest.mark.parametrize(
    ("config", "spec"),
    [
        (ClassificationConfig(), TWO),
        (ClassificationConfig(loss="cross_entropy"), TWO),
        (ClassificationConfig(label_smoothing=0.1), TWO),
        (ClassificationConfig(), FIVE),
        (ClassificationConfig(label_smoothing=0.3), FIVE),
        (ClassificationConfig(loss="torch.nn.functional:multi_margin_loss"), FIVE),
        (REGRESSION, NUMBER),
        (REGRESSION, THREE_NUMBERS),
        (RegressionConfig(name="regression", loss="huber", huber_delta=0.5), NUMBER),
        (RegressionConfig(name="regression", loss="absolute"), THREE_NUMBERS),
        (RegressionConfig(name="regression", loss="torch.nn.functional:smooth_l1_loss"), THREE_NUMBERS),
        (LANGUAGE_MODEL, BYTES),
        (LanguageModelConfig(name="language_model", label_smoothing=0.2), CHARACTERS),
        (LanguageModelConfig(name="language_model", loss="torch.nn.functional:multi_margin_loss"), CHARACTERS),
    ],
)


@ALL_CASES
def test_mean_is_that_of_the_values_of_all_examples(config: TaskConfig, spec: DataSpec):
    task = build_task(config, spec)
    outputs, targets = draw(task, spec)
    shape = targets.shape if spec.targets == "next_token" else targets.shape[:1]
    for function in (task.loss, *(metric.function for metric in task.metrics)):
        values = function(outputs, targets, reduction="none")
        assert values.shape == shape
        assert values.dtype == torch.float64
        mean = function(outputs, targets, reduction="mean")
        assert mean.shape == ()
        assert mean.item() == pytest.approx(values.mean().item(), rel=1e-13)
        assert torch.equal(function(outputs, targets), mean)


@ALL_CASES
def test_value_of_an_example_does_not_depend_on_the_others(config: TaskConfig, spec: DataSpec):
    task = build_task(config, spec)
    outputs, targets = draw(task, spec)
    for function in (task.loss, *(metric.function for metric in task.metrics)):
        values = function(outputs, targets, reduction="none")
        pairs = zip(outputs.split([1, 17, 22]), targets.split([1, 17, 22]), strict=True)
        parts = [function(*pair, reduction="none") for pair in pairs]
        torch.testing.assert_close(torch.cat(parts), values, rtol=1e-14, atol=1e-14)


def test_binary_classification_has_one_output_and_multiclass_one_per_class():
    assert build_task(ClassificationConfig(), TWO).output_shape == (1,)
    assert build_task(ClassificationConfig(loss="binary_cross_entropy"), TWO).output_shape == (1,)
    assert build_task(ClassificationConfig(loss="cross_entropy"), TWO).output_shape == (2,)
    assert build_task(ClassificationConfig(loss="torch.nn.functional:cross_entropy"), TWO).output_shape == (2,)
    assert build_task(ClassificationConfig(), FIVE).output_shape == (5,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_binary_loss_has_the_bits_of_torch(dtype: torch.dtype):
    task = build_task(ClassificationConfig(), TWO)
    outputs, targets = draw(task, TWO)
    outputs = outputs.to(dtype)
    expected = F.binary_cross_entropy_with_logits(outputs.squeeze(1), targets.to(dtype))
    assert torch.equal(task.loss(outputs, targets), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_multiclass_loss_has_the_bits_of_torch(dtype: torch.dtype):
    task = build_task(ClassificationConfig(), FIVE)
    outputs, targets = draw(task, FIVE)
    assert torch.equal(task.loss(outputs.to(dtype), targets), F.cross_entropy(outputs.to(dtype), targets))


@pytest.mark.parametrize("loss", ["auto", "cross_entropy"])
def test_classification_equals_scikit_learn(loss: str):
    for spec in (TWO, FIVE):
        task = build_task(ClassificationConfig(loss=loss), spec)
        outputs, targets = draw(task, spec)
        weights = torch.rand(len(targets), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        logits = outputs.numpy()
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        if task.num_outputs == 1:
            of_second = 1 / (1 + np.exp(-logits[:, 0]))
            probabilities = np.stack([1 - of_second, of_second], 1)
        log_loss = sklearn_metrics.log_loss(
            targets, probabilities, labels=range(len(spec.classes)), sample_weight=weights
        )
        values = task.loss(outputs, targets, reduction="none")
        assert ((values * weights).sum() / weights.sum()).item() == pytest.approx(log_loss, rel=1e-12)
        accuracy = sklearn_metrics.accuracy_score(targets, probabilities.argmax(1), sample_weight=weights)
        assert metric(task, "accuracy", outputs, targets, weights=weights) == pytest.approx(accuracy, rel=1e-13)


def test_undecided_binary_prediction_is_the_first_class():
    task = build_task(ClassificationConfig(), TWO)
    assert metric(task, "accuracy", torch.zeros(4, 1), torch.tensor([0, 0, 0, 1])) == 0.75


@pytest.mark.parametrize("classes", [2, 5, 100])
def test_loss_of_a_uniform_prediction_is_the_logarithm_of_the_number_of_classes(classes: int):
    spec = DataSpec("numbers", (3,), "class", classes=tuple(map(str, range(classes))))
    for smoothing in (0.0, 0.4):
        task = build_task(ClassificationConfig(label_smoothing=smoothing), spec)
        outputs = torch.zeros(7, *task.output_shape, dtype=torch.float64)
        assert task.loss(outputs, torch.arange(7) % classes).item() == pytest.approx(math.log(classes), rel=1e-15)


def test_label_smoothing_equals_the_softmax_of_both_classes():
    """One output z is the softmax of outputs 0 and z, for which torch smooths labels itself."""
    one = build_task(ClassificationConfig(label_smoothing=0.3), TWO)
    outputs, targets = draw(one, TWO)
    both = torch.cat([torch.zeros_like(outputs), outputs], 1)
    expected = F.cross_entropy(both, targets, label_smoothing=0.3, reduction="none")
    torch.testing.assert_close(one.loss(outputs, targets, reduction="none"), expected, rtol=1e-13, atol=0)
    two = build_task(ClassificationConfig(loss="cross_entropy", label_smoothing=0.3), TWO)
    torch.testing.assert_close(two.loss(both, targets, reduction="none"), expected, rtol=1e-13, atol=0)


def test_class_weights_equal_those_of_torch():
    """F.cross_entropy with `weight` is Σ wℓ / Σ w over the batch."""
    task = build_task(ClassificationConfig(class_weights={"b": 3.0, "e": 0.5}), FIVE)
    outputs, targets = draw(task, FIVE)
    assert task.target_weights is not None
    weights = task.target_weights(targets)
    assert weights.dtype == torch.float32
    assert weights.tolist() == [[1, 3, 1, 1, 0.5][target] for target in targets.tolist()]
    values = task.loss(outputs, targets, reduction="none")
    by_class = torch.tensor([1, 3, 1, 1, 0.5], dtype=torch.float64)
    expected = F.cross_entropy(outputs, targets, weight=by_class)
    assert ((values * weights).sum() / weights.sum()).item() == pytest.approx(expected.item(), rel=1e-13)


def test_balanced_class_weights_equal_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    targets = torch.tensor([0] * 70 + [1] * 20 + [2] * 5 + [3] * 4 + [4])
    task = build_task(ClassificationConfig(class_weights="balanced"), FIVE, targets)
    assert task.target_weights is not None
    expected = compute_class_weight("balanced", classes=np.arange(5), y=targets.numpy())
    np.testing.assert_allclose(task.target_weights(torch.arange(5)).numpy(), expected, rtol=1e-6)
    summed = torch.zeros(5).index_add(0, targets, task.target_weights(targets))
    torch.testing.assert_close(summed, torch.full((5,), 20.0))  # all classes count the same


def test_balanced_accuracy_is_the_mean_recall():
    targets = torch.tensor([0] * 70 + [1] * 20 + [2] * 5 + [3] * 4 + [4])
    task = build_task(ClassificationConfig(class_weights="balanced"), FIVE, targets)
    outputs = torch.randn(100, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert task.target_weights is not None
    accuracy = metric(task, "accuracy", outputs, targets, weights=task.target_weights(targets))
    expected = sklearn_metrics.balanced_accuracy_score(targets, outputs.argmax(1))
    assert accuracy == pytest.approx(expected, rel=1e-6)


def test_regression_equals_scikit_learn():
    spec = DataSpec("numbers", (3,), "numbers", target_scale=4.0, target_variance={})
    task = build_task(REGRESSION, spec)
    outputs, targets = draw(task, spec)
    weights = torch.rand(len(targets), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    truth, predicted, weighting = targets.double().numpy(), outputs[:, 0].numpy(), weights.numpy()
    mean = np.average(truth, weights=weighting)
    spec.target_variance["train"] = np.average((truth - mean) ** 2, weights=weighting)
    options: dict[str, Any] = {"sample_weight": weighting}
    expected = {
        "rmse": 4 * sklearn_metrics.root_mean_squared_error(truth, predicted, **options),
        "mae": 4 * sklearn_metrics.mean_absolute_error(truth, predicted, **options),
        "r2": sklearn_metrics.r2_score(truth, predicted, **options),
    }
    assert task.metric_names == tuple(expected)
    for name, value in expected.items():
        assert metric(task, name, outputs, targets, weights=weights) == pytest.approx(value, rel=1e-12)
    assert expected["r2"] < 0  # worse than the mean


def test_r2_of_several_numbers_is_weighted_by_their_variance():
    spec = DataSpec("numbers", (3,), "numbers", target_shape=(3,))
    task = build_task(REGRESSION, spec)
    outputs, targets = draw(task, spec)
    targets *= torch.tensor([1.0, 10.0, 0.1])
    spec.target_variance["validation"] = targets.double().var(0, correction=0).mean().item()
    expected = sklearn_metrics.r2_score(targets.double(), outputs, multioutput="variance_weighted")
    assert metric(task, "r2", outputs, targets, side="validation") == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("variances", [{}, {"train": 0.0}, {"train": math.nan}])
def test_r2_without_a_variance_is_nan(variances: dict):
    task = build_task(REGRESSION, DataSpec("numbers", (3,), "numbers", target_variance=variances))
    assert math.isnan(metric(task, "r2", torch.zeros(3, 1), torch.ones(3)))


@pytest.mark.parametrize(
    ("loss", "function"),
    [
        ("mse", lambda error: error**2),
        ("absolute", abs),
        ("huber", lambda error: error**2 / 2 if abs(error) < 0.7 else 0.7 * (abs(error) - 0.35)),
    ],
)
@pytest.mark.parametrize("spec", [NUMBER, THREE_NUMBERS, DataSpec("numbers", (3,), "numbers", target_shape=(2, 2))])
def test_regression_losses_equal_their_definition(loss: Any, function: Any, spec: DataSpec):
    keys = {"huber_delta": 0.7} if loss == "huber" else {}
    task = build_task(RegressionConfig(name="regression", loss=loss, **keys), spec)
    outputs, targets = draw(task, spec, 5)
    assert outputs.shape == (5, math.prod(spec.target_shape))
    errors = outputs.reshape(5, -1).numpy() - targets.reshape(5, -1).double().numpy()
    expected = [np.mean([function(error) for error in row]) for row in errors]
    np.testing.assert_allclose(task.loss(outputs, targets, reduction="none"), expected, rtol=1e-12)


def test_column_of_outputs_does_not_broadcast_with_a_row_of_targets():
    task = build_task(REGRESSION, NUMBER)
    targets = torch.tensor([1.0, 2.0, 3.0])
    assert task.loss(targets[:, None], targets).item() == 0
    assert task.loss(targets[:, None], targets.flip(0)).item() == pytest.approx(8 / 3)


def test_language_model_at_uniform_output():
    task = build_task(LANGUAGE_MODEL, BYTES)
    _, tokens = draw(task, BYTES)
    outputs = torch.full((len(tokens), *task.output_shape), 3.0, dtype=torch.float64)
    assert task.output_shape == (6, 256)
    assert task.loss(outputs, tokens).item() == pytest.approx(math.log(256), rel=1e-15)
    assert metric(task, "perplexity", outputs, tokens) == pytest.approx(256, rel=1e-14)
    assert metric(task, "bits_per_byte", outputs, tokens) == pytest.approx(8, rel=1e-15)


def test_language_model_equals_a_loop_over_tokens_without_padding():
    task = build_task(LANGUAGE_MODEL, CHARACTERS)
    outputs, tokens = draw(task, CHARACTERS, 4)
    weights = torch.ones(4, 6)
    weights[0, 3:] = weights[2, 5:] = 0  # padding
    values = []
    for row in range(4):
        for place in range(6):
            if weights[row, place]:
                probabilities = np.exp(outputs[row, place].numpy())
                values.append(-math.log(probabilities[tokens[row, place]] / probabilities.sum()))
    assert len(values) == 20
    losses = task.loss(outputs, tokens, reduction="none")
    assert ((losses * weights).sum() / weights.sum()).item() == pytest.approx(np.mean(values), rel=1e-13)
    reported = metric(task, "perplexity", outputs, tokens, weights=weights)
    assert reported == pytest.approx(math.exp(np.mean(values)), rel=1e-13)
    assert task.metric_names == ("perplexity",)  # characters are no bytes


def test_perplexity_is_of_the_cross_entropy_without_label_smoothing():
    smoothed = build_task(LanguageModelConfig(name="language_model", label_smoothing=0.2), BYTES)
    plain = build_task(LANGUAGE_MODEL, BYTES)
    outputs, tokens = draw(plain, BYTES)
    assert smoothed.loss(outputs, tokens) != plain.loss(outputs, tokens)
    assert metric(smoothed, "perplexity", outputs, tokens) == pytest.approx(
        math.exp(plain.loss(outputs, tokens).item()), rel=1e-13
    )


def test_perplexity_of_a_huge_loss_is_infinite():
    task = build_task(LANGUAGE_MODEL, BYTES)
    assert task.metrics[0].finalize(1e4, "train") == math.inf
    assert math.isnan(task.metrics[0].finalize(math.nan, "train"))


@ALL_CASES
def test_reported_metrics_are_those_of_the_section(config: TaskConfig, spec: DataSpec):
    """Tables and figures know the metrics from the study file alone."""
    task = build_task(config, spec)
    assert tuple(metric.metric for metric in task.metrics) == config.reported_metrics(spec.token_unit)


@pytest.mark.parametrize(
    ("config", "spec", "message"),
    [
        (
            ClassificationConfig(),
            NUMBER,
            "task.name: classification predicts classes, but the targets of this data are numbers; write "
            "`task: {name: regression}`",
        ),
        (
            REGRESSION,
            BYTES,
            "task.name: regression predicts numbers, but the targets of this data are the next tokens of a text; write "
            "`task: {name: language_model}`",
        ),
        (
            LANGUAGE_MODEL,
            FIVE,
            "task.name: language_model predicts the next tokens of a text, but the targets of this data are classes; "
            "write `task: {name: classification}`",
        ),
        (
            ClassificationConfig(loss="binary_cross_entropy"),
            FIVE,
            "task.loss: binary_cross_entropy is for 2 classes, the data has 5; write `loss: cross_entropy`",
        ),
        (
            ClassificationConfig(class_weights={"cats": 2.0}),
            TWO,
            "task.class_weights: the data has no class cats; did you mean cat?",
        ),
        (
            ClassificationConfig(class_weights={"horse": 2.0}),
            FIVE,
            "task.class_weights: the data has no class horse; classes are a, b, c, d, e",
        ),
        (
            ClassificationConfig(loss="torch.nn.functional:no_such_loss"),
            FIVE,
            "task.loss: no_such_loss does not exist in functional.py; check the name after the colon",
        ),
        (
            ClassificationConfig(metrics=("math:sqrt",)),
            FIVE,
            "task.metrics: math:sqrt must take outputs, targets and the keyword `reduction`, like the losses of "
            "torch.nn.functional: too many positional arguments; its parameters are: x",
        ),
    ],
)
def test_task_that_does_not_fit(config: TaskConfig, spec: DataSpec, message: str):
    with pytest.raises(UserError) as error:
        build_task(config, spec)
    assert str(error.value) == message


def test_balanced_weights_of_a_class_without_training_examples():
    with pytest.raises(UserError, match=r"^task\.class_weights: class e has no training examples") as error:
        build_task(ClassificationConfig(class_weights="balanced"), FIVE, torch.tensor([0, 1, 2, 3]))
    assert "\n" not in str(error.value)


CUSTOM = """
import torch
from torch.nn import functional as F

def focal(outputs, targets, reduction="mean"):
    log_probability = -F.cross_entropy(outputs, targets, reduction="none")
    values = -((1 - log_probability.exp()) ** 2) * log_probability
    return values.mean() if reduction == "mean" else values

def gaussian(outputs, targets, reduction="mean"):
    mean, log_variance = outputs.unbind(1)
    values = (log_variance + (targets - mean) ** 2 / log_variance.exp()) / 2
    return values.mean() if reduction == "mean" else values

def bias(outputs, targets, reduction="mean"):
    values = outputs - targets
    return values.mean() if reduction == "mean" else values

def top_2_error(outputs, targets, reduction="mean"):
    values = 1 - (outputs.topk(2, -1).indices == targets[:, None]).any(1).to(outputs.dtype)
    return values.mean() if reduction == "mean" else values

def ignores_reduction(outputs, targets, reduction="mean"):
    return F.cross_entropy(outputs, targets)

def never_reduces(outputs, targets, reduction="mean"):
    return F.cross_entropy(outputs, targets, reduction="none")

def sums(outputs, targets, reduction="mean"):
    return F.cross_entropy(outputs, targets, reduction="sum" if reduction == "mean" else reduction)

def compares_with_the_batch(outputs, targets, reduction="mean"):
    values = F.cross_entropy(outputs - outputs.mean(0), targets, reduction="none")
    return values.mean() if reduction == "mean" else values

def one_per_class(outputs, targets, reduction="mean"):
    values = F.softmax(outputs, 1)
    return values.mean() if reduction == "mean" else values

def is_a_float(outputs, targets, reduction="mean"):
    return F.cross_entropy(outputs, targets).item()

def is_detached(outputs, targets, reduction="mean"):
    return F.cross_entropy(outputs.detach(), targets, reduction=reduction)

def not_finite(outputs, targets, reduction="mean"):
    return F.cross_entropy(outputs.log(), targets, reduction=reduction)

def infinite_slope(outputs, targets, reduction="mean"):
    values = (outputs - outputs.detach()).abs().sum(1).sqrt()
    return values.mean() if reduction == "mean" else values

def fails(outputs, targets, reduction="mean"):
    return outputs @ targets

def halves_the_precision(outputs, targets, reduction="mean"):
    values = F.cross_entropy(outputs * (2 if outputs.dtype == torch.float64 else 1), targets, reduction="none")
    return values.mean() if reduction == "mean" else values

def lacks_reduction(outputs, targets):
    return F.cross_entropy(outputs, targets)
"""


@pytest.fixture
def custom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with losses of the user."""
    (tmp_path / "own_losses.py").write_text(CUSTOM)
    monkeypatch.syspath_prepend(tmp_path)
    return "own_losses"


def check(config: TaskConfig, spec: DataSpec) -> Task:
    task = build_task(config, spec)
    outputs, targets = draw(task, spec)
    check_functions(config, task, outputs.float(), targets)
    return task


def test_custom_loss_and_metric(custom: str):
    task = check(ClassificationConfig(loss=f"{custom}:focal", metrics=(f"{custom}:top_2_error",)), FIVE)
    assert task.metric_names == ("accuracy", "top_2_error")
    outputs, targets = draw(task, FIVE)
    scores = sklearn_metrics.top_k_accuracy_score(targets, outputs, k=2, labels=range(5))
    assert metric(task, "top_2_error", outputs, targets) == pytest.approx(1 - scores, rel=1e-13)


def test_example_of_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    page = (Path(__file__).parents[3] / "docs" / "custom-code.md").read_text()
    code = page.split("## A loss and metrics")[1].split("```python")[1].split("```")[0]
    (tmp_path / "my_losses.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    task = check(ClassificationConfig(loss="my_losses:focal_loss", metrics=("my_losses:top_2_error",)), FIVE)
    outputs, targets = draw(task, FIVE)
    probability = outputs.softmax(1)[torch.arange(40), targets]
    torch.testing.assert_close(
        task.loss(outputs, targets, reduction="none"), -((1 - probability) ** 2) * probability.log()
    )


def test_custom_metric_of_a_regression_sees_outputs_in_the_shape_of_the_targets(custom: str):
    task = check(RegressionConfig(name="regression", metrics=(f"{custom}:bias",)), NUMBER)
    outputs, targets = draw(task, NUMBER)
    expected = (outputs[:, 0] - targets).mean().item()
    assert metric(task, "bias", outputs, targets) == pytest.approx(expected, rel=1e-13)


def test_custom_loss_with_two_outputs_for_one_number(custom: str):
    task = check(RegressionConfig(name="regression", loss=f"{custom}:gaussian", outputs=2), NUMBER)
    assert (task.output_shape, task.metrics) == ((2,), ())
    outputs, targets = draw(task, NUMBER)
    mean, variance = outputs[:, 0], outputs[:, 1].exp()
    expected = F.gaussian_nll_loss(mean, targets.double(), variance, reduction="none")
    torch.testing.assert_close(task.loss(outputs, targets, reduction="none"), expected, rtol=1e-12, atol=1e-12)


def test_functions_of_torch_pass_the_checks():
    for config, spec in (
        (ClassificationConfig(loss="torch.nn.functional:multi_margin_loss"), FIVE),
        (RegressionConfig(name="regression", loss="torch.nn.functional:smooth_l1_loss"), THREE_NUMBERS),
        (LanguageModelConfig(name="language_model", loss="torch.nn.functional:cross_entropy"), CHARACTERS),
    ):
        check(config, spec)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ignores_reduction", "returns shape () for reduction='none' and targets of shape (40,), but must return one"),
        ("never_reduces", "returns shape (40,) for reduction='mean', but must return the mean as a scalar"),
        ("sums", "but the mean of the values that it returns for reduction='none' is"),
        ("compares_with_the_batch", "gives an example another value if the rest of the batch differs; compute"),
        ("one_per_class", "returns shape (40, 5) for reduction='none' and targets of shape (40,), but must return one"),
        ("is_a_float", "returns float, but must return a tensor"),
        ("is_detached", "cannot be differentiated: it must compute with torch, from the outputs it is given"),
        ("not_finite", "at the initial weights; check"),
        ("infinite_slope", "has a gradient that is not finite at the initial weights"),
        ("fails", "fails: RuntimeError: "),
        ("halves_the_precision", "for float32 outputs, but"),
        ("lacks_reduction", "must take outputs, targets and the keyword `reduction`, like the losses of torch"),
        ("fails_to_exist", "does not exist"),
    ],
)
def test_unusable_custom_loss(custom: str, name: str, message: str):
    with pytest.raises(UserError) as error:
        check(ClassificationConfig(loss=f"{custom}:{name}"), FIVE)
    assert str(error.value).startswith("task.loss: ")
    assert name in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["ignores_reduction", "sums", "compares_with_the_batch", "is_a_float", "fails"])
def test_unusable_custom_metric(custom: str, name: str):
    with pytest.raises(UserError, match=f"^task.metrics: {custom}:{name} ") as error:
        check(ClassificationConfig(metrics=(f"{custom}:{name}",)), FIVE)
    assert "\n" not in str(error.value)


def test_custom_metric_need_not_be_differentiable(custom: str):
    check(ClassificationConfig(metrics=(f"{custom}:is_detached",)), FIVE)


def test_lack_of_memory_in_a_custom_loss_is_reported_as_such(monkeypatch: pytest.MonkeyPatch):
    def exhausts_memory(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(F, "multi_margin_loss", exhausts_memory)
    task = build_task(ClassificationConfig(loss="torch.nn.functional:multi_margin_loss"), FIVE)
    with pytest.raises(torch.OutOfMemoryError):
        task.loss(*draw(task, FIVE))
