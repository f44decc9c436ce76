"""Inputs of several parts, against transformers run plainly: LoRA merged into the weights, positions its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import ADAPTER, DATA, JINA, base_weights
from safetensors.torch import load_file
from torch.nn.functional import linear, normalize

from retriever.encoders.jina_v4 import JinaV4
from retriever.encoders.jina_v4_inputs import END, TURN, VISION
from retriever.encoders.vision import grid_of, patches, rgb, size_of

PAGES = [DATA / "jina_v4" / "images" / f"page{i}.png" for i in range(3)]
START, IMAGE, STOP = 403, 406, 404


@pytest.fixture(scope="module")
def model() -> JinaV4:
    return JinaV4(JINA)


def merged(task: str) -> dict[str, torch.Tensor]:
    """The weights with the adapters of a task added in, under the names of transformers 5."""
    adapters, found = load_file(JINA / ADAPTER), {}
    for name, tensor in base_weights().items():
        name = name.replace("model.", "language_model.", 1) if name.startswith("model.") else name
        module = ("model." if name.startswith("language") else "") + name.removesuffix(".weight")
        down = adapters.get(f"base_model.model.{module}.lora_A.{task}.weight")
        up = adapters.get(f"base_model.model.{module}.lora_B.{task}.weight")
        found[name] = tensor if down is None or up is None else tensor + up @ down  # alpha = r: scaled by 1
    return found


def plainly(ids: np.ndarray, pictures: list[Any], model: JinaV4, task: str) -> tuple[torch.Tensor, torch.Tensor]:
    """States (t, hidden) and token vectors (t, d) of an input."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLModel

    weights = merged(task)
    projector = weights.pop("multi_vector_projector.weight"), weights.pop("multi_vector_projector.bias")
    del weights["lm_head.weight"]
    network = Qwen2_5_VLModel(Qwen2_5_VLConfig.from_pretrained(JINA)).eval()
    network.load_state_dict(weights, strict=True)
    tokens = torch.from_numpy(ids)[None]
    seen: dict[str, Any] = {}
    if pictures:
        grids = [grid_of(size_of(picture), model.steps) for picture in pictures]
        cut = [patches(rgb(picture), grid, model.steps) for picture, grid in zip(pictures, grids, strict=True)]
        seen = {
            "pixel_values": torch.from_numpy(np.concatenate(cut)),
            "image_grid_thw": torch.tensor([[1, *g] for g in grids]),
        }
    with torch.no_grad():
        kinds = (tokens == IMAGE).int()
        mask = torch.ones_like(tokens)
        states = network(input_ids=tokens, attention_mask=mask, mm_token_type_ids=kinds, **seen).last_hidden_state[0]
        return states, normalize(linear(states, *projector), dim=-1)


@pytest.mark.parametrize("task", ["retrieval", "text-matching", "code"])
@pytest.mark.parametrize(
    "parts",
    [
        [PAGES[0], "What was the revenue growth?"],
        ["before ", PAGES[1], " between ", PAGES[2], "after"],
        [PAGES[2], PAGES[0], PAGES[1]],
        [PAGES[0]],
        ["only a text"],
    ],
    ids=["page and text", "text around pages", "three pages", "list of one page", "list of one text"],
)
def test_several_parts_are_read_in_order(model: JinaV4, task: str, parts: list[Any]) -> None:
    pictures = [part for part in parts if not isinstance(part, str)]
    counts = [rows * columns // 4 for rows, columns in (grid_of(size_of(picture), model.steps) for picture in pictures)]
    text = TURN + "".join(part if isinstance(part, str) else VISION for part in parts) + END
    (whole,) = model._tokens.encode([text])
    left, wanted = iter(counts), []
    for token in whole.ids:
        wanted += [IMAGE] * next(left) if token == IMAGE else [token]

    found = model.encode([parts], task)[0]
    assert found.ids.tolist() == wanted
    assert [span.kind for span in found.spans] == ["text" if isinstance(part, str) else "image" for part in parts]
    ends = [span.end for span in found.spans]
    assert [span.start for span in found.spans] == [3, *ends[:-1]] and ends[-1] == len(wanted) - 2
    images = [span for span in found.spans if span.kind == "image"]
    for span, count in zip(images, counts, strict=True):
        assert found.ids[span.start : span.end].tolist() == [START, *[IMAGE] * count, STOP]

    states, vectors = plainly(found.ids, pictures, model, task)
    np.testing.assert_allclose(found.multi, vectors, rtol=0, atol=2e-6)
    pooled = states if len(images) < len(parts) else torch.cat([states[span.start : span.end] for span in images])
    np.testing.assert_allclose(found.single, normalize(pooled.mean(dim=0), dim=-1), rtol=0, atol=2e-6)
    cells = (
        np.concatenate([found.boxes[span.start + 1 : span.end - 1] for span in images]) if images else np.zeros((0, 4))
    )
    assert (cells[:, 2:] > cells[:, :2]).all() and not found.boxes[found.ids != IMAGE].any()
