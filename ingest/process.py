"""One worker process: started, asked, killed.

The process is a plain child of this interpreter's executable, not of `multiprocessing`, so it starts the same from a
script without a main guard, a wheel, pytest or a server. It has a fresh, isolated interpreter (`-I`), the same
`sys.path`, almost no environment, no standard streams and one socket. An answer that is late, cut off or not what was
agreed is for the caller to punish with `kill`.

Does not know about documents or pages (`render` does).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

from index.errors import OctavoError

from . import wire

START_SECONDS = 60.0
_ENVIRONMENT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "SYSTEMROOT", "LANG", "LC_ALL")
_PROGRAM = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from ingest.worker import inherited, main
main(inherited(sys.argv[2]))
"""


class StartError(OctavoError):
    """The worker process did not come up."""


class Worker:
    """A running worker. ready: what it said on start; pages: drawn so far; loaded: what document the caller has put
    into it; warm: it has drawn a page of that; started: `time.monotonic()`."""

    def __init__(self, *, backend: str, jail: bool, memory: int, memory_hard: int, max_bytes: int) -> None:
        self.pages = 0
        self.memory = memory
        self.loaded: Any = None
        self.warm = False
        self.started = time.monotonic()
        self._requests = 0
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = _start(theirs)
        self._sock = ours
        self._end = weakref.finalize(self, _end, self._process, ours)
        parent = os.getpid() if threading.current_thread() is threading.main_thread() else None
        hello = {"backend": backend, "jail": jail, "memory": memory, "memory_hard": memory_hard}
        try:
            wire.send(ours, {**hello, "max_bytes": max_bytes, "parent": parent})
            self.ready = self._first_answer()
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._end.alive and self._process.poll() is None

    def ask(self, header: dict[str, Any], *, fd: int | None = None) -> int:
        """Send a request; its number is for `answer`. fd: a file to go with it. Raises OSError where the worker is
        gone."""
        self._requests += 1
        payload: list[bytes] = []
        if fd is not None and not wire.CAN_PASS_FDS:
            from .sources import read_at

            payload, fd = [read_at(fd, os.fstat(fd).st_size, 0)], None
        self._sock.settimeout(START_SECONDS)
        wire.send(self._sock, {"id": self._requests, **header}, payload, fd)
        return self._requests

    def answer(self, request: int, *, deadline: float, max_payload: int = 0) -> tuple[dict[str, Any], bytearray]:
        """The answer to `request`, the oldest one not yet answered. Raises TimeoutError past `deadline`
        (`time.monotonic()`), EOFError where the worker died, `wire.ForgedMessage` for anything not agreed."""
        try:
            header, payload, fd = wire.receive(self._sock, max_payload=max_payload, deadline=deadline)
        except ConnectionResetError as error:
            raise EOFError(str(error)) from None
        if fd is not None:
            os.close(fd)
            raise wire.ForgedMessage("a file descriptor came with the answer")
        if header.get("id") != request or not isinstance(header.get("ok"), bool):
            raise wire.ForgedMessage("the answer is to another request, or neither good nor bad")
        return header, payload

    def rss(self) -> int:
        """Bytes resident now; 0 where the system does not tell."""
        try:
            pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        except (OSError, IndexError):
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def kill(self) -> str:
        """End the process at once, if it has not ended; says how it ended: "killed", "exit code 1", "SIGSEGV"."""
        ended = self._process.poll()
        if ended is None and self._end.alive:
            try:  # the socket may close a moment before the process is gone
                ended = self._process.wait(0.2) if not self._still_open() else None
            except subprocess.TimeoutExpired:
                ended = None
        self._end()
        if ended is None:
            return "killed"
        try:
            return signal.Signals(-ended).name if ended < 0 else f"exit code {ended}"
        except ValueError:
            return f"signal {-ended}"

    def _still_open(self) -> bool:
        self._sock.settimeout(0)
        try:
            return bool(self._sock.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def _first_answer(self) -> dict[str, Any]:
        try:
            header, _ = self.answer(0, deadline=time.monotonic() + START_SECONDS)
        except (EOFError, TimeoutError, wire.ForgedMessage) as error:
            raise StartError(f"the render process did not start ({type(error).__name__}: {self.kill()})") from None
        if not header["ok"]:
            raise StartError(f"the render process did not start: {str(header.get('reason'))[:500]}")
        return header


def _start(theirs: socket.socket) -> subprocess.Popen[bytes]:
    if not sys.executable:
        raise StartError("the render process cannot start: sys.executable is empty in this embedded interpreter")
    root = str(Path(__file__).resolve().parent.parent)
    path = [entry for entry in sys.path if entry]
    path += [] if root in path else [root]
    shared = sys.platform == "win32"
    command = [sys.executable, "-I", "-c", _PROGRAM, json.dumps(path), "share" if shared else str(theirs.fileno())]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if shared else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=() if shared else (theirs.fileno(),),
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            cwd=None if shared else "/",
        )
    except OSError as error:
        raise StartError(f"the render process cannot start: {error}") from error
    if sys.platform == "win32":
        assert process.stdin is not None
        with process.stdin as pipe:
            pipe.write(theirs.share(process.pid))
    return process


def _end(process: subprocess.Popen[bytes], sock: socket.socket) -> None:
    sock.close()
    if process.poll() is None:
        process.kill()
    process.wait()
