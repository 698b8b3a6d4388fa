# ---
# skip_exec: true
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,-all
#     formats: ipynb,_py//py:percent
#     notebook_metadata_filter: kernelspec,jupytext,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: python3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Training step: speed
#
# > What one training step costs, against plain references, against the hardware, and as INRs and models grow.

# %% [markdown]
# Run it with papermill, `papermill nbs/benchmarks/training.ipynb runs/benchmarks-training.ipynb`; it writes its record into `figures/benchmarks/training.jsonl`.
#
# **What is timed.** A *step* is the forward pass of `Classify.loss` (cross-entropy and crop error) and the backward pass that gives the gradient of every parameter.
# Data, labels and crops are on the device before the clock starts; the optimiser, augmentation and data loading are left out. On a CPU one thread works and the clock is that thread's CPU time,
# which other programs disturb less than the time on the wall; on a GPU it is the time on the wall between two synchronisations. Rivals run in turn in one process, after warm-up; shown are medians, and lines from the first to the third quartile.
#
# **What is counted.** *Operations* are the additions and multiplications of matrix products (two per pair of factors, `torch.utils.flop_counter`); sines, norms and activations are not among them.
# *Bytes moved* are those of all inputs and outputs of every operator that is no view: what unfused kernels move when no cache helps. *Bytes kept* are those of the tensors that the forward pass keeps for the backward pass.
#
# Not measured on a GPU: the target of 15,000 INRs/s for `tiny` in bf16 on one H200.

# %%
if "names_before" in globals():
    raise RuntimeError("restart the kernel: a second run in one kernel cannot tell its parameters from other names")
names_before = {*globals(), "names_before", "known"}

# %% tags=["parameters"]
device: str = "auto"  # cpu, cuda, or the GPU where there is one
precision: str = "auto"  # fp32, bf16, or bf16 where a GPU has it
batch: int = 32  # INRs per step
hidden: str = "32-32"  # hidden widths of the INRs, three channels
warmup: int = 2  # steps before the clock starts
repeats: int = 9  # steps timed
compiled: bool = True  # also time torch.compile, which needs a C++ compiler
growth_batch: int = 8  # INRs per step while INRs and models grow
growth_widths: str = "16-32-64-128"  # hidden widths
growth_depths: str = "2-3-4-5-6"  # weight tensors, L
growth_batches: str = "8-16-32-64"
growth_dims: str = "32-64-128-256"  # node widths, edges a quarter as wide
known = {name: value for name, value in globals().items() if name not in names_before and not name.startswith("_")}

# %% [markdown]
# A parameter that is none of the above, or of another type, is refused.

# %%
given = {name: value for name, value in globals().items() if name not in names_before and not name.startswith("_")}
from inrformer.config import check_parameters

check_parameters(given, known)

# %%
import copy
import gc
import io
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
import torch.nn.functional as F
from einops import rearrange
from IPython.display import display
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from inrformer.data import hidden_widths
from inrformer.inr import INRSpec, init_inr
from inrformer.layers import EdgeStep, SlidingLayerAttention, windows
from inrformer.objectives.classify import Classify, draw_crops
from inrformer.palette import BLUE, VERMILLION
from inrformer.readers.inrformer import MODELS, INRFormer, INRFormerConfig
from inrformer.records import write_record
from inrformer.runs import environment, project_root
from inrformer.splits import Split
from inrformer.training import Workers

# %%
torch.set_num_threads(1)
workers = Workers(device, precision)
settings = dict(device=workers.device.type, precision=workers.precision, batch=batch, hidden=hidden, warmup=warmup, repeats=repeats, growth_batch=growth_batch)
sns.set_theme(style="whitegrid", context="notebook")
pd.Series(settings | environment(workers), name="value").to_frame()


# %% [markdown]
# ## A step and its clock

# %%
def step_of(model: INRFormer, b: int, translated: bool = False) -> Callable[[], tuple[Tensor, ...]]:
    "A step of `model` on b fresh INRs; its losses translated into machine code first, as `run(compiled=True)` does."
    model.to(workers.device).train()
    generator = torch.Generator().manual_seed(0)
    inr = init_inr(model.spec, b, generator=generator)
    split = Split(inr, torch.randint(10, (b,), generator=generator), torch.arange(b), torch.zeros(b), torch.arange(b)).to(workers.device)
    objective = Classify(classes=model.classes)
    if translated:
        objective.loss = torch.compile(objective.loss, dynamic=False)
    crops = objective.draw(model, split, generator).to(workers.device)
    parameters = list(model.parameters())

    def step() -> tuple[Tensor, ...]:
        with workers.autocast():
            loss = sum(objective.loss(model, split, crops).values()) / b
        return torch.autograd.grad(loss, parameters, allow_unused=True)

    return step


def model_of(name: str = "tiny", widths: tuple[int, ...] | None = None, **sizes) -> INRFormer:
    torch.manual_seed(0)
    return INRFormer(INRSpec(widths=widths or (2, *hidden_widths(hidden), 3)), INRFormerConfig(**MODELS[name] | sizes)).classify("0123456789")


# %%
def clock() -> float:
    if workers.device.type == "cpu":
        return time.thread_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def compare(rivals: dict[str, Callable], repeats: int = repeats) -> pd.DataFrame:
    "Milliseconds of every call of every rival, in turn: one column for each."
    for fn in rivals.values():
        for _ in range(warmup):
            fn()
    rows = []
    for _ in range(repeats):
        row = {}
        for name, fn in rivals.items():
            started = clock()
            fn()
            row[name] = 1e3 * (clock() - started)
        rows.append(row)
    return pd.DataFrame(rows)


def ratios(times: pd.DataFrame, reference: str) -> pd.DataFrame:
    "Medians, quartiles, and how many times faster than the reference each rival is."
    low, middle, high = times.quantile(0.25), times.median(), times.quantile(0.75)
    return pd.DataFrame({"median ms": middle, "first quartile": low, "third quartile": high, f"times faster than {reference}": middle[reference] / middle})


# %%
class Products(TorchDispatchMode):
    "Counts the additions and multiplications of matrix products."

    counted = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        if func.overloadpacket in flop_registry:
            self.counted += flop_registry[func.overloadpacket](*args, **kwargs or {}, out_val=out)
        return out


def operations(fn: Callable) -> int:
    "Additions and multiplications of matrix products in one call."
    with sdpa_kernel(SDPBackend.MATH), Products() as products:  # the CPU's fused attention is not counted
        fn()
    return products.counted


class Traffic(TorchDispatchMode):
    "Counts the bytes that go into and come out of operators that are no views."

    moved = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        tensors = [t for t in torch.utils._pytree.tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)]
        if not func.is_view:
            self.moved += sum(t.numel() * t.element_size() for t in tensors)
        return out


def bytes_moved(fn: Callable) -> int:
    with Traffic() as traffic:
        fn()
    return traffic.moved


def bytes_kept(fn: Callable) -> int:
    "Bytes of the storages that one call keeps for its backward pass, weights among them."
    sizes = {}

    def pack(t: Tensor) -> Tensor:
        sizes[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        fn()
    return sum(sizes.values())


# %% [markdown]
# ## The edge step, concatenated
#
# The reference makes the concatenation $[E_{oi}, V_o, V_i]$ for every edge and maps it at once. Same numbers, to rounding in float64.

# %%
class ConcatenatingEdgeStep(nn.Module):
    "The same maps as an `EdgeStep`, on the concatenation."

    def __init__(self, step: EdgeStep):
        super().__init__()
        first = torch.cat([step.from_edge.weight, step.from_out.weight, step.from_in.weight], dim=1)
        self.first = nn.Linear(first.shape[1], first.shape[0], dtype=first.dtype)
        self.first.weight.data, self.first.bias.data = first.detach().clone(), step.from_edge.bias.detach().clone()
        self.project = step.project

    def forward(self, edges, nodes, spec):
        parts = nodes.split(spec.widths, dim=1)
        joined = (torch.cat([e, parts[p.out][:, :, None].expand(-1, -1, e.shape[2], -1), parts[p.inn][:, None].expand(-1, e.shape[1], -1, -1)], dim=-1)
                  for e, p in zip(edges, spec.matrices))
        return tuple(self.project(F.gelu(self.first(x))) for x in joined)


# %% [markdown]
# ## Attention of all pairs
#
# The other reference scores every pair of neurons and masks the pairs that share no weight.

# %%
class AllPairsAttention(nn.Module):
    "The same maps as a `SlidingLayerAttention`, on all pairs, masked."

    def __init__(self, attend: SlidingLayerAttention):
        super().__init__()
        self.qkv, self.out, self.project = attend.qkv, attend.out, attend.project

    def forward(self, nodes, spec):
        mask = torch.zeros(sum(spec.widths), sum(spec.widths), dtype=torch.bool, device=nodes.device)
        for own, window in windows(spec):
            mask[own, window] = True
        heard = F.scaled_dot_product_attention(*self.project(nodes), attn_mask=mask)
        return self.out(rearrange(heard, "b h n d -> b n (h d)"))


# %%
def with_references(model: INRFormer, *, edges: bool = False, attention: bool = False) -> INRFormer:
    "A copy of `model` that takes the slow ways."
    model = copy.deepcopy(model)
    for block in model.blocks:
        block.edge_step = ConcatenatingEdgeStep(block.edge_step) if edges else block.edge_step
        block.attend = AllPairsAttention(block.attend) if attention else block.attend
    return model


small = model_of(widths=(2, 6, 5, 3)).double()
few = init_inr(small.spec, 3).to(torch.float64)
for options in (dict(edges=True), dict(attention=True)):
    assert (with_references(small, **options)(few) - small(few)).abs().max() < 1e-12


# %% [markdown]
# Whole steps of `tiny`, on INRs of the chosen widths and on deeper ones. Windows save operations as INRs deepen; at these sizes, where a neuron's window holds most of the network,
# one masked call can be as fast on a CPU as one call for each layer.

# %%
def against_references(widths: tuple[int, ...], b: int) -> pd.DataFrame:
    model = model_of(widths=widths)
    models = {"concatenated edges": with_references(model, edges=True), "all pairs": with_references(model, attention=True), "inrformer": model}
    steps = {name: step_of(m, b) for name, m in models.items()}
    found = ratios(compare(steps), "concatenated edges")
    return found.assign(**{"GFLOP per INR": [operations(s) / b / 1e9 for s in steps.values()], "MB kept per INR": [bytes_kept(s) / b / 1e6 for s in steps.values()]})


n = hidden_widths(hidden)[0]
shapes = {len(w) - 2: against_references(w, b) for w, b in (((2, *hidden_widths(hidden), 3), batch), ((2, *[n] * 5, 3), growth_batch))}
references = pd.concat(shapes, names=["hidden layers", "step"])
references.round(2)

# %%
#| fig-alt: "Bars: milliseconds, operations and bytes kept of a step with concatenated edges, with attention of all pairs, and of the library, for two and five hidden layers."
fig, axes = plt.subplots(1, 3, figsize=(12, 2.8))
for ax, column in zip(axes, ("median ms", "GFLOP per INR", "MB kept per INR")):
    sns.barplot(references.reset_index(), x="hidden layers", y=column, hue="step", ax=ax, legend=ax is axes[2])
for bars, step in zip(axes[0].containers, references.index.levels[1][references.index.codes[1][:3]]):
    of_step = references.xs(step, level="step")
    axes[0].errorbar([p.get_x() + p.get_width() / 2 for p in bars], of_step["median ms"],
                     (of_step["median ms"] - of_step["first quartile"], of_step["third quartile"] - of_step["median ms"]), fmt="none", color="black", lw=1)
sns.move_legend(axes[2], "upper left", bbox_to_anchor=(1, 1))
fig.tight_layout()

# %% [markdown]
# ## Beside the first version
#
# The library's first version, from the history of this repository, does the same step in turn with the present one: `tiny`, the head that changes the input INR (the only one that it shipped with), and the present heads, without blocks, without what is carried along weights, which the first version had not, and compiled. Where the history is not at hand (a downloaded archive has none) this is left out.

# %%
FIRST = "6b0e484"  # the last commit of the first version


def first_version(folder: Path) -> bool:
    "Unpack the first version's package into a folder, under a name of its own; False where the history is not at hand."
    archive = subprocess.run(["git", "archive", FIRST, "inrformer"], cwd=project_root(), capture_output=True)
    if archive.returncode == 0:
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as packed:
            packed.extractall(folder, filter="data")
        (folder / "inrformer").rename(folder / "inrformer_v1")
        sys.path.insert(0, str(folder))
    return archive.returncode == 0


def first_step(b: int) -> Callable[[], tuple[Tensor, ...]]:
    "The first version's step on b fresh INRs."
    from inrformer_v1.inr import INRSpec, init_siren
    from inrformer_v1.model import MODELS, INRFormer

    generator = torch.Generator().manual_seed(0)
    spec = INRSpec(widths=(2, *hidden_widths(hidden), 3))
    inr, labels = init_siren(spec, b, generator=generator).to(workers.device), (torch.arange(b) % 10).to(workers.device)
    model = INRFormer(spec, classes=10, **MODELS["tiny"]).to(workers.device).train()
    points, parameters = draw_crops(b, model.build.whole.cpu(), generator=generator).to(workers.device), list(model.parameters())

    def step() -> tuple[Tensor, ...]:
        with workers.autocast():
            out = model(inr, points)
            loss = F.cross_entropy(out.logits.float(), labels) + (out.crop(model.build.whole) - inr(points)).square().mean()
        return torch.autograd.grad(loss, parameters)

    return step


# %%
def targets_alone(b: int) -> Callable[[], tuple[Tensor, ...]]:
    "What target INRs take of a step of `tiny`: they are read from given graphs, evaluated and pooled, and all of that is differentiated."
    model = model_of().to(workers.device).train()
    inr = init_inr(model.spec, b, generator=torch.Generator().manual_seed(0)).to(workers.device)
    with torch.no_grad():
        last = model.graphs(inr)[-1]
    given = [t.requires_grad_() for t in (*last.nodes, *last.edges)]
    wanted = given + [p for module in (model.translate, model.norms) for p in module.parameters()]

    def step() -> tuple[Tensor, ...]:
        with workers.autocast():
            seen = model.see(inr, last).sum()
        return torch.autograd.grad(seen, wanted, allow_unused=True)

    return step


# %%
with tempfile.TemporaryDirectory() as folder:
    rivals = {"first version": first_step(batch)} if first_version(Path(folder)) else {}
rivals |= {f"head {head}": step_of(model_of(head=head), batch) for head in ("start", "translate", "pool", "both")} | {"depth 0": step_of(model_of(depth=0), batch), "nothing carried": step_of(model_of(carry=False), batch), "target INRs alone": targets_alone(batch)}
if compiled:
    warnings.filterwarnings("ignore", "Dynamo detected a call to a `functools.lru_cache`")
    rivals["compiled"] = step_of(model_of(), batch, translated=True)
beside = ratios(compare(rivals), next(iter(rivals)))
beside.round(2)

# %%
times, share = beside.iloc[:, -1], 100 * beside.loc["target INRs alone", "median ms"] / beside.loc["head translate", "median ms"]
before = f"A step of tiny makes {times['head translate']:.2f} of the first version's speed, {times['nothing carried']:.2f} without what is carried along weights, which that had not; twice was the aim, and is{' not' * bool(times['head translate'] < 2)} reached." if "first version" in beside.index else "The first version is not at hand."
f"{before} Of a step of tiny target INRs take {share:.0f} %."

# %% [markdown]
# ## Where the time goes
#
# One step of `tiny`, operator by operator, by PyTorch's profiler: the time that an operator takes itself, without those that it calls.

# %%
#| fig-alt: "Horizontal bars: the share of the time of a step in each of the ten operators that take most, and in all others."
step, gpu = step_of(model_of(), batch), workers.device.type == "cuda"
step()
with profile(activities=[ProfilerActivity.CUDA if gpu else ProfilerActivity.CPU]) as seen:
    step()
taken = pd.Series({e.key.removeprefix("aten::"): e.self_device_time_total if gpu else e.self_cpu_time_total for e in seen.key_averages()}).sort_values(ascending=False)
shares = 100 * pd.concat([taken[:10], pd.Series({f"{len(taken) - 10} others": taken[10:].sum()})]) / taken.sum()
ax = shares[::-1].plot.barh(figsize=(6, 3), color=BLUE)
ax.set(xlabel="share of a step (%)");

# %% [markdown]
# ## Thin edges or an even split
#
# Most entries of an INR are weights, so most vectors of its graph are edges. `tiny` gives them a quarter of the nodes' width; `even` spends about as many parameters on edges as wide as nodes.
# Which of them reads INRs better has not been measured at this size.

# %%
sizes = {"demo": dict(name="demo"), "tiny": dict(name="tiny"), "even": dict(name="tiny", dim=108, edge_dim=108), "base": dict(name="base")}
models = {name: model_of(**size) for name, size in sizes.items()}
steps = {name: step_of(model, batch) for name, model in models.items()}
times = compare(steps)
splits = pd.DataFrame({
    "parameters": {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()},
    "GFLOP per INR": {name: operations(step) / batch / 1e9 for name, step in steps.items()},
    "MB moved per INR": {name: bytes_moved(step) / batch / 1e6 for name, step in steps.items()},
    "MB kept per INR": {name: bytes_kept(step) / batch / 1e6 for name, step in steps.items()},
    "median ms": times.median(),
    "INRs/s": 1e3 * batch / times.median(),
    "INRs/s, first quartile": 1e3 * batch / times.quantile(0.75),
    "INRs/s, third quartile": 1e3 * batch / times.quantile(0.25),
})
splits.round(2)

# %% [markdown]
# Beside them, from `figures/published.csv`, steps of published methods on 2-32-32-3 INRs, measured with their authors' code on one CPU thread of the same kind of machine, forward and backward at batch 32, on another day.

# %%
#| fig-alt: "Scatter plot on two log axes: INRs per second against parameters, INRFormer's sizes beside published methods."
published = pd.read_csv(project_root() / "figures" / "published.csv").drop_duplicates("cost_ms")
published = published[published["source"].str.contains("timed for 2-32-32-3")].assign(**{"INRs/s": 32e3 / published["cost_ms"]})[["method", "parameters", "INRs/s"]]
fig, ax = plt.subplots(figsize=(6, 3.2))
ax.errorbar(splits["parameters"], splits["INRs/s"], (splits["INRs/s"] - splits["INRs/s, first quartile"], splits["INRs/s, third quartile"] - splits["INRs/s"]), fmt="o", color=BLUE, label="INRFormer")
ax.plot(published["parameters"], published["INRs/s"], "s", color=VERMILLION, label="published methods, CPU")
for name, x, y in [*splits[["parameters", "INRs/s"]].itertuples(), *published.itertuples(index=False)]:
    ax.annotate(name, (x, y), xytext=(6, 4), textcoords="offset points", fontsize=9)
ax.set(xscale="log", yscale="log", xlabel="parameters", ylabel="INRs per second", xlim=(5e4, 1e9), ylim=(0.8, 3 * splits["INRs/s"].max()))
ax.legend(loc="upper right", fontsize=9);

# %% [markdown]
# ## Memory
#
# A process of its own takes one step of `tiny` on the CPU, in fp32, and says how much memory was resident at most: before the step, with libraries, model and INRs, and after it.
# It is started by a process as small as Python gets, for Linux lets a process begin at the peak of the one that starts it, which here has measured other things.

# %%
ONE_STEP = """
import resource
import sys

import torch

from inrformer.inr import INRSpec, init_inr
from inrformer.objectives.classify import Classify
from inrformer.readers.inrformer import MODELS, INRFormer, INRFormerConfig
from inrformer.splits import Split


def peak():
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


torch.set_num_threads(1)
b, *widths = map(int, sys.argv[1:])
model = INRFormer(INRSpec(widths=tuple(widths)), INRFormerConfig(**MODELS["tiny"])).classify("0123456789").train()
split = Split(init_inr(model.spec, b), torch.randint(10, (b,)), torch.arange(b), torch.zeros(b), torch.arange(b))
objective = Classify(classes=model.classes)
crops = objective.draw(model, split, torch.Generator())
before = peak()
torch.autograd.grad(sum(objective.loss(model, split, crops).values()) / b, list(model.parameters()))
print(before, peak())
"""
start_small = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', *sys.argv[1:]]))"
told = subprocess.run([sys.executable, "-c", start_small, ONE_STEP, *map(str, (batch, 2, *hidden_widths(hidden), 3))], check=True, capture_output=True, text=True).stdout
resident = pd.Series(dict(zip(("before the step", "at its peak"), map(float, told.split()))), name="MB resident").round()
resident.to_frame()

# %% [markdown]
# ## The roof
#
# The device's peak is what a large matrix product reaches, its bandwidth what a large copy reaches (read and write), both measured here, in the training precision.
# A step of so many operations per byte of memory traffic can go no faster than the roof; what stays in caches may.

# %%
side = 4096 if workers.device.type == "cuda" else 1024
square = torch.randn(side, side, device=workers.device, dtype=torch.bfloat16 if settings["precision"] == "bf16" else torch.float32)
source = torch.randn(2**26, device=workers.device)
target = torch.empty_like(source)
hardware = compare({"product": lambda: square @ square, "copy": lambda: target.copy_(source)}).median()
peak = 2 * side**3 / hardware["product"] * 1e3
bandwidth = 2 * source.numel() * source.element_size() / hardware["copy"] * 1e3
f"peak {peak / 1e9:.0f} GFLOP/s, bandwidth {bandwidth / 1e9:.1f} GB/s"

# %%
del source, target
roof = splits[["GFLOP per INR", "MB moved per INR", "INRs/s"]].assign(**{
    "operations per byte": 1e3 * splits["GFLOP per INR"] / splits["MB moved per INR"],
    "GFLOP/s": splits["GFLOP per INR"] * splits["INRs/s"],
})
roof["roof GFLOP/s"] = np.minimum(peak, bandwidth * roof["operations per byte"]) / 1e9
roof["fraction of the peak"] = roof["GFLOP/s"] * 1e9 / peak
roof["fraction of the roof"] = roof["GFLOP/s"] / roof["roof GFLOP/s"]
roof.round(2)

# %%
#| fig-alt: "Roofline: operations per second against operations per byte moved, the roof and a point for each model size."
fig, ax = plt.subplots(figsize=(6, 3.2))
intensity = np.logspace(-1, 3, 200)
ax.plot(intensity, np.minimum(peak, bandwidth * intensity) / 1e9, color="black", label="roof")
for name, row in roof.iterrows():
    ax.plot(row["operations per byte"], row["GFLOP/s"], "o", label=name)
ax.set(xscale="log", yscale="log", xlabel="operations per byte moved", ylabel="GFLOP/s")
ax.legend(fontsize=9);


# %% [markdown]
# ## How cost grows
#
# One size at a time. The number in the legend is the exponent of a power law fitted to all points (least squares in the logarithms); the second picture puts all INR shapes over their number of weights.

# %%
def cost(model: INRFormer, b: int) -> dict[str, float]:
    "One step's milliseconds (median), operations and bytes kept."
    step = step_of(model, b)
    found = {"ms": compare({"step": step}, max(3, repeats // 3))["step"].median(), "GFLOP": operations(step) / 1e9, "MB kept": bytes_kept(step) / 1e6}
    gc.collect()
    return found


def exponent(x: pd.Series, y: pd.Series) -> float:
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split("-")]


# %%
grown = {
    "hidden width": {w: cost(model_of(widths=(2, w, w, 3)), growth_batch) for w in numbers(growth_widths)},
    "depth L": {l: cost(model_of(widths=(2, *[n] * (l - 1), 3)), growth_batch) for l in numbers(growth_depths)},
    "batch": {b: cost(model_of(), b) for b in numbers(growth_batches)},
    "node width d": {d: cost(model_of(dim=d, edge_dim=d // 4), growth_batch) for d in numbers(growth_dims)},
}
growth = pd.concat({name: pd.DataFrame(rows).T for name, rows in grown.items()}, names=["what grows", "size"]).reset_index()
shape_of = {"hidden width": lambda w: (2, w, w, 3), "depth L": lambda l: (2, *[n] * (l - 1), 3)}
growth["weights"] = [INRSpec(widths=shape_of[name](size)).n_params if name in shape_of else None for name, size in zip(growth["what grows"], growth["size"])]
growth.round(3)

# %%
measures = ("ms", "GFLOP", "MB kept")
exponents = pd.DataFrame({name: {m: exponent(part["size"], part[m]) for m in measures} for name, part in growth.groupby("what grows", sort=False)}).T
by_weights = growth.dropna(subset="weights")
for name, part in by_weights.groupby("what grows", sort=False):
    exponents.loc[f"weights, by {name}"] = {m: exponent(part["weights"], part[m]) for m in measures}
assert exponents.filter(like="weights", axis=0)[["GFLOP", "MB kept"]].max().max() < 1.2, "cost grows faster than the number of weights"
exponents.round(2)

# %%
#| fig-alt: "Four log-log plots: time, operations and bytes kept against hidden width, depth, batch and node width, with the fitted exponents in the legends."
fig, axes = plt.subplots(1, 4, figsize=(15, 3.2))
for ax, (name, part) in zip(axes, growth.groupby("what grows", sort=False)):
    for measure, marker in zip(measures, "osD"):
        ax.plot(part["size"], part[measure] / part[measure].iloc[0], marker + "-", label=f"{measure}: {exponents.loc[name, measure]:.2f}", ms=5)
    ax.set(xscale="log", yscale="log", xlabel=name)
    ax.set_xticks(part["size"], [f"{size:g}" for size in part["size"]])
    ax.minorticks_off()
    ax.legend(fontsize=9, title="exponent", title_fontsize=9)
axes[0].set_ylabel("cost, smallest size = 1")
fig.tight_layout()

# %%
#| fig-alt: "Three log-log plots: time, operations and bytes kept against the number of weights; the points lie below the line of the weights, far below that of their square."
fig, axes = plt.subplots(1, 3, figsize=(12, 3.2))
span = np.array([by_weights["weights"].min(), by_weights["weights"].max()])
for ax, measure in zip(axes, measures):
    for (name, part), marker in zip(by_weights.groupby("what grows", sort=False), "oD"):
        ax.plot(part["weights"], part[measure], marker, label=f"{name}: {exponents.loc[f'weights, by {name}', measure]:.2f}")
    start = by_weights[measure].min()
    ax.plot(span, start * span / span[0], color="gray", lw=1, label="weights")
    ax.plot(span, start * (span / span[0]) ** 2, color="gray", ls=":", lw=1, label="weights squared")
    ax.set(xscale="log", yscale="log", xlabel="weights and biases of an INR", ylabel=f"{measure} per step of {growth_batch} INRs", ylim=(start / 2, 3 * by_weights[measure].max()))
    ax.legend(fontsize=8)
fig.tight_layout()

# %% [markdown]
# ## Compiled
#
# `torch.compile` on the losses of a step, as `sweep --compile` does. It pays when the seconds that it saves in a run are more than those it takes.

# %%
compiling = None
if compiled:
    torch.compiler.reset()
    rivals = {"eager": step_of(model_of(), batch), "compiled": step_of(model_of(), batch, translated=True)}
    started = time.perf_counter()
    for ours, theirs in zip(rivals["compiled"](), rivals["eager"]()):
        tolerance = 1e-3 if settings["precision"] == "fp32" else 1e-1
        assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max().clamp(min=1e-3)
    compile_seconds = time.perf_counter() - started
    compiling = ratios(compare(rivals), "eager").assign(**{"seconds to compile": [0.0, compile_seconds]})
    saved = (compiling.loc["eager", "median ms"] - compiling.loc["compiled", "median ms"]) / 1e3
    display(compiling.round(2), f"pays after {compile_seconds / saved:,.0f} steps" if saved > 0 else "does not pay")


# %% [markdown]
# ## The record

# %%
def rows(frame: pd.DataFrame) -> list[dict]:
    return [{k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()} for row in frame.reset_index().replace({np.nan: None}).to_dict("records")]


record = dict(
    run_id="-".join(map(str, (settings["device"], settings["precision"], hidden, batch))), config=settings, env=environment(workers),
    references=rows(references), splits=rows(splits), resident=resident.to_dict(), roof=rows(roof.assign(peak=peak / 1e9, bandwidth=bandwidth / 1e9)),
    beside_first_version=rows(beside), profile=rows(shares.rename_axis("operator").rename("per cent").to_frame()), growth=rows(growth), exponents=rows(exponents), compiled=None if compiling is None else rows(compiling),
)
write_record(record, "training", project_root() / "figures" / "benchmarks").name
