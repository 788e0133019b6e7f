"""Makes the engines' profiles of `calls.toml`; run `python -m coding_agents.sandbox.seccomp.render` after a change.

The form is the one that both engines read: that of Docker's default profile, with `archMap` and a rule for each answer.
libseccomp knows no "unless" for arguments, and no answer of its own for "all others" of a call: so each conditional
call is written out as disjoint cases of bits that cover all values, each case with its answer.
"""

from __future__ import annotations

import errno
import hashlib
import json
import stat
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from coding_agents_guest.paths import WATERMARK_FAMILY

HERE = Path(__file__).parent
ROLES = ("agent", "ptrace", "holder")
_WATERMARKS = range(2000, 4000)  # above the kernel's own numbers, below MAX_ERRNO (include/linux/err.h)
_ALLOW = "SCMP_ACT_ALLOW"
_ERRNO = "SCMP_ACT_ERRNO"
_MASKED = "SCMP_CMP_MASKED_EQ"
_INT = 0xFFFFFFFF
_UNKNOWN = errno.ENOSYS
# The native ABI alone: i386 and x32 calls have other numbers and rules, and end the program (seccomp(2), "Caveats").
_ARCHITECTURES = ("SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64")
_FIELDS = {"": _INT, "S_IFMT": 0o170000}
# include/uapi/linux/sched.h, asm-generic/ioctls.h, linux/socket.h, linux/personality.h
_KERNEL = {
    "CLONE_NEWTIME": 0x00000080,
    "CLONE_NEWNS": 0x00020000,
    "CLONE_NEWCGROUP": 0x02000000,
    "CLONE_NEWUTS": 0x04000000,
    "CLONE_NEWIPC": 0x08000000,
    "CLONE_NEWUSER": 0x10000000,
    "CLONE_NEWPID": 0x20000000,
    "CLONE_NEWNET": 0x40000000,
    "TIOCSTI": 0x5412,
    "TIOCLINUX": 0x541C,
    "AF_UNIX": 1,
    "AF_INET": 2,
    "AF_INET6": 10,
    "AF_NETLINK": 16,
    "PER_LINUX": 0,
    "PER_QUERY": _INT,
    "ADDR_NO_RANDOMIZE": 0x0040000,
    "NETLINK_ROUTE": 0,
    "NETLINK_NETFILTER": 12,
}

Json = dict[str, Any]


def render(role: str, source: Mapping[str, Any]) -> str:
    """The profile of a role as JSON, a rule a line; `source` is the content of `calls.toml`."""
    rules = list(_rules(role, source))
    digest = hashlib.sha256(json.dumps(rules).encode()).digest()
    mark = _WATERMARKS[int.from_bytes(digest[:4], "big") % len(_WATERMARKS)]
    rules = list(_rules(role, source, watermark=mark))
    head = {
        "defaultAction": _ERRNO,
        "defaultErrnoRet": _UNKNOWN,
        "archMap": [{"architecture": name, "subArchitectures": []} for name in _ARCHITECTURES],
    }
    lines = [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    shown = ",\n".join(f"  {json.dumps(rule)}" for rule in rules)
    return "\n".join(("{", *lines, ' "syscalls": [', shown, " ]", "}", ""))


def _rules(role: str, source: Mapping[str, Any], watermark: int = 0) -> Iterator[Json]:
    extra = source.get(role, {})
    moved = frozenset(extra.get("calls", ()))
    for group in source["allow"]:
        yield {"names": sorted(group["calls"]), "action": _ALLOW}
    if moved:
        yield {"names": sorted(moved), "action": _ALLOW}
    for group in source["refuse"]:
        yield {
            "names": sorted({*group["calls"]} - moved),
            "action": _ERRNO,
            "errnoRet": _number(group["errno"]),
        }
    for one in source["conditional"]:
        values = (
            [*one.get("values", ()), *extra.get(one["call"], ())] if one["call"] == "personality" else None
        )
        yield from _conditional(one, values, extra, watermark if one["call"] == "socket" else 0)


def _conditional(one: Json, values: list[str] | None, extra: Json, watermark: int) -> Iterator[Json]:
    index, mask = one["argument"], _FIELDS[one.get("field", "")]
    refused = _number(one["errno"]) if "errno" in one else _UNKNOWN
    if "without_bits" in one:
        bits = [_number(name) for name in one["without_bits"]]
        yield _rule(one["call"], None, (index, sum(bits), 0))
        # Each case names the highest bit that is set, so that no two of them are true at once.
        for place, bit in enumerate(sorted(bits, reverse=True)):
            above = sum(sorted(bits, reverse=True)[:place])
            yield _rule(one["call"], refused, (index, above | bit, bit))
        return
    answers: dict[int, int | None] = {}
    other: int | None = refused
    if "not_values" in one:
        answers, other = {_number(name): refused for name in one["not_values"]}, None
    for name in values or one.get("values", ()):
        answers[_number(name)] = None
    pairs = [*one.get("also", ()), *extra.get(one["call"], ())] if one["call"] == "socket" else []
    if watermark:
        answers[WATERMARK_FAMILY] = watermark
    shared = {_number(pair["value"]) for pair in pairs}
    for case_mask, value, answer in _cases(answers, shared, other, mask):
        if answer != _UNKNOWN:  # what no rule speaks of has that answer already
            yield _rule(one["call"], answer, (index, case_mask, value))
    for value in sorted(shared):
        inner = {_number(pair["and_value"]): None for pair in pairs if _number(pair["value"]) == value}
        second = pairs[0]["and_argument"]
        for case_mask, inside, answer in _cases(inner, frozenset(), refused, _INT):
            yield _rule(one["call"], answer, (index, mask, value), (second, case_mask, inside))


def _cases(
    answers: Mapping[int, int | None], left_out: frozenset[int] | set[int], other: int | None, mask: int
) -> Iterator[tuple[int, int, int | None]]:
    """Disjoint (mask, value, answer) that cover all numbers of the bits of `mask` but those of `left_out`.

    A number of `answers` has its answer, all others `other`. Whole branches of the tree of bits are one case.
    """
    bits = [1 << place for place in reversed(range(32)) if mask >> place & 1]

    def below(depth: int, known: int, named: list[int]) -> Iterator[tuple[int, int, int | None]]:
        upper = sum(bits[:depth])
        if not named:
            yield upper, known, other
        elif depth == len(bits):
            if named[0] not in left_out:
                yield upper, known, answers[named[0]]
        else:
            for value in (0, bits[depth]):
                yield from below(
                    depth + 1, known | value, [one for one in named if one & bits[depth] == value]
                )

    yield from below(0, 0, [*answers, *left_out])


def _rule(call: str, answer: int | None, *conditions: tuple[int, int, int]) -> Json:
    args = [{"index": i, "value": mask, "valueTwo": value, "op": _MASKED} for i, mask, value in conditions]
    done = {"action": _ALLOW} if answer is None else {"action": _ERRNO, "errnoRet": answer}
    return {"names": [call], **done, "args": args}


def _number(name: str) -> int:
    if name.isdigit():
        return int(name)
    if name in _KERNEL:
        return _KERNEL[name]
    for module in (errno, stat):
        if hasattr(module, name):
            return int(getattr(module, name))
    raise KeyError(f"calls.toml has a name that nobody knows: {name}")


def main() -> None:
    """Write the profiles beside `calls.toml`."""
    source = tomllib.loads((HERE / "calls.toml").read_text(encoding="utf-8"))
    for role in ROLES:
        (HERE / f"{role}.json").write_text(render(role, source), encoding="utf-8")


if __name__ == "__main__":
    main()
