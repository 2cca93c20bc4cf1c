/* Tensors: a small header for counted, aligned memory. */
#include "mptl/tensor.h"

#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "core/memory.h"

struct mptl_storage {
  mptl_device *device; /* NULL: ordinary memory of the host */
  bool in_device; /* data is in the device's memory; else in the host's, allocated for the device */
  size_t bytes;
  float *data;
};

static mptl_status check_dims(size_t *numel, int ndim, const int64_t *dims) {
  if (ndim < 0 || ndim > MPTL_MAX_DIMS)
    return mptl_fail(MPTL_EINVAL, "tensor: %d dimensions, accepted are 0 to %d", ndim,
                     MPTL_MAX_DIMS);
  *numel = 1;
  for (int i = 0; i < ndim; i++) {
    if (dims[i] < 0)
      return mptl_fail(MPTL_EINVAL, "tensor: dimension %d is %lld, must not be negative", i + 1,
                       (long long)dims[i]);
    if (__builtin_mul_overflow(*numel, (size_t)dims[i], numel) ||
        *numel > SIZE_MAX / sizeof(float) / 2)
      return mptl_fail(MPTL_EINVAL, "tensor: too many elements for memory");
  }
  return MPTL_OK;
}

static mptl_tensor *new_header(mptl_storage *storage, int ndim, const int64_t *dims) {
  mptl_tensor *t = calloc(1, sizeof *t);
  if (t == NULL) return NULL;
  t->refs = 1;
  t->ndim = ndim;
  if (ndim > 0) memcpy(t->dims, dims, (size_t)ndim * sizeof *dims);
  t->data = storage->data;
  t->storage = storage;
  return t;
}

static float *allocate(const mptl_storage *s) {
  if (s->device == NULL) return mptl_memory_alloc(s->bytes);
  return s->in_device ? s->device->backend->alloc(s->device, s->bytes)
                      : mptl_device_host_alloc(s->device, s->bytes);
}

static void release(mptl_storage *s) {
  if (s->device == NULL)
    mptl_memory_free(s->data);
  else if (s->in_device)
    s->device->backend->free(s->device, s->data);
  else
    mptl_device_host_free(s->device, s->data);
  mptl_device_close(s->device);
  free(s);
}

static bool on_host(const mptl_storage *s) { return !s->in_device || s->device->backend->is_host; }

static mptl_status zero(const mptl_storage *s) {
  if (s->in_device) return s->device->backend->zero(s->device, s->data, s->bytes);
  memset(s->data, 0, s->bytes);
  return MPTL_OK;
}

/* Creates a tensor of zeros. device NULL: in ordinary memory of the host. */
static mptl_status create(mptl_tensor **tensor, mptl_device *device, bool in_device, int ndim,
                          const int64_t *dims) {
  size_t numel = 0;
  *tensor = NULL;
  MPTL_TRY(check_dims(&numel, ndim, dims));
  size_t bytes = mptl_aligned(numel * sizeof(float));
  if (bytes == 0) bytes = 64;
  mptl_storage *s = malloc(sizeof *s);
  if (s != NULL) {
    *s = (mptl_storage){
        .device = mptl_device_retain(device), .in_device = in_device, .bytes = bytes};
    s->data = allocate(s);
    if (s->data != NULL) *tensor = new_header(s, ndim, dims);
  }
  if (*tensor == NULL) {
    if (s != NULL) release(s);
    return mptl_fail(MPTL_ENOMEM, "tensor: no memory for %zu bytes", bytes);
  }
  mptl_status status = zero(s);
  if (status != MPTL_OK) {
    mptl_tensor_release(*tensor);
    *tensor = NULL;
  }
  return status;
}

mptl_status mptl_tensor_create(mptl_tensor **tensor, int ndim, const int64_t *dims) {
  return create(tensor, NULL, false, ndim, dims);
}

mptl_status mptl_tensor_create_in(mptl_tensor **tensor, mptl_device *device, int ndim,
                                  const int64_t *dims) {
  return create(tensor, device, true, ndim, dims);
}

mptl_status mptl_tensor_create_for(mptl_tensor **tensor, mptl_device *device, int ndim,
                                   const int64_t *dims) {
  return create(tensor, device->backend->is_host ? NULL : device, false, ndim, dims);
}

void mptl_tensor_retain(mptl_tensor *tensor) { tensor->refs++; }

void mptl_tensor_release(mptl_tensor *tensor) {
  if (tensor == NULL || --tensor->refs > 0) return;
  release(tensor->storage);
  free(tensor);
}

size_t mptl_tensor_numel(const mptl_tensor *tensor) {
  size_t n = 1;
  for (int i = 0; i < tensor->ndim; i++) n *= (size_t)tensor->dims[i];
  return n;
}

bool mptl_tensor_on_host(const mptl_tensor *t) { return on_host(t->storage); }

static mptl_status check_elements(const mptl_tensor *t, size_t offset, size_t n) {
  size_t numel = mptl_tensor_numel(t);
  if (offset <= numel && n <= numel - offset) return MPTL_OK;
  return mptl_fail(MPTL_EINVAL, "tensor: %zu elements at %zu, it has %zu", n, offset, numel);
}

mptl_status mptl_tensor_read(const mptl_tensor *t, size_t offset, size_t n, float *values) {
  MPTL_TRY(check_elements(t, offset, n));
  const mptl_storage *s = t->storage;
  if (s->in_device)
    return s->device->backend->download(s->device, values, t->data + offset, n * sizeof *values);
  memcpy(values, t->data + offset, n * sizeof *values);
  return MPTL_OK;
}

mptl_status mptl_tensor_write(mptl_tensor *t, size_t offset, size_t n, const float *values) {
  MPTL_TRY(check_elements(t, offset, n));
  const mptl_storage *s = t->storage;
  if (s->in_device)
    return s->device->backend->upload(s->device, t->data + offset, values, n * sizeof *values);
  memcpy(t->data + offset, values, n * sizeof *values);
  return MPTL_OK;
}
