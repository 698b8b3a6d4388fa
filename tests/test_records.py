"Records: hand-worked tables, what is missing and what a row mixes, and comparisons whose intervals hold what they promise."

import json
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from inrformer.config import config_from, flat, from_json, identity, run_id
from inrformer.files import json_text, write_json, write_lines
from inrformer.objectives.regress import concordance
from inrformer.records import (
    Paired, counted, effects, find_records, holm, is_stale, judged, measure, variance_of_images, variance_of_seeds, paired, record_of, records, results, right, rivals, row_name, runs_of, table, thread_seconds, times_as_long, unseen, write_record,
)
from inrformer.runs import Run, source_digest

GRID = (dict(), dict(aux=False), dict(hint=16))
ROWS = [row | dict(protocol="digits", seed=seed) for seed in (0, 1) for row in GRID]
SOURCES = {}


def source_of(cfg):
    "The present source, read once for each reader."
    return SOURCES.setdefault(cfg.reader, source_digest(cfg.reader, cfg.objective, "siren"))


def answers(share, n=20, ids=None):
    "Answers of which the first are right, as many as that share of n."
    return dict(answers=[int(k < round(share * n)) for k in range(n)], labels=[1] * n, ids=ids or list(range(n)))


def record(row, accuracy=None, protocol="digits", *, recipe="r", bits="b", source=None, precision="fp32", ids=None, **summary):
    "A record of a row, of a failure without an accuracy."
    cfg = config_from(row)
    found = dict(run_id=run_id(cfg), config=identity(cfg), source=source or source_of(cfg), inrs=dict(kind="siren"))
    if accuracy is None:
        return found | dict(summary=None, error="ValueError: no such thing")
    measured = dict(test_accuracy=accuracy, protocol=protocol) | summary
    return found | dict(env=dict(precision=precision), inrs=dict(kind="siren", recipe=recipe, bits=bits), reads="input INR", summary=measured, history=[], answers=dict(test=answers(accuracy, ids=ids)))


def renamed(record, images):
    "The same record on images of another name."
    config = record["config"] | dict(inputs=record["config"]["inputs"] | dict(dataset=images))
    return record | dict(run_id="of " + images, config=config)


def test_the_table_is_what_one_works_out_by_hand():
    found = [record(ROWS[0], 0.80), record(ROWS[3], 0.90), record(ROWS[1], 0.70), record(ROWS[4], 0.75)]
    rows = table(found, ["aux", "reads"])
    assert rows["aux"].tolist() == [True, False] and rows["runs"].tolist() == [2, 2] and rows["reads"].tolist() == ["input INR"] * 2
    for name, wanted in (("mean", [0.85, 0.725]), ("min", [0.8, 0.7]), ("max", [0.9, 0.75])):
        assert rows[f"test_accuracy ({name})"].tolist() == pytest.approx(wanted)
    assert len(table([], ["aux"])) == 0 and rows["notes"].tolist() == ["", ""]


def test_missing_and_failed_runs_are_shown():
    rows = results(ROWS, [record(ROWS[0], 0.80), record(ROWS[1])], ("test_accuracy", "psnr")).set_index("row")
    assert rows["missing"].to_dict() == {"baseline": "1 not yet run", "aux False": "failed: ValueError: no such thing; 1 not yet run", "hint 16": "not yet run"}
    assert rows["runs"].tolist() == [1, 0, 0] and rows["seeds"].tolist() == [2, 2, 2] and rows["reads"].tolist() == ["input INR", "", ""]
    assert rows["run_ids"].tolist() == [run_id(config_from(ROWS[0])), "", ""] and rows["psnr (mean)"].isna().all()
    assert results(ROWS, [])["missing"].tolist() == ["not yet run"] * 3


def test_a_run_that_failed_and_then_ended_counts_as_done():
    assert results(ROWS, [record(ROWS[0], 0.80), record(ROWS[0])])["runs"][0] == 1
    assert results(ROWS, [record(ROWS[0]), record(ROWS[0], 0.80)])["runs"][0] == 1


def test_two_protocols_are_refused_in_one_table():
    with pytest.raises(ValueError, match=r"protocols \['custom', 'digits'\] cannot stand in one table"):
        table([record(ROWS[0], 0.8), record(ROWS[1], 0.7, protocol="custom")], ["aux"])
    mixed = results(ROWS, [record(ROWS[0], 0.8), record(ROWS[3], 0.7, protocol="custom")]).iloc[0]
    assert mixed[["test_accuracy (mean)", "runs", "seeds", "protocol", "missing"]].tolist() == [0.8, 1, 2, "digits", "1 left the protocol"]
    both = results(ROWS, [record(ROWS[0], 0.8, protocol="custom"), record(ROWS[3], 0.7, protocol="custom")]).iloc[0]
    assert both[["test_accuracy (mean)", "runs", "protocol", "missing"]].tolist() == [pytest.approx(0.75), 2, "custom", ""]


def test_rivals_answer_the_same_question_and_are_named_by_how_they_were_trained():
    timed = dict(cpu_seconds=60.0)

    def made(row, accuracy):
        return (r := record(dict(protocol="digits") | row, accuracy, **timed)) | dict(env=r["env"] | dict(processes=1))

    rows = [dict(reader="mlp"), dict(reader="mlp", lr=0.03, optimizer="muon"), dict(reader="mlp", epochs=7), dict(reader="mlp", weight_noise=0.5), dict(depth=0), dict(depth=0, epochs=7), dict(epochs=7), dict(dim=32)]
    found = rivals(made({}, 0.9), [made(row, 0.5 + 0.01 * k) for k, row in enumerate(rows)])
    assert found["row"].tolist() == ["inrformer", "inrformer, depth 0, epochs 7", "inrformer, depth 0", "mlp, weight_noise 0.5", "mlp, epochs 7", "mlp, optimizer muon, lr 0.03", "mlp"]
    asked = [dict(objective="edit", reader=reader, change=change) for reader, change in (("inrformer", "dilate"), ("dws", "erode"), ("nft", "dilate"))]
    assert rivals(made(asked[0], 0.9), [made(row, 0.5) for row in asked[1:]])["row"].tolist() == ["inrformer", "nft"], "how well another edit is made says nothing of this one"


@pytest.mark.parametrize("cpu, wanted", [(60.0, 120), (0.0, 2 * 99 * 4), (None, 2 * 99 * 4)])
def test_training_costs_the_seconds_of_all_processes_and_without_a_cpu_those_of_all_threads(cpu, wanted):
    assert thread_seconds(dict(summary=dict(cpu_seconds=cpu, train_seconds=99.0), env=dict(processes=2, threads=4))) == wanted


def test_seconds_are_compared_where_both_were_timed_alike():
    def timed(row, seed, seconds, **env):
        r = record(dict(protocol="digits", seed=seed) | row, 0.9, cpu_seconds=seconds)
        return r | dict(env=r["env"] | dict(processes=1, device="one") | env)

    rows = [row | dict(protocol="digits", seed=seed) for seed in (0, 1) for row in (dict(), dict(depth=0))]
    found = [timed(dict(), 0, 60.0), timed(dict(depth=0), 0, 20.0), timed(dict(), 1, 90.0, device="another"), timed(dict(depth=0), 1, 20.0)]
    assert times_as_long(counted(rows, found), "baseline", "depth 0") == "time × 3"
    assert times_as_long(counted(rows, found[2:]), "baseline", "depth 0") == "not timed alike"
    assert times_as_long(counted(rows, [found[0], timed(dict(depth=0), 0, 20.0, compiled=True)]), "baseline", "depth 0") == "not timed alike"


def test_only_seeds_are_averaged():
    with pytest.raises(ValueError, match="differ in lr"):
        table([record(ROWS[0], 0.8), record(ROWS[3] | dict(lr=0.5), 0.7)], ["aux"])
    with pytest.raises(ValueError, match="differ in start_from"):  # one of them does not say it
        table([record(ROWS[0], 0.8), record(ROWS[3] | dict(start_from="0" * 12), 0.7)], ["aux"])
    with pytest.raises(ValueError, match="several runs of one seed"):
        table([record(ROWS[0], 0.8), record(ROWS[0], 0.7)], ["aux"])


def test_what_a_row_mixes_is_told():
    other = dict(source="of another day"), dict(bits="others"), dict(precision="bf16")
    for changed, said in zip(other, ("other source: 1 of 2 runs", "mixes INR bits", "mixes bf16 and fp32")):
        found = [record(ROWS[0], 0.8), record(ROWS[3], 0.6, **changed)]
        assert results(ROWS, found)["notes"].tolist() == [said, "", ""] and table(found, ["aux"])["notes"].tolist() == [said]
    both = [record(ROWS[0], 0.8, source="old", precision="bf16"), record(ROWS[3], 0.6, source="older")]
    assert results(ROWS, both)["notes"][0] == "other source: 2 of 2 runs; mixes bf16 and fp32"
    found = [record(ROWS[0], 0.8), record(ROWS[3], 0.6)]
    found[0]["summary"]["val_crop_r2"] = None  # minus infinity, of crops without a variance
    assert results(ROWS, found)["notes"].tolist() == ["crop not learned: 1 of 2 runs", "", ""]
    found = [record(ROWS[0], 0.8), record(ROWS[3], 0.6) | dict(env=dict(precision="fp32", compiled=True))]
    assert results(ROWS, found)["notes"].tolist() == ["step compiled: 1 of 2 runs", "", ""]


def test_of_several_records_of_a_config_the_present_source_counts_and_what_ended():
    cfg = config_from(ROWS[0])
    old, new = record(ROWS[0], 0.8, source="old"), record(ROWS[0], 0.9)
    for found in ([old, new], [new, old]):
        assert find_records([cfg], found)[0] is new
    assert find_records([cfg], [old, record(ROWS[0])])[0] is old, "a failure of today does not hide what ended"
    assert is_stale(old) and not is_stale(new) and is_stale(new | dict(config=identity(cfg) | dict(reader="none of this version")))


def test_a_row_is_named_by_what_it_states():
    first = dict(protocol="digits", hint=256, seed=0)
    assert row_name(first | dict(seed=3), first) == "baseline"
    assert row_name(dict(protocol="digits", seed=0, hint=64, aux=False), first) == "hint 64, aux False"
    assert row_name(dict(protocol="digits", seed=0), first) == "hint default", "a row that leaves out what the first states is no baseline"


def test_images_may_be_on_record_under_another_name():
    found = [renamed(record(ROWS[0], 0.8), "digits-jpeg75")]
    assert runs_of(ROWS, found)["record"][0] is found[0] and find_records([config_from(ROWS[0])], found) == [None]
    with pytest.raises(ValueError, match=r"data sets \['digits', 'digits-jpeg75'\] cannot stand in one table"):
        results(ROWS, [*found, record(ROWS[0], 0.8)])


def test_records_make_the_round_trip(tmp_path):
    both = [record(ROWS[0], 0.80, psnr=29.123456789012345), record(ROWS[1])]
    for r in both:
        path = write_record(r, "example", tmp_path)
    assert records("example", tmp_path) == both == records(folder=tmp_path)
    assert records("other", tmp_path) == []
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [{**line, "answers": None} for line in lines] == [{**r, "answers": None} for r in both], "lines are JSON, with all but answers as they were"
    assert from_json(both[0]["config"] | dict(train=both[0]["config"]["train"] | dict(device="auto"))) == config_from(ROWS[0])


def test_a_failure_does_not_take_the_place_of_what_ended(tmp_path):
    ended, failed = record(ROWS[0], 0.8), record(ROWS[0])
    for r in (failed, ended, failed):
        write_record(r, "example", tmp_path)
    assert records("example", tmp_path) == [ended, failed]
    write_record(record(ROWS[0], 0.9), "example", tmp_path)
    assert records("example", tmp_path) == [record(ROWS[0], 0.9)]


def test_a_record_holds_what_the_run_wrote(tmp_path):
    cfg = config_from(ROWS[0])
    this = Run(tmp_path / run_id(cfg), cfg)
    this.folder.mkdir()
    about, summary, history = dict(source="s", inrs=dict(kind="siren", recipe="r", bits="b"), reads="input INR"), dict(test_accuracy=0.5), [dict(epoch=1, val_accuracy=0.4)]
    for name, value in dict(config=identity(cfg), env=dict(precision="fp32"), about=about, answers=dict(test=answers(0.5)), summary=summary).items():
        write_json(this.folder / f"{name}.json", value)
    write_lines(this.folder / "metrics.jsonl", history)
    assert record_of(this) == dict(run_id=run_id(cfg), config=identity(cfg), env=dict(precision="fp32"), **about, summary=summary, history=history, answers=dict(test=answers(0.5)))


def test_two_sweeps_may_write_one_file(tmp_path):
    rows = [record(ROWS[0] | dict(seed=seed), 0.5) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda r: write_record(r, "example", tmp_path), rows))
    assert sorted(r["config"]["train"]["seed"] for r in records("example", tmp_path)) == list(range(40))


def test_a_torn_line_that_a_whole_one_was_joined_to_is_named(tmp_path):
    path = write_record(record(ROWS[0], 0.8), "example", tmp_path)
    line = path.read_bytes()
    path.write_bytes(line[:40] + line)
    with pytest.raises(ValueError, match="line 1 of .*example.jsonl is damaged"):
        write_record(record(ROWS[0], 0.9), "example", tmp_path)


def test_a_damaged_record_is_named(tmp_path):
    path = write_record(record(ROWS[0], 0.5), "example", tmp_path)
    path.write_text(path.read_text() + '{"run_id":')
    for call in (lambda: records("example", tmp_path), lambda: write_record(record(ROWS[1]), "example", tmp_path)):
        with pytest.raises(ValueError, match="line 2 of .*example.jsonl is damaged"):
            call()


@pytest.mark.parametrize(("given", "line"), [
    (dict(answers=[3, 7, 6], labels=[3, 8, 9], ids=[5400, 5401, 5402]), '{"answers":"376","labels":"389","ids":"5400..5402"}'),
    (dict(answers=[3, 7], labels=[0, 1], ids=[5, 9]), '{"answers":"37","labels":"01","ids":[5,9]}'),
    (dict(answers=[10, 7], labels=[3, 11], ids=[100, 101, 102, 99, 7, 8, 9, 10]), '{"answers":[10,7],"labels":[3,11],"ids":"100..102 99..99 7..10"}'),
    (dict(answers=[0.5, 1.0, None], labels=[1, -2, 3], ids=[-3, -2, -1, 0, 1]), '{"answers":[0.5,1.0,null],"labels":[1,-2,3],"ids":"-3..1"}'),
    (dict(answers=[True, False], labels=["1", "2"], ids=[4, 2]), '{"answers":[true,false],"labels":["1","2"],"ids":[4,2]}'),
    (dict(answers=[], labels=[], ids=[]), '{"answers":[],"labels":[],"ids":[]}'),
])
def test_answers_are_short_in_a_file_and_lists_when_they_are_read(given, line, tmp_path):
    whole = record(ROWS[0], 0.5) | dict(answers=dict(val=given, test=given))
    path = write_record(whole, "example", tmp_path)
    assert path.read_text().count(line) == 2 and records("example", tmp_path) == [whole]
    path.write_text(json.dumps(whole) + "\n")
    assert records("example", tmp_path) == [whole], "records with blanks and lists are read as well"


def test_answers_that_are_no_list_are_refused(tmp_path):
    path = write_record(record(ROWS[0], 0.5) | dict(answers=dict(test=answers(0.5, n=200))), "example", tmp_path)
    for text in ("0.199", "0..x", "0..1..2", "199..0", ""):
        path.write_text(path.read_text().replace('"0..199"', f'"{text}"'))
        with pytest.raises(ValueError, match="example.jsonl holds a line that is no record"):
            dict(records("example", tmp_path)[0])
        path.write_text(path.read_text().replace(f'"ids":"{text}"', '"ids":"0..199"'))


def test_a_record_is_parsed_as_far_as_it_is_read(tmp_path):
    whole = record(ROWS[0], 0.5) | dict(history=[dict(epoch=1)], answers=dict(test=answers(0.5)))
    whole = {name: whole[name] for name in sorted(whole, key=["history", "answers"].count)}
    path = write_record(whole, "example", tmp_path)
    (found,) = records("example", tmp_path)
    assert found == whole and json_text(found) == json_text(whole) and list(found) == list(whole) and found.get("error") is None
    path.write_text(path.read_text().replace('"epoch":1', '"epoch"1'))
    (found,) = records("example", tmp_path)
    assert found and found["summary"] == whole["summary"]
    for asked in (lambda: found["answers"], lambda: dict(found), lambda: json_text(found)):
        with pytest.raises(ValueError, match="line 1 of .*example.jsonl is damaged"):
            asked()


def test_an_effect_is_read_seed_by_seed():
    found = [record(ROWS[0], 0.80), record(ROWS[3], 0.90), record(ROWS[1], 0.70), record(ROWS[4], 0.75), record(ROWS[2], 0.95)]
    rows = effects(ROWS, found).set_index("row")
    assert rows.loc["aux False", ["seeds", "effect"]].tolist() == pytest.approx([2, -12.5]) and rows.loc["hint 16", ["seeds", "effect"]].tolist() == pytest.approx([1, 15])
    assert (rows["low"] < rows["effect"]).all() and (rows["effect"] < rows["high"]).all()
    assert rows.loc["hint 16", "verdict"] == "one seed: no verdict" and np.isnan(rows.loc["hint 16", "p"]) and np.isnan(rows.loc["hint 16", "p (Holm)"])
    assert rows.columns.tolist() == ["seeds", "effect", "low", "high", "p", "p (Holm)", "verdict", "left out"]


def test_without_runs_or_partners_there_is_no_effect():
    alone = effects(ROWS, [record(ROWS[1], 0.7)]).set_index("row")
    assert alone["seeds"].tolist() == [0, 0] and alone["effect"].isna().all() and alone["verdict"].tolist() == ["", ""]
    assert alone["left out"].tolist() == ["seed 0: no such run of the first row", ""]
    assert effects(ROWS, [])["seeds"].tolist() == [0, 0] and len(effects(ROWS[:1], [])) == 0


@pytest.mark.parametrize(("changed", "said"), [
    (dict(protocol="custom"), "other protocol"), (dict(precision="bf16"), "other precision"), (dict(recipe="others"), "other INRs"),
    (dict(ids=list(range(1, 21))), "other test images"), (dict(recipe="others", precision="bf16"), "other precision, other INRs"),
])
def test_what_cannot_be_compared_is_left_out_and_named(changed, said):
    found = [record(ROWS[0], 0.9), record(ROWS[1], 0.5, **changed)]
    assert effects(ROWS, found).iloc[0][["seeds", "left out"]].tolist() == [0, f"seed 0: {said}"]
    both = [*found, record(ROWS[3], 0.9), record(ROWS[4], 0.5, **changed)]
    assert effects(ROWS, both)["left out"][0] == f"seeds 0, 1: {said}"


def test_inrs_that_another_machine_fitted_alike_are_paired_and_told_of():
    found = [record(ROWS[0], 0.9), record(ROWS[1], 0.5, bits="others")]
    assert effects(ROWS, found).iloc[0][["seeds", "effect"]].tolist() == [1, pytest.approx(-40)]
    assert results(ROWS, found)["notes"].tolist() == ["", "INRs of other bits than the first row's", ""]


def test_an_effect_leaves_out_what_left_the_protocol():
    found = [record(ROWS[0], 0.9), record(ROWS[1], 0.85), record(ROWS[3], 0.9, protocol="custom"), record(ROWS[4], 0.5, protocol="custom")]
    assert effects(ROWS, found).iloc[0][["seeds", "effect", "left out"]].tolist() == [1, pytest.approx(-5), "seed 1: left the protocol"]
    assert counted(ROWS, found[2:])["row"].tolist() == ["baseline", "aux False"], "of a row that never kept it, all count"


def test_records_without_answers_are_refused():
    old = {name: value for name, value in record(ROWS[1], 0.7).items() if name != "answers"}
    with pytest.raises(ValueError, match=f"run {old['run_id']} does not hold the answers to its test INRs.*: run it again, or leave it out"):
        effects(ROWS, [record(ROWS[0], 0.8), old])
    assert results(ROWS, [old])["runs"][1] == 1, "its mean can still be shown"


def test_answers_are_paired_by_image():
    one, other = record(ROWS[0], 0.5), record(ROWS[1], 0.5)
    backwards = {name: values[::-1] for name, values in other["answers"]["test"].items()}
    (pair, _) = paired(ROWS, [one, other | dict(answers=dict(test=backwards))])
    assert (pair.differences == 0).all(axis=None) and pair.differences.shape == (1, 20)
    copies = other | dict(answers=dict(test=dict(answers=[1, 0, 1], labels=[1, 1, 1], ids=[7, 7, 3])))
    assert right(copies).to_dict() == {3: 1.0, 7: 0.5}


def test_shares_count_as_they_are_and_what_is_neither_share_nor_class_is_refused():
    given = dict(answers=[0.5, -0.25, 1.0], labels=[1, 0, 1], ids=[3, 1, 3])
    r = record(ROWS[0], 0.5) | dict(answers=dict(test=given))
    assert right(r | dict(config=r["config"] | dict(objective="edit"))).to_dict() == {1: -0.25, 3: 0.75}
    for objective, answers in (("regress", given["answers"]), ("contrast", [None] * 3)):
        with pytest.raises(ValueError, match=f"answers under the objective {objective} are neither classes nor shares"):
            right(r | dict(config=r["config"] | dict(objective=objective), answers=dict(test=given | dict(answers=answers))))


def test_other_inits_are_the_first_rows_runs_on_other_inrs():
    first = [record(row, 0.8) for row in (ROWS[0], ROWS[3])]
    for r, share in zip(first, (0.39, 0.41)):
        r["answers"]["test-other"] = answers(share)
    said = judged([unseen(ROWS, [*first, record(ROWS[1], 0.1)])]).iloc[0]
    assert said[["row", "seeds", "verdict"]].tolist() == ["other inits", 2, "two seeds: no verdict"] and said["effect"] == pytest.approx(-40)
    assert judged([unseen(ROWS, [record(ROWS[0], 0.8)])])["seeds"].tolist() == [0], "a run of independent starts has no others"


def test_holm_is_what_one_works_out_by_hand():
    "Smallest first: .01 x 4 = .04, .02 x 3 = .06, .03 x 2 = .06, .04 x 1 = .04, which may not fall below .06."
    assert holm([0.03, 0.01, 0.04, 0.02]).tolist() == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, float("nan"), 0.9]).tolist() == pytest.approx([1.0, float("nan"), 1.0], nan_ok=True)
    assert holm([0.02, float("nan"), 0.01]).tolist() == pytest.approx([0.04, float("nan"), 0.03], nan_ok=True), "a row that is not yet run counts: its verdicts do not wait for it"
    assert holm([]).size == 0
    assert holm([0.03, 0.01, 0.02], [0.25, 0.5, 0.25]).tolist() == pytest.approx([0.04, 0.02, 0.04]), "half of the level for the second: .01 / .5, then .02 / .25 x .5, then .03"


def test_what_seeds_and_images_vary_is_what_one_works_out_by_hand():
    "Effects 0, .5 and 1: variance .25. A second row that moves as the first does tells nothing new; one that does not move halves the variance, and shares a half of it."
    one, still = pd.DataFrame([[0.0, 0], [1, 0], [1, 1]]), pd.DataFrame([[1.0, 0]] * 3)
    assert variance_of_seeds([one]) == pytest.approx((0.25, 2)) == variance_of_seeds([one, one]) == variance_of_seeds([one, one[:1], one[:0]])
    assert variance_of_seeds([one, still]) == pytest.approx((0.125, 1 / (0.5**2 / 2 + 0.5**2 / 4)))
    assert variance_of_seeds([still]) == (0, 2) and variance_of_seeds([one[:1]]) == (0, np.inf)
    images = pd.DataFrame([[0.0, 1.0, 2.0, 1.0]] * 2)
    assert variance_of_images(images) == pytest.approx((2 / 3 / 4, 0)) and variance_of_images(images[:1]) == pytest.approx((2 / 3 / 4, 0)), "seeds that agree on every image"
    apart = pd.DataFrame([[1.0, -1.0], [-1.0, 1.0]])
    assert variance_of_images(apart) == pytest.approx((0, 4 / 2)), "all of it is of seed and image together: 4 of it over one degree of freedom"


def test_what_was_asked_first_has_half_of_the_level():
    generator = np.random.default_rng(3)
    pairs = [Paired(row, pd.DataFrame((generator.random((3, 400)) < 0.1).astype(float))) for row in ("depth 0", "hint 16", "hint 64")]
    said = judged([pairs[0], *pairs[1:], Paired("not yet run", pd.DataFrame())]).set_index("row")
    assert said["p (Holm)"].tolist() == pytest.approx(holm(said["p"], [1 / 2, 1 / 6, 1 / 6, 1 / 6]).tolist(), nan_ok=True) and said.loc["not yet run", "verdict"] == ""
    alone = judged(pairs[:1])
    assert alone["p (Holm)"][0] == alone["p"][0], "the only row of a table has all of it"


def test_rows_that_can_have_no_verdict_take_nothing_of_the_level_from_others():
    generator = np.random.default_rng(3)
    drawn = [pd.DataFrame((generator.random((3, 400)) < 0.1).astype(float)) for _ in range(2)]
    waiting = [Paired("two seeds", drawn[0][:2], asked=2), Paired("depth 0", pd.DataFrame(), asked=1)]
    said = judged([*waiting, Paired("hint 16", drawn[0]), Paired("not yet run", pd.DataFrame())]).set_index("row")
    assert said.loc["hint 16", "p (Holm)"] == min(1, 2 * said.loc["hint 16", "p"]) and said.loc["two seeds", "p"] >= 0
    assert said["p (Holm)"].isna().tolist() == [True, True, False, True]
    rows = [dict(seed=seed) | row for row, seeds in ((ROWS[0], 3), (ROWS[1], 3), (ROWS[0] | dict(hint=16), 1)) for seed in range(seeds)]
    assert [pair.asked for pair in paired(rows, [])] == [3, 1]


def test_differences_that_are_missing_are_refused():
    with pytest.raises(ValueError, match=r"\['row'\] and those beside them were not asked about the same test images"):
        judged([Paired("row", pd.DataFrame([[1.0, np.nan], [0.0, 1.0]]))])


def test_no_row_of_three_seeds_that_stands_alone_is_often_called_different():
    "Though three seeds say little of how much they vary, and may agree by chance."
    generator = np.random.default_rng(5)
    for spread in (0.005, 0.02, 0.05):
        tables = [judged([Paired("row", pd.DataFrame(generator.normal(0, spread, (3, 1)) + generator.normal(0, 0.3, (1, 200)) + generator.normal(0, 0.2, (3, 200))))]) for _ in range(400)]
        assert np.mean([t["verdict"][0] in ("better", "worse") for t in tables]) <= 0.08


def test_equal_rows_are_not_told_apart_and_unequal_ones_are():
    same = pd.DataFrame(np.zeros((3, 50)))
    shifted = pd.DataFrame(np.tile(np.repeat([1.0, 0.0], [20, 30]), (3, 1)))
    said = judged([Paired("same", same), Paired("better", shifted), Paired("worse", -shifted)])
    assert said["verdict"].tolist() == ["not told apart", "better", "worse"] and said["effect"].tolist() == pytest.approx([0, 40, -40]) and said["p"][0] == 1


def test_an_interval_that_leaves_zero_out_in_a_table_of_many_rows_is_said_to_be_uncorrected():
    generator = np.random.default_rng(0)

    def row(effect):
        return Paired("row", pd.DataFrame(effect + generator.normal(0, 0.01, (3, 1)) + generator.normal(0, 0.1, (3, 400))))

    said = judged([row(0.03), row(-0.03), *(row(0.0) for _ in range(30))])
    assert said["verdict"].tolist()[:2] == ["better, uncorrected", "worse, uncorrected"] and (said["p"][:2] < 0.05).all() and (said["p (Holm)"][:2] > 0.05).all()
    assert (said["low"][0] > 0) and (said["high"][1] < 0)


def simulated(generator, effects, seeds, images=200, spread=0.03):
    "Rows of known effect beside one first row: images of known difficulty, and seeds that move each row's chances."
    easy = 0.8 * generator.beta(0.5, 0.5, images)
    moved = generator.normal(0, spread, (1 + len(effects), seeds, 1))
    right = generator.random((1 + len(effects), seeds, images)) < easy + moved + np.array([0, *effects])[:, None, None]
    return [Paired(f"effect {effect}", pd.DataFrame(row.astype(float) - right[0])) for effect, row in zip(effects, right[1:])]


@pytest.mark.parametrize(("seeds", "spread"), [(2, 0.03), (3, 0.01), (3, 0.03), (5, 0.03), (3, 0.08)])
def test_an_interval_covers_the_effect_as_often_as_it_says(seeds, spread):
    generator, known = np.random.default_rng(0), (0.0, 0.03, -0.05, 0.1)
    tables = [judged(simulated(generator, known, seeds, spread=spread)) for _ in range(200)]
    covered = np.mean([[low <= 100 * e <= high for low, e, high in zip(t["low"], known, t["high"])] for t in tables])
    assert 0.93 <= covered <= (0.99 if seeds == 5 else 1), covered


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_a_row_whose_seeds_vary_more_than_others_is_seldom_called_different(seeds):
    "Though the others, which have more degrees of freedom together, say that seeds vary little."
    generator = np.random.default_rng(2)

    def row(spread):
        return Paired("row", pd.DataFrame(generator.normal(0, spread, (seeds, 1)) + generator.normal(0, 0.1, (seeds, 200))))

    called = np.mean([judged([row(0.1), *(row(0.01) for _ in range(8))])["p"][0] < 0.05 for _ in range(300)])
    assert called <= 0.09, called


def test_a_table_of_equal_rows_seldom_calls_one_different():
    generator = np.random.default_rng(1)
    called = np.mean([judged(simulated(generator, (0.0,) * 4, 3))["verdict"].isin(["better", "worse"]).any() for _ in range(200)])
    assert called <= 0.1, called


COMMITTED = [(path.name, r) for path in sorted((ROOT / "figures" / "records").glob("*.jsonl")) for r in records(path.stem)]


def test_committed_records_keep_their_schema():
    assert len(COMMITTED) == sum(len(path.read_bytes().splitlines()) for path in (ROOT / "figures" / "records").glob("*.jsonl")) > 0
    for name, r in COMMITTED:
        assert {"run_id", "config", "source", "summary"} <= r.keys(), name
        assert re.fullmatch("[0-9a-f]{12}", r["run_id"]) and isinstance(flat(r["config"])["seed"], int)
        assert "/" not in str(flat(r["config"])["dataset"]).removeprefix("uoft-cs/").removeprefix("ylecun/"), f"{name} names a path"
        if r["summary"] is None:
            assert r["error"], name
            continue
        assert {"env", "inrs", "reads", "history", "answers"} <= r.keys() and {"kind", "recipe", "bits"} <= r["inrs"].keys()
        known = measure(r) or "tau"
        assert {f"val_{known}", f"test_{known}", "fit_seconds", "train_seconds", "psnr", "parameters", "protocol", "dataset", "images_digest", "invariance_error"} <= r["summary"].keys()
        assert {"torch", "device", "threads", "precision", "inrformer"} <= r["env"].keys()
        assert [h["epoch"] for h in r["history"]] == list(range(1, flat(r["config"])["epochs"] + 1))
        assert not [key for h in r["history"] for key in h if "test" in key], f"{name}: a history of the test split"
        if measure(r):
            assert right(r).mean() == pytest.approx(r["summary"][f"test_{known}"], abs=1e-9 if known == "accuracy" and r["config"]["objective"] != "adapt" else 1e-4)
        assert bool(measure(r)) == (r["config"]["objective"] != "regress")
        if not measure(r):
            assert concordance(*(np.array(r["answers"]["test"][name], float) for name in ("answers", "labels"))).mean() == pytest.approx(r["summary"]["test_tau"], abs=1e-3)
        assert "/" not in r["config"]["task"].get("domain_images", ""), f"{name} names a path"


def test_a_run_on_other_images_of_the_same_name_takes_no_place(tmp_path):
    write_record(record(ROWS[0], 0.9, images_digest="a"), "digits", tmp_path)
    write_record(record(ROWS[0], 0.8, images_digest="a"), "digits", tmp_path)
    with pytest.raises(ValueError, match="on other images of the same name: rename your files, or remove its line"):
        write_record(record(ROWS[0], 0.5, images_digest="b"), "digits", tmp_path)
    assert [r["summary"]["test_accuracy"] for r in records("digits", tmp_path)] == [0.8]


@pytest.mark.parametrize(("line", "said"), [("{}", "holds a line that is no record"), ('{"run_id": "a", "history": [', "line 1 of .*digits.jsonl is damaged")])
def test_a_line_that_is_no_record_or_half_a_one_is_named(tmp_path, line, said):
    (tmp_path / "digits.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=said):
        records("digits", tmp_path)
