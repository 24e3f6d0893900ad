"""What a chapter and a caption are made of."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Paper:
    """Where a measure or an expectation comes from."""

    name: str
    link: str | None = None


@dataclass(frozen=True)
class Caption:
    """The words beside a figure; each of the three texts is one to three sentences."""

    title: str
    shows: str
    reading: str
    surprise: str
    papers: tuple[Paper, ...]
    claims: tuple[str, ...] = ()
    """The claims that test what would be surprising: the report says below the figure what they found."""


@dataclass(frozen=True)
class Chapter:
    """Figures that belong together, in the order in which they are shown."""

    key: str
    title: str
    about: str
    figures: Mapping[str, Caption]
