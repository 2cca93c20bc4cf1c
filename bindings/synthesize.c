/* Single images of the built-in set (mptl_synthetic_image), for `mptl data synthesize`.
 *
 *   core.synthetic_planes{index=, classes=, side=, seed=, split=} -> 3 x side x side bytes
 *   core.synthetic_jpeg{index=, classes=, width=, height=, quality=, seed=, split=} -> JPEG: the
 * middle of the image whose side is the larger of width and height
 */
#include <stdlib.h>

#include "bindings/bind.h"
#include "mptl/jpeg.h"

static int field(lua_State *L, const char *name, int def, int most) {
  lua_Integer value = bind_opt_integer(L, 1, name, def);
  if (value < 1 || value > most) luaL_error(L, "%s: %I, accepted are 1 to %d", name, value, most);
  return (int)value;
}

/* Pushes memory with the planes of the image that the table at 1 describes. */
static uint8_t *paint(lua_State *L, int side) {
  int classes = field(L, "classes", 10, 100);
  lua_Integer index = bind_opt_integer(L, 1, "index", 0), seed = bind_opt_integer(L, 1, "seed", 0);
  mptl_split split = bind_field_split(L, 1);
  uint8_t *planes =
      lua_newuserdatauv(L, (size_t)MPTL_IMAGE_CHANNELS * (size_t)side * (size_t)side, 0);
  bind_check(L, mptl_synthetic_image(planes, index, classes, side, (uint64_t)seed, split));
  return planes;
}

static int synthetic_planes(lua_State *L) {
  static const char *const fields[] = {"index", "classes", "side", "seed", "split", NULL};
  bind_check_fields(L, 1, fields);
  int side = field(L, "side", MPTL_CIFAR_SIDE, MPTL_IMAGE_SIDE_MAX);
  const uint8_t *planes = paint(L, side);
  lua_pushlstring(L, (const char *)planes,
                  (size_t)MPTL_IMAGE_CHANNELS * (size_t)side * (size_t)side);
  return 1;
}

static int synthetic_jpeg(lua_State *L) {
  static const char *const fields[] = {"index",   "classes", "width", "height",
                                       "quality", "seed",    "split", NULL};
  bind_check_fields(L, 1, fields);
  int width = field(L, "width", MPTL_CIFAR_SIDE, MPTL_IMAGE_SIDE_MAX),
      height = field(L, "height", width, MPTL_IMAGE_SIDE_MAX);
  int quality = field(L, "quality", 90, 100), side = width > height ? width : height;
  const uint8_t *planes = paint(L, side);
  uint8_t *pixels = lua_newuserdatauv(L, (size_t)width * (size_t)height * 3, 0), *jpeg;
  size_t plane = (size_t)side * (size_t)side, at = 0, size;
  for (int y = 0; y < height; y++)
    for (int x = 0; x < width; x++)
      for (size_t c = 0; c < 3; c++)
        pixels[at++] = planes[c * plane + (size_t)(y + (side - height) / 2) * (size_t)side +
                              (size_t)(x + (side - width) / 2)];
  bind_check(L, mptl_encode(&jpeg, &size, pixels, width, height, quality));
  lua_pushlstring(L, (const char *)jpeg, size);
  free(jpeg);
  return 1;
}

static const luaL_Reg functions[] = {
    {"synthetic_planes", synthetic_planes},
    {"synthetic_jpeg", synthetic_jpeg},
    {NULL, NULL},
};

void mptl_bind_synthesize(lua_State *L) { luaL_setfuncs(L, functions, 0); }
