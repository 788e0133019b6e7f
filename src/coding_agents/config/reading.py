"""The text of a settings file: who may have written it, and what of it is believed before a line is parsed.

The repository's file is hostile: it is read bounded and never through a link. The organisation's file counts only
where root alone can have put it, and one that is there and cannot be read stops everything.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from coding_agents.errors import ConfigError, StoreError
from coding_agents.model.settings import Source
from coding_agents.store.files import read_record

_LIMIT = 64 * 1024


def read_settings_file(path: Path, *, source: Source, uid: int) -> str | None:
    """The text of a settings file, None when there is none. Raises ConfigError."""
    try:
        path.lstat()
    except FileNotFoundError:
        return None  # a link that leads nowhere is not nothing: it fails below
    except OSError as error:
        if isinstance(error, NotADirectoryError) and source is not Source.ORGANISATION:
            return None
        raise _unreadable(path, source, error) from error
    try:
        real = path if source is Source.PROJECT else path.resolve(strict=True)
        data = read_record(real, limit=_LIMIT)
        info = path.stat()
    except StoreError as error:
        raise ConfigError(error.message, hint="Settings are a regular file of at most 64 KiB.") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        raise _unreadable(path, source, error) from error
    trusted = {Source.ORGANISATION: (0,), Source.USER: (0, uid)}.get(source)
    if trusted is not None and (info.st_uid not in trusted or info.st_mode & stat.S_IWOTH):
        raise ConfigError(
            f"{path} can be changed by others than its user",
            hint=f"Make it owned by uid {trusted[-1]} and not writable for everybody.",
        )
    if source is Source.ORGANISATION:
        _require_roots_own(path, real, info.st_mode)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 text", details=str(error), hint="Save the file as UTF-8 text."
        ) from error


def _unreadable(path: Path, source: Source, error: Exception) -> ConfigError:
    reason = getattr(error, "strerror", None) or str(error)
    hint = "Ask root to make it a file that everybody can read, or to remove it."
    if source is not Source.ORGANISATION:
        hint = "Make it a file that you can read, or remove it."
    return ConfigError(f"cannot read the settings {path}: {reason.lower()}", hint=hint)


def _require_roots_own(path: Path, real: Path, mode: int) -> None:
    """Raise ConfigError unless root alone can have put the file `real` there, which is found as `path`.

    Who may write to a directory on the way can put another file, or none, in its place.
    """
    places = [*path.absolute().parents, *real.parents]
    loose = [place for place in places if not _roots_own(place.stat())]
    if loose or mode & stat.S_IWGRP:
        raise ConfigError(
            f"{path} can be changed by others than root: {loose[0] if loose else real}",
            hint="Make the file and the directories above it owned by root and writable for root alone.",
        )


def _roots_own(info: os.stat_result) -> bool:
    open_to_others = info.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not info.st_mode & stat.S_ISVTX
    return info.st_uid == 0 and not open_to_others
