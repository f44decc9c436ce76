"""What an encoder is measured by beside search: do pictures and texts meet, do similarities rank as people rank them.

alignment    mean cosine of a picture and its caption over 1,000 pairs, beside that of pairs that do not belong
             together (Eslami and de Melo, ICLR 2025); 1 is one space, 0 two
captions     recall@5 of the picture for a caption and of a caption for the picture, as CLIP benchmarks compute it
sentences    Spearman's correlation of cosine and score, as the STS tasks
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retriever.evaluation.mteb_models import EncoderModel, unit
from retriever.evaluation.pairs import Captioned, Sentences
from retriever.evaluation.significance import interval

PAIRS = 1000
_AT_ONCE = 16
Told = Callable[[str, int, int], None]


def spearman(one: Sequence[float] | np.ndarray, two: Sequence[float] | np.ndarray) -> float:
    """Spearman's rank correlation, ties at their mean rank; 0 where one of the two is constant."""
    a, b = _ranks(np.asarray(one, np.float64)), _ranks(np.asarray(two, np.float64))
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 0 else 0.0


def _ranks(values: np.ndarray) -> np.ndarray:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[places]


def measure_sentences(pairs: Sentences, encoder: Any, told: Told) -> list[dict[str, Any]]:
    """Spearman's correlation of the cosine of single vectors with the scores given."""
    model = EncoderModel(encoder)
    if "text-matching" in getattr(encoder, "task_names", ()):
        encoder.task = "text-matching"
    one, two = (_texts(model, texts, told) for texts in (pairs.one, pairs.two))
    value = spearman((unit(one) * unit(two)).sum(axis=1), pairs.scores)
    return [_row(pairs.name, "sentence pairs", "cosine spearman", value, len(pairs.scores))]


def measure_captions(pairs: Captioned, encoder: Any, told: Told) -> list[dict[str, Any]]:
    """Alignment, and recall@5 both ways, of single vectors, a language at a time."""
    model = EncoderModel(encoder)
    images = list(pairs.images)
    pictures = unit(_pictures(model, [pairs.images[name] for name in images], told))
    places = {name: place for place, name in enumerate(images)}
    languages: dict[str, list[Any]] = defaultdict(list)
    for caption in pairs.captions:
        languages[caption.lang].append(caption)
    rows = []
    for language, captions in languages.items():
        name = f"{pairs.name}, {language}" if language else pairs.name
        owners = np.array([places[caption.image] for caption in captions])
        texts = unit(_texts(model, [caption.text for caption in captions], told))
        some = np.random.default_rng(0).permutation(len(captions))[:PAIRS]
        scores = texts @ pictures.T
        rows += _alignment(name, scores[some], owners[some])
        rows += [
            _row(name, "captions", "text to image recall@5", found(scores, owners), len(captions)),
            _row(name, "captions", "image to text recall@5", found_back(scores, owners), len(set(owners.tolist()))),
        ]
    return rows


def _alignment(name: str, scores: np.ndarray, owners: np.ndarray) -> list[dict[str, Any]]:
    """scores: (n, m) cosines of texts and pictures; owners (n,): the picture of each text."""
    matching = scores[np.arange(len(owners)), owners]
    others = (scores.sum() - matching.sum()) / max(scores.size - len(owners), 1)
    low, high = interval([matching])
    row = _row(name, "alignment", "mean cosine, matching pairs", float(matching.mean()), len(owners))
    row["subsets"] = {"95 % low": low, "95 % high": high}
    return [row, _row(name, "alignment", "mean cosine, other pairs", float(others), scores.size - len(owners))]


def found(scores: np.ndarray, owners: np.ndarray, k: int = 5) -> float:
    """The share of texts whose picture is among their k best. scores: (texts, pictures)."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float((best == owners[:, None]).any(axis=1).mean())


def found_back(scores: np.ndarray, owners: np.ndarray, k: int = 5) -> float:
    """The share of pictures one of whose texts is among their k best, of those that have a text."""
    described = np.unique(owners)
    best = np.argsort(-scores[:, described], axis=0, kind="stable")[:k]
    return float((owners[best] == described[None]).any(axis=0).mean())


def _texts(model: EncoderModel, texts: Sequence[str], told: Told) -> np.ndarray:
    vectors: list[np.ndarray] = []
    for start in range(0, len(texts), _AT_ONCE):
        told("encoding texts", start, len(texts))
        vectors += model.embed({"text": texts[start : start + _AT_ONCE]}, "query")
    return np.stack(vectors)


def _pictures(model: EncoderModel, images: Sequence[Any], told: Told) -> np.ndarray:
    vectors: list[np.ndarray] = []
    for start in range(0, len(images), _AT_ONCE):
        told("encoding pictures", start, len(images))
        vectors += model.embed({"image": [_opened(image) for image in images[start : start + _AT_ONCE]]}, "document")
    return np.stack(vectors)


def _opened(image: Any) -> Image.Image:
    if isinstance(image, Path):
        return Image.open(image).convert("RGB")
    data = image["bytes"] if isinstance(image, dict) else image
    return Image.open(io.BytesIO(data)).convert("RGB") if isinstance(data, bytes) else data


def _row(task: str, kind: str, measure: str, value: float, n: int) -> dict[str, Any]:
    return {"task": task, "type": kind, "main_score": measure, "value": value, "n": n, "subsets": {}}
