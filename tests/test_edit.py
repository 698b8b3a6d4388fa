"Editing: what the edits are, where a reader begins, what the score and its control say, and what is refused."

from dataclasses import replace

import pytest
import torch
from conftest import go_together
from test_battery import EDITING, drawn, reader_of, split_of

from inrformer.config import config_from
from inrformer.inr import INRSpec
from inrformer.moves import transform
from inrformer.objectives.edit import EDITS, Edit
from inrformer.reader import READERS, Reader, load_reader, save_reader, seed_parameters
from inrformer.symmetry import equivariance_error, permute, random_derangement, relative_error

SPEC = INRSpec(widths=(2, 5, 4, 3), omega=8.0)


class Turns(Reader):
    "An exact answer: turning the coordinates turns the image."

    def edit(self, inr):
        return transform(inr, torch.tensor([[[0.0, 1.0], [-1.0, 0.0]]]).expand(len(inr), 2, 2), torch.zeros(len(inr), 2))


def test_edits_of_one_point_and_of_a_plane():
    point, plane = torch.zeros(1, 1, 5, 5), torch.full((2, 3, 4, 4), 0.7)
    point[..., 2, 1] = 1
    grown = torch.zeros(5, 5)
    grown[1:4, 0:3] = 1
    assert torch.equal(EDITS["dilate"](point)[0, 0], grown) and torch.equal(EDITS["erode"](-point), -EDITS["dilate"](point))
    assert EDITS["blur"](point)[0, 0, 1:4, 0:3].tolist() == [[1 / 16, 2 / 16, 1 / 16], [2 / 16, 4 / 16, 2 / 16], [1 / 16, 2 / 16, 1 / 16]]
    assert EDITS["contrast"](point).mean() == pytest.approx(1 / 25) and EDITS["contrast"](point).amax() == pytest.approx(1 / 25 + 1.5 * 24 / 25)
    assert EDITS["rotate"](point)[0, 0, 3, 2] == 1
    assert all(torch.allclose(edit(plane), plane) for edit in EDITS.values())


@pytest.mark.parametrize("name", list(READERS))
def test_a_reader_begins_at_the_identity(name):
    split, task = split_of(SPEC), Edit()
    reader = seed_parameters(go_together(task.attach, reader_of(name, SPEC, **EDITING.get(name, {}))), 3)
    score = task.score(task.outputs(reader.eval(), split).detach(), split)
    assert score["edit_made"] == pytest.approx(0, abs=1e-5) and score["edit_error"] > 0


@pytest.mark.parametrize("name", [name for name in READERS if hasattr(READERS[name], "edit")])
def test_all_of_an_editor_learns_from_its_second_step_on(name):
    split, task = split_of(SPEC), Edit()
    reader = seed_parameters(go_together(task.attach, reader_of(name, SPEC, **EDITING.get(name, {}))), 3).train()
    optimiser = torch.optim.Adam(reader.parameters(), lr=1e-2)
    for _ in range(2):
        optimiser.zero_grad()
        task.loss(reader, split, None)["edit_error"].backward()
        optimiser.step()
    moved = {part.partition(".")[0] for part, p in reader.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert "rewrite" in moved and len(moved) > 1, f"only {moved} of {name} ever learns"


@pytest.mark.parametrize("name", [name for name in READERS if hasattr(READERS[name], "edit")])
def test_what_changes_are_read_by_learns_from_the_first_step_on(name):
    split, task = split_of(SPEC), Edit()
    reader = go_together(task.attach, reader_of(name, SPEC, **EDITING.get(name, {}))).double().train()
    split = replace(split, inr=split.inr.to(torch.float64))
    assert (reader.edit(split.inr).flat() - split.inr.flat()).abs().max() < 1e-12
    task.loss(reader, split, None)["edit_error"].backward()
    assert not [key for key, p in reader.rewrite.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]


def test_those_that_give_inrs_are_those_that_are_named():
    able = [name for name in READERS if hasattr(READERS[name], "edit")]
    assert {"inrformer", "dws", "nfn_np", "nfn_hnp", "nft", "ng_gnn", "ng_transformer", "scalegmn", "mlp"} <= set(able)
    with pytest.raises(ValueError, match="pixels gives no INR for an INR; \\['dws', 'inrformer', .* do"):
        config_from(dict(objective="edit", reader="pixels"))


def test_an_mlp_gives_inrs_where_it_is_told_to_and_those_of_an_aligned_one_keep_their_order(tmp_path):
    inr, perm = drawn(SPEC), random_derangement(SPEC, 3, generator=torch.Generator().manual_seed(1))
    errors = {}
    for reorder in ("none", "permute", "align"):
        for canonical in (False, True):
            reader = reader_of("mlp", SPEC, edits=True, reorder=reorder, canonical=canonical).double().eval()
            errors[reorder, canonical] = equivariance_error(reader.edit, inr, trials=2, generator=torch.Generator().manual_seed(1))
            save_reader(reader, tmp_path / "mlp.safetensors")
            assert torch.equal(load_reader(tmp_path / "mlp.safetensors").edit(inr).flat(), reader.edit(inr).flat())
    assert all(error < 1e-10 if reorder == "align" else error > 1e-3 for (reorder, _), error in errors.items())
    taught = reader.train()
    assert relative_error(taught.edit(permute(inr, perm)), permute(taught.edit(inr), perm)) > 1e-3, "in training an INR is read in the order that the loop has put it into"


def test_an_mlp_that_was_not_told_to_gives_none():
    assert not any(name.startswith(("change", "rewrite")) for name, _ in reader_of("mlp", SPEC).named_parameters())
    with pytest.raises(ValueError, match="this MLP gives no INR for an INR: make it with edits=True"):
        reader_of("mlp", SPEC).edit(drawn(SPEC).to(torch.float32))
    for objective in ("edit", "adapt"):
        with pytest.raises(ValueError, match="mlp gives an INR for an INR with edits=True alone" if objective == "edit" else "classif"):
            config_from(dict(objective=objective, reader="mlp"))
    assert config_from(dict(objective="edit", reader="mlp", edits=True)).architecture.edits


def test_the_score_of_the_exact_answer_is_one_and_its_control_is_not():
    split, task = split_of(SPEC), Edit(Edit.Config(change="rotate", side=9))
    score = task.score(task.outputs(Turns(SPEC), split), split)
    assert score["edit_made"] == pytest.approx(1, abs=1e-4) and score["edit_error"] < 1e-6 and score["edit_affine"] < 0.99
    loss = task.loss(Turns(SPEC), split, None)["edit_error"]
    assert loss == pytest.approx(score["edit_error"] * len(split), rel=1e-3, abs=1e-9)


def test_the_control_is_whole_where_the_change_is_one_of_contrast_and_brightness(monkeypatch):
    monkeypatch.setitem(EDITS, "dilate", lambda image: 2 * image + 1)
    split, task = split_of(SPEC), Edit()
    assert task.score(task.outputs(Turns(SPEC), split), split)["edit_affine"] == pytest.approx(1, abs=1e-6)
