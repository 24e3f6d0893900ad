"""Built-in networks: sizes and initial weights."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from batchscape.config.model import MlpConfig, ResNetConfig, VggConfig
from tests.helpers.networks import build_image_network

DIGIT = (1, 8, 8)
RGB = (3, 8, 8)


def weights_of(network: nn.Module) -> list[np.ndarray]:
    return [parameter.detach().numpy() for parameter in network.parameters()]


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(weights_of(one), weights_of(other), strict=True))


# Size.


@pytest.mark.parametrize(
    ("channels", "dense", "shape", "parameters"),
    [
        # 1·8·9 + 8, 8·16·9 + 16, then 2×2 of 16 to 32, 32 to 1
        ((8, 16), (32,), DIGIT, 80 + 1168 + (64 * 32 + 32) + 33),
        ((8, 16), (), DIGIT, 80 + 1168 + 65),
        ((4,), (8,), DIGIT, 40 + (4 * 4 * 4 * 8 + 8) + 9),
        ((2, 2, 2), (3, 5), DIGIT, 20 + 38 + 38 + (2 * 3 + 3) + (3 * 5 + 5) + 6),
        # 3 channels, not square, an odd side: 6×11 becomes 3×5
        ((4,), (), (3, 6, 11), 3 * 4 * 9 + 4 + 4 * 3 * 5 + 1),
    ],
    ids=str,
)
def test_vgg_has_the_number_of_parameters_counted_by_hand(channels, dense, shape, parameters: int):
    network = build_image_network(VggConfig(channels=channels, dense=dense), shape, 1, seed=0)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert network(torch.zeros(5, *shape)).shape == (5, 1)


@pytest.mark.parametrize(
    ("config", "shape", "outputs", "parameters"),
    [
        # The network of Chang & Pathak 2020.
        (VggConfig(channels=(4, 8, 16, 32, 64), dense=(256, 256)), (3, 128, 128), 1, 353_161),
        # Two convolutions per block; the norm's weight and bias replace the convolution's bias.
        *(
            (
                VggConfig(channels=(4, 6), convolutions=2, dense=(5,), normalization=norm, dropout=0.5),
                (3, 8, 8),
                3,
                (3 * 4 * 9 + 4 * own) + (4 * 4 * 9 + 4 * own) + (4 * 6 * 9 + 6 * own) + (6 * 6 * 9 + 6 * own)
                + (6 * 4 * 5 + 5) + (5 * 3 + 3),
            )
            for norm, own in (("none", 1), ("batch", 2), ("group", 2))
        ),
        (MlpConfig(name="mlp", dense=(7, 5), dropout=0.1), (3, 4, 6), 2, (72 * 7 + 7) + (7 * 5 + 5) + (5 * 2 + 2)),
        (MlpConfig(name="mlp", dense=()), (3, 4, 6), 1, 73),
        (
            ResNetConfig(name="resnet", channels=(4, 4), blocks=2, normalization="group"),
            (1, 8, 8),
            1,
            # the stem; four blocks, of which one halves the image and has a 1×1 convolution; the output
            (9 * 4 + 8) + 4 * (2 * 9 * 16 + 2 * 8) + (16 + 8) + 5,
        ),
    ],
    ids=["original study", "vgg", "vgg with BatchNorm", "vgg with GroupNorm", "mlp", "logistic regression", "resnet"],
)  # fmt: skip
def test_networks_have_the_number_of_parameters_counted_by_hand(config, shape: tuple, outputs: int, parameters: int):
    network = build_image_network(config, shape, outputs, seed=0)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert network(torch.zeros(5, *shape)).shape == (5, outputs)


@pytest.mark.parametrize(
    ("config", "layers"),
    [
        (VggConfig(dense=(6, 5), dropout=0.25), ["dense1_dropout", "dense2_dropout", "output_dropout"]),
        (MlpConfig(name="mlp", dense=(6, 5), dropout=0.25), ["dense2_dropout", "output_dropout"]),
        (MlpConfig(name="mlp", dense=(), dropout=0.25), []),
        (VggConfig(dense=(6, 5)), []),
    ],
    ids=["vgg", "mlp", "logistic regression", "no dropout"],
)
def test_dropout_precedes_dense_layers_and_is_active_in_training_only(config, layers: list[str]):
    network = build_image_network(config, DIGIT, 1, 0)
    dropout_layers = {name: module for name, module in network.named_modules() if isinstance(module, nn.Dropout)}
    assert list(dropout_layers) == layers
    assert {module.p for module in dropout_layers.values()} <= {0.25}
    names = list(dict(network.named_children()))
    assert all(names[names.index(name) + 1] == name.removesuffix("_dropout") for name in layers)
    images = torch.rand(8, *DIGIT)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert torch.equal(network(images), network(images)) == (not layers)
        network.eval()
        assert torch.equal(network(images), network(images))


def test_residual_block_adds_its_input_to_its_convolutions():
    network = build_image_network(ResNetConfig(name="resnet", channels=(4, 8)), RGB, 1, 0).eval()
    same, wider = network.stage1_block1, network.stage2_block1
    with torch.no_grad():
        for block in (same, wider):
            block.norm2.weight.zero_()  # so that the convolutions add zero
        images = torch.rand(2, 4, 8, 8)
        assert torch.equal(same(images), images)
        projected = F.conv2d(images, wider.shortcut.conv.weight, stride=2)
        expected = torch.relu(wider.shortcut.norm(projected))
        torch.testing.assert_close(wider(images), expected)
        assert expected.shape == (2, 8, 4, 4)
        same.norm2.weight.fill_(1)
        hidden = same.norm2(same.conv2(torch.relu(same.norm1(same.conv1(images)))))
        assert torch.equal(same(images), torch.relu(hidden + images))


@pytest.mark.parametrize("channels", [(4, 4), (8, 8)], ids=["subsampled", "with a stride"])
def test_shortcut_that_halves_the_image_is_a_1x1_convolution_with_stride_2(channels: tuple[int, int]):
    network = build_image_network(ResNetConfig(name="resnet", channels=channels), RGB, 1, 0)
    shortcut = network.stage2_block1.shortcut
    assert [name for name, _ in shortcut.named_parameters()] == ["conv.weight", "norm.weight", "norm.bias"]
    images = torch.rand(2, channels[0], 7, 9)
    torch.testing.assert_close(
        shortcut.eval()(images), shortcut.norm(F.conv2d(images, shortcut.conv.weight, stride=2)), rtol=1e-5, atol=1e-6
    )


def test_default_network_has_3361_parameters():
    assert sum(weights.size for weights in weights_of(build_image_network(VggConfig(), DIGIT, 1, 0))) == 3361


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 200), (3, 200, 15)], ids=str)
def test_more_blocks_than_halvings_of_the_image_are_rejected(shape: tuple, refusal: Callable):
    message = refusal(build_image_network, VggConfig(channels=(4, 4, 4, 4)), shape, 1, 0)
    assert message.startswith("model.channels: ")
    assert "16×16" in message
    assert f"{shape[1]}×{shape[2]}" in message
    build_image_network(VggConfig(channels=(4, 4, 4)), shape, 1, 0)


# Initial weights.


@pytest.mark.parametrize(
    "config", [VggConfig(), VggConfig(channels=(32, 64), dense=(128, 64))], ids=["default", "wide"]
)
def test_initial_weights_are_glorot_uniform_and_biases_zero(config: VggConfig):
    layers = [m for m in build_image_network(config, DIGIT, 1, 3).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == len(config.channels) + len(config.dense) + 1
    for layer in layers:
        weight = layer.weight.detach().double()
        receptive = weight[0, 0].numel()
        bound = math.sqrt(6 / ((weight.shape[0] + weight.shape[1]) * receptive))
        assert weight.abs().max() <= bound * (1 + 1e-6)
        if weight.numel() > 1000:  # enough samples to distinguish it from a narrower distribution
            assert weight.abs().max() > 0.99 * bound
            assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
            assert abs(weight.mean().item()) < 0.06 * bound
        assert not layer.bias.any()


def test_initial_weights_depend_on_the_seed():
    networks = [build_image_network(VggConfig(), DIGIT, 1, seed) for seed in (4, 4, 5)]
    assert equal(networks[0], networks[1])
    assert not equal(networks[0], networks[2])


def test_largest_seed_of_the_config_is_valid_in_torch():
    assert equal(*(build_image_network(VggConfig(), DIGIT, 1, 2**32 - 1) for _ in range(2)))


def test_initial_weights_ignore_and_preserve_global_random_states(randomness):
    randomness.seed(1)
    untouched = randomness.draws()
    randomness.seed(1)
    first = build_image_network(VggConfig(), DIGIT, 1, 4)
    assert randomness.draws() == untouched
    randomness.seed(2)
    assert equal(build_image_network(VggConfig(), DIGIT, 1, 4), first)


def test_resnet_20_has_the_number_of_parameters_of_the_paper():
    """He et al. 2016, table 6: 0.27 million; here with 1×1 convolutions where the shape changes (option B)."""
    config = ResNetConfig(name="resnet", blocks=3)
    network = build_image_network(config, (3, 32, 32), 10, 0)

    def stage(depth: int, width: int) -> int:
        first = 9 * depth * width + 9 * width * width + 4 * width
        shortcut = depth * width + 2 * width if depth != width else 0
        return first + shortcut + 2 * (18 * width * width + 4 * width)

    expected = 9 * 3 * 16 + 32 + stage(16, 16) + stage(16, 32) + stage(32, 64) + 64 * 10 + 10
    assert sum(parameter.numel() for parameter in network.parameters()) == expected
    assert 265_000 < expected < 275_000
    sizes = {}
    for name, module in network.named_children():
        module.register_forward_hook(lambda _, __, out, name=name: sizes.__setitem__(name, tuple(out.shape[1:])))
    network.eval()(torch.zeros(1, 3, 32, 32))
    assert [sizes[f"stage{stage}_block3"] for stage in (1, 2, 3)] == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]


@pytest.mark.parametrize(("channels", "groups"), [(4, 4), (6, 6), (8, 8), (12, 6), (13, 1), (64, 8)])
def test_number_of_groups_is_the_largest_divisor_up_to_eight(channels: int, groups: int):
    config = ResNetConfig(name="resnet", channels=(channels,), normalization="group")
    assert build_image_network(config, (1, 4, 4), 1, 0).norm.num_groups == groups
