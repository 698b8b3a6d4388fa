"The fast layers against plain formulas in float64, on a chain and where a matrix skips layers; and that they mix what they should mix."

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from inrformer.graph import Fold, GraphBuilder, WeightEmbedding, as_graph
from inrformer.inr import INRSpec, init_inr
from inrformer.layers import Block, EdgeStep, SlidingLayerAttention, neighbours
from inrformer.symmetry import permute_ends, permute_untied, random_permutation, relative_error

CHAIN = INRSpec(widths=(2, 6, 5, 3), omega=10.0)
SKIP = INRSpec(widths=(2, 6, 5, 3), kind="tanh")
each_spec = pytest.mark.parametrize("spec", [CHAIN, SKIP], ids=["chain", "skip"])


@pytest.fixture
def seed():
    torch.manual_seed(0)
    return torch.Generator().manual_seed(0)


def graph_tensors(spec, b=3, dim=8, edge_dim=4):
    edges = tuple(torch.randn(b, *spec.shape(p), edge_dim, dtype=torch.float64, requires_grad=True) for p in spec.matrices)
    return edges, torch.randn(b, sum(spec.widths), dim, dtype=torch.float64, requires_grad=True)


def assert_same(found, wanted, variables):
    "Equal values, and equal gradients of the sum of their squares."
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted):
        assert a.shape == b.shape and (a - b).abs().max() < 1e-10 * (1 + b.abs().max())
    grads = [torch.autograd.grad(sum(t.square().sum() for t in side), variables) for side in (found, wanted)]
    for a, b in zip(*grads):
        assert (a - b).abs().max() < 1e-10 * (1 + b.abs().max())


@each_spec
def test_the_edge_step_is_that_of_the_concatenation(spec, seed):
    step = EdgeStep(dim=8, edge_dim=4).double()
    edges, nodes = graph_tensors(spec)
    first = torch.cat([step.from_edge.weight, step.from_out.weight, step.from_in.weight], dim=1)
    parts = nodes.split(spec.widths, dim=1)
    wanted = []
    for p, e in zip(spec.matrices, edges):
        o, i = (v.expand(*e.shape[:3], 8) for v in (parts[p.out][:, :, None], parts[p.inn][:, None]))
        wanted.append(step.project(F.gelu(F.linear(torch.cat([e, o, i], dim=-1), first, step.from_edge.bias))))
    assert_same(step(edges, nodes, spec), wanted, [*edges, nodes, *step.parameters()])


@each_spec
def test_attention_is_that_of_all_pairs_masked(spec, seed):
    attend = SlidingLayerAttention(dim=8, heads=2).double()
    _, nodes = graph_tensors(spec)
    layer = torch.arange(len(spec.widths)).repeat_interleave(torch.tensor(spec.widths))
    heard = torch.eye(len(spec.widths), dtype=torch.bool)
    for p in spec.matrices:
        heard[p.out, p.inn] = heard[p.inn, p.out] = True
    query, key, value = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in attend.qkv(nodes).chunk(3, dim=-1))
    scores = (query @ key.mT / math.sqrt(4)).masked_fill(~heard[layer[:, None], layer], -math.inf)
    wanted = attend.out((scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2))
    assert_same([attend(nodes, spec)], [wanted], [nodes, *attend.parameters()])
    assert neighbours(spec)[0] == ((0, 1) if spec is CHAIN else (0, 1, 3))


@each_spec
@pytest.mark.parametrize("fold", ["max", "mean"])
def test_the_fold_pools_around_every_neuron(fold, spec, seed):
    fold, reduce = Fold(dim=8, edge_dim=4, fold=fold).double(), (lambda t: t.amax(dim=1)) if fold == "max" else (lambda t: t.mean(dim=1))
    edges, _ = graph_tensors(spec)
    wanted = []
    for l, n in enumerate(spec.widths):
        for v in range(n):
            comes = [reduce(e[:, v]) for p, e in zip(spec.matrices, edges) if p.out == l]
            leaves = [reduce(e[:, :, v]) for p, e in zip(spec.matrices, edges) if p.inn == l]
            wanted.append(sum([to(sum(found)) for to, found in ((fold.incoming, comes), (fold.outgoing, leaves)) if found]))
    assert_same([fold(edges, spec)], [torch.stack(wanted, dim=1)], [*edges, *fold.parameters()])


@each_spec
@pytest.mark.parametrize("raw_scalar", [True, False])
def test_the_embedding_is_direct_sines_and_cosines(raw_scalar, spec, seed):
    embed = WeightEmbedding(spec, width=8, max_frequency=6.0, raw_scalar=raw_scalar).double()
    inr = init_inr(spec, 2, generator=seed).to(torch.float64)
    for k, (vectors, values) in enumerate(zip(embed(inr), inr.tensors, strict=True)):
        for vector, value in zip(vectors.flatten(0, -2).tolist(), values.flatten().tolist()):
            w = (value - embed.mean[k].item()) / embed.scale[k].item()
            angles = [w * 6.0 * f / 3 for f in range(4)]
            sines = [w if raw_scalar else 0.0, *map(math.sin, angles[1:])]
            assert vector == pytest.approx([*sines, *map(math.cos, angles)], abs=1e-6)


@each_spec
def test_a_graph_adds_up_what_a_layer_has(spec, seed):
    tensors = [torch.randn(3, *spec.shape(p), 4) for p in spec.layout]
    graph = as_graph(tensors, spec)
    assert [e.shape for e in graph.edges] == [(3, *spec.shape(p), 4) for p in spec.matrices]
    for l, nodes in enumerate(graph.nodes):
        own = [t for t, p in zip(tensors, spec.layout) if (p.out, p.inn) == (l, None)]
        assert torch.equal(nodes, sum(own, torch.zeros(3, spec.widths[l], 4)))


def matrices(inr):
    return tuple(t for t, p in zip(inr.tensors, inr.spec.layout) if p.inn is not None)


@each_spec
def test_maps_that_mix_neurons_are_sensitive(spec, seed):
    inr = init_inr(spec, 3, generator=seed).to(torch.float64)
    build, block = GraphBuilder(spec, dim=16, edge_dim=8, hint=16).double(), Block(dim=16, edge_dim=8, heads=4).double()
    actions = [partial(permute_untied, perm=random_permutation(spec, 3, generator=seed)), partial(permute_ends, inputs=[1, 0]), partial(permute_ends, outputs=[1, 2, 0])]
    for act in actions:
        assert relative_error(build(act(inr)), act(build(inr))) > 1e-3
    graph = build(inr)
    for act in actions:
        assert relative_error(block(build(act(inr)), matrices(act(inr))), act(block(graph, matrices(inr)))) > 1e-3
    for part in (block, Block(dim=16, edge_dim=8, heads=4, carry=False).double()):
        assert relative_error(part(actions[0](graph), matrices(inr)), actions[0](part(graph, matrices(inr)))) > 1e-3
