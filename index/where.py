"""Filters: `{"year": {"$gte": 2020}, "kind": "pdf"}` -> SQL over documents (alias d) and pages (alias p).

A name is a built-in field (document, path, name, title, kind, state, size, pages, page, added) or else a key of the
document's metadata, dots reaching into it; `metadata.size` means the key where a built-in has its name. Values are
bound, never pasted. As in MongoDB, a list in the metadata fits where one of its elements does, a comparison fits values
of its own type only, and `null` fits what is null or not there.
"""

from __future__ import annotations

import json
import math
from reprlib import repr as short
from typing import Any

from index.errors import QueryError

_COLUMNS = {
    "document": "d.content",
    "title": "d.title",
    "kind": "d.kind",
    "state": "d.state",
    "size": "d.size",
    "pages": "d.page_count",
    "added": "d.added",
    "page": "p.number",
}
_PATHS = {"path": "path", "name": "name"}
_COMPARE = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_OPERATORS = ("$eq", "$ne", "$in", "$nin", *_COMPARE, "$exists", "$not", "$and", "$or")
_DEEPEST = 16
_MOST = 300  # comparisons, and
_MOST_VALUES = 10_000  # in all of them together: SQLite has limits too
Clause = tuple[str, list[Any]]


def compile_where(where: dict[str, Any] | None) -> Clause:
    """A filter -> an SQL condition and the values to bind. None or {} fits every page. Raises QueryError."""
    if where is None:
        return "1", []
    condition, values = _all_of(where, 0)
    if condition.count("EXISTS") > _MOST or len(values) > _MOST_VALUES:
        raise QueryError(f"a filter has at most {_MOST} comparisons and {_MOST_VALUES} values; this one has more")
    return condition, values


def _all_of(where: Any, depth: int) -> Clause:
    if not isinstance(where, dict) or depth > _DEEPEST:
        raise QueryError(
            f"a filter is a dict such as {{'year': {{'$gte': 2020}}}}, at most {_DEEPEST} deep; got {short(where)}"
        )
    return _join(" AND ", [_entry(name, value, depth) for name, value in where.items()])


def _entry(name: Any, value: Any, depth: int) -> Clause:
    if name in ("$and", "$or"):
        if not isinstance(value, (list, tuple)) or not value:
            raise QueryError(f"{name} takes a list of filters; got {short(value)}")
        return _join(f" {name[1:].upper()} ", [_all_of(part, depth + 1) for part in value])
    if name == "$not":
        return _negated(_all_of(value, depth + 1))
    if not isinstance(name, str) or not name or name.startswith("$"):
        raise QueryError(f"{short(name)} is no operator here; there are {', '.join(_OPERATORS)}")
    return _field(name, value, depth)


def _field(name: str, value: Any, depth: int) -> Clause:
    if not isinstance(value, dict):
        return _test(name, "$eq", value)
    if not value or not all(isinstance(key, str) and key.startswith("$") for key in value):
        raise QueryError(f"{name}: comparisons are a dict ({', '.join(_OPERATORS[:9])}); got {short(value)}")
    if depth > _DEEPEST:
        raise QueryError(f"{name}: a filter is at most {_DEEPEST} deep")
    parts = []
    for operator, operand in value.items():
        if operator == "$not":
            parts.append(_negated(_field(name, operand, depth + 1)))
        elif operator in ("$ne", "$nin"):
            parts.append(_negated(_test(name, "$eq" if operator == "$ne" else "$in", operand)))
        else:
            parts.append(_test(name, operator, operand))
    return _join(" AND ", parts)


def _test(name: str, operator: str, operand: Any) -> Clause:
    """One comparison: a condition over (type, value) of the field, wherever it lives."""
    if operator == "$exists":
        if not isinstance(operand, bool):
            raise QueryError(f"{name}: $exists takes true or false; got {short(operand)}")
        return _there(name) if operand else _negated(_there(name))
    if operator == "$in":
        if not isinstance(operand, (list, tuple)):
            raise QueryError(f"{name}: $in and $nin take a list; got {short(operand)}")
        return _one_of(name, operand)
    if operator == "$eq":
        return _one_of(name, [operand])
    if operator in _COMPARE:
        if isinstance(operand, bool) or operand is None:
            raise QueryError(f"{name}: {operator} takes a number or a text; got {short(operand)}")
        return _over(name, f"{_type(name, operand)} AND v {_COMPARE[operator]} ?", [_value(name, operand)])
    raise QueryError(f"{name}: {short(operator)} is no operator; there are {', '.join(_OPERATORS)}")


def _one_of(name: str, operands: Any) -> Clause:
    """Equal to any of some values, with one comparison for each type among them."""
    by_type: dict[str, list[Any]] = {}
    for operand in operands:
        by_type.setdefault(_type(name, operand), []).append(_value(name, operand))
    clauses = [
        _over(name, f"{kind} AND v IN ({', '.join('?' * len(values))})", values)
        for kind, values in by_type.items()
        if kind != _NULL
    ]
    if _NULL in by_type:
        clauses += [_over(name, _NULL, []), _negated(_there(name))]
    return _join(" OR ", clauses) if clauses else ("0", [])


_NULL = "t = 'null'"


def _type(name: str, operand: Any) -> str:
    """The condition that a stored value has the type of the operand (booleans are a type of their own in JSON)."""
    if operand is None:
        return _NULL
    if isinstance(operand, bool):
        return "t IN ('true', 'false')"
    if isinstance(operand, (int, float)):
        return "t IN ('integer', 'real')"
    if isinstance(operand, str):
        return "t = 'text'"
    raise QueryError(f"{name}: compare with a text, a number, true, false or null; got {short(operand)}")


def _value(name: str, operand: Any) -> Any:
    """What is bound for an operand."""
    if isinstance(operand, float) and not math.isfinite(operand) or isinstance(operand, int) and abs(operand) >= 2**63:
        raise QueryError(f"{name}: {short(operand)} is out of range")
    return _text(name, operand) if isinstance(operand, str) else operand


def _text(name: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise QueryError(f"{name!a}: {short(text)} is not text that UTF-8 can hold") from None
    return text


def _there(name: str) -> Clause:
    if name in _COLUMNS or name in _PATHS:
        return _over(name, "1", [])
    return "EXISTS (SELECT 1 WHERE json_type(d.metadata, ?) IS NOT NULL)", [_json_path(name)]


def _over(name: str, condition: str, values: list[Any]) -> Clause:
    """That a (type t, value v) of a field, wherever it lives, fits a condition."""
    if name in _COLUMNS:
        column = _COLUMNS[name]
        return f"EXISTS (SELECT 1 FROM (SELECT typeof({column}) t, {column} v) WHERE {condition})", values
    if name in _PATHS:
        inner = f"SELECT 'text' t, {_PATHS[name]} v FROM paths WHERE document = d.id"
        return f"EXISTS (SELECT 1 FROM ({inner}) WHERE {condition})", values
    inner = "SELECT type t, value v FROM json_each(d.metadata, ?) WHERE json_type(d.metadata, ?) <> 'object'"
    return f"EXISTS (SELECT 1 FROM ({inner}) WHERE {condition})", [*[_json_path(name)] * 2, *values]


def _json_path(name: str) -> str:
    keys = name.removeprefix("metadata.").split(".")
    if any(not key or '"' in key or "\0" in key for key in keys):
        raise QueryError(f"{name!a}: a metadata key is not empty and has no double quotes; dots reach into it")
    return "$" + "".join(f".{json.dumps(_text(name, key), ensure_ascii=False)}" for key in keys)


def _negated(clause: Clause) -> Clause:
    return f"NOT ({clause[0]})", clause[1]


def _join(word: str, clauses: list[Clause]) -> Clause:
    if not clauses:
        return "1", []
    return "(" + word.join(sql for sql, _ in clauses) + ")", [value for _, values in clauses for value in values]
