"""`remac ground --enhance`: what is reported of streams and pictures, where they go, and when they are made again."""
from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from PIL import Image
from small_ground import write_small_decoder, write_small_ground

from remac_runtime import cli
from remac_runtime.archive import coordinator
from remac_runtime.archive.task import Settings, Station
from remac_runtime.codec import EncodeOptions, Encoder
from remac_runtime.errors import BadInput
from remac_runtime.exits import Exit
from remac_runtime.images import Picture, load_picture
from remac_runtime.model import load_model
from remac_runtime.png import png_text
from remac_runtime.terrain import terrain


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("enhanced")
    write_small_ground(folder)
    return folder


def jpeg(path: Path, quality: int = 30) -> None:
    Image.fromarray(terrain(24, 32, 1)).save(path, "JPEG", quality=quality)


def archive(place: Path, source: Path, out: Path, *options: str) -> int:
    return cli.main(["ground", str(source), "-o", str(out), "--enhance", "--json", "--model", str(place), "--backend", "numpy", *options])


def settings_of(model: Path, *options: str) -> Settings:
    arguments = ["ground", "-", "-o", "x", "--enhance", "--model", str(model), "--backend", "numpy", *options]
    return coordinator.settings_of(cli.build_parser().parse_args(arguments))


def test_an_archive_of_streams_and_jpegs(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in"
    source.mkdir()
    with Encoder(load_model(place), "numpy") as encoder:
        (source / "a.rmc").write_bytes(encoder.encode(Picture(terrain(64, 64, 1))))
    jpeg(source / "b.jpg")
    command = ["ground", str(source), "-o", str(tmp_path / "out"), "--model", str(place), "--backend", "numpy"]
    assert cli.main(command) == 0 and [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]
    assert cli.main([*command, "--enhance"]) == 0 and sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]
    capsys.readouterr()
    assert cli.main([*command, "--enhance", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["there_already"] == 2
    notes = [png_text(tmp_path / "out" / name) or {} for name in ("a.png", "b.png")]
    assert [n.get("remac-enhancer") for n in notes] == ["marsqe@1", "marsqe@1"] and "remac-decoder" not in notes[1]


def test_an_archive_warns_as_enhance_does(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where the picture is there already; a picture that is too large is refused before it is decoded."""
    source, fine = tmp_path / "fine.rmc", "coded at quality 60, marsqe@1 was trained for 10 to 50: expect less"
    with Encoder(load_model(place), "numpy") as encoder:
        source.write_bytes(encoder.encode(Picture(terrain(64, 64, 1)), EncodeOptions(60)))
    jpeg(tmp_path / "b.jpg", 90)
    for _ in range(2):
        assert archive(place, tmp_path, tmp_path / "out") == 0
        printed = capsys.readouterr()
        warned = {Path(result["source"]).name: result["warnings"] for result in json.loads(printed.out)["results"]}
        assert warned == {"fine.rmc": [fine], "b.jpg": ["quantised like JPEG quality 90, marsqe@1 was trained for 20 to 50: expect less"]}
        assert f"remac: warning: [1/2] {source}: {fine}\n" in printed.err and printed.err.count("warning") == 2
    assert archive(place, tmp_path / "b.jpg", tmp_path / "small", "--max-pixels", "767") == Exit.FAILED
    assert "b.jpg: is 32x24, beyond the limit of 767 pixels" in capsys.readouterr().err and not (tmp_path / "small").exists()
    assert archive(place, tmp_path / "b.jpg", tmp_path / "small", "--max-pixels", "768") == 0


def test_a_picture_beside_a_stream_of_its_name(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The stream keeps the name that it has alone; whatever was there under that name is made again."""
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    jpeg(source / "x.jpg")
    assert archive(place, source, out) == 0 and [path.name for path in out.iterdir()] == ["x.png"]
    with Encoder(load_model(place), "numpy") as encoder:
        (source / "x.rmc").write_bytes(encoder.encode(Picture(terrain(64, 64, 1))))
    assert archive(place, source, out) == 0 and sorted(path.name for path in out.iterdir()) == ["x.jpg.png", "x.png"]
    assert [load_picture(out / name).size for name in ("x.png", "x.jpg.png")] == ["64x64", "32x24"]
    capsys.readouterr()
    assert archive(place, source, out) == 0 and json.loads(capsys.readouterr().out)["there_already"] == 2
    (source / "x.jpg.rmc").write_bytes((source / "x.rmc").read_bytes())
    assert archive(place, source, out) == Exit.USAGE
    assert "would both be written to" in (error := capsys.readouterr().err) and "rename one of them" in error


def test_pictures_are_made_again_when_a_file_of_the_enhancer_changes(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All that it opens, not only its network; and a worker whose files are others refuses."""
    model, source = tmp_path / "model", tmp_path / "b.jpg"
    shutil.copytree(place, model)
    jpeg(source)
    folder, done = model / "ground" / "enhance", []

    def noted(path: Path) -> None:
        network = onnx.load(str(path))
        network.doc_string += "trained again"
        onnx.save(network, str(path))

    def dictionary() -> None:
        with Encoder(load_model(model), "numpy") as encoder:
            (folder / "dictionary.rmc").write_bytes(encoder.encode(Picture(terrain(512, 768, 5)), EncodeOptions(60)))
    changes: list[Callable[[], object]] = [
        lambda: None, lambda: noted(folder / "segmenter.onnx"), lambda: noted(folder / "marsqe@1.references.onnx"),
        lambda: noted(folder / "marsqe@1.onnx"), dictionary, lambda: write_small_decoder(model, shift=120.0), lambda: None]
    for change in changes:
        before = settings_of(model)
        change()
        assert archive(model, source, tmp_path / "out") == 0
        done.append(json.loads(capsys.readouterr().out)["done"])
        if before != settings_of(model):
            with pytest.raises(BadInput, match=r"is another (marsqe@1 than where the run was started, or has other files|moderate@1 than)"):
                Station(before)
    assert done == [1, 1, 1, 1, 1, 1, 0]
    other = settings_of(model, "--ground-engine", "tensorrt")
    assert all(other.hashes[key] != digest for key, digest in settings_of(model).hashes.items()), "the engine rounds otherwise"
    (folder / "segmenter.onnx").unlink()
    assert archive(model, source, tmp_path / "out") == Exit.FAILED and "segmenter.onnx: missing: build it with" in capsys.readouterr().err
