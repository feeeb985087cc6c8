#!/bin/sh
# Make the virtual environment $1 with $PYTHON, or with the newest Python >= 3.11 on PATH.
set -eu
venv=$1

recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

python=${PYTHON:-}
if [ -z "$python" ]; then
    for candidate in python3 python3.13 python3.12 python3.11; do
        if recent "$candidate"; then python=$candidate; break; fi
    done
fi
if [ -z "$python" ] || ! recent "$python"; then
    echo "error: webkiln needs Python 3.11 or newer${python:+, and $python is older or missing}" >&2
    echo "try: apt-get install -y python3 python3-venv, or make PYTHON=/path/to/python3.11" >&2
    exit 2
fi

# Debian and Ubuntu keep ensurepip, and with it a working venv, in a package of its own.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing $package"
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$package" >/dev/null
    else
        echo "error: this Python cannot make virtual environments" >&2
        echo "try: sudo apt-get install -y $package" >&2
        exit 2
    fi
fi

if [ -x "$venv/bin/python" ] && recent "$venv/bin/python"; then exit 0; fi
"$python" -m venv --clear "$venv"
