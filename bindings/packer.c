/* mptl.Packer: writes a packed data set (mptl/packed.h). A packer that is not finished leaves no
 * file.
 *
 *   core.packer(path)
 *   packer:add(split, class, file, bytes)   packer:finish()   packer:close()
 */
#include "bindings/bind.h"
#include "mptl/packed.h"

#define PACKER "mptl.Packer"

static mptl_packer *check_packer(lua_State *L) {
  mptl_packer *packer = *(mptl_packer **)luaL_checkudata(L, 1, PACKER);
  if (packer == NULL) luaL_error(L, "packer: already closed");
  return packer;
}

static int packer_new(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  mptl_packer **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  luaL_setmetatable(L, PACKER);
  bind_check(L, mptl_packer_create(box, path));
  return 1;
}

static int packer_add(lua_State *L) {
  static const char *const splits[] = {"train", "test", NULL};
  mptl_packer *packer = check_packer(L);
  mptl_split split = (mptl_split)luaL_checkoption(L, 2, NULL, splits);
  size_t size;
  const char *bytes = luaL_checklstring(L, 5, &size);
  bind_check(L, mptl_packer_add(packer, split, luaL_checkstring(L, 3), luaL_checkstring(L, 4),
                                bytes, size));
  return 0;
}

static int packer_gc(lua_State *L) {
  mptl_packer **box = luaL_checkudata(L, 1, PACKER);
  mptl_packer_destroy(*box);
  *box = NULL;
  return 0;
}

static int packer_finish(lua_State *L) {
  bind_check(L, mptl_packer_finish(check_packer(L)));
  return packer_gc(L);
}

static const luaL_Reg methods[] = {
    {"add", packer_add}, {"finish", packer_finish}, {"close", packer_gc}, {"__close", packer_gc},
    {NULL, NULL},
};

static const luaL_Reg functions[] = {
    {"packer", packer_new},
    {NULL, NULL},
};

void mptl_bind_packer(lua_State *L) {
  bind_new_type(L, PACKER, methods, packer_gc);
  luaL_setfuncs(L, functions, 0);
}
