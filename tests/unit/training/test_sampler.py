"""The sampler: which examples a run visits, and in which order."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from batchscape.config.run import RunSpec
from batchscape.config.training import TrainingConfig
from batchscape.training.module import TrainingModule
from batchscape.training.sampler import epoch_order
from tests.helpers.objectives import classifier, image_data
from tests.helpers.trainers import bare_trainer

SEEDS = st.integers(0, 2**32 - 1)


@given(count=st.integers(1, 500), seed=SEEDS, epoch=st.integers(1, 10_000))
def test_epoch_visits_each_example_once(count: int, seed: int, epoch: int):
    assert sorted(epoch_order(count, seed, epoch)) == list(range(count))


@given(seed=SEEDS, epoch=st.integers(1, 10_000))
def test_order_is_a_function_of_seed_and_epoch(seed: int, epoch: int):
    assert epoch_order(100, seed, epoch).tolist() == epoch_order(100, seed, epoch).tolist()


def test_orders_differ_between_epochs_and_seeds():
    # Among them (1, 2) and (2, 1), and pairs of equal sum and product.
    orders = {tuple(epoch_order(100, seed, epoch)) for seed in range(20) for epoch in range(1, 21)}
    assert len(orders) == 400


def test_order_is_independent_of_global_random_states(randomness):
    randomness.seed(1)
    untouched = randomness.draws()
    randomness.seed(1)
    first = epoch_order(100, 3, 4)
    assert randomness.draws() == untouched
    randomness.seed(2)
    assert epoch_order(100, 3, 4).tolist() == first.tolist()


def test_order_is_stable_across_versions():
    # If this fails, every run would change.
    assert epoch_order(6, 3, 2).tolist() == [4, 0, 1, 2, 3, 5]
    assert epoch_order(6, 2, 3).tolist() == [5, 2, 0, 1, 3, 4]


class Witness(nn.Module):
    """A network that records its examples; the first pixel of an example is its index."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.batches: list[list[int]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.batches.append((images[:, 0, 0, 0] * 255).round().int().tolist())
        return images.mean(dim=(1, 2, 3), keepdim=True)[:, 0, 0] * self.weight


def seen_in_training(batch_size: int, seed: int, epochs: int, reshuffle: bool = True) -> list[list[int]]:
    """Return the global batches of a run on 100 examples."""
    images = np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1)
    labels = np.zeros(100, np.int64)
    network = Witness()
    training = TrainingConfig(reshuffle=reshuffle)
    spec = RunSpec(batch_size=batch_size, learning_rate=0.1, seed=seed, training=training)
    bare_trainer(epochs).fit(
        TrainingModule(classifier(network), image_data(images, labels, images[:1], labels[:1], ("no", "yes")), spec)
    )
    return network.batches


@pytest.fixture(scope="module")
def seen() -> dict[int, list[list[int]]]:
    """The batches of two epochs of seed 5, by batch size."""
    return {batch_size: seen_in_training(batch_size, seed=5, epochs=2) for batch_size in (32, 64, 100)}


@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(32, [32, 32, 32, 4] * 2), (64, [64, 36] * 2), (100, [100] * 2)], ids=str
)
def test_only_the_last_batch_is_smaller(seen: dict, batch_size: int, sizes: list[int]):
    assert [len(batch) for batch in seen[batch_size]] == sizes


@pytest.mark.parametrize("batch_size", [32, 64, 100])
def test_order_is_the_same_at_every_batch_size(seen: dict, batch_size: int):
    expected = [*epoch_order(100, 5, 1), *epoch_order(100, 5, 2)]
    assert [example for batch in seen[batch_size] for example in batch] == expected


@pytest.mark.parametrize("batch_size", [32, 100])
def test_without_reshuffling_all_epochs_have_the_same_batches(batch_size: int):
    seen = seen_in_training(batch_size, seed=5, epochs=3, reshuffle=False)
    expected = epoch_order(100, 5, 1).tolist()
    assert [example for batch in seen for example in batch] == expected * 3
    assert seen[: len(seen) // 3] * 3 == seen
