# Shared by bench/gpu/first and bench/gpu/second, which read it: steps on a machine with a GPU, each with a time limit, a log and an exit
# status of its own. What they leave comes to $OUT after each step, so that nothing is lost with a call that is cut off.
#
#   results.tar.gz   logs, plans and what else lies in build/gpu, but for checkpoints and images
#   summary.txt      a line for each step
# shellcheck shell=sh disable=SC2154 # root is set by who reads this

state=$root/build/gpu
logs=$state/logs
out=${OUT:-$state/out}

say() { printf '%s\n' "$*" >&2; }
has() { command -v "$1" > /dev/null 2>&1; }

# Libraries that the machine has are its own: other programs may want newer ones than those that were brought.
give_way() {
  theirs=" $(ldconfig -p | sed -n 's/^\t\([^ ]*\) .*/\1/p' | tr '\n' ' ') "
  for library in "$root"/build/root/lib/*.so*; do
    case $theirs in *" ${library##*/} "*) rm -f "$library" ;; esac
  done
}

# unpack FOLDER: what bench/gpu/pack made there, once.
unpack() {
  if [ -f "$1/program.tar.gz" ] && [ ! -d "$root/build/root" ]; then
    tar -C "$root" -xzf "$1/program.tar.gz"
    give_way
  fi
  if [ -f "$1/images.tar.xz" ] && [ ! -d "$state/cifar-10-batches-bin" ]; then
    mkdir -p "$state/cifar-10-batches-bin"
    tar -C "$state" -xJf "$1/images.tar.xz"
    surroundings
    (cd "$state/images" && sed -n 1,50000p train.list | LD_LIBRARY_PATH="$libraries" ./jpeg2cifar ../whole.bin &&
      LD_LIBRARY_PATH="$libraries" ./jpeg2cifar ../cifar-10-batches-bin/test_batch.bin < test.list)
    echo
  fi
}

# Libraries of the program's own come first for it alone; other programs, PyTorch among them, get what they had.
surroundings() {
  export PATH="$root/build/root/bin:$PATH:/usr/local/cuda/bin"
  folder=$root/build/root
  export LUA_PATH="$folder/share/lua/5.4/?.lua;$folder/share/lua/5.4/?/init.lua;;" LUA_CPATH="$folder/lib/lua/5.4/?.so;;"
  # NVIDIA's: those of PyTorch's packages, which fit together, before those of a toolkit.
  nvidia=$("${PYTHON:-python3}" -c 'import glob, nvidia
print(":".join(d for p in nvidia.__path__ for d in sorted(glob.glob(p + "/*/lib"))))' 2> /dev/null || true)
  libraries=$root/build/lib:$folder/lib:${nvidia:+$nvidia:}/usr/local/cuda/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  export MPTL_CUDA_PLANS="$state/plans" MPTL_NO_INSTALL=1
}

# ours COMMAND...: with those libraries.
ours() { env LD_LIBRARY_PATH="$libraries" "$@"; }
mptl() { ours "$root/build/bin/mptl" "$@"; }

bring_back() {
  cp "$state/summary.txt" "$out/"
  tar -C "$state" --exclude=out --exclude=images --exclude='*.bin' --exclude='*.safetensors' -czf "$out/results.new" . &&
    mv "$out/results.new" "$out/results.tar.gz"
}

# step NAME SECONDS: runs step_NAME in a process of its own, with its output in logs/NAME.log, unless there is not the time for it.
step() {
  left=$((deadline - $(date +%s)))
  seconds=$2
  if [ "$left" -lt 15 ]; then
    line=$(printf '%-12s not begun: no time is left' "$1")
  else
    [ "$seconds" -le "$left" ] || seconds=$left
    begun=$(date +%s) status=0
    timeout -k 10 "$seconds" "$0" --one "$1" > "$logs/$1.log" 2>&1 || status=$?
    case $status in
      0) result=ok ;;
      77) result="skipped: $(tail -n 1 "$logs/$1.log" | cut -c 1-140)" ;;
      124 | 137) result="stopped after $seconds s" ;;
      *) result="failed ($status): $(tail -n 1 "$logs/$1.log" | cut -c 1-140)" ;;
    esac
    line=$(printf '%-12s %4d s  %s' "$1" $(($(date +%s) - begun)) "$result")
  fi
  say "$line"
  echo "$line" >> "$state/summary.txt"
  bring_back
}
