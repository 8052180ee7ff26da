"""The stages before and after, and their roofline: by hand, that all ways give the same bytes, and that nothing is left switched off."""
from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks import roofline, stages
from remac_runtime import native, rans
from remac_runtime.bench import cost as bench_cost
from remac_runtime.bench import harness as bench
from remac_runtime.bench import stages as bench_stages
from remac_runtime.bench.stats import Summary
from remac_runtime.codec import Encoder
from remac_runtime.errors import RemacError
from remac_runtime.model import load_model
from remac_runtime.terrain import terrain

SIZE = (128, 192)           # rows and columns
needs_native = pytest.mark.skipif(native.library is None, reason="the C extension is not built")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "terrain.ppm"
    path.write_bytes(b"P6 %d %d 255\n" % (SIZE[1], SIZE[0]) + terrain(*SIZE, 1).tobytes())
    return path


def test_the_longer_of_computing_and_moving_bounds() -> None:
    machine = roofline.Machine(mac_s=100.0, bytes_s=10.0)
    computing, moving = roofline.Work(mac=200.0, moved_bytes=10.0), roofline.Work(mac=50.0, moved_bytes=10.0)
    assert (computing.least_s(machine), computing.bound(machine)) == (2.0, "compute")
    assert (moving.least_s(machine), moving.bound(machine)) == (1.0, "memory")


def test_the_work_is_that_of_the_layers(small_model: Path) -> None:
    model = load_model(small_model)
    work = roofline.work(model, *SIZE, symbols=7, stream_bytes=1000)
    costs = bench_cost.layer_costs(bench_cost.shape_of(model.network, model.bank), *SIZE)
    pixels = bench_cost.padded_pixels(*SIZE)
    assert sum(entry.mac for entry in work.values()) == pytest.approx(pixels * sum(layer.mac for layer in costs))
    latents = pixels // 256 * model.network.latents
    assert work[bench_stages.QUANTISE].moved_bytes == 19 * latents
    assert (work[bench_stages.CODING].moved_bytes, work[bench_stages.CODING].symbols) == (6 * latents + 1000, 7)
    assert set(work) < set(bench_stages.STAGES)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_a_processor_that_the_peak_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = tmp_path / "peak.c"
    unknown.write_text('#error "no dot products"\n')
    monkeypatch.setattr(roofline, "PEAK", unknown)
    with pytest.raises(RemacError, match=r"cannot be built for this processor.*no dot products"):
        roofline.measured()


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RemacError, match="install gcc or clang"):
        roofline.measured()


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
@pytest.mark.parametrize("processor", ["haswell", "alderlake", "icelake-server"])
def test_the_program_of_the_peak_compiles(tmp_path: Path, processor: str) -> None:
    built = subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", f"-march={processor}", "-c", str(roofline.PEAK), "-o", str(tmp_path / "o")],
                           capture_output=True, text=True, check=False)
    if "bad value" in built.stderr or "unknown value" in built.stderr:
        pytest.skip("not a compiler for x86-64")
    assert built.returncode == 0, built.stderr


@needs_native
def test_all_ways_give_the_same_bytes_and_their_stages(small_model: Path, source: Path, tmp_path: Path) -> None:
    model, library, code = load_model(small_model), native.library, rans.encode
    with Encoder(model, "numpy") as plain, Encoder(model, "c99") as ours:
        subjects = {name: stages.Subject(way, ours if way.backend == "c99" else plain, source, tmp_path / name) for name, way in stages.WAYS.items()}
        assert len({subject.encode() for subject in subjects.values()}) == 1
        assert stages.coded_symbols(subjects["c99"].encode) == stages.coded_symbols(subjects["numpy"].encode) > 0
        timings = stages.timed(subjects, 3)
    assert (native.library, rans.encode) == (library, code)
    for name, timing in timings.items():
        assert {len(summary.samples) for summary in timing.values()} == {3}
        assert all(timing[stage].median > 0 for stage in bench_stages.STAGES if (name, stage) != ("c99", bench_stages.SELECTION))
        assert (tmp_path / name).read_bytes() == subjects["c99"].encode()


def test_the_extension_is_switched_off_and_on_again() -> None:
    library = native.library
    with pytest.raises(ValueError, match="within"), native.switched_off():
        assert native.library is None
        raise ValueError("within")
    assert native.library is library


def test_ratios_are_round_by_round() -> None:
    assert stages.against_ours(Summary((2.0, 9.0, 8.0)), Summary((1.0, 3.0, 2.0))) == 3.0
    assert stages.against_ours(Summary((2.0,)), Summary((0.0,))) is None


def test_other_bytes_are_not_timed(small_model: Path, source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def differ(subject: bench.Subject) -> None:
        raise bench.BenchFailed("the streams differ")
    monkeypatch.setattr(bench, "verify", differ)
    monkeypatch.setattr(stages, "PICTURE", Path(source.name))
    arguments = ["--model", str(small_model), "--data", str(source.parent), "--out", str(source.parent / "out.json")]
    assert stages.main(arguments) == 1
    assert "the streams differ" in capsys.readouterr().err and not (source.parent / "out.json").exists()
    monkeypatch.setattr(stages, "PICTURE", Path("missing.png"))
    assert stages.main(arguments) == 1
    assert "no picture" in capsys.readouterr().err
