"""The report and the run of all benchmarks: a page that needs nothing else, tables that are those of the documents, peers at equal quality."""
from __future__ import annotations

import html.parser
import json
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import latency, readme, report, report_page, run
from benchmarks.measure import Peer
from benchmarks.sources import SOURCES
from remac_runtime.bench.stats import Summary

ROOT = Path(__file__).resolve().parents[1]
VOID = {"meta", "br", "hr", "img", "link", "input", "path", "use", "rect", "circle"}


class Reader(html.parser.HTMLParser):
    """Notes elements, identifiers and links; `open` must be empty at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.identifiers: Counter[str] = Counter()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)

    def _note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            if name == "id":
                self.identifiers[value or ""] += 1
            if name in ("href", "src", "xlink:href"):
                self.links.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of this checkout as if all were of its present weights, which may be newer than some of them."""
    pytest.importorskip("markdown_it", reason="needs the bench extra")
    root, shipped = tmp_path_factory.mktemp("checkout"), readme.shipped_hash(ROOT)
    (root / readme.network_file()).parent.mkdir(parents=True)
    shutil.copy(ROOT / readme.network_file(), root / readme.network_file())
    for name in [source.file for source in SOURCES.values()]:
        path = root / readme.RESULTS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = (ROOT / readme.RESULTS / name).read_text()
        path.write_text(re.sub(r'((?:"codec_hash": "|codec hash ))[0-9a-f]{16}', rf"\g<1>{shipped}", text))
    return root


@pytest.fixture(scope="module")
def page(checkout: Path) -> str:
    assert report.main(["--root", str(checkout), "-o", str(checkout / "report.html")]) == 0
    return (checkout / "report.html").read_text()


@pytest.fixture(scope="module")
def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader


def test_the_page_needs_nothing_else(page: str, read: Reader) -> None:
    assert len(page.encode()) < report.LIMIT_BYTES
    assert not read.tags["script"] and not read.tags["link"] and not read.tags["img"]
    assert all(link.startswith("#") for link in read.links) and "@import" not in page and "url(http" not in page


def test_links_and_identifiers_match(read: Reader) -> None:
    assert {link[1:] for link in read.links} <= set(read.identifiers)
    assert [name for name, count in read.identifiers.items() if count > 1] == []
    assert set(report.SECTIONS) <= set(read.identifiers)


def test_plots_follow_the_colours_of_the_page(page: str, read: Reader) -> None:
    assert read.tags["svg"] >= 2 and "var(--ink)" in page and "prefers-color-scheme: dark" in page
    assert "#010203" not in page and "#040506" not in page


def test_the_tables_are_those_of_the_documents(page: str, checkout: Path) -> None:
    """Every cell of the document's table of rates stands in the page."""
    block = readme.render("rd", report.read([], checkout).sources)
    rows = [line.strip("| ").split(" | ") for line in block.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 5
    for row in rows:
        for cell in row:
            assert f">{cell.strip('*')}<" in page, cell


def test_markdown_tables_scroll_and_long_cells_wrap() -> None:
    pytest.importorskip("markdown_it", reason="needs the bench extra")
    text = report_page.markdown(f"| a | b |\n| --- | --: |\n| {'long ' * 20} | 2 |\n\n[here](x.md) and [below](#y)")
    assert text.count('<div class="scroll"><table>') == 1 and 'class="long"' in text and "<a" not in text and "here and below" in text


def test_what_is_missing_or_misspelt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("markdown_it", reason="needs the bench extra")
    results = tmp_path / "results"
    results.mkdir()
    shutil.copy(ROOT / "benchmarks" / "results" / "training.json", results)
    assert report.main([str(results / "training.json"), "-o", str(tmp_path / "few.html")]) == 0
    assert "Not measured yet: needs benchmarks/results/speed.json" in (tmp_path / "few.html").read_text()
    assert report.main([str(results / "trainin.json"), "-o", str(tmp_path / "none.html")]) == 1
    assert "did you mean training.json" in capsys.readouterr().err and not (tmp_path / "none.html").exists()
    (results / "speed.json").write_text(json.dumps({"codec_hash": "0" * 16}))
    assert report.main([str(results / "speed.json"), "-o", str(tmp_path / "other.html")]) == 0
    assert "left out" in capsys.readouterr().err


# ---- the run

def test_parts_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.chosen([]) == list(run.PARTS) and run.chosen(["rd", "speed"]) == ["speed", "rd"]
    assert run.main(["sped"]) == 1 and "did you mean speed" in capsys.readouterr().err


def settings(tmp_path: Path, model: Path) -> run.Settings:
    return run.Settings(model, str(tmp_path), tmp_path, "rpi5", None, False)


def test_what_is_up_to_date(tmp_path: Path, small_model: Path) -> None:
    from remac_runtime.model import load_model
    codec_hash, current = load_model(small_model).network.hash.hex(), settings(tmp_path, small_model)
    done = run.PARTS["corruption"].done
    assert not done(current)
    for text, expected in ((codec_hash, True), ("0" * 16, False)):
        (tmp_path / "corruption.json").write_text(json.dumps({"codec_hash": text}))
        assert done(current) is expected
    (tmp_path / "corruption.json").write_text("{")
    assert not done(current)


def test_a_run_goes_on_where_it_was_cut_off(tmp_path: Path, small_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run of `remac bench` is a file of its own; only those that are missing are made."""
    made: list[tuple[str, int]] = []

    def measured(options: Any) -> dict[str, Any]:
        made.append((options.backend, options.threads))
        if len(made) == 2:
            raise KeyboardInterrupt
        return {"schema": run.bench.SCHEMA, "codec": {"codec_hash": run.load_model(small_model).network.hash.hex()}}
    monkeypatch.setattr(run.bench, "run", measured)
    monkeypatch.setattr(run, "BOARD_RUNS", (("numpy", 1, None), ("numpy", 2, None)))
    current = settings(tmp_path, small_model)
    with pytest.raises(KeyboardInterrupt):
        run.PARTS["boards"].run(current)
    assert not run.PARTS["boards"].done(current)
    run.PARTS["boards"].run(current)
    assert made == [("numpy", 1), ("numpy", 2), ("numpy", 2)] and run.PARTS["boards"].done(current)


class Children:
    """The programs that the parts start, which write what they are told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines: list[list[str]] = []
        self.found: list[str] = []            # in the results files that they were given
        self.fails = False
        monkeypatch.setattr(run.subprocess, "run", self._run)
        monkeypatch.setattr(run, "CALM_TRIES", 0)

    def _run(self, line: list[str], **keywords: Any) -> subprocess.CompletedProcess[str]:
        self.lines.append(line[1:])
        if "--out" in line and line[line.index("--out") + 1].endswith(".json"):
            out = Path(line[line.index("--out") + 1])
            assert not out.is_relative_to(ROOT / "benchmarks"), "a test must not touch the results of this checkout"
            self.found.append(out.read_text() if out.exists() else "")
            out.write_text("new")
        if self.fails:
            raise subprocess.CalledProcessError(1, line)
        return subprocess.CompletedProcess(line, 0, "{}", "")

    def option(self, name: str) -> str | None:
        """What the last program was given for an option."""
        line = self.lines[-1]
        return line[line.index(name) + 1] if name in line else None


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Children:
    return Children(monkeypatch)


def test_every_benchmark_with_results_in_the_documents_has_a_part() -> None:
    """But for the records of training and the comparison of processors, which is a program of its own (make verify-all)."""
    assert {"differential", "enhance", "enhance-modules", "enhance-pictures"} <= set(run.PARTS)
    assert {"verify", "training", "training-s", *run.PARTS} >= set(SOURCES) - {"boards", "float-gap", "rd-s"}


def test_where_results_go_and_how_often_is_timed(tmp_path: Path, small_model: Path, children: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in the checkout is replaced when results go elsewhere."""
    current = replace(settings(tmp_path, small_model), rounds=4)
    for name, part in run.PARTS.items():
        if name in ("speed", "boards"):
            continue
        part.run(current)
        line, into_checkout = children.lines[-1], name in ("encoder", "encoder-s")
        given = [text for text in line if text.startswith(str(tmp_path))]
        assert given or into_checkout, name
        assert ("--rounds" in line) == (name in ("stages", "ground")) and ("--runs" in line) == into_checkout
    run.PARTS["stages"].run(current)
    assert children.option("--rounds") == "4" and children.option("--out") == str(tmp_path / "stages.json")
    run.PARTS["example"].run(current)
    assert children.option("--pictures") == str(tmp_path / "pictures")
    run.PARTS["board-figures"].run(current)
    assert children.option("--out") == str(tmp_path / "figures.json") and children.option("--results") == str(tmp_path)
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    run.PARTS["example"].run(current)
    assert children.option("--pictures") is None


@pytest.mark.parametrize("name", ["rd-remac", "rd-noref", "rd-peers", "ground", "enhance", "differential"])
def test_what_goes_on_by_itself_is_measured_again_when_asked_for(tmp_path: Path, small_model: Path, children: Children, name: str,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    """On a copy: what was measured before stays until the new results are complete."""
    monkeypatch.setattr(run, "CACHE", tmp_path / "cache")
    current = settings(tmp_path, small_model)
    run.PARTS[name].run(current)
    target = Path(children.option("--out") or "")
    assert target.parent == tmp_path and "--force" not in children.lines[-1]
    target.write_text("old")
    children.fails, forced = True, replace(current, force=True)
    with pytest.raises(subprocess.CalledProcessError):
        run.PARTS[name].run(forced)
    assert target.read_text() == "old" and "--force" in children.lines[-1]
    children.fails = False
    run.PARTS[name].run(forced)
    assert children.found[1:] == ["old", "old"] and target.read_text() == "new"


def test_programs_that_are_told_so_take_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Every option that the parts give their programs is one of theirs."""
    from benchmarks import differential, enhance, enhance_pictures, ground, rd_peers, rd_remac
    for module in (differential, enhance, ground, rd_peers, rd_remac):
        with pytest.raises(SystemExit):
            module.main(["--help"])
        assert "--force" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        enhance_pictures.main(["--help"])
    assert "--picture" in capsys.readouterr().out


def test_the_encoder_is_built_where_the_model_is_named(tmp_path: Path, small_model: Path, children: Children,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    """Not into build/rover-m, and never over another network than the one it is built from."""
    monkeypatch.delenv(run.MODEL_VARIABLE, raising=False)
    encoder, named = run.PARTS["encoder"], settings(tmp_path, tmp_path / "named")
    encoder.run(replace(named, model=None))
    assert children.option("--out") == "build/rover-m"
    encoder.run(named)
    assert children.option("--out") == str(tmp_path / "named")
    assert not encoder.done(named) and encoder.lacks(named) is None
    (tmp_path / "named").mkdir()
    shutil.copy(run.WEIGHTS / "network.rmn", tmp_path / "named")
    assert encoder.lacks(named) is None
    assert "holds another network" in str(encoder.lacks(settings(tmp_path, small_model)))


def test_a_part_that_lacks_something_is_left_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With the reason; where it was asked for by name, that is an error."""
    made: list[str] = []
    lacking = run.Part("", "", lambda current: False, lambda current: made.append("enhance-modules"), lambda current: "no run runs/modules/fused")
    monkeypatch.setattr(run, "PARTS", {"enhance-modules": lacking, "rd": run.Part("", "", lambda current: False, lambda current: made.append("rd"))})
    assert run.main([]) == 0 and made == ["rd"]
    assert "enhance-modules: left out: no run runs/modules/fused\n" in capsys.readouterr().out
    assert run.main(["enhance-modules"]) == 1 and made == ["rd"]
    assert capsys.readouterr().err == "remac: enhance-modules cannot be measured: no run runs/modules/fused\n"


def test_the_modules_need_runs_of_their_own(tmp_path: Path, small_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr(run, "ROOT", tmp_path)
    lacks = run.PARTS["enhance-modules"].lacks
    assert "no run runs/modules/fused: train it as" in str(lacks(settings(tmp_path, small_model)))
    for name in ("fused", "added", "plain"):
        (tmp_path / "runs" / "modules" / name).mkdir(parents=True)
        (tmp_path / "runs" / "modules" / name / "checkpoint.pt").touch()
    assert lacks(settings(tmp_path, small_model)) is None


def test_the_differential_run_is_up_to_date_when_it_is_complete(tmp_path: Path, small_model: Path) -> None:
    from benchmarks.differential import COUNT, FUZZ_COUNT
    current, done = settings(tmp_path, small_model), run.PARTS["differential"].done
    fuzzed = {"cases": FUZZ_COUNT}
    content = {"codec_hash": run.load_model(small_model).network.hash.hex(), "cases": COUNT, "bands": fuzzed, "streams": fuzzed}
    for change, expected in (({}, True), ({"cases": COUNT - 1}, False), ({"streams": {"cases": 0}}, False), ({"codec_hash": ""}, False)):
        (tmp_path / "differential.json").write_text(json.dumps({**content, **change}))
        assert done(current) is expected


def test_a_failing_part_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(current: run.Settings) -> None:
        raise subprocess.CalledProcessError(1, ["python", "-m", "benchmarks.rd"])
    monkeypatch.setitem(run.PARTS, "rd", run.Part("", "", lambda current: False, fails))
    assert run.main(["rd"]) == 1
    assert re.fullmatch(r"run: -m benchmarks.rd failed: .*finished parts are kept\n", capsys.readouterr().err)


# ---- peers at equal quality

def fake_peer(qualities: tuple[float, ...], calls: list[float]) -> Peer:
    """A codec that adds noise of variance 1/quality: its PSNR is 48.13 + 10 log10(quality) dB."""
    def encode(picture: NDArray[np.uint8], quality: float) -> bytes:
        calls.append(quality)
        return int(quality * 1000).to_bytes(8, "little")

    def decode(coded: bytes) -> NDArray[np.uint8]:
        step = round(100 / (int.from_bytes(coded, "little") / 1000))
        return np.full((64, 64, 3), 100 + step, np.uint8)
    return Peer("fake", "", qualities, encode, decode)


def test_a_peer_is_settled_at_the_wanted_psnr() -> None:
    calls: list[float] = []
    peer, picture = fake_peer((1, 2, 5, 10, 20, 50, 100), calls), np.full((64, 64, 3), 100, np.uint8)
    quality, coded, reached = latency.settle(peer, picture, 20 * np.log10(255 / 8))          # an error of 8 steps: quality 12 or 13
    assert quality in (12, 13) and reached == pytest.approx(20 * np.log10(255 / 8)) and int.from_bytes(coded, "little") == quality * 1000
    assert len(calls) <= 10 and len(set(calls)) == len(calls)
    assert latency.settle(peer, picture, 1.0)[0] == 1 and latency.settle(peer, picture, 99.0)[0] == 100


def test_ratios_are_taken_round_by_round() -> None:
    ours, theirs = Summary((1.0, 2.0, 4.0)), Summary((3.0, 6.0, 12.0))
    assert latency.ratio(ours, theirs) == {"p50": 3.0, "q25": 3.0, "q75": 3.0}
    assert latency.ratio(ours, Summary((2.0, 8.0))) == {"p50": 3.0, "q25": 2.5, "q75": 3.5}


def test_networks_count_what_the_codec_counts(small_model: Path) -> None:
    pytest.importorskip("torch")
    from benchmarks import networks
    from remac_runtime.bench import cost as bench_cost
    from remac_runtime.model import load_model
    model = load_model(small_model)
    costs = bench_cost.layer_costs(bench_cost.shape_of(model.network, model.bank), 256, 256)
    own = sum(layer.mac for layer in costs if layer.graph == "analysis")
    assert networks.count_mac(networks.twin(model.network)) == pytest.approx(own)
