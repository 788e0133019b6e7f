"""Every error that coding-agents shows to a person, each with its stable code and exit status.

A message says what failed, with the value, lower case and without a full stop; `details` holds the
command and its output; `hint` is one thing to do, by default the `advice` of the error's class. Ranges of
exit statuses: 2 usage, 10-19 workspace and git, 20-29 configuration and policy, 30-39 engine, 40-49
supervisor, channel and records, 60-69 guest, 70-79 review and merge. Nothing else is caught at the top of
the command line, so a bug still shows its traceback.
"""

from __future__ import annotations


class CodingAgentsError(Exception):
    """Base of all expected failures.

    `code` is a stable slug for machines, `exit_status` the status of the process that stops on it. A class
    without `advice` needs a hint wherever it is raised.
    """

    code = "error"
    exit_status = 1
    advice = ""

    def __init__(self, message: str, *, details: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.hint = hint or self.advice


class UsageError(CodingAgentsError):
    """A command line that cannot be carried out as it is written."""

    code = "usage"
    exit_status = 2


class SessionExistsError(CodingAgentsError):
    """A launch means a session that is already there and cannot be joined as it is."""

    code = "session-exists"
    exit_status = 10


class NotARepositoryError(CodingAgentsError):
    """SOURCE is not the work tree of a git repository."""

    code = "not-a-repository"
    exit_status = 11


class BareRepositoryError(CodingAgentsError):
    """SOURCE is a bare repository: there is no work tree to copy."""

    code = "bare-repository"
    exit_status = 12


class BranchError(CodingAgentsError):
    """A branch name is malformed, or taken in a way that would lose work."""

    code = "branch"
    exit_status = 13
    advice = "See the branches that are there: git branch --all."


class WorkspaceError(CodingAgentsError):
    """The source tree cannot be copied whole."""

    code = "workspace"
    exit_status = 14
    advice = "Check the modes of what is named, or let git ignore it."


class CloneError(CodingAgentsError):
    """A git URL could not be cloned by the host."""

    code = "clone"
    exit_status = 15


class GitError(CodingAgentsError):
    """A git command of ours failed."""

    code = "git"
    exit_status = 16
    advice = "Check the repository: `git fsck` must find no error in it."


class UnsavedWorkError(CodingAgentsError):
    """A removal would lose work that is not in the host repository."""

    code = "unsaved-work"
    exit_status = 17


class SessionNotFoundError(CodingAgentsError):
    """No session has this name, or several have this prefix."""

    code = "session-not-found"
    exit_status = 18


class SessionStateError(CodingAgentsError):
    """A session is in a state in which the verb cannot work."""

    code = "session-state"
    exit_status = 19
    advice = "See its state: `coding-agents list -a`."


class ConfigError(CodingAgentsError):
    """A settings file or value is invalid."""

    code = "config"
    exit_status = 20
    advice = "Correct the file that is named; if it is one of ours, install coding-agents again."


class ManifestError(CodingAgentsError):
    """An agent is unknown or its manifest is invalid."""

    code = "manifest"
    exit_status = 21
    advice = "Correct the manifest that is named."


class CredentialError(CodingAgentsError):
    """The user's credential cannot be had."""

    code = "credential"
    exit_status = 26


class NameFormatError(CodingAgentsError):
    """A name does not follow its grammar."""

    code = "name"
    exit_status = 22


class InvariantError(CodingAgentsError):
    """A planned container is not safe; nothing was started."""

    code = "invariant"
    exit_status = 23


class NotBuiltError(CodingAgentsError):
    """A documented feature that this version does not have yet."""

    code = "not-built"
    exit_status = 24


class UntrustedSettingError(CodingAgentsError):
    """A repository's own settings try to widen what the user allows."""

    code = "untrusted-setting"
    exit_status = 25


class McpError(CodingAgentsError):
    """An MCP server is not there, not well-formed, or cannot be trusted as it is."""

    code = "mcp"
    exit_status = 27
    advice = "See what the repository names: `coding-agents mcp list`."


class ApprovalError(CodingAgentsError):
    """A push to origin does not wait for a decision, or not for this one."""

    code = "approval"
    exit_status = 28
    advice = "See what waits: `coding-agents approvals`."


class SigningError(CodingAgentsError):
    """A commit cannot be signed: no usable key, a locked one, or a helper that does not answer as it must."""

    code = "signing"
    exit_status = 29


class EngineNotFoundError(CodingAgentsError):
    """No container engine is installed."""

    code = "engine-not-found"
    exit_status = 30


class EngineStoppedError(CodingAgentsError):
    """The engine is installed but does not answer."""

    code = "engine-stopped"
    exit_status = 31


class EngineTooOldError(CodingAgentsError):
    """The engine lacks a feature that the sandbox depends on."""

    code = "engine-too-old"
    exit_status = 32


class EngineForbiddenError(CodingAgentsError):
    """The engine answers, but this user may not use it."""

    code = "engine-forbidden"
    exit_status = 33


class EngineError(CodingAgentsError):
    """An engine command failed."""

    code = "engine"
    exit_status = 34
    advice = "Run `coding-agents doctor`: it checks the engine."


class ImageBuildError(CodingAgentsError):
    """An image could not be built."""

    code = "image-build"
    exit_status = 35


class ImageUpdateError(CodingAgentsError):
    """An agent's packages could not be updated; those in use, and their image, stand as they were."""

    code = "image-update"
    exit_status = 38


class EnforcementError(CodingAgentsError):
    """A required protection is not in force in the started container."""

    code = "enforcement"
    exit_status = 36
    advice = "Run `coding-agents doctor`: it shows what this machine can enforce."


class BreachError(CodingAgentsError):
    """`verify` got through: an attack of its own was not stopped."""

    code = "breach"
    exit_status = 39
    advice = "Do not run agents here before it is stopped; please report it as SECURITY.md says."


class ProgramNotFoundError(CodingAgentsError):
    """A program that we run is not installed."""

    code = "program-not-found"
    exit_status = 37


class SupervisorError(CodingAgentsError):
    """The supervisor of a session does not start or does not answer."""

    code = "supervisor"
    exit_status = 40
    advice = "Try again: each verb starts a supervisor where none is left."


class ChannelError(CodingAgentsError):
    """The stream between supervisor and guest broke or spoke another protocol."""

    code = "channel"
    exit_status = 41
    advice = "Try again; `coding-agents list -a` shows whether the session still runs."


class AuditError(CodingAgentsError):
    """The audit log cannot be written, or does not verify."""

    code = "audit"
    exit_status = 42
    advice = "`coding-agents audit verify --session NAME` shows what still holds of the log."


class StoreError(CodingAgentsError):
    """A file of record cannot be read or written."""

    code = "store"
    exit_status = 43
    advice = "Check owner, modes and free space of the place that is named."


class SupervisorGoneError(SupervisorError):
    """The supervisor has left, or is just leaving; asking a new one is safe."""

    code = "supervisor-gone"
    exit_status = 44


class AnswerLostError(SupervisorError):
    """The supervisor took a request and ended, or stayed silent, before it answered: it may have carried it out."""

    code = "answer-lost"
    exit_status = 45


class DiskImageError(CodingAgentsError):
    """The file system of a session's own (`--disk`) cannot be made, mounted or unmounted."""

    code = "disk-image"
    exit_status = 46


class GuestError(CodingAgentsError):
    """The guest's start sequence failed inside the container."""

    code = "guest"
    exit_status = 60
    advice = "See what it printed: `coding-agents logs NAME`."


class CopyError(CodingAgentsError):
    """What was to be copied into or out of a session cannot be, or is not what it must be."""

    code = "copy"
    exit_status = 61


class UnreviewedError(CodingAgentsError):
    """A merge would bring findings that block and that nobody has accepted."""

    code = "unreviewed"
    exit_status = 70


class MergeError(CodingAgentsError):
    """A branch cannot be merged as asked: nothing was changed."""

    code = "merge"
    exit_status = 71


class MergeConflictError(MergeError):
    """Both sides changed the same: a person, or the agent, has to decide. Nothing was changed."""

    code = "merge-conflict"
    exit_status = 72


class ReaderGoneError(Exception):
    """Whoever read our result has closed the pipe: we end quietly, with exit status 141.

    No OSError, since the command line library ends on that by itself, and no error to be told.
    """


class Terminated(BaseException):
    """SIGTERM, unwound in the same way as Ctrl-C: what was half made is undone. Exit status 143.

    Not a KeyboardInterrupt, which the command line library takes for Ctrl-C.
    """
