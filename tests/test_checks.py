"Configs check themselves: types, ranges and choices, in words that name the field."

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from inrformer.checks import Checked
from inrformer.data import Fit
from inrformer.images import Data


@dataclass(frozen=True, kw_only=True)
class Config(Checked):
    n: int = 1
    rate: float = 0.5
    name: str = "a"
    folder: str | None = None
    quick: bool = False

    def __post_init__(self):
        self.typed()
        self.at_least(1, "n")
        self.one_of(name=("a", "b", "12"))
        self.positive("rate")


def test_numbers_of_any_type_become_what_is_meant():
    cfg = Config(n=np.int64(3), rate=2, name=12, quick=True)
    assert cfg == Config(n=3, rate=2.0, name="12", quick=True) and (type(cfg.n), type(cfg.rate)) == (int, float)
    assert type(Config(n=torch.tensor(3).item(), rate=np.float32(0.5)).rate) is float


@pytest.mark.parametrize("wrong, error, message", [
    (dict(n=1.0), TypeError, "n must be of type int, not 1.0"),
    (dict(n=True), TypeError, "n must be of type int, not True"),
    (dict(n="1"), TypeError, "n must be of type int, not '1'"),
    (dict(rate="fast"), TypeError, "rate must be of type float, not 'fast'"),
    (dict(name=None), TypeError, "name must be of type str, not None"),
    (dict(folder=1.5), TypeError, "folder must be of type str, not 1.5"),
    (dict(quick=1), TypeError, "quick must be of type bool, not 1"),
    (dict(n=0), ValueError, "n must be at least 1, not 0"),
    (dict(name="c"), ValueError, r"name must be one of \('a', 'b', '12'\), not 'c'"),
    (dict(rate=float("nan")), ValueError, "rate must be a positive number, not nan"),
    (dict(rate=float("inf")), ValueError, "rate must be a positive number, not inf"),
], ids=str)
def test_what_is_not_meant_is_refused_by_name(wrong, error, message):
    with pytest.raises(error, match=message):
        Config(**wrong)


@pytest.mark.parametrize("kind, wrong, message", [
    (Data, dict(n_train=0), "n_train must be at least 1, not 0"),
    (Data, dict(n_test=-1), "n_test must be at least 1, not -1"),
    (Data, dict(val_parts=1), "val_parts must be at least 2, not 1"),
    (Data, dict(val_parts=5, val_part=5), r"val_part must be one of 0\.\.4, or -1 for the last, not 5"), (Data, dict(val_parts=5, val_part=-2), "or -1 for the last, not -2"),
    (Fit, dict(kind="sirn"), r"kind must be one of \(.*'siren'.*\), not 'sirn'"),
    (Fit, dict(init="random"), "init must be one of"),
    (Fit, dict(bias_init="one"), "bias_init must be one of"),
    (Fit, dict(test_init="new"), "test_init must be one of"),
    (Fit, dict(init="independent", test_init="other"), 'test_init="other" means nothing with init="independent"'),
    (Fit, dict(copies=2), "the same INR again"),
    (Fit, dict(init="pool", inits=2, copies=3), "needs a pool of more than 2 inits"),
    (Fit, dict(fit_steps=0), "fit_steps must be at least 1, not 0"),
    (Fit, dict(fit_lr=float("nan")), "fit_lr must be a positive number, not nan"),
    (Fit, dict(kind="mfn", penalty=float("nan")), "penalty must be a positive number, or None, not nan"),
    (Fit, dict(kind="mfn", penalty=-2.0), "penalty must be a positive number, or None, not -2.0"),
    (Fit, dict(penalty=10.0), r"INRs of the kind siren have no penalty, and \['mfn'\] have: leave penalty out"),
    (Fit, dict(omega=1e30), r"omega must be at least 0 and below 1000000.0, not 1e\+30"),
    (Fit, dict(omega=0.0), "omega must be a positive number, not 0.0"),
    (Fit, dict(fit_seed=-1), "fit_seed must be at least 0 and below"),
    (Fit, dict(hidden="32x32"), 'hidden must be widths joined by "-", such as "32-32", not \'32x32\''),
    (Fit, dict(hidden="32-0"), "hidden must be widths joined by"),
    (Fit, dict(options="fourier=2"), r"the kind siren has no options \['fourier'\]; it has \[\]"),
    (Fit, dict(kind="relu", options="octaves=2"), r"the kind relu has no options \['octaves'\]; it has \['fourier'\]"),
    (Fit, dict(kind="relu", options="fourier=two"), r"options {'fourier': 'two'} do not fit the kind relu, which takes {'fourier': 'int'}"),
    (Fit, dict(kind="relu", options="fourier=-1"), "fourier must be a number of octaves, at least 0, not -1"),
], ids=str)
def test_inputs_and_fits_that_cannot_be_are_refused_before_anything_is_read(kind, wrong, message):
    with pytest.raises(ValueError, match=message):
        kind(**wrong)
