"""What `remac info` prints: the header, packets and hashes of a stream. Needs no model."""
from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

from remac_runtime import packets
from remac_runtime.choices import PATTERNS
from remac_runtime.errors import BadInput, CorruptStream, UnsupportedStream
from remac_runtime.exits import Exit
from remac_runtime.format import NO_REFERENCE, SIDE_MAX

_COMPANDING = {packets.COMPANDING_NONE: "none", packets.COMPANDING_SQUARE_ROOT: "square root"}
_REFERENCE = {packets.REFERENCE_NONE: "none", packets.REFERENCE_BANK: "bank", packets.REFERENCE_EARLIER: "earlier image"}


def run(options: argparse.Namespace) -> int:
    path = Path(options.stream)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file: check the path") from None
    except IsADirectoryError:
        raise BadInput(f"{path}: is a folder: name a stream in it") from None
    try:
        scanned = packets.scan(data, SIDE_MAX ** 2)
    except (CorruptStream, UnsupportedStream) as error:
        raise type(error)(f"{path}: {error}") from None
    content = describe(data, scanned)
    if options.json:
        print(json.dumps({"command": "info", "file": str(path), **content}, indent=1))
    else:
        print("\n".join([f"{path}: {len(data):,} bytes, {content['bits_per_pixel']:.3f} bit/pixel", *_lines(content)]))
    return Exit.LOSS if scanned.lost else Exit.OK


def describe(data: bytes, scanned: packets.Scanned) -> dict[str, Any]:
    """Everything a stream says, as JSON holds it."""
    header = scanned.header
    references = {"kind": _REFERENCE[header.reference_kind], "semantic": _entry(header.semantic), "texture": _entry(header.texture),
                  "bank_hash": header.bank_hash.hex() if header.reference_kind else None, "earlier_image": header.earlier_image.hex() or None}
    return {
        "bytes": len(data), "bits_per_pixel": 8 * len(data) / (header.width * header.height), "sha256": hashlib.sha256(data).hexdigest(),
        "width": header.width, "height": header.height, "depth": header.depth, "grey": header.grey, "companding": _COMPANDING[header.companding],
        "mosaic": PATTERNS[header.mosaic],
        "profile": header.profile or None, "codec_hash": header.codec_hash.hex(), "image_id": header.image_id, "quality": header.quality,
        "references": references, "band_rows": header.band_rows, "bands": header.bands, "details_intact": scanned.details_intact,
        "lost_bands": list(scanned.lost), "unsupported_bands": list(scanned.unsupported), "missing_packets": scanned.missing_packets,
        "foreign_packets": scanned.foreign_packets, "skipped_bytes": scanned.skipped_bytes,
        "packets": [_packet(packet, packet.header.image_id == header.image_id) for packet in packets.find_packets(data)],
    }


def _packet(packet: packets.Packet, own: bool) -> dict[str, Any]:
    return {"sequence": packet.sequence, "offset": packet.offset, "bytes": packet.size, "crc": f"{packet.crc:08x}", "own": own, "band": packet.band,
            "fragment": packet.fragment, "fragments": packet.fragments, "quality": packet.quality, "lanes": 1 << packet.lanes_log2}


def _entry(number: int) -> int | None:
    return None if number == NO_REFERENCE else number


def _lines(content: dict[str, Any]) -> list[str]:
    references = content["references"]
    chosen = "none"
    if references["kind"] != "none":
        chosen = f"{references['kind']}: entropy parameters {_or_dash(references['semantic'])}, ground decoder {_or_dash(references['texture'])}; " \
                 f"bank {references['bank_hash']}"
    kind = f"{content['depth']}-bit {'grey' if content['grey'] else 'colour'}"
    facts = {
        "picture": f"{content['width']}x{content['height']}, {kind}, companding {content['companding']}, mosaic {content['mosaic']}",
        "image id": f"0x{content['image_id']:08x}",
        "profile": content["profile"] or "unknown (the first packet is lost)",
        "codec hash": content["codec_hash"], "quality": str(content["quality"]),
        "references": chosen, "bands": _bands(content), "damage": _damage(content), "sha256": content["sha256"],
    }
    table = ["  sequence    offset     bytes  crc       content"]
    for packet in content["packets"]:
        table.append(f"  {packet['sequence']:8}  {packet['offset']:8}  {packet['bytes']:8}  {packet['crc']}  {_content(packet)}")
    return [*(f"  {name:11} {text}" for name, text in facts.items()), *table]


def _bands(content: dict[str, Any]) -> str:
    return f"{content['bands']} of {content['band_rows']} rows, {content['bands'] - len(content['lost_bands'])} intact"


def _damage(content: dict[str, Any]) -> str:
    found = [
        "the details of the stream are lost" if not content["details_intact"] else "",
        f"lost bands {', '.join(map(str, content['lost_bands']))}" if content["lost_bands"] else "",
        f"bands for a newer reader {', '.join(map(str, content['unsupported_bands']))}" if content["unsupported_bands"] else "",
        f"packets missing: at least {content['missing_packets']}" if content["missing_packets"] else "",
        f"packets of other pictures: {content['foreign_packets']}" if content["foreign_packets"] else "",
        f"bytes outside intact packets: {content['skipped_bytes']}" if content["skipped_bytes"] else "",
    ]
    return "; ".join(text for text in found if text) or "none"


def _content(packet: dict[str, Any]) -> str:
    foreign = "" if packet["own"] else " of another picture"
    part = f" part {packet['fragment'] + 1}/{packet['fragments']}" if packet["fragments"] > 1 else ""
    return f"band {packet['band']}{part}, quality {packet['quality']}, {packet['lanes']} lanes{foreign}"


def _or_dash(value: int | None) -> str:
    return "-" if value is None else str(value)
