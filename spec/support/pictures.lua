-- Writes folders of small JPEG images for specs.
local core = require "mptl.core"
local files = require "data_files"

local M = {}

--- A JPEG image.
-- @param width, height in pixels
-- @param pixel function (x, y), from 0, that returns red, green and blue
-- @return the bytes of the file
function M.jpeg(width, height, pixel)
  local values = {}
  for y = 0, height - 1 do
    for x = 0, width - 1 do
      for _, v in ipairs { pixel(x, y) } do values[#values + 1] = v end
    end
  end
  return core.jpeg_encode(core.tensor({ height, width, 3 }, values), 95)
end

--- Writes DIR/train and DIR/val with images of many sizes, whose colour shows the class.
-- @param dir the folder
-- @param counts {train = {CLASS = number of images, ...}, val = {...}}
function M.folder(dir, counts)
  for split, classes in pairs(counts) do
    local names = {}
    for name in pairs(classes) do names[#names + 1] = name end
    table.sort(names)
    for c, name in ipairs(names) do
      for i = 1, classes[name] do
        local function pixel(x, y) return 60 * c, (x * 5 + i * 40) % 200, (y * 7 + i * 20) % 200 end
        files.write(("%s/%s/%s/%02d.JPEG"):format(dir, split, name, i), M.jpeg(20 + 11 * i % 40, 70 - 13 * i % 50, pixel))
      end
    end
  end
end

return M
