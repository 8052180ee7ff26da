"""The constants of FORMAT 1, which a test compares with FORMAT.md's table, and others that several modules need. What one rule alone needs stands
beside it: the layout of packets in packets.py, of the coder in rans.py, of files in network.py."""
from __future__ import annotations

WEIGHT_MAX = 64
ACTIVATION_MAX = 255
ACCUMULATOR_LIMIT = 1 << 24
HEAD_LIMIT = 1 << 26
SHIFT_MAX = 16
HEAD_SHIFT_MIN = -8
PAD_MULTIPLE = 64
LATENT_STRIDE = 16
HYPER_STRIDE = 64
LATENT_OFFSET = 128
GAIN_BITS = 30
GAIN_MAX = 1 << 24
INVERSE_GAIN_MAX = 1 << 26
SCALE_FRACTION_BITS = 4
SCALE_LEVELS = 64
LEVEL_MAX = (SCALE_LEVELS << SCALE_FRACTION_BITS) - 1
HYPER_CONTEXTS = 7
SCORE_SIZES = 16
SCORE_LIMIT = 1 << 12
ADAPTATION_BITS = 10
ADAPTATION_LIMIT = 1 << 14
CHANNEL_SHIFT = 2
POSITION_SHIFT = 7
QUALITIES = 64
BAND_UNIT = 64
BAND_ROWS = 512
PROBABILITY_BITS = 14
STATE_LOW = 1 << 16
SYMBOL_LIMIT = 1 << 20
LANES_LOG2_MAX = 8
ENCODER_LANES_LOG2_MAX = 6
ENCODER_SYMBOLS_PER_LANE = 32768
SIDE_MAX = 16384
PACKET_MAX = 65535
NO_REFERENCE = 255
MOSAICS = 5
MOSAIC_SIDE_MIN = 4

# By scale index, what the encoder adds to a magnitude before it drops the fraction (FORMAT 5.5), in 2^-8 steps and then in 2^-GAIN_BITS steps.
ROUNDING_256THS = (51, 52, 53, 54, 55, 56, 63, 70, 77, 84, 92, 101, 110, 112, 115, 117, 119, 120, 121, 122, 123, 124,
                   124, 125, 126, 126, 126, 127, 127, 127, 127, 127, 127, *[128] * (SCALE_LEVELS - 33))
ROUNDING = tuple(part << GAIN_BITS - 8 for part in ROUNDING_256THS)

PHASES = ((0, 0), (1, 1), (0, 1), (1, 0))
# Neighbours of the latents of phases 1..3: (plane, row offset, column offset), in the order of the channels (FORMAT 5.5).
NEIGHBOURS = (
    (),
    ((0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)),
    ((0, 0, 0), (0, 0, 1), (1, -1, 0), (1, 0, 0)),
    ((0, 0, 0), (0, 1, 0), (1, 0, -1), (1, 0, 0)),
)

# Where the float networks put the zero of the pixels, and how the scale indices map to standard deviations in quantisation steps. Not normative:
# the first is folded into the biases, the second into the stored tables.
PIXEL_OFFSET = 102
SCALE_STEPS_PER_OCTAVE = 5
SCALE_MIN = 0.1
