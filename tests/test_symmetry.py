"Permutations, what refuses to be one, the measurements, and the canonical form of a SIREN."

from itertools import permutations

import pytest
import torch

from inrformer.graph import GraphBuilder
from inrformer.inr import INR, INRSpec, canonicalize, init_inr
from inrformer.kinds.siren import flip_signs, random_signs, random_turns, shift_phases
from inrformer.symmetry import (
    Permutation,
    align,
    equivariance_error,
    invariance_error,
    permute,
    random_derangement,
    random_permutation,
)

SPEC = INRSpec(widths=(2, 8, 6, 3))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_permutations_form_a_group():
    seed = seeded()
    graph = GraphBuilder(SPEC, dim=8, edge_dim=4, hint=4)(init_inr(SPEC, 3, generator=seed))
    p, q, r = (random_permutation(SPEC, 3, generator=seed) for _ in range(3))
    for a, b in zip(((r @ q) @ p).indices, (r @ (q @ p)).indices):
        assert torch.equal(a, b)
    back = permute(permute(graph, p), p.inverse())
    assert all(torch.equal(a, b) for a, b in zip((*back.nodes, *back.edges), (*graph.nodes, *graph.edges)))


def test_what_permutes_nothing_is_refused():
    index = torch.arange(4).repeat(3, 1)
    cases = {
        r"hidden layer 2 must be an int64 tensor \(b, n_2\), not torch.int32 of shape \(3, 4\)": (index, index.int()),
        "each number once": (index * 0,),
        "at least one hidden layer": (),
    }
    for message, indices in cases.items():
        with pytest.raises(ValueError, match=message):
            Permutation(indices)
    with pytest.raises(TypeError, match="those of an INR or a Graph, not of a Tensor"):
        permute(torch.zeros(3, 4), Permutation((index,)))


@pytest.mark.parametrize("widths", [(2, 2, 1), (2, 5, 2, 3), (1, 1, 4, 1)])
def test_a_derangement_leaves_nobody_in_place(widths):
    spec = INRSpec(widths=widths)
    for seed in range(20):
        for n, index in zip(spec.hidden, random_derangement(spec, 6, generator=seeded(seed)).indices):
            assert n == 1 or (index != torch.arange(n)).all()


def first_is_special(inr: INR) -> INR:
    "A map that breaks only when the first neuron of hidden layer 1 is another one."
    return INR((inr.tensors[0], inr.tensors[1] + torch.tensor([1.0, 0.0], dtype=inr.dtype), *inr.tensors[2:]), inr.spec)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("b", [1, 3])
def test_two_neurons_are_always_swapped(seed, b):
    inr = init_inr(INRSpec(widths=(2, 2, 1)), b, generator=seeded())
    assert equivariance_error(first_is_special, inr, trials=1, generator=seeded(seed)) > 1e-3
    assert invariance_error(lambda x: first_is_special(x).flat(), inr, trials=1, generator=seeded(seed)) > 1e-3
    assert equivariance_error(lambda x: x.map(torch.sin), inr, trials=1, generator=seeded(seed)) == 0


def test_measurements_need_float64_and_a_trial():
    inr = init_inr(SPEC, 2)
    with pytest.raises(TypeError, match="measured in float64"):
        invariance_error(lambda x: x.to(torch.float32).flat(), inr)
    with pytest.raises(ValueError, match="trials must be at least 1"):
        invariance_error(INR.flat, inr, trials=0)


@pytest.mark.parametrize("bias_init", ["uniform", "zero"])
@pytest.mark.parametrize("omega", [1.0, 8.0, 30.0])
@pytest.mark.parametrize("hidden", [(6,), (8, 5), (4, 5, 6, 7)])
def test_one_canonical_form_for_many_turns(omega, hidden, bias_init):
    spec, seed = INRSpec(widths=(2, *hidden, 3), omega=omega, bias_init=bias_init), seeded()
    inr = init_inr(spec, 20, generator=seed).to(torch.float64)
    form = canonicalize(inr)
    for _ in range(3):
        twin = shift_phases(flip_signs(inr, random_signs(spec, 20, generator=seed)), random_turns(spec, 20, most=20, generator=seed))
        assert (canonicalize(twin).flat() - form.flat()).abs().max() < 1e-9


def test_a_tie_is_decided_without_looking_at_places():
    spec = INRSpec(widths=(2, 3, 2, 1))
    inr = init_inr(spec, 1, generator=seeded()).to(torch.float64)
    inr.weights[1][0] = torch.tensor([[0.4, 0.1, -0.4], [0.4, -0.4, 0.2]])
    inr.biases[1].zero_()
    assert equivariance_error(canonicalize, inr, trials=8, generator=seeded(1)) < 1e-12


def test_flips_and_turns_are_of_sirens():
    inr = init_inr(INRSpec(widths=(2, 4, 1), kind="relu"), 2)
    with pytest.raises(ValueError, match="symmetries of a SIREN, not of the kind relu"):
        flip_signs(inr, random_signs(inr.spec, 2))
    with pytest.raises(ValueError, match="signs of hidden layer 1 must be"):
        flip_signs(init_inr(SPEC, 1), (torch.full((1, 8), 2), torch.ones(1, 6, dtype=torch.int64)))


@pytest.mark.parametrize("seed", range(5))
def test_no_order_of_one_layer_is_better_than_the_aligned_one(seed):
    spec = INRSpec(widths=(2, 4, 4, 1))
    inr, reference = (init_inr(spec, 1, generator=seeded(k)).to(torch.float64) for k in (seed, seed + 100))
    found = align(inr, reference)

    def distance(perm: Permutation) -> torch.Tensor:
        return (permute(inr, perm).flat() - reference.flat()).square().sum()

    orders = torch.tensor(list(permutations(range(4))))
    for l in range(2):
        others = (Permutation(tuple(order[None] if k == l else index for k, index in enumerate(found.indices))) for order in orders)
        assert distance(found) <= min(map(distance, others)) + 1e-12


def test_alignment_bears_neurons_that_are_alike():
    spec = INRSpec(widths=(2, 4, 4, 1))
    same = INR(tuple(torch.ones(2, *spec.shape(p)) for p in spec.layout), spec)
    assert align(same, same[:1]).shapes == [(2, 4), (2, 4)]


def test_alignment_refuses_what_it_cannot_compare():
    inr = init_inr(SPEC, 3, generator=seeded())
    for other in (inr[:2], init_inr(INRSpec(widths=(2, 6, 8, 3)), 3)):
        with pytest.raises(ValueError, match="needed are one or 3 INRs of the same widths"):
            align(inr, other)
    with pytest.raises(ValueError, match="W1 holds NaN"):
        align(inr.map(lambda t: t * float("nan")), inr)
