/* Packed data sets. The checksums of header and directory are corrected, so that the code after
 * their checks is reached. */
#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/crc32c.h"
#include "data/packed.h"
#include "fuzz.h"
#include "mptl/packed.h"

static uint64_t get(const uint8_t *bytes, int size) {
  uint64_t v = 0;
  for (int i = size - 1; i >= 0; i--) v = v << 8 | bytes[i];
  return v;
}

static void mend(uint8_t *bytes, size_t size) {
  if (size < MPTL_PACKED_HEADER_SIZE) return;
  uint64_t at = get(bytes + 32, 8), length = get(bytes + 40, 8);
  uint32_t crc;
  if (at <= size && length <= size - at) {
    crc = htole32(mptl_crc32c(0, bytes + at, length));
    memcpy(bytes + 48, &crc, sizeof crc);
  }
  crc = htole32(mptl_crc32c(0, bytes, 60));
  memcpy(bytes + 60, &crc, sizeof crc);
}

static size_t use(const mptl_images *images) {
  mptl_encoded encoded = {0};
  size_t sum = 0;
  for (int c = 0; c < mptl_images_classes(images); c++)
    sum += strlen(mptl_images_class_name(images, c));
  for (int64_t i = 0; i < mptl_images_count(images); i++) {
    sum += strlen(mptl_images_name(images, i));
    HOLDS(mptl_images_label(images, i) >= 0 &&
          mptl_images_label(images, i) < mptl_images_classes(images));
    mptl_status status = mptl_images_read(images, i, &encoded);
    has_message(status);
    if (status == MPTL_OK) sum += encoded.data[encoded.size - 1];
  }
  mptl_encoded_free(&encoded);
  return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
  char path[64];
  uint8_t *copy = malloc(size + 1);
  size_t sum = 0;
  int fd = memfd_create("packed", 0);
  HOLDS(copy != NULL && fd >= 0);
  memcpy(copy, bytes, size);
  mend(copy, size);
  HOLDS(write(fd, copy, size) == (ssize_t)size);
  free(copy);
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  for (int split = 0; split < 2; split++) {
    mptl_images *images;
    mptl_status status = mptl_images_open_packed(&images, path, (mptl_split)split);
    has_message(status);
    HOLDS((status == MPTL_OK) == (images != NULL));
    if (images != NULL) sum += use(images);
    mptl_images_destroy(images);
  }
  HOLDS(mptl_images_packed_classes(path) >= 0);
  close(fd);
  return sum == SIZE_MAX;
}
