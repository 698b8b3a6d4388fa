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
# # Train INRFormer
#
# > One run from images to a trained model: INRs are fitted, their graphs read, the model trained, and everything that it found is measured.

# %% [markdown]
# Run it with papermill, `papermill nbs/train.ipynb runs/train.ipynb -p hint 256`, or cell by cell. A run that was cut goes on where it stopped; a run that is done is only shown.
# What is shown below is the run whose model ships with the package; its record is in `figures/records/digits.jsonl`.

# %%
_before = dict(globals())

# %% tags=["parameters"]
dataset: str = "digits"  # images: digits, mnist, cifar10, a Hub name, a folder, or a pattern holding {split}
protocol: str = None  # what the result may be compared with; follows from the data set
n_train: int = None  # training images, the first of the file
n_test: int = None  # test images, the first of the file
hidden: str = None  # hidden widths of the INRs, written "32-32": papermill cannot pass tuples
omega: float = None  # frequency scale: how wild an INR may be, and how hard to read
bias_init: str = None  # biases of the INRs start uniform or zero; zero leaves fewer phases to unravel
fit_steps: int = None  # Adam steps per INR: few give blurs, many give sharp images
fit_lr: float = None  # Adam's rate while fitting
init: str = None  # start of the INRs: shared, pool or independent
inits: int = None  # starts in the pool
copies: int = None  # INRs per training image
test_init: str = None  # "other" also tests on INRs from starts never seen; "same" does not
augment: str = None  # name in AUGMENTATIONS: moves of the image made in weight space
weight_noise: float = None  # noise on the training INRs' weights, in units of each tensor's scale: against learning by heart
canonical: bool = None  # read the canonical form under sine signs and phases
model: str = None  # name in MODELS, which gives sizes and choices that are not given
dim: int = None  # node width
edge_dim: int = None  # edge width, where most of the work is
depth: int = None  # blocks
heads: int = None  # attention heads
edge_identity: bool = None  # edges know their coordinate or channel
shared_fold: bool = None  # one fold for incoming and outgoing edges (the paper)
head_start: bool = None  # feature INRs start from the input INR
raw_scalar: bool = None  # the weight itself among its sines
head_scale: float = None  # unit of the feature INRs' change, in scales of each tensor
head_bias: str = None  # unit of a bias's change: its own scale, or fan_in for biases that are small on purpose
max_frequency: float = None  # of the sinusoidal embedding, per standard deviation of the weight
hint: int = None  # grid points that describe the crop
query: int = None  # grid points at which feature INRs are read
features: int = None  # feature INRs
weight_embedding: str = None  # sinusoidal or chebyshev
layer_embedding: bool = None  # learned vectors for layers
pool: str = None  # max or mean: how edges fold into nodes
aux: bool = None  # the auxiliary crop task
epochs: int = None  # passes over the training INRs
batch_size: int = None  # INRs per step, over all processes
lr: float = None  # AdamW's peak rate
weight_decay: float = None  # AdamW's decay of matrices
seed: int = 0  # of fitting, of the first weights and of every draw
precision: str = None  # fp32 or bf16; bf16 on a GPU that has it
device: str = None  # cpu or cuda; the GPU where there is one. Not part of the hash

# %% [markdown]
# ## The config
#
# Parameters that are `None` follow the data set's protocol. A name that is none of the above is refused.

# %%
_after = dict(globals())

# %%
import copy

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import torch
from IPython.display import display

from inrformer.data import load_images
from inrformer.experiments import RunConfig, accuracy, config_from, flat_classifier, identity, record_of, resolve, run
from inrformer.inr import pixel_grid, psnr
from inrformer.symmetry import invariance_error, permute, random_permutation
from inrformer.training import draw_hints

# %%
given = {k: v for k, v in _after.items() if k in vars(RunConfig()) or (k not in _before or v is not _before[k]) and not k.startswith("_")}
cfg = resolve(config_from(given))

# %%
sns.set_theme(style="whitegrid", context="notebook")
pd.Series(identity(cfg), name="value").to_frame()

# %% [markdown]
# ## The run

# %%
this = run(cfg, progress=True)
training, test = this.dataset.split("train"), this.dataset.split("test")
trained = this.model
this.dataset.spec, f"{len(training)} training INRs, {len(test)} test INRs, {this.summary['parameters']:,} parameters"


# %% [markdown]
# ## Images and their INRs
#
# Above, test images; below, what their INRs show, and how well.

# %%
#| label: fig-inrs
#| fig-cap: "Test images and what their INRs show."
#| fig-alt: "Two rows of eight pictures: the first test images above, the same pictures shown by their INRs below, each with its PSNR in dB."
def show(ax, image, title=None):
    ax.imshow(image.clip(0, 1), cmap="gray", vmin=0, vmax=1)
    ax.set_axis_off()
    ax.set_title(title, fontsize=9)

images = load_images(cfg.dataset, "test", cfg.n_test).images
size = images.shape[1:3]
fig, axes = plt.subplots(2, 8, figsize=(11, 3))
for top, bottom, image, inr, quality in zip(*axes, images, test.inr, test.psnr):
    show(top, image)
    show(bottom, inr(pixel_grid(*size))[0].unflatten(0, size) / 2 + 0.5, f"{quality:.1f} dB")

# %%
#| label: fig-psnr
#| fig-cap: "How well the training INRs show their images."
#| fig-alt: "Histogram of the PSNR of the training INRs in dB."
fig, ax = plt.subplots(figsize=(5, 2))
sns.histplot(x=training.psnr.numpy(), ax=ax, bins=40)
ax.set(xlabel="PSNR of the training INRs (dB)");

# %% [markdown]
# ## Loss and accuracy

# %%
#| label: fig-history
#| fig-cap: "Losses and test accuracy after every epoch."
#| fig-alt: "Three curves against the epoch: the cross-entropy and the crop error fall, the test accuracy rises and levels off; on INRs from other starts it stays low."
history = pd.DataFrame(this.history).set_index("epoch")
fig, axes = plt.subplots(1, 3, figsize=(12, 3))
for ax, columns, name in zip(axes, (["cross_entropy"], ["crop_error"], [c for c in history if c.endswith("accuracy")]),
                             ("cross-entropy", "crop error (MSE)", "test accuracy")):
    sns.lineplot(history[columns], ax=ax)
    ax.set(ylabel=name)
fig.tight_layout()

# %% [markdown]
# ## What it confuses

# %%
#| label: fig-confusion
#| fig-cap: "Labels and what INRFormer says, in numbers of test INRs."
#| fig-alt: "Confusion matrix: a heat map of counts, one row for each label and one column for each answer, largest on the diagonal."
with torch.inference_mode():
    logits = torch.cat([trained(test.inr[i : i + 256]).logits for i in range(0, len(test), 256)])
classes = this.dataset.card["classes"]
confusion = pd.crosstab(test.labels.numpy(), logits.argmax(1).numpy()).reindex(index=range(len(classes)), columns=range(len(classes)), fill_value=0)
confusion.index, confusion.columns = classes, classes
fig, ax = plt.subplots(figsize=(5.5, 4.5))
sns.heatmap(confusion, annot=True, fmt="d", cmap="cividis", ax=ax, cbar=False)
ax.set(xlabel="INRFormer says", ylabel="label");

# %% [markdown]
# ## Crops
#
# The auxiliary INR shows the hinted crop on its own canonical grid: above what it shows, below what the input INR shows at the hint points.

# %%
#| label: fig-crops
#| fig-cap: "What the auxiliary INR shows of eight crops, and the crops."
#| fig-alt: "Two rows of eight small pictures: crops as the auxiliary INR shows them above, each with its PSNR in dB, and as the input INR shows them below."
if trained.show_crop is not None:
    points = trained.build.whole
    side = int(len(points) ** 0.5)
    few = test.inr[:8]
    crops = draw_hints(len(few), points, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        shown, wanted = trained(few, crops).crop(points), few(crops)
    fig, axes = plt.subplots(2, 8, figsize=(11, 3))
    for top, bottom, s, w, quality in zip(*axes, shown, wanted, psnr(shown, wanted)):
        show(top, s.unflatten(0, (side, side)) / 2 + 0.5, f"{quality:.1f} dB")
        show(bottom, w.unflatten(0, (side, side)) / 2 + 0.5)

# %% [markdown]
# ## Permuted neurons
#
# Every test INR's hidden neurons are shuffled. INRFormer's logits stay, to rounding in float64; logistic regression on the flat weights loses its bearings.

# %%
shuffle = torch.Generator().manual_seed(0)
permuted = permute(test.inr, random_permutation(test.inr.spec, len(test), generator=shuffle))
double = copy.deepcopy(trained).double()
invariance = invariance_error(lambda x: double(x).logits, test.inr[:64], generator=shuffle)
verdict = "" if invariance < 1e-10 else ", more than rounding: diverged weights and high frequencies amplify it"
with torch.inference_mode():
    permuted_logits = torch.cat([trained(permuted[i : i + 256]).logits for i in range(0, len(test), 256)])
linear = flat_classifier(training) if len(training.labels.unique()) > 1 else None  # one class leaves it nothing to tell apart
by_weights = [(linear.predict(x.flat().numpy()) == test.labels.numpy()).mean() if linear else None for x in (test.inr, permuted)]
both = pd.DataFrame(
    {"as fitted": [accuracy(logits, test.labels), by_weights[0]], "neurons permuted": [accuracy(permuted_logits, test.labels), by_weights[1]]},
    index=["INRFormer", "logistic regression on flat weights"],
)
display(f"relative change of the logits under permutation, float64: {invariance:.1e}{verdict}", both.round(4))

# %% [markdown]
# ## The record
#
# What stays of a run; tables and figures read nothing else. `test_other_accuracy` is measured on INRs of the same test images, fitted from starts that training never saw.

# %%
record = record_of(this)
shown = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in record["summary"].items()}
pd.Series(shown | dict(run_id=record["run_id"]), name="measured").to_frame()
