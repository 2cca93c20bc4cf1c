/* usage: cuda_plans DEVICE TYPE [MIB [THREADS]] < SHAPES Makes cuDNN's plans of all passes of
 * convolutions, with the channels that the backend adds (backend/cuda/channels.h), for a described
 * device (a100, h100, b200) and operands of a type (f32, e5m2:e4m3), with at most MIB MiB of
 * workspace (or "usual", the default: the usual limit). With THREADS, plans that take long are
 * first made on that many threads, and the first line of stdout is "made N". A line of stdin is a
 * shape: n ic ih iw oc oh ow kh kw sh sw ph pw dh dw groups. A line of stdout is "ok SHAPE, PASS,
 * TYPE: ENGINE, BYTES" or "no SHAPE, PASS, TYPE: REASON", for each pass in turn. Exits 0 unless the
 * arguments or a line are wrong. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/channels.h"
#include "backend/cuda/dnn_ahead.h"
#include "backend/cuda/inspect.h"
#include "devices.h"

static int wrong(const char *what, const char *value) {
  fprintf(stderr, "cuda_plans: %s '%s'\n", what, value);
  return 2;
}

static mptl_cuda_type type_named(const char *name, size_t length) {
  mptl_cuda_type type = MPTL_CUDA_F32;
  while (type < MPTL_CUDA_TYPES && (strlen(mptl_cuda_type_name(type)) != length ||
                                    strncmp(mptl_cuda_type_name(type), name, length)))
    type++;
  return type;
}

static void plan(mptl_cuda_dnn *dnn, const mptl_conv_shape *shape, mptl_pass pass,
                 mptl_cuda_type first, mptl_cuda_type second, size_t limit) {
  mptl_cuda_conv *conv;
  mptl_conv_shape s = mptl_cuda_filled_up(*shape, first, second);
  if (mptl_cuda_conv_create(&conv, dnn, &s, pass, first, second, limit) == MPTL_OK)
    printf("ok %s: %s, %zu\n", mptl_cuda_conv_describe(conv), mptl_cuda_conv_engine(conv),
           mptl_cuda_conv_workspace_bytes(conv));
  else
    printf("no %s\n", mptl_error());
  mptl_cuda_conv_destroy(conv);
}

/* Reads the shapes of stdin, which the caller owns. Returns 0, or the status for main to return. */
static int read_shapes(mptl_conv_shape **shapes, size_t *n) {
  char line[256];
  *shapes = NULL;
  *n = 0;
  while (fgets(line, sizeof line, stdin) != NULL) {
    mptl_conv_shape s = {.bias = false};
    if (sscanf(line, "%d %d %d %d %d %d %d %d %d %d %d %d %d %d %d %d", &s.n, &s.ic, &s.ih, &s.iw,
               &s.oc, &s.oh, &s.ow, &s.kh, &s.kw, &s.sh, &s.sw, &s.ph, &s.pw, &s.dh, &s.dw,
               &s.groups) != 16)
      return wrong("not a shape:", line);
    mptl_conv_shape *more = realloc(*shapes, (*n + 1) * sizeof s);
    if (more == NULL) return wrong("no memory for", line);
    *shapes = more;
    more[(*n)++] = s;
  }
  return 0;
}

static void make_ahead(mptl_cuda_dnn *dnn, const mptl_conv_shape *shapes, size_t n,
                       mptl_cuda_pair types, size_t limit, int threads) {
  mptl_cuda_announced *list = calloc(n * MPTL_PASSES + 1, sizeof *list);
  for (size_t i = 0; i < n * MPTL_PASSES && list != NULL; i++) {
    mptl_pass pass = (mptl_pass)(i % MPTL_PASSES);
    list[i] = (mptl_cuda_announced){
        mptl_cuda_filled_up(shapes[i / MPTL_PASSES], types.first, types.second),
        pass,
        {1, {types}}};
  }
  printf("made %zu\n",
         list != NULL ? mptl_cuda_conv_make_ahead(dnn, list, n * MPTL_PASSES, limit, threads) : 0);
  free(list);
}

int main(int argc, char **argv) {
  if (argc < 3 || argc > 5)
    return wrong("arguments are DEVICE TYPE [MIB [THREADS]], not", argc > 1 ? argv[1] : "");
  const char *device = strcmp(argv[1], "a100") == 0   ? A100
                       : strcmp(argv[1], "h100") == 0 ? H100
                       : strcmp(argv[1], "b200") == 0 ? B200
                                                      : NULL;
  size_t length = strcspn(argv[2], ":");
  mptl_cuda_type first = type_named(argv[2], length), second = first;
  if (argv[2][length] == ':')
    second = type_named(argv[2] + length + 1, strlen(argv[2] + length + 1));
  if (device == NULL) return wrong("device is a100, h100 or b200, not", argv[1]);
  if (first == MPTL_CUDA_TYPES || second == MPTL_CUDA_TYPES) return wrong("unknown type", argv[2]);
  bool usual = argc < 4 || strcmp(argv[3], "usual") == 0;
  size_t limit = usual ? MPTL_CUDA_USUAL_WORKSPACE : (size_t)atoi(argv[3]) << 20, n;
  mptl_cuda_dnn *dnn;
  mptl_conv_shape *shapes;
  int status = read_shapes(&shapes, &n);
  if (status == 0 && mptl_cuda_dnn_create_for(&dnn, device) != MPTL_OK)
    status = wrong(argv[1], mptl_error());
  if (status == 0) {
    if (argc > 4)
      make_ahead(dnn, shapes, n, (mptl_cuda_pair){.first = first, .second = second}, limit,
                 atoi(argv[4]));
    for (size_t i = 0; i < n * MPTL_PASSES; i++)
      plan(dnn, &shapes[i / MPTL_PASSES], (mptl_pass)(i % MPTL_PASSES), first, second, limit);
    mptl_cuda_dnn_destroy(dnn);
  }
  free(shapes);
  return status;
}
