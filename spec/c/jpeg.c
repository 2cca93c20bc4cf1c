/* Decoding JPEG images: every kind that is accepted, kinds that are refused, and damaged images:
 * cut off at every length, and with flipped bits. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <turbojpeg.h>

#include "check.h"
#include "mptl/jpeg.h"

enum { WIDTH = 37, HEIGHT = 22 };

static uint8_t file[1 << 16]; /* the current image */
static size_t file_size;

/* Paints a smooth image of `channels` bytes a pixel, which encoding changes little. */
static void paint(uint8_t *pixels, int channels) {
  for (int y = 0; y < HEIGHT; y++)
    for (int x = 0; x < WIDTH; x++)
      for (int c = 0; c < channels; c++)
        pixels[(y * WIDTH + x) * channels + c] = (uint8_t)(30 + 3 * x + c * y);
}

/* Encodes that image into file. */
static void encode(int format, int sampling, int flags) {
  static uint8_t pixels[WIDTH * HEIGHT * 4];
  tjhandle turbo = tjInitCompress();
  unsigned long size = sizeof file;
  uint8_t *out = file;
  paint(pixels, tjPixelSize[format]);
  if (tjCompress2(turbo, pixels, WIDTH, 0, HEIGHT, format, &out, &size, sampling, 98,
                  flags | TJFLAG_NOREALLOC) != 0)
    abort();
  file_size = size;
  tjDestroy(turbo);
}

static int near(int want, int got) { return abs(want - got) <= 6; }

static int takes_colour(mptl_decoder *decoder) {
  static const int kinds[][2] = {{TJSAMP_444, 0}, {TJSAMP_422, 0},
                                 {TJSAMP_420, 0}, {TJSAMP_440, 0},
                                 {TJSAMP_411, 0}, {TJSAMP_420, TJFLAG_PROGRESSIVE}};
  static uint8_t want[WIDTH * HEIGHT * 3];
  paint(want, 3);
  for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
    mptl_rgb rgb;
    encode(TJPF_RGB, kinds[k][0], kinds[k][1]);
    CHECK(mptl_decode(decoder, file, file_size, &rgb) == MPTL_OK);
    CHECK(rgb.width == WIDTH && rgb.height == HEIGHT);
    for (int i = 0; i < WIDTH * HEIGHT * 3; i++) CHECK(near(want[i], rgb.pixels[i]));
  }
  return 0;
}

static int takes_grey(mptl_decoder *decoder) {
  mptl_rgb rgb;
  encode(TJPF_GRAY, TJSAMP_GRAY, 0);
  CHECK(mptl_decode(decoder, file, file_size, &rgb) == MPTL_OK);
  for (int i = 0; i < WIDTH * HEIGHT; i++) {
    CHECK(near(30 + 3 * (i % WIDTH), rgb.pixels[3 * i]));
    CHECK(rgb.pixels[3 * i] == rgb.pixels[3 * i + 1] && rgb.pixels[3 * i] == rgb.pixels[3 * i + 2]);
  }
  return 0;
}

/* The four channels say how much light remains: of red, green and blue, and of all (black). */
static int takes_inverted_cmyk(mptl_decoder *decoder) {
  static uint8_t ink[WIDTH * HEIGHT * 4];
  paint(ink, 4);
  mptl_rgb rgb;
  encode(TJPF_CMYK, TJSAMP_444, 0);
  CHECK(mptl_decode(decoder, file, file_size, &rgb) == MPTL_OK);
  for (int i = 0; i < WIDTH * HEIGHT; i++)
    for (int c = 0; c < 3; c++)
      CHECK(near(ink[4 * i + c] * ink[4 * i + 3] / 255, rgb.pixels[3 * i + c]));
  return 0;
}

/* The offset of the frame header's marker in file. */
static size_t frame_at(void) {
  for (size_t i = 2; i + 1 < file_size; i++)
    if (file[i] == 0xff && file[i + 1] == 0xc0) return i;
  abort();
}

static int refuses(mptl_decoder *decoder, const void *bytes, size_t size, const char *message) {
  mptl_rgb rgb;
  CHECK(mptl_decode(decoder, bytes, size, &rgb) == MPTL_EDATA);
  if (strcmp(mptl_error(), message) != 0) fprintf(stderr, "wanted: %s\n", message);
  CHECK(strcmp(mptl_error(), message) == 0);
  CHECK(rgb.pixels == NULL);
  return 0;
}

static int names_other_kinds(mptl_decoder *decoder) {
  static const uint8_t png[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  encode(TJPF_RGB, TJSAMP_420, 0);
  size_t frame = frame_at();
  if (refuses(decoder, png, sizeof png, "not a JPEG image but a PNG image")) return 1;
  if (refuses(decoder, "RIFF\1\2\3\4WEBPVP8 ", 16, "not a JPEG image but a WebP image")) return 1;
  if (refuses(decoder, "<html>", 6, "not a JPEG image but text")) return 1;
  if (refuses(decoder, "", 0, "not a JPEG image but empty")) return 1;
  if (refuses(decoder, "\xff", 1,
              "not a JPEG image: begins with the byte 0xff, must begin with 0xff 0xd8"))
    return 1;
  file[frame + 4] = 12;
  if (refuses(decoder, file, file_size, "a JPEG image of 12 bits, 8 are accepted")) return 1;
  file[frame + 4] = 8;
  file[frame + 1] = 0xc3;
  if (refuses(decoder, file, file_size,
              "a lossless JPEG image, baseline and progressive ones are accepted"))
    return 1;
  file[frame + 1] = 0xc5;
  if (refuses(decoder, file, file_size,
              "a hierarchical JPEG image, baseline and progressive ones are accepted"))
    return 1;
  file[frame + 1] = 0xc0;
  memcpy(file + frame + 5, "\x7f\xff\x7f\xff", 4);
  return refuses(decoder, file, file_size,
                 "a JPEG image of 32767 x 32767 pixels, at most 67108864 pixels are accepted");
}

static int skips_stray_bytes(mptl_decoder *decoder) {
  mptl_rgb rgb;
  encode(TJPF_RGB, TJSAMP_420, 0);
  memcpy(file + file_size, "trailing", 8);
  CHECK(mptl_decode(decoder, file, file_size + 8, &rgb) == MPTL_OK);
  memmove(file + file_size, file + file_size - 2, 2); /* two bytes more before the end marker */
  memcpy(file + file_size - 2, "\1\2", 2);
  CHECK(mptl_decode(decoder, file, file_size + 2, &rgb) == MPTL_OK);
  CHECK(mptl_decode(decoder, file, file_size, &rgb) == MPTL_EDATA); /* without the end marker */
  return 0;
}

static uint8_t *find(const char *text) {
  uint8_t *found = memmem(file, file_size, text, strlen(text));
  if (found == NULL) abort();
  return found;
}

/* Inserts bytes at an offset of file. */
static void insert(size_t at, const void *bytes, size_t size) {
  memmove(file + at + size, file + at, file_size - at);
  memcpy(file + at, bytes, size);
  file_size += size;
}

/* Checks that file is decoded into the pixels of want, with warnings or without. */
static int decodes_as(mptl_decoder *decoder, const uint8_t *want, int warns) {
  mptl_rgb rgb;
  CHECK(mptl_decode(decoder, file, file_size, &rgb) == MPTL_OK);
  CHECK(memcmp(rgb.pixels, want, WIDTH * HEIGHT * 3) == 0);
  CHECK((rgb.warnings > 0) == warns);
  return 0;
}

/* Fields outside of the standards that other readers accept: the pixels do not change, and there is
 * a warning. */
static int accepts_what_others_accept(mptl_decoder *decoder) {
  static const uint8_t adobe[] = {0xff, 0xee, 0,   14, 'A', 'd', 'o', 'b',
                                  'e',  0,    100, 0,  0,   0,   0,   2};
  static uint8_t want[WIDTH * HEIGHT * 3];
  mptl_rgb rgb;
  encode(TJPF_RGB, TJSAMP_420, 0);
  CHECK(mptl_decode(decoder, file, file_size, &rgb) == MPTL_OK && rgb.warnings == 0);
  memcpy(want, rgb.pixels, sizeof want);
  find("JFIF")[5] = 2; /* its major version */
  if (decodes_as(decoder, want, 1)) return 1;
  memcpy(find("JFIF"), "none", 4); /* after a JFIF marker the decoder ignores Adobe's */
  insert(2, adobe, sizeof adobe);
  if (decodes_as(decoder, want, 1)) return 1;
  find("Adobe")[11] = 1;
  if (decodes_as(decoder, want, 0)) return 1;
  encode(TJPF_CMYK, TJSAMP_444, 0);
  size_t at = (size_t)(find("Adobe") - file) + 11;
  file[at] = 2; /* YCCK */
  CHECK(mptl_decode(decoder, file, file_size, &rgb) == MPTL_OK && rgb.warnings == 0);
  memcpy(want, rgb.pixels, sizeof want);
  file[at] = 1;
  return decodes_as(decoder, want, 1);
}

/* A harmless warning must not hide later damage. */
static int refuses_damage_after_a_warning(mptl_decoder *decoder) {
  encode(TJPF_RGB, TJSAMP_420, 0);
  insert(frame_at(), "\1\2", 2);
  mptl_rgb rgb;
  CHECK(mptl_decode(decoder, file, file_size, &rgb) == MPTL_OK && rgb.warnings == 1);
  file_size -= 100;
  memcpy(file + file_size, "\xff\xd9", 2); /* it has an end marker, but lacks pixels */
  file_size += 2;
  return refuses(decoder, file, file_size,
                 "a damaged JPEG image (Corrupt JPEG data: premature end of data segment)");
}

static int finds_every_truncation(mptl_decoder *decoder) {
  for (int progressive = 0; progressive < 2; progressive++) {
    encode(TJPF_RGB, TJSAMP_420, progressive ? TJFLAG_PROGRESSIVE : 0);
    for (size_t size = 0; size < file_size; size++) {
      mptl_rgb rgb;
      uint8_t *copy =
          malloc(size + 1); /* so that a sanitizer finds reads beyond it; never malloc(0) */
      memcpy(copy, file, size);
      mptl_status status = mptl_decode(decoder, copy, size, &rgb);
      free(copy);
      CHECK(status == MPTL_EDATA && strstr(mptl_error(), "0 x 0") == NULL);
    }
  }
  return 0;
}

/* A hash of an image's pixels; 0 when there are none. */
static uint64_t hash(const mptl_rgb *rgb) {
  uint64_t h = (uint64_t)rgb->width << 32 | (uint64_t)rgb->height;
  for (int64_t i = 0; i < (int64_t)rgb->width * rgb->height * 3; i++)
    h = (h ^ rgb->pixels[i]) * 0x100000001b3u;
  return h;
}

/* The pixels are undefined, but decoding must not crash, and a failure must have a message. */
static int survives_flipped_bits(mptl_decoder *decoder) {
  static const int kinds[][3] = {{TJPF_RGB, TJSAMP_420, 0},
                                 {TJPF_RGB, TJSAMP_420, TJFLAG_PROGRESSIVE},
                                 {TJPF_CMYK, TJSAMP_444, 0}};
  uint32_t random = 1;
  mptl_decoder *fresh;
  for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
    encode(kinds[k][0], kinds[k][1], kinds[k][2]);
    size_t size = file_size;
    for (int round = 0; round < 1500; round++) {
      uint8_t *copy = malloc(size);
      mptl_rgb rgb;
      CHECK(mptl_decoder_create(&fresh) == MPTL_OK);
      memcpy(copy, file, size);
      for (int flips = 0; flips <= round % 4; flips++) {
        random = random * 1664525u + 1013904223u;
        copy[(random >> 4) % size] ^= (uint8_t)(1u << (random >> 29));
      }
      mptl_status status = mptl_decode(decoder, copy, size, &rgb);
      uint64_t pixels = hash(&rgb);
      mptl_decode(fresh, copy, size, &rgb); /* earlier images must not affect the result */
      CHECK(hash(&rgb) == pixels);
      free(copy);
      CHECK(status == MPTL_OK || (status == MPTL_EDATA && mptl_error()[0] != '\0'));
      CHECK((status == MPTL_OK) == (rgb.pixels != NULL));
      mptl_decoder_destroy(fresh);
    }
  }
  return 0;
}

static int encodes(mptl_decoder *decoder) {
  static uint8_t pixels[WIDTH * HEIGHT * 3];
  uint8_t *jpeg;
  size_t size;
  mptl_rgb rgb;
  paint(pixels, 3);
  CHECK(mptl_encode(&jpeg, &size, pixels, WIDTH, HEIGHT, 98) == MPTL_OK);
  CHECK(mptl_decode(decoder, jpeg, size, &rgb) == MPTL_OK);
  for (int i = 0; i < WIDTH * HEIGHT * 3; i++) CHECK(near(pixels[i], rgb.pixels[i]));
  free(jpeg);
  CHECK(mptl_encode(&jpeg, &size, pixels, 0, 1, 98) == MPTL_EINVAL);
  CHECK(mptl_encode(&jpeg, &size, pixels, 1, 65501, 98) == MPTL_EINVAL);
  CHECK(mptl_encode(&jpeg, &size, pixels, 1, 1, 101) == MPTL_EINVAL);
  return 0;
}

int main(void) {
  mptl_decoder *decoder;
  CHECK(mptl_decoder_create(&decoder) == MPTL_OK);
  int failed = takes_colour(decoder) || takes_grey(decoder) || takes_inverted_cmyk(decoder) ||
               names_other_kinds(decoder) || skips_stray_bytes(decoder) ||
               accepts_what_others_accept(decoder) || refuses_damage_after_a_warning(decoder) ||
               finds_every_truncation(decoder) || survives_flipped_bits(decoder) ||
               encodes(decoder);
  mptl_decoder_destroy(decoder);
  mptl_decoder_destroy(NULL);
  return failed;
}
