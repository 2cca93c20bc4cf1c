/* Collections of encoded images: the part that all of them share. images_*.c are the readers. */
#include "data/images.h"

#include <stdlib.h>

void mptl_images_destroy(mptl_images *images) {
  if (images != NULL) images->reader->destroy(images);
}

int64_t mptl_images_count(const mptl_images *images) { return images->count; }
int mptl_images_classes(const mptl_images *images) { return images->classes; }
const char *mptl_images_where(const mptl_images *images) { return images->where; }

const char *mptl_images_class_name(const mptl_images *images, int label) {
  return images->reader->class_name(images, label);
}
int32_t mptl_images_label(const mptl_images *images, int64_t i) {
  return images->reader->label(images, i);
}
const char *mptl_images_name(const mptl_images *images, int64_t i) {
  return images->reader->name(images, i);
}

mptl_status mptl_images_read(const mptl_images *images, int64_t i, mptl_encoded *encoded) {
  encoded->data = NULL;
  encoded->size = 0;
  mptl_status status = images->reader->read(images, i, encoded);
  if (status != MPTL_OK) mptl_fail_in(status, "%s/%s", images->where, mptl_images_name(images, i));
  return status;
}

mptl_status mptl_encoded_reserve(mptl_encoded *encoded, uint64_t size) {
  if (size > MPTL_ENCODED_MAX)
    return mptl_fail(MPTL_EDATA, "%llu bytes, at most %zu are accepted", (unsigned long long)size,
                     MPTL_ENCODED_MAX);
  if (encoded->capacity >= size) return MPTL_OK;
  size_t capacity = (size_t)size + (size_t)size / 2;
  free(encoded->buffer);
  encoded->buffer = malloc(capacity);
  encoded->capacity = encoded->buffer != NULL ? capacity : 0;
  return encoded->buffer != NULL ? MPTL_OK
                                 : mptl_fail(MPTL_ENOMEM, "no memory for %zu bytes", capacity);
}

void mptl_encoded_free(mptl_encoded *encoded) {
  free(encoded->buffer);
  *encoded = (mptl_encoded){0};
}
