"""Which table a symbol is coded with (FORMAT 6.1): that follows from the symbols before it, so nothing is sent for it.

Hyper-latents take their table from their left neighbour. For the latents the network's scale says how large a symbol will be. Where a picture, a
channel or a place in it differs from what was trained on, sizes surprise: the score of a symbol tells how far its table lies from the one that would
have suited it best. Scores move the tables of the next symbols, those of the same position for some hundred channels, those of the same channel for
the rest of the band. What is quantised does not change: the levels of FORMAT 5.5 stay what they were for rounding and for what is coded at all.
"""
from __future__ import annotations

from collections.abc import Generator

import numpy as np
from numpy.typing import NDArray

from remac_runtime import native
from remac_runtime.format import (
    ADAPTATION_BITS,
    ADAPTATION_LIMIT,
    CHANNEL_SHIFT,
    HYPER_CONTEXTS,
    LATENT_OFFSET,
    POSITION_SHIFT,
    SCALE_FRACTION_BITS,
    SCALE_LEVELS,
    SCORE_SIZES,
)
from remac_runtime.network import Network

Walk = Generator[int, int, None]


def hyper_tables(earlier: NDArray[np.integer]) -> NDArray[np.uint16]:
    """The tables uint16[...,Z] of hyper-latents, from those before them, [...,Z] in 0..255."""
    reach = HYPER_CONTEXTS // 2
    context = np.clip(earlier.astype(np.int32) - LATENT_OFFSET, -reach, reach) + reach
    return (np.arange(earlier.shape[-1]) * HYPER_CONTEXTS + context).astype(np.uint16)


def before(z: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Of each hyper-latent of a band uint8[h,w,Z] the one to its left, in the first column the one above, for the first one LATENT_OFFSET."""
    result = np.full_like(z, LATENT_OFFSET)
    result[:, 1:], result[1:, 0] = z[:, :-1], z[:-1, 0]
    return result


def following(walk: Walk, symbol: int | None) -> int | None:
    """The table after the one of `symbol`, the first one after None; None after the last."""
    try:
        return next(walk) if symbol is None else walk.send(symbol)
    except StopIteration:
        return None


class Adaptation:
    """The state of one band. Its phases are given to `collect`, or to `BandDecoder.decode_latents`, in turn."""

    def __init__(self, network: Network) -> None:
        self.score = native.plain(network.score, np.int16)
        self.coded_from, self.offset = network.coded_from, len(network.z_tables)
        self.lowest = network.coded_from << SCALE_FRACTION_BITS     # level of what is coded
        self.channel = np.zeros(network.latents, np.int32)

    def collect(self, symbols: NDArray[np.int32], level: NDArray[np.uint16]) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:
        """(symbols int32[n], tables uint16[n]) that are coded, in order, of a phase's symbols int32[h,w,M] with levels uint16[h,w,M].

        Table t of y has the number `offset` + t (`rans.CombinedTables`). Raises ValueError where the shapes differ.
        """
        if symbols.shape != level.shape or level.shape[-1] != len(self.channel):
            raise ValueError(f"symbols {symbols.shape} and level {level.shape} are not alike, or not of {len(self.channel)} channels")
        if native.library is not None:
            coded, tables = np.empty(symbols.size, np.int32), np.empty(symbols.size, np.uint16)
            n = native.library.collect(self.score, self.channel, native.plain(symbols, np.int32), native.plain(level, np.uint16), coded, tables,
                                       self.coded_from, self.offset)
            return coded[:n], tables[:n]
        chosen = symbols[level >= self.lowest].astype(np.int32, copy=False)
        walk, numbers = self.walk(level), []
        table = following(walk, None)
        for symbol in chosen.tolist():
            numbers.append(table)
            table = following(walk, symbol)
        return chosen, np.array(numbers, np.uint16)

    def walk(self, level: NDArray[np.uint16]) -> Walk:
        """The tables of the coded symbols of a phase, in order; each symbol is sent back before the next table comes. The rule in plain integers."""
        channel, scores = self.channel.tolist(), self.score.tolist()
        for levels in level.reshape(-1, level.shape[-1]).tolist():
            position = 0
            for c, fine in enumerate(levels):
                if fine < self.lowest:
                    continue
                moved = (fine << ADAPTATION_BITS - SCALE_FRACTION_BITS) + channel[c] + position >> ADAPTATION_BITS
                table = min(max(moved, self.coded_from), SCALE_LEVELS - 1)
                symbol = yield table + self.offset
                score = scores[table][min(abs(symbol), SCORE_SIZES - 1)]
                step = score + (1 << CHANNEL_SHIFT - 1) >> CHANNEL_SHIFT
                channel[c] = min(max(channel[c] + step, -ADAPTATION_LIMIT), ADAPTATION_LIMIT)
                position += score - (position + (1 << POSITION_SHIFT - 1) >> POSITION_SHIFT)
        self.channel[:] = channel
