"""Text files as documents: found, refused with a reason, cut to pages, drawn, shown, searched as text and as code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from checkpoints import JINA

from index.errors import EncoderMismatch, QueryError
from ingest import answers
from ingest.drawing import MAX_PASSAGE, Caps, Failed
from ingest.passage import COLUMNS, ROWS, Passages, laid_out
from ingest.render import Renderer
from ingest.sources import MAX_TEXT_BYTES, Source, Unreadable, find, open_source
from ingest.wire import ForgedMessage
from retriever import Retriever
from retriever.cli import main
from retriever.encoders.jina_v4 import JinaV4

CODE = 'def area(radius):\n\t"""Of a circle."""\n\n\treturn 3.14159 * radius ** 2\n'
CAPS = Caps(4_000_000, 4096, 50)


def passages(text: str) -> list[str]:
    opened = Passages(text.encode())
    return [opened.draw(number, 20, CAPS).passage for number in range(1, opened.pages + 1)]


def test_suffix_and_bytes_say_what_is_text(tmp_path: Path) -> None:
    files = {
        "a.py": (b"# %PDF is what a PDF starts with", "text"),
        "b.MD": (b"# Title", "text"),
        "c.txt": (b"%PDF-1.7 and so on", "pdf"),
        "d.txt": ("wide".encode("utf-16"), "text"),
        "e.txt": (b"\x1b[1mbold\x1b[0m", "text"),
        "f.txt": (b"PK\x03\x04\0\0", "unsupported"),
        "g.txt": (b"", "empty"),
        "h.txt": (b"x" * (MAX_TEXT_BYTES + 1), "oversize"),
    }
    for name, (data, _) in files.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "i.csv").write_text("not,taken")
    found = list(find([tmp_path]))
    assert [item.path.name for item in found] == list(files)
    for item in found:
        assert (item.kind if isinstance(item, Source) else item.state) == files[item.path.name][1]
        assert isinstance(item, Source) or (isinstance(item, Unreadable) and item.reason)


@pytest.mark.parametrize(
    ("data", "state", "told"),
    [
        (b"caf\xe9", "unsupported", "not UTF-8 at byte 3"),
        (b"\xff\xfea", "unsupported", "not UTF-16"),
        (b"a" * 2000 + b"\0", "unsupported", "bytes that no text has"),
        (b" \n\f\n", "empty", "no words"),
        (b"a" * (MAX_TEXT_BYTES + 1), "oversize", "16 MiB"),
    ],
)
def test_what_is_no_text_is_refused(data: bytes, state: str, told: str) -> None:
    with pytest.raises(Failed, match=told) as refused:
        Passages(data)
    assert refused.value.state == state


def test_a_page_is_whole_where_it_can_be() -> None:
    assert passages(CODE) == [CODE.expandtabs(4).rstrip()]
    lines = [f"line {i}" for i in range(2 * ROWS)]
    assert passages("\n".join(lines)) == ["\n".join(lines[:ROWS]), "\n".join(lines[ROWS:])]
    lines[ROWS - 10] = ""
    assert passages("\r\n".join(lines))[0] == "\n".join(lines[: ROWS - 10]), "ends at the blank line"
    assert passages("one\ftwo\n\n") == ["one", "two"]
    long = "word " * COLUMNS
    assert passages(long) == [long.rstrip()], "what is wrapped for the picture is one line to an encoder"
    assert passages("x" * (COLUMNS * ROWS + 1)) == ["x" * (COLUMNS * ROWS), "x"]
    assert passages("東" * 61) == ["東" * 61]


def test_the_words_lie_where_they_are_drawn() -> None:
    opened = Passages(f"{CODE}\n\n東京 x\n".encode())
    drawing = opened.draw(1, 150, CAPS)
    words, boxes = zip(*drawing.words, strict=True)
    assert words[:2] == ("def", "area(radius):") and words[-2:] == ("東京", "x")
    assert laid_out(words, np.array(boxes, np.float32)) == f"{CODE.expandtabs(4)}\n\n東京 x"
    ink = np.frombuffer(drawing.pixels, np.uint8).reshape(drawing.height_px, drawing.width_px, 3) < 128
    size = np.array([drawing.width_px, drawing.height_px] * 2)
    for x0, y0, x1, y1 in (np.array(boxes) * size).astype(int):
        assert ink[y0:y1, x0:x1].any()
        ink[y0 - 1 : y1 + 1, x0 - 2 : x1 + 4] = False
    assert not ink.any()


@pytest.mark.parametrize("backend", ["pymupdf", "pdfium"])
def test_the_jailed_worker_reads_it(tmp_path: Path, backend: str) -> None:
    (tmp_path / "area.py").write_text(CODE + "# Fläche, 面積\n")
    with Renderer(backend=backend) as renderer:
        descriptor = open_source(tmp_path / "area.py")
        with renderer.open(descriptor, "text") as document:
            page = renderer.render(document, 1)
    assert page.passage == CODE.expandtabs(4) + "# Fläche, 面積"
    assert page.words.texts[-2:] == ["Fläche,", "面積"] and page.image.shape == (1754, 1240, 3)


def test_the_encoder_in_the_box_finds_passages_and_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "area.py").write_text(CODE)
    (tmp_path / "in" / "notes.md").write_text("# Harbour\n\nThe ferry leaves at nine.\n")
    (tmp_path / "in" / "latin.txt").write_bytes(b"caf\xe9")
    index = ["--index", str(tmp_path / "index")]
    assert main(["add", str(tmp_path / "in"), *index]) == 1
    assert "latin.txt: the text is not UTF-8" in capsys.readouterr().out
    for query, name in (("how large is a circle", "area.py"), ("when does the boat go", "notes.md")):
        assert main(["search", query, "--json", *index]) == 0
        assert Path(json.loads(capsys.readouterr().out)["hits"][0]["path"]).name == name
    assert main(["show", "area.py", "1", *index]) == 0
    assert CODE.expandtabs(4) in capsys.readouterr().out
    assert main(["show", "area.py", "1", "-o", str(tmp_path / "area.png"), *index]) == 0
    capsys.readouterr()
    assert main(["search", "--image", str(tmp_path / "in" / "area.py"), "-k", "1", "--json", *index]) == 0
    assert json.loads(capsys.readouterr().out)["hits"][0]["score_norm"] > 0.9


@pytest.mark.parametrize("task", ["code", "text-matching"])
def test_jina_v4_embeds_them_as_text_with_the_task_of_the_index(tmp_path: Path, task: str) -> None:
    (tmp_path / "area.py").write_text(CODE)
    (tmp_path / "notes.md").write_text("The ferry leaves at nine.")
    with Retriever.open(tmp_path / "index", str(JINA), task=task, codec="fp16") as retriever:
        retriever.add([tmp_path / "area.py", tmp_path / "notes.md"])
    with Retriever.open(tmp_path / "index") as retriever:
        hits = {Path(hit.path).name: hit for hit in retriever.search("a circle", mode="visual")}
        assert retriever.encoder.fingerprint["task"] == task
    model = JinaV4(JINA, task=task)
    asked, stored = (
        model.encode(["a circle"], prompt_name="query"),
        model.encode([CODE.expandtabs(4).rstrip()], prompt_name="passage"),
    )
    wanted = float((asked[0].multi @ stored[0].multi.T).max(dim=1).values.sum())
    assert hits["area.py"].lanes["visual"] == pytest.approx(wanted, abs=0.02)
    with pytest.raises(EncoderMismatch, match="task"):
        Retriever.open(tmp_path / "index", JinaV4(JINA))
    with pytest.raises(QueryError, match="no tasks"):
        Retriever.open(tmp_path / "other", task=task).add(tmp_path / "area.py")


def test_a_forged_passage_is_not_believed() -> None:
    header = {"ok": True, "width_px": 1, "height_px": 1, "words": 0, "width": 9, "height": 9}

    def page(passage: int, payload: bytes) -> str:
        answer = header | {"passage": passage}
        return answers.page(1, answer, bytearray(payload), max_pixels=9, max_side=9).passage

    assert page(3, b"rgb" + b"abc") == "abc"
    for passage, payload in ((4, b"rgbabc"), (1, b"rgb\xff"), (MAX_PASSAGE + 1, b"rgb" + b"a" * (MAX_PASSAGE + 1))):
        with pytest.raises(ForgedMessage):
            page(passage, payload)
