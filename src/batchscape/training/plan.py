"""What a run does in which step: a function of its specification and the number of training examples."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from batchscape.config.budget import Budget, Warmup
from batchscape.config.run import RunSpec
from batchscape.optim.schedules import factor

# Within an evaluation interval, a run can be saved after each of its segments of so many steps. They are cut at the
# same steps whether a run is interrupted or not, so that sums over a segment are the same.
SEGMENT_STEPS = 64


@dataclass(frozen=True)
class Part:
    """Consecutive batches of an epoch."""

    epoch: int
    """The epoch, from 1."""

    start: int
    """Place of the first example in the order of the epoch."""

    sizes: list[int]
    """Examples of each batch."""

    @property
    def examples(self) -> slice:
        """Places of the examples in the order of the epoch."""
        return slice(self.start, self.start + sum(self.sizes))


@dataclass(frozen=True)
class _Stage:
    """Steps with one batch size."""

    first_step: int
    """Steps before it."""

    first_example: int
    """Training examples before it, counted again in each epoch."""

    batch_size: int
    learning_rate_factor: float
    num_examples: int
    """Number of training examples of an epoch, whose last batch may be smaller."""

    def examples(self, steps: int) -> int:
        """Return the examples of its first steps and of those before it."""
        rest = -self.first_example % self.num_examples  # of the epoch in which it begins
        in_rest = math.ceil(rest / self.batch_size)
        if steps < in_rest:
            return self.first_example + steps * self.batch_size
        epochs, others = divmod(steps - in_rest, math.ceil(self.num_examples / self.batch_size))
        return self.first_example + rest + epochs * self.num_examples + others * self.batch_size

    def steps(self, examples: int) -> int:
        """Return the fewest steps by the end of which the run has seen so many examples; the inverse of `examples`."""
        rest = -self.first_example % self.num_examples
        if examples <= self.first_example + rest:
            return math.ceil((examples - self.first_example) / self.batch_size)
        epochs, others = divmod(examples - self.first_example - rest, self.num_examples)
        per_epoch = math.ceil(self.num_examples / self.batch_size)
        return math.ceil(rest / self.batch_size) + epochs * per_epoch + math.ceil(others / self.batch_size)


@dataclass(frozen=True)
class StepPlan:
    """The batches, the evaluations and the saved weights of a run, in steps."""

    spec: RunSpec
    num_examples: int
    """Number of training examples."""

    @property
    def _first_stage(self) -> _Stage:
        """The only stage of the run without its stages."""
        return _Stage(0, 0, self.spec.batch_size, 1.0, self.num_examples)

    @cached_property
    def _stages(self) -> list[_Stage]:
        """All stages of the run, ascending by their first step."""
        stages = [self._first_stage]
        for stage in self.spec.stages:
            step = self._in_steps(stage.start, 1, stages)
            while stages and stages[-1].first_step >= step:  # that one would have no step
                stages.pop()
            before = stages[-1].examples(step - stages[-1].first_step) if stages else 0
            batch_size = self.spec.batch_size * stage.batch_size_factor
            stages.append(_Stage(step, before, batch_size, stage.learning_rate_factor, self.num_examples))
        return stages

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch at the first batch size; its last batch may be smaller."""
        return math.ceil(self.num_examples / self.spec.batch_size)

    @property
    def max_batch_size(self) -> int:
        """The largest batch size of the stages within the budget."""
        return max(stage.batch_size for stage in self._stages if stage.first_step < self.total)

    @cached_property
    def total(self) -> int:
        """Steps of the budget."""
        return self.in_steps(self.spec.training.budget)

    @cached_property
    def warmup(self) -> int:
        """Steps of the warm-up, at least one if there is any."""
        length, first = self.spec.schedule.warmup, [self._first_stage]  # the stages do not change it
        if length is None:
            return 0
        if length.fraction is None:
            steps = self._in_steps(length, 1, first)
        else:
            steps = round(length.fraction * self._in_steps(self.spec.training.budget, 1, first))
        return max(1, min(self.total, steps))

    @cached_property
    def checkpoints(self) -> dict[int, int]:
        """The epoch of each saved checkpoint, by its step."""
        steps = {self.in_steps(Budget(epochs=epoch)): epoch for epoch in self.spec.training.checkpoints}
        return {step: epoch for step, epoch in steps.items() if step <= self.total}

    @cached_property
    def evaluations(self) -> list[int]:
        """The steps after which the run is evaluated, ascending; the last one is `total`."""
        steps, interval = {self.total, *self.checkpoints}, self.spec.training.evaluate_every
        count = 1
        while (step := self.in_steps(interval, count)) < self.total:
            steps.add(step)
            # Several intervals may end in the same step.
            count = max(count, self.examples(step) // interval.examples) + 1 if interval.examples else count + 1
        return sorted(steps)

    def first_evaluation(self, point: Budget) -> int | None:
        """Return the step of the first evaluation from a point on; None if it is not before the end of the budget."""
        index = bisect_left(self.evaluations, self.in_steps(point))
        return self.evaluations[index] if index < len(self.evaluations) - 1 else None

    def in_steps(self, length: Budget, count: int = 1) -> int:
        """Return the steps of `count` times a length of training; epochs and examples are rounded up to full steps."""
        return self._in_steps(length, count, self._stages)

    def _in_steps(self, length: Budget, count: int, stages: Sequence[_Stage]) -> int:
        """Return the steps of a length if the run has these stages; a fraction is one of the budget."""
        fraction = length.fraction if isinstance(length, Warmup) else None
        budget = self.spec.training.budget if fraction is not None else length
        share = count if fraction is None else count * fraction
        if budget.steps is not None:
            return round(share * budget.steps)
        examples = round(share * ((budget.examples or 0) + (budget.epochs or 0) * self.num_examples))
        stage = next(each for each in reversed(stages) if each.first_example < examples or each.first_step == 0)
        return stage.first_step + stage.steps(examples)

    def _stage(self, step: int) -> _Stage:
        """Return the stage of the step after so many."""
        return next(stage for stage in reversed(self._stages) if stage.first_step <= step)

    def batch_size(self, step: int) -> int:
        """Return the batch size in a step, counted from 1; the last batch of an epoch may be smaller."""
        return self._stage(step - 1).batch_size

    def learning_rate_factor(self, step: int) -> float:
        """Return the factor of the learning rate in a step, counted from 1, by the schedule and the stage."""
        scheduled = factor(step, self.total, self.warmup, self.spec.schedule)
        return scheduled * self._stage(step - 1).learning_rate_factor

    def examples(self, step: int) -> int:
        """Return the number of training examples, counted again in each epoch, of the first steps."""
        stage = self._stage(step)
        return stage.examples(step - stage.first_step)

    def epochs(self, step: int) -> float:
        """Return the number of epochs of the first steps, an int if it is an integer."""
        examples = self.examples(step)
        complete, rest = divmod(examples, self.num_examples)
        return examples / self.num_examples if rest else complete

    def next_epoch(self, step: int) -> int:
        """Return the number, from 1, of the first epoch of which no example is in the first steps."""
        return math.ceil(self.epochs(step)) + 1

    def segment_end(self, step: int) -> int:
        """Return the last step of the segment that the next step is in."""
        index = bisect_right(self.evaluations, step)
        start, stop = self.evaluations[index - 1] if index else 0, self.evaluations[index]
        return min(stop, start + SEGMENT_STEPS * ((step - start) // SEGMENT_STEPS + 1))

    def parts(self, start: int, stop: int) -> Iterator[Part]:
        """Yield the batches of the steps start + 1, …, stop, by epoch and batch size."""
        while start < stop:
            epoch, position = divmod(self.examples(start), self.num_examples)
            stage = self._stage(start)
            ends = [each.first_step for each in self._stages if each.first_step > start]
            left = self.num_examples - position
            count = min(stop, *ends, start + math.ceil(left / stage.batch_size)) - start
            last = min(stage.batch_size, left - (count - 1) * stage.batch_size)
            yield Part(epoch + 1, position, [stage.batch_size] * (count - 1) + [last])
            start += count
