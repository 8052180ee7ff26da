"""The README of the flight encoder: its template filled with what follows from the network, and with what benchmarks/flight.py measured."""
from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.to_c99 import SOURCES, Constants
from remac_runtime.errors import BadInput
from remac_runtime.fit import FLIGHT_STRIP_ROWS
from remac_runtime.format import BAND_ROWS
from remac_runtime.network import Bank, Network

TEMPLATE = SOURCES / "README.md.in"
RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "flight.json"
FRAME = (1600, 1200)      # width and height of the memory map
NOT_MEASURED = "Not measured for this network: run `python -m benchmarks.flight`, then generate again."
_DEFINE = re.compile(r"^#define (REMAC_FLIGHT_\w+)(?:\(([\w, ]+)\))? ((?:.*\\\n)*.*)$", re.MULTILINE)
_REGION = re.compile(r'X\((\w+), ([^"]+), "([^"]+)"\)')


@dataclass(frozen=True)
class Region:
    """A part of the working memory, in bytes, as in REMAC_FLIGHT_REGIONS of the header."""

    name: str
    size: int
    what: str


def memory_map(header: str, width: int, height: int, band_rows: int, keep: int) -> list[Region]:
    """The regions of the working memory for a header, from its own macros, so that no compiler is needed."""
    space: dict[str, Any] = {
        "REMAC_FLIGHT_MAX": max, "REMAC_FLIGHT_BAND": lambda h, b: min(-(-h // 64) * 64, b),
        "REMAC_FLIGHT_SLOT": lambda h, b, k: -(-h // 64) * 64 if k else min(-(-h // 64) * 64, b),
    }
    regions = ""
    for name, parameters, text in _DEFINE.findall(header):
        body = text.replace("\\\n", " ").split("/*")[0]
        if name == "REMAC_FLIGHT_REGIONS":
            regions = body
        elif name not in space and name not in {"REMAC_FLIGHT_WORK_BYTES", "REMAC_FLIGHT_ADD"}:
            expression = re.sub(r"\(uint64_t\)|(?<=\d)u\b", "", body).replace("/", "//").strip()
            space[name] = eval(f"lambda {parameters}: {expression}" if parameters else expression, space)
    rounded: Callable[[int], int] = space["REMAC_FLIGHT_ROUND"]
    values = {"w": width, "h": height, "b": band_rows, "k": keep}
    return [Region(name, rounded(eval(re.sub(r"(?<=\d)u\b", "", size).replace("/", "//"), space, values)), what)
            for name, size, what in _REGION.findall(regions)]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown; the first column to the left, the others to the right unless they hold words."""
    lines = [f"| {' | '.join(head)} |", "|" + "|".join("---" if i == 0 or " " in str(rows[0][i]) else "---:" for i in range(len(head))) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def measured(network: Network, results: Path = RESULTS) -> dict[str, Any] | None:
    """What benchmarks/flight.py wrote, if it is about this profile and these widths; raises BadInput for a damaged file."""
    try:
        content = json.loads(results.read_text(encoding="utf-8"))
        about = content["profile"], content["widths"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{results}: damaged results ({error}): run `python -m benchmarks.flight`") from None
    return dict(content) if about == (network.profile, widths(network)) else None


def widths(network: Network) -> dict[str, int]:
    """Output channels of every layer."""
    return {name: len(layer.bias) for name, layer in network.layers.items()}


def _memory(header: str) -> tuple[str, int]:
    regions = memory_map(header, *FRAME, BAND_ROWS, 0)
    offset, rows = 0, []
    for region in regions:
        rows.append((f"`{region.name}`", f"{offset:,}", f"{region.size:,}", region.what))
        offset += region.size
    return table(("region", "offset", "bytes", "content"), [*rows, ("total", "", f"{offset:,}", "")]), offset


def _processors(content: dict[str, Any]) -> str:
    rows = [(build["processor"], f"{build['compiler']} {build['flags']}", f"{build['code_bytes']:,}", f"{build['stack_bytes']:,}",
             *(f"{build['instructions_per_pixel'][stage]:,.0f}" for stage in content["stages"]),
             f"{sum(build['instructions_per_pixel'].values()):,.0f}") for build in content["builds"]]
    return table(("processor", "compiler", "code, bytes", "stack, bytes", *content["stages"], "instructions a pixel"), rows)


def _prediction(content: dict[str, Any]) -> str:
    boards = content["prediction"]["boards"]
    modes = list(dict.fromkeys(mode for board in boards for mode in board["joules"]))
    rows = [(f"{board['name']}", f"{board['clock_mhz']}", f"{board['seconds']:,.0f}",
             *(f"{board['joules'][mode]:,.0f}" if mode in board["joules"] else "-" for mode in modes)) for board in boards]
    return table(("processor", "MHz", "seconds", *(f"joules, {mode}" for mode in modes)), rows) + f"\n\n{content['prediction']['assumption']}"


def render(network: Network, bank: Bank | None, content: Constants, header: str) -> str:
    """README.md of a network. Raises BadInput where the template names a figure that does not exist."""
    results = measured(network)
    memory, work_bytes = _memory(header)
    keep_bytes = sum(region.size for region in memory_map(header, *FRAME, BAND_ROWS, 1))
    values = {
        "PROFILE": network.profile, "CODEC": network.hash.hex(), "BANK": f"{len(bank)} entries, {bank.hash.hex()}" if bank else "none",
        "WEIGHT_BYTES": f"{content.weight_bytes:,}", "TABLE_BYTES": f"{content.table_bytes:,}", "BANK_BYTES": f"{content.bank_bytes:,}",
        "WIDTH": str(FRAME[0]), "HEIGHT": str(FRAME[1]), "BAND_ROWS": str(BAND_ROWS),
        "BAND_PUSHES": str(BAND_ROWS // FLIGHT_STRIP_ROWS), "WORK_BYTES": f"{work_bytes:,}",
        "WORK_MIB": f"{work_bytes / 2 ** 20:.1f}", "KEEP_BYTES": f"{keep_bytes:,}", "KEEP_MIB": f"{keep_bytes / 2 ** 20:.1f}", "MEMORY_MAP": memory,
        "PROCESSORS": _processors(results) if results else NOT_MEASURED, "PREDICTION": _prediction(results) if results else NOT_MEASURED,
        "STACK_BYTES": f"{max(build['stack_bytes'] for build in results['builds']):,}" if results else "not measured",
    }
    return fill(TEMPLATE.read_text(encoding="utf-8"), values)


def fill(template: str, values: dict[str, str]) -> str:
    """Put values in place of @NAME@. Raises BadInput for a name without a value."""
    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise BadInput(f"{TEMPLATE.name}: @{match[1]}@ is not one of its figures")
        return values[match[1]]
    return re.sub(r"@([A-Z_]+)@", value, template)
