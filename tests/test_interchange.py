"INRs of others in, ours out: plain modules load what we write, and what comes back is the same to the bit."

import os
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from huggingface_hub import DatasetCard
from torch import nn

from inrformer.data import INRDataset
from inrformer.fitting import fit
from inrformer.images import Images, load_images
from inrformer.inr import INR, INRSpec, init_inr, pixel_grid
from inrformer.interchange.state_dicts import CONVENTIONS, from_state_dict, import_dataset, load_state_dicts, psnr_of_pixels, save_state_dicts, to_state_dict

WIDTHS = [(2, 7, 1), (2, 9, 8, 3), (2, 6, 5, 4, 3)]


class NFNLayer(nn.Module):
    def __init__(self, i: int, o: int, omega: float):
        super().__init__()
        self.linear, self.omega = nn.Linear(i, o), omega

    def forward(self, x):
        return torch.sin(self.omega * self.linear(x))


class NFNSiren(nn.Module):
    def __init__(self, widths, omega):
        super().__init__()
        *hidden, last = zip(widths, widths[1:])
        self.net = nn.Sequential(*(NFNLayer(i, o, omega) for i, o in hidden), nn.Linear(*last))

    def forward(self, x):
        return self.net(x)


class DWSLayer(nn.Linear):
    omega = 30.0

    def forward(self, x):
        return torch.sin(self.omega * super().forward(x))


class DWSSiren(nn.Module):
    def __init__(self, widths, omega):
        super().__init__()
        *hidden, last = zip(widths, widths[1:])
        self.seq = nn.Sequential(*(DWSLayer(i, o) for i, o in hidden), nn.Linear(*last))
        for layer in self.seq[:-1]:
            layer.omega = omega

    def forward(self, x):
        return self.seq(x) + 0.5


MODULES = dict(nfn=NFNSiren, dws=DWSSiren)
INDEXING = dict(nfn="ij", dws="xy")


def pixels(convention: str, n: int) -> torch.Tensor:
    "The n x n coordinates that a convention's own code gives its modules, pixel after pixel."
    axis = np.linspace(-1, 1, n)
    return torch.from_numpy(np.stack([x.flatten() for x in np.meshgrid(axis, axis, indexing=INDEXING[convention])], axis=1))


def drawn(convention: str, widths: tuple[int, ...], n: int = 3, omega: float = 30.0) -> INR:
    return init_inr(INRSpec(**dict(widths=widths, omega=omega) | CONVENTIONS[convention].spec), n, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("convention", MODULES)
@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("omega", [30.0, 8.0])
def test_a_plain_module_loads_what_we_write_and_shows_the_same(convention, widths, omega, tmp_path):
    inr, theirs, ours = drawn(convention, widths, omega=omega), pixels(convention, 9), pixel_grid(9, 9).double()
    for i, path in enumerate(save_state_dicts(inr, tmp_path, convention)):
        module = MODULES[convention](widths, omega)
        module.load_state_dict(torch.load(path, weights_only=True), strict=True)
        double = inr[i : i + 1].to(torch.float64)
        assert (module.double()(theirs) - double(ours)[0]).abs().max() < 1e-6
        column_first = convention == "dws"
        assert (module.double()(ours.flip(1) if column_first else ours) - double(ours)[0]).abs().max() < 1e-12


@pytest.mark.parametrize("convention", MODULES)
@pytest.mark.parametrize("widths", WIDTHS)
def test_what_a_plain_module_writes_comes_back_to_the_bit(convention, widths, tmp_path):
    modules, theirs, ours = [MODULES[convention](widths, 12.0) for _ in range(3)], pixels(convention, 9), pixel_grid(9, 9).double()
    for i, module in enumerate(modules):
        torch.save(module.state_dict(), tmp_path / f"{i}.pth")
    inr = load_state_dicts([tmp_path / f"{i}.pth" for i in range(3)], convention, omega=12.0)
    assert inr.spec == INRSpec(**dict(widths=widths, omega=12.0) | CONVENTIONS[convention].spec)
    again = load_state_dicts(save_state_dicts(inr, tmp_path / "again", convention), convention, omega=12.0)
    assert torch.equal(again.flat(), inr.flat()) and again.spec == inr.spec
    for i, module in enumerate(modules):
        state = torch.load(tmp_path / "again" / f"{i:05d}.pth", weights_only=True)
        assert all(torch.equal(state[name], t) for name, t in module.state_dict().items()) and state.keys() == module.state_dict().keys()
        assert (module.double()(theirs) - inr[i : i + 1].to(torch.float64)(ours)[0]).abs().max() < 1e-6


@pytest.mark.parametrize("convention", MODULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_imported_image_stands_upright(convention, dtype, tmp_path):
    module, n = MODULES[convention]((2, 8, 6, 1), 5.0).to(dtype), 12
    torch.save(module.state_dict(), tmp_path / "0.pth")
    low, high = CONVENTIONS[convention].image_range
    shown = (module(pixels(convention, n).to(dtype)).detach().float() - low) / (high - low)
    images = dict(train=Images(shown.unflatten(0, (n, n))[None], torch.tensor([0]), torch.tensor([0]), ("a",), "shown"))
    inr = load_state_dicts([tmp_path / "0.pth"], convention, omega=5.0)
    turned = Images(images["train"].images.transpose(1, 2), torch.tensor([0]), torch.tensor([0]), ("a",), "turned")
    assert inr.dtype == dtype and psnr_of_pixels(inr, images["train"], convention) > 80 and psnr_of_pixels(inr, turned, convention) < 40
    files, labels = {name: [tmp_path / "0.pth"] for name in images}, {name: [0] for name in images}
    imported = import_dataset(tmp_path / "set", files, labels, convention=convention, omega=5.0, name="shown", classes=("a",), images=images).split("train")
    assert imported.inr.dtype == torch.float32 and torch.equal(imported.inr.flat(), inr.flat().float()) and imported.psnr > 80


def test_conventions_are_those_of_the_published_sets():
    nfn, dws = (INRSpec(**dict(widths=(2, 32, 32, 3)) | CONVENTIONS[name].spec) for name in ("nfn", "dws"))
    assert nfn == INRSpec() and (nfn.omega, nfn.offset, dws.omega, dws.offset) == (30.0, 0.0, 30.0, 0.5)
    for spec, bounds in (
        (nfn, dict(W1=0.5, b1=2**-0.5, W2=(6 / 32) ** 0.5 / 30, b2=32**-0.5, W3=(6 / 32) ** 0.5 / 30, b3=32**-0.5)),
        (dws, dict(W1=3**0.5 / 30, b1=0.0, W2=(6 / 32) ** 0.5 / 30, b2=0.0, W3=32**-0.5, b3=32**-0.5)),
    ):
        start = init_inr(spec, 200, generator=torch.Generator().manual_seed(0)).named
        assert {name: t.abs().max().item() for name, t in start.items()} == pytest.approx(bounds, rel=0.02)


@pytest.fixture
def digits(tmp_path):
    "Sixteen digits' files, labels and images, in the DWSNets convention: half of what was fitted, and a half."
    images, spec = load_images("digits", "train", 16), INRSpec(widths=(2, 7, 6, 1))
    *hidden, weight, bias = fit(images.images, spec, steps=60, lr=1e-2).inr.tensors
    halves = INR((*hidden, weight / 2, bias / 2), replace(spec, **CONVENTIONS["dws"].spec))
    paths = save_state_dicts(halves, tmp_path / "files", "dws")
    with pytest.raises(ValueError, match=f"holds {len(halves)} .pth files, such as 00000.pth"):
        save_state_dicts(halves[:1], tmp_path / "files", "dws")
    parts = dict(train=slice(0, 10), test=slice(10, 16))
    return {k: paths[s] for k, s in parts.items()}, {k: images.labels[s].tolist() for k, s in parts.items()}, {k: images[s] for k, s in parts.items()}


@pytest.mark.parametrize("shown", [True, False])
def test_imported_inrs_are_a_data_set_like_any_other(shown, digits, tmp_path):
    files, labels, images = digits
    options = dict(convention="dws", name="digits", classes=tuple("0123456789"), images=images if shown else None)
    first = import_dataset(tmp_path / "set", files, labels, **options)
    import_dataset(tmp_path / "set", files, labels, **options)
    if shown:
        dimmed = {split: replace(some, images=some.images * 0.9) for split, some in images.items()}
        with pytest.raises(ValueError, match="holds these INRs with the PSNR that they have of other images"):
            import_dataset(tmp_path / "set", files, labels, **options | dict(images=dimmed))
    opened = INRDataset(tmp_path / "set")
    for name in ("train", "test"):
        split = opened.split(name)
        assert torch.equal(split.inr.flat(), load_state_dicts(files[name], "dws").flat()) and split.labels.tolist() == labels[name]
        assert torch.equal(split.psnr, psnr_of_pixels(split.inr, images[name], "dws")) if shown else split.psnr.isnan().all()
        again = save_state_dicts(split.inr, tmp_path / name, "dws")
        assert [torch.load(p, weights_only=True).keys() for p in again] == [torch.load(p, weights_only=True).keys() for p in files[name]]
    assert opened.card["digest"] == first.card["digest"] and opened.card["image_range"] == [0, 1] and opened.spec.offset == 0.5
    assert len(set(opened.split("train").ids.tolist() + opened.split("test").ids.tolist())) == 16 and opened.fit_seconds is None
    card = DatasetCard.load(tmp_path / "set" / "README.md")
    assert "| origin | imported, dws convention |" in card.text and ("| train | 10 | unknown |" in card.text) == (not shown)


@pytest.mark.parametrize("known", ["images", "ids", "val", "nothing"])
def test_what_validates_is_held_out_by_image_given_or_refused(known, digits, tmp_path):
    files, labels, images = digits
    if known == "val":
        files, labels = ({name: some[half] for name, half in dict(train=slice(0, 7), val=slice(7, 10)).items()} | dict(test=of["test"]) for some, of in ((files["train"], files), (labels["train"], labels)))
    ids = dict(train=list(np.repeat([40, 30, 20, 10, 50], 2)), test=[1, 1, 2, 2, 3, 3]) if known == "ids" else None
    imported = import_dataset(
        tmp_path / "set", files, labels, convention="dws", name="digits", classes=tuple("0123456789"), images=images if known == "images" else None, ids=ids,
    )
    assert imported.card["ids"] == (known in ("images", "ids")) and INRDataset(tmp_path / "set").digest == imported.digest
    assert imported.split("train").sizes == ((8, 8) if known == "images" else (1, 1))
    if known == "nothing":
        with pytest.raises(ValueError, match="does not say which image an INR shows, so no images can be held out: import it again, with ids= or with a split val"):
            imported.partition(5, -1)
        return
    train, val = imported.partition(5, -1)
    assert (len(train), len(val)) == {"images": (8, 2), "ids": (8, 2), "val": (7, 3)}[known]
    if known == "ids":
        assert val.ids.tolist() == [50, 50] and imported.partition(5, 0)[1].ids.tolist() == [10, 10]
    if known == "val":
        assert imported.splits == ("train", "val", "test") and torch.equal(val.inr.flat(), load_state_dicts(files["val"], "dws").flat())


def test_another_import_into_the_same_folder_is_refused(digits, tmp_path):
    files, labels, _ = digits
    options = dict(convention="dws", name="digits", classes=tuple("0123456789"))
    import_dataset(tmp_path / "set", files, labels, **options)
    with pytest.raises(ValueError, match="holds another data set: content"):
        import_dataset(tmp_path / "set", files | dict(test=files["test"][::-1]), labels, **options)


def test_files_labels_and_images_must_fit(digits, tmp_path):
    files, labels, images = digits
    options = dict(convention="dws", name="digits", classes=tuple("0123456789"))
    cases = {
        "must have the same splits": (files, dict(train=labels["train"]), {}),
        "the 6 files of test need as many labels in 0..9, not 5": (files, labels | dict(test=labels["test"][:5]), {}),
        r"not 6, \[11\] among them": (files, labels | dict(test=[11, *labels["test"][1:]]), {}),
        "6 INRs need as many images, not 5": (files, labels, dict(images=dict(train=images["train"], test=images["test"][:5]))),
        "6 test images have the pixels of train images": (files, labels, dict(images=dict(train=images["train"], test=replace(images["train"][:6], ids=images["test"].ids)))),
        "10 test images have the INRs of train images": (dict(train=files["train"], test=files["train"]), dict(train=labels["train"], test=labels["train"]), {}),
        "file 1 of test has the label 9, and its image": (files, labels | dict(test=[labels["test"][0], 9, *labels["test"][2:]]), dict(images=images)),
        "the INRs of train show their images at .* dB, where one colour for each gives .*: another convention": (files, labels, dict(images=images, omega=8.0)),
        "there are no files": (files | dict(test=[]), labels | dict(test=[]), {}),
        "give images or ids, not both": (files, labels, dict(images=images, ids=dict(train=range(10), test=range(10, 16)))),
        "must have the same splits, not .*, .'train'.$": (files, labels, dict(ids=dict(train=range(10)))),
        "the 6 files of test need as many ids, not 5": (files, labels, dict(ids=dict(train=range(10), test=range(10, 15)))),
        "2 test images have the ids of train images, first test image 0 that of train image 8": (files, labels, dict(ids=dict(train=range(10), test=range(8, 14)))),
        "conventions tell of SIRENs, not of the kind relu": (files, labels, dict(kind="relu", omega=30.0, first_init="coordinate", last_init="hidden")),
        "convention must be one of": (files, labels, dict(convention="siren")),
    }
    for message, (some, of, changes) in cases.items():
        with pytest.raises(ValueError, match=message):
            import_dataset(tmp_path / "set", some, of, **options | changes)
    assert not (tmp_path / "set").exists()


class Trap:
    def __reduce__(self):
        return os.mkdir, ("sprung",)


def test_nothing_in_a_file_is_ever_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(weight=Trap()), tmp_path / "trap.pth")
    with pytest.raises(ValueError, match="trap.pth is damaged, or no plain state dict, and nothing else is loaded: of a whole module, save model.state_dict.. alone$"):
        load_state_dicts([tmp_path / "trap.pth"], "nfn")
    assert not (tmp_path / "sprung").exists()


def test_what_is_no_state_dict_says_so(tmp_path):
    good = to_state_dict(drawn("nfn", (2, 5, 4, 1), 1))
    states = {
        "needed is a weight and a bias for each of two or more layers": {k: v for k, v in good.items() if k != "net.1.linear.bias"},
        "and nothing else": good | dict(omega=torch.tensor(30.0)),
        "do not follow each other": good | {"net.1.linear.weight": torch.zeros(4, 6)},
        "needed are weights": good | {"net.1.linear.weight": torch.zeros(4, 5, 1)},
        "holds NaN or infinity": good | {"net.2.bias": torch.tensor([torch.nan])},
        "maps names to tensors, but list": [1, 2],
    }
    for message, state in states.items():
        torch.save(state, tmp_path / "x.pth")
        with pytest.raises(ValueError, match=message):
            load_state_dicts([tmp_path / "x.pth"], "nfn")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "x.pth").read_bytes()[:50])
    with pytest.raises(ValueError, match="cut.pth is damaged, or no plain state dict"):
        load_state_dicts([tmp_path / "cut.pth"], "nfn")
    with pytest.raises(FileNotFoundError):
        load_state_dicts([tmp_path / "nothing.pth"], "nfn")
    torch.save(good, tmp_path / "a.pth"), torch.save({k: v.double() for k, v in good.items()}, tmp_path / "b.pth")
    with pytest.raises(ValueError, match=r"b.pth holds an INR of widths \(2, 5, 4, 1\), torch.float64, and .*a.pth one of"):
        load_state_dicts([tmp_path / "a.pth", tmp_path / "b.pth"], "nfn")


def test_an_export_that_would_show_another_image_is_refused():
    with pytest.raises(ValueError, match="dws adds 0.5 to the output and these INRs add 0.0"):
        to_state_dict(drawn("nfn", (2, 5, 1), 1), "dws")
    with pytest.raises(ValueError, match="holds one INR, not 3"):
        to_state_dict(drawn("nfn", (2, 5, 1)))
    with pytest.raises(ValueError, match="conventions tell of SIRENs, not of the kind relu"):
        to_state_dict(init_inr(INRSpec(widths=(2, 5, 1), kind="relu"), 1))
    assert torch.equal(from_state_dict(to_state_dict(drawn("dws", (2, 5, 1), 1), "dws"), "dws").flat(), drawn("dws", (2, 5, 1), 1).flat())


def test_names_say_the_order_of_layers_and_the_file_does_not(tmp_path):
    inr = drawn("nfn", (2, *[4] * 12, 1), 1)
    state = to_state_dict(inr)
    for order in (sorted(state), list(reversed(state)), [name for l in (0, 2, 1, *range(3, 13)) for name in list(state)[2 * l : 2 * l + 2]]):
        torch.save({name: state[name] for name in order}, tmp_path / "a.pth")
        assert torch.equal(load_state_dicts([tmp_path / "a.pth"], "nfn").flat(), inr.flat())


@pytest.mark.parametrize("convention, other", [("nfn", "dws"), ("dws", "nfn")])
def test_another_conventions_names_are_refused(convention, other, tmp_path):
    (path,) = save_state_dicts(drawn(convention, (2, 4, 4, 1), 1), tmp_path, convention)
    with pytest.raises(ValueError, match=f"00000.pth holds .*: these are the names of the convention {convention}") as refused:
        load_state_dicts([path], other)
    assert not str(refused.value).startswith("/")  # a path from here, as in every error


def test_unknown_names_need_consent(tmp_path):
    module = nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 1))
    torch.save(module.state_dict(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a.pth holds .* names=\[...\] gives the prefixes of its layers in their order"):
        load_state_dicts([tmp_path / "a.pth"], "nfn")
    assert torch.equal(load_state_dicts([tmp_path / "a.pth"], "nfn", names=["0", "2"]).weights[0][0], module[0].weight)


def test_an_omega_for_each_layer_is_absorbed():
    omegas, plain = (30.0, 1.0, 4.0), drawn("nfn", (2, 6, 5, 4, 1), 1).to(torch.float64)
    x = points = pixel_grid(5, 5).double()
    (*hidden, last), (*biases, shift) = plain.weights, plain.biases
    for omega, w, b in zip(omegas, hidden, biases):
        x = torch.sin(omega * (x @ w[0].T + b[0]))
    assert (from_state_dict(to_state_dict(plain), "nfn", omega=omegas)(points)[0] - (x @ last[0].T + shift[0])).abs().max() < 1e-12
    with pytest.raises(ValueError, match=r"has 3 hidden layers, and omega=\[30.0, 1.0\] is for 2"):
        from_state_dict(to_state_dict(plain), "nfn", omega=[30.0, 1.0])
    for none in ([], [30.0, float("nan"), 4.0]):
        with pytest.raises(ValueError, match="omega must be a positive and finite number, in every layer, not"):
            from_state_dict(to_state_dict(plain), "nfn", omega=none)


def test_files_of_any_iterable_are_checked(tmp_path):
    good, bad = drawn("nfn", (2, 5, 1), 2)
    paths = save_state_dicts(INR.cat([good, INR(tuple(t * torch.nan for t in bad.tensors), bad.spec)]), tmp_path)
    for given in (paths, iter(paths)):
        with pytest.raises(ValueError, match="00001.pth holds NaN or infinity"):
            load_state_dicts(given, "nfn")


def test_images_of_other_channels_have_no_quality():
    grey = load_images("digits", "train", 3)
    with pytest.raises(ValueError, match="INRs of 3 channels cannot show images of 1"):
        psnr_of_pixels(drawn("nfn", (2, 5, 3), 3), grey, "nfn")


def test_files_that_hold_something_else_say_what(tmp_path):
    good, path = to_state_dict(drawn("nfn", (2, 5, 4, 1), 1)), tmp_path / "x.pth"
    for state, said in (
        (dict(state_dict=good, epoch=3), "holds no state dict, .* but dict; it has one under 'state_dict': save that alone"), ({0: torch.ones(2)}, "holds no state dict"), ({}, "holds no state dict"),
        ({name: t.int() for name, t in good.items()}, r"holds \['torch.int32'\]; weights are floating-point"),
        (good | {"net.2.weight": torch.ones(1).expand(10**6, 10**6)}, "claims 4,000,000,.* bytes of tensors, more than the file has: it is refused"),
    ):
        torch.save(state, path)
        with pytest.raises(ValueError, match=f"x.pth {said}"):
            load_state_dicts([path], "nfn")
    for spoil in (lambda: path.write_bytes(b""), lambda: path.write_bytes(b"garbage" * 99), lambda: torch.save(nn.Linear(2, 3), path)):
        spoil()
        with pytest.raises(ValueError, match="x.pth is damaged, or no plain state dict, .*: of a whole module, save model.state_dict.. alone$"):
            load_state_dicts([path], "nfn")
    torch.save(good, path)
    with zipfile.ZipFile(path) as stored, zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in stored.infolist():
            packed.writestr(entry.filename, stored.read(entry))
    with pytest.raises(ValueError, match="packed.pth is a compressed archive, which torch.save never writes"):
        load_state_dicts([tmp_path / "packed.pth"], "nfn")


def test_quality_is_measured_some_at_a_time():
    images, inr = load_images("digits", "train", 70), drawn("nfn", (2, 32, 32, 1), 70)
    seen, evaluate = [], INR.__call__
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(INR, "__call__", lambda self, coords: seen.append(len(self)) or evaluate(self, coords))
        assert len(psnr_of_pixels(inr, images, "nfn")) == 70
    assert max(seen) <= 32 and sum(seen) == 70
