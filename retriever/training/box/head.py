r"""Training only: the head of the encoder in the box, states of 384 to vectors of 128, and which query tokens count.

    python -m retriever.training.box.head --states /tmp/octavo-box-quality --start PCA/projection.safetensors \
        --qrels ../shared/data/xquad_pages/qrels.tsv --out FIRST
    python -m retriever.training.box.head --states ... --qrels ... --start FIRST/projection.safetensors \
        --pages PAGES --years YEARS --rate 7e-4 --steps 300 --out SECOND

A question finds its page among the 72 of a language: its own, another, or each page in one drawn anew (cross entropy
over MaxSim); beside that it keeps the order that the full states give (Kullback-Leibler). One matrix for both sides
starts from the principal axes of `build.py`; a query token's weight is multiplied by exp(state . stress), stress
starting at zero. With `--pages` every second step is on pages of documents (`hoods`): there the order to be kept is
that of full states and of BM25 together, and cross entropy counts for little, as what is asked is made up. With
`--years` every third is on pages beside their editions of another year (`years`), and cross entropy counts in full. Two
matrices, and pages of help in fifteen languages as more data, lost on other sets (benchmarks/LOG.md).

The states are written by `encoded` in benchmarks/box_quality.py. 250 steps take three to five minutes on one core; a
killed run goes on from its last 50th step. Writes OUT/projection.safetensors. The same seed on the same machine and
version of torch makes the same head.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file, save_file

from retriever.training.box.hoods import Hoods, Years
from retriever.training.box.pools import LANGUAGES, Batch, Picked, Pool, joined, load, relevant

STEPS, WARM, BATCH, SEED = 250, 30, 48, 0
RATE, STRESS = 1.5e-3, 5.0  # of the matrix; times as much for what query tokens weigh
SHARPNESS, TEACHER = 60.0, 100.0  # what mean similarities are multiplied by: at the start, learned; of the states
WORDS, ANSWER = 0.4, 0.3  # on pages of documents: weight of BM25 in the order to be kept; of cross entropy
KEPT, SLOW = 50, 60  # steps after which the state is kept; seconds after which it is every ten
OWN, MIXED = 0.35, 0.3  # share of the batches asked in the pages' language; of pages in all languages

log = logging.getLogger(__name__)


class Head(torch.nn.Module):
    """projection: (384, 128); stress: (384,); sharpness: a logarithm."""

    def __init__(self, axes: np.ndarray, stress: np.ndarray | None = None) -> None:
        super().__init__()
        self.projection = torch.nn.Parameter(torch.from_numpy(axes.copy()))
        found = torch.zeros(len(axes)) if stress is None else torch.from_numpy(stress.copy())
        self.stress = torch.nn.Parameter(found)
        self.sharpness = torch.nn.Parameter(torch.tensor(math.log(SHARPNESS)))

    def groups(self, rate: float) -> list[dict[str, Any]]:
        """The parameters and their rates, as `descend` takes them. rate: of the matrix."""
        return [
            {"params": [self.projection], "lr": rate},
            {"params": [self.stress], "lr": rate * STRESS},
            {"params": [self.sharpness], "lr": 1e-2},
        ]

    def tensors(self) -> dict[str, np.ndarray]:
        """What projection.safetensors holds."""
        return {name: getattr(self, name).detach().cpu().numpy() for name in ("projection", "stress")}

    def loss(
        self, batch: Batch, words: torch.Tensor | None = None, known: Batch | None = None, answer: float = 1.0
    ) -> torch.Tensor:
        """Cross entropy of the pages asked for, times `answer`, and divergence from the order by full states, or by
        them and `words` (q, pages), what BM25 says of pages of documents. known: the batch in the states that give the
        order, where they are not those that are trained."""
        known = known or batch
        norms = batch.states.norm(dim=1, keepdim=True)
        weights = norms * torch.exp(batch.states / norms @ self.stress[:, None])
        count = len(batch.asks)
        weights = weights / weights.new_zeros(count, 1).index_add(0, batch.of, weights)[batch.of]
        queries = F.normalize(batch.states @ self.projection, dim=1) * weights
        scores = self._maxsim(queries, batch) * self.sharpness.exp()
        with torch.no_grad():
            own = (known.states / known.states.norm(dim=1, keepdim=True) * weights) @ known.pages.T
            best = torch.stack([part.amax(1) for part in own.split(known.lens, 1)], 1)
            order = _summed(best, known) * TEACHER
            if words is not None:
                spread = (words - words.mean(1, keepdim=True)) / words.std(1, keepdim=True).clamp_min(1e-6)
                order = (1 - WORDS) * order + WORDS * 2.5 * spread
            wanted = F.softmax(order, 1)
        kept = F.kl_div(F.log_softmax(scores, 1), wanted, reduction="batchmean")
        return F.cross_entropy(scores, batch.asks) * answer + kept

    def _maxsim(self, queries: torch.Tensor, batch: Batch) -> torch.Tensor:
        """(q, pages): gradients run through the winning tokens alone."""
        with torch.no_grad():
            products = queries @ F.normalize(batch.pages @ self.projection, dim=1).T
            starts = np.cumsum([0, *batch.lens[:-1]]).tolist()
            parts = products.split(batch.lens, 1)
            winners = torch.stack([part.argmax(1) + start for part, start in zip(parts, starts, strict=True)], 1)
        used, places = torch.unique(winners, return_inverse=True)
        tokens = F.normalize(batch.pages[used] @ self.projection, dim=1)
        return _summed(torch.gather(queries @ tokens.T, 1, places), batch)


def _summed(best: torch.Tensor, batch: Batch) -> torch.Tensor:
    return best.new_zeros(len(batch.asks), best.shape[1]).index_add(0, batch.of, best)


def drawn(pools: list[Pool], step: int, seed: int) -> Batch:
    """The batch of a step, which depends on `seed` and `step` only."""
    chosen = picked(pools, step, seed)
    questions = [pools[k].questions[i] for k, i in chosen.questions]
    return joined(questions, chosen.asks, [pools[k].pages[i] for k, i in chosen.pages])


def picked(pools: list[Pool], step: int, seed: int) -> Picked:
    """What `drawn` gives, by numbers."""
    rng = np.random.default_rng((seed, step))
    asking = int(rng.integers(len(pools)))
    count, mode = len(pools[asking].pages), rng.random()
    if mode < OWN:
        of = [asking] * count
    elif mode < OWN + MIXED:
        of = rng.integers(len(pools), size=count).tolist()
    else:
        of = [int(rng.integers(len(pools)))] * count
    asked = rng.choice(len(pools[asking].questions), BATCH, replace=False)
    asks = pools[asking].asks[torch.from_numpy(asked)]
    return Picked([(asking, k) for k in asked.tolist()], asks, [(k, page) for page, k in enumerate(of)])


def descend(
    model: torch.nn.Module, groups: list[dict[str, Any]], loss: Callable[[int], torch.Tensor], out: Path, steps: int
) -> None:
    """Trains `model` by `loss`, which is given the step. groups: of parameters, each with its highest rate `lr`, which
    all but the last keep to a cosine. The state is kept in `out`."""
    rates, kept = [group["lr"] for group in groups[:-1]], out / "state.pt"
    optimiser, first = torch.optim.Adam(groups, betas=(0.9, 0.98)), 0
    if kept.exists():
        stored = torch.load(kept, map_location="cpu", weights_only=True)
        model.load_state_dict(stored["model"])
        optimiser.load_state_dict(stored["optimiser"])
        first = stored["step"]
    losses, since = list[float](), time.monotonic()
    for step in range(first, steps):
        pace = min(1, step / WARM) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group, rate in zip(optimiser.param_groups, rates, strict=False):
            group["lr"] = rate * pace
        found = loss(step)
        optimiser.zero_grad()
        found.backward()
        optimiser.step()
        losses.append(found.item())
        if (step + 1) % KEPT == 0 or (step + 1) % 10 == 0 and time.monotonic() - since > SLOW:
            log.info("step %d of %d: loss %.3f", step + 1, steps, np.mean(losses))
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1}
            torch.save(state, kept.with_suffix(".part"))
            kept.with_suffix(".part").rename(kept)
            losses, since = [], time.monotonic()


def train(
    pools: list[Pool],
    start: dict[str, np.ndarray],
    hoods: Hoods | None,
    out: Path,
    steps: int,
    rate: float,
    seed: int,
    years: Years | None = None,
) -> Head:
    """The head after `steps` from `start` (projection, and stress if it has one), its state kept in `out`."""
    head = Head(start["projection"], start.get("stress"))
    documents = [(found, answer) for found, answer in ((hoods, ANSWER), (years, 1.0)) if found is not None]

    def loss(step: int) -> torch.Tensor:
        kind = step % (1 + len(documents))
        if kind == 0:
            return head.loss(drawn(pools, step, seed))
        found, answer = documents[kind - 1]
        return head.loss(*found.drawn(step, seed), answer=answer)

    descend(head, head.groups(rate), loss, out, steps)
    return head


def main() -> None:
    """Trains, or goes on, and writes projection.safetensors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=Path, required=True, help="folder with *_xquad_pages.LANGUAGE.npz")
    parser.add_argument("--qrels", type=Path, required=True)
    parser.add_argument("--start", type=Path, required=True, help="projection.safetensors of build.py or of a run")
    parser.add_argument("--pages", type=Path, help="folder that retriever.training.box.pages wrote")
    parser.add_argument("--years", type=Path, help="folder that retriever.training.box.years wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--encoder", default="*", help="digest that the names of the states begin with")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--seed", type=int, default=SEED)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    asked = relevant(given.qrels)
    files = [next(given.states.glob(f"{given.encoder}_xquad_pages.{language}.npz")) for language in LANGUAGES]
    pools, start = [load(file, asked) for file in files], load_file(given.start)
    hoods = Hoods(given.pages, start["projection"]) if given.pages else None
    years = Years(given.years, start["projection"]) if given.years else None
    head = train(pools, start, hoods, given.out, given.steps, given.rate, given.seed, years)
    save_file(head.tensors(), given.out / "projection.safetensors")


if __name__ == "__main__":
    main()
