"""Jina v4 against the vectors of the public implementation; batches, tasks, upstream's interface, refusals."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import ADAPTER, DATA, JINA, SHARDS, base_weights, copied, edit_json, edit_tensors
from PIL import Image
from safetensors.torch import load_file, save_file

from retriever.encoders.base import Span
from retriever.encoders.jina_v4 import JinaV4
from retriever.encoders.jina_v4_inputs import DESCRIBE
from retriever.encoders.vision import grid_of, patches, rgb, size_of

GOLDEN = DATA / "jina_v4"
TEXTS = json.loads((GOLDEN / "expected.json").read_text("utf-8"))["texts"]
PAGES = [GOLDEN / "images" / f"page{i}.png" for i in range(3)]
TASKS = ["retrieval", "text-matching", "code"]
LIMIT = 2e-5  # to the golden vectors
SAME = 2e-6  # whatever the batch


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "expected.npz") as found:
        return dict(found)


@pytest.fixture(scope="module")
def model() -> JinaV4:
    return JinaV4(JINA)


def close(found: Any, wanted: Any, limit: float = LIMIT) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(wanted), rtol=0, atol=limit, strict=True)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("prompt", ["query", "passage"])
def test_texts_equal_the_public_implementation(model: JinaV4, expected, task: str, prompt: str) -> None:
    key = f"text.{task}.{prompt}"
    singles = model.encode_text(TEXTS, task, prompt_name=prompt, return_numpy=True)
    close(np.stack(singles), expected[f"{key}.single"])
    both = model.encode(TEXTS, task, prompt_name=prompt)
    multis = model.encode_text(TEXTS, task, prompt_name=prompt, return_multivector=True)
    for i, (one, multi) in enumerate(zip(both, multis, strict=True)):
        assert one.ids.tolist() == expected[f"{key}.ids.{i}"].tolist()
        close(multi, expected[f"{key}.multi.{i}"])
        close(one.multi, expected[f"{key}.multi.{i}"])
        close(one.single, expected[f"{key}.single"][i])


@pytest.mark.parametrize("task", TASKS)
def test_pages_equal_the_public_implementation(model: JinaV4, expected, task: str) -> None:
    together = model.encode(PAGES, task)
    for i, one in enumerate(together):
        assert one.ids.tolist() == expected[f"image.ids.{i}"].tolist()
        close(one.single, expected[f"image.{task}.single"][i])
        close(one.multi, expected[f"image.{task}.multi.{i}"])
        close(model.encode_image(str(PAGES[i]), task)[None], expected[f"image.{task}.alone.single.{i}"])
        alone = model.encode_image([Image.open(PAGES[i])], task, return_multivector=True)[0]
        close(alone, expected[f"image.{task}.alone.multi.{i}"])
        close(alone, one.multi, SAME)


def test_patches_and_grids_equal_the_processor(model: JinaV4, expected) -> None:
    for i, page in enumerate(PAGES):
        grid = grid_of(size_of(page), model.steps)
        assert [[1, *grid]] == expected[f"image.grid_thw.{i}"].tolist()
        np.testing.assert_array_equal(patches(rgb(page), grid, model.steps), expected[f"image.pixel_values.{i}"])
    wanted = expected["image.max_pixels_15680.grid_thw.1"].tolist()
    assert [[1, *grid_of(size_of(PAGES[1]), model.steps, 15680)]] == wanted
    fewer = model.encode_image(PAGES[1], max_pixels=15680, return_multivector=True)
    assert len(fewer) == wanted[0][1] * wanted[0][2] // 4 + 12  # 12 tokens of prompt in this vocabulary


def test_rows_of_one_batch_have_tasks_of_their_own(model: JinaV4, expected) -> None:
    close(np.stack(model.encode_text(TEXTS[:3], TASKS, return_numpy=True)), expected["text.mixed_tasks.single"])
    inputs = [PAGES[0], TEXTS[0], PAGES[2], TEXTS[3], PAGES[1]]
    tasks = ["code", "retrieval", "text-matching", "code", "retrieval"]
    for one, task, found in zip(inputs, tasks, model.encode(inputs, tasks, batch_size=5), strict=True):
        alone = model.encode([one], task)[0]
        close(found.single, alone.single, SAME)
        close(found.multi, alone.multi, SAME)


def test_the_batch_changes_nothing_and_order_is_the_callers(model: JinaV4) -> None:
    inputs = [*TEXTS, *PAGES, "a longer text, " * 30, [PAGES[0], "what is this?"], [PAGES[1], PAGES[2]], ""]
    alone = [model.encode([one], prompt_name="passage")[0] for one in inputs]
    assert len({len(one.ids) for one in alone}) > 8, "they are of many lengths"
    for size in (2, 5, len(inputs)):
        order = np.random.default_rng(size).permutation(len(inputs))
        again = model.encode([inputs[i] for i in order], prompt_name="passage", batch_size=size)
        for place, found in zip(order, again, strict=True):
            assert found.ids.tolist() == alone[place].ids.tolist()
            close(found.single, alone[place].single, SAME)
            close(found.multi, alone[place].multi, SAME)


def test_both_kinds_of_vectors_come_from_one_pass(model: JinaV4) -> None:
    passes = []
    handle = model.network.model.language_model.register_forward_hook(lambda *_: passes.append(1))
    try:
        model.encode(TEXTS, batch_size=8)
        assert len(passes) == 1
        vectors, singles = model.encode_queries(TEXTS), model.encode_queries_single(TEXTS)
        assert len(passes) == 2, "an index asks for both"
    finally:
        handle.remove()
    close(np.stack(model.encode_text(TEXTS, return_numpy=True)), singles, SAME)
    assert [len(vector) for vector in vectors] == [len(tokens) for tokens in model.query_tokens(TEXTS)]
    assert model.query_tokens(["a b"]) == [["Query", ":", "", "a", "", "b"]]


def test_tasks_are_switched_without_a_copy(model: JinaV4) -> None:
    base = {n: p.data_ptr() for n, p in model.network.named_parameters() if ".lora_" not in n}
    adapters = {n: p for n, p in model.network.named_parameters() if ".lora_" in n}
    assert len(set(base.values())) == len(base) == len(base_weights()) - 1, (
        "once each, and no head of the language model"
    )
    assert {n.split(".")[-2] for n in adapters} == set(TASKS)
    resident = sum(p.numel() * p.element_size() for p in adapters.values())
    assert resident == sum(t.numel() * t.element_size() for t in load_file(JINA / ADAPTER).values())
    firsts = {task: model.encode_text("energy", task) for task in TASKS}
    assert min(float((firsts[a] - firsts[b]).abs().max()) for a, b in (TASKS[:2], TASKS[1:])) > 0.01
    for task in reversed(TASKS):
        close(model.encode_text("energy", task), firsts[task], 0)
    now = {n: p.data_ptr() for n, p in model.network.named_parameters() if ".lora_" not in n}
    assert now == base and not any(p.requires_grad for p in model.network.parameters())


def test_lists_of_pictures_are_documents_as_upstream(model: JinaV4) -> None:
    documents = model.encode_image([[str(PAGES[0]), str(PAGES[1])], [PAGES[2]]], return_multivector=True)
    wanted = model.encode([[PAGES[0], PAGES[1]], [PAGES[2]]])
    for document, one in zip(documents, wanted, strict=True):
        close(document, one.multi, SAME)
    page = model.encode([PAGES[2]])[0]
    assert len(page.ids) > len(wanted[1].ids), f"a single page is followed by {DESCRIBE!r}, a list is not"


def test_every_visual_token_has_its_cell(model: JinaV4) -> None:
    page = model.encode([PAGES[0]])[0]  # 224 x 308 pixels: 8 x 11 cells of 28 pixels
    visual = page.ids == 406
    assert visual.sum() == 88 and page.spans == [Span("image", 3, 93)]
    assert not page.boxes[~visual].any()
    wanted = [(x / 8, y / 11, (x + 1) / 8, (y + 1) / 11) for y in range(11) for x in range(8)]
    np.testing.assert_allclose(page.boxes[visual], wanted, atol=1e-7)


def test_truncated_vectors_are_normalised_again(model: JinaV4) -> None:
    whole = np.stack(model.encode_text(TEXTS, return_numpy=True))
    for dim in model.matryoshka_dims:
        wanted = whole[:, :dim] / np.linalg.norm(whole[:, :dim], axis=1, keepdims=True)
        close(np.stack(model.encode_text(TEXTS, truncate_dim=dim, return_numpy=True)), wanted, SAME)
    page = model.encode_image(PAGES[0], truncate_dim=16)
    assert page.shape == (16,) and float(page.norm()) == pytest.approx(1, abs=1e-6)
    short = JinaV4(JINA, truncate_dim=32)
    assert short.single_dim == 32 and short.encode_queries_single(TEXTS).shape == (5, 32)
    close(short.encode_queries_single(TEXTS), model.encode_text(TEXTS, truncate_dim=32, return_numpy=True), SAME)
    with pytest.raises(ValueError, match=r"truncate_dim 48: one of \[16, 32, 64\]"):
        model.encode_text("a", truncate_dim=48)


def test_results_come_as_upstream_gives_them(model: JinaV4) -> None:
    one, many = model.encode_text("a"), model.encode_text(["a"])
    assert isinstance(one, torch.Tensor) and one.shape == (64,) and isinstance(many, list)
    assert torch.equal(many[0], one) and one.dtype == torch.float32
    assert isinstance(model.encode_text("a", return_numpy=True), np.ndarray)
    array = model.encode_text(["a", "b"], return_numpy=True)
    assert isinstance(array, np.ndarray) and array.shape == (2, 64)
    assert isinstance(model.encode_image(PAGES[0]), torch.Tensor)
    assert model.encode_text([]) == [] and model.encode([]) == []
    assert torch.equal(
        model.encode_text("a", "text-matching"), model.encode_text("a", "text-matching", prompt_name="passage")
    )
    assert torch.equal(model.encode_text("a"), model.encode_text("a", prompt_name="query"))


def test_what_cannot_be_is_refused_in_words(model: JinaV4) -> None:
    with pytest.raises(ValueError, match="task 'clustering': one of retrieval, text-matching, code"):
        model.encode_text("a", "clustering")
    with pytest.raises(ValueError, match="2 tasks for 1 inputs"):
        model.encode_text(["a"], ["code", "code"])
    with pytest.raises(ValueError, match="prompt_name 'document': one of query, passage"):
        model.encode_text("a", prompt_name="document")
    with pytest.raises(ValueError, match="stands for a picture"):
        model.encode([[PAGES[0], "see <|image_pad|>"]])
    with pytest.raises(ValueError, match="no parts"):
        model.encode([[]])
    with pytest.raises(ValueError, match="201 x 1 pixels"):
        model.encode([Image.new("RGB", (201, 1))])
    with pytest.raises(ValueError, match="0 x 0 pixels"):
        model.encode_image(Image.new("RGB", (0, 0)))
    with pytest.raises(ValueError, match="tokens, at most 32,768 fit"):
        model.encode_image(Image.new("RGB", (5200, 5200)), max_pixels=10**9)
    free = JinaV4(JINA, task=None)
    with pytest.raises(ValueError, match="no task was given"):
        free.encode_text("a")
    free.task = "code"
    close(free.encode_text("a"), model.encode_text("a", "code"), 0)


def test_a_text_with_special_tokens_is_a_text(model: JinaV4) -> None:
    odd = "<|vision_start|><|image_pad|> <|im_end|>"
    both = model.encode([odd, PAGES[0]], batch_size=2)
    close(both[0].multi, model.encode([odd])[0].multi, SAME)
    close(both[1].multi, model.encode([PAGES[0]])[0].multi, SAME)
    assert both[0].spans == [Span("text", 0, len(both[0].ids))]


def test_long_texts_are_finite_and_cut_off_at_the_end(model: JinaV4) -> None:
    text = "energy consumption per capita and the revenue growth of the year " * 150
    half = JinaV4(JINA, dtype="bfloat16")
    whole, rounded = model.encode([text])[0], half.encode([text])[0]
    assert len(whole.ids) > 2500 and rounded.multi.isfinite().all()
    assert float(whole.single @ rounded.single) > 0.999
    assert float((whole.multi * rounded.multi).sum(dim=1).min()) > 0.99
    cut = model.encode([text], max_length=100)[0]
    close(cut.multi, whole.multi[:100], SAME)
    page, halved = model.encode(PAGES[:1])[0], half.encode(PAGES[:1])[0]
    assert float((page.multi * halved.multi).sum(dim=1).min()) > 0.99


def test_memory_that_runs_out_makes_batches_smaller(model: JinaV4, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, sizes, hidden = model.encode(TEXTS), [], model.network.hidden

    def scarce(rows, steps):
        sizes.append(len(rows))
        if len(rows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return hidden(rows, steps)

    monkeypatch.setattr(model.network, "hidden", scarce)
    told: list[tuple[int, int]] = []
    found = model.encode(TEXTS, batch_size=5, progress=lambda done, n: told.append((done, n)))
    assert sizes == [5, 2, 2, 1] and told == [(2, 5), (4, 5), (5, 5)]
    for one, other in zip(found, wanted, strict=True):
        close(one.multi, other.multi, SAME)


def test_threads_with_tasks_of_their_own_do_not_disturb_each_other(model: JinaV4) -> None:
    wanted = {task: model.encode(TEXTS, task) for task in TASKS}
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda task: (task, model.encode(TEXTS, task, batch_size=2)), TASKS * 4))
    for task, many in found:
        for one, other in zip(many, wanted[task], strict=True):
            close(one.multi, other.multi, SAME)


def test_other_ranks_scales_and_layouts_load(model: JinaV4, tmp_path: Path) -> None:
    folder = copied(tmp_path)
    weights = base_weights()
    del weights["lm_head.weight"]
    new = {}
    for name, tensor in weights.items():  # as transformers 5 writes them, in one file
        name = "model.language_model." + name[6:] if name.startswith("model.") else name
        new["model." + name if name.startswith("visual.") else name] = tensor
    for file in [*SHARDS, "model.safetensors.index.json", "chat_template.json", "added_tokens.json", "vocab.json"]:
        (folder / file).unlink()
    save_file(new, folder / "model.safetensors")
    edit_json(folder / "config.json", lambda c: c.update(tie_word_embeddings=True))
    wide = {"r": 16, "lora_alpha": 8, "lora_dropout": 0.0}  # twice the rank at half the scale: the same in the end
    edit_json(folder / "adapters" / "adapter_config.json", lambda c: c.update(wide))

    def widen(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            tensors[name] = torch.cat([tensor, tensor], dim=0 if "lora_A" in name else 1)

    edit_tensors(folder / ADAPTER, widen)
    other = JinaV4(folder)
    close(
        np.stack(other.encode_text(TEXTS, TASKS[:1] * 2 + TASKS)),
        np.stack(model.encode_text(TEXTS, TASKS[:1] * 2 + TASKS)),
    )
    close(other.encode_image(PAGES[0]), model.encode_image(PAGES[0]))
    edit_json(folder / "adapters" / "adapter_config.json", lambda c: c.update(use_rslora=True, lora_alpha=2))
    close(JinaV4(folder).encode_text("a"), model.encode_text("a"))  # 2 / sqrt(16), the same half


def test_the_fingerprint_is_what_changes_the_vectors(model: JinaV4, tmp_path: Path) -> None:
    shutil.copytree(JINA, tmp_path / "elsewhere")
    other = JinaV4(tmp_path / "elsewhere", dtype="bfloat16", name=model.name)
    assert other.fingerprint == model.fingerprint
    assert json.loads(json.dumps(model.fingerprint)) == model.fingerprint
    for change in ({"task": "code"}, {"max_pixels": 15680}, {"truncate_dim": 16}):
        assert JinaV4(JINA, **change).fingerprint != model.fingerprint
    edit_tensors(tmp_path / "elsewhere" / SHARDS[0], lambda t: t["model.norm.weight"].mul_(2))
    assert JinaV4(tmp_path / "elsewhere", name=model.name).fingerprint != model.fingerprint
