"""The recommended setting as Python for Lightning, Hugging Face's Trainer, or a loop of one's own under torchrun."""

import json
from collections.abc import Iterator
from typing import Any, Literal

from batchscape.config.optimizer import OptimizerConfig
from batchscape.config.run import RunSpec
from batchscape.config.scaling import BETAS, known_hyperparameters
from batchscape.errors import UserError
from batchscape.report.numbers import join_truncated
from batchscape.training.plan import StepPlan

Format = Literal["lightning", "huggingface", "torchrun"]
PRECISIONS = {"float32": "32-true", "tf32": "32-true", "bf16": "bf16-mixed"}
# The arguments of Adam that TrainingArguments have.
ADAM_ARGUMENTS = {"betas", "eps", "weight_decay"}


def split_batch(batch_size: int, devices: int, max_per_device: int | None = None) -> tuple[int, int]:
    """Return the batch size of each device, and the number of batches that it accumulates for a step.

    Args:
        batch_size: The global batch size.
        devices: Number of devices.
        max_per_device: The largest batch size of a device; None if there is no limit.

    Returns:
        The two numbers; their product with the number of devices is the global batch size. The batch size of a device
        is the largest possible one.

    Raises:
        UserError: A number is below 1, or the devices cannot share the batch equally.
    """
    for option, value in (("--devices", devices), ("--max-per-device", max_per_device)):
        if value is not None and value < 1:
            raise UserError(f"{option}: must be at least 1, got {value}")
    if batch_size % devices:
        divisors = [str(count) for count in range(1, batch_size + 1) if batch_size % count == 0]
        raise UserError(
            f"--devices: {devices} devices cannot share the batch size {batch_size} equally; give one of "
            f"{join_truncated(divisors, 8)}"
        )
    share = batch_size // devices
    limit = min(share, max_per_device or share)
    per_device = next(size for size in range(limit, 0, -1) if share % size == 0)
    return per_device, share // per_device


def export_setting(
    spec: RunSpec,
    num_examples: int,
    title: str,
    kind: Format,
    *,
    devices: int = 1,
    max_per_device: int | None = None,
    has_batch_norm: bool = False,
    is_weighted: bool = False,
) -> str:
    """Return a setting as Python, whose comments say what it does not express.

    Args:
        spec: The specification of a run of the setting.
        num_examples: Number of training examples, from which the steps of epochs follow.
        title: What the setting is, in one line.
        kind: What the Python is for.
        devices: Number of devices.
        max_per_device: The largest batch size of a device; None if there is no limit.
        has_batch_norm: Whether statistics of the batch are part of the network.
        is_weighted: Whether examples have weights in the loss.

    Returns:
        The text of a Python module.

    Raises:
        UserError: The devices cannot share the batch equally.
    """
    per_device, accumulation = split_batch(spec.batch_size, devices, max_per_device)
    plan = StepPlan(spec, num_examples)
    write = {"lightning": _lightning, "huggingface": _hugging_face, "torchrun": _torchrun}[kind]
    code = list(write(plan, devices, per_device, accumulation))
    shares = f"{devices} device{'s' * (devices != 1)} × {per_device} × {accumulation} accumulated"
    comments = [
        title,
        f"Global batch size {spec.batch_size} = {shares}. Budget: {spec.training.budget} of {num_examples:,} training "
        f"examples, {plan.total:,} steps.",
        *_describe_unexpressed(plan, devices * accumulation > 1, has_batch_norm, is_weighted),
    ]
    imports = ["import math", ""] if any("math." in line for line in code) else []
    if any("torch." in line for line in code):
        imports += ["import torch"]
    imports += [f"from {module} import {name}" for module, name in _own_optimizer(spec.optimizer)]
    return "\n".join([*(f"# {comment}" for comment in comments), *imports, *[""] * bool(imports), *code]) + "\n"


def _describe_unexpressed(plan: StepPlan, is_split: bool, has_batch_norm: bool, is_weighted: bool) -> Iterator[str]:
    """Yield what the study did and the settings do not say."""
    spec, training = plan.spec, plan.spec.training
    if training.patience is not None:
        yield (
            f"Not expressed: a run ended after {training.patience} evaluations (training.evaluate_every: "
            f"{training.evaluate_every}) without a lower validation loss, and the weights are those with the lowest."
        )
    for stage in spec.stages:
        yield (
            f"Not expressed: from {stage.start} on, the batch size was {stage.batch_size_factor} times and the "
            f"learning rate {stage.learning_rate_factor:g} times as large."
        )
    if spec.averaging.half_life is not None:
        yield f"Not expressed: the average of the weights with a half-life of {spec.averaging.half_life:,} examples."
    if training.augment_flip or training.augment_shift:
        yield "Not expressed: training images were augmented (training.augment_flip, training.augment_shift)."
    if not training.reshuffle:
        yield "Not expressed: every epoch had the same batches (training.reshuffle)."
    if is_weighted and is_split:
        yield "Not expressed: examples have weights, so a mean over devices and accumulated batches is not their mean."
    if has_batch_norm and is_split:
        yield (
            "Not expressed: the statistics of BatchNorm were those of the global batch. SyncBatchNorm gathers them "
            "from devices, but not from accumulated batches."
        )
    if (rest := plan.num_examples % spec.batch_size) and is_split:
        yield f"Not expressed: the last batch of an epoch had {rest} examples, whose mean gradient was a step."


def _own_optimizer(optimizer: OptimizerConfig) -> list[tuple[str, str]]:
    """Return the module and the name of an optimizer that is not one of torch.optim."""
    module, _, name = optimizer.name.partition(":")
    return [(module, name)] if name else []


def _optimizer(spec: RunSpec, module: str) -> list[str]:
    """Return the lines of a function body that build the optimizer of a module."""
    if spec.optimizer.is_own:  # in a class, `super()` has the method of the study
        comment = "  # in a subclass of your module" if module == "self" else ""
        return [
            f"    optimizer = {'super()' if module == 'self' else module}.configure_optimizers(){comment}",
            "    while isinstance(optimizer, dict | list | tuple):  # as Lightning allows",
            '        optimizer = optimizer["optimizer"] if isinstance(optimizer, dict) else optimizer[0]',
            '    largest = max(group["lr"] for group in optimizer.param_groups)',
            "    for group in optimizer.param_groups:",
            f'        group["lr"] *= {_literal(spec.learning_rate)} / largest',
        ]
    own = _own_optimizer(spec.optimizer)
    name = own[0][1] if own else f"torch.optim.{spec.optimizer.name}"
    arguments = {key: _with_tuples(value) for key, value in spec.optimizer.arguments.items()}
    known = known_hyperparameters(spec.optimizer.name, spec.optimizer.arguments)
    if set(BETAS) <= known.keys():  # also those of torch's defaults: β₂ is part of a recipe for large batches
        arguments["betas"] = tuple(known[name] for name in BETAS)
    text = "".join(f", {key}={_literal(value)}" for key, value in {"lr": spec.learning_rate, **arguments}.items())
    if spec.optimizer.decay_biases_and_norms:
        return [f"    optimizer = {name}({module}.parameters(){text})"]
    return [
        f"    parameters = list({module}.parameters())",
        "    groups = [",
        '        {"params": [each for each in parameters if each.dim() >= 2]},',
        '        {"params": [each for each in parameters if each.dim() < 2], "weight_decay": 0.0},',
        "    ]",
        f'    optimizer = {name}([group for group in groups if group["params"]]{text})',
    ]


def _with_tuples(value: Any) -> Any:
    return tuple(map(_with_tuples, value)) if isinstance(value, list | tuple) else value


def _is_constant(plan: StepPlan) -> bool:
    return plan.spec.schedule.decay == "constant" and not plan.warmup


def _learning_rate_factor(plan: StepPlan) -> list[str]:
    """Return a function with the factor of the learning rate (`optim.schedules.factor`); none if it is constant."""
    schedule, start = plan.spec.schedule, _decay_start(plan)
    if _is_constant(plan):
        return []
    lines = ["", "", "def learning_rate_factor(step):"]
    lines += ['    """Return the factor of the learning rate; step counts optimizer steps from 0."""']
    if plan.warmup:
        lines += [f"    if step < {plan.warmup}:", f"        return (step + 1) / {plan.warmup}"]
    if schedule.decay == "constant" or start == plan.total:
        return [*lines, "    return 1.0"]
    remaining = {
        "linear": "1 - done",
        "cosine": "(1 + math.cos(math.pi * done)) / 2",
        "sqrt": "1 - math.sqrt(done)",
    }[schedule.decay]
    return [
        *lines,
        f"    done = min(max(step - {start}, 0) / {plan.total - start}, 1.0)",
        f"    remaining = {remaining}",
        f"    return {schedule.final_factor!r} + (1 - {schedule.final_factor!r}) * remaining",
    ]


def _decay_start(plan: StepPlan) -> int:
    """Return the number of steps before the decay."""
    return max(plan.warmup, plan.total - round(plan.spec.schedule.decay_fraction * plan.total))


def _scheduler(plan: StepPlan) -> list[str]:
    if _is_constant(plan):
        return []
    return ["    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor)"]


def _call(name: str, arguments: dict[str, object]) -> list[str]:
    """Return the definition of a dict, with a line for each of its keys."""
    return [f"{name} = dict(", *(f"    {key}={_literal(value)}," for key, value in arguments.items()), ")"]


def _literal(value: object) -> str:
    return json.dumps(value) if isinstance(value, str) else repr(value)


def _set_tf32(spec: RunSpec) -> str:
    """Return the line for TF32 on GPUs, which torch uses for convolutions unless it is disabled."""
    enabled = spec.training.precision == "tf32"
    return f"torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = {enabled}"


def _lightning(plan: StepPlan, devices: int, per_device: int, accumulation: int) -> Iterator[str]:
    spec = plan.spec
    trainer: dict[str, object] = {"devices": devices}
    if devices > 1:
        trainer["strategy"] = "ddp"
    trainer |= {
        "accumulate_grad_batches": accumulation,
        "max_steps": plan.total,
        "precision": PRECISIONS[spec.training.precision],
        "gradient_clip_val": spec.optimizer.clip_norm,
    }
    yield _set_tf32(spec)
    yield "# Trainer(**trainer), DataLoader(dataset, **dataloader), and configure_optimizers in the LightningModule."
    yield from _call("trainer", trainer)
    yield from _call("dataloader", {"batch_size": per_device, "shuffle": True})
    yield from _learning_rate_factor(plan)
    yield from ("", "", "def configure_optimizers(self):")
    yield from _optimizer(spec, "self")
    yield from _scheduler(plan)
    if _is_constant(plan):
        yield "    return optimizer"
    else:
        yield '    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}'


def _torchrun(plan: StepPlan, devices: int, per_device: int, accumulation: int) -> Iterator[str]:
    spec = plan.spec
    yield f"# torchrun --standalone --nproc-per-node={devices} train.py"
    yield _set_tf32(spec)
    yield f"per_device_batch_size = {per_device}  # of the DataLoader of each process"
    yield f"accumulation_steps = {accumulation}  # divide each loss by it, and step after so many batches"
    yield f"max_steps = {plan.total}"
    yield f"clip_norm = {spec.optimizer.clip_norm!r}  # of torch.nn.utils.clip_grad_norm_ before each step; None: never"
    autocast = "torch.bfloat16" if spec.training.precision == "bf16" else None
    yield f"autocast_dtype = {autocast}  # of torch.autocast around the forward pass; None: without it"
    yield from _learning_rate_factor(plan)
    yield from ("", "", "def build_optimizer(model):")
    yield from _optimizer(spec, "model")
    yield from _scheduler(plan)
    yield (
        "    return optimizer"
        if _is_constant(plan)
        else "    return optimizer, scheduler  # step both after accumulation_steps batches"
    )


def _hugging_face(plan: StepPlan, devices: int, per_device: int, accumulation: int) -> Iterator[str]:
    spec, optimizer = plan.spec, plan.spec.optimizer
    arguments: dict[str, object] = {
        "per_device_train_batch_size": per_device,
        "gradient_accumulation_steps": accumulation,
        "max_steps": plan.total,
        "learning_rate": spec.learning_rate,
        "max_grad_norm": optimizer.clip_norm or 0.0,
        "bf16": spec.training.precision == "bf16",
        "tf32": spec.training.precision == "tf32",
    }
    reasons = [reason for reason in (_explain_own_optimizer(spec), _explain_own_schedule(plan)) if reason]
    yield f"# TrainingArguments(output_dir, **arguments), started by: torchrun --nproc-per-node={devices} train.py"
    if not reasons:
        arguments |= _adam_arguments(spec) | _schedule_arguments(plan)
        if plan.warmup:
            yield "# Not expressed: the warm-up of the study reached the learning rate one step earlier."
        if not optimizer.decay_biases_and_norms:
            yield "# The Trainer finds the biases and normalization layers without weight decay by their names."
        yield from _call("arguments", arguments)
        return
    for reason in reasons:
        yield f"# Not expressed by TrainingArguments: {reason}. Use Trainer(..., optimizers=build_optimizers(model))."
    yield from _call("arguments", arguments)
    yield from _learning_rate_factor(plan)
    yield from ("", "", "def build_optimizers(model):")
    yield from _optimizer(spec, "model")
    yield from _scheduler(plan) or [
        "    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)",
    ]
    yield "    return optimizer, scheduler"


def _explain_own_optimizer(spec: RunSpec) -> str:
    """Return why TrainingArguments do not express the optimizer; empty if they do."""
    optimizer = spec.optimizer
    values = known_hyperparameters(optimizer.name, optimizer.arguments)
    if optimizer.is_own:
        return "the optimizer of configure_optimizers"
    if optimizer.name not in ("Adam", "AdamW"):
        return f"{optimizer.name} with its arguments"
    if others := sorted(set(optimizer.arguments) - ADAM_ARGUMENTS):
        return f"{optimizer.name} with {', '.join(others)}"
    if not values["weight_decay"]:
        return ""
    if optimizer.name == "Adam":
        return "the weight decay of Adam, which is part of its gradient"
    return "the weight decay of biases and normalization layers" if optimizer.decay_biases_and_norms else ""


def _explain_own_schedule(plan: StepPlan) -> str:
    """Return why TrainingArguments do not express the schedule; empty if they do."""
    schedule = plan.spec.schedule
    if schedule.decay == "constant":
        return ""
    is_full = _decay_start(plan) == plan.warmup
    if is_full and (schedule.decay == "cosine" or (schedule.decay == "linear" and schedule.final_factor == 0)):
        return ""
    part = "" if is_full else " at the end of training"
    return f"a {schedule.decay} decay to {schedule.final_factor:g}{part}"


def _adam_arguments(spec: RunSpec) -> dict[str, object]:
    values = known_hyperparameters(spec.optimizer.name, spec.optimizer.arguments)
    betas = {f"adam_{name}": values[name] for name in BETAS}
    # Without weight decay, Adam is AdamW.
    return {"optim": "adamw_torch", **betas, "adam_epsilon": values["eps"], "weight_decay": values["weight_decay"]}


def _schedule_arguments(plan: StepPlan) -> dict[str, object]:
    schedule, warmup = plan.spec.schedule, plan.warmup
    if schedule.decay == "constant":
        return {"lr_scheduler_type": "constant_with_warmup" if warmup else "constant", "warmup_steps": warmup}
    if schedule.final_factor:
        kwargs = {"min_lr_rate": schedule.final_factor}
        return {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": kwargs, "warmup_steps": warmup}
    return {"lr_scheduler_type": schedule.decay, "warmup_steps": warmup}
