/* allocations.h - every allocation of the library is counted, and can be made to fail: for programs
 * whose linker sends its calls here (tests/CMakeLists.txt). One thread at a time. */
#ifndef QKV_TESTS_ALLOCATIONS_H
#define QKV_TESTS_ALLOCATIONS_H

extern long allocations; /* since set_failing */
extern long live;        /* not yet freed */

/* Allocation number `from`, from now on, and all after it fail; -1: none. */
void set_failing(long from);

#endif
