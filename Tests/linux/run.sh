#!/bin/bash
# Boots Linux on Castor, as an independent client of its devices: PVH ELF and bzImage, directly and through the boot ROM,
# 1 and 2 CPUs, 1 and 4 disk queues. Each run mounts, reads and writes a checksummed ext2 disk, pings the host, measures
# time and powers off (init.c); this script checks from outside what it can: the exit code, the disk image, the clock.
# Usage: run.sh CASTOR-VMM [CASE…]   A case is FORMAT:CPUS:QUEUES[:firmware]. Without any: all of them.
# Needs /dev/kvm, and root for the TAP interface. Environment: CACHE (default .cache/linux), LINUX_TEST_VERBOSE=1.
set -u
here=$(cd "$(dirname "$0")" && pwd)
vmm=$(realpath "$1") || exit 1
shift
cache=$(realpath -m "${CACHE:-$here/../../.cache/linux}")
cases=("$@")
if [ ${#cases[@]} = 0 ]; then
  cases=(pvh:1:1 pvh:1:4 pvh:2:1 pvh:2:4 bzimage:1:1 bzimage:2:4 pvh:1:1:firmware bzimage:1:1:firmware)
fi

# A network namespace of its own: no clash with the host's interfaces, and nothing left behind.
if [ -z "${LINUX_TEST_NAMESPACE:-}" ]; then
  [ "$(id -u)" = 0 ] || exec sudo --preserve-env=CACHE,JOBS,LINUX_TEST_VERBOSE "$0" "$vmm" "${cases[@]}"
  "$here/build-kernel.sh" "$cache" || exit 1
  for tool in mke2fs:e2fsprogs debugfs:e2fsprogs ip:iproute2 cc:gcc; do
    command -v "${tool%:*}" >/dev/null || apt-get install -y -q "${tool#*:}" || exit 1
  done
  LINUX_TEST_NAMESPACE=1 exec unshare --net "$0" "$vmm" "${cases[@]}"
fi

if [ -e /sys/module/kvm_pvm ]; then flavour=patched; else flavour=stock; fi
build=$cache/build-$flavour
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Command line. On a software KVM Linux must not use what its ring 0 cannot execute, nor what is slow there.
arguments="console=ttyS0 panic=-1 reboot=t"
if [ $flavour = patched ]; then
  arguments+=" rodata=off no-kvmapf thash_entries=16 uhash_entries=128 noxsave nofsgsbase nopku"
  arguments+=" clearcpuid=smap,smep,popcnt,cx16,rdrand,rdseed,pcid,invpcid,clflushopt,clwb,umip,rdpid,erms,fsrm"
fi

cc -static -Os -Wall -Wextra -Werror -s -o "$work/init" "$here/init.c" || exit 1
printf '%s\n' "dir /dev 0755 0 0" "nod /dev/console 0600 0 0 c 5 1" "dir /disk 0755 0 0" "file /init $work/init 0755 0 0" \
  >"$work/initrd.list"
"$build/usr/gen_init_cpio" "$work/initrd.list" >"$work/initrd" || exit 1

ip link set lo up
ip tuntap add tap0 mode tap && ip address add 10.77.0.1/24 dev tap0 && ip link set tap0 up || exit 1

# Runs one case, without reboots (a guest that restarts would run the test again and again); prints its log when it fails.
run_case() {
  local format cpus queues start kernel sum status begin end guest real before after failed=
  IFS=: read -r format cpus queues start <<<"$1"
  case $format in
    pvh) kernel=$build/vmlinux ;;
    bzimage) kernel=$build/arch/x86/boot/bzImage ;;
    *) echo "linux: no such kernel format: $format" >&2; return 1 ;;
  esac
  rm -rf "$work/tree" "$work/disk.img"
  mkdir "$work/tree"
  head -c 786433 /dev/urandom >"$work/tree/input"
  sum=$(cksum <"$work/tree/input" | cut -d' ' -f1)
  truncate -s 8M "$work/disk.img"
  mke2fs -q -t ext2 -b 4096 -d "$work/tree" "$work/disk.img" || return 1

  local options=(memory=64M "cpus=$cpus" "kernel=$kernel" "initrd=$work/initrd" "disk=path=$work/disk.img,queues=$queues"
    net=tap=tap0 entropy=on serial=stdio control=none no-reboot=on
    "command-line=$arguments cpus=$cpus queues=$queues address=10.77.0.2 peer=10.77.0.1 input=$sum entropy=1")
  [ "$start" = firmware ] && options+=(firmware=on)
  before=$EPOCHREALTIME
  timeout 300 "$vmm" "${options[@]}" </dev/null 2>&1 | while IFS= read -r line; do
    printf '%s %s\n' "$EPOCHREALTIME" "$line"
    [ -z "${LINUX_TEST_VERBOSE:-}" ] || printf '%s\n' "$line" >&2
  done >"$work/log"
  status=${PIPESTATUS[0]}
  after=$EPOCHREALTIME

  [ "$status" = 0 ] || failed+=" exit code $status;"
  grep -q 'linux-test: passed' "$work/log" || failed+=" init did not report success;"
  # Also what comes after "passed": a guest that could not power off restarts, and that ends the machine as well.
  ! grep -q 'linux-test:.*FAILED' "$work/log" || failed+=" a check failed;"
  begin=$(sed -n 's/^\([0-9.]*\) .*linux-test: mark begin.*/\1/p' "$work/log")
  read -r end guest real < <(sed -n 's/^\([0-9.]*\) .*linux-test: mark end \([0-9.]*\) \([0-9.]*\).*/\1 \2 \3/p' "$work/log")
  local clock
  clock=$(awk -v b="${begin:-0}" -v e="${end:-0}" -v g="${guest:-0}" -v r="${real:-0}" 'BEGIN {
    host = e - b; if (host <= 0) { print "no marks"; exit }
    m = (g - host) / host * 100; w = (r - host) / host * 100
    printf "%+.2f %% monotonic, %+.2f %% real%s", m, w, (m * m > 1 || w * w > 1) ? " TOO FAR" : "" }')
  case $clock in *TOO* | no*) failed+=" clock: $clock;" ;; esac
  e2fsck -fn "$work/disk.img" >"$work/fsck" 2>&1 || failed+=" the file system is damaged;"
  debugfs -R "dump /output $work/output" "$work/disk.img" >/dev/null 2>&1
  [ "$(cksum <"$work/output" 2>/dev/null | cut -d' ' -f1)" = "$(sed -n 's/.*linux-test: output \([0-9]*\).*/\1/p' "$work/log" | tr -d '\r')" ] ||
    failed+=" the disk image does not hold what the guest wrote;"
  rm -f "$work/output"
  if [ -n "$failed" ]; then
    echo "linux $1: FAILED:$failed"
    cut -d' ' -f2- "$work/log" | tail -n 60
    cat "$work/fsck" 2>/dev/null
    return 1
  fi
  awk -v name="$1" -v s="$before" -v e="$after" -v clock="$clock" \
    'BEGIN { printf "linux %s: passed in %.1f s; guest clock against the host: %s\n", name, e - s, clock }'
}

failures=0
for case in "${cases[@]}"; do run_case "$case" || failures=$((failures + 1)); done
[ $failures = 0 ] && echo "linux: all ${#cases[@]} cases passed" || echo "linux: $failures of ${#cases[@]} cases FAILED"
exit $((failures != 0))
