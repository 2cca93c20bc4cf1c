-- A network of a thousand operators, to time the planner:
--   time mptl plan bench/thousand_operators.lua
local nn = require("mptl").nn

return {
  model = function()
    local layers = {}
    for _ = 1, 333 do
      layers[#layers + 1] = nn.Conv2d { #layers == 0 and 3 or 8, 8, kernel = 3, padding = 1, bias = false }
      layers[#layers + 1] = nn.BatchNorm2d(8)
      layers[#layers + 1] = nn.ReLU()
    end
    layers[#layers + 1] = nn.AvgPool2d(32)
    layers[#layers + 1] = nn.Flatten()
    layers[#layers + 1] = nn.Linear { 8, 10 }
    return nn.Sequential(layers)
  end,
}
