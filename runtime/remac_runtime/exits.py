"""Exit codes of the `remac` command, as `remac --help` lists them."""
from __future__ import annotations

from enum import IntEnum


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
