"""How an export command ends."""
from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import wraps
from typing import Protocol

from remac_runtime.errors import RemacError


class Main(Protocol):
    """A command: its arguments (None: those of the process) -> its exit code."""

    def __call__(self, arguments: Sequence[str] | None = None) -> int: ...


def reported(main: Main) -> Main:
    """`main` with one line on standard error and exit code 1 for what it raises of remac's errors, and for a package that is missing."""
    @wraps(main)
    def ended(arguments: Sequence[str] | None = None) -> int:
        try:
            return main(arguments)
        except RemacError as error:
            message = str(error)
        except ModuleNotFoundError as error:
            message = f"{error.name} is not installed: pip install -e '.[export]', or run `make encoder`"
        print(f"remac: {message}", file=sys.stderr)
        return 1
    return ended
