/* Inside data sets: functions that cifar.c, synthetic.c and the loader share. */
#ifndef MPTL_DATA_DATASET_H
#define MPTL_DATA_DATASET_H

#include "mptl/data.h"

/* Numbers of the streams of random bits with the purpose MPTL_STREAM_AUGMENT. */
enum {
  MPTL_AUGMENT_CROP = 0,
  MPTL_AUGMENT_SYNTHETIC_TRAIN = 1,
  MPTL_AUGMENT_SYNTHETIC_TEST = 2,
  MPTL_AUGMENT_RESIZED_CROP = 3
};

/* Creates a data set in memory of min(count, limit) images; the caller fills in images and
 * labels. */
mptl_status mptl_dataset_allocate(mptl_dataset **dataset, int64_t count, int classes, int side,
                                  mptl_split split, int64_t limit);

/* The number in d->encoded of image number `index` of the data set. */
int64_t mptl_dataset_index(const mptl_dataset *d, int32_t index);

/* "training" or "test", for messages. */
const char *mptl_split_name(mptl_split split);

#endif
