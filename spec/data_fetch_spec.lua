local files = require "data_files"
local lfs = require "lfs"
local process = require "support.process"

describe("mptl data fetch", function()
  local dir, data, archive

  before_each(function()
    dir = files.directory()
    data, archive = dir .. "/data", dir .. "/archive.tar.gz"
  end)
  after_each(function() files.remove(dir) end)

  -- Makes a tar of what is in the folder "in".
  local function pack(...)
    assert(os.execute(("tar -C %s/in -czf %s %s"):format(dir, archive, table.concat({ ... }, " "))))
  end

  local function cifar100()
    files.write(dir .. "/in/cifar-100-binary/train.bin", "\1\2", ("x"):rep(3072))
    files.write(dir .. "/in/cifar-100-binary/test.bin", "\3\4", ("y"):rep(3072))
    pack "cifar-100-binary"
  end

  local function md5()
    local pipe <close> = io.popen("md5sum " .. archive)
    return pipe:read "a":match "^%x+"
  end

  local function fetch(arguments, env)
    local words = { "data", "fetch", "cifar100", "--data", data, "--url", "file://" .. archive, "--md5", md5() }
    for i = 1, #arguments do words[#words + 1] = arguments[i] end
    return process.mptl(words, { env = env })
  end

  local function fails(message, result)
    assert.same({ "", (message:gsub("DIR", dir)), 1 }, { result.out, result.err, result.status })
    assert.is_nil(lfs.attributes(data .. "/cifar-100-binary"))
    assert.is_nil(lfs.attributes(data .. "/cifar-100-binary.tmp"))
  end

  -- A program in place of curl, which gets the output file as $OUT.
  local function with_curl(text)
    local path = process.file("curl", "#!/bin/sh\n" .. [[
      echo "$@" >> "$CALLS"
      while [ "$1" != --output ]; do shift; done
      OUT=$2
    ]] .. text)
    os.execute("chmod +x " .. path)
    return { PATH = path:match "^(.*)/" .. ":" .. os.getenv "PATH", CALLS = dir .. "/calls", ARCHIVE = archive }
  end

  it("downloads, compares the sum and unpacks", function()
    cifar100()
    local result = fetch {}
    assert.same({ ("cifar100: %s/cifar-100-binary\n"):format(data), "", 0 }, { result.out, result.err, result.status })
    assert.equal("\1\2" .. ("x"):rep(3072), files.read(data .. "/cifar-100-binary/train.bin"))
    local left = {}
    for name in lfs.dir(data) do left[#left + 1] = name end
    table.sort(left)
    assert.same({ ".", "..", "cifar-100-binary" }, left)
    os.remove(archive)
    result = process.mptl({ "data", "fetch", "cifar100" }, { env = { MPTL_DATA = data } })
    assert.same({ ("cifar100 is there: %s/cifar-100-binary\n"):format(data), 0 }, { result.out, result.status })
    result = process.mptl { "data", "check", data }
    assert.matches("^[^\n]*CIFAR%-100 in binary layout, 100 classes\ntrain 1 images", result.out)
  end)

  it("continues a partial download", function()
    cifar100()
    local bytes = files.read(archive)
    files.write(data .. "/cifar-100-binary.tar.gz.part", bytes:sub(1, 100))
    files.write(archive, ("?"):rep(100), bytes:sub(101)) -- the sum is right only if the first hundred bytes are kept
    files.write(dir .. "/whole", bytes)
    local pipe <close> = io.popen("md5sum " .. dir .. "/whole")
    assert.equal(0, fetch({ "--md5", pipe:read "a":match "^%x+" }).status)
    assert.is_not_nil(lfs.attributes(data .. "/cifar-100-binary/test.bin"))
  end)

  it("starts again when a continued download has the wrong sum", function()
    cifar100()
    files.write(data .. "/cifar-100-binary.tar.gz.part", "of another file")
    assert.equal(0, fetch({}).status)
  end)

  it("starts again when the server cannot send the rest", function()
    cifar100()
    files.write(data .. "/cifar-100-binary.tar.gz.part", "begin")
    local env = with_curl [[
      if [ -e "$OUT" ]; then echo "curl: (33) HTTP server doesn't seem to support byte ranges. Cannot resume." >&2; exit 33; fi
      cp "$ARCHIVE" "$OUT"
    ]]
    assert.same({ ("cifar100: %s/cifar-100-binary\n"):format(data), "" }, { fetch({}, env).out, fetch({}, env).err })
    local _, calls = files.read(dir .. "/calls"):gsub("\n", "")
    assert.equal(2, calls)
  end)

  it("keeps what was received before the connection broke", function()
    cifar100()
    local env = with_curl [[
      head -c 50 "$ARCHIVE" > "$OUT"
      echo "curl: (18) transfer closed with 123 bytes remaining to read" >&2
      exit 18
    ]]
    fails("mptl: cifar100: file://DIR/archive.tar.gz: curl: (18) transfer closed with 123 bytes remaining to read; what came is "
      .. "kept, and the next time goes on from there\n", fetch({}, env))
    assert.equal(50, lfs.attributes(data .. "/cifar-100-binary.tar.gz.part", "size"))
    assert.equal(0, fetch({}).status)
  end)

  it("that is interrupted stops curl, and continues the next time", function()
    cifar100()
    local env = with_curl [[
      head -c 50 "$ARCHIVE" > "$OUT"
      kill -INT $PPID
      exec sleep 60
    ]]
    local from = os.time()
    local result = fetch({}, env)
    assert.same({ "", "mptl data fetch: interrupted; the next time goes on from here\n", 130 },
      { result.out, result.err, result.status })
    assert.is_true(os.time() - from < 30)
    assert.equal(50, lfs.attributes(data .. "/cifar-100-binary.tar.gz.part", "size"))
    assert.equal(0, fetch({}).status)
  end)

  it("without a network says how to download by hand", function()
    cifar100()
    local by_hand = "; without a network, bring the file from https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz and give "
      .. "--url file:///PATH/cifar-100-binary.tar.gz\n"
    local env = with_curl [[echo "curl: (6) Could not resolve host: www.cs.toronto.edu" >&2; exit 6]]
    fails("mptl: cifar100: file://DIR/archive.tar.gz: curl: (6) Could not resolve host: www.cs.toronto.edu" .. by_hand,
      fetch({}, env))
    local result = fetch { "--url", "file:///nonexistent" }
    assert.matches("^mptl: cifar100: file:///nonexistent: curl: %(37%) [^\n]*; without a network, [^\n]*\n$", result.err)
    fails(result.err, result)
  end)

  it("refuses another file of that name", function()
    cifar100()
    local zeros = ("0"):rep(32)
    fails(("mptl: cifar100: what file://DIR/archive.tar.gz gave has the MD5 sum %s, must have %s; it was removed\n")
      :format(md5(), zeros), fetch { "--md5", zeros })
    assert.is_nil(lfs.attributes(data .. "/cifar-100-binary.tar.gz.part"))
    local result = process.mptl { "data", "fetch", "cifar10", "--data", data, "--url", "file://" .. archive }
    assert.matches("must have c32a1d4ab5d03f1284b67883e8d87530; it was removed\n$", result.err)
  end)

  it("compares SHA-256, too", function()
    cifar100()
    local pipe <close> = io.popen("sha256sum " .. archive)
    local sum, zeros = pipe:read "a":match "^%x+", ("0"):rep(64)
    fails(("mptl: cifar100: what file://DIR/archive.tar.gz gave has the SHA-256 sum %s, must have %s; it was removed\n")
      :format(sum, zeros), fetch { "--sha256", zeros })
    assert.equal(0, fetch({ "--sha256", sum:upper() }).status)
  end)

  it("knows both sums of every download", function()
    for _, origin in pairs(require "mptl.dataset.fetch".origins) do
      assert.matches("^%x+$", origin.sha256)
      assert.same({ 32, 64 }, { #origin.md5, #origin.sha256 })
    end
  end)

  it("follows no redirection from https to http", function()
    cifar100()
    local env = with_curl 'cp "$ARCHIVE" "$OUT"'
    fetch({ "--url", "https://example.org/x" }, env)
    assert.is_truthy(files.read(dir .. "/calls"):find("--proto-redir =https --", 1, true))
    files.remove(data)
    os.remove(dir .. "/calls")
    fetch({ "--url", "http://example.org/x" }, env)
    assert.is_truthy(files.read(dir .. "/calls"):find("--proto-redir =https,http --", 1, true))
  end)

  it("that is interrupted while it computes the sum removes nothing", function()
    cifar100()
    local md5sum = process.file("md5sum", "#!/bin/sh\nkill -INT $PPID\nexec sleep 60\n")
    os.execute("chmod +x " .. md5sum)
    local env = { PATH = md5sum:match "^(.*)/" .. ":" .. os.getenv "PATH" }
    local words = { "data", "fetch", "cifar100", "--data", data, "--url", "file://" .. archive, "--md5", md5() }
    local result = process.mptl(words, { env = env })
    assert.same({ "mptl data fetch: interrupted; the next time goes on from here\n", 130 }, { result.err, result.status })
    assert.is_not_nil(lfs.attributes(data .. "/cifar-100-binary.tar.gz.part"))
    assert.equal(0, fetch({}).status)
  end)

  it("unpacks only the set's files, whatever else the archive holds", function()
    cifar100()
    local accepted = ", accepted are plain files in cifar-100-binary\n"
    local function refuses(name, kind, ...)
      pack(...)
      fails(("mptl: DIR/data/cifar-100-binary.tar.gz.part: holds %s (%s)%s"):format(name, kind, accepted), fetch {})
    end
    files.write(dir .. "/in/evil.bin", "evil")
    refuses("../evil.bin", "file", "cifar-100-binary", "evil.bin --transform s,evil,../evil, -P")
    refuses("cifar-100-binary/../../evil.bin", "file", "evil.bin --transform s,evil,cifar-100-binary/../../evil, -P")
    refuses(dir .. "/in/evil.bin", "file", "-P", dir .. "/in/evil.bin")
    lfs.link("/etc", dir .. "/in/cifar-100-binary/link", true)
    refuses("cifar-100-binary/link", "other", "cifar-100-binary")
    os.remove(dir .. "/in/cifar-100-binary/link")
    lfs.link(dir .. "/in/cifar-100-binary/train.bin", dir .. "/in/cifar-100-binary/test2.bin")
    refuses("cifar-100-binary/test2.bin", "other", "cifar-100-binary/train.bin", "cifar-100-binary/test2.bin")
    assert.is_nil(lfs.attributes(dir .. "/evil.bin"))
  end)

  it("refuses an archive that lacks files, and a file that is not an archive", function()
    files.write(dir .. "/in/cifar-100-binary/train.bin", "x")
    pack "cifar-100-binary"
    fails("mptl: DIR/data/cifar-100-binary.tar.gz.part: lacks some of train.bin, test.bin in cifar-100-binary\n", fetch {})
    files.write(archive, "<html>not found</html>")
    fails("mptl: DIR/data/cifar-100-binary.tar.gz.part: Unrecognized archive format\n", fetch {})
  end)

  it("does not touch a folder into which another process downloads", function()
    cifar100()
    local env = with_curl(([[
      '%s' data fetch cifar100 --data %s --quiet 2>&1 | sed 's/^/curl: /' >&2
      exit 7
    ]]):format(os.getenv "MPTL_BIN", data))
    local result = fetch({}, env)
    assert.matches("curl: mptl: cifar100: another process is fetching it into " .. data, result.err, 1, true)
  end)

  it("does not touch a folder that it has not made", function()
    cifar100()
    files.write(data .. "/cifar-100-binary/mine.bin", "mine")
    local result = fetch {}
    assert.equal(("mptl: cifar100: %s/cifar-100-binary is there and lacks some of train.bin, test.bin; move it away first\n")
      :format(data), result.err)
    assert.equal("mine", files.read(data .. "/cifar-100-binary/mine.bin"))
  end)

  it("names a wrong argument, and what is accepted", function()
    local function wrong(message, ...)
      local result = process.mptl({ "data", "fetch", ... }, { env = { MPTL_DATA = "", XDG_DATA_HOME = "", HOME = "" } })
      assert.same({ "", message, 2 }, { result.out, result.err, result.status })
    end
    wrong('mptl data: NAME: cifar11, accepted are cifar10, cifar100 (did you mean "cifar10"?)\n', "cifar11")
    wrong("mptl data: --md5: 12, accepted are 32 hexadecimal digits\n", "cifar10", "--md5", "12")
    wrong("mptl data: --sha256: 12, accepted are 64 hexadecimal digits\n", "cifar10", "--sha256", "12")
    wrong("mptl data: no place for the data: give --data DIR; MPTL_DATA, XDG_DATA_HOME and HOME are not set\n", "cifar10")
    wrong("mptl data: missing argument 'name'\n")
    local result = process.mptl { "data", "fetch", "imagenet" }
    assert.matches("^mptl data: imagenet: needs registration: get ILSVRC2012_img_train.tar and [^\n]*\n$", result.err)
    assert.equal(2, result.status)
  end)

  it("says when curl is missing", function()
    cifar100()
    fails("mptl: cannot start curl: No such file or directory\n", fetch({}, { PATH = "/nonexistent" }))
  end)
end)
