"""Shuts a process off from the machine around it. Should a template or a grammar take the process over, it finds no key
in the environment and cannot open a file, a connection or another program."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterator, Mapping

KEPT = ("PYTHON", "LD_LIBRARY_PATH", "DYLD_", "LANG", "LC_", "TZ")
"""Beginnings of the names of variables that Python needs, for itself, its texts and its clock."""

AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
SECCOMP = {"x86_64": 317, "aarch64": 277}
CLONE = {"x86_64": 56, "aarch64": 220}
CLONE3 = 435
CLONE_THREAD = 0x10000
X32 = 0x40000000
"""Numbers from here on belong to another way into x86-64's kernel."""

DENIED: dict[str, tuple[int, ...]] = {
    "x86_64": (
        *(2, 85, 257, 437, 304, 319),  # open, creat, openat, openat2, open_by_handle_at, memfd_create
        *(41, 42, 49, 50, 53),  # socket, connect, bind, listen, socketpair
        *(57, 58, 59, 322, CLONE3),  # fork, vfork, execve, execveat
        *(62, 101, 310, 311, 434, 438),  # kill, ptrace, process_vm_readv and _writev, pidfd_open, pidfd_getfd
        *(82, 83, 84, 86, 87, 88, 90, 92),  # rename, mkdir, rmdir, link, unlink, symlink, chmod, chown
        *(258, 260, 263, 264, 265, 266, 268, 316),  # mkdir, chown, unlink, rename, link, symlink, chmod, rename2: …at
        *(76, 165, 272, 308),  # truncate, mount, unshare, setns
        *(29, 250, 298, 321, 323, 425),  # shmget, keyctl, perf_event_open, bpf, userfaultfd, io_uring_setup
        16,  # ioctl, which types into a terminal
    ),
    "aarch64": (
        *(56, 437, 265, 279),  # openat, openat2, open_by_handle_at, memfd_create
        *(198, 199, 200, 201, 203),  # socket, socketpair, bind, listen, connect
        *(221, 281, CLONE3),  # execve, execveat
        *(129, 117, 270, 271, 434, 438),  # kill, ptrace, process_vm_readv and _writev, pidfd_open, pidfd_getfd
        *(34, 35, 36, 37, 38, 53, 54, 276),  # mkdir, unlink, symlink, link, rename, chmod, chown, rename2: …at
        *(45, 40, 97, 268),  # truncate, mount, unshare, setns
        *(194, 219, 241, 280, 282, 425),  # shmget, keyctl, perf_event_open, bpf, userfaultfd, io_uring_setup
        29,  # ioctl, which types into a terminal
    ),
}
"""System calls by machine: they open, connect, start or reach into something. Threads may still be started."""


def environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment for a process in quarantine: `environ` without everything that Python does not need."""
    return {name: value for name, value in environ.items() if name.startswith(KEPT)}


def close_doors() -> bool:
    """Have this process open nothing from now on. Open files stay open; a module imported later is not found.

    The limit holds on every system. Returns whether the kernel refuses the system calls as well, for all threads: not
    every container lets it be asked.
    """
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, 1))
    machine = platform.machine()
    if sys.platform != "linux" or machine not in DENIED:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    code = b"".join(_filter(machine))
    program = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("@HP", len(code) // 8, ctypes.addressof(program))
    no_new_privileges, filter_mode, all_threads = 38, 1, 1
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) != 0:
        return False
    return bool(libc.syscall(SECCOMP[machine], filter_mode, all_threads, head) == 0)


def _filter(machine: str) -> Iterator[bytes]:
    """The kernel's program (classic BPF) that refuses them: EPERM, and for clone3 ENOSYS, so that clone is tried."""
    load, equal, at_least, any_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, refuse, unknown = 0x7FFF0000, 0x00050001, 0x00050026

    def word(code: int, value: int, if_so: int = 0, if_not: int = 0) -> bytes:
        return struct.pack("=HBBI", code, if_so, if_not, value)

    yield word(load, 4)  # the machine
    yield word(equal, AUDIT[machine], 1)
    yield word(answer, refuse)
    yield word(load, 0)  # the call's number
    yield word(at_least, X32, 0, 1)
    yield word(answer, refuse)
    for number in DENIED[machine]:
        yield word(equal, number, 0, 1)
        yield word(answer, unknown if number == CLONE3 else refuse)
    yield word(equal, CLONE[machine], 0, 3)
    yield word(load, 16)  # the low half of its first argument
    yield word(any_bit, CLONE_THREAD, 1, 0)
    yield word(answer, refuse)
    yield word(answer, allow)
