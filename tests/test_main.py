"The command line: doors to functions, each with a help that shows an example, and errors of one line."

import sys
import tomllib
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image
from test_images import pictures, put

from inrformer import __main__ as command_line
from inrformer.answers import answer, caveat, classify, recipe_from, recipe_of
from inrformer.config import config_from
from inrformer.data import INRDataset
from inrformer.files import shown
from inrformer.fitting import fit, init_seeds
from inrformer.images import load_images, load_picture
from inrformer.inr import INRSpec
from inrformer.inspection import run_source
from inrformer.interchange.state_dicts import save_state_dicts
from inrformer.own import Fitting, OwnBench
from inrformer.records import records, right
from inrformer.runs import Run, find_run, run
from inrformer.saving import VIEW, forget_widgets
from inrformer.experiments import ZOOS

SMALL = dict(size=6, n_train=16, n_test=4, hidden="4-4", omega=8.0, fit_steps=20, reader="flat", epochs=2, val_parts=4, device="cpu")


def said(*words: object) -> tuple[int, str]:
    "Exit code and last line of what a command says when it cannot."
    with pytest.raises(SystemExit) as ended:
        command_line.main([str(word) for word in words])
    return ended.value.code


@pytest.fixture
def pets(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("INRFORMER_CACHE", str(tmp_path / "cache"))
    for i, image in enumerate(pictures(20, 9, 8, 3)):
        put(tmp_path / "pets", f"{('cat', 'dog')[i % 2]}/{i}.png", (image // 8 + 200 * (i % 2)).byte())
    return tmp_path / "pets"


def test_inrformer_is_a_command():
    script = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["inrformer"]
    module, _, name = script.partition(":")
    assert getattr(import_module(module), name) is command_line.main


@pytest.mark.parametrize("name", ["fit", "import", "zoo", "train", "classify", "sweep", "workbench", "config"])
def test_help_shows_an_example(name, capsys):
    assert said(name, "--help") == 0
    shown = capsys.readouterr().out
    assert f"\ninrformer {name}" in shown


def test_from_pictures_to_a_class(pets, tmp_path, capsys):
    out = ["--out", tmp_path / "runs"]
    command_line.main(list(map(str, ["train", f"dataset={pets}", *(f"{name}={value}" for name, value in SMALL.items()), *out])))
    assert "test accuracy" in capsys.readouterr().out
    put(tmp_path, "large.png", Image.fromarray(np.full((90, 70), 230, dtype=np.uint8)))
    (folder,) = (tmp_path / "runs" / "custom").glob("[0-9a-f]*")
    command_line.main(list(map(str, ["last", *out])))
    assert folder.name in capsys.readouterr().out
    command_line.main(list(map(str, ["classify", pets / "cat" / "0.png", tmp_path / "large.png", "--run", folder.name[:6], *out])))
    shown = capsys.readouterr()
    first, second = shown.out.splitlines()
    assert first.startswith(f"{pets / 'cat' / '0.png'}: ") and "cat 0." in first and "dog 0." in second and "dB; those of the run have" in second
    assert "note: all INRs of this run come from one start, and so do those of these pictures" in shown.err and "accuracy" in shown.err
    assert "only the middle" not in shown.err
    command_line.main(list(map(str, ["classify", pets / "cat" / "0.png", "--invert", "--run", folder.name, *out])))
    assert (inverted := capsys.readouterr().out) != first and inverted.startswith(str(pets))
    put(tmp_path, "strip.png", Image.fromarray(np.full((3, 500), 230, dtype=np.uint8))), (tmp_path / "empty.png").touch()
    command_line.main(list(map(str, ["classify", tmp_path / "strip.png", "--run", folder.name, *out])))
    assert f"note: of {tmp_path / 'strip.png'}, only the middle 0.6% of the longer side was seen: cut it to what it shows\n" in capsys.readouterr().err
    for words, told in (([tmp_path / "no.png"], "No such file"), ([pets / "cat" / "0.png", "--run", "zzz"], f"no finished run 'zzz': there are ['{folder.name}']"), ([folder / "config.json"], "config.json holds no readable image: it is in no known format"), ([tmp_path / "empty.png"], "empty.png is empty")):
        assert said("classify", *words, *out) == 2
        assert told in capsys.readouterr().err


def test_what_would_mean_nothing_or_does_not_fit_is_said_in_a_line(pets, tmp_path, monkeypatch, capsys):
    fit_it = ("fit", pets, tmp_path / "inrs", "--spec", "2-4-3", "--steps", 1, "--size", 6)
    assert said(*fit_it, "--val-parts", 5) == 2 and "val_parts say which images are fitted from other starts too, and mean nothing without --test-init other" in capsys.readouterr().err
    command_line.main(list(map(str, fit_it)))
    assert said("zoo", pets, tmp_path / "inrs", "--size", 6, "--classifiers", 2, 2, "--shares", 2, 9) == 2 and "inrs holds another data set, INRs that were fitted: choose another folder" in capsys.readouterr().err
    for i, image in enumerate(pictures(20, 6, 6)):
        put(tmp_path / "kept", f"{('.ipynb_checkpoints', 'cat')[i % 2]}/{i}.png", image)
    assert said("zoo", tmp_path / "kept", tmp_path / "other") == 2 and "has pictures in .ipynb_checkpoints, a folder that a program keeps for itself" in capsys.readouterr().err

    def too_much(options):
        "Asks for too much."
        torch.empty(2**60)

    monkeypatch.setitem(command_line.COMMANDS, "last", (command_line.COMMANDS["last"][0], too_much))
    assert said("last", "--out", tmp_path) == 2 and "memory does not suffice: use a smaller reader" in capsys.readouterr().err


def test_a_run_that_is_not_finished_answers_nothing(pets, tmp_path):
    this = run(SMALL | dict(dataset=str(pets)), out=tmp_path / "runs", stop=lambda: True)
    for ask in (lambda: classify(this, [pets / "cat" / "0.png"]), lambda: answer(this, torch.zeros(1, 6, 6, 3))):
        with pytest.raises(ValueError, match="is no finished run of a reader that classifies"):
            ask()


def test_a_command_that_is_stopped_says_how_it_goes_on(monkeypatch, capsys, tmp_path):
    def command(options):
        "Is stopped."
        raise KeyboardInterrupt

    monkeypatch.setitem(command_line.COMMANDS, "last", (command_line.COMMANDS["last"][0], command))
    assert said("last", "--out", tmp_path) == 130 and capsys.readouterr().err == "inrformer last: stopped; the same command goes on\n"


def test_what_a_sweep_is_asked_arrives_and_rows_that_were_left_are_a_failure(monkeypatch, tmp_path):
    asked = {}
    monkeypatch.setattr(command_line, "sweep", lambda rows, name, **how: asked.update(how, rows=len(rows), name=name) or [])
    words = ["sweep", "table2", "--set", "dataset=digits", "n_train=64", "n_test=32", "--stale", "--compile", "--jobs", "3", "--records", tmp_path / "records", "--out", tmp_path / "runs"]
    assert said(*words) == 1
    wanted = dict(again=True, compiled=True, jobs=3, folder=tmp_path / "records", out=tmp_path / "runs", budget=None, rows=2, name="table2")
    assert {name: asked[name] for name in wanted} == wanted
    command_line.main([*map(str, words), "--budget", "5"])
    assert asked["budget"] == 5, "what a budget leaves is no failure"


def test_what_is_not_installed_is_named_with_what_brings_it(monkeypatch, capsys, tmp_path):
    def command(options):
        "Needs something."
        import no_such_library  # noqa: F401

    monkeypatch.setitem(command_line.COMMANDS, "last", (command_line.COMMANDS["last"][0], command))
    with pytest.raises(SystemExit, match="2"):
        command_line.main(["last", "--out", str(tmp_path)])
    assert capsys.readouterr().err == "inrformer last: error: no_such_library is not installed: pip install '.[lab]'\n"


@pytest.mark.parametrize("init", ["shared", "pool", "independent"])
def test_pictures_are_fitted_as_the_run_s_were(init, pets, tmp_path):
    this = run(SMALL | dict(dataset=str(pets), init=init, test_init="same"), out=tmp_path / "runs")
    assert this.summary["image_shape"] == [6, 6, 3] and find_run(this.folder.name[:5], tmp_path / "runs").folder == this.folder
    test = load_images(pets, "test", size=6)
    files = {tuple(load_picture(path, (6, 6, 3)).flatten().tolist()): path for path in pets.rglob("*.png")}
    paths = [files[tuple(image.flatten().tolist())] for image in test.images]
    found = classify(this, paths)
    assert torch.equal(classify(this, paths, invert=True).probabilities, answer(this, 1 - torch.cat([load_picture(path, (6, 6, 3)) for path in paths])).probabilities)
    assert torch.allclose(found.probabilities.sum(dim=1), torch.ones(4)) and found.inr.spec == this.model.spec
    if init == "shared":
        assert torch.allclose(found.inr.flat(), this.dataset.split("test").inr.flat(), atol=1e-3)
        assert found.best == [found.classes[i] for i in this.record_parts["answers"]["test"]["answers"]]
    again = answer(this, test.images.flip(0))
    assert torch.allclose(again.inr.flat().flip(0), found.inr.flat(), atol=1e-3), "an INR depends on its picture, not on its place"
    assert bool(caveat(this)) == (init != "independent")
    with pytest.raises(ValueError, match=r"the images of .* are \(6, 6, 3\) \(height, width, channels\), and these \(5, 6, 3\): load_picture"):
        answer(this, torch.rand(1, 5, 6, 3))


def test_pictures_for_a_run_of_a_folder_of_inrs(pets, tmp_path):
    command_line.main(["fit", str(pets), str(tmp_path / "inrs"), "--spec", "2-4-4-3,omega=8", "--size", "6", "--steps", "20"])
    this = run({name: SMALL[name] for name in ("reader", "epochs", "val_parts", "device")} | dict(data=str(tmp_path / "inrs")), out=tmp_path / "runs")
    found = classify(this, [next(pets.rglob("*.png"))])
    assert found.best[0] in ("cat", "dog") and "one start" in caveat(this)
    for wrong in ([], "cat.png"):
        with pytest.raises(ValueError, match="paths must be a list of files, of one at least"):
            classify(this, wrong)
    panel = OwnBench(run_source(this.folder))
    panel.take(next(pets.rglob("*.png")))
    assert panel.fitting.steps == 20 and panel._last == 20, "as the folder's card says"


def test_what_cannot_answer_says_why(pets, tmp_path):
    small = {name: value for name, value in SMALL.items() if name != "reader"} | dict(dataset=str(pets), init="shared", test_init="same", fit_steps=2, epochs=1)
    editor = run(small | dict(reader="mlp", edits=True, objective="edit"), out=tmp_path / "runs")
    with pytest.raises(ValueError, match=f"{editor.folder.name} is no finished run of a reader that classifies"):
        classify(editor, [next(pets.rglob("*.png"))])
    with pytest.raises(ValueError, match="fitted elsewhere .imported, nfn convention., and how is not known"):
        recipe_from(replace(config_from({}), fit=None), dict(origin="imported, nfn convention"))
    run(small | dict(reader="flat"), out=tmp_path / "runs")
    with pytest.raises(ValueError, match="'' begins the ids of 2 runs, .*: give more of it"):
        find_run("", tmp_path / "runs")


def test_a_run_whose_classes_are_called_otherwise_now_is_not_shown(pets, tmp_path):
    row = {name: value for name, value in SMALL.items()} | dict(dataset=str(pets), fit_steps=2, epochs=1)
    run(row, out=tmp_path / "runs")
    (pets / "cat").rename(pets / "bat")
    with pytest.raises(ValueError, match=r"is a run whose classes were named \('cat', 'dog'\), and here they are \('bat', 'dog'\)"):
        run(row, out=tmp_path / "runs")


def test_a_penalty_is_asked_for_and_pictures_are_fitted_with_it(tmp_path):
    words = ["fit", "digits", str(tmp_path / "inrs"), "--steps", "2", "--n-train", "6", "--n-test", "4", "--penalty", "10", "--spec"]
    assert said(*words, "2-4-4-1") == 2 and not (tmp_path / "inrs").exists()
    command_line.main([*words, "2-4-4-1,kind=mfn"])
    assert INRDataset(tmp_path / "inrs").card["penalty"] == 10.0
    for values, penalty in ((dict(kind="mfn", penalty=3.0), 3.0), (dict(data=str(tmp_path / "inrs")), 10.0), (dict(kind="mfn"), None)):
        assert recipe_of(Run(tmp_path, config_from(values)))["penalty"] == penalty


def test_a_fit_that_is_watched_keeps_its_penalty():
    spec, image = INRSpec(widths=(2, 6, 6, 1), kind="mfn"), load_images("digits", "train", 1).images
    ends = {}
    for penalty in (None, 10.0):
        live = Fitting(image[0], spec, seed=init_seeds("shared", [0])[0], lr=1e-2, penalty=penalty)
        live.advance(5)
        ends[penalty] = live.inr.flat()
        assert (ends[penalty] - fit(image, spec, steps=5, lr=1e-2, penalty=penalty, device="cpu").inr.flat()).abs().max() < 1e-4
    assert (ends[None] - ends[10.0]).abs().max() > 1e-2


def test_weight_files_of_others_by_a_table(tmp_path, capsys):
    spec = INRSpec(widths=(2, 4, 4, 1))
    inrs = fit(torch.stack(pictures(6, 5, 5))[..., None].float() / 255, spec, steps=3, lr=1e-3, device="cpu").inr
    paths = save_state_dicts(inrs, tmp_path / "nets", "nfn")
    lines = [f"{'train' if i < 4 else 'test'},nets/{path.name},{('elk', 'cat')[i % 2]},{i}" for i, path in enumerate(paths)]
    (tmp_path / "list.csv").write_text("\n".join(["split,file,label,image", *lines]))
    command_line.main(["import", str(tmp_path / "list.csv"), str(tmp_path / "inrs"), "--convention", "nfn", "--name", "animals"])
    there = INRDataset(tmp_path / "inrs")
    assert (there.card["classes"], there.split("train").labels.tolist(), there.split("test").ids.tolist()) == (["cat", "elk"], [1, 0, 1, 0], [4, 5])
    assert torch.equal(there.split("train").inr.flat(), inrs[:4].flat())
    for path in paths:
        torch.save({name.replace("net.", "").replace(".linear", "x"): t for name, t in torch.load(path, weights_only=True).items()}, path)
    words = ["import", str(tmp_path / "list.csv"), str(tmp_path / "named"), "--convention", "nfn", "--name", "animals"]
    assert said(*words) == 2 and "(of `inrformer import`: --names 0,2)" in capsys.readouterr().err
    command_line.main([*words, "--names", "0x,1x,2"])
    assert INRDataset(tmp_path / "named").digest == there.digest
    (tmp_path / "list.csv").write_text("file,label\na.pth,1\n")
    assert said("import", tmp_path / "list.csv", tmp_path / "x", "--convention", "nfn", "--name", "animals") == 2
    assert "list.csv lacks the columns ['split']: needed is a line for each network" in capsys.readouterr().err
    good = ["split,file,label,image", *lines]
    (tmp_path / "list.csv").write_text("\ufeff" + "\n".join(good), encoding="utf-8")
    command_line.main(["import", str(tmp_path / "list.csv"), str(tmp_path / "as-a-spreadsheet-writes-it"), *words[3:], "--names", "0x,1x,2"])
    assert INRDataset(tmp_path / "as-a-spreadsheet-writes-it").digest == there.digest


@pytest.mark.parametrize(("line", "told"), [
    ("train,nets/a.pth", "list.csv, line 3, has no label"), ("train,nets/a.pth,,1", "list.csv, line 3, has no label"), ("train,nets/a.pth,7,", "list.csv, line 3, has no image"),
    ("train,nets/a.pth,7,x1", "list.csv, line 3, has the image 'x1': images are told apart by whole numbers"), ("train,nets/a.pth,7,9999999999999999999", "has the image '9999999999999999999': images are told apart by whole numbers below 2⁶³"), ("train,nets/a.pth,cat,1", "has labels that are numbers, such as '3', and labels that are names, such as 'cat'"),
    ("train,nets/a.pth,3000000,1", "has 2 different labels, the largest 3000000: a label is the position of a class"),
])
def test_a_cell_of_a_table_that_cannot_be_used_is_named(line, told, tmp_path, capsys):
    (tmp_path / "list.csv").write_text(f"split,file,label,image\ntrain,nets/b.pth,3,0\n{line}\n")
    assert said("import", tmp_path / "list.csv", tmp_path / "x", "--convention", "nfn", "--name", "animals") == 2
    assert told in capsys.readouterr().err


def test_an_omega_that_is_no_number_is_told_what_it_should_be(tmp_path, capsys):
    with pytest.raises(SystemExit):
        command_line.main(["import", str(tmp_path / "list.csv"), str(tmp_path / "inrs"), "--convention", "nfn", "--name", "mnist", "--omega", "abc"])
    assert "'abc' is neither a number nor one for each hidden layer, as 30 or 30,1" in capsys.readouterr().err


def test_a_zoo_is_fitted_and_swept(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(ZOOS, "adapt", ZOOS["adapt"][:1])
    command_line.main(list(map(str, ["zoo", "digits", tmp_path / "zoo", "--hidden", "5-4", "--classifiers", 12, 4, "--steps", 3, 9])))
    assert "widths=(64, 5, 4, 10), init='independent', train: 12, test: 4)" in capsys.readouterr().out
    assert {config_from(row | dict(data=str(tmp_path / "zoo"))).protocol for rows in ZOOS.values() for row in rows} == {"custom"}
    command_line.main(list(map(str, ["sweep", "adapt", "--out", tmp_path / "runs", "--set", "objective=adapt", "domain_test=30", "epochs=1", f"data={tmp_path / 'zoo'}"])))
    assert "adapt: 1 of 1 runs are done" in capsys.readouterr().out
    (r,) = records(folder=tmp_path / "runs" / "records")
    assert right(r).mean() == pytest.approx(r["summary"]["test_accuracy"], abs=1e-4) and r["config"]["task"]["domain_images"] == "digits"
    for words, told in ((["zoo", "digits", tmp_path / "other", "--hidden", "x"], "'64-x-10,kind=perceptron' is no spec"), (["zoo", "digits", tmp_path / "other", "--classifiers", 0, 4], "not 0 and 4"),
                        (["zoo", "digits", tmp_path / "zoo", "--seed", 1], "zoo"), (["sweep", "regress"], "make one with `inrformer zoo`")):
        assert said(*words) == 2 and told in capsys.readouterr().err


HOOK = "inrformer.saving.forget_widgets"


def test_the_workbench_is_opened_where_there_is_one(monkeypatch, tmp_path, capsys):
    asked = []
    monkeypatch.setattr(command_line.subprocess, "call", lambda words: asked.append(words) or 0)
    monkeypatch.chdir(ROOT)
    assert said("workbench") == 0 and said("workbench", "--app") == 0
    assert [words[2] for words in asked] == ["jupyterlab", "voila"] and all(Path(words[3]) == ROOT / "nbs" / "workbench.ipynb" for words in asked)
    assert asked[0][4] == f"--FileContentsManager.pre_save_hook={HOOK}", "a notebook that is opened so is saved with its widgets"
    assert f"{forget_widgets.__module__}.{forget_widgets.__name__}" == HOOK
    monkeypatch.setattr(command_line, "find_spec", lambda name: None)
    assert said("workbench") == 2 and "the workbench needs jupyterlab: pip install '.[lab]'" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    for words, what in ((["workbench"], "the workbench"), (["train", "--page", "page.ipynb"], "the page of a run")):
        assert said(*words) == 2 and f"{what} is a notebook of the project, and {tmp_path} is not in it: start this command in a clone" in capsys.readouterr().err


@pytest.mark.parametrize("kept", [".thumbnails/0.png", "__MACOSX/cat/0.png"])
def test_what_programs_keep_for_themselves_is_no_class(kept, pets, tmp_path, capsys):
    put(pets, kept, pictures(1, 6, 7, 3, seed=9)[0])
    for words in (["fit", pets, tmp_path / "inrs", "--spec", "2-4-4-3", "--size", "6"], ["train", f"dataset={pets}", "size=6", "n_train=4", "n_test=2", "--out", tmp_path / "runs"]):
        assert said(*words) == 2 and f"has pictures in {kept.split('/')[0]}, a folder that a program keeps for itself" in capsys.readouterr().err
    assert not (tmp_path / "inrs").exists() and not (tmp_path / "runs").exists()


def test_a_page_lies_with_the_project_s_runs(tmp_path, monkeypatch, capsys):
    assert said("train", "--page", "page.ipynb", "--out", tmp_path) == 2
    assert "leave out --out, or --page" in capsys.readouterr().err


def test_a_training_that_diverges_is_said_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("INRFORMER_CACHE", str(tmp_path / "cache"))
    assert said("train", "--out", tmp_path, "reader=mlp", "lr=1e30", "n_train=96", "n_test=24", "fit_steps=5", "hidden=6-6", "epochs=2") == 2
    assert "is no longer finite" in capsys.readouterr().err.splitlines()[-1]


def test_a_page_that_cannot_be_made_says_so_in_one_line_and_without_a_warning(tmp_path, monkeypatch, capfd):
    page = new_notebook(metadata=dict(kernelspec=dict(name="python3", display_name="python3", language="python")))
    page.cells = [new_code_cell("hint = None", metadata=dict(tags=["parameters"])), new_code_cell("import sys\nprint('fitting', file=sys.stderr)\nassert reader == 'flat', reader"), new_code_cell("raise RuntimeError('another process is at the run')")]
    monkeypatch.chdir(tmp_path), (tmp_path / "nbs").mkdir(), (tmp_path / "settings.ini").touch()
    (tmp_path / "nbs" / "train.ipynb").write_text(nbformat.writes(page))
    assert said("train", "--page", "page.ipynb", "reader=flat", "epochs=1") == 2
    assert capfd.readouterr().err == "fitting\ninrformer train: error: another process is at the run (where: page.ipynb)\n"
    assert "RuntimeError" in (tmp_path / "page.ipynb").read_text()


def test_a_warning_is_a_note_of_one_line(pets, tmp_path, capfd, monkeypatch):
    fields = SMALL | dict(dataset=pets, reader="inrformer", dim=16, edge_dim=8, depth=1, heads=2, hint=16, query=16, epochs=1)
    command_line.main(["train", *(f"{name}={value}" for name, value in fields.items()), "--out", str(tmp_path / "runs")])
    told = [line for line in capfd.readouterr().err.splitlines() if "crop head" in line or "Warning" in line or "_tell_crop" in line]
    assert len(told) == 1 and told[0].startswith("note: the crop head has not learned: what it shows explains ")
    page = new_notebook(metadata=dict(kernelspec=dict(name="python3", display_name="python3", language="python")))
    page.cells = [new_code_cell("hint = None", metadata=dict(tags=["parameters"])), new_code_cell("import warnings\nwarnings.warn('look here')\nwarnings.warn('and here', FutureWarning)")]
    monkeypatch.chdir(tmp_path), (tmp_path / "nbs").mkdir(), (tmp_path / "settings.ini").touch()
    (tmp_path / "nbs" / "train.ipynb").write_text(nbformat.writes(page))
    command_line.execute_page(dict(hint=3), tmp_path / "page.ipynb")
    notes = capfd.readouterr().err
    assert notes.startswith("note: look here\n") and "FutureWarning: and here" in notes


def test_a_full_disk_is_said_with_the_file_and_the_command_goes_on_when_there_is_room(tmp_path, monkeypatch, capsys):
    def full(path, data):
        raise OSError(28, "No space left on device")

    words = ["fit", "digits", str(tmp_path / "inrs"), "--spec", "2-4-4-1", "--steps", "1", "--n-train", "6", "--n-test", "4"]
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        assert said(*words) == 2
    assert f"inrformer fit: error: [Errno 28] No space left on device: '{shown(tmp_path / 'inrs' / 'train-00000.safetensors')}'" in capsys.readouterr().err
    command_line.main(words)
    assert len(INRDataset(tmp_path / "inrs").split("train")) == 6


def test_a_notebook_is_saved_without_widgets_where_nbdev_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "nbdev.clean", None)
    output = dict(output_type="display_data", metadata={}, data={VIEW: {}})
    model = dict(type="notebook", content=dict(metadata=dict(widgets={}), cells=[dict(outputs=[output])]))
    forget_widgets(model)
    assert model["content"] == dict(metadata={}, cells=[dict(outputs=[])])
    forget_widgets(dict(type="file", content="text"))
