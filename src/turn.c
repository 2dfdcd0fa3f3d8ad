#include "turn.h"

#include <sched.h>

static void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void wait_for(const ptrdiff_t *count, ptrdiff_t n)
{
    enum { SPINS = 2000 }; /* some 50 microseconds: more than a tile takes; then others may run */
    for (int spins = 0; __atomic_load_n(count, __ATOMIC_ACQUIRE) < n; spins++)
        spins < SPINS ? pause_briefly() : (void)sched_yield();
}

void qkv_turn_wait(const qkv_turn *t, ptrdiff_t n)
{
    if (t->passed && !t->first) wait_for(t->passed + t->item - 1, n);
}

void qkv_order_wait(const ptrdiff_t *through, ptrdiff_t n)
{
    wait_for(through, n);
}

void qkv_order_pass(ptrdiff_t *through, ptrdiff_t n)
{
    __atomic_store_n(through, n + 1, __ATOMIC_RELEASE);
}

void qkv_turn_pass(const qkv_turn *t, ptrdiff_t n)
{
    if (t->passed) __atomic_store_n(t->passed + t->item, n, __ATOMIC_RELEASE);
}

void qkv_turn_end(const qkv_turn *t)
{
    qkv_turn_wait(t, PTRDIFF_MAX);
    qkv_turn_pass(t, PTRDIFF_MAX);
}
