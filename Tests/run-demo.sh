#!/bin/sh
# What `make run` shows: the demo's shell with some commands, the block benchmark, and on a terminal the prompt.
# $1 is castor, $2 the scratch disk, which is made where it does not exist.
set -eu
castor=$1
disk=path=$2,size=256M
# The pause lets the services start, so that they are seen running.
(
  sleep 1
  printf 'services\nps\nmem\nls\nhalt\n'
) | "$castor" run --disk "$disk"
echo
"$castor" bench block --quick
if [ -t 0 ] && [ -t 1 ]; then
  echo "The demo again, with this terminal as its console. Ctrl-A x quits, Ctrl-A h helps."
  exec "$castor" run --disk "$disk"
fi
