"""What is looked for: a text, a picture, a page of the index, or a text and one of those, as token vectors and words.

A picture is encoded as a page is, so every encoder answers it; the one in the box by the words that it reads. A page of
the index is asked for by what is stored of it: no model is run. Its many tokens are pooled to PICTURE_ROWS, each as
heavy as what it stands for, and of its words the rarest go to the text lane. Text and picture together weigh the same.
Picture files are drawn in the jailed worker, like pages. Not here: searching (retriever.ranking).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from index import text as text_lane
from index.errors import QueryError
from index.pooling import pool_mean, pool_tokens
from index.records import clean
from index.snapshot import Snapshot
from ingest.page import Encoder, Page, Words
from retriever import documents

if TYPE_CHECKING:
    from ingest.render import Renderer

PICTURE_ROWS = 128  # of a picture's query: what they cost and find, beside all of its tokens, is in benchmarks/LOG.md
_TERMS = 1000  # of a page that are counted


class Query(NamedTuple):
    """text: as typed, "" for a picture alone; vectors: (m, d), a row's norm its weight, those of the text first;
    single: (D,); said: what the text lane looks for, a text for each part; page: an id that is not to be found."""

    text: str
    vectors: np.ndarray
    single: np.ndarray
    said: tuple[str, ...]
    page: int | None = None


class Picture(NamedTuple):
    """What is known of a picture. vectors: (t, d); boxes: (t, 4), empty ones for tokens that lie nowhere on it; single:
    (D,); words: of the picture, in one text; page: its id where it is a page of the index."""

    vectors: np.ndarray
    boxes: np.ndarray
    single: np.ndarray
    words: str
    page: int | None = None


def of_texts(encoder: Encoder, texts: Sequence[str]) -> list[Query]:
    """Each text as a query. Raises QueryError for what the encoder cannot take."""
    texts = [clean(text) for text in texts]  # a terminal may give half a surrogate pair
    try:
        vectors = encoder.encode_queries(texts) if texts else []
    except ValueError as error:
        raise QueryError(str(error)) from error
    if not all(len(vector) and np.isfinite(vector).all() for vector in vectors):
        raise QueryError("the encoder gave a query no vectors, or some that are not finite")
    found = zip(texts, vectors, singles(encoder, texts, vectors) if texts else [], strict=True)
    return [Query(text, vector, single, (text,)) for text, vector, single in found]


def singles(encoder: Encoder, texts: Sequence[str], vectors: Sequence[np.ndarray]) -> np.ndarray:
    """(b, D): the encoder's own single vectors of the queries, else the normalised means."""
    if encoder.single_dim is not None:
        own: np.ndarray = encoder.encode_queries_single(texts)  # type: ignore[attr-defined]
        return own
    return np.stack([pool_mean(vector) for vector in vectors])


def words_only(texts: Sequence[str], dim: int) -> list[Query]:
    """Each text as a query for the text lane alone."""
    return [Query(text, np.zeros((0, dim), np.float32), np.zeros(0, np.float32), (text,)) for text in map(clean, texts)]


def seen(encoder: Encoder, renderer: Renderer, guard: AbstractContextManager[Any], image: Any) -> Picture:
    """A picture that is not in the index: the path of a file (of one with several pages, the first), a PIL image, or
    (H, W, 3) uint8. Raises QueryError, naming what is wrong with it, and FileNotFoundError."""
    if isinstance(image, str | os.PathLike):
        with guard:
            page = _drawn(renderer, encoder, image)
    else:
        page = _given(encoder, image)
    try:
        (tokens,) = encoder.encode_pages([page])
    except ValueError as error:
        raise QueryError(f"the picture cannot be encoded: {error}") from error
    vectors = np.asarray(tokens.vectors, np.float32)
    single = pool_mean(vectors) if tokens.single is None else tokens.single
    words = page.words if tokens.words is None else tokens.words
    if not len(vectors) and not len(words):
        raise QueryError(f"{encoder.name} finds nothing on the picture; one that looks is needed: see octavo models")
    return Picture(vectors, tokens.boxes, single, words.text)


def stored(snapshot: Snapshot, name: str) -> Picture:
    """A page of the index, DOCUMENT#PAGE or DOCUMENT for its first. Raises UnknownDocument, QueryError."""
    document, _, number = name.rpartition("#")
    number = number.removeprefix("p")
    if not document or not number.isdecimal():
        document, number = name, "1"
    page = documents.page_id(snapshot, document, int(number))
    words, _, boxes = snapshot.text(page)
    vectors, boxes = documents.tokens(snapshot, page, boxes)
    if not len(vectors) and not words:
        raise QueryError(f"{name}: there is nothing on this page to look for")
    return Picture(vectors, boxes, snapshot.pooled([page])[0], words, page)


def of_picture(snapshot: Snapshot, picture: Picture) -> Query:
    """A picture as a query."""
    placed = (picture.boxes[:, 2:] > picture.boxes[:, :2]).all(axis=1)
    vectors, clusters = pool_tokens(picture.vectors[placed] if placed.any() else picture.vectors, PICTURE_ROWS)
    if len(vectors):
        sizes = np.bincount(clusters)[:, None]
        vectors = (vectors * (sizes / sizes.mean())).astype(np.float32)
    said = telling(snapshot, picture.words, 1 if picture.page is None else 2)
    return Query("", vectors, picture.single, (said,), picture.page)


def both(text: Query, picture: Query) -> Query:
    """Text and picture in one query, neither heavier than the other."""
    if not len(text.vectors):
        return Query(text.text, text.vectors, text.single, (*text.said, *picture.said), picture.page)
    weights = [float(np.linalg.norm(one.vectors, axis=1).sum()) for one in (text, picture)]
    scale = weights[0] / weights[1] if min(weights) > 0 else 1.0
    vectors = np.concatenate([text.vectors, picture.vectors * np.float32(scale)])
    single = pool_mean(np.stack([one.single / max(np.linalg.norm(one.single), 1e-12) for one in (text, picture)]))
    return Query(text.text, vectors, single, (*text.said, *picture.said), picture.page)


def telling(snapshot: Snapshot, words: str, least: int) -> str:
    """Of a page's terms those that the fewest pages have, but at least so many, in the order of the page; as many as
    the text lane looks for."""
    counts = {term: snapshot.having(term) for term in text_lane.distinct(words, _TERMS)}
    rare = sorted((count, term) for term, count in counts.items() if count >= least)[: text_lane.MOST_TERMS]
    kept = {term for _, term in rare}
    return " ".join(term for term in counts if term in kept)


def _drawn(renderer: Renderer, encoder: Encoder, path: str | os.PathLike[str]) -> Page:
    from ingest.render import PageFailure, RenderError
    from ingest.sources import Unreadable, find, open_source

    if Path(path).is_dir():
        raise QueryError(f"{path} is a folder; name the file of a picture")
    (source,) = find([Path(path)], max_bytes=renderer.limits.max_bytes)
    if isinstance(source, Unreadable):
        raise QueryError(f"{source.path}: {source.reason}")
    size = encoder.render
    descriptor = open_source(source.path)
    try:
        with renderer.open(descriptor, source.kind) as document:
            drawn = renderer.render(document, 1, dpi=size.dpi, max_pixels=size.max_pixels)
    except RenderError as error:
        raise QueryError(f"{path}: {error.reason}") from error
    finally:
        os.close(descriptor)
    if isinstance(drawn, PageFailure):
        raise QueryError(f"{path}: {drawn.state}: {drawn.reason}")
    return drawn


def _given(encoder: Encoder, image: Any) -> Page:
    from PIL import Image

    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image) or not min(image.size):
        raise QueryError("the picture is a file's path, a PIL image or an array (H, W, 3) of uint8, and not empty")
    shrink = min(1.0, (encoder.render.max_pixels / (image.width * image.height)) ** 0.5)
    size = max(1, int(image.width * shrink)), max(1, int(image.height * shrink))
    pixels = np.asarray(image.convert("RGB").resize(size) if shrink < 1 else image.convert("RGB"))
    return Page(1, pixels, Words(), float(size[0]), float(size[1]))
