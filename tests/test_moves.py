"Moves of the image in weight space: exact, of every kind whose layer 0 holds the coordinates, and drawn from their generator."

import math

import pytest
import torch

from inrformer.inr import INRSpec, init_inr, pixel_grid
from inrformer.moves import AUGMENTATIONS, add_noise, augment, transform
from inrformer.symmetry import permute, random_permutation, relative_error

SPEC = INRSpec(widths=(2, 12, 12, 1), omega=8.0)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", ["translate", "rotate", "zoom", "mirror", "all"])
def test_augmented_inrs_are_exact(kind):
    most = dict(translate=0.4, rotate=40.0, zoom=0.4, mirror=True)
    inr, coords = init_inr(SPEC, 12, generator=seeded(0)).to(torch.float64), pixel_grid(11, 9).double()
    flat = inr.flat().clone()
    moved = augment(inr, **(most if kind == "all" else {kind: most[kind]}), generator=seeded(5))
    a = torch.linalg.lstsq(inr.weights[0], moved.weights[0]).solution
    t = torch.linalg.lstsq(inr.weights[0], (moved.biases[0] - inr.biases[0])[:, :, None]).solution[:, :, 0]
    assert (moved(coords) - inr(coords @ a.mT + t[:, None])).abs().max() < 1e-10
    assert torch.equal(inr.flat(), flat), "augment changed its argument"
    assert (transform(inr, a, t).flat() - moved.flat()).abs().max() < 1e-10
    scale = a.det().abs().sqrt()
    assert t.abs().max() <= 0.4 and (t.abs().max() > 0.1) == (kind in ("translate", "all"))
    assert (a.det() < -1e-6).any() == (kind in ("mirror", "all")) and (a.det() > 0).any()
    assert ((scale - 1).abs() > 0.05).any() == (kind in ("zoom", "all")) and ((scale - 1).abs() <= 0.4).all()
    assert (a[:, 0, 1].abs() > 0.05).any() == (kind in ("rotate", "all"))
    assert relative_error(a @ a.mT, scale.square()[:, None, None] * torch.eye(2)) < 1e-9


def test_a_mirrored_and_a_shifted_image_are_what_they_should_be():
    inr = init_inr(SPEC, 1, generator=seeded(0)).to(torch.float64)
    image = inr(pixel_grid(9, 9).double()).unflatten(1, (9, 9))
    mirrored = transform(inr, torch.diag(torch.tensor([1.0, -1.0])).double()[None], torch.zeros(1, 2).double())
    shifted = transform(inr, torch.eye(2).double()[None], torch.tensor([[0.25, 0.0]]).double())
    assert (mirrored(pixel_grid(9, 9).double()).unflatten(1, (9, 9)) - image.flip(2)).abs().max() < 1e-12
    assert (shifted(pixel_grid(9, 9).double()).unflatten(1, (9, 9))[:, :-1] - image[:, 1:]).abs().max() < 1e-12


def test_augment_commutes_with_permute_and_is_drawn_from_its_generator():
    inr = init_inr(SPEC, 8, generator=seeded(0)).to(torch.float64)
    perm, options = random_permutation(SPEC, 8, generator=seeded(1)), AUGMENTATIONS["mirror"]
    one, other = (augment(permute(x, p), **options, generator=seeded(2)) for x, p in ((inr, perm), (permute(inr, perm), perm.identity(SPEC, 8))))
    assert torch.equal(one.flat(), other.flat())
    assert relative_error(permute(augment(inr, **options, generator=seeded(2)), perm), one) < 1e-12
    assert not torch.equal(augment(permute(inr, perm), **options, generator=seeded(3)).flat(), one.flat())
    assert torch.equal(augment(inr, **AUGMENTATIONS["none"]).flat(), inr.flat())
    assert len(augment(inr[[0] * 4], translate=0.1).biases[0].unique(dim=0)) == 4, "every INR needs a draw of its own"


def test_augment_refuses_what_it_cannot_do():
    volume, line = (init_inr(INRSpec(widths=(n, 6, 6, 1)), 2) for n in (3, 1))
    assert len(augment(line, translate=0.2, zoom=0.2)) == len(augment(volume, translate=0.2, zoom=0.2)) == 2
    for inr, options in ((volume, dict(rotate=5.0)), (line, dict(mirror=True))):
        with pytest.raises(ValueError, match="2 coordinates"):
            augment(inr, **options)
    for options in (dict(zoom=1.0), dict(translate=-0.1), dict(rotate=-5.0), *({name: math.nan} for name in ("translate", "rotate", "zoom")), dict(rotate=math.inf)):
        with pytest.raises(ValueError, match="must be finite and not negative, and zoom must be below 1"):
            augment(line, **options)


def test_noise_refuses_what_it_cannot_scale():
    inr, scale = init_inr(SPEC, 2, generator=seeded(0)), torch.ones(6)
    assert add_noise(inr, 0.1, scale, generator=seeded(1)).check_finite().flat().std() > inr.flat().std() > 0
    for size in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="the size of noise must be finite and not negative"):
            add_noise(inr, size, scale)
    for n in (5, 7):
        with pytest.raises(ValueError, match=rf"a scale of shape \({n},\) does not fit .*: needed is one number for each of its 6 tensors"):
            add_noise(inr, 0.1, torch.ones(n))


@pytest.mark.parametrize("kind", ["siren", "relu"])
@pytest.mark.parametrize("sizes", [(40, 20), (20, 40), (28, 28)])
def test_a_picture_that_is_not_square_is_turned_and_not_sheared(kind, sizes):
    inr, (h, w) = init_inr(INRSpec(widths=(2, 8, 8, 1), omega=4.0, kind=kind), 1, generator=seeded(0)).to(torch.float64), sizes
    generator, extent = seeded(3), torch.tensor(sizes, dtype=torch.float64) - 1
    turned = augment(inr, rotate=60.0, sizes=sizes, generator=seeded(3))
    angle = torch.deg2rad(60 * (torch.rand(1, 5, dtype=torch.float64, generator=generator) * 2 - 1)[0, 3])
    assert angle.abs() > 0.2
    pixels = pixel_grid(h, w).double() * extent
    rotation = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    rendered = inr((pixels @ rotation.mT) / extent)
    assert (turned(pixel_grid(h, w).double()) - rendered).abs().max() < 1e-12
    sheared = augment(inr, rotate=60.0, generator=seeded(3))
    assert ((sheared(pixel_grid(h, w).double()) - rendered).abs().max() > 1e-3) == (h != w)


def test_features_of_coordinates_cannot_be_moved_and_say_so():
    plain, fourier = (init_inr(INRSpec(widths=(n, 6, 1), kind="relu", options=(("fourier", k),)), 2) for n, k in ((2, 0), (10, 2)))
    assert len(augment(plain, translate=0.2, rotate=10.0)) == 2
    for move in (lambda: transform(fourier, torch.eye(10).repeat(2, 1, 1), torch.zeros(2, 10)), lambda: augment(fourier, translate=0.2)):
        with pytest.raises(ValueError, match=r"moves are exact where layer 0 holds the coordinates; in this relu of options \{'fourier': 2\} it holds 10 features of 2 coordinates"):
            move()
