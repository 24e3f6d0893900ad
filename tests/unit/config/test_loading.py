"""Study files: which are refused and with which messages, and how the command line overrides them."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batchscape.config.loading import RENAMED_KEYS, read_assignments, remove_assigned_text
from batchscape.errors import UserError
from batchscape.study.study import Study
from tests.helpers.study_files import FULL, SECTIONS, full_mapping

# Mistakes. Each row: what it is, the text, where the message must place it, what the message must say.

MISTAKES = [
    # name
    ("no name", "grid: {seeds: [0]}", "name: ", "is missing"),
    ("an empty file", "", "name: ", "is missing"),
    ("a file of comments", "# to do\n", "name: ", "is missing"),
    ("a number as name", "name: 5", "name: ", "must be text in quotes, got 5"),
    ("no value for name", "name:", "name: ", "must be text, got null"),
    ("a date as name", "name: 2020-12-05", "name: ", "must be text"),
    ("a list as name", "name: [a]", "name: ", "must be text, got a list"),
    ("an empty name", "name: ''", "name: ", "letters, digits, `-` and `_`, got ''"),
    ("a slash in the name", "name: a/b", "name: ", "got 'a/b'; write `name: my-study`"),
    ("a name that leaves the results folder", "name: ..", "name: ", "got '..'"),
    ("a hidden folder as name", "name: .a", "name: ", "got '.a'"),
    ("an absolute path as name", "name: /tmp", "name: ", "got '/tmp'"),
    ("a space in the name", "name: my study", "name: ", "got 'my study'"),
    ("a line break in the name", 'name: "a\\nb"', "name: ", r"got 'a\nb'"),
    ("a letter outside ASCII in the name", "name: étude", "name: ", "got 'étude'"),
    ("a wildcard brace in the name", "name: '{run}'", "name: ", "got '{run}'"),
    # keys
    ("an unknown section", "name: s\nplots: {}", "plots: ", "known keys here: name, tracking, data, task, grid"),
    ("a mistyped section", "name: s\ntrainning: {}", "trainning: ", "did you mean `training`?"),
    ("a mistyped data key", "name: s\ndata: {split_sed: 1}", "data.split_sed: ", "did you mean `split_seed`?"),
    ("a mistyped grid key", "name: s\ngrid: {batch_size: [1]}", "grid.batch_size: ", "did you mean `batch_sizes`?"),
    ("a mistyped model key", "name: s\nmodel: {chanels: [4]}", "model.chanels: ", "did you mean `channels`?"),
    ("a mistyped training key", "name: s\ntraining: {patiense: 3}", "training.patiense: ", "did you mean `patience`?"),
    (
        "a mistyped comparison key",
        "name: s\ncomparison: {hi_learning_rate: 1}",
        "comparison.hi_learning_rate: ",
        "mean `high_learning_rate`?",
    ),
    ("an unknown key in a section", "name: s\ngrid: {zzz: 1}", "grid.zzz: ", "known keys here: batch_sizes, learn"),
    ("a key that looks internal", "name: s\nfunction-x: 1", "function-x: ", "is not a known key"),
    ("a line break in a key", 'name: s\n"a\\nb": 1', "", "is not a known key"),
    ("a number as key", "name: s\ngrid: {5: 1}", "grid", "5"),
    # keys of another kind of data or network
    (
        "a key of vgg in mlp",
        "name: s\nmodel: {name: mlp, channels: [4]}",
        "model.channels: ",
        "`model` with `name: vgg`",
    ),
    ("a key of resnet in vgg", "name: s\nmodel: {blocks: 2}", "model.blocks: ", "`model` with `name: resnet`"),
    (
        "heads that do not divide the width",
        "name: s\nmodel: {name: transformer, width: 50, heads: 4}",
        "model.heads: ",
        "4 heads do not divide a width of 50; write a divisor, or `width: 52`",
    ),
    ("a network's key", "name: s\nmodel: {arguments: {}}", "model.arguments: ", "`model` with `name: <import path>`"),
    (
        "a data source's key",
        "name: s\ndata: {arguments: {}}",
        "data.arguments: ",
        "`data` with `source: <import path>`",
    ),
    ("a key of a folder", "name: s\ndata: {path: x}", "data.path: ", "`data` with `source: image_folder`"),
    (
        "a key of digits",
        "name: s\ndata: {source: synthetic, task: digit}",
        "data.task: ",
        "`data` with `source: digits`",
    ),
    ("a network's key in data", "name: s\ndata: {dropout: 0.5}", "data.dropout: ", "`model` with `name: vgg`"),
    ("no path of a folder", "name: s\ndata: {source: image_folder, image_size: [8, 8]}", "data.path: ", "is missing"),
    ("a name with two colons", "name: s\nmodel: {name: 'a:b:c'}", "model.name: ", "write `my_package.my_module:name`"),
    (
        "a path for a module",
        "name: s\ndata: {source: 'a/b.py:load'}",
        "data.source: ",
        "write `my_package.my_module:name`",
    ),
    (
        "a list as network",
        "name: s\nmodel: {name: [vgg]}",
        "model.name: ",
        "must be 'vgg', 'mlp', 'resnet', 'transformer' or an import",
    ),
    (
        "no argument list",
        "name: s\nmodel: {name: 'a:b', arguments: [1]}",
        "model.arguments: ",
        "must be a section of keys",
    ),
    (
        "a nan argument",
        "name: s\nmodel: {name: 'a:b', arguments: {x: [.nan]}}",
        "model.arguments: ",
        "not contain nan or inf",
    ),
    (
        "an argument that is a date",
        "name: s\nmodel: {name: 'a:b', arguments: {x: 2020-01-01}}",
        "model.arguments.x: ",
        "JSON",
    ),
    # sections
    ("an empty section", "name: s\ndata:", "data: ", "must be a section of keys and values, got null"),
    ("a list as section", "name: s\ngrid: [32, 64]", "grid: ", "must be a section of keys and values, got a list"),
    ("a list of keys as section", "name: s\ntraining:\n  - patience: 3", "training: ", "got a list"),
    ("a word as section", "name: s\nmodel: vgg", "model: ", "below `model:` (name, channels, convolutions,"),
    (
        "a target loss that is never reached",
        "name: s\ncomparison: {targets: [{accuracy: 0.5}, {loss: 0}]}",
        "comparison.targets[1]: ",
        "loss must be above 0, as the losses of classification are, got 0",
    ),
    (
        "a target that is no list",
        "name: s\ncomparison: {targets: {loss: 0.05}}",
        "comparison.targets: ",
        "must be a list, got a section; write for example `targets: [{loss: 0.05}]`",
    ),
    (
        "a target without a name",
        "name: s\ncomparison: {targets: [0.05]}",
        "comparison.targets[0]: ",
        "must be a section of keys and values, got 0.05; write for example `targets: [{loss: 0.05}]`",
    ),
    (
        "two targets in one",
        "name: s\ncomparison: {targets: [{loss: 0.05, accuracy: 0.9}]}",
        "comparison.targets[0]: ",
        "but has 2: loss, accuracy; list each as its own target",
    ),
    ("an empty target", "name: s\ncomparison: {targets: [{}]}", "comparison.targets[0]: ", "but is empty"),
    (
        "a target that the task does not measure",
        "name: s\ncomparison: {targets: [{rmse: 1}]}",
        "comparison.targets[0]: ",
        "rmse is not measured by this task; use one of loss, accuracy",
    ),
    (
        "bits per byte of characters",
        "name: s\ndata: {source: python_docs, tokens: characters}\ncomparison: {targets: [{bits_per_byte: 1}]}",
        "comparison.targets[0]: ",
        "use one of loss, perplexity",
    ),
    (
        "a target in percent",
        "name: s\ncomparison: {targets: [{accuracy: 95}]}",
        "comparison.targets[0]: ",
        "accuracy must be at most 1, its optimum, got 95",
    ),
    (
        "a perplexity that no run reaches",
        "name: s\ndata: {source: python_docs}\ncomparison: {targets: [{perplexity: 1}]}",
        "comparison.targets[0]: ",
        "perplexity must be above 1, its optimum, got 1",
    ),
    (
        "the same target twice",
        "name: s\ncomparison: {targets: [{loss: 0.5}, {accuracy: 0.5}, {loss: 5e-1}]}",
        "comparison.targets[2]: ",
        "loss 0.5 is targets[0] too; remove one",
    ),
    (
        "a nan target",
        "name: s\ncomparison: {targets: [{accuracy: .nan}]}",
        "comparison.targets[0].accuracy: ",
        "must be a finite number, got nan",
    ),
    (
        "an infinite target",
        "name: s\ncomparison: {targets: [{loss: 1}, {loss: .inf}]}",
        "comparison.targets[1].loss: ",
        "must be a finite number, got inf",
    ),
    (
        "a target of an earlier version",
        "name: s\ncomparison: {target_loss: 0.05}",
        "comparison.target_loss: ",
        "is now `comparison: {targets: [{loss: 0.05}]}`; rewrite it",
    ),
    (
        "no target of an earlier version",
        "name: s\ncomparison: {target_loss: null}",
        "comparison.target_loss: ",
        "is no longer a key; it has no value here, so remove it",
    ),
    ("a number as section", "name: s\ncomparison: 0.01", "comparison: ", "must be a section"),
    # lists
    ("no batch sizes", "name: s\ngrid: {batch_sizes: []}", "grid.batch_sizes: ", "must not be empty"),
    ("no learning rates", "name: s\ngrid: {learning_rates: []}", "grid.learning_rates: ", "must not be empty"),
    ("no seeds", "name: s\ngrid: {seeds: []}", "grid.seeds: ", "must not be empty"),
    ("no channels", "name: s\nmodel: {channels: []}", "model.channels: ", "must not be empty"),
    ("one batch size without a list", "name: s\ngrid: {batch_sizes: 32}", "grid.batch_sizes: ", "must be a list"),
    ("text as list", "name: s\ngrid: {batch_sizes: 32 64}", "grid.batch_sizes: ", "must be a list, got '32 64'"),
    ("null as list", "name: s\ngrid: {seeds: }", "grid.seeds: ", "must be a list, got null"),
    ("keys as list", "name: s\ngrid: {seeds: {a: 1}}", "grid.seeds: ", "must be a list, got a section"),
    ("a repeated batch size", "name: s\ngrid: {batch_sizes: [8, 8]}", "grid.batch_sizes: ", "repeats 8"),
    ("a repeated seed", "name: s\ngrid: {seeds: [1, 2, 1]}", "grid.seeds: ", "repeats 1; list each value once"),
    ("one rate twice", "name: s\ngrid: {learning_rates: [0.001, 1e-3]}", "grid.learning_rates: ", "repeats 0.001"),
    (
        "two repeated budgets",
        "name: s\nbranching: {enabled: true, points: [{epochs: 1}, {epochs: 1}, {epochs: 2}, {epochs: 2}]}",
        "branching.points: ",
        "list each value once",
    ),
    (
        "an example of a list of text",
        "name: s\ndata: {source: table, path: t.csv, target: y, missing_values: [-999]}",
        "data.missing_values[0]: ",
        'must be text in quotes, got -999; write for example `missing_values: [NA, "-999"]`',
    ),
    (
        "a number as the name of a column",
        "name: s\ndata: {source: table, path: t.csv, target: 2020}",
        "data.target: ",
        'must be text in quotes, got 2020; write `target: "2020"`',
    ),
    (
        "a boolean as the name of a column",
        "name: s\ndata: {source: table, path: t.csv, target: true}",
        "data.target: ",
        'must be text in quotes, got true; write `target: "true"`',
    ),
    ("a repeated checkpoint", "name: s\ntraining: {checkpoints: [2, 2]}", "training.checkpoints: ", "repeats 2"),
    # integers
    ("a real batch size", "name: s\ngrid: {batch_sizes: [32.0]}", "grid.batch_sizes[0]: ", "integer, got 32.0"),
    ("half a batch size", "name: s\ngrid: {batch_sizes: [1, 2.5]}", "grid.batch_sizes[1]: ", "integer, got 2.5"),
    ("a quoted batch size", "name: s\ngrid: {batch_sizes: ['32']}", "grid.batch_sizes[0]: ", "integer, got '32'"),
    ("a true batch size", "name: s\ngrid: {batch_sizes: [true]}", "grid.batch_sizes[0]: ", "integer, got true"),
    ("a null batch size", "name: s\ngrid: {batch_sizes: [null]}", "grid.batch_sizes[0]: ", "integer, got null"),
    ("a batch of nothing", "name: s\ngrid: {batch_sizes: [0]}", "grid.batch_sizes[0]: ", "at least 1, got 0"),
    ("a negative batch size", "name: s\ngrid: {batch_sizes: [-8]}", "grid.batch_sizes[0]: ", "at least 1, got -8"),
    ("a list in a list", "name: s\ngrid: {batch_sizes: [[8]]}", "grid.batch_sizes[0]: ", "got a list"),
    ("a negative seed", "name: s\ngrid: {seeds: [-1]}", "grid.seeds[0]: ", "must be at least 0, got -1"),
    ("a seed past 32 bits", "name: s\ngrid: {seeds: [4294967296]}", "grid.seeds[0]: ", "at most 4294967295"),
    ("no epochs", "name: s\ntraining: {budget: {epochs: 0}}", "training.budget.epochs: ", "at least 1, got 0"),
    (
        "epochs as a real",
        "name: s\ntraining: {budget: {epochs: 1e3}}",
        "training.budget.epochs: ",
        "integer, got 1000.0",
    ),
    ("no patience", "name: s\ntraining: {patience: 0}", "training.patience: ", "at least 1, got 0"),
    (
        "endless patience",
        "name: s\ntraining: {patience: .inf}",
        "training.patience: ",
        "must be an integer, got inf",
    ),
    ("a word as split seed", "name: s\ndata: {split_seed: a}", "data.split_seed: ", "integer, got 'a'"),
    ("no units", "name: s\nmodel: {dense: [0]}", "model.dense[0]: ", "at least 1, got 0"),
    ("a checkpoint at 0", "name: s\ntraining: {checkpoints: [0]}", "training.checkpoints[0]: ", "at least 1, got 0"),
    # real numbers
    ("a rate of 0", "name: s\ngrid: {learning_rates: [0]}", "grid.learning_rates[0]: ", "greater than 0"),
    ("a negative rate", "name: s\ngrid: {learning_rates: [-0.1]}", "grid.learning_rates[0]: ", "greater than 0"),
    ("a NaN rate", "name: s\ngrid: {learning_rates: [.nan]}", "grid.learning_rates[0]: ", "finite number, got nan"),
    ("an infinite rate", "name: s\ngrid: {learning_rates: [.inf]}", "grid.learning_rates[0]: ", "finite number"),
    ("a quoted NaN", "name: s\ngrid: {learning_rates: ['nan']}", "grid.learning_rates[0]: ", "finite number"),
    (
        "a rate past all floats",
        "name: s\ncomparison: {fixed_learning_rate: 1e400}",
        "comparison.fixed_learning_rate: ",
        "finite number",
    ),
    ("a rate in words", "name: s\ngrid: {learning_rates: [low]}", "grid.learning_rates[0]: ", "a number, got 'low'"),
    (
        "a true rate",
        "name: s\ncomparison: {high_learning_rate: true}",
        "comparison.high_learning_rate: ",
        "must be a number, got true",
    ),
    (
        "a null rate",
        "name: s\ncomparison: {fixed_learning_rate: null}",
        "comparison.fixed_learning_rate: ",
        "must be a number, got null",
    ),
    (
        "a list as rate",
        "name: s\ncomparison: {fixed_learning_rate: [1]}",
        "comparison.fixed_learning_rate: ",
        "got a list",
    ),
    (
        "a budget in two units",
        "name: s\ntraining: {budget: {epochs: 2, steps: 9}}",
        "training.budget.epochs: ",
        "give exactly one of steps, epochs or examples; this has steps and epochs",
    ),
    ("a budget of nothing", "name: s\ntraining: {budget: {}}", "training.budget.steps: ", "give exactly one of steps"),
    ("a budget of numbers", "name: s\ntraining: {budget: 3}", "training.budget: ", "must be a section"),
    ("examples as a real", "name: s\ntraining: {budget: {examples: 1e6}}", "training.budget.examples: ", "integer"),
    (
        "a trial in another unit",
        "name: s\ntuning: {trial_budget: {steps: 9}}",
        "tuning.trial_budget: ",
        "is in steps, and training.budget in epochs",
    ),
    (
        "a search for the momentum of Adam",
        "name: s\noptimizer: {name: Adam}\ntuning: {hyperparameters: {momentum: [0.5, 0.9]}}",
        "tuning.hyperparameters.momentum: ",
        "Adam has no momentum; remove it, or use another optimizer",
    ),
    (
        "a search for an unknown decay",
        "name: s\noptimizer: {name: RMSprop}\ntuning: {hyperparameters: {weight_decay: [0.001, 0.1]}}",
        "tuning.hyperparameters.weight_decay: ",
        "the weight_decay of RMSprop is not known; add `weight_decay` to optimizer.arguments",
    ),
    (
        "a search for β₁",
        "name: s\ntuning: {hyperparameters: {beta1: [0.5, 0.9]}}",
        "tuning.hyperparameters.beta1: ",
        "is not a known key",
    ),
    (
        "a range of one value",
        "name: s\ntuning: {hyperparameters: {warmup: [0.1, 0.1]}}",
        "tuning.hyperparameters.warmup: ",
        "must be the lowest and then the highest value, got [0.1, 0.1]",
    ),
    (
        "a search with a seed of the grid",
        "name: s\ngrid: {seeds: [0, 100]}",
        "tuning.seeds: ",
        "100 is in grid.seeds too",
    ),
    (
        "finalists with a seed of the grid",
        "name: s\ngrid: {seeds: [0, 201]}",
        "tuning.finalists.seeds: ",
        "201 is in grid.seeds too",
    ),
    (
        "finalists with a seed of the trials",
        "name: s\ntuning: {finalists: {seeds: [100]}}",
        "tuning.finalists.seeds: ",
        "100 is in tuning.seeds too",
    ),
    (
        "a budget below that of grid and finalists",
        "name: s\ntuning: {budget: 9, trial_budget: {epochs: 40}}",
        "tuning.budget: ",
        "9 is less than the 9.24 trainings of the finalists and the grid",
    ),
    ("a fraction above 1", "name: s\nschedule: {warmup: {fraction: 1.5}}", "schedule.warmup.fraction: ", "at most 1"),
    ("an unknown decay", "name: s\nschedule: {decay: exponential}", "schedule.decay: ", "must be 'constant', 'linear'"),
    ("a final factor of 2", "name: s\nschedule: {final_factor: 2}", "schedule.final_factor: ", "at most 1, got 2"),
    ("a norm of 0", "name: s\noptimizer: {clip_norm: 0}", "optimizer.clip_norm: ", "must be greater than 0"),
    (
        "an optimizer with a dot",
        "name: s\noptimizer: {name: torch.optim.Adam}",
        "optimizer.name: ",
        "a class of torch.optim",
    ),
    ("a half-life of 0", "name: s\naveraging: {half_life: 0}", "averaging.half_life: ", "at least 1, got 0"),
    (
        "an average that is not kept",
        "name: s\nsharpness: {checkpoints: [average]}",
        "sharpness.checkpoints: ",
        "there is no average of the weights; set averaging.half_life",
    ),
    (
        "a double precision",
        "name: s\ntraining: {precision: float64}",
        "training.precision: ",
        "must be 'float32', 'tf32'",
    ),
    (
        "the key of SGD's momentum of an earlier version",
        "name: s\ntraining: {momentum: 0.9}",
        "training.momentum: ",
        "is now `optimizer: {arguments: {momentum: 0.9}}`; rewrite it",
    ),
    (
        "the key of the epochs of an earlier version",
        "name: s\ntraining: {max_epochs: 9}",
        "training.max_epochs: ",
        "is now `training: {budget: {epochs: 9}}`; rewrite it",
    ),
    ("nothing to validate", "name: s\ndata: {validation_fraction: 0}", "data.validation_fraction: ", "greater than 0"),
    ("nothing to train", "name: s\ndata: {validation_fraction: 1}", "data.validation_fraction: ", "less than 1"),
    ("per cent", "name: s\ndata: {validation_fraction: 20%}", "data.validation_fraction: ", "a number, got '20%'"),
    # choices
    ("an unknown source", "name: s\ndata: {source: mnist}", "data.source: ", "or an import path `my_package"),
    ("an unknown network", "name: s\nmodel: {name: alexnet}", "model.name: ", "must be 'vgg', 'mlp', 're"),
    ("an unknown device", "name: s\ntraining: {accelerator: tpu}", "training.accelerator: ", "'auto', 'cpu' or 'gpu'"),
    # keys that contradict each other
    (
        "a checkpoint after the end",
        "name: s\ntraining: {budget: {epochs: 3}, checkpoints: [2, 9]}",
        "training.checkpoints: ",
        "epoch 9 is after budget.epochs, 3",
    ),
    (
        "a small batch off the grid",
        "name: s\ncomparison: {small_batch_size: 33}",
        "comparison.small_batch_size: ",
        "33 is not in",
    ),
    (
        "a large batch off the grid",
        "name: s\ncomparison: {large_batch_size: 512}",
        "comparison.large_batch_size: ",
        "or add it",
    ),
    (
        "small and large swapped",
        "name: s\ncomparison: {small_batch_size: 256, large_batch_size: 32}",
        "comparison.small_batch_size: ",
        "the small batch, 256, must be smaller than the large one, 32",
    ),
    (
        "small as large",
        "name: s\ncomparison: {small_batch_size: 64, large_batch_size: 64}",
        "comparison.small_batch_size: ",
        "64",
    ),
    ("large is the smallest", "name: s\ncomparison: {large_batch_size: 32}", "comparison.large_batch_size: ", "32"),
    # analyses
    (
        "an unknown checkpoint",
        "name: s\nsharpness: {checkpoints: [best, final]}",
        "sharpness.checkpoints[1]: ",
        "'final'",
    ),
    (
        "a checkpoint of no epoch",
        "name: s\nlandscape: {checkpoint: 0}",
        "landscape.checkpoint: ",
        "init, best, last, average or",
    ),
    (
        "a true checkpoint",
        "name: s\nlandscape: {checkpoint: true}",
        "landscape.checkpoint: ",
        "init, best, last, average or",
    ),
    ("weights not saved", "name: s\nsharpness: {checkpoints: [9]}", "sharpness.checkpoints: ", "training.checkpoints"),
    ("no checkpoint", "name: s\ngradient_alignment: {checkpoints: []}", "gradient_alignment.checkpoints: ", "empty"),
    ("an epsilon of 0", "name: s\nsharpness: {epsilons: [0]}", "sharpness.epsilons[0]: ", "greater than 0"),
    ("an epsilon past 1", "name: s\nsharpness: {epsilons: [2]}", "sharpness.epsilons[0]: ", "less than 1"),
    ("an epsilon in words", "name: s\nsharpness: {epsilons: [small]}", "sharpness.epsilons[0]: ", "got 'small'"),
    ("a repeated radius", "name: s\nsharpness: {adaptive_radii: [0.1, 1e-1]}", "sharpness.adaptive_radii: ", "0.1"),
    ("no subspace", "name: s\nsharpness: {subspace_dimension: 0}", "sharpness.subspace_dimension: ", "at least 1"),
    ("no iteration", "name: s\nsharpness: {iterations: 0}", "sharpness.iterations: ", "at least 1"),
    ("fewer than no start", "name: s\nsharpness: {random_starts: -1}", "sharpness.random_starts: ", "at least 0"),
    ("too few products", "name: s\nsharpness: {trace_matvecs: 2}", "sharpness.trace_matvecs: ", "at least 3"),
    ("neither yes nor no", "name: s\nsharpness: {enabled: 1}", "sharpness.enabled: ", "true or false, got 1"),
    (
        "alphas that descend",
        "name: s\ninterpolation: {alpha_range: [2, -1]}",
        "interpolation.alpha_range: ",
        "below the last",
    ),
    ("one alpha", "name: s\ninterpolation: {alpha_range: [2]}", "interpolation.alpha_range: ", "a list of two"),
    ("a line of one point", "name: s\ninterpolation: {points: 1}", "interpolation.points: ", "at least 2"),
    ("a policy that is none", "name: s\ninterpolation: {batch_norm: off}", "interpolation.batch_norm: ", "'fixed'"),
    (
        "an arm of nothing",
        "name: s\narms: {mine: {}}",
        "arms.mine.rule: ",
        "either a `rule`, `exponents`, `learning_rates` or",
    ),
    ("an unknown rule", "name: s\narms: {mine: {rule: cubic}}", "arms.mine.rule: ", "'half_life', got 'cubic'"),
    (
        "a reserved arm",
        "name: s\narms: {fixed: {rule: sqrt}}",
        "arms: ",
        "set its learning rate as `comparison.fixed_learning_rate`",
    ),
    ("an arm with a space", "name: s\narms: {a b: {rule: sqrt}}", "arms: ", "invalid arm name 'a b': use"),
    (
        "an arm that is a number",
        "name: s\narms: {mine: 3}",
        "arms.mine: ",
        "must be a section of keys and values, got 3",
    ),
    (
        "arms in a list",
        "name: s\narms: [linear]",
        "arms: ",
        "section of keys and values, got a list; write for example",
    ),
    (
        "a typo in an arm",
        "name: s\narms: {linear: {warmups: 1}}",
        "arms.linear.warmups: ",
        "did you mean `warmup`?",
    ),
    ("a foreign key of an arm", "name: s\nexponents: 1", "exponents: ", "in the section `arms.<name>`"),
    ("a map to 0", "name: s\narms: {m: {learning_rates: {32: 0}}}", "arms.m.learning_rates[32]: ", "greater than 0"),
    (
        "a map from text",
        "name: s\narms: {m: {learning_rates: {a: 1}}}",
        "arms.m.learning_rates.a: ",
        "integer, got 'a'",
    ),
    (
        "a map of no size",
        "name: s\narms: {m: {learning_rates: {9: 1}}}",
        "arms.m.learning_rates: ",
        "9 is not in grid.batch",
    ),
    (
        "a base of a map",
        "name: s\narms: {m: {learning_rates: {32: 1}, base_learning_rate: 1}}",
        "arms.m.base_learning_rate: ",
        "needs a `rule`",
    ),
    (
        "a warm-up beyond the end",
        "name: s\ntraining: {budget: {epochs: 3}}\narms: {linear: {warmup: {epochs: 5}}}",
        "arms.linear.warmup",
        "5",
    ),
    (
        "a rate beyond bounds",
        "name: s\narms: {m: {rule: linear, base_learning_rate: 1e30}}",
        "arms.m: ",
        "must be between 1e-30 and",
    ),
    ("a lonely pair", "name: s\ninterpolation: {pairs: [[bs32-lr0.01]]}", "interpolation.pairs[0]: ", "a list of two"),
    (
        "a pair of no list",
        "name: s\ninterpolation: {pairs: [bs32-lr0.01]}",
        "interpolation.pairs[0]: ",
        "a list of two",
    ),
    (
        "a pair with a stranger",
        "name: s\ninterpolation: {pairs: [[bs32-lr0.01, bs33-lr0.01]]}",
        "interpolation.pairs: ",
        "'bs33-lr0.01' is not a setting of this study",
    ),
    ("a key like a mark", "name: s\n'[key]': 1", "[key]: ", "is not a known key"),
    ("a key like a mark below", "name: s\ngrid: {'[key]': 1}", "grid.[key]: ", "is not a known key"),
    (
        "a repeated pair",
        "name: s\ninterpolation: {pairs: [[bs32-lr0.01, bs64-lr0.01], [bs32-lr0.01, bs64-lr0.01]]}",
        "interpolation.pairs: ",
        "repeats ('bs32-lr0.01', 'bs64-lr0.01'); list each value once",
    ),
    (
        "a pair of one",
        "name: s\ninterpolation: {pairs: [[bs32-lr0.01, bs32-lr0.01]]}",
        "interpolation.pairs: ",
        "a pair needs two different settings, got bs32-lr0.01 twice",
    ),
    ("no pair", "name: s\ninterpolation: {pairs: []}", "interpolation.pairs: ", "must not be empty"),
    (
        "a pair of nothing",
        "name: s\ninterpolation: {alpha_range: null}",
        "interpolation.alpha_range: ",
        "a list of two",
    ),
    ("too fine a grid", "name: s\nlandscape: {points: [100000, 9]}", "landscape.points[0]: ", "at most 2000"),
    ("an unknown setting", "name: s\nlandscape: {settings: [bs32]}", "landscape.settings: ", "'bs32' is not a setting"),
    ("a seed of no run", "name: s\nlandscape: {seeds: [7]}", "landscape.seeds: ", "7 is not in grid.seeds"),
    (
        "a range that descends",
        "name: s\nlandscape: {x_range: [1, -1]}",
        "landscape.x_range: ",
        "1, must be below the last, -1",
    ),
    (
        "a range of nothing",
        "name: s\nlandscape: {y_range: [1, 1]}",
        "landscape.y_range: ",
        "1, must be below the last, 1",
    ),
    ("an endless range", "name: s\nlandscape: {y_range: [0, .inf]}", "landscape.y_range[1]: ", "finite number"),
    ("three ends of a range", "name: s\nlandscape: {y_range: [0, 1, 2]}", "landscape.y_range: ", "a list of two"),
    ("a grid of one row", "name: s\nlandscape: {points: [51, 1]}", "landscape.points[1]: ", "at least 2"),
    ("a grid of one number", "name: s\nlandscape: {points: 51}", "landscape.points: ", "a list of two"),
    ("no direction", "name: s\nlandscape: {direction_seeds: []}", "landscape.direction_seeds: ", "empty"),
    ("jobs of no point", "name: s\nlandscape: {points_per_job: 0}", "landscape.points_per_job: ", "at least 1"),
    ("a way without steps", "name: s\ntrajectory: {enabled: true}", "trajectory.enabled: ", "training.checkpoints"),
    ("branches of steps", "name: s\nbranching: {length: {steps: 9}}", "branching.length: ", "give epochs or examples"),
    (
        "a point after the end",
        "name: s\nbranching: {enabled: true, points: [{epochs: 2000}]}",
        "branching.points[0]: ",
        "2000 epochs is not within training.budget, 2000 epochs",
    ),
    (
        "branches of a decay",
        "name: s\nschedule: {decay: linear}\nbranching: {enabled: true}",
        "branching.enabled: ",
        "another decay of the learning rate than linear",
    ),
    (
        "a branch of too many",
        "name: s\nbranching: {enabled: true, factors: [2, 64]}",
        "branching.factors: ",
        "a branch has a batch size of 2048, which is more than the 1438 training images; remove 64",
    ),
    (
        "branches of stages",
        "name: s\narms: {a: {rule: constant, stages: [{start: {epochs: 5}, batch_size_factor: 2}]}}\n"
        "branching: {enabled: true, settings: [bs32-lr0.01-x2at5]}",
        "branching.settings: ",
        "has stages of its own",
    ),
    (
        "a batch warm-up at equal steps",
        "name: s\ntraining: {budget: {steps: 500}, patience: null}\n"
        "branching: {enabled: true, points: [{steps: 9}], batch_warmup: true}",
        "branching.batch_warmup: ",
        "saves no steps if every run takes 500 steps; give training.budget in epochs or examples, or disable this",
    ),
    (
        "a branch of a batch warm-up",
        "name: s\nbranching: {enabled: true, batch_warmup: true, settings: [bs32-lr0.01, bs32-lr0.01-batchwarmup]}",
        "branching.settings: ",
        "bs32-lr0.01-batchwarmup has stages of its own; use another one",
    ),
    (
        "a batch warm-up of too many",
        "name: s\nbranching: {enabled: true, batch_warmup: true, factors: [64]}",
        "branching.factors: ",
        "a branch has a batch size of 2048, which is more than the 1438 training images; remove 64",
    ),
    (
        "a batch warm-up as an arm",
        "name: s\narms: {batch_warmup: {rule: linear}}",
        "arms: ",
        "`batch_warmup` is a reserved arm; enable it as `branching.batch_warmup`",
    ),
    ("a branch of no seed", "name: s\nbranching: {seeds: [7]}", "branching.seeds: ", "7 is not in grid.seeds"),
    ("a branch of its own size", "name: s\nbranching: {factors: [1, 2]}", "branching.factors[0]: ", "at least 2"),
    (
        "curvature of no setting",
        "name: s\ncurvature: {settings: [bs32]}",
        "curvature.settings: ",
        "'bs32' is not a set",
    ),
    ("a negative margin", "name: s\ntrajectory: {margin: -1}", "trajectory.margin: ", "at least 0"),
    (
        "no power of two",
        "name: s\ngradient_alignment: {max_batch_size: 100}",
        "gradient_alignment.max_batch_size: ",
        "a power of two, got 100",
    ),
    # YAML
    ("a repeated key", "name: s\nname: t", "line 2: ", "duplicate key `name`"),
    ("a repeated key below", "name: s\ngrid:\n  seeds: [1]\n  seeds: [2]", "line 4: ", "duplicate key `seeds`"),
    ("a tab", "name: s\ngrid:\n\tseeds: [1]", "line 3: ", "is not valid YAML"),
    ("an open bracket", "name: s\ngrid: {seeds: [1", "line 2: ", "is not valid YAML"),
    ("an open quote", "name: 's", "line 1: ", "is not valid YAML"),
    ("wrong indentation", "name: s\n  grid: {}", "line 2: ", "is not valid YAML"),
    ("two documents", "name: s\n---\nname: t", "line 2: ", "is not valid YAML"),
    ("an object tag", "name: !!python/object/apply:os.getcwd []", "line 1: ", "is not valid YAML"),
    ("an unknown alias", "name: *other", "line 1: ", "is not valid YAML"),
    ("a control character", "name: s\0", "", "is not valid YAML"),
    ("a date that is none", "name: 2020-13-45", "", "is not valid YAML"),
    ("a tagged number that is none", "training: {patience: !!int many}", "", "is not valid YAML"),
    ("a tagged truth that is none", "name: !!bool perhaps", "", "is not valid YAML"),
    ("a number of 5000 digits", f"name: s\ntraining: {{patience: {'9' * 5000}}}", "", ""),
    ("a list as file", "- name: s", "", "must contain keys and values (`name: my-study`), contains a list"),
    ("a word as file", "hello", "", "must contain keys and values"),
    ("a number as file", "3", "", "must contain keys and values"),
    # resources, device_timing
    ("no device", "name: a\nresources: {devices: 0}", "resources.devices: ", "must be at least 1"),
    ("half a device", "name: a\nresources: {devices: 1.5}", "resources.devices: ", "integer"),
    (
        "more devices than examples in a batch",
        "name: a\ngrid: {batch_sizes: [2, 64]}\nresources: {devices: 4}",
        "resources.devices: ",
        "4 devices cannot share a batch of 2",
    ),
    (
        "more devices on all nodes than examples in a batch",
        "name: a\ngrid: {batch_sizes: [4, 64]}\nresources: {devices: 3, nodes: 2}",
        "resources.nodes: ",
        "6 devices cannot share a batch of 4",
    ),
    (
        "no number of devices to time",
        "name: a\ndevice_timing: {device_counts: []}",
        "device_timing.device_counts: ",
        "",
    ),
    (
        "a number of devices twice",
        "name: a\ndevice_timing: {device_counts: [2, 2]}",
        "device_timing.device_counts: ",
        "2",
    ),
]


@pytest.mark.parametrize(("text", "where", "said"), [pytest.param(*row[1:], id=row[0]) for row in MISTAKES])
def test_mistake_gives_one_line_with_file_key_and_cause(
    text: str, where: str, said: str, study: Callable, refusal: Callable, tmp_path: Path
):
    message = refusal(study, text)
    assert message.startswith(f"{tmp_path}/study.yaml: {where}")
    assert said in message
    assert len(message) < len(str(tmp_path)) + 340


# Each key that was renamed, as a study file of then has it, and its name now.
RENAMED = {
    "training: {snapshots: [1]}": "training.checkpoints",
    "data: {source: image_folder, path: a, image_size: [3, 3], colour: rgb}": "data.color",
    "comparison: {fixed_lr: 0.01}": "comparison.fixed_learning_rate",
    "comparison: {high_lr: 0.08}": "comparison.high_learning_rate",
    "comparison: {small_batch: 32}": "comparison.small_batch_size",
    "comparison: {large_batch: 256}": "comparison.large_batch_size",
    "arms: {mine: {rule: sqrt, base_lr: 0.01}}": "arms.mine.base_learning_rate",
    "arms: {linear: {base_batch: 32}}": "arms.linear.base_batch_size",
    "tuning: {coarse_trials: 3}": "tuning.startup_trials",
    "sharpness: {trace_products: 9}": "sharpness.trace_matvecs",
    "interpolation: {alphas: [-1, 2]}": "interpolation.alpha_range",
    "gradient_alignment: {largest_batch: 32}": "gradient_alignment.max_batch_size",
    "gradient_alignment: {examples: 64}": "analysis.examples",
    "gradient_alignment: {max_examples: 64}": "analysis.examples",
    "device_timing: {devices: [1]}": "device_timing.device_counts",
}


@pytest.mark.parametrize(("section", "new"), RENAMED.items())
def test_renamed_key_is_rejected_with_its_new_name(
    section: str, new: str, study: Callable, refusal: Callable, tmp_path: Path
):
    old = re.findall(r"[a-z_]+(?=: )", section)[-1]
    place, top = new.rpartition(".")[0], section.partition(":")[0]
    is_moved = not new.startswith(f"{top}.")
    where, fix = (f"{top}.{old}", "move it") if is_moved else (f"{place}.{old}", "rename it")
    assert refusal(study, f"name: s\n{section}") == (f"{tmp_path}/study.yaml: {where}: is now `{new}`; {fix}")


@pytest.mark.parametrize("old", ["range", "learning_rate_range"])
def test_range_of_learning_rates_is_rejected_with_its_new_form(old: str, study: Callable, refusal: Callable):
    new = f"tuning.{old}: is now `tuning: {{hyperparameters: {{learning_rate: [0.01, 1]}}}}`; rewrite it"
    assert refusal(study, f"name: s\ntuning: {{{old}: [0.01, 1]}}").endswith(new)


def test_number_of_trials_is_rejected_with_the_key_that_replaces_it(study: Callable, refusal: Callable):
    message = refusal(study, "name: s\ntuning: {trials: 9}")
    fix = "remove it, and limit the cost of a search by `budget`, in complete trainings"
    assert message.endswith(f"tuning.trials: is no longer a key; {fix}")


def test_all_renamed_keys_are_tested():
    # Those with … have a new form, which the tests of their sections have.
    names = [name.split(".")[-1] for name in RENAMED_KEYS.values() if "…" not in name]
    assert sorted(new.split(".")[-1] for new in RENAMED.values()) == sorted(names)


def test_grey_is_rejected_with_grayscale(study: Callable, refusal: Callable):
    text = "name: s\ndata: {source: image_folder, path: a, image_size: [3, 3], color: grey}"
    expected = "data.color: must be 'rgb' or 'grayscale', got 'grey'; write for example `color: grayscale`"
    assert refusal(study, text).endswith(expected)


def test_missing_file_is_rejected(tmp_path: Path, refusal: Callable):
    message = refusal(Study.from_file, tmp_path / "none.yaml")
    assert message.startswith(f"{tmp_path}/none.yaml: no such file")


def test_folder_is_rejected(tmp_path: Path, refusal: Callable):
    assert refusal(Study.from_file, tmp_path).startswith(f"{tmp_path}: is a folder")


def test_binary_file_is_rejected(tmp_path: Path, refusal: Callable):
    path = tmp_path / "study.yaml"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\xff\xfe")
    assert refusal(Study.from_file, path).startswith(f"{path}: is not a text file")


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("name: s\ngrid: {seeds: []}\ntraining: {patience: 0}", ["grid.seeds", "training.patience"]),
        ("name: s\ngrid: {seeds: [-1, 0, a]}", ["grid.seeds[0]", "grid.seeds[2]"]),
        ("nmae: s", ["name", "nmae"]),
        ("name: a/b\ngrid: {seeds: []}", ["name", "grid.seeds"]),
    ],
    ids=["two sections", "one list", "a mistyped required key", "the name and a section"],
)
def test_two_mistakes_give_two_lines(text: str, keys: list[str], study: Callable, tmp_path: Path):
    with pytest.raises(UserError) as caught:
        study(text)
    told = {line.removeprefix(f"{tmp_path}/study.yaml: ").split(": ")[0] for line in str(caught.value).split("\n")}
    assert told == set(keys)


# Whatever stands in a file, the answer is a study or lines for the user.


def error_lines(read: Callable[[], Study], source: str = "study.yaml") -> list[str]:
    """The lines of the refusal, none if there is none; each must be one line that starts with the source."""
    try:
        read()
    except UserError as error:
        lines = str(error).split("\n")
        for line in lines:
            assert line.splitlines() == [line]
            assert line.startswith(f"{source}: ")
            assert "Traceback" not in line
        return lines
    return []


KNOWN_KEYS = sorted({"name", *SECTIONS, *(key for keys in SECTIONS.values() for key in keys)})


KEYS = st.sampled_from(KNOWN_KEYS) | st.text(max_size=8)


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.binary(max_size=4)
)


VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | SCALARS, inner, max_size=3),
    max_leaves=8,
)


PATHS = [(section,) for section in ["name", *SECTIONS]]


PATHS += [(section, key) for section, keys in SECTIONS.items() for key in keys]


@settings(max_examples=300)
@given(st.dictionaries(KEYS, VALUES, max_size=6))
@example({"a\nb": 1})
@example({"a\u2028b": 1})
@example({"": 1})
@example({"function-": {}})
@example({"grid": {"function-after": [1]}})
@example({"name": "x" * 5000})
def test_any_mapping_gives_a_study_or_one_line_per_mistake(mapping: dict):
    error_lines(lambda: Study.from_mapping(mapping, "study.yaml"))


@given(st.sampled_from(PATHS), VALUES)
def test_invalid_value_is_reported_with_its_key(path: tuple[str, ...], value: Any):
    mapping = full_mapping()
    parent = mapping if len(path) == 1 else mapping[path[0]]
    parent[path[-1]] = value
    for line in error_lines(lambda: Study.from_mapping(mapping, "study.yaml")):
        assert path[-1] in line


@given(st.sampled_from([(), *((section,) for section in SECTIONS)]), st.text(max_size=12), VALUES)
def test_unknown_key_is_rejected_in_every_section(path: tuple[str, ...], key: str, value: Any):
    mapping = full_mapping()
    parent = mapping[path[0]] if path else mapping
    if key not in parent:
        parent[key] = value
        assert len(error_lines(lambda: Study.from_mapping(mapping, "study.yaml"))) == 1


@given(st.integers(0, len(FULL)), st.integers(0, 2), st.sampled_from(["", *"\t\n:-,#&*!|>%@`?'\"[]{}~<=0.eé\0"]))
def test_typing_error_never_gives_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, position: int, deleted: int, typed: str
):
    path = tmp_path_factory.getbasetemp() / "slip.yaml"
    path.write_text(FULL[:position] + typed + FULL[position + deleted :], encoding="utf-8")
    error_lines(lambda: Study.from_file(path), str(path))


# What is accepted, and as what.


@pytest.mark.parametrize("written", ["1e-3", "1E-3", "'1e-3'", "0.001", "1.0e-3", "+1e-3"])
def test_every_notation_of_a_thousandth_is_the_same_number(written: str, study: Callable):
    checked = study(f"name: s\ngrid: {{learning_rates: [{written}]}}\ncomparison: {{fixed_learning_rate: {written}}}")
    assert checked.grid.learning_rates == (0.001,)
    assert checked.comparison.fixed_learning_rate == 0.001


def test_integer_for_a_float_gives_the_same_study(study: Callable):
    from_integers = study("name: s\ngrid: {learning_rates: [1]}\nschedule: {final_factor: 0, decay_fraction: 1}")
    real = study("name: s\ngrid: {learning_rates: [1.0]}\nschedule: {final_factor: 0.0, decay_fraction: 1.0}")
    assert isinstance(from_integers.grid.learning_rates[0], float)
    assert from_integers == real
    assert [from_integers.specs.run(name) for name in from_integers.runs] == [
        real.specs.run(name) for name in real.runs
    ]


# Overrides.


def test_override_replaces_single_nested_keys_only(study: Callable):
    overrides = {"grid": {"seeds": [7]}, "training": {"patience": 9}}
    expected = FULL.replace("seeds: [0, 1]", "seeds: [7]").replace("patience: 3", "patience: 9")
    assert study(FULL, overrides) == study(expected)


def test_override_can_add_a_section(study: Callable):
    assert study("name: s", {"grid": {"seeds": [7]}}) == study("name: s\ngrid: {seeds: [7]}")


def test_overrides_are_not_modified(study: Callable):
    overrides = {"grid": {"seeds": [7]}, "training": {"patience": 9}}
    before = copy.deepcopy(overrides)
    study(FULL, overrides)
    assert overrides == before


def test_invalid_override_is_rejected_like_an_invalid_file(study: Callable, refusal: Callable, tmp_path: Path):
    message = refusal(study, FULL, {"grid": {"seeds": []}})
    assert message.startswith(f"{tmp_path}/study.yaml with --config: grid.seeds: must not be empty")


def assigned(*assignments: str) -> Study:
    """A study with some `--config` of the command line."""
    return Study.from_mapping(full_mapping(), "study.yaml", *read_assignments(assignments))


@pytest.mark.parametrize(
    ("assignments", "same"),
    [
        (
            ["training={patience: 50}", "grid={seeds: [7, 8]}"],
            {"training": {"patience": 50}, "grid": {"seeds": [7, 8]}},
        ),
        (["comparison={high_learning_rate: 1e-1}"], {"comparison": {"high_learning_rate": 0.1}}),
        (
            ["training={patience: 50}", "training={augment_shift: 0}"],
            {"training": {"patience": 50, "augment_shift": 0}},
        ),
        (["arms={mine: {learning_rates: {32: 0.5, 64: 1}}}"], {"arms": {"mine": {"learning_rates": {32: 0.5, 64: 1}}}}),
        (
            ["data={source: 'my:load', arguments: {deep: {on: true}, x: [1, a, null]}}"],
            {"data": {"source": "my:load", "arguments": {"deep": {"on": True}, "x": [1, "a", None]}}},
        ),
        (["name=007"], {"name": "007"}),
        (["name=1e3"], {"name": "1e3"}),
        (["name=20_2"], {"name": "20_2"}),
        (["name=true"], {"name": "true"}),
        (["name='007'"], {"name": "007"}),
        (
            ["data={source: arrays, path: 007, labels: 1.50}"],
            {"data": {"source": "arrays", "path": "007", "labels": "1.50"}},
        ),
    ],
)
def test_command_line_values_parse_as_yaml_except_for_text_keys(assignments: list[str], same: dict[str, Any]):
    assert assigned(*assignments) == Study.from_mapping(full_mapping(), "study.yaml", same)


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        (
            ["grid={seeds: [1"],
            "study.yaml with --config: grid: must be a section of keys and values, got '{seeds: [1'; ",
        ),
        (["data={source: arrays, path: [1]}"], "study.yaml with --config: data.path: must be text, got a list; "),
        (["name="], "study.yaml with --config: name: must be text, got null; "),
        (["name=0.5"], "study.yaml with --config: name: must be at most 100 letters, digits, `-` and `_`, got '0.5'; "),
    ],
)
def test_invalid_command_line_value_is_reported_like_an_invalid_file(assignments: list[str], said: str):
    with pytest.raises(UserError) as refused:
        assigned(*assignments)
    assert str(refused.value).startswith(said)
    assert len(str(refused.value).splitlines()) == 1


def test_only_keys_that_snakemake_itself_parsed_are_ignored():
    values, texts = read_assignments(["arms={mine: {learning_rates: {32: 0.5}}}", "training={patience: 5}"])
    merged = {
        "name": "s",
        "arms": {"mine": {"learning_rates": {32: 0.1, 64: 0.2, "32": "0.5"}}, "other": {"rule": "linear"}},
        "training": {"patience": "5", "augment_shift": 1},
    }
    assert remove_assigned_text(merged, values, texts) == {
        "name": "s",
        "arms": {"mine": {"learning_rates": {32: 0.1, 64: 0.2}}, "other": {"rule": "linear"}},
        "training": {"patience": "5", "augment_shift": 1},
    }
