"The loop: streams that do not touch each other, gradients shared by threads, numbers that stop being finite, and modes that are given back."

import copy
import json
import math
from dataclasses import replace

import pytest
import torch

from inrformer.inr import INRSpec, canonicalize, init_inr, stream
from inrformer.moves import AUGMENTATIONS, augment
from inrformer.objectives.classify import Classify, ClassifyConfig, draw_crops
from inrformer.objectives.contrast import Contrast, ContrastConfig
from inrformer.reader import READERS, seed_parameters
from inrformer.readers.inrformer import INRFormer, INRFormerConfig
from inrformer.splits import Split
from inrformer.training import SCHEDULES, Train, Workers, batches, branch_epoch, make_optimizer, resolve_device, steps_per_epoch, train

SPEC = INRSpec(widths=(2, 6, 5, 3), omega=10.0)
SMALL = dict(dim=8, edge_dim=4, depth=2, heads=2, hint=16, query=16, features=4)
CLASSES = ("a", "b", "c", "d")


@pytest.fixture
def seed():
    torch.manual_seed(0)
    return torch.Generator().manual_seed(0)


@pytest.fixture
def workers():
    "Three threads, whatever the machine has."
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        return Workers("cpu", "fp32")
    finally:
        torch.set_num_threads(before)


def split_of(n=24, spec=SPEC, dtype=torch.float32) -> Split:
    inr = init_inr(spec, n, generator=torch.Generator().manual_seed(1)).to(dtype)
    return Split(inr, torch.arange(n) % len(CLASSES), torch.arange(n), torch.full((n,), 30.0), torch.zeros(n, dtype=torch.long))


def reader_of(objective=None, spec=SPEC, **choices) -> INRFormer:
    reader = INRFormer(spec, INRFormerConfig(**SMALL | choices))
    return seed_parameters((objective or Classify(classes=CLASSES)).attach(reader), 0)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_step_is_made_at_the_rate_of_its_schedule_with_a_gradient_of_length_1_at_most(tmp_path, workers, monkeypatch, schedule):
    rates, lengths = [], []

    class Steep(Classify):
        def loss(self, *args):
            return {name: 1000 * loss for name, loss in super().loss(*args).items()}

    def made(model, cfg):
        optimizer = make_optimizer(model, cfg)

        def note(*_) -> None:
            rates.append([group["lr"] for group in optimizer.param_groups])
            lengths.append(sum(p.grad.square().sum() for p in model.parameters() if p.grad is not None).sqrt().item())

        optimizer.register_step_pre_hook(note)
        return optimizer

    monkeypatch.setattr("inrformer.training.make_optimizer", made)
    task = Steep(classes=CLASSES)
    train(reader_of(task), task, split_of(), Train(epochs=2, batch_size=8, lr=0.01, schedule=schedule), folder=tmp_path, workers=workers)
    assert rates == [[0.01 * SCHEDULES[schedule](k, 6, 3)] * 2 for k in range(6)] and len({rate for rate, _ in rates}) > 1
    assert lengths == pytest.approx([1.0] * 6, abs=1e-4)


def test_images_are_moved_in_their_own_sizes():
    "Of a picture that is not square, a shift by one pixel is another along each axis."
    split, cfg = replace(split_of(), sizes=(40, 20)), Train(batch_size=24, augment="shift")
    ((part, _),) = batches(reader_of(), Classify(classes=CLASSES), split, cfg, 3)
    assert torch.equal(part.inr.flat(), augment(split[part.ids].inr, **AUGMENTATIONS["shift"], sizes=(40, 20), generator=stream(cfg.seed, "moves", 3, 0)).flat())
    task = Contrast(ContrastConfig(view_noise=0.0, view_moves="shift"))
    views = task.draw(task.attach(READERS["deepsets"](SPEC)), split, stream(0, "view"))
    assert torch.equal(views, augment(split.inr, **AUGMENTATIONS["shift"], sizes=(40, 20), generator=stream(0, "view")).flat())


def test_threads_give_the_gradient_of_the_whole_batch(seed, workers):
    objective, split = Classify(classes=CLASSES), split_of(7, dtype=torch.float64)
    reader = reader_of(objective).double()
    drawn = draw_crops(7, reader.build.whole.float(), generator=seed).double()
    losses = objective.loss(reader, split, drawn)
    wanted = torch.autograd.grad(sum(losses.values()) / 7, list(reader.parameters()))
    found, said = workers.gradients(reader, objective, split, drawn)
    assert workers.threads == 3 and set(said) == {"cross_entropy", "crop_error"}
    assert all((a - b).abs().max() < 1e-12 for a, b in zip(found, wanted))
    assert said["cross_entropy"] == pytest.approx(losses["cross_entropy"].item() / 7)


def test_what_has_no_part_in_the_loss_has_no_gradient(workers):
    objective = Classify(ClassifyConfig(aux=False), CLASSES)
    reader = reader_of(objective)
    grads, losses = workers.gradients(reader, objective, split_of(5), None)
    without = {name for (name, _), g in zip(reader.named_parameters(), grads) if g is None}
    assert without == {name for name, _ in reader.named_parameters() if name.startswith("rewrite.")} and set(losses) == {"cross_entropy"}


@pytest.mark.parametrize("training", [True, False])
def test_a_reader_keeps_its_mode(training, workers):
    reader = reader_of().train(training)
    workers.map(reader, split_of(), Classify(classes=CLASSES).outputs)
    assert reader.training is training and all(part.training is training for part in reader.modules())
    with pytest.raises(ZeroDivisionError):
        workers.map(reader, split_of(), lambda reader, split: 1 / 0)
    assert reader.training is training


def drawn_by(cfg, epoch=3, objective=None, **choices):
    objective = objective or Classify(classes=CLASSES)
    return list(batches(reader_of(objective, **choices), objective, split_of(), cfg, epoch))


def test_what_one_part_draws_does_not_move_the_others():
    cfg = Train(batch_size=8, augment="shift", weight_noise=0.1)
    base = drawn_by(cfg)
    for other in (drawn_by(cfg, objective=Classify(ClassifyConfig(aux=False), CLASSES)), drawn_by(cfg, hint=64)):
        for (a, drawn), (b, _) in zip(base, other, strict=True):
            assert torch.equal(a.inr.flat(), b.inr.flat()) and torch.equal(a.labels, b.labels)
    still = drawn_by(replace(cfg, weight_noise=0.0))
    for (a, p), (b, q) in zip(base, still, strict=True):
        assert torch.equal(a.ids, b.ids) and torch.equal(p, q) and not torch.equal(a.inr.flat(), b.inr.flat())
    unmoved = drawn_by(replace(cfg, augment="none", weight_noise=0.0))
    for (a, p), (b, q) in zip(still, unmoved, strict=True):
        assert torch.equal(a.ids, b.ids) and torch.equal(p, q)
    assert not torch.equal(base[0][0].ids, drawn_by(cfg, epoch=4)[0][0].ids), "another epoch, another order"


def test_noise_comes_after_the_canonical_form():
    "Added before, it jumps over the form's boundary: 0.1 became a relative change of 0.72."
    cfg = Train(batch_size=24, weight_noise=0.1)
    ((noisy, _),) = drawn_by(cfg, canonical=True)
    clean = canonicalize(split_of()[noisy.ids].inr)
    scale = reader_of(canonical=True).scale
    for t, wanted, unit in zip(noisy.inr.tensors, clean.tensors, scale):
        assert ((t - wanted) / unit).std() == pytest.approx(0.1, rel=0.5) and ((t - wanted) / unit).abs().max() < 0.6
    reader = reader_of(canonical=True)
    assert torch.equal(reader.train().features(noisy.inr), reader.read(noisy.inr)), "in training it reads what it is given"
    assert torch.equal(reader.eval().features(clean), reader.read(clean))


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_maps_decay_and_biases_do_not(name):
    reader = reader_of()
    optimizer = make_optimizer(reader, Train(optimizer=name, lr=0.1, weight_decay=0.5))
    start = copy.deepcopy(reader.state_dict())
    for p in reader.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for name, p in reader.named_parameters():
        assert torch.allclose(p, start[name] * (0.95 if p.ndim > 1 else 1.0)), name


def test_muon_steps_maps_as_torch_does_and_the_rest_as_adamw():
    "torch's computes in bfloat16: a unit in the last place of it is 0.4 % of a value."
    ours, theirs, plain = reader_of(), reader_of(), reader_of()
    maps = {name for name, p in ours.named_parameters() if p.ndim == 2 and min(p.shape) >= 8}
    assert maps and len(maps) < len(list(ours.parameters()))
    optimizers = [
        make_optimizer(ours, Train(optimizer="muon", lr=0.01)), make_optimizer(plain, Train(lr=0.01)),
        torch.optim.Muon([p for name, p in theirs.named_parameters() if name in maps], lr=0.01, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
    ]
    start = copy.deepcopy(ours.state_dict())
    for step in range(3):
        for reader in (ours, theirs, plain):
            for i, p in enumerate(reader.parameters()):
                p.grad = torch.randn(p.shape, generator=stream(step, "grad", i))
        for optimizer in optimizers:
            optimizer.step()
    moved, wanted, others = ({name: p.detach() - start[name] for name, p in reader.named_parameters()} for reader in (ours, theirs, plain))
    for name, change in moved.items():
        if name in maps:
            assert torch.cosine_similarity(change.flatten(), wanted[name].flatten(), 0) > 0.999, name
            assert change.norm().item() == pytest.approx(wanted[name].norm().item(), rel=0.01), name
        else:
            assert torch.equal(change, others[name]), name


def test_runs_of_wsd_share_all_but_their_last_fifth():
    short, long = ([SCHEDULES["wsd"](step, epochs * 7, 7) for step in range(epochs * 7)] for epochs in (5, 11))
    shared = branch_epoch(5) * 7
    assert shared == 28 and short[:shared] == long[:shared] and max(short) == max(long) == 1.0
    assert all(a > b for a, b in zip(short[shared:], short[shared + 1 :])) and short[-1] == pytest.approx(1 / 7)
    assert all(0 < SCHEDULES[name](step, 3, 3) <= 1 for name in SCHEDULES for step in range(3)), "one epoch is enough"


def test_a_gradient_that_is_not_finite_stops_at_its_step_and_changes_nothing(tmp_path, workers):
    class Poisoned(Classify):
        "The gradient, and not the loss, is NaN in the second step of the second epoch."

        def loss(self, reader, split, drawn):
            self.calls = getattr(self, "calls", 0) + 1
            losses = super().loss(reader, split, drawn)
            poison = (0 * next(reader.parameters()).sum()).clamp(min=0).sqrt() if self.calls > 12 else 0
            return losses | dict(cross_entropy=losses["cross_entropy"] + poison)

    objective = Poisoned(classes=CLASSES)
    reader, before = reader_of(objective), None
    with pytest.raises(FloatingPointError, match=r"step 2 of epoch 2 at a learning rate of .* is no longer finite .*use a smaller learning rate"):
        train(reader, objective, split_of(), Train(epochs=3, batch_size=8), folder=tmp_path, workers=workers)
    assert all(p.isfinite().all() for p in reader.parameters())
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == ["checkpoint-00001-00000"]


def test_history_holds_validation_and_resuming_asks_for_the_same_run(tmp_path, workers):
    objective, cfg = Classify(classes=CLASSES), Train(epochs=2, batch_size=8)
    answers = iter([True])
    state = train(reader_of(objective), objective, split_of(), cfg, folder=tmp_path, workers=workers, validate=split_of(8), about=dict(source="abc"), stop=lambda: next(answers))
    assert [set(entry) for entry in state["history"]] == [{"epoch", "cross_entropy", "crop_error", "lr", "val_accuracy", "val_cross_entropy", "val_crop_r2"}]
    with pytest.raises(ValueError, match=r"checkpoint-00001-00000 belongs to another run \(source: 'abc' there, 'def' here\)"):
        train(reader_of(objective), objective, split_of(), cfg, folder=tmp_path, workers=workers, about=dict(source="def"))
    state = train(reader_of(objective), objective, split_of(), cfg, folder=tmp_path, workers=workers, about=dict(source="abc"))
    assert state["epoch"] == 2 and state["history"][1]["val_accuracy"] is None
    assert [json.loads(line)["epoch"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2]


class Cut(Classify):
    "Is interrupted in a step of the run."

    at = None

    def loss(self, reader, split, drawn):
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        return super().loss(reader, split, drawn)


@pytest.mark.parametrize(("at", "how"), [(2, {}), (6, dict(optimizer="muon")), (9, dict(schedule="wsd")), (18, dict(optimizer="muon", schedule="wsd"))])
def test_a_run_cut_inside_an_epoch_loses_a_tenth_of_it_and_gives_the_same_bits(tmp_path, monkeypatch, at, how):
    monkeypatch.setattr("inrformer.training.PAUSE", 0.0)
    cfg, threads = Train(epochs=2, batch_size=2, weight_noise=0.1, augment="shift", **how), Workers("cpu")
    whole, cut = reader_of(), reader_of()
    objective = Cut(classes=CLASSES)
    objective.at = at * threads.threads
    state = train(whole, Classify(classes=CLASSES), split_of(), cfg, folder=tmp_path / "whole", workers=threads)
    with pytest.raises(KeyboardInterrupt):
        train(cut, objective, split_of(), cfg, folder=tmp_path / "cut", workers=threads)
    kept = [p.name for p in (tmp_path / "cut").glob("checkpoint-*")]
    assert kept == [f"checkpoint-{(at - 1) // 12:05d}-{(at - 1) % 12:05d}"], "twelve steps are an epoch here, and one of them its tenth"
    cut = reader_of()
    resumed = train(cut, Classify(classes=CLASSES), split_of(), cfg, folder=tmp_path / "cut", workers=threads)
    assert all(map(torch.equal, whole.parameters(), cut.parameters()))
    assert resumed["history"] == state["history"]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_checkpoint_with_one_other_byte_is_refused(tmp_path, workers, name):
    cfg = Train(epochs=2, batch_size=8)
    train(reader_of(), Classify(classes=CLASSES), split_of(), cfg, folder=tmp_path, workers=workers, stop=lambda: True)
    path = tmp_path / "checkpoint-00001-00000" / name
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="checkpoint-00001-00000 is damaged .*remove it, and the run starts again"):
        train(reader_of(), Classify(classes=CLASSES), split_of(), cfg, folder=tmp_path, workers=workers)


def test_a_run_that_goes_on_with_other_threads_says_so_and_keeps_both_numbers(tmp_path, workers):
    cfg, objective = Train(epochs=2, batch_size=8), Classify(classes=CLASSES)
    train(reader_of(), objective, split_of(), cfg, folder=tmp_path, workers=workers, stop=lambda: True)
    other = copy.copy(workers)
    other.threads += 1
    with pytest.warns(UserWarning, match=f"goes on with {other.threads} threads after {workers.threads}"):
        state = train(reader_of(), objective, split_of(), cfg, folder=tmp_path, workers=other)
    assert state["threads"] == [workers.threads, other.threads]


@pytest.mark.parametrize("head", ["start", "translate", "both"])
def test_under_bfloat16_the_weights_of_target_inrs_stay_fine(head):
    reader = reader_of(head=head)
    with torch.autocast("cpu", torch.bfloat16):
        stages = reader.stages(split_of(3).inr)
    assert {e.dtype for e in stages["target INR"].edges} == {torch.float32}
    assert stages["logits"].isfinite().all()


@pytest.mark.parametrize(("values", "message"), [
    (dict(epochs=0), "epochs must be at least 1"), (dict(lr=-1.0), "lr must be a positive number"), (dict(weight_decay=math.nan), "weight_decay must be at least 0"),
    (dict(precision="fp8"), "precision must be one of"), (dict(device="tpu"), "device must be one of"), (dict(augment="spin"), "augment must be one of"), (dict(optimizer="sgd"), "optimizer must be one of"), (dict(schedule="step"), "schedule must be one of"), (dict(seed=2**60), "seed must be at least 0"),
])
def test_what_cannot_train_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Train(**values)


def test_a_gpu_that_is_not_there_is_named():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(ValueError, match="no GPU here"):
        resolve_device("cuda")
    assert Train(device="cuda").device == "cuda", "a config is the same on every machine"


def test_the_last_batch_waits():
    assert [steps_per_epoch(n, Train(batch_size=8)) for n in (3, 8, 15, 16)] == [1, 1, 1, 2]
    assert [len(batch) for batch, _ in drawn_by(Train(batch_size=10))] == [10, 10]


def test_crop_r2_is_one_for_the_crop_and_zero_for_the_mean_of_all(workers, monkeypatch):
    task = Classify(classes=CLASSES)
    for draw, wanted in ((lambda there: there, 1), (lambda there: there.mean(dim=0, keepdim=True).expand_as(there), 0)):
        monkeypatch.setattr(INRFormer, "crop", lambda self, inr, points, draw=draw: draw(inr(points)))
        assert task.measure(reader_of(task), split_of(8), workers)["crop_r2"] == pytest.approx(wanted, abs=1e-5)
