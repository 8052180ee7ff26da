/* SPDX-License-Identifier: MIT */
/* See remac.h. Comments cite the rule of runtime/FORMAT.md and the bound that keeps an integer within its type. */
#include "remac.h"

/* FORMAT's a >> s is the arithmetic shift. */
typedef char remac_needs_arithmetic_shift[(-1 >> 1) == -1 ? 1 : -1];

/* Where compiler and C library can choose at load time, the element-wise functions are compiled a second time for AVX2. What they call must then be
 * inlined, or it would stay with the first instruction set. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 8 && !defined(REMAC_NO_CLONES)
#define REMAC_CLONES __attribute__((target_clones("default", "avx2")))
#define REMAC_INLINE static inline __attribute__((always_inline))
#else
#define REMAC_CLONES
#define REMAC_INLINE static inline
#endif

#define CHUNK 256u /* channels handled at a time: their thresholds fit the stack */

/* ---- CRC-32C (FORMAT 2) ---- */

static const uint32_t CRC_TABLE[256] = {
    0x00000000u, 0xF26B8303u, 0xE13B70F7u, 0x1350F3F4u, 0xC79A971Fu, 0x35F1141Cu, 0x26A1E7E8u, 0xD4CA64EBu,
    0x8AD958CFu, 0x78B2DBCCu, 0x6BE22838u, 0x9989AB3Bu, 0x4D43CFD0u, 0xBF284CD3u, 0xAC78BF27u, 0x5E133C24u,
    0x105EC76Fu, 0xE235446Cu, 0xF165B798u, 0x030E349Bu, 0xD7C45070u, 0x25AFD373u, 0x36FF2087u, 0xC494A384u,
    0x9A879FA0u, 0x68EC1CA3u, 0x7BBCEF57u, 0x89D76C54u, 0x5D1D08BFu, 0xAF768BBCu, 0xBC267848u, 0x4E4DFB4Bu,
    0x20BD8EDEu, 0xD2D60DDDu, 0xC186FE29u, 0x33ED7D2Au, 0xE72719C1u, 0x154C9AC2u, 0x061C6936u, 0xF477EA35u,
    0xAA64D611u, 0x580F5512u, 0x4B5FA6E6u, 0xB93425E5u, 0x6DFE410Eu, 0x9F95C20Du, 0x8CC531F9u, 0x7EAEB2FAu,
    0x30E349B1u, 0xC288CAB2u, 0xD1D83946u, 0x23B3BA45u, 0xF779DEAEu, 0x05125DADu, 0x1642AE59u, 0xE4292D5Au,
    0xBA3A117Eu, 0x4851927Du, 0x5B016189u, 0xA96AE28Au, 0x7DA08661u, 0x8FCB0562u, 0x9C9BF696u, 0x6EF07595u,
    0x417B1DBCu, 0xB3109EBFu, 0xA0406D4Bu, 0x522BEE48u, 0x86E18AA3u, 0x748A09A0u, 0x67DAFA54u, 0x95B17957u,
    0xCBA24573u, 0x39C9C670u, 0x2A993584u, 0xD8F2B687u, 0x0C38D26Cu, 0xFE53516Fu, 0xED03A29Bu, 0x1F682198u,
    0x5125DAD3u, 0xA34E59D0u, 0xB01EAA24u, 0x42752927u, 0x96BF4DCCu, 0x64D4CECFu, 0x77843D3Bu, 0x85EFBE38u,
    0xDBFC821Cu, 0x2997011Fu, 0x3AC7F2EBu, 0xC8AC71E8u, 0x1C661503u, 0xEE0D9600u, 0xFD5D65F4u, 0x0F36E6F7u,
    0x61C69362u, 0x93AD1061u, 0x80FDE395u, 0x72966096u, 0xA65C047Du, 0x5437877Eu, 0x4767748Au, 0xB50CF789u,
    0xEB1FCBADu, 0x197448AEu, 0x0A24BB5Au, 0xF84F3859u, 0x2C855CB2u, 0xDEEEDFB1u, 0xCDBE2C45u, 0x3FD5AF46u,
    0x7198540Du, 0x83F3D70Eu, 0x90A324FAu, 0x62C8A7F9u, 0xB602C312u, 0x44694011u, 0x5739B3E5u, 0xA55230E6u,
    0xFB410CC2u, 0x092A8FC1u, 0x1A7A7C35u, 0xE811FF36u, 0x3CDB9BDDu, 0xCEB018DEu, 0xDDE0EB2Au, 0x2F8B6829u,
    0x82F63B78u, 0x709DB87Bu, 0x63CD4B8Fu, 0x91A6C88Cu, 0x456CAC67u, 0xB7072F64u, 0xA457DC90u, 0x563C5F93u,
    0x082F63B7u, 0xFA44E0B4u, 0xE9141340u, 0x1B7F9043u, 0xCFB5F4A8u, 0x3DDE77ABu, 0x2E8E845Fu, 0xDCE5075Cu,
    0x92A8FC17u, 0x60C37F14u, 0x73938CE0u, 0x81F80FE3u, 0x55326B08u, 0xA759E80Bu, 0xB4091BFFu, 0x466298FCu,
    0x1871A4D8u, 0xEA1A27DBu, 0xF94AD42Fu, 0x0B21572Cu, 0xDFEB33C7u, 0x2D80B0C4u, 0x3ED04330u, 0xCCBBC033u,
    0xA24BB5A6u, 0x502036A5u, 0x4370C551u, 0xB11B4652u, 0x65D122B9u, 0x97BAA1BAu, 0x84EA524Eu, 0x7681D14Du,
    0x2892ED69u, 0xDAF96E6Au, 0xC9A99D9Eu, 0x3BC21E9Du, 0xEF087A76u, 0x1D63F975u, 0x0E330A81u, 0xFC588982u,
    0xB21572C9u, 0x407EF1CAu, 0x532E023Eu, 0xA145813Du, 0x758FE5D6u, 0x87E466D5u, 0x94B49521u, 0x66DF1622u,
    0x38CC2A06u, 0xCAA7A905u, 0xD9F75AF1u, 0x2B9CD9F2u, 0xFF56BD19u, 0x0D3D3E1Au, 0x1E6DCDEEu, 0xEC064EEDu,
    0xC38D26C4u, 0x31E6A5C7u, 0x22B65633u, 0xD0DDD530u, 0x0417B1DBu, 0xF67C32D8u, 0xE52CC12Cu, 0x1747422Fu,
    0x49547E0Bu, 0xBB3FFD08u, 0xA86F0EFCu, 0x5A048DFFu, 0x8ECEE914u, 0x7CA56A17u, 0x6FF599E3u, 0x9D9E1AE0u,
    0xD3D3E1ABu, 0x21B862A8u, 0x32E8915Cu, 0xC083125Fu, 0x144976B4u, 0xE622F5B7u, 0xF5720643u, 0x07198540u,
    0x590AB964u, 0xAB613A67u, 0xB831C993u, 0x4A5A4A90u, 0x9E902E7Bu, 0x6CFBAD78u, 0x7FAB5E8Cu, 0x8DC0DD8Fu,
    0xE330A81Au, 0x115B2B19u, 0x020BD8EDu, 0xF0605BEEu, 0x24AA3F05u, 0xD6C1BC06u, 0xC5914FF2u, 0x37FACCF1u,
    0x69E9F0D5u, 0x9B8273D6u, 0x88D28022u, 0x7AB90321u, 0xAE7367CAu, 0x5C18E4C9u, 0x4F48173Du, 0xBD23943Eu,
    0xF36E6F75u, 0x0105EC76u, 0x12551F82u, 0xE03E9C81u, 0x34F4F86Au, 0xC69F7B69u, 0xD5CF889Du, 0x27A40B9Eu,
    0x79B737BAu, 0x8BDCB4B9u, 0x988C474Du, 0x6AE7C44Eu, 0xBE2DA0A5u, 0x4C4623A6u, 0x5F16D052u, 0xAD7D5351u
};

uint32_t remac_crc32c(uint32_t value, const uint8_t *data, size_t size)
{
    value = ~value;
    for (size_t i = 0; i < size; i++)
        value = CRC_TABLE[(value ^ data[i]) & 0xFF] ^ (value >> 8);
    return ~value;
}

/* ---- arithmetic (FORMAT 5) ---- */

REMAC_INLINE int32_t clamp(int32_t value, int32_t low, int32_t high)
{
    value = value < low ? low : value;
    return value > high ? high : value;
}

#ifndef REMAC_ENCODER_ONLY
REMAC_CLONES
void remac_requantise(size_t rows, size_t channels, const int64_t *restrict acc, const int32_t *restrict shift, int64_t *restrict out)
{
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < channels; c++) {
            const int32_t right = shift[c] > 0 ? shift[c] : 0, left = shift[c] < 0 ? -shift[c] : 0;
            const int64_t half = (INT64_C(1) << right >> 1) - (right > 0), odd = right > 0;
            const int64_t a = acc[r * channels + c];
            /* |a| < 2^46 and left <= 8: the product is below 2^54 */
            out[r * channels + c] = ((a + half + ((a >> right) & odd)) >> right) * (INT64_C(1) << left);
        }
    }
}
#endif

/* index = clamp((scale + scale_offset + 8) >> 4, 0, 63) */
REMAC_INLINE void index_row(size_t n, const int32_t *restrict scale, const int32_t *restrict offset, uint8_t *restrict index)
{
    const int32_t half = 1 << (REMAC_SCALE_FRACTION_BITS - 1);
    for (size_t c = 0; c < n; c++) {
        /* scale is cut to +-2^30, which gives index 0 or 63 as before, so that the sum stays within int32 (|offset| <= 2^20) */
        const int32_t sum = clamp(scale[c], -(INT32_C(1) << 30), INT32_C(1) << 30) + offset[c] + half;
        index[c] = (uint8_t)clamp(sum >> REMAC_SCALE_FRACTION_BITS, 0, REMAC_SCALE_LEVELS - 1);
    }
}

/* k = sign(v) * ((|v| + rounding[index]) >> 30) within +-(2^20 - 1), 0 where index < coded_from; `rounding` is looked up already */
REMAC_INLINE void symbols_row(size_t n, int32_t coded_from, const int32_t *restrict y, const int32_t *restrict mu, const int32_t *restrict gain,
                               const int32_t *restrict rounding, const uint8_t *restrict index, int32_t *restrict symbols)
{
    for (size_t c = 0; c < n; c++) {
        const uint32_t negative = y[c] < mu[c] ? UINT32_MAX : 0;
        const uint32_t distance = (((uint32_t)y[c] - (uint32_t)mu[c]) ^ negative) - negative;     /* |y - mu| <= 2^32 - 1 */
        const uint64_t v = (uint64_t)distance * (uint32_t)gain[c] + (uint32_t)rounding[c];       /* < 2^32 * 2^24 + 2^30 */
        const int32_t free = (int32_t)(v >> REMAC_GAIN_BITS);                                     /* <= 2^26 */
        const int32_t limited = free < REMAC_SYMBOL_LIMIT ? free : REMAC_SYMBOL_LIMIT - 1;
        const int32_t k = index[c] >= coded_from ? limited : 0;
        symbols[c] = negative ? -k : k;
    }
}

/* y_hat = clamp(mu + k * inverse_gain, -2^31, 2^31 - 1). Through unsigned so that 32 bits and no 64-bit comparison suffice. */
REMAC_INLINE void y_hat_row(size_t n, const int32_t *restrict mu, const int32_t *restrict symbols, const int32_t *restrict inverse_gain,
                             uint32_t *restrict y_hat)
{
    for (size_t c = 0; c < n; c++) {
        const uint32_t negative = symbols[c] < 0 ? UINT32_MAX : 0;
        const uint32_t magnitude = ((uint32_t)symbols[c] ^ negative) - negative;                  /* <= 2^31 */
        const uint64_t product = (uint64_t)magnitude * (uint32_t)inverse_gain[c];                 /* < 2^57 */
        const uint32_t step = product >> 32 ? UINT32_MAX : (uint32_t)product;
        const uint32_t room = negative ? (uint32_t)mu[c] + 0x80000000u : 0x7FFFFFFFu - (uint32_t)mu[c];   /* distance to the limit */
        y_hat[c] = (uint32_t)mu[c] + (((step < room ? step : room) ^ negative) - negative);
    }
}

/* plane = clamp(rne(y_hat, context_shift) + 128, 0, 255) */
REMAC_INLINE void plane_row(size_t n, const int32_t *restrict y_hat, const int32_t *restrict shift, uint8_t *restrict plane)
{
    for (size_t c = 0; c < n; c++) {
        const int32_t half = (1 << shift[c] >> 1) - (shift[c] > 0), odd = shift[c] > 0;
        /* shift <= 16: everything from 2^23 on saturates, so cutting at 2^24 changes nothing and 32 bits suffice for the rule of 5.1 */
        const int32_t a = clamp(y_hat[c], -(INT32_C(1) << 24), INT32_C(1) << 24);
        plane[c] = (uint8_t)clamp(((a + half + ((a >> shift[c]) & odd)) >> shift[c]) + REMAC_LATENT_OFFSET, 0, 255);
    }
}

#ifndef REMAC_ENCODER_ONLY
REMAC_CLONES
void remac_scale_index(size_t positions, size_t channels, const int32_t *scale, const int32_t *scale_offset, uint8_t *index)
{
    for (size_t p = 0; p < positions; p++)
        index_row(channels, scale + p * channels, scale_offset, index + p * channels);
}
#endif

REMAC_CLONES
void remac_quantise(size_t positions, const remac_quality *q, const int32_t *y, const int32_t *mu, const int32_t *scale,
                    int32_t *symbols, uint8_t *index, uint8_t *plane, int32_t *y_hat)
{
    int32_t rounding[CHUNK];
    for (size_t p = 0; p < positions; p++) {
        for (size_t c = 0; c < q->channels; c += CHUNK) {
            const size_t n = q->channels - c < CHUNK ? q->channels - c : CHUNK, at = p * q->channels + c;
            index_row(n, scale + at, q->scale_offset + c, index + at);
            for (size_t i = 0; i < n; i++)
                rounding[i] = q->rounding[index[at + i]];
            symbols_row(n, q->coded_from, y + at, mu + at, q->gain + c, rounding, index + at, symbols + at);
            y_hat_row(n, mu + at, symbols + at, q->inverse_gain + c, (uint32_t *)y_hat + at);
            plane_row(n, y_hat + at, q->context_shift + c, plane + at);
        }
    }
}

#ifndef REMAC_ENCODER_ONLY
REMAC_CLONES
void remac_dequantise(size_t positions, size_t channels, const int32_t *inverse_gain, const int32_t *context_shift, const int32_t *mu,
                      const int32_t *symbols, int32_t *y_hat, uint8_t *plane)
{
    for (size_t at = 0; at < positions * channels; at += channels) {
        y_hat_row(channels, mu + at, symbols + at, inverse_gain, (uint32_t *)y_hat + at);
        plane_row(channels, y_hat + at, context_shift, plane + at);
    }
}
#endif

/* ---- order of the coded symbols (FORMAT 6.1) ---- */

size_t remac_collect(size_t n, const int32_t *symbols, const uint8_t *index, int32_t coded_from, uint16_t offset,
                     int32_t *out_symbols, uint16_t *out_tables)
{
    size_t count = 0; /* <= i, so that writing before knowing whether the symbol is coded stays within the outputs */
    for (size_t i = 0; i < n; i++) {
        if (symbols != NULL)
            out_symbols[count] = symbols[i];
        out_tables[count] = (uint16_t)(index[i] + offset);
        count += index[i] >= coded_from;
    }
    return count;
}

#ifndef REMAC_ENCODER_ONLY
size_t remac_scatter(size_t n, size_t count, const int32_t *symbols, const uint8_t *index, int32_t coded_from, int32_t *out)
{
    const int32_t none = 0;
    size_t used = 0;
    if (count == 0)
        symbols = &none;
    for (size_t i = 0; i < n; i++) { /* without branches: which latents are coded is hardly predictable */
        const uint32_t coded = index[i] >= coded_from;
        out[i] = (int32_t)coded * symbols[used < count ? used : 0];
        used += coded;
    }
    return used;
}
#endif

/* ---- rANS encoder (FORMAT 6.2, 6.3) ---- */

size_t remac_encode_bound(size_t n, unsigned lanes_log2)
{
    return ((size_t)4 << lanes_log2) + 8 * n; /* a word and at most 42 escape bits a symbol, rounded up */
}

/* First pass, in the order of decoding: checks the input and writes the escape bits from the end of out backwards; *bytes is their length. */
static remac_status write_escapes(const remac_tables *model, size_t n, const int32_t *symbols, const uint16_t *tables, uint8_t *out, size_t room,
                                  size_t *bytes)
{
    uint64_t bits = 0;   /* the lowest `held` bits wait for being written */
    unsigned held = 0;   /* < 8 between symbols */
    size_t written = 0;
    for (size_t i = 0; i < n; i++) {
        const uint32_t t = tables[i];
        const int32_t k = symbols[i];
        if (t >= model->count)
            return REMAC_BAD_TABLE;
        if (k <= -REMAC_SYMBOL_LIMIT || k >= REMAC_SYMBOL_LIMIT)
            return REMAC_BAD_SYMBOL;
        const int32_t last = model->start[t + 1] - model->start[t] - 2, beyond = k - model->first[t];
        if (beyond >= 0 && beyond < last)
            continue;
        /* first is int16 and last < 2^14, hence e + 1 <= 2^20 + 2^15: at most 21 bits */
        const uint32_t value = (uint32_t)(beyond < 0 ? -beyond : beyond - last + 1);
        unsigned width = 1;
        while (value >> width != 0)
            width++;
        bits = (bits << (2 * width)) | (uint64_t)value | ((uint64_t)(beyond < 0) << (2 * width - 1)); /* sign, width - 1 zeros, value */
        for (held += 2 * width; held >= 8; held -= 8) {
            if (written == room)
                return REMAC_NO_ROOM;
            out[room - ++written] = (uint8_t)(bits >> (held - 8));
        }
    }
    if (held > 0) {
        if (written == room)
            return REMAC_NO_ROOM;
        out[room - ++written] = (uint8_t)(bits << (8 - held));
    }
    *bytes = written;
    return REMAC_OK;
}

remac_status remac_encode(const remac_tables *model, size_t n, const int32_t *symbols, const uint16_t *tables, unsigned lanes_log2,
                          uint8_t *out, size_t room, size_t *offset)
{
    uint32_t state[REMAC_LANES_MAX];
    size_t escapes = 0;
    if (lanes_log2 > REMAC_LANES_LOG2_MAX)
        return REMAC_BAD_LANES;
    const remac_status status = write_escapes(model, n, symbols, tables, out, room, &escapes);
    if (status != REMAC_OK)
        return status;
    const size_t lanes = (size_t)1 << lanes_log2;
    if (room - escapes < 4 * lanes || (room - escapes - 4 * lanes) / 2 < n)
        return REMAC_NO_ROOM;
    for (size_t lane = 0; lane < lanes; lane++)
        state[lane] = REMAC_STATE_LOW;
    uint8_t *at = out + (room - escapes);
    for (size_t i = n; i-- > 0;) {
        const uint32_t t = tables[i], start = (uint32_t)model->start[t], last = (uint32_t)model->start[t + 1] - start - 2;
        const uint32_t j = (uint32_t)symbols[i] - (uint32_t)model->first[t]; /* wraps to a large number below the table */
        const uint32_t g = start + (j < last ? j : last);
        const uint32_t low = model->cdf[g], f = model->cdf[g + 1] - low;
        uint32_t x = state[i & (lanes - 1)];
        at[-2] = (uint8_t)x; /* there is room for a word a symbol; it counts only if the state is too large */
        at[-1] = (uint8_t)(x >> 8);
        const uint32_t emit = x >= f << 18; /* 0 or 1, hardly predictable: so no branch */
        at -= 2 * emit;
        x >>= 16 * emit; /* now 2^2 * f <= x < 2^18 * f, as f < 2^14 */
        /* r = reciprocal = ceil(2^46 / f) = (2^46 + e) / f with e < f. x * r < 2^64, since (f * 2^18 - 1) * (2^46 + e) / f < 2^64 for e * f < 2^28;
         * and the quotient is exact, since x * e < 2^46. */
        const uint32_t quotient = (uint32_t)((x * model->reciprocal[g]) >> 46);
        state[i & (lanes - 1)] = x + low + quotient * ((1u << REMAC_PROBABILITY_BITS) - f); /* (x div f << 14) + x mod f + c < 2^32 */
    }
    for (size_t lane = lanes; lane-- > 0;) {
        at -= 4;
        for (unsigned b = 0; b < 4; b++)
            at[b] = (uint8_t)(state[lane] >> (8 * b));
    }
    *offset = (size_t)(at - out);
    return REMAC_OK;
}

#ifndef REMAC_ENCODER_ONLY
/* ---- rANS decoder ---- */

static uint32_t escape_bytes(const remac_decoder *d)
{
    return (d->escape_bits + 7) / 8;
}

remac_status remac_decoder_start(remac_decoder *d, const uint8_t *band, size_t size, unsigned lanes_log2)
{
    if (lanes_log2 > REMAC_LANES_LOG2_MAX)
        return REMAC_BAD_LANES;
    if (size >= REMAC_BAND_BYTES_MAX)
        return REMAC_CORRUPT_LENGTH;
    const uint32_t lanes = UINT32_C(1) << lanes_log2;
    if (size < 4 * lanes)
        return REMAC_CORRUPT_END;
    for (uint32_t lane = 0; lane < lanes; lane++, band += 4) {
        d->state[lane] = (uint32_t)band[0] | (uint32_t)band[1] << 8 | (uint32_t)band[2] << 16 | (uint32_t)band[3] << 24;
        if (d->state[lane] < REMAC_STATE_LOW)
            return REMAC_CORRUPT_STATE;
    }
    d->lanes_mask = lanes - 1;
    d->lane = 0;
    d->next = 4 * lanes;
    d->escape_bits = 0;
    return REMAC_OK;
}

/* Reads one escape (FORMAT 6.3) for a table of entries first .. first + last - 1. At most 42 bits, none of them below d->next. */
static remac_status read_escape(remac_decoder *d, const uint8_t *band, uint32_t size, int32_t first, int32_t last, int32_t *symbol)
{
    uint32_t negative = 0, zeros = 0, value = 0, needed = 2; /* bits of this escape known to be needed: sign, then zeros and a one */
    for (uint32_t got = 0; got < needed; got++) {
        const uint32_t byte = d->escape_bits / 8;
        if (byte >= size - d->next)
            return REMAC_CORRUPT_END;
        const uint32_t bit = (uint32_t)band[size - 1 - byte] >> (7 - d->escape_bits % 8) & 1;
        d->escape_bits++;
        if (got == 0) {
            negative = bit;
        } else if (value == 0 && bit == 0) {
            if (++zeros > REMAC_ESCAPE_ZEROS_MAX)
                return REMAC_CORRUPT_ESCAPE;
            needed += 2;
        } else {
            value = value << 1 | bit; /* < 2^21 */
        }
    }
    const int32_t k = negative ? first - (int32_t)value : first + last + (int32_t)value - 1; /* e = value - 1 */
    if (k <= -REMAC_SYMBOL_LIMIT || k >= REMAC_SYMBOL_LIMIT)
        return REMAC_CORRUPT_ESCAPE;
    *symbol = k;
    return REMAC_OK;
}

remac_status remac_decode(remac_decoder *d, const remac_tables *model, const uint8_t *band, size_t size, size_t n, const uint16_t *tables,
                          int32_t *symbols)
{
    uint32_t end = (uint32_t)size - escape_bytes(d); /* of the words; size < 2^28 */
    for (size_t i = 0; i < n; i++) {
        const uint32_t t = tables[i];
        if (t >= model->count)
            return REMAC_BAD_TABLE;
        const uint32_t x = d->state[d->lane], slot = x & ((1u << REMAC_PROBABILITY_BITS) - 1), start = (uint32_t)model->start[t];
        uint32_t g = start + model->lookup[t * REMAC_LOOKUP_SIZE + (slot >> (REMAC_PROBABILITY_BITS - REMAC_LOOKUP_BITS))];
        while (model->cdf[g + 1] <= slot) /* ends within the table, whose last value is 2^14 > slot */
            g++;
        const uint32_t low = model->cdf[g], f = model->cdf[g + 1] - low;
        uint32_t next = f * (x >> REMAC_PROBABILITY_BITS) + slot - low; /* <= x */
        if (next < REMAC_STATE_LOW) {
            if (end - d->next < 2)
                return REMAC_CORRUPT_END;
            next = next << 16 | (uint32_t)band[d->next] | (uint32_t)band[d->next + 1] << 8;
            d->next += 2;
        }
        d->state[d->lane] = next;
        d->lane = (d->lane + 1) & d->lanes_mask;
        const int32_t last = model->start[t + 1] - (int32_t)start - 2, j = (int32_t)(g - start);
        symbols[i] = model->first[t] + j;
        if (j == last) {
            const remac_status status = read_escape(d, band, (uint32_t)size, model->first[t], last, symbols + i);
            if (status != REMAC_OK)
                return status;
            end = (uint32_t)size - escape_bytes(d); /* >= d->next: read_escape stays above it */
        }
    }
    return REMAC_OK;
}

remac_status remac_decoder_finish(const remac_decoder *d, size_t size)
{
    for (uint32_t lane = 0; lane <= d->lanes_mask; lane++)
        if (d->state[lane] != REMAC_STATE_LOW)
            return REMAC_CORRUPT_STATE;
    return d->next + escape_bytes(d) == size ? REMAC_OK : REMAC_CORRUPT_LENGTH;
}
#endif
