/* Matrix products for NVIDIA GPUs, as far as they can be tested without one: refusals and their
 * messages, the engines that are chosen for a described device, row-major products as the library's
 * column-major ones. */
#include <string.h>

#include "../c/dnn_check.h"
#include "backend/cuda/blas_gemm.h"
#include "backend/cuda/dnn_descriptor.h"
#include "backend/cuda/inspect.h"
#include "devices.h"

enum { MEBIBYTE = 1 << 20 };
static const mptl_conv_shape good = {128, 64, 32, 32, 64, 32, 32, 3, 3, 1, 1, 1, 1, 1, 1, 1, false};
static mptl_cuda_dnn *a100, *h100;

static void devices_that_are_not_there(void) {
  mptl_cuda_dnn *dnn = (mptl_cuda_dnn *)1;
  mptl_cuda_blas *blas = (mptl_cuda_blas *)1;
  REFUSES(mptl_cuda_dnn_create(&dnn, 99, NULL), MPTL_EUNSUPPORTED, "device cuda:99: ");
  CHECK(dnn == NULL, "a failed create leaves nothing");
  REFUSES(mptl_cuda_blas_create(&blas, 99, NULL), MPTL_EUNSUPPORTED, "device cuda:99: ");
  CHECK(blas == NULL, "a failed create leaves nothing");
  REFUSES(mptl_cuda_dnn_create_for(&dnn, "{}"), MPTL_EINVAL, "device properties: deviceVer is 0");
  REFUSES(mptl_cuda_dnn_create_for(&dnn, "{\"deviceVer\":900}"), MPTL_EBACKEND,
          "device properties: cuDNN says");
  CHECK(dnn == NULL, "a failed create leaves nothing");
  mptl_cuda_dnn_destroy(NULL);
  mptl_cuda_blas_destroy(NULL);
  mptl_cuda_version dnn_version = mptl_cuda_dnn_version(), blas_version = mptl_cuda_blas_version();
  CHECK(strchr(dnn_version.text, '.') != NULL, "version \"%s\"", dnn_version.text);
  CHECK(strchr(blas_version.text, '.') != NULL, "version \"%s\"", blas_version.text);
}

static void types(void) {
  CHECK(mptl_cuda_supports(75, MPTL_CUDA_F32) && !mptl_cuda_supports(75, MPTL_CUDA_TF32), "Turing");
  CHECK(mptl_cuda_supports(80, MPTL_CUDA_BF16) && !mptl_cuda_supports(80, MPTL_CUDA_E4M3),
        "Ampere");
  CHECK(mptl_cuda_supports(89, MPTL_CUDA_E5M2) && mptl_cuda_supports(90, MPTL_CUDA_E4M3),
        "Ada, Hopper");
  CHECK(mptl_cuda_dnn_capability(a100) == 80 && mptl_cuda_dnn_capability(h100) == 90,
        "described devices");
  MUST(mptl_cuda_check_types(90, MPTL_CUDA_E4M3, MPTL_CUDA_E5M2));
  REFUSES(mptl_cuda_check_types(90, MPTL_CUDA_BF16, MPTL_CUDA_E5M2), MPTL_EINVAL,
          "operands are bf16 and e5m2");
  REFUSES(mptl_cuda_check_types(90, MPTL_CUDA_F32, MPTL_CUDA_TF32), MPTL_EINVAL,
          "operands are f32 and tf32");
  REFUSES(mptl_cuda_check_types(80, MPTL_CUDA_E5M2, MPTL_CUDA_E5M2), MPTL_EUNSUPPORTED,
          "e5m2 needs compute capability 8.9", "8.0");
}

static mptl_status create(mptl_cuda_conv **conv, mptl_cuda_dnn *dnn, mptl_conv_shape shape,
                          mptl_pass pass, mptl_cuda_type type, size_t limit) {
  return mptl_cuda_conv_create(conv, dnn, &shape, pass, type, type, limit);
}

static void wrong_convolutions(void) {
  mptl_cuda_conv *conv = (mptl_cuda_conv *)1;
  mptl_conv_shape s = good;
  s.oh = 31;
  REFUSES(create(&conv, h100, s, MPTL_FORWARD, MPTL_CUDA_F32, 0), MPTL_EINVAL,
          "conv2d 128x64x32x32", "output height is 31, must be 32");
  CHECK(conv == NULL, "a failed create leaves nothing");
  s = good, s.groups = 3;
  REFUSES(create(&conv, h100, s, MPTL_FORWARD, MPTL_CUDA_F32, 0), MPTL_EINVAL,
          "3 channel groups do not divide");
  REFUSES(create(&conv, a100, good, MPTL_FORWARD, MPTL_CUDA_E4M3, 0), MPTL_EUNSUPPORTED,
          "conv2d 128x64x32x32", "forward, e4m3: e4m3 needs");
  s = good, s.ic = s.oc = s.groups = 96;
  for (int i = 0; i < 2; i++) /* the second time: the refusal that is kept */
    REFUSES(create(&conv, h100, s, MPTL_BACKWARD_WEIGHTS, MPTL_CUDA_BF16, MEBIBYTE),
            MPTL_EUNSUPPORTED, "groups 96, backward weights, bf16: ");
  mptl_cuda_conv_destroy(NULL);
}

static void convolutions_of_described_devices(void) {
  float x;
  for (int pass = 0; pass < MPTL_PASSES; pass++)
    for (mptl_cuda_type type = MPTL_CUDA_F32; type <= MPTL_CUDA_TF32; type++) {
      mptl_cuda_conv *conv, *again;
      MUST(create(&conv, h100, good, (mptl_pass)pass, type, 256 * MEBIBYTE));
      MUST(create(&again, h100, good, (mptl_pass)pass, type, 256 * MEBIBYTE));
      CHECK(mptl_cuda_conv_workspace_bytes(conv) <= 256 * MEBIBYTE, "%s",
            mptl_cuda_conv_describe(conv));
      CHECK(strncmp(mptl_cuda_conv_engine(conv), "engine ", 7) == 0, "\"%s\"",
            mptl_cuda_conv_engine(conv));
      CHECK(mptl_cuda_conv_engine(conv) == mptl_cuda_conv_engine(again), "the plan is made once");
      REFUSES(mptl_cuda_conv_run(conv, &x, &x, &x, &x), MPTL_EINVAL, mptl_cuda_conv_describe(conv),
              "only described");
      mptl_cuda_conv_destroy(conv);
      mptl_cuda_conv_destroy(again);
    }
}

/* Another engine or type may be used only if cuDNN does not have one, not if the machine lacks
 * something or fails. */
static void statuses(void) {
  static const struct {
    cudnnStatus_t status;
    mptl_status expected;
  } rows[] = {{CUDNN_STATUS_NOT_SUPPORTED, MPTL_EUNSUPPORTED},
              {CUDNN_STATUS_NOT_SUPPORTED_SHAPE, MPTL_EUNSUPPORTED},
              {CUDNN_STATUS_NOT_SUPPORTED_SHARED_MEMORY_INSUFFICIENT, MPTL_EUNSUPPORTED},
              {CUDNN_STATUS_NOT_SUPPORTED_RUNTIME_PREREQUISITE_MISSING, MPTL_EBACKEND},
              {CUDNN_STATUS_NOT_SUPPORTED_SUBLIBRARY_UNAVAILABLE, MPTL_EBACKEND},
              {CUDNN_STATUS_INTERNAL_ERROR_COMPILATION_FAILED, MPTL_EBACKEND},
              {CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED, MPTL_ENOMEM},
              {CUDNN_STATUS_BAD_PARAM, MPTL_EBACKEND}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    REFUSES(mptl_dnn_status(rows[i].status, "a plan"), rows[i].expected, "a plan: cuDNN says ",
            cudnnGetErrorString(rows[i].status));
}

/* The limits depend on shape and device only. cuDNN's fast engines for binary32 need workspace for
 * copies of input, output and weights; here, of ResNet-18. */
static void limits_of_workspace(void) {
  const mptl_cuda_traits large = {90, (size_t)80 << 30}, small = {80, (size_t)2 << 30},
                         tiny = {75, 512 * MEBIBYTE};
  const size_t usual = MPTL_CUDA_USUAL_WORKSPACE,
               once_more = 4 * ((size_t)2 * 128 * 64 * 32 * 32 + 64 * 9 * 64);
  const mptl_conv_shape linear = mptl_linear_as_conv(
                            &(mptl_linear_shape){4096, 4096, 1, 1, 4096, false}),
                        little =
                            mptl_linear_as_conv(&(mptl_linear_shape){128, 512, 1, 1, 10, false});
  mptl_conv_shape s = good;
  size_t bytes = mptl_cuda_workspace_limit(&good, &large, usual);
  CHECK(bytes == once_more / 4 * 5, "%zu bytes", bytes);
  s.n = 1;
  bytes = mptl_cuda_workspace_limit(&s, &large, usual);
  CHECK(bytes == 64 * MEBIBYTE, "at least 64 MiB: %zu bytes", bytes);
  s.n = 1024;
  bytes = mptl_cuda_workspace_limit(&s, &small, usual);
  CHECK(bytes == 128 * MEBIBYTE, "at most a sixteenth of the memory: %zu bytes", bytes);
  bytes = mptl_cuda_workspace_limit(&s, &tiny, usual);
  CHECK(bytes == 64 * MEBIBYTE, "at least 64 MiB, on any device: %zu bytes", bytes);
  CHECK(mptl_cuda_workspace_limit(&s, &large, 5) == 5, "a limit that is given");
  bytes = mptl_cuda_workspace_limit(&linear, &large, usual);
  CHECK(bytes == (size_t)3 * 4096 * 4096 * 5, "%zu bytes", bytes);
  bytes = mptl_cuda_workspace_limit(&little, &large, usual);
  CHECK(bytes == 64 * MEBIBYTE, "%zu bytes", bytes);
}

static void fast_engines_for_binary32(void) {
  for (int pass = 0; pass < MPTL_BACKWARD_WEIGHTS; pass++) {
    mptl_cuda_conv *conv, *most;
    MUST(create(&conv, h100, good, (mptl_pass)pass, MPTL_CUDA_F32, MPTL_CUDA_USUAL_WORKSPACE));
    MUST(create(&most, h100, good, (mptl_pass)pass, MPTL_CUDA_F32, (size_t)1 << 40));
    CHECK(strcmp(mptl_cuda_conv_engine(conv), mptl_cuda_conv_engine(most)) == 0,
          "%s: %s, without a limit %s", mptl_cuda_conv_describe(conv), mptl_cuda_conv_engine(conv),
          mptl_cuda_conv_engine(most));
    CHECK(mptl_cuda_conv_workspace_bytes(conv) == mptl_cuda_conv_workspace_bytes(most), "%s",
          mptl_cuda_conv_describe(conv));
    mptl_cuda_conv_destroy(conv);
    mptl_cuda_conv_destroy(most);
  }
}

/* Computes the library's column-major product by loops. */
static void multiply(const mptl_cuda_gemm *g, double *c, const double *a, const double *b) {
  for (int i = 0; i < g->m; i++)
    for (int j = 0; j < g->n; j++) {
      double sum = 0;
      for (int k = 0; k < g->k; k++)
        sum += a[g->transpose_a ? k + i * g->lda : i + k * g->lda] *
               b[g->transpose_b ? j + k * g->ldb : k + j * g->ldb];
      c[i + j * g->ldc] = sum;
    }
}

static void linear_products(void) {
  enum { N = 5, IN = 6, OUT = 7 };
  const mptl_linear_shape shape = {N, 3, 2, 1, OUT, true};
  double x[N][IN], w[OUT][IN], dy[N][OUT], y[N][OUT], dx[N][IN], dw[OUT][IN];
  uint64_t state = 3;
  for (int i = 0; i < N * IN; i++) x[i / IN][i % IN] = random_value(INTEGERS, &state);
  for (int i = 0; i < OUT * IN; i++) w[i / IN][i % IN] = random_value(INTEGERS, &state);
  for (int i = 0; i < N * OUT; i++) dy[i / OUT][i % OUT] = random_value(INTEGERS, &state);
  const double *firsts[] = {*x, *dy, *x}, *seconds[] = {*w, *w, *dy};
  double *results[] = {*y, *dx, *dw};
  for (int pass = 0; pass < MPTL_PASSES; pass++) {
    mptl_cuda_gemm g = mptl_cuda_linear_gemm(&shape, (mptl_pass)pass);
    multiply(&g, results[pass], g.a_is_first ? firsts[pass] : seconds[pass],
             g.a_is_first ? seconds[pass] : firsts[pass]);
  }
  for (int i = 0; i < N; i++)
    for (int o = 0; o < OUT; o++) {
      double sum = 0;
      for (int k = 0; k < IN; k++) sum += x[i][k] * w[o][k];
      CHECK(y[i][o] == sum, "y[%d][%d] is %g, expected %g", i, o, y[i][o], sum);
    }
  for (int i = 0; i < N; i++)
    for (int k = 0; k < IN; k++) {
      double sum = 0;
      for (int o = 0; o < OUT; o++) sum += dy[i][o] * w[o][k];
      CHECK(dx[i][k] == sum, "dx[%d][%d] is %g, expected %g", i, k, dx[i][k], sum);
    }
  for (int o = 0; o < OUT; o++)
    for (int k = 0; k < IN; k++) {
      double sum = 0;
      for (int i = 0; i < N; i++) sum += dy[i][o] * x[i][k];
      CHECK(dw[o][k] == sum, "dw[%d][%d] is %g, expected %g", o, k, dw[o][k], sum);
    }
}

/* Except on 10.x and 11.x, cuBLASLt multiplies only a transposed first matrix by a second one that
 * is not transposed. Only the forward pass is such a product. */
static void layouts_for_8_bits(void) {
  static const int capabilities[] = {89, 90, 100, 110, 120};
  const mptl_cuda_type e4m3 = MPTL_CUDA_E4M3, e5m2 = MPTL_CUDA_E5M2;
  const mptl_linear_shape shape = {64, 32, 2, 1, 48, false};
  for (int pass = 0; pass < MPTL_PASSES; pass++) {
    mptl_cuda_gemm g = mptl_cuda_linear_gemm(&shape, (mptl_pass)pass);
    bool tn = g.transpose_a && !g.transpose_b;
    CHECK(tn == (pass == MPTL_FORWARD), "%s: transposed are %d, %d",
          mptl_pass_name((mptl_pass)pass), g.transpose_a, g.transpose_b);
    CHECK(g.lda % 16 == 0 && g.ldb % 16 == 0 && g.ldc % 16 == 0,
          "%s: leading dimensions %d, %d, %d", mptl_pass_name((mptl_pass)pass), g.lda, g.ldb,
          g.ldc);
    for (size_t i = 0; i < sizeof capabilities / sizeof *capabilities; i++) {
      int c = capabilities[i];
      if (tn || (c >= 100 && c < 120))
        MUST(mptl_cuda_check_8_bits(&g, c, e5m2, e4m3));
      else
        REFUSES(mptl_cuda_check_8_bits(&g, c, e4m3, e4m3), MPTL_EUNSUPPORTED,
                "a transposed matrix by one that is not",
                c == 89   ? "8.9"
                : c == 90 ? "9.0"
                          : "12.0");
      REFUSES(mptl_cuda_check_8_bits(&g, c, e5m2, e5m2), MPTL_EUNSUPPORTED,
              "no code for e5m2 by e5m2");
    }
    int *const sizes[] = {&g.m, &g.n, &g.k};
    for (int i = 0; i < 3; i++) {
      *sizes[i] += 8;
      REFUSES(mptl_cuda_check_8_bits(&g, 100, e4m3, e4m3), MPTL_EUNSUPPORTED,
              "multiples of 16 only, the product is ");
      *sizes[i] -= 8;
    }
  }
}

int main(void) {
  devices_that_are_not_there();
  MUST(mptl_cuda_dnn_create_for(&a100, A100));
  MUST(mptl_cuda_dnn_create_for(&h100, H100));
  types();
  wrong_convolutions();
  convolutions_of_described_devices();
  statuses();
  limits_of_workspace();
  fast_engines_for_binary32();
  linear_products();
  layouts_for_8_bits();
  mptl_cuda_dnn_destroy(a100);
  mptl_cuda_dnn_destroy(h100);
  return failures != 0;
}
