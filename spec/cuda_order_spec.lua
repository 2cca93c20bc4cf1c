-- The files between the CUDA backend and cuDNN have an order (docs/architecture.md, Devices): each includes lower ones only.
local runs = require "support.runs"

local folder = os.getenv "MPTL_ROOT" .. "/engine/backend/cuda/"
local order = {
  "dnn_descriptor", "dnn_key", "dnn_device", "dnn_store", "dnn_graph", "dnn_plan", "dnn_compiler", "dnn_check", "dnn_search",
  "dnn_cache", "dnn", "dnn_conv", "dnn_ahead", "products",
}
local rank = {}
for i, name in ipairs(order) do rank[name] = i end

-- Names of the files of the order that a text includes.
local function included(text)
  local names = {}
  for name in text:gmatch '\n#include "backend/cuda/([%w_]+)%.h"' do
    if rank[name] then names[#names + 1] = name end
  end
  return names
end

describe("files of cuDNN", function()
  it("are all in the order", function()
    local pipe <close> = assert(io.popen("ls " .. folder))
    for file in pipe:lines() do
      local name = file:match "^(dnn[%w_]*)%.[ch]$"
      assert(not name or rank[name], file)
    end
  end)

  it("include lower ones only", function()
    for i, name in ipairs(order) do
      for _, ending in ipairs { ".h", ".c" } do
        for _, other in ipairs(included("\n" .. runs.slurp(folder .. name .. ending))) do
          assert(rank[other] < i or (other == name and ending == ".c"), ("%s%s includes %s.h"):format(name, ending, other))
        end
      end
    end
  end)
end)
