/* gradcheck.h - what the parts of gradcheck share. */
#ifndef QKV_EXAMPLES_GRADCHECK_H
#define QKV_EXAMPLES_GRADCHECK_H

#include "common.h"
#include "grad/gradcheck_op.h"

/* ---- gradcheck_corrupt.c: ways in which gradients go wrong ---- */

/* Applies corruption kind (0 .. corruption_count - 1) to true gradients. False if it changes none
 * of them by more than the check claims to see. */
bool corrupt(const qkv_trial *trial, int kind, uint64_t seed);
int corruption_count(void);
const char *corruption_name(int kind);
/* All corruptions of all cases, over seeds and hostile inputs, through the check. Whether every one
 * was caught, and nothing else: what else was goes into a file in the directory replay_to. */
bool self_test(uint64_t seed, long seeds, const char *replay_to);

/* ---- gradcheck_replay.c: a failed case as a file ---- */

/* Writes the case, as it was judged, to directory/OP.replay, and says so. */
void save_replay(const char *directory, int op, const qkv_op_case *test, const qkv_trial *trial,
                 const qkv_check_report *report);
/* Judges what the file claims, and what the library says of the same inputs now. Whether the second
 * is right. */
bool replay(const char *path);

#endif
