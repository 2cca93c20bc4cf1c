/* Packed data sets: what was written is read back, in order; a file that is cut off, damaged at any
 * byte or constructed to mislead is refused or harmless (run it with the address sanitizer); an
 * unfinished file does not appear. Exits 0, or 1 after one line that says what failed. */
#include <endian.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "mptl/packed.h"

static char dir[] = "/tmp/mptl-packed-XXXXXX", path[64], temporary[72];

static uint32_t crc32c(const uint8_t *bytes, size_t size) {
  uint32_t c = ~0u;
  for (size_t i = 0; i < size; i++) {
    c ^= bytes[i];
    for (int bit = 0; bit < 8; bit++) c = c & 1 ? c >> 1 ^ 0x82f63b78u : c >> 1;
  }
  return ~c;
}

static uint64_t get64(const uint8_t *bytes) {
  uint64_t v;
  memcpy(&v, bytes, sizeof v);
  return le64toh(v);
}

static void add(mptl_packer *packer, mptl_split split, const char *class_name, const char *file,
                const char *data) {
  MUST(mptl_packer_add(packer, split, class_name, file, data, strlen(data)) == MPTL_OK);
}

static void write_sample(void) {
  mptl_packer *packer;
  MUST(mptl_packer_create(&packer, path) == MPTL_OK);
  add(packer, MPTL_TEST, "pear", "9.jpg", "test pear nine");
  add(packer, MPTL_TRAIN, "pear", "b.jpg", "pear b");
  add(packer, MPTL_TRAIN, "apple", "2.jpg", "second apple");
  add(packer, MPTL_TRAIN, "pear", "a/c.jpg", "pear a c");
  add(packer, MPTL_TRAIN, "apple", "10.jpg", "tenth apple, a longer one");
  MUST(access(path, F_OK) != 0); /* not before it is finished */
  MUST(mptl_packer_finish(packer) == MPTL_OK);
  mptl_packer_destroy(packer);
  MUST(access(path, F_OK) == 0 && access(temporary, F_OK) != 0);
}

static void is_image(const mptl_images *images, int64_t i, int32_t label, const char *name,
                     const char *data) {
  mptl_encoded encoded = {0};
  MUST(mptl_images_label(images, i) == label);
  MUST(strcmp(mptl_images_name(images, i), name) == 0);
  MUST(mptl_images_read(images, i, &encoded) == MPTL_OK);
  MUST(encoded.size == strlen(data) && memcmp(encoded.data, data, encoded.size) == 0);
  mptl_encoded_free(&encoded);
}

static void reads_what_was_written(void) {
  mptl_images *images;
  MUST(mptl_images_packed_classes(path) == 2);
  MUST(mptl_images_open_packed(&images, path, MPTL_TRAIN) == MPTL_OK);
  MUST(mptl_images_count(images) == 4 && mptl_images_classes(images) == 2);
  MUST(strcmp(mptl_images_class_name(images, 0), "apple") == 0 &&
       strcmp(mptl_images_class_name(images, 1), "pear") == 0);
  MUST(strcmp(mptl_images_where(images), path) == 0);
  is_image(images, 0, 0, "apple/10.jpg", "tenth apple, a longer one");
  is_image(images, 1, 0, "apple/2.jpg", "second apple");
  is_image(images, 2, 1, "pear/a/c.jpg", "pear a c");
  is_image(images, 3, 1, "pear/b.jpg", "pear b");
  mptl_images_destroy(images);
  MUST(mptl_images_open_packed(&images, path, MPTL_TEST) == MPTL_OK);
  MUST(mptl_images_count(images) == 1 && mptl_images_classes(images) == 2);
  is_image(images, 0, 1, "pear/9.jpg", "test pear nine");
  mptl_images_destroy(images);
}

static uint8_t *slurp(size_t *size) {
  FILE *file = fopen(path, "rb");
  MUST(file != NULL && fseek(file, 0, SEEK_END) == 0);
  *size = (size_t)ftell(file);
  rewind(file);
  uint8_t *bytes = malloc(*size);
  MUST(bytes != NULL && fread(bytes, 1, *size, file) == *size);
  fclose(file);
  return bytes;
}

static void spit(const uint8_t *bytes, size_t size) {
  FILE *file = fopen(path, "wb");
  MUST(file != NULL && fwrite(bytes, 1, size, file) == size && fclose(file) == 0);
}

/* Opens both sets and uses everything in them; returns false if something is refused. */
static bool is_sound(void) {
  bool sound = true;
  for (int split = 0; split < 2; split++) {
    mptl_images *images;
    if (mptl_images_open_packed(&images, path, (mptl_split)split) != MPTL_OK) {
      MUST(images == NULL && strncmp(mptl_error(), path, strlen(path)) == 0 &&
           strchr(mptl_error(), '\n') == NULL);
      sound = false;
      continue;
    }
    size_t length = 0;
    for (int c = 0; c < mptl_images_classes(images); c++)
      length += strlen(mptl_images_class_name(images, c));
    for (int64_t i = 0; i < mptl_images_count(images); i++) {
      mptl_encoded encoded = {0};
      length += strlen(mptl_images_name(images, i));
      MUST(mptl_images_label(images, i) >= 0 &&
           mptl_images_label(images, i) < mptl_images_classes(images));
      mptl_status status = mptl_images_read(images, i, &encoded);
      MUST(status == MPTL_OK || status == MPTL_EDATA);
      sound = sound && status == MPTL_OK;
      mptl_encoded_free(&encoded);
    }
    MUST(length > 0);
    mptl_images_destroy(images);
  }
  return sound;
}

static void has_the_layout_of_its_header(const uint8_t *bytes, size_t size) {
  static const uint8_t begin[] = {'M', 'P', 'T', 'L', 'P', 'A', 'C', 'K', 1, 0, 0, 0, 2, 0, 0, 0,
                                  4,   0,   0,   0,   0,   0,   0,   0,   1, 0, 0, 0, 0, 0, 0, 0};
  MUST(memcmp(bytes, begin, sizeof begin) == 0);
  MUST(memcmp(bytes + 64, "test pear nine", 14) == 0);
  MUST(get64(bytes + 32) + get64(bytes + 40) == size && bytes[size - 1] == 0);
}

static void every_damage_is_found(const uint8_t *bytes, size_t size) {
  uint8_t *copy = malloc(size + 1);
  MUST(copy != NULL);
  for (size_t n = 0; n < size; n++) { /* cut off */
    spit(bytes, n);
    MUST(!is_sound());
  }
  for (size_t i = 0; i < size; i++) { /* a byte changed */
    memcpy(copy, bytes, size);
    copy[i] ^= (uint8_t)(1 + i % 255);
    spit(copy, size);
    MUST(!is_sound());
  }
  memcpy(copy, bytes, size);
  copy[size] = 0;
  spit(copy, size + 1); /* a byte after the end */
  MUST(!is_sound());
  free(copy);
}

/* Replaces every word of header and directory by misleading values, and corrects the checksums. */
static void no_directory_leads_outside(const uint8_t *bytes, size_t size) {
  uint32_t values[] = {0,
                       1,
                       63,
                       64,
                       (uint32_t)size - 1,
                       (uint32_t)size,
                       (uint32_t)size + 1,
                       0x20202020u,
                       0x7fffffffu,
                       0x80000000u,
                       0xfffffff0,
                       0xffffffffu};
  uint8_t *copy = malloc(size);
  uint64_t directory = get64(bytes + 32);
  MUST(copy != NULL);
  for (size_t at = 8; at + 4 <= size; at += at == 56 ? directory - 56 : 4) {
    for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
      uint32_t value = htole32(values[v]), crc;
      memcpy(copy, bytes, size);
      memcpy(copy + at, &value, 4);
      if (at != 48) {
        crc = htole32(crc32c(copy + directory, size - directory));
        memcpy(copy + 48, &crc, 4);
      }
      crc = htole32(crc32c(copy, 60));
      memcpy(copy + 60, &crc, 4);
      spit(copy, size);
      is_sound();
    }
  }
  free(copy);
}

static void fails(mptl_status status, mptl_status expected, const char *message) {
  MUST(status == expected);
  if (strstr(mptl_error(), message) == NULL) {
    fprintf(stderr, "expected: %s\ngot: %s\n", message, mptl_error());
    exit(1);
  }
}

/* A file that is cut off while it is open gives an error that names it; it does not end the
 * process. */
static void cut_off_while_open(void) {
  mptl_images *images;
  mptl_encoded encoded = {0};
  MUST(mptl_images_open_packed(&images, path, MPTL_TRAIN) == MPTL_OK);
  MUST(mptl_images_read(images, 0, &encoded) == MPTL_OK);
  MUST(truncate(path, 0) == 0);
  char message[128];
  snprintf(message, sizeof message, "%s/apple/10.jpg: was cut off while it was open: byte ", path);
  MUST(strcmp(mptl_images_name(images, 3), "pear/b.jpg") == 0 && mptl_images_label(images, 3) == 1);
  mptl_status status = mptl_images_read(images, 0, &encoded);
  MUST(status == MPTL_EIO && strncmp(mptl_error(), message, strlen(message)) == 0);
  mptl_encoded_free(&encoded);
  mptl_images_destroy(images);
}

static void refuses_incomplete_sets(void) {
  mptl_packer *packer;
  unlink(path);
  MUST(mptl_packer_create(&packer, path) == MPTL_OK);
  fails(mptl_packer_add(packer, MPTL_TRAIN, "a/b", "1.jpg", "x", 1), MPTL_EINVAL,
        "the name of the class");
  fails(mptl_packer_add(packer, MPTL_TRAIN, "a", "//1.jpg", "x", 1), MPTL_EINVAL,
        "the image's name");
  fails(mptl_packer_add(packer, MPTL_TRAIN, "a", "1\n.jpg", "x", 1), MPTL_EINVAL,
        "the image's name");
  fails(mptl_packer_add(packer, MPTL_TRAIN, "a", "1.jpg", "x", 0), MPTL_EINVAL,
        "a/1.jpg: 0 bytes, accepted are 1 to");
  fails(mptl_packer_finish(packer), MPTL_EDATA, "no training images were added");
  add(packer, MPTL_TRAIN, "a", "1.jpg", "x");
  add(packer, MPTL_TEST, "b", "1.jpg", "x");
  fails(mptl_packer_finish(packer), MPTL_EDATA,
        "the test set's b/1.jpg is of a class that the training set has not");
  mptl_packer_destroy(packer);
  MUST(mptl_packer_create(&packer, path) == MPTL_OK);
  add(packer, MPTL_TRAIN, "a", "1.jpg", "x");
  add(packer, MPTL_TRAIN, "a", "1.jpg", "y");
  fails(mptl_packer_finish(packer), MPTL_EDATA, "two images of the training set are named a/1.jpg");
  MUST(access(temporary, F_OK) == 0);
  mptl_packer_destroy(packer);
  MUST(access(path, F_OK) != 0 && access(temporary, F_OK) != 0); /* no file is left */
}

static void names_the_file_and_the_reason(void) {
  mptl_images *images;
  mptl_packer *packer;
  MUST(mptl_images_packed_classes("/nonexistent/x") == 0);
  fails(mptl_images_open_packed(&images, "/nonexistent/x", MPTL_TRAIN), MPTL_EIO,
        "/nonexistent/x: No such file or directory");
  fails(mptl_images_open_packed(&images, "/tmp", MPTL_TRAIN), MPTL_EIO, "/tmp: Is a directory");
  MUST(mkfifo(path, 0600) == 0); /* nobody writes into it */
  fails(mptl_images_open_packed(&images, path, MPTL_TRAIN), MPTL_EIO,
        "set.mptl: a pipe, must be a regular file");
  MUST(mptl_images_packed_classes(path) == 0 && unlink(path) == 0);
  fails(mptl_packer_create(&packer, "/nonexistent/x"), MPTL_EIO,
        "cannot write /nonexistent/x.tmp: No such file or directory");
  MUST(packer == NULL && images == NULL);
  MUST(mptl_packer_create(&packer, path) == MPTL_OK);
  mptl_packer *second;
  fails(mptl_packer_create(&second, path), MPTL_EIO, "set.mptl.tmp: another process is writing it");
  MUST(second == NULL && access(temporary, F_OK) == 0);
  add(packer, MPTL_TRAIN, "a", "1.jpg", "x");
  MUST(mptl_packer_finish(packer) == MPTL_OK);
  mptl_packer_destroy(packer);
  fails(mptl_images_open_packed(&images, path, MPTL_TEST), MPTL_EDATA, "no test images in it");
  spit((const uint8_t *)"a text of more than sixty-four bytes, as some other file may have it\n",
       69);
  MUST(mptl_images_packed_classes(path) == 0);
  fails(mptl_images_open_packed(&images, path, MPTL_TEST), MPTL_EDATA, "not a packed data set");
}

int main(void) {
  MUST(mkdtemp(dir) != NULL);
  snprintf(path, sizeof path, "%s/set.mptl", dir);
  snprintf(temporary, sizeof temporary, "%s.tmp", path);
  write_sample();
  reads_what_was_written();
  size_t size;
  uint8_t *bytes = slurp(&size);
  has_the_layout_of_its_header(bytes, size);
  every_damage_is_found(bytes, size);
  no_directory_leads_outside(bytes, size);
  spit(bytes, size);
  cut_off_while_open();
  free(bytes);
  refuses_incomplete_sets();
  names_the_file_and_the_reason();
  unlink(path);
  rmdir(dir);
  printf("packed: no failures\n");
  return 0;
}
