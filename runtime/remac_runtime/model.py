"""The model folder: what `export/rover_encoder.py` builds and a board gets. Reads the normative files; engines read their own."""
from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from remac_runtime.errors import BadNetwork
from remac_runtime.network import Bank, Network, read_bank, read_network

MODEL_VARIABLE = "REMAC_MODEL"
DEFAULT_MODEL = Path("build", "rover-m")
NETWORK_FILE, BANK_FILE = "network.rmn", "bank.rmb"
GROUND_FOLDER = Path("ground")              # NAME@VERSION.onnx of each ground decoder (ground.py)
ENHANCE_FOLDER = GROUND_FOLDER / "enhance"  # NAME@VERSION.onnx of each enhancement network (enhance/enhancer.py)


@dataclass(frozen=True)
class Model:
    """A loaded network with its folder. `bank` is None where the folder has none: the encoder then codes without references."""

    folder: Path
    network: Network
    bank: Bank | None
    bank_problem: str | None = None


def model_folder(folder: Path | str | None = None) -> Path:
    """The folder named, else $REMAC_MODEL, else build/rover-m in the working folder or beside a checkout of this package. Raises BadNetwork."""
    named = folder or os.environ.get(MODEL_VARIABLE)
    if named:
        return Path(named)
    for root in (Path.cwd(), Path(__file__).resolve().parents[2]):
        if (root / DEFAULT_MODEL / NETWORK_FILE).exists():
            return root / DEFAULT_MODEL
    raise BadNetwork(f"no model at {DEFAULT_MODEL}: run `make encoder`, or name its folder with --model or {MODEL_VARIABLE}")


def load_model(folder: Path | str | None = None) -> Model:
    """Load network and bank. A missing or foreign bank is no error here: `bank_problem` says what is wrong. Raises BadNetwork."""
    path = model_folder(folder)
    network = read_network(path / NETWORK_FILE)
    try:
        return Model(path, network, read_bank(path / BANK_FILE, network))
    except BadNetwork as error:
        return Model(path, network, None, str(error))
