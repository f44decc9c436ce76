"""Encoders behind an address: vLLM's `/pooling`, and `/v1/embeddings` in Jina's form or OpenAI's.

`https://host/v1/embeddings#model=NAME`; after the # also key=VARIABLE (which environment variable has the key, by
default OCTAVO_REMOTE_KEY), style=jina|openai (else tried in turn), dimensions=N, query= and passage= (put before
texts), picture= (said with a picture to vLLM, as its model wants it), batch_bytes=N, timeout=SECONDS. Two texts and a
picture, sent at the start, tell what the server gives: a list of vectors for each input, or one; and whether it takes
pictures: if not, pages are embedded by their words. Vectors are JSON numbers (vLLM's base64 does not tell their
shape). An answer does not say where on the page a token lies, so there are no heat maps.
"""

from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from index.errors import OctavoError, QueryError
from ingest.page import Page, PageTokens, Render
from retriever.encoders.multivector import MultiVector
from retriever.encoders.remote_http import Endpoint, Refused, parse
from retriever.encoders.selfcheck import QUERIES, pictures

FAMILY = "remote"
TASKS = ("retrieval", "code", "text-matching")
PICTURE = "Describe the image."  # what the ColPali family was trained to see beside a page
MOST_INPUTS = 64  # of a request
_FORMS = ("jina tokens", "jina", "openai")
_UNLIKE = (400, 404, 405, 415, 422)  # statuses of a server that knows not this form of question
logger = logging.getLogger(__name__)


class RemoteEncoder(MultiVector):
    """An `Encoder` (ingest/page.py). The key is read from the environment for each request and kept nowhere."""

    render = Render(150, 4_000_000)
    batch_size = 16

    def __init__(
        self,
        address: str,
        *,
        task: str | None = None,
        attempts: int = 5,
        patience: float = 300.0,
        backoff: float = 0.5,
        most: int = 64 << 20,
    ) -> None:
        """task: of Jina's form, None for retrieval; attempts, patience (seconds), backoff (seconds): how often a server
        that is busy or down is asked; most: bytes read of the answer to one input. Raises QueryError for an address or
        option that is not one, OctavoError naming the server and what was wrong."""
        self.address = parse(address)
        given = self.address.options
        self.name, self._style = address, given.get("style", "")
        self._limit, timeout = _number(given, "batch_bytes", 8 << 20), float(_number(given, "timeout", 120))
        self._dimensions = _number(given, "dimensions", 0)
        self._endpoint = Endpoint(
            self.address, timeout=timeout, attempts=attempts, patience=patience, backoff=backoff, most=most
        )
        forms = (
            ["pooling"] if self.address.url.endswith("/pooling") else [f for f in _FORMS if f.startswith(self._style)]
        )
        forms = [form for form in forms if task is None or form.startswith("jina")]
        if not forms or task not in (None, *TASKS):
            raise QueryError(
                f"task and style of {self.address.url}: Jina's form has {', '.join(TASKS)}, others have none"
            )
        self.dim = 0
        self._recent: tuple[Any, list[np.ndarray]] = ((), [])
        found = self._first(forms, task)
        self.dim, self.tokens = found[0].shape[1], self._listed
        self.single_dim: int | None = None if self.tokens else self.dim
        self.sees = self._form != "openai" and self._tries_pictures()
        logger.warning("%s: pages and questions are sent to this server", self.address.url)

    def __repr__(self) -> str:
        return f"RemoteEncoder({self.address.url!r}, model={self._model!r})"

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What tells the space of the vectors, as far as an address and a name do: the weights cannot be seen."""
        given = self.address.options
        prompts = {name: given.get(name, "") for name in ("query", "passage")} | {"picture": self._said}
        sent = {
            "pictures": "png" if self.sees else "words",
            "dpi": self.render.dpi,
            "max_pixels": self.render.max_pixels,
        }
        kind: dict[str, Any] = {"name": self.name, "family": FAMILY, "address": self.address.url, "model": self._model}
        kind |= {"form": self._form, "task": self._task, "dimensions": self._dimensions, "prompts": prompts} | sent
        return kind | ({"dim": self.dim} if self.tokens else {"dim": self.dim, "vectors": "single"})

    def encode_pages(self, pages: Sequence[Page]) -> list[PageTokens]:
        """A page -> (t, d) of norm 1, of its picture; of its text where it is one or the server takes no pictures,
        t = 0 where there is none. The boxes are zeros."""
        items = [_text(page) if page.passage or not self.sees else page.image for page in pages]
        asked = [self._item(one) for one in items if not isinstance(one, str) or one.strip()]
        answers, none = iter(self._embed(asked, "passage")), np.zeros((0, self.dim), np.float32)
        found = [none if isinstance(one, str) and not one.strip() else next(answers) for one in items]
        return [
            PageTokens(one, np.zeros((len(one), 4), np.float32), None, None if self.tokens or not len(one) else one[0])
            for one in found
        ]

    def encode_queries(self, texts: Sequence[str]) -> list[np.ndarray]:
        """A text -> (m, d) of norm 1. The texts asked for last are remembered."""
        asked, found = self._recent
        if asked != tuple(texts):
            found = self._embed([self._item(text, "query") for text in texts], "query")
            self._recent = (tuple(texts), found)
        return list(found)

    def encode_queries_single(self, texts: Sequence[str]) -> np.ndarray:
        """(n, D), of a server that gives one vector for a text."""
        return np.concatenate(self.encode_queries(texts)) if texts else np.zeros((0, self.dim), np.float32)

    def query_tokens(self, texts: Sequence[str]) -> list[list[str]]:
        """A text -> itself where it has one vector; else empty strings, a server does not tell its tokens."""
        found = zip(texts, self.encode_queries(texts), strict=True)
        return [[""] * len(vectors) if self.tokens else [text] for text, vectors in found]

    # -- the first questions ------------------------------------------------------------------------------------------

    def _first(self, forms: list[str], task: str | None) -> list[np.ndarray]:
        """The vectors of two texts, in the first form that the server understands."""
        for form in forms:
            self._form, self._model = form, self.address.options.get("model", "")
            self._task = (task or "retrieval") if form.startswith("jina") else None
            self._said = self.address.options.get("picture", PICTURE) if form == "pooling" else ""
            try:
                found = self._ask([self._item(text, "query") for text in QUERIES], "query", True)
            except Refused as error:
                if error.status not in _UNLIKE or form == forms[-1]:
                    raise
                continue
            if found[0].shape == found[1].shape and np.abs(found[0] - found[1]).max() < 1e-6:
                raise self._wrong("gives two different texts the same vectors")
            return found
        raise AssertionError(forms)

    def _tries_pictures(self) -> bool:
        try:
            self._ask([self._item(pictures()[0])], "passage")
        except Refused as error:
            if error.status not in _UNLIKE:
                raise
            logger.warning("%s takes no pictures: pages are embedded by their words", self.address.url)
            return False
        return True

    # -- questions and answers ----------------------------------------------------------------------------------------

    def _item(self, one: str | np.ndarray, kind: str = "passage") -> Any:
        """An input as this form has it."""
        if isinstance(one, str):
            text = self.address.options.get(kind, "") + one
            return {"text": text} if self._form.startswith("jina") else text
        buffer = io.BytesIO()
        Image.fromarray(one).save(buffer, "PNG")
        return {"image": base64.b64encode(buffer.getvalue()).decode()}

    def _embed(self, items: Sequence[Any], kind: str) -> list[np.ndarray]:
        """All of them, in order, in batches of so many bytes; vLLM takes one picture at a time."""
        batches: list[list[Any]] = []
        size = 0
        for item in items:
            length = len(json.dumps(item))
            chat = self._form == "pooling" and (
                isinstance(item, dict) or (batches and isinstance(batches[-1][0], dict))
            )
            if not batches or chat or size + length > self._limit or len(batches[-1]) == MOST_INPUTS:
                batches.append([])
                size = 0
            batches[-1].append(item)
            size += length
        return [vectors for batch in batches for vectors in self._halving(batch, kind)]

    def _halving(self, batch: list[Any], kind: str) -> list[np.ndarray]:
        try:
            return self._ask(batch, kind)
        except Refused as error:
            if error.status != 413 or len(batch) == 1:
                raise
        half = len(batch) // 2
        return self._halving(batch[:half], kind) + self._halving(batch[half:], kind)

    def _ask(self, batch: list[Any], kind: str, first: bool = False) -> list[np.ndarray]:
        """A request -> (t, d) float32 of norm 1 for each input."""
        question: dict[str, Any] = {"input": batch}
        if self._form == "pooling" and isinstance(batch[0], dict):
            picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{batch[0]['image']}"}}
            said = [{"type": "text", "text": self._said}] * bool(self._said)
            question = {"messages": [{"role": "user", "content": [picture, *said]}]}
        named = self.address.options.get("model")
        question |= {"model": named} if named else {}
        question |= {"dimensions": self._dimensions} if self._dimensions else {}
        if self._task:
            question["task"] = self._task if self._task == "text-matching" else f"{self._task}.{kind}"
        question |= {"return_multivector": True} if self._form == "jina tokens" else {}
        answer = self._endpoint.ask(question, len(batch))
        if not isinstance(answer, dict) or not isinstance(answer.get("data"), list):
            raise self._wrong("answers without a list `data`")
        served = answer.get("model")
        if not named and (not isinstance(served, str) or not served or (not first and served != self._model)):
            raise self._wrong(f"answers as another model ({served!r:.80}) than at first; name one: #model=NAME")
        self._model = named or str(served)
        return self._vectors(answer["data"], len(batch), first)

    def _vectors(self, data: list[Any], count: int, first: bool) -> list[np.ndarray]:
        places: list[Any] = [item.get("index") if isinstance(item, dict) else None for item in data]
        if len(data) != count or any(type(place) is not int for place in places) or sorted(places) != [*range(count)]:
            raise self._wrong(f"answers {count} inputs with indexes {places!r:.80}; each once is expected")
        found = [np.zeros(0)] * count
        for place, item in zip(places, data, strict=True):
            found[place] = self._array(item)
        if first:
            self._listed, dim = found[0].ndim == 2, found[0].shape[-1]
        dim = dim if first else self.dim
        if any(one.ndim != 1 + self._listed or one.shape[-1] != dim or not one.size for one in found):
            expected = f"(t, {dim})" if self._listed else f"({dim},)"
            raise self._wrong(f"gives vectors of shapes {[one.shape for one in found]!r:.80}; {expected} is expected")
        return [self._normal(one.reshape(-1, dim)) for one in found]

    def _array(self, item: dict[str, Any]) -> np.ndarray:
        value = item.get("data") if self._form == "pooling" else item.get("embeddings", item.get("embedding"))
        try:
            found = np.asarray(value) if isinstance(value, list) else np.zeros((), object)
        except (ValueError, OverflowError, RecursionError):  # lists of unlike lengths, and worse
            found = np.zeros((), object)
        if found.dtype.kind not in "fi" or found.ndim not in (1, 2):
            raise self._wrong("gives vectors that are no lists of numbers of equal lengths")
        return found

    def _normal(self, vectors: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):
            norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
            if not (np.isfinite(norms).all() and (norms > 1e-12).all()):
                raise self._wrong("gives vectors that are zero or not finite")
            return (vectors / norms).astype(np.float32)

    def _wrong(self, what: str) -> OctavoError:
        return OctavoError(f"{self.address.url} {what}. Its vectors cannot be used; look at the server and its model")


def _text(page: Page) -> str:
    return page.passage or page.words.text


def _number(given: dict[str, str], name: str, default: int) -> int:
    text = given.get(name, str(default))
    if not text.isdecimal() or len(text) > 9 or (name in given and int(text) < 1):
        raise QueryError(f"#{name}= of the encoder's address: a whole number from 1 is expected")
    return int(text)
