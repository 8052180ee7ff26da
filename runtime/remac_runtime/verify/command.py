"""`remac verify`: every runtime encodes and decodes, and must give the bytes, symbols and latents of the reference."""
from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from remac_runtime.exits import Exit, UsageError
from remac_runtime.files import check_folder, write_atomically, write_json
from remac_runtime.model import Model, load_model
from remac_runtime.verify.cases import Case, find_vectors, from_pictures, from_vectors
from remac_runtime.verify.matrix import Matrix, tally
from remac_runtime.verify.report import Verified, as_json, as_page, as_text
from remac_runtime.verify.runtimes import Runtime, choose, default_runtimes, joined, read_runtimes
from remac_runtime.verify.session import ACTIONS, Report, Session


def run(options: argparse.Namespace) -> int:
    model = load_model(options.model)
    with _work_folder(options.keep) as work:
        for target in filter(None, (options.json, options.report)):
            check_folder(target)
        cases = _cases(options, model, work)
        runtimes, encoders, decoders = _runtimes(options)
        session = Session(model, cases, work, options.timeout, options.inject or "", resume=options.keep is not None)
        _say(f"{len(cases)} cases, {len(runtimes)} runtimes; the reference says what must come out")
        session.expect()
        reports = {}
        for number, runtime in enumerate(runtimes, 1):
            start = time.perf_counter()
            actions = [action for action, names in zip(ACTIONS, (encoders, decoders), strict=True) if runtime.name in names]
            reports[runtime.name] = report = session.run(runtime, actions)
            _say(f"[{number}/{len(runtimes)}] {_short(report)}, {time.perf_counter() - start:.1f} s")
        matrix = Matrix(encoders, decoders, {name: reports[name].results["encode"] for name in encoders},
                        {name: reports[name].results["decode"] for name in decoders})
        verified = Verified(model, session.cases, reports, matrix, session.inject)
        if options.json:
            write_json(options.json, as_json(verified))
        if options.report:
            write_atomically(options.report, as_page(verified))
        print(as_text(verified))
    return Exit.OK if matrix.passed else Exit.FAILED


@contextlib.contextmanager
def _work_folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
    else:
        with tempfile.TemporaryDirectory(prefix="remac-verify-") as folder:
            yield Path(folder)


def _cases(options: argparse.Namespace, model: Model, work: Path) -> list[Case]:
    """Pictures, vectors where they are asked for or nothing else is, or both. Raises UsageError where there is neither."""
    cases = from_pictures([Path(image) for image in options.images], options.quality, work / "pictures", references=model.bank is not None)
    folder = find_vectors(options.vectors, model) if options.vectors or not options.images else None
    if folder is not None:
        cases += from_vectors(folder, model)
    if not cases:
        raise UsageError("nothing to verify: name pictures, or the folder of the vectors with --vectors")
    return cases


def _runtimes(options: argparse.Namespace) -> tuple[list[Runtime], list[str], list[str]]:
    """All runtimes, the names of the encoders and of the decoders; by default all of the file of runtimes, or every engine."""
    known = read_runtimes(options.runtimes) if options.runtimes else default_runtimes()
    chosen = [choose(named, action, known) if named else [runtime for runtime in known if runtime.can(action)]
              for named, action in ((options.encode_with, "encode"), (options.decode_with, "decode"))]
    for action, runtimes in zip(ACTIONS, chosen, strict=True):
        unable = next((runtime.name for runtime in runtimes if not runtime.can(action)), None)
        if unable:
            raise UsageError(f"{unable} has no {action} command")
    return joined(*chosen)


def _short(report: Report) -> str:
    parts = [f"{action}: {tally(report.results[action].values())}" for action in ACTIONS if report.results[action]]
    return f"{report.runtime.name}: {'; '.join(parts) or 'nothing to do'}"


def _say(text: str) -> None:
    print(f"remac verify: {text}", file=sys.stderr, flush=True)
