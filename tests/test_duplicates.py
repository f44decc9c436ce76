"""Near-duplicate pages: through Python and the command line, beside a plain comparison of all pages with all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pages
import pytest
from words import DIM, WordEncoder, document, vectors

from index import PageRecord
from index.errors import QueryError
from retriever import Retriever, similar
from retriever.cli import main
from retriever.similar import Member, duplicates

REPORT = "the harbour was dredged in may and ships of nine metres call again at noon"
PAGES = {
    "a_report": [REPORT, "owls hunt in the forest of the north when snow lies"],
    "b_copy": ["something else is here", REPORT + " indeed"],
    "c_half": [REPORT + " but whales were seen by seven fishermen from the mole and nobody knew why they had come"],
    "d_again": [REPORT],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("duplicates")
    with Retriever.open(made / "index", WordEncoder()) as retriever:
        for name, texts in PAGES.items():
            retriever.add(document(made / f"{name}.pdf", texts), {"name": name})
    return made


@pytest.fixture
def retriever(folder: Path) -> Iterator[Retriever]:
    with Retriever.open(folder / "index", WordEncoder()) as opened:
        yield opened


def places(groups: list[list[Member]]) -> list[list[tuple[str, int]]]:
    return [[(Path(member.path).stem, member.page) for member in group] for group in groups]


def test_pages_that_say_the_same_are_one_group_with_the_first_of_them_first(retriever: Retriever) -> None:
    (group,) = duplicates(retriever)
    assert retriever.duplicates() == [group]
    assert places([group]) == [[("a_report", 1), ("d_again", 1), ("b_copy", 2)]]
    assert group[0].likeness == group[1].likeness == 1.0
    first, other = vectors(REPORT.split()), vectors([*REPORT.split(), "indeed"])
    back = float((other @ first.T).max(axis=1).mean())
    assert group[2].likeness == pytest.approx(back, abs=0.01), "the lesser of both ways"


def test_a_page_that_holds_all_of_another_and_much_more_is_no_duplicate(retriever: Retriever) -> None:
    short, long = vectors(REPORT.split()), vectors(PAGES["c_half"][0].split())
    assert (short @ long.T).max(axis=1).mean() == pytest.approx(1.0, abs=1e-5), "one way they are the same"
    assert ("c_half", 1) not in places(duplicates(retriever, 0.5))[0]


def grouped(folder: Path, threshold: float, *records: tuple[np.ndarray, str]) -> list[list[int]]:
    """The groups, as page numbers, of a document of these pages: their tokens and words."""
    index = pages.filled(folder, [], codec="fp16")
    with index.writing() as writer:
        made = []
        for number, (tokens, words) in enumerate(records, 1):
            nowhere = np.zeros((len(tokens), 4), np.float32)
            made.append(PageRecord(number, tokens, nowhere, words, np.zeros((len(words.split()), 4), np.float32)))
        pages.add(writer, "many", made)
    index.close()
    with Retriever.open(folder) as retriever:
        return [[member.page for member in group] for group in duplicates(retriever, threshold)]


def test_tokens_must_answer_each_other_both_ways(tmp_path: Path) -> None:
    few = np.repeat(pages.vectors_of("base", 1, 1), 6, axis=0)
    more = np.concatenate([few, pages.vectors_of("base", 2, 1)])
    assert grouped(tmp_path / "a", 0.95, (few, ""), (more, "")) == [], "six sevenths, and less back"
    assert grouped(tmp_path / "b", 0.8, (few, ""), (more, "")) == [[1, 2]]


def test_pages_that_look_the_same_but_say_other_words_are_none(tmp_path: Path) -> None:
    look = pages.vectors_of("base", 1, 5)
    told = grouped(tmp_path, 0.95, (look, "one two three four five"), (look, "six seven three four eight"), (look, ""))
    assert told == [[1, 3]], "of a scan without words the look decides"


def test_a_filter_says_which_pages_are_compared(retriever: Retriever) -> None:
    others = duplicates(retriever, where={"name": {"$ne": "a_report.pdf"}})
    assert places(others) == [[("b_copy", 2), ("d_again", 1)]], "another page is the first"
    assert duplicates(retriever, where={"name": "a_report.pdf"}) == []


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.1, float("nan")])
def test_a_threshold_that_means_nothing_is_refused(retriever: Retriever, threshold: float) -> None:
    with pytest.raises(QueryError, match="threshold is above 0"):
        duplicates(retriever, threshold)


def test_blocks_find_what_a_plain_comparison_of_all_pages_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(similar, "_BLOCK", 7)
    rng = np.random.default_rng(3)
    stored = [pages.vectors_of("base", n, 6) for n in range(9)]
    for n in range(40):
        noisy = stored[n % 9] + rng.normal(0, 0.02 * (n % 5), (6, pages.DIM)).astype(np.float32)
        stored.append(noisy / np.linalg.norm(noisy, axis=1, keepdims=True))
    blank = np.zeros((0, pages.DIM), np.float32)
    found = grouped(tmp_path, 0.97, *((tokens, "") for tokens in stored), (blank, ""))

    expected: dict[int, list[int]] = {}
    for n, asked in enumerate(stored, 1):
        both = {
            head: min((asked @ stored[head - 1].T).max(1).mean(), (stored[head - 1] @ asked.T).max(1).mean())
            for head in expected
        }
        best = max(both, key=lambda head: both[head], default=0)
        expected.setdefault(best if best and both[best] >= 0.97 else n, []).append(n)
    assert {group[0]: sorted(group) for group in found} == {
        head: rows for head, rows in expected.items() if len(rows) > 1
    }
    assert len(found) == 9 and 50 not in sum(found, []), "a page with nothing on it is in no group"
    told: list[tuple[int, int]] = []
    with Retriever.open(tmp_path) as retriever:
        duplicates(retriever, progress=lambda done, total: told.append((done, total)))
    assert told[:2] == [(7, 49), (14, 49)] and told[-1] == (49, 49)


def test_the_command_lists_them_and_writes_a_page_that_asks_for_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "same.html"
    at = ["--index", str(folder / "index")]
    assert main(["duplicates", *at, "--json", "--html", str(made)]) == 0
    (group,) = json.loads(capsys.readouterr().out)["groups"]
    assert [(Path(member["path"]).stem, member["page"]) for member in group] == [
        ("a_report", 1),
        ("d_again", 1),
        ("b_copy", 2),
    ]
    shown = made.read_text("utf-8")
    assert shown.count('src="data:image/jpeg;base64,') == 3 and "default-src 'none'" in shown
    assert not re.search(r"https?:|src=\"(?!data:)|<script|<link", shown)
    assert main(["duplicates", *at, "--where", "name=a_report.pdf"]) == 1
    assert "No near-duplicates were found" in capsys.readouterr().err
    assert main(["duplicates", *at]) == 0
    assert "1. 3 pages" in capsys.readouterr().out


def test_an_index_of_single_vectors_has_near_duplicates_too(tmp_path: Path) -> None:
    with Retriever.open(tmp_path / "index", WordEncoder(DIM), vectors="single") as retriever:
        retriever.add([document(tmp_path / f"{name}.pdf", texts) for name, texts in PAGES.items()])
        assert {("a_report", 1), ("d_again", 1)} <= set(places(duplicates(retriever, 0.99))[0])
