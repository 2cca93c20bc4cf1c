/* GPUs through the CUDA runtime. */
#include "backend/cuda/runtime.h"

#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The open device. Uploads go through a piece of the host's memory that the device reads by itself, so that the caller's may be
 * overwritten at once: one behind the other, until there is no room and the last one has to be waited for. */
static struct {
  int device, capability, multiprocessors;
  cudaStream_t stream;
  cudaEvent_t uploaded;
  char *staging;
  size_t staged;
  bool blocking; /* every launch is waited for */
} open_device = {.device = -1};

enum { STAGING_BYTES = 32 << 20 };

/* CUDA's device is one of the thread's: the first call of another thread would make a context on device 0. */
static _Thread_local bool on_device;

static void use_device(void) {
  if (!on_device && open_device.device >= 0) on_device = cudaSetDevice(open_device.device) == cudaSuccess;
}

static mptl_status check(cudaError_t error, const char *what) {
  if (error == cudaSuccess) return MPTL_OK;
  cudaGetLastError(); /* told here, and not once more by the next launch */
  return mptl_fail(error == cudaErrorMemoryAllocation ? MPTL_ENOMEM : MPTL_EBACKEND, "CUDA, %s: %s", what,
                   cudaGetErrorString(error));
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
    return mptl_fail(MPTL_EUNSUPPORTED, "the NVIDIA driver knows CUDA %d.%d, this build needs %d.%d", driver / 1000,
                     driver / 10 % 100, CUDART_VERSION / 1000, CUDART_VERSION / 10 % 100);
  }
  if (error == cudaSuccess || error == cudaErrorNoDevice) return mptl_fail(MPTL_EUNSUPPORTED, "no NVIDIA GPU");
  return mptl_fail(MPTL_EUNSUPPORTED, "no usable NVIDIA GPU: %s", cudaGetErrorString(error));
}

mptl_status mptl_cuda_runtime_describe(int device, char *text, size_t size) {
  struct cudaDeviceProp p;
  TRY(cudaGetDeviceProperties(&p, device), "properties of a device");
  snprintf(text, size, "%s, compute capability %d.%d, %.1f GiB", p.name, p.major, p.minor, (double)p.totalGlobalMem / 0x1p30);
  return MPTL_OK;
}

/* MPTL_CUDA_BLOCKING in the environment. */
static mptl_status read_blocking(bool *blocking) {
  const char *text = getenv("MPTL_CUDA_BLOCKING");
  *blocking = text != NULL && strcmp(text, "1") == 0;
  if (*blocking || text == NULL || text[0] == '\0' || strcmp(text, "0") == 0) return MPTL_OK;
  return mptl_fail(MPTL_EINVAL, "MPTL_CUDA_BLOCKING: %.60s, accepted are 0 and 1", text);
}

static mptl_status start(int device) {
  int major = 0, minor = 0;
  MPTL_TRY(read_blocking(&open_device.blocking));
  TRY(cudaSetDevice(device), "choosing the device");
  TRY(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "compute capability");
  TRY(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "compute capability");
  TRY(cudaDeviceGetAttribute(&open_device.multiprocessors, cudaDevAttrMultiProcessorCount, device), "multiprocessors");
  if (major < 8)
    return mptl_fail(MPTL_EUNSUPPORTED, "compute capability %d.%d, the kernels are built for 8.0 and newer", major, minor);
  TRY(cudaStreamCreateWithFlags(&open_device.stream, cudaStreamNonBlocking), "making a stream");
  TRY(cudaEventCreateWithFlags(&open_device.uploaded, cudaEventDisableTiming), "making an event");
  TRY(cudaMallocHost((void **)&open_device.staging, STAGING_BYTES), "memory for uploads");
  open_device.capability = 10 * major + minor;
  open_device.device = device;
  on_device = true;
  return MPTL_OK;
}

mptl_status mptl_cuda_runtime_open(int device) {
  if (open_device.device < 0) return start(device);
  if (open_device.device == device) return MPTL_OK;
  return mptl_fail(MPTL_EUNSUPPORTED, "this process uses cuda:%d already, it can have one GPU", open_device.device);
}

int mptl_cuda_runtime_device(void) { return open_device.device; }
mptl_cuda_stream mptl_cuda_runtime_stream(void) { return open_device.stream; }
int mptl_cuda_runtime_capability(void) { return open_device.capability; }
int mptl_cuda_runtime_multiprocessors(void) { return open_device.multiprocessors; }

/* ---- Memory ---- */

/* Sizes of what is allocated, to be counted when it is freed. */
typedef struct block {
  void *p;
  size_t bytes;
  struct block *next;
} block;

static block *blocks;
static pthread_mutex_t blocks_lock = PTHREAD_MUTEX_INITIALIZER;

static void *allocate(size_t bytes) {
  use_device();
  block *b = malloc(sizeof *b);
  size_t whole = bytes > SIZE_MAX - 256 ? bytes : (bytes + (bytes == 0) + 255) / 256 * 256;
  if (b == NULL || cudaMalloc(&b->p, whole) != cudaSuccess) {
    cudaGetLastError();
    free(b);
    return NULL;
  }
  b->bytes = whole;
  pthread_mutex_lock(&blocks_lock);
  b->next = blocks;
  blocks = b;
  pthread_mutex_unlock(&blocks_lock);
  mptl_memory_count((ptrdiff_t)whole);
  return b->p;
}

static void release(void *p) {
  if (p == NULL) return;
  pthread_mutex_lock(&blocks_lock);
  block **at = &blocks;
  while (*at != NULL && (*at)->p != p) at = &(*at)->next;
  block *b = *at;
  if (b != NULL) *at = b->next;
  pthread_mutex_unlock(&blocks_lock);
  if (b == NULL) return;
  use_device();
  cudaFree(p); /* waits for the work that may still use it */
  mptl_memory_count(-(ptrdiff_t)b->bytes);
  free(b);
}

static mptl_status upload_piece(char *to, const char *host, size_t bytes) {
  if (open_device.staged + bytes > STAGING_BYTES) {
    TRY(cudaEventSynchronize(open_device.uploaded), "waiting for an upload");
    open_device.staged = 0;
  }
  char *piece = open_device.staging + open_device.staged;
  memcpy(piece, host, bytes);
  open_device.staged += (bytes + 255) / 256 * 256;
  TRY(cudaMemcpyAsync(to, piece, bytes, cudaMemcpyHostToDevice, open_device.stream), "upload");
  return check(cudaEventRecord(open_device.uploaded, open_device.stream), "upload");
}

static mptl_status upload(void *to, const void *host, size_t bytes) {
  enum { PIECE = STAGING_BYTES / 4 };
  use_device();
  for (size_t at = 0; at < bytes; at += PIECE)
    MPTL_TRY(upload_piece((char *)to + at, (const char *)host + at, bytes - at < PIECE ? bytes - at : PIECE));
  return MPTL_OK;
}

/* Memory that the device cannot read by itself will do, too. */
static void *host_alloc(size_t bytes) {
  void *p = NULL;
  use_device();
  if (cudaMallocHost(&p, bytes > 0 ? bytes : 1) == cudaSuccess) return p;
  cudaGetLastError();
  return mptl_host_memory.host_alloc(bytes);
}

static bool device_reads(const void *host) {
  struct cudaPointerAttributes a;
  use_device();
  if (cudaPointerGetAttributes(&a, host) == cudaSuccess) return a.type == cudaMemoryTypeHost;
  cudaGetLastError();
  return false;
}

static void host_free(void *p) {
  if (p != NULL && device_reads(p))
    cudaFreeHost(p); /* waits for uploads from it */
  else
    mptl_host_memory.host_free(p);
}

static mptl_status lend(void *to, const void *host, size_t bytes) {
  if (!device_reads(host)) return upload(to, host, bytes);
  return check(cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, open_device.stream), "upload");
}

static mptl_status synchronize(void) {
  use_device();
  return check(cudaStreamSynchronize(open_device.stream), "work on the device");
}

static mptl_status download(void *host, const void *from, size_t bytes) {
  use_device();
  TRY(cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, open_device.stream), "download");
  return synchronize();
}

static mptl_status zero(void *p, size_t bytes) {
  use_device();
  return check(cudaMemsetAsync(p, 0, bytes, open_device.stream), "clearing memory");
}

mptl_status mptl_cuda_runtime_copy(void *to, const void *from, size_t bytes) {
  use_device();
  return check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, open_device.stream), "copying");
}

const mptl_memory mptl_cuda_memory = {.is_host = false,
                                      .alloc = allocate,
                                      .free = release,
                                      .upload = upload,
                                      .download = download,
                                      .zero = zero,
                                      .synchronize = synchronize,
                                      .host_alloc = host_alloc,
                                      .host_free = host_free,
                                      .lend = lend};

/* ---- Launches ---- */

void mptl_cuda_enter(void) { use_device(); }

mptl_status mptl_cuda_runtime_settle(const char *what) {
  return open_device.blocking ? check(cudaStreamSynchronize(open_device.stream), what) : MPTL_OK;
}

mptl_status mptl_cuda_leave_call(int error, const char *call) {
  if (error == 0 && !open_device.blocking) return MPTL_OK;
  char what[160];
  snprintf(what, sizeof what, "%s %.120s", error != 0 ? "starting" : "running", call);
  TRY((cudaError_t)error, what);
  return mptl_cuda_runtime_settle(what);
}
