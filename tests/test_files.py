"Small files: whole or absent, JSON that every reader of JSON reads, damage that is named, digests that stay."

import json
import math
import os
from fractions import Fraction

import numpy as np
import pytest
from filelock import Timeout

from inrformer.files import json_digest, json_text, lock, plain, read_json, read_lines, replaced, sha256, write_json, write_lines, write_text


def strict(text: str) -> object:
    "JSON as the standard has it, without NaN and infinity."
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


AWKWARD = dict(perfect=math.inf, unknown=math.nan, worst=-np.inf, one=np.float64("inf"), two=np.float32("nan"), deep=[(1.5, {"x": math.inf})], n=np.int64(3), yes=True, half=np.float32(0.5))
PLAIN = dict(perfect=None, unknown=None, worst=None, one=None, two=None, deep=[[1.5, {"x": None}]], n=3, yes=True, half=0.5)


def test_no_number_is_written_that_json_does_not_have(tmp_path):
    write_json(tmp_path / "a.json", AWKWARD), write_lines(tmp_path / "a.jsonl", [AWKWARD, dict(k=1)])
    assert strict((tmp_path / "a.json").read_text()) == read_json(tmp_path / "a.json") == plain(AWKWARD) == PLAIN
    assert [strict(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()] == read_lines(tmp_path / "a.jsonl") == [PLAIN, dict(k=1)]
    assert json_digest(AWKWARD) == json_digest(PLAIN) and json_text(plain(Fraction(1, 2))) == "0.5"
    with pytest.raises(TypeError, match="not JSON serializable"):
        json_text(tmp_path)


def test_a_digest_is_the_first_versions():
    assert json_digest(dict(b=[1, 2.0], a=None)) == json_digest(dict(a=None, b=(1, 2.0))) == "cbbbaf2c16d3"
    assert json_digest("x", 64).startswith(json_digest("x")) and len(json_digest("x")) == 12


def test_what_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, 1)
    with pytest.raises(RuntimeError, match="killed"), replaced(path) as temporary:
        temporary.write_text("half a fi")
        raise RuntimeError("killed")
    with pytest.raises(TypeError):
        write_json(path, object())
    assert read_json(path) == 1 and list(tmp_path.iterdir()) == [path]


def test_no_file_takes_the_place_of_a_folder(tmp_path):
    (tmp_path / "models").mkdir(), (tmp_path / "models" / "thesis.txt").write_text("x")
    with pytest.raises(IsADirectoryError, match="models is a folder, and a file was to have its name"):
        write_json(tmp_path / "models", 1)
    assert [path.name for path in tmp_path.rglob("*")] == ["models", "thesis.txt"]


def test_text_is_written_alike_everywhere(tmp_path):
    write_text(tmp_path / "a.md", "日本 caf\udce9")
    assert (tmp_path / "a.md").read_bytes() == "日本 caf\\udce9".encode()


def test_what_a_killed_process_of_the_same_number_left_is_in_nobodys_way(tmp_path):
    (left := tmp_path / f".a.{os.getpid()}.tmp").mkdir(), (left / "half").write_text("x")
    with replaced(tmp_path / "a") as temporary:
        temporary.mkdir(), (temporary / "whole").write_text("x")
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "whole"]


def test_damage_is_named(tmp_path):
    (tmp_path / "a.json").write_text("{"), (tmp_path / "a.jsonl").write_text('{}\n{"a": \n')
    with pytest.raises(ValueError, match=r"a.json is damaged .*: remove it and build again"):
        read_json(tmp_path / "a.json", "remove it and build again")
    with pytest.raises(ValueError, match="line 2 of .*a.jsonl is damaged .*: restore the file, or remove the line"):
        read_lines(tmp_path / "a.jsonl")
    for damage, line in ((b"\xff\xfe{}\n", 1), (b"{}\nnull\n", 2), (b"[" * 100_000, 1)):
        (tmp_path / "b.json").write_bytes(damage), (tmp_path / "b.jsonl").write_bytes(damage)
        with pytest.raises(ValueError, match=f"line {line} of .*b.jsonl is damaged"):
            read_lines(tmp_path / "b.jsonl")
        with pytest.raises(ValueError, match="b.json is damaged"):
            read_json(tmp_path / "b.json")
    assert read_lines(tmp_path / "none.jsonl") == [] and sha256(tmp_path / "none.jsonl") is None
    assert sha256(tmp_path / "a.json") == "021fb596db81e6d02bf3d2586ee3981fe519f275c0ac9ca76bbcf2ebb4097d96"


def test_a_lock_is_waited_for_or_given_up(tmp_path):
    with lock(tmp_path / "x"), pytest.raises(Timeout), lock(tmp_path / "x", 0.0):
        pass
    with lock(tmp_path / "x", 0.0):
        assert not (tmp_path / "x").exists()
