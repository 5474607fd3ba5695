"""One run at a time in a folder: whose lock holds is told by processes and signs of life."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest
from clusters import until
from processes import environment

from altrelu_dist.checkpoints.journal import Journal
from altrelu_dist.checkpoints.store import CheckpointStore
from altrelu_dist.errors import CheckpointError
from altrelu_dist.io import lock as module
from altrelu_dist.io.lock import InUseError
from altrelu_dist.io.owner import Owner

LATE = 3600.0
ELSEWHERE = replace(Owner.this("other"), host="elsewhere")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Signs of life so often that a test need not wait for them."""
    for name, seconds in (("_BEAT", 0.05), ("_WATCH", 0.4), ("_LOOK", 0.05), ("_SETTLED", 0.1)):
        monkeypatch.setattr(module, name, seconds)


@pytest.fixture(params=["local", "memory"])
def address(request, tmp_path):
    """Of a folder that is there, on this machine or in storage."""
    if request.param == "memory":
        return f"memory://{secrets.token_hex(4)}/run"
    return str(tmp_path / "run")


def locked_by(address, lock):
    """A store in whose folder there is this lock."""
    store = CheckpointStore(address)
    store._fs.makedirs(store._folder, exist_ok=True)
    put(store, lock)
    return store


def put(store, lock):
    store._write("lock", lock.encode() if isinstance(lock, Owner) else json.dumps(lock).encode())


def takes(store):
    with store.owned():
        return store._lock._read()


@contextlib.contextmanager
def process(code="import time; time.sleep(600)", **options):
    with subprocess.Popen([sys.executable, "-c", code], **options) as child:
        try:
            yield child
        finally:
            child.kill()


def owner_of(child, beat_ago=0.0):
    """The owner that a child process is."""
    started = Path(f"/proc/{child.pid}/stat").read_bytes().rpartition(b")")[2].split()[19].decode()
    beat = time.monotonic() - beat_ago
    return replace(Owner.this("other"), pid=child.pid, started=started, beat=beat)


# --- on this machine the process tells --------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [{"pid": 2**22 + 1}, {"pid": 2**80}, {"started": "1"}],
    ids=["gone", "no number", "the number is another process's"],
)
def test_a_process_that_has_ended_holds_nothing(change, address, caplog):
    store = locked_by(address, replace(Owner.this("other"), **change))
    assert Owner.decode(takes(store)).token != "other"
    assert not caplog.text
    assert not store._fs.exists(store._path("lock"))


def test_one_that_nobody_waited_for_has_ended(tmp_path, caplog):
    with process("input()", stdin=subprocess.PIPE) as dead:
        owner = owner_of(dead)
        assert owner.runs
        dead.stdin.close()
        until(lambda: psutil.Process(dead.pid).status() == psutil.STATUS_ZOMBIE, "it has ended")
        assert owner.runs is False
        takes(locked_by(tmp_path / "run", owner))
    assert not caplog.text


@pytest.mark.parametrize(
    ("signals", "beat_ago", "held"),
    [((), LATE, True), ((signal.SIGSTOP,), 1.0, True), ((signal.SIGSTOP,), LATE, False)],
    ids=["busy", "stopped just now", "stopped for long"],
)
def test_a_process_that_runs_holds_its_lock(signals, beat_ago, held, tmp_path, caplog):
    """However long ago its last sign of life is: it may be in a long computation."""
    with process() as child:
        for number in signals:
            child.send_signal(number)
            until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_STOPPED, "it stops")
        store = locked_by(tmp_path / "run", owner_of(child, beat_ago))
        if held:
            with pytest.raises(InUseError, match=f"another run .process {child.pid} on "):
                takes(store)
        else:
            takes(store)
    assert not caplog.text


def test_two_in_one_process(address):
    with CheckpointStore(address).owned():
        with pytest.raises(InUseError, match=f"another run .process {os.getpid()} on "):
            takes(CheckpointStore(address))
        with pytest.raises(InUseError):
            takes(CheckpointStore(address))
    takes(CheckpointStore(address))


SHOW = """
import sys
from altrelu_dist.io.owner import Owner
print(Owner.this("other").encode().decode(), flush=True)
sys.stdin.read()
"""


def test_the_same_number_in_a_container_that_is_started_again():
    """Of the processes that are the first in their namespace the one that has ended is told."""
    unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("no namespace can be made here")
    looks = "import sys; from altrelu_dist.io.owner import Owner; print(Owner.decode(%r).runs)"
    options = {"env": environment(), "stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([*unshare, sys.executable, "-c", SHOW], **options) as first:
        told = first.stdout.readline().strip()
        first.stdin.close()
    owner = Owner.decode(told)
    assert owner.pid == 1
    assert owner.host == socket.gethostname()
    for within in ([], unshare):
        done = subprocess.run(
            [*within, sys.executable, "-c", looks % told],
            env=environment(), capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.strip() in {"None", "False"}


# --- elsewhere its signs of life do -----------------------------------------------------------

OTHERS = [
    ELSEWHERE,
    replace(Owner.this("other"), machine="another boot"),
    replace(Owner.this("other"), machine=""),
    replace(ELSEWHERE, beat=time.monotonic() + LATE),
    replace(ELSEWHERE, beat=0.0),
    {"token": "a", "host": socket.gethostname(), "pid": os.getpid(), "time": time.time() + LATE},
    {"token": "a", "host": "elsewhere", "pid": 1, "time": 0.0},
    asdict(ELSEWHERE) | {"pid": -1},
    {"token": "a"},
    [],
    "",
]


@pytest.mark.parametrize("lock", OTHERS)
def test_a_lock_that_does_not_change_is_taken_whatever_it_says(lock, tmp_path, caplog):
    begun = time.monotonic()
    takes(locked_by(tmp_path / "run", lock))
    assert time.monotonic() - begun >= module._WATCH
    (said,) = caplog.messages
    assert "run: has the lock of another run" in said
    assert "waiting for 0 s to see whether it is alive" in said


@pytest.mark.parametrize(
    "lock", [ELSEWHERE, {"token": "a", "time": 0.0}, []], ids=["owner", "old", "no lock"]
)
def test_a_lock_that_changes_holds(lock, address):
    store = locked_by(address, lock)
    ended = threading.Event()

    def beats():
        number = 0
        while not ended.wait(0.15):
            number += 1
            put(store, replace(lock, beat=-number) if isinstance(lock, Owner) else [number])

    beat = threading.Thread(target=beats)
    beat.start()
    try:
        with pytest.raises(InUseError, match="run: is in use by another run"):
            takes(CheckpointStore(address))
    finally:
        ended.set()
        beat.join()
    assert not store._number


def test_an_owner_gives_signs_of_life(address):
    with (store := CheckpointStore(address)).owned():
        seen = store._lock._read()
        until(lambda: store._lock._read() != seen, "its lock changes", 5)


def test_a_lock_that_goes_while_it_is_watched_is_free(tmp_path):
    store = locked_by(tmp_path / "run", ELSEWHERE)
    release = threading.Timer(0.1, (tmp_path / "run/lock").unlink)
    release.start()
    takes(store)
    release.join()


def test_of_several_that_find_a_dead_ones_lock_one_gets_it(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SETTLED", 0.5)
    locked_by(tmp_path / "run", ELSEWHERE)
    begin, ends = threading.Barrier(4), threading.Event()

    def take(_):
        begin.wait(30)
        try:
            with CheckpointStore(tmp_path / "run").owned():
                return ends.wait(2)
        except InUseError:
            return None

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(take, range(4)))
    assert found.count(None) == 3


# --- who has lost it notices ------------------------------------------------------------------


@pytest.fixture
def frozen(address, monkeypatch):
    """A run that is on another machine, gives no sign of life and has kept a checkpoint."""
    store = CheckpointStore(address)
    store._lock._mine = replace(store._lock._mine, host="elsewhere")
    with monkeypatch.context() as patch, contextlib.ExitStack() as run:
        patch.setattr(module, "_BEAT", LATE)
        run.enter_context(store.owned())
        store.save({"of": "first"})
        patch.undo()
        for name, seconds in (("_WATCH", 0.2), ("_LOOK", 0.05), ("_SETTLED", 0.1), ("_BEAT", 0.05)):
            patch.setattr(module, name, seconds)
        yield store


@pytest.mark.parametrize("ended", [False, True])
def test_a_frozen_run_that_wakes_writes_nothing_more(frozen, ended):
    """Whether the run that took over still goes on, or has ended and left no lock."""
    with contextlib.ExitStack() as other:
        second = CheckpointStore(frozen.address)
        other.enter_context(second.owned())
        assert second.load() == {"of": "first"}
        second.save({"of": "second"})
        if ended:
            other.close()
        files = sorted(second._fs.ls(second._folder, detail=False))
        for _ in range(2):
            with pytest.raises(CheckpointError, match="another run goes on with it") as told:
                frozen.save({"of": "first"})
            assert "\n" not in str(told.value)
        assert sorted(second._fs.ls(second._folder, detail=False)) == files
        assert CheckpointStore(frozen.address).load() == {"of": "second"}
        assert second._fs.exists(second._path("lock")) != ended


def test_it_notices_before_its_next_checkpoint_is_due(address):
    store = CheckpointStore(address)
    with store.owned():
        journal = Journal(store, LATE)
        journal.save()
        journal.step("a", lambda: 1)
        put(store, ELSEWHERE)
        until(lambda: store.taken_away, "its thread has seen it", 5)
        with pytest.raises(CheckpointError, match="another run goes on with it"):
            journal.step("b", lambda: 2)
        assert Owner.decode(store._lock._read()) == ELSEWHERE


def test_a_lock_that_somebody_removed_comes_back(address):
    """Nobody else has written there."""
    with (store := CheckpointStore(address)).owned():
        store.save({"n": 1})
        store._fs.rm_file(store._path("lock"))
        until(lambda: store._fs.exists(store._path("lock")), "it is there again", 5)
        store.save({"n": 2})
    assert CheckpointStore(address).load() == {"n": 2}


def test_what_a_killed_run_left_half_written_goes_and_all_else_stays(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    token = "0" * 16
    for name in ("checkpoint-00000001.bin", "lock"):
        (folder / f".{name}.{token}.partial").touch()
    (tmp_path / "precious").write_text("mine")
    others = [f".notes.txt.{token}.partial", ".lock.partial", "lock.swp", f".lock.{token}0.partial"]
    for name in others:
        (folder / name).touch()
    (folder / f".lock.{'1' * 16}.partial").symlink_to(tmp_path / "precious")
    (folder / f".lock.{'2' * 16}.partial").mkdir()
    takes(CheckpointStore(folder))
    left = {path.name for path in folder.iterdir()}
    assert left == {*others, f".lock.{'1' * 16}.partial", f".lock.{'2' * 16}.partial"}
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize("name", ["lock", "checkpoint-00000001.bin"])
def test_no_link_is_followed_and_no_pipe_waited_for(name, tmp_path):
    """Links and pipes that somebody planted under the names that are written."""
    (tmp_path / "run").mkdir()
    (tmp_path / "precious").write_text("mine")
    planted = tmp_path / "run" / name
    planted.symlink_to(tmp_path / "precious")
    store = CheckpointStore(tmp_path / "run")
    with store.owned():
        store.save({"n": 1})
    assert (tmp_path / "precious").read_text() == "mine"
    assert CheckpointStore(tmp_path / "run").load() == {"n": 1}
    planted.unlink(missing_ok=True)
    os.mkfifo(planted)
    with (
        pytest.raises(CheckpointError, match=r"is not a regular file|expected a file"),
        store.owned(),
    ):
        store.load()
