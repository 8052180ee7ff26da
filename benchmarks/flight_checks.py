"""What a compiler and its tools say about the flight encoder: warnings, sizes, undefined symbols, the call graph and a bound of the stack."""
from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from remac_runtime.errors import RemacError

STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror")
ENTRIES = tuple(f"remac_flight_{name}" for name in ("defaults", "work_bytes", "begin", "push", "end", "mosaic_row", "to_buffer"))
LIBRARY = frozenset({"memcpy", "memset"})         # all that the encoder may want from a C library
CALL_GRAPH = "-fcallgraph-info=su"                # gcc writes OBJECT.ci beside the object
_NODE = re.compile(r'node: \{ title: "([^"]+)" label: "([^"]*)"')
_EDGE = re.compile(r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"')
_FRAME = re.compile(r"(\d+) bytes \(([\w,]+)\)")
_CONSTANT = ("static", "dynamic,bounded")         # the latter: aligned at run time, within the size stated


class ToolError(RemacError):
    """A compiler or tool that is missing or failed; the message is one line, the tool's first complaint."""


@dataclass(frozen=True)
class Stack:
    """The deepest chain of calls from an entry point: bytes of all frames, and the functions from the entry down. Without what the sink uses."""

    size: int
    path: tuple[str, ...]


def tool(command: Sequence[str | Path], folder: Path) -> str:
    """Run a tool in a folder; its output. Raises ToolError."""
    if shutil.which(str(command[0])) is None:
        raise ToolError(f"{command[0]} is not installed")
    done = subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        complaints = [line for line in (done.stderr or done.stdout).splitlines() if "error" in line.lower()] or [f"exit status {done.returncode}"]
        raise ToolError(f"{command[0]}: {complaints[0]}")
    return done.stdout


def compile_object(compiler: str, flags: Sequence[str], folder: Path, source: str = "remac_flight.c", out: str = "remac_flight.o") -> Path:
    """Compile under STRICT, with warnings as errors. Raises ToolError."""
    tool([compiler, *STRICT, *flags, "-c", source, "-o", out], folder)
    return folder / out


def undefined_symbols(path: Path) -> set[str]:
    """What an object wants from elsewhere."""
    return {line.split()[-1] for line in tool(["nm", "-u", path], path.parent).splitlines() if line.strip()}


def section_bytes(path: Path) -> dict[str, int]:
    """Bytes of an object's allocated sections by kind: code, constants (tables of addresses included), data (0: nothing can be written)."""
    totals = {"code": 0, "constants": 0, "data": 0}
    for line in tool(["readelf", "--wide", "--sections", path], path.parent).splitlines():
        match = re.match(r"\s*\[\s*\d+\]\s+(\S+)\s+(PROGBITS|NOBITS)\s+\S+\s+\S+\s+([0-9a-f]+)\s+\S+\s+(\S*)", line)
        if match and "A" in match[4] and not match[1].startswith((".eh_frame", ".note", ".gnu")):
            kind = "code" if "X" in match[4] else "constants" if match[1].startswith((".rodata", ".data.rel.ro", ".got")) else "data"
            totals[kind] += int(match[3], 16)
    return totals


def call_graph(text: str) -> tuple[dict[str, int], dict[str, set[str]]]:
    """(frame bytes by function, calls by function) of gcc's -fcallgraph-info=su. Raises ToolError for a frame whose size is not constant."""
    frames, calls = {}, {}
    for name, label in _NODE.findall(text):
        frame = _FRAME.search(label)
        if frame and frame[2] not in _CONSTANT:
            raise ToolError(f"{name}: its stack frame is {frame[2]}, not static")
        frames[name] = int(frame[1]) if frame else 0
        calls[name] = set[str]()
    for caller, callee in _EDGE.findall(text):
        calls.setdefault(caller, set()).add(callee)
    return frames, calls


def stack_bound(frames: Mapping[str, int], calls: Mapping[str, set[str]], entries: Sequence[str] = ENTRIES) -> Stack:
    """The deepest stack over the call graph. Raises ToolError where a function can call itself, directly or not."""
    known: dict[str, Stack] = {}

    def deepest(name: str, above: tuple[str, ...]) -> Stack:
        if name in above:
            raise ToolError(f"recursion: {' -> '.join((*above[above.index(name):], name))}")
        if name not in known:
            below = max((deepest(callee, (*above, name)) for callee in calls.get(name, ())), key=lambda stack: stack.size, default=Stack(0, ()))
            known[name] = Stack(frames.get(name, 0) + below.size, (name, *below.path))
        return known[name]

    return max((deepest(entry, ()) for entry in entries), key=lambda stack: stack.size)


def measured_stack(path: Path) -> Stack:
    """The bound for an object that gcc compiled with CALL_GRAPH among its flags. Raises ToolError."""
    return stack_bound(*call_graph(path.with_suffix(".ci").read_text(encoding="utf-8")))
