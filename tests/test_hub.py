"Exchange: what is given comes back bit by bit, by a folder and by the Hub's client, and what was changed on the way is refused."

import shutil
from unittest.mock import create_autospec

import pytest
import torch
from huggingface_hub import HfApi

from inrformer.data import INRDataset, build_dataset
from inrformer.files import write_json
from inrformer.images import load_images
from inrformer.inr import INRSpec
from inrformer.interchange.hub import OF_A_DATASET, OF_A_READER, FolderHub, pull_dataset, pull_reader, push_dataset, push_reader, reader_card
from inrformer.reader import load_reader
from inrformer.runs import Run, open_run, run


@pytest.fixture(scope="module")
def inrs(tmp_path_factory):
    images = load_images("digits", "train", 40), load_images("digits", "test", 10)
    return build_dataset(tmp_path_factory.mktemp("inrs") / "d", *images, INRSpec(widths=(2, 4, 4, 1), omega=8.0), steps=5, lr=5e-3, shard_size=20)


@pytest.fixture
def this(inrs, tmp_path, monkeypatch) -> Run:
    monkeypatch.setenv("INRFORMER_CACHE", str(tmp_path / "cache"))
    return run(dict(data=str(inrs.folder), reader="flat", epochs=1, device="cpu"), out=tmp_path / "runs")


def recorded(shared: FolderHub) -> HfApi:
    "The Hub's client, with its own signatures, and a folder behind it."
    client = create_autospec(HfApi, instance=True)
    for name in ("create_repo", "upload_folder", "snapshot_download"):
        getattr(client, name).side_effect = getattr(shared, name)
    return client


def test_a_data_set_comes_back_through_the_hub_s_client(inrs, tmp_path):
    shared = FolderHub(tmp_path / "hub")
    client = recorded(shared)
    (inrs.folder / ".left.tmp").touch(), (inrs.folder / "mine.safetensors").touch()
    push_dataset(inrs.folder, "me/inrs", hub=client)
    assert client.create_repo.call_args.kwargs == dict(repo_type="dataset", private=True, exist_ok=True)
    assert client.upload_folder.call_args.kwargs["allow_patterns"] == [*OF_A_DATASET, *inrs.card["shards"]]
    place = shared.place("me/inrs", "dataset")
    assert {p.name for p in place.iterdir()} == {"README.md", "card.json", "index.parquet", *inrs.card["shards"]}
    (place / "train-00099.safetensors").touch()
    push_dataset(inrs.folder, "me/inrs", hub=client)
    assert not (place / "train-00099.safetensors").exists(), "what was there before stays beside what is there now"
    again = pull_dataset("me/inrs", tmp_path / "again", hub=client)
    assert again.digest == inrs.digest and torch.equal(again.split("train").inr.flat(), inrs.split("train").inr.flat())
    with (place / "train-00001.safetensors").open("r+b") as file:
        file.seek(-1, 2), file.write(b"\x7f")
    with pytest.raises(ValueError, match="train-00001.safetensors is damaged"):
        pull_dataset("me/inrs", tmp_path / "third", hub=client)


def test_what_is_there_is_never_lost(inrs, this, tmp_path):
    shared = FolderHub(tmp_path / "hub")
    push_dataset(inrs.folder, "me/inrs", hub=shared)
    place = shared.place("me/inrs", "dataset")
    push_dataset(place, "me/inrs", hub=shared)
    assert INRDataset(place).digest == inrs.digest, "a data set that lies in the shared folder is given to itself"
    there = {path.name: path.read_bytes() for path in place.iterdir()}
    with pytest.MonkeyPatch.context() as patched, pytest.raises(OSError, match="disk is full"):
        patched.setattr("inrformer.interchange.hub._copy", lambda *args: (_ for _ in ()).throw(OSError(28, "disk is full")))
        push_dataset(inrs.folder, "me/inrs", hub=shared)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == there
    assert pull_dataset("me/inrs", tmp_path / "mine", hub=shared).digest == pull_dataset("me/inrs", tmp_path / "mine", hub=shared).digest
    (tmp_path / "papers").mkdir(), (tmp_path / "papers" / "thesis.txt").write_text("mine")
    other = build_dataset(tmp_path / "other", *(load_images("digits", split, n) for split, n in (("train", 12), ("test", 4))), INRSpec(widths=(2, 4, 1), omega=8.0), steps=2, lr=5e-3)
    for folder in ("papers", "other"):
        with pytest.raises(ValueError, match=f"{folder} holds something else: name a folder of its own for me/inrs"):
            pull_dataset("me/inrs", tmp_path / folder, hub=shared)
    assert [path.name for path in (tmp_path / "papers").iterdir()] == ["thesis.txt"] and INRDataset(tmp_path / "other").digest == other.digest


def test_a_card_is_not_written_where_starts_cannot_be_looked_up(inrs, tmp_path):
    shutil.copytree(inrs.folder, tmp_path / "d")
    this = run(dict(data=str(tmp_path / "d"), reader="flat", epochs=1, device="cpu"), out=tmp_path / "runs")
    shutil.move(tmp_path / "d", tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match="say where they are"):
        reader_card(open_run(this.folder))


def test_what_is_damaged_is_not_given_away(inrs, tmp_path):
    shutil.copytree(inrs.folder, tmp_path / "d")
    with (tmp_path / "d" / "test-00000.safetensors").open("r+b") as file:
        file.seek(-1, 2), file.write(b"\x7f")
    client = create_autospec(HfApi, instance=True)
    with pytest.raises(ValueError, match="test-00000.safetensors is damaged"):
        push_dataset(tmp_path / "d", "me/inrs", hub=client)
    assert not client.method_calls


def test_a_reader_comes_back_with_its_card(this, inrs, tmp_path):
    shared = FolderHub(tmp_path / "hub")
    client = recorded(shared)
    push_reader(this, "me/reader", hub=client)
    assert client.create_repo.call_args.kwargs == dict(repo_type="model", private=True, exist_ok=True)
    assert client.upload_folder.call_args.kwargs["allow_patterns"] == OF_A_READER
    place, test = shared.place("me/reader", "model"), inrs.split("test").inr
    assert {p.name for p in place.iterdir()} == {"README.md", "record.json", "model.safetensors"}
    assert torch.equal(pull_reader("me/reader", hub=shared)(test), this.model(test))
    card = (place / "README.md").read_text()
    for part in ("library_name: inrformer", f"| test accuracy | {this.summary['test_accuracy']:.3f} |", 'pull_reader("me/reader")', "| widths | 2-4-4-1 |", "| steps | 5 |", "All came from one start: how it does on INRs from other starts was "):
        assert part in card
    assert str(tmp_path) not in card + (place / "record.json").read_text() and f"made so, and show their images at {this.summary['psnr']:.1f} dB." in card
    pull_reader("me/reader", tmp_path / "mine", hub=shared)
    with pytest.raises(ValueError, match="holds something else: name a folder of its own for me/reader"):
        pull_reader("me/reader", this.folder, hub=shared)
    (tmp_path / "busy").mkdir(), (tmp_path / "busy" / "record.json").write_text("{}"), (tmp_path / "busy" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else: .*notes.txt"):
        pull_reader("me/reader", tmp_path / "busy", hub=shared)
    assert (tmp_path / "busy" / "notes.txt").read_text() == "mine"
    (place / "record.json").write_text("{}")
    with pytest.raises(ValueError, match="me/reader: its model.safetensors is not what its record says"):
        pull_reader("me/reader", tmp_path / "mine", hub=shared)
    assert torch.equal(load_reader(tmp_path / "mine" / "model.safetensors")(test), this.model(test)), "what was there stays"
    write_json(this.folder / "summary.json", this.summary | dict(psnr=None))
    assert "that were made so. It has seen" in reader_card(open_run(this.folder)), "networks that show no image"
    (this.folder / "summary.json").unlink()
    with pytest.raises(ValueError, match="is unfinished: a reader is given away with what it reached"):
        reader_card(this)


@pytest.mark.parametrize(("row", "use"), [(dict(objective="edit", reader="inrformer", dim=8, edge_dim=4, depth=1, heads=2, hint=4, query=4, features=2), "reader.edit(inr)"), (dict(objective="contrast", reader="deepsets", pair_dim=4), "reader.features(inr)")], ids=["edit", "contrast"])
def test_a_card_says_what_a_reader_that_names_nothing_is_for(row, use, inrs, tmp_path):
    this = run(dict(data=str(inrs.folder), epochs=1, device="cpu") | row, out=tmp_path / "runs")
    card = reader_card(this)
    assert f"was trained for the objective `{row['objective']}`" in card and "names what they show" not in card and "metrics" not in card and "is not in this file" in card
    assert f"\n{use}  # inr" in card and (f"| test {'edit error' if row['objective'] == 'edit' else 'knn'} |") in card
    eval(use, dict(reader=this.model, inr=inrs.split("test").inr))


def test_the_hub_refuses_in_words(this, inrs, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for refused in (lambda: push_dataset(inrs.folder, "me/inrs"), lambda: pull_reader("me/reader", tmp_path / "r"), lambda: push_reader(this, "one/two/three")):
        with pytest.raises(ConnectionError, match="the Hub refused .*: .*Names are owner/name; `hf auth login`"):
            refused()
    with pytest.raises(FileNotFoundError, match="there is no model me/reader in"):
        pull_reader("me/reader", hub=FolderHub(tmp_path))


@pytest.mark.parametrize("name", ["lab", "lab/mnist/v2", "../../esc/x", "/tmp/x", ""])
def test_a_folder_hub_takes_names_of_one_form(tmp_path, name):
    with pytest.raises(ValueError, match="is no name of a model: write owner/name"):
        FolderHub(tmp_path).place(name, "model")


def test_a_folder_of_somebody_elses_is_not_replaced_by_a_reader(tmp_path):
    (tmp_path / "mine").mkdir(), (tmp_path / "mine" / "README.md").write_text("precious")
    with pytest.raises(ValueError, match="holds something else: name a folder of its own for me/reader .there are README.md."):
        pull_reader("me/reader", tmp_path / "mine", hub=FolderHub(tmp_path))
