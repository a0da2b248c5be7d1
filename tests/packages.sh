#!/bin/sh
# Install the Debian packages that are missing, and start none of the servers that come with them.
#
#   tests/packages.sh PACKAGE...
#
# dpkg asks policy-rc.d before it starts a server. While this runs, the answer is no (101); afterwards the
# machine has the policy that it had. The exit status is 0 only if the packages are there and configured.
set -eu

policy=${AGS_TEST_POLICY:-/usr/sbin/policy-rc.d}
kept=$policy.kept-by-ags
refusal='exit 101 # by tests/packages.sh of AGS'

missing=
for package; do
    status=$(dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null || true)
    [ "$status" = 'install ok installed' ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
    echo "Not installed:$missing. Install them as root: apt-get install$missing" >&2
    exit 1
fi

restore() {
    if grep --quiet --fixed-strings "$refusal" "$policy" 2>/dev/null; then rm "$policy"; fi
    if [ -e "$kept" ]; then mv "$kept" "$policy"; fi
}

restore # after a run that was killed
trap restore EXIT
trap 'exit 1' HUP INT TERM
if [ -e "$policy" ]; then mv "$policy" "$kept"; fi
printf '#!/bin/sh\n%s\n' "$refusal" >"$policy"
chmod 755 "$policy"

export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet=2
# Glewlwyd reads one of its documents while it is installed; small images leave documents out.
# shellcheck disable=SC2086 # a list of words
apt-get install --yes --quiet=2 --no-install-recommends \
    --option 'DPkg::Options::=--path-include=/usr/share/doc/glewlwyd/*' $missing >/dev/null
unconfigured=$(dpkg --audit)
if [ -n "$unconfigured" ]; then
    printf '%s\n' "$unconfigured" >&2
    exit 1
fi
