"""Stages of a run: which batches it trains on, and at which rate."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscape.config.run import RunSpec
from batchscape.training.plan import StepPlan


def plan_of(num_examples: int, batch_size: int, budget: dict, stages: list[dict], **settings) -> StepPlan:
    spec = {"batch_size": batch_size, "learning_rate": 0.1, "seed": 0, "stages": stages, **settings}
    return StepPlan(RunSpec.model_validate({**spec, "training": {"budget": budget}}), num_examples)


def stage(start: dict, batch_size_factor: int, learning_rate_factor: float = 1.0) -> dict:
    return {
        "start": start, "batch_size_factor": batch_size_factor, "learning_rate_factor": learning_rate_factor
    }  # fmt: skip


def batches(plan: StepPlan) -> list[tuple[int, int, int]]:
    """Return epoch, first place and size of each batch."""
    found = []
    for part in plan.parts(0, plan.total):
        start = part.start
        for size in part.sizes:
            found.append((part.epoch, start, size))
            start += size
    return found


def test_batch_sizes_of_a_small_example():
    # Ten examples an epoch: two batches of 2, then batches of 4 to the end of the epoch and in the next one, then of 8.
    plan = plan_of(10, 2, {"epochs": 3}, [stage({"steps": 2}, 2, 0.5), stage({"epochs": 2}, 4)])
    assert batches(plan) == [
        (1, 0, 2), (1, 2, 2), (1, 4, 4), (1, 8, 2),
        (2, 0, 4), (2, 4, 4), (2, 8, 2),
        (3, 0, 8), (3, 8, 2),
    ]  # fmt: skip
    assert [plan.learning_rate_factor(step) for step in range(1, 10)] == [1, 1, *[0.5] * 5, 1, 1]
    assert [plan.examples(step) for step in range(10)] == [0, 2, 4, 8, 10, 14, 18, 20, 28, 30]
    assert [plan.next_epoch(step) for step in range(10)] == [1, 2, 2, 2, 2, 3, 3, 3, 4, 4]
    assert (plan.total, plan.max_batch_size, plan.evaluations) == (9, 8, [4, 7, 9])


def test_a_fraction_is_one_of_the_examples():
    plan = plan_of(100, 10, {"examples": 400}, [stage({"fraction": 0.5}, 5)])
    assert plan.total == 20 + 4
    in_steps = plan_of(100, 10, {"steps": 40}, [stage({"fraction": 0.5}, 5)])
    assert in_steps.total == 40
    assert (in_steps.examples(20), in_steps.examples(40)) == (200, 200 + 20 * 50)


STAGES = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 9)), max_size=3)


@given(num=st.integers(1, 40), batch_size=st.integers(1, 12), stages=STAGES, epochs=st.integers(1, 5))
def test_each_epoch_has_each_example_once(num: int, batch_size: int, stages: list, epochs: int):
    ordered = sorted(dict(stages).items())
    plan = plan_of(num, batch_size, {"epochs": epochs}, [stage({"steps": step}, factor) for step, factor in ordered])
    found = batches(plan)
    assert len(found) == plan.total
    expected = [(1 + place // num, place % num) for place in range(epochs * num)]
    assert [(epoch, place) for epoch, start, size in found for place in range(start, start + size)] == expected
    seen = 0
    for step, (_, _, size) in enumerate(found, start=1):
        seen += size
        assert plan.examples(step) == seen
        factors = [factor for first, factor in ordered if first < step]
        assert size <= batch_size * (factors[-1] if factors else 1)


@given(stages=STAGES, cut=st.integers(0, 200))
def test_parts_do_not_depend_on_where_a_run_resumes(stages: list, cut: int):
    ordered = sorted(dict(stages).items())
    plan = plan_of(37, 5, {"epochs": 6}, [stage({"steps": step}, factor) for step, factor in ordered])
    cut = min(cut, plan.total)
    sizes = [size for bounds in ((0, cut), (cut, plan.total)) for part in plan.parts(*bounds) for size in part.sizes]
    assert sizes == [size for _, _, size in batches(plan)]


def test_a_stage_that_would_have_no_step_is_left_out():
    plan = plan_of(
        10, 2, {"steps": 8}, [stage({"steps": 3}, 2), stage({"fraction": 0.375}, 4), stage({"epochs": 99}, 5)]
    )
    assert [size for _, _, size in batches(plan)] == [2, 2, 2, 4, 8, 2, 8, 2]
    assert plan.max_batch_size == 8


@pytest.mark.parametrize("budget", [{"steps": 55}, {"examples": 333}, {"epochs": 4}], ids=str)
def test_without_stages_all_steps_have_one_batch_size(budget: dict):
    plan = plan_of(50, 7, budget, [])
    assert {size for _, _, size in batches(plan)} <= {7, 1}
    assert all(first < second for first, second in pairwise(plan.evaluations))
