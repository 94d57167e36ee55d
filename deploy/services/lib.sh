# Shared by up, down and kafka-topics; sourced, never run.
# shellcheck shell=bash disable=SC2034
export LC_ALL=C

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
STATE=$(realpath -m "${TIDEMILL_SERVICES_DIR:-$HERE/../../.services}")
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/tidemill/services
SERVICES=(kafka s3 clickhouse)

KAFKA_PORT=${TIDEMILL_KAFKA_PORT:-9092}
KAFKA_CONTROLLER_PORT=${TIDEMILL_KAFKA_CONTROLLER_PORT:-9093}
S3_PORT=${TIDEMILL_S3_PORT:-9000}
CLICKHOUSE_PORT=${TIDEMILL_CLICKHOUSE_PORT:-8123}
export TIDEMILL_CLICKHOUSE_PASSWORD=${TIDEMILL_CLICKHOUSE_PASSWORD:-tidemill}
READY_SECS=${TIDEMILL_SERVICES_READY_SECS:-60}

say() { printf '%s\n' "$*" >&2; }
die() {
    say "error: $*"
    exit 1
}

check_names() {
    local name
    for name in "$@"; do
        [[ " ${SERVICES[*]} " == *" $name "* ]] || die "no service '$name'; there are: ${SERVICES[*]}"
    done
}

# One up or down at a time on a state folder. A service must not inherit the lock: see `start`.
lock_state() {
    mkdir -p "$STATE"
    exec 9>"$STATE/lock"
    flock -w 300 9 || die "another up or down holds $STATE/lock for 300 s; see what it is doing"
}

# --- software ---------------------------------------------------------------------------------

# apt_install PACKAGES...: of `a|b` the first that this distribution has.
apt_install() {
    local sudo=() found=() package choice
    if [[ $(id -u) != 0 ]]; then
        sudo=(sudo -n)
        sudo -n true 2>/dev/null || die "missing packages. Next, as root: apt-get install ${*%%|*}"
    fi
    command -v apt-get >/dev/null || die "missing: ${*%%|*}, and there is no apt-get; install them by hand"
    say "installing by apt: ${*%%|*}"
    "${sudo[@]}" apt-get update -q >/dev/null || die "apt-get update failed; see above"
    for package in "$@"; do
        for choice in ${package//|/ }; do
            if apt-cache show "$choice" >/dev/null 2>&1; then break; fi
        done
        found+=("$choice")
    done
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends "${found[@]}" >/dev/null ||
        die "apt-get install ${found[*]} failed; see above"
}

# cached NAME COMMAND...: makes $CACHE/NAME by `COMMAND... <folder>` unless it is there. It is
# made beside its place and renamed, so that a broken download is not mistaken for software.
cached() {
    local name=$1 making=$CACHE/.making-$1.$$
    shift
    [[ ! -d $CACHE/$name ]] || return 0
    mkdir -p "$making"
    say "downloading $name into $CACHE (once)"
    "$@" "$making" || die "could not download $name; see above. Next: see that the registry answers, then up again"
    # Another clone may have been first; its copy is as good.
    mv -T "$making" "$CACHE/$name" 2>/dev/null || [[ -d $CACHE/$name ]] || die "cannot write $CACHE/$name"
}
trap 'rm -rf "$CACHE"/.making-*.$$' EXIT

# python_env PACKAGES... FOLDER: only bin/python of it may be used, as the folder gets renamed.
python_env() {
    local folder=${*: -1}
    python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3 python3-venv
    python3 -m venv "$folder" && "$folder/bin/python" -m pip install -q --disable-pip-version-check "${@:1:$#-1}"
}

# --- processes --------------------------------------------------------------------------------

# A pid alone may belong to somebody else by now, so that a service carries a mark.
running() {
    local pid
    pid=$(cat "$STATE/$1.pid" 2>/dev/null) || return 1
    grep -qzxF "TIDEMILL_SERVICE=$STATE/$1" "/proc/$pid/environ" 2>/dev/null
}

# start NAME COMMAND...: detached from this shell, its terminal and its lock.
start() {
    local name=$1
    shift
    [[ ! -e $STATE/$name.log ]] || mv -f "$STATE/$name.log" "$STATE/$name.log.1"
    TIDEMILL_SERVICE=$STATE/$name setsid nohup "$@" >"$STATE/$name.log" 2>&1 </dev/null 9>&- &
    echo $! >"$STATE/$name.pid"
}

# http METHOD PORT PATH [HEADER]: true if the answer's status is 200. Needs neither curl nor python.
http() (
    { exec 3<>"/dev/tcp/127.0.0.1/$2"; } 2>/dev/null || exit 1
    printf '%s %s HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n%s\r\n\r\n' \
        "$1" "$3" "${4:-Accept: */*}" >&3
    [[ $(timeout 5 head -n 1 <&3 2>/dev/null) == "HTTP/1."?" 200"* ]]
)
