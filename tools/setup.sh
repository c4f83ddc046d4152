#!/usr/bin/env bash
# Makes .venv with all that fastgate needs to run, or with what its tests need as well, and builds the extension.
# Usage: tools/setup.sh run|test. PYTHON names the interpreter; by default the first of the usual names from 3.11 on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
level="$1"
venv=.venv

find_python() {
    local name
    for name in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$name"
            return
        fi
    done
}

has() { PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v "$1" >/dev/null; }

python="$(find_python)"
packages=()
if [ -z "$python" ]; then
    if [ -n "${PYTHON:-}" ] || has python3; then
        echo "fastgate: needs Python 3.11 or later; PYTHON=... names one" >&2
        exit 1
    fi
    packages+=(python3 python3-dev python3-venv)
else
    name="$(basename "$python")"
    "$python" -c 'import ensurepip, venv' 2>/dev/null || packages+=("$name-venv")
    "$python" -c 'import os, sys, sysconfig as s; sys.exit(not os.path.exists(s.get_path("include") + "/Python.h"))' ||
        packages+=("$name-dev")
fi
has cc || packages+=(gcc libc6-dev)
if [ "$level" = test ]; then
    has nginx || packages+=(nginx-light)
    has haproxy || packages+=(haproxy)
    has wrk || packages+=(wrk)
    has curl || packages+=(curl)
    has openssl || packages+=(openssl)
    has testssl || packages+=(testssl.sh)
    test -e /usr/include/openssl/ssl.h || packages+=(libssl-dev) # bench/native/handshake.c
    has taskset || packages+=(util-linux)
    [ -e /usr/lib/nginx/modules/ngx_http_lua_module.so ] || packages+=(libnginx-mod-http-lua)
    compgen -G '/usr/lib/*/lua/5.1/cjson.so' >/dev/null || packages+=(lua-cjson) # bench/peers/nginx.py
    has prometheus || packages+=(prometheus)
    has redis-server || packages+=(redis-server)
    has pebble || packages+=(pebble)
    has chromium || packages+=(chromium) # the admin page is tested in it
fi
[ ${#packages[@]} = 0 ] || tools/apt.sh "${packages[@]}"
python="${python:-$(find_python)}"
[ -n "$python" ] || { echo "fastgate: needs Python 3.11 or later, and this system's is older" >&2; exit 1; }

# A .venv whose interpreter has gone is made anew.
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    echo "fastgate: making $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
fi
pip=("$venv/bin/python" -m pip --disable-pip-version-check install)
extras=""
[ "$level" = run ] || extras="[dev,bench]"
echo "fastgate: installing Python packages and building the extension (the compiler takes about a minute)"
"${pip[@]}" "setuptools>=70.1" "cython>=3.1" # before 70.1 it cannot make a wheel alone
"${pip[@]}" --no-build-isolation --editable ".$extras"
