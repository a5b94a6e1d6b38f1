"""Members of JSON trees of unknown good manners, read by type. Absent and null are one; the wrong type is Malformed.

``path``: where the tree stands in what the caller has sent, empty at its root; it becomes ``Malformed.param``.
"""

from agw_proxy.dialects.base import Malformed, Tree

MAX_INTEGER = 2.0**63
"""Of a float that is taken for an integer: beyond it nobody could write it again."""


def under(path: str, name: str) -> str:
    """The path of a member."""
    return f"{path}.{name}" if path else name


def text(tree: Tree, name: str, path: str = "") -> str | None:
    """A string."""
    found = tree.get(name)
    if found is None or isinstance(found, str):
        return found
    raise wrong(under(path, name), "a string", found)


def wanted(tree: Tree, name: str, path: str = "") -> str:
    """A string that has to be there."""
    found = text(tree, name, path)
    if found is None:
        raise Malformed(f"'{under(path, name)}' is missing.", under(path, name))
    return found


def integer(tree: Tree, name: str, path: str = "") -> int | None:
    """A whole number; 3.0 is one too."""
    found = tree.get(name)
    if found is None or type(found) is int:
        return found
    if isinstance(found, float) and found.is_integer() and abs(found) < MAX_INTEGER:
        return int(found)
    raise wrong(under(path, name), "an integer", found)


def number(tree: Tree, name: str, path: str = "") -> float | None:
    """A number."""
    found = tree.get(name)
    if found is None or (isinstance(found, int | float) and not isinstance(found, bool)):
        return found
    raise wrong(under(path, name), "a number", found)


def flag(tree: Tree, name: str, path: str = "") -> bool | None:
    """True or false."""
    found = tree.get(name)
    if found is None or isinstance(found, bool):
        return found
    raise wrong(under(path, name), "true or false", found)


def branch(tree: Tree, name: str, path: str = "") -> Tree | None:
    """An object."""
    found = tree.get(name)
    if found is None or isinstance(found, dict):
        return found
    raise wrong(under(path, name), "an object", found)


def branches(tree: Tree, name: str, path: str = "") -> list[Tree]:
    """A list of objects; absent is empty."""
    found = tree.get(name)
    if found is None:
        return []
    if not isinstance(found, list):
        raise wrong(under(path, name), "a list", found)
    for at, each in enumerate(found):
        if not isinstance(each, dict):
            raise wrong(f"{under(path, name)}[{at}]", "an object", each)
    return found


def words(tree: Tree, name: str, path: str = "") -> list[str]:
    """A list of strings; absent is empty."""
    found = tree.get(name)
    if found is None:
        return []
    if not isinstance(found, list):
        raise wrong(under(path, name), "a list", found)
    for at, each in enumerate(found):
        if not isinstance(each, str):
            raise wrong(f"{under(path, name)}[{at}]", "a string", each)
    return found


def wrong(where: str, expected: str, found: object) -> Malformed:
    """What to raise for a member of the wrong type."""
    kinds = {
        str: "a string",
        bool: "true or false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    came = "null" if found is None else kinds.get(type(found), "something else")
    return Malformed(f"'{where}' has to be {expected}, and is {came}.", where)
