"""Long jobs in batches: like sizes together, results in the caller's order, smaller batches where memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any, TypeVar

import torch

from index.errors import OctavoError

Result = TypeVar("Result")
Told = Callable[[int, int], None]  # how many are done, of how many


def in_batches(
    sizes: Sequence[int],
    batch_size: int,
    run: Callable[[list[int]], Sequence[Result]],
    progress: Told | None = None,
    alike: Sequence[Any] | None = None,
) -> list[Result]:
    """`run` over all places 0..n-1, at most batch_size at a time, the largest first -> its results by place.

    sizes: (n,) how long each is, in tokens; alike: (n,) only those that are equal share a batch. Where `run` runs out
    of memory its batch is halved, and so are those that follow. progress: called after each batch with (done, n).
    Raises OctavoError where one alone does not fit.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size {batch_size}: at least 1 is expected")
    kinds = alike if alike is not None else [None] * len(sizes)
    order = sorted(range(len(sizes)), key=lambda place: (-sizes[place], repr(kinds[place])))
    results: list[Result | None] = [None] * len(sizes)
    done = 0
    while done < len(order):
        first = kinds[order[done]]
        places = list(takewhile(lambda place: kinds[place] == first, order[done : done + batch_size]))  # noqa: B023
        try:
            for place, result in zip(places, run(places), strict=True):
                results[place] = result
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            if len(places) == 1:
                raise OctavoError(
                    f"memory ran out over a single input of {sizes[places[0]]:,} tokens; give it fewer pixels "
                    "(max_pixels) or less text (max_length), or a smaller dtype"
                ) from None
            batch_size = len(places) // 2
        else:
            done += len(places)
            if progress:
                progress(done, len(order))
            continue
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return results  # type: ignore[return-value]


def in_parts(
    inputs: Sequence[Any], length: int, run: Callable[[Sequence[Any]], list[Result]], progress: Told | None = None
) -> list[Result]:
    """`run` over so many inputs after another, in order, so that no more are open in memory at once -> all its results.

    progress: called after each part with (done, n).
    """
    found: list[Result] = []
    for start in range(0, len(inputs), length):
        found += run(inputs[start : start + length])
        if progress:
            progress(len(found), len(inputs))
    return found


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "can't allocate memory" in str(error) or "not enough memory" in str(error)  # torch's CPU allocator
