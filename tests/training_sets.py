"""Pages in two colours, and questions that name them: what a tiny model can learn, and carry over to other pages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 190, 60),
    "blue": (40, 60, 220),
    "white": (250, 250, 250),
    "black": (10, 10, 10),
    "yellow": (240, 220, 40),
    "pink": (250, 130, 190),
}
PAIRS = [(top, bottom) for top in COLOURS for bottom in COLOURS if top != bottom]  # one colour alone is a blank page


def page(top: str, bottom: str) -> Image.Image:
    """56 x 56 pixels: two rows of two visual tokens."""
    pixels = np.empty((56, 56, 3), np.uint8)
    pixels[:28], pixels[28:] = COLOURS[top], COLOURS[bottom]
    return Image.fromarray(pixels)


def pages(folder: Path, pairs: Sequence[tuple[str, str]] = tuple(PAIRS)) -> Path:
    """A folder as octavo eval and octavo train read it."""
    (folder / "pages").mkdir(parents=True)
    queries, qrels = "", "query-id\tpage-id\trelevance\n"
    for top, bottom in pairs:
        page(top, bottom).save(folder / "pages" / f"{top}-{bottom}.png")
        queries += json.dumps({"id": f"{top}-{bottom}", "text": f"{top} over {bottom}"}) + "\n"
        qrels += f"{top}-{bottom}\t{top}-{bottom}.png#0\t1\n"
    (folder / "queries.jsonl").write_text(queries)
    (folder / "qrels.tsv").write_text(qrels)
    return folder
