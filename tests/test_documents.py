"""The documents as they are: no figure typed by hand, links, paths and commands that exist, and results that belong together."""
from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import example, rd, readme
from benchmarks.blocks import BLOCKS
from benchmarks.store import RESULTS

ROOT = Path(__file__).resolve().parents[1]
TYPED_FIGURE = re.compile(r"[\d.,]*\d\s?(?:%|dB\b|MPix|kMAC|ms\b|MB\b|MiB\b|bpp\b|times\b)")
BUDGETS = {"8 kMAC", "2 kMAC"}                # of the profiles: chosen, not measured
PROSE = (*readme.DOCUMENTS, *(Path(name) for name in ("docs/data.md", "docs/decisions.md", "docs/processors.md", "weights/marsqe/README.md",
                                                      "runtime/README.md")))
PATH = re.compile(r"`((?:[\w.-]+/)+[\w.-]*)`")
PROGRAM = re.compile(r"(?:^    |python )((?:\w+/)+\w+\.(?:py|sh))", re.MULTILINE)
MADE = {"build", "runs", ".."}                # folders of what commands make, and of pictures beside the checkout
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
MOST_PICTURE_BYTES = 300_000


def outside_blocks(text: str) -> str:
    """The text that people wrote, without code."""
    return re.sub(r"<!-- figures: .*?<!-- end -->|^```.*?^```$|^    .*?$", "", text, flags=re.DOTALL | re.MULTILINE)


def typed_figures(text: str) -> list[str]:
    return [found for found in TYPED_FIGURE.findall(outside_blocks(text)) if found not in BUDGETS]


def test_the_documents_say_what_the_results_say() -> None:
    assert readme.main(["--check"]) == 0, "run `make readme`"


@pytest.mark.parametrize("document", readme.DOCUMENTS, ids=str)
def test_no_figure_is_typed_by_hand(document: Path) -> None:
    assert not typed_figures((ROOT / document).read_text())


@pytest.mark.parametrize("text", ["it saves 52 % of the bytes", "at 36.5 dB", "30 MPix/s", "needs 7.4 kMAC/px", "3.2 times as fast"])
def test_typed_figures_are_found(text: str) -> None:
    assert typed_figures(f"<!-- figures: speed -->\n1 %\n<!-- end -->\n{text}")
    assert not typed_figures(f"<!-- figures: speed -->\n{text}\n<!-- end -->\n")


def test_every_block_is_in_a_document() -> None:
    shown = {name for document in readme.DOCUMENTS for name in re.findall(r"<!-- figures: (\S+) -->", (ROOT / document).read_text())}
    assert shown == set(BLOCKS)


def broken_links(folder: Path, text: str) -> list[str]:
    return [link for link in LINK.findall(text) if "://" not in link and not (folder / link).exists()]


@pytest.mark.parametrize("document", PROSE, ids=str)
def test_links_lead_somewhere(document: Path) -> None:
    assert not broken_links((ROOT / document).parent, (ROOT / document).read_text())
    assert broken_links(ROOT, "[there](docs/nowhere.md)")


def missing_paths(folder: Path, text: str) -> Iterator[str]:
    """Paths in backticks, and programs in commands, that are in no place where a reader would look. What is built or trained is left out."""
    for path in PATH.findall(outside_blocks(text)):
        first, bases = path.split("/")[0], (ROOT, folder, ROOT / "runtime" / "remac_runtime")
        if first not in MADE and (path.endswith(".py") or any((base / first).exists() for base in bases)):
            yield from [path] * (not any((base / path).exists() for base in bases))
    yield from (path for path in PROGRAM.findall(text) if not (ROOT / path).exists())


@pytest.mark.parametrize("document", PROSE, ids=str)
def test_paths_lead_somewhere(document: Path) -> None:
    assert not list(missing_paths((ROOT / document).parent, (ROOT / document).read_text()))


@pytest.mark.parametrize(("text", "missing"), [
    ("`tests/nowhere.py`", ["tests/nowhere.py"]), ("`bench/nothing.py`, `bench/stages.py`", ["bench/nothing.py"]), ("`samples/`", []),
    ("`nowhere/at_all.py`", ["nowhere/at_all.py"]), ("`build/rover-m/x.py`, `train/`, `../pictures/`, `/Cast`", []),
    ("    python export/none.py -o x", ["export/none.py"]),
])
def test_missing_paths_are_found(text: str, missing: list[str]) -> None:
    assert list(missing_paths(ROOT, text)) == missing


def unknown_commands(text: str) -> Iterator[str]:
    """Modules and make targets that a text names and that are not there."""
    for module in re.findall(r"python -m ([a-z_.]+)", text):
        if importlib.util.find_spec(module) is None:
            yield module
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for names in re.findall(r"(?:`|^    )make ([a-z -]+)", text, re.MULTILINE):
        yield from set(names.split()) - set(targets)


@pytest.mark.parametrize("document", PROSE, ids=str)
def test_commands_exist(document: Path) -> None:
    assert not list(unknown_commands((ROOT / document).read_text()))
    assert list(unknown_commands("python -m benchmarks.nothing")) and list(unknown_commands("`make coffee`"))


def test_pictures_are_small() -> None:
    sizes = [path.stat().st_size for path in example.PICTURES.glob("*")]
    if not sizes:
        pytest.skip("docs/pictures is not made yet: run `python -m benchmarks.example`")
    assert sum(sizes) < MOST_PICTURE_BYTES


def test_the_summary_is_of_the_results(tmp_path: Path) -> None:
    """Nobody changed the definition of a figure, or measured again, without writing the summary anew."""
    if not (RESULTS / "rd_summary.json").exists() or not (RESULTS / "rd_remac.json").exists():
        pytest.skip("not measured yet: run `make figures`")
    assert rd.main(["--codec-results", str(RESULTS / "rd_remac.json"), "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "rd_summary.json").read_text()) == json.loads((RESULTS / "rd_summary.json").read_text())
