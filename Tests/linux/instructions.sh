#!/bin/bash
# How many instructions Linux (the small kernel of `make test-linux`, unpatched, built here if need be) takes to read a block of 4 KiB past
# its cache from a virtio disk, one at a time (pread) and 8 and 32 (io_submit), counted by QEMU (-icount). The same of Pollux:
#   castor bench block --machine qemu --instructions --backend tmpfs --sizes 4K --depths 1,8,32 --operations read --patterns random
# Usage: instructions.sh [REQUESTS]   Environment: DEPTHS (default 1,8,32), CACHE (default .cache/linux), JOBS.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=$(realpath -m "${CACHE:-$here/../../.cache/linux}")
"$here/build-kernel.sh" "$cache" stock
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cc -static -Os -Wall -Wextra -Werror -s -o "$work/init" "$here/count.c"
printf '%s\n' "dir /dev 0755 0 0" "nod /dev/console 0600 0 0 c 5 1" "dir /proc 0755 0 0" "file /init $work/init 0755 0 0" \
  >"$work/initrd.list"
"$cache/build-stock/usr/gen_init_cpio" "$work/initrd.list" >"$work/initrd"
truncate -s 64M "$work/disk.img"
status=0
timeout 300 qemu-system-x86_64 -M microvm,acpi=off,pit=on,pic=on,rtc=off -accel tcg -cpu max -m 256M -smp 1 -nodefaults \
  -display none -serial stdio -no-reboot -kernel "$cache/build-stock/vmlinux" -initrd "$work/initrd" -icount shift=0 \
  -append "console=ttyS0 panic=-1 reboot=t quiet requests=${1:-50000} size=4096 depths=${DEPTHS:-1,8,32}" -global virtio-mmio.force-legacy=false \
  -device isa-debug-exit,iobase=0xf4,iosize=4 -drive "id=disk0,file=$work/disk.img,format=raw,if=none,cache=none,aio=io_uring" \
  -device virtio-blk-device,drive=disk0 >"$work/console" </dev/null || status=$?
grep linux-count "$work/console" || { tail -20 "$work/console"; exit 1; }
# isa-debug-exit makes 1 of 0.
[ "$status" = 1 ]
