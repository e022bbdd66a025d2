#!/bin/sh
# fstest.sh stresses a mount as a file system, with programs that know nothing of mail: the stressors of stress-ng that
# check what they read, fio with checksums, and pjdfstest if its directory (a built checkout of
# https://github.com/pjd/pjdfstest) is given. Needs root. What fails, and why that is right: docs/fuse.md.
#
#   fstest.sh [PJDFSTEST]
set -eu

SECONDS_EACH=${SECONDS_EACH:-2}
STRESSORS='access chmod chown copy-file dentry dir dirdeep dirmany fallocate filename flock fpunch fstat getdent hdd lease
link locka lockf lockofd mknod mmap msync open rename seek symlink sync-file touch utime xattr'

[ "$(id -u)" = 0 ] || { echo "fstest.sh: needs root" >&2; exit 77; }
here=$(cd "$(dirname "$0")" && pwd)
dsyncfs=$here/../bin/dsyncfs
"$here/setup.sh" stress
pjdfstest=${1:+$(cd "$1" && pwd)}

dir=$(mktemp -d "${TMPDIR:-/tmp}/dsyncfs-fstest.XXXXXX")
chmod 755 "$dir"
cd "$dir" # fio leaves its state where it runs
export HOME="$dir" XDG_STATE_HOME="$dir/state" XDG_CONFIG_HOME="$dir/config" XDG_RUNTIME_DIR="$dir"
finish() {
	cd /
	"$dsyncfs" umount --force "$dir/mnt" 2>/dev/null || true
	mountpoint -q "$dir/mnt" || rm -rf "$dir"
}
trap finish EXIT
trap 'exit 130' INT TERM
mkdir -p "$dir/mnt" "$dir/mail/cur" "$dir/mail/new" "$dir/mail/tmp" "$dir/remote"
"$dsyncfs" -o "mail_location=maildir:$dir/mail,allow_other" mount "$dir/mnt" "maildir:$dir/remote"
work=$dir/mnt/work
mkdir "$work"

failed=
for s in $STRESSORS; do
	if out=$(stress-ng --temp-path "$work" --verify --timeout "${SECONDS_EACH}s" "--$s" 2 2>&1); then
		echo "ok      stress-ng $s"
	else
		echo "FAILED  stress-ng $s"
		echo "$out" | sed 's/^/        /' | grep -v 'dispatching\|setting to\|run time\|defaulting' | head -8
		failed="$failed $s"
	fi
done
for engine in psync mmap; do
	if out=$(fio --name=verify --directory="$work" --ioengine=$engine --rw=randrw --bs=4k --size=32m --verify=crc32c --numjobs=2 --minimal 2>&1); then
		echo "ok      fio $engine"
	else
		echo "FAILED  fio $engine"
		echo "$out" | tail -5 | sed 's/^/        /'
		failed="$failed fio-$engine"
	fi
done
if [ -n "$pjdfstest" ]; then
	mkdir "$work/pjd"
	(cd "$work/pjd" && prove -Q -r "$pjdfstest/tests") || failed="$failed pjdfstest"
fi
rm -rf "$work"
[ -z "$failed" ] || { echo "failed:$failed" >&2; exit 1; }
