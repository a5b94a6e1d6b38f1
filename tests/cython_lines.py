"""Coverage plugin: lines of .pyx, .pxi and .pxd files, for a build whose C files are not beside their sources.

Cython's own plugin looks for ``limit.c`` next to ``limit.pyx``. Ours are in ``build/trace/c``, so that no generated
file lies between the sources, and name their sources relative to ``ext``. This plugin knows both, and leaves the rest
to Cython's.
"""

import re
from pathlib import Path

from Cython.Coverage import Plugin

SOURCES = Path("ext").resolve()
GENERATED = Path("build/trace/c/ext").resolve()
SIGNATURE = re.compile(r"\s*cdef\s[^=]*\(")  # nothing runs on the line that declares a C function


class Lines(Plugin):
    """Cython's plugin with another idea of where the files are."""

    def _find_source_files(self, filename: str) -> tuple[str | None, str | None]:
        """Give the C file that a traced file was compiled to (an included one: that of the module it belongs to)."""
        path = Path(filename)
        if not path.is_relative_to(SOURCES):
            return None, None
        module = GENERATED / path.relative_to(SOURCES)
        # limit_table.pxi belongs to limit.c
        candidates = [module.with_suffix(".c"), module.with_name(f"{module.stem.partition('_')[0]}.c")]
        return next((str(c_file) for c_file in candidates if c_file.is_file()), None), None

    def _parse_cfile_lines(self, c_file: str) -> dict[str, dict[int, str]]:
        """Give the executable lines by source file, relative to the working directory as the tracer names them."""
        found: dict[str, dict[int, str]] = super()._parse_cfile_lines(c_file)  # type: ignore[no-untyped-call]
        ours = {name: f"{SOURCES.name}/{name}" for name in found if (SOURCES / name).is_file()}
        for name, traced in ours.items():
            self._excluded_lines_map[traced] = self._excluded_lines_map.get(name, set())
        return {
            ours.get(name, name): {line: text for line, text in lines.items() if SIGNATURE.match(text) is None}
            for name, lines in found.items()
        }


def coverage_init(registry: object, _options: dict[str, str]) -> None:
    """Called by coverage with its plugin registry (coverage's plugin API)."""
    plugin = Lines()
    registry.add_configurer(plugin)  # type: ignore[attr-defined]  # coverage's registry class is private
    registry.add_file_tracer(plugin)  # type: ignore[attr-defined]  # likewise
