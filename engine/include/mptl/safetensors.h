/* The header of safetensors files (huggingface/safetensors): a file is
 *
 *   8 bytes     length of the header, little-endian
 *   header      JSON: {"NAME": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, "__metadata__": {"KEY": "VALUE"}}
 *   the data    of all tensors, without gaps
 *
 * What the format's own reader accepts is accepted here, and nothing else; but for names that stand twice, of which that reader takes
 * the last one though the format forbids them, and for descriptions written as lists in place of objects.
 */
#ifndef MPTL_SAFETENSORS_H
#define MPTL_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "mptl/status.h"

#define MPTL_SAFETENSORS_LONGEST 100000000 /* bytes of a header that is believed, as in the format's own reader */

typedef struct mptl_text { /* may have zero bytes in it */
  const char *bytes;
  size_t size;
} mptl_text;

typedef struct mptl_safetensor {
  mptl_text name;
  const char *dtype;     /* one of the format's; the engine's tensors are "F32" */
  const uint64_t *shape; /* NULL for rank 0 */
  size_t rank;
  uint64_t begin, end; /* bytes from the beginning of the data */
} mptl_safetensor;

typedef struct mptl_safetensors {
  mptl_safetensor *tensors; /* in the order of the data; empty ones in that of names */
  size_t count;
  mptl_text (*metadata)[2]; /* key, value */
  size_t metadata_count;
  char *texts; /* the struct's own memory */
  uint64_t *sizes;
} mptl_safetensors;

/* Parses and checks a header whose file has data_size bytes behind it. MPTL_EDATA: the message says what is wrong, and with which
 * tensor and field, but does not name the file; MPTL_ENOMEM. Takes time in proportion to the header (but for sorting). */
MPTL_API mptl_status mptl_safetensors_parse(mptl_safetensors *file, const char *header, size_t size, uint64_t data_size);

MPTL_API void mptl_safetensors_free(mptl_safetensors *file); /* and zeroes it */

/* Reads the header's bytes of an open file, for the caller to free(), and tells the size of the data behind it; path is the file's name
 * in messages. MPTL_EIO, MPTL_EDATA, MPTL_ENOMEM. */
MPTL_API mptl_status mptl_safetensors_read_header(char **header, size_t *size, uint64_t *data_size, int fd, const char *path);

#endif
