/* JPEG images to RGB and back. libjpeg decodes, because it reports every warning; TurboJPEG, which
 * encodes, reports only the first one, harmless or not. */
#include "mptl/jpeg.h"

#include <limits.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h> /* jpeglib.h needs it */
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h> /* must follow stdio.h */

#include <jerror.h>
#include <turbojpeg.h>

#define MOST_SCANS 500 /* of a progressive image: a small file can ask for very many */
#define ROWS_A_READ 16

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

/* Fails with a message that says what the bytes seem to be, if not a JPEG image. */
static mptl_status fail_not_jpeg(const uint8_t *data, size_t size) {
  static const struct {
    const char *name, *bytes;
    size_t length, offset;
  } others[] = {{"a PNG image", "\x89PNG", 4, 0}, {"a GIF image", "GIF8", 4, 0},
                {"a BMP image", "BM", 2, 0},      {"text", "<", 1, 0},
                {"a WebP image", "WEBP", 4, 8},   {"a TIFF image", "II*\0", 4, 0},
                {"a TIFF image", "MM\0*", 4, 0}};
  if (size == 0) return mptl_fail(MPTL_EDATA, "not a JPEG image but empty");
  for (size_t i = 0; i < sizeof others / sizeof *others; i++)
    if (size >= others[i].offset + others[i].length &&
        memcmp(data + others[i].offset, others[i].bytes, others[i].length) == 0)
      return mptl_fail(MPTL_EDATA, "not a JPEG image but %s", others[i].name);
  return mptl_fail(MPTL_EDATA,
                   "not a JPEG image: begins with the byte 0x%02x, must begin with 0xff 0xd8",
                   data[0]);
}

/* Facts in the frame header. */
typedef struct frame {
  int marker; /* its second byte, 0xc0 to 0xcf */
  int bits;
} frame;

/* Finds the frame header; false if there is none before the first scan or the end. */
static bool find_frame(frame *f, const uint8_t *data, size_t size) {
  size_t at = 2;
  while (at + 4 <= size && data[at] == 0xff) {
    int marker = data[at + 1];
    if (marker == 0xff) { /* a fill byte */
      at++;
      continue;
    }
    if (marker == 0xda || marker == 0xd9) return false;
    bool is_frame =
        marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
    if (is_frame && at + 5 <= size) {
      *f = (frame){.marker = marker, .bits = data[at + 4]};
      return true;
    }
    at += 2 + ((size_t)data[at + 2] << 8 | data[at + 3]);
  }
  return false;
}

/* MPTL_EDATA for kinds of JPEG that are not accepted. The decoder finds other faults. */
static mptl_status check_frame(const uint8_t *data, size_t size) {
  frame f;
  if (!find_frame(&f, data, size)) return MPTL_OK;
  if (f.bits != 8) return mptl_fail(MPTL_EDATA, "a JPEG image of %d bits, 8 are accepted", f.bits);
  if (f.marker == 0xc3 || f.marker == 0xc7 || f.marker == 0xcb || f.marker == 0xcf)
    return mptl_fail(MPTL_EDATA,
                     "a lossless JPEG image, baseline and progressive ones are accepted");
  if (f.marker == 0xc5 || f.marker == 0xc6 || f.marker == 0xcd || f.marker == 0xce)
    return mptl_fail(MPTL_EDATA,
                     "a hierarchical JPEG image, baseline and progressive ones are accepted");
  return MPTL_OK;
}

static mptl_status reserve(mptl_decoder *d, size_t bytes) {
  if (d->capacity >= bytes) return MPTL_OK;
  free(d->pixels);
  d->pixels = malloc(bytes);
  d->capacity = d->pixels != NULL ? bytes : 0;
  return d->pixels != NULL ? MPTL_OK
                           : mptl_fail(MPTL_ENOMEM, "no memory for an image of %zu bytes", bytes);
}

/* ---- Warnings and errors of the decoder ---- */

typedef struct complaints {
  struct jpeg_error_mgr base;
  jmp_buf out;                  /* errors jump here */
  int harmless;                 /* warnings that do not affect the pixels */
  bool truncated;               /* the data ended too early */
  char damage[JMSG_LENGTH_MAX]; /* the first other warning, or the error; "": none */
} complaints;

/* Whether a warning leaves the pixels intact: fields with values that the standard does not allow
 * but that have one obvious meaning, and bytes that belong to no part of the image. Other readers
 * accept such images. */
static bool is_harmless(int code) {
  return code == JWRN_JFIF_MAJOR || code == JWRN_ADOBE_XFORM || code == JWRN_EXTRANEOUS_DATA ||
         code == JWRN_NOT_SEQUENTIAL;
}

static void take_note(j_common_ptr info, int level) {
  complaints *c = (complaints *)info->err;
  if (level >= 0) return; /* a trace */
  c->truncated = c->truncated || c->base.msg_code == JWRN_JPEG_EOF;
  if (is_harmless(c->base.msg_code))
    c->harmless++;
  else if (c->damage[0] == '\0')
    c->base.format_message(info, c->damage);
}

static void give_up(j_common_ptr info) {
  complaints *c = (complaints *)info->err;
  if (c->damage[0] == '\0') c->base.format_message(info, c->damage);
  longjmp(c->out, 1);
}

static void say_nothing(j_common_ptr info) { (void)info; }

static void limit_scans(j_common_ptr info) {
  if (((j_decompress_ptr)info)->input_scan_number <= MOST_SCANS) return;
  complaints *c = (complaints *)info->err;
  if (c->damage[0] == '\0') snprintf(c->damage, sizeof c->damage, "more than %d scans", MOST_SCANS);
  longjmp(c->out, 1);
}

static mptl_status fail_corrupt(const complaints *c) {
  return mptl_fail(MPTL_EDATA, "a %s JPEG image (%s)", c->truncated ? "truncated" : "damaged",
                   c->damage);
}

/* ---- Decoding ---- */

/* x y / 255, rounded to nearest; exact for bytes. */
static inline uint8_t times(unsigned x, unsigned y) {
  unsigned product = x * y + 128;
  return (uint8_t)((product + (product >> 8)) >> 8);
}

/* Converts inverted CMYK to RGB in place: the result is the first 3 n of the 4 n bytes. As in
 * Pillow, a colour is black minus the product of black and ink. */
static void cmyk_to_rgb(uint8_t *pixels, size_t n) {
  for (size_t i = 0; i < n; i++) {
    const uint8_t *p = pixels + 4 * i;
    uint8_t black = p[3], rgb[3];
    for (int c = 0; c < 3; c++) rgb[c] = (uint8_t)(black - times(255u - p[c], black));
    memcpy(pixels + 3 * i, rgb, 3);
  }
}

/* Reads the header and allocates the pixels. */
static mptl_status begin(mptl_decoder *d, j_decompress_ptr info, const uint8_t *data, size_t size) {
  jpeg_mem_src(info, data, (unsigned long)size);
  jpeg_read_header(info, TRUE);
  if ((int64_t)info->image_width * info->image_height > MPTL_JPEG_MAX_PIXELS)
    return mptl_fail(MPTL_EDATA, "a JPEG image of %u x %u pixels, at most %d pixels are accepted",
                     info->image_width, info->image_height, MPTL_JPEG_MAX_PIXELS);
  bool four = info->jpeg_color_space == JCS_CMYK || info->jpeg_color_space == JCS_YCCK;
  info->out_color_space = four ? JCS_CMYK : JCS_RGB;
  return reserve(d, (size_t)info->image_width * info->image_height * (four ? 4 : 3));
}

static void read_rows(mptl_decoder *d, j_decompress_ptr info) {
  jpeg_start_decompress(info);
  size_t row = (size_t)info->output_width * (size_t)info->output_components;
  while (info->output_scanline < info->output_height) {
    JSAMPROW rows[ROWS_A_READ];
    JDIMENSION at = info->output_scanline, left = info->output_height - at,
               n = left < ROWS_A_READ ? left : ROWS_A_READ;
    for (JDIMENSION i = 0; i < n; i++) rows[i] = d->pixels + (at + i) * row;
    jpeg_read_scanlines(info, rows, n);
  }
  jpeg_finish_decompress(info); /* reads on to the end marker */
}

/* Decodes bytes that begin like a JPEG image; info has been created. */
static mptl_status decode(mptl_decoder *d, j_decompress_ptr info, complaints *c,
                          const uint8_t *data, size_t size, mptl_rgb *rgb) {
  if (setjmp(c->out) != 0) return fail_corrupt(c);
  MPTL_TRY(begin(d, info, data, size));
  read_rows(d, info);
  if (c->damage[0] != '\0') return fail_corrupt(c);
  if (info->out_color_space == JCS_CMYK)
    cmyk_to_rgb(d->pixels, (size_t)info->output_width * info->output_height);
  *rgb = (mptl_rgb){.pixels = d->pixels,
                    .width = (int)info->output_width,
                    .height = (int)info->output_height,
                    .warnings = c->harmless};
  return MPTL_OK;
}

mptl_status mptl_decode(mptl_decoder *decoder, const void *data, size_t size, mptl_rgb *rgb) {
  const uint8_t *bytes = data;
  *rgb = (mptl_rgb){0};
  if (size < 2 || bytes[0] != 0xff || bytes[1] != 0xd8) return fail_not_jpeg(bytes, size);
  if (size > ULONG_MAX) return mptl_fail(MPTL_EDATA, "a file of %zu bytes", size);
  MPTL_TRY(check_frame(bytes, size));
  /* Each image gets a new state: otherwise tables of the image before it, or the remains of an
   * error, would affect it. */
  struct jpeg_decompress_struct info = {0};
  struct jpeg_progress_mgr progress = {.progress_monitor = limit_scans};
  complaints c = {.harmless = 0};
  info.err = jpeg_std_error(&c.base);
  c.base.error_exit = give_up;
  c.base.emit_message = take_note;
  c.base.output_message = say_nothing;
  if (setjmp(c.out) != 0) return mptl_fail(MPTL_ENOMEM, "JPEG decoder: %s", c.damage);
  jpeg_create_decompress(&info);
  info.progress = &progress;
  mptl_status status = decode(decoder, &info, &c, bytes, size, rgb);
  jpeg_destroy_decompress(&info);
  return status;
}

mptl_status mptl_encode(uint8_t **jpeg, size_t *size, const uint8_t *pixels, int width, int height,
                        int quality) {
  *jpeg = NULL;
  *size = 0;
  if (width < 1 || width > 65500 || height < 1 || height > 65500)
    return mptl_fail(MPTL_EINVAL, "JPEG image: %d x %d pixels, accepted are 1 to 65500 each way",
                     width, height);
  if (quality < 1 || quality > 100)
    return mptl_fail(MPTL_EINVAL, "JPEG quality: %d, accepted are 1 to 100", quality);
  tjhandle turbo = tjInitCompress();
  unsigned long length = tjBufSize(width, height, TJSAMP_420);
  uint8_t *buffer = malloc(length);
  mptl_status status = MPTL_OK;
  if (turbo == NULL || buffer == NULL)
    status = mptl_fail(MPTL_ENOMEM, "JPEG encoder: no memory for %d x %d pixels", width, height);
  else if (tjCompress2(turbo, pixels, width, 0, height, TJPF_RGB, &buffer, &length, TJSAMP_420,
                       quality, TJFLAG_NOREALLOC) != 0)
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
