"Files that were damaged anyhow: what is opened is what was written, or a ValueError names the file. Never another error, never another result, and of formats that hold no checksum never another shape."

import json
import re
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_images import pictures, write_table

from inrformer.data import INRDataset, store_dataset
from inrformer.images import load_images
from inrformer.inr import INRSpec, init_inr, load_inr, save_inr
from inrformer.interchange.state_dicts import load_state_dicts, save_state_dicts
from inrformer.reader import READERS, load_reader, save_reader
from inrformer.runs import open_run, run
from inrformer.splits import Split

SPEC = INRSpec(widths=(2, 4, 4, 1))
quick = settings(max_examples=30, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
thorough = settings(quick, max_examples=1500)


@st.composite
def hurt(draw, size: int) -> list[tuple[str, int, bytes]]:
    "Some damage to a file of so many bytes: bytes that are others, bytes that are gone, bytes that came in."
    place, other = st.integers(0, size - 1), st.binary(min_size=1, max_size=6)
    return draw(st.lists(st.tuples(st.sampled_from(["over", "in", "cut"]), place, other), min_size=1, max_size=3))


def apply(blob: bytes, damage: list[tuple[str, int, bytes]]) -> bytes:
    for kind, at, other in damage:
        blob = blob[:at] + (b"" if kind == "cut" else other + blob[at + len(other) if kind == "over" else at :])
    return blob


def made(home: Path) -> dict[str, tuple[Path, callable]]:
    "Files of every kind that is read, and how: what a reading gives can be compared."
    inr = init_inr(SPEC, 6, generator=torch.Generator().manual_seed(0))
    save_inr(inr, home / "inrs.safetensors"), save_reader(READERS["deepsets"](SPEC, READERS["deepsets"].Config(pair_dim=4)).classify(("a", "b")), home / "reader.safetensors")
    (state,) = save_state_dicts(inr[:1], home)
    write_table(home / "x-train.parquet", images=pictures(3, 4, 4), labels=[0, 1, 0])
    split = [Split(inr[3 * k : 3 * k + 3], torch.arange(3) % 2, torch.arange(3) + 10 * k, torch.full((3,), 30.0), torch.zeros(3, dtype=torch.int64)) for k in range(2)]
    store_dataset(home / "kept-4711", dict(train=split[0], test=split[1]), images="x", classes=("a", "b"), image_range=(-1.0, 1.0), origin="here")
    table = load_images(str(home / "x-{split}.parquet"), "train")

    def in_set() -> str:
        return "".join(map(str, (INRDataset(home / "kept-4711").split(name).inr.flat().tolist() for name in ("train", "test"))))

    return {
        "inrs.safetensors": (home / "inrs.safetensors", lambda: load_inr(home / "inrs.safetensors").flat().shape), "reader.safetensors": (home / "reader.safetensors", lambda: [tuple(t.shape) for t in load_reader(home / "reader.safetensors").state_dict().values()]),
        "state": (state, lambda: load_state_dicts([state], "nfn").flat().shape), "table": (home / "x-train.parquet", lambda: (load_images(str(home / "x-{split}.parquet"), "train").images.shape == table.images.shape)),
        "card": (home / "kept-4711" / "card.json", in_set), "index": (home / "kept-4711" / "index.parquet", in_set), "shard": (home / "kept-4711" / "train-00000.safetensors", in_set),
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, tuple[Path, callable]]:
    return made(tmp_path_factory.mktemp("files"))


def refused_or_right(path: Path, read: callable, damage: list[tuple[str, int, bytes]]) -> None:
    whole, wanted = path.read_bytes(), read()
    path.write_bytes(apply(whole, damage))
    try:
        assert read() == wanted
    except ValueError as error:
        assert path.parent.name in str(error) or path.name in str(error), error
        assert not re.search(r"(?<![^\s'\"(\[])/\w", str(error)), error
    finally:
        path.write_bytes(whole)


KINDS = ("inrs.safetensors", "reader.safetensors", "state", "table", "card", "index", "shard")


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_named(kind, files):
    @quick
    @given(hurt(files[kind][0].stat().st_size))
    def check(damage):
        refused_or_right(*files[kind], damage)

    check()


@pytest.mark.grid
@pytest.mark.parametrize("kind", KINDS)
def test_any_damage_is_named(kind, files):
    @thorough
    @given(hurt(files[kind][0].stat().st_size))
    def check(damage):
        refused_or_right(*files[kind], damage)

    check()


def test_a_runs_files_are_those_that_were_written(tmp_path, monkeypatch):
    monkeypatch.setenv("INRFORMER_CACHE", str(tmp_path / "cache"))
    row = dict(n_train=12, n_test=6, hidden="4", fit_steps=2, reader="deepsets", pair_dim=4, epochs=1, batch_size=4, val_parts=2, device="cpu")
    one, other = (run(row | dict(seed=seed), out=tmp_path / "runs") for seed in (0, 1))
    before = one.summary, one.history
    for path in sorted(one.folder.glob("*.json*")):
        whole = path.read_bytes()
        for damage in (b"", b"null", b"\xff\xfe", whole[: len(whole) // 2], (other.folder / path.name).read_bytes(), whole.replace(b"0", b"1", 1)):
            if damage != whole:
                path.write_bytes(damage)
                with pytest.raises(ValueError, match="is not what was written|is damaged"):
                    open_run(one.folder).summary
        path.write_bytes(whole)
    model = one.folder / "model.safetensors"
    for damage in ((other.folder / model.name).read_bytes(), bytes([*model.read_bytes()[:-1], model.read_bytes()[-1] ^ 1])):
        whole = model.read_bytes()
        model.write_bytes(damage)
        with pytest.raises(ValueError, match="model.safetensors is not the reader that was trained"):
            open_run(one.folder).model
        model.write_bytes(whole)
    assert (open_run(one.folder).summary, open_run(one.folder).history) == before and "seal" not in json.dumps(before)
