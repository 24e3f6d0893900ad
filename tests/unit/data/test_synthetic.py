"""Synthetic images."""

from pathlib import Path

import numpy as np

from batchscape.config.budget import Budget
from batchscape.config.data.images import SyntheticConfig
from batchscape.config.model import VggConfig
from batchscape.config.run import RunSpec
from batchscape.config.training import TrainingConfig
from batchscape.data import synthetic
from batchscape.data.prepare import prepare
from batchscape.data.prepared import write_prepared
from batchscape.io.run_directory import RunDirectory
from batchscape.training.train import train


def config(**keys) -> SyntheticConfig:
    return SyntheticConfig(source="synthetic", **keys)


def test_synthetic_images_have_the_configured_size_number_and_classes():
    source = synthetic.load(config(images=10, image_size=(6, 9), channels=2, classes=3))
    assert (source.arrays["inputs"].shape, source.arrays["inputs"].dtype) == ((10, 6, 9, 2), np.uint8)
    assert source.arrays["targets"].tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    assert len(source.spec.classes) == 3
    assert config(images=10, image_size=(6, 9)).known_size == (10, 6)


def test_synthetic_images_depend_on_the_seed_only():
    one, same, other = (synthetic.load(config(images=8, data_seed=seed)).arrays["inputs"] for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_images_without_noise_are_the_pattern_of_their_class():
    source = synthetic.load(config(images=6, image_size=(8, 12), noise=0.0, classes=2))
    assert all(np.array_equal(source.arrays["inputs"][label], source.arrays["inputs"][label + 2]) for label in range(4))
    assert not np.array_equal(source.arrays["inputs"][0], source.arrays["inputs"][1])
    squares = source.arrays["inputs"][0].reshape(4, 2, 4, 3, 3)
    assert (squares == squares[:, :1, :, :1]).all()


def test_small_network_learns_synthetic_images(tmp_path: Path):
    data = prepare(config(images=400, image_size=(8, 8), classes=3)).data
    write_prepared(tmp_path / "data", data)
    training = TrainingConfig(budget=Budget(epochs=15), patience=15)
    spec = RunSpec(batch_size=16, learning_rate=0.1, seed=0, model=VggConfig(channels=(8,)), training=training)
    run = RunDirectory(train(spec, tmp_path / "data", tmp_path / "run"))
    assert run.summary()["validation_at_best"]["accuracy"] > 0.9
