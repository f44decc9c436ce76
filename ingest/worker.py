"""The process that opens what came from outside: it is handed a file and gives back pixels and words.

It imports the engines, draws a page of each kind once so that everything lazy is loaded, enters the jail, and only then
takes requests, one at a time, one answer each, until the socket closes. It opens no path itself. Its answers are not
trusted: `process` and `render` check them.

Runs as `python -I -c "... from ingest.worker import main; main(fd)"`, started by `process`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from . import jail, wire
from .drawing import Caps, Drawing, Failed, Opened
from .sources import read_at

Reply = tuple[dict[str, Any], list[bytes | memoryview]]


def main(sock: socket.socket) -> None:
    """Serve `sock` until it closes. Never raises for a bad document."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # sent to a whole group; the parent says when this process ends
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    hello, _, _ = wire.receive(sock, max_payload=0)
    try:
        engine = _engine(hello["backend"])
        _warm_up(engine)
        protection = jail.enter(
            level=hello["jail"], memory=hello["memory"], memory_hard=hello["memory_hard"], parent=hello["parent"]
        )
    except Exception as error:
        wire.send(sock, {"id": 0, "ok": False, "state": "start", "reason": f"{type(error).__name__}: {error}"})
        return
    wire.send(sock, {"id": 0, "ok": True, **protection._asdict()})
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        _serve(sock, Documents(engine, hello["memory"], hello["max_bytes"]))


class Documents:
    """The one open document, and what can be asked of it."""

    def __init__(self, engine: Any, memory: int, max_bytes: int) -> None:
        self.engine = engine
        self.memory = memory
        self.max_bytes = max_bytes
        self.opened: Opened | None = None

    def open(self, request: dict[str, Any], payload: bytearray, fd: int | None) -> Reply:
        self.close()
        jail.allow_seconds(request["seconds"])
        size = os.fstat(fd).st_size if fd is not None else len(payload)
        if size > self.max_bytes:
            raise Failed("oversize", f"the file has {size} bytes, more than the limit of {self.max_bytes}")
        jail.allow_memory(self.memory + size)
        data = _read(fd, self.max_bytes) if fd is not None else bytes(payload)
        if not data:
            raise Failed("empty", "the file has no bytes")
        content = hashlib.blake2b(data, digest_size=16).hexdigest()
        if request["kind"] == "pdf":
            self.opened = self.engine.open_pdf(data, request["password"])
        elif request["kind"] == "text":
            from .passage import Passages

            self.opened = Passages(data)
        else:
            from .picture import Picture

            self.opened = Picture(data, request["kind"])
        assert self.opened is not None
        return {"pages": self.opened.pages, "title": self.opened.title, "content": content}, []

    def draw(self, request: dict[str, Any], payload: bytearray, fd: int | None) -> Reply:
        assert self.opened is not None
        jail.allow_seconds(request["seconds"])
        caps = Caps(request["max_pixels"], request["max_side"], request["max_aspect"])
        return _pack(self.opened.draw(request["number"], request["dpi"], caps))

    def close(self) -> None:
        if self.opened is not None:
            opened, self.opened = self.opened, None
            opened.close()


def _serve(sock: socket.socket, documents: Documents) -> NoReturn:
    """One answer a request. Ends by EOFError when the parent closes the socket."""
    answers: dict[str, Callable[..., Reply]] = {"open": documents.open, "draw": documents.draw}
    while True:
        request, payload, fd = wire.receive(sock, max_payload=documents.max_bytes + 1)
        parts: list[bytes | memoryview] = []
        began = time.monotonic()
        try:
            header, parts = answers[request["do"]](request, payload, fd)
            header["ok"] = True
        except Failed as error:
            header = {"ok": False, "state": error.state, "reason": error.reason[:500]}
        except MemoryError:
            header = {"ok": False, "state": "oom", "reason": "it needs more memory than the limit"}
        except Exception as error:
            header = {"ok": False, "state": "damaged", "reason": f"{type(error).__name__}: {error}"[:500]}
        finally:
            if fd is not None:
                os.close(fd)
        sock.settimeout(None)
        wire.send(sock, {"id": request["id"], "seconds": time.monotonic() - began, **header}, parts)
        del parts, payload


def _pack(drawing: Drawing) -> Reply:
    texts = "\n".join(text for text, _ in drawing.words).encode("utf-8", "replace")
    flat = [value for _, box in drawing.words for value in box]
    boxes = struct.pack(f"<{len(flat)}f", *flat)
    passage = drawing.passage.encode("utf-8", "replace")
    header = {
        "width_px": drawing.width_px,
        "height_px": drawing.height_px,
        "words": len(drawing.words),
        "width": drawing.width,
        "height": drawing.height,
        "passage": len(passage),
        "headings": drawing.headings,
    }
    return header, [drawing.pixels, boxes, texts, passage]


def _read(fd: int, limit: int) -> bytes:
    """All of `fd`, in one buffer of the file's size (a join of pieces would hold it twice)."""
    data = read_at(fd, os.fstat(fd).st_size, 0)
    while chunk := read_at(fd, 1 << 22, len(data)):  # a signal, or a file that grows
        data += chunk
        if len(data) > limit:
            raise Failed("oversize", f"the file has more bytes than the limit of {limit}")
    return data


def _engine(backend: str) -> Any:
    if backend == "pdfium":
        from . import pdfium

        return pdfium
    from . import mupdf

    return mupdf


def _warm_up(engine: Any) -> None:
    """Draw one page with text and decode one image of each format: loads what is loaded lazily."""
    import io

    from .passage import Passages
    from .picture import Image, Picture

    caps = Caps(10_000, 100, 50)
    document = engine.open_pdf(_SMALL_PDF, None)
    document.draw(1, 72, caps)
    document.close()
    Passages(b"Octavo").draw(1, 72, caps)
    for kind in ("png", "jpeg", "tiff", "webp"):
        held = io.BytesIO()
        Image.new("RGB", (8, 8)).save(held, kind, **({"compression": "tiff_lzw"} if kind == "tiff" else {}))
        Picture(held.getvalue(), kind).draw(1, 72, caps)


_SMALL_PDF = b"""%PDF-1.4
1 0 obj <</Type/Catalog/Pages 2 0 R>> endobj
2 0 obj <</Type/Pages/Kids[3 0 R]/Count 1>> endobj
3 0 obj <</Type/Page/Parent 2 0 R/MediaBox[0 0 72 72]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>> endobj
4 0 obj <</Length 35>> stream
BT /F 12 Tf 10 30 Td (Octavo) Tj ET
endstream endobj
5 0 obj <</Type/Font/Subtype/Type1/BaseFont/Helvetica>> endobj
trailer <</Root 1 0 R>>
"""


def inherited(argument: str) -> socket.socket:
    """The socket that `process.Worker` left to this process: a descriptor's number, or "share" for Windows' way."""
    if sys.platform == "win32":
        return socket.fromshare(sys.stdin.buffer.read())
    return socket.socket(fileno=int(argument))
