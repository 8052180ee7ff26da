"""What an operator chooses from, where the arguments of the command and the code must agree. Imports nothing: every call of the command reads it."""
from __future__ import annotations

BACKENDS = ("onnxruntime", "c99", "numpy", "torch")     # engines of the integer network
PATTERNS = ("none", "rggb", "grbg", "gbrg", "bggr")     # of mosaics, by their number in the header: the colours of the first two rows and columns
AUTOMATIC = "auto"
MOSAIC_CHOICES = (AUTOMATIC, *PATTERNS)
GROUND_ENGINES = ("onnxruntime", "tensorrt")            # of the float networks
MAX_PIXELS = 64 << 20   # width * height that a reader accepts unless its caller raises the limit: a few bytes can ask for gigabytes
