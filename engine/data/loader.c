/* The loader: workers fill a ring of batches ahead of the one thread that takes them, in order.
 *
 * Batch b of an epoch is in slot b % slots. It is made in pieces of a few images, so that all
 * workers can work at one batch. A worker claims the next piece of the lowest batch that has one
 * left, once the slot of the batch is free: the batches from `needed` to needed + slots - 1 have
 * different slots, and lower ones have been given back. The contents of a batch depend only on its
 * number and the epoch, so any worker may make any piece.
 *
 * An image that cannot be read is noted with its piece. When the last piece of a batch is done, the
 * bad images are removed from the batch if they may be skipped; otherwise the thread that takes the
 * batch gets an error.
 */
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/dataset.h"
#include "data/sample.h"

#define MAX_THREADS 64
#define MAX_SLOTS 256
#define MANY_BYTES \
  ((size_t)128 << 20) /* of a batch: if it has more, there are two slots by default */
#define WHY_SIZE 512

/* Images in a piece: decoding one takes milliseconds, copying one microseconds. */
enum { PIECE_ENCODED = 4, PIECE_IN_MEMORY = 64 };

typedef struct slot {
  float *images;
  int32_t *labels, *indices; /* a bad image's label is BAD until it is removed */
  int n;
  int64_t ready; /* number of the finished batch in it, else -1; the lock protects this and the
                    fields below */
  int pieces;    /* pieces that are not finished yet */
  int bad;       /* bad images */
  int first_bad; /* index in the batch of the first of them */
  mptl_status status;
  char why[WHY_SIZE]; /* the first bad image's message */
} slot;

enum { BAD = -1 };

/* The result of making a piece. */
typedef struct outcome {
  int bad, first_bad;
  mptl_status status; /* of the first bad image; other failures are preferred to MPTL_EDATA */
  char why[WHY_SIZE];
} outcome;

typedef struct worker_data {
  struct mptl_loader *loader;
  mptl_sampler *sampler;
  pthread_t thread;
} worker_data;

struct mptl_loader {
  const mptl_dataset *dataset;
  mptl_loader_options options;
  mptl_pixel_table table;
  int64_t batches; /* in an epoch */
  int piece;       /* images in a piece */
  slot *slots;

  /* Written by mptl_loader_start while no worker is busy, read by busy workers. */
  uint32_t epoch;
  int32_t *order;

  pthread_mutex_t lock; /* protects everything below except the workers */
  pthread_cond_t work;  /* a piece may be claimed, or the workers must stop */
  pthread_cond_t done;  /* a batch has been finished */
  bool started, quit;
  int busy;          /* workers filling a slot */
  int64_t claimed;   /* the batch whose pieces are being claimed */
  int claimed_piece; /* its next piece */
  int64_t position;  /* the batch that is given out next */
  int64_t needed; /* the lowest batch whose slot is in use: position, or the one given out last */
  char skipped[WHY_SIZE];

  worker_data *workers;
  int running; /* threads created */
};

static int batch_count(const mptl_loader *l, int64_t batch) {
  int64_t left = l->dataset->count - batch * l->options.batch_size;
  return left < l->options.batch_size ? (int)left : l->options.batch_size;
}

static void fill(worker_data *w, slot *s, int64_t batch, int piece, outcome *result) {
  const mptl_loader *l = w->loader;
  int first = piece * l->piece, end = s->n - first < l->piece ? s->n : first + l->piece;
  *result = (outcome){.status = MPTL_OK};
  for (int i = first; i < end; i++) {
    int32_t index = l->order[batch * l->options.batch_size + i];
    float *image = s->images + (size_t)i * mptl_image_size(l->dataset);
    mptl_status status = mptl_sample(w->sampler, image, index, &l->table, l->options.augment,
                                     l->options.seed, l->epoch);
    s->labels[i] = status == MPTL_OK ? l->dataset->labels[index] : BAD;
    s->indices[i] = index;
    if (status == MPTL_OK) continue;
    if (result->bad++ == 0 || (result->status == MPTL_EDATA && status != MPTL_EDATA)) {
      result->first_bad = i;
      result->status = status;
      snprintf(result->why, sizeof result->why, "%s", mptl_error());
    }
  }
}

/* Whether the message of the batch is from the outcome a, and not the one in the slot b. */
static bool comes_before(const outcome *a, const slot *b) {
  if (b->bad == 0) return true;
  bool a_contents = a->status == MPTL_EDATA, b_contents = b->status == MPTL_EDATA;
  return a_contents == b_contents ? a->first_bad < b->first_bad : b_contents;
}

static void add_outcome(slot *s, const outcome *result) {
  if (result->bad == 0) return;
  if (comes_before(result, s)) {
    s->first_bad = result->first_bad;
    s->status = result->status;
    memcpy(s->why, result->why, sizeof s->why);
  }
  s->bad += result->bad;
}

/* Removes the bad images from a batch. */
static void remove_bad(slot *s, size_t image_size) {
  int kept = 0;
  for (int i = 0; i < s->n; i++) {
    if (s->labels[i] == BAD) continue;
    if (kept < i)
      memcpy(s->images + (size_t)kept * image_size, s->images + (size_t)i * image_size,
             image_size * sizeof *s->images);
    s->labels[kept] = s->labels[i];
    s->indices[kept++] = s->indices[i];
  }
  s->n = kept;
}

static bool may_claim(const mptl_loader *l) {
  return l->claimed < l->batches && l->claimed < l->needed + l->options.slots;
}

/* Claims the next piece; may_claim must be true. The first piece of a batch prepares the slot. */
static slot *claim(mptl_loader *l, int64_t *batch, int *piece) {
  slot *s = &l->slots[l->claimed % l->options.slots];
  *batch = l->claimed;
  *piece = l->claimed_piece++;
  if (*piece == 0) {
    s->n = batch_count(l, *batch);
    s->pieces = (s->n + l->piece - 1) / l->piece;
    s->bad = 0;
    s->status = MPTL_OK;
  }
  if (l->claimed_piece * l->piece >= s->n) {
    l->claimed++;
    l->claimed_piece = 0;
  }
  return s;
}

static void *worker(void *argument) {
  worker_data *w = argument;
  mptl_loader *l = w->loader;
  outcome result;
  pthread_mutex_lock(&l->lock);
  for (;;) {
    while (!l->quit && !may_claim(l)) pthread_cond_wait(&l->work, &l->lock);
    if (l->quit) break;
    int64_t batch;
    int piece;
    slot *s = claim(l, &batch, &piece);
    l->busy++;
    if (may_claim(l)) pthread_cond_signal(&l->work); /* for another worker */
    pthread_mutex_unlock(&l->lock);
    fill(w, s, batch, piece, &result);
    pthread_mutex_lock(&l->lock);
    add_outcome(s, &result);
    l->busy--;
    if (--s->pieces == 0) {
      if (s->bad > 0) remove_bad(s, mptl_image_size(l->dataset));
      s->ready = batch;
    }
    if (s->pieces == 0 || l->busy == 0) pthread_cond_signal(&l->done);
  }
  pthread_mutex_unlock(&l->lock);
  return NULL;
}

static size_t batch_bytes(const mptl_loader_options *o, const mptl_dataset *dataset) {
  return (size_t)o->batch_size * mptl_image_size(dataset) * sizeof(float);
}

/* Fills in the defaults and checks the rest. */
static mptl_status check_options(mptl_loader_options *o, const mptl_dataset *dataset) {
  if (o->threads == 0) o->threads = 1;
  if (o->batch_size < 1)
    return mptl_fail(MPTL_EINVAL, "batch: %d, must be positive", o->batch_size);
  if (o->batch_size > dataset->count)
    return mptl_fail(MPTL_EINVAL, "batch %d is larger than the %s set (%lld image%s)",
                     o->batch_size, mptl_split_name(dataset->split), (long long)dataset->count,
                     dataset->count == 1 ? "" : "s");
  if (o->threads < 1 || o->threads > MAX_THREADS)
    return mptl_fail(MPTL_EINVAL, "loader threads: %d, accepted are 1 to %d", o->threads,
                     MAX_THREADS);
  if (o->slots == 0) o->slots = batch_bytes(o, dataset) > MANY_BYTES ? 2 : 4;
  if (o->slots < 1 || o->slots > MAX_SLOTS)
    return mptl_fail(MPTL_EINVAL, "loader slots: %d, accepted are 1 to %d", o->slots, MAX_SLOTS);
  for (int c = 0; c < MPTL_IMAGE_CHANNELS; c++) {
    if (!isfinite(o->mean[c]))
      return mptl_fail(MPTL_EINVAL, "mean of channel %d: %g, must be finite", c + 1,
                       (double)o->mean[c]);
    if (!isfinite(o->std[c]) || o->std[c] <= 0)
      return mptl_fail(MPTL_EINVAL, "std of channel %d: %g, must be positive and finite", c + 1,
                       (double)o->std[c]);
  }
  return MPTL_OK;
}

static bool allocate(mptl_loader *l) {
  size_t n = (size_t)l->options.batch_size;
  l->order = malloc((size_t)l->dataset->count * sizeof *l->order);
  l->workers = calloc((size_t)l->options.threads, sizeof *l->workers);
  l->slots = calloc((size_t)l->options.slots, sizeof *l->slots);
  if (l->order == NULL || l->workers == NULL || l->slots == NULL) return false;
  for (int i = 0; i < l->options.slots; i++) {
    slot *s = &l->slots[i];
    s->images = mptl_device_host_alloc(l->options.device, batch_bytes(&l->options, l->dataset));
    s->labels = malloc(n * sizeof *s->labels);
    s->indices = malloc(n * sizeof *s->indices);
    if (s->images == NULL || s->labels == NULL || s->indices == NULL) return false;
  }
  for (int i = 0; i < l->options.threads; i++) {
    l->workers[i].loader = l;
    if (mptl_sampler_create(&l->workers[i].sampler, l->dataset) != MPTL_OK) return false;
  }
  return true;
}

/* Workers block signals, so that an interrupt reaches one of the other threads of the program. */
static bool start_workers(mptl_loader *l) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  while (l->running < l->options.threads &&
         pthread_create(&l->workers[l->running].thread, NULL, worker, &l->workers[l->running]) == 0)
    l->running++;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return l->running == l->options.threads;
}

mptl_status mptl_loader_create(mptl_loader **loader, const mptl_dataset *dataset,
                               const mptl_loader_options *options) {
  *loader = NULL;
  mptl_loader_options o = *options;
  MPTL_TRY(check_options(&o, dataset));
  mptl_loader *l = calloc(1, sizeof *l);
  if (l == NULL) return mptl_fail(MPTL_ENOMEM, "loader: no memory");
  l->dataset = dataset;
  l->batches = (dataset->count + (o.drop_last ? 0 : o.batch_size - 1)) / o.batch_size;
  if (o.slots > l->batches) o.slots = (int)l->batches;
  l->options = o;
  mptl_device_retain(o.device);
  l->piece = dataset->encoded != NULL ? PIECE_ENCODED : PIECE_IN_MEMORY;
  l->claimed = l->batches; /* nothing to do until the first start */
  mptl_pixel_table_init(&l->table, o.mean, o.std);
  pthread_mutex_init(&l->lock, NULL);
  pthread_cond_init(&l->work, NULL);
  pthread_cond_init(&l->done, NULL);
  mptl_status status = MPTL_OK;
  if (!allocate(l))
    status = mptl_fail(MPTL_ENOMEM, "loader: no memory for %d batches of %d images", o.slots,
                       o.batch_size);
  else if (!start_workers(l))
    status = mptl_fail(MPTL_ENOMEM, "loader: only %d of %d threads could be started", l->running,
                       o.threads);
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
  for (int i = 0; i < l->running; i++) pthread_join(l->workers[i].thread, NULL);
  for (int i = 0; l->workers != NULL && i < l->options.threads; i++)
    mptl_sampler_destroy(l->workers[i].sampler);
  for (int i = 0; l->slots != NULL && i < l->options.slots; i++) {
    mptl_device_host_free(l->options.device, l->slots[i].images);
    free(l->slots[i].labels);
    free(l->slots[i].indices);
  }
  pthread_cond_destroy(&l->done);
  pthread_cond_destroy(&l->work);
  pthread_mutex_destroy(&l->lock);
  mptl_device_close(l->options.device);
  free(l->slots);
  free(l->workers);
  free(l->order);
  free(l);
}

int64_t mptl_loader_batches(const mptl_loader *loader) { return loader->batches; }

mptl_status mptl_loader_start(mptl_loader *l, int64_t epoch, int64_t first_batch) {
  if (epoch < 0 || epoch > UINT32_MAX)
    return mptl_fail(MPTL_EINVAL, "epoch: %lld, accepted are 0 to 2^32-1", (long long)epoch);
  if (first_batch < 0 || first_batch > l->batches)
    return mptl_fail(MPTL_EINVAL, "first batch: %lld, accepted are 0 to %lld",
                     (long long)first_batch, (long long)l->batches);
  pthread_mutex_lock(&l->lock);
  l->claimed = l->batches; /* nothing is left of the current epoch */
  l->claimed_piece = 0;
  while (l->busy > 0) pthread_cond_wait(&l->done, &l->lock);
  for (int i = 0; i < l->options.slots; i++) l->slots[i].ready = -1;
  l->epoch = (uint32_t)epoch;
  if (l->options.shuffle) {
    mptl_permutation(l->order, (int32_t)l->dataset->count, l->options.seed, l->epoch);
  } else {
    for (int32_t i = 0; i < l->dataset->count; i++) l->order[i] = i;
  }
  l->claimed = l->position = l->needed = first_batch;
  l->skipped[0] = '\0';
  l->started = true;
  pthread_cond_broadcast(&l->work);
  pthread_mutex_unlock(&l->lock);
  return MPTL_OK;
}

/* Gives back the batch before `position`, waits for the one at `position` and returns its slot;
 * NULL at the end of the epoch. The lock must be held. */
static slot *wait_for_batch(mptl_loader *l) {
  l->needed = l->position;
  pthread_cond_signal(&l->work);
  if (l->position == l->batches) return NULL;
  slot *s = &l->slots[l->position % l->options.slots];
  while (s->ready != l->position) pthread_cond_wait(&l->done, &l->lock);
  return s;
}

mptl_status mptl_loader_next(mptl_loader *l, mptl_batch *batch) {
  size_t image_size = mptl_image_size(l->dataset);
  *batch = (mptl_batch){.image_size = image_size};
  if (!l->started)
    return mptl_fail(MPTL_EINVAL,
                     "loader: the next batch was asked for before an epoch was started");
  mptl_status status = MPTL_OK;
  const slot *s;
  pthread_mutex_lock(&l->lock);
  while (batch->n == 0 && (s = wait_for_batch(l)) != NULL) {
    if (s->bad > 0) {
      memcpy(l->skipped, s->why, sizeof l->skipped);
      if (!l->dataset->skip_bad || s->status != MPTL_EDATA) {
        status = mptl_fail(s->status, "%s", s->why);
        break;
      }
    }
    *batch = (mptl_batch){.images = s->images,
                          .labels = s->labels,
                          .indices = s->indices,
                          .n = s->n,
                          .image_size = image_size,
                          .skipped = batch->skipped + s->bad};
    l->position++;
  }
  pthread_mutex_unlock(&l->lock);
  return status;
}

int64_t mptl_loader_position(const mptl_loader *loader) { return loader->position; }
const char *mptl_loader_skipped(const mptl_loader *loader) { return loader->skipped; }
