"""How a command ends: the exit codes of `remac`, as `remac --help` lists them, errors in one line, and interrupts."""
from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import wraps
from typing import NoReturn, ParamSpec

from remac_runtime.errors import RemacError

P = ParamSpec("P")

DEBUG_VARIABLE = "REMAC_DEBUG"


class Exit(IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2
    LOSS = 3
    DIFFERENT = 4
    SHAPES_DIFFER = 5
    INTERRUPTED = 130


MEANING = """\
exit codes:
  0    done; compare: equal
  1    an error, or a file of the batch failed
  2    wrong usage
  3    decoded with loss: damaged or missing bands were concealed (decode, ground, view), or would be (info)
  4    compare: different
  5    compare: shapes or types differ
  130  interrupted; nothing half-written is left
"""


class UsageError(Exception):
    """Arguments that contradict each other or the files at hand; the command ends with Exit.USAGE."""


def describe(error: BaseException) -> str:
    """One line that says what went wrong, whatever it was."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'file'}: {error.strerror.lower()}: check the path, its permissions and the free space"
    if isinstance(error, MemoryError):
        return "not enough memory: encode with --strip-rows 256, or cut the picture into tiles"
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, RemacError):
        return text
    return f"internal error ({type(error).__name__}: {text}): please report it; {DEBUG_VARIABLE}=1 shows where"


def reported(main: Callable[P, int]) -> Callable[P, int]:
    """`main` of a tool beside `remac`: one line on standard error instead of a traceback for what a user can mend, and for an interrupt."""
    @wraps(main)
    def ended(*arguments: P.args, **named: P.kwargs) -> int:
        try:
            with interrupted_by_terminate():
                return main(*arguments, **named)
        except KeyboardInterrupt:
            message, code = "interrupted; nothing half-written is left", Exit.INTERRUPTED
        except BrokenPipeError:
            raise
        except (RemacError, OSError) as error:
            message, code = describe(error), Exit.FAILED
        print(f"remac: {message}", file=sys.stderr)
        return code
    return ended


@contextmanager
def interrupted_by_terminate() -> Iterator[None]:
    """SIGTERM leaves as Ctrl-C does, so that half-written files are removed."""
    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt
    if threading.current_thread() is not threading.main_thread():   # signals belong to the main thread's owner
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def interrupt_at_end() -> Iterator[None]:
    """SIGINT and SIGTERM within the block raise KeyboardInterrupt at its end, not amidst what must be done whole. Only in the main thread."""
    came: list[int] = []
    # what is ignored stays so: SIGINT, in what a shell runs in the background
    heard = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            raise KeyboardInterrupt
