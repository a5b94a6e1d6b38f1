"""Modules in private packages: two of one name beside each other, none that shadows, none from outside the folder."""

import sys
from pathlib import Path

import pytest

from agw_proxy.tools.modules import PREFIX, forget, import_file, new_package


def test_two_folders_may_be_called_alike_and_shadow_nothing(tmp_path: Path) -> None:
    made = []
    for number in (1, 2):
        root = tmp_path / str(number)
        (root / "json").mkdir(parents=True)
        (root / "json" / "words.py").write_text("from .more import NUMBER\nimport json\nCOPY = json.loads('[1]')\n")
        (root / "json" / "more.py").write_text(f"NUMBER = {number}\n")
        made.append((package := new_package(), import_file(package, root, "json.words")))
    assert [module.NUMBER for _, module in made] == [1, 2]
    assert [module.COPY for _, module in made] == [[1], [1]]
    assert not list(tmp_path.rglob("*.pyc"))
    for package, _ in made:
        forget(package)
    assert not [name for name in sys.modules if name.startswith(PREFIX) and name.split(".")[0] in dict(made)]


def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret.py").write_text("VALUE = 1\n")
    (tmp_path / "root" / "inside.py").symlink_to(tmp_path / "secret.py")
    package = new_package()
    with pytest.raises(ImportError, match="link leads out"):
        import_file(package, (tmp_path / "root").resolve(), "inside")
    forget(package)
