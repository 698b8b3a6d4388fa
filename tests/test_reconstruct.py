"Reconstruction: what a perfect decoder and the mean image score, who is refused, and how a classifier starts from what was learned."

import pytest
import torch
from test_battery import reader_of, split_of

from inrformer.config import config_from
from inrformer.inr import INRSpec, init_inr
from inrformer.objectives.reconstruct import Reconstruct
from inrformer.reader import READERS, Reader
from inrformer.runs import run, start_as

SPEC = INRSpec(widths=(2, 5, 4, 3), omega=8.0)
BRIEF = dict(n_train=96, n_test=48, fit_steps=30, hidden="6-6", epochs=1, device="cpu", reader="inr2array", dim=8, depth=1, hyper=8, tokens=8, layers=1)


class Shows(Reader):
    "Draws what it is given to draw with."

    def render(self, inr, points):
        return self.draw(inr(points))


def scored(draw):
    split, task, reader = split_of(SPEC), Reconstruct(Reconstruct.Config(side=5)), Shows(SPEC)
    reader.draw = draw
    loss = task.loss(reader, split, None)["reconstruct_error"].item()
    found = task.score(task.outputs(reader, split), split)
    assert loss == pytest.approx(found["reconstruct_error"] * len(split), rel=1e-5)
    return found


def test_the_score_of_what_is_there_and_of_the_mean_image():
    exact, mean, off = scored(lambda shown: shown.clone()), scored(lambda shown: shown.mean(dim=0, keepdim=True).expand_as(shown)), scored(lambda shown: shown + 0.2)
    assert exact["reconstruct_r2"] == 1 and exact["reconstruct_psnr"] == pytest.approx(120) and exact["mean_psnr"] == pytest.approx(mean["mean_psnr"])
    assert mean["reconstruct_r2"] == pytest.approx(0, abs=1e-5) and mean["reconstruct_psnr"] == pytest.approx(mean["mean_psnr"], abs=1e-4)
    assert off["reconstruct_error"] == pytest.approx(0.04, rel=1e-4) and off["reconstruct_psnr"] == pytest.approx(20, abs=1e-3)


def test_what_has_no_decoder_or_shows_no_image_is_refused():
    with pytest.raises(ValueError, match=r"probe has no decoder and shows nothing of an INR; \['inr2array'\] do"):
        config_from(dict(objective="reconstruct", reader="probe"))
    volume = INRSpec(widths=(3, 4, 1))
    with pytest.raises(ValueError, match="pictures are functions of 2 coordinates, and not of 3"):
        Reconstruct().attach(READERS["inr2array"](volume))
    with pytest.raises(ValueError, match="these INRs have 3"):
        READERS["inr2array"](volume).render(init_inr(volume, 1), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="latents=8 is no grid in 2 dimensions; the nearest are 4 and 9"):
        config_from(dict(reader="inr2array", latents=8))


def test_a_reader_starts_as_another_but_for_its_head():
    first, second = reader_of("inr2array", SPEC), reader_of("inr2array", SPEC, seed=1)
    first.mean += 1
    head = second.head.weight.clone()
    start_as(second, first)
    assert torch.equal(second.head.weight, head) and all(torch.equal(t, second.state_dict()[name]) for name, t in first.state_dict().items() if not name.startswith("head."))
    with pytest.raises(ValueError, match="start_from: inr2array has .* of shape .*, for which this inr2array has no place"):
        start_as(reader_of("inr2array", SPEC, tokens=4), first)


def test_a_classifier_starts_from_a_run_and_its_frozen_array_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("INRFORMER_CACHE", str(tmp_path / "cache"))
    drawn = run(BRIEF | dict(objective="reconstruct"), out=tmp_path)
    assert drawn.model.classes == () and drawn.summary["test_reconstruct_psnr"] > 0
    told = run(BRIEF | dict(start_from=drawn.folder.name, frozen=True), out=tmp_path)
    inr = told.dataset.split("test").inr
    assert torch.equal(told.model.array(inr), drawn.model.array(inr)) and 0 <= told.summary["test_accuracy"] <= 1
    assert run(BRIEF | dict(start_from=drawn.folder.name, frozen=True), out=tmp_path).folder == told.folder
    with pytest.raises(FileNotFoundError, match="no finished run '0{12}'"):
        run(BRIEF | dict(start_from="0" * 12), out=tmp_path)
    with pytest.raises(ValueError, match="was trained on other INRs .its inputs differ.*may know some that validate or test here"):
        run(BRIEF | dict(start_from=drawn.folder.name, val_part=0), out=tmp_path)
