#!/usr/bin/env bash
# Installs what the build needs besides Rust, on Debian and Ubuntu. Quick and silent when nothing is
# missing; safe to run at any time.
#
#   gcc g++ make        C libraries that are built along: librdkafka, zstd, aws-lc
#   pkg-config          finds the two below
#   libssl-dev          TLS to Kafka
#   zlib1g-dev          compression in librdkafka
#   protobuf-compiler   turns the messages of Substrait plans into code
#   libprotobuf-dev     the messages that these build on
set -euo pipefail

say() { printf '%s\n' "$*" >&2; }

command -v cargo >/dev/null || {
    say "cargo is missing. Next: install Rust from https://rustup.rs, then again"
    exit 1
}

missing=()
has() { command -v "$1" >/dev/null; }
has gcc || missing+=(gcc)
has g++ || missing+=(g++)
has make || missing+=(make)
has protoc || [[ -n ${PROTOC:-} ]] || missing+=(protobuf-compiler)
well_known=google/protobuf/any.proto
[[ -e /usr/include/$well_known || -e /usr/local/include/$well_known || -e ${PROTOC_INCLUDE:-}/$well_known ]] ||
    missing+=(libprotobuf-dev)
if has pkg-config; then
    pkg-config --exists openssl || missing+=(libssl-dev)
    pkg-config --exists zlib || missing+=(zlib1g-dev)
else
    missing+=(pkg-config libssl-dev zlib1g-dev)
fi
((${#missing[@]})) || exit 0

if ! has apt-get; then
    say "missing: ${missing[*]} (these are the names on Debian)."
    say "Next: install them with this system's own package manager, then again"
    exit 1
fi
as_root=()
if [[ $(id -u) != 0 ]]; then
    if ! has sudo || { ! sudo -n true 2>/dev/null && [[ ! -t 0 ]]; }; then
        say "missing: ${missing[*]}. Next, as root: apt-get install ${missing[*]}"
        exit 1
    fi
    as_root=(sudo)
fi
say "installing by apt: ${missing[*]}"
"${as_root[@]}" apt-get update -q >/dev/null
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
