"""How the `remac` command ends: exit codes, as `remac --help` lists them, and errors in one line."""
from __future__ import annotations

from enum import IntEnum

from remac_runtime.errors import RemacError

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
  3    decoded with loss: damaged or missing bands were concealed (decode, view), or would be (info)
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
