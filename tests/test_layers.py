"""The arrows between the packages, read from the imports of every file, and what `octavo --help` may load."""

import ast
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("index", "ingest", "retriever")
MAY_IMPORT = {
    "index": {"numpy", "faiss", "scipy", "sqlite_utils", "pysqlite3"},
    "ingest": {"index", "numpy", "pymupdf", "pypdfium2", "PIL", "pathspec"},
}
HEAVY = ("torch", "transformers", "peft", "faiss", "numpy", "onnxruntime", "pymupdf", "PIL", "sqlite_utils", "rich")


def imports(path: Path) -> Iterator[str]:
    """Each module a file imports, at the top or inside a function, relative ones made absolute."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            yield ".".join([*base, *([node.module] if node.module else [])])


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_lower_packages_import_only_what_they_may(package):
    allowed = MAY_IMPORT[package] | {package} | set(sys.stdlib_module_names)
    wrong = {
        (str(f.relative_to(ROOT)), m) for f in files(package) for m in imports(f) if m.split(".")[0] not in allowed
    }
    assert not wrong, f"{package} may import {sorted(MAY_IMPORT[package])} and the standard library"


def test_every_file_is_read_and_relative_imports_are_seen():
    assert all(len(files(package)) > 3 for package in PACKAGES)
    seen = {module for package in PACKAGES for file in files(package) for module in imports(file)}
    assert {"index.errors", "ingest.page", "numpy"} <= seen


def test_what_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    optional = [*project["project"]["optional-dependencies"].values(), *project["dependency-groups"].values()]
    declared = [*project["project"]["dependencies"], *(requirement for group in optional for requirement in group)]
    names = {re.match(r"[\w.-]+", r)[0].lower().replace("_", "-") for r in declared}
    owners = packages_distributions()
    undeclared = set()
    for package in PACKAGES:
        for file in files(package):
            for module in {m.split(".")[0] for m in imports(file)} - set(sys.stdlib_module_names) - set(PACKAGES):
                if not names & {owner.lower().replace("_", "-") for owner in owners.get(module, [module])}:
                    undeclared.add((str(file.relative_to(ROOT)), module))
    assert not undeclared, "add to dependencies, an extra or the dev group of pyproject.toml"


def test_index_and_ingest_work_where_torch_cannot_be_imported():
    modules = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for package in ("index", "ingest")
        for file in files(package)
    ]
    code = (
        "import importlib, sys\n"
        "for name in ('torch', 'transformers', 'peft'): sys.modules[name] = None\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print('imported')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.stdout.strip() == "imported", done.stderr


def test_help_answers_at_once_and_loads_nothing_heavy():
    code = (
        "import sys; from retriever.cli import main\n"
        f"main(['--help']); print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
    command = Path(sys.executable).with_name("octavo")
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run([command, "--help"], check=True, capture_output=True, env={**os.environ, "COLUMNS": "80"})
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.5, seconds


def test_every_module_says_what_it_is():
    silent = [
        str(f.relative_to(ROOT)) for p in PACKAGES for f in files(p) if not ast.get_docstring(ast.parse(f.read_text()))
    ]
    assert [name for name in silent if Path(name).stat().st_size] == []
