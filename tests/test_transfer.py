"A reader on INRs of another width: it runs where no parameter counts neurons, and is refused in words elsewhere."

from dataclasses import replace

import pytest
import torch

from inrformer.inr import INRSpec, Statistics, init_inr
from inrformer.reader import READERS, seed_parameters
from inrformer.symmetry import permute, random_permutation
from inrformer.transfer import transferred

SPEC, WIDE = INRSpec(widths=(2, 5, 4, 1)), INRSpec(widths=(2, 9, 6, 1))
COUNT = ("flat", "flat_transformer", "inr2array", "inr2vec", "mlp")  # readers with a number for a neuron


@pytest.mark.parametrize("name", [name for name in READERS if name not in COUNT and READERS[name].invariant])
def test_a_reader_reads_another_width(name):
    generator = torch.Generator().manual_seed(0)
    reader = seed_parameters(READERS[name](SPEC, READERS[name].Config()).classify(("a", "b")), 0).double().eval()
    inr = init_inr(WIDE, 3, generator=generator).to(torch.float64)
    other = transferred(reader, WIDE, Statistics.of(inr))
    with torch.no_grad():
        logits, moved = other(inr), other(permute(inr, random_permutation(WIDE, 3, generator=generator)))
    torch.testing.assert_close(moved, logits, atol=1e-10, rtol=1e-10)
    assert logits.std(dim=0).min() > 0 and torch.equal(other.scale, Statistics.of(inr).scale)
    with torch.no_grad():
        small = init_inr(SPEC, 3, generator=generator).to(torch.float64)
        assert torch.equal(transferred(reader, SPEC)(small), reader(small))


@pytest.mark.parametrize("name", COUNT)
def test_a_reader_that_counts_neurons_reads_one_width_alone(name):
    with pytest.raises(ValueError, match=f"{name} is of shape .* it reads one width alone"):
        transferred(READERS[name](SPEC, READERS[name].Config()).classify(("a", "b")), WIDE)


@pytest.mark.parametrize("other", [dict(widths=(2, 5, 1)), dict(widths=(3, 5, 4, 1)), dict(omega=7.0), dict(kind="relu")])
def test_what_differs_in_more_than_its_width_is_refused(other):
    with pytest.raises(ValueError, match="in more than the width of their hidden layers"):
        transferred(READERS["deepsets"](SPEC), replace(SPEC, **other))
