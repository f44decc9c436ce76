"""Snippets: the right window, the right marks, in several scripts; text made safe to print."""

import pytest

from retriever.snippet import Snippet, fold, printable, snippet

FILLER = [f"filler{chr(97 + i % 26)}" for i in range(100)]


def marked(result: Snippet) -> list[str]:
    return [result.text[a:b] for a, b in result.marks]


def test_the_window_holds_the_terms_and_marks_them():
    words = [*FILLER, *["Net", "revenue", "by", "region", "rose", "to", "4.2", "million", "in", "2023."], *FILLER]
    result = snippet(words, "revenue 2023 region", length=12)
    assert "Net revenue by region rose to 4.2 million in 2023." in result.text
    assert result.text.startswith("… ") and result.text.endswith(" …")
    assert marked(result) == ["revenue", "region", "2023"]


def test_a_short_page_is_given_whole_without_ellipses():
    assert snippet(["Annual", "report"], "nothing") == Snippet("Annual report", [])
    assert snippet([], "x") == Snippet("", [])
    assert snippet(["a", "b"], "") == Snippet("a b", [])


def test_case_accents_width_and_punctuation_do_not_matter():
    words = ["L'Été", "(Übersicht),", "ＦＯＯ", "STRASSE"]
    assert marked(snippet(words, "übersicht foo straße")) == ["Übersicht", "ＦＯＯ", "STRASSE"]
    assert fold("“Café”") == "cafe" and fold("--") == ""
    assert fold("圖") == fold("図") == fold("图")


@pytest.mark.parametrize(
    ("word", "query", "found"),
    [
        ("revenues", "revenue", True),
        ("regional", "region", True),
        ("costs", "cost", True),
        ("taxes", "tax", True),
        ("Jahresberichte", "Jahresbericht", True),
        ("internal", "international", False),
        ("forms", "for", False),
        ("20234", "2023", False),
        ("program", "problem", False),
    ],
)
def test_inflections_match_and_other_words_do_not(word, query, found):
    assert bool(snippet([word], query).marks) is found


def test_parts_of_joined_words_match():
    assert marked(snippet(["the", "snow-covered", "runway"], "snow")) == ["snow"]
    assert marked(snippet(["heures", "l'avion"], "d'heures avion-école")) == ["heures", "avion"]


def test_common_words_neither_choose_the_window_nor_are_marked():
    words = [*["the", "of", "agency"] * 20, *FILLER, "the", "turbine", "blade", *FILLER]
    result = snippet(words, "the blade of the turbine", length=8)
    assert marked(result) == ["turbine", "blade"]


def test_evidence_chooses_the_window_for_a_query_in_another_language():
    words = [*FILLER, "net", "revenue", "by", "region", *FILLER]
    weights = [0.0] * 100 + [0.3, 1.0, 0.1, 0.9] + [0.0] * 100
    result = snippet(words, "Umsatz nach Gebiet", weights, length=10)
    assert "net revenue by region" in result.text
    assert marked(result) == ["revenue", "region"]


def test_terms_come_before_evidence():
    words = [*FILLER, "turbine", *FILLER, "else", *FILLER]
    weights = [0.0] * 201 + [1.0] + [0.0] * 100
    assert "turbine" in snippet(words, "turbine", weights, length=10).text


def test_a_snippet_starts_with_a_sentence_where_it_can():
    words = [*FILLER, "end.", "The", "turbine", "failed", *FILLER]
    assert snippet(words, "turbine", length=10).text.startswith("… The turbine failed")


def test_japanese_works_on_characters():
    text = "これは年次報告書です。" * 10 + "二〇二三年の売上高は地域別に示す。" + "これは別の文です。" * 10
    result = snippet([text], "売上高 地域", length=20)
    assert "売上高は地域別" in result.text and marked(result) == ["売上高", "地域"]
    assert len(result.text) <= 44 and " " not in result.text.strip("… ")
    assert marked(snippet(["売上高", "報告"], "売上高は")) == ["売上高"]
    assert snippet(["2023年度", "GDP統計"], "GDP").text == "2023年度 GDP統計"


def test_thai_and_hindi_keep_their_marks():
    assert marked(snippet(["รายได้สุทธิ"], "รายได้")) == ["รายได้"]
    assert marked(snippet(["वार्षिक", "रिपोर्ट"], "रिपोर्ट")) == ["रिपोर्ट"]


def test_wrong_input_is_told():
    with pytest.raises(ValueError, match="2 words and 1 weights"):
        snippet(["a", "b"], "a", [1.0])
    with pytest.raises(ValueError, match="length 0"):
        snippet(["a"], "a", length=0)


def test_nothing_that_steers_a_terminal_or_reorders_text_gets_through():
    assert printable("a\x1b[31mred\x1b[0m\x07") == "a[31mred[0m"
    assert printable("safe\u202egnp.exe\u2066x\u200e\u200b\ufeff\u00ad") == "safegnp.exex"
    assert printable("one\r\ntwo\u2028three\x9b") == "one  two three"
    assert printable("lone \ud800 end") == "lone \ufffd end"
    assert printable("می\u200cخواهم") == "می\u200cخواهم"
    assert snippet(["ev\x1bil", "\u202e", "word"], "evil").text == "evil word"


def test_marks_lie_inside_the_text_in_order():
    words = ["(alpha)", '"beta".', "gamma,", "alpha"] * 30
    result = snippet(words, "alpha beta gamma")
    assert all(0 <= a < b <= len(result.text) for a, b in result.marks)
    assert all(x[1] <= y[0] for x, y in zip(result.marks, result.marks[1:], strict=False))
    assert {m for m in marked(result)} <= {"alpha", "beta", "gamma"}
