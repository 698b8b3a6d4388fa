"What is measured on a reader and an INR: walks, stages and where they break, attention, crops, and the scenes they are measured on."

import gc
import shutil
import weakref

import pytest
import torch
from bench import CUBE, FOURIER, RELU, SIREN, inr_of, reader_of, seeded, siren_reader
from test_images import pictures, put

from inrformer.app import Workbench
from inrformer.config import config_from
from inrformer.inr import INRSpec
from inrformer.inspection import (
    TOLERANCE,
    Change,
    Scene,
    Source,
    accuracies,
    attention,
    crops,
    demo_source,
    editors_beside,
    exact,
    fewest_transpositions,
    first_break,
    hint_at,
    logits_of,
    read,
    readers_beside,
    render,
    sources,
    stage_errors,
    twins,
    variant,
    walk,
)
from inrformer.readers.inrformer import BROKEN, MODELS
from inrformer.runs import run
from inrformer.splits import Split
from inrformer.symmetry import permute

SPECS = [SIREN, INRSpec(widths=(2, 5, 3)), INRSpec(widths=(2, 32, 32, 3)), INRSpec(widths=(2, 4, 6, 5, 1)), RELU, FOURIER]
SMALL = INRSpec(widths=(2, 6, 5, 1), omega=8.0)


def named(spec: INRSpec) -> str:
    return f"{spec.kind}-{'-'.join(map(str, spec.widths))}"


@pytest.mark.parametrize("spec", SPECS, ids=named)
def test_a_walk_takes_one_transposition_at_a_time(spec):
    steps = walk(spec, 7, generator=seeded())
    assert len(steps) == 1 + sum(n - 1 for n in spec.hidden)
    for before, after in zip(steps, steps[1:]):
        changed = sum((a != b).sum(dim=1) for a, b in zip(before.indices, after.indices))
        assert (changed == 2).all()
    assert all((index != torch.arange(index.shape[1])).all() for index in steps[-1].indices)
    assert [fewest_transpositions(step) for step in steps] == list(range(len(steps)))
    again = walk(spec, 7, generator=seeded())[-1]
    assert all(torch.equal(a, b) for a, b in zip(again.indices, steps[-1].indices))


CHOICES = [dict(), dict(fold="mean"), dict(weight_embedding="chebyshev"), dict(layer_embedding=False), dict(head="start"), dict(head="pool"), dict(attention="none", edge_step=False), dict(blocks="elementwise"), dict(canonical=True), dict(depth=1), MODELS["paper"]]


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_every_stage_of_every_model_is_equivariant_and_every_variant_breaks_where_it_says(choices):
    inr, model = inr_of(SMALL), reader_of(SMALL, **choices)
    perm = walk(SMALL, generator=seeded())[-1]
    after = permute(inr, perm)
    errors = stage_errors(model, inr, after, perm)
    blocks = [f"block {k}: {part}" for k in range(1, len(model.blocks) + 1) for part in ("attention", "edge step")]
    assert list(errors) == ["image", "weight embedding", "nodes", *blocks, *(["target INR"] if model.config.head != "pool" else []), "features", "logits"]
    assert max(errors.values()) < 1e-12
    wanted = {"neuron-index embedding": "nodes", "per-entry statistics": "weight embedding", "attention masks a neuron": f"block {min(2, len(model.blocks))}: attention", "untied permutation": "image"}
    assert set(wanted) == set(BROKEN)
    change = Change(Scene(inr, model), inr, after, perm)
    if getattr(model.blocks[-1], "attend", None) is None:
        with pytest.raises(ValueError, match="without attention cannot leave a neuron out"):
            change.errors("attention masks a neuron")
        del wanted["attention masks a neuron"]
    for name, stage in wanted.items():
        errors = change.errors(name)
        assert first_break(errors) == stage and errors["logits"] > 1e-6, "what is spoilt does not reach the logits"
    assert change.errors() == stage_errors(model, inr, after, perm) and not change.twisted


@pytest.mark.parametrize("spec", [RELU, FOURIER], ids=named)
@pytest.mark.parametrize("name", ["inrformer", "deepsets", "probe", "pixels"])
def test_every_stage_of_other_kinds_and_readers_is_equivariant_and_every_variant_breaks(spec, name):
    reader = reader_of(spec, name)
    change = Change.permuted(Scene(inr_of(spec), reader))
    errors = change.errors()
    assert list(errors)[0] == "image" and list(errors)[-1] == "logits" and max(errors.values()) < TOLERANCE
    for broken in reader.broken:
        assert first_break(change.errors(broken)) is not None, broken


def test_a_reader_of_flat_weights_breaks_at_its_features():
    change = Change.permuted(Scene(inr_of(SMALL), reader_of(SMALL, "flat")))
    assert first_break(change.errors()) == "features"
    with pytest.raises(KeyError):
        change.errors("no such variant")


def test_spoiling_leaves_the_reader_alone():
    inr, reader = inr_of(SIREN), siren_reader()
    plain = logits_of(reader, inr)
    for name in reader.broken:
        variant(reader, name)
    assert torch.equal(exact(reader)(inr), plain) and reader.mean.dtype == torch.float32


def test_new_weights_give_new_answers():
    inr, reader = inr_of(SMALL), reader_of(SMALL)
    before, looks = logits_of(reader, inr), attention(reader, inr)
    assert logits_of(reader, inr) is before
    with torch.no_grad():
        for p in reader.parameters():
            p.mul_(1.5)
    assert not torch.allclose(logits_of(reader, inr), before) and attention(reader, inr) is not looks
    assert torch.equal(logits_of(reader, inr), exact(reader)(inr))


def test_a_nan_breaks_and_the_tolerance_itself_does_not():
    assert first_break({"a": float("nan")}) == "a"
    assert first_break({"a": TOLERANCE}) is None


@pytest.mark.parametrize("spec", [SMALL, RELU, FOURIER], ids=named)
def test_twins_show_the_same_image(spec):
    inr = inr_of(spec)
    assert ("flip signs of sines" in twins(spec)) is (spec.kind == "siren")
    for make in twins(spec).values():
        after = make(inr, seeded())
        assert (render(after, 8, 8) - render(inr, 8, 8)).abs().max() < 1e-12 and not torch.equal(after.flat(), inr.flat())
        perm = walk(spec, generator=seeded())[3]
        assert Change(Scene(inr, reader_of(spec)), inr, permute(after, perm), perm).twisted


def test_attention_is_read_where_there_is_some():
    inr = inr_of(SMALL)
    looks = attention(reader_of(SMALL), inr)
    assert [[tuple(layer.shape) for layer in block] for block in looks] == [[(1, 4, 2, 8), (1, 4, 6, 13), (1, 4, 5, 12), (1, 4, 1, 6)]] * 2
    assert all(torch.allclose(layer.sum(dim=-1), torch.ones(()).double()) for block in looks for layer in block)
    for name, choices in (("deepsets", {}), ("inrformer", dict(depth=0))):
        with pytest.raises(ValueError, match="no block with Sliding Layer Attention"):
            attention(reader_of(SMALL, name, **choices), inr)


@pytest.mark.parametrize("spec", [SMALL, RELU, FOURIER], ids=named)
def test_a_crop_lies_where_its_hint_says(spec):
    inr, reader = inr_of(spec), reader_of(spec)
    hint = hint_at(reader, -0.2, 0.1, 0.6)
    assert hint.shape == (1, 16, 2)
    assert torch.allclose(hint[0, [0, -1]], torch.tensor([[-0.8, -0.5], [0.4, 0.7]]).double())
    true, shown = crops(reader, inr, hint)
    assert torch.equal(true.flatten(0, 1), inr(hint)[0]) and shown.shape == true.shape == (4, 4, spec.widths[-1])
    assert not torch.equal(logits_of(reader, inr, hint), logits_of(reader, inr))
    with pytest.raises(ValueError, match="leaves the image"):
        hint_at(reader, 0.9, 0.0, 0.6)


def test_what_cannot_be_measured_is_refused_in_words():
    with pytest.raises(ValueError, match="2 coordinates"):
        render(inr_of(CUBE), 8, 8)
    with pytest.raises(ValueError, match="2 coordinates"):
        hint_at(reader_of(CUBE), 0.0, 0.0, 0.5)
    with pytest.raises(ValueError, match="cannot be hinted"):
        hint_at(reader_of(SMALL, "deepsets"), 0.0, 0.0, 0.5)
    with pytest.raises(ValueError, match="no classes"):
        logits_of(reader_of(SMALL, classes=""), inr_of(SMALL))
    assert list(read(reader_of(SMALL, classes=""), inr_of(SMALL)))[-1] == "features"


def test_a_scene_is_one_float64_inr_and_refuses_what_does_not_fit():
    inr, reader = inr_of(SMALL, 3), reader_of(SMALL)
    scene = Scene(inr.to(torch.float32), reader)
    assert (len(scene.inr), scene.inr.dtype) == (1, torch.float64) and Scene(inr[:1], reader).inr.dtype == torch.float64
    with pytest.raises(ValueError, match="empty"):
        Scene(inr[:0], reader)
    with pytest.raises(ValueError, match="do not fit"):
        Scene(inr, reader, flat=reader_of(SMALL, "flat", classes="ab"))


def split_of(spec: INRSpec, b: int) -> Split:
    labels = torch.arange(b) % 4
    return Split(inr_of(spec, b).to(torch.float32), labels, torch.arange(b), torch.full((b,), 30.0), torch.zeros(b, dtype=torch.int64), (8, 8))


def test_accuracies_keep_no_inrs_that_nobody_asks_about_again(monkeypatch):
    made = []
    monkeypatch.setattr("inrformer.inspection.permute", lambda *args: made.append(weakref.ref(moved := permute(*args))) or moved)
    for _ in accuracies(reader_of(SMALL), reader_of(SMALL, "flat").double(), split_of(SMALL, 8), walk(SMALL, 8, generator=seeded())):
        pass
    gc.collect()
    assert len(made) > 2 and not [one for one in made if one() is not None]


def test_accuracies_along_a_walk_stay_for_one_reader_and_move_for_the_other():
    test = split_of(SMALL, 60)
    points = list(accuracies(reader_of(SMALL), reader_of(SMALL, "flat").double(), test, walk(SMALL, 60, generator=seeded())))
    assert [count for count, _, _ in points] == [0, 1, 2, 4, 8, 9]
    assert len({said for _, said, _ in points}) == 1 and len({flatly for _, _, flatly in points}) > 1


def test_a_source_without_images_or_a_recipe_fits_nothing_again():
    test = split_of(SMALL, 4)
    recipe = config_from(dict(fit_steps=5))
    images = torch.zeros(4, 8, 8, 1)
    source = Source(reader_of(SMALL), test, images, None, recipe, "digits")
    assert source.scene(2).label == 2 and source.scene(2).image.shape == (8, 8, 1)
    again = source.scene(2, start=1)
    assert not torch.equal(again.inr.flat(), source.scene(2).inr.flat()) and again.inr.spec == SMALL
    bare = Source(source.reader, test, None, None, recipe, "from elsewhere")
    assert bare.scene(1).image is None
    with pytest.raises(ValueError, match="fitted again"):
        bare.scene(1, start=1)


def test_the_demo_is_a_source():
    source = demo_source()
    assert source.images.shape == (360, 8, 8, 1) and source.flat.classes == source.reader.classes
    assert (render(source.scene(0).inr, 8, 8) - source.images[0]).abs().mean() < 0.1
    assert "test accuracy" in source.about


DIGITS = dict(protocol="custom", dataset="digits", n_train=40, n_test=12, hidden="6-5", omega=8.0, fit_steps=10, epochs=1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    "A small run of digits, and the folder of runs that it lies in."
    out, patch = tmp_path_factory.mktemp("runs"), pytest.MonkeyPatch()
    patch.setenv("INRFORMER_CACHE", str(out / "cache"))
    sizes = dict(dim=16, edge_dim=8, depth=1, heads=2, hint=16, query=16)
    yield run(DIGITS | dict(aux=False, **sizes), out=out / "runs")
    patch.undo()


def test_any_finished_run_is_a_source(finished):
    found = sources(finished.folder.parent.parent)
    shipped, name = found
    assert shipped == "digits (shipped)" and name.startswith("digits, inrformer, 0.") and name.endswith(f"({finished.folder.name[:6]})")
    source = found[name]()
    assert source.reader.spec.widths == (2, 6, 5, 1) and len(source.test) == len(source.images) == 12
    assert "digits" in source.about and "crop was not part" in source.about
    assert logits_of(source.flat, source.scene(0).inr).shape == (1, 10)


def test_a_run_on_pictures_of_ones_own_is_a_source_wherever_it_is_opened(tmp_path, monkeypatch):
    monkeypatch.setenv("INRFORMER_CACHE", str(tmp_path / "cache"))
    for i, image in enumerate(pictures(10, 12, 12, 3)):
        put(tmp_path / "pets", f"{('cat', 'dog')[i % 2]}/{i}.png", image[: 7 + i % 4])
    monkeypatch.chdir(tmp_path)
    run(dict(dataset="pets", size=6, n_train=8, n_test=2, hidden="4-4", fit_steps=3, reader="flat", epochs=1, val_parts=4), out="runs")
    (tmp_path / "nbs").mkdir(), monkeypatch.chdir(tmp_path / "nbs")
    (_, open_it) = sources(tmp_path / "runs").values()
    source = open_it()
    assert source.images.shape == (2, 6, 6, 3) and source.scene(0, start=1).inr.spec.widths == (2, 4, 4, 3)


def test_a_run_on_other_images_of_the_same_name_is_not_beside(tmp_path, monkeypatch):
    for place, seed in (("one", 0), ("other", 1)):
        for i, image in enumerate(pictures(10, 6, 6, 3, seed=seed)):
            put(tmp_path / place / "pets", f"{('cat', 'dog')[i % 2]}/{i}.png", image)
    rows = dict(dataset="pets", n_train=8, n_test=2, hidden="4-4", fit_steps=3, epochs=1, val_parts=4)
    made = {}
    for place, reader in (("one", "flat"), ("other", "probe"), ("one", "deepsets")):
        monkeypatch.chdir(tmp_path / place)
        made[reader] = run(rows | dict(reader=reader), out=tmp_path / "runs")
    assert readers_beside(made["flat"].config, tmp_path / "runs").keys() == {"flat", "deepsets"}
    assert readers_beside(made["probe"].config, tmp_path / "runs").keys() == {"probe"}


def test_a_run_that_edits_the_same_inrs_is_an_editor_and_a_source(finished, tmp_path):
    editor = run(DIGITS | dict(objective="edit", change="blur", reader="nfn_hnp", dim=4), out=tmp_path)
    ((name, (task, folder)),) = editors_beside(finished.config, tmp_path).items()
    assert name == f"blur, by nfn_hnp ({editor.folder.name[:6]})" and (task.change, folder) == ("blur", editor.folder) and not readers_beside(finished.config, tmp_path)
    assert not editors_beside(finished.config, finished.folder.parent.parent)
    (_, open_it) = sources(tmp_path).values()
    bench = Workbench({"it": open_it})
    assert "was not trained to name" in bench.picker.words.value
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("inrformer.editing.editors_beside", lambda config: editors_beside(config, tmp_path))
        assert "of the change" in bench.go("edit").words.value and bench.go("edit").editor.value == name


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "summary.json"])
def test_a_damaged_run_is_refused_in_words(finished, file, tmp_path):
    copy = tmp_path / "custom" / "cut"
    shutil.copytree(finished.folder, copy)
    (copy / file).write_bytes((copy / file).read_bytes()[: (copy / file).stat().st_size // 2])
    with pytest.raises(ValueError, match="custom/cut are damaged"):
        list(sources(tmp_path).values())[1]()
