/* JPEG images of up to a million pixels: larger ones take long and test nothing else. */
#include <stdint.h>

#include "fuzz.h"
#include "mptl/jpeg.h"

static int is_large(const uint8_t *bytes, size_t size) {
  for (size_t i = 0; i + 9 <= size; i++)
    if (bytes[i] == 0xff && bytes[i + 1] >= 0xc0 && bytes[i + 1] <= 0xcf &&
        (int64_t)(bytes[i + 5] << 8 | bytes[i + 6]) * (bytes[i + 7] << 8 | bytes[i + 8]) > 1 << 20)
      return 1;
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
  mptl_decoder *decoder;
  mptl_rgb rgb;
  uint64_t sum = 0;
  if (is_large(bytes, size)) return 0;
  HOLDS(mptl_decoder_create(&decoder) == MPTL_OK);
  mptl_status status = mptl_decode(decoder, bytes, size, &rgb);
  has_message(status);
  HOLDS((status == MPTL_OK) == (rgb.pixels != NULL));
  if (status == MPTL_OK)
    for (int64_t i = 0; i < (int64_t)rgb.width * rgb.height * 3; i++) sum += rgb.pixels[i];
  mptl_decoder_destroy(decoder);
  return sum == UINT64_MAX;
}
