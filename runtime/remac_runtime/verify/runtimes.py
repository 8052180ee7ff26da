"""What takes part in `remac verify`: engines in worker processes of any Python, and foreign programs."""
from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from remac_runtime.choices import PATTERNS
from remac_runtime.errors import BadInput
from remac_runtime.format import BAND_ROWS
from remac_runtime.verify.engines import OPTIONS, parse

PLACEHOLDERS = ("input", "output", "quality", "band_rows", "references", "image_id", "mosaic", "depth", "width", "height", "model")
# What a command that does not take a placeholder is understood to do.
DEFAULTS: Mapping[str, Any] = {"band_rows": BAND_ROWS, "references": True, "image_id": None, "mosaic": PATTERNS[0]}
_COMMAND = re.compile(r"(?P<name>[^={}]+)=(?P<command>.*\{input\}.*)", re.DOTALL)


@dataclass(frozen=True)
class Runtime:
    """A row or column of the matrix: `engine` (see engines.py) in a worker, or command lines with placeholders.

    `launcher` starts the worker's Python (default: the running one), perhaps in an emulator, with `environment` added to this one's. Pictures of more
    than `max_pixels` are not given to it. With `plain_streams`, `decode` takes only what an encoder writes, undamaged. `unsupported` says why it
    cannot run here at all. `recipe` is for people.
    """

    name: str
    engine: str = ""
    launcher: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    encode: str = ""
    decode: str = ""
    timeout_s: float | None = None
    max_pixels: int | None = None
    plain_streams: bool = False
    unsupported: str = ""
    recipe: str = ""

    def can(self, action: str) -> bool:
        """Whether it has a part in `encode` or `decode` at all."""
        return bool(self.engine or getattr(self, action) or (self.unsupported and not (self.encode or self.decode)))

    def as_json(self) -> dict[str, Any]:
        """The fields that are set."""
        return {name: value for name, value in asdict(self).items() if value}


def from_json(entry: Mapping[str, Any]) -> Runtime:
    """Raises BadInput."""
    known = {f.name for f in fields(Runtime)}
    wrong = [f"unknown field {name!r}" for name in sorted(entry.keys() - known)] or ([] if entry.get("name") else ["no name"])
    if wrong:
        raise BadInput(f"runtime {entry.get('name', '?')!r}: {wrong[0]}; fields are {', '.join(sorted(known))}")
    runtime = Runtime(**{**entry, "launcher": tuple(entry.get("launcher", ()))})
    if runtime.engine:
        parse(runtime.engine)
    if not (runtime.engine or runtime.encode or runtime.decode or runtime.unsupported):
        raise BadInput(f"runtime {runtime.name!r}: give it an engine, an encode or decode command, or say why it is unsupported")
    return runtime


def read_runtimes(path: Path) -> list[Runtime]:
    """A file {"runtimes": [{...}, ...]} of Runtime's fields. Raises BadInput."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        runtimes = [from_json(entry) for entry in content["runtimes"]]
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}): name a file of runtimes, see docs/processors.md") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path}: not a file of runtimes ({error}): see docs/processors.md") from None
    names = [runtime.name for runtime in runtimes]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise BadInput(f"{path}: {min(twice)!r} is there twice: give each runtime a name of its own")
    return runtimes


def default_runtimes() -> list[Runtime]:
    """Every engine; those that are not installed come out as unsupported."""
    return [Runtime(kind, kind) for kind in OPTIONS]


def choose(texts: Sequence[str], action: str, known: Iterable[Runtime]) -> list[Runtime]:
    """Runtimes named by `--encode-with` or `--decode-with` (`action`): a known name, an engine, or NAME=COMMAND. Raises BadInput."""
    by_name = {runtime.name: runtime for runtime in known}
    chosen = []
    for text in texts:
        command = _COMMAND.fullmatch(text)
        if text in by_name:
            chosen.append(by_name[text])
        elif command:
            chosen.append(from_json({"name": command["name"].strip(), action: command["command"]}))
        else:
            parse(text)
            chosen.append(Runtime(text, text))
    return chosen


def joined(encoders: Iterable[Runtime], decoders: Iterable[Runtime]) -> tuple[list[Runtime], list[str], list[str]]:
    """All runtimes, commands of one name made one, with the names of the encoders and of the decoders."""
    all_of: dict[str, Runtime] = {}
    names: tuple[list[str], list[str]] = ([], [])
    for which, action, runtimes in ((0, "encode", encoders), (1, "decode", decoders)):
        for runtime in runtimes:
            before = all_of.get(runtime.name, runtime)
            command = getattr(before, action) or getattr(runtime, action)
            all_of[runtime.name] = before if getattr(before, action) == command else replace(before, **{action: command})
            if runtime.name not in names[which]:
                names[which].append(runtime.name)
    return list(all_of.values()), *names


def command_line(template: str, values: Mapping[str, Any]) -> list[str]:
    """The arguments of a command, which no shell sees. A placeholder may be part of an argument; [--option {name}] is left out where the case leaves
    it to the encoder. Raises BadInput."""
    texts = {name: str(value) for name, value in values.items()} | {"references": "chosen" if values["references"] else "none"}
    template = re.sub(r"\[([^][]*\{(\w+)\}[^][]*)\]", lambda match: match[1] if values.get(match[2]) is not None else "", template)

    def filled(argument: str) -> str:
        unknown = [name for name in re.findall(r"\{(\w+)\}", argument) if name not in texts]
        if unknown:
            raise BadInput(f"{template!r}: no placeholder {{{unknown[0]}}}: choose from {', '.join(PLACEHOLDERS)}")
        return re.sub(r"\{(\w+)\}", lambda match: texts[match[1]], argument)

    try:
        return [filled(argument) for argument in shlex.split(template)]
    except ValueError as error:
        raise BadInput(f"{template!r}: not a command line ({error})") from None


def misses(template: str, values: Mapping[str, Any]) -> str | None:
    """The first option away from its default that a command cannot be told; None if it can be told all."""
    return next((name for name, default in DEFAULTS.items() if values[name] != default and f"{{{name}}}" not in template), None)
