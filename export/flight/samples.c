/* ---- samples to pixels (FORMAT 3), descriptors to references (FORMAT 5.4) ---- */

/* I(n) + I(n + 1): code n + 1 is nearer than n where twice a sample is above it. */
static void fill_companding(remac_flight *e)
{
    const uint32_t top = (UINT32_C(1) << e->config.depth) - 1u;
    uint32_t below = 0; /* I(0) = (0 + 32512) div 65025 */
    for (uint32_t n = 0; n < 255u; n++) {
        const uint32_t above = (uint32_t)(((uint64_t)(n + 1u) * (n + 1u) * top + 32512u) / 65025u);
        e->companding[n] = below + above;
        below = above;
    }
}

/* The number of values of e->companding below twice the sample; they never fall. */
static uint8_t compand(const remac_flight *e, uint32_t sample)
{
    uint32_t code = 0;
    for (uint32_t step = 128; step > 0u; step /= 2u) {
        if (e->companding[code + step - 1u] < 2u * sample)
            code += step;
    }
    return (uint8_t)code;
}

/* One row of samples to uint8[padded width][3]; the last pixel is repeated. */
static remac_flight_status convert_row(const remac_flight *e, const uint8_t *samples, uint8_t *pixels)
{
    const remac_flight_config *const c = &e->config;
    const size_t width = c->width;
    if (c->grey == 0u) {
        memcpy(pixels, samples, 3u * width);
    } else {
        for (size_t q = 0; q < width; q++) {
            uint16_t sample = samples[q];
            if (c->depth > 8u) {
                memcpy(&sample, samples + 2u * q, 2);
                if ((uint32_t)sample >> c->depth != 0u)
                    return REMAC_FLIGHT_BAD_SAMPLE;
                sample = compand(e, sample);
            }
            memset(pixels + 3u * q, sample, 3);
        }
    }
    for (size_t q = width; q < e->width; q++)
        memcpy(pixels + 3u * q, pixels + 3u * (width - 1u), 3);
    return REMAC_FLIGHT_OK;
}

#if REMAC_FLIGHT_BANK
/* The entry with the least sum of absolute (power 1) or squared (power 2) differences, the lower one on a tie. Sums stay below 255^2 * channels. */
static uint32_t nearest_entry(const uint8_t *entries, const uint32_t *sums, uint32_t positions, size_t channels, uint32_t power)
{
    uint32_t best = 0, least = UINT32_MAX;
    for (uint32_t entry = 0; entry < BANK_ENTRIES; entry++) {
        uint32_t distance = 0;
        for (size_t c = 0; c < channels; c++) {
            const int32_t signed_difference = (int32_t)entries[entry * channels + c] - (int32_t)(sums[c] / positions);
            const uint32_t difference = (uint32_t)(signed_difference < 0 ? -signed_difference : signed_difference);
            distance += power == 1u ? difference : difference * difference;
        }
        if (distance < least) {
            least = distance;
            best = entry;
        }
    }
    return best;
}

static void choose_references(remac_flight *e)
{
    const uint32_t positions = e->width / 16u * (e->height / 16u);
    e->semantic = nearest_entry(BANK_SEMANTIC, e->semantic_sums, positions, REMAC_FLIGHT_DEEP, 1);
    e->texture = nearest_entry(BANK_TEXTURE, e->texture_sums, 4u * positions, REMAC_FLIGHT_BODY, 2);
}
#endif
