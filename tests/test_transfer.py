"A reader on INRs of another width: it runs where no parameter counts neurons, and is refused in words elsewhere."

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from inrformer.config import config_from
from inrformer.inr import INRSpec, Statistics, init_inr
from inrformer.reader import READERS, seed_parameters
from inrformer.runs import Run, run
from inrformer.symmetry import permute, random_permutation
from inrformer.transfer import at_widths, transferred

SPEC, WIDE = INRSpec(widths=(2, 5, 4, 1)), INRSpec(widths=(2, 9, 6, 1))


def drawn(name: str):
    return seed_parameters(READERS[name](SPEC, READERS[name].Config()).classify(("a", "b")), 0).double().eval()


def counts_neurons(name: str) -> bool:
    "Is a parameter of the reader of another shape where layers are wider?"
    wide = READERS[name](WIDE, READERS[name].Config()).classify(("a", "b")).state_dict()
    return any(wide[key].shape != t.shape for key, t in drawn(name).state_dict().items())


@pytest.mark.parametrize("name", list(READERS))
def test_a_reader_reads_another_width_or_says_which_parameter_cannot(name):
    reader, generator = drawn(name), torch.Generator().manual_seed(0)
    if counts_neurons(name):
        with pytest.raises(ValueError, match=f"{name} is of shape .* it reads one width alone"):
            transferred(reader, WIDE)
        return
    inr, small = (init_inr(spec, 3, generator=generator).to(torch.float64) for spec in (WIDE, SPEC))
    other = transferred(reader, WIDE, Statistics.of(inr))
    with torch.no_grad():
        logits, moved = other(inr), other(permute(inr, random_permutation(WIDE, 3, generator=generator)))
        torch.testing.assert_close(moved, logits, atol=1e-10, rtol=1e-10)
        assert logits.std(dim=0).min() > 0 and torch.equal(other.scale, Statistics.of(inr).scale)
        assert torch.equal(transferred(reader, SPEC)(small), reader(small))


def test_inrs_that_take_features_are_fitted_at_other_widths(tmp_path, monkeypatch):
    monkeypatch.setenv("INRFORMER_CACHE", str(tmp_path / "cache"))
    this = run(dict(dataset="digits", n_train=96, n_test=24, fit_steps=5, hidden="6-6", kind="relu", options="fourier=2", reader="deepsets", pair_dim=4, epochs=1, device="cpu"), out=tmp_path)
    table = at_widths(this, ["6-6", "8-4"], device="cpu").set_index("hidden")
    assert table.accuracy["6-6"] == this.summary["test_accuracy"] and table.numbers["8-4"] != table.numbers["6-6"] and (table.images == 24).all()


def test_graphs_have_no_number_for_a_neuron_and_flat_weights_have():
    assert [counts_neurons(name) for name in ("inrformer", "deepsets", "dws", "nfn_np", "flat", "mlp")] == [False] * 4 + [True] * 2


@pytest.mark.parametrize("other", [dict(widths=(2, 5, 1)), dict(widths=(3, 5, 4, 1)), dict(omega=7.0), dict(kind="relu")])
def test_what_differs_in_more_than_its_width_is_refused(other):
    with pytest.raises(ValueError, match="in more than the width of their hidden layers"):
        transferred(READERS["deepsets"](SPEC), replace(SPEC, **other))


def test_widths_are_a_list():
    with pytest.raises(TypeError, match=r"hidden is a list of widths, as in \['24'\]"):
        at_widths(Run(Path("somewhere"), config_from({})), "24")
