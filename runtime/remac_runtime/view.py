"""`remac view`: one self-contained page (or PNG) of a stream: decoded picture, bits per block, bands, references, losses."""
from __future__ import annotations

import argparse
import base64
import html
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from remac_runtime import packets
from remac_runtime.codec import Decoded, Decoder
from remac_runtime.commands import about, loss_lines, read_stream, reference, refuse_itself, warn
from remac_runtime.errors import BadInput, RemacError
from remac_runtime.exits import Exit, UsageError
from remac_runtime.files import check_folder, write_atomically
from remac_runtime.format import LATENT_STRIDE
from remac_runtime.images import to_pixels
from remac_runtime.model import load_model
from remac_runtime.png import png_bytes

# Dark to bright, readable without colour vision: RGB at equal steps.
_ANCHORS = np.array([(13, 8, 60), (84, 15, 109), (150, 40, 100), (208, 72, 68), (244, 128, 32), (250, 193, 40), (252, 255, 164)], np.float64)
_BLOCK = LATENT_STRIDE * LATENT_STRIDE   # pixels a latent position
_PERCENTILE = 99.5                       # brightest colour: a few extreme blocks do not darken all others
_BAND_COLOUR, _LOST_COLOUR = (0, 200, 255), (255, 60, 60)
_GAP, _LINE_HEIGHT = 16, 16


@dataclass(frozen=True)
class Heat:
    """Bits per pixel of each 16x16 block as colours uint8[h16,w16,3]; `top` is where the brightest colour begins."""

    colours: NDArray[np.uint8]
    top: float


def run(options: argparse.Namespace) -> int:
    source = Path(options.stream)
    output = Path(options.output) if options.output else source.with_suffix(".html")
    if output.suffix.lower() not in {".html", ".htm", ".png"}:
        raise UsageError(f"-o {output}: name a .html or a .png file")
    refuse_itself(source, output)
    check_folder(output)
    data = read_stream(source)
    with Decoder(load_model(options.model), options.backend, options.threads) as decoder:
        try:
            decoded = decoder.decode(data, False, options.max_pixels)
        except RemacError as error:
            raise type(error)(about(source, str(error))) from None
        content = (picture_view if output.suffix.lower() == ".png" else page)(decoded, source.name, data)
    write_atomically(output, content)
    for line in loss_lines(decoded):
        warn(f"{source}: {line}")
    if options.json:
        facts = {"command": "view", "input": str(source), "output": str(output), "lost_bands": list(decoded.report.lost_bands)}
        print(json.dumps(facts, indent=1))
    else:
        print(f"{source} -> {output}")
    return Exit.LOSS if decoded.report.lost_bands else Exit.OK


def heat_map(bits: NDArray[np.float32]) -> Heat:
    """Colours of the estimated bits of each latent position, float32[h16,w16]."""
    density = bits.astype(np.float64) / _BLOCK
    top = max(float(np.percentile(density, _PERCENTILE)), 1e-6)
    return Heat(_colours(density / top), top)


def _colours(level: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Colours uint8[...,3] of levels 0..1."""
    position = np.clip(level, 0, 1) * (len(_ANCHORS) - 1)
    channels = [np.interp(position, np.arange(len(_ANCHORS)), _ANCHORS[:, c]) for c in range(3)]
    return np.rint(np.stack(channels, -1)).astype(np.uint8)


@dataclass(frozen=True)
class BandRow:
    """A line of the table of bands: rows of the picture, bytes of its packets, None where it is lost."""

    number: int
    first: int
    end: int
    size: int | None
    quality: int | None


def band_rows(decoded: Decoded, data: bytes) -> list[BandRow]:
    header, found = decoded.header, packets.scan(data, 2 ** 31).bands
    rows = []
    for band in range(decoded.report.bands):
        first, end = header.rows_of(band)
        kept = found.get(band) if band not in decoded.report.lost_bands else None
        rows.append(BandRow(band, first, min(end, header.height), len(kept.payload) if kept else None, kept.quality if kept else None))
    return rows


def reference_text(decoded: Decoded) -> str:
    header = decoded.header
    if header.reference_kind == packets.REFERENCE_NONE:
        return "none"
    names = (("entropy parameters", header.semantic), ("ground decoder", header.texture))
    entries = ", ".join(f"entry {reference(entry)} for the {name}" for name, entry in names if reference(entry) is not None)
    return f"{entries or 'none chosen'}; bank {header.bank_hash.hex()}"


def facts_of(decoded: Decoded, data: bytes) -> dict[str, str]:
    header, report = decoded.header, decoded.report
    kind = f"{header.depth}-bit {'grey' if header.grey else 'colour'}"
    lost = "; ".join(loss_lines(decoded)) or "none"
    bits_per_pixel = 8 * len(data) / (header.width * header.height)
    return {"Picture": f"{header.width}x{header.height}, {kind}", "Size": f"{len(data):,} bytes, {bits_per_pixel:.3f} bit/pixel",
            "Quality": str(header.quality), "References": reference_text(decoded), "Bands": f"{report.bands} of {header.band_rows} rows",
            "Damage": lost, "Codec": f"{header.profile} {header.codec_hash.hex()}".strip(), "Image id": f"0x{header.image_id or 0:08x}"}


# ---- the page

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem auto; padding: 0 1rem; max-width: 90rem; }}
h1 {{ font-size: 1.3rem; }} h2 {{ font-size: 1.05rem; margin: 1.6rem 0 .4rem; }}
.pair {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem; align-items: start; }}
figure {{ margin: 0; }} figcaption {{ margin: .3rem 0; min-height: 1.8rem; }}
svg {{ width: 100%; height: auto; display: block; background: #222; }}
svg image {{ image-rendering: pixelated; }}
.band {{ fill: none; stroke: rgb(0 200 255); stroke-width: 1.5; vector-effect: non-scaling-stroke; stroke-dasharray: 6 4; }}
.lost {{ fill: url(#hatch); stroke: rgb(255 60 60); stroke-width: 2; vector-effect: non-scaling-stroke; }}
.bar {{ height: 1rem; background: linear-gradient(to right, {gradient}); }}
.ticks {{ display: flex; justify-content: space-between; }}
table {{ border-collapse: collapse; }} td, th {{ padding: .15rem .8rem .15rem 0; text-align: left; vertical-align: top; }}
td.n, th.n {{ text-align: right; font-variant-numeric: tabular-nums; }}
meter {{ width: 10rem; }} .gone {{ color: rgb(220 40 40); font-weight: 600; }}
</style></head><body>
<h1>{title}</h1>
<table>{facts}</table>
<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs><pattern id="hatch" width="12" height="12" patternUnits="userSpaceOnUse"
 patternTransform="rotate(45)"><rect width="4" height="12" fill="rgb(255 60 60 / .55)"/></pattern></defs></svg>
<div class="pair">
<figure><figcaption><label>Decoded picture; bits over it: <input type="range" min="0" max="100" value="0"
 oninput="document.getElementById('over').style.opacity = this.value / 100"></label></figcaption>
<svg viewBox="0 0 {width} {height}" role="img" aria-label="decoded picture"><image width="{width}" height="{height}" href="{picture}"/>
<image id="over" style="opacity:0" width="{padded_width}" height="{padded_height}" preserveAspectRatio="none" href="{heat}"/>{bands}</svg></figure>
<figure><figcaption>Bits per pixel of each 16x16 block (estimated)</figcaption>
<svg viewBox="0 0 {width} {height}" role="img" aria-label="bits per pixel"><image width="{padded_width}" height="{padded_height}"
 preserveAspectRatio="none" href="{heat}"/>{bands}</svg>
<div class="bar"></div><div class="ticks">{ticks}</div></figure>
</div>
<h2>Bands</h2>
<table><tr><th class="n">band</th><th>rows</th><th class="n">bytes</th><th class="n">bit/pixel</th><th class="n">quality</th><th></th></tr>
{table}</table>
</body></html>
"""


def page(decoded: Decoded, name: str, data: bytes) -> str:
    """The page of a stream; nothing in it is loaded from elsewhere."""
    header, heat, rows = decoded.header, heat_map(decoded.bits), band_rows(decoded, data)
    anchors = ", ".join(f"rgb({int(r)} {int(g)} {int(b)})" for r, g, b in _ANCHORS)
    facts = "".join(f"<tr><th>{html.escape(key)}</th><td>{html.escape(value)}</td></tr>" for key, value in facts_of(decoded, data).items())
    ticks = "".join(f"<span>{heat.top * step / 4:.3g}</span>" for step in range(5))
    largest = max((row.size or 0 for row in rows), default=0) or 1
    return _PAGE.format(title=html.escape(name), gradient=anchors, facts=facts, width=header.width, height=header.height,
                        padded_width=header.padded_width, padded_height=header.padded_height, picture=_data_uri(to_pixels(decoded.picture)),
                        heat=_data_uri(heat.colours), bands="".join(_band_shape(row, header.width) for row in rows), ticks=ticks,
                        table="\n".join(_band_line(row, header.width, largest) for row in rows))


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    return "data:image/png;base64," + base64.b64encode(png_bytes(pixels)).decode()


def _band_shape(row: BandRow, width: int) -> str:
    lost = row.size is None
    label = f"band {row.number}{', lost' if lost else ''}: rows {row.first}-{row.end - 1}"
    kind, height = "lost" if lost else "band", row.end - row.first
    return f'<rect class="{kind}" x="0" y="{row.first}" width="{width}" height="{height}"><title>{label}</title></rect>'


def _band_line(row: BandRow, width: int, largest: int) -> str:
    cells = f'<td class="n">{row.number}</td><td>{row.first}-{row.end - 1}</td>'
    if row.size is None:
        return f'<tr>{cells}<td class="n gone">lost</td><td colspan="3" class="gone">concealed</td></tr>'
    density = 8 * row.size / (width * (row.end - row.first))
    return (f'<tr>{cells}<td class="n">{row.size:,}</td><td class="n">{density:.3f}</td><td class="n">{row.quality}</td>'
            f'<td><meter max="{largest}" value="{row.size}"></meter></td></tr>')


# ---- the picture

def picture_view(decoded: Decoded, name: str, data: bytes) -> bytes:
    """A PNG: decoded picture and bits per block side by side, facts below. Raises BadInput where Pillow, which draws the text, is missing."""
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError:
        raise BadInput("a .png view needs Pillow: pip install pillow, or write a .html view, which needs nothing") from None
    header, heat = decoded.header, heat_map(decoded.bits)
    blocks = heat.colours.repeat(LATENT_STRIDE, 0).repeat(LATENT_STRIDE, 1)[:header.height, :header.width]
    panels = [_with_bands(panel, band_rows(decoded, data)) for panel in (to_pixels(decoded.picture), blocks)]
    lines = [name, *(f"{key}: {value}" for key, value in facts_of(decoded, data).items())]
    font = ImageFont.load_default()
    text_width = math.ceil(max(font.getlength(line) for line in lines))
    bar = f"bit/pixel of each 16x16 block: 0 to {heat.top:.3g}"
    columns = max(2 * header.width + _GAP, text_width, math.ceil(font.getlength(bar))) + 2 * _GAP
    canvas = np.full((header.height + 3 * _GAP + (len(lines) + 2) * _LINE_HEIGHT, columns, 3), 24, np.uint8)
    for left, panel in zip((_GAP, header.width + 2 * _GAP), panels, strict=True):
        canvas[_GAP:_GAP + header.height, left:left + header.width] = panel
    below = header.height + 2 * _GAP
    scale = _colours(np.linspace(0, 1, columns - 2 * _GAP))
    canvas[below:below + _LINE_HEIGHT // 2, _GAP:_GAP + len(scale)] = scale
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    for number, line in enumerate([bar, *lines]):
        draw.text((_GAP, below + (number + 1) * _LINE_HEIGHT - 4), line, fill=(235, 235, 235), font=font)
    return png_bytes(np.asarray(image))


def _with_bands(panel: NDArray[np.uint8], rows: list[BandRow]) -> NDArray[np.uint8]:
    """A copy with a dashed line on top of each band and stripes over the lost ones."""
    marked = panel.copy()
    x = np.arange(panel.shape[1])
    for row in rows:
        if row.size is None:
            y = np.arange(row.first, row.end)[:, None]
            marked[row.first:row.end][(x + y) % 24 < 8] = _LOST_COLOUR
        if row.first:
            marked[row.first, x % 10 < 6] = _BAND_COLOUR
    return marked

