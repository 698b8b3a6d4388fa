"Building data sets of INRs that survive kills and damage, opening them once, and cutting them into what trains and what validates."

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import ROOT
from huggingface_hub import DatasetCard

from inrformer import __main__ as command_line
from inrformer import data, files
from inrformer.data import SHARDS, Fit, INRDataset, build_dataset, check_apart, count_shards, data_card, fit_dataset, parse_spec, read_card, store_dataset
from inrformer.files import lock
from inrformer.fitting import code_path
from inrformer.images import Data, Images, load_images
from inrformer.inr import INRSpec, Statistics, pixel_grid
from inrformer.splits import held_out
from inrformer.symmetry import permute, random_permutation

SPEC = INRSpec(widths=(2, 12, 12, 1), omega=8.0)
VALIDATES = held_out(load_images("digits", "train", 60).ids, parts=10, part=-1).tolist()
SETTINGS = dict(steps=100, lr=1e-2, init="pool", inits=3, copies=2, test_init="other", val_ids=VALIDATES, shard_size=16, device="cpu")
KILLED = """
import sys
from inrformer.data import build_dataset
from inrformer.images import load_images
from inrformer.inr import INRSpec
train, test = load_images("digits", "train", 60), load_images("digits", "test", 12)
build_dataset(sys.argv[1], train, test, INRSpec(widths=(2, 12, 12, 1), omega=8.0), **%r)
"""


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def digits() -> tuple[Images, Images]:
    return load_images("digits", "train", 60), load_images("digits", "test", 12)


@pytest.fixture(scope="module")
def unkilled(digits, tmp_path_factory) -> INRDataset:
    return build_dataset(tmp_path_factory.mktemp("unkilled"), *digits, SPEC, **SETTINGS)


@pytest.fixture
def small(digits, tmp_path) -> tuple[Path, callable]:
    "A finished data set, and how to build it again."
    def build(**changes) -> INRDataset:
        return build_dataset(tmp_path / "set", digits[0][:20], digits[1][:6], SPEC, **dict(steps=20, lr=1e-2, shard_size=8, device="cpu") | changes)

    return build().folder, build


def assert_equal(a: INRDataset, b: INRDataset) -> None:
    assert a.splits == b.splits
    for one, other in zip(map(a.split, a.splits), map(b.split, b.splits)):
        assert torch.equal(one.inr.flat(), other.inr.flat())
        for name in ("labels", "ids", "psnr", "init_seeds"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name


def dates(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob(SHARDS)}


# building


def test_a_killed_build_goes_on_and_gives_the_same(unkilled, digits, tmp_path):
    folder = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", KILLED % SETTINGS, str(folder)], cwd=ROOT, start_new_session=True)
    end = time.monotonic() + 120
    while len(list(folder.glob(SHARDS))) < 2:
        assert process.poll() is None and time.monotonic() < end, "the build ended before it could be killed"
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = dates(folder)
    assert 2 <= len(kept) < len(unkilled.card["shards"]) and not (folder / "card.json").exists()
    with pytest.raises(FileNotFoundError, match="unfinished: call build_dataset with the same arguments"):
        INRDataset(folder)
    seconds = json.loads((folder / "build.json").read_text())["shards"]
    resumed = build_dataset(folder, *digits, SPEC, **SETTINGS)
    assert_equal(resumed, unkilled)
    assert {name: date for name, date in dates(folder).items() if name in kept} == kept
    assert resumed.card["digest"] == unkilled.card["digest"]
    journal = json.loads((folder / "build.json").read_text())["shards"]
    assert all(journal[name] == seconds[name] for name in kept)
    assert not list(folder.glob(".*"))


def test_shard_size_makes_no_difference(unkilled, digits, tmp_path):
    other = build_dataset(tmp_path, *digits, SPEC, **SETTINGS | dict(shard_size=17))
    assert_equal(other, unkilled)
    assert other.card["digest"] == unkilled.card["digest"]


def contents(folder: Path) -> dict[str, bytes]:
    "All files but the journal, which notes times."
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "build.json"}


@pytest.mark.parametrize("order", [[2, 1], [3, 1, 5, 2, 4], [12, *range(1, 12)]])
def test_however_it_is_cut_the_files_are_the_same(order, unkilled, digits, tmp_path):
    n = len(order)
    built = [build_dataset(tmp_path, *digits, SPEC, **SETTINGS, part=(k, n)) for k in order]
    whole = contents(unkilled.folder)
    last = max(i for i, k in enumerate(order) if k <= len(unkilled.card["shards"]))
    assert all(x is None for x in built[:last]) and all(x is not None for x in built[last:])
    assert contents(tmp_path) == whole and {"card.json", "index.parquet", "README.md", "test-other-00000.safetensors"} <= whole.keys()
    for k in (0, n + 1):
        with pytest.raises(ValueError, match=f"part {k}/{n} does not exist: the parts of {n} are 1/{n} to {n}/{n}"):
            build_dataset(tmp_path, *digits, SPEC, **SETTINGS, part=(k, n))


WORKER = """
import os, sys, time
from pathlib import Path
from inrformer import data
from inrformer.images import load_images
write = data.Build.write

def logged(build, shard, *rest):
    with open(sys.argv[2], "a") as log:
        log.write(f"{os.getpid()} {shard.file}\\n")
    time.sleep(0.05)
    write(build, shard, *rest)

data.Build.write = logged
train, test = load_images("digits", "train", 60), load_images("digits", "test", 12)
Path(sys.argv[2] + str(os.getpid())).touch()
while len(list(Path(sys.argv[2]).parent.glob("log*"))) < int(sys.argv[3]):
    time.sleep(0.001)
data.build_dataset(sys.argv[1], train, test, data.INRSpec(widths=(2, 12, 12, 1), omega=8.0), **%r)
"""


def start_workers(n: int, folder: Path, log: Path) -> list[subprocess.Popen]:
    "Workers that start to fit at the same time and write a line to `log` for every shard that they begin to write."
    command = [sys.executable, "-c", WORKER % SETTINGS, str(folder), str(log), str(n)]
    return [subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.PIPE) for _ in range(n)]


def test_two_workers_share_a_folder_and_never_a_shard(unkilled, tmp_path):
    workers = start_workers(2, tmp_path / "set", tmp_path / "log")
    assert [(worker.communicate(timeout=120)[1].decode(), worker.returncode) for worker in workers] == [("", 0)] * 2
    written = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(name for _, name in written) == sorted(unkilled.card["shards"])
    assert {int(pid) for pid, _ in written} == {worker.pid for worker in workers}
    assert contents(tmp_path / "set") == contents(unkilled.folder)


def test_a_worker_takes_over_from_one_that_was_killed(unkilled, tmp_path):
    folder, log = tmp_path / "set", tmp_path / "log"
    killed, other = start_workers(2, folder, log)
    end = time.monotonic() + 120
    while not (log.exists() and str(killed.pid) in log.read_text()):
        assert killed.poll() is None and time.monotonic() < end, "the worker ended before it could be killed"
        time.sleep(0.001)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL and other.wait(timeout=120) == 0, other.stderr.read().decode()
    begun = [line.split()[1] for line in log.read_text().splitlines()]
    assert len(begun) - len(unkilled.card["shards"]) in (0, 1), "at most one shard is lost"
    assert contents(folder) == contents(unkilled.folder)


def test_locks_of_the_dead_are_not_stale(small):
    folder, build = small
    whole = INRDataset(folder)
    (folder / "train-00001.safetensors").unlink()
    for name in ("train-00001.safetensors", "build.json", "card.json"):
        (folder / f".{name}.lock").touch()
    assert_equal(build(), whole)
    assert not list(folder.glob(".*"))


def test_a_data_card_is_in_the_hubs_format(unkilled):
    card = DatasetCard.load(unkilled.folder / "README.md")
    assert card.data.pretty_name == "INRs of digits" and card.data.size_categories == ["n<1K"] and card.data.configs[0]["data_files"] == "index.parquet"
    for told in ("the kind siren, of widths 2-12-12-1 (205 parameters)", "sin(omega (W^l z^{l-1} + b^l))", "| omega | 8.0 |", "W1, b1, W2, b2, W3, b3 after each other", f"| train | 120 | {unkilled.card['psnr']['train']['mean']:.2f} |",
                 "| steps | 100 |", "| init | pool |", "| device | cpu |", f"| code | {unkilled.card['code']} |", f"| digest | {unkilled.card['digest']} |"):
        assert told in card.text, told


# the command line


LINE = ["digits", "--spec", "2-12-12-1,omega=8", "--n-train", "60", "--n-test", "12", "--steps", "100", "--lr", "1e-2", "--init", "pool", "--inits", "3",
        "--copies", "2", "--test-init", "other", "--shard-size", "16", "--device", "cpu"]


def test_the_command_line_builds_the_same_in_parts(unkilled, tmp_path, capsys):
    folder = tmp_path / "set"
    line = ["fit", LINE[0], str(folder), *LINE[1:], "--shard"]
    done = subprocess.run([sys.executable, "-m", "inrformer", *line, "2/2"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "part 2/2 is there; other parts are missing\n") and "INR/s" in done.stderr and "psnr=" in done.stderr
    command_line.main([*line, "1/2"])
    assert "INRDataset('digits'" in capsys.readouterr().out
    assert contents(folder) == contents(unkilled.folder)


def test_a_part_of_more_than_there_are_shards_says_that_it_is_empty(tmp_path, capsys):
    line = ["digits", str(tmp_path / "set"), *LINE[1:], "--copies", "1", "--test-init", "same", "--shard-size", "1024", "--steps", "2"]
    empty = "part 9/9 is empty: there are only 2 shards; a smaller --shard-size makes more\n"
    for part, told in {"9/9": empty, "1/9": "part 1/9 is there; other parts are missing\n", "3/9": empty.replace("9/9", "3/9")}.items():
        command_line.main(["fit", *line, "--shard", part])
        assert capsys.readouterr().out == told
    command_line.main(["fit", *line, "--shard", "2/9"])
    assert "INRDataset('digits'" in capsys.readouterr().out


@pytest.mark.parametrize("change, message", {
    ("--shard", "0/2"): "part 0/2 does not exist: the parts of 2 are 1/2 to 2/2",
    ("--shard", "3/2"): "part 3/2 does not exist",
    ("--shard", "3"): "write its number and how many there are, as in 3/16",
    ("--spec", "2-12-12"): "do not fit INRSpec",
    ("--spec", "2x12x1"): "write widths, then fields, as in 2-32-32-3,omega=20",
    ("--spec", "2-12-1,omga=8"): "a spec has no fields ['omga']",
    ("--spec", "2-12-1,omega=fast"): "'2-12-1,omega=fast' is no spec: could not convert",
    ("--spec", "2-12-1,omega=-1"): "omega must be a positive number",
    ("--steps", "0"): "steps must be at least 1",
    ("--steps", "many"): "invalid int value",
    ("--stride", "3"): "stride must divide",
    ("--n-train", "2000"): "the train split of digits has 1437 images and 2000 were asked for: set n_train (N_TRAIN for make) to 1..1437",
    ("--init", "random"): "invalid choice",
    ("--copies", "4"): "needs a pool of more than 3 inits",
    ("--device", "foo"): "there is no device 'foo' to fit on here: choose one of [",
    ("--device", "meta"): "there is no device 'meta' to fit on here",
    ("--device", "cuda:99"): "there is no device 'cuda:99' to fit on here",
}.items())
def test_bad_lines_say_what_is_wrong(change, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        command_line.main(["fit", LINE[0], str(tmp_path / "set"), *LINE[1:], *change])
    assert stopped.value.code == 2 and message in capsys.readouterr().err and not (tmp_path / "set").exists()


def test_a_missing_source_and_another_data_set_end_the_line(small, capsys):
    folder, _ = small
    for source, message in {"nothing": "is not \"digits\", a Hub name", "digits": "holds another data set: steps is 20 there and 100 here"}.items():
        with pytest.raises(SystemExit):
            command_line.main(["fit", source, str(folder), *LINE[1:]])
        assert message in capsys.readouterr().err


def test_one_image_alone_gives_the_same_inr(unkilled, digits, tmp_path):
    train, test = digits
    k = unkilled.split("train").ids.tolist().index(unkilled.split("val-other").ids[2])
    alone = build_dataset(tmp_path, train[k : k + 1], test[7:8], SPEC, **SETTINGS | dict(val_ids=train.ids[k : k + 1].tolist()))
    for name, places in {"train": [k, 60 + k], "test": [7], "test-other": [7], "val-other": [2]}.items():
        assert torch.equal(alone.split(name).inr.flat(), unkilled.split(name).inr[places].flat())


def test_what_a_data_set_says_of_itself(unkilled, digits):
    card, train = unkilled.card, unkilled.split("train")
    assert (card["images"], card["init"], card["inits"], card["copies"], card["steps"], card["lr"]) == ("digits", "pool", 3, 2, 100, 1e-2)
    assert card["device"] == "cpu" and card["image_range"] == [-1, 1] and card["image_shape"] == [8, 8, 1]
    journal = json.loads((unkilled.folder / "build.json").read_text())["shards"]
    assert unkilled.fit_seconds == sum(entry["fit_seconds"] for entry in journal.values()) > 0 and journal.keys() == card["shards"].keys()
    assert (card["stride"], card["inrs"]) == (1, {"train": 120, "test": 12, "test-other": 12, "val-other": 6}) and card["code"] == code_path(torch.device("cpu"))
    assert unkilled.spec == SPEC and len(unkilled.index) == 60 * 2 + 12 * 2 + 6
    assert card["psnr"]["train"]["mean"] == pytest.approx(train.psnr.mean().item()) and card["psnr"]["train"]["mean"] > 28
    assert list(card["psnr"]["test"]["quantiles"]) == ["0", "0.05", "0.5", "0.95", "1"]
    assert torch.equal(train.labels, digits[0].labels.repeat(2)) and torch.equal(train.ids, digits[0].ids.repeat(2))
    rendered = train.inr[:1](pixel_grid(8, 8))[0].unflatten(0, (8, 8))
    assert (rendered - (digits[0].images[0] * 2 - 1)).abs().max() < 0.2


def test_other_starts_are_unseen(unkilled):
    seeds = {name: set(unkilled.split(name).init_seeds.tolist()) for name in unkilled.splits}
    assert seeds["test"] <= seeds["train"] and len(seeds["train"]) == len(seeds["test-other"]) == 3 >= len(seeds["val-other"])
    assert not any(a & b for a, b in ((seeds["test-other"], seeds["train"]), (seeds["val-other"], seeds["train"]), (seeds["val-other"], seeds["test-other"])))


@pytest.mark.parametrize("init", ["shared", "independent"])
def test_other_init_policies(init, digits, tmp_path):
    built = build_dataset(tmp_path, digits[0][:6], digits[1][:4], SPEC, steps=3, lr=1e-2, init=init)
    seeds = torch.cat([built.split(name).init_seeds for name in built.splits])
    assert len(seeds.unique()) == (1 if init == "shared" else 10) and built.card["inits"] is None


def test_a_finished_set_is_only_opened(small, monkeypatch):
    folder, build = small
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    monkeypatch.setattr(data, "fit", None)
    build(), build(shard_size=5)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [truncate, alter, Path.unlink])
def test_a_damaged_shard_is_named_and_fitted_again_alone(harm, small):
    folder, build = small
    whole, before = INRDataset(folder), dates(folder)
    harm(folder / "train-00001.safetensors")
    with pytest.raises((ValueError, FileNotFoundError), match=r"train-00001.safetensors is (damaged.*delete it and|missing:) build again"):
        INRDataset(folder)
    assert_equal(build(), whole)
    assert [name for name, date in dates(folder).items() if before[name] != date] == ["train-00001.safetensors"]


@pytest.mark.parametrize("harm", [truncate, alter])
def test_damage_is_noticed_in_an_unfinished_build_too(harm, small):
    folder, build = small
    whole = INRDataset(folder)
    (folder / "card.json").unlink()
    harm(folder / "test-00000.safetensors")
    assert_equal(build(), whole)


def test_a_damaged_index_or_card_is_named_and_made_again(small, monkeypatch):
    folder, build = small
    whole = INRDataset(folder)
    monkeypatch.setattr(data, "fit", None)
    alter(folder / "index.parquet")
    with pytest.raises(ValueError, match="index.parquet is damaged"):
        INRDataset(folder)
    assert_equal(build(), whole)
    truncate(folder / "card.json")
    for attempt in (build, lambda: INRDataset(folder)):
        with pytest.raises(ValueError, match=r"card.json is damaged .* delete it and build again"):
            attempt()
    (folder / "card.json").unlink()
    assert_equal(build(), whole)


@pytest.mark.parametrize("name", ["card.json", "build.json"])
@pytest.mark.parametrize("content", ["{}", "[]", '{"spec": {}}', "3", "null"])
def test_json_that_is_not_ours_is_damage(name, content, small):
    folder, build = small
    (folder / name).write_text(content)
    for attempt in (build, lambda: INRDataset(folder).fit_seconds):
        with pytest.raises(ValueError, match=rf"{name} is damaged .* delete (it|its folder) and build again"):
            attempt()


def test_a_deleted_data_card_is_written_again(small, monkeypatch):
    folder, build = small
    whole = contents(folder)
    monkeypatch.setattr(data, "fit", None)
    (folder / "README.md").unlink()
    build()
    assert contents(folder) == whole


def test_an_index_that_says_otherwise_is_noticed(small):
    folder, _ = small
    index = pq.read_table(folder / "index.parquet")
    labels = index["label"].to_numpy().copy()
    labels[3] += 1
    pq.write_table(index.set_column(0, "label", pa.array(labels)), folder / "index.parquet")
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | dict(index=files.sha256(folder / "index.parquet"))))
    with pytest.raises(ValueError, match=r"train-00000.safetensors does not hold what index.parquet says \(label\)"):
        INRDataset(folder)


@pytest.mark.parametrize("change", [dict(steps=21), dict(lr=2e-2), dict(init="independent"), dict(seed=1)])
def test_another_config_is_refused_by_name(change, small):
    folder, build = small
    (name, value), before = *change.items(), dates(folder)
    with pytest.raises(ValueError, match=f"holds another data set: {name} is .* there and {value} here"):
        build(**change)
    assert dates(folder) == before and INRDataset(folder)


def test_other_images_are_refused(small, digits):
    folder, _ = small
    with pytest.raises(ValueError, match="images_digest"):
        build_dataset(folder, digits[0][20:40], digits[1][:6], SPEC, steps=20, lr=1e-2)


@pytest.mark.parametrize("here", [dict(device="meta"), dict(code="another torch")])
def test_what_rounds_differently_is_refused_unless_nothing_is_missing(here, small, monkeypatch):
    folder, build = small
    monkeypatch.setattr(data, "pick_device", lambda device: torch.device(here.get("device", device)))
    monkeypatch.setattr(data, "code_path", lambda device: here.get("code", "the same"))
    assert len(build().index) == 26
    (folder / "test-00000.safetensors").unlink()
    before = dates(folder)
    with pytest.raises(ValueError, match="was begun on .*, and (meta|another torch) rounds differently: go on there"):
        build()
    assert dates(folder) == before


def test_a_worker_of_another_data_set_cannot_write(small, digits, monkeypatch):
    folder, build = small
    other, fit_shard = folder.parent / "other", data._fit_shard

    def overtaken(*arguments):
        monkeypatch.setattr(data, "_fit_shard", fit_shard)
        build_dataset(other, digits[0][:20], digits[1][:6], SPEC, steps=3, lr=1e-2, device="cpu", part=(1, 2))
        return fit_shard(*arguments)

    monkeypatch.setattr(data, "_fit_shard", overtaken)
    with pytest.raises(ValueError, match="holds another data set: steps is 3 there and 2 here"):
        build_dataset(other, digits[0][:20], digits[1][:6], SPEC, steps=2, lr=1e-2, device="cpu", part=(2, 2))
    assert json.loads((other / "build.json").read_text())["steps"] == 3


def test_a_build_goes_on_with_its_own_penalty_alone(digits, tmp_path):
    spec = INRSpec(widths=(2, 4, 4, 1), kind="mfn")

    def build(folder, part=(1, 1), **penalty):
        return build_dataset(tmp_path / folder, digits[0][:9], digits[1][:3], spec, steps=3, lr=1e-2, shard_size=4, device="cpu", part=part, **penalty)

    for folder, begun in (("without", {}), ("with", dict(penalty=10.0))):
        assert build(folder, (1, 2), **begun) is None
        for other in ({}, dict(penalty=5.0), dict(penalty=10.0)):
            if other != begun:
                with pytest.raises(ValueError, match=f"holds another data set: penalty is {dict(without=None).get(folder, 10.0)} there and {other.get('penalty')} here"):
                    build(folder, (2, 2), **other)
    plain, held = build("without"), build("with", penalty=10.0)
    assert held.card["penalty"] == 10.0 and "| penalty | 10.0 |" in data_card(held.card) and INRDataset(held.folder).recipe == held.recipe
    assert "penalty" not in plain.card and "penalty" not in data_card(plain.card) and plain.recipe != held.recipe and plain.digest != held.digest


def test_a_folder_of_unknown_shards_is_left_alone(small):
    folder, build = small
    (folder / "card.json").unlink(), (folder / "build.json").unlink()
    before = dates(folder)
    with pytest.raises(ValueError, match="neither card.json nor build.json"):
        build()
    assert dates(folder) == before


def test_a_failed_start_does_not_bind_the_folder(digits, tmp_path):
    with pytest.raises(ValueError, match="smaller learning rate"):
        build_dataset(tmp_path, digits[0][:4], digits[1][:4], SPEC, steps=50, lr=1e20)
    assert len(build_dataset(tmp_path, digits[0][:4], digits[1][:4], SPEC, steps=2, lr=1e-2).index) == 8


def test_progress_is_one_bar(digits, tmp_path, capsys):
    build_dataset(tmp_path, digits[0][:9], digits[1][:4], SPEC, steps=2, lr=1e-2, shard_size=3, progress=True)
    shown = capsys.readouterr().err
    assert "fitting digits" in shown and "13/13" in shown and "INR/s" in shown and "psnr=" in shown


# opened once


def counted(monkeypatch, opens: callable) -> tuple[dict[str, int], dict[str, int]]:
    "How often each file was hashed, and each JSON file read."
    hashed, read, digest, text = {}, {}, files.hashlib.file_digest, Path.read_text

    def file_digest(file, kind):
        name = Path(file.name).name.removeprefix(".").removesuffix(f".{os.getpid()}.tmp")
        hashed[name] = hashed.get(name, 0) + 1
        return digest(file, kind)

    def read_text(path, *rest, **how):
        read[path.name] = read.get(path.name, 0) + 1
        return text(path, *rest, **how)

    with monkeypatch.context() as patched:
        patched.setattr(files.hashlib, "file_digest", file_digest), patched.setattr(Path, "read_text", read_text)
        opens()
    return hashed, read


def test_a_finished_set_is_hashed_once_and_remembered(unkilled, digits, monkeypatch, tmp_path):
    monkeypatch.setenv("INRFORMER_CACHE", str(tmp_path))
    once = {name: 1 for name in (*unkilled.card["shards"], "index.parquet")}
    assert counted(monkeypatch, lambda: read_card(unkilled.folder)) == ({}, {"card.json": 1})
    monkeypatch.setattr(data, "FRESH", 1e6)
    hashed, read = counted(monkeypatch, lambda: INRDataset(unkilled.folder))
    assert hashed == once and read["card.json"] == 1 and not list((tmp_path / "verified").glob("*.json")), "fresh files are not noted"
    monkeypatch.setattr(data, "FRESH", -1e6)
    assert counted(monkeypatch, lambda: INRDataset(unkilled.folder))[0] == once
    for again in (lambda: INRDataset(unkilled.folder), lambda: build_dataset(unkilled.folder, *digits, SPEC, **SETTINGS)):
        assert counted(monkeypatch, again)[0] == {}
    assert counted(monkeypatch, INRDataset(unkilled.folder).verify)[0] == once
    opened = INRDataset(unkilled.folder)
    assert_equal(opened, unkilled)
    assert counted(monkeypatch, lambda: [opened.fit_seconds, opened.fit_seconds, opened.split("test"), opened.digest]) == ({}, {"build.json": 1})


def test_what_was_noted_counts_for_the_same_file_alone(small, monkeypatch, tmp_path):
    folder, _ = small
    monkeypatch.setenv("INRFORMER_CACHE", str(tmp_path / "notes")), monkeypatch.setattr(data, "FRESH", -1e6)
    INRDataset(folder)
    (notes,) = (tmp_path / "notes" / "verified").iterdir()
    shard = folder / "train-00001.safetensors"
    there, content = shard.stat(), bytearray(shard.read_bytes())
    content[-5] ^= 1
    shard.write_bytes(content), os.utime(shard, ns=(there.st_atime_ns, there.st_mtime_ns))
    with pytest.raises(ValueError, match="train-00001.safetensors is damaged"):
        INRDataset(folder).verify()
    os.utime(shard, ns=(there.st_atime_ns, there.st_mtime_ns + 1))
    with pytest.raises(ValueError, match="train-00001.safetensors is damaged"):
        INRDataset(folder)
    for damage in ("", "[]", "{\"index.parquet\": 5}"):
        notes.write_text(damage)
        with pytest.raises(ValueError, match="train-00001.safetensors is damaged"):
            INRDataset(folder)


def test_a_set_larger_than_what_is_held_is_read_where_it_lies(unkilled, monkeypatch, tmp_path):
    monkeypatch.setattr(data, "HELD", 40 * SPEC.n_params * 4)
    large = INRDataset(unkilled.folder)
    whole, stored = unkilled.split("train"), large.split("train")
    assert isinstance(stored.inr, data.StoredINR) and not isinstance(large.split("test").inr, data.StoredINR) and len(stored) == len(stored.inr) == 120
    assert (stored.inr.dtype, stored.inr.device, repr(stored.inr)) == (whole.inr.dtype, whole.inr.device, repr(whole.inr)) and stored.to("cpu").inr is stored.inr
    for index in (torch.randperm(120, generator=seeded(0)), slice(3, 110, 2), [119, 0, 64, 64], whole.labels > 4, torch.tensor([5])):
        part = stored[index]
        assert isinstance(part.inr, data.StoredINR) == (len(part) > 40) and torch.equal(part.inr.flat(), whole[index].inr.flat()) and torch.equal(part.ids, whole[index].ids)
    training, validation = large.partition(10, -1)
    assert isinstance(training.inr, data.StoredINR) and torch.equal(training.inr.flat(), unkilled.partition(10, -1)[0].inr.flat()) and not isinstance(validation.inr, data.StoredINR)
    assert all(torch.equal(a, b) for a, b in zip(stored.inr.tensors, whole.inr.tensors)) and torch.equal(stored.inr.to(torch.float64).flat(), whole.inr.to(torch.float64).flat())
    assert stored.inr.to(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64 and stored.inr.to(torch.zeros(1)) is stored.inr is stored.inr.to(torch.float32)
    assert all(torch.allclose(a, b) for a, b in zip(vars(Statistics.of(stored.inr)).values(), vars(Statistics.of(whole.inr)).values()))
    both = large.joined("train", "test")
    assert torch.equal(both.inr.flat(), torch.cat([whole.inr.flat(), unkilled.split("test").inr.flat()])) and len(both.labels) == 132


def test_a_card_may_name_its_shards_in_any_order(unkilled, tmp_path):
    shutil.copytree(unkilled.folder, tmp_path / "there")
    INRDataset(tmp_path / "there")
    card = json.loads((tmp_path / "there" / "card.json").read_text())
    (tmp_path / "there" / "card.json").write_text(json.dumps(card | dict(shards=dict(reversed(card["shards"].items()))), sort_keys=False))
    again = INRDataset(tmp_path / "there")
    for name in unkilled.splits:
        order, other = (part.split(name).psnr.argsort() for part in (unkilled, again))
        mine, theirs = unkilled.split(name), again.split(name)
        assert torch.equal(mine.inr.flat()[order], theirs.inr.flat()[other]) and torch.equal(mine.labels[order], theirs.labels[other])


def test_inrs_of_other_starts_are_of_no_image_that_trains():
    values = {"train": [1, 2], "val": [3], "test": [4], "test-other": [4], "val-other": [3]}
    check_apart(values, "ids")
    for name, images in (("train", "train"), ("val", "val")):
        with pytest.raises(ValueError, match=f"1 test-other images have the ids of {images} images"):
            check_apart(values | {"test-other": values[name][:1]}, "ids")


def test_what_is_not_ours_is_left_alone(digits, tmp_path):
    (tmp_path / "README.md").write_text("precious")
    with pytest.raises(ValueError, match="holds a README.md of something else, which would be overwritten"):
        build_dataset(tmp_path, *digits, SPEC, **SETTINGS)
    (tmp_path / "README.md").unlink(), (tmp_path / ".yarn.lock").write_text("keep"), (tmp_path / ".work.tmp").write_text("keep")
    build_dataset(tmp_path, *digits, SPEC, **SETTINGS)
    assert {".yarn.lock", ".work.tmp"} == {path.name for path in tmp_path.glob(".*")}


@pytest.mark.parametrize("left", [
    ".train-00000.safetensors.17.tmp", ".train-00000.safetensors.lock", ".train-00000.safetensors.worker", "..train-00000.safetensors.worker.17.tmp",
    ".build.json.17.tmp", ".build.lock", ".card.json.17.tmp", ".card.json.lock", ".index.parquet.17.tmp", ".README.md.17.tmp",
])
def test_what_a_killed_build_left_is_removed_by_the_next(small, left):
    folder, build = small
    (folder / "card.json").unlink(), (folder / left).write_text("half")
    build()
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("change, said", [
    (dict(shards=None), "shards must be an object of checksums"), (dict(shards={"../outside.safetensors": dict(sha256="x")}), "'../outside.safetensors' is no shard of this folder"),
    (dict(shards={"train-00000.safetensors": 5}), "shards must be an object of checksums"), (dict(shard_size=-1), "shard_size must be a whole number, at least 1, not -1"),
    (dict(shard_size="x"), "shard_size must be"), (dict(spec=dict(widths=[2] * 10**5)), "at most 1000 in all, not 100000"), (dict(spec=5), "an INRSpec is an object"),
    (dict(spec=dict(widths=[2, 10**7, 10**7, 1])), "more than 1,073,741,824 are refused"), (dict(classes=5), "is of another type"), (dict(index=5), "index is of another type"), (dict(psnr=None), "psnr is of another type"), (dict(format=9), "its format is 9, and this version reads 2"), (dict(classes=["b", "a"]), "is not what it said when they were written"),
])
def test_a_card_that_none_of_ours_would_be_is_refused(change, said, small):
    folder, build = small
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | change))
    with pytest.raises(ValueError, match=f"card.json is damaged .*{said}"):
        INRDataset(folder)


@pytest.mark.parametrize("size", [36, 10**12, -1, 0, "x", None])
def test_another_shard_size_in_the_journal_loses_no_inr(size, small, tmp_path):
    folder, build = small
    (folder / "card.json").unlink(), (folder / "train-00002.safetensors").unlink()
    journal = json.loads((folder / "build.json").read_text())
    (folder / "build.json").write_text(json.dumps(journal | dict(shard_size=size)))
    with pytest.raises(ValueError, match="holds 8 INRs, and 20 belong there: build.json was changed|build.json is damaged .shard_size must be a whole number"):
        build()
    assert not (folder / "card.json").exists()


def test_a_worker_says_for_whom_it_waits(small, monkeypatch, capsys):
    folder, build = small
    (folder / "card.json").unlink(), (shard := folder / "train-00001.safetensors").unlink()
    monkeypatch.setattr(data, "WAIT", 0.05)
    (folder / f".{shard.name}.worker").write_text("process 4711 on this machine")
    with ThreadPoolExecutor(1) as pool, lock(shard):
        built, end = pool.submit(build), time.monotonic() + 60
        while "waiting for" not in (said := capsys.readouterr().err) and time.monotonic() < end:
            time.sleep(0.05)
        assert "waiting for train-00001.safetensors of set, which process 4711 on this machine is fitting: if it is stopped, let it go on or end it" in said and not built.done()
    assert len(built.result(60).index) == 26 and not list(folder.glob(".*"))


def test_nothing_is_written_to_open_what_is_finished(small, monkeypatch):
    folder, build = small

    def refused(*_, **__):
        raise OSError(30, "Read-only file system")

    for name in ("write_json", "write_text", "lock", "replaced"):
        monkeypatch.setattr(data, name, refused)
    assert len(build().index) == len(INRDataset(folder).index) == 26


def test_other_names_of_classes_are_another_set(digits, monkeypatch, tmp_path):
    monkeypatch.setenv("INRFORMER_CACHE", str(tmp_path))
    fit, inputs = Fit(hidden="4", fit_steps=2), Data(n_train=6, n_test=4, val_parts=2)
    sides = [images[:n] for images, n in zip(digits, (6, 4))]
    called = [replace(side, classes=tuple(f"digit {i}" for i in range(10))) for side in sides]
    plain, named = (fit_dataset(tuple(some), fit, inputs, device="cpu") for some in (sides, called))
    assert plain.folder != named.folder and named.card["classes"][3] == "digit 3" and plain.card["classes"][3] == "3"
    assert torch.equal(plain.split("train").inr.flat(), named.split("train").inr.flat())


def test_an_unfinished_set_hashes_a_shard_once(small, monkeypatch):
    folder, build = small
    once = {path.name: 1 for path in (*folder.glob(SHARDS), folder / "index.parquet")}
    (folder / "card.json").unlink(), (folder / "train-00001.safetensors").unlink()
    assert counted(monkeypatch, build)[0] == once and len(once) == 5


# whole numbers, and numbers that are none


def test_a_seed_of_any_type_is_the_same_data_set(small, digits):
    folder, build = small
    before = INRDataset(folder)
    assert build(seed=np.int64(0)).digest == before.digest and build(seed=torch.tensor(0)).recipe == before.recipe
    settings = dict(steps=2, lr=1e-2, init="independent", device="cpu")
    one, other = (build_dataset(folder.parent / type(seed).__name__, digits[0][:9], digits[1][:3], SPEC, **settings, seed=seed) for seed in (7, np.int64(7)))
    assert contents(one.folder) == contents(other.folder) and other.card["seed"] == 7


def test_a_perfect_fit_is_written_as_json(unkilled, tmp_path):
    train, test = unkilled.split("train"), unkilled.split("test")
    perfect = replace(test, psnr=torch.full((len(test),), torch.inf))
    stored = store_dataset(tmp_path, dict(train=train, test=perfect), **GIVEN)
    written = json.loads((tmp_path / "card.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert written["psnr"]["test"]["mean"] is None and written["psnr"]["train"]["mean"] > 20 and data_card(written) == (tmp_path / "README.md").read_text()
    assert "| test | 12 | infinite |" in data_card(written) and stored.split("test").psnr.isinf().all()


# the first version


FROZEN = ("torch 2.13.0+cpu, numpy 2.4.6, AVX2, bits e4c75448", "8d2d85b7526fede5ffa6d9feef9b7d572111eb9d96a5f6c8a8abb60e0092037c")
KEYS = {"steps", "lr", "stride", "init", "inits", "format", "spec", "copies", "test_init", "seed", "images", "image_shape", "image_range", "classes", "n_train", "n_test",
        "images_digest", "config", "device", "code", "shard_size", "inrs", "psnr", "shards", "index", "digest"}
UNVALIDATED = {name: value for name, value in SETTINGS.items() if name != "val_ids"}


def test_a_set_without_validation_is_that_of_the_first_version_to_the_bit(digits, tmp_path):
    built = build_dataset(tmp_path, *digits, SPEC, **UNVALIDATED | dict(steps=30))
    assert built.card.keys() == KEYS and built.splits == ("train", "test", "test-other") and built.card["spec"].keys() == {"widths", "omega", "first_init", "bias_init", "last_init", "offset"}
    assert built.card["images_digest"] == "5750dbe6a62791a546c6cf6ba3947c9ac0988aeab9332043b5db071086a41daa" and built.card["config"] == "fdf31e4d635b57b3438cf1f04cbbd52901975e22b773b5e4f113cb5930ef2825"
    if built.card["code"] != FROZEN[0]:
        pytest.skip(f"this machine rounds as {built.card['code']}, and the frozen digest is that of {FROZEN[0]}")
    assert built.card["digest"] == FROZEN[1]


# what validates


def test_validation_from_unseen_starts_stands_beside_the_same_files(unkilled, digits, tmp_path):
    plain = build_dataset(tmp_path, *digits, SPEC, **UNVALIDATED)
    assert [name for name in unkilled.card["shards"] if name not in plain.card["shards"]] == ["val-other-00000.safetensors"]
    for name in plain.splits:
        assert torch.equal(plain.split(name).inr.flat(), unkilled.split(name).inr.flat())
    for folder, settings in ((tmp_path, SETTINGS), (unkilled.folder, UNVALIDATED), (unkilled.folder, SETTINGS | dict(val_ids=VALIDATES[:5]))):
        with pytest.raises(ValueError, match="holds another data set: .*val_digest is .* there and .* here"):
            build_dataset(folder, *digits, SPEC, **settings)
    assert build_dataset(unkilled.folder, *digits, SPEC, **SETTINGS | dict(val_ids=[np.int64(i) for i in reversed(VALIDATES)])).digest == unkilled.digest


def test_images_are_held_out_with_all_their_copies(unkilled):
    train, val = unkilled.partition(10, -1)
    assert (len(train), len(val)) == (108, 12) and set(val.ids.tolist()) == set(VALIDATES) == set(unkilled.split("val-other").ids.tolist())
    assert not set(train.ids.tolist()) & set(VALIDATES) and train.sizes == val.sizes == (8, 8)
    with pytest.raises(ValueError, match="shows images that train when part 0 of 10 validates: choose val_parts and val_part as it was fitted"):
        unkilled.partition(10, 0)
    with pytest.raises(ValueError, match=r"val_parts must lie in 2\.\.60"):
        unkilled.partition(61, -1)


# the configs of a run


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("INRFORMER_CACHE", str(tmp_path))
    return tmp_path / "inrs"


def test_the_inrs_of_a_config_are_kept_in_the_cache(cache):
    inputs, images = Data(n_train=20, n_test=6, val_parts=4), (load_images("digits", "train", 20), load_images("digits", "test", 6))
    fitted = Fit(hidden="6", fit_steps=3, test_init="other", omega=8.0)
    built = fit_dataset(images, fitted, inputs, device="cpu")
    assert built.spec == INRSpec(widths=(2, 6, 1), omega=8.0) and built.splits == ("train", "test", "test-other", "val-other")
    assert set(built.split("val-other").ids.tolist()) == set(built.partition(4, -1)[1].ids.tolist()) and len(built.split("val-other")) == 5
    for same in (inputs, replace(inputs, val_part=3, final=True)):
        assert fit_dataset(images, fitted, same).folder == built.folder
    for one, how in ((replace(inputs, val_parts=5), fitted), (inputs, replace(fitted, test_init="same")), (inputs, replace(fitted, fit_seed=1))):
        assert fit_dataset(images, how, one).folder != built.folder
    assert len(list(cache.iterdir())) == 4 and all(folder.name.startswith("digits-") for folder in cache.iterdir())


def test_sets_without_a_penalty_are_those_of_before_there_was_one(cache):
    images, inputs = (load_images("digits", "train", 6), load_images("digits", "test", 3)), Data()
    for kind, folder, recipe in (("siren", "digits-e305ecda7625", "119749d68b1f"), ("mfn", "digits-d88a29b25ea0", "076d73993bc3")):
        built = fit_dataset(images, Fit(kind=kind, hidden="4-4", fit_steps=2, fit_lr=1e-2), inputs, device="cpu")
        assert (built.folder.name, built.recipe) == (folder, recipe)
    held = fit_dataset(images, Fit(kind="mfn", hidden="4-4", fit_steps=2, fit_lr=1e-2, penalty=10.0), inputs, device="cpu")
    assert held.folder != built.folder and held.card["penalty"] == 10.0


def test_a_relu_data_set_is_one_like_any_other(cache):
    inputs, fitted = Data(n_train=12, n_test=4), Fit(kind="relu", options="fourier=2", hidden="16-16", fit_steps=60, fit_lr=1e-2, init="independent")
    built = fit_dataset(inputs.load(), fitted, inputs)
    assert built.spec == fitted.spec(1) == INRSpec(widths=(10, 16, 16, 1), kind="relu", options=(("fourier", 2),)) and built.split("train").psnr.min() > 20
    assert INRDataset(built.folder).digest == built.digest and "| fourier | 2 |" in data_card(built.card) and "of widths 10-16-16-1" in data_card(built.card)
    rendered = built.split("test").inr(pixel_grid(8, 8)) / 2 + 0.5
    assert (rendered - inputs.load()[1].images.flatten(1, 2)).square().mean().sqrt() < 0.06


@pytest.mark.parametrize("text, spec", {
    "2-32-32-3": INRSpec(),
    "2-12-1,omega=8,bias_init=zero": INRSpec(widths=(2, 12, 1), omega=8.0, bias_init="zero"),
    "10-8-1,kind=relu,fourier=2": INRSpec(widths=(10, 8, 1), kind="relu", options=(("fourier", 2),)),
    "2-8-1,kind=relu": INRSpec(widths=(2, 8, 1), kind="relu"),
}.items())
def test_a_spec_is_written_in_a_line(text, spec):
    assert parse_spec(text) == spec


@pytest.mark.parametrize("text, message", {
    "2-8-1,fourier=2": r"a spec has no fields \['fourier'\]",
    "2-8-1,kind=relu,fourier=x": "is no spec: options {'fourier': 'x'} do not fit the kind relu, which takes {'fourier': 'int'}",
    "2-8-1,kind=relu,fourier=2": "is no spec: a relu of options .* makes .* features of 1, 2, ... coordinates, never 2",
    "2-8-1,kind=relo": "is no spec: kind must be one of .*, not 'relo'",
}.items())
def test_a_line_that_is_no_spec_says_so(text, message):
    with pytest.raises(ValueError, match=message):
        parse_spec(text)


# given INRs


GIVEN = dict(images="digits", classes=tuple("0123456789"), image_range=(-1.0, 1.0), origin="here")


def test_what_makes_no_data_set_is_refused(unkilled, tmp_path):
    train, test = unkilled.split("train"), unkilled.split("test")
    cases = {
        r"splits must be named \('train', 'val', 'test', 'val-other', 'test-other'\), not \['train', 'dev'\]": dict(train=train, dev=test),
        r"splits must be named .*, not \[\]": {},
        "120 test images have the ids of train images": dict(train=train, test=train),
        "12 test images have the INRs of train images": dict(train=replace(test, ids=test.ids + 1), test=replace(test, ids=test.ids + 10**6)),
        "float32 INRs of one spec": dict(train=train, test=replace(test, inr=test.inr.to(torch.float64))),
        "of images of one size": dict(train=train, test=replace(test, sizes=(1, 1))),
        "test holds INRs with NaN or infinite weights": dict(train=train, test=replace(test, inr=test.inr.map(lambda t: t * float("nan")))),
        r"labels of test must lie in 0\.\.9, for there are 10 classes": dict(train=train, test=replace(test, labels=test.labels + 10)),
    }
    for message, splits in cases.items():
        with pytest.raises(ValueError, match=message):
            store_dataset(tmp_path / "set", splits, **GIVEN)
    assert not (tmp_path / "set").exists()
    stored = store_dataset(tmp_path / "set", dict(train=train, test=test, **{"test-other": unkilled.split("test-other")}), **GIVEN)
    assert stored.split("train").sizes == (8, 8) and count_shards(stored.folder) == 3 and stored.fit_seconds is None


# no image on both sides


def test_overlaps_and_senseless_settings_are_refused(digits, tmp_path):
    train, test = digits
    folder = tmp_path / "never"
    disguised = Images(train.images[3:5], train.labels[3:5], test.ids[:2], train.classes, train.name)
    wide = Images(test.images.repeat(1, 1, 2, 1), test.labels, test.ids, test.classes, test.name)
    cases = {
        "2 test images have the ids of training images, first test image 0 that of training image 8": (train[:10], train[8:12], {}),
        "2 test images have the pixels of training images, .* or remove them from the table": (train[:10], disguised, {}),
        "must differ from each other": (train[[1, 1]], test, {}),
        "must have one size": (train, wide, {}),
        'test_init="other" means nothing': (train, test, dict(init="independent", test_init="other")),
        'must be "same" or "other"': (train, test, dict(test_init="new")),
        "val_ids must name at least one training image, and nothing else: 1 of 2 name none": (train, test, dict(test_init="other", val_ids=[int(train.ids[0]), int(test.ids[0])])),
        "val_ids name images to fit from unseen starts, and there are none": (train, test, dict(val_ids=[int(train.ids[0])])),
        "the same INR again": (train, test, dict(copies=2)),
        "needs a pool of more than": (train, test, dict(init="pool", inits=2, copies=3)),
        "init must be one of": (train, test, dict(init="random")),
        "steps must be at least 1": (train, test, dict(steps=0)),
        "lr must be a positive number": (train, test, dict(lr=float("nan"))),
        "penalty must be a positive number, or None, not nan": (train, test, dict(penalty=float("nan"))),
        "INRs of the kind siren have no penalty": (train, test, dict(penalty=1.0)),
        "do not fit INRSpec": (train, test, dict(spec=INRSpec())),
    }
    for message, (a, b, changes) in cases.items():
        with pytest.raises(ValueError, match=message):
            build_dataset(folder, a, b, **dict(spec=SPEC, steps=2, lr=1e-2) | changes)
    assert not folder.exists()


def test_statistics_do_not_know_the_order_of_neurons(unkilled):
    inr = unkilled.split("train").inr
    plain, permuted = Statistics.of(inr), Statistics.of(permute(inr, random_permutation(SPEC, len(inr), generator=seeded(0))))
    assert all((a - b).abs().max() < 1e-6 for a, b in zip(vars(plain).values(), vars(permuted).values()))


# real images


@pytest.mark.parametrize("name, shape, spread", [("mnist", (28, 28, 1), 0.308), ("cifar10-jpeg75", (32, 32, 3), 0.248)])
def test_real_images(name, shape, spread, shared_data, tmp_path):
    pattern = shared_data / f"{name}-{{split}}.parquet"
    train, test = load_images(pattern, "train", n=200), load_images(pattern, "test", n=50)
    assert train.name == name and train.images.shape == (200, *shape) and set(train.labels.tolist()) == set(range(10))
    assert (train.images.min(), train.images.max()) == (0, 1) and train.images.std().item() == pytest.approx(spread, abs=0.02)
    assert (train.classes[3], len(train.classes)) == {"mnist": ("3", 10)}.get(name, ("cat", 10))
    spec = INRSpec(widths=(2, 24, 24, shape[2]))
    built = build_dataset(tmp_path, train[:20], test[:10], spec, steps=150, lr=2e-3, init="independent")
    assert built.card["images"] == name and built.splits == ("train", "test") and built.split("train").psnr.min() > 22
    shown = built.split("test").inr(pixel_grid(*shape[:2])) / 2 + 0.5
    assert (shown - test.images[:10].flatten(1, 2)).square().mean().sqrt() < 0.04


def test_a_folder_of_two_real_sets_asks_which(shared_data):
    with pytest.raises(ValueError, match=r"several data sets, \['cifar10-jpeg75', 'mnist'\]"):
        load_images(shared_data, "train")
