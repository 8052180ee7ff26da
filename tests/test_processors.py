"""`make verify-all`: the catalogue of runtimes and processors, what sets them up, and the document that is made of the results."""
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from remac_runtime.verify.runtimes import command_line

ROOT = Path(__file__).resolve().parents[1]


class Bare:
    """Nothing can be set up."""

    folder = Path("build", "none")

    def __getattr__(self, name: str) -> Any:
        return lambda *_: f"no {name} here"


def test_every_runtime_of_the_catalogue_has_a_name_and_a_recipe_of_its_own() -> None:
    from benchmarks.processors.catalogue import GROUPS
    runtimes = [runtime for _, listed in GROUPS.values() for runtime in listed(Bare())]      # type: ignore[arg-type]
    names = [runtime.name for runtime in runtimes]
    assert len(names) == len(set(names)) > 40
    for runtime in runtimes:
        assert runtime.recipe and "\n" not in runtime.recipe and str(ROOT) not in runtime.recipe
        assert not (runtime.launcher or runtime.encode) or runtime.unsupported, f"{runtime.name} cannot be run without what it needs"
        if runtime.encode:
            command_line(runtime.encode, {"input": "i", "output": "o", "quality": 1, "band_rows": 64, "references": True, "image_id": 3,
                                          "mosaic": "none"})


def test_setup_says_what_is_missing_and_compiles_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.processors import setup as module
    setup = module.Setup(tmp_path, install=False)
    monkeypatch.setitem(module.PACKAGES, "no-such-compiler", "gcc-of-mars")
    assert setup.commands("no-such-compiler") == "no-such-compiler is missing: apt-get install gcc-of-mars"
    source, target = tmp_path / "a.c", tmp_path / "out" / "a"
    source.write_text("1")
    compiler = [sys.executable, "-c", "import sys; open(sys.argv[2], 'a').write('x')"]      # called with -o TARGET SOURCE
    for content, expected in (("1", "x"), ("1", "x"), ("2", "xx")):
        source.write_text(content)
        assert setup.compiled(target, compiler, [source]) == "" and target.read_text() == expected
    assert "ended with 3: it said nothing" in setup.compiled(tmp_path / "b", [sys.executable, "-c", "raise SystemExit(3)"], [source])


def test_the_document_names_every_runtime_and_what_it_missed() -> None:
    from benchmarks.processors.document import render
    vector = {"name": "vector bad_a", "width": 0, "height": 0, "decoders_only": True}
    nowhere = {"counts": {"unsupported": 3}, "others": [{"detail": "no GPU", "cases": []}]}
    entries = {
        "one": {"machine": {"numpy": "9.9"}, "results": {"encode": {"counts": {"pass": 2}, "others": []}}},
        "two": {"machine": {}, "max_pixels": 64, "results": {"decode": nowhere}}}
    content = {"cases": [{"name": "a, quality 3", "width": 20, "height": 10, "decoders_only": False}, vector], "runtimes": entries, "profile": "p",
               "codec_hash": "c0de", "self_check": {"stem.1": {"noticed": ["one"], "missed": ["two"], "place": "layer stem"}}}
    text = render([{"name": "one", "recipe": "run it"}, {"name": "two", "recipe": "run it"}], content)
    assert "| one | 2 pass |  | numpy 9.9 |  |" in text and "| two |  | 3 unsupported |  | no GPU |" in text
    assert "- one; two: `run it`" in text and "| stem.1 | 1 of 2 engines | layer stem |" in text
    assert "1 pictures (20x10)" in text and "all 1 vectors" in text and "2 pass" in text


def test_the_committed_document_is_made_from_the_committed_results() -> None:
    from benchmarks.processors import document
    from benchmarks.processors.catalogue import GROUPS
    results = ROOT / "benchmarks" / "results" / "verify.json"
    if not results.exists():
        pytest.skip("make verify-all has not been run")
    content = json.loads(results.read_text())
    listed = [runtime for _, group in GROUPS.values() for runtime in group(Bare())]      # type: ignore[arg-type]
    runtimes = [{"name": runtime.name, "recipe": runtime.recipe} for runtime in listed]
    assert document.PATH.read_text() == document.render(runtimes, content)
