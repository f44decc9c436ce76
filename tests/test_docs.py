"""README is true: its commands exist and run, its example runs, its tree is the tree."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
OCTAVO = Path(sys.executable).with_name("octavo")


def run(*args, **options):
    return subprocess.run([OCTAVO, *args], capture_output=True, text=True, timeout=120, **options)


def block(word: str) -> str:
    (found,) = [text for _, text in BLOCKS if word in text]
    return found


@pytest.fixture(scope="module")
def commands():
    shown = run("--help").stdout.split("Commands:")[1]
    return [line.split()[0] for line in shown.splitlines() if line.strip()]


def test_the_command_list_is_that_of_help_in_the_same_words(commands):
    named = [line.split()[1] for line in block("octavo add PATH...").splitlines()]
    assert sorted(named) == sorted(commands)


def test_options_and_commands_named_in_readme_exist(commands):
    helps = {command: run(command, "--help").stdout for command in commands}
    for command, text in helps.items():
        assert "Usage: octavo" in text and "--json" in text or command == "completion"
    for line in block("octavo add PATH...").splitlines():
        command = line.split()[1]
        for option in re.findall(r"(?<![\w-])--?[a-z][\w-]*", line):
            assert option in helps[command], f"{command} has no {option}"
    for option in re.findall(r"`(--[a-z][\w-]+)", README):
        assert any(option in text for text in helps.values()), option
    for command in re.findall(r"`?octavo ([a-z]+)\b[^`\n]*`", README):
        assert command in commands


def test_make_targets_named_in_readme_exist():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_example_runs_and_finds_the_page(tmp_path):
    shutil.copytree(ROOT / "samples", tmp_path / "samples")
    (code,) = [text for language, text in BLOCKS if language == "python"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()[0]
    assert first.startswith("1 ") and first.endswith("scanned-NTSB-report.pdf#page=1")
    assert (tmp_path / "where.png").stat().st_size > 10_000


def tree() -> list[str]:
    """Paths of the tree in README, folders with a slash at the end."""
    found, folders = [], []
    for line in block("arrays and ids in a folder").splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        names = re.match(r"\s*((?:[\w./-]+, )*[\w./-]+)", line)[1].split(", ")
        for name in names:
            path = "".join(folders[:depth]) + name
            found.append(path)
            if name.endswith("/"):
                folders[depth:] = [name]
    return found


def test_the_tree_is_the_tree():
    named = tree()
    assert len(named) == len(set(named))
    assert {name for name in named if not (ROOT / name).exists()} == set()
    there = {
        str(path.relative_to(ROOT))
        for package in ("index", "ingest", "retriever")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so"
    }
    plain = ("__init__.py", "__main__.py", "py.typed", "NOTICE")
    missing = {path for path in there if Path(path).name not in plain and path not in named}
    assert missing == set(), "say in README's tree what they are"


def test_nothing_tracked_is_large():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    sizes = {name: (ROOT / name).stat().st_size for name in listed.stdout.split("\0") if (ROOT / name).is_file()}
    assert sum(sizes.values()) < 60 * 2**20, sorted(sizes.items(), key=lambda item: -item[1])[:5]
