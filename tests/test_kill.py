"""kill -9 at every named point, at random times and three times in a row: what was acknowledged is there, once.

The state after a kill has to be the one after the last acknowledged step or the one after the step in flight, whole.
`steps` has the steps; children are forked from a server that has imported everything, so that a kill takes little time.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pages import dump, text_search
from steps import STEPS, work

import index
from index import Index, upkeep
from index.store import shard_files

POINTS = sorted(
    {
        name
        for path in Path(index.__file__).parent.glob("*.py")
        for name in re.findall(r"\bfailpoint\(\"([^\"]+)\"\)", path.read_text())
    }
)
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["faiss", "pages", "scipy.cluster.hierarchy", "steps"])


def state(folder: Path) -> Any:
    """Everything that can be told apart, None where there is no index yet. Whatever was killed, `check` is content."""
    if not (folder / "catalog.sqlite3").exists():
        return None
    opened = Index(folder)
    try:
        assert upkeep.check(opened) == []
        return dump(opened)
    finally:
        opened.close()


def run(folder: Path, start: int, armed: dict[str, int], seconds: float | None = None) -> tuple[int, int]:
    """Start at a step, die somewhere: the first step that was not acknowledged, and the exit code."""
    ours, theirs = SERVER.Pipe(duplex=False)
    child = SERVER.Process(target=work, args=(folder, start, armed, theirs))
    child.start()
    theirs.close()
    if seconds is not None:
        time.sleep(seconds)
        child.kill()
    child.join(60)
    done = start
    try:
        while ours.poll():
            done = ours.recv() + 1
    except EOFError:
        pass
    ours.close()
    assert child.exitcode is not None
    code = child.exitcode
    child.close()
    return done, code


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The state before each step, and after the last."""
    folder = tmp_path_factory.mktemp("whole") / "index"
    found = [state(folder)]
    for step in STEPS:
        step(folder)
        found.append(state(folder))
    return found


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What the text lane says at the end of an uninterrupted life."""
    folder = tmp_path_factory.mktemp("words") / "index"
    for step in STEPS:
        step(folder)
    opened = Index(folder)
    hits = text_search(opened, "harbour stone title d e")
    opened.close()
    assert hits
    return hits


def resume(folder: Path, states: list[Any], done: int) -> int:
    """Where to go on after a kill; what was acknowledged before `done` has to be there, and nothing by halves."""
    found = state(folder)
    assert found in (states[done], states[min(done + 1, len(STEPS))]), f"after step {done}"
    if found is not None:
        places = [(page["content"], page["page"]) for page in found]
        assert len(places) == len(set(places))
    return done if found == states[done] else done + 1


def finish(folder: Path, states: list[Any], start: int, words: list[Any]) -> None:
    """Live on to the end, which is that of an uninterrupted life, with nothing left lying about."""
    assert run(folder, start, {}) == (len(STEPS), 0)
    assert state(folder) == states[-1]
    opened = Index(folder)
    assert text_search(opened, "harbour stone title d e") == words
    with opened.writing() as writer:
        assert {shard for shard, _ in shard_files(folder)} == set(writer.shards.ends)
    opened.close()
    assert [path.name for path in folder.rglob("*") if path.suffix == ".tmp" or path.name == "creating"] == []


def test_the_points_are_all_known() -> None:
    assert {
        "blocks written",
        "blocks synced",
        "pages in transaction",
        "pages committed",
        "finish in transaction",
    } < set(POINTS)
    assert len(POINTS) >= 16


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_point(tmp_path: Path, states: list[Any], words: list[Any], point: str) -> None:
    kills = 0
    for passage in (1, 2, 3):
        folder = tmp_path / str(passage)
        done, code = run(folder, 0, {point: passage})
        if code == 0:  # it is not passed as often
            break
        assert code == -signal.SIGKILL
        kills += 1
        finish(folder, states, resume(folder, states, done), words)
    assert kills


def test_killed_three_times_in_a_row(tmp_path: Path, states: list[Any], words: list[Any]) -> None:
    rng = random.Random(3)
    kills = 0
    for number in range(8):
        folder, at = tmp_path / str(number), 0
        for _ in range(3):
            done, code = run(folder, at, {rng.choice(POINTS): rng.randint(1, 2) for _ in range(4)})
            kills += code != 0
            at = resume(folder, states, done)
        finish(folder, states, at, words)
    assert kills >= 18


def test_killed_at_any_time(tmp_path: Path, states: list[Any], words: list[Any]) -> None:
    rng = random.Random(5)
    kills = 0
    for number in range(6):
        folder, at = tmp_path / str(number), 0
        for _ in range(4):
            done, code = run(folder, at, {}, seconds=rng.uniform(0.01, 0.15))
            kills += code != 0
            at = resume(folder, states, done)
        finish(folder, states, at, words)
    assert kills >= 6  # of 24; the faster the machine, the more lives end by themselves


def test_the_environment_arms_a_point(tmp_path: Path) -> None:
    tests = Path(__file__).parent
    code = (
        "import sys; from pathlib import Path; from steps import work\n"
        "class Out:\n    def send(self, n): print(n, flush=True)\n"
        f"work(Path({str(tmp_path / 'index')!r}), 0, {{}}, Out())"
    )
    paths = os.pathsep.join([str(tests), str(tests.parent)])
    environment = os.environ | {"OCTAVO_FAILPOINT": "finished:2", "PYTHONPATH": paths}
    child = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert (child.returncode, child.stdout.split()) == (-signal.SIGKILL, ["0", "1", "2"]), child.stderr
