"What every kind, reader and objective must hold to, on every shape. Nothing here knows which exist: the registries say, and `tests/toys` adds to them."

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import go_together
from inrformer.fitting import fit, init_from_seeds
from inrformer.graph import GraphBuilder
from inrformer.inr import INR, KINDS, INRSpec, Statistics, canonicalize, grid, init_inr, load_inr, pixel_grid, save_inr, stream, twin
from inrformer.moves import transform
from inrformer.objective import OBJECTIVES
from inrformer.reader import READERS, Reader, load_reader, save_reader, seed_parameters
from inrformer.splits import Split
from inrformer.symmetry import align, equivariance_error, invariance_error, permute, permute_ends, permute_untied, random_derangement, random_permutation, relative_error
from inrformer.training import Train, Workers, train

SMALL = [(2, 4, 1), (2, 5, 3, 1), (3, 4, 6, 3), (1, 3, 4, 5, 3, 2)]
GRID = [(n, *hidden, c) for n, c in product((1, 2, 3), (1, 3)) for hidden in ((5,), (6, 4), (4, 7, 3), (3, 5, 4, 6), (4, 3, 4, 3, 5))]
CLASSES = ("zero", "one", "two")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def others(value: Any) -> list[Any]:
    "Another value of an option, where its type suggests one."
    return {bool: lambda v: [not v], int: lambda v: [v + 1], float: lambda v: [2 * v]}.get(type(value), lambda v: [])(value)


def variants(kind: str) -> Iterator[dict[str, Any]]:
    "The options of a kind: its defaults, and each of them changed alone."
    yield {}
    yield from ({name: other} for name, value in KINDS[kind].options.items() for other in others(value))


def spec_of(kind: str, options: dict[str, Any], widths: tuple[int, ...], **choices: Any) -> INRSpec:
    "A spec of a kind whose layer 0 holds what it makes of so many coordinates."
    inputs, chosen = KINDS[kind].inputs, dict(KINDS[kind].options) | options
    first = widths[0] if inputs is None else inputs(chosen, torch.zeros(1, widths[0])).shape[-1]
    return INRSpec(widths=(first, *widths[1:]), omega=10.0, kind=kind, options=tuple(options.items()), **choices)


def changed(spec: INRSpec) -> list[str]:
    "The options that are not those of its kind."
    return [f"{name}={value}" for name, value in spec.options if value != KINDS[spec.kind].options[name]]


def label(spec: INRSpec) -> str:
    return "-".join([spec.kind, *changed(spec), "x".join(map(str, spec.widths))])


def cases() -> Iterator[Any]:
    "Few and small specs, and the full grid of shapes for `make test-all`."
    for kind in KINDS:
        for options in variants(kind):
            small = [spec_of(kind, options, widths) for widths in (SMALL[2:3] if options else SMALL)]
            yield from (pytest.param(spec, id=label(spec)) for spec in small)
            rest = [spec for widths in GRID if (spec := spec_of(kind, options, widths)) not in small]
            yield from (pytest.param(spec, id=label(spec), marks=pytest.mark.grid) for spec in rest)


each_spec = pytest.mark.parametrize("spec", list(cases()))
each_kind = pytest.mark.parametrize("kind", list(KINDS))
each_reader = pytest.mark.parametrize("name", list(READERS))


def pairs() -> Iterator[Any]:
    "Every reader on every spec; of the small ones, `make test` takes all shapes of the usual kind, and one of every other, with its usual options."
    for name, case in product(READERS, cases()):
        spec, = case.values
        late = case.marks or spec.kind != INRSpec.kind and (spec.widths[1:] != SMALL[2][1:] or changed(spec))
        yield pytest.param(name, spec, id=f"{case.id}-{name}", marks=pytest.mark.grid if late else ())


each_pair = pytest.mark.parametrize("name, spec", list(pairs()))


def few_pairs() -> Iterator[Any]:
    "The same, for files and faults, which hardly depend on the spec: `make test` takes one of the usual kind."
    for case in pairs():
        late = case.values[1] != spec_of(INRSpec.kind, {}, SMALL[2])
        yield pytest.param(*case.values, id=case.id, marks=pytest.mark.grid if late else ())


each_of_few_pairs = pytest.mark.parametrize("name, spec", list(few_pairs()))


FEW = ("inrformer", "dws", "mlp")  # readers that `make test` puts through every objective; all of them go through the usual one


def tasks() -> Iterator[Any]:
    "Objectives and readers."
    for objective, name in product(OBJECTIVES, READERS):
        yield pytest.param(objective, name, marks=pytest.mark.grid if objective != "classify" and name not in FEW else ())


each_task = pytest.mark.parametrize("objective, name", list(tasks()))
PERCEPTRON = INRSpec(widths=(64, 4, 10), kind="perceptron")
ASKED: dict[str, dict[str, Any]] = dict(  # what an objective is tried with, where that is not what all are: classes, choices, the networks it is about, and of readers what these need
    adapt=dict(spec=PERCEPTRON, choices=dict(domain_train=100, domain_test=30, domain_batch=8), readers=dict(inrformer=dict(query=1, hint=1), mlp=dict(edits=True))),
    edit=dict(readers=dict(mlp=dict(edits=True))),
    regress=dict(classes=("0/2", "1/2", "2/2")),
)


def task_and_reader(objective: str, name: str, spec: INRSpec) -> tuple[Any, Reader]:
    "An objective, and a reader as it attaches it; a test of one that is about other networks is skipped."
    asked, kind = ASKED.get(objective, {}), OBJECTIVES[objective]
    spec = asked.get("spec", spec)
    task = kind(kind.Config(**asked.get("choices", {})), classes=asked.get("classes", CLASSES))
    return task, seed_parameters(go_together(task.attach, reader_of(name, spec, **asked.get("readers", {}).get(name, {}))), 0)


def drawn(spec: INRSpec, n: int = 3, seed: int = 0) -> INR:
    "Starts in float64."
    return init_inr(spec, n, generator=seeded(seed)).to(torch.float64)


def points_of(spec: INRSpec, count: int = 40) -> Tensor:
    return torch.rand(count, spec.coordinates, generator=seeded(5), dtype=torch.float64) * 2 - 1


def small(name: str, value: Any, spec: INRSpec) -> Any:
    return 3**spec.coordinates if name in ("hint", "query") else 8 if type(value) is int and value > 8 else value


def reader_of(name: str, spec: INRSpec, *, classes: tuple[str, ...] = CLASSES, seed: int = 0, **choices: Any) -> Reader:
    "A small reader: whole numbers of its config above 8 are 8, but for `hint` and `query`, which are points of a grid."
    config = READERS[name].Config(**{f.name: small(f.name, f.default, spec) for f in fields(READERS[name].Config)} | choices)
    return seed_parameters(READERS[name](spec, config).classify(classes), seed)


EDITING: dict[str, dict[str, Any]] = dict(mlp=dict(edits=True, reorder="align"))  # what readers must be told that give INRs only where asked for


def changes(spec: INRSpec, b: int) -> Iterator[Callable[[INR], INR]]:
    "What looks like a symmetry and is none."
    yield lambda inr: permute_untied(inr, random_derangement(spec, b, generator=seeded(1)))
    if spec.widths[0] > 1:
        yield lambda inr: permute_ends(inr, inputs=[*range(1, spec.widths[0]), 0])
    if spec.widths[-1] > 1:
        yield lambda inr: permute_ends(inr, outputs=[*range(1, spec.widths[-1]), 0])


# kinds


@each_spec
def test_the_layout_names_every_tensor(spec):
    names, inr = [p.name for p in spec.layout], init_inr(spec, 2, generator=seeded())
    assert len(set(names)) == len(names) and inr.dtype == torch.float32
    assert [t.shape[1:] for t in inr.tensors] == [spec.shape(p) for p in spec.layout]
    assert sum(t[0].numel() for t in inr.tensors) == spec.n_params
    by_name = {p.name: p for p in spec.layout}
    for p in spec.layout:
        assert 0 <= p.out <= spec.depth and (p.inn is None or 0 <= p.inn <= spec.depth)
        assert p.shift is None or by_name[p.shift].inn is None and by_name[p.shift].out == p.out
    assert INRSpec.from_json(spec.to_json()) == spec


@each_spec
def test_starts_come_from_their_generator(spec):
    inr, shared = init_inr(spec, 2, generator=seeded()), init_inr(spec, 2, shared=True, generator=seeded())
    assert torch.equal(inr.flat(), init_inr(spec, 2, generator=seeded()).flat())
    assert not torch.equal(inr[:1].flat(), inr[1:].flat()) and torch.equal(shared[:1].flat(), shared[1:].flat())


@each_spec
def test_the_function_is_that_of_the_orbit(spec):
    inr, points = drawn(spec), points_of(spec)
    values = inr(points)
    assert values.shape == (3, 40, spec.widths[-1])
    assert invariance_error(lambda x: x(points), inr, generator=seeded(1)) < 1e-12
    for seed in range(3):
        other = twin(inr, generator=seeded(seed))
        assert other is inr or not torch.equal(other.flat(), inr.flat())
        assert relative_error(other(points), values) < 1e-10
    assert all(relative_error(change(inr)(points), values) > 1e-6 for change in changes(spec, 3))


@each_spec
def test_an_inr_is_alone(spec):
    inr, points = drawn(spec), points_of(spec)
    assert relative_error(inr[1:2](points), inr(points)[1:2]) < 1e-12
    assert relative_error(inr(points.expand(3, -1, -1)), inr(points)) < 1e-12


@each_spec
def test_inrs_survive_rows_and_files(spec, tmp_path):
    for inr in (drawn(spec), drawn(spec).to(torch.float32)):
        assert torch.equal(INR.from_flat(inr.flat(), spec).flat(), inr.flat())
        save_inr(inr, tmp_path / "inrs.safetensors")
        again = load_inr(tmp_path / "inrs.safetensors")
        assert again.spec == spec and again.dtype == inr.dtype
        assert all(torch.equal(a, b) for a, b in zip(again.tensors, inr.tensors))


@each_spec
@pytest.mark.parametrize("bias_init", ["uniform", "zero"])
def test_statistics_are_in_proportion_and_see_no_order(spec, bias_init):
    spec = replace(spec, bias_init=bias_init)
    inr, start = init_inr(spec, 50, generator=seeded()), Statistics.of_start(spec)
    moved = permute(inr, random_permutation(spec, 50, generator=seeded(1)))
    for before, after in zip(vars(Statistics.of(inr)).values(), vars(Statistics.of(moved)).values()):
        assert torch.allclose(before, after, rtol=1e-5, atol=1e-7)
    scales = dict(zip((p.name for p in spec.layout), start.scale.tolist()))
    for vector in spec.vectors:
        rule = math.sqrt(sum(spec.widths[p.inn] * scales[p.name] ** 2 for p in spec.matrices if p.shift == vector.name))
        assert not rule or scales[vector.name] < 10 * rule, f"{vector.name} of {spec} has the unit {scales[vector.name]}, its fan-in {rule}"


@each_spec
def test_moves_are_exact_or_refused(spec):
    inr, n = drawn(spec), spec.coordinates
    matrix, shift = (torch.randn(3, *s, generator=seeded(2), dtype=torch.float64) for s in ((n, n), (n,)))
    if n != spec.widths[0]:
        with pytest.raises(ValueError, match=f"in this {spec.kind} of options .* it holds {spec.widths[0]} features of {n} coordinates"):
            transform(inr, torch.eye(spec.widths[0], dtype=torch.float64).expand(3, -1, -1), torch.zeros(3, spec.widths[0], dtype=torch.float64))
    else:
        points = points_of(spec).expand(3, -1, -1)
        assert relative_error(transform(inr, matrix, shift)(points), inr(points @ matrix.mT + shift[:, None])) < 1e-10


@each_spec
def test_alignment_finds_any_order_again(spec):
    inr = drawn(spec)
    moved = permute(inr, random_permutation(spec, 3, generator=seeded(1)))
    assert torch.equal(permute(moved, align(moved, inr)).flat(), inr.flat())
    one = permute(moved, align(moved, inr[:1]))
    assert torch.equal(one[:1].flat(), inr[:1].flat()) and invariance_error(lambda x: permute(x, align(x, inr[:1])).flat(), inr, trials=2, generator=seeded(2)) == 0


@each_spec
def test_graphs_are_equivariant(spec):
    build = GraphBuilder(spec, dim=8, edge_dim=4, hint=2**spec.coordinates).double()
    assert equivariance_error(build, drawn(spec), generator=seeded(1)) < 1e-10


@each_kind
def test_fits_come_closer(kind):
    for options in variants(kind):
        spec = spec_of(kind, options, (2, 6, 5, 3))
        rows, cols = (grid(8)[:, 0][(None,) * k + (slice(None),) + (None,) * (1 - k)] for k in range(2))
        images = torch.stack([0.5 + 0.4 * (rows * cols), 0.5 + 0.3 * rows + 0 * cols, 0.5 - 0.3 * cols + 0 * rows], dim=-1).expand(2, -1, -1, -1)
        result = fit(images, spec, steps=60, lr=5e-3, init="independent", device="cpu")
        before, after = ((inr(pixel_grid(8, 8)) - (2 * images - 1).flatten(1, 2)).square().mean() for inr in (init_from_seeds(spec, result.init_seeds), result.inr))
        assert after < 0.7 * before


# canonical forms


def tied(spec: INRSpec) -> INR:
    "Vectors of zeros, and in every row of a matrix weights that cancel: .4, -.4, .4, ..."
    signs = [0.4 * (1 - 2.0 * (torch.arange(n) % 2)) for n in spec.widths]
    tensors = (torch.zeros(1, *spec.shape(p)) if p.inn is None else signs[p.inn].expand(1, *spec.shape(p)) for p in spec.layout)
    return INR(tuple(t.double() for t in tensors), spec)


@each_spec
@pytest.mark.parametrize("bias_init", ["uniform", "zero"])
def test_one_canonical_form_per_orbit(spec, bias_init):
    inr, points = drawn(replace(spec, bias_init=bias_init), 5), points_of(spec)
    if KINDS[spec.kind].canonical is None:
        with pytest.raises(ValueError, match=f"the kind {spec.kind} has no canonical form"):
            canonicalize(inr)
        return
    form = canonicalize(inr)
    assert (form(points) - inr(points)).abs().max() < 1e-12
    assert (canonicalize(form).flat() - form.flat()).abs().max() < 1e-12
    for seed in range(3):
        assert (canonicalize(twin(inr, generator=seeded(seed))).flat() - form.flat()).abs().max() < 1e-9
    assert equivariance_error(canonicalize, inr, generator=seeded(1)) < 1e-12


@pytest.mark.parametrize("spec", [case for case in cases() if KINDS[case.values[0].kind].canonical])
def test_canonical_forms_of_ties_know_no_order(spec):
    inr, points = tied(spec), points_of(spec)
    form = canonicalize(inr)
    assert (form(points) - inr(points)).abs().max() < 1e-12
    assert (canonicalize(form).flat() - form.flat()).abs().max() < 1e-12
    assert equivariance_error(canonicalize, inr, trials=8, generator=seeded(1)) < 1e-12


# readers


def sees(name: str, spec: INRSpec, inr: INR, change: Callable[[INR], INR]) -> bool:
    "Does a change reach the logits? A maximum over many rows may hide one row from all eight features of one small reader, not from those of every one."
    readers = (reader_of(name, spec, seed=seed).double().eval() for seed in range(4))
    return any(relative_error(reader(change(inr)), reader(inr)) > 1e-6 for reader in readers)


@each_pair
def test_readers_see_the_function_and_not_the_order(name, spec):
    reader, inr = reader_of(name, spec).double().eval(), drawn(spec)
    logits = reader(inr)
    assert logits.shape == (3, len(CLASSES)) and reader.features(inr).shape == (3, reader.width)
    error = invariance_error(reader, inr, trials=2, generator=seeded(1))
    assert error < 1e-10 if reader.invariant else error > 1e-6
    assert all(sees(name, spec, inr, change) for change in changes(spec, 3))
    assert relative_error(reader(inr[1:2]), logits[1:2]) < 1e-10
    stages = reader.stages(inr)
    assert torch.equal(stages["logits"], logits) and torch.equal(stages["features"], reader.features(inr))


def hold_edits(reader: Reader, inr: INR) -> None:
    "What a reader changes of INRs, without what it leaves of them, goes along with every permutation of hidden neurons, and with nothing that only looks like one."
    def changed(x: INR) -> INR:
        return INR(tuple(after - before for after, before in zip(reader.edit(x).tensors, x.tensors)), x.spec)

    assert equivariance_error(changed, inr, trials=2, generator=seeded(1)) < 1e-10
    assert all(relative_error(changed(change(inr)), change(changed(inr))) > 1e-6 for change in changes(inr.spec, len(inr)))


OTHERWISE = [("scalegmn", dict(bidirectional=True)), ("ng_transformer", dict(probes=4)), ("dws", dict(heads=0)), ("mlp", dict(reorder="align"))]  # choices of rows that make another reader of one


def usual_specs() -> Iterator[Any]:
    "The specs of the usual kind, with its usual options."
    yield from (case for case in cases() if case.values[0].kind == INRSpec.kind and not changed(case.values[0]))


@pytest.mark.parametrize("spec", list(usual_specs()))
@pytest.mark.parametrize("name, choices", OTHERWISE, ids=[name for name, _ in OTHERWISE])
def test_readers_keep_the_symmetry_when_they_are_made_otherwise(name, choices, spec):
    reader, inr = reader_of(name, spec, **EDITING.get(name, {}) | choices).double().eval(), drawn(spec)
    assert invariance_error(reader, inr, trials=2, generator=seeded(1)) < 1e-10
    hold_edits(reader, inr)


@each_pair
def test_edits_are_equivariant_and_hints_are_heard(name, spec):
    reader, inr = reader_of(name, spec, **EDITING.get(name, {})).double().eval(), drawn(spec)
    points = grid(*[3] * spec.coordinates).double().expand(3, -1, -1) / 2
    if hasattr(reader, "edit"):
        hold_edits(reader, inr)
    if hasattr(reader, "crop"):
        shown = reader.crop(inr, points)
        assert shown.shape == (3, points.shape[1], spec.widths[-1])
        assert invariance_error(lambda x: reader.crop(x, points), inr, trials=2, generator=seeded(1)) < 1e-10
        assert relative_error(reader(inr, points), reader(inr)) > 1e-6
        both = reader.features_and_crop(inr, points)
        assert torch.equal(both[0], reader.features(inr, points)) and torch.equal(both[1], shown)
    else:
        with pytest.raises(ValueError, match="cannot be hinted"):
            reader(inr, points)


@each_of_few_pairs
def test_readers_survive_files(name, spec, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    for dtype in (torch.float32, torch.float64):
        reader, inr = reader_of(name, spec).to(dtype).eval(), drawn(spec).to(dtype)
        save_reader(reader, tmp_path / "elsewhere" / "reader.safetensors")
        monkeypatch.chdir(tmp_path / "elsewhere")
        again = load_reader("reader.safetensors")
        assert (type(again), again.spec, again.config, again.classes, again.training) == (type(reader), spec, reader.config, CLASSES, False)
        assert torch.equal(again(inr), reader(inr))


@each_of_few_pairs
def test_broken_readers_are_noticed(name, spec):
    inr, perm = drawn(spec), random_derangement(spec, 3, generator=seeded(1))
    for title, broken in READERS[name].broken.items():
        reader = reader_of(name, spec).double().eval()
        if broken.spoil:
            broken.spoil(reader)
        moved = (broken.act or permute)(inr, perm)
        assert relative_error(reader(moved), reader(inr)) > 1e-6, title


@each_kind
@each_reader
def test_readers_refuse_what_they_cannot_read(name, kind):
    spec = spec_of(kind, {}, SMALL[1])
    reader, inr = reader_of(name, spec), init_inr(spec, 3, generator=seeded())
    wider, other = spec_of(kind, {}, (2, 5, 4, 1)), next(k for k in KINDS if k != kind)
    for unlike in (wider, spec_of(other, {}, SMALL[1])):
        with pytest.raises(ValueError, match=f"this reader reads INRs of .*{kind}.*, not .*{unlike.kind}"):
            reader(init_inr(unlike, 3))
    with pytest.raises(ValueError, match="cast one of them"):
        reader(inr.to(torch.float64))
    inr.tensors[-1][1].fill_(math.nan)
    reader.train()(inr)
    with pytest.raises(ValueError, match=f"{spec.layout[-1].name} holds NaN or infinity in INR 1"):
        reader.eval()(inr)
    with pytest.raises(ValueError, match=r"no classes to choose from: reader.classify\(classes\)"):
        READERS[name](spec, reader.config)(inr)


@each_reader
def test_configs_refuse_by_name(name):
    config = READERS[name].Config
    for field in fields(config):
        if field.type is int:
            with pytest.raises(ValueError, match=field.name):
                config(**{field.name: -1})


@each_kind
@each_reader
def test_readers_bear_bfloat16(name, kind):
    reader, inr = reader_of(name, spec_of(kind, {}, SMALL[1])).eval(), init_inr(spec_of(kind, {}, SMALL[1]), 3, generator=seeded())
    with torch.autocast("cpu", torch.bfloat16):
        rough = reader(inr).float()
    assert (rough - reader(inr)).abs().max() < 0.03


@each_kind
def test_an_inr_is_evaluated_in_its_own_precision(kind):
    "Whatever is computed around it: in bfloat16 a picture would have steps."
    spec = spec_of(kind, {}, SMALL[1])
    inr, points = init_inr(spec, 3, generator=seeded()), points_of(spec).float()
    with torch.autocast("cpu", torch.bfloat16):
        shown = inr(points)
    assert shown.dtype == torch.float32 and torch.equal(shown, inr(points))


@each_kind
@each_reader
def test_canonical_readers_know_no_twins(name, kind):
    spec = spec_of(kind, {}, SMALL[1])
    if KINDS[kind].canonical is None:
        with pytest.raises(ValueError, match=f"the kind {kind} has no canonical form"):
            reader_of(name, spec, canonical=True)
        return
    inr, reader = drawn(spec), reader_of(name, spec, canonical=True).double().eval()
    assert relative_error(reader(twin(inr, generator=seeded(1))), reader(inr)) < 1e-8
    plain = reader_of(name, spec).double().eval()
    if plain.reads in ("vectors", "weights"):
        assert relative_error(plain(twin(inr, generator=seeded(1))), plain(inr)) > 1e-6


@each_kind
@each_reader
def test_parameters_belong_to_their_names(name, kind):
    spec = spec_of(kind, {}, SMALL[1])
    before = torch.get_rng_state()
    reader = reader_of(name, spec)
    torch.manual_seed(7)
    same, longer, other = reader_of(name, spec), reader_of(name, spec, classes=(*CLASSES, "three")), reader_of(name, spec, seed=1)
    for key, t in reader.named_parameters():
        assert torch.equal(t, same.get_parameter(key))
        assert key.startswith("head.") or torch.equal(t, longer.get_parameter(key)), key
    assert any(not torch.equal(t, other.get_parameter(key)) for key, t in reader.named_parameters())
    torch.set_rng_state(before)
    seed_parameters(reader, 0)
    assert torch.equal(before, torch.get_rng_state())


# objectives


class Whole:
    "Applies a reader to a split at once."

    def map(self, reader: Reader, split: Split, fn: Callable[[Reader, Split], Tensor]) -> Tensor:
        with torch.no_grad():
            return fn(reader.eval(), split)


def split_of(spec: INRSpec, n: int = 8) -> Split:
    index = torch.arange(n)
    return Split(inr=init_inr(spec, n, generator=seeded()), labels=index % len(CLASSES), ids=index, psnr=torch.full((n,), 30.0), init_seeds=index)


@each_kind
@each_task
def test_a_step_changes_the_reader(objective, name, kind):
    "In float64: so small a step is lost in the rounding of float32 where features of untrained readers hardly differ."
    if kind != ASKED.get(objective, {}).get("spec", INRSpec(kind=kind)).kind:
        pytest.skip(f"{objective} is of other networks")
    objective, reader = task_and_reader(objective, name, spec_of(kind, {}, SMALL[1]))
    reader, split = reader.double().train(), split_of(reader.spec)
    split = replace(split, inr=split.inr.to(torch.float64))
    objective.meet(split)
    before = {key: t.clone() for key, t in reader.state_dict().items()}
    optimizer = torch.optim.SGD(reader.parameters(), lr=1e-4)
    losses = objective.loss(reader, split, objective.draw(reader, split, stream(0, "draw", 0, 0)))
    assert losses and all(t.shape == () and t.isfinite() for t in losses.values())
    sum(losses.values()).div(len(split)).backward()
    assert all(p.grad.isfinite().all() for p in reader.parameters() if p.grad is not None)
    optimizer.step()
    changed = {key for key, t in reader.state_dict().items() if not torch.equal(t, before[key])}
    assert changed and changed <= {key for key, _ in reader.named_parameters()}
    after = objective.loss(reader, split, objective.draw(reader, split, stream(0, "draw", 0, 0)))
    assert sum(after.values()) < sum(losses.values())


@each_task
def test_a_training_that_was_stopped_goes_on_as_if_it_was_not(objective, name, tmp_path):
    cfg, workers = Train(epochs=2, batch_size=4, weight_noise=0.1), Workers("cpu", "fp32")
    states, readers = [], []
    for folder, stops in ((tmp_path / "whole", [False]), (tmp_path / "parts", [True, False])):
        folder.mkdir()
        for stop in stops:
            task, reader = task_and_reader(objective, name, spec_of(list(KINDS)[-1], {}, SMALL[1]))
            split = split_of(reader.spec)
            state = train(reader, task, split, cfg, folder=folder, workers=workers, validate=split, stop=lambda: stop)
        states.append([{key: value for key, value in entry.items() if "seconds" not in key} for entry in state["history"]])
        readers.append(reader.state_dict())
    assert states[0] == states[1] and len(states[0]) == 2
    assert all(torch.equal(t, readers[1][key]) for key, t in readers[0].items())
    json.loads(json.dumps(states[0], allow_nan=False))


@each_task
def test_measures_are_numbers_and_answers_are_json(objective, name):
    objective, reader = task_and_reader(objective, name, INRSpec(widths=SMALL[1], omega=10.0))
    split, reader = split_of(reader.spec), reader.eval()
    objective.meet(split)
    assert all(math.isfinite(v) for v in objective.measure(reader, split, Whole()).values())
    answers = objective.answers(objective.outputs(reader, split).detach())
    assert len(json.loads(json.dumps(answers))) == len(split)
