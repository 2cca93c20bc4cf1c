/* dnn.h of a build without oneDNN: no pass can be created. */
#include "backend/cpu/dnn.h"

static mptl_status refuse(mptl_dnn **op) {
  *op = NULL;
  return mptl_fail(MPTL_EUNSUPPORTED, "mptl was built without oneDNN");
}

mptl_status mptl_dnn_conv_create(mptl_dnn **op, int threads, const mptl_conv_shape *shape,
                                 const mptl_compute compute[MPTL_PASSES]) {
  (void)threads, (void)shape, (void)compute;
  return refuse(op);
}

mptl_status mptl_dnn_linear_create(mptl_dnn **op, int threads, const mptl_linear_shape *shape,
                                   const mptl_compute compute[MPTL_PASSES]) {
  (void)threads, (void)shape, (void)compute;
  return refuse(op);
}

/* The other functions get no operator. */

void mptl_dnn_destroy(mptl_dnn *op) { (void)op; }

size_t mptl_dnn_packed_bytes(const mptl_dnn *op, mptl_pass pass) {
  (void)op, (void)pass;
  return 0;
}

size_t mptl_dnn_scratch_bytes(const mptl_dnn *op) {
  (void)op;
  return 0;
}

void mptl_dnn_use_scratch(mptl_dnn *op, void *scratch) { (void)op, (void)scratch; }

mptl_status mptl_dnn_pack(mptl_dnn *op, mptl_pass pass, void *packed, const float *weights) {
  (void)pass, (void)packed, (void)weights;
  return refuse(&op);
}

mptl_status mptl_dnn_forward(mptl_dnn *op, float *dst, const void *src, const void *packed,
                             const float *bias) {
  (void)dst, (void)src, (void)packed, (void)bias;
  return refuse(&op);
}

mptl_status mptl_dnn_backward_data(mptl_dnn *op, float *diff_src, const void *diff_dst,
                                   const void *packed) {
  (void)diff_src, (void)diff_dst, (void)packed;
  return refuse(&op);
}

mptl_status mptl_dnn_backward_weights(mptl_dnn *op, float *diff_weights, float *diff_bias,
                                      const void *src, const void *diff_dst) {
  (void)diff_weights, (void)diff_bias, (void)src, (void)diff_dst;
  return refuse(&op);
}

const char *mptl_dnn_describe(const mptl_dnn *op) {
  (void)op;
  return "";
}

const char *mptl_dnn_implementation(const mptl_dnn *op, mptl_pass pass) {
  (void)op, (void)pass;
  return "";
}

bool mptl_dnn_supports(mptl_compute compute) {
  (void)compute;
  return false;
}

bool mptl_dnn_has_amx(void) { return false; }

const char *mptl_dnn_version(void) { return "none"; }
