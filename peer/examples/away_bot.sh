#!/bin/sh
# Tells everybody who writes, once, that you are away:
#
#     peer run --on-message ./away_bot.sh
#
# It gets each message as one line of JSON on its standard input, and the profile in PEER_PROFILE. Whom it has told is in
# the folder away-told of the profile; remove that when you are back. No more than a POSIX shell is needed.
set -eu

IFS= read -r message

# A quote within a text is \" in JSON, so nothing that somebody writes looks like a member.
from=$(printf '%s\n' "$message" | sed -n 's/.*"with":"\([^"]*\)".*/\1/p')

told="$PEER_PROFILE/away-told"
mkdir -p "$told"
[ ! -e "$told/for-$from" ] || exit 0

# It is in the outbox then, and goes out as soon as that person can be reached.
peer send --no-wait --to "$from" "I am away, and read your message when I am back."
: > "$told/for-$from"
