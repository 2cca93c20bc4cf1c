# What bench/gpu/first and bench/gpu/second share: steps on a machine with a GPU, each with a time limit, a log and an exit
# status of its own. After each step its results are copied to $OUT, so that a call that is cut off loses nothing.
#
#   results.tar.gz   logs, plans and everything else in build/gpu, except checkpoints and images
#   summary.txt      a line for each step
#
# A script that reads this file defines a function step_NAME for each step, scale(), the variables seconds, settings
# (names of its own options, whose values are in variables of these names) and limits ("NAME:SECONDS ...", in the order of
# the steps), and ends with main "$@". Before each step scale() is called, and $device, $small and the settings are set.
# shellcheck shell=sh disable=SC2034,SC2154 # shared with the script that reads this, which sets root

model=$root/models/resnet18_cifar.lua
state=$root/build/gpu
logs=$state/logs
out=${OUT:-$state/out}

say() { printf '%s\n' "$*" >&2; }
usage() { say "${0##*/}: $*"; sed -n 's/^# \(usage:.*\)/\1/p' "$0" >&2; exit 2; }
has() { command -v "$1" > /dev/null 2>&1; }

# Removes packed libraries that the machine has itself: its other programs may need newer ones.
give_way() {
  theirs=" $(ldconfig -p | sed -n 's/^\t\([^ ]*\) .*/\1/p' | tr '\n' ' ') "
  for library in "$root"/build/root/lib/*.so*; do
    case $theirs in *" ${library##*/} "*) rm -f "$library" ;; esac
  done
}

# unpack FOLDER: unpacks, once, what bench/gpu/pack made there, and plans of an earlier call. Builds mptl if there is none.
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

# Sets the environment. mptl finds its own libraries first; other programs, PyTorch among them, keep theirs.
surroundings() {
  export PATH="$root/build/root/bin:$PATH:/usr/local/cuda/bin"
  folder=$root/build/root
  export LUA_PATH="$folder/share/lua/5.4/?.lua;$folder/share/lua/5.4/?/init.lua;;" LUA_CPATH="$folder/lib/lua/5.4/?.so;;"
  # NVIDIA's libraries: PyTorch's packages, which fit together, come before a toolkit's.
  [ "${PYTHON-}" != "$state/python" ] || return 0 # the script that started this one for a step has done it
  nvidia=$("${PYTHON:-python3}" -c 'import glob, nvidia
print(":".join(d for p in nvidia.__path__ for d in sorted(glob.glob(p + "/*/lib"))))' 2> /dev/null || true)
  export libraries="$root/build/lib:$folder/lib:${nvidia:+$nvidia:}/usr/local/cuda/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
  export MPTL_CUDA_PLANS="$state/plans" MPTL_NO_INSTALL=1
  # Programs that are started by others get their own libraries, too.
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

# launches_of PROGRAM POLICY COMPUTE: records the launches of a training step after the first few (ncu) in
# logs/launches-POLICY.csv
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

# limited SECONDS COMMAND...: returns the command's status, or 124 when its time was up.
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

# step NAME SECONDS: runs step_NAME in a process of its own, with its output in logs/NAME.log, if there is time left.
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

# Variables of the environment in which main passes options on to a step's own process: MPTL_GPU_DEVICE ...
passed() { printf 'MPTL_GPU_%s' "$1" | tr '[:lower:]' '[:upper:]'; }

# main OPTIONS... FOLDER [STEP...]: runs the named steps, or all.
main() {
  device=cuda small=0 one=''
  for name in device small $settings; do eval "$name=\${$(passed "$name")-\$$name}"; done
  while [ $# -gt 0 ]; do
    case $1 in
      --small) small=1 ;;
      --*)
        case " seconds device one $settings " in *" ${1#--} "*) ;; *) usage "unknown option $1" ;; esac
        [ $# -gt 1 ] || usage "$1 needs a value"
        eval "${1#--}=\$2"
        shift
        ;;
      -*) usage "unknown option $1" ;;
      *) break ;;
    esac
    shift
  done
  scale
  mkdir -p "$logs" "$out"
  surroundings
  cd "$root" || exit
  if [ -n "$one" ]; then
    "step_$one"
    exit
  fi
  [ $# -gt 0 ] || usage "which FOLDER?"
  [ -d "$1" ] || usage "no folder $1"
  folder=$1
  shift
  case $seconds in '' | *[!0-9]*) usage "--seconds: '$seconds', must be a number" ;; esac
  # shellcheck disable=SC2046 # a list of names
  [ $# -gt 0 ] || set -- $(printf '%s\n' "$limits" | sed 's/:[0-9]*//g')
  for name in "$@"; do
    case " $limits" in *" $name:"*) ;; *) usage "unknown step $name, there are $limits" ;; esac
  done
  run_steps "$@"
}

run_steps() {
  deadline=$(($(date +%s) + seconds))
  for name in device small $settings; do eval "export $(passed "$name")=\"\$$name\""; done
  : > "$state/summary.txt"
  unpack "$folder"
  for name in "$@"; do
    most=${limits##*"$name":}
    step "$name" "${most%% *}"
  done
  cat "$state/summary.txt"
}
