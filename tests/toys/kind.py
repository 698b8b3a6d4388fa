"A toy kind, added as CONTRIBUTING says: tanh layers, and a matrix that takes the coordinates straight to the channels."

import torch
from jaxtyping import Float
from torch import Tensor

from inrformer.inr import INR, KINDS, INRSpec, Kind, Param, chain


def layout(spec: INRSpec) -> tuple[Param, ...]:
    "A chain, and the matrix `skip` from the coordinates to the channels where the spec asks for it."
    skip = Param("skip", spec.depth, 0, f"b{spec.depth}")
    return (*chain(spec), skip) if dict(spec.options)["skip"] else chain(spec)


def start(spec: INRSpec, n: int, generator: torch.Generator | None) -> tuple[Tensor, ...]:
    "Normal numbers: those of matrices divided by the root of the numbers that they add up, those of vectors by 10, or 0 where the spec says so."
    def scale(p: Param) -> float:
        return (0.0 if spec.bias_init == "zero" else 0.1) if p.inn is None else spec.widths[p.inn] ** -0.5

    return tuple(scale(p) * torch.randn(n, *spec.shape(p), generator=generator) for p in spec.layout)


def evaluate(inr: INR, coords: Float[Tensor, "*b q n0"]) -> Float[Tensor, "b q c"]:
    "z^0 = x, z^l = tanh(W^l z^{l-1} + b^l), and W^L z^{L-1} + b^L + skip x + offset."
    named, depth = inr.named, inr.spec.depth
    x = z = coords.mT.expand(len(inr), *coords.mT.shape[-2:])
    for l in range(1, depth):
        z = (named[f"W{l}"] @ z + named[f"b{l}"][:, :, None]).tanh()
    values = named[f"W{depth}"] @ z + named[f"b{depth}"][:, :, None] + inr.spec.offset
    return (values + named["skip"] @ x if "skip" in named else values).mT


def twins(inr: INR, generator: torch.Generator | None) -> INR:
    "Some hidden neurons change their sign, and so does what leaves them: tanh(-x) = -tanh(x)."
    named = inr.named
    for l, n in enumerate(inr.spec.hidden, 1):
        sign = (2 * torch.randint(2, (len(inr), n), generator=generator) - 1).to(inr.tensors[0])
        named |= {f"W{l}": named[f"W{l}"] * sign[:, :, None], f"b{l}": named[f"b{l}"] * sign, f"W{l + 1}": named[f"W{l + 1}"] * sign[:, None]}
    return INR(tuple(named.values()), inr.spec)


KIND = Kind(layout=layout, start=start, evaluate=evaluate, twins=twins, options=dict(skip=True))
KINDS["tanh"] = KIND
