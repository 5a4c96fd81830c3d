"""No command opens a connection or asks for a name, whatever language it is written in.

A shim in C++, loaded before every library of every process, writes down each attempt that would leave the machine and lets it
fail. It sees what goes through the C library: Python, MediaPipe, OpenCV, FFmpeg, PyTorch. g++ is needed by other tests too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import SMALL
from flowkit.synthetic.recordings import RecordingConfig, record

SHIM = r"""
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

namespace {
void tell(const char *what, const char *whom) {
    char line[512];
    const int length = std::snprintf(line, sizeof line, "%s %s\n", what, whom ? whom : "?");
    const int file = open(std::getenv("FLOWKIT_TEST_NETWORK_LOG"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (file < 0 || write(file, line, static_cast<size_t>(length)) != length) std::abort();
    close(file);
}
bool leaves(const sockaddr *to) {
    if (!to) return false;
    if (to->sa_family == AF_INET) return (ntohl(reinterpret_cast<const sockaddr_in *>(to)->sin_addr.s_addr) >> 24) != 127;
    if (to->sa_family == AF_INET6) return !IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6 *>(to)->sin6_addr);
    return false;
}
template <typename F> F next(const char *name) { return reinterpret_cast<F>(dlsym(RTLD_NEXT, name)); }
}

extern "C" {
int connect(int socket, const sockaddr *to, socklen_t length) {
    if (leaves(to)) { tell("connect", nullptr); errno = ENETUNREACH; return -1; }
    return next<int (*)(int, const sockaddr *, socklen_t)>("connect")(socket, to, length);
}
ssize_t sendto(int socket, const void *data, size_t size, int flags, const sockaddr *to, socklen_t length) {
    if (leaves(to)) { tell("sendto", nullptr); errno = ENETUNREACH; return -1; }
    return next<ssize_t (*)(int, const void *, size_t, int, const sockaddr *, socklen_t)>("sendto")(
        socket, data, size, flags, to, length);
}
ssize_t sendmsg(int socket, const msghdr *message, int flags) {
    if (leaves(static_cast<const sockaddr *>(message->msg_name))) {
        tell("sendmsg", nullptr); errno = ENETUNREACH; return -1;
    }
    return next<ssize_t (*)(int, const msghdr *, int)>("sendmsg")(socket, message, flags);
}
int getaddrinfo(const char *name, const char *service, const addrinfo *hints, addrinfo **found) {
    if (name && std::strcmp(name, "localhost") && std::strcmp(name, "127.0.0.1") && std::strcmp(name, "::1")) {
        tell("getaddrinfo", name); return EAI_FAIL;
    }
    return next<int (*)(const char *, const char *, const addrinfo *, addrinfo **)>("getaddrinfo")(
        name, service, hints, found);
}
hostent *gethostbyname(const char *name) { tell("gethostbyname", name); return nullptr; }
hostent *gethostbyname2(const char *name, int) { tell("gethostbyname2", name); return nullptr; }
int gethostbyname_r(const char *name, hostent *, char *, size_t, hostent **found, int *error) {
    tell("gethostbyname_r", name); *found = nullptr; *error = HOST_NOT_FOUND; return 0;
}
int res_query(const char *name, int, int, unsigned char *, int) { tell("res_query", name); return -1; }
}
"""
ATTEMPTS = """
import ctypes, socket, struct
for attempt in (
    lambda: socket.socket().connect(("192.0.2.1", 9)),
    lambda: socket.getaddrinfo("example.invalid", 80),
    lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 9)),
):
    try:
        attempt()
    except OSError:
        pass
library = ctypes.CDLL(None)  # as a library in C++ would
library.gethostbyname(b"example.invalid")
library.connect(library.socket(2, 1, 0), struct.pack("=H", 2) + struct.pack("!H4B", 9, 192, 0, 2, 1) + bytes(8), 16)
listening = socket.create_server(("127.0.0.1", 0))
socket.create_connection(listening.getsockname()).close()
"""


class Watch:
    """The shim, and what it saw."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "attempts"
        (folder / "shim.cpp").write_text(SHIM)
        command = ["g++", "-shared", "-fPIC", "-O1", "-o", str(folder / "shim.so"), str(folder / "shim.cpp"), "-ldl"]
        subprocess.run(command, check=True, timeout=120)
        self.environment = {"LD_PRELOAD": str(folder / "shim.so"), "FLOWKIT_TEST_NETWORK_LOG": str(self.log)}

    def attempts(self) -> list[str]:
        """Every attempt since the last call."""
        seen = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return seen


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Watch:
    return Watch(tmp_path_factory.mktemp("shim"))


COMMANDS = """
import importlib, json, os, pathlib, sys
from click.testing import CliRunner

for program, *words in json.loads(sys.argv[1]):
    done = CliRunner().invoke(importlib.import_module(f"{program}.cli").main, words)
    assert done.exit_code == 0, (words, done.output, done.exception)
    assert not os.path.exists(os.environ["FLOWKIT_TEST_NETWORK_LOG"]), words
    print(program, words[0])
"""


def run(watch: Watch, *commands: tuple[str | Path, ...]) -> None:
    """Run commands in one process, behind the shim."""
    environment = {**os.environ, **watch.environment, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    listed = json.dumps([list(map(str, command)) for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, listed],
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{program} {name}" for program, name, *_ in commands]
    assert watch.attempts() == []


def test_the_watch_sees_what_would_leave_the_machine_and_nothing_else(watch: Watch) -> None:
    """Also from a child of a child, as workers are."""
    environment = {**os.environ, **watch.environment}
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {ATTEMPTS!r}], check=True)"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
    seen = [line.split()[0] for line in watch.attempts()]
    assert seen == ["connect", "getaddrinfo", "sendto", "gethostbyname", "connect"]


def test_an_extraction_with_mediapipe_opens_no_connection(watch: Watch, uncropped: Path, tmp_path: Path) -> None:
    config = RecordingConfig(subjects=1, seconds=2.0, width=120, height=120)
    video = record(tmp_path / "recording", config).with_name("s01.mp4")
    run(
        watch,
        ("flowkit", "spot-intervals", video, "--out", tmp_path / "found.csv", "--workers", "1"),
        ("flowkit", "extract", uncropped, "--out", tmp_path / "out", "--size", "96", "--workers", "1"),
        ("flowkit", "spot", uncropped, "--out", tmp_path / "spotted.csv", "--workers", "1"),
    )


def test_no_other_command_opens_a_connection(watch: Watch, cropped: Path, tmp_path: Path) -> None:
    out, trained = tmp_path / "out", tmp_path / "run"
    flags = (
        "--epochs",
        "1",
        "--workers",
        "1",
        "--seeds",
        "1",
        "--protocol",
        "holdout",
        "--hold-out",
        "synth/s01",
        "--classes",
        "raw",
    )
    run(
        watch,
        ("flowkit", "check", cropped),
        ("flowkit", "extract", cropped, "--out", out, *SMALL, "--keep-faces"),
        ("flowkit", "inspect", out),
        ("flowkit", "verify", out),
        ("flowkit", "report", out),
        ("flowkit", "export", out, "--format", "npz", "--out", tmp_path / "npz"),
        ("flowkit", "doctor"),
        ("fmanet", "train", out, "--out", trained, *flags),
        ("fmanet", "evaluate", trained),
        ("fmanet", "report", trained),
        ("fmanet", "predict", trained, out, "--out", tmp_path / "predictions.csv"),
    )
