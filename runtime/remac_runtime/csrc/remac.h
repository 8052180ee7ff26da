/* SPDX-License-Identifier: MIT */
/*
 * The element-wise steps and the entropy coder of remac in C99 (runtime/FORMAT.md sections 2, 5.1, 5.5 and 6): the same integers as the NumPy
 * twins in arithmetic.py, crc.py and rans.py. No heap, no globals but constants, no recursion, every loop bounded by an argument; all memory is the
 * caller's. Bytes are read and written one at a time, so the bytes are the same on processors of either endianness.
 *
 * Right shifts of negative integers must be arithmetic and integers two's complement (checked in remac.c when it is compiled).
 * REMAC_ENCODER_ONLY, a macro for the compiler, leaves out of remac.c what an encoder does not call.
 */
#ifndef REMAC_H
#define REMAC_H

#include <stddef.h>
#include <stdint.h>

#define REMAC_GAIN_BITS 30
#define REMAC_SCALE_FRACTION_BITS 4
#define REMAC_SCALE_LEVELS 64
#define REMAC_LEVEL_MAX 1023
#define REMAC_LATENT_OFFSET 128
#define REMAC_HYPER_CONTEXTS 7
#define REMAC_SCORE_SIZES 16
#define REMAC_ADAPTATION_BITS 10
#define REMAC_ADAPTATION_LIMIT (INT32_C(1) << 14)
#define REMAC_CHANNEL_SHIFT 2
#define REMAC_POSITION_SHIFT 7
#define REMAC_PROBABILITY_BITS 14
#define REMAC_STATE_LOW 0x10000u
#define REMAC_SYMBOL_LIMIT (INT32_C(1) << 20)
#define REMAC_LANES_LOG2_MAX 8
#define REMAC_LANES_MAX (1 << REMAC_LANES_LOG2_MAX)
#define REMAC_ESCAPE_ZEROS_MAX 20                /* FORMAT 6.3: m > 20 is corrupt */
#define REMAC_LOOKUP_BITS 8                      /* a decoder looks the first 8 bits of a slot up and scans from there */
#define REMAC_LOOKUP_SIZE (1 << REMAC_LOOKUP_BITS)
#define REMAC_BAND_BYTES_MAX (UINT32_C(1) << 28) /* keeps bit positions within uint32 */

typedef enum {
    REMAC_OK = 0,
    REMAC_NO_ROOM = 1,    /* the output may not fit */
    REMAC_BAD_SYMBOL = 2, /* encoder: a symbol reaches +-2^20; our bug */
    REMAC_BAD_TABLE = 3,  /* a table number that does not exist; our bug */
    REMAC_BAD_LANES = 4,
    REMAC_CORRUPT_END = 5,    /* words and escape bits meet before the last symbol */
    REMAC_CORRUPT_ESCAPE = 6, /* an escape of more than 20 zero bits or of a symbol that reaches +-2^20 */
    REMAC_CORRUPT_STATE = 7,  /* a state outside [2^16, 2^32) at the start, or not 2^16 at the end */
    REMAC_CORRUPT_LENGTH = 8  /* words and escape bits do not fill the band, or it is too long */
} remac_status;

/* CRC-32C (FORMAT 2) of `size` bytes that follow bytes of CRC `value`; 0 for the first ones. */
uint32_t remac_crc32c(uint32_t value, const uint8_t *data, size_t size);

/* The rows of a network for one quality. gain, inverse_gain, scale_offset, context_shift: [channels]; rounding: [REMAC_SCALE_LEVELS].
 * Bounds, checked when the network is read: 1 <= gain < 2^24, 1 <= inverse_gain < 2^26, |scale_offset| <= 2^20, 0 <= context_shift <= 16,
 * 0 <= rounding <= 2^29. */
typedef struct {
    const int32_t *gain;
    const int32_t *inverse_gain;
    const int32_t *scale_offset;
    const int32_t *context_shift;
    const int32_t *rounding;
    size_t channels;
    int32_t coded_from;
} remac_quality;

/* FORMAT 5.1, in place: acc[r][c] = rne(acc[r][c], shift[c]) of a head: -8 <= shift <= 16, |acc| < 2^24, and the result is below 2^26. */
void remac_requantise(size_t rows, size_t channels, const int32_t *shift, int32_t *acc);

/* FORMAT 5.5, arrays [positions][channels], any int32 values. */
void remac_scale_level(size_t positions, size_t channels, const int32_t *scale, const int32_t *scale_offset, uint16_t *level);
void remac_quantise(size_t positions, const remac_quality *quality, const int32_t *y, const int32_t *mu, const int32_t *scale,
                    int32_t *symbols, uint16_t *level, uint8_t *plane, int32_t *y_hat);
void remac_dequantise(size_t positions, size_t channels, const int32_t *inverse_gain, const int32_t *context_shift, const int32_t *mu,
                      const int32_t *symbols, int32_t *y_hat, uint8_t *plane);

/* FORMAT 6.1: how levels of the scale become tables. |score| <= 2^12, checked when the network is read; `channel` is 0 at the start of a band and
 * holds what its symbols have taught since. */
typedef struct {
    const int16_t *score; /* [REMAC_SCALE_LEVELS][REMAC_SCORE_SIZES] */
    int32_t *channel;     /* [channels] */
    size_t channels;
    int32_t coded_from;
    uint16_t offset;      /* number of the first table of y */
} remac_adaptation;

/* The coded ones of the symbols [positions][channels] and their tables, in order; returns how many. Both outputs hold all symbols. */
size_t remac_collect(const remac_adaptation *adaptation, size_t positions, const int32_t *symbols, const uint16_t *level, int32_t *out_symbols,
                     uint16_t *out_tables);

/* Tables of FORMAT 4.2, those of z first, then those of y. Table t owns cdf[start[t]] .. cdf[start[t + 1] - 1].
 * reciprocal[g] = ceil(2^46 / frequency of entry g), for the encoder; lookup[t][b] = number of the entry that holds slot b << 6, for the decoder.
 * What 4.2 demands of the tables is taken for granted: it was checked when the network was read. */
typedef struct {
    const int32_t *first;
    const int32_t *start;
    const uint16_t *cdf;
    const uint64_t *reciprocal;
    const uint16_t *lookup;
    uint32_t count;
} remac_tables;

/* Largest band of n symbols, in bytes. */
size_t remac_encode_bound(size_t n, unsigned lanes_log2);

/* FORMAT 6.2 and 6.3. The band fills out[*offset] .. out[room - 1]; room >= remac_encode_bound always suffices. */
remac_status remac_encode(const remac_tables *model, size_t n, const int32_t *symbols, const uint16_t *tables, unsigned lanes_log2,
                          uint8_t *out, size_t room, size_t *offset);

/* A band that is being decoded. Invariants after remac_decoder_start: state[] >= 2^16; next <= size of the band; escape bits lie above next. */
typedef struct {
    uint32_t state[REMAC_LANES_MAX];
    uint32_t lanes_mask;  /* lanes - 1 */
    uint32_t lane;        /* of the next symbol */
    uint32_t next;        /* offset of the next word */
    uint32_t escape_bits; /* read so far */
} remac_decoder;

remac_status remac_decoder_start(remac_decoder *decoder, const uint8_t *band, size_t size, unsigned lanes_log2);
/* Decodes the next n symbols; may be called repeatedly with the same band. After another status than REMAC_OK the decoder is of no more use. */
remac_status remac_decode(remac_decoder *decoder, const remac_tables *model, const uint8_t *band, size_t size, size_t n, const uint16_t *tables,
                          int32_t *symbols);
/* The next symbols [positions][channels] of a phase, 0 where they are not coded; `level` becomes the number of the table of y, 0 there. */
remac_status remac_decode_latents(remac_decoder *decoder, const remac_tables *model, const uint8_t *band, size_t size,
                                  const remac_adaptation *adaptation, size_t positions, uint16_t *level, int32_t *symbols);
/* REMAC_OK if the symbols decoded so far are the whole band. */
remac_status remac_decoder_finish(const remac_decoder *decoder, size_t size);

#endif
