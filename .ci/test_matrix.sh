#!/usr/bin/env bash
# The suite on every supported Python, with the oldest and the newest packages each.
# test_matrix.sh [3.11-oldest 3.12-newest ...] -- [arguments of pytest]
# An interpreter that is not on this machine is named as missing and is no failure.
cd "$(dirname "$0")/.." || exit 1

cells=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do cells+=("$1"); shift; done
shift
if [ ${#cells[@]} -eq 0 ]; then
    for version in 3.11 3.12 3.13; do cells+=("$version-oldest" "$version-newest"); done
fi

# A name may be on the PATH without running (pyenv's shims), so each is tried.
interpreter() {
    local candidate
    for candidate in "python$1" "$HOME"/.pyenv/versions/"$1".*/bin/python; do
        if [ "$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' \
            2>/dev/null)" = "$1" ]; then
            echo "$candidate"
            return
        fi
    done
}

# The lower bounds of install_requires, as constraints for pip.
oldest() {
    sed -n '/^install_requires/,/^$/p' setup.cfg | grep '>=' | sed 's/>=/==/'
}

mkdir -p .matrix
report=()
failed=0
for cell in "${cells[@]}"; do
    version=${cell%-*}
    kind=${cell#*-}
    python=$(interpreter "$version")
    if [ -z "$python" ]; then
        report+=("$cell: missing, python$version is not on this machine")
        continue
    fi
    venv=.matrix/$cell
    : > "$venv.txt"
    if [ "$kind" = oldest ]; then oldest > "$venv.txt"; fi
    if { [ -d "$venv" ] || "$python" -m venv "$venv"; } &&
        "$venv/bin/pip" install --quiet --no-compile --upgrade --upgrade-strategy eager \
            -c "$venv.txt" --editable '.[test]' &&
        "$venv/bin/python" -m pytest -n "${WORKERS:-2}" --dist loadfile "$@"; then
        result=passed
    else
        result=FAILED
        failed=1
    fi
    jax=$("$venv/bin/python" -c 'import jax; print(jax.__version__)' 2>/dev/null)
    report+=("$cell: $result (jax $jax)")
done
printf '%s\n' "" "Matrix:" "${report[@]}"
exit $failed
