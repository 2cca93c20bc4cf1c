-- Runs busted in this very interpreter, with this script's arguments. (The command `busted` starts whatever `lua` is first.)
-- With MPTL_SPEC_DEVICE set, models are on that device where specs name none; where it cannot be had, the tests are skipped (77).
if os.getenv "MPTL_SPEC_DEVICE" then require "support.on_device"(os.getenv "MPTL_SPEC_DEVICE") end
require "busted.runner" { standalone = false }
