"Layers of the small readers against their equations, spelled out neuron by neuron."

import math
from functools import reduce
from itertools import combinations, product

import pytest
import torch
import torch.nn.functional as F

from inrformer.inr import INR, INRSpec, Statistics
from inrformer.readers.dws import DWSLayer, SetAttention, enter, leave, places
from inrformer.readers.inr2array import Latents
from inrformer.readers.inr2vec import INR2Vec, INR2VecConfig
from inrformer.readers.ng_gnn import GNNLayer, Messages
from inrformer.readers.ng_transformer import NGT, NGTConfig
from inrformer.readers.scalegmn import SignedRound

WIDTHS = (2, 3, 4, 2)
SPEC = INRSpec(widths=WIDTHS, omega=10.0)
BELOW, ABOVE = [range(n) for n in (0, *WIDTHS[:-1])], [range(n) for n in (*WIDTHS[1:], 0)]  # the neurons that neurons of each layer are joined to
NEURONS = [(b, l, n) for b in range(2) for l, width in enumerate(WIDTHS) for n in range(width)]
WEIGHTS = [(b, l, o, i) for b in range(2) for l in range(3) for o in range(WIDTHS[l + 1]) for i in range(WIDTHS[l])]
SETS = [  # for each tensor, the hidden layers that it has an axis for, and its vector at their neurons
    ((1,), lambda w1, o: torch.cat([w1[o, 0], w1[o, 1]])),
    ((1,), lambda b1, o: b1[o]),
    ((2, 1), lambda w2, o, i: w2[o, i]),
    ((2,), lambda b2, o: b2[o]),
    ((2,), lambda w3, i: torch.cat([w3[0, i], w3[1, i]])),
    ((), lambda b3: torch.cat([b3[0], b3[1]])),
]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(module):
    "In float64, each of its parameters drawn anew: none is 0, and no two are equal."
    source = seeded()
    for p in module.double().requires_grad_(False).parameters():
        p.normal_(std=0.5, generator=source)
    return module


def numbers(*shapes):
    source = seeded(1)
    return [torch.randn(*shape, generator=source, dtype=torch.float64) for shape in shapes]


def graph(dim, edge_dim):
    "Vectors of two INRs' neurons and weights."
    made = numbers(*[(2, n, dim) for n in WIDTHS], *[(2, o, i, edge_dim) for o, i in zip(WIDTHS[1:], WIDTHS)])
    return made[:4], made[4:]


def assert_same(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def asked(attend, vectors, dim):
    "What set attention makes of each vector, one after the other for each of its targets."
    query, key, value = zip(*(attend.qkv(x).chunk(3) for x in vectors))
    answers = []
    for q in query:
        heads = []
        for h in range(0, len(q), attend.each):
            head = slice(h, h + attend.each)
            weights = torch.stack([q[head] @ k[head] / math.sqrt(dim) for k in key]).softmax(dim=0)
            heads.append(q[head] + sum(w * v[head] for w, v in zip(weights, value)))
        answers.append([o + F.relu(mix(o)) for o, mix in zip(torch.cat(heads).split(attend.outs), attend.mix)])
    return answers


def test_set_attention():
    attend, (x,) = drawn(SetAttention(5, [8, 4], dim=4, heads=2)), numbers((2, 3, 5))
    assert attend.each == 2 and attend.qkv.out_features == 36
    found = attend(x)
    for b in range(2):
        for n, answers in enumerate(asked(attend, list(x[b]), dim=4)):
            for target, answer in zip(found, answers, strict=True):
                assert_same(target[b, n], answer)


def neurons_of(axes):
    return [dict(zip(axes, index)) for index in product(*(range(WIDTHS[l]) for l in axes))]


def pooled(t, j, kept, reduction):
    "Tensor j of one INR, folded over all neurons but those that are kept."
    axes, vector = SETS[j]
    found = [vector(t, *at.values()) for at in neurons_of(axes) if kept.items() <= at.items()]
    return reduce(torch.maximum, found) if reduction == "max" else sum(found) / len(found)


def linear_part(layer, tensors, k, at, reduction):
    "What tensor k hears at some neurons through linear maps."
    total = 0
    for (kept, heard, hearing), linear in zip(layer.linear.groups, layer.linear.maps, strict=True):
        if k in hearing:
            gathered = torch.cat([pooled(tensors[j], j, {l: at[l] for l in kept}, reduction) for j in heard])
            total = total + linear(gathered).split([layer.linear.outs[m] for m in hearing])[hearing.index(k)]
    return total


def attention_part(layer, tensors, k, at, reduction):
    "What tensor k hears at some neurons through attention."
    total = 0
    for (j, l, hearing), attend in zip(layer.meets, layer.attention, strict=True):
        if k in hearing:
            vectors = [pooled(tensors[j], j, {l: n}, reduction) for n in range(WIDTHS[l])]
            total = total + asked(attend, vectors, dim=4)[at[l]][hearing.index(k)]
    return total


@pytest.mark.parametrize("heads", [0, 2])
def test_a_dws_layer_has_a_map_for_each_pair_and_each_set_of_axes_that_both_have(heads):
    layer = DWSLayer(places(SPEC), 3, 4, heads=heads, reduction="max")
    maps, meetings = [], []
    for (j, (ours, _)), (k, (theirs, _)) in product(enumerate(SETS), repeat=2):
        common = [l for l in (1, 2) if l in ours and l in theirs]
        if heads and len(common) == 1:
            meetings.append((j, k, common[0]))
        else:
            maps += [(j, k, set(kept)) for size in range(len(common) + 1) for kept in combinations(common, size)]
    found = [(j, k, set(kept)) for kept, heard, hearing in layer.linear.groups for j in heard for k in hearing]
    assert sorted(found, key=str) == sorted(maps, key=str)
    assert sorted((j, k, l) for j, l, hearing in layer.meets for k in hearing) == meetings


@pytest.mark.parametrize("reduction", ["max", "mean"])
@pytest.mark.parametrize("heads", [0, 2])
def test_a_dws_layer(heads, reduction):
    "A sixth of what each of the six tensors says."
    where, tensors = places(SPEC), numbers(*[(2, *SPEC.shape(p), 3) for p in SPEC.layout])
    layer = drawn(DWSLayer(where, 3, 4, heads=heads, reduction=reduction))
    found = leave(SPEC, where, layer(enter(SPEC, where, tensors)))
    for b, (k, (axes, vector)) in product(range(2), enumerate(SETS)):
        one = [t[b] for t in tensors]
        for at in neurons_of(axes):
            heard = linear_part(layer, one, k, at, reduction) + attention_part(layer, one, k, at, reduction)
            assert_same(vector(found[k][b], *at.values()), heard / 6)


def message(messages, row, column, edge):
    scale, shift = messages.film(edge).chunk(2)
    return (1 + scale) * (messages.row(row) + messages.column(column)) + shift


def test_messages_of_ng_gnn():
    messages, (rows, columns, edges) = drawn(Messages(4, 5)), numbers((2, 3, 4), (2, 2, 4), (2, 3, 2, 5))
    found = messages(rows, columns, edges)
    for b, r, c in product(range(2), range(3), range(2)):
        assert_same(found[b, r, c], message(messages, rows[b, r], columns[b, c], edges[b, r, c]))


def folded(messages):
    count = len(messages)
    mean = sum(messages) / count
    spread = (sum((m - mean) ** 2 for m in messages) / count + 1e-5).sqrt()
    four = torch.cat([mean, reduce(torch.minimum, messages), reduce(torch.maximum, messages), spread])
    return torch.cat([four, four * math.log(count + 1) / math.log(17)])


@pytest.mark.parametrize("last", [False, True])
def test_a_round_of_ng_gnn(last):
    layer, (nodes, edges) = drawn(GNNLayer(SPEC, 4, 5, last=last)), graph(4, 5)
    found = layer(nodes, edges)
    for b, l, n in NEURONS:
        x = nodes[l][b, n]
        forth = [message(layer.forth, x, nodes[l - 1][b, i], edges[l - 1][b, n, i]) for i in BELOW[l]]
        back = [message(layer.back, x, nodes[l + 1][b, o], edges[l][b, o, n]) for o in ABOVE[l]]
        new = layer.mix(layer.update(torch.cat([x, folded(forth + back)])))
        assert_same(found[l][b, n], new if last else F.silu(layer.after[0](new)))


def test_the_edges_of_ng_gnn():
    layer, (nodes, edges) = drawn(GNNLayer(SPEC, 4, 5, last=False)), graph(4, 5)
    found, step = layer.update_edges(nodes, edges), layer.step
    for b, l, o, i in WEIGHTS:
        heard = step.edge(edges[l][b, o, i]) + step.row(nodes[l + 1][b, o]) + step.column(nodes[l][b, i])
        assert_same(found[l][b, o, i], step.out(F.silu(heard)))


def mlp(net, x):
    first, norm, _, last = net
    return last(F.silu(norm(first(x))))


def odd(part, x):
    first, norm, _ = part.rho
    return part.gamma(x) * part.phi(sum(F.silu(norm(first(signed))) for signed in (x, -x)))


def signed(messages, sender, edge):
    return odd(messages.odd, messages.of_edge(edge) * messages.of_node(sender))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_round_of_scalegmn(bidirectional):
    layer, (nodes, edges) = drawn(SignedRound(SPEC, 4, bidirectional)), graph(4, 4)
    found, none = layer(nodes, edges), torch.zeros(4, dtype=torch.float64)
    for b, l, n in NEURONS:
        x = nodes[l][b, n]
        heard = [x, sum((signed(layer.forth, nodes[l - 1][b, i], edges[l - 1][b, n, i]) for i in BELOW[l]), none)]
        if bidirectional:
            heard.append(sum((signed(layer.back, nodes[l + 1][b, o], edges[l][b, o, n]) for o in ABOVE[l]), none))
        change = (lambda h: mlp(layer.first, h), *[lambda h: odd(layer.hidden, h)] * 2, lambda h: mlp(layer.last, h))[l]
        new = change(torch.cat(heard))
        assert_same(found[l][b, n], new if bidirectional else layer.skip(x) + new)


def test_the_edges_of_scalegmn():
    layer, (nodes, edges) = drawn(SignedRound(SPEC, 4, False)), graph(4, 4)
    found, (norm, _, last) = layer.update_edges(nodes, edges), layer.phi
    for b, l, o, i in WEIGHTS:
        magnitudes = layer.by_row(nodes[l + 1][b, o].abs()) + layer.by_column(nodes[l][b, i].abs())
        assert_same(found[l][b, o, i], layer.edge(edges[l][b, o, i]) * last(F.silu(norm(magnitudes))))


def test_latents_ask_all_entries():
    latents, (entries,) = drawn(Latents(3, 4, 2)), numbers((2, 5, 4))
    found = latents(entries)
    for b, m in product(range(2), range(3)):
        key, value = zip(*(latents.key_value(latents.norm_entries(e)).chunk(2) for e in entries[b]))
        asking = latents.asking.weight[m]
        query = latents.query(latents.norm(asking))
        weights = torch.stack([query @ k / math.sqrt(4) for k in key]).softmax(dim=0)
        heard = asking + latents.out(sum(w * v for w, v in zip(weights, value)))
        passed, gate = latents.gated(latents.norm_feed(heard)).chunk(2)
        assert_same(found[b, m], heard + latents.back(passed * F.gelu(gate)))


def test_inr2vec_is_the_largest_of_all_rows():
    inr = INR(tuple(numbers(*[(2, *SPEC.shape(p)) for p in SPEC.layout])), SPEC)
    reader = drawn(INR2Vec(SPEC, INR2VecConfig(dim=16), Statistics.of(inr)))
    found, largest = reader.features(inr), set()
    for b in range(2):
        rows = []
        for k, t in enumerate(inr.tensors):
            standard = (t[b] - reader.mean[k]) / reader.scale[k]
            for row in standard if standard.ndim == 2 else [standard]:
                h = reader.rows[k](row)
                for norm, _, linear in reader.mlp:
                    h = linear(F.relu(norm(h)))
                rows.append((k, h))
        assert [k for k, _ in rows] == [0, 0, 0, 1, 2, 2, 2, 2, 3, 4, 4, 5]
        assert_same(found[b], reduce(torch.maximum, [h for _, h in rows]))
        largest |= {rows[r][0] for r in torch.stack([h for _, h in rows]).argmax(dim=0).tolist()}
    assert largest == set(range(6)), "a tensor has no say in the maximum"


def test_attention_that_is_computed_again_gives_the_same_gradients(monkeypatch):
    reader = drawn(NGT(SPEC, NGTConfig(dim=4, edge_dim=3, depth=2, heads=2, inner=6, frequencies=2))).requires_grad_()
    inr, calls = INR(tuple(t.requires_grad_() for t in numbers(*[(2, *SPEC.shape(p)) for p in SPEC.layout])), SPEC), []
    for layer in reader.layers:
        layer.attend.register_forward_pre_hook(lambda *_: calls.append(1))

    def results():
        calls.clear()
        made = [reader.features(inr), *reader.edit(inr).tensors]
        return [*made, *torch.autograd.grad(sum(t.square().sum() for t in made), [*reader.parameters(), *inr.tensors])]

    wanted, once = results(), len(calls)
    monkeypatch.setattr("inrformer.readers.ng_transformer.KEPT", 0)
    found = results()
    assert (once, len(calls)) == (6, 12), "three blocks, for features and for an edit"
    for again, kept in zip(found, wanted, strict=True):
        assert kept.abs().max() > 1e-8
        assert_same(again, kept)
