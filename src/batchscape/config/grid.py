"""Section `grid`: the grid of runs."""

from typing import Annotated

from pydantic import Field

from batchscape.config.base import AsTuple, Distinct, LearningRate, PositiveInt, Section, Seed


class GridConfig(Section):
    """The grid: each batch size trains at each learning rate with each seed."""

    batch_sizes: Annotated[
        tuple[PositiveInt, ...], Field(min_length=1, examples=[[32, 64, 128, 256]]), AsTuple, Distinct
    ] = (32, 64, 128, 256)
    """Global batch sizes: examples per optimizer step, summed over devices."""

    learning_rates: Annotated[
        tuple[LearningRate, ...], Field(min_length=1, examples=[[0.01, 0.02, 0.04, 0.08]]), AsTuple, Distinct
    ] = (0.01, 0.02, 0.04, 0.08)
    """Learning rates of the grid."""

    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, examples=[[0, 1, 2]]), AsTuple, Distinct] = (0, 1, 2)
    """Seeds; a seed fixes the initial weights and the order of the batches, so runs of one seed are pairs."""
