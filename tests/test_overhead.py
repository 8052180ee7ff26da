"""Headers, CRCs and the states of the coder take less than 1 % of a stream of a flight frame at 0.25 bit/pixel."""
from __future__ import annotations

from pathlib import Path

import pytest

from remac_runtime import packets
from remac_runtime.codec import EncodeOptions, Encoder
from remac_runtime.images import as_picture
from remac_runtime.model import Model
from remac_runtime.network import read_bank, read_network
from remac_runtime.terrain import terrain

WEIGHTS = Path(__file__).resolve().parents[1] / "weights" / "rover-m"
HEIGHT, WIDTH = 1152, 1600


@pytest.mark.skipif(not (WEIGHTS / "network.rmn").exists(), reason="no trained network in weights/")
def test_overhead_is_below_one_percent() -> None:
    network = read_network(WEIGHTS / "network.rmn")
    budget = HEIGHT * WIDTH // 32
    with Encoder(Model(WEIGHTS, network, read_bank(WEIGHTS / "bank.rmb", network)), "torch") as encoder:
        data = encoder.encode(as_picture(terrain(HEIGHT, WIDTH, 4)), EncodeOptions(target_bytes=budget))
    assert 0.6 * budget < len(data) <= budget
    bands = packets.scan(data).bands.values()
    overhead = len(data) - sum(len(band.payload) - 4 * 2 ** band.lanes_log2 for band in bands)
    assert overhead < 0.01 * budget, f"{overhead} bytes of {len(data)}"
