"""One JSON question to an embedding server: where it may go, the key, time-outs, retries, how much is read.

The standard library's urllib carries it. Redirects are refused, so a key reaches no host but the one that was named;
plain http is for this machine alone, and then no proxy sees it. What a server says is quoted without the key.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import json
import os
import random
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from index.errors import OctavoError, QueryError
from retriever.printable import printable

KEY = "OCTAVO_REMOTE_KEY"
HOSTS = "OCTAVO_REMOTE_HOSTS"
OPTIONS = ("model", "key", "style", "dimensions", "query", "passage", "picture", "batch_bytes", "timeout")
CONNECT = 10.0  # seconds
_LOCAL = ("localhost", "127.0.0.1", "::1")
_AGAIN = (429, 500, 502, 503, 504)
_WAIT = 60.0  # seconds, the most that a Retry-After is obeyed for
_DO = {
    401: "set the key in the environment variable {key}, or name another with #key=VARIABLE",
    403: "the key in the environment variable {key} does not open this model",
    404: "look at the path of the address and at the name of the model, #model=NAME",
    413: "give fewer pixels, or shorter texts; one input alone is too large for it",
}


class Address(NamedTuple):
    """url: what is asked, no user, no query; options: of its fragment, by `OPTIONS`."""

    url: str
    host: str
    options: dict[str, str]

    @property
    def local(self) -> bool:
        return self.host in _LOCAL


class Refused(OctavoError):
    """The server answered with a status that asking again does not change."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def parse(text: str) -> Address:
    """`https://host/pooling` or `https://host/v1/embeddings`, and after a `#` the model or options, `model=NAME&...`.

    Raises QueryError, which never repeats what might be a secret.
    """
    try:
        parts = urlsplit(text)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise QueryError("the address of the encoder is not one: https://host/v1/embeddings is expected") from None
    if "@" in parts.netloc or parts.query:
        raise QueryError(
            f"the address of the encoder at {host} has a user, a password or a ?query in it, which an index would "
            f"keep; leave it out: the key belongs in the environment variable {KEY}"
        )
    if not host or (parts.scheme == "http" and host not in _LOCAL):
        raise QueryError(
            f"http://{host} would carry the key and the pages as plain text; use https://. "
            f"(http is taken for {', '.join(_LOCAL)} only)"
        )
    path = parts.path.rstrip("/")
    if not path.endswith(("/pooling", "/embeddings")):
        raise QueryError(
            f"{parts.scheme}://{parts.netloc}{path}: an address that ends in /pooling (vLLM) or /v1/embeddings (Jina, "
            "OpenAI) is expected"
        )
    found = dict(parse_qsl(parts.fragment)) if "=" in parts.fragment else {"model": parts.fragment}
    unknown = [name for name in found if name not in OPTIONS]
    if unknown or not re.fullmatch(r"[A-Z][A-Z0-9_]*", found.get("key", KEY)):
        raise QueryError(
            f"after the # of an address come {', '.join(OPTIONS)}, as in #model=NAME&key=VARIABLE, where key is the "
            "name of an environment variable, in capitals, never the key itself"
        )
    shown = f"[{host}]" if ":" in host else host
    return Address(
        f"{parts.scheme}://{shown}{f':{port}' if port else ''}{path}", host, {k: v for k, v in found.items() if v}
    )


def check_stored(name: str) -> None:
    """Raise OctavoError for an address that only an index names, which a stranger may have made: questions, and a key,
    go there once the user has put its host into OCTAVO_REMOTE_HOSTS. (Without a key this machine is free.)"""
    address = parse(name)
    if address.host in re.split(r"[\s,]+", os.environ.get(HOSTS, "").lower()):
        return
    if not address.local or "key" in address.options or os.environ.get(KEY):
        raise OctavoError(
            f"the index was filled by the server {address.url}. To let an index send your questions and your key "
            f"there, set {HOSTS}={address.host} in the environment, or name the encoder when you open the index"
        )


class Endpoint:
    """What asks one address. May be shared between threads."""

    def __init__(
        self, address: Address, *, timeout: float, attempts: int, patience: float, backoff: float, most: int
    ) -> None:
        """timeout: seconds for an answer; attempts, patience: how often, and for how many seconds altogether, it is
        asked again; backoff: seconds before the second attempt, doubled for each that follows; most: bytes read of the
        answer to one input."""
        self.address, self.most = address, most
        self._timeout, self._attempts, self._patience, self._backoff = timeout, attempts, patience, backoff
        handlers: list[Any] = [_NoRedirects(), _Https(timeout), _Http(timeout)]
        self._opener = urllib.request.build_opener(*handlers, *([urllib.request.ProxyHandler({})] * address.local))

    def __repr__(self) -> str:
        return f"Endpoint({self.address.url!r})"

    def ask(self, question: dict[str, Any], inputs: int) -> Any:
        """The answer to a question about so many inputs. Raises Refused for a status that stays, OctavoError for no
        answer in time and for one that is no JSON."""
        body, until = json.dumps(question).encode(), time.monotonic() + self._patience
        for attempt in range(1, self._attempts + 1):
            key = self._key()
            pause = self._backoff * 2 ** (attempt - 1) * random.uniform(0.5, 1.0)
            try:
                return self._attempt(body, key, max(0.001, min(self._timeout, until - time.monotonic())), inputs)
            except urllib.error.HTTPError as error:
                with error:
                    failed = self._told(error, key)
                    asked = _seconds(error.headers.get("Retry-After"))
                if error.code not in _AGAIN:
                    raise Refused(failed, error.code) from None
                pause = pause if asked is None else max(pause, min(asked, _WAIT))
            except (OSError, http.client.HTTPException) as error:  # urllib.error.URLError and time-outs are OSErrors
                reason = getattr(error, "reason", error)
                failed = f"{self.address.url}: {type(reason).__name__}: {_without(key, str(reason))}"
            if attempt < self._attempts and time.monotonic() + pause < until:
                time.sleep(pause)
            else:
                break
        raise OctavoError(f"{failed}. Asked {attempt} times; is the server up? Try again later") from None

    def _key(self) -> str:
        named = self.address.options.get("key")
        key = os.environ.get(named or KEY, "").strip()
        if named and not key:
            raise OctavoError("the environment variable that key= names is not set; put the key of the server into it")
        if not re.fullmatch(r"[\x21-\x7e]*", key):
            raise OctavoError(f"the environment variable {named or KEY} holds no key: it has spaces or odd characters")
        return key

    def _attempt(self, body: bytes, key: str, timeout: float, inputs: int) -> Any:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "octavo"}
        request = _Request(self.address.url, body, headers, method="POST")
        if key:
            request.add_unredirected_header("Authorization", f"Bearer {key}")
        clock = threading.Timer(timeout, request.cut)  # a socket's own time-out starts anew with every byte
        clock.daemon = True
        clock.start()
        try:
            return self._read(self._opener.open(request, timeout=min(CONNECT, timeout)), inputs)
        except (OSError, http.client.HTTPException, OctavoError):
            if request.late:
                raise TimeoutError(f"no whole answer within {timeout:g} seconds") from None
            raise
        finally:
            clock.cancel()

    def _read(self, answer: Any, inputs: int) -> Any:
        most, parts, size = min(inputs, 8) * self.most, [], 0
        with answer:
            while part := answer.read1(1 << 16):
                size += len(part)
                parts.append(part)
                if size > most:
                    raise OctavoError(f"{self.address.url} answers with over {most:,} bytes to {inputs} inputs")
        if answer.length:
            raise http.client.IncompleteRead(b"", answer.length)
        try:
            return json.loads(b"".join(parts), parse_constant=_no_constant)
        except (ValueError, RecursionError):
            raise OctavoError(f"{self.address.url} answers with what is not JSON; is this the right address?") from None

    def _told(self, error: urllib.error.HTTPError, key: str) -> str:
        if 300 <= error.code < 400:
            return f"{self.address.url} redirects elsewhere, which is not followed; name the address it should be"
        said = ""
        if error.code not in (401, 403):  # where servers like to repeat the key
            try:
                said = printable(_without(key, error.read1(4096).decode("utf-8", "replace")))[:300]
            except (OSError, http.client.HTTPException):
                said = "its reason was cut off"
        do = _DO.get(error.code, "").format(key=self.address.options.get("key", KEY))
        return (
            f"{self.address.url}: status {error.code} {': '.join(filter(None, (' '.join(said.split()), do)))}".strip()
        )


def _without(key: str, text: str) -> str:
    return text.replace(key, "[key]") if key else text


def _seconds(text: str | None) -> float | None:
    """Of a Retry-After: seconds, or a date."""
    if text is None:
        return None
    if re.fullmatch(r"\d{1,6}", text.strip()):
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


class _Request(urllib.request.Request):
    """Knows its socket, so that it can be cut off."""

    sock: socket.socket | None = None
    late = False

    def cut(self) -> None:
        self.late = True
        if self.sock is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)  # of TLS too, whose own would wait


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        return None


class _Patient:
    """Connects within the request's time-out, then waits for the answer for as long as that may take."""

    def __init__(self, timeout: float) -> None:
        super().__init__()
        self._timeout = timeout

    def _made(self, connection: Any, request: _Request, host: str, **options: Any) -> Any:
        made = connection(host, **options)
        connect = made.connect

        def connect_then_wait() -> None:
            connect()
            made.sock.settimeout(self._timeout)
            request.sock = made.sock
            if request.late:
                raise TimeoutError("connected too late")

        made.connect = connect_then_wait
        return made


class _Http(_Patient, urllib.request.HTTPHandler):
    def http_open(self, request: Any) -> Any:
        return self.do_open(partial(self._made, http.client.HTTPConnection, request), request)


class _Https(_Patient, urllib.request.HTTPSHandler):
    def https_open(self, request: Any) -> Any:
        return self.do_open(partial(self._made, http.client.HTTPSConnection, request), request)
