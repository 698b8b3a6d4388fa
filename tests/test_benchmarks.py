"The benchmark pages run, keep their records, and refuse what they do not know."

import json
import os
import re
import shutil
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT, parameterized


def benchmark(name: str, folder: Path, *parameters: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "papermill", str(ROOT / "nbs" / "benchmarks" / name), "out.ipynb", "--no-progress-bar", *map(str, parameters)]
    return subprocess.run(command, cwd=folder, env=os.environ | dict(PYTHONPATH=str(ROOT)), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900)


def words(parameters: dict) -> list:
    return [word for name, value in parameters.items() for word in ("-p", name, value)]


def pictures(folder: Path) -> int:
    outputs = [o for c in nbformat.read(folder / "out.ipynb", 4).cells if c.cell_type == "code" for o in c.outputs]
    return sum("image/png" in o.get("data", {}) for o in outputs)


@pytest.mark.parametrize(("page", "name", "value", "message"), [
    ("fitting.ipynb", "repeat", 3, "there are no parameters ['repeat']"), ("fitting.ipynb", "check_parameters", 3, "there are no parameters ['check_parameters']"),
    ("fitting.ipynb", "record", "yes", "of another type than their defaults: {'record': 'yes'}"),
    ("training.ipynb", "repeat", 3, "there are no parameters ['repeat']"), ("readers.ipynb", "repeat", 3, "there are no parameters ['repeat']"), ("seeds.ipynb", "repeat", 3, "there are no parameters ['repeat']"), ("training.ipynb", "batch", "many", "of another type than their defaults"),
])
def test_a_benchmark_refuses_what_it_does_not_know(page, name, value, message):
    top = takewhile(lambda cell: "matplotlib" not in cell, parameterized(ROOT / "nbs" / "benchmarks" / page, **{name: value}))
    with pytest.raises(TypeError, match=re.escape(message)):
        exec("\n".join(top), dict(__name__="__main__"))


def test_the_benchmark_of_fitting_runs_and_keeps_its_record(tmp_path):
    small = dict(n_images=2, steps=2, slice_steps=1, repeats=2, front_steps=8, record=True)
    done = benchmark("fitting.ipynb", tmp_path, *words(small))
    assert done.returncode == 0, done.stderr[-3000:]
    (kept,) = map(json.loads, (tmp_path / "figures" / "benchmarks" / "fitting.jsonl").read_text().splitlines())
    assert kept["config"]["dataset"] == "photo" and kept["config"]["chunk"] == 8 and {"run_id", "env"} <= kept.keys()
    assert {"nn.Module, one by one", "autograd, batched", "fit"} == kept["summary"]["side_by_side"].keys()
    assert abs(kept["summary"]["psnr_difference"]) < 0.01 and len(kept["summary"]["front"]) >= 1
    assert pictures(tmp_path) == 3


@pytest.mark.slow
def test_the_benchmark_of_training_runs_and_keeps_its_record(tmp_path):
    (tmp_path / "nbs").mkdir()
    (tmp_path / "settings.ini").touch()
    (tmp_path / "figures").mkdir()
    shutil.copy(ROOT / "figures" / "published.csv", tmp_path / "figures")
    small = dict(batch=2, hidden="6-6", warmup=1, repeats=3, compiled=False, growth_batch=2, growth_widths="4-8", growth_depths="2-3", growth_batches="2-4", growth_dims="16-32")
    done = benchmark("training.ipynb", tmp_path, *words(small))
    assert done.returncode == 0, done.stderr[-3000:]
    assert pictures(tmp_path) == 6
    (record,) = map(json.loads, (tmp_path / "figures" / "benchmarks" / "training.jsonl").read_text().splitlines())
    assert {row["index"] for row in record["splits"]} == {"demo", "tiny", "even", "base"}
    assert sum(row["per cent"] for row in record["profile"]) == pytest.approx(100, abs=0.01)
    assert all(row["INRs/s"] > 0 and row["GFLOP per INR"] > 0 for row in record["splits"])


def test_the_benchmark_of_seeds_runs_and_keeps_its_record(tmp_path):
    done = benchmark("seeds.ipynb", tmp_path, *words(dict(images=3, seeds="0, 101-102")))
    assert done.returncode == 0, done.stderr[-3000:]
    (kept,) = map(json.loads, (tmp_path / "figures" / "benchmarks" / "seeds.jsonl").read_text().splitlines())
    assert [(line["INRs"], line["seed"]) for line in kept["summary"]["lines"]] == [("digits", 0), ("digits", 101), ("digits", 102)] and pictures(tmp_path) == 1


@pytest.mark.slow
def test_the_benchmark_of_readers_runs_and_keeps_its_record(tmp_path):
    done = benchmark("readers.ipynb", tmp_path, *words(dict(batch=2, repeats=1, only="deepsets,inr2vec")))
    assert done.returncode == 0, done.stderr[-3000:]
    (kept,) = map(json.loads, (tmp_path / "figures" / "benchmarks" / "readers.jsonl").read_text().splitlines())
    assert {line["reader"] for line in kept["summary"]["readers"]} == {"deepsets, pair_dim 64", "inr2vec", "inr2vec, model published"}
    assert all(line["INRs/s"] > 0 and line["MB"] > 0 for line in kept["summary"]["readers"]) and pictures(tmp_path) == 1
