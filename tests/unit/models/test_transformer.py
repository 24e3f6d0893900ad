"""The transformer: its function, its size and its initial weights."""

import math
from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F

from batchscape.config.model import TransformerConfig
from batchscape.data.spec import DataSpec
from batchscape.models.build import build_network
from batchscape.models.transformer import Block, Transformer

LENGTH, VOCABULARY = 10, 17
TEXT = DataSpec("tokens", (LENGTH,), "next_token", vocabulary=VOCABULARY, token_unit="byte")
LABELED_TEXT = DataSpec("tokens", (LENGTH,), "class", ("a", "b", "c"), vocabulary=VOCABULARY)
SERIES = DataSpec("numbers", (LENGTH, 5), "numbers", target_shape=(2,))
CPU = torch.device("cpu")


def transformer(spec: DataSpec, outputs: int, perturb: float = 0.0, **settings) -> Transformer:
    config = TransformerConfig(name="transformer", **{"depth": 2, "width": 12, "heads": 3} | settings)
    network = build_network(config, spec, outputs, seed=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(perturb * torch.randn(parameter.shape, generator=generator))
    return network


def tokens(count: int = 4, length: int = LENGTH) -> torch.Tensor:
    return torch.randint(VOCABULARY, (count, length), generator=torch.Generator().manual_seed(1))


# What it computes.


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("heads", [1, 3])
def test_block_is_the_pre_norm_encoder_layer_of_torch(causal: bool, heads: int):
    torch.manual_seed(0)
    block = Block(12, heads, 0.0, causal).double()
    reference = nn.TransformerEncoderLayer(
        12, heads, 48, dropout=0.0, activation="gelu", norm_first=True, batch_first=True, dtype=torch.float64
    )
    copied = {
        "self_attn.in_proj_": "query_key_value.",
        "self_attn.out_proj.": "attention_output.",
        "norm1.": "attention_norm.",
        "norm2.": "mlp_norm.",
        "linear1.": "mlp_hidden.",
        "linear2.": "mlp_output.",
    }
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    own = block.state_dict()
    reference.load_state_dict({a + k: own[b + k] for a, b in copied.items() for k in ("weight", "bias")})
    inputs = torch.randn(4, LENGTH, 12, dtype=torch.float64)
    mask = nn.Transformer.generate_square_subsequent_mask(LENGTH, dtype=torch.float64) if causal else None
    expected = reference(inputs, src_mask=mask, is_causal=causal)
    torch.testing.assert_close(block(inputs), expected, rtol=0, atol=1e-12)


def test_network_is_embeddings_blocks_norm_and_output():
    network, inputs = transformer(TEXT, VOCABULARY, perturb=0.3), tokens()
    embedded = F.embedding(inputs, network.embedding.weight) + network.position_embedding(torch.arange(LENGTH))
    hidden = network.final_norm(network.block2(network.block1(embedded)))
    torch.testing.assert_close(network(inputs), hidden @ network.output.weight.T + network.output.bias)


@pytest.mark.parametrize("position", [0, 4, LENGTH - 1])
def test_next_token_depends_on_the_tokens_before_it_and_on_no_later_one(position: int):
    network, inputs = transformer(TEXT, VOCABULARY, perturb=0.3), tokens()
    changed = inputs.clone()
    changed[:, position] = (changed[:, position] + 1) % VOCABULARY
    outputs, after = network(inputs), network(changed)
    assert outputs.shape == (4, LENGTH, VOCABULARY)
    assert torch.equal(outputs[:, :position], after[:, :position])
    assert ((outputs[:, position:] - after[:, position:]).abs().amax(2) > 1e-4).all()


def test_one_target_per_example_is_predicted_from_all_positions():
    network, inputs = transformer(LABELED_TEXT, 3, perturb=0.3), tokens()
    outputs = network(inputs)
    assert outputs.shape == (4, 3)
    assert not network.block1.causal
    changed = inputs.clone()
    changed[:, -1] = (changed[:, -1] + 1) % VOCABULARY
    assert ((outputs - network(changed)).abs().amax(1) > 1e-5).all()
    hidden = []
    network.final_norm.register_forward_hook(lambda _, __, values: hidden.append(values))
    network(inputs)
    torch.testing.assert_close(outputs, network.output(hidden[0].mean(1)))


def test_numbers_are_embedded_linearly():
    network = transformer(SERIES, 2)
    assert isinstance(network.embedding, nn.Linear)
    assert network(torch.randn(4, LENGTH, 5)).shape == (4, 2)


def test_positions_are_distinguished():
    network = transformer(LABELED_TEXT, 3, perturb=0.3)
    assert not torch.allclose(network(tokens()), network(tokens().flip(1)), atol=1e-4)


def test_longer_context_has_positions_that_shorter_blocks_do_not_use():
    network = transformer(TEXT, VOCABULARY, context=16)
    assert network.position_embedding.weight.shape == (16, 12)
    network(tokens()).sum().backward()
    used = network.position_embedding.weight.grad.abs().sum(1) > 0
    assert used.tolist() == [True] * LENGTH + [False] * 6


def test_loss_of_zero_output_weights_is_the_logarithm_of_the_vocabulary():
    network = transformer(TEXT, VOCABULARY, perturb=0.3).double()
    nn.init.zeros_(network.output.weight)
    nn.init.zeros_(network.output.bias)
    loss = F.cross_entropy(network(tokens()).flatten(0, 1), tokens().flatten())
    assert loss.item() == pytest.approx(math.log(VOCABULARY), abs=1e-14)


def test_initial_loss_is_close_to_that_of_a_uniform_prediction():
    loss = F.cross_entropy(transformer(TEXT, VOCABULARY)(tokens()).flatten(0, 1), tokens().flatten())
    assert loss.item() == pytest.approx(math.log(VOCABULARY), abs=0.1)


def test_dropout_is_active_in_training_only():
    network, inputs = transformer(TEXT, VOCABULARY, dropout=0.5), tokens()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(network(inputs), network(inputs))
        network.eval()
        assert torch.equal(network(inputs), network(inputs))
        assert torch.equal(network(inputs), transformer(TEXT, VOCABULARY)(inputs))


def test_attention_weights_are_dropped(monkeypatch: pytest.MonkeyPatch):
    rates, attention = [], F.scaled_dot_product_attention

    def recording(*inputs, dropout_p, **options):
        rates.append(dropout_p)
        return attention(*inputs, dropout_p=dropout_p, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", recording)
    network = transformer(TEXT, VOCABULARY, dropout=0.5, depth=1)
    with torch.random.fork_rng():
        network(tokens())
    network.eval()(tokens())
    assert rates == [0.5, 0.0]


# Size and initial weights.


@pytest.mark.parametrize(
    ("spec", "outputs", "settings", "embeddings"),
    [
        (TEXT, VOCABULARY, {}, (VOCABULARY + LENGTH) * 12),
        (TEXT, VOCABULARY, {"depth": 1, "heads": 1, "context": 32}, (VOCABULARY + 32) * 12),
        (LABELED_TEXT, 3, {"depth": 3}, (VOCABULARY + LENGTH) * 12),
        (SERIES, 2, {"width": 6}, 5 * 6 + 6 + LENGTH * 6),
    ],
    ids=["text", "longer context", "labeled text", "series"],
)
def test_number_of_parameters_is_that_counted_by_hand(spec: DataSpec, outputs: int, settings: dict, embeddings: int):
    width, depth = settings.get("width", 12), settings.get("depth", 2)
    # Each block: 3w² + 3w of query, key, value; w² + w; 4w² + 4w; 4w² + w; and two norms of 2w.
    expected = embeddings + depth * (12 * width**2 + 13 * width) + 2 * width + (width + 1) * outputs
    assert sum(parameter.numel() for parameter in transformer(spec, outputs, **settings).parameters()) == expected


def test_default_model_of_bytes_has_some_85000_parameters():
    spec = DataSpec("tokens", (64,), "next_token", vocabulary=256)
    network = build_network(TransformerConfig(name="transformer"), spec, 256, 0)
    assert sum(parameter.numel() for parameter in network.parameters()) == 84_544


def test_initial_weights_are_those_of_gpt_2():
    depth = 8
    network = transformer(TEXT, VOCABULARY, depth=depth, width=64, heads=2, context=64)
    deviations = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            weight = module.weight.detach().double()
            assert abs(weight.mean()) < 4 * weight.std() / math.sqrt(weight.numel())
            deviations.setdefault(name.rpartition(".")[2], []).append(weight.std().item())
        if isinstance(module, nn.Linear):
            assert not module.bias.any()
        if isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all()
            assert not module.bias.any()
    assert deviations.keys() == {
        "embedding", "position_embedding", "query_key_value", "attention_output", "mlp_hidden", "mlp_output", "output"
    }  # fmt: skip
    for name, values in deviations.items():
        expected = 0.02 / 4 if name in ("attention_output", "mlp_output") else 0.02  # √(2·8) = 4
        assert values == pytest.approx([expected] * len(values), rel=0.07), name


def test_initial_weights_depend_on_the_seed_alone():
    first, second = (transformer(TEXT, VOCABULARY).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = build_network(TransformerConfig(name="transformer", width=12), TEXT, VOCABULARY, seed=4)
    assert not torch.equal(first["embedding.weight"], other.embedding.weight)


# What is refused.


def test_number_of_heads_must_divide_the_width():
    with pytest.raises(ValidationError, match="4 heads do not divide a width of 50; write a divisor, or `width: 52`"):
        TransformerConfig(name="transformer", width=50, heads=4)


def test_blocks_longer_than_the_context_are_refused(refusal: Callable):
    config = TransformerConfig(name="transformer", context=LENGTH - 1)
    message = refusal(build_network, config, TEXT, VOCABULARY, 0)
    assert message.startswith("model.context: 9 positions are fewer than the 10 of the data's sequences")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (DataSpec("images", (1, 8, 8), "class", ("a", "b")), "images of shape (1, 8, 8); write an import path"),
        (DataSpec("numbers", (8,), "class", ("a", "b")), "numbers of shape (8,); write `name: mlp`"),
        (DataSpec("columns", (2,), "numbers", categories=(3,)), "rows of 2 numbers and 1 categories"),
    ],
    ids=["images", "numbers", "columns"],
)
def test_inputs_that_are_no_sequences_are_refused(spec: DataSpec, expected: str, refusal: Callable):
    message = refusal(build_network, TransformerConfig(name="transformer"), spec, 2, 0)
    assert message.startswith("model.name: transformer takes tokens and sequences of numbers")
    assert expected in message
