"""The house's rules that no linter knows, each a small function over a file's syntax tree.

A line that has to break one carries its reason: `# house: the thread ends here whatever happens`.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

# What a rule yields: the line, and what is wrong there.
Found = Iterator[tuple[int, str]]
MAX_LINES: Final = 400
# Folders below services/ that are no module; every other folder is one.
_NO_MODULES: Final = ("runtime", "cli")
_EXCUSE: Final = re.compile(r"#\s*house:\s*\w+")
_RUNTIME_CONTRACTS: Final = ("plexus.options", "plexus.errors", "plexus.gateway")
_ENVIRONMENT: Final = ("environ", "environb", "getenv", "getenvb", "putenv", "unsetenv")
_CANCELLING: Final = ("CancelledError", "BaseException")
_CATCHING_ALL: Final = ("Exception", "BaseException")


@dataclass(frozen=True)
class Rule:
    """Which files a rule is for, and what it finds in one."""

    applies: Callable[[PurePosixPath], bool]
    find: Callable[[PurePosixPath, ast.Module], Found]


def check(path: PurePosixPath, text: str) -> list[str]:
    """Every breach in one Python file, `path` being relative to the repository."""
    lines = text.splitlines()
    tree = ast.parse(text, str(path))
    return [
        f"{path}:{line}: {sentence} [{name}]"
        for name, rule in RULES.items()
        if rule.applies(path)
        for line, sentence in rule.find(path, tree)
        if not _EXCUSE.search(lines[line - 1])
    ]


def files_of_ours(root: Path) -> list[PurePosixPath]:
    """What git keeps or would keep, without what `.gitignore` names."""
    listed = subprocess.run(
        ["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=True,
    )
    names = [PurePosixPath(name) for name in listed.stdout.decode().split("\0") if name]
    return sorted({name for name in names if (root / name).is_file()})


def too_long(path: PurePosixPath, text: str) -> list[str]:
    """A file that does not fit a head."""
    count = len(text.splitlines())
    if path.suffix not in (".py", ".proto") or count <= MAX_LINES:
        return []
    return [f"{path}: {count} lines; split it, {MAX_LINES} is the most"]


def addresses(path: PurePosixPath, text: str) -> list[str]:
    """An address of a package registry, or a path of somebody's machine."""
    return [
        f"{path}:{number}: `{match[0]}` is true on one machine or network only"
        for number, line in enumerate(text.splitlines(), start=1)
        if (match := _ADDRESSES.search(line))
    ]


def generated(paths: list[PurePosixPath]) -> list[str]:
    """What git keeps of `generated/`, where a README alone may be kept."""
    return [
        f"{path}: it is made, not kept; `git rm --cached` it"
        for path in paths
        if path.parts[0] == "generated" and path != PurePosixPath("generated/README.md")
    ]


def _words() -> re.Pattern[str]:
    """Put together here, so that this file does not hold what it looks for."""
    registries = [
        *(
            "pypi" + ".org",
            "python" + "hosted",
            "registry." + "npm",
            "yarn" + "pkg",
            "art" + "ifactory",
        ),
        *("--index" + "-url", "--extra-index" + "-url", "--find" + "-links", "buf" + ".build"),
    ]
    homes = "|".join(("ro" + "ot", "ho" + "me", "Us" + "ers", "wo" + "rk"))
    return re.compile(rf"{'|'.join(map(re.escape, registries))}|(?<![\w.}}>/-])/({homes})/\w+")


_ADDRESSES: Final = _words()


def _imports(path: PurePosixPath, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every name that a file imports, in full: `from a.b import c` reads `a.b.c`."""
    package = list(path.parts[:-1])
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join((*above, *filter(None, [node.module])))
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def _within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _module(path: PurePosixPath) -> str | None:
    """The module that a file belongs to, by its folder."""
    if path.parts[0] != "services" or len(path.parts) < 3 or path.parts[1] in _NO_MODULES:
        return None
    return path.parts[1]


def _domain_is_pure(path: PurePosixPath, tree: ast.Module) -> Found:
    allowed = ("services.runtime.errors", f"services.{_module(path)}.domain")
    for line, name in _imports(path, tree):
        if name.split(".")[0] not in sys.stdlib_module_names and not _within(name, allowed):
            yield line, f"a domain is pure Python and imports no {name}; do this on a floor above"


def _module_stands_alone(path: PurePosixPath, tree: ast.Module) -> Found:
    allowed = ("services.runtime", f"services.{_module(path)}")
    for line, name in _imports(path, tree):
        if _within(name, ("services", "gateway")) and not _within(name, allowed):
            yield line, f"a module imports no {name}; speak to it through its contract"


def _runtime_knows_no_module(path: PurePosixPath, tree: ast.Module) -> Found:
    for line, name in _imports(path, tree):
        if _within(name, ("services", "gateway")) and not _within(name, ("services.runtime",)):
            yield line, f"the runtime imports no {name}; let the caller hand it in"
        if _within(name, ("plexus",)) and not _within(name, _RUNTIME_CONTRACTS):
            yield (
                line,
                f"the runtime knows options, errors and the gateway's questions, and no {name}",
            )


def _commit_is_the_runtimes(path: PurePosixPath, tree: ast.Module) -> Found:
    for node in ast.walk(tree):
        # With arguments it is a verb of some domain.
        if isinstance(node, ast.Call) and not node.args and not node.keywords:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            if called == "commit":
                yield node.lineno, "the runtime's unit of work commits, once, and nobody else does"


def _environment_is_settings(path: PurePosixPath, tree: ast.Module) -> Found:
    sentence = "the environment is read in settings.py; take a setting instead"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in _ENVIRONMENT:
            owner = _last_name(node.value)
            if owner == "os":
                yield node.lineno, sentence
    for line, name in _imports(path, tree):
        if name in {f"os.{each}" for each in _ENVIRONMENT}:
            yield line, sentence


def _servicer_catches_nothing(path: PurePosixPath, tree: ast.Module) -> Found:
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            yield node.lineno, "a servicer catches nothing; raise a PlexusError where it happens"
        if isinstance(node, ast.Call) and _last_name(node.func) == "suppress":
            yield node.lineno, "a servicer suppresses nothing; raise a PlexusError instead"


def _cancelling_goes_on(path: PurePosixPath, tree: ast.Module) -> Found:
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            caught = _caught(node)
            if (not caught or caught & {*_CANCELLING}) and not _raises(node.body):
                yield node.lineno, "this may swallow a cancellation; end it in `raise`"
        elif isinstance(node, ast.Call) and _suppressed(node) & {*_CANCELLING}:
            yield (
                node.lineno,
                "this swallows the caller's cancellation too; use `await asyncio.wait({task})`",
            )


def _failures_are_seen(path: PurePosixPath, tree: ast.Module) -> Found:
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            caught = _caught(node)
            if (not caught or caught & {*_CATCHING_ALL}) and all(map(_does_nothing, node.body)):
                yield node.lineno, "this hides every failure; name the one meant, or log it"
        elif isinstance(node, ast.Call) and _suppressed(node) & {*_CATCHING_ALL}:
            yield node.lineno, "this hides every failure; name the one meant"


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _caught(handler: ast.ExceptHandler) -> set[str]:
    """The names a handler catches; none for a bare one."""
    if handler.type is None:
        return set()
    parts = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return {_last_name(part) or "?" for part in parts}


def _suppressed(call: ast.Call) -> set[str]:
    """The names that `suppress(…)` keeps from being seen."""
    if _last_name(call.func) != "suppress":
        return set()
    return {_last_name(each) for each in call.args}


def _raises(body: list[ast.stmt]) -> bool:
    """Whether a handler's own code raises; a function within it does not count."""
    waiting: list[ast.AST] = [*body]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Raise):
            return True
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting.extend(ast.iter_child_nodes(node))
    return False


def _does_nothing(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Return):
        return statement.value is None or isinstance(statement.value, ast.Constant)
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    return isinstance(statement, ast.Pass | ast.Continue | ast.Break)


def _of_product(path: PurePosixPath) -> bool:
    return path.parts[0] in ("services", "gateway", "proto")


def _named(path: PurePosixPath, name: str) -> bool:
    """Whether a module's file has this role, or lies in a folder that has it."""
    return _module(path) is not None and (path.name == f"{name}.py" or name in path.parts[2:-1])


RULES: Final[dict[str, Rule]] = {
    "DOMAIN_IS_PURE": Rule(lambda path: _named(path, "domain"), _domain_is_pure),
    "MODULE_STANDS_ALONE": Rule(lambda path: _module(path) is not None, _module_stands_alone),
    "RUNTIME_KNOWS_NO_MODULE": Rule(
        lambda path: path.parts[:2] == ("services", "runtime"), _runtime_knows_no_module
    ),
    "COMMIT_IS_THE_RUNTIMES": Rule(
        lambda path: path.parts[0] == "services" and not path.match("services/runtime/db/*.py"),
        _commit_is_the_runtimes,
    ),
    "ENVIRONMENT_IS_SETTINGS": Rule(
        lambda path: path.parts[0] in ("services", "gateway") and path.name != "settings.py",
        _environment_is_settings,
    ),
    "SERVICER_CATCHES_NOTHING": Rule(
        lambda path: _named(path, "servicer"), _servicer_catches_nothing
    ),
    "CANCELLING_GOES_ON": Rule(_of_product, _cancelling_goes_on),
    "FAILURES_ARE_SEEN": Rule(_of_product, _failures_are_seen),
}
