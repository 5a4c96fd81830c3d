"""Makes a real command run as on another system: with this folder first on PYTHONPATH, our modules miss what that system lacks.

FLOWKIT_ELSEWHERE names the system: darwin or win32. Only our packages see it. Python and the libraries stay those of Linux. So this
shows that our code asks for nothing that is not there. It does not show what the other system's own calls do.
"""

from __future__ import annotations

import builtins
import ctypes
import os
import sys
import types
from typing import Any

OURS = ("flowkit", "flowkit_kernels", "fmanet")
MACOS_LACKS = {
    "os": {
        *("sched_getaffinity", "sched_setaffinity", "sched_getscheduler", "fdatasync", "pipe2", "getrandom"),
        *(
            "memfd_create",
            "eventfd",
            "pidfd_open",
            "posix_fallocate",
            "posix_fadvise",
            "copy_file_range",
            "splice",
            "unshare",
        ),
        *("getxattr", "setxattr", "listxattr", "O_TMPFILE", "O_DIRECT", "O_PATH", "O_NOATIME", "O_LARGEFILE"),
    },
    "signal": {"SIGRTMIN", "SIGPWR", "SIGSTKFLT", "SIGPOLL", "sigwaitinfo", "sigtimedwait", "pidfd_send_signal"},
    "ctypes": {"CDLL"},
}
"""Of each module, the names that are there on Linux and not on macOS. No library of Linux can be loaded there, and its C library
has no prctl: nothing may ask for either."""
WINDOWS_LACKS = {
    "os": {
        *MACOS_LACKS["os"],
        *(
            "fork",
            "forkpty",
            "register_at_fork",
            "getuid",
            "geteuid",
            "getgid",
            "getegid",
            "getpgid",
            "setsid",
            "killpg",
            "nice",
        ),
        *(
            "uname",
            "sysconf",
            "statvfs",
            "fstatvfs",
            "getloadavg",
            "chown",
            "fchmod",
            "fchdir",
            "mkfifo",
            "mknod",
            "chroot",
        ),
        *(
            "pread",
            "pwrite",
            "readv",
            "writev",
            "sendfile",
            "lockf",
            "set_blocking",
            "get_blocking",
            "openpty",
            "ttyname",
        ),
        *(
            "wait",
            "wait3",
            "wait4",
            "waitid",
            "WNOHANG",
            "posix_spawn",
            "sync",
            "confstr",
            "pathconf",
            "initgroups",
            "getpriority",
        ),
        *(
            "O_NONBLOCK",
            "O_CLOEXEC",
            "O_DIRECTORY",
            "O_NOFOLLOW",
            "O_SYNC",
            "O_DSYNC",
            "O_ASYNC",
            "O_NOCTTY",
            "O_NDELAY",
        ),
    },
    "signal": {
        *MACOS_LACKS["signal"],
        *(
            "pthread_sigmask",
            "pthread_kill",
            "sigwait",
            "sigpending",
            "alarm",
            "setitimer",
            "siginterrupt",
            "pause",
            "SIG_BLOCK",
        ),
        *(
            "SIG_UNBLOCK",
            "SIG_SETMASK",
            "SIGKILL",
            "SIGSTOP",
            "SIGHUP",
            "SIGPIPE",
            "SIGCHLD",
            "SIGALRM",
            "SIGUSR1",
            "SIGUSR2",
        ),
        *("SIGQUIT", "SIGTSTP", "SIGCONT", "SIGWINCH"),
    },
    "ctypes": {"CDLL"},
}
LACKS = {"darwin": MACOS_LACKS, "win32": WINDOWS_LACKS}
NO_MODULES = {
    "darwin": {"spwd"},
    "win32": {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "spwd"},
}
F_FULLFSYNC = 51
"""A command of `fcntl` on macOS. Linux does not know it and says so, as macOS does of a network drive."""


class View(types.ModuleType):
    """A module as our packages see it there: without some names, with others."""

    def __init__(self, real: types.ModuleType, absent: set[str], **other: Any) -> None:
        vars(self).update(_real=real, _absent=absent, _other=other)

    def __getattr__(self, name: str) -> Any:
        if name in self._other:
            return self._other[name]
        if name in self._absent:
            raise AttributeError(f"module {self._real.__name__!r} has no attribute {name!r} on this system")
        return getattr(self._real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._real, name, value)


def no_library(name: str | None, *_: object, **__: object) -> None:
    """Stand in for `ctypes.CDLL`: no library of Linux is there."""
    raise OSError(f"{name}: no such library")


def pretend(system: str) -> None:
    """Show our packages that system from now on."""
    real_import = builtins.__import__
    views = {name: View(__import__(name), absent) for name, absent in LACKS[system].items()}
    views["ctypes"] = View(ctypes, set(), CDLL=no_library)
    views["sys"] = View(sys, set(), platform=system)
    if system == "darwin":
        import fcntl

        views["fcntl"] = View(fcntl, set(), F_FULLFSYNC=F_FULLFSYNC)

    def import_there(name: str, names: Any = None, *rest: Any, **options: Any) -> Any:
        if (names or {}).get("__name__", "").partition(".")[0] in OURS:
            if name in NO_MODULES[system]:
                raise ModuleNotFoundError(f"No module named {name!r} on this system", name=name)
            if name in views:
                return views[name]
        return real_import(name, names, *rest, **options)

    builtins.__import__ = import_there


if os.environ.get("FLOWKIT_ELSEWHERE"):
    pretend(os.environ["FLOWKIT_ELSEWHERE"])
