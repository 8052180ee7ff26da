#!/usr/bin/env bash
# Runs the Python of a tree made by trees.sh on an emulated ARM64 processor: arm64.sh DIR CPU [python arguments...]
# CPU: cortex-a53 | cortex-a72 | neoverse-n1 | max. onnxruntime reads /proc/cpuinfo and crashes on that of the host, so the tree gets one that fits the
# CPU: what it claims is used (dotprod on a cortex-a53 would end in SIGILL).
set -eu
dir=$1 cpu=$2; shift 2
features="fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"; part=0xd03
case $cpu in
  cortex-a72) part=0xd08 ;;
  neoverse-n1) features="$features atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"; part=0xd0c ;;
  max) features="$features atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp sve i8mm bf16"; part=0xd40 ;;
esac
mkdir -p "$dir/root/proc"
for core in 0 1; do
  printf 'processor\t: %d\nBogoMIPS\t: 50.00\nFeatures\t: %s\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\n' $core "$features"
  printf 'CPU part\t: %s\nCPU revision\t: 4\n\n' $part
done > "$dir/root/proc/cpuinfo"
PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}$dir/site" exec qemu-aarch64-static -L "$dir/root" -cpu "$cpu" "$dir/root/usr/bin/python3.11" "$@"
