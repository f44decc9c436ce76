r"""Training only: the upper layers of the encoder in the box, tuned together with its head.

    python -m retriever.training.box.tune --states /tmp/octavo-box-quality --xquad ../shared/data/xquad_pages \
        --pages PAGES --out OUT [--layers 3] [--device cuda] [--most 24]

Starts from the weights and the head that ship. All but the upper layers stay; what they make of the training texts, in
the windows that the encoder reads, is computed once and kept under --frozen. The loss and what a step asks are those
of `head`: cross entropy over MaxSim, and divergence from the order that the full states give, here those of the model
before it is tuned, or those and BM25 on pages of documents. Weights are rounded as they are trained (`upper`). Pages
that were read from pictures are not taken, as their words are not kept. `--most 24` takes so many of a step's pages,
and of its questions those that ask for them, which one core trains in seconds instead of half a minute.

OUT becomes a folder for `BoxEncoder(weights=OUT)`: states.onnx with the tuned layers, projection.safetensors, the other
files as they are (the smoothing factors of passages.onnx too) and weights.json. A killed run goes on from the last
step that it kept, in the file state.pt, which may be deleted after.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

from retriever.encoders.box.build import write_manifest
from retriever.encoders.box.build_e5 import LAYERS
from retriever.encoders.box.initialisers import initialisers
from retriever.encoders.box.weights import FOLDER, Weights
from retriever.training.box.frozen import Frozen, Reading
from retriever.training.box.head import ANSWER, Head, descend, picked
from retriever.training.box.hoods import Hoods
from retriever.training.box.pools import HALF, LANGUAGES, Picked, Pool, joined, load, relevant
from retriever.training.box.upper import Layer, Product

TUNED, STEPS, SEED = 3, 300, 0
RATE = 5e-4  # of the head's matrix
CODES, GAINS, REST = 4.0, 3.0, 0.3  # times as much: for codes, logarithms of steps, biases and norms


class Lessons(NamedTuple):
    """The pools of `head` or a pool of pages of documents, and their pages and questions as read."""

    known: list[Pool]
    pages: list[list[Reading]]
    questions: list[list[Reading]]


class Tuned(torch.nn.Module):
    """The head and the upper layers, as they ship before training."""

    def __init__(self, weights: Path, tuned: int, seed: int = SEED) -> None:
        """seed: of what the codes are dithered by (`upper`)."""
        super().__init__()
        stored, head = Weights(weights).read("states.onnx"), Weights(weights).tensors("projection.safetensors")
        self.head = Head(head["projection"], head["stress"])
        self.layers = torch.nn.ModuleList(Layer(initialisers(stored), k) for k in range(LAYERS - tuned, LAYERS))
        random = torch.Generator().manual_seed(seed)
        for product in self._products():
            product.dither(random)

    def states(self, readings: Sequence[Reading]) -> torch.Tensor:
        """States (sum of k, 384) of norm 1 of the pieces of all `readings` that get vectors."""
        device, shapes = self.head.projection.device, [(r.states.shape[0], r.states.shape[1]) for r in readings]
        starts = np.cumsum([0, *(w * t for w, t in shapes[:-1])]).tolist()
        places = torch.cat([r.places + start for r, start in zip(readings, starts, strict=True)]).to(device)
        states = torch.cat([r.states.flatten(0, 1) for r in readings]).to(device).float()
        for layer in self.layers:
            states = layer(states, shapes)
        return F.normalize(states[places], dim=1)

    def loss(self, lessons: Lessons, asked: Picked, words: torch.Tensor | None) -> torch.Tensor:
        """That of `Head` over states of the tuned layers; the order to be kept is that of `lessons.known`."""
        pages = [lessons.known[k].pages[i] for k, i in asked.pages]
        known = joined([lessons.known[k].questions[i] for k, i in asked.questions], asked.asks, pages)
        known = known.to(self.head.stress.device)
        read = [lessons.questions[k][i] for k, i in asked.questions] + [lessons.pages[k][i] for k, i in asked.pages]
        states, found = self.states(read).split([len(known.states), len(known.pages)])
        batch = known._replace(states=states * known.states.norm(dim=1, keepdim=True), pages=found)
        if words is None:
            return self.head.loss(batch, None, known)
        return self.head.loss(batch, words.to(states.device), known, ANSWER)

    def groups(self, rate: float) -> list[dict[str, Any]]:
        """The parameters and their rates, as `descend` takes them. rate: of the head's matrix."""
        products = self._products()
        codes, gains = [product.codes for product in products], [product.gains for product in products]
        others = {id(value) for value in (*codes, *gains)}
        rest = [value for value in self.layers.parameters() if id(value) not in others]
        times = ((codes, CODES), (gains, GAINS), (rest, REST))
        return [{"params": values, "lr": rate * most} for values, most in times] + self.head.groups(rate)

    def _products(self) -> list[Product]:
        return [module for module in self.layers.modules() if isinstance(module, Product)]


def fewer(asked: Picked, words: torch.Tensor | None, most: int, rng: np.random.Generator) -> tuple[Picked, Any]:
    """At most `most` of the pages, drawn, one that is asked for among them, and the questions that ask for them."""
    asks = asked.asks.numpy()
    order = rng.permutation(len(asked.pages))
    chosen = np.concatenate([asks[:1], order[order != asks[0]]])[:most]
    kept = np.flatnonzero(np.isin(asks, chosen))
    places = torch.from_numpy(np.array([np.flatnonzero(chosen == page)[0] for page in asks[kept]]))
    part = Picked([asked.questions[k] for k in kept], places, [asked.pages[k] for k in chosen])
    return part, None if words is None else words[kept][:, chosen]


def lesson(
    pools: Lessons, manuals: tuple[Hoods, Lessons] | None, step: int, seed: int, most: int
) -> tuple[Lessons, Picked, torch.Tensor | None]:
    """What a step is about, which depends on `seed` and `step` only: every second time pages of documents."""
    rng, words = np.random.default_rng((seed, step, 11)), None
    if manuals is not None and step % 2:
        asked, words = manuals[0].picked(step, seed)
        return manuals[1], *fewer(asked, words, most, rng)
    return pools, *fewer(picked(pools.known, step, seed), None, most, rng)


def train(
    model: Tuned,
    pools: Lessons,
    manuals: tuple[Hoods, Lessons] | None,
    out: Path,
    steps: int = STEPS,
    rate: float = RATE,
    seed: int = SEED,
    most: int = HALF,
) -> None:
    """Tunes `model` for `steps`, its state kept in `out`. manuals: without pages that were read."""
    descend(model, model.groups(rate), lambda step: model.loss(*lesson(pools, manuals, step, seed, most)), out, steps)


def export(model: Tuned, weights: Path, out: Path) -> None:
    """Writes the files of the encoder into `out`: those of `model`, all others as in `weights`, and weights.json."""
    known = Weights(weights)
    for name in known.digests:
        shutil.copyfile(weights / name, out / name)
    states = bytearray(known.read("states.onnx"))
    stored = initialisers(cast(bytes, states))  # views that can be written
    for layer in model.layers:
        cast(Layer, layer).store(stored)
    (out / "states.onnx").write_bytes(states)
    save_file(model.head.tensors(), out / "projection.safetensors")
    write_manifest(out)


def xquad(states: list[Path], folder: Path, frozen: Frozen) -> Lessons:
    """The pools of the first half of the pages. states: a file a language; folder: qrels.tsv, queries.jsonl, pdf."""
    import pymupdf

    asked = relevant(folder / "qrels.tsv")
    lines = (folder / "queries.jsonl").read_text("utf-8").splitlines()
    texts = {line["id"]: line["text"] for line in map(json.loads, lines)}
    known, pages, questions = [load(path, asked) for path in states], [], []
    for pool, language in zip(known, LANGUAGES, strict=True):
        document = pymupdf.open(folder / "pdf" / f"xquad_{language}.pdf")
        words = [[word[4] for word in document[k].get_text("words")] for k in range(HALF)]
        pages.append(frozen.pages([" ".join(page) for page in words]))
        questions.append(frozen.questions([texts[i] for i in pool.ids]))
    return Lessons(known, pages, questions)


def documents(folder: Path, head: np.ndarray, frozen: Frozen) -> tuple[Hoods, Lessons]:
    """The pages that `pages` wrote, by their text layers. head: (384, 128), by which the nearest are found."""
    hoods, told = Hoods(folder, head), json.loads((folder / "pages.json").read_text("utf-8"))
    hoods.read.clear()
    known = Pool(hoods.pages, hoods.questions, torch.zeros(0, dtype=torch.int64))
    questions = frozen.questions([text for page in told for text in page["asks"]])
    return hoods, Lessons([known], [frozen.pages([page["text"] for page in told])], [questions])


def main() -> None:
    """Tunes, or goes on, and writes the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=Path, required=True, help="folder with *_xquad_pages.LANGUAGE.npz")
    parser.add_argument("--encoder", default="*", help="digest that the names of the states begin with")
    parser.add_argument("--xquad", type=Path, required=True, help="folder of the set xquad_pages")
    parser.add_argument("--pages", type=Path, help="folder that retriever.training.box.pages wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--frozen", type=Path, default=Path("/tmp/octavo-box-frozen"))
    parser.add_argument("--layers", type=int, default=TUNED)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--most", type=int, default=HALF, help="pages of a step")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--seed", type=int, default=SEED)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given.out.mkdir(parents=True, exist_ok=True)
    model, frozen = Tuned(FOLDER, given.layers, given.seed), Frozen(FOLDER, given.layers, given.frozen, given.device)
    files = [next(given.states.glob(f"{given.encoder}_xquad_pages.{language}.npz")) for language in LANGUAGES]
    axes = model.head.projection.detach().numpy().copy()
    pools = xquad(files, given.xquad, frozen)
    manuals = documents(given.pages, axes, frozen) if given.pages else None
    train(model.to(given.device), pools, manuals, given.out, given.steps, given.rate, given.seed, given.most)
    export(model, FOLDER, given.out)


if __name__ == "__main__":
    main()
