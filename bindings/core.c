/* The Lua module mptl.core: the engine's functions for Lua. lua/mptl is built on it. */
#include "bindings/bind.h"
#include "mptl/isa.h"

__attribute__((visibility("default"))) int luaopen_mptl_core(lua_State *L);

int luaopen_mptl_core(lua_State *L) {
  bind_check(L, mptl_isa_select("auto")); /* an error if this processor lacks what MPTL_ISA names */
  lua_newtable(L);
  mptl_bind_format(L);
  mptl_bind_round(L);
  mptl_bind_text(L);
  mptl_bind_bench_round(L);
  mptl_bind_peaks(L);
  mptl_bind_tensor(L);
  mptl_bind_compare(L);
  mptl_bind_system(L);
  mptl_bind_machine(L);
  mptl_bind_files(L);
  mptl_bind_safetensors(L);
  mptl_bind_process(L);
  mptl_bind_editline(L);
  mptl_bind_graph(L);
  mptl_bind_plan(L);
  mptl_bind_device(L);
  mptl_bind_model(L);
  mptl_bind_program(L);
  mptl_bind_images(L);
  mptl_bind_data(L);
  mptl_bind_survey(L);
  mptl_bind_synthesize(L);
  mptl_bind_packer(L);
  mptl_bind_archive(L);
  return 1;
}
