"""`Retriever`: a folder of pages that can be searched. Open it, add files, search, delete.

A search is: encode the query; candidates of the first stage and of the text lane; exact MaxSim of their union over the
stored tokens; fuse; the k best. All of it looks at one generation of the index. No torch is imported on this path.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from index import Index, Ragged, archive, upkeep
from index.errors import NotAnIndex, QueryError
from index.snapshot import Snapshot
from index.upkeep import Damage
from ingest.page import Encoder
from ingest.report import Progress, Report
from retriever import documents
from retriever.encoders import DEFAULT, check_encoder, is_address, load_encoder
from retriever.encoders.single import SingleVectors
from retriever.hit import Hit, hits_of
from retriever.query import Query, both, of_picture, of_texts, seen, stored, words_only
from retriever.ranking import Found, check_search, rank
from retriever.rerank import score

if TYPE_CHECKING:
    from PIL.Image import Image

    from ingest.render import Limits, Renderer
    from retriever.similar import Member, Told


class Retriever:
    """Made by `Retriever.open`. A context manager; safe to search from several threads."""

    def __init__(
        self, folder: Path, index: Index | None, encoder: Encoder | str | None, options: dict[str, Any]
    ) -> None:
        self.folder, self._index, self._options = folder, index, options
        self._encoder = encoder
        self._renderer: Renderer | None = None
        self._guard = threading.RLock()
        if encoder is not None and not isinstance(encoder, str):
            self._encoder = self.seen(encoder)
        if index is not None and self._encoder is not None:
            check_encoder(self._encoder, index.folder, index.settings.fingerprint)

    @classmethod
    def open(
        cls,
        path: str | Path,
        encoder: Encoder | str | None = None,
        *,
        create: bool = True,
        codec: str = "int8",
        pool: int = 1,
        candidates: str = "auto",
        task: str | None = None,
        vectors: str = "tokens",
        dim: int | None = None,
        renderer: str = "pymupdf",
        limits: Limits | None = None,
    ) -> Retriever:
        """Open the index in a folder, or make one there with the first `add`.

        encoder: an Encoder or the name of one; None takes the one that filled the index, or octavo-box-1 for a new one.
        codec (`fp16`, `int8`, `int4`, `binary`), pool (how many tokens become one stored vector) and candidates
        (`auto`, `exact`, `codes`, `rows`, `pooled`) and task (of an encoder that is named and has tasks: `retrieval`,
        `text-matching`, `code`) are for a new index; an existing one knows its own. So are vectors, `tokens` or
        `single` (one vector a page, in FAISS), and dim, of the latter: a Matryoshka dimension of the encoder, None for
        all. create: False refuses a folder with no index. renderer: `pymupdf` or `pdfium`.

        Raises NotAnIndex, FormatError, EncoderMismatch, DamageError; all are OctavoError.
        """
        folder = Path(path).expanduser().absolute()
        try:
            index = Index(folder)
        except NotAnIndex:
            if not create or (folder / "catalog.sqlite3").exists():
                raise
            index = None
        options = {"codec": codec, "pool": pool, "stage": candidates, "renderer": renderer}
        options |= {"limits": limits, "task": task, "vectors": vectors, "dim": dim}
        if vectors not in ("tokens", "single") or (dim is not None and vectors != "single"):
            raise QueryError(f"vectors is tokens or single, dim goes with single; got {vectors}, {dim}")
        return cls(folder, index, encoder, options)

    # -- parts --------------------------------------------------------------------------------------------------------

    @property
    def index(self) -> Index:
        """The index. Raises NotAnIndex where nothing was added yet."""
        if self._index is None:
            raise NotAnIndex(f"{self.folder}: there is no index here yet; add some files")
        return self._index

    @property
    def encoder(self) -> Encoder:
        """The encoder, loaded when first needed."""
        with self._guard:
            if self._encoder is None or isinstance(self._encoder, str):
                stored = {"name": DEFAULT} if self._index is None else self._index.settings.fingerprint
                task = self._options["task"] or stored.get("task")
                if self._encoder is None and is_address(stored["name"]):
                    from retriever.encoders.remote_http import check_stored

                    check_stored(stored["name"])
                self._encoder = self.seen(load_encoder(self._encoder or stored["name"], task=task))
                if self._index is not None:
                    check_encoder(self._encoder, self._index.folder, self._index.settings.fingerprint)
            return self._encoder

    def seen(self, encoder: Encoder) -> Encoder:
        """An encoder as this index uses it: for its tokens, or for one vector a page."""
        single = self._options["vectors"] == "single" or encoder.fingerprint.get("vectors") == "single"
        dim = self._options["dim"]
        if self._index is not None:
            stored = self._index.settings.fingerprint
            single, dim = stored.get("vectors") == "single", stored.get("vector_dim")
        return SingleVectors(encoder, dim) if single and not isinstance(encoder, SingleVectors) else encoder

    @property
    def renderer(self) -> Renderer:
        """The jailed worker that draws pages, started when first needed."""
        from ingest.render import Renderer

        with self._guard:
            if self._renderer is None:
                self._renderer = Renderer(backend=self._options["renderer"], limits=self._options["limits"])
            return self._renderer

    def close(self) -> None:
        """End the drawing worker and close the files. What was acknowledged is on the disk already."""
        with self._guard:
            if self._renderer is not None:
                self._renderer.close()
            self._renderer = None
            if self._index is not None:
                self._index.close()

    def __enter__(self) -> Retriever:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- taking in ----------------------------------------------------------------------------------------------------

    def add(
        self,
        paths: str | Path | Iterable[str | Path],
        metadata: dict[str, Any] | None = None,
        *,
        exclude: Sequence[str] = (),
        password: str | None = None,
        dry_run: bool = False,
        progress: Callable[[Progress], None] | None = None,
    ) -> Report:
        """Take in files and folders; what is there already, by content, is skipped, a changed file is replaced.

        When it returns, what the report calls added survives a power cut. Raises FileNotFoundError for a path that is
        not there and IndexLocked where another process is writing; a bad file never stops it, the report names it.
        """
        paths = [paths] if isinstance(paths, (str, Path)) else list(paths)
        return documents.add(
            self, paths, metadata, exclude=exclude, password=password, dry_run=dry_run, progress=progress
        )

    def make_index(self, instead: Path | None = None) -> Index:
        """The index, made with the encoder's dimensions where there is none; for a dry run in a folder `instead`."""
        if self._index is not None:
            return self._index
        encoder, stage = self.encoder, self._options["stage"]
        index = Index.create(
            instead or self.folder,
            dim=encoder.dim,
            single_dim=encoder.single_dim,
            fingerprint=encoder.fingerprint,
            codec=self._options["codec"],
            pool=self._options["pool"],
            stage="pooled" if stage == "auto" and isinstance(encoder, SingleVectors) else stage,
        )
        if instead is None:
            self._index = index
        return index

    def update(
        self,
        paths: Iterable[str | Path] | None = None,
        *,
        prune: bool = False,
        progress: Callable[[Progress], None] | None = None,
    ) -> Report:
        """Look at the indexed files again (or at `paths`): what changed is replaced, what vanished is reported as gone,
        and with prune deleted."""
        return documents.update(self, paths, prune=prune, progress=progress)

    def retry(self, *, password: str | None = None, progress: Callable[[Progress], None] | None = None) -> Report:
        """Try again what failed, whole documents and single pages, and finish what was cut short."""
        return documents.retry(self, password=password, progress=progress)

    def delete(self, document: str) -> int:
        """Remove a document by its id (or the start of it), path or file name; the number of pages removed.

        No later search returns it; `compact(purge=True)` removes its bytes. Raises UnknownDocument."""
        return documents.delete(self, document)

    # -- looking ------------------------------------------------------------------------------------------------------

    def documents(self) -> list[dict[str, Any]]:
        """All searchable documents: document, paths, title, kind, pages, state, reason, size, added, metadata."""
        return documents.listing(self)

    def pages(self, document: str) -> list[dict[str, Any]]:
        """The pages of a document: page, state, reason, tokens, width and height (points), text.

        Raises UnknownDocument."""
        return documents.pages(self, document)

    def page(self, document: str, number: int, query: str | None = None) -> Hit:
        """One page, as a Hit; with a query, its evidence and heat map. Raises UnknownDocument."""
        (asked,) = of_texts(self.encoder, [query]) if query else words_only([""], self.index.settings.dim)
        with self.index.snapshot() as snapshot:
            page = documents.page_id(snapshot, document, number)
            found = score(Ragged.of([asked.vectors]), np.array([page]), snapshot)[0, 0] if query else 0.0
            return self._hits(snapshot, asked, [Found(page, 0.0, {"visual": float(found)} if query else {})])[0]

    def status(self) -> dict[str, Any]:
        """What is in the index, how it is stored, and every document that is not whole, with the reason."""
        return documents.status(self)

    # -- searching ----------------------------------------------------------------------------------------------------

    def search(
        self,
        query: str | Sequence[str] | None = None,
        k: int = 10,
        mode: str = "hybrid",
        where: dict[str, Any] | None = None,
        candidates: int | str | None = None,
        *,
        image: Any = None,
        like: str | Hit | None = None,
    ) -> Any:
        """The k best pages for a query, as list[Hit]; for a list of queries, a list of those.

        image: a picture to ask with, alone or beside the query: a file's path, a PIL image or (H, W, 3) uint8; like: a
        page of the index to ask with, "DOCUMENT#PAGE" or a Hit, which is not found itself. mode: `visual` (MaxSim),
        `text` (BM25), or both fused. where: a filter over metadata and built-in fields (index.where), applied before
        the k best are taken. candidates: how many pages of each lane are scored, or "all"; where nobody says, 150 up to
        100,000 pages, and for `visual` as many as promise enough, 600 at most. Ties are broken by (document, page).
        Raises QueryError, UnknownDocument, FileNotFoundError, and EncoderMismatch on first use.
        """
        texts = [] if query is None else [query] if isinstance(query, str) else list(query)
        limit = check_search(texts, k, mode, candidates)
        if image is not None and like is not None or query is None and image is None and like is None:
            raise QueryError("ask with a text, with a picture or page (image or like, not both), or with text and one")
        asked = words_only(texts, self.index.settings.dim) if mode == "text" else of_texts(self.encoder, texts)
        picture = None if image is None else seen(self.encoder, self.renderer, self._guard, image)
        with self.index.snapshot() as snapshot:
            if like is not None:
                picture = stored(snapshot, like.id if isinstance(like, Hit) else like)
            if picture is not None:
                shown = of_picture(snapshot, picture)
                asked = [shown] if query is None else [both(text, shown) for text in asked]
            found = [
                self._hits(
                    snapshot,
                    one,
                    rank(snapshot, one.said, one.vectors, one.single, k, mode, where, limit, one.page),
                )
                for one in asked
            ]
        return found if query is not None and not isinstance(query, str) else found[0]

    def _hits(self, snapshot: Snapshot, asked: Query, ranked: Sequence[Found]) -> list[Hit]:
        names = self.encoder.query_tokens([asked.text])[0] if asked.text and len(asked.vectors) else []
        return hits_of(snapshot, asked, ranked, names, self.draw)

    def draw(self, content: str, path: str, kind: str, number: int, dpi: int = 150) -> Image:
        """A page of a file as a picture. Raises OctavoError where the file has gone, changed, or cannot be drawn."""
        return documents.draw(self.renderer, self._guard, content, path, kind, number, dpi)

    # -- upkeep -------------------------------------------------------------------------------------------------------

    def check(self) -> list[Damage]:
        """Verify every stored byte; [] where all is well, else document, page, file, offset and reason of damage."""
        return upkeep.check(self.index)

    def compact(self, purge: bool = False) -> dict[str, Any]:
        """Give back the room of what was deleted; with purge, leave none of its bytes in any file of the index."""
        return upkeep.compact(self.index, purge=purge)

    def recode(
        self,
        codec: str | None = None,
        pool: int | None = None,
        *,
        anew: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Any]:
        """Convert the index in place to another codec, or pool its tokens further; killed, it is whole in one of both.

        anew: with vectors made again of the words that it keeps, so that an index of an earlier octavo-box-1 is one of
        this; no file is opened, no page read. progress: told (pages done, of all). What a coarser codec took away does
        not come back without `anew`. Raises QueryError, DamageError, DiskFull: twice the room is needed while it runs.
        """
        return documents.recode(self, codec, pool, anew, progress)

    def duplicates(
        self, threshold: float | None = None, where: dict[str, Any] | None = None, progress: Told = None
    ) -> list[list[Member]]:
        """Groups of pages that say the same, see `retriever.similar.duplicates`. Raises QueryError."""
        from retriever import similar

        return similar.duplicates(self, similar.THRESHOLD if threshold is None else threshold, where, progress)

    def clusters(
        self, count: int | None = None, where: dict[str, Any] | None = None, progress: Told = None
    ) -> list[list[Member]]:
        """Pages by what they are about, see `retriever.similar.clusters`. Raises QueryError."""
        from retriever import similar

        return similar.clusters(self, count, where, progress)

    def rebuild(self) -> dict[str, Any]:
        """Make again what can be derived from the store: the first stage and the text lane."""
        return upkeep.rebuild(self.index)

    def export(self, path: str | Path) -> Path:
        """Write the index as one file, to be searched elsewhere: `Retriever.import_`."""
        return archive.export(self.index, Path(path))

    @classmethod
    def import_(cls, archive_path: str | Path, path: str | Path, encoder: Encoder | str | None = None) -> Retriever:
        """Unpack an exported index into a new folder and open it. Everything in it is checked first."""
        archive.unpack(Path(archive_path), Path(path).expanduser().absolute())
        return cls.open(path, encoder, create=False)
