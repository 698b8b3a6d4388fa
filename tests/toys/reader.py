"A toy reader, added as CONTRIBUTING says: signals are sent through the weights, whatever the kind makes of them, and averaged in every layer."

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from inrformer.graph import Vectors
from inrformer.inr import INR, INRSpec, Statistics
from inrformer.reader import READERS, Reader, ReaderConfig


@dataclass(frozen=True, kw_only=True)
class SignalsConfig(ReaderConfig):
    "How much is sent."

    signals: int = 8  # vectors of numbers that enter at layer 0

    def check(self) -> None:
        "Raise TypeError or ValueError for what cannot work."
        self.typed()
        self.at_least(1, "signals")


class Signals(Reader):
    "Learned numbers enter at layer 0; a neuron holds the tanh of what its matrices and vectors bring. Features: the mean over each hidden layer, and all of layer L."

    Config = SignalsConfig

    def __init__(self, spec: INRSpec, config: SignalsConfig | None = None, statistics: Statistics | None = None):
        super().__init__(spec, config, statistics)
        self.sent = Vectors(spec.widths[0], self.config.signals, std=1.0)
        self.width = self.config.signals * (spec.depth - 1 + spec.widths[-1])
        self.norm = nn.LayerNorm(self.width)

    def read(self, inr: INR) -> Float[Tensor, "b k"]:
        tensors = list(zip(self.spec.layout, self.standard(inr)))
        layers = [self.sent().expand(len(inr), -1, -1)]
        for l in range(1, self.spec.depth + 1):
            brought = [t[:, :, None] if p.inn is None else t @ layers[p.inn] for p, t in tensors if p.out == l]
            layers.append(sum(brought).tanh())
        means = [layer.mean(dim=1) for layer in layers[1:-1]]
        return self.norm(torch.cat([*means, layers[-1].flatten(1)], dim=1))


READER = Signals
READERS["signals"] = READER
