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
        (dict(kind="relu", options=dict(fourier=1)), r"makes \[3, 6\] features of 1, 2, \.\.\. coordinates, never 2"),
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


@pytest.mark.parametrize("text", ['{"widths": [2, null, 1]}', '{"widths": [2, 1e400, 1]}', '{"widths": [2, 8, 1], "omega": "x"}', '{"widths": [2, 8, 1], "options": 5}', "[" * 100_000, "5", "x",
                                  '{"widths": [100000000, 8, 1], "kind": "relu", "options": {"fourier": 2}}', '{"widths": [10, 8, 1], "kind": "relu", "options": {"fourier": 1000000000}}'])
def test_a_spec_of_other_values_is_a_value_error(text):
    with pytest.raises(ValueError):
        INRSpec.from_json(text)


@pytest.mark.parametrize("widths", [[2] * 10**6, [2, 10**7, 10**7, 1]])
def test_a_spec_of_any_size_is_refused_at_once(widths):
    with pytest.raises(ValueError, match="at most 1000 in all, not 1000000|more than 1,073,741,824 are refused") as told:
        INRSpec(widths=tuple(widths))
    assert len(str(told.value)) < 300


def test_whole_numbers_are_no_inrs(tmp_path):
    inr = init_inr(SPEC, 2)
    save_file({name: t.int() for name, t in inr.named.items()}, tmp_path / "a.safetensors", metadata=dict(spec=SPEC.to_json()))
    with pytest.raises(ValueError, match=r"a.safetensors holds \['torch.int32'\]; the tensors of an INR are floating-point numbers"):
        load_inr(tmp_path / "a.safetensors")
    save_file({name: t[:, :1].contiguous() for name, t in inr.named.items()}, tmp_path / "b.safetensors", metadata=dict(spec=SPEC.to_json()))
    with pytest.raises(ValueError, match="b.safetensors: tensors of shapes"):
        load_inr(tmp_path / "b.safetensors")


def test_statistics_of_many_are_those_of_the_whole_and_of_their_form():
    many = init_inr(SPEC, 9000, generator=stream(0, "many"))
    found, columns = Statistics.of(many, lambda part: part.map(lambda t: 2 * t)), [2 * t.double() for t in many.tensors]
    assert torch.allclose(found.mean.double(), torch.stack([t.mean() for t in columns]), atol=1e-9)
    assert torch.allclose(found.scale.double(), torch.stack([t.std(correction=0) for t in columns]))
    assert torch.equal(found.peak.double(), torch.stack([t.abs().max() for t in columns]))
