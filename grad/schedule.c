/* schedule.c - the rate of learning by the number of the step. */
#include <math.h>
#include <stdbool.h>

#include "qkv/optim.h"

static bool is_rate(double x)
{
    return x >= 0 && x < (double)INFINITY;
}

double qkv_schedule_rate(const qkv_schedule *schedule, ptrdiff_t step)
{
    if (!schedule || step < 0 || schedule->warmup < 0 || schedule->steps < 0) return NAN;
    if (!is_rate(schedule->rate) || !is_rate(schedule->last)) return NAN;
    const double rate = schedule->rate == 0 ? 0.001 : schedule->rate, last = schedule->last;
    const double t = (double)step + 1, warmup = (double)schedule->warmup;
    const double decays = (double)schedule->steps - warmup; /* so many steps */
    switch (schedule->decay) {
    case QKV_DECAY_NONE:
        return t < warmup ? rate * t / warmup : rate;
    case QKV_DECAY_COSINE:
        if (decays <= 0) return NAN;
        if (t < warmup) return rate * t / warmup;
        if (t - warmup >= decays) return last;
        return last + (rate - last) * (1 + cos(M_PI * (t - warmup) / decays)) / 2;
    case QKV_DECAY_INVERSE_SQRT:
        return t < warmup ? rate * t / warmup : rate * sqrt((warmup < 1 ? 1 : warmup) / t);
    }
    return NAN;
}
