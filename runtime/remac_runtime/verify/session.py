"""One run of `remac verify`: what the reference gives, what each runtime gives, and whether that is the same."""
from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from remac_runtime.errors import BadInput, RemacError
from remac_runtime.files import write_json
from remac_runtime.format import LATENT_STRIDE
from remac_runtime.model import Model
from remac_runtime.verify.cases import Case, hash_of
from remac_runtime.verify.engines import OPTIONS, REFERENCE, changed_layer, parse
from remac_runtime.verify.locate import Locator
from remac_runtime.verify.matrix import CaseResult, Outcome, from_json
from remac_runtime.verify.run import Ended, Item, Machine, run_command, run_worker
from remac_runtime.verify.runtimes import Runtime
from remac_runtime.verify.trace import LATENTS, SYMBOLS, read_latents

BYTE = "byte"               # of --inject: one byte of every stream instead of one weight
ACTIONS = ("encode", "decode")
_TRUTH = Runtime(REFERENCE, REFERENCE)
_TRUTH_LIMIT_S = 3600.0     # the reference is slow on purpose
_HOW = {"error": Outcome.ERROR, "timeout": Outcome.TIMEOUT, "unsupported": Outcome.UNSUPPORTED, "not run": Outcome.NOT_RUN}


@dataclass
class Report:
    """What a runtime did, by action and case."""

    runtime: Runtime
    machine: dict[str, Any] = field(default_factory=dict)
    results: dict[str, dict[str, CaseResult]] = field(default_factory=lambda: {action: {} for action in ACTIONS})

    def as_json(self) -> dict[str, Any]:
        return {"machine": self.machine, **{action: {case: result.as_json() for case, result in self.results[action].items()} for action in ACTIONS}}


class Session:
    """`work` keeps what the reference gave and, with `resume`, what every runtime has passed before."""

    def __init__(self, model: Model, cases: Sequence[Case], work: Path, limit_s: float, inject: str = "", resume: bool = False) -> None:
        self.model, self.cases, self.work, self.limit_s, self.inject, self.resume = model, list(cases), work.resolve(), limit_s, inject, resume
        if inject and inject != BYTE:
            changed_layer(model.network, inject)        # a place that does not exist is an error at once
        self.locator = Locator(model, self.work / "located")

    # ---- what must come out

    def expect(self) -> None:
        """Have the reference code the pictures that it has not coded before. Raises RemacError where it cannot."""
        folder = self.work / "expected"
        folder.mkdir(parents=True, exist_ok=True)
        reference = self._fingerprint(_TRUTH)
        self.cases = [replace(case, stream=folder / f"{self._key(case, reference)}.rmc") if case.stream is None else case for case in self.cases]
        wanted = [case for case in self.cases if case.stream and case.stream.parent == folder and not self._latents(case).exists()]
        items = [Item(f"{action} {case.name}", action, case, case.picture if action == "encode" else case.stream, output)
                 for case in wanted if case.picture and case.stream
                 for action, output in (("encode", case.stream), ("decode", self._latents(case)))]
        ended = run_worker(_TRUTH, REFERENCE, self.model.folder, items, self.work / "reference", _TRUTH_LIMIT_S, Machine())
        for item in items:
            if ended[item.id].how != "done":
                raise RemacError(f"{item.case.name}: the reference cannot {item.action} it ({ended[item.id].detail}): nothing can be compared")

    def _key(self, case: Case, reference: str) -> str:
        if case.picture is None:
            raise BadInput(f"{case.name}: has neither a picture nor a stream")
        bank = self.model.bank.hash.hex() if self.model.bank else ""
        facts = [reference, self.model.network.hash.hex(), bank, hashlib.sha256(case.picture.read_bytes()).hexdigest(), case.options()]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]

    @staticmethod
    def _latents(case: Case) -> Path:
        assert case.stream is not None
        return case.stream.with_suffix(".npz")

    # ---- what comes out

    def run(self, runtime: Runtime, actions: Sequence[str]) -> Report:
        """All cases through one runtime. What a former run with the same engine, program and expectations has passed is not run again."""
        report = Report(runtime)
        folder = self.work / "runs" / hashlib.sha256(runtime.name.encode()).hexdigest()[:12]
        kept = folder / "passed.json"
        before = self._read_kept(kept, runtime)
        report.machine.update(before.get("machine", {}))
        todo: list[Item] = []
        for action in ACTIONS:
            for case in self.cases:
                if action in actions and (action == "decode" or case.picture is not None):
                    known = self._known(runtime, case, action, before)
                    if known:
                        report.results[action][case.name] = known
                    else:
                        todo.append(self._item(case, action, folder, len(todo)))
        if todo:
            folder.mkdir(parents=True, exist_ok=True)
            self._run_items(runtime, todo, folder, report)
        if self.resume and todo and not self.inject:
            content = {"fingerprint": self._fingerprint(runtime), "passed": {action: self._passed(report, action) for action in ACTIONS},
                       "machine": report.machine}
            write_json(kept, content)
        for path in folder.glob("out-*"):
            path.unlink()
        return report

    def _known(self, runtime: Runtime, case: Case, action: str, before: dict[str, Any]) -> CaseResult | None:
        """What need not or cannot be run."""
        if runtime.unsupported:
            return CaseResult(Outcome.UNSUPPORTED, runtime.unsupported)
        if runtime.max_pixels and case.pixels > runtime.max_pixels:
            return CaseResult(Outcome.NOT_RUN, f"only pictures of up to {runtime.max_pixels:,} pixels are given to this runtime")
        if self.inject and self.inject != BYTE and not (runtime.engine and "inject" in OPTIONS[parse(runtime.engine).kind]):
            return CaseResult(Outcome.UNSUPPORTED, "its weights cannot be changed from here")
        if self.inject and case.odd:
            return CaseResult(Outcome.NOT_RUN, "streams that no encoder writes have no part in the self-check")
        entry = before.get("passed", {}).get(action, {}).get(self._identity(case))
        return from_json(entry) if entry else None

    def _item(self, case: Case, action: str, folder: Path, number: int) -> Item:
        assert case.stream is not None
        source = case.picture if action == "encode" else case.stream
        assert source is not None
        if action == "decode" and self.inject == BYTE:
            folder.mkdir(parents=True, exist_ok=True)
            source = folder / f"out-{number}-changed.rmc"
            source.write_bytes(_one_byte_changed(case.stream.read_bytes()))
        return Item(str(number), action, case, source, folder / (f"out-{number}.rmc" if action == "encode" else f"out-{number}.npz"))

    def _run_items(self, runtime: Runtime, items: Sequence[Item], folder: Path, report: Report) -> None:
        machine = Machine()
        limit_s = runtime.timeout_s or self.limit_s
        ended: dict[str, Ended] = {}
        if runtime.engine:
            ended = run_worker(runtime, self._engine(runtime), self.model.folder, items, folder, limit_s, machine)
            report.machine.update(machine.facts)
        else:
            for action in ACTIONS:
                chosen = [item for item in items if item.action == action]
                ended.update(run_command(getattr(runtime, action), runtime, self.model.folder, chosen, folder, limit_s))
        located: set[str] = set()
        for item in items:
            result = self._judge(runtime, item, ended[item.id])
            if result.outcome == Outcome.FAIL and item.action not in located:
                located.add(item.action)        # the place is found once for each action: the first case tells enough
                where = self.locator.locate(runtime, self._engine(runtime), item, limit_s)
                result = replace(result, detail=f"{result.detail}; {where}" if where else result.detail)
            report.results[item.action][item.case.name] = result

    def _engine(self, runtime: Runtime) -> str:
        if not runtime.engine or not self.inject or self.inject == BYTE:
            return runtime.engine
        return f"{runtime.engine}{',' if ':' in runtime.engine else ':'}inject={self.inject}"

    # ---- whether it is the same

    def _judge(self, runtime: Runtime, item: Item, ended: Ended) -> CaseResult:
        if item.case.error and item.action == "decode":
            return _judge_refusal(item.case.error, ended)
        if ended.how != "done":
            return CaseResult(_HOW[ended.how], ended.detail, ended.seconds)
        try:
            problem = self._stream_problem(item) if item.action == "encode" else self._latents_problem(item, ended)
        except (OSError, ValueError, KeyError, EOFError) as error:
            return CaseResult(Outcome.ERROR, f"its output cannot be read ({error})", ended.seconds)
        return CaseResult(Outcome.FAIL if problem else Outcome.PASS, problem, ended.seconds)

    def _stream_problem(self, item: Item) -> str:
        assert item.case.stream is not None
        if self.inject == BYTE:
            item.output.write_bytes(_one_byte_changed(item.output.read_bytes()))
        found, wanted = item.output.read_bytes(), item.case.stream.read_bytes()
        if found == wanted:
            return ""
        at = next((i for i, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b), min(len(found), len(wanted)))
        return f"{len(found)} bytes, the reference gives {len(wanted)}; byte {at} is the first that differs"

    def _latents_problem(self, item: Item, ended: Ended) -> str:
        lost = tuple(ended.facts.get("lost", item.case.lost))
        if lost != item.case.lost:
            return f"bands {', '.join(map(str, lost)) or 'none'} are reported as lost, expected {', '.join(map(str, item.case.lost)) or 'none'}"
        found = read_latents(item.output, item.case, self.model.network.latents)
        expected = self._latents(item.case)
        if expected.exists() and expected.parent == self.work / "expected":
            with np.load(expected) as wanted:
                same = {name: np.array_equal(found[name], wanted[name]) for name in (SYMBOLS, LATENTS) if name in found and name in wanted}
            return " and ".join(f"{name} differ" for name, equal in same.items() if not equal)
        for band in lost:       # what conceals a lost band is nobody's business
            found[LATENTS][band * item.case.band_rows // LATENT_STRIDE:(band + 1) * item.case.band_rows // LATENT_STRIDE] = 0
        return "" if hash_of(found[LATENTS]) == item.case.latents_sha256 else "latents differ from the vector's"

    # ---- runs that go on where they were cut off

    def _fingerprint(self, runtime: Runtime) -> str:
        """Of what decides a runtime's results: itself, this package, the model, and the program or Python that is run."""
        digest = hashlib.sha256(json.dumps(runtime.as_json(), sort_keys=True).encode())
        package = Path(__file__).parents[1]
        model = [path for path in self.model.folder.rglob("*") if path.suffix in (".rmn", ".rmb", ".onnx") and "ground" not in path.parts]
        sources = [path for path in package.rglob("*") if path.suffix in (".py", ".so", ".c", ".h")] if runtime.engine else []
        programs = [Path(found) for template in (runtime.encode, runtime.decode) for part in shlex.split(template) if (found := shutil.which(part))]
        for path in sorted({*model, *sources, *programs}):
            digest.update(f"{path}{os.path.getsize(path)}".encode() + hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()

    def _read_kept(self, path: Path, runtime: Runtime) -> dict[str, Any]:
        if not self.resume or self.inject or not path.exists():
            return {}
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content if content["fingerprint"] == self._fingerprint(runtime) else {}

    def _identity(self, case: Case) -> str:
        assert case.stream is not None
        return f"{case.name} {hashlib.sha256(case.stream.read_bytes()).hexdigest()}"

    def _passed(self, report: Report, action: str) -> dict[str, Any]:
        by_name = {case.name: case for case in self.cases}
        return {self._identity(by_name[name]): result.as_json() for name, result in report.results[action].items() if result.outcome == Outcome.PASS}


def _judge_refusal(error: str, ended: Ended) -> CaseResult:
    """A stream that every decoder must refuse: a worker with that class of error, a program with a status of its own."""
    if ended.how == "done":
        return CaseResult(Outcome.FAIL, f"it was decoded, expected {error}", ended.seconds)
    if ended.how != "error" or not ended.facts:
        return CaseResult(_HOW[ended.how], ended.detail)
    if ended.facts.get("error") == error or ended.facts.get("status", 0) > 0:
        return CaseResult(Outcome.PASS)
    return CaseResult(Outcome.FAIL if "error" in ended.facts else Outcome.ERROR, f"{ended.detail}, expected {error}")


def _one_byte_changed(data: bytes) -> bytes:
    """With one bit of the middle byte turned over."""
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]
