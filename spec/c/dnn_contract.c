/* What the dnn operators refuse and how they say it; first use from several threads; operators that
 * share one scratch. */
#include <omp.h>
#include <pthread.h>

#include "backend/cpu/dnn.h"
#include "dnn_check.h"

static const mptl_compute all[MPTL_PASSES] = {MPTL_COMPUTE_F32, MPTL_COMPUTE_F32, MPTL_COMPUTE_F32};
static const mptl_conv_shape good = {2, 8, 6, 6, 16, 6, 6, 3, 3, 1, 1, 1, 1, 1, 1, 1, false};

static void wrong_shapes(void) {
  mptl_dnn *op = (mptl_dnn *)1;
  mptl_conv_shape s = good;
  s.oh = 5;
  REFUSES(mptl_dnn_conv_create(&op, 2, &s, all), MPTL_EINVAL, "conv2d 2x8x6x6",
          "output height is 5, must be 6");
  CHECK(op == NULL, "a failed create leaves no operator");
  s = good, s.groups = 3;
  REFUSES(mptl_dnn_conv_create(&op, 2, &s, all), MPTL_EINVAL,
          "3 channel groups do not divide 8 input and 16 output channels");
  s = good, s.n = 0;
  REFUSES(mptl_dnn_conv_create(&op, 2, &s, all), MPTL_EINVAL, "batch is 0, must be at least 1");
  s = good, s.dw = 0;
  REFUSES(mptl_dnn_conv_create(&op, 2, &s, all), MPTL_EINVAL, "dilation is 0, must be at least 1");
  s = good, s.pw = -1;
  REFUSES(mptl_dnn_conv_create(&op, 2, &s, all), MPTL_EINVAL, "padding is -1, must be at least 0");
  s = good, s.kh = 9;
  REFUSES(mptl_dnn_conv_create(&op, 2, &s, all), MPTL_EINVAL,
          "the kernel spans 9, the padded input only 8");
  const mptl_linear_shape linear = {4, 8, 1, 1, 0, true};
  REFUSES(mptl_dnn_linear_create(&op, 2, &linear, all), MPTL_EINVAL, "linear 4x8x1x1 -> 0",
          "outputs is 0");
}

static void wrong_calls(void) {
  static float x[2 * 6 * 6 * 16], y[2 * 6 * 6 * 16], w[16 * 8 * 9], bias[16];
  const mptl_compute forward_only[MPTL_PASSES] = {MPTL_COMPUTE_F32, MPTL_COMPUTE_NONE,
                                                  MPTL_COMPUTE_NONE};
  mptl_dnn *op;
  MUST(mptl_dnn_conv_create(&op, 2, &good, forward_only));
  CHECK(mptl_dnn_packed_bytes(op, MPTL_FORWARD) >= sizeof w, "packed weights hold the weights");
  CHECK(mptl_dnn_packed_bytes(op, MPTL_BACKWARD_DATA) == 0,
        "a pass that was not asked for needs nothing");
  CHECK(mptl_dnn_implementation(op, MPTL_FORWARD)[0] != '\0', "the code has a name");
  CHECK(mptl_dnn_implementation(op, MPTL_BACKWARD_WEIGHTS)[0] == '\0',
        "code that is not there has none");
  array packed = array_create(mptl_dnn_packed_bytes(op, MPTL_FORWARD)),
        scratch = array_create(mptl_dnn_scratch_bytes(op));
  mptl_dnn_use_scratch(op, array_at(scratch));
  MUST(mptl_dnn_pack(op, MPTL_FORWARD, array_at(packed), w));
  REFUSES(mptl_dnn_pack(op, MPTL_BACKWARD_DATA, w, w), MPTL_EINVAL,
          "created without the backward data pass");
  REFUSES(mptl_dnn_pack(op, MPTL_BACKWARD_WEIGHTS, w, w), MPTL_EINVAL, "reads no weights");
  REFUSES(mptl_dnn_backward_data(op, x, x, w), MPTL_EINVAL, "conv2d 2x8x6x6",
          "created without the backward data pass");
  REFUSES(mptl_dnn_backward_weights(op, w, NULL, x, x), MPTL_EINVAL,
          "created without the backward weights pass");
  REFUSES(mptl_dnn_forward(op, x, x, array_at(packed), bias), MPTL_EINVAL,
          "created without bias, called with one");
  int threads = omp_get_max_threads();
  omp_set_num_threads(3);
  MUST(mptl_dnn_forward(op, y, x, array_at(packed), NULL));
  CHECK(omp_get_max_threads() == 3, "the caller's number of threads is %d, must be left at 3",
        omp_get_max_threads());
  omp_set_num_threads(threads);
  mptl_dnn_destroy(op);
  mptl_dnn_destroy(NULL);
  CHECK(array_destroy(packed) & array_destroy(scratch), "wrote outside of its memory");

  const mptl_linear_shape shape = {4, 8, 1, 1, 5, true};
  MUST(mptl_dnn_linear_create(&op, 2, &shape, all));
  if (mptl_dnn_scratch_bytes(op) > 0) {
    REFUSES(mptl_dnn_backward_weights(op, w, bias, x, x), MPTL_EINVAL, "no scratch given");
    mptl_dnn_use_scratch(op, x);
  }
  REFUSES(mptl_dnn_forward(op, x, x, w, NULL), MPTL_EINVAL, "created with bias, called without");
  mptl_dnn_destroy(op);
}

/* One operator of its own in each thread, the first call into oneDNN at the same time; all get the
 * same bits. */
enum { THREADS = 4 };
static pthread_barrier_t ready;
static float results[THREADS][2 * 6 * 6 * 16];

static void *first_use(void *argument) {
  float *dst = argument, x[2 * 6 * 6 * 8], w[16 * 8 * 9];
  uint64_t state = 7;
  for (size_t i = 0; i < sizeof x / sizeof *x; i++) x[i] = random_value(REALS, &state);
  for (size_t i = 0; i < sizeof w / sizeof *w; i++) w[i] = random_value(REALS, &state);
  pthread_barrier_wait(&ready);
  mptl_dnn *op;
  MUST(mptl_dnn_conv_create(&op, 1, &good, all));
  array packed = array_create(mptl_dnn_packed_bytes(op, MPTL_FORWARD)),
        scratch = array_create(mptl_dnn_scratch_bytes(op));
  mptl_dnn_use_scratch(op, array_at(scratch));
  MUST(mptl_dnn_pack(op, MPTL_FORWARD, array_at(packed), w));
  for (int i = 0; i < 20; i++) MUST(mptl_dnn_forward(op, dst, x, array_at(packed), NULL));
  mptl_dnn_destroy(op);
  array_destroy(packed), array_destroy(scratch);
  return NULL;
}

static void several_threads(void) {
  pthread_t threads[THREADS];
  pthread_barrier_init(&ready, NULL, THREADS);
  for (int i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, first_use, results[i]);
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  for (int i = 1; i < THREADS; i++)
    CHECK(memcmp(results[0], results[i], sizeof results[0]) == 0, "thread %d computes other bits",
          i);
  pthread_barrier_destroy(&ready);
}

int main(void) {
  several_threads();
  wrong_shapes();
  wrong_calls();
  CHECK(mptl_dnn_supports(MPTL_COMPUTE_F32), "binary32 is always there");
  CHECK(strchr(mptl_dnn_version(), '.') != NULL, "version \"%s\"", mptl_dnn_version());
  return failures != 0;
}
