"""Files that appear whole or not at all, whatever interrupts their writing, a power cut too: all that is kept is written here."""
from __future__ import annotations

import json
import os
import shutil
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from remac_runtime.errors import BadInput


def temporary_prefix(path: Path) -> str:
    """How the names of the unfinished files of `path` begin: what a killed process left stays until `remac ground` or a hand removes it."""
    return f".remac-{zlib.crc32(os.fsencode(path.name)):08x}-"


def check_folder(path: Path) -> None:
    """Whether `path` can be written where it is meant to be, before the work that makes it. Raises BadInput where its folder is not there."""
    for folder in (path.parent, Path(os.path.realpath(path)).parent):      # of a link, also where it leads
        if not folder.is_dir():
            raise BadInput(f"{folder}: no such folder: make it")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Lend a path in the folder of `path`; what was written there takes its place at the end of the block, or vanishes on an error.

    Permissions stay those of the file that is replaced. A device such as /dev/null is lent itself. Raises BadInput for a folder, and where the
    folder of `path` is not there.
    """
    if path.exists() and not path.is_file():        # asked before links are followed: /dev/stdout may lead to a pipe, which has no name
        if path.is_dir():
            raise BadInput(f"{path}: is a folder: name a file")
        yield path
        return
    check_folder(path)
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f"{temporary_prefix(path)}{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        yield temporary
        if path.exists():
            temporary.chmod(path.stat().st_mode & 0o777)
        _settle(temporary)
        temporary.replace(path)
        _settle(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _settle(path: Path) -> None:
    """What was written of a file or a folder is on the disk, so that after a power cut a new name never stands for less than the whole file."""
    if path.is_dir() and os.name != "posix":       # there folders cannot be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write bytes, or text as UTF-8; what cannot be, as in a file's name that is none, is written as an escape."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode(errors="backslashreplace") if isinstance(content, str) else content)


def copy(source: Path, target: Path) -> None:
    """Copy a file; onto itself it stays. The folder of `target` is made."""
    if target.exists() and source.samefile(target):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)


def write_json(path: Path, content: Any) -> None:
    """Write JSON, indented. Raises ValueError for NaN and infinities, which are none."""
    write_atomically(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
