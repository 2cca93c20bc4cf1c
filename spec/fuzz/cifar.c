/* CIFAR's binary files. The first byte of the input chooses layout, split and limit, the second how
 * many bytes become the file of class names. */
#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

#include "fuzz.h"
#include "mptl/data.h"

static char dir[] = "/tmp/mptl-fuzz-XXXXXX";

static void clean_up(void) {
  char command[64];
  snprintf(command, sizeof command, "rm -rf %s", dir);
  if (system(command) != 0) fprintf(stderr, "%s could not be removed\n", dir);
}

static void spill(const char *name, const uint8_t *bytes, size_t size) {
  char path[96];
  snprintf(path, sizeof path, "%s/%s", dir, name);
  FILE *file = fopen(path, "wb");
  HOLDS(file != NULL && fwrite(bytes, 1, size, file) == size && fclose(file) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
  static bool made;
  if (!made) HOLDS(mkdtemp(dir) != NULL && atexit(clean_up) == 0);
  made = true;
  if (size < 2) return 0;
  int options = bytes[0];
  size_t names = bytes[1] < size - 2 ? bytes[1] : size - 2,
         half = (size - 2 - names) / 2 / 3073 * 3073;
  const uint8_t *records = bytes + 2 + names;
  bool hundred = options & 1;
  spill(hundred ? "fine_label_names.txt" : "batches.meta.txt", bytes + 2, names);
  spill(hundred ? "train.bin" : "data_batch_1.bin", records, half);
  spill(options & 2 ? "data_batch_2.bin" : "data_batch_3.bin", records + half,
        size - 2 - names - half);
  spill("test_batch.bin", records, half);
  mptl_dataset *set;
  mptl_status status =
      mptl_dataset_cifar(&set, dir, hundred ? 100 : 10, options & 4 ? MPTL_TEST : MPTL_TRAIN,
                         options & 8 ? MPTL_NO_LIMIT : options >> 4, options & 16);
  has_message(status);
  HOLDS((status == MPTL_OK) == (set != NULL));
  if (set != NULL)
    for (int64_t i = 0; i < set->count; i++)
      HOLDS(set->labels[i] >= 0 && set->labels[i] < set->classes);
  mptl_dataset_destroy(set);
  return 0;
}
