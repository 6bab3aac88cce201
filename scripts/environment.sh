# Sourced by the scripts beside it: one environment in the checkout, made when it is missing, brought up to date
# when pyproject.toml has changed. Needs Python >= 3.11 and a package index, nothing else.
#
#   ENGINERY_PYTHON  the interpreter to make the environment from (default: the newest python3.x found)
#   ENGINERY_VENV    where the environment is (default: .venv in the checkout)

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
venv="${ENGINERY_VENV:-$root/.venv}"
python="$venv/bin/python"

find_python() {
    local name
    for name in "${ENGINERY_PYTHON:-}" python3.14 python3.13 python3.12 python3.11 python3 python; do
        if [[ -n "$name" ]] && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
        if [[ -n "$name" && "$name" == "${ENGINERY_PYTHON:-}" ]]; then
            echo "ENGINERY_PYTHON is $name, which is not a Python of at least 3.11. Name another one." >&2
            return 1
        fi
    done
    echo "No Python of at least 3.11 was found. Install one, or name it in ENGINERY_PYTHON." >&2
    return 1
}

make_environment() {
    local base
    base="$(find_python)"
    echo "making $venv from $base" >&2
    # Some distributions ship Python without ensurepip; pip is then lent by the base interpreter.
    "$base" -m venv "$venv" >/dev/null 2>&1 || "$base" -m venv --clear --without-pip "$venv"
    echo "$base" >"$venv/.enginery-base"
}

install_extras() {
    if "$python" -m pip --version >/dev/null 2>&1; then
        "$python" -m pip install --quiet --disable-pip-version-check -e ".$1"
    else
        "$(cat "$venv/.enginery-base" 2>/dev/null || find_python)" -m pip --python "$python" install --quiet --disable-pip-version-check -e ".$1"
    fi
}

# ensure_environment [EXTRA]: afterwards $python runs enginery, with what the extra names.
ensure_environment() {
    local extra="${1:-}" stamp now
    stamp="$venv/.enginery-stamp${extra:+-$extra}"
    now="$root $(cksum <pyproject.toml)"
    [[ -x "$python" ]] || make_environment
    if [[ "$(cat "$stamp" 2>/dev/null)" != "$now" ]]; then
        install_extras "${extra:+[$extra]}"
        echo "$now" >"$stamp"
    fi
    export PATH="$venv/bin:$PATH"
}
