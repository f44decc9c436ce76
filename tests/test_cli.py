"""The command by its real process: what it prints, what it exits with, what it leaves behind."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pymupdf
import pytest

from retriever.doctor import safe_sqlite
from retriever.options import home, limits, place, where

OCTAVO = Path(sys.executable).with_name("octavo")
PAGES = {
    "turbines.pdf": [
        "The turbine blade failed after nine thousand hours.",
        "Invoices of the northern wind farm, 2023.",
    ],
    "harbour.pdf": ["The harbour authority widened the eastern quay for larger ships."],
    "evil\x1b[31m.pdf": ["A lighthouse keeper wrote this letter about the storm."],
}


def octavo(*args, check=None, **options):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OCTAVO_")}
    environment.update(options.pop("env", {}))
    done = subprocess.run(
        [OCTAVO, *map(str, args)], capture_output=True, text=True, timeout=120, env=environment, **options
    )
    if check is not None:
        assert done.returncode == check, done.stdout + done.stderr
    return done


def write(path, pages, **options):
    with pymupdf.open() as document:
        for text in pages:
            page = document.new_page(width=420, height=300)
            assert page.insert_textbox((40, 40, 380, 260), text, fontsize=18) > 0
        document.save(path, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("cli")
    (root / "files").mkdir()
    for name, pages in PAGES.items():
        write(root / "files" / name, pages)
    (root / "files" / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing of the kind")
    write(root / "secret.pdf", ["A secret."], encryption=pymupdf.PDF_ENCRYPT_AES_256, user_pw="sesame", owner_pw="x")
    return root


@pytest.fixture(scope="module")
def index(folder):
    done = octavo("add", "files", "--index", "./index", "--metadata", '{"year": 2023}', "--json", cwd=folder)
    assert done.returncode == 1, done.stderr  # one document is broken
    report = json.loads(done.stdout)
    assert report["pages"] == 4 and len(report["added"]) == 3
    assert [Path(entry["path"]).name for entry in report["failed"]] == ["broken.pdf"]
    return folder / "index"


def test_search_finds_the_page(index):
    done = octavo("search", "why did the blade fail", "--index", index, "-k", 2, check=0)
    lines = done.stdout.splitlines()
    assert lines[0].split()[:4] == ["1", "turbines.pdf,", "page", "1"]
    assert lines[1].strip().startswith(str(index.parent / "files" / "turbines.pdf") + "#page=1")
    assert "turbine blade failed" in lines[2] and done.stderr == ""


def test_search_as_json_is_one_document_with_all_of_a_hit(index):
    found = json.loads(octavo("search", "wider", "quay", "--index", index, "--json", check=0).stdout)
    assert found["query"] == "wider quay" and found["mode"] == "hybrid"
    hit = found["hits"][0]
    assert hit["path"].endswith("harbour.pdf") and hit["page"] == 1 and hit["rank"] == 1
    assert hit["metadata"] == {"year": 2023} and 0 <= hit["score_norm"] <= 1
    assert any(hit["snippet"][a:b] == "quay" for a, b in hit["marks"])
    assert hit["url"].startswith("file://") and hit["url"].endswith("#page=1")


def test_search_writes_a_page_of_pictures_that_asks_for_nothing(index, tmp_path):
    made = tmp_path / "hits.html"
    found = json.loads(octavo("search", "<quay>", "-k", 3, "--index", index, "--json", "--html", made, check=0).stdout)
    assert found["html"] == str(made)
    shown = made.read_text("utf-8")
    assert shown.count('src="data:image/jpeg;base64,') == len(found["hits"]) == 3 and "default-src 'none'" in shown
    assert "<h1>&lt;quay&gt;</h1>" in shown and "eastern <mark>quay</mark> for" in shown and "\x1b" not in shown
    assert f'href="{found["hits"][0]["url"]}"' in shown
    assert not re.search(r"https?:|src=\"(?!data:)|<script|<link", shown)
    (index.parent / "files" / "harbour.pdf").rename(tmp_path / "elsewhere.pdf")
    try:
        octavo("search", "quay", "-k", 1, "--index", index, "--html", made, check=0)
    finally:
        (tmp_path / "elsewhere.pdf").rename(index.parent / "files" / "harbour.pdf")
    assert "<img" not in made.read_text("utf-8") and "harbour.pdf" in made.read_text("utf-8")


def test_filters_and_what_finds_nothing(index):
    assert octavo("search", "quay", "--index", index, "--where", "year=2023", check=0).stdout
    nothing = octavo("search", "quay", "--index", index, "--where", "year>2023", check=1)
    assert nothing.stdout == "" and nothing.stderr == "No page was found.\n"
    both = ("--where", '{"year": {"$lte": 2023}}', "--where", "page=2")
    hits = json.loads(octavo("search", "turbine", "--index", index, *both, "--json", check=0).stdout)["hits"]
    assert [hit["page"] for hit in hits] == [2]


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["search", ""], 3, "octavo: the query is empty"),
        (["search", "x", "--where", "no condition"], 2, "neither field=value"),
        (["search", "x", "--where", "{broken"], 2, "not JSON"),
        (["search", "x", "--where", '{"$near": 1}'], 3, "octavo: '$near' is no operator"),
        (["search", "x", "-k", "0"], 2, "0 is not in the range"),
        (["search", "x", "--mode", "magic"], 2, "'magic' is not one of"),
        (["show", "nowhere.pdf", "1"], 3, "octavo: no document is called 'nowhere.pdf'"),
        (["show", "harbour.pdf", "7"], 3, "octavo: 'harbour.pdf' has 1 pages; page 7"),
        (["show", "harbour.pdf", "1", "-o", "page.xyz"], 2, "page.xyz is no picture's name"),
        (["show", "harbour.pdf", "1", "-o", "/no/such/folder/page.png"], 3, "page.png: No such file or directory"),
        (["delete", "nowhere.pdf"], 3, "octavo: no document"),
        (["add", "/no/such/file.pdf"], 3, "no such file or folder: '/no/such/file.pdf'"),
        (["add", "x.pdf", "--metadata", "[1]"], 2, "a JSON object is expected"),
        (
            ["add", "x.pdf", "--limit", "page_seconds=0"],
            2,
            "sets no limit; they are, with what they are now, page_seconds=10",
        ),
        (["add", "x.pdf", "--limit", "patience=3"], 2, "'patience=3' sets no limit"),
        (["levitate"], 2, "No such command 'levitate'"),
    ],
)
def test_errors_are_one_sentence_and_have_their_status(index, args, code, said):
    done = octavo(*args, *(["--index", index] if args[0] != "levitate" else []))
    assert done.returncode == code and said in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""


def test_an_error_is_json_too_and_debug_shows_where(tmp_path):
    done = octavo("search", "x", "--index", tmp_path / "none", "--json", check=3)
    assert json.loads(done.stdout)["type"] == "NotAnIndex" and "octavo add creates one" in done.stderr
    assert "Traceback" in octavo("search", "x", "--index", tmp_path, env={"OCTAVO_DEBUG": "1"}).stderr


def test_names_from_files_cannot_steer_the_terminal(index):
    for args in (["list"], ["search", "lighthouse keeper"], ["status"]):
        done = octavo(*args, "--index", index)
        assert "\x1b" not in done.stdout and "evil" in done.stdout + "evil" * (args[0] == "status")
    documents = json.loads(octavo("list", "--index", index, "--json", check=0).stdout)["documents"]
    assert sorted(d["pages"] for d in documents) == [1, 1, 2]


def test_status_names_what_failed_and_retry_takes_a_password(folder, tmp_path):
    done = octavo("add", folder / "secret.pdf", "--index", "./i", cwd=tmp_path, check=1)
    assert "encrypted" in done.stdout and "secret.pdf" in done.stdout
    status = octavo("status", "--index", "./i", cwd=tmp_path, check=0).stdout
    assert "encrypted: " in status and "documents" in status
    again = octavo("retry", "--index", "./i", cwd=tmp_path, env={"OCTAVO_PASSWORD": "sesame"}, check=0)
    assert "1 document added" in again.stdout
    assert octavo("search", "secret", "--index", "./i", cwd=tmp_path, check=0).stdout


def test_show_prints_words_and_draws_pictures(index, tmp_path):
    words = octavo("show", "turbines.pdf", 1, "--index", index, check=0).stdout
    assert "turbine blade failed" in words and "page 1 of 2" in words
    for query in ([], ["--query", "turbine"]):
        picture = tmp_path / f"page{len(query)}.png"
        assert "Wrote" in octavo("show", "turbines.pdf", 1, "--index", index, *query, "-o", picture, check=0).stdout
        assert picture.read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "page0.png").read_bytes() != (tmp_path / "page2.png").read_bytes()
    shown = json.loads(
        octavo("show", "turbines.pdf", 1, "--query", "turbine", "--index", index, "--json", check=0).stdout
    )
    assert shown["page"] == 1 and shown["snippet"]


def test_dry_run_says_what_it_would_be_and_changes_nothing(folder, tmp_path):
    done = octavo("add", folder / "files", "--exclude", "evil*", "--dry-run", "--index", "./i", cwd=tmp_path)
    assert done.stdout.startswith("Would add 2 documents, 3 pages") and " on disk" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_update_delete_check_compact_export_import(folder, tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    write(files / "a.pdf", ["An orchard of old apple trees."])
    write(files / "b.pdf", ["A quarry of white marble."])
    run = dict(cwd=tmp_path, env={"OCTAVO_INDEX": str(tmp_path / "i")})
    octavo("add", "files", check=0, **run)
    assert "2 documents already there" in octavo("add", "files", check=0, **run).stdout
    time.sleep(0.01)
    write(files / "a.pdf", ["An orchard of young pear trees."])
    (files / "b.pdf").unlink()
    updated = octavo("update", "--prune", **run).stdout
    assert "1 document updated" in updated and "b.pdf" in updated
    hits = json.loads(octavo("search", "pear orchard", "--json", check=0, **run).stdout)["hits"]
    assert [Path(hit["path"]).name for hit in hits] == ["a.pdf"] and "pear" in hits[0]["snippet"]
    octavo("check", check=0, **run)
    assert "bytes_after" in json.loads(octavo("compact", "--purge", "--json", check=0, **run).stdout)
    octavo("rebuild", check=0, **run)
    octavo("export", "index.octavo", check=0, **run)
    octavo("import", "index.octavo", "--index", "./copy", check=0, **run)
    assert "pear" in octavo("search", "pear", "--index", "./copy", check=0, **run).stdout
    assert octavo("delete", "a.pdf", check=0, **run).stdout == "Deleted a.pdf: 1 page.\n"
    assert octavo("search", "pear", **run).returncode == 1


def test_damage_is_found_and_named(tmp_path):
    write(tmp_path / "a.pdf", ["An orchard of old apple trees."])
    octavo("add", "a.pdf", "--index", "./i", cwd=tmp_path, check=0)
    shard = next((tmp_path / "i" / "shards").iterdir())
    content = bytearray(shard.read_bytes())
    content[-100] ^= 1
    shard.write_bytes(content)
    done = octavo("check", "--index", "./i", "--json", cwd=tmp_path, check=1)
    damage = json.loads(done.stdout)["damage"]
    assert damage and damage[0]["page"] == 1 and damage[0]["file"].endswith(shard.name)


def test_an_interrupted_add_goes_on_where_it_was(tmp_path):
    write(tmp_path / "long.pdf", [f"Page number {n} tells about subject {n * 7}. " * 5 for n in range(40)])
    process = subprocess.Popen(
        [OCTAVO, "add", "long.pdf", "--index", "./i"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a test run in the background of a shell is deaf to SIGINT, and so would be what it starts
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    shards = tmp_path / "i" / "shards"
    deadline, sizes = time.monotonic() + 60, set()
    while time.monotonic() < deadline and len(sizes) < 2:  # a second batch is written: the first one is committed
        sizes |= {size for f in shards.glob("*.tok") if (size := f.stat().st_size) > 1000}
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors.strip().startswith("Interrupted. What was done is kept"), errors
    report = json.loads(octavo("add", "long.pdf", "--index", "./i", "--json", cwd=tmp_path, check=0).stdout)
    assert report["added"][0]["pages"] == 40 and 0 < report["pages"] < 40
    found = octavo("search", "subject", "-k", 99, "--index", "./i", "--json", cwd=tmp_path, check=0)
    assert sorted(hit["page"] for hit in json.loads(found.stdout)["hits"]) == list(range(1, 41))


def test_a_reader_that_goes_away_is_no_error(index):
    command = f"'{OCTAVO}' search turbine --index '{index}' --json | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stdout == "{" and done.stderr == ""


def test_a_terminal_gets_colour_unless_it_asks_for_none(index):
    def shown(**extra):
        main, side = pty.openpty()
        plain = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
        environment = {**plain, "TERM": "xterm-256color", "COLUMNS": "100", **extra}
        command = [OCTAVO, "search", "turbine blade", "-k", "1", "--index", index]
        process = subprocess.Popen(command, stdout=side, stderr=side, env=environment)
        os.close(side)
        text = b""
        try:
            while chunk := os.read(main, 4096):
                text += chunk
        except OSError:  # the other end is closed
            pass
        os.close(main)
        assert process.wait(60) == 0
        return text.decode()

    assert "\x1b[1;33mturbine" in shown()
    assert "33m" not in shown(NO_COLOR="1")


def test_doctor_finds_this_installation_sound(index, tmp_path):
    done = octavo("doctor", "--index", index, "--json")
    findings = {f["what"]: f for f in json.loads(done.stdout)["findings"]}
    assert done.returncode == 0, findings
    assert {"octavo", "Python", "torch", "encoder", "jail", "SQLite", "disk", "index"} <= set(findings)
    assert "all verified" in findings["encoder"]["found"] and "rlimits" in findings["jail"]["found"]
    assert all(f["advice"] for f in findings.values() if f["state"] != "ok")
    assert "none at" in octavo("doctor", "--index", tmp_path / "none", check=0).stdout


def test_which_sqlite_is_safe():
    safe = ["3.51.3", "3.53.4", "3.50.7", "3.44.6"]
    assert all(map(safe_sqlite, safe)) and not any(map(safe_sqlite, ["3.51.2", "3.50.4", "3.45.1", "3.40.1", "3.44.5"]))


def test_completion_and_version():
    for shell in ("bash", "zsh", "fish"):
        assert "_OCTAVO_COMPLETE" in octavo("completion", shell, check=0).stdout
    words = {"COMP_WORDS": "octavo se", "COMP_CWORD": "1", "_OCTAVO_COMPLETE": "bash_complete"}
    assert "search" in octavo(env=words).stdout
    assert octavo("--version", check=0).stdout.startswith("octavo, version ")


def test_the_index_may_be_named_before_the_command_and_by_the_environment(index, monkeypatch):
    assert octavo("--index", index, "list", check=0).stdout
    assert octavo("list", env={"OCTAVO_INDEX": str(index)}, check=0).stdout
    monkeypatch.delenv("OCTAVO_INDEX", raising=False)
    monkeypatch.chdir(index.parent)
    assert place(None) == home() / "default" and place("papers") == home() / "papers"
    assert place("index") == Path("index") and place("./papers") == Path("papers") and place("a/b") == Path("a/b")


def test_filters_as_written():
    assert where([]) is None
    assert where(["year>=2020"]) == {"year": {"$gte": 2020}}
    assert where(["title = Annual report"]) == {"title": {"$eq": "Annual report"}}
    assert where(["a!=true", '{"b": 1}']) == {"$and": [{"a": {"$ne": True}}, {"b": 1}]}
    assert where(["a=NaN"]) == {"a": {"$eq": "NaN"}}


def test_limits_as_written():
    assert limits([]) is None
    found = limits(["page_seconds=30", "max_pages=7"])
    assert (found.page_seconds, found.max_pages, found.max_side) == (30.0, 7, 4096)
