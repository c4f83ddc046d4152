#!/usr/bin/env bash
# Installs Debian packages, as root or through sudo; tells what is missing where neither is possible.
# Usage: tools/apt.sh PACKAGE...
set -euo pipefail

give_up() {
    printf 'fastgate: missing here, as Debian names them: %s\nfastgate: %s\n' "$packages" "$1" >&2
    exit 1
}

packages="$*"
command -v apt-get >/dev/null || give_up "there is no apt-get: install what corresponds to them, then run this again"
as=()
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || give_up "run as root: apt-get install $packages"
    # Without a terminal nobody could type a password.
    sudo -n true 2>/dev/null || [ -t 0 ] || give_up "sudo would ask for a password; run: sudo apt-get install $packages"
    as=(sudo)
fi
echo "fastgate: installing Debian packages: $packages"
# RUNLEVEL=1 keeps the services among them from being started.
apt=("${as[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -q -o DPkg::Lock::Timeout=120)
"${apt[@]}" update || echo "fastgate: apt-get update failed; trying with the lists that are here" >&2
"${apt[@]}" install -y --no-install-recommends "$@" || give_up "apt-get could not install them"
