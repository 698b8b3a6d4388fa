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
# # How fast fitting is
#
# > `fit` beside the loop that everybody writes, in one process on one thread; where its time goes; how near the hardware's limit it is; and the best that time can buy.

# %% [markdown]
# This page shows what one command has measured and recorded, with a compiler, on 16 training images of `cifar10-jpeg75`, which is CIFAR-10 re-encoded as JPEG of quality 75:
#
# `papermill nbs/benchmarks/fitting.ipynb runs/fitting.ipynb -p dataset '<folder>/cifar10-jpeg75-{split}.parquet' -p repeats 31 -p compiler True -p record True`
#
# Without parameters it takes pieces of a bundled photograph and no compiler, and keeps no record.
#
# Not measured on a GPU: the target of 1,000 steps for all 60,000 images of a data set in about two minutes on one H200 (4.4e14 operations).

# %%
if "names_before" in globals():
    raise RuntimeError("restart the kernel: a second run in one kernel cannot tell its parameters from other names")
names_before = {*globals(), "names_before", "known"}

# %% tags=["parameters"]
dataset: str = "photo"  # pieces of a bundled photograph, or a source of images: cifar10, a folder, a pattern holding {split}
n_images: int = 16  # images of the side-by-side fits and of the front
steps: int = 200  # Adam steps of the side-by-side fits
lr: float = 1e-3  # their learning rate
slice_steps: int = 10  # steps that are timed at once
repeats: int = 15  # slices of each way, taking turns
front_steps: int = 200  # full-image steps that the longest fits of the front amount to
compiler: bool = False  # also time what torch.compile makes of a step; needs a C++ compiler
record: bool = False  # write figures/benchmarks/fitting.jsonl
known = {name: value for name, value in globals().items() if name not in names_before and not name.startswith("_")}

# %%
given = {name: value for name, value in globals().items() if name not in names_before and not name.startswith("_")}
from inrformer.config import check_parameters

check_parameters(given, known)

# %%
import hashlib
import json
import math
import time
from itertools import product

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import torch
from einops import rearrange
from sklearn.datasets import load_sample_image
from torch import nn

from inrformer.fitting import Adam, GridGradient, code_path, descend, init_from_seeds, init_seeds, pick_chunk, sincos
from inrformer.images import load_images, source_name
from inrformer.inr import INR, INRSpec, grid, pixel_grid, psnr
from inrformer.records import write_record
from inrformer.runs import environment, project_root
from inrformer.training import Workers

# %%
sns.set_theme(style="whitegrid", context="notebook")
torch.set_num_threads(1)
spec, cpu = INRSpec(), torch.device("cpu")
photo = rearrange(torch.tensor(load_sample_image("flower.jpg"))[:416].float() / 255, "(y h) (x w) c -> (y x) h w c", h=32, w=32)
order = torch.randperm(len(photo), generator=torch.Generator().manual_seed(0))
images = (photo[order] if dataset == "photo" else load_images(dataset, "train", 2 * n_images + 64).images) * 2 - 1
others, images = images[n_images :], images[: n_images]
sizes, chunk = tuple(images.shape[1:3]), pick_chunk(spec, tuple(images.shape[1:3]), cpu)
spec, tuple(images.shape), chunk

# %% [markdown]
# The parameters of the run whose outputs stand below:

# %%
parameters = given | dict(dataset=dataset if dataset == "photo" else source_name(dataset))
pd.Series(parameters, name="value").to_frame()


# %% [markdown]
# ## What is timed
#
# * Time is the CPU time of the one thread that works (`time.thread_time`): other processes can slow a thread through shared caches, but not take time from it.
# * A *step* is a full-batch gradient over all pixels and Adam's move, for INRs, optimiser and buffers that exist. Starting, and measuring PSNR, are outside.
# * The ways take turns in slices of a few steps, after a warm-up slice each; a ratio is one of neighbouring slices. Shown are medians, with quartiles.
# * A figure is per INR and step, or in INRs per second of `steps` steps.
#
# The reference is one `nn.Module` after the other, autograd, and torch's Adam as it comes. The second way is what a batch alone gives.

# %%
class Sine(nn.Module):
    def forward(self, x):
        return torch.sin(spec.omega * x)


def one_by_one(images, starts):
    "A step of one nn.Module, and the INR it has become."
    o, i, c = spec.widths[1], spec.widths[2], spec.widths[-1]
    net = nn.Sequential(nn.Linear(2, o), Sine(), nn.Linear(o, i), Sine(), nn.Linear(i, c))
    net.load_state_dict(dict(zip(net.state_dict(), [t[0] for t in starts.tensors])))
    optimizer, coords, target = torch.optim.Adam(net.parameters(), lr=lr), pixel_grid(*sizes), images[0].flatten(0, 1)

    def step():
        optimizer.zero_grad()
        (net(coords) - target).square().mean().backward()
        optimizer.step()

    return step, lambda: torch.cat([p.detach().flatten() for p in net.parameters()])[None]


# %%
def by_autograd(images, starts):
    "A step of many INRs at once, by autograd and torch's fused Adam."
    rows, coords, target = starts.flat().requires_grad_(), pixel_grid(*sizes), images.flatten(1, 2)
    optimizer = torch.optim.Adam([rows], lr=lr, fused=True)

    def step():
        optimizer.zero_grad()
        (INR.from_flat(rows, spec)(coords) - target).square().mean(dim=(1, 2)).sum().backward()
        optimizer.step()

    return step, lambda: rows.detach()


def by_hand(images, starts):
    "A step of `fit`, as in `descend`."
    rows = starts.flat()
    grad, axes = torch.zeros_like(rows), [grid(n)[:, 0] for n in sizes]
    gradient = GridGradient(INR.from_flat(rows, spec), INR.from_flat(grad, spec), sizes)
    move, target = Adam(rows, lr), rearrange(images, "b h w c -> b c (h w)").contiguous()

    def step():
        gradient(*axes, target)
        move(grad)

    return step, lambda: rows


# %% [markdown]
# A compiler fuses the passes between the matrix products. To gain by it, the step is written as a function without buffers, and sine and cosine as polynomials on a quarter turn,
# since what a compiler cannot look into it cannot fuse. `fit` does not use it: it must not need a compiler, and one gradient is enough. Here is what that costs, with `compiler` true.

# %%
def polynomial(angle):
    "Sine and cosine to 1e-7: the nearest multiple of a quarter turn is taken off in three parts, a polynomial does the rest."
    k = torch.round(angle * (2 / math.pi))
    r = ((angle - k * 1.5703125) - k * 4.83751296997e-4) - k * 7.54978995489e-8
    r2, quarter = r * r, k.to(torch.int32)
    s = r + r * r2 * (-1.6666654611e-1 + r2 * (8.3321608736e-3 + r2 * -1.9515295891e-4))
    c = 1 - 0.5 * r2 + r2 * r2 * (4.166664568e-2 + r2 * (-1.388731625e-3 + r2 * 2.443315711e-5))
    sine, cosine = torch.where(quarter & 1 != 0, c, s), torch.where(quarter & 1 != 0, s, c)
    return torch.where(quarter & 2 != 0, -sine, sine), torch.where((quarter + 1) & 2 != 0, -cosine, cosine)


angle = torch.linspace(-500, 500, 100_001)
assert max((x - y).abs().max() for x, y in zip(polynomial(angle), (angle.double().sin(), angle.double().cos()))) < 2e-7


# %%
def functional(rows, mean, square, target, axis_r, axis_c, ones, twos):
    "Gradient and Adam's move in one function, for two hidden layers."
    w1, b1, w2, b2, w3, b3 = INR.from_flat(rows, spec).tensors
    (sin_a, cos_a), (sin_b, cos_b) = (polynomial(spec.omega * x) for x in (w1[:, :, :1] * axis_r + b1[:, :, None], w1[:, :, 1:] * axis_c))
    sin_a, cos_a, sin_b, cos_b = sin_a[..., None], cos_a[..., None], sin_b[:, :, None], cos_b[:, :, None]
    s1, c1 = (sin_a * cos_b + cos_a * sin_b).flatten(2), (cos_a * cos_b - sin_a * sin_b).flatten(2)
    s2, c2 = polynomial(spec.omega * (torch.bmm(w2, s1) + b2[:, :, None]))
    slope3 = (torch.bmm(w3, s2) + b3[:, :, None] - target) * (2 / target[0].numel())
    slope2 = torch.bmm(w3.mT, slope3) * c2 * spec.omega
    slope1 = (torch.bmm(w2.mT, slope2) * c1 * spec.omega).unflatten(2, (len(axis_r), len(axis_c)))
    per_row, per_col = slope1.sum(3), slope1.sum(2)
    parts = (torch.stack([per_row @ axis_r, per_col @ axis_c], 2), per_row.sum(2), slope2 @ s1.mT, slope2.sum(2), slope3 @ s2.mT, slope3.sum(2))
    grad = torch.cat([part.flatten(1) for part in parts], 1)
    mean, square = mean + (grad - mean) * 0.1, square * 0.999 + grad * grad * 0.001
    return rows - lr * (mean / ones) / ((square / twos).sqrt() + 1e-8), mean, square


def by_compiler(images, starts):
    "A step of the compiled function."
    compiled, target, axes = torch.compile(functional, dynamic=False), rearrange(images, "b h w c -> b c (h w)").contiguous(), [grid(n)[:, 0] for n in sizes]
    state, count = [starts.flat(), *(torch.zeros_like(starts.flat()) for _ in range(2))], [0]

    def step():
        count[0] += 1
        state[:] = compiled(*state, target, *axes, torch.tensor(1 - 0.9 ** count[0]), torch.tensor(1 - 0.999 ** count[0]))

    return step, lambda: state[0]


# %% [markdown]
# ## Side by side

# %%
def cpu_seconds(work) -> float:
    "CPU time of this thread while `work` is done."
    begun = time.thread_time()
    work()
    return time.thread_time() - begun


def in_turns(works: dict, repeats: int) -> pd.DataFrame:
    "Seconds of each work, one column each, after one turn to warm up."
    for work in works.values():
        work()
    return pd.DataFrame([{name: cpu_seconds(work) for name, work in works.items()} for _ in range(repeats)])


def often(work):
    "`work`, as often as a slice has steps."
    return lambda: [work() for _ in range(slice_steps)]


def starts_for(n: int) -> INR:
    return init_from_seeds(spec, init_seeds("shared", range(n)))


def slices(make, n: int):
    "A slice of steps for n INRs."
    return often(make(images[torch.arange(n) % len(images)], starts_for(n))[0])


# %%
ways = {"nn.Module, one by one": (one_by_one, 1), "autograd, batched": (by_autograd, chunk), "fit": (by_hand, chunk)}
if compiler:
    ways["compiled function"] = (by_compiler, chunk)
seconds = in_turns({name: slices(make, n) for name, (make, n) in ways.items()}, repeats)
per_step = seconds / slice_steps / [n for _, n in ways.values()]
ratios = per_step.rdiv(per_step.iloc[:, 0], axis=0)
shown = pd.DataFrame({
    "INRs at once": [n for _, n in ways.values()], "us per INR and step": per_step.median() * 1e6,
    "INRs/s": 1 / (per_step.median() * steps), "ratio": ratios.median(), "ratio, 1st quartile": ratios.quantile(0.25), "3rd quartile": ratios.quantile(0.75),
}, index=list(ways))
shown.round(2)


# %% [markdown]
# The same steps must give the same images. Every image is fitted both ways from the same start:

# %%
def fitted_by(make, n: int) -> torch.Tensor:
    "PSNR of all images after all steps, n at once."
    qualities = []
    for part in images.split(n):
        step, rows = make(part, starts_for(len(part)))
        for _ in range(steps):
            step()
        qualities.append(psnr(INR.from_flat(rows(), spec)(pixel_grid(*sizes)), part.flatten(1, 2)))
    return torch.cat(qualities)


quality = {"nn.Module, one by one": fitted_by(one_by_one, 1), "fit": descend(starts_for(len(images)), images, steps=steps, lr=lr)[1]}
difference = (quality["fit"].mean() - quality["nn.Module, one by one"].mean()).item()
assert abs(difference) < 0.1 or steps < 50, f"{difference:+.2f} dB"
f"PSNR {quality['fit'].mean():.2f} dB by fit, {difference:+.3f} dB against the loop; largest difference of an image {(quality['fit'] - quality['nn.Module, one by one']).abs().max():.2f} dB"

# %% [markdown]
# ## How many at once
#
# Too few, and Python's overhead shows; too many, and the buffers leave the cache.

# %%
#| fig-alt: "Line plot: microseconds per INR and step against the number of INRs at once, 1 to 32; the dotted line marks the number that fit takes."
counts = [1, 2, 4, 8, 16, 32]
by_count = in_turns({n: slices(by_hand, n) for n in counts}, repeats) / slice_steps / counts * 1e6
fig, ax = plt.subplots(figsize=(5, 2.6))
ax.errorbar(counts, by_count.median(), [by_count.median() - by_count.quantile(0.25), by_count.quantile(0.75) - by_count.median()], marker="o", capsize=3)
ax.axvline(chunk, color="grey", linestyle=":")
ax.set(xscale="log", xticks=counts, xticklabels=counts, xlabel="INRs at once (dotted: what fit takes)", ylabel="us per INR and step", ylim=(0, None));

# %% [markdown]
# ## Where the time goes
#
# The parts of a step, each alone on buffers of the step's size: matrix products, sines and cosines of the second layer, and everything else as the difference.

# %%
b, q, (_, n, m, c) = chunk, math.prod(sizes), spec.widths
x, y, cosine, error = (torch.randn(b, k, q) for k in (n, m, m, c))
w2, w3 = torch.randn(b, m, n), torch.randn(b, c, m)
products = dict(
    forward=lambda: (torch.bmm(w2, x, out=y), torch.bmm(w3, y, out=error)),
    weights=lambda: (torch.bmm(error, y.mT), torch.bmm(y, x.mT)),
    backward=lambda: (torch.bmm(w3.mT, error, out=y), torch.bmm(w2.mT, y, out=x)),
)
angles = torch.randn(b, m, q) * 10
sines = {"sin, cos (numpy)": lambda: sincos(angles, y, cosine), "sin, cos (torch)": lambda: (torch.sin(angles, out=y), torch.cos(angles, out=cosine))}
parts = in_turns({name: often(work) for name, work in (products | sines).items()}, repeats).median() / slice_steps / b * 1e6
whole = per_step["fit"].median() * 1e6
share = {"matrix products": parts[list(products)].sum(), "sin, cos": parts["sin, cos (numpy)"]}
share["everything else"] = whole - sum(share.values())
pd.DataFrame({"us per INR and step": share, "share": {name: value / whole for name, value in share.items()}}).round(2), parts.round(1).to_dict()

# %% [markdown]
# ## Roofline
#
# *Operations* are those of the matrix products, two for a multiplication and its addition: forward, gradient of the weights, gradient of what is below. Sines are not counted.
# *Bytes* are what the step's operations read and write, once for each, as if nothing stayed in a register between two of them: they go through the cache, not to memory.
# The *peak* is the best that this thread reached in a product of two 1,024 x 1,024 matrices, the *bandwidths* those of adding to a buffer of the step's size, and to one that no cache holds.

# %%
macs = q * (2 * n + n * m + m * c) + q * (n * m + m * c) + q * (n * m + m * c)
operations = 2 * (macs - q * 2 * n)
layer, small = 4 * q * n, 4 * q * c
passes = dict(first_layer=2 * 3 * layer, hidden=3 * layer + 4 * layer, image=layer + 4 * small, weights=3 * layer + small, backward=small + layer + 2 * layer, slopes=2 * 3 * layer, sums=3 * layer)
moved = sum(passes.values())
big, near, far = torch.randn(1024, 1024), torch.zeros(b, n, q), torch.zeros(2**26)
best = in_turns(dict(peak=lambda: torch.mm(big, big), near=often(lambda: near.add_(1)), far=lambda: far.add_(1)), repeats).min()
peak, near_rate, far_rate = 2 * 1024**3 / best["peak"], 8 * near.numel() * slice_steps / best["near"], 8 * far.numel() / best["far"]
bound = max(operations / peak, moved / near_rate)
roof = {"operations (M)": operations / 1e6, "bytes (M)": moved / 1e6, "peak (GFLOP/s)": peak / 1e9, "in cache (GB/s)": near_rate / 1e9, "in memory (GB/s)": far_rate / 1e9,
        "reached (GFLOP/s)": operations / whole * 1e-3, "fraction of the peak": operations / (whole * 1e-6) / peak, "bound (us)": bound * 1e6,
        "products and passes one after the other (us)": (operations / peak + moved / near_rate) * 1e6}
pd.Series(roof, name="fit").round(3).to_frame()

# %%
#| fig-alt: "Roofline: operations per second against operations per byte, the roofs of cache and memory, and a point for each way of fitting below them."
fig, ax = plt.subplots(figsize=(6, 3.4))
intensity = torch.logspace(-2, 3, 100)
for rate, name in ((near_rate, "cache"), (far_rate, "memory")):
    ax.plot(intensity, (intensity * rate).clamp(max=peak) / 1e9, label=f"roof, {name}")
products_rate = operations / (parts[list(products)].sum() * 1e-6)
points = {"products of fit alone": products_rate} | {name: operations / per_step[name].median() for name in ways}
for name, rate in points.items():
    ax.plot(operations / moved, rate / 1e9, "o", label=f"{name}: {rate / peak:.0%} of the peak")
ax.set(xscale="log", yscale="log", xlabel="operations per byte (bytes of fit's step)", ylabel="GFLOP/s")
ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1));

# %% [markdown]
# ## What time buys
#
# Steps, learning rate, pixels per step (`stride`) and start are free. `mean` starts all images from the INR of an average of other images.
# Each point is one choice; the line joins those that nothing beats in both time and quality. Time is that of `descend`, set-up and measuring included.
# It depends on stride and steps alone: every start and rate is a turn through all strides and steps, which gives each of them nine times, and shown for all nine choices is their median, with quartiles.

# %%
average = others[:64].mean(0, keepdim=True)
on_average, _ = descend(starts_for(1), average, steps=200, lr=1e-3)
starts = dict(
    shared=starts_for(len(images)), mean=on_average[[0] * len(images)],
    independent=init_from_seeds(spec, init_seeds("independent", range(len(images)))),
)


def bought(start: str, rate: float, stride: int, steps: int) -> dict:
    "Time and quality of one choice."
    found, n = [], pick_chunk(spec, sizes, cpu, stride)
    firsts = range(0, len(images), n)
    spent = cpu_seconds(lambda: found.extend(descend(starts[start][i : i + n], images[i : i + n], steps=steps, lr=rate, stride=stride)[1] for i in firsts))
    return dict(start=start, stride=stride, lr=rate, steps=steps, ms=spent / len(images) * 1e3, psnr=torch.cat(found).mean().item())


amounts = [front_steps // 2**k for k in range(4)]
turns = product(starts, (1e-3, 2e-3, 4e-3))
tried = pd.DataFrame([bought(start, rate, stride, amount * stride**2) for start, rate in turns for stride, amount in product((1, 2, 4), amounts)])
alike = tried.groupby(["stride", "steps"])["ms"]
tried = tried.assign(**{"ms": alike.transform("median"), "1st quartile": alike.transform("quantile", 0.25), "3rd quartile": alike.transform("quantile", 0.75)})
tried = tried.sort_values(["ms", "psnr"], ascending=[True, False])
front = tried[tried["psnr"] > tried["psnr"].cummax().shift(fill_value=-math.inf)]
front.round(4)

# %%
#| fig-alt: "Scatter plot: mean PSNR against milliseconds per INR for every choice of start, stride, rate and steps; a line joins the best, a cross marks the loop."
fig, ax = plt.subplots(figsize=(7, 4))
sns.scatterplot(tried, x="ms", y="psnr", hue="stride", style="start", palette="viridis", ax=ax)
ax.errorbar(front["ms"], front["psnr"], xerr=(front["ms"] - front["1st quartile"], front["3rd quartile"] - front["ms"]), color="black", linewidth=1)
loop_ms = per_step["nn.Module, one by one"].median() * steps * 1e3
ax.plot(loop_ms, quality["nn.Module, one by one"].mean(), "X", color="red", markersize=10, label=f"one by one, {steps} steps")
ax.set(xscale="log", xlabel="ms per INR, one thread", ylabel="mean PSNR (dB)")
ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1));


# %% [markdown]
# ## The record

# %%
def numbers(table: pd.DataFrame) -> dict:
    return {name: {k: round(float(v), 5) for k, v in row.items()} for name, row in table.to_dict("index").items()}


config = parameters | dict(spec=json.loads(spec.to_json()), chunk=chunk, code=code_path(cpu))
summary = dict(
    protocol="fitting", side_by_side=numbers(shown), psnr=quality["fit"].mean().item(), psnr_difference=difference, chunks=dict(zip(map(str, counts), by_count.median().round(1))),
    shares={name: round(float(value), 2) for name, value in share.items()}, parts=parts.round(2).to_dict(), roofline={name: round(float(v), 4) for name, v in roof.items()},
    front=front.round(3).to_dict("records"),
)
env = environment(Workers("cpu"))
run_id = hashlib.sha256(json.dumps([config, env], sort_keys=True).encode()).hexdigest()[:12]
if record:
    write_record(dict(run_id=run_id, config=config, env=env, summary=summary), "fitting", project_root() / "figures" / "benchmarks")
run_id, env
