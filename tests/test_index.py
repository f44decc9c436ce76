"""An index against a model in a dict: adds, replacements, deletions, compaction, reopening, in any order.

The model knows which content lies at which paths and which is staged; everything that a reader can ask is then known:
the pages, their vectors, what the text lane finds, what the pooled stage ranks first, and which ids may never change.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pages import DIM, WORDS, asked, content_of, dump, origin_of, page_of, text_search, vectors_of, visual_search

from index import Index, Origin, upkeep
from index.codec import decode
from index.pooling import pool_mean
from index.text import terms

NAMES = [f"doc{letter}" for letter in "abcdef"]
PATHS = [f"file{letter}" for letter in "stuv"]
names, paths = st.sampled_from(NAMES), st.sampled_from(PATHS)


class Model(RuleBasedStateMachine):
    """What is in the index: visible and staged contents with their pages, and where they lie."""

    @initialize(codec=st.sampled_from(["int8", "fp16"]), stage=st.sampled_from(["exact", "pooled", "codes", "rows"]))
    def create(self, codec: str, stage: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="octavo-model-"))
        self.tolerance = 0.01 if codec == "int8" else 0.0005
        self.stage = stage
        self.index = Index.create(
            self.folder / "index", dim=DIM, fingerprint={"name": "seed"}, codec=codec, stage=stage
        )
        self.pages: dict[str, dict[int, int]] = {}  # content name -> page number -> tokens
        self.visible: set[str] = set()
        self.staged_from: dict[str, str] = {}
        self.paths: dict[str, str] = {}  # path -> content name
        self.metadata: dict[str, dict[str, Any]] = {}
        self.ids: dict[tuple[str, int], int] = {}
        self.used: set[int] = set()
        self.generation = -1

    def teardown(self) -> None:
        if hasattr(self, "index"):
            self.index.close()
            shutil.rmtree(self.folder)

    # -- what can be done ----------------------------------------------------------------------------------------------

    @rule(name=names, path=paths, pages=st.lists(st.integers(0, 4), min_size=1, max_size=3), whole=st.booleans())
    def add(self, name: str, path: str, pages: list[int], whole: bool) -> None:
        """Stage pages of a content that lies at a path, and make it visible if `whole`."""
        if name in self.visible:
            return
        origin = self._origin(path)
        with self.index.writing() as writer:
            document, done = writer.begin(content_of(name), origin, title=f"Title {name}", page_count=len(pages))
            assert done == set(self.pages.get(name, {}))
            records = [page_of(name, n, tokens) for n, tokens in enumerate(pages, 1) if n not in done]
            ids = writer.add_pages(document, records) if records else []
            assert not set(ids) & self.used
            self.used |= set(ids)
            known = self.pages.setdefault(name, {})
            for record, page in zip(records, ids, strict=True):
                known[record.number] = len(record.vectors)
                self.ids[name, record.number] = page
            self.staged_from[name] = path
            self.metadata.setdefault(name, {})
            if whole:
                writer.finish(document, origin, "ok")
                self._take(path, name)
                self.visible.add(name)
                for other in [n for n, source in self.staged_from.items() if source == path and n not in self.visible]:
                    self._forget(other)

    @precondition(lambda self: self.visible)
    @rule(data=st.data(), path=paths)
    def lies_at_another_path_too(self, data: st.DataObject, path: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.visible)))
        with self.index.writing() as writer:
            writer.add_path(self._id(writer, name), self._origin(path))
        self._take(path, name)

    @rule(path=paths)
    def path_vanishes(self, path: str) -> None:
        with self.index.writing() as writer:
            writer.drop_paths([self._origin(path).path])
        name = self.paths.pop(path, None)
        if name is not None and name not in self.paths.values():
            self._forget(name)

    @precondition(lambda self: self.pages)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.pages)))
        with self.index.writing() as writer:
            assert writer.delete([self._id(writer, name)]) == len(self.pages[name])
        self._forget(name)

    @rule(name=names, path=paths)
    def cannot_be_read(self, name: str, path: str) -> None:
        if name in self.pages:
            return
        with self.index.writing() as writer:
            writer.fail(content_of(f"bad {name}"), self._origin(path), "damaged", "a reason")
        for other in [n for n, source in self.staged_from.items() if source == path and n not in self.visible]:
            self._forget(other)

    @precondition(lambda self: self.visible)
    @rule(data=st.data(), year=st.integers(2000, 2003))
    def describe(self, data: st.DataObject, year: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.visible)))
        with self.index.writing() as writer:
            writer.set_metadata(self._id(writer, name), {"year": year})
        self.metadata[name] = {"year": year}

    @rule(purge=st.booleans())
    def compact(self, purge: bool) -> None:
        upkeep.compact(self.index, purge=purge)
        for name in [name for name in self.pages if name not in self.visible]:
            self._forget(name)  # no file of theirs is on the disk

    @precondition(lambda self: len(self.visible) > 1)
    @rule(data=st.data())
    def delete_and_compact(self, data: st.DataObject) -> None:
        """Blocks that live are moved, which `compact` alone seldom comes to."""
        self.delete(data)
        self.compact(purge=True)

    @rule()
    def rebuild(self) -> None:
        upkeep.rebuild(self.index)

    @rule()
    def reopen(self) -> None:
        self.index.close()
        self.index = Index(self.folder / "index")

    @rule()
    def lose_the_cache(self) -> None:
        shutil.rmtree(self.folder / "index" / "cache", ignore_errors=True)
        self.reopen()

    # -- what is then so -----------------------------------------------------------------------------------------------

    @invariant()
    def readers_see_the_model(self) -> None:
        found = dump(self.index)
        expected = sorted((content_of(name), n) for name in self.visible for n in self.pages[name])
        assert [(page["content"], page["page"]) for page in found] == expected
        by_content = {content_of(name): name for name in self.visible}
        for page in found:
            name = by_content[page["content"]]
            assert page["paths"] == sorted(self._origin(p).path for p, n in self.paths.items() if n == name)
            assert page["metadata"] == self.metadata[name]
            tokens = self.pages[name][page["page"]]
            vectors = np.frombuffer(page["vectors"], np.float32).reshape(-1, DIM)
            np.testing.assert_allclose(vectors, vectors_of(name, page["page"], tokens), atol=self.tolerance)
            assert page["text"] == page_of(name, page["page"], tokens).text

    @invariant()
    def ids_never_change_and_generations_rise(self) -> None:
        with self.index.snapshot() as snapshot:
            rows = snapshot.pages(snapshot.state.ids.tolist())
            by_content = {content_of(name): name for name in self.visible}
            assert {(by_content[row["content"]], row["number"]): page for page, row in rows.items()} == {
                key: page for key, page in self.ids.items() if key[0] in self.visible
            }
            assert snapshot.generation >= self.generation
            self.generation = snapshot.generation
            order = sorted(rows, key=lambda page: (rows[page]["content"], rows[page]["number"]))
            ranks = snapshot.rank(np.array(order, np.int64))
            assert ranks.tolist() == list(range(len(order)))

    @invariant()
    def the_text_lane_finds_what_has_a_term(self) -> None:
        for word in (WORDS[0], WORDS[5], "title", "docb", "filet", f"{WORDS[3]} {WORDS[7]}"):
            assert {hit[:2] for hit in text_search(self.index, word)} == {
                (content_of(name), n) for name in self.visible for n in self.pages[name] if self._says(name, n, word)
            }

    def _says(self, name: str, number: int, query: str) -> bool:
        files = [Path(self._origin(path).path).name for path, owner in self.paths.items() if owner == name]
        words = page_of(name, number, self.pages[name][number]).text
        said = terms(f"Title {name} {' '.join(files)} {words}")
        return bool(set(said) & set(terms(query)))

    @invariant()
    def the_first_stage_ranks_like_numpy(self) -> None:
        query = vectors_of("docc", 1, 2)
        with self.index.snapshot() as snapshot:
            assert snapshot.stage == self.stage
            rows = snapshot.pages(snapshot.state.ids.tolist())
            live = [page for page in snapshot.state.ids.tolist() if rows[page]["tokens"]]
            exact = {page: float(pool_mean(query) @ snapshot.pooled([page])[0]) for page in live}
            for where in (None, {"year": {"$gte": 2002}}, {"pages": {"$lt": 3}}):
                allowed = snapshot.allowed(where)
                among = live if allowed is None else [page for page in live if page in set(allowed.tolist())]
                scores, ids = snapshot.first_stage.search(asked(query), 100, allowed)[0]
                assert sorted(ids.tolist()) == among
                if self.stage == "pooled":
                    assert ids.tolist() == sorted(ids.tolist(), key=lambda page: (-exact[page], page))
                    np.testing.assert_allclose(scores, [exact[page] for page in ids.tolist()], atol=1e-3)
            best = visual_search(snapshot, query)
            assert best == sorted(best, key=lambda hit: (-hit[2], hit[:2]))
            assert len(best) == min(10, len(live))
            assert decode(snapshot.gather(live)).shape == (sum(rows[page]["tokens"] for page in live), DIM)

    @invariant()
    def every_byte_is_sound(self) -> None:
        assert upkeep.check(self.index) == []

    # -- the model's own -----------------------------------------------------------------------------------------------

    def _origin(self, path: str) -> Origin:
        return origin_of(path, str(self.folder))

    def _id(self, writer: Any, name: str) -> int:
        return int(writer.document(content_of(name))["id"])

    def _take(self, path: str, name: str) -> None:
        before = self.paths.get(path)
        self.paths[path] = name
        if before is not None and before not in self.paths.values():
            self._forget(before)

    def _forget(self, name: str) -> None:
        self.pages.pop(name, None)
        self.visible.discard(name)
        self.staged_from.pop(name, None)
        self.metadata.pop(name, None)
        self.paths = {path: owner for path, owner in self.paths.items() if owner != name}
        self.ids = {key: page for key, page in self.ids.items() if key[0] != name}


TestModel = Model.TestCase
TestModel.settings = settings(
    max_examples=40,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
