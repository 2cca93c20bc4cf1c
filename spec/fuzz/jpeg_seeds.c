/* usage: fuzz_jpeg_seeds DIR    writes a small image of each kind that TurboJPEG makes */
#include <turbojpeg.h>

#include "fuzz.h"

enum { SIDE = 12 };

int main(int argc, char **argv) {
  static const struct {
    const char *name;
    int format, sampling, flags;
  } kinds[] = {{"444", TJPF_RGB, TJSAMP_444, 0},
               {"420", TJPF_RGB, TJSAMP_420, 0},
               {"grey", TJPF_GRAY, TJSAMP_GRAY, 0},
               {"cmyk", TJPF_CMYK, TJSAMP_444, 0},
               {"progressive", TJPF_RGB, TJSAMP_420, TJFLAG_PROGRESSIVE}};
  if (argc != 2) return 2;
  for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
    unsigned char pixels[SIDE * SIDE * 4], *jpeg = NULL;
    char path[4096];
    unsigned long size = 0;
    tjhandle turbo = tjInitCompress();
    for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (unsigned char)(i * 7);
    HOLDS(tjCompress2(turbo, pixels, SIDE, 0, SIDE, kinds[k].format, &jpeg, &size,
                      kinds[k].sampling, 60, kinds[k].flags) == 0);
    snprintf(path, sizeof path, "%s/%s.jpg", argv[1], kinds[k].name);
    FILE *file = fopen(path, "wb");
    HOLDS(file != NULL && fwrite(jpeg, 1, size, file) == size && fclose(file) == 0);
    tjFree(jpeg);
    tjDestroy(turbo);
  }
  return 0;
}
