/* The loader: workers fill a ring of batches ahead of the one thread that takes them, in order.
 *
 * Batch b of an epoch lives in slot b % slots. A worker claims the lowest batch that nobody has claimed, as long as its slot is
 * free: batches below `needed` have been given back, so those below needed + slots have a slot of their own. What a batch holds
 * depends only on its number and the epoch, so which worker makes it does not matter.
 */
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "data/dataset.h"
#include "data/sample.h"

#define MAX_THREADS 64
#define MAX_SLOTS 256

typedef struct slot {
  float *images;
  int32_t *labels, *indices;
  int n;
  int64_t ready; /* the batch it holds, -1 if none or not finished; under the lock */
} slot;

struct mptl_loader {
  const mptl_dataset *dataset;
  mptl_loader_options options;
  mptl_pixel_table table;
  int64_t batches; /* an epoch */
  slot *slots;

  /* Written by start while no worker is busy, read by busy workers. */
  uint32_t epoch;
  int32_t *order;

  pthread_mutex_t lock; /* of everything below */
  pthread_cond_t work;  /* something may be claimed, or the workers are to stop */
  pthread_cond_t done;  /* a batch has been finished */
  bool started, quit;
  int busy;         /* workers filling a slot */
  int64_t claimed;  /* the next batch to be claimed */
  int64_t position; /* the next batch to be given out */
  int64_t needed;   /* the lowest batch that is still to be kept: position, or the one given out last */
  pthread_t *threads;
  int running; /* threads created */
};

static void fill(const mptl_loader *l, slot *s, int64_t batch) {
  int64_t first = batch * l->options.batch, left = l->dataset->count - first;
  s->n = left < l->options.batch ? (int)left : l->options.batch;
  for (int i = 0; i < s->n; i++) {
    int32_t index = l->order[first + i];
    mptl_crop crop = l->options.augment ? mptl_crop_draw(l->options.seed, l->epoch, index) : mptl_crop_none();
    mptl_image_load(s->images + (size_t)i * MPTL_IMAGE_SIZE, l->dataset->images + (size_t)index * MPTL_IMAGE_SIZE, crop,
                    &l->table);
    s->labels[i] = l->dataset->labels[index];
    s->indices[i] = index;
  }
}

static void *worker(void *argument) {
  mptl_loader *l = argument;
  pthread_mutex_lock(&l->lock);
  for (;;) {
    while (!l->quit && (l->claimed >= l->batches || l->claimed >= l->needed + l->options.slots))
      pthread_cond_wait(&l->work, &l->lock);
    if (l->quit) break;
    int64_t batch = l->claimed++;
    slot *s = &l->slots[batch % l->options.slots];
    l->busy++;
    pthread_mutex_unlock(&l->lock);
    fill(l, s, batch);
    pthread_mutex_lock(&l->lock);
    s->ready = batch;
    l->busy--;
    pthread_cond_signal(&l->done);
  }
  pthread_mutex_unlock(&l->lock);
  return NULL;
}

/* Fills in the defaults and checks the rest. */
static mptl_status check_options(mptl_loader_options *o, const mptl_dataset *dataset) {
  if (o->threads == 0) o->threads = 1;
  if (o->slots == 0) o->slots = o->threads < 4 ? 4 : o->threads + 1;
  if (o->batch < 1) return mptl_fail(MPTL_EINVAL, "batch: %d, must be positive", o->batch);
  if (o->batch > dataset->count)
    return mptl_fail(MPTL_EINVAL, "batch %d is larger than the %s set (%lld image%s)", o->batch, mptl_split_name(dataset->split),
                     (long long)dataset->count, dataset->count == 1 ? "" : "s");
  if (o->threads < 1 || o->threads > MAX_THREADS)
    return mptl_fail(MPTL_EINVAL, "loader threads: %d, accepted are 1 to %d", o->threads, MAX_THREADS);
  if (o->slots < 1 || o->slots > MAX_SLOTS)
    return mptl_fail(MPTL_EINVAL, "loader slots: %d, accepted are 1 to %d", o->slots, MAX_SLOTS);
  for (int c = 0; c < MPTL_IMAGE_CHANNELS; c++) {
    if (!isfinite(o->mean[c])) return mptl_fail(MPTL_EINVAL, "mean of channel %d: %g, must be finite", c + 1, (double)o->mean[c]);
    if (!isfinite(o->std[c]) || o->std[c] <= 0)
      return mptl_fail(MPTL_EINVAL, "std of channel %d: %g, must be positive and finite", c + 1, (double)o->std[c]);
  }
  return MPTL_OK;
}

static bool allocate(mptl_loader *l) {
  size_t batch = (size_t)l->options.batch;
  l->order = malloc((size_t)l->dataset->count * sizeof *l->order);
  l->threads = calloc((size_t)l->options.threads, sizeof *l->threads);
  l->slots = calloc((size_t)l->options.slots, sizeof *l->slots);
  if (l->order == NULL || l->threads == NULL || l->slots == NULL) return false;
  for (int i = 0; i < l->options.slots; i++) {
    slot *s = &l->slots[i];
    s->images = aligned_alloc(64, batch * MPTL_IMAGE_SIZE * sizeof *s->images); /* an image is a multiple of 64 bytes */
    s->labels = malloc(batch * sizeof *s->labels);
    s->indices = malloc(batch * sizeof *s->indices);
    if (s->images == NULL || s->labels == NULL || s->indices == NULL) return false;
  }
  return true;
}

/* Signals are blocked in the workers, so that an interrupt reaches a thread of the program. */
static bool start_workers(mptl_loader *l) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  while (l->running < l->options.threads && pthread_create(&l->threads[l->running], NULL, worker, l) == 0) l->running++;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return l->running == l->options.threads;
}

mptl_status mptl_loader_create(mptl_loader **loader, const mptl_dataset *dataset, const mptl_loader_options *options) {
  *loader = NULL;
  mptl_loader_options o = *options;
  MPTL_TRY(check_options(&o, dataset));
  mptl_loader *l = calloc(1, sizeof *l);
  if (l == NULL) return mptl_fail(MPTL_ENOMEM, "loader: no memory");
  l->dataset = dataset;
  l->batches = (dataset->count + (o.drop_last ? 0 : o.batch - 1)) / o.batch;
  if (o.slots > l->batches) o.slots = (int)l->batches;
  l->options = o;
  l->claimed = l->batches; /* nothing to do until the first start */
  mptl_pixel_table_init(&l->table, o.mean, o.std);
  pthread_mutex_init(&l->lock, NULL);
  pthread_cond_init(&l->work, NULL);
  pthread_cond_init(&l->done, NULL);
  mptl_status status = MPTL_OK;
  if (!allocate(l))
    status = mptl_fail(MPTL_ENOMEM, "loader: no memory for %d batches of %d images", o.slots, o.batch);
  else if (!start_workers(l))
    status = mptl_fail(MPTL_ENOMEM, "loader: only %d of %d threads could be started", l->running, o.threads);
  if (status == MPTL_OK)
    *loader = l;
  else
    mptl_loader_destroy(l);
  return status;
}

void mptl_loader_destroy(mptl_loader *l) {
  if (l == NULL) return;
  pthread_mutex_lock(&l->lock);
  l->quit = true;
  pthread_cond_broadcast(&l->work);
  pthread_mutex_unlock(&l->lock);
  for (int i = 0; i < l->running; i++) pthread_join(l->threads[i], NULL);
  for (int i = 0; l->slots != NULL && i < l->options.slots; i++) {
    free(l->slots[i].images);
    free(l->slots[i].labels);
    free(l->slots[i].indices);
  }
  pthread_cond_destroy(&l->done);
  pthread_cond_destroy(&l->work);
  pthread_mutex_destroy(&l->lock);
  free(l->slots);
  free(l->threads);
  free(l->order);
  free(l);
}

int64_t mptl_loader_batches(const mptl_loader *loader) { return loader->batches; }

mptl_status mptl_loader_start(mptl_loader *l, int64_t epoch, int64_t first_batch) {
  if (epoch < 0 || epoch > UINT32_MAX) return mptl_fail(MPTL_EINVAL, "epoch: %lld, accepted are 0 to 2^32-1", (long long)epoch);
  if (first_batch < 0 || first_batch > l->batches)
    return mptl_fail(MPTL_EINVAL, "first batch: %lld, accepted are 0 to %lld", (long long)first_batch, (long long)l->batches);
  pthread_mutex_lock(&l->lock);
  l->claimed = l->batches; /* no more of the epoch under way */
  while (l->busy > 0) pthread_cond_wait(&l->done, &l->lock);
  for (int i = 0; i < l->options.slots; i++) l->slots[i].ready = -1;
  l->epoch = (uint32_t)epoch;
  if (l->options.shuffle) {
    mptl_permutation(l->order, (int32_t)l->dataset->count, l->options.seed, l->epoch);
  } else {
    for (int32_t i = 0; i < l->dataset->count; i++) l->order[i] = i;
  }
  l->claimed = l->position = l->needed = first_batch;
  l->started = true;
  pthread_cond_broadcast(&l->work);
  pthread_mutex_unlock(&l->lock);
  return MPTL_OK;
}

mptl_status mptl_loader_next(mptl_loader *l, mptl_batch *batch) {
  *batch = (mptl_batch){0};
  if (!l->started) return mptl_fail(MPTL_EINVAL, "loader: the next batch was asked for before an epoch was started");
  pthread_mutex_lock(&l->lock);
  l->needed = l->position; /* gives back the batch before */
  pthread_cond_signal(&l->work);
  if (l->position < l->batches) {
    slot *s = &l->slots[l->position % l->options.slots];
    while (s->ready != l->position) pthread_cond_wait(&l->done, &l->lock);
    *batch = (mptl_batch){.images = s->images, .labels = s->labels, .indices = s->indices, .n = s->n};
    l->position++;
  }
  pthread_mutex_unlock(&l->lock);
  return MPTL_OK;
}
