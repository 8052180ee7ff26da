"""`python -m remac_runtime` is the command `remac`."""
from __future__ import annotations

import sys

from remac_runtime.cli import main

sys.exit(main())
