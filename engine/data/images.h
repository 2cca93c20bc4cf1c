/* Inside collections of encoded images: the functions of a reader, one for each kind of collection.
 * A reader's struct begins with a struct mptl_images. */
#ifndef MPTL_DATA_IMAGES_H
#define MPTL_DATA_IMAGES_H

#include "mptl/images.h"

typedef struct mptl_images_reader {
  const char *(*class_name)(const mptl_images *images, int label);
  int32_t (*label)(const mptl_images *images, int64_t i);
  const char *(*name)(const mptl_images *images, int64_t i);
  mptl_status (*read)(const mptl_images *images, int64_t i,
                      mptl_encoded *encoded); /* any number of threads at the same time */
  void (*destroy)(mptl_images *images);
} mptl_images_reader;

struct mptl_images {
  const mptl_images_reader *reader;
  int64_t count;
  int classes;
  char *where; /* freed by the reader's destroy */
};

/* Makes encoded->buffer at least size bytes large; its contents are lost. MPTL_EDATA for more than
 * MPTL_ENCODED_MAX; MPTL_ENOMEM. */
mptl_status mptl_encoded_reserve(mptl_encoded *encoded, uint64_t size);

#endif
