/* JPEG images: decoding into RGB, and encoding.
 *
 * Taken: baseline and progressive JPEG of 8 bits, Huffman or arithmetic coding; grey, YCbCr, RGB, CMYK and YCCK. Grey becomes
 * R = G = B. The four-colour kinds are taken for inverted, as Adobe writes them and as Pillow reads them, and become R = C K / 255
 * and so on. Nothing is scaled and no orientation is applied. The same bytes give the same pixels with any thread.
 */
#ifndef MPTL_JPEG_H
#define MPTL_JPEG_H

#include <stddef.h>
#include <stdint.h>

#include "mptl/status.h"

#define MPTL_JPEG_MAX_PIXELS (1 << 26) /* larger images are refused before memory is taken */

typedef struct mptl_decoder mptl_decoder; /* used by one thread at a time */

typedef struct mptl_rgb {
  const uint8_t *pixels; /* [height][width][3]: red, green, blue; the decoder's, until its next call */
  int width, height;
  int warnings; /* that the decoder gave and that leave the pixels whole */
} mptl_rgb;

MPTL_API mptl_status mptl_decoder_create(mptl_decoder **decoder);
MPTL_API void mptl_decoder_destroy(mptl_decoder *decoder); /* NULL is allowed */

/* Decodes the size bytes at data. MPTL_EDATA: not a JPEG (the message says what it is, if that can be told), of a kind that is
 * not taken, too large, truncated or corrupt; MPTL_ENOMEM. The message does not name the image, which the caller knows. Passed over, and
 * but for the last counted in rgb->warnings, are a JFIF version or an Adobe colour transform that no standard has, scan parameters
 * that a sequential image has no use for, bytes that do not belong there before a marker, and those behind the end. */
MPTL_API mptl_status mptl_decode(mptl_decoder *decoder, const void *data, size_t size, mptl_rgb *rgb);

/* Encodes pixels [height][width][3] with a quality of 1 to 100, colours at half the resolution as most cameras do. *jpeg is the
 * caller's to free(). MPTL_EINVAL: width, height (1 to 65500 each) or quality out of range. */
MPTL_API mptl_status mptl_encode(uint8_t **jpeg, size_t *size, const uint8_t *pixels, int width, int height, int quality);

#endif
