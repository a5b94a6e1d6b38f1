"""The house rules that are about files and imports: floors, names, and what belongs to a compiled module."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXT = ROOT / "ext" / "agw_proxy" / "_hot"
CIMPORT = re.compile(r"^\s*(?:from\s+(?P<from>\S+)\s+cimport\s|cimport\s+(?P<plain>[^#\n]+))", re.MULTILINE)
OURS = ("agw_proxy", "bench", "examples", "ext", "tests")
FOREIGN = ("libc", "posix", "cpython", "cython")
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc"}
MAX_LINES = 420  # the house says about 400


def sources(*patterns: str, under: tuple[str, ...] = OURS) -> list[Path]:
    return [path for folder in under for pattern in patterns for path in sorted((ROOT / folder).rglob(pattern))]


def cimported(path: Path) -> list[str]:
    """The modules that a Cython source names after ``cimport``, or before it."""
    found: list[str] = []
    for match in CIMPORT.finditer(path.read_text()):
        if match["from"]:
            found.append(match["from"])
        else:
            found += [name.split()[0] for name in match["plain"].split(",")]
    return found


def modules_in_setup() -> list[str]:
    listed = re.search(r"^MODULES = \(([^)]*)\)", (ROOT / "setup.py").read_text(), re.MULTILINE)
    assert listed is not None
    return re.findall(r'"(\w+)"', listed[1])


def test_import_contracts_hold() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", sources("*.pyx", "*.pxd", "*.pxi", under=("ext",)), ids=lambda path: path.name)
def test_compiled_modules_cimport_each_other_and_c_only(path: Path) -> None:
    """import-linter sees Python imports; the compiled modules are the ground floor, and stand on nothing of ours."""
    allowed = {module.stem for module in EXT.glob("*.pxd")}
    for name in cimported(path):
        if name.split(".")[0] in FOREIGN:
            continue
        module = name.removeprefix("agw_proxy._hot.").removeprefix(".")
        assert module in allowed, f"{path.name} cimports {name}"


@pytest.mark.parametrize("path", sources("*.pyx", "*.pxi", under=("ext",)), ids=lambda path: path.name)
def test_compiled_modules_import_the_standard_library_only(path: Path) -> None:
    found = re.findall(r"^\s*(?:from\s+(\S+)\s+import\s|import\s+(\S+))", path.read_text(), re.MULTILINE)
    roots = {(one or other).split(".")[0] for one, other in found}
    assert roots <= set(sys.stdlib_module_names), f"{path.name} imports {roots - set(sys.stdlib_module_names)}"


def test_the_cimport_reader_sees_every_form(tmp_path: Path) -> None:
    source = tmp_path / "x.pyx"
    source.write_text(
        "cimport cython\ncimport a.b as c, d\n    from .limit cimport Grant\nfrom libc.string cimport (\n"
    )
    assert cimported(source) == ["cython", "a.b", "d", ".limit", "libc.string"]


def test_every_compiled_module_has_source_contract_and_stub() -> None:
    listed = sorted(modules_in_setup())
    assert listed == sorted(path.stem for path in EXT.glob("*.pyx"))
    for name in listed:
        assert (EXT / f"{name}.pxd").is_file(), f"{name}.pxd is missing"
        assert (ROOT / "agw_proxy" / "_hot" / f"{name}.pyi").is_file(), f"{name}.pyi is missing"


def test_stubs_belong_to_a_compiled_module() -> None:
    stubs = {path.stem for path in (ROOT / "agw_proxy" / "_hot").glob("*.pyi")}
    assert stubs == set(modules_in_setup())


def test_files_are_named_by_what_they_are_about() -> None:
    vague = [path for path in sources("*.py", "*.pyx", "*.pxd", "*.pxi") if path.stem.strip("_") in VAGUE]
    assert vague == []


def test_files_fit_in_a_head() -> None:
    files = sources("*.py", "*.pyx", "*.pxd", "*.pxi", "*.pyi", "*.h")
    long = {str(path.relative_to(ROOT)): lines for path in files if (lines := path.read_text().count("\n")) > MAX_LINES}
    assert long == {}


def test_locks_have_a_hash_for_every_requirement() -> None:
    for name in ("requirements.lock", "requirements-dev.lock", "requirements-build.lock"):
        entries = re.split(r"\n(?=[a-zA-Z])", (ROOT / name).read_text())
        pinned = [entry for entry in entries if "==" in entry.partition("\n")[0]]
        assert pinned, name
        assert [entry.split()[0] for entry in pinned if "--hash=sha256:" not in entry] == [], name


def test_locks_agree_with_each_other() -> None:
    def pins(name: str) -> dict[str, str]:
        return dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))

    dev = pins("requirements-dev.lock")
    for name in ("requirements.lock", "requirements-build.lock"):
        assert {key: dev.get(key) for key in pins(name)} == pins(name), name


@pytest.mark.full
@pytest.mark.timeout(600)
def test_the_wheel_holds_what_is_needed_and_no_code_that_runs_by_itself(tmp_path: Path) -> None:
    """A .pth file in a wheel would run at every start of the interpreter."""
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, str(ROOT)], check=True, capture_output=True, timeout=500
    )
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert [name for name in names if name.endswith((".pth", ".pyx", ".c"))] == []
    assert [name for name in names if name.startswith(("tests/", "bench/", "ext/"))] == []
    for module in modules_in_setup():
        assert [name for name in names if name.startswith(f"agw_proxy/_hot/{module}.") and name.endswith(".so")]
        assert f"agw_proxy/_hot/{module}.pyi" in names
    assert "agw_proxy/policy/prices.yaml" in names
    assert "agw_proxy/py.typed" in names
