"""Filters: `{"year": {"$gte": 2020}, "kind": "pdf"}` -> SQL over documents (alias d) and pages (alias p).

A name is a built-in field (document, path, name, title, kind, state, size, pages, page, added) or else a key of the
document's metadata, dots reaching into it; `metadata.size` means the key where a built-in has its name. Values are
bound, never pasted. As in MongoDB, a list in the metadata fits where one of its elements does, and a comparison fits
values of its own type only.
"""

from __future__ import annotations

import json
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
Clause = tuple[str, list[Any]]


def compile_where(where: dict[str, Any] | None) -> Clause:
    """A filter -> an SQL condition and the values to bind. None or {} fits every page. Raises QueryError."""
    return _all_of(where, 0) if where else ("1", [])


def _all_of(where: Any, depth: int) -> Clause:
    if not isinstance(where, dict) or depth > _DEEPEST:
        raise QueryError(
            f"a filter is a dict such as {{'year': {{'$gte': 2020}}}}, at most {_DEEPEST} deep; got {where!r}"
        )
    return _join(" AND ", [_entry(name, value, depth) for name, value in where.items()])


def _entry(name: Any, value: Any, depth: int) -> Clause:
    if name in ("$and", "$or"):
        if not isinstance(value, (list, tuple)) or not value:
            raise QueryError(f"{name} takes a list of filters; got {value!r}")
        return _join(f" {name[1:].upper()} ", [_all_of(part, depth + 1) for part in value])
    if name == "$not":
        return _negated(_all_of(value, depth + 1))
    if not isinstance(name, str) or not name or name.startswith("$"):
        raise QueryError(f"{name!r} is no operator here; there are {', '.join(_OPERATORS)}")
    return _field(name, value, depth)


def _field(name: str, value: Any, depth: int) -> Clause:
    if not isinstance(value, dict):
        return _test(name, "$eq", value)
    if not value or not all(isinstance(key, str) and key.startswith("$") for key in value):
        raise QueryError(f"{name}: a comparison is a dict of operators ({', '.join(_OPERATORS[:9])}); got {value!r}")
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
            raise QueryError(f"{name}: $exists takes true or false; got {operand!r}")
        found = _over(name, "t IS NOT NULL", [])
        return found if operand else _negated(found)
    if operator == "$in":
        if not isinstance(operand, (list, tuple)):
            raise QueryError(f"{name}: $in and $nin take a list; got {operand!r}")
        return _join(" OR ", [_test(name, "$eq", item) for item in operand]) if operand else ("0", [])
    if operator == "$eq":
        if operand is None:
            return _negated(_over(name, "t IS NOT NULL AND t <> 'null'", []))
        return _over(name, f"{_types(name, operand)} AND v = ?", [operand])
    if operator in _COMPARE:
        if isinstance(operand, bool) or operand is None:
            raise QueryError(f"{name}: {operator} takes a number or a text; got {operand!r}")
        return _over(name, f"{_types(name, operand)} AND v {_COMPARE[operator]} ?", [operand])
    raise QueryError(f"{name}: {operator!r} is no operator; there are {', '.join(_OPERATORS)}")


def _types(name: str, operand: Any) -> str:
    """The condition that a stored value has the type of the operand (booleans are a type of their own in JSON)."""
    if isinstance(operand, bool):
        return f"t = '{json.dumps(operand)}'"
    if isinstance(operand, (int, float)):
        if abs(operand) >= 2**63 or operand != operand:
            raise QueryError(f"{name}: {operand!r} is out of range")
        return "t IN ('integer', 'real')"
    if isinstance(operand, str):
        return "t = 'text'"
    raise QueryError(f"{name}: compare with a text, a number, true, false or null; got {operand!r}")


def _over(name: str, condition: str, values: list[Any]) -> Clause:
    if name in _COLUMNS:
        column = _COLUMNS[name]
        return f"EXISTS (SELECT 1 FROM (SELECT typeof({column}) t, {column} v) WHERE {condition})", values
    if name in _PATHS:
        inner = f"SELECT 'text' t, {_PATHS[name]} v FROM paths WHERE document = d.id"
        return f"EXISTS (SELECT 1 FROM ({inner}) WHERE {condition})", values
    keys = name.removeprefix("metadata.").split(".")
    if any(not key or '"' in key for key in keys):
        raise QueryError(f"{name!r}: a metadata key is not empty and has no double quotes; dots reach into it")
    path = "$" + "".join(f'."{key}"' for key in keys)
    inner = "SELECT type t, value v FROM json_each(d.metadata, ?)"
    return f"EXISTS (SELECT 1 FROM ({inner}) WHERE {condition})", [path, *values]


def _negated(clause: Clause) -> Clause:
    return f"NOT ({clause[0]})", clause[1]


def _join(word: str, clauses: list[Clause]) -> Clause:
    if not clauses:
        return "1", []
    return "(" + word.join(sql for sql, _ in clauses) + ")", [value for _, values in clauses for value in values]
