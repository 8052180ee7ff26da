"""Files appear whole or not at all."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from remac_runtime.errors import BadInput
from remac_runtime.files import replacing, write_atomically, write_json


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt
    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.png"]


def test_permissions_links_and_devices(tmp_path: Path) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"old")
    target.chmod(0o640)
    (tmp_path / "link.png").symlink_to(target)
    write_atomically(tmp_path / "link.png", b"new")
    assert target.read_bytes() == b"new" and target.stat().st_mode & 0o777 == 0o640 and (tmp_path / "link.png").is_symlink()
    write_atomically(tmp_path / "fresh.png", b"x")
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "fresh.png").stat().st_mode & 0o777 == 0o666 & ~umask
    os.mkfifo(tmp_path / "pipe")
    reader = subprocess.Popen([sys.executable, "-c", f"print(open({str(tmp_path / 'pipe')!r}).read())"], stdout=subprocess.PIPE)
    write_atomically(tmp_path / "pipe", b"through")
    assert reader.communicate()[0] == b"through\n"
    with pytest.raises(BadInput, match="is a folder"):
        write_atomically(tmp_path, b"x")


def test_a_missing_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("link").symlink_to("gone/a")
    for path, folder in (("no/a", "no"), ("link", str(tmp_path / "gone"))):
        with pytest.raises(BadInput, match=f"^{folder}: no such folder: make it$"):
            write_atomically(Path(path), b"x")
    write_atomically(Path("a"), b"x")


def test_an_error_within_the_block_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a") as path:
        path.write_bytes(b"half")
        assert [path] == list(tmp_path.iterdir())
        1 / 0                                                                       # noqa: B018
    assert not list(tmp_path.iterdir())


def test_json_has_no_infinities(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "Gr\u00f6\u00dfe"})
    before = (tmp_path / "a.json").read_bytes()
    assert json.loads(before) == {"name": "Gr\u00f6\u00dfe"} and before.endswith(b"}\n")
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", {"psnr": float("inf")})
    assert (tmp_path / "a.json").read_bytes() == before and len(list(tmp_path.iterdir())) == 1
