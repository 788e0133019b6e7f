"""What a build prints: whole in a file, its end once in the error, and what can be done about it."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from coding_agents.errors import EngineError, ImageBuildError
from coding_agents.images.api import OnLine

_SHOWN_LINES = 40

_HINTS = (
    (r"integrity of", "The registry serves other bytes than the manifest pins: do not trust them."),
    (r"self.signed|unable to get local issuer|certificate verify failed|CERT_",
     "Put your network's root certificate into /usr/local/share/ca-certificates, or set SSL_CERT_FILE."),
    (r"no space left on device|quota exceeded", "Free some space, also with `coding-agents images prune`."),
    (r"could not resolve|temporary failure|name resolution|no such host|timed out|network is unreachable",
     "Check the network of this machine, and HTTP_PROXY and HTTPS_PROXY if it has a proxy."),
)  # fmt: skip


class BuildLog:
    """Takes the lines of one build. `path` holds them all; the file stays only after a failure."""

    def __init__(self, path: Path, on_line: OnLine) -> None:
        self._path = path
        self._on_line = on_line
        self._last: deque[str] = deque(maxlen=_SHOWN_LINES)
        path.unlink(missing_ok=True)
        self._file = path.open("x", encoding="utf-8", errors="replace", buffering=1)

    def __call__(self, line: str) -> None:
        self._last.append(line)
        with suppress(OSError):  # a full disk must not end a build that goes elsewhere
            self._file.write(line + "\n")
        self._on_line(line)

    @contextmanager
    def of(self, ref: str) -> Iterator[BuildLog]:
        """Around the build of `ref`: what fails in it becomes an ImageBuildError with the end of the log."""
        try:
            yield self
        except (EngineError, ImageBuildError, OSError) as error:
            raise self._failed(ref, error) from error
        else:
            self._path.unlink(missing_ok=True)
        finally:
            with suppress(OSError):
                self._file.close()

    def _failed(self, ref: str, error: EngineError | ImageBuildError | OSError) -> ImageBuildError:
        own = [] if isinstance(error, OSError) else error.details.splitlines()
        # An engine's error ends with what it printed, which are lines of the log.
        news = [line for line in own if not any(line in shown for shown in self._last)]
        log = [*news, *self._last]
        return ImageBuildError(
            f"could not build {ref}",
            details="\n".join([str(error), *log]),
            hint=(isinstance(error, ImageBuildError) and error.hint)
            or failure_hint("\n".join(log))
            or f"Read the whole log: {self._path}",
        )


def failure_hint(log: str) -> str:
    """One thing to do about a failed build, from what it printed; empty when that says nothing."""
    return next((hint for pattern, hint in _HINTS if re.search(pattern, log, re.IGNORECASE)), "")
