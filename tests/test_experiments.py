"Grids, tables and sweeps: hand-worked records, missing and failed runs, killed and resumed sweeps, the command line on a bare machine."

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from types import SimpleNamespace

import psutil
import pytest
from conftest import ROOT

from inrformer.data import lock
from inrformer.experiments import (
    DEFAULTS, EXPERIMENTS, Run, RunConfig, config_from, counted, effects, experiment, find_record, identity, main, parse_fields, protocol_kept, records, resolve, results, run,
    run_id, sweep, table, with_seeds, write_record,
)

SMALL = dict(n_train=96, n_test=48, fit_steps=20, hidden="6-6", dim=16, edge_dim=8, depth=1, heads=2, hint=16, query=16, features=4, epochs=2, device="cpu")
ROWS = with_seeds([dict(), dict(aux=False), dict(hint=16)], 2)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INRFORMER_CACHE", str(tmp_path / "cache"))
    return tmp_path


def record(cfg, accuracy=None, protocol="digits", **summary):
    found = dict(run_id=run_id(cfg), config=identity(resolve(cfg)), history=[])
    if accuracy is None:
        return found | dict(summary=None, error="ValueError: no such thing")
    return found | dict(env={}, summary=dict(test_accuracy=accuracy, protocol=protocol) | summary)


def test_the_table_is_what_one_works_out_by_hand():
    found = [record(ROWS[0], 0.80), record(ROWS[3], 0.90), record(ROWS[1], 0.70), record(ROWS[4], 0.75)]
    rows = table(found, ["aux"])
    assert rows["aux"].tolist() == [True, False] and rows["runs"].tolist() == [2, 2]
    for name, wanted in (("mean", [0.85, 0.725]), ("min", [0.8, 0.7]), ("max", [0.9, 0.75])):
        assert rows[f"test_accuracy ({name})"].tolist() == pytest.approx(wanted)
    assert len(table([], ["aux"])) == 0


def test_an_effect_is_read_seed_by_seed():
    found = [record(ROWS[0], 0.80), record(ROWS[3], 0.90), record(ROWS[1], 0.70), record(ROWS[4], 0.75), record(ROWS[2], 0.95)]
    rows = effects(ROWS, found).groupby("row")["effect"].agg(["mean", "size"])
    assert rows.loc["aux False"].tolist() == pytest.approx([-0.125, 2])
    assert rows.loc["hint 16"].tolist() == pytest.approx([0.15, 1])
    assert effects(ROWS, found[2:]).empty, "an effect without a first row"
    assert effects(ROWS, [found[0], record(ROWS[1], 0.7, protocol="custom")])["row"].tolist() == ["baseline"], "an effect across protocols"


def test_missing_and_failed_runs_are_shown():
    rows = results(ROWS, [record(ROWS[0], 0.80), record(ROWS[1])], ("test_accuracy", "psnr")).set_index("row")
    assert rows["missing"].to_dict() == {"baseline": "1 not yet run", "aux False": "failed: ValueError: no such thing; 1 not yet run", "hint 16": "not yet run"}
    assert rows["runs"].tolist() == [1, 0, 0] and rows["seeds"].tolist() == [2, 2, 2]
    assert rows["run_ids"].tolist() == [run_id(ROWS[0]), "", ""] and rows["psnr (mean)"].isna().all()


def test_a_run_that_failed_and_then_ended_counts_as_done():
    assert results(ROWS, [record(ROWS[0], 0.80), record(ROWS[0])])["runs"][0] == 1
    assert results(ROWS, [record(ROWS[0]), record(ROWS[0], 0.80)])["runs"][0] == 1


def test_two_protocols_are_refused_in_one_table():
    with pytest.raises(ValueError, match=r"protocols \['custom', 'digits'\] cannot stand in one table"):
        table([record(ROWS[0], 0.8), record(ROWS[1], 0.7, protocol="custom")], ["aux"])
    mixed = results(ROWS, [record(ROWS[0], 0.8), record(ROWS[3], 0.7, protocol="custom")]).iloc[0]
    assert mixed[["test_accuracy (mean)", "runs", "seeds", "protocol", "missing"]].tolist() == [0.8, 1, 2, "digits", "1 left the protocol"]
    both = results(ROWS, [record(ROWS[0], 0.8, protocol="custom"), record(ROWS[3], 0.7, protocol="custom")]).iloc[0]
    assert both[["test_accuracy (mean)", "runs", "protocol", "missing"]].tolist() == [pytest.approx(0.75), 2, "custom", ""]


@pytest.mark.parametrize(("fields", "psnr", "kept"), [
    (dict(), 28.0, "digits"), (dict(), 27.9, "custom"), (dict(init="independent"), 30.0, "custom"), (dict(omega=9.0), 30.0, "custom"),
    (dict(dataset="mnist"), 20.0, "mnist-small"), (dict(dataset="mine/cifar10-jpeg75-{split}.parquet"), 25.0, "cifar10-small"),
    (dict(dataset="mine/mnist-fashion-{split}.parquet"), 30.0, "custom"), (dict(dataset="mnist", protocol="cifar10-small"), 30.0, "custom"), (dict(dataset="mine/{split}.parquet", protocol="mnist-small"), 30.0, "custom"),
])
def test_a_protocol_is_kept_or_left(fields, psnr, kept):
    assert protocol_kept(resolve(RunConfig(**fields)), psnr) == kept


def test_an_effect_leaves_out_what_left_the_protocol():
    found = [record(ROWS[0], 0.9), record(ROWS[1], 0.88), record(ROWS[3], 0.9, protocol="custom"), record(ROWS[4], 0.5, protocol="custom")]
    assert effects(ROWS, found).values.tolist() == [["baseline", 0, 0.0], ["aux False", 0, pytest.approx(-0.02)]]
    assert counted(ROWS, found[2:])["row"].tolist() == ["baseline", "aux False"], "of a row that never kept it, all count"


def test_a_run_that_another_process_is_at_is_left_to_it(cache, capsys):
    rows = [replace(r, **SMALL | dict(epochs=1)) for r in ROWS[:2]]
    with lock(cache / "example" / run_id(rows[0])):
        assert [r["run_id"] for r in sweep(rows, "example", out=cache, folder=cache)] == [run_id(rows[1])]
    assert "another process is at the run" in capsys.readouterr().err
    assert len(sweep(rows, "example", out=cache, folder=cache)) == 2


def test_two_precisions_in_one_row_are_told():
    found = [record(ROWS[0], 0.8), record(replace(ROWS[3], precision="bf16"), 0.6), record(ROWS[1], 0.7), record(ROWS[4], 0.5)]
    mixed = results(ROWS, found).iloc[0]
    assert mixed[["test_accuracy (mean)", "runs", "missing"]].tolist() == [pytest.approx(0.7), 2, "mixes bf16 and fp32"]
    assert effects(ROWS, found).values.tolist() == [["baseline", 0, 0.0], ["aux False", 0, pytest.approx(-0.1)], ["baseline", 1, 0.0]], "across precisions there is no effect"


def test_only_seeds_are_averaged():
    with pytest.raises(ValueError, match="differ in lr"):
        table([record(ROWS[0], 0.8), record(replace(ROWS[3], lr=0.5), 0.7)], ["aux"])
    with pytest.raises(ValueError, match="several runs of one seed"):
        table([record(ROWS[0], 0.8), record(ROWS[0], 0.7)], ["aux"])


def test_records_of_other_fields_still_count():
    old = record(ROWS[0], 0.8)
    old["config"] = {k: v for k, v in old["config"].items() if k != "weight_noise"} | dict(gone="yes")
    assert DEFAULTS["weight_noise"] == 0.0
    assert find_record(ROWS[0], [old]) is None, "the preset has noise, an older run had none"
    assert find_record(replace(ROWS[0], weight_noise=0.0), [old]) is old
    assert table([old, record(replace(ROWS[3], weight_noise=0.0), 0.9)], ["aux", "gone"])["runs"].tolist() == [1, 1]


def test_a_record_of_the_gpu_counts_unless_precision_is_asked_for():
    half = record(replace(ROWS[0], precision="bf16"), 0.8)
    assert find_record(ROWS[0], [half]) is half
    assert find_record(replace(ROWS[0], precision="fp32"), [half]) is None


def test_records_make_the_round_trip(tmp_path):
    both = [record(ROWS[0], 0.80, psnr=29.123456789012345), record(ROWS[1])]
    for r in both:
        path = write_record(r, "example", tmp_path)
    assert records("example", tmp_path) == both == records(folder=tmp_path)
    assert records("other", tmp_path) == []
    assert [json.loads(line) for line in path.read_text().splitlines()] == both
    assert asdict(config_from(both[0]["config"])) | dict(device=None) == asdict(resolve(ROWS[0]))


def test_two_sweeps_may_write_one_file(tmp_path):
    rows = [record(replace(ROWS[0], seed=seed), 0.5) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda r: write_record(r, "example", tmp_path), rows))
    assert sorted(r["config"]["seed"] for r in records("example", tmp_path)) == list(range(40))


def test_a_damaged_record_is_named(tmp_path):
    path = write_record(record(ROWS[0], 0.5), "example", tmp_path)
    path.write_text(path.read_text() + '{"run_id":')
    for call in (lambda: records("example", tmp_path), lambda: write_record(record(ROWS[1]), "example", tmp_path)):
        with pytest.raises(ValueError, match="line 2 of .*example.jsonl is damaged"):
            call()


COMMITTED = [(path.name, line) for path in sorted((ROOT / "figures" / "records").glob("*.jsonl")) for line in path.read_text().splitlines()]


def test_committed_records_keep_their_schema():
    assert COMMITTED
    for name, line in COMMITTED:
        r = json.loads(line)
        assert {"run_id", "config", "summary"} <= r.keys(), name
        assert re.fullmatch("[0-9a-f]{12}", r["run_id"]) and isinstance(r["config"]["seed"], int)
        if r["summary"] is None:
            assert r["error"], name
            continue
        assert {"test_accuracy", "fit_seconds", "train_seconds", "psnr", "parameters", "protocol", "device", "dataset", "images_digest", "invariance_error"} <= r["summary"].keys()
        assert {"torch", "device", "threads", "inrformer"} <= r["env"].keys()
        assert [h["epoch"] for h in r["history"]] == list(range(1, r["config"]["epochs"] + 1))
        assert 0 <= r["summary"]["test_accuracy"] == r["history"][-1]["test_accuracy"] <= 1
        assert "/" not in str(r["config"]["dataset"]).removeprefix("uoft-cs/").removeprefix("ylecun/"), f"{name} names a path"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_config_of_every_experiment_can_run(name):
    assert all(resolve(cfg) for cfg in EXPERIMENTS[name])


def test_table_3_is_the_papers():
    _, rows = experiment("table3", "cifar10-full")
    changed = [{k: v for k, v in asdict(resolve(c)).items() if v != getattr(resolve(rows[0]), k)} for c in rows]
    first = resolve(rows[0])
    assert (first.hint, first.query, first.aux, first.layer_embedding, first.weight_embedding, first.model) == (256, 64, True, True, "sinusoidal", "tiny")
    assert changed[:3] == [{}, dict(aux=False), dict(hint=16)], "a half-finished draw tells most this way"
    assert sorted(map(str, changed[3:])) == sorted(map(str, [dict(hint=64), dict(query=16), dict(query=256), dict(layer_embedding=False), dict(weight_embedding="chebyshev")]))
    assert [c.model for c in experiment("table2")[1]] == ["tiny", "base"] and run_id(experiment("table2")[1][0]) == run_id(rows[0])
    for protocol, seeds in (("digits", 5), ("cifar10-small", 3)):
        assert len(experiment("table3", protocol)[1]) == 8 * seeds


@pytest.mark.parametrize(("words", "said"), [
    (["table3"], r"table3 has the protocols .*cifar10-full'\], not None: name one of them \(--protocol\)"),
    (["digits", "--set", "hintt=16"], "no parameter 'hintt'; did you mean 'hint'"),
    (["digits", "--set", "hint=7"], "hint"),
])
def test_a_wrong_command_line_is_refused_at_once(words, said, capsys):
    with pytest.raises(SystemExit):
        main(words)
    assert re.search(said, capsys.readouterr().err)


def test_a_sweep_has_jobs_and_says_when_one_is_killed(cache):
    with pytest.raises(ValueError, match="jobs must be at least 1, not 0"):
        sweep(ROWS, "example", out=cache, folder=cache, jobs=0)
    rows = [replace(r, **SMALL | dict(epochs=10_000)) for r in ROWS[:2]]
    with ThreadPoolExecutor(1) as pool:
        swept = pool.submit(sweep, rows, "example", out=cache, folder=cache, jobs=2)
        while not (workers := [c for c in psutil.Process().children() if "spawn_main" in " ".join(c.cmdline())]) or not list(cache.glob("example/*/checkpoint-*")):
            assert not swept.done(), swept.exception()
            time.sleep(0.1)
        workers[0].kill()
        with pytest.raises(RuntimeError, match="one of the 2 jobs was killed"):
            swept.result(timeout=60)


def test_fields_on_the_command_line():
    assert parse_fields(["hidden=12", "aux=False", "lr=1e-3"]) == dict(hidden="12", aux=False, lr=1e-3)
    with pytest.raises(TypeError, match="did you mean 'epochs'"):
        parse_fields(["epoch=2"])
    with pytest.raises(ValueError, match="aux must be of type bool, not 'false'"):
        parse_fields(["aux=false"])
    with pytest.raises(ValueError, match="experiment must be one of .*'table3'.*, not 'table4'"):
        experiment("table4")
    with pytest.raises(ValueError, match="protocols"):
        experiment("table3", "mnist-small")
    with pytest.raises(ValueError, match="protocols"):
        experiment("table2", "digits")


def test_a_sweep_of_two_at_a_time_and_one_that_fails(cache):
    configs = [RunConfig(**SMALL, seed=s) for s in (0, 1)] + [replace(RunConfig(**SMALL), dataset="no/such-{split}.parquet", protocol="digits")]
    found = sweep(configs, "example", out=cache / "runs", folder=cache / "records", jobs=2)
    assert [bool(r["summary"]) for r in found] == [True, True, False] and "FileNotFoundError" in found[2]["error"]
    before = {p: p.stat().st_mtime_ns for p in (cache / "runs").glob("*/*/summary.json")}
    assert sweep(configs, "example", out=cache / "runs", folder=cache / "records") == found
    assert before == {p: p.stat().st_mtime_ns for p in (cache / "runs").glob("*/*/summary.json")}


def test_several_jobs_under_torchrun_are_refused(cache, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="jobs=2 under torchrun"):
        sweep([RunConfig(**SMALL)], "example", out=cache, folder=cache, jobs=2)


def test_a_row_that_another_experiment_recorded_is_done(cache):
    cfg = RunConfig(**SMALL)
    write_record(record(cfg, 0.5), "elsewhere", cache / "records")
    assert sweep([cfg], "example", out=cache / "runs", folder=cache / "records")[0]["summary"]["test_accuracy"] == 0.5
    assert not (cache / "runs").exists()


def test_the_images_of_a_run_on_files_are_asked_for(cache):
    with pytest.raises(FileNotFoundError, match=r"were files named 'cifar10-jpeg75': say where they are, as in Run\(run.folder, replace\(run.config, dataset="):
        Run(cache, replace(resolve(RunConfig(**SMALL)), dataset="cifar10-jpeg75")).dataset


BARE = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("plotly", "ipywidgets", "papermill", "nbdev", "IPython", "matplotlib", "seaborn", "pytest"):
            raise ModuleNotFoundError(f"blocked: {name}", name=name)

sys.meta_path.insert(0, Block())
"""
REHEARSAL = ["table3", "--protocol", "cifar10-full", "--budget", "9"]
TINY = "dataset=digits n_train=64 n_test=32 hidden=6-6 fit_steps=5 epochs=2 batch_size=32 model=demo dim=16 edge_dim=8 depth=1 heads=2 features=2 device=cpu".split()


def command(cache):
    "The command for a bare machine, at a small size, in an interpreter that has no notebook tools."
    (cache / "bare").mkdir(exist_ok=True)
    (cache / "bare" / "sitecustomize.py").write_text(BARE)
    env = os.environ | dict(PYTHONPATH=f"{cache / 'bare'}{os.pathsep}{ROOT}", INRFORMER_CACHE=str(cache / "cache"))
    words = [sys.executable, "-m", "inrformer.experiments", *REHEARSAL, "--out", str(cache / "DIR"), "--set", *TINY]
    return dict(args=words, cwd=cache, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_command_for_a_bare_machine_is_killed_half_way_and_resumed(cache):
    file = cache / "DIR" / "records" / "table3-cifar10-full.jsonl"
    process = subprocess.Popen(**command(cache))
    deadline = time.monotonic() + 120
    while not (file.exists() and len(file.read_text().splitlines()) >= 2) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    first = [json.loads(line) for line in file.read_text().splitlines()]
    assert 2 <= len(first) < 8
    done = subprocess.run(**command(cache))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("table3-cifar10-full: 8 of 8 runs are done\n")
    found = [json.loads(line) for line in file.read_text().splitlines()]
    assert found[: len(first)] == first and len({r["run_id"] for r in found}) == 8
    assert [r["config"]["aux"] for r in found[:3]] == [True, False, True] and {r["summary"]["protocol"] for r in found} == {"custom"}
    again = subprocess.run(**command(cache))
    assert again.stdout == done.stdout and [json.loads(line) for line in file.read_text().splitlines()] == found


def test_a_budget_stops_after_a_checkpoint_and_the_command_goes_on(cache, capsys, monkeypatch):
    "With a clock that moves by a second whenever it is read: at the start, before the run, and after every epoch."
    words = ["table2", "--out", str(cache / "DIR"), "--set", *TINY, "epochs=9"]
    for epochs in (4, 8):
        monkeypatch.setattr("inrformer.experiments.time", SimpleNamespace(time=itertools.count().__next__))
        main([*words, "--budget", str(4 / 60)])
        assert capsys.readouterr().out == "table2: 0 of 2 runs are done\n"
        (checkpoint,) = (cache / "DIR").glob("table2/*/checkpoint-*")
        assert checkpoint.name == f"checkpoint-{epochs:05d}" and not (checkpoint.parent / "summary.json").exists()
    monkeypatch.undo()
    monkeypatch.setenv("INRFORMER_CACHE", str(cache / "cache"))
    main(words)
    assert capsys.readouterr().out.endswith("table2: 2 of 2 runs are done\n")


@pytest.mark.slow
def test_the_command_at_one_per_cent_of_its_size(shared_data, cache):
    options = command(cache)
    options["args"] = options["args"][: options["args"].index("--set")] + [
        "--set", f"dataset={shared_data}/cifar10-jpeg75-{{split}}.parquet", "n_train=500", "n_test=100", "fit_steps=20", "epochs=1", "device=cpu"]
    done = subprocess.run(**options)
    assert done.returncode == 0 and "8 of 8 runs are done" in done.stdout, done.stderr[-3000:]
    found = records(folder=cache / "DIR" / "records")
    assert {r["config"]["dataset"] for r in found} == {"cifar10-jpeg75"} and all(0.6e6 < r["summary"]["parameters"] < 0.8e6 for r in found if r["config"]["aux"])
