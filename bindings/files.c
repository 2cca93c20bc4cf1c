/* Files that users name, locks, checksums.
 *
 *   core.open(path) -> a Lua file for reading; nil and "PATH: why" after a failure. Opens only
 * regular files: reading a pipe may never end core.lock(path) -> a Lua file, created if it does not
 * exist, which this process has locked until it closes it; nil if another process has locked it; an
 * error if it cannot be opened or locked. MPTL_LOCKS=none works without locks, for file systems
 * without them. Remove a locked file only if a process that creates and locks it again sees that
 * the work is finished core.is_locked(path) -> whether another process has locked it; the file need
 * not exist core.crc32c(string | Tensor) -> its CRC-32C core.crc32c_in(file, path, offset, size) ->
 * the CRC-32C of bytes in a Lua file; path: its name in messages core.read_tensor(file, path,
 * offset, tensor)   fills the tensor from the file's bytes at offset
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bindings/bind.h"
#include "core/crc32c.h"
#include "core/lock.h"
#include "mptl/file.h"

int bind_close_stream(lua_State *L) {
  luaL_Stream *file = luaL_checkudata(L, 1, LUA_FILEHANDLE);
  return luaL_fileresult(L, fclose(file->f) == 0, NULL);
}

int bind_check_file(lua_State *L, int arg) {
  luaL_Stream *file = luaL_checkudata(L, arg, LUA_FILEHANDLE);
  luaL_argcheck(L, file->closef != NULL, arg, "the file is closed");
  return fileno(file->f);
}

luaL_Stream *bind_push_stream(lua_State *L) {
  luaL_Stream *file = lua_newuserdatauv(L, sizeof *file, 0);
  *file = (luaL_Stream){0};
  luaL_setmetatable(L, LUA_FILEHANDLE);
  return file;
}

/* Makes it the file that is open as fd; when there is no memory, closes fd and returns false with
 * errno. */
static bool adopt(luaL_Stream *file, int fd, const char *mode) {
  file->f = fdopen(fd, mode);
  if (file->f == NULL) {
    close(fd);
    errno = ENOMEM;
    return false;
  }
  file->closef = bind_close_stream;
  return true;
}

static int files_open(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  luaL_Stream *file = bind_push_stream(L);
  int fd;
  if (mptl_file_open(&fd, NULL, path) != MPTL_OK) {
    lua_pushnil(L);
    lua_pushfstring(L, "%s: %s", path, mptl_error());
    return 2;
  }
  if (!adopt(file, fd, "rb")) return luaL_fileresult(L, 0, path);
  return 1;
}

static bool is_held(int error) { return error == EAGAIN || error == EACCES; }

static int files_lock(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  luaL_Stream *file = bind_push_stream(L);
  int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
  if (fd < 0 || !adopt(file, fd, "r+"))
    bind_check(L, mptl_fail(MPTL_EIO, "cannot write %s: %s", path, strerror(errno)));
  struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  if (fcntl(fd, F_SETLK, &whole) == 0) return 1;
  int error = errno;
  if (is_held(error)) return 0; /* the garbage collector closes the file */
  if (!mptl_locks_optional()) bind_check(L, mptl_fail_lock(path, error));
  return 1;
}

static int files_is_locked(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  int fd = open(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  bool held = false;
  mptl_status status = MPTL_OK;
  if (fd >= 0) {
    if (fcntl(fd, F_GETLK, &whole) == 0)
      held = whole.l_type != F_UNLCK;
    else if (!mptl_locks_optional())
      status = mptl_fail_lock(path, errno);
    close(fd);
  }
  bind_check(L, status);
  lua_pushboolean(L, held);
  return 1;
}

static int files_crc32c(lua_State *L) {
  size_t size;
  const void *bytes;
  if (lua_type(L, 1) == LUA_TSTRING) {
    bytes = lua_tolstring(L, 1, &size);
  } else {
    const mptl_tensor *t = bind_host_tensor(L, 1);
    bytes = t->data;
    size = mptl_tensor_numel(t) * sizeof(float);
  }
  lua_pushinteger(L, mptl_crc32c(0, bytes, size));
  return 1;
}

static int files_crc32c_in(lua_State *L) {
  const int fd = bind_check_file(L, 1);
  const char *path = luaL_checkstring(L, 2);
  lua_Integer offset = luaL_checkinteger(L, 3), size = luaL_checkinteger(L, 4);
  luaL_argcheck(L, offset >= 0, 3, "the offset is negative");
  luaL_argcheck(L, size >= 0, 4, "the size is negative");
  uint32_t crc;
  bind_check(L, mptl_file_checksum(&crc, fd, path, (uint64_t)offset, (uint64_t)size));
  lua_pushinteger(L, crc);
  return 1;
}

static int files_read_tensor(lua_State *L) {
  const int fd = bind_check_file(L, 1);
  const char *path = luaL_checkstring(L, 2);
  lua_Integer offset = luaL_checkinteger(L, 3);
  mptl_tensor *t = bind_check_any_tensor(L, 4), *host;
  luaL_argcheck(L, offset >= 0, 3, "the offset is negative");
  lua_settop(L, 4);
  lua_pushvalue(L, 4);
  host = bind_host_tensor(L, 5);
  bind_check(L, mptl_file_read_from(fd, path, (uint64_t)offset, host->data,
                                    mptl_tensor_numel(t) * sizeof(float)));
  if (host != t) bind_check(L, mptl_tensor_write(t, 0, mptl_tensor_numel(t), host->data));
  lua_settop(L, 4);
  return 1;
}

static const luaL_Reg functions[] = {
    {"open", files_open},
    {"lock", files_lock},
    {"is_locked", files_is_locked},
    {"crc32c", files_crc32c},
    {"crc32c_in", files_crc32c_in},
    {"read_tensor", files_read_tensor},
    {NULL, NULL},
};

void mptl_bind_files(lua_State *L) { luaL_setfuncs(L, functions, 0); }
