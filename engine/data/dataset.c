/* Data sets: memory and names. cifar.c and synthetic.c fill data sets in memory; sample.c decodes
 * the images of encoded ones. */
#include "data/dataset.h"

#include <stdlib.h>

const char *mptl_split_name(mptl_split split) { return split == MPTL_TRAIN ? "training" : "test"; }

/* Creates a data set of min(count, limit) images, with memory for their labels only. */
static mptl_status create(mptl_dataset **dataset, int64_t count, int classes, int side,
                          mptl_split split, int64_t limit) {
  *dataset = NULL;
  if (limit < 1)
    return mptl_fail(MPTL_EINVAL, "limit: %lld images, must be positive", (long long)limit);
  if (side < 1 || side > MPTL_IMAGE_SIDE_MAX)
    return mptl_fail(MPTL_EINVAL, "side of the images: %d, accepted are 1 to %d", side,
                     MPTL_IMAGE_SIDE_MAX);
  if (count > limit) count = limit;
  if (count > INT32_MAX)
    return mptl_fail(MPTL_EINVAL, "%s set: %lld images, at most %d are accepted",
                     mptl_split_name(split), (long long)count, INT32_MAX);
  mptl_dataset *d = calloc(1, sizeof *d);
  int32_t *labels = malloc((size_t)count * sizeof *labels);
  if (d == NULL || labels == NULL) {
    free(d);
    free(labels);
    return mptl_fail(MPTL_ENOMEM, "%s set: no memory for %lld images", mptl_split_name(split),
                     (long long)count);
  }
  *d = (mptl_dataset){
      .count = count, .classes = classes, .split = split, .side = side, .labels = labels};
  *dataset = d;
  return MPTL_OK;
}

mptl_status mptl_dataset_allocate(mptl_dataset **dataset, int64_t count, int classes, int side,
                                  mptl_split split, int64_t limit) {
  MPTL_TRY(create(dataset, count, classes, side, split, limit));
  mptl_dataset *d = *dataset;
  size_t size = mptl_image_size(d), n = (size_t)d->count;
  d->images = n <= SIZE_MAX / size ? malloc(n * size) : NULL;
  if (d->images != NULL) return MPTL_OK;
  mptl_dataset_destroy(d);
  *dataset = NULL;
  return mptl_fail(MPTL_ENOMEM, "%s set: no memory for %zu images of %zu bytes",
                   mptl_split_name(split), n, size);
}

mptl_status mptl_dataset_encoded(mptl_dataset **dataset, const mptl_images *images,
                                 mptl_split split, int side, int resize, int skip_bad,
                                 int64_t limit) {
  *dataset = NULL;
  if (resize < side || resize > 2 * MPTL_IMAGE_SIDE_MAX)
    return mptl_fail(MPTL_EINVAL, "resize: %d, accepted are the images' side, %d, to %d", resize,
                     side, 2 * MPTL_IMAGE_SIDE_MAX);
  MPTL_TRY(
      create(dataset, mptl_images_count(images), mptl_images_classes(images), side, split, limit));
  mptl_dataset *d = *dataset;
  d->encoded = images;
  d->resize = resize;
  d->skip_bad = skip_bad;
  for (int32_t i = 0; i < d->count; i++)
    d->labels[i] = mptl_images_label(images, mptl_dataset_index(d, i));
  return MPTL_OK;
}

int64_t mptl_dataset_index(const mptl_dataset *d, int32_t index) {
  return index * mptl_images_count(d->encoded) / d->count;
}

void mptl_dataset_destroy(mptl_dataset *dataset) {
  if (dataset == NULL) return;
  free(dataset->images);
  free(dataset->labels);
  free(dataset);
}
