/* gradcheck - the proof of every gradient in the registry, with its figures. */
#include <getopt.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gradcheck.h"
#include "src/file.h"

enum { OP, SEED, JSON, SELF_TEST, SEEDS, CORRUPT, REPLAY, REPLAY_TO };

static const command gradcheck = {
    "",
    "Checks the gradient of every operation of the tape against differences of its value: each "
    "element, whole gradients along random directions, and float against double. Exits with 1 if "
    "one is wrong.",
    (const command_option[]){
        [OP] = {"op", "NAME", "Only this operation; 'list' lists them."},
        [SEED] = {"seed", "N", "Of the inputs and directions (default: 1)."},
        [JSON] = {"json", "FILE", "Write the figures here, too."},
        [SELF_TEST] = {"self-test", NULL,
                       "Test the check instead: corrupt true gradients in many ways. All must be "
                       "caught, and no true one be refused."},
        [SEEDS] = {"seeds", "N", "Of the self-test (default: 3)."},
        [CORRUPT] = {"corrupt", "NAME",
                     "Corrupt the gradients first, to see a failure; 'list' lists the ways."},
        [REPLAY] = {"replay", "FILE", "Run a failure again."},
        [REPLAY_TO] = {"replay-to", "DIR",
                       "Where to write NAME.replay of an operation that fails (default: .)."},
        {NULL, NULL, NULL}}};

typedef struct settings {
    const char *op, *json, *replay, *replay_to;
    uint64_t seed;
    long seeds;
    bool self_test;
    int corruption; /* -1: none */
    bool given[REPLAY_TO + 1];
} settings;

/* The index of a name among n; "list" prints them and exits. */
static int find(const char *option, const char *name, int n, const char *(*name_of)(int))
{
    for (int i = 0; i < n; i++)
        if (!strcmp(name, name_of(i))) return i;
    if (strcmp(name, "list") != 0)
        usage_error("--%s: '%s' is none of what --%s list lists", option, name, option);
    for (int i = 0; i < n; i++) say("%s", name_of(i));
    exit(finish());
}

/* What would be read past in silence. */
static void refuse_what_does_not_go_together(const settings *s)
{
    static const bool for_self_test
        [REPLAY_TO +
         1] = {[SELF_TEST] = true, [SEED] = true, [SEEDS] = true, [REPLAY_TO] = true},
         for_replay[REPLAY_TO + 1] = {[REPLAY] = true},
         for_check[REPLAY_TO + 1] = {
             [OP] = true, [SEED] = true, [JSON] = true, [CORRUPT] = true, [REPLAY_TO] = true};
    const bool *goes = s->replay ? for_replay : s->self_test ? for_self_test : for_check;
    const char *with = s->replay ? "with --replay" : s->self_test ? "with --self-test" : "alone";
    for (int i = 0; i <= REPLAY_TO; i++)
        if (s->given[i] && !goes[i])
            usage_error("--%s does not go %s", gradcheck.options[i].name, with);
}

static settings read_settings(int argc, char **argv)
{
    settings s = {.seed = 1, .seeds = 3, .corruption = -1, .replay_to = "."};
    for (int option; (option = command_next(&gradcheck, argc, argv)) >= 0; s.given[option] = true)
        switch (option) {
        case OP:
            s.op = qkv_op_name(find("op", optarg, qkv_op_count(), qkv_op_name));
            break;
        case SEED:
            s.seed = (uint64_t)integer_argument("seed", optarg, 0, 1L << 62);
            break;
        case JSON:
            s.json = path_argument("json", optarg);
            break;
        case SELF_TEST:
            s.self_test = true;
            break;
        case SEEDS:
            s.seeds = integer_argument("seeds", optarg, 1, 1000000);
            break;
        case CORRUPT:
            s.corruption = find("corrupt", optarg, corruption_count(), corruption_name);
            break;
        case REPLAY:
            s.replay = path_argument("replay", optarg);
            break;
        default:
            s.replay_to = text_argument("replay-to", optarg);
        }
    if (optind < argc) usage_error("'%s' is not expected", argv[optind]);
    refuse_what_does_not_go_together(&s);
    return s;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct line {
    int op;
    qkv_check_report report;
    double seconds;
} line;

static void apply(void *context, const qkv_trial *trial)
{
    const settings *s = context;
    corrupt(trial, s->corruption, s->seed);
}

/* The operation case by case; the file of the first that fails. */
static bool check_cases(const settings *s, line *l)
{
    const qkv_corruption corruption = {apply, (void *)s};
    for (const qkv_op_case *test = qkv_registry[l->op].cases; test->n_input; test++) {
        qkv_trial trial;
        check(qkv_trial_begin(&trial, test, s->seed, 1));
        bool wrong = qkv_gradcheck_trial(&trial, s->corruption < 0 ? NULL : &corruption,
                                         &l->report) != QKV_OK;
        if (wrong) {
            say("%s: %s", qkv_case_name(l->op, test), l->report.message);
            save_replay(s->replay_to, l->op, test, &trial, &l->report);
        }
        qkv_trial_end(&trial);
        if (wrong) return false;
    }
    return true;
}

static void print_line(const line *l)
{
    const qkv_check_report *r = &l->report;
    printf("%-15s %8zu %8.1e %8.1e %10zu %11.1e %9.2f %6g %7.1f\n", qkv_op_name(l->op), r->checked,
           r->error, r->bound, r->directions, r->certificate, r->float_error, r->float_bound,
           l->seconds * 1e3);
}

/* JSON has no other word for what is no number. */
static void write_number(FILE *out, const char *name, double x)
{
    if (isfinite(x))
        fprintf(out, ", \"%s\": %.9g", name, x);
    else
        fprintf(out, ", \"%s\": null", name);
}

static void write_json(FILE *out, const settings *s, const line *lines, int n)
{
    fprintf(out, "{\"seed\": %llu, \"delta\": %g, \"operations\": [", (unsigned long long)s->seed,
            QKV_CHECK_DELTA);
    for (int i = 0; i < n; i++) {
        const qkv_check_report *r = &lines[i].report;
        fprintf(out,
                "%s\n  {\"op\": \"%s\", \"passed\": %s, \"checked\": %zu, \"failed\": %zu, "
                "\"inconclusive\": %zu, \"directions\": %zu",
                i ? "," : "", qkv_op_name(lines[i].op), r->passed ? "true" : "false", r->checked,
                r->failed, r->inconclusive, r->directions);
        write_number(out, "error", r->error);
        write_number(out, "bound", r->bound);
        write_number(out, "certificate", r->directions ? r->certificate : NAN);
        write_number(out, "error_norm", r->directions ? r->error_norm : NAN);
        write_number(out, "float_error", r->float_error);
        write_number(out, "float_bound", r->float_bound);
        fprintf(out, ", \"seconds\": %.6f}", lines[i].seconds);
    }
    fprintf(out, "\n]}\n");
}

static bool check_all(const settings *s)
{
    line *lines = allocate((size_t)qkv_op_count(), sizeof *lines);
    int n = 0, wrong = 0;
    size_t elements = 0;
    double begin = seconds();
    qkv_output out;
    if (s->json) check(qkv_output_open(&out, s->json, "--json"));
    printf("%-15s %8s %8s %8s %10s %11s %9s %6s %7s\n", "operation", "elements", "worst", "bound",
           "directions", "certificate", "float eps", "bound", "ms");
    for (int op = 0; op < qkv_op_count(); op++) {
        if (s->op && strcmp(s->op, qkv_op_name(op))) continue;
        line *l = &lines[n++];
        *l = (line){.op = op};
        double start = seconds();
        bool right = s->corruption < 0 && qkv_gradcheck_op(op, s->seed, &l->report) == QKV_OK;
        if (!right && check_cases(s, l)) {
            right = s->corruption >= 0;
            if (!right) say("%s", qkv_last_error());
        }
        l->seconds = seconds() - start;
        l->report.passed = right;
        wrong += !right;
        elements += l->report.checked;
        if (right) print_line(l);
    }
    say("%d operation%s, %zu elements: %d wrong; %.2f s", n, n == 1 ? "" : "s", elements, wrong,
        seconds() - begin);
    say("each certificate holds with a confidence of 1 - %g", QKV_CHECK_DELTA);
    if (s->json) {
        write_json(out.stream, s, lines, n);
        check(qkv_output_commit(&out, "--json"));
        say("wrote %s", s->json);
    }
    free(lines);
    return !wrong;
}

int main(int argc, char **argv)
{
    clean_up_on_signals();
    settings s = read_settings(argc, argv);
    bool right = s.replay      ? replay(s.replay)
                 : s.self_test ? self_test(s.seed, s.seeds, s.replay_to)
                               : check_all(&s);
    int status = finish();
    return right ? status : EXIT_FAILED;
}
