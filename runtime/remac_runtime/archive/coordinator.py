"""`remac ground`: decode, and enhance, an archive: many files, on many processes or machines.

The work on one file is task.py's. Here files are collected, given to workers by an executor of the standard library or by Dask, and counted.
"""
from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from remac_runtime.archive.task import STREAM_SUFFIXES, Result, Settings, Task, digests, remove_forgotten
from remac_runtime.archive.workers import in_process, in_processes, on_cluster
from remac_runtime.commands import counted, warn
from remac_runtime.enhance.enhancer import PICTURE_SUFFIXES, Enhancer
from remac_runtime.errors import BadInput
from remac_runtime.exits import Exit, UsageError
from remac_runtime.ground import find_ground
from remac_runtime.model import GROUND_FOLDER, load_model, model_folder
from remac_runtime.progress import Progress

OUTPUT_SUFFIX = ".png"


def run(options: argparse.Namespace) -> int:
    pairs = collect(options.inputs, Path(options.output), options.enhance)
    settings = settings_of(options)
    tasks = [Task(str(source), str(output), settings) for source, output in pairs]
    results = []
    with Progress(len(tasks), "file") as bar:
        for result in perform_all(tasks, options.workers, options.scheduler):
            results.append(result)
            bar.advance()
            if result.error:
                bar.say(f"remac: error: [{len(results)}/{len(tasks)}] {result.source}: {result.error}")
            elif not bar.shown and not options.json:
                print(f"[{len(results)}/{len(tasks)}] {_line(result)}", flush=True)
            for line in _warnings(result):
                bar.say(f"remac: warning: [{len(results)}/{len(tasks)}] {result.source}: {line}")
    remove_forgotten({Path(task.output).parent for task in tasks})
    report(results, options.json)
    if any(result.error for result in results):
        return Exit.FAILED
    return Exit.LOSS if any(result.lost_bands for result in results) else Exit.OK


def perform_all(tasks: Sequence[Task], workers: int, scheduler: str | None) -> Iterator[Result]:
    """The results as they come. Raises RemacError where there are no workers."""
    if scheduler is not None:
        return on_cluster(tasks, scheduler)
    return in_process(tasks) if workers == 1 or len(tasks) == 1 else in_processes(tasks, min(workers, len(tasks)))


def settings_of(options: argparse.Namespace) -> Settings:
    """The networks are chosen once, here, so that all workers use the same. Raises RemacError."""
    folder = model_folder(options.model).resolve()
    enhancer = Enhancer(load_model(folder)) if options.enhance else None
    decoder = find_ground(folder / GROUND_FOLDER, options.decoder or (enhancer.behind if enhancer else None))
    hashes = digests(options.ground_engine, decoder, enhancer)
    return Settings(str(folder), decoder.label, enhancer.file.label if enhancer else None, hashes,
                    options.ground_engine, options.backend, options.threads, options.max_pixels)


def collect(inputs: Sequence[str], folder: Path, enhance: bool) -> list[tuple[Path, Path]]:
    """(source, output) of every file, absolute, streams first; those of an input folder keep their place below it. Raises UsageError, BadInput."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"-o {folder} is a file: name a folder")
    suffixes = (*STREAM_SUFFIXES, *(PICTURE_SUFFIXES if enhance else ()))
    found: list[tuple[Path, Path]] = []         # source, place below the output folder
    for name in map(Path, inputs):
        if name.is_dir():
            below = [(path, path.relative_to(name)) for path in sorted(_files(name, suffixes))]
            found += below
            if not below:
                raise UsageError(f"{name}: holds no {', '.join(suffixes)} files: name another folder" + ("" if enhance else ", or use --enhance"))
        elif name.suffix.lower() not in suffixes:
            if not name.exists():
                raise BadInput(f"{name}: no such file or folder: check the path")
            more = "" if enhance or name.suffix.lower() not in PICTURE_SUFFIXES else ": add --enhance for pictures"
            raise UsageError(f"{name} is none of {', '.join(suffixes)}{more}")
        else:
            found.append((name, Path(name.name)))
    return _placed(sorted(found, key=lambda one: suffixes.index(one[1].suffix.lower())), folder.absolute())


def _files(folder: Path, suffixes: Sequence[str], above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """The files of these suffixes below a folder, through links to folders too, but not through those that lead back to a folder `above`."""
    try:
        status = folder.stat()
        here = status.st_dev, status.st_ino
        entries = [] if here in above else list(os.scandir(folder))
    except OSError as error:
        warn(_left_out(folder, error))
        return
    for entry in entries:
        path = Path(entry.path)
        try:
            if entry.is_dir():
                yield from _files(path, suffixes, above | {here})
            elif path.suffix.lower() in suffixes and entry.is_file():
                yield path
        except OSError as error:        # a link whose end cannot be seen
            warn(_left_out(path, error))


def _left_out(path: Path, error: OSError) -> str:
    return f"{path}: is left out, as it cannot be read ({(error.strerror or str(error)).lower()})"


def _placed(found: Iterable[tuple[Path, Path]], folder: Path) -> list[tuple[Path, Path]]:
    """The pairs of `collect`: NAME.png, or NAME.jpg.png of a picture beside a stream of its name, which came first. Raises UsageError."""
    pairs: dict[Path, Path] = {}        # output: source
    for relative, place in found:
        source, output = relative.absolute(), folder / place.with_suffix(OUTPUT_SUFFIX)
        if output in pairs and pairs[output].name != source.name:
            output = folder / (str(place) + OUTPUT_SUFFIX)
        if pairs.setdefault(output, source) != source:
            raise UsageError(f"{pairs[output]} and {source} would both be written to {output}: "
                             "rename one of them, or give them to two runs with an output folder each")
    return [(source, output) for output, source in pairs.items()]


def _warnings(result: Result) -> list[str]:
    """What `remac decode` and `remac enhance` warn of, beside lost bands, which are in the report's table."""
    skipped = [f"{counted(result.skipped_bytes, 'byte')} of no intact packet skipped"] if result.skipped_bytes else []
    return [*result.warnings, *skipped]


def _line(result: Result) -> str:
    lost = f", {counted(len(result.lost_bands), 'band')} lost and concealed" if result.lost_bands else ""
    return f"{result.source} -> {result.output}: " + ("there already" if result.skipped else f"{result.seconds:.2f} s") + lost


def report(results: Sequence[Result], as_json: bool) -> None:
    """The counts, and a table of what failed or was lost."""
    failed = [result for result in results if result.error]
    lost = [result for result in results if result.lost_bands]
    skipped = sum(result.skipped for result in results)
    done = len(results) - skipped - len(failed)
    counts = {"files": len(results), "done": done, "there_already": skipped, "failed": len(failed), "lossy": len(lost)}
    if as_json:
        print(json.dumps({"command": "ground", **counts, "results": [asdict(result) for result in results]}, indent=1))
        return
    rows = [(result.source, result.error or "") for result in failed]
    rows += [(result.source, f"band{'s' if result.lost_bands[1:] else ''} {' '.join(map(str, result.lost_bands))} lost and concealed: "
              "receive the stream again") for result in lost]
    width = max((len(source) for source, _ in rows), default=0)
    for source, what in sorted(rows):
        print(f"  {source.ljust(width)}  {what}", file=sys.stderr)
    print(f"{done} done, {skipped} there already, {len(failed)} failed, {len(lost)} with losses, of {len(results)} files",
          file=sys.stderr if failed else sys.stdout)
