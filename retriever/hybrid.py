"""Two lanes, one order: what the page looks like (MaxSim) and what it says (BM25), fused by standardised scores.

Both lanes are scored exactly over the union of their candidates; each is standardised over the best pages of both, the
same number in a large index and a small one, however many candidates there are, and the two are added with the weights
below. The text lane weighs less where even its best page has little of the query, as when query and pages are of
different languages and what they share is accident and names. The constants were chosen on five question sets, looking
at each with those that the others chose, so that hybrid search is not below its better lane; weights learned from gaps
between scores and from how the lanes rate each other's best page were no better on the set that was left out
(benchmarks/LOG.md).
"""

from __future__ import annotations

import numpy as np

from index.native.twin import standardise

TEXT_WEIGHT = 0.45  # of the text lane at most; the visual lane has the rest
SURE = 0.6  # share of the highest possible BM25 from which the text lane has all its weight
FALL = 1.5  # the power with which that falls below SURE
BEST = 60, 20  # pages of the visual lane, and of the text lane, that both lanes are standardised over
CONTENTS = 1.0  # standard deviations that a table of contents, which has the words of all sections, stands lower


def fuse(visual: np.ndarray, text: np.ndarray, ceiling: float, contents: np.ndarray) -> np.ndarray:
    """(n,) MaxSim, -inf where a page has no tokens, (n,) BM25, 0 where no term fits, and (n,) bool, tables of contents
    -> (n,) fused scores.

    ceiling: the BM25 that no page can pass. A page with no tokens gets the lowest visual score of the others, so that
    it stands or falls by its text.
    """
    seen = np.isfinite(visual)
    lowest = visual[seen].min() if seen.any() else 0.0
    share = float(np.max(text, initial=0.0)) / ceiling if ceiling > 0 else 0.0
    weight = TEXT_WEIGHT * min(1.0, share / SURE) ** FALL if seen.any() else 1.0
    visual = np.where(seen, visual, lowest)
    by_text = np.argsort(-text, kind="stable")[: BEST[1]]
    best = np.union1d(np.argsort(-visual, kind="stable")[: BEST[0]], by_text[text[by_text] > 0])
    lanes = (1 - weight) * standardise(visual, best) + weight * standardise(text, best)
    return lanes - CONTENTS * contents
