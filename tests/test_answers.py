"""A worker that lies is found out: forged numbers, boxes, text and messages, one by one and from a live process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingest import answers, process, wire
from ingest.document import PageFailure
from ingest.render import Renderer

sys.path.insert(0, str(Path(__file__).parent))
from rendering import numbered, opened, text

GOOD = {"ok": True, "width_px": 4, "height_px": 2, "words": 1, "width": 9.0, "height": 5}
BOX = np.array([[0.1, 0.2, 0.3, 0.4]], "<f4").tobytes()
PAYLOAD = bytes(range(24)) + BOX + b"word"


def test_a_right_answer_is_taken() -> None:
    page = answers.page(7, GOOD, bytearray(PAYLOAD), max_pixels=8, max_side=4)
    assert page.image.tolist()[1][3] == [21, 22, 23]
    assert (page.number, page.words.text, page.width, page.height) == (7, "word", 9, 5)


@pytest.mark.parametrize(
    "change",
    [
        {"width_px": 5},
        {"width_px": 2**40},
        {"width_px": 0},
        {"width_px": -4},
        {"width_px": 4.0},
        {"width_px": "4"},
        {"width_px": True},
        {"height_px": 3},
        {"words": 2},
        {"words": 0},
        {"words": 10**6},
        {"words": None},
        {"width": float("inf")},
        {"width": -1},
        {"width": 1e300},
        {"width": None},
        {"ok": False},
        {"ok": False, "state": "fine", "reason": "x"},
        {"ok": False, "state": "oom", "reason": 5},
        {"ok": False, "state": "encrypted", "reason": "of a document only"},
    ],
)
def test_forged_headers_are_seen(change: dict[str, Any]) -> None:
    with pytest.raises(wire.ForgedMessage):
        answers.page(1, {**GOOD, **change}, bytearray(PAYLOAD), max_pixels=8, max_side=4)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        PAYLOAD[:30],
        bytes(24) + np.array([np.nan, 0, 1, 1], "<f4").tobytes() + b"word",
        bytes(24) + np.array([0.5, 0, 0.4, 1], "<f4").tobytes() + b"word",
        bytes(24) + BOX + b"two words",
        bytes(24) + BOX + b"",
        bytes(24) + BOX + b"\xff\xfe",
        bytes(24) + BOX + b"x" * 1001,
        bytes(24) + BOX + "e\u0301".encode(),
    ],
)
def test_forged_payloads_are_seen(payload: bytes) -> None:
    with pytest.raises(wire.ForgedMessage):
        answers.page(1, GOOD, bytearray(payload), max_pixels=8, max_side=4)


@pytest.mark.parametrize(
    "change",
    [
        {"pages": 0},
        {"pages": 2**60},
        {"pages": "1"},
        {"title": None},
        {"title": "x" * 501},
        {"content": "zz"},
        {"content": 1},
    ],
)
def test_forged_documents_are_seen(change: dict[str, Any]) -> None:
    right = {"ok": True, "pages": 1, "title": "\x1b[31mred\u202e", "content": "0" * 32}
    assert answers.opened(right) == (1, "[31mred", "0" * 32)
    with pytest.raises(wire.ForgedMessage):
        answers.opened({**right, **change})


@pytest.mark.parametrize(
    "lie",
    [
        'header["width_px"] += 1',
        'header["id"] = 0',
        "parts.append(bytes(10**8))",
        "parts.clear()",
        'sock.sendall(b"\\0" * 100)',
        'sock.sendall(b"OCT1" + b"\\xff" * 12)',
        'header = {"x": [[[[1]]]] , "big": "y" * 100_000}',
        "raise SystemExit(3)",
    ],
)
def test_a_lying_worker_is_killed(lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = f"""
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from ingest import wire
from ingest.worker import inherited, main
honest = wire.send
def send(sock, header, parts=(), fd=None):
    if "width_px" in header:
        {lie}
    honest(sock, header, parts, fd)
wire.send = send
main(inherited(sys.argv[2]))
"""
    with Renderer() as renderer, opened(renderer, numbered(2)) as document:
        renderer.close()
        with monkeypatch.context() as patch:
            patch.setattr(process, "_PROGRAM", program)
            page = renderer.render(document, 1)
        assert isinstance(page, PageFailure)
        assert page.state == "crash"
        assert page.reason.isprintable()
        assert text(renderer.render(document, 2)) == "number 2"
