/* The CUDA backend's runtime.c on a stand-in for the CUDA runtime, which does the work in a stream
 * only when somebody waits, as CUDA may. So the specs find uploads whose staging memory is used
 * again too early.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../engine/backend/cuda/runtime.c"
#include "../c/dnn_check.h"
#include "mptl/program.h"

#define EXPECT(what) CHECK(what, "%s", #what)

/* ---- The stream: copies, and fills where from is NULL ---- */

enum { MOST = 4096 };
static struct {
  char *to;
  const char *from;
  size_t bytes;
  int value;
} queue[MOST];
static int queued, done, marked; /* marked: work before the event */

static void work_until(int end) {
  for (; done < end; done++)
    if (queue[done].from != NULL)
      memcpy(queue[done].to, queue[done].from, queue[done].bytes);
    else
      memset(queue[done].to, queue[done].value, queue[done].bytes);
}

static cudaError_t later(void *to, const void *from, size_t bytes, int value) {
  EXPECT(queued < MOST);
  queue[queued].to = to, queue[queued].from = from, queue[queued].bytes = bytes,
  queue[queued].value = value;
  queued++;
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t s) {
  (void)kind, (void)s;
  return later(to, from, bytes, 0);
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t s) {
  (void)s;
  return later(to, NULL, bytes, value);
}

static cudaError_t kernel_error = cudaSuccess; /* the next wait returns it once */

cudaError_t cudaStreamSynchronize(cudaStream_t s) {
  (void)s;
  work_until(queued);
  cudaError_t error = kernel_error;
  kernel_error = cudaSuccess;
  return error;
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
  (void)e, (void)s;
  marked = queued;
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t e) {
  (void)e;
  work_until(marked);
  return cudaSuccess;
}

/* ---- The rest ---- */

static size_t left = SIZE_MAX; /* bytes that can still be allocated */

static _Thread_local int current; /* the thread's device; 0 until it chooses another, as in CUDA */
static int elsewhere;             /* calls while another device than 1 was current */

cudaError_t cudaMalloc(void **p, size_t bytes) {
  elsewhere += current != 1;
  if (bytes > left) return cudaErrorMemoryAllocation;
  *p = aligned_alloc(256, bytes);
  return *p ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFree(void *p) {
  free(p);
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void **p, size_t bytes) {
  elsewhere += current != 1;
  *p = malloc(bytes);
  return cudaSuccess;
}

static int devices, capability_major = 8;
static cudaError_t count_error = cudaSuccess;

cudaError_t cudaGetDeviceCount(int *count) {
  *count = devices;
  return count_error;
}

cudaError_t cudaDriverGetVersion(int *version) {
  *version = 12020;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
  (void)device;
  *value = attribute == cudaDevAttrComputeCapabilityMajor ? capability_major : 6;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (device >= devices) return cudaErrorInvalidDevice;
  current = device;
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void *p) {
  elsewhere += current != 1;
  free(p);
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *a, const void *p) {
  (void)p;
  a->type = cudaMemoryTypeHost;
  return cudaSuccess;
}

cudaError_t cudaGetLastError(void) { return cudaSuccess; }
const char *cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorUnknown ? "unknown error" : "another error";
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags) {
  (void)flags;
  *s = NULL;
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t s) {
  (void)s;
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t e) {
  (void)e;
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags) {
  (void)flags;
  *e = NULL;
  return cudaSuccess;
}

/* ---- Tests ---- */

static void refuses(mptl_status status, mptl_status expected, const char *message) {
  CHECK(status == expected && strcmp(mptl_error(), message) == 0,
        "status %d, \"%s\"; expected %d, \"%s\"", (int)status, mptl_error(), (int)expected,
        message);
}

static void says_what_is_missing(void) {
  int count;
  refuses(mptl_cuda_runtime_count(&count), MPTL_EUNSUPPORTED, "no NVIDIA GPU");
  count_error = cudaErrorInsufficientDriver;
  char old[96];
  snprintf(old, sizeof old, "the NVIDIA driver knows CUDA 12.2, this build needs %d.%d",
           CUDART_VERSION / 1000, CUDART_VERSION / 10 % 100);
  refuses(mptl_cuda_runtime_count(&count), MPTL_EUNSUPPORTED, old);
  count_error = cudaErrorUnknown;
  refuses(mptl_cuda_runtime_count(&count), MPTL_EUNSUPPORTED,
          "no usable NVIDIA GPU: unknown error");
  count_error = cudaSuccess;
  devices = 2;
  EXPECT(mptl_cuda_runtime_count(&count) == MPTL_OK && count == 2);
}

static mptl_cuda_device opened; /* cuda:1 */
static mptl_device *const gpu = &opened.base;

static void opens_devices(void) {
  mptl_cuda_device other = {.number = 0};
  capability_major = 7;
  refuses(mptl_cuda_runtime_open(&opened, 1), MPTL_EUNSUPPORTED,
          "compute capability 7.6, the kernels are built for 8.0 and newer");
  mptl_cuda_runtime_close(&opened);
  capability_major = 9;
  EXPECT(mptl_cuda_runtime_open(&opened, 1) == MPTL_OK && opened.number == 1 &&
         opened.capability == 96);
  EXPECT(mptl_cuda_runtime_open(&other, 0) == MPTL_OK && other.number == 0);
  mptl_cuda_runtime_close(&other);
}

static unsigned char byte_of(size_t round, size_t i) {
  return (unsigned char)(round * 131 + i % 251);
}

/* Counts the wrong bytes of an upload. */
static size_t wrong(const char *bytes, size_t round, size_t first, size_t end) {
  size_t count = 0;
  for (size_t i = first; i < end; i++) count += (unsigned char)bytes[i] != byte_of(round, i);
  return count;
}

/* Uploads from memory that is overwritten at once: many that together exceed the staging memory,
 * then a single one that exceeds it. */
static void uploads_in_order(void) {
  enum { ROUNDS = 40, BYTES = 3 << 20 };
  size_t whole = (size_t)ROUNDS * BYTES;
  char *device = mptl_cuda_alloc(gpu, whole), *host = malloc(whole);
  for (size_t round = 0; round < ROUNDS; round++) {
    for (size_t i = 0; i < BYTES; i++) host[i] = (char)byte_of(round, i);
    EXPECT(mptl_cuda_upload(gpu, device + round * BYTES, host, BYTES - round) == MPTL_OK);
    memset(host, 0, BYTES);
  }
  EXPECT(mptl_cuda_zero(gpu, device, 10) == MPTL_OK);
  EXPECT(mptl_cuda_download(gpu, host, device, whole) == MPTL_OK);
  for (size_t round = 0; round < ROUNDS; round++) {
    size_t bytes = wrong(host + round * BYTES, round, round == 0 ? 10 : 0, BYTES - round);
    CHECK(bytes == 0, "upload %zu: %zu bytes are others", round, bytes);
  }
  for (size_t i = 0; i < 10; i++) EXPECT(host[i] == 0);
  for (size_t i = 0; i < whole; i++) host[i] = (char)byte_of(3, i);
  EXPECT(mptl_cuda_upload(gpu, device, host, whole) == MPTL_OK);
  memset(host, 0, whole);
  EXPECT(mptl_cuda_download(gpu, host, device, whole) == MPTL_OK);
  EXPECT(wrong(host, 3, 0, whole) == 0);
  mptl_cuda_free(gpu, device);
  free(host);
}

static void counts_memory(void) {
  size_t before = mptl_memory_current();
  void *a = mptl_cuda_alloc(gpu, 1000), *b = mptl_cuda_alloc(gpu, 0);
  EXPECT(a != NULL && b != NULL && mptl_memory_current() == before + 1024 + 256);
  mptl_cuda_free(gpu, a);
  EXPECT(mptl_memory_current() == before + 256);
  mptl_cuda_free(gpu, b);
  mptl_cuda_free(gpu, NULL);
  left = 100;
  EXPECT(mptl_cuda_alloc(gpu, 1000) == NULL && mptl_memory_current() == before);
  left = SIZE_MAX;
}

static void *allocates(void *unused) {
  (void)unused;
  void *host = mptl_cuda_host_alloc(gpu, 100), *device = mptl_cuda_alloc(gpu, 100);
  EXPECT(host != NULL && device != NULL);
  mptl_cuda_host_free(gpu, host);
  mptl_cuda_free(gpu, device);
  return NULL;
}

/* A thread allocates on the device that it names, even if its current device is another one. */
static void is_on_its_device_in_all_threads(void) {
  pthread_t thread;
  elsewhere = 0;
  EXPECT(pthread_create(&thread, NULL, allocates, NULL) == 0 && pthread_join(thread, NULL) == 0);
  CHECK(elsewhere == 0, "%d calls were on another device", elsewhere);
}

static int launch_add(int error) { return error; }

static void names_the_launch(void) {
  EXPECT(MPTL_CUDA_LAUNCH(&opened, launch_add(0)) == MPTL_OK);
  refuses(MPTL_CUDA_LAUNCH(&opened, launch_add(cudaErrorUnknown)), MPTL_EBACKEND,
          "CUDA, starting launch_add(cudaErrorUnknown): unknown error");
  kernel_error = cudaErrorUnknown; /* the next wait reports it */
  EXPECT(MPTL_CUDA_LAUNCH(&opened, launch_add(0)) == MPTL_OK);
  refuses(mptl_cuda_synchronize(gpu), MPTL_EBACKEND, "CUDA, work on the device: unknown error");
  opened.runtime->blocking = true;
  kernel_error = cudaErrorUnknown;
  refuses(MPTL_CUDA_LAUNCH(&opened, launch_add(0)), MPTL_EBACKEND,
          "CUDA, running launch_add(0): unknown error");
  kernel_error = cudaErrorUnknown;
  refuses(mptl_cuda_settle(&opened, "the libraries' work"), MPTL_EBACKEND,
          "CUDA, the libraries' work: unknown error");
  opened.runtime->blocking = false;
}

static void reads_blocking(void) {
  bool blocking;
  unsetenv("MPTL_CUDA_BLOCKING");
  EXPECT(read_blocking(&blocking) == MPTL_OK && !blocking);
  setenv("MPTL_CUDA_BLOCKING", "1", 1);
  EXPECT(read_blocking(&blocking) == MPTL_OK && blocking);
  setenv("MPTL_CUDA_BLOCKING", "0", 1);
  EXPECT(read_blocking(&blocking) == MPTL_OK && !blocking);
  setenv("MPTL_CUDA_BLOCKING", "yes", 1);
  refuses(read_blocking(&blocking), MPTL_EINVAL, "MPTL_CUDA_BLOCKING: yes, accepted are 0 and 1");
  unsetenv("MPTL_CUDA_BLOCKING");
}

int main(void) {
  reads_blocking();
  says_what_is_missing();
  opens_devices();
  uploads_in_order();
  counts_memory();
  is_on_its_device_in_all_threads();
  names_the_launch();
  return failures > 0;
}
