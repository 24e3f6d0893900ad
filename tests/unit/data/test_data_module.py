"""LightningDataModules as a data source: datasets are read once, in order; what cannot be stored is refused."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from batchscape.config.data.arrays import CustomDataConfig
from batchscape.config.data.section import TaskName
from batchscape.data.prepare import prepare
from batchscape.data.prepared import PreparedData
from tests.helpers.lightning import MnistLike
from tests.helpers.objectives import CPU

MODULE = """
import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, WeightedRandomSampler

x = torch.arange(40 * 6.0).reshape(40, 6) / 240
y = torch.arange(40) % 4

class Items(Dataset):
    def __init__(self, item, count=40):
        self.item, self.count = item, count
    def __len__(self):
        return self.count
    def __getitem__(self, index):
        return self.item(index)

class Stream(IterableDataset):
    def __iter__(self):
        return zip(x, y)

class Data(pl.LightningDataModule):
    def train_dataloader(self):
        return {train}
    {more}
"""


def load(write_module: Callable, train: str, more: str = "", task: TaskName = "classification") -> PreparedData:
    write_module("my_data.py", MODULE.format(train=train, more=more))
    return prepare(CustomDataConfig(source="my_data:Data"), task=task).data


def test_sides_have_the_examples_of_the_loaders_in_order():
    data = prepare(CustomDataConfig(source="tests.helpers.lightning:MnistLike", arguments={"count": 100})).data
    module = MnistLike(count=100)
    module.setup("fit")
    assert data.spec.classes == tuple("0123456789")
    for side, dataset in ((data.train, module.train), (data.validation, module.val), (data.test, module.test)):
        batch, expected = side.batch(slice(None), CPU), [torch.stack([*part]) for part in zip(*dataset, strict=True)]
        assert torch.equal(batch.inputs, expected[0])
        assert torch.equal(batch.targets, expected[1])


@pytest.mark.parametrize("method", ["__init__(self): super().__init__(); ", "setup(self, stage): "])
def test_random_split_is_the_same_each_time(write_module: Callable, method: str):
    split = "self.train, self.val = torch.utils.data.random_split(TensorDataset(x, y), [30, 10])"
    more = f"def {method}{split}\n    def val_dataloader(self): return DataLoader(self.val)"
    once, again = (load(write_module, "DataLoader(self.train)", more) for _ in range(2))
    assert torch.equal(once.validation.arrays["inputs"], again.validation.arrays["inputs"])
    assert not torch.equal(once.validation.arrays["inputs"], once.train.arrays["inputs"][-10:])


def test_network_sees_the_shapes_and_labels_of_the_loader(write_module: Callable):
    # Label 2 has no example, and keeps 3 its index; the third axis of these inputs is no channel.
    data = load(write_module, "DataLoader(Items(lambda i: (np.full((5, 4), i, np.float32), (0, 1, 3)[i % 3])), 8)")
    batch = data.train.batch(slice(None), CPU)
    assert data.spec.classes == ("0", "1", "2", "3")
    assert batch.inputs.shape[1:] == (5, 4)
    assert batch.targets.unique().tolist() == [0, 1, 3]
    # Without a loader for validation, the study draws it from the training examples.
    assert (len(data.train), len(data.validation), data.test) == (32, 8, None)


def test_names_of_classes_and_numbers_are_those_of_the_dataset(write_module: Callable):
    named = "DataLoader(Subset(type('Named', (TensorDataset,), {'classes': ['a', 'b', 'c', 'd']})(x, y), range(39)))"
    assert load(write_module, named).spec.classes == ("a", "b", "c", "d")


def test_numbers_and_tokens_are_targets_too(write_module: Callable):
    data = load(write_module, "DataLoader(TensorDataset(x, x[:, :2]))", task="regression")
    batch = data.train.batch(slice(None), CPU)
    assert data.spec.target_shape == (2,)
    assert torch.equal(batch.targets, batch.inputs[:, :2])


def test_items_of_a_language_model_are_tokens(write_module: Callable):
    data = load(write_module, "DataLoader(Items(lambda i: torch.arange(5) + i % 3))", task="language_model")
    batch = data.train.batch(slice(None), CPU)
    assert (data.spec.shape, data.spec.vocabulary) == ((4,), 7)
    assert np.array_equal(batch.targets, batch.inputs + 1)


TRAIN = "train_dataloader of my_data:Data"


@pytest.mark.parametrize(
    ("train", "more", "expected"),
    [
        ("DataLoader(Stream(), 4)", "", f"{TRAIN} has the iterable dataset Stream, of which epochs cannot be shuffled"),
        ("[DataLoader(Items(None)), DataLoader(Items(None))]", "", f"{TRAIN} returns 2 loaders; return one torch"),
        ("[(x, y)] * 3", "", f"{TRAIN} returns 3 loaders; return one torch.utils.data.DataLoader"),
        ("DataLoader(TensorDataset(x[:0], y[:0]))", "", f"{TRAIN} has an empty dataset; add examples"),
        ("DataLoader(TensorDataset(x, y), collate_fn=len)", "", f"{TRAIN} has a collate_fn, which would not be used"),
        (
            "DataLoader(TensorDataset(x, y), sampler=WeightedRandomSampler([1.0] * 40, 40))",
            "",
            f"{TRAIN} has the sampler WeightedRandomSampler, which would not be used",
        ),
        ("DataLoader(Items(lambda i: {'x': x[i], 'y': y[i]}))", "", f"{TRAIN}: example 0 is a dict with x, y; it must"),
        (
            "DataLoader(Items(lambda i: (x[i], {'a': 1})))",
            "",
            f"{TRAIN}: example 0 is a tuple of Tensor, dict; it",
        ),
        ("DataLoader(TensorDataset(x, y, y))", "", f"{TRAIN}: example 0 is a tuple of Tensor, Tensor, Tensor; it must"),
        (
            "DataLoader(Items(lambda i: (torch.zeros(2 + (i == 7)), 0)))",
            "",
            f"{TRAIN}: example 7 has an input of shape (3,), and the first one (2,); make them the same",
        ),
        (
            "DataLoader(Items(lambda i: (x[i].flip(0) if torch.rand(()) < 0.5 else x[i], y[i])))",
            "",
            f"{TRAIN}: example",
        ),
        ("DataLoader(Items(lambda i: (x[i], y[i] - 1)))", "", "my_data:Data has the label -1; labels must be indices"),
        ("DataLoader(Items(lambda i: x[i + 40]))", "", f"{TRAIN}: example 0 cannot be read: IndexError"),
        ("1 / 0", "", f"{TRAIN} fails: ZeroDivisionError"),
        ("None", "def setup(self, stage): raise OSError('no disk')", 'setup("fit") of my_data:Data fails: OSError: no'),
        ("None", "def on_after_batch_transfer(self, batch, i): pass", "my_data:Data defines on_after_batch_transfer"),
    ],
    ids=lambda value: value[:30],
)
def test_what_cannot_be_stored_is_refused(
    write_module: Callable, refusal: Callable, train: str, more: str, expected: str
):
    message = refusal(load, write_module, train, more)
    assert message.startswith(f"data.source: {expected}")


def test_random_augmentation_is_named(write_module: Callable, refusal: Callable):
    message = refusal(load, write_module, "DataLoader(Items(lambda i: (x[i] + torch.rand(6), y[i])))")
    assert message.startswith(f"data.source: {TRAIN}: example 0 differs when it is read again, as with random")


def test_module_without_training_data_is_refused(write_module: Callable, refusal: Callable):
    write_module("my_data.py", "import pytorch_lightning as pl\nclass Data(pl.LightningDataModule): pass")
    message = refusal(prepare, CustomDataConfig(source="my_data:Data"))
    assert message == "data.source: my_data:Data has no train_dataloader; define it"
