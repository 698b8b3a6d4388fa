"Experiments and sweeps: killed and resumed, within a budget, several at a time, failures recorded, stale rows named, and the command line on a bare machine."

import contextlib
import csv
import io
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import ROOT
from PIL import Image

from inrformer.__main__ import main
from inrformer.config import config_from, flat, run_id
from inrformer.files import lock
from inrformer.records import records, write_record
from inrformer.experiments import EXPERIMENTS, INDEPENDENT, MATCHED, experiment, protocols_of, reader_and_choices, with_seeds
from inrformer import sweeps
from inrformer.sweeps import all_records, sweep, without_places

SMALL = dict(n_train=96, n_test=48, fit_steps=20, hidden="6-6", dim=16, edge_dim=8, depth=1, heads=2, hint=16, query=16, features=4, epochs=2, device="cpu")
ROWS = with_seeds([dict(), dict(aux=False), dict(hint=16)], 2, **SMALL)


def id_of(row):
    return run_id(config_from(row))


def test_readers_of_the_table_train_as_one_of_their_trials_did():
    "Or, where none was made, as their protocol says, by AdamW at its usual rate, or as the same reader without options."
    trials = [t for t in csv.DictReader((ROOT / "figures" / "trials_of_readers.csv").open()) if not t["otherwise"]]
    tried = {(t["reader"], t["optimizer"], float(t["lr"]), float(t["weight_noise"]), float(t["frequency_std"] or "nan")) for t in trials}
    names = set()
    for row, how in MATCHED:
        cfg, untried = config_from(INDEPENDENT | row | how), config_from(INDEPENDENT | row).train
        names.add(name := reader_and_choices({field: value for field, value in row.items() if field != "frequency_std"}))
        found = {(optimizer, lr, noise) for reader, optimizer, lr, noise, scale in tried if reader == name and (scale != scale or scale == cfg.architecture.frequency_std)}
        asked = found if name in {t[0] for t in tried} else {(optimizer, lr, untried.weight_noise) for optimizer, lr in ((untried.optimizer, untried.lr), ("adamw", 1e-3))} | {t[1:4] for t in tried if t[0] == row.get("reader")}
        assert (cfg.train.optimizer, cfg.train.lr, cfg.train.weight_noise) in asked, name
    assert {t[0] for t in tried} <= names, "trials of a reader that is not in the table"


@pytest.mark.parametrize(("gpu", "last"), [(True, 0), (False, 2)])
def test_a_gpu_takes_what_nobody_has_begun_first(cache, monkeypatch, gpu, last):
    rows, taken = with_seeds([dict()], 3, **SMALL), []
    begun = cache / "runs" / "elsewhere" / id_of(rows[0])
    begun.mkdir(parents=True)
    (begun / "config.json").write_text("{}")
    monkeypatch.setattr("inrformer.sweeps._attempt", lambda cfg, again, **how: taken.append(run_id(cfg)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    sweep(rows, "elsewhere", out=cache / "runs", folder=cache)
    assert len(taken) == 3 and taken[-1] == id_of(rows[last])


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_row_of_every_experiment_can_run_under_the_protocol_that_it_names(name):
    for protocol in protocols_of(name):
        assert all(config_from(row).protocol == protocol for row in experiment(name, protocol)[1])


def test_table_3_is_the_papers():
    _, rows = experiment("table3", "cifar10-full")
    configs = [flat(config_from(row)) for row in rows]
    changed = [{k: v for k, v in c.items() if v != configs[0][k]} for c in configs]
    assert {k: configs[0][k] for k in ("hint", "query", "aux", "layer_embedding", "weight_embedding", "model")} == dict(
        hint=256, query=64, aux=True, layer_embedding=True, weight_embedding="sinusoidal", model="tiny")
    assert changed[:3] == [{}, dict(aux=False), dict(hint=16)], "a half-finished draw tells most this way"
    assert [{k: v for k, v in change.items() if k != "seed"} for change in changed[8:]] == 2 * changed[:3], "those again, with two more seeds"
    assert sorted(map(str, changed[3:8])) == sorted(map(str, [dict(hint=64), dict(query=16), dict(query=256), dict(layer_embedding=False), dict(weight_embedding="chebyshev")]))
    assert [flat(config_from(row))["model"] for row in experiment("table2")[1]] == ["tiny", "base"] and id_of(experiment("table2")[1][0]) == id_of(rows[0])
    for protocol, seeds in (("digits", 5), ("cifar10-small", 3)):
        assert len(experiment("table3", protocol)[1]) == 8 * seeds


def test_rows_that_a_change_makes_alike_are_one():
    _, rows = experiment("digits", None, dict(seed=9))
    assert len(rows) == len({id_of(row) for row in rows}) == len({id_of(row | dict(seed=0)) for row in experiment("digits")[1]})


def test_an_experiment_of_several_protocols_wants_one_named():
    with pytest.raises(ValueError, match="experiment must be one of .*'table3'.*, not 'table4'"):
        experiment("table4")
    for name, protocol in (("table3", None), ("table3", "mnist-small"), ("table2", "digits")):
        with pytest.raises(ValueError, match="protocols"):
            experiment(name, protocol)


@pytest.mark.parametrize(("words", "said"), [
    (["sweep", "table3"], r"table3 has the protocols .*cifar10-full'\], not None: name one of them \(--protocol\)"),
    (["sweep", "digits", "--set", "hintt=16"], "no parameter 'hintt'; did you mean 'hint'"),
    (["sweep", "digits", "--set", "hint=7"], "hint"), (["config", "hnt=3"], "did you mean 'hint'"), (["config", "hint=60"], "the nearest are 49 and 64"),
    (["last", "--out", "no/such/folder"], "no finished run yet"),
])
def test_a_wrong_command_line_is_refused_at_once(words, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2 and re.search(said, capsys.readouterr().err)


def test_the_config_is_shown(capsys):
    main(["config", "hint=64", "reader=inrformer"])
    shown = capsys.readouterr().out
    assert re.search(r"^hint +64$", shown, re.M) and shown.endswith(f"run {id_of(dict(hint=64))}\n")


def test_a_row_that_starts_from_another_waits_for_it_whatever_is_changed_and_wherever_its_run_was(cache, monkeypatch):
    brief = dict(reader="inr2array", latents=4, dim=16, depth=1, layers=1, heads=2, tokens=8, epochs=1)
    drawn = brief | dict(objective="reconstruct")
    monkeypatch.setitem(EXPERIMENTS, "example", [dict(protocol="custom") | brief | dict(frozen=True, start_from=drawn | dict(protocol="custom")), dict(protocol="custom") | drawn])
    changes = {name: SMALL[name] for name in ("n_train", "n_test", "fit_steps", "hidden", "device")}
    _, rows = experiment("example", changes=changes)
    assert rows[0]["start_from"] == id_of(rows[1]) and rows[0]["n_train"] == 96
    told, encoder = sweep(rows, "example", out=cache / "runs", folder=cache / "records", jobs=2)
    assert told["config"]["start_from"] == encoder["run_id"] and told["summary"] and encoder["summary"]
    with lock(cache / "busy" / "example" / encoder["run_id"]):
        assert sweep([rows[0] | dict(seed=1), rows[1]], "example", out=cache / "busy", folder=cache / "records") == [encoder], "whoever starts from it waits, too, and is no failure"
    other = sweep([rows[0] | dict(seed=1), rows[1]], "example", out=cache / "elsewhere", folder=cache / "records")
    assert all(r["summary"] for r in other) and sorted(p.parent.name for p in (cache / "elsewhere").glob("*/*/summary.json")) == sorted(r["run_id"] for r in other)


def test_a_budget_stops_at_a_checkpoint_and_the_sweep_goes_on(cache):
    rows = [SMALL | dict(seed=s) for s in (0, 1)]
    assert sweep(rows, "example", out=cache, folder=cache / "records", budget=0.0) == []
    done = sweep(rows, "example", out=cache, folder=cache / "records")
    assert [r["summary"]["protocol"] for r in done] == ["custom", "custom"]
    assert {r["run_id"] for r in done} == {id_of(row) for row in rows}


def test_a_run_that_another_process_is_at_is_left_to_it(cache, capsys):
    rows = [row | dict(epochs=1) for row in ROWS[:2]]
    with lock(cache / "example" / id_of(rows[0])):
        assert [r["run_id"] for r in sweep(rows, "example", out=cache, folder=cache)] == [id_of(rows[1])]
    assert "another process is at the run" in capsys.readouterr().err
    assert len(sweep(rows, "example", out=cache, folder=cache)) == 2


def test_a_sweep_of_two_at_a_time_and_one_that_fails(cache):
    rows = [SMALL | dict(seed=s) for s in (0, 1)] + [SMALL | dict(fit_lr=1e15)]
    found = sweep(rows, "example", out=cache / "runs", folder=cache / "records", jobs=2)
    assert [bool(r["summary"]) for r in found] == [True, True, False] and "diverged" in found[2]["error"]
    before = {p: p.stat().st_mtime_ns for p in (cache / "runs").glob("*/*/summary.json")}
    again = sweep(rows, "example", out=cache / "runs", folder=cache / "records")
    assert again[:2] == found[:2] and again[2]["run_id"] == found[2]["run_id"] and "diverged" in again[2]["error"]
    assert before == {p: p.stat().st_mtime_ns for p in (cache / "runs").glob("*/*/summary.json")}


def test_jobs_are_checked_and_one_that_is_killed_is_told(cache, monkeypatch):
    for jobs, environment, message in ((0, "1", "jobs must be at least 1, not 0"), (2, "2", "jobs=2 under torchrun")):
        monkeypatch.setenv("WORLD_SIZE", environment)
        with pytest.raises(ValueError, match=message):
            sweep(ROWS, "example", out=cache, folder=cache, jobs=jobs)
    monkeypatch.delenv("WORLD_SIZE")
    rows = [row | dict(epochs=10_000) for row in ROWS[:2]]
    with ThreadPoolExecutor(1) as pool:
        swept = pool.submit(sweep, rows, "example", out=cache, folder=cache, jobs=2)
        while not (workers := [c for c in psutil.Process().children() if "spawn_main" in " ".join(c.cmdline())]) or not list(cache.glob("example/*/checkpoint-*")):
            assert not swept.done(), swept.exception()
            time.sleep(0.1)
        workers[0].kill()
        with pytest.raises(RuntimeError, match="one of the 2 jobs was killed"):
            swept.result(timeout=60)


def test_stale_rows_are_named_and_run_again_only_when_told(cache, capsys):
    rows = [SMALL | dict(epochs=1, seed=s) for s in (0, 1)]
    done = sweep(rows, "example", out=cache, folder=cache / "records")
    write_record(done[0] | dict(source="000000000000"), "example", cache / "records")
    again = sweep(rows, "example", out=cache, folder=cache / "records", progress=True)
    assert again[0]["source"] == "000000000000" and f"1 of 2 records are of other source ({id_of(rows[0])}): --stale runs them again" in capsys.readouterr().err
    new = sweep(rows, "example", out=cache, folder=cache / "records", again=True)
    assert new[0]["source"] == done[0]["source"] and new[0]["summary"]["test_accuracy"] == done[0]["summary"]["test_accuracy"]


def test_a_stale_row_that_fails_when_it_is_run_again_is_a_failure(cache, monkeypatch):
    rows = [SMALL | dict(epochs=1)]
    (done,) = sweep(rows, "example", out=cache, folder=cache / "records")
    write_record(done | dict(source="000000000000"), "example", cache / "records")
    with monkeypatch.context() as patched:
        patched.setattr(sweeps, "run", lambda *_, **__: 1 / 0)
        (failed,) = sweep(rows, "example", out=cache, folder=cache / "records", again=True)
    assert failed["summary"] is None and failed["error"] == "ZeroDivisionError: division by zero"
    (kept,) = sweep(rows, "example", out=cache, folder=cache / "records")
    assert kept["summary"] == done["summary"], "and what had ended is still on record"


def test_the_committed_records_are_read_once(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert len(all_records("figures/records")) == len(all_records())


def test_rows_that_start_from_rows_that_start_from_rows_run_in_one_sweep(cache):
    first = SMALL | dict(epochs=1)
    second = first | dict(start_from=id_of(first))
    third = first | dict(start_from=id_of(second))
    found = sweep([third, second, first], "example", out=cache / "runs", folder=cache / "records")
    assert [r["run_id"] for r in found] == [id_of(row) for row in (third, second, first)] and all(r["summary"] for r in found)


def test_a_row_that_another_experiment_recorded_is_done(cache):
    (done,) = sweep([SMALL | dict(epochs=1)], "elsewhere", out=cache / "runs", folder=cache / "records")
    assert sweep([SMALL | dict(epochs=1)], "example", out=cache / "more", folder=cache / "records") == [done]
    assert not (cache / "more").exists()


def own_pictures(folder, name, seed):
    "Tables of pictures of one's own, called as one likes."
    for side, n in (("train", 96), ("test", 48)):
        pixels = torch.randint(0, 256, (n, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed + n))
        cells = []
        for picture in pixels:
            Image.fromarray(picture.numpy()).save(file := io.BytesIO(), "png")
            cells.append(dict(bytes=file.getvalue(), path=None))
        table = pa.table({"image": pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())])), "label": pa.array([i % 10 for i in range(n)])})
        pq.write_table(table, folder / f"{name}-{side}.parquet")
    return SMALL | dict(epochs=1, dataset=str(folder / f"{name}-{{split}}.parquet"), reader="flat") | {name: None for name in ("dim", "edge_dim", "depth", "heads", "hint", "query", "features")}


def test_a_record_counts_for_its_images_alone(cache):
    where = dict(out=cache / "runs", folder=cache / "records")
    row = own_pictures(cache, "pets", 0)
    (done,) = sweep([row], "example", **where)
    assert sweep([row], "example", **where) == [done]
    own_pictures(cache, "pets", 1)
    with pytest.raises(ValueError, match="the record of run .* is of other images named 'pets' .*: rename your files"):
        sweep([row], "example", **where)
    with pytest.raises(FileNotFoundError, match="there is no folder nowhere"):
        sweep([row | dict(dataset="nowhere/pets-{split}.parquet")], "example", **where)
    assert [r["run_id"] for r in records(folder=cache / "records")] == [done["run_id"]]


def test_a_failure_is_recorded_without_places(cache, capsys):
    row = own_pictures(cache, "pets", 0)
    (cache / "pets-train.parquet").write_bytes((cache / "pets-train.parquet").read_bytes()[:-50])
    (record,) = sweep([row], "example", out=cache / "runs", folder=cache / "records")
    assert record["error"].startswith("ValueError: pets-train.parquet is no whole parquet file") and str(cache) not in json.dumps(dict(record))
    for text, said in (("no /a/b.c/d.x here", "no d.x here"), ("at ~/x/y", "at y"), ("1/2 of a/b", "1/2 of a/b"), ("ratio 3 / 4 is", "ratio 3 / 4 is"), ("'/tmp/x y'", "'x y'"), ("'/media/a disk/My Pictures/cat.png' and '~/a b/c d'", "'cat.png' and 'c d'"), ("https://host/page", "https://host/page")):
        assert without_places(text) == said


def test_a_sweep_of_failures_is_no_success(cache, capsys):
    words = ["sweep", "table2", "--out", str(cache / "DIR"), "--set", *TINY, "fit_lr=1e15"]
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 1 and "table2: 0 of 1 runs are done" in capsys.readouterr().out


PARENT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs things in the background has them ignore it
from inrformer.sweeps import sweep
if __name__ == "__main__":
    sweep([eval(sys.argv[1]) | dict(seed=s, epochs=10_000) for s in range(4)], "example", out=sys.argv[2], folder=sys.argv[2], jobs=2)
"""


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_jobs_end_with_their_sweep_however_it_ends(kind, cache):
    (cache / "script.py").write_text(PARENT)
    env = os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    parent = subprocess.Popen([sys.executable, str(cache / "script.py"), repr(SMALL), str(cache)], env=env, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 240
    while len({checkpoint.parent for checkpoint in cache.glob("example/*/checkpoint-*")}) < 2:
        assert parent.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    jobs = psutil.Process(parent.pid).children(recursive=True)
    os.killpg(parent.pid, kind) if kind == signal.SIGINT else parent.send_signal(kind)
    try:
        assert parent.wait(60) != 0 and psutil.wait_procs(jobs, timeout=60)[1] == []
    finally:
        parent.kill()
        for left in filter(psutil.Process.is_running, jobs):
            left.kill()
    assert len(list(cache.glob("example/*/metrics.jsonl"))) == 2, "no other row was begun"


SHARED_SWEEP = """
import sys
from pathlib import Path
from inrformer.sweeps import sweep
small, out = eval(sys.argv[1]), Path(sys.argv[2])
found = sweep([small | dict(fit_lr=1e15), small, small | dict(seed=1)], "example", out=out, folder=out)
sys.stdout.write(f"said {[r['error'][:40] if r['error'] else r['run_id'] for r in (dict(error=None) | r for r in found)]}\\n")
"""


def test_processes_that_share_a_sweep_agree_on_what_failed_and_what_is_taken(cache):
    "The first row cannot be fitted, another process is at the second: both processes go on to the third."
    small = SMALL | dict(epochs=1)
    (cache / "script.py").write_text(SHARED_SWEEP)
    with lock(cache / "example" / id_of(small)):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(cache / "script.py"), repr(small), str(cache)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1"))
    said = [line for line in done.stdout.splitlines() if line.startswith("said")]
    assert len(said) == 2 and said[0] == said[1], done.stderr[-3000:]
    assert "fits diverged" in said[0] and id_of(small | dict(seed=1)) in said[0] and id_of(small) not in said[0]


BARE = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("plotly", "ipywidgets", "papermill", "nbdev", "IPython", "matplotlib", "seaborn", "pytest"):
            raise ModuleNotFoundError(f"blocked: {name}", name=name)

sys.meta_path.insert(0, Block())
"""
REHEARSAL = ["sweep", "table3", "--protocol", "cifar10-full", "--budget", "9"]
TINY = "dataset=digits n_train=64 n_test=32 hidden=6-6 fit_steps=5 epochs=2 batch_size=32 model=demo dim=16 edge_dim=8 depth=1 heads=2 features=2 outputs=1 schedule=cosine precision=fp32 device=cpu".split()


def command(cache, out="DIR", *more, start=BARE):
    "The command for a bare machine, at a small size but for what is given, in an interpreter that has no notebook tools and begins like this."
    given = {word.split("=")[0] for word in more}
    (cache / "bare").mkdir(exist_ok=True)
    (cache / "bare" / "sitecustomize.py").write_text(start)
    env = os.environ | dict(PYTHONPATH=f"{cache / 'bare'}{os.pathsep}{ROOT}", INRFORMER_CACHE=str(cache / "cache"))
    words = [sys.executable, "-m", "inrformer", *REHEARSAL, "--out", str(cache / out), "--set", *(word for word in TINY if word.split("=")[0] not in given), *more]
    return dict(args=words, cwd=cache, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_process_that_is_gone_is_no_failure_of_the_row(cache, monkeypatch):
    def gone(*_, **__):
        raise torch.distributed.DistBackendError("connection closed")

    monkeypatch.setattr(sweeps, "run", gone)
    with pytest.raises(RuntimeError, match="is gone: start all of them again"):
        sweep([SMALL], "example", out=cache, folder=cache / "records")
    assert not (cache / "records").exists()


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
    assert 2 <= len(first) < 14
    done = subprocess.run(**command(cache))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("table3-cifar10-full: 14 of 14 runs are done\n")
    found = [json.loads(line) for line in file.read_text().splitlines()]
    assert found[: len(first)] == first and len({r["run_id"] for r in found}) == 14
    assert [r["config"]["task"]["aux"] for r in found[:3]] == [True, False, True] and {r["summary"]["protocol"] for r in found} == {"custom"}
    again = subprocess.run(**command(cache))
    assert again.stdout == done.stdout and [json.loads(line) for line in file.read_text().splitlines()] == found


def begun_since(folder, moment):
    "Has anything been written below a folder since, or removed just now?"
    with contextlib.suppress(FileNotFoundError):
        return any(path.lstat().st_mtime > moment for path in folder.rglob("*"))
    return True


def test_a_sweep_killed_at_ten_random_moments_gives_the_same_records(cache):
    "Two rows at a time, a checkpoint after every tenth of an epoch, then longer rows of the same trunks: what a kill leaves of a fit, a checkpoint, a branch or a record must do no harm."
    draw, hurried = random.Random(0), BARE + "import inrformer.training\ninrformer.training.PAUSE = 0\n"
    sweeps = [("schedule=wsd", f"epochs={epochs}", "--jobs", "2") for epochs in (10, 16)]
    for options in sweeps:
        for _ in range(5):
            began, process = time.time(), subprocess.Popen(**command(cache, "killed", *options, start=hurried))
            while not begun_since(cache / "killed", began):
                assert process.poll() is None and time.time() < began + 120, "nothing was begun that could be killed"
                time.sleep(0.01)
            time.sleep(draw.uniform(0, 0.8))
            process.kill()
            process.communicate()
            assert process.returncode == -signal.SIGKILL, "there was nothing left to kill"
    for name, options in itertools.product(("killed", "whole"), sweeps):
        done = subprocess.run(**command(cache, name, *options, start=hurried))
        assert done.returncode == 0, done.stderr[-3000:]
    killed, whole = ({r["run_id"]: r for r in records("table3-cifar10-full", cache / name / "records")} for name in ("killed", "whole"))
    assert killed.keys() == whole.keys() and len(whole) == 28
    for run, record in whole.items():
        for part in record.keys() - {"env", "summary"}:
            assert killed[run][part] == record[part], (run, part)
        assert {name for name, value in record["summary"].items() if killed[run]["summary"][name] != value} <= {"fit_seconds", "train_seconds", "cpu_seconds"}


def test_a_budget_stops_after_a_checkpoint_and_the_command_goes_on(cache, capsys, monkeypatch):
    "With a clock that moves by a second whenever it is read: at the start, before the run, and after every epoch."
    words = ["sweep", "table2", "--out", str(cache / "DIR"), "--set", *(word for word in TINY if word != "epochs=2"), "epochs=9"]
    for epochs in (4, 8):
        monkeypatch.setattr("inrformer.sweeps.time", SimpleNamespace(monotonic=itertools.count().__next__))
        main([*words[:4], "--budget", str(4 / 60), *words[4:]])
        assert capsys.readouterr().out == "table2: 0 of 1 runs are done\n"
        (checkpoint,) = (cache / "DIR").glob("table2/*/checkpoint-*")
        assert checkpoint.name == f"checkpoint-{epochs:05d}-00000" and not (checkpoint.parent / "summary.json").exists()
    monkeypatch.undo()
    monkeypatch.setenv("INRFORMER_CACHE", str(cache / "cache"))
    main(words)
    assert capsys.readouterr().out.endswith("table2: 1 of 1 runs are done\n")


@pytest.mark.slow
def test_the_command_at_a_fraction_of_its_size(shared_data, cache):
    options = command(cache)
    options["args"] = options["args"][: options["args"].index("--set")] + [
        "--set", f"dataset={shared_data}/cifar10-jpeg75-{{split}}.parquet", "n_train=64", "n_test=16", "fit_steps=20", "epochs=1", "device=cpu"]
    done = subprocess.run(**options)
    assert done.returncode == 0 and "14 of 14 runs are done" in done.stdout, done.stderr[-3000:]
    found = records(folder=cache / "DIR" / "records")
    assert {r["config"]["inputs"]["dataset"] for r in found} == {"cifar10-jpeg75"} and all(0.7e6 < r["summary"]["parameters"] < 0.9e6 for r in found)


def test_readers_are_given_the_epochs_that_a_quarter_of_an_hour_buys_on_a_machine_like_that_of_the_benchmark():
    "Machines differ in what they are fast at, by less than half; whoever is through with a hundred epochs before stops there."
    kept = next(record for record in map(json.loads, (ROOT / "figures" / "benchmarks" / "readers.jsonl").read_text().splitlines()) if record["config"]["only"] == "")
    speed = {line["reader"]: line["INRs/s"] for line in kept["summary"]["readers"]}
    quarters = {reader_and_choices(row): how["epochs"] * 6 * 5400 / speed[reader_and_choices(row)] / (15 * 60) for row, how in MATCHED if how["epochs"] < 100}
    assert not {name: quarter for name, quarter in quarters.items() if not 2 / 3 < quarter < 3 / 2}
