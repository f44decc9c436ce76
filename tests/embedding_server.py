"""A real embedding server in a thread, of vLLM's, Jina's and OpenAI's forms, that can be told to misbehave."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

DIM = 8


def tokens(one: str | np.ndarray) -> np.ndarray:
    """(t, 8) float32, not of norm 1: a row for each word of a text, four for a picture, one for each quarter of it."""
    if isinstance(one, str):
        seeds = [zlib.crc32(word.encode()) for word in one.split()]
    else:
        half = one.shape[0] // 2
        parts = [one[:half], one[half:], one[:, ::2], one[:, 1::2]]
        seeds = [zlib.crc32(np.ascontiguousarray(part).tobytes()) for part in parts]
    return np.stack([np.random.default_rng(seed).normal(size=DIM) for seed in seeds]).astype(np.float32)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Server:
    """multi: a list of vectors for each input; jina: the form of /v1/embeddings; sees: takes pictures; first: answers,
    (status, headers, body) or callables of a handler, that are given before the right ones; asked: (headers, body) of
    each request; change: what is done to the right answer; most: bytes of a request that are taken."""

    def __init__(self, multi: bool = True, jina: bool = True, sees: bool = True) -> None:
        self.multi, self.jina, self.sees, self.most = multi, jina, sees, 1 << 30
        self.first, self.always, self.asked, self.change = [], None, [], lambda answer: answer
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.asked.append((self.path, dict(self.headers), json.loads(body)))
                say = outer.first.pop(0) if outer.first else outer.always or outer.right(self.path, body)
                with contextlib.suppress(OSError):  # the other side had enough
                    say(self) if callable(say) else outer.send(self, *say)

            do_GET = do_POST

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads, self.http.block_on_close = True, False
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        self.base = f"http://127.0.0.1:{self.http.server_port}"

    def send(self, handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    def right(self, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        question = json.loads(body)
        if len(body) > self.most:
            return 413, {}, b"too large"
        if path == "/pooling":
            inputs = question.get("input") or [question["messages"][0]["content"][0]["image_url"]["url"]]
            inputs = [{"image": one.split(",")[1]} if one.startswith("data:") else {"text": one} for one in inputs]
        else:
            inputs = question["input"]
            if self.jina != isinstance(inputs[0], dict) or (not self.multi and "return_multivector" in question):
                return 422, {}, b'{"detail": "unknown form"}'
            inputs = [one if self.jina else {"text": one} for one in inputs]
        if not self.sees and any("image" in one for one in inputs):
            return 400, {}, b'{"detail": "no pictures"}'
        rows = [tokens(one["text"] if "text" in one else picture(one["image"])) for one in inputs]
        values = [row.tolist() if self.multi else row.sum(axis=0).tolist() for row in rows]
        name = "data" if path == "/pooling" else "embeddings" if self.multi else "embedding"
        data = [{"index": place, name: value} for place, value in enumerate(values)][::-1]  # not in order
        answer = self.change({"model": question.get("model", "tiny"), "data": data})
        return 200, {}, answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


def picture(encoded: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))


def stalls(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(1.5)


def drips(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(30):
        handler.wfile.write(b" ")
        time.sleep(0.1)


def drips_headers(handler: BaseHTTPRequestHandler) -> None:
    for byte in b"HTTP/1.0 200 OK\r\nX-Long: and longer\r\n":
        handler.wfile.write(bytes([byte]))
        time.sleep(0.1)


def drops(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


def cuts(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"data"')
