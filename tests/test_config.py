"Configs: complete, nested, written flat, the same on every machine, and refused in words before anything is fitted."

import json
import subprocess
import sys
from dataclasses import asdict, fields

import pytest
import torch
from conftest import ROOT

from inrformer.config import PROTOCOLS, UNSAID, RunConfig, config_from, flat, from_json, identity, field_types, parse_fields, protocol_kept, run_id, sections
from inrformer.objective import OBJECTIVES
from inrformer.reader import READERS
from inrformer.runs import run


@pytest.mark.parametrize("reader", list(READERS))
@pytest.mark.parametrize("objective", list(OBJECTIVES))
def test_every_field_has_one_home_and_the_names_that_others_read_are_there(reader, objective):
    names = [f.name for section in sections(reader, objective).values() for f in fields(section)] + ["protocol", "reader", "objective", "start_from"]
    assert len(set(names)) == len(names) and set(names) == set(field_types(reader, objective))
    if objective == "classify":
        assert set(names) == set(flat(config_from(dict(reader=reader))))
    assert {"reader", "init", "objective", "seed", "fit_seed", "protocol"} <= set(names)
    if reader == "inrformer":
        assert {"head", "depth", "hint", "fold"} <= set(names)


def test_a_config_makes_the_round_trip():
    for values in (dict(), dict(dataset="mnist", init="independent", hint=16), dict(dataset="mnist", size=14), dict(reader="deepsets", seed=5), dict(kind="relu", options="fourier=2"), dict(kind="mfn", penalty=10.0)):
        cfg = config_from(values)
        written = json.loads(json.dumps(identity(cfg)))
        assert from_json(written) == config_from(values) and run_id(from_json(written)) == run_id(cfg)
        assert flat(written) == {k: v for k, v in flat(cfg).items() if k != "device" and not (k in UNSAID and v is None)}


def test_a_size_makes_another_run_and_none_the_same_as_ever():
    assert run_id(config_from({})) == run_id(config_from(dict(size=None))) and "size" not in identity(config_from({}))["inputs"]
    small = config_from(dict(dataset="mnist", size=14))
    assert run_id(small) != run_id(config_from(dict(dataset="mnist"))) and protocol_kept(small, 99.0) == "custom"
    with pytest.raises(ValueError, match="size must be at least 1, not 0"):
        config_from(dict(dataset="mnist", size=0))


def test_a_penalty_makes_another_run_and_none_the_same_as_ever():
    assert run_id(config_from({})) == "5656145ba718" and run_id(config_from(dict(protocol="cifar10-small", reader="deepsets", copies=1, epochs=20, lr=2e-3))) == "b1aa74ec3256"
    plain, held = config_from(dict(kind="mfn", penalty=None)), config_from(parse_fields(["kind=mfn", "penalty=10.0"]))
    assert run_id(plain) == "47dc2fd46df8" and "penalty" not in identity(plain)["fit"]
    assert identity(held)["fit"]["penalty"] == 10.0 and run_id(held) == run_id(config_from(dict(kind="mfn", penalty=10.0))) != run_id(plain)
    with pytest.raises(ValueError, match="INRs of the kind siren have no penalty"):
        config_from(dict(penalty=10.0))


def test_a_hidden_layer_makes_another_run_and_none_the_same_as_ever():
    plain, behind = (config_from(dict(mlp=mlp)) for mlp in (None, 64))
    assert run_id(plain) == "5656145ba718" != run_id(behind) and "mlp" not in identity(plain)["architecture"] and identity(behind)["architecture"]["mlp"] == 64
    assert from_json(identity(plain) | dict(train=vars(plain.train))) == plain


def test_a_start_makes_another_run_and_none_the_same_as_ever():
    plain, started = (config_from(dict(start_from=start)) for start in (None, "0123456789ab"))
    assert run_id(plain) == run_id(config_from({})) and "start_from" not in identity(plain)
    assert identity(started)["start_from"] == "0123456789ab" and run_id(started) != run_id(plain) and from_json(identity(started) | dict(train=vars(plain.train))) == started
    for name, value in dict(reader=["a"], objective=["x"], model=["x"], dataset=5, start_from=123456789012).items():
        with pytest.raises(TypeError, match=f"{name} must be of type str"):
            config_from({name: value})
    with pytest.raises(ValueError, match="hint is given twice, as '16' and as '64'"):
        parse_fields(["hint=16", "hint=64"])
    for wrong in ("0123", "0123456789AB", "best"):
        with pytest.raises(ValueError, match=f"start_from must be the whole id of a run, twelve hexadecimal digits, not '{wrong}'"):
            config_from(dict(start_from=wrong))


def test_a_config_of_another_version_is_refused():
    for written in ({}, dict(reader="inrformer", objective="classify", hint=64), identity(config_from({})) | dict(train=dict(speed=3))):
        with pytest.raises(ValueError, match="is no config of this version"):
            from_json(written)


def test_ids_are_the_same_on_every_machine(monkeypatch):
    here = {device: run_id(config_from(dict(device=device))) for device in ("auto", "cpu", "cuda")}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *a, **k: True)
    there = {device: run_id(config_from(dict(device=device))) for device in ("auto", "cpu", "cuda")}
    assert set(here.values()) == set(there.values()) and len(set(here.values())) == 1
    assert run_id(config_from(dict(precision="bf16"))) != run_id(config_from({}))


def test_numbers_of_any_type_make_one_id():
    with pytest.raises(TypeError, match="seed"):
        config_from(dict(seed=0.5))
    code = "import numpy as np; from inrformer.config import *; print(run_id(config_from(dict(seed=np.int64(1), fit_seed=np.int64(0), lr=np.float64(0.002)))))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.stdout.strip() == run_id(config_from(dict(seed=1))), done.stderr


def test_a_protocol_gives_what_is_not_given_and_a_preset_its_sizes():
    cfg = config_from(dict(dataset="digits"))
    assert (cfg.protocol, cfg.fit.hidden, cfg.fit.init, cfg.fit.test_init, cfg.inputs.val_parts) == ("digits", "12-12", "shared", "other", 5)
    assert (cfg.architecture.fold, config_from(dict(model="paper")).architecture.fold, config_from(dict(model="paper", fold="mean")).architecture.fold) == ("mean", "max", "mean")
    assert config_from(dict(model="tiny")).architecture.dim == 128 and config_from(dict(model="tiny", dim=64)).architecture.dim == 64
    assert config_from(dict(dataset="mnist", init="independent")).fit.test_init == "same"
    assert config_from(dict(hint=None)) == config_from({})
    assert config_from(dict(reader="flat")).train == cfg.train and config_from(dict(reader="deepsets")).fit == cfg.fit


@pytest.mark.parametrize(("values", "message"), [
    (dict(hnt=3), "there is no parameter 'hnt'; did you mean 'hint'"), (dict(reader="deepsets", heads=3), "'heads'; it is a choice of .*inrformer.*, not of the reader deepsets"),
    (dict(pool="max"), "there is no parameter 'pool'"), (dict(_hint=3), "there is no parameter '_hint'; did you mean 'hint'"), (dict(hint="64"), "hint"),
    (dict(aux=1), "aux"),
])
def test_unknown_names_and_wrong_types_are_refused(values, message):
    with pytest.raises(TypeError, match=message):
        config_from(values)


@pytest.mark.parametrize(("name", "value", "message"), [
    ("hint", 60, "the nearest are 49 and 64"), ("heads", 3, "does not split into 3 heads"), ("model", "huge", "model must be one of"),
    ("init", "random", "init must be one of"), ("hidden", "12x12", "widths joined by"), ("device", "tpu", "device must be one of"),
    ("precision", "fp8", "precision must be"), ("lr", -1.0, "lr must be a positive number"), ("protocol", "imagenet", "protocol must be one of"),
    ("edge_dim", 7, "edge_dim must be even"), ("omega", -1.0, "omega must be a positive number"), ("weight_decay", float("nan"), "weight_decay must be at least 0"),
    ("copies", 2, "the same INR again"), ("seed", 2**70, "seed must be at least 0"), ("hint", -4, "at least 1"), ("n_train", 99999, "99999"), ("n_train", 0, "n_train"),
    ("dataset", "no/such/{split}.parquet", "no file"), ("hidden", "12-0", "widths joined by"), ("max_frequency", -1.0, "max_frequency must be"),
    ("reader", "resnet", "reader must be one of"), ("objective", "win", "objective must be one of"), ("kind", "gauss", "kind must be one of"), ("val_parts", 1, "val_parts"),
    ("val_part", 7, "val_part"), ("options", "fourier=2", "fourier"), ("data", "no/such/folder", "no/such/folder"), ("dataset", "", "dataset"), ("head", "translation", "head must be one of"),
])
def test_configs_that_cannot_run_are_refused_before_anything_happens(cache, name, value, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run({name: value}, out=cache)
    assert list(cache.iterdir()) == []


def test_what_the_kind_cannot_do_is_refused_by_name():
    with pytest.raises(ValueError, match="relu has no canonical form"):
        config_from(dict(kind="relu", canonical=True))
    with pytest.raises(ValueError, match="moves are exact where layer 0 holds the coordinates"):
        config_from(dict(kind="relu", options="fourier=2", augment="shift"))
    assert config_from(dict(kind="relu", augment="shift")).fit.kind == "relu"


@pytest.mark.parametrize(("values", "psnr", "kept"), [
    (dict(), 28.0, "digits"), (dict(), 27.9, "custom"), (dict(init="independent"), 30.0, "custom"), (dict(omega=9.0), 30.0, "custom"), (dict(fit_seed=1), 30.0, "custom"),
    (dict(val_part=0), 28.0, "digits"), (dict(seed=5, reader="probe"), 28.0, "digits"), (dict(kind="relu"), 40.0, "custom"),
    (dict(dataset="mnist"), 20.0, "mnist-small"), (dict(dataset="mine/cifar10-jpeg75-{split}.parquet"), 25.0, "cifar10-small"),
    (dict(dataset="mine/mnist-fashion-{split}.parquet"), 30.0, "custom"), (dict(dataset="mnist", protocol="cifar10-small"), 30.0, "custom"), (dict(dataset="mine/{split}.parquet", protocol="mnist-small"), 30.0, "custom"),
])
def test_a_protocol_is_kept_or_left(values, psnr, kept):
    assert protocol_kept(config_from(values), psnr) == kept


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_validates_and_fixes_its_fit(name):
    fixed = PROTOCOLS[name].fixed
    assert fixed["fit_seed"] == 0 and fixed["val_parts"] == (5 if name == "digits" else 10)
    cfg = config_from(dict(protocol=name, dataset=PROTOCOLS[name].images))
    assert cfg.protocol == name and cfg.fit.fit_seed == 0 and not cfg.inputs.final
    for reader, own in (dict(inrformer={}) | PROTOCOLS[name].readers).items():
        for field in (*PROTOCOLS[name].chosen, *fixed, *own):
            assert field in field_types(reader), f"{field} is no field of {reader}"


def test_fields_on_the_command_line():
    assert parse_fields(["hidden=12", "aux=False", "lr=1e-3", "hint=None"]) == dict(hidden="12", aux=False, lr=1e-3, hint=None)
    assert parse_fields(["reader=deepsets", "seed=3"]) == dict(reader="deepsets", seed=3)
    with pytest.raises(TypeError, match="did you mean 'epochs'"):
        parse_fields(["epoch=2"])
    assert parse_fields(["aux=false", "canonical=true"]) == dict(aux=False, canonical=True)
    for word, wanted in (("aux=no", "aux must be True or False, not 'no'"), ("hint=many", "hint must be of type int, not 'many'")):
        with pytest.raises(ValueError, match=wanted):
            parse_fields([word])
    with pytest.raises(ValueError, match="write FIELD=VALUE"):
        parse_fields(["hint"])


def test_defaults_are_complete():
    assert all(value is not None or name in ("data", *UNSAID) for name, value in flat(config_from({})).items())
    assert isinstance(asdict(config_from({}))["architecture"]["hint"], int) and isinstance(config_from({}), RunConfig)
