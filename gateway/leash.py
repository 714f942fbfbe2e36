"""Run a program that cannot outlive whoever started it.

    python -I -S leash.py <pid of the parent> [--user=<name>] <program> [arguments]

It stands between the mesh and Envoy for a few milliseconds: it asks the kernel to kill this process
when the thread that started it ends, then becomes the program, as another user where one is named:
some programs refuse to run as root. The order survives that. Done here
and not between fork and exec of the mesh, where Python code is unsafe beside gRPC's threads.

Only the standard library is imported, and of the project nothing: this is run by its path.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_USER = "--user="


def main() -> None:
    """Tie this process to its parent and become the program."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if program[0].startswith(_USER):
        _become(program.pop(0).removeprefix(_USER))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the order was in place
        sys.exit(1)
    # Every connection is a file, and the usual soft limit is 1,024.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.execv(program[0], program)  # noqa: S606  no shell is the point


def _become(name: str) -> None:
    """Give up root. Before the order to the kernel, which would forget it."""
    user = pwd.getpwnam(name)
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


if __name__ == "__main__":
    main()
