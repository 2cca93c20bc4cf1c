/* Facts about images (mptl/survey.h), for `mptl data check` and `import`.
 *
 *   core.survey(images or dataset, first, n), core.survey_bytes{string, ...} -> {
 *     pixels=, sum={r, g, b}, squares={r, g, b},   of the bytes of all images that can be decoded
 *     min={width, height}, max={width, height},    of these images; nil if there are none
 *     warned=,                                     how many of these the decoder warned about
 *     bad={{number, why}, ...}, hashes={integer, ...}}   of all images
 */
#include <stdlib.h>

#include "bindings/bind.h"
#include "mptl/survey.h"

#define MOST 65536 /* images in a call */

/* Pushes memory for the facts of n images. */
static mptl_image_facts *new_facts(lua_State *L, lua_Integer n) {
  if (n < 1 || n > MOST) luaL_error(L, "survey: %I images, accepted are 1 to %d", n, MOST);
  return lua_newuserdatauv(L, (size_t)n * sizeof(mptl_image_facts), 0);
}

static void set_pair(lua_State *L, const char *field, int32_t width, int32_t height) {
  bind_push_integers(L, (int64_t[]){width, height}, 2);
  lua_setfield(L, -2, field);
}

static void set_sums(lua_State *L, const char *field, const uint64_t *sums) {
  bind_push_integers(L, (int64_t[]){(int64_t)sums[0], (int64_t)sums[1], (int64_t)sums[2]}, 3);
  lua_setfield(L, -2, field);
}

/* Sets the lists of the table on top of the stack. */
static void set_lists(lua_State *L, const mptl_image_facts *facts, lua_Integer first,
                      lua_Integer n) {
  int bad = 0;
  lua_newtable(L);
  for (lua_Integer i = 0; i < n; i++) {
    if (facts[i].problem[0] == '\0') continue;
    lua_createtable(L, 2, 0);
    lua_pushinteger(L, first + i);
    lua_rawseti(L, -2, 1);
    lua_pushstring(L, facts[i].problem);
    lua_rawseti(L, -2, 2);
    lua_rawseti(L, -2, ++bad);
  }
  lua_setfield(L, -2, "bad");
  lua_createtable(L, (int)n, 0);
  for (lua_Integer i = 0; i < n; i++) {
    lua_pushinteger(L, (lua_Integer)facts[i].hash);
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, "hashes");
}

/* Pushes a table that summarises the facts; first is the number of the first image. */
static int push_summary(lua_State *L, const mptl_image_facts *facts, lua_Integer first,
                        lua_Integer n) {
  uint64_t pixels = 0, sum[3] = {0}, squares[3] = {0};
  lua_Integer warned = 0;
  int32_t least[2] = {INT32_MAX, INT32_MAX}, most[2] = {0, 0};
  for (lua_Integer i = 0; i < n; i++) {
    const mptl_image_facts *f = &facts[i];
    if (f->width == 0) continue;
    pixels += (uint64_t)f->width * (uint64_t)f->height;
    warned += f->warnings > 0;
    for (int c = 0; c < 3; c++) {
      sum[c] += f->sum[c];
      squares[c] += f->squares[c];
    }
    if (f->width < least[0]) least[0] = f->width;
    if (f->width > most[0]) most[0] = f->width;
    if (f->height < least[1]) least[1] = f->height;
    if (f->height > most[1]) most[1] = f->height;
  }
  lua_createtable(L, 0, 8);
  bind_set_integer(L, "warned", warned);
  bind_set_integer(L, "pixels", (lua_Integer)pixels);
  set_sums(L, "sum", sum);
  set_sums(L, "squares", squares);
  if (pixels > 0) {
    set_pair(L, "min", least[0], least[1]);
    set_pair(L, "max", most[0], most[1]);
  }
  set_lists(L, facts, first, n);
  return 1;
}

static int survey(lua_State *L) {
  const mptl_dataset *dataset = bind_test_dataset(L, 1);
  const mptl_images *images = dataset == NULL ? bind_check_images(L, 1) : NULL;
  lua_Integer count = dataset != NULL ? dataset->count : mptl_images_count(images);
  lua_Integer first = luaL_checkinteger(L, 2), n = luaL_checkinteger(L, 3);
  mptl_image_facts *facts = new_facts(L, n);
  if (first < 1 || first > count - n + 1)
    luaL_error(L, "survey: images %I to %I, there are %I", first, first + n - 1, count);
  bind_check(L, dataset != NULL ? mptl_survey_dataset(facts, dataset, first - 1, n)
                                : mptl_survey_images(facts, images, first - 1, n, bind_threads(L)));
  return push_summary(L, facts, first, n);
}

static int survey_bytes(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_Integer n = luaL_len(L, 1);
  mptl_image_facts *facts = new_facts(L, n);
  mptl_bytes *encoded = lua_newuserdatauv(L, (size_t)n * sizeof *encoded, 0);
  for (lua_Integer i = 0; i < n; i++) { /* the table keeps what they point to */
    if (lua_rawgeti(L, 1, i + 1) != LUA_TSTRING)
      luaL_error(L, "survey: image %I is not a string", i + 1);
    encoded[i].data = lua_tolstring(L, -1, &encoded[i].size);
    lua_pop(L, 1);
  }
  bind_check(L, mptl_survey_encoded(facts, encoded, n, bind_threads(L)));
  return push_summary(L, facts, 1, n);
}

static const luaL_Reg functions[] = {
    {"survey", survey},
    {"survey_bytes", survey_bytes},
    {NULL, NULL},
};

void mptl_bind_survey(lua_State *L) { luaL_setfuncs(L, functions, 0); }
