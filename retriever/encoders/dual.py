"""CLIP, SigLIP and SigLIP 2, one vector a page: the single-vector rivals to compare with.

A tower for pictures and one for texts, of transformers' own classes and with its own Pillow processors. A page becomes
one square picture, of CLIP's only the middle, or (NaFlex) patches in its own shape; a text is cut to the length that
the model was trained with. The vector lies nowhere on its page: there is no heat map.
"""

from __future__ import annotations

import string
import threading
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers.normalizers import Lowercase
from torch.nn.functional import normalize

from index.errors import OctavoError
from ingest.page import Render
from retriever.encoders.base import Embedding, PictureEncoder, Span, chosen
from retriever.encoders.batches import Told, in_batches, in_parts
from retriever.encoders.checkpoint import check_depth, digests, load_strictly, on_meta, read_json, stored_tensors
from retriever.encoders.families import DUAL
from retriever.encoders.late_inputs import picture_settings
from retriever.encoders.late_network import config_of
from retriever.encoders.tokens import CONFIG, FILE, Tokens, special_tokens
from retriever.encoders.vision import Picture, check_aspect, rgb

MOST_PATCHES = 4096
_KNOWN = ("size", "crop_size", "resample", "rescale_factor", "image_mean", "image_std", "patch_size", "max_num_patches")
_STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class DualEncoder(PictureEncoder):
    """An `Encoder` (ingest/page.py) whose pages and queries have one token. May be shared between threads."""

    render = Render(150, 4_000_000)

    def __init__(
        self,
        folder: str | PathLike[str],
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | str | None = None,
        batch_size: int = 8,
        name: str | None = None,
    ) -> None:
        """device: None for CUDA where there is one; dtype: None for bfloat16 on a GPU and float32 elsewhere; name: what
        an index calls it, None for the path. Raises OctavoError naming the file or tensor that is wrong."""
        import transformers

        self.folder = Path(folder).expanduser().absolute()
        config, stored = read_json(self.folder, "config.json"), stored_tensors(self.folder)
        named = config.get("architectures")
        kind = next((kind for kind in DUAL if isinstance(named, list) and kind in named), "")
        if not kind:
            raise OctavoError(f"{self.folder / 'config.json'}: {named!r} is no CLIP or SigLIP")
        check_depth(self.folder, config, len(stored))
        described = config_of(self.folder, config, kind.replace("Model", "Config"))
        self._device, wanted = chosen(device, dtype)
        self.network = on_meta(lambda: getattr(transformers, kind)._from_config(described), self.folder)
        there = {tensor.key for tensor in stored}  # older files hold position_ids, which the network counts itself
        counted = {key: tuple(buffer.shape) for key, buffer in self.network.named_buffers() if key in there}
        load_strictly(self.network, stored, self.folder, str, self._device, wanted, counted)
        self.network.eval()
        clip, text = kind == "CLIPModel", described.text_config
        self._pictures, self._settings = _processor(kind, self.folder, described.vision_config)
        self._tokens, self._length = Tokens(self.folder, text.vocab_size), int(text.max_position_embeddings)
        ends = special_tokens(self.folder, ["bos_token" if clip else "pad_token", "eos_token"])
        self._other, self._end = (self._id(token) for token in ends.values())
        self._padded, self._canonical = not clip, _canonical(self.folder, clip)
        self._turn = threading.Lock()
        self.weight_bytes, self.batch_size = wanted.itemsize, batch_size
        self.name, self.family = name or str(self.folder), DUAL[kind]
        self.dim = int((self.network.text_projection if clip else self.network.text_model.head).out_features)
        self.single_dim: int | None = self.dim
        files = ["config.json", FILE, CONFIG, *(tensor.file.name for tensor in stored)]
        self._digests = digests(self.folder, files)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Everything that, changed, changes the space of the vectors; dtype and device only round them."""
        return {
            "name": self.name,
            "family": self.family,
            "vectors": "single",
            "weights": self._digests,
            "pictures": self._settings,
            "dpi": self.render.dpi,
            "max_pixels": self.render.max_pixels,
        }

    def embed_pictures(self, pictures: Sequence[Picture], progress: Told | None = None) -> list[Embedding]:
        """Each picture as a page. Raises ValueError where one side is over 200 times the other."""

        def embed(part: Sequence[Picture]) -> list[Embedding]:
            return self._embed(self.network.get_image_features, [self._read(picture) for picture in part], "image")

        return in_parts(pictures, 4 * self.batch_size, embed, progress)

    def embed_queries(self, texts: Sequence[str]) -> list[Embedding]:
        """Each text as a query, what is beyond the model's length cut off."""
        ids = [self._ids(text) for text in texts]
        return self._embed(self.network.get_text_features, [{"input_ids": torch.tensor([row])} for row in ids], "text")

    def query_tokens(self, texts: Sequence[str]) -> list[list[str]]:
        """A text -> itself, the one thing that its vector stands for."""
        return [[text] for text in texts]

    def _read(self, picture: Picture) -> dict[str, torch.Tensor]:
        image = rgb(picture)
        check_aspect(image.size)
        return dict(self._pictures(images=[image], return_tensors="pt"))

    def _ids(self, text: str) -> list[int]:
        """Of CLIP's, from its first token to its end; of SigLIP's, padded: it was trained to look at the padding."""
        start = [] if self._padded else [self._other]
        (encoding,) = self._tokens.encode([self._canonical(text)], special=False)
        ids = [*start, *encoding.ids[: self._length - len(start) - 1], self._end]
        return ids + [self._other] * (self._length - len(ids)) if self._padded else ids

    def _id(self, token: str) -> int:
        found = self._tokens.id_of(token)
        if found is None:
            raise OctavoError(f"{self.folder / FILE} has no token {token!r}, which {CONFIG} names")
        return found

    def _embed(self, tower: Callable[..., Any], inputs: list[dict[str, torch.Tensor]], kind: str) -> list[Embedding]:
        box, none = np.zeros((1, 4), np.float32), np.zeros(0, np.int64)

        @torch.no_grad()
        def run(places: list[int]) -> list[Embedding]:
            given = {name: torch.cat([inputs[i][name] for i in places]).to(self._device) for name in inputs[0]}
            with self._turn:
                vectors = normalize(tower(**given).pooler_output.float(), dim=-1).cpu()
            return [Embedding(one, one[None], box, [Span(kind, 0, 1)], none) for one in vectors]

        sizes = [next(iter(one.values())).shape[1] for one in inputs]
        return in_batches(sizes, self.batch_size, run, alike=sizes)


def _canonical(folder: Path, clip: bool) -> Callable[[str], str]:
    """What is done to a text before its tokens are sought: CLIP's tokenizer itself does all; SigLIP's texts were in
    small letters, those of its first version without punctuation too."""
    settings = read_json(folder, CONFIG)
    if clip or not settings.get("do_lower_case", True):
        return lambda text: text
    if str(settings.get("tokenizer_class")).startswith("SiglipTokenizer"):
        return lambda text: " ".join(text.lower().translate(_PUNCTUATION).split())
    return Lowercase().normalize_str


def _processor(kind: str, folder: Path, vision: Any) -> tuple[Any, dict[str, Any]]:
    """transformers' own, of Pillow, and what the folder tells it. Raises OctavoError for a step that is
    switched off, and where it does not make what the network takes."""
    import transformers

    found, path = picture_settings(folder)
    settings = {name: found[name] for name in _KNOWN if found.get(name) is not None}
    sizes = [size for name, size in settings.items() if name in ("size", "crop_size")]
    sides = [side for size in sizes for side in (size.values() if isinstance(size, dict) else [size])]
    side, most = None if kind == "Siglip2Model" else vision.image_size, settings.get("max_num_patches", 256)
    if any(one != side for one in sides) or type(most) is not int or not 0 < most <= MOST_PATCHES:
        raise OctavoError(f"{path}: size {sizes}, max_num_patches {most!r}; the model sees {side} pixels square")
    wanted = (1, 3, side, side) if side else (1, most, 3 * vision.patch_size**2)
    try:
        off = [step for step in _STEPS if found.get(step) is False]
        processor = getattr(transformers, kind.replace("Model", "ImageProcessorPil"))(**settings)
        made = tuple(processor(images=[np.zeros((8, 8, 3), np.uint8)], return_tensors="pt")["pixel_values"].shape)
    except Exception as error:  # of whatever kind its steps raise
        raise OctavoError(f"{path} is not usable: {str(error)[:300]}") from None
    if off or made != wanted:
        raise OctavoError(f"{path}: pictures of {made} with {off or 'no step'} off; {wanted} with all on are expected")
    return processor, settings
