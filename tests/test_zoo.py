"Zoos of classifiers: how they are fitted and kept, and what is learned from them: their accuracy, and their adaptation."

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_battery import EDITING
from test_images import pictures, put

from inrformer import runs
from inrformer.app import TABS, Workbench
from inrformer.config import config_from
from inrformer.data import INRDataset, store_dataset
from inrformer.fitting import init_from_seeds
from inrformer.images import load_images
from inrformer.inr import INR, INRSpec, init_inr, twin
from inrformer.inspection import run_source
from inrformer.objectives.adapt import DOMAINS, Adapt, AdaptConfig, _undoing, corrupted
from inrformer.objectives.regress import Regress, agreement, weight_statistics
from inrformer.reader import READERS, Reader, seed_parameters
from inrformer.runs import find_run, run
from inrformer.splits import Split
from inrformer.sweeps import sweep
from inrformer.symmetry import permute, random_permutation
from inrformer.training import Workers
from inrformer.zoo import build_zoo, draw_recipes, fit_classifiers, points_of, read_accuracies, right

SPEC = INRSpec(widths=(64, 8, 10), kind="perceptron")
HOW = dict(steps=(2, 40), rates=(3e-3, 3e-2), shares=(20, 300))


@pytest.fixture(scope="module")
def images():
    return load_images("digits", "train", 300), load_images("digits", "test", 90)


@pytest.fixture(scope="module")
def zoo(images, tmp_path_factory) -> INRDataset:
    return build_zoo(tmp_path_factory.mktemp("zoo"), *images, SPEC, (60, 20), **HOW)


@pytest.mark.parametrize("objective", ["regress", "adapt"])
def test_the_workbench_opens_a_run_on_a_zoo_and_every_tab_says_what_it_can(objective, zoo, tmp_path):
    this = run(dict(data=str(zoo.folder), objective=objective, reader="dws", dim=4, epochs=1, batch_size=16, device="cpu"), out=tmp_path / "runs")
    bench = Workbench({"a zoo": lambda: run_source(this.folder)})
    assert "not trained to name" in bench.picker.words.value
    bench.panel("permute").steps.value = 3
    said = {tab: bench.go(tab).words.value for tab in TABS}
    assert "Equivariant" in said["equivariance"] and all("cannot be shown" in said[tab] for tab in ("INR", "permute", "own image", "edit"))
    assert bench.panels["permute"].change.scene is bench.picker.scene and bench.panels["edit"].keep.disabled


def test_every_classifier_is_fitted_by_its_own_recipe(images):
    "Alone with PyTorch's Adam, each comes to the same weights: its steps, its rate, its one image."
    x, y = images[0].images[:2].flatten(1) * 2 - 1, images[0].labels[:2]
    recipes = replace(draw_recipes(4, steps=(1, 15), rates=(1e-3, 3e-2), shares=(1, 1)), steps=torch.tensor([1, 15, 3, 8]))
    fitted, ends = fit_classifiers(images[0][:2], SPEC, recipes, batch=2).flat(), []
    for image in range(2):
        for k, row in enumerate(init_from_seeds(SPEC, recipes.seeds).flat()):
            row = row[None].clone().requires_grad_()
            adam = torch.optim.Adam([row], lr=recipes.rates[k].item())
            for _ in range(recipes.steps[k]):
                adam.zero_grad()
                F.cross_entropy(INR.from_flat(row, SPEC)(x[image : image + 1])[0], y[image : image + 1]).backward()
                adam.step()
            ends.append(row.detach()[0])
    nearest = torch.minimum(*((fitted - torch.stack(some)).abs().amax(dim=1) for some in (ends[:4], ends[4:])))
    assert nearest.max() < 1e-3


def test_a_classifier_sees_its_own_share_alone(images):
    "With more images to choose from, of which none may be seen, a fit is as it was; and more steps and images make better classifiers."
    few, many = (draw_recipes(20, steps=(s, s), rates=(1e-2, 1e-2), shares=(n, n)) for s, n in ((3, 10), (60, 300)))
    bad, good = (right(fit_classifiers(images[0], SPEC, recipes), images[1]).float().mean(dim=1) for recipes in (few, many))
    assert bad.mean() < 0.5 < 0.8 < good.mean()
    lone = draw_recipes(3, steps=(200, 200), rates=(3e-2, 3e-2), shares=(1, 1))
    known = right(fit_classifiers(images[0], SPEC, lone), images[0])
    assert ((known.sum(dim=1) > 0) & (known.float().mean(dim=1) < 0.25)).all(), "who knows one image says its class of every image"


def test_the_card_of_a_zoo_speaks_of_classifiers(zoo):
    told = (zoo.folder / "README.md").read_text()
    assert "# Classifiers of digits-zoo" in told and "a logit for each of 10 classes" in told and "shows one image" not in told


def test_a_zoo_is_a_data_set_that_knows_accuracies(zoo, images):
    zoo.verify()
    for name, n in (("train", 60), ("test", 20)):
        split = zoo.split(name)
        assert len(split) == n and torch.equal(read_accuracies(zoo.card["classes"])[split.labels], right(split.inr, images[1]).float().mean(dim=1))
    assert len(set(zoo.split("train").init_seeds.tolist() + zoo.split("test").init_seeds.tolist())) == 80
    assert zoo.split("train").labels.unique().numel() > 10
    again = build_zoo(zoo.folder, *images, SPEC, (60, 20), **HOW)
    assert again.digest == zoo.digest


def test_what_makes_no_zoo_is_refused(images, tmp_path):
    training, held = images
    refused = [
        (dict(training=training[training.labels == 3]), "are of one class"),
        (dict(spec=INRSpec(widths=(2, 8, 10))), r"are no classifiers of Images\('digits'.*64 pixels and 10 classes"),
        (dict(spec=INRSpec(widths=(64, 8, 9), kind="perceptron")), "are no classifiers"),
        (dict(held=training[:7]), "7 of the held-out images are among those that train"),
        (dict(shares=(20, 999)), "shares go up to 999 images, and there are 300 that train"),
        (dict(steps=(0, 9)), "steps must go from a positive number"),
    ]
    for change, said in refused:
        arguments = dict(training=training, held=held, spec=SPEC, sizes=(40, 2)) | HOW | change
        with pytest.raises(ValueError, match=said):
            build_zoo(tmp_path / "none", **arguments)
    assert not (tmp_path / "none").exists()


def test_accuracies_are_shares_and_nothing_else():
    assert read_accuracies(["0/8", "3/8", "8/8"]).tolist() == [0, 0.375, 1]
    for classes in ((), "0123456789", ["cat"], ["1/0"], ["3/8", "dog"]):
        with pytest.raises(ValueError, match="are no accuracies"):
            read_accuracies(classes)


def test_statistics_of_weights_know_no_order():
    inr = init_inr(SPEC, 5, generator=torch.Generator().manual_seed(0)).to(torch.float64)
    moved = permute(inr, random_permutation(SPEC, 5, generator=torch.Generator().manual_seed(1)))
    assert torch.allclose(weight_statistics(inr), weight_statistics(moved)) and weight_statistics(inr).shape == (5, 28)
    assert not torch.allclose(weight_statistics(inr), weight_statistics(twin(inr, generator=torch.Generator().manual_seed(2))), atol=1e-2)


def test_agreement_is_of_order_and_of_numbers():
    known = torch.tensor([0.1, 0.4, 0.3, 0.9])
    assert agreement(known, known) == pytest.approx(dict(tau=1, spearman=1, r2=1))
    assert agreement(-known, known)["tau"] == pytest.approx(-1) and agreement(known**3, known)["spearman"] == pytest.approx(1)
    assert agreement(torch.full((4,), 0.5), known)["tau"] == 0
    assert agreement(torch.tensor([0.1, 0.3, 0.4, 0.9]), known)["tau"] == pytest.approx(4 / 6)


def test_the_loss_of_accuracies_is_least_at_the_accuracies(zoo):
    task, split = Regress(classes=zoo.card["classes"]), zoo.split("test")
    known = task.known(split).clamp(0.01, 0.99)

    class Says(Reader):
        def forward(self, inr, points=None):
            return self.says[:, None]

    reader = Says(SPEC)
    losses = []
    for off in (-0.5, 0.0, 0.5):
        reader.says = known.logit() + off
        losses.append(task.loss(reader, split, None)["cross_entropy"].item())
    assert losses[1] == min(losses) and losses[1] < losses[0] - 0.1
    reader.says = known.logit()
    score = task.score(task.outputs(reader, split), split)
    assert score["tau"] > 0.999 and score["r2"] > 0.999 and set(score) == {"tau", "spearman", "r2"}


def test_a_run_tells_accuracies_and_scores_its_baseline(zoo, tmp_path):
    made = run(dict(data=str(zoo.folder), objective="regress", reader="deepsets", epochs=48, lr=3e-3, batch_size=16, val_parts=4), out=tmp_path)
    assert made.summary["test_tau"] > 0.3 and made.summary["test_flat_tau"] > 0.3 and {"val_r2", "val_flat_spearman"} <= set(made.summary)
    assert all(0 < said < 1 for said in made.record_parts["answers"]["test"]["answers"])
    json.dumps(made.summary, allow_nan=False)


def test_labels_that_are_no_accuracies_are_refused_before_anything_is_done(zoo, tmp_path):
    with pytest.raises(ValueError, match="labels such as .* are no accuracies: needed is a data set of classifiers"):
        config_from(dict(objective="regress", reader="mlp"))
    split = zoo.split("train")
    plain = Split(split.inr, split.labels % 2, split.ids, split.psnr, split.init_seeds)
    named = store_dataset(tmp_path / "named", dict(train=plain[:10], test=plain[10:20]), images="x", classes=("cat", "dog"), image_range=(-1.0, 1.0), origin="here")
    with pytest.raises(ValueError, match=r"labels such as \['cat', 'dog'\] are no accuracies"):
        config_from(dict(data=str(named.folder), objective="regress", reader="mlp"))
    with pytest.raises(ValueError, match="all 5 training classifiers have the accuracy 0.400, and there is nothing"):
        task = Regress(classes=["2/5"])
        task.attach(READERS["mlp"](SPEC))
        task.meet(replace(split[:5], labels=torch.zeros(5, dtype=torch.long)))


class Keeps(Reader):
    "Edits nothing."

    def edit(self, inr):
        return inr


def test_domains_change_images_as_they_say(images):
    held = images[1]
    changed = {name: corrupted(held, name) for name in DOMAINS}
    for name, some in changed.items():
        assert some.images.shape == held.images.shape and 0 <= some.images.min() and some.images.max() <= 1 and some.name == f"digits-{name}"
        assert torch.equal(some.labels, held.labels) and (some.images - held.images).abs().mean() > 0.05
        assert torch.equal(some.images, corrupted(held, name).images)
    assert torch.equal(changed["occlude"].images[:, :, 4:], held.images[:, :, 4:]) and changed["occlude"].images[:, :, :4].min() == 1
    twice = corrupted(changed["rotate"], "rotate").images
    assert (twice - held.images.rot90(1, (1, 2))).abs().mean() < 0.6 * (twice - held.images.rot90(-1, (1, 2))).abs().mean(), "two eighths are a quarter"


def test_what_does_nothing_scores_as_no_adaptation_and_a_linear_map_helps(zoo, images):
    good = fit_classifiers(images[0], SPEC, draw_recipes(10, steps=(80, 80), rates=(1e-2, 2e-2), shares=(300, 300)))
    task, split = Adapt(AdaptConfig(domain="rotate")), replace(zoo.split("test")[:10], inr=good)
    score = task.score(task.outputs(Keeps(SPEC), split), split)
    held = corrupted(load_images("digits", "test"), "rotate")
    assert score["accuracy"] == score["unadapted_accuracy"] == pytest.approx(right(split.inr, held).float().mean().item())
    plain = right(split.inr, load_images("digits", "test")).float().mean().item()
    assert score["accuracy"] < plain - 0.2 and abs(score["undone_accuracy"] - plain) < 0.1


def test_the_linear_map_stands_in_the_weights(zoo):
    inr = zoo.split("test").inr[:3].to(torch.float64)
    matrix, shift = _undoing(AdaptConfig(domain="blur"))
    x = torch.rand(5, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    task = Adapt(AdaptConfig(domain="blur"))
    assert torch.allclose(task.undone(inr)(x), inr(x @ matrix.T + shift)) and not torch.allclose(task.undone(inr)(x), inr(x), atol=1e-2)


@pytest.mark.parametrize("name", ["dws", "nfn_np", "inrformer", "mlp"])
def test_an_adaptation_begins_at_the_identity_and_goes_down(zoo, name):
    choices = dict(dws=dict(dim=2, depth=1), nfn_np=dict(dim=4), inrformer=dict(query=1, hint=1, depth=1, dim=8, edge_dim=8, heads=2, features=4), mlp=EDITING["mlp"])[name]
    task, split = Adapt(AdaptConfig(domain_batch=16)), zoo.split("train")[:8]
    reader = seed_parameters(task.attach(READERS[name](SPEC, READERS[name].Config(**choices))), 0)
    assert torch.allclose(reader.eval().edit(split.inr).flat(), split.inr.flat(), atol=1e-6)
    optimiser, losses, drawn = torch.optim.Adam(reader.train().parameters(), lr=3e-3), [], task.draw(reader, split, torch.Generator().manual_seed(0))
    assert drawn.shape == (8, 16)
    for _ in range(8):
        losses.append(task.loss(reader, split, drawn)["cross_entropy"])
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    entropy, _ = task.tried(split.inr, points_of(task.images("train"))[drawn], task.images("train").labels[drawn])
    assert losses[0].item() == pytest.approx(entropy.mean(dim=1).sum().item(), rel=1e-4) and losses[-1] < losses[0]


def test_a_run_adapts_unseen_classifiers_to_unseen_images(zoo, tmp_path):
    made = run(dict(data=str(zoo.folder), objective="adapt", reader="dws", dim=2, depth=1, heads=0, epochs=3, batch_size=8, lr=1e-2, val_parts=4, domain_batch=32), out=tmp_path)
    assert made.summary["test_accuracy"] > made.summary["test_unadapted_accuracy"] and {"val_undone_accuracy", "test_cross_entropy"} <= set(made.summary)
    assert made.model.edit(zoo.split("test").inr).spec == SPEC
    assert made.summary["domain_digest"] and run(made.located, out=tmp_path).summary == made.summary
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(runs, "brought_along", lambda cfg: dict(domain_digest="of other pixels"))
        with pytest.raises(ValueError, match="is a run on other images named 'digits'"):
            run(made.located, out=tmp_path)
    json.dumps(made.summary, allow_nan=False)
    task, split = Adapt(AdaptConfig(domain_batch=32)), zoo.split("test")
    outputs = task.outputs(made.model, split)
    assert task.score(outputs, split) == pytest.approx({name.removeprefix("test_"): made.summary[name] for name in made.summary if name.startswith("test_") and name.removeprefix("test_") in task.score(outputs, split)}, abs=1e-4)


def test_images_of_a_name_that_others_have_are_kept_apart(images, tmp_path, monkeypatch):
    "Where the images that an objective asks about lie is kept, and neither a run nor a record of others of their name is taken for these."
    for place, seed in (("mine", 0), ("others", 1)):
        for i, image in enumerate(pictures(40, 8, 8, seed=seed)):
            put(tmp_path / place / "pets", f"{('cat', 'dog')[i % 2]}/{i}.png", image)
    folder = build_zoo(tmp_path / "zoo", *(load_images(tmp_path / "mine" / "pets", split) for split in ("train", "test")), INRSpec(widths=(64, 4, 2), kind="perceptron"), (8, 4), steps=(1, 2), rates=(1e-3, 1e-2), shares=(2, 9)).folder
    row = dict(data=str(folder), objective="adapt", reader="dws", dim=2, depth=1, heads=0, epochs=1, batch_size=4, val_parts=4, domain_batch=4, protocol="custom")
    (record,) = sweep([row | dict(domain_images=str(tmp_path / "mine" / "pets"))], "adapt", out=tmp_path / "runs", folder=tmp_path / "records")
    assert find_run(record["run_id"], tmp_path / "runs").dataset.splits == ("train", "test")
    with pytest.raises(ValueError, match="is of other images named 'pets' \\(its domain_digest differs\\)"):
        sweep([row | dict(domain_images=str(tmp_path / "others" / "pets"))], "adapt", out=tmp_path / "runs", folder=tmp_path / "records")


def test_classifiers_are_adapted_in_half_precision(zoo, tmp_path):
    row = dict(data=str(zoo.folder), objective="adapt", reader="dws", dim=2, depth=1, heads=0, epochs=1, batch_size=30, val_parts=4, domain_batch=4)
    half, whole = (run(row | dict(precision=precision, device="cpu"), out=tmp_path).summary for precision in ("bf16", "fp32"))
    assert half["test_undone_accuracy"] == pytest.approx(whole["test_undone_accuracy"], abs=0.02)


def test_images_that_an_adaptation_is_tried_on_are_not_among_those_that_train(tmp_path):
    for i, image in enumerate(pictures(40, 8, 8)):
        put(tmp_path / "pets", f"{('cat', 'dog')[i % 2]}/{i}.png", image)
    training, testing = (load_images(tmp_path / "pets", split) for split in ("train", "test"))
    reader = READERS["dws"](INRSpec(widths=(64, 4, 2), kind="perceptron"))
    task = Adapt(AdaptConfig(domain_images=str(tmp_path / "pets")))
    for test, said in ((training[:3], "3 test images have the pixels of train images"), (replace(testing, classes=("dog", "cat")), "both need the same, in one order")):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("inrformer.objectives.adapt._plain", lambda config, split, test=test: test if split == "test" else training[-4:] if split == "held" else training[:-4])
            with pytest.raises(ValueError, match=said):
                task.attach(reader)


def test_a_zoo_is_refused_before_it_is_fitted(images, zoo, monkeypatch):
    monkeypatch.setattr("inrformer.zoo.fit_classifiers", None)
    with pytest.raises(ValueError, match="holds another data set, classifiers of digits: .*: choose another folder"):
        build_zoo(zoo.folder, *images, SPEC, (60, 20), **HOW | dict(steps=(2, 41)))
    for other in (replace(images[1], classes=images[1].classes[::-1]), replace(images[1], images=images[1].images[:, ::2])):
        with pytest.raises(ValueError, match="both need the same classes, in one order, and images of one size"):
            build_zoo(zoo.folder, images[0], other, SPEC, (60, 20), **HOW)


def test_choices_look_at_images_that_are_held_back_and_at_no_other(zoo, monkeypatch):
    task, split = Adapt(), zoo.split("train")[:6]
    parts = [task.images(name) for name in ("train", "held", "test")]
    assert [len(part) for part in parts] == [1294, 143, 360] and not set(parts[0].fingerprints) & set(parts[1].fingerprints)
    assert task.validating.judges == "held" and task.judges == "test"
    seen = []
    monkeypatch.setattr(Adapt, "images", lambda self, name: seen.append(name) or parts[("train", "held", "test").index(name)])
    score = task.measure(Keeps(SPEC), split, Workers("cpu"))
    assert set(seen) == {"held"} and score["accuracy"] == pytest.approx(right(split.inr, parts[1]).float().mean().item(), abs=1e-6)
    task.draw(Keeps(SPEC), split, torch.Generator())
    assert set(seen) == {"held", "train"}
    with pytest.raises(ValueError, match="of 9 training images no tenth can be held back"):
        Adapt(AdaptConfig(domain_train=9)).validating.outputs(Keeps(SPEC), split)


class Overwrites(Keeps):
    "Gives the same network for every other."

    def edit(self, inr, points=None):
        return inr[:1].map(lambda t: t.expand(len(inr), *t.shape[1:]))


def test_who_writes_one_network_over_all_takes_no_side(zoo):
    task, split = Adapt(AdaptConfig(domain="blur")), zoo.split("train")
    keeps, writes = (task.score(task.outputs(kind(SPEC), split), split) for kind in (Keeps, Overwrites))
    assert keeps["own"] > 0.8 and keeps["undone_own"] > 0.8 and abs(writes["own"] - 0.5) < 0.02
    plain, changed = (right_answers(split.inr, images) for images in (load_images("digits", "test"), corrupted(load_images("digits", "test"), "blur")))
    own = other = 0
    for i in range(len(split)):
        for was, its, now in zip(plain[i].tolist(), plain[i - 1].tolist(), changed[i].tolist()):
            own, other = own + (was != its and now == was), other + (was != its and now == its)
    assert keeps["own"] == pytest.approx(own / (own + other))


def right_answers(inr, images):
    return inr(points_of(images)).argmax(dim=2)


def test_the_difference_to_the_linear_map_has_a_standard_error(zoo):
    task, split = Adapt(), zoo.split("test")
    outputs = task.outputs(Keeps(SPEC), split)
    score = task.score(outputs, split)
    assert score["undone_error"] == pytest.approx(np.std([a - b for a, b in outputs[:, [1, 3]].tolist()]) / len(split) ** 0.5, rel=1e-4)


@pytest.mark.parametrize("objective", ["classify", "contrast"])
def test_accuracies_are_no_classes(zoo, objective, tmp_path):
    with pytest.raises(ValueError, match="is a zoo, whose labels are accuracies and no classes to be told apart: choose objective=regress"):
        run(dict(data=str(zoo.folder), objective=objective, reader="mlp"), out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_adapted_is_refused(zoo):
    with pytest.raises(ValueError, match=r"deepsets gives no INR for an INR; \['dws', .* do"):
        config_from(dict(data=str(zoo.folder), objective="adapt", reader="deepsets"))
    with pytest.raises(ValueError, match="mlp gives an INR for an INR with edits=True alone"):
        config_from(dict(data=str(zoo.folder), objective="adapt", reader="mlp"))
    with pytest.raises(ValueError, match="are no classifiers of Images.*digits-rotate.* have 64 pixels and 10 classes"):
        config_from(dict(objective="adapt", reader="dws"))
    with pytest.raises(ValueError, match="domain must be one of"):
        config_from(dict(data=str(zoo.folder), objective="adapt", reader="dws", domain="snow"))
