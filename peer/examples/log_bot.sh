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

peer events --since "${since:-0}" | while IFS= read -r event; do
    case $event in
        '{"method":"recorded",'*) printf '%s\n' "$event" >> "$file" ;;
    esac
done
