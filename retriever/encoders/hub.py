"""Where a model's files are: a folder, or a repository of the Hugging Face hub at a pinned revision.

Downloads go through huggingface_hub, which honours HF_HOME and HF_HUB_OFFLINE; code and pickles are not even fetched.
"""

from __future__ import annotations

import re
from pathlib import Path

from index.errors import OctavoError, QueryError
from retriever.encoders.checkpoint import read_json
from retriever.models import pinned

ADAPTER = "adapter_config.json"
FETCHED = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "README.md"]
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_LICENCE = re.compile(r"^license(?:_name)?:\s*[\"']?([\w. -]{2,60})", re.MULTILINE)


def folder_of(name: str, revision: str | None, known: str) -> Path:
    """The folder of a model by its path or its name on the hub. known: names to tell where it is neither.

    Raises QueryError for what is neither, OctavoError where it cannot be had.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.absolute()
    if not _REPOSITORY.fullmatch(name):
        raise QueryError(f"no encoder is called {name!r}, nor is there such a folder; known: {known}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=FETCHED))
    except Exception as error:  # of a dozen kinds, those of HTTP libraries among them
        at = f" at revision {revision}" if revision else ""
        raise OctavoError(
            f"{name}{at} is neither on this machine nor could it be fetched ({type(error).__name__}: "
            f"{str(error).splitlines()[0][:200] if str(error) else 'no reason given'}). Fetch it where there is a "
            "network (HF_HOME says where it is kept; HF_HUB_OFFLINE=1 forbids the network), or name a folder"
        ) from None


def base_of(folder: Path, known: str) -> Path | None:
    """The folder of the model that a LoRA adapter in `folder` adapts, None where it holds a model of its own."""
    if (folder / "config.json").exists() or not (folder / ADAPTER).exists():
        return None
    name = read_json(folder, ADAPTER).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise OctavoError(f"{folder / ADAPTER}: base_model_name_or_path is {name!r}; the name of a model is expected")
    return folder_of(name, pinned(name), known)


def licence_of(folder: Path) -> str:
    """The licence that the model's own page (README.md) names, "" where it names none."""
    page = folder / "README.md"
    if not page.is_file():
        return ""
    with page.open("rb") as file:
        head = file.read(8192).decode("utf-8", "replace")
    front = head.split("\n---", 1)[0] if head.startswith("---") else ""
    names = [name.strip() for name in _LICENCE.findall(front)]
    return names[-1] if names else ""
