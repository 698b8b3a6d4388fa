"The workbench without a browser: figures are right, panels hold their state together, and bad state is explained in words."

import json
import shutil

import numpy as np
import pytest
import torch

from inrformer import widgets
from inrformer.experiments import RunConfig, load_demo, run
from inrformer.inr import INRSpec, grid, init_siren
from inrformer.model import MODELS, INRFormer
from inrformer.symmetry import permute, permute_untied, random_permutation
from inrformer.widgets import (
    TOLERANCE,
    VARIANTS,
    AttentionBench,
    Chart,
    CropBench,
    EquivarianceBench,
    PermuteBench,
    Picker,
    ReadersBench,
    ShowBench,
    attention,
    demo_source,
    exact,
    fig_attention,
    fig_change,
    fig_errors,
    fig_fit,
    fig_network,
    fig_weights,
    first_break,
    read,
    sources,
    stage_errors,
    variant,
    walk,
)

SPECS = [INRSpec(widths=(2, 12, 12, 1)), INRSpec(widths=(2, 5, 3)), INRSpec(widths=(2, 32, 32, 3)), INRSpec(widths=(2, 4, 6, 5, 1))]


def seeded(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def model_of(spec: INRSpec, **choices) -> INRFormer:
    torch.manual_seed(0)
    return INRFormer(spec, classes=4, **MODELS["demo"] | dict(hint=16, query=16) | choices).eval()


def inr_of(spec: INRSpec):
    return init_siren(spec, 1, generator=seeded()).to(torch.float64)


@pytest.fixture(scope="module")
def demo():
    return load_demo()


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: "-".join(map(str, s.widths)))
def test_a_walk_takes_one_transposition_at_a_time(spec):
    steps = walk(spec, 7, generator=seeded())
    assert len(steps) == 1 + sum(n - 1 for n in spec.hidden)
    for before, after in zip(steps, steps[1:]):
        changed = sum((a != b).sum(dim=1) for a, b in zip(before.indices, after.indices))
        assert (changed == 2).all()
    assert all((index != torch.arange(index.shape[1])).all() for index in steps[-1].indices)
    again = walk(spec, 7, generator=seeded())[-1]
    assert all(torch.equal(a, b) for a, b in zip(again.indices, steps[-1].indices))


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: "-".join(map(str, s.widths)))
def test_figures_take_any_spec(spec):
    inr, model = inr_of(spec), model_of(spec)
    perm = random_permutation(spec, 1, generator=seeded())
    looks = attention(model, inr)
    figures = [fig_network(inr, order=perm, chosen=(1, 2)), fig_weights({"one": inr, "other": permute(inr, perm)}, {"other": perm}), fig_change(inr, inr),
               *(fig_attention(looks, spec, l, 0) for l in range(spec.depth + 1))]
    for figure in figures:
        assert figure.layout.meta["alt"] and figure.layout.paper_bgcolor == "rgba(0,0,0,0)"
        json.loads(figure.to_json())
    lines = sum(int(np.isnan(trace.x).sum()) for trace in figures[0].data if trace.mode == "lines")
    assert lines == sum(o * i for o, i in spec.weight_shapes), "a weight has no line"


def test_weights_are_drawn_at_the_place_they_moved_to():
    inr = inr_of(SPECS[0])
    perm = random_permutation(inr.spec, 1, generator=seeded())
    figure = fig_weights({"before": inr, "after": permute(inr, perm)}, {"after": perm})
    before, after = (np.array(figure.data[k].customdata)[:, :12] for k in (1, 4))
    rows, columns = perm.indices[1][0].numpy(), perm.indices[0][0].numpy()
    assert np.array_equal(after, before[rows][:, columns])
    assert list(figure.layout.yaxis5.ticktext) == [str(k) for k in rows]
    assert np.nanmax(np.abs(figure.data[1].z)) == 1


def test_the_error_map_and_psnr_are_of_the_pixels():
    inr = inr_of(SPECS[0])
    image = torch.zeros(8, 8, 1, dtype=torch.float64)
    figure = fig_fit(inr, image, side=20)
    shown = inr(grid(8, 8).double())[0].abs().reshape(8, 8)
    assert np.allclose(figure.data[2].z, shown.numpy(), atol=1e-6)
    wanted = 10 * np.log10(4 / shown.square().mean().item())
    assert f"PSNR {wanted:.1f} dB" in figure.layout.annotations[2].text
    wide = fig_fit(inr, torch.zeros(8, 16, 1), side=20)
    assert "20 × 40" in wide.layout.annotations[1].text


def test_difference_maps_do_not_make_rounding_visible(demo):
    inr = demo.test.inr[:1].to(torch.float64)
    perm = random_permutation(inr.spec, 1, generator=seeded())
    for other, bound in ((permute(inr, perm), (0, 1e-12)), (permute_untied(inr, perm), (0.1, 10))):
        trace = fig_change(inr, other).data[2]
        assert (trace.zmin, trace.zmax) == (0, 1)
        assert bound[0] <= np.max(trace.z) <= bound[1]


def test_error_bars_say_what_is_exact_and_what_is_broken():
    figure = fig_errors({"zero": 0.0, "fine": 1e-15, "edge": TOLERANCE, "bad": 1e-3, "lost": float("inf")})
    (bars,) = figure.data
    assert bars.text[0] == "exactly 0" and bars.text[4] == "not a number"
    assert [bool(shape) for shape in bars.marker.pattern.shape] == [False, False, False, True, True]
    assert "first above the tolerance is bad" in figure.layout.meta["alt"]
    assert first_break({"a": float("nan")}) == "a"


CHOICES = [dict(), dict(pool="mean"), dict(weight_embedding="chebyshev"), dict(layer_embedding=False), dict(aux=False), dict(canonical=True), dict(depth=1),
           {k: v for k, v in MODELS["paper"].items()}]


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_every_stage_of_every_model_is_equivariant_and_every_variant_breaks_where_it_says(choices):
    spec = INRSpec(widths=(2, 6, 5, 1), omega=8.0)
    inr, model = inr_of(spec), model_of(spec, **choices)
    perm = walk(spec, generator=seeded())[-1]
    after = permute(inr, perm)
    errors = stage_errors(model, inr, after, perm)
    blocks = [f"block {k}: {part}" for k in range(1, len(model.blocks) + 1) for part in ("attention", "edge step")]
    assert list(errors) == ["image", "weight embedding", "nodes", *blocks, "output INR", "features", "logits"]
    assert max(errors.values()) < 1e-12
    wanted = {"neuron-index embedding": "nodes", "per-entry statistics": "weight embedding", "attention masks a neuron": f"block {min(2, len(model.blocks))}: attention"}
    for name, stage in wanted.items():
        errors = stage_errors(variant(model, name), inr, after, perm)
        assert first_break(errors) == stage and errors["logits"] > 1e-6, "what is spoilt does not reach the logits"
    untied = stage_errors(model, inr, permute_untied(inr, perm), perm, act=permute_untied)
    assert first_break(untied) == "image" and max(untied.values()) > 1e-3


def test_spoiling_leaves_the_model_alone(demo):
    inr = demo.test.inr[:1].to(torch.float64)
    plain = read(demo.model, inr).logits
    for name in VARIANTS:
        variant(demo.model, name)
    assert torch.equal(exact(demo.model)(inr).logits, plain) and demo.model.query.dtype == torch.float32


def test_permute_bench_composes_swaps_shuffles_and_the_slider(demo):
    bench = PermuteBench(demo.test.inr[:1], demo.model)
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


def test_every_layer_has_its_slider(demo):
    bench = PermuteBench(demo.test.inr[:1], demo.model)
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


def test_a_scene_that_cannot_be_shown_leaves_no_trace(demo):
    bench = PermuteBench(demo.test.inr[:1], demo.model)
    cube = INRSpec(widths=(3, 6, 5, 1))
    plain = bench.scene
    bench.scene = widgets.Scene(inr_of(cube), model_of(cube, hint=8, query=8))
    assert "only INRs of 2 coordinates" in bench.words.value
    bench.scene = plain
    bench.steps.value = 22
    assert "the same image" in bench.words.value and bench.steps.max == 22


def test_new_weights_give_new_answers(demo):
    inr, model = inr_of(SPECS[1]), model_of(SPECS[1])
    before, looks = read(model, inr).logits, attention(model, inr)
    assert read(model, inr).logits is before
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.5)
    assert not torch.allclose(read(model, inr).logits, before) and attention(model, inr) is not looks
    assert torch.equal(read(model, inr).logits, exact(model)(inr).logits)


def test_the_stage_that_breaks_is_explained_by_what_broke_it(demo):
    bench = PermuteBench(demo.test.inr[:1], demo.model)
    panel = EquivarianceBench(demo.test.inr[:1], demo.model).follow(bench, "change")
    bench.signs.value = True
    panel.variant.value = "attention masks a neuron"
    assert "signs or phases" in panel.words.value and "hides" in panel.words.value and "Nobody" not in panel.words.value
    panel.variant.value = "untied permutation"
    assert "P is the identity" in panel.words.value
    bench.set((bench.signs, False), (bench.steps, 22))
    panel.variant.value = "attention masks a neuron"
    assert "Nobody listens" in panel.words.value


@pytest.mark.parametrize("canonical", [False, True])
def test_signs_and_phases_move_the_logits_until_both_are_canonical(canonical):
    spec = INRSpec(widths=(2, 6, 5, 1), omega=8.0)
    bench = PermuteBench(inr_of(spec), model_of(spec, canonical=canonical))

    def moved() -> float:
        said = [read(bench.scene.model, x).logits for x in (bench.change.before, bench.change.after)]
        return (said[0] - said[1]).abs().max().item()

    bench.set((bench.signs, True), (bench.phases, True), (bench.steps, 5))
    points = grid(16, 16).double()
    assert (bench.change.after(points) - bench.change.before(points)).abs().max() < 1e-12
    assert moved() < 1e-10 if canonical else moved() > 1e-6
    assert ("The logits move" in bench.words.value) is not canonical
    bench.canonical.value = True
    assert moved() < 1e-10


def test_handles_move_the_same_permutation(demo):
    bench = PermuteBench(demo.test.inr[:1], demo.model)
    twin = bench.handle()
    twin.value = 4
    assert bench.steps.value == 4 and twin.max == bench.steps.max == 22
    bench.steps.value = 22
    assert twin.value == 22


def test_charts_draw_only_what_changed(demo):
    calls = []

    def fig(*args, **more):
        calls.append((args, more))
        return fig_errors({"a": 1e-3})

    chart, inr = Chart(), demo.test.inr[:1]
    for state in ((inr, 1), (inr, 1), (inr, 2), (demo.test.inr[:1], 2)):
        chart.show(fig, *state)
    assert len(calls) == 3
    chart.show(fig, {"a": inr}, (1, 2), name="x")
    chart.show(fig, {"a": inr}, (1, 2), name="x")
    assert len(calls) == 4
    chart.show(fig, {"b": inr}, (1, 2), name="x")
    assert len(calls) == 5


def test_a_slider_of_one_panel_leaves_the_others_alone(demo):
    show, crop = (Panel(demo.test.inr[:1], demo.model) for Panel in (ShowBench, CropBench))
    network, logits = show.network.figure, crop.logits.figure
    show.side.value = 32
    assert show.network.figure is network
    assert json.loads(show.fit.figure)["layout"]["annotations"][0]["text"] == "the INR at 32 × 32 points"
    crop.row.value = 0.3
    assert crop.logits.figure != logits


def test_readers_follow_the_change_and_keep_the_curve(demo):
    source = demo_source()
    scene = source.scene(0)
    few = widgets.Split(scene.test.inr[:30], *(t[:30] for t in (scene.test.labels, scene.test.ids, scene.test.psnr, scene.test.init_seeds)))
    bench = PermuteBench(scene.inr, scene.model, test=few, flat=scene.flat, label=scene.label)
    readers = ReadersBench(scene.inr, scene.model).follow(bench, "change")
    bench.steps.value = 22
    readers.measure()
    curve = json.loads(readers.curve.figure)["data"]
    assert curve[0]["x"] == curve[1]["x"] == [0, 1, 2, 4, 8, 16, 22]
    assert len(set(curve[0]["y"])) == 1 and curve[1]["y"][-1] < 0.5 < curve[1]["y"][0]
    assert "22 transpositions" in readers.words.value


def test_attention_is_of_the_chosen_neuron(demo):
    inr = demo.test.inr[:1].to(torch.float64)
    panel = AttentionBench(inr, demo.model)
    panel.network.clicked = [3, 0, 1]
    assert panel.neuron.value == (3, 0)
    panel.neuron.value = (1, 3)
    panel.network.clicked = [3, 0, 2]
    assert panel.neuron.value == (3, 0), "the second click on a neuron is lost"
    looks = attention(demo.model, inr)
    figure = fig_attention(looks, inr.spec, 3, 0)
    assert [trace.z.shape for trace in figure.data] == [(8, 12), (8, 1)]
    assert np.allclose(figure.data[0].z[:4], looks[0][3][0, :, 0, :12])
    panel.network.clicked = [3]
    assert panel.neuron.value == (3, 0)


def test_the_crop_stays_inside_the_image(demo):
    panel = CropBench(demo.test.inr[:1], demo.model)
    panel.side.value = 0.4
    for n in range(30):
        panel.images.pressed = ["ArrowLeft", n]
    assert panel.column.value == pytest.approx(-0.6)
    panel.side.value = 0.8
    assert panel.column.value == pytest.approx(-0.2) and "cannot" not in panel.words.value


def test_bad_state_is_explained_in_words(demo, tmp_path):
    spec = INRSpec(widths=(2, 6, 5, 1))
    assert "without the auxiliary crop head" in CropBench(inr_of(spec), model_of(spec, aux=False)).words.value
    cube = INRSpec(widths=(3, 6, 5, 1))
    assert "only INRs of 2 coordinates" in ShowBench(inr_of(cube), model_of(cube, hint=8, query=8)).words.value
    assert "only INRs of 2 coordinates" in PermuteBench(inr_of(cube), model_of(cube, hint=8, query=8)).words.value
    broken = inr_of(spec).map(lambda t: t * float("nan"))
    for Panel in (PermuteBench, EquivarianceBench, ReadersBench, AttentionBench, CropBench):
        assert "NaN" in Panel(broken, model_of(spec)).words.value
    assert "(2, 12, 12, 1)" in EquivarianceBench(inr_of(spec), demo.model).words.value
    assert "cannot be measured" in measured(ReadersBench(inr_of(spec), model_of(spec)))
    for wrong in (dict(classes=("one", "two")), dict(flat=torch.nn.Linear(3, 4))):
        with pytest.raises(ValueError, match="do not fit|flat maps"):
            ReadersBench(inr_of(spec), model_of(spec), **wrong)
    with pytest.raises(ValueError, match="empty"):
        PermuteBench(inr_of(spec)[:0], model_of(spec))
    assert "2 coordinates" in CropBench(inr_of(cube), model_of(cube, hint=8, query=8)).words.value


def measured(panel: ReadersBench) -> str:
    panel.measure()
    return panel.words.value


def test_any_finished_run_can_be_opened(tmp_path, monkeypatch):
    monkeypatch.setenv("INRFORMER_CACHE", str(tmp_path / "cache"))
    cfg = RunConfig(dataset="digits", protocol="custom", n_train=40, n_test=12, hidden="6-5", omega=8.0, fit_steps=10, epochs=1, dim=16, edge_dim=8, depth=1, heads=2, hint=16, query=16)
    done = run(cfg, out=tmp_path / "runs")
    picker = Picker(sources(tmp_path / "runs"))
    bench = PermuteBench(picker.scene.inr, picker.scene.model).follow(picker, "scene")
    errors = EquivarianceBench(picker.scene.inr, picker.scene.model).follow(bench, "change")
    picker.image.value = 300
    bench.steps.value = 20
    picker.source.value = f"runs/custom/{done.folder.name}"
    assert picker.scene.inr.spec.widths == (2, 6, 5, 1) and picker.image.value == 11
    assert (bench.steps.value, bench.steps.max) == (0, 9) and "identity" in errors.words.value
    bench.steps.value = 9
    assert "Equivariant" in errors.words.value
    assert picker.scene.flat(picker.scene.inr.flat()).shape == (1, 10)
    picker.start.value = 2
    assert "cannot" not in picker.words.value
    for name, file in (("cut", "checkpoint-*/model.safetensors"), ("config", "config.json"), ("summary", "summary.json")):
        copy = tmp_path / "runs" / "custom" / name
        shutil.copytree(done.folder, copy)
        (path,) = copy.glob(file)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    picker = Picker(sources(tmp_path / "runs"))
    for name in ("cut", "config", "summary"):
        picker.source.value = f"runs/custom/{name}"
        assert f"custom/{name} are damaged" in picker.words.value and picker.scene is not None


def test_figures_need_a_browser_and_say_so(tmp_path, monkeypatch):
    pytest.importorskip("kaleido", reason="needs kaleido, a dev extra")
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "none"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="set BROWSER_PATH"):
        widgets.main(["--out", str(tmp_path / "figures")])
    assert not list((tmp_path / "figures").glob("*.png"))
