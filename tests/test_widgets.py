"The workbench without a browser: panels hold their state together, and bad state is explained in words."

import asyncio
import io
import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from bench import CUBE, FOURIER, RELU, SIREN, inr_of, reader_of, seeded, siren_reader, source_of
from PIL import Image

from inrformer import widgets
from inrformer.app import TABS, Workbench
from inrformer.editing import STEPS, EditBench, Learning, score
from inrformer.figures import blank, fig_errors
from inrformer.fitting import fit
from inrformer.gallery import Gallery
from inrformer.inr import INR, INRSpec, grid
from inrformer.demo import BESIDE_DEMO
from inrformer.inspection import Change, Scene, Source, demo_source, fewest_transpositions, logits_of, render, walk
from inrformer.objectives.edit import Edit
from inrformer.own import OwnBench
from inrformer.pairs import PairBench, barrier, between, losses
from inrformer.reader import READERS, save_reader
from inrformer.symmetry import align, permute
from inrformer.touch import TouchBench, silenced
from inrformer.widgets import AttentionBench, Chart, CropBench, EquivarianceBench, Panel, PermuteBench, Picker, ReadersBench, ShowBench, opened_reader

SMALL = INRSpec(widths=(2, 6, 5, 1), omega=8.0)
BENCHES = (ShowBench, PermuteBench, EquivarianceBench, ReadersBench, AttentionBench, CropBench)


@pytest.fixture(autouse=True)
def no_runs(tmp_path, monkeypatch):
    "Whatever has been trained in the project, panels find none of it."
    monkeypatch.setattr("inrformer.runs.runs_folder", lambda out=None: Path(out or tmp_path / "runs"))


def scene_of(spec: INRSpec, name: str = "inrformer", **choices) -> tuple:
    return inr_of(spec), reader_of(spec, name, **choices)


def siren_bench(bench: type[Panel], **known) -> Panel:
    return bench(inr_of(SIREN), siren_reader(), **known)


def tick(bench: PermuteBench, *names: str) -> None:
    bench.set(*((bench.twins[name], True) for name in names))


def test_permute_bench_composes_swaps_shuffles_and_the_slider():
    bench = siren_bench(PermuteBench)
    inr, places = bench.scene.inr, bench.change
    assert torch.equal(places.after.flat(), inr.flat())
    bench.swap(2, 3, 8)
    index = bench.perm.indices[1][0].tolist()
    assert (index[3], index[8]) == (8, 3) and sorted(index) == list(range(12))
    bench.steps.value = 9
    moved = bench.perm.indices[0][0].tolist()
    bench.swap(1, 0, 5)
    swapped = bench.perm.indices[0][0].tolist()
    assert (swapped[0], swapped[5]) == (moved[5], moved[0]), "a swap acts on what is seen"
    bench.shuffle(1, generator=seeded(3))
    assert torch.equal(bench.change.after.flat(), permute(inr, bench.perm).flat())
    points = grid(16, 16).double()
    assert (bench.change.after(points) - inr(points)).abs().max() < 1e-12
    bench.reset()
    assert bench.steps.value == 0 and torch.equal(bench.change.after.flat(), inr.flat())


def test_slider_words_and_curve_agree_after_a_shuffle():
    bench = siren_bench(PermuteBench)
    errors = siren_bench(ReadersBench, flat=reader_of(SIREN, "flat")).follow(bench, "change")
    bench.shuffle(1, generator=seeded(3))
    away = fewest_transpositions(bench.perm)
    assert bench.steps.value == away > 5 and f"{away} transpositions away" in bench.words.value and f"{away} transpositions lie" in errors.words.value
    shuffled = bench.perm.indices
    bench.steps.value = 0
    assert torch.equal(bench.change.after.flat(), bench.scene.inr.flat()), "at 0 nothing has moved"
    bench.steps.value = away
    assert all(map(torch.equal, bench.perm.indices, shuffled)), "the walk does not lead through the shuffle"
    bench.steps.value = 22
    assert all((index != torch.arange(12)).all() for index in bench.perm.indices)
    bench.undo()
    assert bench.steps.value == away and all(map(torch.equal, bench.perm.indices, shuffled)), "a slider that is pulled on and on is one step back"
    bench.undo()
    assert bench.steps.value == 0


def test_undo_gives_back_ticks_as_well():
    bench = siren_bench(PermuteBench)
    for tick in (bench.twins["flip signs of sines"], bench.canonical):
        tick.value = True
    bench.steps.value = 5
    stood = bench.change.after.flat()
    bench.reset()
    assert bench.steps.value == 0 and not bench.canonical.value
    bench.undo()
    assert bench.steps.value == 5 and bench.canonical.value and bench.twins["flip signs of sines"].value and torch.equal(bench.change.after.flat(), stood)
    for _ in range(9):
        bench.undo()
    assert bench.steps.value == 0 and not any(tick.value for tick in (*bench.twins.values(), bench.canonical))


def test_every_panel_can_be_undone(shipped):
    bench = Workbench({"digits (shipped)": lambda: shipped})
    touch, crop = bench.go("touch"), bench.go("crop")
    touch.neuron.value = (2, 3)
    touch.silence.value = True
    for by in (0.5, 1.0, 1.5):
        touch.by.value = by
    stood = [touch.snapshot() | change for change in (dict(by=0.0), dict(by=0.0, silence=False))]
    for expected in stood:
        touch.undo()
        assert touch.snapshot() == expected
    touch.undo(), touch.undo()
    assert touch.neuron.value == (1, 0), "more cannot be undone than was done"
    crop.row.value = 0.2
    crop.undo()
    assert crop.row.value == -0.2
    stood = crop.snapshot()
    for side in (0.8, 0.9, 1.0):
        crop.side.value = side
    assert crop.row.value == 0.0, "the crop has left the image"
    crop.undo()
    assert crop.snapshot() == stood, "of one pull every step is undone"


def test_the_pair_that_moved_last_is_marked():
    bench = siren_bench(PermuteBench)
    bench.swap(2, 3, 8)
    assert bench.moved == ((2, 3), (2, 8))
    rings = [t for t in json.loads(bench.networks.figure)["data"] if t.get("marker", {}).get("symbol") == "circle-open"]
    assert [len(t["x"]) for t in rings] == [2, 2]
    bench.steps.value = 2
    assert len(bench.moved) == 2


def test_panels_that_nobody_sees_wait():
    bench = siren_bench(PermuteBench)
    errors = siren_bench(EquivarianceBench).follow(bench, "change")
    errors.awake = bench.awake = False
    before, drawn = errors.words.value, bench.networks.figure
    bench.steps.value = 5
    assert errors.words.value == before and bench.networks.figure is drawn and fewest_transpositions(errors.change.perm) == 5
    errors.awake = bench.awake = True
    assert "Equivariant" in errors.words.value and "5 transpositions" in bench.words.value and bench.networks.figure is not drawn


def test_words_come_before_figures_and_a_drag_is_drawn_once():
    async def drag() -> tuple[PermuteBench, int]:
        bench = siren_bench(PermuteBench)
        await asyncio.sleep(0.1)
        drawn, calls = bench.networks._store.value, []
        bench.networks._store.observe(calls.append, "value")
        for count in range(1, 6):
            bench.steps.value = count
            assert f"{count} transposition" in bench.words.value and bench.networks._store.value == drawn
        await asyncio.sleep(0.1)
        return bench, len(calls)

    bench, calls = asyncio.run(drag())
    assert calls == 1 and json.loads(bench.networks.figure)["data"]


def test_every_layer_has_its_slider():
    bench = siren_bench(PermuteBench)
    first, second = bench.layers
    second.value = 4
    assert (first.value, bench.steps.value) == (0, 4)
    assert torch.equal(bench.perm.indices[0], torch.arange(12)[None]) and int((bench.perm.indices[1] != torch.arange(12)).sum()) >= 4
    second.value = 11
    assert (bench.perm.indices[1] != torch.arange(12)).all(), "the end of the slider moves the whole layer"
    bench.steps.value = 22
    assert (first.value, second.value) == (11, 11)
    path = walk(bench.scene.inr.spec, generator=seeded())
    for count in (22, 13, 5):
        bench.steps.value = count
        assert first.value + second.value == count
        assert all(torch.equal(a, b) for a, b in zip(bench.perm.indices, path[count].indices))
    assert f"{bench.steps.value} transpositions away" in bench.words.value


def test_a_scene_that_cannot_be_shown_leaves_no_trace():
    bench = siren_bench(PermuteBench)
    plain = bench.scene
    bench.scene = Scene(*scene_of(CUBE))
    assert "only INRs of 2 coordinates" in bench.words.value
    assert json.loads(bench.images.figure)["layout"]["meta"]["alt"] == "Nothing to show.", "the picture is of another scene than the words"
    assert not bench.numbers.value, "the table is of another scene than the words"
    bench.scene = plain
    bench.steps.value = 22
    assert "the same image" in bench.words.value and bench.steps.max == 22


def test_what_nobody_expected_is_told_as_well(capsys, monkeypatch):
    bench = siren_bench(PermuteBench)

    def fail(*_):
        raise ArithmeticError("a share of nothing")

    monkeypatch.setattr("inrformer.widgets.canonicalize", fail)
    bench.canonical.value = True
    assert "An error inside, whose traceback is in the log: ArithmeticError: a share of nothing" in bench.words.value and not bench.numbers.value
    assert "Traceback" in capsys.readouterr().err


def test_the_readers_tab_says_what_else_has_changed_than_the_order():
    bench = siren_bench(PermuteBench)
    readers = siren_bench(ReadersBench, flat=reader_of(SIREN, "flat")).follow(bench, "change")
    bench.steps.value = 3
    assert "3 transpositions lie between the two INRs." in readers.words.value
    tick(bench, "flip signs of sines")
    assert "3 transpositions lie between the two INRs, and what is ticked besides permuting." in readers.words.value


def test_an_image_that_moves_is_no_symmetry(monkeypatch):
    bench = siren_bench(PermuteBench)
    spoilt = replace(bench.change, after=bench.change.after.map(lambda t: t * 1.01))
    monkeypatch.setattr(bench, "change", spoilt)
    assert "<b>The image moves</b>, by up to" in bench._verdict()


def test_the_stage_that_breaks_is_explained_by_what_broke_it():
    bench = siren_bench(PermuteBench)
    panel = siren_bench(EquivarianceBench).follow(bench, "change")
    tick(bench, "flip signs of sines")
    panel.variant.value = "attention masks a neuron"
    assert "signs and phases" in panel.words.value and "hides" in panel.words.value and "Nobody" not in panel.words.value
    panel.variant.value = "untied permutation"
    assert "P is the identity" in panel.words.value
    bench.set((bench.twins["flip signs of sines"], False), (bench.steps, 22))
    panel.variant.value = "attention masks a neuron"
    assert "Nobody listens" in panel.words.value
    panel.variant.value = "untied permutation"
    assert "Broken first at: image" in panel.words.value and "no symmetry" in panel.words.value


@pytest.mark.parametrize("canonical", [False, True])
def test_signs_and_phases_move_the_logits_until_both_are_canonical(canonical):
    bench = PermuteBench(*scene_of(SMALL, canonical=canonical))

    def moved() -> float:
        said = [logits_of(bench.scene.reader, x) for x in (bench.change.before, bench.change.after)]
        return (said[0] - said[1]).abs().max().item()

    bench.steps.value = 5
    tick(bench, "flip signs of sines", "shift phases of sines")
    points = grid(16, 16).double()
    assert (bench.change.after(points) - bench.change.before(points)).abs().max() < 1e-12
    assert moved() < 1e-10 if canonical else moved() > 1e-6
    assert ("The logits move" in bench.words.value) is not canonical
    bench.canonical.value = True
    assert moved() < 1e-10 and "The logits agree again" in bench.words.value


@pytest.mark.parametrize("spec", [RELU, FOURIER], ids=["plain", "fourier"])
def test_other_kinds_offer_their_twins_and_no_signs_of_sines(spec):
    bench = PermuteBench(*scene_of(spec))
    errors = EquivarianceBench(*scene_of(spec)).follow(bench, "change")
    assert list(bench.twins) == ["other weights of the same function"] and bench.canonical not in bench.ticks.children
    tick(bench, "other weights of the same function")
    assert "<b>The logits move</b>" in bench.words.value and "canonicalize" not in bench.words.value
    assert "another symmetry of their kind" in errors.words.value
    sines = siren_bench(PermuteBench)
    tick(sines, "shift phases of sines")
    sines.canonical.value = True
    sines.scene = bench.scene
    assert list(sines.twins) == list(bench.twins) and not sines.canonical.value and "Nothing has moved" in sines.words.value


def test_handles_move_the_same_permutation():
    bench = siren_bench(PermuteBench)
    handle = bench.handle()
    handle.value = 4
    assert bench.steps.value == 4 and handle.max == bench.steps.max == 22
    bench.steps.value = 22
    assert handle.value == 22


def test_charts_draw_only_what_changed():
    calls, inrs = [], inr_of(SIREN, 2)

    def fig(*args, **more):
        calls.append((args, more))
        return fig_errors({"a": 1e-3})

    chart, inr = Chart(), inrs[:1]
    for state in ((inr, 1), (inr, 1), (inr, 2), (inrs[:1], 2)):
        chart.show(fig, *state)
    assert len(calls) == 3
    chart.show(fig, {"a": inr}, (1, 2), name="x")
    chart.show(fig, {"a": inr}, (1, 2), name="x")
    assert len(calls) == 4
    chart.show(fig, {"b": inr}, (1, 2), name="x")
    assert len(calls) == 5


def test_a_slider_of_one_panel_leaves_the_others_alone():
    show, crop = siren_bench(ShowBench), siren_bench(CropBench)
    network, logits = show.network.figure, crop.logits.figure
    show.side.value = 32
    assert show.network.figure is network
    assert json.loads(show.fit.figure)["layout"]["annotations"][0]["text"] == "the INR at 32 × 32 points"
    crop.row.value = 0.3
    assert crop.logits.figure != logits


def test_readers_follow_the_change_and_keep_the_curve():
    scene = demo_source().scene(0)
    bench = PermuteBench(scene.inr, scene.reader, test=scene.test[:30], flat=scene.flat, label=scene.label)
    readers = ReadersBench(scene.inr, scene.reader).follow(bench, "change")
    bench.steps.value = 22
    readers.measure()
    curve = json.loads(readers.curve.figure)["data"]
    assert curve[0]["x"] == curve[1]["x"] == [0, 1, 2, 4, 8, 16, 22]
    assert len(set(curve[0]["y"])) == 1 and curve[1]["y"][-1] < 0.5 < curve[1]["y"][0]
    assert "22 transpositions" in readers.words.value


def test_attention_is_of_the_chosen_neuron():
    panel = siren_bench(AttentionBench)
    panel.network.clicked = [3, 0, 1]
    assert panel.neuron.value == (3, 0)
    panel.neuron.value = (1, 3)
    panel.network.clicked = [3, 0, 2]
    assert panel.neuron.value == (3, 0), "the second click on a neuron is lost"
    panel.network.clicked = [3]
    assert panel.neuron.value == (3, 0)


def test_attention_follows_the_permutation():
    bench = siren_bench(PermuteBench)
    panel = siren_bench(AttentionBench).follow(bench, "change")
    panel.neuron.value = (1, 5)
    bench.swap(1, 5, 9)
    assert panel.neuron.value == (1, 5) and "place 9" in panel.words.value and "moved along" in panel.words.value
    assert "Attention of neuron 5 of" in panel.heat.figure
    tick(bench, "flip signs of sines")
    assert "moved along" not in panel.words.value


def test_dragging_moves_the_crop():
    panel = siren_bench(CropBench)
    panel.images.dragged = [31.5, 15.5, 1]
    assert (panel.column.value, panel.row.value) == pytest.approx((0.0, -0.4)), "held inside the image"
    panel.images.dragged = [40.0, 31.5, 2]
    assert panel.column.value == pytest.approx(0.265625, abs=0.03) and panel.row.value == 0


def test_the_crop_stays_inside_the_image():
    panel = siren_bench(CropBench)
    panel.side.value = 0.4
    for n in range(30):
        panel.images.pressed = ["ArrowLeft", n]
    assert panel.column.value == pytest.approx(-0.6)
    panel.side.value = 0.8
    assert panel.column.value == pytest.approx(-0.2) and "cannot" not in panel.words.value


PAIRS = [(SMALL, "inrformer"), (SMALL, "deepsets"), (SMALL, "probe"), (SMALL, "flat"), (SMALL, "dws"), (SMALL, "nft"), (SMALL, "ng_transformer"), (SMALL, "scalegmn"), (RELU, "inrformer"), (RELU, "deepsets"), (FOURIER, "inrformer"), (FOURIER, "pixels")]


@pytest.mark.parametrize("spec, name", PAIRS, ids=lambda x: x if isinstance(x, str) else f"{x.kind}-{x.widths[0]}")
def test_panels_show_any_reader_of_any_kind_or_say_what_it_lacks(spec, name):
    inr, reader = scene_of(spec, name)
    panels = {bench: bench(inr, reader, flat=reader_of(spec, "flat"), label=1) for bench in BENCHES}
    lacking = {AttentionBench: "no block with Sliding Layer Attention", CropBench: "cannot be hinted"} if name != "inrformer" else {}
    for bench, panel in panels.items():
        wanted = lacking.get(bench)
        assert wanted in panel.words.value if wanted else "cannot" not in panel.words.value, panel.words.value
    panels[PermuteBench].steps.value = 4
    assert ("is invariant to it" in panels[PermuteBench].words.value) is reader.invariant
    errors = panels[EquivarianceBench].follow(panels[PermuteBench], "change")
    assert ("Equivariant." in errors.words.value) is reader.invariant and ("knows neurons by their places" in errors.words.value) is not reader.invariant
    assert list(errors.variant.options) == ["the model as it is", *reader.broken]
    for broken in reader.broken:
        errors.variant.value = broken
        assert "Broken first at" in errors.words.value


def test_a_reader_without_classes_shows_what_it_has():
    inr, reader = scene_of(SMALL, classes="")
    panels = {bench: bench(inr, reader) for bench in BENCHES}
    panels[PermuteBench].steps.value = 4
    assert "The features stay too" in panels[PermuteBench].words.value
    assert "Equivariant." in panels[EquivarianceBench].words.value
    assert "no classes" in panels[ReadersBench].words.value and "no classes" in panels[CropBench].words.value
    assert json.loads(panels[CropBench].images.figure)["data"]


def test_what_an_unlabelled_source_shows(shipped):
    "Without classes an own image is fitted, neurons are touched, two INRs are compared and test INRs are looked at; nothing is right or wrong."
    source = replace(source_of(reader_of(SIREN, classes=""), 6, "Made here."), images=torch.zeros(6, 8, 8, 1))
    bench = Workbench({"digits": lambda: shipped, "unlabelled": lambda: source})
    for tab in ("touch", "gallery"):
        bench.go(tab)
    bench.picker.source.value = "unlabelled"
    gallery = bench.go("gallery")
    assert gallery.words.value.count("6 test INRs") == 1 and "nothing is right or wrong" in gallery.words.value and gallery.which.disabled
    assert json.loads(gallery.pictures.figure)["layout"]["meta"]["alt"] == "6 test images."
    gallery.pictures.clicked = [4, 1]
    assert bench.picker.image.value == 4
    touch = bench.go("touch")
    touch.silence.value = True
    assert "the image moves by up to" in touch.words.value and "the features of INRFormer, which names no classes" in touch.words.value
    assert json.loads(touch.images.figure)["data"] and json.loads(touch.classes.figure)["layout"]["meta"]["alt"] == "Nothing to show.", "the bars of the last source stay"
    assert "names no classes, and its features of the two are" in bench.go("two INRs").words.value
    own = bench.go("own image")
    own.take(torch.rand(8, 8, 1, generator=torch.Generator().manual_seed(0)))
    assert "Step 90 of 90" in own.words.value and "dB." in own.words.value
    bench.picker.source.value = "digits"
    assert "right" in bench.go("gallery").words.value and not gallery.which.disabled


def test_variants_are_those_of_the_reader_that_is_shown():
    bench = PermuteBench(*scene_of(SMALL))
    errors = EquivarianceBench(*scene_of(SMALL)).follow(bench, "change")
    errors.variant.value = "per-entry statistics"
    bench.scene = Scene(*scene_of(SMALL, "deepsets"))
    assert errors.variant.value == "the model as it is" and list(errors.variant.options)[1:] == list(bench.scene.reader.broken)


def test_bad_state_is_explained_in_words():
    assert "only INRs of 2 coordinates" in ShowBench(*scene_of(CUBE)).words.value
    assert "only INRs of 2 coordinates" in PermuteBench(*scene_of(CUBE)).words.value
    assert "2 coordinates" in CropBench(*scene_of(CUBE)).words.value
    broken = inr_of(SMALL).map(lambda t: t * float("nan"))
    for bench in (PermuteBench, EquivarianceBench, ReadersBench, AttentionBench, CropBench):
        assert "NaN" in bench(broken, reader_of(SMALL)).words.value
    assert "(2, 12, 12, 1)" in EquivarianceBench(inr_of(SMALL), siren_reader()).words.value
    readers = ReadersBench(*scene_of(SMALL))
    readers.measure()
    assert "cannot be measured" in readers.words.value
    with pytest.raises(ValueError, match="do not fit"):
        ReadersBench(*scene_of(SMALL), flat=reader_of(SMALL, "flat", classes="ab"))
    with pytest.raises(ValueError, match="empty"):
        PermuteBench(inr_of(SMALL)[:0], reader_of(SMALL))


def test_who_follows_a_panel_that_can_show_nothing_speaks_for_itself():
    bench = PermuteBench(*scene_of(CUBE))
    errors = siren_bench(EquivarianceBench).follow(bench, "change")
    assert "cannot be shown" in bench.words.value and errors.change.scene is bench.scene and "identity" in errors.words.value, "it shows the INR of before"
    bench.steps.value = 3
    assert "Equivariant" in errors.words.value
    bench.scene = Scene(*scene_of(SMALL))
    assert errors.change.scene is bench.scene


def nowhere() -> Source:
    raise FileNotFoundError("no file in nowhere")


def test_the_picker_opens_one_source_after_another():
    found = {"one": lambda: source_of(siren_reader(), 30, "Twelve neurons."), "two": lambda: source_of(reader_of(SMALL, "deepsets"), 12, "Six neurons."), "nowhere": nowhere}
    picker = Picker(found)
    bench = PermuteBench(picker.scene.inr, picker.scene.reader).follow(picker, "scene")
    errors = EquivarianceBench(picker.scene.inr, picker.scene.reader).follow(bench, "change")
    picker.image.value = 29
    bench.steps.value = 20
    picker.source.value = "two"
    assert picker.scene.inr.spec == SMALL and picker.image.value == 11 and "Six neurons." in picker.words.value
    assert (bench.steps.value, bench.steps.max) == (0, 9) and "identity" in errors.words.value
    bench.steps.value = 9
    assert "Equivariant" in errors.words.value
    picker.start.value = 2
    assert "cannot be shown" in picker.words.value and "fitted again" in picker.words.value
    picker.source.value = "nowhere"
    assert "nowhere cannot be opened" in picker.words.value and picker.scene.inr.spec == SMALL


def test_the_shipped_model_can_be_fitted_again():
    picker = Picker({"digits (shipped)": demo_source})
    before = picker.scene.inr
    picker.start.value = 2
    assert "cannot" not in picker.words.value and not torch.equal(picker.scene.inr.flat(), before.flat())


def test_the_workbench_makes_a_panel_when_it_is_looked_at():
    bench = Workbench({"one": lambda: source_of(siren_reader(), 3, "Twelve neurons.")})
    assert list(bench.panels) == ["INR"]
    errors, permute = bench.go("equivariance"), bench.panels["permute"]
    assert errors.awake and not permute.awake and not bench.panels["INR"].awake
    words = bench.panels["INR"].words.value
    permute.steps.value = 4
    assert "Equivariant" in errors.words.value
    bench.picker.image.value = 2
    assert errors.change.scene is bench.picker.scene and bench.panels["INR"].words.value == words
    for name in TABS:
        assert bench.go(name).awake
    assert sum(panel.awake for panel in bench.panels.values()) == 1
    with pytest.raises(ValueError, match="permute"):
        bench.go("7 nothing")


def test_a_first_source_that_cannot_be_opened_leaves_the_others():
    def broken():
        raise ValueError("its files are damaged")

    bench = Workbench({"bad": broken, "one": lambda: source_of(siren_reader(), 3, "Twelve neurons.")})
    assert "bad cannot be opened" in bench.picker.words.value and "damaged" in bench.picker.words.value and not bench.panels
    with pytest.raises(ValueError, match="bad cannot be opened, and there is nothing to show in 'permute'"):
        bench.go("permute")
    bench.picker.source.value = "one"
    assert list(bench.panels) == ["permute"] and bench.panels["permute"].awake and bench.go("INR").awake
    bench.picker.source.value = "bad"
    with pytest.raises(ValueError, match="bad cannot be opened"):
        bench.go("gallery")
    bench.picker.source.value = "one"
    assert bench.go("gallery").awake


def test_names_of_classes_are_no_markup():
    reader = siren_reader().classify(["<img src=x onerror=alert(2)>", "<unk>"])
    bench = Workbench({"one": lambda: source_of(reader, 3, "<i>about</i>")})
    for name in TABS:
        panel = bench.go(name)
        assert not re.search("<img|<unk|<i>about", panel.words.value + bench.picker.words.value), name
    assert "&lt;" in bench.picker.words.value


@pytest.fixture(scope="module")
def shipped() -> Source:
    return demo_source()


def png(size: tuple[int, int], mode: str, colour, **more) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, "png", **more)
    return file.getvalue()


@pytest.mark.parametrize("blob, said", [
    (b"", "this file is empty"), (b"GIF89a", "no readable image"), (png((9, 9), "L", 0)[:40], "no readable image"), (png((14_000, 14_000), "1", 0), "exceeds limit"),
    (png((9, 9), "RGBA", (255, 0, 0, 0)), "lay it on a background"), (png((9, 9), "I;16", 65535), "8 bits per channel"),
], ids=["empty", "cut", "truncated", "huge", "transparent", "deep"])
def test_bad_pictures_are_refused_in_words(shipped, blob, said):
    bench = OwnBench(shipped)
    bench._read(blob)
    assert said in bench.words.value and bench.scene is None
    bench._draw([0] * 64 + [255] * 960)
    assert "90 of 90" in bench.words.value


def test_an_own_image_is_fitted_as_the_data_were_and_goes_through_all_tabs(shipped):
    bench, recipe = Workbench({"digits": lambda: shipped}), shipped.config.fit
    own, image = bench.go("own image"), (shipped.images[3] + 1) / 2
    own.take(image)
    wanted = fit(image[None], shipped.reader.spec, steps=recipe.fit_steps, lr=recipe.fit_lr, init=recipe.init, seed=recipe.fit_seed, device="cpu").inr
    assert (own.scene.inr.flat() - wanted.flat()).abs().max() < 1e-3
    assert "the model says <b>" in own.words.value and ", then " in own.words.value and "Its border is" not in own.words.value
    own.take(1 - image)
    assert "Its border is bright and those of the model's images are dark: <b>invert</b>" in own.words.value
    own.invert.value = True
    assert "Its border is" not in own.words.value and (own.scene.inr.flat() - wanted.flat()).abs().max() < 1e-3
    own.take(image), setattr(own.invert, "value", False)
    assert bench.picker.scene is own.scene and "an image of your own" in bench.picker.words.value
    assert bench.go("INR").scene is own.scene and bench.go("permute").scene is own.scene
    curve = [quality for _, quality in own.fitting.curve]
    assert curve[-1] > curve[0] + 10
    bench.picker.image.value = 5
    assert bench.go("permute").scene.label == int(shipped.test.labels[5])
    with pytest.raises(ValueError, match=r"\(9, 9, 1\)"):
        own.take(torch.zeros(9, 9, 1))


def on_canvas(own: OwnBench, squares: Sequence[int] = (), *files: bytes) -> None:
    "What the canvas says of a stroke, or of a file dropped on it or chosen."
    own._canvas.children[0]._handle_custom_msg(dict(squares=list(squares)), [memoryview(blob) for blob in files])


def uploaded(own: OwnBench, blob: bytes) -> None:
    on_canvas(own, (), blob)


STROKE = [0] * 512 + [255] * 512


def test_the_same_file_and_the_same_stroke_can_come_again(shipped):
    own, blob = OwnBench(shipped), png((9, 9), "L", 200)
    uploaded(own, blob)
    first = own.fitting
    assert first.steps == 90
    on_canvas(own, STROKE)
    stroke = own.fitting
    assert stroke is not first and stroke.image.mean() == 0.5
    uploaded(own, blob)
    assert own.fitting is not stroke and torch.equal(own.fitting.image, first.image)
    on_canvas(own, [0] * 1024)
    assert own.fitting is None and "Draw into the black square" in own.words.value and own.progress.figure == blank().to_json()
    on_canvas(own, STROKE)
    assert torch.equal(own.fitting.image, stroke.image) and "Step 90 of 90" in own.words.value
    uploaded(own, b"none")
    assert "no readable image" in own.words.value and own.fitting is None


def test_the_tick_inverts_whatever_comes(shipped):
    own = OwnBench(shipped)
    own.invert.value = True
    for grey in (200, 50):
        uploaded(own, png((9, 9), "L", grey))
        assert (own.fitting.image - (1 - grey / 255)).abs().max() < 1e-6
    own.invert.value = False
    assert (own.fitting.image - 50 / 255).abs().max() < 1e-6


def test_a_refusal_stays_while_something_is_fitted(shipped):
    async def refuse() -> tuple[int, str, OwnBench]:
        own = OwnBench(shipped)
        own.take((shipped.images[3] + 1) / 2)
        fitting = own.fitting
        while fitting.steps < 9:
            await asyncio.sleep(0.01)
        uploaded(own, png((9, 9), "RGBA", (255, 0, 0, 0)))
        said = own.words.value
        await asyncio.sleep(0.2)
        return fitting.steps, said, own

    steps, said, own = asyncio.run(refuse())
    assert steps < 90 and "cannot be shown" in said and own.words.value == said
    assert own.run.disabled and own.progress.figure == blank().to_json()


def test_another_image_is_fitted_once_when_the_last_one_rests(shipped):
    async def again() -> list[int]:
        own = OwnBench(shipped)
        own.take((shipped.images[3] + 1) / 2)
        own.run.value = True
        own.take((shipped.images[4] + 1) / 2)
        while own.fitting.steps < 90:
            await asyncio.sleep(0.01)
        return [steps for steps, _ in own.fitting.curve]

    assert asyncio.run(again()) == list(range(0, 91, 6))


def test_lines_of_an_image_that_is_fitted_jump(shipped):
    own = OwnBench(shipped)
    on_canvas(own, STROKE)
    assert not json.loads(own.network.figure)["layout"].get("transition")
    assert json.loads(siren_bench(AttentionBench).network.figure)["layout"]["transition"]["duration"]


def test_a_fit_can_be_paused(shipped):
    async def halt() -> tuple[int, int, OwnBench]:
        own = OwnBench(shipped)
        own.take((shipped.images[3] + 1) / 2)
        while own.fitting.steps < 9:
            await asyncio.sleep(0.01)
        own.run.value = True
        stood = own.fitting.steps
        await asyncio.sleep(0.2)
        there = own.fitting.steps
        own.run.value = False
        while own.fitting.steps < 90:
            await asyncio.sleep(0.05)
        return stood, there, own

    stood, there, own = asyncio.run(halt())
    assert stood == there < 90 and own.fitting.steps == 90 and own.scene is not None and own.run.disabled


def test_pausing_and_going_on_at_once_starts_no_second_loop(shipped):
    async def hurry() -> list[int]:
        own = OwnBench(shipped)
        own.take((shipped.images[3] + 1) / 2)
        while own.fitting.steps < 9:
            await asyncio.sleep(0.001)
        for _ in range(3):
            own.run.value = True
            own.run.value = False
        while own.fitting.steps < 90:
            await asyncio.sleep(0.01)
        return [steps for steps, _ in own.fitting.curve]

    assert asyncio.run(hurry()) == list(range(0, 91, 6))
    panel = EditBench(shipped.scene(0).inr, shipped.reader, test=shipped.test)
    panel.learn(2)
    panel.learn(0)
    assert [steps for steps, _ in panel._learning.curve] == [0, 2]


def test_a_fit_up_to_a_step_is_made_before_the_next_line_whether_a_loop_runs_or_not(shipped):
    "What is copied as code acts on the INR that it made, and a paused fit comes back as that."
    found, image = {"digits": lambda: shipped}, (shipped.images[7] + 1) / 2

    async def copied() -> tuple[Workbench, Workbench]:
        bench = Workbench(found)
        own, edit = bench.go("own image"), bench.go("edit")
        own.take(image, until=30)
        assert (own.fitting.steps, own.run.value, own.run.disabled, own.run.description) == (30, True, False, "go on") and bench.picker.scene is own.scene
        edit.learn(2)
        edit.take()
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("inrformer.app.Workbench", lambda: Workbench(found))
            exec(bench.as_code(), made := {})
        return bench, made["bench"]

    bench, again = asyncio.run(copied())
    assert "until=30)" in bench.as_code() and again.panels["own image"].fitting.steps == 30
    for one in (bench, again):
        assert (render(one.panels["edit"]._taken[0][0].inr, 8, 8) - (2 * image - 1)).square().mean() < 1, "another INR was edited"
    assert (again.picker.scene.inr.flat() - bench.picker.scene.inr.flat()).abs().max() < 0.01
    own = OwnBench(shipped)
    own.take(image, until=1000)
    assert own.fitting.steps == 90 and own.run.disabled and "until=90)" in own.as_code()[1]


def test_a_fit_leaves_alone_what_was_chosen_while_it_ran(shipped):
    async def meanwhile() -> None:
        bench = Workbench({"digits": lambda: shipped})
        own = bench.go("own image")
        own.take((shipped.images[7] + 1) / 2)
        while own.fitting.steps < 9:
            await asyncio.sleep(0.01)
        bench.picker.image.value = 5
        chosen = bench.picker.scene
        while own.fitting.steps < 90:
            await asyncio.sleep(0.01)
        assert bench.picker.scene is chosen and own.scene is None and "The other tabs show another INR" in own.words.value and "panel.take" not in bench.as_code()
        own.take((shipped.images[7] + 1) / 2)
        while own.fitting.steps < 90:
            await asyncio.sleep(0.01)
        assert bench.picker.scene is own.scene is not None and "in all tabs now" in own.words.value
        bench.picker.image.value = 6
        assert "The other tabs show another INR" in own.words.value, "the words are of what was"

    asyncio.run(meanwhile())


def test_a_fit_that_goes_on_after_another_choice_is_given_to_all_tabs(shipped):
    bench = Workbench({"digits": lambda: shipped})
    own = bench.go("own image")
    own.take((shipped.images[7] + 1) / 2, until=30)
    bench.picker.image.value = 5
    own.run.value = False
    assert own.fitting.steps == 90 and bench.picker.scene is own.scene
    own.take((shipped.images[8] + 1) / 2, until=12)
    on_canvas(own, [0] * 1024)
    assert own.fitting is None and "until=12)" in own.as_code()[1] and bench.picker.scene is own.scene, "the code is of what all tabs show"


def test_how_much_of_a_file_is_seen_is_said(shipped, tmp_path):
    own, wide = OwnBench(shipped), png((30, 10), "L", 200)
    uploaded(own, wide)
    assert "Only the middle 33.3% of the picture's longer side is seen." in own.words.value
    own.invert.value = True
    assert "Only the middle 33.3%" in own.words.value
    uploaded(own, png((9, 9), "L", 200))
    assert "Only the middle" not in own.words.value
    (tmp_path / "a.png").write_bytes(wide)
    own.take(tmp_path / "a.png", until=3)
    assert "Only the middle 33.3%" in own.words.value
    on_canvas(own, STROKE)
    assert "Only the middle" not in own.words.value


def test_a_file_that_the_server_would_not_take_is_refused_in_words(shipped):
    own = OwnBench(shipped)
    own.take((shipped.images[7] + 1) / 2)
    own._canvas.children[0]._handle_custom_msg(dict(heavy=12 * 2**20), [])
    assert "this file has 12.0 MiB, and the server takes 10 MiB in one message" in own.words.value and own.fitting is None
    assert 10 * 2**20 - 10_000 < own._canvas.children[0].most < 10 * 2**20


def test_a_fit_that_diverges_is_left(shipped):
    own = OwnBench(replace(shipped, config=replace(shipped.config, fit=replace(shipped.config.fit, fit_lr=1e3))))
    own.take((shipped.images[3] + 1) / 2)
    assert "cannot be shown" in own.words.value and own.fitting is None and own.run.disabled and own.scene is None


def test_an_image_that_is_chosen_after_an_own_one_stays(shipped):
    bench = Workbench({"digits (shipped)": lambda: shipped})
    own = bench.go("own image")
    bench.go("INR")
    own.take((shipped.images[7] + 1) / 2)
    bench.picker.image.value = 5
    bench.go("own image")
    assert torch.equal(bench.picker.scene.inr.flat(), shipped.test.inr[5:6].flat())


def test_a_drawing_that_cannot_be_made_is_said_where_there_is_no_loop(monkeypatch):
    panel = siren_bench(ShowBench)
    monkeypatch.setattr(ShowBench, "draw", lambda self: render(inr_of(CUBE), 4, 4))
    panel.refresh()
    assert "cannot be shown" in panel.words.value and panel not in widgets._WAITING


def test_a_panel_that_nobody_looks_at_fits_nothing(shipped, monkeypatch):
    bench = Workbench({"digits (shipped)": lambda: shipped})
    panel = bench.go("two INRs")
    bench.go("INR")
    monkeypatch.setattr("inrformer.inspection.fit", lambda *_, **__: pytest.fail("fitted for nobody"))
    bench.picker.image.value = 3
    monkeypatch.undo()
    bench.go("two INRs")
    assert panel.scene is bench.picker.scene and torch.equal(panel.other.flat(), bench.picker.scene.again(4).to(torch.float64).flat())


def test_alignment_takes_the_order_of_neurons_away_and_nothing_else(shipped):
    scene = shipped.scene(0)
    pair = PairBench(scene.inr, scene.reader)
    assert "cannot be fitted again" in pair.words.value or "nobody knows" in pair.words.value
    pair.scene = scene
    rise = {name: barrier(loss) for name, loss in pair.loss.items()}
    assert 0.01 < rise["aligned"] < rise["as they are"] and "0.142 on INRs from starts it never saw" in pair.words.value
    assert torch.equal(pair.ways["aligned"].flat(), permute(pair.other, align(pair.other, scene.inr)).flat())
    pair.second.value = 0
    assert barrier(pair.loss["aligned"]) < 1e-9 < 0.1 < barrier(pair.loss["as they are"]) and "aligned there is none" in pair.words.value
    line = between(scene.inr, pair.other, 3)
    assert torch.allclose(line.flat()[1], (scene.inr.flat() + pair.other.flat())[0] / 2) and losses(line, scene.image).shape == (3,)


def test_an_inr_is_never_compared_with_itself(shipped):
    bench = Workbench({"digits": lambda: shipped})
    pair = bench.go("two INRs")
    for start in (1, 2, 3):
        bench.picker.start.value = start
        for second in (4, 5):
            pair.second.value = second
            assert not torch.equal(pair.other.flat(), pair.scene.inr.flat()) and "order of neurons alone" not in pair.words.value and "still differ" in pair.words.value
    scene = shipped.scene(0, 4)
    pair.scene = scene
    pair.second.value = 4
    assert torch.equal(pair.other.flat(), scene.again(6).to(torch.float64).flat()) and "Start 4 gives the first again, so the second is from start 6" in pair.words.value
    pair.second.value = 5
    assert "gives the first again" not in pair.words.value


def test_a_line_without_a_rise_is_no_mere_order_of_neurons(shipped):
    scene = shipped.scene(0)
    near = scene.inr.map(lambda t: t * (1 + 1e-6))
    pair = PairBench(scene.inr, scene.reader, image=scene.image, again=lambda start: near)
    pair._again = lambda start: (near, "")
    pair.refresh()
    assert barrier(pair.loss["aligned"]) < 1e-9 and "order of neurons alone" not in pair.words.value and "relative error of 1.0e-06" in pair.words.value
    assert "mean squared error against the image that the first was fitted to, with black at -1 and white at 1" in pair.words.value
    pair.scene = replace(scene, image=None, again=None)
    pair.second.value = 0
    assert "against what the first shows at 16 × 16 points" in pair.words.value and "order of neurons alone" in pair.words.value


def test_a_silent_neuron_stays_silent_when_a_weight_that_reads_it_is_nudged(shipped):
    scene = shipped.scene(0)
    panel = TouchBench(scene.inr, scene.reader)
    panel.neuron.value = (1, 3)
    panel.set((panel.silence, True), (panel.weight, dict(panel.weight.options)["W2[4, 3]: to hidden layer 2, neuron 4"]), (panel.by, 2.0))
    assert torch.equal(panel.touched.flat(), silenced(scene.inr, 1, 3).flat()) and "W2[4, 3], which reads it, stays 0 though nudged by +2.0" in panel.words.value
    panel.silence.value = False
    assert "W2[4, 3] is nudged by +2.0" in panel.words.value
    w2, moved = scene.inr.named["W2"], panel.touched.named["W2"]
    assert (moved - w2)[0, 4, 3] == pytest.approx(2 * w2.std(correction=0).item())


def test_touching_a_neuron_moves_image_and_answer(shipped):
    scene = shipped.scene(0)
    panel = TouchBench(scene.inr, scene.reader)
    panel.network.clicked = [2, 4, 1]
    panel.network.clicked = [0, 1, 2]
    assert panel.neuron.value == (2, 4) and torch.equal(panel.touched.flat(), scene.inr.flat())
    panel.silence.value = True
    assert torch.equal(panel.touched.flat(), silenced(scene.inr, 2, 4).flat()) and "is silent" in panel.words.value
    panel.by.value = 2.0
    assert int((panel.touched.flat() != scene.inr.flat()).sum()) == 2 and "nudged by +2.0" in panel.words.value
    panel.neuron.value = (1, 0)
    assert torch.equal(panel.touched.flat(), scene.inr.flat()), "another neuron starts as it was"
    panel.scene = Scene(*scene_of(RELU))
    panel.silence.value = True
    assert "is silent" in panel.words.value
    for spec in (INRSpec(widths=(2, 6, 5, 3)), SMALL):
        panel.scene = Scene(*scene_of(spec))
        panel.neuron.value = (2, 3)
        assert len(panel.weight.options) == 1 + 6 + spec.widths[-1], "weights of another network are offered"


def test_an_editor_learns_here_and_the_slider_goes_as_far_as_it_says(shipped):
    bench = Workbench({"digits (shipped)": lambda: shipped})
    panel, before = bench.go("edit"), bench.picker.scene
    assert "Press train" in panel.words.value and panel.keep.disabled and torch.equal(panel.edited.flat(), before.inr.flat())
    panel.learn(30)
    assert panel._learning.curve[-1][1] > 0.3 > abs(panel._learning.curve[0][1]) and "never saw this INR" in panel.words.value and "after 30 of 300 steps" in panel.words.value
    whole = panel.edited.flat()
    panel.strength.value = 0.5
    assert torch.allclose(panel.edited.flat(), (before.inr.flat() + whole) / 2, atol=1e-12)
    made = float(re.search(r"make <b>(\S+) of the change", panel.words.value)[1])
    x = render(before.inr, 16, 16)[..., 0]
    y = F.max_pool2d(x[None], 3, 1, 1)[0]
    assert made == pytest.approx(1 - float((render(panel.edited, 16, 16)[..., 0] - y).square().mean() / (x - y).square().mean()), abs=0.006)
    bench.panels["permute"].steps.value = 7
    assert "is the permuted edit" in panel.words.value and torch.allclose(panel.edited.flat(), permute(INR.from_flat((before.inr.flat() + whole) / 2, before.inr.spec), panel.change.perm).flat(), atol=1e-12)
    tick(bench.panels["permute"], "flip signs of sines")
    assert "is not the permuted edit" in panel.words.value and "another symmetry" in panel.words.value
    panel.strength.value = 0.0
    assert "nothing of the edit is made" in panel.words.value
    bench.picker.image.value = 100
    panel.strength.value = 1.0
    assert "learned from this INR" in panel.words.value
    panel.editor.value = "blur, trained here"
    assert "Press train" in panel.words.value
    panel.change = Change.permuted(Scene(*scene_of(SMALL)))
    panel.run.value = True
    assert "no INRs to learn from" in panel.words.value


def test_an_edit_goes_to_all_tabs_is_undone_and_is_in_the_code(shipped):
    found = {"digits (shipped)": lambda: shipped}
    bench = Workbench(found)
    panel, before = bench.go("edit"), bench.picker.scene
    panel.learn(4)
    edited = panel.edited.flat()
    panel.take()
    panel.strength.value = 0.4
    assert torch.equal(bench.go("INR").scene.inr.flat(), edited) and not panel.back.disabled
    bench.go("edit")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("inrformer.app.Workbench", lambda: Workbench(found))
        exec(bench.as_code(), made := {})
    assert torch.equal(made["bench"].panels["edit"].edited.flat(), panel.edited.flat())
    panel.undo()
    assert bench.picker.scene is before and panel.strength.value == 1.0 and torch.equal(panel.edited.flat(), edited) and panel.back.disabled
    panel.take()
    bench.picker.image.value = 3
    assert panel.back.disabled, "an edit of another image can be undone"


def test_the_code_of_an_edited_own_image_begins_with_that_image(shipped):
    bench = Workbench({"digits (shipped)": lambda: shipped})
    edit = bench.go("edit")
    bench.go("own image").take((shipped.images[7] + 1) / 2)
    bench.go("edit")
    edit.learn(2)
    edit.take()
    code = bench.as_code()
    assert bench.picker.scene is edit.kept and 0 < code.index("panel.take(torch.tensor(") < code.index("panel.take()")


def test_training_can_be_paused(shipped):
    async def halt() -> tuple[int, int, EditBench]:
        panel = EditBench(shipped.scene(0).inr, shipped.reader, test=shipped.test)
        panel.run.value = True
        while panel._learning.steps < 10:
            await asyncio.sleep(0.01)
        panel.run.value = False
        stood = panel._learning.steps
        await asyncio.sleep(0.2)
        return stood, panel._learning.steps, panel

    stood, there, panel = asyncio.run(halt())
    assert stood == there < STEPS and panel.run.description == "go on" and not panel.run.disabled


def test_training_goes_on_while_neurons_are_permuted(shipped):
    async def permuted() -> list[int]:
        bench = Workbench({"digits": lambda: shipped})
        panel, made = bench.go("edit"), []
        panel.run.value = True
        for steps in (5, 9):
            bench.panels["permute"].steps.value = steps
            assert panel.run.value and panel.run.description == "pause"
            made.append(panel._learning.steps)
            while panel._learning.steps < made[-1] + 10:
                await asyncio.sleep(0.01)
        panel.change = Change.permuted(replace(bench.picker.scene, test=shipped.test[:30]))
        assert not panel.run.value and panel._learning is None, "an editor of other INRs goes on"
        return made

    first, second = asyncio.run(permuted())
    assert first + 10 <= second < STEPS


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_an_edit_that_changes_nothing_here_says_so(shipped, value):
    panel, whole = EditBench(shipped.scene(0).inr, shipped.reader, test=shipped.test), shipped.scene(0).inr
    panel.learn(2)
    flat = INR(tuple(torch.full_like(t, value) if p.inn is None and p.out == whole.spec.depth else t * (p.out != whole.spec.depth) for p, t in zip(whole.spec.layout, whole.tensors)), whole.spec)
    panel.change = Change.permuted(Scene(flat, shipped.reader, test=shipped.test))
    assert "This edit changes nothing here" in panel.words.value and "the weights move by" in panel.words.value and "on 60 that it never saw" in panel.words.value
    held = replace(shipped.test[:1], inr=flat.to(torch.float32))
    with pytest.raises(ValueError, match="dilate changes nothing of what these INRs show"):
        score(panel.task, panel._whole, held)


def test_a_score_is_of_float64_moments(shipped):
    task, small = Edit(), shipped.test[:1]
    inr = small.inr.to(torch.float64)
    nearly = INR(tuple(t * 1e-4 if p.out == inr.spec.depth and p.inn is not None else t for p, t in zip(inr.spec.layout, inr.tensors)), inr.spec)
    learned = Learning(task, shipped.test)
    learned.advance(2)
    x = task.shown(nearly)
    y, made = F.max_pool2d(x, 3, 1, 1), task.shown(learned.editor.edit(nearly))
    wanted = 1 - ((made - y).square().mean() / (x - y).square().mean()).item()
    assert score(task, learned.editor, replace(small, inr=nearly))["edit_made"] == pytest.approx(wanted, rel=1e-4)


def test_an_editor_of_a_run_is_taken_as_it_is(shipped, monkeypatch):
    learned = Learning(Edit(Edit.Config(change="blur")), shipped.test)
    learned.advance(2)
    monkeypatch.setattr("inrformer.editing.editors_beside", lambda config: {"blur, by nfn_hnp (abc123)": (learned.task.config, Path("there"))})
    monkeypatch.setattr("inrformer.editing.opened_reader", lambda folder: learned._reader.eval())
    panel = EditBench(shipped.scene(0).inr, shipped.reader, config=shipped.config, test=shipped.test)
    assert panel.editor.value.startswith("blur, by nfn_hnp") and panel.run.disabled and "of the change" in panel.words.value
    panel.editor.value = "erode, trained here"
    assert not panel.run.disabled and "Press train" in panel.words.value


def test_a_reader_that_was_made_again_is_opened_again(tmp_path):
    place = tmp_path / "model.safetensors"
    for seed in (0, 1):
        reader = reader_of(SMALL, "deepsets")
        with torch.no_grad():
            reader.head.bias.fill_(seed)
        save_reader(reader, place)
        os.utime(place, ns=(seed, seed))
        assert opened_reader(place).head.bias[0] == seed


def test_accuracies_are_drawn_point_by_point(shipped, monkeypatch):
    drawn = []
    monkeypatch.setattr(ReadersBench, "draw", lambda self: drawn.append(1))

    async def measured() -> int:
        panel = ReadersBench(shipped.scene(0).inr, shipped.reader, test=shipped.test[:12], flat=shipped.flat)
        await asyncio.sleep(0.05)
        drawn.clear()
        panel.measure()
        return len(next(iter(panel._points.values())))

    assert asyncio.run(measured()) == len(drawn) > 2


def test_the_gallery_shows_who_is_read_right_and_chooses(shipped):
    bench = Workbench({"digits": lambda: shipped})
    gallery = bench.go("gallery")
    with torch.no_grad():
        said, by_row = (reader(shipped.test.inr).argmax(dim=1) for reader in (shipped.reader, shipped.flat))
    right, wrong = int((said == shipped.test.labels).sum()), (said != shipped.test.labels).nonzero()[:, 0].tolist()
    assert f"reads {right} right" in gallery.words.value
    gallery.which.value = "wrong"
    gallery.pictures.clicked = [2, 1]
    assert bench.picker.image.value == gallery.index == wrong[2] and "which is wrong" in bench.picker.words.value
    bench.picker.image.value = 0
    gallery.pictures.clicked = [2, 2]
    assert bench.picker.image.value == wrong[2], "the same one, clicked again"
    gallery.reader.value = widgets.FLAT
    assert f"{widgets.FLAT} reads {int((by_row == shipped.test.labels).sum())} right" in gallery.words.value


def test_rivals_without_an_accuracy_stand_in_the_table_of_readers():
    line = dict(row="baseline", reads="vectors", rendered_input=None, rendered_depth0=None, val_accuracy=None, test_accuracy=None, parameters=5, thread_seconds=1.0)
    assert "<td style='padding: 0 0.6em'>5</td>" in widgets._on_record([line, line | dict(row="reader flat")])


def test_a_gallery_of_nothing_says_so_and_undo_knows_its_page(shipped):
    gallery = Gallery(shipped)
    gallery.page.value = 4
    before = gallery.snapshot()
    gallery.which.value = "wrong"
    gallery.restore(before)
    assert (gallery.which.value, gallery.page.value) == ("all", 4)
    gallery.opened = replace(shipped, test=shipped.test[(shipped.reader(shipped.test.inr).argmax(dim=1) == shipped.test.labels).nonzero()[:5, 0]])
    gallery.which.value = "wrong"
    assert "5 right" in gallery.words.value and json.loads(gallery.pictures.figure)["layout"]["meta"]["alt"] == "Nothing to show."


def test_one_panel_that_fails_keeps_no_other_from_being_drawn(shipped):
    async def two():
        bad, good = Gallery(shipped), Gallery(shipped)
        bad.draw = lambda: 1 / 0
        bad.refresh(), good.refresh()
        asyncio.get_running_loop().set_exception_handler(lambda loop, said: None)
        await asyncio.sleep(0.2)
        return good.pictures._store.value

    assert "test images" in asyncio.run(two()) and not widgets._WAITING


def test_the_gallery_asks_any_reader_that_has_a_run_and_says_how_to_train_others(shipped):
    gallery = Gallery(shipped)
    assert {*READERS} - {"inrformer", "flat"} <= set(dict(gallery.reader.options).values())
    gallery.reader.value = "dws"
    assert "make train PROTOCOL=digits READER=dws" in gallery.words.value and json.loads(gallery.pictures.figure)["layout"]["meta"]["alt"] == "Nothing to show."
    gallery._runs = {"dws": Path("there")}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(widgets, "opened_reader", lambda folder: shipped.flat)
        gallery.refresh()
    with torch.no_grad():
        right = int((shipped.flat(shipped.test.inr).argmax(dim=1) == shipped.test.labels).sum())
    assert f"dws reads {right} right" in gallery.words.value


def test_any_reader_stands_beside_and_one_without_a_run_says_how_to_get_it(shipped):
    bench = Workbench({"digits": lambda: shipped})
    panel = bench.go("readers")
    assert {*READERS} - {"inrformer", "flat"} <= set(dict(panel.other.options).values()) and not {("inrformer, not trained yet", "inrformer"), ("flat, not trained yet", "flat")} & set(panel.other.options) and ("dws, not trained yet", "dws") in panel.other.options and "0.142 on INRs from starts it never saw" in panel.words.value
    assert json.loads(panel.curve.figure)["layout"]["meta"]["alt"] == "Nothing to show.", "an axis of nothing says you are here"
    for control in BESIDE_DEMO:
        panel.other.value = control
        assert f"{control} says <b>" in panel.words.value, "a control that ships cannot be asked"
    panel.other.value = "dws"
    assert "make train PROTOCOL=digits READER=dws" in panel.words.value
    panel._runs = {"dws": Path("there")}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(widgets, "opened_reader", lambda folder: shipped.flat)
        panel.refresh()
    assert "dws says" in panel.words.value


def test_the_state_is_code_that_makes_it_again(shipped):
    found = {"digits (shipped)": lambda: shipped}
    bench = Workbench(found)
    bench.picker.image.value = 7
    bench.go("permute").shuffle(2, generator=seeded(1))
    bench.panels["permute"].twins["flip signs of sines"].value = bench.panels["permute"].canonical.value = True
    bench.go("touch").set((bench.panels["touch"].neuron, (2, 5)), (bench.panels["touch"].silence, True))
    bench.go("crop").row.value = 0.2
    bench.go("two INRs").second.value = 0
    bench.go("equivariance").variant.index = 2
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("inrformer.app.Workbench", lambda: Workbench(found))
        exec(bench.as_code(), made := {})
    again = made["bench"]
    assert torch.equal(again.panels["permute"].change.after.flat(), bench.panels["permute"].change.after.flat())
    assert again.tabs.selected_index == bench.tabs.selected_index and again.picker.image.value == 7
    assert [again.panels[name].snapshot() for name in ("touch", "crop", "two INRs", "equivariance")] == [bench.panels[name].snapshot() for name in ("touch", "crop", "two INRs", "equivariance")]
    bench.go("own image").take((torch.rand(8, 8, 1, generator=seeded(3)) * 255).round() / 255)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("inrformer.app.Workbench", lambda: Workbench(found))
        exec(bench.as_code(), made)
    assert (made["bench"].picker.scene.inr.flat() - bench.picker.scene.inr.flat()).abs().max() < 0.01
    bench.picker.image.value = 8
    assert "panel.take" not in bench.as_code(), "another image was chosen since"
    bench.code.selected_index = 0
    bench.go("crop").row.value = 0.3
    assert "panel.row.value = 0.3" in bench.text.value, "the lines are of a state that is gone"


def test_weights_that_are_no_numbers_are_not_drawn(shipped):
    scene = shipped.scene(0)
    said = ShowBench(scene.inr.map(lambda t: t * float("nan")), scene.reader).words.value
    assert "cannot be shown" in said and "W1 holds NaN or infinity" in said
