"""The models that Octavo can use, in one table: `octavo models`, pinned revisions, licences.

Scores are as published, not ours: nDCG@5 on ViDoRe v1 and v2, nDCG@10 on the public tasks of v3, in percent, from the
source named below. Revisions are those under which the source measured them. Imports nothing heavy.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any, NamedTuple

import click

from retriever import terminal as term

SOURCE = "results repository of mteb, 2026-11 (NeoMME's, and colSmol-500M's v3: the authors of NeoMME)"
NON_COMMERCIAL = "CC-BY-NC-4.0 (its base model: Qwen Research): not for commercial use"
GEMMA = "MIT (its base model PaliGemma: Gemma terms of use)"
PAGE = "see its page"
_SPARE = 3.0  # GB beside the weights: activations of a batch, the program itself


class Model(NamedTuple):
    """A row. family: of `retriever.encoders.families`; gigabytes: of the published weights; dim: of token vectors,
    single: of single vectors, 0 where there are none; tokens: a page, by default; scores: v1, v2, v3, None unknown."""

    name: str
    family: str
    parameters: str
    gigabytes: float
    dim: int
    single: int
    tokens: str
    licence: str
    scores: tuple[float | None, float | None, float | None] = (None, None, None)
    revision: str | None = None


MODELS = (
    Model("octavo-box-1", "box", "0.06 B", 0.05, 128, 0, "by words", "MIT, Apache-2.0 (in the package)"),
    Model(
        "jinaai/jina-embeddings-v4",
        "jina-embeddings-v4",
        "3.9 B",
        7.5,
        128,
        2048,
        "up to 779",
        NON_COMMERCIAL,
        (90.35, 58.23, 56.99),
        "4a58ca57710c49f51896e4bc820e202fbf64904b",
    ),
    Model(
        "vidore/colqwen2.5-v0.2",
        "colqwen2.5",
        "3.8 B",
        7.5,
        128,
        0,
        "up to 779",
        "MIT (its base model: Qwen Research, not for commercial use)",
        (89.54, 60.06, 52.44),
        "6f6fcdfd1a114dfe365f529701b33d66b9349014",
    ),
    Model(
        "vidore/colqwen2-v1.0-hf",
        "colqwen2-hf",
        "2.2 B",
        4.4,
        128,
        0,
        "up to 779",
        "MIT (its base model: Apache-2.0)",
        (89.23, 56.04, 44.18),
    ),
    Model(
        "vidore/colqwen2-v1.0",
        "colqwen2",
        "2.2 B",
        4.4,
        128,
        0,
        "up to 779",
        "MIT (its base model: Apache-2.0)",
        (89.23, 56.04, 44.18),
        "530094e83a40ca4edcb5c9e5ddfa61a4b5ea0d2f",
    ),
    Model("vidore/colpali-v1.3-hf", "colpali-hf", "2.9 B", 5.9, 128, 0, "1030", GEMMA, (84.75, 54.72, 42.95)),
    Model("vidore/colpali-v1.2-hf", "colpali-hf", "2.9 B", 5.9, 128, 0, "1030", GEMMA),
    Model(
        "vidore/colpali-v1.2",
        "colpali",
        "2.9 B",
        5.9,
        128,
        0,
        "1031",
        GEMMA,
        revision="6b89bc63c16809af4d111bfe412e2ac6bc3c9451",
    ),
    Model(
        "Hcompany/NeoMME-800M-Retriever",
        "neomme",
        "0.8 B",
        1.6,
        128,
        1792,
        "up to 4,200",
        PAGE,
        (87.4, 55.9, 55.6),
    ),
    Model(
        "Hcompany/NeoMME-260M-Retriever",
        "neomme",
        "0.26 B",
        0.5,
        128,
        1024,
        "up to 4,200",
        PAGE,
        (86.0, 52.2, 52.3),
    ),
    Model(
        "vidore/colSmol-500M",
        "colsmol",
        "0.5 B",
        1.0,
        128,
        0,
        "66 a tile",
        "MIT (its base model: Apache-2.0)",
        (82.49, 42.89, 34.0),
        "1aa9325cba7ed2b3b9b97ede4d55026322504902",
    ),
    Model(
        "vidore/colSmol-256M",
        "colsmol",
        "0.26 B",
        0.5,
        128,
        0,
        "66 a tile",
        "MIT (its base model: Apache-2.0)",
        (79.74, 34.82, 20.73),
        "a59110fdf114638b8018e6c9a018907e12f14855",
    ),
    Model(
        "ModernVBERT/colmodernvbert-merged",
        "colmodernvbert-hf",
        "0.25 B",
        0.5,
        128,
        0,
        "66 a tile",
        "MIT",
        (80.6, 40.7, 26.12),
    ),
)


def pinned(name: str) -> str | None:
    """The revision of a model on the hub that is used where none is asked for, None where none is pinned."""
    return next((model.revision for model in MODELS if model.name == name), None)


def licence(name: str, family: str) -> str:
    """The terms of a model; for one that has no row, those of its family's where they are all alike, else ""."""
    rows = [model.licence for model in MODELS if model.name == name]
    rows = rows or [model.licence for model in MODELS if model.family == family]
    return rows[0] if len(set(rows)) == 1 and rows[0] != PAGE else ""


def room() -> tuple[float, float]:
    """GB of memory of this machine, and of its largest GPU (0 where there is none that nvidia-smi knows)."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9 if hasattr(os, "sysconf") else 0.0
    if not shutil.which("nvidia-smi"):
        return memory, 0.0
    asked = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    told = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=False).stdout.split()
    return memory, max((int(mib) * 2**20 / 1e9 for mib in told if mib.isdecimal()), default=0.0)


def fits(model: Model, memory: float, gpu: float) -> str:
    """Where a model runs here: `GPU`, `CPU` (a float32 copy of every weight is needed), or "" where it does not."""
    if model.family == "box":
        return "CPU"
    if model.gigabytes + _SPARE <= gpu:
        return "GPU"
    return "CPU" if 2 * model.gigabytes + _SPARE <= memory else ""


def best(memory: float, gpu: float) -> Model:
    """The one that fits this machine: of those that run on its GPU the one that scored best, else that in the package
    (on a CPU the others take seconds to minutes a page)."""
    on_gpu = [model for model in MODELS if fits(model, memory, gpu) == "GPU" and model.scores[2] is not None]
    return max(on_gpu, key=lambda model: model.scores[2] or 0.0, default=MODELS[0])


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def models(as_json: bool) -> int:
    """List the models that can be used, and which one fits this machine."""
    memory, gpu = room()
    rows = [_row(model, fits(model, memory, gpu)) for model in MODELS]
    chosen = best(memory, gpu)
    if as_json:
        term.emit({"models": rows, "source": SOURCE, "memory_gb": memory, "gpu_gb": gpu, "fits_best": chosen.name})
        return 0
    columns = ("name", "size", "vectors", "tokens a page", "v1", "v2", "v3", "runs on", "licence")
    term.show_table(columns, [[_shown(row, column) for column in columns] for row in rows])
    click.echo(f"Scores: ViDoRe v1, v2 (nDCG@5), v3 (nDCG@10); {SOURCE}. Other models of these families load too.")
    click.echo(f"Fits this machine best ({memory:.0f} GB of memory, GPU {gpu:.0f} GB): {chosen.name}")
    return 0


def _row(model: Model, where: str) -> dict[str, Any]:
    row = model._asdict() | dict(zip(("v1", "v2", "v3"), model.scores, strict=True))
    del row["scores"]
    return row | {"runs_on": where}


def _shown(row: dict[str, Any], column: str) -> str:
    if column == "size":
        return f"{row['parameters']}, {row['gigabytes']:g} GB"
    if column == "vectors":
        return f"{row['dim']} a token" + (f", {row['single']}" if row["single"] else "")
    value = row[{"tokens a page": "tokens", "runs on": "runs_on"}.get(column, column)]
    return "-" if value in (None, "") else str(value)
