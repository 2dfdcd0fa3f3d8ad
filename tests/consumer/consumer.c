/* consumer.c - the smallest program that uses qkv from outside; compiled as C and as C++. */
#include <stdio.h>

#include <qkv/qkv.h>

#if __has_include("src/fail.h")
#error "qkv's own include directories reach its consumers"
#endif

int main(void)
{
    const float q[] = {1, 0}, k[] = {1, 0, 0, 1}, v[] = {3, 7};
    float o[] = {0};
    static qkv_attention a; /* all zero */
    a.batch = a.heads = a.n_q = a.d_v = 1;
    a.n_k = a.d_k = 2;
    a.normalize = QKV_HARD; /* the first key fits best: its value is the answer */
    if (qkv_attend_f32(&a, q, k, v, o)) return fprintf(stderr, "%s\n", qkv_last_error()), 1;
    printf("qkv %s answers %g\n", qkv_version(), (double)o[0]);
    return o[0] != 3;
}
