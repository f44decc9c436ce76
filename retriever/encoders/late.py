"""Late-interaction encoders that share one code: ColPali, ColQwen2, 2.5, 3 and 3.5, ColModernVBERT, ColSmol, NeoMME.

Only inputs of one length share a batch, so nothing is ever padded and a page's vectors never depend on its batch. What
each family is, is a row of `late_rows`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from index.errors import OctavoError
from ingest.page import Render
from retriever.encoders.base import Embedding, PictureEncoder, Span, chosen
from retriever.encoders.batches import Told, in_batches, in_parts
from retriever.encoders.checkpoint import digests, read_json
from retriever.encoders.late_grid import Grid
from retriever.encoders.late_inputs import Qwen, Read, Reader, Tiles, Whole, picture_settings
from retriever.encoders.late_network import load
from retriever.encoders.late_rows import row_of
from retriever.encoders.tokens import FILE, Tokens

READERS: dict[str, type[Reader]] = {"qwen": Qwen, "whole": Whole, "tiles": Tiles, "grid": Grid}


class LateEncoder(PictureEncoder):
    """An `Encoder` (ingest/page.py). May be shared between threads; one runs at a time."""

    render = Render(150, 4_000_000)

    def __init__(
        self,
        folder: str | PathLike[str],
        *,
        base: str | PathLike[str] | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | str | None = None,
        batch_size: int = 8,
        name: str | None = None,
    ) -> None:
        """Load a model from a folder, or an adapter from it and the model that it adapts from `base`.

        device: None for CUDA where there is one; dtype: None for bfloat16 on a GPU and float32 elsewhere; name: what an
        index calls it, None for the path. Raises OctavoError naming the file or tensor that is wrong.
        """
        self.folder = Path(folder).expanduser().absolute()
        weights = Path(base).expanduser().absolute() if base is not None else self.folder
        config = read_json(weights, "config.json")
        row = row_of(config)
        if row is None or (base is not None and not row.adapted):
            raise OctavoError(f"{weights / 'config.json'}: {config.get('architectures')!r} is no family of this module")
        place, wanted = chosen(device, dtype)
        self.row, self._device = row, place
        self.network, files = load(self.folder, weights, config, row, place, wanted)
        backbone = self.network.vlm.config
        self._reader = READERS[row.reader](row, *picture_settings(self.folder), backbone)
        self._tokens = Tokens(self.folder, backbone.get_text_config().vocab_size)
        self._image: int = backbone.image_token_id
        if self._tokens.id_of(self._reader.image) != self._image:
            raise OctavoError(f"{self.folder}: {self._reader.image} is not the token {self._image} of config.json")
        self._turn = threading.Lock()
        self.weight_bytes, self.batch_size = wanted.itemsize, batch_size
        self.name = name or str(self.folder)
        self.dim = int(self.network.embedding_proj_layer.out_features)
        self.single_dim = int(self.network.embedding_proj_layer.in_features) if row.single else None
        self._digests = digests(self.folder, ["config.json", FILE, *(f.name for f in files if f.parent == self.folder)])
        if weights != self.folder:
            below = digests(weights, ["config.json", *(f.name for f in files if f.parent == weights)])
            self._digests |= {f"base/{file}": digest for file, digest in below.items()}

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Everything that, changed, changes the space of the vectors; dtype and device only round them."""
        return {
            "name": self.name,
            "family": self.row.name,
            "weights": self._digests,
            "prompts": [self.row.page, self._reader.query("{}")],
            "pictures": self._reader.settings,
            "dpi": self.render.dpi,
            "max_pixels": self.render.max_pixels,
        }

    def embed_pictures(self, pictures: Sequence[Any], progress: Told | None = None) -> list[Embedding]:
        """Each picture (path, PIL image, (H, W, 3) uint8) as a page."""

        def embed(part: Sequence[Any]) -> list[Embedding]:
            return self._embed([self._reader.read(picture) for picture in part])

        return in_parts(pictures, 4 * self.batch_size, embed, progress)

    def embed_queries(self, texts: Sequence[str]) -> list[Embedding]:
        """Each text as a query, with the tokens that the family adds to it."""
        return self._embed([Read(self._reader.query(text), np.zeros((0, 4), np.float32)) for text in texts])

    def query_tokens(self, texts: Sequence[str]) -> list[list[str]]:
        """A text -> its m tokens as they read, those of the prompt among them."""
        whole = [self._reader.query(text) for text in texts]
        found = zip(whole, self._encode(whole), strict=True)
        return [[text[start:end].strip() for start, end in encoding.offsets] for text, encoding in found]

    def _encode(self, texts: list[str]) -> list[Any]:
        return self._tokens.encode(texts, special=self._reader.special)

    def _embed(self, inputs: Sequence[Read]) -> list[Embedding]:
        ids = [np.array(encoding.ids, np.int64) for encoding in self._encode([one.text for one in inputs])]
        for one, row in zip(inputs, ids, strict=True):
            if int(self._reader.visual(row, self._image).sum()) != len(one.boxes):
                raise ValueError(f"a text holds {self._reader.image}, which stands for a picture; take it out")
        shapes = [
            (len(row), [tuple(array.shape) for array in one.pixels.values() if not self._reader.ragged])
            for one, row in zip(inputs, ids, strict=True)
        ]

        def run(places: list[int]) -> list[Embedding]:
            return self._batch([inputs[i] for i in places], np.stack([ids[i] for i in places]))

        return in_batches([len(row) for row in ids], self.batch_size, run, alike=shapes)

    @torch.no_grad()
    def _batch(self, inputs: Sequence[Read], ids: np.ndarray) -> list[Embedding]:
        visual = self._reader.visual(ids, self._image)
        with self._turn:
            given = self._reader.arrays(inputs, torch.from_numpy(ids), torch.from_numpy(visual), self.network.vlm)
            states, vectors = self.network(**{name: self._moved(array) for name, array in given.items()})
        singles = normalize(states.mean(dim=1), dim=-1).cpu() if self.row.single else [None] * len(inputs)
        vectors = vectors.cpu()
        found = []
        for place, one in enumerate(inputs):
            boxes = np.zeros((ids.shape[1], 4), np.float32)
            boxes[visual[place]] = one.boxes
            span = Span("image" if len(one.boxes) else "text", 0, ids.shape[1])
            found.append(Embedding(singles[place], vectors[place], boxes, [span], ids[place]))
        return found

    def _moved(self, array: torch.Tensor) -> torch.Tensor:
        dtype = self.network.embedding_proj_layer.weight.dtype if array.is_floating_point() else None
        return array.to(self._device, dtype)
