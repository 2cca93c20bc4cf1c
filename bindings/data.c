/* mptl.Dataset and mptl.Loader: data sets, and their batches, made ahead of training. Images are
 * numbered from 1; classes, epochs and batches from 0: after k batches the next one has number k.
 *
 *   core.dataset_find{path=, classes=10|100, split="train"|"test"} -> directory or nil
 *   core.dataset_cifar{path=, classes=10|100, split=, limit=, part=false}   part: files may be
 * missing core.dataset_synthetic{count=, classes=, side=, seed=, split=, limit=}
 *   core.dataset_encoded(mptl.Images, {side=, resize=, skip_bad=, split=, limit=})
 *   ds:count()  ds:classes()  ds:split()  ds:shape() -> {3, side, side}  ds:label(i)
 *   ds:image(i) -> tensor 3 x side x side of 0 .. 255; an encoded image is scaled as for a test
 *
 *   core.loader(ds, {batch=, shuffle=, augment=, mean={r, g, b}, std={r, g, b}, seed=, threads=,
 *     slots=, drop_last=, device=})
 *   loader:start(epoch [, first_batch])
 *   loader:batches() -> how many an epoch has   loader:position() -> number of the next batch
 *   loader:next() -> number of images in the batch (nil at the end), number of bad images skipped
 *   loader:skipped() -> name of the last bad image, why
 *   loader:images() -> tensor n x side x side x 3, a copy
 *   loader:labels() -> {class, ...}   loader:indices() -> {number, ...}
 */
#include <limits.h>
#include <string.h>

#include "bindings/bind.h"
#include "mptl/data.h"

#define DATASET "mptl.Dataset"
#define LOADER "mptl.Loader"

/* Its user value keeps the data set alive. */
typedef struct loader_box {
  mptl_loader *loader;
  mptl_batch batch;
  int side;
} loader_box;

static const char *const split_names[] = {"train", "test", NULL};

static mptl_dataset *check_dataset(lua_State *L, int index) {
  mptl_dataset *dataset = *(mptl_dataset **)luaL_checkudata(L, index, DATASET);
  if (dataset == NULL) luaL_error(L, "data set: already freed");
  return dataset;
}

mptl_dataset *bind_test_dataset(lua_State *L, int index) {
  return luaL_testudata(L, index, DATASET) != NULL ? check_dataset(L, index) : NULL;
}

static int field_int(lua_State *L, int index, const char *field, lua_Integer def) {
  lua_Integer value = bind_opt_integer(L, index, field, def);
  if (value < INT_MIN || value > INT_MAX)
    luaL_error(L, "%s: %I, must fit in 32 bits", field, value);
  return (int)value;
}

mptl_split bind_field_split(lua_State *L, int index) {
  const char *name = bind_opt_string(L, index, "split", "train");
  for (int i = 0; split_names[i] != NULL; i++)
    if (strcmp(name, split_names[i]) == 0) return (mptl_split)i;
  return (mptl_split)luaL_error(L, "split: %s, accepted are train and test", name);
}

const char *bind_field_path(lua_State *L, int index) {
  const char *path = bind_opt_string(L, index, "path", NULL);
  if (path == NULL) luaL_error(L, "path: missing, must name a directory");
  return path;
}

static mptl_dataset **new_dataset(lua_State *L) {
  mptl_dataset **box = lua_newuserdatauv(L, sizeof *box, 1); /* user value: encoded images */
  *box = NULL;
  luaL_setmetatable(L, DATASET);
  return box;
}

static int dataset_find(lua_State *L) {
  static const char *const fields[] = {"path", "classes", "split", NULL};
  bind_check_fields(L, 1, fields);
  char found[PATH_MAX];
  bind_check(L, mptl_dataset_find_cifar(found, sizeof found, bind_field_path(L, 1),
                                        field_int(L, 1, "classes", 10), bind_field_split(L, 1)));
  if (found[0] == '\0') return 0;
  lua_pushstring(L, found);
  return 1;
}

static int dataset_cifar(lua_State *L) {
  static const char *const fields[] = {"path", "classes", "split", "limit", "part", NULL};
  bind_check_fields(L, 1, fields);
  bind_check(
      L, mptl_dataset_cifar(new_dataset(L), bind_field_path(L, 1), field_int(L, 1, "classes", 10),
                            bind_field_split(L, 1), bind_opt_integer(L, 1, "limit", MPTL_NO_LIMIT),
                            bind_opt_boolean(L, 1, "part", 0)));
  return 1;
}

static int dataset_synthetic(lua_State *L) {
  static const char *const fields[] = {"count", "classes", "side", "seed", "split", "limit", NULL};
  bind_check_fields(L, 1, fields);
  bind_check(
      L, mptl_dataset_synthetic(new_dataset(L), bind_opt_integer(L, 1, "count", 10000),
                                field_int(L, 1, "classes", 10), field_int(L, 1, "side", 32),
                                (uint64_t)bind_opt_integer(L, 1, "seed", 0), bind_field_split(L, 1),
                                bind_opt_integer(L, 1, "limit", MPTL_NO_LIMIT)));
  return 1;
}

static int dataset_encoded(lua_State *L) {
  static const char *const fields[] = {"side", "resize", "skip_bad", "split", "limit", NULL};
  lua_settop(L, 2);
  const mptl_images *images = bind_check_images(L, 1);
  bind_check_fields(L, 2, fields);
  int side = field_int(L, 2, "side", 224);
  mptl_dataset **box = new_dataset(L);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, 1);
  bind_check(L, mptl_dataset_encoded(box, images, bind_field_split(L, 2), side,
                                     field_int(L, 2, "resize", side),
                                     bind_opt_boolean(L, 2, "skip_bad", 0),
                                     bind_opt_integer(L, 2, "limit", MPTL_NO_LIMIT)));
  return 1;
}

static int dataset_count(lua_State *L) {
  lua_pushinteger(L, check_dataset(L, 1)->count);
  return 1;
}

static int dataset_classes(lua_State *L) {
  lua_pushinteger(L, check_dataset(L, 1)->classes);
  return 1;
}

static int dataset_split(lua_State *L) {
  lua_pushstring(L, split_names[check_dataset(L, 1)->split]);
  return 1;
}

static int dataset_shape(lua_State *L) {
  const mptl_dataset *d = check_dataset(L, 1);
  bind_push_integers(L, (int64_t[]){MPTL_IMAGE_CHANNELS, d->side, d->side}, 3);
  return 1;
}

/* The index, from 0, of the image whose number, from 1, is argument 2. */
static size_t check_image(lua_State *L, const mptl_dataset *d) {
  lua_Integer i = luaL_checkinteger(L, 2);
  if (i < 1 || i > d->count)
    luaL_error(L, "data set: image %I, accepted are 1 to %I", i, (lua_Integer)d->count);
  return (size_t)i - 1;
}

static int dataset_label(lua_State *L) {
  const mptl_dataset *d = check_dataset(L, 1);
  lua_pushinteger(L, d->labels[check_image(L, d)]);
  return 1;
}

static int dataset_image(lua_State *L) {
  const mptl_dataset *d = check_dataset(L, 1);
  size_t i = check_image(L, d), n = mptl_image_size(d);
  mptl_tensor *t;
  uint8_t *bytes = lua_newuserdatauv(L, n, 0);
  bind_check(L, mptl_dataset_image(d, (int32_t)i, bytes));
  bind_check(L, mptl_tensor_create(&t, 3, (int64_t[]){MPTL_IMAGE_CHANNELS, d->side, d->side}));
  for (size_t v = 0; v < n; v++) t->data[v] = (float)bytes[v];
  bind_push_tensor(L, t);
  return 1;
}

static int dataset_describe(lua_State *L) {
  const mptl_dataset *d = check_dataset(L, 1);
  lua_pushfstring(L, "dataset(%s, %I images, %d classes)", split_names[d->split],
                  (lua_Integer)d->count, d->classes);
  return 1;
}

static int dataset_gc(lua_State *L) {
  mptl_dataset **box = luaL_checkudata(L, 1, DATASET);
  mptl_dataset_destroy(*box);
  *box = NULL;
  return 0;
}

/* Reads an optional list of one number for each channel; values does not change when the field is
 * nil. */
static void field_channels(lua_State *L, int index, const char *field, float *values) {
  if (lua_isnoneornil(L, index) || lua_getfield(L, index, field) == LUA_TNIL) return;
  if (!lua_istable(L, -1) || luaL_len(L, -1) != MPTL_IMAGE_CHANNELS)
    luaL_error(L, "%s: must be a list of 3 numbers", field);
  for (int c = 0; c < MPTL_IMAGE_CHANNELS; c++) {
    int isnum;
    lua_geti(L, -1, c + 1);
    values[c] = (float)lua_tonumberx(L, -1, &isnum);
    if (!isnum)
      luaL_error(L, "%s: %s, must be a list of 3 numbers", field, luaL_tolstring(L, -1, NULL));
    lua_pop(L, 1);
  }
}

static int loader_new(lua_State *L) {
  static const char *const fields[] = {"batch",   "shuffle", "augment",   "mean",   "std", "seed",
                                       "threads", "slots",   "drop_last", "device", NULL};
  lua_settop(L, 2);
  const mptl_dataset *dataset = check_dataset(L, 1);
  bind_check_fields(L, 2, fields);
  mptl_loader_options o = {.std = {1, 1, 1}};
  o.batch_size = field_int(L, 2, "batch", 128);
  o.threads = field_int(L, 2, "threads", 0);
  o.slots = field_int(L, 2, "slots", 0);
  o.shuffle = bind_opt_boolean(L, 2, "shuffle", 0);
  o.augment = bind_opt_boolean(L, 2, "augment", 0);
  o.drop_last = bind_opt_boolean(L, 2, "drop_last", 0);
  o.seed = (uint64_t)bind_opt_integer(L, 2, "seed", 0);
  o.device = bind_device_field(L, 2);
  field_channels(L, 2, "mean", o.mean);
  field_channels(L, 2, "std", o.std);
  loader_box *box = lua_newuserdatauv(L, sizeof *box, 1);
  *box = (loader_box){.side = dataset->side};
  luaL_setmetatable(L, LOADER);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, 1);
  bind_check(L, mptl_loader_create(&box->loader, dataset, &o));
  return 1;
}

static loader_box *check_loader(lua_State *L, int index) {
  loader_box *box = luaL_checkudata(L, index, LOADER);
  if (box->loader == NULL) luaL_error(L, "loader: already freed");
  return box;
}

const mptl_batch *bind_check_batch(lua_State *L, int index) {
  const mptl_batch *batch = &check_loader(L, index)->batch;
  if (batch->n == 0) luaL_error(L, "loader: no current batch, call loader:next() first");
  return batch;
}

static int loader_start(lua_State *L) {
  loader_box *box = check_loader(L, 1);
  bind_check(L, mptl_loader_start(box->loader, luaL_checkinteger(L, 2), luaL_optinteger(L, 3, 0)));
  box->batch = (mptl_batch){0};
  return 0;
}

static int loader_next(lua_State *L) {
  loader_box *box = check_loader(L, 1);
  bind_check(L, mptl_loader_next(box->loader, &box->batch));
  if (box->batch.n == 0)
    lua_pushnil(L);
  else
    lua_pushinteger(L, box->batch.n);
  lua_pushinteger(L, box->batch.skipped);
  return 2;
}

static int loader_batches(lua_State *L) {
  lua_pushinteger(L, mptl_loader_batches(check_loader(L, 1)->loader));
  return 1;
}

static int loader_position(lua_State *L) {
  lua_pushinteger(L, mptl_loader_position(check_loader(L, 1)->loader));
  return 1;
}

static int loader_skipped(lua_State *L) {
  lua_pushstring(L, mptl_loader_skipped(check_loader(L, 1)->loader));
  return 1;
}

static int loader_images(lua_State *L) {
  const loader_box *box = check_loader(L, 1);
  const mptl_batch *batch = bind_check_batch(L, 1);
  mptl_tensor *t;
  bind_check(L, mptl_tensor_create(
                    &t, 4, (int64_t[]){batch->n, box->side, box->side, MPTL_IMAGE_CHANNELS}));
  memcpy(t->data, batch->images, (size_t)batch->n * batch->image_size * sizeof *t->data);
  bind_push_tensor(L, t);
  return 1;
}

static int push_list(lua_State *L, const int32_t *values, int n, int32_t base) {
  lua_createtable(L, n, 0);
  for (int i = 0; i < n; i++) {
    lua_pushinteger(L, (lua_Integer)values[i] + base);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

static int loader_labels(lua_State *L) {
  const mptl_batch *batch = bind_check_batch(L, 1);
  return push_list(L, batch->labels, batch->n, 0);
}

static int loader_indices(lua_State *L) {
  const mptl_batch *batch = bind_check_batch(L, 1);
  return push_list(L, batch->indices, batch->n, 1);
}

static int loader_gc(lua_State *L) {
  loader_box *box = luaL_checkudata(L, 1, LOADER);
  mptl_loader_destroy(box->loader);
  *box = (loader_box){0};
  return 0;
}

static const luaL_Reg dataset_methods[] = {
    {"count", dataset_count},         {"classes", dataset_classes},
    {"split", dataset_split},         {"shape", dataset_shape},
    {"label", dataset_label},         {"image", dataset_image},
    {"__tostring", dataset_describe}, {NULL, NULL},
};

static const luaL_Reg loader_methods[] = {
    {"start", loader_start},       {"next", loader_next},       {"batches", loader_batches},
    {"position", loader_position}, {"skipped", loader_skipped}, {"images", loader_images},
    {"labels", loader_labels},     {"indices", loader_indices}, {NULL, NULL},
};

static const luaL_Reg functions[] = {
    {"dataset_find", dataset_find},
    {"dataset_cifar", dataset_cifar},
    {"dataset_synthetic", dataset_synthetic},
    {"dataset_encoded", dataset_encoded},
    {"loader", loader_new},
    {NULL, NULL},
};

void mptl_bind_data(lua_State *L) {
  bind_new_type(L, DATASET, dataset_methods, dataset_gc);
  bind_new_type(L, LOADER, loader_methods, loader_gc);
  luaL_setfuncs(L, functions, 0);
}
