"""Runs the items of a runtime in child processes, so that a crash or a hang of an engine is an outcome and not the end."""
from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from remac_runtime.verify.cases import Case
from remac_runtime.verify.runtimes import Runtime, command_line, misses

UNSUPPORTED_EXIT = 77       # of a foreign program that cannot do what it is asked; the last line it printed is the reason
START_LIMIT_S = 120.0       # for a Python and its packages to load, emulated perhaps, before the first item
MOST_FAILURES = 3           # children lost to crashes or the time limit before the rest of a runtime's items is left
Events = list[dict[str, Any]]
_PACKAGE_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Item:
    """One thing to do with a case; `action` as in worker.py."""

    id: str
    action: str
    case: Case
    input: Path
    output: Path


@dataclass(frozen=True)
class Ended:
    """How an item ended: done, error, timeout, unsupported or "not run"; `facts` is what the worker said."""

    how: str
    detail: str = ""
    seconds: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Machine:
    """What a worker said of the machine it runs on."""

    facts: dict[str, Any] = field(default_factory=dict)


def run_worker(runtime: Runtime, engine: str, model: Path, items: Sequence[Item], work: Path, limit_s: float, machine: Machine) -> dict[str, Ended]:
    """All items in one worker; a new one goes on where an item has taken one down. `limit_s` is for each item."""
    ended: dict[str, Ended] = {}
    failures = 0
    work.mkdir(parents=True, exist_ok=True)
    while rest := [item.id for item in items if item.id not in ended]:
        if failures >= MOST_FAILURES:
            ended.update(dict.fromkeys(rest, Ended("not run", f"left out after {failures} failures")))
            break
        events, fault = _child(runtime, engine, model, [item for item in items if item.id in rest], work, limit_s)
        current = _account(events, rest, ended, machine)
        left = [item for item in rest if item not in ended]
        if fault is None and left:
            fault = Ended("error", "the worker ended without a word")
        if fault:
            failures += 1
            started = any(event["event"] == "hello" for event in events)
            blamed = (left if not started else [current or left[0]]) if left else rest[-1:]     # a crash at the very end is its last item's
            ended.update(dict.fromkeys(blamed, fault))
    return ended


def _account(events: Sequence[Mapping[str, Any]], items: Sequence[str], ended: dict[str, Ended], machine: Machine) -> str | None:
    """Enter what a worker said; returns the item that was under way at its end."""
    current = None
    for event in events:
        kind, facts = event["event"], {name: value for name, value in event.items() if name not in ("event", "id", "seconds")}
        if kind == "hello":
            machine.facts = facts
        elif kind == "start":
            current = event["id"]
        elif kind == "done":
            ended[event["id"]], current = Ended("done", seconds=event["seconds"], facts=facts), None
        elif kind == "error":
            ended[event["id"]], current = Ended("error", event["reason"], facts={"error": event["error"]}), None
        else:
            ended.update(dict.fromkeys(items, Ended("unsupported" if kind == "unsupported" else "error", event["reason"])))
    return current


def _child(runtime: Runtime, engine: str, model: Path, items: Sequence[Item], work: Path, limit_s: float) -> tuple[Events, Ended | None]:
    """One worker process to its end: what it said, and what went wrong with it."""
    job, results, errors = work / "job.json", work / "results.jsonl", work / "stderr.txt"
    results.unlink(missing_ok=True)
    listed = [{"id": item.id, "action": item.action, "input": str(item.input), "output": str(item.output), **item.case.options()} for item in items]
    job.write_text(json.dumps({"engine": engine, "model": str(model.resolve()), "work": str(work), "results": str(results), "items": listed}))
    path = os.pathsep.join(filter(None, [str(_PACKAGE_ROOT), runtime.environment.get("PYTHONPATH"), os.environ.get("PYTHONPATH")]))
    command = [*(runtime.launcher or (sys.executable,)), "-m", "remac_runtime.verify.worker", str(job)]

    def deadline() -> float:
        events = _events(results)
        started = [event["at"] for event in events if event["event"] == "start"]
        return started[-1] + limit_s if started else begun + max(limit_s, START_LIMIT_S)

    begun = time.time()
    ending = _run(command, {**os.environ, **runtime.environment, "PYTHONPATH": path}, errors, deadline, limit_s)
    fault = None
    if ending is None:
        fault = Ended("timeout", f"no result after {limit_s:g} s")
    elif ending != 0:
        fault = Ended("error", _death(ending, errors))
    return _events(results), fault


def _events(path: Path) -> Events:
    """Whole lines so far."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]


def _run(command: Sequence[str], environment: Mapping[str, str], errors: Path, deadline: Callable[[], float], look_s: float) -> int | None:
    """Run a child until it ends (its exit status) or its deadline, which is asked for every `look_s`, has passed (None). Nothing of it is left."""
    with errors.open("wb") as sink:
        try:
            process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True)
        except OSError as error:
            sink.write(f"{command[0]}: {(error.strerror or 'cannot be started').lower()}\n".encode())
            return 127
        with _whole_group(process):
            while (left := deadline() - time.time()) > 0:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(min(left, look_s))
            return None


@contextlib.contextmanager
def _whole_group(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Take the child and its children down at the end, however it comes."""
    try:
        yield
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _death(status: int, errors: Path) -> str:
    """Why a child ended, in words: a signal or status and the last line it printed."""
    said = [line for line in errors.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    last = f": {said[-1].strip()[:300]}" if said else ""
    if status > 0:
        return f"ended with status {status}{last}"
    try:
        return f"killed by {signal.Signals(-status).name}{last}"
    except ValueError:
        return f"killed by signal {-status}{last}"


def run_command(template: str, runtime: Runtime, model: Path, items: Sequence[Item], work: Path, limit_s: float) -> dict[str, Ended]:
    """A foreign program, once an item. An item whose options it cannot be told is unsupported."""
    ended: dict[str, Ended] = {}
    failures = 0
    work.mkdir(parents=True, exist_ok=True)
    for item in items:
        case = item.case
        values = {**case.options(), "input": item.input, "output": item.output, "model": model,
                  "depth": case.depth, "width": case.width, "height": case.height}
        missing = misses(template, values) if item.action == "encode" else None
        beyond = item.action == "decode" and case.odd and runtime.plain_streams
        if failures >= MOST_FAILURES:
            ended[item.id] = Ended("not run", f"left out after {failures} failures")
        elif missing or beyond:
            reason = f"the command takes no {{{missing}}}" if missing else "it takes undamaged streams of an encoder only"
            ended[item.id] = Ended("unsupported", reason)
        else:
            ended[item.id] = _one_command(command_line(template, values), runtime, item, work / "stderr.txt", limit_s)
            failures += ended[item.id].how in ("error", "timeout") and not case.error
    return ended


def _one_command(command: Sequence[str], runtime: Runtime, item: Item, errors: Path, limit_s: float) -> Ended:
    item.output.unlink(missing_ok=True)
    begun = time.time()
    status = _run(command, {**os.environ, **runtime.environment}, errors, lambda: begun + limit_s, limit_s)
    if status is None:
        return Ended("timeout", f"no result after {limit_s:g} s")
    if status == UNSUPPORTED_EXIT:
        return Ended("unsupported", _death(status, errors).partition(": ")[2] or "the program says so")
    if status != 0:
        return Ended("error", _death(status, errors), facts={"status": status})
    if not item.output.is_file():
        return Ended("error", "ended well but wrote no output")
    return Ended("done", seconds=round(time.time() - begun, 4))
