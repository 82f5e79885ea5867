"""A tiny program between us and a child: it does what must happen after fork and before exec.

`subprocess` offers `preexec_fn` for this, but Python code between fork and exec may deadlock in a
process with threads. A fresh interpreter has one thread, so the same steps are safe here. The file is
run as a script by `infra.launch` and imports nothing but the standard library.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

#: "Ask the kernel to signal me when my parent dies", from linux/prctl.h.
PR_SET_PDEATHSIG: Final = 1
#: Stands for "keep the user" among the arguments.
SAME_USER: Final = "-"
EXIT_ORPHANED: Final = 125
EXIT_NOT_STARTED: Final = 127


def drop_privileges(uid: int, gid: int) -> None:
    """Become an ordinary user for good; the order matters, since the last step takes the right to the others."""
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def die_with_parent(death_signal: int, parent: int) -> None:
    """Have the kernel send `death_signal` when the parent dies; leave now if it already has.

    A change of user clears this setting, so it comes after `drop_privileges`.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(EXIT_ORPHANED)


def become(command: Sequence[str]) -> NoReturn:
    """Replace this interpreter by `command`, with the signals Python ignores back at their defaults."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execvp(command[0], list(command))  # noqa: S606 - no shell is wanted; the caller chose the program
    except OSError as error:
        sys.stderr.write(f"cannot start {command[0]}: {error.strerror}\n")
        sys.exit(EXIT_NOT_STARTED)


def main(arguments: Sequence[str]) -> NoReturn:
    """Run `child PARENT SIGNAL UID GID COMMAND…` or `detach REPORT_FD COMMAND…`."""
    mode, *rest = arguments
    if mode == "detach":
        report, *command = rest
        pid = os.fork()
        if pid:
            os.write(int(report), str(pid).encode())
            os._exit(0)
        os.close(int(report))
        become(command)
    parent, death_signal, uid, gid, *command = rest
    if uid != SAME_USER:
        drop_privileges(int(uid), int(gid))
    die_with_parent(int(death_signal), int(parent))
    become(command)


if __name__ == "__main__":
    main(sys.argv[1:])
