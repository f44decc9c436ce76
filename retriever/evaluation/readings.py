"""What the reader of the encoder in the box sees in pictures, kept apart from the vectors made of it.

A reading is a file of JSON named by the picture, in a folder named by the reader: its nets and its code. So a new head,
and a run that was killed, read nothing again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np

from ingest.page import Words
from retriever.encoders import box as package
from retriever.encoders.box import BoxEncoder, tesseract
from retriever.encoders.box.layer import blank

_NETS = (
    *("detector.onnx", "recogniser.onnx", "quick.onnx", "characters.json"),
    *("pieces.safetensors", "syllables.safetensors", "vietnamese.safetensors", "japanese.safetensors"),
)


class Readings:
    """A picture (H, W, 3) uint8 -> its words, read once. made_by: what, changed, changes them; spared: CPU seconds that
    the readings taken from the folder took when they were made."""

    def __init__(self, box: BoxEncoder, cache: Path) -> None:
        self._box, self.spared = box, 0.0
        modules = sorted(Path(package.__file__).parent.glob("*.py"))
        code = b"".join(module.read_bytes() for module in modules if not module.name.startswith("build"))
        other = tesseract.installed()
        self.made_by = {
            "nets": {name: box.fingerprint["weights"][name] for name in _NETS},
            "code": hashlib.sha256(code).hexdigest(),
            "tesseract": [other.version, *sorted(other.models)] if other else [],
        }
        self._folder = cache / "readings" / _digest(json.dumps(self.made_by, sort_keys=True).encode())
        self._folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, image: np.ndarray) -> Words:
        file = self._folder / f"{_digest(repr(image.shape).encode() + image.tobytes())}.json"
        if file.exists():
            kept = json.loads(file.read_text("utf-8"))
            self.spared += kept["seconds"]
            return Words(kept["texts"], np.array(kept["boxes"], np.float32).reshape(-1, 4))
        begun = time.process_time()
        words = Words() if blank(image) else self._box.reader.words(image)
        kept = {"texts": list(words.texts), "boxes": words.boxes.tolist(), "seconds": time.process_time() - begun}
        partial = file.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(kept), "utf-8")
        partial.rename(file)
        return words


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=12).hexdigest()
