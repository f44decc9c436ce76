"""What the machine is, what it can do at most, and what a process took: shared by the benchmarks.

`limits` runs a small program that does nothing but multiply-adds, byte products or byte permutations on registers, or
reads memory; `sgemm` is the matrix product that the kernels are compared with. Needs nothing but the standard library
and, for `sgemm`, torch, as peers run in environments of their own.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMITS = r"""
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
static double now() { timespec t; clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); return t.tv_sec + 1e-9 * t.tv_nsec; }
#define R(i, s, n) i " %%" s "30,%%" s "31,%%" s #n "\n\t"
#define L(i, s, n) i " %%" s "14,%%" s "15,%%" s #n "\n\t"
#define RATE(name, per, all, ...) { double best = 0; for (int k = 0; k < 5; k++) { double t = now(); \
    for (long i = 0; i < 2000000; i++) asm volatile(all ::: __VA_ARGS__); \
    t = 12 * 2e6 * per / (now() - t) / 1e9; best = t > best ? t : best; } printf("%s %.1f\n", name, best); }
#define WIDE(i) R(i, "zmm", 0) R(i, "zmm", 1) R(i, "zmm", 2) R(i, "zmm", 3) R(i, "zmm", 4) R(i, "zmm", 5) \
    R(i, "zmm", 6) R(i, "zmm", 7) R(i, "zmm", 8) R(i, "zmm", 9) R(i, "zmm", 10) R(i, "zmm", 11)
#define HALF(i) L(i, "ymm", 0) L(i, "ymm", 1) L(i, "ymm", 2) L(i, "ymm", 3) L(i, "ymm", 4) L(i, "ymm", 5) \
    L(i, "ymm", 6) L(i, "ymm", 7) L(i, "ymm", 8) L(i, "ymm", 9) L(i, "ymm", 10) L(i, "ymm", 11)
#define USED "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11"
int main() {
#ifdef __FMA__
    RATE("fma_avx2", 16, HALF("vfmadd231ps"), USED)
#endif
#ifdef __AVX512VNNI__
    RATE("fma_avx512", 32, WIDE("vfmadd231ps"), USED)
    RATE("bytes_avx512", 128, WIDE("vpdpbusd"), USED)
#endif
#ifdef __AVX512VBMI__
    RATE("lookups_avx512", 64, WIDE("vpermb"), USED)
#endif
    const size_t size = 512u << 20;
    char *memory = static_cast<char *>(aligned_alloc(64, size));
    memset(memory, 1, size);
    double best = 0;
    for (int k = 0; k < 5; k++) {
        double t = now();
        long sum[8] = {};
        for (size_t i = 0; i < size; i += 64) {
            __builtin_prefetch(memory + i + 4096);
            const long *line = reinterpret_cast<const long *>(memory + i);
            for (int j = 0; j < 8; j++) sum[j] |= line[j];
        }
        asm volatile("" ::"m"(sum));
        t = size / (now() - t) / 1e9;
        best = t > best ? t : best;
    }
    printf("memory %.1f\n", best);
}
"""


def environment(*packages: str) -> dict[str, Any]:
    """The machine and how busy it is, the commit, and the versions that were measured."""
    commit = subprocess.run(["git", "-C", Path(__file__).parent, "rev-parse", "HEAD"], capture_output=True, text=True)
    return {
        "machine": {
            "processor": _line("/proc/cpuinfo", "model name"),
            "cores": os.cpu_count(),
            "load": os.getloadavg(),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "commit": commit.stdout.strip(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def peak_memory() -> float:
    """MB that this process has had in memory at most, mapped files included."""
    return int(_line("/proc/self/status", "VmHWM").split()[0]) / 1024


def limits() -> dict[str, float]:
    """Gflop/s, G byte-operations/s, G look-ups/s, GB/s of one core; empty without a compiler for this processor."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "limits.cpp"), Path(folder, "limits")
        source.write_text(LIMITS)
        made = subprocess.run([compiler, "-O3", "-march=native", "-w", source, "-o", program], capture_output=True)
        if made.returncode:
            return {}
        lines = subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()
    return {name: float(rate) for name, rate in (line.split() for line in lines)}


def sgemm() -> tuple[Callable[[], object], float]:
    """A matrix product of torch in float32, and its flops."""
    import torch

    left, right = torch.rand(1536, 1536), torch.rand(1536, 1536)
    return lambda: left @ right, 2 * 1536**3


def _line(path: str, name: str) -> str:
    """What a file of `name: value` lines says."""
    lines = Path(path).read_text().splitlines()
    return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(name))
