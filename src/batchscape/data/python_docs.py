"""The documentation of the Python language that ships with Python."""

import hashlib
import platform
from dataclasses import replace
from importlib import import_module

import numpy as np

from batchscape.config.data.text import PythonDocsConfig
from batchscape.data.source import DEFAULT_OPTIONS, LoadOptions, RawDataset
from batchscape.data.text import Text, code_points, cut_blocks, split_text
from batchscape.errors import UserError

SEPARATOR = "\n\n"  # between topics


def load(config: PythonDocsConfig, options: LoadOptions = DEFAULT_OPTIONS) -> RawDataset:
    """Return the blocks of the text; last blocks with fewer tokens are dropped.

    Raises UserError if this Python comes without the text, or a side of the split has no block.
    """
    text = read_topics()
    encoded = text.encode()
    digest = hashlib.sha256(encoded).hexdigest()
    symbols = np.frombuffer(encoded, np.uint8) if config.tokens == "bytes" else code_points(text)
    segments = split_text([Text("pydoc_data.topics", symbols, digest)], config)
    dataset = cut_blocks(segments, config, False, options)
    source = f"text: pydoc_data.topics of Python {platform.python_version()}, {len(encoded):,} bytes, SHA-256 {digest}"
    return replace(dataset, notes=(source, *dataset.notes))


def read_topics() -> str:
    """Return the topics in order of their names. Raises UserError if this Python comes without them."""
    try:
        topics = import_module("pydoc_data.topics").topics
    except ImportError:
        raise UserError(
            "data.source: this Python comes without pydoc_data, the text of python_docs; install the package of your "
            "system that has it, such as libpython3-stdlib"
        )
    return SEPARATOR.join(topics[name] for name in sorted(topics))
