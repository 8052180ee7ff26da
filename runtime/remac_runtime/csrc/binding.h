/* SPDX-License-Identifier: MIT */
/* What the functions of the extension share: taking buffers and integers, and giving them back. */
#ifndef REMAC_BINDING_H
#define REMAC_BINDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

#define BUFFERS_MAX 32
#define INTEGERS_MAX 3
#define ANY (-1)

/* What a function takes: per buffer the bytes of an element, the earlier buffer that has as many elements (or ANY), and whether it is written. */
typedef struct {
    Py_ssize_t item;
    int like;
    int written;
} spec;

typedef struct {
    Py_buffer view[BUFFERS_MAX];
    size_t length[BUFFERS_MAX]; /* in elements */
    unsigned long integer[INTEGERS_MAX];
    int count;
} arguments;

static inline PyObject *release(arguments *held, PyObject *result)
{
    while (held->count > 0)
        PyBuffer_Release(&held->view[--held->count]);
    return result;
}

static inline int take_buffer(arguments *held, PyObject *object, const spec *wanted)
{
    Py_buffer *view = &held->view[held->count];
    if (PyObject_GetBuffer(object, view, wanted->written ? PyBUF_WRITABLE : PyBUF_SIMPLE) != 0)
        return 0;
    held->length[held->count++] = (size_t)(view->len / wanted->item);
    if (view->len % wanted->item == 0 && (uintptr_t)view->buf % (uintptr_t)wanted->item == 0
        && (wanted->like == ANY || held->length[held->count - 1] == held->length[wanted->like]))
        return 1;
    PyErr_Format(PyExc_ValueError, "argument %d: a buffer of %zd bytes has the wrong size or alignment", held->count, view->len);
    return 0;
}

/* 1 if all arguments were taken; 0 with an exception set and everything released. */
static inline int take(arguments *held, PyObject *args, const spec *wanted, int buffers, int integers)
{
    held->count = 0;
    if (PyTuple_Size(args) != buffers + integers) {
        PyErr_Format(PyExc_TypeError, "%d arguments expected", buffers + integers);
        return 0;
    }
    for (int i = 0; i < buffers; i++) {
        if (!take_buffer(held, PyTuple_GetItem(args, i), &wanted[i])) {
            release(held, NULL);
            return 0;
        }
    }
    for (int i = 0; i < integers; i++) {
        held->integer[i] = PyLong_AsUnsignedLong(PyTuple_GetItem(args, buffers + i));
        if (PyErr_Occurred() != NULL) {
            release(held, NULL);
            return 0;
        }
    }
    return 1;
}

/* 1 if `holds`; else 0 with an exception set and everything released. */
static inline int require(arguments *held, int holds, const char *message)
{
    if (holds)
        return 1;
    PyErr_SetString(PyExc_ValueError, message);
    release(held, NULL);
    return 0;
}

/* module_layers.c */
PyObject *py_layer(PyObject *self, PyObject *args);
PyObject *py_analyse(PyObject *self, PyObject *args);
PyObject *py_path_usable(PyObject *self, PyObject *args);
PyObject *py_path_best(PyObject *self, PyObject *args);

#endif
