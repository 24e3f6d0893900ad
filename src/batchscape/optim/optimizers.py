"""Construction of optimizers, by name or import path, and the check that a run with one resumes bit for bit."""

import copy
import difflib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from safetensors.numpy import load, save
from torch import Tensor, nn
from torch.optim import Optimizer

from batchscape.config.optimizer import OptimizerConfig
from batchscape.errors import UserError, is_out_of_memory
from batchscape.optim.state import IMPLEMENTATION, optimizer_arrays, restore_optimizer
from batchscape.runtime.randomness import seed_global_rngs
from batchscape.runtime.user_code import import_object, summarize_error

NAME, ARGUMENTS = "optimizer.name", "optimizer.arguments"
# With fixed gradients: small enough for all optimizers of torch, and different in each step, as with a schedule.
CHECK_RATES = (1e-3, 8e-4, 9e-4, 5e-4, 7e-4, 3e-4)
# Steps that are compared if an attribute is lost: it may act only in some, such as every tenth one.
NUM_STEPS_WITHOUT_ATTRIBUTE = 100


def build_optimizer(network: nn.Module, config: OptimizerConfig, learning_rate: float) -> Optimizer:
    """Return the optimizer of all parameters of a network.

    Args:
        network: The network, on the device on which it trains.
        config: Section `optimizer` of the study file.
        learning_rate: Learning rate of the run.

    Returns:
        The optimizer. Its parameters are in the network's order; without decay of biases and norms, those with at least
        two dimensions are its first group, and all others its second one. The optimizer of a LightningModule has groups
        of its own, whose learning rates are scaled such that the largest is that of the run.

    Raises:
        UserError: There is no such optimizer, it does not accept the arguments, or it cannot train any network here.
    """
    if config.is_own:
        return _build_own(network, learning_rate)
    create = _find(config.name)
    arguments = _check_arguments(create, config)
    parameters = list(network.parameters())

    def construct(arguments: Mapping[str, Any]) -> Any:
        return create(_groups(parameters, config.decay_biases_and_norms), lr=learning_rate, **arguments)

    try:
        if _supports_fused(create, arguments, parameters):
            optimizer = construct({**arguments, "fused": True})
        else:
            optimizer = construct(arguments)
    except (Exception, SystemExit) as error:  # custom code can raise anything
        if isinstance(error, UserError) or is_out_of_memory(error):
            raise
        raise _explain_refusal(construct, config.name, arguments, error)
    _check_kind(optimizer, config.name)
    if not config.decay_biases_and_norms and "weight_decay" not in optimizer.defaults:
        raise UserError(
            f"optimizer.decay_biases_and_norms: {config.name} has no weight_decay to exempt them from; remove the key"
        )
    return optimizer


def _build_own(network: nn.Module, learning_rate: float) -> Optimizer:
    """Return the optimizer that `configure_optimizers` of a network returns, at a learning rate."""
    configure = getattr(network, "configure_optimizers", None)
    if not callable(configure):
        raise UserError(
            f"{NAME}: module, but the network is no LightningModule with configure_optimizers; name an optimizer"
        )
    with _reported("configure_optimizers", "fails"):
        returned = configure()
    optimizer = _only_optimizer(returned)
    _check_kind(optimizer, "configure_optimizers")
    own = set(map(id, network.parameters()))
    if not all(id(parameter) in own for parameter in _all_parameters(optimizer)):
        raise UserError(
            f"{NAME}: the optimizer of configure_optimizers has parameters that are not those of the module; give it "
            "self.parameters(), or groups of these"
        )
    rates = [float(group.get("lr", 0)) for group in optimizer.param_groups]
    if not max(rates) > 0:
        raise UserError(
            f"{NAME}: the optimizer of configure_optimizers has no learning rate above 0, which the rates of the study "
            "could replace; give it an `lr`, such as 0.001"
        )
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        for key, problem in _REFUSED.items():
            if group.get(key):
                raise UserError(f"{NAME}: configure_optimizers sets {key}, which {problem}; remove it")
        group["lr"] = learning_rate * (rate / max(rates))
    return optimizer


def _only_optimizer(returned: Any) -> Any:
    """Return the optimizer among what `configure_optimizers` may return. Raises UserError for anything beside it."""
    if isinstance(returned, Mapping):
        if any("scheduler" in str(key) for key in returned):
            raise _own_schedule()
        return returned.get("optimizer")
    if isinstance(returned, tuple | list):
        if len(returned) == 2 and all(isinstance(part, tuple | list) for part in returned):  # optimizers and schedulers
            if returned[1]:
                raise _own_schedule()
            returned = returned[0]
        if len(returned) != 1:
            raise UserError(
                f"{NAME}: configure_optimizers returns {len(returned)} optimizers, and training takes steps with one; "
                "return one, with groups of parameters where their arguments differ"
            )
        return _only_optimizer(returned[0])
    return returned


def _own_schedule() -> UserError:
    return UserError(
        f"{NAME}: configure_optimizers returns a scheduler of the learning rate, and the study sets the rate of each "
        "step; return the optimizer alone, and write the section `schedule`, such as `{decay: cosine}`"
    )


def _groups(parameters: list[nn.Parameter], decay_biases_and_norms: bool) -> list[Any]:
    """Return the parameters, or groups of them that are new dicts, since constructors write into these."""
    if decay_biases_and_norms:
        return list(parameters)
    decayed = [parameter for parameter in parameters if parameter.dim() >= 2]
    exempt = [parameter for parameter in parameters if parameter.dim() < 2]
    groups = {"params": decayed}, {"params": exempt, "weight_decay": 0.0}
    return [group for group in groups if group["params"]]


def _find(name: str) -> Callable[..., Any]:
    """Return the optimizer class, or a function that returns an optimizer."""
    if ":" in name:
        create = import_object(name, NAME)
    else:
        create = vars(torch.optim).get(name)  # type: ignore[assignment]
        if not (isinstance(create, type) and issubclass(create, Optimizer) and create is not Optimizer):
            names = {known.lower(): known for known in _names()}
            nearest = difflib.get_close_matches(name.lower(), names, n=1)
            hint = f"did you mean {names[nearest[0]]}?" if nearest else f"there are {', '.join(names.values())}"
            raise UserError(f"{NAME}: torch.optim has no optimizer {name}; {hint}")
    if isinstance(create, type):
        _check_class(create, name)
    if "lr" not in (known := _parameters(create)) and not _takes_any_keyword(known):
        raise UserError(
            f"{NAME}: {name} has no parameter lr, and so cannot have the learning rate of the run; choose another one"
        )
    return create


def _names() -> list[str]:
    """Return the optimizers of torch that can train here."""
    classes = {key: value for key, value in vars(torch.optim).items() if isinstance(value, type)}
    return sorted(
        key
        for key, value in classes.items()
        if issubclass(value, Optimizer)
        and value is not Optimizer
        and not _needs_closure(value)
        and not _is_sparse(value)
    )


def _needs_closure(optimizer: type[Optimizer]) -> bool:
    parameters = list(inspect.signature(optimizer.step).parameters.values())[1:]
    return any(
        parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        for parameter in parameters
    )


def _is_sparse(optimizer: type[Optimizer]) -> bool:
    return issubclass(optimizer, torch.optim.SparseAdam)


def _check_class(optimizer: type, name: str) -> None:
    """Raise UserError for a class that cannot train any network here."""
    if not issubclass(optimizer, Optimizer):
        raise UserError(f"{NAME}: {name} is not a subclass of torch.optim.Optimizer; derive it from that class")
    if _needs_closure(optimizer):
        raise UserError(
            f"{NAME}: {name} evaluates the loss several times a step, with a closure, which training does not give it; "
            "choose one whose step needs no argument, such as SGD or AdamW"
        )
    if _is_sparse(optimizer):
        raise UserError(f"{NAME}: {name} needs sparse gradients, and those of all networks here are dense; write Adam")


def _check_kind(optimizer: Any, name: str) -> None:
    """Raise UserError for what a function has returned, if it is no optimizer that can train a network here."""
    if not isinstance(optimizer, Optimizer):
        raise UserError(
            f"{NAME}: {name} returns {type(optimizer).__name__}, not an optimizer; return a torch.optim.Optimizer"
        )
    _check_class(type(optimizer), name)


def _parameters(create: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters of a class or function by name; empty if they are unknown."""
    try:
        return dict(inspect.signature(create).parameters)
    except (TypeError, ValueError):  # it has none that can be inspected
        return {"arguments": inspect.Parameter("arguments", inspect.Parameter.VAR_KEYWORD)}


def _takes_any_keyword(known: Mapping[str, inspect.Parameter]) -> bool:
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())


def _check_arguments(create: Callable[..., Any], config: OptimizerConfig) -> dict[str, Any]:
    """Return the arguments with tuples for lists, as torch has them.

    Raises:
        UserError: One is unknown, missing, of another type than its default, or not the user's to give.
    """
    name, known = config.name, _parameters(create)
    first = next(iter(known))
    others = [key for key, parameter in known.items() if parameter.kind in _KEYWORD_KINDS and key not in (first, "lr")]
    arguments = {}
    for key, value in config.arguments.items():
        if key == "lr":
            raise UserError(f"{ARGUMENTS}.lr: the learning rate is that of the run; remove it")
        if key in (first, "params"):
            raise UserError(f"{ARGUMENTS}.{key}: the parameters are those of the network; remove it")
        if key not in known and not _takes_any_keyword(known):
            given = [other for other in others if other not in _REFUSED]
            nearest = difflib.get_close_matches(key, given, n=1)
            hint = f"did you mean {nearest[0]}? " if nearest else ""
            takes = f"it takes {', '.join(given)}" if given else "it takes none"
            raise UserError(f"{ARGUMENTS}.{key}: is not an argument of {name}; {hint}{takes}")
        if key in _REFUSED and value:
            raise UserError(f"{ARGUMENTS}.{key}: {_REFUSED[key]}; remove it")
        default = known[key].default if key in known else None
        if problem := _describe_type_mismatch(default, value):
            raise UserError(f"{ARGUMENTS}.{key}: {problem}, got {json.dumps(value)}")
        arguments[key] = _with_tuples(value, default)
    for key in others:
        if known[key].default is inspect.Parameter.empty and key not in arguments:
            raise UserError(f"{ARGUMENTS}: {name} needs {key}, which has no default; add it to them")
    return arguments


_KEYWORD_KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_REFUSED = {
    "maximize": "would make training increase the loss",
    "capturable": "is for CUDA graphs, which training does not use",
    "differentiable": "is for gradients through a step, which training does not compute",
}


def _with_tuples(value: Any, default: Any = None) -> Any:
    """Return a value of JSON with tuples for lists, and with floats for integers where a default has floats in them."""
    if isinstance(value, list | tuple):
        defaults = default if isinstance(default, tuple) and len(default) == len(value) else (None,) * len(value)
        return tuple(
            float(part) if isinstance(usual, float) and _is_number(part) else _with_tuples(part)
            for part, usual in zip(value, defaults, strict=True)
        )
    return value


def _describe_type_mismatch(default: Any, value: Any) -> str:
    """Return why a value cannot replace a default, such as the text "false", which would count as true; or nothing."""
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else "must be true or false"
    if isinstance(default, int | float):
        return "" if _is_number(value) else "must be a number, such as 0.001 or 1.0e-3"
    if isinstance(default, tuple) and all(part is None or _is_number(part) for part in default):
        is_like = isinstance(value, list | tuple) and len(value) == len(default)
        is_like = is_like and all(part is None or _is_number(part) for part in value)
        return "" if is_like else f"must be a list of {len(default)} numbers, such as {json.dumps(default)}"
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _explain_refusal(
    construct: Callable[[Mapping[str, Any]], Any], name: str, arguments: Mapping[str, Any], error: BaseException
) -> UserError:
    """Return the error for a construction that fails, with the argument without which it does not."""

    def attempt(some: Mapping[str, Any]) -> str:
        try:
            construct(some)
        except (Exception, SystemExit) as error:
            return summarize_error(error)
        return ""

    problem = summarize_error(error)
    for key, value in arguments.items():
        if not attempt({other: arguments[other] for other in arguments if other != key}):
            return UserError(f"{ARGUMENTS}.{key}: {name} refuses {json.dumps(value)}: {problem}; change it")
    if attempt({}) == problem:
        return UserError(f"{NAME}: {name} cannot be constructed: {problem}; correct it or choose another one")
    return UserError(f"{ARGUMENTS}: {name} refuses them: {problem}; change them")


def _supports_fused(create: Callable[..., Any], arguments: Mapping[str, Any], parameters: list[nn.Parameter]) -> bool:
    """Return whether there is a fused implementation for the parameters, found by a step with one of each kind."""
    if "fused" not in _parameters(create) or any(key in arguments for key in IMPLEMENTATION):
        return False
    kinds = {(parameter.device, parameter.dtype, parameter.dim()) for parameter in parameters}
    try:
        for device, dtype, dim in kinds:
            parameter = nn.Parameter(torch.zeros((1,) * dim, device=device, dtype=dtype))
            parameter.grad = torch.zeros_like(parameter)
            create([parameter], lr=0.001, **arguments, fused=True).step()
    except (Exception, SystemExit) as error:  # if it is not because of `fused`, it fails without it too
        if is_out_of_memory(error):
            raise
        return False
    return True


def check_resume(config: OptimizerConfig, network: nn.Module | None = None) -> None:
    """Raise UserError unless a run with the optimizer resumes bit for bit from what a checkpoint has of its state.

    A small network, or a copy of the network if it configures the optimizer, is trained with fixed gradients, with a
    restored copy of the optimizer from the third step on.

    Args:
        config: Section `optimizer` of the study file.
        network: The network, which is left unchanged; only needed if it configures the optimizer.

    Raises:
        UserError: The optimizer cannot be built, fails, writes NaN, or continues differently from its saved state.
    """
    with seed_global_rngs(0), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        trained, optimizer = _build_for_check(config, network)
        with _reported(config.name, "fails in a step"):
            for step in range(3):
                _take_step(trained, optimizer, step, CHECK_RATES[step])
        if not all(parameter.isfinite().all() for parameter in trained.parameters()):
            raise UserError(
                f"{NAME}: {config.name} makes weights NaN or infinite from finite gradients, at a learning rate of "
                f"{CHECK_RATES[0]}; correct it, or {ARGUMENTS}"
            )
        twin = copy.deepcopy(trained)
        with _reported(config.name, "cannot be saved and restored"):
            arrays, values = optimizer_arrays(optimizer)
            data, text = save(arrays), json.dumps(values)
            restored = build_optimizer(twin, config, CHECK_RATES[0])
            restore_optimizer(restored, load(data), json.loads(text))
        difference = _changed_state(optimizer, restored)
        attribute = _changed_attribute(optimizer, restored)
        with _reported(config.name, "fails in a step after its state is restored"):
            for step in range(3, NUM_STEPS_WITHOUT_ATTRIBUTE if attribute else len(CHECK_RATES)):
                rate = CHECK_RATES[step % len(CHECK_RATES)]
                _take_step(trained, optimizer, step, rate)
                _take_step(twin, restored, step, rate)
    pairs = zip(trained.parameters(), twin.parameters(), strict=True)
    later = _changed_state(optimizer, restored)
    if not difference and (later or not all(torch.equal(first, second) for first, second in pairs)):
        difference = attribute or later or "its steps depend on more than its state_dict"
    if difference:
        raise UserError(
            f"{NAME}: a run with {config.name} cannot resume: {difference}; keep all that its steps depend on as "
            "tensors and numbers in `self.state` or `self.param_groups`"
        )


def check_optimizer_step(network: nn.Module, config: OptimizerConfig) -> None:
    """Raise UserError unless the optimizer can be built for a network and take steps, on the network's device.

    Args:
        network: The network, whose weights change, and which is left with gradients.
        config: Section `optimizer` of the study file.

    Raises:
        UserError: The optimizer cannot be built, or fails.
    """
    with seed_global_rngs(0), torch.random.fork_rng(devices=[]):
        optimizer = build_optimizer(network, config, CHECK_RATES[0])
        with _reported(config.name, "fails in a step"):
            for rate in CHECK_RATES[:2]:
                for parameter in network.parameters():
                    parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
                for group in optimizer.param_groups:
                    group["lr"] = rate
                optimizer.step()


def check_schedule(config: OptimizerConfig, network: nn.Module | None = None) -> None:
    """Raise UserError if changes of the learning rate in `param_groups` do not reach the steps of the optimizer.

    Of the optimizers of torch this is the case for Rprop, for which it is only the size of the first step. To be called
    if the learning rate has a warm-up or decays.

    Args:
        config: Section `optimizer` of the study file.
        network: The network, which is left unchanged; only needed if it configures the optimizer.

    Raises:
        UserError: As described, or the optimizer cannot be built or fails.
    """
    weights = []
    for rates in ((1e-3, 1e-3, 1e-3, 1e-3), (1e-3, 1e-3, 5e-4, 2e-4)):  # averaged SGD uses a rate one step later
        with seed_global_rngs(0), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            trained, optimizer = _build_for_check(config, network)
            with _reported(config.name, "fails in a step"):
                for step, rate in enumerate(rates):
                    _take_step(trained, optimizer, step, rate)
        weights.append(torch.cat([parameter.detach().flatten() for parameter in trained.parameters()]))
    if torch.equal(*weights):
        raise UserError(
            f"{NAME}: {config.name} does not follow the learning rate in its param_groups, so warm-up and decay "
            "would have no effect; remove them, or choose another optimizer"
        )


def _build_for_check(config: OptimizerConfig, network: nn.Module | None) -> tuple[nn.Module, Optimizer]:
    """Return a small network with all kinds of parameters, in the memory layout of training, and its optimizer.

    If the optimizer refuses that, as Muon does, which is for matrices alone, a network without the other parameters. A
    copy of the network, on the CPU, if it configures the optimizer.
    """
    if config.is_own:
        if network is None:
            raise TypeError("the optimizer of a network needs the network")
        replica = copy.deepcopy(network).cpu()
        return replica, build_optimizer(replica, config, CHECK_RATES[0])
    all_kinds: Any = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Linear(7, 5))
    all_kinds = all_kinds.to(memory_format=torch.channels_last)
    try:
        return all_kinds, build_optimizer(all_kinds, config, CHECK_RATES[0])
    except UserError as error:
        matrices = nn.Sequential(nn.Linear(5, 4, bias=False), nn.Linear(4, 3, bias=False))
        try:
            return matrices, build_optimizer(matrices, config, CHECK_RATES[0])
        except UserError:
            raise error


def _take_step(network: nn.Module, optimizer: Optimizer, step: int, learning_rate: float) -> None:
    """Take a step with gradients and random states that depend on the step alone, as in training."""
    generator = torch.Generator().manual_seed(step)
    for parameter in filter(lambda parameter: parameter.requires_grad, network.parameters()):
        gradient = torch.randn(parameter.shape, generator=generator)
        parameter.grad = torch.empty_like(parameter).copy_(gradient)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    torch.default_generator.manual_seed(step)
    with seed_global_rngs(step):
        optimizer.step()


@contextmanager
def _reported(name: str, problem: str) -> Iterator[None]:
    """Report errors of an optimizer as errors of the study."""
    try:
        yield
    except (Exception, SystemExit) as error:  # custom code can raise anything
        if isinstance(error, UserError) or is_out_of_memory(error):
            raise
        raise UserError(f"{NAME}: {name} {problem}: {summarize_error(error)}; correct it or choose another one")


def _changed_state(optimizer: Optimizer, restored: Optimizer) -> str:
    """Return which value of the state differs, or nothing; a few steps may not show it in the weights."""
    pairs = zip(_all_parameters(optimizer), _all_parameters(restored), strict=True)
    for index, (parameter, twin) in enumerate(pairs):
        before, after = optimizer.state.get(parameter, {}), restored.state.get(twin, {})
        for key, value in before.items():
            if key in after and not _is_equal(value, after[key]):
                return f"{key!r} in the state of parameter {index} differs after it is restored"
    return ""


def _all_parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _changed_attribute(optimizer: Optimizer, restored: Optimizer) -> str:
    """Return which attribute of its own, with a value that could be in the state, an optimizer loses; or nothing."""
    usual = vars(torch.optim.SGD([torch.zeros(1)], lr=0.1))
    for key, value in vars(optimizer).items():
        is_data = isinstance(value, Tensor | bool | int | float | str | list | tuple | dict)
        if key not in usual and is_data and not _is_equal(value, vars(restored).get(key)):
            return f"its attribute {key} is not saved"
    return ""


def _is_equal(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    return repr(first) == repr(second)
