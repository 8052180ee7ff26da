"""How an export command ends."""
from __future__ import annotations

from collections.abc import Sequence
from functools import wraps
from typing import Protocol

from remac_runtime import exits
from remac_runtime.errors import RemacError


class Main(Protocol):
    """A command: its arguments (None: those of the process) -> its exit code."""

    def __call__(self, arguments: Sequence[str] | None = None) -> int: ...


def reported(main: Main) -> Main:
    """`main` with one line on standard error for what a user can mend (remac_runtime.exits.reported), a package that is missing too."""
    @exits.reported
    @wraps(main)
    def ended(arguments: Sequence[str] | None = None) -> int:
        try:
            return main(arguments)
        except ModuleNotFoundError as error:
            raise RemacError(f"{error.name} is not installed: pip install -e '.[export]', or run `make encoder`") from None
    return ended
