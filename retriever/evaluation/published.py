"""Figures of others, from published.json, with source and date: what a report shows beside ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FILE = Path(__file__).parent / "published.json"


def published(name: str, measure: str) -> list[dict[str, Any]]:
    """Figures for a data set, task or benchmark (a hub name, the folder of its copy, mteb's name): model, value, title,
    date."""
    known = json.loads(_FILE.read_text("utf-8"))

    def fits(figure: Mapping[str, Any]) -> bool:
        names = {figure["dataset"], figure["dataset"].rpartition("/")[2], figure.get("task")}
        return figure["measure"] == measure and name.partition("@")[0] in names

    return [dict(figure) | known["sources"][figure["source"]] for figure in known["figures"] if fits(figure)]
