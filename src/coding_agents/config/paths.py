"""Paths as people write them on WSL and macOS, turned into the host's own. Pure: no file is looked at.

On WSL the same file has a Windows and a Linux spelling (https://learn.microsoft.com/windows/wsl/filesystems);
on macOS /var, /tmp and /etc are symlinks into /private, and most volumes fold case.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath

import msgspec

from coding_agents.config.environ import Platform
from coding_agents.errors import UsageError

_DRIVE = re.compile(r"(?P<letter>[A-Za-z]):(?P<rest>.*)", re.DOTALL)
_WSL_SHARES = ("wsl$", "wsl.localhost")
_PRIVATE = ("/var", "/tmp", "/etc")  # noqa: S108 - names compared, nothing is created there


class PathTraits(msgspec.Struct, frozen=True):
    """What a file system does that a repository's owner should know: it folds case; it is slow to copy."""

    case_insensitive: bool
    slow: bool
    why: str = ""


def host_path(raw: str, *, platform: Platform, distro: str = "", mount_root: str = "/mnt") -> str:
    """`raw` as a path of this host; only WSL translates, elsewhere `C:\\x` is an ordinary file name.

    `distro` is $WSL_DISTRO_NAME, `mount_root` the automount root of /etc/wsl.conf. Raises UsageError
    for what has no local spelling: network shares, other distributions, drive-relative paths.
    """
    if not raw or "\0" in raw:
        raise UsageError(f"path {raw!r} is empty or holds a NUL byte", hint="Name a directory.")
    if platform != "wsl":
        return raw
    if raw.startswith(("\\\\", "//")):
        return _from_share(raw, distro=distro)
    drive = _DRIVE.fullmatch(raw)
    if drive is None:
        return raw
    rest = drive["rest"].replace("\\", "/")
    if not rest.startswith("/"):
        raise UsageError(
            f"path {raw!r} is relative to the current directory of drive {drive['letter'].upper()}:",
            hint="Write it with a backslash after the colon.",
        )
    return str(PurePosixPath(mount_root, drive["letter"].lower(), *_parts(rest)))


def windows_path(path: str, *, distro: str, mount_root: str = "/mnt") -> str:
    """The Windows spelling of an absolute WSL path, for messages that people paste into Explorer."""
    pure = PurePosixPath(path)
    if not pure.is_absolute():
        raise ValueError(f"not an absolute path: {path!r}")
    letter = _drive_letter(pure, mount_root)
    if letter:
        root = f"{letter.upper()}:\\"
        return root + "\\".join(pure.parts[len(PurePosixPath(mount_root).parts) + 1 :])
    return f"\\\\wsl.localhost\\{distro}\\" + "\\".join(pure.parts[1:])


def canonical(path: str, *, platform: Platform) -> str:
    """One spelling of an absolute path for comparing: on macOS /var/x and /private/var/x are the same."""
    if platform == "darwin":
        for name in _PRIVATE:
            if path == name or path.startswith(name + "/"):
                return "/private" + path
    return path


def traits(path: str, *, platform: Platform, mount_root: str = "/mnt") -> PathTraits:
    """What to expect of the file system under an absolute path, by the platform's defaults."""
    pure = PurePosixPath(path)
    if platform == "wsl" and _drive_letter(pure, mount_root):
        return PathTraits(case_insensitive=True, slow=True, why="a Windows drive seen through WSL")
    if platform == "darwin":
        external = pure.parts[1:2] == ("Volumes",)
        why = "an external macOS volume" if external else "macOS volumes fold case unless formatted otherwise"
        return PathTraits(case_insensitive=True, slow=external, why=why)
    return PathTraits(case_insensitive=False, slow=False)


def _from_share(raw: str, *, distro: str) -> str:
    if raw.startswith("//") and not raw.startswith("//wsl"):
        return raw  # a POSIX path with a doubled slash, which Linux reads as one
    parts = [part for part in re.split(r"[\\/]+", raw) if part]
    if len(parts) >= 2 and parts[0].lower() in _WSL_SHARES:
        if distro and parts[1].lower() == distro.lower():
            return str(PurePosixPath("/", *_parts("/".join(parts[2:]))))
        raise UsageError(
            f"path {raw!r} belongs to the WSL distribution {parts[1]!r}, not to this one",
            hint=f"Run coding-agents inside {parts[1]}, or clone the repository into this distribution.",
        )
    raise UsageError(
        f"path {raw!r} is on a network share",
        hint="Clone the repository to a local disk first.",
    )


def _parts(path: str) -> tuple[str, ...]:
    """The components of a slash path, `..` resolved without leaving the root, as Windows does."""
    kept: list[str] = []
    for part in PureWindowsPath(path).parts:
        if part == ".." and kept:
            kept.pop()
        elif part not in ("..", "\\", "/"):
            kept.append(part)
    return tuple(kept)


def _drive_letter(path: PurePosixPath, mount_root: str) -> str:
    root = PurePosixPath(mount_root).parts
    parts = path.parts
    name = parts[len(root)] if len(parts) > len(root) and parts[: len(root)] == root else ""
    return name if re.fullmatch(r"[a-z]", name) else ""
