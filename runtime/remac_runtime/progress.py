"""A progress bar for people who watch: tqdm where it is installed and standard error is a terminal, otherwise nothing."""
from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any


class Progress:
    """`with Progress(total, "file") as bar: bar.advance()`. `shown` says whether there is a bar, so that callers print lines in its place."""

    def __init__(self, total: int, unit: str, leave: bool = True) -> None:
        self._bar: Any = None
        if sys.stderr.isatty():
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self._bar = tqdm(total=total, unit=unit, file=sys.stderr, leave=leave, smoothing=0.05)

    @property
    def shown(self) -> bool:
        return self._bar is not None

    def advance(self, count: int = 1) -> None:
        if self._bar is not None:
            self._bar.update(count)

    def say(self, message: str) -> None:
        """A line on standard error that does not tear the bar."""
        if self._bar is not None:
            self._bar.write(message, file=sys.stderr)
        else:
            print(message, file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()


def watcher(unit: str) -> Callable[[int, int], None]:
    """A bar for work that calls back with how much is done and how much there is: it appears with the first call and goes with the last."""
    bar: list[Progress] = []

    def watch(done: int, total: int) -> None:
        if not bar:
            bar.append(Progress(total, unit, leave=False))
        bar[0].advance()
        if done == total:
            bar.pop().__exit__(None, None, None)
    return watch
