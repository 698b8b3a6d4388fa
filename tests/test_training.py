"The fast layers against plain formulas in float64, the optimiser and the workers against plain autograd, and the benchmark notebook."

import copy
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
import torch.nn.functional as F

from inrformer.graph import Fold, WeightEmbedding
from inrformer.inr import INRSpec, init_siren
from inrformer.layers import EdgeStep, SlidingLayerAttention
from inrformer.model import INR2INR, INRFormer
from inrformer.training import Workers, draw_hints, losses, make_accelerator, make_optimizer

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "nbs" / "benchmarks" / "training.ipynb"
SPEC = INRSpec(widths=(2, 6, 5, 3), omega=10.0)


@pytest.fixture
def seed():
    torch.manual_seed(0)
    return torch.Generator().manual_seed(0)


def graph_tensors(b=3, dim=8, edge_dim=4):
    edges = tuple(torch.randn(b, o, i, edge_dim, dtype=torch.float64, requires_grad=True) for o, i in SPEC.weight_shapes)
    return edges, torch.randn(b, sum(SPEC.widths), dim, dtype=torch.float64, requires_grad=True)


def assert_same(found, wanted, variables):
    "Equal values, and equal gradients of the sum of their squares."
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted):
        assert a.shape == b.shape and (a - b).abs().max() < 1e-10 * (1 + b.abs().max())
    grads = [torch.autograd.grad(sum(t.square().sum() for t in side), variables) for side in (found, wanted)]
    for a, b in zip(*grads):
        assert (a - b).abs().max() < 1e-10 * (1 + b.abs().max())


def test_the_edge_step_is_that_of_the_concatenation(seed):
    step = EdgeStep(dim=8, edge_dim=4).double()
    edges, nodes = graph_tensors()
    first = torch.cat([step.from_edge.weight, step.from_out.weight, step.from_in.weight], dim=1)
    parts = nodes.split(SPEC.widths, dim=1)
    wanted = []
    for l, e in enumerate(edges):
        o, i = (v.expand(*e.shape[:3], 8) for v in (parts[l + 1][:, :, None], parts[l][:, None]))
        wanted.append(step.project(F.gelu(F.linear(torch.cat([e, o, i], dim=-1), first, step.from_edge.bias))))
    assert_same(step(edges, nodes, SPEC.widths), wanted, [*edges, nodes, *step.parameters()])


def test_attention_is_that_of_all_pairs_masked(seed):
    attend = SlidingLayerAttention(dim=8, heads=2).double()
    _, nodes = graph_tensors()
    layer = torch.arange(len(SPEC.widths)).repeat_interleave(torch.tensor(SPEC.widths))
    far = (layer[:, None] - layer).abs() > 1
    query, key, value = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in attend.qkv(nodes).chunk(3, dim=-1))
    scores = (query @ key.mT / math.sqrt(4)).masked_fill(far, -math.inf)
    wanted = attend.out((scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2))
    assert_same([attend(nodes, SPEC.widths)], [wanted], [nodes, *attend.parameters()])


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_the_fold_pools_around_every_neuron(pool, seed):
    fold = Fold(dim=8, edge_dim=4, pool=pool).double()
    edges, _ = graph_tensors()
    reduce = (lambda t: t.amax(dim=1)) if pool == "max" else (lambda t: t.mean(dim=1))
    wanted = []
    for l, n in enumerate(SPEC.widths):
        for v in range(n):
            incoming = [fold.incoming(reduce(edges[l - 1][:, v]))] if l else []
            outgoing = [fold.outgoing(reduce(edges[l][:, :, v]))] if l < SPEC.depth else []
            wanted.append(sum(incoming + outgoing))
    assert_same([fold(edges)], [torch.stack(wanted, dim=1)], [*edges, *fold.parameters()])


@pytest.mark.parametrize("raw_scalar", [True, False])
def test_the_embedding_is_direct_sines_and_cosines(raw_scalar, seed):
    embed = WeightEmbedding(SPEC, width=8, max_frequency=6.0, raw_scalar=raw_scalar).double()
    inr = init_siren(SPEC, 2, generator=seed).to(torch.float64)
    found = embed(inr)
    for k, (vectors, values) in enumerate(zip((*found.edges, *found.nodes[1:]), inr.tensors)):
        for vector, value in zip(vectors.flatten(0, -2).tolist(), values.flatten().tolist()):
            w = (value - embed.mean[k].item()) / embed.scale[k].item()
            angles = [w * 6.0 * f / 3 for f in range(4)]
            sines = [w if raw_scalar else 0.0, *map(math.sin, angles[1:])]
            assert vector == pytest.approx([*sines, *map(math.cos, angles)], abs=1e-6)


@pytest.mark.parametrize("head_start", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_feature_inrs_and_their_values(head_start, channels, seed):
    spec = INRSpec(widths=(2, 6, 5, channels), omega=10.0, offset=0.5)
    inr = init_siren(spec, 3, generator=seed).to(torch.float64)
    graph = WeightEmbedding(spec, width=8).double()(inr)
    head = INR2INR(dim=8, edge_dim=8, features=4, scale=torch.rand(6), head_start=head_start).double()
    for p in head.parameters():
        torch.nn.init.normal_(p)
    found, wanted = head(inr, graph).tensors, []
    for k, (t, v) in enumerate(zip(inr.tensors, (*graph.edges, *graph.nodes[1:]))):
        read = (head.weight if k < spec.depth else head.bias)(v).movedim(-1, 1)
        wanted.append((t[:, None] + head.scale[k] * read if head_start else read).flatten(0, 1))
    assert_same(found, wanted, list(head.parameters()))
    coords, translated = torch.rand(9, 2, dtype=torch.float64, generator=seed), head(inr, graph)
    for values, *tensors in zip(translated(coords), *translated.tensors):
        z = coords
        for w, b in zip(tensors[:2], tensors[3:5]):
            z = torch.sin(10.0 * (z @ w.T + b))
        assert (values - (z @ tensors[2].T + tensors[5] + 0.5)).abs().max() < 1e-10


def small_model(**choices: bool) -> INRFormer:
    torch.manual_seed(0)
    return INRFormer(SPEC, classes=4, dim=8, edge_dim=4, depth=2, heads=2, hint=16, query=16, features=2, **choices)


def test_threads_give_the_gradient_of_the_whole_batch(seed):
    model = small_model().double()
    inr, labels = init_siren(SPEC, 7, generator=seed).to(torch.float64), torch.randint(4, (7,), generator=seed)
    hint = draw_hints(7, model.build.whole.float(), generator=seed).double()
    wanted = torch.autograd.grad(losses(model, inr, labels, hint).sum() / 7, list(model.parameters()))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        workers = Workers(make_accelerator("cpu", "fp32"))
    finally:
        torch.set_num_threads(before)
    found, _ = workers.gradients(model, inr, labels, hint)
    assert workers.threads == 3
    assert all((a - b).abs().max() < 1e-12 for a, b in zip(found, wanted))


@pytest.mark.parametrize("head_start", [True, False])
def test_under_bfloat16_the_weights_of_feature_inrs_stay_fine(seed, head_start):
    model = small_model(head_start=head_start)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(init_siren(SPEC, 3, generator=seed), stages=True)
    assert {e.dtype for e in out.stages["output INR"].edges} == {torch.float32}
    assert out.logits.isfinite().all()


def test_maps_decay_and_biases_do_not():
    model = small_model()
    optimizer = make_optimizer(model, lr=0.1, weight_decay=0.5)
    start = copy.deepcopy(model.state_dict())
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in model.named_parameters():
        assert torch.allclose(p, start[name] * (0.95 if p.ndim > 1 else 1.0)), name


def benchmark(folder, *arguments):
    command = [sys.executable, "-m", "papermill", str(NOTEBOOK), "out.ipynb", "--no-progress-bar", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=os.environ | dict(PYTHONPATH=str(ROOT)), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900)


@pytest.mark.parametrize(("name", "value", "message"), [("repeat", 3, "there are no parameters ['repeat']"), ("batch", "many", "of another type than their defaults")])
def test_the_benchmark_refuses_what_it_does_not_know(name, value, message, tmp_path):
    done = benchmark(tmp_path, "-p", name, value)
    assert done.returncode != 0 and message in done.stderr


@pytest.mark.slow
def test_the_benchmark_runs_and_writes_its_record(tmp_path):
    (tmp_path / "nbs").mkdir()
    (tmp_path / "settings.ini").touch()
    (tmp_path / "figures").mkdir()
    shutil.copy(ROOT / "figures" / "published.csv", tmp_path / "figures")
    small = dict(batch=2, hidden="6-6", warmup=1, repeats=3, compiled=False, growth_batch=2, growth_widths="4-8", growth_depths="2-3", growth_batches="2-4", growth_dims="16-32")
    done = benchmark(tmp_path, *(word for name, value in small.items() for word in ("-p", name, value)))
    assert done.returncode == 0, done.stderr[-3000:]
    cells = [c for c in nbformat.read(tmp_path / "out.ipynb", 4).cells if c.cell_type == "code"]
    assert sum("image/png" in o.get("data", {}) for c in cells for o in c.outputs) == 5
    record = json.loads((tmp_path / "figures" / "benchmarks" / "training.jsonl").read_text())
    assert {row["index"] for row in record["splits"]} == {"demo", "tiny", "even", "base"}
    assert all(row["INRs/s"] > 0 and row["GFLOP per INR"] > 0 for row in record["splits"])
