"What each of the small readers computes, entry by entry, and their sizes."

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from inrformer.files import save_tensors
from inrformer.inr import INRSpec, Statistics, init_inr
from inrformer.reader import READERS, load_reader, save_reader, seed_parameters
from inrformer.readers.dws import SharedAxes, enter, leave, places
from inrformer.readers.flat import fit_flat
from inrformer.splits import Split

CLASSES = tuple(map(str, range(10)))
COUNTS = dict(deepsets=168_598, probe=3_850, pixels=650, flat=11_860)
AT_PUBLISHED_SIZES = dict(dws=1_110_026, nfn_np=47_716_650, nfn_hnp=113_499_946, ng_gnn=115_882, ng_transformer=397_066, scalegmn=371_466)  # on 2-32-32-3, without what is aside
ASIDE = ("rewrite", "decoder")  # what a classifier does without
SPEC = INRSpec(widths=(2, 5, 4, 3), omega=10.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def reader_of(name, spec=SPEC, **choices):
    torch.manual_seed(0)
    return READERS[name](spec, READERS[name].Config(**choices)).classify(CLASSES).double().eval()


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_of_the_fields_inrs(name):
    assert sum(p.numel() for p in reader_of(name, INRSpec(widths=(2, 32, 32, 1))).parameters()) == COUNTS[name]


@pytest.mark.parametrize("name", AT_PUBLISHED_SIZES)
def test_parameter_counts_at_published_sizes(name):
    spec, kind = INRSpec(widths=(2, 32, 32, 3)), READERS[name]
    statistics = Statistics.of_start(spec)
    with torch.device("meta"):
        reader = kind(spec, kind.Config(**kind.presets["published"]), statistics).classify(CLASSES)
    assert sum(p.numel() for key, p in reader.named_parameters() if key.split(".")[0] not in ASIDE) == AT_PUBLISHED_SIZES[name]


def test_the_encoder_of_inr2array_is_as_large_as_its_authors():
    spec, kind = INRSpec(widths=(2, 32, 32, 3)), READERS["inr2array"]
    statistics = Statistics.of_start(spec)
    with torch.device("meta"):
        reader = kind(spec, kind.Config(**kind.presets["published"]), statistics)
    assert sum(p.numel() for key, p in reader.named_parameters() if key.startswith(("body", "latents"))) == 21_201_152


@pytest.mark.parametrize("name", ["dws", "nfn_np", "nfn_hnp", "nft", "ng_gnn", "ng_transformer", "scalegmn", "mlp", "flat_transformer", "inr2vec", "inr2array"])
def test_default_readers_have_a_tenth_of_a_million_parameters(name):
    reader = reader_of(name, INRSpec(widths=(2, 16, 16, 1)))
    assert 80_000 < sum(p.numel() for key, p in reader.named_parameters() if key.split(".")[0] not in ASIDE) < 110_000


def test_deepsets_are_means_over_pairs():
    reader, inr = reader_of("deepsets", pair_dim=6), init_inr(SPEC, 2, generator=seeded()).to(torch.float64)
    w1, b1, w2, b2, w3, b3 = reader.standard(inr)
    for k, found in enumerate(reader.features(inr)):
        outs = []
        for o in range(4):
            pairs = [torch.cat([w2[k, o, i, None], b2[k, o, None], w3[k, :, o], w1[k, i], b1[k, i, None]]) for i in range(5)]
            outs.append(reader.neurons["W2"](sum(map(reader.pairs["W2"], pairs)) / 5))
        assert (found - reader.whole(torch.cat([sum(outs) / 4, b3[k]]))).abs().max() < 1e-12


def test_deepsets_of_one_hidden_layer_are_means_over_neurons():
    spec = INRSpec(widths=(2, 5, 1))
    reader, inr = reader_of("deepsets", spec, pair_dim=6), init_inr(spec, 2, generator=seeded()).to(torch.float64)
    w1, b1, w2, b2 = reader.standard(inr)
    signatures = torch.cat([w1, b1[:, :, None], w2.mT], dim=2)
    assert len(reader.pairs) == 0
    assert (reader.features(inr) - reader.whole(torch.cat([reader.neurons["layer1"](signatures).mean(dim=1), b2], dim=1))).abs().max() < 1e-12


def test_what_has_no_hidden_axis_enters_as_it_is():
    spec = INRSpec(widths=(2, 5, 4, 3), kind="tanh")
    reader, inr = reader_of("deepsets", spec, pair_dim=6), init_inr(spec, 2, generator=seeded()).to(torch.float64)
    b3, skip = (t for p, t in zip(spec.layout, reader.standard(inr)) if p.name in ("b3", "skip"))
    gathered = []
    reader.whole.register_forward_pre_hook(lambda _, given: gathered.append(given[0]))
    assert reader.features(inr).shape == (2, reader.width) and torch.equal(gathered[0][:, 18:], torch.cat([b3, skip.flatten(1)], dim=1))


def test_probes_are_affine_maps_of_a_grid():
    reader, inr = reader_of("probe", probes=5, query=9), init_inr(SPEC, 2, generator=seeded()).to(torch.float64)
    points = reader.probes(reader.query)
    for k in range(5):
        assert (points[k] - (reader.query @ reader.probes.matrix[k].T + reader.probes.shift[k])).abs().max() < 1e-12
    assert points.abs().max() <= 1
    values = torch.stack([inr(p) for p in points], dim=1)
    seen = torch.cat([values.mean(dim=2), values.amax(dim=2)], dim=2).flatten(1)
    assert (reader.features(inr) - F.layer_norm(seen, seen.shape[1:])).abs().max() < 1e-12


@pytest.mark.parametrize("mlp", [0, 7])
def test_pixels_are_values_on_a_grid(mlp):
    reader, inr = reader_of("pixels", query=16, mlp=mlp), init_inr(SPEC, 2, generator=seeded()).to(torch.float64)
    assert torch.equal(reader.features(inr), reader.mlp(inr(reader.query).flatten(1))) and reader.width == (mlp or 48)


@pytest.mark.parametrize("name", ["probe", "pixels"])
def test_queries_that_are_no_grid_are_refused(name):
    with pytest.raises(ValueError, match="query=15 is no grid in 2 dimensions; the nearest are 9 and 16"):
        reader_of(name, query=15)


def split_of(labels: list[int]) -> Split:
    inr, index = init_inr(SPEC, len(labels), generator=seeded()), torch.arange(len(labels))
    return Split(inr=inr, labels=torch.tensor(labels), ids=index, psnr=torch.full((len(labels),), 30.0), init_seeds=index)


@pytest.mark.parametrize("labels", [[0, 1, 2], [0, 2]], ids=["three classes", "two of three"])
def test_a_fitted_flat_reader_is_scikit_learns(labels, tmp_path):
    split = split_of(labels * 10)
    plain = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)).fit(split.inr.flat().numpy(), split.labels.numpy())
    reader, other = fit_flat(split, ("a", "b", "c")), init_inr(SPEC, 50, generator=seeded(1))
    wanted = torch.tensor(plain.predict_proba(other.flat().numpy()))
    assert not reader.training and reader.classes == ("a", "b", "c") and {p.dtype for p in reader.parameters()} == {torch.float32}
    assert (reader(other).double().softmax(dim=1)[:, labels] - wanted).abs().max() < 1e-5
    assert (reader.double()(other.to(torch.float64)).softmax(dim=1)[:, labels] - wanted).abs().max() < 1e-5
    absent = [k for k in range(3) if k not in labels]
    assert (reader(other.to(torch.float64))[:, absent] == -1e9).all()
    save_reader(reader, tmp_path / "flat.safetensors")
    assert torch.equal(load_reader(tmp_path / "flat.safetensors")(other.to(torch.float64)), reader(other.to(torch.float64)))


def test_one_class_leaves_nothing_to_tell_apart():
    with pytest.raises(ValueError, match="at least 2 classes"):
        fit_flat(split_of([1] * 5), ("a", "b"))


@pytest.mark.parametrize("config, said", [
    (dict(depth=10**9), "its config says depth 1000000000, and it holds"), (dict(dim=5000, heads=1), "its config asks for .* of shape"), (dict(depth=3), "its config asks for"),
    (dict(dim="x"), "(?s:.)*dim"), (5, "must be a mapping"),
])
def test_a_file_is_no_larger_a_reader_than_it_has_numbers(tmp_path, config, said):
    path, reader = tmp_path / "a.safetensors", READERS["inrformer"](SPEC, READERS["inrformer"].Config(dim=8, edge_dim=8, heads=1, depth=1)).classify(CLASSES)
    save_reader(reader, path)
    with safe_open(path, framework="pt") as file:
        about, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    save_tensors(path, tensors, about | dict(config=json.dumps(json.loads(about["config"]) | config if isinstance(config, dict) else config)))
    with pytest.raises(ValueError, match=f"a.safetensors holds no reader that this version knows: .*{said}"):
        load_reader(path)


def test_a_grid_of_any_size_is_refused(tmp_path):
    save_reader(READERS["pixels"](SPEC).classify(CLASSES), tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        about, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    save_tensors(tmp_path / "a.safetensors", tensors, about | dict(config=json.dumps(dict(query=10**12))))
    with pytest.raises(ValueError, match="its config says query 1000000000000"):
        load_reader(tmp_path / "a.safetensors")


EDITORS = {
    "dws": dict(dim=8, depth=2, heads=0, reduction="mean"), "nfn_np": dict(dim=8, depth=2, frequencies=4), "nfn_hnp": dict(dim=8, depth=2, frequencies=4), "nft": dict(dim=8, depth=2),
    "ng_gnn": dict(dim=8, edge_dim=8, depth=3, frequencies=4), "ng_transformer": dict(dim=8, edge_dim=8, inner=8, heads=2, depth=3, frequencies=4), "scalegmn": dict(dim=8, depth=3), "inrformer": dict(dim=16, edge_dim=16, depth=1, heads=2, hint=4, query=4, features=2),
}
TINY = INRSpec(widths=(2, 4, 3, 1), omega=10.0)


def scaled(standard: list[torch.Tensor]) -> list[torch.Tensor]:
    "Each tensor times a number of its own, and another number added."
    times, plus = torch.randn(2, len(TINY.layout), generator=seeded(1)).unbind()
    return [a * t + c for a, c, t in zip(times, plus, standard)]


def turned(standard: list[torch.Tensor]) -> list[torch.Tensor]:
    "Each tensor times a number of its own, which is all of that that turns with signs."
    times, _ = torch.randn(2, len(TINY.layout), generator=seeded(1)).unbind()
    return [a * t for a, t in zip(times, standard)]


def mixed(standard: list[torch.Tensor]) -> list[torch.Tensor]:
    "Each tensor, and one linear map that respects the order of hidden neurons, drawn at random."
    where = places(TINY)
    layer = seed_parameters(SharedAxes(where, 1, 1), 3).requires_grad_(False)
    made = leave(TINY, where, layer(enter(TINY, where, [t[..., None] for t in standard])))
    return [t + m[..., 0] for t, m in zip(standard, made)]


def in_units(reader, inr) -> list[torch.Tensor]:
    return [(t - mean) / scale for t, mean, scale in zip(inr.tensors, reader.mean, reader.scale)]


def missed(reader, inr, wanted) -> torch.Tensor:
    "The mean over tensors of the squared error of what the reader makes of INRs, in units of each tensor."
    pairs = zip(in_units(reader, reader.edit(inr)), wanted(in_units(reader, inr)))
    return torch.stack([(found - w).square().mean() for found, w in pairs]).mean()


def beyond_scaling(reader, inr, wanted) -> torch.Tensor:
    "The same of the best that scaling and moving each tensor could make."
    standard = in_units(reader, inr)
    fits = [(torch.stack([x.flatten(), torch.ones(x.numel())], dim=1), w.reshape(-1, 1)) for x, w in zip(standard, wanted(standard))]
    return torch.stack([(x @ torch.linalg.lstsq(x, w).solution - w).square().mean() for x, w in fits]).mean()


def editor(name: str):
    return seed_parameters(READERS[name](TINY, READERS[name].Config(**EDITORS[name])), 0).train()


def trained(reader, wanted, steps: int, lr: float):
    "The same reader, taught to make of INRs what is wanted."
    optimizer = torch.optim.Adam([p for p in reader.parameters() if p.requires_grad], lr=lr)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
        optimizer.zero_grad()
        missed(reader, init_inr(TINY, 32, generator=seeded(1000 + step)), wanted).backward()
        optimizer.step()
    return reader.requires_grad_(False)


def by_layers_alone(reader):
    "The same reader without the numbers by which each tensor is kept and moved: all has to come from its layers."
    for name, value in dict(keep=0.0, move=0.0).items():
        if hasattr(reader.rewrite, name):
            getattr(reader.rewrite, name).data.fill_(value)
            getattr(reader.rewrite, name).requires_grad_(False)
    return reader


def with_biases_from_the_first_node_on(reader):
    "What the released graph network does: the changes of biases are read from the list of nodes, whose first are the coordinates."
    def edit(inr):
        nodes, edges = reader.embed(reader.standard(inr))
        for layer in reader.layers:
            nodes = layer(nodes, edges)
            edges = layer.update_edges(nodes, edges)
        changes = reader.rewrite.change
        weights = iter(changes.of_edges(e)[..., 0] for e in edges)
        biases = changes.of_nodes(torch.cat(nodes, dim=1))[..., 0].split(TINY.widths[1:] + TINY.widths[:1], dim=1)
        return reader.rewrite(reader, inr, [next(weights) if p.inn is not None else biases[p.out - 1] for p in TINY.layout])

    reader.edit = edit
    return reader


@pytest.mark.parametrize("name", [name for name in EDITORS if name != "inrformer"])
def test_editors_begin_near_the_identity(name):
    "All but INRFormer, whose read-outs start as target INRs need them."
    reader, inr = reader_of(name, TINY, **EDITORS[name]), init_inr(TINY, 50, generator=seeded()).to(torch.float64)
    with torch.no_grad():
        assert 0 < missed(reader, inr, lambda standard: standard) < 0.05


@pytest.mark.parametrize("name", [name if name not in ("nft", "ng_transformer") else pytest.param(name, marks=pytest.mark.grid) for name in EDITORS])
def test_the_layers_of_editors_learn_to_scale_and_to_move_each_tensor(name):
    wanted = turned if name == "scalegmn" else scaled
    reader, test = trained(by_layers_alone(editor(name)), wanted, steps=200, lr=2e-2), init_inr(TINY, 200, generator=seeded(99))
    assert missed(reader, test, wanted) < 0.04


def test_the_released_graph_network_does_not_learn_to():
    "Each bias gets the change of another neuron."
    reader = trained(with_biases_from_the_first_node_on(by_layers_alone(editor("ng_gnn"))), scaled, steps=200, lr=2e-2)
    assert missed(reader, init_inr(TINY, 200, generator=seeded(99)), scaled) > 0.1


@pytest.mark.parametrize(("name", "steps"), [
    ("dws", 60), ("nfn_np", 150), ("nfn_hnp", 120), *(pytest.param(name, 120, marks=pytest.mark.grid) for name in ("nft", "ng_gnn", "ng_transformer")), pytest.param("inrformer", 150, marks=pytest.mark.grid),
])
def test_editors_learn_a_random_layer_of_linear_maps(name, steps):
    "ScaleGMN cannot: its changes turn with the signs of neurons, and those of such a layer do not."
    reader, test = trained(editor(name), mixed, steps=steps, lr=2e-2), init_inr(TINY, 200, generator=seeded(99))
    assert missed(reader, test, mixed) < 0.5 * beyond_scaling(reader, test, mixed)


def test_an_aligned_mlp_orders_neurons_as_in_the_mean_of_what_trains_it(tmp_path):
    spec, seeded = INRSpec(widths=(2, 6, 5, 1)), torch.Generator().manual_seed(0)
    inr = init_inr(spec, 60, generator=seeded)
    reader = READERS["mlp"](spec, READERS["mlp"].Config(reorder="align"), Statistics.of(inr)).classify(["a", "b"]).eval()
    before = reader.reference.clone()

    def apart():
        return (reader.prepare(inr).flat() - reader.reference).square().sum().item()

    first = apart()
    reader.meet(inr)
    assert apart() < 0.7 * first and not torch.equal(reader.reference, before)
    save_reader(reader, tmp_path / "mlp.safetensors")
    again = load_reader(tmp_path / "mlp.safetensors")
    assert torch.equal(again.reference, reader.reference) and torch.equal(again(inr), reader(inr))
    plain = READERS["mlp"](spec, None, Statistics.of(inr))
    plain.meet(inr)
    assert "reference" not in plain.state_dict()
