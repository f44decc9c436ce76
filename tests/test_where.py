"""Filters against an evaluator in plain Python, over made-up metadata; what is refused, and how it is said."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import add, content_of, origin_of, page_of

from index import Index
from index.errors import QueryError
from index.where import compile_where

KEYS = ("year", "naïve", "日本", "a b", "it's", "back\\slash", "new\nline", "%", "size")
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(-(2**62), 2**62),
    st.integers(-8, 8).map(lambda i: i / 4),
    st.sampled_from(["", "a", "A", "é", "1", "true", "null", "'", '"', "x' OR 1=1 --", "日本"]),
)
values = st.one_of(scalars, st.lists(scalars, max_size=3))
documents = st.dictionaries(
    st.sampled_from(KEYS),
    st.one_of(values, st.dictionaries(st.sampled_from(KEYS), values, max_size=2)),
    max_size=4,
)
names = st.one_of(
    st.sampled_from(KEYS[:-1]),
    st.tuples(st.sampled_from(KEYS), st.sampled_from(KEYS)).map(lambda pair: f"metadata.{pair[0]}.{pair[1]}"),
    st.just("metadata.size"),
)
comparable = scalars.filter(lambda value: value is not None and not isinstance(value, bool))
tests = st.recursive(
    st.one_of(
        st.tuples(st.sampled_from(["$eq", "$ne"]), scalars),
        st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(scalars, max_size=4)),
        st.tuples(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), comparable),
        st.tuples(st.just("$exists"), st.booleans()),
    ).map(lambda pair: {pair[0]: pair[1]}),
    lambda inner: st.one_of(
        inner.map(lambda test: {"$not": test}), st.tuples(inner, inner).map(lambda both: both[0] | both[1])
    ),
    max_leaves=3,
)
filters = st.recursive(
    st.tuples(names, st.one_of(scalars, tests)).map(lambda pair: {pair[0]: pair[1]}),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$and": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$or": parts}),
        inner.map(lambda part: {"$not": part}),
        st.tuples(inner, inner).map(lambda both: both[0] | both[1]),
    ),
    max_leaves=5,
)
MISSING = object()


def fits(metadata: dict[str, Any], where: dict[str, Any]) -> bool:
    """What a filter over metadata means."""
    return all(_entry(metadata, name, value) for name, value in where.items())


def _entry(metadata: dict[str, Any], name: str, value: Any) -> bool:
    if name == "$and":
        return all(fits(metadata, part) for part in value)
    if name == "$or":
        return any(fits(metadata, part) for part in value)
    if name == "$not":
        return not fits(metadata, value)
    found: Any = metadata
    for key in name.removeprefix("metadata.").split("."):
        found = found.get(key, MISSING) if isinstance(found, dict) else MISSING
    return _tests(found, value if isinstance(value, dict) else {"$eq": value})


def _tests(found: Any, tests: dict[str, Any]) -> bool:
    return all(_test(found, operator, operand) for operator, operand in tests.items())


def _test(found: Any, operator: str, operand: Any) -> bool:
    if operator == "$not":
        return not _tests(found, operand)
    if operator == "$ne":
        return not _test(found, "$eq", operand)
    if operator == "$nin":
        return not _test(found, "$in", operand)
    if operator == "$exists":
        return (found is not MISSING) == operand
    if operator == "$in":
        return any(_test(found, "$eq", item) for item in operand)
    if operator == "$eq" and operand is None and found is MISSING:
        return True
    elements = found if isinstance(found, list) else [] if found is MISSING or isinstance(found, dict) else [found]
    return any(_compare(element, operator, operand) for element in elements)


def _compare(element: Any, operator: str, operand: Any) -> bool:
    kinds = [type(value) if value is None or isinstance(value, (bool, str)) else float for value in (element, operand)]
    if kinds[0] is not kinds[1]:
        return False
    if isinstance(element, str):  # SQLite compares the bytes of UTF-8
        element, operand = element.encode(), operand.encode()
    return bool(
        {
            "$eq": lambda: element == operand,
            "$gt": lambda: element > operand,
            "$gte": lambda: element >= operand,
            "$lt": lambda: element < operand,
            "$lte": lambda: element <= operand,
        }[operator]()
    )


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """Four documents of one page each; their metadata is set by each test."""
    index = Index.create(tmp_path_factory.mktemp("where"), dim=16, fingerprint={"name": "seed"})
    with index.writing() as writer:
        for name in "abcd":
            add(writer, name, 1)
    yield index
    index.close()


def chosen(index: Index, where: Any) -> set[str]:
    """The documents that a filter leaves."""
    with index.snapshot() as snapshot:
        allowed = snapshot.allowed(where)
        ids = snapshot.state.ids if allowed is None else allowed
        return {row["content"] for row in snapshot.pages(ids.tolist()).values()}


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(documents, min_size=4, max_size=4), st.lists(filters, min_size=10, max_size=10))
def test_filters_mean_what_they_say(index: Index, metadata: list[dict[str, Any]], wheres: list[dict[str, Any]]) -> None:
    with index.writing() as writer:
        known = {}
        for name, values in zip("abcd", metadata, strict=True):
            row = writer.document(content_of(name))
            assert row is not None
            writer.set_metadata(row["id"], values)
            known[content_of(name)] = values
    for where in wheres:
        expected = {content for content, values in known.items() if fits(values, where)}
        assert chosen(index, where) == expected, json.dumps([where, metadata])


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Index]:
    """Two PDFs of two pages and one picture under two paths."""
    index = Index.create(tmp_path / "index", dim=16, fingerprint={"name": "seed"})
    with index.writing() as writer:
        add(writer, "one", 2, metadata={"year": 2020, "tags": ["a", "b"], "who": {"name": "Ada"}})
        add(writer, "three", 2, metadata={"year": "2020", "ok": True, "empty": [], "nothing": None, "object": {}})
        picture = add(writer, "seven", [page_of("seven", 1)], path="seven")
        writer.add_path(picture, origin_of("copy of seven", "/elsewhere"))
    yield index
    index.close()


ONE, THREE, SEVEN = (content_of(name) for name in ("one", "three", "seven"))
BUILT_IN: list[tuple[dict[str, Any], set[str]]] = [
    ({}, {ONE, THREE, SEVEN}),
    ({"document": ONE}, {ONE}),
    ({"document": {"$in": [ONE, SEVEN]}}, {ONE, SEVEN}),
    ({"title": "Title three"}, {THREE}),
    ({"kind": "pdf"}, {ONE, THREE, SEVEN}),
    ({"state": {"$ne": "ok"}}, set()),
    ({"size": {"$gte": 5}}, {THREE, SEVEN}),
    ({"size": "5"}, set()),
    ({"pages": 2}, {ONE, THREE}),
    ({"page": 2}, {ONE, THREE}),
    ({"page": {"$gt": 1, "$lt": 3}}, {ONE, THREE}),
    ({"path": "/files/one.pdf"}, {ONE}),
    ({"path": "/elsewhere/copy of seven.pdf"}, {SEVEN}),
    ({"name": {"$in": ["one.pdf", "seven.pdf"]}}, {ONE, SEVEN}),
    ({"name": {"$ne": "seven.pdf"}}, {ONE, THREE}),
    ({"added": {"$gt": "2020"}}, {ONE, THREE, SEVEN}),
    ({"added": {"$exists": False}}, set()),
    ({"year": 2020}, {ONE}),
    ({"year": "2020"}, {THREE}),
    ({"year": None}, {SEVEN}),
    ({"tags": "b"}, {ONE}),
    ({"tags": {"$nin": ["b"]}}, {THREE, SEVEN}),
    ({"who.name": "Ada"}, {ONE}),
    ({"who": "Ada"}, set()),
    ({"who": {"$exists": True}}, {ONE}),
    ({"ok": 1}, set()),
    ({"ok": True}, {THREE}),
    ({"empty": {"$exists": True}}, {THREE}),
    ({"object": {"$exists": True}}, {THREE}),
    ({"nothing": {"$exists": True}}, {THREE}),
    ({"nothing": None}, {ONE, THREE, SEVEN}),
    ({"metadata.size": {"$exists": True}}, set()),
    ({"year": {"$lt": 1e300}}, {ONE}),
    ({"$not": {}}, set()),
    ({"year": {"$in": []}}, set()),
    ({"year": {"$nin": []}}, {ONE, THREE, SEVEN}),
]


@pytest.mark.parametrize(
    ("where", "expected"), BUILT_IN, ids=lambda value: json.dumps(value) if isinstance(value, dict) else ""
)
def test_built_in_fields_and_the_corners_of_json(library: Index, where: dict[str, Any], expected: set[str]) -> None:
    assert chosen(library, where) == expected


DEEP: Any = {"year": 1}
for _ in range(5000):
    DEEP = {"$not": DEEP}
REFUSED: list[tuple[Any, str]] = [
    ([], "a filter is a dict"),
    ("year = 2020", "a filter is a dict"),
    (0, "a filter is a dict"),
    ({"$and": {}}, r"\$and takes a list of filters"),
    ({"$or": []}, r"\$or takes a list of filters"),
    ({"$or": ["year"]}, "a filter is a dict"),
    ({"$where": "1"}, r"'\$where' is no operator here; there are \$eq"),
    ({"": 1}, "no operator"),
    ({5: 1}, "5 is no operator"),
    ({"year": {"$regex": "a"}}, r"year: '\$regex' is no operator"),
    ({"year": {"gte": 1}}, r"year: comparisons are a dict \(\$eq"),
    ({"year": {}}, "year: comparisons are a dict"),
    ({"year": {"$gt": None}}, r"year: \$gt takes a number or a text; got None"),
    ({"year": {"$gt": True}}, r"\$gt takes a number"),
    ({"year": {"$in": "2020"}}, r"\$in and \$nin take a list; got '2020'"),
    ({"year": {"$exists": 1}}, r"\$exists takes true or false"),
    ({"year": [1, 2]}, r"year: compare with a text, a number, true, false or null; got \[1, 2\]"),
    ({"year": {"$eq": {"a": 1}}}, "compare with a text"),
    ({"year": object()}, "compare with a text"),
    ({"year": 2**63}, "is out of range"),
    ({"year": math.nan}, "nan is out of range"),
    ({"year": -math.inf}, "out of range"),
    ({"year": "\ud800"}, "not text that UTF-8 can hold"),
    ({"\udcff": 1}, "not text that UTF-8 can hold"),
    ({"a..b": 1}, "a metadata key is not empty"),
    ({'a"b': 1}, "no double quotes"),
    ({"a\0b": 1}, "a metadata key"),
    (DEEP, "at most 16 deep"),
    ({"year": {"$in": list(range(10_001))}}, "at most 300 comparisons and 10000 values"),
    ({"$or": [{"year": i} for i in range(301)]}, "at most 300 comparisons"),
]


@pytest.mark.parametrize(("where", "message"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_no_filter_is_refused_with_what_to_do(library: Index, where: Any, message: str) -> None:
    with pytest.raises(QueryError, match=message) as caught:
        chosen(library, where)
    assert len(str(caught.value)) < 400


INJECTIONS = [
    "'", "''", "x'; DROP TABLE pages; --", "1) OR (1=1", "] OR 1", "$", "$.x", "year') IS NOT NULL OR ('1", "?", "?1",
    ":a", "year]", "#-1", "[0]", "*", "%", "_", "a' UNION SELECT content FROM documents --",
]  # fmt: skip


@pytest.mark.parametrize("text", INJECTIONS)
def test_no_key_and_no_value_is_sql(library: Index, text: str) -> None:
    for where in (
        {text: 1},
        {"year": text},
        {"path": text},
        {"title": {"$in": [text]}},
        {f"metadata.{text}": {"$eq": text}},
    ):
        try:
            assert chosen(library, where) == set()
        except QueryError as error:
            assert text.startswith("$") and "no operator" in str(error)
    assert chosen(library, None) == {ONE, THREE, SEVEN}


def test_the_widest_filter_that_is_allowed_runs(library: Index) -> None:
    assert chosen(library, {"$or": [{"year": i} for i in range(1721, 2021)]}) == {ONE}
    assert chosen(library, {"year": {"$in": list(range(2000, 11_990))}}) == {ONE}
    nested: dict[str, Any] = {"year": 2020}
    for _ in range(8):
        nested = {"$not": {"$not": nested}}
    assert chosen(library, nested) == {ONE}


def test_values_are_bound() -> None:
    condition, values = compile_where({"year": "x'y", "path": "z"})
    assert "x'y" not in condition
    assert values == ['$."year"', '$."year"', "x'y", "z"]


def test_a_text_match_honours_the_filter(library: Index) -> None:
    with library.snapshot() as snapshot:
        _, ids = snapshot.match("title", {"pages": 2})
        assert {row["content"] for row in snapshot.pages(ids.tolist()).values()} == {ONE, THREE}
