"""A run: LoRA adapters of Jina v4 trained in the two phases of its own recipe (arXiv 2506.18902, section 4).

    pairs                        one adapter on pairs, text and pages in each step, from which all tasks then begin
    retrieval                    that of the task, with hard negatives, mined where pairs have none
    text-matching                with CoSENT on graded pairs, beside pairs where there are any
    code                         with triplets: pairs that name their negatives

The base is frozen. A run that is interrupted goes on with the same arguments and ends with the same weights.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from index.errors import OctavoError
from ingest.render import Renderer
from retriever.encoders.jina_v4 import JinaV4, Vectors
from retriever.training import state
from retriever.training.batches import Batch, Pictures, batch_of
from retriever.training.data import Material, Pair, batch_at, digest, split_off
from retriever.training.gradients import accumulate
from retriever.training.held_out import evaluate
from retriever.training.mining import with_negatives

PHASES = ("pairs", "retrieval", "text-matching", "code")
CLIP = 1.0  # the norm that gradients are cut down to
WARM = 0.05  # the share of the steps in which the rate rises; then it falls to 0
Told = Callable[[str, int, int], None]


def train(
    model: JinaV4,
    materials: Sequence[Material],
    folder: Path,
    *,
    phase: str = "pairs",
    steps: int = 1000,
    batch_size: int = 32,
    accumulated: int = 1,
    at_once: int = 4,
    rate: float = 1e-4,
    negatives: int = 4,
    held_out: float = 0.05,
    every: int = 100,
    seed: int = 0,
    told: Told | None = None,
) -> dict[str, Any]:
    """Train the adapter of a phase, write `folder`/model, and say how it went: model, steps, loss, evaluations, failed.

    batch_size: pairs whose documents are each other's negatives; accumulated: such batches a step; at_once: rows in
    memory; rate: the highest of AdamW; negatives: hard ones a pair; held_out: the share of queries that is evaluated on
    and not trained on; every: steps between states saved, and evaluations. The model is changed. Raises OctavoError for
    data that a phase cannot use, for the state of another run in `folder`, and where the loss is no number.
    """
    tell = told or (lambda what, done, total: None)
    task = model.task_names[0] if phase == "pairs" else phase
    folder.mkdir(parents=True, exist_ok=True)
    groups = _groups(model, materials, phase, negatives, folder, tell)
    split = [split_off(group, held_out, seed) for group in groups]
    learnt, held = [one for one, _ in split if one], [other for _, other in split]
    if not learnt:
        raise OctavoError("nothing is left to train on; give more pairs, or hold out a smaller share")
    settings = {
        "phase": phase,
        "steps": steps,
        "batch": [batch_size, accumulated, at_once],
        "rate": rate,
        "negatives": negatives,
        "held_out": held_out,
        "seed": seed,
        "model": digest([sorted(model.fingerprint["weights"].items())]),
        "data": [digest(group) for group in groups],
    }
    with Renderer() as renderer:
        run = _Run(model, task, Pictures(model, renderer), (batch_size, accumulated, at_once), seed)
        run.negatives = negatives if phase in ("retrieval", "code") else 0
        optimizer = torch.optim.AdamW(run.weights.values(), lr=rate, weight_decay=0.0)
        begun = step = state.restore(folder, run.weights, optimizer, settings)
        log = _log(folder, begun)
        while step < steps:
            tell("training", step, steps)
            if step == 0:
                _note(folder, log, {"step": 0, "held_out": run.evaluate(held)})
            for group in optimizer.param_groups:
                group["lr"] = rate * _share(step, steps)
            loss = run.gradients(learnt, step)
            norm = float(torch.nn.utils.clip_grad_norm_(run.weights.values(), CLIP))
            if not math.isfinite(loss + norm):
                raise OctavoError(f"the loss of step {step + 1} is no number; a lower rate, or float32, may help")
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            if step % every == 0 or step == steps:
                _note(folder, log, {"step": step, "loss": loss, "held_out": run.evaluate(held)})
                state.save(folder, run.weights, optimizer, step, settings)
            else:
                _note(folder, log, {"step": step, "loss": loss})
        failed = {f"{page.path}#{page.number - 1}": reason for page, reason in run.pictures.failed.items()}
    others = model.task_names if phase == "pairs" else [task]
    made = state.save_model(model.folder, folder / "model", run.weights, task, others)
    return {
        "model": made,
        "steps": steps,
        "begun_at": begun,
        "loss": next((line["loss"] for line in reversed(log) if "loss" in line), None),
        "evaluations": [line for line in log if line.get("held_out")],
        "failed": failed,
    }


class _Run:
    """The model in training. weights: what is trained, by peft's names."""

    negatives = 0

    def __init__(self, model: JinaV4, task: str, pictures: Pictures, sizes: tuple[int, int, int], seed: int) -> None:
        self.model, self.task, self.pictures, self.seed = model, task, pictures, seed
        self.batch_size, self.accumulated, self.at_once = sizes
        self.weights = model.trainable(task)
        language = model.network.model.language_model
        checkpointed = getattr(
            language, "activation_checkpointing_enable", None
        )  # its older name warns, where both are
        (checkpointed or language.gradient_checkpointing_enable)({"use_reentrant": False})

    def gradients(self, groups: Sequence[Sequence[Any]], step: int) -> float:
        """Add the gradients of a step: the mean over its batches of the sum over the groups. Returns that loss."""
        total = 0.0
        for number in range(step * self.accumulated, (step + 1) * self.accumulated):
            for place, group in enumerate(groups):
                items = [group[i] for i in batch_at(len(group), self.batch_size, number, self.seed)]
                batch = batch_of(self.model, items, self.task, self.pictures, self.negatives)
                if batch is not None:
                    total += self._of_batch(batch, f"{number} {place}")
        return total

    def _of_batch(self, batch: Batch, name: str) -> float:
        self.model.network.train()

        def embed(places: list[int], piece: int) -> list[Vectors]:
            devices = [self.model.network.device] if self.model.network.device.type == "cuda" else []
            with torch.random.fork_rng(devices):
                torch.manual_seed(int(digest([[self.seed, name, piece]])[:15], 16))
                return self.model.vectors([batch.rows[i] for i in places], [self.task] * len(places))

        sizes = [len(row.ids) for row in batch.rows]
        loss = accumulate(embed, sizes, self.at_once, lambda found: batch.loss(found) / self.accumulated)
        self.model.network.eval()
        return loss

    def evaluate(self, held: Sequence[Sequence[Any]]) -> dict[str, float]:
        return evaluate(self.model, held, self.task, self.pictures, self.batch_size, self.at_once)


def _groups(
    model: JinaV4, materials: Sequence[Material], phase: str, negatives: int, folder: Path, tell: Told
) -> list[list[Any]]:
    """What shares batches: pairs of texts, pairs of pages, graded pairs."""
    graded = [one for material in materials for one in material.graded]
    pairs: list[Pair] = []
    for material in materials:
        mined = phase == "retrieval" and material.pairs
        pairs += with_negatives(material, model, negatives, folder / "mining", tell) if mined else material.pairs
    if graded and phase != "text-matching":
        raise OctavoError(f"pairs with a score are for the phase text-matching, not for {phase}")
    if phase == "text-matching" and not graded:
        raise OctavoError("the phase text-matching needs a file of sentence1, sentence2, score")
    if phase == "code" and not all(pair.negatives for pair in pairs):
        raise OctavoError("the phase code needs triplets: rows of query, positive and negative")
    texts = [pair for pair in pairs if isinstance(pair.document, str)]
    pages = [pair for pair in pairs if not isinstance(pair.document, str)]
    return [group for group in (texts, pages, graded) if group]


def _share(step: int, steps: int) -> float:
    """Of the highest rate, at a step from 0."""
    warm = max(1, round(WARM * steps))
    return min((step + 1) / warm, (steps - step) / max(1, steps - warm))


def _log(folder: Path, step: int) -> list[dict[str, Any]]:
    """The lines of log.jsonl up to a step; later ones, of steps that are done again, go."""
    path = folder / "log.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if step and path.exists() else []
    kept = [line for line in lines if line["step"] <= step]
    path.write_text("".join(json.dumps(line) + "\n" for line in kept))
    return kept


def _note(folder: Path, log: list[dict[str, Any]], line: dict[str, Any]) -> None:
    log.append(line)
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
