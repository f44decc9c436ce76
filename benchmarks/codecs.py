"""What each codec and pool loses on real pages, and what it takes: `python benchmarks/codecs.py piaf_pages`.

Indexes a question set once in fp16 with the encoder in the box (kept; a killed run goes on), recodes copies of that
index as `octavo recode` does, and scores every page for every question with the engine's own kernel. Against fp16:

    score       mean relative error of a score
    noise       standard deviation of the errors that move a page among the others, as a share of that of the scores
    top 10      share of the exact top 10 that is in the codec's first 10, and in its first 30
    ndcg@5      of ranking by MaxSim alone
    bytes       of tokens and scales, a token of the page
    recode      milliseconds a page, pooling included

Before a figure is printed: the recoded index passes `check`, and the kernel's scores are those of the decoded vectors.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
from _machine import environment  # noqa: E402
from _sets import Question, ndcg, pdfs, questions  # noqa: E402

from index import Index, Ragged, upkeep  # noqa: E402
from index.codec import CODECS, decode  # noqa: E402
from index.recode import recode  # noqa: E402
from retriever import Retriever  # noqa: E402
from retriever.encoders.box import BoxEncoder  # noqa: E402
from retriever.rerank import score  # noqa: E402

POOLS = (1, 2, 3, 4)


def names(index: Index) -> list[str]:
    """What the question set calls the pages that have tokens, in the order of their ids."""
    with index.snapshot() as snapshot:
        ids = snapshot.state.ids[snapshot.state.extents.tokens > 0].tolist()
        rows = snapshot.pages(ids)
        return [f"{Path(rows[page]['path']).name}#{rows[page]['number'] - 1}" for page in ids]


def scores(index: Index, queries: list[np.ndarray]) -> tuple[np.ndarray, float]:
    """(b, n) of every page that has tokens, and stored bytes of tokens."""
    with index.snapshot() as snapshot:
        ids = snapshot.state.ids[snapshot.state.extents.tokens > 0]
        found = score(Ragged.of(queries), ids, snapshot)
        sample = ids[:: len(ids) // 7 or 1]
        for page in sample.tolist():
            expected = (queries[0] @ decode(snapshot.gather([page])).T).max(axis=1).sum()
            assert abs(found[0, np.searchsorted(ids, page)] - expected) < 2e-3 * abs(expected), page
        row = snapshot.layout.row_bytes + snapshot.layout.scale_bytes
        return found, float(snapshot.state.extents.tokens.sum() * row)


def losses(exact: np.ndarray, got: np.ndarray, asked: list[Question], pages: list[str]) -> dict[str, float]:
    """The figures of the module's docstring."""
    error = got - exact
    moved = error - error.mean(axis=1, keepdims=True)
    best, ranked = np.argsort(-exact, axis=1, kind="stable")[:, :10], np.argsort(-got, axis=1, kind="stable")
    share = {n: float(np.mean([np.isin(a, b[:n]).mean() for a, b in zip(best, ranked, strict=True)])) for n in (10, 30)}
    return {
        "score": float(np.mean(np.abs(error) / np.abs(exact))),
        "noise": float(np.mean(moved.std(axis=1) / exact.std(axis=1))),
        "top 10 in 10": share[10],
        "top 10 in 30": share[30],
        "ndcg@5": float(
            np.mean([ndcg([pages[i] for i in row[:5]], q.pages) for row, q in zip(ranked, asked, strict=True)])
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("set")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--folder", type=Path, default=Path("~/.cache/octavo-bench").expanduser())
    options = parser.parse_args()
    asked = questions(options.set)
    asked = random.Random(0).sample(asked, min(options.queries, len(asked)))
    folder, encoder = options.folder / f"fp16_{options.set}", BoxEncoder(threads=1)
    with Retriever.open(folder, encoder, codec="fp16") as retriever:
        retriever.add(pdfs(options.set))
    queries = [encoder.encode_queries([question.text])[0] for question in asked]
    index = Index(folder)
    pages = names(index)
    exact, _ = scores(index, queries)
    with index.snapshot() as snapshot:
        tokens = snapshot.state.tokens
    index.close()
    rows: list[dict[str, Any]] = []
    for pool in POOLS:
        for codec in CODECS:
            with tempfile.TemporaryDirectory() as scratch:
                index = Index(shutil.copytree(folder, Path(scratch) / "index"))
                begun = time.process_time()
                recode(index, codec, pool)
                seconds = time.process_time() - begun
                assert upkeep.check(index) == []
                got, stored = scores(index, queries)
                index.close()
            row = {"codec": codec, "pool": pool, "bytes": stored / tokens, "recode ms": seconds * 1e3 / exact.shape[1]}
            rows.append(row | losses(exact, got, asked, pages))
            sys.stdout.write("  ".join(f"{name} {v:.4g}" if v != codec else v for name, v in rows[-1].items()) + "\n")
    result = {"set": options.set, "queries": len(asked), "pages": exact.shape[1], "tokens": tokens, "rows": rows}
    result |= {"weights": encoder.fingerprint["weights"]} | environment("numpy")
    out = Path(__file__).parent / "results" / f"codecs_{options.set}.json"
    out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
