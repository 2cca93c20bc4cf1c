/* CUDA on the host, for tests without a GPU: makes the .cu files compile as C++. A launch runs its
 * blocks one after the other, and the threads of a block as fibers. Results equal the device's
 * unless they depend on the hardware (exp, log).
 *
 * A thread at a barrier or a warp operation waits for the others. These errors, which are undefined
 * behaviour on a device, end the program with a message that names the kernel's line: threads of a
 * block at different barriers; lanes of a warp at different operations or with different masks; a
 * mask with a lane that has exited; a shuffle from a lane outside the mask; a misaligned wide
 * access; a deadlock. When a block starts, shared memory is filled with garbage. The address
 * sanitizer finds accesses beyond a shared array.
 *
 * mptl_shim_order is the order in which a block's threads run. If results depend on it, a barrier
 * is missing.
 */
#ifndef MPTL_KERNELS_CUDA_SHIM_H
#define MPTL_KERNELS_CUDA_SHIM_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <functional>
#include <type_traits>

#define __global__
#define __host__
#define __device__
#define __constant__ static const
#define __forceinline__ inline __attribute__((always_inline))
#define MPTL_NOINLINE __attribute__((noinline))
#define MPTL_PARAM const
#define __launch_bounds__(...)
#define __restrict__ __restrict

/* A shared array belongs to the launch and is 16-byte aligned. It is filled with garbage when a
 * block first uses it. */
#define MPTL_SHARED(type, name, dimensions) \
  typedef type name##_array dimensions;     \
  static const char name##_key = 0;         \
  name##_array &name = *(name##_array *)mptl_shim_shared(&name##_key, sizeof(name##_array))
void *mptl_shim_shared(const void *key, size_t bytes);

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct uint2 {
  uint32_t x, y;
};
struct uint4 {
  uint32_t x, y, z, w;
};
static inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
static inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) {
  return {x, y, z, w};
}

/* The indices of the thread that runs, and the sizes of its block and grid. */
typedef struct mptl_shim_place {
  dim3 thread, block, block_size, grid_size;
} mptl_shim_place;
extern __thread mptl_shim_place *mptl_shim_here __attribute__((tls_model("initial-exec")));
#define threadIdx (mptl_shim_here->thread)
#define blockIdx (mptl_shim_here->block)
#define blockDim (mptl_shim_here->block_size)
#define gridDim (mptl_shim_here->grid_size)
enum { warpSize = 32 };

typedef enum mptl_shim_turns { MPTL_SHIM_FORWARD, MPTL_SHIM_REVERSE } mptl_shim_turns;
extern mptl_shim_turns mptl_shim_order;

/* Runs body for every thread of every block. Host threads can launch at the same time. */
void mptl_shim_launch(const char *kernel, dim3 grid, dim3 block, size_t shared_bytes,
                      const std::function<void()> &body);

template <typename Kernel>
struct mptl_shim_launcher {
  const char *name;
  Kernel *kernel;
  dim3 grid, block;
  size_t shared_bytes;
  template <typename... Arguments>
  void operator()(Arguments... arguments) const {
    static_assert((std::is_trivially_copyable<Arguments>::value && ...),
                  "arguments are copied to the device byte by byte");
    static_assert((size_t(0) + ... + ((sizeof(Arguments) + 15) / 16 * 16)) <= 32764,
                  "a kernel's parameters take at most 32764 bytes");
    mptl_shim_launch(name, grid, block, shared_bytes, [&] { kernel(arguments...); });
  }
};

template <typename Kernel>
static inline mptl_shim_launcher<Kernel> mptl_shim_make(const char *name, Kernel *kernel, dim3 grid,
                                                        dim3 block, size_t shared) {
  return {name, kernel, grid, block, shared};
}

#define MPTL_LAUNCH(kernel, grid, block, shared_bytes, stream) \
  ((void)(stream), mptl_shim_make(#kernel, kernel, grid, block, shared_bytes))
void mptl_shim_allow_shared(size_t bytes); /* of the next launch */
template <typename Kernel>
static inline int mptl_allow_shared(Kernel *, size_t bytes) {
  if (bytes > 99 << 10) return 1; /* the most that a block gets on compute capability 8.6 */
  mptl_shim_allow_shared(bytes);
  return 0;
}
#define MPTL_DYNAMIC_SHARED(type, name) type *name = (type *)mptl_shim_dynamic_shared()
void *mptl_shim_dynamic_shared(void);

static inline int mptl_launched(void) { return 0; }
static inline unsigned mptl_multiprocessors(void) { return 2; } /* large work has several blocks */
static inline int mptl_clear_bytes(void *p, size_t bytes, const void *stream) {
  (void)stream;
  memset(p, 0, bytes);
  return 0;
}

/* ---- Barriers and warps ---- */

/* Warp operations. Each lane gives a value. */
typedef enum mptl_shim_warp_op {
  MPTL_SHIM_SYNC,
  MPTL_SHIM_SHUFFLE, /* returns the value of lane `from` */
  MPTL_SHIM_BALLOT,
  MPTL_SHIM_ADD,
  MPTL_SHIM_MAX,
  MPTL_SHIM_OR,
} mptl_shim_warp_op;

void mptl_shim_barrier(const char *file, int line);
uint64_t mptl_shim_warp(mptl_shim_warp_op op, uint32_t mask, uint64_t value, int from,
                        const char *file, int line);
unsigned mptl_shim_lane(void);
[[noreturn]] void mptl_shim_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

template <typename T>
static inline T mptl_shim_shuffle(uint32_t mask, T value, int from, const char *file, int line) {
  static_assert(sizeof(T) <= sizeof(uint64_t), "shuffles move up to 8 bytes");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  bits = mptl_shim_warp(MPTL_SHIM_SHUFFLE, mask, bits, from, file, line);
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* The lane that __shfl_down_sync reads: beyond the warp's end, the lane itself. */
static inline int mptl_shim_below(unsigned delta) {
  unsigned lane = mptl_shim_lane();
  return (int)(lane + delta < 32 ? lane + delta : lane);
}

#define __syncthreads() mptl_shim_barrier(__FILE__, __LINE__)
#define __syncwarp() ((void)mptl_shim_warp(MPTL_SHIM_SYNC, 0xffffffffu, 0, 0, __FILE__, __LINE__))
#define __shfl_sync(mask, value, lane) \
  mptl_shim_shuffle(mask, value, (int)((lane)&31), __FILE__, __LINE__)
#define __shfl_xor_sync(mask, value, bits) \
  mptl_shim_shuffle(mask, value, (int)(mptl_shim_lane() ^ (unsigned)(bits)), __FILE__, __LINE__)
#define __shfl_down_sync(mask, value, delta) \
  mptl_shim_shuffle(mask, value, mptl_shim_below(delta), __FILE__, __LINE__)
#define __ballot_sync(mask, predicate) \
  ((uint32_t)mptl_shim_warp(MPTL_SHIM_BALLOT, mask, (predicate) != 0, 0, __FILE__, __LINE__))
#define __any_sync(mask, predicate) (__ballot_sync(mask, predicate) != 0)
#define __all_sync(mask, predicate) (__ballot_sync(mask, !(predicate)) == 0)
#define __reduce_add_sync(mask, value) \
  ((uint32_t)mptl_shim_warp(MPTL_SHIM_ADD, mask, value, 0, __FILE__, __LINE__))
#define __reduce_max_sync(mask, value) \
  ((uint32_t)mptl_shim_warp(MPTL_SHIM_MAX, mask, value, 0, __FILE__, __LINE__))
#define __reduce_or_sync(mask, value) \
  ((uint32_t)mptl_shim_warp(MPTL_SHIM_OR, mask, value, 0, __FILE__, __LINE__))
#define __threadfence() ((void)0)

/* ---- Memory: a fiber runs until it waits, so plain code is atomic ---- */

template <typename T>
static inline void mptl_shim_check_aligned(const void *p) {
  if ((uintptr_t)p % sizeof(T) != 0) mptl_shim_fail("a misaligned access of %zu bytes", sizeof(T));
}

template <typename T>
static inline T atomicAdd(T *at, T value) {
  static_assert(!std::is_floating_point<T>::value,
                "sums of floating-point numbers have a fixed order");
  mptl_shim_check_aligned<T>(at);
  T old = *at;
  *at = old + value;
  return old;
}

template <typename T>
static inline T atomicMax(T *at, T value) {
  mptl_shim_check_aligned<T>(at);
  T old = *at;
  if (value > old) *at = value;
  return old;
}

template <typename T>
static inline T atomicMin(T *at, T value) {
  mptl_shim_check_aligned<T>(at);
  T old = *at;
  if (value < old) *at = value;
  return old;
}

template <typename T>
static inline T atomicOr(T *at, T value) {
  mptl_shim_check_aligned<T>(at);
  T old = *at;
  *at = old | value;
  return old;
}

template <typename T>
static inline T mptl_load(const void *p) {
  T x;
  mptl_shim_check_aligned<T>(p);
  memcpy(&x, p, sizeof x);
  return x;
}

template <typename T>
static inline void mptl_store(void *p, T x) {
  mptl_shim_check_aligned<T>(p);
  memcpy(p, &x, sizeof x);
}

static inline uint32_t mptl_peek(const uint32_t *p) { return mptl_load<uint32_t>(p); }

static inline void mptl_store_16(void *p, uint4 x) { mptl_store(p, x); }

/* ---- Arithmetic ---- */

static inline uint32_t __float_as_uint(float x) {
  uint32_t u;
  memcpy(&u, &x, sizeof u);
  return u;
}

static inline float __uint_as_float(uint32_t u) {
  float x;
  memcpy(&x, &u, sizeof x);
  return x;
}

#endif
