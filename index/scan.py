"""The first stage on token codes: every page, by the centroids that its tokens lie nearest to, with no inverted lists.

A page keeps the set of its tokens' codes (two bytes each; blank parts of a page share theirs) and the mean of its
tokens. A query makes a table of bytes, centroids by query tokens; a page's sum over query tokens of the largest byte
among its codes costs a load and a maximum a code. The best of those are ordered by that sum and the mean's similarity
together, each of which sees what the other loses. Adding a page appends, deleting drops, a filter skips. Centroids are
frozen until the corpus has outgrown them or its tokens no longer lie near them.
"""

from __future__ import annotations

from copy import copy as shallow
from typing import Any

import numpy as np

from index import centroids, native
from index.candidates import Queries, Source
from index.codec import encode
from index.pooling import pool_mean
from index.ragged import check_offsets, offsets_of, picked

DRIFT, SHARE = 1.25, 0.2
"""Centroids are trained anew when what came since, a SHARE of all tokens, lies DRIFT times as far from them (by 1 -
cosine) as what was there."""
MEAN_WEIGHT = 1.0  # of the mean's similarity beside that of the codes, both standardised (benchmarks/LOG.md)
SHORTLIST, ONE_IN = 10_000, 20  # pages whose mean is looked at: so many, or one in so many
SAMPLED = 2000  # pages that training looks at
_PAGES = 128  # read, and coded, at a time


class Scan:
    """Codes of n pages. ids: (n,) int64, rising; codes: (N,) uint16, those of page i from offsets[i] on, rising;
    means: (n, d) float16 of norm 1; distance: mean 1 - cosine of the tokens that were there at training to their
    centroids; since: sum of 1 - cosine of the tokens that came after, and how many; tokens: of all pages."""

    kind = "codes"

    def __init__(self, dim: int) -> None:
        self.centroids = np.zeros((0, dim), np.float32)
        self.ids, self.offsets, self.codes = np.zeros(0, np.int64), np.zeros(1, np.int64), np.zeros(0, np.uint16)
        self.means = np.zeros((0, dim), np.float16)
        self.distance, self.since, self.tokens = 0.0, (0.0, 0), 0
        self._coded: tuple[Any, ...] = (None,)  # the centroids in 8 bits, as the kernel takes them

    def search(self, queries: Queries, n: int, allow: np.ndarray | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
        """The n most promising pages, ties by id; scores compare within a search only."""
        rows = None if allow is None else np.flatnonzero(np.isin(self.ids, allow, assume_unique=True))
        ids, threads = self.ids if rows is None else self.ids[rows], native.default_threads()
        found = []
        for query in queries.tokens:
            total = np.zeros(len(ids), np.uint32)
            for table in self._tables(query) if len(ids) else ():
                total += native.scan(table, self.codes, self.offsets, rows, threads)
            mean, most = query.sum(axis=0), max(SHORTLIST, len(ids) // ONE_IN, n)
            best, scores = native.select(total, mean, self.means, rows, most, n, MEAN_WEIGHT, threads)
            found.append((scores, ids[best]))
        return found

    def _tables(self, query: np.ndarray) -> np.ndarray:
        if self._coded[0] is not self.centroids:
            self._coded = (self.centroids, *encode(self.centroids, "int8"))
        return native.tables(query, *self._coded[1:])

    def update(self, ids: np.ndarray, source: Source) -> bool:
        """Hold just `ids`, coding the pages that are missing; all of them anew where the centroids do not fit."""
        new = np.setdiff1d(ids, self.ids)
        if not len(new) and len(ids) == len(self.ids):
            return False
        self._keep(np.isin(self.ids, ids, assume_unique=True))
        if len(self.centroids):
            self._add(new, source)
        if len(ids) and self._outgrown():
            self._train(ids, source)
        return True

    def remove(self, ids: np.ndarray) -> None:
        """Forget pages."""
        self._keep(~np.isin(self.ids, ids))

    def copy(self) -> Scan:
        """A second one with the same pages."""
        return shallow(self)  # arrays are replaced, never changed

    def _outgrown(self) -> bool:
        far, tokens = self.since
        drifted = tokens > SHARE * self.tokens and far > DRIFT * self.distance * tokens
        return drifted or len(self.centroids) < centroids.count(self.tokens)

    def _train(self, ids: np.ndarray, source: Source) -> None:
        rng = np.random.default_rng(0)
        chosen = np.sort(rng.choice(ids, min(len(ids), SAMPLED), replace=False))
        parts, tokens = [], 0
        for start in range(0, len(chosen), _PAGES):
            pages = source.vectors(chosen[start : start + _PAGES])
            tokens += len(pages.values)
            most = centroids.SAMPLE * centroids.MOST * len(pages) // len(chosen) + 1
            parts.append(pages.values[rng.permutation(len(pages.values))[:most]])
        sample = np.concatenate(parts)
        k = centroids.count(tokens * len(ids) // len(chosen))
        self.centroids = centroids.train(sample, k) if len(sample) else np.zeros((16, sample.shape[1]), np.float32)
        self._keep(np.zeros(len(self.ids), bool))
        self.since = (0.0, 0)
        self._add(ids, source)
        self.distance, self.since = self.since[0] / max(self.since[1], 1), (0.0, 0)

    def _add(self, ids: np.ndarray, source: Source) -> None:
        """Code pages, new ones."""
        codes, lengths, means = [self.codes], [np.diff(self.offsets)], [self.means]
        far, tokens = self.since
        for start in range(0, len(ids), _PAGES):
            pages = source.vectors(ids[start : start + _PAGES])
            nearest, products = centroids.assign(pages.values, self.centroids)
            norms = np.linalg.norm(pages.values, axis=1)
            far += float((1 - products / np.maximum(norms, 1e-12)).sum())
            tokens += len(norms)
            self.tokens += len(norms)
            of = np.repeat(np.arange(len(pages)), pages.lengths)
            pairs = np.unique(of.astype(np.int64) << 16 | nearest)  # the set of each page's codes
            codes.append((pairs & 0xFFFF).astype(np.uint16))
            lengths.append(np.bincount(pairs >> 16, minlength=len(pages)))
            means.append(np.stack([pool_mean(page) for page in pages]).astype(np.float16))
        self.since = (far, tokens)
        self.codes, self.offsets = np.concatenate(codes), offsets_of(np.concatenate(lengths))
        self.ids, self.means = np.concatenate([self.ids, ids]), np.concatenate(means)
        if (np.diff(self.ids) < 0).any():
            self._take(np.argsort(self.ids))

    def _keep(self, kept: np.ndarray) -> None:
        if not kept.all():
            self.tokens = int(self.tokens * kept.mean())
            self._take(np.flatnonzero(kept))

    def _take(self, rows: np.ndarray) -> None:
        at, offsets = picked(self.offsets, rows)
        self.ids, self.means, self.codes, self.offsets = self.ids[rows], self.means[rows], self.codes[at], offsets

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """All that a later process needs."""
        record: dict[str, Any] = {"distance": self.distance, "since": self.since, "tokens": self.tokens}
        names = ("centroids", "ids", "means", "offsets", "codes")
        return record, {name: getattr(self, name) for name in names}

    @classmethod
    def restored(cls, dim: int, record: dict[str, Any], arrays: dict[str, np.ndarray]) -> Scan:
        """From what `state` gave. Raises ValueError where it does not fit."""
        scan = cls(dim)
        scan.centroids, scan.ids, scan.means = arrays["centroids"], arrays["ids"], arrays["means"]
        scan.offsets, scan.codes = arrays["offsets"], arrays["codes"]
        check_offsets(scan.offsets, len(scan.codes))
        fits = scan.centroids.shape[1:] == (dim,) and len(scan.offsets) == len(scan.ids) + 1
        fits = fits and scan.means.shape == (len(scan.ids), dim)
        if not fits or (np.diff(scan.ids) <= 0).any() or scan.codes.max(initial=0) >= max(len(scan.centroids), 1):
            raise ValueError("codes, ids and centroids do not fit")
        scan.distance, scan.tokens = float(record["distance"]), int(record["tokens"])
        scan.since = (float(record["since"][0]), int(record["since"][1]))
        return scan
