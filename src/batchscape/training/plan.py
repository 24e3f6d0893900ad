"""What a run does in which step: a function of its specification and the number of training examples."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from batchscape.config.budget import Budget, Warmup
from batchscape.config.run import RunSpec

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
class StepPlan:
    """The batches, the evaluations and the saved weights of a run, in steps."""

    spec: RunSpec
    num_examples: int
    """Number of training examples."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch; its last batch may be smaller."""
        return -(-self.num_examples // self.spec.batch_size)

    @cached_property
    def total(self) -> int:
        """Steps of the budget."""
        return self.in_steps(self.spec.training.budget)

    @cached_property
    def warmup(self) -> int:
        """Steps of the warm-up, at least one if there is any."""
        length = self.spec.schedule.warmup
        if length is None:
            return 0
        return min(self.total, self.in_steps(length))

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
            count += 1
        return sorted(steps)

    def in_steps(self, length: Budget, count: int = 1) -> int:
        """Return the steps of `count` times a length of training; epochs and examples are rounded up to whole steps."""
        if isinstance(length, Warmup) and length.fraction is not None:
            return max(1, round(count * length.fraction * self.total))
        if length.steps is not None:
            return count * length.steps
        examples = count * (length.examples or 0) + count * (length.epochs or 0) * self.num_examples
        epochs, rest = divmod(examples, self.num_examples)
        return epochs * self.steps_per_epoch + -(-rest // self.spec.batch_size)

    def examples(self, step: int) -> int:
        """Return the number of training examples, counted again in each epoch, of the first steps."""
        epochs, steps = divmod(step, self.steps_per_epoch)
        return epochs * self.num_examples + steps * self.spec.batch_size

    def epochs(self, step: int) -> float:
        """Return the number of epochs of the first steps, an int if it is whole."""
        examples = self.examples(step)
        whole, rest = divmod(examples, self.num_examples)
        return examples / self.num_examples if rest else whole

    def segment_end(self, step: int) -> int:
        """Return the last step of the segment that the next step is in."""
        index = bisect_right(self.evaluations, step)
        start, stop = self.evaluations[index - 1] if index else 0, self.evaluations[index]
        return min(stop, start + SEGMENT_STEPS * ((step - start) // SEGMENT_STEPS + 1))

    def parts(self, start: int, stop: int) -> Iterator[Part]:
        """Yield the batches of the steps start + 1, …, stop, by epoch."""
        batch_size, per_epoch = self.spec.batch_size, self.steps_per_epoch
        while start < stop:
            epoch, first = divmod(start, per_epoch)
            end = min(stop, (epoch + 1) * per_epoch)
            position, count = first * batch_size, end - start
            last = min(batch_size, self.num_examples - position - (count - 1) * batch_size)
            yield Part(epoch + 1, position, [batch_size] * (count - 1) + [last])
            start = end
