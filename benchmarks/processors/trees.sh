#!/usr/bin/env bash
# Pythons of other processors and of other engine versions, for `make verify-all`. Each is made once; a finished one is left alone.
#   trees.sh arm64 DIR    DIR/root: Debian arm64 with Python 3.11; DIR/site: aarch64 wheels of numpy and onnxruntime (needs debootstrap, qemu-user-static)
#   trees.sh s390x DIR    DIR/root: Debian s390x (big-endian) with Python 3.11 and NumPy
#   trees.sh ort DIR VERSION   a virtual environment with numpy and that version of onnxruntime; PYTHON names the interpreter
set -euo pipefail
kind=$1 dir=$2
here=$(cd "$(dirname "$0")" && pwd)
if [ -e "$dir/.done" ]; then exit 0; fi
need() { command -v "$1" >/dev/null || { echo "trees.sh: $1 is missing: apt-get install $2" >&2; exit 77; }; }
unpack() {   # arch packages: packages are unpacked without a second stage, chroot or binfmt, so that no root rights are used on the tree
  need debootstrap debootstrap; need "qemu-$2-static" qemu-user-static
  rm -rf "$dir"; mkdir -p "$dir"
  # debootstrap makes device nodes and chowns only in its second stage, which never runs here
  debootstrap --foreign --arch="$1" --variant=minbase --include="$3" bookworm "$dir/root" >"$dir/debootstrap.log" 2>&1 \
    || { tail -3 "$dir/debootstrap.log" >&2; exit 77; }
  (cd "$dir/root" && for package in var/cache/apt/archives/*.deb; do dpkg -x "$package" .; done && rm -rf var/cache/apt/archives)
}
case $kind in
  arm64)
    unpack arm64 aarch64 python3,libgomp1,libstdc++6
    "${PYTHON:-python3}" -m pip download --quiet --no-deps --only-binary=:all: --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
      --platform manylinux2014_aarch64 --python-version 311 --implementation cp --abi cp311 -d "$dir/wheels" onnxruntime numpy
    mkdir -p "$dir/site"
    for wheel in "$dir"/wheels/*.whl; do "${PYTHON:-python3}" -m zipfile -e "$wheel" "$dir/site"; done
    rm -rf "$dir/wheels" ;;
  s390x)
    unpack s390x s390x python3,python3-numpy
    # BLAS and LAPACK are alternatives that the second stage would link
    (cd "$dir/root/usr/lib/s390x-linux-gnu" && for name in blas lapack; do ln -sf "$name/lib$name.so.3" "lib$name.so.3"; done) ;;
  ort)
    "${PYTHON:-python3}" -m venv "$dir" 2>/dev/null || { "${PYTHON:-python3}" -m venv --clear --without-pip "$dir"; }
    "${PYTHON:-python3}" -m pip --python "$dir/bin/python" install --quiet "onnxruntime==$3" numpy ;;
  *) echo "trees.sh: no recipe for $kind in $here" >&2; exit 2 ;;
esac
touch "$dir/.done"
