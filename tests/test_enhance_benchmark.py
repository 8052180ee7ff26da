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
from benchmarks.datasets import EvalImage
from benchmarks.enhance import ABLATED, ABLATIONS, Setting
from remac_runtime.terrain import terrain

RUNS = {"arcnn": "a", "arcnn-hevc": "b"}


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

    def methods(precision: str, **changed: str) -> set[str]:
        found = enhance.kept(path, {"marsqe": "x", **RUNS, **changed}, precision)["images"]
        return set(found["test/one"]["settings"]["jpeg 30"]) if found else set()
    assert methods("bfloat16") == {"jpeg", "arcnn", "marsqe", "marsqe-lite", "marsqe/no-reference"}
    assert methods("bfloat16", marsqe="y") == {"jpeg", "arcnn"}
    assert methods("bfloat16", arcnn="y") == {"jpeg", "marsqe", "marsqe-lite", "marsqe/no-reference"}
    assert methods("float32") == set()
    assert set(enhance.kept(path, {"marsqe": "y"}, "bfloat16")["weights"]) == {"marsqe", *RUNS}, "of baselines that are gone"
    assert "arcnn" in enhance.kept(path, {"marsqe": "y"}, "bfloat16")["images"]["test/one"]["settings"]["jpeg 30"]
    assert methods("bfloat16", remac="y") == methods("bfloat16"), "another codec of ours changes no JPEG"
    streams = {"remac 20": {"remac": measured(30), "marsqe": measured(31)}, "jpeg 30": {"jpeg": measured(30)}}
    of_streams = {"weights": {"remac": "x"}, "images": {"a": {"settings": streams}}}
    path.write_text(json.dumps({"schema": enhance.SCHEMA, "precision": "bfloat16", **of_streams}))
    assert enhance.kept(path, {"remac": "y"}, "bfloat16")["images"]["a"]["settings"] == {"remac 20": {}, "jpeg 30": {"jpeg": measured(30)}}


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
    for name, start, steps in (("first", "", 10), ("second", str(tmp_path / "first" / "checkpoint.pt"), 5)):
        (tmp_path / name).mkdir()
        torch.save({"step": steps, "seconds": 2.0 * steps}, tmp_path / name / "checkpoint.pt")
        (tmp_path / name / "config.json").write_text(json.dumps({"start": start, "device": "cpu", "command": "", "train": {"batch": 4}}))
    assert enhance.training_of(tmp_path / "second") == {"steps": 15, "seconds": 30, "patches": 60, "device": "cpu"}


def test_modules_need_their_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert enhance_modules.main(["--runs", str(tmp_path)]) == 1
    assert f"no run {tmp_path / 'fused'}: train it as --help says" in capsys.readouterr().err
