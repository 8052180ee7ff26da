"""The differential benchmark on the small network: it runs, goes on where it was, and notices an engine or a program that is wrong."""
from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import differential
from benchmarks import differential_fuzz as fuzz
from benchmarks.differential_cases import KINDS, case_of, picture_of
from remac_runtime import rans
from remac_runtime.model import Model, load_model

COMPILER = shutil.which("gcc") or shutil.which("clang") or shutil.which("cc")
SEED = 3


@pytest.fixture(scope="module")
def small(small_model: Path) -> Model:
    return load_model(small_model)


@pytest.fixture(scope="module")
def engines(small: Model) -> Iterator[list[differential.Engine]]:
    with ExitStack() as stack:
        yield differential.open_engines(small, None, stack, ("numpy", "c99"))


def test_cases_are_of_all_sorts_and_depend_on_the_number_alone() -> None:
    cases = [case_of(SEED, number) for number in range(200)]
    assert cases == [case_of(SEED, number) for number in range(200)]
    assert {case.kind for case in cases} == set(KINDS) and {case.grey for case in cases} == {True, False} == {case.references for case in cases}
    assert {case.depth for case in cases} == set(range(8, 17)) and all(case.grey for case in cases if case.depth > 8)
    assert {1, 64, 65} <= {case.height for case in cases} and max(case.height for case in cases) > 200
    for case in cases[:36]:
        picture = picture_of(SEED, case)
        assert picture.samples.shape[:2] == (case.height, case.width) and picture.grey == case.grey and picture.samples.max() < 1 << case.depth
        assert np.array_equal(picture.samples, picture_of(SEED, case).samples)


def test_engines_agree(small: Model, engines: list[differential.Engine]) -> None:
    for number in range(0, 60, differential.REFERENCE_EVERY // 4):
        case = case_of(SEED, number)
        found, compared = differential.judged(case, picture_of(SEED, case), small, engines)
        assert found is None and compared >= len(engines) - 1


@pytest.mark.parametrize(("wrong", "message"), [
    ({"encode": lambda case, picture: b"RMH1"}, "4 bytes, expected"),
    ({"decode": lambda data: (np.zeros((4, 4, 32), np.int32), ())}, "other latents"),
    ({"decode": lambda data: (None, (0,))}, r"lost bands \(0,\)")])
def test_a_wrong_engine_is_noticed(small: Model, engines: list[differential.Engine], wrong: dict[str, Any], message: str) -> None:
    bad = [*engines, replace(engines[0], name="wrong", **wrong)]
    state = differential.fresh(small, SEED, bad)
    differential.run_cases(state, small, bad, 3, lambda: None)
    assert state["cases"] == state["differences"] == 3 and state["first_difference"]["number"] == 0
    found, _ = differential.judged(case_of(SEED, 1), picture_of(SEED, case_of(SEED, 1)), small, bad)
    assert found is not None and found.startswith("wrong: ")
    with pytest.raises(differential.DifferentError, match=message):
        differential.compare(case_of(SEED, 1), picture_of(SEED, case_of(SEED, 1)), small, bad)


def test_a_program_as_an_engine(small: Model, engines: list[differential.Engine], tmp_path: Path) -> None:
    """The hook of the flight encoder, with a program that copies a stream that lies ready, and one that fails."""
    case = replace(case_of(SEED, 1), image_id=5)
    picture = picture_of(SEED, case)
    (tmp_path / "ready").write_bytes(engines[0].encode(case, picture))
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\nfor last in "$@"; do :; done\necho "$@" > {tmp_path}/arguments\ncp {tmp_path}/ready "$last"\n')
    program.chmod(0o755)
    flight = differential.flight_engine(program, tmp_path)
    assert differential.compare(case, picture, small, [engines[0], flight]) == 1
    assert f"--quality {case.quality} --band-rows {case.band_rows}" in (tmp_path / "arguments").read_text()
    (tmp_path / "ready").write_bytes(b"RMH1")
    with pytest.raises(differential.DifferentError, match="flight: 4 bytes"):
        differential.compare(case, picture, small, [engines[0], flight])
    program.write_text("#!/bin/sh\necho no memory >&2\nexit 3\n")
    with pytest.raises(differential.DifferentError, match="ends with 3: no memory"):
        differential.compare(case, picture, small, [engines[0], flight])


@pytest.mark.skipif(COMPILER is None, reason="no C compiler")
def test_a_run_that_was_cut_off_goes_on(small: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(out: Path, count: int, bands: int, *more: str) -> dict[str, Any]:
        arguments = ["--model", str(small.folder), "--count", str(count), "--fuzz", str(bands), "--no-flight", "--out", str(out), *more]
        assert differential.main(arguments) == 0
        result: dict[str, Any] = json.loads(out.read_text())
        return result

    run(tmp_path / "parts.json", 4, 30)
    parts, whole = run(tmp_path / "parts.json", 9, 60), run(tmp_path / "whole.json", 9, 60)
    assert parts == whole and whole["cases"] == 9 and whole["bands"]["cases"] == 60 and whole["streams"]["cases"] == 0
    assert whole["bands"]["compared_with_python"] == 3 and {"decoded", "state"} <= set(whole["bands"]["outcomes"])
    assert "0 differences" in capsys.readouterr().out
    other = json.loads((tmp_path / "whole.json").read_text())
    assert differential.resumed(tmp_path / "whole.json", {**other, "seed": 2, "cases": 0})["cases"] == 0
    assert run(tmp_path / "whole.json", 2, 0)["cases"] == 9 and run(tmp_path / "whole.json", 2, 0, "--force")["cases"] == 2


@pytest.mark.parametrize(("script", "what"), [
    ("echo '==1==ERROR: AddressSanitizer: heap-buffer-overflow' >&2; exit 99", "heap-buffer-overflow"),
    ("cat > /dev/null; head -c 160 /dev/zero", "Python something else"), ("head -c 8 /dev/zero", "ends with 0")])
def test_a_failing_decoder_is_noticed(small: Model, tmp_path: Path, script: str, what: str) -> None:
    """Programs in the place of the sanitized one: a report, wrong verdicts, too few answers."""
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    state = fuzz.fresh()
    fuzz.run_bands(state, small, fuzz.Tools(bands=program), 20, 4, lambda: None)
    assert state["failures"] >= 1 and what in state["first_failure"]["what"]


def test_mutated_bands_reach_every_verdict(small: Model) -> None:
    combined = rans.combine(small.network)
    bands = [fuzz.band_of(SEED, number, combined) for number in range(60)]
    verdicts = [fuzz.python_verdict(band, combined)[0] for band in bands]
    assert 3 < sum(verdicts) < 30 and {band.lanes_log2 for band in bands} >= {0, 1, 8}
    assert all(np.array_equal(a.tables, b.tables) and a.payload == b.payload for a, b in zip(
        bands, (fuzz.band_of(SEED, number, combined) for number in range(60)), strict=True))
