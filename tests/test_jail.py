"""The jail holds: a process that enters it and then attacks is refused, one attempt after the other.

Each test starts a child that calls `ingest.jail.enter` as the worker does and then does what a hostile file would have
it do, through Python and through bare system calls. Where the kernel lacks Landlock or seccomp, a visible skip.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ingest import jail, seccomp

linux = pytest.mark.skipif(sys.platform != "linux", reason="the jail is Linux's: Landlock and seccomp")
MACHINE = platform.machine()


def landlock_abi() -> int:
    return ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1) if sys.platform == "linux" else -1


landlocked = pytest.mark.skipif(landlock_abi() < 1, reason="this kernel has no Landlock, or it is switched off")
filtered = pytest.mark.skipif(
    MACHINE not in seccomp.MACHINES or not Path("/proc/sys/kernel/seccomp/actions_avail").exists(),
    reason=f"no seccomp filter for {MACHINE} on this kernel",
)
x86 = pytest.mark.skipif(MACHINE != "x86_64", reason="system call numbers of x86-64")

PREPARE = """
import ctypes, errno, json, mmap, os, socket, struct, sys, time
sys.path.insert(0, sys.argv[1])
from ingest import jail, seccomp
folder, parent = sys.argv[2], os.getppid()
libc = ctypes.CDLL(None, use_errno=True)
results = {}

def attempt(name, act):
    try:
        value = act()
    except (MemoryError, ValueError) as error:
        results[name] = type(error).__name__
    except OSError as error:
        results[name] = errno.errorcode[error.errno]
    else:
        results[name] = f"DONE {value!r}"

def syscall(number, *arguments):
    def act():
        ctypes.set_errno(0)
        result = libc.syscall(number, *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
        if result < 0:
            raise OSError(ctypes.get_errno(), "")
        return result
    return act
"""


def child(folder: Path, program: str, *, expect: int = 0) -> dict[str, str]:
    """Run PREPARE and `program` in a process of its own; what it left in `results`."""
    root = Path(jail.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-I", "-c", PREPARE + textwrap.dedent(program), str(root), str(folder)],
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == expect, done.stderr.decode()
    return json.loads(done.stdout) if done.stdout else {}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("canary")
    return tmp_path


FILES = """
attempt("read /etc/passwd", lambda: open("/etc/passwd").read(1))
attempt("read by bytes", lambda: os.open(b"/etc/hostname", os.O_RDONLY))
attempt("read secret", lambda: open(folder + "/secret").read())
attempt("read memory of parent", lambda: open(f"/proc/{parent}/mem", "rb").read(1))
attempt("read own environment", lambda: open("/proc/self/environ", "rb").read(1))
attempt("list /", lambda: os.listdir("/"))
attempt("write", lambda: os.open(folder + "/new", os.O_WRONLY | os.O_CREAT))
attempt("overwrite", lambda: os.open(folder + "/secret", os.O_WRONLY | os.O_TRUNC))
attempt("write /dev/shm", lambda: os.open("/dev/shm/octavo-test", os.O_RDWR | os.O_CREAT))
attempt("remove", lambda: os.unlink(folder + "/secret"))
attempt("rename", lambda: os.rename(folder + "/secret", folder + "/moved"))
attempt("link", lambda: os.link(folder + "/secret", folder + "/linked"))
attempt("symlink", lambda: os.symlink("secret", folder + "/linked"))
attempt("mkdir", lambda: os.mkdir(folder + "/d"))
attempt("mkfifo", lambda: os.mkfifo(folder + "/f"))
attempt("truncate", lambda: os.truncate(folder + "/secret", 0))
attempt("device", lambda: os.open("/dev/tty", os.O_RDWR))
"""


def check_untouched(folder: Path) -> None:
    assert [path.name for path in folder.iterdir()] == ["secret"]
    assert (folder / "secret").read_text() == "canary"


def denied(results: dict[str, str], *names: str) -> None:
    assert set(results.values()) <= set(names), results


@linux
@landlocked
@filtered
def test_no_files(folder: Path) -> None:
    results = child(folder, "jail.enter()\n" + FILES + "print(json.dumps(results))")
    assert len(results) == 17
    denied(results, "EACCES", "EPERM")
    check_untouched(folder)


@linux
@landlocked
def test_landlock_alone_keeps_from_files(folder: Path) -> None:
    more = 'attempt("kill parent", lambda: os.kill(parent, 0))\nprint(json.dumps(results))'
    results = child(folder, "seccomp.install = lambda may_open: None\njail.enter()\n" + FILES + more)
    if landlock_abi() < 6:
        del results["kill parent"]
    if landlock_abi() < 3:
        pytest.skip("this kernel's Landlock does not know truncation")
    denied(results, "EACCES", "EPERM")
    check_untouched(folder)


@linux
@filtered
def test_seccomp_alone_keeps_from_files(folder: Path) -> None:
    program = """
        def absent(readable):
            raise jail._AbsentError("of old")
        jail._landlock = absent
        protection = jail.enter()
        assert protection.absent == ("landlock (of old)",) and not protection.failed, protection
    """
    results = child(folder, textwrap.dedent(program) + FILES + "print(json.dumps(results))")
    denied(results, "EPERM")
    check_untouched(folder)


@linux
@landlocked
@filtered
def test_no_network_no_processes_no_signals(folder: Path) -> None:
    program = """
        import fcntl, resource
        server = socket.socket()
        server.bind(("127.0.0.1", 0))
        server.listen()
        idle = socket.socket()
        mine, other = socket.socketpair()
        jail.enter()
        attempt("socket inet", lambda: socket.socket())
        attempt("socket inet6", lambda: socket.socket(socket.AF_INET6))
        attempt("socket udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        attempt("socket unix", lambda: socket.socket(socket.AF_UNIX))
        attempt("socket netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
        attempt("socketpair", lambda: socket.socketpair())
        attempt("connect", lambda: idle.connect(server.getsockname()))
        attempt("bind", lambda: idle.bind(("127.0.0.1", 0)))
        attempt("accept", lambda: server.accept())
        attempt("execve", lambda: os.execve("/bin/true", ["true"], {}))
        attempt("fork", lambda: os.fork())
        attempt("forkpty", lambda: os.forkpty())
        attempt("posix_spawn", lambda: os.posix_spawn("/bin/true", ["true"], {}))
        attempt("kill parent", lambda: os.kill(parent, 0))
        attempt("kill all", lambda: os.kill(-1, 0))
        attempt("kill itself", lambda: os.kill(os.getpid(), 0))
        attempt("killpg", lambda: os.killpg(0, 0))
        attempt("pidfd", lambda: os.pidfd_open(parent))
        attempt("memfd", lambda: os.memfd_create("x"))
        attempt("executable memory", lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC))
        attempt("setuid", lambda: os.setuid(0))
        attempt("chroot", lambda: os.chroot("/"))
        attempt("nice", lambda: os.nice(-1))
        attempt("affinity", lambda: os.sched_setaffinity(0, {0}))
        attempt("limits of parent", lambda: resource.prlimit(parent, 7))
        attempt("signal by a descriptor", lambda: fcntl.fcntl(mine, 8, parent))
        print(json.dumps(results))
    """
    results = child(folder, program)
    assert len(results) == 26
    assert results.pop("pidfd") == "ENOSYS"  # a newer call: glibc must think that the kernel does not know it
    denied(results, "EACCES", "EPERM")


@linux
@landlocked
@filtered
@x86
def test_no_bare_system_calls(folder: Path) -> None:
    calls = {
        "open": (2, b"/etc/passwd", 0),
        "creat": (85, f"{folder}/new".encode(), 0o600),
        "vfork": (58,),
        "clone": (56, 17, 0, 0, 0, 0),
        "clone a thread": (56, 0x3D0F00, 0, 0, 0, 0),
        "execveat": (322, 0, b"/bin/true", None, None, 0),
        "ptrace the parent": (101, 16, "parent", 0, 0),
        "process_vm_readv": (310, "parent", 0, 0, 0, 0, 0),
        "process_vm_writev": (311, "parent", 0, 0, 0, 0, 0),
        "tkill": (200, "parent", 0),
        "tgkill": (234, "parent", "parent", 0),
        "rt_sigqueueinfo": (129, "parent", 0, 0),
        "mount": (165, 0, 0, 0, 0, 0),
        "umount2": (166, b"/", 0),
        "unshare": (272, 0x10000000),
        "setns": (308, 0, 0),
        "bpf": (321, 0, 0, 0),
        "perf_event_open": (298, 0, 0, -1, -1, 0),
        "keyctl": (250, 0, 0, 0, 0, 0),
        "userfaultfd": (323, 0),
        "inotify_init": (253,),
        "name_to_handle_at": (303, 0, 0, 0, 0, 0),
        "open_by_handle_at": (304, 0, 0, 0),
        "kexec_load": (246, 0, 0, 0, 0),
        "init_module": (175, 0, 0, 0),
        "setrlimit of the parent": (302, "parent", 7, 0, 0),
        "prctl": (157, 4, 1, 0, 0, 0),
        "seccomp again": (317, 1, 0, 0),
        "chmod": (90, f"{folder}/secret".encode(), 0),
        "utime": (132, f"{folder}/secret".encode(), 0),
        "stat": (4, f"{folder}/secret".encode(), bytes(200)),
        "access": (21, f"{folder}/secret".encode(), 0),
        "shmget": (29, 1234, 4096, 0o1600),
        "msgget": (68, 1234, 0o1600),
        "semget": (64, 1234, 1, 0o1600),
        "timer_create": (222, 0, 0, 0),
        "personality": (135, 0x40000),
        "ioctl TIOCSTI": (16, 0, 0x5412, b"x"),
        "mprotect": (10, 0, 4096, 4),
        "shmat": (30, 0, 0, 0),
    }
    new = {
        "clone3": 435,
        "io_uring_setup": 425,
        "pidfd_getfd": 438,
        "process_madvise": 440,
        "landlock": 444,
        "x32": 1 << 30,
    }
    lines = "\n".join(
        f"attempt({name!r}, syscall({', '.join(a if a == 'parent' else repr(a) for a in call)}))"
        for name, call in {**calls, **{name: (number, 0, 0, 0, 0) for name, number in new.items()}}.items()
    )
    results = child(folder, f"jail.enter()\n{lines}\nprint(json.dumps(results))")
    assert len(results) == len(calls) + len(new)
    assert {name: results.pop(name) for name in new} == dict.fromkeys(new, "ENOSYS")
    denied(results, "EPERM")
    check_untouched(folder)


@linux
@filtered
@x86
def test_the_32_bit_door_is_death(folder: Path) -> None:
    program = """
        code = b"\\xb8\\x14\\0\\0\\0\\xcd\\x80\\xc3"  # mov eax, 20 (getpid of i386); int 0x80; ret
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(code)
        call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
        jail.enter()
        call()
        print('{"alive": "yes"}')
    """
    assert child(folder, program, expect=-signal.SIGSYS) == {}


@linux
def test_memory_descriptors_and_limits(folder: Path) -> None:
    program = """
        import resource
        null = os.open("/dev/null", os.O_RDONLY)
        protection = jail.enter(memory=2**28, memory_hard=2**29)
        assert protection.active[0] == "rlimits", protection
        attempt("400 MB", lambda: bytearray(4 * 10**8))
        attempt("100 MB", lambda: len(bytearray(10**8)))
        jail.allow_memory(2**31)
        attempt("400 MB with leave", lambda: len(bytearray(4 * 10**8)))
        attempt("4 GB", lambda: bytearray(4 * 10**9))
        attempt("map 4 GB", lambda: mmap.mmap(-1, 4 * 10**9))
        attempt("more memory", lambda: resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40)))
        attempt("flood", lambda: [os.dup(null) for _ in range(100)])
        print(json.dumps({**results, "core": str(resource.getrlimit(resource.RLIMIT_CORE))}))
    """
    results = child(folder, program)
    assert results["400 MB"] == results["4 GB"] == "MemoryError"
    assert (results["100 MB"], results["400 MB with leave"]) == ("DONE 100000000", "DONE 400000000")
    assert results["map 4 GB"] == "ENOMEM"
    assert results["flood"] == "EMFILE"
    assert results["more memory"] == "ValueError"
    assert results["core"] == "(0, 0)"


@linux
def test_a_file_cannot_grow_even_where_it_was_open(folder: Path) -> None:
    program = """
        held = os.open(folder + "/secret", os.O_RDWR | os.O_APPEND)
        jail.enter(level=False)
        attempt("append", lambda: os.write(held, b"more"))
        print(json.dumps(results))
    """
    assert child(folder, program) == {"append": "EFBIG"}
    check_untouched(folder)


@linux
def test_computing_without_end_is_ended(folder: Path) -> None:
    program = """
        jail.enter()
        jail.allow_seconds(-4.0)  # 5 more are given: a second from here
        while True:
            pass
    """
    assert child(folder, program, expect=-signal.SIGXCPU) == {}


@linux
@landlocked
@filtered
def test_what_a_renderer_needs_still_works(folder: Path) -> None:
    program = """
        mine, other = socket.socketpair()
        held = os.open(folder + "/secret", os.O_RDONLY)
        jail.enter(readable=[folder])
        attempt("held file", lambda: os.pread(held, 100, 0))
        attempt("readable folder", lambda: (os.listdir(folder), open(folder + "/secret").read()))
        attempt("time", lambda: time.sleep(0.001))
        attempt("random", lambda: len(os.urandom(4)))
        attempt("socket", lambda: (other.send(b"abc"), mine.settimeout(1), mine.recv(3)))
        attempt("write there", lambda: os.open(folder + "/secret", os.O_WRONLY))
        print(json.dumps(results))
    """
    assert child(folder, program) == {
        "held file": "DONE b'canary'",
        "readable folder": "DONE (['secret'], 'canary')",
        "time": "DONE None",
        "random": "DONE 4",
        "socket": "DONE (3, None, b'abc')",
        "write there": "EACCES",
    }


@linux
@landlocked
@filtered
def test_what_is_active_is_said(folder: Path) -> None:
    results = child(folder, "print(json.dumps(jail.enter(parent=parent)._asdict()))")
    assert results["active"] == ["rlimits", "isolation", f"landlock (ABI {landlock_abi()})", "seccomp"]
    assert results["failed"] == results["absent"] == []


@linux
@landlocked
def test_what_fails_is_said(folder: Path) -> None:
    program = """
        import threading
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        def refuse(may_open):
            raise OSError(22, "Invalid argument")
        seccomp.install = refuse
        sys.stdout.write(json.dumps(jail.enter()._asdict()))
        sys.stdout.flush()
        os._exit(0)
    """
    results = child(folder, program)
    assert results["active"] == ["rlimits", "isolation"]
    assert results["failed"] == [
        "landlock (the process has other threads, which it would not hold)",
        "seccomp ([Errno 22] Invalid argument)",
    ]


@linux
def test_root_keeps_no_capabilities(folder: Path) -> None:
    program = """
        status = open("/proc/self/status")
        jail.enter()
        status.seek(0)
        lines = dict(line.split(":", 1) for line in status.read().splitlines())
        wanted = ("CapEff", "CapPrm", "CapInh", "NoNewPrivs", "Seccomp")
        print(json.dumps({name: lines[name].strip() for name in wanted}))
    """
    results = child(folder, program)
    assert results["CapEff"] == results["CapPrm"] == results["CapInh"] == "0" * 16
    assert results["NoNewPrivs"] == "1"
    if MACHINE in seccomp.MACHINES:
        assert results["Seccomp"] == "2"


def test_without_level_only_limits(folder: Path) -> None:
    program = """
        results = jail.enter(level=False)._asdict()
        attempt = open(folder + "/secret").read()
        print(json.dumps(results))
    """
    results = child(folder, program)
    assert results["absent"] == ["landlock and seccomp (switched off)"]
    if os.name == "posix":
        assert [name.split()[0] for name in results["active"]] == ["rlimits"]


def test_the_filter_is_well_formed_for_each_machine() -> None:
    """Every jump lands inside, every path ends in a return; each machine has the calls without which nothing runs."""
    for machine in seccomp.MACHINES:
        for may_open in (False, True):
            program = seccomp._program(machine, 1234, may_open)
            for place, (code, true, false, _) in enumerate(program):
                if code in (0x15, 0x45, 0x35):
                    assert place + 1 + max(true, false) < len(program)
            assert program[-1] == (0x06, 0, 0, 0x00050001)
            assert len(program) < 4096
        numbers = [number[seccomp.MACHINES[machine][1]] for number in seccomp._CALLS.values()]
        known = [number for number in numbers if number is not None]
        assert len(known) == len(set(known)) >= 45
