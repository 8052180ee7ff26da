"""Streams that tests take apart and put together again."""
from __future__ import annotations

from remac_runtime.packets import BandPayload, pack_stream, scan


def hollow(stream: bytes) -> bytes:
    """The stream with nothing in its bands: valid packets, and no band that decodes."""
    header = scan(stream).header
    return pack_stream(header, [BandPayload(b"", header.quality, 0)] * header.bands)
