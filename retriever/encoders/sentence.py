"""Any `MultiVectorEncoder` of sentence-transformers 6: pages by their pictures if it takes those, else by their words.

sentence-transformers loads it (extra `sentence-transformers`); before that the folder is looked over: only its own
modules, no pickles; afterwards, what transformers reports as missing or unexpected is an error. Where on the page a
token lies is not known here, so there are no heat maps.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from index.errors import OctavoError
from ingest.page import Page, PageTokens, Render
from retriever.encoders.base import Embedding, PictureEncoder, Span, chosen, plain
from retriever.encoders.checkpoint import MAX_JSON, digests, read_json
from retriever.encoders.vision import rgb

FAMILY = "sentence-transformers"
MODULES = "modules.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_PLAIN = re.compile(r"\x1b\[[0-9;]*m")


class SentenceEncoder(PictureEncoder):
    """An `Encoder` (ingest/page.py). One thread runs at a time."""

    single_dim = None
    render = Render(150, 4_000_000)
    unit_norm = False  # whether vectors are of norm 1 is the model's own affair

    def __init__(
        self,
        folder: str | PathLike[str],
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | str | None = None,
        batch_size: int = 8,
        name: str | None = None,
    ) -> None:
        """device: None for CUDA where there is one; dtype: None for bfloat16 on a GPU and float32 elsewhere.

        Raises OctavoError for a folder that would run code, holds pickles only, or does not load whole.
        """
        self.folder = Path(folder).expanduser().absolute()
        files = _look_over(self.folder)
        try:
            from sentence_transformers import MultiVectorEncoder
        except ImportError:
            raise OctavoError(
                f"{self.folder} needs sentence-transformers 6: pip install 'octavo[sentence-transformers]'"
            ) from None
        place, wanted = chosen(device, dtype)
        options = {"dtype": wanted, "use_safetensors": True}
        with _whole(self.folder):
            self.model: Any = MultiVectorEncoder(
                str(self.folder),
                device=str(place),
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs=options,
            )
        self._turn = threading.Lock()
        self.sees = bool(self.model.supports("image"))
        self.weight_bytes, self.batch_size = wanted.itemsize, batch_size
        self.name = name or str(self.folder)
        self.dim = int(self.model.get_embedding_dimension() or 0)
        self._digests = digests(self.folder, files)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Everything that, changed, changes the space of the vectors; dtype and device only round them."""
        sizes = {"dpi": self.render.dpi, "max_pixels": self.render.max_pixels}
        return {"name": self.name, "family": FAMILY, "weights": self._digests, **sizes}

    def encode_pages(self, pages: Sequence[Page]) -> list[PageTokens]:
        """A page -> (t, d): of its picture, or of its words, t = 0 where it has none; the boxes are zeros."""
        if self.sees:
            return super().encode_pages(pages)
        texts = [page.words.text for page in pages]
        found = iter(self.embed_passages([text for text in texts if text.strip()]))
        vectors = [plain(next(found).multi) if text.strip() else np.zeros((0, self.dim), np.float32) for text in texts]
        return [PageTokens(one, np.zeros((len(one), 4), np.float32)) for one in vectors]

    def embed_pictures(self, pictures: Sequence[Any]) -> list[Embedding]:
        """Each picture as a document."""
        return self._embed(self.model.encode_document, [rgb(picture) for picture in pictures])

    def embed_passages(self, texts: Sequence[str]) -> list[Embedding]:
        """Each text as a document."""
        return self._embed(self.model.encode_document, list(texts))

    def embed_queries(self, texts: Sequence[str]) -> list[Embedding]:
        """Each text as a query."""
        return self._embed(self.model.encode_query, list(texts))

    def query_tokens(self, texts: Sequence[str]) -> list[list[str]]:
        """A text -> its m tokens as they read; empty strings where the model does not tell."""
        found = []
        for text, vectors in zip(texts, self.encode_queries(texts), strict=True):
            raw = self.model.encode_query([text], output_value=None, show_progress_bar=False)[0]
            ids = raw.get("input_ids", torch.zeros(0, dtype=torch.int64))
            kept = ids[raw["attention_mask"].bool()].tolist() if len(ids) == len(raw["attention_mask"]) else []
            names = [self.model.tokenizer.decode([token]).strip() for token in kept]
            found.append(names if len(names) == len(vectors) else [""] * len(vectors))
        return found

    def _embed(self, encode: Any, inputs: list[Any]) -> list[Embedding]:
        if not inputs:
            return []
        with self._turn:
            vectors = encode(inputs, batch_size=self.batch_size, show_progress_bar=False)
        return [
            Embedding(None, one.float().cpu(), np.zeros((len(one), 4), np.float32), [Span("text", 0, len(one))], _NONE)
            for one in vectors
        ]


_NONE = np.zeros(0, np.int64)


def _look_over(folder: Path) -> list[str]:
    """The files of the model, by their names in the folder. Raises OctavoError for what is not safe or not there."""
    path = folder / MODULES
    try:
        if path.stat().st_size > MAX_JSON:
            raise OctavoError(f"{path} is larger than any list of modules")
        modules = [(str(module["type"]), str(module["path"])) for module in json.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise OctavoError(f"{path} is no list of modules: {error!r}") from None
    for kind, place in modules:
        if not kind.startswith("sentence_transformers."):
            raise OctavoError(f"{path}: module {kind} is not sentence-transformers' own; no code of a model is run")
        inside = (folder / place).resolve()
        if inside != folder.resolve() and folder.resolve() not in inside.parents:
            raise OctavoError(f"{path}: {place!r} lies outside the folder")
        _no_code(inside)
        names = {file.suffix for file in inside.glob("*")}
        pickled = sorted(file.name for file in inside.glob("*") if file.suffix in _PICKLES)
        if pickled and ".safetensors" not in names:
            raise OctavoError(
                f"{inside} holds pickled weights ({', '.join(pickled[:3])}), which can run code when they are opened; "
                "only safetensors are read"
            )
    kept = (".safetensors", ".json", ".jinja")
    return [str(file.relative_to(folder)) for file in folder.rglob("*") if file.suffix in kept and file.is_file()]


def _no_code(folder: Path) -> None:
    """Raise OctavoError where a module's settings ask for code: of a repository, or a class that is not torch's."""
    for name in ("config.json", "sentence_bert_config.json", "config_sentence_transformers.json"):
        settings = read_json(folder, name) if (folder / name).is_file() else {}
        activation = settings.get("activation_function", "torch.nn.")
        if "trust_remote_code" in json.dumps(settings) or not str(activation).startswith("torch.nn."):
            raise OctavoError(f"{folder / name} asks for code to be run; no code of a model is")


@contextmanager
def _whole(folder: Path) -> Iterator[None]:
    """Raise OctavoError where, inside, transformers reports tensors that are missing, unexpected or misshapen."""
    told: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(_PLAIN.sub("", record.getMessage()))

    logger, listener = logging.getLogger("transformers.modeling_utils"), Listener(logging.WARNING)
    logger.addHandler(listener)
    logger.propagate, before = False, logger.propagate
    failed = ""
    try:
        yield
    except Exception as error:  # of whatever kind the two libraries raise
        failed = str(error)[:500]
    finally:
        logger.removeHandler(listener)
        logger.propagate = before
    reports = " ".join(" ".join(report.split()) for report in told if "LOAD REPORT" in report)
    if reports:
        raise OctavoError(f"{folder}: these are not the weights that its config describes: {reports[:2000]}")
    if failed:
        raise OctavoError(f"{folder} does not load: {failed}")
