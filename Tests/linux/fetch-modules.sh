#!/bin/sh
# Fetches Debian's kernel for clouds, for its driver modules: the newest version that apt knows, unpacked below the folder $1
# (default .build/linux-modules), which then holds lib/modules/VERSION and boot/config-VERSION. Does nothing where that
# version is there already. Needs neither root nor an installed kernel. PACKAGE in the environment names another package:
# linux-image-cloud-amd64 is the release's own kernel.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-$(dirname "$(dirname "$here")")/.build/linux-modules}
for tool in apt-get apt-cache dpkg-deb; do
  command -v "$tool" >/dev/null || { echo "fetch-modules: $tool is needed: this fetches a Debian package" >&2; exit 69; }
done

# Names are linux-image-VERSION-cloud-amd64, besides those of debugging symbols and unsigned kernels. The newest is found by
# the version of the package, since names sort otherwise; a package that only names another one has no modules.
package=${PACKAGE:-}
if [ -z "$package" ]; then
  names=$(apt-cache search --names-only '^linux-image-[0-9].*-cloud-amd64$' | cut -d' ' -f1)
  # shellcheck disable=SC2086 # a list of names
  [ -z "$names" ] || package=$(apt-cache show --no-all-versions $names | awk '
    /^Package: / { name = $2; skip = 0 }
    /^Version: / { version = $2 }
    /^Depends: linux-image-/ { skip = 1 }
    /^$/ { if (name != "" && !skip) print version, name; name = "" }
    END { if (name != "" && !skip) print version, name }' | sort -V | tail -n 1 | cut -d' ' -f2)
fi
# A package that stands for the newest of a series, such as linux-image-cloud-amd64, names it.
named=$(apt-cache show --no-all-versions "$package" 2>/dev/null | sed -n 's/^Depends: \(linux-image-[^ ,]*\).*/\1/p')
[ -z "$named" ] || package=$named
[ -n "$package" ] || { echo "fetch-modules: apt knows no linux-image-…-cloud-amd64; run apt-get update" >&2; exit 69; }
version=$(apt-cache show --no-all-versions "$package" | sed -n 's/^Version: //p')
if [ "$(cat "$folder/version" 2>/dev/null)" = "$package $version" ]; then
  echo "$package $version is in $folder"
  exit 0
fi

mkdir -p "$(dirname "$folder")"
work=$(mktemp -d "$(dirname "$folder")/linux-modules-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
(cd "$work" && apt-get download "$package")
mkdir "$work/unpacked"
dpkg-deb -x "$work"/*.deb "$work/unpacked"
# Where / and /usr are one, the package has its modules below usr/lib.
modules=$work/unpacked/lib/modules
[ -d "$modules" ] || modules=$work/unpacked/usr/lib/modules
mkdir -p "$work/result/lib" "$work/result/boot"
mv "$modules" "$work/result/lib/modules"
mv "$work"/unpacked/boot/config-* "$work/result/boot/"
echo "$package $version" >"$work/result/version"
rm -rf "$folder"
mv "$work/result" "$folder"
echo "$package $version: $(find "$folder" -name '*.ko*' | wc -l) modules in $folder"
