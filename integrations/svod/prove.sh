#!/usr/bin/env bash
# Svod's crates with the original runtime and with ours, side by side.
#
#   prove.sh suites            the test suites of svod-tensor and svod-onnx
#   prove.sh costs [MODEL.onnx NAME=SHAPE…]
#                              what a call, a launch, a start costs, and a model if one is named,
#                              in ROUNDS rounds (5)
#
# The published sources are taken from cargo's own cache into a temporary folder (or WORK, which
# is kept), and nothing of them stays. Needs clang in PATH, under any name that ends in its
# version or none, and protoc for svod-onnx.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
version=0.1.0-alpha.3
what=${1:-suites}
shift || true
if [[ -n ${WORK:-} ]]; then
    mkdir -p "$WORK"
    work=$(cd "$WORK" && pwd)
else
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
fi

# The original looks for `clang` and no other name.
mkdir -p "$work/bin"
clang=$(command -v clang || command -v clang-19 || compgen -c clang- | grep -E '^clang-[0-9]+$' | sort -V | tail -1) ||
    { echo "prove.sh: no clang in PATH; install clang-19" >&2; exit 1; }
ln -sf "$(command -v "$clang")" "$work/bin/clang"
export PATH="$work/bin:$PATH" SVOD_CC="$work/bin/clang"

cargo fetch --quiet --manifest-path "$here/Cargo.toml"
registry=${CARGO_HOME:-$HOME/.cargo}/registry/src

# patched FOLDER: has a workspace use ours.
patched() {
    printf '\n[patch.crates-io]\nsvod-runtime = { path = "%s/runtime" }\n' "$here" >>"$1/Cargo.toml"
}

# take CRATE SIDE: its sources, as a workspace of their own.
take() {
    local to=$work/$2/$1
    rm -rf "$to"
    mkdir -p "$work/$2"
    cp -r "$registry"/*/"$1-$version" "$to"
    chmod -R u+w "$to"
    rm -f "$to"/Cargo.lock "$to"/Cargo.toml.orig
    printf '\n[workspace]\n' >>"$to/Cargo.toml"
    [[ $2 == original ]] || patched "$to"
}

suite() {
    local crate=$1 side=$2
    take "$crate" "$side"
    local log=$work/$side/$crate.log
    (cd "$work/$side/$crate" && CARGO_TARGET_DIR=$work/target-$side cargo test --lib --no-run) \
        >"$log.build" 2>&1 || { tail -20 "$log.build" >&2; exit 1; }
    (cd "$work/$side/$crate" && SVOD_CACHE_DIR=$work/cache CARGO_TARGET_DIR=$work/target-$side \
        cargo test --lib) >"$log" 2>&1 || true
    # What the tests took, and not cargo.
    sed -nE 's/^test result: .* finished in ([0-9.]+)s$/\1/p' "$log" | tail -1 >"$log.seconds"
    sed -nE 's/^test (.*) \.\.\. (ok|FAILED|ignored.*)$/\1 \2/p' "$log" | sort >"$log.list"
}

case $what in
suites)
    for crate in ${CRATES:-svod-tensor svod-onnx}; do
        rm -rf "$work/cache"
        for side in original ours; do suite "$crate" "$side"; done
        count() { grep -c " $2" "$work/$1/$crate.log.list" || true; }
        printf '%s\n%-10s %8s %8s %8s %8s\n' "$crate" "" passed failed ignored seconds
        for side in original ours; do
            printf '%-10s %8s %8s %8s %8s\n' "$side" "$(count $side ok)" "$(count $side FAILED)" \
                "$(count $side ignored)" "$(cat "$work/$side/$crate.log.seconds")"
        done
        echo "tests that end differently (< original, > ours):"
        diff "$work/original/$crate.log.list" "$work/ours/$crate.log.list" >"$work/differs" || true
        grep '^[<>]' "$work/differs" || echo "  none"
    done
    ;;
costs)
    for side in original ours; do
        rm -rf "$work/compare-$side"
        cp -r "$here/compare" "$work/compare-$side"
        [[ $side == original ]] || patched "$work/compare-$side"
        cargo build --quiet --release --manifest-path "$work/compare-$side/Cargo.toml" \
            --target-dir "$work/target-compare-$side"
    done
    run() { "$work/target-compare-$1/release/svod-compare" "${@:2}"; }
    export SVOD_CACHE_DIR=$work/cache
    both() {
        paste <(run original "$@") <(run ours "$@") |
            awk -F'\t' '{printf "%-46s %12s %12s %-3s %8.2f\n", $1, $2, $5, $3, $2 / $5}'
    }
    printf '%-46s %12s %12s %-3s %8s\n' "" original ours "" ratio
    both overhead
    if [[ $# -gt 0 ]]; then
        first='from the file to the first answer'
        median() { # of a line of all rounds
            awk -F'\t' -v name="$2" '$1 == name {print $2}' "$work/$1".* | sort -g |
                awk '{v[NR] = $1} END {if (!NR) exit 1; print v[int((NR + 1) / 2)]}'
        }
        row() { awk -v n="$1" -v a="$2" -v b="$3" -v u="$4" \
            'BEGIN {printf "%-46s %12.1f %12.1f %-3s %8.2f\n", n, a, b, u, a / b}'; }
        less() { awk -v a="$1" -v b="$2" 'BEGIN {print a - b}'; }
        for threads in 1 2; do
            export SVOD_THREADS=$threads RAYON_NUM_THREADS=$threads
            rm -f "$work"/{original,empty,full}.*
            for ((round = 0; round < ${ROUNDS:-5}; round++)); do
                rm -rf "$work/cache"
                run original model "$@" >"$work/original.$round"
                run ours model "$@" >"$work/empty.$round"
                run ours model "$@" >"$work/full.$round"
            done
            echo "$1, threads: $threads, medians of ${ROUNDS:-5} rounds"
            original=$(median original "$first")
            empty=$(median empty "$first")
            full=$(median full "$first")
            run_original=$(median original 'a run')
            run_full=$(median full 'a run')
            row "$first, empty cache" "$original" "$empty" ms
            # The original keeps no objects: each of its starts is the first.
            row "the same, compiled before" "$original" "$full" ms
            # What is left with all compiled is Svod's own work, which is the same with both, and
            # some milliseconds of ours, in which kernels are found again.
            row "what of the first is compiling" "$(less "$original" "$full")" "$(less "$empty" "$full")" ms
            row "a run" "$run_original" "$run_full" us
        done
    fi
    ;;
*)
    sed -n '2,11p' "$0"
    exit 2
    ;;
esac
