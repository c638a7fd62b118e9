#!/bin/sh
# Installs the Debian packages that are named and missing; with sudo when not root. Where there is no apt it says what is
# needed and goes on: the packages may be there under other names.
set -eu
missing=
for package; do
  state=$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null || true)
  case $state in i*) ;; *) missing="$missing $package" ;; esac
done
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null; then
  echo "needed, by the names of Debian packages:$missing" >&2
  exit 0
fi
sudo=
[ "$(id -u)" -eq 0 ] || sudo=sudo
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # a list of names
$sudo apt-get install -y --no-install-recommends $missing ||
  { $sudo apt-get update && $sudo apt-get install -y --no-install-recommends $missing; }
