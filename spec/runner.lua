-- Runs busted in this very interpreter, with this script's arguments. (The command `busted` starts whatever `lua` is first.)
require "busted.runner" { standalone = false }
