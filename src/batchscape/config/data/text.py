"""Sections of the sources of text."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from batchscape.config.base import cross_field_error
from batchscape.config.data.section import DataSection, TaskName


class TextConfig(DataSection):
    """Text, cut into blocks of tokens: each token of a block is predicted from those before it.

    The text is split before it is cut, so that no token is on two sides."""

    example_noun: ClassVar[str] = "blocks"

    tasks: ClassVar[tuple[TaskName, ...]] = ("language_model",)
    may_give_split: ClassVar[bool] = True

    source: Literal["text"]
    """Where the text comes from."""

    path: Annotated[str, Field(min_length=1, examples=["data/shakespeare.txt"])]
    """A file, or a folder of files, which are read in order of their names. Folders `train`, `validation` (or `val`)
    and `test` in it define the split."""

    pattern: Annotated[str, Field(min_length=1, examples=["*.txt"])] = "*"
    """Names of the files of a folder that are read."""

    tokens: Literal["bytes", "characters"] = "bytes"
    """`bytes`: 256 tokens. `characters`: those of the training text (UTF-8), and one token for all others."""

    block_length: Annotated[int, Field(ge=1, le=2**20, examples=[64])] = 64
    """Tokens of a block; each one predicts the next. The first one of a block is the last target of the one before."""

    last_block: Literal["pad", "drop"] = "pad"
    """The last block of a file that has fewer tokens. `pad`: it is filled up; the padding has weight 0 in the loss and
    in all metrics. `drop`: it is dropped."""

    split: Literal["random", "first"] = "first"
    """`first`: the first part of the text trains, the next validates, the last tests. `random`: files are drawn with
    `split_seed` until they have the fraction of the text."""

    @model_validator(mode="after")
    def _text_has_no_classes(self) -> Self:
        if self.stratify:
            raise cross_field_error("stratify", "the tokens of a text cannot be stratified; remove the key")
        return self

    @property
    def token_unit(self) -> str:
        return "byte" if self.tokens == "bytes" else "character"

    @property
    def files(self) -> dict[str, str]:
        return {"path": self.path}


class PythonDocsConfig(DataSection):
    """The documentation of the Python language, some 470,000 bytes that ship with Python as `pydoc_data.topics`.

    The text depends on the version of Python, which the log has with a hash of the text."""

    example_noun: ClassVar[str] = "blocks"

    tasks: ClassVar[tuple[TaskName, ...]] = ("language_model",)

    source: Literal["python_docs"]
    """Where the text comes from."""

    tokens: Literal["bytes", "characters"] = "bytes"
    """As for `text`."""

    block_length: Annotated[int, Field(ge=1, le=2**20, examples=[64])] = 64
    """As for `text`."""

    split: Literal["first"] = "first"
    """As for `text`."""

    @property
    def token_unit(self) -> str:
        return "byte" if self.tokens == "bytes" else "character"
