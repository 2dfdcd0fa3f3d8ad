#include "allocations.h"

#include <stdbool.h>
#include <stdlib.h>

long allocations, live;
static long failing_from = -1;

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t n, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__real_aligned_alloc(size_t align, size_t bytes);
void __real_free(void *memory);

static bool fails(void)
{
    return allocations++ >= failing_from && failing_from >= 0;
}

static void *count(void *memory)
{
    live += memory != NULL;
    return memory;
}

void *__wrap_malloc(size_t bytes)
{
    return fails() ? NULL : count(__real_malloc(bytes));
}

void *__wrap_calloc(size_t n, size_t bytes)
{
    return fails() ? NULL : count(__real_calloc(n, bytes));
}

void *__wrap_aligned_alloc(size_t align, size_t bytes)
{
    return fails() ? NULL : count(__real_aligned_alloc(align, bytes));
}

void *__wrap_realloc(void *old, size_t bytes)
{
    if (fails()) return NULL;
    void *memory = __real_realloc(old, bytes);
    if (memory && old) live--;
    return count(memory);
}

void __wrap_free(void *memory)
{
    live -= memory != NULL;
    __real_free(memory);
}

void set_failing(long from)
{
    allocations = 0;
    failing_from = from;
}
