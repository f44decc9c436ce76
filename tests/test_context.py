"""A page is found by what its document says of it: the outline where it leads to it, the words of the first page."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pymupdf
import pytest

from index import Index, upkeep
from ingest.contents import is_contents
from ingest.page import Page, Words
from ingest.render import Renderer
from retriever import Retriever

sys.path.insert(0, str(Path(__file__).parent))
import hostile
from pages import add, content_of, origin_of, page_of, text_search
from rendering import BACKENDS, made, opened
from words import WordEncoder

ROMAN = ["i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii", "xiii"]
REPORT = ["Acme annual report 2021", "net revenue by region"]


def found(index: Index, query: str) -> list[tuple[str, int]]:
    names = {content_of(name): name for name in ("2021", "2022", "manual", "copy")}
    return [(names[content], page) for content, page, _ in text_search(index, query)]


@pytest.fixture
def index(tmp_path: Path) -> Any:
    index = Index.create(tmp_path / "index", dim=16, fingerprint={"name": "seed"})
    with index.writing() as writer:
        add(writer, "2021", [page_of("2021", n, text=words) for n, words in enumerate(REPORT, 1)])
        add(writer, "2022", [page_of("2022", n, text=w.replace("2021", "2022")) for n, w in enumerate(REPORT, 1)])
    yield index
    index.close()


def test_the_first_page_of_a_document_speaks_for_its_other_pages(index: Index) -> None:
    assert found(index, "net revenue 2022")[:2] == [("2022", 2), ("2021", 2)]
    assert found(index, "net revenue 2021")[:2] == [("2021", 2), ("2022", 2)]
    before = text_search(index, "net revenue 2021")
    upkeep.rebuild(index)
    assert text_search(index, "net revenue 2021") == before


def test_a_document_that_is_gone_says_nothing_and_a_new_name_says_more(index: Index) -> None:
    with index.writing() as writer:
        row = writer.document(content_of("2021"))
        assert row is not None
        writer.delete([row["id"]])
        assert writer.db.execute("SELECT count(*) FROM document_search").fetchone()[0] == 1
        kept = writer.document(content_of("2022"))
        assert kept is not None
        add(writer, "manual", [page_of("manual", 1, text="harbour"), page_of("manual", 2, text="net revenue")])
        assert found(index, "lighthouse") == []
        writer.add_path(kept["id"], origin_of("lighthouse"), ["/files/2022.pdf"])
    assert found(index, "lighthouse revenue")[:1] == [("2022", 2)]


def test_an_outline_leads_to_the_page_where_a_section_begins(tmp_path: Path) -> None:
    index = Index.create(tmp_path, dim=16, fingerprint={"name": "seed"})
    pages = [
        page_of("manual", 1, text="Contents Harbour rules 2 Other rules 3"),
        page_of("manual", 2, text="boats wait"),
    ]
    pages += [page_of("manual", 3, text="nobody swims")]
    said = ("", "Harbour rules\nWhere to wait", "Other rules")
    with index.writing() as writer:
        add(writer, "manual", [replace(page, headings="") for page in pages])
        assert found(index, "harbour rules") == [("manual", 1)]
        add(writer, "copy", [replace(page, headings=heading) for page, heading in zip(pages, said, strict=True)])
    assert found(index, "harbour rules")[0] == ("copy", 2)
    before = text_search(index, "harbour rules")
    upkeep.rebuild(index)
    assert text_search(index, "harbour rules") == before
    assert upkeep.check(index) == []
    index.close()


# Tables of contents


def page_words(rows: list[str]) -> Words:
    """Words of rows from the top, a row's last at the right edge."""
    texts, boxes = [], []
    for number, row in enumerate(rows):
        parts, top = row.split(), (number + 1) / (len(rows) + 2)
        lefts = [*(0.1 + 0.05 * i for i in range(len(parts) - 1)), 0.85]
        texts += parts
        boxes += [[left, top, left + 0.04, top + 0.4 / (len(rows) + 2)] for left in lefts]
    return Words(texts, np.array(boxes, np.float32).reshape(-1, 4))


CONTENTS = [f"Chapter on {word} ....... {3 * number}" for number, word in enumerate("abcdefghijklm", 1)]
REVENUE = [f"Revenue of {word} 12 {number}" for word, number in zip("abcdefghijklm", [9, 3, 7] * 5, strict=False)]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["Contents here", *CONTENTS], True),
        ([row.rsplit(" ", 1)[0] + f" {roman}" for row, roman in zip(CONTENTS, ROMAN, strict=True)], True),
        (CONTENTS[:7], False),
        ([*CONTENTS, *(["just some words"] * 14)], False),
        (REVENUE, False),
        (CONTENTS[::-1], False),
        ([f"Same number {9}"] * 12, False),
        ([str(number) for number in range(20)], False),
        ([], False),
    ],
    ids=["contents", "Roman", "few", "half a page", "figures", "falling", "equal", "numbers alone", "empty"],
)
def test_a_table_of_contents_is_told_from_a_table_of_figures(rows: list[str], expected: bool) -> None:
    words = page_words(rows)
    assert is_contents(words) is expected
    mixed = np.random.default_rng(0).permutation(len(words))
    assert is_contents(Words([words.texts[i] for i in mixed], words.boxes[mixed])) is expected


def test_a_table_of_contents_comes_after_the_section_that_it_names(tmp_path: Path) -> None:
    def draw(document: Any) -> None:
        names = ["Ballast", "Harbour dues", "Pilots", "Quays", "Anchorage", "Lights", "Cranes", "Storage", "Ice"]
        for row, name in enumerate(names):
            document[0].insert_text((50, 80 + 30 * row), name, fontsize=12)
            document[0].insert_text((300, 80 + 30 * row), str(row + 2), fontsize=12)
            text = "Whoever comes in pays before noon, and again when the tide has turned twice. " * 2
            document[row + 1].insert_textbox((50, 80, 350, 500), f"{name}: {text}", fontsize=12)

    path = tmp_path / "port.pdf"
    path.write_bytes(made(draw, 10))
    with Retriever.open(tmp_path / "index", encoder=WordEncoder()) as retriever:
        retriever.add([path])
        assert retriever.search("harbour dues", mode="text")[0].page == 1
        assert [hit.page for hit in retriever.search("harbour dues")][:1] == [3]


# Outlines in files


@pytest.fixture(scope="module", params=BACKENDS)
def renderer(request: pytest.FixtureRequest) -> Any:
    with Renderer(backend=request.param) as made_one:
        yield made_one


def headings(renderer: Renderer, data: bytes, pages: int) -> list[str]:
    with opened(renderer, data) as document:
        drawn = [renderer.render(document, number, dpi=20) for number in range(1, pages + 1)]
    assert all(isinstance(page, Page) for page in drawn), drawn
    return [page.headings for page in drawn if isinstance(page, Page)]


def test_pages_are_called_what_the_outline_calls_them(renderer: Renderer) -> None:
    def draw(document: Any) -> None:
        for page in document:
            page.insert_text((50, 100), "text")
        document.set_toc(
            [[1, "One", 1], [2, "  One\tand a half ", 1], [3, "Deep", 3], [1, "Two\u202e", 3], [2, "Straße", 2]]
        )

    assert headings(renderer, made(draw, 4), 4) == ["One\nOne and a half", "Straße", "Deep\nTwo", ""]


def outline(entries: list[bytes]) -> bytes:
    """A PDF of one page whose outline has these objects, numbered from 5."""
    catalog = b"<</Type/Catalog/Pages 2 0 R/Outlines 4 0 R>>"
    root = b"<</Type/Outlines/First 5 0 R/Last %d 0 R/Count %d>>" % (4 + len(entries), len(entries))
    sheet = b"<</Type/Page/Parent 2 0 R/MediaBox%b>>" % hostile.A4
    return hostile.pdf([catalog, b"<</Type/Pages/Kids[3 0 R]/Count 1>>", sheet, root, *entries])


ENTRY = b"<</Title(T%d)/Parent %d 0 R/Dest[3 0 R/Fit]%b>>"


@pytest.mark.parametrize(
    "entries",
    [
        [ENTRY % (1, 4, b"/Next 5 0 R")],
        [ENTRY % (1, 4, b"/First 5 0 R/Last 5 0 R/Count 1")],
        [ENTRY % (n, 4 + n, b"/First %d 0 R/Last %d 0 R/Count 1" % (n + 6, n + 6)) for n in range(30_000)],
        [ENTRY % (n, 4, b"/Prev %d 0 R/Next %d 0 R" % (n + 4, n + 6)) for n in range(60_000)],
        [b"<</Title(" + b"x" * 100_000 + b")/Parent 4 0 R/Dest[3 0 R/Fit]>>"],
        [b"<</Title 3 0 R/Parent 4 0 R/Dest[[[]]]/A<</S/GoTo/D(nowhere)>>>>"],
        [b"[]"],
    ],
    ids=["its own sibling", "its own child", "deep", "long", "large", "nonsense", "no entry"],
)
def test_a_hostile_outline_costs_no_page(renderer: Renderer, entries: list[bytes]) -> None:
    began = time.monotonic()
    (said,) = headings(renderer, outline(entries), 1)
    assert len(said) <= 2000
    assert time.monotonic() - began < 15


def test_samples_have_outlines() -> None:
    path = Path(__file__).parents[1] / "samples" / "DHS2020.pdf"
    with Renderer() as renderer, opened(renderer, path.read_bytes()) as document, pymupdf.open(path) as truth:
        page = renderer.render(document, 6, dpi=20)
        assert isinstance(page, Page)
        assert page.headings.split("\n")[:2] == [entry[1].strip() for entry in truth.get_toc() if entry[2] == 6][:2]
