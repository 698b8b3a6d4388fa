"The fast fit against plain torch, in float64 and in decibels; what it does not depend on; what it refuses."

import os
import signal
import subprocess
import sys
import threading
import time
from functools import cache

import numpy as np
import pytest
import torch
from conftest import ROOT
from einops import rearrange
from sklearn.datasets import load_sample_image
from torch import nn

from inrformer import fitting
from inrformer.fitting import Adam, AutogradGradient, GridGradient, check_images, descend, fit, gradient_of, init_from_seeds, init_seeds, pick_chunk, sincos
from inrformer.inr import INR, INRSpec, grid, init_inr, pixel_grid, psnr
from inrformer.kinds.mfn import aliasing, nyquist

SPECS = {
    "shallow": INRSpec(widths=(2, 9, 1), omega=7.0),
    "usual": INRSpec(widths=(2, 12, 10, 3), omega=30.0),
    "deep": INRSpec(widths=(2, 6, 7, 5, 8, 2), omega=5.0, offset=0.5, bias_init="zero", first_init="hidden", last_init="linear"),
}
RELU = {
    "plain": INRSpec(widths=(2, 9, 7, 1), kind="relu"),
    "features": INRSpec(widths=(10, 12, 10, 3), kind="relu", options=(("fourier", 2),), offset=0.5, bias_init="zero"),
}

MFN = INRSpec(widths=(2, 9, 7, 1), kind="mfn")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(spec: INRSpec, n: int, height: int, width: int) -> tuple[INR, torch.Tensor]:
    "INRs and images in [-1, 1], float64."
    images = torch.rand(n, height, width, spec.widths[-1], dtype=torch.float64, generator=seeded(1)) * 2 - 1
    return init_inr(spec, n, generator=seeded(0)).to(torch.float64), images


def plain(start: INR, images: torch.Tensor, *, steps: int, lr: float, stride: int = 1) -> INR:
    "Adam by torch on gradients by autograd."
    rows, sizes = start.flat().requires_grad_(), images.shape[1:3]
    optimizer = torch.optim.Adam([rows], lr=lr)
    coords = pixel_grid(*sizes).to(rows.dtype).unflatten(0, sizes)
    for step in range(steps):
        i, j = divmod(step % stride**2, stride)
        seen, target = (t[..., i::stride, j::stride, :].flatten(-3, -2) for t in (coords, images))
        optimizer.zero_grad()
        (INR.from_flat(rows, start.spec)(seen) - target).square().mean(dim=(1, 2)).sum().backward()
        optimizer.step()
    return INR.from_flat(rows.detach(), start.spec)


@pytest.fixture(scope="module")
def pieces() -> torch.Tensor:
    "Pieces of a photograph, 32 x 32 pixels."
    photo = torch.tensor(load_sample_image("flower.jpg"))[:416].float() / 255
    return rearrange(photo, "(y h) (x w) c -> (y x) h w c", h=32, w=32)[96:112]


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-7), (torch.float64, 1e-15)])
def test_sines_and_cosines_are_accurate(dtype, tolerance):
    for reach in (1.0, 100.0, 10_000.0):
        angle = (torch.rand(5, 20_001, dtype=dtype, generator=seeded(0)) * 2 - 1) * reach
        sine, cosine = torch.empty_like(angle), torch.empty_like(angle)
        sincos(angle, sine, cosine)
        assert (sine - angle.double().sin()).abs().max() < tolerance and (cosine - angle.double().cos()).abs().max() < tolerance


@pytest.mark.parametrize("gradient, spec", [*((GridGradient, spec) for spec in SPECS.values()), *((AutogradGradient, spec) for spec in (SPECS | RELU).values())], ids=str)
@pytest.mark.parametrize("sizes", [(6, 7), (8, 3), (1, 5)])
def test_the_gradient_is_autograds(gradient, spec, sizes):
    inr, images = drawn(spec, 4, *sizes)
    flat = inr.flat().requires_grad_()
    (INR.from_flat(flat, inr.spec)(pixel_grid(*sizes).double()) - images.flatten(1, 2)).square().mean(dim=(1, 2)).sum().backward()
    found = torch.full_like(flat, torch.nan)
    rows, cols = (grid(n)[:, 0].double() for n in sizes)
    compute = gradient(inr, INR.from_flat(found, inr.spec), sizes)
    for _ in range(2):
        compute(rows, cols, rearrange(images, "b h w c -> b c (h w)"))
        assert (found - flat.grad).abs().max() < 1e-12 * flat.grad.abs().max()


@pytest.mark.parametrize("name", SPECS | RELU)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_fit_is_that_of_autograd_and_torchs_adam(name, stride):
    start, images = drawn((SPECS | RELU)[name], 3, 12, 6)
    before = start.flat().clone()
    inr, quality = descend(start, images, steps=40, lr=2e-3, stride=stride)
    reference = plain(start, images, steps=40, lr=2e-3, stride=stride)
    assert (inr.flat() - reference.flat()).abs().max() < 1e-9
    assert (reference.flat() - before).abs().max() > 1e-3 and torch.equal(start.flat(), before)
    assert (quality - psnr(reference(pixel_grid(12, 6).double()), images.flatten(1, 2))).abs().max() < 1e-6


def test_a_penalty_is_added_to_the_error_and_knows_the_whole_image():
    inr, images = drawn(MFN, 3, 12, 6)
    flat = inr.flat().requires_grad_()
    leaves, seen = INR.from_flat(flat, MFN), pixel_grid(12, 6).double().unflatten(0, (12, 6))[::2, ::2].flatten(0, 1)
    error = (leaves(seen) - images[:, ::2, ::2].flatten(1, 2)).square().mean(dim=(1, 2)) + 0.3 * aliasing(leaves, nyquist((12, 6)))
    (slope,) = torch.autograd.grad(error.sum(), flat)
    found = torch.full_like(slope, torch.nan)
    rows, cols = (grid(n)[::2, 0].double() for n in (12, 6))
    gradient_of(inr, INR.from_flat(found, MFN), (12, 6), stride=2, penalty=0.3)(rows, cols, rearrange(images[:, ::2, ::2], "b h w c -> b c (h w)"))
    assert (found - slope).abs().max() < 1e-12 * slope.abs().max()


def test_without_a_penalty_a_fit_is_what_it_was_to_the_bit():
    inr, images = drawn(MFN, 3, 8, 8)
    start, images = inr.to(torch.float32), images.float()
    rows, coords, target = start.flat(), torch.stack(torch.meshgrid(grid(8)[:, 0], grid(8)[:, 0], indexing="ij"), dim=-1).flatten(0, 1), rearrange(images, "b h w c -> b c (h w)")
    move = Adam(rows, 1e-2)
    for _ in range(20):
        leaves = INR.from_flat(rows, MFN).map(lambda t: t.detach().requires_grad_())
        error = (leaves(coords).mT - target).square().mean(dim=(1, 2)).sum()
        move(INR(torch.autograd.grad(error, leaves.tensors), MFN).flat())
    assert torch.equal(descend(start, images, steps=20, lr=1e-2)[0].flat(), rows)
    assert not torch.equal(descend(start, images, steps=20, lr=1e-2, penalty=1e-3)[0].flat(), rows)


def test_a_penalty_lowers_aliasing(pieces):
    images, limit, how = pieces[:3, ::4, ::4, :1], nyquist((8, 8)), dict(steps=40, lr=0.1, device="cpu")
    without, little, much = (aliasing(fit(images, MFN, penalty=weight, **how).inr, limit) for weight in (None, 0.01, 1.0))
    assert (little < without).all() and (much < 0.7 * without).all()
    alone = fit(images[1:2], MFN, penalty=1.0, init="independent", ids=[1], **how)
    assert torch.equal(alone.inr.flat(), fit(images, MFN, penalty=1.0, init="independent", **how).inr[1:2].flat())


def test_adam_is_torchs():
    rows = torch.randn(3, 50, dtype=torch.float64, generator=seeded(0))
    ours, torchs = rows.clone(), rows.clone().requires_grad_()
    one, other = Adam(ours, lr=1e-2), torch.optim.Adam([torchs], lr=1e-2)
    for step in range(50):
        torchs.grad = torch.randn(rows.shape, dtype=torch.float64, generator=seeded(step)) * 10.0 ** (step % 5 - 4)
        one(torchs.grad), other.step()
    assert (ours - torchs).abs().max() < 1e-13


def test_decibels_are_those_of_a_plain_loop(pieces):
    class Sine(nn.Module):
        def forward(self, x):
            return torch.sin(30 * x)

    ours, coords = fit(pieces[:4], INRSpec(), steps=150, lr=1e-3, device="cpu"), pixel_grid(32, 32)
    start = init_from_seeds(INRSpec(), init_seeds("shared", [0]))
    for image, quality in zip(pieces, ours.psnr):
        net = nn.Sequential(nn.Linear(2, 32), Sine(), nn.Linear(32, 32), Sine(), nn.Linear(32, 3))
        tensors = [t[0].clone() for pair in zip(start.weights, start.biases) for t in pair]
        net.load_state_dict(dict(zip(net.state_dict(), tensors)))
        optimizer, target = torch.optim.Adam(net.parameters(), lr=1e-3), image.flatten(0, 1) * 2 - 1
        for _ in range(150):
            optimizer.zero_grad()
            (net(coords) - target).square().mean().backward()
            optimizer.step()
        assert abs(psnr(net(coords).detach()[None], target[None]).item() - quality) < 0.1 and quality > 30


FEATURES = INRSpec(widths=(26, 32, 32, 3), kind="relu", options=(("fourier", 6),))


def test_a_relu_inr_shows_the_photograph(pieces):
    result = fit(pieces[:4], FEATURES, steps=150, lr=5e-3, device="cpu")
    rendered = result.inr(pixel_grid(32, 32)) / 2 + 0.5
    assert result.inr.spec == FEATURES and (result.psnr > 25).all()
    assert (psnr(rendered * 2 - 1, pieces[:4].flatten(1, 2) * 2 - 1) - result.psnr).abs().max() < 1e-3
    assert (rendered - pieces[:4].flatten(1, 2)).square().mean().sqrt() < 0.06


@pytest.mark.parametrize("spec", [INRSpec(), FEATURES], ids=["siren", "relu"])
@pytest.mark.parametrize("stride", [1, 2])
def test_an_inr_does_not_know_its_neighbours(pieces, stride, spec):
    settings = dict(spec=spec, steps=8, lr=1e-3, stride=stride, init="independent", device="cpu")
    together = fit(pieces, **settings)
    assert len(together.inr) == 16 and len(set(together.init_seeds)) == 16
    for i in (0, 7, 8, 15):
        alone = fit(pieces[i : i + 1], **settings, ids=[i])
        assert torch.equal(alone.inr.flat(), together.inr[i : i + 1].flat()) and torch.equal(alone.psnr, together.psnr[i : i + 1])
    assert torch.equal(fit(pieces.flip(0), **settings, ids=range(15, -1, -1)).inr.flat(), together.inr.flat().flip(0))


@pytest.mark.parametrize("init", ["shared", "pool", "independent"])
def test_whole_numbers_of_any_type_are_the_same_seed(pieces, init):
    settings, wholes = dict(steps=2, lr=1e-3, init=init, device="cpu"), (np.int64, np.int32, torch.tensor)
    plainly = fit(pieces[:2], INRSpec(), **settings, seed=3, ids=[7, 8])
    for whole in wholes:
        other = fit(pieces[:2], INRSpec(), **settings, seed=whole(3), ids=[whole(7), whole(8)])
        assert torch.equal(other.inr.flat(), plainly.inr.flat()) and other.init_seeds == plainly.init_seeds
        assert init_seeds(init, [whole(7)], seed=whole(3), copy=whole(0)) == plainly.init_seeds[:1]
    for wrong in (dict(seed=3.0), dict(ids=[7.0, 8.0])):
        with pytest.raises(TypeError):
            fit(pieces[:2], INRSpec(), **settings | wrong)


def test_threads_share_the_work_and_not_the_bits(pieces):
    threads, settings = torch.get_num_threads(), dict(steps=5, lr=1e-3, device="cpu")
    torch.set_num_threads(1)
    try:
        one = fit(pieces, INRSpec(), **settings)
        torch.set_num_threads(3)
        three = fit(pieces, INRSpec(), **settings)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(one.inr.flat(), three.inr.flat())


def test_a_chunk_follows_from_sizes_alone():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert pick_chunk(INRSpec(), (32, 32), cpu) == 8 and pick_chunk(INRSpec(), (32, 32), cpu, stride=2) == 32
    assert pick_chunk(INRSpec(widths=(2, 512, 3)), (512, 512), cpu) == 1 and pick_chunk(INRSpec(widths=(2, 8, 1)), (8, 8), cpu) == 32
    assert pick_chunk(INRSpec(), (32, 32), gpu) == 1024


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")])
def test_memory_that_does_not_suffice_advises_a_smaller_chunk(error, pieces, monkeypatch):
    def full(*_, **__):
        raise error

    monkeypatch.setattr(fitting, "descend", full)
    with pytest.raises(MemoryError, match="chunks of 7 INRs do not fit into the memory of cpu: use a smaller chunk"):
        fit(pieces, INRSpec(), steps=1, lr=1e-3, chunk=7, device="cpu")
    error.args = ("something else",)
    if not isinstance(error, torch.OutOfMemoryError):
        with pytest.raises(RuntimeError, match="something else"):
            fit(pieces, INRSpec(), steps=1, lr=1e-3, device="cpu")


FITTED = """
import torch
from inrformer.fitting import code_path, fit
from inrformer.inr import INRSpec

images = torch.rand(3, 16, 16, 3, generator=torch.Generator().manual_seed(0))
print(fit(images, INRSpec(), steps=10, lr=1e-3, device="cpu").inr.flat().numpy().tobytes().hex())
print(code_path(torch.device("cpu")))
"""


@cache
def fitted(**env: str) -> list[str]:
    return subprocess.check_output([sys.executable, "-c", FITTED], cwd=ROOT, env=os.environ | env, text=True).splitlines()


@pytest.mark.parametrize("change", [dict(OMP_NUM_THREADS="3"), dict(MKL_CBWR="COMPATIBLE"), dict(ATEN_CPU_CAPABILITY="default"), dict(OMP_NUM_THREADS="2")], ids=str)
def test_where_bits_differ_the_code_path_does(change):
    (bits, code), (other_bits, other_code) = fitted(OMP_NUM_THREADS="1"), fitted(**dict(OMP_NUM_THREADS="1") | change)
    assert bits == other_bits or code != other_code
    assert code == other_code or change.keys() & {"MKL_CBWR", "ATEN_CPU_CAPABILITY"}


def test_what_cannot_be_fitted_is_refused(pieces):
    cases = {
        "do not fit INRSpec": dict(spec=INRSpec(widths=(2, 8, 1))),
        r"needed are \(b, height, width, c\) images, 2 coordinates": dict(spec=INRSpec(widths=(15, 8, 3), kind="relu", options=(("fourier", 2),))),
        "stride must divide the images' height and width, 32 and 32, and 3 does not": dict(stride=3),
        "stride must divide": dict(stride=0),
        "16 images need as many ids, not 2": dict(ids=[0, 1]),
        "steps must be at least 0, not -1": dict(steps=-1),
        "chunk must be at least 1 INR, not 0": dict(chunk=0),
        "init must be one of": dict(init="random"),
        r"16 of 16 fits diverged at lr=1e.20 .*: use a smaller": dict(lr=1e20, steps=20),
        r"16 of 16 fits diverged at lr=1000.0 \(PSNR below 0 dB or NaN\)": dict(lr=1e3, steps=20),
        r"must lie in \[0, 1\]": dict(images=pieces * 255),
        r"INRs of the kind siren have no penalty, and \['mfn'\] have: leave penalty out": dict(penalty=1.0),
        "penalty must be a positive number, or None, not nan": dict(penalty=float("nan")),
        "penalty must be a positive number, or None, not -1.0": dict(penalty=-1.0),
        "penalty must be a positive number, or None, not inf": dict(penalty=float("inf")),
        "penalty must be a positive number, or None, not 0.0": dict(penalty=0.0),
        "there are no images": dict(images=pieces[:0]),
        "there is no device 'foo' to fit on here": dict(device="foo"),
        "there is no device 'mps' to fit on here": dict(device=torch.device("mps")),
    }
    if not torch.cuda.is_available():
        cases["there is no device 'cuda' to fit on here: choose one of .'cpu'."] = dict(device="cuda")
    for message, changes in cases.items():
        with pytest.raises(ValueError, match=message):
            fit(**dict(images=pieces, spec=INRSpec(), steps=1, lr=1e-3) | changes)
    with pytest.raises(ValueError, match=r"floating-point numbers in \[0, 1\], not torch.uint8: use .float\(\)"):
        check_images((pieces > 0.5).byte(), INRSpec())


def test_progress_shows_speed_quality_and_time_left(pieces, capsys):
    fit(pieces, INRSpec(), steps=5, lr=1e-3, device="cpu", progress=True)
    shown = capsys.readouterr().err
    assert "16/16" in shown and "INR/s" in shown and "psnr=" in shown and "<00:00" in shown


def test_an_interrupt_ends_a_fit_within_a_step_or_two():
    images = torch.rand(1, 256, 256, 3)
    waker, before = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)), signal.signal(signal.SIGINT, signal.default_int_handler)
    begun = time.monotonic()
    try:
        waker.start()
        with pytest.raises(KeyboardInterrupt):
            fit(images, INRSpec(widths=(2, 32, 32, 3)), steps=2000, lr=1e-3, device="cpu")
    finally:
        waker.join()
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - begun < 6, "it waits for the whole chunk"


def test_an_image_that_is_too_large_for_one_inr_at_a_time_says_what_helps(monkeypatch):
    def fails(*args, **options):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(fitting, "descend", fails)
    for chunk, said in ((1, "use smaller images, narrower hidden layers, or a stride"), (2, "use a smaller chunk or, where none can be given, smaller images")):
        with pytest.raises(MemoryError, match=f"chunks of {chunk} INRs do not fit into the memory of cpu: {said}"):
            fit(torch.rand(2, 8, 8, 1), INRSpec(widths=(2, 4, 4, 1)), steps=1, lr=1e-3, chunk=chunk, device="cpu")
