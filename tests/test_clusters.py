"""Clusters of pages: through Python and the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from words import DIM, WordEncoder, direction, document

from index.errors import QueryError
from retriever import Retriever
from retriever.cli import main
from retriever.similar import clusters

ABOUT = {"sea": "ships harbour crane tide whales", "wood": "owls forest trees snow moss", "mill": "bread flour stone"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("clusters")
    with Retriever.open(made / "index", WordEncoder(DIM)) as retriever:
        for count, (name, said) in enumerate(ABOUT.items(), 3):
            retriever.add(document(made / f"{name}.pdf", [f"{said} page{n}" for n in range(count)]))
    return made


@pytest.fixture
def retriever(folder: Path) -> Iterator[Retriever]:
    with Retriever.open(folder / "index", WordEncoder(DIM)) as opened:
        yield opened


def test_pages_about_the_same_are_together_largest_cluster_first_nearest_page_first(retriever: Retriever) -> None:
    found = clusters(retriever, 3)
    assert [{Path(member.path).stem for member in group} for group in found] == [{"mill"}, {"wood"}, {"sea"}]
    assert [len(group) for group in found] == [5, 4, 3]
    for group, name in zip(found, ("mill", "wood", "sea"), strict=True):
        likenesses = [member.likeness for member in group]
        assert likenesses == sorted(likenesses, reverse=True)
        singles = {
            n: sum(direction(word, DIM) for word in [*ABOUT[name].split(), f"page{n - 1}"])
            for n in range(1, len(group) + 1)
        }
        unit = {n: vector / np.linalg.norm(vector) for n, vector in singles.items()}
        centre = sum(unit.values())
        for member in group:
            expected = unit[member.page] @ centre / np.linalg.norm(centre)
            assert member.likeness == pytest.approx(expected, abs=2e-3), "the cosine with the centre"


def test_the_same_index_gives_the_same_clusters_and_a_number_by_itself(retriever: Retriever) -> None:
    assert retriever.clusters() == clusters(retriever) == clusters(retriever)
    assert 1 <= len(clusters(retriever)) <= 2, "the root of half of twelve pages"
    assert sum(len(group) for group in clusters(retriever, 99)) == 12, "never more clusters than pages"


def test_filters_and_what_is_refused(retriever: Retriever) -> None:
    (group,) = clusters(retriever, 1, where={"name": "sea.pdf"})
    assert [Path(member.path).stem for member in group] == ["sea"] * 3
    assert clusters(retriever, where={"name": "nothing.pdf"}) == []
    with pytest.raises(QueryError, match="count is a number"):
        clusters(retriever, 0)


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = ["--index", str(folder / "index")]
    assert main(["clusters", *at, "--count", "3", "--json"]) == 0
    groups = json.loads(capsys.readouterr().out)["groups"]
    assert [len(group) for group in groups] == [5, 4, 3]
    made = tmp_path / "clusters.html"
    assert main(["clusters", *at, "--count", "3", "--html", str(made)]) == 0
    assert made.read_text("utf-8").count("<img") == 12 and "1. 5 pages" in capsys.readouterr().out
