/* Headers of safetensors files: the first two bytes of the input are the size of the data after the
 * header, the rest is the header. */
#include <stdint.h>

#include "fuzz.h"
#include "mptl/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
  mptl_safetensors file;
  if (size < 2) return 0;
  uint64_t data_size = (uint64_t)bytes[0] << 8 | bytes[1];
  mptl_status status = mptl_safetensors_parse(&file, (const char *)bytes + 2, size - 2, data_size);
  has_message(status);
  uint64_t at = 0, sum = 0;
  for (size_t i = 0; i < file.count; i++) {
    const mptl_safetensor *t = &file.tensors[i];
    HOLDS(t->begin == at && t->end >= t->begin && t->end <= data_size);
    at = t->end;
    for (size_t k = 0; k < t->ndim; k++) sum += t->shape[k];
    for (size_t k = 0; k < t->name.size; k++) sum += (uint8_t)t->name.bytes[k];
    sum += strlen(t->dtype);
  }
  for (size_t i = 0; i < file.metadata_count; i++)
    for (int k = 0; k < 2; k++)
      for (size_t c = 0; c < file.metadata[i][k].size; c++)
        sum += (uint8_t)file.metadata[i][k].bytes[c];
  HOLDS(status != MPTL_OK || at == data_size);
  HOLDS(status == MPTL_OK || file.count == 0);
  mptl_safetensors_free(&file);
  return sum == UINT64_MAX; /* never true; it keeps the compiler from removing the sum */
}
