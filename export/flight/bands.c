/* ---- entropy path of one band (FORMAT 5.4, 5.5, 6) ---- */

/* A band: its number, hyper-latent rows and columns, and where its latents are. */
typedef struct {
    uint32_t number;
    size_t rows, columns;
    const int32_t *y; /* [4 phases][2 rows][2 columns][latents] */
    const uint8_t *z; /* [rows][columns][hyper] */
} flight_band;

typedef struct {
    uint8_t plane;      /* 0 for A, 1 for B */
    uint8_t row, column; /* offset + 1, that is the offset in a plane with its margin */
} flight_neighbour;

static const flight_neighbour NEIGHBOURS[4][4] = {
    {{0, 0, 0}, {0, 0, 0}, {0, 0, 0}, {0, 0, 0}},
    {{0, 1, 1}, {0, 1, 2}, {0, 2, 1}, {0, 2, 2}},
    {{0, 1, 1}, {0, 1, 2}, {1, 0, 1}, {1, 1, 1}},
    {{0, 1, 1}, {0, 2, 1}, {1, 1, 0}, {1, 1, 1}},
};

static remac_tap tap(const uint8_t *base, size_t step, size_t channels)
{
    remac_tap t;
    t.base = base;
    t.step = step;
    t.channels = channels;
    return t;
}

/* The band at row `first` (of hyper-latents) of the picture, in the memory for one band or for all. */
static flight_band find_band(const remac_flight *e, uint32_t number)
{
    const size_t first = (size_t)number * e->band_units, total = e->height / 64u, slot = e->config.keep != 0u ? first : 0;
    flight_band band;
    band.number = number;
    band.rows = total - first < e->band_units ? total - first : e->band_units;
    band.columns = e->width / 64u;
    band.y = e->y + slot * band.columns * (16u * REMAC_FLIGHT_LATENTS);
    band.z = e->z + slot * band.columns * REMAC_FLIGHT_HYPER;
    return band;
}

/* h_s: side_out at 1/32, [2 rows][2 columns][side_out]. The margins of the rows in between are 0 from the start. */
static void run_side(remac_flight *e, const flight_band *band)
{
    const size_t in_row = (band->columns + 2u) * REMAC_FLIGHT_SIDE_IN, mid_row = (2u * band->columns + 2u) * REMAC_FLIGHT_SIDE_MID;
    const size_t out_row = 2u * band->columns * REMAC_FLIGHT_SIDE_OUT;
    remac_tap taps[3];
    for (size_t r = 0; r < band->rows; r++) {
        taps[0] = tap(band->z + r * band->columns * REMAC_FLIGHT_HYPER, REMAC_FLIGHT_HYPER, REMAC_FLIGHT_HYPER);
        remac_row_u8(&LAYERS[SIDE_IN], taps, 1, band->columns, e->side_in + r * in_row + REMAC_FLIGHT_SIDE_IN);
    }
    for (size_t r = 0; r < band->rows; r++) {
        for (size_t dy = 0; dy < 3u; dy++) /* row r + dy - 1; -1 wraps and is outside, too */
            taps[dy] = tap(r + dy - 1u < band->rows ? e->side_in + (r + dy - 1u) * in_row : e->zero, REMAC_FLIGHT_SIDE_IN, 3u * REMAC_FLIGHT_SIDE_IN);
        remac_row_u8(&LAYERS[SIDE_MID], taps, 3, band->columns, e->hidden); /* a row of hidden features is longer: checked below */
        for (size_t q = 0; q < 2u * band->columns; q++)
            memcpy(e->side_mid + r * mid_row + (q + 1u) * REMAC_FLIGHT_SIDE_MID, e->hidden + q / 2u * REMAC_FLIGHT_SIDE_MID, REMAC_FLIGHT_SIDE_MID);
    }
    for (size_t r = 0; r < 2u * band->rows; r++) {
        for (size_t dy = 0; dy < 3u; dy++)
            taps[dy] = tap(r + dy - 1u < 2u * band->rows ? e->side_mid + (r + dy - 1u) / 2u * mid_row : e->zero, REMAC_FLIGHT_SIDE_MID,
                           3u * REMAC_FLIGHT_SIDE_MID);
        remac_row_u8(&LAYERS[SIDE_OUT], taps, 3, 2u * band->columns, e->side_out + r * out_row);
    }
}
CHECK(hidden, 2u * REMAC_FLIGHT_HIDDEN >= REMAC_FLIGHT_SIDE_MID);

#if REMAC_FLIGHT_BANK
/* The hyper-latent of the entry that is nearest to z, the first of equals. */
static size_t nearest_place(const uint8_t *z, const uint8_t *entry)
{
    size_t best = 0;
    uint32_t least = UINT32_MAX;
    for (size_t place = 0; place < 16u; place++) {
        uint32_t sum = 0;
        for (size_t c = 0; c < REMAC_FLIGHT_HYPER; c++) {
            const int32_t difference = (int32_t)z[c] - (int32_t)entry[place * REMAC_FLIGHT_HYPER + c];
            sum += (uint32_t)(difference < 0 ? -difference : difference);
        }
        if (sum < least) {
            least = sum;
            best = place;
        }
    }
    return best;
}

/* FORMAT 5.4: the features of the semantic entry, [2 rows][2 columns][reference]. */
static void fetch_features(remac_flight *e, const flight_band *band)
{
    const uint8_t *const entry = &BANK_Z[(size_t)e->semantic * (16u * REMAC_FLIGHT_HYPER)];
    const uint8_t *const features = &BANK_FEATURES[(size_t)e->semantic * (64u * REMAC_FLIGHT_REFERENCE)];
    for (size_t r = 0; r < band->rows; r++) {
        for (size_t q = 0; q < band->columns; q++) {
            const size_t place = nearest_place(band->z + (r * band->columns + q) * REMAC_FLIGHT_HYPER, entry);
            for (size_t i = 0; i < 2u; i++)
                memcpy(e->features + ((2u * r + i) * 2u * band->columns + 2u * q) * REMAC_FLIGHT_REFERENCE,
                       features + ((2u * (place / 4u) + i) * 8u + 2u * (place % 4u)) * REMAC_FLIGHT_REFERENCE, (size_t)2u * REMAC_FLIGHT_REFERENCE);
        }
    }
}
#endif

/* What does not depend on the quality: side information and features. The planes get LATENT_OFFSET, which their margins keep. */
static void prepare_band(remac_flight *e, const flight_band *band)
{
    const size_t plane = (2u * band->rows + 2u) * (2u * band->columns + 2u) * REMAC_FLIGHT_LATENTS;
    run_side(e, band);
#if REMAC_FLIGHT_BANK
    if (e->semantic != REMAC_FLIGHT_NO_REFERENCE)
        fetch_features(e, band);
#endif
    memset(e->plane_a, REMAC_LATENT_OFFSET, plane);
    memset(e->plane_b, REMAC_LATENT_OFFSET, plane);
}

/* Row r of a phase: mu and log scales, int32[2 columns][latents], into e->mean and e->scale. */
static void run_phase_row(remac_flight *e, const flight_band *band, size_t phase, size_t r)
{
    const size_t columns = 2u * band->columns, layer = phase * LAYERS_PER_PHASE;
    const int referenced = e->semantic != REMAC_FLIGHT_NO_REFERENCE;
    remac_tap taps[6];
    taps[0] = tap(e->side_out + r * columns * REMAC_FLIGHT_SIDE_OUT, REMAC_FLIGHT_SIDE_OUT, REMAC_FLIGHT_SIDE_OUT);
    taps[1] = tap(referenced ? e->features + r * columns * REMAC_FLIGHT_REFERENCE : e->zero, referenced ? REMAC_FLIGHT_REFERENCE : 0u,
                  REMAC_FLIGHT_REFERENCE);
    for (size_t i = 0; i < 4u; i++) {
        const flight_neighbour near = NEIGHBOURS[phase][i];
        const uint8_t *const plane = near.plane == 0u ? e->plane_a : e->plane_b;
        const size_t position = (r + near.row) * (columns + 2u) + near.column;
        taps[2u + i] = tap(plane + position * REMAC_FLIGHT_LATENTS, REMAC_FLIGHT_LATENTS, REMAC_FLIGHT_CONTEXT);
    }
    remac_row_u8(&LAYERS[HIDDEN_0 + layer], taps, phase == 0u ? 2u : 6u, columns, e->hidden);
    taps[0] = tap(e->hidden, LAYERS[HIDDEN_0 + layer].out, LAYERS[HIDDEN_0 + layer].out);
    remac_row_i32(&LAYERS[MEAN_0 + layer], taps, 1, columns, e->mean);
    remac_row_i32(&LAYERS[SCALE_0 + layer], taps, 1, columns, e->scale);
}

/* Where the decoded latents of a row go: phases 0 and 1 are looked at later. */
static uint8_t *plane_row_of(remac_flight *e, const flight_band *band, size_t phase, size_t r)
{
    const size_t at = ((r + 1u) * (2u * band->columns + 2u) + 1u) * REMAC_FLIGHT_LATENTS;
    return phase == 0u ? e->plane_a + at : phase == 1u ? e->plane_b + at : e->plane_row;
}

static remac_quality quality_of(uint32_t quality)
{
    remac_quality q;
    q.gain = &GAIN[(size_t)quality * REMAC_FLIGHT_LATENTS];
    q.inverse_gain = &INVERSE_GAIN[(size_t)quality * REMAC_FLIGHT_LATENTS];
    q.scale_offset = &SCALE_OFFSET[(size_t)quality * REMAC_FLIGHT_LATENTS];
    q.context_shift = CONTEXT_SHIFT;
    q.rounding = ROUNDING;
    q.channels = REMAC_FLIGHT_LATENTS;
    q.coded_from = CODED_FROM;
    return q;
}

/* FORMAT 6.1: the table of hyper-latent `at` of a band, which follows from the one to its left, in the first column from the one above. */
static uint16_t hyper_table(const uint8_t *z, size_t at, size_t columns)
{
    const size_t place = at / REMAC_FLIGHT_HYPER;
    const size_t back = place % columns != 0 ? REMAC_FLIGHT_HYPER : columns * REMAC_FLIGHT_HYPER;
    const int32_t reach = REMAC_HYPER_CONTEXTS / 2, before = (at >= back ? z[at - back] : REMAC_LATENT_OFFSET) - REMAC_LATENT_OFFSET;
    const int32_t context = before < -reach ? -reach : before > reach ? reach : before;
    return (uint16_t)((int32_t)(at % REMAC_FLIGHT_HYPER) * REMAC_HYPER_CONTEXTS + context + reach);
}

/* FORMAT 6.1, at the start of a band. */
static remac_adaptation adaptation_of(remac_flight *e)
{
    remac_adaptation a;
    memset(e->channel, 0, REMAC_FLIGHT_LATENTS * sizeof *e->channel);
    a.score = SCORE;
    a.channel = e->channel;
    a.channels = REMAC_FLIGHT_LATENTS;
    a.coded_from = CODED_FROM;
    a.offset = REMAC_FLIGHT_HYPER * REMAC_HYPER_CONTEXTS;
    return a;
}

/* The symbols of a band and their tables in the order of FORMAT 6.1; returns how many. */
static size_t band_symbols(remac_flight *e, const flight_band *band)
{
    const remac_quality quality = quality_of(e->quality);
    const size_t columns = 2u * band->columns, row = columns * REMAC_FLIGHT_LATENTS, hyper = band->rows * band->columns * REMAC_FLIGHT_HYPER;
    const int32_t *y = band->y;
    const remac_adaptation adaptation = adaptation_of(e);
    size_t count = 0;
    for (; count < hyper; count++) {
        e->symbols[count] = band->z[count];
        e->tables[count] = hyper_table(band->z, count, band->columns);
    }
    for (size_t phase = 0; phase < 4u; phase++) {
        for (size_t r = 0; r < 2u * band->rows; r++) {
            run_phase_row(e, band, phase, r);
            remac_quantise(columns, &quality, y, e->mean, e->scale, e->row_symbols, e->level, plane_row_of(e, band, phase, r), e->y_hat);
            count += remac_collect(&adaptation, columns, e->row_symbols, e->level, e->symbols + count, e->tables + count);
            y += row;
        }
    }
    return count;
}

/* Codes a band, and writes it or, to measure, only adds its packets to e->offset, which holds all that are not too long: 256 bands of 255. */
static remac_flight_status code_band(remac_flight *e, uint32_t number)
{
    const flight_band band = find_band(e, number);
    const size_t room = (size_t)REMAC_FLIGHT_CODED(e->width, (uint64_t)band.rows * 64u);
    size_t offset = 0;
    unsigned lanes_log2 = 0;
    prepare_band(e, &band);
    const size_t count = band_symbols(e, &band);
    while (lanes_log2 < 6u && count >> (16u + lanes_log2) != 0u) /* FORMAT 6.2 */
        lanes_log2++;
    if (remac_encode(&TABLES, count, e->symbols, e->tables, lanes_log2, e->coded, room, &offset) != REMAC_OK)
        return REMAC_FLIGHT_INTERNAL;
    const size_t size = room - offset;
    const size_t fragments = fragments_of(number, size);
    const int too_long = fragments > REMAC_FLIGHT_FRAGMENTS_MAX;
    if (e->pass != PASS_MEASURE)
        return too_long ? REMAC_FLIGHT_BAND_TOO_LONG : write_band(e, number, lanes_log2, e->coded + offset, (uint32_t)size);
    if (too_long)
        e->too_long = 1;
    else
        e->offset += (uint32_t)(payload_bytes(number, size) + fragments * REMAC_FLIGHT_HEADER_BYTES);
    return REMAC_FLIGHT_OK;
}
