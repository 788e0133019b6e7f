"""What verbs print: results, narration, progress and errors, none of which can harm the terminal."""

from __future__ import annotations

import inspect
import io
import json
import re
from pathlib import Path

from coding_agents import errors
from coding_agents.cli.output import Output
from coding_agents.errors import BranchError, CodingAgentsError

_HOSTILE = "a\x1b[2J\u202e\x9b"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _output(*, terminal: bool = False) -> tuple[Output, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), _Terminal() if terminal else io.StringIO()
    return Output(out, err), out, err


def test_results_and_narration_go_their_own_ways_and_are_escaped() -> None:
    output, out, err = _output()
    output.result(_HOSTILE)
    output.result("two\nlines\n")
    output.say(_HOSTILE)
    shown = "a\\x1b[2J\\u202e\\x9b\n"
    assert out.getvalue() == shown + "two\nlines\n"
    assert err.getvalue() == shown


def test_json_results_are_one_ascii_line_and_keep_their_value() -> None:
    output, out, _ = _output()
    output.result_json({"name": _HOSTILE + "\n"})
    assert out.getvalue().isascii()
    assert out.getvalue().count("\n") == 1
    assert json.loads(out.getvalue()) == {"name": _HOSTILE + "\n"}


def test_progress_is_shown_on_a_terminal_only() -> None:
    output, _, err = _output()
    output.progress("building")
    assert err.getvalue() == ""


def test_progress_stays_on_its_line_and_is_cleared_before_anything_else() -> None:
    output, _, err = _output(terminal=True)
    output.progress("building\n1")
    output.progress("building 2")
    output.say("done")
    assert err.getvalue() == "\r\x1b[Kbuilding\\x0a1\r\x1b[Kbuilding 2\r\x1b[Kdone\n"


def test_an_error_says_what_failed_its_details_and_what_to_do() -> None:
    output, out, err = _output()
    error = BranchError("branch 'x\x1b' is taken", details="git said\nno", hint="Choose another name.")
    error.add_note("could not remove volume v")
    assert output.fail(error, as_json=False) == 13
    assert err.getvalue() == (
        "error: branch 'x\\x1b' is taken\n  git said\n  no\n  could not remove volume v\n"
        "hint: Choose another name.\n"
    )
    assert out.getvalue() == ""


def test_an_error_as_json_is_one_line_with_the_documented_keys() -> None:
    output, out, err = _output()
    assert output.fail(BranchError(_HOSTILE, details="a\nb", hint="h"), as_json=True) == 13
    assert err.getvalue().count("\n") == 1
    assert err.getvalue().isascii()
    assert json.loads(err.getvalue()) == {
        "error": {"code": "branch", "message": _HOSTILE, "details": "a\nb", "hint": "h", "exit_status": 13}
    }
    assert out.getvalue() == ""


def _classes() -> list[type[CodingAgentsError]]:
    found = [item for item in vars(errors).values() if inspect.isclass(item)]
    return [item for item in found if issubclass(item, CodingAgentsError) and item is not CodingAgentsError]


def test_codes_and_statuses_are_unique_and_in_range() -> None:
    classes = _classes()
    assert len({item.code for item in classes}) == len(classes)
    assert len({item.exit_status for item in classes}) == len(classes)
    for item in classes:
        assert re.fullmatch(r"[a-z][a-z-]*[a-z]", item.code)
        assert item.exit_status in {2, 130, *range(10, 50), *range(60, 80)}


def test_the_reference_page_lists_every_error() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/errors.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| (\d+) \| `([a-z-]+)` \| (.+) \|$", page, re.MULTILINE)
    expected = {(str(item.exit_status), item.code, inspect.getdoc(item)) for item in _classes()}
    assert set(listed) == expected
    assert len(listed) == len(expected)
