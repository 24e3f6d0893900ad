"""Time per epoch on a table and on text, of `batchscape.training.train.train`, hand-written loops and stock Lightning.

    python benchmarks/tasks.py
    python benchmarks/tasks.py --quick    # only shows that it runs, on few examples; the numbers then mean nothing

Each contender trains the network of `config/diamonds.yaml` on 20,480 rows, or that of `config/python_docs.yaml` on
1,024 blocks of 64 bytes, with SGD on one CPU thread at batch sizes 32 and 512, and evaluates a quarter as many examples
after each epoch. It measures the CPU time (which other jobs on the machine hardly affect) from the end of the second
epoch to the end of the third, which includes everything: batches, training, validation, and what the contender does in
between. (`train` also measures the gradient noise after epochs 1, 2, 4, 8 and so on; not after the third.)

* `train`: the library's function with its complete record: loss and all metrics of the task, norms of all updates,
  checkpoints.
* `hand-written`: a plain loop over a permutation of decoded examples in memory; the losses are read once per epoch, and
  there are no metrics. Once as torch's optimizers are by default, once fused.
* `train, AdamW and average`: the same with AdamW, cosine decay, clipping and an exponential moving average of the
  weights, which is evaluated too; beside it a plain loop with fused AdamW, `clip_grad_norm_` and `AveragedModel`.
* `stock Lightning`: Lightning as its documentation shows it, with a DataLoader of decoded examples in memory and
  everything off that would cost it time for no result.

All train the same network from the same weights. The contenders take turns; of each round the time of `train` is
divided by that of the other contender, and the median over the rounds (7 by default) counts. Takes about four minutes.

Results on a shared virtual machine with 2 cores of an AMD EPYC, Python 3.11, torch 2.13, pytorch-lightning 2.6.6, under
a load of about 12 (table, 5 rounds; with AdamW 3), and of an Intel Xeon under a load of about 8 (text, 3 rounds): the
CPU time of `train` as a multiple of that of the others.

                              table                           text
                              batch size 32   batch size 512  batch size 32   batch size 512  target
    hand-written              1.14            1.13            1.03            0.80            at most 1.15
    hand-written, fused       1.04            1.13            1.01            0.79            at most 1.15
    stock Lightning           0.23            0.19            0.96            0.78            at most 0.6
    AdamW and average         0.81            0.98            0.99            0.85            at most 1.15

The targets are met except for the text beside stock Lightning: there nearly all of the time is that of the network,
which all contenders compute with the same kernels. At batch size 512 `train` computes smaller micro-batches: in a plain
loop, 512 blocks took 0.40 s of CPU time in parts of 64, and 0.55 s at once.
"""

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

# Python adds the folder of the script to its path.
from training import EpochEndCallback, bare_trainer, describe_machine, epoch_ends, silence_lightning

from batchscape.config.averaging import AveragingConfig
from batchscape.config.base import Section
from batchscape.config.budget import Budget
from batchscape.config.optimizer import OptimizerConfig
from batchscape.config.run import RunSpec
from batchscape.config.schedule import ScheduleConfig
from batchscape.config.training import TrainingConfig
from batchscape.data.dataset import Batch, Dataset
from batchscape.data.prepare import prepare
from batchscape.data.prepared import PreparedData, write_prepared
from batchscape.study.study import Study
from batchscape.tasks.build import build_objective
from batchscape.training.execution import Execution
from batchscape.training.lightning import pl
from batchscape.training.train import train

STUDIES = Path(__file__).parents[1] / "config"
COUNTS = {"diamonds": 20_480, "python_docs": 1_024}
"""Training examples of each study."""

BATCH_SIZES = 32, 512
EPOCHS = 3
THREADS = 1
SEED = 0
LEARNING_RATE = 0.01
TRAIN, PLAIN, FUSED, STOCK = "train", "hand-written", "hand-written, fused", "stock Lightning"
RECIPE, PLAIN_RECIPE = "train, AdamW and average", "hand-written, the same"
TARGETS = {PLAIN: 1.15, FUSED: 1.15, STOCK: 0.6, PLAIN_RECIPE: 1.15}
"""The most that `train` may take, as a multiple of another contender's time."""

OPTIMIZER = OptimizerConfig(name="AdamW", arguments={"weight_decay": 0.1}, clip_norm=1.0)
HALF_LIFE = 2000

Contender = Callable[[int], float]
"""From a batch size to the seconds of the third epoch."""

Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: Mapping[str, Loss] = {
    "regression": lambda outputs, targets: F.mse_loss(outputs.squeeze(1), targets),
    "language_model": lambda outputs, targets: F.cross_entropy(outputs.flatten(0, 1), targets.flatten()),
}


def decoded(data: Dataset) -> Batch:
    """Return all examples as a hand-written script holds them: as the network takes them."""
    return data.batch(slice(None), torch.device("cpu"))


def select(inputs: Any, rows: Tensor) -> Any:
    return inputs[rows] if isinstance(inputs, Tensor) else tuple(part[rows] for part in inputs)


def batchscape(study: Study, data: PreparedData, folder: Path, recipe: Mapping[str, Section] = {}) -> Contender:
    """`train` as the workflow calls it, with some sections of the recipe."""
    prepared = folder / "prepared.safetensors"
    write_prepared(prepared, data)

    def run(batch_size: int) -> float:
        training = TrainingConfig(budget=Budget(epochs=EPOCHS), patience=EPOCHS, accelerator="cpu")
        spec = RunSpec(
            batch_size=batch_size, learning_rate=LEARNING_RATE, seed=SEED, model=study.model, task=study.task,
            training=training, **recipe,
        )  # fmt: skip
        with epoch_ends(time.process_time) as moments:
            train(spec, prepared, folder / "run", Execution(threads=THREADS))
        return moments[-1] - moments[-2]

    return run


def hand_written(study: Study, data: PreparedData, fused: bool | None = None) -> Contender:
    """A plain loop: one permutation per epoch, and the losses read once per epoch."""

    def recipe(network: nn.Module, *_: int) -> PlainRecipe:
        return PlainRecipe(torch.optim.SGD(network.parameters(), lr=LEARNING_RATE, fused=fused))

    return plain_loop(study, data, recipe)


def hand_written_recipe(study: Study, data: PreparedData) -> Contender:
    """A plain loop with AdamW, cosine decay, clipping and an average of the weights, all of them torch's."""

    def recipe(network: nn.Module, batch_size: int, total_steps: int) -> PlainRecipe:
        optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, fused=True, **OPTIMIZER.arguments)
        decay = 2 ** (-batch_size / HALF_LIFE)
        average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total_steps)

        def before() -> None:
            torch.nn.utils.clip_grad_norm_(network.parameters(), OPTIMIZER.clip_norm or 0)

        def after() -> None:
            schedule.step()
            average.update_parameters(network)

        return PlainRecipe(optimizer, before, after, (average,))

    return plain_loop(study, data, recipe)


@dataclass(frozen=True)
class PlainRecipe:
    """What a plain loop does in a step, besides the gradient.

    Attributes:
        optimizer: The optimizer.
        before: Called before its step.
        after: Called after it.
        averages: Other networks to evaluate.
    """

    optimizer: torch.optim.Optimizer
    before: Callable[[], None] = lambda: None
    after: Callable[[], None] = lambda: None
    averages: tuple[nn.Module, ...] = ()


def plain_loop(study: Study, data: PreparedData, recipe_of: Callable[[nn.Module, int, int], PlainRecipe]) -> Contender:
    """A plain loop with the recipe of a network, a batch size and a number of steps."""
    training, validation, loss_of = decoded(data.train), decoded(data.validation), LOSSES[study.task.name]

    def run(batch_size: int) -> float:
        torch.set_num_threads(THREADS)
        network = initial_network(study, data)
        recipe = recipe_of(network, batch_size, EPOCHS * -(-len(training) // batch_size))
        moments, history = [], []
        for _ in range(EPOCHS):
            total = torch.zeros(())
            for rows in torch.randperm(len(training)).split(batch_size):
                recipe.optimizer.zero_grad()
                loss = loss_of(network(select(training.inputs, rows)), training.targets[rows])
                loss.backward()
                recipe.before()
                recipe.optimizer.step()
                recipe.after()
                total += loss.detach() * len(rows)
            with torch.no_grad():
                evaluated = (network, *recipe.averages)
                losses = [loss_of(each(validation.inputs), validation.targets).item() for each in evaluated]
            history.append((total.item() / len(training), *losses))
            moments.append(time.process_time())
        return moments[-1] - moments[-2]

    return run


class StockModule(pl.LightningModule):
    """The module of Lightning's introduction; the last tensor of a batch has the targets."""

    def __init__(self, network: nn.Module, loss: Loss):
        super().__init__()
        self.network, self.loss = network, loss

    def _loss(self, batch: list[Tensor]) -> Tensor:
        *inputs, targets = batch
        return self.loss(self.network(inputs[0] if len(inputs) == 1 else tuple(inputs)), targets)

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        loss = self._loss(batch)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        self.log("validation_loss", self._loss(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.network.parameters(), lr=LEARNING_RATE)


def stock_lightning(study: Study, data: PreparedData) -> Contender:
    """Lightning as its documentation shows it."""
    sides = [decoded(side) for side in (data.train, data.validation)]
    training, validation = (
        TensorDataset(*(side.inputs if isinstance(side.inputs, tuple) else [side.inputs]), side.targets)
        for side in sides
    )

    def run(batch_size: int) -> float:
        torch.set_num_threads(THREADS)
        ends = EpochEndCallback(time.process_time)
        bare_trainer(EPOCHS, ends).fit(
            StockModule(initial_network(study, data), LOSSES[study.task.name]),
            DataLoader(training, batch_size=batch_size, shuffle=True),
            DataLoader(validation, batch_size=batch_size),
        )
        return ends.moments[-1] - ends.moments[-2]

    return run


def initial_network(study: Study, data: PreparedData) -> nn.Module:
    return build_objective(study.model, study.task, data, SEED).module


def measure(contenders: dict[str, Contender], batch_size: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each contender's third epoch, one per round."""
    seconds = defaultdict(list)
    for number in range(rounds):
        names = list(contenders) if number % 2 == 0 else list(reversed(contenders))
        for name in names:
            seconds[name].append(contenders[name](batch_size))
    return {name: seconds[name] for name in contenders}


def report(title: str, seconds: dict[str, list[float]]) -> None:
    """Print a contender's median time per epoch, that of `train` as a multiple of it, and the target."""
    print(title)
    print(f"  {'':<26}{'ms/epoch':>9}{'train is':>12}{'target':>10}")
    for name, times in seconds.items():
        own = seconds[RECIPE if name == PLAIN_RECIPE else TRAIN]
        ratios = [ours / theirs for ours, theirs in zip(own, times, strict=True)]
        ratio = f"{statistics.median(ratios):.2f} ×" if name in TARGETS else ""
        target = f"≤ {TARGETS[name]:.2f}" if name in TARGETS else ""
        print(f"  {name:<26}{statistics.median(times) * 1000:>9.1f}{ratio:>12}{target:>10}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time an epoch of train(), of hand-written loops, of stock Lightning.")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each contender (default: 7)")
    parser.add_argument("--study", choices=COUNTS, nargs="*", default=list(COUNTS), help="studies (default: both)")
    parser.add_argument("--quick", action="store_true", help="only check that it runs: one round on few examples")
    arguments = parser.parse_args()
    rounds = 1 if arguments.quick else arguments.rounds
    silence_lightning()
    describe_machine()
    print(f"medians over {rounds} rounds of {EPOCHS} epochs, of which the last counts")
    recipe = {
        "optimizer": OPTIMIZER,
        "schedule": ScheduleConfig(decay="cosine"),
        "averaging": AveragingConfig(half_life=HALF_LIFE),
    }
    for name in arguments.study:
        study = Study.from_file(STUDIES / f"{name}.yaml")
        data = prepare(study.data, task=study.task.name).data
        count = 64 if arguments.quick else COUNTS[name]
        data = replace(data, train=data.train[:count], validation=data.validation[: count // 4], test=None)
        for batch_size in [32] if arguments.quick else BATCH_SIZES:
            with tempfile.TemporaryDirectory() as folder:
                contenders = {
                    TRAIN: batchscape(study, data, Path(folder)),
                    PLAIN: hand_written(study, data),
                    FUSED: hand_written(study, data, fused=True),
                    STOCK: stock_lightning(study, data),
                    RECIPE: batchscape(study, data, Path(folder), recipe),
                    PLAIN_RECIPE: hand_written_recipe(study, data),
                }
                report(f"{name}, batch size {batch_size}", measure(contenders, batch_size, rounds))


if __name__ == "__main__":
    main()
