"""Where the Mars pictures are that training and measurements need. They are no part of the checkout, and a codec at work needs none."""
from __future__ import annotations

import os
from pathlib import Path

from remac_runtime.errors import RemacError

DATA_VARIABLE = "REMAC_DATA"
_BESIDE_CHECKOUT = Path(__file__).resolve().parents[3] / "shared" / "data" / "mars"


class DataMissing(RemacError):
    """Pictures are not where they were looked for; the message names the mend."""


def data_folder(option: str | os.PathLike[str] | None = None) -> Path:
    """The folder of the Mars pictures: an option, else $REMAC_DATA, else ../shared/data/mars beside the checkout. Raises DataMissing."""
    folder = Path(option or os.environ.get(DATA_VARIABLE) or _BESIDE_CHECKOUT)
    if not folder.is_dir():
        raise DataMissing(f"no pictures at {folder}: name their folder with --data or {DATA_VARIABLE} (docs/data.md tells how to get them)")
    return folder
