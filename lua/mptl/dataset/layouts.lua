--- Layouts of data sets that `mptl data synthesize` can write. Each is a function (path, options)
-- that returns a writer with the methods
--   add(split, label, number): makes the split's image of that number, from 0, and writes it;
--   finish(): completes the data set.
-- options: classes, seed, quality, size = function (split, number) -> width, height.
local core = require "mptl.core"
local folder = require "mptl.folder"

local M = {}

-- CIFAR's binary layout. An entry (a record, in CIFAR's words) is label bytes and three planes of
-- an image; a file has a fixed number of entries.
local function cifar(files, entries_per_file, label_bytes, names_file)
  return function(path, options)
    local writer, entries, n_files = {}, { train = {}, test = {} }, { train = 0, test = 0 }
    folder.make(path)
    local function flush(split)
      if #entries[split] == 0 then return end
      n_files[split] = n_files[split] + 1
      core.write_file(("%s/%s"):format(path, files[split]:format(n_files[split])), entries[split])
      entries[split] = {}
    end
    function writer.add(split, label, number)
      local list = entries[split]
      list[#list + 1] = label_bytes(label) .. core.synthetic_planes {
        index = number, classes = options.classes, seed = options.seed, split = split,
      }
      if #list == entries_per_file then flush(split) end
    end
    function writer.finish()
      flush "train"
      flush "test"
      local names = {}
      for label = 1, options.classes do names[label] = M.class_name(label - 1, options.classes) .. "\n" end
      core.write_file(("%s/%s"):format(path, names_file), names)
    end
    return writer
  end
end

local function jpeg(options, split, number)
  local width, height = options.size(split, number)
  return core.synthetic_jpeg {
    index = number, classes = options.classes, width = width, height = height, quality = options.quality, seed = options.seed,
    split = split,
  }
end

local function file_name(number)
  return ("%07d.jpg"):format(number)
end

--- The name of a class, such that names sort as labels do.
-- @param label the label, from 0
-- @param classes number of classes
-- @return a name such as "class07"
function M.class_name(label, classes)
  return ("class%0" .. #tostring(classes - 1) .. "d"):format(label)
end

M.by_name = {
  cifar10 = cifar({ train = "data_batch_%d.bin", test = "test_batch.bin" }, 10000, string.char, "batches.meta.txt"),
  -- one file for each split; the coarse label is a fifth of the fine one
  cifar100 = cifar({ train = "train.bin", test = "test.bin" }, math.huge, function(label)
    return string.char(label // 5, label)
  end, "fine_label_names.txt"),
}

-- The name of the data set's folder inside a folder of data sets; nil for layouts without such a
-- name.
M.folders = { cifar10 = "cifar-10-batches-bin", cifar100 = "cifar-100-binary" }

function M.by_name.folder(path, options)
  local writer, made = {}, {}
  function writer.add(split, label, number)
    local class = ("%s/%s/%s"):format(path, split == "train" and "train" or "val", M.class_name(label, options.classes))
    if not made[class] then folder.make(class) end
    made[class] = true
    -- Plain appending is safe: this process has just made the folder.
    local file = core.appender(("%s/%s"):format(class, file_name(number)))
    file:append(jpeg(options, split, number))
    file:close()
  end
  function writer.finish() end
  return writer
end

function M.by_name.packed(path, options)
  local writer, packer = {}, core.packer(path)
  function writer.add(split, label, number)
    packer:add(split, M.class_name(label, options.classes), file_name(number), jpeg(options, split, number))
  end
  function writer.finish() packer:finish() end
  return writer
end

--- The names of layouts.
M.names = { "cifar10", "cifar100", "folder", "packed" }

return M
