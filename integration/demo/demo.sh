#!/bin/bash
# demo.sh shows what dsyncfs does, on real mail and through a real ssh server, all below ./demo of the checkout.
#
#   demo.sh start    mount a mailbox that is mirrored with a second one, and change mail on both sides
#   demo.sh clean    end what start has started and remove ./demo
#
# Both "hosts" are this machine: demo/here is the mailbox that is mounted at demo/mail, demo/there the one behind ssh.
set -euo pipefail
export LC_ALL=C.UTF-8

root=$(cd "$(dirname "$0")/../.." && pwd)
demo=$root/demo
dsyncfs=$root/bin/dsyncfs
mnt=$demo/mail
remote=ssh://there

say() { printf '\n%s\n' "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }
show() { printf '  $ %s\n' "${*//$root\//}"; }
run() {
	show "$@"
	"$@" 2>&1 | sed 's/^/  /'
}
cli() { run "$dsyncfs" -c "$demo/dsyncfs.toml" "$@"; }
now() { date +%s%3N; }
count() { find "$1" \( -path '*/cur/*' -o -path '*/new/*' \) -type f 2>/dev/null | wc -l; }

# clean ends only what its files say that start has started.
clean() {
	[ -d "$demo" ] || return 0
	if mountpoint -q "$mnt" 2>/dev/null || [ "$(stat -c %F "$mnt" 2>&1)" != directory ] && [ -f "$demo/dsyncfs.toml" ]; then
		"$dsyncfs" -c "$demo/dsyncfs.toml" umount "$mnt" 2>/dev/null || fusermount3 -uz "$mnt" 2>/dev/null || true
	fi
	if [ -f "$demo/ssh/pid" ]; then
		pid=$(cat "$demo/ssh/pid")
		# The number may belong to somebody else by now.
		if tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$demo/ssh/sshd_config"; then
			kill "$pid"
			while [ -e "/proc/$pid" ]; do sleep 0.05; done
		fi
	fi
	! mountpoint -q "$mnt" 2>/dev/null || fail "$mnt is still mounted; something uses it"
	rm -rf "$demo"
}

# mailbox_of_real_mail makes demo/here: about 6,000 mails of the SpamAssassin corpus in five mailboxes. One awk for all:
# it drops the mbox line "From ", and gives each mail a unique name and flags.
mailbox_of_real_mail() {
	local corpus box dir
	corpus=$("$root/integration/setup.sh" corpus)
	# &APw- is ü as Maildir writes it.
	set -- INBOX Lists Lists/Archive Spam 'Entw&APw-rfe'
	for dir in "$corpus"/*/; do
		box=$demo/here
		[ "$1" = INBOX ] || box=$demo/here/.${1//\//.}
		mkdir -p "$box/cur" "$box/new" "$box/tmp"
		[ "$1" = INBOX ] || touch "$box/maildirfolder"
		find "$dir" -name '*.txt' -print0 | sort -z | LC_ALL=C xargs -0 awk -v box="$box" -v host="d$#" '
			FNR == 1 {
				close(out)
				id = FILENAME
				gsub(/.*\/|\.txt$|[^0-9a-f]/, "", id)
				flags = n % 7 == 0 ? "RS" : n % 5 == 0 ? "FS" : "S"
				out = sprintf("%s/cur/%d.M%dP1_%s.%s:2,%s", box, 1030000000 + n, n, id, host, flags)
				n++
				if (/^From /) next
			}
			{ print > out }'
		find "$box/cur" -type f -exec touch -d '2002-09-01 12:00' {} +
		[ $# -eq 1 ] || shift
	done
	printf 'V\t2\n\nLists\nLists\tArchive\nSpam\n' >"$demo/here/subscriptions"
}

# ssh_server starts sshd for the user who runs this, with keys of its own, on a free port of the loopback interface.
ssh_server() {
	local dir=$demo/ssh
	mkdir -m 700 "$dir"
	ssh-keygen -q -t ed25519 -N '' -C 'dsyncfs demo' -f "$dir/host_key"
	ssh-keygen -q -t ed25519 -N '' -C 'dsyncfs demo' -f "$dir/key"
	cp "$dir/key.pub" "$dir/authorized_keys"
	[ "$(id -u)" != 0 ] || mkdir -p /run/sshd
	for _ in 1 2 3 4 5; do
		port=$((20000 + RANDOM % 20000))
		cat >"$dir/sshd_config" <<-EOF
			ListenAddress 127.0.0.1
			Port $port
			HostKey $dir/host_key
			AuthorizedKeysFile $dir/authorized_keys
			PidFile $dir/pid
			StrictModes no
			UsePAM no
			PasswordAuthentication no
			KbdInteractiveAuthentication no
			PermitRootLogin prohibit-password
		EOF
		rm -f "$dir/log"
		/usr/sbin/sshd -f "$dir/sshd_config" -E "$dir/log"
		await 'grep -q "Server listening\|Bind to port" "$demo/ssh/log"'
		grep -q 'Server listening' "$dir/log" && break
	done
	[ -f "$dir/pid" ] || fail "sshd does not start: $(cat "$dir/log")"
	printf '[127.0.0.1]:%d %s\n' "$port" "$(cut -d' ' -f1,2 "$dir/host_key.pub")" >"$dir/known_hosts"
	cat >"$dir/config" <<-EOF
		Host there
		    HostName 127.0.0.1
		    Port $port
		    User $(id -un)
		    IdentityFile $dir/key
		    IdentitiesOnly yes
		    UserKnownHostsFile $dir/known_hosts
	EOF
}

settings() {
	cat >"$demo/dsyncfs.toml" <<-EOF
		mail_location  = "maildir:$demo/here"
		state_dir      = "$demo/state-here"
		ssh_config     = "$demo/ssh/config"
		server_command = "$dsyncfs -o mail_location=maildir:$demo/there -o state_dir=$demo/state-there dsync-server"

		[mirror.demo]
		remote     = "$remote"
		mountpoint = "$mnt"
	EOF
}

# await waits until a shell condition holds; the patience is for slow machines.
await() {
	local end=$((SECONDS + 30))
	until eval "$1"; do
		[ $SECONDS -lt $end ] || fail "not after 30 seconds: $1"
		sleep 0.002
	done
}

# timed says how long a condition took to come true since the change before it.
timed() {
	local start=$1
	await "$3"
	printf '  %s after %d ms\n' "$2" $(($(now) - start))
}

# deliver puts a mail into a Maildir as delivery agents do.
deliver() {
	printf 'From: Ann <ann@example.org>\nTo: you\nSubject: %s\nMessage-ID: <%s@example.org>\nDate: %s\n\n%s\n' \
		"$3" "$2" "$(date -R)" "Hello." >"$1/tmp/$2"
	mv "$1/tmp/$2" "$1/new/$2"
}

# has reports whether a mail of this demo is in a Maildir. Each location names its files itself, so it is looked for by its
# Message-ID, among the mails of the last minutes.
has() { [ -n "$(name_of "$@")" ]; }
flagged() { [[ $(name_of "$@") == *:2,*F* ]]; }
name_of() {
	find "$1/new" "$1/cur" -type f -newermt '10 minutes ago' -exec grep -ls "^Message-ID: <$2@" {} + 2>/dev/null || true
}

start() {
	[ -x "$dsyncfs" ] || fail "no $dsyncfs; run: make build"
	[ -e /dev/fuse ] || fail 'no /dev/fuse: the kernel module fuse is missing, or this container may not use it'
	clean
	mkdir "$demo" "$mnt"

	say 'A mailbox of real mail, a second location behind ssh, and a mount:'
	mailbox_of_real_mail
	ssh_server
	settings
	printf '  demo/here has %d mails, demo/there does not exist yet, sshd listens on 127.0.0.1:%d\n' \
		"$(count "$demo/here")" "$port"
	local begin
	begin=$(now)
	cli mount demo
	timed "$begin" 'both sides have all mails' \
		'[ "$(count "$demo/there")" = "$(count "$demo/here")" ]'
	cli sync "$mnt"

	say 'A mail delivered into the mount arrives at the other side, and the other way round:'
	begin=$(now)
	deliver "$mnt" 1.demo 'from here'
	timed "$begin" 'delivered in demo/mail: in demo/there' 'has "$demo/there" 1.demo'
	begin=$(now)
	deliver "$demo/there" 2.demo 'from there'
	timed "$begin" 'delivered in demo/there: in demo/mail' 'has "$mnt" 2.demo'

	say 'So does a flag:'
	begin=$(now)
	mv "$mnt/new/1.demo" "$mnt/cur/1.demo:2,F"
	timed "$begin" 'flagged in demo/mail: in demo/there' 'flagged "$demo/there" 1.demo'
	begin=$(now)
	mv "$demo/there/new/2.demo" "$demo/there/cur/2.demo:2,F"
	timed "$begin" 'flagged in demo/there: in demo/mail' 'flagged "$mnt" 2.demo'

	say 'And an expunge:'
	begin=$(now)
	rm "$mnt/cur/1.demo:2,F"
	timed "$begin" 'removed in demo/mail: gone from demo/there' '! has "$demo/there" 1.demo'
	begin=$(now)
	rm "$demo/there/cur/2.demo:2,F"
	timed "$begin" 'removed in demo/there: gone from demo/mail' '! has "$mnt" 2.demo'

	say 'What the mirror says of itself:'
	cli status "$mnt"
	say 'Both sides compared, mail by mail:'
	cli sync "$mnt"
	cli -v verify "$remote"
	echo '  exit status 0: equal'

	say "It stays mounted at demo/mail for you to look at, for example with: neomutt -f demo/mail
To see what was changed through it:  bin/dsyncfs -c demo/dsyncfs.toml log demo/mail
To unmount:                          bin/dsyncfs -c demo/dsyncfs.toml umount demo/mail
To end and remove everything:        make demo-clean"
}

case ${1:-} in
start) start ;;
clean) clean ;;
*)
	echo 'usage: demo.sh start|clean' >&2
	exit 64
	;;
esac
