"""Encoders behind an address, against a real server of ours: vectors, keys, retries, batches, answers that lie."""

from __future__ import annotations

import email.utils
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pymupdf
import pytest
from embedding_server import DIM, Server, cuts, drips, drips_headers, drops, picture, stalls, tokens, unit

from index.errors import OctavoError, QueryError
from ingest.page import Page, Words
from retriever import Retriever, load_encoder
from retriever.encoders.remote import RemoteEncoder

SECRET = "sk-Hidden/0123456789+abc"
TEXTS = ["which runway", "snow in winter at the airport", "a"]
QUICK = {"attempts": 3, "patience": 5.0, "backoff": 0.01}


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTAVO_REMOTE_KEY", SECRET + "\n")
    monkeypatch.delenv("OCTAVO_REMOTE_HOSTS", raising=False)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def pages(count: int = 3) -> list[Page]:
    rng = np.random.default_rng(3)
    return [Page(n, rng.integers(0, 256, (20, 30, 3), np.uint8), Words(["page", str(n)]), 30, 20) for n in range(count)]


def fails(server: Server, *said: str, **options: object) -> str:
    """The error of an encoder of this server, which names it, says these things and not the key."""
    with pytest.raises(OctavoError) as caught:
        RemoteEncoder(f"{server.base}/pooling", **QUICK, **options)
    chain = f"{caught.value!r} {caught.value.__cause__!r}"
    assert server.base in chain and SECRET not in chain
    assert all(one in chain for one in said), chain
    return chain


@pytest.mark.parametrize("multi", [True, False])
@pytest.mark.parametrize("path, jina", [("/pooling", True), ("/v1/embeddings", True), ("/v1/embeddings", False)])
def test_vectors_are_the_servers_of_norm_1_and_in_order(path: str, jina: bool, multi: bool, server, caplog) -> None:
    server.multi, server.jina = multi, jina
    encoder = load_encoder(f"{server.base}{path}#model=m&query=Q:%20")
    sees = jina

    def expected(one: str | np.ndarray) -> np.ndarray:
        return unit(tokens(one) if multi else tokens(one).sum(axis=0, keepdims=True))

    for text, found in zip(TEXTS, encoder.encode_queries(TEXTS), strict=True):
        np.testing.assert_allclose(found, expected(f"Q: {text}"), rtol=0, atol=1e-6)
        assert found.dtype == np.float32
    for page, found in zip(pages(), encoder.encode_pages(pages()), strict=True):
        np.testing.assert_allclose(found.vectors, expected(page.image if sees else page.words.text), rtol=0, atol=1e-6)
        assert not found.boxes.any() and len(found.boxes) == len(found.vectors)
        assert (found.single is None) == multi
    assert (encoder.dim, encoder.single_dim, encoder.sees) == (DIM, None if multi else DIM, sees)
    asked = len(server.asked)
    assert [len(one) for one in encoder.query_tokens(TEXTS)] == ([3, 7, 2] if multi else [1, 1, 1])
    assert len(server.asked) == asked, "the queries are remembered"
    headers, question = server.asked[-1][1:]
    assert headers["Authorization"] == f"Bearer {SECRET}" and question["model"] == "m"
    tasks = {question.get("task") for _, _, question in server.asked[-2:]}
    assert tasks == ({"retrieval.query", "retrieval.passage"} if path != "/pooling" and jina else {None})
    (document,) = encoder.encode_document(["a text"], convert_to_numpy=True)
    np.testing.assert_allclose(document, expected("a text"), rtol=0, atol=1e-6)
    assert (
        SECRET not in f"{encoder!r} {vars(encoder)} {encoder.fingerprint} {caplog.text}" and server.base in caplog.text
    )


def test_the_fingerprint_tells_what_changes_a_vector_and_no_key(server, monkeypatch) -> None:
    plain = load_encoder(f"{server.base}/v1/embeddings#model=m").fingerprint
    monkeypatch.setenv("OTHER_KEY", "another")
    other = load_encoder(f"{server.base}/v1/embeddings#model=m&key=OTHER_KEY")
    assert server.asked[-1][1]["Authorization"] == "Bearer another"
    assert other.fingerprint | {"name": ""} == plain | {"name": ""} and "another" not in str(other.fingerprint)
    for change in ("#model=n", "#model=m&dimensions=4", "#model=m&query=q", "#model=m&passage=p"):
        assert load_encoder(f"{server.base}/v1/embeddings{change}").fingerprint | {"name": ""} != plain | {"name": ""}
    assert load_encoder(f"{server.base}/v1/embeddings#model=m", task="code").fingerprint != plain
    assert load_encoder(f"{server.base}/pooling").fingerprint["model"] == "tiny", "as the server calls it"
    server.change = lambda answer: answer | {"model": f"{len(server.asked)}"}
    with pytest.raises(OctavoError, match="another model"):
        load_encoder(f"{server.base}/pooling")


@pytest.mark.parametrize(
    "address, said",
    [
        ("http://example.org/pooling", "plain text"),
        ("https://me:hunter2@example.org/pooling", "OCTAVO_REMOTE_KEY"),
        ("https://example.org/pooling?token=hunter2", "OCTAVO_REMOTE_KEY"),
        ("https://example.org/v1/chat", "/v1/embeddings"),
        ("https://example.org/pooling#model=m&key=hunter2", "in capitals"),
        ("https://example.org:hunter2/pooling", "is not one"),
        ("https://example.org/pooling#batch_bytes=0", "whole number"),
        ("https://example.org/v1/embeddings#style=other", "style"),
    ],
)
def test_addresses_that_would_leak_or_mean_nothing(address: str, said: str) -> None:
    with pytest.raises(QueryError, match=said) as caught:
        load_encoder(address)
    assert "hunter2" not in str(caught.value)


def test_keys_that_are_none(server, monkeypatch) -> None:
    with pytest.raises(OctavoError, match="not set"):
        load_encoder(f"{server.base}/pooling#key=NO_SUCH_KEY")
    monkeypatch.setenv("OCTAVO_REMOTE_KEY", f"{SECRET}\r\nX-More: 1")
    with pytest.raises(OctavoError, match="odd characters") as caught:
        load_encoder(f"{server.base}/pooling")
    assert SECRET not in str(caught.value) and not server.asked
    monkeypatch.delenv("OCTAVO_REMOTE_KEY")
    load_encoder(f"{server.base}/pooling")
    assert "Authorization" not in server.asked[-1][1]


def test_asked_again_while_busy_and_never_for_ever(server) -> None:
    encoder, asked = RemoteEncoder(f"{server.base}/pooling#timeout=1", **QUICK), len(server.asked)
    server.first = [(429, {"Retry-After": "1"}, b"slow down"), drops, cuts]
    start = time.monotonic()
    encoder = RemoteEncoder(f"{server.base}/pooling#timeout=1", attempts=4, patience=5.0, backoff=0.01)
    assert time.monotonic() - start >= 1.0, "Retry-After holds"
    np.testing.assert_allclose(encoder.encode_queries(TEXTS)[2], unit(tokens("a")), rtol=0, atol=1e-6)
    assert len(server.asked) == asked + 3 + 2 + 1
    soon = email.utils.formatdate(time.time() - 5, usegmt=True)
    for always in ((500, {}, b"broken"), (503, {"Retry-After": soon}, b"broken"), drops):
        server.always, asked = always, len(server.asked)
        fails(server, "3 times", "Try again later")
        assert len(server.asked) == asked + 3
    server.always = (503, {"Retry-After": "99999"}, b"")
    start = time.monotonic()
    fails(server, "1 times")
    assert time.monotonic() - start < 1.0, "no longer than patience"


@pytest.mark.parametrize("always", [stalls, drips, drips_headers])
def test_a_server_that_stalls_costs_its_time_out(always, server) -> None:
    server.always, start = always, time.monotonic()
    with pytest.raises(OctavoError, match="TimeoutError|timed out"):
        RemoteEncoder(f"{server.base}/pooling#timeout=1", attempts=1)
    assert 0.9 < time.monotonic() - start < 1.45


@pytest.mark.parametrize("status, said", [(401, "OCTAVO_REMOTE_KEY"), (403, "OCTAVO_REMOTE_KEY"), (404, "path")])
def test_what_stays_wrong_fails_at_once_and_says_what_to_do(status: int, said: str, server) -> None:
    server.always = (status, {}, f"bad key {SECRET} \x1b[31m".encode())
    assert "\x1b" not in fails(server, str(status), said)
    assert len(server.asked) == 1


def test_a_redirect_is_not_followed(server) -> None:
    other = Server()
    for status in (301, 302, 303, 307, 308):
        server.always = (status, {"Location": f"{other.base}/pooling"}, b"")
        fails(server, "redirects")
    assert not other.asked
    other.close()


def test_batches_by_bytes_and_halved_where_too_large(server) -> None:
    encoder = load_encoder(f"{server.base}/v1/embeddings#model=m&batch_bytes=6000")
    some = pages(7)
    right = [unit(tokens(page.image)) for page in some]
    for most, sizes in ((1 << 30, [2, 2, 2, 1]), (4500, [2, 1, 1, 2, 1, 1, 2, 1, 1, 1])):
        server.most, server.asked = most, []
        found = encoder.encode_pages(some)
        assert [len(question["input"]) for _, _, question in server.asked] == sizes
        for one, expected in zip(found, right, strict=True):
            np.testing.assert_allclose(one.vectors, expected, rtol=0, atol=1e-6)
    for path, _, question in server.asked:
        assert path == "/v1/embeddings" and all(picture(one["image"]).shape == (20, 30, 3) for one in question["input"])
    server.most = 1000
    with pytest.raises(OctavoError, match="fewer pixels"):
        encoder.encode_pages(some)


def _first(answer: dict, **change: object) -> dict:
    return answer | {"data": [answer["data"][0] | change, *answer["data"][1:]]}


LIES = {
    "a count": (lambda a: a | {"data": a["data"][:1]}, "indexes"),
    "an index twice": (lambda a: a | {"data": [a["data"][0]] * 2}, "indexes"),
    "an index of a bool": (lambda a: _first(a, index=True), "indexes"),
    "one that is ragged": (lambda a: _first(a, data=[[1.0] * DIM, [1.0]]), "equal lengths"),
    "another dimension": (lambda a: _first(a, data=[[1.0] * (DIM + 1)]), "shapes"),
    "one vector among many": (lambda a: _first(a, data=[1.0] * DIM), "shapes"),
    "none": (lambda a: _first(a, data=[]), "shapes"),
    "text": (lambda a: _first(a, data=[["1"] * DIM]), "lists of numbers"),
    "zeros": (lambda a: _first(a, data=[[0.0] * DIM]), "zero"),
    "more than a float": (lambda a: _first(a, data=[[1e300] * DIM]), "not finite"),
    "NaN": (lambda a: json.dumps(_first(a, data=[[float("nan")] * DIM])).encode(), "not JSON"),
    "deep lists": (lambda a: b"[" * 100_000, "not JSON"),
    "no JSON": (lambda a: b"<html>", "not JSON"),
    "no data": (lambda a: {"model": "m"}, "list `data`"),
    "too many bytes": (lambda a: json.dumps(a).encode() + b" " * 500_000, "bytes"),
    "the same for all": (lambda a: a | {"data": [{"index": i, "data": [[1.0] * DIM]} for i in (0, 1)]}, "same vectors"),
}


@pytest.mark.parametrize("lie", LIES)
def test_answers_that_lie_are_refused_at_once(lie: str, server) -> None:
    server.change, said = LIES[lie]
    fails(server, said, most=200_000)
    assert len(server.asked) == 1


def test_an_index_from_an_address_and_what_lies_in_it(server, tmp_path, monkeypatch) -> None:
    with pymupdf.open() as document:
        document.new_page(width=300, height=200).insert_text((40, 80), "The turbine failed.", fontsize=24)
        document.save(tmp_path / "one.pdf")
    (tmp_path / "two.txt").write_text("snow on the runway in winter")
    octavo = [str(Path(sys.executable).with_name("octavo"))]
    rest = ["--index", str(tmp_path / "there"), "--json"]
    address = f"{server.base}/v1/embeddings#model=m"
    paths = [str(tmp_path / "one.pdf"), str(tmp_path / "two.txt")]
    done = subprocess.run(
        [*octavo, "add", *paths, "--encoder", address, "--codec", "fp16", *rest],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and SECRET not in done.stdout + done.stderr, done.stdout + done.stderr
    with Retriever.open(tmp_path / "there", encoder=load_encoder(address)) as retriever:
        (hit, other) = retriever.search("snow runway", mode="visual")
        assert Path(hit.path).name == "two.txt" and hit.score == pytest.approx(2.0, abs=2e-3), "both words are there"
        assert Path(other.path).name == "one.pdf" and other.score < 1.9 and not other.boxes()
    with (
        Retriever.open(tmp_path / "there") as retriever,
        pytest.raises(OctavoError, match="OCTAVO_REMOTE_HOSTS=127.0.0"),
    ):
        retriever.search("snow runway")  # who made the index may be a stranger
    monkeypatch.setenv("OCTAVO_REMOTE_HOSTS", "example.org, 127.0.0.1")
    with Retriever.open(tmp_path / "there") as retriever:
        assert Path(retriever.search("snow runway", mode="visual")[0].path).name == "two.txt"
    kept = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(kept) > 4 and not any(SECRET.encode() in file.read_bytes() for file in kept)
    server.always = (401, {}, SECRET.encode())
    done = subprocess.run([*octavo, "search", "snow", *rest], capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 3 and "status 401" in done.stderr and SECRET not in done.stdout + done.stderr
