"""The vectors that the late-interaction families' own code makes of the tiny checkpoints: tests/data/late_golden.npz.

    python tests/late_golden.py write FOLDER            where Octavo is installed
    python tests/late_golden.py compute FOLDER PART.npz FAMILY...   in an environment of the family's code
    python tests/late_golden.py join PARTS... tests/data/late_golden.npz

Environments: transformers 4.56.2 for colpali-hf and colqwen2-hf, which were published with its like (that of version 5
gives pages of ColQwen2 text positions); transformers 5.24 with colpali-engine 0.3.18 for the others. torchvision, which
resizes some pixels to the next of 256 levels, is there for NeoMME alone: with it others' pages differ by up to 6e-3.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from late_checkpoints import FAMILIES, QUERIES, pages, write

ENGINE = {
    "colpali": "ColPali",
    "colqwen2": "ColQwen2",
    "colqwen2.5": "ColQwen2_5",
    "colqwen3": "ColQwen3",
    "colqwen3.5": "ColQwen3_5",
    "colsmol": "ColIdefics3",
}
NATIVE = {"colpali-hf": "ColPali", "colqwen2-hf": "ColQwen2", "colmodernvbert-hf": "ColModernVBert", "neomme": "NeoMME"}


def loaded(family: str, folder: Path) -> tuple[Any, Any]:
    """The family's model and processor."""
    torchvision_imports()
    if family in NATIVE:
        import transformers

        model = getattr(transformers, f"{NATIVE[family]}ForRetrieval").from_pretrained(folder / "model")
        return model.eval(), getattr(transformers, f"{NATIVE[family]}Processor").from_pretrained(folder / "model")
    from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl as pillow

    sys.modules["transformers.models.qwen2_vl.image_processing_qwen2_vl"] = pillow  # theirs needs torchvision
    from colpali_engine import models
    from peft import PeftModel

    adapter = (folder / "base").exists()
    model = getattr(models, ENGINE[family]).from_pretrained(folder / ("base" if adapter else "model"))
    named = "ColQwen2_5_Processor" if family == "colqwen2.5" else f"{ENGINE[family]}Processor"
    kind = getattr(models, named)
    whole = adapted(PeftModel.from_pretrained(model, folder / "model"), folder / "model") if adapter else model
    if "Qwen" not in named:
        return whole.eval(), kind.from_pretrained(folder / "model")
    from transformers import PreTrainedTokenizerFast, ProcessorMixin

    kind.check_argument_for_proper_class = lambda self, name, argument: type(argument)  # no video without torchvision
    images = pillow.Qwen2VLImageProcessorPil.from_pretrained(folder / "model")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "model")
    assert issubclass(kind, ProcessorMixin)
    return whole.eval(), kind(image_processor=images, tokenizer=tokenizer, video_processor=None)


def torchvision_imports() -> None:
    """Let the registry's torchvision (for NeoMME) import beside torch's CPU build: name the operators it misses."""
    import re
    from importlib.util import find_spec

    found = find_spec("torchvision")
    if found is None or found.origin is None or "torchvision" in sys.modules:
        return
    text = Path(found.origin).with_name("_meta_registrations.py").read_text("utf-8")
    for name in set(re.findall(r'register_(?:meta|fake)\("(?:torchvision::)?(\w+)"', text)):
        torch.library.define(f"torchvision::{name}", "(Tensor a) -> Tensor")


def adapted(model: Any, folder: Path) -> Any:
    """With the adapter's tensors in their places, whatever the layout of its names; all of them are used."""
    from safetensors.torch import load_file

    left = dict(load_file(folder / "adapter_model.safetensors"))
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            ends = name.replace(".default.", ".").split("layers.")[-1]
            side = [key for key in left if key.endswith(ends) and ("layers." in key) == ("layers." in name)]
            (key,) = side
            parameter.data.copy_(left.pop(key))
    assert not left, sorted(left)[:5]
    return model


def neomme(processor: Any, item: Any) -> Any:
    """Inputs of a page (a picture) or of a query (a text)."""
    if not isinstance(item, str):
        return processor(images=[item.convert("RGB")], return_tensors="pt")
    turn = [[{"role": "user", "content": [{"type": "text", "text": item}]}]]
    return processor.apply_chat_template(
        turn, task="query", tokenize=True, return_dict=True, processor_kwargs={"return_tensors": "pt"}
    )


@torch.no_grad()
def compute(family: str, folder: Path) -> dict[str, np.ndarray]:
    """{family.pages|queries.i: (t, 32)}: each alone, so that nothing is padded."""
    model, processor = loaded(family, folder)
    found = {}
    for kind, items in (("pages", pages()), ("queries", QUERIES)):
        for place, item in enumerate(items):
            images = kind == "pages"
            if family == "neomme":
                inputs = neomme(processor, item)
            elif images:
                inputs = processor.process_images([item.convert("RGB")])
            elif family in NATIVE:
                inputs = processor.process_queries([item])
            else:
                inputs = processor.process_queries(texts=[item])
            if family == "colpali":  # its attention goes both ways, as transformers 4 had it without being asked
                inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
            inputs.pop("labels", None)
            out = model(**inputs)
            vectors = (out if isinstance(out, torch.Tensor) else out.embeddings)[0]
            if family == "neomme":
                found[f"{family}.{kind}.{place}.single"] = out.dense_embeddings[0].numpy()
            found[f"{family}.{kind}.{place}"] = vectors.numpy()[
                :, ::4
            ]  # every fourth dimension, to keep the file small
            found[f"{family}.{kind}.{place}.ids"] = inputs["input_ids"][0].numpy().astype(np.int16)
    return found


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    if command == "write":
        for each in FAMILIES:
            write(each, Path(rest[0]) / each)
    elif command == "compute":
        parts: dict[str, np.ndarray] = {}
        for each in rest[2:]:
            parts |= compute(each, Path(rest[0]) / each)
        np.savez_compressed(rest[1], **parts)
    else:
        whole: dict[str, np.ndarray] = {}
        for file in rest[:-1]:
            whole |= dict(np.load(file))
        np.savez_compressed(rest[-1], **whole)
