"""The benchmark of the enhancement: what is still to be measured, what of earlier results counts, and the means."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

import torch

from benchmarks import enhance, enhance_modules
from benchmarks.datasets import EvalImage, pixel_hash
from benchmarks.enhance import ABLATED, ABLATIONS, Setting
from benchmarks.store import ResultsError
from remac_runtime.terrain import terrain

RUNS = {"arcnn": "a", "arcnn-hevc": "b"}
VERSIONS = {"pillow": "1", "x265": "2"}


def image(set_name: str = "test") -> EvalImage:
    return EvalImage(set_name, Path("one.png"))


def results(**methods: dict[str, float]) -> dict[str, Any]:
    return {"images": {"test/one": {"settings": {"jpeg 30": methods}}}}


def measured(psnr: float) -> dict[str, float]:
    return dict.fromkeys(enhance.NAMES, 0.5) | {"psnr": psnr}


def test_only_what_is_missing_is_measured() -> None:
    nothing: dict[str, Any] = {"images": {}}

    def jobs(content: dict[str, Any], setting: Setting = ABLATED, ablated: bool = False, set_name: str = "test") -> list[tuple[Any, Any]]:
        return [(job.others, job.ablations) for job in enhance.missing(image(set_name), setting, RUNS, content, ablated)]
    assert jobs(nothing) == [(("jpeg", "arcnn"), ("",))] and jobs(nothing, ablated=True) == [((), ABLATIONS)]
    assert jobs(nothing, set_name="frames") == [] and jobs(nothing, ablated=True, set_name="frames") == []
    assert jobs(nothing, enhance.ELSEWHERE[0], set_name="frames") == [(("jpeg", "arcnn"), ("",))]
    assert jobs(nothing, Setting("remac", 12)) == [(("remac",), ("",))], "no baseline was trained for streams"
    assert jobs(nothing, Setting("remac", 12), ablated=True) == []
    some = results(jpeg=measured(30), marsqe=measured(31), **{f"marsqe/{name}": measured(31) for name in ABLATIONS[1:]})
    assert jobs(some) == [(("arcnn",), ())] and jobs(some, ablated=True) == [((), ABLATIONS[:1])]
    done = results(jpeg=measured(30), arcnn=measured(30), marsqe=measured(31), **{f"marsqe/{name}": measured(31) for name in ABLATIONS})
    assert jobs(done) == [] and jobs(done, ablated=True) == []


def test_means_and_the_picture_that_gains_least() -> None:
    images = {f"test/{n}": {"settings": {"jpeg 30": {"jpeg": measured(30), "marsqe": measured(30 + gain)}}} for n, gain in enumerate((1.0, -0.5))}
    images["frames/a"] = {"settings": {"jpeg 30": {"jpeg": measured(20), "marsqe": measured(25)}}}
    found = enhance.summary({"images": images}, "test")["jpeg 30"]["marsqe"]
    assert (found["gain"], found["worst"], found["pictures"], found["psnr"]) == (0.25, -0.5, 2, 30.25)
    assert enhance.summary({"images": images}, "frames")["jpeg 30"]["marsqe"]["gain"] == 5
    assert enhance.summary({"images": images}, "val") == {}


def test_results_of_other_weights_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "enhance.json"
    content = results(jpeg=measured(30), arcnn=measured(30), marsqe=measured(31),
                      **{"marsqe-lite": measured(31), "marsqe/no-reference": measured(30)})
    path.write_text(json.dumps({"schema": enhance.SCHEMA, "precision": "bfloat16", "weights": {"marsqe": "x", **RUNS}, **content}))

    def kept(weights: dict[str, str], force: bool = False) -> dict[str, Any]:
        return enhance.kept(path, weights, "bfloat16", VERSIONS, force)

    def methods(**changed: str) -> set[str]:
        return set(kept({"marsqe": "x", **RUNS, **changed})["images"]["test/one"]["settings"]["jpeg 30"])
    assert methods() == {"jpeg", "arcnn", "marsqe", "marsqe-lite", "marsqe/no-reference"}
    assert methods(marsqe="y") == {"jpeg", "arcnn"}
    assert methods(arcnn="y") == {"jpeg", "marsqe", "marsqe-lite", "marsqe/no-reference"}
    assert set(kept({"marsqe": "y"})["weights"]) == {"marsqe", *RUNS}, "of baselines that are gone"
    assert "arcnn" in kept({"marsqe": "y"})["images"]["test/one"]["settings"]["jpeg 30"]
    assert methods(remac="y") == methods(), "another codec of ours changes no JPEG"
    assert kept({"marsqe": "x", **RUNS}, True)["images"]["test/one"]["settings"]["jpeg 30"] == {}
    forced = kept({"marsqe": "x"}, True)
    assert list(forced["images"]["test/one"]["settings"]["jpeg 30"]) == ["arcnn"], "its run is gone: it could not be measured again"
    assert enhance.summary(forced, "test") == {}, "gains are over the codec, which is still to be measured"
    streams = {"remac 20": {"remac": measured(30), "marsqe": measured(31)}, "jpeg 30": {"jpeg": measured(30)}}
    of_streams = {"weights": {"remac": "x"}, "images": {"a": {"settings": streams}}}
    path.write_text(json.dumps({"schema": enhance.SCHEMA, "precision": "bfloat16", **of_streams}))
    assert kept({"remac": "y"})["images"]["a"]["settings"] == {"remac 20": {}, "jpeg 30": {"jpeg": measured(30)}}


def write_results(path: Path, **more: Any) -> str:
    content = {"schema": enhance.SCHEMA, "precision": "bfloat16", "weights": RUNS, **results(jpeg=measured(30), arcnn=measured(31)), **more}
    path.write_text(json.dumps(content))
    return path.read_text()


@pytest.mark.parametrize(("change", "precision", "message"), [
    ({}, "float32", r"in bfloat16 \(schema 3\), here is float32 \(schema 3\): move it away or name another --out"),
    ({"schema": 2}, "bfloat16", r"in bfloat16 \(schema 2\), here is bfloat16 \(schema 3\): move it away or name another --out"),
    ({"versions": {"x265": "3"}}, "bfloat16", "with x265 3, here is 2: move it away or name another --out")])
def test_results_that_could_not_be_measured_again_are_not_replaced(tmp_path: Path, change: dict[str, Any], precision: str, message: str) -> None:
    path = tmp_path / "enhance.json"
    written = write_results(path, **change)
    for force in (False, True):
        with pytest.raises(ResultsError, match=message):
            enhance.kept(path, {}, precision, VERSIONS, force)
    assert path.read_text() == written


def test_versions_that_a_file_does_not_name_are_recorded(tmp_path: Path) -> None:
    path = tmp_path / "enhance.json"
    assert enhance.kept(path, RUNS, "bfloat16", VERSIONS)["versions"] == VERSIONS
    write_results(path)
    found = enhance.kept(path, RUNS, "bfloat16", VERSIONS)
    assert found["versions"] == VERSIONS and set(found["images"]["test/one"]["settings"]["jpeg 30"]) == {"jpeg", "arcnn"}
    assert set(enhance.CODERS) <= set(enhance.library_versions())


def test_complete_results_of_another_picture_do_not_count(tmp_path: Path) -> None:
    pictures = (EvalImage("test", tmp_path / "one.png"), EvalImage("test", tmp_path / "new.png"))
    Image.fromarray(terrain(16, 16, 1)).save(pictures[0].path)
    content = {"weights": RUNS, **results(jpeg=measured(30), arcnn=measured(31))}
    content["images"]["test/one"]["pixels"] = pixel_hash(terrain(16, 16, 1))
    enhance.forget_changed(content, pictures, RUNS, tmp_path / "enhance.json")
    assert set(content["images"]) == {"test/one"}
    Image.fromarray(terrain(16, 16, 2)).save(pictures[0].path)
    with pytest.raises(ResultsError, match=r"another picture named test/one, and results of arcnn-hevc, whose runs are gone: move it away"):
        enhance.forget_changed(content, pictures, {"arcnn": "a"}, tmp_path / "enhance.json")
    assert set(content["images"]) == {"test/one"}
    enhance.forget_changed(content, pictures, RUNS, tmp_path / "enhance.json")
    assert content["images"] == {}


def test_a_run_keeps_what_it_must_not_replace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --out, in single precision: one line, and the file stays. Pictures are compared where nothing is missing."""
    picture, out, jobs = EvalImage("test", tmp_path / "one.png"), tmp_path / "enhance.json", list[Any]()
    Image.fromarray(terrain(16, 16, 1)).save(picture.path)
    stand_ins = {"evaluation_images": (picture,), "found_runs": RUNS, "made_by": {"codec": "c"}, "weights_of_marsqe": "x",
                 "library_versions": VERSIONS, "cost_of": {},
                 "training_of_shipped": {}, "training_of": {}, "load_segmenter": None, "evaluate": {}, "data_folder": tmp_path}
    for name, value in stand_ins.items():
        monkeypatch.setattr(enhance, name, lambda *_, value=value: value)
    monkeypatch.setattr(enhance, "CODERS", tuple(VERSIONS))
    monkeypatch.setattr(enhance, "measure_all", lambda found, options, content: jobs.append((found, content)))
    everything = {name: measured(30) for name in ("jpeg", "hevc", "remac", *enhance.BASELINES, "marsqe", *(f"marsqe/{name}" for name in ABLATIONS))}
    image = {"pixels": pixel_hash(picture.load()), "settings": {setting.key: everything for setting in enhance.ALL_SETTINGS}}
    written = write_results(out, weights={"marsqe": "x", "remac": "c", **RUNS}, images={"test/one": image})
    arguments = ["--out", str(out), "--runs", str(tmp_path)]
    assert enhance.main([*arguments, "--float32"]) == 1 and not jobs and out.read_text() == written
    assert capsys.readouterr().err.count("\n") == 1
    assert enhance.main(arguments) == 0 and jobs[-1][0] == [] and jobs[-1][1]["versions"] == VERSIONS
    assert "no run of dncnn, dncnn-hevc in" in capsys.readouterr().err
    Image.fromarray(terrain(16, 16, 2)).save(picture.path)
    assert enhance.main(arguments) == 0 and len(jobs[-1][0]) == len(enhance.ALL_SETTINGS) + 1, "all settings, and the ablations of one"


def test_a_job_is_measured(tmp_path: Path) -> None:
    """Baselines by the run of the setting's kind; the enhanced pictures by method and ablation."""
    Image.fromarray(terrain(176, 192, 1)).save(tmp_path / "one.png")

    def mars(compressed: np.ndarray, tables: np.ndarray, ablation: str = "", *, bound: bool = True) -> dict[str, np.ndarray]:
        assert bound and tables.shape == (2, 64)
        return {"marsqe": compressed, "marsqe-lite": compressed}
    models: Any = enhance.Models(mars, {"arcnn": lambda picture: terrain(176, 192, 1)})      # type: ignore[arg-type]
    chosen = enhance.Job(EvalImage("test", tmp_path / "one.png"), ABLATED, ("jpeg", "arcnn"), ("", "no-reference"))
    _, found = enhance.measure(chosen, models)
    assert set(found) == {"jpeg", "arcnn", "marsqe", "marsqe-lite", "marsqe/no-reference", "marsqe-lite/no-reference"}
    assert found["arcnn"]["psnr"] > 60 > found["jpeg"]["psnr"] == found["marsqe"]["psnr"]


def test_training_counts_what_a_run_started_from(tmp_path: Path) -> None:
    for name, start, steps, processes in (("first", [], 10, 1), ("other", [], 3, 2), ("second", ["first", "other"], 5, 2)):
        (tmp_path / name).mkdir()
        torch.save({"step": steps, "seconds": 2.0 * steps}, tmp_path / name / "checkpoint.pt")
        (tmp_path / name / "config.json").write_text(json.dumps(
            {"start": [str(tmp_path / run / "checkpoint.pt") for run in start], "device": "cpu", "command": "", "train": {"batch": 4},
             "processes": processes}))
    assert enhance.training_of(tmp_path / "second") == {"steps": 18, "seconds": 36, "patches": 40 + 24 + 40, "device": "cpu"}


def test_modules_need_their_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert enhance_modules.main(["--runs", str(tmp_path)]) == 1
    assert f"no run {tmp_path / 'fused'}: train it as --help says" in capsys.readouterr().err
