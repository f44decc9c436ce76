"""The pooled first stage on real pages: its first 100 hold at least nine tenths of the exact top 10.

Each file in tests/data/recall holds, for one question set of shared/data encoded by octavo-box-1, the pooled vectors of
all its pages and of 300 questions, and the ten best pages by exact MaxSim over all token vectors (written by
`benchmarks/engine.py SET --golden FILE`). The vectors are real, and so is the stage that is searched here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from index.candidates import Queries
from index.pooled import Pooled
from index.ragged import Ragged

SETS = sorted((Path(__file__).parent / "data" / "recall").glob("*.npz"))


def share(name: Path, first: int) -> float:
    """Share of the exact top 10 within the first so many pages of the pooled stage."""
    with np.load(name) as golden:
        pages, ids, queries, best = (golden[key] for key in ("pages", "ids", "queries", "best"))
    stage = Pooled(pages.shape[1])
    stage.add(pages, ids)
    found = stage.search(Queries(Ragged.of(list(queries[:, None])), queries), first)
    return float(np.mean([np.isin(top, candidates) for top, (_, candidates) in zip(best, found, strict=True)]))


@pytest.mark.parametrize("name", SETS, ids=lambda path: path.stem)
def test_the_first_hundred_hold_nine_tenths_of_the_exact_top_ten(name: Path) -> None:
    assert share(name, 100) >= 0.90
    assert share(name, 10) < share(name, 30) < share(name, 100) <= share(name, 200)


def test_there_is_something_to_measure() -> None:
    assert SETS, "tests/data/recall is empty: benchmarks/engine.py --golden writes it"
