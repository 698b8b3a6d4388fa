"INRFormer's own: its sizes, its presets, what its target INRs compute, and how little `hint` changes."

import pytest
import torch

from inrformer.graph import as_graph
from inrformer.inr import INRSpec, init_inr
from inrformer.readers.inrformer import INR2INR, MODELS, INRFormer, INRFormerConfig, target_graph
from inrformer.reader import seed_parameters
from inrformer.symmetry import equivariance_error, invariance_error, permute_ends, permute_untied, random_derangement, relative_error

COUNTS = dict(demo=148_908, tiny=704_300, base=1_882_444, paper=142_412)
CLASSES = tuple(map(str, range(10)))


@pytest.fixture
def seed():
    torch.manual_seed(0)
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("name", MODELS)
def test_parameter_counts(name):
    model = INRFormer(INRSpec(), INRFormerConfig(model=name, **MODELS[name])).classify(CLASSES)
    assert sum(p.numel() for p in model.parameters()) == COUNTS[name]


@pytest.mark.parametrize("name", MODELS)
def test_presets_are_invariant_and_sensitive(name, seed):
    spec = INRSpec(widths=(2, 6, 5, 3))
    model = INRFormer(spec, INRFormerConfig(model=name, hint=64, query=16, **MODELS[name])).classify(CLASSES).double().eval()
    inr = init_inr(spec, 3, generator=seed).to(torch.float64)
    assert invariance_error(model, inr, trials=2, generator=seed) < 1e-10
    assert equivariance_error(model.edit, inr, trials=2, generator=seed) < 1e-10
    logits, perm = model(inr), random_derangement(spec, 3, generator=seed)
    for broken in (permute_untied(inr, perm), permute_ends(inr, inputs=[1, 0]), permute_ends(inr, outputs=[1, 2, 0])):
        assert relative_error(model(broken), logits) > 1e-3


def test_models_that_differ_in_their_hint_share_all_else():
    few, many = (seed_parameters(INRFormer(INRSpec(), INRFormerConfig(hint=hint)).classify(CLASSES), 0) for hint in (64, 256))
    other = [key for key, t in few.named_parameters() if not torch.equal(t, many.get_parameter(key)[..., : t.shape[-1]]) or t.shape != many.get_parameter(key).shape]
    assert other and all(key.startswith("build.hint_map.") for key in other)


def test_edge_width_depth_and_heads_are_refused_by_name():
    for values, message in ((dict(edge_dim=33), "edge_dim must be even"), (dict(dim=10, heads=4), "dim 10 does not split into 4 heads"), (dict(fold="sum"), "fold must be one of"), (dict(depth=-1), "depth must be at least 0")):
        with pytest.raises(ValueError, match=message):
            INRFormerConfig(**values)
    with pytest.raises(ValueError, match="hint=63 is no grid in 2 dimensions"):
        INRFormer(INRSpec(), INRFormerConfig(hint=63))


@pytest.mark.parametrize("start", [True, False])
@pytest.mark.parametrize("spec", [INRSpec(widths=(2, 6, 5, 1), omega=10.0, offset=0.5), INRSpec(widths=(2, 6, 5, 3), omega=10.0), INRSpec(widths=(2, 6, 5, 3), kind="tanh")], ids=["grey", "colour", "skip"])
def test_target_inrs_are_read_entry_by_entry(start, spec, seed):
    inr = init_inr(spec, 3, generator=seed).to(torch.float64)
    tensors = [torch.randn(3, *spec.shape(p), 8, dtype=torch.float64) for p in spec.layout]
    head = INR2INR(spec, dim=8, edge_dim=8, targets=4, unit=torch.rand(len(spec.layout)), start=start).double()
    for p in head.parameters():
        torch.nn.init.normal_(p)
    targets = head(inr, as_graph(tensors, spec))
    for p, own, vectors, found, unit in zip(spec.layout, inr.tensors, tensors, targets.tensors, head.unit):
        read = (head.vectors[0] if p.inn is None else head.matrices)(vectors).movedim(-1, 1)
        wanted = (own[:, None] + unit * read if start else read).flatten(0, 1)
        assert (found - wanted).abs().max() < 1e-10
    graph = target_graph(targets, 4)
    assert torch.equal(graph.edges[0][1, ..., 2], targets.tensors[0][1 * 4 + 2])


def test_values_of_target_inrs_are_those_of_sines(seed):
    spec = INRSpec(widths=(2, 6, 5, 3), omega=10.0, offset=0.5)
    model = INRFormer(spec, INRFormerConfig(features=2)).double()
    inr, coords = init_inr(spec, 3, generator=seed).to(torch.float64), torch.rand(9, 2, dtype=torch.float64, generator=seed)
    targets = model.translate(inr, model.graphs(inr)[-1])
    for values, w1, b1, w2, b2, w3, b3 in zip(targets(coords), *targets.tensors):
        z = coords
        for w, b in ((w1, b1), (w2, b2)):
            z = torch.sin(10.0 * (z @ w.T + b))
        assert (values - (z @ w3.T + b3 + 0.5)).abs().max() < 1e-10
