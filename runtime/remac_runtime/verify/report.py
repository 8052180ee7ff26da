"""The result of `remac verify` for people and programs: text, JSON, and a page that loads nothing from elsewhere."""
from __future__ import annotations

import hashlib
import html
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from remac_runtime.model import Model
from remac_runtime.verify.cases import Case
from remac_runtime.verify.matrix import BAD, MEANING, CaseResult, Cell, Matrix, Outcome, tally
from remac_runtime.verify.session import ACTIONS, Report

SCHEMA = 1
_FACTS = ("engine", "encode", "decode", "recipe", "max_pixels", "unsupported")     # of a runtime, for the JSON
_FINDINGS = 3        # of a runtime and action that the text shows
_WIDE = 6            # decoders that a text matrix shows in words; more get a sign each
SIGNS = {Outcome.PASS: "P", Outcome.FAIL: "F", Outcome.ERROR: "E", Outcome.TIMEOUT: "T", Outcome.UNSUPPORTED: "u", Outcome.NOT_RUN: "-"}
_LOUD = {outcome: str(outcome).upper() for outcome in BAD}


@dataclass(frozen=True)
class Verified:
    """Everything there is to report."""

    model: Model
    cases: Sequence[Case]
    reports: Mapping[str, Report]
    matrix: Matrix
    inject: str = ""


# ---- JSON

def _groups(results: Mapping[str, CaseResult]) -> list[dict[str, Any]]:
    """What did not pass, cases of one outcome and detail together."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for case, result in results.items():
        if result.outcome != Outcome.PASS:
            groups[str(result.outcome), result.detail].append(case)
    return [{"outcome": outcome, "detail": detail, "cases": names} for (outcome, detail), names in groups.items()]


def _action_json(results: Mapping[str, CaseResult]) -> dict[str, Any]:
    counts = tally(results.values()).counts
    return {"counts": {str(outcome): counts[outcome] for outcome in Outcome if counts.get(outcome)},
            "seconds": round(sum(result.seconds or 0 for result in results.values()), 3), "others": _groups(results)}


def as_json(v: Verified) -> dict[str, Any]:
    """Counts of every runtime, details of what did not pass, and the matrix."""
    runtimes = {}
    for name, report in v.reports.items():
        facts = {key: value for key, value in report.runtime.as_json().items() if key in _FACTS}
        done = {action: _action_json(results) for action, results in report.results.items() if results}
        runtimes[name] = {**facts, "machine": report.machine, "results": done}
    return {
        "schema": SCHEMA, "profile": v.model.network.profile, "codec_hash": v.model.network.hash.hex(),
        "bank_hash": v.model.bank.hash.hex() if v.model.bank else None, "inject": v.inject, "passed": v.matrix.passed,
        "cases": [_case_json(case) for case in v.cases], "runtimes": runtimes,
        "encoders": list(v.matrix.encoders), "decoders": list(v.matrix.decoders),
        "matrix": [[v.matrix.cell(e, d).word for d in v.matrix.decoders] for e in v.matrix.encoders]}


def _case_json(case: Case) -> dict[str, Any]:
    stream = case.stream.read_bytes() if case.stream else b""
    return {"name": case.name, "width": case.width, "height": case.height, "depth": case.depth, "grey": case.grey, **case.options(),
            "decoders_only": case.picture is None, "stream_bytes": len(stream), "stream_sha256": hashlib.sha256(stream).hexdigest()}


# ---- text

def _own(v: Verified, name: str) -> Cell:
    """All cases of a runtime, both actions."""
    return tally(result for action in ACTIONS for result in v.reports[name].results[action].values())


def _sign(cell: Cell) -> str:
    return "p" if cell.word != Outcome.PASS and cell.outcome == Outcome.PASS else SIGNS[cell.outcome]


def as_text(v: Verified) -> str:
    """The matrix, what is behind it, and a last line that says how it ended."""
    few = len(v.matrix.decoders) <= _WIDE
    width = max(map(len, [*v.matrix.encoders, "encoder \\ decoder"]), default=0) + 5
    heads = list(v.matrix.decoders) if few else [f"{n:>2}" for n in range(1, len(v.matrix.decoders) + 1)]
    lines = ["encoder \\ decoder".ljust(width) + "  ".join(heads)]
    for number, encoder in enumerate(v.matrix.encoders, 1):
        cells = [v.matrix.cell(encoder, decoder) for decoder in v.matrix.decoders]
        words = [_LOUD.get(cell.outcome, cell.word) if few else f"{_sign(cell):>2}" for cell in cells]
        words = [word.ljust(len(head)) for word, head in zip(words, heads, strict=True)]
        lines.append((encoder if few else f"{number:>2}  {encoder}").ljust(width) + "  ".join(words).rstrip())
    if not few:
        lines += ["", "columns: " + "; ".join(f"{n} {name}" for n, name in enumerate(v.matrix.decoders, 1)),
                  "P pass, p pass in the cases that were run, F fail, E error, T timeout, u unsupported, - not run"]
    lines += ["", *(_line(v, name) for name in v.reports)]
    lines += _finding_lines(v)
    return "\n".join([*lines, "", conclusion(v)])


def _finding_lines(v: Verified) -> list[str]:
    """The first few of each runtime; all are in the JSON and on the page."""
    lines, count = [], Counter[tuple[str, str]]()
    for name, action, case, result in v.matrix.findings():
        count[name, action] += 1
        if count[name, action] <= _FINDINGS:
            lines.append(f"{str(result.outcome).upper()}: {name}, {action}, {case}: {result.detail}")
    return lines + [f"... and {n - _FINDINGS} more: {name}, {action}" for (name, action), n in count.items() if n > _FINDINGS]


def _reasons(report: Report) -> str:
    """Why something of a runtime was not run."""
    quiet = (Outcome.UNSUPPORTED, Outcome.NOT_RUN)
    found = {result.detail for action in ACTIONS for result in report.results[action].values() if result.outcome in quiet}
    return "; ".join(sorted(filter(None, found)))


def _line(v: Verified, name: str) -> str:
    report = v.reports[name]
    parts = [f"{action}d: {tally(report.results[action].values())}" for action in ACTIONS if report.results[action]]
    reasons = _reasons(report)
    return f"{name}: {'; '.join(parts) or 'not run'}" + (f" ({reasons})" if reasons else "")


def conclusion(v: Verified) -> str:
    """One line."""
    whole = tally(result for report in v.reports.values() for action in ACTIONS for result in report.results[action].values())
    if not whole.tried:
        return "nothing was verified: no runtime could be run"
    if v.matrix.passed:
        return f"verified: {whole} of {len(v.reports)} runtimes and {len(v.cases)} cases; no difference"
    return f"NOT verified: {whole} of {len(v.reports)} runtimes and {len(v.cases)} cases"


# ---- page

STYLE = """
:root { color-scheme: light dark; --pass: #bfe3c4; --bad: #f2a6a0; --time: #f3cf93; --none: #d9d9d9; --line: #8886; }
@media (prefers-color-scheme: dark) { :root { --pass: #24512c; --bad: #8a2a22; --time: #7a561a; --none: #3a3a3a; } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem auto; padding: 0 1rem; max-width: 100rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
table { border-collapse: collapse; } td, th { padding: .15rem .8rem .15rem 0; text-align: left; vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; } .matrix td, .matrix th { padding: .1rem .4rem; border: 1px solid var(--line); }
.matrix td { text-align: center; min-width: 1.6rem; } code { font-size: .9em; }
.pass { background: var(--pass); } .fail, .error { background: var(--bad); font-weight: 700; } .timeout { background: var(--time); font-weight: 700; }
.unsupported { background: repeating-linear-gradient(45deg, transparent 0 4px, var(--none) 4px 8px); } .notrun { color: #888; }
.verdict { padding: .4rem .8rem; display: inline-block; }
"""


def _css(outcome: Outcome) -> str:
    return str(outcome).replace(" ", "")


def as_page(v: Verified) -> str:
    """Self-contained HTML, light and dark."""
    e = html.escape
    verdict = "pass" if v.matrix.passed else "fail"
    numbers = {name: n for n, name in enumerate(v.reports, 1)}
    bank = v.model.bank.hash.hex() if v.model.bank else "none"
    head = f"codec {v.model.network.profile} {v.model.network.hash.hex()}, bank {bank}"
    findings = "".join(f"<tr><td>{result.outcome}</td><td>{e(name)}</td><td>{action}</td><td>{e(case)}</td><td>{e(result.detail)}</td></tr>"
                       for name, action, case, result in v.matrix.findings())
    partial = f'<tr><td class="pass">p pass</td><td>{MEANING[Outcome.PASS]}; some were not run, or are unsupported</td></tr>'
    legend = partial + "".join(f'<tr><td class="{_css(o)}">{SIGNS[o]} {o}</td><td>{e(text)}</td></tr>' for o, text in MEANING.items())
    injected = f"<p>With a fault put in on purpose: {e(v.inject)}.</p>" if v.inject else ""
    found = f"<h2>Differences, errors, timeouts</h2><table>{findings}</table>" if findings else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>remac verify</title><style>{STYLE}</style></head><body>
<h1>remac verify</h1><p>{e(head)}</p><p class="verdict {verdict}">{e(conclusion(v))}</p>{injected}
<h2>Encoders (rows) and decoders (columns)</h2><div class="wide"><table class="matrix">{_matrix_rows(v, numbers)}</table></div>
<p>A stream that equals the reference's byte for byte is decoded once by each decoder, whoever has encoded it.</p>
<table>{legend}</table>{found}
<h2>Runtimes</h2><div class="wide"><table><tr><th class="n"></th><th>runtime</th><th>encoded</th><th>decoded</th><th>machine</th><th>remarks</th></tr>
{"".join(_runtime_row(v, name, n) for name, n in numbers.items())}</table></div>
<h2>Cases</h2><table><tr><th>case</th><th>size</th><th>samples</th><th class="n">quality</th><th class="n">rows a band</th><th>references</th>
<th class="n">bytes</th></tr>
{"".join(_case_row(case) for case in v.cases)}</table></body></html>
"""


def _matrix_rows(v: Verified, numbers: Mapping[str, int]) -> str:
    heads = "".join(f'<th title="{html.escape(name)}">{numbers[name]}</th>' for name in v.matrix.decoders)
    rows = [f"<tr><th></th>{heads}</tr>"]
    for encoder in v.matrix.encoders:
        cells = []
        for decoder in v.matrix.decoders:
            cell = v.matrix.cell(encoder, decoder)
            title = "" if cell.word == Outcome.PASS else f' title="{html.escape(f"{encoder} to {decoder}: {cell}")}"'
            cells.append(f'<td class="{_css(cell.outcome)}"{title}>{_sign(cell)}</td>')
        rows.append(f"<tr><th>{numbers[encoder]} {html.escape(encoder)}</th>{''.join(cells)}</tr>")
    return "\n".join(rows)


def _runtime_row(v: Verified, name: str, number: int) -> str:
    report = v.reports[name]
    texts = []
    for action in ACTIONS:
        cell = tally(report.results[action].values())
        texts.append(f'<td class="{_css(cell.outcome)}">{cell}</td>' if report.results[action] else "<td></td>")
    machine = ", ".join(f"{key} {value}" for key, value in report.machine.items() if key not in ("native", "byte_order"))
    if report.machine.get("byte_order") == "big":
        machine += ", big-endian"
    recipe = f"<br><code>{html.escape(report.runtime.recipe)}</code>" if report.runtime.recipe else ""
    return (f'<tr><td class="n">{number}</td><td>{html.escape(name)}{recipe}</td>{"".join(texts)}<td>{html.escape(machine)}</td>'
            f"<td>{html.escape(_reasons(report))}</td></tr>\n")


def _case_row(case: Case) -> str:
    size = case.stream.stat().st_size if case.stream else 0
    alone = " (decoders only)" if case.picture is None else ""
    kind = f"{case.depth}-bit {'grey' if case.grey else 'RGB'}"
    return (f"<tr><td>{html.escape(case.name)}{alone}</td><td>{case.width}x{case.height}</td><td>{kind}</td><td class=\"n\">{case.quality}</td>"
            f"<td class=\"n\">{case.band_rows}</td><td>{'yes' if case.references else 'no'}</td><td class=\"n\">{size:,}</td></tr>\n")
