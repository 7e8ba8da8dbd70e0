"""The walls between the modules of crm_guard, read from the source: nothing is imported to check them."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).parents[1] / "crm_guard"

# Which parts of the package each part may import. A part is a module or a package directly below crm_guard; `""` is
# `crm_guard/__init__.py`, which loads the public names lazily and so knows them all.
READING = {"_base", "settings", "remediation", "outcomes", "row_results", "events", "_protocol"}
BELOW_TRANSPORT = READING | {"clock", "locks", "remaining", "report", "errors", "events"}
BELOW_ADAPTER = BELOW_TRANSPORT | {"_transport"}
BELOW_MOUNTING = BELOW_ADAPTER | {"adapter", "instrumentation"}
BELOW_BULK = BELOW_MOUNTING | {"mounting", "_bulk"}
BELOW_TESTING = BELOW_BULK | {"bulk", "simulator", ""}
WALLS: Mapping[str, set[str]] = {
    "_base": set(),
    "remediation": {"_base"},
    "simulator": set(),
    "settings": {"_base"},
    "remaining": {"_base"},
    "clock": {"_base"},
    "outcomes": {"_base", "remediation"},
    "row_results": {"outcomes"},
    "events": {"outcomes", "remediation"},
    "locks": {"clock", "_base", "settings"},
    "_protocol": READING - {"_protocol"},
    "report": READING | {"remaining"},
    "errors": {"report", "settings", "outcomes"},
    "_transport": BELOW_TRANSPORT,
    "adapter": BELOW_ADAPTER,
    "instrumentation": {"_transport", "events", "outcomes", "_base", ""},
    "mounting": BELOW_MOUNTING,
    "_bulk": BELOW_BULK - {"_bulk"},
    "bulk": BELOW_BULK,
    "_testing": {"clock", "locks", "settings", "simulator"},
    "testing": BELOW_TESTING | {"_testing"},
    "pytest_plugin": {"testing", "_testing", "mounting", "settings", "simulator"},
    "cli": BELOW_TESTING | {"testing"},
    "": BELOW_TESTING | {"testing", "cli"},
}

# Modules that would bring I/O, time or randomness into the protocol.
IMPURE = {
    "requests",
    "urllib3",
    "time",
    "random",
    "threading",
    "logging",
    "socket",
    "os",
    "http",
    "asyncio",
}


class Import(NamedTuple):
    """One imported module or name, at module level, in a function, or for type checkers only."""

    importer: str
    line: int
    module: str
    name: str | None = None

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.module}{f' ({self.name})' if self.name else ''}"


class Tree:
    """The modules of a package, and what they import."""

    def __init__(self, root: Path) -> None:
        self.package = root.name
        self._files = {self._module(root, path): path for path in sorted(root.rglob("*.py"))}
        self._read: dict[str, list[Import]] = {}

    @property
    def modules(self) -> Sequence[str]:
        return list(self._files)

    def imports(self, part: str | None = None) -> Iterator[Import]:
        """Yield the imports of all modules, or of those of one part."""
        for module in self._files:
            if part is None or self.part_of(module) == part:
                yield from self._imports_of(module)

    def own_imports(self, part: str | None = None) -> Iterator[Import]:
        """Yield those that stay within the package."""
        return (found for found in self.imports(part) if found.module.split(".")[0] == self.package)

    def part_of(self, module: str) -> str:
        """Return the top-level part that a module belongs to; the empty string for the package itself."""
        return module.split(".")[1] if "." in module else ""

    def target_of(self, found: Import) -> str:
        """Return the module of the package that an import loads."""
        submodule = f"{found.module}.{found.name}"
        return submodule if submodule in self._files else found.module

    def _module(self, root: Path, path: Path) -> str:
        parts = path.relative_to(root.parent).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def _imports_of(self, module: str) -> Sequence[Import]:
        if module not in self._read:
            nodes = ast.walk(ast.parse(self._files[module].read_text(encoding="utf-8")))
            self._read[module] = [found for node in nodes for found in self._imported(module, node)]
        return self._read[module]

    def _imported(self, module: str, node: ast.AST) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(module, node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = self._absolute(module, node)
            yield from (Import(module, node.lineno, base, alias.name) for alias in node.names)

    def _absolute(self, module: str, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        is_package = self._files[module].name == "__init__.py"
        above = module.split(".")[: len(module.split(".")) - node.level + is_package]
        return ".".join([*above, *([node.module] if node.module else [])])


def cycle(tree: Tree) -> list[str]:
    """Return the modules of one import cycle, or an empty list."""
    edges: dict[str, set[str]] = {module: set() for module in tree.modules}
    for found in tree.own_imports():
        target = tree.target_of(found)
        if target != found.importer:
            edges[found.importer].add(target)
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def breaches(tree: Tree, part: str, allowed: set[str]) -> list[str]:
    """Return the imports of a part that its wall does not allow."""
    inside = allowed | {part}
    return [str(found) for found in tree.own_imports(part) if tree.part_of(tree.target_of(found)) not in inside]


def impurities(tree: Tree, part: str) -> list[str]:
    """Return the imports of a part that bring I/O, time or randomness."""
    return [str(found) for found in tree.imports(part) if found.module.split(".")[0] in IMPURE]


def intrusions(tree: Tree) -> list[str]:
    """Return imports of private names from another module, and of private modules from another package.

    A package below crm_guard with an underscore is shared by all of crm_guard; what it contains has no underscores.
    """
    return [str(found) for found in tree.own_imports() if _intrudes(tree, found)]


def _intrudes(tree: Tree, found: Import) -> bool:
    target = tree.target_of(found)
    if target == found.module and found.name and _is_private(found.name):
        return found.importer != target
    return any(
        _is_private(step) and not _is_within(found.importer, ".".join(target.split(".")[: depth + 1]))
        for depth, step in enumerate(target.split("."))
        if depth > 1
    )


def _is_within(module: str, package: str) -> bool:
    """Return whether a module lies beside or below a private module."""
    parent = package.rpartition(".")[0]
    return module == parent or module.startswith(f"{parent}.")


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@pytest.fixture(scope="module")
def tree() -> Tree:
    return Tree(ROOT)


def test_there_is_no_import_cycle(tree: Tree) -> None:
    assert not cycle(tree)


@pytest.mark.parametrize("part", WALLS)
def test_a_part_imports_only_what_its_wall_allows(tree: Tree, part: str) -> None:
    assert not breaches(tree, part, WALLS[part])


def test_every_part_has_a_wall(tree: Tree) -> None:
    assert {tree.part_of(module) for module in tree.modules} <= set(WALLS)


def test_the_protocol_imports_no_transport_clock_or_randomness(tree: Tree) -> None:
    assert not impurities(tree, "_protocol")


def test_nobody_imports_a_private_name_of_another_module(tree: Tree) -> None:
    assert not intrusions(tree)


class TestTheCheckers:
    """Each of them finds what it looks for."""

    @pytest.fixture
    def make(self, tmp_path: Path):
        def make(**sources: str) -> Tree:
            for name, source in {"__init__": "", **sources}.items():
                path = tmp_path / "pkg" / f"{name.replace('__in__', '/')}.py"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(source, encoding="utf-8")
            return Tree(tmp_path / "pkg")

        return make

    @pytest.mark.parametrize(
        "back",
        [
            "import pkg.a",
            "from pkg import a",
            "from .a import x",
            "def f():\n    from pkg.a import x",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pkg.a import x",
        ],
    )
    def test_a_cycle_is_found_however_it_is_written(self, make, back) -> None:
        assert {"pkg.a", "pkg.b"} <= set(cycle(make(a="from pkg.b import y", b=back)))
        assert not cycle(make(a="from pkg.b import y", b="import json"))

    def test_a_breach_is_named_with_its_line(self, make) -> None:
        tree = make(low="import json\n\ndef f():\n    from pkg.high import x\n", high="")
        assert breaches(tree, "low", set()) == ["pkg.low:4 imports pkg.high (x)"]
        assert breaches(tree, "low", {"high"}) == []

    def test_a_breach_of_a_package_is_found_in_each_of_its_modules(self, make) -> None:
        tree = make(low__in____init__="", low__in__deep="from ..high import x\nfrom . import deep", high="")
        assert breaches(tree, "low", set()) == ["pkg.low.deep:1 imports pkg.high (x)"]

    def test_the_package_itself_is_behind_the_wall_too(self, make) -> None:
        assert breaches(make(low="from pkg import Public"), "low", {"high"}) == ["pkg.low:1 imports pkg (Public)"]

    @pytest.mark.parametrize(
        "source", ["import http.client", "from os import environ", "def f():\n    import time"]
    )
    def test_an_impure_import_is_found(self, make, source) -> None:
        assert len(impurities(make(pure=source), "pure")) == 1
        assert not impurities(make(pure="import json, httpx"), "pure")

    def test_a_private_name_is_found_and_a_shared_package_is_not(self, make) -> None:
        tree = make(
            a="from pkg.b import _hidden\nfrom pkg._shared.c import shown\nfrom pkg.b import __all__",
            b="",
            _shared__in____init__="",
            _shared__in__c="",
        )
        assert intrusions(tree) == ["pkg.a:1 imports pkg.b (_hidden)"]

    def test_a_private_module_is_for_its_own_package(self, make) -> None:
        tree = make(a="from pkg.b._c import x", b__in____init__="from pkg.b._c import x", b__in___c="")
        assert intrusions(tree) == ["pkg.a:1 imports pkg.b._c (x)"]
