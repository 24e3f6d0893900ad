"""The types of chapters and captions."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Paper:
    """The source of a measure or an expectation."""

    name: str
    link: str | None = None


@dataclass(frozen=True)
class Caption:
    """The text beside a figure: what it shows, how to read it, and what would be surprising."""

    title: str
    shows: str
    reading: str
    surprise: str
    papers: tuple[Paper, ...]
    claims: tuple[str, ...] = ()
    """The claims that test the expectation behind `surprise`; the report prints their results below the figure."""


@dataclass(frozen=True)
class Chapter:
    """A section of the report with its figures, in the order in which they are shown."""

    key: str
    title: str
    about: str
    figures: Mapping[str, Caption]
