"""One commit of each kind of file, without anything being computed: `python benchmarks/commits.py OUT`.

With --at-each-step, or --failing CALL, it is done in child processes: one dies at the first step, the next at the second, and so on
(or has the so-many-th call of `os.CALL` fail); in each folder it is then done again, undisturbed. Ends with 1 if a commit is
ever found half done, or the second time does not go well.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowkit.errors import FlowkitError
from flowkit.storage import commit, durable_files, hashed_json

CONTENT = {"key": "k", "clips": [], "failures": [], "began": 0.0, "ended": 1.0, "host": "h"}
DIED = 137
FAILED = 1


def commit_one_of_each(out: Path) -> None:
    """What `flowkit extract` does to the disk."""
    commit.probe(out)
    durable_files.remove_stale_temporaries(out)
    durable_files.publish_file(out / commit.RUN_FILE, hashed_json.encode({"schema": hashed_json.SCHEMA}))
    durable_files.publish_file(out / "plan" / "000000.json", hashed_json.encode({"schema": hashed_json.SCHEMA}))
    commit.publish(out, 0, b"numbers", CONTENT)
    durable_files.replace_file(out / "index.npz", b"{}")


def commit_or_say_why(out: Path) -> int:
    """The same; 1 if it ended with an error that a command would tell in words."""
    try:
        commit_one_of_each(out)
    except (FlowkitError, OSError) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return FAILED
    return 0


def in_child(action: Callable[[], int]) -> int:
    """Exit code of an action in a process of its own."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = action()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die(out: Path, number: int) -> int:
    """Die at a step."""
    os.environ["FLOWKIT_TEST_DIE_AT"] = str(number)
    return commit_or_say_why(out)


def fail(out: Path, call: str, number: int, error: int) -> int:
    """Have one call of an operation of `os` fail; end with 0 if there are not so many."""
    original, calls = getattr(os, call), itertools.count(1)

    def operation(*arguments: Any, **named: Any) -> Any:
        if next(calls) == number:
            raise OSError(error, os.strerror(error), str(arguments[0]))
        return original(*arguments, **named)

    setattr(os, call, operation)
    code = commit_or_say_why(out)
    return DIED if code == 0 and next(calls) > number else code  # it did not mind


def disturbed(base: Path, disturb: Callable[[Path, int], int]) -> None:
    """Disturb the first time in every way there is, one folder each, and do it a second time."""
    for number in itertools.count(1):
        out = base / f"{number:03d}"
        code = in_child(lambda out=out, number=number: disturb(out, number))
        if code not in (0, FAILED, DIED):
            sys.exit(f"{out}: the first time must end with an error in words; got exit code {code}.")
        if out.is_dir() and commit.invalid_records(out):
            sys.exit(f"{out}: a commit must be whole or not at all; got half of one.")
        if in_child(lambda out=out: commit_or_say_why(out)) != 0:
            sys.exit(f"{out}: the second time must go well.")
        if code == 0:
            return


def main() -> None:
    """Commit, once or many times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--at-each-step", action="store_true")
    parser.add_argument("--failing", metavar="CALL")
    parser.add_argument("--error", type=int, metavar="ERRNO")
    options = parser.parse_args()
    if options.at_each_step:
        disturbed(options.out, die)
    elif options.failing:
        disturbed(options.out, lambda out, number: fail(out, options.failing, number, options.error))
    else:
        sys.exit(commit_or_say_why(options.out))


if __name__ == "__main__":
    main()
