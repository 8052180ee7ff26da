"""What the tests share: a small random model, the sample pictures, and the evaluation pictures where they are at hand."""
from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    import onnx

    from remac.codec import Codec
    from remac_runtime.model import Model

os.environ.setdefault("OMP_NUM_THREADS", "1")   # before torch is imported: its threads spin at barriers when the machine is busy
settings.register_profile("untimed", deadline=None)      # no test asserts a time
settings.load_profile("untimed")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A working folder with a.png, b.png and bad.png, and the stand-in codec in place of the real one."""
    from fake_codec import PICTURE, FakeDecoder, FakeEncoder, FakeModel

    from remac_runtime import commands, view
    from remac_runtime.images import Picture, save_picture
    for module in (commands, view):
        monkeypatch.setattr(module, "load_model", lambda folder: FakeModel())
        monkeypatch.setattr(module, "Decoder", FakeDecoder)
    monkeypatch.setattr(commands, "Encoder", FakeEncoder)
    monkeypatch.chdir(tmp_path)
    save_picture(Picture(PICTURE), "a.png")
    save_picture(Picture(PICTURE[::-1]), "b.png")
    Path("bad.png").write_bytes(b"not a picture")
    return tmp_path


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with the small random network and bank of small_network.py; it holds no ONNX files."""
    from small_network import write_small_model
    folder = tmp_path_factory.mktemp("small_model")
    write_small_model(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The small random model with its exported graphs, in a folder of the module's own. Modules that need another one define it."""
    from small_network import write_small_model

    from export import to_onnx
    from remac_runtime.model import load_model
    from remac_runtime.network import read_network
    folder = tmp_path_factory.mktemp("export")
    write_small_model(folder)
    to_onnx.export_graphs(read_network(folder / "network.rmn"), folder)
    return load_model(folder)


@pytest.fixture(scope="module")
def graphs(model: Model) -> dict[str, onnx.ModelProto]:
    """The exported graphs of `model` as read back."""
    from export import onnx_checks
    return onnx_checks.read_graphs(model.folder)


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of the sample pictures that are part of the checkout."""
    return ROOT / "samples"


@pytest.fixture(scope="session")
def mars_data() -> Path:
    """The folder of the evaluation pictures, which are not part of the checkout; skips where it is absent (docs/data.md)."""
    from remac_runtime.mars import DataMissing, data_folder
    try:
        return data_folder()
    except DataMissing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def integer_codec() -> Codec:
    """The codec of tiny_codec.py, in integer mode; without torch the test is skipped."""
    pytest.importorskip("torch")
    from tiny_codec import lively_codec
    return lively_codec()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures to train on."""
    from tiny_codec import write_pictures
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder)
    return folder
