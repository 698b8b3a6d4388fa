"INRFormer's own: its sizes, its presets, what its target INRs compute, and how little `hint` changes."

import ast
import dataclasses
import itertools
import math
import statistics
from pathlib import Path

import pytest
import torch

import inrformer.readers
from inrformer.graph import as_graph
from inrformer.inr import INR, KINDS, INRSpec, init_inr
from inrformer.layers import ATTENTIONS
from inrformer.readers.inrformer import HEADS, INR2INR, MODELS, INRFormer, INRFormerConfig, target_graph, units
from inrformer.reader import READERS, seed_parameters
from inrformer.symmetry import equivariance_error, invariance_error, permute_ends, permute_untied, random_derangement, relative_error

COUNTS = dict(demo=167_470, tiny=806_894, base=2_160_214, paper=144_078)
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
    for values, message in ((dict(edge_dim=33), "edge_dim must be even"), (dict(dim=10, heads=4), "dim 10 does not split into 4 heads"), (dict(fold="sum"), "fold must be one of"), (dict(depth=-1), "depth must be at least 0"), (dict(features=6, outputs=4), "features 6 must be a multiple of outputs 4"), (dict(blocks="elementwise", carry=False), "elementwise blocks look at no neighbour")):
        with pytest.raises(ValueError, match=message):
            INRFormerConfig(**values)
    with pytest.raises(ValueError, match="hint=63 is no grid in 2 dimensions"):
        INRFormer(INRSpec(), INRFormerConfig(hint=63))


@pytest.mark.parametrize("start", [True, False])
@pytest.mark.parametrize("spec", [INRSpec(widths=(2, 6, 5, 1), omega=10.0, offset=0.5), INRSpec(widths=(2, 6, 5, 3), omega=10.0), INRSpec(widths=(2, 6, 5, 3), kind="tanh")], ids=["grey", "colour", "skip"])
def test_target_inrs_are_read_entry_by_entry(start, spec, seed):
    inr = init_inr(spec, 3, generator=seed).to(torch.float64)
    tensors = [torch.randn(3, *spec.shape(p), 8, dtype=torch.float64) for p in spec.layout]
    head = INR2INR(spec, dim=8, edge_dim=8, targets=4, outputs=2, start=start).double()
    for p in head.parameters():
        torch.nn.init.normal_(p)
    targets = head(inr, as_graph(tensors, spec))
    for p, own, vectors, found, unit in zip(spec.layout, inr.tensors, tensors, targets.tensors, head.unit):
        last = p.out == spec.depth
        read = (head.last_vectors if last else head.vectors)[0](vectors) if p.inn is None else (head.last_matrices if last else head.matrices)(vectors)
        for b, k, c in itertools.product(range(3), range(4), range(2 if last else 1)):
            wanted = unit * read[b, ..., k * 2 + c if last else k] + (own[b] if start else 0)
            n = len(own[b])
            assert (found[b * 4 + k][c * n : (c + 1) * n] - wanted).abs().max() < 1e-10
    graph = target_graph(targets, 4)
    assert torch.equal(graph.edges[0][1, ..., 2], targets.tensors[0][1 * 4 + 2])


def test_values_of_target_inrs_are_those_of_sines(seed):
    spec = INRSpec(widths=(2, 6, 5, 3), omega=10.0, offset=0.5)
    model = INRFormer(spec, INRFormerConfig(features=4)).double()
    inr, coords = init_inr(spec, 3, generator=seed).to(torch.float64), torch.rand(9, 2, dtype=torch.float64, generator=seed)
    targets = model.translate(inr, model.graphs(inr)[-1])
    for values, w1, b1, w2, b2, w3, b3 in zip(targets(coords), *targets.tensors):
        z = coords
        for w, b in ((w1, b1), (w2, b2)):
            z = torch.sin(10.0 * (z @ w.T + b))
        assert (values - (z @ w3.T + b3 + 0.5)).abs().max() < 1e-10


SMALL = dict(dim=16, edge_dim=8, heads=2, hint=16, query=16, features=4, outputs=2)
COLOUR = INRSpec(widths=(2, 6, 5, 3), omega=20.0)
PARTS = [dict(head=head) for head in HEADS] + [dict(mlp=12), dict(head="both", mlp=12)] + [dict(depth=0, head=head) for head in HEADS] + [dict(attention=name) for name in ATTENTIONS] + [
    dict(blocks="elementwise"), dict(edge_step=False), dict(carry=False), dict(head="both", attention="none", edge_step=False, carry=False)]


def reader(spec=COLOUR, **choices):
    made = INRFormer(spec, INRFormerConfig(**SMALL | choices)).classify(CLASSES)
    return seed_parameters(made, 0).double().eval()


@pytest.mark.parametrize("choices", PARTS, ids=str)
def test_whatever_it_is_built_of_it_is_invariant_and_reads(choices, seed):
    inr, model = init_inr(COLOUR, 3, generator=seed).to(torch.float64), reader(**choices)
    assert invariance_error(model, inr, generator=seed) < 1e-10 and equivariance_error(model.edit, inr, generator=seed) < 1e-10
    assert relative_error(model(permute_ends(inr, inputs=[1, 0])), model(inr)) > 1e-3 and model.features(inr).shape == (3, model.width)
    assert model.reads == {"start": "input INR", "pool": "vectors"}.get(model.config.head, "target INR")


@pytest.mark.parametrize("kind", [dict(), dict(kind="relu")], ids=["siren", "relu"])
def test_pooled_vectors_need_no_evaluation(kind, seed, monkeypatch):
    spec = INRSpec(widths=(2, 6, 5, 3), **kind)
    inr, model = init_inr(spec, 3, generator=seed).to(torch.float64), reader(spec, head="pool")
    logits = model(inr)

    def refuse(*arguments):
        raise AssertionError("an INR was evaluated")

    for name in KINDS:
        monkeypatch.setitem(KINDS._known, name, dataclasses.replace(KINDS[name], evaluate=refuse))
    assert torch.equal(model(inr), logits)
    with pytest.raises(AssertionError, match="an INR was evaluated"):
        reader(spec)(inr)


@pytest.mark.parametrize("head", ["translate", "both"])
@pytest.mark.parametrize("depth", [0, 2])
def test_what_a_translation_evaluates_is_not_the_input(head, depth, seed, monkeypatch):
    inr, model, seen = init_inr(COLOUR, 3, generator=seed).to(torch.float64), reader(head=head, depth=depth), []
    kind = KINDS["siren"]
    monkeypatch.setitem(KINDS._known, "siren", dataclasses.replace(kind, evaluate=lambda x, points: seen.append(x) or kind.evaluate(x, points)))
    model.features_and_crop(inr, model.build.whole.expand(3, -1, -1))
    assert sum(map(len, seen)) == 3 * (2 + 1)
    held = {t.untyped_storage().data_ptr() for t in inr.tensors}
    for x in seen:
        assert not held & {t.untyped_storage().data_ptr() for t in x.tensors}
        for given, found in zip(inr.tensors, x.tensors):
            each = [part for target in found.unflatten(0, (3, -1)).unbind(1) for part in target.split(given.shape[1], dim=1)]
            assert each and not any(torch.allclose(given, part) for part in each)


@pytest.mark.parametrize("head", ["translate", "both", "start"])
def test_a_translation_takes_nothing_of_the_input_but_its_graph(head, seed):
    inr, other = (init_inr(COLOUR, 3, generator=seed).to(torch.float64) for _ in range(2))
    model = reader(head=head)
    targets, others = (model.translate(x, model.graphs(inr)[-1]).tensors for x in (inr, other))
    assert all(map(torch.equal, targets, others)) == (head != "start")


SINES = {  # functions that may take a sine, of a weight or of a place: none of them knows the points of an image
    "inrformer": {"index_nodes"}, "nfn_np": {"place_code", "forward"}, "graph": {"embed"},
}
MODULES = [*(Path(inrformer.readers.__file__).parent).glob("[a-z]*.py"), *(Path(inrformer.__file__).parent / f"{name}.py" for name in ("reader", "graph", "layers"))]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_reader_evaluates_an_inr_by_itself(path):
    "Sines of INRs belong to kinds; a reader that computed them itself would escape the tests above and below."
    source = ast.parse(path.read_text())
    said = [(getattr(node, "attr", getattr(node, "id", getattr(node, "name", ""))), node) for node in ast.walk(source) if isinstance(node, (ast.Attribute, ast.Name, ast.alias))]
    allowed = {id(node) for f in ast.walk(source) if isinstance(f, ast.FunctionDef) and f.name in SINES.get(path.stem, ()) for node in ast.walk(f)}
    assert not [name for name, node in said if name in ("sin", "cos") and id(node) not in allowed]
    assert "evaluate" not in {name for name, _ in said}


@pytest.mark.parametrize("name", list(READERS))
def test_a_reader_says_what_it_reads(name, seed, monkeypatch):
    "Where no network is evaluated, an answer needs no evaluation; where one is, it does."
    spec = INRSpec(widths=(2, 5, 4, 1))
    inr, model, kind, asked = init_inr(spec, 3, generator=seed), READERS[name](spec).classify(CLASSES).eval(), KINDS["siren"], []
    monkeypatch.setitem(KINDS._known, "siren", dataclasses.replace(kind, evaluate=lambda x, points: asked.append(x) or kind.evaluate(x, points)))
    model(inr)
    assert bool(asked) == (model.reads in ("target INR", "input INR")) and model.reads in ("target INR", "input INR", "vectors", "weights")


def decades(spec, seed, **choices):
    "How unlike the gradients are that reach the read-outs of different tensors at the start, in decades; the shift of the last layer, whose unit is small on purpose, is left out."
    inr = init_inr(spec, 8, generator=torch.Generator().manual_seed(seed))
    model = seed_parameters(INRFormer(spec, INRFormerConfig(hint=16, **choices)).classify(CLASSES), seed)
    read = [t.detach().requires_grad_() for t in model.translate(inr, model.graphs(inr)[-1]).tensors]
    seen = model.look(INR(tuple(read), model.translate.spec))
    assert 0.005 < seen.std() < 10, "values that neither vanish nor explode"
    loss = torch.nn.functional.cross_entropy(model.answer(model.norms["target"](seen)), torch.arange(8))
    norms = [(g * unit).norm().item() for g, unit, p in zip(torch.autograd.grad(loss, read), units(spec), spec.layout) if p is not spec.layout[-1]]
    return math.log10(max(norms) / min(norms))


@pytest.mark.parametrize("choices", [dict(), dict(fold="mean", max_frequency=2.0)], ids=["max", "mean"])
@pytest.mark.parametrize("width", [8, 32, 128])
@pytest.mark.parametrize("depth", [2, 3, 6])
def test_gradients_reach_every_tensor_of_a_target(width, depth, choices):
    "Within two decades of each other in the median of four starts, a little more in the worst, and omega is no part of it."
    spec = INRSpec(widths=(2, *[width] * (depth - 1), 1), omega=30.0)
    found = [decades(spec, seed, **choices) for seed in range(4)]
    assert statistics.median(found) < 2 and max(found) < 2.6, found
    for omega in (1.0, 8.0):
        assert decades(dataclasses.replace(spec, omega=omega), 0, **choices) == pytest.approx(found[0], abs=0.05)


@pytest.mark.parametrize("kind", [dict(), dict(kind="relu"), dict(kind="relu", options=(("fourier", 2),))], ids=["siren", "relu", "fourier"])
def test_independent_read_outs_of_one_unit_give_sums_of_order_one(kind, seed):
    spec = INRSpec(widths=(10 if kind.get("options") else 2, 64, 64, 1), omega=30.0, **kind)
    inr = INR(tuple(unit * torch.randn(200, *spec.shape(p), generator=seed) for p, unit in zip(spec.layout, units(spec))), spec)
    assert 0.5 < inr(torch.rand(64, 2, generator=seed) * 2 - 1).std() < 3
