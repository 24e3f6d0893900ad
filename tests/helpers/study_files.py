"""Study files for tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from batchscape.study.study import Study

FULL = """\
name: full
data:
  source: digits
  validation_fraction: 0.25
  split_seed: 5
grid:
  batch_sizes: [32, 64]
  learning_rates: [0.01, 0.08]
  seeds: [0, 1]
model:
  name: vgg
  channels: [4, 8]
  dense: [16]
training:
  budget: {epochs: 20}
  patience: 3
  momentum: 0.9
  weight_decay: 0.0001
  checkpoints: [1, 10]
  accelerator: cpu
comparison:
  fixed_learning_rate: 0.01
  high_learning_rate: 0.08
  small_batch_size: 32
  large_batch_size: 64
"""


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., Study]:
    """Write a text to `study.yaml` and read it as a study."""

    def read(text: str, overrides: dict[str, Any] | None = None) -> Study:
        path = tmp_path / "study.yaml"
        path.write_text(text, encoding="utf-8")
        return Study.from_file(path, overrides)

    return read


def full_mapping() -> dict[str, Any]:
    return YAML(typ="safe", pure=True).load(FULL)


SECTIONS = {section: list(keys) for section, keys in full_mapping().items() if isinstance(keys, dict)}


def sections_reversed(mapping: dict[str, Any]) -> dict[str, Any]:
    """The same keys in the opposite order, on every level."""
    return {k: sections_reversed(v) if isinstance(v, dict) else v for k, v in reversed(mapping.items())}


COLUMNS = {
    "features": (["carat", "color"], ["carat", "color", "table"]),
    "exclude": (["x"], ["y"]),
    "categorical": (["color"], ["carat", "color"]),
    "encoding": ("one_hot", "embedded"),
    "missing": ("error", "drop"),
    "missing_values": (["NA"], ["?"]),
    "weight": (None, "z"),
    "group_column": (None, "z"),
}
# Every kind of data and network: its keys, each with a value and another one; the same one if a key has no other, or
# none that fits the study.
KINDS = {
    "data": {
        "digits": {"task": ("parity", "digit")},
        "image_folder": {
            "path": ("pets", "cats"),
            "image_size": ([8, 8], [8, 9]),
            "fit": ("stretch", "crop"),
            "color": ("rgb", "grayscale"),
            "drop_duplicates": (True, False),
            "jfif_only": (True, False),
            "white_level": (None, 4095),
        },
        "arrays": {
            "path": ("a.npy", "b.npy"),
            "labels": ("c.npy", "d.npy"),
            "inputs": ("auto", "images"),
            "channels": ("last", "first"),
        },
        "synthetic": {
            "images": (900, 901),
            "image_size": ([8, 8], [9, 8]),
            "channels": (1, 3),
            "classes": (2, 3),
            "noise": (0.5, 1),
            "data_seed": (0, 1),
        },
        "cats_vs_dogs": {
            "path": ("pets", None),
            "image_size": ([8, 8], [8, 9]),
            "fit": ("stretch", "crop"),
            "color": ("rgb", "grayscale"),
            "drop_duplicates": (True, False),
            "jfif_only": (True, False),
            "white_level": (None, 4095),
            "url": ("http://a.b/c", "http://a.b/d"),
            "sha256": ("0" * 64, "1" * 64),
        },
        "table": {
            **COLUMNS,
            "path": ("a.csv", "b.csv"),
            "target": ("kind", "sort"),
            "target_transform": ("none", "none"),
            "separator": (None, ";"),
            "split_column": (None, "side"),
            "validation_path": (None, "c.csv"),
            "test_path": (None, "d.csv"),
        },
        "diamonds": {**COLUMNS, "target": ("price", "depth"), "target_transform": (None, "standardize")},
        "text": {
            "path": ("a.txt", "b.txt"),
            "pattern": ("*", "*.txt"),
            "tokens": ("bytes", "characters"),
            "block_length": (64, 32),
            "last_block": ("pad", "drop"),
            "split": ("first", "random"),
            "stratify": (False, False),
        },
        "python_docs": {
            "tokens": ("bytes", "characters"),
            "block_length": (64, 32),
            "split": ("first", "first"),
            "stratify": (False, False),
        },
        "idx": {"path": ("a", "b"), "labels": (None, "c"), "transpose": (None, True)},
        "cifar": {"path": ("a", "b"), "labels": (None, "coarse")},
        "my_data:load": {"arguments": ({"n": 1}, {"n": 2})},
    },
    "model": {
        "vgg": {
            "channels": ([4], [5]),
            "convolutions": (1, 2),
            "dense": ([4], []),
            "normalization": ("none", "batch"),
            "dropout": (0, 0.5),
        },
        "mlp": {"dense": ([4], []), "dropout": (0, 0.5)},
        "resnet": {"channels": ([4], [5]), "blocks": (1, 2), "normalization": ("batch", "group")},
        "transformer": {
            "depth": (1, 2),
            "width": (8, 16),
            "heads": (2, 4),
            "context": (None, 8),
            "dropout": (0, 0.5),
        },
        "my_net:Net": {"arguments": ({"width": 4}, {"width": 5})},
    },
}


SELECTOR = {"data": "source", "model": "name"}


OF_ALL = {
    "data": {
        "validation_fraction": (0.2, 0.3),
        "test_fraction": (0, 0.1),
        "split": ("random", "first"),
        "split_seed": (0, 1),
        "stratify": (False, True),
    },
    "model": {},
}


EACH_KIND = [(section, kind) for section, kinds in KINDS.items() for kind in kinds]


def keys_of(section: str, kind: str) -> dict[str, tuple[Any, Any]]:
    """All keys of a kind, each with its two values."""
    return {**OF_ALL[section], **KINDS[section][kind]}


def of_kind(section: str, kind: str, **changed: Any) -> dict[str, Any]:
    """A study with one section of this kind, all of its keys written out."""
    keys = keys_of(section, kind)
    values = {SELECTOR[section]: kind, **{key: value for key, (value, _) in keys.items()}, **changed}
    return {"name": "s", section: values}
