"""Chinese characters in their several forms, traditional, simplified and Japanese, as one.

    python -m index.han FOLDER

writes the table, han.json, from the dictionaries of OpenCC in a folder (`opencc/dictionary` in the package
opencc-python-reimplemented 0.1.7; Apache-2.0): TSCharacters, JPVariants and TWVariants, characters of the block of CJK
Unified Ideographs to one each.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

_FILE = Path(__file__).with_name("han.json")
FIRST, LAST = "\u4e00", "\u9fff"


def folded(text: str) -> str:
    """The text with each character in its simplified form.

    >>> folded("圖書館 図書館 图书馆")
    '图书馆 图书馆 图书馆'
    """
    return text.translate(_table()) if text and max(text) >= FIRST else text


def forms(character: str) -> str:
    """A character and all those that are other forms of it."""
    simple = _table().get(ord(character), character)
    return _forms().get(simple, simple)


@cache
def _table() -> dict[int, str]:
    characters, simple = json.loads(_FILE.read_text("utf-8"))
    return dict(zip(map(ord, characters), simple, strict=True))


@cache
def _forms() -> dict[str, str]:
    found: dict[str, str] = defaultdict(str)
    for character, simple in _table().items():
        found[simple] = (found[simple] or simple) + chr(character)
    return dict(found)


def _read(path: Path) -> dict[str, list[str]]:
    rows = (line.split("\t") for line in path.read_text("utf-8").splitlines() if "\t" in line)
    return {character: others.split() for character, others in rows}


def main(folder: Path) -> None:
    """Writes the table, by way of what Taiwan's forms stand for, and of the traditional forms of Japan's."""
    steps: list[dict[str, str]] = []
    for name in ("TWVariants.txt", "JPVariants.txt"):
        steps.append({})
        for character, others in _read(folder / name).items():
            for other in others:
                steps[-1].setdefault(other, character)
    steps.append({character: others[0] for character, others in _read(folder / "TSCharacters.txt").items()})
    table = {}
    for character in sorted({character for step in steps for character in step}):
        told = character
        for step in steps:
            told = step.get(told, told)
        if told != character and FIRST <= character <= LAST and FIRST <= told <= LAST:
            table[character] = told
    both = ["".join(table), "".join(table.values())]
    _FILE.write_text(json.dumps(both, ensure_ascii=False, indent=0) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
