# Disks served by the ringback daemon, driven by its own commands.
# shellcheck shell=bash
# shellcheck disable=SC2034  # used by lib.sh
backend_kind=vbd3
ringback=/disk/lab/ringback

# backend_start [OPTION of `ringback serve`]...
backend_start() {
  rm -f /run/lab/daemon.status
  # in a session of its own, so that the end of the scenario does not end it
  setsid bash -c '"$@" & echo $! >/run/lab/daemon.pid; wait $!; echo $? >/run/lab/daemon.status' daemon \
    "$ringback" serve --kind $backend_kind --hypervisor xen --log-level debug "$@" </dev/null >>/run/lab/daemon.log 2>&1 &
  await 30 daemon_answers
}

# interfaces_start [OPTION of `ringback serve`]...: disks and network interfaces
interfaces_start() { backend_start --kind vif "$@"; }
interfaces_stop() { backend_stop; }

daemon_answers() { "$ringback" list >/dev/null; }

# A clean stop: SIGTERM ends the daemon within half a minute, with status 0.
backend_stop() {
  [ -e /run/lab/daemon.pid ] || return 0
  local pid
  pid=$(cat /run/lab/daemon.pid)
  daemon_gone "$pid" || kill -TERM "$pid"
  await 30 daemon_gone "$pid" || { kill -KILL "$pid"; return 1; }
  await 30 test -e /run/lab/daemon.status
  [ "$(cat /run/lab/daemon.status)" = 0 ]
}

# backend_kill: the daemon gets no chance to say goodbye
backend_kill() {
  local pid
  pid=$(cat /run/lab/daemon.pid)
  kill -KILL "$pid"
  await 30 daemon_gone "$pid"
}

# daemon_holds FILE: whether the daemon has it open
daemon_holds() { daemon_files | grep -qxF "$1"; }
# daemon_files: what the daemon has open
# shellcheck disable=SC2012  # a process for each file takes seconds here
daemon_files() { ls -l "/proc/$(cat /run/lab/daemon.pid)/fd" | sed -n 's/.* -> //p'; }
daemon_gone() { [ ! -e "/proc/$1" ]; }
backend_last_words() { echo "status $(cat /run/lab/daemon.status 2>/dev/null), $(tail -1 /run/lab/daemon.log)"; }

# backend_attach DOMAIN VDEV IMAGE [OPTION]...
backend_attach() { "$ringback" attach --domain "$1" --vdev "$2" --kind $backend_kind --timeout 60 "${@:4}" "$3"; }
backend_detach() { "$ringback" detach --domain "$1" --vdev "$2" --kind $backend_kind --timeout 60; }

# the daemon itself has to notice that a domain is gone
backend_forget() { :; }

# backend_counter DOMAIN VDEV NAME
backend_counter() {
  "$ringback" list --json | jq --argjson domain "$1" --argjson vdev "$(vdev_number "$2")" --arg name "$3" \
    '.[] | select(.domain == $domain and .vdev == $vdev) | .statistics[$name]'
}

# ask VERB GUEST VDEV [OPTION]...: pause, resume, resize, insert, eject, limit, ... of the daemon
ask() { "$ringback" "$1" --domain "$(guest_id "$2")" --vdev "$3" --kind $backend_kind "${@:4}"; }

# error_told GUEST VDEV WORD: whether the backend's error node speaks of it
error_told() {
  xenstore-read "/local/domain/0/error/backend/$backend_kind/$(guest_id "$1")/$(vdev_number "$2")/error" 2>/dev/null | grep -F "$3"
}

# backend_list: one line for each device the daemon knows, nothing when there is none
backend_list() { "$ringback" list --json | jq -r '.[] | select(.vdev) | "\(.domain) \(.vdev) \(.state)"'; }
