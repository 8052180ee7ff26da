"""Training in several processes of one thread each, whose gradients are averaged: on a processor, two threads in one process take longer."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from remac_runtime.exits import interrupted_by_terminate

Work = Callable[[Any, int], None]         # of a run and the process's rank


def average_gradients(parameters: list[nn.Parameter], processes: int) -> None:
    """Replace every gradient by its mean over the processes, in one transfer."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= processes
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def run_processes(work: Work, run: Any, processes: int, device: str, folder: Path) -> None:
    """`work(run, rank)` in so many processes, which meet by a file in `folder`; in this one where there is one only."""
    rendezvous = str((folder / f"rendezvous.{os.getpid()}").resolve())
    if processes == 1:
        _process(0, work, run, 1, device, rendezvous)
    else:
        _spawn(work, run, processes, device, rendezvous)


@contextmanager
def _group(rank: int, processes: int, rendezvous: str) -> Iterator[None]:
    if processes == 1:
        yield
        return
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=processes)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _process(rank: int, work: Work, run: Any, processes: int, device: str, rendezvous: str) -> None:
    torch.set_num_threads(1 if device == "cpu" else torch.get_num_threads())
    torch.backends.cudnn.allow_tf32 = False        # integers in float32 are exact only where its products are
    with _group(rank, processes, rendezvous), interrupted_by_terminate():
        work(run, rank)


def _spawn(work: Work, run: Any, processes: int, device: str, rendezvous: str) -> None:
    """SIGTERM reaches this process alone, so it passes the interrupt on: first to the one that writes the checkpoint."""
    workers = torch.multiprocessing.spawn(_process, (work, run, processes, device, rendezvous), nprocs=processes, join=False, daemon=True)
    assert workers is not None
    try:
        while not workers.join():
            pass
    except KeyboardInterrupt:
        for process in workers.processes:
            process.terminate()
            process.join()
        raise
    finally:
        Path(rendezvous).unlink(missing_ok=True)
