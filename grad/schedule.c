/* schedule.c - the rate of learning by the number of the step. */
#include <math.h>
#include <stdbool.h>

#include "qkv/optim.h"

static bool is_rate(double x)
{
    return x >= 0 && x < (double)INFINITY;
}

/* 1 up to 0, 0 from 1 on. */
static double half_cosine(double x)
{
    return (1 + cos(M_PI * fmin(fmax(x, 0), 1))) / 2;
}

double qkv_schedule_rate(const qkv_schedule *schedule, ptrdiff_t step)
{
    if (!schedule || step < 0 || schedule->warmup < 0 || schedule->steps < 0) return NAN;
    if (!is_rate(schedule->rate) || !is_rate(schedule->last)) return NAN;
    const double rate = schedule->rate == 0 ? 0.001 : schedule->rate, last = schedule->last;
    const double t = (double)step + 1, warmup = (double)schedule->warmup;
    const double rise = fmin(t / warmup, 1), decays = (double)schedule->steps - warmup;
    switch (schedule->decay) {
    case QKV_DECAY_NONE:
        return rise * rate;
    case QKV_DECAY_COSINE:
        if (decays <= 0) return NAN;
        return rise * (last + (rate - last) * half_cosine((t - warmup) / decays));
    case QKV_DECAY_INVERSE_SQRT:
        return rise * rate * fmin(sqrt(fmax(warmup, 1) / t), 1);
    }
    return NAN;
}
