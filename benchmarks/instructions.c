/* SPDX-License-Identifier: MIT */
/*
 * A TCG plug-in for qemu-user (plug-in interface 1, QEMU 6 to 8): guest instructions executed, by function of the program. The declarations stand for
 * QEMU's header, which distributions do not ship.
 *
 *     gcc -O2 -shared -fPIC -o instructions.so instructions.c
 *     qemu-ppc -plugin ./instructions.so -d plugin -D counts.txt program      (qemu-user, not qemu-user-static; the program with its symbols)
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef struct qemu_info_t qemu_info_t;
extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int operation, void *counter, uint64_t step);
extern void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *), void *);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const char *qemu_plugin_insn_symbol(const struct qemu_plugin_insn *);
extern void qemu_plugin_outs(const char *);

#define EXPORTED __attribute__((visibility("default")))
#define FUNCTIONS 4096

EXPORTED int qemu_plugin_version = 1;

static struct {
    char name[64];
    uint64_t count;
} functions[FUNCTIONS]; /* the last one stands for all that do not fit */

static uint64_t *counter_of(const char *name)
{
    size_t i = 0;
    while (i < FUNCTIONS - 1 && functions[i].name[0] != '\0' && strncmp(functions[i].name, name, sizeof functions[i].name - 1) != 0)
        i++;
    snprintf(functions[i].name, sizeof functions[i].name, "%s", name);
    return &functions[i].count;
}

/* A block of instructions belongs to the function of its first. */
static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    const char *const symbol = qemu_plugin_insn_symbol(qemu_plugin_tb_get_insn(block, 0));
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(block, 0, counter_of(symbol != NULL && symbol[0] != '\0' ? symbol : "?"), qemu_plugin_tb_n_insns(block));
}

static void at_exit(qemu_plugin_id_t id, void *unused)
{
    (void)id, (void)unused;
    for (size_t i = 0; i < FUNCTIONS && functions[i].name[0] != '\0'; i++) {
        char line[128];
        snprintf(line, sizeof line, "%s %llu\n", functions[i].name, (unsigned long long)functions[i].count);
        qemu_plugin_outs(line);
    }
}

EXPORTED int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int count, char **arguments)
{
    (void)info, (void)count, (void)arguments;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, at_exit, NULL);
    return 0;
}
