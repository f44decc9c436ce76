"""The worker process: started from anywhere, bounded in memory, gone when it should be, honest about its jail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pymupdf
import pytest

from ingest import process
from ingest.document import Limits
from ingest.page import Page
from ingest.render import Renderer

sys.path.insert(0, str(Path(__file__).parent))
import hostile
from rendering import QUICK, linux, made, numbered, opened, outcome, text


@linux
def test_signals_to_the_whole_group_do_not_cost_a_page() -> None:
    with Renderer() as renderer, opened(renderer, numbered(3)) as document:
        assert renderer._worker is not None
        pid = renderer._worker.pid
        for number, name in enumerate((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), 1):
            renderer.prefetch(document, number)
            os.kill(pid, name)
            assert text(renderer.render(document, number)) == f"number {number}"
        assert renderer._worker.pid == pid


@linux
def test_memory_stays_bounded_over_thousands_of_pages() -> None:
    def draw(document: Any) -> None:
        rng = np.random.default_rng(0)
        for number, page in enumerate(document):
            noise = pymupdf.Pixmap(pymupdf.csRGB, 100, 100, rng.integers(0, 256, 30_000, np.uint8).tobytes(), False)
            page.insert_image((0, 0, 400, 400), pixmap=noise)
            page.insert_text((50, 500), f"page {number} of many")

    def peak(renderer: Renderer) -> int:
        assert renderer._worker is not None
        return renderer._worker.rss() + process_rss()

    endless = Limits(worker_pages=10**9, document_seconds=10**6)
    with Renderer(limits=endless) as renderer, opened(renderer, made(draw, 2000)) as document:
        peaks = []
        for number, page in enumerate(renderer.pages(document, dpi=50)):
            assert isinstance(page, Page)
            if number % 20 == 19:
                peaks.append(peak(renderer))
        assert document.pages == 2000
        assert max(peaks) - peaks[0] < 300 * 2**20
        assert len(set(peaks)) > 1


def process_rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@linux
def test_nothing_is_left_open() -> None:
    def held() -> list[str]:
        return sorted(os.listdir("/proc/self/fd"))

    before = held()
    for _ in range(3):
        with Renderer(limits=QUICK) as renderer:
            with opened(renderer, numbered(2)) as document:
                list(renderer.pages(document))
                renderer.close()
                assert text(renderer.render(document, 1)) == "number 1"
            for data in (b"nothing", hostile.billion_laughs()):
                outcome(renderer, data, "pdf")
    assert held() == before
    renderer = Renderer()
    document = opened(renderer, numbered(1))
    worker = renderer._worker
    assert worker is not None
    pid = worker.pid
    del renderer, document, worker  # no close: the process ends with the object all the same
    assert not Path(f"/proc/{pid}").exists()
    assert held() == before


@linux
def test_the_worker_outlives_the_thread_that_started_it() -> None:
    with Renderer() as renderer:
        documents: list[Any] = []
        thread = threading.Thread(target=lambda: documents.append(opened(renderer, numbered(2))))
        thread.start()
        thread.join()
        time.sleep(0.1)
        assert renderer._worker is not None
        assert renderer._worker.alive
        assert text(renderer.render(documents[0], 2)) == "number 2"
        documents[0].close()


SCRIPT = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from ingest.render import Renderer
from ingest.sources import open_source
renderer = Renderer()
document = renderer.open(open_source(sys.argv[2]), "pdf")
"""


@pytest.mark.parametrize("more", ["", "import threading\n"])
def test_from_a_plain_script_anywhere(tmp_path: Path, more: str) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('a file beside the script is not for the worker')")
    (tmp_path / "a.pdf").write_bytes(numbered(1))
    script = tmp_path / "script.py"
    script.write_text(more + SCRIPT + "print(renderer.render(document, 1).words.text)")
    root = str(Path(process.__file__).parent.parent)
    command = [sys.executable, "-P", str(script), root, str(tmp_path / "a.pdf")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("number 1\n", 0), done.stderr


@linux
def test_the_worker_ends_with_its_parent(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(hostile.billion_laughs())
    more = "renderer.prefetch(document, 1); print(renderer._worker.pid, flush=True); time.sleep(60)"
    command = [sys.executable, "-c", SCRIPT + more, str(Path(process.__file__).parent.parent), str(tmp_path / "a.pdf")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        parent.kill()
    end = time.monotonic() + 5
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    assert not alive(pid)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_protects_is_said() -> None:
    with Renderer() as renderer:
        said = renderer.protection
        if sys.platform != "linux":
            assert "not here: landlock and seccomp" in said
        elif renderer.jailed:
            assert said.startswith("rlimits + isolation + landlock (ABI ")
            assert said.endswith("seccomp")
    with Renderer(jail=False) as renderer:
        assert renderer.protection.endswith("not here: landlock and seccomp (switched off)")
        assert not renderer.jailed


def test_a_jail_that_fails_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = "import ingest.jail\ndef refuse(readable): raise OSError('no')\ningest.jail._landlock = refuse\nmain("
    monkeypatch.setattr(process, "_PROGRAM", process._PROGRAM.replace("main(", broken, 1))
    monkeypatch.setattr(
        process, "_PROGRAM", process._PROGRAM.replace("import inherited, " + broken, "import inherited, main(")
    )
    if sys.platform != "linux":
        pytest.skip("no Landlock to fail")
    with Renderer() as renderer:
        with pytest.warns(RuntimeWarning, match=r"not fully jailed: landlock \(no\)"):
            said = renderer.protection
        assert "FAILED: landlock (no)" in said
        assert not renderer.jailed


def test_a_worker_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_PROGRAM", "raise SystemExit(7)")
    with Renderer() as renderer, pytest.raises(process.StartError, match="exit code 7"):
        _ = renderer.protection
