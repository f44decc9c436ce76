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

SOURCE = (
    "results repository of mteb, 2026-11 (NeoMME's, and colSmol-500M's v3: the authors of NeoMME; SigLIP's: those of "
    "ColPali, 2024-06)"
)
NON_COMMERCIAL = "CC-BY-NC-4.0 (its base model: Qwen Research): not for commercial use"
GEMMA = "MIT (its base model PaliGemma: Gemma terms of use)"
QWEN_RESEARCH = "MIT (its base model: Qwen Research, not for commercial use)"
MIT_APACHE = "MIT (its base model: Apache-2.0)"
PAGE = "see its page"
INSTEAD = "google/siglip2-so400m-patch16-512 or jinaai/jina-embeddings-v4"
JINA_CLIP = (
    "its towers, EVA02 and a changed XLM-RoBERTa, are built by code in a second repository of the hub, which is never "
    f"run; use {INSTEAD}"
)
OPEN_CLIP = (
    "it is in the layout of open_clip, which names its towers and leaves it to the package timm and to a second model "
    f"of the hub to say what they are; use {INSTEAD}"
)
_SPARE = 3.0  # GB beside the weights: activations of a batch, the program itself


class Model(NamedTuple):
    """A row. family: of `retriever.encoders.families`; gigabytes: of the published weights, 0 unknown; dim: of token
    vectors, single: of single vectors, 0 where there are none; tokens: a page, by default; scores: v1, v2, v3, None
    unknown; refused: why it cannot be loaded."""

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
    refused: str = ""


# A table, two lines a row:
# fmt: off
MODELS = (
    Model("octavo-box-1", "box", "0.06 B", 0.05, 128, 0, "by words",
          "MIT, Apache-2.0 (in the package)"),
    Model("jinaai/jina-embeddings-v4", "jina-embeddings-v4", "3.9 B", 7.5, 128, 2048, "up to 779",
          NON_COMMERCIAL, (90.35, 58.23, 56.99), "4a58ca57710c49f51896e4bc820e202fbf64904b"),
    Model("vultr/VultronRetrieverPrime-Qwen3.5-8B", "colqwen3.5", "8.4 B", 16.8, 320, 0, "by its size",
          "Apache-2.0", (92.08, 68.18, 64.72), "209b8d883c53b1e1d0ef7a8582885d4e5a1e05ba"),
    Model("vultr/VultronRetrieverCore-Qwen3.5-4.5B", "colqwen3.5", "4.5 B", 9.1, 320, 0, "by its size",
          "Apache-2.0", (92.21, 66.12, 63.72), "461c7bc02d596932c76c12164596732dad9cf4f2"),
    Model("vultr/VultronRetrieverFlash-Qwen3.5-0.8B", "colqwen3.5", "0.85 B", 1.7, 320, 0, "by its size",
          "Apache-2.0", (88.15, 60.36, 56.49), "a2bcbcda0472dff9863380621bcff09b3d0261ac"),
    Model("athrael-soju/colqwen3.5-4.5B-v3", "colqwen3.5", "4.5 B", 9.1, 320, 0, "by its size",
          "Apache-2.0", (91.54, 64.25, 61.56), "4ad8f151e39bce3adcf88e0bdd72e724c7606638"),
    Model("vidore/colqwen2.5-v0.2", "colqwen2.5", "3.8 B", 7.5, 128, 0, "up to 779",
          QWEN_RESEARCH, (89.54, 60.06, 52.44), "6f6fcdfd1a114dfe365f529701b33d66b9349014"),
    Model("vidore/colqwen2-v1.0-hf", "colqwen2-hf", "2.2 B", 4.4, 128, 0, "up to 779",
          MIT_APACHE, (89.23, 56.04, 44.18), "0d3e414967fde994dd99a0ccc29bcb34b5355712"),
    Model("vidore/colqwen2-v1.0", "colqwen2", "2.2 B", 4.4, 128, 0, "up to 779",
          MIT_APACHE, (89.23, 56.04, 44.18), "530094e83a40ca4edcb5c9e5ddfa61a4b5ea0d2f"),
    Model("vidore/colpali-v1.3-hf", "colpali-hf", "2.9 B", 5.9, 128, 0, "1030",
          GEMMA, (84.75, 54.72, 42.95), "7d3c8ab1c1908b32d701308fb1dfb2968d150c67"),
    Model("vidore/colpali-v1.2-hf", "colpali-hf", "2.9 B", 5.9, 128, 0, "1030",
          GEMMA),
    Model("vidore/colpali-v1.2", "colpali", "2.9 B", 5.9, 128, 0, "1031",
          GEMMA, revision="6b89bc63c16809af4d111bfe412e2ac6bc3c9451"),
    Model("Hcompany/NeoMME-800M-Retriever", "neomme", "0.8 B", 1.6, 128, 1792, "up to 4,200",
          PAGE, (87.4, 55.9, 55.6)),
    Model("Hcompany/NeoMME-260M-Retriever", "neomme", "0.26 B", 0.5, 128, 1024, "up to 4,200",
          PAGE, (86.0, 52.2, 52.3), "0dcb6c924435bd0bf5d504dba9ba2bb63acd8595"),
    Model("vidore/colSmol-500M", "colsmol", "0.5 B", 1.0, 128, 0, "66 a tile",
          MIT_APACHE, (82.49, 42.89, 34.0), "1aa9325cba7ed2b3b9b97ede4d55026322504902"),
    Model("vidore/colSmol-256M", "colsmol", "0.26 B", 0.5, 128, 0, "66 a tile",
          MIT_APACHE, (79.74, 34.82, 20.73), "a59110fdf114638b8018e6c9a018907e12f14855"),
    Model("ModernVBERT/colmodernvbert-merged", "colmodernvbert-hf", "0.25 B", 0.5, 128, 0, "66 a tile",
          "MIT", (80.6, 40.7, 26.12), "a8b921f15ec3c8ba4264d40e1dbd7d77ea1336f0"),
    Model("google/siglip2-so400m-patch16-512", "siglip", "1.1 B", 4.5, 0, 1152, "one",
          "Apache-2.0", revision="ceea1cba8130d8271436da4828633198c176a775"),
    Model("google/siglip2-base-patch16-naflex", "siglip2-naflex", "0.38 B", 1.5, 0, 768, "one",
          "Apache-2.0", revision="b53b807d3a2d5e2b3911292f2d69e5341cdc064c"),
    Model("google/siglip-so400m-patch14-384", "siglip", "0.88 B", 3.5, 0, 1152, "one",
          "Apache-2.0", (51.4, None, None), "9fdffc58afc957d1a03a25b10dba0329ab15c2a3"),
    Model("openai/clip-vit-large-patch14", "clip", "0.43 B", 1.7, 0, 768, "one",
          PAGE, revision="32bd64288804d66eefd0ccbe215aa642df71cc41"),
    Model("jinaai/jina-clip-v2", "", "0.87 B", 1.7, 0, 1024, "one",
          "CC-BY-NC-4.0", refused=JINA_CLIP),
    Model("visheratin/nllb-clip-large-siglip", "", "1.2 B", 0.0, 0, 1152, "one",
          PAGE, refused=OPEN_CLIP),
)
# fmt: on


def pinned(name: str) -> str | None:
    """The revision of a model on the hub that is used where none is asked for, None where none is pinned."""
    return next((model.revision for model in MODELS if model.name == name), None)


def refused(name: str) -> str:
    """Why a model on the hub cannot be loaded, "" where nothing is known against it."""
    return next((model.refused for model in MODELS if model.name == name), "")


def licence(name: str, family: str) -> str:
    """The terms of a model; for one that has no row, those of its family's where they are all alike, else "". (Of CLIP
    and SigLIP, which anyone trains, they say nothing.)"""
    rows = [model.licence for model in MODELS if model.name == name]
    rows = rows or [model.licence for model in MODELS if model.family == family and model.dim]
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
    if model.refused:
        return ""
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
    click.echo("An encoder behind an address too: https://host/pooling (vLLM), https://host/v1/embeddings#model=NAME.")
    for model in MODELS:
        if model.refused:
            click.echo(f"{model.name} cannot be loaded: {model.refused}.")
    click.echo(f"Fits this machine best ({memory:.0f} GB of memory, GPU {gpu:.0f} GB): {chosen.name}")
    return 0


def _row(model: Model, where: str) -> dict[str, Any]:
    row = model._asdict() | dict(zip(("v1", "v2", "v3"), model.scores, strict=True))
    del row["scores"]
    return row | {"runs_on": where}


def _shown(row: dict[str, Any], column: str) -> str:
    if column == "size":
        return row["parameters"] + (f", {row['gigabytes']:g} GB" if row["gigabytes"] else "")
    if column == "vectors":
        sizes = (row["dim"] and f"{row['dim']} a token", row["single"] and f"{row['single']} a page")
        return ", ".join(size for size in sizes if size)
    value = row[{"tokens a page": "tokens", "runs on": "runs_on"}.get(column, column)]
    return "-" if value in (None, "") else str(value)
