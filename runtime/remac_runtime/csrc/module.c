/* SPDX-License-Identifier: MIT */
/* Thin CPython binding of remac.h and, in module_layers.c, of layers.h (stable ABI 3.11), imported by native.py only. Every function takes its buffers
 * first, then its integers, all positional. Buffers are C-contiguous, aligned and of the element types of remac.h: arithmetic.py, crc.py and rans.py
 * see to that, this file to the sizes. Outputs are allocated by the caller. The GIL is released around every loop. */
#include "binding.h"
#include "remac.h"

#define INTERFACE 4 /* raised with every change of a signature below, so that native.py refuses a stale build */

static int whole_rows(arguments *held, int array, int row)
{
    return require(held, held->length[row] > 0 && held->length[array] % held->length[row] == 0, "the array is not whole rows of channels");
}

static PyObject *py_crc32c(PyObject *self, PyObject *args)
{
    static const spec wanted[] = {{1, ANY, 0}};
    arguments a;
    (void)self;
    if (!take(&a, args, wanted, 1, 1))
        return NULL;
    uint32_t value = (uint32_t)a.integer[0];
    Py_BEGIN_ALLOW_THREADS
    value = remac_crc32c(value, a.view[0].buf, a.length[0]);
    Py_END_ALLOW_THREADS
    return release(&a, PyLong_FromUnsignedLong(value));
}

/* requantise(shift i32[channels], acc i32) */
static PyObject *py_requantise(PyObject *self, PyObject *args)
{
    static const spec wanted[] = {{4, ANY, 0}, {4, ANY, 1}};
    arguments a;
    (void)self;
    if (!take(&a, args, wanted, 2, 0) || !whole_rows(&a, 1, 0))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    remac_requantise(a.length[1] / a.length[0], a.length[0], a.view[0].buf, a.view[1].buf);
    Py_END_ALLOW_THREADS
    return release(&a, Py_NewRef(Py_None));
}

/* scale_level(scale i32, scale_offset i32[channels], level u16) */
static PyObject *py_scale_level(PyObject *self, PyObject *args)
{
    static const spec wanted[] = {{4, ANY, 0}, {4, ANY, 0}, {2, 0, 1}};
    arguments a;
    (void)self;
    if (!take(&a, args, wanted, 3, 0) || !whole_rows(&a, 0, 1))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    remac_scale_level(a.length[0] / a.length[1], a.length[1], a.view[0].buf, a.view[1].buf, a.view[2].buf);
    Py_END_ALLOW_THREADS
    return release(&a, Py_NewRef(Py_None));
}

/* quantise(gain, inverse_gain, scale_offset, context_shift i32[channels], rounding i32[64], y i32, mu i32, scale i32, symbols i32, level u16, plane u8,
 * y_hat i32, coded_from) */
static PyObject *py_quantise(PyObject *self, PyObject *args)
{
    static const spec wanted[] = {{4, ANY, 0}, {4, 0, 0}, {4, 0, 0}, {4, 0, 0}, {4, ANY, 0}, {4, ANY, 0}, {4, 5, 0}, {4, 5, 0}, {4, 5, 1},
                                  {2, 5, 1}, {1, 5, 1}, {4, 5, 1}};
    arguments a;
    (void)self;
    if (!take(&a, args, wanted, 12, 1) || !whole_rows(&a, 5, 0)
        || !require(&a, a.length[4] == REMAC_SCALE_LEVELS && a.integer[0] < REMAC_SCALE_LEVELS, "rounding or coded_from is out of range"))
        return NULL;
    const remac_quality quality = {a.view[0].buf, a.view[1].buf, a.view[2].buf, a.view[3].buf, a.view[4].buf, a.length[0], (int32_t)a.integer[0]};
    Py_BEGIN_ALLOW_THREADS
    remac_quantise(a.length[5] / quality.channels, &quality, a.view[5].buf, a.view[6].buf, a.view[7].buf, a.view[8].buf, a.view[9].buf,
                   a.view[10].buf, a.view[11].buf);
    Py_END_ALLOW_THREADS
    return release(&a, Py_NewRef(Py_None));
}

/* dequantise(inverse_gain i32[channels], context_shift i32[channels], mu i32, symbols i32, y_hat i32, plane u8) */
static PyObject *py_dequantise(PyObject *self, PyObject *args)
{
    static const spec wanted[] = {{4, ANY, 0}, {4, 0, 0}, {4, ANY, 0}, {4, 2, 0}, {4, 2, 1}, {1, 2, 1}};
    arguments a;
    (void)self;
    if (!take(&a, args, wanted, 6, 0) || !whole_rows(&a, 2, 0))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    remac_dequantise(a.length[2] / a.length[0], a.length[0], a.view[0].buf, a.view[1].buf, a.view[2].buf, a.view[3].buf, a.view[4].buf,
                     a.view[5].buf);
    Py_END_ALLOW_THREADS
    return release(&a, Py_NewRef(Py_None));
}

/* 1 if the score is whole, positions have whole channels, and coded_from and the number of the first table of y are in range. */
static int adaptation_fits(arguments *held, int score, int channel, int level)
{
    return require(held, held->length[score] == REMAC_SCALE_LEVELS * REMAC_SCORE_SIZES, "the score has the wrong size")
           && whole_rows(held, level, channel)
           && require(held, held->integer[0] < REMAC_SCALE_LEVELS && held->integer[1] <= UINT16_MAX - REMAC_SCALE_LEVELS, "offset is too large");
}

/* collect(score i16[64, 16], channel i32[channels], symbols i32, level u16, out_symbols i32, out_tables u16, coded_from, offset) -> count */
static PyObject *py_collect(PyObject *self, PyObject *args)
{
    static const spec wanted[] = {{2, ANY, 0}, {4, ANY, 1}, {4, ANY, 0}, {2, 2, 0}, {4, 2, 1}, {2, 2, 1}};
    arguments a;
    size_t count;
    (void)self;
    if (!take(&a, args, wanted, 6, 2) || !adaptation_fits(&a, 0, 1, 3))
        return NULL;
    const remac_adaptation adaptation = {a.view[0].buf, a.view[1].buf, a.length[1], (int32_t)a.integer[0], (uint16_t)a.integer[1]};
    Py_BEGIN_ALLOW_THREADS
    count = remac_collect(&adaptation, a.length[3] / a.length[1], a.view[2].buf, a.view[3].buf, a.view[4].buf, a.view[5].buf);
    Py_END_ALLOW_THREADS
    return release(&a, PyLong_FromSize_t(count));
}

/* encode(symbols i32[n], tables u16[n], first i32[T], start i32[T + 1], cdf u16, reciprocal u64, out u8, lanes_log2) -> (status, offset) */
static PyObject *py_encode(PyObject *self, PyObject *args)
{
    static const spec wanted[] = {{4, ANY, 0}, {2, 0, 0}, {4, ANY, 0}, {4, ANY, 0}, {2, ANY, 0}, {8, 4, 0}, {1, ANY, 1}};
    arguments a;
    size_t offset = 0;
    remac_status status;
    (void)self;
    if (!take(&a, args, wanted, 7, 1) || !require(&a, a.length[3] == a.length[2] + 1, "start does not fit first"))
        return NULL;
    const remac_tables model = {a.view[2].buf, a.view[3].buf, a.view[4].buf, a.view[5].buf, NULL, (uint32_t)a.length[2]};
    Py_BEGIN_ALLOW_THREADS
    status = remac_encode(&model, a.length[0], a.view[0].buf, a.view[1].buf, (unsigned)a.integer[0], a.view[6].buf, a.length[6], &offset);
    Py_END_ALLOW_THREADS
    return release(&a, Py_BuildValue("in", (int)status, (Py_ssize_t)offset));
}

/* decoder_start(decoder u32[DECODER_WORDS], band u8, lanes_log2) -> status */
static PyObject *py_decoder_start(PyObject *self, PyObject *args)
{
    static const spec wanted[] = {{4, ANY, 1}, {1, ANY, 0}};
    arguments a;
    (void)self;
    if (!take(&a, args, wanted, 2, 1) || !require(&a, a.length[0] * 4 == sizeof(remac_decoder), "the decoder's state has the wrong size"))
        return NULL;
    return release(&a, PyLong_FromLong(remac_decoder_start(a.view[0].buf, a.view[1].buf, a.length[1], (unsigned)a.integer[0])));
}

/* 1 if the first buffer is a decoder's state, and those from `first` on are the first, start, cdf and lookup of as many tables. */
static int decoder_fits(arguments *held, int first)
{
    const size_t *const tables = held->length + first;
    return require(held, held->length[0] * 4 == sizeof(remac_decoder), "the decoder's state has the wrong size")
           && require(held, tables[1] == tables[0] + 1 && tables[3] == tables[0] * REMAC_LOOKUP_SIZE, "start or lookup does not fit first");
}

/* decode(decoder u32[DECODER_WORDS], band u8, tables u16[n], symbols i32[n], first, start, cdf, lookup u16[T, LOOKUP_SIZE]) -> status */
static PyObject *py_decode(PyObject *self, PyObject *args)
{
    static const spec wanted[] = {{4, ANY, 1}, {1, ANY, 0}, {2, ANY, 0}, {4, 2, 1}, {4, ANY, 0}, {4, ANY, 0}, {2, ANY, 0}, {2, ANY, 0}};
    arguments a;
    remac_status status;
    (void)self;
    if (!take(&a, args, wanted, 8, 0) || !decoder_fits(&a, 4))
        return NULL;
    const remac_tables model = {a.view[4].buf, a.view[5].buf, a.view[6].buf, NULL, a.view[7].buf, (uint32_t)a.length[4]};
    Py_BEGIN_ALLOW_THREADS
    status = remac_decode(a.view[0].buf, &model, a.view[1].buf, a.length[1], a.length[2], a.view[2].buf, a.view[3].buf);
    Py_END_ALLOW_THREADS
    return release(&a, PyLong_FromLong(status));
}

/* decode_latents(decoder u32[DECODER_WORDS], band u8, score i16[64, 16], channel i32[channels], level u16, symbols i32, first, start, cdf,
 * lookup u16[T, LOOKUP_SIZE], coded_from, offset) -> status */
static PyObject *py_decode_latents(PyObject *self, PyObject *args)
{
    static const spec wanted[] = {{4, ANY, 1}, {1, ANY, 0}, {2, ANY, 0}, {4, ANY, 1}, {2, ANY, 1}, {4, 4, 1}, {4, ANY, 0}, {4, ANY, 0}, {2, ANY, 0},
                                  {2, ANY, 0}};
    arguments a;
    remac_status status;
    (void)self;
    if (!take(&a, args, wanted, 10, 2) || !decoder_fits(&a, 6) || !adaptation_fits(&a, 2, 3, 4))
        return NULL;
    const remac_tables model = {a.view[6].buf, a.view[7].buf, a.view[8].buf, NULL, a.view[9].buf, (uint32_t)a.length[6]};
    const remac_adaptation adaptation = {a.view[2].buf, a.view[3].buf, a.length[3], (int32_t)a.integer[0], (uint16_t)a.integer[1]};
    Py_BEGIN_ALLOW_THREADS
    status = remac_decode_latents(a.view[0].buf, &model, a.view[1].buf, a.length[1], &adaptation, a.length[4] / a.length[3], a.view[4].buf,
                                  a.view[5].buf);
    Py_END_ALLOW_THREADS
    return release(&a, PyLong_FromLong(status));
}

/* decoder_finish(decoder u32[DECODER_WORDS], band u8) -> status */
static PyObject *py_decoder_finish(PyObject *self, PyObject *args)
{
    static const spec wanted[] = {{4, ANY, 0}, {1, ANY, 0}};
    arguments a;
    (void)self;
    if (!take(&a, args, wanted, 2, 0) || !require(&a, a.length[0] * 4 == sizeof(remac_decoder), "the decoder's state has the wrong size"))
        return NULL;
    return release(&a, PyLong_FromLong(remac_decoder_finish(a.view[0].buf, a.length[1])));
}

static PyMethodDef methods[] = {
    {"crc32c", py_crc32c, METH_VARARGS, "(data, value) -> CRC"},
    {"requantise", py_requantise, METH_VARARGS, "(shift, acc)"},
    {"scale_level", py_scale_level, METH_VARARGS, "(scale, scale_offset, level)"},
    {"quantise", py_quantise, METH_VARARGS, "(gain, inverse_gain, scale_offset, context_shift, rounding, y, mu, scale, symbols, level, plane, y_hat, "
                                            "coded_from)"},
    {"dequantise", py_dequantise, METH_VARARGS, "(inverse_gain, context_shift, mu, symbols, y_hat, plane)"},
    {"collect", py_collect, METH_VARARGS, "(score, channel, symbols, level, out_symbols, out_tables, coded_from, offset) -> count"},
    {"encode", py_encode, METH_VARARGS, "(symbols, tables, first, start, cdf, reciprocal, out, lanes_log2) -> (status, offset)"},
    {"decoder_start", py_decoder_start, METH_VARARGS, "(decoder, band, lanes_log2) -> status"},
    {"decode", py_decode, METH_VARARGS, "(decoder, band, tables, symbols, first, start, cdf, lookup) -> status"},
    {"decode_latents", py_decode_latents, METH_VARARGS, "(decoder, band, score, channel, level, symbols, first, start, cdf, lookup, coded_from, "
                                                        "offset) -> status"},
    {"decoder_finish", py_decoder_finish, METH_VARARGS, "(decoder, band) -> status"},
    {"layer", py_layer, METH_VARARGS, "(weight, bias, shift, numbers, scratch, out, source, ...)"},
    {"analyse", py_analyse, METH_VARARGS, "(memory, pixels, y, z, texture, semantic, weight, bias, shift, ..., height, width, path)"},
    {"path_usable", py_path_usable, METH_VARARGS, "(path) -> 1 or 0"},
    {"path_best", py_path_best, METH_NOARGS, "() -> path"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_native", "The layers, the element-wise steps and the entropy coder in C.", 0, methods,
                                        NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module != NULL && (PyModule_AddIntConstant(module, "INTERFACE", INTERFACE) != 0
                           || PyModule_AddIntConstant(module, "DECODER_WORDS", (long)(sizeof(remac_decoder) / 4)) != 0)) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
