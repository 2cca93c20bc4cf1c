/* JPEG images: decoding to RGB, and encoding.
 *
 * Accepted are baseline and progressive JPEG of 8 bits with Huffman or arithmetic coding, in grey,
 * YCbCr, RGB, CMYK and YCCK. Grey becomes R = G = B. CMYK and YCCK are taken as inverted, as Adobe
 * writes and Pillow reads them: R = C K / 255, and so on. Images are not scaled, and their
 * orientation tags are ignored. The same bytes always give the same pixels.
 */
#ifndef MPTL_JPEG_H
#define MPTL_JPEG_H

#include <stddef.h>
#include <stdint.h>

#include "mptl/status.h"

#define MPTL_JPEG_MAX_PIXELS (1 << 26) /* larger images are refused before memory is allocated */

typedef struct mptl_decoder mptl_decoder; /* used by one thread at a time */

typedef struct mptl_rgb {
  const uint8_t *pixels; /* [height][width][3]: red, green, blue; owned by the decoder, valid until
                            its next call */
  int width, height;
  int warnings; /* of the decoder; they do not affect the pixels */
} mptl_rgb;

MPTL_API mptl_status mptl_decoder_create(mptl_decoder **decoder);
MPTL_API void mptl_decoder_destroy(mptl_decoder *decoder); /* NULL is allowed */

/* Decodes the size bytes at data. MPTL_EDATA: not a JPEG image (the message says what it seems to
 * be), of a kind that is not accepted, too large, truncated or damaged; MPTL_ENOMEM. The message
 * does not name the image; the caller adds the name. These slips are ignored, and counted in
 * rgb->warnings: a JFIF version or an Adobe colour transform that the standards do not know, scan
 * parameters that a sequential image does not need, and stray bytes before a marker. Bytes after
 * the end of the image are ignored without a warning. */
MPTL_API mptl_status mptl_decode(mptl_decoder *decoder, const void *data, size_t size,
                                 mptl_rgb *rgb);

/* Encodes pixels [height][width][3] with a quality of 1 to 100, colours at half the resolution. The
 * caller frees *jpeg with free(). MPTL_EINVAL: width or height (1 to 65500) or quality;
 * MPTL_ENOMEM; MPTL_EBACKEND. */
MPTL_API mptl_status mptl_encode(uint8_t **jpeg, size_t *size, const uint8_t *pixels, int width,
                                 int height, int quality);

#endif
