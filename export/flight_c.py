"""Write the flight encoder: the encoder of a profile as one C99 file with its constants, its header, two test programs, a README and the licence.

What comes out needs a C99 compiler and nothing else; benchmarks/flight.py builds and measures it for several processors.
"""
from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:     # run as a script: its own folder is on the path, the checkout is not
    sys.path[:1] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "runtime")]

from export import c99_readme, to_c99
from export.command import reported
from remac_runtime.errors import BadInput
from remac_runtime.files import write_atomically
from remac_runtime.model import BANK_FILE, NETWORK_FILE
from remac_runtime.network import read_bank, read_network

ROOT = Path(__file__).resolve().parents[1]
DEFAULT_OUT = ROOT / "build" / "flight"
LICENSE = "LICENSE"
EXAMPLES = """\
examples:
  python export/flight_c.py                                  # build/flight from weights/rover-m
  python export/flight_c.py --profile rover-s -o build/flight-s
  python export/flight_c.py --model build/rover-m --no-bank  # a model folder, without its reference bank
  cc -std=c99 -O2 -o flight_encode build/flight/flight_encode.c build/flight/remac_flight.c
"""


def generate(model: Path, out: Path, with_bank: bool = True) -> list[Path]:
    """Write the encoder of a folder with network.rmn and bank.rmb into `out`, each file at once or not at all; returns them. Raises RemacError."""
    network = read_network(model / NETWORK_FILE)
    to_c99.check_channels(network)
    bank = read_bank(model / BANK_FILE, network) if with_bank else None
    content = to_c99.constants(network, bank)
    header = to_c99.header(network, bank)
    texts = {to_c99.HEADER: header, "remac_flight.c": to_c99.source(content), "README.md": c99_readme.render(network, bank, content, header)}
    texts[LICENSE] = (ROOT / LICENSE).read_text(encoding="utf-8")
    texts |= {name: (to_c99.SOURCES / name).read_text(encoding="utf-8") for name in ("flight_encode.c", "flight_symbols.c")}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            write_atomically(out / name, text)
    except OSError as error:
        raise BadInput(f"{out}: cannot be written ({error.strerror}): name another folder with -o") from None
    return [out / name for name in texts]


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--profile", default="rover-m", help="weights/PROFILE is written (rover-m)")
    folder = result.add_mutually_exclusive_group()
    folder.add_argument("--weights", type=Path, metavar="DIR", help="another folder of weights with network.rmn and bank.rmb")
    folder.add_argument("--model", type=Path, metavar="DIR", help="a model folder that `make encoder` built")
    result.add_argument("--no-bank", action="store_true", help="leave the reference bank out")
    result.add_argument("-o", "--out", type=Path, default=DEFAULT_OUT, metavar="FOLDER", help="folder to write into (build/flight)")
    return result


@reported
def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    files = generate(options.model or options.weights or ROOT / "weights" / options.profile, options.out, not options.no_bank)
    for path in files:
        print(f"{path}: {path.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
