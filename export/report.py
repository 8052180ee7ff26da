"""What an export reports: checks, and a table or JSON of figures."""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CheckResult:
    """One line of the report; `detail` says what was compared or names the first offence."""

    name: str
    passed: bool
    detail: str = ""


@dataclass(frozen=True)
class Section:
    """A block of the table: rows of cells under a title."""

    title: str
    rows: Sequence[Sequence[str]]


def render(sections: Sequence[Section]) -> str:
    """Sections as text, columns aligned within each: first cells and sentences to the left, other cells to the right."""
    lines = []
    for section in sections:
        lines += ["", section.title, "-" * len(section.title)]
        columns = max((len(row) for row in section.rows), default=0)
        widths = [max((len(row[i]) for row in section.rows if i < len(row)), default=0) for i in range(columns)]
        for row in section.rows:
            cells = [cell.ljust(widths[i]) if i == 0 or " " in cell else cell.rjust(widths[i]) for i, cell in enumerate(row)]
            lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines[1:])


def plain(value: Any) -> Any:
    """Figures for JSON: not-a-number and infinity, which JSON does not have, become null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
