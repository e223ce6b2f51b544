"""Where a result comes from: the version of its code, of its libraries, and of its repository.

Definition.  The code version of a study is

    sha256( N(study file), N(m_1), ..., N(m_n) ),

where N is a file's syntax tree without comments, docstrings and layout, and m_1 ... m_n are the
modules of this package that the study imports, directly or through each other.  Two versions:

    of the outputs      the whole study file, and all modules it reaches
    of the computation  only the statements of the study file that `compute` reaches by name, and
                        the modules reached from those

so a new plot title draws again from the cache, and a changed formula makes both stale.

Conventions.  The graph is read from the source, imports inside functions included, and nothing is
executed.  `import diffscience as ds` counts as the modules that define the names ds.X in use; a
use that cannot be resolved counts as the whole package.  `study` (seeds and cells) always counts,
but not what it imports: the runner, sweeps and engines move bytes and decide no number.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import platform
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import diffscience

__all__ = ["code_version", "commit", "fingerprint", "keyword", "packages", "versions"]

_PACKAGE = Path(__file__).resolve().parent
_NAME = "diffscience"
_LEAVES = frozenset({"study", "sweep", "plots"})  # counted, but their own imports are not followed
_DYNAMIC = frozenset({"eval", "exec", "globals", "locals", "vars"})  # names are not enough then

COMPUTING = ("numpy", "scipy", "torch", "torchsde", "torchdiffeq", "numba", "POT", "scikit-learn")
DRAWING = ("matplotlib", "pandas", "pillow", "tabulate", "pyarrow")

Function = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


# ------------------------------------------------------------------ normal form

_EMPTY = "str:''"


def _normal(node: Any) -> str:
    """A syntax tree as text that Python versions 3.10 to 3.13 agree on.

    ast.dump and ast.unparse change between versions; empty fields are what they disagree about.
    """
    if isinstance(node, ast.Constant):
        return f"{type(node.value).__name__}:{node.value!r}"
    if isinstance(node, ast.JoinedStr):  # Python 3.12 adds empty texts to formatted strings
        parts = [_normal(part) for part in node.values]
        return f"JoinedStr([{','.join(part for part in parts if part != _EMPTY)}])"
    if isinstance(node, ast.AST):
        skip = ("ctx", "kind", "type_comment")
        fields = [(name, value) for name, value in ast.iter_fields(node) if name not in skip]
        kept = [f"{k}={_normal(v)}" for k, v in fields if v is not None and v != []]
        return f"{type(node).__name__}({','.join(kept)})"
    if isinstance(node, list):
        return f"[{','.join(map(_normal, node))}]"
    return repr(node)


def _parse(source: str) -> list[ast.stmt]:
    """Statements of a file, without bare strings and with one name per top-level import."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            # Not every node has a body; this one does.
            node.body = [item for item in body if not _is_text(item)]  # type: ignore[attr-defined]
    return [part for statement in tree.body for part in _single(statement)]


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _single(node: ast.stmt) -> Iterator[ast.stmt]:
    if isinstance(node, ast.Import):
        yield from (ast.Import([alias]) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (ast.ImportFrom(node.module, [alias], node.level) for alias in node.names)
    else:
        yield node


# ------------------------------------------------------------------ what compute reaches


def keyword(statements: Iterable[ast.stmt], name: str, position: int) -> ast.expr | None:
    """The expression given for one argument in the file's `STUDY = Study(...)`, if it is there."""
    for node in statements:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        call = getattr(node, "value", None)
        if not isinstance(call, ast.Call):
            continue
        if any(isinstance(target, ast.Name) and target.id == "STUDY" for target in targets):
            for pair in call.keywords:
                if pair.arg == name:
                    return pair.value
            return call.args[position] if len(call.args) > position else None
    return None


def _bound(node: ast.stmt) -> set[str]:
    """Names that a top-level statement binds."""
    if isinstance(node, Function):
        return {node.name}
    names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and _stores(n)}
    for inner in ast.walk(node):
        if isinstance(inner, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name.split(".")[0] for alias in inner.names}
        elif isinstance(inner, Function):
            names.add(inner.name)
    return names


def _stores(name: ast.Name) -> bool:
    return isinstance(name.ctx, (ast.Store, ast.Del))


def _loaded(node: ast.AST) -> set[str]:
    names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    # A quoted annotation names things too.
    texts = (n.value for n in ast.walk(node) if isinstance(n, ast.Constant))
    return names | {text for text in texts if isinstance(text, str) and text.isidentifier()}


def _is_main_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "__name__" in _loaded(node.test)


def _reached(statements: list[ast.stmt]) -> list[ast.stmt]:
    """The statements that the computation depends on; all of them if that cannot be told."""
    roots = [keyword(statements, *at) for at in (("compute", 2), ("config", 0), ("quick", 1))]
    if roots[0] is None:
        return statements
    needed = set().union(*(_loaded(root) for root in roots if root is not None))
    kept: set[int] = set()
    while True:
        new = {
            i
            for i, node in enumerate(statements)
            if i not in kept
            and not _is_main_guard(node)
            and (not _bound(node) or "*" in _bound(node) or _bound(node) & needed)
        }
        if not new:
            break
        kept |= new
        needed = needed.union(*(_loaded(statements[i]) for i in new))
    if needed & _DYNAMIC:
        return statements
    return [*(statements[i] for i in sorted(kept)), ast.Expr(roots[0])]


# ------------------------------------------------------------------ the import graph


def _modules() -> set[str]:
    return {path.stem for path in _PACKAGE.glob("*.py")} - {"__init__", "__main__"}


def _resolve(name: str) -> set[str]:
    """The modules that the attribute diffscience.NAME can stand for."""
    exports: dict[str, str] = getattr(diffscience, "_EXPORTS", {})
    if name in exports:
        return {exports[name].rpartition(".")[2]}
    if name in _modules():
        return {name}
    return set() if name.startswith("__") else _modules()


def _imported(nodes: Iterable[ast.AST], everywhere: Iterable[ast.AST]) -> set[str]:
    """Modules of the package that `nodes` use; `everywhere` is where the package is given names."""
    aliases = {
        alias.asname or _NAME
        for tree in everywhere
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == _NAME or (alias.name.startswith(f"{_NAME}.") and not alias.asname)
    }
    found: set[str] = set()
    for tree in nodes:
        inner = {
            id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Attribute)
        }  # names that stand before a dot
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.startswith(f"{_NAME}."):
                        found |= _resolve(alias.name.split(".")[1])
            elif isinstance(node, ast.ImportFrom):
                found |= _imported_from(node)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                if node.value.id in aliases:
                    found |= _resolve(node.attr)
            elif isinstance(node, ast.Name) and node.id in aliases and id(node) not in inner:
                found |= _modules()  # the package itself is passed on: anything may be used
            elif isinstance(node, ast.Constant) and str(node.value).startswith(f"{_NAME}."):
                found |= {str(node.value).split(".")[1]} & _modules()  # import_module("...")
    return found


def _imported_from(node: ast.ImportFrom) -> set[str]:
    path = (node.module or "").split(".")
    if node.level == 0 and path[0] != _NAME:
        return set()
    path = [part for part in (path[1:] if node.level == 0 else path) if part]
    if path:
        return _resolve(path[0])
    return set().union(*(_resolve(alias.name) for alias in node.names))


@functools.lru_cache(maxsize=256)
def _read_module(path: Path, _changed: tuple[int, int]) -> tuple[str, frozenset[str]]:
    """(normal form, modules imported) of one module of the package."""
    statements = _parse(path.read_text(encoding="utf-8"))
    return _normal(statements), frozenset(_imported(statements, statements))


def _closure(start: set[str]) -> dict[str, str]:
    """Name -> normal form of the modules reached from `start`."""
    forms: dict[str, str] = {}
    queue = set(start)
    while queue:
        name = queue.pop()
        path = _PACKAGE / f"{name}.py"
        if name in forms or not path.exists():
            continue
        stat = path.stat()
        forms[name], inner = _read_module(path, (stat.st_mtime_ns, stat.st_size))
        if name not in _LEAVES:
            queue |= inner - forms.keys()
    return forms


def code_version(source: str, *, computation: bool = False) -> str:
    """The version of the code behind a study: 64 hexadecimal digits (see the module's top).

    Parameters
    ----------
    source : text of the study file.
    computation : leave out what only draws and tabulates.

    Raises SyntaxError if `source` is no Python.

    >>> a = code_version("import diffscience as ds\\nlaw = ds.Transition(1, 2)  # a comment")
    >>> a == code_version('"A docstring."\\nimport diffscience as ds\\nlaw = ds.Transition(1,2)')
    True
    >>> a == code_version("import diffscience as ds\\nlaw = ds.Transition(1, 3)")
    False
    """
    statements = _parse(source)
    nodes = _reached(statements) if computation else statements
    always = {"study"} if computation else {"study", "plots"}
    forms = _closure(_imported(nodes, statements) | always)
    text = "\n".join([_normal(nodes), *(f"{name}\n{forms[name]}" for name in sorted(forms))])
    return hashlib.sha256(text.encode()).hexdigest()


# ------------------------------------------------------------------ libraries and repository


def packages(names: Iterable[str]) -> dict[str, str]:
    """Installed versions of the distributions `names`; those not installed are left out."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def fingerprint() -> dict[str, str]:
    """What decides numbers on this machine: versions of libraries, and the package's own files."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.glob("*.py")):
        data = path.read_bytes()
        digest.update(f"{path.name} {len(data)} ".encode() + data)
    return {"python": platform.python_version(), _NAME: digest.hexdigest()} | packages(COMPUTING)


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of the libraries that decide results or pictures."""
    own = {"python": platform.python_version(), _NAME: diffscience.__version__}
    return own | packages((*COMPUTING, *DRAWING))


def commit(path: Path) -> dict[str, Any]:
    """{"commit": hash or None, "modified": whether code differs from it} for a tracked file.

    Both are None outside a git repository, and for a file that its repository does not track.
    `modified` looks at the package and at the file itself only.
    """

    def git(*words: str) -> str | None:
        command = ["git", "--no-optional-locks", "-C", str(path.parent), *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    head = git("rev-parse", "HEAD")
    if head is None or git("ls-files", "--error-unmatch", "--", str(path)) is None:
        return {"commit": None, "modified": None}
    places = [str(path)]
    if git("ls-files", "--error-unmatch", "--", str(_PACKAGE / "__init__.py")) is not None:
        places.append(str(_PACKAGE))
    return {"commit": head, "modified": bool(git("status", "--porcelain", "--", *places))}
