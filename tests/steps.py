"""A life of an index in steps, to be killed in: each step has been acknowledged once `work` has sent its number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pages import DIM, add, content_of, embed, origin_of

from index import Index, failpoint, upkeep
from index.recode import Anew, recode
from index.writer import Writer


def _create(folder: Path) -> None:
    Index.create(folder, dim=DIM, fingerprint={"name": "seed"}, stage="pooled").close()


def _written(write: Callable[[Writer], Any]) -> Callable[[Path], None]:
    def step(folder: Path) -> None:
        index = Index(folder)
        with index.writing() as writer:
            write(writer)
        index.close()

    return step


def _kept(keep: Callable[[Index], Any]) -> Callable[[Path], None]:
    def step(folder: Path) -> None:
        index = Index(folder)
        keep(index)
        index.close()

    return step


def _delete(name: str) -> Callable[[Writer], Any]:
    def write(writer: Writer) -> None:
        row = writer.document(content_of(name))
        writer.delete([row["id"]] if row else [])

    return write


def _copy_of_b(writer: Writer) -> None:
    row = writer.document(content_of("b"))
    assert row is not None
    writer.add_path(row["id"], origin_of("copy of b"))


STEPS: list[Callable[[Path], None]] = [
    _create,
    _kept(lambda index: recode(index, "binary")),
    _written(lambda writer: add(writer, "a", 3)),
    _written(lambda writer: add(writer, "b", 3, metadata={"year": 2020})),
    _written(lambda writer: add(writer, "c", 2)),
    _written(lambda writer: add(writer, "a2", 4, path="a")),
    _written(_copy_of_b),
    _written(lambda writer: writer.fail(content_of("bad"), origin_of("bad"), "damaged", "it is")),
    _written(_delete("c")),
    _kept(upkeep.compact),
    _written(lambda writer: add(writer, "d", 3)),
    _written(_delete("b")),
    _kept(lambda index: upkeep.compact(index, purge=True)),
    _kept(upkeep.rebuild),
    _kept(lambda index: recode(index, "int4", pool=2)),
    _written(lambda writer: add(writer, "e", 2)),
    _written(lambda writer: writer.drop_paths([origin_of("d").path])),
    _kept(lambda index: upkeep.compact(index, purge=True)),
    _kept(upkeep.rebuild),
    _kept(lambda index: recode(index, "fp16")),
    _kept(lambda index: recode(index, pool=1, anew=Anew(embed, {"name": "seed", "version": 2}))),
]


def work(folder: Path, start: int, armed: dict[str, int], acknowledge: Any) -> None:
    """Do the steps from `start` on. armed: failpoints, with the passage at which each kills."""
    failpoint._armed.update(armed)
    for number, step in enumerate(STEPS[start:], start):
        step(folder)
        acknowledge.send(number)
