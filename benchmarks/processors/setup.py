"""What the runtimes of `make verify-all` need: packages, trees of other processors, compiled programs. Each is made once and says what is missing."""
from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
# Debian's packages of each command that is called; of cross compilers with the headers, which are only recommended by them.
PACKAGES = {
    "gcc": "gcc", "clang": "clang", "debootstrap": "debootstrap", "qemu-x86_64": "qemu-user", "qemu-ppc": "qemu-user",
    "qemu-riscv64": "qemu-user", "qemu-aarch64": "qemu-user", "qemu-aarch64-static": "qemu-user-static", "qemu-s390x-static": "qemu-user-static",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    "riscv64-linux-gnu-gcc": "gcc-riscv64-linux-gnu libc6-dev-riscv64-cross",
    "powerpc-linux-gnu-gcc": "gcc-powerpc-linux-gnu libc6-dev-powerpc-cross",
}
_TIME_LIMIT_S = 1800


@dataclass(frozen=True)
class Setup:
    """Makes things in `folder`, relative to the checkout; with `install` it may call apt-get, as root. Methods return "", or what is missing."""

    folder: Path
    install: bool

    def commands(self, *names: str) -> str:
        """That the commands are there."""
        for name in names:
            if shutil.which(name) is None and not self._apt(PACKAGES[name], name):
                return f"{name} is missing: apt-get install {PACKAGES[name]}"
        return ""

    def _apt(self, packages: str, command: str) -> bool:
        if not self.install or os.geteuid() != 0 or shutil.which("apt-get") is None:
            return False
        _apt_update()
        say(f"apt-get install {packages}")
        done = subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", *packages.split()], capture_output=True, check=False,
                              env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
        return done.returncode == 0 and shutil.which(command) is not None

    def module(self, name: str) -> str:
        """That a Python package of that name is there."""
        if find_spec(name) is not None:
            return ""
        if self.install:
            say(f"pip install {name}")
        return self.run([sys.executable, "-m", "pip", "install", "--quiet", name]) if self.install else f"{name} is not installed: pip install {name}"

    def tree(self, kind: str, name: str, *arguments: str) -> str:
        """A Python of another processor or engine version, by trees.sh."""
        target = self.folder / name
        if not (target / ".done").exists():
            say(f"setting up {target}")
        return self.run([str(HERE / "trees.sh"), kind, str(target), *arguments], {"PYTHON": sys.executable})

    def compiled(self, target: Path, command: Sequence[str], sources: Sequence[Path], others: Sequence[Path] = ()) -> str:
        """A program or library of the sources; compiled again where one of them has changed, or of `others`, which they include."""
        key = hashlib.sha256("\0".join(command).encode() + b"".join(path.read_bytes() for path in (*sources, *others))).hexdigest()
        record = target.with_name(target.name + ".key")
        if target.exists() and record.exists() and record.read_text(encoding="utf-8") == key:
            return ""
        target.parent.mkdir(parents=True, exist_ok=True)
        say(f"compiling {target}")
        problem = self.run([*command, "-o", str(target), *map(str, sources)])
        if not problem:
            record.write_text(key, encoding="utf-8")
        return problem

    def run(self, command: Sequence[str], environment: dict[str, str] | None = None) -> str:
        """A command in the checkout's root; "" if it ends well."""
        try:
            done = subprocess.run(command, cwd=ROOT, env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=False,
                                  timeout=_TIME_LIMIT_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{Path(command[0]).name}: {error}"
        if done.returncode == 0:
            return ""
        lines = [line for line in (done.stdout + done.stderr).splitlines() if "error" in line.lower()] or (done.stdout + done.stderr).splitlines()
        return f"{Path(command[0]).name} ended with {done.returncode}: {lines[0].strip() if lines else 'it said nothing'}"


@cache
def _apt_update() -> None:
    subprocess.run(["apt-get", "update"], capture_output=True, check=False)


@cache
def cpu_flags() -> frozenset[str]:
    """Flags of /proc/cpuinfo; none where there is no such file."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), []))


def is_x86() -> bool:
    return platform.machine() in ("x86_64", "AMD64")


def say(text: str) -> None:
    print(f"verify-all: {text}", file=sys.stderr, flush=True)
