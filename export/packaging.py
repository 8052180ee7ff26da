"""Write the rover encoder's graphs in other packagings of the same integers, beside the integer graphs of a model folder, and check them.

`float` runs wherever float32 convolutions do; `qdq` has the explicit quantisation that TensorRT asks for (to_packaging.py says why both are exact).
Each is compared with the int64 reference on the sample picture, through onnxruntime. Exits with 1 if a check failed.
"""
from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

if not __package__:     # run as a script: its own folder is on the path, the checkout is not
    sys.path[:1] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "runtime")]

from export.command import reported
from export.report import CheckResult, Section, render
from remac_runtime.model import Model, load_model

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "samples" / "spirit_husband_hill_summit.png"
NAMES = ("float", "qdq")
WINDOW = (128, 192)
EXAMPLES = """\
examples:
  python export/packaging.py                         # build/rover-m/float and build/rover-m/qdq
  python export/packaging.py --packaging float --model build/rover-s
  remac encode picture.png -o picture.rmc --model build/rover-m     # uses the integer graphs, as ever
  remac verify --encode-with onnxruntime:packaging=float --decode-with onnxruntime:packaging=qdq
"""


def check(model: Model, packaging: str, sample: Path) -> CheckResult:
    """The outputs of every graph against the reference, by onnxruntime."""
    from export.layer_checks import check_backend, expected, windows
    cases = [(name, expected(model, pixels)) for name, pixels in windows([sample], *WINDOW)]
    result = check_backend(replace(model, folder=model.folder / packaging), "onnxruntime", cases)
    return replace(result, name=f"packaging {packaging} equals the reference")


@reported
def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packaging", nargs="+", choices=NAMES, default=list(NAMES), help="which (both)")
    parser.add_argument("--model", type=Path, metavar="DIR", help="model folder (default: $REMAC_MODEL, then build/rover-m)")
    parser.add_argument("--sample", type=Path, default=SAMPLE, metavar="PICTURE", help="picture to check with")
    options = parser.parse_args(arguments)
    from export.to_packaging import export_packaging
    model = load_model(options.model)
    checks = []
    for packaging in options.packaging:
        export_packaging(model.network, packaging, model.folder / packaging)
        checks.append(check(model, packaging, options.sample))
    print(render([Section("packagings", [("pass" if c.passed else "FAIL", c.name, c.detail) for c in checks])]))
    return 0 if all(c.passed for c in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
