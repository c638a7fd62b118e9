#!/bin/bash
# Linux's column of the figure of throughput: the small kernel of `make test-linux` on Castor, with requests in flight on a virtual disk past its
# cache, by Linux's asynchronous I/O (throughput.c). Pollux and the host on the same disk, in the same minutes:
#   castor bench block --file DISK --sizes 4K,16K,64K,128K,1M --depths 8,32 --operations read,write --patterns random
# A comparison of kernels only where KVM has hardware to run ring 0; elsewhere a ring-0 instruction costs a microsecond, and Linux has many.
# Usage: throughput.sh CASTOR-VMM [DISK]   DISK (default: a new file of 1 GiB) is written to.
# Environment: SIZES, DEPTHS, OPERATIONS (lists with commas), MILLISECONDS a case (default 500), CACHE (default .cache/linux), JOBS.
set -eu
[ $# -ge 1 ] || { echo "usage: throughput.sh CASTOR-VMM [DISK]" >&2; exit 64; }
here=$(cd "$(dirname "$0")" && pwd)
vmm=$(realpath "$1")
cache=$(realpath -m "${CACHE:-$here/../../.cache/linux}")
"$here/build-kernel.sh" "$cache"
flavour=stock arguments="console=ttyS0 panic=-1 reboot=t quiet"
if [ -e /sys/module/kvm_pvm ]; then
  flavour=patched
  # As in run.sh: what this ring 0 cannot execute, or is slow in.
  arguments+=" rodata=off no-kvmapf noxsave nofsgsbase nopku"
  arguments+=" clearcpuid=smap,smep,popcnt,cx16,rdrand,rdseed,pcid,invpcid,clflushopt,clwb,umip,rdpid,erms,fsrm"
  echo "linux-throughput: this KVM emulates ring 0, so these figures are the emulation's, not Linux's"
fi
build=$cache/build-$flavour
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
disk=${2:-$work/disk.img}
if [ ! -e "$disk" ]; then
  # Written, so that no read finds a hole.
  head -c 1G /dev/urandom >"$disk"
fi
cc -static -Os -Wall -Wextra -Werror -s -o "$work/init" "$here/throughput.c"
printf '%s\n' "dir /dev 0755 0 0" "nod /dev/console 0600 0 0 c 5 1" "file /init $work/init 0755 0 0" >"$work/initrd.list"
"$build/usr/gen_init_cpio" "$work/initrd.list" >"$work/initrd"
arguments+=" sizes=${SIZES:-4096,16384,65536,131072,1048576} depths=${DEPTHS:-8,32}"
arguments+=" operations=${OPERATIONS:-read,write} milliseconds=${MILLISECONDS:-500}"
status=0
timeout "${LIMIT:-600}" "$vmm" memory=256M cpus=1 "kernel=$build/vmlinux" "initrd=$work/initrd" "disk=path=$disk" serial=stdio control=none \
  no-reboot=on "command-line=$arguments" </dev/null >"$work/console" 2>&1 || status=$?
tr -d '\r' <"$work/console" | grep '^linux-throughput' || { tail -n 20 "$work/console" >&2; exit 1; }
[ "$status" = 0 ] || { tail -n 5 "$work/console" >&2; exit "$status"; }
