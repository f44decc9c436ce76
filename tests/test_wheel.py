"""The distribution: a wheel with everything in it, that installs into a clean environment and works from elsewhere.

The clean environment is a new venv with nothing but what pip puts there for the wheel and its extra pdfium, at the
*lowest* versions that pyproject.toml admits (the floors), so that both ends are tested: `make test` runs on the pins of
constraints.txt. It takes pip's own cache, and about a minute. Floors are those of the oldest Python that is supported;
on another one, which may lack wheels for them, the pins are installed instead.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
NAME = re.compile(r"[\w.-]+")
LEFT_OUT = {"rapidocr"}  # 200 MB, for one baseline: make install does without


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return {normal(a): b for a, b in (line.split("==") for line in lines if line and not line.startswith("#"))}


def floors() -> dict[str, str]:
    """name -> lowest version, of the dependencies and what development needs."""
    found = {}
    extras = [r for group in PROJECT["project"]["optional-dependencies"].values() for r in group]
    for requirement in [*PROJECT["project"]["dependencies"], *extras, *PROJECT["dependency-groups"]["dev"]]:
        floor = re.search(r">=\s*([\w.]+)", requirement.split(";")[0])
        assert floor, f"{requirement} has no lowest version"
        found[normal(NAME.match(requirement)[0])] = floor[1]
    return found


def numbers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text.split("+")[0])]


def test_constraints_pin_every_direct_dependency_at_or_above_its_floor_and_hold_here():
    pinned = pins()
    for name, floor in floors().items():
        assert name in pinned, f"{name} is not in constraints.txt"
        assert numbers(pinned[name]) >= numbers(floor), f"{name}: constraints.txt has {pinned[name]}, below {floor}"
        if name not in LEFT_OUT:
            assert numbers(version(name)) == numbers(pinned[name]), f"{name} {version(name)} is installed; make install"
    assert pinned["torch"] == "2.13.0"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, check=False
    )
    names = listed.stdout.decode().split("\0") if listed.returncode == 0 else []
    names = names or [str(p.relative_to(ROOT)) for p in ROOT.rglob("*") if p.is_file() and ".venv" not in p.parts]
    for name in filter(None, names):
        if (ROOT / name).is_file() and not name.startswith(("samples/", "benchmarks/", "tests/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", "-w", folder, source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("octavo-*.whl")
    return source, built


def test_the_wheel_holds_every_file_of_the_packages(wheel):
    source, built = wheel
    inside = set(zipfile.ZipFile(built).namelist())
    for package in ("index", "ingest", "retriever"):
        files = {str(p.relative_to(source)) for p in (source / package).rglob("*") if p.is_file()}
        assert files, package
        assert not files - inside, "not in the wheel; see package-data in pyproject.toml"
        assert f"{package}/py.typed" in inside
    top = {name.split("/")[0] for name in inside}
    assert top == {"index", "ingest", "retriever", f"octavo-{version('octavo')}.dist-info"}
    assert any(name.endswith("licenses/LICENSE") for name in inside)
    assert built.stat().st_size < 50 * 2**20


KERNELS = "index/native/kernels.so"


def test_the_kernels_are_compiled_into_a_wheel_for_every_python_of_the_platform(wheel):
    if sys.platform == "win32" or not (shutil.which("c++") or shutil.which("g++")):
        pytest.skip("no C++ compiler here")
    assert KERNELS in zipfile.ZipFile(wheel[1]).namelist()
    assert "-py3-none-" in wheel[1].name and "-any" not in wheel[1].name


def test_without_a_compiler_the_wheel_is_built_and_scores_in_numpy(wheel, tmp_path):
    shutil.rmtree(wheel[0] / "build", ignore_errors=True)
    absent = {"CC": "/absent/cc", "CXX": "/absent/c++"}
    command = [sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", "-w", tmp_path, wheel[0]]
    done = subprocess.run(command, env=os.environ | absent, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = tmp_path.glob("octavo-*.whl")
    zipfile.ZipFile(built).extractall(tmp_path / "lib")
    assert not (tmp_path / "lib" / KERNELS).exists()
    code = (
        "import numpy as np; from index import native; from index.ragged import Ragged\n"
        "page = np.array([[3, 4], [5, 0]], np.float32); query = Ragged(page[:1], np.array([0, 1]))\n"
        "at = np.array([page.ctypes.data], np.uint64)\n"
        "print(native.available(), native.maxsim(query, at, np.array([2]), 'fp32', 2)[0, 0], native.__file__)\n"
        "from retriever import doctor\n"
        "print(*[f.state for f in doctor._kernels()])"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "lib")}
    command = [sys.executable, "-W", "ignore", "-c", code]
    out = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert out.stdout.split() == ["None", "25.0", str(tmp_path / "lib" / "index" / "native" / "__init__.py"), "warning"]


@pytest.fixture(scope="module")
def clean(wheel, tmp_path_factory):
    """The python of an environment that holds the wheel and what it asks for, nothing else."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    constraints = folder / "constraints.txt"
    wanted = pins() | floors() if sys.version_info[:2] == (3, 11) else pins()
    extra = PROJECT["project"]["optional-dependencies"]["pdfium"]
    direct = {normal(NAME.match(r)[0]) for r in [*PROJECT["project"]["dependencies"], *extra]}
    constraints.write_text("".join(f"{name}=={wanted[name]}\n" for name in direct))
    install = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-compile", "-c", constraints]
    done = subprocess.run([*install, f"{wheel[1]}[pdfium]"], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    yield python
    shutil.rmtree(folder)  # over a gigabyte


@pytest.fixture
def run(tmp_path):
    """Run a command in an empty folder, with nothing of ours in the environment; its output."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH" and not k.startswith("OCTAVO_")}

    def run(*args: str | Path) -> str:
        done = subprocess.run(args, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


QUESTION = "Why did the airplane leave the snow covered runway?"


@pytest.mark.slow
def test_it_adds_and_searches_from_another_folder_on_the_lowest_versions(clean, run, tmp_path):
    where = run(clean, "-c", "import retriever, index, ingest; print(retriever.__file__)")
    assert Path(where.strip()).is_relative_to(clean.parents[1])
    octavo = clean.with_name("octavo")
    report = json.loads(run(octavo, "add", ROOT / "samples" / "scanned-NTSB-report.pdf", "--index", "./here", "--json"))
    assert report["pages"] == 5 and not report["failed"]
    hits = json.loads(run(octavo, "search", QUESTION, "--index", "./here", "--json"))["hits"]
    assert hits[0]["page"] == 1 and hits[0]["path"].endswith("scanned-NTSB-report.pdf")
    assert "runway" in hits[0]["snippet"]
    run(octavo, "show", hits[0]["document"], "1", "--query", QUESTION, "-o", "heat.png", "--index", "./here")
    assert (tmp_path / "heat.png").read_bytes().startswith(b"\x89PNG")
    optional = ("triton", "mteb", "onnx", "pyarrow", "datasets", "sentence_transformers")
    every = (  # kernels.so is a library, not a module; what is optional may be missing, and nothing else
        "import importlib, pkgutil\n"
        "for name in ('index', 'ingest', 'retriever'):\n"
        "    for module in pkgutil.walk_packages(importlib.import_module(name).__path__, name + '.'):\n"
        "        if module.name.endswith(('__main__', 'native.kernels')): continue\n"
        "        try: importlib.import_module(module.name)\n"
        "        except ModuleNotFoundError as error:\n"
        f"            if error.name not in {optional!r}: raise\n"
        "print('imported')"
    )
    assert run(clean, "-W", "ignore", "-c", every).strip() == "imported"


@pytest.mark.slow
def test_it_works_without_the_agpl_renderer_and_searches_without_torch(clean, run):
    run(clean, "-m", "pip", "uninstall", "-qq", "-y", "pymupdf")
    sample = ROOT / "samples" / "scanned-NTSB-report.pdf"
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from retriever import Retriever\n"
        "with Retriever.open('there', renderer='pdfium') as retriever:\n"
        f"    report = retriever.add({str(sample)!r})\n"
        f"    print(report.pages, retriever.search({QUESTION!r})[0].page)"
    )
    assert run(clean, "-c", code).split() == ["5", "1"]
    assert "pymupdf" in run(clean.with_name("octavo"), "doctor", "--index", "./there")
