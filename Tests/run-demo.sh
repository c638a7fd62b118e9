#!/bin/sh
# What `make run` shows: the demo's shell with some commands, the block benchmark, and on a terminal the prompt.
# $1 is castor, $2 the scratch disk, which is made where it does not exist.
set -eu
castor=$1
disk=path=$2,size=256M
printf 'help\nservices\nps\nmem\nhalt\n' | "$castor" run --disk "$disk"
"$castor" bench block --quick
if [ -t 0 ] && [ -t 1 ]; then
  echo "The demo again, with this terminal as its console. Ctrl-A x quits, Ctrl-A h helps."
  exec "$castor" run --disk "$disk"
fi
