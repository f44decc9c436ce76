"""The jail of the worker process: from `enter` on it can compute, read the fonts of the system and use what is open.

Resource limits bound memory, time and files on every Unix. On Linux, Landlock takes away files, TCP and signals to
others, seccomp (see `seccomp`) all system calls but a few, and the capabilities of root are dropped. All of it holds
for the rest of the process's life. Import everything before: the package folders are out of reach afterwards.

On macOS and Windows there is no such thing without privileges, and `Protection` says so. What should work and does not
is in `Protection.failed`: never silent.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import signal
import struct
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from . import seccomp

FONTS = ("/usr/share/fonts",)
WORKER_CPU_SECONDS = 3600

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every machine
_RULE_PATH_BENEATH = 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_FS_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # Landlock ABI -> how many of its file system rights exist
_NET_RIGHTS, _SCOPES = 0b11, 0b11  # bind and connect TCP (ABI 4); abstract sockets and signals (ABI 6)
_CAPABILITY_VERSION = 0x20080522


class Protection(NamedTuple):
    """What holds: active, what was tried and failed, and what this system does not have."""

    active: tuple[str, ...]
    failed: tuple[str, ...]
    absent: tuple[str, ...]


class _AbsentError(Exception):
    """This system does not have it."""


def enter(
    *,
    level: bool = True,
    memory: int = 2**30,
    memory_hard: int = 2**31,
    parent: int | None = None,
    readable: Sequence[str] = FONTS,
) -> Protection:
    """Lock this process in, for good; it must have one thread.

    level: False sets the resource limits only. memory, memory_hard: bytes of address space now, and that
    `allow_memory` may go up to. parent: a process whose end is to be this one's too (Linux). readable: folders that can
    still be read. Raises nothing: what did not work is in the result.
    """
    active: list[str] = []
    failed: list[str] = []
    absent: list[str] = []

    def step(name: str, act: Callable[[], str]) -> None:
        try:
            detail = act()
        except _AbsentError as error:
            absent.append(f"{name} ({error})" if str(error) else name)
        except Exception as error:
            failed.append(f"{name} ({error})")
        else:
            active.append(f"{name} ({detail})" if detail else name)

    step("rlimits", lambda: _limit(memory, memory_hard))
    if not level:
        return Protection(tuple(active), tuple(failed), ("landlock and seccomp (switched off)",))
    if sys.platform == "linux":
        step("isolation", lambda: _isolate(parent))
        step("landlock", lambda: _landlock(readable))
        held = any(name.startswith("landlock") for name in active)
        step("seccomp", lambda: _seccomp(held))
    else:
        absent.append(f"landlock and seccomp ({sys.platform} has none)")
    return Protection(tuple(active), tuple(failed), tuple(absent))


def allow_memory(count: int) -> None:
    """Set the address space to `count` bytes, `memory_hard` at most. Does nothing where the system has no limits."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (count if hard == resource.RLIM_INFINITY else min(count, hard), hard))


def allow_seconds(seconds: float) -> None:
    """End this process (SIGXCPU) when it has computed for `seconds` and a few more from now: for when nobody is left to
    end it from outside."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        soft = math.ceil(used.ru_utime + used.ru_stime + seconds) + 5
        resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _limit(memory: int, memory_hard: int) -> str:
    try:
        import resource
    except ImportError:
        raise _AbsentError(f"{sys.platform} has none") from None
    wanted = {
        "RLIMIT_AS": (memory, memory_hard),
        "RLIMIT_CPU": (WORKER_CPU_SECONDS, WORKER_CPU_SECONDS),
        "RLIMIT_FSIZE": (0, 0),
        "RLIMIT_NOFILE": (64, 64),
        "RLIMIT_CORE": (0, 0),
        "RLIMIT_NPROC": (0, 0),
    }
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    missing = []
    for name, (soft, hard) in wanted.items():
        try:
            most = resource.getrlimit(getattr(resource, name))[1]
            if most != resource.RLIM_INFINITY:
                soft, hard = min(soft, most), min(hard, most)
            resource.setrlimit(getattr(resource, name), (soft, hard))
        except (AttributeError, OSError, ValueError):
            missing.append(name.removeprefix("RLIMIT_"))
    if missing and sys.platform == "linux":
        raise OSError(f"{', '.join(missing)} could not be set")
    return f"without {', '.join(missing)}" if missing else ""


def _isolate(parent: int | None) -> str:
    """No new privileges, no capabilities, no debugger, and an end with the parent."""
    libc = ctypes.CDLL(None, use_errno=True)
    if parent is not None:
        _check(libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
        if os.getppid() != parent:
            os._exit(1)
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _check(libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))
    _check(libc.capset(struct.pack("<Ii", _CAPABILITY_VERSION, 0), bytes(24)))
    return ""


def _landlock(readable: Sequence[str]) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    abi = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if abi < 1:
        raise _AbsentError("the kernel has none, or it is switched off")
    if len(os.listdir("/proc/self/task")) != 1:
        raise OSError("the process has other threads, which it would not hold")
    rights = (1 << _FS_RIGHTS.get(abi, 16)) - 1
    attributes = struct.pack("<QQQ", rights, _NET_RIGHTS if abi >= 4 else 0, _SCOPES if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = _check(libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0))
    try:
        for folder in readable:
            _allow_reading(libc, ruleset, folder)
        _check(libc.syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)
    return f"ABI {abi}"


def _allow_reading(libc: ctypes.CDLL, ruleset: int, folder: str) -> None:
    try:
        place = os.open(folder, os.O_PATH | os.O_CLOEXEC)  # type: ignore[attr-defined,unused-ignore]
    except OSError:
        return  # not there: nothing to read
    try:
        rule = struct.pack("<Qi", _READ_FILE | _READ_DIR, place)
        _check(libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0))
    finally:
        os.close(place)


def _seccomp(landlocked: bool) -> str:
    if seccomp.platform.machine() not in seccomp.MACHINES or sys.maxsize < 2**32:
        raise _AbsentError(f"no filter for {seccomp.platform.machine()}")
    seccomp.install(may_open=landlocked)
    return ""


def _check(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
