#!/usr/bin/env bash
# `remac bench` on an emulated ARM64 processor with numpy and onnxruntime only. Its bytes are verified as anywhere; its times are labelled as emulated.
#   bench_arm64.sh setup DIR               an unpacked Debian, numpy and onnxruntime (needs debootstrap, qemu-user-static)
#   bench_arm64.sh run DIR CPU [arguments of remac bench...]      CPU: cortex-a53 | cortex-a72 | neoverse-n1 | max
# e.g. bench_arm64.sh run build/processors/arm64 neoverse-n1 --json build/arm64_bench.json
set -eu
here=$(cd "$(dirname "$0")" && pwd)
case ${1:-} in
  setup) exec "$here/processors/trees.sh" arm64 "$2" ;;
  run)
    dir=$2 cpu=$3; shift 3
    REMAC_MODEL=${REMAC_MODEL:-$here/../build/rover-m} PYTHONPATH="$here/../runtime" exec "$here/processors/arm64.sh" "$dir" "$cpu" -m remac_runtime bench "$@" ;;
  *) sed -n '2,5s/^# //p' "$0" >&2; exit 2 ;;
esac
