"Figures are right: every weight has its line and its place, error maps are of the pixels, and nothing makes rounding visible."

import json

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from bench import FOURIER, RELU, SIREN, inr_of, reader_of, seeded

from inrformer import figures
from inrformer.figures import fig_accuracy, fig_attention, fig_change, fig_classes, fig_crop, fig_errors, fig_fit, fig_network, fig_networks, fig_weights, layer_names, write_figures
from inrformer.inr import KINDS, INRSpec, Kind, Param, grid, init_inr
from inrformer.inspection import TOLERANCE, attention, crops, hint_at, reach_of
from inrformer.symmetry import Permutation, permute, permute_untied, random_permutation

SPECS = [SIREN, INRSpec(widths=(2, 5, 3)), INRSpec(widths=(2, 32, 32, 3)), INRSpec(widths=(2, 4, 6, 5, 1)), RELU, FOURIER]


@pytest.mark.parametrize("reach", ["own", "all"])
def test_attention_that_goes_elsewhere_is_drawn_over_whom_it_hears(reach):
    reader = reader_of(SIREN, attention=reach)
    looks, assigned = attention(reader, inr_of(SIREN)), reach_of(reader)
    figure = fig_attention(looks, SIREN, 1, 0, reach=assigned)
    names = layer_names(SIREN)
    assert assigned == reach and figure.layout.meta["alt"].endswith(f"over {', '.join(names if reach == 'all' else names[1:2])}.")
    assert sum(trace.z.shape[1] for trace in figure.data if trace.type == "heatmap") == looks[0][1].shape[-1]


@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.kind}-{'-'.join(map(str, s.widths))}")
def test_figures_take_any_spec(spec):
    inr, reader = inr_of(spec), reader_of(spec)
    perm = random_permutation(spec, 1, generator=seeded())
    looks, hint = attention(reader, inr), hint_at(reader, -0.2, 0.1, 0.6)
    drawn = [fig_network(inr, order=perm, marked=[(1, 2)]), fig_weights({"one": inr, "other": permute(inr, perm)}, {"other": perm}), fig_change(inr, inr), fig_fit(inr),
             fig_crop(inr, hint, *crops(reader, inr, hint)), *(fig_attention(looks, spec, l, 0) for l in range(spec.depth + 1))]
    for figure in drawn:
        assert figure.layout.meta["alt"] and figure.layout.paper_bgcolor == "rgba(0,0,0,0)" and figure.layout.hoverlabel.font.color == "black"
        json.loads(figure.to_json())
        go.Figure(figure.to_dict())  # plotly refuses what it does not know
    lines = sum(int(np.isnan(np.array(trace.x, dtype=float)).sum()) for trace in drawn[0].data if trace.mode == "lines")
    assert lines == sum(o * i for o, i in map(spec.shape, spec.matrices)), "a weight has no line"


def test_features_are_not_called_coordinates():
    assert layer_names(FOURIER) == ["features", "hidden layer 1", "hidden layer 2", "output"]
    assert layer_names(RELU)[0] == layer_names(SIREN)[0] == "coordinates"
    assert list(next(t for t in fig_network(inr_of(RELU)).data if t.mode == "markers+text").text) == ["row", "col"]
    assert list(next(t for t in fig_network(inr_of(FOURIER)).data if t.mode == "markers+text").text) == list(map(str, range(10)))


def test_neurons_move_and_their_lines_go_along():
    inr = inr_of(SIREN)
    perm = random_permutation(inr.spec, 1, generator=seeded())
    figure, still = fig_networks(inr, permute(inr, perm), perm), fig_networks(inr, inr, Permutation.identity(inr.spec, 1))
    before, after = ([t for t in figure.data if (t.xaxis or "x") == axis] for axis in ("x", "x2"))
    for home, gone in zip(before, after):
        assert home.text == gone.text and np.array_equal(home.customdata, gone.customdata), "a point is another neuron than before"
    (first,) = (t for t in after if t.mode == "markers+text" and t.customdata[0][0] == 1)
    assert [int(k) for k in np.array(first.text)[np.argsort(-np.array(first.y))]] == perm.indices[0][0].tolist()
    heights = {t.customdata[0][0]: np.array(t.y) for t in after if t.mode == "markers+text"}
    ends = {(a, b) for t in after if t.mode == "lines" for a, b in zip(t.y[:-1:3], t.y[1::3])}
    assert all(y in heights[0] or y in heights[1] or y in heights[2] for y, _ in ends)
    assert figure.layout.transition.duration == still.layout.transition.duration > 0 and figure.layout.yaxis2.range == still.layout.yaxis2.range


def test_no_figure_can_be_dragged_out_of_sight():
    for figure in (fig_network(inr_of(SIREN)), fig_weights({"one": inr_of(SIREN)}), fig_change(inr_of(SIREN), inr_of(SIREN)), fig_errors({"one": 1.0})):
        assert figure.layout.dragmode is False and figure.layout.xaxis.fixedrange and figure.layout.yaxis.fixedrange


def test_wide_layers_have_every_nth_number_and_narrow_tables_are_no_strips():
    inr = inr_of(INRSpec(widths=(2, 32, 32, 1), omega=8.0))
    nodes = [t for t in fig_network(inr).data if t.mode == "markers+text"]
    assert [text for text in nodes[1].text if text] == [str(k) for k in range(0, 32, 2)] and "neuron 31" in nodes[1].hovertext[31]
    assert list(nodes[0].text) == ["row", "col"] and abs(nodes[0].y[0] - nodes[0].y[1]) > 4, "row and col overlap"
    tables = fig_weights({"before": inr, "after": inr})
    low, high = sorted(tables.layout.yaxis3.range)
    assert high - low <= 8 and tables.layout.yaxis.title.text == "before" and "before" not in tables.layout.annotations[0].text


@pytest.mark.parametrize("widths", [(2, 12, 12, 1), (2, 64, 64, 64, 1), (2, 128, 128, 1)], ids=lambda widths: "-".join(map(str, widths)))
def test_rings_have_room_and_hide_no_number(widths):
    inr = inr_of(INRSpec(widths=widths, omega=8.0))
    still = Permutation.identity(inr.spec, 1)
    figure = fig_networks(inr, inr, still, moved=[(1, 0), (1, 11)])
    rings, nodes = (next(t for t in figure.data if wanted(t)) for wanted in (lambda t: t.marker.symbol == "circle-open", lambda t: t.customdata is not None and t.customdata[0][0] == 1))
    low, high = figure.layout.yaxis.range
    pixels = 185 / (high - low)  # of the 250 that the figure is high, less titles and names
    assert (high - rings.y[0]) * pixels > (rings.marker.size[0] + rings.marker.line.width) / 2, "a ring is cut"
    gap = 1 if len(nodes.x) <= figures.MANY else -(-len(nodes.x) // figures.MANY)
    assert (rings.marker.size[0] + rings.marker.line.width) / 2 < gap * pixels - 3, "a ring hides the next number"
    many = fig_networks(inr, inr, still, moved=[(1, k) for k in range(6)])
    assert not next(t for t in many.data if t.marker.symbol == "circle-open").x and "moved last" not in many.layout.meta["alt"]


@pytest.mark.parametrize("widths", [(2, 64, 64, 64, 1), (2, 128, 128, 1), (2, 64, 64, 64, 64, 64, 1)], ids=lambda widths: "-".join(map(str, widths)))
def test_the_names_of_a_narrow_layer_have_room(widths):
    inr = inr_of(INRSpec(widths=widths, omega=8.0))
    looks = [[torch.full((1, 1, widths[l], sum(widths[k] for k in (l - 1, l, l + 1) if 0 <= k < len(widths))), 0.1) for l in range(len(widths))]]
    for figure in (fig_weights({"the INR": inr}), fig_attention(looks, inr.spec, 1, 0)):
        left, right = figure.layout.xaxis.domain
        cells = np.array(figure.data[0].z).shape[1]
        assert 700 * (right - left) / cells > 14, "row and col overlap"


SKIP = (Param("W1", 1, 0, "b1"), Param("b1", 1), Param("V2", 2, 0, "p2"), Param("p2", 2), Param("W2", 2, 1), Param("g2", 2), Param("W3", 3, 2))


@pytest.fixture
def skipping(monkeypatch) -> INRSpec:
    "A kind whose second hidden layer hears the coordinates too and has two vectors, and whose output has none."
    def start(spec, n, generator):
        return tuple(torch.randn(n, *spec.shape(p), generator=generator) for p in spec.layout)

    monkeypatch.setitem(KINDS._known, "skip", Kind(layout=lambda spec: SKIP, start=start, evaluate=lambda inr, x: x, twins=lambda inr, generator: inr))
    return INRSpec(widths=(2, 4, 3, 1), kind="skip")


def test_structure_comes_from_the_layout(skipping):
    inr = init_inr(skipping, 1, generator=seeded()).to(torch.float64)
    network, tables = fig_network(inr), fig_weights({"one": inr})
    ends = [pair for trace in network.data if trace.mode == "lines" for pair in zip(trace.x[::3], trace.x[1::3])]
    assert sorted(ends) == sorted([(0, 1)] * 8 + [(0, 2)] * 6 + [(1, 2)] * 12 + [(2, 3)] * 3)
    tips = [trace.hovertext[0] for trace in network.data if trace.mode == "markers+text"]
    assert "p2" in tips[2] and "g2" in tips[2] and "b1" in tips[1] and "<br>" not in tips[3]
    titles = [note.text.strip() for note in tables.layout.annotations]
    assert titles == ["W<sup>1</sup>, b<sup>1</sup>", "V<sup>2</sup>, p<sup>2</sup>, g<sup>2</sup>", "W<sup>2</sup>, g<sup>2</sup>", "W<sup>3</sup>"]
    shown = np.array(tables.data[1].customdata)
    assert np.array_equal(shown[:, :2], inr.named["V2"][0]) and np.array_equal(shown[:, 3:].T, torch.cat([inr.named["p2"], inr.named["g2"]]))


def test_weights_are_drawn_at_the_place_they_moved_to():
    inr = inr_of(SIREN)
    perm = random_permutation(inr.spec, 1, generator=seeded())
    figure = fig_weights({"before": inr, "after": permute(inr, perm)}, {"after": perm})
    before, after = (np.array(figure.data[k].customdata)[:, :12] for k in (1, 4))
    rows, columns = perm.indices[1][0].numpy(), perm.indices[0][0].numpy()
    assert np.array_equal(after, before[rows][:, columns])
    assert list(figure.layout.yaxis5.ticktext) == [str(k) for k in rows]
    assert np.nanmax(np.abs(figure.data[1].z)) == 1


def test_the_error_map_and_psnr_are_of_the_pixels():
    inr = inr_of(SIREN)
    image = torch.zeros(8, 8, 1, dtype=torch.float64)
    figure = fig_fit(inr, image, side=20)
    shown = inr(grid(8, 8).double())[0].abs().reshape(8, 8)
    assert np.allclose(figure.data[2].z, shown.numpy(), atol=1e-6)
    wanted = 10 * np.log10(4 / shown.square().mean().item())
    assert f"PSNR {wanted:.1f} dB" in figure.layout.annotations[2].text
    wide = fig_fit(inr, torch.zeros(8, 16, 1), side=20)
    assert "20 × 40" in wide.layout.annotations[1].text


def test_difference_maps_do_not_make_rounding_visible():
    inr = inr_of(SIREN)
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


def test_bars_of_classes_say_who_read_what():
    said = {"A reader": dict(before=torch.tensor([0.2, 0.8]), after=torch.tensor([0.7, 0.3]))}
    figure = fig_classes(said, ("cat", "dog"), label=1)
    assert [trace.name for trace in figure.data] == ["before", "after"] and list(figure.layout.xaxis.ticktext) == ["cat", "<b>dog</b> ✓"]
    assert "A reader says dog before; A reader says cat after" in figure.layout.meta["alt"]
    curve = fig_accuracy([(0, 0.9, 0.8), (3, 0.9, 0.1)], classes=2, last=3, reader="A reader")
    assert curve.data[0].name == "A reader" and "After 3 transpositions: A reader 0.900" in curve.layout.meta["alt"]
    assert not fig_accuracy([], classes=2, last=3).data[0].x


def test_attention_is_drawn_layer_by_layer():
    inr = inr_of(SIREN)
    looks = attention(reader_of(SIREN), inr)
    figure = fig_attention(looks, inr.spec, 3, 0)
    assert [trace.z.shape for trace in figure.data] == [(8, 12), (8, 1)]
    assert np.allclose(figure.data[0].z[:4], looks[0][3][0, :, 0, :12])


def test_figures_need_a_browser_and_say_so(tmp_path, monkeypatch):
    pytest.importorskip("kaleido", reason="needs kaleido, a dev extra")
    monkeypatch.setattr(figures, "examples", lambda: dict(fig_errors=fig_errors({"one stage": 1e-3})))
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "none"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match="set BROWSER_PATH"):
        write_figures(tmp_path / "figures")
    assert not list((tmp_path / "figures").glob("*.png"))
