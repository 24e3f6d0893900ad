"""Optimizers by name and import path."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from batchscape.config.optimizer import OptimizerConfig
from batchscape.optim.optimizers import build_optimizer, check_optimizer_step, check_resume, check_schedule

# All of torch 2.13 that train here; older versions lack some.
NAMES = ["ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Muon", "NAdam", "RAdam", "RMSprop"]
NAMES = [name for name in [*NAMES, "Rprop", "SGD"] if hasattr(torch.optim, name)]

MODULE = '''
import torch
from torch.optim import Optimizer


class Lion(Optimizer):
    """Chen et al. 2023."""

    def __init__(self, params, lr, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            first, second = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(momentum.lerp(parameter.grad, 1 - first).sign_(), alpha=-group["lr"])
                momentum.lerp_(parameter.grad, 1 - second)


class Listed(Lion):
    """Keeps a list in its state."""

    def step(self, closure=None):
        super().step()
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter].setdefault("norms", []).append(parameter.norm().item())


class Counting(Optimizer):
    """Keeps the step, on which the rate depends, in an attribute."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})
        self.calls = 0

    @torch.no_grad()
    def step(self, closure=None):
        self.calls += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.add_(parameter.grad, alpha=-group["lr"] / self.calls)


class Lookahead(torch.optim.SGD):
    """Averages with slow weights in every tenth step (Zhang et al. 2019), counted in an attribute."""

    def __init__(self, params, lr):
        super().__init__(params, lr)
        self.calls = 0

    @torch.no_grad()
    def step(self, closure=None):
        super().step()
        self.calls += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                slow = self.state[parameter].setdefault("slow", parameter.clone())
                if self.calls % 10 == 0:
                    parameter.copy_(slow.lerp_(parameter, 0.5))


class Watched(Lion):
    """Counts its steps, on which nothing depends."""

    calls = 0

    def step(self, closure=None):
        self.calls += 1
        super().step()


class Hidden(Optimizer):
    """Keeps the step where nobody looks."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})
        self.calls = iter(range(1, 100))

    @torch.no_grad()
    def step(self, closure=None):
        call = next(self.calls)
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.add_(parameter.grad, alpha=-group["lr"] / call)


class Forgetful(Lion):
    """Saves no state."""

    def state_dict(self):
        return {**super().state_dict(), "state": {}}


class Rounding(Lion):
    """Saves the state with fewer bits."""

    def state_dict(self):
        state_dict = super().state_dict()
        state = {
            index: {key: value.bfloat16().float() for key, value in entries.items()}
            for index, entries in state_dict["state"].items()
        }
        return {**state_dict, "state": state}


class Random(Lion):
    """Draws noise in each step."""

    @torch.no_grad()
    def step(self, closure=None):
        super().step()
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.add_(torch.randn_like(parameter), alpha=1e-3)


class Fixed(Lion):
    """Uses the learning rate of its construction."""

    def __init__(self, params, lr):
        super().__init__(params, lr)
        self.lr = lr

    def step(self, closure=None):
        for group in self.param_groups:
            group["lr"] = self.lr
        super().step()


class Diverging(Lion):
    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.div_(0.0)


class Failing(Lion):
    def step(self, closure=None):
        raise RuntimeError("no\\nstep")


class Closing(Lion):
    def step(self, closure):
        closure()


class Undecayed(Optimizer):
    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})


class Needy(Lion):
    def __init__(self, params, lr, base):
        super().__init__(params, lr)


class Rateless(Lion):
    def __init__(self, params, betas=(0.9, 0.99)):
        super().__init__(params, 0.1)


class Picky(Lion):
    def __init__(self, params, lr, **others):
        assert others.get("size", 0) < 5, "too large"
        super().__init__(params, lr)


class NotAnOptimizer:
    def __init__(self, params, lr):
        pass


def make(weights, lr, momentum=0.5):
    return torch.optim.SGD(weights, lr=lr, momentum=momentum)


def make_nothing(weights, lr):
    return None


def make_lbfgs(weights, lr):
    return torch.optim.LBFGS(weights, lr=lr)


number = 3
'''


@pytest.fixture(autouse=True)
def own(write_module: Callable) -> None:
    write_module("own.py", MODULE)


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(6, 5))
    return layers.to(memory_format=torch.channels_last)


def config(name: str, decay_biases_and_norms: bool = True, **arguments: Any) -> OptimizerConfig:
    return OptimizerConfig(name=name, arguments=arguments, decay_biases_and_norms=decay_biases_and_norms)


def train(layers: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for parameter in layers.parameters():
            parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape, generator=generator))
        optimizer.step()
    return [parameter.detach() for parameter in layers.parameters()]


def assert_trains_as(built: OptimizerConfig, create: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> None:
    layers, reference = network(), network()
    actual = train(layers, build_optimizer(layers, built, 0.01))
    expected = train(reference, create(list(reference.parameters())))
    assert all(torch.equal(first, second) for first, second in zip(actual, expected, strict=True))


def test_default_is_the_sgd_of_before_bit_for_bit():
    layers = network()
    optimizer = build_optimizer(layers, OptimizerConfig(), 0.1)
    assert type(optimizer) is torch.optim.SGD
    expected = torch.optim.SGD(layers.parameters(), lr=0.1, momentum=0.0, weight_decay=0.0, fused=True)
    assert optimizer.state_dict() == expected.state_dict()
    assert optimizer.param_groups[0]["params"] == list(layers.parameters())
    assert_trains_as(
        OptimizerConfig(), lambda weights: torch.optim.SGD(weights, lr=0.01, momentum=0.0, weight_decay=0.0, fused=True)
    )


def test_arguments_reach_the_optimizer_with_lists_as_tuples():
    optimizer = build_optimizer(network(), config("AdamW", betas=[0, 0.95], weight_decay=0.3, eps=1e-6), 0.02)
    group = optimizer.param_groups[0]
    assert group["betas"] == (0.0, 0.95)
    assert (group["lr"], group["weight_decay"], group["eps"]) == (0.02, 0.3, 1e-6)
    assert_trains_as(
        config("Adafactor", eps=[None, 1e-4]), lambda weights: torch.optim.Adafactor(weights, lr=0.01, eps=(None, 1e-4))
    )


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "Adagrad"])
def test_fused_implementation_is_used_unless_another_is_asked_for(name: str):
    assert build_optimizer(network(), config(name), 0.01).param_groups[0]["fused"] is True
    for key in ("fused", "foreach", "differentiable"):
        assert not build_optimizer(network(), config(name, **{key: False}), 0.01).param_groups[0]["fused"]


def test_parameters_without_a_fused_implementation_get_another_one():
    layers = nn.ParameterList([nn.Parameter(torch.ones(2, dtype=torch.complex64))])
    optimizer = build_optimizer(layers, OptimizerConfig(), 0.01)
    assert not optimizer.param_groups[0]["fused"]
    train(layers, optimizer)


def test_frozen_parameters_are_in_the_optimizer():
    layers = network()
    layers[0].weight.requires_grad = False
    optimizer = build_optimizer(layers, config("Adam"), 0.01)
    assert optimizer.param_groups[0]["params"] == list(layers.parameters())


@pytest.mark.parametrize("name", ["AdamW", "SGD"])
def test_biases_and_norms_can_be_exempt_from_decay(name: str):
    """Without gradients, only the decay moves weights: AdamW and SGD multiply them by 1 − η·λ in a step."""
    layers = network()
    optimizer = build_optimizer(layers, config(name, False, weight_decay=0.5), 0.1)
    for parameter in layers.parameters():
        nn.init.constant_(parameter, 2.0)
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert {id(parameter) for group in optimizer.param_groups for parameter in group["params"]} == {
        id(parameter) for parameter in layers.parameters()
    }
    for parameter in layers.parameters():
        expected = 2.0 * (1 - 0.1 * 0.5) if parameter.dim() >= 2 else 2.0
        torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, expected))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(layers.parameters()))


def test_decay_of_all_parameters_is_the_default():
    layers = network()
    optimizer = build_optimizer(layers, config("AdamW"), 0.1)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01]


def test_networks_of_one_kind_of_parameters_have_one_group():
    layers = nn.Linear(3, 2, bias=False)
    optimizer = build_optimizer(layers, config("AdamW", False), 0.1)
    assert [len(group["params"]) for group in optimizer.param_groups] == [1]
    optimizer = build_optimizer(nn.BatchNorm1d(3), config("AdamW", False), 0.1)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0]


def test_class_and_function_by_import_path():
    optimizer = build_optimizer(network(), config("own:Lion", betas=[0.5, 0.6]), 0.01)
    assert type(optimizer).__name__ == "Lion"
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.6)
    assert_trains_as(config("own:make"), lambda weights: torch.optim.SGD(weights, lr=0.01, momentum=0.5))
    assert_trains_as(config("torch.optim:Adam"), lambda weights: torch.optim.Adam(weights, lr=0.01, fused=True))
    assert build_optimizer(network(), config("own:Picky", size=4), 0.01).defaults["lr"] == 0.01


ARGUMENTS = "optimizer.arguments"
BAD = [
    ("adamw", {}, "optimizer.name: torch.optim has no optimizer adamw; did you mean AdamW?"),
    ("Lion", {}, "optimizer.name: torch.optim has no optimizer Lion; "),
    ("Optimizer", {}, "optimizer.name: torch.optim has no optimizer Optimizer; "),
    ("lr_scheduler", {}, "optimizer.name: torch.optim has no optimizer lr_scheduler; "),
    ("LBFGS", {}, "optimizer.name: LBFGS evaluates the loss several times a step, with a closure, "),
    ("SparseAdam", {}, "optimizer.name: SparseAdam needs sparse gradients, "),
    ("SGD", {"momentun": 0.9}, f"{ARGUMENTS}.momentun: is not an argument of SGD; did you mean momentum? it takes "),
    ("SGD", {"betas": [0.9, 0.9]}, f"{ARGUMENTS}.betas: is not an argument of SGD; it takes momentum, dampening, "),
    ("SGD", {"lr": 0.1}, f"{ARGUMENTS}.lr: the learning rate is that of the run; remove it"),
    ("SGD", {"params": [1]}, f"{ARGUMENTS}.params: the parameters are those of the network; remove it"),
    ("SGD", {"maximize": True}, f"{ARGUMENTS}.maximize: would make training increase the loss; remove it"),
    ("Adam", {"capturable": True}, f"{ARGUMENTS}.capturable: is for CUDA graphs, which training does not use; "),
    ("Adam", {"differentiable": True}, f"{ARGUMENTS}.differentiable: is for gradients through a step, "),
    ("SGD", {"momentum": -1}, f"{ARGUMENTS}.momentum: SGD refuses -1: ValueError: Invalid momentum value: -1; change"),
    ("SGD", {"momentum": "0.9"}, f'{ARGUMENTS}.momentum: must be a number, such as 0.001 or 1.0e-3, got "0.9"'),
    ("SGD", {"momentum": True}, f"{ARGUMENTS}.momentum: must be a number, such as 0.001 or 1.0e-3, got true"),
    ("SGD", {"momentum": None}, f"{ARGUMENTS}.momentum: must be a number, such as 0.001 or 1.0e-3, got null"),
    ("SGD", {"momentum": 0.9, "nesterov": "false"}, f'{ARGUMENTS}.nesterov: must be true or false, got "false"'),
    ("SGD", {"nesterov": True}, f"{ARGUMENTS}.nesterov: SGD refuses true: ValueError: Nesterov momentum requires a"),
    (
        "SGD",
        {"nesterov": True, "momentum": 0.9, "weight_decay": -1},
        f"{ARGUMENTS}.weight_decay: SGD refuses -1: ValueError: Invalid weight_decay value: -1; change it",
    ),
    ("SGD", {"momentum": -1, "dampening": 0, "weight_decay": -1}, f"{ARGUMENTS}: SGD refuses them: ValueError: "),
    ("Adam", {"betas": 0.9}, f"{ARGUMENTS}.betas: must be a list of 2 numbers, such as [0.9, 0.999], got 0.9"),
    ("Adam", {"betas": [0.9]}, f"{ARGUMENTS}.betas: must be a list of 2 numbers, such as [0.9, 0.999], got [0.9]"),
    ("Adam", {"betas": [0.9, 0.99, 0.999]}, f"{ARGUMENTS}.betas: must be a list of 2 numbers, "),
    ("Adam", {"betas": [0.9, "0.99"]}, f"{ARGUMENTS}.betas: must be a list of 2 numbers, "),
    ("Adam", {"betas": [0.9, 1.5]}, f"{ARGUMENTS}.betas: Adam refuses [0.9, 1.5]: ValueError: Invalid beta parameter"),
    ("Adam", {"fused": True, "foreach": True}, f"{ARGUMENTS}.fused: Adam refuses true: RuntimeError: "),
    ("own:Missing", {}, "optimizer.name: Missing does not exist in own.py; check the name after the colon"),
    ("own:number", {}, "optimizer.name: number is not a class or function in own.py; "),
    ("elsewhere:Lion", {}, "optimizer.name: there is no module elsewhere; "),
    ("own:NotAnOptimizer", {}, "optimizer.name: own:NotAnOptimizer is not a subclass of torch.optim.Optimizer; "),
    ("torch.nn:Linear", {}, "optimizer.name: torch.nn:Linear is not a subclass of torch.optim.Optimizer; "),
    ("torch.optim:LBFGS", {}, "optimizer.name: torch.optim:LBFGS evaluates the loss several times a step, "),
    ("own:make_lbfgs", {}, "optimizer.name: own:make_lbfgs evaluates the loss several times a step, "),
    ("own:Closing", {}, "optimizer.name: own:Closing evaluates the loss several times a step, "),
    ("own:make_nothing", {}, "optimizer.name: own:make_nothing returns NoneType, not an optimizer; "),
    ("own:make", {"weights": 1}, f"{ARGUMENTS}.weights: the parameters are those of the network; remove it"),
    ("own:Undecayed", {"eps": 1}, f"{ARGUMENTS}.eps: is not an argument of own:Undecayed; it takes none"),
    ("own:Needy", {}, f"{ARGUMENTS}: own:Needy needs base, which has no default; add it to them"),
    ("own:Rateless", {}, "optimizer.name: own:Rateless has no parameter lr, "),
    ("own:Picky", {"size": 7}, f"{ARGUMENTS}.size: own:Picky refuses 7: AssertionError: too large (own.py, line "),
]


@pytest.mark.parametrize(("name", "arguments", "start"), BAD, ids=lambda value: str(value)[:40])
def test_bad_input_is_reported_in_one_line_with_its_key(refusal: Callable, name: str, arguments: dict, start: str):
    built = OptimizerConfig(name=name, arguments=arguments)
    message = refusal(build_optimizer, network(), built, 0.01)
    assert message.startswith(start)
    assert refusal(check_resume, built).startswith(start)


def test_optimizer_for_other_networks_is_reported(refusal: Callable):
    """Muon takes matrices alone, for which it resumes."""
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("torch has no Muon")
    message = refusal(build_optimizer, network(), config("Muon", momentum=0.9), 0.01)
    assert message.startswith(
        "optimizer.name: Muon cannot be constructed: ValueError: Muon only supports 2D parameters"
    )
    assert build_optimizer(nn.Linear(3, 3, bias=False), config("Muon"), 0.01).defaults["lr"] == 0.01


@pytest.mark.parametrize("name", ["Rprop", "own:Undecayed"])
def test_exemption_from_a_decay_that_does_not_exist_is_reported(refusal: Callable, name: str):
    message = refusal(build_optimizer, network(), config(name, False), 0.01)
    assert message == (
        f"optimizer.decay_biases_and_norms: {name} has no weight_decay to exempt them from; remove the key"
    )


@pytest.mark.parametrize("name", NAMES)
def test_optimizers_of_torch_resume(name: str):
    check_resume(OptimizerConfig(name=name))


@pytest.mark.parametrize(
    "built",
    [
        config("SGD", momentum=0.9, nesterov=True, weight_decay=0.1),
        config("SGD", momentum=0.9, foreach=True),
        config("Adam", amsgrad=True, betas=[0.5, 0.6]),
        config("AdamW", False),
        config("AdamW", fused=False),
        config("RMSprop", momentum=0.9, centered=True),
        config("own:Lion", False, weight_decay=0.1),
        config("own:make"),
        config("own:Random"),
        config("own:Watched"),
    ],
    ids=str,
)
def test_optimizers_with_arguments_and_own_ones_resume(built: OptimizerConfig):
    check_resume(built)


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("own:Listed", "optimizer.name: the state of Listed has a list as 'norms', with which a run cannot resume; "),
        ("own:Counting", "optimizer.name: a run with own:Counting cannot resume: its attribute calls is not saved; "),
        ("own:Lookahead", "optimizer.name: a run with own:Lookahead cannot resume: its attribute calls is not saved; "),
        ("own:Hidden", "optimizer.name: a run with own:Hidden cannot resume: its steps depend on more than its state"),
        ("own:Forgetful", "optimizer.name: a run with own:Forgetful cannot resume: 'momentum' in the state of "),
        (
            "own:Rounding",
            "optimizer.name: a run with own:Rounding cannot resume: 'momentum' in the state of parameter 0 ",
        ),
        ("own:Diverging", "optimizer.name: own:Diverging makes weights NaN or infinite from finite gradients, "),
        ("own:Failing", "optimizer.name: own:Failing fails in a step: RuntimeError: no step (own.py, line "),
    ],
)
def test_optimizer_that_does_not_resume_is_refused(refusal: Callable, name: str, start: str):
    assert refusal(check_resume, config(name)).startswith(start)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "Muon"])
def test_optimizers_of_torch_take_steps_of_a_network(name: str):
    layers = network()
    layers[0].weight.requires_grad = False
    check_optimizer_step(layers, config(name))


def test_optimizer_that_fails_for_a_network_is_reported(refusal: Callable):
    assert refusal(check_optimizer_step, network(), config("own:Failing")).startswith(
        "optimizer.name: own:Failing fails in a step: RuntimeError: no step (own.py, line "
    )


def test_check_leaves_the_global_random_states(randomness):
    randomness.seed(3)
    expected = randomness.draws()
    randomness.seed(3)
    check_resume(config("own:Random"))
    check_schedule(config("own:Random"))
    assert randomness.draws() == expected


@pytest.mark.parametrize("name", [name for name in NAMES if name != "Rprop"] + ["own:Lion", "own:make"])
def test_optimizers_follow_a_schedule(name: str):
    check_schedule(OptimizerConfig(name=name))


@pytest.mark.parametrize("name", ["Rprop", "own:Fixed"])
def test_optimizer_that_ignores_a_schedule_is_refused(refusal: Callable, name: str):
    assert refusal(check_schedule, config(name)).startswith(
        f"optimizer.name: {name} does not follow the learning rate in its param_groups, "
    )
