/* The language of the .cu files: CUDA C++ under nvcc, the shim under other compilers. Besides
 * CUDA's names:
 *
 *   MPTL_LAUNCH(kernel, grid, block, shared_bytes, stream)(arguments)
 *                                     launches a kernel
 *   MPTL_NOINLINE                     a function that is not inlined
 *   MPTL_PARAM                        before a kernel's struct parameters
 *   MPTL_SHARED(type, name, [n])      declares a shared array of the block
 *   MPTL_DYNAMIC_SHARED(type, name)   declares the block's dynamic shared memory
 *   mptl_load<T>, mptl_store<T>       aligned accesses of up to 16 bytes
 *   mptl_peek(address)                reads a word that other threads may change atomically: its
 *                                     present or an earlier value
 *   mptl_allow_shared(kernel, bytes)  call before a launch with that many bytes of dynamic shared
 *                                     memory; returns 0 or an error
 *   mptl_store_16(p, uint4)           one access of 16 bytes to global memory, which the compiler
 *                                     does not split
 *   mptl_launched()                   0, or the error of the launches so far
 */
#ifndef MPTL_KERNELS_CUDA_COMPAT_H
#define MPTL_KERNELS_CUDA_COMPAT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __CUDACC__

#include <cuda_runtime.h>

#include <atomic>

#define MPTL_NOINLINE __noinline__
#define MPTL_PARAM const __grid_constant__ /* taking a parameter's address does not copy it */
#define MPTL_LAUNCH(kernel, grid, block, shared_bytes, stream) \
  kernel<<<(grid), (block), (shared_bytes), (stream)>>>
#define MPTL_SHARED(type, name, dimensions) __shared__ type name dimensions
#define MPTL_DYNAMIC_SHARED(type, name)                                \
  extern __shared__ __align__(16) unsigned char mptl_dynamic_shared[]; \
  type *name = (type *)mptl_dynamic_shared

template <typename Kernel>
static inline int mptl_allow_shared(Kernel *kernel, size_t bytes) {
  if (bytes <= 48 << 10) return 0;
  return (int)cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
}

static inline int mptl_launched(void) { return (int)cudaGetLastError(); }

/* Multiprocessors of the current device. The numbers are kept, because every launch asks for
 * them. */
inline unsigned mptl_multiprocessors(void) {
  enum { KEPT = 64 };
  static std::atomic<unsigned> kept[KEPT]; /* by device; 0: not asked yet */
  int device = 0, count = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return 1;
  unsigned known = device < KEPT ? kept[device].load(std::memory_order_relaxed) : 0;
  if (known > 0) return known;
  if (cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device) != cudaSuccess ||
      count < 1)
    return 1;
  if (device < KEPT) kept[device].store((unsigned)count, std::memory_order_relaxed);
  return (unsigned)count;
}

static inline int mptl_clear_bytes(void *p, size_t bytes, cudaStream_t stream) {
  return (int)cudaMemsetAsync(p, 0, bytes, stream);
}

template <typename T>
static __device__ __forceinline__ T mptl_load(const void *p) {
  return *(const T *)p;
}

template <typename T>
static __device__ __forceinline__ void mptl_store(void *p, T x) {
  *(T *)p = x;
}

/* In PTX's memory model, ld.volatile is a relaxed atomic read. */
static __device__ __forceinline__ uint32_t mptl_peek(const uint32_t *p) {
  return *(const volatile uint32_t *)p;
}

static __device__ __forceinline__ void mptl_store_16(void *p, uint4 x) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(p)),
               "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w)
               : "memory");
}

#else
#include "kernels/cuda/shim.h"
#endif

enum { MPTL_INVALID_VALUE = 1 }; /* cudaErrorInvalidValue */

#endif
