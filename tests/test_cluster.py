"Jobs: what is preempted is requeued and goes on from its checkpoint, and parts of a data set are made side by side."

import json
import signal
import sys
import time

import psutil
import pytest
from test_images import pictures, put

from inrformer.cluster import Again, Cluster
from inrformer.config import config_from, run_id
from inrformer.data import Fit, INRDataset
from inrformer.files import read_lines
from inrformer.images import Data
from inrformer.records import records
from inrformer.sweeps import sweep

SMALL = dict(protocol="custom", n_train=30, n_test=6, hidden="4-4", omega=8.0, fit_steps=2, reader="flat", device="cpu", test_init="same", batch_size=2)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Cluster:
    pytest.importorskip("submitit", reason="needs submitit (the extra cluster)")
    monkeypatch.setenv("INRFORMER_CACHE", str(tmp_path / "cache"))
    return Cluster(tmp_path / "logs", where="local", timeout_min=5)


@pytest.mark.slow
def test_a_preempted_row_is_requeued_and_goes_on_from_its_checkpoint(here, tmp_path):
    row = SMALL | dict(epochs=200)
    places = dict(out=tmp_path / "runs", folder=tmp_path / "records")
    (job,) = here.sweep([row], "example", **places)
    run, deadline = tmp_path / "runs" / "example" / run_id(config_from(row)), time.monotonic() + 120
    while len(read_lines(run / "metrics.jsonl")) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    (task,) = [child for child in psutil.Process(int(job.job_id)).children(recursive=True) if "submitit.core._submit" in child.cmdline()]
    task.send_signal(signal.SIGUSR2)
    while "Requeued job" not in (said := f"{job.stdout()}{job.stderr()}") and not job.done() and time.monotonic() < deadline:
        time.sleep(0.05)
    before = read_lines(run / "metrics.jsonl")
    assert 0 < len(before) < 200 and "Requeued job" in said
    job.wait()
    (record,) = records("example", tmp_path / "records")
    assert record["summary"] and [row["epoch"] for row in record["history"]] == list(range(1, 201)) and record["history"][: len(before)] == before
    assert here.sweep([row], "example", **places) == [], "what is on record is not submitted again"


def test_a_job_whose_row_starts_from_another_brings_it(here, tmp_path, monkeypatch):
    monkeypatch.setattr(here, "submit", lambda calls: [call.options["rows"] for call in calls])
    encoder, reader = SMALL, SMALL | dict(epochs=2, start_from=run_id(config_from(SMALL)))
    places = dict(out=tmp_path / "runs", folder=tmp_path / "records")
    assert here.sweep([reader, encoder], "example", **places) == [[encoder, reader], [encoder]]
    assert here.sweep([reader], "example", **places) == [[reader]], "what is not among the rows is nobody's to run"
    third = SMALL | dict(epochs=3, start_from=run_id(config_from(reader)))
    assert here.sweep([encoder, reader, third], "example", **places)[-1] == [encoder, reader, third], "a chain is brought whole"


def test_a_record_of_other_images_of_the_same_name_is_not_taken_for_done(here, tmp_path):
    for place, seed in (("mine", 0), ("others", 1)):
        for i, image in enumerate(pictures(20, 6, 6, seed=seed)):
            put(tmp_path / place / "pets", f"{('cat', 'dog')[i % 2]}/{i}.png", image)
    row = dict(n_train=12, n_test=4, hidden="4", fit_steps=2, reader="deepsets", pair_dim=4, epochs=1, batch_size=4, val_parts=2, device="cpu")
    places = dict(out=tmp_path / "runs", folder=tmp_path / "records")
    sweep([row | dict(dataset=str(tmp_path / "mine" / "pets"))], "example", **places)
    assert here.sweep([row | dict(dataset=str(tmp_path / "mine" / "pets"))], "example", **places) == []
    with pytest.raises(ValueError, match="is of other images named 'pets'"):
        here.sweep([row | dict(dataset=str(tmp_path / "others" / "pets"))], "example", **places)


def test_parts_of_a_data_set_are_jobs(here, tmp_path):
    jobs = here.fit(tmp_path / "inrs", Data(n_train=30, n_test=6), Fit(hidden="4-4", omega=8.0, fit_steps=2, test_init="other"), parts=2, shard_size=10, device="cpu")
    for job in jobs:
        job.result()
    there = INRDataset(tmp_path / "inrs")
    assert json.loads(json.dumps(there.card["inrs"])) == {"train": 30, "test": 6, "test-other": 6, "val-other": 3}


def test_without_submitit_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ModuleNotFoundError, match=r"jobs of a cluster need submitit: pip install '.\[cluster\]'"):
        Cluster(tmp_path)
    seen = []
    Again(lambda **options: seen.append(options), dict(a=1))()
    assert seen == [dict(a=1)]
