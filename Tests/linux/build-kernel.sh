#!/bin/sh
# Builds the test's Linux, vmlinux and bzImage, from Debian's linux-source-6.1 into CACHE/build-FLAVOUR, where FLAVOUR is
# "patched" when this machine's KVM emulates ring 0 and "stock" otherwise. Does nothing when they are up to date.
# Usage: build-kernel.sh CACHE-DIRECTORY [stock|patched]
# Environment: JOBS (default 1: the build runs beside other work, at the lowest priority).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=$1
flavour=${2:-}
if [ -z "$flavour" ]; then
  if [ -e /sys/module/kvm_pvm ]; then flavour=patched; else flavour=stock; fi
fi
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
archive=/usr/src/linux-source-6.1.tar.xz
build=$cache/build-$flavour
source=$cache/source-$flavour
stamp=$build/inputs

inputs() { cat "$here/kernel.config" "$here/software-kvm.patch" "$archive" | sha256sum; }

root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
missing=
for package in linux-source-6.1 build-essential bc bison flex libelf-dev libssl-dev xz-utils lz4; do
  dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
if [ -n "$missing" ]; then
  root apt-get update -q >/dev/null
  # shellcheck disable=SC2086 # one word a package
  root apt-get install -y -q --no-install-recommends $missing
fi

if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$(inputs)" ]; then
  echo "linux: $build is up to date"
  exit 0
fi
echo "linux: building the $flavour kernel in $build (some 10 minutes)"
rm -rf "$source" "$build"
mkdir -p "$source" "$build"
tar xf "$archive" -C "$source" --strip-components=1
[ "$flavour" = stock ] || patch -s -p1 -d "$source" <"$here/software-kvm.patch"
make -s -C "$source" O="$build" tinyconfig >"$build/config.log" 2>&1
(cd "$source" && scripts/kconfig/merge_config.sh -O "$build" "$build/.config" "$here/kernel.config") >>"$build/config.log" 2>&1
# A request that the kernel's dependencies overruled would otherwise show as a test that fails for no visible reason.
grep '^CONFIG_' "$here/kernel.config" | while read -r line; do
  grep -qxF "$line" "$build/.config" || echo "linux: this kernel has no $line" >&2
done
nice -n 19 make -s -C "$source" O="$build" -j"${JOBS:-1}" vmlinux bzImage >"$build/build.log" 2>&1 || {
  tail -n 20 "$build/build.log" >&2
  exit 1
}
inputs >"$stamp"
echo "linux: built $build/vmlinux and $build/arch/x86/boot/bzImage"
