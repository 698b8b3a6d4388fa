"What an INR refuses, and the corners of files, statistics and registries that no shape reaches."

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from inrformer.graph import WeightEmbedding
from inrformer.inr import INR, KINDS, INRSpec, Statistics, hash_number, init_inr, load_inr, save_inr, stream

SPEC = INRSpec(widths=(2, 4, 1))


@pytest.mark.parametrize("shape", [(2, 3, 4, 2), (3, 4, 2), (4, 3)])
def test_coordinates_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"do not fit .*: needed are torch.float32, \(q, 2\) or \(2, q, 2\)"):
        init_inr(INRSpec(), 2)(torch.zeros(shape))


def test_rows_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"rows of shape \(2, 7\) are no INRs of widths \(2, 4, 1\): needed is \(b, 17\)"):
        INR.from_flat(torch.zeros(2, 7), SPEC)


def test_tensors_of_another_shape_or_type_are_refused():
    tensors = init_inr(SPEC, 2).tensors
    with pytest.raises(ValueError, match=r"are no INR of widths \(2, 4, 1\), which needs \{'W1': \(2, 4, 2\), 'b1'"):
        INR(tensors[:-1], SPEC)
    with pytest.raises(ValueError, match="one dtype and device"):
        INR((*tensors[:-1], tensors[-1].double()), SPEC)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(widths=(2, 1)), "at least one hidden layer"),
        (dict(omega=0.0), "omega must be a positive number"),
        (dict(kind="sine"), "kind must be one of .*siren.*not 'sine'"),
        (dict(options=dict(fourier=1)), r"the kind siren has no options \['fourier'\]"),
        (dict(kind="relu", options=dict(fourier=1.0)), "option fourier of the kind relu must be of type int"),
        (dict(kind="relu", options=dict(fourier=1)), r"makes \[3, 6\] features of 1, 2, ... coordinates, never 4|never 2"),
        (dict(kind="relu", options=dict(fourier=-1)), "at least 0"),
        (dict(kind="relu", last_init="linear"), "are of SIRENs"),
    ],
)
def test_specs_that_describe_no_network_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        INRSpec(**dict(widths=(2, 4, 1)) | values)


def test_a_spec_without_kinds_is_written_as_it_was():
    assert set(SPEC.to_json().split('"')[1::2]) >= {"widths", "omega"} and "kind" not in SPEC.to_json()
    relu = INRSpec(widths=(6, 4, 1), kind="relu", options=dict(fourier=1))
    assert INRSpec.from_json(relu.to_json()) == relu == replace(relu, options=(("fourier", 1),)) and relu.coordinates == 2
    assert len({relu, SPEC, INRSpec(widths=(2, 4, 1))}) == 2


def test_files_that_are_no_inrs_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file(dict(W1=torch.zeros(2, 2)), path)
    with pytest.raises(ValueError, match="carries no INRSpec"):
        load_inr(path)
    for spec in ("{}", "[]", '{"widths": [2, 4, 1], "omega": "fast"}', '{"widths": [2', '{"widths": [2, 4, 1], "kind": "sine"}'):
        save_file(dict(W1=torch.zeros(2, 2)), path, metadata=dict(spec=spec))
        with pytest.raises(ValueError, match="other.safetensors carries no readable INRSpec"):
            load_inr(path)
    save_file(dict(W1=torch.zeros(2, 4, 2)), path, metadata=dict(spec=SPEC.to_json()))
    with pytest.raises(ValueError, match=r"other.safetensors lacks \['W2', 'b1', 'b2'\]"):
        load_inr(path)
    path.write_bytes(b"0" * 100)
    with pytest.raises(ValueError, match="other.safetensors is no whole safetensors file"):
        load_inr(path)
    save_inr(init_inr(SPEC, 2), path)
    assert load_inr(path).spec == SPEC


def test_what_does_not_vary_has_the_scale_of_its_sum_or_one():
    inr = init_inr(replace(SPEC, bias_init="zero"), 50)
    found = dict(zip(inr.named, Statistics.of(inr).scale))
    assert found["b1"] == pytest.approx(2**0.5 * found["W1"])
    nothing = inr.map(torch.zeros_like)
    assert set(Statistics.of(nothing).scale.tolist()) == {1.0} == set(Statistics.of(nothing).peak.tolist())
    assert all(t.isfinite().all() for t in WeightEmbedding(SPEC, width=4, statistics=Statistics.of(nothing))(nothing))


def test_numbers_of_any_type_name_the_same_stream():
    assert hash_number(np.int64(3), "a") == hash_number(3, "a") != hash_number(3, "b")
    draws = [torch.rand(3, generator=stream(seed, "noise", 1, step)) for seed, step in ((0, 2), (np.int64(0), 2), (0, 3))]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_a_registry_names_what_it_has():
    assert {"siren", "relu", "tanh"} <= set(KINDS) and KINDS.name_of(KINDS["relu"]) == "relu"
    with pytest.raises(KeyError, match="there is no 'sine' in inrformer.kinds; there are .*siren"):
        KINDS["sine"]
    with pytest.raises(KeyError, match="in no file of inrformer.kinds"):
        KINDS.name_of(object())
