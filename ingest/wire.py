"""Messages between the renderer and its worker process, over one socket.

A message is a fixed prefix, a small JSON header and raw bytes (pixels, boxes, text); a file's descriptor may ride with
it. Nothing is pickled, sizes are checked before anything is allocated, and every wait has a deadline, because the other
end may be in the hands of a hostile file.

Does not know what the messages mean (`worker` and `render` do).
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

MAX_HEADER = 1 << 16
CAN_PASS_FDS = hasattr(socket, "send_fds")

_PREFIX = struct.Struct("<4sIQ")  # magic, bytes of header, bytes of payload
_MAGIC = b"OCT1"


class ForgedMessage(Exception):
    """The other end sent something that this protocol does not know, or more than was agreed."""


def send(
    sock: socket.socket, header: dict[str, Any], payload: Sequence[bytes | memoryview] = (), fd: int | None = None
) -> None:
    """Write one message. Raises OSError where the other end is gone, TimeoutError by the socket's own time-out."""
    text = json.dumps(header, allow_nan=False, separators=(",", ":")).encode()
    prefix = _PREFIX.pack(_MAGIC, len(text), sum(len(part) for part in payload))
    if fd is None:
        sock.sendall(prefix)
    else:
        socket.send_fds(sock, [prefix], [fd])
    sock.sendall(text)
    for part in payload:
        sock.sendall(part)


def receive(
    sock: socket.socket, *, max_payload: int, deadline: float | None = None, transfer: float = 10.0
) -> tuple[dict[str, Any], bytearray, int | None]:
    """Read one message: header, payload, descriptor or None.

    deadline: `time.monotonic()` at which its first byte must be there, None for ever; the rest must follow within
    `transfer` seconds. Raises TimeoutError, EOFError where the other end has closed, ForgedMessage.
    """
    prefix = bytearray()
    sock.settimeout(None if deadline is None else max(deadline - time.monotonic(), 0.02))
    fds: list[int] = []
    if CAN_PASS_FDS:
        first, fds, _, _ = socket.recv_fds(sock, _PREFIX.size, 1)
    else:
        first = sock.recv(_PREFIX.size)
    prefix += first
    end = None if deadline is None else time.monotonic() + transfer
    if not first:
        raise EOFError("the other end closed the socket")
    if len(prefix) < _PREFIX.size:
        prefix += _read(sock, _PREFIX.size - len(prefix), end)
    magic, header_bytes, payload_bytes = _PREFIX.unpack(prefix)
    if magic != _MAGIC or header_bytes > MAX_HEADER or payload_bytes > max_payload:
        raise ForgedMessage(f"prefix {bytes(prefix)!r}: bad magic, or a size over {MAX_HEADER} and {max_payload} bytes")
    header = _parse(_read(sock, header_bytes, end))
    return header, _read(sock, payload_bytes, end), fds[0] if fds else None


def _read(sock: socket.socket, count: int, end: float | None) -> bytearray:
    data = bytearray(count)
    view = memoryview(data)
    while view:
        sock.settimeout(None if end is None else max(end - time.monotonic(), 0.001))
        got = sock.recv_into(view)
        if not got:
            raise EOFError("the other end closed the socket inside a message")
        view = view[got:]
    return data


def _parse(text: bytearray) -> dict[str, Any]:
    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is no number")

    try:
        header = json.loads(text.decode(), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ForgedMessage(f"the header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise ForgedMessage(f"the header is a {type(header).__name__}, not an object")
    return header
