"Reading labelled images: tables of every kind, names that are no paths, and errors that say what to do."

import io
import json
import struct
import zlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, features

from inrformer import images as images_module
from inrformer.__main__ import main
from inrformer.images import TEST_IDS, Data, Images, cache_folder, load_images, load_picture, share_seen
from inrformer.runs import run


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
    return list(torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)))


def test_digits_are_always_split_alike():
    train, test = load_images("digits", "train"), load_images("digits", "test")
    assert sorted([*train.ids.tolist(), *test.ids.tolist()]) == list(range(1797)) and len(test) == 360
    assert train.ids[:5].tolist() == [362, 1568, 1440, 1761, 815], "another shuffle is another data set"
    assert train.images.min() == 0 and train.images.max() == 1 and train.classes == tuple("0123456789")
    with pytest.raises(ValueError, match=r"1\.\.360"):
        load_images("digits", "test", 361)
    with pytest.raises(ValueError, match='"train" or "test"'):
        load_images("digits", "valid")
    assert load_images(Path("digits"), "test", 1).name == load_images("digits", "test", 1).name == "digits"


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
    "nothing": dict(images=[b""], labels=[0]),
    "unlabelled": dict(images=pictures(2, 4, 4), labels=[0, None]),
    "negative": dict(images=pictures(2, 4, 4), labels=[-1, 0]),
    "empty": dict(images=[], labels=[]),
}.items())
def test_tables_that_cannot_be_used(name, shown, tmp_path):
    wanted = dict(
        pictures=r"columns \[picture: struct<.*>, label: int64\]; needed are `img` or `image`",
        labels=r"columns \[image: struct<.*>\]; needed are .* integer `label`",
        sizes=r"row 1 of .* is \(5, 4, 1\), the first is \(4, 4, 1\) .*: a size, such as size=32, brings all to one",
        kinds=r"row 1 of .* is \(4, 4, 3\), the first is \(4, 4, 1\) .*: make all of them grey, or none",
        alpha="row 0 of .* mode RGBA, part of which is seen through: lay it on a background",
        bytes="row 0 of .* holds no bytes of an image, at most a path: the bytes of the image's file belong in `bytes`",
        noise="row 0 of .* holds no readable image: it is in no known format of pixels, such as PNG or JPEG$",
        nothing="row 0 of .* is empty: there is no image in it$",
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
    (tmp_path / "papers").mkdir(), (tmp_path / "papers" / "train-1.pdf").touch()
    with pytest.raises(FileNotFoundError, match=r"no file .*\*train\*.parquet; images are read from parquet tables, or from pictures such as cat/1.png"):
        load_images(tmp_path / "papers", "train")
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match=r"train is a folder, and a pattern names parquet files: give the folder .* itself"):
        load_images(str(tmp_path / "{split}"), "train")
    (tmp_path / "train").rmdir()
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


def test_what_the_hub_s_client_says_is_one_line(monkeypatch, tmp_path, capsys):
    def fail(name, **options):
        raise OSError("Got: no way there\nCheck your connection.")

    monkeypatch.setattr(images_module, "snapshot_download", fail)
    with pytest.raises(SystemExit):
        main(["zoo", "mnist", str(tmp_path / "zoo")])
    assert capsys.readouterr().err == (
        "inrformer zoo: error: tried to download ylecun/mnist from the Hugging Face Hub and could not (OSError: Got: no way there). "
        "Without a network, give local parquet files instead: a folder, or a pattern such as my/files/mnist-{split}.parquet\n"
    )


def test_a_download_is_read_like_a_folder(monkeypatch, tmp_path):
    asked = {}
    write_table(tmp_path / "train-00000-of-00001.parquet", images=pictures(3, 4, 4), labels=[0, 1, 2])
    monkeypatch.setattr(images_module, "snapshot_download", lambda name, **options: asked.update(options, name=name) or str(tmp_path))
    images = load_images("mnist", "train")
    assert (images.name, len(images)) == ("mnist", 3)
    assert (asked["name"], asked["repo_type"], asked["allow_patterns"]) == ("ylecun/mnist", "dataset", ["*train*.parquet"])


def test_images_keep_whole_numbers_of_any_type_and_refuse_what_does_not_fit():
    pixels, classes = torch.rand(3, 4, 4, 1), ("a", "b")
    small = Images(pixels, torch.tensor([0, 1, 1], dtype=torch.int16), torch.tensor([5, 6, 7], dtype=torch.int32), classes, "x")
    usual = Images(pixels, torch.tensor([0, 1, 1]), torch.tensor([5, 6, 7]), classes, "x")
    assert small.ids.dtype == small.labels.dtype == torch.int64 and small.digest == usual.digest
    assert len(load_images("digits", "test", np.int64(3))) == 3
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.1, not in 0\.\.2"):
        Images(pixels, torch.tensor([0, 2, 1]), torch.arange(3), classes, "x")


def test_pixels_are_hashed_once(monkeypatch):
    hashed, images = [], load_images("digits", "test", 5)
    sha256 = images_module.hashlib.sha256
    monkeypatch.setattr(images_module.hashlib, "sha256", lambda *data: hashed.append(data) or sha256(*data))
    first = images.digest, images.fingerprints
    assert (images.digest, images.fingerprints) == first and len(hashed) == 5 + 1
    assert len({images.digest, images[:4].digest, images[[1, 0, 2, 3, 4]].digest, Images(images.images, images.labels, images.ids + 1, images.classes, "x").digest}) == 4


def test_a_config_says_which_images():
    train, test = Data(n_train=7, n_test=3).load()
    assert torch.equal(train.ids, load_images("digits", "train", 7).ids) and len(test) == 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_read_upright(orientation, tmp_path):
    photo, exif = pictures(1, 4, 8)[0], Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(photo.numpy()).save(file := io.BytesIO(), "png", exif=exif)
    write_table(tmp_path / "o-train.parquet", images=[file.getvalue()], labels=[0])
    turned = {1: photo, 2: photo.flip(1), 3: photo.flip(0, 1), 4: photo.flip(0), 5: photo.T, 6: photo.rot90(-1), 7: photo.T.flip(0, 1), 8: photo.rot90(1)}
    assert torch.equal((load_images(str(tmp_path / "o-{split}.parquet"), "train").images[0, ..., 0] * 255).round().byte(), turned[orientation])


@pytest.mark.parametrize("first, second", [(["cat", "dog"], None), (None, ["cat", "dog"]), (["cat", "dog"], ["dog", "cat"])])
def test_files_of_a_split_name_the_same_classes(first, second, tmp_path):
    for i, names in enumerate((first, second)):
        write_table(tmp_path / f"train-{i}.parquet", images=pictures(2, 4, 4, seed=i), labels=[0, 1], names=names)
    with pytest.raises(ValueError, match="train-1.parquet names the classes .*, and .*train-0.parquet .*: the files of a split must agree"):
        load_images(tmp_path, "train")


def test_a_table_without_a_label_is_named(tmp_path):
    write_table(tmp_path / "some-train.parquet", images=pictures(3, 4, 4), labels=[None] * 3)
    with pytest.raises(ValueError, match="no row of .*some-train.parquet has a label"):
        load_images(tmp_path / "some-{split}.parquet", "train")


def test_labels_that_are_ids_are_refused(tmp_path):
    for labels, names, said in (
        ([0, 1, 10_000_000], None, "x-train.parquet has 3 different labels, the largest 10000000: a label is the position of a class, 0, 1, 2, ..., and no id"),
        ([0, 1, 2**40], None, "the largest 1099511627776"), ([0, 1, 2], ["a", "b"], r"row 2 of .*x-train.parquet has the label 2, and the file names 2 classes: .* 0\.\.1"),
    ):
        write_table(tmp_path / "x-train.parquet", images=pictures(3, 4, 4), labels=labels, names=names)
        with pytest.raises(ValueError, match=said):
            load_images(str(tmp_path / "x-{split}.parquet"), "train")
    pq.write_table(pq.read_table(tmp_path / "x-train.parquet").set_column(1, "label", pa.array([0, 1, 2**63], pa.uint64())).replace_schema_metadata(None), tmp_path / "x-train.parquet")
    with pytest.raises(ValueError, match="the largest 9223372036854775808"):
        load_images(str(tmp_path / "x-{split}.parquet"), "train")
    write_table(tmp_path / "x-train.parquet", images=pictures(3, 4, 4), labels=[0, 500, 999])
    assert len(load_images(str(tmp_path / "x-{split}.parquet"), "train").classes) == 1000


def resized(blob: bytes, width: int, height: int) -> bytes:
    "A PNG whose header promises another size."
    head = blob[12:16] + struct.pack(">II", width, height) + blob[24:29]
    return blob[:12] + head + struct.pack(">I", zlib.crc32(head)) + blob[33:]


@pytest.mark.parametrize("size, said", {(20_000, 20_000): "holds no readable image: Image size .400000000 pixels. exceeds", (5000, 5000): "is an image of 5000 x 5000 pixels; one of more than 16,777,216 numbers is refused"}.items())
def test_a_picture_is_refused_by_its_size_before_it_is_decoded(size, said, tmp_path):
    Image.fromarray(pictures(1, 4, 4)[0].numpy()).save(file := io.BytesIO(), "png")
    write_table(tmp_path / "x-train.parquet", images=[*pictures(2, 4, 4), resized(file.getvalue(), *size)], labels=[0, 1, 0])
    with pytest.raises(ValueError, match=f"row 2 of .*x-train.parquet {said}"):
        load_images(str(tmp_path / "x-{split}.parquet"), "train")


def test_a_split_is_refused_by_its_size_at_its_first_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(images_module, "NUMBERS", (100, 100))
    write_table(tmp_path / "x-train.parquet", images=pictures(7, 4, 4), labels=[0] * 7)
    with pytest.raises(ValueError, match=r"7 images like row 0 of .*, \(4, 4, 1\) .* are more than 100 numbers: take fewer"):
        load_images(str(tmp_path / "x-{split}.parquet"), "train")
    assert len(load_images(str(tmp_path / "x-{split}.parquet"), "train", 6)) == 6


def test_the_last_word_of_a_name_says_the_split_and_a_folder_where_the_name_does_not(tmp_path):
    for i, split in enumerate(("train", "test", "validation")):
        for folder, name in ((tmp_path / "time", f"test-of-time-{split}.parquet"), (tmp_path / "hub" / "default" / split, "0000.parquet")):
            folder.mkdir(parents=True, exist_ok=True)
            write_table(folder / name, images=pictures(2 + i, 4, 4, seed=i), labels=[0] * (2 + i))
    for folder, name in {"time": "test-of-time", "hub": "hub"}.items():
        found = [load_images(tmp_path / folder, split) for split in ("train", "test")]
        assert [len(images) for images in found] == [2, 3] and {images.name for images in found} == {name}
    assert load_images(str(tmp_path / "time" / "test-of-time-{split}.parquet"), "train").name == "test-of-time"


def test_home_is_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path)), monkeypatch.setenv("INRFORMER_CACHE", "~/cache"), (tmp_path / "tables").mkdir()
    write_table(tmp_path / "tables" / "x-train.parquet", images=pictures(2, 4, 4), labels=[0, 1])
    assert cache_folder() == tmp_path / "cache"
    assert [load_images(source, "train").name for source in ("~/tables", "~/tables/x-{split}.parquet")] == ["x", "x"]


def test_data_without_a_name_are_refused():
    with pytest.raises(ValueError, match="data must name the folder of a finished INR data set, not ''"):
        Data(data="")


def put(folder: Path, name: str, image: Image.Image | torch.Tensor, **options) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image.numpy())).save(folder / name, **options)


AVIF = pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")


def flat_colour(mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (4, 4), {"RGB": (255, 0, 0)}.get(mode, 255))


@pytest.mark.parametrize("name, save, said", [
    ("a.png", lambda path: flat_colour().save(path, transparency=(255, 0, 0)), "seen through"), ("a.png", lambda path: flat_colour("L").save(path, transparency=255), "seen through"),
    ("a.gif", lambda path: flat_colour("L").save(path, save_all=True, append_images=[Image.new("L", (4, 4), 9)]), "it is 2 pictures, frames or pages"),
    ("a.tif", lambda path: flat_colour().save(path, save_all=True, append_images=[flat_colour()]), "it is 2 pictures, frames or pages"),
    *(("a.png", lambda path, form=form: path.write_bytes(deep_png(*form)), "it has 16 bits per channel") for form in ((2, 3), (4, 2), (6, 4))),
    ("a.ppm", lambda path: path.write_bytes(b"P6 4 4 65535 " + bytes(96)), "it has 16 bits per channel"), ("a.ppm", lambda path: path.write_bytes(b"P3 4 4 1023 " + b"1000 " * 48), "it has 10 bits per channel"),
    *((f"a.{kind}", lambda path, kind=kind: path.write_bytes(deep_jpeg2000(kind)), "it has 12 bits per channel") for kind in ("jp2", "j2k")),
    pytest.param("a.avif", lambda path: path.write_bytes(deep_avif()), "it has 10 bits per channel", marks=AVIF), ("a.rgb", lambda path: flat_colour().save(path, "SGI", bpc=2), "it has 16 bits per channel"),
])
def test_pictures_that_would_be_taken_for_others_are_refused(tmp_path, name, save, said):
    save(tmp_path / name)
    with pytest.raises(ValueError, match=f"{name} .*{said}"):
        load_picture(tmp_path / name, (4, 4, 3))


def test_a_cameras_photograph_is_its_first_picture(tmp_path):
    "Phones write a second picture, such as a depth map, behind the photograph."
    flat_colour().save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[Image.new("RGB", (4, 4))])
    assert Image.open(tmp_path / "a.jpg").n_frames == 2 and load_picture(tmp_path / "a.jpg", (4, 4, 3))[0, ..., 0].min() > 0.9


@pytest.mark.parametrize("name", ["a.ppm", "a.jp2", "a.j2k", pytest.param("a.avif", marks=AVIF), "a.sgi"])
def test_pictures_of_eight_bits_are_taken_in_every_form(tmp_path, name):
    flat_colour().save(tmp_path / name)
    assert (load_picture(tmp_path / name, (4, 4, 3)) - torch.tensor([1.0, 0.0, 0.0])).abs().max() < 0.05
    (tmp_path / "a.ppm").write_bytes(b"P3 1 1 15 15 0 15")
    assert load_picture(tmp_path / "a.ppm", (1, 1, 3)).flatten().tolist() == [1, 0, 1]


def encoded(form: str, **options) -> bytearray:
    flat_colour().save(file := io.BytesIO(), form, **options)
    return bytearray(file.getvalue())


def deep_jpeg2000(kind: str) -> bytes:
    "A JPEG 2000 whose header says 12 bits for each of three channels."
    blob = encoded("JPEG2000", no_jp2=kind == "j2k")
    first = blob.index(b"\xff\x4f\xff\x51") + 42
    blob[first : first + 9 : 3] = b"\x0b" * 3
    return bytes(blob)


def deep_avif() -> bytes:
    "An AVIF whose header says 10 bits for each of three channels."
    blob = encoded("AVIF")
    blob[blob.index(b"av1C") + 6] |= 0x40
    return bytes(blob.replace(b"\x03\x08\x08\x08", b"\x03\x0a\x0a\x0a"))


def deep_png(colour: int, channels: int) -> bytes:
    "Two pixels of so many channels of 16 bits, of a PNG's colour type."
    def part(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", (2).to_bytes(4, "big") + (1).to_bytes(4, "big") + bytes((16, colour, 0, 0, 0))) + part(b"IDAT", zlib.compress(bytes(1 + 2 * 2 * channels))) + part(b"IEND", b"")


def test_whatever_pillow_opens_is_a_picture_and_a_link_to_nothing_is_named(tmp_path):
    for k, name in enumerate(("cat/1.jfif", "cat/2.png", "cow/1.tga", "cow/2.jp2")):
        put(tmp_path, name, pictures(1, 8, 8, 3, seed=k)[0], **dict(format="JPEG") if name.endswith("jfif") else {})
    assert load_images(str(tmp_path), "train").classes == ("cat", "cow")
    (tmp_path / "cat" / "gone.png").symlink_to("nowhere.png")
    with pytest.raises(ValueError, match="gone.png is a link, and nothing is where it leads"):
        load_images(str(tmp_path), "train")


def test_a_pattern_may_lie_in_a_folder_with_brackets(tmp_path):
    folder = tmp_path / "a[b]"
    folder.mkdir()
    for split, seed in (("train", 0), ("test", 1)):
        write_table(folder / f"m-{split}-0.parquet", images=pictures(2, 4, 4, seed=seed), labels=[0, 1])
    assert len(load_images(str(folder / "m-{split}-*.parquet"), "train")) == 2


def test_a_folder_of_pictures_is_split_by_what_is_in_them(tmp_path):
    grey = pictures(30, 6, 7)
    for i, image in enumerate(grey):
        put(tmp_path / "pets", f"{('cat', 'dog', 'elk')[i % 3]}/deep/{i}.{('png', 'BMP')[i % 2]}", image)
        put(tmp_path / "other", f"{('c', 'd', 'e')[i % 3]}/{99 - i}.{('png', 'BMP')[i % 2]}", image)
    put(tmp_path / "pets", "dog/again.png", grey[4]), put(tmp_path / "pets", "dog/.hidden.png", grey[4]), (tmp_path / "pets" / "notes.txt").touch()
    train, test = (load_images(tmp_path / "pets", split) for split in ("train", "test"))
    assert (train.name, train.classes, test.classes) == ("pets", ("cat", "dog", "elk"), ("cat", "dog", "elk"))
    assert test.labels.bincount().tolist() == [2, 2, 2] and len(train) in (24, 25) and len(train) + len(test) == 31
    assert not set(train.fingerprints) & set(test.fingerprints) and not set(train.ids.tolist()) & set(test.ids.tolist())
    assert set(load_images(tmp_path / "pets", "train", 12).labels.tolist()) == {0, 1, 2}, "the first are of every class"
    assert set(load_images(tmp_path / "other", "test").fingerprints) == set(test.fingerprints), "names decide nothing"
    put(tmp_path / "pets", "cat/4.png", grey[4])
    with pytest.raises(ValueError, match=r"dog/again.png and .*cat/4.png are the same file: a picture has one class"):
        load_images(tmp_path / "pets", "train")


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right of their own there")
def test_a_link_to_a_folder_is_a_folder_and_one_that_leads_back_is_not_entered(tmp_path):
    for i, image in enumerate(pictures(12, 6, 7)):
        put(tmp_path, f"{'real' if i % 3 == 2 else 'pets'}/{('cat', 'dog', 'elk')[i % 3]}/{i}.png", image)
    (tmp_path / "pets" / "elk").symlink_to(tmp_path / "real" / "elk", target_is_directory=True)
    (tmp_path / "pets" / "cat" / "all").symlink_to(tmp_path / "pets", target_is_directory=True)
    train = load_images(tmp_path / "pets", "train")
    assert train.classes == ("cat", "dog", "elk") and len(train) + len(load_images(tmp_path / "pets", "test")) == 12


def test_a_split_in_the_folder_of_a_class_is_refused(tmp_path):
    for i, image in enumerate(pictures(8, 6, 7)):
        put(tmp_path, f"{('cat', 'dog')[i % 2]}/{('train', 'Test')[i // 4]}/{i}.png", image)
    with pytest.raises(ValueError, match=r"cat/Test/4.png lies in Test in the folder of a class: splits come first, as in Test/cat/4.png"):
        load_images(tmp_path, "train")


def test_folders_of_pictures_say_the_split_and_the_class(tmp_path):
    for i, image in enumerate(pictures(8, 6, 7, 3)):
        put(tmp_path / "a", f"{'training' if i < 5 else 'Test'}/{'cat' if i % 2 else 'dog'}/{i}.png", image)
        put(tmp_path / "flat", f"{i}.png", image), put(tmp_path / "sides", f"{'train' if i < 5 else 'test'}/{i}.png", image)
    train, test = (load_images(tmp_path / "a", split) for split in ("train", "test"))
    assert (len(train), len(test), train.classes, train.name) == (5, 3, ("cat", "dog"), "a")
    assert [len(load_images(tmp_path / "flat", split)) for split in ("train", "test")] == [7, 1]
    assert [len(load_images(tmp_path / "sides", split)) for split in ("train", "test")] == [5, 3]
    assert load_images(tmp_path / "flat", "train").classes == ("unlabelled",)
    put(tmp_path / "flat", "cat/1.png", pictures(1, 6, 7, seed=3)[0])
    with pytest.raises(ValueError, match=r"in .*flat, \d.png lies in no folder of a class, and cat/1.png does: all of them must, or none"):
        load_images(tmp_path / "flat", "train")
    put(tmp_path / "sides", "cat/1.png", pictures(1, 6, 7, seed=3)[0])
    with pytest.raises(ValueError, match=r"in .*sides, cat/1.png lies in no folder of a split, such as train and test, and .* does"):
        load_images(tmp_path / "sides", "train")
    put(tmp_path / "a", "Test/elk/1.png", pictures(1, 6, 7, seed=3)[0])
    with pytest.raises(ValueError, match=r"Test/elk/1.png is of the class 'elk', and the training pictures are of \['cat', 'dog'\]"):
        load_images(tmp_path / "a", "test")
    put(tmp_path / "b", "val/elk/1.png", pictures(1, 6, 7, seed=3)[0])
    with pytest.raises(FileNotFoundError, match=r"b has no train pictures: it has folders of \['val'\]"):
        load_images(tmp_path / "b", "train")
    put(tmp_path / "b", "train/elk/2.png", pictures(1, 6, 7, seed=4)[0]), put(tmp_path / "b", "test/elk/3.png", pictures(1, 6, 7, seed=5)[0])
    for split in ("train", "test"):
        with pytest.raises(ValueError, match=r"nothing would read .*val/elk/1.png .* a part of the training pictures validates: move them into the folder of the training pictures, or out of"):
            load_images(tmp_path / "b", split)
    put(tmp_path / "one", "1.png", pictures(1, 6, 7, seed=3)[0])
    with pytest.raises(FileNotFoundError, match="one has no test pictures: it has only 1 pictures, of which a fifth test"):
        load_images(tmp_path / "one", "test")


def test_what_says_the_same_is_read_and_what_must_be_interpreted_is_refused(tmp_path):
    colour = Image.fromarray(pictures(1, 6, 6, 3)[0].numpy())
    coarse = colour.quantize(7)
    see_through = colour.convert("RGBA")
    see_through.putpixel((2, 1), (1, 2, 3, 100))
    bits = Image.fromarray(pictures(1, 6, 6)[0].numpy()).convert("1")
    same = {"palette": (coarse, coarse.convert("RGB")), "opaque": (colour.convert("RGBA"), colour), "bits": (bits, bits.convert("L")), "la": (bits.convert("LA"), bits.convert("L"))}
    for name, (given, meant) in same.items():
        put(tmp_path / name, "1.png", given), put(tmp_path / name, "2.png", given.rotate(90))
        read = load_images(tmp_path / name, "train").images[0], load_images(tmp_path / name, "test").images[0]
        wanted = torch.from_numpy(np.atleast_3d(np.array(meant))).float().div(255)
        assert any(torch.equal(one, wanted) for one in read), name
    deep = Image.fromarray(np.arange(36, dtype=np.uint16).reshape(6, 6) * 999)
    for name, given, said in (("alpha", see_through, "mode RGBA, part of which is seen through: lay it on a background"), ("deep", deep, "mode I;16: convert it, and look"), ("clear", coarse.convert("RGBA"), None)):
        put(tmp_path / name, "1.png", given), put(tmp_path / name, "2.png", given.rotate(180))
        if said:
            with pytest.raises(ValueError, match=rf"{name}/\d.png is an image of {said}.*; needed is grey \(L\) or RGB"):
                load_images(tmp_path / name, "train")
    (tmp_path / "deep" / "1.png").write_bytes(b"no image"), (tmp_path / "deep" / "2.png").unlink(), put(tmp_path / "deep", "3.gif", coarse)
    with pytest.raises(ValueError, match="deep/1.png holds no readable image"):
        [load_images(tmp_path / "deep", split) for split in ("train", "test")]


def test_a_size_takes_the_middle_square_and_photos_that_are_too_large_otherwise(tmp_path, monkeypatch):
    wide = torch.zeros(4, 12, dtype=torch.uint8)
    wide[:, 4:8] = 200
    exif = Image.Exif()
    exif[0x0112] = 6
    put(tmp_path / "p", "a/1.png", wide), put(tmp_path / "p", "a/2.png", wide.T.contiguous()), put(tmp_path / "p", "b/3.png", pictures(1, 8, 8)[0], exif=exif), put(tmp_path / "p", "b/4.png", pictures(1, 9, 8)[0])
    both = [load_images(tmp_path / "p", split, size=4) for split in ("train", "test")]
    assert all(side.images.shape == (2, 4, 4, 1) for side in both)
    assert all((side.images[side.labels == 0] * 255).round().eq(200).all() for side in both)
    with pytest.raises(ValueError, match=r"images must be of one size: .*p/./..png is .*, the first is .*: a size, such as size=32, brings all to one"):
        [load_images(tmp_path / "p", split) for split in ("train", "test")]
    monkeypatch.setattr(images_module, "NUMBERS", (20, 2**30))
    assert len(load_images(tmp_path / "p", "train", size=2)) == 2
    with pytest.raises(ValueError, match="the digits are 8 x 8 pixels: leave size=4 out"):
        load_images("digits", "train", size=4)
    for size in (0, -3):
        with pytest.raises(ValueError, match=f"size must be a number of pixels a side, 1 or more, not {size}; without it"):
            load_images(tmp_path / "p", "train", size=size)


def test_how_much_of_a_picture_is_seen(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    put(tmp_path, "wide.png", pictures(1, 4, 12)[0]), put(tmp_path, "turned.png", pictures(1, 4, 12)[0], exif=exif)
    for name, shape, share in (("wide.png", (8, 8, 1), 1 / 3), ("wide.png", (2, 6, 1), 1), ("turned.png", (6, 2, 1), 1), ("turned.png", (2, 6, 1), 1 / 9)):
        assert share_seen(tmp_path / name, shape) == share_seen((tmp_path / name).read_bytes(), shape) == pytest.approx(share)


def test_pictures_without_classes_are_fitted_and_not_classified(tmp_path, monkeypatch):
    monkeypatch.setenv("INRFORMER_CACHE", str(tmp_path / "cache"))
    for i, image in enumerate(pictures(6, 6, 6)):
        put(tmp_path / "flat", f"{i}.png", image)
    small = dict(dataset=str(tmp_path / "flat"), n_train=5, n_test=1, hidden="4-4", omega=8.0, fit_steps=3)
    with pytest.raises(ValueError, match="all images of flat are of one class, 'unlabelled': they can be fitted, but there is nothing to classify; classes are folders"):
        run(small, out=tmp_path / "runs")
    main(["fit", str(tmp_path / "flat"), str(tmp_path / "inrs"), "--spec", "2-4-4-1", "--steps", "3"])
    with pytest.raises(ValueError, match="all images of .*inrs are of one class, 'unlabelled'"):
        run(dict(data=str(tmp_path / "inrs")), out=tmp_path / "runs")


def test_a_cache_that_is_no_folder_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        monkeypatch.setenv("INRFORMER_CACHE", str(tmp_path / name))
        with pytest.raises(NotADirectoryError, match=f"the cache .*{name} is a file, or a link that leads nowhere"):
            cache_folder()
    monkeypatch.setenv("INRFORMER_CACHE", str(tmp_path / "new"))
    assert cache_folder() == tmp_path / "new"


def test_a_table_of_fewer_rows_than_it_says_is_damaged(tmp_path, monkeypatch):
    write_table(tmp_path / "x-train.parquet", images=[torch.zeros(4, 4, dtype=torch.uint8)] * 3, labels=[0, 1, 0])
    monkeypatch.setattr(pq.ParquetFile, "metadata", property(lambda self: SimpleNamespace(num_rows=38, num_row_groups=1)))
    with pytest.raises(ValueError, match="x-train.parquet is damaged: it says that it has 38 rows, and 3 can be read"):
        load_images(str(tmp_path / "x-{split}.parquet"), "train")


def test_a_table_whose_names_are_no_text_is_named(tmp_path):
    write_table(path := tmp_path / "x-train.parquet", images=[torch.zeros(4, 4, dtype=torch.uint8)] * 2, labels=[0, 1])
    path.write_bytes(path.read_bytes().replace(b"image", b"\x80mage"))
    with pytest.raises(ValueError, match="x-train.parquet is no whole parquet file"):
        load_images(str(tmp_path / "x-{split}.parquet"), "train")
