/* Checks of plans, as far as there are any without a GPU: the numbers that products are checked with, and what the search does with an
 * engine that fails. What is not covered here is that a check runs a plan on a device, and cuBLASLt's algorithms, which it lists for
 * devices only: spec/cuda/products_on_gpu.c comes through both. The comparison itself is spec/cuda/check.cpp's. */
#include <string.h>
#include <unistd.h>

#include "../c/dnn_check.h"
#include "backend/cuda/dnn_graph.h"
#include "devices.h"

/* ---- Numbers ---- */

static int bits_in(uint32_t x) {
  int n = 0;
  for (; x > 0; x /= 2) n++;
  return n;
}

/* Sums products in order, and in parts of 1000: magnitudes stay below the limit. In types of enough bits they come near enough to it to show
 * what is lost. */
static void sum_up(uint64_t terms, mptl_cuda_type first, mptl_cuda_type second, int capability, int turn, double limit) {
  mptl_cuda_check_numbers n = mptl_cuda_check_numbers_of(terms, first, second, capability, turn);
  const char *names[] = {mptl_cuda_type_name(first), mptl_cuda_type_name(second)};
  const mptl_whole *wide = turn == 0 ? &n.first : &n.second, *other = turn == 0 ? &n.second : &n.first;
  static const int bits[MPTL_CUDA_TYPES] = {13, 11, 8, 4, 3};
  CHECK(bits_in(wide->largest) == bits[turn == 0 ? first : second] && wide->thinning == 0, "%s by %s, %llu terms: %u", names[0],
        names[1], (unsigned long long)terms, wide->largest);
  CHECK(other->largest >= 1 && bits_in(other->largest) <= bits[turn == 0 ? second : first], "%s by %s: %u", names[0], names[1],
        other->largest);
  int64_t sum = 0, part = 0;
  double largest = 0;
  for (uint64_t i = 0; i < terms; i++) {
    int64_t product = (int64_t)mptl_whole_number(&n.first, i) * mptl_whole_number(&n.second, i * 7 + 3);
    sum += product, part = i % 1000 == 0 ? product : part + product;
    largest = fmax(largest, fmax(fabs((double)sum), fabs((double)part)));
  }
  const char *what = names[0];
  CHECK(largest < limit, "%s, %llu terms: sums up to %g", what, (unsigned long long)terms, largest);
  CHECK(terms < 64 || mptl_cuda_type_size(first) == 1 || largest > 1 << 14, "%s, %llu terms: sums up to %g only", what,
        (unsigned long long)terms, largest);
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
        if (mptl_cuda_type_size(types[t][0]) == 1) sum_up(terms[i], types[t][0], types[t][1], 90, turn, 0x1p13);
      }
  const mptl_conv_shape s = {2, 6, 7, 5, 4, 4, 3, 3, 3, 2, 2, 1, 1, 1, 1, 2, false};
  CHECK(mptl_cuda_check_terms(&s, MPTL_FORWARD) == 27 && mptl_cuda_check_terms(&s, MPTL_BACKWARD_DATA) == 18 &&
            mptl_cuda_check_terms(&s, MPTL_BACKWARD_WEIGHTS) == 24,
        "terms");
}

/* ---- The search ---- */

/* A judge that finds the first so many engines wrong, or cannot judge them. */
static struct {
  int wrong, asked;
  mptl_status status;
  char engines[64][32];
} judge_says;

static mptl_status judge(mptl_cuda_finding *finding, const mptl_cuda_dnn *dnn, const mptl_dnn_plan *plan) {
  CHECK(plan->plan != NULL && plan->workspace_bytes <= plan->key.workspace_limit && dnn->judge == judge, "a plan to be run");
  int i = judge_says.asked++;
  snprintf(judge_says.engines[i % 64], sizeof judge_says.engines[0], "%s", plan->engine);
  *finding = (mptl_cuda_finding){.right = i >= judge_says.wrong, .ms = 1};
  if (!finding->right) snprintf(finding->wrong, sizeof finding->wrong, "sum %d is wrong", i);
  return judge_says.status == MPTL_OK ? MPTL_OK : mptl_fail(judge_says.status, "no judgement");
}

/* Whether a plan comes of it; for a device and object of its own, with the files that the environment says. */
static mptl_status search(int wrong, mptl_status status, mptl_pass pass, char *engine, char *told, size_t size) {
  static const mptl_conv_shape shape = {16, 64, 16, 16, 64, 16, 16, 3, 3, 1, 1, 1, 1, 1, 1, 1, false};
  mptl_cuda_dnn *dnn;
  mptl_cuda_conv *conv;
  MUST(mptl_cuda_dnn_create_for(&dnn, H100));
  dnn->judge = judge;
  judge_says.wrong = wrong, judge_says.asked = 0, judge_says.status = status;
  mptl_status got = mptl_cuda_conv_create(&conv, dnn, &shape, pass, MPTL_CUDA_F32, MPTL_CUDA_F32, MPTL_CUDA_USUAL_WORKSPACE);
  if (got == MPTL_OK) snprintf(engine, size, "%s", mptl_cuda_conv_engine(conv));
  if (got == MPTL_OK) snprintf(told, size, "%s", mptl_cuda_conv_wrong(conv));
  mptl_cuda_conv_destroy(conv);
  mptl_cuda_dnn_destroy(dnn);
  return got;
}

static void engines_that_fail(void) {
  enum { SIZE = 256 };
  char engine[SIZE], told[SIZE], words[SIZE];
  for (int pass = 0; pass < MPTL_PASSES; pass++) {
    MUST(search(0, MPTL_OK, (mptl_pass)pass, engine, told, SIZE));
    CHECK(strcmp(engine, judge_says.engines[0]) == 0 && told[0] == '\0', "the first one: %s, %s", engine, told);
    MUST(search(2, MPTL_OK, (mptl_pass)pass, engine, told, SIZE));
    snprintf(words, sizeof words, "%s: sum 1 is wrong", judge_says.engines[1]);
    CHECK(strcmp(engine, judge_says.engines[2]) == 0 && strcmp(told, words) == 0, "the third one: %s, %s", engine, told);
    REFUSES(search(1000, MPTL_OK, (mptl_pass)pass, engine, told, SIZE), MPTL_EUNSUPPORTED, "give wrong sums", " is wrong");
    snprintf(words, sizeof words, " %d give wrong sums", judge_says.asked);
    CHECK(judge_says.asked > 2 && strstr(mptl_error(), words) != NULL, "%s", mptl_error());
    REFUSES(search(0, MPTL_ENOMEM, (mptl_pass)pass, engine, told, SIZE), MPTL_ENOMEM, "no judgement");
    CHECK(judge_says.asked == 1, "an engine that cannot be judged ends the search");
    REFUSES(search(0, MPTL_EUNSUPPORTED, (mptl_pass)pass, engine, told, SIZE), MPTL_EUNSUPPORTED, "no judgement",
            " 0 give wrong");
  }
}

/* Plans in files were judged, and refusals for wrong sums are in none. */
static void files(void) {
  char folder[] = "/tmp/mptl-checks-XXXXXX", engine[256], again[256], told[256], command[64];
  CHECK(mkdtemp(folder) != NULL, "a folder");
  setenv("MPTL_CUDA_PLANS", folder, 1);
  REFUSES(search(1000, MPTL_OK, MPTL_FORWARD, engine, told, sizeof engine), MPTL_EUNSUPPORTED, "give wrong sums");
  MUST(search(1, MPTL_OK, MPTL_FORWARD, engine, told, sizeof engine));
  CHECK(judge_says.asked >= 2, "a refusal is not kept");
  MUST(search(1000, MPTL_OK, MPTL_FORWARD, again, told, sizeof again));
  CHECK(judge_says.asked == 0 && strcmp(engine, again) == 0, "%s from a file, %s before", again, engine);
  setenv("MPTL_CUDA_PLANS", "none", 1);
  snprintf(command, sizeof command, "rm -r %s", folder);
  CHECK(system(command) == 0, "%s", command);
}

int main(void) {
  numbers();
  engines_that_fail();
  files();
  return failures != 0;
}
