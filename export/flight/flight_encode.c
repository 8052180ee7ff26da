/* SPDX-License-Identifier: MIT */
/*
 * A test program around the flight encoder, for hosts and emulators: PGM (8 to 16 bits) or PPM (8 bits) in, a stream out. It uses the heap and stdio,
 * which the encoder does not.
 *
 *     flight_encode [--quality Q] [--target-bytes N] [--band-rows R] [--image-id ID] [--references none|chosen|S,T] [--keep] [--strip-rows R]
 *                   [--mosaic none|rggb|grbg|gbrg|bggr] [--push-only] IN.ppm OUT.rmc
 *     flight_encode --map WIDTH HEIGHT [BAND_ROWS] [KEEP]
 *
 * Numbers are decimal, or hexadecimal with 0x. Exit status: 1 where the picture cannot be coded, 2 for arguments that are wrong.
 */
#include "remac_flight.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BAND_ROWS_MAX (255u * REMAC_FLIGHT_BAND_UNIT)

typedef struct {
    unsigned width, height, top; /* top: largest sample */
    int grey;
    size_t row_bytes;
    uint8_t *samples; /* uint16_t of this machine where top > 255 */
} picture;

/* An argument that is a number in least..most, and a multiple of step. */
typedef struct {
    const char *name;
    uint32_t least, most, step;
    uint32_t *value;
} number_option;

static int fail(const char *what, const char *detail)
{
    fprintf(stderr, "flight_encode: %s: %s\n", what, detail);
    return 1;
}

/* Reads one number and returns what follows it, NULL where there is none. strtoull alone took signs, white space before it, and octal numbers; of a
 * number that is too large even for it, it makes its largest one. */
static const char *read_number(const char *text, uint32_t *value)
{
    const int hexadecimal = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    char *end = NULL;
    if (text[0] < '0' || text[0] > '9')
        return NULL;
    const unsigned long long number = strtoull(text, &end, hexadecimal ? 16 : 10);
    if (number > UINT32_MAX)
        return NULL;
    *value = (uint32_t)number;
    return end;
}

static int parse_number(const number_option *option, const char *text)
{
    uint32_t value = 0;
    const char *const end = read_number(text, &value);
    if (end != NULL && *end == '\0' && value >= option->least && value <= option->most && value % option->step == 0u) {
        *option->value = value;
        return 0;
    }
    fprintf(stderr, "flight_encode: %s: expected a whole number in %lu..%lu", option->name, (unsigned long)option->least,
            (unsigned long)option->most);
    if (option->step > 1u)
        fprintf(stderr, ", a multiple of %lu", (unsigned long)option->step);
    fprintf(stderr, ", found '%s'\n", text);
    return 1;
}

/* A number of a PNM header: skips white space and comments. */
static unsigned header_number(FILE *file)
{
    unsigned value = 0;
    int c = fgetc(file);
    while (c == '#' || c == ' ' || c == '\n' || c == '\t' || c == '\r') {
        while (c == '#' && (c = fgetc(file)) != '\n' && c != EOF)
            c = '#';
        c = fgetc(file);
    }
    for (; c >= '0' && c <= '9' && value < 100000; c = fgetc(file))
        value = 10 * value + (unsigned)(c - '0');
    return value; /* the one white space behind it is consumed */
}

/* Samples of two bytes, which PNM has big-endian, become this machine's; returns the largest. */
static unsigned turn_round(uint8_t *samples, size_t size)
{
    unsigned largest = 0;
    for (size_t i = 0; i < size; i += 2) {
        const uint16_t value = (uint16_t)(samples[i] << 8 | samples[i + 1]);
        memcpy(samples + i, &value, 2);
        largest = value > largest ? value : largest;
    }
    return largest;
}

static int read_picture(const char *path, picture *p)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return fail(path, "cannot be opened");
    const int magic = fgetc(file), kind = fgetc(file);
    p->width = header_number(file);
    p->height = header_number(file);
    p->top = header_number(file);
    p->grey = kind == '5';
    const size_t sample = p->top > 255 ? 2 : 1;
    p->row_bytes = (size_t)p->width * (p->grey ? 1 : 3) * sample;
    const size_t size = p->row_bytes * p->height;
    int wrong = magic != 'P' || (kind != '5' && kind != '6') || p->width < 1 || p->height < 1 || p->top < 1 || p->top > 65535;
    p->samples = wrong ? NULL : malloc(size);
    wrong = wrong || p->samples == NULL || fread(p->samples, 1, size, file) != size;
    fclose(file);
    if (wrong) {
        free(p->samples);
        return fail(path, "not a whole binary PGM or PPM file");
    }
    const char *problem = p->top < 255 ? "its largest value is below 255: scale the samples to 0..255, as the runtime does" : NULL;
    if (sample == 2 && turn_round(p->samples, size) > p->top)
        problem = "has a sample above its largest value: write it again";
    if (problem != NULL)
        free(p->samples);
    return problem != NULL ? fail(path, problem) : 0;
}

static void print_region(const char *name, uint64_t bytes, const char *what)
{
    printf("%-14s %10llu  %s\n", name, (unsigned long long)bytes, what);
}

/* The working memory for what the arguments of --map say. */
static int print_map(int count, char **arguments)
{
    remac_flight_config c;
    const number_option numbers[] = {
        {"--map WIDTH", 1, REMAC_FLIGHT_SIDE_MAX, 1, &c.width},
        {"--map HEIGHT", 1, REMAC_FLIGHT_SIDE_MAX, 1, &c.height},
        {"--map BAND_ROWS", REMAC_FLIGHT_BAND_UNIT, BAND_ROWS_MAX, REMAC_FLIGHT_BAND_UNIT, &c.band_rows},
        {"--map KEEP", 0, 1, 1, &c.keep},
    };
    if (count < 2 || count > 4)
        return fail("--map", "expected WIDTH HEIGHT [BAND_ROWS] [KEEP]");
    remac_flight_defaults(&c, 1, 1);
    for (int i = 0; i < count; i++) {
        if (parse_number(&numbers[i], arguments[i]) != 0)
            return 1;
    }
    if (remac_flight_work_bytes(&c) == 0u)
        return fail("--map", "the encoder takes no pictures of this kind");
#define PRINT(name, bytes, what) print_region(#name, REMAC_FLIGHT_ROUND(bytes), what);
    REMAC_FLIGHT_REGIONS(PRINT, c.width, c.height, c.band_rows, c.keep)
    print_region("total", REMAC_FLIGHT_WORK_BYTES(c.width, c.height, c.band_rows, c.keep), "");
    return 0;
}

static int parse_references(const char *text, remac_flight_config *config)
{
    const char *end = NULL;
    if (strcmp(text, "none") == 0) {
        config->references = REMAC_FLIGHT_REFERENCES_NONE;
    } else if (strcmp(text, "chosen") == 0) {
        config->references = REMAC_FLIGHT_REFERENCES_CHOSEN;
    } else {
        config->references = REMAC_FLIGHT_REFERENCES_FIXED;
        end = read_number(text, &config->semantic);
        end = end != NULL && *end == ',' ? read_number(end + 1, &config->texture) : NULL;
        if (end == NULL || *end != '\0')
            return fail("--references", "give none, chosen, or SEMANTIC,TEXTURE");
    }
    return 0;
}

static int parse_mosaic(const char *text, remac_flight_config *config)
{
    static const char *const names[] = {"none", "rggb", "grbg", "gbrg", "bggr"};
    for (config->mosaic = 0; config->mosaic < sizeof names / sizeof *names; config->mosaic++) {
        if (strcmp(text, names[config->mosaic]) == 0)
            return 0;
    }
    return fail("--mosaic", "give none, rggb, grbg, gbrg, or bggr");
}

/* The picture's mosaic, interpolated anew, in the place of its samples. */
static int sharpen(picture *p, uint32_t mosaic)
{
    const uint32_t red_row = (mosaic - 1u) / 2u, red_column = (mosaic - 1u) % 2u;
    uint8_t *const plane = malloc((size_t)p->width * p->height);
    if (plane == NULL)
        return fail("memory", "none left");
    for (uint32_t row = 0; row < p->height; row++) {
        for (uint32_t q = 0; q < p->width; q++) {
            const int in_red_row = row % 2u == red_row, in_red_column = q % 2u == red_column;
            const size_t channel = in_red_row != in_red_column ? 1u : in_red_row ? 0u : 2u;
            plane[(size_t)row * p->width + q] = p->samples[row * p->row_bytes + 3u * q + channel];
        }
    }
    remac_flight_status status = REMAC_FLIGHT_OK;
    for (uint32_t row = 0; row < p->height && status == REMAC_FLIGHT_OK; row++) {
        const uint8_t *rows[5];
        for (uint32_t i = 0; i < 5u; i++) {
            const uint32_t above = row + i < 2u ? 2u - row - i : row + i - 2u;
            rows[i] = plane + (size_t)(above < p->height ? above : 2u * (p->height - 1u) - above) * p->width;
        }
        status = remac_flight_mosaic_row(mosaic, p->width, row, rows, p->samples + row * p->row_bytes);
    }
    free(plane);
    return status == REMAC_FLIGHT_OK ? 0 : fail("--mosaic", "the encoder takes no such mosaic");
}

/* An option that takes a value into the configuration. */
static int parse_option(const char *name, const char *text, remac_flight_config *config, uint32_t *strip_rows)
{
    const number_option numbers[] = {
        {"--quality", 0, REMAC_FLIGHT_QUALITIES - 1u, 1, &config->quality},
        {"--target-bytes", 1, UINT32_MAX, 1, &config->target_bytes},
        {"--band-rows", REMAC_FLIGHT_BAND_UNIT, BAND_ROWS_MAX, REMAC_FLIGHT_BAND_UNIT, &config->band_rows},
        {"--strip-rows", REMAC_FLIGHT_STRIP_ROWS, REMAC_FLIGHT_SIDE_MAX, REMAC_FLIGHT_STRIP_ROWS, strip_rows},
        {"--image-id", 0, UINT32_MAX, 1, &config->image_id},
    };
    if (strcmp(name, "--mosaic") == 0)
        return parse_mosaic(text, config);
    if (strcmp(name, "--references") == 0)
        return parse_references(text, config);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (strcmp(name, numbers[i].name) == 0) {
            config->has_image_id = config->has_image_id != 0u || numbers[i].value == &config->image_id ? 1u : 0u;
            return parse_number(&numbers[i], text);
        }
    }
    return fail(name, "no such option; they are at the top of flight_encode.c");
}

/* Options into the configuration; returns the number of the first argument behind them, 0 where they are wrong, which is then said. */
static int parse(int count, char **arguments, remac_flight_config *config, uint32_t *strip_rows, int *push_only)
{
    int at = 1;
    for (; at < count && strncmp(arguments[at], "--", 2) == 0; at++) {
        const char *const name = arguments[at];
        if (strcmp(name, "--keep") == 0 || strcmp(name, "--push-only") == 0) {
            config->keep = 1; /* then pushing does the analysis and nothing else */
            *push_only = *push_only || strcmp(name, "--push-only") == 0;
            continue;
        }
        if (++at >= count) {
            fail(name, "expected a value behind it");
            return 0;
        }
        if (parse_option(name, arguments[at], config, strip_rows) != 0)
            return 0;
    }
    if (count - at == 2)
        return at;
    fail("usage", "flight_encode [options] IN.ppm OUT.rmc; the options are at the top of flight_encode.c");
    return 0;
}

static remac_flight_status push_all(remac_flight *encoder, const picture *p, uint32_t strip_rows)
{
    remac_flight_status status = REMAC_FLIGHT_OK;
    for (uint32_t row = 0; row < p->height && status == REMAC_FLIGHT_OK; row += strip_rows) {
        const uint32_t left = p->height - row;
        status = remac_flight_push(encoder, p->samples + row * p->row_bytes, p->row_bytes, left < strip_rows ? left : strip_rows);
    }
    return status;
}

static int encode(const picture *p, const remac_flight_config *config, uint32_t strip_rows, int push_only, const char *path)
{
    const uint64_t work_bytes = remac_flight_work_bytes(config);
    remac_flight_buffer buffer = {NULL, 0};
    remac_flight_result result = {0, 0, 0, 0, 0, 0, 0};
    const uint64_t most = 65536u + 16u * ((uint64_t)p->width + 64u) * ((uint64_t)p->height + 64u); /* more than any picture of the size gives */
    buffer.room = most < UINT32_MAX ? (uint32_t)most : UINT32_MAX;
    buffer.data = malloc(buffer.room);
    void *const work = malloc((size_t)work_bytes + 1);
    const remac_flight_sink sink = {remac_flight_to_buffer, &buffer};
    remac_flight *encoder = NULL;
    remac_flight_status status = REMAC_FLIGHT_NULL_POINTER;
    if (work != NULL && buffer.data != NULL)
        status = remac_flight_begin(&encoder, work, (size_t)work_bytes, config, &sink);
    unsigned pushes = 0;
    while (status == REMAC_FLIGHT_OK || status == REMAC_FLIGHT_AGAIN) {
        status = push_all(encoder, p, strip_rows);
        pushes++;
        if (status == REMAC_FLIGHT_OK && !push_only)
            status = remac_flight_end(encoder, &result);
        if (status == REMAC_FLIGHT_OK)
            break;
    }
    int failed = status != REMAC_FLIGHT_OK;
    if (failed) {
        fprintf(stderr, "flight_encode: status %d, %lu bytes\n", (int)status, (unsigned long)result.bytes);
    } else {
        FILE *const file = fopen(path, "wb");
        failed = file == NULL || fwrite(buffer.data, 1, result.bytes, file) != result.bytes;
        failed = (file != NULL && fclose(file) != 0) || failed;
        if (failed)
            fail(path, "cannot be written");
        printf("{\"bytes\": %lu, \"packets\": %lu, \"quality\": %lu, \"semantic\": %lu, \"texture\": %lu, \"work_bytes\": %llu, \"pushes\": %u}\n",
               (unsigned long)result.bytes, (unsigned long)result.packets, (unsigned long)result.quality, (unsigned long)result.semantic,
               (unsigned long)result.texture, (unsigned long long)work_bytes, pushes);
    }
    free(work);
    free(buffer.data);
    return failed;
}

int main(int count, char **arguments)
{
    remac_flight_config config;
    picture p = {0, 0, 0, 0, 0, NULL};
    uint32_t strip_rows = REMAC_FLIGHT_STRIP_ROWS;
    int push_only = 0;
    if (count > 1 && strcmp(arguments[1], "--map") == 0)
        return print_map(count - 2, arguments + 2) != 0 ? 2 : 0;
    remac_flight_defaults(&config, 1, 1);
    const int at = parse(count, arguments, &config, &strip_rows, &push_only);
    if (at == 0)
        return 2;
    if (read_picture(arguments[at], &p) != 0)
        return 1;
    config.width = p.width;
    config.height = p.height;
    config.grey = p.grey ? 1u : 0u;
    while (p.top >> config.depth != 0)
        config.depth++;
    const int valid = remac_flight_work_bytes(&config) != 0; /* else the encoder says what is wrong */
    int failed = config.mosaic != 0 && valid ? sharpen(&p, config.mosaic) : 0;
    failed = failed != 0 || encode(&p, &config, strip_rows, push_only, arguments[at + 1]);
    free(p.samples);
    return failed;
}
