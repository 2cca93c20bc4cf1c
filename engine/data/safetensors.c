#include "mptl/safetensors.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/json.h"
#include "core/memory.h"
#include "mptl/file.h"

static const struct {
  const char *name;
  unsigned bits;
} dtypes[] = {
    {"BOOL", 8},        {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
    {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},    {"BF16", 16},
    {"I32", 32},        {"U32", 32},    {"F32", 32},    {"C64", 64},    {"F64", 64},
    {"I64", 64},        {"U64", 64},
};

/* The state of reading a header. */
typedef struct reader {
  mptl_json json;
  mptl_safetensors *file;
  bool named; /* whether the error message names a tensor */
  size_t capacity, metadata_capacity, sizes_count, sizes_capacity;
} reader;

static mptl_status no_memory(void) { return mptl_fail(MPTL_ENOMEM, "no memory for its header"); }

/* Bytes of a name in messages: at most LONGEST_SHOWN of the name, then "...", then a zero. */
enum { LONGEST_SHOWN = 100, SHOWN_SIZE = LONGEST_SHOWN + 4 };

/* Writes a name for messages to out: a long one is cut off, control characters become ?. */
static const char *shown(char out[SHOWN_SIZE], mptl_text name) {
  size_t n = name.size < LONGEST_SHOWN ? name.size : LONGEST_SHOWN;
  for (size_t i = 0; i < n; i++)
    out[i] = (unsigned char)name.bytes[i] < 0x20 || name.bytes[i] == 0x7f ? '?' : name.bytes[i];
  snprintf(out + n, SHOWN_SIZE - n, "%s", name.size > n ? "..." : "");
  return out;
}

static bool is(mptl_text text, const char *word) {
  return text.size == strlen(word) && memcmp(text.bytes, word, text.size) == 0;
}

static mptl_status take_text(reader *r, mptl_text *text) {
  return mptl_json_string(&r->json, &text->bytes, &text->size);
}

/* ---- Fields ---- */

static mptl_status take_dtype(reader *r, mptl_safetensor *t) {
  mptl_text text;
  char name[SHOWN_SIZE];
  MPTL_TRY(take_text(r, &text));
  for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
    t->dtype = dtypes[i].name;
    t->bits = dtypes[i].bits;
    if (is(text, dtypes[i].name)) return MPTL_OK;
  }
  return mptl_fail(MPTL_EDATA, "unknown type %s", shown(name, text));
}

/* Appends the sizes of the tensor's dimensions to the list of the file. t->shape is set after the
 * whole header is read, because the list moves when it grows. */
static mptl_status take_shape(reader *r, mptl_safetensor *t) {
  MPTL_TRY(mptl_json_take(&r->json, '['));
  t->ndim = 0;
  if (mptl_json_takes(&r->json, ']')) return MPTL_OK;
  do {
    if (!mptl_grow(&r->file->sizes, &r->sizes_capacity, r->sizes_count, sizeof *r->file->sizes))
      return no_memory();
    MPTL_TRY(mptl_json_number(&r->json, &r->file->sizes[r->sizes_count]));
    r->sizes_count++;
    t->ndim++;
  } while (mptl_json_takes(&r->json, ','));
  return mptl_json_take(&r->json, ']');
}

static mptl_status take_offsets(reader *r, mptl_safetensor *t) {
  MPTL_TRY(mptl_json_take(&r->json, '['));
  MPTL_TRY(mptl_json_number(&r->json, &t->begin));
  MPTL_TRY(mptl_json_take(&r->json, ','));
  MPTL_TRY(mptl_json_number(&r->json, &t->end));
  return mptl_json_take(&r->json, ']');
}

typedef mptl_status take_field(reader *r, mptl_safetensor *t);

static const struct {
  const char *name;
  take_field *take;
} fields[] = {{"dtype", take_dtype}, {"shape", take_shape}, {"data_offsets", take_offsets}};

enum { FIELDS = sizeof fields / sizeof *fields };

/* Takes one field of a description; *seen has a bit for each field that was taken. Unknown fields
 * are skipped. */
static mptl_status take_one(reader *r, mptl_safetensor *t, unsigned *seen) {
  mptl_text key;
  MPTL_TRY(take_text(r, &key));
  MPTL_TRY(mptl_json_take(&r->json, ':'));
  for (int i = 0; i < FIELDS; i++) {
    if (!is(key, fields[i].name)) continue;
    if (*seen & 1u << i) return mptl_fail(MPTL_EDATA, "has %s twice", fields[i].name);
    *seen |= 1u << i;
    mptl_status status = fields[i].take(r, t);
    return status == MPTL_EDATA ? mptl_fail_in(status, "%s", fields[i].name) : status;
  }
  return mptl_json_skip(&r->json);
}

static mptl_status take_description(reader *r, mptl_safetensor *t) {
  unsigned seen = 0;
  if (!mptl_json_takes(&r->json, '{'))
    return mptl_fail(MPTL_EDATA, "its description is not an object");
  if (!mptl_json_takes(&r->json, '}')) {
    do MPTL_TRY(take_one(r, t, &seen));
    while (mptl_json_takes(&r->json, ','));
    MPTL_TRY(mptl_json_take(&r->json, '}'));
  }
  for (int i = 0; i < FIELDS; i++)
    if (!(seen & 1u << i)) return mptl_fail(MPTL_EDATA, "has no %s", fields[i].name);
  return MPTL_OK;
}

static mptl_status take_metadata(reader *r) {
  mptl_safetensors *file = r->file;
  if (mptl_json_null(&r->json)) return MPTL_OK;
  MPTL_TRY(mptl_json_take(&r->json, '{'));
  if (mptl_json_takes(&r->json, '}')) return MPTL_OK;
  do {
    if (!mptl_grow(&file->metadata, &r->metadata_capacity, file->metadata_count,
                   sizeof *file->metadata))
      return no_memory();
    MPTL_TRY(take_text(r, &file->metadata[file->metadata_count][0]));
    MPTL_TRY(mptl_json_take(&r->json, ':'));
    MPTL_TRY(take_text(r, &file->metadata[file->metadata_count][1]));
    file->metadata_count++;
  } while (mptl_json_takes(&r->json, ','));
  return mptl_json_take(&r->json, '}');
}

/* Takes one member of the header: a tensor's name and description, or the metadata. */
static mptl_status take_entry(reader *r, bool *has_metadata) {
  mptl_safetensors *file = r->file;
  mptl_text name;
  char text[SHOWN_SIZE];
  MPTL_TRY(take_text(r, &name));
  MPTL_TRY(mptl_json_take(&r->json, ':'));
  if (is(name, "__metadata__")) {
    if (*has_metadata) return mptl_fail(MPTL_EDATA, "__metadata__ appears twice");
    *has_metadata = true;
    mptl_status status = take_metadata(r);
    return status == MPTL_EDATA ? mptl_fail_in(status, "__metadata__") : status;
  }
  if (!mptl_grow(&file->tensors, &r->capacity, file->count, sizeof *file->tensors))
    return no_memory();
  mptl_safetensor *t = &file->tensors[file->count];
  *t = (mptl_safetensor){.name = name};
  mptl_status status = take_description(r, t);
  if (status == MPTL_OK) {
    file->count++;
    return MPTL_OK;
  }
  r->named = true;
  return status == MPTL_EDATA ? mptl_fail_in(status, "tensor %s", shown(text, name)) : status;
}

static mptl_status take_header(reader *r) {
  bool has_metadata = false;
  MPTL_TRY(mptl_json_take(&r->json, '{'));
  if (!mptl_json_takes(&r->json, '}')) {
    do MPTL_TRY(take_entry(r, &has_metadata));
    while (mptl_json_takes(&r->json, ','));
    MPTL_TRY(mptl_json_take(&r->json, '}'));
  }
  mptl_json_peek(&r->json);
  return r->json.at == r->json.size ? MPTL_OK : mptl_json_fail(&r->json, "nothing but spaces");
}

/* ---- Checks of the whole ---- */

static int compare_texts(mptl_text a, mptl_text b) {
  int order = memcmp(a.bytes, b.bytes, a.size < b.size ? a.size : b.size);
  return order != 0 ? order : (a.size > b.size) - (a.size < b.size);
}

static int by_name(const void *a, const void *b) {
  return compare_texts(((const mptl_safetensor *)a)->name, ((const mptl_safetensor *)b)->name);
}

static int by_key(const void *a, const void *b) {
  return compare_texts(*(const mptl_text *)a, *(const mptl_text *)b);
}

static int by_offsets(const void *a, const void *b) {
  const mptl_safetensor *x = a, *y = b;
  if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
  if (x->end != y->end) return x->end < y->end ? -1 : 1;
  return by_name(a, b);
}

static mptl_status check_names(mptl_safetensors *file) {
  char text[SHOWN_SIZE];
  if (file->count > 1) qsort(file->tensors, file->count, sizeof *file->tensors, by_name);
  for (size_t i = 1; i < file->count; i++)
    if (by_name(&file->tensors[i - 1], &file->tensors[i]) == 0)
      return mptl_fail(MPTL_EDATA, "tensor %s: appears twice", shown(text, file->tensors[i].name));
  if (file->metadata_count > 1)
    qsort(file->metadata, file->metadata_count, sizeof *file->metadata, by_key);
  for (size_t i = 1; i < file->metadata_count; i++)
    if (by_key(file->metadata[i - 1], file->metadata[i]) == 0)
      return mptl_fail(MPTL_EDATA, "__metadata__: %s appears twice",
                       shown(text, file->metadata[i][0]));
  return MPTL_OK;
}

/* Computes how many bytes a tensor's elements take. */
static mptl_status count_bytes(uint64_t *bytes, const mptl_safetensor *t) {
  uint64_t n = 1;
  for (size_t i = 0; i < t->ndim; i++)
    if (__builtin_mul_overflow(n, t->shape[i], &n))
      return mptl_fail(MPTL_EDATA, "shape: more than 2^64 elements");
  if (__builtin_mul_overflow(n, t->bits, &n))
    return mptl_fail(MPTL_EDATA, "shape: more than 2^64 bits");
  if (n % 8 != 0)
    return mptl_fail(MPTL_EDATA, "shape: %" PRIu64 " bits of %s are no whole number of bytes", n,
                     t->dtype);
  *bytes = n / 8;
  return MPTL_OK;
}

static mptl_status check_offsets(const mptl_safetensor *t, uint64_t expected) {
  uint64_t bytes = 0;
  MPTL_TRY(count_bytes(&bytes, t));
  if (t->end < t->begin || t->end - t->begin != bytes)
    return mptl_fail(MPTL_EDATA,
                     "data_offsets %" PRIu64 " to %" PRIu64 " do not hold its %" PRIu64 " bytes",
                     t->begin, t->end, bytes);
  if (t->begin != expected)
    return mptl_fail(MPTL_EDATA, "begins at byte %" PRIu64 " of the data, expected %" PRIu64,
                     t->begin, expected);
  return MPTL_OK;
}

/* Sorts the tensors by their offsets, and checks that they fill the data without gaps. */
static mptl_status check_data(mptl_safetensors *file, size_t header_size, uint64_t data_size) {
  char text[SHOWN_SIZE];
  uint64_t expected = 0, before = 8 + (uint64_t)header_size;
  if (file->count > 1) qsort(file->tensors, file->count, sizeof *file->tensors, by_offsets);
  for (size_t i = 0; i < file->count; i++) {
    mptl_status status = check_offsets(&file->tensors[i], expected);
    if (status != MPTL_OK)
      return mptl_fail_in(status, "tensor %s", shown(text, file->tensors[i].name));
    expected = file->tensors[i].end;
  }
  if (expected == data_size) return MPTL_OK;
  return mptl_fail(MPTL_EDATA, "%s: the header promises %" PRIu64 " bytes, the file has %" PRIu64,
                   expected > data_size ? "truncated" : "damaged", before + expected,
                   before + data_size);
}

mptl_status mptl_safetensors_parse(mptl_safetensors *file, const char *header, size_t size,
                                   uint64_t data_size) {
  *file = (mptl_safetensors){0};
  file->texts = malloc(size + 1);
  reader r = {.json = {.text = header, .size = size, .out = file->texts}, .file = file};
  mptl_status status = file->texts != NULL ? MPTL_OK : no_memory();
  if (status == MPTL_OK && !mptl_utf8_is_valid(header, size))
    status =
        mptl_fail(MPTL_EDATA, "not a safetensors file, or damaged: its header is not in UTF-8");
  if (status == MPTL_OK) {
    status = take_header(&r);
    if (status == MPTL_EDATA && !r.named)
      mptl_fail_in(status, "not a safetensors file, or damaged: its header");
  }
  size_t at = 0;
  for (size_t i = 0; i < file->count; at += file->tensors[i++].ndim)
    if (file->tensors[i].ndim > 0) file->tensors[i].shape = file->sizes + at;
  if (status == MPTL_OK) status = check_names(file);
  if (status == MPTL_OK) status = check_data(file, size, data_size);
  if (status != MPTL_OK) mptl_safetensors_free(file);
  return status;
}

void mptl_safetensors_free(mptl_safetensors *file) {
  free(file->tensors);
  free(file->metadata);
  free(file->texts);
  free(file->sizes);
  *file = (mptl_safetensors){0};
}

static mptl_status read_at(int fd, uint64_t at, void *bytes, size_t size) {
  ptrdiff_t n = mptl_file_read_some(fd, at, bytes, size);
  if (n < 0) return mptl_fail(MPTL_EIO, "%s", strerror(errno));
  return (size_t)n == size ? MPTL_OK : mptl_fail(MPTL_EDATA, "became shorter while it was read");
}

static mptl_status read_header(char **header, size_t *size, uint64_t *data_size, int fd,
                               uint64_t file_size) {
  uint8_t start[8];
  uint64_t length = 0;
  if (file_size < 8)
    return mptl_fail(MPTL_EDATA, "not a safetensors file, or damaged: it has %" PRIu64 " bytes",
                     file_size);
  MPTL_TRY(read_at(fd, 0, start, sizeof start));
  for (int i = 7; i >= 0; i--) length = length << 8 | start[i];
  if (length < 2 || length > MPTL_SAFETENSORS_LONGEST)
    return mptl_fail(MPTL_EDATA,
                     "not a safetensors file, or damaged: a header of %" PRIu64 " bytes", length);
  if (length > file_size - 8)
    return mptl_fail(MPTL_EDATA,
                     "not a safetensors file, or damaged: a header of %" PRIu64
                     " bytes in a file of %" PRIu64,
                     length, file_size);
  *size = (size_t)length;
  *data_size = file_size - 8 - length;
  *header = malloc(*size);
  if (*header == NULL) return no_memory();
  return read_at(fd, 8, *header, *size);
}

mptl_status mptl_safetensors_read_header(char **header, size_t *size, uint64_t *data_size, int fd,
                                         const char *path) {
  struct stat st;
  *header = NULL;
  if (fstat(fd, &st) != 0) return mptl_fail(MPTL_EIO, "cannot read %s: %s", path, strerror(errno));
  mptl_status status = read_header(header, size, data_size, fd, (uint64_t)st.st_size);
  if (status == MPTL_OK) return MPTL_OK;
  free(*header);
  *header = NULL;
  return mptl_fail_in(status, "%s", path);
}
