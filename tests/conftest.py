"""What the tests share: a small random model, the sample pictures, and the evaluation pictures where they are at hand."""
from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")   # before torch is imported: its threads spin at barriers when the machine is busy

ROOT = Path(__file__).resolve().parents[1]
DATA_VARIABLE = "REMAC_DATA"


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with the small random network and bank of small_network.py; it holds no ONNX files."""
    from small_network import write_small_model
    folder = tmp_path_factory.mktemp("small_model")
    write_small_model(folder)
    return folder


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of the sample pictures that are part of the checkout."""
    return ROOT / "samples"


@pytest.fixture(scope="session")
def mars_data() -> Path:
    """The folder of the evaluation pictures, which are not part of the checkout; skips where it is absent (docs/data.md)."""
    folder = Path(os.environ.get(DATA_VARIABLE) or ROOT.parent / "shared" / "data" / "mars")
    if not (folder / "test").is_dir():
        pytest.skip(f"the evaluation pictures are not at {folder}: see docs/data.md, or name their folder in {DATA_VARIABLE}")
    return folder
