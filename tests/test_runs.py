"Runs: killed and resumed, refused in words, recorded, and shipped."

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, fields
from pathlib import Path

import nbformat
import pytest
import torch
from conftest import ROOT
from test_data import pictures, write_table

from inrformer.data import lock
from inrformer.experiments import RunConfig, last_run, load_demo, run, run_id, sweep
from inrformer.symmetry import permute, random_permutation
from inrformer.training import Workers

SMALL = dict(n_train=96, n_test=48, fit_steps=30, hidden="6-6", dim=16, edge_dim=8, depth=1, heads=2, hint=16, query=16, features=4, epochs=12, device="cpu")
NOTEBOOK = ROOT / "nbs" / "train.ipynb"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INRFORMER_CACHE", str(tmp_path / "cache"))
    return tmp_path


def weights(run):
    return [p for p in run.model.state_dict().values()]


def test_a_killed_run_gives_the_same_bits(cache):
    whole = run(RunConfig(**SMALL), out=cache / "whole")
    code = f"from pathlib import Path; from inrformer.experiments import RunConfig, run; run(RunConfig(**{SMALL!r}), out=Path({str(cache / 'cut')!r}))"
    folder = cache / "cut" / whole.folder.parent.name / whole.folder.name
    for epoch in (2, 6):
        process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not list(folder.glob(f"checkpoint-{epoch:05d}")) + list(folder.glob(f"checkpoint-{epoch + 1:05d}")) and time.monotonic() < deadline:
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (folder / "summary.json").exists()
    resumed = run(RunConfig(**SMALL), out=cache / "cut")
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))
    same = [{k: v for k, v in h.items()} for h in whole.history]
    assert same == resumed.history and whole.summary["test_accuracy"] == resumed.summary["test_accuracy"]


def test_two_processes_share_the_work_of_one(cache):
    script = cache / "both.py"
    script.write_text(f"from pathlib import Path\nfrom inrformer.experiments import RunConfig, run\nrun(RunConfig(**{SMALL | dict(epochs=2)!r}), out=Path({str(cache / 'two')!r}))\n")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    subprocess.run(command, cwd=cache, env=os.environ | dict(PYTHONPATH=str(ROOT)), stdin=subprocess.DEVNULL, check=True, timeout=120)
    one = run(RunConfig(**SMALL | dict(epochs=2)), out=cache / "one")
    two = run(RunConfig(**SMALL | dict(epochs=2)), out=cache / "two")
    assert json.loads((two.folder / "env.json").read_text())["processes"] == 2
    assert max((a - b).abs().max() for a, b in zip(weights(one), weights(two), strict=True)) < 1e-4
    for a, b in zip(one.history, two.history, strict=True):
        assert a["cross_entropy"] == pytest.approx(b["cross_entropy"], rel=1e-4) and a["crop_error"] == pytest.approx(b["crop_error"], rel=1e-4)


def test_memory_that_does_not_suffice_is_explained_and_loses_nothing(cache, monkeypatch):
    def full(*arguments):
        raise torch.cuda.OutOfMemoryError("out of memory")

    monkeypatch.setattr(Workers, "gradients", full)
    with pytest.raises(MemoryError, match="batches of 64 INRs: use a smaller batch_size"):
        run(RunConfig(**SMALL), out=cache)
    monkeypatch.undo()
    monkeypatch.setenv("INRFORMER_CACHE", str(cache / "cache"))
    assert run(RunConfig(**SMALL), out=cache).summary


def test_a_checkpoint_of_another_config_is_refused(cache):
    first = run(RunConfig(**SMALL), out=cache)
    other = first.folder.with_name(run_id(RunConfig(**SMALL, lr=0.5)))
    first.folder.rename(other)
    (other / "summary.json").unlink()
    with pytest.raises(ValueError, match=r"belongs to another config \(lr: 0.002 there, 0.5 here\)"):
        run(RunConfig(**SMALL, lr=0.5), out=cache)


def test_a_run_stopped_between_epochs_is_resumed(cache):
    answers = iter([False, True])
    stopped = run(RunConfig(**SMALL), out=cache / "cut", stop=lambda: next(answers))
    assert stopped.summary is None and len(stopped.history) == 2
    (stopped.folder / "metrics.jsonl").write_text("")
    resumed, whole = run(RunConfig(**SMALL), out=cache / "cut"), run(RunConfig(**SMALL), out=cache / "whole")
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))
    assert resumed.history == whole.history


def test_a_damaged_checkpoint_is_named(cache):
    stopped = run(RunConfig(**SMALL), out=cache, stop=lambda: True)
    damaged = next(stopped.folder.glob("checkpoint-*")) / "optimizer.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(ValueError, match="checkpoint-00001 is damaged"):
        run(RunConfig(**SMALL), out=cache)


def test_a_run_stays_with_its_images_finished_or_not(cache):
    cfg = RunConfig(dataset=str(cache / "mine-{split}.parquet"), **SMALL | dict(n_train=12, n_test=6, epochs=2))

    def write(seed):
        for split, n in (("train", 12), ("test", 6)):
            write_table(cache / f"mine-{split}.parquet", images=pictures(n, 8, 8, seed=seed + n), labels=[i % 2 for i in range(n)])

    write(0)
    stopped = run(cfg, out=str(cache), stop=lambda: True)
    write(100)
    with pytest.raises(ValueError, match=r"checkpoint-00001 belongs to another config \(images_digest: '\w+' there, '\w+' here\)"):
        run(cfg, out=cache)
    write(0)
    assert run(cfg, out=cache).summary["images_digest"] in (stopped.folder / "checkpoint-00002" / "state.json").read_text()
    write(100)
    with pytest.raises(ValueError, match="is a run on other images named 'mine'"):
        run(cfg, out=cache)


def test_two_processes_do_not_work_on_one_run(cache):
    cfg = RunConfig(**SMALL | dict(epochs=1))
    with lock(cache / "digits" / run_id(cfg)):
        with pytest.raises(RuntimeError, match=f"another process is at the run .*{run_id(cfg)}"):
            run(cfg, out=cache)
    assert run(cfg, out=cache).summary


SHARED_SWEEP = """
import sys
from pathlib import Path
from inrformer.experiments import RunConfig, sweep
small, out = eval(sys.argv[1]), Path(sys.argv[2])
found = sweep([RunConfig(**small | dict(fit_lr=1e15)), RunConfig(**small), RunConfig(**small, seed=1)], "example", out=out, folder=out)
print("said", [r["error"][:40] if r["error"] else r["run_id"] for r in (dict(error=None) | r for r in found)])
"""


def test_processes_that_share_a_sweep_agree_on_what_failed_and_what_is_taken(cache):
    "The first row cannot be fitted, another process is at the second: both processes go on to the third."
    small = SMALL | dict(epochs=1)
    (cache / "script.py").write_text(SHARED_SWEEP)
    with lock(cache / "example" / run_id(RunConfig(**small))):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(cache / "script.py"), repr(small), str(cache)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1"))
    said = [line for line in done.stdout.splitlines() if line.startswith("said")]
    assert len(said) == 2 and said[0] == said[1], done.stderr[-3000:]
    assert "fits diverged" in said[0] and run_id(RunConfig(**small, seed=1)) in said[0] and run_id(RunConfig(**small)) not in said[0]


def test_what_is_damaged_or_gone_of_a_finished_run_is_named(cache):
    done = run(RunConfig(**SMALL | dict(epochs=1)), out=cache)
    shutil.rmtree(next(done.folder.glob("checkpoint-*")))
    with pytest.raises(FileNotFoundError, match=f"no checkpoint in .*{done.folder.name}"):
        done.model
    (done.folder / "metrics.jsonl").write_text('{"epoch":')
    with pytest.raises(ValueError, match="line 1 of .*metrics.jsonl is damaged"):
        done.history
    (done.folder / "summary.json").write_text('{"test_accuracy":')
    with pytest.raises(ValueError, match="summary.json is damaged"):
        run(RunConfig(**SMALL | dict(epochs=1)), out=cache)


def test_two_precisions_run_in_one_process(cache):
    for precision in ("bf16", "fp32"):
        assert run(RunConfig(**SMALL | dict(epochs=1), precision=precision), out=cache).summary


def test_the_run_shown_last_is_the_last_run(cache):
    first, _ = (run(RunConfig(**SMALL | dict(epochs=1), seed=s), out=cache) for s in (0, 1))
    run(RunConfig(**SMALL | dict(epochs=1), seed=0), out=cache)
    assert last_run(str(cache)).folder == first.folder


def test_a_finished_run_is_skipped_and_another_seed_is_another_run(cache):
    first = run(RunConfig(**SMALL), out=cache)
    written = (first.folder / "summary.json").stat().st_mtime_ns
    assert run(RunConfig(**SMALL), out=cache).folder == first.folder
    assert (first.folder / "summary.json").stat().st_mtime_ns == written
    assert run_id(RunConfig(**SMALL, seed=1)) != first.folder.name


def test_the_test_sets_have_both_inits(cache):
    summary = run(RunConfig(**SMALL), out=cache).summary
    assert {"test_accuracy", "test_other_accuracy", "fit_seconds", "train_seconds", "psnr", "parameters", "protocol", "device"} <= summary.keys()
    assert summary["invariance_error"] < 1e-10
    with pytest.raises(ValueError, match="independent"):
        run(RunConfig(**SMALL, init="independent", test_init="other"), out=cache)


def test_a_budget_stops_at_a_checkpoint_and_the_sweep_goes_on(cache):
    configs = [RunConfig(**SMALL, seed=s) for s in (0, 1)]
    assert sweep(configs, "example", out=cache, folder=cache / "records", budget=0.0) == []
    done = sweep(configs, "example", out=cache, folder=cache / "records")
    assert [r["summary"]["protocol"] for r in done] == ["custom", "custom"]
    assert {r["run_id"] for r in done} == {run_id(cfg) for cfg in configs}


@pytest.mark.parametrize(("name", "value", "message"), [
    ("hint", 60, "the nearest are 49 and 64"), ("heads", 3, "does not split into 3 heads"), ("model", "huge", "model must be one of"),
    ("init", "random", "init must be one of"), ("hidden", "12x12", "widths joined by"), ("device", "tpu", "device must be one of"),
    ("precision", "fp8", "precision must be"), ("lr", -1.0, "lr must be a positive number"), ("protocol", "imagenet", "protocol must be one of"),
    ("edge_dim", 7, "edge_dim must be even"), ("omega", -1.0, "omega must be a positive number"), ("weight_decay", float("nan"), "weight_decay must be at least 0"),
    ("copies", 2, "the same INR again"), ("seed", 2**70, "seed must be at least 0"), ("hint", -4, "at least 1"), ("n_train", 99999, "99999"),
    ("dataset", "no/such/{split}.parquet", "no file"), ("hidden", "12-0", "widths joined by"), ("max_frequency", -1.0, "max_frequency must be"),
])
def test_configs_that_cannot_run_are_refused_before_anything_happens(cache, name, value, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(RunConfig(**{name: value}), out=cache)
    assert list(cache.iterdir()) == []


def test_the_parameters_cell_is_the_config():
    cells = [c for c in nbformat.read(NOTEBOOK, 4).cells if "parameters" in c.metadata.get("tags", [])]
    assert len(cells) == 1, "exactly one cell of train.ipynb is tagged `parameters`"
    values = {}
    exec(cells[0].source, values)
    found = {k: v for k, v in values.items() if not k.startswith("__")}
    assert found == asdict(RunConfig())


def papermill(*arguments, cache, **options):
    command = [sys.executable, "-m", "papermill", str(NOTEBOOK), *map(str, arguments)]
    env = os.environ | dict(INRFORMER_CACHE=str(cache / "cache"), PYTHONPATH=str(ROOT))
    return subprocess.run(command, cwd=cache, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, **options)


def parameters(values):
    return [word for name, value in values.items() for word in ("-p", name, value)]


def test_a_mistyped_parameter_is_refused(cache):
    done = papermill("out.ipynb", "-p", "hnt", 64, cache=cache)
    assert done.returncode != 0
    assert "no parameter 'hnt'; did you mean 'hint'?" in done.stderr


@pytest.mark.parametrize("name", ["copy", "config_from", "open"])
def test_a_parameter_named_like_something_else_in_the_notebook_is_refused(name, cache):
    done = papermill("out.ipynb", "-p", name, 2, cache=cache)
    assert done.returncode != 0
    assert f"there is no parameter {name!r}" in done.stderr


def test_papermill_runs_and_without_an_output_path_writes_the_notebook_to_its_output(cache):
    small = SMALL | dict(n_train=300, n_test=64, epochs=1)
    done = papermill(*parameters(small), cache=cache)
    assert done.returncode == 0, done.stderr[-3000:]
    notebook = nbformat.reads(done.stdout, 4)
    assert not [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs if o.output_type == "error"]
    found = json.loads(next((cache / "runs").glob("*/*/summary.json")).read_text())
    text = "".join(str(o.get("data", {}).get("text/plain", "")) for c in notebook.cells if c.cell_type == "code" for o in c.outputs)
    assert "parameters" in text and str(found["parameters"]) in text
    pictures = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs if "image/png" in o.get("data", {})]
    assert len(pictures) >= 5


@pytest.mark.slow
def test_the_literal_command_with_its_output_redirected(cache):
    env = os.environ | dict(INRFORMER_CACHE=str(cache / "cache"), PYTHONPATH=str(ROOT), PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    with open(cache / "out.ipynb", "w") as out:
        subprocess.run(["papermill", "nbs/train.ipynb", "-p", "hint", "256"], cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=out, check=True, timeout=1200)
    assert nbformat.read(cache / "out.ipynb", 4).metadata.papermill.exception is None
    summary = last_run(ROOT / "runs").summary
    assert summary["protocol"] == "digits" and summary["test_accuracy"] > 0.9 and summary["invariance_error"] < 1e-10


def test_the_shipped_demo_gives_the_accuracy_of_its_record():
    demo = load_demo()
    with torch.inference_mode():
        logits = demo.model(demo.test.inr).logits
        moved = demo.model(permute(demo.test.inr, random_permutation(demo.test.inr.spec, len(demo.test), generator=torch.Generator().manual_seed(0)))).logits
    assert (logits.argmax(1) == demo.test.labels).double().mean().item() == pytest.approx(demo.record["summary"]["test_accuracy"], abs=1.5 / len(demo.test))
    assert (moved.argmax(1) == logits.argmax(1)).double().mean() >= 1 - 1.5 / len(demo.test)
    assert sum(p.stat().st_size for p in (ROOT / "inrformer" / "demo").iterdir()) < 2_000_000


def test_the_makefile_passes_on_what_the_config_has():
    listed = re.search(r"^PARAMS := ((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(), re.M).group(1).replace("\\", " ").split()
    assert {name.lower() for name in listed} == {f.name for f in fields(RunConfig)}
