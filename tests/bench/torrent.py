"""BitTorrent for the benchmarks, by libtorrent: `seed FILE` makes FILE.torrent and gives FILE to
whoever asks; `get TORRENT HOST:PORT DIR` has it from that one peer. No tracker, no DHT: what is
measured is the transfer, not the search for peers. Plain TCP, as everything beside it."""
import os
import sys
import time

import libtorrent as lt


def session():
    off = dict.fromkeys(
        ["enable_dht", "enable_lsd", "enable_upnp", "enable_natpmp", "enable_incoming_utp", "enable_outgoing_utp"],
        False,
    )
    # One address is all that a test machine has; and nothing waits for a round of choking.
    settings = {"allow_multiple_connections_per_ip": True, "unchoke_interval": 1, "alert_mask": 0}
    return lt.session({"listen_interfaces": "127.0.0.1:0", **off, **settings})


def seed(path):
    files = lt.file_storage()
    lt.add_files(files, path)
    made = lt.create_torrent(files, flags=lt.create_torrent.v1_only)
    lt.set_piece_hashes(made, os.path.dirname(path))
    with open(path + ".torrent", "wb") as torrent:
        torrent.write(lt.bencode(made.generate()))
    giver = session()
    handle = giver.add_torrent({"ti": lt.torrent_info(path + ".torrent"), "save_path": os.path.dirname(path)})
    while not handle.status().is_seeding:
        time.sleep(0.05)
    print(f"listening on 127.0.0.1:{giver.listen_port()}", flush=True)
    while True:
        time.sleep(3600)


def get(torrent, address, where):
    host, port = address.rsplit(":", 1)
    taker = session()
    handle = taker.add_torrent({"ti": lt.torrent_info(torrent), "save_path": where})
    handle.connect_peer((host, int(port)))
    while not handle.status().is_seeding:
        time.sleep(0.005)


{"seed": seed, "get": get}[sys.argv[1]](*sys.argv[2:])
