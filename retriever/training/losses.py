"""What Jina Embeddings v4 is trained by (arXiv 2506.18902, section 4): losses over single and token vectors at once.

InfoNCE on both kinds of scores, the divergence of one from the other, Matryoshka on the single vectors; CoSENT for
pairs with a graded similarity. Late scores are MaxSim by our operator, divided by the query's tokens, in training only.
The weights of the parts are not published: all are 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, normalize

from index.ragged import Ragged, offsets_of
from retriever.encoders.jina_v4 import Vectors
from retriever.kernels import maxsim

TEMPERATURE = 0.02
_NEVER = -1e4  # the logit of what is left out: finite, so that 0 times its logarithm is 0


def late_scores(queries: Sequence[Tensor], documents: Sequence[Tensor]) -> Tensor:
    """b of (m, d) and n of (t, d) -> (b, n): MaxSim over the number of the query's tokens."""
    scores: Tensor = maxsim(_ragged(queries), _ragged(documents))
    return scores / torch.tensor([len(query) for query in queries], dtype=scores.dtype, device=scores.device)[:, None]


def _ragged(groups: Sequence[Tensor]) -> Ragged:
    values: Any = torch.cat(list(groups))
    return Ragged(values, offsets_of([len(group) for group in groups]))


def dense_scores(queries: Tensor, documents: Tensor, dim: int) -> Tensor:
    """(b, D) and (n, D) -> (b, n): cosines of their first `dim` numbers."""
    return normalize(queries[:, :dim], dim=-1) @ normalize(documents[:, :dim], dim=-1).T


def info_nce(scores: Tensor, right: Tensor, left_out: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """scores (b, n), right (b,) the column of each row's answer, left_out (b, n) bool: other answers, which are no
    negatives -> the mean of -log softmax at the answer (van den Oord et al. 2018)."""
    return cross_entropy((scores / temperature).masked_fill(left_out, _NEVER), right)


def divergence(dense: Tensor, late: Tensor, left_out: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """KL(dense || late) of two score matrices (b, n) as distributions over the documents, the mean over the queries."""
    one, other = (log_softmax((scores / temperature).masked_fill(left_out, _NEVER), dim=-1) for scores in (dense, late))
    return (one.exp() * (one - other)).sum(dim=-1).mean()


def contrast(
    queries: Sequence[Vectors], documents: Sequence[Vectors], right: Tensor, left_out: Tensor, dims: Sequence[int]
) -> Tensor:
    """The joint loss of b queries and n documents: pairs, hard negatives and triplets alike. dims: of Matryoshka."""
    late = late_scores(_tokens(queries), _tokens(documents))
    asked, found = _singles(queries), _singles(documents)
    right, left_out = right.to(late.device), left_out.to(late.device)
    dense = torch.stack([info_nce(dense_scores(asked, found, dim), right, left_out) for dim in dims]).mean()
    whole = dense_scores(asked, found, asked.shape[1])
    return dense + info_nce(late, right, left_out) + divergence(whole, late, left_out)


def cosent(scores: Tensor, grades: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """scores (b,) of pairs, grades (b,) that people gave -> log(1 + the sum, over all i graded above j, of
    exp((score_j - score_i) / temperature)); 0 where no two grades differ (Su 2022)."""
    differences = (scores[None, :] - scores[:, None]) / temperature  # [i, j]: j over i
    wrong = differences[grades[:, None] > grades[None, :]]
    return torch.logsumexp(torch.cat([scores.new_zeros(1), wrong]), dim=0)


def graded(ones: Sequence[Vectors], others: Sequence[Vectors], grades: Tensor, dims: Sequence[int]) -> Tensor:
    """The joint loss of b graded pairs: CoSENT on single vectors, at each of the dims, and on token vectors."""
    late = late_scores(_tokens(ones), _tokens(others)).diagonal()
    grades = grades.to(late.device)
    one, other = _singles(ones), _singles(others)
    dense = torch.stack([cosent(dense_scores(one, other, dim).diagonal(), grades) for dim in dims]).mean()
    return dense + cosent(late, grades)


def _singles(embedded: Sequence[Vectors]) -> Tensor:
    return torch.stack([one.single for one in embedded])


def _tokens(embedded: Sequence[Vectors]) -> list[Tensor]:
    return [one.multi for one in embedded if one.multi is not None]
