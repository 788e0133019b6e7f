"""A machine for seccomp filters (classic BPF, Documentation/networking/filter.rst), and those of a running process.

What a filter answers is computed here from the very program that the kernel runs: no system call is made to find out.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence

AUDIT_ARCH_X86_64 = 0xC000003E
AUDIT_ARCH_I386 = 0x40000003
ALLOW, ERRNO, KILL_PROCESS, KILL_THREAD = 0x7FFF0000, 0x00050000, 0x80000000, 0
_PTRACE_ATTACH, _PTRACE_DETACH, _PTRACE_SECCOMP_GET_FILTER = 16, 17, 0x420C  # linux/ptrace.h

Program = Sequence[tuple[int, int, int, int]]  # struct sock_filter: code, jump if true, jump if false, k


def filters_of(pid: int) -> list[Program]:
    """The filters of a process, youngest first. Needs CAP_SYS_ADMIN, and that nobody traces it."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long

    def ptrace(request: int, address: int = 0, data: object = None) -> int:
        return int(libc.ptrace(request, pid, address, data))

    if ptrace(_PTRACE_ATTACH) != 0:
        raise OSError(ctypes.get_errno(), f"cannot trace {pid}")
    try:
        os.waitpid(pid, 0)
        found: list[Program] = []
        while (length := ptrace(_PTRACE_SECCOMP_GET_FILTER, len(found))) > 0:
            buffer = ctypes.create_string_buffer(length * 8)
            assert ptrace(_PTRACE_SECCOMP_GET_FILTER, len(found), buffer) == length
            found.append(list(struct.iter_unpack("=HBBI", buffer.raw)))
        return found
    finally:
        ptrace(_PTRACE_DETACH)


def answer(
    filters: Sequence[Program], number: int, args: Sequence[int] = (), *, arch: int = AUDIT_ARCH_X86_64
) -> int:
    """What the kernel does with a call: the strictest word of all filters (seccomp(2)), as a signed comparison."""
    words = [number, arch, 0, 0]
    for value in (*args, *[0] * (6 - len(args))):
        words += [value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF]
    found = [_run(program, words) for program in filters]
    return min(found, key=lambda word: struct.unpack("=i", struct.pack("=I", word & 0xFFFF0000))[0])


def _run(program: Program, data: Sequence[int]) -> int:
    accumulator, index, memory, at = 0, 0, [0] * 16, 0
    while True:
        code, yes, no, k = program[at]
        at += 1
        kind = code & 7
        if kind == 0:  # BPF_LD: an absolute word of seccomp_data, an immediate, or memory
            source = code & 0xE0
            accumulator = data[k // 4] if source == 0x20 else memory[k] if source == 0x60 else k
        elif kind == 1:  # BPF_LDX
            index = memory[k] if code & 0xE0 == 0x60 else k
        elif kind == 2:  # BPF_ST
            memory[k] = accumulator
        elif kind == 4:  # BPF_ALU
            operand = index if code & 8 else k
            accumulator = {
                0x00: accumulator + operand, 0x10: accumulator - operand, 0x40: accumulator | operand,
                0x50: accumulator & operand, 0x60: accumulator << (operand & 31), 0x70: accumulator >> (operand & 31),
            }[code & 0xF0] & 0xFFFFFFFF  # fmt: skip
        elif kind == 5:  # BPF_JMP
            operand = index if code & 8 else k
            test = {
                0x00: True, 0x10: accumulator == operand, 0x20: accumulator > operand,
                0x30: accumulator >= operand, 0x40: bool(accumulator & operand),
            }[code & 0xF0]  # fmt: skip
            at += k if code & 0xF0 == 0 else (yes if test else no)
        elif kind == 6:  # BPF_RET
            return accumulator if code & 0x18 == 0x10 else k
        else:  # BPF_MISC: TAX, TXA
            index, accumulator = (accumulator, accumulator) if code == 7 else (index, index)
