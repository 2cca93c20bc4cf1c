/* mptl.Images and mptl.Decoder: encoded images with labels, and their decoding. Images are numbered
 * from 1, classes from 0.
 *
 *   core.images_folder{path=, split="train"|"test"}   core.images_packed{path=, split=}
 *   core.images_folder_classes(path), core.images_packed_classes(path) -> number of classes; 0 for
 * a folder or file of another kind images:count()  images:classes()  images:class_name(label)
 * images:label(i) images:name(i) -> "CLASS/FILE"   images:where() -> path images:read(i) -> string;
 * nil and why if it cannot be read
 *
 *   core.decoder()
 *   decoder:check(bytes) -> width, height; nil and why if the image is refused
 *   decoder:decode(bytes) -> tensor height x width x 3 of 0 .. 255; nil and why
 *   core.resample(tensor height x width x 3, {width=, height=, from=, window=}) -> tensor
 *     scales the box `from` of the image (default: all) to width x height, and returns the box
 *     `window` of the result (default: all). Boxes are {x, y, width, height}; values are rounded to
 *     0 .. 255
 *   core.jpeg_encode(tensor height x width x 3 [, quality]) -> string
 */
#include <limits.h>
#include <stdlib.h>

#include "bindings/bind.h"
#include "mptl/images.h"
#include "mptl/jpeg.h"
#include "mptl/packed.h"
#include "mptl/resample.h"

#define DECODER "mptl.Decoder"
/* internal: a userdata, so that it is freed after errors, too */
#define RESAMPLER "mptl.Resampler"

mptl_images **bind_new_images(lua_State *L) {
  mptl_images **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  luaL_setmetatable(L, BIND_IMAGES);
  return box;
}

mptl_images *bind_check_images(lua_State *L, int index) {
  mptl_images *images = *(mptl_images **)luaL_checkudata(L, index, BIND_IMAGES);
  if (images == NULL) luaL_error(L, "images: already freed");
  return images;
}

/* Opens images by one of the engine's functions. */
static int open_images(lua_State *L,
                       mptl_status (*opener)(mptl_images **, const char *, mptl_split)) {
  static const char *const fields[] = {"path", "split", NULL};
  bind_check_fields(L, 1, fields);
  const char *path = bind_field_path(L, 1);
  mptl_split split = bind_field_split(L, 1);
  bind_check(L, opener(bind_new_images(L), path, split));
  return 1;
}

static int images_folder(lua_State *L) { return open_images(L, mptl_images_open_folder); }

static int images_packed(lua_State *L) { return open_images(L, mptl_images_open_packed); }

static int images_folder_classes(lua_State *L) {
  lua_pushinteger(L, mptl_images_folder_classes(luaL_checkstring(L, 1)));
  return 1;
}

static int images_packed_classes(lua_State *L) {
  lua_pushinteger(L, mptl_images_packed_classes(luaL_checkstring(L, 1)));
  return 1;
}

static int images_count(lua_State *L) {
  lua_pushinteger(L, mptl_images_count(bind_check_images(L, 1)));
  return 1;
}

static int images_classes(lua_State *L) {
  lua_pushinteger(L, mptl_images_classes(bind_check_images(L, 1)));
  return 1;
}

static int images_class_name(lua_State *L) {
  const mptl_images *images = bind_check_images(L, 1);
  lua_Integer label = luaL_checkinteger(L, 2);
  int classes = mptl_images_classes(images);
  if (label < 0 || label >= classes)
    luaL_error(L, "images: class %I, accepted are 0 to %d", label, classes - 1);
  lua_pushstring(L, mptl_images_class_name(images, (int)label));
  return 1;
}

/* The number in the engine, from 0, of the image whose number in Lua, from 1, is argument 2. */
static int64_t check_image(lua_State *L, const mptl_images *images) {
  lua_Integer i = luaL_checkinteger(L, 2), count = mptl_images_count(images);
  if (i < 1 || i > count) luaL_error(L, "images: image %I, accepted are 1 to %I", i, count);
  return i - 1;
}

static int images_label(lua_State *L) {
  const mptl_images *images = bind_check_images(L, 1);
  lua_pushinteger(L, mptl_images_label(images, check_image(L, images)));
  return 1;
}

static int images_name(lua_State *L) {
  const mptl_images *images = bind_check_images(L, 1);
  lua_pushstring(L, mptl_images_name(images, check_image(L, images)));
  return 1;
}

static int images_where(lua_State *L) {
  lua_pushstring(L, mptl_images_where(bind_check_images(L, 1)));
  return 1;
}

/* Pushes nil and the engine's message. */
static int push_failure(lua_State *L) {
  lua_pushnil(L);
  lua_pushstring(L, mptl_error());
  return 2;
}

static int images_read(lua_State *L) {
  const mptl_images *images = bind_check_images(L, 1);
  mptl_encoded encoded = {0};
  mptl_status status = mptl_images_read(images, check_image(L, images), &encoded);
  int results = 1;
  if (status == MPTL_OK)
    lua_pushlstring(L, (const char *)encoded.data, encoded.size);
  else
    results = push_failure(L);
  mptl_encoded_free(&encoded);
  return results;
}

static int images_describe(lua_State *L) {
  const mptl_images *images = bind_check_images(L, 1);
  lua_pushfstring(L, "images(%s, %I images, %d classes)", mptl_images_where(images),
                  (lua_Integer)mptl_images_count(images), mptl_images_classes(images));
  return 1;
}

static int images_gc(lua_State *L) {
  mptl_images **box = luaL_checkudata(L, 1, BIND_IMAGES);
  mptl_images_destroy(*box);
  *box = NULL;
  return 0;
}

static int decoder_new(lua_State *L) {
  mptl_decoder **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  luaL_setmetatable(L, DECODER);
  bind_check(L, mptl_decoder_create(box));
  return 1;
}

/* Decodes argument 2. */
static mptl_status decode(lua_State *L, mptl_rgb *rgb) {
  mptl_decoder *decoder = *(mptl_decoder **)luaL_checkudata(L, 1, DECODER);
  size_t size;
  const char *bytes = luaL_checklstring(L, 2, &size);
  if (decoder == NULL) luaL_error(L, "decoder: already freed");
  return mptl_decode(decoder, bytes, size, rgb);
}

static int decoder_check(lua_State *L) {
  mptl_rgb rgb;
  if (decode(L, &rgb) != MPTL_OK) return push_failure(L);
  lua_pushinteger(L, rgb.width);
  lua_pushinteger(L, rgb.height);
  return 2;
}

static int decoder_gc(lua_State *L) {
  mptl_decoder **box = luaL_checkudata(L, 1, DECODER);
  mptl_decoder_destroy(*box);
  *box = NULL;
  return 0;
}

/* The image at index as bytes, which are in a userdata that this function pushes. */
static mptl_rgb check_pixels(lua_State *L, int index, const char *function) {
  const mptl_tensor *t = bind_check_tensor(L, index);
  if (t->ndim != 3 || t->dims[2] != 3 || t->dims[0] > INT_MAX || t->dims[1] > INT_MAX)
    luaL_error(L, "%s: a tensor of another shape, must be height x width x 3", function);
  size_t n = mptl_tensor_numel(t);
  uint8_t *pixels = lua_newuserdatauv(L, n, 0);
  for (size_t i = 0; i < n; i++) {
    float value = t->data[i];
    pixels[i] = value > 0 ? (uint8_t)(value < 255 ? value + 0.5f : 255) : 0;
  }
  return (mptl_rgb){.pixels = pixels, .width = (int)t->dims[1], .height = (int)t->dims[0]};
}

static int push_pixels(lua_State *L, const uint8_t *pixels, int width, int height) {
  mptl_tensor *t;
  bind_check(L, mptl_tensor_create(&t, 3, (int64_t[]){height, width, 3}));
  size_t n = mptl_tensor_numel(t);
  for (size_t i = 0; i < n; i++) t->data[i] = (float)pixels[i];
  bind_push_tensor(L, t);
  return 1;
}

static int decoder_decode(lua_State *L) {
  mptl_rgb rgb;
  if (decode(L, &rgb) != MPTL_OK) return push_failure(L);
  return push_pixels(L, rgb.pixels, rgb.width, rgb.height);
}

/* Reads an optional box {x, y, width, height} of the options at index 2; the default is width x
 * height at 0, 0. */
static mptl_box field_box(lua_State *L, const char *field, int width, int height) {
  int values[4] = {0, 0, width, height};
  if (lua_getfield(L, 2, field) != LUA_TNIL) {
    luaL_argexpected(L, lua_istable(L, -1), 2, "list of x, y, width, height");
    for (int i = 0; i < 4; i++) {
      int isnum;
      lua_geti(L, -1, i + 1);
      lua_Integer value = lua_tointegerx(L, -1, &isnum);
      if (!isnum || value < INT_MIN || value > INT_MAX)
        luaL_error(L, "%s: must be a list of x, y, width, height", field);
      values[i] = (int)value;
      lua_pop(L, 1);
    }
  }
  lua_pop(L, 1);
  return (mptl_box){.x = values[0], .y = values[1], .width = values[2], .height = values[3]};
}

static int resampler_gc(lua_State *L) {
  mptl_resampler **box = luaL_checkudata(L, 1, RESAMPLER);
  mptl_resampler_destroy(*box);
  *box = NULL;
  return 0;
}

static int resample(lua_State *L) {
  static const char *const fields[] = {"width", "height", "from", "window", NULL};
  bind_check_fields(L, 2, fields);
  lua_settop(L, 2);
  mptl_rgb image = check_pixels(L, 1, "resample");
  lua_Integer width = bind_opt_integer(L, 2, "width", image.width),
              height = bind_opt_integer(L, 2, "height", image.height);
  if (width < 1 || width > MPTL_JPEG_MAX_PIXELS || height < 1 || height > MPTL_JPEG_MAX_PIXELS)
    luaL_error(L, "resample: to %I x %I pixels, accepted are 1 to %d each way", width, height,
               MPTL_JPEG_MAX_PIXELS);
  mptl_box from = field_box(L, "from", image.width, image.height);
  mptl_box window = field_box(L, "window", (int)width, (int)height);
  const uint8_t *out;
  mptl_resampler **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  luaL_setmetatable(L, RESAMPLER);
  bind_check(L, mptl_resampler_create(box));
  bind_check(L, mptl_resample(*box, &out, &image, from, (int)width, (int)height, window));
  return push_pixels(L, out, window.width, window.height);
}

static int jpeg_encode(lua_State *L) {
  lua_Integer quality = luaL_optinteger(L, 2, 90);
  mptl_rgb image = check_pixels(L, 1, "jpeg_encode");
  uint8_t *jpeg;
  size_t size;
  bind_check(L, mptl_encode(&jpeg, &size, image.pixels, image.width, image.height,
                            quality < 1 || quality > 100 ? 0 : (int)quality));
  lua_pushlstring(L, (const char *)jpeg, size);
  free(jpeg);
  return 1;
}

static const luaL_Reg images_methods[] = {
    {"count", images_count}, {"classes", images_classes},     {"class_name", images_class_name},
    {"label", images_label}, {"name", images_name},           {"where", images_where},
    {"read", images_read},   {"__tostring", images_describe}, {NULL, NULL},
};

static const luaL_Reg decoder_methods[] = {
    {"check", decoder_check},
    {"decode", decoder_decode},
    {NULL, NULL},
};

static const luaL_Reg no_methods[] = {{NULL, NULL}};

static const luaL_Reg functions[] = {
    {"images_folder", images_folder}, {"images_folder_classes", images_folder_classes},
    {"images_packed", images_packed}, {"images_packed_classes", images_packed_classes},
    {"decoder", decoder_new},         {"resample", resample},
    {"jpeg_encode", jpeg_encode},     {NULL, NULL},
};

void mptl_bind_images(lua_State *L) {
  bind_new_type(L, BIND_IMAGES, images_methods, images_gc);
  bind_new_type(L, DECODER, decoder_methods, decoder_gc);
  bind_new_type(L, RESAMPLER, no_methods, resampler_gc);
  luaL_setfuncs(L, functions, 0);
}
