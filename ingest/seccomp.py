"""A seccomp filter for a process that only computes: a short list of system calls, everything else refused.

The list is what Python, MuPDF, PDFium and Pillow need once they are loaded: memory, the descriptors that are open
already, time, the process's own signals. It holds no socket, connect, execve, fork, ptrace or kill, nor any call that
makes or changes a file by its path. A refusal is an error number, not a kill, so that a library which only tries goes
on.

Linux on x86-64 and aarch64; numbers from the kernel's tables, filter as in Documentation/userspace-api/seccomp_filter.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import struct
from collections.abc import Callable

MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # AUDIT_ARCH_*, column of `_CALLS`

_CALLS: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fstat": (5, 80),
    "poll": (7, None),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "ioctl": (16, 29),
    "pread64": (17, 67),
    "readv": (19, 65),
    "writev": (20, 66),
    "select": (23, None),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "dup": (32, 23),
    "nanosleep": (35, 101),
    "getpid": (39, 172),
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "sendmsg": (46, 211),
    "recvmsg": (47, 212),
    "exit": (60, 93),
    "fcntl": (72, 25),
    "gettimeofday": (96, 169),
    "getrusage": (98, 165),
    "sysinfo": (99, 179),
    "getppid": (110, 173),
    "sigaltstack": (131, 132),
    "gettid": (186, 178),
    "futex": (202, 98),
    "sched_getaffinity": (204, 123),
    "getdents64": (217, 61),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "tgkill": (234, 131),
    "openat": (257, 56),
    "newfstatat": (262, 79),
    "pselect6": (270, 72),
    "ppoll": (271, 73),
    "prlimit64": (302, 261),
    "getrandom": (318, 278),
    "membarrier": (324, 283),
    "rseq": (334, 293),
}
_FCNTL = (0, 1, 2, 3, 4, 1030)  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC: not F_SETOWN (signals)
_IOCTL = (0x5421, 0x5450, 0x5451)  # FIONBIO, FIONCLEX, FIOCLEX: not FIOASYNC (signals)
_AT_EMPTY_PATH = 0x1000  # fstat by its newer name
_UNIFIED = 424  # from here the numbers are the same on every machine, and new: glibc falls back where they are unknown

_LOAD, _EQUAL, _SET, _AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NR, _ARCH, _ARGS = 0, 4, 16

_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER, _TSYNC = 1, 1

Instruction = tuple[int, int, int, int]  # code, steps where true, steps where false, constant


def install(*, may_open: bool) -> None:
    """Put the filter on all threads of this process, for good. may_open: allow `openat`, which then something else
    (Landlock) must hold. Needs PR_SET_NO_NEW_PRIVS. Raises OSError."""
    machine = platform.machine()
    if machine not in MACHINES:
        raise OSError(errno.ENOSYS, f"no seccomp filter for {machine}")
    program = b"".join(struct.pack("<HBBI", *line) for line in _program(machine, os.getpid(), may_open))
    held = ctypes.create_string_buffer(program)
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(held))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(_SECCOMP[machine], _SET_MODE_FILTER, _TSYNC, header) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code) if code > 0 else "a thread could not be held")


def _program(machine: str, pid: int, may_open: bool) -> list[Instruction]:
    arch, column = MACHINES[machine]
    lines: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, arch),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NR),
    ]
    checks: dict[str, Callable[[], list[Instruction]]] = {
        "mmap": lambda: _without_bits(2, mmap.PROT_EXEC),
        "mprotect": lambda: _without_bits(2, mmap.PROT_EXEC),
        "ioctl": lambda: _one_of(1, _IOCTL),
        "fcntl": lambda: _one_of(1, _FCNTL),
        "tgkill": lambda: _one_of(0, (pid,)),
        "prlimit64": lambda: _one_of(0, (0,)),
        "newfstatat": lambda: _with_bits(3, _AT_EMPTY_PATH),
    }
    for name, numbers in _CALLS.items():
        number = numbers[column]
        if number is None or (name == "openat" and not may_open):
            continue
        body = checks[name]() if name in checks else [(_RETURN, 0, 0, _ALLOW)]
        lines.append((_EQUAL, 0, len(body), number))
        lines += body
    return [*lines, (_AT_LEAST, 0, 1, _UNIFIED), _refuse(errno.ENOSYS), _refuse(errno.EPERM)]


def _refuse(code: int) -> Instruction:
    return _RETURN, 0, 0, _ERRNO | code


def _argument(index: int) -> Instruction:
    """Load the low half; the kernel reads these arguments as 32 bits too."""
    return _LOAD, 0, 0, _ARGS + 8 * index


def _one_of(index: int, values: tuple[int, ...]) -> list[Instruction]:
    tests = [(_EQUAL, len(values) - place, 0, value) for place, value in enumerate(values)]
    return [_argument(index), *tests, _refuse(errno.EPERM), (_RETURN, 0, 0, _ALLOW)]


def _without_bits(index: int, bits: int) -> list[Instruction]:
    return [_argument(index), (_SET, 0, 1, bits), _refuse(errno.EPERM), (_RETURN, 0, 0, _ALLOW)]


def _with_bits(index: int, bits: int) -> list[Instruction]:
    return [_argument(index), (_SET, 1, 0, bits), _refuse(errno.EPERM), (_RETURN, 0, 0, _ALLOW)]
