"""Text to token ids, by the rules of tokenizer.json alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Encoding, Tokenizer

from index.errors import OctavoError
from retriever.encoders.checkpoint import MAX_JSON, read_json

FILE, CONFIG = "tokenizer.json", "tokenizer_config.json"
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


class Tokens:
    """The tokenizer of a model's folder. May be shared between threads."""

    def __init__(self, folder: Path, vocabulary: int) -> None:
        """vocabulary: rows of the model's embedding table. Raises OctavoError naming the file that is wrong."""
        path = folder / FILE
        if path.is_file() and path.stat().st_size > MAX_JSON:
            raise OctavoError(f"{path}: {path.stat().st_size:,} bytes; a tokenizer has at most {MAX_JSON:,}")
        self._tokenizer = _read(folder)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        ids = self._tokenizer.get_vocab()
        self._add_missing(folder, ids)
        highest = max(self._tokenizer.get_vocab().values(), default=-1)
        if highest >= vocabulary:
            raise OctavoError(f"{path} has token {highest}, but the model's table of tokens has {vocabulary} rows")

    def _add_missing(self, folder: Path, ids: dict[str, int]) -> None:
        """The tokens that only tokenizer_config.json names; each must get the id it has there."""
        if not (folder / CONFIG).is_file():
            return
        named = read_json(folder, CONFIG).get("added_tokens_decoder") or {}
        try:
            added = sorted((int(id), dict(token)) for id, token in named.items())
            tokens: list[tuple[int, dict[str, Any]]] = [
                (id, token) for id, token in added if token["content"] not in ids
            ]
            for id, token in tokens:
                flags = {flag: bool(token[flag]) for flag in _FLAGS if flag in token}
                self._tokenizer.add_tokens([AddedToken(str(token["content"]), **flags)])
                if self._tokenizer.token_to_id(str(token["content"])) != id:
                    raise OctavoError(f"{folder / CONFIG}: token {token['content']!r} cannot have the id {id}")
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise OctavoError(f"{folder / CONFIG}: added_tokens_decoder is not what is expected: {error!r}") from None

    def encode(self, texts: list[str], special: bool = True) -> list[Encoding]:
        """Each text with its `ids` and, for each of them, its `offsets` (start, end) in the text.

        special: with the tokens that the tokenizer itself puts around a text.
        """
        found: list[Encoding] = self._tokenizer.encode_batch(texts, add_special_tokens=special)
        return found

    def id_of(self, token: str) -> int | None:
        """The id of a token, None where there is no such token."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found


def special_tokens(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The tokens that tokenizer_config.json gives names, say `eos_token`. Raises OctavoError where one is missing."""
    config = read_json(folder, CONFIG)
    extra = config.get("extra_special_tokens")
    named = config | (extra if isinstance(extra, dict) else {})
    found = {}
    for name in names:
        token = named.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        if not isinstance(token, str) or not token:
            raise OctavoError(f"{folder / CONFIG} names no {name}")
        found[name] = token
    return found


def _read(folder: Path) -> Tokenizer:
    path = folder / FILE
    if not path.is_file():
        raise OctavoError(f"{path} is missing; save the tokenizer again with a current transformers, which writes it")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # whatever the parser raises, of which its types are no part of any promise
        raise OctavoError(f"{path} is not a tokenizer that can be read: {str(error)[:200]}") from None
