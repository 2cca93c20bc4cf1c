/* The header of safetensors files (huggingface/safetensors): a file is
 *
 *   8 bytes     length of the header, little-endian
 *   header      JSON: {"NAME": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]},
 * "__metadata__": {"KEY": "VALUE"}} the data    of all tensors, without gaps
 *
 * This reader accepts what the reader of huggingface/safetensors accepts, with two exceptions. It
 * refuses names that appear twice, which the format forbids; the other reader takes the last one.
 * And it refuses descriptions that are lists instead of objects.
 */
#ifndef MPTL_SAFETENSORS_H
#define MPTL_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "mptl/status.h"

#define MPTL_SAFETENSORS_LONGEST \
  100000000 /* bytes of the largest header, as in huggingface/safetensors */

typedef struct mptl_text { /* may contain zero bytes */
  const char *bytes;
  size_t size;
} mptl_text;

typedef struct mptl_safetensor {
  mptl_text name;
  const char *dtype;     /* one of the format's names; the engine's tensors are "F32" */
  unsigned bits;         /* of an element */
  const uint64_t *shape; /* NULL for ndim 0 */
  size_t ndim;
  uint64_t begin, end; /* bytes from the beginning of the data */
} mptl_safetensor;

typedef struct mptl_safetensors {
  mptl_safetensor *tensors; /* in the order of the data; empty tensors by name */
  size_t count;
  mptl_text (*metadata)[2]; /* key, value */
  size_t metadata_count;
  char *texts; /* owned by the struct, like sizes */
  uint64_t *sizes;
} mptl_safetensors;

/* Parses and checks a header that data_size bytes follow; the caller frees *file with
 * mptl_safetensors_free. MPTL_EDATA: the message says what is wrong, and in which tensor and field,
 * but does not name the file; MPTL_ENOMEM. The time is proportional to the size of the header,
 * except for sorting. */
MPTL_API mptl_status mptl_safetensors_parse(mptl_safetensors *file, const char *header, size_t size,
                                            uint64_t data_size);

MPTL_API void mptl_safetensors_free(mptl_safetensors *file); /* and zeroes the struct */

/* Reads the header of an open file into *header, which the caller frees with free(), and sets
 * *data_size to the number of bytes that follow it. path is the file's name in messages. MPTL_EIO,
 * MPTL_EDATA, MPTL_ENOMEM. */
MPTL_API mptl_status mptl_safetensors_read_header(char **header, size_t *size, uint64_t *data_size,
                                                  int fd, const char *path);

#endif
