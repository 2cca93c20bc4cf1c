/* Checks of plans, as far as possible without a GPU: the numbers that products are checked with,
 * what the search does with an engine that fails, and searches on several threads.
 * spec/cuda/products_on_gpu.c tests what needs a GPU: running a plan, and cuBLASLt's algorithms.
 * spec/cuda/check.cpp tests the comparison. */
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../c/dnn_check.h"
#include "backend/cuda/check_numbers.h"
#include "backend/cuda/dnn_cache.h"
#include "backend/cuda/inspect.h"
#include "devices.h"

/* ---- Numbers ---- */

static int bits_in(uint32_t x) {
  int n = 0;
  for (; x > 0; x /= 2) n++;
  return n;
}

/* Sums products in order, and in parts of 1000: magnitudes stay below the limit. In types with
 * enough bits they come so close to it that lost bits would be noticed. */
static void sum_up(uint64_t terms, mptl_cuda_type first, mptl_cuda_type second, int capability,
                   int turn, double limit) {
  mptl_cuda_check_numbers n = mptl_cuda_check_numbers_of(terms, first, second, capability, turn);
  const char *names[] = {mptl_cuda_type_name(first), mptl_cuda_type_name(second)};
  const mptl_whole *wide = turn == 0 ? &n.first : &n.second,
                   *other = turn == 0 ? &n.second : &n.first;
  static const int bits[MPTL_CUDA_TYPES] = {13, 11, 8, 4, 3};
  CHECK(bits_in(wide->largest) == bits[turn == 0 ? first : second] && wide->thinning == 0,
        "%s by %s, %llu terms: %u", names[0], names[1], (unsigned long long)terms, wide->largest);
  CHECK(other->largest >= 1 && bits_in(other->largest) <= bits[turn == 0 ? second : first],
        "%s by %s: %u", names[0], names[1], other->largest);
  int64_t sum = 0, part = 0;
  double largest = 0;
  for (uint64_t i = 0; i < terms; i++) {
    int64_t product =
        (int64_t)mptl_whole_number(&n.first, i) * mptl_whole_number(&n.second, i * 7 + 3);
    sum += product, part = i % 1000 == 0 ? product : part + product;
    largest = fmax(largest, fmax(fabs((double)sum), fabs((double)part)));
  }
  const char *what = names[0];
  CHECK(largest < limit, "%s, %llu terms: sums up to %g", what, (unsigned long long)terms, largest);
  CHECK(terms < 64 || mptl_cuda_type_size(first) == 1 || largest > 1 << 14,
        "%s, %llu terms: sums up to %g only", what, (unsigned long long)terms, largest);
}

static void numbers(void) {
  static const uint64_t terms[] = {1, 9, 27, 64, 576, 4608, 32768, 131072, 3211264};
  static const mptl_cuda_type types[][2] = {{MPTL_CUDA_F32, MPTL_CUDA_F32},
                                            {MPTL_CUDA_TF32, MPTL_CUDA_TF32},
                                            {MPTL_CUDA_BF16, MPTL_CUDA_BF16},
                                            {MPTL_CUDA_E4M3, MPTL_CUDA_E4M3},
                                            {MPTL_CUDA_E5M2, MPTL_CUDA_E4M3}};
  for (size_t i = 0; i < sizeof terms / sizeof *terms; i++)
    for (size_t t = 0; t < sizeof types / sizeof *types; t++)
      for (int turn = 0; turn < 2; turn++) {
        sum_up(terms[i], types[t][0], types[t][1], 100, turn, 0x1p24);
        if (mptl_cuda_type_size(types[t][0]) == 1)
          sum_up(terms[i], types[t][0], types[t][1], 90, turn, 0x1p13);
      }
  const mptl_conv_shape s = {2, 6, 7, 5, 4, 4, 3, 3, 3, 2, 2, 1, 1, 1, 1, 2, false};
  CHECK(mptl_conv_terms(&s, MPTL_FORWARD) == 27 && mptl_conv_terms(&s, MPTL_BACKWARD_DATA) == 18 &&
            mptl_conv_terms(&s, MPTL_BACKWARD_WEIGHTS) == 24,
        "terms");
}

/* ---- The search ---- */

/* What scripted_judge answers: the first `wrong` engines are wrong, or a status; and what it was
 * asked. */
static struct {
  int wrong, asked;
  float ms[8]; /* times of the first engines, in the order of the search; later ones take ms[7] */
  mptl_status status;
  char engines[64][32];
  cudnnBackendDescriptor_t plans[64];
  int taken; /* the chosen plan's index in the order of the search; names may be equal */
} judge_says;

static mptl_status scripted_judge(mptl_cuda_finding *finding, const mptl_dnn_device *device,
                                  const mptl_dnn_plan *plan) {
  CHECK(plan->plan != NULL && plan->workspace_bytes <= plan->key.workspace_limit &&
            device->description != NULL,
        "a plan to be run");
  int i = judge_says.asked++;
  judge_says.plans[i % 64] = plan->plan;
  snprintf(judge_says.engines[i % 64], sizeof judge_says.engines[0], "%s", plan->engine);
  *finding =
      (mptl_cuda_finding){.right = i >= judge_says.wrong, .ms = judge_says.ms[i < 8 ? i : 7]};
  if (!finding->right) snprintf(finding->wrong, sizeof finding->wrong, "sum %d is wrong", i);
  return judge_says.status == MPTL_OK ? MPTL_OK : mptl_fail(judge_says.status, "no judgement");
}

/* Searches a plan with a new object for a described device. The environment chooses whether files
 * are used. */
static mptl_status search_type(mptl_cuda_type type, int wrong, mptl_status status, mptl_pass pass,
                               char *engine, char *wrong_engine, size_t size) {
  static const mptl_conv_shape shape = {16, 64, 16, 16, 64, 16, 16, 3,    3,
                                        1,  1,  1,  1,  1,  1,  1,  false};
  mptl_cuda_dnn *dnn;
  mptl_cuda_conv *conv;
  MUST(mptl_cuda_dnn_create_for(&dnn, H100));
  mptl_cuda_dnn_plans(dnn)->judge = scripted_judge;
  judge_says.wrong = wrong, judge_says.asked = 0, judge_says.status = status;
  mptl_status got =
      mptl_cuda_conv_create(&conv, dnn, &shape, pass, type, type, MPTL_CUDA_USUAL_WORKSPACE);
  judge_says.taken = -1;
  /* The last plan at this address counts: earlier ones were destroyed. */
  for (int i = 0; got == MPTL_OK && i < judge_says.asked; i++)
    if (judge_says.plans[i % 64] == mptl_cuda_dnn_plans(dnn)->plans->plan) judge_says.taken = i;
  if (got == MPTL_OK) snprintf(engine, size, "%s", mptl_cuda_conv_engine(conv));
  if (got == MPTL_OK) snprintf(wrong_engine, size, "%s", mptl_cuda_conv_wrong(conv));
  mptl_cuda_conv_destroy(conv);
  mptl_cuda_dnn_destroy(dnn);
  return got;
}

static mptl_status search(int wrong, mptl_status status, mptl_pass pass, char *engine,
                          char *wrong_engine, size_t size) {
  return search_type(MPTL_CUDA_F32, wrong, status, pass, engine, wrong_engine, size);
}

static void engines_that_fail(void) {
  enum { SIZE = 256 };
  char engine[SIZE], wrong_engine[SIZE], words[SIZE];
  for (int pass = 0; pass < MPTL_PASSES; pass++) {
    MUST(search(0, MPTL_OK, (mptl_pass)pass, engine, wrong_engine, SIZE));
    CHECK(judge_says.taken == 0 && strcmp(engine, judge_says.engines[0]) == 0 &&
              wrong_engine[0] == '\0',
          "the first one: %s, %s", engine, wrong_engine);
    MUST(search(2, MPTL_OK, (mptl_pass)pass, engine, wrong_engine, SIZE));
    snprintf(words, sizeof words, "%s: sum 1 is wrong", judge_says.engines[1]);
    CHECK(judge_says.taken == 2 && strcmp(engine, judge_says.engines[2]) == 0 &&
              strcmp(wrong_engine, words) == 0,
          "the third one: %s, %s", engine, wrong_engine);
    REFUSES(search(1000, MPTL_OK, (mptl_pass)pass, engine, wrong_engine, SIZE), MPTL_EUNSUPPORTED,
            "give wrong sums", " is wrong");
    snprintf(words, sizeof words, " %d give wrong sums", judge_says.asked);
    CHECK(judge_says.asked > 2 && strstr(mptl_error(), words) != NULL, "%s", mptl_error());
    REFUSES(search(0, MPTL_ENOMEM, (mptl_pass)pass, engine, wrong_engine, SIZE), MPTL_ENOMEM,
            "no judgement");
    CHECK(judge_says.asked == 1, "an engine that cannot be judged ends the search");
    REFUSES(search(0, MPTL_EUNSUPPORTED, (mptl_pass)pass, engine, wrong_engine, SIZE),
            MPTL_EUNSUPPORTED, "no judgement", " 0 give wrong");
  }
}

/* Which of several engines with different times is chosen, in F32 and bf16, and how many are tried,
 * after `wrong` engines with wrong sums. */
static void engines_that_are_slow(void) {
  static const struct {
    mptl_cuda_type type;
    int wrong;
    float ms[8];
    int taken, asked;
  } cases[] = {{MPTL_CUDA_F32, 0, {1, 1, 1, 1, 1}, 0, 4},
               {MPTL_CUDA_F32, 0, {18.8f, 0.3f, 0.2f, 0.2f, 0.01f}, 1, 4},
               {MPTL_CUDA_F32, 0, {10, 6, 4, 1, 0.1f}, 3, 4},
               {MPTL_CUDA_F32, 0, {10, 6, 4, 3, 0.1f}, 2, 4},
               {MPTL_CUDA_F32, 0, {0.012f, 0.003f, 0.003f, 0.003f}, 0, 4}, /* noise */
               {MPTL_CUDA_F32, 2, {0.1f, 0.1f, 9, 1, 9, 9}, 3, 6},
               {MPTL_CUDA_BF16, 0, {2, 0.1f}, 0, 1},
               {MPTL_CUDA_BF16, 0, {20, 1, 1}, 1, 2}};
  char engine[256], wrong_engine[256];
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    memcpy(judge_says.ms, cases[i].ms, sizeof judge_says.ms);
    MUST(search_type(cases[i].type, cases[i].wrong, MPTL_OK, MPTL_FORWARD, engine, wrong_engine,
                     sizeof engine));
    CHECK(judge_says.taken == cases[i].taken &&
              strcmp(engine, judge_says.engines[cases[i].taken]) == 0,
          "case %zu: %d is taken, %s", i, judge_says.taken, engine);
    CHECK(judge_says.asked == cases[i].asked, "case %zu: %d engines are tried, not %d", i,
          judge_says.asked, cases[i].asked);
  }
}

/* Plans from files are not judged again, and refusals because of wrong sums are not written to
 * files. */
static void files(void) {
  char folder[] = "/tmp/mptl-checks-XXXXXX", engine[256], again[256], wrong_engine[256],
       command[64];
  CHECK(mkdtemp(folder) != NULL, "a folder");
  setenv("MPTL_CUDA_PLANS", folder, 1);
  REFUSES(search(1000, MPTL_OK, MPTL_FORWARD, engine, wrong_engine, sizeof engine),
          MPTL_EUNSUPPORTED, "give wrong sums");
  MUST(search(1, MPTL_OK, MPTL_FORWARD, engine, wrong_engine, sizeof engine));
  CHECK(judge_says.asked >= 2, "a refusal is not kept");
  MUST(search(1000, MPTL_OK, MPTL_FORWARD, again, wrong_engine, sizeof again));
  CHECK(judge_says.asked == 0 && strcmp(engine, again) == 0, "%s from a file, %s before", again,
        engine);
  setenv("MPTL_CUDA_PLANS", "none", 1);
  snprintf(command, sizeof command, "rm -r %s", folder);
  CHECK(system(command) == 0, "%s", command);
}

/* ---- Two threads ---- */

typedef struct side {
  int which;
  const mptl_cuda_dnn *same; /* NULL: the thread opens another device */
  mptl_dnn_judge *judge;
  char problem[256], engine[32];
} side;

static _Thread_local int me; /* the thread's side */

static mptl_status find_plan(side *s, mptl_cuda_dnn *dnn) {
  static const mptl_conv_shape shape = {16, 64, 16, 16, 64, 16, 16, 3,    3,
                                        1,  1,  1,  1,  1,  1,  1,  false};
  mptl_cuda_conv *conv;
  mptl_cuda_dnn_plans(dnn)->judge = s->judge;
  MPTL_TRY(
      mptl_cuda_conv_create(&conv, dnn, &shape, MPTL_FORWARD, MPTL_CUDA_F32, MPTL_CUDA_F32, 0));
  snprintf(s->engine, sizeof s->engine, "%s", mptl_cuda_conv_engine(conv));
  mptl_cuda_conv_destroy(conv);
  return MPTL_OK;
}

static void *run_side(void *argument) {
  side *s = argument;
  mptl_cuda_dnn *dnn;
  me = s->which;
  mptl_status status = s->same != NULL ? mptl_cuda_dnn_create_again(&dnn, s->same)
                                       : mptl_cuda_dnn_create_for(&dnn, H100);
  if (status == MPTL_OK) status = find_plan(s, dnn);
  if (status != MPTL_OK) snprintf(s->problem, sizeof s->problem, "%s", mptl_error());
  mptl_cuda_dnn_destroy(dnn);
  return NULL;
}

/* Two threads search the same plan at the same time. */
static void search_twice(const mptl_cuda_dnn *same, mptl_dnn_judge *judge) {
  side sides[2] = {{.which = 0, .same = same, .judge = judge},
                   {.which = 1, .same = same, .judge = judge}};
  pthread_t threads[2];
  for (int i = 0; i < 2; i++)
    CHECK(pthread_create(&threads[i], NULL, run_side, &sides[i]) == 0, "a thread");
  for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
  for (int i = 0; i < 2; i++) CHECK(sides[i].problem[0] == '\0', "%s", sides[i].problem);
  CHECK(strcmp(sides[0].engine, sides[1].engine) == 0, "%s, %s", sides[0].engine, sides[1].engine);
}

static atomic_int judging, judged_together;

static mptl_status slow_judge(mptl_cuda_finding *finding, const mptl_dnn_device *device,
                              const mptl_dnn_plan *plan) {
  (void)device, (void)plan;
  if (atomic_fetch_add(&judging, 1) > 0) atomic_fetch_add(&judged_together, 1);
  usleep(100000);
  atomic_fetch_sub(&judging, 1);
  *finding = (mptl_cuda_finding){.right = true, .ms = 1};
  return MPTL_OK;
}

/* Plans of a device are judged one after the other, also on different threads. */
static void one_device(void) {
  mptl_cuda_dnn *dnn;
  MUST(mptl_cuda_dnn_create_for(&dnn, H100));
  search_twice(dnn, slow_judge);
  CHECK(judged_together == 0, "%d plans were judged beside another one", judged_together);
  mptl_cuda_dnn_destroy(dnn);
}

static sem_t begun[2];

/* Waits until the other thread's judge has begun, too. With one lock for all devices it never
 * would. */
static mptl_status waiting_judge(mptl_cuda_finding *finding, const mptl_dnn_device *device,
                                 const mptl_dnn_plan *plan) {
  (void)device, (void)plan;
  struct timespec end;
  clock_gettime(CLOCK_REALTIME, &end);
  end.tv_sec += 60;
  sem_post(&begun[me]);
  *finding = (mptl_cuda_finding){.right = true, .ms = 1};
  return sem_timedwait(&begun[1 - me], &end) == 0
             ? MPTL_OK
             : mptl_fail(MPTL_EBACKEND, "the other device is locked out");
}

/* Two devices do not wait for each other, and may write the same file. */
static void two_devices(void) {
  char folder[] = "/tmp/mptl-checks-XXXXXX", command[96];
  CHECK(mkdtemp(folder) != NULL, "a folder");
  setenv("MPTL_CUDA_PLANS", folder, 1);
  for (int i = 0; i < 2; i++) sem_init(&begun[i], 0, 0);
  search_twice(NULL, waiting_judge);
  snprintf(command, sizeof command, "test $(find %s -type f | wc -l) = 1", folder);
  CHECK(system(command) == 0, "there is not one file");
  snprintf(command, sizeof command, "rm -r %s", folder);
  CHECK(system(command) == 0, "%s", command);
  setenv("MPTL_CUDA_PLANS", "none", 1);
}

int main(void) {
  numbers();
  engines_that_fail();
  engines_that_are_slow();
  files();
  one_device();
  two_devices();
  return failures != 0;
}
