#include "isa.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "src/fail.h"

#define NAME(isa) #isa
static const char *const names[] = {QKV_EACH_ISA(NAME)};
enum { ISAS = sizeof names / sizeof *names };

/* May this process run it? The first of the list runs wherever the library does. */
static bool available(int index)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (!strcmp(names[index], "avx512")) return avx512;
    return strcmp(names[index], "avx2") || avx2;
#else
    return index == 0;
#endif
}

/* The index, -1 if QKV_ISA names none, -2 - i if it names one that the processor lacks. */
static int find(void)
{
    const char *wanted = getenv("QKV_ISA");
    if (!wanted || !*wanted) {
        int best = ISAS - 1;
        while (!available(best)) best--;
        return best;
    }
    for (int i = 0; i < ISAS; i++)
        if (!strcmp(wanted, names[i])) return available(i) ? i : -2 - i;
    return -1;
}

qkv_status qkv_isa_find(const char *who, int *index)
{
    enum { UNKNOWN = 1000 };
    static atomic_int found = UNKNOWN; /* looked up once: one process, one instruction set */
    *index = atomic_load_explicit(&found, memory_order_relaxed);
    if (*index == UNKNOWN) {
        *index = find();
        atomic_store_explicit(&found, *index, memory_order_relaxed);
    }
    if (*index >= 0) return QKV_OK;
    if (*index < -1)
        return qkv_fail(QKV_E_ARG, "%s: QKV_ISA asks for %s, which this processor does not have",
                        who, names[-2 - *index]);
    char list[64] = "";
    for (int i = 0; i < ISAS; i++) strcat(strcat(list, i ? ", " : ""), names[i]);
    return qkv_fail(QKV_E_ARG, "%s: the environment variable QKV_ISA names none of: %s", who, list);
}

const char *qkv_isa(void)
{
    int index;
    return qkv_isa_find("qkv_isa", &index) ? NULL : names[index];
}
