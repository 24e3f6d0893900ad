"""The documentation of the Python language."""

import hashlib
import platform
from pydoc_data.topics import topics

import numpy as np

from batchscape.config.data.text import PythonDocsConfig
from batchscape.data.prepare import prepare


def test_the_blocks_are_the_topics_in_order():
    result = prepare(PythonDocsConfig(source="python_docs"), task="language_model")
    content = "\n\n".join(text for _, text in sorted(topics.items())).encode()
    train, validation = (result.data.sides[side].arrays for side in ("train", "validation"))
    assert set(train) == set(validation) == {"inputs"}
    tokens = np.concatenate([train["inputs"].numpy()[0], train["inputs"].numpy()[1:, 1:].ravel()])
    assert tokens.tobytes() == content[: len(tokens)]
    start = len(content) - round(0.2 * len(content))
    assert validation["inputs"].numpy()[0].tobytes() == content[start : start + 65]
    assert len(tokens) > start - 65
    assert result.summary[1] == (
        f"text: pydoc_data.topics of Python {platform.python_version()}, {len(content):,} bytes, "
        f"SHA-256 {hashlib.sha256(content).hexdigest()}"
    )


def test_characters():
    result = prepare(PythonDocsConfig(source="python_docs", tokens="characters"), task="language_model")
    assert 80 < result.data.spec.vocabulary < 400
    assert result.data.spec.token_unit == "character"
