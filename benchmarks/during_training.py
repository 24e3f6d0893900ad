"""CPU time of the analyses `curvature` and `branching` of the default study, as a multiple of that of a run.

    python benchmarks/during_training.py
    python benchmarks/during_training.py --quick    # only shows that it runs, in a few epochs; the numbers mean nothing

Trains a run of the smallest and of the largest batch size of `config/config.yaml` at its fixed learning rate, with
weights saved after epochs 1, 2, 4, 8 and so on, and measures the curvature of each. From the smaller batch size it
branches at four of these epochs with 2, 4, 8 and 16 times the batch, besides the batch itself, each over one epoch. All
in one process on one CPU thread: the start of Python and of the libraries, a few seconds of each job, is not included.

The targets are at most 0.1 for the curvature, and at most 1.5 for the branches of a run. Measured on 2 cores of a
shared Intel Xeon under a load of about 8, Python 3.11, torch 2.13:

    run, batch size 32: 5.7 s, 92 epochs
      curvature: 4.05 s, 0.72 of a run
      branches: 4.53 s, 0.80 of a run
    run, batch size 256: 9.0 s, 379 epochs
      curvature: 5.39 s, 0.60 of a run

That of the curvature is missed, because an epoch of this study takes so little time: the largest eigenvalue takes 9
products with the Hessian of all examples, each about three times as long as a gradient, so a measurement takes as long
as 30 gradients over them, and there are 10 of them in 92 epochs. In a run of more epochs, or with fewer of them in
`analysis.examples`, its share is smaller.
"""

import tempfile
from functools import partial
from pathlib import Path

# Python adds the folder of the script to its path.
from analyses import cpu_seconds, start

from batchscape.analysis import branching, curvature
from batchscape.analysis.surfaces import draw_examples
from batchscape.config.branching import BranchingConfig
from batchscape.config.budget import Budget
from batchscape.config.run import RunSpec
from batchscape.data.prepare import prepare
from batchscape.data.prepared import read_prepared
from batchscape.io.run_directory import RunDirectory
from batchscape.study.study import Study
from batchscape.training.execution import SINGLE_PROCESS
from batchscape.training.train import train

STUDY = Path(__file__).parents[1] / "config" / "config.yaml"
POINTS = tuple(Budget(epochs=epoch) for epoch in (1, 4, 16, 64))
FACTORS = (2, 4, 8, 16)


def main() -> None:
    quick, study = start(__doc__ or ""), Study.from_file(STUDY)
    points, factors = (POINTS[:1], FACTORS[:1]) if quick else (POINTS, FACTORS)
    epochs = 3 if quick else study.training.budget.epochs
    checkpoints = tuple(2**power for power in range(20) if 2**power <= epochs)
    training = study.training.model_copy(update={"budget": Budget(epochs=epochs), "checkpoints": checkpoints})
    config = BranchingConfig(enabled=True, points=points, factors=factors, length=Budget(epochs=1))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "data"
        prepare(study.data, path=data)
        examples = draw_examples(read_prepared(data), study.analysis)
        for batch_size in (study.small_batch_size, study.large_batch_size):
            spec = RunSpec(
                batch_size=batch_size,
                learning_rate=study.comparison.fixed_learning_rate,
                seed=0,
                model=study.model,
                task=study.task,
                training=training,
            )
            run = RunDirectory(folder / f"bs{batch_size}")
            states = points if batch_size == study.small_batch_size else ()
            base = cpu_seconds(partial(train, spec, data, run.path, states=states))
            print(f"run, batch size {batch_size}: {base:.1f} s, {run.summary()['epochs']} epochs")
            spent = cpu_seconds(partial(curvature.analyze, run, examples, study.curvature))
            print(f"  curvature: {spent:.2f} s, {spent / base:.2f} of a run")
            if states:
                spent = cpu_seconds(partial(train_branches, run, data, folder, config))
                print(f"  branches: {spent:.2f} s, {spent / base:.2f} of a run")


def train_branches(run: RunDirectory, data: Path, folder: Path, config: BranchingConfig) -> None:
    for point in config.points:
        state = folder / f"state-{point.epochs}"
        branching.save_state(run, data, state, point, SINGLE_PROCESS)
        branching.train_branches(run, data, state, folder / "rows.csv", config, point, (1, *config.factors), key=[])


if __name__ == "__main__":
    main()
