"""Runs on the tiny model: pages learnt by heart, held-out pairs learnt too, a kill survived, each phase."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import ADAPTER, JINA, SHARDS, copied, edit_json
from safetensors.torch import load_file
from training_sets import PAIRS, pages

from index.errors import OctavoError
from retriever import load_encoder
from retriever.cli import main
from retriever.encoders.jina_v4 import JinaV4
from retriever.evaluation.datasets import from_folder
from retriever.evaluation.run import run
from retriever.training.data import read
from retriever.training.run import train


def trained(source: Path, folder: Path, **options: Any) -> dict[str, Any]:
    """A run of a fresh tiny model over a folder of pages."""
    return train(JinaV4(JINA), read(str(source), "train", folder / "cache"), folder / "out", at_once=64, **options)


def test_32_pages_are_learnt_by_heart(tmp_path: Path) -> None:
    source = pages(tmp_path / "set", PAIRS[:32])
    questions = from_folder(source)
    base = copied(tmp_path)  # nothing is dropped where all is to be remembered
    edit_json(base / "adapters" / "adapter_config.json", lambda config: config.update(lora_dropout=0.0))
    material = read(str(source), "train", tmp_path / "cache")
    done = train(JinaV4(base), material, tmp_path / "out", steps=100, rate=5e-3, held_out=0.0, every=100, at_once=64)
    found = {}
    for name, folder in (("before", base), ("after", done["model"])):
        result = run(questions, load_encoder(folder), tmp_path / name, modes=["visual"])[0]
        found[name] = list(result.values["ndcg@5"].values())
    assert sum(found["before"]) < 0.5 * 32 and found["after"] == [1.0] * 32


def test_the_loss_on_pairs_that_are_held_out_falls(tmp_path: Path) -> None:
    done = trained(pages(tmp_path / "set"), tmp_path, steps=20, rate=1e-2, held_out=0.25, every=10, seed=5)
    first, middle, last = (line["held_out"] for line in done["evaluations"])
    assert first["loss"] > 1.5 * middle["loss"] > 1.5 * last["loss"]
    assert last["ndcg@5_multi"] > first["ndcg@5_multi"] and last["ndcg@5_single"] > first["ndcg@5_single"]


class Killed(BaseException):
    pass


def test_a_run_that_was_killed_ends_with_the_same_weights(tmp_path: Path) -> None:
    source = pages(tmp_path / "set", PAIRS[:10])
    options: dict[str, Any] = {"steps": 5, "rate": 1e-3, "held_out": 0.2, "every": 2, "batch_size": 4, "accumulated": 2}
    whole = trained(source, tmp_path / "whole", **options)

    def kill(what: str, done: int, total: int) -> None:
        if (what, done) == ("training", 3):
            raise Killed

    with pytest.raises(Killed):
        trained(source, tmp_path / "parts", **options, told=kill)
    with pytest.raises(OctavoError, match=r"other settings \(rate 0.001, now 0.002\)"):
        trained(source, tmp_path / "parts", **options | {"rate": 2e-3})
    torch.manual_seed(17)
    parts = trained(source, tmp_path / "parts", **options)
    assert (whole["begun_at"], parts["begun_at"]) == (0, 2)
    assert parts["evaluations"] == whole["evaluations"] and parts["loss"] == whole["loss"]
    logs = [(tmp_path / name / "out" / "log.jsonl").read_text() for name in ("whole", "parts")]
    assert logs[0] == logs[1] and [json.loads(line)["step"] for line in logs[0].splitlines()] == [0, 1, 2, 3, 4, 5]
    wanted, found = load_file(whole["model"] / ADAPTER), load_file(parts["model"] / ADAPTER)
    assert wanted.keys() == found.keys() and all(torch.equal(wanted[name], found[name]) for name in wanted)
    shards = [path for path in whole["model"].iterdir() if path.suffix == ".safetensors"]
    assert {path.name for path in shards} == set(SHARDS) and all(path.samefile(JINA / path.name) for path in shards)
    assert not (whole["model"] / "config.json").samefile(JINA / "config.json")
    before = load_file(JINA / ADAPTER)
    assert all(not torch.equal(before[name], wanted[name]) for name in wanted)
    again = trained(source, tmp_path / "parts", **options)
    assert again["begun_at"] == 5 and again["loss"] == whole["loss"]
    (tmp_path / "parts" / "out" / "state.safetensors").write_bytes(b"not a state")
    with pytest.raises(OctavoError, match="is damaged"):
        trained(source, tmp_path / "parts", **options)


def test_each_phase_trains_its_own_adapter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, sts = tmp_path / "code.jsonl", tmp_path / "sts.tsv"
    rows = [{"query": f"add {n}", "positive": f"x + {n}", "negative": f"x - {n}"} for n in range(6)]
    code.write_text("\n".join(map(json.dumps, rows)))
    graded = [f"{n} cats\t{m} cats\t{5 - abs(n - m)}" for n in range(4) for m in range(3)]
    sts.write_text("\n".join(["sentence1\tsentence2\tscore", *graded]))
    shown = pages(tmp_path / "set", PAIRS[:8])

    def command(phase: str, source: Path, *more: str) -> int:
        out = ["--model", str(JINA), "--out", str(tmp_path / phase), "--phase", phase, "--every", "3", "--steps", "3"]
        return main(["train", str(source), *out, "--batch", "4", "--held-out", "0.25", "--rate", "0.01", *more])

    before = load_file(JINA / ADAPTER)
    for phase, source in (("retrieval", shown), ("text-matching", sts), ("code", code)):
        assert command(phase, source, "--json") == 0
        done = json.loads(capsys.readouterr().out)
        after = load_file(Path(done["model"]) / ADAPTER)
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed == {name for name in before if f".{phase}." in name}
        assert [line["step"] for line in done["evaluations"]] == [0, 3]
        assert load_encoder(done["model"], task=phase).encode_queries(["a"])[0].shape[1] == 128
    (mined,) = (tmp_path / "retrieval" / "mining").glob("*.json")
    for (top, bottom), negatives in zip(PAIRS[:8], json.loads(mined.read_text()), strict=True):
        names = [Path(path).name for path, _ in negatives]
        assert 1 <= len(names) <= 4 and f"{top}-{bottom}.png" not in names
    assert command("text-matching", code) == 3 and "needs a file of sentence1" in capsys.readouterr().err
    assert command("code", shown) == 3 and "needs triplets" in capsys.readouterr().err
    assert command("pairs", sts) == 3 and "not for pairs" in capsys.readouterr().err
