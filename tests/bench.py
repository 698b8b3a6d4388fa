"INRs and readers with random weights, for tests of what is measured and drawn."

from functools import cache

import torch

from inrformer.config import config_from
from inrformer.inr import INR, INRSpec, init_inr
from inrformer.inspection import Source
from inrformer.reader import READERS, Reader, seed_parameters
from inrformer.readers.inrformer import MODELS
from inrformer.splits import Split

SIREN = INRSpec(widths=(2, 12, 12, 1), omega=8.0)
RELU = INRSpec(widths=(2, 6, 5, 1), kind="relu")
FOURIER = INRSpec(widths=(10, 6, 5, 3), kind="relu", options=(("fourier", 2),))
CUBE = INRSpec(widths=(3, 6, 5, 1))


def seeded(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def inr_of(spec: INRSpec, b: int = 1) -> INR:
    return init_inr(spec, b, generator=seeded()).to(torch.float64)


def reader_of(spec: INRSpec, name: str = "inrformer", classes: str = "abcd", **choices) -> Reader:
    "A reader, drawn anew, with a letter for each class."
    kind = READERS[name]
    small = MODELS["demo"] | dict(hint=8 if spec.coordinates == 3 else 16, query=8 if spec.coordinates == 3 else 16) if name == "inrformer" else {}
    reader = kind(spec, kind.Config(**small | choices))
    return seed_parameters(reader.classify(classes) if classes else reader, 0).eval()


@cache
def siren_reader() -> Reader:
    return reader_of(SIREN)


def source_of(reader: Reader, b: int, about: str) -> Source:
    columns = (torch.arange(b) % 4, torch.arange(b), torch.full((b,), 30.0), torch.zeros(b, dtype=torch.int64))
    return Source(reader, Split(inr_of(reader.spec, b).to(torch.float32), *columns, (8, 8)), None, None, config_from({}), about)
