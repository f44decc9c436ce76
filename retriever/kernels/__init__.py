"""MaxSim, the score of late interaction: one function, several implementations, chosen once or by name.

    score(query, page) = sum over query tokens of the largest inner product with a token of the page

(ColBERT, Khattab and Zaharia 2020, section 3.3). Ragged in, nothing padded; a page with no tokens scores -inf.
Importing this imports no torch; handing it tensors does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from index import native
from index.codec import PACKED
from index.ragged import Codes, Ragged, Views, offsets_of
from retriever.kernels.arrays import maxsim_arrays

IMPLEMENTATIONS = ("auto", "reference", "cpu", "cuda")
PRECISIONS = ("fp32", "int8", "binary")


def maxsim(
    query: Any,
    pages: Ragged | Codes | Views,
    impl: str = "auto",
    threads: int | None = None,
    precision: str = "fp32",
    argmax: bool = False,
) -> Any:
    """Scores of n pages for one query or for b of them.

    query: (m, d) float array or tensor, or a Ragged of b queries with M tokens in all. pages: n pages, their values an
    array or a tensor. Returns (n,) or (b, n) float32, a tensor where the query is one; differentiable there.

    impl: `reference` (numpy), `cpu` (the native library), `cuda` (Triton), or `auto`: for arrays cpu where it was
    built, else reference; for tensors the operator octavo::maxsim, by their device. threads: of cpu over arrays; None
    takes torch's setting where torch is loaded, else 1. precision: what a query token is rounded to, for speed of cpu
    over codes: `int8` or `binary`.

    argmax: also return (n, M) int32, the place in its page of the token that won for each query token (the first of
    equals), -1 for a page with no tokens: (scores, winners).

    Raises ValueError for shapes that do not fit and for what is not available here.
    """
    batch = query if isinstance(query, Ragged) else Ragged(query, offsets_of([len(query)]))
    _check(batch, pages, impl, precision)
    values = None if isinstance(pages, Views) else pages.values
    if impl != "cuda" and isinstance(batch.values, np.ndarray) and isinstance(values, np.ndarray | None):
        scores, winners = maxsim_arrays(batch, pages, impl, threads, precision, argmax)
    else:
        from retriever.kernels.operator import maxsim_tensors

        if precision != "fp32":
            raise ValueError(f"precision {precision!r} is for arrays and impl 'cpu' or 'reference'")
        scores, winners = maxsim_tensors(batch, pages.codes() if isinstance(pages, Views) else pages, impl, argmax)
    scores = scores if isinstance(query, Ragged) else scores[0]
    return (scores, winners) if argmax else scores


def _check(queries: Ragged, pages: Ragged | Codes | Views, impl: str, precision: str) -> None:
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl is one of {', '.join(IMPLEMENTATIONS)}; got {impl!r}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision is one of {', '.join(PRECISIONS)}; got {precision!r}")
    packed = 1 if isinstance(pages, Ragged) else PACKED.get(pages.codec, 1)
    stored = (len(pages), pages.width) if isinstance(pages, Views) else tuple(pages.values.shape)
    found = (*stored[:1], *(size * packed for size in stored[1:]))
    if queries.values.ndim != 2 or found[1:] != tuple(queries.values.shape[1:]):
        shapes = f"{tuple(queries.values.shape)} and {found}"
        raise ValueError(f"query and page tokens must be (m, d) and (t, d) of one d; got {shapes}")
    if impl == "cpu" and not native.available():
        raise ValueError("impl 'cpu' needs the native library, which was not built: install Octavo with a C++ compiler")
