#!/usr/bin/env python3
"""Answers each message with its own text. Uses the socket of a running 'peer' program, as peer/API.md describes it.

    peer run &
    python3 echo_bot.py ~/.local/share/rdv-peer/default

The argument is the folder of the profile, which 'peer status' shows. The file echo-cursor in it has the place of the last
message that was answered: what comes while this program is not there is answered later, and nothing twice. At its first
start it begins with what comes from then on.

It answers whoever writes, another bot, too: two of this kind do not stop. Only the Python standard library is needed.
"""

import collections
import json
import os
import socket
import sys
import time

PAGE = 100


class Failed(Exception):
    """The error of a request, as the interface describes it."""


class Peer:
    """A connection to the program that runs the profile."""

    def __init__(self, folder):
        # A long path does not fit into a socket's address.
        os.chdir(folder)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect("socket")
        self.lines = self.socket.makefile("r", encoding="utf-8", newline="\n")
        self.notifications = collections.deque()
        self.last_id = 0

    def call(self, method, params=None):
        """Asks, and waits for the reply. Notifications that come before it wait for their turn."""
        self.last_id += 1
        request = {"jsonrpc": "2.0", "id": self.last_id, "method": method}
        if params is not None:
            request["params"] = params
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            message = self.read()
            if message.get("id") == self.last_id:
                if "error" in message:
                    raise Failed(message["error"]["message"])
                return message["result"]
            self.notifications.append(message)

    def notification(self):
        """The next notification, waited for."""
        return self.notifications.popleft() if self.notifications else self.read()

    def read(self):
        line = self.lines.readline()
        if not line:
            raise EOFError("the 'peer' program has ended")
        return json.loads(line)


class Place:
    """How far the messages are dealt with, on disk."""

    def __init__(self, first):
        try:
            with open("echo-cursor", encoding="ascii") as file:
                self.cursor = int(file.read())
        except FileNotFoundError:
            self.move(first)

    def move(self, cursor):
        self.cursor = cursor
        with open("echo-cursor.new", "w", encoding="ascii") as file:
            file.write(f"{cursor}\n")
        os.replace("echo-cursor.new", "echo-cursor")


def handle(peer, place, message):
    """Answers a message, unless that has been done."""
    if message["cursor"] <= place.cursor:
        return
    # First: rather no answer than two.
    place.move(message["cursor"])
    if message["direction"] != "received":
        return
    answer = {"to": [message["with"]], "body": "echo: " + message["body"], "sent": int(time.time() * 1000)}
    try:
        peer.call("send", answer)
        peer.call("mark_read", {"ids": [message["id"]]})
    except Failed as error:
        # Such as a text that is too long with the word before it.
        print(f"could not answer message {message['cursor']}: {error}", file=sys.stderr)


def main():
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} FOLDER-OF-THE-PROFILE")
    peer = Peer(sys.argv[1])
    version = peer.call("version")["version"]
    if version["api"] != 1:
        sys.exit(f"{version['program']} speaks version {version['api']} of its interface, and this program version 1")
    # What comes from here on is told, and what came before is asked for: nothing is missed between the two.
    peer.call("subscribe")
    place = Place(peer.call("recorded", {"after": 0, "limit": 0})["recorded"]["last"])
    print("ready", flush=True)
    while True:
        page = peer.call("recorded", {"after": place.cursor, "limit": PAGE})["recorded"]["messages"]
        for message in page:
            handle(peer, place, message)
        if not page:
            break
    while True:
        notification = peer.notification()
        if notification["method"] == "recorded":
            handle(peer, place, notification["params"])


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except (OSError, EOFError, Failed) as error:
        sys.exit(f"{error}; is 'peer run' running?")
