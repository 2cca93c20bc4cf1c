/* GPUs through the CUDA runtime. */
#include "backend/cuda/runtime.h"

#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Uploads go through pinned staging memory, so that the caller may overwrite its memory at once.
 * They are placed one after the other; when the staging memory is full, an upload waits for the
 * last one before it. */
struct mptl_cuda_runtime {
  cudaEvent_t uploaded;
  char *staging;
  size_t staged;
  bool blocking; /* wait for every launch */
  struct block *blocks;
  pthread_mutex_t lock; /* of blocks: loader threads free memory, too */
};

enum { STAGING_BYTES = 32 << 20 };

/* CUDA has a current device for each thread, 0 at first. The call that follows reports errors. */
static void use(const mptl_cuda_device *device) { cudaSetDevice(device->number); }

static mptl_status check(cudaError_t error, const char *what) {
  if (error == cudaSuccess) return MPTL_OK;
  cudaGetLastError(); /* so that the next launch does not report it again */
  return mptl_fail(error == cudaErrorMemoryAllocation ? MPTL_ENOMEM : MPTL_EBACKEND, "CUDA, %s: %s",
                   what, cudaGetErrorString(error));
}

#define TRY(call, what) MPTL_TRY(check(call, what))

/* ---- Devices ---- */

mptl_status mptl_cuda_runtime_count(int *devices) {
  cudaError_t error = cudaGetDeviceCount(devices);
  if (error == cudaSuccess && *devices > 0) return MPTL_OK;
  *devices = 0;
  cudaGetLastError(); /* it stays recorded otherwise */
  if (error == cudaErrorInsufficientDriver) {
    int driver = 0;
    cudaDriverGetVersion(&driver);
    if (driver == 0) return mptl_fail(MPTL_EUNSUPPORTED, "no NVIDIA driver");
    return mptl_fail(MPTL_EUNSUPPORTED,
                     "the NVIDIA driver knows CUDA %d.%d, this build needs %d.%d", driver / 1000,
                     driver / 10 % 100, CUDART_VERSION / 1000, CUDART_VERSION / 10 % 100);
  }
  if (error == cudaSuccess || error == cudaErrorNoDevice)
    return mptl_fail(MPTL_EUNSUPPORTED, "no NVIDIA GPU");
  return mptl_fail(MPTL_EUNSUPPORTED, "no usable NVIDIA GPU: %s", cudaGetErrorString(error));
}

mptl_status mptl_cuda_runtime_describe(int number, char *text, size_t size) {
  struct cudaDeviceProp p;
  TRY(cudaGetDeviceProperties(&p, number), "properties of a device");
  snprintf(text, size, "%s, compute capability %d.%d, %.1f GiB", p.name, p.major, p.minor,
           (double)p.totalGlobalMem / 0x1p30);
  return MPTL_OK;
}

/* Reads MPTL_CUDA_BLOCKING from the environment. */
static mptl_status read_blocking(bool *blocking) {
  const char *text = getenv("MPTL_CUDA_BLOCKING");
  *blocking = text != NULL && strcmp(text, "1") == 0;
  if (*blocking || text == NULL || text[0] == '\0' || strcmp(text, "0") == 0) return MPTL_OK;
  return mptl_fail(MPTL_EINVAL, "MPTL_CUDA_BLOCKING: %.60s, accepted are 0 and 1", text);
}

static mptl_status start(mptl_cuda_device *d) {
  int major = 0, minor = 0;
  struct mptl_cuda_runtime *r = d->runtime;
  MPTL_TRY(read_blocking(&r->blocking));
  TRY(cudaSetDevice(d->number), "choosing the device");
  TRY(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, d->number),
      "compute capability");
  TRY(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, d->number),
      "compute capability");
  TRY(cudaDeviceGetAttribute(&d->multiprocessors, cudaDevAttrMultiProcessorCount, d->number),
      "multiprocessors");
  if (major < 8)
    return mptl_fail(MPTL_EUNSUPPORTED,
                     "compute capability %d.%d, the kernels are built for 8.0 and newer", major,
                     minor);
  TRY(cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking), "making a stream");
  TRY(cudaEventCreateWithFlags(&r->uploaded, cudaEventDisableTiming), "making an event");
  TRY(cudaMallocHost((void **)&r->staging, STAGING_BYTES), "memory for uploads");
  d->capability = 10 * major + minor;
  return MPTL_OK;
}

mptl_status mptl_cuda_runtime_open(mptl_cuda_device *device, int number) {
  device->number = number;
  device->runtime = calloc(1, sizeof *device->runtime);
  if (device->runtime == NULL) return mptl_fail(MPTL_ENOMEM, "no memory");
  pthread_mutex_init(&device->runtime->lock, NULL);
  return start(device);
}

void mptl_cuda_runtime_close(mptl_cuda_device *device) {
  struct mptl_cuda_runtime *r = device->runtime;
  if (r == NULL) return;
  use(device);
  if (r->staging != NULL) cudaFreeHost(r->staging);
  if (r->uploaded != NULL) cudaEventDestroy(r->uploaded);
  if (device->stream != NULL) cudaStreamDestroy(device->stream);
  pthread_mutex_destroy(&r->lock);
  free(r);
}

/* ---- Memory ---- */

/* An allocation, with its size for the count of memory. */
typedef struct block {
  void *p;
  size_t bytes;
  struct block *next;
} block;

void *mptl_cuda_alloc(mptl_device *device, size_t bytes) {
  struct mptl_cuda_runtime *r = mptl_cuda(device)->runtime;
  use(mptl_cuda(device));
  block *b = malloc(sizeof *b);
  size_t whole = bytes > SIZE_MAX - 256 ? bytes : (bytes + (bytes == 0) + 255) / 256 * 256;
  if (b == NULL || cudaMalloc(&b->p, whole) != cudaSuccess) {
    cudaGetLastError();
    free(b);
    return NULL;
  }
  b->bytes = whole;
  pthread_mutex_lock(&r->lock);
  b->next = r->blocks;
  r->blocks = b;
  pthread_mutex_unlock(&r->lock);
  mptl_memory_count((ptrdiff_t)whole);
  return b->p;
}

void mptl_cuda_free(mptl_device *device, void *p) {
  struct mptl_cuda_runtime *r = mptl_cuda(device)->runtime;
  if (p == NULL) return;
  pthread_mutex_lock(&r->lock);
  block **at = &r->blocks;
  while (*at != NULL && (*at)->p != p) at = &(*at)->next;
  block *b = *at;
  if (b != NULL) *at = b->next;
  pthread_mutex_unlock(&r->lock);
  if (b == NULL) return;
  use(mptl_cuda(device));
  cudaFree(p); /* waits for the work that may still use it */
  mptl_memory_count(-(ptrdiff_t)b->bytes);
  free(b);
}

static mptl_status upload_piece(mptl_cuda_device *d, char *to, const char *host, size_t bytes) {
  struct mptl_cuda_runtime *r = d->runtime;
  if (r->staged + bytes > STAGING_BYTES) {
    TRY(cudaEventSynchronize(r->uploaded), "waiting for an upload");
    r->staged = 0;
  }
  char *piece = r->staging + r->staged;
  memcpy(piece, host, bytes);
  r->staged += (bytes + 255) / 256 * 256;
  TRY(cudaMemcpyAsync(to, piece, bytes, cudaMemcpyHostToDevice, d->stream), "upload");
  return check(cudaEventRecord(r->uploaded, d->stream), "upload");
}

mptl_status mptl_cuda_upload(mptl_device *device, void *to, const void *host, size_t bytes) {
  enum { PIECE = STAGING_BYTES / 4 };
  use(mptl_cuda(device));
  for (size_t at = 0; at < bytes; at += PIECE)
    MPTL_TRY(upload_piece(mptl_cuda(device), (char *)to + at, (const char *)host + at,
                          bytes - at < PIECE ? bytes - at : PIECE));
  return MPTL_OK;
}

/* If there is no pinned memory, ordinary memory is used. */
void *mptl_cuda_host_alloc(mptl_device *device, size_t bytes) {
  void *p = NULL;
  use(mptl_cuda(device));
  if (cudaMallocHost(&p, bytes > 0 ? bytes : 1) == cudaSuccess) return p;
  cudaGetLastError();
  return mptl_device_host_alloc(NULL, bytes);
}

/* Whether memory is pinned, so that the device can read it. */
static bool device_reads(mptl_device *device, const void *host) {
  struct cudaPointerAttributes a;
  use(mptl_cuda(device));
  if (cudaPointerGetAttributes(&a, host) == cudaSuccess) return a.type == cudaMemoryTypeHost;
  cudaGetLastError();
  return false;
}

void mptl_cuda_host_free(mptl_device *device, void *p) {
  if (p != NULL && device_reads(device, p))
    cudaFreeHost(p); /* waits for uploads from it */
  else
    mptl_device_host_free(NULL, p);
}

mptl_status mptl_cuda_lend(mptl_device *device, void *to, const void *host, size_t bytes) {
  mptl_cuda_device *d = mptl_cuda(device);
  if (!device_reads(device, host)) return mptl_cuda_upload(device, to, host, bytes);
  return check(cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, d->stream), "upload");
}

mptl_status mptl_cuda_synchronize(mptl_device *device) {
  mptl_cuda_device *d = mptl_cuda(device);
  use(d);
  return check(cudaStreamSynchronize(d->stream), "work on the device");
}

mptl_status mptl_cuda_download(mptl_device *device, void *host, const void *from, size_t bytes) {
  mptl_cuda_device *d = mptl_cuda(device);
  use(d);
  TRY(cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, d->stream), "download");
  return mptl_cuda_synchronize(device);
}

mptl_status mptl_cuda_zero(mptl_device *device, void *p, size_t bytes) {
  mptl_cuda_device *d = mptl_cuda(device);
  use(d);
  return check(cudaMemsetAsync(p, 0, bytes, d->stream), "clearing memory");
}

mptl_status mptl_cuda_copy(mptl_cuda_device *d, void *to, const void *from, size_t bytes) {
  use(d);
  return check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, d->stream), "copying");
}

/* ---- Launches ---- */

void mptl_cuda_enter(mptl_cuda_device *d) { use(d); }

mptl_status mptl_cuda_settle(mptl_cuda_device *d, const char *what) {
  return d->runtime->blocking ? check(cudaStreamSynchronize(d->stream), what) : MPTL_OK;
}

mptl_status mptl_cuda_leave_call(mptl_cuda_device *d, int error, const char *call) {
  if (error == 0 && !d->runtime->blocking) return MPTL_OK;
  char what[160];
  snprintf(what, sizeof what, "%s %.120s", error != 0 ? "starting" : "running", call);
  TRY((cudaError_t)error, what);
  return mptl_cuda_settle(d, what);
}
