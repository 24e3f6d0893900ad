"""The plan of a run in steps, compared with lists of its batches."""

from collections.abc import Callable, Sequence
from itertools import accumulate, count, islice, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchscape.config.budget import Budget, Warmup
from batchscape.config.run import RunSpec
from batchscape.config.schedule import ScheduleConfig
from batchscape.config.stages import StageConfig
from batchscape.config.training import TrainingConfig
from batchscape.training import plan
from batchscape.training.plan import StepPlan

UNITS = ("steps", "epochs", "examples")
Batch = tuple[int, int, int]


def plan_of(
    num_examples: int,
    batch_size: int,
    budget: dict,
    warmup: dict | None = None,
    stages: Sequence[StageConfig] = (),
    **training: Any,
) -> StepPlan:
    spec = RunSpec(
        batch_size=batch_size,
        learning_rate=0.1,
        seed=0,
        stages=tuple(stages),
        training=TrainingConfig.model_validate({"budget": budget, **training}),
        schedule=ScheduleConfig(warmup=Warmup(**warmup) if warmup else None),
    )
    return StepPlan(spec, num_examples)


def batches(step_plan: StepPlan, steps: int) -> list[Batch]:
    """The epoch, the place of the first example and the size of each batch, by going through the data."""
    total, size = step_plan.num_examples, step_plan.spec.batch_size
    each = ((epoch, start, min(size, total - start)) for epoch in count(1) for start in range(0, total, size))
    return list(islice(each, steps))


def steps_to(step_plan: StepPlan, examples: int) -> int:
    """The first step after which so many examples have been seen."""
    seen = accumulate(size for _, _, size in batches(step_plan, examples))
    return 1 + sum(so_far < examples for so_far in seen)


def in_examples(step_plan: StepPlan, length: Budget, multiple: int = 1) -> int:
    return multiple * ((length.examples or 0) + (length.epochs or 0) * step_plan.num_examples)


def to_steps(step_plan: StepPlan, length: Budget, multiple: int = 1) -> int:
    return multiple * length.steps if length.steps else steps_to(step_plan, in_examples(step_plan, length, multiple))


def lengths(most: dict[str, int]) -> st.SearchStrategy[dict[str, int]]:
    return st.sampled_from(UNITS).flatmap(lambda unit: st.fixed_dictionaries({unit: st.integers(1, most[unit])}))


@st.composite
def plans(draw: Callable) -> StepPlan:
    num_examples = draw(st.integers(1, 60))
    budget = draw(lengths({"steps": 100, "epochs": 4, "examples": 300}))
    return plan_of(
        num_examples,
        draw(st.integers(1, num_examples)),
        budget,
        evaluate_every=draw(lengths({"steps": 40, "epochs": 3, "examples": 150})),
        checkpoints=draw(st.lists(st.integers(1, budget.get("epochs", 6)), unique=True, max_size=3)),
    )


# Units.


@given(plans(), st.integers(0, 150))
def test_examples_and_epochs_of_a_step_are_those_of_its_batches(step_plan: StepPlan, step: int):
    seen = sum(size for _, _, size in batches(step_plan, step))
    assert step_plan.examples(step) == seen
    epochs = step_plan.epochs(step)
    assert epochs == seen / step_plan.num_examples
    assert isinstance(epochs, int) == (seen % step_plan.num_examples == 0)


@given(plans(), lengths({"steps": 50, "epochs": 5, "examples": 300}), st.integers(1, 5))
def test_lengths_are_rounded_up_to_whole_steps(step_plan: StepPlan, length: dict, multiple: int):
    found = step_plan.in_steps(Budget(**length), multiple)
    assert found == to_steps(step_plan, Budget(**length), multiple)


@given(plans(), st.integers(1, 150))
def test_budget_of_the_examples_of_some_steps_is_these_steps(step_plan: StepPlan, steps: int):
    assert step_plan.in_steps(Budget(examples=step_plan.examples(steps))) == steps


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 60))
def test_steps_examples_and_epochs_of_whole_batches_are_one_plan(per_epoch: int, batch_size: int, steps: int):
    def described(budget: dict) -> tuple:
        step_plan = plan_of(per_epoch * batch_size, batch_size, budget, {"fraction": 0.3}, evaluate_every={"steps": 7})
        parts = [(part.epoch, part.start, part.sizes) for part in step_plan.parts(0, step_plan.total)]
        return step_plan.total, step_plan.warmup, step_plan.evaluations, parts

    expected = described({"steps": steps})
    assert expected[0] == steps
    assert described({"examples": steps * batch_size}) == expected
    if steps % per_epoch == 0:
        assert described({"epochs": steps // per_epoch}) == expected


@pytest.mark.parametrize(
    ("warmup", "expected"),
    [
        (None, 0),
        ({"fraction": 1e-6}, 1),
        ({"fraction": 0.1}, 2),  # of 23 steps
        ({"fraction": 0.2}, 5),
        ({"fraction": 1.0}, 23),
        ({"steps": 3}, 3),
        ({"steps": 24}, 23),
        ({"epochs": 1}, 9),
        ({"examples": 1}, 1),
        ({"examples": 24}, 2),
        ({"examples": 25}, 3),
        ({"examples": 97}, 9),  # the last batch has a single example
        ({"examples": 98}, 10),
    ],
    ids=str,
)
def test_warmup_in_steps(warmup: dict | None, expected: int):
    step_plan = plan_of(97, 12, {"steps": 23}, warmup)
    assert (step_plan.steps_per_epoch, step_plan.total) == (9, 23)
    assert step_plan.warmup == expected


@pytest.mark.parametrize("warmup", [{"fraction": 0.25}, {"epochs": 1}, {"examples": 90}, {"steps": 7}], ids=str)
def test_warmup_is_that_of_the_run_without_later_stages(warmup: dict):
    stages = [StageConfig(start=Warmup(epochs=2), batch_size_factor=4, learning_rate_factor=2)]
    constant, grown = (plan_of(97, 12, {"epochs": 4}, warmup, each) for each in ((), stages))
    assert grown.total < constant.total
    assert grown.warmup == constant.warmup > 0
    factors = [[each.learning_rate_factor(step) for step in range(1, 19)] for each in (constant, grown)]
    assert factors[0] == factors[1]
    assert grown.learning_rate_factor(19) == 2


@pytest.mark.parametrize("warmup", [{"fraction": 0.5}, {"epochs": 2}], ids=str)
def test_warmup_with_a_stage_inside_it_is_that_of_the_run_without_and_at_most_the_budget(warmup: dict):
    early = [StageConfig(start=Warmup(epochs=1), batch_size_factor=2, learning_rate_factor=1)]
    assert plan_of(100, 20, {"epochs": 4}, warmup, early).warmup == plan_of(100, 20, {"epochs": 4}, warmup).warmup == 10
    large = [StageConfig(start=Warmup(epochs=1), batch_size_factor=5, learning_rate_factor=1)]
    step_plan = plan_of(100, 20, {"epochs": 4}, warmup, large)
    assert step_plan.warmup == step_plan.total == 8


# Batches.


@given(plans(), st.integers(0, 80), st.integers(0, 80))
def test_parts_are_the_batches_of_their_steps(step_plan: StepPlan, start: int, steps: int):
    found: list[Batch] = []
    for part in step_plan.parts(start, start + steps):
        position = part.start
        assert part.examples == slice(position, position + sum(part.sizes))
        for size in part.sizes:
            found.append((part.epoch, position, size))
            position += size
    assert found == batches(step_plan, start + steps)[start:]


@given(plans(), st.integers(0, 60), st.integers(1, 60))
def test_part_has_no_batches_of_two_epochs(step_plan: StepPlan, start: int, steps: int):
    parts = list(step_plan.parts(start, start + steps))
    assert [part.epoch for part in parts] == list(range(parts[0].epoch, parts[0].epoch + len(parts)))
    assert all(part.examples.stop <= step_plan.num_examples for part in parts)


# Evaluations and segments.


@given(plans())
def test_run_is_evaluated_at_multiples_of_the_interval_at_checkpoints_and_at_the_end(step_plan: StepPlan):
    training, total = step_plan.spec.training, step_plan.total
    multiples = (
        {to_steps(step_plan, training.evaluate_every, multiple) for multiple in range(1, 1 + 2 * total)}
        if training.evaluate_every.steps
        else set()
    )
    if not multiples:
        goal, seen = in_examples(step_plan, training.evaluate_every), 0
        for step, (_, _, size) in enumerate(batches(step_plan, total), start=1):
            if (seen + size) // goal > seen // goal:  # another multiple is reached within this step
                multiples.add(step)
            seen += size
    checkpoints = {steps_to(step_plan, epoch * step_plan.num_examples): epoch for epoch in training.checkpoints}
    reached = {step: epoch for step, epoch in checkpoints.items() if step <= total}
    assert step_plan.checkpoints == reached
    assert step_plan.evaluations == sorted({step for step in multiples if step < total} | {total} | set(reached))


@given(st.integers(1, 60), st.data())
def test_run_is_evaluated_once_an_epoch_by_default(num_examples: int, data: st.DataObject):
    batch_size = data.draw(st.integers(1, num_examples))
    steps = data.draw(st.integers(1, 100))
    step_plan = plan_of(num_examples, batch_size, {"steps": steps})
    epochs = [step for step in range(1, steps) if step_plan.epochs(step) == int(step_plan.epochs(step))]
    assert step_plan.evaluations == [*epochs, steps]


def test_checkpoints_after_the_end_are_not_planned():
    step_plan = plan_of(97, 12, {"examples": 250}, evaluate_every={"steps": 10}, checkpoints=[2, 1, 3])
    assert step_plan.total == 23  # 97 + 97 examples in 18 steps, and 5 for 56 more
    assert step_plan.checkpoints == {9: 1, 18: 2}
    assert step_plan.evaluations == [9, 10, 18, 20, 23]


def test_segments_are_cut_from_the_start_of_their_interval():
    step_plan = plan_of(97, 12, {"steps": 300}, evaluate_every={"steps": 150})
    assert plan.SEGMENT_STEPS == 64
    ends = [step_plan.segment_end(step) for step in range(300)]
    expected = (0, 64, 128, 150, 214, 278, 300)
    assert ends == [end for start, end in pairwise(expected) for _ in range(start, end)]


@given(plans(), st.integers(1, 20))
def test_segments_do_not_depend_on_where_a_run_resumes(step_plan: StepPlan, length: int):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "SEGMENT_STEPS", length)
        ends = [0]
        while ends[-1] < step_plan.total:
            ends.append(step_plan.segment_end(ends[-1]))
        assert ends[-1] == step_plan.total
        assert set(step_plan.evaluations) <= set(ends)
        assert all(0 < stop - start <= length for start, stop in pairwise(ends))
        for start, stop in pairwise(ends):
            assert {step_plan.segment_end(step) for step in range(start, stop)} == {stop}
            assert stop - start == length or stop in step_plan.evaluations


# Stages.


def stage(start: dict, batch_size_factor: int, learning_rate_factor: float = 1.0) -> StageConfig:
    return StageConfig(
        start=Warmup(**start), batch_size_factor=batch_size_factor, learning_rate_factor=learning_rate_factor
    )


def planned_batches(step_plan: StepPlan) -> list[Batch]:
    """Return epoch, first place and size of each batch."""
    found = []
    for part in step_plan.parts(0, step_plan.total):
        start = part.start
        for size in part.sizes:
            found.append((part.epoch, start, size))
            start += size
    return found


def test_batch_sizes_of_a_small_example():
    # Ten examples an epoch: two batches of 2, then batches of 4 to the end of the epoch and in the next one, then of 8.
    step_plan = plan_of(10, 2, {"epochs": 3}, stages=[stage({"steps": 2}, 2, 0.5), stage({"epochs": 2}, 4)])
    assert planned_batches(step_plan) == [
        (1, 0, 2), (1, 2, 2), (1, 4, 4), (1, 8, 2),
        (2, 0, 4), (2, 4, 4), (2, 8, 2),
        (3, 0, 8), (3, 8, 2),
    ]  # fmt: skip
    assert [step_plan.learning_rate_factor(step) for step in range(1, 10)] == [1, 1, *[0.5] * 5, 1, 1]
    assert [step_plan.examples(step) for step in range(10)] == [0, 2, 4, 8, 10, 14, 18, 20, 28, 30]
    assert [step_plan.next_epoch(step) for step in range(10)] == [1, 2, 2, 2, 2, 3, 3, 3, 4, 4]
    assert (step_plan.total, step_plan.max_batch_size, step_plan.evaluations) == (9, 8, [4, 7, 9])


def test_batch_size_of_a_step_is_that_of_its_stage():
    found = plan_of(100, 5, {"steps": 6}, stages=[stage({"steps": 2}, 3), stage({"steps": 3}, 2)])
    assert [found.batch_size(step) for step in range(1, 7)] == [5, 5, 15, 10, 10, 10]


def test_a_fraction_is_one_of_the_examples():
    step_plan = plan_of(100, 10, {"examples": 400}, stages=[stage({"fraction": 0.5}, 5)])
    assert step_plan.total == 20 + 4
    in_steps = plan_of(100, 10, {"steps": 40}, stages=[stage({"fraction": 0.5}, 5)])
    assert in_steps.total == 40
    assert (in_steps.examples(20), in_steps.examples(40)) == (200, 200 + 20 * 50)


STAGES = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 9)), max_size=3)


@given(num=st.integers(1, 40), batch_size=st.integers(1, 12), stages=STAGES, epochs=st.integers(1, 5))
def test_each_epoch_has_each_example_once(num: int, batch_size: int, stages: list, epochs: int):
    ordered = sorted(dict(stages).items())
    step_plan = plan_of(
        num, batch_size, {"epochs": epochs}, stages=[stage({"steps": step}, factor) for step, factor in ordered]
    )
    found = planned_batches(step_plan)
    assert len(found) == step_plan.total
    expected = [(1 + place // num, place % num) for place in range(epochs * num)]
    assert [(epoch, place) for epoch, start, size in found for place in range(start, start + size)] == expected
    seen = 0
    for step, (_, _, size) in enumerate(found, start=1):
        seen += size
        assert step_plan.examples(step) == seen
        factors = [factor for first, factor in ordered if first < step]
        assert size <= batch_size * (factors[-1] if factors else 1)


@given(stages=STAGES, cut=st.integers(0, 200))
def test_parts_do_not_depend_on_where_a_run_resumes(stages: list, cut: int):
    ordered = sorted(dict(stages).items())
    step_plan = plan_of(37, 5, {"epochs": 6}, stages=[stage({"steps": step}, factor) for step, factor in ordered])
    cut = min(cut, step_plan.total)
    sizes = [
        size
        for bounds in ((0, cut), (cut, step_plan.total))
        for part in step_plan.parts(*bounds)
        for size in part.sizes
    ]
    assert sizes == [size for _, _, size in planned_batches(step_plan)]


def test_a_stage_that_would_have_no_step_is_left_out():
    step_plan = plan_of(
        10, 2, {"steps": 8}, stages=[stage({"steps": 3}, 2), stage({"fraction": 0.375}, 4), stage({"epochs": 99}, 5)]
    )
    assert [size for _, _, size in planned_batches(step_plan)] == [2, 2, 2, 4, 8, 2, 8, 2]
    assert step_plan.max_batch_size == 8


@pytest.mark.parametrize("budget", [{"steps": 55}, {"examples": 333}, {"epochs": 4}], ids=str)
def test_without_stages_all_steps_have_one_batch_size(budget: dict):
    step_plan = plan_of(50, 7, budget)
    assert {size for _, _, size in planned_batches(step_plan)} <= {7, 1}
    assert all(first < second for first, second in pairwise(step_plan.evaluations))


@pytest.mark.parametrize("warmup", [None, {"epochs": 1}, {"fraction": 0.25}])
def test_a_stage_from_the_first_step_has_its_factor_and_the_warmup_of_the_run_without(warmup: dict | None):
    first = stage({"fraction": 0.01}, 2, 2.0)  # 0.4 steps, which are rounded to none
    constant, grown = (plan_of(64, 8, {"steps": 40}, warmup, each) for each in ((), [first]))
    assert [grown.batch_size(step) for step in (1, 40)] == [16, 16]
    factors = [constant.learning_rate_factor(step) for step in range(1, 41)]
    assert [grown.learning_rate_factor(step) for step in range(1, 41)] == [2 * each for each in factors]
    assert grown.warmup == constant.warmup
