"""The loss and the metrics of an objective, over the table of tasks."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from batchscape.config.model import CustomModelConfig
from batchscape.config.task import LanguageModelConfig
from batchscape.data.dataset import Batch, Dataset
from batchscape.data.prepared import PreparedData
from batchscape.data.spec import DataSpec
from batchscape.tasks.compatibility import check_additivity, validate_network
from batchscape.tasks.objective import Meter, SupervisedObjective, dataset_weights, evaluate
from tests.helpers.cases import CASES, CPU, Case

ALL_CASES = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@ALL_CASES
def test_loss_is_the_weighted_mean_by_definition(case: Case):
    objective, batch = case.objective(), case.dataset().batch(slice(None), CPU)
    loss = objective(batch).loss
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(case.expected_mean(objective.module, batch).item(), rel=1e-12)


@ALL_CASES
def test_total_weight_of_an_example(case: Case):
    objective, batch = case.objective(), case.dataset().batch(slice(None), CPU)
    weights, expected = objective.example_weights(batch), case.expected_weights(batch)
    if weights is None:
        assert expected.unique().tolist() == [1]
    else:
        torch.testing.assert_close(weights, expected.reshape(len(batch), -1).sum(1), rtol=1e-6, atol=0)


@ALL_CASES
@pytest.mark.parametrize("sizes", [(23,), (11, 12), (1, 22), (20, 2, 1), (1,) * 23])
def test_loss_and_gradient_of_parts_add_up(case: Case, sizes: tuple[int, ...]):
    """The contract: loss × Σ weights is additive."""
    objective, batch = case.objective(), case.dataset().batch(slice(None), CPU)

    def total(parts: list[Batch]) -> list[torch.Tensor]:
        losses = []
        for part in parts:
            weights = objective.example_weights(part)
            losses.append(objective(part).loss * (len(part) if weights is None else weights.sum()))
        loss = torch.stack(losses).sum()
        return [loss.detach(), *torch.autograd.grad(loss, list(objective.module.parameters()))]

    for found, expected in zip(total(batch.split(sizes)), total([batch]), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@ALL_CASES
@pytest.mark.parametrize("chunk", [1, 5, 23])
def test_evaluation_in_chunks_equals_a_single_pass(case: Case, chunk: int, monkeypatch: pytest.MonkeyPatch):
    objective, data = case.objective(), case.dataset()
    batch = data.batch(slice(None), CPU)
    sums = evaluate(objective, (data.batch(slice(i, i + chunk), CPU) for i in range(0, len(data), chunk)), CPU)
    total_weight = len(data) * case.expected_weights(batch).mean().item()
    monkeypatch.setattr("batchscape.tasks.objective.WEIGHT_BYTES", 4 * data.num_bytes // len(data))
    weights = dataset_weights(objective, data, CPU)
    if weights is not None:
        total_weight = weights.sum().item()
        assert total_weight == pytest.approx(case.expected_weights(batch).sum().item(), rel=1e-6)
    found = objective.report(sums, total_weight, "train")
    assert found.loss == pytest.approx(case.expected_mean(objective.module, batch).item(), rel=1e-12)
    assert tuple(found.metrics) == objective.metrics
    if "accuracy" in found.metrics:
        outputs, weights = objective.module(batch.inputs), case.expected_weights(batch)
        predicted = outputs.argmax(1) if outputs.shape[1] > 1 else (outputs[:, 0] > 0).long()
        expected = np.average((predicted == batch.targets).numpy(), weights=weights.numpy())
        assert found.metrics["accuracy"] == pytest.approx(expected, rel=1e-12)
    if "rmse" in found.metrics and "log_cosh" not in case.config.loss:
        assert found.metrics["rmse"] == pytest.approx(math.sqrt(found.loss), rel=1e-12)
    if "perplexity" in found.metrics:
        assert found.metrics["perplexity"] == pytest.approx(math.exp(found.loss), rel=1e-12)
    if "bias" in found.metrics:
        outputs = objective.module(batch.inputs)[:, 0]
        assert found.metrics["bias"] == pytest.approx((outputs - batch.targets).mean().item(), rel=1e-12)


@ALL_CASES
def test_records_of_training_give_the_sums_of_evaluation(case: Case):
    objective, data = case.objective(), case.dataset()
    meter = Meter(objective, CPU)
    for part in data.batch(slice(None), CPU).split(4):
        meter.add(objective(part).record)
    expected = evaluate(objective, [data.batch(slice(None), CPU)], CPU)
    torch.testing.assert_close(meter.sums(), expected, rtol=1e-12, atol=1e-12)


@ALL_CASES
def test_empty_batch_adds_nothing(case: Case):
    """A process whose shard of a short batch is empty has one, if BatchNorm sums over the processes."""
    objective, batch = case.objective(), case.dataset().batch(slice(0), CPU)
    loss, record = objective(batch)
    gradients = torch.autograd.grad(loss, list(objective.module.parameters()))
    assert not any(gradient.any() for gradient in gradients)
    weights = objective.example_weights(batch)
    assert weights is None or weights.shape == (0,)
    meter = Meter(objective, CPU)
    meter.add(record)
    assert meter.sums().tolist() == [0.0] * (1 + len(objective.metrics))


@pytest.mark.parametrize("name", ["language model", "language model with padding"])
def test_language_model_with_equal_outputs_has_the_logarithm_of_the_vocabulary(name: str):
    case = CASES[name]
    objective = case.objective()
    torch.nn.init.zeros_(objective.module.second.weight)
    torch.nn.init.constant_(objective.module.second.bias, 3.0)
    for part in case.dataset().batch(slice(None), CPU).split(6):
        assert objective(part).loss.item() == pytest.approx(math.log(7), rel=1e-14)


def test_padding_has_no_effect():
    """Neither the padded targets nor what the network is given there change the loss."""
    case = CASES["language model with padding"]
    objective, data = case.objective(), case.dataset()
    tokens = data.arrays["inputs"].clone()
    padded = data.arrays["weights"] == 0
    assert 10 < padded.sum() < 60
    tokens[:, 1:][padded] = 5
    other = type(data)(data.spec, {**data.arrays, "inputs": tokens})
    loss, changed = (objective(each.batch(slice(None), CPU)).loss.item() for each in (data, other))
    # Smooth sees one token at a time, so the loss after a padded token has weight 0 as well.
    assert loss == changed


def test_means_are_over_tokens_and_not_over_blocks():
    case = CASES["language model with padding"]
    objective, batch = case.objective(), case.dataset().batch(slice(None), CPU)
    of_blocks = [objective(part).loss.item() for part in batch.split(1)]
    assert objective(batch).loss.item() != pytest.approx(np.mean(of_blocks), rel=1e-3)


def test_order_of_a_batch_changes_nothing():
    for case in CASES.values():
        objective, data = case.objective(), case.dataset(7)
        losses = [
            objective(data.batch(torch.tensor(order), CPU)).loss.item()
            for order in itertools.islice(itertools.permutations(range(7)), 0, 5040, 997)
        ]
        assert np.ptp(losses) < 1e-12


def test_objective_of_another_network_has_the_same_task():
    case = CASES["own loss"]
    objective, other = case.objective(0), case.objective(1)
    batch = case.dataset().batch(slice(None), CPU)
    assert objective.on(other.module)(batch).loss == other(batch).loss != objective(batch).loss
    assert isinstance(objective.copy(), SupervisedObjective)
    assert objective.copy().module is not objective.module


@ALL_CASES
def test_contract_is_tested_with_the_loss_of_a_batch_and_its_parts(case: Case, refusal: Callable):
    objective, batch = case.objective(), case.dataset().batch(slice(8), CPU)
    check_additivity(objective, batch, "loss")
    total = replace(objective.task, loss=lambda outputs, _, *, reduction: outputs.square().sum())  # noqa: ARG005
    if batch.weights is None and objective.task.target_weights is None:
        message = refusal(check_additivity, SupervisedObjective(objective.module, total), batch, "my.losses:total")
        assert message.startswith(
            "task.loss: my.losses:total is not a mean over examples: 8 of them have the total loss "
        )


class Mixing(nn.Module):
    """A language model that adds the mean embedding of the tokens up to each one, or of all of them."""

    def __init__(self, vocabulary: int, causal: bool):
        super().__init__()
        self.embedding, self.output, self.causal = nn.Embedding(vocabulary, 4), nn.Linear(4, vocabulary), causal

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        embedded = self.embedding(tokens)
        counts = torch.arange(1, tokens.shape[1] + 1)[:, None]
        before = embedded.cumsum(1) / counts if self.causal else embedded.mean(1, keepdim=True)
        return self.output(embedded + before)


def mixing(vocabulary: int, causal: bool) -> nn.Module:
    return Mixing(vocabulary, causal)


@pytest.mark.parametrize("causal", [True, False])
def test_language_model_that_sees_later_tokens_is_rejected(causal: bool, refusal: Callable):
    tokens = np.random.default_rng(0).integers(0, 9, (20, 7), dtype=np.uint8)
    spec = DataSpec("tokens", (6,), "next_token", vocabulary=9, token_unit="token")
    side = Dataset.from_numpy(spec, {"inputs": tokens})
    data = PreparedData(spec, side, side, None)
    model = CustomModelConfig(name=f"{__name__}:mixing", arguments={"vocabulary": 9, "causal": causal})
    arguments = model, LanguageModelConfig(name="language_model"), 4, data
    if causal:
        assert validate_network(*arguments)["outputs"] == 9
    else:
        message = refusal(validate_network, *arguments)
        assert "the output for a token depends on later tokens, which it is to predict; use a causal mask" in message
