-- Runs busted in this interpreter, with this script's arguments. (The command `busted` starts the first `lua` of the path.)
-- MPTL_SPEC_DEVICE names the default device of models; if it is not available, the tests are skipped (exit status 77).
if os.getenv "MPTL_SPEC_DEVICE" then require "support.on_device"(os.getenv "MPTL_SPEC_DEVICE") end
require "busted.runner" { standalone = false }
