#!/bin/sh
# The steps of the image's builder. They need Python 3.11 or later with pip, and no container:
#
#     deploy/image/build.sh packages <destination>    an environment with what Plexus runs on
#     deploy/image/build.sh program <destination>     the program, generated and compiled
#
# The environment remembers its path, so the destination is where it stays.
set -eu

step=${1:?packages or program}
target=${2:?a destination}
root=$(cd "$(dirname "$0")/../.." && pwd)
base=${PYTHON:-python3}
python=$target/.venv/bin/python

install() {
  # The environment itself never holds pip: the builder's installs into it.
  "$base" -m pip --python "$python" --disable-pip-version-check --quiet \
    install --no-compile "$@"
}

case $step in
  packages)
    mkdir -p "$target"
    "$base" -m venv --without-pip "$target/.venv"
    install --require-hashes -r "$root/requirements/runtime.txt"
    ;;
  program)
    for each in LICENSE README.md pyproject.toml proto gateway services; do
      cp -R "$root/$each" "$target/"
    done
    mkdir -p "$target/image" "$target/generated"
    cp "$root/deploy/image/entrypoint.sh" "$root/deploy/image/health.py" "$target/image/"
    cd "$target"
    "$python" -m proto.tools.generate
    # In place, since the program finds what is generated beside itself.
    install --no-build-isolation --no-deps --editable "$target"
    "$base" "$root/deploy/image/strip.py" "$root/requirements/runtime.in" "$target/.venv"
    find "$target" -name __pycache__ -type d -prune -exec rm -rf {} +
    # A read-only file system takes no bytecode later, and times of files differ between builds.
    "$python" -m compileall -q -j 0 --invalidation-mode unchecked-hash "$target" || {
      # Some packages carry templates that are no valid Python; our own must compile.
      "$python" -m compileall -q --invalidation-mode unchecked-hash \
        "$target/services" "$target/gateway" "$target/proto" "$target/generated"
    }
    ;;
  *)
    echo "build.sh: packages or program, not $step" >&2
    exit 2
    ;;
esac
