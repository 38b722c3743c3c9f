#!/bin/sh
# Appends every message, received and sent, to a file, and goes on where it stopped:
#
#     ./log_bot.sh messages.ndjson
#
# Each line of the file is one message as 'peer events' tells it. 'peer run' need not run, but may. No more than a POSIX
# shell is needed.
set -eu

file=${1:?usage: $0 FILE}
touch "$file"

# The cursor is the first member of a message, so nothing that somebody writes is taken for it.
since=$(sed -n '$s/^{"method":"recorded","params":{"cursor":\([0-9]*\).*/\1/p' "$file")

# Whoever ends this script ends what it has started: a shell waits for a pipe, and hears nothing meanwhile.
folder=$(mktemp -d)
events='' log=''
trap 'kill $events $log 2>/dev/null; rm -rf "$folder"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
mkfifo "$folder/events"

peer events --since "${since:-0}" > "$folder/events" &
events=$!
while IFS= read -r event; do
    case $event in
        '{"method":"recorded",'*) printf '%s\n' "$event" >> "$file" ;;
    esac
done < "$folder/events" &
log=$!
wait "$log"
