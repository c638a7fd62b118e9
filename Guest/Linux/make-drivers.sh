#!/bin/sh
# Fetches Debian's driver modules and the headers they were built with, builds Linux's side of the driver container against those headers, and
# leaves everything in the folder $1/linux (default .build/pollux/linux); the boot archive beside it, if there is one already, gets
# them too. Guest/build-image.sh adds what it finds there. Does nothing where all is there and newer than this folder's sources. Needs neither
# root nor an installed kernel.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$(dirname "$here")")
target=${1:-$root/.build/pollux}
cache=$root/.build/linux-drivers
drivers="virtio virtio_ring virtio_mmio virtio_blk virtio-rng failover net_failover virtio_net"
sources="memory library strings bits managed attributes parameters processor tasks time work exceptions devices block network"

fail() {
  echo "make-drivers: $1" >&2
  exit 69
}
command -v ld.lld >/dev/null && command -v clang >/dev/null || fail "clang and ld.lld are needed (they come with Swift)"

# The release's own kernel: there the virtio core is made of modules.
PACKAGE=${PACKAGE:-linux-image-cloud-amd64} sh "$root/Tests/linux/fetch-modules.sh" "$cache/modules" ||
  fail "the modules could not be fetched"
read -r image version <"$cache/modules/version"
release=${image#linux-image-}
headers=$cache/headers
if [ "$(cat "$headers/version" 2>/dev/null)" != "$release $version" ]; then
  work=$(mktemp -d "$cache/headers-XXXXXX")
  trap 'rm -rf "$work"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  (cd "$work" && apt-get download "linux-headers-$release=$version" \
    "linux-headers-${release%-cloud-amd64}-common=$version") || fail "the headers of $release could not be fetched"
  mkdir "$work/unpacked"
  for package in "$work"/*.deb; do dpkg-deb -x "$package" "$work/unpacked"; done
  echo "$release $version" >"$work/unpacked/version"
  rm -rf "$headers"
  mv "$work/unpacked" "$headers"
fi

result=$target/linux
stamp=$result/container.ko
if [ -f "$stamp" ] && [ -z "$(find "$here" "$root/Guest/Sources/CLinuxContainer" "$headers/version" -newer "$stamp")" ]; then
  echo "Linux drivers of $release are in $result"
else
  built=$headers/usr/src/linux-headers-$release
  common=$headers/usr/src/linux-headers-${release%-cloud-amd64}-common
  mkdir -p "$result" "$cache/objects"
  # What Linux's own build says for x86-64, as far as it matters for the code and for the headers' meaning.
  # What stubs.txt names, each marked by a symbol stub.NAME. No header of Linux may declare them here otherwise.
  {
    echo '#include <linux/export.h>'
    echo 'extern long stub_called(const char *, int *);'
    grep -v '^#' "$here/stubs.txt" | while read -r name; do
      echo "long $name(void);"
      echo "long $name(void) { static int said; return stub_called(\"$name\", &said); }"
      echo "EXPORT_SYMBOL($name);"
      echo "asm(\".globl stub.$name; stub.$name = $name\");"
    done
  } >"$cache/objects/stubs.c"
  for source in $sources stubs runtime_test; do
    file=$here/$source.c
    module=container extra=-fbuiltin
    case $source in
    stubs) file=$cache/objects/stubs.c ;;
    # What it calls is to be called, not what the compiler knows of it.
    runtime_test) file=$here/test/$source.c module=$source extra=-fno-builtin ;;
    esac
    clang --target=x86_64-linux-gnu -c "$file" -o "$cache/objects/$source.o" -nostdinc \
      "-fmacro-prefix-map=$here/=" $extra \
      -I"$root/Guest/Sources/CLinuxContainer/include" \
      -I"$common/arch/x86/include" -I"$built/arch/x86/include/generated" -I"$common/include" -I"$built/include" \
      -I"$common/arch/x86/include/uapi" -I"$built/arch/x86/include/generated/uapi" -I"$common/include/uapi" \
      -I"$built/include/generated/uapi" -include "$common/include/linux/compiler-version.h" \
      -include "$common/include/linux/kconfig.h" -include "$common/include/linux/compiler_types.h" \
      -D__KERNEL__ -DMODULE -DKBUILD_MODNAME="\"$module\"" -DKBUILD_BASENAME="\"$module\"" \
      -D__KBUILD_MODNAME="kmod_$module" -std=gnu11 -O2 -fshort-wchar -funsigned-char -fno-common -fno-PIE \
      -fno-strict-aliasing -fno-delete-null-pointer-checks -fms-extensions -fno-asynchronous-unwind-tables \
      -fno-stack-protector -fno-jump-tables -m64 -mno-sse -mno-mmx -mno-80387 -mno-red-zone -mcmodel=kernel \
      -mstack-alignment=8 -Wall -Werror -Wno-gnu -Wno-unused-const-variable -Wno-format -Wno-sign-compare \
      -Wno-pointer-sign -Wno-address-of-packed-member -Wno-gnu-variable-sized-type-not-at-end -Wno-microsoft-anon-tag \
      -Wno-default-const-init-unsafe
  done
  (cd "$cache/objects" && ld.lld -r -T "$built/arch/x86/module.lds" -o container.ko \
    $(for source in $sources stubs; do echo "$source.o"; done))
  (cd "$cache/objects" && ld.lld -r -T "$built/arch/x86/module.lds" -o runtime_test.ko runtime_test.o)
  for driver in $drivers; do
    found=$(find "$cache/modules/lib/modules" -name "$driver.ko" -o -name "$driver.ko.xz")
    [ -n "$found" ] || fail "$image has no module $driver"
    case $found in
    *.xz) xz -dc "$found" >"$result/$driver.ko" ;;
    *) cp "$found" "$result/$driver.ko" ;;
    esac
  done
  # The module of the tests, which put it into an archive themselves (Tests/GuestTests/LinuxRuntimeTests.swift).
  mkdir -p "$target/linux-test"
  llvm-objcopy --strip-debug "$cache/objects/runtime_test.ko" "$target/linux-test/runtime_test.ko"
  llvm-objcopy --strip-debug "$cache/objects/container.ko" "$stamp"
  echo "Linux drivers of $release: $drivers"
fi

archive=$target/archive.tar
[ -f "$archive" ] || exit 0
if [ "$stamp" -nt "$archive" ] || ! tar -tf "$archive" | grep -q '^linux/container.ko$'; then
  cp "$archive" "$archive.new"
  tar --delete -f "$archive.new" linux 2>/dev/null || true
  tar --format=ustar --owner=0 --group=0 -rf "$archive.new" -C "$target" linux
  mv "$archive.new" "$archive"
fi
