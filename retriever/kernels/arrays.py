"""MaxSim of numpy arrays: by the native library or by its numpy twin (index.native). No torch.

Pages are handed over by their addresses, so those in mapped shards are read where they lie. What is done here is what
lies between the codes' own space and the queries': the rotation and the centre of index.codec.
"""

from __future__ import annotations

import numpy as np

from index import native
from index.codec import PACKED, rotated
from index.native import twin
from index.ragged import Codes, Ragged, Views

_CODECS = {"f4": "fp32", "f2": "fp16", "i1": "int8"}  # of rows, by their type; bytes are said


def maxsim_arrays(
    queries: Ragged, pages: Ragged | Codes | Views, impl: str, threads: int | None, precision: str, argmax: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """`retriever.kernels.maxsim` of b queries: (b, n) float32, and with argmax (n, M) int32, else None."""
    tokens = np.ascontiguousarray(queries.values, np.float32)
    inside = tokens if isinstance(pages, Ragged) else rotated(tokens, pages.codec)
    found = maxsim_inside(Ragged(inside, queries.offsets), views(pages), impl, threads, precision, argmax)
    if not isinstance(pages, Ragged) and pages.centre is not None:
        shift = [float((query @ pages.centre).sum()) for query in Ragged(tokens, queries.offsets)]
        found = found[0] + np.array(shift, np.float32)[:, None], found[1]
    return found


def maxsim_inside(
    queries: Ragged, pages: Views, impl: str, threads: int | None, precision: str, argmax: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """The same for queries in the space of the pages' codec."""
    function = twin.maxsim if impl == "reference" else native.maxsim
    found = function(
        queries,
        pages.addresses,
        pages.lengths,
        pages.codec,
        pages.dim,
        scales=pages.scales,
        query=precision,
        threads=native.default_threads() if threads is None else threads,
        argmax=argmax,
    )
    return found if isinstance(found, tuple) else (found, None)


def views(pages: Ragged | Codes | Views) -> Views:
    """Pages in one array as views of it; an array of another type or order is copied first."""
    if isinstance(pages, Views):
        return pages
    codec, scales, centre = ("", None, None) if isinstance(pages, Ragged) else (pages.codec, pages.scales, pages.centre)
    kind = pages.values.dtype.str[1:]
    values = np.ascontiguousarray(pages.values, None if kind in _CODECS or codec in PACKED else np.float32)
    scales = None if scales is None else np.ascontiguousarray(scales, "<f2")

    def addresses(array: np.ndarray) -> np.ndarray:
        return array.ctypes.data + pages.offsets[:-1].astype(np.uint64) * np.uint64(array.strides[0])

    return Views(
        addresses=addresses(values),
        lengths=pages.lengths,
        codec=codec if codec in PACKED else _CODECS[values.dtype.str[1:]],
        dim=values.shape[1] * PACKED.get(codec, 1),
        width=values.shape[1],
        kind=values.dtype,
        scales=None if scales is None else addresses(scales),
        owner=(values, scales),
        centre=centre,
    )
