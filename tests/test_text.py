"""Terms of many scripts, and match expressions that no query can turn into FTS5 syntax."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlite_utils import Database

from index import catalog, schema
from index.text import match_any, match_pairs, match_word, stems, terms


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A catalog to ask."""
    db = schema.connect(tmp_path_factory.mktemp("lane"), write=True)
    yield db
    db.close()


def put(db: Database, *pages: str) -> None:
    """The lane holds these pages, rowids from 0."""
    db.execute("DELETE FROM page_search")
    for row, page in enumerate(pages):
        sql = "INSERT INTO page_search (rowid, title, name, body, stems) VALUES (?, '', '', ?, ?)"
        db.execute(sql, [row, " ".join(terms(page)), " ".join(stems(page))])


def ask(db: Database, query: str) -> set[int]:
    expression = match_any(query)
    if not expression:
        return set()
    return {row[0] for row in db.conn.execute("SELECT rowid FROM page_search WHERE page_search MATCH ?", [expression])}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Net revenue, 5%", ["net", "revenue", "5"]),
        ("STRASSE straße", ["strasse", "strasse"]),
        ("Réseau e\u0301te\u0301", ["reseau", "ete"]),
        ("co\u00adope\u00adration", ["cooperation"]),
        ("ﬁle ① ２０２３", ["file", "1", "2023"]),
        ("snake_case-and.dots", ["snake", "case", "and", "dots"]),
        ("東京都", ["东京", "京都"]),
        ("圖書館 図書館、图书馆", ["图书", "书馆", "馆图", "图书", "书馆", "图书", "书馆"]),
        ("東京\n都と한 국", ["东京", "京都", "都と", "と한", "국"]),
        ("กรุง\nเทพ abc", ["กรุ", "รุง", "ุงเ", "งเท", "เทพ", "abc"]),
        ("京", ["京"]),
        ("ソフト ｿﾌﾄ", ["ソフ", "フト", "トソ", "ソフ", "フト"]),
        ("한국어", ["한국", "국어"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("كِتَاب كتاب", ["كتاب", "كتاب"]),
        ("ΟΔΥΣΣΕΥΣ Όχι", ["οδυσσευσ", "οχι"]),
        ("Москва́", ["москва"]),
        ("", []),
        (" \t\n_-—.…🙂", []),
    ],
)
def test_terms(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


def test_stems_are_the_beginnings_of_longer_words() -> None:
    assert stems("networks of glass sea") == ["netw", "glas"]
    assert stems("والكتاب بيت") == ["وال", "الك", "لكت", "كتا", "تاب", "بيت"]
    assert stems("Đường của Ngu\u0303, château, Ağrı, țară") == ["đuon", "chat", "đường", "của"]


SCRIPTS = {
    "english": ("the harbour of glass", "harbour"),
    "german": ("Über die Straße", "strasse"),
    "greek": ("καλημέρα κόσμε", "ΚΑΛΗΜΕΡΑ"),
    "russian": ("добрый вечер", "Вечер"),
    "arabic": ("هذا كتاب جديد", "كِتاب"),
    "hebrew": ("שלום עולם", "עולם"),
    "hindi": ("यह हिन्दी भाषा है", "भाषा"),
    "tamil": ("தமிழ் மொழி", "மொழி"),
    "chinese": ("北京大學圖書館", "大學"),
    "japanese": ("東京都の図書館カード", "カード"),
    "korean": ("한국어 문서", "한국어"),
    "thai": ("กินข้าวที่บ้าน", "ข้าว"),
    "burmese": ("မြန်မာစာ", "မြန်မာ"),
    "khmer": ("ភាសាខ្មែរ", "ខ្មែរ"),
    "georgian": ("ქართული ენა", "ენა"),
    "armenian": ("Հայոց լեզու", "լեզու"),
}


def test_a_word_finds_its_script_and_no_other(lane: Database) -> None:
    put(lane, *(page for page, _ in SCRIPTS.values()))
    for row, (script, (_, query)) in enumerate(SCRIPTS.items()):
        assert ask(lane, query) == {row}, script


def test_chinese_is_found_in_every_form_and_over_ends_of_lines(lane: Database) -> None:
    put(lane, "北京大學圖書館", "東京都の図書\n館カード", "图书", "書 店")
    assert ask(lane, "书馆") == ask(lane, "書館") == {0, 1}
    assert ask(lane, "図書") == {0, 1, 2}
    assert ask(lane, "书店") == {3}


HOSTILE = [
    '"', '""', '"""', "'", "NEAR(", "NEAR(a b, 2)", "a* OR", "a AND NOT b", "title : a", "{title body} : a", "^a",
    "a + b", "- a", "(", ")", "a) OR (b", "*", ":", "\x00", "a\x00b", "%", "; DROP TABLE pages; --", '" OR "1"="1',
    "\\", "OR", "NOT", "AND", "near", "\u200b", "\ufffd", "\U0001f642", "a" * 4096, "x " * 5000,
]  # fmt: skip


@pytest.mark.parametrize("query", HOSTILE)
def test_no_query_is_syntax(lane: Database, query: str) -> None:
    put(lane, "a b not or near and drop table pages 1", "nothing")
    found = ask(lane, query)
    assert found == ({0} if set(terms(query)) & set(terms("a b not or near and drop table pages 1")) else set())


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.text(max_size=40))
def test_any_text_finds_itself(text: str) -> None:
    db = Database(catalog.sqlite3.connect(":memory:"))
    try:
        schema.new_search(db, "page_search")
        put(db, text, "unrelated")
        assert (match_any(text) == "") == (terms(text) == [])
        found = ask(db, text)  # is no syntax error
        if any(term.isascii() for term in terms(text)):
            assert 0 in found
    finally:
        db.close()


def test_only_the_first_terms_of_a_long_query_are_asked() -> None:
    assert match_any("a b a c", limit=2).count(" : ") == 2
    assert '"c"' not in match_any("a b a c", limit=2)
    assert match_any("...") == ""


def test_pairs_are_of_terms_that_do_not_overlap() -> None:
    assert match_pairs("net revenue 2019").replace("{title name body} : ", "") == '"net revenue" OR "revenue 2019"'
    assert match_pairs("環境変数 ภาษาไทย") == match_word("变数 ภาษ")  # where one run ends and the next begins
    assert match_pairs("환경 변수") == match_word("환경 변수")
    assert match_pairs("revenue") == match_pairs("東京都") == ""


def test_a_catalog_has_the_lane_that_a_query_expects(tmp_path: Path) -> None:
    db = schema.connect(tmp_path, write=True)
    for part in schema.LANES:
        columns = [row[1] for row in db.conn.execute(f"PRAGMA table_info({part})")]
        assert columns == ["title", "name", "body", "stems"]
    db.close()
