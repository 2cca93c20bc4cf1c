/* What the binding files share (bind.c). There is a file for each userdata type, with a function
 * mptl_bind_X(L) that adds its functions to the table of mptl.core on top of the stack. Engine
 * statuses become Lua errors in one place, bind_check.
 */
#ifndef MPTL_BIND_H
#define MPTL_BIND_H

#include <lauxlib.h>
#include <lua.h>

#include "mptl/data.h"
#include "mptl/device.h"
#include "mptl/format.h"
#include "mptl/graph.h"
#include "mptl/plan.h"
#include "mptl/program.h"
#include "mptl/status.h"
#include "mptl/tensor.h"

/* Raises mptl_error() as a Lua error (a string without position) unless status is MPTL_OK. */
void bind_check(lua_State *L, mptl_status status);

/* Optional fields of the options table at index, which may be none or nil: def if the field is
 * nil. */
lua_Integer bind_opt_integer(lua_State *L, int index, const char *field, lua_Integer def);
lua_Number bind_opt_number(lua_State *L, int index, const char *field, lua_Number def);
int bind_opt_boolean(lua_State *L, int index, const char *field, int def);
/* The table owns the string. */
const char *bind_opt_string(lua_State *L, int index, const char *field, const char *def);

/* Raises an error if a field of the options table is not in names (NULL-terminated). */
void bind_check_fields(lua_State *L, int index, const char *const *names);

/* A function of the engine that returns names by index from 0 on, NULL after the last. push pushes
 * the names as a list; check returns the index of a name, or raises an error that lists all
 * names. */
typedef const char *bind_names(size_t index);
void bind_push_names(lua_State *L, bind_names *names);
size_t bind_check_name(lua_State *L, const char *what, const char *name, bind_names *names);

/* Set fields of the table on top of the stack. */
void bind_set_integer(lua_State *L, const char *field, lua_Integer value);
void bind_set_number(lua_State *L, const char *field, lua_Number value);
void bind_set_boolean(lua_State *L, const char *field, int value);
void bind_set_string(lua_State *L, const char *field, const char *value);

/* Push a list of integers, or of numbers. */
void bind_push_integers(lua_State *L, const int64_t *values, int n);
void bind_push_numbers(lua_State *L, const float *values, size_t n);

/* Makes the metatable of a userdata type, with its methods (methods named __X go into the metatable
 * itself) and its finaliser, which must accept an object that is not completely made. */
void bind_new_type(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction gc);

/* A tensor userdata (metatable "mptl.Tensor"). push takes over one reference. check accepts a
 * tensor whose data the host can access, and raises an error for others; check_any accepts tensors
 * in any memory; host replaces a tensor in a device's memory, at index, by a copy in the host's. */
void bind_push_tensor(lua_State *L, mptl_tensor *tensor);
mptl_tensor *bind_check_tensor(lua_State *L, int index);
mptl_tensor *bind_check_any_tensor(lua_State *L, int index);
mptl_tensor *bind_host_tensor(lua_State *L, int index);

/* Returns the state's device of that name. Opens it at first use; an error says what is missing.
 * The state keeps devices open, except the CPU after core.set_threads: retain a device that is used
 * longer than one call. */
mptl_device *bind_device(lua_State *L, const char *name); /* bindings/device.c */

/* The device that the string at index names; without a string, the CPU. */
mptl_device *bind_opt_device(lua_State *L, int index);

/* The device that the field "device" of the options table at index names; the CPU without it. */
mptl_device *bind_device_field(lua_State *L, int index);

/* The number of threads with which the state opens the CPU. */
int bind_threads(lua_State *L);

/* The model at index. */
mptl_model *bind_check_model(lua_State *L, int index); /* bindings/model.c */

/* The optimizer that the field "optimizer" of the options table at index names; SGD without it. */
const mptl_optimizer *bind_optimizer_field(lua_State *L, int index);

/* Reads an update from the table at index, which may also have the field step. */
mptl_update bind_read_update(lua_State *L, int index, const mptl_optimizer *optimizer);

/* The setting of that name, as of the option --compute. */
mptl_compute_setting bind_check_compute(lua_State *L, const char *name);

/* The text put before /proc and /sys: "" except in specs. */
const char *bind_system_root(void); /* bindings/machine.c */

/* A format named by the string at index, as mptl_format_parse takes it. */
mptl_format bind_check_format(lua_State *L, int index); /* bindings/format.c */

/* The graph or assignment at index; an error for anything else. */
mptl_graph *bind_check_graph(lua_State *L, int index);
mptl_assignment *bind_check_assignment(lua_State *L, int index);

/* Encoded images (metatable BIND_IMAGES): new pushes an empty userdata and returns where its images
 * go; check returns the images at index. */
#define BIND_IMAGES "mptl.Images"
mptl_images **bind_new_images(lua_State *L); /* bindings/images.c */
mptl_images *bind_check_images(lua_State *L, int index);

/* The data set at index; NULL for anything else. */
mptl_dataset *bind_test_dataset(lua_State *L, int index); /* bindings/data.c */

/* The fields path (required) and split (default "train") of the options table at index. */
const char *bind_field_path(lua_State *L, int index); /* bindings/data.c */
mptl_split bind_field_split(lua_State *L, int index);

/* The current batch of the loader (metatable "mptl.Loader") at index; an error if it has none. It
 * is valid until the loader's next call of next or start. */
const mptl_batch *bind_check_batch(lua_State *L, int index); /* bindings/data.c */

void mptl_bind_format(lua_State *L);
void mptl_bind_round(lua_State *L);
void mptl_bind_text(lua_State *L);
void mptl_bind_bench_round(lua_State *L);
void mptl_bind_peaks(lua_State *L);
void mptl_bind_tensor(lua_State *L);
void mptl_bind_graph(lua_State *L);
void mptl_bind_plan(lua_State *L);
void mptl_bind_device(lua_State *L);
void mptl_bind_model(lua_State *L);
void mptl_bind_program(lua_State *L);
void mptl_bind_images(lua_State *L);
void mptl_bind_data(lua_State *L);
void mptl_bind_survey(lua_State *L);
void mptl_bind_synthesize(lua_State *L);
void mptl_bind_packer(lua_State *L);
void mptl_bind_archive(lua_State *L);
void mptl_bind_compare(lua_State *L);
void mptl_bind_system(lua_State *L);
void mptl_bind_machine(lua_State *L);
void mptl_bind_files(lua_State *L);
void mptl_bind_safetensors(lua_State *L);
void mptl_bind_process(lua_State *L);
void mptl_bind_editline(lua_State *L);

/* Files of Lua's io library. check returns the descriptor of an open one. push pushes one that is
 * not open yet, so that no error can leave a file open; whoever opens it sets f, and closef to
 * bind_close_stream. */
int bind_check_file(lua_State *L, int arg); /* bindings/files.c */
luaL_Stream *bind_push_stream(lua_State *L);
int bind_close_stream(lua_State *L);

#endif
