std = "lua54"
max_line_length = 130
exclude_files = { "build", "runs", "spec/fixtures" }

ignore = { "581" } -- not (x <= y) is how a NaN is caught

files["spec"].std = "+busted"
files["lua/mptl"].globals = { "MPTL_MODELS" } -- set by the host: where the installed model scripts are
