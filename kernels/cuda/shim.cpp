/* Runs the threads of a block as fibers on one host thread (shim.h). Each host thread has its own
 * machine.
 *
 * The scheduler runs the block's threads in turn. Each runs until it waits or exits. The barrier
 * opens when all threads that have not exited wait at it. A warp operation completes when the last
 * lane of its mask arrives; this lane computes the results of all lanes, so a lane that continues
 * with the next operation does not disturb the others. If no thread can run, it is a deadlock.
 */
#include "kernels/cuda/shim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#endif

__thread mptl_shim_place *mptl_shim_here;
mptl_shim_turns mptl_shim_order = MPTL_SHIM_FORWARD;

namespace {

enum {
  MAX_THREADS = 1024,
  LANES = 32,
  PAGE = 4096,
  STACK_BYTES = 256 << 10,
  USUAL_SHARED = 48 << 10,
  SHARED_ARRAYS = 8
};

/* ---- Fibers ---- */

struct context {
#if defined(__x86_64__)
  void *stack_pointer;
#else
  ucontext_t registers;
#endif
#ifdef __SANITIZE_ADDRESS__
  void *fake_stack;
#endif
#ifdef __SANITIZE_THREAD__
  void *fiber;
#endif
  const void *bottom; /* of the stack */
  size_t bytes;
};

enum state { FREE, READY, AT_BARRIER, IN_WARP, DONE };

/* A thread of a block. */
struct thread {
  context here;
  char *stack; /* NULL until first used; kept from launch to launch */
  state is;
  dim3 index;
  const char *file; /* where it waits */
  int line;
  mptl_shim_warp_op op; /* this and the rest: of a warp operation */
  uint32_t mask;
  uint64_t value, result;
  int from;
};

/* A static shared array of the kernel that runs, and the last block for which it was filled with
 * garbage. */
struct shared_array {
  const void *key;
  void *at;
  uint64_t block;
};

/* A host thread's state for running blocks. */
struct machine {
  mptl_shim_place place = {};
  thread threads[MAX_THREADS] = {};
  context scheduler = {};
  unsigned running = 0, count = 0;
  uint64_t block = 0; /* number of the block that runs, counted over all launches */
  const char *kernel_name = nullptr;
  const std::function<void()> *kernel_body = nullptr;
  void *dynamic_shared = nullptr;
  size_t allowed_shared = USUAL_SHARED; /* bytes that the next launch may ask for */
  shared_array arrays[SHARED_ARRAYS] = {};

  ~machine() {
    for (thread &t : threads)
      if (t.stack != nullptr) munmap(t.stack - PAGE, STACK_BYTES + PAGE);
  }
};

/* The host thread's machine, made at its first launch. */
struct owner {
  machine *m = nullptr;
  ~owner() { delete m; }
};
thread_local owner mine;

machine *here() {
  if (mine.m == nullptr) mine.m = new machine;
  mptl_shim_here = &mine.m->place;
  return mine.m;
}

#if defined(__x86_64__)
/* Saves the registers that a function must preserve on the stack, and the stack pointer in *from.
 * Continues where the stack pointer `to` was saved. */
extern "C" void mptl_shim_switch(void **from, void *to);
asm(R"(
.text
.p2align 4
.type mptl_shim_switch, @function
mptl_shim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size mptl_shim_switch, .-mptl_shim_switch
)");
#endif

/* Switches from one context to another. for_good: `from` never runs again. */
void switch_to(context *from, context *to, bool for_good) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(for_good ? nullptr : &from->fake_stack, to->bottom, to->bytes);
#endif
#ifdef __SANITIZE_THREAD__
  __tsan_switch_to_fiber(to->fiber, 0);
#endif
  (void)for_good;
#if defined(__x86_64__)
  mptl_shim_switch(&from->stack_pointer, to->stack_pointer);
#else
  swapcontext(&from->registers, &to->registers);
#endif
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(from->fake_stack, nullptr, nullptr);
#endif
}

void fiber_main() {
  machine *m = mine.m;
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &m->scheduler.bottom, &m->scheduler.bytes);
#endif
  (*m->kernel_body)();
  thread *self = &m->threads[m->running];
  self->is = DONE;
  switch_to(&self->here, &m->scheduler, true);
  abort();
}

/* Makes a stack with an inaccessible page below it. */
void make_stack(thread *t) {
  void *p = mmap(nullptr, STACK_BYTES + PAGE, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED || mprotect(p, PAGE, PROT_NONE) != 0)
    mptl_shim_fail("no memory for the stacks of a block");
  t->stack = (char *)p + PAGE;
  t->here.bottom = t->stack;
  t->here.bytes = STACK_BYTES;
#ifdef __SANITIZE_THREAD__
  t->here.fiber = __tsan_create_fiber(0);
#endif
}

/* Prepares a thread to begin in fiber_main at the next switch to it. */
void prepare(thread *t) {
  if (t->stack == nullptr) make_stack(t);
#if defined(__x86_64__)
  void **top = (void **)(t->stack + STACK_BYTES) - 2; /* aligned as after a call */
  top[0] = (void *)fiber_main;
  top[1] = nullptr;
  memset(top - 6, 0, 6 * sizeof *top);
  t->here.stack_pointer = top - 6;
#else
  getcontext(&t->here.registers);
  t->here.registers.uc_stack.ss_sp = t->stack;
  t->here.registers.uc_stack.ss_size = STACK_BYTES;
  t->here.registers.uc_link = nullptr;
  makecontext(&t->here.registers, fiber_main, 0);
#endif
  t->is = READY;
}

/* Runs other threads until one makes this thread ready again. */
void wait_as(machine *m, state is, const char *file, int line) {
  thread *self = &m->threads[m->running];
  self->is = is;
  self->file = file;
  self->line = line;
  switch_to(&self->here, &m->scheduler, false);
}

/* ---- Blocks ---- */

/* Opens the barrier if all threads that have not exited wait at it. */
bool open_barrier(machine *m) {
  const thread *first = nullptr;
  for (unsigned i = 0; i < m->count; i++) {
    const thread *t = &m->threads[i];
    if (t->is == DONE) continue;
    if (t->is != AT_BARRIER) return false;
    if (first == nullptr) first = t;
    if (t->line != first->line || strcmp(t->file, first->file) != 0)
      mptl_shim_fail("threads at different barriers: %s:%d and %s:%d", first->file, first->line,
                     t->file, t->line);
  }
  for (unsigned i = 0; i < m->count; i++)
    if (m->threads[i].is == AT_BARRIER) m->threads[i].is = READY;
  return first != nullptr;
}

[[noreturn]] void deadlock(const machine *m) {
  for (unsigned i = 0; i < m->count; i++) {
    const thread *t = &m->threads[i];
    if (t->is == AT_BARRIER || t->is == IN_WARP)
      fprintf(stderr, "thread %u waits at %s:%d (%s)\n", i, t->file, t->line,
              t->is == IN_WARP ? "warp operation" : "barrier");
  }
  mptl_shim_fail("no thread of the block can go on");
}

void run_block(machine *m) {
  const dim3 size = m->place.block_size;
  m->count = size.x * size.y * size.z;
  m->block++;
  for (unsigned i = 0; i < m->count; i++) {
    m->threads[i].index = dim3(i % size.x, i / size.x % size.y, i / size.x / size.y);
    prepare(&m->threads[i]);
  }
  for (;;) {
    bool any = false, left = false;
    for (unsigned turn = 0; turn < m->count; turn++) {
      m->running = mptl_shim_order == MPTL_SHIM_REVERSE ? m->count - 1 - turn : turn;
      thread *t = &m->threads[m->running];
      if (t->is == READY) {
        any = true;
        m->place.thread = t->index;
        switch_to(&m->scheduler, &t->here, false);
      }
      left = left || t->is != DONE;
    }
    if (!left) return;
    if (!any && !open_barrier(m)) deadlock(m);
  }
}

}  // namespace

void mptl_shim_launch(const char *kernel, dim3 grid, dim3 block, size_t shared_bytes,
                      const std::function<void()> &body) {
  machine *m = here();
  m->kernel_name = kernel;
  m->kernel_body = &body;
  if (block.x * block.y * block.z == 0 || block.x * block.y * block.z > MAX_THREADS)
    mptl_shim_fail("blocks of %u x %u x %u threads, accepted are 1 to %d", block.x, block.y,
                   block.z, MAX_THREADS);
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535 ||
      grid.x > 0x7fffffffu)
    mptl_shim_fail("a grid of %u x %u x %u blocks, accepted are 1 to 2147483647 x 65535 x 65535",
                   grid.x, grid.y, grid.z);
  if (shared_bytes > m->allowed_shared)
    mptl_shim_fail("%zu bytes of dynamic shared memory, a block gets up to %zu", shared_bytes,
                   m->allowed_shared);
  m->allowed_shared = USUAL_SHARED;
  if (shared_bytes > 0 && posix_memalign(&m->dynamic_shared, 16, shared_bytes) != 0)
    mptl_shim_fail("no memory for shared memory");
#ifdef __SANITIZE_THREAD__
  m->scheduler.fiber = __tsan_get_current_fiber();
#endif
  m->place.block_size = block;
  m->place.grid_size = grid;
  for (unsigned z = 0; z < grid.z; z++)
    for (unsigned y = 0; y < grid.y; y++)
      for (unsigned x = 0; x < grid.x; x++) {
        m->place.block = dim3(x, y, z);
        if (shared_bytes > 0) memset(m->dynamic_shared, 0xff, shared_bytes);
        run_block(m);
      }
  free(m->dynamic_shared);
  m->dynamic_shared = nullptr;
  for (shared_array &a : m->arrays) {
    free(a.at);
    a = {};
  }
}

void mptl_shim_allow_shared(size_t bytes) {
  machine *m = here();
  if (bytes > m->allowed_shared) m->allowed_shared = bytes;
}

void *mptl_shim_dynamic_shared(void) { return mine.m->dynamic_shared; }

/* The garbage is NaN for floats. */
void *mptl_shim_shared(const void *key, size_t bytes) {
  machine *m = mine.m;
  for (shared_array &a : m->arrays) {
    if (a.key != nullptr && a.key != key) continue;
    if (a.key == nullptr && posix_memalign(&a.at, 16, bytes) != 0)
      mptl_shim_fail("no memory for shared memory");
    if (a.block != m->block) memset(a.at, 0xff, bytes);
    a.key = key;
    a.block = m->block;
    return a.at;
  }
  mptl_shim_fail("more than %d shared arrays in a kernel", SHARED_ARRAYS);
}

void mptl_shim_fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fprintf(stderr, "kernel %s, block (%u,%u,%u), thread (%u,%u,%u): ", mine.m->kernel_name,
          blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  abort();
}

void mptl_shim_barrier(const char *file, int line) { wait_as(mine.m, AT_BARRIER, file, line); }

unsigned mptl_shim_lane(void) { return mine.m->running % LANES; }

/* ---- Warp operations ---- */

/* The result of a lane. All lanes of the mask have arrived. */
static uint64_t result_of(const thread *warp, unsigned lane) {
  const thread *self = &warp[lane];
  if (self->op == MPTL_SHIM_SHUFFLE) return warp[self->from].value;
  uint64_t result = 0;
  for (unsigned i = 0; i < LANES; i++) {
    if (!(self->mask >> i & 1)) continue;
    uint64_t value = warp[i].value;
    if (self->op == MPTL_SHIM_BALLOT) result |= value << i;
    if (self->op == MPTL_SHIM_ADD) result = (uint32_t)(result + value);
    if (self->op == MPTL_SHIM_MAX) result = value > result ? value : result;
    if (self->op == MPTL_SHIM_OR) result |= value;
  }
  return result;
}

/* Whether all lanes of this lane's mask wait at the same operation. Ends the program if they never
 * can. */
static bool complete(const machine *m, const thread *warp, const thread *self) {
  bool all = true;
  for (unsigned i = 0; i < LANES; i++) {
    if (!(self->mask >> i & 1)) continue;
    const thread *t = &warp[i];
    if (t - m->threads >= (ptrdiff_t)m->count || t->is == DONE)
      mptl_shim_fail(
          "%s:%d: the mask 0x%08x names lane %u, which %s", self->file, self->line, self->mask, i,
          t - m->threads >= (ptrdiff_t)m->count ? "the block does not have" : "has exited");
    if (t->is != IN_WARP) {
      all = false;
      continue;
    }
    if (t->line == self->line && t->op == self->op && t->mask == self->mask &&
        strcmp(t->file, self->file) == 0)
      continue;
    all = false;
    if (t->mask >> (self - warp) & 1) /* each waits for the other */
      mptl_shim_fail(
          "lanes of a warp at different operations: %s:%d with mask 0x%08x, %s:%d with mask 0x%08x",
          self->file, self->line, self->mask, t->file, t->line, t->mask);
  }
  return all;
}

uint64_t mptl_shim_warp(mptl_shim_warp_op op, uint32_t mask, uint64_t value, int from,
                        const char *file, int line) {
  machine *m = mine.m;
  unsigned lane = m->running % LANES;
  thread *self = &m->threads[m->running], *warp = self - lane;
  if (!(mask >> lane & 1))
    mptl_shim_fail("%s:%d: lane %u is not in its own mask 0x%08x", file, line, lane, mask);
  if (op == MPTL_SHIM_SHUFFLE && !(mask >> from & 1))
    mptl_shim_fail("%s:%d: a shuffle from lane %d, which is not in the mask 0x%08x", file, line,
                   from, mask);
  self->op = op;
  self->mask = mask;
  self->value = value;
  self->from = from;
  self->is = IN_WARP;
  self->file = file;
  self->line = line;
  if (!complete(m, warp, self)) {
    wait_as(m, IN_WARP, file, line);
    return self->result;
  }
  for (unsigned i = 0; i < LANES; i++)
    if (mask >> i & 1) warp[i].result = result_of(warp, i);
  for (unsigned i = 0; i < LANES; i++)
    if (mask >> i & 1) warp[i].is = READY;
  return self->result;
}
