"""Whatever a document does, it ends in a state, in time and in memory, and the renderer goes on with the next."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pymupdf
import pytest

from ingest import answers
from ingest.document import Limits, PageFailure, RenderError
from ingest.page import Page
from ingest.render import Renderer
from ingest.sources import open_source

sys.path.insert(0, str(Path(__file__).parent))
import hostile
from rendering import BACKENDS, QUICK, linux, numbered, opened, outcome, text


@pytest.fixture(scope="module", params=BACKENDS)
def renderer(request: pytest.FixtureRequest) -> Iterator[Renderer]:
    with Renderer(backend=request.param) as made:
        yield made


HARMLESS = [name for name in hostile.OUTCOMES if "timeout" not in hostile.OUTCOMES[name]]


def test_damaged_files_end_in_a_state(renderer: Renderer) -> None:
    from ingest.sources import sniff

    for name, data in hostile.files(HARMLESS).items():
        kind = sniff(data[:1024]) or ("pdf" if name.endswith(".pdf") else "")
        state = outcome(renderer, data, kind)
        assert state in hostile.OUTCOMES[name] or (state, renderer.backend) == ("page", "pdfium"), (name, state)
    assert outcome(renderer, hostile.good(), "pdf") == "page"


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_hostile_files_end_in_a_state(backend: str) -> None:
    from ingest.sources import sniff

    with Renderer(backend=backend, limits=Limits(page_seconds=2, first_page_seconds=2)) as renderer:
        for name, data in hostile.files().items():
            kind = sniff(data[:1024]) or ("pdf" if name.endswith(".pdf") else "")
            start = time.monotonic()
            state = outcome(renderer, data, kind)
            assert time.monotonic() - start < 12, name
            assert state in hostile.OUTCOMES[name] or (state, backend) == ("page", "pdfium"), (name, state)
            assert outcome(renderer, hostile.good(), "pdf") == "page", name


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_hang_ends_in_time_and_the_next_document_is_drawn(backend: str) -> None:
    with Renderer(backend=backend, limits=QUICK) as renderer:
        with opened(renderer, hostile.billion_laughs()) as document:
            start = time.monotonic()
            page = renderer.render(document, 1)
            assert page == PageFailure(1, "timeout", "the page was not drawn within 1 s")
            assert 0.9 < time.monotonic() - start < 3
        start = time.monotonic()
        with opened(renderer, hostile.good()) as document:
            assert text(renderer.render(document, 1)) == "Octavo finds the page"
        assert time.monotonic() - start < 5, "a fresh process is there at once"


def hanging(pages: int) -> bytes:
    """A document whose every page but the first hangs."""
    form = hostile.billion_laughs()
    with pymupdf.open(stream=form) as document, pymupdf.open() as first:
        first.new_page().insert_text((50, 50), "fine")
        for _ in range(pages - 1):
            first.insert_pdf(document)
        return first.tobytes()


def test_three_hangs_are_enough_for_a_document() -> None:
    limits = Limits(page_seconds=0.5, first_page_seconds=1.5)
    with Renderer(limits=limits) as renderer, opened(renderer, hanging(9)) as document:
        start = time.monotonic()
        outcomes = list(renderer.pages(document))
        assert time.monotonic() - start < 12
        assert text(outcomes[0]) == "fine"
        assert [page.state for page in outcomes[1:]] == ["timeout"] * 8  # type: ignore[union-attr]
        reasons = [page.reason for page in outcomes[1:]]  # type: ignore[union-attr]
        assert all("not drawn within" in reason for reason in reasons[:3])
        assert set(reasons[3:]) == {"skipped: 3 pages of this document took too long"}
        with opened(renderer, hostile.good()) as other:
            assert text(renderer.render(other, 1)) == "Octavo finds the page"


def test_a_document_has_a_budget() -> None:
    limits = Limits(document_seconds=0.0, seconds_a_page=1e-9)
    with Renderer(limits=limits) as renderer, opened(renderer, numbered(3)) as document:
        assert text(renderer.render(document, 1)) == "number 1"
        assert renderer.render(document, 2)[1] == "timeout"  # type: ignore[index]


def test_waiting_to_fetch_is_not_charged() -> None:
    limits = Limits(page_seconds=0.8, first_page_seconds=3, document_seconds=2, seconds_a_page=0)
    with Renderer(limits=limits) as renderer, opened(renderer, numbered(4)) as document:
        for number, page in enumerate(renderer.pages(document), 1):
            assert text(page) == f"number {number}"
            time.sleep(0.9)  # longer than a page may take


@linux
def test_a_killed_worker_is_replaced_without_a_word() -> None:
    with Renderer() as renderer, opened(renderer, numbered(6)) as document:
        for number in range(1, 7):
            assert text(renderer.render(document, number)) == f"number {number}"
            assert renderer._worker is not None
            os.kill(renderer._worker.pid, signal.SIGKILL)
            while renderer._worker.alive:
                time.sleep(0.001)
        assert document._deaths == 0


@linux
def test_two_deaths_are_enough_for_a_document() -> None:
    with Renderer() as renderer, opened(renderer, hanging(5)) as document:
        for number in (2, 3):
            renderer.prefetch(document, number)
            assert renderer._worker is not None
            os.kill(renderer._worker.pid, signal.SIGSEGV)
            assert renderer.render(document, number) == PageFailure(
                number, "crash", "the render process ended (SIGSEGV) while it drew the page"
            )
        assert renderer.render(document, 1) == PageFailure(
            1, "crash", "skipped: this document ended the render process 2 times"
        )
        with opened(renderer, numbered(1)) as other:
            assert text(renderer.render(other, 1)) == "number 1"


@linux
@pytest.mark.parametrize("kind", ["pdf", "png"])
def test_memory_is_bounded_with_one_larger_try(kind: str) -> None:
    data = hostile.nested_groups() if kind == "pdf" else hostile.png_bomb(9900)
    small, large = 140 * 2**20, 900 * 2**20
    with (
        Renderer(limits=Limits(memory=small, memory_retry=small)) as renderer,
        opened(renderer, data, kind) as document,
    ):
        page = renderer.render(document, 1)
        assert isinstance(page, PageFailure)
        assert (page.state, "more memory than the limit" in page.reason) == ("oom", True)
        with opened(renderer, numbered(1)) as other:
            assert text(renderer.render(other, 1)) == "number 1"
    with Renderer(limits=Limits(memory=small, memory_retry=large)) as renderer:
        with opened(renderer, data, kind) as document:
            assert isinstance(renderer.render(document, 1), Page)
        with opened(renderer, numbered(1)) as other:
            assert text(renderer.render(other, 1)) == "number 1"
            assert renderer._worker is not None
            assert renderer._worker.memory == small, "the next document is back to the small limit"


def test_workers_are_replaced_after_some_pages() -> None:
    with Renderer(limits=Limits(worker_pages=3)) as renderer, opened(renderer, numbered(8)) as document:
        seen = []
        for number, page in enumerate(renderer.pages(document), 1):
            assert text(page) == f"number {number}"
            assert renderer._worker is not None
            seen.append(renderer._worker.pid)
        assert len(set(seen)) == 3


def test_too_large_or_empty_a_file() -> None:
    with Renderer(limits=Limits(max_bytes=500)) as renderer:
        with pytest.raises(RenderError, match="more than the limit of 500; raise max_bytes") as error:
            opened(renderer, hostile.good())
        assert error.value.state == "oversize"
        with pytest.raises(RenderError) as error:
            opened(renderer, b"")
        assert error.value.state == "empty"
        with pytest.raises(RenderError, match="the kind is 'gif'") as error:
            opened(renderer, b"GIF89a", "gif")
        assert error.value.state == "unsupported"


DATA = Path(os.environ.get("OCTAVO_SHARED", Path(__file__).parents[2] / "shared")) / "data" / "badpdf"


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no corpus of damaged PDFs at {DATA} (OCTAVO_SHARED names its parent)")
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_file_of_the_corpus_ends_in_a_state(backend: str) -> None:
    files = sorted(path for path in DATA.rglob("*") if path.suffix.lower() == ".pdf")
    assert len(files) >= 300
    ended: dict[str, int] = {}
    start = time.monotonic()
    with Renderer(backend=backend, limits=Limits(page_seconds=5, first_page_seconds=5)) as renderer:
        for path in files:
            fd = open_source(path)
            try:
                with renderer.open(fd, "pdf") as document:
                    pages = renderer.pages(document, range(1, min(3, document.pages) + 1))
                    states = [page.state if isinstance(page, PageFailure) else "page" for page in pages]
                assert set(states) <= {"page"} | answers.PAGE_STATES, path
            except RenderError as error:
                assert error.state in answers.DOCUMENT_STATES, path
                assert error.reason.isprintable()
                states = [error.state]
            finally:
                os.close(fd)
            for state in states:
                ended[state] = ended.get(state, 0) + 1
    assert time.monotonic() - start < 120
    assert ended["page"] > 350, ended
    assert ended["encrypted"] > 20, ended
    assert ended.get("crash", 0) == 0, ended
