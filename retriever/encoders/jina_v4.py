"""Jina Embeddings v4: pages and texts to one vector each and to a vector a token, for three tasks, in one pass.

Native on transformers 5 and peft, no code from the hub; values equal to the public implementation (tests/data/jina_v4).
Names and defaults of `encode_text` and `encode_image` are upstream's; `encode` gives both kinds of vectors and takes
text and several pictures in one input; on top of it lies the `Encoder` protocol of an index.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import normalize

from index.errors import OctavoError
from ingest.page import Render
from retriever.encoders.base import Embedding, PictureEncoder, chosen, plain
from retriever.encoders.batches import Told, in_batches
from retriever.encoders.checkpoint import digests, read_json
from retriever.encoders.jina_v4_inputs import (
    DESCRIBE,
    PAD,
    PREFIXES,
    Part,
    Row,
    parts_row,
    prefix_of,
    text_rows,
)
from retriever.encoders.jina_v4_network import load
from retriever.encoders.tokens import FILE, Tokens
from retriever.encoders.vision import Preprocessing, given

MAX_LENGTH = 32768
FAMILY = "jina-embeddings-v4"
Input = Part | Sequence[Part]


class Vectors(NamedTuple):
    """Of one input: single (D,), multi (t, d) or None."""

    single: torch.Tensor
    multi: torch.Tensor | None


class JinaV4(PictureEncoder):
    """An `Encoder` (ingest/page.py) and upstream's interface. May be shared between threads; one runs at a time."""

    def __init__(
        self,
        folder: str | PathLike[str],
        task: str | None = "retrieval",
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | str | None = None,
        max_pixels: int | None = None,
        truncate_dim: int | None = None,
        batch_size: int = 8,
        name: str | None = None,
    ) -> None:
        """Load the published layout from a folder. task: for calls that name none; device: None for CUDA where there is
        one; dtype: None for bfloat16 on a GPU and float32 elsewhere; max_pixels: of a page, None for what
        preprocessor_config.json says; truncate_dim: of single vectors; name: what an index calls it, None for the path.

        Raises OctavoError naming the file or tensor that is wrong.
        """
        self.folder = Path(folder).expanduser().absolute()
        self.config = read_json(self.folder, "config.json")
        place, wanted = chosen(device, dtype)
        self.steps = Preprocessing.read(
            read_json(self.folder, "preprocessor_config.json"), str(self.folder / "preprocessor_config.json")
        )
        self.network, self._adapters, files = load(self.folder, self.config, place, wanted)
        qwen = self.network.model.config
        self._tokens = Tokens(self.folder, qwen.text_config.vocab_size)
        self._image_token = qwen.image_token_id
        vision = qwen.vision_config
        ours = (vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)
        if (self.steps.patch, self.steps.merge, self.steps.temporal) != ours:
            raise OctavoError(
                f"{self.folder}: preprocessor_config.json cuts patches that config.json does not describe"
            )
        if self._tokens.id_of(PAD) != self._image_token:
            raise OctavoError(f"{self.folder}: {PAD} is not the token {self._image_token} that config.json names")
        self._turn = threading.Lock()
        self.task_names = self.network.task_names
        self.task = task
        hidden = qwen.text_config.hidden_size
        self.matryoshka_dims = [int(d) for d in self.config.get("matryoshka_dims") or [128, 256, 512, 1024, hidden]]
        self.truncate_dim = self._checked_dim(truncate_dim or self.config.get("truncate_dim"))
        self.max_pixels = max_pixels or self.steps.max_pixels
        self.batch_size = batch_size
        self.name = name or str(self.folder)
        self.dim = int(self.network.multi_vector_projector.out_features)
        self.single_dim = self.truncate_dim or hidden
        self.render = Render(150 if self.max_pixels <= 2_000_000 else 300, max(4_000_000, self.max_pixels))
        self.weight_bytes = wanted.itemsize
        self._digests = digests(self.folder, ["config.json", FILE, *(str(f.relative_to(self.folder)) for f in files)])

    @property
    def task(self) -> str | None:
        """The task of calls that name none."""
        return self._task

    @task.setter
    def task(self, task: str | None) -> None:
        self._task = None if task is None else self._checked_task(task)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Everything that, changed, changes the space of the vectors; dtype and device only round them."""
        return {
            "name": self.name,
            "family": FAMILY,
            "weights": self._digests,
            "task": self.task,
            "prompts": [*PREFIXES.values(), DESCRIBE],
            "min_pixels": self.steps.min_pixels,
            "max_pixels": self.max_pixels,
            "truncate_dim": self.truncate_dim,
            "dpi": self.render.dpi,
        }

    # -- upstream's interface -----------------------------------------------------------------------------------------

    def encode_text(
        self,
        texts: str | Sequence[str],
        task: str | Sequence[str] | None = None,
        max_length: int = MAX_LENGTH,
        batch_size: int = 8,
        return_multivector: bool = False,
        return_numpy: bool = False,
        truncate_dim: int | None = None,
        prompt_name: str | None = None,
        progress: Told | None = None,
    ) -> Any:
        """A text -> (D,) of norm 1, or with return_multivector (t, d); a list of texts -> a list of those.

        task: one for all, or one for each text; prompt_name: `query` (also where None) or `passage`; truncate_dim: one
        of `matryoshka_dims`, for single vectors; max_length: tokens, what is longer is cut off. Tensors on the CPU,
        float32; with return_numpy numpy arrays, of a list's single vectors one (n, D). Raises ValueError for what is
        not one of these.
        """
        many = [texts] if isinstance(texts, str) else list(texts)
        tasks = self._tasks(task, len(many))
        rows = self._text_rows(many, tasks, prompt_name, max_length)
        found = self._run(rows, tasks, batch_size, return_multivector, truncate_dim, progress)
        return _as_upstream(found, return_multivector, return_numpy, isinstance(texts, str))

    def encode_image(
        self,
        images: Any,
        task: str | Sequence[str] | None = None,
        batch_size: int = 8,
        return_multivector: bool = False,
        return_numpy: bool = False,
        truncate_dim: int | None = None,
        max_pixels: int | None = None,
        progress: Told | None = None,
    ) -> Any:
        """A picture (path, http(s) address, PIL image or (H, W, 3) uint8) -> as `encode_text`; a list -> a list.

        A list inside the list is several pictures of one document. max_pixels: width x height a picture is brought
        down to. Raises ValueError, FileNotFoundError, OctavoError for what cannot be read.
        """
        many = list(images) if isinstance(images, list | tuple) else [images]
        tasks = self._tasks(task, len(many))
        rows = [
            self._row([given(part) for part in image] if isinstance(image, list | tuple) else given(image), max_pixels)
            for image in many
        ]
        found = self._run(rows, tasks, batch_size, return_multivector, truncate_dim, progress)
        return _as_upstream(found, return_multivector, return_numpy, not isinstance(images, list | tuple))

    # -- both kinds of vectors, all kinds of inputs -------------------------------------------------------------------

    def encode(
        self,
        inputs: Sequence[Input],
        task: str | Sequence[str] | None = None,
        *,
        prompt_name: str | None = None,
        multi: bool = True,
        truncate_dim: int | None = None,
        max_pixels: int | None = None,
        max_length: int = MAX_LENGTH,
        batch_size: int | None = None,
        progress: Told | None = None,
    ) -> list[Embedding]:
        """Each input -> single and token vectors from one forward pass.

        An input is a text (str), a picture (Path, PIL image, (H, W, 3) uint8), or a list of them that belong together:
        read in that order, as one turn of the chat template. Its single vector is the mean over the spans of its
        pictures, over all tokens where a text is among the parts; texts inside a list get no prefix. Raises ValueError.
        """
        tasks = self._tasks(task, len(inputs))
        rows = self.rows(inputs, tasks, prompt_name, max_pixels, max_length)
        return self._run(rows, tasks, batch_size or self.batch_size, multi, truncate_dim, progress)

    def rows(
        self,
        inputs: Sequence[Input],
        tasks: Sequence[str],
        prompt_name: str | None = None,
        max_pixels: int | None = None,
        max_length: int = MAX_LENGTH,
    ) -> list[Row]:
        """Inputs as `encode` takes them, with the task of each, tokenised. Raises ValueError."""
        texts = [place for place, one in enumerate(inputs) if isinstance(one, str)]
        named = self._text_rows([inputs[i] for i in texts], [tasks[i] for i in texts], prompt_name, max_length)
        found = dict(zip(texts, named, strict=True))
        for place, one in enumerate(inputs):
            if place not in found:
                found[place] = self._row(one, max_pixels)
        return [found[place] for place in range(len(inputs))]

    def vectors(self, rows: Sequence[Row], tasks: Sequence[str], multi: bool = True) -> list[Vectors]:
        """Each row -> the mean (D,) and, where asked for, the tokens (t, d), of norm 1, float32, where the model lies.

        One forward pass, differentiable where gradients are on: what training runs.
        """
        with self._turn, self._adapters.switched(tasks):
            hidden = self.network.hidden(rows, self.steps)
            projected = self.network.multi_vector_projector(hidden) if multi else None
        found = []
        for place, row in enumerate(rows):
            states = hidden[place, : len(row.ids)].float()
            mean = states[torch.from_numpy(row.pooled).to(states.device)].mean(dim=0)
            tokens = None if projected is None else normalize(projected[place, : len(row.ids)].float(), dim=-1)
            found.append(Vectors(normalize(mean, dim=-1), tokens))
        return found

    def trainable(self, task: str) -> dict[str, torch.nn.Parameter]:
        """Make the adapter of a task, and nothing else, what gradients are of -> its float32 weights by stored name."""
        return self._adapters.trainable(self.network, self._checked_task(task))

    # -- Encoder ------------------------------------------------------------------------------------------------------

    def embed_pictures(self, pictures: Sequence[Any]) -> list[Embedding]:
        """Each picture as a page."""
        return self.encode(pictures)

    def embed_queries(self, texts: Sequence[str]) -> list[Embedding]:
        """Each text as a query."""
        return self.encode(texts, prompt_name="query")

    def embed_passages(self, texts: Sequence[str]) -> list[Embedding]:
        """Each text as a document."""
        return self.encode(texts, prompt_name="passage")

    def query_key(self) -> Any:
        """What, changed, changes the embedding of a query."""
        return self._one_task(), self.truncate_dim

    def query_tokens(self, texts: Sequence[str]) -> list[list[str]]:
        """A text -> its m tokens as they read, the prefix among them."""
        prefix = prefix_of(self._one_task(), "query")
        whole = [f"{prefix}: {text}" for text in texts]
        found = zip(whole, self._tokens.encode(whole), strict=True)
        return [[text[start:end].strip() for start, end in e.offsets[:MAX_LENGTH]] for text, e in found]

    # -- inside -------------------------------------------------------------------------------------------------------

    def _run(
        self,
        rows: Sequence[Row],
        tasks: Sequence[str],
        batch_size: int,
        multi: bool,
        truncate_dim: int | None,
        progress: Told | None,
    ) -> list[Embedding]:
        dim = self._checked_dim(truncate_dim) or self.truncate_dim
        too_long = max((len(row.ids) for row in rows), default=0)
        if too_long > MAX_LENGTH:
            raise ValueError(f"an input has {too_long:,} tokens, at most {MAX_LENGTH:,} fit; lower max_pixels")

        def run(places: list[int]) -> list[Embedding]:
            return self._batch([rows[i] for i in places], [tasks[i] for i in places], multi, dim)

        return in_batches([len(row.ids) for row in rows], batch_size, run, progress)

    @torch.no_grad()
    def _batch(self, rows: Sequence[Row], tasks: Sequence[str], multi: bool, dim: int | None) -> list[Embedding]:
        found = []
        for row, (single, tokens) in zip(rows, self.vectors(rows, tasks, multi), strict=True):
            if dim is not None:
                single = normalize(single[:dim], dim=-1)
            vectors = None if tokens is None else tokens.cpu()
            found.append(Embedding(single.cpu(), vectors, row.boxes(self.steps.merge), row.spans, row.ids))
        return found

    def _text_rows(
        self, texts: Sequence[Any], tasks: Sequence[str], prompt_name: str | None, max_length: int
    ) -> list[Row]:
        if not 1 <= max_length <= MAX_LENGTH:
            raise ValueError(f"max_length {max_length}: 1 to {MAX_LENGTH} is expected")
        whole = [f"{prefix_of(task, prompt_name)}: {text}" for text, task in zip(texts, tasks, strict=True)]
        return text_rows(self._tokens, whole, max_length)

    def _row(self, one: Any, max_pixels: int | None) -> Row:
        parts, prompt = (one, "") if isinstance(one, list | tuple) else ([one], DESCRIBE)
        if not parts:
            raise ValueError("an input has no parts; give it a text or a picture")
        return parts_row(self._tokens, parts, self._image_token, self.steps, max_pixels or self.max_pixels, prompt)

    def _tasks(self, task: str | Sequence[str] | None, n: int) -> list[str]:
        if task is None or isinstance(task, str):
            return [self._checked_task(task) if task is not None else self._one_task()] * n
        tasks = [self._checked_task(one) for one in task]
        if len(tasks) != n:
            raise ValueError(f"{len(tasks)} tasks for {n} inputs; give one, or one for each")
        return tasks

    def _one_task(self) -> str:
        if self.task is None:
            raise ValueError(f"no task was given; it is one of {', '.join(self.task_names)}")
        return self.task

    def _checked_task(self, task: str) -> str:
        if task not in self.task_names:
            raise ValueError(f"task {task!r}: one of {', '.join(self.task_names)} is expected")
        return task

    def _checked_dim(self, dim: int | None) -> int | None:
        if dim is not None and dim not in self.matryoshka_dims:
            raise ValueError(f"truncate_dim {dim}: one of {self.matryoshka_dims} is expected")
        return dim


def _as_upstream(embedded: Sequence[Embedding], multi: bool, as_numpy: bool, alone: bool) -> Any:
    found = [one.multi if multi else one.single for one in embedded]
    if not as_numpy:
        return found[0] if alone else found
    arrays = [plain(one) for one in found]
    return arrays[0] if alone else arrays if multi else np.array(arrays)
