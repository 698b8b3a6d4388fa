"The contrastive objective: its loss by hand and by another way, its views, its partners, and what it measures."

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from inrformer.inr import INR, INRSpec, init_inr, stream
from inrformer.objectives.contrast import Contrast, ContrastConfig, drop_neurons, drop_numbers, find_partners, nt_xent, uniformity
from inrformer.reader import READERS, load_reader, seed_parameters
from inrformer.runs import run
from inrformer.splits import Split
from inrformer.training import Train, Workers, batches

SPEC = INRSpec(widths=(2, 5, 4, 1), omega=10.0)
SMALL = dict(n_train=96, n_test=48, fit_steps=30, hidden="6-6", reader="deepsets", pair_dim=8, epochs=1, device="cpu", objective="contrast")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def split_of(images=6, starts=2):
    "Starts of images: those of one image follow each other after all images."
    n = images * starts
    ids = torch.arange(images).repeat(starts)
    return Split(inr=init_inr(SPEC, n, generator=seeded()), labels=ids % 3, ids=ids, psnr=torch.full((n,), 30.0), init_seeds=torch.arange(n))


def reader_of(name="deepsets"):
    return READERS[name](SPEC)


def task_of(split=None, **config):
    task = Contrast(ContrastConfig(**config), classes="012")
    if split is not None:
        task.meet(split)
    return task


def by_loops(first, second, ids, temperature):
    "NT-Xent, view by view."
    views, images, total = [*first.tolist(), *second.tolist()], ids.tolist() * 2, 0.0
    for i, u in enumerate(views):
        def term(j, u=u):
            cosine = sum(a * b for a, b in zip(u, views[j])) / math.hypot(*u) / math.hypot(*views[j])
            return math.exp(cosine / temperature)

        partner = (i + len(ids)) % len(views)
        others = sum(term(j) for j in range(len(views)) if images[j] != images[i])
        total -= math.log(term(partner) / (term(partner) + others))
    return total / 2


@pytest.mark.parametrize("ids", [[0, 1, 2, 3, 4], [3, 1, 3, 3, 1]])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_nt_xent_is_what_loops_say(ids, temperature):
    first, second = torch.randn(2, 5, 3, generator=seeded(), dtype=torch.float64)
    assert nt_xent(first, second, torch.tensor(ids), temperature).item() == pytest.approx(by_loops(first, second, torch.tensor(ids), temperature), rel=1e-10)


def test_nt_xent_of_a_batch_worked_by_hand():
    "Two images at 90 degrees, the second views turned by 60. Every view sees its partner at 1/2 and the others at 0 and, two views each, at sin 60 or -sin 60."
    c, s = 0.5, math.sqrt(3) / 2
    first, second = torch.eye(2, dtype=torch.float64), torch.tensor([[c, s], [-s, c]], dtype=torch.float64)
    expected = sum(math.log(1 + (1 + math.exp(other)) / math.exp(c)) for other in (s, -s))
    assert nt_xent(first, second, torch.tensor([0, 1]), 1.0).item() == pytest.approx(expected, rel=1e-12)


def test_inrs_of_one_image_are_no_negatives():
    first, second = torch.randn(2, 3, 4, generator=seeded())
    near, far = (nt_xent(torch.cat([first, copy]), torch.cat([second, copy]), torch.tensor([0, 1, 2, 0]), 0.1) for copy in (first[:1], -first[:1]))
    wrong = nt_xent(torch.cat([first, first[:1]]), torch.cat([second, first[:1]]), torch.arange(4), 0.1)
    assert near < wrong and near != far
    assert nt_xent(first, second, torch.zeros(3, dtype=torch.long), 0.1) == 0


def test_what_cannot_teach_is_refused():
    with pytest.raises(ValueError, match="no view is chosen.*view_starts"):
        ContrastConfig(view_noise=0.0)
    with pytest.raises(ValueError, match="needs two INRs at least, so use a larger batch_size or fewer threads"):
        nt_xent(torch.ones(1, 2), torch.ones(1, 2), torch.zeros(1, dtype=torch.long), 1.0)
    for alone in (split_of(starts=1), replace(split_of(), init_seeds=torch.zeros(12, dtype=torch.long))):
        with pytest.raises(ValueError, match='copies=2 and init="independent" or "pool"'):
            task_of(alone, view_starts=True)
    with pytest.raises(ValueError, match=r"call meet\(split\) first"):
        task_of(view_starts=True).draw(reader_of(), split_of(), seeded())
    for name, value in dict(view_drop=1.0, view_neurons=-0.1, temperature=0.0, projection=0, view_moves="spin").items():
        with pytest.raises(ValueError, match=name):
            ContrastConfig(**{name: value})


def test_partners_are_other_starts_of_the_image():
    split = split_of(starts=3)
    task, drawn = task_of(split, view_noise=0.0, view_starts=True), []
    for seed in range(8):
        rows = task.draw(reader_of(), split, seeded(seed))
        found = [next(i for i, other in enumerate(split.inr.flat()) if torch.equal(other, row)) for row in rows]
        assert all(split.ids[i] == k % 6 and i != k for k, i in enumerate(found))
        drawn.append(found)
    assert len({found[0] for found in drawn}) == 2, "any other start may be the partner"


@pytest.mark.parametrize("config", [dict(), dict(view_drop=0.3), dict(view_neurons=0.3), dict(view_moves="shift"), dict(view_starts=True)])
def test_views_come_from_their_generator(config):
    split = split_of(starts=3)
    task = task_of(split, **dict(view_noise=0.0) | config) if config else task_of()
    one, again, other = (task.draw(reader_of(), split, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other) and not torch.equal(one, split.inr.flat()) and one.device.type == "cpu"


def test_what_is_dropped_is_zero_and_what_stays_is_as_it_was():
    inr = init_inr(SPEC, 200, generator=seeded())
    rows = drop_numbers(inr, 0.3, generator=seeded()).flat()
    assert ((rows == inr.flat()) | (rows == 0)).all() and abs((rows == 0).double().mean() - 0.3) < 0.02
    found = drop_neurons(inr, 0.3, generator=seeded()).named
    for name, fan_in in (("W2", 5), ("W3", 4)):
        silent = (found[name] == 0).all(dim=1)
        assert abs(silent.double().mean() - 0.3) < 0.1 and torch.equal(found[name], inr.named[name] * ~silent[:, None]) and silent.shape[1] == fan_in
    assert all(torch.equal(found[name], inr.named[name]) for name in ("W1", "b1", "b2", "b3"))


def test_views_of_a_canonical_reader_are_noised_forms():
    split, reader = split_of(), READERS["deepsets"](SPEC, READERS["deepsets"].Config(canonical=True))
    rows = task_of(view_noise=1e-4).draw(reader, split, seeded())
    assert (rows - reader.prepare(split.inr).flat()).abs().max() < 1e-2 < (rows - split.inr.flat()).abs().max()


def test_the_projector_is_no_part_of_features_nor_files(tmp_path, monkeypatch):
    monkeypatch.setenv("INRFORMER_CACHE", str(tmp_path / "cache"))
    this = run(SMALL | dict(init="independent", copies=2, view_starts=True), out=tmp_path)
    reader = load_reader(this.folder / "model.safetensors")
    assert reader.head is None and reader.classes == () and this.summary["parameters"] == sum(p.numel() for p in reader.parameters())
    assert {f"val_{name}" for name in ("accuracy", "knn", "alignment", "uniformity", "top1", "top5")} < this.summary.keys()
    assert "test_accuracy" in this.summary and "test_top1" not in this.summary, "test images have one start"
    answers = this.record_parts["answers"]["val"]
    assert sum(a == b for a, b in zip(answers["answers"], answers["labels"])) / len(answers["labels"]) == pytest.approx(this.summary["val_accuracy"])


def test_the_reader_learns_and_no_label_has_a_say():
    split, gradients = split_of(16), []
    for labels in (split.labels, split.labels.flip(0)):
        part, task = replace(split, labels=labels), task_of(split, view_starts=True)
        reader = seed_parameters(task.attach(reader_of("mlp")), 0).train()
        optimizer, losses = torch.optim.Adam(reader.parameters(), lr=3e-3), []
        for step in range(25):
            losses.append(task.loss(reader, part, task.draw(reader, part, stream(0, "draw", step)))["nt_xent"])
            reader.zero_grad()
            losses[-1].backward()
            optimizer.step()
        assert losses[-1] < 0.5 * losses[0]
        gradients.append(torch.cat([p.flatten() for p in reader.parameters()]))
    assert torch.equal(*gradients)


def test_the_loop_makes_the_first_view_and_the_objective_the_second():
    split = split_of()
    reader = seed_parameters(task_of().attach(reader_of()), 0)
    for changed, config in ((0, dict(weight_noise=0.5)), (1, dict())):
        task = task_of(view_noise=0.3 if changed else 0.1)
        (part, drawn), = batches(reader, task, split, Train(batch_size=12, **config), epoch=0)
        plain = split.inr.flat()[[*map(int, part.init_seeds)]]
        assert torch.equal(part.inr.flat(), plain) == bool(changed) and not torch.equal(drawn, plain)


def test_measures_of_known_features():
    ids = torch.arange(4).repeat(2)
    corners = torch.eye(4).repeat(2, 1)
    assert find_partners(corners, corners, ids, True) == dict(alignment=0.0, top1=1.0, top5=1.0)
    assert find_partners(corners, corners.roll(1, 0), ids, True)["alignment"] == 2 and find_partners(corners, corners.roll(1, 0), ids, True)["top1"] == 0
    assert find_partners(torch.ones(8, 3), torch.ones(8, 3), ids, True)["top5"] == 0, "ties are not found"
    assert find_partners(corners[:4], corners[:4], ids[:4], True) == {} and uniformity(torch.ones(8, 3)) == pytest.approx(0, abs=1e-6)
    assert uniformity(torch.eye(4)) == pytest.approx(math.log(math.exp(-4)))


def test_probes_know_training_features_and_leave_the_reader_as_it_was():
    split = split_of(24)
    task = task_of(split, probed=30)
    reader = task.attach(reader_of()).train()
    features, labels = task.known()
    assert len(features) == len(labels) == 30 and reader.training
    with torch.no_grad():
        assert torch.allclose(features[0], reader.eval().features(split.inr[:1])[0], atol=1e-6)
    found = task.measure(reader, split, Workers("cpu"))
    outputs = task.outputs(reader, split)
    said = task.answers(outputs.detach())
    assert found["accuracy"] == pytest.approx(sum(a == b for a, b in zip(said, split.labels.tolist())) / len(split))
    assert F.cosine_similarity(outputs[:, 0], outputs[:, 1]).max() < 1 and isinstance(split.inr, INR)
