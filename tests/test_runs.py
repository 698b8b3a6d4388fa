"Runs: killed and resumed, refused in words, read from one file, honest about the test split, and shipped."

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types
import warnings
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
import torch
from conftest import ROOT, alone_at_runs, go_together, parameterized
from IPython.core.interactiveshell import InteractiveShell
from test_battery import tasks
from test_images import pictures, put, write_table

import inrformer.runs
from inrformer.__main__ import main
from inrformer.config import config_from, run_id
from inrformer.data import INRDataset, store_dataset
from inrformer.demo import BESIDE_DEMO, PARTS, load_demo, pack_demo
from inrformer.files import lock, write_json
from inrformer.images import load_images
from inrformer.inr import INRSpec, Statistics
from inrformer.objective import OBJECTIVES
from inrformer.reader import READERS, load_reader, seed_parameters
from inrformer.rendered import rendered, swapped
from inrformer.records import is_stale, record_of, records
from inrformer.runs import LEARNED, Run, _dumped, closure, dataset_for, disguise, find_run, last_run, objective_for, open_run, parts_of, reader_for, run, source_digest
from inrformer.experiments import ZOOS
from inrformer.sweeps import sweep
from inrformer.symmetry import permute, random_permutation
from inrformer.training import Workers, batches
from inrformer.transfer import at_widths
from inrformer.zoo import build_zoo

SMALL = dict(n_train=96, n_test=48, fit_steps=30, hidden="6-6", dim=16, edge_dim=8, depth=1, heads=2, hint=16, query=16, features=4, epochs=12, device="cpu")
SHORT = SMALL | dict(epochs=1)
BASE = dict(n_train=96, n_test=48, fit_steps=30, hidden="6-6", epochs=2, device="cpu")
NOTEBOOK = ROOT / "nbs" / "train.ipynb"


def weights(this):
    return list(this.model.state_dict().values())


def test_a_killed_run_gives_the_same_bits(cache):
    whole = run(SMALL, out=cache / "whole")
    code = f"from inrformer.runs import run; run({SMALL!r}, out={str(cache / 'cut')!r})"
    folder = cache / "cut" / whole.folder.parent.name / whole.folder.name
    for epoch in (2, 6):
        process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while max((int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*")), default=0) < epoch:
            assert process.poll() is None and time.monotonic() < deadline, "the run ended before it could be killed"
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (folder / "summary.json").exists()
    resumed = run(SMALL, out=cache / "cut")
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))
    assert whole.history == resumed.history and whole.summary["test_accuracy"] == resumed.summary["test_accuracy"]


WSD = BASE | dict(reader="deepsets", pair_dim=8, schedule="wsd")


def test_a_longer_run_goes_on_from_the_trunk_of_a_shorter_one(cache, monkeypatch):
    "To the same bits, and only the epochs that are new are trained; a trunk of other source is none of its."
    alone = run(WSD | dict(epochs=6), out=cache / "alone")
    short = run(WSD | dict(epochs=3), out=cache / "both")
    epochs = []
    monkeypatch.setattr("inrformer.training.batches", lambda *a: epochs.append(a[4]) or batches(*a))
    long = run(WSD | dict(epochs=6), out=cache / "both")
    assert epochs == [2, 3, 4, 5], "the shorter branched off after two"
    assert all(map(torch.equal, weights(alone), weights(long))) and alone.history == long.history
    assert short.record_parts["trunk"]["id"] == long.record_parts["trunk"]["id"] == alone.record_parts["trunk"]["id"]
    assert [this.record_parts["trunk"]["epoch"] for this in (short, long)] == [2, 4]
    epochs.clear()
    longest = run(WSD | dict(epochs=9), experiment="longer", out=cache / "both")
    assert epochs[0] == 4 and longest.record_parts["trunk"]["id"] == long.record_parts["trunk"]["id"], "the trunk of another experiment is as good"
    assert "test_accuracy" in long.summary and not (long.folder.with_name(long.record_parts["trunk"]["id"]) / "summary.json").exists()
    monkeypatch.setattr("inrformer.runs.source_digest", lambda *names: "other")
    epochs.clear()
    other = run(WSD | dict(epochs=12), out=cache / "both")
    assert epochs[0] == 0 and other.record_parts["trunk"]["id"] != long.record_parts["trunk"]["id"]


def test_a_damaged_trunk_is_named(cache):
    short = run(WSD | dict(epochs=3), out=cache)
    path = short.folder.with_name(short.record_parts["trunk"]["id"]) / "checkpoint-00002-00000" / "model.safetensors"
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="trunk-[0-9a-f]{12}/checkpoint-00002-00000 is damaged .*remove it"):
        run(WSD | dict(epochs=6), out=cache)
    shutil.copytree(path.parents[1], intact := cache / "another" / path.parents[1].name)
    damaged[-1] ^= 1
    (intact / path.parent.name / path.name).write_bytes(damaged)
    with pytest.warns(UserWarning, match="is damaged .*goes on from another"):
        assert run(WSD | dict(epochs=6), out=cache).summary


def test_two_processes_share_the_work_of_one(cache):
    script = cache / "both.py"
    rows = SMALL | dict(epochs=2), SMALL | dict(n_train=12, n_test=6, val_parts=2, batch_size=1, epochs=1, aux=False)  # of the second one process has no share, and parameters have no gradient
    script.write_text(f"from inrformer.runs import run\nfor row in {rows!r}:\n    run(row, out={str(cache / 'two')!r})\n")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    subprocess.run(command, cwd=cache, env=os.environ | dict(PYTHONPATH=str(ROOT)), stdin=subprocess.DEVNULL, check=True, timeout=120)
    for row in rows:
        one, two = (run(row, out=cache / name) for name in ("one", "two"))
        assert json.loads((two.folder / "env.json").read_text())["processes"] == 2
        assert max((a - b).abs().max() for a, b in zip(weights(one), weights(two), strict=True)) < 1e-4
        for a, b in zip(one.history, two.history, strict=True):
            assert all(a[name] == pytest.approx(b[name], rel=1e-4) for name in ("cross_entropy", "crop_error") if row.get("aux", True) or name == "cross_entropy")


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler")
def test_a_compiled_step_finds_the_same_up_to_rounding(cache):
    config = BASE | dict(reader="mlp", epochs=2)
    code = f"""if True:
        import torch
        from inrformer.runs import run
        real, made, steps = torch.compile, [], []
        def compiling(fn, **options):
            made.append(real(fn, **options))
            return lambda *args: steps.append(1) or made[-1](*args)
        torch.compile = compiling
        run({config!r}, out={str(cache / 'compiled')!r}, compiled=True)
        assert len(made) == 1 and len(steps) > 1"""  # alone: the checks of signatures cannot be compiled
    subprocess.run([sys.executable, "-c", code], cwd=cache, env=os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1"), stdin=subprocess.DEVNULL, check=True, timeout=400)
    plain, compiled = (run(config, out=cache / name) for name in ("plain", "compiled"))
    one, two = (this.record_parts for this in (plain, compiled))
    assert one["env"].get("compiled") is None and two["env"]["compiled"] and two["source"] == one["source"] and compiled.folder.name == plain.folder.name
    assert max((a - b).abs().max() for a, b in zip(weights(plain), weights(compiled), strict=True)) < 1e-4


def test_a_run_that_was_compiled_in_part_says_so(cache):
    this = run(SMALL | dict(epochs=3), out=cache, stop=lambda: True)
    write_json(this.folder / "env.json", json.loads((this.folder / "env.json").read_text()) | dict(compiled=True))
    assert run(SMALL | dict(epochs=3), out=cache).record_parts["env"]["compiled"]


def test_without_a_compiler_nothing_is_begun(cache, monkeypatch):
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    for call in (lambda: run(SMALL, out=cache / "runs", compiled=True), lambda: sweep([SMALL], "example", out=cache / "runs", folder=cache / "records", compiled=True)):
        with pytest.raises(RuntimeError, match=r"needs a C\+\+ compiler such as g\+\+: install one, or leave it out"):
            call()
    assert not (cache / "runs").exists() and not (cache / "records").exists()


@pytest.mark.parametrize("objective, name", [case for case in tasks() if case.values[0] not in ZOOS])  # whose classifiers tests/test_zoo.py has
def test_every_reader_runs_and_is_opened_from_its_one_file(objective, name, cache):
    this = run(go_together(config_from, BASE | dict(reader=name, objective=objective)), out=cache)
    validated = {name: value for name, value in this.history[-1].items() if name.startswith("val_")}
    assert validated and all(this.summary[name] == value and (name == "val_crop_r2" or name.replace("val", "test", 1) in this.summary) for name, value in validated.items())
    assert this.record_parts["reads"] == this.model.reads
    shutil.rmtree(cache / "cache")
    shutil.copy(this.folder / "model.safetensors", cache / "alone.safetensors")
    test = open_run(this.folder).record_parts["answers"]["test"]
    opened = load_reader(cache / "alone.safetensors")
    assert not (cache / "cache").exists(), "opening a reader fits nothing"
    inr = this.dataset.split("test").inr
    assert len(test["ids"]) == len(test["labels"]) == len(test["answers"]) == 48
    if objective == "classify":
        assert opened.classes == tuple(map(str, range(10))) and opened(inr).argmax(dim=1).tolist() == test["answers"]
        moved = this.summary["test_permuted_cross_entropy"] - this.summary["test_cross_entropy"]
        assert (abs(moved) < 1e-4) == opened.invariant
    assert opened.features(inr).shape == (48, opened.width)


@pytest.mark.parametrize("kind", [dict(kind="relu", options="fourier=2"), dict(kind="mfn", options="input_scale=10.0")])
def test_inrs_of_another_kind_are_fitted_and_read_with_no_word_to_the_reader(kind, cache):
    this = run(SHORT | kind | dict(n_train=40, n_test=16, fit_steps=300), out=cache)
    spec = this.dataset.spec
    assert spec.kind == kind["kind"] and spec.coordinates == 2 and this.summary["invariance_error"] < 1e-10 and this.summary["psnr"] > 12


@pytest.mark.parametrize("choices", [dict(reader="deepsets", pair_dim=4, canonical=True), dict(reader="mlp", reorder="align")])
def test_an_untrained_reader_knows_what_trains_it_alone_and_is_drawn_from_the_seed(choices, cache):
    cfg = config_from(BASE | choices | dict(seed=3))
    dataset = dataset_for(cfg)
    (training, _), task, kind = parts_of(cfg, dataset), objective_for(cfg, dataset.card["classes"]), READERS[cfg.reader]
    made, plain = reader_for(cfg, task, training), kind(dataset.spec, cfg.architecture)
    wanted = Statistics.of(plain.prepare(training.inr))
    assert all(torch.equal(getattr(made, name), t) for name, t in vars(wanted).items())
    assert not torch.equal(made.mean, Statistics.of(plain.prepare(dataset.split("train").inr)).mean), "validation INRs have a part in it"
    again = seed_parameters(task.attach(kind(dataset.spec, cfg.architecture, wanted)), 3)
    assert all(torch.equal(p, again.get_parameter(key)) for key, p in made.named_parameters())
    assert not hasattr(made, "reference") or not torch.equal(made.reference, plain.reference)


def test_what_ships_is_what_was_packed(cache):
    this, *controls = (run(BASE | dict(reader=name, epochs=1), out=cache) for name in ("mlp", *BESIDE_DEMO))
    pack_demo(this, controls, cache / "demo")
    demo, test = load_demo(cache / "demo"), this.dataset.split("test")
    assert torch.equal(demo.model(demo.test.inr), this.model(test.inr)) and torch.equal(demo.test.ids, test.ids) and demo.test.sizes == test.sizes == (8, 8)
    assert demo.record["run_id"] == this.folder.name and demo.rivals[0]["row"]
    for path in (cache / "demo" / name for name in PARTS):
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(ValueError, match=f"{path.name} is not what was packed with the record"):
            load_demo(cache / "demo")
        path.write_bytes(whole)


def test_the_test_split_has_no_say(cache, monkeypatch):
    "Its labels scrambled and its INRs changed, they change no history and no weight."
    plain = run(SHORT | dict(epochs=3), out=cache / "plain")
    split = INRDataset.split

    def scrambled(self, name):
        found = split(self, name)
        return replace(found, labels=found.labels.roll(1), inr=found.inr.map(lambda t: 1.5 * t)) if name.startswith("test") else found

    monkeypatch.setattr(INRDataset, "split", scrambled)
    other = run(SHORT | dict(epochs=3), out=cache / "scrambled")
    assert plain.history == other.history and all(torch.equal(a, b) for a, b in zip(weights(plain), weights(other)))
    assert plain.summary["val_accuracy"] == other.summary["val_accuracy"] and plain.record_parts["answers"]["test"] != other.record_parts["answers"]["test"]
    assert not [name for entry in plain.history for name in entry if "test" in name]


def test_validation_is_held_out_by_id_and_a_final_run_trains_on_it(cache):
    cfg = config_from(SHORT | dict(init="independent", copies=2))
    this = run(cfg, out=cache)
    training, validation = parts_of(cfg, this.dataset)
    assert not set(training.ids.tolist()) & set(validation.ids.tolist())
    assert sorted(set(validation.ids.tolist())) == sorted(set(this.dataset.split("train").ids.tolist()))[-20:], "the last fifth of 96 images"
    assert len(validation) == 2 * len(set(validation.ids.tolist())) and len(training) + len(validation) == 192
    assert this.record_parts["answers"]["val"]["ids"] == validation.ids.tolist()
    final = run(replace(cfg, inputs=replace(cfg.inputs, final=True)), out=cache)
    assert final.summary["val_accuracy"] is None and [entry["val_accuracy"] for entry in final.history] == [None] and final.folder != this.folder
    assert set(final.record_parts["answers"]) == {"test"} and final.dataset.digest == this.dataset.digest, "the INRs are the same"


def test_where_tests_have_other_starts_validation_has_them_too(cache):
    this = run(SHORT, out=cache)
    assert set(this.record_parts["answers"]) == {"val", "val-other", "test", "test-other"}
    assert {"val_accuracy", "val_other_accuracy", "test_accuracy", "test_other_accuracy", "fit_seconds", "train_seconds", "psnr", "parameters", "protocol"} <= this.summary.keys()
    assert sorted(this.record_parts["answers"]["val-other"]["ids"]) == sorted(this.record_parts["answers"]["val"]["ids"])
    assert this.summary["invariance_error"] < 1e-10
    with pytest.raises(ValueError, match="independent"):
        run(SMALL | dict(init="independent", test_init="other"), out=cache)


def test_any_folder_of_inrs_is_a_runs_data(cache):
    first = run(SHORT, out=cache)
    folder = cache / "mine"
    shutil.copytree(first.dataset.folder, folder)
    network = {k: v for k, v in SHORT.items() if k not in ("n_train", "n_test", "fit_steps", "hidden")} | dict(val_parts=5)
    this = run(network | dict(data=str(folder)), out=cache)
    assert this.summary["protocol"] == "custom" and this.summary["psnr"] == first.summary["psnr"] and this.config.fit is None
    shutil.move(folder, cache / "elsewhere")
    assert run_id(config_from(network | dict(data=str(cache / "elsewhere")))) == this.folder.name, "known by its INRs, not by its place"
    with pytest.raises(ValueError, match="omega would decide which INRs are fitted"):
        config_from(network | dict(data=str(cache / "elsewhere"), omega=8.0))
    with pytest.raises(FileNotFoundError, match="say where they are"):
        open_run(this.folder).dataset


def test_the_source_of_a_run_on_a_folder_is_that_of_the_kind_in_it(cache):
    first = run(BASE | dict(kind="relu", reader="deepsets", epochs=1), out=cache)
    this = run(dict(data=str(first.dataset.folder), val_parts=5, epochs=1, reader="deepsets"), out=cache)
    about = this.record_parts
    assert about["inrs"]["kind"] == "relu" and about["source"] == source_digest("deepsets", "classify", "relu") != source_digest("deepsets", "classify", "siren")
    assert not is_stale(record_of(this)), "from the record alone, wherever its INRs are"


@pytest.mark.filterwarnings("ignore:the crop head has not learned")
def test_a_run_says_what_of_its_targets_is_rendered_and_what_blocks_did_not_do(cache):
    this = run(SHORT, out=cache / "alone")
    alone = this.summary
    assert "rendered_depth0" not in alone and 0 < alone["swap_embedded"] + alone["swap_blocks"]
    bare = run(SHORT | dict(depth=0), out=cache).summary
    assert not bare.keys() & {"rendered_depth0", "swap_embedded", "swap_blocks"}, "it has no blocks"
    training, validation = parts_of(this.config, this.dataset)
    known = rendered(this.model, training.inr[: len(training) // 2], validation[: len(training) // 2].inr)
    assert alone["rendered_input"] == pytest.approx(known["rendered_input"], abs=1e-3), "scored on INRs that the map was not fitted on"
    assert "rendered_depth0" not in run(SHORT | dict(depth=0), experiment="again", out=cache).summary, "nor is it compared with itself, recorded elsewhere"
    beside = run(SHORT, experiment="elsewhere", out=cache).summary
    assert beside["test_permuted_accuracy"] == beside["test_accuracy"]
    assert beside["rendered_input"] == alone["rendered_input"] and beside["rendered_depth0"] < 1
    (early := cache / "early" / "0123456789ab").mkdir(parents=True)
    write_json(early / "config.json", dict(architecture=dict(depth=0)))
    assert run(SHORT | dict(aux=False, seed=1), out=cache).summary["rendered_depth0"] < 1, "the one without blocks there is, of another seed and task; what an early version left is none"
    for row in (dict(head="pool"), dict(head="start")):
        assert not [name for name in run(SHORT | row, out=cache).summary if name.startswith(("rendered", "swap"))]
    final = run(SHORT | dict(final=True), out=cache).summary
    assert final["val_accuracy"] is None and "rendered_input" in final


def test_an_answer_is_that_of_the_embedded_weights_where_blocks_add_nothing(monkeypatch):
    demo = load_demo()
    for block in demo.model.blocks:
        monkeypatch.setattr(block, "forward", lambda graph, weights: graph)
    embedded, changed = demo.test.inr[:100], demo.test.inr[100:200]
    with torch.no_grad():
        alone, other = (demo.model(inr).argmax(dim=1) for inr in (embedded, changed))
    assert torch.equal(swapped(demo.model, embedded, changed), alone) and not torch.equal(alone, other)


def test_a_run_says_when_its_crop_head_has_not_learned(cache):
    with pytest.warns(UserWarning, match="the crop head has not learned: what it shows explains [0-9]+% of the variance of the crops"):
        this = run(SHORT, out=cache)
    assert this.summary["val_crop_r2"] < LEARNED and this.history[-1]["val_crop_r2"] == this.summary["val_crop_r2"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "val_crop_r2" not in run(SHORT | dict(aux=False), out=cache).summary


def test_memory_that_does_not_suffice_is_explained_and_loses_nothing(cache, monkeypatch):
    def full(*arguments):
        raise torch.cuda.OutOfMemoryError("out of memory")

    monkeypatch.setattr(Workers, "gradients", full)
    with pytest.raises(MemoryError, match="batches of 64 INRs: use a smaller batch_size"):
        run(SMALL, out=cache)
    monkeypatch.undo()
    monkeypatch.setenv("INRFORMER_CACHE", str(cache / "cache"))
    assert run(SHORT, out=cache).summary


def test_a_checkpoint_of_another_run_is_refused(cache):
    first = run(SMALL, out=cache, stop=lambda: True)
    other = first.folder.with_name(run_id(config_from(SMALL | dict(lr=0.5))))
    first.folder.rename(other)
    with pytest.raises(ValueError, match=r"belongs to another run \(config: .*'lr': 0.002.* there, .*'lr': 0.5.* here\)"):
        run(SMALL | dict(lr=0.5), out=cache)


def test_a_run_begun_with_other_source_is_not_resumed(cache, monkeypatch):
    run(SMALL, out=cache, stop=lambda: True)
    monkeypatch.setattr(inrformer.runs, "source_digest", lambda *_: "000000000000")
    with pytest.raises(ValueError, match=r"belongs to another run \(source: '\w+' there, '000000000000' here\)"):
        run(SMALL, out=cache)
    assert run(SMALL, out=cache, again=True).record_parts["source"] == "000000000000", "what was refused has written nothing, and is made anew when that is asked for"


def test_a_trunk_takes_no_checkpoint_of_other_source(cache, monkeypatch):
    run(WSD | dict(epochs=3), out=cache, stop=lambda: True)
    (at,) = cache.glob("*/*/checkpoint-*")
    at.rename(at.with_name("checkpoint-00002-00000"))  # where a run of three epochs branches off
    monkeypatch.setattr(inrformer.runs, "source_digest", lambda *_: "000000000000")
    before = {path.name for path in cache.glob("*/*")}
    with pytest.raises(ValueError, match="belongs to another run"):
        run(WSD | dict(epochs=3), out=cache)
    assert {path.name for path in cache.glob("*/*")} == before


def test_a_finished_run_of_other_source_is_shown_with_a_warning_and_run_again_when_told(cache, monkeypatch):
    first = run(SHORT, out=cache)
    monkeypatch.setattr(inrformer.runs, "source_digest", lambda *_: "000000000000")
    with pytest.warns(UserWarning, match=f"the run {first.folder.name} was made by other source"):
        assert run(SHORT, out=cache).record_parts["source"] == first.record_parts["source"]
    assert run(SHORT, out=cache, again=True).record_parts["source"] == "000000000000"


def test_a_run_made_anew_goes_on_where_it_was_stopped(cache, monkeypatch):
    first = run(SMALL, out=cache)
    monkeypatch.setattr(inrformer.runs, "source_digest", lambda *_: "000000000000")
    for epoch in (1, 2):
        assert run(SMALL, out=cache, again=True, stop=lambda: True).summary is None
        assert [path.name for path in first.folder.glob("checkpoint-*")] == [f"checkpoint-{epoch:05d}-00000"]
    assert run(SMALL, out=cache, again=True).history == first.history


def test_a_finished_run_is_kept_until_it_has_been_made_again(cache):
    first = run(SMALL, out=cache)
    numbers = json.loads((first.folder / "summary.json").read_text())
    before = first.folder.with_name(f".{first.folder.name}.before")
    assert run(SMALL, out=cache, again=True, stop=lambda: True).summary is None
    assert json.loads((before / "summary.json").read_text()) == numbers
    with pytest.raises(FileNotFoundError, match="no finished run yet"):
        last_run(cache)
    assert run(SMALL, out=cache).summary["test_accuracy"] == numbers["test_accuracy"] and not before.exists()


def test_parts_of_which_none_can_validate_are_refused_before_the_fit(cache, monkeypatch):
    monkeypatch.setattr(inrformer.runs, "fit_dataset", None)
    for changes, said in ((dict(val_parts=97), "96 images cannot be cut into 97 parts"), (dict(val_part=5), "val_part must be one of")):
        with pytest.raises(ValueError, match=said):
            run(SMALL | dict(test_init="same") | changes, out=cache)


def test_what_is_refused_takes_no_finished_run_with_it(cache):
    first = run(SHORT, out=cache)
    second = run(SHORT | dict(epochs=2, start_from=first.folder.name), out=cache)
    shutil.rmtree(first.folder)
    with pytest.raises(FileNotFoundError, match="no finished run"):
        run(SHORT | dict(epochs=2, start_from=first.folder.name), out=cache, again=True)
    assert second.summary is not None


def test_a_run_starts_from_one_of_its_own_images_and_of_no_others_of_their_name(cache):
    for place, seed in (("mine", 0), ("others", 1)):
        for i, image in enumerate(pictures(20, 8, 8, seed=seed)):
            put(cache / place / "pets", f"{('cat', 'dog')[i % 2]}/{i}.png", image)
    own = BASE | dict(reader="deepsets", n_train=16, n_test=4, val_parts=2, epochs=1)
    first = run(own | dict(dataset=str(cache / "mine" / "pets")), out=cache)
    assert run(own | dict(dataset=str(cache / "mine" / "pets"), epochs=2, start_from=first.folder.name), out=cache).summary
    with pytest.raises(ValueError, match="was trained on other INRs"):
        run(own | dict(dataset=str(cache / "others" / "pets"), epochs=3, start_from=first.folder.name), out=cache)


def test_a_run_that_goes_on_elsewhere_says_so(cache, monkeypatch):
    this = run(SMALL, out=cache, stop=lambda: True)
    known = inrformer.runs.environment
    monkeypatch.setattr(inrformer.runs, "environment", lambda workers: known(workers) | dict(precision="bf16", device="another"))
    with pytest.warns(UserWarning, match=f"the run {this.folder.name} goes on with another precision: fp32, then bf16"):
        run(SMALL, out=cache, stop=lambda: True)
    env = record_of(run(SMALL, out=cache))["env"]
    assert env["precision"] == "fp32, then bf16" and env["device"].endswith(", then another") and env["device"].count("then") == 1


def test_a_damaged_neighbour_stops_no_run_from_ending(cache):
    for name, text in (("0123456789ab", "[]"), ("0123456789ac", "{"), ("0123456789ad", "")):
        (cache / "beside" / name).mkdir(parents=True)
        (cache / "beside" / name / "config.json").write_text(text)
    with pytest.warns(UserWarning, match="a run beside this one is left out of what is compared: .*config.json"):
        assert run(SHORT, out=cache).summary["test_accuracy"] >= 0


@pytest.mark.parametrize("missing", ["train", "test"])
def test_inrs_of_which_none_train_or_none_test_are_refused_at_once(missing, cache):
    made = run(SHORT, out=cache).dataset
    parts = {name: made.split(name) for name in ("train", "test")}
    parts["val"] = parts.pop(missing)
    folder = store_dataset(cache / "mine", parts, images="mine", classes=tuple(made.card["classes"]), image_range=(-1.0, 1.0), origin="here").folder
    with pytest.raises(ValueError, match=f"needs INRs that train and INRs that test: {missing} are missing"):
        run(dict(data=str(folder), reader="flat", epochs=1, device="cpu"), out=cache / "runs")
    assert not (cache / "runs").exists()


def test_source_is_the_syntax_of_what_a_run_uses(tmp_path, monkeypatch):
    assert "inrformer.kinds.relu" in closure(("inrformer.kinds.perceptron",)) and "inrformer.kinds.mfn" in closure(("inrformer.kinds.gabor",))
    modules = closure((READERS["deepsets"].__module__, OBJECTIVES["classify"].__module__))
    assert {"inrformer.reader", "inrformer.inr", "inrformer.readers.deepsets"} <= modules
    assert not modules & {"inrformer.readers.inrformer", "inrformer.graph", "inrformer.data", "inrformer.records"}
    zoo = closure((OBJECTIVES["adapt"].__module__,))
    assert "inrformer.zoo" in zoo and not zoo & {f"inrformer.{name}" for name in ("files", "images", "data", "fitting")}, "what is given to a run is known by its bits"
    path = tmp_path / "tool.py"
    monkeypatch.syspath_prepend(tmp_path)
    digests = []
    for text in ('"A tool."\ndef f(x):\n    return x + 1\n', '"Another sentence."\ndef f(x):\n    "Adds."\n    # one\n    return x + 1\n', "def f(x):\n    return x + 2\n"):
        path.write_text(text)
        inrformer.runs._module.cache_clear()
        digests.append(inrformer.runs._module("tool")[1])
    assert digests[0] == digests[1] != digests[2]
    assert source_digest("inrformer", "classify", "siren") != source_digest("deepsets", "classify", "siren")
    assert source_digest("inrformer", "classify", "siren") != source_digest("inrformer", "classify", "relu")


def test_a_reader_that_is_defined_in_no_file_is_refused_before_it_is_trained(cache, monkeypatch):
    READERS["deepsets"]
    monkeypatch.setitem(READERS._known, "mine", type("Mine", (READERS["deepsets"],), dict(__module__="a notebook")))
    monkeypatch.setitem(sys.modules, "a notebook", types.ModuleType("a notebook"))
    with pytest.raises(ValueError, match="in a notebook is defined in no file, and no record could say by what source: put it into a module"):
        run(BASE | dict(reader="mine"), out=cache)


def test_a_run_stopped_between_epochs_is_resumed(cache):
    answers = iter([False, True])
    stopped = run(SMALL, out=cache / "cut", stop=lambda: next(answers))
    assert stopped.summary is None and len(stopped.history) == 2
    (stopped.folder / "metrics.jsonl").write_text("")
    resumed, whole = run(SMALL, out=cache / "cut"), run(SMALL, out=cache / "whole")
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))
    assert resumed.history == whole.history


def test_a_damaged_checkpoint_is_named(cache):
    stopped = run(SMALL, out=cache, stop=lambda: True)
    damaged = next(stopped.folder.glob("checkpoint-*")) / "optimizer.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(ValueError, match="checkpoint-00001-00000 is damaged"):
        run(SMALL, out=cache)


def test_a_run_stays_with_its_images_finished_or_not(cache):
    cfg = SMALL | dict(dataset=str(cache / "mine-{split}.parquet"), n_train=12, n_test=6, epochs=2, val_parts=3)

    def write(seed):
        for split, n in (("train", 12), ("test", 6)):
            write_table(cache / f"mine-{split}.parquet", images=pictures(n, 8, 8, seed=seed + n), labels=[i % 2 for i in range(n)])

    write(0)
    stopped = run(cfg, out=str(cache), stop=lambda: True)
    write(100)
    with pytest.raises(ValueError, match=r"checkpoint-00001-00000 belongs to another run \(.*images_digest: '\w+' there, '\w+' here"):
        run(cfg, out=cache)
    write(0)
    assert run(cfg, out=cache).summary["images_digest"] in (stopped.folder / "checkpoint-00002-00000" / "state.json").read_text()
    write(100)
    with pytest.raises(ValueError, match="is a run on other images named 'mine'"):
        run(cfg, out=cache)


def test_two_processes_do_not_work_on_one_run(cache):
    with lock(cache / "digits" / run_id(config_from(SHORT))):
        with pytest.raises(RuntimeError, match=f"another process is at the run .*{run_id(config_from(SHORT))}"):
            run(SHORT, out=cache)
    assert run(SHORT, out=cache).summary


def test_what_is_damaged_or_gone_of_a_finished_run_is_named(cache):
    done = run(SHORT, out=cache)
    (done.folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=f"no trained reader in .*{done.folder.name}"):
        done.model
    (done.folder / "metrics.jsonl").write_text('{"epoch":')
    with pytest.raises(ValueError, match="line 1 of .*metrics.jsonl is damaged"):
        done.history
    (done.folder / "summary.json").write_text('{"test_accuracy":')
    with pytest.raises(ValueError, match="summary.json is damaged"):
        run(SHORT, out=cache)
    (done.folder / "config.json").write_text('{"hint": 64}')
    with pytest.raises(ValueError, match="config.json is damaged, or another version's"):
        open_run(done.folder)


def test_two_precisions_run_in_one_process(cache):
    both = {precision: run(SHORT | dict(precision=precision), out=cache) for precision in ("bf16", "fp32")}
    assert all(this.record_parts["env"]["precision"] == precision for precision, this in both.items())
    assert any(not torch.equal(a, b) for a, b in zip(*map(weights, both.values()), strict=True))


def test_the_run_shown_last_is_the_last_run(cache):
    first, _ = (run(SHORT | dict(seed=s), out=cache) for s in (0, 1))
    run(SHORT | dict(seed=0), out=cache)
    assert last_run(str(cache)).folder == first.folder


def test_a_finished_run_is_skipped_and_another_seed_is_another_run_on_the_same_inrs(cache):
    first = run(SHORT, out=cache)
    written = (first.folder / "summary.json").stat().st_mtime_ns
    assert run(SHORT, out=cache).folder == first.folder
    assert (first.folder / "summary.json").stat().st_mtime_ns == written
    second = run(SHORT | dict(seed=1), out=cache)
    assert second.folder != first.folder and second.dataset.folder == first.dataset.folder
    assert run(SHORT | dict(fit_seed=1), out=cache).dataset.folder != first.dataset.folder


def test_a_perfect_fit_is_no_infinity_in_files(cache):
    for split, n in (("train", 12), ("test", 6)):
        write_table(cache / f"flat-{split}.parquet", images=pictures(n, 1, 1, seed=n), labels=[i % 2 for i in range(n)])
    this = run(SMALL | dict(dataset=str(cache / "flat-{split}.parquet"), n_train=12, n_test=6, epochs=1, fit_steps=600, val_parts=3), out=cache)
    assert this.summary["psnr"] is None
    for path in this.folder.glob("*.json*"):
        for text in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
            json.loads(text, parse_constant=lambda name: pytest.fail(f"{path}: {name}"))


def test_the_images_of_a_run_on_files_are_asked_for(cache):
    cfg = config_from(SMALL)
    with pytest.raises(FileNotFoundError, match=r"were files named 'cifar10-jpeg75': say where they are, as in Run\(run.folder, replace\(run.config, inputs="):
        Run(cache, replace(cfg, inputs=replace(cfg.inputs, dataset="cifar10-jpeg75"))).dataset


@pytest.mark.parametrize("form", ["pictures", "tables", "INRs"])
def test_a_run_on_files_is_opened_from_another_working_folder(form, cache, monkeypatch):
    here, elsewhere = cache / "here", cache / "elsewhere"
    for folder in (here, elsewhere):
        folder.mkdir()
    for k, (split, n) in enumerate((("train", 12), ("test", 6))):
        for i, image in enumerate(both := pictures(n, 8, 9, seed=k)):
            put(here, f"my/{split}/{'ab'[i % 2]}/{i}.png", image)
        write_table(here / f"my-{split}.parquet", images=both, labels=[i % 2 for i in range(n)])
    monkeypatch.chdir(here)
    own = dict(pictures=dict(dataset="my", size=6), tables=dict(dataset="my-{split}.parquet", size=6), INRs=dict(data="my.inrs"))[form]
    small = dict(reader="deepsets", epochs=1, val_parts=3, device="cpu")
    if form == "INRs":
        main(["fit", "my", "my.inrs", "--spec", "2-4-4-1", "--steps", "3", "--size", "6"])
    else:
        small |= dict(n_train=12, n_test=6, hidden="4-4", fit_steps=3)
    done = run(small | own, out=cache / "runs")
    (field, place), = json.loads((done.folder / ".place.json").read_text()).items()
    assert place == str(here / own[field]) and str(here) not in json.dumps(record_of(done)) and not [path for path in done.folder.glob("[!.]*.json*") if str(here) in path.read_text()]
    monkeypatch.chdir(elsewhere)
    assert open_run(done.folder).dataset.digest == done.dataset.digest and getattr(open_run(done.folder).located.inputs, field) == place
    name = Path(place).name.replace("{split}", "train")
    shutil.move(here / name, elsewhere / name)
    monkeypatch.chdir(cache)
    with pytest.raises(FileNotFoundError, match=rf"in here/my.*, and are not there, or changed: say where they are, as in Run\(.* {field}='there/(my|my-{{split}}.parquet|inrs)'.*or give `inrformer train`"):
        open_run(done.folder).dataset
    if form != "tables":
        monkeypatch.chdir(elsewhere)
        run(small | own, out=cache / "runs")
        monkeypatch.chdir(here)
        assert open_run(done.folder).dataset.digest == done.dataset.digest, "it was shown again, which keeps the place"


def test_other_images_at_the_place_are_not_those_of_the_run(cache, monkeypatch):
    for i, image in enumerate(pictures(10, 6, 6)):
        put(cache, f"my/{'ab'[i % 2]}/{i}.png", image)
    done = run(dict(dataset=str(cache / "my"), n_train=8, n_test=2, hidden="4-4", fit_steps=3, reader="deepsets", epochs=1, val_parts=4, device="cpu"), out=cache / "runs")
    (cache / "my" / "a" / "0.png").unlink(), put(cache, "my/a/0.png", pictures(1, 6, 6, seed=9)[0])
    for folder in (cache / "runs", cache):
        monkeypatch.chdir(folder)
        for look in (lambda: open_run(done.folder).dataset, lambda: at_widths(open_run(done.folder), ["4-4"], device="cpu")):
            with pytest.raises(FileNotFoundError, match=r"were files named 'my', in .*my, and are not there, or changed"):
                look()
    (done.folder / ".place.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"were files named 'my': say where they are"):
        open_run(done.folder).dataset
    (done.folder / ".place.json").write_text('{"dataset":')
    with pytest.raises(ValueError, match=r".place.json is damaged .*: remove it"):
        open_run(done.folder).dataset


def test_of_several_experiments_the_run_that_was_run_last_is_found(cache):
    first, last = (run(SMALL, experiment=name, out=cache / "runs") for name in ("zzz", "custom"))
    assert find_run(first.folder.name, cache / "runs").folder == last.folder
    run(SMALL, experiment="zzz", out=cache / "runs")
    assert find_run(first.folder.name, cache / "runs").folder == first.folder


def papermill(*arguments, cache, **options):
    command = [sys.executable, "-m", "papermill", str(NOTEBOOK), *map(str, arguments)]
    env = os.environ | dict(INRFORMER_CACHE=str(cache / "cache"), PYTHONPATH=str(ROOT))
    return subprocess.run(command, cwd=cache, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, **options)


def parameters(values):
    return [word for name, value in values.items() for word in ("-p", name, value)]


def test_papermill_is_refused_a_parameter_that_is_none(cache):
    done = papermill("out.ipynb", "-p", "hnt", 64, cache=cache)
    assert done.returncode != 0 and "no parameter 'hnt'; did you mean 'hint'?" in done.stderr


@pytest.mark.parametrize(("name", "message"), [
    ("copy", "there is no parameter 'copy'"), ("config_from", "there is no parameter 'config_from'"), ("open", "there is no parameter 'open'"), ("_hint", "no parameter '_hint'"),
])
def test_a_parameter_that_is_a_name_of_something_else_is_refused(name, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # the shell puts its own there
    cells = parameterized(NOTEBOOK, **{name: 64})
    shell = InteractiveShell.instance()
    for cell in cells[: 1 + next(k for k, cell in enumerate(cells) if "cfg = config_from(" in cell)]:
        done = shell.run_cell(cell, store_history=True)
    shell.reset()
    assert isinstance(done.error_in_exec, TypeError) and message in str(done.error_in_exec)


def pictures_of(notebook):
    "Pictures in the outputs of a notebook that ran to its end."
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    assert not [o for o in outputs if o.output_type == "error"]
    return sum("image/png" in o.get("data", {}) for o in outputs)


def test_papermill_without_an_output_path_writes_the_notebook_to_its_output(cache):
    small = BASE | dict(n_train=300, n_test=64, epochs=1, reader="deepsets", kind="relu", final=True)
    done = papermill(*parameters(small), cache=cache)
    assert done.returncode == 0, done.stderr[-3000:]
    notebook = nbformat.reads(done.stdout, 4)
    found = json.loads(next((cache / "runs").glob("*/*/summary.json")).read_text())
    text = "".join(str(o.get("data", {}).get("text/plain", "")) for c in notebook.cells if c.cell_type == "code" for o in c.outputs)
    assert "parameters" in text and str(found["parameters"]) in text
    assert pictures_of(notebook) >= 4


def test_the_page_of_a_reader_that_names_nothing_ends(cache):
    done = papermill(*parameters(BASE | dict(n_train=300, n_test=64, epochs=1, reader="deepsets", objective="contrast")), cache=cache)
    assert done.returncode == 0, done.stderr[-3000:]
    assert pictures_of(nbformat.reads(done.stdout, 4)) >= 3
    zoo = build_zoo(cache / "zoo", load_images("digits", "train", 90), load_images("digits", "test", 30), INRSpec(widths=(64, 4, 10), kind="perceptron"), (40, 12), steps=(1, 9), rates=(3e-3, 3e-2), shares=(9, 80))
    done = papermill(*parameters(dict(data=zoo.folder, objective="regress", reader="deepsets", pair_dim=4, epochs=1, device="cpu")), cache=cache)
    assert done.returncode == 0, done.stderr[-3000:]
    assert pictures_of(nbformat.reads(done.stdout, 4)) >= 1


def test_every_python_writes_a_syntax_tree_alike():
    of_class = "ClassDef(name='A', bases=[], keywords=[], body=[Pass()], decorator_list=[])"
    assert _dumped(ast.parse("def f(): pass\nclass A: pass")) == f"Module(body=[FunctionDef(name='f', args=arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[]), body=[Pass()], decorator_list=[]), {of_class}], type_ignores=[])"


def test_images_won_and_lost_are_what_lies_between_two_accuracies(cache):
    this = run(BASE | dict(n_train=60, n_test=20, epochs=1, reader="deepsets", pair_dim=4), out=cache)
    table = at_widths(this, ["6-6", "5-5"], device="cpu")
    assert ((table["won"] - table["lost"]) / table["images"]).tolist() == pytest.approx((table["accuracy_their_statistics"] - this.summary["test_accuracy"]).tolist())


def test_a_reader_that_says_target_inr_and_gives_no_values_is_not_asked_for_them(cache, monkeypatch):
    this = run(BASE | dict(n_train=60, n_test=20, epochs=1, reader="deepsets", pair_dim=4), out=cache / "runs")
    monkeypatch.setattr(READERS["deepsets"], "reads", "target INR")
    assert disguise(this, this.model, this.dataset) == {}


@pytest.mark.slow
def test_the_literal_command_with_its_output_redirected(cache):
    env = os.environ | dict(INRFORMER_CACHE=str(cache / "cache"), PYTHONPATH=str(ROOT), PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    (project := cache / "project" / "nbs").mkdir(parents=True)
    for name in ("settings.ini", "nbs/train.ipynb"):
        shutil.copy(ROOT / name, project.parent / name)
    (project.parent / "figures").symlink_to(ROOT / "figures")
    with open(cache / "out.ipynb", "w") as out:
        subprocess.run(["papermill", "nbs/train.ipynb", "-p", "hint", "256"], cwd=project.parent, env=env, stdin=subprocess.DEVNULL, stdout=out, check=True, timeout=1200)
    assert pictures_of(nbformat.read(cache / "out.ipynb", 4)) >= 5
    summary = last_run(project.parent / "runs").summary
    assert summary["protocol"] == "digits" and summary["test_accuracy"] > 0.9 and summary["invariance_error"] < 1e-10


def test_the_shipped_demo_gives_the_answers_of_its_record():
    demo = load_demo()
    with torch.inference_mode():
        logits = demo.model(demo.test.inr)
        moved = demo.model(permute(demo.test.inr, random_permutation(demo.test.inr.spec, len(demo.test), generator=torch.Generator().manual_seed(0))))
    told = demo.record["answers"]["test"]
    assert told["labels"] == demo.test.labels.tolist() and told["ids"] == demo.test.ids.tolist()
    assert (logits.argmax(1) == torch.tensor(told["answers"])).double().mean() >= 1 - 1.5 / len(demo.test)
    assert (moved.argmax(1) == logits.argmax(1)).double().mean() >= 1 - 1.5 / len(demo.test)
    assert demo.record["source"] and demo.model.reads == demo.record["reads"]
    assert sum(p.stat().st_size for p in (ROOT / "inrformer" / "demo").iterdir()) < 2_500_000
    for name, path in demo.controls.items():
        right = (load_reader(path)(demo.test.inr).argmax(1) == demo.test.labels).double().mean()
        recorded = next(r for r in records("digits") if (r["config"]["reader"], r["config"]["train"]["seed"]) == (name, 0) and not r["config"]["architecture"].get("mlp"))
        assert abs(right - recorded["summary"]["test_accuracy"]) <= 1.5 / len(demo.test), f"{name} is not the one on record"
