--- Data sets that can be downloaded: their origins, download and unpacking. Uses the programs curl,
-- md5sum and sha256sum.
local core = require "mptl.core"
local folder = require "mptl.folder"
local lfs = require "lfs"

local M = {}

--- Origins of the data sets: each is an archive with all files in one folder. md5 is the sum on the
-- data set's web page. sha256, which cannot be forged, is the sum of the archive with that md5.
-- size: of the archive in bytes, approximately. files: what the folder must contain.
M.origins = {
  cifar10 = {
    url = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", md5 = "c32a1d4ab5d03f1284b67883e8d87530", size = 170052171,
    sha256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    folder = "cifar-10-batches-bin",
    files = { "data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin",
      "test_batch.bin" },
  },
  cifar100 = {
    url = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz", md5 = "03b5dce01913d631647c71ecec9e9cb8", size = 168513733,
    sha256 = "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    folder = "cifar-100-binary", files = { "train.bin", "test.bin" },
  },
}

local largest = 1 << 30 -- most bytes of a file in an archive

local function fail(...)
  error(string.format(...), 0)
end

local function has_files(origin, path)
  for _, name in ipairs(origin.files) do
    if lfs.attributes(path .. "/" .. name, "mode") ~= "file" then return false end
  end
  return true
end

--- Where a data set is, if it has been fetched.
-- @param origin a row of M.origins
-- @param dir the folder of data sets
-- @return the data set's folder, or nil
function M.present(origin, dir)
  local path = dir .. "/" .. origin.folder
  return has_files(origin, path) and path or nil
end

-- Runs a program and calls `wait` while it runs. Returns its exit status and the last line that it
-- printed; nil when interrupted.
local function run(words, log, wait)
  os.remove(log)
  local started, pid = pcall(core.spawn, words, log)
  if not started then error(pid, 0) end
  local stopped = false
  while true do
    local ended, code = core.wait_child(0.2)
    if ended == pid then
      local file <close> = io.open(log, "rb")
      local said = file and file:read "a" or ""
      os.remove(log)
      if stopped then return nil end
      return code, (said:gsub("%s+$", ""):gsub("^.*\n", ""))
    end
    if core.interrupted() and not stopped then
      stopped = true
      core.interrupt(pid)
    end
    wait()
  end
end

-- Checksums: field, name, program.
local sums = { { "md5", "MD5", "md5sum" }, { "sha256", "SHA-256", "sha256sum" } }

-- Compares a file with the sums in wanted. Returns true; nil when interrupted; or false and what is
-- wrong.
local function compare(path, wanted)
  for _, row in ipairs(sums) do
    local field, title, program = table.unpack(row)
    if wanted[field] then
      local code, said = run({ program, path }, path .. ".log", function() end)
      if not code then return nil end
      local sum = said:match "^\\?(%x+) "
      if code ~= 0 or not sum then fail("%s %s: %s", program, path, said) end
      if sum ~= wanted[field] then return false, ("has the %s sum %s, must have %s"):format(title, sum, wanted[field]) end
    end
  end
  return true
end

-- Downloads to a file, continuing what is there. An https address must not redirect to http.
-- Returns true; nil when interrupted; or false and curl's reason.
local function download(url, path, wait)
  local code, said = run({
    "curl", "--fail", "--location", "--silent", "--show-error", "--retry", "3", "--connect-timeout", "30", "--speed-limit", "1",
    "--speed-time", "60", "--proto", "=https,http,ftp,file",
    "--proto-redir", url:lower():find "^http:" and "=https,http" or "=https",
    "--continue-at", "-", "--output", path, "--url", url,
  }, path .. ".log", wait)
  if not code then return nil end
  if code == 0 then return true end
  return false, said ~= "" and said or ("curl ended with status %d"):format(code)
end

local function fail_download(name, url, why, path)
  local origin = M.origins[name]
  if lfs.attributes(path, "mode") then
    fail("%s: %s: %s; what came is kept, and the next time goes on from there", name, url, why)
  end
  fail("%s: %s: %s; without a network, bring the file from %s and give --url file:///PATH/%s", name, url, why, origin.url,
    origin.url:match "[^/]*$")
end

-- curl's exit statuses when a server does not send the rest of a file: 33 the server has no ranges,
-- 36 a local file has no such range, 22 an error of HTTP (the range is beyond the end).
local function is_refusal(why)
  return why:find "%(33%)" or why:find "%(36%)" or why:find "%(22%)"
end

-- Downloads the archive, unless it is there, and compares its sums. Continues a download that was
-- interrupted; when its sums are wrong in the end, or the server refuses the rest, downloads
-- everything again. Returns true; nil when interrupted.
local function obtain(name, url, wanted, path, note)
  local continues = lfs.attributes(path, "mode") ~= nil
  if continues and compare(path, wanted) then return true end
  while not core.interrupted() do
    local ok, why = download(url, path, function() note(lfs.attributes(path, "size") or 0) end)
    if ok == nil then return nil end
    local right, wrong
    if ok then right, wrong = compare(path, wanted) end
    if right then return true end
    if ok and right == nil then return nil end
    local refused = continues and not ok and is_refusal(why)
    if ok or refused then os.remove(path) end
    if ok and not continues then
      fail("%s: what %s gave %s; it was removed", name, url, wrong)
    end
    if not ok and not refused then fail_download(name, url, why, path) end
    continues = false
  end
end

-- Unpacks the archive. Raises an error for anything in it but plain files in the data set's folder.
local function unpack_to(origin, archive_path, path)
  local archive <close> = core.archive(archive_path)
  for name, kind in archive.next, archive do
    local inside = name:gsub("^%./", ""):gsub("/+$", "")
    local file = inside:match("^" .. origin.folder:gsub("%p", "%%%0") .. "/([%w_.-]+)$")
    if kind == "file" and file and file:sub(1, 1) ~= "." then
      archive:save(path .. "/" .. file, largest)
    elseif kind ~= "directory" or inside ~= origin.folder then
      fail("%s: holds %s (%s), accepted are plain files in %s", archive_path, (name:gsub("%c", "?")), kind, origin.folder)
    end
  end
  if not has_files(origin, path) then
    fail("%s: lacks some of %s in %s", archive_path, table.concat(origin.files, ", "), origin.folder)
  end
end

--- Downloads and unpacks a data set.
-- @param name a name in M.origins
-- @param dir the folder of data sets; made if it does not exist
-- @param options {url = another address of the archive, md5 =, sha256 = other sums instead of the
--   origin's, note = function (bytes so far)}
-- @return the data set's folder; nil when interrupted: the next call continues the download
function M.fetch(name, dir, options)
  local origin = M.origins[name]
  local final = dir .. "/" .. origin.folder
  if lfs.attributes(final, "mode") then
    fail("%s: %s is there and lacks some of %s; move it away first", name, final, table.concat(origin.files, ", "))
  end
  folder.make(dir)
  local path = ("%s/%s.part"):format(dir, origin.url:match "[^/]*$")
  local held <close> = core.lock(path .. ".lock")
  if not held then fail("%s: another process is fetching it into %s", name, dir) end
  local wanted = (options.md5 or options.sha256) and options or origin
  if not obtain(name, options.url or origin.url, wanted, path, options.note) then return nil end
  local unpacking = final .. ".tmp"
  folder.remove(unpacking)
  folder.make(unpacking)
  local ok, message = pcall(unpack_to, origin, path, unpacking)
  if ok then ok, message = pcall(core.rename, unpacking, final) end
  if not ok then
    folder.remove(unpacking)
    fail("%s", message)
  end
  os.remove(path)
  os.remove(path .. ".lock")
  return final
end

return M
