/* SPDX-License-Identifier: MIT */
/*
 * LD_PRELOAD library that hides instruction sets of an x86 processor, so that a program takes the code paths of an older one at native speed:
 *
 *     cc -O2 -shared -fPIC -o cpumask.so cpumask.c
 *     CPUMASK=avx512 LD_PRELOAD=./cpumask.so python ...     AVX-512 without VNNI
 *     CPUMASK=haswell ...                                   AVX2, no AVX-512
 *     CPUMASK=nehalem ...                                   SSE4.2, no AVX
 *
 * CPUID is made to fault (arch_prctl ARCH_CPUID, which needs the processor flag cpuid_fault) and answered with bits taken out. It breaks programs that
 * install a handler of SIGSEGV themselves.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_CPUID 0x1012

enum { SHOW_ALL, NO_VNNI, HASWELL, NEHALEM };

static int mode = SHOW_ALL;

static void cpuid(unsigned leaf, unsigned subleaf, unsigned *r)
{
    __asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(subleaf));
}

static void hide(unsigned leaf, unsigned subleaf, unsigned *r)
{
    if (leaf == 7 && subleaf == 0) {
        /* ecx: AVX512_VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ; edx: AMX-BF16, AVX512_FP16, AMX-TILE, AMX-INT8 */
        r[2] &= ~(1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14);
        r[3] &= ~(1u << 22 | 1u << 23 | 1u << 24 | 1u << 25);
        if (mode >= HASWELL) /* AVX512F, DQ, IFMA, PF, ER, CD, BW, VL */
            r[1] &= ~(1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 30 | 1u << 31);
        if (mode >= NEHALEM) /* AVX2 */
            r[1] &= ~(1u << 5);
    } else if (leaf == 7 && subleaf == 1) { /* AVX-VNNI, AVX512_BF16, AMX-FP16, AVX-IFMA; AVX-VNNI-INT8, AVX-NE-CONVERT, AVX-VNNI-INT16, AVX10 */
        r[0] &= ~(1u << 4 | 1u << 5 | 1u << 21 | 1u << 23);
        r[3] &= ~(1u << 4 | 1u << 5 | 1u << 10 | 1u << 19);
    } else if (leaf == 1 && mode >= NEHALEM) { /* FMA, AVX, F16C */
        r[2] &= ~(1u << 12 | 1u << 28 | 1u << 29);
    }
}

static void on_fault(int number, siginfo_t *info, void *context)
{
    greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *code = (const unsigned char *)g[REG_RIP];
    (void)number;
    (void)info;
    if (code[0] != 0x0f || code[1] != 0xa2) { /* not CPUID: a real fault, which comes again */
        signal(SIGSEGV, SIG_DFL);
        return;
    }
    const unsigned leaf = (unsigned)g[REG_RAX], subleaf = (unsigned)g[REG_RCX];
    unsigned r[4];
    syscall(SYS_arch_prctl, ARCH_CPUID, 1);
    cpuid(leaf, subleaf, r);
    syscall(SYS_arch_prctl, ARCH_CPUID, 0);
    hide(leaf, subleaf, r);
    g[REG_RAX] = r[0];
    g[REG_RBX] = r[1];
    g[REG_RCX] = r[2];
    g[REG_RDX] = r[3];
    g[REG_RIP] += 2;
}

__attribute__((constructor)) static void start(void)
{
    const char *wish = getenv("CPUMASK");
    if (wish == NULL)
        return;
    mode = !strcmp(wish, "avx512") ? NO_VNNI : !strcmp(wish, "haswell") ? HASWELL : !strcmp(wish, "nehalem") ? NEHALEM : SHOW_ALL;
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    if (mode != SHOW_ALL) {
        sigaction(SIGSEGV, &action, NULL);
        syscall(SYS_arch_prctl, ARCH_CPUID, 0);
    }
}
