"The n-th file operation fails, or the machine loses power at it: whatever n, nothing is lost that was done, and what follows is the same to the bit."

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file

from inrformer.config import config_from, run_id
from inrformer.records import records
from inrformer.runs import run
from inrformer.sweeps import sweep

ROW = dict(n_train=12, n_test=6, hidden="4", fit_steps=2, reader="deepsets", pair_dim=4, epochs=2, batch_size=4, val_parts=2, schedule="wsd", device="cpu")
OPERATIONS = ((os, "replace"), (os, "fsync"), (Path, "write_bytes"), (Path, "write_text"), (Path, "mkdir"), (Path, "unlink"))


def swept(home: Path) -> list[dict]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("INRFORMER_CACHE", str(home / "cache"))
        return sweep([ROW], "tiny", out=home / "runs", folder=home / "records")


def model(home: Path) -> dict[str, torch.Tensor]:
    return load_file(home / "runs" / "tiny" / run_id(config_from(ROW)) / "model.safetensors")


class Disk:
    "Counts file operations, and lets one of them go wrong; knows what a loss of power would take."

    def __init__(self, wrong: int, power: bool):
        self.wrong, self.power, self.count, self.unsafe = wrong, power, itertools.count(), set()

    def fails(self, name: str, real: callable, *arguments, **options):
        if next(self.count) == self.wrong:
            if name in ("write_bytes", "write_text"):
                real(arguments[0], arguments[1][: len(arguments[1]) // 2])
            if self.power:
                self.lose_power()
            raise OSError(28, "No space left on device")
        return real(*arguments, **options)

    def lose_power(self) -> None:
        for path in self.unsafe:
            if os.path.exists(path):
                os.truncate(path, 0)
        os._exit(9)

    @contextmanager
    def under(self) -> Iterator[None]:
        "All operations go through this disk."
        with pytest.MonkeyPatch.context() as patched:
            for where, name in OPERATIONS:
                real = getattr(where, name)
                patched.setattr(where, name, lambda *a, name=name, real=real, **o: self.done(name, a, self.fails(name, real, *a, **o)))
            yield

    def done(self, name: str, arguments: tuple, result):
        "Note what is safe by now."
        if name in ("write_bytes", "write_text"):
            self.unsafe.add(str(arguments[0]))
        if name == "fsync":
            self.unsafe.discard(os.readlink(f"/proc/self/fd/{arguments[0]}"))
        if name == "replace":
            self.unsafe = {str(arguments[1]) + path.removeprefix(str(arguments[0])) if path.startswith(str(arguments[0])) else path for path in self.unsafe}
        return result


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> tuple[Path, int]:
    "A sweep that nothing happened to, and how many file operations it takes."
    home, disk = tmp_path_factory.mktemp("reference"), Disk(-1, False)
    with disk.under():
        swept(home)
    return home, next(disk.count)


def after_a_loss_of_power(home: Path, n: int) -> int:
    "How a process ended that swept until the power went at the n-th operation."
    child = os.fork()
    if not child:
        try:
            with Disk(n, True).under():
                swept(home)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def check(home: Path, reference: Path) -> None:
    "Go on, and compare with the sweep that nothing happened to."
    (record,), (wanted,) = swept(home), records(folder=reference / "records")
    assert record["answers"] == wanted["answers"] and record["inrs"] == wanted["inrs"] and record["summary"]["test_accuracy"] == wanted["summary"]["test_accuracy"]
    assert [{k: v for k, v in entry.items()} for entry in record["history"]] == wanted["history"] and len(records(folder=home / "records")) == 1
    assert all(torch.equal(t, model(reference)[name]) for name, t in model(home).items())
    assert not [path for part in ("runs", "records", "cache/inrs") for path in (home / part).rglob(".*.tmp")]


def trial(n: int, power: bool, reference: Path, home: Path) -> None:
    home.mkdir()
    if power:
        assert after_a_loss_of_power(home, n) == 9
    else:
        with Disk(n, False).under():
            try:
                swept(home)
            except OSError as error:
                assert error.errno == 28
    check(home, reference)


def several(total: int) -> range:
    "A few of all operations."
    return range(total // 6, total, total // 3)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
@pytest.mark.parametrize("power", [False, True])
def test_some_operations_fail(power, reference, tmp_path):
    for n in several(reference[1]):
        trial(n, power, reference[0], tmp_path / str(n))


@pytest.mark.grid
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
@pytest.mark.parametrize("power", [False, True])
def test_every_operation_fails(power, reference, tmp_path):
    for n in range(reference[1]):
        trial(n, power, reference[0], tmp_path / str(n))


USERS = """
import os, sys
from pathlib import Path
from inrformer.runs import run

row, home = eval(sys.argv[1]), Path(sys.argv[2])
os.umask(int(sys.argv[3], 8))

def second_user():
    "What the one who did not make the cache can do with it."
    os.setgid(65534), os.setuid(65534)
    for seed, fit_seed in ((0, 0), (1, 0), (0, 1)):
        try:
            print(run(row | dict(seed=seed, fit_seed=fit_seed), out=home / "theirs").summary["test_accuracy"], flush=True)
        except PermissionError as error:
            print(error, flush=True)

(home / "theirs").mkdir()
(home / "theirs").chmod(0o777)
print(run(row, out=home / "ours").summary["test_accuracy"], flush=True)
next(home.glob("cache/inrs/*/card.json")).unlink() if sys.argv[3] == "0" else None
if pid := os.fork():
    os.waitpid(pid, 0)
else:
    second_user()
    os._exit(0)
"""


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can be two users")
@pytest.mark.parametrize("mask", ["022", "0"], ids=["theirs to read", "theirs to write, and unfinished"])
def test_two_users_share_a_cache(mask):
    with tempfile.TemporaryDirectory() as home:
        os.chmod(home, 0o777)
        env = os.environ | dict(INRFORMER_CACHE=f"{home}/cache", PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
        done = subprocess.run([sys.executable, "-c", USERS, repr(ROW), home, mask], cwd=home, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    ours, same, *others = done.stdout.splitlines()
    assert ours == same and len(others) == 2, done.stderr[-3000:]
    assert float(others[0]) >= 0 and (float(others[1]) >= 0 if mask == "0" else "Permission denied" in others[1] and "cache" in others[1])


@pytest.mark.grid
@pytest.mark.parametrize("rank", [0, 1])
def test_one_of_two_processes_is_killed(rank, tmp_path):
    long = ROW | dict(epochs=40)
    (tmp_path / "script.py").write_text(f"from inrformer.runs import run\nimport sys\nrun({long!r}, experiment='tiny', out=sys.argv[1])\n")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(tmp_path / "script.py")]
    env = os.environ | dict(INRFORMER_CACHE=str(tmp_path / "cache"), PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    subprocess.run([*command, str(tmp_path / "whole")], env=env, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=120)
    folder = tmp_path / "cut" / "tiny" / run_id(config_from(long))
    agent = subprocess.Popen([*command, str(tmp_path / "cut")], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(folder.glob("checkpoint-0000[3-9]-*")):
        assert agent.poll() is None, "the run ended before it could be killed"
        time.sleep(0.002)
    ranks = sorted(psutil.Process(agent.pid).children(), key=lambda child: int(child.environ()["RANK"]))
    ranks[rank].send_signal(signal.SIGKILL)
    assert agent.wait(60) != 0 and psutil.wait_procs(ranks, timeout=60)[1] == [] and not (folder / "summary.json").exists()
    subprocess.run([*command, str(tmp_path / "cut")], env=env, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=120)
    whole, cut = (load_file(tmp_path / name / "tiny" / folder.name / "model.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys() and all(torch.equal(whole[name], cut[name]) for name in whole)


@contextmanager
def mounted(image: Path, place: Path) -> Iterator[Path]:
    "The file system in an image, as it is found after a loss of power."
    place.mkdir(exist_ok=True)
    if (done := subprocess.run(["mount", "-o", "loop", str(image), str(place)], capture_output=True, text=True)).returncode:
        pytest.skip(f"needs to mount an image: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.grid
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0 or not shutil.which("mkfs.ext4"), reason="needs root and mkfs.ext4")
def test_whatever_a_disk_held_when_the_power_went_the_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("INRFORMER_CACHE", str(tmp_path / "cache"))
    long, image = ROW | dict(epochs=60), tmp_path / "disk.img"
    run(long, experiment="tiny", out=tmp_path / "whole")
    place = Path("tiny") / run_id(config_from(long))
    wanted, snapshots = load_file(tmp_path / "whole" / place / "model.safetensors"), []
    with image.open("wb") as file:
        file.truncate(2**25)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    with mounted(image, tmp_path / "disk") as disk:
        code = f"from inrformer.runs import run; run({long!r}, experiment='tiny', out={str(disk / 'runs')!r})"
        working = subprocess.Popen([sys.executable, "-c", code], env=os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1"), cwd=ROOT, stdin=subprocess.DEVNULL)
        while working.poll() is None:
            time.sleep(0.5)
            working.send_signal(signal.SIGSTOP)
            time.sleep(0.1)  # what is on its way to the disk arrives; what was not synced stays in memory
            snapshots.append(shutil.copy(image, tmp_path / f"{len(snapshots)}.img"))
            working.send_signal(signal.SIGCONT)
        assert working.returncode == 0
    begun = 0
    for snapshot in snapshots:
        with mounted(Path(snapshot), tmp_path / "snapshot") as disk:
            begun += any((disk / "runs" / place).glob("checkpoint-*"))
            this = run(long, experiment="tiny", out=disk / "runs")
            found = load_file(this.folder / "model.safetensors")
            assert all(torch.equal(wanted[name], found[name]) for name in wanted), snapshot
    assert begun >= 3, f"{begun} of {len(snapshots)} snapshots held a checkpoint"
