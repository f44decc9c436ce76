"""What is found under a path, what each file is said to be, and that nothing odd in a folder stops the walk."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.sources import Source, Unreadable, content_id, find, open_source, read_at, sniff

PDF = b"%PDF-1.7\n"
PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff\xe0"


def put(path: Path, data: bytes = PDF) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def names(root: Path, found: Iterator[Source | Unreadable]) -> list[str]:
    return [item.path.relative_to(root).as_posix() for item in found]


def only(found: Iterator[Source | Unreadable]) -> Source | Unreadable:
    (item,) = found
    return item


def test_a_folder_gives_its_supported_files_in_sorted_order(tmp_path: Path) -> None:
    for name in ("b.pdf", "a/z.pdf", "a/c.PNG", "c.zip", "a/deep/er/x.tiff", "d.jpg"):
        put(tmp_path / name)
    assert names(tmp_path, find([tmp_path])) == ["a/c.PNG", "a/deep/er/x.tiff", "a/z.pdf", "b.pdf", "d.jpg"]
    assert names(tmp_path, find(tmp_path)) == names(tmp_path, find([str(tmp_path)]))


def test_a_source_has_path_kind_size_and_time(tmp_path: Path) -> None:
    path = put(tmp_path / "a.pdf", PDF + b"x" * 91)
    os.utime(path, ns=(1, 1_234_567_890_123_456_789))
    assert only(find([path])) == Source(path, "pdf", 100, 1_234_567_890_123_456_789)


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "in" / "a.pdf")
    monkeypatch.chdir(tmp_path)
    assert only(find(["in/../in/a.pdf"])).path == tmp_path / "in" / "a.pdf"


def test_nothing_twice(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.pdf")
    put(tmp_path / "in" / "b.pdf")
    paths = [tmp_path / "in" / "b.pdf", tmp_path / "in", tmp_path]
    assert names(tmp_path, find(paths)) == ["in/b.pdf", "in/a.pdf"]


def test_hidden_names_are_passed_over_unless_named(tmp_path: Path) -> None:
    for name in (".git/a.pdf", "._b.pdf", ".hidden.pdf", "c.pdf"):
        put(tmp_path / name)
    assert names(tmp_path, find([tmp_path])) == ["c.pdf"]
    assert names(tmp_path, find([tmp_path / ".hidden.pdf", tmp_path / ".git"])) == [".hidden.pdf", ".git/a.pdf"]


def test_patterns_exclude_as_in_gitignore(tmp_path: Path) -> None:
    for name in ("a.pdf", "b.png", "drafts/c.pdf", "x/drafts/d.pdf", "x/keep.png", "x/e.pdf"):
        put(tmp_path / name)
    assert names(tmp_path, find([tmp_path], exclude=["*.png", "!keep.png", "/drafts/"])) == [
        "a.pdf",
        "x/drafts/d.pdf",
        "x/e.pdf",
        "x/keep.png",
    ]
    assert names(tmp_path, find([tmp_path], exclude=["drafts"])) == ["a.pdf", "b.png", "x/e.pdf", "x/keep.png"]


def test_an_ignore_file_holds_for_what_is_below_it(tmp_path: Path) -> None:
    for name in ("a.pdf", "x/a.pdf", "x/b.pdf", "x/y/a.pdf", "z/a.pdf"):
        put(tmp_path / name)
    put(tmp_path / "x" / ".octavoignore", b"# mine\n\na.pdf\n")
    put(tmp_path / ".octavoignore", b"/z/\n")
    assert names(tmp_path, find([tmp_path])) == ["a.pdf", "x/b.pdf"]
    assert names(tmp_path, find([tmp_path / "z" / "a.pdf"])) == ["z/a.pdf"], "a file named outright is never excluded"


def test_an_ignore_file_that_is_a_pipe_or_no_text_does_no_harm(tmp_path: Path) -> None:
    put(tmp_path / "a.pdf")
    put(tmp_path / "b" / "c.pdf")
    put(tmp_path / "b" / ".octavoignore", b"\xff\xfe\n")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / ".octavoignore")
    assert names(tmp_path, find([tmp_path])) == ["a.pdf", "b/c.pdf"]


def test_a_missing_path_is_an_error_before_the_first_file(tmp_path: Path) -> None:
    put(tmp_path / "a.pdf")
    with pytest.raises(FileNotFoundError, match=r"no such file or folder: '.*nothing\\nhere.pdf'"):
        find([tmp_path / "a.pdf", tmp_path / "nothing\nhere.pdf"])
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        find([tmp_path / "a.pdf" / "below"])
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        find(["nul\0byte"])


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (PDF, "pdf"),
        (b"j" * 1020 + b"%PDF", "pdf"),
        (b"j" * 1021 + b"%PDF", None),
        (b"junk\r\n" * 100 + PDF, "pdf"),
        (PNG, "png"),
        (PNG + b"%PDF-1.4", "png"),
        (JPEG, "jpeg"),
        (b"II*\0", "tiff"),
        (b"MM\0*", "tiff"),
        (b"II+\0", "tiff"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "webp"),
        (b"RIFF\x10\0\0\0WAVEfmt ", None),
        (b"GIF89a", None),
        (b"", None),
    ],
)
def test_kind_by_content(head: bytes, kind: str | None) -> None:
    assert sniff(head) == kind


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    put(tmp_path / "a.pdf", JPEG)
    put(tmp_path / "b.png", PDF)
    put(tmp_path / "c", PNG)
    kinds = [item.kind for item in find([tmp_path, tmp_path / "c"]) if isinstance(item, Source)]
    assert kinds == ["jpeg", "pdf", "png"]


def test_what_calls_itself_a_pdf_gets_its_chance(tmp_path: Path) -> None:
    assert only(find([put(tmp_path / "a.pdf", b"no header")])) == Source(
        tmp_path / "a.pdf", "pdf", 9, (tmp_path / "a.pdf").stat().st_mtime_ns
    )


def test_other_content_is_unsupported_with_the_reason(tmp_path: Path) -> None:
    for path in (put(tmp_path / "a.png", b"GIF89a\x1b[2J"), put(tmp_path / "a.docx", b"PK\3\4")):
        item = only(find([path]))
        assert isinstance(item, Unreadable)
        assert item.state == "unsupported"
        assert "PDF, PNG, JPEG, TIFF, WebP and text files" in item.reason
        assert item.reason.isprintable()


def test_empty_and_oversize(tmp_path: Path) -> None:
    assert only(find([put(tmp_path / "a.pdf", b"")])).state == "empty"  # type: ignore[union-attr]
    item = only(find([put(tmp_path / "b.pdf", PDF + bytes(2**21))], max_bytes=2**20))
    assert isinstance(item, Unreadable)
    assert (item.state, "2.0 MiB, more than the limit of 1.0 MiB" in item.reason) == ("oversize", True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes_sockets_and_devices_are_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tmp_path / "a.pdf"
    os.mkfifo(pipe)
    item = only(find([pipe]))
    assert (item.state, item.reason[:15]) == ("unsupported", "is a named pipe")  # type: ignore[union-attr]
    device = only(find(["/dev/null"]))
    assert isinstance(device, Unreadable)
    assert device.reason.startswith("is a device; PDF")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("s.pdf")
    assert only(find([tmp_path / "s.pdf"])).reason.startswith("is a socket")  # type: ignore[union-attr]
    put(tmp_path / "z.pdf")
    assert names(tmp_path, find([tmp_path])) == ["z.pdf"], "in a folder they are passed over"
    with pytest.raises(ValueError, match="is a named pipe, not a regular file"):
        open_source(pipe)


@pytest.mark.skipif(sys.platform == "win32", reason="links need privileges")
def test_links_are_not_followed(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.pdf")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "self.pdf").symlink_to("self.pdf")
    (tmp_path / "in" / "link.pdf").symlink_to("a.pdf")
    (tmp_path / "folder").symlink_to("in")
    assert names(tmp_path, find([tmp_path])) == ["in/a.pdf"]
    for path, target in (("in/link.pdf", "'a.pdf'"), ("in/self.pdf", "'self.pdf'"), ("folder", "'in'")):
        item = only(find([tmp_path / path]))
        assert isinstance(item, Unreadable)
        assert (item.path, item.state) == (tmp_path / path, "unsupported")
        assert item.reason == f"is a symbolic link to {target}; links are not followed, name the file or folder itself"
    with pytest.raises(OSError, match="symbolic link"):
        open_source(tmp_path / "in" / "link.pdf")
    assert only(find([tmp_path / "folder" / "a.pdf"])).path == tmp_path / "folder" / "a.pdf", (
        "folders on the way may be"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes")
def test_names_of_any_bytes(tmp_path: Path) -> None:
    raw = [b"new\nline.pdf", b"\xff\xfe.pdf", b"\x1b[2Jesc.pdf", "\u202egnp.pdf".encode(), b"  .pdf", b"'\".pdf"]
    for name in raw:
        (tmp_path / os.fsdecode(name)).write_bytes(PDF)
    found = list(find([tmp_path]))
    assert {os.fsencode(item.path.name) for item in found} == set(raw)
    for item in found:
        os.close(open_source(item.path))


def test_a_folder_that_cannot_be_listed_does_not_stop_the_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "a" / "x.pdf")
    put(tmp_path / "b.pdf")
    scan = os.scandir

    def refuse(path: Path) -> object:
        if os.fspath(path).endswith("a"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = list(find([tmp_path]))
    assert found[0] == Unreadable(tmp_path / "a", "unsupported", "the folder cannot be read: Permission denied")
    assert found[1].path == tmp_path / "b.pdf"


def test_a_file_that_goes_away_is_said(tmp_path: Path) -> None:
    put(tmp_path / "a.pdf")
    found = find([tmp_path / "a.pdf"])
    (tmp_path / "a.pdf").unlink()
    assert only(found).state == "unsupported"  # type: ignore[union-attr]


@pytest.mark.skipif(sys.platform == "win32", reason="no such depth")
def test_a_deep_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(30):
        os.mkdir("d" * 200)
        os.chdir("d" * 200)
    Path("a.pdf").write_bytes(PDF)
    os.chdir(tmp_path)
    (item,) = find([tmp_path])  # its path is too long for the system, and that is said
    assert isinstance(item, Unreadable)
    assert (item.state, "File name too long" in item.reason) == ("unsupported", True)
    for _ in range(30):
        os.chdir("d" * 200)
    os.unlink("a.pdf")
    for _ in range(30):
        os.chdir("..")
        os.rmdir("d" * 200)


def test_open_source_is_not_inherited_and_content_id_leaves_the_position(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    fd = open_source(put(tmp_path / "a.pdf", data))
    try:
        assert stat.S_ISREG(os.fstat(fd).st_mode)
        assert not os.get_inheritable(fd)
        os.lseek(fd, 5, os.SEEK_SET)
        assert content_id(fd) == hashlib.blake2b(data, digest_size=16).hexdigest()
        assert read_at(fd, 3, 254) == b"\xfe\xff\x00"
        assert os.lseek(fd, 0, os.SEEK_CUR) == 5
    finally:
        os.close(fd)


def test_a_bad_pattern_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="written as in .gitignore"):
        find([tmp_path], exclude=["a/\\"])
