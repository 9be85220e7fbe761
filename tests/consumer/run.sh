#!/bin/sh
# Installs PESC into a folder of its own, builds a program against it, and runs that program embedded
# and then against daemons, with only the environment changed.
#
#   run.sh find_package|pkg_config|add_subdirectory BUILD_DIR SOURCE_DIR
set -eu
way=$1 build=$2 source=$3
work=$(mktemp -d "${TMPDIR:-/tmp}/pesc-consumer-XXXXXX")
chmod 755 "$work"  # the ranks of a worker that root starts are another user's
pids=""
trap 'for p in $pids; do kill "$p" 2>/dev/null || true; done; for p in $pids; do wait "$p" || true; done; rm -rf "$work"' EXIT
export HOME="$work/home" XDG_STATE_HOME="$work/state" XDG_CONFIG_HOME="$work/config"
unset PESC_COORDINATOR || true
prefix=$work/prefix

cmake --install "$build" --prefix "$prefix" >/dev/null
libdir=$(dirname "$(find "$prefix" -name libpesc.so)")
case $way in
  find_package)
    cmake -S "$source/tests/consumer/find_package" -B "$work/b" -G Ninja \
      -DCMAKE_PREFIX_PATH="$prefix" >/dev/null
    cmake --build "$work/b" >/dev/null
    consumer=$work/b/consumer ;;
  pkg_config)
    mkdir "$work/b"
    # The prefix is where the tree was moved to, not where it was configured for.
    export PKG_CONFIG_PATH="$libdir/pkgconfig"
    # shellcheck disable=SC2046
    "${CXX:-g++}" -std=c++20 -o "$work/b/consumer" "$source/tests/consumer/consumer.cc" \
      $(pkg-config --define-prefix --cflags --libs pesc)
    consumer=$work/b/consumer
    export LD_LIBRARY_PATH="$libdir" ;;
  add_subdirectory)
    # Configured and built in full: PESC inside another project's build. The slow way, so the
    # library alone.
    cmake -S "$source/tests/consumer/add_subdirectory" -B "$work/b" -G Ninja \
      -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS="-O0 -g0" >/dev/null
    cmake --build "$work/b" --target consumer >/dev/null
    consumer=$work/b/consumer ;;
  *) echo "run.sh: unknown way '$way'" >&2; exit 2 ;;
esac

cp "$build/examples/hello" "$work/hello"
cd "$work"
echo "embedded:"
timeout 120 "$consumer" ./hello

bin=$prefix/bin
"$bin/pesc-coordinator" --listen 127.0.0.1:0 --state "$work/c" >"$work/c.out" 2>"$work/c.log" &
pids="$pids $!"
address=""
while [ -z "$address" ]; do
  kill -0 "$!" 2>/dev/null || { cat "$work/c.log" >&2; exit 1; }
  address=$(sed -n 's/.*listening on \([^,]*\),.*/\1/p' "$work/c.out" "$work/c.log" | head -n 1)
done
"$bin/pesc-worker" --coordinator "$address" --state "$work/w" --cpus 2 2>"$work/w.log" &
pids="$pids $!"
echo "against $address:"
PESC_COORDINATOR=$address timeout 120 "$consumer" ./hello
