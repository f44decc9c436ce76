"""MaxSim as the torch operator octavo::maxsim, for any device that torch runs on.

    octavo::maxsim(Tensor query, Tensor query_offsets, Tensor values, Tensor offsets, Tensor? scales) -> Tensor

query (M, d), query_offsets (b + 1,), values (T, d) of any real type, offsets (n + 1,), scales (T,); the result is
(b, n) float32. Offsets are int64. Passes torch.library.opcheck; usable under torch.compile.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from index.ragged import Codes, Ragged


@torch.library.custom_op("octavo::maxsim", mutates_args=())
def maxsim_operator(
    query: Tensor, query_offsets: Tensor, values: Tensor, offsets: Tensor, scales: Tensor | None
) -> Tensor:
    """The operator itself; see the module's docstring for shapes."""
    similarity = values.float() @ query.float().T
    if scales is not None:
        similarity = similarity * scales.float()[:, None]
    best = torch.segment_reduce(similarity, "max", offsets=offsets, axis=0, initial=-torch.inf)
    return torch.segment_reduce(best.T.contiguous(), "sum", offsets=query_offsets, axis=0, initial=0.0)


@maxsim_operator.register_fake
def _(query: Tensor, query_offsets: Tensor, values: Tensor, offsets: Tensor, scales: Tensor | None) -> Tensor:
    return query.new_empty((query_offsets.shape[0] - 1, offsets.shape[0] - 1), dtype=torch.float32)


def maxsim_torch(queries: Ragged, pages: Ragged | Codes) -> Tensor:
    """(b, n) float32 on the device of the queries' values."""
    query = _tensor(queries.values)
    scales = pages.scales if isinstance(pages, Codes) else None

    def here(array: Any) -> Tensor:
        return _tensor(array).to(query.device)

    result: Tensor = torch.ops.octavo.maxsim(
        query, here(queries.offsets), here(pages.values), here(pages.offsets), None if scales is None else here(scales)
    )
    return result


def _tensor(array: Any) -> Tensor:
    if isinstance(array, Tensor):
        return array
    array = np.ascontiguousarray(array)
    return torch.from_numpy(array if array.flags.writeable else array.copy())
