/* cuDNN's backend descriptors with mptl's statuses. A failed call leaves one line that names the descriptor and gives cuDNN's reason. */
#ifndef MPTL_BACKEND_CUDA_DNN_GRAPH_H
#define MPTL_BACKEND_CUDA_DNN_GRAPH_H

#include <cudnn_graph.h>

#include "backend/cuda/check.h"
#include "backend/cuda/device.h"
#include "backend/cuda/dnn.h"

/* Everything that a plan depends on, its device aside. */
typedef struct mptl_dnn_key {
  mptl_conv_shape shape; /* whose bias does not matter */
  mptl_pass pass;
  mptl_cuda_type first, second;
  size_t workspace_limit; /* in bytes */
} mptl_dnn_key;

bool mptl_dnn_same_key(const mptl_dnn_key *a, const mptl_dnn_key *b);

typedef struct mptl_dnn_plan {
  mptl_dnn_key key;
  cudnnBackendDescriptor_t config, plan;
  size_t workspace_bytes;
  char engine[32];
  char wrong[200]; /* the last engine that was passed over because it failed its check, and how; not in files */
  char *refusal;   /* why there is no plan; NULL: there is one */
  struct mptl_dnn_plan *next;
} mptl_dnn_plan;

typedef struct mptl_dnn_store mptl_dnn_store; /* plans in files: dnn_store.h */

/* Checks a plan that was found (check.h). Specs have others. */
typedef mptl_status mptl_dnn_judge(mptl_cuda_finding *finding, const mptl_cuda_dnn *dnn, const mptl_dnn_plan *plan);

struct mptl_cuda_dnn {
  int device; /* with its handle and stream, where there is one */
  cudnnHandle_t handle;
  cudaStream_t stream;
  char *description; /* with cuDNN's form of it, where the device is only described */
  cudnnBackendDescriptor_t properties;
  mptl_cuda_traits traits;
  bool compiler_works;   /* that is known: see mptl_dnn_check_compiler */
  mptl_dnn_judge *judge; /* NULL: plans are not checked, the device is only described */
  mptl_dnn_plan *plans;  /* all that were asked for */
  mptl_dnn_store *store; /* NULL: there are no files */
};

/* Whether cuDNN compiles engines for it. */
bool mptl_dnn_is_compiled(const mptl_dnn_key *key);

/* MPTL_EBACKEND unless NVRTC compiles for dnn's device. Where it does not, cuDNN has no engines to be compiled, or says of each that it is
 * not supported, as it says of those that it has for no device: a wider type would be taken in silence. */
mptl_status mptl_dnn_check_compiler(mptl_cuda_dnn *dnn);

/* Another one for the same device. */
mptl_status mptl_dnn_create_like(mptl_cuda_dnn **another, const mptl_cuda_dnn *dnn);

/* The plan of a key, from a file or made when it is first asked for; owned by dnn. Types that do not go together are refused; the shape is
 * one that mptl_conv_check has passed. */
mptl_status mptl_dnn_find_plan(const mptl_dnn_plan **plan, mptl_cuda_dnn *dnn, const mptl_dnn_key *key);

/* Searches a plan for plan->key. certain: whether it would come out the same another time, if there is none. cuDNN's word for
 * an engine that it lists and then does not have is also that for one whose compilation failed, for what reason ever; and a
 * device that gives wrong sums may have been out of order. */
mptl_status mptl_dnn_search_plan(mptl_dnn_plan *plan, mptl_cuda_dnn *dnn, bool *certain);

/* What dnn knows of a key, or finds in a file: its plan, or one that has a refusal. NULL: nothing. */
const mptl_dnn_plan *mptl_dnn_recall_plan(mptl_cuda_dnn *dnn, const mptl_dnn_key *key);
void mptl_dnn_destroy_plans(mptl_dnn_plan *plans);

/* An execution plan for dnn's device; then, when what it is to be made of is set, the end of making it. */
mptl_status mptl_dnn_begin_plan(cudnnBackendDescriptor_t *plan, const mptl_cuda_dnn *dnn);
mptl_status mptl_dnn_end_plan(size_t *workspace_bytes, cudnnBackendDescriptor_t plan);

/* A plan as cuDNN writes it down, a compiled engine's code included: reading takes milliseconds, where making one takes seconds. Or why
 * there is none. */
typedef struct mptl_dnn_text {
  bool refused; /* bytes are a refusal, engine means nothing */
  char engine[sizeof((mptl_dnn_plan){0}.engine)];
  char *bytes; /* owned */
  size_t size;
} mptl_dnn_text;

/* Gives dnn a plan that it does not have, from a text. False: it was no use. */
bool mptl_dnn_take_plan(mptl_cuda_dnn *dnn, const mptl_dnn_key *key, const mptl_dnn_text *text);

/* Not every engine of every version has one. */
mptl_status mptl_dnn_write_plan(mptl_dnn_text *text, const mptl_dnn_plan *plan);

/* The plan of a text, for dnn's device; plan->key is set, what it says is not compared. MPTL_EUNSUPPORTED: it needs more workspace than the
 * key allows. */
mptl_status mptl_dnn_read_plan(mptl_dnn_plan *plan, const mptl_cuda_dnn *dnn, const mptl_dnn_text *text);

/* The judge of dnn's device: the plan is run there. */
mptl_dnn_judge mptl_dnn_check_plan;

/* Descriptors that are made and destroyed together. */
typedef struct mptl_dnn_pool {
  cudnnBackendDescriptor_t all[16];
  int n;
} mptl_dnn_pool;

mptl_status mptl_dnn_pool_add(mptl_dnn_pool *pool, cudnnBackendDescriptor_t *d, cudnnBackendDescriptorType_t type);
void mptl_dnn_pool_destroy(mptl_dnn_pool *pool);

/* The status of a cuDNN call; what: the thing that the message names. MPTL_EUNSUPPORTED is what cuDNN has not, or has not for the device:
 * not what is missing on this machine. */
mptl_status mptl_dnn_status(cudnnStatus_t status, const char *what);

/* A variant pack with these addresses: operands and result by id - 1, workspace. A finalised one cannot be changed. */
mptl_status mptl_dnn_make_pack(cudnnBackendDescriptor_t *pack, void *const at[]);

/* Attributes are set before a descriptor is finalised; what as above. */
mptl_status mptl_dnn_set(cudnnBackendDescriptor_t d, const char *what, cudnnBackendAttributeName_t name,
                         cudnnBackendAttributeType_t type, int64_t n, const void *values);
mptl_status mptl_dnn_set_int(cudnnBackendDescriptor_t d, const char *what, cudnnBackendAttributeName_t name, int64_t value);
mptl_status mptl_dnn_set_descriptor(cudnnBackendDescriptor_t d, const char *what, cudnnBackendAttributeName_t name,
                                    cudnnBackendDescriptor_t value);
mptl_status mptl_dnn_finalize(cudnnBackendDescriptor_t d, const char *what);

/* Unique ids of a convolution's tensors. Sums are in no memory. */
typedef enum mptl_dnn_id { MPTL_DNN_FIRST = 1, MPTL_DNN_SECOND, MPTL_DNN_RESULT, MPTL_DNN_SUM } mptl_dnn_id;
enum { MPTL_DNN_OPERANDS = 3 }; /* that are in memory, the result counted in */

/* The operation graph of a key. */
mptl_status mptl_dnn_add_graph(mptl_dnn_pool *pool, cudnnBackendDescriptor_t *graph, const mptl_cuda_dnn *dnn,
                               const mptl_dnn_key *key);

#endif
