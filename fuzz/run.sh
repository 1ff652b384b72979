#!/usr/bin/env bash
# Coverage-guided fuzzing on the stable compiler.
#   fuzz/run.sh TARGET SECONDS [libFuzzer options]   one target; new inputs are kept in fuzz/corpus/TARGET
#   fuzz/run.sh --smoke SECONDS                      every target in turn, from what is committed alone
#   fuzz/run.sh --keep TARGET                        the fewest of all inputs that reach as much of the code go to fuzz/found/TARGET
#   fuzz/run.sh --build | --list                     the targets: made, or named
# Ends 1 on a crash; the input that caused it is left in fuzz/artifacts/TARGET.
# To add a target: a file src/bin/NAME.rs, and a few inputs in seeds/NAME. `seeds` are made by people, `found` by long runs; both are committed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

targets() { for f in src/bin/*.rs; do basename "$f" .rs; done; }

usage() { sed -n '2,8s/^# \{0,1\}//p' run.sh >&2; exit 2; }

# What `cargo fuzz` would pass, less the sanitizers, which need a nightly compiler.
flags="-C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4
  -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table
  -C llvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"

# With an explicit --target the flags reach neither build scripts nor macros.
host=$(rustc -vV | sed -n 's/^host: //p')
bin=target/$host/release

build() {
  CARGO_TARGET_DIR=target RUSTFLAGS="$(echo $flags)" \
    cargo build --quiet --locked --release --target "$host" "$@"
}

# run TARGET SECONDS CORPUS-DIRECTORIES-AND-OPTIONS…
run() {
  local target=$1 seconds=$2; shift 2
  mkdir -p "artifacts/$target" "seeds/$target" "found/$target"
  local dict=(); [ -f "seeds/$target.dict" ] && dict=("-dict=seeds/$target.dict")
  "$bin/$target" "$@" "${dict[@]}" -max_total_time="$seconds" -max_len=4096 -timeout=5 \
    -rss_limit_mb=1024 -print_final_stats=1 -artifact_prefix="artifacts/$target/"
}

case ${1-} in
  --list) targets ;;
  --build) build --bins ;;
  --smoke)
    [[ ${2-} =~ ^[0-9]+$ ]] || usage
    build --bins
    failed=()
    for target in $(targets); do
      log=$(mktemp) corpus=$(mktemp -d)
      if run "$target" "$2" "$corpus" "seeds/$target" "found/$target" >"$log" 2>&1; then
        printf '%-16s ok  %s\n' "$target" "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log") runs"
      else
        printf '%-16s CRASH\n' "$target"; tail -n 40 "$log"; failed+=("$target")
      fi
      rm -rf "$log" "$corpus"
    done
    [ ${#failed[@]} -eq 0 ] || { echo "crashed: ${failed[*]}" >&2; exit 1; }
    ;;
  --keep)
    [ -f "src/bin/${2-}.rs" ] || usage
    build --bin "$2"
    mkdir -p "corpus/$2" "seeds/$2" "found/$2"
    all=$(mktemp -d)
    cp -r "corpus/$2/." "seeds/$2/." "found/$2/." "$all"
    rm -rf "found/$2"; mkdir "found/$2"
    # Only which code is reached counts, not how often.
    "$bin/$2" -set_cover_merge=1 -use_counters=0 -max_len=4096 "found/$2" "$all" 2>&1 | tail -n 1
    rm -rf "$all"
    ;;
  "" | -*) usage ;;
  *)
    [ -f "src/bin/$1.rs" ] && [[ ${2-} =~ ^[0-9]+$ ]] || usage
    target=$1 seconds=$2; shift 2
    build --bin "$target"
    mkdir -p "corpus/$target"
    run "$target" "$seconds" "corpus/$target" "seeds/$target" "found/$target" "$@" || exit 1
    ;;
esac
