"Reading images, building data sets of INRs that survive kills and damage, and exact augmentation."

import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from huggingface_hub import DatasetCard
from PIL import Image

from inrformer import data
from inrformer.data import (
    AUGMENTATIONS,
    SHARDS,
    TEST_IDS,
    Images,
    INRDataset,
    add_noise,
    augment,
    build_dataset,
    cache_folder,
    load_images,
    transform,
)
from inrformer.fitting import code_path
from inrformer.inr import INRSpec, Statistics, init_siren, pixel_grid
from inrformer.symmetry import permute, random_permutation, relative_error

ROOT = Path(__file__).resolve().parent.parent
SPEC = INRSpec(widths=(2, 12, 12, 1), omega=8.0)
SETTINGS = dict(steps=300, lr=1e-2, init="pool", inits=3, copies=2, test_init="other", shard_size=16, device="cpu")
KILLED = """
import sys
from inrformer.data import build_dataset, load_images
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


def write_table(path: Path, *, images: list, labels: list | None = None, column: str = "image", names: list | None = None) -> None:
    def encoded(array) -> bytes:
        Image.fromarray(array.numpy()).save(file := io.BytesIO(), "png")
        return file.getvalue()

    cells = [dict(bytes=x if x is None or isinstance(x, bytes) else encoded(x), path=None) for x in images]
    table = pa.table({column: pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))})
    if labels is not None:
        table = table.append_column("label", pa.array(labels, pa.int64()))
    if names:
        info = dict(info=dict(features=dict(label=dict(names=names))))
        table = table.replace_schema_metadata(dict(huggingface=json.dumps(info)))
    pq.write_table(table, path)


def pictures(n: int, *shape: int, seed: int = 0) -> list[torch.Tensor]:
    return list(torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=seeded(seed)))


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
write = data._write_shard

def logged(folder, name, *rest):
    with open(sys.argv[2], "a") as log:
        log.write(f"{os.getpid()} {name}\\n")
    time.sleep(0.05)
    write(folder, name, *rest)

data._write_shard = logged
Path(sys.argv[2] + str(os.getpid())).touch()
while len(list(Path(sys.argv[2]).parent.glob("log*"))) < int(sys.argv[3]):
    time.sleep(0.001)
train, test = data.load_images("digits", "train", 60), data.load_images("digits", "test", 12)
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
    for told in ("SIREN of widths 2-12-12-1 (205 parameters)", "sin(8 (W x + b))", f"| train | 120 | {unkilled.card['psnr']['train']['mean']:.2f} |",
                 "| steps | 300 |", "| init | pool |", "| device | cpu |", f"| code | {unkilled.card['code']} |", f"| digest | {unkilled.card['digest']} |"):
        assert told in card.text, told


# the command line


LINE = ["digits", "--spec", "2-12-12-1,omega=8", "--n-train", "60", "--n-test", "12", "--steps", "300", "--lr", "1e-2", "--init", "pool", "--inits", "3",
        "--copies", "2", "--test-init", "other", "--shard-size", "16", "--device", "cpu"]


def test_the_command_line_builds_the_same_in_parts(unkilled, tmp_path):
    folder = tmp_path / "set"
    command = [sys.executable, "-m", "inrformer.fitting", LINE[0], str(folder), *LINE[1:], "--shard"]
    done = [subprocess.run([*command, f"{k}/2"], cwd=ROOT, capture_output=True, text=True, timeout=120) for k in (2, 1)]
    assert [x.returncode for x in done] == [0, 0], done
    assert done[0].stdout == "part 2/2 is there; other parts are missing\n" and "INRDataset('digits'" in done[1].stdout
    assert "INR/s" in done[0].stderr and "psnr=" in done[0].stderr
    assert contents(folder) == contents(unkilled.folder)


def test_a_part_of_more_than_there_are_shards_says_that_it_is_empty(tmp_path, capsys):
    line = ["digits", str(tmp_path / "set"), *LINE[1:], "--copies", "1", "--test-init", "same", "--shard-size", "1024", "--steps", "2"]
    empty = "part 9/9 is empty: there are only 2 shards; a smaller --shard-size makes more\n"
    for part, told in {"9/9": empty, "1/9": "part 1/9 is there; other parts are missing\n", "3/9": empty.replace("9/9", "3/9")}.items():
        data.main([*line, "--shard", part])
        assert capsys.readouterr().out == told
    data.main([*line, "--shard", "2/9"])
    assert "INRDataset('digits'" in capsys.readouterr().out


@pytest.mark.parametrize("change, message", {
    ("--shard", "0/2"): "part 0/2 does not exist: the parts of 2 are 1/2 to 2/2",
    ("--shard", "3/2"): "part 3/2 does not exist",
    ("--shard", "3"): "write its number and how many there are, as in 3/16",
    ("--spec", "2-12-12"): "do not fit widths",
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
        data.main([LINE[0], str(tmp_path / "set"), *LINE[1:], *change])
    assert stopped.value.code == 2 and message in capsys.readouterr().err and not (tmp_path / "set").exists()


def test_a_missing_source_and_another_data_set_end_the_line(small, capsys):
    folder, _ = small
    for source, message in {"nothing": "is not \"digits\", a Hub name", "digits": "holds another data set: steps is 20 there and 300 here"}.items():
        with pytest.raises(SystemExit):
            data.main([source, str(folder), *LINE[1:]])
        assert message in capsys.readouterr().err


def test_one_image_alone_gives_the_same_inr(unkilled, digits, tmp_path):
    train, test = digits
    alone = build_dataset(tmp_path, train[41:42], test[7:8], SPEC, **SETTINGS)
    for name, places in {"train": [41, 60 + 41], "test": [7], "test-other": [7]}.items():
        assert torch.equal(alone.split(name).inr.flat(), unkilled.split(name).inr[places].flat())


def test_what_a_data_set_says_of_itself(unkilled, digits):
    card, train = unkilled.card, unkilled.split("train")
    assert (card["images"], card["init"], card["inits"], card["copies"], card["steps"], card["lr"]) == ("digits", "pool", 3, 2, 300, 1e-2)
    assert card["device"] == "cpu" and card["image_range"] == [-1, 1] and card["image_shape"] == [8, 8, 1]
    journal = json.loads((unkilled.folder / "build.json").read_text())["shards"]
    assert unkilled.fit_seconds == sum(entry["fit_seconds"] for entry in journal.values()) > 0 and journal.keys() == card["shards"].keys()
    assert (card["stride"], card["inrs"]) == (1, {"train": 120, "test": 12, "test-other": 12}) and card["code"] == code_path(torch.device("cpu"))
    assert unkilled.spec == SPEC and len(unkilled.index) == 60 * 2 + 12 * 2
    assert card["psnr"]["train"]["mean"] == pytest.approx(train.psnr.mean().item()) and card["psnr"]["train"]["mean"] > 28
    assert list(card["psnr"]["test"]["quantiles"]) == ["0", "0.05", "0.5", "0.95", "1"]
    assert torch.equal(train.labels, digits[0].labels.repeat(2)) and torch.equal(train.ids, digits[0].ids.repeat(2))
    rendered = train.inr[:1](pixel_grid(8, 8))[0].unflatten(0, (8, 8))
    assert (rendered - (digits[0].images[0] * 2 - 1)).abs().max() < 0.2


def test_other_starts_are_unseen(unkilled):
    seeds = {name: set(unkilled.split(name).init_seeds.tolist()) for name in unkilled.splits}
    assert seeds["test"] <= seeds["train"] and len(seeds["train"]) == len(seeds["test-other"]) == 3
    assert not seeds["test-other"] & seeds["train"]


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
    (folder / "card.json").write_text(json.dumps(card | dict(index=data._sha256(folder / "index.parquet"))))
    with pytest.raises(ValueError, match=r"train-00000.safetensors does not hold what index.parquet says \(\['label'\]\)"):
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
    with pytest.raises(ValueError, match="was begun on .*, and (meta|another torch) rounds differently: go on with the former"):
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
        "the same INR again": (train, test, dict(copies=2)),
        "needs a pool of more than": (train, test, dict(init="pool", inits=2, copies=3)),
        "init must be one of": (train, test, dict(init="random")),
        "steps must be at least 1": (train, test, dict(steps=0)),
        "lr must be a positive number": (train, test, dict(lr=float("nan"))),
        "do not fit widths": (train, test, dict(spec=INRSpec())),
    }
    for message, (a, b, changes) in cases.items():
        with pytest.raises(ValueError, match=message):
            build_dataset(folder, a, b, **dict(spec=SPEC, steps=2, lr=1e-2) | changes)
    assert not folder.exists()


# reading


def test_digits_are_always_split_alike():
    train, test = load_images("digits", "train"), load_images("digits", "test")
    assert sorted([*train.ids.tolist(), *test.ids.tolist()]) == list(range(1797)) and len(test) == 360
    assert train.ids[:5].tolist() == [362, 1568, 1440, 1761, 815], "another shuffle is another data set"
    assert train.images.min() == 0 and train.images.max() == 1 and train.classes == tuple("0123456789")
    with pytest.raises(ValueError, match=r"1\.\.360"):
        load_images("digits", "test", 361)
    with pytest.raises(ValueError, match='"train" or "test"'):
        load_images("digits", "valid")


def test_tables_grey_and_colour(tmp_path):
    grey, colour = pictures(5, 6, 7), pictures(4, 6, 7, 3)
    for split in ("train", "test"):
        write_table(tmp_path / f"grey-{split}.parquet", images=grey, labels=[0, 1, 2, 1, 0])
        write_table(tmp_path / f"colour_{split}.parquet", images=colour, labels=[1, 0, 1, 0], column="img", names=["cat", "dog"])
    a = load_images(str(tmp_path / "grey-{split}.parquet"), "train", n=4)
    b = load_images(tmp_path / "colour_{split}.parquet", "test")
    assert torch.equal((a.images * 255).round().byte(), torch.stack(grey[:4])[..., None])
    assert torch.equal((b.images * 255).round().byte(), torch.stack(colour))
    assert (a.classes, a.name, a.labels.tolist(), a.ids.tolist()) == (("0", "1", "2"), "grey", [0, 1, 2, 1], [0, 1, 2, 3])
    assert (b.classes, b.name, b.ids.tolist()) == (("cat", "dog"), "colour", [TEST_IDS + i for i in range(4)])


def test_a_folder_of_several_files_as_the_hub_lays_them_out(tmp_path):
    folder = tmp_path / "shapes"
    (folder / "plain_text").mkdir(parents=True)
    for i in range(2):
        write_table(folder / "plain_text" / f"train-0000{i}-of-00002.parquet", images=pictures(3, 4, 4, seed=i), labels=[0, i, 1])
    write_table(folder / "plain_text" / "test-00000-of-00001.parquet", images=pictures(2, 4, 4, seed=9), labels=[0, 1])
    images = load_images(folder, "train", n=5)
    assert torch.equal((images.images[3:] * 255).round().byte()[..., 0], torch.stack(pictures(3, 4, 4, seed=1)[:2]))
    assert images.ids.tolist() == [0, 1, 2, 3, 4] and len(load_images(folder, "test")) == 2
    assert torch.equal(load_images(f"{folder}/plain_text/{{split}}-*.parquet", "train", n=5).images, images.images)


@pytest.mark.parametrize("name, shown", {
    "pictures": dict(column="picture", images=pictures(2, 4, 4), labels=[0, 1]),
    "labels": dict(images=pictures(2, 4, 4)),
    "sizes": dict(images=pictures(1, 4, 4) + pictures(1, 5, 4), labels=[0, 1]),
    "kinds": dict(images=pictures(1, 4, 4) + pictures(1, 4, 4, 3), labels=[0, 1]),
    "alpha": dict(images=pictures(2, 4, 4, 4), labels=[0, 1]),
    "bytes": dict(images=[None], labels=[0]),
    "noise": dict(images=[b"no image"], labels=[0]),
    "unlabelled": dict(images=pictures(2, 4, 4), labels=[0, None]),
    "negative": dict(images=pictures(2, 4, 4), labels=[-1, 0]),
    "empty": dict(images=[], labels=[]),
}.items())
def test_tables_that_cannot_be_used(name, shown, tmp_path):
    wanted = dict(
        pictures=r"columns \[picture: struct<.*>, label: int64\]; needed are `img` or `image`",
        labels=r"columns \[image: struct<.*>\]; needed are .* integer `label`",
        sizes=r"row 1 of .* is \(5, 4, 1\), the first is \(4, 4, 1\)",
        kinds=r"row 1 of .* is \(4, 4, 3\), the first is \(4, 4, 1\)",
        alpha="mode RGBA",
        bytes="row 0 of .* holds no bytes of an image, at most a path: the bytes of the image's file belong into `bytes`",
        noise="row 0 of .* holds no readable image",
        unlabelled="row 1 of .*x-train.parquet has the label None: every image needs a label",
        negative="row 0 of .*x-train.parquet has the label -1: every image needs a label",
        empty="is empty",
    )
    write_table(tmp_path / "x-train.parquet", **shown)
    with pytest.raises(ValueError, match=wanted[name]):
        load_images(str(tmp_path / "x-{split}.parquet"), "train")


def test_files_that_are_missing_or_mixed_up(tmp_path):
    for name in ("cats-train", "dogs-train", "latest-dogs"):
        write_table(tmp_path / f"{name}.parquet", images=pictures(2, 4, 4), labels=[0, 1])
    with pytest.raises(FileNotFoundError, match=r"no file .*birds-train.parquet; the files there are \['cats-train.parquet', 'dogs"):
        load_images(str(tmp_path / "birds-{split}.parquet"), "train")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load_images(str(tmp_path / "nowhere" / "birds-{split}.parquet"), "train")
    with pytest.raises(FileNotFoundError, match=r"\*test\*.parquet; the parquet files there are \['cats-train"):
        load_images(tmp_path, "test")
    (tmp_path / "pictures").mkdir(), (tmp_path / "pictures" / "train-1.png").touch()
    with pytest.raises(FileNotFoundError, match=r"no file .*\*train\*.parquet; images are read from parquet tables, and .* \(howto.ipynb\) writes one"):
        load_images(tmp_path / "pictures", "train")
    with pytest.raises(ValueError, match=r"several data sets, \['cats', 'dogs'\]"):
        load_images(tmp_path, "train")
    with pytest.raises(FileNotFoundError, match='is not "digits", a Hub name'):
        load_images("cifar", "train")
    with pytest.raises(ValueError, match=r"the train split of cats has 2 images and 3 were asked for: set n_train .* to 1\.\.2"):
        load_images(str(tmp_path / "cats-{split}.parquet"), "train", n=3)
    (tmp_path / "text-train.parquet").write_text("no parquet")
    with pytest.raises(ValueError, match="text-train.parquet is no whole parquet file"):
        load_images(str(tmp_path / "text-{split}.parquet"), "train")


def test_without_a_network_the_error_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("INRFORMER_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert cache_folder() == tmp_path
    for source, tried in {"mnist": "ylecun/mnist", "cifar10": "uoft-cs/cifar10", "some/thing": "some/thing"}.items():
        with pytest.raises(ConnectionError, match=f"tried to download {tried} from the Hugging Face Hub.*local parquet files"):
            load_images(source, "train")


def test_a_download_is_read_like_a_folder(monkeypatch, tmp_path):
    asked = {}
    write_table(tmp_path / "train-00000-of-00001.parquet", images=pictures(3, 4, 4), labels=[0, 1, 2])
    monkeypatch.setattr(data, "snapshot_download", lambda name, **options: asked.update(options, name=name) or str(tmp_path))
    images = load_images("mnist", "train")
    assert (images.name, len(images)) == ("mnist", 3)
    assert (asked["name"], asked["repo_type"], asked["allow_patterns"]) == ("ylecun/mnist", "dataset", ["*train*.parquet"])


# augmenting


@pytest.mark.parametrize("kind", ["translate", "rotate", "zoom", "mirror", "all"])
def test_augmented_inrs_are_exact(kind, unkilled):
    most = dict(translate=0.4, rotate=40.0, zoom=0.4, mirror=True)
    inr, coords = unkilled.split("train").inr[:12].to(torch.float64), pixel_grid(11, 9).double()
    flat = inr.flat().clone()
    moved = augment(inr, **(most if kind == "all" else {kind: most[kind]}), generator=seeded(5))
    a = torch.linalg.lstsq(inr.weights[0], moved.weights[0]).solution
    t = torch.linalg.lstsq(inr.weights[0], (moved.biases[0] - inr.biases[0])[:, :, None]).solution[:, :, 0]
    assert (moved(coords) - inr(coords @ a.mT + t[:, None])).abs().max() < 1e-10
    assert torch.equal(inr.flat(), flat), "augment changed its argument"
    assert (transform(inr, a, t).flat() - moved.flat()).abs().max() < 1e-10
    scale = a.det().abs().sqrt()
    assert t.abs().max() <= 0.4 and (t.abs().max() > 0.1) == (kind in ("translate", "all"))
    assert (a.det() < -1e-6).any() == (kind in ("mirror", "all")) and (a.det() > 0).any()
    assert ((scale - 1).abs() > 0.05).any() == (kind in ("zoom", "all")) and ((scale - 1).abs() <= 0.4).all()
    assert (a[:, 0, 1].abs() > 0.05).any() == (kind in ("rotate", "all"))
    assert relative_error(a @ a.mT, scale.square()[:, None, None] * torch.eye(2)) < 1e-9


def test_a_mirrored_and_a_shifted_image_are_what_they_should_be():
    inr = init_siren(SPEC, 1, generator=seeded(0)).to(torch.float64)
    image = inr(pixel_grid(9, 9).double()).unflatten(1, (9, 9))
    mirrored = transform(inr, torch.diag(torch.tensor([1.0, -1.0])).double()[None], torch.zeros(1, 2).double())
    shifted = transform(inr, torch.eye(2).double()[None], torch.tensor([[0.25, 0.0]]).double())
    assert (mirrored(pixel_grid(9, 9).double()).unflatten(1, (9, 9)) - image.flip(2)).abs().max() < 1e-12
    assert (shifted(pixel_grid(9, 9).double()).unflatten(1, (9, 9))[:, :-1] - image[:, 1:]).abs().max() < 1e-12


def test_augment_commutes_with_permute_and_is_drawn_from_its_generator():
    inr = init_siren(SPEC, 8, generator=seeded(0)).to(torch.float64)
    perm, options = random_permutation(SPEC, 8, generator=seeded(1)), AUGMENTATIONS["mirror"]
    one, other = (augment(permute(x, p), **options, generator=seeded(2)) for x, p in ((inr, perm), (permute(inr, perm), perm.identity(SPEC, 8))))
    assert torch.equal(one.flat(), other.flat())
    assert relative_error(permute(augment(inr, **options, generator=seeded(2)), perm), one) < 1e-12
    assert not torch.equal(augment(permute(inr, perm), **options, generator=seeded(3)).flat(), one.flat())
    assert torch.equal(augment(inr, **AUGMENTATIONS["none"]).flat(), inr.flat())
    assert len(augment(inr[[0] * 4], translate=0.1).biases[0].unique(dim=0)) == 4, "every INR needs a draw of its own"


def test_augment_refuses_what_it_cannot_do():
    volume, line = (init_siren(INRSpec(widths=(n, 6, 6, 1)), 2) for n in (3, 1))
    assert len(augment(line, translate=0.2, zoom=0.2)) == len(augment(volume, translate=0.2, zoom=0.2)) == 2
    for inr, options in ((volume, dict(rotate=5.0)), (line, dict(mirror=True))):
        with pytest.raises(ValueError, match="2 coordinates"):
            augment(inr, **options)
    for options in (dict(zoom=1.0), dict(translate=-0.1), dict(rotate=-5.0), *({name: math.nan} for name in ("translate", "rotate", "zoom")), dict(rotate=math.inf)):
        with pytest.raises(ValueError, match="must be finite and not negative, and zoom must be below 1"):
            augment(line, **options)


def test_noise_refuses_what_it_cannot_scale():
    inr, scale = init_siren(SPEC, 2, generator=seeded(0)), torch.ones(6)
    assert add_noise(inr, 0.1, scale, generator=seeded(1)).check_finite().flat().std() > inr.flat().std() > 0
    for size in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="the size of noise must be finite and not negative"):
            add_noise(inr, size, scale)
    for n in (5, 7):
        with pytest.raises(ValueError, match=rf"a scale of shape \({n},\) does not fit .*: needed is one number for each of its 6 tensors"):
            add_noise(inr, 0.1, torch.ones(n))


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
