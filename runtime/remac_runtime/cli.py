"""The command `remac`: arguments, help and exit codes. What the sub-commands do is in commands.py, compare.py and view.py, imported when called."""
from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from remac_runtime.bench import arguments as bench_arguments
from remac_runtime.bench.arguments import STANDARD_OUTPUT
from remac_runtime.choices import AUTOMATIC, BACKENDS, GROUND_ENGINES, MAX_PIXELS, MOSAIC_CHOICES
from remac_runtime.errors import RemacError
from remac_runtime.exits import DEBUG_VARIABLE, MEANING, Exit, UsageError, describe, interrupted_by_terminate
from remac_runtime.format import BAND_ROWS, BAND_UNIT, QUALITIES, SIDE_MAX

PLUGIN_GROUP = "remac.commands"   # entry points NAME = "module:main", main(arguments: list[str]) -> int
DEFAULT_QUALITY = 32

_EXAMPLES = """\
examples:
  remac encode picture.png -o picture.rmc --target-bytes 60000
  remac encode sol/*.png -o packets/ --quality 40
  remac decode packets/*.rmc -o pictures/
  remac enhance navcam.jpg -o navcam.png --map
  remac ground archive/ -o pictures/ --enhance --workers 8
  remac info picture.rmc
  remac compare a.png b.png
  remac verify --report verify.html
  remac view picture.rmc -o picture.html
"""


def _number(low: int, high: int, step: int = 1, base: int = 10) -> Callable[[str], int]:
    """A parser of whole numbers in low..high; base 0 takes 0x... too."""
    def parse(text: str) -> int:
        try:
            value = int(text, base)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if not low <= value <= high or value % step:
            multiple = f" and a multiple of {step}" if step > 1 else ""
            raise argparse.ArgumentTypeError(f"{text} is not in {low}..{high}{multiple}")
        return value
    return parse


def _tile(text: str) -> int:
    from remac_runtime.enhance.matching import CELL
    from remac_runtime.enhance.tiles import LEAST_TILE
    return _number(LEAST_TILE, SIDE_MAX, CELL)(text)


def _decibels(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 200:
        raise argparse.ArgumentTypeError(f"{text!r} is not a PSNR in dB, such as 36.5")
    return value


def _output(text: str) -> str:
    if text in ("", "-"):
        raise argparse.ArgumentTypeError(f"{text!r} is no place for a file: name a file or a folder")
    return text


def _common(parser: argparse.ArgumentParser, engine: bool = True, backend: bool = True) -> None:
    if engine:
        parser.add_argument("--model", type=Path, metavar="DIR", help="model folder (default: $REMAC_MODEL, then build/rover-m)")
    if engine and backend:
        parser.add_argument("--backend", choices=BACKENDS, help="engine of the integer network (default: the fastest that works here)")
    if engine:
        parser.add_argument("--threads", type=_number(1, 1024), default=1, metavar="N", help="threads of the engine (default 1), for the same bytes")
    parser.add_argument("--json", action="store_true", help="print the result as JSON on standard output, and nothing else there")


def _encode_arguments(parser: argparse.ArgumentParser) -> None:
    most = 2 ** 31 - 1
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="PNG, TIFF, JPEG, WebP, PGM or PPM; RGB or grey of 8 bits, grey of up to 16")
    parser.add_argument("-o", "--output", type=_output, required=True, metavar="OUT.rmc|FOLDER",
                        help="stream to write, or a folder for OUT.rmc of each picture")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quality", type=_number(0, QUALITIES - 1), default=DEFAULT_QUALITY, metavar=f"0..{QUALITIES - 1}",
                      help=f"quality (default {DEFAULT_QUALITY})")
    size.add_argument("--target-bytes", type=_number(1, most), metavar="N", help="at most N bytes, of the highest quality that a bisection finds "
                      "(in a few hundred bytes a higher one may fit, too)")
    size.add_argument("--target-psnr", type=_decibels, metavar="DB",
                      help="smallest stream that decodes to at least DB decibels (needs the ground decoder)")
    parser.add_argument("--strip-rows", type=_number(1, most), metavar="N", help="analyse N rows at a time: less memory, the same bytes")
    parser.add_argument("--band-rows", type=_number(BAND_UNIT, 255 * BAND_UNIT, BAND_UNIT), default=BAND_ROWS, metavar="N",
                        help=f"rows that a lost packet costs, a multiple of {BAND_UNIT} (default {BAND_ROWS})")
    parser.add_argument("--mosaic", choices=MOSAIC_CHOICES, default=AUTOMATIC,
                        help="the Bayer mosaic that a picture was plainly interpolated from, whose samples are then what is coded (default auto: "
                        "looked for); a grey picture of a named one is taken for these samples themselves, and decodes to their plain interpolation")
    parser.add_argument("--no-reference", action="store_true", help="do not use the reference bank")
    parser.add_argument("--depth", type=_number(9, 16), metavar="BITS",
                        help="significant bits of 16-bit grey pictures (default: as the file says, else 16)")
    parser.add_argument("--image-id", type=_number(0, 2 ** 32 - 1, base=0), metavar="ID",
                        help="32-bit number that names the picture in its packets (default: a checksum)")
    _common(parser)


def _decode_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("streams", nargs="+", metavar="FILE.rmc")
    parser.add_argument("-o", "--output", type=_output, required=True, metavar="IMAGE.png|FOLDER",
                        help="PNG, PGM or PPM to write, or a folder for a PNG of each stream")
    parser.add_argument("--strict", action="store_true", help="a damaged stream is an error instead of being concealed")
    _ground_arguments(parser)
    _common(parser)


def _limit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-pixels", type=_number(1, 2 ** 31 - 1), default=MAX_PIXELS, metavar="N",
                        help=f"refuse larger pictures, since a few bytes can ask for gigabytes (default {MAX_PIXELS})")


def _ground_arguments(parser: argparse.ArgumentParser) -> None:
    """How the ground segment makes pixels."""
    _limit(parser)
    parser.add_argument("--decoder", metavar="NAME@VERSION", help="ground decoder of the model folder (default: the newest; with --enhance "
                        "the one that the enhancement is for), noted in the picture")
    parser.add_argument("--enhance", action="store_true", help="enhance the decoded picture too (MarsQE)")
    parser.add_argument("--ground-engine", choices=GROUND_ENGINES, default=GROUND_ENGINES[0],
                        help="engine of the ground networks (default onnxruntime); tensorrt needs engines built by export/ground_decoder.py")


def _enhance_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", metavar="IMAGE.jpg", help="JPEG pictures; their quantisation tables choose how much is mended")
    parser.add_argument("-o", "--output", type=_output, required=True, metavar="OUT.png|FOLDER",
                        help="PNG to write, or a folder for a PNG of each picture")
    parser.add_argument("--tile", type=_tile, default=1664, metavar="N",
                        help="pixels a side that the network sees at a time (default 1664): less memory, the same picture within a grey level")
    _limit(parser)
    parser.add_argument("--enhancer", metavar="NAME@VERSION", help="enhancement network of the model folder (default: the newest)")
    parser.add_argument("--map", action="store_true", help="also write OUT.map.png: the terrain classes and the references that were matched")
    _common(parser, backend=False)


def _ground_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="streams (.rmc), with --enhance JPEG pictures too, or folders of them")
    parser.add_argument("-o", "--output", type=_output, required=True, metavar="FOLDER",
                        help="folder for a PNG of each input; what it holds already is kept")
    parser.add_argument("--workers", type=_number(1, 1024), default=1, metavar="N", help="processes on this machine (default 1)")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="Dask scheduler such as tcp://host:8786, whose workers see the same paths; "
                        "they do the work instead")
    _ground_arguments(parser)
    _common(parser)


def _info_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stream", metavar="FILE.rmc")
    _common(parser, engine=False)


def _compare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help="a picture, a NumPy array (.npy), or any other file, which is compared by its bytes")
    parser.add_argument("b", metavar="B")
    _common(parser, engine=False)


def _verify_arguments(parser: argparse.ArgumentParser) -> None:
    from remac_runtime.verify import arguments
    arguments.add(parser)


def _view_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stream", metavar="FILE.rmc")
    parser.add_argument("-o", "--output", type=_output, metavar="OUT.html|OUT.png", help="page or picture to write (default: FILE.html)")
    _limit(parser)
    _common(parser)


def _encode(options: argparse.Namespace) -> int:
    from remac_runtime import commands
    return commands.encode(options)


def _decode(options: argparse.Namespace) -> int:
    from remac_runtime import commands
    return commands.decode(options)


def _ground(options: argparse.Namespace) -> int:
    from remac_runtime.archive import coordinator as archive
    return archive.run(options)


def _enhance(options: argparse.Namespace) -> int:
    from remac_runtime.enhance import command as enhance_command
    return enhance_command.run(options)


def _info(options: argparse.Namespace) -> int:
    from remac_runtime import info
    return info.run(options)


def _compare(options: argparse.Namespace) -> int:
    from remac_runtime import compare
    return compare.run(options)


def _verify(options: argparse.Namespace) -> int:
    from remac_runtime.verify import command
    return command.run(options)


def _view(options: argparse.Namespace) -> int:
    from remac_runtime import view
    return view.run(options)


def _bench(options: argparse.Namespace) -> int:
    from remac_runtime.bench import command as bench_command
    return bench_command.run(options)


def _boards(options: argparse.Namespace) -> int:
    from remac_runtime import boards_command
    return boards_command.run(options)


COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int]]] = {
    "encode": ("pictures to streams", _encode_arguments, _encode),
    "decode": ("streams to pictures; lost bands are concealed and reported", _decode_arguments, _decode),
    "enhance": ("pictures without the traces of their compression: JPEG in, PNG out (MarsQE)", _enhance_arguments, _enhance),
    "ground": ("decode (and enhance) an archive on many processes or machines; goes on where it was cut off", _ground_run_arguments, _ground),
    "info": ("what a stream holds: header, packets, hashes", _info_arguments, _info),
    "compare": ("compare two pictures, arrays or files element by element", _compare_arguments, _compare),
    "verify": ("encode and decode with every runtime, which must all give the same bytes and latents", _verify_arguments, _verify),
    "view": ("a page or picture of a stream: image, bits per block, bands, references", _view_arguments, _view),
    "bench": ("what an encode costs here: times, memory, energy, or import such a result", bench_arguments.bench, _bench),
    "boards": ("the boards that are known, and what the codec would cost on them", bench_arguments.boards, _boards),
}


def plugins() -> dict[str, Any]:
    """Entry points of sub-commands that other installed packages add, by name. Nothing of theirs is imported here."""
    from importlib.metadata import entry_points
    return {entry.name: entry for entry in entry_points(group=PLUGIN_GROUP) if entry.name not in COMMANDS}


def build_parser(added: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser of the command; `added` names sub-commands of other packages, which `--help` lists."""
    from remac_runtime import __version__
    more = f"added by the toolkit (see `remac NAME --help`): {', '.join(sorted(added))}\n\n" if added else ""
    purpose = "Neural codec for pictures of Mars: integer arithmetic only, the same bytes on every machine."
    parser = argparse.ArgumentParser(prog="remac", description=purpose, epilog=more + _EXAMPLES + "\n" + MEANING,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"remac {__version__}")
    choices = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (purpose, arguments, handler) in COMMANDS.items():
        command = choices.add_parser(name, help=purpose, description=purpose[0].upper() + purpose[1:] + ".", epilog=MEANING,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
        arguments(command)
        command.set_defaults(handler=handler, parser=command)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code. Never shows a traceback for what a user can mend."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")       # a file's name that the terminal cannot show is no reason to stop
    try:
        with interrupted_by_terminate():
            return _dispatch(arguments)
    except KeyboardInterrupt:
        print("remac: interrupted; nothing half-written is left", file=sys.stderr)
        return Exit.INTERRUPTED
    except BrokenPipeError:   # the reader of our output has gone, as in `remac info FILE | head`
        _discard_output()
        return Exit.FAILED


def _discard_output() -> None:
    """So that what is still to be written does not fail once more as the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _dispatch(arguments: list[str]) -> int:
    known = arguments and (arguments[0] in COMMANDS)
    added = {} if known else plugins()
    if arguments and arguments[0] in added:
        return _run_plugin(added[arguments[0]], arguments[1:])
    options = build_parser(list(added)).parse_args(arguments)
    try:
        code = int(options.handler(options))
        sys.stdout.flush()          # a full disk is an error while it can still be reported
        return code
    except UsageError as error:
        options.parser.print_usage(sys.stderr)
        print(f"{options.parser.prog}: error: {error}", file=sys.stderr)
        return Exit.USAGE
    except (RemacError, OSError, MemoryError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        return _fail(options, describe(error))
    except Exception as error:      # a mistake of ours
        if os.environ.get(DEBUG_VARIABLE):
            raise
        return _fail(options, describe(error))


def _run_plugin(entry: Any, arguments: list[str]) -> int:
    try:
        command = entry.load()
    except ImportError as error:
        print(f"remac: error: {entry.name} cannot be loaded ({error}): run `make setup` in its checkout", file=sys.stderr)
        return Exit.FAILED
    return int(command(arguments) or Exit.OK)


def _fail(options: argparse.Namespace, message: str) -> int:
    print(f"remac: error: {message}", file=sys.stderr)
    try:
        if options.json in (True, STANDARD_OUTPUT):
            print(json.dumps({"command": options.command, "error": message}))
        sys.stdout.flush()
    except OSError:             # standard output is what cannot be written
        _discard_output()
    return Exit.FAILED


if __name__ == "__main__":
    sys.exit(main())
