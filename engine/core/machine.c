/* Processors and memory that this process may use. */
#include "mptl/machine.h"

#include <omp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/cgroup.h"

/* ---- Processors ---- */

/* The number of processors in the affinity mask; 0 if the system does not report it. */
static int count_allowed(void) {
  for (int bits = 1024; bits <= 1 << 20; bits *= 2) { /* EINVAL: the mask is too small */
    cpu_set_t *set = CPU_ALLOC(bits);
    if (set == NULL) return 0;
    int got = sched_getaffinity(0, CPU_ALLOC_SIZE(bits), set);
    int count = got == 0 ? CPU_COUNT_S(CPU_ALLOC_SIZE(bits), set) : 0;
    CPU_FREE(set);
    if (got == 0) return count;
  }
  return 0;
}

static void lower_quota(void *context, const char *folder, bool version2) {
  mptl_processors *p = context;
  char text[128];
  double quota = -1, period = 0;
  const char *name = version2 ? "cpu.max" : "cpu.cfs_quota_us";
  if (!mptl_cgroup_read(folder, name, text, sizeof text)) return;
  if (version2) {
    if (sscanf(text, "%lf %lf", &quota, &period) != 2) return; /* "max 100000": none */
  } else {
    quota = atof(text); /* -1: none */
    if (!mptl_cgroup_read(folder, "cpu.cfs_period_us", text, sizeof text)) return;
    period = atof(text);
  }
  if (!(quota > 0 && period > 0) || (p->quota > 0 && quota / period >= p->quota)) return;
  p->quota = quota / period;
  snprintf(p->quota_file, sizeof p->quota_file, "%.480s/%s", folder, name);
}

mptl_processors mptl_find_processors(const char *root) {
  mptl_processors p = {.online = (int)sysconf(_SC_NPROCESSORS_ONLN), .allowed = count_allowed()};
  if (p.online < 1) p.online = 1;
  if (p.allowed < 1) p.allowed = p.online;
  mptl_cgroup_visit(root, "cpu", lower_quota, &p);
  p.usable = p.allowed;
  if (p.quota > 0 && p.quota < p.usable) p.usable = p.quota < 1 ? 1 : (int)p.quota;
  return p;
}

/* OpenMP reads OMP_NUM_THREADS itself; without it, it considers the affinity mask only. */
int mptl_default_threads(const char *root) {
  const char *text = getenv("OMP_NUM_THREADS");
  bool asked = text != NULL && strtol(text, NULL, 10) > 0;
  int threads = omp_get_max_threads(), usable = asked ? threads : mptl_find_processors(root).usable;
  if (usable < threads) threads = usable;
  return threads < MPTL_MAX_THREADS ? threads : MPTL_MAX_THREADS;
}

/* ---- Memory ---- */

typedef struct memory_search {
  mptl_memory_limit limit;
  uint64_t resident, swap; /* resident memory of the process; swap space of the machine */
} memory_search;

static void lower_memory(memory_search *s, uint64_t most, uint64_t taken, const char *limiter) {
  uint64_t left = most > taken ? most - taken : 0;
  if (left >= s->limit.bytes) return;
  s->limit.bytes = left;
  snprintf(s->limit.limiter, sizeof s->limit.limiter, "%.511s", limiter);
}

/* Reads a number of bytes from a file of a control group; false if there is no such file, or no
 * limit in it. */
static bool read_bytes(const char *folder, const char *name, uint64_t *bytes) {
  char text[128], *end;
  if (!mptl_cgroup_read(folder, name, text, sizeof text)) return false;
  *bytes = strtoull(text, &end, 10);
  return end != text && *bytes < (uint64_t)1
                                     << 60; /* version 1 writes "no limit" as a huge number */
}

static void visit_memory(void *context, const char *folder, bool version2) {
  memory_search *s = context;
  uint64_t most, swap = s->swap, both;
  const char *name = version2 ? "memory.max" : "memory.limit_in_bytes";
  char file[512];
  if (!read_bytes(folder, name, &most)) return;
  if (version2) {
    if (!read_bytes(folder, "memory.swap.max", &swap) || swap > s->swap) swap = s->swap;
  } else if (read_bytes(folder, "memory.memsw.limit_in_bytes", &both) && both >= most &&
             both - most < swap) {
    swap = both - most;
  }
  snprintf(file, sizeof file, "%.480s/%s", folder, name);
  lower_memory(s, most + swap, s->resident, file);
}

/* The bytes that /proc/meminfo has for a name; 0 if it does not have the name. */
static uint64_t meminfo(const char *root, const char *name) {
  char path[MPTL_PATH_BYTES], line[256];
  unsigned long long kilobytes = 0;
  snprintf(path, sizeof path, "%s/proc/meminfo", root);
  FILE *f = fopen(path, "r");
  while (f != NULL && fgets(line, sizeof line, f) != NULL)
    if (strncmp(line, name, strlen(name)) == 0 &&
        sscanf(line + strlen(name), ": %llu kB", &kilobytes) == 1)
      break;
  if (f != NULL) fclose(f);
  return (uint64_t)kilobytes * 1024;
}

mptl_memory_limit mptl_find_memory(const char *root) {
  unsigned long long size = 0, resident = 0;
  FILE *f = fopen("/proc/self/statm", "r");
  if (f != NULL && fscanf(f, "%llu %llu", &size, &resident) != 2) size = resident = 0;
  if (f != NULL) fclose(f);
  uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), machine = meminfo(root, "MemTotal");
  memory_search s = {.limit = {.bytes = UINT64_MAX},
                     .resident = resident * page,
                     .swap = meminfo(root, "SwapTotal")};
  struct rlimit address_space;
  if (getrlimit(RLIMIT_AS, &address_space) == 0 && address_space.rlim_cur != RLIM_INFINITY)
    lower_memory(&s, address_space.rlim_cur, size * page, "RLIMIT_AS");
  mptl_cgroup_visit(root, "memory", visit_memory, &s);
  if (machine > 0) lower_memory(&s, machine + s.swap, s.resident, "physical memory");
  return s.limit;
}
