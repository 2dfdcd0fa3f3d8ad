#include "team.h"

#include <stdint.h>

#include "fail.h"
#include "workspace.h"

#ifdef _OPENMP
#include <omp.h>
#endif

static int wanted(ptrdiff_t work)
{
    int threads = qkv_get_num_threads();
#ifdef _OPENMP
    if (omp_in_parallel()) threads = 1; /* the caller has parallelised already */
#endif
    return work < threads ? (int)work : threads;
}

size_t qkv_team_bytes(size_t share, size_t common, ptrdiff_t work)
{
    size_t bytes = share;
    bool fits = share != SIZE_MAX && common != SIZE_MAX && qkv_size_mul(&bytes, wanted(work)) &&
                qkv_size_add(&bytes, common) && qkv_size_add(&bytes, QKV_ALIGN - 1);
    return fits ? bytes : SIZE_MAX;
}

qkv_status qkv_team_of(const char *who, size_t share, size_t common, ptrdiff_t work,
                       void *workspace, size_t bytes, qkv_team *team)
{
    char *aligned = qkv_align(workspace);
    size_t lost = (size_t)(aligned - (char *)workspace) + common;
    size_t shares = workspace && bytes > lost ? (bytes - lost) / share : 0;
    if (shares == 0)
        return qkv_fail(QKV_E_ARG,
                        "%s: the workspace %s %zu bytes, expected at least %zu "
                        "(qkv_attention_workspace, or qkv_ragged_workspace, tells)",
                        who, workspace ? "has" : "is NULL and has", bytes,
                        common + share + QKV_ALIGN - 1);
    int threads = wanted(work);
    *team = (qkv_team){.threads = shares < (size_t)threads ? (int)shares : threads,
                       .memory = aligned,
                       .common = common,
                       .share = share};
    return QKV_OK;
}

static void *share_of(const qkv_team *team, int thread)
{
    return team->memory + team->common + (size_t)thread * team->share;
}

void qkv_team_run(const qkv_team *team, int threads, void (*run)(void *job, void *memory),
                  void *job)
{
    if (threads == 1) {
        run(job, share_of(team, 0));
        return;
    }
#ifdef _OPENMP
#pragma omp parallel num_threads(threads)
    run(job, share_of(team, omp_get_thread_num()));
#endif
}

ptrdiff_t qkv_team_take(ptrdiff_t *taken)
{
    return __atomic_fetch_add(taken, 1, __ATOMIC_RELAXED);
}
