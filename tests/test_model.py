"The whole model in float64: equivariant, invariant, sensitive, for every size and shape that the project promises."

from functools import partial

import pytest
import torch

from inrformer.graph import GraphBuilder, WeightEmbedding
from inrformer.inr import INR, INRSpec, Statistics, init_siren, load_inr, save_inr
from inrformer.layers import Block
from inrformer.model import MODELS, INRFormer
from inrformer.symmetry import (
    Permutation,
    canonicalize,
    equivariance_error,
    flip_signs,
    invariance_error,
    permute,
    permute_ends,
    permute_untied,
    random_permutation,
    random_signs,
    random_turns,
    relative_error,
    shift_phases,
)

COUNTS = dict(demo=148_908, tiny=704_300, base=1_882_444, paper=142_412)


@pytest.fixture
def seed():
    torch.manual_seed(0)
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("name", MODELS)
def test_parameter_counts(name):
    model = INRFormer(INRSpec(), classes=10, **MODELS[name])
    assert sum(p.numel() for p in model.parameters()) == COUNTS[name]


@pytest.mark.parametrize("name", MODELS)
def test_models_are_invariant_and_sensitive(name, seed):
    spec = INRSpec(widths=(2, 10, 7, 3))
    model = INRFormer(spec, classes=10, hint=64, query=16, **MODELS[name]).double()
    inr = init_siren(spec, 3, generator=seed).to(torch.float64)
    assert invariance_error(lambda x: model(x).logits, inr, generator=seed) < 1e-10
    assert equivariance_error(lambda x: model(x).crop, inr, generator=seed) < 1e-10
    logits, perm = model(inr).logits, random_permutation(spec, 3, generator=seed)
    for broken in (permute_untied(inr, perm), permute_ends(inr, inputs=[1, 0]), permute_ends(inr, outputs=[1, 2, 0])):
        assert relative_error(model(broken).logits, logits) > 1e-3
    assert (model(inr[2:]).logits - logits[2:]).abs().max() < 1e-12


@pytest.mark.parametrize("hidden", [(5,), (6, 4), (4, 7, 3), (3, 5, 4, 6), (4, 3, 4, 3, 4)])
@pytest.mark.parametrize("ends", [(1, 1), (2, 3), (3, 1)])
def test_every_depth_and_every_end(hidden, ends, seed):
    spec = INRSpec(widths=(ends[0], *hidden, ends[1]), omega=10.0)
    model = INRFormer(spec, classes=4, dim=8, edge_dim=4, depth=2, heads=2, hint=2 ** ends[0], query=3 ** ends[0], features=2).double()
    inr = init_siren(spec, 3, generator=seed).to(torch.float64)
    assert invariance_error(lambda x: model(x).logits, inr, generator=seed) < 1e-10
    perm = random_permutation(spec, 3, generator=seed)
    assert relative_error(model(permute_untied(inr, perm)).logits, model(inr).logits) > 1e-3


def test_maps_that_mix_neurons_are_sensitive(seed):
    spec = INRSpec(widths=(2, 8, 6, 3))
    inr = init_siren(spec, 3, generator=seed).to(torch.float64)
    build, block = GraphBuilder(spec, dim=16, edge_dim=8, hint=16).double(), Block(dim=16, edge_dim=8, heads=4).double()
    actions = [partial(permute_untied, perm=random_permutation(spec, 3, generator=seed)), partial(permute_ends, inputs=[1, 0]), partial(permute_ends, outputs=[1, 2, 0])]
    for act in actions:
        assert relative_error(build(act(inr)), act(build(inr))) > 1e-3
    graph = build(inr)
    for act in actions:
        assert relative_error(block(build(act(inr))), act(block(graph))) > 1e-3
    assert relative_error(block(actions[0](graph)), actions[0](block(graph))) > 1e-3


def test_statistics_do_not_see_the_order_of_neurons(seed):
    spec = INRSpec(widths=(2, 8, 6, 3))
    inr = init_siren(spec, 50, generator=seed)
    moved = permute(inr, random_permutation(spec, 50, generator=seed))
    for before, after in zip(vars(Statistics.of(inr)).values(), vars(Statistics.of(moved)).values()):
        assert torch.allclose(before, after, rtol=1e-6)


def test_a_constant_tensor_has_scale_one():
    inr = init_siren(INRSpec(widths=(2, 4, 1), bias_init="zero"), 3)
    assert Statistics.of(inr).scale[2] == 1
    assert WeightEmbedding(inr.spec, width=4, statistics=Statistics.of(inr))(inr).nodes[1].isfinite().all()


def test_permutations_form_a_group(seed):
    spec = INRSpec(widths=(2, 8, 6, 3))
    graph = GraphBuilder(spec, dim=8, edge_dim=4, hint=4)(init_siren(spec, 3, generator=seed))
    p, q, r = (random_permutation(spec, 3, generator=seed) for _ in range(3))
    for a, b in zip(((r @ q) @ p).indices, (r @ (q @ p)).indices):
        assert torch.equal(a, b)
    back = permute(permute(graph, p), p.inverse())
    assert all(torch.equal(a, b) for a, b in zip((*back.nodes, *back.edges), (*graph.nodes, *graph.edges)))


def test_what_permutes_nothing_is_refused(seed):
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


@pytest.mark.parametrize("shape", [(2, 3, 4, 2), (3, 4, 2), (4, 3)])
def test_coordinates_of_another_shape_are_refused(shape, seed):
    with pytest.raises(ValueError, match=r"do not fit .*: needed are torch.float32, \(q, 2\) or \(2, q, 2\)"):
        init_siren(INRSpec(), 2, generator=seed)(torch.zeros(shape))


def test_rows_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"rows of shape \(2, 7\) are no INRs of widths \(2, 4, 1\): needed is \(b, 17\)"):
        INR.from_flat(torch.zeros(2, 7), INRSpec(widths=(2, 4, 1)))


@pytest.mark.parametrize("bias_init", ["uniform", "zero"])
@pytest.mark.parametrize("omega", [1.0, 8.0, 30.0])
@pytest.mark.parametrize("hidden", [(6,), (8, 5), (4, 5, 6, 7)])
def test_one_canonical_form_per_orbit(omega, hidden, bias_init, seed):
    spec = INRSpec(widths=(2, *hidden, 3), omega=omega, bias_init=bias_init)
    inr = init_siren(spec, 20, generator=seed).to(torch.float64)
    coords = torch.rand(50, 2, generator=seed, dtype=torch.float64) * 2 - 1
    form = canonicalize(inr)
    assert (form(coords) - inr(coords)).abs().max() < 1e-12
    assert (canonicalize(form).flat() - form.flat()).abs().max() < 1e-12
    for _ in range(3):
        twin = shift_phases(flip_signs(inr, random_signs(spec, 20, generator=seed)), random_turns(spec, 20, most=20, generator=seed))
        assert (canonicalize(twin).flat() - form.flat()).abs().max() < 1e-9
    assert equivariance_error(canonicalize, inr, generator=seed) < 1e-12


def test_files_that_are_no_inrs_are_refused(tmp_path, seed):
    from safetensors.torch import save_file

    save_file(dict(weight1=torch.zeros(2, 2)), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="carries no INRSpec"):
        load_inr(tmp_path / "other.safetensors")
    for spec in ("{}", "[]", '{"widths": [2, 4, 1], "omega": "fast"}', '{"widths": [2'):
        save_file(dict(weight1=torch.zeros(2, 2)), tmp_path / "other.safetensors", metadata=dict(spec=spec))
        with pytest.raises(ValueError, match="other.safetensors carries no readable INRSpec"):
            load_inr(tmp_path / "other.safetensors")
    save_inr(init_siren(INRSpec(widths=(2, 4, 1)), 2), tmp_path / "good.safetensors")
    assert load_inr(tmp_path / "good.safetensors").spec.widths == (2, 4, 1)


def test_infinite_weights_are_refused():
    spec = INRSpec(widths=(2, 4, 1))
    model = INRFormer(spec, classes=3, dim=8, edge_dim=4, depth=1, heads=2, hint=4, query=4).eval()
    inr = init_siren(spec, 2)
    inr.biases[1][1, 0] = float("inf")
    with pytest.raises(ValueError, match=r"b\^2 holds NaN or infinity in INR 1"):
        model(inr)
