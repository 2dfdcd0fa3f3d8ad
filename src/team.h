/* team.h - how many threads a call runs on, and each one's share of the workspace. */
#ifndef QKV_SRC_TEAM_H
#define QKV_SRC_TEAM_H

#include <stddef.h>

#include "qkv/status.h"

typedef struct qkv_team {
    int threads;
    char *memory; /* aligned: first `common` bytes for all, then a share for each thread */
    size_t common, share;
} qkv_team;

/* As many threads as the settings, the pieces of work and the workspace allow. QKV_E_ARG if the
 * workspace does not hold one thread's share. */
qkv_status qkv_team_of(const char *who, size_t share, size_t common, ptrdiff_t work,
                       void *workspace, size_t bytes, qkv_team *team);

/* Calls run(job, memory) on `threads` of the team's threads at once, each with its share of the
 * workspace; here and now if that is one: even a parallel region of one takes a microsecond. */
void qkv_team_run(const qkv_team *team, int threads, void (*run)(void *job, void *memory),
                  void *job);

/* The next piece of work, 0, 1, ..: each number goes to one caller, in ascending order. */
ptrdiff_t qkv_team_take(ptrdiff_t *taken);

/* The workspace a full team needs, alignment included; SIZE_MAX on overflow. */
size_t qkv_team_bytes(size_t share, size_t common, ptrdiff_t work);

#endif
