"""Edit scripts: what an agent may do to its workspace in any order, as data that hypothesis makes and shrinks.

A step that does not apply (a rebase with nothing to rebase) does nothing, as git refuses it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hypothesis import strategies as st

from support.kinds import ODD_NAMES

Step = tuple[str, ...]
"""The name of the step and its arguments."""

AUTOSAVE: Step = ("autosave",)

NAMES = (
    "kept", "changed", "src/app.py", "src/util/deep.py", "src", "gone", "new.txt", "a", "a/b", "a/b/c", "out/x",
    "src/out/y", "x.ign", "src/z.ign", "key.pem", ".env", "inner/f", "inner/g", "inner", "src/inner/f", "crlf.txt",
    "text.u16", ".gitmodules", *ODD_NAMES,
)  # fmt: skip
CONTENTS = ("", "one\n", "two\n", "line\n" * 300, "dos\r\nend\r\n", "\0\u00ff\n", "no end", "odd")
"""Some as long as others, so that only git's care about times and content tells them apart."""
LARGE = "large"
TARGETS = ("kept", "/etc/passwd", "../../outside", "nowhere", ".", "src", ".git/config", "-x\ny")
IGNORES = ("", "*.ign\n", "out/\n", "*.ign\nout/\n", "*\n")
UTF_16 = "*.u16 text working-tree-encoding=UTF-16LE\n"
ATTRIBUTES = ("", "*.txt text eol=crlf\n", "*.txt -text\n", "* filter=lost diff=lost merge=union\n",
              UTF_16, "*.txt ident export-ignore\n")  # fmt: skip
REPOSITORIES = ("inner", "src/inner", "deep/er")

_often = st.sampled_from(("kept", "a", "a/b", "inner/f", "text.u16"))
_name = st.one_of(st.sampled_from(NAMES[: -len(ODD_NAMES)]), _often, st.sampled_from(ODD_NAMES))
_pair = st.tuples(_name, _name)
_git = st.sampled_from(
    [
        ("add", "--all"), ("add", "--update"), ("reset", "--quiet"), ("reset", "--hard"), ("reset", "--soft", "HEAD~1"),
        ("reset", "--mixed", "HEAD~1"), ("reset", "--hard", "HEAD~1"), ("stash",), ("stash", "--include-untracked"),
        ("stash", "pop"), ("gc", "--quiet"), ("pack-refs", "--all"), ("checkout", "--detach"),
        ("checkout", "-B", "side"), ("checkout", "-"), ("checkout", "--", "."), ("checkout", "--orphan", "fresh"),
        ("branch", "idea"), ("clean", "-fd"), ("commit", "--amend", "-m", "amended"), ("merge", "--abort"),
        ("commit", "--allow-empty", "-m", "empty"), ("commit", "-am", "all of it"), ("commit", "-m", "staged"),
        ("config", "core.fileMode", "false"), ("config", "core.autocrlf", "input"), ("config", "index.version", "4"),
        ("update-index", "--split-index"), ("update-index", "--untracked-cache"), ("read-tree", "--empty"),
        ("sparse-checkout", "set", "src"), ("sparse-checkout", "disable"), ("bisect", "start", "HEAD", "HEAD~1"),
        ("notes", "add", "-m", "note"), ("tag", "v1"), ("replace", "--graft", "HEAD"),
    ]
)  # fmt: skip
_git_on = st.sampled_from(
    [
        ("add",), ("add", "--force"), ("add", "--intent-to-add"), ("rm", "-r", "--cached"), ("rm", "-rf"),
        ("update-index", "--assume-unchanged"), ("update-index", "--skip-worktree"), ("checkout", "HEAD"),
        ("update-index", "--chmod=+x"), ("restore", "--staged"), ("update-index", "--no-assume-unchanged"),
    ]
)  # fmt: skip


def scripts(most: int = 14) -> st.SearchStrategy[list[Step]]:
    """Scripts of up to `most` steps."""
    step = st.one_of(
        st.builds(lambda name, content: ("write", name, content), _name, st.sampled_from(CONTENTS)),
        st.builds(lambda name, content: ("write", name, content), _name, st.sampled_from(CONTENTS)),
        st.builds(lambda name, content: ("append", name, content), _name, st.sampled_from(CONTENTS)),
        st.builds(lambda name: ("write", name, LARGE), _name),
        st.builds(lambda name: ("delete", name), _name),
        st.builds(lambda names: ("rename", *names), _pair),
        st.builds(lambda name: ("mkdir", name), _name),
        st.builds(lambda name, mode: ("chmod", name, mode), _name, st.sampled_from(("755", "644", "600"))),
        st.builds(lambda name, target: ("link", name, target), _name, st.sampled_from(TARGETS)),
        st.builds(lambda text: ("write", ".gitignore", text), st.sampled_from(IGNORES)),
        st.builds(lambda text: ("write", ".gitattributes", text), st.sampled_from(ATTRIBUTES)),
        st.builds(lambda words: ("git", *words), _git),
        st.builds(lambda words: ("git", *words), _git),
        st.builds(lambda words, name: ("git", *words, "--", name), _git_on, _name),
        st.builds(lambda how, name: ("clash", how, name), st.sampled_from(("merge", "rebase", "cherry-pick")), _name),
        st.builds(lambda place: ("init", place), st.sampled_from(REPOSITORIES)),
        st.builds(lambda place: ("commit inside", place), st.sampled_from(REPOSITORIES)),
        st.builds(lambda place: ("delete", f"{place}/.git"), st.sampled_from(REPOSITORIES)),
        st.sampled_from([AUTOSAVE, AUTOSAVE, ("delete", ".git/index"), ("touch", ".git/index.lock")]),
    )  # fmt: skip
    return st.lists(step, min_size=1, max_size=most)


def take(step: Step, work: Path, env: Mapping[str, str]) -> None:
    """Do one step (but AUTOSAVE) in the work tree `work`, git with the environment `env`."""
    name, *arguments = step
    if name in _WITH_GIT:
        _WITH_GIT[name](work, env, *arguments)
    else:
        _WITH_FILES[name](work, *arguments)


def _write_file(work: Path, name: str, content: str) -> None:
    _write(_room(work, name), content)


def _append(work: Path, name: str, content: str) -> None:
    path = work / name
    if path.is_symlink() or not path.is_file() or not _is_inside(work, path):
        path = _room(work, name)
    with path.open("ab") as file:
        file.write(content.encode())


def _delete(work: Path, name: str) -> None:
    if _is_inside(work, work / name):
        _remove(work / name)


def _rename(work: Path, old: str, new: str) -> None:
    if os.path.lexists(work / old) and _is_inside(work, work / old) and not _overlap(old, new):
        (work / old).rename(_room(work, new))


def _chmod(work: Path, name: str, mode: str) -> None:
    path = work / name
    if _is_inside(work, path) and path.is_file() and not path.is_symlink():
        path.chmod(int(mode, 8))


def _init(work: Path, env: Mapping[str, str], place: str) -> None:
    if not (work / place).is_dir() or (work / place).is_symlink() or not _is_inside(work, work / place):
        _room(work, place).mkdir()
    # A relay has one object format: a repository of another one stays in the volume.
    object_format = _run(work, ["rev-parse", "--show-object-format"], env) or "sha1"
    _run(work, ["init", "--quiet", f"--object-format={object_format}", place], env)


def _commit_inside(work: Path, env: Mapping[str, str], place: str) -> None:
    inner = work / place
    if (inner / ".git").is_dir() and _is_inside(work, inner / "f"):
        _write(_room(inner, "f"), f"{sum(1 for _ in (inner / '.git/objects').iterdir())}\n")
        _run(inner, ["add", "f"], env)
        _run(inner, ["commit", "-qm", "inside"], env)


def _clash(work: Path, env: Mapping[str, str], how: str, name: str) -> None:
    """Two commits that say something else of one file, and `how` git is to join them: it stops in the middle."""
    back = _run(work, ["symbolic-ref", "--short", "HEAD"], env) or _run(work, ["rev-parse", "HEAD"], env)
    for branch, text in (("clash", "theirs\n"), (back, "ours\n")):
        _run(work, ["checkout", "-qf", *(["-B"] if branch == "clash" else []), branch], env)
        if _is_inside(work, work / name):
            _write(_room(work, name), text)
        _run(work, ["add", "--force", "--", name], env)
        _run(work, ["commit", "-qm", text], env)
    _run(work, [how, "clash"], env)


def _run(work: Path, words: Sequence[str], env: Mapping[str, str]) -> str:
    done = subprocess.run(
        ["git", *words], cwd=work, env=dict(env), stdin=subprocess.DEVNULL, capture_output=True, timeout=60
    )
    return os.fsdecode(done.stdout).strip() if done.returncode == 0 else ""


def _write(path: Path, content: str) -> None:
    path.write_bytes(bytes(range(256)) * 8192 if content == LARGE else content.encode())


def _room(work: Path, name: str) -> Path:
    """Where `name` can be made: nothing is there, and every directory above is one of its own."""
    path = work
    for part in Path(name).parts[:-1]:
        path = path / part
        if path.is_symlink() or not path.is_dir():
            _remove(path)
            path.mkdir()
    path = work / name
    _remove(path)
    return path


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_inside(work: Path, path: Path) -> bool:
    """Whether no link leads to `path` and all above it are directories."""
    return all(
        above.is_dir() and not above.is_symlink()
        for above in path.parents
        if above != work and work in above.parents
    )


def _overlap(one: str, other: str) -> bool:
    first, second = Path(one), Path(other)
    return first == second or first in second.parents or second in first.parents


_WITH_FILES: Mapping[str, Callable[..., object]] = {
    "write": _write_file,
    "append": _append,
    "delete": _delete,
    "rename": _rename,
    "chmod": _chmod,
    "mkdir": lambda work, name: _room(work, name).mkdir(),
    "link": lambda work, name, target: _room(work, name).symlink_to(target),
    "touch": lambda work, name: (work / name).touch(),
}
_WITH_GIT: Mapping[str, Callable[..., object]] = {
    "git": lambda work, env, *words: _run(work, words, env),
    "clash": _clash,
    "init": _init,
    "commit inside": _commit_inside,
}
