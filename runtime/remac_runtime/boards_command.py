"""The command `remac boards`: the boards that are known, one of them in detail, and what the codec would cost on them."""
from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from remac_runtime import fit
from remac_runtime.boards import Board, figures, find_board, load_boards
from remac_runtime.exits import Exit

HEADS: tuple[str, ...] = ("board", "runtime", "memory", "needs", "latency", "bound by", "energy", "saved s/s, 32 kbit/s", "2 Mbit/s",
                          "pictures a pass", "basis")
LABEL = "All figures are predictions, none was measured on these boards but where it says so."


def run(options: argparse.Namespace) -> int:
    """The exit code. Raises RemacError."""
    chosen = [find_board(options.board)] if options.board else load_boards()
    content, lines = _fit(chosen, options) if options.action == "fit" else _list(chosen, options.board is not None)
    if options.json:
        print(json.dumps({"command": "boards", "action": options.action, **content}, indent=1))
    else:
        print("\n".join(lines))
    return Exit.OK


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> Iterator[str]:
    """Rows as text, the first `left` columns and the last one to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [cell.ljust(widths[i]) if i < left or i == len(row) - 1 else cell.rjust(widths[i]) for i, cell in enumerate(row)]
        yield "  ".join(cells).rstrip()


# ---- list

def _list(boards: Sequence[Board], detail: bool) -> tuple[dict[str, Any], list[str]]:
    content = {"boards": [_as_json(board) for board in boards]}
    if detail:
        return content, list(_details(boards[0]))
    rows = [("board", "class", "processor", "cores", "MHz", "bytes by", "memory", "confirmed", "runtimes")]
    for board in boards:
        known = list(figures(board))
        confirmed = f"{sum(board.confirmed(figure) for figure in known)}/{len(known)}"
        rows.append((board.id, board.kind, board.cpu.model, str(board.cpu.cores), str(board.cpu.clock_mhz), board.cpu.int8_dot,
                     _mib(board.memory.size_mib), confirmed, ", ".join(board.runtimes)))
    last = f"{len(boards)} boards. confirmed: figures with a source that can be looked up, of all; `remac boards --board NAME` shows them."
    return content, [*aligned(rows, 3), "", last]


def _as_json(board: Board) -> dict[str, Any]:
    content = asdict(board)
    content["class"] = content.pop("kind")
    return content


def _details(board: Board) -> Iterator[str]:
    yield f"{board.id}: {board.name} ({board.vendor}, {board.year}, {board.kind})"
    if board.note:
        yield f"  {board.note}"
    rows = [("figure", "value", "confirmed", "source")]
    content = asdict(board)
    for figure in figures(board):
        table, _, key = figure.partition(".")
        value = content[table][key] if key else ", ".join(f"{mode.name} {mode.watts:g} W" for mode in board.power_modes)
        covering = [source for source in board.sources if {figure, table} & set(source.figures)]
        best = max(covering, key=lambda source: source.confirmed)
        rows.append((figure, str(value), "yes" if best.confirmed else "no", best.source))
    yield from (f"  {line}" for line in aligned(rows, 2))
    yield f"  peaks: {board.peaks.derived}"
    cpu = board.cpu
    yield f"  runtimes: {', '.join(board.runtimes)}; {board.software.os}; {cpu.isa}, {cpu.simd}, {cpu.fpu}, {cpu.endian}-endian"


# ---- fit

@dataclass(frozen=True)
class _Fitted:
    """A board with what is predicted for each of its runtimes, and its measured runs."""

    board: Board
    predictions: Sequence[fit.Prediction]
    gains: Sequence[fit.Gain | None]       # None where the profile's rate was not measured
    compared: Sequence[fit.Compared]

    def to_json(self) -> dict[str, Any]:
        gains = [asdict(gain) if gain else None for gain in self.gains]
        predictions = [{**asdict(p), "seconds": p.seconds, "gain": gain} for p, gain in zip(self.predictions, gains, strict=True)]
        measured = [{**asdict(c.run), "predicted_s": c.predicted_s, "error": c.error} for c in self.compared]
        return {"board": self.board.id, "predictions": predictions, "measured": measured}


def _fitted(board: Board, rate: fit.Rate | None, options: argparse.Namespace) -> _Fitted:
    width, height = options.image
    predictions = fit.predict(board, options.profile, height, width, options.threads)
    gains = [fit.gain(rate, prediction.seconds, height, width) if rate else None for prediction in predictions]
    return _Fitted(board, predictions, gains, fit.compare(board, options.profile))


def _fit(boards: Sequence[Board], options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    packed, (width, height) = fit.load_figures(), options.image
    packed.profile(options.profile)
    rate = packed.rate.get(options.profile)       # None for one that does not reach the quality of the comparison on every picture
    fitted = [_fitted(board, rate, options) for board in boards]
    content = {"label": LABEL, "profile": options.profile, "image": [width, height], "rate": asdict(rate) if rate else None,
               "boards": [f.to_json() for f in fitted]}
    rows = [HEADS]
    for entry in fitted:
        shown = list(zip(entry.predictions, entry.gains, strict=True))
        rows += [_row(prediction, gain) for prediction, gain in (shown if options.board else shown[:1])]
    used = {prediction.threads for found in fitted for prediction in found.predictions}       # boards with fewer cores, and c99, use fewer
    threads = f"{'up to ' if len(used) > 1 else ''}{_threads(max(used, default=1))}"
    lines = [f"{options.profile}, {width}x{height}, {threads}. {LABEL}", "", *aligned(rows), "", *_legend(rate, options.profile, width, height)]
    lines += [_measured_line(entry) for found in fitted for entry in found.compared]
    if options.board:
        lines += [f"{prediction.runtime}: {prediction.basis}: {prediction.source}" for prediction in fitted[0].predictions]
    return content, lines


def _row(prediction: fit.Prediction, gain: fit.Gain | None) -> tuple[str, ...]:
    place = (prediction.board, prediction.runtime, prediction.memory, _mib(prediction.needed_bytes / 2**20))
    if prediction.memory == "no":
        return (*place, *["-"] * (len(HEADS) - len(place)))
    saved = [short(gain.saved_s_per_s[link]) for link in fit.LINKS_BIT_S] if gain else ["-"] * len(fit.LINKS_BIT_S)
    pictures = "-".join(str(gain.pictures[mbit]) for mbit in fit.PASS_MBIT) if gain else "-"
    energy = "unknown" if prediction.joules is None else f"{short(prediction.joules)} J"
    return (*place, duration(prediction.seconds), prediction.bound, energy, *saved, pictures, prediction.basis)


def _legend(rate: fit.Rate | None, profile: str, width: int, height: int) -> Iterator[str]:
    yield (f"memory: the picture at once, in strips of {fit.STRIP_ROWS} rows (c99: {fit.FLIGHT_STRIP_ROWS}), or not at all. "
           "energy: the highest power mode over the latency. basis: the share of the peak was measured, counted or assumed.")
    if rate is None:
        yield f"saved s/s and pictures a pass: not known, since {profile} does not reach the PSNR of JPEG of quality 85 on every picture."
        return
    jpeg, (low, high) = fit.gain(rate, 1.0, height, width).jpeg_pictures, fit.PASS_MBIT
    yield (f"saved s/s: seconds of link saved against JPEG of quality 85 for each second of encoding, at equal PSNR (JPEG: "
           f"{rate.jpeg_bits_per_pixel:.2f} bit/pixel; ours {100 * rate.share_of_jpeg:.0f} % of its bytes; means over {rate.pictures} pictures).")
    yield f"pictures a pass: what a relay pass of {low} to {high} Mbit carries; JPEG: {jpeg[low]}-{jpeg[high]}."


def _measured_line(entry: fit.Compared) -> str:
    run = entry.run
    use = "the prediction was calibrated with this run" if run.used_to_calibrate else f"error of the prediction {100 * entry.error:+.0f} %"
    return (f"measured: {run.board}, {run.runtime}, {_threads(run.threads)}, {run.width}x{run.height}: {duration(run.seconds)}, "
            f"predicted {duration(entry.predicted_s)}: {use}{'' if run.valid else ' (the run is not valid: see its warnings)'}"
            f"{' (of an earlier encoder)' if run.earlier_encoder else ''}")


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def duration(value: float) -> str:
    """Seconds, of sensible precision."""
    if value < 1:
        return f"{1e3 * value:.0f} ms" if value >= 0.01 else f"{1e3 * value:.1f} ms"
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.1f} min"


def short(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _mib(count: float) -> str:
    return f"{count / 1024:.0f} GiB" if count >= 8192 else f"{count:.0f} MiB"
