/* mptl.Archive: reads the entries of a tar or zip file one after the other, with libarchive,
 * without unpacking the file.
 *
 *   core.archive(path), core.archive_of(bytes)   zip, or tar, also compressed by gzip, bzip2, xz,
 * zstd archive:next() -> name, kind   "file", "directory" or "other" (links, devices); nil at the
 * end archive:read(limit) -> bytes   of the entry that next returned; an error beyond limit bytes
 *   archive:save(path, limit)      writes the same bytes to a file, which it replaces
 *   archive:done() -> bytes of the file read so far, for showing progress
 *   archive:close()
 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bindings/bind.h"
#include "mptl/file.h"

#define ARCHIVE "mptl.Archive"
#define BLOCK_SIZE 65536 /* bytes in a read */

/* User values: the name for messages; the bytes of an archive in memory. */
typedef struct archive_box {
  struct archive *archive;
  struct archive_entry
      *entry; /* the current one, which belongs to archive; NULL when there is none */
  int fd;     /* the open file, or -1 */
} archive_box;

static struct archive *check_archive(lua_State *L, archive_box **box) {
  *box = luaL_checkudata(L, 1, ARCHIVE);
  if ((*box)->archive == NULL) luaL_error(L, "archive: already closed");
  return (*box)->archive;
}

/* Raises an error: the archive's name and the first line of libarchive's message. */
static int fail(lua_State *L, struct archive *archive) {
  const char *text = archive_error_string(archive);
  if (text == NULL) text = "cannot be read";
  lua_getiuservalue(L, 1, 1);
  lua_pushlstring(L, text, strcspn(text, "\n"));
  lua_pushfstring(L, "%s: %s", lua_tostring(L, -2), lua_tostring(L, -1));
  return lua_error(L);
}

/* Pushes an archive that is not open yet. */
static archive_box *new_archive(lua_State *L, const char *name) {
  archive_box *box = lua_newuserdatauv(L, sizeof *box, 2);
  *box = (archive_box){.fd = -1};
  luaL_setmetatable(L, ARCHIVE);
  lua_pushstring(L, name);
  lua_setiuservalue(L, -2, 1);
  box->archive = archive_read_new();
  if (box->archive == NULL) luaL_error(L, "%s: no memory", name);
  archive_read_support_format_tar(box->archive);
  archive_read_support_format_zip(box->archive);
  archive_read_support_filter_gzip(box->archive);
  archive_read_support_filter_bzip2(box->archive);
  archive_read_support_filter_xz(box->archive);
  archive_read_support_filter_zstd(box->archive);
  return box;
}

static int archive_open(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  archive_box *box = new_archive(L, path);
  lua_replace(L, 1);
  mptl_status opened = mptl_file_open(&box->fd, NULL, path);
  if (opened != MPTL_OK) bind_check(L, mptl_fail_in(opened, "%s", path));
  if (archive_read_open_fd(box->archive, box->fd, BLOCK_SIZE) != ARCHIVE_OK)
    return fail(L, box->archive);
  lua_settop(L, 1);
  return 1;
}

static int archive_open_bytes(lua_State *L) {
  size_t size;
  const char *bytes = luaL_checklstring(L, 1, &size);
  archive_box *box = new_archive(L, luaL_optstring(L, 2, "archive"));
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, 2); /* keeps the bytes */
  lua_replace(L, 1);
  if (archive_read_open_memory(box->archive, bytes, size) != ARCHIVE_OK)
    return fail(L, box->archive);
  lua_settop(L, 1);
  return 1;
}

/* The entry's name. Names that tar has as UTF-8 do not depend on the locale; others are its plain
 * bytes. */
static const char *entry_name(struct archive_entry *entry) {
  const char *name = archive_entry_pathname_utf8(entry);
  return name != NULL ? name : archive_entry_pathname(entry);
}

static int archive_next(lua_State *L) {
  archive_box *box;
  struct archive *archive = check_archive(L, &box);
  box->entry = NULL;
  int status = archive_read_next_header(archive, &box->entry);
  if (status == ARCHIVE_EOF) return 0;
  if (status != ARCHIVE_OK && status != ARCHIVE_WARN) {
    box->entry = NULL;
    return fail(L, archive);
  }
  const char *name = entry_name(box->entry);
  int type = archive_entry_hardlink(box->entry) != NULL ? 0 : archive_entry_filetype(box->entry);
  lua_pushstring(L, name != NULL ? name : "?");
  lua_pushstring(L, type == AE_IFREG ? "file" : type == AE_IFDIR ? "directory" : "other");
  return 2;
}

static void fail_write(lua_State *L, const char *path) {
  bind_check(L, mptl_fail(MPTL_EIO, "cannot write %s: %s", path, strerror(errno)));
}

/* The archive, which must have a current entry. */
static struct archive *check_entry(lua_State *L) {
  archive_box *box;
  struct archive *archive = check_archive(L, &box);
  if (box->entry == NULL) luaL_error(L, "archive: no entry to read, call next first");
  return archive;
}

/* Reads up to BLOCK_SIZE bytes of the entry into block and adds their number to *total; 0 at the
 * end. */
static size_t read_block(lua_State *L, struct archive *archive, char *block, lua_Integer *total,
                         lua_Integer limit) {
  la_ssize_t n = archive_read_data(archive, block, BLOCK_SIZE);
  if (n < 0) fail(L, archive);
  *total += n;
  if (*total > limit) {
    archive_set_error(archive, ARCHIVE_FAILED, "an entry of more than %lld bytes",
                      (long long)limit);
    fail(L, archive);
  }
  return (size_t)n;
}

static int archive_read(lua_State *L) {
  struct archive *archive = check_entry(L);
  lua_Integer limit = luaL_checkinteger(L, 2), total = 0;
  size_t n;
  luaL_Buffer buffer;
  luaL_buffinit(L, &buffer);
  while ((n = read_block(L, archive, luaL_prepbuffsize(&buffer, BLOCK_SIZE), &total, limit)) > 0)
    luaL_addsize(&buffer, n);
  luaL_pushresult(&buffer);
  return 1;
}

static int archive_save(lua_State *L) {
  struct archive *archive = check_entry(L);
  const char *path = luaL_checkstring(L, 2);
  lua_Integer limit = luaL_checkinteger(L, 3), total = 0;
  size_t n;
  char block[BLOCK_SIZE];
  luaL_Stream *file = bind_push_stream(L); /* Lua closes it after an error */
  file->f = fopen(path, "wbe");
  if (file->f == NULL) fail_write(L, path);
  file->closef = bind_close_stream;
  while ((n = read_block(L, archive, block, &total, limit)) > 0)
    if (fwrite(block, 1, n, file->f) != n) fail_write(L, path);
  if (fflush(file->f) != 0 || fsync(fileno(file->f)) != 0) fail_write(L, path);
  file->closef = NULL; /* Lua must not close it again */
  if (fclose(file->f) != 0) fail_write(L, path);
  return 0;
}

static int archive_done(lua_State *L) {
  archive_box *box;
  lua_pushinteger(L, archive_filter_bytes(check_archive(L, &box), -1));
  return 1;
}

static int archive_gc(lua_State *L) {
  archive_box *box = luaL_checkudata(L, 1, ARCHIVE);
  if (box->archive != NULL) archive_read_free(box->archive);
  if (box->fd >= 0) close(box->fd);
  *box = (archive_box){.fd = -1};
  return 0;
}

static const luaL_Reg methods[] = {
    {"next", archive_next}, {"read", archive_read},  {"save", archive_save}, {"done", archive_done},
    {"close", archive_gc},  {"__close", archive_gc}, {NULL, NULL},
};

static const luaL_Reg functions[] = {
    {"archive", archive_open},
    {"archive_of", archive_open_bytes},
    {NULL, NULL},
};

void mptl_bind_archive(lua_State *L) {
  bind_new_type(L, ARCHIVE, methods, archive_gc);
  luaL_setfuncs(L, functions, 0);
}
