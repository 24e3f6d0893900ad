"""Exponential moving average of the weights."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn


class WeightAverage:
    """An exponential moving average of the weights of a network.

    The weight of a step halves with every `half_life` training examples that follow it. After step t, the average is
    Σ w_s θ_s / Σ w_s over the weights θ_s after the steps s = 1, …, t, with w_s = (1 − d_s) d_{s+1} ⋯ d_t and
    d_s = 2^(−examples of step s / half_life). The sum in the denominator corrects the bias as in Adam (Kingma & Ba
    2015, section 3), so that the initial weights have no part in it.

    Only parameters are averaged. Buffers, such as the statistics of batch normalization, are those of the network, as
    in `torch.optim.swa_utils.AveragedModel`.

    Args:
        network: The network, on the device on which it trains. Its parameters may change, but not be replaced.
        half_life: Training examples after which the weight of a step has halved.
    """

    def __init__(self, network: nn.Module, half_life: int):
        self.network = network
        self.half_life = half_life
        self.num_examples = 0
        """Training examples of all steps so far, of which the sum of all weights is a function."""
        self._parameters = dict(network.named_parameters())
        # An increment is a small part of a weight: bfloat16 would round it away.
        self._average = [
            parameter.detach().to(torch.promote_types(parameter.dtype, torch.float32), copy=True)
            for parameter in self._parameters.values()
        ]
        self._weights: list[Tensor] = list(self._parameters.values())
        self._is_converted = [average.dtype for average in self._average] != [weight.dtype for weight in self._weights]

    def update(self, num_examples: int) -> None:
        """Add the weights after a step.

        Args:
            num_examples: Training examples of the step's global batch.
        """
        self.num_examples += num_examples
        # w_t / Σ w_s; the sum is 1 − d_1 ⋯ d_t. In the first step this is 1, and the average becomes the weights.
        share = self._one_minus_decay(num_examples) / self._one_minus_decay(self.num_examples)
        with torch.no_grad():
            if self._is_converted:
                weights = [
                    weight.to(average.dtype) for weight, average in zip(self._weights, self._average, strict=True)
                ]
                torch._foreach_lerp_(self._average, weights, share)
            else:
                torch._foreach_lerp_(self._average, self._weights, share)

    def _one_minus_decay(self, num_examples: int) -> float:
        return -math.expm1(-math.log(2) * num_examples / self.half_life)

    def state_dict(self) -> dict[str, Tensor]:
        """Return a copy of the state dict of the network, with the average in place of its parameters.

        Before the first update these are the weights at which the average was constructed.

        Returns:
            All entries of the network's state dict, with their dtypes, on their device.
        """
        averages = dict(zip(self._parameters.values(), self._average, strict=True))
        # Parameters that modules share are in the state dict once for each.
        parameters = self.network.named_parameters(remove_duplicate=False)
        averaged = {name: averages[parameter].to(parameter.dtype) for name, parameter in parameters}
        state = {name: entry.detach() for name, entry in self.network.state_dict().items()}
        return {name: entry.clone() for name, entry in (state | averaged).items()}

    def arrays(self) -> dict[str, np.ndarray]:
        """Return copies of all that `restore` needs, for a checkpoint.

        Returns:
            The average of each parameter as `weights/<name>`, and `num_examples`, ().
        """
        averages = zip(self._parameters, self._average, strict=True)
        return {
            **{f"weights/{name}": average.cpu().contiguous().numpy().copy() for name, average in averages},
            "num_examples": np.array(self.num_examples, dtype=np.int64),
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Continue from a checkpoint.

        Args:
            arrays: What `arrays` returned for a network of the same shapes.
        """
        self.num_examples = int(arrays["num_examples"])
        for name, average in zip(self._parameters, self._average, strict=True):
            average.copy_(torch.from_numpy(arrays[f"weights/{name}"]))
