/* Describes a convolution as an operation graph of cuDNN. */
#include "backend/cuda/dnn_graph.h"

static cudnnDataType_t data_type(mptl_cuda_type type) {
  static const cudnnDataType_t types[MPTL_CUDA_TYPES] = {CUDNN_DATA_FLOAT, CUDNN_DATA_FLOAT,
                                                         CUDNN_DATA_BFLOAT16, CUDNN_DATA_FP8_E4M3,
                                                         CUDNN_DATA_FP8_E5M2};
  return types[type];
}

/* Adds a tensor of logical dimensions (n, c, h, w) that is stored as [n][h][w][c]. */
static mptl_status add_tensor(mptl_dnn_pool *pool, cudnnBackendDescriptor_t *d,
                              const int64_t dims[4], cudnnDataType_t type, mptl_dnn_id id) {
  const int64_t strides[4] = {dims[1] * dims[2] * dims[3], 1, dims[3] * dims[1], dims[1]};
  const bool not_in_memory = id == MPTL_DNN_SUM;
  const char *what = "tensor";
  MPTL_TRY(mptl_dnn_pool_add(pool, d, CUDNN_BACKEND_TENSOR_DESCRIPTOR));
  MPTL_TRY(mptl_dnn_set(*d, what, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type));
  MPTL_TRY(mptl_dnn_set(*d, what, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims));
  MPTL_TRY(mptl_dnn_set(*d, what, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides));
  MPTL_TRY(mptl_dnn_set_int(*d, what, CUDNN_ATTR_TENSOR_UNIQUE_ID, id));
  MPTL_TRY(mptl_dnn_set_int(*d, what, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 16));
  MPTL_TRY(
      mptl_dnn_set(*d, what, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &not_in_memory));
  return mptl_dnn_finalize(*d, what);
}

static mptl_status add_window(mptl_dnn_pool *pool, cudnnBackendDescriptor_t *d,
                              const mptl_conv_shape *s) {
  const int64_t strides[] = {s->sh, s->sw}, padding[] = {s->ph, s->pw},
                dilations[] = {s->dh, s->dw};
  const cudnnDataType_t sums = CUDNN_DATA_FLOAT;
  const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
  const char *what = "convolution";
  MPTL_TRY(mptl_dnn_pool_add(pool, d, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR));
  MPTL_TRY(mptl_dnn_set_int(*d, what, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, 2));
  MPTL_TRY(
      mptl_dnn_set(*d, what, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &sums));
  MPTL_TRY(mptl_dnn_set(*d, what, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1,
                        &mode));
  MPTL_TRY(
      mptl_dnn_set(*d, what, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, padding));
  MPTL_TRY(
      mptl_dnn_set(*d, what, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, padding));
  MPTL_TRY(
      mptl_dnn_set(*d, what, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dilations));
  MPTL_TRY(
      mptl_dnn_set(*d, what, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, strides));
  return mptl_dnn_finalize(*d, what);
}

/* For each pass: the ids of x, weights and y, and cuDNN's names of the operation and its parts. */
enum { PARTS = MPTL_PRODUCT_ARRAYS };
static const struct operation {
  mptl_dnn_id ids[PARTS];
  cudnnBackendDescriptorType_t type;
  cudnnBackendAttributeName_t parts[PARTS], window;
  cudnnBackendAttributeName_t alpha, beta; /* factors of the product and of the old result */
} operations[MPTL_PASSES] = {
    {{MPTL_DNN_FIRST, MPTL_DNN_SECOND, MPTL_DNN_RESULT},
     CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
     {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
      CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y},
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
    {{MPTL_DNN_RESULT, MPTL_DNN_SECOND, MPTL_DNN_FIRST},
     CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
     {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
      CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY},
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
    {{MPTL_DNN_FIRST, MPTL_DNN_RESULT, MPTL_DNN_SECOND},
     CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
     {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
      CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY},
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA}};

static mptl_status add_convolution(mptl_dnn_pool *pool, cudnnBackendDescriptor_t *d,
                                   const struct operation *o,
                                   const cudnnBackendDescriptor_t parts[PARTS],
                                   cudnnBackendDescriptor_t window) {
  const float one = 1, zero = 0;
  const char *what = "operation";
  MPTL_TRY(mptl_dnn_pool_add(pool, d, o->type));
  MPTL_TRY(mptl_dnn_set_descriptor(*d, what, o->window, window));
  for (int i = 0; i < PARTS; i++)
    MPTL_TRY(mptl_dnn_set_descriptor(*d, what, o->parts[i], parts[i]));
  MPTL_TRY(mptl_dnn_set(*d, what, o->alpha, CUDNN_TYPE_FLOAT, 1, &one));
  MPTL_TRY(mptl_dnn_set(*d, what, o->beta, CUDNN_TYPE_FLOAT, 1, &zero));
  return mptl_dnn_finalize(*d, what);
}

/* Adds an operation that stores sums unchanged. */
static mptl_status add_copy(mptl_dnn_pool *pool, cudnnBackendDescriptor_t *d,
                            cudnnBackendDescriptor_t sums, cudnnBackendDescriptor_t result) {
  const cudnnPointwiseMode_t mode = CUDNN_POINTWISE_IDENTITY;
  const cudnnDataType_t type = CUDNN_DATA_FLOAT;
  const char *what = "copy of sums";
  cudnnBackendDescriptor_t copy;
  MPTL_TRY(mptl_dnn_pool_add(pool, &copy, CUDNN_BACKEND_POINTWISE_DESCRIPTOR));
  MPTL_TRY(
      mptl_dnn_set(copy, what, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode));
  MPTL_TRY(
      mptl_dnn_set(copy, what, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &type));
  MPTL_TRY(mptl_dnn_finalize(copy, what));
  MPTL_TRY(mptl_dnn_pool_add(pool, d, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR));
  MPTL_TRY(mptl_dnn_set_descriptor(*d, what, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, copy));
  MPTL_TRY(mptl_dnn_set_descriptor(*d, what, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, sums));
  MPTL_TRY(mptl_dnn_set_descriptor(*d, what, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, result));
  return mptl_dnn_finalize(*d, what);
}

/* The results of cuDNN's ready-made engines have the operands' type. For wider results, cuDNN
 * compiles an engine; in the backward passes it does so only if an operation follows the
 * convolution: here, a copy. */
mptl_status mptl_dnn_add_graph(mptl_dnn_pool *pool, cudnnBackendDescriptor_t *graph,
                               const mptl_dnn_device *device, const mptl_dnn_key *key) {
  const mptl_conv_shape *s = &key->shape;
  const struct operation *o = &operations[key->pass];
  /* cuDNN computes the channel groups from the channels of x and weights. */
  const int64_t dims[PARTS][4] = {{s->n, s->ic, s->ih, s->iw},
                                  {s->oc, s->ic / s->groups, s->kh, s->kw},
                                  {s->n, s->oc, s->oh, s->ow}};
  const bool copied = data_type(key->first) != CUDNN_DATA_FLOAT;
  const char *what = "operation graph";
  cudnnBackendDescriptor_t parts[PARTS], window, result = NULL, nodes[2];
  for (int i = 0; i < PARTS; i++) {
    if (o->ids[i] != MPTL_DNN_RESULT) {
      MPTL_TRY(add_tensor(pool, &parts[i], dims[i],
                          data_type(o->ids[i] == MPTL_DNN_FIRST ? key->first : key->second),
                          o->ids[i]));
      continue;
    }
    MPTL_TRY(add_tensor(pool, &parts[i], dims[i], CUDNN_DATA_FLOAT,
                        copied ? MPTL_DNN_SUM : MPTL_DNN_RESULT));
    if (copied) {
      MPTL_TRY(add_tensor(pool, &result, dims[i], CUDNN_DATA_FLOAT, MPTL_DNN_RESULT));
      MPTL_TRY(add_copy(pool, &nodes[1], parts[i], result));
    }
  }
  MPTL_TRY(add_window(pool, &window, s));
  MPTL_TRY(add_convolution(pool, &nodes[0], o, parts, window));
  MPTL_TRY(mptl_dnn_pool_add(pool, graph, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR));
  MPTL_TRY(mptl_dnn_set(*graph, what, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                        copied ? 2 : 1, nodes));
  if (device->handle != NULL)
    MPTL_TRY(mptl_dnn_set(*graph, what, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1,
                          &device->handle));
  return mptl_dnn_finalize(*graph, what);
}

mptl_status mptl_dnn_make_pack(cudnnBackendDescriptor_t *pack, void *const at[]) {
  const int64_t ids[MPTL_DNN_OPERANDS] = {MPTL_DNN_FIRST, MPTL_DNN_SECOND, MPTL_DNN_RESULT};
  const char *what = "variant pack";
  MPTL_TRY(mptl_dnn_status(
      cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, pack), what));
  MPTL_TRY(mptl_dnn_set(*pack, what, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64,
                        MPTL_DNN_OPERANDS, ids));
  MPTL_TRY(mptl_dnn_set(*pack, what, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR,
                        MPTL_DNN_OPERANDS, at));
  MPTL_TRY(mptl_dnn_set(*pack, what, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1,
                        &at[MPTL_DNN_OPERANDS]));
  return mptl_dnn_finalize(*pack, what);
}
