"""Where Python code starts a process, describes one, or names a program: found in its syntax tree.

For tests that there is one way to do each. A search in syntax cannot see what a program computes (`chr(103) +
"it"`); what really ran is seen by support/gitlog.py.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_MODULES = frozenset(
    {
        "subprocess", "_posixsubprocess", "posix", "pty", "multiprocessing", "_multiprocessing", "popen2",
        "commands", "pexpect", "sh", "plumbum", "ctypes", "_ctypes", "cffi", "webbrowser", "pydoc", "runpy",
        "code", "imp", "antigravity", "concurrent.futures.process", "asyncio.subprocess",
        "asyncio.base_subprocess", "asyncio.unix_events", "git", "pygit2", "dulwich",
    }
)  # fmt: skip
"""Modules whose purpose is to start programs, to call C, or to run code that no linter sees."""
_NAMES = frozenset(
    {
        "system", "popen", "fork", "forkpty", "posix_spawn", "posix_spawnp", "startfile", "fork_exec",
        *(f"{verb}{how}" for verb in ("exec", "spawn") for how in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")),
        "create_subprocess_exec", "create_subprocess_shell", "subprocess_exec", "subprocess_shell", "subprocess",
        "Popen", "check_call", "check_output", "getoutput", "getstatusoutput", "ProcessPoolExecutor",
        "ForkingMixIn", "CGIHTTPRequestHandler", "echo_via_pager", "getnode", "uuid1", "run_module", "run_path",
        "exec_module", "load_module",
    }
)  # fmt: skip
"""Members that start a process or run code, of whatever they are members: an alias does not hide them."""
_OF_MODULE = {"click": frozenset({"edit", "launch"}), "sys": frozenset({"modules"})}
_BUILTINS = frozenset({"exec", "eval", "__import__"})
_BY_NAME = frozenset(
    {"getattr", "attrgetter", "methodcaller", "__getattribute__", "import_module", "find_spec"}
)
_POWERFUL = frozenset({"os", "asyncio", "builtins", "importlib"})

_PROGRAMS = re.compile(
    r"(?:\S*/)?(?:git|git-[a-z-]+|gh|hub|glab|tig|gitk|lazygit|jj|"  # git, and what runs it
    r"sh|bash|dash|zsh|ksh|busybox|xargs|parallel|sudo|su|runuser|setpriv|nohup|setsid|perl|unshare|nsenter|chroot|"
    r"\S+/(?:env|python3?|ssh|timeout|nice|script|find|make))"  # what runs another program
)


class Found(NamedTuple):
    """`what` was found at `line`, in the context `where` (see `_Contexts`)."""

    line: int
    what: str
    where: str


def starts(source: str) -> list[Found]:
    """Everything in `source` by which a process can be started, or code run that this search does not see."""
    tree = ast.parse(source)
    contexts = _Contexts(tree)
    return [Found(node.lineno, what, contexts.of(node)) for node, what in _starts(tree)]


def describes(source: str) -> list[Found]:
    """Calls that make the description of a process: our `Command`, or a changed `argv` of one."""
    tree = ast.parse(source)
    contexts = _Contexts(tree)
    click = {"click", *(_imported(tree, "click"))}
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if _last_name(node.func) not in ("Command", "replace", "__replace__"):
            continue
        name = ast.unparse(node.func)
        # `Mine = Command`, `f(Command)`: the name anywhere but in a call of its own is a way to hide one.
        if name.rpartition(".")[2] == "Command" and name.partition(".")[0] not in click:
            found.append(Found(node.lineno, name, contexts.of(node)))
        elif name.rpartition(".")[2] in ("replace", "__replace__") and _names_argv(node):
            found.append(Found(node.lineno, f"{name}(argv=…)", contexts.of(node)))
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in _evaluated(tree):
        if isinstance(node, ast.Name) and node.id == "Command" and id(node) not in called:
            found.append(Found(node.lineno, "Command as a value", contexts.of(node)))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found += [
                Found(node.lineno, f"Command as {one.asname}", contexts.of(node))
                for one in node.names
                if one.name == "Command" and one.asname not in (None, "Command")
            ]
    return found


def programs(source: str) -> list[Found]:
    """Constants that are the name of git, of a program that runs git, or of one that runs any program.

    Also the first word of what is split into words. Comparisons and documentation are left out.
    """
    tree = ast.parse(source)
    contexts = _Contexts(tree)
    found = []
    for node in _evaluated(tree):
        if isinstance(node, ast.Call) and _last_name(node.func) == "split":
            parts = [*node.args, *([node.func.value] if isinstance(node.func, ast.Attribute) else [])]
            texts = [text.split()[0] for part in parts if (text := _beginning(part)).split()]
        else:
            texts = [text] if (text := _folded(node)) is not None else []
        if contexts.harmless(node):
            continue
        found += [Found(node.lineno, text, contexts.of(node)) for text in texts if _PROGRAMS.fullmatch(text)]
    return sorted(set(found))


def _last_name(node: ast.expr) -> str:
    """`c` of `a.b.c`."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _names_argv(node: ast.Call) -> bool:
    return any(keyword.arg == "argv" for keyword in node.keywords)


# --- how it is found -----------------------------------------------------------------------------------------


def _starts(tree: ast.Module) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    modules = _module_names(tree)
    for node in _evaluated(tree):
        if isinstance(node, ast.Import):
            yield from ((node, f"import {one.name}") for one in node.names if _is_banned(one.name))
        elif isinstance(node, ast.ImportFrom):
            yield from ((node, what) for what in _imports_from(node))
        elif isinstance(node, ast.Attribute):
            module = modules.get(node.value.id, "") if isinstance(node.value, ast.Name) else ""
            hidden = node.attr == "__dict__" and module in _POWERFUL
            if node.attr in _NAMES or node.attr in _OF_MODULE.get(module, ()) or hidden:
                yield node, ast.unparse(node)
        elif isinstance(node, ast.Name) and node.id in _BUILTINS:
            yield node, node.id
        elif isinstance(node, ast.Subscript):
            builtin = _folded(node.slice) in _BUILTINS and "builtins" in ast.unparse(node.value)
            if _folded(node.slice) in _NAMES or builtin:
                yield node, ast.unparse(node)
        elif isinstance(node, ast.Call):
            yield from ((node, what) for what in _calls(node, modules))


def _imports_from(node: ast.ImportFrom) -> Iterator[str]:
    module = node.module or ""
    members = _NAMES | _BUILTINS | _OF_MODULE.get(module, frozenset())
    for one in node.names:
        everything = one.name == "*" and module in _POWERFUL
        if everything or _is_banned(module) or _is_banned(f"{module}.{one.name}") or one.name in members:
            yield f"from {module} import {one.name}"


def _calls(node: ast.Call, modules: dict[str, str]) -> Iterator[str]:
    """Names given as text, and what `subprocess` calls a shell."""
    if any(keyword.arg in ("shell", "preexec_fn") for keyword in node.keywords):
        yield f"{ast.unparse(node.func)}(shell or preexec_fn)"
    name = _last_name(node.func)
    if name == "vars" and node.args and modules.get(ast.unparse(node.args[0]), "") in _POWERFUL:
        yield ast.unparse(node)
    if name not in _BY_NAME:
        return
    texts = [_folded(argument) for argument in node.args]
    if any(text and (text in _NAMES | _BUILTINS or _is_banned(text)) for text in texts):
        yield ast.unparse(node)
    elif name in ("import_module", "find_spec") and texts[:1] == [None]:
        yield f"{name} of a computed name"
    elif node.args and modules.get(ast.unparse(node.args[0]), "") in _POWERFUL and None in texts[1:2]:
        yield f"{ast.unparse(node)}, a computed name"


def _is_banned(module: str) -> bool:
    parts = module.split(".")
    return any(".".join(parts[:length]) in _MODULES for length in range(1, len(parts) + 1))


def _module_names(tree: ast.Module) -> dict[str, str]:
    """Name in the module to the module that it stands for, also after `other = name`."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {one.asname or one.name.partition(".")[0]: one.name for one in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and node.value.id in names:
            names |= {ast.unparse(target): names[node.value.id] for target in node.targets}
    return names


def _imported(tree: ast.Module, module: str) -> list[str]:
    return [name for name, stands_for in _module_names(tree).items() if stands_for == module]


def _evaluated(tree: ast.Module) -> Iterator[ast.expr | ast.stmt]:
    """Every expression and statement but annotations, which `from __future__ import annotations` never runs."""
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.expr | ast.stmt):
            yield node
        for name, child in ast.iter_fields(node):
            if name in ("annotation", "returns"):
                continue
            pending += [
                one for one in (child if isinstance(child, list) else [child]) if isinstance(one, ast.AST)
            ]


def _folded(node: ast.AST) -> str | None:
    """The text of an expression of constants: literals, their sums, formats and joins. None: it is none."""
    match node:
        case ast.Constant(value=str() as text):
            return text
        case ast.Constant(value=bytes() as raw):
            return raw.decode("latin-1")
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _joined("", (left, right))
        case ast.JoinedStr(values=values):
            return _joined("", values)
        case ast.FormattedValue(value=value):
            return _folded(value)
        case ast.Call(
            func=ast.Attribute(value=between, attr="join"), args=[ast.List() | ast.Tuple() as display]
        ):
            text = _folded(between)
            return None if text is None else _joined(text, display.elts)
        case _:
            return None


def _joined(between: str, nodes: Iterable[ast.AST]) -> str | None:
    texts = [_folded(node) for node in nodes]
    return None if None in texts else between.join(text for text in texts if text is not None)


def _beginning(node: ast.AST) -> str:
    """The text that `node` begins with, as far as it is constant."""
    if isinstance(node, ast.JoinedStr) and node.values:
        return _folded(node.values[0]) or ""
    return _folded(node) or ""


class _Contexts:
    """Where in its module a node stands: `call NAME` for the nearest call around it, else `value of NAME`."""

    def __init__(self, tree: ast.Module) -> None:
        self._parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}

    def of(self, node: ast.AST) -> str:
        while node in self._parents:
            node = self._parents[node]
            if isinstance(node, ast.Call):
                return f"call {ast.unparse(node.func)}"
            if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                return f"value of {', '.join(map(ast.unparse, targets))}"
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                return f"function {node.name}"
        return "module"

    def harmless(self, node: ast.AST) -> bool:
        """Documentation, what is only compared, and part of a text that is more than this."""
        parent = self._parents.get(node)
        if isinstance(parent, ast.List | ast.Tuple | ast.Set) and isinstance(
            self._parents.get(parent), ast.Compare
        ):
            return True
        part = isinstance(parent, ast.JoinedStr | ast.FormattedValue) and _folded(parent) is None
        return isinstance(parent, ast.Compare) or part or (isinstance(parent, ast.Expr) and _is_text(node))


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant)
