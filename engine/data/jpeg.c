/* JPEG images into RGB and back, by TurboJPEG, which is libjpeg-turbo's own interface. */
#include "mptl/jpeg.h"

#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <turbojpeg.h>

struct mptl_decoder {
  uint8_t *pixels;
  size_t capacity; /* bytes of pixels */
};

mptl_status mptl_decoder_create(mptl_decoder **decoder) {
  *decoder = calloc(1, sizeof **decoder);
  return *decoder != NULL ? MPTL_OK : mptl_fail(MPTL_ENOMEM, "JPEG decoder: no memory");
}

void mptl_decoder_destroy(mptl_decoder *decoder) {
  if (decoder == NULL) return;
  free(decoder->pixels);
  free(decoder);
}

/* What the bytes are if they are no JPEG. */
static mptl_status fail_not_jpeg(const uint8_t *data, size_t size) {
  static const struct {
    const char *name, *bytes;
    size_t length, offset;
  } others[] = {
      {"a PNG image", "\x89PNG", 4, 0}, {"a GIF image", "GIF8", 4, 0},   {"a BMP image", "BM", 2, 0},    {"text", "<", 1, 0},
      {"a WebP image", "WEBP", 4, 8},   {"a TIFF image", "II*\0", 4, 0}, {"a TIFF image", "MM\0*", 4, 0}};
  if (size == 0) return mptl_fail(MPTL_EDATA, "not a JPEG image but empty");
  for (size_t i = 0; i < sizeof others / sizeof *others; i++)
    if (size >= others[i].offset + others[i].length && memcmp(data + others[i].offset, others[i].bytes, others[i].length) == 0)
      return mptl_fail(MPTL_EDATA, "not a JPEG image but %s", others[i].name);
  return mptl_fail(MPTL_EDATA, "not a JPEG image: begins with the byte 0x%02x, must begin with 0xff 0xd8", data[0]);
}

/* What the frame header says, of which TurboJPEG tells only a part. */
typedef struct frame {
  int marker; /* its second byte, 0xc0 to 0xcf */
  int bits;
} frame;

/* Finds the frame header; false when there is none before the first scan or the end. */
static bool find_frame(frame *f, const uint8_t *data, size_t size) {
  size_t at = 2;
  while (at + 4 <= size && data[at] == 0xff) {
    int marker = data[at + 1];
    if (marker == 0xff) { /* a fill byte */
      at++;
      continue;
    }
    if (marker == 0xda || marker == 0xd9) return false;
    bool is_frame = marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
    if (is_frame && at + 5 <= size) {
      *f = (frame){.marker = marker, .bits = data[at + 4]};
      return true;
    }
    at += 2 + ((size_t)data[at + 2] << 8 | data[at + 3]);
  }
  return false;
}

/* An error for the kinds of JPEG that are not taken; what cannot be told here, the decoder tells. */
static mptl_status check_frame(const uint8_t *data, size_t size) {
  frame f;
  if (!find_frame(&f, data, size)) return MPTL_OK;
  if (f.bits != 8) return mptl_fail(MPTL_EDATA, "a JPEG image of %d bits, 8 are accepted", f.bits);
  if (f.marker == 0xc3 || f.marker == 0xc7 || f.marker == 0xcb || f.marker == 0xcf)
    return mptl_fail(MPTL_EDATA, "a lossless JPEG image, baseline and progressive ones are accepted");
  if (f.marker == 0xc5 || f.marker == 0xc6 || f.marker == 0xcd || f.marker == 0xce)
    return mptl_fail(MPTL_EDATA, "a hierarchical JPEG image, baseline and progressive ones are accepted");
  return MPTL_OK;
}

static mptl_status reserve(mptl_decoder *d, size_t bytes) {
  if (d->capacity >= bytes) return MPTL_OK;
  free(d->pixels);
  d->pixels = malloc(bytes);
  d->capacity = d->pixels != NULL ? bytes : 0;
  return d->pixels != NULL ? MPTL_OK : mptl_fail(MPTL_ENOMEM, "no memory for an image of %zu bytes", bytes);
}

/* Whether an end-of-image marker follows the first scan's beginning. Within a scan 0xff is followed by 0 or a restart marker, so
 * the two bytes cannot come from pixels. */
static bool has_end(const uint8_t *data, size_t size) {
  static const uint8_t scan[] = {0xff, 0xda}, end[] = {0xff, 0xd9};
  const uint8_t *from = memmem(data, size, scan, sizeof scan);
  return from != NULL && memmem(from, size - (size_t)(from - data), end, sizeof end) != NULL;
}

/* Whether the decoder's complaint leaves the pixels whole. */
static bool harmless(tjhandle turbo, const uint8_t *data, size_t size) {
  return tjGetErrorCode(turbo) == TJERR_WARNING && strstr(tjGetErrorStr2(turbo), "extraneous bytes before marker") != NULL &&
         has_end(data, size);
}

static mptl_status fail_corrupt(tjhandle turbo) {
  const char *why = tjGetErrorStr2(turbo), *function = strstr(why, "(): ");
  if (function != NULL) why = function + strlen("(): ");
  if (strstr(why, "Premature end") != NULL) return mptl_fail(MPTL_EDATA, "a truncated JPEG image (%s)", why);
  return mptl_fail(MPTL_EDATA, "a damaged JPEG image (%s)", why);
}

/* x y / 255 to the nearest, exact for bytes. */
static inline uint8_t times(unsigned x, unsigned y) {
  unsigned product = x * y + 128;
  return (uint8_t)((product + (product >> 8)) >> 8);
}

/* Inverted CMYK to RGB, in place: the first 3 n of the 4 n bytes. Pillow takes black minus the product of black and ink. */
static void cmyk_to_rgb(uint8_t *pixels, size_t n) {
  for (size_t i = 0; i < n; i++) {
    const uint8_t *p = pixels + 4 * i;
    uint8_t black = p[3], rgb[3];
    for (int c = 0; c < 3; c++) rgb[c] = (uint8_t)(black - times(255u - p[c], black));
    memcpy(pixels + 3 * i, rgb, 3);
  }
}

/* Decodes what begins like a JPEG image. */
static mptl_status decode(mptl_decoder *d, tjhandle turbo, const uint8_t *data, size_t size, mptl_rgb *rgb) {
  int width = 0, height = 0, sampling, colours = TJCS_RGB;
  if (tjDecompressHeader3(turbo, data, (unsigned long)size, &width, &height, &sampling, &colours) != 0 &&
      tjGetErrorCode(turbo) != TJERR_WARNING)
    return fail_corrupt(turbo);
  if (width < 1 || height < 1) return mptl_fail(MPTL_EDATA, "a truncated JPEG image (it ends before its size is told)");
  if ((int64_t)width * height > MPTL_JPEG_MAX_PIXELS)
    return mptl_fail(MPTL_EDATA, "a JPEG image of %d x %d pixels, at most %d pixels are accepted", width, height,
                     MPTL_JPEG_MAX_PIXELS);
  bool four = colours == TJCS_CMYK || colours == TJCS_YCCK;
  size_t pixels = (size_t)width * (size_t)height;
  MPTL_TRY(reserve(d, pixels * (four ? 4 : 3)));
  int failed = tjDecompress2(turbo, data, (unsigned long)size, d->pixels, width, 0, height, four ? TJPF_CMYK : TJPF_RGB,
                             TJFLAG_LIMITSCANS);
  if (failed && !harmless(turbo, data, size)) return fail_corrupt(turbo);
  if (four) cmyk_to_rgb(d->pixels, pixels);
  *rgb = (mptl_rgb){.pixels = d->pixels, .width = width, .height = height};
  return MPTL_OK;
}

mptl_status mptl_decode(mptl_decoder *decoder, const void *data, size_t size, mptl_rgb *rgb) {
  const uint8_t *bytes = data;
  *rgb = (mptl_rgb){0};
  if (size < 2 || bytes[0] != 0xff || bytes[1] != 0xd8) return fail_not_jpeg(bytes, size);
  if (size > ULONG_MAX) return mptl_fail(MPTL_EDATA, "a file of %zu bytes", size);
  MPTL_TRY(check_frame(bytes, size));
  /* A handle of its own: tables that an image lacks, and the state after an error, stay in a handle from one image to the next. */
  tjhandle turbo = tjInitDecompress();
  if (turbo == NULL) return mptl_fail(MPTL_ENOMEM, "JPEG decoder: no memory");
  mptl_status status = decode(decoder, turbo, bytes, size, rgb);
  tjDestroy(turbo);
  return status;
}

mptl_status mptl_encode(uint8_t **jpeg, size_t *size, const uint8_t *pixels, int width, int height, int quality) {
  *jpeg = NULL;
  *size = 0;
  if (width < 1 || width > 65500 || height < 1 || height > 65500)
    return mptl_fail(MPTL_EINVAL, "JPEG image: %d x %d pixels, accepted are 1 to 65500 each way", width, height);
  if (quality < 1 || quality > 100) return mptl_fail(MPTL_EINVAL, "JPEG quality: %d, accepted are 1 to 100", quality);
  tjhandle turbo = tjInitCompress();
  unsigned long length = tjBufSize(width, height, TJSAMP_420);
  uint8_t *buffer = malloc(length);
  mptl_status status = MPTL_OK;
  if (turbo == NULL || buffer == NULL)
    status = mptl_fail(MPTL_ENOMEM, "JPEG encoder: no memory for %d x %d pixels", width, height);
  else if (tjCompress2(turbo, pixels, width, 0, height, TJPF_RGB, &buffer, &length, TJSAMP_420, quality, TJFLAG_NOREALLOC) != 0)
    status = mptl_fail(MPTL_EBACKEND, "JPEG encoder: %s", tjGetErrorStr2(turbo));
  if (turbo != NULL) tjDestroy(turbo);
  if (status == MPTL_OK) {
    *jpeg = buffer;
    *size = length;
  } else {
    free(buffer);
  }
  return status;
}
