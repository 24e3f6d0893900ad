"""Networks: their size, their initial weights, their input, and what they are worth on a data set."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from batchscape.config.model import MlpConfig, ResNetConfig, VggConfig
from batchscape.data.prepared import PreparedData
from batchscape.data.tensors import gather_examples, normalize_images, storage_device, to_tensors
from batchscape.models import memory as chunks
from batchscape.models.build import build_network
from batchscape.tasks.losses import loss_and_accuracy, mean_loss
from tests.helpers.surfaces import evaluate

DIGIT = (1, 8, 8)
RGB = (3, 8, 8)
CPU = torch.device("cpu")


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
        # 3 colours, not square, an odd side: 6×11 becomes 3×5
        ((4,), (), (3, 6, 11), 3 * 4 * 9 + 4 + 4 * 3 * 5 + 1),
    ],
    ids=str,
)
def test_a_network_has_the_parameters_of_a_count_by_hand(channels, dense, shape, parameters: int):
    network = build_network(VggConfig(channels=channels, dense=dense), shape, 1, seed=0)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert network(torch.zeros(5, *shape)).shape == (5, 1)


@pytest.mark.parametrize(
    ("config", "shape", "outputs", "parameters"),
    [
        # The network of Chang & Pathak 2020.
        (VggConfig(channels=(4, 8, 16, 32, 64), dense=(256, 256)), (3, 128, 128), 1, 353_161),
        # Two convolutions a block; a weight and a bias of the norm take the place of the convolution's bias.
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
            # the stem; four blocks, of which one halves the image, so that it has a 1×1 convolution; the output
            (9 * 4 + 8) + 4 * (2 * 9 * 16 + 2 * 8) + (16 + 8) + 5,
        ),
    ],
    ids=["original study", "vgg", "vgg with BatchNorm", "vgg with GroupNorm", "mlp", "logistic regression", "resnet"],
)  # fmt: skip
def test_every_network_has_the_parameters_of_a_count_by_hand(config, shape: tuple, outputs: int, parameters: int):
    network = build_network(config, shape, outputs, seed=0)
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
def test_dropout_stands_before_dense_layers_and_is_at_work_in_training_alone(config, layers: list[str]):
    network = build_network(config, DIGIT, 1, 0)
    found = {name: module for name, module in network.named_modules() if isinstance(module, nn.Dropout)}
    assert list(found) == layers
    assert {module.p for module in found.values()} <= {0.25}
    names = list(dict(network.named_children()))
    assert all(names[names.index(name) + 1] == name.removesuffix("_dropout") for name in layers)
    images = torch.rand(8, *DIGIT)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert torch.equal(network(images), network(images)) == (not layers)
        network.eval()
        assert torch.equal(network(images), network(images))


def test_a_residual_block_adds_its_input_to_what_its_convolutions_give():
    network = build_network(ResNetConfig(name="resnet", channels=(4, 8)), RGB, 1, 0).eval()
    same, wider = network.stage1_block1, network.stage2_block1
    with torch.no_grad():
        for block in (same, wider):
            block.norm2.weight.zero_()  # so that the convolutions give nothing
        images = torch.rand(2, 4, 8, 8)
        assert torch.equal(same(images), images)
        expected = torch.relu(wider.shortcut.norm(wider.shortcut.conv(images)))
        assert torch.equal(wider(images), expected)
        assert expected.shape == (2, 8, 4, 4)
        same.norm2.weight.fill_(1)
        hidden = same.norm2(same.conv2(torch.relu(same.norm1(same.conv1(images)))))
        assert torch.equal(same(images), torch.relu(hidden + images))


def test_the_default_network_has_3361_parameters():
    assert sum(weights.size for weights in weights_of(build_network(VggConfig(), DIGIT, 1, 0))) == 3361


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 200), (3, 200, 15)], ids=str)
def test_more_blocks_than_the_images_can_be_halved_are_refused(shape: tuple, refusal: Callable):
    message = refusal(build_network, VggConfig(channels=(4, 4, 4, 4)), shape, 1, 0)
    assert message.startswith("model.channels: ")
    assert "16×16" in message
    assert f"{shape[1]}×{shape[2]}" in message
    build_network(VggConfig(channels=(4, 4, 4)), shape, 1, 0)


# Initial weights.


@pytest.mark.parametrize(
    "config", [VggConfig(), VggConfig(channels=(32, 64), dense=(128, 64))], ids=["default", "wide"]
)
def test_initial_weights_are_glorot_uniform_and_biases_zero(config: VggConfig):
    layers = [m for m in build_network(config, DIGIT, 1, 3).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == len(config.channels) + len(config.dense) + 1
    for layer in layers:
        weight = layer.weight.detach().double()
        receptive = weight[0, 0].numel()
        bound = math.sqrt(6 / ((weight.shape[0] + weight.shape[1]) * receptive))
        assert weight.abs().max() <= bound * (1 + 1e-6)
        if weight.numel() > 1000:  # enough to see that it is this uniform distribution and not a narrower one
            assert weight.abs().max() > 0.99 * bound
            assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
            assert abs(weight.mean().item()) < 0.06 * bound
        assert not layer.bias.any()


def test_runs_of_one_seed_start_at_the_same_bits_and_runs_of_others_do_not():
    networks = [build_network(VggConfig(), DIGIT, 1, seed) for seed in (4, 4, 5)]
    assert equal(networks[0], networks[1])
    assert not equal(networks[0], networks[2])


def test_the_largest_seed_of_the_config_is_a_seed_for_torch():
    assert equal(*(build_network(VggConfig(), DIGIT, 1, 2**32 - 1) for _ in range(2)))


def test_initial_weights_ignore_the_global_random_states_and_leave_them_alone(randomness):
    randomness.seed(1)
    untouched = randomness.draws()
    randomness.seed(1)
    first = build_network(VggConfig(), DIGIT, 1, 4)
    assert randomness.draws() == untouched
    randomness.seed(2)
    assert equal(build_network(VggConfig(), DIGIT, 1, 4), first)


# Input.


def test_every_byte_becomes_its_exact_share_of_255():
    images = torch.arange(256, dtype=torch.uint8).reshape(64, 1, 2, 2)
    expected = (np.arange(256, dtype=np.float32) / np.float32(255)).reshape(64, 1, 2, 2)
    assert np.array_equal(normalize_images(images).numpy(), expected)
    assert images.flatten().tolist() == list(range(256))  # as they were


def test_input_is_channels_last_in_memory_and_as_it_was_by_index():
    images = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).reshape(2, 3, 4, 5)
    tensor = normalize_images(images)
    assert (tensor.shape, tensor.dtype) == ((2, 3, 4, 5), torch.float32)
    assert tensor.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal((tensor * 255).round().to(torch.uint8), images)


@pytest.mark.parametrize("channels_last", [True, False])
def test_images_are_taken_by_index_and_are_channels_last_in_memory(channels_last: bool):
    images = torch.arange(6 * 3 * 4 * 5).remainder(256).to(torch.uint8).reshape(6, 3, 4, 5)
    stored = images.contiguous(memory_format=torch.channels_last) if channels_last else images
    found = gather_examples(stored, torch.tensor([4, 0, 4]), CPU)
    assert (found.shape, found.dtype) == ((3, 3, 4, 5), torch.uint8)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found, torch.stack([images[4], images[0], images[4]]))


def test_images_are_taken_to_another_device():
    images = torch.zeros(6, 3, 4, 5, dtype=torch.uint8)
    found = normalize_images(gather_examples(images, torch.tensor([4, 0]), torch.device("meta")))
    assert (found.device.type, found.shape) == ("meta", (2, 3, 4, 5))
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_images_live_on_the_device_if_they_take_at_most_half_of_its_free_memory():
    gpu = torch.device("cuda", 0)
    assert storage_device(500, gpu, free_bytes=1000) == gpu
    assert storage_device(501, gpu, free_bytes=1000) == CPU
    assert storage_device(10**15, CPU) == CPU  # there is nowhere else


# Loss and accuracy.


def test_loss_and_accuracy_of_a_worked_example():
    logits = torch.tensor([[0.0], [math.log(3)], [-math.log(3)], [math.log(3)]], dtype=torch.float64)
    labels = torch.tensor([0.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    # probabilities ½, ¾, ¼, ¾
    expected = -(math.log(1 / 2) + math.log(3 / 4) + math.log(1 / 4) + math.log(1 / 4)) / 4
    assert mean_loss(logits, labels).item() == pytest.approx(expected, rel=1e-14)
    loss, accuracy = loss_and_accuracy(logits.float(), labels.float())
    assert loss == pytest.approx(expected, rel=1e-6)
    assert accuracy == 2 / 4


def test_where_the_loss_is_not_a_number_neither_is_the_accuracy():
    logits = torch.tensor([[math.nan], [1.0]])
    assert all(map(math.isnan, loss_and_accuracy(logits, torch.tensor([0.0, 1.0]))))
    assert loss_and_accuracy(torch.tensor([[math.inf], [1.0]]), torch.tensor([0.0, 1.0])) == (math.inf, 0.5)


def test_a_logit_of_a_thousand_gives_a_finite_loss():
    logits, labels = torch.tensor([[1000.0], [-1000.0]]), torch.tensor([0.0, 0.0])
    assert mean_loss(logits, labels).item() == 500


@pytest.fixture(scope="module")
def digits(prepared: PreparedData) -> tuple[torch.Tensor, torch.Tensor]:
    return to_tensors(prepared.validation_images, prepared.validation_labels, CPU)


def test_evaluation_equals_cross_entropy_and_accuracy_computed_apart(prepared: PreparedData, digits: tuple):
    network = build_network(VggConfig(), DIGIT, 1, 0)
    twin = build_network(VggConfig(), DIGIT, 1, 0).double()
    with torch.no_grad():
        logits = twin(torch.from_numpy(prepared.validation_images / 255.0)).numpy()[:, 0]
    probability, truth = 1 / (1 + np.exp(-logits)), prepared.validation_labels == 1
    loss, accuracy = evaluate(network, *digits)
    assert loss == pytest.approx(-np.log(np.where(truth, probability, 1 - probability)).mean(), abs=1e-6)
    assert accuracy == ((probability > 0.5) == truth).mean()


@pytest.mark.parametrize("chunk", [1, 7, 358, 359, 10_000])
def test_evaluation_counts_each_example_once_whatever_the_chunk(digits: tuple, chunk: int):
    network = build_network(VggConfig(), DIGIT, 1, 0)
    loss, accuracy = evaluate(network, *digits)
    chunked_loss, chunked_accuracy = evaluate(network, *digits, chunk=chunk)
    assert chunked_loss == pytest.approx(loss, rel=1e-6)
    assert chunked_accuracy == accuracy


def test_evaluation_sends_through_at_once_what_the_cache_takes(digits: tuple, monkeypatch: pytest.MonkeyPatch):
    network, sizes = build_network(VggConfig(), DIGIT, 1, 0), []
    whole = evaluate(network, *digits)
    network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    evaluate(network, *digits)
    monkeypatch.setitem(chunks.ACTIVATION_BYTES, "cpu", 100 * 4096)  # the first ReLU takes 4 KiB an image
    assert evaluate(network, *digits) == pytest.approx(whole, rel=1e-6)
    assert sizes == [4, 359, 4, 100, 100, 100, 59]  # each time 4 to look at


def test_evaluation_takes_no_part_in_training(digits: tuple):
    """Neither dropout nor the batch's own statistics are at work, and no gradient or statistic is left behind."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.5), nn.Linear(144, 1))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    first = evaluate(network, *digits)
    assert evaluate(network, *digits) == first
    assert evaluate(network, *digits, chunk=5) == pytest.approx(first, rel=1e-6)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_leaves_the_mode_of_the_network_as_it_was(digits: tuple, training: bool):
    network = build_network(VggConfig(), DIGIT, 1, 0).train(training)
    evaluate(network, *digits)
    assert all(module.training == training for module in network.modules())


def test_a_network_of_functions_is_measured_by_what_its_modules_take_and_give():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.kernel = nn.Parameter(torch.zeros(8, 3, 3, 3))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return nn.functional.conv2d(images, self.kernel, padding=1)

    bytes_an_example = (3 + 8) * 64 * 64 * 4
    expected = chunks.ACTIVATION_BYTES["cpu"] // bytes_an_example
    assert chunks.max_micro_batch_size(Functional(), torch.zeros(2, 3, 64, 64)) == expected
