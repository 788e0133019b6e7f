"""A notice of ours for the user's terminal: the bell, or with it a notification by OSC 9. Pure.

Only the host writes these. Of a guest the filter (`filter`, `osc`) passes the bell, as of any program, and no OSC 9.
"""

from __future__ import annotations

from coding_agents.model.notice import Notice, Shown
from coding_agents.terminal.escape import is_visible

_BELL = "\x07"
_MAX_TEXT = 200


def notice_sequence(shown: Shown, session: str, notice: Notice) -> str:
    """What tells a terminal of a notice of `session`, "" where nothing is to.

    OSC 9 (iTerm2's, also of WezTerm, kitty, Ghostty, foot and Windows Terminal) has the text. Terminals and tmux that
    do not know it read past it, and ring. The text never begins with a number, which Windows Terminal and ConEmu would
    take for another command.
    """
    if shown == "off":
        return ""
    text = f"coding-agents: {session}: {notice.kind}: {notice.text}"
    plain = "".join(char for char in text if is_visible(char))[:_MAX_TEXT]
    return (f"\x1b]9;{plain}\x07" if shown == "osc9" else "") + _BELL
