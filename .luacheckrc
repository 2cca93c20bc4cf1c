std = "lua54"
max_line_length = 130
exclude_files = { "build", "runs", "spec/fixtures" }

files["spec"].std = "+busted"
files["lua/mptl"].globals = { "MPTL_MODELS" } -- set by the host: where the installed model scripts are
