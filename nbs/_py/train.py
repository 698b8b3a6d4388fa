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
# # A run, step by step
#
# > One run from images to a trained reader: INRs are fitted, a reader of their weights is trained, and everything that it found is measured.

# %% [markdown]
# Run it with papermill, `papermill nbs/train.ipynb runs/train.ipynb -p hint 64`, or cell by cell. A run that was cut goes on where it stopped; a run that is done is only shown.
# What is shown below is the run whose reader ships with the package; its record is in `figures/records/digits.jsonl`.

# %% tags=["parameters"]
dataset: str = None  # images: digits, mnist, cifar10, a Hub name, a folder of tables or pictures, or a pattern of tables holding {split}
data: str = None  # folder of a finished INR data set, fitted here or imported: its INRs are the run's, and nothing is fitted
protocol: str = None  # what the result may be compared with: a name in PROTOCOLS, or custom
reader: str = "inrformer"  # name in READERS: what reads the INRs
model: str = None  # name in the reader's presets: which sizes and choices hold where none are given
init: str = None  # where INRs start: shared, pool or independent
hint: int = None  # grid points that describe the crop
epochs: int = None  # passes over the training INRs
seed: int = 0  # of the first weights and of every draw
device: str = "auto"  # cpu, cuda, or the GPU where there is one; no part of what a run is
# every other field of the config (config.ipynb) is accepted too: -p depth 0, or a line of its own in this cell

# %% [markdown]
# ## The config
#
# What is `None`, or not named above, follows the protocol of the data set. A name that is no field is refused, whatever it is a name of elsewhere: the config is made from what the parameters' cell assigns, and the cell that papermill puts after it.

# %%
import copy

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import torch
from IPython import get_ipython
from IPython.display import display
from sklearn.metrics import confusion_matrix

from inrformer.answers import logits_of_all
from inrformer.config import config_from, flat, identity
from inrformer.images import load_images
from inrformer.inr import grid_side, pixel_grid, psnr
from inrformer.objectives.classify import accuracy, draw_crops
from inrformer.readers.flat import fit_flat
from inrformer.records import plain_name, record_of, records, rivals
from inrformer.runs import parts_of, run
from inrformer.symmetry import invariance_error, permute, random_permutation


# %%
def assigned(cells):
    "What the cell of parameters, as it was run last, and the one that papermill puts after it assign: no other name of the kernel is a parameter."
    first = max(k for k, cell in enumerate(cells) if cell.startswith("dataset: str"))
    exec("\n".join(cell for cell in cells[first:] if cell.startswith(("dataset: str", "# Parameters"))), given := {})
    return {name: value for name, value in given.items() if not name.startswith("__")}


cfg = config_from(assigned(get_ipython().history_manager.input_hist_raw))

# %%
sns.set_theme(style="whitegrid", context="notebook")
pd.Series(flat(identity(cfg)), name="value").to_frame()

# %% [markdown]
# ## The run

# %%
this = run(cfg, progress=True)
trained, record, classes = this.model, record_of(this), this.dataset.card["classes"]
training, test = parts_of(cfg, this.dataset)[0], this.dataset.split("test")
this.dataset.spec, f"{len(training)} training INRs, {len(test)} test INRs, {this.summary['parameters']:,} parameters, which read the {record['reads']}"


# %% [markdown]
# ## Images and their INRs
#
# What test INRs show, and how well; above them their images, where the run fitted INRs to images.

# %%
#| label: fig-inrs
#| fig-cap: "Test images and what their INRs show."
#| fig-alt: "Rows of eight pictures: the first test images above, where there are any, and the same pictures shown by their INRs below, each with its PSNR in dB."
def show(ax, image, title=None):
    ax.imshow((image if image.shape[-1] == 3 else image[..., :1]).clip(0, 1), cmap="gray", vmin=0, vmax=1)
    ax.set_title(title, fontsize=9)

few, size = test[:8], test.sizes if max(test.sizes) > 1 else (32, 32)
if test.inr.spec.coordinates == 2:
    shown = few.inr(pixel_grid(*size)).unflatten(1, size) / 2 + 0.5
    rows = [shown] if cfg.fit is None else [load_images(cfg.inputs.dataset, "test", len(few), cfg.inputs.size).images, shown]
    fig, axes = plt.subplots(len(rows), 8, figsize=(11, 1.5 * len(rows)), squeeze=False, subplot_kw=dict(frame_on=False, xticks=[], yticks=[]))
    for row, pictures in zip(axes, rows):
        for ax, picture, quality in zip(row, pictures, few.psnr):
            show(ax, picture, f"{quality:.1f} dB" if pictures is shown and quality.isfinite() else None)

# %%
#| label: fig-psnr
#| fig-cap: "How well the training INRs show their images."
#| fig-alt: "Histogram of the PSNR of the training INRs in dB."
if training.psnr.isfinite().any():
    fig, ax = plt.subplots(figsize=(5, 2))
    sns.histplot(x=training.psnr.numpy(), ax=ax, bins=40)
    ax.set(xlabel="PSNR of the training INRs (dB)")

# %% [markdown]
# ## Loss and validation
#
# Validation is what every choice may look at: a part of the training images, held out by their ids. A final run trains on them too, and then nothing validates.

# %%
#| label: fig-history
#| fig-cap: "Losses and validation accuracy after every epoch."
#| fig-alt: "Curves against the epoch: the cross-entropy of training and of validation, the crop error where there is one, and the validation accuracy, unless all images train."
history = pd.DataFrame(this.history).set_index("epoch").dropna(axis=1, how="all")
wanted = {"cross-entropy": ["cross_entropy", "val_cross_entropy"], "crop error (MSE)": ["crop_error"], "validation accuracy": ["val_accuracy"]}
panels = {name: history[[c for c in columns if c in history]] for name, columns in wanted.items() if set(columns) & set(history)} or {"as measured": history.drop(columns="lr", errors="ignore")}
fig, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 3), squeeze=False)
for ax, (name, curves) in zip(axes[0], panels.items()):
    curves.plot(ax=ax, ylabel=name, marker=".", legend=len(curves.columns) > 1)
    ax.locator_params(axis="x", integer=True)
fig.tight_layout()

# %% [markdown]
# ## What it confuses
#
# The test INRs, read once, when the run had ended.

# %%
#| label: fig-confusion
#| fig-cap: "Labels and what the reader says, in numbers of test INRs."
#| fig-alt: "Confusion matrix: a heat map of counts, one row for each label and one column for each answer, largest on the diagonal."
if cfg.objective == "classify":
    labels, said = (record["answers"]["test"][name] for name in ("labels", "answers"))
    shown = list(range(len(classes))) if len(classes) <= 300 else sorted({*labels, *said})
    named = [classes[k] for k in shown]
    confusion = pd.DataFrame(confusion_matrix(labels, said, labels=shown), index=named, columns=named)
    fig, ax = plt.subplots(figsize=(5.5, 4.5) if len(shown) <= 30 else (8, 7))
    sns.heatmap(confusion, annot=len(shown) <= 30, fmt="d", cmap="cividis", ax=ax, cbar=len(shown) > 30)
    ax.set(xlabel=f"{cfg.reader} says", ylabel="label")

# %% [markdown]
# ## Beside it
#
# No accuracy means much alone. These are the runs on record of the same seed, on the same INRs and the same split: other readers, and this one with another `depth` or `head`. *reads* says what the answers come from; a reader of the input INR looks at its picture. `rendered_input` is R² of the best linear map from the input INR's values to those of the target INRs, `rendered_depth0` of that from the target values of the reader without blocks.

# %%
beside = rivals(record, records())
beside.assign(row=beside["row"].map(plain_name), run=["this run" if row == cfg.reader else "" for row in beside["row"]]).round(4)

# %% [markdown]
# ## Crops
#
# A reader that can be hinted at a part of the image learned, beside its class, to give an INR that shows that crop on a grid of its own: above what it shows, below what the input INR shows at the hint points.

# %%
#| label: fig-crops
#| fig-cap: "What the reader shows of eight crops, and the crops."
#| fig-alt: "Two rows of eight small pictures, for a reader that can be hinted: crops as it shows them above, each with its PSNR in dB, and as the input INR shows them below."
if hasattr(trained, "crop") and getattr(cfg.task, "aux", False) and test.inr.spec.coordinates == 2:
    points = trained.build.whole
    crops = draw_crops(len(few), points, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found, wanted = trained.crop(few.inr, crops), few.inr(crops)
    sides = [grid_side(len(points), 2)] * 2
    fig, axes = plt.subplots(2, 8, figsize=(11, 3), subplot_kw=dict(frame_on=False, xticks=[], yticks=[]))
    for top, bottom, f, w, quality in zip(*axes, found, wanted, psnr(found, wanted)):
        show(top, f.unflatten(0, sides) / 2 + 0.5, f"{quality:.1f} dB")
        show(bottom, w.unflatten(0, sides) / 2 + 0.5)

# %% [markdown]
# ## Permuted neurons
#
# Every test INR's hidden neurons are shuffled. A reader that does not see their order keeps its logits, to rounding in float64. Beside it stands logistic regression on the flat weights, fitted to its optimum by scikit-learn (the one on record above is trained as readers are), of the first 10,000 training INRs.

# %%
if cfg.objective == "classify":
    shuffle = torch.Generator().manual_seed(0)
    permuted = permute(test.inr, random_permutation(test.inr.spec, len(test), generator=shuffle))
    invariance = invariance_error(copy.deepcopy(trained).double(), test.inr[:64], generator=shuffle)
    verdict = "" if invariance < 1e-10 else ", more than rounding: diverged weights and high frequencies amplify it" if trained.invariant else ": it sees the order of neurons"
    several = len(training.labels[:10_000].unique()) > 1  # one class leaves nothing to tell apart
    readers = {cfg.reader: trained} | ({"scikit-learn's logistic regression on flat weights": fit_flat(training[:10_000], classes)} if several else {})
    found = {name: {how: accuracy(logits_of_all(reader, inr), test.labels) for how, inr in (("as fitted", test.inr), ("neurons permuted", permuted))} for name, reader in readers.items()}
    display(f"relative change of the logits under permutation, float64: {invariance:.1e}{verdict}", pd.DataFrame(found).T.round(4))

# %% [markdown]
# ## The record
#
# What stays of a run; tables and figures read nothing else. It names what the logits come from (`reads`), the digest of the source that made it, and those of the INRs: of their recipe, and of their bits.
# `val_accuracy` is that of the held-out training images; `val_other_accuracy` and `test_other_accuracy` are measured on INRs of the same images, fitted from starts that training never saw; `val_crop_r2` is R² of the crops. When what is embedded of one INR is shown with what the blocks add to another's, `swap_blocks` is the share of answers that name what the second shows, and `swap_embedded` the first.

# %%
numbers = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in record["summary"].items()}
made = dict(run_id=record["run_id"], reads=record["reads"], source=record["source"]) | {f"INRs, {name}": value for name, value in record["inrs"].items()}
pd.Series(numbers | made, name="measured").to_frame()
