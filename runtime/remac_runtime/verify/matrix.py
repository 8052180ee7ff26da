"""The outcomes of `remac verify` and the matrix that they make."""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """What became of a case; the worst first, as a cell sums up its cases."""

    FAIL = "fail"
    ERROR = "error"
    TIMEOUT = "timeout"
    PASS = "pass"
    UNSUPPORTED = "unsupported"
    NOT_RUN = "not run"


BAD = frozenset({Outcome.FAIL, Outcome.ERROR, Outcome.TIMEOUT})
MEANING = {
    Outcome.PASS: "the same bytes, symbols and latents as the reference, in every case that was run",
    Outcome.FAIL: "something differs", Outcome.ERROR: "an error or a crash", Outcome.TIMEOUT: "no result within the time limit",
    Outcome.UNSUPPORTED: "cannot run here; the reason is given", Outcome.NOT_RUN: "was not tried",
}


@dataclass(frozen=True)
class CaseResult:
    """What became of a case in one runtime; `detail` is a reason, or the place of the first difference."""

    outcome: Outcome
    detail: str = ""
    seconds: float | None = None

    def as_json(self) -> dict[str, Any]:
        facts = {"outcome": str(self.outcome), "detail": self.detail, "seconds": self.seconds}
        return {name: value for name, value in facts.items() if value not in ("", None)}


def from_json(entry: Mapping[str, Any]) -> CaseResult:
    return CaseResult(Outcome(entry["outcome"]), entry.get("detail", ""), entry.get("seconds"))


Results = Mapping[str, CaseResult]      # by the name of the case


@dataclass(frozen=True)
class Cell:
    """Cases of a cell, or of a runtime, by outcome."""

    counts: Mapping[Outcome, int]

    @property
    def outcome(self) -> Outcome:
        """The worst of them; cases that were not run or are unsupported show only where nothing else is."""
        return next((outcome for outcome in Outcome if self.counts.get(outcome)), Outcome.NOT_RUN)

    @property
    def tried(self) -> int:
        return sum(count for outcome, count in self.counts.items() if outcome not in (Outcome.UNSUPPORTED, Outcome.NOT_RUN))

    @property
    def all(self) -> int:
        return sum(self.counts.values())

    @property
    def word(self) -> str:
        """The outcome; of a pass with cases that were not run or are unsupported, also how many were run, as in "pass 38/42"."""
        return f"{self.outcome} {self.tried}/{self.all}" if self.outcome == Outcome.PASS and self.tried < self.all else str(self.outcome)

    def __str__(self) -> str:
        return ", ".join(f"{count} {outcome}" for outcome in Outcome if (count := self.counts.get(outcome, 0))) or str(Outcome.NOT_RUN)


def tally(results: Iterable[CaseResult]) -> Cell:
    return Cell(Counter(result.outcome for result in results))


def combined(encoded: CaseResult, decoded: CaseResult) -> Outcome:
    """A stream from one runtime to another. Bytes that equal the reference's are not decoded anew for each encoder; others have failed."""
    return decoded.outcome if encoded.outcome == Outcome.PASS else encoded.outcome


@dataclass(frozen=True)
class Matrix:
    """`encoded` and `decoded`: results by runtime and case. Cases without an encoder's part (odd streams) count for the decoders alone."""

    encoders: Sequence[str]
    decoders: Sequence[str]
    encoded: Mapping[str, Results]
    decoded: Mapping[str, Results]
    problems: Sequence[str] = field(default_factory=tuple)

    def cell(self, encoder: str, decoder: str) -> Cell:
        rows, columns = self.encoded[encoder], self.decoded[decoder]
        return Cell(Counter(combined(rows[case], columns[case]) for case in rows if case in columns))

    def _all(self) -> list[CaseResult]:
        return [result for names, results in ((self.encoders, self.encoded), (self.decoders, self.decoded)) for name in names
                for result in results[name].values()]

    @property
    def passed(self) -> bool:
        """Something was run, and nothing of it failed."""
        outcomes = {result.outcome for result in self._all()}
        return Outcome.PASS in outcomes and not outcomes & BAD

    def findings(self) -> list[tuple[str, str, str, CaseResult]]:
        """(runtime, encode or decode, case, result) of all that is bad."""
        return [(name, action, case, result)
                for names, action, results in ((self.encoders, "encode", self.encoded), (self.decoders, "decode", self.decoded)) for name in names
                for case, result in results[name].items() if result.outcome in BAD]
