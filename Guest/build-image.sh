#!/bin/sh
# Builds the guest package, checks the kernel, and leaves kernel.elf and archive.tar in the folder $1. $2 is the image tool
# (Guest/Tools/pollux-image), $3 the swift command. If $1 lies inside a scratch folder as `swift build` makes them
# (…/plugins/outputs/…), both files are also copied to the scratch folder's pollux/, where `castor` and the tests look.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd) image=$2 swift=${3:-swift}
scratch=$out/scratch
toolchain=$(dirname "$(readlink -f "$(command -v "$swift")")")
[ -x "$toolchain/llvm-objdump" ] || toolchain=$(dirname "$(command -v llvm-objdump)")
PATH=$toolchain:$PATH

# An import that the package does not declare builds or fails by the order of compilation: refused always.
"$swift" build --package-path "$here" --scratch-path "$scratch" -c release --triple x86_64-unknown-none-elf \
  --explicit-target-dependency-import-check error
bin=$scratch/x86_64-unknown-none-elf/release

llvm-objdump -d --no-show-raw-insn "$bin/kernel" | "$image" check
cp "$bin/kernel" "$out/kernel.elf.new" && mv "$out/kernel.elf.new" "$out/kernel.elf"

# Services for kernel space, built once more for it and checked.
services=$(sed -n 's/^[^ #]*  *kernel:\([^ ]*\).*/\1/p' "$here/archive.txt")
for service in $services; do
  POLLUX_SPACE=kernel "$swift" build --package-path "$here" --scratch-path "$scratch-kernel" -c release \
    --triple x86_64-unknown-none-elf --product "$service"
  built=$scratch-kernel/x86_64-unknown-none-elf/release/$service
  llvm-objdump -d --no-show-raw-insn "$built" | "$image" check-service "$built"
  llvm-objcopy --strip-all "$built" "$out/$service.kernel.stripped"
done

# The archive: programs without their debugging information (gdb reads it from $bin), then plain files.
set --
while read -r name source rest; do
  case $name in '' | '#'*) continue ;; esac
  if [ "${source#kernel:}" != "$source" ]; then
    set -- "$@" "$name=$out/${source#kernel:}.kernel.stripped"
  elif [ -f "$bin/$source" ]; then
    llvm-objcopy --strip-all "$bin/$source" "$out/$source.stripped"
    set -- "$@" "$name=$out/$source.stripped"
  else
    set -- "$@" "$name=$here/$source"
  fi
done <"$here/archive.txt"
# Linux's drivers, where Guest/Linux/make-drivers.sh has made them.
case $out in
*/plugins/outputs/*) drivers=${out%%/plugins/outputs/*}/pollux/linux ;;
*) drivers=$out/linux ;;
esac
for driver in "$drivers"/*.ko; do
  if [ -f "$driver" ]; then set -- "$@" "linux/${driver##*/}=$driver"; fi
done
"$image" archive "$out/archive.tar.new" "$@"
mv "$out/archive.tar.new" "$out/archive.tar"

# The tests that run in init's place, for Tests/GuestTests.
for test in kernel-test isolation-test; do
  llvm-objcopy --strip-all "$bin/$test" "$out/$test.stripped"
  "$image" archive "$out/$test.tar" "init=$out/$test.stripped"
done

# The test of drivers that cross the border, in the place of a container and its twin.
llvm-objcopy --strip-all "$bin/crossing-test" "$out/crossing-test.stripped"
"$image" archive "$out/crossing-test.tar" "init=$out/init.stripped" "block-container=$out/crossing-test.stripped" \
  "block-twin=$out/crossing-test.stripped"

case $out in
*/plugins/outputs/*)
  stable=${out%%/plugins/outputs/*}/pollux
  mkdir -p "$stable"
  for file in kernel.elf archive.tar kernel-test.tar isolation-test.tar crossing-test.tar; do
    cp "$out/$file" "$stable/$file.new" && mv "$stable/$file.new" "$stable/$file"
  done
  ;;
esac
