"""Transformers: a decoder for the next token, or an encoder with mean pooling for one target per example."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from batchscape.config.model import TransformerConfig
from batchscape.data.spec import DataSpec
from batchscape.errors import UserError
from batchscape.models.inputs import describe_inputs

MLP_EXPANSION = 4
INITIAL_STD = 0.02


class Block(nn.Module):
    """Self-attention and an MLP with GELU, each after LayerNorm and added to its input (pre-norm)."""

    def __init__(self, width: int, heads: int, dropout: float, causal: bool):
        super().__init__()
        self.heads, self.dropout_rate, self.causal = heads, dropout, causal
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_output = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp_hidden = nn.Linear(width, MLP_EXPANSION * width)
        self.mlp_output = nn.Linear(MLP_EXPANSION * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Tensor) -> Tensor:
        attended = inputs + self.dropout(self._attend(self.attention_norm(inputs)))
        hidden = F.gelu(self.mlp_hidden(self.mlp_norm(attended)))
        return attended + self.dropout(self.mlp_output(hidden))

    def _attend(self, inputs: Tensor) -> Tensor:
        count, length, width = inputs.shape
        joint = self.query_key_value(inputs).view(count, length, 3, self.heads, width // self.heads)
        query, key, value = joint.permute(2, 0, 3, 1, 4)  # each (n, heads, length, width / heads)
        dropout = self.dropout_rate if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=self.causal)
        return self.attention_output(attended.transpose(1, 2).reshape(count, length, width))


class Transformer(nn.Module):
    """Embeddings of inputs and positions, blocks, LayerNorm and a linear output, per position or of the mean."""

    def __init__(self, config: TransformerConfig, embedding: nn.Module, context: int, causal: bool, outputs: int):
        super().__init__()
        self.causal = causal
        self.embedding = embedding
        self.position_embedding = nn.Embedding(context, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.block_names = [f"block{index}" for index in range(1, config.depth + 1)]
        for name in self.block_names:
            self.add_module(name, Block(config.width, config.heads, config.dropout, causal))
        self.final_norm = nn.LayerNorm(config.width)
        self.output = nn.Linear(config.width, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.dropout(self.embedding(inputs) + self.position_embedding.weight[: inputs.shape[1]])
        for name in self.block_names:
            hidden = self.get_submodule(name)(hidden)
        hidden = self.final_norm(hidden)
        return self.output(hidden if self.causal else hidden.mean(1))


def build(config: TransformerConfig, spec: DataSpec, outputs: int) -> Transformer:
    """Return a transformer for blocks of tokens, or for sequences of numbers, (length, features).

    For the next token, no position sees a later one, and there are outputs at each position. Otherwise all positions
    see each other and the outputs are those of their mean. Initial weights are those of GPT-2: normal with standard
    deviation 0.02, divided by √(2·depth) for the last layers of attention and MLPs, whose outputs add up; biases are
    zero, LayerNorms the identity. Input and output embeddings are not tied.

    Args:
        config: Section `model` of the study file.
        spec: What an example is.
        outputs: Number of outputs per position of the next token, or per example.

    Returns:
        The network. It maps tokens, (n, length), or numbers, (n, length, features), to (n, length, outputs) for the
        next token, otherwise to (n, outputs).

    Raises:
        UserError: The inputs are no sequences, or longer than `model.context`.

    Source:
        Vaswani et al. 2017; pre-norm, Xiong et al. 2020; initial weights, Radford et al. 2019, section 2.3.
    """
    if spec.inputs == "tokens":
        embedding: nn.Module = nn.Embedding(spec.vocabulary, config.width)
    elif spec.inputs == "numbers" and len(spec.shape) == 2:
        embedding = nn.Linear(spec.shape[1], config.width)
    else:
        other = "an import path, such as `name: timm:create_model`" if spec.inputs == "images" else "`name: mlp`"
        raise UserError(
            "model.name: transformer takes tokens and sequences of numbers, (length, features), the data has "
            f"{describe_inputs(spec)}; write {other}"
        )
    length = spec.shape[0]
    context = config.context or length
    if context < length:
        raise UserError(
            f"model.context: {context} positions are fewer than the {length} of the data's sequences; remove the key, "
            "or give the data shorter sequences"
        )
    network = Transformer(config, embedding, context, spec.targets == "next_token", outputs)
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            is_residual = name.endswith(("attention_output", "mlp_output"))
            nn.init.normal_(module.weight, std=INITIAL_STD / (math.sqrt(2 * config.depth) if is_residual else 1))
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
    return network
