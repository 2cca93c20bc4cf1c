# Shared by bench/gpu/first and bench/gpu/second, which read it: runs the steps of these scripts,
# each with its own time limit, log and exit status. After each step the results are copied to $OUT,
# so that nothing is lost when a call is cut off.
#
#   results.tar.gz   logs, plans and everything else in build/gpu, except checkpoints and images
#   summary.txt      a line for each step
# shellcheck shell=sh disable=SC2154 # root is set by who reads this

state=$root/build/gpu
logs=$state/logs
out=${OUT:-$state/out}

say() { printf '%s\n' "$*" >&2; }
has() { command -v "$1" > /dev/null 2>&1; }

# Removes libraries that the machine has, too: other programs may need its newer versions.
give_way() {
  theirs=" $(ldconfig -p | sed -n 's/^\t\([^ ]*\) .*/\1/p' | tr '\n' ' ') "
  for library in "$root"/build/root/lib/*.so*; do
    case $theirs in *" ${library##*/} "*) rm -f "$library" ;; esac
  done
}

# unpack FOLDER: unpacks once what bench/gpu/pack made, and the plans of an earlier call. Builds
# mptl when FOLDER has no program.
unpack() {
  if [ -d "$1/plans" ] && [ ! -d "$state/plans" ]; then cp -r "$1/plans" "$state/"; fi
  if [ -f "$1/program.tar.gz" ] && [ ! -d "$root/build/root" ]; then
    tar -C "$root" -xzf "$1/program.tar.gz"
    give_way
  fi
  [ -x "$root/build/bin/mptl" ] || "$root/mptl" doctor
  if [ -f "$1/images.tar.xz" ] && [ ! -d "$state/cifar-10-batches-bin" ]; then
    mkdir -p "$state/cifar-10-batches-bin"
    tar -C "$state" -xJf "$1/images.tar.xz"
    surroundings
    decode() { LD_LIBRARY_PATH="$libraries" "$state/images/jpeg2cifar" "$state/cifar-10-batches-bin/$1.bin"; }
    for batch in 1 2 3 4 5; do
      (cd "$state/images" && sed -n "$((10000 * batch - 9999)),$((10000 * batch))p" train.list | decode "data_batch_$batch") &
    done
    (cd "$state/images" && decode test_batch < test.list)
    wait
  fi
}

# The environment of programs. mptl gets its own libraries first; other programs, such as PyTorch,
# get the machine's.
surroundings() {
  export PATH="$root/build/root/bin:$PATH:/usr/local/cuda/bin"
  folder=$root/build/root
  export LUA_PATH="$folder/share/lua/5.4/?.lua;$folder/share/lua/5.4/?/init.lua;;" LUA_CPATH="$folder/lib/lua/5.4/?.so;;"
  # NVIDIA's libraries from PyTorch's packages, which fit together, come before those of a toolkit.
  [ "${PYTHON-}" != "$state/python" ] || return 0 # the script that started this one has done the rest
  nvidia=$("${PYTHON:-python3}" -c 'import glob, nvidia
print(":".join(d for p in nvidia.__path__ for d in sorted(glob.glob(p + "/*/lib"))))' 2> /dev/null || true)
  export libraries="$root/build/lib:$folder/lib:${nvidia:+$nvidia:}/usr/local/cuda/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
  export MPTL_CUDA_PLANS="$state/plans" MPTL_NO_INSTALL=1
  # For scripts that start both mptl and Python: wrappers that give each its own libraries.
  theirs="${LD_LIBRARY_PATH-}"
  mkdir -p "$state"
  wrap mptl "$libraries" "$root/build/bin/mptl"
  wrap python "$theirs" "$(command -v "${PYTHON:-python3}" || echo python3)"
  export MPTL_BIN="$state/mptl" PYTHON="$state/python"
}

wrap() { # NAME LIBRARIES PROGRAM
  printf '#!/bin/sh\nexport LD_LIBRARY_PATH="%s"\nexec "%s" "$@"\n' "$2" "$3" > "$state/$1.new"
  chmod +x "$state/$1.new"
  mv "$state/$1.new" "$state/$1"
}

# ours COMMAND...: runs a command with mptl's libraries.
ours() { env LD_LIBRARY_PATH="$libraries" "$@"; }
mptl() { ours "$root/build/bin/mptl" "$@"; }

bring_back() {
  cp "$state/summary.txt" "$out/"
  tar -C "$state" --exclude=out --exclude=images --exclude='*.bin' --exclude='*.safetensors' -czf "$out/results.new" . &&
    mv "$out/results.new" "$out/results.tar.gz"
}

# launches_of PROGRAM POLICY COMPUTE: the launches of a training step after the first few, one by
# one, by ncu, to logs/launches-POLICY.csv
launches_of() {
  ours ncu --clock-control none --target-processes all --launch-skip 2600 --launch-count 800 --csv --page raw --metrics \
    gpu__time_duration.sum,dram__bytes_read.sum,dram__bytes_write.sum,launch__registers_per_thread,launch__grid_size,launch__block_size \
    --log-file "$logs/launches-$2.csv" "$1" bench step "$model" --device "$device" --policy "$2" --compute "$3" --width "$width" \
    --batch "$batch" --steps 1
}

# Before a program that hangs is ended: prints what runs on the GPU, and where the host waits.
examine() {
  pid=$(pgrep -n -f "$root/build/bin/" || true)
  [ -n "$pid" ] && has cuda-gdb || return 0
  timeout -k 5 25 cuda-gdb -batch -p "$pid" -ex 'info cuda kernels' -ex 'info cuda warps' -ex 'thread apply all backtrace 12' || true
}

# limited SECONDS COMMAND...: returns the command's exit status; 124 when it was stopped after
# SECONDS.
limited() {
  end=$(($(date +%s) + $1))
  shift
  setsid "$@" &
  child=$!
  while kill -0 "$child" 2> /dev/null; do
    if [ "$(date +%s)" -ge "$end" ]; then
      examine
      kill -TERM "-$child" 2> /dev/null || true
      sleep 2
      kill -KILL "-$child" 2> /dev/null || true
      wait "$child" 2> /dev/null || true
      return 124
    fi
    sleep 0.2
  done
  wait "$child"
}

# step NAME SECONDS: runs step_NAME in a process of its own, with its output in logs/NAME.log, if
# there is time left.
step() {
  left=$((deadline - $(date +%s)))
  seconds=$2
  if [ "$left" -lt 15 ]; then
    line=$(printf '%-12s not begun: no time is left' "$1")
  else
    [ "$seconds" -le "$left" ] || seconds=$left
    begun=$(date +%s) status=0
    limited "$seconds" "$0" --one "$1" > "$logs/$1.log" 2>&1 || status=$?
    case $status in
      0) result=ok ;;
      77) result="skipped: $(tail -n 1 "$logs/$1.log" | cut -c 1-140)" ;;
      124) result="stopped after $seconds s" ;;
      *) result="failed ($status): $(tail -n 1 "$logs/$1.log" | cut -c 1-140)" ;;
    esac
    line=$(printf '%-12s %4d s  %s' "$1" $(($(date +%s) - begun)) "$result")
  fi
  say "$line"
  echo "$line" >> "$state/summary.txt"
  bring_back
}
