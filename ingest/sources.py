"""Paths to sources: which files there are to ingest, of what kind, and why the others are not.

A folder is walked in sorted order; of its files only those with a supported suffix are looked at, hidden names (a
leading dot: `.git`, `._report.pdf`) and names that match an ignore pattern are passed over. What a file *is* is decided
by its first bytes, not by its name. Links are never followed, and only regular files are opened, so that a FIFO or a
device cannot hang the ingest.

Does not read a file beyond its first kilobyte (`content_id` does, on request) and does not parse anything.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

_TEXT = (
    ".txt .text .md .markdown .rst .adoc .org .tex .py .pyi .js .jsx .mjs .ts .tsx .c .h .cc .cpp .hh .hpp .cs .cu .go"
    " .rs .java .kt .scala .swift .rb .php .pl .lua .r .jl .sh .sql .ex .exs .erl .hs .ml .lisp .el .dart .zig .f90"
    " .toml .yaml .yml .cmake .proto"
)
SUFFIXES = {
    ".pdf": "pdf",
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".jpe": "jpeg",
    ".jfif": "jpeg",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".webp": "webp",
} | dict.fromkeys(_TEXT.split(), "text")
KINDS = ("pdf", "png", "jpeg", "tiff", "webp", "text")
SUPPORTED = "PDF, PNG, JPEG, TIFF, WebP and text files (.txt, .md, .py and the like) are supported"
IGNORE_FILE = ".octavoignore"
MAX_BYTES = 512 * 2**20
MAX_TEXT_BYTES = 16 * 2**20

_HEAD = 1024  # readers accept %PDF anywhere in the first 1024 bytes (ISO 32000-1, annex H.3, note 13)
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00", "tiff"),
    (b"MM\x00+", "tiff"),
)
_NOT_CONTROL = bytes({*range(8, 14), 27, *range(32, 256)} - {127})
_OPEN = os.O_RDONLY
for _flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"):
    _OPEN |= getattr(os, _flag, 0)


class Source(NamedTuple):
    """A file to ingest. path: absolute, its folders as given; kind: one of `KINDS`, by content; size: bytes."""

    path: Path
    kind: str
    size: int
    mtime_ns: int


class Unreadable(NamedTuple):
    """A file that is not to be ingested. state: "unsupported" (or the system will not open it), "empty" or "oversize";
    reason: a sentence for the user."""

    path: Path
    state: str
    reason: str


def find(
    paths: Iterable[str | Path], *, exclude: Sequence[str] = (), max_bytes: int = MAX_BYTES
) -> Iterator[Source | Unreadable]:
    """Every file to ingest under `paths`, in sorted order within each path, none twice.

    exclude: patterns as in .gitignore, relative to each named folder. A folder may hold a `.octavoignore` with more,
    relative to itself, for all below it; a file is passed over where any of them says so. Files named outright are
    never excluded, and whatever is wrong with one is said: an `Unreadable`.

    Raises FileNotFoundError, before the first file is yielded, where a named path does not exist, and ValueError for a
    pattern that is none.
    """
    named = [Path(paths)] if isinstance(paths, str | os.PathLike) else [Path(path) for path in paths]
    roots = [_named(path) for path in named]
    return _walk_all(roots, _patterns(exclude, "exclude"), max_bytes)


def open_source(path: str | Path) -> int:
    """A descriptor of a regular file, open for reading; the caller closes it. Never follows a link at the leaf, never
    waits for a writer. Raises OSError where the system refuses, ValueError where it is not a regular file."""
    fd = os.open(path, _OPEN)
    try:
        kind = _not_regular(os.fstat(fd).st_mode)
    except BaseException:
        os.close(fd)
        raise
    if kind:
        os.close(fd)
        raise ValueError(f"{os.fspath(path)!r} is {kind}, not a regular file")
    return fd


def content_id(fd: int) -> str:
    """BLAKE2b (16 bytes, hex) of everything `fd` holds, from its start; the position of `fd` is left where it is."""
    digest = hashlib.blake2b(digest_size=16)
    offset = 0
    while chunk := read_at(fd, 1 << 20, offset):
        digest.update(chunk)
        offset += len(chunk)
    return digest.hexdigest()


def read_at(fd: int, count: int, offset: int) -> bytes:
    """Up to `count` bytes at `offset`; fewer only at the end of the file (or after a signal), b"" past it."""
    if hasattr(os, "pread"):
        return os.pread(fd, count, offset)
    before = os.lseek(fd, 0, os.SEEK_CUR)
    try:
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, count)
    finally:
        os.lseek(fd, before, os.SEEK_SET)


def sniff(head: bytes) -> str | None:
    """The kind that a file's first 1024 bytes tell, None where they tell none."""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    return "pdf" if b"%PDF" in head[:_HEAD] else None


def is_text(data: bytes) -> bool:
    """Whether bytes may be text: no control characters but white space, backspace and escape; anything after a UTF-16
    mark."""
    return data[:2] in (b"\xff\xfe", b"\xfe\xff") or not data.translate(None, _NOT_CONTROL)


def _named(path: Path) -> tuple[Path, os.stat_result]:
    try:
        return Path(os.path.abspath(path)), os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise FileNotFoundError(f"no such file or folder: {os.fspath(path)!r} (looked from {os.getcwd()!r})") from error


def _walk_all(
    roots: list[tuple[Path, os.stat_result]], exclude: GitIgnoreSpec | None, max_bytes: int
) -> Iterator[Source | Unreadable]:
    seen: set[Path] = set()
    for root, status in roots:
        found = _walk(root, exclude, max_bytes) if stat.S_ISDIR(status.st_mode) else iter([_look(root, max_bytes)])
        for item in found:
            if item.path not in seen:
                seen.add(item.path)
                yield item


def _walk(root: Path, exclude: GitIgnoreSpec | None, max_bytes: int) -> Iterator[Source | Unreadable]:
    """Depth first, iterative (a tree may be deeper than Python's stack); rules: the specs above a folder, with the
    folder that each is relative to."""
    rules: tuple[tuple[Path, GitIgnoreSpec], ...] = ((root, exclude),) if exclude else ()
    stack = [(root, True, rules)]
    while stack:
        path, is_folder, rules = stack.pop()
        if not is_folder:
            yield _look(path, max_bytes)
            continue
        try:
            own = _ignore_file(path)
            with os.scandir(path) as entries:
                listed = [(entry.name, _type(entry)) for entry in entries]
        except OSError as error:
            yield Unreadable(path, "unsupported", f"the folder cannot be read: {error.strerror or error}")
            continue
        rules = (*rules, (path, own)) if own else rules
        for name, kind in sorted(listed, reverse=True):
            inner = path / name
            if _wanted(name, kind) and not _ignored(inner, kind == "folder", rules):
                stack.append((inner, kind == "folder", rules))


def _type(entry: os.DirEntry[str]) -> str:
    if entry.is_dir(follow_symlinks=False):
        return "folder"
    return "file" if entry.is_file(follow_symlinks=False) else "other"


def _wanted(name: str, kind: str) -> bool:
    if name.startswith(".") or kind == "other":
        return False
    return kind == "folder" or os.path.splitext(name)[1].lower() in SUFFIXES


def _ignored(path: Path, is_folder: bool, rules: tuple[tuple[Path, GitIgnoreSpec], ...]) -> bool:
    tail = "/" if is_folder else ""
    return any(spec.match_file(path.relative_to(folder).as_posix() + tail) for folder, spec in rules)


def _ignore_file(folder: Path) -> GitIgnoreSpec | None:
    path = folder / IGNORE_FILE
    try:
        fd = open_source(path)
    except (OSError, ValueError):
        return None
    try:
        text = read_at(fd, 1 << 20, 0)
    finally:
        os.close(fd)
    return _patterns(text.decode("utf-8", "surrogateescape").splitlines(), repr(os.fspath(path)))


def _patterns(lines: Sequence[str], where: str) -> GitIgnoreSpec | None:
    if not lines:
        return None
    from pathspec import GitIgnoreSpec

    try:
        return GitIgnoreSpec.from_lines([lines] if isinstance(lines, str) else lines)
    except ValueError as error:
        raise ValueError(f"{where}: {error}; patterns are written as in .gitignore") from error


def _look(path: Path, max_bytes: int) -> Source | Unreadable:
    try:
        kind = _not_regular(os.lstat(path).st_mode)
        if kind:
            return Unreadable(path, "unsupported", _refusal(path, kind))
        fd = open_source(path)
    except (OSError, ValueError) as error:
        return Unreadable(path, "unsupported", f"cannot be opened: {getattr(error, 'strerror', None) or error}")
    try:
        status = os.fstat(fd)
        head = read_at(fd, _HEAD, 0)
    except OSError as error:
        return Unreadable(path, "unsupported", f"cannot be read: {error.strerror or error}")
    finally:
        os.close(fd)
    return _judge(path, status, head, max_bytes)


def _judge(path: Path, status: os.stat_result, head: bytes, max_bytes: int) -> Source | Unreadable:
    if not head:
        return Unreadable(path, "empty", "the file has no bytes")
    kind = sniff(head)
    suffix = path.suffix.lower()
    if SUFFIXES.get(suffix) == "text" and (kind is None or kind == "pdf" and not head.startswith(b"%PDF")):
        return _judge_text(path, status, head)
    if kind is None and SUFFIXES.get(suffix) != "pdf":  # the renderer tries to repair what calls itself a PDF
        what = f"starts with {head[:8]!r}, which is none of them"
        return Unreadable(path, "unsupported", f"{SUPPORTED}; this file {what}")
    if status.st_size > max_bytes:
        sizes = f"{status.st_size / 2**20:,.1f} MiB, more than the limit of {max_bytes / 2**20:,.1f} MiB"
        return Unreadable(path, "oversize", f"the file has {sizes}; raise max_bytes to take it")
    return Source(path, kind or "pdf", status.st_size, status.st_mtime_ns)


def _judge_text(path: Path, status: os.stat_result, head: bytes) -> Source | Unreadable:
    if not is_text(head):
        return Unreadable(path, "unsupported", f"{SUPPORTED}; this file is called one and holds bytes that no text has")
    if status.st_size > MAX_TEXT_BYTES:
        sizes = f"{status.st_size / 2**20:,.1f} MiB, a text file {MAX_TEXT_BYTES // 2**20} MiB at most; split it"
        return Unreadable(path, "oversize", f"the file has {sizes}")
    return Source(path, "text", status.st_size, status.st_mtime_ns)


def _not_regular(mode: int) -> str:
    for test, name in (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    ):
        if test(mode):
            return name
    return "" if stat.S_ISREG(mode) else "no regular file"


def _refusal(path: Path, kind: str) -> str:
    if kind != "a symbolic link":
        return f"is {kind}; {SUPPORTED}"
    try:
        target = repr(os.readlink(path))
    except OSError:
        target = "something unreadable"
    return f"is a symbolic link to {target}; links are not followed, name the file or folder itself"
