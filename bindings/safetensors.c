/* The header of safetensors files (mptl/safetensors.h).
 *
 *   core.safetensors(file, path) -> {path=, header_size=, names={name, ...} in the order of the
 * data, metadata={key = value}, tensors={name = {dtype=, shape={size, ...}, offset= bytes from the
 * file's beginning, size= bytes}}}, the header's text
 *
 * file is an open Lua file, path its name in messages.
 */
#include <stdlib.h>

#include "bindings/bind.h"
#include "mptl/safetensors.h"

#define HEADER "mptl.SafetensorsHeader"

typedef struct header_box { /* a userdata, so that its memory is freed after an error of Lua's */
  char *text;
  mptl_safetensors file;
} header_box;

static void release(header_box *box) {
  free(box->text);
  box->text = NULL;
  mptl_safetensors_free(&box->file);
}

static int header_gc(lua_State *L) {
  release(luaL_checkudata(L, 1, HEADER));
  return 0;
}

static void push_text(lua_State *L, mptl_text text) { lua_pushlstring(L, text.bytes, text.size); }

static void push_tensor(lua_State *L, const mptl_safetensor *t, size_t header_size) {
  lua_createtable(L, 0, 4);
  bind_set_string(L, "dtype", t->dtype);
  lua_createtable(L, (int)(t->ndim < INT32_MAX ? t->ndim : 0), 0);
  for (size_t i = 0; i < t->ndim; i++) {
    lua_pushinteger(L, (lua_Integer)t->shape[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_setfield(L, -2, "shape");
  bind_set_integer(L, "offset", (lua_Integer)(8 + header_size + t->begin));
  bind_set_integer(L, "size", (lua_Integer)(t->end - t->begin));
}

static void set_lists(lua_State *L, const mptl_safetensors *file, size_t header_size) {
  lua_createtable(L, (int)file->count, 0);
  lua_createtable(L, 0, (int)file->count);
  for (size_t i = 0; i < file->count; i++) {
    push_text(L, file->tensors[i].name);
    lua_pushvalue(L, -1);
    lua_rawseti(L, -4, (lua_Integer)i + 1);
    push_tensor(L, &file->tensors[i], header_size);
    lua_rawset(L, -3);
  }
  lua_setfield(L, -3, "tensors");
  lua_setfield(L, -2, "names");
  lua_createtable(L, 0, (int)file->metadata_count);
  for (size_t i = 0; i < file->metadata_count; i++) {
    push_text(L, file->metadata[i][0]);
    push_text(L, file->metadata[i][1]);
    lua_rawset(L, -3);
  }
  lua_setfield(L, -2, "metadata");
}

static int safetensors_open(lua_State *L) {
  const int fd = bind_check_file(L, 1);
  const char *path = luaL_checkstring(L, 2);
  size_t size = 0;
  uint64_t data_size = 0;
  header_box *box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = (header_box){0};
  luaL_setmetatable(L, HEADER);
  bind_check(L, mptl_safetensors_read_header(&box->text, &size, &data_size, fd, path));
  mptl_status status = mptl_safetensors_parse(&box->file, box->text, size, data_size);
  if (status != MPTL_OK) bind_check(L, mptl_fail_in(status, "%s", path));
  lua_newtable(L);
  bind_set_string(L, "path", path);
  bind_set_integer(L, "header_size", (lua_Integer)size);
  set_lists(L, &box->file, size);
  lua_pushlstring(L, box->text, size);
  release(box);
  return 2;
}

static const luaL_Reg functions[] = {{"safetensors", safetensors_open}, {NULL, NULL}};

void mptl_bind_safetensors(lua_State *L) {
  static const luaL_Reg methods[] = {{NULL, NULL}};
  bind_new_type(L, HEADER, methods, header_gc);
  luaL_setfuncs(L, functions, 0);
}
