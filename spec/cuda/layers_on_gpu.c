/* usage: cuda_layers_on_gpu [--seconds N] ROWS
 *
 * Matrix products of real layers on the GPU of this machine; exits 77 if there is none. A line of
 * ROWS is a layer:
 *   n ic ih iw oc oh ow kh kw sh sw ph pw dh dw groups   a convolution
 *   n c h w out                                          a linear layer
 * Lines that begin with # are comments. --seconds: starts no layer after N seconds, and prints how
 * many are left.
 *
 * Operands are whole numbers that are exact in all types, and sums stay below 2^24, so every type
 * must give the same results, in any order of sums. Every pass runs twice, into memory filled with
 * NaN. All results must equal the results of F32, of which some are compared with sums of integers.
 * Layers whose engines are compiled come last, so that the fast checks come first. */
#include <cuda_runtime_api.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../c/dnn_check.h"
#include "backend/cuda/dnn_ahead.h"
#include "product.h"
#include "sums.h"

enum {
  NO_GPU = 77,
  SAMPLES = 2000,        /* elements of a result that are also summed on the host */
  GUARD_BYTES = 256,     /* behind results and workspaces */
  NARROW_SUMS = 1 << 13, /* smaller sums of 8-bit products are exact on all devices */
  EXACT_SUMS = 1 << 24,  /* smaller sums are exact in binary32 */
  /* Numbers. Their mean is 1, so a sum is about its number of terms, too large for a narrow
   * format. */
  LEAST = -1,
  LARGEST = 3,
  MOST_THREADS = 16
};

#define CUDA(call) CHECK((call) == cudaSuccess, "%s", cudaGetErrorString(cudaGetLastError()))

/* ---- Sums of integers ---- */

/* An element's place in an array of 4 dimensions. */
typedef struct place {
  int at[4];
} place;

static place place_of(size_t i, int b, int c, int d) {
  return (place){{(int)(i / d / c / b), (int)(i / d / c % b), (int)(i / d % c), (int)(i % d)}};
}

static int64_t forward_sum(const mptl_conv_shape *s, const int8_t *x, const int8_t *w, place y) {
  int c = s->ic / s->groups, o = y.at[3], first = o / (s->oc / s->groups) * c;
  int64_t sum = 0;
  for (int kh = 0; kh < s->kh; kh++)
    for (int kw = 0; kw < s->kw; kw++) {
      int ih = y.at[1] * s->sh - s->ph + kh * s->dh, iw = y.at[2] * s->sw - s->pw + kw * s->dw;
      if (ih < 0 || ih >= s->ih || iw < 0 || iw >= s->iw) continue;
      const int8_t *pixel = x + (((size_t)y.at[0] * s->ih + ih) * s->iw + iw) * s->ic + first;
      const int8_t *filter = w + (((size_t)o * s->kh + kh) * s->kw + kw) * c;
      for (int i = 0; i < c; i++) sum += pixel[i] * filter[i];
    }
  return sum;
}

/* The row or column of the output in which an element of the kernel meets a row or column of the
 * input; -1: none. */
static int went_to(int in, int padding, int k, int dilation, int stride, int outputs) {
  int from = in + padding - k * dilation;
  return from >= 0 && from % stride == 0 && from / stride < outputs ? from / stride : -1;
}

static int64_t data_sum(const mptl_conv_shape *s, const int8_t *dy, const int8_t *w, place x) {
  int c = s->ic / s->groups, k = s->oc / s->groups, group = x.at[3] / c;
  int64_t sum = 0;
  for (int kh = 0; kh < s->kh; kh++)
    for (int kw = 0; kw < s->kw; kw++) {
      int oh = went_to(x.at[1], s->ph, kh, s->dh, s->sh, s->oh),
          ow = went_to(x.at[2], s->pw, kw, s->dw, s->sw, s->ow);
      if (oh < 0 || ow < 0) continue;
      const int8_t *pixel = dy + (((size_t)x.at[0] * s->oh + oh) * s->ow + ow) * s->oc;
      for (int o = group * k; o < (group + 1) * k; o++)
        sum += pixel[o] * w[(((size_t)o * s->kh + kh) * s->kw + kw) * c + x.at[3] % c];
    }
  return sum;
}

static int64_t weights_sum(const mptl_conv_shape *s, const int8_t *x, const int8_t *dy, place w) {
  int o = w.at[0], channel = o / (s->oc / s->groups) * (s->ic / s->groups) + w.at[3];
  int64_t sum = 0;
  for (int n = 0; n < s->n; n++)
    for (int oh = 0; oh < s->oh; oh++) {
      int ih = oh * s->sh - s->ph + w.at[1] * s->dh;
      if (ih < 0 || ih >= s->ih) continue;
      for (int ow = 0; ow < s->ow; ow++) {
        int iw = ow * s->sw - s->pw + w.at[2] * s->dw;
        if (iw < 0 || iw >= s->iw) continue;
        sum += x[(((size_t)n * s->ih + ih) * s->iw + iw) * s->ic + channel] *
               dy[(((size_t)n * s->oh + oh) * s->ow + ow) * s->oc + o];
      }
    }
  return sum;
}

/* An element of a pass's result. */
static int64_t sum_of(const mptl_conv_shape *s, mptl_pass pass, int8_t *const a[3], size_t i) {
  if (pass == MPTL_FORWARD)
    return forward_sum(s, a[MPTL_X], a[MPTL_W], place_of(i, s->oh, s->ow, s->oc));
  if (pass == MPTL_BACKWARD_DATA)
    return data_sum(s, a[MPTL_Y], a[MPTL_W], place_of(i, s->ih, s->iw, s->ic));
  return weights_sum(s, a[MPTL_X], a[MPTL_Y], place_of(i, s->kh, s->kw, s->ic / s->groups));
}

/* The most terms of a sum of any pass. */
static uint64_t most_terms(const mptl_conv_shape *s) {
  uint64_t most = 0;
  for (mptl_pass pass = MPTL_FORWARD; pass <= MPTL_BACKWARD_WEIGHTS; pass++) {
    uint64_t terms = mptl_conv_terms(s, pass);
    if (terms > most) most = terms;
  }
  return most;
}

static void fill(int8_t *numbers, size_t n, uint64_t seed) {
  for (size_t i = 0; i < n; i += 8) {
    uint64_t bits = random_bits(&seed);
    for (size_t k = i; k < n && k < i + 8; k++, bits >>= 8)
      numbers[k] = (int8_t)(LEAST + (int)((bits & 0xff) * (LARGEST - LEAST + 1) >> 8));
  }
}

/* Checks the sums above: on small shapes they must equal the sums of all products, added one by
 * one. */
static void check_sums(void) {
  static const mptl_conv_shape shapes[] = {{2, 4, 6, 5, 6, 6, 5, 3, 3, 1, 1, 1, 1, 1, 1, 1, false},
                                           {2, 3, 7, 6, 4, 4, 3, 3, 3, 2, 2, 1, 1, 1, 1, 1, false},
                                           {1, 4, 8, 8, 2, 4, 4, 1, 1, 2, 2, 0, 0, 1, 1, 1, false},
                                           {2, 6, 9, 8, 4, 5, 3, 3, 2, 2, 3, 2, 1, 2, 1, 2, false},
                                           {2, 6, 5, 5, 6, 3, 3, 3, 3, 2, 2, 1, 1, 1, 1, 6, false},
                                           {5, 7, 1, 1, 3, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, false}};
  for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
    const mptl_conv_shape *s = &shapes[k];
    MUST(mptl_conv_check(s));
    mptl_conv_sizes n = mptl_conv_sizes_of(s);
    for (int pass = 0; pass < MPTL_PASSES; pass++) {
      int8_t *a[3];
      double *added[3];
      int r = (int)mptl_arrays_of((mptl_pass)pass).result;
      for (int i = 0; i < 3; i++) {
        a[i] = malloc(n.n[i]), added[i] = calloc(n.n[i], sizeof(double));
        fill(a[i], n.n[i], (uint64_t)i + 1);
        for (size_t j = 0; i != r && j < n.n[i]; j++) added[i][j] = a[i][j];
      }
      conv_reference(s, (mptl_pass)pass, added);
      for (size_t i = 0; i < n.n[r]; i++) {
        int64_t sum = sum_of(s, (mptl_pass)pass, a, i);
        CHECK((double)sum == added[r][i], "%s, %s: element %zu is %lld, by adding %g",
              mptl_conv_name(s).text, mptl_pass_name((mptl_pass)pass), i, (long long)sum,
              added[r][i]);
      }
      for (int i = 0; i < 3; i++) free(a[i]), free(added[i]);
    }
  }
}

/* ---- Operands ---- */

typedef struct gpu {
  mptl_cuda_dnn *dnn;
  mptl_cuda_blas *blas;
  cudaStream_t stream;
  float *truth, *got, *again; /* results on the host; got is also used to convert operands */
  int products, missing, sampled;
} gpu;

typedef struct operands {
  mptl_conv_sizes n;
  int8_t *numbers[3];
  void *there[3][MPTL_CUDA_TYPES]; /* on the device; NULL: not copied yet */
  float largest;                   /* largest magnitude in the last result of F32 */
} operands;

/* Converts numbers to a type, by a table. */
static void store(void *to, const int8_t *numbers, size_t n, mptl_cuda_type type) {
  static const uint8_t e4m3[] = {0xb8, 0, 0x38, 0x40, 0x44}, e5m2[] = {0xbc, 0, 0x3c, 0x40, 0x42};
  static const uint16_t bf16[] = {0xbf80, 0, 0x3f80, 0x4000, 0x4040};
  for (size_t i = 0; i < n; i++) {
    int k = numbers[i] - LEAST;
    switch (type) {
      case MPTL_CUDA_BF16:
        ((uint16_t *)to)[i] = bf16[k];
        break;
      case MPTL_CUDA_E4M3:
        ((uint8_t *)to)[i] = e4m3[k];
        break;
      case MPTL_CUDA_E5M2:
        ((uint8_t *)to)[i] = e5m2[k];
        break;
      default:
        ((float *)to)[i] = numbers[i];
    }
  }
}

static const void *on_device(const gpu *g, operands *o, int which, mptl_cuda_type type) {
  if (type == MPTL_CUDA_TF32) type = MPTL_CUDA_F32; /* the same arrays */
  void **there = &o->there[which][type];
  size_t n = o->n.n[which];
  if (*there != NULL) return *there;
  CUDA(cudaMalloc(there, n * mptl_cuda_type_size(type)));
  store(g->got, o->numbers[which], n, type);
  CUDA(cudaMemcpy(*there, g->got, n * mptl_cuda_type_size(type), cudaMemcpyHostToDevice));
  return *there;
}

static void make_operands(operands *o, const layer *l) {
  *o = (operands){.n = mptl_conv_sizes_of(&l->s)};
  for (int i = 0; i < 3; i++) {
    o->numbers[i] = malloc(o->n.n[i]);
    if (o->numbers[i] == NULL) MUST(mptl_fail(MPTL_ENOMEM, "no memory for %zu numbers", o->n.n[i]));
    fill(o->numbers[i], o->n.n[i], (uint64_t)i + 1);
  }
}

static void drop_operands(operands *o) {
  for (int i = 0; i < 3; i++) {
    free(o->numbers[i]);
    for (int type = 0; type < MPTL_CUDA_TYPES; type++) cudaFree(o->there[i][type]);
  }
}

/* ---- Products ---- */

static bool is_poison(const void *device, size_t offset) {
  unsigned char guard[GUARD_BYTES];
  CUDA(cudaMemcpy(guard, (const char *)device + offset, sizeof guard, cudaMemcpyDeviceToHost));
  for (int i = 0; i < GUARD_BYTES; i++)
    if (guard[i] != 0xff) return false;
  return true;
}

/* Runs a product once, and copies the result to the host. */
static void run(const product *p, const gpu *g, const void *first, const void *second, size_t n,
                float *to) {
  void *result = NULL, *workspace = NULL;
  size_t bytes = n * sizeof(float);
  CUDA(cudaMalloc(&result, bytes + GUARD_BYTES));
  CUDA(cudaMalloc(&workspace, p->workspace_bytes + GUARD_BYTES));
  CUDA(cudaMemset(result, 0xff, bytes + GUARD_BYTES));
  CUDA(cudaMemset(workspace, 0xff, p->workspace_bytes + GUARD_BYTES));
  CUDA(cudaDeviceSynchronize());
  MUST(product_run(p, result, first, second, workspace));
  CUDA(cudaStreamSynchronize(g->stream));
  CUDA(cudaMemcpy(to, result, bytes, cudaMemcpyDeviceToHost));
  CHECK(is_poison(result, bytes), "%s, %s: wrote behind its result", p->name, p->engine);
  CHECK(is_poison(workspace, p->workspace_bytes), "%s, %s: wrote behind its workspace", p->name,
        p->engine);
  cudaFree(result), cudaFree(workspace);
}

/* Compares results with the results of F32. Zeros may have any sign. */
static void compare(const product *p, const gpu *g, const layer *l, mptl_pass pass,
                    const operands *o) {
  size_t n = o->n.n[mptl_arrays_of(pass).result], wrong = 0, first = 0;
  if (memcmp(g->got, g->truth, n * sizeof(float)) == 0) return;
  for (size_t i = n; i-- > 0;)
    if (!(g->got[i] == g->truth[i])) wrong++, first = i;
  CHECK(wrong == 0,
        "%s, %s: %zu of %zu elements are not F32's; element %zu is %.9g, in F32 %.9g, the sum %lld",
        p->name, p->engine, wrong, n, first, (double)g->got[first], (double)g->truth[first],
        (long long)sum_of(&l->s, pass, o->numbers, first));
}

/* The largest magnitude. Comparing bit patterns is faster. */
static float largest_of(const float *numbers, size_t n) {
  uint32_t most = 0, bits;
  float largest;
  for (size_t i = 0; i < n; i++) {
    memcpy(&bits, &numbers[i], sizeof bits);
    bits &= 0x7fffffff;
    most = bits > most ? bits : most;
  }
  memcpy(&largest, &most, sizeof largest);
  return largest;
}

/* Compares random elements of F32's results with sums of integers. */
static void sample(const product *p, gpu *g, const layer *l, mptl_pass pass, operands *o) {
  size_t n = o->n.n[mptl_arrays_of(pass).result], wrong = 0, example = 0;
  o->largest = largest_of(g->truth, n);
#pragma omp parallel for schedule(dynamic, 16)
  for (int k = 0; k < SAMPLES; k++) {
    uint64_t seed = (uint64_t)k;
    size_t i = k == 0 ? 0 : k == 1 ? n - 1 : (size_t)(random_bits(&seed) % n);
    if ((double)sum_of(&l->s, pass, o->numbers, i) == (double)g->truth[i]) continue;
#pragma omp critical
    wrong++, example = i;
  }
  g->sampled += SAMPLES;
  CHECK(wrong == 0, "%s, %s: %zu of %d elements are wrong; element %zu is %.9g, the sum %lld",
        p->name, p->engine, wrong, SAMPLES, example, (double)g->truth[example],
        (long long)sum_of(&l->s, pass, o->numbers, example));
}

static const mptl_cuda_pair F32 = {MPTL_CUDA_F32, MPTL_CUDA_F32, false};

static bool is_f32(mptl_cuda_pair types) { return types.first == MPTL_CUDA_F32; }
static bool is_narrow(mptl_cuda_pair types) { return mptl_cuda_type_size(types.first) == 1; }

static void print_types(mptl_cuda_pair types) {
  printf(" %s%s%s", mptl_cuda_type_name(types.first), is_narrow(types) ? ":" : "",
         is_narrow(types) ? mptl_cuda_type_name(types.second) : "");
}

/* Checks a pass in a pair of types; false: there is no result of F32 to compare others with. If the
 * libraries do not have a product, it is printed, and is a failure only for operands in binary32:
 * specs without a GPU check what the libraries must have. */
static bool check_product(gpu *g, const layer *l, mptl_pass pass, mptl_cuda_pair types,
                          operands *o) {
  product p;
  print_types(types);
  if (is_narrow(types) && mptl_cuda_dnn_capability(g->dnn) < 100 && o->largest >= NARROW_SUMS) {
    printf(" (sums to %g)", (double)o->largest);
    return true;
  }
  mptl_status status = product_create(&p, g->dnn, g->blas, l, pass, types.first, types.second,
                                      MPTL_CUDA_USUAL_WORKSPACE);
  if (status != MPTL_OK) {
    bool may_be = status == MPTL_EUNSUPPORTED && mptl_cuda_type_size(types.first) < sizeof(float);
    CHECK(may_be, "%s", mptl_error());
    printf(" -");
    g->missing++;
    return !is_f32(types);
  }
  const mptl_pass_arrays arrays = mptl_arrays_of(pass);
  size_t n = o->n.n[arrays.result];
  const void *first = on_device(g, o, arrays.first, types.first),
             *second = on_device(g, o, arrays.second, types.second);
  float *to = is_f32(types) ? g->truth : g->got;
  run(&p, g, first, second, n, to);
  run(&p, g, first, second, n, g->again);
  CHECK(memcmp(g->again, to, n * sizeof(float)) == 0, "%s, %s: another run gives other bits",
        p.name, p.engine);
  if (is_f32(types))
    sample(&p, g, l, pass, o);
  else
    compare(&p, g, l, pass, o);
  printf(" %s", p.conv != NULL ? p.engine + strlen("engine ") : "cuBLASLt");
  g->products++;
  product_destroy(&p);
  return true;
}

/* ---- All layers ---- */

/* Layers of one kind in some types. Sweeps run in this order: first engines that are not compiled,
 * then the types that are used most. */
typedef struct sweep {
  bool groups; /* convolutions with channel groups, or all other layers */
  int n;
  mptl_cuda_pair types[4];
} sweep;

#define PAIR(a, b) \
  { MPTL_CUDA_##a, MPTL_CUDA_##b, false }
static const sweep sweeps[] = {
    {false, 2, {PAIR(F32, F32), PAIR(TF32, TF32)}},
    {false, 1, {PAIR(BF16, BF16)}},
    {true, 2, {PAIR(F32, F32), PAIR(TF32, TF32)}},
    {false, 3, {PAIR(E4M3, E4M3), PAIR(E5M2, E4M3), PAIR(E4M3, E5M2)}},
    {true, 4, {PAIR(BF16, BF16), PAIR(E4M3, E4M3), PAIR(E5M2, E4M3), PAIR(E4M3, E5M2)}},
};
enum { SWEEPS = sizeof sweeps / sizeof *sweeps };

static bool is_of(const layer *l, const sweep *w) { return (l->s.groups > 1) == w->groups; }

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void check_layer(gpu *g, const layer *l, const sweep *w) {
  double start = now();
  operands o;
  make_operands(&o, l);
  printf("%s:", l->linear.n > 0 ? mptl_linear_name(&l->linear).text : mptl_conv_name(&l->s).text);
  for (int pass = 0; pass < MPTL_PASSES; pass++) {
    printf("%s %s", pass > 0 ? ";" : "", mptl_pass_name((mptl_pass)pass));
    /* F32 comes first: other results are compared with it. */
    bool comparable = is_f32(w->types[0]) || check_product(g, l, (mptl_pass)pass, F32, &o);
    for (int t = 0; t < w->n && comparable; t++)
      if (mptl_cuda_supports(mptl_cuda_dnn_capability(g->dnn), w->types[t].first))
        comparable = check_product(g, l, (mptl_pass)pass, w->types[t], &o);
  }
  printf(" (%.2f s)\n", now() - start);
  fflush(stdout);
  drop_operands(&o);
}

/* Makes the plans of layers on several threads. */
static void make_ahead(const gpu *g, const layer *layers, size_t n, const sweep *w, int threads) {
  mptl_cuda_announced *list = calloc(n * MPTL_PASSES * w->n + 1, sizeof *list);
  size_t count = 0;
  for (size_t i = 0; i < n; i++)
    for (int pass = 0; pass < MPTL_PASSES; pass++)
      for (int t = 0; t < w->n; t++)
        if (layers[i].linear.n == 0 &&
            mptl_cuda_supports(mptl_cuda_dnn_capability(g->dnn), w->types[t].first))
          list[count++] = (mptl_cuda_announced){layers[i].s, (mptl_pass)pass, {1, {w->types[t]}}};
  if (n > 0) mptl_cuda_conv_make_ahead(g->dnn, list, count, MPTL_CUDA_USUAL_WORKSPACE, threads);
  free(list);
}

/* Checks the layers of a sweep. Returns how many were left when the time was up. */
static size_t check_sweep(gpu *g, const layer *layers, size_t n, const sweep *w, double end) {
  enum { MOST = 8 }; /* layers compiled together: few, so that the program ends in time */
  int cores = (int)sysconf(_SC_NPROCESSORS_ONLN),
      threads = cores < MOST_THREADS ? cores : MOST_THREADS;
  layer *wanted = calloc(n + 1, sizeof *wanted);
  size_t count = 0, done = 0;
  for (size_t i = 0; i < n; i++)
    if (is_of(&layers[i], w)) wanted[count++] = layers[i];
  while (done < count && now() < end) {
    size_t ahead = count - done < MOST ? count - done : MOST;
    make_ahead(g, wanted + done, ahead, w, threads);
    for (; ahead > 0 && now() < end; ahead--) check_layer(g, &wanted[done++], w);
  }
  free(wanted);
  return count - done;
}

static int wrong(const char *what, const char *value) {
  fprintf(stderr, "cuda_layers_on_gpu: %s '%s'\n", what, value);
  return 2;
}

static bool read_layer(layer *l, const char *line) {
  mptl_conv_shape s = {.bias = false};
  int n = sscanf(line, "%d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d", &s.n, &s.ic, &s.ih, &s.iw,
                 &s.oc, &s.oh, &s.ow, &s.kh, &s.kw, &s.sh, &s.sw, &s.ph, &s.pw, &s.dh, &s.dw,
                 &s.groups);
  *l = (layer){.s = s};
  if (n == 5) *l = layer_of_linear(&(mptl_linear_shape){s.n, s.ic, s.ih, s.iw, s.oc, false});
  return (n == 5 || n == 16) && mptl_conv_check(&l->s) == MPTL_OK &&
         most_terms(&l->s) * LARGEST * LARGEST < EXACT_SUMS; /* all sums are exact */
}

/* Reads the layers of a file, which the caller owns. Returns 0, or the status for main to
 * return. */
static int read_layers(layer **layers, size_t *n, const char *path) {
  char line[256];
  FILE *file = fopen(path, "r");
  *layers = NULL, *n = 0;
  if (file == NULL) return wrong("cannot read", path);
  int status = 0;
  while (status == 0 && fgets(line, sizeof line, file) != NULL) {
    line[strcspn(line, "\n")] = '\0';
    if (line[0] == '#') continue;
    layer *more = realloc(*layers, (*n + 1) * sizeof *more);
    if (more != NULL) *layers = more;
    if (more == NULL)
      status = wrong("no memory for", line);
    else if (!read_layer(&more[(*n)++], line))
      status = wrong(
          "16 or 5 numbers, of a convolution or linear layer with sums below 2^24, are wanted, not",
          line);
  }
  fclose(file);
  return status;
}

static void open_gpu(gpu *g, const layer *layers, size_t n) {
  size_t most = 1;
  for (size_t i = 0; i < n; i++) {
    mptl_conv_sizes s = mptl_conv_sizes_of(&layers[i].s);
    for (int k = 0; k < 3; k++) most = s.n[k] > most ? s.n[k] : most;
  }
  MUST(mptl_cuda_dnn_create(&g->dnn, 0, g->stream));
  MUST(mptl_cuda_blas_create(&g->blas, 0, g->stream));
  CUDA(cudaMallocHost((void **)&g->truth, most * sizeof(float)));
  CUDA(cudaMallocHost((void **)&g->got, most * sizeof(float)));
  CUDA(cudaMallocHost((void **)&g->again, most * sizeof(float)));
  if (g->truth == NULL || g->got == NULL || g->again == NULL)
    MUST(mptl_fail(MPTL_ENOMEM, "no memory for %zu results", most));
}

static void close_gpu(gpu *g) {
  mptl_cuda_dnn_destroy(g->dnn);
  mptl_cuda_blas_destroy(g->blas);
  cudaFreeHost(g->truth), cudaFreeHost(g->got), cudaFreeHost(g->again);
  cudaStreamDestroy(g->stream);
}

int main(int argc, char **argv) {
  double start = now(), most = 1e9;
  bool limited = argc == 4 && strcmp(argv[1], "--seconds") == 0;
  if (limited) most = atof(argv[2]);
  if ((!limited && argc != 2) || most <= 0)
    return wrong("usage: cuda_layers_on_gpu [--seconds N] ROWS, not", argc > 1 ? argv[1] : "");
  layer *layers;
  size_t n, left[SWEEPS], all_left = 0;
  check_sums();
  int status = read_layers(&layers, &n, argv[argc - 1]);
  gpu g = {.products = 0};
  if (status == 0 && failures == 0 && cudaStreamCreate(&g.stream) != cudaSuccess) {
    printf("no GPU: %s\n", cudaGetErrorString(cudaGetLastError()));
    status = NO_GPU;
  }
  if (status == 0 && failures == 0) {
    open_gpu(&g, layers, n);
    for (int i = 0; i < SWEEPS; i++) {
      left[i] = check_sweep(&g, layers, n, &sweeps[i], start + most);
      all_left += left[i];
    }
    printf(
        "%d products of %zu layers, each twice; %d elements by sums of integers; %d products the "
        "libraries do not have; %.0f s\n",
        g.products, n, g.sampled, g.missing, now() - start);
    for (int i = 0; i < SWEEPS && all_left > 0; i++) {
      printf(i == 0 ? "the time was up, not checked:" : ",");
      for (int t = 0; t < sweeps[i].n; t++) print_types(sweeps[i].types[t]);
      printf(" of %zu layers%s", left[i], sweeps[i].groups ? " with channel groups" : "");
    }
    if (all_left > 0) printf("\n");
    close_gpu(&g);
  }
  free(layers);
  return failures != 0 ? 1 : status;
}
