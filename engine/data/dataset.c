/* Data sets: memory and names. The sources are in cifar.c and synthetic.c. */
#include "data/dataset.h"

#include <stdlib.h>

const char *mptl_split_name(mptl_split split) { return split == MPTL_TRAIN ? "training" : "test"; }

mptl_status mptl_dataset_allocate(mptl_dataset **dataset, int64_t count, int classes, mptl_split split, int64_t limit) {
  *dataset = NULL;
  if (limit < 1) return mptl_fail(MPTL_EINVAL, "limit: %lld images, must be positive", (long long)limit);
  if (count > limit) count = limit;
  if (count > INT32_MAX)
    return mptl_fail(MPTL_EINVAL, "%s set: %lld images, at most %d are accepted", mptl_split_name(split), (long long)count,
                     INT32_MAX);
  mptl_dataset *d = calloc(1, sizeof *d);
  uint8_t *images = malloc((size_t)count * MPTL_IMAGE_SIZE);
  int32_t *labels = malloc((size_t)count * sizeof *labels);
  if (d == NULL || images == NULL || labels == NULL) {
    free(d);
    free(images);
    free(labels);
    return mptl_fail(MPTL_ENOMEM, "%s set: no memory for %lld images", mptl_split_name(split), (long long)count);
  }
  *d = (mptl_dataset){.count = count, .classes = classes, .split = split, .images = images, .labels = labels};
  *dataset = d;
  return MPTL_OK;
}

void mptl_dataset_destroy(mptl_dataset *dataset) {
  if (dataset == NULL) return;
  free(dataset->images);
  free(dataset->labels);
  free(dataset);
}
