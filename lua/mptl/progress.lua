--- What a run prints: a line for each epoch and, on a terminal, a progress bar while an epoch runs.
local core = require "mptl.core"

local M = {}

local Progress = {}
Progress.__index = Progress

local between = 0.1 -- least seconds from one drawing of the bar to the next

--- A progress display.
-- @param options {epochs =, bar = whether to draw the bar, width = columns, out = file, lines =
--   whether to print lines}
-- @return the display
function M.create(options)
  return setmetatable({
    epochs = options.epochs, bar = options.bar, width = options.width or 80, out = options.out or io.stdout,
    lines = options.lines, drawn = 0, shown = false,
  }, Progress)
end

--- Writes to the standard output at once. Ignores failures (the terminal was closed, the disk is
-- full): the run continues, since its results are in files.
-- @param ... text
function M.print(...)
  if io.stdout:write(...) then io.stdout:flush() end
end

--- Seconds as "1:02:03" or "2:03".
-- @param seconds a number
-- @return text
function M.duration(seconds)
  local s = math.floor(seconds + 0.5)
  if s >= 3600 then return ("%d:%02d:%02d"):format(s // 3600, s // 60 % 60, s % 60) end
  return ("%d:%02d"):format(s // 60, s % 60)
end

--- The bar as text, shorter than the width.
-- @param s {epoch =, step =, steps =, loss =, acc =, images_per_s =, eta = seconds, loss_scale =}
-- @return text
function Progress:text(s)
  local head = ("epoch %d/%d "):format(s.epoch, self.epochs)
  local tail = (" %d/%d  loss %.4f  acc %.2f%%  %.0f img/s  ETA %s"):format(s.step, s.steps, s.loss, s.acc, s.images_per_s,
    M.duration(s.eta))
  if s.loss_scale ~= 1 then tail = ("%s  scale 2^%g"):format(tail, math.floor(math.log(s.loss_scale, 2) * 10 + 0.5) / 10) end
  local room = math.min(self.width - 1 - #head - #tail - 2, 30)
  if room >= 4 then
    local full = room * s.step // s.steps
    head = ("%s[%s%s]"):format(head, ("#"):rep(full), ("."):rep(room - full))
  end
  return (head .. tail):sub(1, self.width - 1)
end

--- Draws the bar, but not too often.
-- @param s as in Progress:text
function Progress:step(s)
  if not self.bar then return end
  local now = core.time()
  if now - self.drawn < between and s.step < s.steps then return end
  self.drawn, self.shown = now, true
  self.out:write("\r\27[K", self:text(s))
  self.out:flush()
end

--- Shows a text in place of the bar, such as "testing".
-- @param text the text
function Progress:note(text)
  if not self.bar then return end
  self.shown = true
  self.out:write("\r\27[K", text:sub(1, self.width - 1))
  self.out:flush()
end

--- Shows a text in place of the bar, but not too often.
-- @param make function that returns the text
function Progress:note_seldom(make)
  local now = self.bar and core.time()
  if not now or now - self.drawn < between then return end
  self.drawn = now
  self:note(make())
end

--- Removes the bar.
function Progress:clear()
  if self.shown then self.out:write("\r\27[K") end
  self.shown = false
end

--- Removes the bar and prints a line.
-- @param format as in string.format
-- @param ... its arguments
function Progress:line(format, ...)
  if not self.lines then return end
  self:clear()
  self.out:write(format:format(...), "\n")
  self.out:flush()
end

--- Prints the line of an epoch.
-- @param m its metrics
function Progress:epoch(m)
  local digits = #tostring(self.epochs)
  local extra = ""
  if m.skipped_steps > 0 then extra = extra .. ("  skipped %d"):format(m.skipped_steps) end
  if m.promotions > 0 then extra = extra .. ("  promoted %d"):format(m.promotions) end
  self:line("epoch %" .. digits .. "d/%d  lr %.4g  train %.4f %.2f%%  test %.4f %.2f%% (fp32 %.2f%%)%s  %.0f img/s  %.1f s",
    m.epoch, self.epochs, m.lr, m.train_loss, m.train_acc, m.test_loss, m.test_acc, m.test_acc_fp32, extra,
    m.images_per_s, m.seconds)
end

return M
