"""Builds the compiled core. AGW_BUILD chooses how: release (default), trace (line coverage), sanitize (ASan, UBSan)."""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

MODULES = (
    "circuit",
    "http1",
    "keys",
    "lane",
    "limit",
    "meter",
    "money",
    "peek",
    "reserve",
    "route",
    "sse",
    "steps",
    "subjects",
    "tokens",
)
MODE = os.environ.get("AGW_BUILD", "release")
BUILDS: dict[str, tuple[list[str], list[str]]] = {
    # -O3 takes half as long again to compile, and stands no better beside nginx (bench/results/limits.md).
    "release": (["-O2", "-g0", "-fno-plt", "-fvisibility=hidden"], []),
    "trace": (["-O1", "-g0"], []),
    "sanitize": (
        ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined"],
        ["-fsanitize=address,undefined"],
    ),
}
DIRECTIVES: dict[str, object] = {
    "language_level": 3,
    "embedsignature": True,
    "freethreading_compatible": False,
    "boundscheck": MODE != "release",
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": MODE != "release",
    "linetrace": MODE == "trace",
    "binding": True,
    "auto_pickle": False,  # nobody pickles them, and the methods for it are a tenth of the code
}
WARNINGS = [
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
    "-Wno-unused-function",
    "-Wno-missing-field-initializers",
    "-Wno-cast-function-type",
]


class ReleaseIsCompiled(build_ext):
    """A release is compiled or it fails to build: there is no silent slow variant."""

    def run(self) -> None:
        compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
        if not any(shutil.which(name) for name in (compiler.split()[0], "cc", "gcc", "clang")):
            sys.exit(
                "agw-proxy needs a C compiler to build its core, and none was found. "
                "Install one and try again: Debian/Ubuntu `apt-get install gcc python3-dev`, "
                "Fedora `dnf install gcc python3-devel`, Alpine `apk add gcc musl-dev python3-dev`, macOS `xcode-select --install`."
            )
        header = Path(sysconfig.get_path("include"), "Python.h")
        if not header.exists():
            sys.exit(
                f"agw-proxy needs Python's C headers to build its core, and {header} does not exist. "
                "Install them and try again: Debian/Ubuntu `apt-get install python3-dev`, Fedora `dnf install python3-devel`, Alpine `apk add python3-dev`."
            )
        super().run()

    def build_extension(self, ext: Extension) -> None:
        """Compile a module; an editable install takes the one in place where that is newer than all it is made of."""
        inplace = Path(ext.name.replace(".", "/") + str(sysconfig.get_config_var("EXT_SUFFIX")))
        made_of = [Path(path) for path in (*ext.sources, *ext.depends)]
        if not (self.editable_mode and inplace.exists() and all(newer(inplace, path) for path in made_of)):
            super().build_extension(ext)
            return
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(inplace, target)


def newer(made: Path, source: Path) -> bool:
    """Whether ``made`` is not older than ``source``."""
    return made.stat().st_mtime >= source.stat().st_mtime


def extensions() -> list[Extension]:
    if MODE not in BUILDS:
        sys.exit(f"AGW_BUILD is {MODE!r}; expected one of {', '.join(BUILDS)}")
    if sys.platform == "win32":
        sys.exit("agw-proxy runs on Linux (and macOS for development). On Windows use WSL or the container image.")
    from Cython.Build import cythonize  # noqa: PLC0415  after the checks that say what is missing

    compile_args, link_args = BUILDS[MODE]
    macros: list[tuple[str, str | None]] = (
        [("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1")] if MODE == "trace" else []
    )
    modules = [
        Extension(
            f"agw_proxy._hot.{name}",
            [f"ext/agw_proxy/_hot/{name}.pyx"],
            extra_compile_args=[*compile_args, *WARNINGS],
            extra_link_args=link_args,
            include_dirs=["ext/agw_proxy/_hot"],
            depends=[str(path) for path in sorted(Path("ext/agw_proxy/_hot").glob(f"{name}_*.h"))],
            libraries=["m"],
            define_macros=macros,
        )
        for name in MODULES
    ]
    return cythonize(
        modules,
        include_path=["ext"],
        build_dir=f"build/{MODE}/c",
        compiler_directives=DIRECTIVES,
        nthreads=os.cpu_count() or 1,
    )


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": ReleaseIsCompiled},
    options={"build_ext": {"parallel": os.cpu_count() or 1}},
)
