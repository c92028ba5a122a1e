# Sourced by quickstart.sh and test.sh: installs the Debian packages it is given that are missing.
# With apt-get and root (or sudo); elsewhere it names what to install and goes on.

build_packages="gcc meson ninja-build pkg-config libprotobuf-c-dev protobuf-c-compiler libdnnl-dev
    libturbojpeg0-dev libspng-dev libjansson-dev libyaml-dev librandom123-dev libxxhash-dev zlib1g-dev"

install_packages() {
    missing=
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' ||
            missing="$missing $package"
    done
    [ -z "$missing" ] && return 0
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "please install what corresponds to these Debian packages:$missing" >&2
        return 0
    fi
    as_root=
    [ "$(id -u)" -eq 0 ] || as_root=sudo
    echo "installing$missing"
    # an old list of packages is the usual reason for a failure: refresh it once
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1 || {
        $as_root apt-get update -qq &&
            $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    }
}
